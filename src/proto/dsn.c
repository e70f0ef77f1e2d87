/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/dsn.h"

#include <stdio.h>

#include "base/date.h"
#include "base/utf8.h"
#include "proto/dsn_encode.h"

enum {
    NAME_MAX_BYTES = 255,
    REASON_MAX_BYTES = 800,
    MESSAGE_ID_MAX_BYTES = 900,
    SENDER_MAX_BYTES = 900,
    BOUNDARY_SIZE = 64,
};

static const struct wording {
    const char *action;
    const char *subject;
    const char *explanation;
} wordings[] = {
    [DSN_FAILED] = {"failed", "Your message could not be delivered",
                    "Your message could not be delivered to the recipients below. It will not be"
                    "\r\ntried again.\r\n"},
    [DSN_DELAYED] = {"delayed", "Your message is delayed",
                     "Your message has not been delivered yet to the recipients below. There is"
                     "\r\nnothing that you need to do: it is being tried further"},
    [DSN_DELIVERED] = {"delivered", "Your message was delivered",
                       "Your message was delivered to the recipients below.\r\n"},
    [DSN_RELAYED] =
        {"relayed", "Your message was passed on",
         "Your message was passed on to a mail server that sends no notices of delivery,"
         "\r\nfor the recipients below. Unless it fails, you hear no more of it.\r\n"},
};

static bool is_success(enum dsn_action action)
{
    return action == DSN_DELIVERED || action == DSN_RELAYED;
}

static void put_date(struct buffer *to, const char *field, int64_t unix_ms)
{
    char text[DATE_TEXT_SIZE];
    date_to_text(unix_ms, text);
    buffer_printf(to, "%s: %s\r\n", field, text);
}

/* ---- part 1: for people --------------------------------------------------------------------- */

static void put_reason(struct buffer *text, const struct dsn_recipient *recipient)
{
    buffer_append_text(text, "\r\n    ");
    dsn_put_text(text, recipient->address, NAME_MAX_BYTES);
    buffer_append_text(text, "\r\n        ");
    if (recipient->code != 0) {
        if (recipient->remote.length > 0) {
            dsn_put_text(text, recipient->remote, NAME_MAX_BYTES);
        } else {
            buffer_append_text(text, "its mail server");
        }
        buffer_printf(text, " answered: %u ", recipient->code);
        if (recipient->enhanced[0] != 0) {
            buffer_printf(text, "%u.%u.%u ", recipient->enhanced[0], recipient->enhanced[1],
                          recipient->enhanced[2]);
        }
    }
    dsn_put_text(text, recipient->diagnostic, REASON_MAX_BYTES - NAME_MAX_BYTES);
    buffer_append_text(text, "\r\n");
}

static void put_explanation(struct buffer *text, const struct dsn_report *report)
{
    char date[DATE_TEXT_SIZE];
    buffer_append_text(text, wordings[report->action].explanation);
    if (report->action == DSN_DELAYED) {
        if (report->retry_until_ms != 0) {
            date_to_text(report->retry_until_ms, date);
            buffer_printf(text, ", until\r\n%s", date);
        }
        buffer_append_text(text, ".\r\n");
    }
    for (uint32_t i = 0; i < report->recipient_count; i++) {
        put_reason(text, &report->recipients[i]);
    }
    date_to_text(report->arrival_ms, date);
    buffer_append_text(text, "\r\nIt reached ");
    dsn_put_text(text, report->hostname, NAME_MAX_BYTES);
    buffer_printf(text, " on %s\r\nand has the number %s there. ", date, report->original_id);
    buffer_append_text(text, "Its header is attached.\r\n");
}

/* ---- part 2: for programs (RFC 3464) -------------------------------------------------------- */

