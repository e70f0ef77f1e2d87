/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a segment from end to end: where it is valid, what is damaged, what it holds.
 */
#ifndef HOLDFAST_SPOOL_LOG_SCAN_H
#define HOLDFAST_SPOOL_LOG_SCAN_H

#include "spool/log_format.h"

/* Bytes [from, to) are lost; `cut`: all that follows the last complete group, which was never
 * promised. */
typedef void log_damage_fn(void *context, uint32_t from, uint32_t to, bool cut, const char *what);
/* Each valid record before the end, its payload checked. */
typedef void log_record_fn(void *context, const struct log_record *record, struct slice payload);

struct log_scan {
    uint64_t nonce;
    uint32_t known_end; /* where it ends by a seal or an open end; 0: to be found */
    void *context;
    log_damage_fn *damage; /* both may be NULL */
    log_record_fn *record;
    struct buffer *index; /* filled unless NULL */
    /* Results. */
    uint32_t end;
    uint32_t last_group; /* where the last one starts; 0: there is none */
    uint64_t records, groups;
    uint64_t next_sequence; /* above all sequences in it */
};

/* `bytes`: the segment from its first byte. ERROR_MEMORY. Damage is no error. */
enum error log_scan(struct log_scan *scan, struct slice bytes) MUST_CHECK;

#endif
