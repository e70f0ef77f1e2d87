/* SPDX-License-Identifier: Apache-2.0
 *
 * What the processes say to each other over rings (sys/ring.h): few frames, each a whole thought.
 * A frame is a u8 type and fields as base/buffer.h writes them. The receiver copies a frame before
 * it reads it; decoding is bounded and fuzzed, for a broken edge must not break core.
 *
 * edge-in <-> core       one ring per edge-in loop
 * core <-> edge-out      one ring per edge-out loop
 */
#ifndef HOLDFAST_SERVICE_CHANNEL_H
#define HOLDFAST_SERVICE_CHANNEL_H

#include "base/arena.h"
#include "base/buffer.h"
#include "relay/relay.h"
#include "spool/spool.h"

enum {
    CHANNEL_CHUNK = 64 << 10, /* most content bytes in one frame */
    CHANNEL_DOMAIN_MAX = 255,
    CHANNEL_TLS_MAX = 256,          /* bytes of what is said of a session's TLS, and a NUL */
    CHANNEL_WHY_MAX = 100,          /* of CHANNEL_MILTER's reason */
    CHANNEL_RING_IN = 8 << 20,      /* edge-in to core */
    CHANNEL_RING_IN_BACK = 1 << 20, /* core to edge-in */
    CHANNEL_RING_OUT = 1 << 20,     /* both directions of edge-out */
};

enum channel_frame {
    /* edge-in to core. A token names one message on its way in; unique per ring. */
    CHANNEL_APPEND = 1, /* u64 token, then content bytes to the end of the frame */
    CHANNEL_COMMIT,     /* u64 token, envelope (channel_put_message), then the last content bytes to
                           the end of the frame. Answered by CHANNEL_STORED */
    CHANNEL_ABORT,      /* u64 token */
    CHANNEL_CONTACT,    /* 16 bytes client address: connected to us (R3: probe if it is a server) */
    CHANNEL_ETRN,       /* u64 token, 16 bytes client address, u8 with subdomains, bytes domain
                           (CHANNEL_DOMAIN_MAX). Answered by CHANNEL_ETRN_DONE if the ring has room
                           for it */
    CHANNEL_ATRN,       /* u64 token, 16 bytes client address, bytes user, u8 count, count * bytes
                           domain (CHANNEL_DOMAIN_MAX). Answered by CHANNEL_ATRN_DONE likewise */
    CHANNEL_RECIPIENT,  /* u64 token, 16 bytes client address, bytes address, of a domain that does
                           not take any: is there one? Answered by CHANNEL_RECIPIENT_DONE likewise */
    CHANNEL_MILTER,  /* bytes name, u8 1: away, 0: back, bytes why: of a filter, as one loop sees it
                      */
    CHANNEL_LISTING, /* u64 token, 16 bytes client address: do DNS lists know it? Answered by
                        CHANNEL_LISTED, unless that is lost on the way */
    CHANNEL_REFUSED, /* struct channel_refusal: a client or recipient, for `trace` */
    CHANNEL_SENT_ON, /* u32 generation, u32 route: a stranger was sent to its head, which is up */
    /* core to edge-in */
    CHANNEL_STORED,    /* u64 token, u8 enum error. ERROR_NONE: it is durable, say 250 */
    CHANNEL_ACCEPTING, /* u8 enum error: NONE, or why RCPT must answer 452; u64 ms (signed): a
                          cluster's time, ahead of the steady clock; 0 without one; u8 1: all that
                          was stored is loaded, and CHANNEL_REPEATED may come */
    CHANNEL_ROUTE,     /* u32 generation, u32 route, u8 enum error (NONE; SPACE: its quota is
                          reached), u8 its head server (1: known, 2: up), u32 capability flags, u64
                          size limit */
    CHANNEL_ETRN_DONE, /* u64 token, u8 enum relay_etrn_outcome, u64 messages */
    CHANNEL_ATRN_DONE, /* u64 token, u8 enum relay_atrn_outcome, u32 session: to hand the connection
                          to edge-out for, if it is to be turned */
    CHANNEL_RECIPIENT_DONE, /* u64 token, u8 enum mailbox_answer: not MAILBOX_ASK */

    CHANNEL_LISTED, /* struct channel_listing */

