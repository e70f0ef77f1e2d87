/* SPDX-License-Identifier: Apache-2.0
 *
 * Counts and reports are kept as the JSON that they become:
 *
 *   day      {"example.com":{"sts":{"success":n,"failure":n,"lines":[...],"hosts":[...],
 *                                   "details":[failure-details of RFC 8460 4.4]}}}
 *   pending  reports of days that are over, until they have been sent or given up
 *
 *   pending:  WAITING --its time--> ASKING (TXT) --> SENDING (each target in turn) --> freed
 *                ^-----------------failure, an hour later------'
 */
#include "service/core_tls_reports.h"

#include "proto/tls_rpt.h"
#include "service/core_errands.h"
#include "service/core_policies.h"
#include "service/core_tls_reports_mail.h"
#include "service/gzip.h"
#include "sys/log.h"
#include "sys/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    DOMAINS_MAX = 10000, /* of a day; more are not counted */
    DETAILS_MAX = 100,   /* of a policy; more failures are in the sum alone */
    PENDING_MAX = 20000,
    UNDER_WAY_MAX = 16,
    FILE_BYTES_MAX = 256 << 20,
    WRITE_BETWEEN_MS = 10000,
    ANSWER_MS = 30000,
    POST_MS = 60000,
    SPREAD_MS = 4 * 3600000, /* RFC 8460 4.1: not all at midnight */
    AGAIN_MS = 3600000,
    KEEP_MS = 24 * 3600000, /* then it is given up */
    REASON_SIZE = 160,
};
#define DAY_MS INT64_C(86400000)
#define FILE_NAME "tls-reports"

enum step { REPORT_WAITING, REPORT_ASKING, REPORT_SENDING };

struct pending {
    struct link link;
    struct core *core;
    enum step step;
    int64_t begins_ms, ends_ms, next_ms, until_ms; /* wall */
    int64_t asked_ms;                              /* steady */
    json_t *report;
    json_t *targets; /* that have not had it yet; NULL: not known */
    char reason[REASON_SIZE];
    size_t length;
    char domain[];
};

struct tls_reports {
    struct whole_files *files; /* NULL: nothing is kept */
    json_t *day;
    int64_t day_number; /* since 1970 */
    int64_t begins_ms;  /* of what is counted in `day` */
    struct link pending;
    uint32_t pending_count;
    bool changed;
    int64_t written_ms;
};

static bool is_wanted(const struct core *core)
{
    return core->config->tls_reports.length > 0;
}

