/* SPDX-License-Identifier: Apache-2.0
 *
 * What a group's transaction says about mail, and columns as parameters.
 */
#ifndef HOLDFAST_SPOOL_PG_SEND_H
#define HOLDFAST_SPOOL_PG_SEND_H

#include "spool/pg_internal.h"

enum {
    PG_ARRAYS_MAX = 10,
    PG_ROUTED_MS = 1000, /* so long new mail asks, too, after it has found no partition */
};

/* Columns with their heads, as parameters. */
struct pg_arrays {
    struct buffer buffers[PG_ARRAYS_MAX];
    struct database_value values[PG_ARRAYS_MAX];
    int count;
    bool failed;
};
void pg_arrays_add(struct pg_arrays *arrays, enum database_type element, enum database_type type,
                   size_t count, const struct buffer *elements);
void pg_arrays_done(struct pg_arrays *arrays);

/* Queues messages, fates and notes. A message that cannot be read gets its error and is left out.
 */
enum database_outcome pg_send_mail(struct pg_group *group);

#endif
