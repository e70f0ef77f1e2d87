/* SPDX-License-Identifier: Apache-2.0
 *
 * A report on its way to where the domain wants it (RFC 8460 3): the TXT record is asked for when
 * its time has come, then each target gets it in turn.
 */
#include "service/core_tls_reports_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "proto/tls_rpt.h"
#include "service/core_errands.h"
#include "service/core_tls_reports_mail.h"
#include "service/gzip.h"
#include "sys/log.h"

enum {
    PENDING_MAX = 20000,
    UNDER_WAY_MAX = 16,
    ANSWER_MS = 30000,
    POST_MS = 60000,
    AGAIN_MS = 3600000,
};

void tls_report_free(struct tls_reports *reports, struct tls_report *pending)
{
    core_errands_forget(pending->core, pending);
    list_remove(&pending->link);
    reports->pending_count--;
    reports->changed = true;
    json_decref(pending->report);
    json_decref(pending->targets);
    free(pending);
}

struct tls_report *tls_report_new(struct core *core, const char *domain, json_t *report)
{
    struct tls_reports *reports = core->tls_reports;
    size_t length = strlen(domain);
    struct tls_report *pending = report != NULL && reports->pending_count < PENDING_MAX
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

/* ---- sending -------------------------------------------------------------------------------- */

/* The target that failed comes last then: it keeps the report from no other. */
static void put_off(struct tls_report *pending, const char *reason)
{
    if (pending->step == REPORT_SENDING) {
        (void)json_array_append(pending->targets, json_array_get(pending->targets, 0));
        (void)json_array_remove(pending->targets, 0);
    }
    pending->step = REPORT_WAITING;
    pending->next_ms = core_now(pending->core).wall_ms + AGAIN_MS;
    snprintf(pending->reason, sizeof(pending->reason), "%s", reason);
    pending->core->tls_reports->changed = true;
}

static void finish(struct tls_report *pending)
{
    log_event(LOG_LEVEL_INFO, "tls-report-sent", LOG_TEXT("domain", pending->domain));
    tls_report_free(pending->core->tls_reports, pending);
}

static void give_up(struct tls_report *pending)
{
    log_event(LOG_LEVEL_WARNING, "tls-report-given-up", LOG_TEXT("domain", pending->domain),
              LOG_TEXT("reason", pending->reason));
    tls_report_free(pending->core->tls_reports, pending);
}

static bool pack(const struct tls_report *pending, struct buffer *ret_packed)
{
    char *text = json_dumps(pending->report, JSON_INDENT(2));
    bool packed = text != NULL && gzip(slice_from_text(text), ret_packed) == ERROR_NONE;
    free(text);
    return packed;
}

static void send_next(struct tls_report *pending);

static void posted(void *context, const struct errand_answer *answer)
{
    struct tls_report *pending = context;
    if (answer->problem != NULL) {
        put_off(pending, answer->problem);
        return;
    }
    (void)json_array_remove(pending->targets, 0);
    send_next(pending);
}

/* NULL: posted() follows. */
static const char *post(struct tls_report *pending, const char *url, struct slice packed)
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
static const char *mail(struct tls_report *pending, const char *target, struct slice packed)
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

static void send_next(struct tls_report *pending)
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

static void take_targets(struct tls_report *pending, const struct tls_rpt_record *record)
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

static void take_answer(struct tls_report *pending, const struct channel_texts *texts)
{
    struct tls_rpt_record record;
    if (texts->error != ERROR_NONE && texts->error != ERROR_MISSING) {
        put_off(pending, "its TXT record cannot be had");
    } else if (!find_record(texts, &record)) {
        tls_report_free(pending->core->tls_reports, pending); /* it wants none */
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
        struct tls_report *pending = LIST_ENTRY(at, struct tls_report, link);
        if (pending->step == REPORT_ASKING &&
            slice_equal_fold(slice_from_text(pending->domain), domain)) {
            take_answer(pending, texts);
        }
    }
}

static void begin(struct tls_report *pending)
{
    char name[300];
    if (pending->targets != NULL) {
        pending->step = REPORT_SENDING;
        send_next(pending);
        return;
    }
    snprintf(name, sizeof(name), "_smtp._tls.%s", pending->domain);
    pending->step = REPORT_ASKING;
    pending->asked_ms = core_now(pending->core).steady_ms;
    core_out_ask_text(pending->core, slice_from_text(name), slice_from_text(pending->domain));
}

/* ---- time ---------------------------------------------------------------------------------- */

static uint32_t count_under_way(const struct tls_reports *reports)
{
    uint32_t under_way = 0;
    LIST_EACH(&reports->pending, at, after)
    {
        under_way += LIST_ENTRY(at, struct tls_report, link)->step != REPORT_WAITING;
    }
    return under_way;
}

void tls_reports_move_on(struct core *core)
{
    struct tls_reports *reports = core->tls_reports;
    struct relay_time now = core_now(core);
    uint32_t under_way = count_under_way(reports);
    LIST_EACH(&reports->pending, at, after)
    {
        struct tls_report *pending = LIST_ENTRY(at, struct tls_report, link);
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
