/* SPDX-License-Identifier: Apache-2.0
 *
 * What came of TLS, counted by domain and policy, and the report that it makes.
 */
#include "service/core_tls_reports_internal.h"

#include <stdio.h>
#include <time.h>

#include "service/core_policies.h"
#include "sys/random.h"

enum {
    DOMAINS_MAX = 10000, /* of a day; more are not counted */
    DETAILS_MAX = 100,   /* of a policy; more failures are in the sum alone */
};

bool tls_reports_are_wanted(const struct core *core)
{
    return core->config->tls_reports.length > 0;
}

/* ---- counting ------------------------------------------------------------------------------- */

static const char *result_text(enum tls_result result)
{
    static const char *const texts[] = {
        [TLS_RESULT_SUCCESS] = "success",
        [TLS_RESULT_NOT_SUPPORTED] = "starttls-not-supported",
        [TLS_RESULT_NAME] = "certificate-host-mismatch",
        [TLS_RESULT_EXPIRED] = "certificate-expired",
        [TLS_RESULT_UNTRUSTED] = "certificate-not-trusted",
        [TLS_RESULT_VALIDATION] = "validation-failure",
        [TLS_RESULT_TLSA] = "tlsa-invalid",
        [TLS_RESULT_DNSSEC] = "dnssec-invalid",
        [TLS_RESULT_STS_FETCH] = "sts-policy-fetch-error",
        [TLS_RESULT_STS_INVALID] = "sts-policy-invalid",
        [TLS_RESULT_STS_WEBPKI] = "sts-webpki-invalid",
    };
    return texts[result];
}

static const char *policy_text(enum tls_policy policy)
{
    static const char *const texts[] = {[TLS_POLICY_NONE] = "no-policy-found",
                                        [TLS_POLICY_STS] = "sts",
                                        [TLS_POLICY_TLSA] = "tlsa"};
    return texts[policy];
}

static void add(json_t *object, const char *key)
{
    json_int_t count = json_integer_value(json_object_get(object, key));
    (void)json_object_set_new(object, key, json_integer(count + 1));
}

/* The object under a key, made if need be. NULL: there are too many, or memory is out. */
static json_t *object_at(json_t *object, const char *key, size_t most)
{
    json_t *found = json_object_get(object, key);
    if (found == NULL && json_object_size(object) < most) {
        found = json_object();
        if (json_object_set_new(object, key, found) != 0) {
            return NULL;
        }
    }
    return found;
}

static void set_text(json_t *object, const char *key, struct slice text)
{
    if (text.length > 0) {
        (void)json_object_set_new(object, key, json_stringn((const char *)text.data, text.length));
    }
}

static void set_address(json_t *object, const char *key, const struct ip_address *address)
{
    static const struct ip_address nobody;
    char text[IP_TEXT_SIZE];
    if (!ip_equal(address, &nobody)) {
        ip_to_text(address, text);
        (void)json_object_set_new(object, key, json_string(text));
    }
}

static json_t *make_detail(const struct channel_tls *tls, struct slice host)
{
    json_t *detail = json_object();
    (void)json_object_set_new(detail, "result-type", json_string(result_text(tls->result)));
    set_address(detail, "sending-mta-ip", &tls->local);
    set_text(detail, "receiving-mx-hostname", host);
    set_address(detail, "receiving-ip", &tls->remote);
    set_text(detail, "failure-reason-code", tls->reason);
    return detail;
}

static bool is_same_but_count(const json_t *kept, json_t *detail)
{
    (void)json_object_set(detail, "failed-session-count",
                          json_object_get(kept, "failed-session-count"));
    return json_equal(kept, detail) == 1;
}

/* Takes the detail over. */
static void add_detail(json_t *counts, json_t *detail)
{
    json_t *details = json_object_get(counts, "details");
    size_t i;
    json_t *kept;
    if (details == NULL) {
        details = json_array();
        (void)json_object_set_new(counts, "details", details);
    }
    json_array_foreach(details, i, kept)
    {
        if (is_same_but_count(kept, detail)) {
            add(kept, "failed-session-count");
            json_decref(detail);
            return;
        }
    }
    if (json_array_size(details) >= DETAILS_MAX) {
        json_decref(detail);
        return;
    }
    (void)json_object_set_new(detail, "failed-session-count", json_integer(1));
    (void)json_array_append_new(details, detail);
}

