/* SPDX-License-Identifier: Apache-2.0
 *
 * What only the log back-end promises: reading by ticket, damage, versions, bounded disk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sim/disk_sim.h"
#include "spool/log_scan.h"
#include "spool/reader.h"
#include "spool/verify.h"
#include "tests/spool/harness.h"

#include <stdio.h>
#include <stdlib.h>

static struct disk *open_sim(struct harness *harness)
{
    return disk_sim_open(harness->context);
}

static void open_with(struct harness *harness, uint32_t segment_bytes)
{
    struct disk_sim *sim = disk_sim_new();
    *harness = (struct harness){.make_disk = open_sim, .context = sim};
    spool_settings_default(&harness->settings);
    harness->settings.segment_bytes = segment_bytes;
    harness->settings.large_bytes = 256 << 10;
    harness->settings.reserve_bytes = 1;
    harness->settings.ready_segments = 1;
    harness_open(harness, HARNESS_LOG);
}

static void done_with(struct harness *harness)
{
    harness_done(harness);
    disk_sim_free(harness->context);
}

/* The disk as a sudden death of the process leaves it: all written, nothing closed. */
static struct disk_sim *record_and_kill(struct harness *harness, struct disk_sim *recorded)
{
    struct disk_replay *replay = disk_replay_new(recorded, false);
    uint64_t mark;
    while (disk_replay_step(replay, &mark) && mark != 99) {
    }
    struct disk_sim *sim = disk_replay_crash(replay, 1);
    disk_replay_free(replay);
    (void)harness;
    return sim;
}

/* ---- reading by ticket ------------------------------------------------------------------- */

static void read_by_ticket(struct harness *harness, struct spool_reader *reader, uint64_t n,
                           size_t length, size_t part)
{
    struct spool_handle handle = spool_find(harness->spool, harness_id(n));
    uint8_t ticket[SPOOL_TICKET_MAX];
    size_t ticket_length, got;
    struct arena arena;
    struct spool_message message, want;
    struct spool_stored *stored;
    struct buffer content;
    arena_init(&arena);
    harness_content(n, length, &content);
    harness_message(n, &arena, &want);
    assert_int_equal(spool_ticket(harness->spool, handle, ticket, &ticket_length), ERROR_NONE);
    assert_int_equal(
        spool_stored_open(reader, slice_make(ticket, ticket_length), &arena, &message, &stored),
        ERROR_NONE);
    assert_true(id_equal(message.id, want.id));
    assert_true(slice_equal(message.envelope_id, want.envelope_id));
    assert_int_equal(message.recipient_count, want.recipient_count);
    uint8_t *bytes = malloc(part);
    for (size_t at = 0; at < length; at += got) {
        assert_int_equal(spool_stored_read(stored, at, bytes, part, &got), ERROR_NONE);
        assert_true(got > 0);
        assert_memory_equal(bytes, content.data + at, got);
    }
    assert_int_equal(spool_stored_read(stored, length, bytes, part, &got), ERROR_NONE);
    assert_int_equal(got, 0);
    spool_stored_close(stored);
    ticket[30] ^= 1; /* another message's id */
    assert_int_equal(
        spool_stored_open(reader, slice_make(ticket, ticket_length), &arena, &message, &stored),
        ERROR_CORRUPT);
    free(bytes);
    buffer_done(&content);
    arena_done(&arena);
}

static void a_ticket_gives_envelope_and_content(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 4096, 65536, 100000, 262145, 900000};
    struct harness harness;
    struct spool_reader *reader;
    open_with(&harness, 1 << 20);
    assert_int_equal(spool_reader_open_log(disk_sim_open(harness.context), &reader), ERROR_NONE);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        harness_accept(&harness, i, lengths[i]);
        read_by_ticket(&harness, reader, i, lengths[i], 65536);
        read_by_ticket(&harness, reader, i, lengths[i], 9973);
    }
    spool_reader_close(reader);
    done_with(&harness);
}

static void set_segment(struct disk_sim *sim, const char *name, uint64_t at)
{
    assert_true(disk_sim_flip(sim, name, at, 3));
}

struct newest {
    char name[40];
    uint64_t size;
};

static void take_newest(void *context, const char *name, uint64_t size)
{
    struct newest *newest = context;
    if (strncmp(name, "segment-", 8) == 0 && strcmp(name, newest->name) > 0) {
        strcpy(newest->name, name);
        newest->size = size;
    }
}