static void put_status(struct buffer *to, enum dsn_action action,
                       const struct dsn_recipient *recipient)
{
    if (is_success(action)) {
        bool given = recipient->enhanced[0] == 2;
        buffer_printf(to, "Status: 2.%u.%u\r\n", given ? recipient->enhanced[1] : 0,
                      given ? recipient->enhanced[2] : 0);
    } else if (recipient->enhanced[0] == 4 || recipient->enhanced[0] == 5) {
        buffer_printf(to, "Status: %u.%u.%u\r\n", recipient->enhanced[0], recipient->enhanced[1],
                      recipient->enhanced[2]);
    } else if (action == DSN_DELAYED) {
        buffer_append_text(to, "Status: 4.0.0\r\n");
    } else {
        /* Given up although the last answer was a temporary one: its time was over. */
        bool expired = recipient->code / 100 == 4;
        buffer_append_text(to, expired ? "Status: 4.4.7\r\n" : "Status: 5.0.0\r\n");
    }
}

static void put_diagnostic(struct buffer *to, const struct dsn_recipient *recipient)
{
    if (recipient->code == 0) {
        buffer_append_text(to, "Diagnostic-Code: x-holdfast; ");
    } else {
        buffer_printf(to, "Diagnostic-Code: smtp; %u ", recipient->code);
        if (recipient->enhanced[0] != 0) {
            buffer_printf(to, "%u.%u.%u ", recipient->enhanced[0], recipient->enhanced[1],
                          recipient->enhanced[2]);
        }
    }
    dsn_put_clean(to, recipient->diagnostic, REASON_MAX_BYTES);
    buffer_append_text(to, "\r\n");
}

static void put_recipient(struct buffer *to, const struct dsn_report *report,
                          const struct dsn_recipient *recipient)
{
    buffer_append_text(to, "\r\n");
    if (recipient->orcpt.length > 0) {
        buffer_append_text(to, "Original-Recipient: ");
        dsn_put_orcpt(to, recipient->orcpt);
        buffer_append_text(to, "\r\n");
    }
    buffer_append_text(to, "Final-Recipient: ");
    dsn_put_address(to, recipient->address);
    buffer_append_text(to, "\r\n");
    buffer_printf(to, "Action: %s\r\n", wordings[report->action].action);
    put_status(to, report->action, recipient);
    if (recipient->remote.length > 0 && recipient->code != 0) {
        buffer_append_text(to, "Remote-MTA: dns; ");
        dsn_put_clean(to, recipient->remote, NAME_MAX_BYTES);
        buffer_append_text(to, "\r\n");
    }
    if (!is_success(report->action) && (recipient->diagnostic.length > 0 || recipient->code != 0)) {
        put_diagnostic(to, recipient);
    }
    if (recipient->last_attempt_ms != 0) {
        put_date(to, "Last-Attempt-Date", recipient->last_attempt_ms);
    }
    if (report->action == DSN_DELAYED && report->retry_until_ms != 0) {
        put_date(to, "Will-Retry-Until", report->retry_until_ms);
    }
}

static void put_delivery_status(struct buffer *to, const struct dsn_report *report)
{
    if (report->envelope_id.length > 0) {
        buffer_append_text(to, "Original-Envelope-Id: ");
        dsn_put_xtext(to, report->envelope_id);
        buffer_append_text(to, "\r\n");
    }
    buffer_append_text(to, "Reporting-MTA: dns; ");
    dsn_put_clean(to, report->hostname, NAME_MAX_BYTES);
    buffer_append_text(to, "\r\n");
    put_date(to, "Arrival-Date", report->arrival_ms);
    if (report->deliver_by_ms != 0) {
        put_date(to, "Deliver-By-Date", report->deliver_by_ms);
    }
    for (uint32_t i = 0; i < report->recipient_count; i++) {
        put_recipient(to, report, &report->recipients[i]);
    }
}

/* ---- part 3: the original header ------------------------------------------------------------- */

