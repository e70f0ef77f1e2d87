/* SPDX-License-Identifier: Apache-2.0
 *
 * Reports on TLS (RFC 8460): what came of it with the servers of each domain, counted for a day
 * (UTC), then sent to where the domain wants it, as mail or by HTTPS. Kept in a file meanwhile.
 * Nothing is counted unless `tls-reports` is set.
 */
#ifndef HOLDFAST_SERVICE_CORE_TLS_REPORTS_H
#define HOLDFAST_SERVICE_CORE_TLS_REPORTS_H

#include "service/core_internal.h"
#include "service/whole_file.h"

#include <jansson.h>

void core_tls_reports_init(struct core *core);
void core_tls_reports_done(struct core *core);
/* As core_policies_keep(). */
void core_tls_reports_keep(struct core *core, struct whole_files *files);
void core_tls_reports_tick(struct core *core);
void core_tls_reports_stop(struct core *core);

/* Of a session with a server: counted for each domain that it was for. */
void core_tls_reports_session(struct core *core, uint32_t server, const struct channel_tls *tls);
/* A policy of a domain could not be had. */
void core_tls_reports_policy(struct core *core, struct slice domain, enum tls_result result,
                             struct slice reason);
/* CHANNEL_TEXTS of "_smtp._tls.DOMAIN". */
void core_tls_reports_announced(struct core *core, struct slice domain,
                                const struct channel_texts *texts);

/* For the control protocol; the rows of "tls-reports list". */
json_t *core_tls_reports_rows(const struct core *core);
/* The day ends now. */
void core_tls_reports_send(struct core *core);

#endif
