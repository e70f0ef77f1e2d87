/* SPDX-License-Identifier: Apache-2.0
 *
 * Events as bytes: what is written must be read by every later version, so fields are only added,
 * each with a bit of its own in the mask.
 */
#include "service/events_internal.h"

#include "base/crc32c.h"

#include <assert.h>
#include <stdio.h>

enum {
    HAS_DELIVERY = 1 << 0,
    HAS_BYTES = 1 << 1,
    HAS_NEXT = 1 << 2,
    HAS_CLIENT = 1 << 3,
    HAS_SENDER = 1 << 4, /* also the null one */
    HAS_MESSAGE_ID = 1 << 5,
    HAS_RECIPIENTS = 1 << 6,
    HAS_SERVER = 1 << 7,
    HAS_REASON = 1 << 8,
    HAS_REPLY = 1 << 9,
    HAS_SUBJECT = 1 << 10, /* and from, to, lasted_ms */
    HAS_TLS = 1 << 11,
    HAS_LEFT_OUT = 1 << 12,
    RECIPIENT_BYTES_MAX = EVENTS_RECORD_MAX / 2,
};

const char *event_kind_text(enum event_kind kind)
{
    static const char *const texts[EVENT_KINDS] = {
        [EVENT_ACCEPTED] = "accepted",     [EVENT_ATTEMPT] = "attempt",
        [EVENT_DELIVERED] = "delivered",   [EVENT_DEFERRED] = "deferred",
        [EVENT_IN_DOUBT] = "in_doubt",     [EVENT_HELD] = "held",
        [EVENT_RELEASED] = "released",     [EVENT_DEAD] = "dead",
        [EVENT_BOUNCED] = "bounced",       [EVENT_DISCARDED] = "discarded",
        [EVENT_REDIRECTED] = "redirected", [EVENT_RETRIED] = "retried",
        [EVENT_IMPORTED] = "imported",     [EVENT_ORPHANED] = "orphaned",
        [EVENT_SERVER] = "server",         [EVENT_SWITCHED] = "switched",
        [EVENT_STOPPED] = "stopped",       [EVENT_DRAINING] = "draining",
        [EVENT_DRAINED] = "drained",       [EVENT_PULLED] = "pulled",
        [EVENT_RESENT] = "resent",         [EVENT_REFUSED] = "refused",
        [EVENT_LOGIN] = "login",           [EVENT_DENIED] = "denied",
        [EVENT_GUARD] = "guard",
    };
    return (unsigned)kind < EVENT_KINDS && texts[kind] != NULL ? texts[kind] : "unknown";
}

static uint16_t mask_of(const struct event *event)
{
    bool told = event->kind == EVENT_ACCEPTED || event->kind == EVENT_IMPORTED || event->has_sender;
    return (uint16_t)((event->delivery != EVENTS_NO_DELIVERY ? HAS_DELIVERY : 0) |
                      (event->bytes != 0 ? HAS_BYTES : 0) | (event->next_ms != 0 ? HAS_NEXT : 0) |
                      (event->has_client ? HAS_CLIENT : 0) | (told ? HAS_SENDER : 0) |
                      (event->message_id.length > 0 ? HAS_MESSAGE_ID : 0) |
                      (event->recipient_count > 0 ? HAS_RECIPIENTS : 0) |
                      (event->server.length > 0 ? HAS_SERVER : 0) |
                      (event->reason.length > 0 ? HAS_REASON : 0) |
                      (event->reply.length > 0 ? HAS_REPLY : 0) |
                      (event->subject.length > 0 ? HAS_SUBJECT : 0) |
                      (event->tls.length > 0 ? HAS_TLS : 0) |
                      (event->left_out > 0 ? HAS_LEFT_OUT : 0));
}

static void put_recipients(struct buffer *buffer, const struct event *event)
{
    uint32_t count = 0;
    size_t bytes = 0;
    while (count < event->recipient_count) {
        bytes += 4 + event->recipients[count].length;
        if (bytes > RECIPIENT_BYTES_MAX) {
            break;
        }
        count++;
    }
    buffer_put_u32(buffer, count);
    for (uint32_t i = 0; i < count; i++) {
        buffer_put_bytes(buffer, event->recipients[i]);
    }
}

