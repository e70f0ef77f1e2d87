/* SPDX-License-Identifier: Apache-2.0
 *
 * The room's own view of itself: what a message, delivery, lane, server, session and job are in
 * memory. Its files include it by relay_internal.h, and nobody else does. What is only about MX
 * routing stands in destination.h.
 *
 * Where a delivery is (struct delivery, `place`), and the one thing each place owns:
 *
 *   IN_LANE    state WAITING: in a FIFO of its lane, acceptance order; links next and previous
 *   RETURNED   state WAITING: in a heap of its lane, of those that came back; next = place there
 *   BEHIND     state WAITING: in the queue of its recipient, who is busy; links
 *   TIMED      state DEFERRED, IN_DOUBT: in the schedule; next = place there
 *   ON_JOB     state IN_FLIGHT: next = number of the job
 *   NOWHERE    state HELD, DEAD, WAITING of a message that rests, or between two places
 *
 * Of HELD and DEAD next = since when, Unix time in s, and previous = what the odometer of its route
 * read then.
 *
 * Order (R6): a recipient has a record (struct recipient) only while one of its deliveries, the
 * blocker, keeps others back: in flight, deferred with patience running, or first in line in the
 * lane. Who is met at the head of the lane while another is the blocker goes behind that one. When
 * the blocker leaves, the first behind it becomes the blocker and goes to a heap of the lane, which
 * is served before anything later, since FIFO and heap are compared by acceptance sequence: of two
 * that stand there the earlier one is always met first, and takes the role from a later one.
 *
 * Priority (RFC 6710) orders recipients without touching the order of any one of them. From a
 * lane's first message on that is not of the usual priority, until nothing stands in it, the lane
 * lines up: of each recipient only one delivery stands in it, which relay->waiting finds, and all
 * later ones are behind that from acceptance on. (Held mail without priority is spared the memory.)
 * Such a lane has a FIFO and a heap for each level, and only what stands in it has a level. Who
 * stands before a more urgent message of the same recipient goes at that one's level, for else it
 * would keep it back. The highest level goes first; when that has kept lower ones waiting for
 * LEVEL_PATIENCE_MS, they get one turn in LEVEL_SHARE, each level in its turn. Memory that is out
 * for a record, for lines or for levels costs priority, never order.
 *
 * One more may be in flight: the blocker's follower, the first behind it, given to the session that
 * has the blocker's job, so that its envelope is said while the reply to the blocker's dot is
 * awaited. Its dot keeps the order all the same:
 *
 *   - The follower's dot needs an attempt note, and relay_attempt_note() gives none (ERROR_AGAIN)
 *     while it is a follower.
 *   - It ceases to be one only in recipient_release(), where it becomes the blocker: exactly where,
 *     without following, it would have been let go. So the rule for its dot is the old one: the
 *     blocker has its reply and is delivered, final, held or in doubt, or its patience is over.
 *   - A result that leaves the blocker in its role (deferred with patience, given back) closes the
 *     session. No attempt is noted on a session that is being closed; edge-out gives the follower
 *     back as not tried, and it goes to its place in line: the queue behind a blocker is in
 *     acceptance order, not in order of arrival.
 *   - As one of a session's two jobs its GO also waits until the earlier one's fate is durable, as
 *     any second job's (R2; service/core_job.c).
 *   - The next behind a follower waits for it, as it becomes the blocker in between; also when it
 *     was deferred before that (a 4xx to its RCPT): then its patience begins there.
 */
#ifndef HOLDFAST_RELAY_RELAY_STATE_H
#define HOLDFAST_RELAY_RELAY_STATE_H

#include <assert.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "relay/atrn.h"
#include "relay/etrn.h"
#include "relay/freeze.h"
#include "relay/intern.h"
#include "relay/known.h"
#include "relay/notes.h"
#include "relay/outcome.h"
#include "relay/ramp.h"
#include "relay/relay.h"
#include "relay/routing.h"
#include "relay/schedule.h"

