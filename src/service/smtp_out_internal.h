/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the outgoing door share; nobody else includes it.
 *
 *   smtp_out.c          life cycle, frames from core, re-attaching
 *   smtp_out_session.c  a session: its connection, the client core's events
 *   smtp_out_connect.c  how a session comes to a connection: addresses, time-outs, knocking
 *   smtp_out_tls.c      TLS of a session
 *   smtp_out_result.c   what came of it, for reports
 *   smtp_out_dane.c     what a server's TLSA records demand of that
 *   smtp_out_turned.c   connections that a client has made and had turned round
 *   smtp_out_job.c      a job: its envelope, its content, its outcomes
 *   smtp_out_origin.c  whose mail a job is
 *   smtp_out_listing.c  questions whether DNS lists know a client
 *   smtp_out_callout.c  questions whether a server takes mail for an address
 *   smtp_out_name.c     names of servers and the last good addresses
 *   smtp_out_mx.c       who takes a domain's mail
 *   smtp_out_text.c     what TXT records say
 *   smtp_out_report.c   frames to core, kept until there is room
 *
 *   session:  RESOLVING -> CONNECTING -> TALKING -> OVER -> (ENDED is sent) freed
 *   job:      WAITING -> GIVEN (to the client core) -> OVER -> (DURABLE comes) freed
 *
 * Sessions and jobs are freed only by smtp_out_flush() and by frames about them, never under a
 * handler of theirs.
 */
#ifndef HOLDFAST_SERVICE_SMTP_OUT_INTERNAL_H
#define HOLDFAST_SERVICE_SMTP_OUT_INTERNAL_H

#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"
#include "proto/smtp_client.h"
#include "service/channel.h"
#include "service/smtp_out.h"
#include "service/stream.h"

enum {
    ENDPOINTS_MAX = 32,          /* addresses tried within one session */
    ATTEMPTS_MAX = 4,            /* connections that a probe has under way at once */
    REPLY_TEXT_MAX = 512,        /* bytes, of relay.h */
    RESULT_TEXT_MAX = 200 << 10, /* bytes of reply texts in one result */
};

/* ---- names -------------------------------------------------------------------------------- */

struct name {
    struct link link;
    struct smtp_out *out;
    struct dns_query *query;                        /* under way, or NULL */
    struct ip_address addresses[DNS_ADDRESSES_MAX]; /* the last good ones */
    size_t count;
    int64_t expires_ms; /* steady; the addresses are used beyond it when there are no others */
    enum error error;   /* of the last answer */
    bool changed;       /* core has not heard of the addresses */
    size_t length;
    uint8_t host[];
};

/* ---- jobs --------------------------------------------------------------------------------- */

enum job_state { JOB_WAITING, JOB_GIVEN, JOB_OVER };

struct out_job {
    struct link on_session; /* in order of arrival, until durable; or on out->unconfirmed */
    struct link reporting;
    struct out_session *session; /* NULL: has ended */
    uint64_t id;
    uint32_t session_id;
    uint32_t server;
    enum job_state state;
    bool go;        /* core has noted the attempt */
    bool released;  /* the client core has been told so */
    bool held;      /* the client core has it, and borrows its strings */
    bool confirmed; /* durable, but still held: freed with its session */
    bool reused;
    bool read_failed; /* its content, and not for damage: later it may go well */
    bool is_callout;  /* its id is a token of CHANNEL_CALLOUT; nobody confirms it */
    bool ready_due, working_due, result_due; /* to be reported */
    struct arena arena;
    struct spool_message message;
    struct spool_stored *stored;
    struct smtp_client_recipient *recipients; /* one per delivery */
    struct xclient forwarded; /* if it has an address: whose the mail was at first */
    struct xclient origin;
    struct client_name {
        enum { NAME_UNKNOWN, NAME_ASKED, NAME_SETTLED } step;
        struct dns_query *query;
        struct loop_timer *timer;
        struct slice reverse; /* of the client's address by DNS, or empty */
        bool reverse_later;   /* DNS has failed */
        bool is_true;         /* and it leads back to the address */
        bool later;           /* likewise */
    } client_name;
    struct buffer result; /* outcomes as in CHANNEL_RESULT; memory reserved */
    uint32_t count;
    uint32_t deliveries[];
};

/* With room for its results; in no list and no map. NULL: memory. */
struct out_job *out_job_new(uint32_t count);
struct out_job *job_from_frame(struct smtp_out *out, struct out_session *session, uint64_t id,
                               struct reader *reader, bool *ret_malformed);
