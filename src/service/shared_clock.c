/* SPDX-License-Identifier: Apache-2.0 */
#include "service/shared_clock.h"

#include <assert.h>

/* How far ahead of the steady clock it is now. */
static int64_t ahead_at(const struct shared_clock *clock, int64_t now_ms)
{
    int64_t passed_ms = now_ms > clock->at_ms ? now_ms - clock->at_ms : 0;
    int64_t wanting_ms = clock->wanted_ms - clock->ahead_ms;
    if (wanting_ms > passed_ms) {
        wanting_ms = passed_ms;
    } else if (wanting_ms < -passed_ms / 2) {
        wanting_ms = -passed_ms / 2;
    }
    return clock->ahead_ms + wanting_ms;
}

void shared_clock_read(struct shared_clock *clock, int64_t read_ms, int64_t wall_ms, int64_t now_ms)
{
    int64_t wanted_ms = wall_ms - read_ms;
    clock->ahead_ms = clock->known ? ahead_at(clock, now_ms) : wanted_ms;
    clock->wanted_ms = wanted_ms;
    clock->at_ms = now_ms;
    clock->known = true;
}

int64_t shared_clock_wall_ms(const struct shared_clock *clock, int64_t now_ms)
{
    assert(clock->known);
    return now_ms + ahead_at(clock, now_ms);
}