static struct newest newest_segment(struct disk_sim *sim)
{
    struct newest newest = {0};
    struct disk *disk = disk_sim_open(sim);
    assert_int_equal(disk->ops->list(disk, take_newest, &newest), ERROR_NONE);
    disk_free(disk);
    return newest;
}

static void damaged_content_is_never_read_to_its_end(void **state)
{
    (void)state;
    enum { LENGTH = 30000 };
    struct harness harness;
    struct spool_reader *reader;
    struct arena arena;
    struct spool_message message;
    struct spool_stored *stored;
    uint8_t ticket[SPOOL_TICKET_MAX], bytes[1000];
    size_t length, got;
    open_with(&harness, 1 << 20);
    struct spool_handle handle = harness_accept(&harness, 1, LENGTH);
    set_segment(harness.context, newest_segment(harness.context).name, LOG_DATA_AT + 15000);
    assert_int_equal(spool_reader_open_log(disk_sim_open(harness.context), &reader), ERROR_NONE);
    arena_init(&arena);
    assert_int_equal(spool_ticket(harness.spool, handle, ticket, &length), ERROR_NONE);
    assert_int_equal(
        spool_stored_open(reader, slice_make(ticket, length), &arena, &message, &stored),
        ERROR_NONE);
    enum error error = ERROR_NONE;
    size_t at = 0;
    while (error == ERROR_NONE && at < LENGTH) {
        error = spool_stored_read(stored, at, bytes, sizeof(bytes), &got);
        at += got;
    }
    assert_int_equal(error, ERROR_CORRUPT);
    assert_true(at < LENGTH);
    spool_stored_close(stored);
    spool_reader_close(reader);
    arena_done(&arena);
    done_with(&harness);
}

/* ---- damage ------------------------------------------------------------------------------ */

static struct disk_sim *killed_with_messages(unsigned count, size_t length)
{
    struct harness harness = {.make_disk = open_sim, .context = disk_sim_new()};
    disk_sim_record(harness.context);
    spool_settings_default(&harness.settings);
    harness.settings.segment_bytes = 256 << 10;
    harness.settings.reserve_bytes = 1;
    harness.settings.ready_segments = 0;
    harness_open(&harness, HARNESS_LOG);
    for (unsigned n = 0; n < count; n++) {
        harness_accept(&harness, n, length);
    }
    disk_sim_mark(harness.context, 99);
    spool_close(harness.spool);
    harness.spool = NULL;
    struct disk_sim *killed = record_and_kill(&harness, harness.context);
    loop_free(harness.loop);
    buffer_done(&harness.loaded);
    disk_sim_free(harness.context);
    return killed;
}

static void open_killed(struct harness *harness, struct disk_sim *sim)
{
    *harness = (struct harness){.kind = HARNESS_LOG, .make_disk = open_sim, .context = sim};
    spool_settings_default(&harness->settings);
    harness->settings.segment_bytes = 256 << 10;
    harness->settings.reserve_bytes = 1;
    harness->settings.ready_segments = 0;
    harness->loop = loop_new();
    assert_int_equal(harness_try_open(harness), ERROR_NONE);
    harness_load(harness);
}

static struct buffer read_segment(struct disk_sim *sim, const char *name)
{
    struct buffer bytes;
    struct disk *disk = disk_sim_open(sim);
    struct disk_file *file;
    uint64_t size;
    buffer_init(&bytes, 0);
    assert_int_equal(disk->ops->open(disk, name, DISK_READ, &file), ERROR_NONE);
    assert_int_equal(disk->ops->size(file, &size), ERROR_NONE);
    assert_int_equal(buffer_reserve(&bytes, size), ERROR_NONE);
    bytes.length = size;
    assert_int_equal(disk->ops->read(file, 0, bytes.data, size), ERROR_NONE);
    disk->ops->close(file);
    disk_free(disk);
    return bytes;
}

static struct log_scan scan_all(struct slice bytes, uint64_t nonce, struct buffer *index)
{
    struct log_scan scan = {.nonce = nonce, .index = index};
    buffer_clear(index);
    assert_int_equal(log_scan(&scan, bytes), ERROR_NONE);
    return scan;
}

