/* SPDX-License-Identifier: Apache-2.0
 *
 * A segment as it is found on the disk: its headers and seal, what they and the newest header say
 * of how far it is valid, and its bytes as far as the disk gives them. For the start, which acts on
 * it, and the offline check, which only tells.
 */
#ifndef HOLDFAST_SPOOL_LOG_FOUND_H
#define HOLDFAST_SPOOL_LOG_FOUND_H

#include "spool/log_files.h"

struct log_found {
    uint64_t number;
    uint64_t size;
    struct log_header header;
    struct log_seal seal;
    bool has_header, has_seal;
    bool unreadable;  /* the disk does not give a block of its front */
    bool never_begun; /* and has no header: it was being made, or to be used again */
};

/* `found` with its number and size. What is damaged or unreadable there is no error: ERROR_NEWER,
 * or a disk's error other than ERROR_IO. */
enum error log_found_read(struct log_files *files, struct log_found *found) MUST_CHECK;
/* Sorts them by number. The newest that has a header; NULL: none. */
const struct log_found *log_found_sort(struct log_found *found, size_t count);

/* The newest of the same writer as found[i] (log_token()) that has a header; NULL: none. */
const struct log_found *log_found_newest_of(const struct log_found *found, size_t count, size_t i);

enum log_judgement {
    LOG_VALID,        /* as far as `end` says */
    LOG_HEAD,         /* the newest one of its writer, valid as far as a scan finds */
    LOG_SEAL_DAMAGED, /* the same of an older one, for want of anything better */
    LOG_NOT_BEGUN,    /* nothing in it was ever promised */
    LOG_LOST,         /* nothing says how to read it */
};

struct log_judged {
    enum log_judgement judgement;
    uint64_t nonce;
    uint32_t end; /* of LOG_VALID */
};

/* `own`: the newest of its writer; `newest`: of all. What its writer says of it counts first. */
struct log_judged log_found_judge(const struct log_found *found, const struct log_found *own,
                                  const struct log_found *newest);

/* The first `length` bytes of a segment. Blocks that the disk does not give become zeros, and each
 * run of them is told. */
enum error log_found_bytes(struct log_files *files, uint64_t number, uint8_t *ret_bytes,
                           size_t length,
                           void (*unreadable)(void *context, uint32_t from, uint32_t to),
                           void *context) MUST_CHECK;

#endif
