/* SPDX-License-Identifier: Apache-2.0
 *
 * By how much another machine's clock is ahead of ours, from answers of it that each take their
 * time: where in that time it looked at its clock nobody says. So the answer that took least is
 * believed, until it grows old, or another one contradicts it, for clocks are set, too. Values
 * only.
 */
#ifndef HOLDFAST_CLUSTER_CLOCK_OFFSET_H
#define HOLDFAST_CLUSTER_CLOCK_OFFSET_H

#include <stdbool.h>
#include <stdint.h>

/* Begins as zeroes. */
struct clock_offset {
    bool known;
    int64_t ahead_ms;
    int64_t doubt_ms; /* it may be more or less by half of that, */
    int64_t read_ms;  /* as it was then; ours */
};

/* It said `theirs_ms` at some time from `sent_ms` to `returned_ms` of our clock. */
void clock_offset_read(struct clock_offset *offset, int64_t theirs_ms, int64_t sent_ms,
                       int64_t returned_ms);

#endif
