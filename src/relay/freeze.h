/* SPDX-License-Identifier: Apache-2.0
 *
 * A fire drill: for some time the hand-over of a domain's own lane is frozen, as if its servers
 * were away. Its mail is accepted and waits, and grows no older (R7); probes and verdicts on
 * servers go on as ever. What was redirected by hand is not touched.
 *
 * The freeze is a global note with its end, so that no crash and no restart prolongs it. What
 * comes out while it lasts and while what was held drains is counted, and told when that is over.
 */
#ifndef HOLDFAST_RELAY_FREEZE_H
#define HOLDFAST_RELAY_FREEZE_H

#include "relay/relay.h"

enum {
    RELAY_FREEZE_MAX_MS = 4 * 3600 * 1000,
    RELAY_FREEZE_OLD_MS = 60 * 1000, /* mail that has waited so long means trouble */
};

enum relay_freeze_bar {
    RELAY_FREEZE_DONE, /* it is frozen */
    RELAY_FREEZE_LOADING,
    RELAY_FREEZE_STANDS, /* another drill runs there, or its mail still drains */
    RELAY_FREEZE_STOPPED,
    RELAY_FREEZE_NO_SERVER, /* its first server is not up; under MX routing none is */
    RELAY_FREEZE_DRAINING,
    RELAY_FREEZE_OLD_MAIL, /* a delivery of it is older than RELAY_FREEZE_OLD_MS */
    RELAY_FREEZE_MEMORY,
};

enum relay_thaw {
    RELAY_THAW_TIME,
    RELAY_THAW_STOP,    /* asked for, or its domain left the configuration */
    RELAY_THAW_FAILURE, /* its first server, under MX routing each, is really down or disabled */
    RELAY_THAW_STORAGE, /* told by the caller */
};

/* What RELAY_EVENT_REHEARSED tells. */
struct relay_rehearsal {
    int64_t began_wall_ms;
    enum relay_thaw ended;
    uint64_t held;         /* deliveries that were to go at the thaw */
    uint64_t delivered;    /* of those */
    uint64_t asked;        /* of those, envelopes taken back behind RCPT that it accepted */
    uint64_t refused;      /* likewise, that it did not */
    uint64_t out_of_order; /* deliveries of the lane replied to after a later one of the same
                              recipient, since the beginning */
    uint64_t doubled;      /* dots without a reply since then: what is repeated for them may come
                              twice */
    int64_t first_ms;      /* from the thaw to the first reply that ended one; -1: none came */
    int64_t drained_ms;    /* from the thaw until nothing of what was held was left to go; -1: its
                              servers failed before that */
};

/* `ms` is at most RELAY_FREEZE_MAX_MS. Actions follow: the note, RELAY_EVENT_FROZEN. */
enum relay_freeze_bar relay_freeze(struct relay *relay, uint32_t route, int64_t ms,
                                   struct relay_time now) MUST_CHECK;
/* Ends it, for all routes with NO_INDEX. Returns how many were frozen. */
uint32_t relay_thaw(struct relay *relay, uint32_t route, enum relay_thaw why,
                    struct relay_time now);
/* "time", "stop" ... */
const char *relay_thaw_text(enum relay_thaw why);

#endif