/* ---- counting ----------------------------------------------------------------------------------
 */

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
    if (!is_wanted(core) || domain.length >= sizeof(name) || domain.length == 0) {
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

/* ---- a report ----------------------------------------------------------------------------------
 */

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

static json_t *make_report(const struct core *core, const char *domain, const json_t *counted,
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

static void pending_free(struct tls_reports *reports, struct pending *pending)
{
    core_errands_forget(pending->core, pending);
    list_remove(&pending->link);
    reports->pending_count--;
    reports->changed = true;
    json_decref(pending->report);
    json_decref(pending->targets);
    free(pending);
}

/* Takes the report over. NULL: memory, or there are too many. */
static struct pending *pending_new(struct core *core, const char *domain, json_t *report)
{
    struct tls_reports *reports = core->tls_reports;
    size_t length = strlen(domain);
    struct pending *pending = report != NULL && reports->pending_count < PENDING_MAX
                                  ? calloc(1, sizeof(*pending) + length + 1)
                                  : NULL;
    if (pending == NULL) {
        json_decref(report);
        return NULL;
    }
    pending->core = core;
    pending->report = report;
    pending->length = length;
    memcpy(pending->domain, domain, length);
    list_append(&reports->pending, &pending->link);
    reports->pending_count++;
    reports->changed = true;
    return pending;
}

/* What was counted becomes reports, the first of which may go `spread_ms` later at the latest. */
static void close_day(struct core *core, int64_t ends_ms, int64_t spread_ms)
{
    struct tls_reports *reports = core->tls_reports;
    int64_t now_ms = core_now().wall_ms;
    const char *domain;
    json_t *counted;
    json_object_foreach(reports->day, domain, counted)
    {
        struct pending *pending =
            is_wanted(core)
                ? pending_new(core, domain,
                              make_report(core, domain, counted, reports->begins_ms, ends_ms))
                : NULL;
        if (pending != NULL) {
            pending->begins_ms = reports->begins_ms;
            pending->ends_ms = ends_ms;
            pending->next_ms =
                now_ms + (spread_ms > 0 ? (int64_t)(random_u64() % (uint64_t)spread_ms) : 0);
            pending->until_ms = pending->next_ms + KEEP_MS;
        }
    }
    reports->changed |= json_object_size(reports->day) > 0;
    (void)json_object_clear(reports->day);
    reports->begins_ms = now_ms;
    reports->day_number = now_ms / DAY_MS;
}

/* ---- sending -----------------------------------------------------------------------------------
 */

/* The target that failed comes last then: it keeps the report from no other. */
static void put_off(struct pending *pending, const char *reason)
{
    if (pending->step == REPORT_SENDING) {
        (void)json_array_append(pending->targets, json_array_get(pending->targets, 0));
        (void)json_array_remove(pending->targets, 0);
    }
    pending->step = REPORT_WAITING;
    pending->next_ms = core_now().wall_ms + AGAIN_MS;
    snprintf(pending->reason, sizeof(pending->reason), "%s", reason);
    pending->core->tls_reports->changed = true;
}

static void finish(struct pending *pending)
{
    log_event(LOG_LEVEL_INFO, "tls-report-sent", LOG_TEXT("domain", pending->domain));
    pending_free(pending->core->tls_reports, pending);
}

static void give_up(struct pending *pending)
{
    log_event(LOG_LEVEL_WARNING, "tls-report-given-up", LOG_TEXT("domain", pending->domain),
              LOG_TEXT("reason", pending->reason));
    pending_free(pending->core->tls_reports, pending);
}

static bool pack(const struct pending *pending, struct buffer *ret_packed)
{
    char *text = json_dumps(pending->report, JSON_INDENT(2));
    bool packed = text != NULL && gzip(slice_from_text(text), ret_packed) == ERROR_NONE;
    free(text);
    return packed;
}

static void send_next(struct pending *pending);

static void posted(void *context, const struct errand_answer *answer)
{
    struct pending *pending = context;
    if (answer->problem != NULL) {
        put_off(pending, answer->problem);
        return;
    }
    (void)json_array_remove(pending->targets, 0);
    send_next(pending);
}

/* NULL: posted() follows. */
static const char *post(struct pending *pending, const char *url, struct slice packed)
{
    const struct errand errand = {.fn = posted,
                                  .context = pending,
                                  .url = url,
                                  .post = packed,
                                  .post_type = "application/tlsrpt+gzip",
                                  .timeout_ms = POST_MS};
    return core_errands_send(pending->core, &errand) ? NULL
                                                     : "too much is fetched and posted already";
}

/* NULL: it is in the queue. */
static const char *mail(struct pending *pending, const char *target, struct slice packed)
{
    const struct tls_report_mail what = {
        .to = target,
        .domain = pending->domain,
        .report_id = json_string_value(json_object_get(pending->report, "report-id")),
        .begins_ms = pending->begins_ms,
        .ends_ms = pending->ends_ms,
        .packed = packed};
    return core_tls_report_mail(pending->core, &what);
}

static void send_next(struct pending *pending)
{
    pending->core->tls_reports->changed = true;
    while (json_array_size(pending->targets) > 0) {
        const char *target = json_string_value(json_array_get(pending->targets, 0));
        struct buffer packed;
        buffer_init(&packed, ERRAND_BODY_MAX);
        bool is_mail = slice_starts_fold(slice_from_text(target), SLICE_LITERAL("mailto:"));
        const char *problem = !pack(pending, &packed) ? "out of memory"
                              : is_mail               ? mail(pending, target, buffer_slice(&packed))
                                        : post(pending, target, buffer_slice(&packed));
        buffer_done(&packed);
        if (problem != NULL) {
            put_off(pending, problem);
            return;
        }
        if (!is_mail) {
            return;
        }
        (void)json_array_remove(pending->targets, 0);
    }
    finish(pending);
}

static void take_targets(struct pending *pending, const struct tls_rpt_record *record)
{
    pending->targets = json_array();
    for (uint32_t i = 0; i < record->count; i++) {
        struct slice target = record->targets[i];
        (void)json_array_append_new(pending->targets,
                                    json_stringn((const char *)target.data, target.length));
    }
}

/* Of several records that are for reports none is believed (RFC 8460 3). False: there is none. */
static bool find_record(const struct channel_texts *texts, struct tls_rpt_record *ret_record)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < texts->count; i++) {
        struct tls_rpt_record record;
        if (tls_rpt_read(texts->texts[i], &record)) {
            *ret_record = record;
            found++;
        }
    }
    return found == 1 && ret_record->count > 0;
}

