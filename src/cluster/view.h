/* SPDX-License-Identifier: Apache-2.0
 *
 * The cluster as one member has read it at one time: its members and the shares. What it says of a
 * member's state is filled in by watch_read() (cluster/watch.h).
 */
#ifndef HOLDFAST_CLUSTER_VIEW_H
#define HOLDFAST_CLUSTER_VIEW_H

#include "cluster/lease.h"
#include "cluster/share.h"

enum { CLUSTER_SHARES_MAX = 16384 }; /* more are not read: settings that name groups without end */

/* What a node says of itself with each heartbeat; -1: not known. */
struct node_health {
    int64_t messages; /* in its queue */
    int64_t deliveries;
    int64_t journalled; /* messages that only its own journal has */
    int64_t disk_free_bytes;
    int64_t disk_bytes;
    int64_t clock_offset_ms; /* its wall clock less the database's */
    int64_t database_lag_ms; /* how long its last renewal took */
    int64_t bytes;           /* of its queue */
    int64_t held;            /* deliveries, likewise */
    int64_t dead_letters;    /* deliveries; not in its queue */
    int64_t oldest_ms;       /* Unix time: reception of the oldest in it; 0: there is none */
    int64_t behind_ms;       /* when the oldest mail was accepted that it has yet to bring; Unix */
};

struct view_member {
    int number;
    struct slice name;
    struct slice site;    /* "": none */
    struct slice version; /* of the program */
    struct slice place;   /* where it runs, in its own words */
    unsigned roles;       /* enum node_role */
    int schema;
    bool draining;
    bool has_beat;
    uint64_t incarnation;
    int64_t beat_us; /* the database's time, since 1970-01-01 */
    int64_t age_ms;  /* of the heartbeat, by the database's time, at reading */
    int64_t up_ms;   /* from its first heartbeat without a break to the last one */
    struct node_health health;
    /* By watch_read(): */
    enum node_state state;
    bool lapsed;   /* what it owns may be taken */
    size_t shares; /* that stand in its name, the leader's left out */
};

struct view_share {
    uint32_t number; /* > 0 */
    struct slice name;
    struct share_name parsed;
    int owner; /* 0: nobody */
    int64_t token;
};

struct view {
    int own; /* the reader's number */
    struct view_member *members;
    size_t member_count;       /* at most NODE_MEMBERS_MAX */
    struct view_share *shares; /* of one family and group together */
    size_t share_count;
    uint64_t until_xid; /* what members say to have brought was brought by earlier transactions */
};

#endif