/* Each entry of the one is an entry of the other, in order. */
static size_t entries_in(struct slice part, struct slice whole)
{
    struct log_entry entry, candidate;
    size_t at = 0, from = 0, count = 0;
    bool sound;
    while (log_entry_next(part, &at, &entry, &sound)) {
        do {
            assert_true(log_entry_next(whole, &from, &candidate, &sound));
        } while (candidate.offset != entry.offset);
        assert_true(slice_equal(candidate.payload, entry.payload));
        count++;
    }
    return count;
}

static void no_torn_or_flipped_byte_makes_a_wrong_message(void **state)
{
    (void)state;
    struct disk_sim *sim = killed_with_messages(40, 1100);
    struct newest newest = newest_segment(sim);
    struct buffer bytes = read_segment(sim, newest.name), whole, index;
    struct log_header header;
    buffer_init(&whole, 0);
    buffer_init(&index, 0);
    assert_int_equal(log_header_decode(bytes.data, &header), ERROR_NONE);
    struct log_scan good = scan_all(buffer_slice(&bytes), header.nonce, &whole);
    assert_true(good.end > LOG_DATA_AT + (60 << 10));
    size_t all = entries_in(buffer_slice(&whole), buffer_slice(&whole));
    size_t before = 0;
    uint8_t *copy = malloc(good.end);
    uint32_t step = 1;
    for (uint32_t at = good.end; at-- > good.end - (64 << 10);) {
        /* Cut at this byte: a torn append. */
        struct log_scan torn = scan_all(slice_make(bytes.data, at), header.nonce, &index);
        size_t count = entries_in(buffer_slice(&index), buffer_slice(&whole));
        assert_true(torn.end <= log_align(at, LOG_GROUP_ALIGN));
        assert_true(count <= all && (before == 0 || count <= before));
        before = count;
        if (at % step != 0) {
            continue;
        }
        /* One bit flipped: what is lost is a record, or what follows the last synced group. */
        memcpy(copy, bytes.data, good.end);
        copy[at] ^= (uint8_t)(1u << at % 8);
        scan_all(slice_make(copy, good.end), header.nonce, &index);
        count = entries_in(buffer_slice(&index), buffer_slice(&whole));
        assert_true(count + 2 >= all);
        step = 7;
    }
    free(copy);
    buffer_done(&bytes);
    buffer_done(&whole);
    buffer_done(&index);
    disk_sim_free(sim);
}

static void damage_in_the_middle_costs_one_record(void **state)
{
    (void)state;
    struct disk_sim *sim = killed_with_messages(40, 1000);
    struct newest newest = newest_segment(sim);
    struct buffer bytes = read_segment(sim, newest.name);
    struct log_record record;
    struct log_header header;
    assert_int_equal(log_header_decode(bytes.data, &header), ERROR_NONE);
    /* The tenth message record. */
    uint32_t at = LOG_DATA_AT;
    for (unsigned found = 0; found < 10; at += LOG_RECORD_ALIGN) {
        if (log_record_decode(bytes.data + at, header.nonce, at, &record) &&
            record.type == LOG_MESSAGE) {
            found++;
        }
    }
    assert_true(disk_sim_flip(sim, newest.name, record.offset + LOG_RECORD_HEADER + 20, 5));
    struct harness harness;
    open_killed(&harness, sim);
    assert_int_equal(harness.messages, 39);
    assert_int_equal(harness.damages, 1);
    struct spool_state status;
    spool_status(harness.spool, &status);
    assert_int_equal(status.quarantined, 1);
    harness_settle(&harness);
    harness_reopen(&harness);
    assert_int_equal(harness.messages, 39);
    done_with(&harness);
    buffer_done(&bytes);
}

static void a_damaged_index_is_made_anew(void **state)
{
    (void)state;
    struct harness harness;
    open_with(&harness, 1 << 20);
    for (uint64_t n = 0; n < 10; n++) {
        harness_accept(&harness, n, 100);
    }
    spool_close(harness.spool);
    struct newest newest = newest_segment(harness.context);
    assert_true(disk_sim_flip(harness.context, newest.name, newest.size - 4000, 1));
    assert_int_equal(harness_try_open(&harness), ERROR_NONE);
    harness_load(&harness);
    assert_int_equal(harness.messages, 10);
    done_with(&harness);
}

