/* SPDX-License-Identifier: Apache-2.0
 *
 * The exchangers as the world sees them: their order and our place in it, their addresses and
 * reverse names, how they greet, and whether their certificates prove their names.
 */
#include "app/doctor_internal.h"

#include "sys/clock.h"
#include "sys/net.h"
#include "sys/tls_inspect.h"

#include <stdio.h>
#include <stdlib.h>

enum { ADDRESSES_GREETED = 4 };

/* ---- the MX set --------------------------------------------------------------------------- */

static int by_preference(const void *a, const void *b)
{
    const struct exchanger *left = a, *right = b;
    return (left->preference > right->preference) - (left->preference < right->preference);
}

static bool belongs_to_us(const struct doctor *doctor, const struct exchanger *exchanger)
{
    if (slice_equal_fold(exchanger->name, doctor->settings->config->hostname)) {
        return true;
    }
    for (size_t i = 0; i < exchanger->addresses.count; i++) {
        if (is_own(doctor, &exchanger->addresses.addresses[i])) {
            return true;
        }
    }
    return false;
}

static bool has_served_address(const struct doctor *doctor, const struct exchanger *exchanger)
{
    for (size_t i = 0; i < exchanger->addresses.count; i++) {
        if (is_served(doctor, &exchanger->addresses.addresses[i])) {
            return true;
        }
    }
    return false;
}

/* False: there is nothing to look at further. */
static bool read_exchangers(struct doctor *doctor)
{
    struct slice domain = doctor->settings->domain;
    struct dns_records found = ask_records(doctor, domain, DNS_MX);
    if (found.error == ERROR_MISSING && !found.no_name) {
        tell(doctor, "mx", domain, DOCTOR_BAD,
             "publish MX records: the primary with a small number, this host with a larger one",
             "the domain has no MX record: mail goes to its own address, never to this host");
        return false;
    }
    if (found.error != ERROR_NONE) {
        tell(doctor, "mx", domain, DOCTOR_BAD, "look at the zone and at dns-forwarders",
             "the MX records cannot be read: %s", ask_trouble(&found));
        return false;
    }
    if (found.count == 1 && slice_equal(found.records[0].name, SLICE_LITERAL("."))) {
        tell(doctor, "mx", domain, DOCTOR_BAD, "publish the real MX records",
             "the domain says that it takes no mail (null MX)");
        return false;
    }
    doctor->exchangers_secure = found.secure;
    for (size_t i = 0; i < found.count && i < DOCTOR_EXCHANGERS_MAX; i++) {
        struct exchanger *exchanger = &doctor->exchangers[doctor->exchanger_count++];
        exchanger->preference = found.records[i].preference;
        exchanger->name = found.records[i].name;
        exchanger->addresses = ask_addresses(doctor, exchanger->name);
        exchanger->secure = found.secure && exchanger->addresses.secure;
        exchanger->ours = belongs_to_us(doctor, exchanger);
        exchanger->served = has_served_address(doctor, exchanger);
    }
    qsort(doctor->exchangers, doctor->exchanger_count, sizeof(doctor->exchangers[0]),
          by_preference);
    return true;
}

/* The first of ours, the first of those that we hand over to, the first of the others. */
static void find_first(const struct doctor *doctor, const struct exchanger **ret_ours,
                       const struct exchanger **ret_served, const struct exchanger **ret_other)
{
    *ret_ours = *ret_served = *ret_other = NULL;
    for (size_t i = 0; i < doctor->exchanger_count; i++) {
        const struct exchanger *exchanger = &doctor->exchangers[i];
        const struct exchanger **first = exchanger->ours     ? ret_ours
                                         : exchanger->served ? ret_served
                                                             : ret_other;
        *first = *first == NULL ? exchanger : *first;
    }
}

static void compare(struct doctor *doctor, const struct exchanger *ours,
                    const struct exchanger *best)
{
    struct slice domain = doctor->settings->domain;
    if (ours->preference < best->preference) {
        tell(doctor, "mx", domain, DOCTOR_WARNING,
             "give this host a larger number than the primary's",
             "this host (%u) comes before %.*s (%u): all mail takes the way through it",
             ours->preference, SLICE_PRINT(best->name), best->preference);
    } else if (ours->preference == best->preference) {
        tell(doctor, "mx", domain, DOCTOR_WARNING,
             "give this host a larger number than the primary's",
             "this host and %.*s have the same preference (%u): mail is split between them",
             SLICE_PRINT(best->name), ours->preference);
    } else {
        tell(doctor, "mx", domain, DOCTOR_GOOD, NULL, "%.*s (%u) comes first, this host (%u) after",
             SLICE_PRINT(best->name), best->preference, ours->preference);
    }
}

