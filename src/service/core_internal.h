/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of core share. Everything runs on one loop; a part is entered by a frame, a
 * completion of the spool, a timer or a control request, feeds relay one input, and carries out
 * relay's actions with core_act() before it returns.
 *
 *   core.c          life cycle: opening, loading in slices, starting dispatch, ticks, stopping
 *   core_in.c       frames of edge-in: content and messages into the spool, answers back
 *   core_atrn.c     requests of clients that their connection be turned round
 *   core_etrn.c     requests of clients that mail be handed over now
 *   core_recipients.c  which recipients exist: requests of edge-in, callouts, the files
 *   core_job.c      relay's sessions and jobs: attempt notes, GO, results, DURABLE
 *   core_out*.c     the rings to edge-out, and its reports
 *   core_early.c    those about mail that is not here yet
 *   core_names.c    the last good addresses of servers' names
 *   core_act.c      relay's actions; what they write, kept until it is durable
 *   core_drill.c    fire drills: their messages, their report
 *   core_guard.c    guards of servers: their facts, their scripts' ends, what is kept of them
 *   core_notice.c   a DSN, made for the batch that holds its fates
 *   core_report.c   log lines, event journal, counters
 *   core_alert.c    alerts: when they begin and end
 *   core_control*.c the operator's requests
 */
#ifndef HOLDFAST_SERVICE_CORE_INTERNAL_H
#define HOLDFAST_SERVICE_CORE_INTERNAL_H

#include "base/list.h"
#include "base/map.h"
#include "relay/directory.h"
#include "service/alert_news.h"
#include "service/channel.h"
#include "service/core.h"
#include "service/event_bound.h"
#include "service/events.h"
#include "service/lease_page.h"

enum {
    CORE_EDGES_MAX = 64,         /* loops of one edge */
    CORE_UPLOADS_MAX = 100000,   /* contents under way, one ring: above it, a broken edge */
    CORE_PREFIX = 2048,          /* of a commit frame, copied first: holds most envelopes */
    CORE_FRAMES_A_TURN = 256,    /* of one ring before others have their turn */
    CORE_BACKLOG_MAX = 64 << 20, /* bytes waiting for room in one ring of edge-out */
    CORE_TICK_MS = 1000,
    CORE_STOP_MS = 10000,    /* a stop waits so long for a journal that cannot be written */
    CORE_ANNOUNCE_TICKS = 5, /* repeated so often after a change of configuration */
};

/* ---- what has been opened; the tests open a model in its place ------------------------------ */

typedef enum error core_open_spool_fn(void *context, struct loop *loop,
                                      const struct spool_owner *owner, struct spool **ret_spool);
enum error core_new_with(struct loop *loop, const struct service_config *config,
                         uint32_t generation, core_open_spool_fn *open, void *context,
                         struct disk *events_disk, struct counters *counters,
                         const struct lease_page *lease, struct core **ret_core) MUST_CHECK;

/* ---- edge-in -------------------------------------------------------------------------------- */

struct core_edge_in {
    struct core *core;
    struct ring *ring;
    uint32_t index;
    uint32_t epoch;       /* counts attachments, so that late answers find nobody */
    struct map uploads;   /* token -> struct upload */
    struct link answers;  /* struct commit: decided, waiting for room in the ring */
    unsigned announce;    /* ticks for which everything is said again */
    uint32_t announce_at; /* next route to announce; NO_INDEX: none */
    uint32_t malformed;
};

/* ---- edge-out ------------------------------------------------------------------------------- */

struct core_edge_out {
    struct core *core;
    struct ring *ring;
    uint32_t index;
    uint32_t epoch;
    bool resumed;          /* CHANNEL_RESUMED has come on this ring */
    struct buffer backlog; /* frames, each behind its u32 length, waiting for room */
    size_t backlog_sent;
    uint32_t malformed;
};

struct core_session {
    struct link link; /* core->sessions_list, or core->refused */
    uint32_t id;
    uint32_t server;
    uint32_t edge;
    uint32_t epoch;
    bool foreign;              /* of an earlier life of core: relay does not know it */
    struct session_wait *wait; /* for a policy, before edge-out is told; NULL: it is told */
    char *tls;                 /* as CHANNEL_OPENED says it; NULL: nothing */
    struct link jobs; /* struct job.on_session, in order of CHANNEL_DELIVER, until durable */
};

enum job_state {
    JOB_SENT,     /* CHANNEL_DELIVER given */
    JOB_NOTING,   /* the attempt note is on its way to the spool */
    JOB_GONE,     /* CHANNEL_GO given: the dot may have been sent */
    JOB_SETTLING, /* its result is on its way to the spool */
};