static void either_copy_of_the_header_will_do(void **state)
{
    (void)state;
    for (uint64_t copy = 0; copy < 2; copy++) {
        struct disk_sim *sim = killed_with_messages(5, 100);
        assert_true(disk_sim_flip(sim, newest_segment(sim).name, copy * LOG_BLOCK + 100, 1));
        struct harness harness;
        open_killed(&harness, sim);
        assert_int_equal(harness.messages, 5);
        done_with(&harness);
    }
}

static void a_newer_journal_is_not_touched(void **state)
{
    (void)state;
    struct disk_sim *sim = killed_with_messages(5, 100);
    char name[40];
    strcpy(name, newest_segment(sim).name);
    for (uint64_t copy = 0; copy < 2; copy++) {
        assert_true(disk_sim_flip(sim, name, copy * LOG_BLOCK + 8, 1)); /* version 1 to 3 */
    }
    struct harness harness = {.make_disk = open_sim, .context = sim, .kind = HARNESS_LOG};
    spool_settings_default(&harness.settings);
    harness.loop = loop_new();
    uint64_t changes = disk_sim_changes(sim);
    assert_int_equal(harness_try_open(&harness), ERROR_NEWER);
    assert_int_equal(disk_sim_changes(sim), changes);
    struct disk *disk = disk_sim_open(sim);
    struct spool_verify_report report;
    assert_int_equal(spool_verify(disk, NULL, NULL, NULL, &report), ERROR_NEWER);
    disk_free(disk);
    loop_free(harness.loop);
    disk_sim_free(sim);
}

/* ---- the offline check ------------------------------------------------------------------- */

static void count_line(void *context, const char *text)
{
    (void)text;
    ++*(unsigned *)context;
}

static struct spool_verify_report verify(struct disk_sim *sim, unsigned *ret_lines)
{
    struct spool_verify_report report;
    struct disk *disk = disk_sim_open(sim);
    uint64_t changes = disk_sim_changes(sim);
    *ret_lines = 0;
    assert_int_equal(spool_verify(disk, count_line, NULL, ret_lines, &report), ERROR_NONE);
    assert_int_equal(disk_sim_changes(sim), changes);
    disk_free(disk);
    return report;
}

static void the_offline_check_tells_what_is_there(void **state)
{
    (void)state;
    struct harness harness;
    unsigned lines;
    open_with(&harness, 1 << 20);
    for (uint64_t n = 0; n < 30; n++) {
        struct spool_handle handle = harness_accept(&harness, n * 3, n == 7 ? 400000 : 2000);
        if (n % 3 == 0) {
            harness_finish(&harness, handle, 0);
        }
    }
    spool_close(harness.spool);
    struct spool_verify_report report = verify(harness.context, &lines);
    assert_int_equal(report.messages, 30);
    assert_int_equal(report.unfinished_messages, 20);
    assert_int_equal(report.fates, 10);
    assert_int_equal(report.content_files, 1);
    assert_int_equal(report.orphan_content_files + report.damaged_records, 0);
    assert_int_equal(report.missing_contents, 0);
    assert_int_equal(lines, 0);
    /* The sixth message's content. */
    assert_true(disk_sim_flip(harness.context, newest_segment(harness.context).name,
                              LOG_DATA_AT + 512 + 5 * 2560 + 5 * 512 - 512 * 3, 1));
    report = verify(harness.context, &lines);
    assert_true(report.damaged_records > 0 && lines > 0);
    assert_int_equal(harness_try_open(&harness), ERROR_NONE);
    done_with(&harness);
}

static void the_offline_check_needs_a_journal(void **state)
{
    (void)state;
    struct disk_sim *sim = disk_sim_new();
    struct disk *disk = disk_sim_open(sim);
    struct spool_verify_report report;
    assert_int_equal(spool_verify(disk, NULL, NULL, NULL, &report), ERROR_MISSING);
    disk_free(disk);
    disk_sim_free(sim);
}

