/* SPDX-License-Identifier: Apache-2.0
 *
 * Small files that are written as a whole, by a thread: under a name that begins with "~", then
 * renamed, so that there is the old one or the new one. Not synced, for only the journal's promise
 * is worth that: after a power cut a file may be neither, and who reads it begins anew.
 */
#ifndef HOLDFAST_SERVICE_WHOLE_FILE_H
#define HOLDFAST_SERVICE_WHOLE_FILE_H

#include "base/buffer.h"
#include "sys/disk.h"
#include "sys/loop.h"

/* Of one name, on whatever thread, and blocking. */
enum error whole_file_put(struct disk *disk, const char *name, struct slice bytes) MUST_CHECK;

struct whole_files;

/* Takes the disk over. NULL: memory, and the disk is gone. */
struct whole_files *whole_files_new(struct loop *loop, struct disk *disk);
void whole_files_free(struct whole_files *files); /* writes what is under way; NULL is allowed */
/* ERROR_MISSING: there is none. ERROR_LIMIT: it is larger than the buffer may be. */
enum error whole_files_read(struct whole_files *files, const char *name,
                            struct buffer *ret_bytes) MUST_CHECK;
/* Appends the bytes of a file, on the thread. */
typedef void whole_file_fn(void *context, struct buffer *bytes);
/* The same for what takes long to put together, and may be read by any thread. */
void whole_files_make(struct whole_files *files, const char *name, whole_file_fn *make,
                      void *context);
/* Takes the bytes over, in the order of the calls. What fails is logged. `name` is a constant. */
void whole_files_write(struct whole_files *files, const char *name, struct buffer *bytes);

#endif
