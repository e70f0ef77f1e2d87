/* SPDX-License-Identifier: Apache-2.0
 *
 * The table in a file: blocks, each
 *
 *   offset  size
 *      0      4     bytes behind the head, at least 1
 *      4      4     CRC32C of them
 *      8            u8 kind, then by kind:
 *                   'H'  the first block: 8 bytes "holdfast", u16 version, u32 names, u64 server
 *                        and i64 ms of the last random address, u8 refused
 *                   'N'  names: u8 flags, u8 source, u8 length, length bytes, u32 good, u32 first,
 *                        u32 last
 *                   'E'  the last one: u64 names, i64 ms of the list (0: none), u8 everybody
 *
 * A list counts only with the last block, and if that says as many names as there were: half a list
 * would refuse the other half. What was learned is true one by one.
 */
#include "relay/mailboxes_internal.h"

#include "base/crc32c.h"

enum {
    VERSION = 1,
    FLAG_LISTED = 1,
    FLAG_BAD = 2,
    FLAG_OTHER = 4, /* another one was accepted since the first refusal */
    RECORD_HEAD = 3,
    RECORD_TAIL = 12,
    RECORD_MAX = RECORD_HEAD + MAILBOX_NAME_MAX + RECORD_TAIL,
};
#define AT_END UINT64_MAX

static const struct slice magic = {(const uint8_t *)"holdfast", 8};

/* ---- writing --------------------------------------------------------------------------------- */

static void set_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static void block_end(struct buffer *buffer, size_t begin)
{
    if (!buffer->failed) {
        uint8_t *head = buffer->data + begin;
        size_t length = buffer->length - begin - MAILBOXES_BLOCK_HEAD;
        set_u32(head, (uint32_t)length);
        set_u32(head + 4, crc32c(0, slice_make(head + MAILBOXES_BLOCK_HEAD, length)));
    }
}

static void put_head(const struct mailboxes *mailboxes, struct buffer *buffer)
{
    buffer_append(buffer, magic);
    buffer_put_u16(buffer, VERSION);
    buffer_put_u32(buffer, mailboxes->count.names);
    buffer_put_u64(buffer, mailboxes->random_server);
    buffer_put_u64(buffer, (uint64_t)mailboxes->random_ms);
    buffer_put_u8(buffer, mailboxes->random_refused);
}

static bool says_nothing(const struct entry *entry)
{
    return (entry->flags & ENTRY_FREE) != 0 ||
           ((entry->flags & ENTRY_IN_LIST) == 0 && entry->good_s == 0 && entry->last_s == 0);
}

static void put_record(const struct mailboxes *mailboxes, const struct entry *entry,
                       struct buffer *buffer)
{
    struct slice name = mailboxes_name_of(mailboxes, entry);
    bool other = entry->first_s != 0 && entry->accepted != mailboxes->accepted;
    buffer_put_u8(buffer, (uint8_t)(((entry->flags & ENTRY_IN_LIST) != 0 ? FLAG_LISTED : 0) |
                                    ((entry->flags & ENTRY_BAD) != 0 ? FLAG_BAD : 0) |
                                    (other ? FLAG_OTHER : 0)));
    buffer_put_u8(buffer, entry->source);
    buffer_put_u8(buffer, (uint8_t)name.length);
    buffer_append(buffer, name);
    buffer_put_u32(buffer, entry->good_s);
    buffer_put_u32(buffer, entry->first_s);
    buffer_put_u32(buffer, entry->last_s);
}

/* *at: 0, then in the high half 1 + entry to go on with, in the low half records so far; then
 * AT_END. */
bool mailboxes_write(const struct mailboxes *mailboxes, uint64_t *at, struct buffer *buffer)
{
    size_t begin = buffer->length;
    uint32_t written = (uint32_t)*at;
    uint32_t next = (uint32_t)(*at >> 32);
    if (*at == AT_END) {
        return false;
    }
    buffer_put_u32(buffer, 0);
    buffer_put_u32(buffer, 0);
    if (next == 0) {
        buffer_put_u8(buffer, 'H');
        put_head(mailboxes, buffer);
        *at = UINT64_C(1) << 32;
    } else if (next - 1 < mailboxes->used) {
        buffer_put_u8(buffer, 'N');
        uint32_t i = next - 1;
        for (; i < mailboxes->used && !buffer->failed &&
               buffer->length - begin + RECORD_MAX <= MAILBOXES_BLOCK_MAX;
             i++) {
            if (!says_nothing(&mailboxes->entries[i])) {
                put_record(mailboxes, &mailboxes->entries[i], buffer);
                written++;
            }
        }
        *at = (uint64_t)(i + 1) << 32 | written;
    } else {
        buffer_put_u8(buffer, 'E');
        buffer_put_u64(buffer, written);
        buffer_put_u64(buffer, (uint64_t)mailboxes->list_ms);
        buffer_put_u8(buffer, mailboxes->list_everybody);
        *at = AT_END;
    }
    block_end(buffer, begin);
    return !buffer->failed;
}

/* ---- reading --------------------------------------------------------------------------------- */

