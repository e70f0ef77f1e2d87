/* SPDX-License-Identifier: Apache-2.0
 *
 * Names to addresses and other records on a loop, by libunbound (native event interface),
 * validating where anchors are given. Simulated twin: tests/sim/net_sim.c.
 */
#ifndef HOLDFAST_SYS_DNS_H
#define HOLDFAST_SYS_DNS_H

#include "base/network.h"
#include "sys/loop.h"

enum { DNS_ADDRESSES_MAX = 16, DNS_RECORDS_MAX = 64, DNS_NAME_MAX = 255 };

struct dns;
struct dns_query;

struct dns_answer {
    enum error
        error; /* NONE; MISSING: NXDOMAIN or no data; TIMEOUT, IO: no answer; CORRUPT: bogus */
    struct ip_address addresses[DNS_ADDRESSES_MAX];
    size_t count;
    uint32_t ttl_s;
    bool secure;            /* validated, all of it: with the aliases on the way */
    bool is_whole;          /* both kinds of addresses have been answered, if only by "none" */
    struct slice canonical; /* the name that has them, as in dns_record, behind all aliases; empty:
                               not known; valid during the call */
};

enum dns_type { DNS_A = 1, DNS_CNAME = 5, DNS_PTR = 12, DNS_MX = 15, DNS_TXT = 16, DNS_TLSA = 52 };

struct dns_record {
    uint16_t preference; /* MX */
    struct slice
        name; /* CNAME, MX, PTR: lower case, without the last dot; "." is the root: null MX */
    struct slice data; /* A: four bytes; TXT: its strings joined; TLSA: the record's bytes (RFC
                          6698 2.1) */
};

struct dns_records {
    enum error error; /* as above */
    bool no_name;     /* with MISSING: NXDOMAIN; else the name is there, but no such record */
    const struct dns_record *records; /* at most DNS_RECORDS_MAX, of MX the most preferred; valid
                                         during the call */
    size_t count;
    uint32_t ttl_s;
    bool secure;
    struct slice owner; /* the name that has them, behind all aliases; empty: not known, or none */
};

struct dns_settings {
    const char *const *forwarders; /* "192.0.2.53" or "192.0.2.53@5353"; none: resolv.conf's */
    size_t forwarder_count;
    const char *trust_anchor; /* DNSKEY or DS records, a line each, comments after ';'; or NULL: no
                                 validation */
    const char *hosts;        /* text in hosts(5) form, or NULL; read by the keeper, not by us */
};

typedef void dns_fn(void *context, const struct dns_answer *answer);
typedef void dns_records_fn(void *context, const struct dns_records *records);

enum error dns_new(struct loop *loop, const struct dns_settings *settings,
                   struct dns **ret_dns) MUST_CHECK;
void dns_free(struct dns *dns);
/* A and AAAA. The answer always comes on the loop, once, unless cancelled. NULL: memory. */
struct dns_query *dns_resolve(struct dns *dns, struct slice name, dns_fn *fn, void *context);
/* Records of one type, CNAMEs followed; the answer comes as above. A record that breaks its type's
 * grammar is left out; if none is left of some, the error is IO. */
struct dns_query *dns_lookup(struct dns *dns, struct slice name, enum dns_type type,
                             dns_records_fn *fn, void *context);
void dns_cancel(struct dns_query *query);
/* The name under which an address has its PTR: "7.2.0.192.in-addr.arpa". */
enum { DNS_REVERSE_MAX = 73 };
void dns_reverse_name(const struct ip_address *address, char ret_name[DNS_REVERSE_MAX]);

#endif
