/* SPDX-License-Identifier: Apache-2.0
 *
 * `queue import`: a message in one request or several, as `queue export` gave it. Its id is kept,
 * so doing it twice stores it once. The message, the fates that it already has and what its
 * deliveries have behind them go into one batch: no crash in between can deliver again.
 */
#include "service/core_control_record.h"

#include "base/base64.h"

#include <stdlib.h>

/* ---- storing --------------------------------------------------------------------------------- */

static struct slice encode_note(struct buffer *buffer, const struct delivery_note *note)
{
    buffer_clear(buffer);
    note_encode(buffer, note);
    return buffer_slice(buffer);
}

/* What waits as if nothing had happened needs no note. */
static bool needs_note(const struct imported_state *state)
{
    return state->state != DELIVERY_WAITING || state->note.attempts > 0 ||
           state->note.strikes > 0 || state->note.doubts > 0;
}

typedef void history_fn(struct control_import *import, struct spool_handle handle,
                        uint32_t delivery, unsigned fate, uint16_t kind, struct slice payload);

/* Fates and notes that the deliveries bring along, a redirect before the state, as relay tells them
 * of a message that is moved. */
static void each_of_history(struct control_import *import, struct spool_handle handle,
                            history_fn *fn)
{
    struct buffer buffer;
    buffer_init(&buffer, SPOOL_NOTE_MAX);
    if (import->uncounted_s > 0) {
        const struct span_note span = {.elapsed_s = import->message.elapsed_s,
                                       .credit_s = import->uncounted_s};
        note_encode_span(&buffer, &span);
        fn(import, handle, SPOOL_ALL_DELIVERIES, 0, NOTE_SPAN, buffer_slice(&buffer));
    }
    for (uint32_t i = 0; i < import->count; i++) {
        const struct imported_state *state = &import->states[i];
        if (state->fate != 0) {
            fn(import, handle, i, state->fate, 0, SLICE_EMPTY);
            continue;
        }
        if (state->redirect_to.length > 0) {
            struct delivery_note redirect = {.when_ms = state->note.when_ms,
                                             .text = state->redirect_to};
            fn(import, handle, i, 0, NOTE_REDIRECT, encode_note(&buffer, &redirect));
        }
        if (needs_note(state)) {
            struct delivery_note note = state->note;
            note.odometer_s = import->message.odometer_s;
            fn(import, handle, i, 0, note_kind_of_state(state->state), encode_note(&buffer, &note));
        }
    }
    buffer_done(&buffer);
}

static void into_batch(struct control_import *import, struct spool_handle handle, uint32_t delivery,
                       unsigned fate, uint16_t kind, struct slice payload)
{
    (void)handle;
    if (fate != 0) {
        spool_batch_new_fate(import->core->spool, delivery, (enum spool_fate)fate);
    } else {
        spool_batch_new_note(import->core->spool, delivery, kind, payload);
    }
}

static void into_relay(struct control_import *import, struct spool_handle handle, uint32_t delivery,
                       unsigned fate, uint16_t kind, struct slice payload)
{
    struct relay *relay = import->core->relay;
    if (fate != 0) {
        relay_load_fate(relay, handle, delivery, (enum spool_fate)fate);
    } else {
        relay_load_note(relay, handle, delivery, kind, payload, core_now(import->core));
    }
}

static void put_result(struct control_request *request, struct message_id id, const char *result)
{
    json_t *row = json_object();
    control_set(row, "id", control_id(id, -1));
    control_set(row, "result", json_string(result));
    control_row(request, row);
}

static bool all_finished(const struct control_import *import)
{
    for (uint32_t i = 0; i < import->count; i++) {
        if (import->states[i].fate == 0) {
            return false;
        }
    }
    return true;
}

static void stored(void *context, enum error error, const struct spool_handle *handles,
                   size_t count)
{
    struct control_import *import = context;
    struct core *core = import->core;
    if (error == ERROR_NONE && !all_finished(import)) {
        report_accepted(core, &import->message);
    }
    if (error == ERROR_NONE && count == 1 && !all_finished(import)) {
        import->message.sequence = spool_sequence(core->spool, handles[0]);
        relay_together_begin(core->relay, core_now(core));
        if (relay_add(core->relay, handles[0], &import->message, core_now(core)) != ERROR_NONE) {
            core_out_of_memory(); /* a restart reads it with its history */
        }
        each_of_history(import, handles[0], into_relay);
        relay_together_end(core->relay, core_now(core));
    }
    struct control_request *request = import->request;
    if (error == ERROR_NONE && request->control != NULL) {
        put_result(request, import->message.id, "imported");
    } else if (error != ERROR_NONE) {
        request->code = CONTROL_NOTHING_MATCHED;
        request->error = error_text(error);
    }
    control_import_free(import);
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    core_control_written(request, ERROR_NONE);
}

