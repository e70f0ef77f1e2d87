/* SPDX-License-Identifier: Apache-2.0
 *
 * The server's side of SMTP (RFC 5321) as a sans-IO core: bytes and time in, events and bytes out.
 * It owns no socket, clock or log, and knows no route, limit of memory or storage.
 *
 * Offered: PIPELINING, SIZE (RFC 1870), 8BITMIME (6152), SMTPUTF8 (6531), ENHANCEDSTATUSCODES
 * (2034), ETRN (1985), CHUNKING (3030, without BINARYMIME), LIMITS (9422), where a listener
 * has it STARTTLS (3207), and where the caller
 * says so DSN (3461), DELIVERBY (2852, without a least time), MT-PRIORITY (6710), REQUIRETLS
 * (8689), and AUTH (4954)
 * on a connection that is secure, and XCLIENT (xclient.h) where it is trusted. Or, with `odmr`, the
 * provider's side of on-demand mail relay (2645): AUTH, STARTTLS and ATRN, and no mail. The caller:
 *
 *   smtp_server_input()    hands over all bytes that wait to be read
 *   smtp_server_next()     takes events until there is none, answering those that ask for it with
 *                          smtp_server_answer(), at once or later; until then input waits unread
 *   smtp_server_unread()   what was not used: to be kept, and handed over in front of new bytes
 *   smtp_server_output()   what is to be sent; smtp_server_sent() when it has been
 *   smtp_server_deadline() when smtp_server_expire() is due
 *   smtp_server_secured()  when, after STARTTLS, the output has left and hands are shaken
 *
 * Unread input is at most a command line while more input is wanted, so it is bounded by the
 * caller's own pause in reading while smtp_server_wants_input() is false. Content is never left
 * unread. A session that waits for a command holds no memory beyond this struct.
 *
 * Every reply is in the order of the commands. Nothing in a session's input can make it assert.
 */
#ifndef HOLDFAST_PROTO_SMTP_SERVER_H
#define HOLDFAST_PROTO_SMTP_SERVER_H

#include "base/buffer.h"
#include "proto/sasl.h"
#include "proto/smtp_address.h"
#include "proto/smtp_content.h"

/* Shared by all sessions of a listener; must outlive them, may change between two calls. Each is
 * a bound on what a stranger can make us do. */
struct smtp_server_settings {
    struct slice hostname;
    uint64_t message_bytes; /* offered as SIZE; 0: none */
    uint32_t recipients;    /* accepted ones of one message */
    uint32_t commands;      /* in a row without an accepted message */
    uint32_t errors;        /* broken commands in one session */
    uint32_t line_bytes;    /* of content */
    uint32_t header_bytes;
    uint32_t hops;
    uint32_t command_timeout_ms;
    uint32_t session_timeout_ms;
    bool reject_bare_newline;
    bool odmr;
    bool submission; /* RFC 6409: no mail without a login, no ETRN */
    bool starttls;
    /* Bits 1 << enum sasl_mechanism of AUTH; 0: there is none. Where somebody may read along only
     * those of the second are let. */
    unsigned mechanisms, clear_mechanisms;
};

enum { SMTP_COMMAND_LINE_MAX = 2048 }; /* with all parameters; RFC 5321 section 4.5.3.1.4 */

