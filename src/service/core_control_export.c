/* SPDX-License-Identifier: Apache-2.0
 *
 * `queue export`: messages with envelope, origin, the state of their deliveries, and content, in
 * pieces.
 */
#include "service/core_control.h"

#include "base/base64.h"
#include "relay/notes.h"

#include <stdlib.h>

static json_t *notify(uint8_t flags)
{
    static const char *const names[] = {"never", "success", "failure", "delay"};
    json_t *array = json_array();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (flags & (1U << i)) {
            json_array_append_new(array, json_string(names[i]));
        }
    }
    return array;
}

/* ---- what a delivery has behind it ------------------------------------------------------------
 */

/* As relay would have it written down for a message that is moved in the journal. */
struct control_history {
    struct delivery_note note; /* without its text */
    bool in_doubt;             /* note.server may have it */
    bool at_rest;              /* held or dead, since note.when_ms */
};

static void keep_note(void *context, uint32_t delivery, uint16_t kind, struct slice payload)
{
    struct control_request *request = context;
    struct control_history *history;
    struct delivery_note note;
    if (kind == NOTE_REDIRECT || kind == NOTE_SPAN || !note_decode(payload, &note)) {
        return; /* told as "redirect_to", "elapsed" and "uncounted" */
    }
    history = &request->history[delivery];
    note.server = note.server.length > 0 ? arena_copy(&request->arena, note.server) : SLICE_EMPTY;
    note.text = SLICE_EMPTY;
    if (kind == NOTE_ATTEMPT) { /* under way: who takes it over cannot know how it ended */
        note.doubts++;
        note.next_ms = 0;
    }
    history->note = note;
    history->in_doubt = kind == NOTE_ATTEMPT || kind == NOTE_DOUBT;
    history->at_rest = kind == NOTE_HOLD || kind == NOTE_DEAD;
}

/* False: memory. */
static bool collect_history(struct control_request *request)
{
    uint32_t count = request->match.message.recipient_count;
    request->history = arena_allocate(&request->arena, count * sizeof(*request->history));
    if (request->history == NULL) {
        return false;
    }
    relay_describe(request->core->relay, request->match.handle, keep_note, request);
    return true;
}

static void put_history(const struct control_history *history, json_t *row)
{
    const struct delivery_note *note = &history->note;
    control_set(row, "next", control_time(note->next_ms));
    control_set(row, "since", control_time(history->at_rest ? note->when_ms : 0));
    control_set(row, "strikes", json_integer(note->strikes));
    control_set(row, "doubts", json_integer(note->doubts));
    control_set(row, "in_doubt", json_boolean(history->in_doubt));
    control_set(row, "server", control_string_or_null(note->server));
    control_set(row, "by_rule", json_boolean(note->flags & NOTE_BY_RULE));
    control_set(row, "refused_once", json_boolean(note->flags & NOTE_REFUSED_ONCE));
}

/* ---- rows ------------------------------------------------------------------------------------ */

static json_t *recipient_row(struct control_request *request, uint32_t delivery)
{
    const struct match *match = &request->match;
    const struct spool_recipient *recipient = &match->message.recipients[delivery];
    json_t *view = control_delivery(request, match, delivery);
    json_t *row = json_object();
    control_set(row, "n", json_integer(delivery));
    control_set(row, "address", control_string(recipient->address));
    control_set(row, "orcpt", control_string(recipient->orcpt));
    control_set(row, "notify", notify(recipient->notify));
    static const char *const shared[] = {"state", "fate", "attempts", "reason", "redirect_to"};
    for (size_t i = 0; i < sizeof(shared) / sizeof(shared[0]); i++) {
        control_set(row, shared[i], json_incref(json_object_get(view, shared[i])));
    }
    json_decref(view);
    put_history(&request->history[delivery], row);
    return row;
}

static json_t *recipients_piece(struct control_request *request)
{
    json_t *array = json_array();
    uint32_t count = request->match.message.recipient_count;
    size_t bytes = 0;
    while (bytes < CONTROL_PIECE_BYTES && request->match_at < count) {
        control_piece_add(array, &bytes, recipient_row(request, request->match_at++));
    }
    return array;
}

