/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading stored messages from another process by ticket (spool_ticket()). Reads only; the ticket's
 * maker keeps the message pinned meanwhile. Blocking reads, from the page cache as a rule.
 */
#ifndef HOLDFAST_SPOOL_READER_H
#define HOLDFAST_SPOOL_READER_H

#include "spool/spool.h"

struct spool_reader;
struct spool_stored; /* one opened message */

/* On the log back-end's directory (taken over), read only. */
enum error spool_reader_open_log(struct disk *disk, struct spool_reader **ret_reader) MUST_CHECK;
void spool_reader_close(struct spool_reader *reader);

/* The envelope lives in `arena`. ERROR_CORRUPT, ERROR_MISSING, ERROR_IO. */
enum error spool_stored_open(struct spool_reader *reader, struct slice ticket, struct arena *arena,
                             struct spool_message *ret_message,
                             struct spool_stored **ret_stored) MUST_CHECK;
/* At most `size` bytes of content from offset. The checksum of a piece of content is verified when
 * its last byte is read, in whatever order; damage is ERROR_CORRUPT, so the last bytes of a damaged
 * message are never handed out and no final dot can follow them. */
enum error spool_stored_read(struct spool_stored *stored, uint64_t offset, void *ret_bytes,
                             size_t size, size_t *ret_length) MUST_CHECK;
void spool_stored_close(struct spool_stored *stored); /* NULL is allowed */

#endif
