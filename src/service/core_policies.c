/* SPDX-License-Identifier: Apache-2.0
 *
 *   REST --somebody asks--> ASKING --TXT: another id, or no policy--> FETCHING --> REST
 *                                  --else--------------------------------------> REST
 *
 * A policy holds until it expires, whatever becomes of its TXT record, of a new id that cannot be
 * fetched, or of a restart (RFC 8461 5.1, 10.2): who can make DNS or HTTPS fail must not be able to
 * do away with it. One that is in use is fetched anew long before, without asking.
 */
#include "service/core_policies.h"

#include "base/crc32c.h"
#include "proto/mta_sts.h"
#include "service/core_errands.h"
#include "service/core_out.h"
#include "service/core_tls_reports.h"
#include "sys/log.h"
#include "sys/random.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    POLICIES_MAX = 4096,
    POLICY_BYTES_MAX = 4096, /* of patterns; larger ones cannot be used */
    FILE_BYTES_MAX = 64 << 20,
    PATIENCE_MS = 20000,    /* of mail, with DNS and the fetch */
    FETCH_MS = 60000,       /* RFC 8461 3.3 */
    FRESH_LEAST_MS = 60000, /* what DNS said is believed */
    FRESH_MOST_MS = 3600000,
    FAILED_MS = 300000,             /* RFC 8461 3.3: then it is fetched again */
    REFRESH_MOST_MS = 24 * 3600000, /* or half its age */
    WRITE_BETWEEN_MS = 1000,
};
#define FILE_NAME "policies"

enum step { STEP_REST, STEP_ASKING, STEP_FETCHING };

struct policy {
    struct link link; /* policies->all, the last used one last */
    struct core *core;
    uint64_t hash;
    enum step step;
    struct link waiters; /* struct policy_waiter */
    int64_t asked_ms;    /* steady: when the first of them began to wait */
    int64_t fresh_until_ms, failed_until_ms, refresh_ms; /* steady */
    bool failed;                                         /* the last fetch */
    bool used;                                           /* since the last fetch that went well */
    char announced[MTA_STS_ID_MAX + 1];                  /* in DNS; empty: nothing is */
    char fetching[MTA_STS_ID_MAX + 1];
    /* The policy that holds, if expires_ms is to come. */
    char id[MTA_STS_ID_MAX + 1];
    enum mta_sts_mode mode;
    uint32_t max_age_s;
    int64_t expires_ms;     /* wall; 0: none */
    struct buffer patterns; /* each behind its u32 length */
    size_t length;
    char domain[]; /* lower case, and a NUL */
};

struct policies {
    struct link all;
    struct map by_hash;
    struct hash_key key;
    uint32_t count;
    struct whole_files *files; /* NULL: nothing is kept */
    bool changed;
    int64_t written_ms;
};

static struct slice domain_of(const struct policy *policy)
{
    return slice_make(policy->domain, policy->length);
}

static bool holds(const struct policy *policy)
{
    return policy->expires_ms > core_now(policy->core).wall_ms;
}

/* ---- the table ---------------------------------------------------------------------------------
 */

static struct policy *find(const struct core *core, struct slice domain)
{
    const struct policies *policies = core->policies;
    struct policy *policy = map_get(&policies->by_hash, hash_bytes_fold(policies->key, domain));
    return policy != NULL && slice_equal_fold(domain_of(policy), domain) ? policy : NULL;
}

static void policy_free(struct policies *policies, struct policy *policy)
{
    (void)map_remove(&policies->by_hash, policy->hash);
    list_remove(&policy->link);
    policies->count--;
    core_errands_forget(policy->core, policy);
    buffer_done(&policy->patterns);
    free(policy);
}

/* Room for one more: who was not used for longest goes, of those without a policy first. */
static bool make_room(struct policies *policies)
{
    for (int pass = 0; policies->count >= POLICIES_MAX && pass < 2; pass++) {
        LIST_EACH(&policies->all, at, after)
        {
            struct policy *policy = LIST_ENTRY(at, struct policy, link);
            if (policy->step == STEP_REST && (pass > 0 || !holds(policy))) {
                policies->changed = true;
                policy_free(policies, policy);
                break;
            }
        }
    }
    return policies->count < POLICIES_MAX;
}

