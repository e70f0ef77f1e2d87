/* SPDX-License-Identifier: Apache-2.0
 *
 * What came of TLS with a server, for the reports that domains ask for (RFC 8460). Core counts.
 */
#include "service/smtp_out_internal.h"

#include <stdlib.h>

#include "sys/net.h"

static void take_reason(struct session_tls_result *kept, struct slice reason)
{
    size_t length = slice_take(reason, CHANNEL_TLS_REASON_MAX).length;
    for (size_t i = 0; i < length; i++) {
        uint8_t c = reason.data[i];
        kept->text[i] = (char)(c >= ' ' && c < 0x7f ? c : '?');
    }
    kept->is.reason = slice_make(kept->text, length);
}

void tls_result_note(struct out_session *session, enum tls_result result, struct slice reason)
{
    const struct server_config *server = session_config(session);
    if (session->tls_counted || session->calls_out || server == NULL ||
        server->tls == SERVER_TLS_NONE || server->waived ||
        session->tls_result_count == TLS_RESULTS_KEPT) {
        return;
    }
    if (session->tls_results == NULL) {
        session->tls_results = calloc(TLS_RESULTS_KEPT, sizeof(*session->tls_results));
    }
    if (session->tls_results == NULL) {
        return;
    }
    session->tls_counted = true;
    struct session_tls_result *kept = &session->tls_results[session->tls_result_count++];
    struct ip_endpoint local;
    kept->is = (struct channel_tls){.result = result, .policy = out_tls_decides(session)};
    take_reason(kept, reason);
    if (session->endpoint_count > 0) {
        kept->is.remote = session->endpoints[session->endpoint].address;
    }
    if (session->fd >= 0 && net_local(session->fd, &local) == ERROR_NONE) {
        kept->is.local = local.address;
    }
    report_session(session);
}

void tls_result_ended(struct out_session *session, struct slice reason)
{
    tls_result_note(session, session->shaking ? TLS_RESULT_VALIDATION : TLS_RESULT_NOT_SUPPORTED,
                    reason);
}

bool tls_results_report(struct out_session *session)
{
    for (uint32_t i = 0; i < session->tls_result_count; i++) {
        struct buffer *frame = smtp_out_frame(session->out, CHANNEL_TLS);
        buffer_put_u32(frame, session->id);
        channel_put_tls(frame, &session->tls_results[i].is);
        if (!smtp_out_send(session->out)) {
            session->tls_result_count -= i;
            for (uint32_t j = 0; j < session->tls_result_count; j++) {
                struct session_tls_result *kept = &session->tls_results[j];
                *kept = session->tls_results[j + i];
                kept->is.reason = slice_make(kept->text, kept->is.reason.length);
            }
            return false;
        }
    }
    session->tls_result_count = 0;
    return true;
}
