/* SPDX-License-Identifier: Apache-2.0
 *
 * The payloads of records: fields of messages, fates, notes. Their byte tables are in log_format.c.
 */
#include "spool/log_bytes.h"
#include "spool/log_format.h"

#include <assert.h>

enum {
    FIELD_BASE = 1,
    FIELD_SENDER,
    FIELD_ENVELOPE_ID,
    FIELD_MESSAGE_ID,
    FIELD_CLIENT,
    FIELD_HELO,
    FIELD_LISTENER,
    FIELD_PROTOCOL,
    FIELD_TLS,
    FIELD_USER,
    FIELD_VERDICTS,
    FIELD_RECIPIENT,
    FIELD_PIECE,
    FIELD_FILE,
    FIELD_FOREIGN,
    FIELD_COPY_OF,
    FIELD_FORWARDED,
    BASE_BYTES = 76,
    PIECE_BYTES = 40,
    FATE_BYTES = 32,
    TAKEN_BYTES = FATE_BYTES + 8, /* and the server's name */
    NOTE_BYTES = 24,
};

/* ---- messages ---------------------------------------------------------------------------- */

static uint8_t *put_field(struct buffer *out, unsigned tag, size_t length)
{
    assert(length < 1 << 24);
    uint8_t *at = grow(out, 4 + length);
    if (at == NULL) {
        return NULL;
    }
    store(at, (uint64_t)tag << 24 | length, 4);
    return at + 4;
}

static void put_text(struct buffer *out, unsigned tag, struct slice text)
{
    if (text.length == 0) {
        return;
    }
    uint8_t *at = put_field(out, tag, text.length);
    if (at != NULL) {
        memcpy(at, text.data, text.length);
    }
}

static void put_base(struct buffer *out, const struct spool_message *message)
{
    uint8_t *at = put_field(out, FIELD_BASE, BASE_BYTES);
    if (at == NULL) {
        return;
    }
    store(at, message->id.high, 8);
    store(at + 8, message->id.low, 8);
    store(at + 16, message->sequence, 8);
    store(at + 24, (uint64_t)message->received_ms, 8);
    store(at + 32, message->odometer_s, 4);
    store(at + 36, message->elapsed_s, 4);
    store(at + 40, message->flags, 4);
    store(at + 44, (uint8_t)message->priority, 4);
    store(at + 48, (uint64_t)message->deliver_by_ms, 8);
    store(at + 56, message->header_length, 8);
    store(at + 64, message->body_length, 8);
    store(at + 72, message->recipient_count, 4);
}

static void put_client(struct buffer *out, const struct ip_endpoint *client)
{
    uint8_t *at = put_field(out, FIELD_CLIENT, 18);
    if (at != NULL) {
        memcpy(at, client->address.bytes, 16);
        store(at + 16, client->port, 2);
    }
}

static void put_recipient(struct buffer *out, const struct spool_recipient *recipient,
                          struct slice orcpt)
{
    size_t address_length = recipient->address.length;
    uint8_t *at = put_field(out, FIELD_RECIPIENT, 4 + address_length + orcpt.length);
    if (at == NULL) {
        return;
    }
    at[0] = recipient->notify;
    at[1] = 0;
    store(at + 2, address_length, 2);
    memcpy(at + 4, recipient->address.data, address_length);
    if (orcpt.length > 0) {
        memcpy(at + 4 + address_length, orcpt.data, orcpt.length);
    }
}

static void put_piece(struct buffer *out, const struct log_piece *piece)
{
    uint8_t *at = put_field(out, FIELD_PIECE, PIECE_BYTES);
    if (at == NULL) {
        return;
    }
    store(at, piece->kind, 4);
    store(at + 4, piece->stored, 4);
    store(at + 8, piece->crc, 4);
    store(at + 12, piece->skip, 4);
    store(at + 16, piece->take, 4);
    store(at + 20, 0, 4);
    store(at + 24, piece->where, 8);
    store(at + 32, piece->offset, 8);
}

static void put_copy_of(struct buffer *out, struct message_id id)
{
    uint8_t *at = id_is_null(id) ? NULL : put_field(out, FIELD_COPY_OF, 16);
    if (at != NULL) {
        store(at, id.high, 8);
        store(at + 8, id.low, 8);
    }
}