static bool is_name(struct slice domain)
{
    for (size_t i = 0; i < domain.length; i++) {
        uint8_t c = domain.data[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            c != '-' && c != '_' && c != '.') {
            return false;
        }
    }
    /* A literal has none (RFC 8461 3.4), and "mta-sts." has to fit. */
    return domain.length > 0 && domain.length <= 240 && slice_find(domain, '.') > 0;
}

/* NULL: it can have none, or there are too many. */
static struct policy *find_or_add(struct core *core, struct slice domain)
{
    struct policies *policies = core->policies;
    struct policy *policy = find(core, domain);
    uint64_t hash = hash_bytes_fold(policies->key, domain);
    if (policy != NULL || !is_name(domain) || map_get(&policies->by_hash, hash) != NULL ||
        !make_room(policies)) {
        return policy;
    }
    policy = calloc(1, sizeof(*policy) + domain.length + 1);
    if (policy == NULL || map_put(&policies->by_hash, hash, policy) != ERROR_NONE) {
        free(policy);
        return NULL;
    }
    policy->core = core;
    policy->hash = hash;
    policy->length = domain.length;
    for (size_t i = 0; i < domain.length; i++) {
        uint8_t c = domain.data[i];
        policy->domain[i] = (char)(c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c);
    }
    policy->fresh_until_ms = INT64_MIN;
    policy->failed_until_ms = INT64_MIN;
    policy->refresh_ms = INT64_MAX;
    list_init(&policy->waiters);
    buffer_init(&policy->patterns, POLICY_BYTES_MAX);
    list_append(&policies->all, &policy->link);
    policies->count++;
    return policy;
}

/* ---- who waits ---------------------------------------------------------------------------------
 */

static void wake(struct policy *policy)
{
    struct link woken;
    list_init(&woken);
    LIST_EACH(&policy->waiters, at, after)
    {
        list_remove(at);
        list_append(&woken, at);
    }
    while (!list_is_empty(&woken)) { /* one that is called may take another off */
        struct policy_waiter *waiter = LIST_ENTRY(woken.next, struct policy_waiter, link);
        list_remove(&waiter->link);
        list_init(&waiter->link);
        waiter->fn(waiter->context);
    }
}

static void rest(struct policy *policy)
{
    policy->step = STEP_REST;
    wake(policy);
}

static const char *then_text(const struct policy *policy)
{
    return holds(policy) ? "the policy that is known holds" : "delivered as if there were none";
}

static void report_failure(const struct policy *policy, const char *reason)
{
    log_event(LOG_LEVEL_WARNING, "mta-sts-failed", LOG_SLICE("domain", domain_of(policy)),
              LOG_TEXT("reason", reason), LOG_TEXT("then", then_text(policy)));
}

/* ---- the fetch ---------------------------------------------------------------------------------
 */

static const char *mode_text(enum mta_sts_mode mode)
{
    static const char *const texts[] = {"none", "testing", "enforce"};
    return texts[mode];
}

/* Half its age, and no longer than a day. */
static int64_t refresh_after(const struct policy *policy)
{
    int64_t half_ms = (int64_t)policy->max_age_s * 500;
    return half_ms < REFRESH_MOST_MS ? half_ms : REFRESH_MOST_MS;
}