/* ---- room -------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MANY = 30000 };
#else
enum { MANY = 1000000 };
#endif

struct flood {
    struct harness *harness;
    uint64_t next;
    struct spool_handle handles[1000];
    size_t count;
};

static void flood_told(void *context, enum error error, const struct spool_handle *handles,
                       size_t count)
{
    struct flood *flood = context;
    assert_int_equal(error, ERROR_NONE);
    memcpy(flood->handles, handles, count * sizeof(*handles));
    flood->count = count;
    loop_stop(flood->harness->loop);
}

/* A thousand messages in one batch, which also ends the thousand before. */
static void flood_once(struct flood *flood)
{
    struct spool *spool = flood->harness->spool;
    struct spool_recipient recipient = {.address = SLICE_LITERAL("someone@example.com")};
    spool_batch_begin(spool);
    for (size_t i = 0; i < flood->count; i++) {
        spool_batch_fate(spool, flood->handles[i], 0, SPOOL_DELIVERED);
    }
    for (int i = 0; i < 1000; i++) {
        struct spool_message message = {.id = {1, ++flood->next},
                                        .body_length = 20,
                                        .sender = SLICE_LITERAL("sender@example.org"),
                                        .recipients = &recipient,
                                        .recipient_count = 1};
        assert_int_equal(
            spool_batch_message(spool, &message, NULL, SLICE_LITERAL("twenty octets of it.")),
            ERROR_NONE);
    }
    spool_batch_submit(spool, SPOOL_SYNCED, flood_told, flood);
    loop_run(flood->harness->loop);
}

static void one_survivor_does_not_hold_the_disk(void **state)
{
    (void)state;
    enum { LIMIT = 100 << 20 };
    struct harness harness;
    open_with(&harness, 4 << 20);
    harness_accept(&harness, 42, 1000);
    struct flood flood = {.harness = &harness};
    uint64_t most = 0;
    size_t most_files = 0;
    while (flood.next < MANY) {
        flood_once(&flood);
        if (flood.next % 10000 == 0) {
            spool_tick(harness.spool);
            /* On a busy machine the janitor may lag behind so fast a disk: it is waited for. */
            for (int i = 0; i < 5000 && disk_sim_used(harness.context) > LIMIT; i++) {
                harness_pass(&harness, 1);
                spool_tick(harness.spool);
            }
            uint64_t used = disk_sim_used(harness.context);
            size_t files = disk_sim_open_files(harness.context);
            most = used > most ? used : most;
            most_files = files > most_files ? files : most_files;
        }
    }
    assert_true(most <= LIMIT);
    assert_true(most_files < 24);
    spool_batch_begin(harness.spool);
    for (size_t i = 0; i < flood.count; i++) {
        spool_batch_fate(harness.spool, flood.handles[i], 0, SPOOL_DELIVERED);
    }
    assert_int_equal(harness_submit(&harness, SPOOL_SYNCED), ERROR_NONE);
    for (int i = 0; i < 20; i++) {
        harness_settle(&harness);
        harness_pass(&harness, 1);
    }
    harness_reopen(&harness);
    assert_int_equal(harness.messages, 1); /* nothing is delivered again */
    assert_int_equal(harness.damages, 0);
    harness_check(&harness, 42, 1000);
    for (int i = 0; i < 5000 && disk_sim_used(harness.context) >= 64 << 20; i++) {
        harness_settle(&harness);
        harness_pass(&harness, 1);
    }
    assert_true(disk_sim_used(harness.context) < 64 << 20);
    done_with(&harness);
}

static void a_pinned_message_stays_where_its_ticket_says(void **state)
{
    (void)state;
    struct harness harness;
    struct spool_reader *reader;
    open_with(&harness, 1 << 20);
    struct spool_handle handle = harness_accept(&harness, 42, 1000);
    uint8_t before[SPOOL_TICKET_MAX], after[SPOOL_TICKET_MAX];
    size_t length;
    spool_pin(harness.spool, handle);
    assert_int_equal(spool_ticket(harness.spool, handle, before, &length), ERROR_NONE);
    struct flood flood = {.harness = &harness};
    for (int i = 0; i < 60; i++) {
        flood_once(&flood);
        spool_tick(harness.spool);
    }
    assert_int_equal(spool_ticket(harness.spool, handle, after, &length), ERROR_NONE);
    assert_memory_equal(before, after, length);
    assert_int_equal(spool_reader_open_log(disk_sim_open(harness.context), &reader), ERROR_NONE);
    read_by_ticket(&harness, reader, 42, 1000, 100);
    spool_unpin(harness.spool, handle);
    for (int i = 0; i < 60; i++) {
        flood_once(&flood);
        harness_pass(&harness, 1);
        spool_tick(harness.spool);
    }
    for (int i = 0; i < 2000 && memcmp(before, after, length) == 0; i++) {
        harness_pass(&harness, 1);
        spool_tick(harness.spool);
        assert_int_equal(spool_ticket(harness.spool, handle, after, &length), ERROR_NONE);
    }
    assert_int_equal(spool_ticket(harness.spool, handle, after, &length), ERROR_NONE);
    assert_memory_not_equal(before, after, length);
    read_by_ticket(&harness, reader, 42, 1000, 100);
    spool_reader_close(reader);
    done_with(&harness);
}