struct job {
    struct link on_session; /* of its session; alone when that has ended */
    struct link waiting;    /* core->unsendable, unprepared or unnoted */
    uint64_t id;
    uint32_t session;
    uint32_t server;
    uint32_t edge;
    uint32_t epoch; /* of the edge when it last spoke of this job */
    enum job_state state;
    bool pinned;
    bool adopted;      /* begun in an earlier life of core */
    bool note_written; /* if not GONE: an earlier dot of the session is not settled, GO waits */
    bool note_pending; /* the spool holds a pointer to this job */
    bool preparing;    /* it too: the message is being fetched */
    bool fetched;      /* it can be sent */
    bool unsent;  /* CHANNEL_DELIVER waits for that, here or of an earlier job of the session */
    bool asks_go; /* READY has come, but relay lets it wait for an earlier job (R6), or the
                     lease */
    bool over;    /* freed as soon as the spool lets go */
    int64_t missing_ms; /* on the steady clock: when its message was not there; 0: it always was */
    struct core *core;
    struct buffer redirect_to; /* while unsent */
    struct spool_handle handle;
    struct message_id message;
    uint32_t count;
    uint32_t deliveries[];
};

/* ---- writes --------------------------------------------------------------------------------- */

struct control_request;

/* What happens when the writes that an input led to are durable. */
struct core_after {
    uint64_t job; /* CHANNEL_DURABLE for it; meaningful if has_job */
    bool has_job;
    struct control_request *request; /* or NULL */
};

struct notice;

/* The writes of one input: one batch, kept until it is in the spool. */
struct writes {
    struct link link; /* core->writes_free, writes_under_way or unwritten */
    struct core *core;
    enum spool_durability durability;
    struct buffer items;
    struct notice *notices;
    struct core_after after;
    bool failed_before;
    uint64_t serial; /* in the order of their making */
};

/* ---- core ----------------------------------------------------------------------------------- */

struct core {
    struct loop *loop;
    const struct service_config *config;
    uint32_t generation;
    struct counters *counters;
    struct spool *spool;
    struct relay *relay;
    struct {
        const struct service_config *config; /* NULL: none */
        uint32_t generation;
        void (*done)(void *context, enum error error);
        void *context;
    } coming; /* a configuration that relay looks ahead for */
    struct events *events;
    struct event_bound *refusals;
    struct logins *logins;          /* NULL: no memory, and nothing is heard of them */
    struct disk *events_disk;       /* owned by events; asked for the size of the file system */
    const struct lease_page *lease; /* NULL: nobody shares the state directory */
    uint32_t ended_token;           /* as the spool was told */
    uint64_t late;                  /* messages and fates of another writer that came late */
    struct id_maker ids;
    struct core_cluster *cluster; /* NULL: this machine is alone */
    int64_t started_wall_ms;      /* by our own clock */
    int64_t started_steady_ms;
    uint64_t accepted_messages, accepted_bytes; /* since then */

    struct loop_timer *tick;
    struct loop_timer *due; /* relay's deadline */
    int64_t due_at;
    struct loop_later *load;
    struct loop_later *foresee;
    struct loop_later *in_later;  /* rings of edge-in have more to read */
    struct loop_timer *in_relief; /* not read on: too much content waits for storage */
    struct loop_later *out_later;
    bool loaded;
    bool unwanted; /* what the spool hands over is about a message that is not for relay */
    bool load_again;
    bool dispatching;
    bool stopping;
    int64_t stopping_since_ms;
    void (*stopped)(void *context);
    void *stopped_context;

    void (*edge_broken)(void *context, enum core_edge edge); /* NULL: nobody asks */
    void *edge_broken_context;

    struct core_edge_in in[CORE_EDGES_MAX];
    enum error accepting;  /* as last told */
    bool told_loaded;      /* likewise */
    int64_t time_ahead_ms; /* as last told: a cluster's time, of the steady clock */
    uint64_t
        milters_away[MILTERS_MAX]; /* of each filter, a bit for each loop that cannot reach it */
    struct route_state {
        bool quota_reached;
        bool head_known;
        bool head_up;
        uint32_t head_flags;
        uint64_t head_size_limit;
    } * routes; /* as last told */
    struct link commits_free;
    uint32_t commits_kept; /* on the free list */
    uint32_t commits_under_way;
    size_t commit_bytes;   /* content in their frames */
    struct link unrelayed; /* struct commit: stored, but relay had no memory */
    uint64_t bytes_since_quota;

