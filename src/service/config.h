/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole configuration as data, made by app/settings from the file, immutable, passed by
 * reference. Every role parses the same text and so has the same indexes.
 */
#ifndef HOLDFAST_SERVICE_CONFIG_H
#define HOLDFAST_SERVICE_CONFIG_H

#include "proto/ldap_text.h"
#include "relay/access.h"
#include "relay/config.h"
#include "sys/log.h"
#include "sys/tls.h"

enum {
    LISTENERS_MAX = 64,    /* descriptors that every process may be given */
    HOOKS_MAX = 16,        /* alert blocks */
    GUARDS_MAX = 64,       /* guard blocks */
    GUARD_PLACES_MAX = 8,  /* addresses of one of their keys */
    GUARD_NAME_MAX = 64,   /* octets of their servers' names */
    STATE_PATH_MAX = 3000, /* octets; leaves room below PATH_MAX for what lies there */
    MILTERS_MAX = 16,
    MILTER_NAME_MAX = 63,
    MILTER_PATH_MAX = 107, /* octets of a local socket's path (unix(7)) */
    LDAPS_MAX = 8,         /* ldap blocks, */
    LDAP_URLS_MAX = 8,     /* servers of each */
    LDAP_NAME_MAX = 31,
    LDAP_ATTRIBUTES_MAX = 8,
};

enum listener_protocol { LISTENER_SMTP, LISTENER_HTTP, LISTENER_ODMR, LISTENER_SUBMISSION };

/* Who may fetch the mail of which domains (RFC 2645); all of one server. */
struct odmr_user {
    struct slice name;
    struct slice password;
    const struct slice *domains; /* 1 to RELAY_ATRN_DOMAINS_MAX */
    uint32_t domain_count;
    uint32_t line; /* of the file, for messages */
};

enum listener_tls { LISTENER_TLS_NONE, LISTENER_TLS_STARTTLS, LISTENER_TLS_IMPLICIT };
/* A line of a file of hashes: who may log in, and send as whom. */
struct login_entry {
    struct slice name;
    struct slice hash;
    const struct slice *addresses;
    uint32_t address_count;
};

/* Where it is known who may log in; asked in order. */
enum login_source_kind {
    LOGIN_SOURCE_USERS,
    LOGIN_SOURCE_FILE,
    LOGIN_SOURCE_LDAP,
    LOGIN_SOURCE_PAM
};
struct login_source {
    enum login_source_kind kind;
    struct slice name; /* LOGIN_SOURCE_LDAP: of the ldap block; PAM: of the service */
    const struct login_entry *entries; /* LOGIN_SOURCE_FILE; known to the login process only */
    uint32_t entry_count;
};

enum sender_check { SENDER_CHECK_ENVELOPE, SENDER_CHECK_NONE, SENDER_CHECK_HEADER };

/* A directory of an ldap block, and how to find a user in it, or all recipients. */
struct ldap_config {
    struct slice name;
    const struct ldap_url *urls; /* of servers that know the same, in order of preference */
    uint32_t url_count;
    bool has_tls;          /* by ldaps or StartTLS; without, the servers are on this machine */
    struct slice tls_name; /* empty: the host of each URL */
    struct slice tls_ca;   /* PEM; this and the password are known to the asking process only */
    struct slice bind_dn;  /* who searches; empty: anybody */
    struct slice bind_password; /* not empty if bind_dn is not */
    struct slice base;
    struct slice filter;           /* a template (proto/ldap_text.h) */
    struct slice dn;               /* likewise, of a user's entry; empty: it is searched for */
    const char *const *attributes; /* that have his addresses, and a NULL */
    uint32_t attribute_count;
    struct slice recipients_filter; /* of a list of recipients: no template */
    uint32_t timeout_ms;
};

/* What happens to mail that a filter which is away should have seen. */
enum milter_default { MILTER_DEFAULT_ACCEPT, MILTER_DEFAULT_TEMPFAIL, MILTER_DEFAULT_LISTENER };

