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

static const char *const key_fronts[] = {
    [NOTE_OF_SERVER] = "server/",
    [NOTE_OF_EXCHANGER] = "exchanger/",
};
enum { KEY_FRONTS = sizeof key_fronts / sizeof key_fronts[0] };

bool note_key(struct buffer *buffer, const struct note_key *key)
{
    const char *front = key_fronts[key->owner], *end = key_ends[key->kind];
    if (strlen(front) + key->name.length + strlen(end) > SPOOL_KEY_MAX) {
        return false;
    }
    buffer_append_text(buffer, front);
    buffer_append(buffer, key->name);
    buffer_append_text(buffer, end);
    return true;
}

/* What follows a prefix. False: it does not begin with that. */
static bool cut_front(struct slice text, const char *front, struct slice *ret_rest)
{
    struct slice prefix = slice_from_text(front);
    *ret_rest = slice_skip(text, prefix.length);
    return slice_equal(slice_take(text, prefix.length), prefix);
}

static bool cut_key_end(struct slice rest, struct note_key *ret_key)
{
    size_t slash = slice_find_last(rest, '/');
    for (size_t kind = 0; kind < KEY_ENDS; kind++) {
        if (slice_equal(slice_skip(rest, slash), slice_from_text(key_ends[kind]))) {
            ret_key->name = slice_take(rest, slash);
            ret_key->kind = (enum global_note_kind)kind;
            return true;
        }
    }
    return false;
}

enum note_scope note_scope(struct slice text)
{
    struct note_key key;
    struct slice lane;
    bool of_cluster = note_odometer_key_parse(text, &lane) ||
                      (note_key_parse(text, &key) && key.kind == GLOBAL_HAND);
    return of_cluster ? NOTE_OF_CLUSTER : NOTE_OF_NODE;
}