static void assert_good(struct disk_sim *sim, struct slice ticket)
{
    struct spool_reader *reader; /* a new one, which has nothing open */
    struct spool_stored *stored;
    struct spool_message message;
    struct arena arena;
    uint8_t bytes[1000];
    size_t length;
    arena_init(&arena);
    assert_int_equal(spool_reader_open_log(disk_sim_open(sim), &reader), ERROR_NONE);
    assert_int_equal(spool_stored_open(reader, ticket, &arena, &message, &stored), ERROR_NONE);
    assert_int_equal(spool_stored_read(stored, 0, bytes, sizeof(bytes), &length), ERROR_NONE);
    assert_int_equal(length, sizeof(bytes));
    spool_stored_close(stored);
    spool_reader_close(reader);
    arena_done(&arena);
}

/* Compaction has written a copy that is not durable yet, when somebody pins the message and gets a
 * ticket for the old place. */
static void a_ticket_outlives_a_move_under_way(void **state)
{
    (void)state;
    struct harness harness;
    open_with(&harness, 1 << 20);
    struct spool_handle handle = harness_accept(&harness, 42, 1000);
    uint8_t before[SPOOL_TICKET_MAX], after[SPOOL_TICKET_MAX];
    size_t length;
    struct flood flood = {.harness = &harness};
    bool moved = false;
    for (int i = 0; i < 2000 && !moved; i++) {
        flood_once(&flood);
        spool_tick(harness.spool);
        spool_pin(harness.spool, handle);
        assert_int_equal(spool_ticket(harness.spool, handle, before, &length), ERROR_NONE);
        harness_pass(&harness, 1);
        assert_int_equal(spool_ticket(harness.spool, handle, after, &length), ERROR_NONE);
        moved = memcmp(before, after, length) != 0;
        if (!moved) {
            spool_unpin(harness.spool, handle);
        }
    }
    assert_true(moved);
    for (int i = 0; i < 60; i++) {
        flood_once(&flood);
        spool_tick(harness.spool);
        harness_pass(&harness, 1);
        assert_good(harness.context, slice_make(before, length));
    }
    spool_unpin(harness.spool, handle);
    struct disk *disk = disk_sim_open(harness.context);
    struct disk_file *file;
    struct log_ticket old;
    char name[LOG_NAME_SIZE];
    assert_true(log_ticket_decode(slice_make(before, length), &old));
    log_name_make(LOG_NAME_SEGMENT, old.segment, name);
    enum error error = ERROR_NONE;
    for (int i = 0; i < 1000 && error == ERROR_NONE; i++) {
        spool_tick(harness.spool);
        harness_pass(&harness, 1);
        error = disk->ops->open(disk, name, DISK_READ, &file);
        if (error == ERROR_NONE) {
            disk->ops->close(file);
        }
    }
    assert_int_equal(error, ERROR_MISSING); /* and no longer */
    disk_free(disk);
    done_with(&harness);
}

