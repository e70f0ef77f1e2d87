/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal of events per message, for `trace` (R12): append-only files, kept for `trace-keep`
 * and within a bound of bytes; found again by message id, by address (sender, recipient or client)
 * and by Message-ID.
 *
 * It is a record for people, not a promise: nothing waits for it and it is never synced. Adding an
 * event encodes it into memory (well under a microsecond); a worker thread writes. When the disk is
 * so slow that EVENTS_PENDING_MAX bytes wait, events are dropped and counted. What a crash or a
 * power cut leaves half written is skipped when read.
 */
#ifndef HOLDFAST_SERVICE_EVENTS_H
#define HOLDFAST_SERVICE_EVENTS_H

#include "base/arena.h"
#include "base/id.h"
#include "base/network.h"
#include "sys/disk.h"
#include "sys/loop.h"

enum {
    EVENTS_PENDING_MAX = 8 << 20,
    EVENTS_RECORD_MAX = 1 << 20, /* one event, encoded; recipients beyond it are left out */
    EVENTS_IDS_MAX = 1000,       /* messages that one search follows, the newest */
    EVENTS_NO_DELIVERY = -1,
};

/* The order is on disk: append only. */
enum event_kind {
    EVENT_ACCEPTED = 1,
    EVENT_ATTEMPT,
    EVENT_DELIVERED,
    EVENT_DEFERRED,
    EVENT_IN_DOUBT,
    EVENT_HELD,
    EVENT_RELEASED,
    EVENT_DEAD,
    EVENT_BOUNCED,
    EVENT_DISCARDED,
    EVENT_REDIRECTED,
    EVENT_RETRIED,
    EVENT_IMPORTED,
    EVENT_ORPHANED,
    EVENT_SERVER, /* this and those up to DRAINED: of servers and lanes, with no id */
    EVENT_SWITCHED,
    EVENT_STOPPED,
    EVENT_DRAINING,
    EVENT_DRAINED,
    EVENT_PULLED,  /* delivered over a connection that its recipient's client has made */
    EVENT_RESENT,  /* from its safety copy: of the message, and of the one that it is sent as */
    EVENT_REFUSED, /* a client, or a recipient of a message that may have come without it */
    EVENT_LOGIN,   /* somebody has logged in; `sender` is his name */
    EVENT_DENIED,  /* or was not let; likewise, empty where only left_out is told */
    EVENT_GUARD,   /* of a server's guard, likewise with no id */
    EVENT_KINDS,
};
const char *event_kind_text(enum event_kind kind); /* as in control.h; "unknown" for any other */

struct event {
    enum event_kind kind;
    int64_t time_ms; /* Unix time */
    struct message_id id;
    int64_t delivery; /* or EVENTS_NO_DELIVERY: all, or the message itself */
    uint64_t bytes;
    int64_t next_ms; /* 0: none */
    bool has_client;
    struct ip_address client;
    struct slice sender; /* of EVENT_ACCEPTED, EVENT_IMPORTED and, if has_sender, others */
    bool has_sender;
    struct slice message_id;
    const struct slice *recipients;
    uint32_t recipient_count;
    struct slice server;
    struct slice reason;
    struct slice reply;
    struct slice tls;      /* policy and result, in words */
    struct slice subject;  /* of what is about no message: the server or lane, and: */
    struct slice from, to; /* states, or servers of a switch */
    int64_t lasted_ms;     /* what is over with it; 0: nothing, or not known */
    uint64_t left_out;     /* EVENT_REFUSED, EVENT_DENIED: others of its network, not kept;
                              EVENT_LOGIN: of its user */
};

/* The id of events about no message. */
#define EVENTS_NO_MESSAGE ((struct message_id){0, 0})

struct events_settings {
    uint64_t keep_ms;
    uint64_t total_bytes; /* oldest files go when there is more; told by events_gone_until() */
    uint32_t file_bytes;  /* one file; at most 64 MB */
};

struct events;

/* The disk is taken over (also on failure). Files that an earlier life left without an index get
 * one in the background. */
enum error events_open(struct loop *loop, struct disk *disk, const struct events_settings *settings,
                       struct events **ret_events) MUST_CHECK;
/* Writes what is pending. NULL is allowed. Searches must be gone. */
void events_close(struct events *events);
void events_reconfigure(struct events *events, const struct events_settings *settings);
void events_add(struct events *events, const struct event *event);
/* About once a second: hands over to the worker; drops what is too old. */
void events_tick(struct events *events, int64_t now_ms);
/* Events that were dropped since the open: memory full, or a write failed. */
uint64_t events_dropped(const struct events *events);
/* Unix ms: since the open, events up to then went before their time, for want of room. 0: none. */
int64_t events_gone_until(const struct events *events);

/* ---- finding --------------------------------------------------------------------------------- */

struct events_search;
/* One step is done: `events` are those found by it, in order, valid during the call. `end`: there
 * are no more; `cut`: only the newest EVENTS_IDS_MAX messages were followed. */
typedef void events_found_fn(void *context, const struct event *events, size_t count, bool end,
                             bool cut);

/* `what`: a message id, "id/N", "<Message-ID>" or an address, also of a client. NULL: memory. */
struct events_search *events_search_new(struct events *events, struct slice what,
                                        events_found_fn *fn, void *context);
/* One more step (about one file's worth), answered on the loop; one at a time. */
void events_search_step(struct events_search *search);
/* At any time, also from inside the answer; no answer comes any more. NULL is allowed. */
void events_search_free(struct events_search *search);

#endif