bool note_key_parse(struct slice text, struct note_key *ret_key)
{
    for (size_t owner = 0; owner < KEY_FRONTS; owner++) {
        struct slice rest;
        ret_key->owner = (enum note_owner)owner;
        if (cut_front(text, key_fronts[owner], &rest) && cut_key_end(rest, ret_key)) {
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
    return cut_front(key, odometer_prefix, ret_lane) && ret_lane->length > 0;
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

static const char mx_prefix[] = "mx/";

bool note_mx_key(struct buffer *buffer, struct slice domain)
{
    if (sizeof mx_prefix - 1 + domain.length > SPOOL_KEY_MAX) {
        return false;
    }
    buffer_append_text(buffer, mx_prefix);
    buffer_append(buffer, domain);
    return true;
}

bool note_mx_key_parse(struct slice key, struct slice *ret_domain)
{
    return cut_front(key, mx_prefix, ret_domain) && ret_domain->length > 0;
}

void note_encode_mx(struct buffer *buffer, const struct mx_decision *decision)
{
    uint32_t count = 0;
    size_t size = 3;
    for (; count < decision->count; count++) {
        const struct mx_choice *choice = &decision->choices[count];
        size += 2 + 4 + choice->host.length + 1 + choice->address_count * sizeof(struct ip_address);
        if (size > SPOOL_NOTE_MAX) {
            break;
        }
    }
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_u8(buffer, (uint8_t)count);
    for (uint32_t i = 0; i < count; i++) {
        const struct mx_choice *choice = &decision->choices[i];
        buffer_put_u16(buffer, choice->preference);
        buffer_put_bytes(buffer, choice->host);
        buffer_put_u8(buffer, (uint8_t)choice->address_count);
        buffer_append(buffer, slice_make(choice->addresses,
                                         choice->address_count * sizeof choice->addresses[0]));
    }
    buffer_put_u8(buffer, decision->secure);
}

static bool decode_choice(struct reader *reader, struct mx_choice *choice)
{
    choice->preference = reader_u16(reader);
    choice->host = reader_bytes(reader);
    choice->address_count = reader_u8(reader);
    if (choice->host.length == 0 || choice->host.length > MX_HOST_MAX ||
        choice->address_count == 0 || choice->address_count > MX_ADDRESSES_MAX) {
        return false;
    }
    struct slice addresses =
        reader_take(reader, choice->address_count * sizeof choice->addresses[0]);
    if (reader->failed) {
        return false;
    }
    memcpy(choice->addresses, addresses.data, addresses.length);
    return true;
}

bool note_decode_mx(struct slice payload, struct mx_decision *ret_decision)
{
    struct reader reader = reader_make(payload);
    bool known = reader_u8(&reader) == NOTE_VERSION;
    uint32_t count = reader_u8(&reader);
    *ret_decision = (struct mx_decision){.verdict = MX_FOUND};
    if (!known || reader.failed || count == 0 || count > MX_EXCHANGERS_MAX) {
        return false;
    }
    while (ret_decision->count < count) {
        if (!decode_choice(&reader, &ret_decision->choices[ret_decision->count++])) {
            return false;
        }
    }
    /* Earlier versions did not say. */
    ret_decision->secure = reader.rest.length > 0 && reader_u8(&reader) != 0;
    return true;
}

static const char switched_prefix[] = "switched/";

bool note_switched_key(struct buffer *buffer, struct slice lane)
{
    if (sizeof switched_prefix - 1 + lane.length > SPOOL_KEY_MAX) {
        return false;
    }
    buffer_append_text(buffer, switched_prefix);
    buffer_append(buffer, lane);
    return true;
}

bool note_switched_key_parse(struct slice key, struct slice *ret_lane)
{
    return cut_front(key, switched_prefix, ret_lane) && ret_lane->length > 0;
}

void note_encode_switched(struct buffer *buffer, struct slice server, int64_t since_ms)
{
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_bytes(buffer, slice_take(server, NOTE_NAME_MAX));
    buffer_put_u64(buffer, (uint64_t)since_ms);
}

bool note_decode_switched(struct slice payload, struct slice *ret_server, int64_t *ret_since_ms)
{
    struct reader reader = reader_make(payload);
    bool known = reader_u8(&reader) == NOTE_VERSION;
    *ret_server = reader_bytes(&reader);
    *ret_since_ms = reader.rest.length == 0 ? 0 : (int64_t)reader_u64(&reader);
    return known && !reader.failed;
}

void note_encode_clock(struct buffer *buffer, int64_t wall_ms)
{
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_u64(buffer, (uint64_t)wall_ms);
}

bool note_decode_clock(struct slice payload, int64_t *ret_wall_ms)
{
    struct reader reader = reader_make(payload);
    bool known = reader_u8(&reader) == NOTE_VERSION;
    uint64_t ms = reader_u64(&reader);
    *ret_wall_ms = (int64_t)ms;
    return known && !reader.failed && ms <= INT64_MAX / 2; /* far from any overflow */
}

enum { HAND_VERSION = 2 };

void note_encode_hand(struct buffer *buffer, const struct hand_note *note)
{
    buffer_put_u8(buffer, HAND_VERSION);
    for (int shift = 56; shift >= 0; shift -= 8) { /* the first byte counts most */
        buffer_put_u8(buffer, (uint8_t)((uint64_t)note->when_ms >> shift));
    }
    buffer_put_u8(buffer, note->disabled);
}

bool note_decode_hand(struct slice payload, struct hand_note *ret_note)
{
    struct reader reader = reader_make(payload);
    *ret_note = (struct hand_note){0, false};
    if (payload.length == 0) {
        return true;
    }
    uint8_t version = reader_u8(&reader);
    uint64_t ms = 0;
    for (int i = 0; i < 8 && version == HAND_VERSION; i++) {
        ms = ms << 8 | reader_u8(&reader);
    }
    uint8_t hand = reader_u8(&reader);
    *ret_note = (struct hand_note){(int64_t)ms, hand == 1};
    return (version == NOTE_VERSION || version == HAND_VERSION) && !reader.failed && hand <= 1 &&
           ms <= INT64_MAX / 2;
}

void note_encode_state(struct buffer *buffer, const struct state_note *note)
{
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_u8(buffer, (uint8_t)note->state);
    buffer_put_u64(buffer, (uint64_t)note->since_ms);
    buffer_put_bytes(buffer, slice_take(note->reason, NOTE_TEXT_MAX));
    buffer_put_u8(buffer, note->recovered);
    buffer_put_u8(buffer, note->trouble);
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
    /* These are not in older notes. */
    ret_note->recovered = reader.rest.length > 0 && reader_u8(&reader) == 1;
    ret_note->trouble = reader.rest.length > 0 ? reader_u8(&reader) : 0;
    return good;
}

void note_encode_capabilities(struct buffer *buffer, const struct relay_capabilities *capabilities)
{
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_u32(buffer, capabilities->flags);
    buffer_put_u64(buffer, capabilities->size_limit);
    buffer_put_u32(buffer, capabilities->recipients_max);
    buffer_put_u32(buffer, capabilities->mails_max);
    buffer_put_u32(buffer, capabilities->deliver_by_min_s);
}

bool note_decode_capabilities(struct slice payload, struct relay_capabilities *ret_capabilities)
{
    struct reader reader = reader_make(payload);
    bool known = reader_u8(&reader) == NOTE_VERSION;
    ret_capabilities->flags = reader_u32(&reader);
    ret_capabilities->size_limit = reader_u64(&reader);
    ret_capabilities->recipients_max = reader_u32(&reader);
    ret_capabilities->mails_max = reader_u32(&reader);
    bool good = known && !reader.failed;
    ret_capabilities->deliver_by_min_s = reader.rest.length >= 4 ? reader_u32(&reader) : 0;
    return good;
}

#define FREEZE_PREFIX SLICE_LITERAL("freeze/")

bool note_freeze_key(struct buffer *buffer, struct slice route)
{
    if (FREEZE_PREFIX.length + route.length > SPOOL_KEY_MAX) {
        return false;
    }
    buffer_append(buffer, FREEZE_PREFIX);
    buffer_append(buffer, route);
    return true;
}

bool note_freeze_key_parse(struct slice key, struct slice *ret_route)
{
    size_t length = FREEZE_PREFIX.length;
    if (!slice_equal(slice_take(key, length), FREEZE_PREFIX)) {
        return false;
    }
    *ret_route = slice_skip(key, length);
    return true;
}

void note_encode_freeze(struct buffer *buffer, int64_t began_ms, int64_t until_ms)
{
    buffer_put_u8(buffer, NOTE_VERSION);
    buffer_put_u64(buffer, (uint64_t)began_ms);
    buffer_put_u64(buffer, (uint64_t)until_ms);
}

bool note_decode_freeze(struct slice payload, int64_t *ret_began_ms, int64_t *ret_until_ms)
{
    struct reader reader = reader_make(payload);
    bool known = reader_u8(&reader) == NOTE_VERSION;
    *ret_began_ms = (int64_t)reader_u64(&reader);
    *ret_until_ms = (int64_t)reader_u64(&reader);
    return known && !reader.failed;
}