static bool take_policy(struct policy *policy, const struct mta_sts_policy *read)
{
    struct buffer patterns;
    buffer_init(&patterns, POLICY_BYTES_MAX);
    for (size_t i = 0; i < read->pattern_count; i++) {
        buffer_put_bytes(&patterns, read->patterns[i]);
    }
    if (patterns.failed) {
        buffer_done(&patterns);
        return false;
    }
    struct relay_time now = core_now(policy->core);
    bool is_new =
        !holds(policy) || policy->mode != read->mode || strcmp(policy->id, policy->fetching) != 0;
    buffer_done(&policy->patterns);
    policy->patterns = patterns;
    policy->mode = read->mode;
    policy->max_age_s = read->max_age_s;
    policy->expires_ms = now.wall_ms + (int64_t)read->max_age_s * 1000;
    policy->refresh_ms = now.steady_ms + refresh_after(policy);
    policy->failed = false;
    policy->used = false;
    memcpy(policy->id, policy->fetching, sizeof(policy->id));
    if (is_new) {
        log_event(LOG_LEVEL_INFO, "mta-sts-policy", LOG_SLICE("domain", domain_of(policy)),
                  LOG_TEXT("mode", mode_text(policy->mode)), LOG_TEXT("id", policy->id),
                  LOG_NUMBER("max-age", policy->max_age_s));
    }
    policy->core->policies->changed = true;
    return true;
}

static void fetch_failed(struct policy *policy, enum tls_result result, const char *reason)
{
    core_tls_reports_policy(policy->core, domain_of(policy), result, slice_from_text(reason));
    int64_t now_ms = core_now(policy->core).steady_ms;
    policy->failed = true;
    policy->failed_until_ms = now_ms + FAILED_MS;
    policy->refresh_ms = now_ms + FAILED_MS;
    report_failure(policy, reason);
}

static void fetched(void *context, const struct errand_answer *answer)
{
    struct policy *policy = context;
    struct mta_sts_policy read;
    if (answer->problem != NULL) {
        fetch_failed(policy, answer->untrusted ? TLS_RESULT_STS_WEBPKI : TLS_RESULT_STS_FETCH,
                     answer->problem);
    } else if (mta_sts_read(answer->body, &read) != ERROR_NONE || !take_policy(policy, &read)) {
        fetch_failed(policy, TLS_RESULT_STS_INVALID, "the policy cannot be used");
    }
    rest(policy);
}

/* False: it cannot be sent. */
static bool fetch(struct policy *policy, const char *id)
{
    char url[320];
    snprintf(url, sizeof(url), "https://mta-sts.%s/.well-known/mta-sts.txt", policy->domain);
    const struct errand errand = {.fn = fetched,
                                  .context = policy,
                                  .url = url,
                                  .media_type = "text/plain",
                                  .most_bytes = MTA_STS_POLICY_MAX,
                                  .timeout_ms = FETCH_MS};
    if (!core_errands_send(policy->core, &errand)) {
        return false;
    }
    memmove(policy->fetching, id, strlen(id) + 1);
    policy->step = STEP_FETCHING;
    return true;
}

/* ---- the announcement --------------------------------------------------------------------------
 */

/* Of several records that announce a policy none is believed (RFC 8461 3.1). */
static void take_announcement(struct policy *policy, const struct channel_texts *texts)
{
    uint32_t found = 0;
    struct slice id, first = SLICE_EMPTY;
    for (uint32_t i = 0; i < texts->count; i++) {
        if (mta_sts_announces(texts->texts[i], &id)) {
            first = found++ == 0 ? id : first;
        }
    }
    size_t length = found == 1 ? first.length : 0;
    if (length > 0) {
        memcpy(policy->announced, first.data, length);
    }
    policy->announced[length] = '\0';
}

static bool is_to_be_fetched(const struct policy *policy)
{
    if (policy->announced[0] == '\0' ||
        policy->failed_until_ms > core_now(policy->core).steady_ms) {
        return false;
    }
    return !holds(policy) || strcmp(policy->announced, policy->id) != 0;
}

void core_policies_announced(struct core *core, struct slice domain,
                             const struct channel_texts *texts)
{
    struct policy *policy = find(core, domain);
    if (policy == NULL || policy->step != STEP_ASKING) {
        return;
    }
    bool answered = texts->error == ERROR_NONE || texts->error == ERROR_MISSING;
    int64_t fresh_ms = answered ? (int64_t)texts->ttl_s * 1000 : FRESH_LEAST_MS;
    fresh_ms = fresh_ms < FRESH_LEAST_MS ? FRESH_LEAST_MS : fresh_ms;
    fresh_ms = fresh_ms > FRESH_MOST_MS ? FRESH_MOST_MS : fresh_ms;
    policy->fresh_until_ms = core_now(core).steady_ms + fresh_ms;
    if (answered) {
        take_announcement(policy, texts);
    } else {
        report_failure(policy, "its TXT record cannot be had");
    }
    if (is_to_be_fetched(policy)) {
        if (fetch(policy, policy->announced)) {
            return;
        }
        fetch_failed(policy, TLS_RESULT_STS_FETCH, "too much is fetched already");
    }
    rest(policy);
}