/* A filter that looks at mail while it comes in (proto/milter.h). */
struct milter_config {
    struct slice name;
    struct slice path; /* of a local socket; empty: `at` */
    struct ip_endpoint at;
    uint32_t connect_timeout_ms;
    uint32_t command_timeout_ms; /* for each answer before the content */
    uint32_t content_timeout_ms; /* from the header on */
    uint32_t sessions;           /* of clients, one after another on one connection */
    enum milter_default otherwise;
};

struct listener_config {
    struct slice name;
    struct ip_endpoint at;
    enum listener_protocol protocol;
    uint32_t greeting_delay_ms; /* of strangers */
    uint32_t greylist_ms;       /* likewise; 0: none */
    uint32_t dnsbl_score;       /* of a stranger that is refused; 0: none is asked for */
    struct ip_networks trusted; /* that may use XCLIENT and XFORWARD */
    bool believes_login;        /* that XCLIENT tells */
    bool tells_login;           /* in Authentication-Results */
    struct ip_networks proxies; /* that must send a PROXY header */
    bool reject_bare_newline;   /* else normalize (R10) */
    enum listener_tls tls;
    /* At least one where there is TLS; known to the receiving process only: empty elsewhere. */
    const struct tls_certificate *certificates;
    uint32_t certificate_count;
    struct slice client_ca; /* PEM, likewise; empty: clients are asked for no certificate */
    const struct odmr_user *odmr_users; /* known to the login process only; none elsewhere */
    uint32_t odmr_user_count;
    uint32_t odmr_source;         /* of the settings, for messages */
    uint8_t milters[MILTERS_MAX]; /* indexes, in the order in which they are asked */
    uint32_t milter_count;
    enum milter_default milter_default;       /* ACCEPT or TEMPFAIL */
    const struct login_source *login_sources; /* none: nobody may log in */
    uint32_t login_source_count;
    bool login_in_clear; /* from loopback, without TLS */
    enum sender_check sender_check;
};

/* A DNS list of addresses (RFC 5782). */
struct dnsbl_config {
    struct slice name;
    struct slice zone;
    bool is_good;                     /* of the good: its weight counts against the others' */
    uint32_t weight;                  /* 1 or more */
    const struct ip_network *answers; /* that mean something */
    uint32_t answer_count;
};

struct limits_config {
    uint32_t connections;            /* in all */
    uint32_t connections_per_client; /* loopback exempt */
    uint32_t recipients;             /* per message */
    uint64_t message_bytes;
    uint32_t line_bytes; /* longest content line accepted */
    uint32_t header_bytes;
    uint32_t commands; /* per session without a message in between */
    uint32_t errors;   /* per session */
    uint32_t command_timeout_ms;
    uint32_t session_timeout_ms;
    uint32_t hops; /* Received fields */
    /* Of strangers; 0: any. */
    uint32_t connections_per_network; /* IPv4 /24, IPv6 /48 */
    uint32_t connection_rate;         /* of one client, in a minute, */
    uint32_t message_rate;
    uint32_t recipient_rate;
    uint32_t refused_rate;    /* recipients refused for good */
    uint32_t refused;         /* of one session */
    uint32_t tarpit_ms;       /* delay of their answers; 0: none */
    uint32_t user_recipients; /* of one user's mail in an hour; 0: any */
};

/* An alert block: whom to tell of what. Exactly one of exec, url and mail is not empty. */
struct hook_config {
    struct slice name;
    uint64_t kinds;      /* bit of each enum alert_kind */
    struct slice exec;   /* path; ends in NUL, which the length does not count */
    struct slice url;    /* likewise */
    struct slice secret; /* of the url; known to the helper only; empty elsewhere */
    struct slice mail;
    uint64_t repeat_ms;  /* while it stands; 0: never */
    uint32_t timeout_ms; /* of one program or request */
    uint32_t rate;       /* messages an hour */
};

