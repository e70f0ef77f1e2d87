/* SPDX-License-Identifier: Apache-2.0
 *
 * Logging in: what edge-in, which hears the clients, and the process that keeps the secrets say to
 * each other over a pair of sockets with messages (sys/fdpass.h), one pair for each of edge-in's
 * loops. A message is a question or its answer; both are bounded, and checked by who reads them. So
 * is what core is told of it.
 */
#ifndef HOLDFAST_SERVICE_LOGIN_H
#define HOLDFAST_SERVICE_LOGIN_H

#include "base/buffer.h"
#include "base/network.h"
#include "proto/sasl_server.h"

enum {
    LOGIN_MESSAGE_MAX = 32 << 10,
    LOGIN_ADDRESSES_MAX = 64, /* of one user */
    LOGIN_ADDRESS_MAX = 320,
    LOGIN_NAME_MAX = SASL_SECRET_MAX,
    LOGIN_IDENTITY_MAX = 32,
    LOGIN_LISTENER_MAX = 255,
    LOGIN_HOW_MAX = 32,
};

enum login_question {
    LOGIN_PASSWORD = 1, /* secret: the password */
    LOGIN_SALT,         /* SCRAM: what the name's keys were made with */
    LOGIN_PROOF,        /* SCRAM; secret: the proof over auth_message */
    LOGIN_CRAM,         /* CRAM-MD5, likewise, in hexadecimal */
};

struct login_request {
    uint64_t token; /* the asker's; comes back */
    enum login_question question;
    struct ip_address client;
    struct slice listener; /* by whose rules */
    struct slice name;
    struct slice secret;
    struct slice auth_message;
};

enum login_verdict {
    LOGIN_GOOD,
    LOGIN_REFUSED,
    LOGIN_LATER,    /* too many have failed: it was not tried */
    LOGIN_BUSY,     /* too many at once: likewise */
    LOGIN_AWAY,     /* who knows it does not answer: likewise */
    LOGIN_UNKNOWN,  /* nobody has the name; among those who know (service/login_remote.h) */
    LOGIN_VERDICTS, /* how many there are */
};

struct login_answer {
    uint64_t token;
    enum login_verdict verdict;
    /* LOGIN_GOOD to LOGIN_SALT: */
    struct slice salt;
    uint32_t iterations;
    /* to LOGIN_PROOF: */
    uint8_t signature[SASL_PROOF_BYTES];
    /* to LOGIN_PASSWORD, LOGIN_PROOF and LOGIN_CRAM: the account's own name, and what it may send
     * as; "*" stands for any run of characters. Of a listener with protocol = odmr: what domains'
     * mail it may fetch. */
    struct slice account;
    struct slice addresses[LOGIN_ADDRESSES_MAX];
    uint32_t address_count;
    /* with LOGIN_GOOD, and with LOGIN_REFUSED from those who know (service/login_remote.h): whose
     * account it is, the same however the name was written; empty: not known */
    struct slice identity;
};

/* What core hears of each login that is decided, over a pair of its own. */
struct login_news {
    enum login_verdict verdict;
    struct ip_address client;
    struct slice listener;
    struct slice name;
    struct slice how;         /* in a word */
    struct slice identity;    /* LOGIN_GOOD: as in an answer */
    bool is_known;            /* somebody has the name */
    uint32_t client_wait_ms;  /* not 0: the client must wait from now on, so long, */
    uint32_t account_wait_ms; /* or strangers at the account */
    uint32_t wait_ms;         /* LOGIN_LATER: so long it still is */
};

void login_put_request(struct buffer *buffer, const struct login_request *request);
/* False: it is none. Slices point into the bytes. */
bool login_get_request(struct slice bytes, struct login_request *ret_request);
void login_put_answer(struct buffer *buffer, const struct login_answer *answer);
bool login_get_answer(struct slice bytes, struct login_answer *ret_answer);

void login_put_news(struct buffer *buffer, const struct login_news *news);
bool login_get_news(struct slice bytes, struct login_news *ret_news);

/* False: the link is of no use. It may have been closed meanwhile, and *fd be -1. */
typedef bool login_heard_fn(void *context, struct slice message);
/* What waits at such a link, a bounded number, each whole, until *fd is -1; forgotten afterwards.
 * False: it is closed, or `heard` says that it is of no use. */
bool login_hear(const int *fd, login_heard_fn *heard, void *context) MUST_CHECK;

/* NULL, or what is wrong with it. */
const char *login_name_fault(struct slice name);
const char *login_address_fault(struct slice address);
bool login_may_send_as(const struct slice *addresses, uint32_t count, struct slice address);

#endif
