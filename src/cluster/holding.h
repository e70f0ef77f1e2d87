/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node owns, and what it does about it after each reading: pure, cluster/member.c carries
 * it out. A share is held with the token that the database gave; it is held no more from the moment
 * that somebody says so: the caller (it has left), or what was read (another token, another owner).
 *
 * A share that stands in our name but is not held (an earlier life of this node took it, or the
 * answer to a claim was lost) is claimed anew, with the next token, or given up.
 */
#ifndef HOLDFAST_CLUSTER_HOLDING_H
#define HOLDFAST_CLUSTER_HOLDING_H

#include "base/arena.h"
#include "base/map.h"
#include "cluster/view.h"

struct holding {
    struct map held; /* by number of the share: struct held */
};

enum holding_act {
    HOLDING_CLAIM,   /* if token, and heartbeat of its owner, are as read: ours, with the next */
    HOLDING_RELEASE, /* if it is ours with that token: nobody's */
    HOLDING_LEAVE,   /* to be told: another should have it; holding_left() when nothing is under way
                      */
    HOLDING_LOST,    /* to be told: it is held no more */
};

struct holding_step {
    enum holding_act act;
    uint32_t share;
    int64_t token;   /* as read; of LOST and LEAVE the one held */
    int owner;       /* as read */
    int64_t beat_us; /* CLAIM: of the owner's heartbeat, as read; it must not have changed */
    size_t row;      /* index into the view's shares; of LOST only if the share is there */
};

void holding_init(struct holding *holding);
void holding_done(struct holding *holding);

/* What follows from a view that watch_read() has been through. `may_claim`: the lease, just
 * renewed, allows it. The steps live in the arena. ERROR_MEMORY: nothing was changed. */
enum error holding_follow(struct holding *holding, const struct view *view, bool may_claim,
                          struct arena *arena, struct holding_step **ret_steps,
                          size_t *ret_count) MUST_CHECK;
/* The database has given it to us. ERROR_MEMORY: it is not held. */
enum error holding_take(struct holding *holding, uint32_t share, int64_t token) MUST_CHECK;
/* The caller has left it. False: it was not held. */
bool holding_left(struct holding *holding, uint32_t share, int64_t *ret_token);
/* False: not held. */
bool holding_has(const struct holding *holding, uint32_t share, int64_t *ret_token);
size_t holding_count(const struct holding *holding);

#endif
