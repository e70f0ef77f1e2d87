/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/clock_offset.h"

void clock_offset_read(struct clock_offset *offset, int64_t theirs_ms, int64_t sent_ms,
                       int64_t returned_ms)
{
    int64_t least_ms = theirs_ms - returned_ms, most_ms = theirs_ms - sent_ms;
    bool agrees = offset->known && offset->ahead_ms >= least_ms && offset->ahead_ms <= most_ms;
    if (agrees && most_ms - least_ms > offset->doubt_ms) {
        offset->doubt_ms++; /* clocks drift: at most so much from one to the next */
        return;
    }
    *offset = (struct clock_offset){true, least_ms + (most_ms - least_ms) / 2, most_ms - least_ms};
}
