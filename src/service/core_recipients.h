/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside core: the files in which what is known of recipients is kept, one for each domain, by its
 * name (relay/mailboxes_file.c). They are written anew as a whole, by a thread, a while after
 * something has changed, and at the end; a crash loses what was learned in that while.
 */
#ifndef HOLDFAST_SERVICE_CORE_RECIPIENTS_H
#define HOLDFAST_SERVICE_CORE_RECIPIENTS_H

#include "service/core_internal.h"

struct recipients_files;

/* Takes the disk over and reads all files of domains that are kept. NULL: memory; then nothing is
 * kept. */
struct recipients_files *recipients_files_new(struct core *core, struct disk *disk);
void recipients_files_tick(struct recipients_files *files); /* NULL is allowed: all of these */
void recipients_files_stop(struct recipients_files *files);
void recipients_files_free(struct recipients_files *files);

#endif
