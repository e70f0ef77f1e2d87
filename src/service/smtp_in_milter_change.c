/* SPDX-License-Identifier: Apache-2.0
 *
 * What a filter wants changed of header and envelope. It is only noted until its verdict, then
 * looked at as a whole, and done.
 */
#include "service/smtp_in_milter_draft.h"

#include "base/utf8.h"

#include <stdlib.h>

bool draft_note_change(struct session_milters *milters, const struct milter_event *event)
{
    struct draft *draft = milters->draft;
    struct arena *arena = &milters->session->transaction->arena;
    size_t bytes = sizeof(struct draft_change) + event->name.length + event->value.length;
    if (draft->change_bytes + bytes > DRAFT_CHANGES_MAX) {
        return false;
    }
    if (draft->change_count == draft->change_room) {
        uint32_t room = draft->change_room == 0 ? 16 : draft->change_room * 2;
        struct draft_change *more = realloc(draft->changes, room * sizeof(*more));
        if (more == NULL) {
            return false;
        }
        draft->changes = more;
        draft->change_room = room;
    }
    struct draft_change change = {
        .kind = event->kind,
        .index = event->index,
        .needs_blank = event->needs_blank,
        .name = arena_copy(arena, event->name),
        .value = arena_copy(arena, event->value),
    };
    if (change.name.data == NULL || change.value.data == NULL) {
        return false;
    }
    draft->changes[draft->change_count++] = change;
    draft->change_bytes += bytes;
    return true;
}

/* "<a@b>" or "a@b" as a filter says it. */
static bool read_address(struct slice text, enum smtp_path_kind kind,
                         struct smtp_mailbox *ret_mailbox)
{
    text = slice_trim(text);
    if (text.length > 0 && text.data[0] == '<') {
        return smtp_path_read(&text, kind, ret_mailbox) && text.length == 0;
    }
    *ret_mailbox = (struct smtp_mailbox){0};
    return (text.length == 0 && kind == SMTP_REVERSE_PATH) || smtp_mailbox_parse(text, ret_mailbox);
}

static const char *change_sender(struct transaction *transaction, struct slice value)
{
    struct smtp_mailbox mailbox;
    if (!read_address(value, SMTP_REVERSE_PATH, &mailbox)) {
        return "a sender that is no address";
    }
    struct slice sender = arena_copy(&transaction->arena, mailbox.text);
    if (sender.data == NULL) {
        return "no memory";
    }
    transaction->sender = sender;
    transaction->is_utf8_address = transaction->is_utf8_address || mailbox.is_utf8;
    return NULL;
}

static bool add_recipient(struct session *session, struct draft *draft,
                          const struct smtp_mailbox *mailbox)
{
    struct transaction *transaction = session->transaction;
    if (!envelope_add_recipient(session, mailbox)) {
        return false;
    }
    if (draft->is_nobodys && transaction->recipient_count > 1) {
        (void)envelope_drop_recipient(session, transaction->recipients[0].address);
    }
    draft->is_nobodys = false;
    return true;
}

static const char *apply_one(struct session_milters *milters, const struct draft_change *change)
{
    struct session *session = milters->session;
    struct draft *draft = milters->draft;
    struct header_list *list = &draft->list;
    struct smtp_mailbox mailbox;
    bool good = true;
    switch (change->kind) {
    case MILTER_ADD_HEADER:
        good = header_list_add(list, change->name, change->value, change->needs_blank);
        break;
    case MILTER_INSERT_HEADER:
        good = header_list_insert(list, change->index, change->name, change->value,
                                  change->needs_blank);
        break;
    case MILTER_CHANGE_HEADER:
        good = header_list_change(list, change->index, change->name, change->value,
                                  change->needs_blank);
        break;
    case MILTER_ADD_RECIPIENT:
        (void)!read_address(change->value, SMTP_FORWARD_PATH, &mailbox);
        good = add_recipient(session, draft, &mailbox);
        break;
    case MILTER_DEL_RECIPIENT:
        (void)!read_address(change->value, SMTP_FORWARD_PATH, &mailbox);
        if (!envelope_drop_recipient(session, mailbox.text)) {
            draft->is_nobodys = true;
        }
        break;
    case MILTER_CHANGE_SENDER:
        return change_sender(session->transaction, change->value);
    default: /* QUARANTINE */
        draft->is_held = true;
        return NULL;
    }
    draft->has_8bit = draft->has_8bit || !utf8_is_ascii(change->value);
    return good ? NULL : "no room for its changes";
}

/* Why a change cannot be made: all of a filter's are, or none. */
static const char *check_one(struct session_milters *milters, const struct draft_change *change)
{
    struct smtp_mailbox mailbox;
    switch (change->kind) {
    case MILTER_CHANGE_SENDER:
        return read_address(change->value, SMTP_REVERSE_PATH, &mailbox)
                   ? NULL
                   : "a sender that is no address";
    case MILTER_ADD_RECIPIENT:
    case MILTER_DEL_RECIPIENT:
        if (!read_address(change->value, SMTP_FORWARD_PATH, &mailbox)) {
            return "a recipient that is no address";
        }
        return change->kind == MILTER_DEL_RECIPIENT ||
                       envelope_has_route(milters->session, &mailbox)
                   ? NULL
                   : "a recipient that has no route here";
    default:
        return NULL;
    }
}

const char *draft_apply(struct session_milters *milters)
{
    struct draft *draft = milters->draft;
    const char *why = NULL;
    for (uint32_t i = 0; i < draft->change_count && why == NULL; i++) {
        why = check_one(milters, &draft->changes[i]);
    }
    for (uint32_t i = 0; i < draft->change_count && why == NULL; i++) {
        why = apply_one(milters, &draft->changes[i]);
        /* Half a filter's changes are nobody's wish: not this message, whatever the default. */
        milters->has_failed = milters->has_failed || why != NULL;
    }
    if (why != NULL) {
        return why;
    }
    if (draft->has_new_body) {
        draft_text_done(milters->session->in, &draft->body);
        draft->body = draft->new_body;
        draft->body_begins = 0;
        draft->new_body = (struct draft_text){0};
    }
    return NULL;
}
