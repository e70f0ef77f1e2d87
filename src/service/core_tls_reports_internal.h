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
 *
 * core_tls_reports_count.c counts, and makes a report of it; core_tls_reports_send.c brings it to
 * the domain; core_tls_reports.c has the days, and the file.
 */
#ifndef HOLDFAST_SERVICE_CORE_TLS_REPORTS_INTERNAL_H
#define HOLDFAST_SERVICE_CORE_TLS_REPORTS_INTERNAL_H

#include "service/core_tls_reports.h"

enum tls_report_step { REPORT_WAITING, REPORT_ASKING, REPORT_SENDING };

struct tls_report {
    struct link link; /* of tls_reports.pending */
    struct core *core;
    enum tls_report_step step;
    int64_t begins_ms, ends_ms, next_ms, until_ms; /* wall */
    int64_t asked_ms;                              /* steady */
    json_t *report;
    json_t *targets; /* that have not had it yet; NULL: not known */
    char reason[160];
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

bool tls_reports_are_wanted(const struct core *core);
/* What was counted for a domain, as RFC 8460 4.4 has it. NULL: memory. */
json_t *tls_report_make(const struct core *core, const char *domain, const json_t *counted,
                        int64_t begins_ms, int64_t ends_ms);
/* Takes the report over. NULL: memory, or there are too many. */
struct tls_report *tls_report_new(struct core *core, const char *domain, json_t *report);
void tls_report_free(struct tls_reports *reports, struct tls_report *pending);
/* Sends what is due, and gives up what has been tried for too long. */
void tls_reports_move_on(struct core *core);

#endif