void log_put_message(struct buffer *out, const struct spool_message *message,
                     const struct log_piece *pieces, size_t piece_count)
{
    put_base(out, message);
    put_text(out, FIELD_SENDER, message->sender);
    put_text(out, FIELD_ENVELOPE_ID, message->envelope_id);
    put_text(out, FIELD_MESSAGE_ID, message->message_id_header);
    put_client(out, &message->origin.client);
    put_text(out, FIELD_HELO, message->origin.helo);
    put_text(out, FIELD_LISTENER, message->origin.listener);
    put_text(out, FIELD_PROTOCOL, message->origin.protocol);
    put_text(out, FIELD_TLS, message->origin.tls);
    put_text(out, FIELD_USER, message->origin.user);
    put_text(out, FIELD_VERDICTS, message->origin.verdicts);
    put_text(out, FIELD_FORWARDED, message->origin.forwarded);
    put_copy_of(out, message->copy_of);
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        put_recipient(out, &message->recipients[i], message->recipients[i].orcpt);
    }
    for (size_t i = 0; i < piece_count; i++) {
        put_piece(out, &pieces[i]);
    }
}

static void put_numbers(struct buffer *out, unsigned tag, const uint64_t *numbers, uint32_t count)
{
    if (count == 0) {
        return;
    }
    uint8_t *at = put_field(out, tag, (size_t)count * 8);
    for (uint32_t i = 0; at != NULL && i < count; i++) {
        store(at + (size_t)i * 8, numbers[i], 8);
    }
}

void log_put_message_index(struct buffer *out, const struct spool_message *message,
                           const struct log_message_place *place)
{
    put_base(out, message);
    put_text(out, FIELD_SENDER, message->sender);
    put_client(out, &message->origin.client);
    put_text(out, FIELD_LISTENER, message->origin.listener);
    put_text(out, FIELD_USER, message->origin.user);
    put_copy_of(out, message->copy_of);
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        put_recipient(out, &message->recipients[i], SLICE_EMPTY);
    }
    put_numbers(out, FIELD_FILE, &place->file, place->file != 0);
    put_numbers(out, FIELD_FOREIGN, place->foreign, place->foreign_count);
}

static bool get_base(struct slice field, struct spool_message *message)
{
    if (field.length < BASE_BYTES) {
        return false;
    }
    const uint8_t *at = field.data;
    message->id.high = fetch(at, 8);
    message->id.low = fetch(at + 8, 8);
    message->sequence = fetch(at + 16, 8);
    message->received_ms = (int64_t)fetch(at + 24, 8);
    message->odometer_s = (uint32_t)fetch(at + 32, 4);
    message->elapsed_s = (uint32_t)fetch(at + 36, 4);
    message->flags = (uint32_t)fetch(at + 40, 4);
    message->priority = (int8_t)at[44];
    message->deliver_by_ms = (int64_t)fetch(at + 48, 8);
    message->header_length = fetch(at + 56, 8);
    message->body_length = fetch(at + 64, 8);
    message->recipient_count = (uint32_t)fetch(at + 72, 4);
    return message->recipient_count > 0 && message->recipient_count <= SPOOL_RECIPIENTS_MAX &&
           !id_is_null(message->id);
}

static bool get_recipient(struct slice field, struct spool_recipient *ret_recipient)
{
    if (field.length < 4) {
        return false;
    }
    size_t length = (size_t)fetch(field.data + 2, 2);
    if (length == 0 || length > field.length - 4) {
        return false;
    }
    ret_recipient->notify = field.data[0];
    ret_recipient->address = slice_make(field.data + 4, length);
    ret_recipient->orcpt = slice_skip(field, 4 + length);
    return true;
}

static bool get_piece(struct slice field, struct log_piece *ret_piece)
{
    if (field.length < PIECE_BYTES) {
        return false;
    }
    const uint8_t *at = field.data;
    ret_piece->kind = (uint32_t)fetch(at, 4);
    ret_piece->stored = (uint32_t)fetch(at + 4, 4);
    ret_piece->crc = (uint32_t)fetch(at + 8, 4);
    ret_piece->skip = (uint32_t)fetch(at + 12, 4);
    ret_piece->take = (uint32_t)fetch(at + 16, 4);
    ret_piece->where = fetch(at + 24, 8);
    ret_piece->offset = fetch(at + 32, 8);
    return ret_piece->kind >= LOG_NEAR && ret_piece->kind <= LOG_FILE &&
           (uint64_t)ret_piece->skip + ret_piece->take <= ret_piece->stored;
}