static void a_full_disk_stops_acceptance_but_not_fates(void **state)
{
    (void)state;
    struct harness harness;
    open_with(&harness, 256 << 10);
    struct spool_handle handles[400];
    unsigned count = 0;
    struct arena arena;
    struct spool_message message;
    struct buffer content;
    arena_init(&arena);
    disk_sim_set_capacity(harness.context, 3 << 20);
    enum error error = ERROR_NONE;
    harness_content(1, 10000, &content);
    while (error == ERROR_NONE && count < 400) {
        harness_message(count * 3, &arena, &message);
        message.body_length = content.length;
        spool_batch_begin(harness.spool);
        error = spool_batch_message(harness.spool, &message, NULL, buffer_slice(&content));
        if (error != ERROR_NONE) {
            spool_batch_cancel(harness.spool);
        } else {
            error = harness_submit(&harness, SPOOL_SYNCED);
        }
        if (error == ERROR_NONE) {
            handles[count++] = harness.handles[0];
        }
    }
    assert_int_equal(error, ERROR_SPACE);
    struct spool_state status;
    spool_status(harness.spool, &status);
    assert_int_equal(status.accepting, ERROR_SPACE);
    assert_true(status.reason[0] != '\0');
    for (unsigned i = 0; i < count; i++) {
        harness_finish(&harness, handles[i], 0);
    }
    for (int i = 0; i < 2000 && status.accepting != ERROR_NONE; i++) {
        harness_settle(&harness);
        harness_pass(&harness, 1);
        spool_status(harness.spool, &status);
    }
    assert_int_equal(status.accepting, ERROR_NONE); /* what was delivered has made room */
    harness_accept(&harness, 100000, 10000);
    harness_reopen(&harness);
    assert_int_equal(harness.messages, 1);
    buffer_done(&content);
    arena_done(&arena);
    done_with(&harness);
}

static void drop_spare(void *context, const char *name, uint64_t size)
{
    (void)size;
    if (strncmp(name, "spare-", 6) == 0) {
        snprintf(context, 64, "%s", name);
    }
}

static void drop_spares(struct disk_sim *sim)
{
    struct disk *disk = disk_sim_open(sim);
    for (;;) {
        char spare[64] = "";
        assert_int_equal(disk->ops->list(disk, drop_spare, spare), ERROR_NONE);
        if (spare[0] == '\0') {
            break;
        }
        assert_int_equal(disk->ops->unlink(disk, spare), ERROR_NONE);
    }
    disk_free(disk);
}

/* Nothing has been prepared, and there is no room for a whole segment: a little one will do, for
 * what was accepted must be handed over and its fate kept. */
static void a_full_disk_without_a_spare_still_takes_fates(void **state)
{
    (void)state;
    struct harness harness;
    open_with(&harness, 16 << 20);
    harness_accept(&harness, 3, 1000);
    harness_settle(&harness);
    spool_close(harness.spool);
    harness.spool = NULL;
    drop_spares(harness.context);
    disk_sim_set_capacity(harness.context, disk_sim_used(harness.context) + (3 << 20));
    assert_int_equal(harness_try_open(&harness), ERROR_NONE);
    harness_load(&harness);
    assert_int_equal(harness.messages, 1);
    harness_finish(&harness, spool_find(harness.spool, harness_id(3)), 0);
    harness_reopen(&harness);
    assert_int_equal(harness.messages, 0);
    done_with(&harness);
}

/* Somebody has tidied up: a new segment is made from nothing. */
static void a_spare_that_has_gone_is_not_missed(void **state)
{
    (void)state;
    struct harness harness;
    open_with(&harness, 256 << 10);
    for (uint64_t n = 0; n < 20; n++) {
        harness_settle(&harness);
        harness_pass(&harness, 2);
        drop_spares(harness.context);
        harness_accept(&harness, n, 100000);
    }
    harness_reopen(&harness);
    assert_int_equal(harness.messages, 20);
    done_with(&harness);
}

/* Whether a segment has become a spare is not known: it is tried again, under the same name. */
static void a_segment_may_be_recycled_twice(void **state)
{
    (void)state;
    struct harness harness;
    open_with(&harness, 256 << 10);
    harness.settings.ready_segments = 60; /* so that all are recycled */
    harness_reopen(&harness);
    for (uint64_t n = 0; n < 40; n++) {
        struct spool_handle handle = harness_accept(&harness, n * 3, 100000);
        disk_sim_fail_directory(harness.context, true);
        harness_finish(&harness, handle, 0);
        harness_pass(&harness, 2);
        disk_sim_fail_directory(harness.context, false);
        harness_settle(&harness);
    }
    harness_settle(&harness);
    harness_pass(&harness, 20); /* all that is prepared at once */
    struct spool_state status;
    spool_status(harness.spool, &status);
    assert_int_equal(status.disk_bytes, disk_sim_used(harness.context));
    harness_reopen(&harness);
    assert_int_equal(harness.messages, 0);
    done_with(&harness);
}

