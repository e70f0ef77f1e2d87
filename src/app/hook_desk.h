/* SPDX-License-Identifier: Apache-2.0
 *
 * What people are told of alerts, and when. Takes the news of core (service/alert_news.h), keeps a
 * queue of messages for each alert block of the configuration, and gives them out one at a time.
 *
 *   rate     a block may send `rate` messages in an hour, the first ones at once. What is above
 * that is gathered, and told in one message as soon as there is room for one more repeat   what
 * stands is told again after `repeat` retry    what could not be sent is tried again with growing
 * pauses while it is young enough; then it is gathered too, for the next message lost     a core
 * that has started again raises what still stands; what it has not raised again within a minute has
 * ended
 *
 * Bounded: ALERTS_MAX that stand and a few, HOOK_QUEUE_MAX messages a block; above that they are
 * gathered. No clock, no descriptor, no log: times and results are arguments.
 */
#ifndef HOLDFAST_APP_HOOK_DESK_H
#define HOLDFAST_APP_HOOK_DESK_H

#include "base/map.h"
#include "service/alert_news.h"
#include "service/config.h"

enum {
    HOOK_QUEUE_MAX = 100,
    HOOK_SUBJECT_SIZE = 300,
    HOOK_TEXT_SIZE = 1600, /* of a summary; of others ALERT_TEXT_SIZE */
    HOOK_LINES_MAX = 8,    /* in a summary */
    HOOK_RETRY_LEAST_MS = 2000,
    HOOK_RETRY_MOST_MS = 300000,
    HOOK_CONFIRM_MS = 60000,
};

enum hook_edge {
    HOOK_RAISED,
    HOOK_CHANGED,
    HOOK_ENDED,
    HOOK_HAPPENED,
    HOOK_REPEATED, /* it still stands */
    HOOK_SUMMARY,  /* `more` messages in one; text has a line for each of the first */
};

struct hook_time {
    int64_t steady_ms;
    int64_t wall_ms;
};

/* A row of "alert news". */
struct hook_news {
    bool stands; /* listed, not an edge */
    enum alert_edge edge;
    uint64_t number;
    enum alert_kind kind;
    int64_t time_ms, since_ms; /* wall */
    struct slice subject, text, was, from, to;
    enum alert_ending ending;
};

struct hook_message {
    struct link link;
    uint64_t number; /* of its edge; 0: it has none */
    enum hook_edge edge;
    enum alert_kind kind;
    enum alert_ending ending; /* with HOOK_ENDED */
    uint32_t more;
    int64_t time_ms, since_ms;
    int64_t queued_ms; /* steady */
    int64_t due_ms;
    uint32_t attempts;
    char id[48]; /* the same for each attempt */
    char subject[HOOK_SUBJECT_SIZE], from[80], to[80];
    char text[HOOK_TEXT_SIZE];
    char was[ALERT_TEXT_SIZE]; /* with HOOK_ENDED: the text while it stood */
};

/* One alert block. */
struct hook_queue {
    char *name;
    const struct hook_config *config;
    struct link messages; /* oldest first */
    uint32_t count;
    bool under_way;    /* the first is being sent */
    char failing[100]; /* the caller's: why the last one could not be sent; empty: it was */
    int64_t credit_ms, credit_at_ms;
    /* Gathered. */
    uint32_t gathered;
    uint64_t gathered_number;     /* the oldest edge among them; 0: none has one */
    struct hook_message *summary; /* while there are any */
};

struct hook_desk {
    struct hook_queue queues[HOOKS_MAX];
    uint32_t queue_count;
    struct map standing;
    struct hash_key key;
    uint64_t last_number;  /* taken */
    uint64_t first_number; /* told before this life was met */
    int64_t confirm_until_ms;
    uint64_t made;    /* messages, for their ids */
    uint64_t dropped; /* for want of memory */
};

void hook_desk_init(struct hook_desk *desk, struct hash_key key);
void hook_desk_done(struct hook_desk *desk);
/* Takes on the alert blocks; those of the same name keep their queues. `config` must outlive it or
 * be replaced. No message may be under way. A new block is told what stands. */
void hook_desk_configure(struct hook_desk *desk, const struct service_config *config,
                         struct hook_time now);
/* Edges are numbered anew from here: core has started again, or is met for the first time. Those up
 * to `told` have been told. */
void hook_desk_new_life(struct hook_desk *desk, uint64_t told, struct hook_time now);
void hook_desk_take(struct hook_desk *desk, const struct hook_news *news, struct hook_time now);
/* Time has passed; once a second will do. */
void hook_desk_tick(struct hook_desk *desk, struct hook_time now);
/* The message that the block is to send now, or NULL. It is under way until hook_desk_result(). */
const struct hook_message *hook_desk_next(struct hook_desk *desk, uint32_t queue,
                                          struct hook_time now);
enum hook_result {
    HOOK_SENT,
    HOOK_FAILED,  /* and trying again is no use */
    HOOK_REFUSED, /* by the other side, or it is not there: try again */
    HOOK_LATER,   /* it could not be tried */
};
/* True: it will be tried again. */
bool hook_desk_result(struct hook_desk *desk, uint32_t queue, enum hook_result result,
                      struct hook_time now);
/* Up to this edge all has been sent, or never will be. */
uint64_t hook_desk_told(const struct hook_desk *desk);

/* "failover-succeeded", "failover-failed", "server-down" ...; what a machine looks at first. */
const char *hook_event(const struct hook_message *message);
const char *hook_edge_text(enum hook_edge edge);

#endif
