/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal on disk, byte by byte. Little-endian throughout. (man/holdfast-journal.5 says the
 * same to operators; log.c argues why it is enough.)
 *
 * A segment file, `segment-` and its number in 16 hexadecimal digits:
 *
 *      0   header          one block
 *   4096   header again    the same block; either copy will do
 *   8192   seal            one block, written when nothing more will be appended
 *  12288   groups          each starts at a multiple of 512
 *          index           where the seal says
 *
 * Header                                Seal
 *    0  8  "HOLDFAST"                      0  8  "HOLDSEAL"
 *    8  4  format version (1)              8  4  format version (1)
 *   12  4  CRC32C of the rest             12  4  CRC32C of the rest
 *          of the block                          of the block
 *   16  8  segment number                 16  8  segment number
 *   24  8  nonce                          24  8  nonce
 *   32  8  next sequence                  32  8  next sequence
 *   40  4  number of open ends            40  4  end of the last group
 *   48 24* open ends: number (8),         44  4  offset of the index
 *          nonce (8), end (4), zero (4)   48  4  length of the index
 *                                         52  4  CRC32C of the index
 * An open end tells how far an older segment without a seal is valid; end 0: not at all.
 *
 * Record
 *    0  4  CRC32C of bytes 4..31
 *    4  4  CRC32C of the payload
 *    8  8  nonce of the segment
 *   16  4  own offset in the segment
 *   20  4  length of the payload
 *   24  4  offset of the first record of the group
 *   28  1  type
 *   29  1  flags
 *   30  2  zero
 *   32     payload, then zeros up to a multiple of 8
 * A record header is valid if and only if its CRC is right, its nonce is the segment's, its own
 * offset is where it stands, and its payload ends inside the segment. A record is valid if its
 * header is and the CRC of its payload is right. The nonce is drawn at random after the segment's
 * older content was written and is told to nobody, so content cannot contain a valid record.
 *
 * Payloads
 *   extent (1)         bytes of content
 *   message (2)        fields, below; flag 1: a survivor moved here by compaction
 *   fate (3)           id (16), home segment (8), delivery (4), fate (1), zeros (3)
 *   note (4)           id (16), delivery (4), kind (2), zeros (2), payload
 *   global (5)         length of key (2), key, payload; an empty payload forgets the key
 *   globals reset (6)  nothing; forgets every key
 *   notes reset (7)    id (16); the notes about it before this record are void
 *   commit (15)        group (4), records before it in the group (4),
 *                      CRC32C of their header CRCs in order (4), synced end (4)
 * A record of any other type is skipped. A group is complete if and only if its commit record is
 * valid and all records that it counts are valid and give its CRC.
 *
 * Field: one word, tag in the upper 8 bits and length in the lower 24, then `length` bytes.
 * Unknown tags are skipped, and what is longer than expected is cut.
 *    1 base       id (16: high, low), sequence (8), received (8), odometer (4), elapsed (4),
 *                 flags (4), priority (1), zeros (3), deliver-by (8), header (8), body (8),
 *                 number of recipients (4)
 *    2 sender     3 ENVID     4 Message-ID   5 client: address (16), port (2)
 *    6 HELO       7 listener  8 protocol     9 TLS    10 user    11 verdicts
 *   12 recipient  notify (1), zero (1), length of address (2), address, ORCPT
 *   13 piece      kind (4), stored (4), CRC32C (4), skip (4), take (4), zero (4), where (8),
 *                 offset (8)
 *   14 file       (index only) content file (8)
 *   15 foreign    (index only) numbers of other segments that hold content (8 each)
 *
 * Index entry: length of payload (4), offset of the record (4), type (1), flags (1), zeros (2),
 * payload. Messages hold the fields that loading needs; fate, note, global, globals reset and notes
 * reset hold the record's payload.
 *
 * Content file, `content-` and its number: bytes of content only; the pieces say which.
 */
#include "spool/log_format.h"

#include "base/crc32c.h"

#include <assert.h>
#include <stdio.h>

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
    BASE_BYTES = 76,
    PIECE_BYTES = 40,
    FATE_BYTES = 32,
    NOTE_BYTES = 24,
    ENTRY_BYTES = 12,
};

