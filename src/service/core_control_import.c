/* SPDX-License-Identifier: Apache-2.0
 *
 * `queue import`: a message in one request or several, as `queue export` gave it. Its id is kept,
 * so doing it twice stores it once. The message, the fates that it already has and what it is held
 * or redirected for go into one batch: no crash in between can deliver again.
 *
 * What comes in is checked like anything from outside: grammar, bounds, and lengths that fit.
 */
#include "service/core_control.h"

#include "base/base64.h"
#include "relay/notes.h"

#include <stdlib.h>

enum { TEXT_MAX = 1024, VERDICTS_MAX = 64 << 10 };

struct imported_state {
    enum delivery_state state; /* WAITING, HELD, DEAD */
    unsigned fate;
    uint16_t attempts;
    struct slice reason;
    struct slice redirect_to;
};

struct control_import {
    struct core *core;
    struct arena arena;
    struct spool_message message;
    struct spool_recipient *recipients;
    struct imported_state *states;
    uint32_t count, capacity;
    uint64_t bytes;
    struct spool_content *content;
    uint64_t stored_bytes;
    struct control_request *request; /* who waits for the batch */
};

void control_import_free(struct control_import *import)
{
    if (import != NULL) {
        spool_content_abort(import->content);
        free(import->recipients);
        free(import->states);
        arena_done(&import->arena);
        free(import);
    }
}

/* ---- reading JSON ---------------------------------------------------------------------------- */

/* What a JSON object says; `bad` is set by anything that does not fit. */
struct fields {
    struct arena *arena;
    const json_t *object;
    bool bad;
};

static struct slice text_of(struct fields *fields, const char *key, size_t limit)
{
    const json_t *value = json_object_get(fields->object, key);
    if (value == NULL || json_is_null(value)) {
        return SLICE_EMPTY;
    }
    struct slice text = json_is_string(value)
                            ? slice_make(json_string_value(value), json_string_length(value))
                            : SLICE_EMPTY;
    if (!json_is_string(value) || text.length > limit || slice_find(text, '\r') != text.length ||
        slice_find(text, '\n') != text.length || slice_find(text, 0) != text.length) {
        fields->bad = true;
        return SLICE_EMPTY;
    }
    return text.length == 0 ? SLICE_EMPTY : arena_copy(fields->arena, text);
}

static int64_t number_of(struct fields *fields, const char *key, int64_t least, int64_t most)
{
    const json_t *value = json_object_get(fields->object, key);
    if (value == NULL || json_is_null(value)) {
        return least > 0 ? least : 0;
    }
    if (!json_is_integer(value) || json_integer_value(value) < least ||
        json_integer_value(value) > most) {
        fields->bad = true;
        return 0;
    }
    return json_integer_value(value);
}

static uint32_t flag_of(const struct fields *fields, const char *key, uint32_t flag)
{
    return json_is_true(json_object_get(fields->object, key)) ? flag : 0;
}

static void read_envelope(struct fields *fields, struct spool_message *message)
{
    message->sender = text_of(fields, "sender", TEXT_MAX);
    message->envelope_id = text_of(fields, "envelope_id", TEXT_MAX);
    struct slice ret = text_of(fields, "ret", TEXT_MAX);
    message->flags = SPOOL_IMPORTED | flag_of(fields, "smtputf8", SPOOL_SMTPUTF8) |
                     flag_of(fields, "eightbit", SPOOL_8BIT) |
                     flag_of(fields, "sender_verified", SPOOL_SENDER_VERIFIED) |
                     flag_of(fields, "own_dsn", SPOOL_OWN_DSN);
    if (slice_equal(ret, SLICE_LITERAL("full"))) {
        message->flags |= SPOOL_RET_FULL;
    } else if (slice_equal(ret, SLICE_LITERAL("headers"))) {
        message->flags |= SPOOL_RET_HEADERS;
    }
    message->priority = (int8_t)number_of(fields, "priority", INT8_MIN, INT8_MAX);
    message->deliver_by_ms = number_of(fields, "deliver_by", 0, INT64_MAX);
    message->elapsed_s = (uint32_t)number_of(fields, "elapsed", 0, UINT32_MAX);
}

