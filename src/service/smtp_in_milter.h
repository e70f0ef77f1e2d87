/* SPDX-License-Identifier: Apache-2.0
 *
 * Filters (proto/milter.h) that look at what a listener takes. The parts:
 *
 *   smtp_in_milter_link.c     connections: asked for, used again, lost, in time
 *   smtp_in_milter.c          a session's filters, asked one after another at each step
 *   smtp_in_milter_content.c  a message's content on its way through them, and then to core
 *   smtp_in_milter_draft.h    that content meanwhile, and what they change
 *   smtp_in_milter_macro.c    what they are told of the session
 *
 * A filter that is away, too slow or talks nonsense is left out of the message, or the message is
 * answered 451, as configured; no other session waits for that.
 */
#ifndef HOLDFAST_SERVICE_SMTP_IN_MILTER_H
#define HOLDFAST_SERVICE_SMTP_IN_MILTER_H

#include "proto/header_list.h"
#include "proto/milter.h"
#include "service/smtp_in_internal.h"
#include "sys/scratch.h"

/* A configured filter, as long as a listener or a session needs it. */
struct milter_peer {
    struct link link; /* in->milter_peers */
    struct smtp_in *in;
    uint32_t references;
    struct milter_config config; /* its texts are the two below */
    char name[MILTER_NAME_MAX + 1];
    char path[MILTER_PATH_MAX + 1];
    struct link idle; /* connections without a session */
    uint32_t idle_count;
    bool is_away;              /* it is tried again and again, and no session waits for that */
    struct loop_timer *again;  /* while it is away */
    struct milter_link *trial; /* likewise; or NULL */
    uint32_t failures;         /* one after another */
    bool meets_once;           /* it was silent to a connection's second session: no more such */
};

enum milter_link_state { LINK_DIALING, LINK_CONNECTING, LINK_AGREEING, LINK_READY };

struct session_milter;

/* A connection to a filter. */
struct milter_link {
    struct link link; /* peer->idle, or nothing */
    struct milter_peer *peer;
    struct session_milter *owner; /* NULL: it is idle, or a trial */
    enum milter_link_state state;
    uint64_t token; /* while dialing */
    int fd;         /* -1: none yet */
    struct milter *milter;
    struct loop_watch *watch;
    struct loop_timer *timer;
    int64_t timer_ms; /* when it is due; INT64_MAX: it is not set */
    int64_t begun_ms;
    uint32_t sessions; /* that have used it */
    bool wants_room;   /* the owner waits for output to leave */
};

/* One of a session's filters. */
struct session_milter {
    struct session_milters *all;
    struct milter_peer *peer;
    struct milter_link *link; /* NULL: none */
    bool is_met;              /* it knows of the connection */
    bool knows_helo;
    bool in_message; /* it has had MAIL, and the message is not over */
    bool is_out;     /* it has failed, and this message goes on without it */
};

struct draft;

/* For pieces of content, one a loop. */
struct milter_chunk {
    uint8_t bytes[MILTER_CHUNK_MAX];
};

struct session_milters {
    struct session *session;
    struct listener *listener; /* whose they are; a reference */
    uint32_t at;               /* who is asked */
    bool is_asked;             /* an answer, or a connection, is awaited */
    bool has_failed;           /* this message is answered 451 */
    bool is_discarded;
    bool is_content;         /* the message is on its way through them */
    enum milter_stage stage; /* what the client waits for */
    enum milter_stage said;  /* what the filter was told last */
    enum smtp_server_event_kind kind;
    uint32_t recipients; /* accepted before the one in question */
    struct buffer words; /* of the step: `first_length` bytes, then the parameters */
    size_t first_length;
    struct buffer verdicts; /* of this message, in words */
    struct draft *draft;
    uint32_t count;
    struct session_milter each[];
};

/* ---- links ----------------------------------------------------------------------------------- */

/* Gets a connection: *ret_link is ready, or not yet and milter_met() is called. ERROR_AGAIN: it is
 * away, and not tried now. */
enum error milter_link_get(struct session_milter *owner, struct milter_link **ret_link) MUST_CHECK;
/* Its session is over; it is kept for another or closed. */
void milter_link_leave(struct milter_link *link);
void milter_link_close(struct milter_link *link);
/* Sends what there is, and sees to its time. */
void milter_link_go(struct milter_link *link);
/* What it has said unasked before the next step breaks it. False: broken, `ret_why`. */
bool milter_link_check(struct milter_link *link, const char **ret_why);

struct milter_peer *milter_peer_get(struct smtp_in *in, const struct milter_config *config);
void milter_peer_unref(struct milter_peer *peer);

/* To the owner; each may end its session, and is the last that is done with the link. */
void milter_met(struct session_milter *owner);
/* False: the owner has gone on, and the link may not be touched any more. */
bool milter_said(struct session_milter *owner, const struct milter_event *event);
void milter_has_room(struct session_milter *owner);
/* The link has been closed. */
void milter_lost_it(struct session_milter *owner, struct slice why, bool was_used_before);

/* ---- sessions -------------------------------------------------------------------------------- */

/* This filter has failed. True: *ret_answer is what the client hears; false: go on without it. */
bool milter_failed(struct session_milter *filter, struct slice why, struct smtp_answer *ret_answer);
/* The answer that a verdict other than CONTINUE, ACCEPT and DISCARD is. `text` has room for it. */
struct smtp_answer milter_refusal(const struct session_milter *filter,
                                  const struct milter_event *event);
void milter_note_verdict(struct session_milters *milters, const struct session_milter *filter,
                         const char *verdict, struct slice text);
void milter_tell_refusal(const struct session_milters *milters, const struct session_milter *filter,
                         const struct smtp_answer *answer);
/* The message is to be thrown away. */
void milter_discard(struct session_milters *milters, const struct session_milter *filter);
bool milter_macro(void *context, struct slice name, struct slice *ret_value);

/* ---- content --------------------------------------------------------------------------------- */

/* A packet about the content; as milter_said(). */
bool milter_content_said(struct session_milter *filter, const struct milter_event *event);
/* Goes on, from the filter `at`. True: *ret_answer is the reply; false: it comes later. */
bool milter_content_go(struct session_milters *milters, struct smtp_answer *ret_answer);
void draft_free(struct smtp_in *in, struct draft *draft); /* NULL is allowed */
void draft_forget_changes(struct session_milters *milters);

#endif