    /* core to edge-out. A session belongs to one ring: session % number of rings. A server is named
     * by channel_server_key(): both sides take a new configuration when it reaches them, and an
     * index would mean another server until both have. */
    CHANNEL_CONNECT = 32, /* u32 session, u32 server, u32 ms: a probe makes a fresh connection so
                             often while none is made; 0: no probe; u8 enum sts_demand. Of an
                             exchanger, whose key is NO_INDEX: channel_put_exchanger() */
    CHANNEL_CLOSE,        /* u32 session: jobs without GO come back as not tried; the reply to a dot
                             is awaited as ever (R2), then QUIT */
    CHANNEL_DELIVER,      /* u32 session, u64 job, bytes ticket, bytes redirect address (or empty),
                             u32 count, count * u32 delivery */
    CHANNEL_GO,           /* u32 session, u64 job: the attempt is noted, the dot may be sent */
    CHANNEL_DURABLE,      /* u32 session, u64 job: the result is durable; forget it */
    CHANNEL_KNOCK,        /* u32 session: a probe that is connecting makes a fresh one now */
    /* edge-out to core */
    CHANNEL_OPENED,    /* u32 session, u32 server, capabilities, bytes TLS: policy and result in
                          words (less than CHANNEL_TLS_MAX), empty if there was to be none */
    CHANNEL_ENDED,     /* u32 session, u32 server, reply */
    CHANNEL_READY,     /* u32 session, u64 job: all is accepted, content under way; asks GO */
    CHANNEL_RESULT,    /* u32 session, u32 server, u64 job, u8 reused session, 16 bytes message
                          id (zeroes: the envelope could not be read), u32 count, count * (u32
                          delivery, u8 verdict, reply) */
    CHANNEL_ADDRESSES, /* u32 server, u32 count, count * 16 bytes */
    CHANNEL_WORKING,   /* after (re)attaching, one per job under way: u32 session, u32 server,
                          u64 job, 16 bytes id, u32 count, count * u32 delivery */
    CHANNEL_RESUMED,   /* after attaching: all CHANNEL_WORKING and repeated CHANNEL_RESULT have
                          been said. u8 1: this is a fresh process */
    /* between core and edge-out, both ways */
    CHANNEL_NAME, /* bytes host, u32 count, count * 16 bytes: the last good addresses of a name;
                     core keeps them and tells all of them to an edge-out that has resumed */
    /* core to edge-out */
    CHANNEL_RESOLVE, /* bytes domain: who takes its mail? */
    CHANNEL_CALLOUT, /* u64 token, u32 server, bytes exchanger (empty, or as of CHANNEL_CONNECT),
                        bytes address, bytes another (or empty), u8 enum sts_demand: does that
                        server take mail for them? */
    CHANNEL_LOOK_UP, /* struct channel_listing, as far as it is a question */
    /* edge-out to core */
    CHANNEL_LOOKED_UP, /* struct channel_listing */
    CHANNEL_RESOLVED,  /* bytes domain, answer (channel_put_mx) */
    CHANNEL_CALLED,    /* u64 token, u32 count, count * (u32 which, u8 verdict, reply) */
    /* core to edge-out */
    CHANNEL_TEXT, /* bytes name: what are its TXT records? Answered by CHANNEL_TEXTS */
    /* edge-out to core */
    CHANNEL_TEXTS, /* bytes name, texts (channel_put_texts) */
    CHANNEL_TLS, /* u32 session, result (channel_put_tls): of a handshake, or why there was none */
};

/* Of a server's name, the same in every configuration; app/settings refuses two servers with one
 * key. NO_INDEX for NO_INDEX. */
uint32_t channel_server_key(const struct relay_config *config, uint32_t index);
/* The index of a key's server, or NO_INDEX. */
uint32_t channel_server_find(const struct relay_config *config, uint32_t key);

/* In the flags of CHANNEL_COMMIT's message, and nowhere else: a Received field of ours is in it. */
#define CHANNEL_OWN_TRACE (1u << 31)
/* A filter of ours wants it held: for each delivery, with origin.verdicts as the reason. */
#define CHANNEL_QUARANTINED (1u << 30)
/* A filter of ours has thrown it away: it has no content, and nothing is stored. */
#define CHANNEL_DISCARDED (1u << 29)
/* Core before this one was given it, and died before it answered. Its content may be missing, in
 * part or whole: then it is only asked whether it was stored. Not before CHANNEL_ACCEPTING has said
 * that core knows. */
#define CHANNEL_REPEATED (1u << 28)

void channel_put_message(struct buffer *buffer, const struct spool_message *message);
/* Slices point into the reader's input; recipients are in `arena`. False: malformed or over the
 * bounds of spool.h. */
bool channel_get_message(struct reader *reader, struct arena *arena,
                         struct spool_message *ret_message);
void channel_put_reply(struct buffer *buffer, const struct relay_reply *reply);
bool channel_get_reply(struct reader *reader, struct relay_reply *ret_reply);
void channel_put_capabilities(struct buffer *buffer, const struct relay_capabilities *capabilities);
bool channel_get_capabilities(struct reader *reader, struct relay_capabilities *ret_capabilities);
void channel_put_sts(struct buffer *buffer, enum sts_demand demand);
enum sts_demand channel_get_sts(struct reader *reader);
/* An exchanger's host, its policy's demand, who has signed that it is one, time-out of the
 * greeting, and addresses; all else is as configured. */
