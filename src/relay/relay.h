/* SPDX-License-Identifier: Apache-2.0
 *
 * The decisions: lanes, chains, governor, schedule, outcomes. What is delivered next, over which
 * session to which server; what a reply means; when a server is up. No socket, no clock, no log, no
 * storage: results and times are arguments, and what must be done comes out as actions.
 *
 * The caller feeds an input, then takes actions with relay_next() until there is none, carrying
 * each out in order. Write actions (fate, note, bounce) taken after one input go into one spool
 * batch. relay_deadline() says when relay_tick() is due.
 *
 * Deterministic: the same inputs give the same actions (jitter is drawn from the seed given).
 */
#ifndef HOLDFAST_RELAY_RELAY_H
#define HOLDFAST_RELAY_RELAY_H

#include "relay/config.h"
#include "relay/mx.h"
#include "spool/spool.h"

struct relay;

struct relay_time {
    int64_t steady_ms; /* for waiting */
    int64_t wall_ms;   /* for what is written and shown; may jump */
};

/* ---- life cycle -------------------------------------------------------------------------- */

/* config must outlive it or be replaced. NULL: memory. */
struct relay *relay_new(const struct relay_config *config, uint64_t seed, struct relay_time now);
void relay_free(struct relay *relay);
/* Reads an envelope for routing (spool_read_envelope()): relay keeps no addresses. */
struct relay_envelopes {
    void *context;
    enum error (*read)(void *context, struct spool_handle handle, struct arena *arena,
                       struct spool_message *ret_message);
};
/* Where servers are asked by policies of MTA-STS: what that of a domain says of one of its
 * exchangers. Asked when DNS has named them, and for what was known before a restart. */
struct relay_policies {
    void *context;
    enum sts_demand (*demand)(void *context, struct slice domain, struct slice host);
};
/* Before anything is loaded. Without them there are none. */
void relay_set_policies(struct relay *relay, const struct relay_policies *policies);
/* Before relay_reconfigure(), which then has fewer envelopes to read: finds out what they say of
 * routes by `config`, which must live until then, or until this is called again. Begins with none.
 * ERROR_MEMORY: nothing is looked at. */
enum error relay_foresee(struct relay *relay, const struct relay_config *config) MUST_CHECK;
/* Reads so many envelopes at most. True: there is nothing left to be read. */
bool relay_foresee_slice(struct relay *relay, const struct relay_envelopes *envelopes,
                         uint32_t reads) MUST_CHECK;
/* R13: everything is laned anew, order kept; servers keep their state by name. Asks for the
 * envelope only of deliveries whose recipient's domain is not configured while the rules for relays
 * or notices have changed. ERROR_MEMORY: the old configuration stays in force; else nothing points
 * into it any more. */
enum error relay_reconfigure(struct relay *relay, const struct relay_config *config,
                             const struct relay_envelopes *envelopes,
                             struct relay_time now) MUST_CHECK;

/* ---- mail -------------------------------------------------------------------------------- */

/* What the odometer of its first recipient's route reads (R7), for `odometer_s` of a message that
 * is about to be stored. UINT32_MAX: not known while mail is loaded, and stored like that. */
#define ODOMETER_UNKNOWN UINT32_MAX
uint32_t relay_odometer(struct relay *relay, const struct spool_message *message,
                        struct relay_time now);
/* A node of a cluster, before relay_start(), if it could not load those of the cluster; and when it
 * has (relay_load_global()). Until then what is accepted has ODOMETER_UNKNOWN: its time (R7) begins
 * when its odometer is known, with a note. Known unless said otherwise. */
void relay_odometers_known(struct relay *relay, bool known, struct relay_time now);
/* Seconds of that which are over for a message, as `elapsed_s` for another node; without those that
 * one of its deliveries has been on operator hold for. */
uint32_t relay_elapsed_s(const struct relay *relay, struct spool_handle handle);
/* Seconds by the wall since its reception that do not count, those of a hold that goes on left out:
 * for another node as a NOTE_SPAN without a lane (relay/notes.h). */