#define NOBODY UINT32_MAX /* no delivery, message, lane, record */
#define NO_SERVER UINT16_MAX

enum {
    CHUNK_SHIFT = 10,
    CHUNK_SIZE = 1 << CHUNK_SHIFT,      /* messages or deliveries allocated at once */
    STRIKES_MAX = 2,                    /* R4 */
    DOUBTS_MAX = 3,                     /* R2 */
    DOUBT_PATIENCE_MS = 15 * 60 * 1000, /* R2: of down, until a doubt may go to the next server */
    WARM_UP_AHEAD_MS = 60000,   /* a warm-up's messages may come so much before their time */
    RECIPIENTS_PER_JOB = 100,   /* RFC 5321 4.5.3.1.8: what every server takes */
    LOOK_AHEAD = 4096,          /* blocked deliveries passed in one call at most: latency */
    SESSION_IDLE_MS = 5000,     /* kept for the next message */
    CONTACT_MAX_AGE_MS = 60000, /* R3: an up server unheard of for so long is probed */
    LIMIT_EASES_MS = 60000,     /* a ceiling learned from 421 rises by one that often */
    OLD_MAIL_MS = 60000,        /* received so long ago, it has come by an import */
    OWN_TROUBLE_MS = 1000,      /* no new session so long after one failed on our side */
    UNKNOWN_PATIENCE_MS = 2000, /* at start the chain's head gets so long to answer first */
    CANARY_TRIES = 5,           /* R5 */
    CANARIES_KEPT = 32,         /* recipients that are passed over then */
    DEFERRAL_RUN = 8,           /* R5: messages in a row */
    VARIETY_ENOUGH = 3,         /* R5: senders, and recipients, among them */
    ADDRESSES_MAX = 32,         /* of a server, for relay_contact() */
    REASONS_MAX = 8192,         /* different reasons at once; beyond, only reply codes */
    REASON_BYTES_MAX = 200,
    HANDS_MAX = 1024,        /* servers taken out by hand, and then of the configuration */
    DRR_QUANTUM = 256 << 10, /* bytes a lane may send before the next lane's turn */
    DRR_COST_BASE = 4096,    /* a message's own cost beside its bytes */
    DRR_COST_MAX = 1 << 20,
    MX_PORT = 25,
    LAST_GREETING_MS = 300000, /* R4: the last server of a chain may take so long to greet */
    DEMAND_PROBE_MS = 60000,   /* R3: a relay's destination is tried after 1 min, doubling to 30 */
    DEMAND_PROBE_MAX_MS = 30 * 60 * 1000,
    LEVEL_NORMAL = 9, /* priority 0 (RFC 6710: -9 to 9) */
    LEVELS = 2 * LEVEL_NORMAL + 1,
    LEVEL_PATIENCE_MS = 30000, /* so long higher levels go first, whatever waits below; */
    LEVEL_SHARE = 4,           /* then so many turns bring one of a lower level */
};

/* ---- mail --------------------------------------------------------------------------------- */

enum place {
    PLACE_NOWHERE,
    PLACE_IN_LANE,
    PLACE_RETURNED,
    PLACE_BEHIND,
    PLACE_TIMED,
    PLACE_ON_JOB
};

enum {                             /* struct delivery, flags */
       DELIVERY_PATIENCE_RUN = 1,  /* R6: it has kept others back once; not again */
       DELIVERY_NO_NOTICE = 2,     /* RFC 3461 NOTIFY forbids a failure notice */
       DELIVERY_BY_RULE = 4,       /* held by R4 or R2, not by the operator */
       DELIVERY_ATTEMPTED = 8,     /* an attempt note is the last thing known of it */
       DELIVERY_PATIENCE_SET = 16, /* its patience is running */
       DELIVERY_REFUSED_ONCE = 32, /* R5: a refusal was held; it is tried once more */
       DELIVERY_TELL_SUCCESS = 64, /* RFC 3461 NOTIFY asks for a notice of delivery */
       DELIVERY_NO_DELAY = 128,    /* no notice that it is late: told already, or not wanted */
};

