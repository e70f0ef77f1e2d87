/* SPDX-License-Identifier: Apache-2.0
 *
 * What a domain block says of its recipients. A list is not part of the configuration: it is read
 * by the running program whenever it changes. Here it is only looked through, so that what is wrong
 * with it is said by whoever checks a configuration.
 */
#include "app/recipient_list.h"
#include "app/settings_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 256 << 10, FAULTS_SAID = 5 };

/* ---- looking through a list --------------------------------------------------------------- */

struct look {
    struct settings *settings;
    const struct route_config *route;
    const char *path;
    struct place at; /* where it is named */
    struct recipient_lines lines;
    uint64_t names;
    uint32_t faults;
};

static void say(struct look *look, const char *why)
{
    if (look->faults++ < FAULTS_SAID) {
        settings_warn(look->settings, look->at, "%s:%u: %s; the list will not be used", look->path,
                      look->lines.line, why);
    }
}

/* Takes the lines that are whole. False: enough. */
static bool look_at_lines(struct look *look)
{
    struct recipient_line line;
    struct slice domain;
    const char *why;
    while (look->faults < FAULTS_SAID) {
        bool found = recipient_lines_next(&look->lines, &line, &why);
        if (!found && why == NULL) {
            return true;
        }
        why = found ? recipient_line_domain(look->route, &line, &domain) : why;
        if (why != NULL && found && line.domain.length > 0) {
            continue; /* of another block, or of nobody here */
        }
        if (why != NULL) {
            say(look, why);
            if (!found && slice_find(look->lines.rest, '\n') == look->lines.rest.length) {
                return false;
            }
        }
        look->names++;
    }
    return false;
}

static const char *look_through(struct look *look, int fd)
{
    uint8_t *buffer = malloc(PIECE + RECIPIENT_LINE_MAX + 1);
    size_t kept = 0;
    const char *why = buffer == NULL ? "out of memory" : NULL;
    for (bool going = buffer != NULL; going;) {
        ssize_t got = read(fd, buffer + kept, PIECE);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        why = got < 0 ? strerror(errno) : NULL;
        look->lines.rest = slice_make(buffer, kept + (got > 0 ? (size_t)got : 0));
        look->lines.is_end = got <= 0;
        going = got >= 0 && look_at_lines(look) && got > 0;
        kept = look->lines.rest.length;
        if (kept > 0 && going) {
            memmove(buffer, look->lines.rest.data, kept);
        }
    }
    free(buffer);
    return why;
}

/* A file that is not there is a mistake of the configuration; what is in it is others' data, and no
 * reason to take no mail. */