/* Why a stored message cannot be sent, for people. */
struct slice stored_error_text(enum error error);
/* Core has confirmed its result. */
void job_confirm(struct smtp_out *out, struct out_job *job);
void out_job_free(struct smtp_out *out, struct out_job *job); /* off every list */
/* The mail for the client core; valid as long as the job. */
void job_mail(struct out_job *job, struct smtp_client_mail *ret_mail);
/* Its message has been read. */
void job_origin_begin(struct out_job *job);
/* Valid as long as the job, until it is asked again; NULL: it is ours. */
const struct xclient *job_origin(struct out_job *job);
/* False: the client's name is still asked for; session_take_job() will be called. */
bool job_origin_ready(struct out_job *job);
/* Nobody asks any more. */
void job_origin_forget(struct out_job *job);
/* Its server wants a PROXY header. */
bool session_is_proxied(const struct out_session *session);
/* Whose mail comes first over the connection that begins; as job_origin(). */
const struct xclient *session_first_origin(struct out_session *session);
/* Says so in a PROXY header. False: it could not be sent. */
bool session_send_proxy(struct out_session *session, const struct xclient *client);
/* Its server may be told whose mail it gets by XCLIENT or XFORWARD. */
bool session_tells_origin(const struct out_session *session);
/* At most `size` bytes; fills as much as there is. ERROR_CORRUPT, ERROR_IO. */
enum error job_read(struct out_job *job, uint64_t offset, void *ret_bytes, size_t size,
                    size_t *ret_length) MUST_CHECK;
/* Over, with these outcomes, or all with the same. */
void job_finish(struct smtp_out *out, struct out_job *job,
                const struct smtp_client_outcome *outcomes);
struct relay_reply reply_of(const struct smtp_client_cause *cause);
void job_finish_alike(struct smtp_out *out, struct out_job *job, enum relay_verdict verdict,
                      const struct relay_reply *reply);

/* ---- sessions ----------------------------------------------------------------------------- */

enum session_state { OUT_RESOLVING, OUT_CONNECTING, OUT_TALKING, OUT_OVER };

struct out_session {
    struct link link; /* on out->sessions */
    struct link reporting;
    struct smtp_out *out;
    uint32_t id;
    uint32_t server; /* NO_INDEX: gone from the configuration, or an exchanger */
    struct channel_exchanger *exchanger; /* owned, its name too; NULL: it is no session to one */
    enum session_state state;
    bool orphan;       /* of an earlier core, or for callouts: has no place in the map */
    bool calls_out;    /* for callouts: core does not know of it */
    uint32_t callouts; /* given to it so far */
    bool opened;       /* greeted */
    bool told;         /* core knows of that */
    bool closing;      /* core wants it closed */
    bool patient;      /* the kernel has been told to wait for a vanished host */
    bool winding_up;   /* dropped as soon as no released dot is without its result */
    bool opened_due, ended_due;
    int64_t connected_ms;       /* steady: when there was a connection */
    int64_t limit_ms;           /* steady: end of patience with name or connection */
    uint32_t knock_interval_ms; /* of a probe; 0: no probe */
    int64_t knock_at_ms;        /* steady: a fresh attempt beside the others; INT64_MAX: never */
    struct ip_endpoint endpoints[ENDPOINTS_MAX];
    uint32_t endpoint_count;
    uint32_t first_endpoint;   /* those before it have been connected, or had their turn */
    uint32_t endpoint;         /* the last one tried, or connected */
    uint32_t tried;            /* attempts from first_endpoint on */
    struct link attempts;      /* connections under way, oldest first */
    int fd;                    /* -1: none */
    struct tls *tls;           /* NULL: in the clear */
    bool shaking;              /* hands, that is: nothing else is said */
    bool without_tls;          /* TLS has failed, and is not demanded */
    bool proved;               /* the server has shown by it who it is */
    struct session_dane *dane; /* NULL: not asked */
    enum sts_demand sts;       /* of the domain's policy, with SERVER_TLS_MTA_STS */
    bool tls_counted;          /* of this connection, among: */
    uint32_t tls_result_count; /* to be told to core */
    struct session_tls_result *tls_results; /* TLS_RESULTS_KEPT; NULL: none */
    char tls_said[CHANNEL_TLS_MAX]; /* policy and result, for people; empty: no TLS wanted */
    struct loop_watch *watch;
    unsigned interest;
    struct loop_timer *timer;
    int64_t timer_at_ms; /* steady; INT64_MAX: not set */
    struct smtp_client *client;
    struct smtp_client_capabilities capabilities;
    struct link jobs;
    struct relay_reply end;
    uint8_t end_text[REPLY_TEXT_MAX];
};

