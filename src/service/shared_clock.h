/* SPDX-License-Identifier: Apache-2.0
 *
 * The wall time of a cluster, as one of its nodes knows it: the database's, read now and then, and
 * kept by the node's steady clock in between. What the node's own wall clock says plays no part
 * once the database has been heard. A value: times are arguments.
 *
 * The first reading is believed as it is. Later ones (the clock was set, or the database is another
 * host's now) are approached, so that time never goes back and never leaps: it runs at half the
 * speed, or at twice.
 */
#ifndef HOLDFAST_SERVICE_SHARED_CLOCK_H
#define HOLDFAST_SERVICE_SHARED_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Begins as zeroes: not known. */
struct shared_clock {
    bool known;
    int64_t ahead_ms;  /* of the steady clock, at `at_ms` */
    int64_t wanted_ms; /* by the last reading */
    int64_t at_ms;     /* steady */
};

/* The database said `wall_ms` (Unix time) when the steady clock said `read_ms`; now it is `now_ms`.
 */
void shared_clock_read(struct shared_clock *clock, int64_t read_ms, int64_t wall_ms,
                       int64_t now_ms);
/* Unix time. Only if it is known. */
int64_t shared_clock_wall_ms(const struct shared_clock *clock, int64_t now_ms);

#endif
