/* SPDX-License-Identifier: Apache-2.0
 *
 * The examination: first what we need to know of ourselves, then what the world sees.
 */
#include "app/doctor_internal.h"

#include "relay/routing.h"
#include "sys/clock.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/timex.h>

void tell(struct doctor *doctor, const char *check, struct slice subject, enum doctor_level level,
          const char *advice, const char *format, ...)
{
    char text[512], name[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    snprintf(name, sizeof(name), "%.*s", SLICE_PRINT(subject));
    struct doctor_finding finding = {check, name, level, text, advice};
    doctor->bad += level == DOCTOR_BAD;
    doctor->settings->tell(doctor->settings->context, &finding);
}

/* ---- who we are --------------------------------------------------------------------------- */

bool is_own(const struct doctor *doctor, const struct ip_address *address)
{
    for (size_t i = 0; i < doctor->own_count; i++) {
        if (ip_equal(&doctor->own[i], address)) {
            return true;
        }
    }
    return false;
}

static void add_own(struct doctor *doctor, const struct ip_address *address)
{
    if (doctor->own_count < DOCTOR_ADDRESSES_MAX && !is_own(doctor, address)) {
        doctor->own[doctor->own_count++] = *address;
    }
}

static void add_interfaces(struct doctor *doctor)
{
    struct ifaddrs *list = NULL;
    if (getifaddrs(&list) != 0) {
        return;
    }
    for (const struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
        struct ip_address address = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}};
        if (at->ifa_addr == NULL || (at->ifa_flags & IFF_LOOPBACK) != 0) {
            continue;
        }
        if (at->ifa_addr->sa_family == AF_INET) {
            struct sockaddr_in v4;
            memcpy(&v4, at->ifa_addr, sizeof(v4));
            memcpy(address.bytes + 12, &v4.sin_addr, 4);
            add_own(doctor, &address);
        } else if (at->ifa_addr->sa_family == AF_INET6) {
            struct sockaddr_in6 v6;
            memcpy(&v6, at->ifa_addr, sizeof(v6));
            memcpy(address.bytes, &v6.sin6_addr, 16);
            add_own(doctor, &address);
        }
    }
    freeifaddrs(list);
}

/* Nobody answers: what follows would only be told the same. */
static bool is_silent(enum error error)
{
    return error == ERROR_TIMEOUT || error == ERROR_IO;
}

static void examine_ourselves(struct doctor *doctor)
{
    struct slice hostname = doctor->settings->config->hostname;
    struct dns_answer answer = ask_addresses(doctor, hostname);
    add_interfaces(doctor);
    size_t interfaces = doctor->own_count;
    if (is_silent(answer.error)) {
        tell(doctor, "address", hostname, DOCTOR_BAD, "look at dns-forwarders and the name server",
             "whether our hostname has an address cannot be found out: no answer");
        return;
    }
    if (answer.error != ERROR_NONE) {
        tell(doctor, "address", hostname, DOCTOR_BAD,
             "give the hostname an A or AAAA record; many servers refuse a name without one",
             "our hostname has no address: %s", error_text(answer.error));
        return;
    }
    size_t here = 0;
    for (size_t i = 0; i < answer.count; i++) {
        here += is_own(doctor, &answer.addresses[i]);
        add_own(doctor, &answer.addresses[i]);
    }
    if (here == 0 && interfaces > 0) {
        tell(doctor, "address", hostname, DOCTOR_WARNING,
             "right behind address translation; else correct the record",
             "our hostname has no address of this machine");
    } else {
        tell(doctor, "address", hostname, DOCTOR_GOOD, NULL, "our hostname has %zu address%s",
             answer.count, answer.count == 1 ? "" : "es");
    }
}

/* ---- our own state ------------------------------------------------------------------------ */

static void examine_list(struct doctor *doctor, const struct doctor_recipients *recipients)
{
    enum { STALE_S = 86400 };
    struct slice domain = doctor->settings->domain;
    uint64_t every_s = doctor->route->recipients_every_ms / 1000;
    bool is_old =
        recipients->checked_age_s < 0 ||
        (recipients->checked_age_s > STALE_S && (uint64_t)recipients->checked_age_s > 3 * every_s);
    if (!recipients->known || recipients->list_age_s < 0) {
        tell(doctor, "recipients", domain, DOCTOR_BAD, "see holdfast recipients list, and the log",
             "its list of recipients has never been taken: %s",
             recipients->problem != NULL ? recipients->problem : "no reason is known yet");
    } else if (recipients->problem != NULL || is_old) {
        tell(doctor, "recipients", domain, DOCTOR_WARNING,
             "see to the file, page or directory it comes from",
             "its list of %lld recipients is %lld min old and not fresh: %s",
             (long long)recipients->good, (long long)recipients->list_age_s / 60,
             recipients->problem != NULL ? recipients->problem : "it was not looked at since");
    } else {
        tell(doctor, "recipients", domain, DOCTOR_GOOD, NULL,
             "its list of %lld recipients was looked at %lld min ago", (long long)recipients->good,
             (long long)recipients->checked_age_s / 60);
    }
}

