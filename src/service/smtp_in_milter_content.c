/* SPDX-License-Identifier: Apache-2.0
 *
 * A message's content on its way through the filters. It is all here before the first is asked, for
 * each must see what those before it have changed at their end (smtp_in_milter_draft.h). What a
 * filter changes counts with its verdict; if it fails before, nothing of it does. Only when all
 * have spoken goes the content to core, and from there its way is that of any other (R1).
 *
 *   filter  HEADER* EOH BODY* END   each step waits for the verdict, if one comes, and for room
 *   after the last: own field, header, body to core, then the commit
 */
#include "service/smtp_in_milter_draft.h"

#include "base/utf8.h"
#include "sys/clock.h"

enum {
    OUTPUT_HIGH = 256 << 10, /* with so much unsent a filter is given no more */
};

/* ---- to core --------------------------------------------------------------------------------- */

static enum smtp_in_sent {
    SENT_ALL,
    SENT_LATER,
    SENT_FAILED
} put(struct session_milters *milters, struct slice bytes)
{
    struct session *session = milters->session;
    struct transaction *transaction = session->transaction;
    if (transaction->content.length + bytes.length > CHANNEL_CHUNK) {
        enum error error = core_send_append(session->in, transaction);
        if (error != ERROR_NONE) {
            return error == ERROR_AGAIN ? SENT_LATER : SENT_FAILED;
        }
    }
    buffer_append(&transaction->content, bytes);
    return transaction->content.failed ? SENT_FAILED : SENT_ALL;
}

/* The header is put together in one piece, and sent like a body. */
static bool make_header(struct session_milters *milters)
{
    struct draft *draft = milters->draft;
    struct buffer whole;
    buffer_init(&whole, 0);
    for (uint32_t i = 0; i < draft->list.count; i++) {
        buffer_append(&whole, draft->list.fields[i].whole);
    }
    bool needs_end = draft->list.tail.length == 0 && draft->body_begins == 0 &&
                     draft_text_length(&draft->body) > 0;
    buffer_append(&whole, needs_end ? SLICE_LITERAL("\r\n") : draft->list.tail);
    buffer_done(&draft->header);
    draft->header = whole;
    draft->list.count = 0; /* its fields lay in there */
    return !whole.failed;
}

static enum smtp_in_sent send_on(struct session_milters *milters)
{
    struct draft *draft = milters->draft;
    struct smtp_in *in = milters->session->in;
    uint64_t header = draft->header.length;
    uint64_t total = header + draft_text_length(&draft->body) - draft->body_begins;
    while (draft->at < total) {
        size_t got;
        enum error error = ERROR_NONE;
        if (draft->at < header) {
            struct slice part =
                slice_take(slice_skip(buffer_slice(&draft->header), (size_t)draft->at),
                           sizeof(in->chunk->bytes));
            memcpy(in->chunk->bytes, part.data, part.length);
            got = part.length;
        } else {
            error = draft_text_read(in, &draft->body, draft->body_begins + draft->at - header,
                                    in->chunk->bytes, sizeof(in->chunk->bytes), &got);
        }
        if (error != ERROR_NONE || got == 0) {
            return SENT_FAILED;
        }
        enum smtp_in_sent sent = put(milters, slice_make(in->chunk->bytes, got));
        if (sent != SENT_ALL) {
            return sent;
        }
        draft->at += got;
    }
    return SENT_ALL;
}

/* Filters write what a client calls itself into their results, and some write it without quotes: it
 * could end one there, and begin another. */
