/* SPDX-License-Identifier: Apache-2.0
 *
 * What holds for the mail of users who have logged in (RFC 6409): the sender must be theirs, they
 * may write to so many recipients in an hour, and a Date and a Message-ID are added where missing
 * (sections 8.1, 8.2).
 *
 * The fields go behind the others, before the empty line: by then it is known whether they are
 * missing, while what has come before may be with core already.
 */
#include "service/smtp_in_internal.h"

#include "base/date.h"
#include "sys/clock.h"

enum { HOUR_US = INT64_C(3600) * 1000000 };

static bool has_login(const struct session *session)
{
    return login_user(session).length > 0;
}

struct smtp_answer submit_mail(const struct session *session, struct slice sender)
{
    if (!has_login(session) || session->listener->sender_check == SENDER_CHECK_NONE ||
        sender.length == 0 || login_owns(session, sender)) {
        return SMTP_ACCEPT;
    }
    return (struct smtp_answer){553, "5.7.1", SLICE_LITERAL("That is not your address")};
}

struct smtp_answer submit_recipient(const struct session *session)
{
    uint32_t per_hour = session->in->config->limits.user_recipients;
    if (!has_login(session) || per_hour == 0) {
        return SMTP_ACCEPT;
    }
    struct smtp_in_shared *shared = session->in->shared;
    struct smtp_in_pace pace = {HOUR_US / per_hour, HOUR_US};
    struct ip_address user = smtp_in_user(shared, login_user(session));
    int64_t now_ms = clock_steady_ms();
    if (!smtp_in_may(shared, SMTP_IN_SUBMITS, pace, &user, now_ms)) {
        counter_add(session->in->counters, COUNTER_RATE_LIMITED, 1);
        return (struct smtp_answer){450, "4.7.1",
                                    SLICE_LITERAL("Too many recipients of yours in an hour")};
    }
    smtp_in_did(shared, SMTP_IN_SUBMITS, pace, &user, now_ms);
    return SMTP_ACCEPT;
}

/* ---- the header --------------------------------------------------------------------------- */

static void add_fields(struct transaction *transaction, const struct smtp_header *header)
{
    struct buffer *content = &transaction->content;
    struct slice hostname = transaction->session->listener->settings.hostname;
    size_t before = content->length;
    transaction->has_fields = true;
    if (!header->date_seen) {
        char date[DATE_TEXT_SIZE];
        date_to_text(transaction->received_ms, date);
        buffer_printf(content, "Date: %s\r\n", date);
    }
    if (!header->id_seen) {
        char id[ID_TEXT_LENGTH + 1];
        id_to_text(transaction->id, id);
        size_t from = content->length + sizeof("Message-ID: ") - 1;
        buffer_printf(content, "Message-ID: <%s@%.*s>\r\n", id, SLICE_PRINT(hostname));
        struct slice value = slice_skip(buffer_slice(content), from);
        transaction->message_id_header =
            arena_copy(&transaction->arena, slice_take(value, slice_find(value, '\r')));
    }
    transaction->added_bytes = content->length - before;
}

size_t submit_header_end(const struct transaction *transaction, const struct smtp_content *content,
                         struct slice bytes)
{
    const struct smtp_header *header = &content->header;
    if (!has_login(transaction->session) || transaction->has_fields || !header->complete) {
        return bytes.length;
    }
    uint64_t start = content->length - bytes.length;
    uint64_t end = header->length - (smtp_header_has_empty_line(header) ? 2 : 0);
    return end > start ? (size_t)(end - start) : 0;
}

void submit_header(struct transaction *transaction, const struct smtp_content *content)
{
    if (has_login(transaction->session) && !transaction->has_fields) {
        add_fields(transaction, &content->header);
    }
}