    struct core_edge_out out[CORE_EDGES_MAX];
    uint32_t out_count; /* 0: not told yet */
    struct map sessions;
    struct link sessions_list;
    struct map jobs;
    struct link refused;    /* struct core_session: could not be begun, relay is to be told */
    struct link unsendable; /* struct job: no ticket could be made, relay is to be told */
    struct link unprepared; /* struct job: what it is about cannot be had just now */
    struct link unnoted;    /* struct job: the attempt note could not be written yet */
    struct link early;      /* struct early: reports of mail that is not here yet */
    uint32_t early_count;   /* with those that the spool has */
    struct link names;      /* struct core_name: last good addresses */
    uint32_t name_count;
    struct buffer frame; /* being built */
    struct buffer copy;  /* being read */
    struct arena arena;  /* for one call */

    struct writes *gathering;
    struct link writes_free;
    struct link writes_under_way;
    struct link unwritten; /* the spool failed: in order, for later */
    uint64_t writes_made;
    struct notice *unrelayed_notices; /* stored, but relay had no memory: in order */
    uint32_t notes_pending;

    struct recipients *recipients;
    struct whole_files *files; /* what outlives us and is no mail; NULL: nothing does */
    struct greylist *greylist; /* edge-in's; NULL: it is not kept */
    uint64_t greylist_serial;  /* when it was written */
    int64_t greylist_written_ms;
    struct errands *errands;
    struct policies *policies;
    struct tls_reports *tls_reports;
    struct link resolutions;  /* struct resolution: answers of DNS that wait for a policy */
    struct link list_sources; /* of recipients: what came of each */
    struct link drills;       /* struct drill, begun in this life */
    struct guards *guards;
    struct link controls;
    struct loop_later *control_later;

    struct alerts alerts;
    struct alert_news alert_news;
    struct spool_state told_spool; /* as last counted and reported */
    uint64_t told_given_up;        /* copies */
    uint64_t told_dropped;
    int64_t told_gone_ms;        /* events up to then have gone early */
    uint64_t etrn_denied;        /* since the log was told */
    int64_t etrn_denied_told_ms; /* steady; 0: never */
};

struct core_described {
    struct core *core;
    struct spool_handle handle;
};

static inline struct slice core_server_name(const struct core *core, uint32_t server)
{
    const struct server_config *config = relay_server_config(core->relay, server);
    return config == NULL ? SLICE_EMPTY : config->name;
}

/* A server of the configuration, or an exchanger that is there. */
bool core_has_server(const struct core *core, struct slice name);
/* By this all of core goes: in a cluster the wall time is the database's (shared_clock.h), so that
 * what a node notes means the same to the next owner of it; else the machine's. */
struct relay_time core_now(const struct core *core);
int64_t core_wall_ms(const struct core *core);
struct message_id core_make_id(struct core *core);
/* Calls back who asked core_stop(), once nothing is under way. */
void core_check_stopped(struct core *core);
/* Memory is out where going on would forget a fact about mail: a restart reads it from the journal
 * (or finds the attempt in doubt). */
_Noreturn void core_out_of_memory(void);
/* Alerts, and calls for a new edge; its ring is the caller's to detach. */
void core_edge_is_broken(struct core *core, enum core_edge edge, const char *text);

/* core_in.c */
void core_in_init(struct core *core);
void core_in_done(struct core *core);
void core_in_attach(struct core *core, uint32_t index, struct ring *ring);
void core_in_announce(struct core *core, bool repeat); /* what has changed, or everything */
enum error core_in_reconfigure(struct core *core) MUST_CHECK;
void core_in_tick(struct core *core);
void core_in_read_on(void *context);
/* Tells relay of a stored message. False: relay had no memory. */
bool core_in_relay(struct core *core, struct spool_handle handle, struct spool_message *message);

/* A request of edge-in for a client, read from a copy that it cannot change any more; the rest is
 * the caller's to read. False: the frame is malformed. */
bool core_request_read(struct slice frame, uint8_t *copy, size_t size, struct reader *ret_reader,
                       uint64_t *ret_token, struct ip_address *ret_client);
/* The answer begins; what follows is appended to core->frame. */
void core_answer_begin(struct core *core, enum channel_frame type, uint64_t token, uint8_t outcome);
/* If the ring has no room, edge-in gives up by itself. */
void core_answer_send(struct core_edge_in *in);
/* core_etrn.c, core_atrn.c: false: the frame is malformed. */
bool core_etrn_take(struct core_edge_in *in, struct slice frame);
bool core_atrn_take(struct core_edge_in *in, struct slice frame);

