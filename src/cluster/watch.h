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
    bool late;         /* told */
};

struct watch {
    struct watched nodes[NODE_MEMBERS_MAX];
};

enum { WATCH_EVENTS_MAX = 2 * NODE_MEMBERS_MAX };

/* Fills in state, lapsed and shares of each member of the view, and tells what has changed since
 * the one before. `now_ms`: steady, when the answer came. */
size_t watch_read(struct watch *watch, struct view *view, const struct contact *contact,
                  int64_t now_ms, struct watch_event ret_events[WATCH_EVENTS_MAX]);

#endif