static enum control_step store(struct control_request *request, struct control_import *import)
{
    struct core *core = request->core;
    import->message.body_length = import->bytes - import->message.header_length;
    import->message.recipients = import->recipients;
    import->message.recipient_count = import->count;
    if (import->count == 0 || import->stored_bytes != import->bytes) {
        control_import_free(import);
        return control_fail(request, CONTROL_USAGE, "the message is not complete");
    }
    import->message.odometer_s = relay_odometer(core->relay, &import->message, core_now(core));
    spool_batch_begin(core->spool);
    enum error error =
        spool_batch_message(core->spool, &import->message, import->content, SLICE_EMPTY);
    import->content = NULL; /* consumed in any case */
    if (error != ERROR_NONE) {
        spool_batch_cancel(core->spool);
        if (error == ERROR_EXISTS) {
            put_result(request, import->message.id, "exists");
        }
        control_import_free(import);
        return error == ERROR_EXISTS
                   ? STEP_END
                   : control_fail(request, CONTROL_NOTHING_MATCHED, error_text(error));
    }
    each_of_history(import, SPOOL_NO_HANDLE, into_batch);
    import->request = request;
    (void)control_after(request); /* stored() says when */
    spool_batch_submit(core->spool, SPOOL_SYNCED, stored, import);
    return STEP_END;
}

/* ---- requests -------------------------------------------------------------------------------- */

static enum control_step refuse(struct control_request *request, const char *why)
{
    control_import_free(request->control->import);
    request->control->import = NULL;
    return control_fail(request, CONTROL_USAGE, why);
}

static bool begin(struct control *control, const json_t *record)
{
    control_import_free(control->import);
    control->import = calloc(1, sizeof(*control->import));
    if (control->import == NULL) {
        return false;
    }
    control->import->core = control->core;
    arena_init(&control->import->arena);
    return control_import_record(control->import, record);
}

static enum error add_content(struct control_import *import, const json_t *content)
{
    if (!json_is_string(content)) {
        return ERROR_INVALID;
    }
    struct buffer bytes;
    buffer_init(&bytes, CONTROL_CONTENT_MAX);
    enum error error =
        base64_decode(&bytes, slice_make(json_string_value(content), json_string_length(content)));
    if (error == ERROR_NONE && bytes.failed) {
        error = ERROR_LIMIT;
    }
    if (error == ERROR_NONE && import->stored_bytes + bytes.length > import->bytes) {
        error = ERROR_LIMIT;
    }
    if (error == ERROR_NONE && bytes.length > 0) {
        if (import->content == NULL) {
            import->content = spool_content_new(import->core->spool, import->bytes);
        }
        error = import->content == NULL
                    ? ERROR_MEMORY
                    : spool_content_append(import->content, buffer_slice(&bytes));
        import->stored_bytes += bytes.length;
    }
    buffer_done(&bytes);
    return error;
}

enum control_step queue_import_begin(struct control_request *request)
{
    struct control *control = request->control;
    const json_t *record = json_object_get(request->arguments, "record");
    const json_t *content = json_object_get(request->arguments, "content");
    if (!request->core->loaded) {
        return control_not_yet(request);
    }
    if (record != NULL && !begin(control, record)) {
        return refuse(request, "malformed record");
    }
    if (control->import == NULL) {
        return refuse(request, "import begins with a record");
    }
    if (!control_import_recipients(control->import,
                                   json_object_get(request->arguments, "recipients"))) {
        return refuse(request, "malformed recipients");
    }
    enum error error = content != NULL ? add_content(control->import, content) : ERROR_NONE;
    if (error == ERROR_INVALID || error == ERROR_LIMIT) {
        return refuse(request, "malformed content");
    }
    if (error != ERROR_NONE) {
        (void)refuse(request, error_text(error));
        request->code = CONTROL_NOTHING_MATCHED;
        return STEP_END;
    }
    if (!control_flag(request, "last")) {
        return STEP_END;
    }
    struct control_import *import = control->import;
    control->import = NULL;
    return store(request, import);
}

enum control_step queue_import_step(struct control_request *request)
{
    (void)request;
    return STEP_END;
}