static void ask(struct policy *policy)
{
    struct core *core = policy->core;
    struct slice domain = domain_of(policy);
    char name[260];
    snprintf(name, sizeof(name), "_mta-sts.%s", policy->domain);
    policy->step = STEP_ASKING;
    policy->asked_ms = core_now(core).steady_ms;
    core_out_ask_text(core, slice_from_text(name), domain);
}

/* ---- questions of core -------------------------------------------------------------------------
 */

bool core_policy_settle(struct core *core, struct slice domain, struct policy_waiter *waiter)
{
    struct policy *policy = find_or_add(core, domain);
    if (policy == NULL) {
        return true;
    }
    list_remove(&policy->link);
    list_append(&core->policies->all, &policy->link);
    policy->used = true;
    int64_t now_ms = core_now(core).steady_ms;
    bool is_fresh = policy->fresh_until_ms > now_ms;
    if (policy->step == STEP_REST && is_fresh && !is_to_be_fetched(policy)) {
        return true;
    }
    if (policy->step == STEP_FETCHING && is_fresh && holds(policy) &&
        strcmp(policy->fetching, policy->id) == 0) {
        return true; /* it is only refreshed */
    }
    if (list_is_empty(&policy->waiters)) {
        policy->asked_ms = now_ms;
    }
    list_append(&policy->waiters, &waiter->link);
    if (policy->step == STEP_REST) {
        ask(policy);
    }
    return false;
}

static bool lists(const struct policy *policy, struct slice host)
{
    struct mta_sts_policy read = {.mode = policy->mode};
    struct reader reader = reader_make(buffer_slice(&policy->patterns));
    while (reader.rest.length > 0 && read.pattern_count < MTA_STS_PATTERNS_MAX) {
        read.patterns[read.pattern_count++] = reader_bytes(&reader);
    }
    return !reader.failed && mta_sts_allows(&read, host);
}

enum sts_demand core_policy_demand(struct core *core, struct slice domain, struct slice host)
{
    struct policy *policy = find(core, domain);
    if (policy == NULL) {
        return STS_NONE;
    }
    policy->used = true;
    if (!holds(policy)) {
        return policy->failed && policy->announced[0] != '\0' ? STS_UNFETCHED : STS_NONE;
    }
    if (policy->mode == MTA_STS_NONE) {
        return STS_NONE;
    }
    bool enforce = policy->mode == MTA_STS_ENFORCE;
    if (lists(policy, host)) {
        return enforce ? STS_ENFORCE : STS_TESTING;
    }
    return enforce ? STS_ENFORCE_UNLISTED : STS_TESTING_UNLISTED;
}

uint32_t core_policy_valid_s(struct core *core, struct slice domain)
{
    const struct policy *policy = find(core, domain);
    if (policy == NULL) {
        return UINT32_MAX;
    }
    struct relay_time now = core_now(core);
    int64_t left_ms = policy->fresh_until_ms - now.steady_ms;
    if (holds(policy) && policy->expires_ms - now.wall_ms < left_ms) {
        left_ms = policy->expires_ms - now.wall_ms;
    }
    return left_ms > 0 ? (uint32_t)(left_ms / 1000) : 0;
}

json_t *core_policy_hosts(const struct core *core, struct slice domain)
{
    const struct policy *policy = find(core, domain);
    json_t *hosts = json_array();
    struct reader reader =
        reader_make(policy != NULL ? buffer_slice(&policy->patterns) : SLICE_EMPTY);
    while (reader.rest.length > 0 && !reader.failed) {
        struct slice pattern = reader_bytes(&reader);
        (void)json_array_append_new(hosts,
                                    json_stringn((const char *)pattern.data, pattern.length));
    }
    return hosts;
}