static enum error read_head(struct mailboxes *mailboxes, struct reader *reader, uint64_t file_bytes)
{
    struct slice found = reader_take(reader, magic.length);
    uint16_t version = reader_u16(reader);
    uint32_t names = reader_u32(reader);
    uint64_t server = reader_u64(reader);
    int64_t random_ms = (int64_t)reader_u64(reader);
    bool refused = reader_u8(reader) != 0;
    if (reader->failed || !slice_equal(found, magic)) {
        return ERROR_CORRUPT;
    }
    if (version != VERSION) {
        return ERROR_NEWER;
    }
    mailboxes->has_head = true;
    mailboxes->restored = 0;
    mailboxes->random_server = server;
    mailboxes->random_ms = random_ms > 0 ? random_ms : 0;
    mailboxes->random_refused = refused;
    mailboxes_list_begin(mailboxes);
    if (names > MAILBOXES_MAX) {
        return ERROR_CORRUPT;
    }
    uint64_t fits = file_bytes / (RECORD_HEAD + 1 + RECORD_TAIL);
    return mailboxes_reserve(mailboxes, names < fits ? names : (uint32_t)fits);
}

static enum error read_record(struct mailboxes *mailboxes, struct reader *reader)
{
    uint8_t flags = reader_u8(reader);
    uint8_t source = reader_u8(reader);
    struct slice name = reader_take(reader, reader_u8(reader));
    uint32_t good_s = reader_u32(reader);
    uint32_t first_s = reader_u32(reader);
    uint32_t last_s = reader_u32(reader);
    bool bad = (flags & FLAG_BAD) != 0;
    if (reader->failed || name.length == 0 || source >= MAILBOX_SOURCES ||
        (first_s == 0) != (last_s == 0) || (bad && last_s == 0) || (bad && good_s != 0)) {
        return ERROR_CORRUPT;
    }
    struct entry *entry;
    enum error error = mailboxes_take(mailboxes, name, &entry);
    if (error != ERROR_NONE) {
        return error;
    }
    mailboxes_change_begin(mailboxes, entry);
    entry->good_s = good_s;
    entry->first_s = first_s;
    entry->last_s = last_s;
    entry->accepted = mailboxes->accepted - ((flags & FLAG_OTHER) != 0);
    entry->source = source;
    entry->flags =
        (uint8_t)((entry->flags & ENTRY_IN_LIST) |
                  ((flags & FLAG_LISTED) != 0 ? ENTRY_IN_NEXT : 0) | (bad ? ENTRY_BAD : 0));
    mailboxes_change_end(mailboxes, entry);
    mailboxes->restored++;
    return ERROR_NONE;
}

static enum error read_end(struct mailboxes *mailboxes, struct reader *reader)
{
    uint64_t names = reader_u64(reader);
    int64_t list_ms = (int64_t)reader_u64(reader);
    bool everybody = reader_u8(reader) != 0;
    if (reader->failed || names != mailboxes->restored) {
        return ERROR_CORRUPT;
    }
    if (list_ms > 0) {
        mailboxes_list_end(mailboxes, everybody, list_ms);
    } else {
        mailboxes_list_give_up(mailboxes);
    }
    return ERROR_NONE;
}

static enum error read_block(struct mailboxes *mailboxes, struct slice block, uint64_t file_bytes,
                             bool *ret_end)
{
    struct reader reader = reader_make(block);
    uint8_t kind = reader_u8(&reader);
    enum error error = ERROR_NONE;
    if (kind == 'H' && !mailboxes->has_head) {
        return read_head(mailboxes, &reader, file_bytes);
    }
    if (!mailboxes->has_head || (kind != 'N' && kind != 'E')) {
        return ERROR_CORRUPT;
    }
    if (kind == 'E') {
        *ret_end = true;
        return read_end(mailboxes, &reader);
    }
    while (error == ERROR_NONE && reader.rest.length > 0) {
        error = read_record(mailboxes, &reader);
    }
    return error;
}

enum error mailboxes_read(struct mailboxes *mailboxes, struct slice bytes, uint64_t file_bytes,
                          size_t *ret_used, bool *ret_end)
{
    struct slice rest = bytes;
    enum error error = ERROR_NONE;
    *ret_end = false;
    while (error == ERROR_NONE && !*ret_end && rest.length >= MAILBOXES_BLOCK_HEAD) {
        struct reader head = reader_make(rest);
        uint32_t length = reader_u32(&head);
        uint32_t sum = reader_u32(&head);
        if (length == 0 || length > MAILBOXES_BLOCK_MAX - MAILBOXES_BLOCK_HEAD) {
            error = ERROR_CORRUPT;
            break;
        }
        if (head.rest.length < length) {
            break;
        }
        struct slice block = slice_take(head.rest, length);
        error = crc32c(0, block) == sum ? read_block(mailboxes, block, file_bytes, ret_end)
                                        : ERROR_CORRUPT;
        rest = slice_skip(head.rest, length);
    }
    *ret_used = bytes.length - rest.length;
    if (error != ERROR_NONE) {
        *ret_end = false;
        mailboxes_list_give_up(mailboxes);
    }
    return error;
}