static void count(struct core *core, struct slice domain, const struct channel_tls *tls,
                  struct slice host)
{
    struct tls_reports *reports = core->tls_reports;
    char name[256];
    if (!tls_reports_are_wanted(core) || domain.length >= sizeof(name) || domain.length == 0) {
        return;
    }
    snprintf(name, sizeof(name), "%.*s", SLICE_PRINT(domain));
    json_t *policies = object_at(reports->day, name, DOMAINS_MAX);
    json_t *counts =
        policies != NULL ? object_at(policies, policy_text(tls->policy), TLS_POLICIES) : NULL;
    if (counts == NULL) {
        return;
    }
    if (tls->policy == TLS_POLICY_STS && json_object_get(counts, "lines") == NULL) {
        json_t *lines = core_policy_lines(core, domain);
        if (lines != NULL) {
            (void)json_object_set_new(counts, "lines", lines);
            (void)json_object_set_new(counts, "hosts", core_policy_hosts(core, domain));
        }
    }
    reports->changed = true;
    if (tls->result == TLS_RESULT_SUCCESS) {
        add(counts, "success");
        return;
    }
    add(counts, "failure");
    add_detail(counts, make_detail(tls, host));
}

struct counting {
    struct core *core;
    const struct channel_tls *tls;
    struct slice host;
};

static void count_for(void *context, struct slice domain)
{
    const struct counting *counting = context;
    count(counting->core, domain, counting->tls, counting->host);
}

/* Of servers of the configuration only those whose own domain says what to demand: all others are
 * the operator's business. */
void core_tls_reports_session(struct core *core, uint32_t server, const struct channel_tls *tls)
{
    const struct server_config *config = relay_server_config(core->relay, server);
    if (config == NULL) {
        return;
    }
    if (server >= RELAY_EXCHANGERS) {
        struct counting counting = {core, tls, config->name};
        relay_exchanger_domains(core->relay, server, count_for, &counting);
    } else if ((config->tls == SERVER_TLS_MTA_STS || config->tls == SERVER_TLS_DANE) &&
               config->address_count == 1) {
        count(core, config->addresses[0].host, tls, config->addresses[0].host);
    }
}

void core_tls_reports_policy(struct core *core, struct slice domain, enum tls_result result,
                             struct slice reason)
{
    const struct channel_tls tls = {.result = result,
                                    .policy = TLS_POLICY_STS,
                                    .reason = slice_take(reason, CHANNEL_TLS_REASON_MAX)};
    count(core, domain, &tls, SLICE_EMPTY);
}

/* ---- a report ------------------------------------------------------------------------------- */

static json_t *time_text(int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    char text[32] = "1970-01-01T00:00:00Z";
    if (gmtime_r(&seconds, &utc) != NULL) {
        (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
    }
    return json_string(text);
}

static json_t *policy_of(const char *domain, const char *type, const json_t *counts)
{
    json_t *policy = json_pack("{ss ss}", "policy-type", type, "policy-domain", domain);
    json_t *lines = json_object_get(counts, "lines");
    json_t *hosts = json_object_get(counts, "hosts");
    json_t *details = json_object_get(counts, "details");
    if (lines != NULL) {
        (void)json_object_set(policy, "policy-string", lines);
    }
    if (hosts != NULL) {
        (void)json_object_set(policy, "mx-host", hosts);
    }
    json_t *row = json_pack(
        "{so s{sI sI}}", "policy", policy, "summary", "total-successful-session-count",
        json_integer_value(json_object_get(counts, "success")), "total-failure-session-count",
        json_integer_value(json_object_get(counts, "failure")));
    if (details != NULL) {
        (void)json_object_set(row, "failure-details", details);
    }
    return row;
}

json_t *tls_report_make(const struct core *core, const char *domain, const json_t *counted,
                        int64_t begins_ms, int64_t ends_ms)
{
    const struct service_config *config = core->config;
    struct slice organization = config->tls_reports_organization.length > 0
                                    ? config->tls_reports_organization
                                    : config->hostname;
    json_t *policies = json_array();
    const char *type;
    json_t *counts;
    json_object_foreach((json_t *)(uintptr_t)counted, type, counts)
    {
        (void)json_array_append_new(policies, policy_of(domain, type, counts));
    }
    return json_pack("{ss% s{so so} ss% so so}", "organization-name", organization.data,
                     organization.length, "date-range", "start-datetime", time_text(begins_ms),
                     "end-datetime", time_text(ends_ms), "contact-info", config->tls_reports.data,
                     config->tls_reports.length, "report-id",
                     json_sprintf("%lld.%llx@%.*s", (long long)(begins_ms / 1000),
                                  (unsigned long long)random_u64(), SLICE_PRINT(config->hostname)),
                     "policies", policies);
}
