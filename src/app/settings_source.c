/* SPDX-License-Identifier: Apache-2.0
 *
 * The files of a configuration: each is read once, kept whole, and named in messages by the path it
 * was opened under. settings_expand() packs them into one text and settings_unpack() takes them out
 * again, so that a process without a file system parses exactly the same bytes and finds the same
 * lines.
 *
 * The text:  holdfast-settings 1 LF, then items: NAME LENGTH LF, LENGTH bytes, LF. Items are
 * "machine" and "directory" (once, first), "version" (that of the cluster's settings, in decimal,
 * if they are there), "yields" (empty; if they give way to the node's own file), then for each
 * source "path" ("shared" for what came with the cluster's settings) and "content", or "withheld"
 * (empty) for a secret that the reader of the text is not to have.
 */
#include "app/settings_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_LINE "holdfast-settings 1\n"
#define SETTINGS_SHARED "settings"
#define CLUSTER_FILE "cluster:"

static bool add_source(struct settings *settings, struct slice path, struct slice content,
                       unsigned readers, uint32_t *ret_source)
{
    if (settings->sources == NULL) {
        settings->sources =
            settings_allocate(settings, SETTINGS_SOURCES_MAX, sizeof(struct source));
        if (settings->sources == NULL) {
            return false;
        }
    }
    *ret_source = settings->source_count++;
    settings->sources[*ret_source] =
        (struct source){.path = path, .content = content, .readers = (uint8_t)readers};
    settings->source_bytes += content.length;
    return true;
}

bool settings_is_shared(const struct settings *settings, struct place at)
{
    return at.source < settings->source_count && settings->sources[at.source].shared;
}

const char *settings_line(struct settings *settings, struct place at, struct place other)
{
    struct slice path =
        other.source < settings->source_count ? settings->sources[other.source].path : SLICE_EMPTY;
    size_t size = path.length + 64;
    char *text = settings_allocate_tree(settings, size, 1);
    if (text == NULL) {
        return "";
    }
    if (other.source == at.source || path.length == 0) {
        snprintf(text, size, "line %u", other.line);
    } else if (other.source == settings->shared) {
        snprintf(text, size, "line %u of the cluster's settings", other.line);
    } else {
        bool own = settings_is_shared(settings, at) && !settings_is_shared(settings, other);
        snprintf(text, size, "line %u of %s%.*s", other.line, own ? "the node's own file " : "",
                 SLICE_PRINT(path));
    }
    return text;
}

bool settings_is_cluster_file(struct slice path)
{
    struct slice prefix = SLICE_LITERAL(CLUSTER_FILE);
    return slice_equal(slice_take(path, prefix.length), prefix);
}

static bool add_shared(struct settings *settings, struct slice path, struct slice content,
                       bool unused)
{
    uint32_t index;
    if (settings->source_count == SETTINGS_SOURCES_MAX ||
        content.length > SETTINGS_BYTES_MAX - settings->source_bytes ||
        !add_source(settings, path, content, 0, &index)) {
        return false;
    }
    settings->sources[index].shared = true;
    settings->sources[index].unused = unused;
    return true;
}

/* The prefix and the name, ending in NUL. */
static struct slice cluster_file_path(struct settings *settings, struct slice name)
{
    struct slice prefix = SLICE_LITERAL(CLUSTER_FILE);
    char *path = settings_allocate(settings, prefix.length + name.length + 1, 1);
    if (path == NULL) {
        return SLICE_EMPTY;
    }
    memcpy(path, prefix.data, prefix.length);
    memcpy(path + prefix.length, name.data, name.length);
    return slice_make(path, prefix.length + name.length);
}

bool settings_take_version(struct settings *settings, const struct settings_version *version)
{
    struct slice text = arena_copy(&settings->arena, version->text);
    uint32_t shared = settings->source_count;
    if (text.data == NULL || !add_shared(settings, SLICE_LITERAL(SETTINGS_SHARED), text, false)) {
        return false;
    }
    settings->shared = shared;
    settings->config.settings_version = version->number;
    for (uint32_t i = 0; i < version->file_count; i++) {
        const struct settings_file *file = &version->files[i];
        struct slice path = cluster_file_path(settings, file->name);
        struct slice content = arena_copy(&settings->arena, file->content);
        if (path.data == NULL || content.data == NULL ||
            !add_shared(settings, path, content, true)) {
            return false;
        }
    }
    return true;
}