static void put_payload(struct buffer *buffer, const struct event *event)
{
    uint16_t mask = mask_of(event);
    buffer_put_u8(buffer, (uint8_t)event->kind);
    buffer_put_u16(buffer, mask);
    buffer_put_u64(buffer, (uint64_t)event->time_ms);
    buffer_put_u64(buffer, event->id.high);
    buffer_put_u64(buffer, event->id.low);
    if (mask & HAS_DELIVERY) {
        buffer_put_u32(buffer, (uint32_t)event->delivery);
    }
    if (mask & HAS_BYTES) {
        buffer_put_u64(buffer, event->bytes);
    }
    if (mask & HAS_NEXT) {
        buffer_put_u64(buffer, (uint64_t)event->next_ms);
    }
    if (mask & HAS_CLIENT) {
        buffer_append(buffer, slice_make(event->client.bytes, sizeof(event->client.bytes)));
    }
    if (mask & HAS_SENDER) {
        buffer_put_bytes(buffer, slice_take(event->sender, 4096));
    }
    if (mask & HAS_MESSAGE_ID) {
        buffer_put_bytes(buffer, slice_take(event->message_id, 4096));
    }
    if (mask & HAS_RECIPIENTS) {
        put_recipients(buffer, event);
    }
    if (mask & HAS_SERVER) {
        buffer_put_bytes(buffer, slice_take(event->server, 4096));
    }
    if (mask & HAS_REASON) {
        buffer_put_bytes(buffer, slice_take(event->reason, 4096));
    }
    if (mask & HAS_REPLY) {
        buffer_put_bytes(buffer, slice_take(event->reply, 4096));
    }
    if (mask & HAS_SUBJECT) {
        buffer_put_bytes(buffer, slice_take(event->subject, 4096));
        buffer_put_bytes(buffer, slice_take(event->from, 4096));
        buffer_put_bytes(buffer, slice_take(event->to, 4096));
        buffer_put_u64(buffer, (uint64_t)event->lasted_ms);
    }
    if (mask & HAS_TLS) {
        buffer_put_bytes(buffer, slice_take(event->tls, 4096));
    }
    if (mask & HAS_LEFT_OUT) {
        buffer_put_u64(buffer, event->left_out);
    }
}

static void set_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

void event_encode(struct buffer *buffer, const struct event *event)
{
    assert(buffer->length % 4 == 0);
    size_t start = buffer->length;
    buffer_append(buffer, slice_make((const uint8_t[EVENTS_RECORD_HEAD]){0}, EVENTS_RECORD_HEAD));
    put_payload(buffer, event);
    size_t length = buffer->length - start - EVENTS_RECORD_HEAD;
    buffer_append(buffer, slice_make((const uint8_t[4]){0}, (4 - length % 4) % 4));
    if (buffer->failed) {
        buffer->length = start;
        return;
    }
    assert(length <= EVENTS_RECORD_MAX);
    uint8_t *head = buffer->data + start;
    set_u32(head, EVENTS_RECORD_MAGIC);
    set_u32(head + 4, (uint32_t)length);
    uint32_t sum =
        crc32c(crc32c(0, slice_make(head + 4, 4)), slice_make(head + EVENTS_RECORD_HEAD, length));
    set_u32(head + 8, sum);
}

static bool get_recipients(struct reader *reader, struct arena *arena, struct event *event)
{
    uint32_t count = reader_u32(reader);
    if (reader->failed || count > reader->rest.length / 4) {
        return false;
    }
    struct slice *recipients = arena_allocate(arena, (count + 1) * sizeof(*recipients));
    if (recipients == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        recipients[i] = reader_bytes(reader);
    }
    event->recipients = recipients;
    event->recipient_count = count;
    return true;
}

