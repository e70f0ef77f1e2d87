/* SPDX-License-Identifier: Apache-2.0
 *
 * The index of a full file of events: made by reading the file once, so that adding an event costs
 * nothing for it.
 */
#include "service/events_internal.h"

#include "base/crc32c.h"

#include <stdlib.h>

enum {
    ENTRY_BYTES = 8,
    NEAR_ENTRIES = 512, /* read in one piece at the end of the binary search */
    MATCHES_MAX = 1 << 20,
};

struct index {
    struct hash_key key;
    struct buffer entries; /* u64 each, host order */
    int64_t first_ms, last_ms;
};

static void put_entry(struct index *index, uint64_t hash, uint64_t offset)
{
    uint64_t entry = events_index_entry(hash, offset);
    buffer_append(&index->entries, slice_make(&entry, sizeof(entry)));
}

static void index_record(void *context, uint64_t offset, struct slice payload)
{
    struct index *index = context;
    struct arena arena;
    struct event event;
    arena_init(&arena);
    if (event_decode(payload, &arena, &event)) {
        if (index->first_ms == 0) {
            index->first_ms = event.time_ms;
        }
        index->last_ms = event.time_ms > index->last_ms ? event.time_ms : index->last_ms;
        put_entry(index, events_hash_id(index->key, event.id), offset);
        if (event.sender.length > 0) {
            put_entry(index, events_hash_text(index->key, event.sender), offset);
        }
        if (event.message_id.length > 0) {
            put_entry(index, events_hash_text(index->key, event.message_id), offset);
        }
        if (event.has_client) {
            put_entry(index, events_hash_client(index->key, &event.client), offset);
        }
        for (uint32_t i = 0; i < event.recipient_count; i++) {
            put_entry(index, events_hash_text(index->key, event.recipients[i]), offset);
        }
    }
    arena_done(&arena);
}

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static enum error write_index(struct disk *disk, uint64_t number, struct index *index)
{
    size_t count = index->entries.length / ENTRY_BYTES;
    if (count > 0) {
        qsort(index->entries.data, count, ENTRY_BYTES, compare);
    }
    struct buffer bytes;
    buffer_init(&bytes, 0);
    buffer_append_text(&bytes, "HFINDEX2");
    buffer_put_u64(&bytes, count);
    buffer_put_u64(&bytes, (uint64_t)index->first_ms);
    buffer_put_u64(&bytes, (uint64_t)index->last_ms);
    size_t sum_at = bytes.length;
    buffer_put_u64(&bytes, 0);
    for (size_t i = 0; i < count; i++) {
        buffer_put_u64(&bytes, ((const uint64_t *)(const void *)index->entries.data)[i]);
    }
    enum error error = bytes.failed ? ERROR_MEMORY : ERROR_NONE;
    struct disk_file *file;
    char name[EVENTS_NAME_SIZE];
    events_file_name(name, number, true);
    if (error == ERROR_NONE) {
        uint32_t sum = crc32c(0, slice_skip(buffer_slice(&bytes), EVENTS_INDEX_HEAD));
        for (int i = 0; i < 4; i++) {
            bytes.data[sum_at + (size_t)i] = (uint8_t)(sum >> (8 * i));
        }
        (void)disk->ops->unlink(disk, name); /* a damaged one */
        error = disk->ops->open(disk, name, DISK_WRITE | DISK_CREATE, &file);
    }
    if (error == ERROR_NONE) {
        error = disk->ops->write(file, 0, buffer_slice(&bytes));
        disk->ops->close(file);
        if (error != ERROR_NONE) {
            (void)disk->ops->unlink(disk, name);
        }
    }
    buffer_done(&bytes);
    return error;
}

enum error events_index_write(struct disk *disk, uint64_t number, int64_t *ret_last_ms)
{
    char name[EVENTS_NAME_SIZE];
    events_file_name(name, number, false);
    struct disk_file *file;
    enum error error = disk->ops->open(disk, name, DISK_READ, &file);
    if (error != ERROR_NONE) {
        return error;
    }
    struct index index = {0};
    buffer_init(&index.entries, 0);
    uint64_t end = 0;
    error = events_read_key(file, &index.key);
    if (error == ERROR_NONE) {
        error = disk->ops->size(file, &end);
    }
    if (error == ERROR_NONE) {
        end = end < EVENTS_FILE_MAX ? end : EVENTS_FILE_MAX;
        error = events_scan(file, EVENTS_FILE_HEAD, end, index_record, &index);
    }
    disk->ops->close(file);
    if (error == ERROR_NONE && index.entries.failed) {
        error = ERROR_MEMORY;
    }
    if (error == ERROR_NONE) {
        error = write_index(disk, number, &index);
    }
    *ret_last_ms = index.last_ms;
    buffer_done(&index.entries);
    return error;
}

/* ---- reading --------------------------------------------------------------------------------- */

struct opened {
    struct disk_file *file;
    uint64_t count;
    int64_t last_ms;
    uint32_t sum;
};

