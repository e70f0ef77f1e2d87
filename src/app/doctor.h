/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast check DOMAIN`: is this host set up rightly as a backup MX of the domain? Asks the DNS,
 * the exchangers, the domain's published policies and the running daemon, one after another, and
 * tells each finding with what to do about it. Waits for answers: for a tool, not for a daemon.
 */
#ifndef HOLDFAST_APP_DOCTOR_H
#define HOLDFAST_APP_DOCTOR_H

#include "service/config.h"
#include "sys/dns.h"

enum doctor_level { DOCTOR_GOOD, DOCTOR_WARNING, DOCTOR_BAD };

struct doctor_finding {
    const char *check;   /* "server", "mx", "address", "reverse", "greeting", "tls", "tlsa",
                            "mta-sts", "spf",   "route", "recipients", "disk", "clock", "daemon" */
    const char *subject; /* the host or name it is about */
    enum doctor_level level;
    const char *text;
    const char *advice; /* NULL: nothing to do */
};

/* What the running daemon says of itself; `known` false: it does not answer. */
struct doctor_daemon {
    bool known;
    bool accepting;
    int64_t available_bytes, reserve_bytes;
    int64_t copy_bytes;  /* safety copies, which make room */
    int64_t bytes_a_day; /* of mail taken in; 0: not known yet */
    struct doctor_recipients {
        bool known; /* it has a table of them */
        int64_t good, bad;
        int64_t list_age_s, checked_age_s; /* of its list; -1: never */
        const char *problem;               /* of the last look at it; NULL: none */
    } recipients;
};

struct doctor_settings {
    const struct service_config *config;
    const struct dns_settings *dns;
    struct doctor_daemon daemon;
    struct slice domain; /* lower case */
    uint16_t port;       /* at which exchangers are greeted: 25 */
    uint32_t timeout_ms; /* of each step with a server */
    /* Called with each finding as it is made. */
    void (*tell)(void *context, const struct doctor_finding *finding);
    void *context;
};

/* How many findings were bad. */
unsigned doctor_run(const struct doctor_settings *settings);

#endif