/* What core has said of whom to connect to. */
struct session_peer {
    uint32_t server;
    const struct channel_exchanger *exchanger; /* copied; NULL: the server is configured, or was */
    enum sts_demand sts;
};
/* `knock_interval_ms`: see connect_knock(); 0: it is no probe. */
void session_start(struct smtp_out *out, uint32_t id, const struct session_peer *peer,
                   uint32_t knock_interval_ms);
/* One for callouts. NULL: memory. */
struct out_session *session_start_callouts(struct smtp_out *out, const struct session_peer *peer);
/* A new configuration, which is not yet that of the door. */
void session_follow(struct out_session *session, const struct service_config *config);
/* NULL: its server is no longer configured. */
const struct server_config *session_config(const struct out_session *session);
/* A connection has been made, the session's from now on: the dialogue begins. */
void session_connected(struct out_session *session, int fd);
/* All connections, made and under way, are closed. */
void session_disconnect(struct out_session *session);
void session_over(struct out_session *session, const struct relay_reply *reply);
/* A limit may have come nearer. */
void session_set_timer(struct out_session *session);
void session_take_job(struct out_session *session, struct out_job *job);
/* Lets the first job's dot go if all before it is durable. */
void session_release(struct out_session *session);
/* Core wants it closed: a dot that has been released is awaited (R2), what has not is reported as
 * not tried at once. */
void out_session_close(struct out_session *session);
/* At once; what has not been released was not tried, the rest is in doubt. */
void session_drop(struct out_session *session, const char *why);
/* Drops it, or when a dot is under way, then after that; what has not been released is reported as
 * not tried at once. */
void session_wind_up(struct out_session *session, const char *why);
void out_session_free(struct out_session *session);

/* ---- connecting --------------------------------------------------------------------------- */

/* Asks for the addresses, then tries them; ends in session_connected() or session_over(). */
void connect_begin(struct out_session *session);
/* A name has been answered. */
void connect_resolved(struct out_session *session);
/* There is an address that has not had its turn. */
bool connect_has_next(const struct out_session *session);
/* Tries that; without one the session is over for `error`. */
void connect_next(struct out_session *session, enum error error);
/* A probe that is connecting makes a fresh attempt beside the older ones, for the kernel repeats
 * its SYN ever more rarely, and R3 wants a return noticed within an interval. */
void connect_knock(struct out_session *session);
/* The patience with a name or with a connection has ended. */
void connect_limit(struct out_session *session);
void connect_failed(struct out_session *session, enum relay_stage stage, enum error error);
/* Closes what is under way. */
void connect_drop(struct out_session *session);

/* ---- TLS ---------------------------------------------------------------------------------- */

/* What the dialogue is to do about it. */
enum smtp_client_tls out_tls_policy(const struct out_session *session);
/* Begins the handshake, or says to the client core why not. */
void out_tls_begin(struct out_session *session);
/* Goes on with it; at its end the client core is told. */
void out_tls_go_on(struct out_session *session);
/* Whose policy decides. */
enum tls_policy out_tls_decides(const struct out_session *session);
/* A policy of its domain does not let anything be sent to it. */
bool out_tls_forbids(const struct out_session *session);
/* Greeted in the clear: notes what there is to say of that. */
void out_tls_opened(struct out_session *session);
/* It failed as `cause` says: true if the same address is now tried without. */
bool out_tls_do_without(struct out_session *session, const struct smtp_client_cause *cause);
/* Authorities may have changed; connections go on. */
void out_tls_drop_clients(struct smtp_out *out);

/* ---- results of TLS, for reports ------------------------------------------------------------ */

enum { TLS_RESULTS_KEPT = 4 }; /* not yet told; more are not counted */
struct session_tls_result {
    struct channel_tls is; /* its reason lies in `text` */
    char text[CHANNEL_TLS_REASON_MAX + 1];
};
/* Once for each connection, and not for callouts, nor where the domain's policy was waived. */
void tls_result_note(struct out_session *session, enum tls_result result, struct slice reason);
/* It has ended at TLS, and nothing was noted. */
void tls_result_ended(struct out_session *session, struct slice reason);
/* False: no room. */
bool tls_results_report(struct out_session *session);

/* ---- DANE --------------------------------------------------------------------------------- */

enum dane_result {
    DANE_ASKING,
    DANE_NONE,       /* no records, or none that is signed */
    DANE_NOT_SIGNED, /* nor are the MX records that name it */
    DANE_UNUSABLE,   /* TLS is demanded, and nothing to be proved (RFC 7672 2.2) */
    DANE_USABLE,
    DANE_FAILED,
};
/* TLSA records are asked for: where the server's policy is to follow them, and with mta-sts, which
 * they come before, where an answer could be proved. */