static void take_answer(struct pending *pending, const struct channel_texts *texts)
{
    struct tls_rpt_record record;
    if (texts->error != ERROR_NONE && texts->error != ERROR_MISSING) {
        put_off(pending, "its TXT record cannot be had");
    } else if (!find_record(texts, &record)) {
        pending_free(pending->core->tls_reports, pending); /* it wants none */
    } else {
        pending->step = REPORT_SENDING;
        take_targets(pending, &record);
        send_next(pending);
    }
}

void core_tls_reports_announced(struct core *core, struct slice domain,
                                const struct channel_texts *texts)
{
    LIST_EACH(&core->tls_reports->pending, at, after)
    {
        struct pending *pending = LIST_ENTRY(at, struct pending, link);
        if (pending->step == REPORT_ASKING &&
            slice_equal_fold(slice_from_text(pending->domain), domain)) {
            take_answer(pending, texts);
        }
    }
}

static void begin(struct pending *pending)
{
    char name[300];
    if (pending->targets != NULL) {
        pending->step = REPORT_SENDING;
        send_next(pending);
        return;
    }
    snprintf(name, sizeof(name), "_smtp._tls.%s", pending->domain);
    pending->step = REPORT_ASKING;
    pending->asked_ms = core_now().steady_ms;
    core_out_ask_text(pending->core, slice_from_text(name), slice_from_text(pending->domain));
}

/* ---- the file ----------------------------------------------------------------------------------
 */

static void write_all(struct core *core)
{
    struct tls_reports *reports = core->tls_reports;
    json_t *rows = json_array();
    LIST_EACH(&reports->pending, at, after)
    {
        const struct pending *pending = LIST_ENTRY(at, struct pending, link);
        (void)json_array_append_new(
            rows,
            json_pack("{ss sI sI sI sI sO sO?}", "domain", pending->domain, "begins",
                      (json_int_t)pending->begins_ms, "ends", (json_int_t)pending->ends_ms, "next",
                      (json_int_t)pending->next_ms, "until", (json_int_t)pending->until_ms,
                      "report", pending->report, "targets", pending->targets));
    }
    json_t *all =
        json_pack("{sI sI sO so}", "day_number", (json_int_t)reports->day_number, "begins",
                  (json_int_t)reports->begins_ms, "day", reports->day, "pending", rows);
    char *text = all != NULL ? json_dumps(all, JSON_COMPACT) : NULL;
    struct buffer bytes;
    buffer_init(&bytes, 0);
    if (text != NULL) {
        buffer_append_text(&bytes, text);
    }
    bytes.failed |= text == NULL;
    whole_files_write(reports->files, FILE_NAME, &bytes);
    free(text);
    json_decref(all);
    reports->changed = false;
    reports->written_ms = core_now().steady_ms;
}