uint32_t relay_uncounted_s(const struct relay *relay, struct spool_handle handle);

/* An accepted or loaded message; only the fields that struct spool_loader promises are read.
 * ERROR_MEMORY: not taken; the caller must not lose it (it stays in the spool). */
enum error relay_add(struct relay *relay, struct spool_handle handle,
                     const struct spool_message *message, struct relay_time now) MUST_CHECK;
/* While loading, in the journal's order; a fate also of what is in flight: then as relay_leave()
 * withdraws it, and whatever comes of it is known. */
void relay_load_fate(struct relay *relay, struct spool_handle handle, uint32_t delivery,
                     enum spool_fate fate);
void relay_load_note(struct relay *relay, struct spool_handle handle, uint32_t delivery,
                     uint16_t kind, struct slice payload, struct relay_time now);
/* After relay_start() for what another node has written (NOTE_OF_CLUSTER of relay/notes.h; all else
 * is nothing to us then): an odometer that reads more than ours; and a server that was taken out of
 * service or, with an empty payload, brought back, as if we had been told, but that it is not
 * written again. To be said again after a new configuration, which may know more of them. */
void relay_load_global(struct relay *relay, struct slice key, struct slice payload,
                       struct relay_time now);
/* Loading is complete and the sender process has reported what it still had (relay_resume_*).
 * Dispatch of loaded deliveries begins; attempts without a result are in doubt from here (R2).
 * Before this, only messages with no earlier undelivered ones of their recipient could go; we
 * simply wait. */
void relay_start(struct relay *relay, struct relay_time now);
/* A job of an earlier life of this process that the sender process still works on over `session`:
 * its deliveries are in flight as `job`, not in doubt. Its result arrives by relay_result() as
 * usual. Allowed at any time: a repeated result of a job that relay does not know is said to it by
 * relay_resume() first, since the result alone does not name the message. */
void relay_resume(struct relay *relay, uint32_t session, uint64_t job, struct spool_handle handle,
                  const uint32_t *deliveries, uint32_t count, uint32_t server,
                  struct relay_time now);

/* Inputs that belong together: between the two nothing is sent. An import is relay_add() with the
 * fates and notes that the message brings along, which the relay_load functions take at any time.
 */
void relay_together_begin(struct relay *relay, struct relay_time now);
void relay_together_end(struct relay *relay, struct relay_time now);

/* Of a message of which only a part is ours: this delivery is somebody else's. It is not told of,
 * gets no fate from us and counts nowhere; with all of them the message is gone from here. Like the
 * fates and notes it comes behind relay_add(), and before anything may be sent: while loading, or
 * between relay_together_begin() and _end(). */
void relay_load_elsewhere(struct relay *relay, struct spool_handle handle, uint32_t delivery);
/* Nothing of the message is sent from now on, whatever happens to it, until that is taken back;
 * all else goes on. Costs the same however much is held. True: something of it is in flight, which
 * is let finish: see relay_in_flight(). For mail that will be left, all that is first. A note of
 * its time (R7) may have to be written. */
bool relay_rest(struct relay *relay, struct spool_handle handle, bool rests, struct relay_time now);
/* A job of the message is under way, also one that was left. Costs as much as there are jobs. */
bool relay_in_flight(const struct relay *relay, struct spool_handle handle);
/* The message is another's from now on. What is unfinished of it is forgotten, with no fate, note
 * or event. What is in flight, if that was not waited for, is withdrawn: its session is closed, no
 * attempt is noted for it, and its result is ignored, unless it was handed over: that is a fact,
 * and told by RELAY_FATE and an event about `handle`, which must go on to mean this message until
 * relay_in_flight() is false. To be added again it need not wait for that. */
void relay_leave(struct relay *relay, struct spool_handle handle, struct relay_time now);