/* 40 bytes; a million of them is the size that counts. */
struct delivery {
    uint64_t recipient; /* keyed hash of the address, case folded */
    uint32_t message;   /* handle's index */
    uint32_t next;
    uint32_t previous;
    uint32_t lane;
    uint32_t domain;      /* interned */
    uint32_t reason : 14; /* interned + 1; 0: none */
    uint32_t number : 14; /* within its message */
    uint32_t strikes : 2;
    uint32_t doubts : 2;
    uint16_t attempts;
    uint16_t server; /* in flight with, deferred by, in doubt at; or NO_SERVER */
    uint8_t flags;
    uint8_t epoch;                 /* low bits of the server's epoch when it was deferred */
    uint16_t state : 3;            /* enum delivery_state */
    uint16_t place : 3;            /* enum place */
    uint16_t trouble_attempts : 4; /* attempts counted in the trouble `epoch` */
    uint16_t level : 5;            /* of the lane's queues, while IN_LANE or RETURNED */
    uint16_t doubted : 1;          /* deferred or held by `server`, where it was in doubt: that one
                                      first */
};
static_assert(sizeof(struct delivery) == 40, "memory per delivery");
static_assert(REASONS_MAX < 1 << 14 && SPOOL_RECIPIENTS_MAX < 1 << 14, "bits of a delivery");

enum {                       /* struct message, flags */
       MESSAGE_VERIFIED = 1, /* SPOOL_SENDER_VERIFIED */
       MESSAGE_OWN_DSN = 2,
       MESSAGE_NULL_SENDER = 4,
       MESSAGE_PRESENT = 8,
       MESSAGE_SPAN_NOTED = 16,  /* a note tells of its time, and is to be kept */
       MESSAGE_SPAN_WANTED = 32, /* that note is still to be written, by the next sweep */
       MESSAGE_ENVELOPE_ONLY = 64,
       MESSAGE_DELIVER_BY = 128, /* RFC 2852: relay->deliver_by has its time */
};

/* What a sender asks of TLS on the way (RFC 8689). */
enum sender_tls {
    SENDER_TLS_ANY,
    SENDER_TLS_REQUIRED, /* REQUIRETLS */
    SENDER_TLS_WAIVED,   /* "TLS-Required: No" */
    SENDER_TLS_KINDS,
};

/* 64 bytes, at the place of its handle. */
struct message {
    uint64_t sequence;
    int64_t received_ms;
    uint64_t bytes;
    union {
        uint32_t single; /* the delivery's number in the slab, if recipient_count is 1 */
        uint32_t *many;  /* else one for each; NOBODY: finished */
    } deliveries;
    uint32_t next, previous; /* acceptance order */
    uint32_t sender;         /* short hash, for the variety of R5 */
    uint32_t
        odometer;   /* R7: the route whose odometer its time is counted on; NO_INDEX: it stands */
    int32_t base_s; /* what that odometer read when its time began */
    uint32_t credit_s; /* by the wall, from reception on: what does not count */
    uint16_t recipient_count;
    uint16_t unfinished;
    uint16_t live; /* of the unfinished, those that are no dead letters */
    uint8_t flags;
    uint8_t level : 5; /* its own, by its priority */
    uint8_t tls : 2;   /* enum sender_tls */
    uint8_t rests : 1; /* nothing of it goes into a lane: part.c */
};
static_assert(sizeof(struct message) <= 64, "memory per message");

struct chunks {
    void **chunk;
    uint32_t count;
    uint32_t room;
};

/* ---- milestones.c: places in the order of all messages ------------------------------------- */

struct milestone {
    uint64_t sequence;
    uint32_t message;
};

struct milestones {
    struct milestone *all; /* by sequence; some are void */
    uint32_t count, room;
};