enum { CLUSTER_DATABASE_MAX = 4095 };

struct cluster_config {
    struct slice database; /* for libpq; empty: there is no cluster */
    struct slice password; /* of the database; known to core and helper only; empty elsewhere */
    struct slice name;
    struct slice site; /* or empty */
    unsigned roles;    /* enum node_role (cluster/balance.h) */
    bool defers;       /* mail that the database cannot take now; else the journal takes it */
};

enum guard_undo_when { GUARD_UNDO_MANUAL, GUARD_UNDO_WATCH, GUARD_UNDO_SERVER };

/* A guard block: what is run when a server stays down, and when it is back (service/guard.h). */
struct guard_config {
    struct slice name;  /* the server's */
    uint32_t server;    /* its index */
    struct slice start; /* path; ends in NUL, which the length does not count */
    struct slice undo;  /* likewise; empty: none */
    uint64_t after_ms;
    uint64_t back_after_ms;
    uint32_t timeout_ms; /* of one run */
    uint32_t tries;      /* runs of one script before it has failed */
    enum guard_undo_when undo_when;
    /* The server's machine, at addresses that no standby takes; others, which tell whether it is we
     * who are cut off. */
    struct ip_endpoint watch[GUARD_PLACES_MAX], witness[GUARD_PLACES_MAX];
    uint32_t watch_count, witness_count;
};

enum { STANDBY_WATCH_MAX = 8 };

/* Two machines share the state directory, and one of them works (docs/decisions/0047). */
struct standby_config {
    struct slice name, of; /* ours; the other one's; `of` is empty: there is none */
    uint32_t after_ms;
    struct slice fence, before, after_takeover, after_release; /* programs, or empty */
    struct slice known; /* directory, where it is remembered which state is the shared one */
    const struct ip_endpoint *watch; /* where the other one must answer */
    uint32_t watch_count;
};

enum { LIST_FILES_MAX = 64, LIST_PATH_MAX = 255 }; /* files with lists of recipients */

struct service_config {
    struct slice hostname;
    struct slice authserv_id; /* by which our filters sign (RFC 8601) */
    struct slice state;       /* directory, absolute */
    struct slice user;        /* empty: stay who we are */
    struct slice group;       /* of the control socket; empty: the user's */
    uint16_t node;
    uint32_t loops; /* event loops per edge; 0: one per core */
    const struct listener_config *listeners;
    uint32_t listener_count;
    const struct milter_config *milters;
    uint32_t milter_count;
    const struct ldap_config *ldaps;
    uint32_t ldap_count;
    struct limits_config limits;
    const struct access_rule *access; /* in the order of the file */
    uint32_t access_count;
    const struct dnsbl_config *dnsbls;
    uint32_t dnsbl_count;
    struct relay_config relay;
    uint64_t reserve_bytes;  /* 0: the default of DESIGN */
    uint64_t safety_copy_ms; /* 0: what was handed over is not kept */
    uint64_t content_memory_bytes;
    uint64_t trace_keep_ms;
    uint64_t trace_bytes; /* 0: by the size of the file system */
    uint64_t large_content_bytes;
    uint32_t segment_bytes;
    enum log_target log_target;
    enum log_level log_level;
    const struct slice *dns_forwarders;
    uint32_t dns_forwarder_count;
    struct slice dns_trust_anchor;
    struct slice tls_reports;              /* the address that they are from; empty: none */
    struct slice tls_reports_organization; /* empty: the hostname */
    const struct hook_config *hooks;
    uint32_t hook_count;
    struct cluster_config cluster;
    struct standby_config standby;
    uint64_t settings_version; /* of the cluster's settings that this was read with; 0: none */
    struct slice users_text; /* the table of users that came with them; empty: there is the own one.
                                Known to login only */
    bool joining; /* a member of a cluster that does not know the cluster's settings yet */
    const struct guard_config *guards;
    uint32_t guard_count;
};

#endif