/* Notes about `handle` that are still needed (spool_owner.describe): calls put for each. */
void relay_describe(const struct relay *relay, struct spool_handle handle,
                    void (*put)(void *context, uint32_t delivery, uint16_t kind,
                                struct slice payload),
                    void *context);

/* ---- sessions and results ---------------------------------------------------------------- */

/* Where in the dialogue something happened (R4's table). */
enum relay_stage {
    RELAY_AT_RESOLVE,
    RELAY_AT_CONNECT,
    RELAY_AT_GREETING,
    RELAY_AT_HELLO,
    RELAY_AT_TLS,
    RELAY_AT_AUTH,
    RELAY_AT_MAIL,
    RELAY_AT_RECIPIENT,
    RELAY_AT_DATA,
    RELAY_AT_CONTENT, /* after 354, before the dot */
    RELAY_AT_DOT,
    RELAY_AT_IDLE, /* between transactions */
};

enum relay_how {
    RELAY_REPLY,   /* the server said it: code and text */
    RELAY_LOST,    /* connection lost or refused */
    RELAY_TIMEOUT, /* no answer in time */
    RELAY_LOCAL,   /* our side: content unreadable, out of descriptors, shut down; with a 5xx code
                      what cannot be said to this server */
    RELAY_DECLINED /* our refusal of a server, or of a domain for what DNS says: the code is what a
                      server could have said, the text is ours */
};

struct relay_reply {
    enum relay_stage stage;
    enum relay_how how;
    uint16_t code;       /* 0 when neither a reply nor a refusal of our own */
    uint8_t enhanced[3]; /* class 0: none; subject and detail above 255 are clamped */
    struct slice text;   /* one line for people: reply text or a description, at most 512 bytes */
};

/* "450 4.2.0 text" when a server said it, else our description, or how it ended without one; cut to
 * `size`. In the buffer, in the reply or static. */
struct slice relay_reply_text(const struct relay_reply *reply, char *buffer, size_t size);

enum {
    RELAY_CAP_8BITMIME = 1,
    RELAY_CAP_SMTPUTF8 = 2,
    RELAY_CAP_DSN = 4,
    RELAY_CAP_PIPELINING = 8,
    RELAY_CAP_CHUNKING = 16,
    RELAY_CAP_DELIVERBY = 32,   /* RFC 2852 */
    RELAY_CAP_PRIORITY = 64,    /* RFC 6710 */
    RELAY_CAP_REQUIRETLS = 128, /* RFC 8689: offered by TLS, with its name proved */
};

struct relay_capabilities {
    uint32_t flags;
    uint64_t size_limit;       /* RFC 1870; 0: none given */
    uint32_t recipients_max;   /* RFC 9422 RCPTMAX; 0: none given */
    uint32_t mails_max;        /* RFC 9422 MAILMAX; 0: none given */
    uint32_t deliver_by_min_s; /* RFC 2852 min-by-time; 0: none given */
};

/* The session that RELAY_CONNECT asked for is greeted and ready for MAIL. */
void relay_session_opened(struct relay *relay, uint32_t session,
                          const struct relay_capabilities *capabilities, struct relay_time now);
/* The session has ended, whatever the reason, with no job on it (jobs are reported first, each by
 * relay_result()). How it ended is `reply`; an end that we asked for has how == RELAY_LOCAL. */
void relay_session_ended(struct relay *relay, uint32_t session, const struct relay_reply *reply,
                         struct relay_time now);

/* A sender process has died, and with it all sessions with session % count == index: jobs whose
 * attempt was noted are in doubt, the others were not tried. The same as a relay_result() and
 * relay_session_ended() for each, for a caller who cannot know them any more. */
void relay_sessions_lost(struct relay *relay, uint32_t index, uint32_t count,
                         struct relay_time now);