static void read_pending(struct core *core, const json_t *row)
{
    const char *domain = json_string_value(json_object_get(row, "domain"));
    json_t *report = json_object_get(row, "report");
    json_t *targets = json_object_get(row, "targets");
    if (domain == NULL || strlen(domain) > 255 || !json_is_object(report)) {
        return;
    }
    struct pending *pending = pending_new(core, domain, json_incref(report));
    if (pending != NULL) {
        pending->begins_ms = json_integer_value(json_object_get(row, "begins"));
        pending->ends_ms = json_integer_value(json_object_get(row, "ends"));
        pending->next_ms = json_integer_value(json_object_get(row, "next"));
        pending->until_ms = json_integer_value(json_object_get(row, "until"));
        pending->targets = json_is_array(targets) ? json_incref(targets) : NULL;
    }
}

void core_tls_reports_keep(struct core *core, struct whole_files *files)
{
    struct tls_reports *reports = core->tls_reports;
    struct buffer bytes;
    buffer_init(&bytes, FILE_BYTES_MAX);
    reports->files = files;
    enum error error = whole_files_read(files, FILE_NAME, &bytes);
    json_t *all =
        error == ERROR_NONE ? json_loadb((const char *)bytes.data, bytes.length, 0, NULL) : NULL;
    json_t *day = json_object_get(all, "day");
    if (error != ERROR_MISSING && !json_is_object(day)) {
        log_event(LOG_LEVEL_WARNING, "state-file", LOG_TEXT("name", FILE_NAME),
                  LOG_TEXT("error", error != ERROR_NONE ? error_text(error) : "it is broken"));
    }
    if (json_is_object(day)) {
        json_decref(reports->day);
        reports->day = json_incref(day);
        reports->day_number = json_integer_value(json_object_get(all, "day_number"));
        reports->begins_ms = json_integer_value(json_object_get(all, "begins"));
    }
    size_t i;
    const json_t *row;
    json_array_foreach(json_object_get(all, "pending"), i, row)
    {
        read_pending(core, row);
    }
    json_decref(all);
    buffer_done(&bytes);
    reports->changed = false;
}

/* ---- time --------------------------------------------------------------------------------------
 */

static uint32_t count_under_way(const struct tls_reports *reports)
{
    uint32_t under_way = 0;
    LIST_EACH(&reports->pending, at, after)
    {
        under_way += LIST_ENTRY(at, struct pending, link)->step != REPORT_WAITING;
    }
    return under_way;
}

static void move_on(struct core *core)
{
    struct tls_reports *reports = core->tls_reports;
    struct relay_time now = core_now();
    uint32_t under_way = count_under_way(reports);
    LIST_EACH(&reports->pending, at, after)
    {
        struct pending *pending = LIST_ENTRY(at, struct pending, link);
        if (pending->step == REPORT_ASKING && now.steady_ms - pending->asked_ms >= ANSWER_MS) {
            put_off(pending, "its TXT record does not come");
        } else if (pending->step == REPORT_WAITING && pending->until_ms <= now.wall_ms) {
            give_up(pending);
        } else if (pending->step == REPORT_WAITING && pending->next_ms <= now.wall_ms &&
                   under_way < UNDER_WAY_MAX) {
            under_way++;
            begin(pending);
        }
    }
}

void core_tls_reports_tick(struct core *core)
{
    struct tls_reports *reports = core->tls_reports;
    struct relay_time now = core_now();
    if (now.wall_ms / DAY_MS != reports->day_number) {
        close_day(core, (reports->day_number + 1) * DAY_MS - 1000, SPREAD_MS);
        reports->begins_ms = now.wall_ms / DAY_MS * DAY_MS;
    }
    if (core->loaded && is_wanted(core)) {
        move_on(core);
    }
    if (reports->changed && reports->files != NULL &&
        now.steady_ms - reports->written_ms >= WRITE_BETWEEN_MS) {
        write_all(core);
    }
}