/* Under deliver-to = mx whoever is better than us is a server of ours. */
static void judge_our_place(struct doctor *doctor)
{
    struct slice domain = doctor->settings->domain;
    const struct exchanger *ours, *served, *other;
    find_first(doctor, &ours, &served, &other);
    if (ours == NULL) {
        size_t count = doctor->exchanger_count;
        tell(doctor, "mx", domain, DOCTOR_BAD,
             "publish an MX record for this host with a larger number than the primary's",
             count == 1 ? "this host is not the one exchanger: no mail comes here in an outage"
                        : "this host is not among the %zu exchangers: no mail comes here in an "
                          "outage",
             count);
    } else if (served != NULL) {
        compare(doctor, ours, served);
    } else if (other == NULL) {
        tell(doctor, "mx", domain, DOCTOR_WARNING,
             "right if the primary is hidden behind this host; else publish its MX record",
             "this host is the only exchanger");
    } else if (doctor->route == NULL || doctor->route->mx) {
        compare(doctor, ours, other);
    } else {
        tell(doctor, "mx", domain, DOCTOR_WARNING,
             "right if a filter stands in front of the primary; else correct deliver-to or the MX "
             "records",
             "no exchanger is a server that this host hands over to: %.*s (%u), this host (%u)",
             SLICE_PRINT(other->name), other->preference, ours->preference);
    }
}

void examine_exchangers(struct doctor *doctor)
{
    if (read_exchangers(doctor)) {
        judge_our_place(doctor);
    }
}

/* ---- reverse names ------------------------------------------------------------------------ */

static bool leads_back(struct doctor *doctor, struct slice name, const struct ip_address *address)
{
    struct dns_answer answer = ask_addresses(doctor, name);
    for (size_t i = 0; i < answer.count; i++) {
        if (ip_equal(&answer.addresses[i], address)) {
            return true;
        }
    }
    return false;
}

/* What others ask of a host that sends: its address has a name, and the name that address. */
static void examine_reverse(struct doctor *doctor, const struct exchanger *exchanger,
                            const struct ip_address *address)
{
    char text[IP_TEXT_SIZE], reverse[DNS_REVERSE_MAX];
    enum doctor_level worst = exchanger->ours ? DOCTOR_BAD : DOCTOR_WARNING;
    ip_to_text(address, text);
    dns_reverse_name(address, reverse);
    struct dns_records found = ask_records(doctor, slice_from_text(reverse), DNS_PTR);
    if (found.error != ERROR_NONE) {
        tell(doctor, "reverse", exchanger->name, worst,
             "ask whoever gave you the address for a PTR record", "%s has no name: %s", text,
             ask_trouble(&found));
    } else if (!leads_back(doctor, found.records[0].name, address)) {
        tell(doctor, "reverse", exchanger->name, worst,
             "make the name's A or AAAA record and the PTR record agree",
             "%s is called %.*s, which does not lead back to it", text,
             SLICE_PRINT(found.records[0].name));
    } else {
        tell(doctor, "reverse", exchanger->name, DOCTOR_GOOD, NULL, "%s is called %.*s", text,
             SLICE_PRINT(found.records[0].name));
    }
}

/* ---- greeting and certificate ------------------------------------------------------------- */

static void find_starttls(void *context, struct slice line)
{
    bool *offered = context;
    *offered |= slice_equal_fold(slice_trim(line), SLICE_LITERAL("STARTTLS"));
}

static void judge_certificate(struct doctor *doctor, const struct exchanger *exchanger,
                              const struct tls_inspection *found, bool has_tlsa)
{
    enum { DAYS_LEFT_ENOUGH = 14, DAY_S = 86400 };
    int64_t days = (found->not_after_s - clock_wall_ms() / 1000) / DAY_S;
    if (found->problem[0] != '\0') {
        tell(doctor, "tls", exchanger->name, has_tlsa ? DOCTOR_GOOD : DOCTOR_WARNING,
             has_tlsa ? NULL : "senders that follow MTA-STS refuse it: install a valid certificate",
             "%s; the certificate is not proved by the usual authorities: %s", found->protocol,
             found->problem);
    } else if (days < DAYS_LEFT_ENOUGH) {
        tell(doctor, "tls", exchanger->name, DOCTOR_WARNING, "renew the certificate",
             "%s; the certificate ends in %lld days", found->protocol, (long long)days);
    } else {
        tell(doctor, "tls", exchanger->name, DOCTOR_GOOD, NULL,
             "%s; the certificate is valid for %lld more days", found->protocol, (long long)days);
    }
    if (!has_tlsa) {
        return;
    }
    if (found->tlsa_matches) {
        tell(doctor, "tlsa", exchanger->name, DOCTOR_GOOD, NULL,
             "a TLSA record matches the certificate");
    } else {
        tell(doctor, "tlsa", exchanger->name, DOCTOR_BAD,
             "senders that follow DANE do not deliver: publish the TLSA record of this certificate",
             found->tlsa_usable > 0 ? "no TLSA record matches the certificate"
                                    : "none of the TLSA records can be used for mail");
    }
}