static uint32_t find_source(const struct settings *settings, struct slice path)
{
    for (uint32_t i = 0; i < settings->source_count; i++) {
        if (slice_equal(settings->sources[i].path, path)) {
            return i;
        }
    }
    return NO_INDEX;
}

bool settings_is_guarded_file(const struct settings *settings, struct slice name)
{
    struct slice prefix = SLICE_LITERAL(CLUSTER_FILE);
    for (uint32_t i = 0; i < settings->source_count; i++) {
        const struct source *source = &settings->sources[i];
        if (source->shared && settings_is_cluster_file(source->path) &&
            slice_equal(slice_skip(source->path, prefix.length), name)) {
            return source->secret || source->unused;
        }
    }
    return false;
}

/* `path` as seen from the directory of the file that names it. */
static struct slice resolve(struct settings *settings, const struct place *at, struct slice path)
{
    struct slice base = SLICE_EMPTY;
    if (at != NULL && !settings_is_cluster_file(path) &&
        (path.length == 0 || path.data[0] != '/')) {
        base = settings->sources[at->source].path;
        size_t slash = slice_find_last(base, '/');
        base = slice_take(base, slash == base.length ? 0 : slash + 1);
    }
    char *joined = settings_allocate(settings, base.length + path.length + 1, 1);
    if (joined == NULL) {
        return SLICE_EMPTY;
    }
    if (base.length > 0) {
        memcpy(joined, base.data, base.length);
    }
    if (path.length > 0) {
        memcpy(joined + base.length, path.data, path.length);
    }
    return slice_make(joined, base.length + path.length);
}

/* NULL or why not. */
static const char *read_descriptor(struct settings *settings, int fd, struct slice *ret_content)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return strerror(errno);
    }
    if (!S_ISREG(status.st_mode)) {
        return S_ISDIR(status.st_mode) ? "is a directory" : "is not an ordinary file";
    }
    if ((uint64_t)status.st_size > SETTINGS_BYTES_MAX - settings->source_bytes) {
        return "the configuration is too large";
    }
    size_t size = (size_t)status.st_size;
    uint8_t *bytes = settings_allocate(settings, size + 1, 1);
    if (bytes == NULL) {
        return "out of memory";
    }
    size_t length = 0;
    while (length < size) {
        ssize_t got = read(fd, bytes + length, size - length);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return strerror(errno);
        }
        if (got == 0) {
            break; /* cut while we read */
        }
        length += (size_t)got;
    }
    *ret_content = slice_make(bytes, length);
    return NULL;
}

static const char *read_file(struct settings *settings, const char *path, struct slice *ret_content)
{
    /* Not blocking: a FIFO in place of a file must not hang the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return strerror(errno);
    }
    const char *why = read_descriptor(settings, fd, ret_content);
    close(fd);
    return why;
}

bool settings_shared_file(struct settings *settings, struct slice path, unsigned readers,
                          uint32_t *ret_source)
{
    *ret_source = find_source(settings, path);
    if (*ret_source == NO_INDEX || !settings->sources[*ret_source].shared) {
        return false;
    }
    struct source *source = &settings->sources[*ret_source];
    source->readers = (uint8_t)(source->unused ? readers : source->readers | readers);
    source->unused = false;
    return true;
}

bool settings_waits(struct settings *settings, struct place at, struct slice what)
{
    if (settings->config.joining) {
        settings_warn(settings, at, "'%.*s' is not here before the cluster's settings",
                      SHOWN(what));
        settings->waits = true;
    }
    return settings->config.joining;
}

static bool take_file(struct settings *settings, const struct place *at, struct slice path,
                      unsigned readers, uint32_t *ret_source)
{
    struct place place = at != NULL ? *at : (struct place){NO_INDEX, 0};
    if (path.length == 0 || slice_find(path, 0) != path.length) {
        settings_complain(settings, place, "a file name is needed");
        return false;
    }
    if (settings_is_shared(settings, place) && !settings_is_cluster_file(path)) {
        settings_complain(settings, place,
                          "'%.*s' is a file of one machine; give it to the settings and name it "
                          "cluster:NAME",
                          SHOWN(path));
        return false;
    }
    struct slice full = resolve(settings, at, path);
    if (full.data == NULL) {
        return false;
    }
    *ret_source = find_source(settings, full);
    if (*ret_source == NO_INDEX && settings_is_cluster_file(path) &&
        settings_waits(settings, place, path)) {
        return false;
    }
    if (*ret_source == NO_INDEX && settings_is_cluster_file(path)) {
        settings_complain(settings, place, "%.*s: is not in the cluster's settings", SHOWN(path));
        return false;
    }
    if (*ret_source != NO_INDEX && settings->sources[*ret_source].unused) {
        settings->sources[*ret_source].unused = false;
        settings->sources[*ret_source].readers = (uint8_t)readers;
        return true;
    }
    if (*ret_source != NO_INDEX) {
        /* What one reads as a list must not be withheld from him as a secret. */
        const struct source *known = &settings->sources[*ret_source];
        bool same = (settings->sealed && !known->shared) || (known->readers != 0) == (readers != 0);
        if (!same) {
            settings_complain(settings, place, "%.*s: a file with a secret serves nothing else",
                              SLICE_PRINT(full));
        }
        settings->sources[*ret_source].readers |= (uint8_t)readers;
        return same;
    }
    if (settings->source_count == SETTINGS_SOURCES_MAX) {
        settings_complain(settings, place, "more than %d files", SETTINGS_SOURCES_MAX);
        return false;
    }
    struct slice content;
    const char *why = settings->sealed ? "is not in the expanded text"
                                       : read_file(settings, (const char *)full.data, &content);
    if (why != NULL) {
        settings_complain(settings, place, "%.*s: %s", SLICE_PRINT(full), why);
        return false;
    }
    return add_source(settings, full, content, readers, ret_source);
}