/* core_recipients.c */
void core_recipients_init(struct core *core);
void core_recipients_done(struct core *core);
void core_recipients_tick(struct core *core);
/* Servers' numbers are about to change: nobody waits for an answer any more. */
void core_recipients_reconfigure(struct core *core);
/* Writes what has changed, at the end. */
void core_recipients_stop(struct core *core);
/* False: the frame is malformed. */
bool core_recipient_take(struct core_edge_in *in, struct slice frame);
bool core_recipients_called(struct core_edge_out *out, struct reader *reader);
/* The outcome of a callout for an operator; asked whatever is known. False: nobody can be asked. */
typedef void callout_fn(void *context, enum mailbox_answer answer, const struct relay_reply *reply,
                        const struct relay_reply *random);
bool core_recipients_verify(struct core *core, struct slice address, callout_fn *fn, void *context);
void core_recipients_forget_context(struct core *core,
                                    void *context); /* it is not called any more */
/* An address of this domain that cannot exist, in `buffer`. */
struct slice core_recipients_random(struct slice domain, struct buffer *buffer);

/* core_guard.c */
void core_guards_init(struct core *core);
void core_guards_done(struct core *core);
/* False: the note is of something else. */
bool core_guards_load(struct core *core, struct slice key, struct slice payload);
void core_guards_reconfigure(struct core *core);
void core_guards_tick(struct core *core);
bool core_guard_is_there(const struct core *core, struct slice server); /* in the configuration */

/* core_control_lists.c */
void core_lists_reconfigure(struct core *core);
void core_lists_done(struct core *core);

/* core_out.c and core_job.c */
void core_out_init(struct core *core);
void core_out_done(struct core *core);
void core_out_attach(struct core *core, uint32_t index, uint32_t count, struct ring *ring);
void core_out_loaded(struct core *core);
void core_out_remap(struct core *core, const struct service_config *old);
void core_out_later(void *context);
void core_out_action(struct core *core, const struct relay_action *action); /* CONNECT ... */
void core_out_resolve(struct core *core, struct slice domain);
/* What a policy demands of a server, as it is known. */
enum sts_demand core_server_demand(struct core *core, uint32_t server);
/* Answers that still wait for a policy are forgotten. */
void core_resolutions_done(struct core *core);
/* For TXT records; one domain is always asked by the same edge-out. */
void core_out_ask_text(struct core *core, struct slice name, struct slice domain);
void core_out_durable(struct core *core, uint64_t job);
/* When there is room in its ring. */
void core_out_send(struct core_edge_out *out, struct buffer *frame);

/* core_listing.c. False: a malformed frame. */
bool core_listing_take(struct core_edge_in *in, struct slice frame);

/* core_greylist.c */
void core_greylist_tick(struct core *core);
void core_greylist_stop(struct core *core); /* writes what has changed, at the end */

/* core_refusals.c */
bool core_refusal_take(struct core_edge_in *in, struct slice frame); /* false: malformed */
void core_refusals_tick(struct core *core);

/* core_logins.c */
struct logins *logins_new(struct core *core); /* NULL: memory */
void logins_free(struct logins *logins);      /* NULL is allowed */
void logins_tick(struct core *core, int64_t steady_ms);
/* Whether somebody must wait of whom this alert is. */
bool logins_waits(const struct core *core, enum alert_kind kind, struct slice subject);
bool core_listing_looked_up(struct core_edge_out *out, struct reader *reader);

void core_names_init(struct core *core);
void core_names_done(struct core *core);
bool core_names_load(struct core *core, struct slice key,
                     struct slice payload); /* false: not ours */
bool core_names_take(struct core *core, struct reader *reader);
void core_names_tell(struct core_edge_out *out);
void core_out_tick(struct core *core);

/* core_act.c */
void core_act_init(struct core *core);
void core_act_done(struct core *core);
/* Carries out all actions of the input just fed. */
void core_act(struct core *core, enum spool_durability durability, struct core_after after);
void core_act_tick(struct core *core);
/* Stores a message of ours, taken over, and relays it then; until the journal takes it, it is kept
 * and tried again. */
void core_act_store(struct core *core, struct notice *notice);
bool core_act_is_idle(const struct core *core);
/* The serial of the oldest writes that the spool has not done; UINT64_MAX: there are none. */
uint64_t core_act_oldest(const struct core *core);
#define CORE_NOTHING_AFTER ((struct core_after){0})

/* core_drill.c */
void core_drill_init(struct core *core);
void core_drill_done(struct core *core);
void core_drill_tick(struct core *core);
/* RELAY_EVENT_REHEARSED. */
void core_drill_over(struct core *core, const struct relay_action *action);
enum { DRILL_CLOCK_SIZE = 16 };
/* "14:05 UTC" */
const char *drill_clock(int64_t wall_ms, char text[DRILL_CLOCK_SIZE]);

