/* SPDX-License-Identifier: Apache-2.0
 *
 * The front of the settings: memory, complaints, and the order in which a file is read.
 */
#include "app/settings_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *allocate(struct settings *settings, struct arena *arena, size_t count, size_t size)
{
    size_t total;
    void *memory = NULL;
    if (!__builtin_mul_overflow(count, size, &total)) {
        memory = arena_allocate(arena, total);
    }
    if (memory == NULL) {
        settings->out_of_memory = true;
    }
    return memory;
}

void *settings_allocate(struct settings *settings, size_t count, size_t size)
{
    return allocate(settings, &settings->arena, count, size);
}

void *settings_allocate_tree(struct settings *settings, size_t count, size_t size)
{
    return allocate(settings, &settings->tree_arena, count, size);
}

/* ---- complaints --------------------------------------------------------------------------- */

__attribute__((format(printf, 4, 0))) static void complain(struct settings *settings,
                                                           struct place at, bool warning,
                                                           const char *format, va_list arguments)
{
    settings->failed = settings->failed || !warning;
    if (settings->complaint_count == SETTINGS_COMPLAINTS_MAX) {
        settings->complaints_unsaid++;
        return;
    }
    char text[512];
    int length = vsnprintf(text, sizeof(text), format, arguments);
    size_t kept = length < 0 ? 0 : (size_t)length;
    kept = kept < sizeof(text) ? kept : sizeof(text) - 1;
    for (size_t i = 0; i < kept; i++) {
        if ((uint8_t)text[i] < ' ' || text[i] == 0x7f) {
            text[i] = '?'; /* one line each, whatever was quoted */
        }
    }
    struct slice copy = arena_copy(&settings->tree_arena, slice_make(text, kept));
    if (copy.data == NULL) {
        settings->out_of_memory = true;
        return;
    }
    struct complaint *complaint = &settings->complaints[settings->complaint_count];
    *complaint = (struct complaint){
        .at = at,
        .order = settings->complaint_count++,
        .warning = warning,
        .text = (const char *)copy.data,
    };
}

void settings_complain(struct settings *settings, struct place at, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain(settings, at, false, format, arguments);
    va_end(arguments);
}

void settings_warn(struct settings *settings, struct place at, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain(settings, at, true, format, arguments);
    va_end(arguments);
}

static int compare_complaints(const void *left, const void *right)
{
    const struct complaint *a = left, *b = right;
    if (a->at.source != b->at.source) {
        return a->at.source < b->at.source ? -1 : 1;
    }
    if (a->at.line != b->at.line) {
        return a->at.line < b->at.line ? -1 : 1;
    }
    return a->order < b->order ? -1 : 1;
}

/* In the order of the files and their lines; warnings only if there is nothing worse. */
static void report(struct settings *settings, struct slice path, struct buffer *errors)
{
    qsort(settings->complaints, settings->complaint_count, sizeof(settings->complaints[0]),
          compare_complaints);
    for (uint32_t i = 0; i < settings->complaint_count; i++) {
        const struct complaint *complaint = &settings->complaints[i];
        if (complaint->warning && settings->failed) {
            continue;
        }
        struct slice file = complaint->at.source < settings->source_count
                                ? settings->sources[complaint->at.source].path
                                : path;
        buffer_printf(errors, "%.*s:%u: %s%s\n", SLICE_PRINT(file),
                      complaint->at.line == 0 ? 1 : complaint->at.line,
                      complaint->warning ? "warning: " : "", complaint->text);
    }
    if (settings->complaints_unsaid > 0) {
        buffer_printf(errors, "%.*s:1: %u more not shown\n", SLICE_PRINT(path),
                      settings->complaints_unsaid);
    }
    if (settings->out_of_memory) {
        buffer_printf(errors, "%.*s:1: out of memory\n", SLICE_PRINT(path));
    }
}

/* ---- reading ------------------------------------------------------------------------------ */

