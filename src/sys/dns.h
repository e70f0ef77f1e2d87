/* SPDX-License-Identifier: Apache-2.0
 *
 * Names to addresses on a loop, by libunbound (native event interface), validating where anchors
 * are given. Simulated twin: tests/sim/dns_sim.c.
 */
#ifndef HOLDFAST_SYS_DNS_H
#define HOLDFAST_SYS_DNS_H

#include "base/network.h"
#include "sys/loop.h"

enum { DNS_ADDRESSES_MAX = 16 };

struct dns;
struct dns_query;

struct dns_answer {
    enum error
        error; /* NONE; MISSING: NXDOMAIN or no data; TIMEOUT, IO: no answer; CORRUPT: bogus */
    struct ip_address addresses[DNS_ADDRESSES_MAX];
    size_t count;
    uint32_t ttl_s;
    bool secure; /* validated */
};

struct dns_settings {
    const char *const *forwarders; /* "192.0.2.53" or "192.0.2.53@5353"; none: resolv.conf's */
    size_t forwarder_count;
    const char *trust_anchor; /* text of a DNSKEY or DS record, or NULL: no validation */
    const char *hosts;        /* text in hosts(5) form, or NULL; read by the keeper, not by us */
};

typedef void dns_fn(void *context, const struct dns_answer *answer);

enum error dns_new(struct loop *loop, const struct dns_settings *settings,
                   struct dns **ret_dns) MUST_CHECK;
void dns_free(struct dns *dns);
/* A and AAAA. The answer always comes on the loop, once, unless cancelled. NULL: memory. */
struct dns_query *dns_resolve(struct dns *dns, struct slice name, dns_fn *fn, void *context);
void dns_cancel(struct dns_query *query);

#endif