static void read_origin(struct fields *fields, struct spool_origin *origin)
{
    struct slice client = text_of(fields, "client", IP_TEXT_SIZE);
    if (client.length > 0 && !ip_from_text(client, &origin->client.address)) {
        fields->bad = true;
    }
    origin->client.port = (uint16_t)number_of(fields, "port", 0, UINT16_MAX);
    origin->helo = text_of(fields, "helo", 512);
    origin->listener = text_of(fields, "listener", TEXT_MAX);
    origin->protocol = text_of(fields, "protocol", TEXT_MAX);
    origin->tls = text_of(fields, "tls", TEXT_MAX);
    origin->user = text_of(fields, "user", TEXT_MAX);
    origin->verdicts = text_of(fields, "verdicts", VERDICTS_MAX);
}

static unsigned fate_from_text(struct fields *fields, struct slice text)
{
    if (text.length == 0) {
        return 0;
    }
    for (unsigned fate = SPOOL_DELIVERED; fate <= SPOOL_PULLED; fate++) {
        if (slice_equal(text, slice_from_text(control_fate(fate)))) {
            return fate;
        }
    }
    fields->bad = true;
    return 0;
}

static uint8_t notify_of(struct fields *fields)
{
    static const char *const names[] = {"never", "success", "failure", "delay"};
    const json_t *array = json_object_get(fields->object, "notify");
    uint8_t flags = 0;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *name = json_string_value(json_array_get(array, i));
        size_t at = 0;
        while (name != NULL && at < 4 && strcmp(name, names[at]) != 0) {
            at++;
        }
        if (name == NULL || at == 4) {
            fields->bad = true;
        } else {
            flags |= (uint8_t)(1U << at);
        }
    }
    return flags;
}

static bool grow(struct control_import *import)
{
    if (import->count < import->capacity) {
        return true;
    }
    uint32_t capacity = import->capacity == 0 ? 16 : import->capacity * 2;
    struct spool_recipient *recipients =
        realloc(import->recipients, capacity * sizeof(*recipients));
    if (recipients == NULL) {
        return false;
    }
    import->recipients = recipients;
    struct imported_state *states = realloc(import->states, capacity * sizeof(*states));
    if (states == NULL) {
        return false;
    }
    import->states = states;
    import->capacity = capacity;
    return true;
}

static bool read_recipient(struct control_import *import, const json_t *object)
{
    struct fields fields = {&import->arena, object, !json_is_object(object)};
    if (fields.bad || import->count >= SPOOL_RECIPIENTS_MAX || !grow(import)) {
        return false;
    }
    struct spool_recipient recipient = {.address = text_of(&fields, "address", TEXT_MAX),
                                        .orcpt = text_of(&fields, "orcpt", TEXT_MAX),
                                        .notify = notify_of(&fields)};
    struct slice state = text_of(&fields, "state", TEXT_MAX);
    struct imported_state imported = {
        .state = slice_equal(state, SLICE_LITERAL("held"))   ? DELIVERY_HELD
                 : slice_equal(state, SLICE_LITERAL("dead")) ? DELIVERY_DEAD
                                                             : DELIVERY_WAITING,
        .fate = fate_from_text(&fields, text_of(&fields, "fate", TEXT_MAX)),
        .attempts = (uint16_t)number_of(&fields, "attempts", 0, UINT16_MAX),
        .reason = text_of(&fields, "reason", 4096),
        .redirect_to = text_of(&fields, "redirect_to", TEXT_MAX),
    };
    if (fields.bad || recipient.address.length == 0) {
        return false;
    }
    import->recipients[import->count] = recipient;
    import->states[import->count++] = imported;
    return true;
}