static void store(uint8_t *at, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t fetch(const uint8_t *at, size_t width)
{
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

/* Room at the end of the buffer, counted in; NULL when memory is out. */
static uint8_t *grow(struct buffer *buffer, size_t length)
{
    if (buffer_reserve(buffer, length) != ERROR_NONE) {
        return NULL;
    }
    uint8_t *at = buffer->data + buffer->length;
    buffer->length += length;
    return at;
}

/* ---- blocks ------------------------------------------------------------------------------ */

static void block_close(uint8_t block[LOG_BLOCK], const char *magic)
{
    memcpy(block, magic, 8);
    store(block + 8, LOG_VERSION, 4);
    store(block + 12, crc32c(0, slice_make(block + 16, LOG_BLOCK - 16)), 4);
}

static enum error block_check(const uint8_t block[LOG_BLOCK], const char *magic)
{
    if (memcmp(block, magic, 8) != 0) {
        return ERROR_CORRUPT;
    }
    /* The version first: a newer one may place its checksum elsewhere. */
    if (fetch(block + 8, 4) > LOG_VERSION) {
        return ERROR_NEWER;
    }
    bool sound = fetch(block + 12, 4) == crc32c(0, slice_make(block + 16, LOG_BLOCK - 16));
    return sound ? ERROR_NONE : ERROR_CORRUPT;
}

void log_header_encode(const struct log_header *header, uint8_t ret_block[LOG_BLOCK])
{
    memset(ret_block, 0, LOG_BLOCK);
    store(ret_block + 16, header->number, 8);
    store(ret_block + 24, header->nonce, 8);
    store(ret_block + 32, header->next_sequence, 8);
    store(ret_block + 40, header->open_end_count, 4);
    assert(header->open_end_count <= LOG_OPEN_ENDS_MAX);
    for (uint32_t i = 0; i < header->open_end_count; i++) {
        uint8_t *at = ret_block + 48 + (size_t)i * 24;
        store(at, header->open_ends[i].number, 8);
        store(at + 8, header->open_ends[i].nonce, 8);
        store(at + 16, header->open_ends[i].end, 4);
    }
    block_close(ret_block, "HOLDFAST");
}

enum error log_header_decode(const uint8_t block[LOG_BLOCK], struct log_header *ret_header)
{
    enum error error = block_check(block, "HOLDFAST");
    if (error != ERROR_NONE) {
        return error;
    }
    ret_header->number = fetch(block + 16, 8);
    ret_header->nonce = fetch(block + 24, 8);
    ret_header->next_sequence = fetch(block + 32, 8);
    ret_header->open_end_count = (uint32_t)fetch(block + 40, 4);
    if (ret_header->open_end_count > LOG_OPEN_ENDS_MAX) {
        return ERROR_CORRUPT;
    }
    for (uint32_t i = 0; i < ret_header->open_end_count; i++) {
        const uint8_t *at = block + 48 + (size_t)i * 24;
        ret_header->open_ends[i].number = fetch(at, 8);
        ret_header->open_ends[i].nonce = fetch(at + 8, 8);
        ret_header->open_ends[i].end = (uint32_t)fetch(at + 16, 4);
    }
    return ERROR_NONE;
}

void log_seal_encode(const struct log_seal *seal, uint8_t ret_block[LOG_BLOCK])
{
    memset(ret_block, 0, LOG_BLOCK);
    store(ret_block + 16, seal->number, 8);
    store(ret_block + 24, seal->nonce, 8);
    store(ret_block + 32, seal->next_sequence, 8);
    store(ret_block + 40, seal->end, 4);
    store(ret_block + 44, seal->index_at, 4);
    store(ret_block + 48, seal->index_length, 4);
    store(ret_block + 52, seal->index_crc, 4);
    block_close(ret_block, "HOLDSEAL");
}

enum error log_seal_decode(const uint8_t block[LOG_BLOCK], struct log_seal *ret_seal)
{
    enum error error = block_check(block, "HOLDSEAL");
    if (error != ERROR_NONE) {
        return error;
    }
    ret_seal->number = fetch(block + 16, 8);
    ret_seal->nonce = fetch(block + 24, 8);
    ret_seal->next_sequence = fetch(block + 32, 8);
    ret_seal->end = (uint32_t)fetch(block + 40, 4);
    ret_seal->index_at = (uint32_t)fetch(block + 44, 4);
    ret_seal->index_length = (uint32_t)fetch(block + 48, 4);
    ret_seal->index_crc = (uint32_t)fetch(block + 52, 4);
    return ERROR_NONE;
}

/* ---- records ----------------------------------------------------------------------------- */

size_t log_record_begin(struct buffer *group)
{
    size_t at = group->length;
    uint8_t *header = grow(group, LOG_RECORD_HEADER);
    if (header != NULL) {
        memset(header, 0, LOG_RECORD_HEADER);
    }
    return at;
}

void log_record_end(struct buffer *group, size_t at, enum log_type type, uint8_t flags)
{
    if (group->failed) {
        return;
    }
    size_t length = group->length - at - LOG_RECORD_HEADER;
    size_t padding = log_record_space(length) - LOG_RECORD_HEADER - length;
    uint8_t *zeros = grow(group, padding);
    if (zeros == NULL) {
        return;
    }
    memset(zeros, 0, padding);
    uint8_t *header = group->data + at;
    struct slice payload = slice_make(header + LOG_RECORD_HEADER, length);
    store(header + 4, crc32c(0, payload), 4);
    store(header + 20, length, 4);
    header[28] = (uint8_t)type;
    header[29] = flags;
}

void log_record_put(struct buffer *group, enum log_type type, uint8_t flags, struct slice payload)
{
    size_t at = log_record_begin(group);
    buffer_append(group, payload);
    log_record_end(group, at, type, flags);
}

void log_group_close(struct buffer *group)
{
    size_t space = log_align(group->length + LOG_COMMIT_BYTES, LOG_GROUP_ALIGN) - group->length;
    uint8_t *at = grow(group, space);
    if (at != NULL) {
        memset(at, 0, space);
        /* So that a walk over the records finds where they end. */
        at[28] = LOG_COMMIT;
        store(at + 20, LOG_COMMIT_BYTES - LOG_RECORD_HEADER, 4);
    }
}

static uint32_t place_record(uint8_t *header, uint64_t nonce, uint32_t offset, uint32_t group)
{
    store(header + 8, nonce, 8);
    store(header + 16, offset, 4);
    store(header + 24, group, 4);
    uint32_t crc = crc32c(0, slice_make(header + 4, LOG_RECORD_HEADER - 4));
    store(header, crc, 4);
    return crc;
}

void log_group_place(struct buffer *group, uint64_t nonce, uint32_t offset, uint32_t synced_end)
{
    size_t at = 0;
    uint32_t count = 0, crc = 0;
    while (group->data[at + 28] != LOG_COMMIT) {
        place_record(group->data + at, nonce, offset + (uint32_t)at, offset);
        crc = crc32c(crc, slice_make(group->data + at, 4));
        count++;
        at += log_record_space(fetch(group->data + at + 20, 4));
        assert(at + LOG_COMMIT_BYTES <= group->length);
    }
    uint8_t *commit = group->data + at;
    uint8_t *payload = commit + LOG_RECORD_HEADER;
    store(payload, offset, 4);
    store(payload + 4, count, 4);
    store(payload + 8, crc, 4);
    store(payload + 12, synced_end, 4);
    store(commit + 4, crc32c(0, slice_make(payload, 16)), 4);
    place_record(commit, nonce, offset + (uint32_t)at, offset);
}

bool log_record_decode(const uint8_t *header, uint64_t nonce, uint32_t offset,
                       struct log_record *ret_record)
{
    /* The cheap comparison first: recovery tries many places. */
    if (fetch(header + 8, 8) != nonce || fetch(header + 16, 4) != offset) {
        return false;
    }
    ret_record->header_crc = (uint32_t)fetch(header, 4);
    if (ret_record->header_crc != crc32c(0, slice_make(header + 4, LOG_RECORD_HEADER - 4))) {
        return false;
    }
    ret_record->nonce = nonce;
    ret_record->offset = offset;
    ret_record->payload_crc = (uint32_t)fetch(header + 4, 4);
    ret_record->length = (uint32_t)fetch(header + 20, 4);
    ret_record->group = (uint32_t)fetch(header + 24, 4);
    ret_record->type = header[28];
    ret_record->flags = header[29];
    return true;
}

bool log_commit_decode(struct slice payload, struct log_commit *ret_commit)
{
    if (payload.length < 16) {
        return false;
    }
    ret_commit->group = (uint32_t)fetch(payload.data, 4);
    ret_commit->count = (uint32_t)fetch(payload.data + 4, 4);
    ret_commit->crc = (uint32_t)fetch(payload.data + 8, 4);
    ret_commit->synced_end = (uint32_t)fetch(payload.data + 12, 4);
    return true;
}

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
    uint8_t *at = grow(out, FATE_BYTES);
    if (at == NULL) {
        return;
    }
    store(at, fate->id.high, 8);
    store(at + 8, fate->id.low, 8);
    store(at + 16, fate->home, 8);
    store(at + 24, fate->delivery, 4);
    store(at + 28, fate->fate, 4);
}

bool log_get_fate(struct slice payload, struct log_fate *ret_fate)
{
    if (payload.length < FATE_BYTES || !log_get_id(payload, &ret_fate->id)) {
        return false;
    }
    ret_fate->home = fetch(payload.data + 16, 8);
    ret_fate->delivery = (uint32_t)fetch(payload.data + 24, 4);
    ret_fate->fate = payload.data[28];
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

void log_ticket_encode(const struct log_ticket *ticket, uint8_t ret_bytes[LOG_TICKET_BYTES])
{
    store(ret_bytes, ticket->segment, 8);
    store(ret_bytes + 8, ticket->nonce, 8);
    store(ret_bytes + 16, ticket->offset, 8);
    store(ret_bytes + 24, ticket->id.high, 8);
    store(ret_bytes + 32, ticket->id.low, 8);
}

bool log_ticket_decode(struct slice bytes, struct log_ticket *ret_ticket)
{
    if (bytes.length != LOG_TICKET_BYTES || fetch(bytes.data + 16, 8) > UINT32_MAX) {
        return false;
    }
    *ret_ticket = (struct log_ticket){
        .segment = fetch(bytes.data, 8),
        .nonce = fetch(bytes.data + 8, 8),
        .offset = (uint32_t)fetch(bytes.data + 16, 8),
        .id = {fetch(bytes.data + 24, 8), fetch(bytes.data + 32, 8)},
    };
    return true;
}

/* ---- the index --------------------------------------------------------------------------- */

size_t log_entry_begin(struct buffer *index)
{
    size_t at = index->length;
    (void)grow(index, ENTRY_BYTES);
    return at;
}

void log_entry_end(struct buffer *index, size_t at, enum log_type type, uint8_t flags,
                   uint32_t offset)
{
    if (index->failed) {
        return;
    }
    uint8_t *entry = index->data + at;
    store(entry, index->length - at - ENTRY_BYTES, 4);
    store(entry + 4, offset, 4);
    store(entry + 8, 0, 4);
    entry[8] = (uint8_t)type;
    entry[9] = flags;
}

void log_entry_put(struct buffer *index, enum log_type type, uint8_t flags, uint32_t offset,
                   struct slice payload)
{
    size_t at = log_entry_begin(index);
    buffer_append(index, payload);
    log_entry_end(index, at, type, flags, offset);
}

void log_index_rebase(struct buffer *index, size_t from, uint32_t base)
{
    while (from < index->length) {
        uint8_t *entry = index->data + from;
        store(entry + 4, fetch(entry + 4, 4) + base, 4);
        from += ENTRY_BYTES + (size_t)fetch(entry, 4);
    }
}

bool log_entry_next(struct slice index, size_t *at, struct log_entry *ret_entry, bool *ret_sound)
{
    *ret_sound = true;
    if (*at >= index.length) {
        return false;
    }
    const uint8_t *entry = index.data + *at;
    *ret_sound = index.length - *at >= ENTRY_BYTES;
    if (!*ret_sound) {
        return false;
    }
    size_t length = (size_t)fetch(entry, 4);
    *ret_sound = length <= index.length - *at - ENTRY_BYTES;
    if (!*ret_sound) {
        return false;
    }
    *ret_entry = (struct log_entry){.type = entry[8],
                                    .flags = entry[9],
                                    .offset = (uint32_t)fetch(entry + 4, 4),
                                    .payload = slice_make(entry + ENTRY_BYTES, length),
                                    .at = *at};
    *at += ENTRY_BYTES + length;
    return true;
}

/* ---- names ------------------------------------------------------------------------------- */

static const char *const name_prefixes[] = {
    [LOG_NAME_SEGMENT] = "segment-", [LOG_NAME_SPARE] = "spare-",          [LOG_NAME_NEW] = "new-",
    [LOG_NAME_CONTENT] = "content-", [LOG_NAME_SET_ASIDE] = "quarantine-",
};

void log_name_make(enum log_name kind, uint64_t number, char ret_name[LOG_NAME_SIZE])
{
    snprintf(ret_name, LOG_NAME_SIZE, "%s%016llx", name_prefixes[kind], (unsigned long long)number);
}

bool log_name_parse(const char *name, enum log_name *ret_kind, uint64_t *ret_number)
{
    for (int kind = LOG_NAME_SEGMENT; kind <= LOG_NAME_SET_ASIDE; kind++) {
        size_t length = strlen(name_prefixes[kind]);
        if (strncmp(name, name_prefixes[kind], length) != 0 || strlen(name + length) != 16 ||
            strspn(name + length, "0123456789abcdef") != 16) {
            continue;
        }
        uint64_t number = 0;
        for (const char *digit = name + length; *digit != '\0'; digit++) {
            number = number << 4 | (uint64_t)(*digit <= '9' ? *digit - '0' : *digit - 'a' + 10);
        }
        *ret_kind = (enum log_name)kind;
        *ret_number = number;
        return true;
    }
    return false;
}