void channel_put_exchanger(struct buffer *buffer, const struct server_config *exchanger);
struct channel_exchanger {
    struct server_config config; /* these only */
    struct server_address addresses[MX_ADDRESSES_MAX];
};
/* Names point into the reader's input. */
bool channel_get_exchanger(struct reader *reader, struct channel_exchanger *ret_exchanger);
void channel_put_mx(struct buffer *buffer, const struct mx_answer *answer);
struct channel_mx {
    struct mx_answer answer;
    struct mx_exchanger exchangers[MX_EXCHANGERS_MAX];
    struct mx_address addresses[MX_EXCHANGERS_MAX][MX_ADDRESSES_MAX];
};
/* *ret_mx points into itself; hosts into the reader's input. */
bool channel_get_mx(struct reader *reader, struct channel_mx *ret_mx);
/* What came of TLS, as reports have it (RFC 8460 4.3). */
enum tls_result {
    TLS_RESULT_SUCCESS,
    TLS_RESULT_NOT_SUPPORTED,
    TLS_RESULT_NAME,
    TLS_RESULT_EXPIRED,
    TLS_RESULT_UNTRUSTED,
    TLS_RESULT_VALIDATION,
    TLS_RESULT_TLSA,
    TLS_RESULT_DNSSEC,
    TLS_RESULT_STS_FETCH,
    TLS_RESULT_STS_INVALID,
    TLS_RESULT_STS_WEBPKI,
    TLS_RESULTS
};
enum tls_policy { TLS_POLICY_NONE, TLS_POLICY_STS, TLS_POLICY_TLSA, TLS_POLICIES };
enum { CHANNEL_TLS_REASON_MAX = 160 };
struct channel_tls {
    enum tls_result result;
    enum tls_policy policy; /* that was followed */
    struct ip_address local, remote;
    struct slice reason; /* for people, ASCII; may be empty */
};
void channel_put_tls(struct buffer *buffer, const struct channel_tls *tls);
/* The reason points into the reader's input. */
bool channel_get_tls(struct reader *reader, struct channel_tls *ret_tls);
enum { CHANNEL_TEXTS_MAX = 8, CHANNEL_TEXT_MAX = 1024 };
/* TXT records; those beyond the bounds are left out. */
struct channel_texts {
    enum error error; /* NONE; MISSING: there are none; TIMEOUT, IO, CORRUPT: no answer */
    uint32_t ttl_s;
    uint32_t count;
    struct slice texts[CHANNEL_TEXTS_MAX];
};
void channel_put_texts(struct buffer *buffer, const struct channel_texts *texts);
/* The texts point into the reader's input. */
bool channel_get_texts(struct reader *reader, struct channel_texts *ret_texts);
enum { CHANNEL_LIST_NAME_MAX = 64 };
/* Whether DNS lists know a client. A question has no more than the way back, the token, and the
 * client. */
struct channel_listing {
    uint8_t edge; /* of edge-in, which has asked */
    uint32_t epoch;
    uint64_t token;
    struct ip_address client;
    int32_t score;     /* the sum of what the lists weigh that know it */
    uint32_t ttl_s;    /* 0: not to be remembered */
    struct slice name; /* of the list that weighs most, at most CHANNEL_LIST_NAME_MAX */
};
void channel_put_listing_question(struct buffer *buffer, const struct channel_listing *listing);
bool channel_get_listing_question(struct reader *reader, struct channel_listing *ret_listing);
void channel_put_listing(struct buffer *buffer, const struct channel_listing *listing);
/* The name points into the reader's input. */
bool channel_get_listing(struct reader *reader, struct channel_listing *ret_listing);
enum { CHANNEL_REFUSAL_TEXT_MAX = 512, CHANNEL_REFUSAL_MAX = 4096 };
/* What was refused, each text cut to CHANNEL_REFUSAL_TEXT_MAX. */
struct channel_refusal {
    struct message_id id; /* of the message that it was to be a part of, or its own */
    struct ip_address client;
    uint16_t code;
    bool has_sender; /* MAIL was said */
    struct slice stage, helo, sender, recipient, text;
};
void channel_put_refusal(struct buffer *buffer, const struct channel_refusal *refusal);
/* Texts point into the reader's input. */
bool channel_get_refusal(struct reader *reader, struct channel_refusal *ret_refusal);
void channel_put_id(struct buffer *buffer, struct message_id id);
struct message_id channel_get_id(struct reader *reader);

#endif