static void examine_recipients(struct doctor *doctor)
{
    const struct doctor_daemon *daemon = &doctor->settings->daemon;
    const struct doctor_recipients *recipients = &daemon->recipients;
    struct slice domain = doctor->settings->domain;
    if (doctor->route->recipients == RECIPIENTS_ANY) {
        tell(doctor, "recipients", domain, DOCTOR_WARNING,
             "expect dead letters for addresses that do not exist",
             "every recipient is accepted: there is no list of those that exist");
    } else if (!daemon->known) {
        return; /* which is a finding by itself */
    } else if (doctor->route->recipients == RECIPIENTS_LIST) {
        examine_list(doctor, recipients);
    } else if (recipients->good + recipients->bad == 0) {
        tell(doctor, "recipients", domain, DOCTOR_WARNING,
             "give it some: holdfast recipients import; or wait for mail while the server is up",
             "nothing has been learned of its recipients yet");
    } else {
        tell(doctor, "recipients", domain, DOCTOR_GOOD, NULL,
             "of its recipients %lld are known to exist, and %lld not to",
             (long long)recipients->good, (long long)recipients->bad);
    }
}

static void examine_route(struct doctor *doctor)
{
    const struct doctor_settings *settings = doctor->settings;
    struct routing *routing = routing_new(&settings->config->relay);
    uint32_t route = routing != NULL ? routing_domain(routing, settings->domain) : NO_INDEX;
    routing_free(routing);
    if (route == NO_INDEX) {
        tell(doctor, "route", settings->domain, DOCTOR_BAD, "add a domain block for it, and reload",
             "the domain is not configured here: its mail is refused");
        return;
    }
    const struct route_config *config = doctor->route = &settings->config->relay.routes[route];
    struct slice head = config->mx && config->mx_place == 0
                            ? SLICE_LITERAL("the exchangers that DNS names")
                            : settings->config->relay.servers[config->chain[0]].name;
    tell(doctor, "route", settings->domain, DOCTOR_GOOD, NULL, "its mail is handed over to %.*s%s",
         SLICE_PRINT(head),
         config->chain_length + config->mx > 1 ? " and the servers behind it" : "");
    examine_recipients(doctor);
}

static void examine_disk(struct doctor *doctor)
{
    const struct doctor_daemon *daemon = &doctor->settings->daemon;
    struct slice hostname = doctor->settings->config->hostname;
    if (!daemon->known) {
        tell(doctor, "daemon", hostname, DOCTOR_WARNING, "start it: holdfastd -c FILE",
             "the daemon does not run, or this user may not ask it");
        return;
    }
    tell(doctor, "daemon", hostname, daemon->accepting ? DOCTOR_GOOD : DOCTOR_BAD,
         daemon->accepting ? NULL : "see holdfast status", "the daemon runs and %s mail",
         daemon->accepting ? "accepts" : "refuses");
    int64_t room = daemon->available_bytes + daemon->copy_bytes - daemon->reserve_bytes;
    if (room <= 0) {
        tell(doctor, "disk", hostname, DOCTOR_BAD, "free space: mail is refused",
             "free space is below the reserve");
    } else if (daemon->bytes_a_day <= 0) {
        tell(doctor, "disk", hostname, DOCTOR_GOOD, NULL,
             "%lld MB are free above the reserve; how much mail comes is not known yet",
             (long long)(room >> 20));
    } else {
        enum { DAYS_ENOUGH = 14 };
        long long days = (long long)(room / daemon->bytes_a_day);
        bool enough = days >= DAYS_ENOUGH;
        tell(doctor, "disk", hostname, enough ? DOCTOR_GOOD : DOCTOR_WARNING,
             enough ? NULL : "give the journal a larger file system, or set a quota",
             "at %lld MB of mail a day the disk is full after %lld days of an outage",
             (long long)(daemon->bytes_a_day >> 20), days);
    }
}

static void examine_clock(struct doctor *doctor)
{
    struct timex state = {0};
    struct slice hostname = doctor->settings->config->hostname;
    int status = adjtimex(&state);
    if (status < 0 || (state.status & STA_UNSYNC) != 0) {
        tell(doctor, "clock", hostname, DOCTOR_WARNING,
             "run an NTP client: trace fields and certificates need the right time",
             "the clock is not synchronised");
    } else {
        tell(doctor, "clock", hostname, DOCTOR_GOOD, NULL, "the clock is synchronised");
    }
}

/* A subject and the time that others' name servers can keep it. */
static void examine(struct doctor *doctor, void (*subject)(struct doctor *doctor),
                    int64_t patience_ms)
{
    doctor->until_ms = clock_steady_ms() + patience_ms;
    subject(doctor);
}

enum { PATIENCE_MS = 30000, HOSTS_PATIENCE_MS = 300000 };

unsigned doctor_run(const struct doctor_settings *settings)
{
    struct doctor *doctor = calloc(1, sizeof(*doctor));
    if (doctor == NULL) {
        return 1;
    }
    doctor->settings = settings;
    arena_init(&doctor->arena);
    doctor->loop = loop_new();
    if (doctor->loop != NULL && dns_new(doctor->loop, settings->dns, &doctor->dns) == ERROR_NONE) {
        examine_route(doctor);
        examine(doctor, examine_ourselves, PATIENCE_MS);
        examine(doctor, examine_chain, HOSTS_PATIENCE_MS);
        examine(doctor, examine_exchangers, PATIENCE_MS);
        examine(doctor, examine_hosts, HOSTS_PATIENCE_MS);
        examine(doctor, examine_mta_sts, PATIENCE_MS);
        examine(doctor, examine_spf, PATIENCE_MS);
        examine_disk(doctor);
        examine_clock(doctor);
    } else {
        tell(doctor, "dns", settings->domain, DOCTOR_BAD, "look at dns-forwarders",
             "the resolver cannot be started");
    }
    unsigned bad = doctor->bad;
    dns_free(doctor->dns);
    loop_free(doctor->loop);
    arena_done(&doctor->arena);
    free(doctor);
    return bad;
}
