/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the door share: smtp_in.c (configuration, end of life), smtp_in_listener.c,
 * smtp_in_session.c (one connection: bytes, time), smtp_in_event.c, smtp_in_envelope.c (who may
 * send what to whom), smtp_in_client.c (whose a session is), smtp_in_guard.c (what strangers have
 * to bear), smtp_in_listing.c (who is listed), smtp_in_login.c (AUTH), smtp_in_submit.c (the mail
 * of users), smtp_in_request.c (questions to core),
 * smtp_in_etrn.c, smtp_in_odmr.c, smtp_in_carry.c, smtp_in_content.c (content and its way to core),
 * smtp_in_core.c (the ring), smtp_in_tls.c, smtp_in_trace.c, smtp_in_limits.c, and smtp_in_milter.h
 * with the filters.
 *
 * A session costs little while it is idle: this struct, its watch, and its HELO name. Everything
 * else lives from MAIL to the reply (struct transaction) or while input waits.
 */
#ifndef HOLDFAST_SERVICE_SMTP_IN_INTERNAL_H
#define HOLDFAST_SERVICE_SMTP_IN_INTERNAL_H

#include "base/arena.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "proto/auth_results.h"
#include "proto/smtp_server.h"
#include "relay/mailboxes.h"
#include "relay/routing.h"
#include "service/channel.h"
#include "service/smtp_in.h"
#include "service/smtp_in_limits.h"
#include "service/stream.h"

enum {
    SMTP_IN_READ_BYTES = CHANNEL_CHUNK - 4096, /* at once: with our field it fits into one frame */
    SMTP_IN_TRANSACTIONS_KEPT = 64,            /* for reuse */
    SMTP_IN_LINGER_MS = 10000,                 /* for the last reply to leave */
    SMTP_IN_ROUTES_MAX = 65536,
    SMTP_IN_TEXT_MAX = 512, /* of a reply that is made up */
    SMTP_IN_HANDSHAKE_MS = 30000,
    SMTP_IN_REPEAT_MS = 30000, /* so long after core has died its answer is sought */
};

/* A listener lives until its last session has gone, also when a new configuration has no place for
 * it: sessions point to its settings and name. */
struct listener {
    struct link link;
    struct smtp_in *in;
    uint32_t references;
    int fd;
    struct loop_watch *watch;
    struct smtp_server_settings settings;
    struct tls_server *tls; /* NULL: there is none */
    bool is_implicit;       /* TLS before the greeting */
    uint32_t greeting_delay_ms;
    uint32_t greylist_ms;
    struct ip_networks trusted, proxies; /* the listener's own */
    uint32_t dnsbl_score;
    char *hostname;
    char *authserv_id;
    struct slice own_names[2]; /* these two: in Authentication-Results */
    char *name;
    struct ip_endpoint at;
    struct milter_peer *milters[MILTERS_MAX]; /* in their order */
    uint32_t milter_count;
    enum milter_default milter_default;
    bool login_in_clear; /* from loopback */
    bool believes_login; /* that XCLIENT tells */
    bool tells_login;    /* in Authentication-Results */
    enum sender_check sender_check;
};

/* What core has told about a route. */
struct route_state {
    enum error error; /* SPACE: its quota is reached */
    bool head_known;
    bool head_up;
    uint32_t flags;      /* RELAY_CAP_* of its head server */
    uint64_t size_limit; /* 0: none */
    int64_t doubted_ms;  /* when core_sent_on() last told core */
};

struct route_table {
    uint32_t generation;
    uint32_t count;
    struct route_state *states;
};

enum transaction_state {
    TRANSACTION_OPEN,    /* envelope, then content */
    TRANSACTION_WAITING, /* complete, but the ring has no room for it, or core is not ready */
    TRANSACTION_SENT,    /* core has it; the reply waits for CHANNEL_STORED */
};

