/* SPDX-License-Identifier: Apache-2.0 */
#include "spool/log_found.h"

#include <stdlib.h>

/* ---- reading ----------------------------------------------------------------------------- */

enum error log_found_bytes(struct log_files *files, uint64_t number, uint8_t *ret_bytes,
                           size_t length,
                           void (*unreadable)(void *context, uint32_t from, uint32_t to),
                           void *context)
{
    enum error error = log_files_read(files, number, 0, ret_bytes, length);
    if (error != ERROR_IO) {
        return error;
    }
    size_t bad = SIZE_MAX; /* where the run of unreadable blocks began */
    for (size_t at = 0; at < length; at += LOG_BLOCK) {
        size_t part = length - at < LOG_BLOCK ? length - at : LOG_BLOCK;
        error = log_files_read(files, number, at, ret_bytes + at, part);
        if (error == ERROR_IO) {
            memset(ret_bytes + at, 0, part);
            bad = bad == SIZE_MAX ? at : bad;
        } else if (error != ERROR_NONE) {
            return error;
        } else if (bad != SIZE_MAX) {
            unreadable(context, (uint32_t)bad, (uint32_t)at);
            bad = SIZE_MAX;
        }
    }
    if (bad != SIZE_MAX) {
        unreadable(context, (uint32_t)bad, (uint32_t)length);
    }
    return ERROR_NONE;
}

static void note_unreadable(void *context, uint32_t from, uint32_t to)
{
    struct log_found *found = context;
    (void)from;
    (void)to;
    found->unreadable = true;
}

/* No group was written where its first one stands, ever or since its former life. */
static bool is_empty(const uint8_t *block)
{
    for (size_t i = 0; i < LOG_BLOCK; i++) {
        if (block[i] != 0) {
            return false;
        }
    }
    return true;
}

enum error log_found_read(struct log_files *files, struct log_found *found)
{
    uint8_t blocks[LOG_DATA_AT + LOG_BLOCK] = {0};
    if (found->size < LOG_DATA_AT) {
        found->never_begun = true;
        return ERROR_NONE;
    }
    size_t length = found->size < sizeof(blocks) ? (size_t)found->size : sizeof(blocks);
    enum error error =
        log_found_bytes(files, found->number, blocks, length, note_unreadable, found);
    if (error != ERROR_NONE) {
        return error;
    }
    bool former = false; /* the header of a former life, not overwritten yet */
    for (int copy = 0; copy < 2 && !found->has_header; copy++) {
        error = log_header_decode(blocks + (size_t)copy * LOG_BLOCK, &found->header);
        if (error == ERROR_NEWER) {
            return error;
        }
        found->has_header = error == ERROR_NONE && found->header.number == found->number;
        former |= error == ERROR_NONE && !found->has_header;
    }
    error = log_seal_decode(blocks + LOG_SEAL_AT, &found->seal);
    if (error == ERROR_NEWER && found->has_header) {
        return error;
    }
    found->has_seal = error == ERROR_NONE && found->seal.number == found->number &&
                      (!found->has_header || found->seal.nonce == found->header.nonce);
    found->never_begun =
        !found->has_header && !found->unreadable && (former || is_empty(blocks + LOG_DATA_AT));
    return ERROR_NONE;
}

/* ---- judging ----------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    uint64_t left = ((const struct log_found *)a)->number;
    uint64_t right = ((const struct log_found *)b)->number;
    return (left > right) - (left < right);
}

const struct log_found *log_found_sort(struct log_found *found, size_t count)
{
    const struct log_found *newest = NULL;
    if (count > 0) {
        qsort(found, count, sizeof(*found), by_number);
    }
    for (size_t i = 0; i < count; i++) {
        newest = found[i].has_header ? &found[i] : newest;
    }
    return newest;
}

const struct log_found *log_found_newest_of(const struct log_found *found, size_t count, size_t i)
{
    const struct log_found *newest = NULL;
    uint32_t token = log_token(found[i].number);
    for (; i > 0 && log_token(found[i - 1].number) == token; i--) {
    }
    for (; i < count && log_token(found[i].number) == token; i++) {
        newest = found[i].has_header ? &found[i] : newest;
    }
    return newest;
}

static const struct log_open_end *open_end_of(const struct log_found *newest, uint64_t number)
{
    for (uint32_t i = 0; newest != NULL && i < newest->header.open_end_count; i++) {
        if (newest->header.open_ends[i].number == number) {
            return &newest->header.open_ends[i];
        }
    }
    return NULL;
}

struct log_judged log_found_judge(const struct log_found *found, const struct log_found *own,
                                  const struct log_found *newest)
{
    const struct log_open_end *end = open_end_of(own, found->number);
    if (end == NULL) {
        end = open_end_of(newest, found->number);
    }
    if (found->has_seal) {
        return (struct log_judged){LOG_VALID, found->seal.nonce, found->seal.end};
    }
    if (end != NULL && end->others) {
        return (struct log_judged){LOG_HEAD, end->nonce, 0};
    }
    if (end != NULL) {
        return end->end != 0 ? (struct log_judged){LOG_VALID, end->nonce, end->end}
                             : (struct log_judged){.judgement = LOG_NOT_BEGUN};
    }
    if (!found->has_header) {
        return (struct log_judged){.judgement = found->never_begun ? LOG_NOT_BEGUN : LOG_LOST};
    }
    return (struct log_judged){found == own ? LOG_HEAD : LOG_SEAL_DAMAGED, found->header.nonce, 0};
}

/* ---- tokens ------------------------------------------------------------------------------ */

static void raise_token(void *context, const char *file, uint64_t size)
{
    uint32_t *token = context;
    enum log_name kind;
    uint64_t number;
    (void)size;
    if (log_name_parse(file, &kind, &number) && kind != LOG_NAME_CONTENT &&
        kind != LOG_NAME_SET_ASIDE && log_token(number) > *token) {
        *token = log_token(number);
    }
}

enum error spool_newest_token(struct disk *disk, uint32_t *ret_token)
{
    *ret_token = 0;
    return disk->ops->list(disk, raise_token, ret_token);
}
