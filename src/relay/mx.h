/* SPDX-License-Identifier: Apache-2.0
 *
 * Which hosts take a domain's mail, in which order, by what DNS says (RFC 5321 5.1, RFC 7505): a
 * pure decision. Among exchangers of equal preference the order is drawn. We ourselves, known by
 * name and address, and all that are no better than we are left out, so that mail never runs in a
 * circle.
 *
 * DNS is believed by nobody who has something to protect: addresses of this machine, of loopback,
 * link-local and private networks are refused, unless the route's deliver-only-to lists them.
 */
#ifndef HOLDFAST_RELAY_MX_H
#define HOLDFAST_RELAY_MX_H

#include "base/error.h"
#include "base/network.h"

enum {
    MX_EXCHANGERS_MAX = 16, /* of a domain, the best ones */
    MX_ADDRESSES_MAX = 8,   /* of an exchanger */
    MX_HOST_MAX = 253,      /* RFC 1035 2.3.4, without the last dot */
    MX_TTL_MIN_S = 30,
    MX_TTL_MAX_S = 24 * 3600,
    MX_NEGATIVE_TTL_MAX_S = 300, /* what stops mail is asked again so often */
};

struct mx_address {
    struct ip_address address;
    bool ours; /* an interface of this machine has it */
};

struct mx_exchanger {
    uint16_t preference;
    struct slice host; /* lower case, without the last dot; "." for the root (RFC 7505) */
    enum error error;  /* of its addresses: NONE; MISSING: it has none; else there is no answer */
    const struct mx_address *addresses; /* at most MX_ADDRESSES_MAX */
    uint32_t address_count;
};

struct mx_answer {
    enum error error; /* NONE; MISSING: there is no such name; TIMEOUT, IO, CORRUPT: no answer */
    bool implicit;    /* the name has no MX, and is its own only exchanger (RFC 5321 5.1) */
    bool secure;      /* DNSSEC has proved it, names and preferences */
    const struct mx_exchanger *exchangers; /* at most MX_EXCHANGERS_MAX */
    uint32_t count;
    uint32_t ttl_s;
};

struct mx_policy {
    struct slice hostname;
    const struct ip_address *own; /* addresses that others know us by (nat-address) */
    uint32_t own_count;
    const struct ip_network *only; /* deliver-only-to; none: anywhere that is public */
    uint32_t only_count;
};

enum mx_verdict {
    MX_FOUND,
    MX_NO_ANSWER,  /* ask again later */
    MX_NO_NAME,    /* NXDOMAIN: 5.1.2 */
    MX_NULL,       /* takes no mail: 5.1.10 */
    MX_OURSELVES,  /* nobody is better than we: 5.4.6 */
    MX_NO_ADDRESS, /* none of the exchangers has one: 5.4.4 */
    MX_REFUSED,    /* none has one that mail may go to: 5.4.4 */
    MX_ELSEWHERE,  /* they have, but outside of deliver-only-to, which the operator may widen */
};

struct mx_choice {
    struct slice host;
    uint16_t preference;
    uint32_t address_count;
    struct ip_address addresses[MX_ADDRESSES_MAX];
};

struct mx_decision {
    enum mx_verdict verdict;
    enum error error; /* MX_NO_ANSWER: why */
    bool secure;      /* of the answer */
    uint32_t ttl_s;   /* valid for so long, within the bounds above */
    uint32_t count;
    struct mx_choice choices[MX_EXCHANGERS_MAX]; /* best first */
};

/* `seed` draws the order among equals. Hosts point into the answer. */
void mx_decide(const struct mx_answer *answer, const struct mx_policy *policy, uint64_t seed,
               struct mx_decision *ret_decision);
/* An answer with its memory. */
struct mx_completed {
    struct mx_answer answer; /* points into this */
    struct mx_exchanger exchangers[MX_EXCHANGERS_MAX];
    struct mx_address addresses[MX_EXCHANGERS_MAX][MX_ADDRESSES_MAX];
};
/* For servers that stand though DNS fails (R3): exchangers without an address get those that they
 * had when all was well (`known`, may be NULL), as if there had been no answer about them. */
void mx_complete(const struct mx_answer *answer, const struct mx_decision *known,
                 struct mx_completed *ret_completed);
/* What was known as if DNS had just said it. */
void mx_of_known(const struct mx_decision *known, struct mx_completed *ret_completed);
/* No mail will ever go there as DNS stands: a relay's mail is returned. */
bool mx_is_final(enum mx_verdict verdict);
/* Subject and detail of the enhanced status code (RFC 3463), and the words, of what is no MX_FOUND.
 */
struct slice mx_reason(enum mx_verdict verdict, uint8_t ret_enhanced[2]);
/* The words alone; of MX_NO_ANSWER those for its error. */
struct slice mx_trouble(enum mx_verdict verdict, enum error error);

#endif
