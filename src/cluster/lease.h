/* SPDX-License-Identifier: Apache-2.0
 *
 * When a node may act for what it owns, and when another may take that from it. Values only: times
 * and what was read are arguments.
 *
 * A lease is the node's heartbeat: a row with the database's time of the last one. It lasts
 * LEASE_MS from the *sending* of the last renewal that came back, by the node's own clock; the row
 * says the same or later. Who takes shares counts from the row, by the database's time, if it has
 * read that same heartbeat for LEASE_MS less the margin by its own clock, too: the database's time
 * may jump, or be another's after a failover, and the other sends no dot after that. After LEASE_MS
 * by its own clock it needs no other. The database gives the shares only if that heartbeat is still
 * the last.
 *
 * Clocks: the steady clock counts the suspension of the machine (CLOCK_BOOTTIME), so a lease has
 * lapsed at waking. The clocks of a virtual machine stand still while its host has paused it, all
 * of them; the wall clock is what is set right after that, if anything is. So what that one has run
 * ahead of, or behind, the steady clock since the sending counts as passed: a wall clock that is
 * set for another reason costs a lease until the next renewal.
 */
#ifndef HOLDFAST_CLUSTER_LEASE_H
#define HOLDFAST_CLUSTER_LEASE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    LEASE_MS = 3500,
    LEASE_MARGIN_MS = 2000, /* what must be left of it before a dot, and a 250 that depends on it */
    LEASE_BEAT_MS = 500,    /* from renewal to renewal */
    LEASE_SUSPECT_MS = 1500,
    LEASE_GAP_MS = 1500, /* from answer to answer of a database that we are in contact with */
    /* Of contact before we judge others: after an outage all come back one by one, each by a pause
     * and an attempt that may hang. */
    LEASE_CONTACT_MS = 7000,
    /* No answer for so long: the connection is given up, in time for a renewal on another. */
    LEASE_ANSWER_MS = 2000,
};

struct lease_time {
    int64_t steady_ms; /* clock_steady_ms() */
    int64_t wall_ms;   /* clock_wall_ms() */
};

/* Begins as zeroes: none. */
struct lease {
    bool held;
    struct lease_time sent;
};

/* The renewal sent then has come back, durable, and what this node owns has been read after it. */
void lease_renew(struct lease *lease, struct lease_time sent);
int64_t lease_left_ms(const struct lease *lease, struct lease_time now); /* >= 0 */
/* Whether a dot, or a 250 that depends on the lease, may be sent now. */
bool lease_allows(const struct lease *lease, struct lease_time now);

/* ---- contact: who may judge others --------------------------------------------------------- */

/* A member has been in contact while answers came, none later than LEASE_GAP_MS after the one
 * before, from one and the same database: while the database was away, or slow, or the member
 * itself was paused, others' heartbeats are as old as its own and say nothing. Begins as zeroes. */
struct contact {
    bool made;
    int64_t since_ms; /* steady */
    int64_t last_ms;
    uint64_t database; /* which: another one begins anew */
};

/* An answer to what was sent then has come now. */
void contact_heard(struct contact *contact, int64_t sent_ms, int64_t now_ms, uint64_t database);
void contact_lost(struct contact *contact);
/* For how long, up to the last answer; 0: none, or the last answer is too long ago. */
int64_t contact_ms(const struct contact *contact, int64_t now_ms);

/* ---- others -------------------------------------------------------------------------------- */

/* One node's heartbeat as this member has seen it change. Begins as zeroes. */
struct heartbeat_seen {
    uint64_t incarnation; /* a part of it is enough */
    int64_t beat_us;      /* the database's time, as a value to compare */
    int64_t first_ms;     /* when this one was read first; steady */
    bool seen;
};

void heartbeat_read(struct heartbeat_seen *seen, uint64_t incarnation, int64_t beat_us,
                    int64_t now_ms);
int64_t heartbeat_unchanged_ms(const struct heartbeat_seen *seen, int64_t now_ms);
/* Whether that node has lost its lease; `age_ms` by the database's time. */
bool heartbeat_has_lapsed(const struct heartbeat_seen *seen, int64_t age_ms,
                          const struct contact *contact, int64_t now_ms);

enum node_state {
    NODE_JOINING, /* alive, but too short for what others own to be moved to it */
    NODE_UP,
    NODE_SUSPECT, /* three heartbeats have not come, or we cannot judge */
    NODE_DRAINING,
    NODE_DOWN,
};

/* What is known of a node. */
struct node_read {
    bool gone;      /* has lost its lease, or left in order, or never come */
    int64_t age_ms; /* of its heartbeat */
    int64_t up_ms;  /* how long it has been up without a break, at its last heartbeat */
    bool draining;
};

enum node_state node_state_of(const struct node_read *read);
const char *node_state_text(enum node_state state); /* as `node list` has it */

#endif
