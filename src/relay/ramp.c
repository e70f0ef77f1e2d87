/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ramp.h"

enum { SMOOTHING = 8, LONG_AGO = -1000000 };

void ramp_start(struct ramp *ramp, uint32_t width)
{
    *ramp = (struct ramp){.width = width, .halved_ms = LONG_AGO};
}

static void change(struct ramp *ramp, uint32_t limit, uint64_t width)
{
    ramp->width = width == 0 ? 1 : width > limit ? limit : (uint32_t)width;
    ramp->taken = 0;
}

void ramp_pressed(struct ramp *ramp, uint32_t limit, int64_t now_ms)
{
    if (now_ms - ramp->halved_ms >= RAMP_HALVING_GAP_MS) {
        ramp->halved_ms = now_ms;
        change(ramp, limit, (ramp->width < limit ? ramp->width : limit) / 2);
    }
}

static void measure(struct ramp *ramp, int64_t latency_ms)
{
    int64_t sample = latency_ms * SMOOTHING;
    ramp->smoothed_ms = ramp->smoothed_ms == 0
                            ? sample
                            : ramp->smoothed_ms + (sample - ramp->smoothed_ms) / SMOOTHING;
    if (ramp->best_ms == 0 || ramp->smoothed_ms < ramp->best_ms) {
        ramp->best_ms = ramp->smoothed_ms;
    }
}

static bool rises(const struct ramp *ramp)
{
    return ramp->smoothed_ms > 2 * ramp->best_ms &&
           ramp->smoothed_ms >= ramp->best_ms + RAMP_RISE_MS * SMOOTHING;
}

void ramp_taken(struct ramp *ramp, uint32_t limit, int64_t latency_ms, int64_t now_ms)
{
    if (latency_ms >= 0) {
        measure(ramp, latency_ms > 0 ? latency_ms : 1);
    }
    uint32_t width = ramp->width < limit ? ramp->width : limit;
    if (++ramp->taken < width) {
        return;
    }
    ramp->taken = 0;
    if (rises(ramp)) {
        ramp_pressed(ramp, limit, now_ms);
    } else if (ramp->width < limit) {
        change(ramp, limit, 2 * (uint64_t)ramp->width);
    }
}