static void look_at_list(struct settings *settings, const struct route_config *route,
                         struct place at, const char *path)
{
    struct look look = {.settings = settings, .route = route, .path = path, .at = at};
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    const char *missing = fd < 0 || fstat(fd, &status) != 0 ? strerror(errno)
                          : S_ISDIR(status.st_mode)         ? "is a directory"
                          : !S_ISREG(status.st_mode)        ? "is not an ordinary file"
                                                            : NULL;
    if (missing != NULL) {
        settings_complain(settings, at, "recipients: %s: %s", path, missing);
    } else {
        const char *why =
            status.st_size > RECIPIENT_LIST_BYTES_MAX ? "is too large" : look_through(&look, fd);
        if (why != NULL) {
            settings_warn(settings, at, "recipients: %s: %s; the last good list holds", path, why);
        } else if (look.names == 0) {
            settings_warn(settings, at,
                          "recipients: %s names nobody of this block; the list will not be used",
                          path);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

/* ---- the keys ----------------------------------------------------------------------------- */

/* Absolute, and as the file that names it sees it. */
static struct slice absolute(struct settings *settings, struct place at, struct slice path)
{
    struct slice from = settings->sources[at.source].path;
    size_t slash = slice_find_last(from, '/');
    struct slice parts[] = {settings->directory, SLICE_LITERAL("/"),
                            slice_take(from, slash == from.length ? 0 : slash + 1), path};
    size_t first = path.length > 0 && path.data[0] == '/'   ? 3
                   : from.length > 0 && from.data[0] == '/' ? 2
                                                            : 0;
    size_t length = 0;
    for (size_t i = first; i < 4; i++) {
        length += parts[i].length;
    }
    uint8_t *whole = settings_allocate(settings, length + 1, 1);
    struct slice made = slice_make(whole, whole == NULL ? 0 : length);
    for (size_t i = first; whole != NULL && i < 4; i++) {
        if (parts[i].length > 0) {
            memcpy(whole, parts[i].data, parts[i].length);
        }
        whole += parts[i].length;
    }
    return made;
}

/* https://, and http:// to this machine: who can change a list on its way refuses whom he likes. */
static bool is_page(struct slice word)
{
    static const char *const begins[] = {
        "https://",      "http://127.0.0.1:", "http://127.0.0.1/", "http://[::1]:",
        "http://[::1]/", "http://localhost:", "http://localhost/"};
    for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++) {
        if (slice_starts_fold(word, slice_from_text(begins[i])) &&
            word.length > strlen(begins[i]) && slice_find(word, ' ') == word.length) {
            return true;
        }
    }
    return false;
}

static const struct slice directory_scheme = SLICE_LITERAL("ldap:");

/* The source is named as the block is, whoever names it. */
static void fill_directory(struct settings *settings, struct route_config *route,
                           const struct value *value)
{
    struct slice name = slice_skip(value->text, directory_scheme.length);
    const struct ldap_config *ldap = settings_find_ldap(settings, name);
    if (ldap == NULL) {
        settings_complain(settings, value->at, "recipients: there is no ldap block '%.*s'",
                          SHOWN(name));
        return;
    }
    if (ldap->base.length == 0) {
        settings_complain(settings, value->at,
                          "recipients: ldap '%.*s' needs base, below which they are searched for",
                          SHOWN(ldap->name));
    }
    uint8_t *source = settings_allocate(settings, directory_scheme.length + ldap->name.length, 1);
    if (source != NULL) {
        memcpy(source, directory_scheme.data, directory_scheme.length);
        memcpy(source + directory_scheme.length, ldap->name.data, ldap->name.length);
        route->recipients = RECIPIENTS_LIST;
        route->recipients_list = slice_make(source, directory_scheme.length + ldap->name.length);
    }
}

/* A file of the cluster's settings, which only its reader is given: it can be long. */
static void fill_shared(struct settings *settings, struct route_config *route,
                        const struct value *value, struct slice name)
{
    uint32_t source;
    if (!settings_withheld_file(settings, &value->at, name, SETTINGS_FOR_HELPER, &source)) {
        return;
    }
    route->recipients = RECIPIENTS_LIST;
    route->recipients_list = settings->sources[source].path;
    route->recipients_text = settings->sources[source].content;
    if (settings->sealed) {
        return;
    }
    struct look look = {.settings = settings,
                        .route = route,
                        .path = (const char *)route->recipients_list.data,
                        .at = value->at,
                        .lines = {.rest = route->recipients_text, .is_end = true}};
    (void)look_at_lines(&look);
    if (look.faults == 0 && look.names == 0) {
        settings_warn(settings, value->at,
                      "recipients: %s names nobody of this block; the list will not be used",
                      look.path);
    }
}

static void fill_source(struct settings *settings, struct route_config *route,
                        const struct value *value)
{
    static const struct slice file = {(const uint8_t *)"file:", 5};
    struct slice word = value->text;
    if (slice_equal(word, SLICE_LITERAL("any"))) {
        return;
    }
    if (slice_equal(word, SLICE_LITERAL("learn"))) {
        route->recipients = RECIPIENTS_LEARN;
        return;
    }
    if (is_page(word)) {
        route->recipients = RECIPIENTS_LIST;
        route->recipients_list = word;
        return;
    }
    if (slice_starts_fold(word, directory_scheme)) {
        fill_directory(settings, route, value);
        return;
    }
    if (!slice_starts_fold(word, file) || word.length == file.length) {
        settings_complain(
            settings, value->at,
            "recipients: '%.*s' is not one of any, learn, file:PATH, https://HOST/..., ldap:NAME",
            SHOWN(word));
        return;
    }
    struct slice name = slice_skip(word, file.length);
    if (settings_is_shared(settings, value->at) || settings_is_cluster_file(name)) {
        fill_shared(settings, route, value, name);
        return;
    }
    struct slice path = absolute(settings, value->at, name);
    if (path.length > LIST_PATH_MAX) {
        settings_complain(settings, value->at, "recipients: the path is longer than %d characters",
                          LIST_PATH_MAX);
    }
    route->recipients = RECIPIENTS_LIST;
    route->recipients_list = path;
    if (!settings->sealed && path.data != NULL) {
        look_at_list(settings, route, value->at, (const char *)path.data);
    }
}

static void take_token(struct settings *settings, struct route_config *route,
                       const struct entry *file)
{
    if (file == NULL || file->count != 1 || file->list) {
        return;
    }
    if (!is_page(route->recipients_list)) {
        settings_complain(settings, file->at,
                          "recipients-token-file is for recipients = https://HOST/...");
    } else if (settings_secret(settings, &file->values[0].at, file->values[0].text,
                               SETTINGS_FOR_HELPER, SETTINGS_SECRET_MAX,
                               &route->recipients_token)) {
        for (size_t i = 0; i < route->recipients_token.length; i++) {
            uint8_t c = route->recipients_token.data[i];
            if (c <= ' ' || c >= 0x7f) {
                settings_complain(settings, file->at,
                                  "recipients-token-file: a token is of printable ASCII without "
                                  "blanks");
                return;
            }
        }
    }
}

void settings_recipients(struct settings *settings, struct route_config *route,
                         const struct entry *const *entries)
{
    const struct entry *source = settings_entry(entries, BLOCK_DOMAIN, "recipients");
    const struct entry *separators = settings_entry(entries, BLOCK_DOMAIN, "separators");
    if (source != NULL && source->count > 0) {
        fill_source(settings, route, &source->values[0]);
    }
    take_token(settings, route, settings_entry(entries, BLOCK_DOMAIN, "recipients-token-file"));
    for (size_t i = 0; separators != NULL && i < route->separators.length; i++) {
        if (strchr("+-=_#~^&$!*/|.", route->separators.data[i]) == NULL) {
            settings_complain(
                settings, separators->at,
                "separators: '%.*s' has one that is none of + - = _ # ~ ^ & $ ! * / | .",
                SHOWN(route->separators));
            return;
        }
    }
}

void settings_list_files(struct settings *settings)
{
    const struct relay_config *config = &settings->config.relay;
    uint32_t files = 0;
    for (uint32_t i = 0; i < config->route_count; i++) {
        bool is_new = route_list_is_file(&config->routes[i]);
        for (uint32_t before = 0; is_new && before < i; before++) {
            is_new = !slice_equal(config->routes[before].recipients_list,
                                  config->routes[i].recipients_list);
        }
        files += is_new;
    }
    if (files > LIST_FILES_MAX) {
        settings_complain(settings, settings->top.at,
                          "recipients: more than %d files; one may serve many domains",
                          LIST_FILES_MAX);
    }
}
