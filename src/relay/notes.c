/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/notes.h"

#include <assert.h>

#include "spool/spool.h"

static const char *const key_ends[] = {
    [GLOBAL_HAND] = "/hand",
    [GLOBAL_STATE] = "/state",
    [GLOBAL_CAPABILITIES] = "/capabilities",
};
enum { KEY_ENDS = sizeof key_ends / sizeof key_ends[0] };

static_assert((int)NOTE_PAYLOAD_MAX <= (int)SPOOL_NOTE_MAX, "a note must fit the spool's bound");

enum relay_note_kind note_kind_of_state(enum delivery_state state)
{
    switch (state) {
    case DELIVERY_DEFERRED:
        return NOTE_DEFER;
    case DELIVERY_IN_DOUBT:
        return NOTE_DOUBT;
    case DELIVERY_HELD:
        return NOTE_HOLD;
    case DELIVERY_DEAD:
        return NOTE_DEAD;
    default:
        return NOTE_WAITING;
    }
}

void note_encode(struct buffer *buffer, const struct delivery_note *note)
{
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_u64(buffer, (uint64_t)note->when_ms);
    buffer_put_u64(buffer, (uint64_t)note->next_ms);
    buffer_put_u64(buffer, (uint64_t)note->patience_ms);
    buffer_put_u16(buffer, note->attempts);
    buffer_put_u8(buffer, note->strikes);
    buffer_put_u8(buffer, note->doubts);
    buffer_put_u8(buffer, note->flags);
    buffer_put_u64(buffer, note->job);
    buffer_put_bytes(buffer, slice_take(note->server, NOTE_NAME_MAX));
    buffer_put_bytes(buffer, slice_take(note->text, NOTE_TEXT_MAX));
    buffer_put_u32(buffer, note->odometer_s);
}

bool note_decode(struct slice payload, struct delivery_note *ret_note)
{
    struct reader reader = reader_make(payload);
    if (reader_u8(&reader) != NOTE_VERSION) {
        return false;
    }
    ret_note->when_ms = (int64_t)reader_u64(&reader);
    ret_note->next_ms = (int64_t)reader_u64(&reader);
    ret_note->patience_ms = (int64_t)reader_u64(&reader);
    ret_note->attempts = reader_u16(&reader);
    ret_note->strikes = reader_u8(&reader);
    ret_note->doubts = reader_u8(&reader);
    ret_note->flags = reader_u8(&reader);
    ret_note->job = reader_u64(&reader);
    ret_note->server = reader_bytes(&reader);
    ret_note->text = reader_bytes(&reader);
    ret_note->odometer_s = reader.rest.length >= 4 ? reader_u32(&reader) : 0;
    return !reader.failed && ret_note->server.length <= NOTE_NAME_MAX &&
           ret_note->text.length <= NOTE_TEXT_MAX;
}

void note_encode_span(struct buffer *buffer, const struct span_note *note)
{
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_u32(buffer, note->elapsed_s);
    buffer_put_u32(buffer, note->reading_s);
    buffer_put_u32(buffer, note->credit_s);
    buffer_put_bytes(buffer, slice_take(note->lane, NOTE_LANE_MAX));
}

bool note_decode_span(struct slice payload, struct span_note *ret_note)
{
    struct reader reader = reader_make(payload);
    bool known = reader_u8(&reader) == NOTE_VERSION;
    ret_note->elapsed_s = reader_u32(&reader);
    ret_note->reading_s = reader_u32(&reader);
    ret_note->credit_s = reader_u32(&reader);
    ret_note->lane = reader_bytes(&reader);
    return known && !reader.failed && ret_note->lane.length <= NOTE_LANE_MAX;
}

bool note_key(struct buffer *buffer, struct slice server, enum global_note_kind kind)
{
    if (strlen("server/") + server.length + strlen(key_ends[kind]) > SPOOL_KEY_MAX) {
        return false;
    }
    buffer_append_text(buffer, "server/");
    buffer_append(buffer, server);
    buffer_append_text(buffer, key_ends[kind]);
    return true;
}