static void examine_tls(struct doctor *doctor, const struct exchanger *exchanger,
                        struct conversation *conversation)
{
    struct smtp_reply reply;
    struct tls_inspection found;
    char name[256];
    snprintf(name, sizeof(name), "%.*s", SLICE_PRINT(exchanger->name));
    struct dns_records tlsa =
        ask_records(doctor, name_under(doctor, "_25._tcp.", exchanger->name), DNS_TLSA);
    /* Without DNSSEC they say nothing (RFC 7672 2.1.1). */
    bool has_tlsa = tlsa.error == ERROR_NONE && tlsa.secure;
    struct slice bytes[DNS_RECORDS_MAX];
    for (size_t i = 0; i < tlsa.count; i++) {
        bytes[i] = tlsa.records[i].data;
    }
    if (tlsa.error == ERROR_NONE && !tlsa.secure) {
        tell(doctor, "tlsa", exchanger->name, DOCTOR_WARNING,
             "sign the zone, or set dns-trust-anchor so that this host validates",
             "there are TLSA records, but the answer is not validated");
    }
    if (tlsa.error != ERROR_NONE && tlsa.error != ERROR_MISSING) {
        tell(doctor, "tlsa", exchanger->name, DOCTOR_BAD,
             "senders that follow DANE do not deliver until they get an answer: look at the zone",
             "whether there are TLSA records cannot be told: %s", ask_trouble(&tlsa));
    }
    enum error error = conversation_ask(conversation, "STARTTLS\r\n", NULL, NULL, &reply);
    if (error != ERROR_NONE || reply.code != 220) {
        tell(doctor, "tls", exchanger->name, DOCTOR_WARNING, "look at its log",
             "it offers STARTTLS and refuses it");
        return;
    }
    error = tls_inspect(conversation->fd, name, bytes, has_tlsa ? tlsa.count : 0,
                        (int)doctor->settings->timeout_ms, &found);
    if (error != ERROR_NONE) {
        tell(doctor, "tls", exchanger->name, DOCTOR_BAD, "look at its log and certificate",
             "the TLS handshake fails: %s", found.problem);
    } else {
        judge_certificate(doctor, exchanger, &found, has_tlsa);
    }
}

static void examine_greeting(struct doctor *doctor, const struct exchanger *exchanger,
                             const struct ip_address *address)
{
    struct conversation conversation;
    struct smtp_reply reply;
    char text[IP_TEXT_SIZE], hello[300];
    struct ip_endpoint to = {*address, doctor->settings->port};
    if (!conversation_begin(doctor, &conversation, &to, "greeting", exchanger->name,
                            exchanger->ours
                                ? "is the port open, and not blocked on the way?"
                                : "if this is the outage, the mail waits here; else look at the "
                                  "host")) {
        return;
    }
    bool offered = false;
    ip_to_text(address, text);
    snprintf(hello, sizeof(hello), "EHLO %.*s\r\n",
             SLICE_PRINT(doctor->settings->config->hostname));
    enum error error = conversation_ask(&conversation, hello, find_starttls, &offered, &reply);
    if (error == ERROR_NONE && offered) {
        examine_tls(doctor, exchanger, &conversation);
    } else {
        tell(doctor, "tls", exchanger->name, DOCTOR_WARNING,
             exchanger->ours ? "give the listener tls = starttls, a certificate and its key"
                             : "offer STARTTLS with a certificate",
             "mail to %s crosses the net in the open", text);
    }
    conversation_close(&conversation);
}

void examine_hosts(struct doctor *doctor)
{
    for (size_t i = 0; i < doctor->exchanger_count; i++) {
        const struct exchanger *exchanger = &doctor->exchangers[i];
        struct ip_address literal;
        if (exchanger->addresses.error != ERROR_NONE) {
            tell(doctor, "address", exchanger->name, DOCTOR_BAD,
                 ip_from_text(exchanger->name, &literal)
                     ? "an MX record must name a host, not an address"
                     : "correct the MX record, or give the name an address",
                 "the exchanger has no address: %s", error_text(exchanger->addresses.error));
            continue;
        }
        for (size_t k = 0; k < exchanger->addresses.count && k < ADDRESSES_GREETED; k++) {
            examine_reverse(doctor, exchanger, &exchanger->addresses.addresses[k]);
            examine_greeting(doctor, exchanger, &exchanger->addresses.addresses[k]);
        }
    }
}