static bool next_field(struct slice payload, size_t *at, unsigned *ret_tag, struct slice *ret_field)
{
    if (payload.length - *at < 4) {
        return false;
    }
    uint32_t word = (uint32_t)fetch(payload.data + *at, 4);
    size_t length = word & 0xffffff;
    if (length > payload.length - *at - 4) {
        return false;
    }
    *ret_tag = word >> 24;
    *ret_field = slice_make(payload.data + *at + 4, length);
    *at += 4 + length;
    return true;
}

static struct slice *text_of(struct spool_message *message, unsigned tag)
{
    switch (tag) {
    case FIELD_SENDER:
        return &message->sender;
    case FIELD_ENVELOPE_ID:
        return &message->envelope_id;
    case FIELD_MESSAGE_ID:
        return &message->message_id_header;
    case FIELD_HELO:
        return &message->origin.helo;
    case FIELD_LISTENER:
        return &message->origin.listener;
    case FIELD_PROTOCOL:
        return &message->origin.protocol;
    case FIELD_TLS:
        return &message->origin.tls;
    case FIELD_USER:
        return &message->origin.user;
    case FIELD_VERDICTS:
        return &message->origin.verdicts;
    case FIELD_FORWARDED:
        return &message->origin.forwarded;
    default:
        return NULL;
    }
}

/* What the fields are decoded into, and how far each list is filled. */
struct decoding {
    struct log_message *out;
    struct spool_recipient *recipients;
    uint32_t recipient_count;
    size_t piece_count;
    uint64_t *foreign;
};

static bool get_numbers(struct decoding *decoding, struct slice field)
{
    struct log_message_place *place = &decoding->out->place;
    if (field.length % 8 != 0 || field.length / 8 > place->foreign_count) {
        return false;
    }
    for (size_t i = 0; i < field.length / 8; i++) {
        decoding->foreign[i] = fetch(field.data + i * 8, 8);
    }
    return true;
}

static bool get_field(struct decoding *decoding, unsigned tag, struct slice field)
{
    struct log_message *out = decoding->out;
    struct slice *text = text_of(&out->message, tag);
    if (text != NULL) {
        *text = field;
        return true;
    }
    switch (tag) {
    case FIELD_BASE:
        return true; /* taken before */
    case FIELD_CLIENT:
        if (field.length < 18) {
            return false;
        }
        memcpy(out->message.origin.client.address.bytes, field.data, 16);
        out->message.origin.client.port = (uint16_t)fetch(field.data + 16, 2);
        return true;
    case FIELD_RECIPIENT:
        return decoding->recipient_count < out->message.recipient_count &&
               get_recipient(field, &decoding->recipients[decoding->recipient_count++]);
    case FIELD_PIECE:
        return get_piece(field, &out->pieces[decoding->piece_count++]);
    case FIELD_FILE:
        out->place.file = field.length >= 8 ? fetch(field.data, 8) : 0;
        return out->place.file != 0;
    case FIELD_FOREIGN:
        return get_numbers(decoding, field);
    case FIELD_COPY_OF:
        return log_get_id(field, &out->message.copy_of);
    default:
        return true;
    }
}

/* The first pass: the grammar, the base, and how much room the lists need. */
static bool survey(struct slice payload, struct log_message *out)
{
    unsigned tag;
    struct slice field;
    bool has_base = false;
    for (size_t at = 0; at < payload.length;) {
        if (!next_field(payload, &at, &tag, &field)) {
            return false;
        }
        if (tag == FIELD_BASE) {
            has_base = get_base(field, &out->message);
        }
        out->piece_count += tag == FIELD_PIECE;
        if (tag == FIELD_FOREIGN) {
            out->place.foreign_count = (uint32_t)(field.length / 8);
        }
    }
    return has_base;
}

