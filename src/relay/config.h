/* SPDX-License-Identifier: Apache-2.0
 *
 * Servers, chains and routes as configured: plain data, checked when the configuration was read
 * (app/settings), immutable afterwards and shared by reference. Indexes are positions in the arrays
 * of struct relay_config.
 */
#ifndef HOLDFAST_RELAY_CONFIG_H
#define HOLDFAST_RELAY_CONFIG_H

#include "base/network.h"
#include "base/slice.h"

#define NO_INDEX UINT32_MAX

/* SERVER_ODMR (RFC 2645): it has no address, for its client calls us and the connection is turned
 * round. Always the last of its chains, and of `domain` routes of one plain name only. */
enum server_protocol { SERVER_SMTP, SERVER_LMTP, SERVER_ODMR };
enum server_tls {
    SERVER_TLS_NONE,
    SERVER_TLS_OPPORTUNISTIC, /* where it is offered and works; whoever answers (RFC 7435) */
    SERVER_TLS_ENCRYPT,       /* always; whoever answers */
    SERVER_TLS_REQUIRED,      /* always, and the server proves its name */
    SERVER_TLS_IMPLICIT,      /* as REQUIRED, before the greeting (RFC 8314 3.3) */
    SERVER_TLS_DANE,          /* as its TLSA records demand (RFC 7672); without any OPPORTUNISTIC */
    SERVER_TLS_MTA_STS, /* as DANE; without TLSA records as the policy of its domain demands */
};

/* What the MTA-STS policy of a domain (RFC 8461) says of one of its servers. */
enum sts_demand {
    STS_NONE,             /* there is no policy, or its mode is none */
    STS_UNFETCHED,        /* there is said to be one, but it cannot be had or used: as STS_NONE */
    STS_TESTING,          /* it is to prove its name; if it does not, the mail goes all the same */
    STS_TESTING_UNLISTED, /* the policy does not know it; likewise */
    STS_ENFORCE,          /* it must prove its name */
    STS_ENFORCE_UNLISTED, /* nothing may be sent to it */
    STS_DEMANDS,
};

/* What is demanded is said by those whose server it is, not by our operator. */
static inline bool server_tls_is_theirs(enum server_tls tls)
{
    return tls == SERVER_TLS_DANE || tls == SERVER_TLS_MTA_STS;
}

static inline bool server_tls_asks_authorities(enum server_tls tls)
{
    return tls == SERVER_TLS_REQUIRED || tls == SERVER_TLS_IMPLICIT;
}

/* As in the configuration. */
static inline const char *server_tls_text(enum server_tls tls)
{
    static const char *const texts[] = {"none",     "opportunistic", "encrypt", "required",
                                        "implicit", "dane",          "mta-sts"};
    return texts[tls];
}

/* "mail1.example.com:25", "192.0.2.1:25", "[2001:db8::1]:25" taken apart. */
struct server_address {
    struct slice host; /* a name, or empty when `literal` holds */
    struct ip_address literal;
    bool is_literal;
    uint16_t port;
};

struct ip_networks {
    const struct ip_network *all;
    uint32_t count;
};

enum server_proxy { SERVER_PROXY_OFF, SERVER_PROXY_V2 };

struct server_config {
    struct slice name;
    struct slice signed_by; /* an exchanger: the domain whose signed MX records name it, or empty */
    const struct server_address *addresses;
    uint32_t address_count; /* 0 with SERVER_ODMR only */
    const struct ip_networks
        *only; /* its routes' deliver-only-to: in each of them, or not at all */
    uint32_t only_count;
    enum server_protocol protocol;
    enum server_tls tls;
    enum sts_demand sts; /* of an exchanger with SERVER_TLS_MTA_STS; never configured */
    bool waived;         /* an exchanger: gets only mail whose sender waives what its domain demands
                            (RFC 8689 5); never configured */
    bool ignores_waivers;  /* of all exchangers: no such mail is told apart, but our own reports */
    struct slice tls_name; /* that its certificate proves; empty: one of the hosts of `addresses` */
    struct slice tls_ca;   /* PEM; who may sign it; known to the sending process only */
    uint32_t connections;  /* most at once */
    uint32_t warm_up;      /* messages an hour while it stands in for the head of a chain; 0: any */
    uint32_t connect_timeout_ms;  /* 30 s */
    uint32_t greeting_timeout_ms; /* 60 s; 300 s at a chain's last server unless set */
    bool greeting_timeout_set;
    uint32_t command_timeout_ms; /* 5 min: RFC 5321 4.5.3.2 */
    uint32_t dot_timeout_ms;     /* 10 min */
    uint32_t probe_interval_ms;  /* 700 */
    uint32_t failover;           /* index of the next server, or NO_INDEX */
    bool has_source;
    struct ip_address source;
    struct slice helo;          /* empty: the hostname */
    struct slice auth_user;     /* empty: no logging in */
    struct slice auth_password; /* known to the sending process only; empty elsewhere */
    bool authoritative;
    bool hold_5xx_manual;
    uint32_t hold_5xx_after_recovery_ms;
    bool xclient;
    enum server_proxy proxy; /* the header that each connection begins with */
};

/* Of one of them, whose configuration is that of all exchangers so far: what our operator demands
 * still holds. */