/* core_milter.c */
/* CHANNEL_MILTER. False: it is malformed. */
bool core_milter_take(struct core_edge_in *in, struct slice frame);
void core_milter_edge_gone(struct core_edge_in *in);
/* `config` is in force no more: what is said of filters from now on is of another. */
void core_milter_forget(struct core *core, const struct service_config *config);

/* core_notice.c */
struct notice {
    struct notice *next;
    struct arena arena;
    struct spool_message message;
    struct buffer content;
    struct spool_handle handle; /* once it is stored */
    struct spool_handle about;  /* whose deliveries it tells of, or none */
};
/* For RELAY_BOUNCE and RELAY_NOTICE. On an error (memory, or the original cannot be read) the
 * caller must not write the fates of a bounce. */
enum error notice_new(struct core *core, const struct relay_action *action,
                      struct notice **ret_notice) MUST_CHECK;
/* Without message and content, to be filled. NULL: memory. */
struct notice *notice_empty(void);
void notice_free(struct notice *notice);

/* core_report.c */
void report_accepted(struct core *core, const struct spool_message *message);
void report_relay_event(struct core *core, const struct relay_action *action);
void report_attempt(struct core *core, const struct job *job);
/* Delivered, as edge-out says, though relay does not know it (core_early.c). */
void report_early(struct core *core, struct message_id id, uint32_t delivery, struct slice server);
void report_operator(struct core *core, enum event_kind kind, struct message_id id,
                     uint32_t delivery, struct slice reason);
/* It is a copy of another message, which `server` has taken for its `deliveries`, of `all`. */
void report_resent(struct core *core, const struct spool_message *message,
                   const uint32_t *deliveries, uint32_t all, struct slice server);
/* For `trace` later, and for who watches now. */
void report_event(struct core *core, const struct event *event);
/* core_lease.c */
bool core_lease_holds(void *page); /* NULL: always. Of any thread */
/* Before what depends on the lease. Does not return without it. */
void core_lease_check(const struct core *core);
void core_lease_late_fate(void *context, struct message_id id, struct spool_handle handle,
                          uint32_t delivery, enum spool_fate fate);
void core_lease_late_message(struct core *core, struct message_id id);
void core_lease_tick(struct core *core);
struct json_t *core_lease_status(const struct core *core);

void report_spool(struct core *core);
void report_damage(struct core *core, const char *text); /* found while loading */
void report_loaded(struct core *core);
void report_tick(struct core *core);
void report_problem(const char *what, enum error error);
const char *server_state_text(enum server_state state); /* "up", as in the log and `status` */

/* core_alert.c: logged and counted when one begins, logged when it ends, however often it is said.
 * Those of lanes and servers follow relay's events. */
void report_alert(struct core *core, enum alert_kind kind, const char *text);
void report_alert_over(struct core *core, enum alert_kind kind);
void report_alert_of(struct core *core, enum alert_kind kind, struct slice subject,
                     const char *text);
void report_alert_over_of(struct core *core, enum alert_kind kind, struct slice subject);
/* Whether what an alert block is to tell can be sent: NULL, or why not. */
void report_hook(struct core *core, struct slice name, const char *reason);
/* Whether a filter can be reached: empty, or why not. */
void report_milter(struct core *core, struct slice name, struct slice why);
/* About a server's guard; `text` NULL: it is over. */
void report_guard(struct core *core, enum alert_kind kind, struct slice server, const char *text,
                  int64_t since_ms);
/* What a node of the cluster owned has been taken over. */
void report_takeover(struct core *core, struct slice node, const char *text);
/* `problem` NULL: the list of recipients from there is well. */
void report_list(struct core *core, struct slice source, const char *problem);
void report_alert_while(struct core *core, enum alert_kind kind, bool stands, const char *text);
void report_alerts_event(struct core *core, const struct relay_action *action);
/* What stood in an earlier life and the notes tell of. */
void report_alerts_loaded(struct core *core);
/* Ends those of lanes and servers that are no more, or have no cause any more. */
void report_alerts_reconfigured(struct core *core);
void report_alerts_tick(struct core *core);

/* core_control.c */
void core_control_init(struct core *core);
void core_control_done(struct core *core);
void core_control_later(void *context);
void core_control_tick(struct core *core);
/* An event, for those who watch (core_control_watch.c). */
void core_control_event(struct core *core, const struct event *event);
/* The writes of `request` are durable, or failed and will be tried again later. */
void core_control_written(struct control_request *request, enum error error);

#endif
