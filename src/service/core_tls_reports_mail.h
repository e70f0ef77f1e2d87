/* SPDX-License-Identifier: Apache-2.0
 *
 * A report on TLS as mail (RFC 8460 5.3), and the control commands about reports.
 */
#ifndef HOLDFAST_SERVICE_CORE_TLS_REPORTS_MAIL_H
#define HOLDFAST_SERVICE_CORE_TLS_REPORTS_MAIL_H

#include "service/core_internal.h"

struct tls_report_mail {
    const char *to; /* "mailto:..." */
    const char *domain;
    const char *report_id;
    int64_t begins_ms, ends_ms;
    struct slice packed; /* gzip */
};
/* Puts it into the queue, by the relay of notices. NULL, or why not. */
const char *core_tls_report_mail(struct core *core, const struct tls_report_mail *mail);

#endif