void core_tls_reports_stop(struct core *core)
{
    if (core->tls_reports->changed && core->tls_reports->files != NULL) {
        write_all(core);
    }
}

/* ---- for operators -----------------------------------------------------------------------------
 */

static json_t *row_of(const char *domain, int64_t begins_ms, json_int_t successful,
                      json_int_t failed)
{
    return json_pack("{ss sI sI sI}", "domain", domain, "begins", (json_int_t)begins_ms,
                     "successful", successful, "failed", failed);
}

json_t *core_tls_reports_rows(const struct core *core)
{
    const struct tls_reports *reports = core->tls_reports;
    json_t *rows = json_array();
    LIST_EACH(&reports->pending, at, after)
    {
        const struct pending *pending = LIST_ENTRY(at, struct pending, link);
        json_int_t successful = 0, failed = 0;
        size_t i;
        const json_t *policy;
        json_array_foreach(json_object_get(pending->report, "policies"), i, policy)
        {
            const json_t *summary = json_object_get(policy, "summary");
            successful +=
                json_integer_value(json_object_get(summary, "total-successful-session-count"));
            failed += json_integer_value(json_object_get(summary, "total-failure-session-count"));
        }
        json_t *row = row_of(pending->domain, pending->begins_ms, successful, failed);
        (void)json_object_set_new(row, "waits", json_true());
        (void)json_object_set_new(row, "next", json_integer(pending->next_ms));
        (void)json_object_set_new(row, "until", json_integer(pending->until_ms));
        (void)json_object_set_new(
            row, "reason", pending->reason[0] != '\0' ? json_string(pending->reason) : json_null());
        (void)json_array_append_new(rows, row);
    }
    const char *domain, *type;
    json_t *counted, *counts;
    json_object_foreach(reports->day, domain, counted)
    {
        json_int_t successful = 0, failed = 0;
        json_object_foreach(counted, type, counts)
        {
            successful += json_integer_value(json_object_get(counts, "success"));
            failed += json_integer_value(json_object_get(counts, "failure"));
        }
        json_t *row = row_of(domain, reports->begins_ms, successful, failed);
        (void)json_object_set_new(row, "waits", json_false());
        (void)json_object_set_new(row, "next", json_null());
        (void)json_object_set_new(row, "until", json_null());
        (void)json_object_set_new(row, "reason", json_null());
        (void)json_array_append_new(rows, row);
    }
    return rows;
}

void core_tls_reports_send(struct core *core)
{
    int64_t now_ms = core_now().wall_ms;
    close_day(core, now_ms, 0);
    LIST_EACH(&core->tls_reports->pending, at, after)
    {
        struct pending *pending = LIST_ENTRY(at, struct pending, link);
        pending->next_ms = pending->step == REPORT_WAITING ? now_ms : pending->next_ms;
    }
}

/* ---- life --------------------------------------------------------------------------------------
 */

void core_tls_reports_init(struct core *core)
{
    struct tls_reports *reports = calloc(1, sizeof(*reports));
    if (reports == NULL) {
        core_out_of_memory();
    }
    struct relay_time now = core_now();
    reports->day = json_object();
    reports->day_number = now.wall_ms / DAY_MS;
    reports->begins_ms = reports->day_number * DAY_MS;
    reports->written_ms = now.steady_ms - WRITE_BETWEEN_MS;
    list_init(&reports->pending);
    core->tls_reports = reports;
}

void core_tls_reports_done(struct core *core)
{
    struct tls_reports *reports = core->tls_reports;
    LIST_EACH(&reports->pending, at, after)
    {
        pending_free(reports, LIST_ENTRY(at, struct pending, link));
    }
    json_decref(reports->day);
    free(reports);
}
