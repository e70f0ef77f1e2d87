/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading segments: a few stay open, and what is read as a message is checked in this one place.
 * The journal's own process and every reader by ticket go through it.
 */
#ifndef HOLDFAST_SPOOL_LOG_FILES_H
#define HOLDFAST_SPOOL_LOG_FILES_H

#include "spool/log_format.h"
#include "sys/disk.h"

struct log_copies;

enum { LOG_FILES_KEPT = 16 };

struct log_files {
    struct disk *disk;               /* not owned */
    const struct log_copies *copies; /* where a segment may be that is no more; or NULL */
    struct log_kept_file {
        uint64_t number;
        struct disk_file *file; /* NULL: free place */
        uint64_t used;
    } kept[LOG_FILES_KEPT];
    uint64_t clock;
};

static inline void log_files_init(struct log_files *files, struct disk *disk)
{
    *files = (struct log_files){.disk = disk};
}
void log_files_done(struct log_files *files);
/* The segment is going: its file is closed. */
void log_files_forget(struct log_files *files, uint64_t number);
/* Exactly `length` bytes of a segment, or the disk's error. */
enum error log_files_read(struct log_files *files, uint64_t number, uint64_t offset,
                          void *ret_bytes, size_t length) MUST_CHECK;
/* The message record at that place. ERROR_CORRUPT unless its place, nonce, type, bound, checksum
 * and id are right. Slices and pieces live as long as the arena. */
enum error log_files_message(struct log_files *files, const struct log_ticket *at,
                             struct arena *arena, struct log_message *ret_message) MUST_CHECK;

#endif
