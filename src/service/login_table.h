/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of users as who asks for passwords has it: read again when the tool has replaced the
 * file (service/login_store.h). One that cannot be read is logged, and the last good one serves on.
 */
#ifndef HOLDFAST_SERVICE_LOGIN_TABLE_H
#define HOLDFAST_SERVICE_LOGIN_TABLE_H

#include "service/login_store.h"
#include "sys/disk.h"

struct login_table;

/* Takes the disk over, the directory of the table, and only reads there. NULL: memory. */
struct login_table *login_table_new(struct disk *disk);
void login_table_free(struct login_table *table); /* NULL is allowed */
/* The table is this text, and not that of the file; empty: that of the file again. */
void login_table_share(struct login_table *table, struct slice text);
/* Looks whether the file is another one. */
void login_table_refresh(struct login_table *table);
/* Valid until the next refresh. Without a file it is empty. */
const struct login_store *login_table_store(const struct login_table *table);

#endif