bool note_key_parse(struct slice key, struct slice *ret_server, enum global_note_kind *ret_kind)
{
    static const char prefix[] = "server/";
    const size_t prefix_length = sizeof prefix - 1;
    size_t slash = slice_find_last(key, '/');
    if (key.length < prefix_length || memcmp(key.data, prefix, prefix_length) != 0 ||
        slash < prefix_length) {
        return false;
    }
    for (size_t kind = 0; kind < KEY_ENDS; kind++) {
        if (slice_equal(slice_skip(key, slash), slice_from_text(key_ends[kind]))) {
            *ret_server = slice_take(slice_skip(key, prefix_length), slash - prefix_length);
            *ret_kind = (enum global_note_kind)kind;
            return true;
        }
    }
    return false;
}

static const char odometer_prefix[] = "odometer/";
enum { ODOMETER_PREFIX = sizeof odometer_prefix - 1 };

bool note_odometer_key(struct buffer *buffer, struct slice lane)
{
    if (ODOMETER_PREFIX + lane.length > SPOOL_KEY_MAX) {
        return false;
    }
    buffer_append_text(buffer, odometer_prefix);
    buffer_append(buffer, lane);
    return true;
}

bool note_odometer_key_parse(struct slice key, struct slice *ret_lane)
{
    if (key.length <= ODOMETER_PREFIX || memcmp(key.data, odometer_prefix, ODOMETER_PREFIX) != 0) {
        return false;
    }
    *ret_lane = slice_skip(key, ODOMETER_PREFIX);
    return true;
}

void note_encode_odometer(struct buffer *buffer, int64_t ms)
{
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_u64(buffer, (uint64_t)ms);
}

bool note_decode_odometer(struct slice payload, int64_t *ret_ms)
{
    struct reader reader = reader_make(payload);
    bool known = reader_u8(&reader) == NOTE_VERSION;
    uint64_t ms = reader_u64(&reader);
    *ret_ms = (int64_t)ms;
    return known && !reader.failed && ms <= (uint64_t)INT32_MAX * 1000; /* 68 years */
}

void note_encode_hand(struct buffer *buffer)
{
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_u8(buffer, 1);
}

bool note_decode_hand(struct slice payload)
{
    struct reader reader = reader_make(payload);
    return reader_u8(&reader) == NOTE_VERSION && reader_u8(&reader) == 1;
}

void note_encode_state(struct buffer *buffer, const struct state_note *note)
{
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_u8(buffer, (uint8_t)note->state);
    buffer_put_u64(buffer, (uint64_t)note->since_ms);
    buffer_put_bytes(buffer, slice_take(note->reason, NOTE_TEXT_MAX));
    buffer_put_u8(buffer, note->recovered);
}

bool note_decode_state(struct slice payload, struct state_note *ret_note)
{
    struct reader reader = reader_make(payload);
    bool known = reader_u8(&reader) == NOTE_VERSION;
    uint8_t state = reader_u8(&reader);
    *ret_note = (struct state_note){.state = (enum server_state)state,
                                    .since_ms = (int64_t)reader_u64(&reader)};
    ret_note->reason = reader_bytes(&reader);
    bool good = known && !reader.failed && state <= SERVER_DISABLED && ret_note->since_ms >= 0;
    ret_note->recovered = reader_u8(&reader) == 1 && !reader.failed; /* not in older notes */
    return good;
}

void note_encode_capabilities(struct buffer *buffer, const struct relay_capabilities *capabilities)
{
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_u32(buffer, capabilities->flags);
    buffer_put_u64(buffer, capabilities->size_limit);
    buffer_put_u32(buffer, capabilities->recipients_max);
    buffer_put_u32(buffer, capabilities->mails_max);
}

bool note_decode_capabilities(struct slice payload, struct relay_capabilities *ret_capabilities)
{
    struct reader reader = reader_make(payload);
    bool known = reader_u8(&reader) == NOTE_VERSION;
    ret_capabilities->flags = reader_u32(&reader);
    ret_capabilities->size_limit = reader_u64(&reader);
    ret_capabilities->recipients_max = reader_u32(&reader);
    ret_capabilities->mails_max = reader_u32(&reader);
    return known && !reader.failed;
}
