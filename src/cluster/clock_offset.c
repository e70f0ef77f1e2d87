/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/clock_offset.h"

enum { DRIFT_OF = 2000 }; /* clocks drift apart by at most 1 ms in so many */

void clock_offset_read(struct clock_offset *offset, int64_t theirs_ms, int64_t sent_ms,
                       int64_t returned_ms)
{
    int64_t least_ms = theirs_ms - returned_ms, most_ms = theirs_ms - sent_ms;
    bool agrees = offset->known && offset->ahead_ms >= least_ms && offset->ahead_ms <= most_ms;
    int64_t drift_ms = (returned_ms - offset->read_ms) / DRIFT_OF;
    if (agrees && most_ms - least_ms > offset->doubt_ms + drift_ms) {
        return;
    }
    *offset = (struct clock_offset){true, least_ms + (most_ms - least_ms) / 2, most_ms - least_ms,
                                    returned_ms};
}
