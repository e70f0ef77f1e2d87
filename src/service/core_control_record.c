/* SPDX-License-Identifier: Apache-2.0
 *
 * The head row of an export, read back. What comes in is checked like anything from outside:
 * grammar, bounds, and lengths that fit.
 */
#include "service/core_control_record.h"

#include <stdlib.h>

enum { TEXT_MAX = 1024, VERDICTS_MAX = 64 << 10 };

/* The end of the year 9999: what lies behind it is no time, and sums with it might overflow. */
static const int64_t last_ms = 253402300799999;

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

static void read_envelope(struct fields *fields, struct control_import *import)
{
    struct spool_message *message = &import->message;
    message->sender = text_of(fields, "sender", TEXT_MAX);
    message->envelope_id = text_of(fields, "envelope_id", TEXT_MAX);
    struct slice ret = text_of(fields, "ret", TEXT_MAX);
    message->flags = SPOOL_IMPORTED | flag_of(fields, "smtputf8", SPOOL_SMTPUTF8) |
                     flag_of(fields, "eightbit", SPOOL_8BIT) |
                     flag_of(fields, "sender_verified", SPOOL_SENDER_VERIFIED) |
                     flag_of(fields, "own_dsn", SPOOL_OWN_DSN) |
                     flag_of(fields, "envelope_only", SPOOL_ENVELOPE_ONLY) |
                     flag_of(fields, "require_tls", SPOOL_REQUIRE_TLS) |
                     flag_of(fields, "tls_optional", SPOOL_TLS_OPTIONAL);
    if (slice_equal(ret, SLICE_LITERAL("full"))) {
        message->flags |= SPOOL_RET_FULL;
    } else if (slice_equal(ret, SLICE_LITERAL("headers"))) {
        message->flags |= SPOOL_RET_HEADERS;
    }
    message->priority = (int8_t)number_of(fields, "priority", -9, 9);
    message->deliver_by_ms = number_of(fields, "deliver_by", 0, last_ms);
    struct slice mode = text_of(fields, "deliver_by_mode", TEXT_MAX);
    message->flags |= slice_equal(mode, SLICE_LITERAL("return")) ? SPOOL_BY_RETURN : 0u;
    message->flags |= flag_of(fields, "deliver_by_trace", SPOOL_BY_TRACE);
    message->elapsed_s = (uint32_t)number_of(fields, "elapsed", 0, UINT32_MAX);
    import->uncounted_s = (uint32_t)number_of(fields, "uncounted", 0, UINT32_MAX);
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
    origin->forwarded = text_of(fields, "forwarded", TEXT_MAX);
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

/* With a node that did not answer: it may have ended there, or wait there yet. */
static bool was_elsewhere(const struct fields *fields)
{
    const char *text = json_string_value(json_object_get(fields->object, "state"));
    return text != NULL && strcmp(text, "elsewhere") == 0;
}

/* In doubt is also what was in flight: its server may have it. Whether what was elsewhere is to go
 * only a person can know. */
static enum delivery_state state_of(const struct fields *fields)
{
    static const struct {
        const char *text;
        enum delivery_state state;
    } kept[] = {
        {"held", DELIVERY_HELD},         {"elsewhere", DELIVERY_HELD},    {"dead", DELIVERY_DEAD},
        {"in_doubt", DELIVERY_IN_DOUBT}, {"deferred", DELIVERY_DEFERRED},
    };
    const char *text = json_string_value(json_object_get(fields->object, "state"));
    enum delivery_state state = DELIVERY_WAITING;
    for (size_t i = 0; text != NULL && i < sizeof(kept) / sizeof(kept[0]); i++) {
        state = strcmp(text, kept[i].text) == 0 ? kept[i].state : state;
    }
    bool may_be_there = json_is_true(json_object_get(fields->object, "in_doubt"));
    return may_be_there && state != DELIVERY_HELD && state != DELIVERY_DEAD ? DELIVERY_IN_DOUBT
                                                                            : state;
}

static struct delivery_note read_note(struct fields *fields, enum delivery_state state,
                                      int64_t now_ms)
{
    struct delivery_note note = {
        .when_ms = now_ms,
        .next_ms = number_of(fields, "next", 0, last_ms),
        .attempts = (uint16_t)number_of(fields, "attempts", 0, UINT16_MAX),
        .strikes = (uint8_t)number_of(fields, "strikes", 0, UINT8_MAX),
        .doubts = (uint8_t)number_of(fields, "doubts", 0, UINT8_MAX),
        .flags = (uint8_t)(flag_of(fields, "by_rule", NOTE_BY_RULE) |
                           flag_of(fields, "refused_once", NOTE_REFUSED_ONCE)),
        .server = text_of(fields, "server", NOTE_NAME_MAX),
        .text = text_of(fields, "reason", 4096),
    };
    if (state == DELIVERY_IN_DOUBT && note.doubts == 0) {
        note.doubts = 1;
    }
    int64_t since_ms = number_of(fields, "since", 0, last_ms);
    if (since_ms > 0 && since_ms < note.when_ms) {
        note.when_ms = since_ms;
    }
    return note;
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
    enum delivery_state state = state_of(&fields);
    struct imported_state imported = {
        .state = state,
        .fate = fate_from_text(&fields, text_of(&fields, "fate", TEXT_MAX)),
        .note = read_note(&fields, state, core_wall_ms(import->core)),
        .redirect_to = text_of(&fields, "redirect_to", TEXT_MAX),
    };
    if (was_elsewhere(&fields)) {
        imported.note.text = SLICE_LITERAL("was with a node that did not answer the export");
    }
    if (fields.bad || recipient.address.length == 0) {
        return false;
    }
    import->recipients[import->count] = recipient;
    import->states[import->count++] = imported;
    return true;
}

bool control_import_recipients(struct control_import *import, const json_t *array)
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

bool control_import_record(struct control_import *import, const json_t *record)
{
    struct fields head = {&import->arena, record, !json_is_object(record)};
    struct fields envelope = {&import->arena, json_object_get(record, "envelope"), false};
    struct fields origin = {&import->arena, json_object_get(record, "origin"), false};
    struct spool_message *message = &import->message;
    if (head.bad || !json_is_object(envelope.object) || !json_is_object(origin.object) ||
        number_of(&head, "format", 1, 1) != 1 ||
        !id_from_text(text_of(&head, "id", ID_TEXT_LENGTH), &message->id) ||
        id_is_null(message->id)) {
        return false;
    }
    struct slice copy_of = text_of(&head, "copy_of", ID_TEXT_LENGTH);
    if (copy_of.length > 0 && !id_from_text(copy_of, &message->copy_of)) {
        return false;
    }
    import->bytes = (uint64_t)number_of(&head, "bytes", 0, INT64_MAX);
    message->received_ms = number_of(&head, "received", 0, last_ms);
    message->header_length = (uint64_t)number_of(&head, "header_bytes", 0, INT64_MAX);
    message->message_id_header = text_of(&head, "message_id", 998);
    read_envelope(&envelope, import);
    read_origin(&origin, &message->origin);
    return !head.bad && !envelope.bad && !origin.bad && message->header_length <= import->bytes &&
           control_import_recipients(import, json_object_get(record, "recipients"));
}