static void put_head(struct control_request *request)
{
    const struct spool_message *message = &request->match.message;
    json_t *row = json_object();
    control_set(row, "format", json_integer(1));
    control_set(row, "id", control_id(message->id, -1));
    control_set(row, "received", json_integer(message->received_ms));
    control_set(row, "bytes",
                json_integer((json_int_t)(message->header_length + message->body_length)));
    control_set(row, "header_bytes", json_integer((json_int_t)message->header_length));
    control_set(row, "message_id", control_string_or_null(message->message_id_header));
    control_set(row, "copy_of", control_copy_of(message));
    control_set(row, "envelope", control_envelope(request, message));
    control_set(row, "origin", control_origin(message));
    control_part(request->core, &request->match, row);
    control_set(row, "recipients", recipients_piece(request));
    control_row(request, row);
}

static void unreadable(struct control_request *request)
{
    request->error = "some messages could not be read";
    request->code = CONTROL_NOTHING_MATCHED;
}

/* The next piece of content. False: that was the last, or it cannot be read. */
static bool put_content(struct control_request *request)
{
    const struct spool_message *message = &request->match.message;
    uint64_t all = message->header_length + message->body_length;
    uint64_t rest = all - request->content_at;
    size_t want = rest < CONTROL_CONTENT_MAX ? (size_t)rest : CONTROL_CONTENT_MAX;
    uint8_t *bytes = malloc(want + 1);
    size_t have = 0;
    enum error error = bytes == NULL ? ERROR_MEMORY : ERROR_NONE;
    while (error == ERROR_NONE && have < want) {
        size_t length = 0;
        error = spool_read_content(request->core->spool, request->match.handle,
                                   request->content_at + have, bytes + have, want - have, &length);
        if (error == ERROR_NONE && length == 0) {
            error = ERROR_CORRUPT;
        }
        have += length;
    }
    struct buffer text;
    buffer_init(&text, 0);
    if (error == ERROR_NONE) {
        base64_encode(&text, slice_make(bytes, have));
    }
    free(bytes);
    bool last = error != ERROR_NONE || request->content_at + have == all;
    json_t *row = json_object();
    control_set(row, "id", control_id(message->id, -1));
    control_set(row, "offset", json_integer((json_int_t)request->content_at));
    control_set(row, "content", json_stringn((const char *)text.data, text.length));
    control_set(row, "last", json_boolean(last));
    if (error != ERROR_NONE) {
        control_set(row, "error", json_string(error_text(error)));
        unreadable(request);
    }
    if (text.length == 0) {
        control_set(row, "content", json_string(""));
    }
    buffer_done(&text);
    control_row(request, row);
    request->content_at += have;
    return !last;
}

/* Who takes everything away takes the dead letters too: what is kept here is the only copy. */
enum control_step queue_export_begin(struct control_request *request)
{
    struct selection *selection = &request->selection;
    selection->dead_too = selection->all || control_selection_is_empty(selection);
    return STEP_MORE;
}

enum control_step queue_export_step(struct control_request *request)
{
    if (request->has_match && request->match_at < request->match.message.recipient_count) {
        json_t *more = json_object();
        control_set(more, "recipients", recipients_piece(request));
        control_more(request, more);
        return STEP_MORE;
    }
    if (request->has_match) {
        if (!put_content(request)) {
            control_unpin(request);
            request->has_match = false;
            control_progress(request);
        }
        return STEP_MORE;
    }
    enum control_step step = control_next_match(request);
    if (request->has_match && request->match.unreadable) {
        unreadable(request);
        request->has_match = false;
    } else if (request->has_match) {
        request->match_at = 0;
        request->content_at = 0;
        if (!collect_history(request)) {
            return control_fail(request, CONTROL_NOTHING_MATCHED, error_text(ERROR_MEMORY));
        }
        control_read_fates(request, &request->match);
        put_head(request);
    }
    return step;
}
