/* SPDX-License-Identifier: Apache-2.0
 *
 * Upkeep of the cluster's tables, by whoever leads: partitions are made ahead and retired, and rows
 * that nobody needs any more are removed. On a thread and a connection of its own.
 */
#ifndef HOLDFAST_SERVICE_UPKEEP_H
#define HOLDFAST_SERVICE_UPKEEP_H

#include "sys/database.h"
#include "sys/loop.h"

struct upkeep;

/* NULL: memory, or no thread. Copies. */
struct upkeep *upkeep_new(struct loop *loop, const struct database_settings *database);
/* Ends what runs. NULL is allowed. */
void upkeep_free(struct upkeep *upkeep);
/* Called often, only while this node leads. `keep_ms`: of what was handed over. */
void upkeep_if_due(struct upkeep *upkeep, int64_t keep_ms);
/* It is due. */
void upkeep_soon(struct upkeep *upkeep);

#endif