static inline void server_config_waive(struct server_config *exchanger, bool waived)
{
    exchanger->waived = waived;
    if (waived && server_tls_is_theirs(exchanger->tls)) {
        exchanger->tls = SERVER_TLS_OPPORTUNISTIC;
    }
}

enum route_kind { ROUTE_DOMAIN, ROUTE_RELAY };
enum unknown_policy { UNKNOWN_ACCEPT, UNKNOWN_DEFER };
enum recipients_source { RECIPIENTS_ANY, RECIPIENTS_LEARN, RECIPIENTS_LIST };

/* A name to match: exact, or with `wild` every subdomain ("*.example.com"). Lower case. */
struct domain_pattern {
    struct slice name;
    bool wild;
    bool alias; /* its recipients are those of the route's first name */
};

/* "*@example.com", "ann@example.com", "*": matched case-insensitively, `*` any run of bytes. */
struct sender_pattern {
    struct slice text;
};

struct route_config {
    enum route_kind kind;
    struct slice name; /* the block's title; of a domain list the name of its first entry */
    const struct domain_pattern *domains; /* ROUTE_DOMAIN */
    uint32_t domain_count;
    const struct ip_network *from; /* ROUTE_RELAY */
    uint32_t from_count;
    bool any_user;                        /* ROUTE_RELAY: authenticated users may use it */
    const struct sender_pattern *senders; /* ROUTE_RELAY; none: every sender */
    uint32_t sender_count;
    const uint32_t *chain; /* server indexes, head first; empty only under MX routing */
    uint32_t chain_length;
    bool mx;           /* the exchangers of the recipient's domain belong to the chain: */
    uint32_t mx_place; /* so many of the servers above come before them */
    const struct ip_network *deliver_only_to; /* none: any address; under MX any public one */
    uint32_t deliver_only_to_count;
    const uint32_t *retry_ms; /* the last repeats; never empty */
    uint32_t retry_count;
    uint64_t keep_ms;
    uint64_t keep_max_ms;
    uint32_t order_patience_ms;
    uint64_t delay_notice_ms; /* 0: none */
    uint64_t quota_bytes;     /* 0: none; QUOTA_DEFAULT: half the file system */
    enum recipients_source recipients;
    struct slice recipients_token; /* for that URL; known to the process that fetches only */
    struct slice recipients_list;  /* RECIPIENTS_LIST: an absolute path, a URL, "ldap:NAME", or
                                      "cluster:NAME" */
    struct slice recipients_text;  /* of the last; known to the process that reads lists only */
    uint64_t recipients_every_ms;  /* so often it is asked for; a path whenever it changes */
    enum unknown_policy unknown;
    bool only_when_down;      /* ROUTE_DOMAIN: strangers are put off while the chain's head is up */
    struct slice separators;  /* each of them begins what a local part has beside its name */
    bool case_sensitive;      /* local parts */
    bool refuses_own_senders; /* its addresses as senders, from strangers */
    struct slice drill_recipient;
    const struct ip_network *etrn_from; /* ROUTE_DOMAIN: who may ask beside its servers */
    uint32_t etrn_from_count;
    /* ROUTE_DOMAIN, in a cluster (cluster/share.h): */
    struct slice share_group; /* the nodes, or the site, that it prefers; or empty */
    bool split;               /* its recipients are spread over nodes */
};
#define QUOTA_DEFAULT UINT64_MAX

static inline bool route_list_is_file(const struct route_config *route)
{
    return route->recipients == RECIPIENTS_LIST && route->recipients_list.length > 0 &&
           route->recipients_list.data[0] == '/';
}

/* It came with the configuration. */
static inline bool route_list_is_shared(const struct route_config *route)
{
    static const struct slice scheme = SLICE_LITERAL("cluster:");
    return route->recipients == RECIPIENTS_LIST &&
           slice_starts_fold(route->recipients_list, scheme);
}

static inline bool route_list_is_directory(const struct route_config *route, struct slice *ret_name)
{
    static const struct slice scheme = SLICE_LITERAL("ldap:");
    *ret_name = slice_skip(route->recipients_list, scheme.length);
    return route->recipients == RECIPIENTS_LIST &&
           slice_starts_fold(route->recipients_list, scheme);
}

struct relay_config {
    const struct server_config *servers;
    uint32_t server_count;
    const struct route_config *routes; /* in order of the file: relays match first to last */
    uint32_t route_count;
    uint32_t bounces; /* index of the relay route that DSNs leave by, or NO_INDEX */
    struct slice hostname;
    const struct ip_address *nat_addresses; /* that others know us by, beside our own */
    uint32_t nat_address_count;
    struct server_config exchanger; /* what holds for the exchangers of MX routing; no name */
    struct slice postmaster;        /* where postmaster and abuse mail goes; empty: refused */
    uint64_t dead_letter_keep_ms;
};

/* The index of the server with this name, or NO_INDEX. */
static inline uint32_t relay_config_server(const struct relay_config *config, struct slice name)
{
    for (uint32_t i = 0; i < config->server_count; i++) {
        if (slice_equal(config->servers[i].name, name)) {
            return i;
        }
    }
    return NO_INDEX;
}

/* The index that a server of an older configuration has in this one, or NO_INDEX. */
static inline uint32_t relay_config_remap(const struct relay_config *config,
                                          const struct relay_config *old, uint32_t server)
{
    return server < old->server_count ? relay_config_server(config, old->servers[server].name)
                                      : NO_INDEX;
}

#endif