struct transaction {
    struct session *session; /* NULL: the client has gone while core had it */
    struct link link;        /* in->aborted, or in->kept */
    enum transaction_state state;
    uint64_t token;          /* under which core knows it; 0: it does not */
    int64_t repeat_until_ms; /* a core that has died was given it, and has not answered; 0: none */
    struct arena arena;
    struct slice sender;
    struct slice envelope_id;
    struct slice shown_recipient; /* the first, as the client wrote it */
    struct spool_recipient *recipients;
    uint32_t recipient_count;
    uint32_t recipient_room;
    struct asked_recipient *asked; /* that core was asked about; in the arena */
    struct map known; /* with many recipients: hash of the address to its index plus 1 */
    size_t envelope_bytes;
    uint64_t announced; /* SIZE */
    int8_t priority;    /* RFC 6710 */
    bool has_priority;
    int64_t deliver_by_ms; /* RFC 2852; 0: not given */
    uint64_t head_limit;   /* the largest of the heads' limits, our field included; 0: none */
    bool head_limit_set;
    bool is_smtputf8;
    bool is_utf8_address;     /* one of them needs SMTPUTF8 */
    bool has_content;         /* between DATA and its end */
    bool is_filtered;         /* its content is kept until the filters have spoken */
    bool is_discarded;        /* by a filter: its content is dropped */
    struct scratch_text kept; /* content before `content`, of a filtered one */
    struct slice verdicts;    /* of filters, in words */
    struct slice forwarded;   /* by XFORWARD: whose it was at first */
    const char *failure; /* why it cannot be taken any more; the rest of the content is dropped */
    uint32_t flags;      /* SPOOL_* */
    struct message_id id;
    int64_t received_ms;
    uint64_t trace_bytes;
    uint64_t added_bytes; /* of fields that were missing */
    struct auth_sieve sieve;
    bool has_fields;        /* they have been added */
    struct buffer authored; /* its header, where its From field is to be looked at */
    uint64_t streamed;      /* content bytes already with core */
    struct buffer content;
    size_t accounted; /* of content's capacity, in the shared sum */
    uint64_t bytes;   /* whole content, our field included */
    /* Kept for the commit and the log after the core's content has gone. */
    uint64_t header_length;
    struct slice message_id_header;
    uint64_t bare_newlines;
};

enum request_kind { REQUEST_ETRN, REQUEST_ATRN, REQUEST_RECIPIENT, REQUEST_LISTING };

/* Of the client by DNS; "unknown" is empty. */
struct told_names {
    uint8_t name_length; /* one that leads back to its address */
    uint8_t reverse_length;
    uint8_t bytes[]; /* the name, then the other */
};

struct session {
    struct link link;    /* in->sessions, the one quiet for longest first */
    struct link waiting; /* in->waiting */
    struct smtp_in *in;
    struct listener *listener;
    struct loop_watch *watch;
    struct transaction *transaction;
    char *helo;
    char *forwarded;               /* what XFORWARD said for the next MAIL */
    struct told_names *told_names; /* by XCLIENT; NULL: nobody knows the client's */
    uint8_t *unread;               /* input that waits for us, or a part of a line */
    uint32_t unread_length;
    uint32_t helo_length;
    uint32_t forwarded_length;
    int fd;
    uint8_t interest;
    uint8_t watched; /* what the descriptor is watched for: by TLS it may be another thing */
    bool is_shaking; /* hands: nothing else is said or heard */
    bool is_hurried; /* on in->hurried by `waiting`: TLS has more than the descriptor tells */
    bool is_waiting; /* for room in the ring or for memory */
    bool is_closing;
    bool is_extended;
    bool is_uncounted; /* by client */
    bool is_presented; /* the client is who somebody else says that it is */
    bool awaits_proxy; /* nothing else is said or heard before the PROXY header */
    bool has_told_helo, has_told_protocol; /* by XCLIENT: EHLO does not change them */
    uint8_t admission;                     /* enum smtp_in_admission: of whom it was presented as */
    bool is_allowed;                       /* by a rule of the operator */
    bool is_early;                         /* has spoken before the greeting */
    uint16_t misses;                       /* refused recipients */
    struct held_answer *held;
    struct tls *tls;      /* NULL: in the clear */
    char proxied_tls[16]; /* version of that with the load balancer; empty: none */
    struct ip_endpoint client;
    int64_t touched_ms;
    uint64_t request;                /* token of a request that core is to answer; 0: none */
    enum request_kind asks;          /* and for what */
    struct session_milters *milters; /* NULL: none */
    struct login *login;             /* from the first AUTH on */
    struct carriage *carriage;       /* of a connection with TLS that is turned round, or NULL */
    struct smtp_server server;
};