enum smtp_server_event_kind {
    SMTP_SERVER_NONE,
    /* To be answered. */
    SMTP_SERVER_GREETING,  /* first of all. Refusal (421, 554) ends the session */
    SMTP_SERVER_HELLO,     /* EHLO or HELO: name, is_extended. smtp_server_offer() before */
    SMTP_SERVER_MAIL,      /* mailbox, size, is_8bit, is_smtputf8, ret, envelope_id, deliver_by,
                              priority, requires_tls; is_forwarded: XFORWARD has been said */
    SMTP_SERVER_RECIPIENT, /* mailbox, notify, orcpt */
    SMTP_SERVER_DATA,      /* content is about to come (DATA, or the first BDAT). Refusal ends the
                              transaction */
    SMTP_SERVER_END,  /* all content has come: `content` tells about it. The answer is that to the
                         dot and ends the transaction */
    SMTP_SERVER_ETRN, /* name, with_subdomains: hand over what waits for it. Outside a transaction.
                         Answers: 250 to 253, 458, 459 */
    SMTP_SERVER_AUTH, /* mechanism, and has_response with bytes: the initial response, in base64 as
                         a client wrote it. Answers: 235; 334
                         with a challenge in base64 as text; 454; 501 or 535, a mistake */
    SMTP_SERVER_RESPONSE, /* bytes: what came back, likewise. Answers: as to SMTP_SERVER_AUTH */
    SMTP_SERVER_STARTTLS, /* Answers: 220, after which no more is read until smtp_server_secured();
                             454. Nothing had come behind the command */
    SMTP_SERVER_ATRN,     /* name: the domains as the client wrote them, valid and joined by commas;
                             empty: all that are his. He is logged in. Answers: 250, after which no more
                             is read and the caller has the connection (not if anything has come behind
                             the command, smtp_server_unread() or what has not been handed over: it
                             would be taken for words of the server that he becomes); 450, 451, 453,
                             503 */
    SMTP_SERVER_XCLIENT,  /* bytes: parameters, valid (xclient_read()). If accepted, all that was
                             said is forgotten, and SMTP_SERVER_GREETING follows */
    SMTP_SERVER_XFORWARD, /* bytes: parameters, valid (xclient_read()), of the next MAIL;
                             is_forwarded: with those of the XFORWARD before */
    /* Not to be answered. */
    SMTP_SERVER_CONTENT, /* bytes */
    SMTP_SERVER_ABORT,   /* the transaction that MAIL began has ended, not by an answer: `reason` */
    SMTP_SERVER_CLOSE,   /* nothing more will come: send the output, then close */
};

enum smtp_server_ret { SMTP_RET_NONE, SMTP_RET_FULL, SMTP_RET_HEADERS };
enum {
    SMTP_NOTIFY_NEVER = 1,
    SMTP_NOTIFY_SUCCESS = 2,
    SMTP_NOTIFY_FAILURE = 4,
    SMTP_NOTIFY_DELAY = 8
};

/* RFC 2852 section 3. */
struct smtp_deliver_by {
    char mode;      /* 'R', 'N'; 0: not given */
    bool is_traced; /* T */
    int32_t in_s;   /* mode R: more than 0 */
};

/* Extensions that not every client is offered. */
enum {
    SMTP_OFFER_DSN = 1,
    SMTP_OFFER_DELIVERBY = 2,
    SMTP_OFFER_PRIORITY = 4,
    SMTP_OFFER_REQUIRETLS = 8, /* by TLS only (RFC 8689 section 2) */
};

/* Slices are valid until the next smtp_server_input(), `content` until the answer. */
struct smtp_server_event {
    enum smtp_server_event_kind kind;
    struct slice name;
    bool is_extended;
    bool with_subdomains;
    struct smtp_mailbox mailbox;
    struct slice parameters; /* of MAIL and RCPT, as the client wrote them */
    uint64_t size;           /* SIZE parameter; 0: not given */
    bool is_8bit;
    bool is_smtputf8;
    enum smtp_server_ret ret;
    struct slice envelope_id;
    struct smtp_deliver_by deliver_by;
    int8_t priority;   /* RFC 6710: -9 to 9 */
    bool has_priority; /* given, 0 perhaps */
    bool requires_tls; /* RFC 8689 */
    bool is_forwarded;
    uint8_t notify; /* 0: not given */
    struct slice orcpt;
    enum sasl_mechanism mechanism;
    bool has_response;
    struct slice bytes;
    const struct smtp_content *content;
    const char *reason; /* a few words for the log, static */
};

/* code 0 or 2xx accepts; then an empty text stands for the usual one. Bytes that may not stand in
 * a reply are replaced, over-long text is cut. 421 ends the session. */
