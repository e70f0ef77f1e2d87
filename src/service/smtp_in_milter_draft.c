/* SPDX-License-Identifier: Apache-2.0 */
#include "service/smtp_in_milter_draft.h"

#include <stdlib.h>

enum { HEADER_SLACK = 2 * DRAFT_CHANGES_MAX * MILTERS_MAX };

/* ---- texts ----------------------------------------------------------------------------------- */

uint64_t draft_text_length(const struct draft_text *text)
{
    return text->kept.length + text->rest.length;
}

void draft_text_done(struct smtp_in *in, struct draft_text *text)
{
    if (in->store != NULL) {
        scratch_clear(in->store, &text->kept);
    }
    buffer_done(&text->rest);
}

enum error content_keep(struct smtp_in *in, struct scratch_text *kept, struct buffer *content)
{
    if (in->store == NULL) {
        return ERROR_SPACE;
    }
    /* The disk's reserve is for mail that has been taken. */
    enum error error = in->accepting != ERROR_NONE
                           ? in->accepting
                           : scratch_append(in->store, kept, buffer_slice(content));
    if (error == ERROR_NONE) {
        buffer_clear(content);
    }
    return error;
}

enum error draft_text_append(struct smtp_in *in, struct draft_text *text, struct slice bytes)
{
    if (text->rest.length > 0 && text->rest.length + bytes.length > CHANNEL_CHUNK) {
        enum error error = content_keep(in, &text->kept, &text->rest);
        if (error != ERROR_NONE) {
            return error;
        }
    }
    if (bytes.length > CHANNEL_CHUNK) {
        enum error error = draft_text_append(in, text, slice_take(bytes, CHANNEL_CHUNK));
        return error != ERROR_NONE ? error
                                   : draft_text_append(in, text, slice_skip(bytes, CHANNEL_CHUNK));
    }
    buffer_append(&text->rest, bytes);
    return text->rest.failed ? ERROR_MEMORY : ERROR_NONE;
}

enum error draft_text_read(struct smtp_in *in, const struct draft_text *text, uint64_t offset,
                           uint8_t *ret_bytes, size_t size, size_t *ret_length)
{
    if (offset < text->kept.length) {
        return scratch_read(in->store, &text->kept, offset, ret_bytes, size, ret_length);
    }
    struct slice rest = slice_take(
        slice_skip(buffer_slice(&text->rest), (size_t)(offset - text->kept.length)), size);
    if (rest.length > 0) {
        memcpy(ret_bytes, rest.data, rest.length);
    }
    *ret_length = rest.length;
    return ERROR_NONE;
}

/* ---- drafts ---------------------------------------------------------------------------------- */

void draft_account(struct smtp_in *in, struct draft *draft)
{
    size_t now = sizeof(*draft) + draft->header.capacity + draft->body.rest.capacity +
                 draft->new_body.rest.capacity + draft->change_bytes;
    smtp_in_content_grown(in->shared, now);
    smtp_in_content_shrunk(in->shared, draft->accounted);
    draft->accounted = now;
}

void draft_forget_changes(struct session_milters *milters)
{
    struct draft *draft = milters->draft;
    if (draft == NULL) {
        return;
    }
    draft->change_count = 0;
    draft->change_bytes = 0;
    draft_text_done(milters->session->in, &draft->new_body);
    buffer_init(&draft->new_body.rest, 2 * CHANNEL_CHUNK);
    draft->has_new_body = false;
}

void draft_free(struct smtp_in *in, struct draft *draft)
{
    if (draft == NULL) {
        return;
    }
    smtp_in_content_shrunk(in->shared, draft->accounted);
    draft_text_done(in, &draft->body);
    draft_text_done(in, &draft->new_body);
    header_list_done(&draft->list);
    buffer_done(&draft->header);
    free(draft->changes);
    free(draft);
}

static enum error read_header(struct smtp_in *in, struct draft *draft, uint64_t length)
{
    if (buffer_reserve(&draft->header, (size_t)length) != ERROR_NONE) {
        return ERROR_MEMORY;
    }
    while (draft->header.length < length) {
        size_t got, left = (size_t)length - draft->header.length;
        enum error error = draft_text_read(
            in, &draft->body, draft->header.length, in->chunk->bytes,
            left < sizeof(in->chunk->bytes) ? left : sizeof(in->chunk->bytes), &got);
        if (error == ERROR_NONE && got == 0) {
            error = ERROR_IO;
        }
        if (error != ERROR_NONE) {
            return error;
        }
        buffer_append(&draft->header, slice_make(in->chunk->bytes, got));
    }
    return ERROR_NONE;
}

enum error draft_take(struct session_milters *milters, uint64_t header_length)
{
    struct session *session = milters->session;
    struct transaction *transaction = session->transaction;
    struct smtp_in *in = session->in;
    struct draft *draft = calloc(1, sizeof(*draft));
    struct buffer trace;
    if (draft == NULL) {
        return ERROR_MEMORY;
    }
    milters->draft = draft;
    buffer_init(&draft->header, 0);
    draft->body.kept = transaction->kept;
    transaction->kept = (struct scratch_text){0};
    draft->body.rest = content_take(in, transaction);
    buffer_init(&draft->new_body.rest, 2 * CHANNEL_CHUNK);
    draft->body_begins = header_length;
    enum error error = read_header(in, draft, header_length);
    if (error != ERROR_NONE) {
        return error;
    }
    buffer_init(&trace, 0);
    content_put_trace(session, &trace);
    bool good = header_list_take(&draft->list, buffer_slice(&draft->header),
                                 header_length + HEADER_SLACK, &transaction->arena) &&
                !trace.failed && header_list_put_own(&draft->list, buffer_slice(&trace));
    buffer_done(&trace);
    draft_account(in, draft);
    return good ? ERROR_NONE : ERROR_MEMORY;
}