static bool read_recipients(struct control_import *import, const json_t *array)
{
    if (array != NULL && !json_is_array(array)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (!read_recipient(import, json_array_get(array, i))) {
            return false;
        }
    }
    return true;
}

static bool read_record(struct control_import *import, const json_t *record)
{
    struct fields head = {&import->arena, record, !json_is_object(record)};
    struct fields envelope = {&import->arena, json_object_get(record, "envelope"), false};
    struct fields origin = {&import->arena, json_object_get(record, "origin"), false};
    struct spool_message *message = &import->message;
    if (head.bad || !json_is_object(envelope.object) || !json_is_object(origin.object) ||
        number_of(&head, "format", 1, 1) != 1 ||
        !id_from_text(text_of(&head, "id", ID_TEXT_LENGTH), &message->id)) {
        return false;
    }
    import->bytes = (uint64_t)number_of(&head, "bytes", 0, INT64_MAX);
    message->received_ms = number_of(&head, "received", 0, INT64_MAX);
    message->header_length = (uint64_t)number_of(&head, "header_bytes", 0, INT64_MAX);
    message->message_id_header = text_of(&head, "message_id", 998);
    read_envelope(&envelope, message);
    read_origin(&origin, &message->origin);
    return !head.bad && !envelope.bad && !origin.bad && message->header_length <= import->bytes &&
           read_recipients(import, json_object_get(record, "recipients"));
}

/* ---- storing --------------------------------------------------------------------------------- */

static struct slice encode_note(struct buffer *buffer, const struct imported_state *state,
                                uint16_t *ret_kind)
{
    bool redirected = state->redirect_to.length > 0;
    const struct delivery_note note = {
        .when_ms = core_now().wall_ms,
        .attempts = state->attempts,
        .text = redirected && state->state == DELIVERY_WAITING ? state->redirect_to : state->reason,
    };
    buffer_clear(buffer);
    note_encode(buffer, &note);
    *ret_kind = state->state == DELIVERY_HELD   ? NOTE_HOLD
                : state->state == DELIVERY_DEAD ? NOTE_DEAD
                                                : NOTE_REDIRECT;
    return buffer_slice(buffer);
}

typedef void history_fn(struct control_import *import, struct spool_handle handle,
                        uint32_t delivery, unsigned fate, uint16_t kind, struct slice payload);

/* Fates and notes that the deliveries bring along, a redirect before a hold. */
static void each_of_history(struct control_import *import, struct spool_handle handle,
                            history_fn *fn)
{
    struct buffer buffer;
    buffer_init(&buffer, SPOOL_NOTE_MAX);
    for (uint32_t i = 0; i < import->count; i++) {
        struct imported_state state = import->states[i];
        uint16_t kind;
        if (state.fate != 0) {
            fn(import, handle, i, state.fate, 0, SLICE_EMPTY);
            continue;
        }
        if (state.redirect_to.length > 0) {
            struct imported_state redirected = state;
            redirected.state = DELIVERY_WAITING;
            struct slice payload = encode_note(&buffer, &redirected, &kind);
            fn(import, handle, i, 0, kind, payload);
        }
        if (state.state != DELIVERY_WAITING) {
            struct slice payload = encode_note(&buffer, &state, &kind);
            fn(import, handle, i, 0, kind, payload);
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
        relay_load_note(relay, handle, delivery, kind, payload, core_now());
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
    if (error == ERROR_NONE && count == 1 && !all_finished(import)) {
        report_accepted(core, &import->message);
        import->message.sequence = spool_sequence(core->spool, handles[0]);
        relay_together_begin(core->relay, core_now());
        if (relay_add(core->relay, handles[0], &import->message, core_now()) == ERROR_NONE) {
            each_of_history(import, handles[0], into_relay);
        } else {
            report_alert(core, ALERT_MEMORY, "not all stored messages could be scheduled");
        }
        relay_together_end(core->relay, core_now());
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
    return read_record(control->import, record);
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
    if (!read_recipients(control->import, json_object_get(request->arguments, "recipients"))) {
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