/* Whole lines only, without the empty line that ends the block. */
static struct slice quotable_header(struct slice header)
{
    header = slice_take(header, DSN_HEADER_MAX);
    size_t last = slice_find_last(header, '\n');
    header = last == header.length ? SLICE_EMPTY : slice_take(header, last + 1);
    while (header.length >= 4 && memcmp(header.data + header.length - 4, "\r\n\r\n", 4) == 0) {
        header.length -= 2;
    }
    return slice_equal(header, SLICE_LITERAL("\r\n")) ? SLICE_EMPTY : header;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* The id is ours and new, so that only chance could bring its like into the header. */
static void choose_boundary(const struct dsn_report *report, struct slice header,
                            char ret_boundary[BOUNDARY_SIZE])
{
    unsigned attempt = 0;
    do {
        snprintf(ret_boundary, BOUNDARY_SIZE, "=_%.40s_%u", report->id, attempt++);
    } while (header.length > 0 && attempt < 1000 &&
             memmem(header.data, header.length, ret_boundary, strlen(ret_boundary)) != NULL);
}

static bool is_plain_word(struct slice word)
{
    for (size_t i = 0; i < word.length; i++) {
        if (word.data[i] <= ' ' || word.data[i] >= 0x7f) {
            return false;
        }
    }
    return word.length > 0 && word.length <= MESSAGE_ID_MAX_BYTES;
}

/* Whether it is sent to a UTF-8 address. */
static bool put_to(struct buffer *to, struct slice sender)
{
    bool good = sender.length <= SENDER_MAX_BYTES && utf8_is_valid(sender);
    for (size_t i = 0; i < sender.length; i++) {
        good = good && sender.data[i] >= ' ' && sender.data[i] != 0x7f;
    }
    buffer_append_text(to, "To: ");
    if (good) {
        buffer_append_text(to, "<");
        buffer_append(to, sender);
        buffer_append_text(to, ">\r\n");
    } else {
        buffer_append_text(to, "undisclosed-recipients:;\r\n");
    }
    return good && !utf8_is_ascii(sender);
}

static bool put_header(struct buffer *to, const struct dsn_report *report, const char *boundary)
{
    put_date(to, "Date", report->now_ms);
    buffer_append_text(to, "From: Mail Delivery System <MAILER-DAEMON@");
    dsn_put_clean(to, report->hostname, NAME_MAX_BYTES);
    buffer_append_text(to, ">\r\n");
    bool utf8 = put_to(to, report->sender);
    buffer_printf(to, "Subject: %s\r\n", wordings[report->action].subject);
    buffer_printf(to, "Message-ID: <%.40s@", report->id);
    dsn_put_clean(to, report->hostname, NAME_MAX_BYTES);
    buffer_append_text(to, ">\r\n");
    if (is_plain_word(report->message_id)) {
        buffer_append_text(to, "In-Reply-To: ");
        buffer_append(to, report->message_id);
        buffer_append_text(to, "\r\nReferences: ");
        buffer_append(to, report->message_id);
        buffer_append_text(to, "\r\n");
    }
    buffer_append_text(to, report->tls_optional ? "TLS-Required: No\r\n" : "");
    buffer_append_text(to, "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
    buffer_printf(to,
                  "Content-Type: multipart/report; report-type=delivery-status;\r\n"
                  " boundary=\"%s\"\r\n\r\n",
                  boundary);
    return utf8;
}

static void put_part(struct buffer *to, const char *boundary, const char *type, struct slice body)
{
    bool plain = dsn_is_7bit(body);
    buffer_printf(to, "--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n", boundary,
                  type, plain ? "7bit" : "quoted-printable");
    if (plain) {
        buffer_append(to, body);
    } else {
        dsn_put_quoted_printable(to, body);
    }
    buffer_append_text(to, "\r\n");
}

bool dsn_write(const struct dsn_report *report, struct buffer *ret_content,
               uint64_t *ret_header_length, bool *ret_utf8)
{
    char boundary[BOUNDARY_SIZE];
    struct slice header = quotable_header(report->header);
    struct buffer part;
    size_t before = ret_content->length;
    choose_boundary(report, header, boundary);
    *ret_utf8 = put_header(ret_content, report, boundary);
    *ret_header_length = ret_content->length - before;
    buffer_init(&part, 0);
    put_explanation(&part, report);
    bool failed = part.failed;
    put_part(ret_content, boundary, "text/plain; charset=utf-8", buffer_slice(&part));
    buffer_clear(&part);
    put_delivery_status(&part, report);
    failed = failed || part.failed;
    put_part(ret_content, boundary, "message/delivery-status", buffer_slice(&part));
    buffer_done(&part);
    put_part(ret_content, boundary, "text/rfc822-headers", header);
    buffer_printf(ret_content, "--%s--\r\n", boundary);
    return !failed && !ret_content->failed;
}