enum relay_verdict {
    RELAY_ACCEPTED,  /* 2xx to the dot (LMTP: to this recipient's) */
    RELAY_REFUSED,   /* a 4xx or 5xx: reply says at which stage */
    RELAY_NOT_TRIED, /* the session ended before this delivery's turn; nothing was sent for it. Or,
                        with stage RELAY_AT_RECIPIENT, there were too many recipients for one
                        transaction, and others were before it (RFC 5321 4.5.3.1.10) */
    RELAY_CUT,       /* the session was lost within the transaction, before the dot */
    RELAY_IN_DOUBT,  /* the dot was sent, no reply came */
    RELAY_DAMAGED,   /* nothing was sent: what is stored of it is damaged, and stays so */
};

struct relay_delivery_result {
    uint32_t delivery;
    enum relay_verdict verdict;
    struct relay_reply reply;
};

/* The result of a whole job, one per delivery of it. Produces fate, note and bounce actions.
 * Unknown jobs are ignored: see relay_resume(). */
void relay_result(struct relay *relay, uint64_t job, uint32_t session, bool reused_session,
                  const struct relay_delivery_result *results, uint32_t count,
                  struct relay_time now);
/* A node of a cluster may send only while its lease has time left: while it is not held, no job is
 * given out and relay_attempt_note() gives ERROR_AGAIN; all else goes on, results and probes too.
 * Held from the start. */
void relay_lease(struct relay *relay, bool is_held, struct relay_time now);
bool relay_lease_is_held(const struct relay *relay);
/* Somebody else may yet bring mail that was accepted before that (Unix ms): what was accepted later
 * is not sent now, however it came here, until this is said with a later time, or until the
 * order-patience of its route has passed since such mail was first said to be due, without the time
 * in which the lease was not held. INT64_MAX, as at the start: nothing is due. To be said again now
 * and then, for it has no timer. */
void relay_older_due(struct relay *relay, int64_t accepted_ms, struct relay_time now);

/* The results of `job` are durable; its session may take the next dot. */
void relay_result_durable(struct relay *relay, uint64_t job, struct relay_time now);

/* Time has passed. */
void relay_tick(struct relay *relay, struct relay_time now);
/* Steady ms at which relay_tick() is due; INT64_MAX: never. */
int64_t relay_deadline(const struct relay *relay);

/* A client connected to us, or asked with ETRN, from this address: a server's own address is
 * probed at once (R3). */
void relay_contact(struct relay *relay, const struct ip_address *from, struct relay_time now);
/* Somebody has come to us though this server is up and takes his mail itself: it is asked whether
 * it is, unless it was heard of in the last second. */
void relay_server_doubted(struct relay *relay, uint32_t server, struct relay_time now);
/* A message that carries a Received field of ours and was not added yet. True: its client is a
 * server of a chain that one of its recipients would go to (R5). That server is suspect then, and
 * the message must be put off, for to take it would be to send it round and round. */
bool relay_loop(struct relay *relay, const struct spool_message *message, struct relay_time now);
/* The current addresses of a server, as resolved by the sender process. */
void relay_server_addresses(struct relay *relay, uint32_t server,
                            const struct ip_address *addresses, size_t count);

/* The answer to RELAY_RESOLVE; also without having been asked. Nothing points into it later. */
void relay_resolved(struct relay *relay, struct slice domain, const struct mx_answer *answer,
                    struct relay_time now);

/* ---- actions ----------------------------------------------------------------------------- */