struct smtp_in {
    struct loop *loop;
    const struct service_config *config;
    struct routing *routing;
    struct access *access;
    struct listed_client *listed; /* what DNS lists said lately */
    struct smtp_in_shared *shared;
    struct counters *counters;
    struct ring *ring;
    struct link listeners; /* in force */
    struct link retired;   /* still used by sessions */
    struct link sessions;
    struct link waiting;      /* sessions */
    struct link hurried;      /* sessions */
    struct session *favoured; /* may go over content_memory, so that somebody always goes on */
    struct link aborted;      /* transactions that core is still to be told to forget */
    struct link kept;         /* transactions for reuse */
    uint32_t kept_count;
    uint32_t session_count;
    uint32_t held_count; /* answers that come late */
    struct map tokens;   /* transactions that core knows */
    struct map requests; /* sessions that wait for an answer of core, by token */
    struct map logins;   /* sessions that wait for an answer to AUTH, by token */
    int login_fd;        /* where it comes from; -1: there is nobody */
    struct loop_watch *login_watch;
    smtp_in_turn_fn *turn;
    void *turn_context;
    struct link milter_peers;
    struct map milter_dials; /* connections that were asked for, by token */
    smtp_in_dial_fn *dial;
    void *dial_context;
    struct scratch *store; /* or NULL */
    struct milter_chunk *chunk;
    uint64_t next_token;
    struct id_maker ids;
    struct hash_key key;
    enum error accepting;
    int64_t time_ahead_ms;          /* a cluster's, of the steady clock; core has told it, */
    bool knows_time;                /* at least once */
    bool core_has_loaded;           /* and can tell what was stored before */
    struct route_table routes;      /* of the configuration in force */
    struct route_table next_routes; /* of one that core has heard of before us */
    uint32_t generation;
    struct loop_timer *patrol;
    struct loop_timer *retry;
    struct loop_later *resume;
    struct loop_later *hurry;
    struct buffer frame;         /* for making frames */
    char text[SMTP_IN_TEXT_MAX]; /* of the answer being given */
    char enhanced[12];           /* likewise */
    bool servers_by_name;
    uint64_t contacted[64]; /* recent contacts: hash of address and second */
    int64_t full_logged_ms;
    uint64_t full_unlogged;
    int64_t refusals_ms; /* the second in which core was told of `refusals` */
    uint32_t refusals;
    void (*broken)(void *context); /* or NULL */
    void *broken_context;
    bool is_stopping;
    struct loop_timer *stop_timer;
    void (*stopped)(void *context);
    void *stopped_context;
    uint8_t scratch[SMTP_IN_READ_BYTES];
};

/* smtp_in.c */
void smtp_in_ended(struct smtp_in *in); /* a session has gone */

/* smtp_in_listener.c */
void listener_unref(struct listener *listener);
/* One for each SMTP listener of the configuration. False: memory. */
bool listeners_make(struct smtp_in *in, const struct service_config *config, const int *descriptors,
                    struct link *ret_list);
void listeners_free(struct link *list);
/* Takes those of `fresh` in force; sessions move to the one that has their listener's name. */
void listeners_replace(struct smtp_in *in, struct link *fresh);
/* Takes connections from now on; unless we are stopping, or a node of a cluster has not been told
 * the cluster's time yet: mail would be accepted by our own clock then. */
void listeners_resume(struct smtp_in *in);
/* What time it is for mail that comes now: a cluster's, whatever our own clock says. */
int64_t smtp_in_wall_ms(const struct smtp_in *in);
/* Takes none until they are resumed. */
void listeners_pause(struct smtp_in *in);

/* smtp_in_session.c */
void session_accept(struct listener *listener, int fd, const struct ip_endpoint *peer);
/* Tries to go on: room, memory or an answer has come. May free the session. */
void session_resume(struct session *session);
/* As if the descriptor had told. May free the session. */
void session_ready(struct session *session);
/* Goes on without new input. False: the session is gone. */
bool session_go_on(struct session *session);
/* Answers the open question and goes on. May free the session. */
void session_answer(struct session *session, enum smtp_server_event_kind kind,
                    const struct smtp_answer *answer);
/* Its client is known: the dialogue begins. May free the session. */
void session_begin(struct session *session);
/* What is wanted of the connection: LOOP_READ, LOOP_WRITE. */
void session_watch(struct session *session, unsigned interest);
/* TLS has input that the descriptor does not tell of: session_ready() comes soon. */
void session_hurry(struct session *session);
/* Keeps `rest`, which is input, for later. False: memory. */
bool session_keep(struct session *session, struct slice rest);
void session_wait(struct session *session);
void session_free(struct session *session);
/* An idle session is told to go. */
void session_dismiss(struct session *session);
/* Frees or ends sessions whose time is over; sets the patrol timer anew. */
void session_patrol(struct smtp_in *in);

