/* SPDX-License-Identifier: Apache-2.0
 *
 * The client's side of one SMTP (RFC 5321) or LMTP (RFC 2033) connection, without socket, clock,
 * file or log. Feed it what arrives, take its events, answer them, send its output, and call it
 * when its deadline has passed. Time is an argument: steady ms.
 *
 * Two transactions may be queued. With PIPELINING the envelope of the second goes out behind the
 * final dot of the first. A transaction's dot is never sent before smtp_client_go() for it, so the
 * caller can note the attempt, and wait for the durable result of the one before, while envelope
 * and content are already under way.
 *
 * Extensions used where offered: PIPELINING, CHUNKING (RFC 3030, for large contents), SIZE,
 * 8BITMIME, SMTPUTF8, DSN (RFC 3461), DELIVERBY (RFC 2852), MT-PRIORITY (RFC 6710), LIMITS (RFC
 * 9422); STARTTLS (RFC 3207) as the settings say; REQUIRETLS (RFC 8689) for mail that demands it,
 * and which goes to nobody else; AUTH (RFC 4954) where credentials are given, and then nothing
 * without it; XCLIENT and XFORWARD where allowed. Content goes out as it is, with dots stuffed and
 * a last CRLF added if it lacks one (DATA only); a bare CR or LF in it is refused here (R10), as is
 * a CR, LF, NUL or other control character in an envelope string.
 *
 * The strings of a mail, its origin and its array of recipients are borrowed until the result of
 * the transaction, or the end of the client.
 */
#ifndef HOLDFAST_PROTO_SMTP_CLIENT_H
#define HOLDFAST_PROTO_SMTP_CLIENT_H

#include "base/error.h"
#include "base/slice.h"
#include "proto/sasl.h"
#include "proto/xclient.h"

struct smtp_client;

enum {
    /* A content up to this size waits for smtp_client_go() and leaves in one piece with its dot;
     * a larger one is sent but for its dot meanwhile. Also the most a piece may have. */
    SMTP_CLIENT_PIECE_MAX = 64 << 10,
    SMTP_CLIENT_HELO_MAX = 255,
};

/* RFC 4954. Copied, and wiped after use. At most SASL_SECRET_MAX bytes each. */
struct smtp_client_credentials {
    struct slice user; /* empty: there is no logging in */
    struct slice password;
    bool in_clear; /* mechanisms that show the password may be used without TLS, too */
    uint8_t nonce[SASL_NONCE_BYTES]; /* random, new for each connection */
};

/* RFC 3207, RFC 8314. The handshake is the caller's: SMTP_CLIENT_HANDSHAKE. */
enum smtp_client_tls {
    SMTP_CLIENT_TLS_NEVER,
    SMTP_CLIENT_TLS_IF_OFFERED,
    SMTP_CLIENT_TLS_DEMANDED, /* a server that does not offer STARTTLS ends the session */
    SMTP_CLIENT_TLS_FIRST,    /* before the greeting */
};

struct smtp_client_settings {
    struct slice
        helo; /* our name; copied; at most SMTP_CLIENT_HELO_MAX bytes, no blank or control */
    bool lmtp;
    bool tells_origin; /* XCLIENT and XFORWARD are used where they are offered */
    bool is_proxied;   /* a PROXY header has told whose all mail of the connection is: */
    const struct xclient *proxied_for; /* by address and port; NULL: ours. Copied */
    uint32_t greeting_timeout_ms; /* for the greeting, the reply to EHLO, HELO, LHLO, AUTH each */
    /* 0: RFC 5321's (4.5.3.2), 5 and 10 minutes. The first is for the replies to MAIL and RCPT, and
     * a bound on the 2 minutes of DATA's and the 3 of a block. */
    uint32_t command_timeout_ms, dot_timeout_ms;
    enum smtp_client_tls tls;
    bool tls_failed; /* over a connection before this one: what requires it is put off */
    struct smtp_client_credentials credentials;
};

/* ---- what is to be sent ------------------------------------------------------------------ */

/* RFC 3461 NOTIFY; 0: not given. */
enum {
    SMTP_CLIENT_NOTIFY_NEVER = 1,
    SMTP_CLIENT_NOTIFY_SUCCESS = 2,
    SMTP_CLIENT_NOTIFY_FAILURE = 4,
    SMTP_CLIENT_NOTIFY_DELAY = 8,
};

enum smtp_client_return {
    SMTP_CLIENT_RETURN_UNSET,
    SMTP_CLIENT_RETURN_FULL,
    SMTP_CLIENT_RETURN_HEADERS
};