/* The message that one with this sequence comes behind; NOBODY: it is the first. */
uint32_t milestones_find(struct relay *relay, uint64_t sequence);
void milestones_done(struct milestones *milestones);

/* A recipient with a blocker. */
struct recipient {
    uint64_t key;        /* of the address, and of the lane unless it is a domain's */
    uint32_t blocker;    /* delivery; NOBODY: free record */
    uint32_t head, tail; /* deliveries behind it; of a free record head = next free */
    uint32_t timer;      /* place in the schedule while patience runs */
    uint32_t follower;   /* in flight behind the blocker, on the same session, or refused there
                            for now and deferred; or NOBODY */
    uint32_t urgent;     /* the last of the most urgent ones behind it; NOBODY: all as usual */
};

/* ---- waiting.c: who stands in a lane that lines up ---------------------------------------- */

/* A hash table of deliveries by their recipient and lane: 4 bytes a place, at most 3 in 4 taken. */
struct waiting {
    uint32_t *places; /* delivery, or NOBODY */
    uint32_t room;    /* a power of two, or 0 */
    uint32_t count;
};

/* ---- lanes -------------------------------------------------------------------------------- */

enum lane_pin { PIN_NONE, PIN_REDIRECT, PIN_DOUBT, PIN_SPARE /* not in use */ };

struct destination;

/* What stands in a lane at one level. */
struct lane_queue {
    uint32_t head, tail; /* FIFO */
    uint32_t *returned;  /* heap by acceptance order */
    uint32_t returned_count, returned_room;
};

/* R5: what a lane had to send when the server that it goes to had recovered. */
struct recovery {
    uint32_t server; /* or NO_INDEX */
    bool drains;     /* not all of that has gone yet */
    uint64_t mark;   /* what was accepted up to this sequence */
    uint64_t left;   /* of those, waiting or in flight */
    int64_t drained_ms;
};

struct lane {
    uint32_t index;
    uint32_t route; /* NO_INDEX: orphan */
    enum lane_pin pin;
    uint32_t pinned_server; /* PIN_REDIRECT to a server, PIN_DOUBT; else NO_INDEX */
    uint32_t redirect;      /* interned: the address or server name as given; or INTERN_NONE */
    bool redirect_address;  /* an address, not a server */
    struct destination *destination; /* MX routing: whose exchangers; NULL: none */
    struct link sibling;             /* of the destination's lanes; or in relay->lanes.spare */
    uint64_t members;                /* unfinished, dead letters too: it is needed */
    uint64_t salt;             /* keeps its recipients apart from those of others; 0: a domain's */
    struct slice name;         /* "domain:example.com"; owned */
    struct lane_queue normal;  /* of LEVEL_NORMAL */
    struct lane_queue *levels; /* of the others, LEVELS of them; NULL: there have been none */
    uint32_t taken_levels;     /* bits: in those something stands */
    bool lines_up;             /* of each recipient only one stands in it */
    uint32_t last_share;       /* the level that had a turn though a higher one waited */
    uint32_t unshared_turns;   /* since then */
    int64_t passed_over_ms;    /* steady: since when lower levels wait; INT64_MAX: none does */
    int64_t oldest_wall_ms;    /* by the last relay_look_for_oldest(); 0: none found */
    uint64_t oldest_sequence;  /* of its message */
    uint64_t ready;            /* in all FIFOs and heaps */
    uint64_t deliveries;       /* unfinished, without dead letters */
    uint64_t waiting;          /* ready, or behind their recipient */
    uint64_t in_flight;
    uint64_t held;
    uint32_t placed; /* server whose turn list it is in, or NO_INDEX */
    bool guest;      /* there, in its list of guests: the server stands in, and has a warm-up */
    struct link turn;
    uint64_t deficit;
    uint32_t last_server;     /* R4: to tell a switch; at first the chain's head; or NO_INDEX */
    int64_t switched_wall_ms; /* since when; 0: not known */
    uint64_t switches;        /* told */
    bool stopped;
    bool draining;
    uint64_t drain_mark; /* what was accepted up to this sequence */
    uint64_t drain_left; /* of those, waiting or in flight */
    uint64_t drain_done;
    int64_t drain_since_ms;
    struct recovery recovery;
    int64_t expiry_left_ms; /* of the sweep under way: of the delivery that ends first */
    unsigned expiry_seen;   /* by it: 0 none, 1 ends soon, 2 very soon */
    unsigned expiry_level;  /* as last told */
    struct freeze *freeze;  /* of a route's own lane: a drill, freeze.c; else NULL */
};