/* smtp_in_tls.c */
/* False: memory, or what the reader of the configuration would not have let pass. */
bool listener_take_tls(struct listener *listener, const struct smtp_in_shared *shared,
                       const struct listener_config *from);
/* All three: false: the session is gone. */
bool session_tls_begin(struct session *session);
bool session_tls_go_on(struct session *session);
bool session_tls_expire(struct session *session, int64_t now_ms); /* true: it has taken too long */
/* What Received and the envelope say of it; empty in the clear. */
struct slice session_tls_text(const struct session *session, char room[TLS_TEXT_SIZE]);

/* smtp_in_event.c */
void session_handle(struct session *session, const struct smtp_server_event *event);
/* An answer to the question just asked. */
void session_answer_event(struct session *session, enum smtp_server_event_kind kind,
                          const struct smtp_answer *answer);
void session_log_refused(const struct session *session, const char *stage, struct slice recipient,
                         const struct smtp_answer *answer);
/* Of no session, or logged otherwise; the answer's code is 0 where nothing was said. */
void trace_refused(struct smtp_in *in, const char *stage, const struct ip_address *client,
                   const struct smtp_answer *answer);
/* MAIL, whose transaction has not begun. */
void session_log_refused_sender(const struct session *session, struct slice sender,
                                const struct smtp_answer *answer);

/* smtp_in_client.c */
/* False: memory. */
bool listener_take_peers(struct listener *listener, const struct listener_config *from);
void listener_drop_peers(struct listener *listener);
/* Who is counted in its place when it connects; NULL: nobody. */
const struct ip_address *listener_counts(const struct listener *listener,
                                         const struct ip_address *peer);
bool client_is_trusted(const struct session *session);
/* It has just been made. False: a PROXY header must come first. */
bool client_connected(struct session *session);
void client_left(struct session *session);
/* XFORWARD: kept for the next MAIL. */
struct smtp_answer client_forward(struct session *session, const struct smtp_server_event *event);
/* XCLIENT. */
struct smtp_answer client_present(struct session *session, const struct smtp_server_event *event);
/* Its names as XCLIENT has told them: one that leads back to its address, and the one that the
 * address leads to, which may be forged. Empty: not known. Valid until the next XCLIENT. */
struct slice client_name(const struct session *session);
struct slice client_reverse_name(const struct session *session);
/* What smtp_in_enter() would have led to, had it been known then. */
struct smtp_answer client_admission(const struct session *session);
/* Input has come while it awaits a PROXY header. May begin or free the session. */
void client_take_proxy(struct session *session);
/* True: it has not come in time, and the session is gone. */
bool client_expire(struct session *session, int64_t now_ms);
struct smtp_answer admission_answer(enum smtp_in_admission admission);

/* smtp_in_envelope.c */
struct smtp_answer envelope_mail(struct session *session, const struct smtp_server_event *event);
/* True: *ret_answer is the reply; false: it comes later. */
bool envelope_recipient(struct session *session, const struct smtp_server_event *event,
                        struct smtp_answer *ret_answer);
/* Core's answer, with which the session goes on; it may be gone then. */
void envelope_recipient_known(struct session *session, enum mailbox_answer outcome);
/* Core does not answer. Likewise. */
void envelope_recipient_give_up(struct session *session);
unsigned envelope_offers(const struct session *session); /* SMTP_OFFER_* */
/* What filters want. The address is the server's own word: no rule of relaying is asked. */
bool envelope_has_route(const struct session *session, const struct smtp_mailbox *mailbox);
/* False: memory. One that is there already is no second one. */
bool envelope_add_recipient(struct session *session, const struct smtp_mailbox *mailbox);
/* False: it is the only one, and stays. */
bool envelope_drop_recipient(struct session *session, struct slice address);
/* Those after the first `count` are none after all. */
void envelope_forget_recipients(struct session *session, uint32_t count);

/* smtp_in_listing.c */
/* True: *ret_answer is the greeting's, if it is not left alone; false: it comes later. */
bool listing_check(struct session *session, struct smtp_answer *ret_answer);
bool listing_take(struct smtp_in *in, struct reader *reader);
void listing_give_up(struct session *session); /* core does not answer */

