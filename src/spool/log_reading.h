/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a message's content, in whatever pieces it lies: the one place that does, so that each
 * piece is checked whoever reads it. The journal's own process and every reader by ticket go
 * through it.
 */
#ifndef HOLDFAST_SPOOL_LOG_READING_H
#define HOLDFAST_SPOOL_LOG_READING_H

#include "spool/log_files.h"

struct log_reading {
    struct log_files *files;
    uint64_t segment; /* where the message record is */
    uint32_t offset;
    const struct log_piece *pieces;
    size_t piece_count;
    struct disk_file *content; /* the file that was read last, open; or NULL */
    uint64_t content_number;
    /* The piece at work: how far it has been read from its first octet, and its checksum so far. */
    size_t piece;
    uint64_t piece_start; /* of the piece in the content */
    uint64_t done;        /* of its stored bytes */
    uint32_t crc;
};

/* `pieces` are not copied. */
void log_reading_init(struct log_reading *reading, struct log_files *files, uint64_t segment,
                      uint32_t offset, const struct log_piece *pieces, size_t count);
void log_reading_done(struct log_reading *reading);
/* At most `size` bytes of content from offset. A piece's checksum is verified with its last byte;
 * what is passed over on the way there is read for it. On an error nothing counts as read. */
enum error log_reading_read(struct log_reading *reading, uint64_t offset, void *ret_bytes,
                            size_t size, size_t *ret_length) MUST_CHECK;
/* The piece at work to its end: then all that has been read of it is right, else ERROR_CORRUPT. */
enum error log_reading_verify(struct log_reading *reading) MUST_CHECK;
/* All stored bytes of one piece. With ERROR_CORRUPT they are what was found. */
enum error log_reading_piece(struct log_reading *reading, const struct log_piece *piece,
                             uint8_t *ret_bytes) MUST_CHECK;

#endif
