/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the SMTP client share; nobody else includes it.
 *
 *   smtp_client.c          life cycle, verbs, events, deadlines
 *   smtp_client_hello.c    greeting, EHLO, HELO, LHLO, capabilities
 *   smtp_client_auth.c     logging in
 *   smtp_client_origin.c   whose mail it is
 *   smtp_client_send.c     the sending cursor: which command leaves when
 *   smtp_client_envelope.c MAIL and RCPT as text, and what cannot be sent
 *   smtp_client_content.c  content, dots, chunks
 *   smtp_client_answer.c   the answering cursor: what each reply means
 *   smtp_client_end.c      outcomes when a session ends
 */
#ifndef HOLDFAST_PROTO_SMTP_CLIENT_INTERNAL_H
#define HOLDFAST_PROTO_SMTP_CLIENT_INTERNAL_H

#include "base/arena.h"
#include "base/buffer.h"
#include "base/digest.h"
#include "proto/smtp_client.h"
#include "proto/smtp_reply.h"

enum session_step {
    SESSION_GREETING,
    SESSION_EHLO, /* LHLO with LMTP */
    SESSION_HELO,
    SESSION_STARTTLS,
    SESSION_TLS, /* the caller shakes hands */
    SESSION_AUTH,
    SESSION_XCLIENT_RESET, /* RSET in front of it */
    SESSION_XCLIENT,
    SESSION_OPEN,
    SESSION_QUIT,
    SESSION_CLOSED,
};

/* A transaction has two cursors over these steps: what to send next, and what the next reply
 * answers. They are equal where no reply is awaited. */
enum step {
    STEP_ORIGIN,  /* XCLIENT, which is a dialogue of the session's (smtp_client_origin.c) */
    STEP_RESET,   /* skipped when nothing is to be undone */
    STEP_FORWARD, /* XFORWARD, if that is to be said */
    STEP_MAIL,
    STEP_RECIPIENT,
    STEP_DATA,      /* skipped with CHUNKING */
    STEP_CONTENT,   /* sending: pieces; answering: chunks, with CHUNKING */
    STEP_DOT,       /* the final dot or the LAST chunk; LMTP: a reply per accepted recipient */
    STEP_EMPTY_DOT, /* 354 although no recipient was accepted */
    STEP_TAKE_BACK, /* RSET behind an envelope that was all */
    STEP_DONE,
};

enum recipient_state {
    RECIPIENT_OPEN,     /* no reply yet */
    RECIPIENT_ACCEPTED, /* 2xx to RCPT */
    RECIPIENT_DECIDED,  /* the outcome stands */
    RECIPIENT_SKIPPED,  /* the same, and no RCPT is sent for it */
};

struct transaction {
    struct smtp_client_mail mail;
    struct arena arena; /* outcomes, states, texts */
    struct smtp_client_outcome *outcomes;
    uint8_t *states;          /* enum recipient_state */
    uint32_t recipient_limit; /* those below take part: RCPTMAX */
    enum step send, answer;
    uint32_t send_recipient, answer_recipient;
    uint32_t accepted;  /* 2xx to RCPT */
    uint32_t undecided; /* recipients without an outcome */
    bool elsewhere;
    bool forwards; /* XFORWARD is to be said */
    bool utf8;     /* SMTPUTF8 is needed */
    bool mail_refused;
    bool go;
    bool chunked;
    bool reused;
    bool asked; /* CONTENT has been told, its answer is due */
    bool started_told;
    bool started; /* MAIL is queued */
    bool reported;
    bool line_start, after_cr; /* of the content sent so far */
    uint64_t content_offset;
    uint32_t chunks_unanswered;
    uint64_t dot_end; /* output position behind the dot; 0: not queued */
};

struct smtp_client {
    char helo[SMTP_CLIENT_HELO_MAX + 1];
    bool lmtp;
    uint32_t greeting_timeout_ms, command_timeout_ms, dot_timeout_ms;
    struct login {
        uint8_t user[SASL_SECRET_MAX], password[SASL_SECRET_MAX];
        size_t user_length, password_length; /* user_length 0: no logging in */
        bool in_clear;
        uint8_t nonce[SASL_NONCE_BYTES];
    } login;
    enum smtp_client_tls tls;
    bool secured, handshake_told;
    bool tls_failed, is_proved;
    uint32_t mechanisms; /* offered: bits by enum sasl_mechanism */
    struct sasl_client *sasl;
    struct buffer auth_secrets; /* that no text of a reply may show, a line each */
    bool auth_cancelled;
    struct origin {
        bool told;                              /* of settings */
        bool xclient_refused, xforward_refused; /* not tried again on this connection */
        enum origin_step {
            ORIGIN_SETTLED,
            ORIGIN_PRESENTING,   /* XCLIENT, and what is to be said again after it */
            ORIGIN_FALLING_BACK, /* EHLO after a refused XCLIENT */
        } step;
        bool proxied;                     /* it was told before the dialogue began, for all of it */
        bool foreign;                     /* not ours: `line` is in force */
        unsigned attributes;              /* that `line` was made of */
        struct buffer line;               /* the parameters of XCLIENT in force, or being said */
        struct smtp_client_cause refusal; /* of XCLIENT, while falling back; in end_text */
    } origin;
    bool spent; /* no more transactions on this connection */
    enum session_step step;
    bool opened, opened_told, closed_told, quit_asked;
    bool needs_reset; /* the server may still hold an envelope of ours */
    uint32_t mails;   /* MAIL commands sent */
    struct transaction slots[2];
    uint32_t first, count; /* of slots in use */
    struct smtp_reply_parser parser;
    struct smtp_client_capabilities capabilities;
    struct buffer output;
    size_t output_offset; /* sent bytes at the front of output */
    uint64_t sent;        /* bytes in all */
    int64_t now_ms;       /* as last said */
    int64_t progress_ms;
    bool sending;           /* output waits for the server to take it */
    int64_t send_until_ms;  /* while sending: then it was too slow */
    int64_t send_credit_ms; /* what was left of that when output last left */
    struct smtp_client_cause end;
    uint8_t end_text[SMTP_REPLY_TEXT_MAX];
};

