/* SPDX-License-Identifier: Apache-2.0
 *
 * What has become of the others between one reading and the next: their states, who may be taken
 * from, and what an operator should hear. Pure.
 */
#ifndef HOLDFAST_CLUSTER_WATCH_H
#define HOLDFAST_CLUSTER_WATCH_H

#include "cluster/balance.h"
#include "cluster/view.h"

enum { WATCH_LATE_MS = 15000 }; /* shares stand in the name of a node that is known to be lost */

enum watch_kind {
    WATCH_DOWN,  /* a node has not been heard of for LEASE_MS */
    WATCH_LEFT,  /* it has ended in order */
    WATCH_BACK,  /* and is here again */
    WATCH_TAKEN, /* all that it owned is owned by others */
    WATCH_LATE,  /* it is not, after WATCH_LATE_MS */
};

struct watch_event {
    enum watch_kind kind;
    int node;
    struct slice name; /* of the node; the view's */
    size_t shares; /* that it owned: TAKEN; that still stand in its name: LATE; else that do now */
    int64_t after_ms; /* from its last heartbeat */
};

/* One node. */
struct watched {
    int number; /* 0: free */
    struct heartbeat_seen heartbeat;
    bool known; /* its state has been judged once */
    bool down;  /* told, or so at our start */
    bool left;
    size_t owned;      /* as last read before it was lost */
    size_t shares;     /* that it owned when it was lost; 0: none, or all have gone */
    int64_t lost_ms;   /* steady: its last heartbeat, */
    int64_t judged_ms; /* and when it was known to be the last */
    int64_t judged_us; /* that heartbeat, as a value to compare */
    bool late;         /* told */
};

struct watch {
    struct watched nodes[NODE_MEMBERS_MAX];
};

enum { WATCH_EVENTS_MAX = 2 * NODE_MEMBERS_MAX };
/* Of what a node accepted so long before its heartbeat it says so there, if it still has to bring
 * it to the database: longer than PG_BEHIND_MS of the spool, and the beat of who tells it. */
enum { WATCH_UNSAID_MS = 1000 };

/* Fills in state, lapsed and shares of each member of the view, and tells what has changed since
 * the one before. `now_ms`: steady, when the answer came. */
size_t watch_read(struct watch *watch, struct view *view, const struct contact *contact,
                  int64_t now_ms, struct watch_event ret_events[WATCH_EVENTS_MAX]);

/* Mail that was accepted up to then (Unix ms) nobody has yet to bring, but nodes that are down; of
 * later mail *ret_node may. INT64_MAX: of none. `since_ms`: since when (steady) this reader has
 * known the database without a break. Of a node that has not been heard anew since then it is only
 * known what it said before: both may have been cut off, and it may have taken mail meanwhile. */
int64_t watch_due(const struct watch *watch, const struct view *view, int64_t since_ms,
                  struct slice *ret_node);

#endif