bool settings_source(struct settings *settings, const struct place *at, struct slice path,
                     uint32_t *ret_source)
{
    return take_file(settings, at, path, 0, ret_source);
}

bool settings_withheld_file(struct settings *settings, const struct place *at, struct slice path,
                            unsigned readers, uint32_t *ret_source)
{
    return take_file(settings, at, path, readers, ret_source);
}

bool settings_found_file(struct settings *settings, struct slice path, unsigned readers,
                         settings_file_fn *is_good, uint32_t *ret_source)
{
    struct slice content;
    *ret_source = find_source(settings, path);
    if (*ret_source != NO_INDEX) {
        settings->sources[*ret_source].readers |= (uint8_t)readers;
        return true;
    }
    return !settings->sealed && settings->source_count < SETTINGS_SOURCES_MAX &&
           read_file(settings, (const char *)path.data, &content) == NULL && is_good(content) &&
           add_source(settings, path, content, readers, ret_source);
}

/* Everybody on the machine may read it. Only a warning: the directory may forbid it. */
static bool is_public(const struct settings *settings, const struct source *source)
{
    struct stat status;
    return !settings->sealed && !source->shared &&
           stat((const char *)source->path.data, &status) == 0 && (status.st_mode & S_IROTH) != 0;
}

static void warn_if_public(struct settings *settings, const struct place *at,
                           const struct source *source)
{
    if (is_public(settings, source)) {
        settings_warn(settings, *at, "%.*s: everybody on this machine may read it",
                      SLICE_PRINT(source->path));
    }
}

bool settings_secret_file(struct settings *settings, const struct place *at, struct slice path,
                          unsigned readers, uint32_t *ret_source)
{
    if (!take_file(settings, at, path, readers, ret_source)) {
        return false;
    }
    settings->sources[*ret_source].secret = true;
    warn_if_public(settings, at, &settings->sources[*ret_source]);
    return true;
}

bool settings_secret(struct settings *settings, const struct place *at, struct slice path,
                     unsigned readers, size_t most, struct slice *ret_secret)
{
    uint32_t index;
    if (!take_file(settings, at, path, readers, &index)) {
        return false;
    }
    struct source *source = &settings->sources[index];
    source->secret = true;
    struct slice secret = source->content;
    if (secret.length > 0 && secret.data[secret.length - 1] == '\n') {
        secret.length--;
    }
    if (secret.length > 0 && secret.data[secret.length - 1] == '\r') {
        secret.length--;
    }
    *ret_secret = secret;
    if (settings->sealed && secret.length == 0) {
        return true;
    }
    if (secret.length == 0 || secret.length > most || slice_find(secret, '\0') != secret.length ||
        slice_find(secret, '\n') != secret.length || slice_find(secret, '\r') != secret.length) {
        settings_complain(settings, *at, "%.*s: one line of 1 to %zu octets is needed",
                          SLICE_PRINT(source->path), most);
        return false;
    }
    warn_if_public(settings, at, source);
    return true;
}