enum relay_action_kind {
    RELAY_CONNECT, /* open `session` to `server`; a probe with a fresh connection each
                      knock_interval_ms, beside the older ones, until one is made */
    RELAY_KNOCK,   /* `session`, a probe that is connecting: such a fresh connection now */
    RELAY_CLOSE, /* QUIT and close `session`; what is on it comes back as not tried, unless its dot
                    may be sent: that is awaited */
    RELAY_DELIVER, /* do `job` on `session`: `handle` for `deliveries` */
    RELAY_FATE,    /* write `fate` of `delivery`; which `server` took it, if one did */
    RELAY_NOTE,    /* write a note about `delivery` (or SPOOL_ALL_DELIVERIES) */
    RELAY_GLOBAL,  /* write a note under `key` */
    RELAY_BOUNCE,  /* make a DSN for `deliveries` (same message, from `reason`), say by
                      relay_bounced() whether that could be done, and if so write it in one batch
                      with their fates SPOOL_BOUNCED; then relay_add() the DSN. Without a route for
                      it, relay makes a dead letter itself and never asks this. */
    RELAY_NOTICE, /* make a DSN of success for `deliveries` (same message), which `server` has taken
                     but will not tell of, and write it in one batch with their fates, which are
                     actions of their own; then relay_add() it */
    RELAY_DELAYED, /* make a DSN that `deliveries` (same message) are late and will be tried until
                      next_wall_ms (0: not known), and write it in one batch with the notes, actions
                      of their own, that say so; then relay_add() it */
    RELAY_EVENT,   /* tell the operator: log, event journal, metrics, alert */
    RELAY_RESOLVE, /* ask for the exchangers of `domain`, and say them by relay_resolved(); an
                      answer that does not come is asked for again */
};

enum relay_event_kind {
    RELAY_EVENT_DELIVERED, /* delivery, server, reply; fate: PULLED over a turned connection */
    RELAY_EVENT_DEFERRED,  /* delivery, server, reply, next attempt */
    RELAY_EVENT_IN_DOUBT,
    RELAY_EVENT_HELD, /* by operator or by rule: reason */
    RELAY_EVENT_RELEASED,
    RELAY_EVENT_DEAD, /* dead letter: reason */
    RELAY_EVENT_BOUNCED,
    RELAY_EVENT_DISCARDED,
    RELAY_EVENT_REDIRECTED,
    RELAY_EVENT_SERVER,      /* server: state old -> new, reason, ms in the old state; down -> down:
                                another kind of trouble keeps it there */
    RELAY_EVENT_SWITCHED,    /* lane: from server to server (a switch-back too) */
    RELAY_EVENT_STOPPED,     /* lane: all servers of its chain are down */
    RELAY_EVENT_DRAINING,    /* lane: a server has come back, deliveries waiting */
    RELAY_EVENT_DRAINED,     /* lane: nothing left of what waited; count and duration. Without
                                DRAINING before it: a server has come back, and nothing waited */
    RELAY_EVENT_ORPHANED,    /* delivery: no route any more */
    RELAY_EVENT_CREDENTIALS, /* server: AUTH refused */
    RELAY_EVENT_EXPIRY,    /* lane: its first delivery ends in duration_ms, though nothing has gone
                              wrong but time; count 1: soon, 2: very soon, 0: no longer so */
    RELAY_EVENT_DNS,       /* lane: why DNS gives no exchangers, or that it does again: reason */
    RELAY_EVENT_LOOP,      /* server: it routed mail back to us that it should keep */
    RELAY_EVENT_FROZEN,    /* lane: a drill has begun, or goes on after a restart; its end in
                              next_wall_ms (relay/freeze.h) */
    RELAY_EVENT_THAWED,    /* lane: it has ended; reason, deliveries held */
    RELAY_EVENT_REHEARSED, /* lane: what was held has gone, or its servers have failed: rehearsal
                            */
};

enum server_state { SERVER_UP, SERVER_SUSPECT, SERVER_DOWN, SERVER_RECOVERING, SERVER_DISABLED };

