/* SPDX-License-Identifier: Apache-2.0
 *
 * This node as a member of its cluster: it joins, keeps its lease, reads who else is there, takes
 * and gives up shares. All of that on a thread with a connection of its own, as rounds (renew,
 * read, change) each LEASE_BEAT_MS; what follows is told on the loop. What is decided is decided in
 * cluster/holding.c and cluster/watch.c; what the database is told stands in member_sql.c.
 *
 * The promise: member_may() is true on at most one node at a time for a share (cluster/lease.h says
 * under which clocks), and no token is ever given twice. While the database is away or slow nobody
 * takes anything from anybody, and member_may() ends with the lease, though the shares stay held.
 *
 * Joining gives this node its number. A name belongs to one state directory (`instance`); another
 * one gets it only when nothing has been heard of the first for LEASE_MS. So does the same one on
 * another machine, for a disk may have been copied; on the same machine at once, for there the
 * caller has locked the directory.
 */
#ifndef HOLDFAST_CLUSTER_MEMBER_H
#define HOLDFAST_CLUSTER_MEMBER_H

#include "base/id.h"
#include "cluster/view.h"
#include "sys/database.h"
#include "sys/loop.h"

struct member;

enum {
    MEMBER_TEXT_SIZE = DATABASE_ERROR_SIZE + 160, /* of what is told in words */
    MEMBER_PLACE_MAX = 255,
    MEMBER_COMMANDS_MAX = 16, /* under way at once */
    MEMBER_READ_MS = 750, /* what a heartbeat says has been read by the others, about: a half more
                             than their rounds take */
};

struct member_settings {
    struct database_settings database; /* connect_timeout_ms: 3000 at most, to be back in time */
    struct slice name;                 /* node_name_is_good(), as the site */
    struct slice site;                 /* may be empty */
    struct slice version;
    unsigned roles;             /* enum node_role */
    struct message_id instance; /* drawn once for a state directory, which the caller has locked */
    struct slice place;         /* where this process runs, for people: "mx1.example.net, pid 12" */
    struct slice machine;       /* the same for each process on this machine, and no other */
    int64_t wall_ahead_ms;      /* added to the wall clock; 0 but in tests */
};

struct member_share {
    uint32_t number;
    struct slice name; /* good during the call */
    int64_t token;
};

enum member_news_kind {
    MEMBER_NODE_DOWN, /* as enum watch_kind; told by every member, so alert by who leads */
    MEMBER_NODE_LEFT,
    MEMBER_NODE_BACK,
    MEMBER_TAKEN_OVER,
    MEMBER_TAKEOVER_LATE,
    MEMBER_AWAY,    /* the database, in words; again until HERE if it is back, and not for us */
    MEMBER_HERE,    /* it answers again */
    MEMBER_REFUSED, /* we may not join, in words; tried on; once for each reason */
    MEMBER_SPLIT,   /* the lease has lapsed; once until HEALED */
    MEMBER_HEALED,
};

struct member_news {
    enum member_news_kind kind;
    struct slice node; /* whom it is about; its name */
    size_t shares;     /* struct watch_event's */
    int64_t after_ms;  /* likewise; of HERE and HEALED: since AWAY and SPLIT */
    const char *text;  /* "" or one line; no secret is in it */
};

/* Called on the loop. What they are given is good during the call. They may call anything here but
 * member_free(). */
struct member_handler {
    void *context;
    /* The number is the same in each life of this node. Also after a REFUSED that came later. */
    void (*joined)(void *context, int number);
    void (*taken)(void *context, const struct member_share *share);
    /* Another should have it: begin nothing more, and say member_left() when nothing is under way.
     */
    void (*leave)(void *context, const struct member_share *share);
    /* It is no longer ours, now. */
    void (*lost)(void *context, const struct member_share *share);
    void (*leads)(void *context, bool leads);
    void (*news)(void *context, const struct member_news *news);
};

/* NULL: memory, or the kernel refuses a thread. Copies. The first round begins at once. */
struct member *member_new(struct loop *loop, const struct member_settings *settings,
                          const struct member_handler *handler);
/* Waits for the thread, whose call to the database is cut short. What is held stays in our name
 * until the lease has lapsed: member_stop() is better. NULL is allowed. */