/* smtp_in_guard.c */
bool guard_spares(const struct session *session); /* it is no stranger */
struct smtp_answer guard_connect(struct session *session);
struct smtp_answer guard_mail(struct session *session, struct slice sender);
struct smtp_answer guard_recipient(struct session *session);
/* Of one that would be taken. */
struct smtp_answer guard_only_when_down(const struct session *session, uint32_t route);
struct smtp_answer guard_greylist(struct session *session, struct slice recipient);
/* What is said instead, of a recipient that was refused. */
struct smtp_answer guard_missed(struct session *session, struct smtp_answer answer);
/* True: the answer is given later, by itself. */
bool guard_holds(struct session *session, enum smtp_server_event_kind kind,
                 const struct smtp_answer *answer);
/* It waits for the greeting; nothing should come before that, */
bool guard_listens(const struct session *session);
void guard_talked(struct session *session);              /* but it has, */
struct smtp_answer guard_early(struct session *session); /* which is answered so. */
void guard_forget(struct session *session);

/* smtp_in_request.c */
/* A question to core about this session's client; the rest of its frame is appended. */
struct buffer *request_begin(struct session *session, enum channel_frame type, uint64_t *ret_token);
/* False: it cannot be asked now. */
bool request_send(struct session *session, enum request_kind kind, uint64_t token);
/* Who waits for the answer with this token. NULL: the client has gone. False: the answer is to
 * another question. */
bool request_find(const struct smtp_in *in, uint64_t token, enum request_kind kind,
                  struct session **ret_session);
void request_forget(struct session *session); /* nobody waits for the answer any more */
/* True: the answer has taken too long, and it was given up; the session may be gone. */
bool request_expire(struct session *session, int64_t now_ms);
void request_core_gone(struct smtp_in *in);

/* smtp_in_etrn.c */
/* True: *ret_answer is the reply; false: it comes later. */
bool etrn_ask(struct session *session, const struct smtp_server_event *event,
              struct smtp_answer *ret_answer);
bool etrn_take(struct smtp_in *in, struct reader *reader);
void etrn_give_up(struct session *session); /* core does not answer; the session may be gone */

/* smtp_in_odmr.c */
/* As etrn_ask(), which it shares the token with. */
bool odmr_atrn(struct session *session, const struct smtp_server_event *event,
               struct smtp_answer *ret_answer);
bool odmr_take(struct smtp_in *in, struct reader *reader);
void odmr_give_up(struct session *session); /* core does not answer; the session may be gone */

/* smtp_in_carry.c */
/* The other end of a pair for the sending process; the caller's. False: it cannot be had. */
bool carry_prepare(struct session *session, int *ret_theirs);
/* The reply has left: from now on the session carries bytes. Both: false: the session is gone. */
bool carry_begin(struct session *session);
bool carry_go_on(struct session *session);
bool carry_is_on(const struct session *session);
/* True: it is on, and its time was looked at; the session may be gone. */
bool carry_expire(struct session *session, int64_t now_ms);
void carry_free(struct session *session); /* if there is one */

/* smtp_in_login.c */
/* True: *ret_answer is the reply to AUTH or to a response; false: it comes later. */
bool login_take(struct session *session, const struct smtp_server_event *event,
                struct smtp_answer *ret_answer);
void login_forget(struct session *session); /* who has logged in */
void login_let(struct session *session);    /* without TLS, if it is a client that may */
/* True: the answer has taken too long, and it was given up; the session may be gone. */
bool login_expire(struct session *session, int64_t now_ms);
struct slice login_user(const struct session *session);     /* empty: nobody has logged in */
struct slice login_identity(const struct session *session); /* however he wrote his name */
const char *login_mechanism(const struct session *session); /* by which; "": nobody has */
/* Whose mail he may fetch, by a listener with protocol = odmr. */
uint32_t login_domains(const struct session *session, const struct slice **ret_domains);
/* Who has logged in may send as this address. */
bool login_owns(const struct session *session, struct slice address);
/* Somebody who is trusted says that he has logged in by this name. False: memory. */
bool login_present(struct session *session, struct slice name);
unsigned login_mechanisms(const struct listener_config *listener); /* 1 << enum sasl_mechanism */

/* smtp_in_submit.c */
/* The mail of who has logged in; of others all is accepted. */
struct smtp_answer submit_mail(const struct session *session, struct slice sender);
struct smtp_answer submit_recipient(const struct session *session);
/* Where in `bytes`, the last that `content` has given out, fields may be added behind the header's
 * last; bytes.length: not in these. */
