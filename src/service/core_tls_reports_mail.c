/* SPDX-License-Identifier: Apache-2.0
 *
 * It says "TLS-Required: No" (RFC 8689): a report that TLS fails must not fail for that.
 */
#include "service/core_tls_reports_mail.h"

#include "base/base64.h"
#include "base/date.h"
#include "proto/smtp_address.h"
#include "proto/tls_rpt.h"
#include "service/core_control.h"
#include "service/core_tls_reports.h"
#include "sys/clock.h"

enum { ADDRESS_SIZE = 321, LINE = 76 };

static void put_lines(struct buffer *to, struct slice packed)
{
    struct buffer text;
    buffer_init(&text, 0);
    base64_encode(&text, packed);
    for (size_t at = 0; at < text.length; at += LINE) {
        buffer_append(to, slice_take(slice_skip(buffer_slice(&text), at), LINE));
        buffer_append_text(to, "\r\n");
    }
    to->failed |= text.failed;
    buffer_done(&text);
}

static void put_header(struct buffer *to, const struct core *core,
                       const struct tls_report_mail *mail, const char *address, const char *border)
{
    const struct service_config *config = core->config;
    char date[DATE_TEXT_SIZE];
    date_to_text(core_wall_ms(core), date);
    buffer_printf(to, "From: %.*s\r\nTo: %s\r\nDate: %s\r\nMessage-ID: <%s>\r\n",
                  SLICE_PRINT(config->tls_reports), address, date, mail->report_id);
    buffer_printf(to, "Subject: Report Domain: %s\r\n Submitter: %.*s\r\n Report-ID: <%s>\r\n",
                  mail->domain, SLICE_PRINT(config->hostname), mail->report_id);
    buffer_printf(to, "TLS-Report-Domain: %s\r\nTLS-Report-Submitter: %.*s\r\n", mail->domain,
                  SLICE_PRINT(config->hostname));
    buffer_printf(to,
                  "TLS-Required: No\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
                  "Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n"
                  " boundary=\"%s\"\r\n\r\n",
                  border);
}

static void put_parts(struct buffer *to, const struct core *core,
                      const struct tls_report_mail *mail, const char *border)
{
    buffer_printf(to, "--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n", border);
    buffer_printf(
        to,
        "This is a report on TLS connections to the mail servers of\r\n%s, by %.*s.\r\n\r\n"
        "--%s\r\n",
        mail->domain, SLICE_PRINT(core->config->hostname), border);
    buffer_printf(to,
                  "Content-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n"
                  "Content-Disposition: attachment;\r\n"
                  " filename=\"%.*s!%s!%lld!%lld.json.gz\"\r\n\r\n",
                  SLICE_PRINT(core->config->hostname), mail->domain,
                  (long long)(mail->begins_ms / 1000), (long long)(mail->ends_ms / 1000));
    put_lines(to, mail->packed);
    buffer_printf(to, "--%s--\r\n", border);
}

/* NULL: memory. */
static struct notice *make_message(struct core *core, const struct tls_report_mail *mail,
                                   const char *address)
{
    struct notice *notice = notice_empty();
    if (notice == NULL) {
        return NULL;
    }
    char border[ID_TEXT_LENGTH + 3] = "=_";
    struct message_id id = core_make_id(core);
    id_to_text(id, border + 2);
    put_header(&notice->content, core, mail, address, border);
    size_t header_length = notice->content.length;
    put_parts(&notice->content, core, mail, border);
    struct spool_recipient *to = arena_allocate(&notice->arena, sizeof(*to));
    struct slice copy = arena_copy(&notice->arena, slice_from_text(address));
    if (to == NULL || copy.data == NULL || notice->content.failed) {
        notice_free(notice);
        return NULL;
    }
    *to = (struct spool_recipient){.address = copy, .notify = SPOOL_NOTIFY_NEVER};
    notice->message = (struct spool_message){
        .id = id,
        .received_ms = core_wall_ms(core),
        .flags = SPOOL_OWN_DSN | SPOOL_TLS_OPTIONAL,
        .header_length = header_length,
        .body_length = notice->content.length - header_length,
        .origin = {.listener = SLICE_LITERAL("tls-report"), .helo = core->config->hostname},
        .recipients = to,
        .recipient_count = 1,
    };
    notice->message.odometer_s = relay_odometer(core->relay, &notice->message, core_now(core));
    return notice;
}

const char *core_tls_report_mail(struct core *core, const struct tls_report_mail *mail)
{
    char address[ADDRESS_SIZE];
    struct smtp_mailbox mailbox;
    if (!tls_rpt_mailbox(slice_from_text(mail->to), address, sizeof(address)) ||
        !smtp_mailbox_parse(slice_from_text(address), &mailbox) || mailbox.domain.length == 0) {
        return "the address that its TXT record names is none";
    }
    struct notice *notice = make_message(core, mail, address);
    if (notice == NULL) {
        return "out of memory";
    }
    core_act_store(core, notice);
    return NULL;
}

/* ---- commands ------------------------------------------------------------------------------ */

enum control_step tls_reports_list_step(struct control_request *request)
{
    json_t *rows = core_tls_reports_rows(request->core);
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        control_row(request, json_incref(row));
    }
    json_decref(rows);
    return STEP_END;
}

enum control_step tls_reports_send_step(struct control_request *request)
{
    if (!request->core->loaded) {
        return control_not_yet(request);
    }
    core_tls_reports_send(request->core);
    return tls_reports_list_step(request);
}