bool event_decode(struct slice payload, struct arena *arena, struct event *ret_event)
{
    struct reader reader = reader_make(payload);
    struct event event = {.kind = (enum event_kind)reader_u8(&reader),
                          .delivery = EVENTS_NO_DELIVERY};
    uint16_t mask = reader_u16(&reader);
    event.time_ms = (int64_t)reader_u64(&reader);
    event.id.high = reader_u64(&reader);
    event.id.low = reader_u64(&reader);
    if (mask & HAS_DELIVERY) {
        event.delivery = reader_u32(&reader);
    }
    if (mask & HAS_BYTES) {
        event.bytes = reader_u64(&reader);
    }
    if (mask & HAS_NEXT) {
        event.next_ms = (int64_t)reader_u64(&reader);
    }
    if (mask & HAS_CLIENT) {
        struct slice bytes = reader_take(&reader, sizeof(event.client.bytes));
        event.has_client = bytes.length == sizeof(event.client.bytes);
        if (event.has_client) {
            memcpy(event.client.bytes, bytes.data, bytes.length);
        }
    }
    event.has_sender = (mask & HAS_SENDER) != 0;
    event.sender = mask & HAS_SENDER ? reader_bytes(&reader) : SLICE_EMPTY;
    event.message_id = mask & HAS_MESSAGE_ID ? reader_bytes(&reader) : SLICE_EMPTY;
    if ((mask & HAS_RECIPIENTS) && !get_recipients(&reader, arena, &event)) {
        return false;
    }
    event.server = mask & HAS_SERVER ? reader_bytes(&reader) : SLICE_EMPTY;
    event.reason = mask & HAS_REASON ? reader_bytes(&reader) : SLICE_EMPTY;
    event.reply = mask & HAS_REPLY ? reader_bytes(&reader) : SLICE_EMPTY;
    if (mask & HAS_SUBJECT) {
        event.subject = reader_bytes(&reader);
        event.from = reader_bytes(&reader);
        event.to = reader_bytes(&reader);
        event.lasted_ms = (int64_t)reader_u64(&reader);
    }
    event.tls = mask & HAS_TLS ? reader_bytes(&reader) : SLICE_EMPTY;
    event.left_out = mask & HAS_LEFT_OUT ? reader_u64(&reader) : 0;
    *ret_event = event;
    return !reader.failed; /* what a newer version added stands behind */
}

/* ---- files ----------------------------------------------------------------------------------- */

void events_file_name(char ret_name[EVENTS_NAME_SIZE], uint64_t number, bool index)
{
    snprintf(ret_name, EVENTS_NAME_SIZE, "events-%016llx%s", (unsigned long long)number,
             index ? ".index" : "");
}

uint64_t events_hash_id(struct hash_key key, struct message_id id)
{
    uint64_t bytes[2] = {id.high, id.low};
    return hash_bytes(key, slice_make(bytes, sizeof(bytes)));
}

/* Of the client's network: its search sees to the rest. */
uint64_t events_hash_client(struct hash_key key, const struct ip_address *client)
{
    return hash_bytes(key, ip_neighbours(client));
}

uint64_t events_hash_text(struct hash_key key, struct slice text)
{
    return hash_bytes_fold(key, text);
}

enum error events_read_key(struct disk_file *file, struct hash_key *ret_key)
{
    uint8_t head[EVENTS_FILE_HEAD];
    enum error error = file->disk->ops->read(file, 0, head, sizeof(head));
    if (error != ERROR_NONE) {
        return error;
    }
    if (memcmp(head, "HFEVENT1", 8) != 0) {
        return ERROR_CORRUPT;
    }
    struct reader reader = reader_make(slice_make(head + 16, 16));
    ret_key->k0 = reader_u64(&reader);
    ret_key->k1 = reader_u64(&reader);
    return ERROR_NONE;
}

/* The length that a record's head claims, or 0 when it cannot be one; `room` is what follows the
 * head in the file. */
static uint32_t claimed_length(struct slice head, uint64_t room)
{
    struct reader reader = reader_make(head);
    uint32_t magic = reader_u32(&reader);
    uint32_t length = reader_u32(&reader);
    return !reader.failed && magic == EVENTS_RECORD_MAGIC && length <= EVENTS_RECORD_MAX &&
                   length <= room
               ? length
               : 0;
}