/* R7: of a domain's route. */
struct odometer {
    int64_t ms;       /* at since_ms */
    int64_t since_ms; /* steady; ODOMETER_STOPPED: it stands */
};
#define ODOMETER_STOPPED INT64_MIN
enum { ODOMETER_WRITE_MS = 60000 };

/* The sweep that ends what is too old. See expiry.c. */
struct expiry {
    int64_t due_ms; /* steady: of the next slice */
    uint32_t next;  /* message to go on with; NOBODY: a new round */
    bool running;   /* a round is under way */
    bool asked;     /* the next one comes soon; another one soon after it, while it is under way */
    uint32_t seen;  /* messages in this round */
    int64_t soonest_ms; /* from now, as far as this round has seen: something is to be done */
    int64_t trusted_ms; /* Unix time that has passed by the steady clock, too; at steady_ms */
    int64_t steady_ms;
    int64_t note_ms; /* steady: when that is noted again, if there is mail */
};

/* ---- servers ------------------------------------------------------------------------------ */

/* How many different ones there were, as far as that matters. */
struct variety {
    uint32_t seen[VARIETY_ENOUGH];
    uint32_t count;
};

/* R5: 5xx in a row that speak of the server rather than of the mail. */
struct refusal_run {
    uint32_t count;
    struct variety senders;
};

/* As numbers they stand in notes (notes.h). */
enum trouble { TROUBLE_NONE, TROUBLE_CONNECT, TROUBLE_GREETING, TROUBLE_DELIVERY };

struct exchanger;