enum error log_get_message(struct slice payload, struct arena *arena,
                           struct log_message *ret_message)
{
    *ret_message = (struct log_message){0};
    if (!survey(payload, ret_message)) {
        return ERROR_CORRUPT;
    }
    struct decoding decoding = {.out = ret_message};
    decoding.recipients = arena_allocate(arena, ret_message->message.recipient_count *
                                                    sizeof(struct spool_recipient));
    ret_message->pieces =
        arena_allocate(arena, ret_message->piece_count * sizeof(struct log_piece) + 1);
    decoding.foreign = arena_allocate(arena, (size_t)ret_message->place.foreign_count * 8 + 1);
    if (decoding.recipients == NULL || ret_message->pieces == NULL || decoding.foreign == NULL) {
        return ERROR_MEMORY;
    }
    ret_message->message.recipients = decoding.recipients;
    ret_message->place.foreign = decoding.foreign;
    unsigned tag;
    struct slice field;
    for (size_t at = 0; at < payload.length;) {
        if (!next_field(payload, &at, &tag, &field) || !get_field(&decoding, tag, field)) {
            return ERROR_CORRUPT;
        }
    }
    bool whole = decoding.recipient_count == ret_message->message.recipient_count;
    return whole ? ERROR_NONE : ERROR_CORRUPT;
}

/* ---- fates and notes --------------------------------------------------------------------- */

void log_put_id(struct buffer *out, struct message_id id)
{
    uint8_t *at = grow(out, 16);
    if (at != NULL) {
        store(at, id.high, 8);
        store(at + 8, id.low, 8);
    }
}

bool log_get_id(struct slice payload, struct message_id *ret_id)
{
    if (payload.length < 16) {
        return false;
    }
    *ret_id = (struct message_id){fetch(payload.data, 8), fetch(payload.data + 8, 8)};
    return true;
}

void log_put_fate(struct buffer *out, const struct log_fate *fate)
{
    bool taken = fate->when_ms != 0;
    uint8_t *at = grow(out, taken ? TAKEN_BYTES : FATE_BYTES);
    if (at == NULL) {
        return;
    }
    store(at, fate->id.high, 8);
    store(at + 8, fate->id.low, 8);
    store(at + 16, fate->home, 8);
    store(at + 24, fate->delivery, 4);
    store(at + 28, fate->fate, 4);
    if (taken) {
        store(at + 32, (uint64_t)fate->when_ms, 8);
        buffer_append(out, fate->server);
    }
}

bool log_get_fate(struct slice payload, struct log_fate *ret_fate)
{
    if (payload.length < FATE_BYTES || !log_get_id(payload, &ret_fate->id)) {
        return false;
    }
    ret_fate->home = fetch(payload.data + 16, 8);
    ret_fate->delivery = (uint32_t)fetch(payload.data + 24, 4);
    ret_fate->fate = payload.data[28];
    ret_fate->when_ms =
        payload.length < TAKEN_BYTES ? 0 : (int64_t)fetch(payload.data + FATE_BYTES, 8);
    ret_fate->server = slice_take(slice_skip(payload, TAKEN_BYTES), SPOOL_SERVER_MAX);
    return ret_fate->fate >= SPOOL_DELIVERED && ret_fate->fate <= SPOOL_PULLED;
}

void log_put_note(struct buffer *out, const struct log_note *note)
{
    uint8_t *at = grow(out, NOTE_BYTES);
    if (at == NULL) {
        return;
    }
    store(at, note->id.high, 8);
    store(at + 8, note->id.low, 8);
    store(at + 16, note->delivery, 4);
    store(at + 20, note->kind, 4);
    buffer_append(out, note->payload);
}

bool log_get_note(struct slice payload, struct log_note *ret_note)
{
    if (payload.length < NOTE_BYTES || !log_get_id(payload, &ret_note->id)) {
        return false;
    }
    ret_note->delivery = (uint32_t)fetch(payload.data + 16, 4);
    ret_note->kind = (uint16_t)fetch(payload.data + 20, 2);
    ret_note->payload = slice_skip(payload, NOTE_BYTES);
    return true;
}

void log_put_global(struct buffer *out, struct slice key, struct slice payload)
{
    uint8_t *at = grow(out, 2);
    if (at != NULL) {
        store(at, key.length, 2);
        buffer_append(out, key);
        buffer_append(out, payload);
    }
}

bool log_get_global(struct slice payload, struct slice *ret_key, struct slice *ret_payload)
{
    if (payload.length < 2) {
        return false;
    }
    size_t length = (size_t)fetch(payload.data, 2);
    if (length > payload.length - 2) {
        return false;
    }
    *ret_key = slice_make(payload.data + 2, length);
    *ret_payload = slice_skip(payload, 2 + length);
    return true;
}