static struct settings *settings_new(void)
{
    struct settings *settings = calloc(1, sizeof(*settings));
    if (settings != NULL) {
        arena_init(&settings->arena);
        arena_init(&settings->tree_arena);
        settings->top.at = (struct place){0, 1};
        settings->shared = NO_INDEX;
    }
    return settings;
}

static const struct block *find_cluster(const struct settings *settings)
{
    const struct block *block = settings->first_block;
    while (block != NULL && settings_block_find(block->kind) != BLOCK_CLUSTER) {
        block = block->next;
    }
    return block;
}

/* How the cluster's settings come to those of the file. */
struct second_text {
    const struct settings_version *version; /* these; NULL: */
    const char *copy;                       /* those of this name; NULL: none */
    bool must;                              /* be there */
    bool yields;                            /* to those of the file */
};

/* A copy that is no good is as none: the member waits for the cluster, and says so. */
static void take_second(struct settings *settings, const struct second_text *second)
{
    const struct block *cluster = find_cluster(settings);
    struct place at = cluster != NULL ? cluster->at : settings->top.at;
    enum error error = ERROR_NONE;
    if (second->version != NULL) {
        error = settings_take_version(settings, second->version) ? ERROR_NONE : ERROR_MEMORY;
    } else if (second->copy != NULL && (cluster != NULL || second->must)) {
        error = settings_take_copy(settings, second->copy);
    }
    if (error == ERROR_MEMORY) {
        settings->out_of_memory = true;
    } else if (error != ERROR_NONE && second->must) {
        settings_complain(settings, at, "the copy of the cluster's settings: %s",
                          error_text(error));
    } else if (error != ERROR_NONE && error != ERROR_MISSING) {
        settings_warn(settings, at, "the copy of the cluster's settings: %s; waiting for others",
                      error_text(error));
    }
}

static struct settings *finish(struct settings *settings, const struct second_text *second,
                               struct slice path, struct buffer *errors)
{
    if (!settings->failed && !settings->out_of_memory) {
        settings_parse_tree(settings);
        take_second(settings, second);
        settings->yields = settings->yields || second->yields;
        if (settings->shared != NO_INDEX) {
            settings_parse_more(settings, settings->shared);
        }
        if (settings->shared != NO_INDEX && settings->yields) {
            settings_yield(settings);
        }
        settings->config.joining = settings->shared == NO_INDEX && find_cluster(settings) != NULL;
        settings_check(settings);
    }
    report(settings, path, errors);
    arena_done(&settings->tree_arena);
    settings->first_block = NULL;
    settings->complaint_count = 0;
    if (settings->failed || settings->out_of_memory) {
        settings_free(settings);
        return NULL;
    }
    return settings;
}

/* What the machine knows and a process in a sandbox does not. */
static void ask_machine(struct settings *settings)
{
    char text[4096];
    if (gethostname(text, 256) == 0) {
        text[255] = '\0';
        settings->machine_name = arena_copy(&settings->arena, slice_from_text(text));
    }
    if (getcwd(text, sizeof(text)) != NULL) {
        settings->directory = arena_copy(&settings->arena, slice_from_text(text));
    }
}

static struct settings *read_both(const char *path, const struct second_text *second,
                                  struct buffer *errors)
{
    struct settings *settings = settings_new();
    struct slice name = slice_from_text(path);
    if (settings == NULL) {
        buffer_printf(errors, "%s:1: out of memory\n", path);
        return NULL;
    }
    ask_machine(settings);
    uint32_t source;
    /* On failure this has complained. */
    (void)settings_source(settings, NULL, name, &source);
    return finish(settings, second, name, errors);
}

struct settings *settings_read(const char *path, struct buffer *errors)
{
    return read_both(path, &(struct second_text){.copy = SETTINGS_COPY}, errors);
}

/* As the warnings that they are now. */
static void tell_conflict(struct slice said, struct buffer *errors)
{
    while (said.length > 0) {
        struct slice line = slice_take(said, slice_find(said, '\n'));
        size_t colon = line.length;
        for (size_t i = 0; i + 1 < line.length && colon == line.length; i++) {
            if (line.data[i] == ':' && line.data[i + 1] == ' ') {
                colon = i;
            }
        }
        buffer_printf(errors, "%.*s: warning%.*s\n", SLICE_PRINT(slice_take(line, colon)),
                      SLICE_PRINT(slice_skip(line, colon)));
        said = slice_skip(said, line.length + 1);
    }
}