struct smtp_client_recipient {
    struct slice address; /* without <> */
    struct slice orcpt;   /* RFC 3461 "type;xtext", or empty */
    uint8_t notify;
};

struct smtp_client_mail {
    uint64_t tag;        /* the caller's name for it */
    struct slice sender; /* without <>; empty: null reverse-path */
    bool eight_bit;
    bool utf8; /* envelope or header need SMTPUTF8 */
    enum smtp_client_return return_content;
    struct slice envelope_id; /* RFC 3461 ENVID, xtext, or empty */
    uint64_t size;            /* octets of content */
    bool envelope_only;    /* it is taken back with RSET behind the last reply to RCPT, and needs no
                              smtp_client_go(); its content is never asked for */
    bool requires_tls;     /* RFC 8689 4.2.1 */
    int8_t priority;       /* RFC 6710 */
    char by_mode;          /* RFC 2852: 'R', 'N'; 0: not given */
    bool by_trace;         /* T */
    int64_t deliver_by_ms; /* steady; what is left of it is said */
    const struct xclient *origin; /* whose it is; NULL: ours */
    const struct smtp_client_recipient *recipients;
    uint32_t recipient_count; /* at least 1 */
};

/* ---- what has happened ------------------------------------------------------------------- */

enum smtp_client_stage {
    SMTP_CLIENT_AT_GREETING,
    SMTP_CLIENT_AT_HELLO,
    SMTP_CLIENT_AT_TLS,  /* STARTTLS, its handshake, or that before the greeting */
    SMTP_CLIENT_AT_AUTH, /* also what we decline: 534 5.7.9, 535 5.7.8 */
    SMTP_CLIENT_AT_MAIL,
    SMTP_CLIENT_AT_RECIPIENT,
    SMTP_CLIENT_AT_DATA,
    SMTP_CLIENT_AT_CONTENT, /* after 354, before the dot has left whole */
    SMTP_CLIENT_AT_DOT,
    SMTP_CLIENT_AT_IDLE, /* between transactions */
};

enum smtp_client_how {
    SMTP_CLIENT_REPLY,   /* the server said it: code, enhanced, text */
    SMTP_CLIENT_LOST,    /* connection lost, or the server broke the protocol: text says how */
    SMTP_CLIENT_TIMEOUT, /* no answer, or no progress in sending, in time */
    SMTP_CLIENT_LOCAL,   /* our side: closed by us, memory, content unreadable; or not to be said */
    SMTP_CLIENT_DECLINED /* we refuse the server: the code is what it could have said, the text is
                            ours */
};

struct smtp_client_cause {
    enum smtp_client_stage stage;
    enum smtp_client_how how;
    uint16_t code;
    uint8_t enhanced[3];
    struct slice text; /* one line for people, at most 512 bytes, UTF-8 */
};

enum smtp_client_verdict {
    SMTP_CLIENT_ACCEPTED,  /* 2xx to the dot; LMTP: to this recipient's; envelope_only: to RCPT, and
                              its stage is that */
    SMTP_CLIENT_REFUSED,   /* 4xx or 5xx; also 421 anywhere while the transaction was under way.
                              With how LOCAL what cannot be said to this server, as 553 5.6.7,
                              553 5.1.3 or 553 5.1.7, what is not to be, as 550 5.7.30, 550 5.7.10
                              or 450 4.7.10, or without a code content not to be sent */
    SMTP_CLIENT_NOT_TRIED, /* its turn did not come: the session ended before, or the server takes
                              no more recipients in this transaction (RCPTMAX; 452, 552) */
    SMTP_CLIENT_CUT,       /* lost, timed out or given up within it before the dot had left whole */
    SMTP_CLIENT_IN_DOUBT,  /* the dot has left, no reply to it has come */
};

struct smtp_client_outcome {
    enum smtp_client_verdict verdict;
    struct smtp_client_cause cause;
};

enum {
    SMTP_CLIENT_CAP_8BITMIME = 1,
    SMTP_CLIENT_CAP_SMTPUTF8 = 2,
    SMTP_CLIENT_CAP_DSN = 4,
    SMTP_CLIENT_CAP_PIPELINING = 8,
    SMTP_CLIENT_CAP_CHUNKING = 16,
    SMTP_CLIENT_CAP_SIZE = 32,
    SMTP_CLIENT_CAP_STARTTLS = 64,
    SMTP_CLIENT_CAP_DELIVERBY = 128,
    SMTP_CLIENT_CAP_PRIORITY = 256,
    SMTP_CLIENT_CAP_REQUIRETLS = 512,
};