struct relay_action {
    enum relay_action_kind kind;
    uint32_t session;
    uint32_t server;            /* index or NO_INDEX */
    uint32_t knock_interval_ms; /* RELAY_CONNECT: 0 is no probe */
    uint64_t job;               /* never reused within 2^64, also over restarts (seeded) */
    struct spool_handle handle;
    uint32_t delivery;
    const uint32_t *deliveries; /* valid until the next call of any kind */
    uint32_t delivery_count;
    enum spool_fate fate;
    uint16_t note;
    struct slice payload; /* of a note; valid until the next call */
    struct slice key;
    struct slice domain;
    struct slice redirect_to; /* RELAY_DELIVER: send to this address instead; REDIRECTED, STOPPED,
                                 DRAINING, DRAINED: where to by hand; else empty */
    enum relay_event_kind event;
    struct slice lane;        /* route name as in the JSON: "domain:example.com"; or empty */
    struct slice reason;      /* for people; valid until the next call */
    struct relay_reply reply; /* text valid until the next call */
    enum server_state old_state, new_state;
    uint32_t from_server;
    bool expired; /* DEAD, BOUNCED, DISCARDED: by age */
    bool is_head; /* SWITCHED: to the first server of the chain, as it should be */
    uint64_t count;
    int64_t duration_ms;
    int64_t
        since_wall_ms; /* RELAY_EVENT_STOPPED: when the last of its servers went; 0: not known */
    int64_t next_wall_ms;
    struct slice rehearsal; /* REHEARSED: a struct relay_rehearsal */
};

bool relay_next(struct relay *relay, struct relay_action *ret_action);
/* The answer to RELAY_BOUNCE, before the next relay_next(); more actions follow. Not `made`: the
 * deliveries are dead letters, as mail that must not be bounced. */
void relay_bounced(struct relay *relay, const struct relay_action *bounce, bool made);

/* The note to write, in one batch, before the dot of `job` is sent (R2). Gives kind and payload
 * (static storage until the next call), for each of the job's deliveries. ERROR_AGAIN: an earlier
 * message of its recipient is on the same session and not settled (R6): to be asked again after the
 * next result of that session; or the lease is not held: when it is again. ERROR_MISSING: unknown
 * job, it was left, or its session is being closed. */
enum error relay_attempt_note(struct relay *relay, uint64_t job, struct relay_time now,
                              uint16_t *ret_kind, struct slice *ret_payload,
                              struct spool_handle *ret_handle, const uint32_t **ret_deliveries,
                              uint32_t *ret_count) MUST_CHECK;

/* ---- operator ---------------------------------------------------------------------------- */

/* SPOOL_ALL_DELIVERIES for all of a message: done for those that allow it, an error only if none
 * did. ERROR_MISSING; ERROR_AGAIN: in flight just now; ERROR_INVALID: not in a state for it, or no
 * such place to redirect to; ERROR_DENIED: R8 forbids the bounce. Actions follow as usual. */
enum error relay_hold(struct relay *, struct spool_handle, uint32_t delivery, struct slice reason,
                      struct relay_time) MUST_CHECK;
enum error relay_release(struct relay *, struct spool_handle, uint32_t delivery,
                         struct relay_time) MUST_CHECK;
enum error relay_retry(struct relay *, struct spool_handle, uint32_t delivery,
                       struct relay_time) MUST_CHECK;
enum error relay_discard(struct relay *, struct spool_handle, uint32_t delivery,
                         struct slice reason, struct relay_time) MUST_CHECK;
enum error relay_bounce(struct relay *, struct spool_handle, uint32_t delivery, bool force,
                        struct relay_time) MUST_CHECK;
/* Somebody else, whose the mail was before, has ended it so; `reason` is told. */
enum error relay_ended_elsewhere(struct relay *, struct spool_handle, uint32_t delivery,
                                 enum spool_fate fate, struct slice reason,
                                 struct relay_time) MUST_CHECK;
/* What stands against a bounce (R8); the first two also against one by force. */
enum relay_bounce_bar {
    BOUNCE_BAR_NOBODY,     /* a null reverse-path, or our own notice: nobody may be told */
    BOUNCE_BAR_NO_ROUTE,   /* no relay takes bounces */
    BOUNCE_BAR_UNVERIFIED, /* the sender may be forged */
    BOUNCE_BAR_UNWANTED,   /* RFC 3461 NOTIFY without FAILURE */
    BOUNCE_BAR_NONE,
};
/* Of an unfinished delivery; BOUNCE_BAR_NONE also where there is none. */
enum relay_bounce_bar relay_bounce_bar(const struct relay *, struct spool_handle,
                                       uint32_t delivery);
