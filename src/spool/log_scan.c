/* SPDX-License-Identifier: Apache-2.0
 *
 * Twice over the segment: first to find where it ends, then to take what stands before.
 *
 * The end. Groups follow each other; each commit record says up to where the segment had been
 * synced when it was written. Whatever lies before the highest such place (or before a known end)
 * was on stable storage: damage there is damage, and costs the damaged records. The first group
 * after it that is not complete ends the journal, because what follows was written without a sync
 * in between, and a later batch must not be loaded without an earlier one.
 */
#include "spool/log_scan.h"

#include "base/crc32c.h"

#include <assert.h>

struct walk {
    struct log_scan *scan;
    struct slice bytes;
    struct arena arena;
    bool taking; /* the second time */
    enum error error;
};

struct walked_group {
    uint32_t start, end; /* the next group may start at `end` */
    bool complete;
    uint32_t synced_end; /* by its commit record, if that is valid */
};

static bool decode_at(const struct walk *walk, uint32_t at, struct log_record *ret_record)
{
    return at + LOG_RECORD_HEADER <= walk->bytes.length &&
           log_record_decode(walk->bytes.data + at, walk->scan->nonce, at, ret_record) &&
           ret_record->length <= walk->bytes.length - at - LOG_RECORD_HEADER;
}

/* The next place from `at` on where a valid record header stands; the end if there is none. */
static uint32_t seek(const struct walk *walk, uint32_t at, struct log_record *ret_record)
{
    at = (uint32_t)log_align(at, LOG_RECORD_ALIGN);
    while (at + LOG_RECORD_HEADER <= walk->bytes.length && !decode_at(walk, at, ret_record)) {
        at += LOG_RECORD_ALIGN;
    }
    return at + LOG_RECORD_HEADER <= walk->bytes.length ? at : (uint32_t)walk->bytes.length;
}

static void lose(struct walk *walk, uint32_t from, uint32_t to, bool cut, const char *what)
{
    if ((walk->taking || cut) && walk->scan->damage != NULL && from < to) {
        walk->scan->damage(walk->scan->context, from, to, cut, what);
    }
}

/* ---- taking a record --------------------------------------------------------------------- */

static void index_message(struct walk *walk, const struct log_record *record, struct slice payload)
{
    struct log_message message;
    arena_reset(&walk->arena);
    enum error error = log_get_message(payload, &walk->arena, &message);
    if (error == ERROR_MEMORY) {
        walk->error = error;
        return;
    }
    if (error != ERROR_NONE) {
        lose(walk, record->offset, record->offset + (uint32_t)log_record_space(record->length),
             false, "a message record breaks its grammar");
        return;
    }
    if (message.message.sequence >= walk->scan->next_sequence) {
        walk->scan->next_sequence = message.message.sequence + 1;
    }
    if (walk->scan->index == NULL) {
        return;
    }
    uint64_t *foreign = arena_allocate(&walk->arena, message.piece_count * 8 + 1);
    if (foreign == NULL) {
        walk->error = ERROR_MEMORY;
        return;
    }
    message.place.foreign = foreign;
    for (size_t i = 0; i < message.piece_count; i++) {
        const struct log_piece *piece = &message.pieces[i];
        uint32_t count = message.place.foreign_count;
        if (piece->kind == LOG_FILE) {
            message.place.file = piece->where;
        } else if (piece->kind == LOG_FAR && (count == 0 || foreign[count - 1] != piece->where)) {
            foreign[message.place.foreign_count++] = piece->where;
        }
    }
    size_t entry = log_entry_begin(walk->scan->index);
    log_put_message_index(walk->scan->index, &message.message, &message.place);
    log_entry_end(walk->scan->index, entry, LOG_MESSAGE, record->flags, record->offset);
}

static void take(struct walk *walk, const struct log_record *record, struct slice payload)
{
    if (!walk->taking) {
        return;
    }
    walk->scan->records++;
    if (walk->scan->record != NULL) {
        walk->scan->record(walk->scan->context, record, payload);
    }
    if (record->type == LOG_MESSAGE) {
        index_message(walk, record, payload);
    } else if (walk->scan->index != NULL && record->type >= LOG_FATE &&
               record->type <= LOG_NOTES_RESET) {
        log_entry_put(walk->scan->index, (enum log_type)record->type, record->flags, record->offset,
                      payload);
    }
    if (walk->scan->index != NULL && walk->scan->index->failed) {
        walk->error = ERROR_MEMORY;
    }
}

/* ---- walking ----------------------------------------------------------------------------- */

struct group_state {
    uint32_t count, crc;
    bool damaged;
};

/* A commit record ends the group; whether it is complete shows. */
static bool end_group(const struct log_record *record, struct slice payload,
                      const struct group_state *state, struct walked_group *group)
{
    struct log_commit commit;
    if (record->type != LOG_COMMIT || !log_commit_decode(payload, &commit)) {
        return false;
    }
    group->end =
        (uint32_t)log_align(record->offset + log_record_space(record->length), LOG_GROUP_ALIGN);
    group->synced_end = commit.synced_end;
    group->complete = !state->damaged && commit.group == group->start &&
                      commit.count == state->count && commit.crc == state->crc;
    return true;
}

