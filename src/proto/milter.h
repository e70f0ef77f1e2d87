/* SPDX-License-Identifier: Apache-2.0
 *
 * The mail server's side of the milter protocol, version 6 and down to 2 (Sendmail's libmilter,
 * mfdef.h), without socket or clock: a filter looks at a session step by step and may refuse,
 * discard, hold or change its mail.
 *
 * The caller makes the connection, then goes through a session in the order
 *
 *   connect helo ( mail ( rcpt )* data ( header )* eoh ( body )* end )*
 *
 * Each verb says whether an answer will come. If so the next verb waits for the event
 * MILTER_VERDICT; if not the session goes on at once: the filter does not want that step, or gives
 * no answer to it, or has accepted all that follows. A message that ends early, refused by us or by
 * another filter, is given up by milter_abort().
 *
 * A filter is not trusted: what it sends is bounded, and everything it says of addresses and
 * headers is for the caller to check like a client's words.
 */
#ifndef HOLDFAST_PROTO_MILTER_H
#define HOLDFAST_PROTO_MILTER_H

#include "base/buffer.h"
#include "base/network.h"

struct milter;

enum {
    MILTER_PACKET_MAX = (1 << 20) + 64, /* of the filter's; longer ones break the connection */
    MILTER_CHUNK_MAX = 65535,           /* of body, in one call */
    MILTER_CHANGES_MAX = 10000,         /* of one message */
    MILTER_PROGRESS_MAX = 10,           /* times the time-out, however often it says it works on */
    MILTER_MACROS_MAX = 1024,           /* bytes of names that it asks for at one step */
};

enum milter_stage {
    MILTER_CONNECT,
    MILTER_HELO,
    MILTER_MAIL,
    MILTER_RCPT,
    MILTER_DATA,
    MILTER_HEADER,
    MILTER_EOH,
    MILTER_BODY,
    MILTER_END,
    MILTER_STAGES,
};

/* What it may do to a message; the caller offers what it can carry out. */
enum {
    MILTER_MAY_ADD_HEADERS = 0x01,
    MILTER_MAY_CHANGE_BODY = 0x02,
    MILTER_MAY_ADD_RECIPIENTS = 0x04,
    MILTER_MAY_DELETE_RECIPIENTS = 0x08,
    MILTER_MAY_CHANGE_HEADERS = 0x10,
    MILTER_MAY_QUARANTINE = 0x20,
    MILTER_MAY_CHANGE_SENDER = 0x40,
    MILTER_MAY_ADD_RECIPIENTS_PAR = 0x80,
    MILTER_MAY_CHOOSE_MACROS = 0x100,
    MILTER_MAY_ALL = 0x1ff,
};

/* The value of a macro at this moment, without braces: "client_addr", "j", "i", "auth_authen" ...
 * (Sendmail's and Postfix's names). False: it has none. */
typedef bool milter_macro_fn(void *context, struct slice name, struct slice *ret_value);

struct milter_settings {
    unsigned may;
    uint32_t command_timeout_ms; /* for each answer before the content */
    uint32_t content_timeout_ms; /* from the header on */
    milter_macro_fn *macro;
    void *context;
};

enum milter_verdict {
    MILTER_CONTINUE,
    MILTER_ACCEPT,   /* nothing more is asked, of this message or (connect, helo) of the session */
    MILTER_REJECT,   /* 5xx; code, enhanced and text if it gave them */
    MILTER_TEMPFAIL, /* 4xx; likewise */
    MILTER_DISCARD,  /* of a message: say 250, keep nothing */
    MILTER_HANG_UP,  /* 421 and close */
};

enum milter_event_kind {
    MILTER_NONE,
    MILTER_READY,   /* versions are agreed: go on with connect */
    MILTER_VERDICT, /* verdict on `stage` */
    /* Changes to the message, before the verdict on MILTER_END. */
    MILTER_ADD_HEADER,    /* name, value: at the end */
    MILTER_INSERT_HEADER, /* name, value, index: 0 at the front, before our own Received field */
    MILTER_CHANGE_HEADER, /* name, index (from 1) among those of that name, value; empty: delete */
    MILTER_ADD_RECIPIENT, /* value, parameters */
    MILTER_DEL_RECIPIENT, /* value */
    MILTER_CHANGE_SENDER, /* value, parameters */
    MILTER_REPLACE_BODY,  /* bytes: the first one begins a new body, further ones go on with it */
    MILTER_QUARANTINE,    /* value: why. Take it, and hold it */
    MILTER_BROKEN,        /* the last event: `text` says why; close the connection */
};

/* Slices are valid until the next call of milter_next(). Texts hold no NUL; CR and LF may stand in
 * the value of a header field (folded), nowhere else. */
struct milter_event {
    enum milter_event_kind kind;
    enum milter_stage stage;
    enum milter_verdict verdict;
    uint16_t code;         /* 0: none given */
    struct slice enhanced; /* "5.7.1", or empty */
    struct slice text;
    uint32_t index;
    bool needs_blank; /* a header's value has none in front: one belongs behind the colon */
    struct slice name, value, parameters, bytes;
};

/* Begins the negotiation. NULL: memory. Settings are copied. */
struct milter *milter_new(const struct milter_settings *settings, int64_t now_ms);
void milter_free(struct milter *milter); /* NULL is allowed */

void milter_input(struct milter *milter, struct slice bytes, int64_t now_ms);
void milter_lost(struct milter *milter);
bool milter_next(struct milter *milter, struct milter_event *ret_event);
struct slice milter_output(const struct milter *milter);
void milter_sent(struct milter *milter, size_t length, int64_t now_ms);
int64_t milter_deadline(const struct milter *milter); /* steady ms; INT64_MAX: none */
void milter_expire(struct milter *milter);

/* The steps. True: a verdict will come; none may be called before it has been taken. Never true
 * after MILTER_BROKEN. */
bool milter_connect(struct milter *milter, struct slice host, const struct ip_endpoint *client,
                    int64_t now_ms);
bool milter_helo(struct milter *milter, struct slice name, int64_t now_ms);
/* `parameters`: as the client gave them, separated by spaces. */
bool milter_mail(struct milter *milter, struct slice sender, struct slice parameters,
                 int64_t now_ms);
bool milter_rcpt(struct milter *milter, struct slice recipient, struct slice parameters,
                 int64_t now_ms);
bool milter_data(struct milter *milter, int64_t now_ms);
/* `value` is all behind the colon, without the last CRLF; CRLF within become LF. */
bool milter_header(struct milter *milter, struct slice name, struct slice value, int64_t now_ms);
bool milter_eoh(struct milter *milter, int64_t now_ms);
/* At most MILTER_CHUNK_MAX bytes. */
bool milter_body(struct milter *milter, struct slice bytes, int64_t now_ms);
bool milter_end(struct milter *milter, int64_t now_ms);
/* Whether a header field or a body would be sent at all: else the caller need not read them. */
bool milter_wants(const struct milter *milter, enum milter_stage stage);
/* The message is over before its end; nothing is answered. */
void milter_abort(struct milter *milter, int64_t now_ms);
/* The session is over. `reuse`: another one may follow on this connection, from connect on. False:
 * none can, close when the output has left. In version 6 one can if the last that the filter said
 * was CONTINUE to a message's end: from any other state libmilter (engine.c, next_states) passes
 * over SMFIC_QUIT_NC without a word, and over the next session's connect, too. */
bool milter_quit(struct milter *milter, bool reuse, int64_t now_ms);

#endif