static enum error open_index(struct disk *disk, uint64_t number, struct opened *ret_opened)
{
    char name[EVENTS_NAME_SIZE];
    events_file_name(name, number, true);
    struct opened opened = {0};
    enum error error = disk->ops->open(disk, name, DISK_READ, &opened.file);
    if (error != ERROR_NONE) {
        return error;
    }
    uint8_t head[EVENTS_INDEX_HEAD];
    uint64_t size = 0;
    error = disk->ops->size(opened.file, &size);
    if (error == ERROR_NONE) {
        error = size < sizeof(head) ? ERROR_CORRUPT
                                    : disk->ops->read(opened.file, 0, head, sizeof(head));
    }
    if (error == ERROR_NONE) {
        struct reader reader = reader_make(slice_make(head + 8, sizeof(head) - 8));
        opened.count = reader_u64(&reader);
        (void)reader_u64(&reader);
        opened.last_ms = (int64_t)reader_u64(&reader);
        opened.sum = reader_u32(&reader);
        if (memcmp(head, "HFINDEX2", 8) != 0 ||
            opened.count != (size - sizeof(head)) / ENTRY_BYTES ||
            (size - sizeof(head)) % ENTRY_BYTES != 0) {
            error = ERROR_CORRUPT;
        }
    }
    if (error != ERROR_NONE) {
        disk->ops->close(opened.file);
        return error;
    }
    *ret_opened = opened;
    return ERROR_NONE;
}

bool events_index_check(struct disk *disk, uint64_t number, bool whole, int64_t *ret_last_ms)
{
    struct opened opened;
    if (open_index(disk, number, &opened) != ERROR_NONE) {
        return false;
    }
    uint8_t *piece = malloc(EVENTS_READ_BYTES);
    uint32_t sum = 0;
    bool good = piece != NULL;
    uint64_t length = whole ? opened.count * ENTRY_BYTES : 0;
    for (uint64_t at = 0; good && at < length;) {
        size_t some = length - at < EVENTS_READ_BYTES ? (size_t)(length - at) : EVENTS_READ_BYTES;
        good = disk->ops->read(opened.file, EVENTS_INDEX_HEAD + at, piece, some) == ERROR_NONE;
        sum = good ? crc32c(sum, slice_make(piece, some)) : sum;
        at += some;
    }
    free(piece);
    disk->ops->close(opened.file);
    *ret_last_ms = opened.last_ms;
    return good && (!whole || sum == opened.sum);
}

static enum error read_entries(const struct opened *opened, uint64_t at, uint64_t *ret_entries,
                               size_t count)
{
    uint8_t *bytes = (uint8_t *)ret_entries;
    enum error error = opened->file->disk->ops->read(
        opened->file, EVENTS_INDEX_HEAD + at * ENTRY_BYTES, bytes, count * ENTRY_BYTES);
    for (size_t i = 0; error == ERROR_NONE && i < count; i++) {
        struct reader reader = reader_make(slice_make(bytes + i * ENTRY_BYTES, ENTRY_BYTES));
        ret_entries[i] = reader_u64(&reader);
    }
    return error;
}

/* All entries with the hash's upper 40 bits, as offsets. */
static enum error find_one(const struct opened *opened, uint64_t hash, struct buffer *offsets)
{
    uint64_t low = events_index_entry(hash, 0);
    uint64_t high = low | ((1ULL << EVENTS_OFFSET_BITS) - 1);
    uint64_t from = 0, to = opened->count; /* the first entry >= low lies in [from, to] */
    uint64_t near[NEAR_ENTRIES];
    while (to - from > NEAR_ENTRIES / 2) {
        uint64_t middle = from + (to - from) / 2;
        enum error error = read_entries(opened, middle, near, 1);
        if (error != ERROR_NONE) {
            return error;
        }
        if (near[0] < low) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    while (from < opened->count) {
        uint64_t rest = opened->count - from;
        size_t some = rest < NEAR_ENTRIES ? (size_t)rest : NEAR_ENTRIES;
        enum error error = read_entries(opened, from, near, some);
        if (error != ERROR_NONE) {
            return error;
        }
        for (size_t i = 0; i < some; i++) {
            if (near[i] > high) {
                return ERROR_NONE;
            }
            if (near[i] >= low) {
                uint64_t offset = (near[i] - low) * 4;
                buffer_append(offsets, slice_make(&offset, sizeof(offset)));
            }
        }
        from += some;
    }
    return ERROR_NONE;
}

enum error events_index_find(struct disk *disk, uint64_t number, const uint64_t *hashes,
                             size_t count, uint64_t **ret_offsets, size_t *ret_count)
{
    struct opened opened;
    enum error error = open_index(disk, number, &opened);
    if (error != ERROR_NONE) {
        return error;
    }
    struct buffer offsets;
    buffer_init(&offsets, (size_t)MATCHES_MAX * sizeof(uint64_t));
    for (size_t i = 0; error == ERROR_NONE && i < count; i++) {
        error = find_one(&opened, hashes[i], &offsets);
    }
    disk->ops->close(opened.file);
    if (error != ERROR_NONE) {
        buffer_done(&offsets);
        return error;
    }
    uint64_t *found = (uint64_t *)(void *)offsets.data;
    size_t found_count = offsets.length / sizeof(uint64_t);
    if (found_count > 1) {
        qsort(found, found_count, sizeof(*found), compare);
    }
    size_t kept = 0;
    for (size_t i = 0; i < found_count; i++) {
        if (kept == 0 || found[kept - 1] != found[i]) {
            found[kept++] = found[i];
        }
    }
    *ret_offsets = found;
    *ret_count = kept;
    return ERROR_NONE;
}