/* `to` is a server's name or an address with @. */
enum error relay_redirect(struct relay *, struct spool_handle, uint32_t delivery, struct slice to,
                          struct relay_time) MUST_CHECK;
enum error relay_server_disable(struct relay *, uint32_t server, struct relay_time) MUST_CHECK;
enum error relay_server_enable(struct relay *, uint32_t server, struct relay_time) MUST_CHECK;
enum error relay_server_probe(struct relay *, uint32_t server, struct relay_time) MUST_CHECK;

/* ---- views: of what is here; in a cluster, of this node's part of it ----------------------- */

enum delivery_state {
    DELIVERY_WAITING,  /* for its server or its turn */
    DELIVERY_DEFERRED, /* until next_wall_ms */
    DELIVERY_IN_FLIGHT,
    DELIVERY_IN_DOUBT,
    DELIVERY_HELD,
    DELIVERY_DEAD,
    DELIVERY_FINISHED,
};

struct relay_delivery_view {
    struct spool_handle handle;
    uint32_t delivery;
    enum delivery_state state;
    uint32_t route;        /* index or NO_INDEX (orphan) */
    uint32_t server;       /* redirected to, or in flight with; else NO_INDEX */
    const uint32_t *chain; /* servers it may go to, in order; until the next input */
    uint32_t chain_length;
    uint32_t attempts;
    int64_t next_wall_ms; /* 0: waits for its server */
    bool not_believed;    /* held: what refused it is to be well first, then it is tried again */
    bool in_doubt;        /* `server` may have it (R2), whatever the state says */
    int64_t doubt_until_wall_ms; /* then others may get it, too; 0: its server is not away */
    int64_t expires_wall_ms;     /* as things are: it ends then, or if dead goes; 0: not known */
    struct slice reason;         /* the last, or that a drill holds it back; may be empty */
    struct slice redirect_to;
};

uint32_t relay_delivery_count(const struct relay *relay, struct spool_handle handle);
bool relay_delivery(const struct relay *relay, struct spool_handle handle, uint32_t delivery,
                    struct relay_delivery_view *ret_view);
/* Messages in acceptance order from a cursor that begins as zeroes; false at the end. Stable
 * against additions and removals between calls. */
struct relay_cursor {
    bool began;
    uint32_t last;
    uint64_t sequence;
};
bool relay_next_message(const struct relay *relay, struct relay_cursor *cursor,
                        struct spool_handle *ret_handle);

struct relay_server_view {
    enum server_state state;
    int64_t since_wall_ms;
    uint32_t failures; /* since last up */
    uint64_t used;     /* deliveries handed over since start */
    uint32_t sessions;
    uint64_t changes;         /* of state, since the start */
    enum server_state before; /* if there were any: the state before this one */
    int64_t before_ms;        /* and how long it lasted */
    bool on_demand;    /* an exchanger of a relay's destination: only mail for it probes it */
    bool breaker_open; /* it refused one message after the other (R5), and took none since */
    bool unreachable;  /* down, since it cannot be connected to or does not greet */
    struct slice reason;
    struct relay_capabilities capabilities; /* last seen */
    bool capabilities_known;
};
void relay_server(const struct relay *relay, uint32_t server, struct relay_server_view *ret_view);
/* Servers are those of the configuration, by their index there, and the exchangers of MX routing,
 * made when mail needs them and gone when it does no longer, from RELAY_EXCHANGERS on. */
enum { RELAY_EXCHANGERS = 32768, RELAY_EXCHANGERS_MAX = 4096 };
/* What holds for a server; an exchanger's addresses are literals. NULL: no such server. Until the
 * next input. */
