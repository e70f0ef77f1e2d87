/* SPDX-License-Identifier: Apache-2.0
 *
 * Notes about no message: the last payload under each key, sorted by key, repeated at the front of
 * every segment so that they pin none.
 */
#include "spool/log_internal.h"

#include <stdlib.h>

static int compare(struct slice a, struct slice b)
{
    size_t common = a.length < b.length ? a.length : b.length;
    int order = common > 0 ? memcmp(a.data, b.data, common) : 0;
    return order != 0 ? order : (a.length > b.length) - (a.length < b.length);
}

/* The first one whose key is not less. */
static size_t position(const struct journal *journal, struct slice key)
{
    size_t from = 0, to = journal->global_count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (compare(journal->globals[middle].key, key) < 0) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

static bool copy(struct slice from, struct slice *ret_copy)
{
    uint8_t *data = malloc(from.length + 1);
    if (data == NULL) {
        return false;
    }
    if (from.length > 0) {
        memcpy(data, from.data, from.length);
    }
    *ret_copy = slice_make(data, from.length);
    return true;
}

static bool make_room(struct journal *journal, size_t at)
{
    if (journal->global_count == journal->global_capacity) {
        size_t capacity = journal->global_capacity == 0 ? 16 : journal->global_capacity * 2;
        struct global *grown = realloc(journal->globals, capacity * sizeof(*grown));
        if (grown == NULL) {
            return false;
        }
        journal->globals = grown;
        journal->global_capacity = capacity;
    }
    memmove(journal->globals + at + 1, journal->globals + at,
            (journal->global_count - at) * sizeof(struct global));
    journal->globals[at] = (struct global){0};
    journal->global_count++;
    return true;
}

enum error globals_set(struct journal *journal, struct slice key, struct slice payload, bool fresh)
{
    size_t at = position(journal, key);
    bool present = at < journal->global_count && compare(journal->globals[at].key, key) == 0;
    if (present && journal->globals[at].fresh && !fresh) {
        return ERROR_NONE;
    }
    struct slice copied;
    if (!copy(payload, &copied)) {
        return ERROR_MEMORY;
    }
    if (!present) {
        struct slice key_copied;
        if (!copy(key, &key_copied)) {
            free((void *)(uintptr_t)copied.data);
            return ERROR_MEMORY;
        }
        if (!make_room(journal, at)) {
            free((void *)(uintptr_t)copied.data);
            free((void *)(uintptr_t)key_copied.data);
            return ERROR_MEMORY;
        }
        journal->globals[at].key = key_copied;
    }
    /* A forgotten key stays as an empty payload: while loading goes on it must win. */
    free((void *)(uintptr_t)journal->globals[at].payload.data);
    journal->globals[at].payload = copied;
    journal->globals[at].fresh = fresh;
    return ERROR_NONE;
}

/* What was set since the open stays. */
void globals_clear(struct journal *journal)
{
    size_t kept = 0;
    for (size_t i = 0; i < journal->global_count; i++) {
        if (journal->globals[i].fresh && !journal->ending) {
            journal->globals[kept++] = journal->globals[i];
        } else {
            free((void *)(uintptr_t)journal->globals[i].key.data);
            free((void *)(uintptr_t)journal->globals[i].payload.data);
        }
    }
    journal->global_count = kept;
}

void globals_put(const struct journal *journal, struct buffer *group, struct buffer *index)
{
    size_t at = log_record_begin(group);
    log_record_end(group, at, LOG_GLOBALS_RESET, 0);
    log_entry_put(index, LOG_GLOBALS_RESET, 0, (uint32_t)at, SLICE_EMPTY);
    for (size_t i = 0; i < journal->global_count; i++) {
        const struct global *global = &journal->globals[i];
        if (global->payload.length == 0) {
            continue;
        }
        at = log_record_begin(group);
        log_put_global(group, global->key, global->payload);
        if (group->failed) {
            return;
        }
        struct slice payload = slice_make(group->data + at + LOG_RECORD_HEADER,
                                          group->length - at - LOG_RECORD_HEADER);
        log_entry_put(index, LOG_GLOBAL, 0, (uint32_t)at, payload);
        log_record_end(group, at, LOG_GLOBAL, 0);
    }
}
