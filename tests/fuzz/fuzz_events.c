/* SPDX-License-Identifier: Apache-2.0
 *
 * The event journal as it may stand on the disk: one record's payload, a file of records with some
 * damage, and a file beside an index of any bytes. The first byte chooses.
 */
#include "base/crc32c.h"
#include "service/events_internal.h"
#include "sim/disk_sim.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NUMBER = 1, HASHES = 3 };

/* ---- one payload ----------------------------------------------------------------------------- */

/* What is understood can be written, and means the same then. */
static void decode(struct slice payload)
{
    struct arena arena;
    struct event event, again;
    arena_init(&arena);
    if (event_decode(payload, &arena, &event)) {
        struct buffer record;
        buffer_init(&record, 0);
        event_encode(&record, &event);
        assert(!record.failed && record.length % 4 == 0);
        assert(event_decode(slice_skip(buffer_slice(&record), EVENTS_RECORD_HEAD), &arena, &again));
        assert(again.kind == event.kind && id_equal(again.id, event.id));
        assert(again.time_ms == event.time_ms && again.bytes == event.bytes);
        assert(again.recipient_count <= event.recipient_count);
        assert(slice_equal(again.reason, slice_take(event.reason, 4096)));
        assert(slice_equal(again.reply, slice_take(event.reply, 4096)));
        assert(slice_equal(again.to,
                           event.subject.length > 0 ? slice_take(event.to, 4096) : SLICE_EMPTY));
        assert(event_kind_text(event.kind)[0] != '\0');
        buffer_done(&record);
    }
    arena_done(&arena);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void put_file(struct disk *disk, bool index, struct slice bytes)
{
    char name[EVENTS_NAME_SIZE];
    struct disk_file *file;
    events_file_name(name, NUMBER, index);
    enum error error = disk->ops->open(disk, name, DISK_WRITE | DISK_CREATE, &file);
    assert(error == ERROR_NONE);
    error = disk->ops->write(file, 0, bytes);
    assert(error == ERROR_NONE);
    disk->ops->close(file);
}

/* Records cut out of the input: length, payload; an odd length stands without a head. */
static void put_records(struct buffer *file, struct slice input)
{
    struct reader reader = reader_make(input);
    buffer_append_text(file, "HFEVENT1");
    buffer_append(file, slice_make((const uint8_t[24]){7}, 24));
    while (reader.rest.length > 0 && !reader.failed) {
        size_t length = reader_u16(&reader);
        struct slice payload = reader_take(&reader, length % (reader.rest.length + 1));
        if (length % 2 == 0) {
            uint8_t head[4];
            for (int i = 0; i < 4; i++) {
                head[i] = (uint8_t)(payload.length >> (8 * i));
            }
            buffer_put_u32(file, EVENTS_RECORD_MAGIC);
            buffer_append(file, slice_make(head, 4));
            buffer_put_u32(file, crc32c(crc32c(0, slice_make(head, 4)), payload));
        }
        buffer_append(file, payload);
        buffer_append(file, slice_make((const uint8_t[4]){0}, (4 - payload.length % 4) % 4));
    }
}

struct seen {
    struct disk_file *file;
    uint64_t end, count;
};

/* Found from end to end is found alone, too. */
static void on_record(void *context, uint64_t offset, struct slice payload)
{
    struct seen *seen = context;
    struct buffer buffer;
    struct slice alone;
    buffer_init(&buffer, 0);
    enum error error = events_read_record(seen->file, offset, seen->end, &buffer, &alone);
    assert(error == ERROR_NONE && slice_equal(alone, payload));
    buffer_done(&buffer);
    seen->count++;
}

static void count_record(void *context, uint64_t offset, struct slice payload)
{
    (void)offset;
    assert(payload.length > 0);
    ++*(uint64_t *)context;
}

static void scan(struct disk *disk, struct slice bytes)
{
    char name[EVENTS_NAME_SIZE];
    events_file_name(name, NUMBER, false);
    struct seen seen = {.end = bytes.length};
    enum error error = disk->ops->open(disk, name, DISK_READ, &seen.file);
    assert(error == ERROR_NONE);
    error = events_scan(seen.file, EVENTS_FILE_HEAD, seen.end, on_record, &seen);
    assert(error == ERROR_NONE);
    uint64_t in_memory = 0;
    events_scan_memory(slice_skip(bytes, EVENTS_FILE_HEAD), count_record, &in_memory);
    assert(in_memory == seen.count);
    disk->ops->close(seen.file);
}

static void find(struct disk *disk, uint64_t end)
{
    struct hash_key key;
    char name[EVENTS_NAME_SIZE];
    struct disk_file *file;
    events_file_name(name, NUMBER, false);
    enum error error = disk->ops->open(disk, name, DISK_READ, &file);
    assert(error == ERROR_NONE);
    error = events_read_key(file, &key);
    assert(error == ERROR_NONE);
    const uint64_t hashes[HASHES] = {events_hash_id(key, (struct message_id){0}),
                                     events_hash_text(key, SLICE_LITERAL("A@b.example")), 0};
    uint64_t *offsets;
    size_t count;
    if (events_index_find(disk, NUMBER, hashes, HASHES, &offsets, &count) == ERROR_NONE) {
        struct buffer buffer;
        buffer_init(&buffer, 0);
        for (size_t i = 0; i < count; i++) {
            struct slice payload;
            assert(i == 0 || offsets[i] > offsets[i - 1]);
            (void)!events_read_record(file, offsets[i], end, &buffer, &payload);
        }
        buffer_done(&buffer);
        free(offsets);
    }
    disk->ops->close(file);
}

static void look_at_files(struct slice input, bool any_index)
{
    struct reader reader = reader_make(input);
    uint32_t at = reader_u32(&reader);
    uint8_t damage = reader_u8(&reader);
    struct slice index = any_index ? reader_bytes(&reader) : SLICE_EMPTY;
    struct disk_sim *sim = disk_sim_new();
    struct disk *disk = disk_sim_open(sim);
    struct buffer file, entries;
    buffer_init(&file, 0);
    buffer_init(&entries, 0);
    put_records(&file, reader.rest);
    if (file.length > EVENTS_FILE_HEAD) {
        file.data[EVENTS_FILE_HEAD + at % (file.length - EVENTS_FILE_HEAD)] ^= damage;
    }
    put_file(disk, false, buffer_slice(&file));
    scan(disk, buffer_slice(&file));
    int64_t last_ms;
    if (any_index) {
        buffer_append_text(&entries, "HFINDEX2");
        buffer_put_u64(&entries, index.length / 8);
        buffer_append(&entries, slice_make((const uint8_t[16]){0}, 16));
        buffer_put_u64(&entries, crc32c(0, index));
        buffer_append(&entries, index);
        put_file(disk, true, buffer_slice(&entries));
        assert(events_index_check(disk, NUMBER, true, &last_ms) == (index.length % 8 == 0));
        find(disk, file.length);
    }
    enum error error = events_index_write(disk, NUMBER, &last_ms);
    assert(error == ERROR_NONE);
    assert(events_index_check(disk, NUMBER, true, &last_ms));
    find(disk, file.length);
    buffer_done(&file);
    buffer_done(&entries);
    disk_free(disk);
    assert(disk_sim_open_files(sim) == 0);
    disk_sim_free(sim);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct slice rest = slice_make(data + 1, size - 1);
    if (data[0] % 3 == 0) {
        decode(rest);
    } else {
        look_at_files(rest, data[0] % 3 == 2);
    }
    return 0;
}