const struct server_config *relay_server_config(const struct relay *relay, uint32_t server);
/* Calls `fn` with each domain whose mail waits for an exchanger, or if there is none, whose servers
 * it is one of. */
void relay_exchanger_domains(const struct relay *relay, uint32_t server,
                             void (*fn)(void *context, struct slice domain), void *context);
/* The first exchanger from an index on, or NO_INDEX. */
uint32_t relay_next_exchanger(const struct relay *relay, uint32_t from);

enum lane_state { LANE_IDLE, LANE_FLOWING, LANE_DRAINING, LANE_STOPPED, LANE_HELD, LANE_ORPHAN };
struct relay_lane_view {
    struct slice route; /* "domain:NAME", "relay:NAME", "mx:DOMAIN", "orphan" */
    enum lane_state state;
    uint64_t deliveries;
    uint64_t moving; /* of these: waiting for their turn, or under way */
    uint64_t done;   /* of a drain, all three; else 0 */
    uint64_t left;
    int64_t drain_since_ms; /* steady */
    uint32_t server;        /* index or NO_INDEX */
    /* The server that its mail was redirected to: with the route it tells lanes apart; or empty */
    struct slice redirect_to;
    /* What else tells lanes of one route apart: */
    struct slice redirect;       /* the server or address to which its mail was redirected */
    uint32_t doubt;              /* what it holds is in doubt with this server (R2); or NO_INDEX */
    int64_t doubt_until_wall_ms; /* then others may get it, too; 0: that server is not away */
    bool stopped;                /* RELAY_EVENT_STOPPED was told of it, and no end of that yet */
    bool expires_soon;           /* RELAY_EVENT_EXPIRY was told of it, and no end of that yet */
    bool switched; /* mail goes, or last went, to another server than the first of the chain: */
    uint32_t last_server;     /* this one */
    int64_t switched_wall_ms; /* since then; 0: not known */
    uint64_t switches;        /* told of it since the start, there and back */
    int64_t frozen_until_ms;  /* wall: by a drill; 0: it is not */
    int64_t
        oldest_wall_ms; /* reception of the oldest delivery; 0: none. See relay_look_for_oldest() */
    const uint32_t *chain; /* servers it may go to, in order; until the next input */
    uint32_t chain_length;
    struct slice trouble; /* MX routing: why DNS gives no exchanger; else empty */
};
/* The first are the lanes of the routes, in the order of the configuration. */
uint32_t relay_lane_count(const struct relay *relay);
void relay_lane(struct relay *relay, uint32_t index, struct relay_lane_view *ret_view);
/* Before relay_lane() is asked for all lanes: walks the front of the queue, its oldest
 * RELAY_OLDEST_LOOK deliveries at most, for the oldest of each lane. With the heads of a lane's own
 * queues, which relay_lane() looks at, that is exact for a lane whose oldest waits for its server
 * or is among those; else (it is held, deferred, in flight or behind its recipient, and thousands
 * in the queue are older) the oldest that waits is told. */
enum { RELAY_OLDEST_LOOK = 4096 };
void relay_look_for_oldest(struct relay *relay);

struct relay_totals {
    uint64_t messages; /* with an unfinished delivery that is not a dead letter */
    uint64_t deliveries;
    uint64_t bytes;
    uint64_t dead_letters; /* deliveries */
    uint64_t held;
    uint64_t held_by_rule;  /* of those: by R2 or R4, and nobody but the operator lets them go */
    uint64_t in_doubt;      /* also those that are tried again, and those that wait for that */
    int64_t oldest_wall_ms; /* reception of the oldest; 0: none */
};
void relay_totals(const struct relay *relay, struct relay_totals *ret_totals);
/* Bytes of unfinished mail by route, for the quota; in a cluster, of what this node has. A message
 * counts whole for each route in which a delivery of it is here. */
uint64_t relay_route_bytes(const struct relay *relay, uint32_t route);

#endif