size_t submit_header_end(const struct transaction *transaction, const struct smtp_content *content,
                         struct slice bytes);
/* Keeps bytes of the header if its authors are to be looked at. */
void submit_look(struct transaction *transaction, struct slice bytes);
/* What is to be said of who the content says it is from, when all of it is there. */
struct smtp_answer submit_authors(struct transaction *transaction,
                                  const struct smtp_content *content);
/* Adds what is missing to the transaction's content, once. */
void submit_header(struct transaction *transaction, const struct smtp_content *content);

/* smtp_in_content.c */
struct transaction *transaction_new(struct session *session);
/* Core is told to forget it if it knows of it. NULL is allowed. */
void transaction_free(struct transaction *transaction);
/* Frees memory only: core does not know it (any more). */
void transaction_release(struct smtp_in *in, struct transaction *transaction);
/* Gives it a token by which core knows it. False: memory. */
bool transaction_name(struct smtp_in *in, struct transaction *transaction);
struct smtp_answer content_begin(struct session *session);
/* Octets of our Received field, at most: of a message for `recipient`, unless it has others. */
uint64_t content_trace_length(const struct session *session, struct slice recipient);
/* False: not now; `unread` bytes of content cannot be taken for want of ring or memory. */
bool content_has_room(struct session *session, size_t unread);
void content_add(struct transaction *transaction, struct smtp_in *in, struct slice bytes);
/* Under pressure what has come is sent on at once. */
void content_relieve(struct session *session);
/* All has come. True: *ret_answer is the reply; false: it comes later. */
bool content_end(struct session *session, const struct smtp_content *content,
                 struct smtp_answer *ret_answer);
/* A waiting transaction once more; as content_end(). */
bool content_commit(struct smtp_in *in, struct transaction *transaction,
                    struct smtp_answer *ret_answer);

struct auth_names content_own_names(const struct session *session);

/* The Received field. */
void content_put_trace(const struct session *session, struct buffer *ret_field);
/* What has come of a filtered message and is in memory; the caller's from now on. */
struct buffer content_take(struct smtp_in *in, struct transaction *transaction);
/* Moves what is in `content` behind `kept`, in the store. */
enum error content_keep(struct smtp_in *in, struct scratch_text *kept, struct buffer *content);

/* smtp_in_milter.c */
bool listener_take_milters(struct listener *listener, const struct service_config *config,
                           const struct listener_config *from); /* false: memory */
void listener_drop_milters(struct listener *listener);
/* Lets the filters look at a step that our own rules let pass. True: the answer comes later, by
 * itself; false: *answer is it. */
bool milters_hold(struct session *session, const struct smtp_server_event *event,
                  struct smtp_answer *answer);
/* All has come of a filtered message. As content_end(). */
bool milters_content(struct session *session, struct smtp_answer *ret_answer);
/* There is room in the ring for more of a message that they have passed; likewise. */
bool milters_go_on_sending(struct session *session, struct smtp_answer *ret_answer);
void milters_message_over(struct session *session);
/* The client is another one than they have been told. Outside a message. */
void milters_meet_again(struct session *session);
void milters_free(struct session *session);

/* smtp_in_core.c */
/* A filter is away, or back. */
void core_send_milter(struct smtp_in *in, struct slice name, bool is_away, struct slice why);
void core_ring_ready(void *context);
/* Content that core should keep. ERROR_AGAIN: no room now. */
enum error core_send_append(struct smtp_in *in, struct transaction *transaction);
void core_send_abort(struct smtp_in *in, struct transaction *transaction);
void core_send_aborts(struct smtp_in *in); /* those that found no room */
void core_contact(struct smtp_in *in, const struct ip_address *client);
/* For `trace`; of a flood, not each. */
void core_send_refused(struct smtp_in *in, struct channel_refusal *refusal);
/* A stranger was sent to the head of this route's chain. */
void core_sent_on(struct smtp_in *in, uint32_t route);
/* A configured server's, as far as that is known without asking DNS. */
bool core_is_server_address(const struct smtp_in *in, const struct ip_address *client);
void core_forget(struct smtp_in *in); /* the ring has gone */
const struct route_state *core_route(const struct smtp_in *in, uint32_t route);
bool route_table_set_count(struct route_table *table, uint32_t count);
/* The one mapping of the world's errors to replies. */
struct smtp_answer core_error_answer(enum error error);

#endif
