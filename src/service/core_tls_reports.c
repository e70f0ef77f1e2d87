/* SPDX-License-Identifier: Apache-2.0
 *
 * The days that reports are of, and the file in which they outlive a restart.
 */
#include "service/core_tls_reports_internal.h"

#include <stdlib.h>

#include "sys/log.h"
#include "sys/random.h"

enum {
    FILE_BYTES_MAX = 256 << 20,
    WRITE_BETWEEN_MS = 10000,
    SPREAD_MS = 4 * 3600000, /* RFC 8460 4.1: not all at midnight */
    KEEP_MS = 24 * 3600000,  /* then it is given up */
};
#define DAY_MS INT64_C(86400000)
#define FILE_NAME "tls-reports"

/* What was counted becomes reports, the first of which may go `spread_ms` later at the latest. */
static void close_day(struct core *core, int64_t ends_ms, int64_t spread_ms)
{
    struct tls_reports *reports = core->tls_reports;
    int64_t now_ms = core_now(core).wall_ms;
    const char *domain;
    json_t *counted;
    json_object_foreach(reports->day, domain, counted)
    {
        struct tls_report *pending =
            tls_reports_are_wanted(core)
                ? tls_report_new(
                      core, domain,
                      tls_report_make(core, domain, counted, reports->begins_ms, ends_ms))
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

/* ---- the file ------------------------------------------------------------------------------- */

static void write_all(struct core *core)
{
    struct tls_reports *reports = core->tls_reports;
    json_t *rows = json_array();
    LIST_EACH(&reports->pending, at, after)
    {
        const struct tls_report *pending = LIST_ENTRY(at, struct tls_report, link);
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
    reports->written_ms = core_now(core).steady_ms;
}

static void read_pending(struct core *core, const json_t *row)
{
    const char *domain = json_string_value(json_object_get(row, "domain"));
    json_t *report = json_object_get(row, "report");
    json_t *targets = json_object_get(row, "targets");
    if (domain == NULL || strlen(domain) > 255 || !json_is_object(report)) {
        return;
    }
    struct tls_report *pending = tls_report_new(core, domain, json_incref(report));
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

/* ---- time ----------------------------------------------------------------------------------- */

void core_tls_reports_tick(struct core *core)
{
    struct tls_reports *reports = core->tls_reports;
    struct relay_time now = core_now(core);
    if (now.wall_ms / DAY_MS != reports->day_number) {
        close_day(core, (reports->day_number + 1) * DAY_MS - 1000, SPREAD_MS);
        reports->begins_ms = now.wall_ms / DAY_MS * DAY_MS;
    }
    if (core->loaded && tls_reports_are_wanted(core)) {
        tls_reports_move_on(core);
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

/* ---- for operators -------------------------------------------------------------------------- */

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
        const struct tls_report *pending = LIST_ENTRY(at, struct tls_report, link);
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
    int64_t now_ms = core_now(core).wall_ms;
    close_day(core, now_ms, 0);
    LIST_EACH(&core->tls_reports->pending, at, after)
    {
        struct tls_report *pending = LIST_ENTRY(at, struct tls_report, link);
        pending->next_ms = pending->step == REPORT_WAITING ? now_ms : pending->next_ms;
    }
}

/* ---- life ----------------------------------------------------------------------------------- */

void core_tls_reports_init(struct core *core)
{
    struct tls_reports *reports = calloc(1, sizeof(*reports));
    if (reports == NULL) {
        core_out_of_memory();
    }
    struct relay_time now = core_now(core);
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
        tls_report_free(reports, LIST_ENTRY(at, struct tls_report, link));
    }
    json_decref(reports->day);
    free(reports);
}