static inline struct transaction *slot_at(struct smtp_client *client, uint32_t place)
{
    return &client->slots[(client->first + place) % 2];
}

/* A reply to something of it is due. */
static inline bool transaction_awaits(const struct transaction *t)
{
    if (t->answer < STEP_CONTENT) {
        return t->answer != t->send || t->answer_recipient != t->send_recipient;
    }
    return t->answer == STEP_CONTENT ? t->chunks_unanswered > 0 : t->answer != STEP_DONE;
}

static inline enum step step_after_reset(const struct transaction *t)
{
    return t->forwards ? STEP_FORWARD : STEP_MAIL;
}

/* The first recipient from `index` on that has or had a RCPT. */
static inline uint32_t next_participant(const struct transaction *t, uint32_t index)
{
    while (index < t->recipient_limit && t->states[index] == RECIPIENT_SKIPPED) {
        index++;
    }
    return index;
}

static inline bool offers(const struct smtp_client *client, uint32_t flag)
{
    return (client->capabilities.flags & flag) != 0;
}

static inline size_t output_backlog(const struct smtp_client *client)
{
    return client->output.length - client->output_offset;
}

/* smtp_client.c */
void queue_bytes(struct smtp_client *client, struct slice bytes);
void queue_text(struct smtp_client *client, const char *text);
/* The position behind all that is queued. */
uint64_t output_end(const struct smtp_client *client);
/* The dot is queued and its last byte has been sent. */
bool dot_has_left(const struct smtp_client *client, const struct transaction *t);
struct smtp_client_cause cause_of_reply(enum smtp_client_stage stage,
                                        const struct smtp_reply *reply);
struct smtp_client_cause cause_of_text(enum smtp_client_stage stage, enum smtp_client_how how,
                                       const char *text);

/* smtp_client_hello.c */
void hello_line(struct smtp_client *client, struct slice line);
void hello_reply(struct smtp_client *client, const struct smtp_reply *reply);
void hello_secured(struct smtp_client *client);
/* Nothing is left to do before AUTH: that, or the session is open. */
void hello_done(struct smtp_client *client);
void session_opened(struct smtp_client *client);

void say_hello(struct smtp_client *client, enum session_step step, const char *verb,
               struct slice name);
/* A PROXY header has told whose the connection is; NULL: ours. */
void origin_proxied(struct smtp_client *client, const struct xclient *client_is);

/* smtp_client_origin.c */
/* Leads the transaction to STEP_RESET at once, or by and by, or to its end. False: not now. */
bool origin_begin(struct smtp_client *client, struct transaction *t);
/* A reply while XCLIENT is under way; false: it is not. */
bool origin_reply(struct smtp_client *client, const struct smtp_reply *reply);
/* It is to be said of this transaction. */
bool origin_forwards(const struct smtp_client *client);
void origin_queue_forward(struct smtp_client *client, const struct transaction *t);

/* smtp_client_auth.c */
void auth_offered(struct smtp_client *client, struct slice words);
void auth_begin(struct smtp_client *client);
void auth_reply(struct smtp_client *client, const struct smtp_reply *reply);
void auth_forget(struct smtp_client *client);

/* smtp_client_envelope.c */
bool path_is_sendable(struct slice path);
void queue_mail(struct smtp_client *client, const struct transaction *t);
void queue_recipient(struct smtp_client *client, const struct transaction *t, uint32_t index);
/* Decides what can be decided without the server, and what the transaction needs of it. */
void check_envelope(struct smtp_client *client, struct transaction *t);

/* smtp_client_send.c */
/* Sends what may be sent now. */
void advance(struct smtp_client *client);

/* smtp_client_content.c */
bool content_wanted(const struct smtp_client *client, const struct transaction *t);
/* False: a bare CR or LF; what was queued must not be sent. */
bool queue_content(struct smtp_client *client, struct transaction *t, struct slice piece);
void queue_dot(struct smtp_client *client, struct transaction *t);

/* smtp_client_answer.c */
void transaction_reply(struct smtp_client *client, const struct smtp_reply *reply);

/* smtp_client_end.c */
enum smtp_client_stage stage_now(struct smtp_client *client);
/* Nothing if it has its outcome already. */
void decide(struct transaction *t, uint32_t index, enum smtp_client_verdict verdict,
            const struct smtp_client_cause *cause);
/* All that are not decided yet. */
void decide_rest(struct transaction *t, enum smtp_client_verdict verdict,
                 const struct smtp_client_cause *cause);
/* No reply is awaited any more; what is undecided must have been decided. */
void transaction_finish(struct transaction *t);
/* The session is over: every transaction gets its outcome by what was sent. */
void session_end(struct smtp_client *client, const struct smtp_client_cause *cause);
/* The same, but what was not sent whole counts as not tried. */
void session_give_up(struct smtp_client *client, const struct smtp_client_cause *cause);
/* The server broke the protocol. */
void session_broken(struct smtp_client *client, const char *text);
void session_out_of_memory(struct smtp_client *client);

#endif