static bool sum_is_right(struct slice record, uint32_t length)
{
    struct reader reader = reader_make(slice_skip(record, 8));
    uint32_t sum = reader_u32(&reader);
    return sum == crc32c(crc32c(0, slice_make(record.data + 4, 4)),
                         slice_make(record.data + EVENTS_RECORD_HEAD, length));
}

/* Fills `buffer` with [offset, offset + length) of the file. */
static enum error read_piece(struct disk_file *file, uint64_t offset, size_t length,
                             struct buffer *buffer)
{
    buffer_clear(buffer);
    enum error error = buffer_reserve(buffer, length);
    if (error == ERROR_NONE) {
        error = file->disk->ops->read(file, offset, buffer->data, length);
    }
    if (error == ERROR_NONE) {
        buffer->length = length;
    }
    return error;
}

enum error events_read_record(struct disk_file *file, uint64_t offset, uint64_t end,
                              struct buffer *buffer, struct slice *ret_payload)
{
    if (offset > end || end - offset < EVENTS_RECORD_HEAD) {
        return ERROR_CORRUPT;
    }
    enum error error = read_piece(file, offset, EVENTS_RECORD_HEAD, buffer);
    if (error != ERROR_NONE) {
        return error;
    }
    uint32_t length = claimed_length(buffer_slice(buffer), end - offset - EVENTS_RECORD_HEAD);
    if (length == 0) {
        return ERROR_CORRUPT;
    }
    error = read_piece(file, offset, EVENTS_RECORD_HEAD + (size_t)length, buffer);
    if (error != ERROR_NONE) {
        return error;
    }
    if (claimed_length(buffer_slice(buffer), length) != length ||
        !sum_is_right(buffer_slice(buffer), length)) {
        return ERROR_CORRUPT;
    }
    *ret_payload = slice_skip(buffer_slice(buffer), EVENTS_RECORD_HEAD);
    return ERROR_NONE;
}

/* Takes the records out of one piece. The bytes used: less than all when a record goes on in the
 * next piece. */
static size_t scan_piece(struct slice piece, uint64_t offset, uint64_t end, event_record_fn *fn,
                         void *context)
{
    size_t at = 0;
    while (piece.length - at >= EVENTS_RECORD_HEAD) {
        struct slice rest = slice_skip(piece, at);
        uint32_t length = claimed_length(slice_take(rest, EVENTS_RECORD_HEAD),
                                         end - (offset + at) - EVENTS_RECORD_HEAD);
        if (length == 0) {
            at += 4;
            continue;
        }
        if (rest.length - EVENTS_RECORD_HEAD < length) {
            break;
        }
        if (!sum_is_right(rest, length)) {
            at += 4;
            continue;
        }
        fn(context, offset + at, slice_make(rest.data + EVENTS_RECORD_HEAD, length));
        at += EVENTS_RECORD_HEAD + (length + 3U) / 4 * 4;
        at = at < piece.length ? at : piece.length;
    }
    return at;
}

enum error events_scan(struct disk_file *file, uint64_t offset, uint64_t end, event_record_fn *fn,
                       void *context)
{
    struct buffer buffer;
    buffer_init(&buffer, 0);
    size_t step = EVENTS_READ_BYTES;
    enum error error = ERROR_NONE;
    while (error == ERROR_NONE && end - offset >= EVENTS_RECORD_HEAD) {
        size_t length = end - offset < step ? (size_t)(end - offset) : step;
        error = read_piece(file, offset, length, &buffer);
        if (error != ERROR_NONE) {
            break;
        }
        size_t used = scan_piece(buffer_slice(&buffer), offset, end, fn, context);
        if (used == 0) {
            /* One record larger than the piece; the bound of a record bounds this. */
            if (length == end - offset) {
                break;
            }
            step *= 2;
        }
        offset += used;
    }
    buffer_done(&buffer);
    return error;
}

void events_scan_memory(struct slice bytes, event_record_fn *fn, void *context)
{
    (void)scan_piece(bytes, 0, bytes.length, fn, context);
}