json_t *core_policy_lines(const struct core *core, struct slice domain)
{
    const struct policy *policy = find(core, domain);
    if (policy == NULL || !holds(policy)) {
        return NULL;
    }
    json_t *lines = json_array();
    (void)json_array_append_new(lines, json_string("version: STSv1"));
    (void)json_array_append_new(lines, json_sprintf("mode: %s", mode_text(policy->mode)));
    struct reader reader = reader_make(buffer_slice(&policy->patterns));
    while (reader.rest.length > 0 && !reader.failed) {
        struct slice pattern = reader_bytes(&reader);
        (void)json_array_append_new(lines, json_sprintf("mx: %.*s", SLICE_PRINT(pattern)));
    }
    (void)json_array_append_new(lines, json_sprintf("max_age: %u", policy->max_age_s));
    return lines;
}

/* ---- the file ----------------------------------------------------------------------------------
 */

static json_t *row_of(const struct policy *policy)
{
    json_t *patterns = core_policy_hosts(policy->core, domain_of(policy));
    return json_pack("{ss ss ss sI sI so}", "domain", policy->domain, "id", policy->id, "mode",
                     mode_text(policy->mode), "max_age", (json_int_t)policy->max_age_s, "expires",
                     (json_int_t)policy->expires_ms, "mx", patterns);
}

static void write_all(struct core *core)
{
    struct policies *policies = core->policies;
    json_t *rows = json_array();
    LIST_EACH(&policies->all, at, after)
    {
        const struct policy *policy = LIST_ENTRY(at, struct policy, link);
        if (holds(policy)) {
            (void)json_array_append_new(rows, row_of(policy));
        }
    }
    char *text = json_dumps(rows, JSON_COMPACT);
    struct buffer bytes;
    buffer_init(&bytes, 0);
    if (text != NULL) {
        buffer_append_text(&bytes, text);
    }
    bytes.failed |= text == NULL;
    whole_files_write(policies->files, FILE_NAME, &bytes);
    free(text);
    json_decref(rows);
    policies->changed = false;
    policies->written_ms = core_now(core).steady_ms;
}

static bool read_mode(const char *text, enum mta_sts_mode *ret_mode)
{
    for (int mode = MTA_STS_NONE; text != NULL && mode <= MTA_STS_ENFORCE; mode++) {
        if (strcmp(text, mode_text((enum mta_sts_mode)mode)) == 0) {
            *ret_mode = (enum mta_sts_mode)mode;
            return true;
        }
    }
    return false;
}

/* Malformed ones are left out. */
static void read_row(struct core *core, const json_t *row)
{
    const char *domain = json_string_value(json_object_get(row, "domain"));
    const char *id = json_string_value(json_object_get(row, "id"));
    json_int_t max_age = json_integer_value(json_object_get(row, "max_age"));
    json_int_t expires = json_integer_value(json_object_get(row, "expires"));
    const json_t *patterns = json_object_get(row, "mx");
    enum mta_sts_mode mode;
    if (domain == NULL || id == NULL || strlen(id) > MTA_STS_ID_MAX || max_age < 0 ||
        max_age > MTA_STS_AGE_MAX_S || !json_is_array(patterns) ||
        !read_mode(json_string_value(json_object_get(row, "mode")), &mode)) {
        return;
    }
    struct relay_time now = core_now(core);
    /* A clock that has gone back does not make it hold longer than it said. */
    json_int_t most = now.wall_ms + max_age * 1000;
    struct policy *policy = find_or_add(core, slice_from_text(domain));
    if (policy == NULL || expires <= now.wall_ms) {
        return;
    }
    policy->mode = mode;
    policy->max_age_s = (uint32_t)max_age;
    policy->expires_ms = expires < most ? expires : most;
    policy->refresh_ms = now.steady_ms + (int64_t)(random_u64() % FAILED_MS);
    snprintf(policy->id, sizeof(policy->id), "%s", id);
    size_t i;
    const json_t *pattern;
    json_array_foreach(patterns, i, pattern)
    {
        const char *text = json_string_value(pattern);
        if (text != NULL && *text != '\0') {
            buffer_put_bytes(&policy->patterns, slice_from_text(text));
        }
    }
    if (policy->patterns.failed) {
        policy->expires_ms = 0;
    }
}