struct smtp_client_capabilities {
    uint32_t flags;
    uint64_t size_limit;        /* 0: none given */
    uint32_t recipients_max;    /* 0: none given */
    uint32_t mails_max;         /* 0: none given */
    uint32_t deliver_by_min_s;  /* RFC 2852 min-by-time; 0: none given */
    unsigned xclient, xforward; /* attributes that may be given */
};

enum smtp_client_event_kind {
    SMTP_CLIENT_HANDSHAKE, /* nothing more may be read or sent in the clear: shake hands, then
                              smtp_client_secured(); smtp_client_lost() if that fails */
    SMTP_CLIENT_OPENED,    /* greeted; once */
    SMTP_CLIENT_STARTED,   /* MAIL of `tag` is on its way: the time to note the attempt */
    SMTP_CLIENT_CONTENT,   /* wants the next piece of `tag`'s content from `offset`: answer with
                              smtp_client_content() or smtp_client_content_failed() */
    SMTP_CLIENT_RESULT, /* `tag` is over: outcomes, one per recipient in their order. All is valid
                           until the next call of smtp_client_next() or smtp_client_mail() */
    SMTP_CLIENT_CLOSED, /* the last event, after the result of every transaction: `cause` says
                           why. Close the connection */
};

struct smtp_client_event {
    enum smtp_client_event_kind kind;
    uint64_t tag;
    uint64_t offset;
    bool reused;    /* RESULT: the session had carried an earlier transaction */
    bool elsewhere; /* RESULT: nothing was said of it, since the connection stands for somebody
                       else, and ends: over a fresh one it can go at once. CLOSED: that is why */
    const struct smtp_client_outcome *outcomes;
    uint32_t outcome_count;
    struct smtp_client_cause cause;
    struct smtp_client_capabilities capabilities; /* OPENED */
};

/* ---- the verbs --------------------------------------------------------------------------- */

/* The connection has just been made. NULL: memory, or a helo that cannot be sent. */
struct smtp_client *smtp_client_new(const struct smtp_client_settings *settings, int64_t now_ms);
void smtp_client_free(struct smtp_client *client); /* NULL is allowed */

/* Bytes have arrived; all are taken. */
void smtp_client_input(struct smtp_client *client, struct slice bytes, int64_t now_ms);
/* The handshake asked for is done; what is input and output from now on goes through it. What was
 * said before it is forgotten (RFC 3207 4.2). `is_proved`: the server is who it should be, and who
 * that is nobody could have forged (RFC 8689 4.2.1, steps 2 and 4). */
void smtp_client_secured(struct smtp_client *client, bool is_proved, int64_t now_ms);
/* The connection has ended or failed. `text` may be empty. */
void smtp_client_lost(struct smtp_client *client, struct slice text, int64_t now_ms);
/* The next event; false: none. Call until false after each of the other verbs. */
bool smtp_client_next(struct smtp_client *client, struct smtp_client_event *ret_event);

/* ERROR_AGAIN: two are queued, or closing. ERROR_MEMORY: not taken. */
enum error smtp_client_mail(struct smtp_client *client, const struct smtp_client_mail *mail,
                            int64_t now_ms) MUST_CHECK;
/* Answers CONTENT: at most SMTP_CLIENT_PIECE_MAX bytes, never empty; copied. The content ends with
 * the octet that `size` promised. */
void smtp_client_content(struct smtp_client *client, struct slice piece, int64_t now_ms);
/* Answers CONTENT: it cannot be read. The session ends, the dot is not sent. */
void smtp_client_content_failed(struct smtp_client *client, struct slice text);
/* The dot of `tag` may be sent. Unknown tags are ignored. */
void smtp_client_go(struct smtp_client *client, uint64_t tag, int64_t now_ms);
/* QUIT when the transactions queued are over. */
void smtp_client_quit(struct smtp_client *client, int64_t now_ms);
/* Ends at once; dots that have left are in doubt. */
void smtp_client_abort(struct smtp_client *client, struct slice text);

/* What is to be sent now; valid until the next call. Empty: nothing. */
struct slice smtp_client_output(struct smtp_client *client);
/* The first `count` bytes of it have been sent. */
void smtp_client_sent(struct smtp_client *client, size_t count, int64_t now_ms);

/* Steady ms at which smtp_client_tick() is due; INT64_MAX: never. */
int64_t smtp_client_deadline(const struct smtp_client *client);
void smtp_client_tick(struct smtp_client *client, int64_t now_ms);

/* The dot of `tag` has left whole. */
bool smtp_client_dot_sent(const struct smtp_client *client, uint64_t tag);

#endif