/* ---- seals ------------------------------------------------------------------------------- */

static _Atomic bool seals_fail;
static const struct disk_ops *whole_ops;

static enum error write_no_seal(struct disk_file *file, uint64_t offset, struct slice bytes)
{
    return seals_fail && offset == LOG_SEAL_AT ? ERROR_IO : whole_ops->write(file, offset, bytes);
}

/* A process that is killed before the janitor comes to it leaves no seals either. */
static struct disk *open_sealless(struct harness *harness)
{
    static struct disk_ops ops;
    struct disk *disk = disk_sim_open(harness->context);
    whole_ops = disk->ops;
    ops = *whole_ops;
    ops.write = write_no_seal;
    disk->ops = &ops;
    return disk;
}

static void let_janitor_work(struct harness *harness)
{
    for (int i = 0; i < 20; i++) {
        harness_settle(harness);
        harness_pass(harness, 2);
    }
}

static void what_has_no_seal_is_sealed_after_the_next_start(void **state)
{
    (void)state;
    enum { LIVES = 250, SEALED_EVERY = 100 };
    struct harness harness;
    unsigned lines;
    open_with(&harness, 256 << 10);
    harness.make_disk = open_sealless;
    for (unsigned life = 0; life < LIVES; life++) {
        seals_fail = life % SEALED_EVERY != SEALED_EVERY - 1;
        harness_reopen(&harness);
        assert_int_equal(harness.messages, life);
        harness_accept(&harness, life, 1000);
        if (!seals_fail) {
            let_janitor_work(&harness);
        }
    }
    seals_fail = false;
    harness_reopen(&harness);
    assert_int_equal(harness.messages, LIVES);
    struct spool_state status = {.segments = LIVES};
    for (int i = 0; i < 100 && status.segments >= 60; i++) {
        let_janitor_work(&harness); /* and what they hold is put together */
        spool_status(harness.spool, &status);
    }
    assert_true(status.segments < 60);
    spool_close(harness.spool);
    harness.spool = NULL;
    struct spool_verify_report report = verify(harness.context, &lines);
    assert_int_equal(report.sealed_segments, report.segments);
    done_with(&harness);
}

static void a_seal_that_failed_is_tried_again(void **state)
{
    (void)state;
    struct harness harness;
    unsigned lines;
    open_with(&harness, 256 << 10);
    harness.make_disk = open_sealless;
    harness_reopen(&harness);
    seals_fail = true;
    for (uint64_t n = 0; n < 12; n++) {
        harness_accept(&harness, n, 100000);
        harness_pass(&harness, 1);
    }
    seals_fail = false;
    let_janitor_work(&harness);
    spool_close(harness.spool);
    harness.spool = NULL;
    struct spool_verify_report report = verify(harness.context, &lines);
    assert_true(report.segments > 4);
    assert_int_equal(report.sealed_segments, report.segments);
    done_with(&harness);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ticket_gives_envelope_and_content),
        cmocka_unit_test(damaged_content_is_never_read_to_its_end),
        cmocka_unit_test(no_torn_or_flipped_byte_makes_a_wrong_message),
        cmocka_unit_test(damage_in_the_middle_costs_one_record),
        cmocka_unit_test(a_damaged_index_is_made_anew),
        cmocka_unit_test(either_copy_of_the_header_will_do),
        cmocka_unit_test(a_newer_journal_is_not_touched),
        cmocka_unit_test(the_offline_check_tells_what_is_there),
        cmocka_unit_test(the_offline_check_needs_a_journal),
        cmocka_unit_test(one_survivor_does_not_hold_the_disk),
        cmocka_unit_test(a_pinned_message_stays_where_its_ticket_says),
        cmocka_unit_test(a_ticket_outlives_a_move_under_way),
        cmocka_unit_test(a_full_disk_stops_acceptance_but_not_fates),
        cmocka_unit_test(a_full_disk_without_a_spare_still_takes_fates),
        cmocka_unit_test(a_spare_that_has_gone_is_not_missed),
        cmocka_unit_test(a_segment_may_be_recycled_twice),
        cmocka_unit_test(what_has_no_seal_is_sealed_after_the_next_start),
        cmocka_unit_test(a_seal_that_failed_is_tried_again),
    };
    return cmocka_run_group_tests_name("spool in a log", tests, NULL, NULL);
}