struct server {
    const struct server_config *config;
    uint32_t index;
    struct exchanger *exchanger; /* NULL: it is configured */
    bool on_demand;              /* an exchanger that only mail for it probes (R3) */
    enum server_state state;
    enum trouble trouble;    /* what it must prove to be well again */
    uint64_t trouble_serial; /* sessions opened before that one prove nothing */
    int64_t since_ms;        /* steady and wall of the last change of state */
    int64_t since_wall_ms;
    int64_t hand_ms;          /* Unix ms: the last that is known of a hand on it; 0: nothing */
    enum server_state before; /* the state before this one, and how long it lasted */
    int64_t before_ms;
    uint64_t changes;         /* of state, since the start */
    int64_t away_since_ms;    /* steady: neither up nor recovering since; INT64_MAX: it is */
    int64_t unknown_until_ms; /* at start: the chain waits for its first verdict until then */
    uint32_t failures;        /* since last up */
    uint64_t used;
    char reason[REASON_BYTES_MAX];
    size_t reason_length;
    /* probes */
    struct session *probe;
    int64_t next_probe_ms;
    int64_t last_probe_ms;
    bool probe_asked;         /* even if it is up and was heard of */
    uint32_t probe_delay_ms;  /* while it is not greeted well */
    uint32_t canary_delay_ms; /* the last one, between canaries */
    bool relapsed;            /* failed soon after it came up: no canary before that has passed */
    int64_t last_contact_ms;
    uint32_t canary_tries;
    uint64_t tried[CANARIES_KEPT]; /* recipients, since it was up last */
    uint32_t tried_next;
    bool canary_out; /* after trouble within sessions: all else may go to a later server (R4) */
    /* R5: whether its refusals are believed, refusal.c */
    bool returning;         /* there was trouble, and it is not up again */
    bool recovered;         /* it is up after trouble, since */
    int64_t recovered_ms;   /* steady */
    uint64_t held_refusals; /* at most so many wait until they are believed */
    int64_t review_ms;      /* steady: when to look at them again; INT64_MAX: not by itself */
    bool breaker_open;
    struct refusal_run refusals;
    /* R5: the run of deferrals */
    uint32_t run;
    struct variety run_senders, run_recipients;
    uint8_t epoch;
    bool epoch_used;  /* something was deferred in it */
    bool defers_none; /* but nothing that may be its canary was found */
    bool
        spare_turn; /* with nothing waiting a deferred one was its last canary, not a refused one */
    uint32_t spare_look; /* in the schedule: where the search for one goes on */
    /* ODMR: the connection that its client has made, and whose mail may go over it */
    struct session *call;                        /* or NULL */
    uint32_t called_for[RELAY_ATRN_DOMAINS_MAX]; /* routes */
    uint32_t called_for_count;
    /* sessions */
    struct link sessions;
    struct link idle;   /* open, no job; oldest first */
    struct link single; /* open, one job, room for one behind it */
    uint32_t open;      /* all of them, connecting and closing included */
    uint32_t left;      /* of these, `left` */
    uint32_t connecting;
    uint32_t jobs;
    uint32_t busy; /* sessions with a job, those left behind apart */
    struct ramp ramp;
    uint32_t ceiling; /* connections it lets us have */
    int64_t ceiling_ms;
    int64_t own_trouble_until_ms;
    /* lanes */
    struct link turns;
    uint64_t ready;
    struct link guests; /* lanes for which it stands in, while that is bounded by a warm-up */
    uint64_t guests_ready;
    int64_t guest_due_ms; /* steady: when the next of them would be on time */
    uint32_t timer;
    struct link touched; /* in relay->touched: something may have changed for it */
    struct relay_capabilities capabilities;
    bool capabilities_known;
    struct ip_address addresses[ADDRESSES_MAX];
    size_t address_count;
};

enum session_state { SESSION_CONNECTING, SESSION_OPEN, SESSION_CLOSING };

struct session {
    uint32_t id;
    struct server *server; /* NULL: it was taken out of the configuration */
    enum session_state state;
    bool probe;
    bool close_asked;
    bool left;      /* closed because its server was no longer usable; a dot may still be awaited */
    bool broken;    /* close_asked because of a job's result: how it ends still counts */
    bool worked;    /* a job's result came over it */
    bool tells_dsn; /* its server takes RFC 3461's parameters, and notices are its matter */
    bool takes_deliver_by;     /* it offers RFC 2852 */
    uint32_t deliver_by_min_s; /* and nothing shorter in mode R */
    uint32_t job_count;
    struct job *jobs[2]; /* in order of giving */
    uint32_t mails;
    uint64_t serial; /* order of opening */
    int64_t idle_ms;
    struct link all;
    struct link pool; /* in server's idle or single, or alone */
};

struct job {
    uint64_t id;
    uint32_t number;         /* in relay->jobs */
    struct session *session; /* NULL: of an earlier life */
    uint32_t session_id;
    uint32_t server; /* or NO_INDEX */
    uint32_t message;
    bool noted;
    bool unbelieved; /* its server has gone, and would not have been believed: R5 */
    int64_t dot_ms;  /* steady: when its dot was let go; 0: not yet */
    uint32_t count;
    uint32_t deliveries[]; /* slab numbers; of those that have gone meanwhile, too: part.c */
};

/* ---- the whole ---------------------------------------------------------------------------- */

/* What a new configuration makes anew. */
struct lane_set {
    struct lane **all; /* those of the routes first */
    uint32_t count;
    struct link spare;
    uint32_t orphan;                   /* index of that lane */
    struct destination **destinations; /* NULL: a free place */
    uint32_t destination_room, destination_count, destination_hint;
    struct map destinations_by_key;
    struct link touched_destinations;
};