bool dane_is_wanted(const struct out_session *session);
/* True: the records are asked for, of a server whose policy is that; connect_resolved() follows. */
bool dane_begin(struct out_session *session);
enum dane_result dane_result(const struct out_session *session);
/* The session is over for want of an answer. */
void dane_failed(struct out_session *session);
/* What the server is to prove; lasts as long as the session's records. */
void dane_peer(const struct out_session *session, struct tls_peer *peer);
void dane_forget(struct out_session *session);

/* ---- turned connections ------------------------------------------------------------------- */

/* Its server is one whose client calls. */
bool session_is_called(const struct out_session *session);
/* Takes the connection that has come for it, or waits for that; then session_connected(). */
void turned_begin(struct out_session *session);
void turned_limit(struct out_session *session); /* it has not come */
/* Those that wait for their session. */
void turned_drop_all(struct smtp_out *out);

/* ---- names -------------------------------------------------------------------------------- */

/* Asks for those names of the server that are not known or have expired. */
void names_ask(struct smtp_out *out, const struct server_config *server);
/* What is known of the server's addresses and allowed, in the order of its list. *ret_waiting: an
 * answer is due. With a count of 0, *ret_error is that of the last answer. */
uint32_t names_endpoints(struct smtp_out *out, const struct server_config *server,
                         struct ip_endpoint ret_endpoints[ENDPOINTS_MAX], bool *ret_waiting,
                         enum error *ret_error);
/* CHANNEL_NAME: what core knew from before. */
bool names_take(struct smtp_out *out, struct reader *reader);
/* Sends CHANNEL_NAME and CHANNEL_ADDRESSES of what has changed; false: no room. */
bool names_report(struct smtp_out *out);
/* To a new core: all of them. */
void names_repeat(struct smtp_out *out);
/* Forgets names that no server has any more. */
void names_prune(struct smtp_out *out);
void names_free(struct smtp_out *out);

/* ---- who takes a domain's mail ------------------------------------------------------------ */

/* CHANNEL_RESOLVE. */
bool mx_take(struct smtp_out *out, struct reader *reader);
/* Sends CHANNEL_RESOLVED for what is answered; false: no room. */
bool mx_report(struct smtp_out *out);
void mx_free(struct smtp_out *out);

/* smtp_out_text.c, CHANNEL_TEXT; as above. */
bool texts_take(struct smtp_out *out, struct reader *reader);
bool texts_report(struct smtp_out *out);
void texts_free_all(struct smtp_out *out);

/* smtp_out_listing.c; as smtp_out_mx.c. */
bool lists_take(struct smtp_out *out, struct reader *reader);
bool lists_report(struct smtp_out *out);
void lists_finish_all(struct smtp_out *out); /* another configuration comes */
void lists_free_all(struct smtp_out *out);

/* ---- callouts ----------------------------------------------------------------------------- */

/* CHANNEL_CALLOUT. */
bool callout_take(struct smtp_out *out, struct reader *reader);
/* Nothing more is to be asked over the session just now. */
void callout_rest(struct out_session *session);

/* ---- reports ------------------------------------------------------------------------------ */

void report_session(struct out_session *session);
void report_job(struct smtp_out *out, struct out_job *job);
/* A frame begun in out->frame; smtp_out_send() sends it, false: no room now, or no core. */
struct buffer *smtp_out_frame(struct smtp_out *out, enum channel_frame type);
bool smtp_out_send(struct smtp_out *out);
/* Sends what is due as far as there is room; frees sessions that have ended. */
void smtp_out_flush(void *out);

/* ---- the door ----------------------------------------------------------------------------- */

struct smtp_out {
    struct loop *loop;
    const struct service_config *config;
    struct spool_reader *reader;
    struct dns *dns;
    struct ring *ring;
    void (*broken)(void *context); /* or NULL */
    void *broken_context;
    struct counters *counters;
    struct map sessions_by_id;
    struct map jobs_by_id;
    struct link sessions;
    struct link unconfirmed; /* jobs over, whose session has ended */
    struct link reporting_sessions, reporting_jobs;
    struct link names;
    struct link tls_clients;
    struct link questions, answers;
    uint32_t question_count; /* on questions */
    struct link texts, texts_answered;
    uint32_t text_count; /* on texts */
    struct link listings, listed;
    uint32_t listing_count; /* on listings */
    struct link turned;     /* connections whose session core has not told of yet */
    uint32_t turned_count;
    struct loop_later *later;
    bool resumed_due;
    bool attached; /* a core has been there before */
    struct buffer frame, copy;
    uint8_t *piece; /* SMTP_CLIENT_PIECE_MAX bytes */
    bool stopping;
    struct loop_timer *stop_timer;
    void (*stopped)(void *context);
    void *stopped_context;
};

/* Calls `stopped` when all is over. */
void smtp_out_check_stopped(struct smtp_out *out);

#endif