void member_free(struct member *member);
/* In order: nothing of ours is under way any more, so all shares are given up, and the others know
 * that we are going. `done` comes within LEASE_ANSWER_MS, done or not; nothing else does then. */
void member_stop(struct member *member, void (*done)(void *context), void *context);

/* Copied; goes with the next heartbeats. Its clock and lag are measured here. */
void member_set_health(struct member *member, const struct node_health *health);
/* Whether a dot, or a 250 that depends on it, may be sent now for this share: it is held with this
 * token, and the lease has LEASE_MARGIN_MS left. */
bool member_may(const struct member *member, uint32_t share, int64_t token);
bool member_leads(const struct member *member); /* and the lease allows it */

/* What others may still have to bring. Order per recipient is kept across nodes by it
 * (docs/decisions/0043). */
struct member_due {
    int64_t upto_ms;    /* watch_due() */
    struct slice node;  /* whose; good until the loop goes on */
    uint64_t until_xid; /* all that others say to have brought was so by earlier transactions */
    int64_t asked_ms;   /* steady: when the heartbeat was sent that this was read behind */
    bool takes;         /* shares are being taken: what is in them is not known yet */
};
void member_due(const struct member *member, struct member_due *ret_due);
/* The caller has lost the database's answer on a connection of its own: another may have taken its
 * place, so what the others have said before does not count until all have been heard again. */
void member_doubt(struct member *member);
/* The others know that mail which we accepted from then on (Unix ms) may still have to be brought,
 * and wait for it. INT64_MAX: of none; INT64_MIN: they cannot be told, and wait for nothing. */
int64_t member_told_ms(const struct member *member);
int64_t member_lease_left_ms(const struct member *member);
void member_left(struct member *member, uint32_t share);
int member_number(const struct member *member); /* 0: not joined yet */
/* The database's clock less our wall clock, by the last renewal: what ids are made with. */
int64_t member_clock_ahead_ms(const struct member *member);
/* What the database's clock said (wall_ms), and when by our steady clock. False: nothing yet. */
bool member_database_time(const struct member *member, struct lease_time *ret_time);

/* The rest is asked of the database and answered later, in order; `done` comes once, on the loop,
 * at the latest from member_free(). False: memory, or MEMBER_COMMANDS_MAX are under way. */
enum member_answer {
    MEMBER_DONE,
    MEMBER_MISSING,     /* there is no such node */
    MEMBER_ALIVE,       /* it cannot be removed: drain it, stop it */
    MEMBER_UNREACHABLE, /* the database does not answer; it may be done all the same */
};
typedef void member_answer_fn(void *context, enum member_answer answer, int64_t number);

/* The number of the share with this name, which gets its row if it has none. */
bool member_name_share(struct member *member, struct slice name, member_answer_fn *done,
                       void *context);
/* What it owns goes to others, and it is given nothing while there is another; or again. The second
 * also takes back a node that was removed. The number is the node's. */
bool member_drain(struct member *member, struct slice node, member_answer_fn *done, void *context);
bool member_undrain(struct member *member, struct slice node, member_answer_fn *done,
                    void *context);
/* A node that is down, for good: it counts no more, and may not join until undrained. */
bool member_remove(struct member *member, struct slice node, member_answer_fn *done, void *context);

/* One node as `node list` shows it; its JSON fields have these names, but site without one. */
struct member_node {
    int number;
    struct slice name;
    struct slice site;
    unsigned role;
    enum node_state state;
    struct slice version;
    struct slice place;
    int64_t last_contact; /* seconds since its last heartbeat; -1: never */
    size_t lanes;         /* shares that it owns */
    bool leader;
    bool draining;
    struct node_health health; /* queue, disk, clock offset, database lag */
};
/* As last read: the i-th, by number; false: there is none. Slices are good until the loop goes on.
 * For NULL too, which has none. */
bool member_node_at(const struct member *member, size_t i, struct member_node *ret_node);
/* How long ago that was; -1: nothing has been read. */
int64_t member_age_ms(const struct member *member);
/* Why this node is not let in, for people; empty: nobody says no. */
const char *member_refusal(const struct member *member);
/* The name of the node that owns the share of this name, as last read; empty: nobody, or it is not
 * there yet. Good until the loop goes on. */
struct slice member_owner_of(const struct member *member, struct slice share);

#endif
