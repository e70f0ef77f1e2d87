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
#include "proto/authors.h"
#include "proto/header_list.h"
#include "sys/clock.h"

#include <stdio.h>

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
    struct ip_address user = smtp_in_user(shared, login_identity(session));
    int64_t now_ms = clock_steady_ms();
    if (!smtp_in_may(shared, SMTP_IN_SUBMITS, pace, &user, now_ms)) {
        counter_add(session->in->counters, COUNTER_RATE_LIMITED, 1);
        return (struct smtp_answer){450, "4.7.1",
                                    SLICE_LITERAL("Too many recipients of yours in an hour")};
    }
    smtp_in_did(shared, SMTP_IN_SUBMITS, pace, &user, now_ms);
    return SMTP_ACCEPT;
}

/* ---- the authors --------------------------------------------------------------------------- */

static bool asks_for_authors(const struct session *session)
{
    return has_login(session) && session->listener->sender_check == SENDER_CHECK_HEADER;
}

void submit_look(struct transaction *transaction, struct slice bytes)
{
    if (asks_for_authors(transaction->session)) {
        buffer_append(&transaction->authored, bytes);
    }
}

static bool is_his(void *context, struct slice address)
{
    return login_owns(context, address);
}

/* NULL: all in the fields of that name are his; *ret_fields and *ret_count say how many there are.
 */
static const char *fault_of(struct session *session, const struct header_list *list,
                            struct slice name, uint32_t *ret_fields, uint32_t *ret_count)
{
    *ret_fields = *ret_count = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        uint32_t count = 0;
        if (!slice_equal_fold(slice_trim(list->fields[i].name), name)) {
            continue;
        }
        (*ret_fields)++;
        switch (authors_read(header_field_value(&list->fields[i]), is_his, session, &count)) {
        case AUTHORS_READ:
            break;
        case AUTHORS_REFUSED:
            return "has an address that is not yours";
        case AUTHORS_BROKEN:
            return "cannot be understood";
        }
        *ret_count += count;
    }
    return *ret_fields > 1 ? "is there twice" : NULL;
}

static struct smtp_answer refuse_author(struct transaction *transaction, const char *field,
                                        const char *why)
{
    char text[80];
    int length = snprintf(text, sizeof(text), "The %s field %s", field, why);
    struct slice copy = arena_copy(&transaction->arena, slice_make(text, (size_t)length));
    return (struct smtp_answer){550, "5.7.1", copy};
}

static struct smtp_answer judge_authors(struct transaction *transaction,
                                        const struct header_list *list)
{
    struct session *session = transaction->session;
    uint32_t from, authors, sender, senders;
    const char *why = fault_of(session, list, SLICE_LITERAL("From"), &from, &authors);
    if (why != NULL || from == 0) {
        return refuse_author(transaction, "From", why != NULL ? why : "is missing");
    }
    why = fault_of(session, list, SLICE_LITERAL("Sender"), &sender, &senders);
    if (why != NULL) {
        return refuse_author(transaction, "Sender", why);
    }
    return authors + senders > 0 ? SMTP_ACCEPT : refuse_author(transaction, "From", "names nobody");
}

struct smtp_answer submit_authors(struct transaction *transaction,
                                  const struct smtp_content *content)
{
    struct header_list list;
    struct arena arena;
    if (!asks_for_authors(transaction->session)) {
        return SMTP_ACCEPT;
    }
    struct slice block = slice_take(buffer_slice(&transaction->authored),
                                    (size_t)smtp_content_header_length(content));
    struct smtp_answer answer = {452, "4.3.0", SLICE_LITERAL("Out of memory")};
    arena_init(&arena);
    if (!transaction->authored.failed && header_list_take(&list, block, block.length, &arena)) {
        answer = judge_authors(transaction, &list);
        header_list_done(&list);
    }
    arena_done(&arena);
    buffer_done(&transaction->authored);
    return answer;
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
    /* That the header was over shows in the line behind it; where that came in pieces, the place
     * for fields has gone by, and there are none. */
    return end >= start ? (size_t)(end - start) : bytes.length;
}

void submit_header(struct transaction *transaction, const struct smtp_content *content)
{
    if (has_login(transaction->session) && !transaction->has_fields) {
        add_fields(transaction, &content->header);
    }
}
