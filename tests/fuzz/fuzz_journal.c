/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal's bytes: a segment as it stands, records of any payload in a valid group that is then
 * damaged, and each payload, index, header, seal and ticket for itself. The first byte chooses.
 */
#include "base/crc32c.h"
#include "spool/log_scan.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NONCE = 0x5eed };

struct seen {
    uint64_t bytes;
};

static void on_damage(void *context, uint32_t from, uint32_t to, bool cut, const char *what)
{
    struct seen *seen = context;
    assert(from < to && what != NULL);
    seen->bytes += cut ? 0 : to - from;
}

static void on_record(void *context, const struct log_record *record, struct slice payload)
{
    (void)context;
    assert(record->length == payload.length);
    assert(crc32c(0, payload) == record->payload_crc);
}

static void scan(struct slice bytes, uint32_t known_end)
{
    struct buffer index;
    struct seen seen = {0};
    buffer_init(&index, 0);
    struct log_scan scanning = {.nonce = NONCE,
                                .known_end = known_end,
                                .context = &seen,
                                .damage = on_damage,
                                .record = on_record,
                                .index = &index};
    if (log_scan(&scanning, bytes) == ERROR_NONE) {
        assert(known_end != 0 || scanning.end <= log_align(bytes.length, LOG_GROUP_ALIGN) ||
               bytes.length < LOG_DATA_AT);
        size_t at = 0;
        bool sound;
        struct log_entry entry;
        while (log_entry_next(buffer_slice(&index), &at, &entry, &sound)) {
            assert(entry.offset >= LOG_DATA_AT && entry.offset < scanning.end);
        }
        assert(sound);
    }
    buffer_done(&index);
}

/* Groups of records cut out of the input: type, flags, length, payload; type 0 ends a group. */
static void scan_built(struct slice input)
{
    struct buffer segment, group;
    struct reader reader = reader_make(input);
    uint32_t damage_at = reader_u32(&reader);
    uint8_t damage = reader_u8(&reader), known = reader_u8(&reader);
    buffer_init(&segment, 0);
    buffer_init(&group, 0);
    static const uint8_t blank[LOG_DATA_AT];
    buffer_append(&segment, slice_make(blank, sizeof(blank)));
    while (reader.rest.length > 0 && segment.length < 1 << 20) {
        uint8_t type = reader_u8(&reader), flags = reader_u8(&reader);
        size_t length = reader_u16(&reader);
        struct slice payload =
            reader_take(&reader, length < reader.rest.length ? length : reader.rest.length);
        if (type != 0 && type != LOG_COMMIT) {
            log_record_put(&group, (enum log_type)type, flags, payload);
        }
        if (type == 0 || reader.rest.length == 0) {
            log_group_close(&group);
            log_group_place(&group, NONCE, (uint32_t)segment.length,
                            flags % 2 == 0 ? LOG_DATA_AT : (uint32_t)segment.length);
            buffer_append(&segment, buffer_slice(&group));
            buffer_clear(&group);
        }
    }
    if (damage != 0 && segment.length > LOG_DATA_AT) {
        segment.data[LOG_DATA_AT + damage_at % (segment.length - LOG_DATA_AT)] ^= damage;
    }
    scan(buffer_slice(&segment), known % 4 == 0 ? (uint32_t)segment.length : 0);
    buffer_done(&segment);
    buffer_done(&group);
}

static void decode_message(struct slice payload)
{
    struct arena arena;
    struct log_message message;
    arena_init(&arena);
    if (log_get_message(payload, &arena, &message) == ERROR_NONE) {
        struct buffer again;
        struct log_message second;
        buffer_init(&again, 0);
        log_put_message(&again, &message.message, message.pieces, message.piece_count);
        assert(log_get_message(buffer_slice(&again), &arena, &second) == ERROR_NONE);
        assert(id_equal(second.message.id, message.message.id));
        assert(second.message.recipient_count == message.message.recipient_count);
        assert(second.piece_count == message.piece_count);
        assert(slice_equal(second.message.sender, message.message.sender));
        buffer_done(&again);
    }
    arena_done(&arena);
}

static void decode_index(struct slice index)
{
    size_t at = 0;
    bool sound;
    struct log_entry entry;
    while (log_entry_next(index, &at, &entry, &sound)) {
        struct log_fate fate;
        struct log_note note;
        struct slice key, payload;
        struct message_id id;
        (void)log_get_fate(entry.payload, &fate);
        (void)log_get_note(entry.payload, &note);
        (void)log_get_global(entry.payload, &key, &payload);
        (void)log_get_id(entry.payload, &id);
        decode_message(entry.payload);
    }
}

static void decode_blocks(struct slice input)
{
    uint8_t block[LOG_BLOCK] = {0};
    struct log_header *header = malloc(sizeof(*header));
    struct log_seal seal;
    struct log_ticket ticket;
    if (input.length > 0) {
        memcpy(block, input.data, slice_take(input, LOG_BLOCK).length);
    }
    (void)!log_header_decode(block, header);
    (void)!log_seal_decode(block, &seal);
    (void)log_ticket_decode(input, &ticket);
    uint32_t crc = crc32c(0, slice_make(block + 16, LOG_BLOCK - 16));
    memcpy(block, "HOLDFAST\1\0\0\0", 12);
    memcpy(block + 12, &crc, sizeof(crc));
    if (log_header_decode(block, header) == ERROR_NONE) {
        assert(header->open_end_count <= LOG_OPEN_ENDS_MAX);
    }
    free(header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct slice rest = slice_make(data + 1, size - 1);
    switch (data[0] % 5) {
    case 0:
        scan(rest, 0);
        break;
    case 1:
        scan_built(rest);
        break;
    case 2:
        decode_message(rest);
        break;
    case 3:
        decode_index(rest);
        break;
    default:
        decode_blocks(rest);
        break;
    }
    return 0;
}
