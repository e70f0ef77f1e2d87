/* SPDX-License-Identifier: Apache-2.0
 *
 * How many sessions of a server may have work at once (R5): one after a recovery, twice as many
 * whenever as many messages were taken as it is wide, half as many when the server defers, says
 * 421, or takes longer and longer to answer. Announced LIMITS (RFC 9422) are the sessions' matter.
 *
 * Latency is the time from the dot to its reply, smoothed; it rises when it is above twice its best
 * of this recovery, and at least RAMP_RISE_MS above that.
 */
#ifndef HOLDFAST_RELAY_RAMP_H
#define HOLDFAST_RELAY_RAMP_H

#include <stdbool.h>
#include <stdint.h>

enum {
    RAMP_RISE_MS = 100,
    RAMP_HALVING_GAP_MS = 1000, /* one trouble, seen by many sessions, halves it once */
};

struct ramp {
    uint32_t width;
    uint32_t taken;      /* messages since the width last changed */
    int64_t halved_ms;   /* steady */
    int64_t smoothed_ms; /* eight times the latency; 0: none yet */
    int64_t best_ms;     /* likewise */
};

/* `width` UINT32_MAX: as wide as the server allows. */
void ramp_start(struct ramp *ramp, uint32_t width);
/* A message was taken, `latency_ms` after its dot, or < 0: unknown. `limit`: what the server
 * allows at most. */
void ramp_taken(struct ramp *ramp, uint32_t limit, int64_t latency_ms, int64_t now_ms);
/* The server is pressed: a 4xx that speaks of it, or 421. */
void ramp_pressed(struct ramp *ramp, uint32_t limit, int64_t now_ms);

#endif