/* Deliveries of which an attempt was loaded since relay_start(), by the input under way. */
struct attempts {
    uint32_t *numbers;
    uint32_t count, room;
};

/* Routes by a configuration that is to come. See foresight.c. */
struct foresight {
    const struct relay_config *config; /* NULL: none is to come */
    struct routing *routing;
    bool relays_same; /* both choose the same relay for every message */
    uint32_t next;    /* message to look at; NOBODY: all have been */
    uint32_t *routes; /* by delivery */
    uint32_t room;
    struct arena arena;
};

struct relay {
    const struct relay_config *config;
    struct routing *routing;
    struct known known_good; /* recipients by server that takes mail for them */
    struct directory *directory;
    struct relay_time now;
    struct hash_key key;
    uint64_t random;
    bool started;
    bool leased;                /* it may send */
    int64_t lapsed_ms;          /* steady: since when it may not */
    int64_t older_due_ms;       /* relay_older_due(); by the wall */
    int64_t older_due_since_ms; /* steady, less the time without a lease; meaningless without */
    bool gathers;               /* several inputs in a row: nothing is sent in between */
    bool more;                  /* work is left that did not fit one call */
    bool drained;               /* a lane's drain may have ended */
    int64_t thaw_due_ms; /* steady: when the next drill's time is over; INT64_MAX: none runs */
    uint32_t attempted;  /* loaded deliveries whose last note is an attempt */
    struct attempts attempts;

    struct chunks messages;
    struct chunks deliveries;
    uint32_t delivery_count; /* in use */
    uint32_t delivery_used;  /* ever */
    uint32_t delivery_free;
    uint32_t first_message, last_message;
    uint32_t load_hint; /* the last one inserted out of order */
    struct milestones milestones;
    uint32_t oldest; /* first message that is not only dead letters */
    uint64_t last_sequence;

    struct waiting waiting;
    struct map deliver_by; /* by message: struct deliver_by of deliver_by.c */
    struct map recipients; /* hash -> number + 1 */
    struct recipient *records;
    uint32_t record_used, record_room, record_free;

    struct intern domains;
    struct intern reasons;
    struct intern redirects;
    struct intern hands; /* names of servers taken out by hand that are not configured any more */
    struct schedule schedule;
    struct odometer *odometers; /* by route */
    int64_t odometers_due_ms;   /* steady: the next is to be written */
    bool odometers_unknown;     /* in a cluster, until its are loaded */
    struct expiry expiry;
    struct foresight foresight;

    struct lane_set lanes;
    uint32_t shown_index, shown_at; /* relay_lane(): where that one was found */
    struct exchanger **exchangers;  /* NULL: a free place */
    uint32_t exchanger_room, exchanger_count;
    struct map exchangers_by_key;
    struct relay_policies policies; /* of MTA-STS */
    struct link mx_known;           /* struct mx_known: by the latest last */
    uint32_t mx_known_count;
    struct link noted; /* struct noted: of exchangers that are not there yet */
    bool remaking;     /* lanes are made for another configuration */
    uint32_t sweep;    /* place in the schedule */
    struct server *servers;
    uint32_t server_count;
    struct link touched; /* servers that relay_settle() looks at */
    struct map sessions; /* id -> struct session */
    uint32_t next_session;
    uint64_t session_serial;
    struct map jobs_by_id;
    struct job **jobs;
    uint32_t job_used, job_room, job_free_count;
    uint32_t *job_free;
    uint64_t next_job;

    struct relay_action *actions;
    size_t action_first, action_count, action_room;
    struct arena action_memory;
    struct buffer scratch;
    struct buffer attempt;
    uint32_t *attempt_deliveries;

    struct relay_totals totals;
    uint64_t *route_bytes;
};

#endif