static void put_item(struct buffer *text, const char *name, struct slice bytes)
{
    buffer_printf(text, "%s %zu\n", name, bytes.length);
    buffer_append(text, bytes);
    buffer_append_text(text, "\n");
}

void settings_expand(const struct settings *settings, unsigned readers, struct buffer *ret_text)
{
    buffer_append_text(ret_text, FIRST_LINE);
    put_item(ret_text, "machine", settings->machine_name);
    put_item(ret_text, "directory", settings->directory);
    if (settings->shared != NO_INDEX) {
        char number[24];
        snprintf(number, sizeof(number), "%llu",
                 (unsigned long long)settings->config.settings_version);
        put_item(ret_text, "version", slice_from_text(number));
    }
    if (settings->yields) {
        put_item(ret_text, "yields", SLICE_EMPTY);
    }
    for (uint32_t i = 0; i < settings->source_count; i++) {
        const struct source *source = &settings->sources[i];
        bool withheld =
            source->unused || (source->readers != 0 && (source->readers & readers) == 0);
        put_item(ret_text, source->shared ? "shared" : "path", source->path);
        put_item(ret_text, withheld ? "withheld" : "content",
                 withheld ? SLICE_EMPTY : source->content);
    }
}

bool settings_has_secrets(const struct settings *settings, unsigned readers)
{
    for (uint32_t i = 0; i < settings->source_count; i++) {
        if ((settings->sources[i].readers & readers) != 0) {
            return true;
        }
    }
    return false;
}

/* One item of the given name, copied. */
static bool take_item(struct settings *settings, struct slice *text, const char *name,
                      struct slice *ret_bytes)
{
    struct slice head = slice_take(*text, slice_find(*text, '\n'));
    struct slice prefix = slice_from_text(name);
    uint64_t length;
    if (head.length == text->length || !slice_equal(slice_take(head, prefix.length), prefix) ||
        head.length <= prefix.length || head.data[prefix.length] != ' ' ||
        !slice_to_u64(slice_skip(head, prefix.length + 1), &length)) {
        return false;
    }
    struct slice rest = slice_skip(*text, head.length + 1);
    if (length >= rest.length || rest.data[length] != '\n') {
        return false;
    }
    *ret_bytes = arena_copy(&settings->arena, slice_take(rest, length));
    *text = slice_skip(rest, length + 1);
    return ret_bytes->data != NULL;
}

static bool take_path(struct settings *settings, struct slice *text, struct slice *ret_path,
                      bool *ret_shared)
{
    *ret_shared = take_item(settings, text, "shared", ret_path);
    return *ret_shared || take_item(settings, text, "path", ret_path);
}

bool settings_unpack(struct settings *settings, struct slice text)
{
    struct slice first = SLICE_LITERAL(FIRST_LINE);
    if (!slice_equal(slice_take(text, first.length), first)) {
        return false;
    }
    text = slice_skip(text, first.length);
    if (!take_item(settings, &text, "machine", &settings->machine_name) ||
        !take_item(settings, &text, "directory", &settings->directory)) {
        return false;
    }
    struct slice number, nothing;
    if (take_item(settings, &text, "version", &number) &&
        !slice_to_u64(number, &settings->config.settings_version)) {
        return false;
    }
    settings->yields = take_item(settings, &text, "yields", &nothing);
    while (text.length > 0) {
        struct slice path, content;
        uint32_t index;
        bool shared;
        if (settings->source_count == SETTINGS_SOURCES_MAX ||
            !take_path(settings, &text, &path, &shared) ||
            (!take_item(settings, &text, "content", &content) &&
             !take_item(settings, &text, "withheld", &content)) ||
            !add_source(settings, path, content, 0, &index)) {
            return false;
        }
        if (shared) {
            settings->sources[index].shared = true;
            settings->sources[index].unused = settings_is_cluster_file(path);
            settings->shared = settings->shared == NO_INDEX ? index : settings->shared;
        }
    }
    settings->sealed = true;
    return settings->source_count > 0;
}
