/* SPDX-License-Identifier: Apache-2.0
 *
 * What the domain has published that bears on us: its MTA-STS policy (RFC 8461) must list this
 * host, or senders that follow it do not deliver here; its SPF record (RFC 7208) should pass this
 * host's addresses, or what we send for the domain is taken for forged.
 */
#include "app/doctor_internal.h"

#include <curl/curl.h>
#include <stdio.h>

#include "proto/mta_sts.h"

/* ---- MTA-STS ------------------------------------------------------------------------------ */

static size_t take_policy(char *bytes, size_t size, size_t count, void *context)
{
    struct buffer *policy = context;
    buffer_append(policy, slice_make(bytes, size * count));
    return policy->failed ? 0 : size * count;
}

/* Fetches https://mta-sts.DOMAIN/.well-known/mta-sts.txt: no redirects, a valid certificate. NULL,
 * or why not. */
static const char *fetch_policy(struct doctor *doctor, struct buffer *policy,
                                char problem[CURL_ERROR_SIZE])
{
    char url[400], resolve[400];
    struct slice host = name_under(doctor, "mta-sts.", doctor->settings->domain);
    struct dns_answer answer = ask_addresses(doctor, host);
    if (answer.error != ERROR_NONE) {
        return "its host has no address";
    }
    /* The addresses that our resolver knows, not those of the C library. */
    char address[IP_TEXT_SIZE];
    ip_to_text(&answer.addresses[0], address);
    snprintf(resolve, sizeof(resolve), "%.*s:443:%s", SLICE_PRINT(host), address);
    snprintf(url, sizeof(url), "https://%.*s/.well-known/mta-sts.txt", SLICE_PRINT(host));
    struct curl_slist *addresses = curl_slist_append(NULL, resolve);
    CURL *curl = curl_easy_init();
    CURLcode done = CURLE_OUT_OF_MEMORY;
    long status = 0;
    snprintf(problem, CURL_ERROR_SIZE, "out of memory");
    if (curl != NULL && addresses != NULL) {
        (void)curl_easy_setopt(curl, CURLOPT_URL, url);
        (void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https");
        (void)curl_easy_setopt(curl, CURLOPT_RESOLVE, addresses);
        (void)curl_easy_setopt(curl, CURLOPT_PROXY, "");
        (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)doctor->settings->timeout_ms);
        (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
        (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_policy);
        (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, policy);
        (void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, problem);
        done = curl_easy_perform(curl);
        (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    }
    curl_easy_cleanup(curl);
    curl_slist_free_all(addresses);
    if (done != CURLE_OK) {
        return problem[0] != '\0' ? problem : curl_easy_strerror(done);
    }
    if (status != 200) {
        snprintf(problem, CURL_ERROR_SIZE, "HTTP status %ld", status);
        return problem;
    }
    return NULL;
}

static unsigned count_announcements(const struct dns_records *found)
{
    struct slice id;
    unsigned count = 0;
    for (size_t i = 0; i < found->count; i++) {
        count += mta_sts_announces(found->records[i].data, &id);
    }
    return count;
}

static void judge_policy(struct doctor *doctor, const struct mta_sts_policy *policy)
{
    struct slice domain = doctor->settings->domain;
    bool enforces = policy->mode == MTA_STS_ENFORCE;
    if (policy->mode == MTA_STS_NONE) {
        tell(doctor, "mta-sts", domain, DOCTOR_GOOD, NULL, "the policy says none");
    } else if (!mta_sts_allows(policy, doctor->settings->config->hostname)) {
        tell(doctor, "mta-sts", domain, enforces ? DOCTOR_BAD : DOCTOR_WARNING,
             "add an mx line for this host to the policy, and change the id of its TXT record",
             "the policy does not list this host among its %zu exchangers%s", policy->pattern_count,
             enforces ? ": senders that follow it do not deliver here" : "");
    } else {
        tell(doctor, "mta-sts", domain, DOCTOR_GOOD, NULL, "the policy (%s) lists this host",
             enforces ? "enforce" : "testing");
    }
}

static void examine_policy(struct doctor *doctor)
{
    struct slice domain = doctor->settings->domain;
    struct mta_sts_policy policy;
    struct buffer bytes;
    char text_of_curl[CURL_ERROR_SIZE];
    buffer_init(&bytes, MTA_STS_POLICY_MAX);
    const char *problem = fetch_policy(doctor, &bytes, text_of_curl);
    if (problem != NULL) {
        tell(doctor, "mta-sts", domain, DOCTOR_WARNING,
             "the policy that senders remember may not be the present one",
             "a policy is announced but cannot be fetched: %s", problem);
    } else if (mta_sts_read(buffer_slice(&bytes), &policy) != ERROR_NONE) {
        tell(doctor, "mta-sts", domain, DOCTOR_WARNING,
             "senders ignore it: it needs version, mode, max_age and mx lines (RFC 8461 3.2)",
             "the policy that is announced cannot be used");
    } else {
        judge_policy(doctor, &policy);
    }
    buffer_done(&bytes);
}

void examine_mta_sts(struct doctor *doctor)
{
    struct slice domain = doctor->settings->domain;
    struct dns_records found =
        ask_records(doctor, name_under(doctor, "_mta-sts.", domain), DNS_TXT);
    if (found.error != ERROR_NONE && found.error != ERROR_MISSING) {
        tell(doctor, "mta-sts", domain, DOCTOR_WARNING, "look at the zone",
             "no MTA-STS policy is announced: %s", ask_trouble(&found));
        return;
    }
    unsigned count = count_announcements(&found);
    if (count == 1) {
        examine_policy(doctor);
    } else {
        tell(doctor, "mta-sts", domain, count == 0 ? DOCTOR_GOOD : DOCTOR_WARNING,
             count == 0 ? NULL : "leave one of the records: senders believe none of several",
             count == 0 ? "no MTA-STS policy is announced"
                        : "several records announce an MTA-STS policy");
    }
}

/* ---- SPF ---------------------------------------------------------------------------------- */

/* How many there are (RFC 7208 4.5), and the last; other text records are of no interest. */
static unsigned find_spf(const struct dns_records *found, struct slice *ret_record)
{
    unsigned count = 0;
    for (size_t i = 0; i < found->count; i++) {
        struct slice text = found->records[i].data;
        if (slice_equal_fold(slice_take(text, slice_find(text, ' ')), SLICE_LITERAL("v=spf1"))) {
            *ret_record = text;
            count++;
        }
    }
    return count;
}

enum spf { SPF_NONE, SPF_PASS, SPF_NO_PASS, SPF_UNKNOWN };

/* RFC 7208 4.6.4 */
enum { SPF_LOOKUPS_MAX = 10, SPF_NAMES_MAX = 10, SPF_VOIDS_MAX = 2 };

struct spf_question {
    struct doctor *doctor;
    struct ip_address address;
    unsigned lookups;
    unsigned voids; /* lookups that found nothing */
    bool failed;    /* a lookup failed, or there were too many, or of two records nobody knows which
                       counts: the end (RFC 7208 2.6.6, 2.6.7) */
};

static bool answer_has(const struct dns_answer *answer, const struct ip_address *address)
{
    for (size_t i = 0; i < answer->count; i++) {
        if (ip_equal(&answer->addresses[i], address)) {
            return true;
        }
    }
    return false;
}

static enum spf spf_of(struct spf_question *question, struct slice domain);

/* The domain a mechanism names, else the record's own. False: it has macros or a length, which we
 * do not work out. */
static bool spf_domain(struct slice rest, struct slice domain, struct slice *ret_domain)
{
    *ret_domain = domain;
    if (rest.length > 0 && rest.data[0] == ':') {
        *ret_domain = slice_skip(rest, 1);
    } else if (rest.length > 0) {
        return false;
    }
    return slice_find(*ret_domain, '%') == ret_domain->length &&
           slice_find(*ret_domain, '/') == ret_domain->length;
}

static bool spf_network(struct slice rest, const struct ip_address *address)
{
    struct ip_network network;
    return rest.length > 1 && ip_network_from_text(slice_skip(rest, 1), &network) &&
           ip_network_contains(&network, address);
}

static bool spf_fails(struct spf_question *question, enum error error)
{
    question->voids += error == ERROR_MISSING;
    question->failed |=
        question->voids > SPF_VOIDS_MAX || (error != ERROR_NONE && error != ERROR_MISSING);
    return question->failed;
}

static enum spf spf_address(struct spf_question *question, struct slice name)
{
    struct dns_answer answer = ask_addresses(question->doctor, name);
    if (spf_fails(question, answer.error)) {
        return SPF_UNKNOWN;
    }
    return answer_has(&answer, &question->address) ? SPF_PASS : SPF_NO_PASS;
}

static enum spf spf_exchangers(struct spf_question *question, struct slice domain)
{
    struct dns_records found = ask_records(question->doctor, domain, DNS_MX);
    question->failed |= found.count > SPF_NAMES_MAX;
    if (spf_fails(question, found.error)) {
        return SPF_UNKNOWN;
    }
    enum spf matched = SPF_NO_PASS;
    for (size_t i = 0; i < found.count && matched == SPF_NO_PASS; i++) {
        matched = spf_address(question, found.records[i].name);
    }
    return matched;
}

/* SPF_PASS: the mechanism matches; SPF_NO_PASS: it does not. */
static enum spf spf_matches(struct spf_question *question, struct slice name, struct slice rest,
                            struct slice domain)
{
    struct slice target;
    if (slice_equal_fold(name, SLICE_LITERAL("all"))) {
        return SPF_PASS;
    }
    if (slice_equal_fold(name, SLICE_LITERAL("ip4")) ||
        slice_equal_fold(name, SLICE_LITERAL("ip6"))) {
        return spf_network(rest, &question->address) ? SPF_PASS : SPF_NO_PASS;
    }
    if (!spf_domain(rest, domain, &target) || ++question->lookups > SPF_LOOKUPS_MAX) {
        return SPF_UNKNOWN;
    }
    if (slice_equal_fold(name, SLICE_LITERAL("a"))) {
        return spf_address(question, target);
    }
    if (slice_equal_fold(name, SLICE_LITERAL("mx"))) {
        return spf_exchangers(question, target);
    }
    if (slice_equal_fold(name, SLICE_LITERAL("include"))) {
        enum spf included = spf_of(question, target);
        return included == SPF_NONE ? SPF_UNKNOWN : included;
    }
    return SPF_UNKNOWN;
}

static enum spf spf_evaluate(struct spf_question *question, struct slice record,
                             struct slice domain)
{
    struct slice redirect = SLICE_EMPTY;
    bool unknown = false;
    for (struct slice rest = record; rest.length > 0 && !question->failed;) {
        size_t end = slice_find(rest, ' ');
        struct slice term = slice_take(rest, end);
        rest = slice_skip(rest, end + 1);
        if (slice_starts_fold(term, SLICE_LITERAL("redirect="))) {
            redirect = slice_skip(term, 9);
            continue;
        }
        if (term.length == 0 || slice_find(term, '=') < slice_find(term, ':')) {
            continue; /* the version, exp= and other modifiers */
        }
        bool passes = strchr("-~?", term.data[0]) == NULL;
        term = strchr("+-~?", term.data[0]) != NULL ? slice_skip(term, 1) : term;
        size_t name = 0;
        while (name < term.length && term.data[name] != ':' && term.data[name] != '/') {
            name++;
        }
        enum spf matched =
            spf_matches(question, slice_take(term, name), slice_skip(term, name), domain);
        unknown |= matched == SPF_UNKNOWN;
        if (matched == SPF_PASS) {
            return passes ? SPF_PASS : unknown ? SPF_UNKNOWN : SPF_NO_PASS;
        }
    }
    if (question->failed) {
        return SPF_UNKNOWN;
    }
    if (redirect.length > 0 && ++question->lookups <= SPF_LOOKUPS_MAX) {
        enum spf redirected = spf_of(question, redirect);
        return redirected == SPF_NO_PASS && unknown ? SPF_UNKNOWN : redirected;
    }
    return unknown ? SPF_UNKNOWN : SPF_NO_PASS;
}

static enum spf spf_of(struct spf_question *question, struct slice domain)
{
    struct slice record;
    struct dns_records found = ask_records(question->doctor, domain, DNS_TXT);
    if (spf_fails(question, found.error)) {
        return SPF_UNKNOWN;
    }
    unsigned count = find_spf(&found, &record);
    question->failed |= count > 1;
    return count == 0 ? SPF_NONE : spf_evaluate(question, record, domain);
}

void examine_spf(struct doctor *doctor)
{
    struct slice domain = doctor->settings->domain;
    struct dns_answer answer = ask_addresses(doctor, doctor->settings->config->hostname);
    if (answer.error != ERROR_NONE) {
        tell(doctor, "spf", domain, DOCTOR_WARNING, "see the findings on the hostname",
             "whether SPF passes this host cannot be told: our hostname has no address");
        return;
    }
    for (size_t i = 0; i < answer.count; i++) {
        struct spf_question question = {.doctor = doctor, .address = answer.addresses[i]};
        char text[IP_TEXT_SIZE];
        ip_to_text(&answer.addresses[i], text);
        switch (spf_of(&question, domain)) {
        case SPF_NONE:
            tell(doctor, "spf", domain, DOCTOR_GOOD, NULL, "the domain publishes no SPF record");
            return;
        case SPF_PASS:
            tell(doctor, "spf", domain, DOCTOR_GOOD, NULL, "the SPF record passes %s", text);
            break;
        case SPF_NO_PASS:
            tell(doctor, "spf", domain, DOCTOR_WARNING,
                 "add our address to the record if mail of the domain leaves through this host, "
                 "and except this host from SPF at the primary",
                 "the SPF record does not pass %s", text);
            break;
        case SPF_UNKNOWN:
            tell(doctor, "spf", domain, DOCTOR_WARNING, "look at the record by hand",
                 "the SPF record cannot be worked out for %s", text);
            break;
        }
    }
}