static uint32_t crc_add(uint32_t crc, uint32_t header_crc)
{
    uint8_t bytes[4] = {(uint8_t)header_crc, (uint8_t)(header_crc >> 8),
                        (uint8_t)(header_crc >> 16), (uint8_t)(header_crc >> 24)};
    return crc32c(crc, slice_make(bytes, 4));
}

static void walk_group(struct walk *walk, uint32_t start, struct walked_group *ret_group)
{
    struct group_state state = {0};
    uint32_t at = start;
    *ret_group = (struct walked_group){.start = start};
    for (;;) {
        struct log_record record;
        if (!decode_at(walk, at, &record) || record.group != start) {
            uint32_t next = seek(walk, at, &record);
            state.damaged = true;
            if (next == walk->bytes.length || record.group != start) {
                /* Its commit record is lost; the next group starts where that one says. A record
                 * without the start of its group is no use. */
                ret_group->end = next;
                if (next < walk->bytes.length) {
                    ret_group->end = record.group >= at && record.group > start
                                         ? record.group
                                         : next + (uint32_t)log_record_space(record.length);
                }
                lose(walk, at, ret_group->end, false, "no valid record");
                return;
            }
            lose(walk, at, next, false, "no valid record");
            at = next;
            continue;
        }
        struct slice payload = slice_make(walk->bytes.data + at + LOG_RECORD_HEADER, record.length);
        uint32_t after = at + (uint32_t)log_record_space(record.length);
        if (crc32c(0, payload) != record.payload_crc) {
            state.damaged = true;
            lose(walk, at, after, false, "the checksum is wrong");
        } else if (end_group(&record, payload, &state, ret_group)) {
            return;
        } else {
            take(walk, &record, payload);
        }
        state.count++;
        state.crc = crc_add(state.crc, record.header_crc);
        at = after;
    }
}

/* Only starts of groups that are not complete need be remembered, and they are few. */
static void find_end(struct walk *walk)
{
    struct log_scan *scan = walk->scan;
    struct buffer broken;
    buffer_init(&broken, 0);
    uint32_t trusted = LOG_DATA_AT, good_end = LOG_DATA_AT;
    uint32_t at = LOG_DATA_AT, expected = LOG_DATA_AT;
    struct log_record record;
    while ((at = seek(walk, at, &record)) < walk->bytes.length) {
        /* Damage may have eaten the start, or whole groups. */
        uint32_t start = record.group <= at && record.group >= expected ? record.group : at;
        struct walked_group group;
        if (start != expected) {
            buffer_append(&broken, slice_make(&expected, sizeof(expected)));
        }
        walk_group(walk, start, &group);
        if (group.synced_end > trusted && group.synced_end <= group.start) {
            trusted = group.synced_end;
        }
        if (group.complete) {
            good_end = group.end;
        } else {
            buffer_append(&broken, slice_make(&group.start, sizeof(group.start)));
        }
        at = expected = group.end > at ? group.end : at + LOG_RECORD_ALIGN;
    }
    scan->end = good_end;
    const uint32_t *starts = (const void *)broken.data;
    for (size_t i = 0; i < broken.length / sizeof(*starts); i++) {
        if (starts[i] >= trusted) {
            scan->end = starts[i] < scan->end ? starts[i] : scan->end;
            break;
        }
    }
    if (broken.failed) {
        walk->error = ERROR_MEMORY;
    }
    if (at > scan->end && seek(walk, scan->end, &record) < walk->bytes.length) {
        lose(walk, scan->end, (uint32_t)walk->bytes.length, true, "cut after the last group");
    }
    buffer_done(&broken);
}

enum error log_scan(struct log_scan *scan, struct slice bytes)
{
    struct walk walk = {.scan = scan, .bytes = slice_take(bytes, UINT32_MAX - LOG_BLOCK)};
    arena_init(&walk.arena);
    scan->records = scan->groups = scan->next_sequence = 0;
    scan->last_group = 0;
    if (scan->known_end != 0) {
        scan->end = scan->known_end;
    } else {
        find_end(&walk);
    }
    walk.taking = true;
    walk.bytes = slice_take(walk.bytes, scan->end);
    uint32_t at = LOG_DATA_AT;
    while (at < walk.bytes.length && walk.error == ERROR_NONE) {
        struct walked_group group;
        walk_group(&walk, at, &group);
        scan->groups++;
        scan->last_group = group.start;
        assert(group.end > at);
        at = group.end;
    }
    if (walk.error == ERROR_NONE && bytes.length < scan->end) {
        lose(&walk, (uint32_t)bytes.length, scan->end, false, "the file is too short");
    }
    arena_done(&walk.arena);
    return walk.error;
}