struct smtp_answer {
    uint16_t code;
    const char *enhanced; /* "5.7.1"; NULL: none */
    struct slice text;
};
#define SMTP_ACCEPT ((struct smtp_answer){0, NULL, {NULL, 0}})

/* To be embedded by the caller; its members are the core's own. */
struct smtp_server {
    const struct smtp_server_settings *settings;
    struct smtp_content *content; /* from DATA to the answer at its end */
    struct slice input;
    struct buffer output;
    uint64_t chunk_left; /* bytes of the current BDAT chunk still to come */
    uint64_t chunk_size;
    int64_t start_ms;
    int64_t since_ms; /* when we began to wait for what we wait for */
    int64_t now_ms;
    uint32_t recipients;
    uint32_t commands;
    uint32_t errors;
    uint32_t bare_commands; /* ended by a bare LF */
    uint8_t step;
    uint8_t asked; /* the event kind that waits for an answer */
    bool starved;  /* the step cannot go on without more input */
    bool has_hello;
    bool is_extended;
    bool has_mail;
    bool mail_refused; /* what was pipelined behind it is no mistake */
    bool is_chunked;
    bool is_last_chunk;
    uint8_t offers; /* SMTP_OFFER_* */
    bool is_smtputf8;
    bool is_secure;
    bool is_trusted;
    bool may_log_in; /* although it is not secure */
    bool has_login;
    bool has_told_login; /* by XCLIENT */
    bool has_forward;
};

void smtp_server_init(struct smtp_server *server, const struct smtp_server_settings *settings,
                      int64_t now_ms);
void smtp_server_done(struct smtp_server *server);
/* Other settings from now on. */
void smtp_server_set_settings(struct smtp_server *server,
                              const struct smtp_server_settings *settings);

void smtp_server_input(struct smtp_server *server, struct slice bytes, int64_t now_ms);
/* False (and kind NONE): nothing now. */
bool smtp_server_next(struct smtp_server *server, struct smtp_server_event *ret_event);
void smtp_server_answer(struct smtp_server *server, const struct smtp_answer *answer,
                        int64_t now_ms);
/* What EHLO offers of SMTP_OFFER_*, and whose parameters are known, from now on. */
void smtp_server_offer(struct smtp_server *server, unsigned extensions);
/* After STARTTLS: the output is to leave in the clear, and then TLS begins. */
bool smtp_server_wants_handshake(const struct smtp_server *server);
/* It has begun: what was said before is forgotten (RFC 3207 section 4.2), and the connection is
 * secure. */
void smtp_server_secured(struct smtp_server *server, int64_t now_ms);
/* Nobody reads along, so that a client may log in. */
void smtp_server_set_secure(struct smtp_server *server, bool is_secure);
/* XCLIENT and XFORWARD are offered from now on, or not. */
void smtp_server_set_trusted(struct smtp_server *server, bool is_trusted);
/* Before the answer to XCLIENT: the client that it names has logged in, or not. */
void smtp_server_tell_login(struct smtp_server *server, bool has_login);
/* The client may log in although somebody may: it is on this machine. */
void smtp_server_let_log_in(struct smtp_server *server, bool may);
struct slice smtp_server_unread(const struct smtp_server *server);
/* More input would bring it on: no answer is awaited and output does not pile up. */
bool smtp_server_wants_input(const struct smtp_server *server);

struct slice smtp_server_output(const struct smtp_server *server);
void smtp_server_sent(struct smtp_server *server, size_t count);

/* INT64_MAX: it waits for us, not for the client. */
int64_t smtp_server_deadline(const struct smtp_server *server);
/* The deadline has passed: 421 4.4.2 and the end. */
void smtp_server_expire(struct smtp_server *server);
/* Ends the session with this reply (a 421), in the middle of whatever it is. Not while an answer is
 * awaited: then the answer itself can be the 421. */
void smtp_server_end(struct smtp_server *server, const struct smtp_answer *answer);
/* It waits for a command outside a transaction, with nothing half read. */
bool smtp_server_is_idle(const struct smtp_server *server);
/* An answer is awaited. */
bool smtp_server_is_asked(const struct smtp_server *server);

#endif
