/* SPDX-License-Identifier: Apache-2.0
 *
 * What making and retiring ranges share.
 */
#ifndef HOLDFAST_SPOOL_PG_PARTITION_INTERNAL_H
#define HOLDFAST_SPOOL_PG_PARTITION_INTERNAL_H

#include "spool/pg_partition.h"

enum { PG_QUICK_MS = 10000, PG_SCAN_MS = 60000, PG_NAME_SIZE = 40 };

/* In the order in which they are detached: what says that there is a message goes before what says
 * that it is finished. */
enum { PG_PARTS, PG_MESSAGES, PG_CHUNKS, PG_NOTES, PG_FATES, PG_KIND_COUNT };
struct pg_kind {
    const char *name;
    const char *parameters; /* of storage: rows are only added, and the table goes soon */
};
extern const struct pg_kind PG_KINDS[PG_KIND_COUNT];

bool pg_is_good(enum database_outcome outcome);
/* Says `failure`, unless it comes worse. */
enum database_outcome pg_roll_back(struct database *database, enum database_outcome failure);
/* Runs and empties it. */
enum database_outcome pg_run_buffer(struct database *database, struct buffer *sql, int timeout_ms);

#endif