void core_policies_keep(struct core *core, struct whole_files *files)
{
    struct buffer bytes;
    buffer_init(&bytes, FILE_BYTES_MAX);
    core->policies->files = files;
    enum error error = whole_files_read(files, FILE_NAME, &bytes);
    json_t *rows =
        error == ERROR_NONE ? json_loadb((const char *)bytes.data, bytes.length, 0, NULL) : NULL;
    if (error != ERROR_MISSING && !json_is_array(rows)) {
        log_event(LOG_LEVEL_WARNING, "state-file", LOG_TEXT("name", FILE_NAME),
                  LOG_TEXT("error", error != ERROR_NONE ? error_text(error) : "it is no list"));
    }
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row)
    {
        read_row(core, row);
    }
    json_decref(rows);
    buffer_done(&bytes);
}

/* ---- time --------------------------------------------------------------------------------------
 */

/* Mail does not wait for ever; what comes later is taken all the same. */
static void lose_patience(struct policy *policy)
{
    report_failure(policy, policy->step == STEP_ASKING ? "its TXT record does not come"
                                                       : "the policy does not come");
    if (policy->step == STEP_ASKING) {
        policy->fresh_until_ms = core_now(policy->core).steady_ms + FRESH_LEAST_MS;
        policy->step = STEP_REST;
    } else {
        policy->failed = true;
    }
    wake(policy);
}

static struct policy *find_overdue(const struct policies *policies, int64_t now_ms)
{
    LIST_EACH(&policies->all, at, after)
    {
        struct policy *policy = LIST_ENTRY(at, struct policy, link);
        if (policy->step != STEP_REST && now_ms - policy->asked_ms >= PATIENCE_MS &&
            (policy->step == STEP_ASKING || !list_is_empty(&policy->waiters))) {
            return policy;
        }
    }
    return NULL;
}

static bool is_to_be_refreshed(const struct policy *policy, int64_t now_ms)
{
    return policy->step == STEP_REST && policy->used && holds(policy) &&
           policy->refresh_ms <= now_ms;
}

void core_policies_tick(struct core *core)
{
    struct policies *policies = core->policies;
    int64_t now_ms = core_now(core).steady_ms;
    for (struct policy *policy; (policy = find_overdue(policies, now_ms)) != NULL;) {
        lose_patience(policy); /* and who is woken may change the table */
    }
    LIST_EACH(&policies->all, at, after)
    {
        struct policy *policy = LIST_ENTRY(at, struct policy, link);
        if (is_to_be_refreshed(policy, now_ms) && !fetch(policy, policy->id)) {
            policy->refresh_ms = now_ms + FAILED_MS;
        }
    }
    if (policies->changed && policies->files != NULL &&
        now_ms - policies->written_ms >= WRITE_BETWEEN_MS) {
        write_all(core);
    }
}

void core_policies_stop(struct core *core)
{
    if (core->policies->changed && core->policies->files != NULL) {
        write_all(core);
    }
}

/* ---- life --------------------------------------------------------------------------------------
 */

void core_policies_init(struct core *core)
{
    struct policies *policies = calloc(1, sizeof(*policies));
    if (policies == NULL) {
        core_out_of_memory();
    }
    policies->key = (struct hash_key){random_u64(), random_u64()};
    policies->written_ms = core_now(core).steady_ms - WRITE_BETWEEN_MS;
    list_init(&policies->all);
    map_init(&policies->by_hash);
    core->policies = policies;
}

void core_policies_done(struct core *core)
{
    LIST_EACH(&core->policies->all, at, after)
    {
        policy_free(core->policies, LIST_ENTRY(at, struct policy, link));
    }
    map_done(&core->policies->by_hash);
    free(core->policies);
}