static bool could_pass_for_results(struct slice said)
{
    for (size_t i = 0; i < said.length; i++) {
        if (said.data[i] <= ' ' || strchr(";()\"\\", said.data[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* So is what the client's message says: a domain in From, the identity of a signature, which may
 * hold a semicolon in quoted-printable (RFC 6376 section 3.5). */
static bool header_could_pass_for_results(const struct header_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        const struct header_field *field = &list->fields[i];
        struct slice value = header_field_value(field);
        bool is_signature = slice_equal_fold(field->name, SLICE_LITERAL("DKIM-Signature"));
        if (slice_equal_fold(field->name, SLICE_LITERAL("From")) &&
            slice_find(value, ';') < value.length) {
            return true;
        }
        for (size_t at = 0; is_signature && at + 3 <= value.length; at++) {
            if (slice_starts_fold(slice_skip(value, at), SLICE_LITERAL("=3b"))) {
                return true;
            }
        }
    }
    return false;
}

/* R8: what our own filters have found out of the sender in this session. */
static void verify_sender(struct session_milters *milters)
{
    static const char *const texts[] = {"", "spf", "dkim", "dmarc"};
    const struct session *session = milters->session;
    struct transaction *transaction = session->transaction;
    const struct header_list *list = &milters->draft->list;
    struct auth_names names = content_own_names(session);
    struct slice sender = transaction->sender;
    struct slice domain = slice_skip(sender, slice_find_last(sender, '@') + 1);
    if (could_pass_for_results(sender) ||
        could_pass_for_results(slice_make(session->helo, session->helo_length)) ||
        header_could_pass_for_results(list)) {
        return;
    }
    for (uint32_t i = 0; i < list->count; i++) {
        const struct header_field *field = &list->fields[i];
        enum auth_proof proof =
            field->is_added &&
                    slice_equal_fold(field->name, SLICE_LITERAL("Authentication-Results"))
                ? auth_results_prove(header_field_value(field), &names, domain)
                : AUTH_NOTHING;
        if (proof != AUTH_NOTHING) {
            transaction->flags |= SPOOL_SENDER_VERIFIED;
            buffer_append_text(&milters->verdicts, "; sender verified by ");
            buffer_append_text(&milters->verdicts, texts[proof]);
            return;
        }
    }
}

static void describe_result(struct session_milters *milters)
{
    struct transaction *transaction = milters->session->transaction;
    struct draft *draft = milters->draft;
    const struct header_field *id = header_list_find(&draft->list, SLICE_LITERAL("Message-ID"));
    if (draft->list.changed && id != NULL && id->is_added) {
        struct slice value = slice_trim(header_field_value(id));
        bool fits = value.length <= SMTP_MESSAGE_ID_MAX && slice_find(value, '\n') == value.length;
        transaction->message_id_header =
            fits ? arena_copy(&transaction->arena, value) : SLICE_EMPTY;
    }
    if (draft->has_8bit) {
        transaction->flags |= SPOOL_8BIT;
    }
    if (draft->is_held) {
        transaction->flags |= CHANNEL_QUARANTINED;
    }
    verify_sender(milters);
    transaction->verdicts = arena_copy(&transaction->arena, buffer_slice(&milters->verdicts));
}

/* True: *ret_answer is the reply. */
static bool send_all(struct session_milters *milters, struct smtp_answer *ret_answer)
{
    struct session *session = milters->session;
    struct transaction *transaction = session->transaction;
    struct draft *draft = milters->draft;
    if (transaction->failure != NULL || session->in->ring == NULL) {
        *ret_answer = core_error_answer(ERROR_CLOSED);
        return true;
    }
    switch (send_on(milters)) {
    case SENT_LATER:
        session_wait(session);
        return false;
    case SENT_FAILED:
        *ret_answer = core_error_answer(ERROR_IO);
        return true;
    case SENT_ALL:
        break;
    }
    transaction->header_length = draft->header.length;
    transaction->bytes =
        draft->header.length + draft_text_length(&draft->body) - draft->body_begins;
    if (transaction->head_limit != 0 && transaction->bytes > transaction->head_limit) {
        *ret_answer = (struct smtp_answer){552, "5.3.4",
                                           SLICE_LITERAL("Message too large for the next server")};
        return true;
    }
    return content_commit(session->in, transaction, ret_answer);
}

/* A message that a filter throws away is told to core by its envelope, for the trace. */
static bool send_discarded(struct session_milters *milters, struct smtp_answer *ret_answer)
{
    struct session *session = milters->session;
    struct transaction *transaction = session->transaction;
    counter_add(session->in->counters, COUNTER_MILTER_DISCARDED, 1);
    transaction->flags |= CHANNEL_DISCARDED;
    transaction->header_length = transaction->bytes = 0;
    transaction->verdicts = arena_copy(&transaction->arena, buffer_slice(&milters->verdicts));
    return content_commit(session->in, transaction, ret_answer);
}

/* ---- the filters ----------------------------------------------------------------------------- */

/* The next step of a filter's. */
enum said { SAID_ASKED, SAID_MORE, SAID_ALL, SAID_FULL, SAID_FAILED };

static enum said say_field(struct draft *draft, struct milter *milter, int64_t now_ms)
{
    while (draft->at < draft->list.count && milter_wants(milter, MILTER_HEADER)) {
        const struct header_field *field = &draft->list.fields[draft->at++];
        if (!field->is_own && field->name.length > 0) {
            return milter_header(milter, field->name, header_field_value(field), now_ms)
                       ? SAID_ASKED
                       : SAID_MORE;
        }
    }
    draft->phase = DRAFT_EOH;
    return SAID_MORE;
}

static enum said say_body(struct smtp_in *in, struct draft *draft, struct milter *milter,
                          int64_t now_ms)
{
    size_t length = 0;
    if (milter_wants(milter, MILTER_BODY) &&
        draft_text_read(in, &draft->body, draft->body_begins + draft->at, in->chunk->bytes,
                        sizeof(in->chunk->bytes), &length) != ERROR_NONE) {
        return SAID_FAILED;
    }
    if (length == 0) {
        draft->phase = DRAFT_END;
        return SAID_MORE;
    }
    draft->at += length;
    return milter_body(milter, slice_make(in->chunk->bytes, length), now_ms) ? SAID_ASKED
                                                                             : SAID_MORE;
}

static enum said say_next(struct session_milters *milters, struct milter_link *link)
{
    struct draft *draft = milters->draft;
    struct milter *milter = link->milter;
    int64_t now_ms = clock_steady_ms();
    if (milter_output(milter).length > OUTPUT_HIGH) {
        milter_link_go(link);
        if (milter_output(milter).length > OUTPUT_HIGH) {
            return SAID_FULL;
        }
    }
    switch (draft->phase) {
    case DRAFT_HEADER:
        return say_field(draft, milter, now_ms);
    case DRAFT_EOH:
        draft->phase = DRAFT_BODY;
        draft->at = 0;
        return milter_eoh(milter, now_ms) ? SAID_ASKED : SAID_MORE;
    case DRAFT_BODY:
        return say_body(milters->session->in, draft, milter, now_ms);
    default:
        return milter_end(milter, now_ms) ? SAID_ASKED : SAID_ALL;
    }
}

static void begin_filter(struct session_milters *milters)
{
    milters->draft->phase = DRAFT_HEADER;
    milters->draft->at = 0;
    draft_forget_changes(milters);
}

/* The next one. `is_over`: this one knows that the message is; else it hears that when all do. */
static void next_filter(struct session_milters *milters, bool is_over)
{
    milters->each[milters->at++].in_message &= !is_over;
    begin_filter(milters);
}

/* Tells the filter `at` all that it may hear. True: it is to be waited for. */
static bool tell_filter(struct session_milters *milters, struct session_milter *filter,
                        const char **ret_why)
{
    enum said said = SAID_MORE;
    while (said == SAID_MORE) {
        said = milter_link_check(filter->link, ret_why) ? say_next(milters, filter->link)
                                                        : SAID_FAILED;
    }
    if (said == SAID_ALL) {
        /* It has accepted the message before, if it is in its senses. */
        if (milter_link_check(filter->link, ret_why)) {
            next_filter(milters, false);
        }
        return false;
    }
    if (said == SAID_FAILED) {
        *ret_why = *ret_why != NULL ? *ret_why : "its content cannot be read";
        return false;
    }
    milter_link_go(filter->link);
    filter->link->wants_room = said == SAID_FULL;
    return true;
}

bool milter_content_go(struct session_milters *milters, struct smtp_answer *ret_answer)
{
    struct draft *draft = milters->draft;
    while (milters->at < milters->count && !milters->is_discarded && !milters->has_failed) {
        struct session_milter *filter = &milters->each[milters->at];
        const char *why = NULL;
        if (!filter->in_message || filter->link == NULL) {
            milters->at++;
            begin_filter(milters);
            continue;
        }
        milters->is_asked = true;
        if (tell_filter(milters, filter, &why)) {
            return false;
        }
        milters->is_asked = false;
        if (why != NULL && milter_failed(filter, slice_from_text(why), ret_answer)) {
            return true;
        }
    }
    if (milters->has_failed) {
        *ret_answer = (struct smtp_answer){451, "4.7.1",
                                           SLICE_LITERAL("Service unavailable, try again later")};
        return true;
    }
    if (draft != NULL && draft->is_nobodys && !milters->is_discarded) {
        milters->is_discarded = true; /* filters have taken all away */
        buffer_append_text(&milters->verdicts, "; no recipient left");
    }
    if (milters->is_discarded) {
        return send_discarded(milters, ret_answer);
    }
    if (draft->phase != DRAFT_SENDING) {
        draft->phase = DRAFT_SENDING;
        draft->at = 0;
        describe_result(milters);
        if (!make_header(milters)) {
            *ret_answer = core_error_answer(ERROR_MEMORY);
            return true;
        }
    }
    return send_all(milters, ret_answer);
}

/* ---- what a filter says ---------------------------------------------------------------------- */

static void end_with(struct session_milters *milters, struct smtp_answer answer)
{
    milters->is_asked = false;
    session_answer(milters->session, SMTP_SERVER_END, &answer);
}

static void go(struct session_milters *milters)
{
    struct smtp_answer answer;
    if (milter_content_go(milters, &answer)) {
        end_with(milters, answer);
    }
}

static void broke(struct session_milter *filter, const char *why)
{
    struct session_milters *milters = filter->all;
    struct smtp_answer answer;
    milters->is_asked = false;
    if (milter_failed(filter, slice_from_text(why), &answer)) {
        end_with(milters, answer);
    } else {
        go(milters);
    }
}

static void note_end(struct session_milters *milters, const struct session_milter *filter)
{
    const struct draft *draft = milters->draft;
    struct slice reason = SLICE_EMPTY;
    for (uint32_t i = 0; i < draft->change_count; i++) {
        if (draft->changes[i].kind == MILTER_QUARANTINE) {
            reason = draft->changes[i].value;
            milter_note_verdict(milters, filter, "quarantine", reason);
            return;
        }
    }
    milter_note_verdict(milters, filter,
                        draft->change_count > 0 || draft->has_new_body ? "changed" : "accept",
                        reason);
}

static void take_verdict(struct session_milter *filter, const struct milter_event *event)
{
    struct session_milters *milters = filter->all;
    struct smtp_answer answer;
    switch (event->verdict) {
    case MILTER_REJECT:
    case MILTER_TEMPFAIL:
    case MILTER_HANG_UP:
        answer = milter_refusal(filter, event);
        milter_tell_refusal(milters, filter, &answer);
        filter->in_message = event->stage != MILTER_END;
        end_with(milters, answer);
        return;
    case MILTER_DISCARD:
        milter_discard(milters, filter);
        filter->in_message = event->stage != MILTER_END;
        go(milters);
        return;
    case MILTER_ACCEPT:
    case MILTER_CONTINUE:
        break;
    }
    if (event->stage == MILTER_END) {
        const char *why = draft_apply(milters);
        if (why != NULL) {
            broke(filter, why);
            return;
        }
        note_end(milters, filter);
        next_filter(milters, true);
    } else if (event->verdict == MILTER_ACCEPT) {
        milter_note_verdict(milters, filter, "accept", SLICE_EMPTY);
        next_filter(milters, false);
    }
    go(milters);
}

/* Returns false if the link has been closed over it. */
bool milter_content_said(struct session_milter *filter, const struct milter_event *event)
{
    struct session_milters *milters = filter->all;
    struct draft *draft = milters->draft;
    if (event->kind == MILTER_VERDICT) {
        take_verdict(filter, event);
        return false;
    }
    const char *why = NULL;
    if (event->kind == MILTER_REPLACE_BODY) {
        draft->has_new_body = true;
        draft->has_8bit = draft->has_8bit || !utf8_is_ascii(event->bytes);
        enum error error = draft_text_append(milters->session->in, &draft->new_body, event->bytes);
        uint64_t most = milters->session->in->config->limits.message_bytes;
        if (error == ERROR_NONE && most != 0 && draft_text_length(&draft->new_body) > most) {
            error = ERROR_LIMIT;
        }
        why = error != ERROR_NONE ? error_text(error) : NULL;
    } else if (!draft_note_change(milters, event)) {
        why = "too many changes";
    }
    draft_account(milters->session->in, draft);
    if (why != NULL) {
        broke(filter, why);
        return false;
    }
    return true;
}

bool milters_content(struct session *session, struct smtp_answer *ret_answer)
{
    struct session_milters *milters = session->milters;
    milters->stage = MILTER_END;
    milters->kind = SMTP_SERVER_END;
    milters->is_content = true;
    milters->at = 0;
    if (milters->is_discarded) {
        return send_discarded(milters, ret_answer);
    }
    enum error error = draft_take(milters, session->transaction->header_length);
    if (error != ERROR_NONE) {
        *ret_answer = core_error_answer(error);
        return true;
    }
    begin_filter(milters);
    return milter_content_go(milters, ret_answer);
}

bool milters_go_on_sending(struct session *session, struct smtp_answer *ret_answer)
{
    return milter_content_go(session->milters, ret_answer);
}