struct settings *settings_read_to_start(const char *path, struct buffer *errors,
                                        struct buffer *ret_conflict)
{
    const struct second_text ways[] = {
        {.copy = SETTINGS_COPY}, {.copy = SETTINGS_COPY, .yields = true}, {.copy = NULL}};
    struct buffer said;
    buffer_init(&said, 0);
    struct settings *settings = NULL;
    for (size_t i = 0; settings == NULL && i < 3; i++) {
        buffer_clear(&said);
        settings = read_both(path, &ways[i], &said);
        if (settings == NULL && i == 0) {
            buffer_append(ret_conflict, buffer_slice(&said));
        }
    }
    if (settings == NULL) { /* nor would it without a cluster */
        buffer_clear(ret_conflict);
    }
    tell_conflict(buffer_slice(ret_conflict), errors);
    buffer_append(errors, buffer_slice(&said));
    buffer_done(&said);
    return settings;
}

struct settings *settings_read_with(const char *path, const struct settings_version *version,
                                    struct buffer *errors)
{
    return read_both(path, &(struct second_text){.version = version}, errors);
}

struct settings *settings_read_copy(const char *path, const char *name, struct buffer *errors)
{
    return read_both(path, &(struct second_text){.copy = name, .must = true}, errors);
}

bool settings_find_state(const char *path, struct buffer *ret_state, struct buffer *errors)
{
    struct settings *settings = settings_new();
    uint32_t source;
    if (settings == NULL) {
        return false;
    }
    ask_machine(settings);
    bool found = settings_source(settings, NULL, slice_from_text(path), &source);
    if (found) {
        settings_parse_tree(settings);
        settings_check_top(settings);
        buffer_append(ret_state, settings->config.state);
    } else {
        report(settings, slice_from_text(path), errors);
    }
    settings_free(settings);
    return found;
}

bool settings_find_cluster(const char *path, struct buffer *ret_database,
                           struct buffer *ret_password, struct buffer *ret_name,
                           struct buffer *errors)
{
    struct settings *settings = settings_new();
    struct slice name = slice_from_text(path);
    uint32_t source;
    if (settings == NULL) {
        return false;
    }
    ask_machine(settings);
    const struct cluster_config *cluster = &settings->config.cluster;
    bool found = settings_source(settings, NULL, name, &source);
    if (found) {
        settings_parse_tree(settings);
        settings_check_cluster(settings);
        found = cluster->database.length > 0 && !settings->out_of_memory;
        if (!found && find_cluster(settings) == NULL) {
            settings_complain(settings, settings->top.at,
                              "there is no cluster block: this is no member of a cluster");
        }
    }
    if (found) {
        buffer_append(ret_database, cluster->database);
        buffer_append(ret_password, cluster->password);
        buffer_append(ret_name, cluster->name);
        buffer_append(ret_name, slice_make("", 1));
        ret_name->length -= !ret_name->failed;
        found = !ret_database->failed && !ret_password->failed && !ret_name->failed;
    } else {
        report(settings, name, errors);
    }
    settings_free(settings);
    return found;
}

struct settings *settings_parse(struct slice text, struct buffer *errors)
{
    struct slice name = SLICE_LITERAL("configuration");
    struct settings *settings = settings_new();
    if (settings == NULL || !settings_unpack(settings, text)) {
        buffer_append_text(errors, "configuration:1: not an expanded configuration\n");
        settings_free(settings);
        return NULL;
    }
    return finish(settings, &(struct second_text){0}, name, errors);
}

const struct service_config *settings_config(const struct settings *settings)
{
    return &settings->config;
}

void settings_free(struct settings *settings)
{
    if (settings != NULL) {
        arena_done(&settings->arena);
        arena_done(&settings->tree_arena);
        free(settings);
    }
}
