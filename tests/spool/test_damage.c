/* SPDX-License-Identifier: Apache-2.0
 *
 * What the journal makes of a disk that is not as it was left: damaged or unreadable, of a newer
 * version, without seals; and what the offline check says of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sim/disk_sim.h"
#include "sim/slow.h"
#include "spool/log_scan.h"
#include "spool/reader.h"
#include "spool/verify.h"
#include "tests/spool/harness.h"

#include <stdio.h>
#include <stdlib.h>

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

static void take_content(void *context, const char *name, uint64_t size)
{
    struct newest *newest = context;
    if (strncmp(name, "content-", 8) == 0) {
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
    harness_open_simulated(&harness, 1 << 20);
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
    harness_done_simulated(&harness);
}

/* In parts as in one: what is exported, or put into a notice, is as good as what is delivered. */
static void no_part_of_damaged_content_is_read(void **state)
{
    (void)state;
    enum { LENGTH = 300000, PART = 50000 };
    static uint8_t bytes[PART];
    for (int apart = 0; apart < 2; apart++) {
        struct harness harness;
        struct buffer want;
        size_t length, damaged = 0;
        harness_open_simulated(&harness, 1 << 20);
        harness.settings.large_bytes = apart == 1 ? 100000 : 1 << 20;
        harness_reopen(&harness);
        struct spool_handle handle = harness_accept(&harness, 1, LENGTH);
        struct newest newest = {0};
        struct disk *disk = disk_sim_open(harness.context);
        assert_int_equal(disk->ops->list(disk, apart == 1 ? take_content : take_newest, &newest),
                         ERROR_NONE);
        disk_free(disk);
        set_segment(harness.context, newest.name, apart == 1 ? 80000 : LOG_DATA_AT + 80000);
        harness_content(1, LENGTH, &want);
        for (size_t at = 0; at < LENGTH; at += PART) {
            enum error error =
                spool_read_content(harness.spool, handle, at, bytes, sizeof(bytes), &length);
            if (error == ERROR_NONE) {
                assert_int_equal(length, PART);
                assert_memory_equal(bytes, want.data + at, PART);
            } else {
                assert_int_equal(error, ERROR_CORRUPT);
                assert_int_equal(length, 0);
                damaged++;
            }
        }
        assert_true(damaged > 0 && (apart == 0 || damaged < LENGTH / PART));
        buffer_done(&want);
        harness_done_simulated(&harness);
    }
}

/* ---- damage ------------------------------------------------------------------------------ */

static struct disk_sim *killed_with_messages(unsigned count, size_t length)
{
    struct harness harness = {.make_disk = harness_simulated_disk, .context = disk_sim_new()};
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
    *harness =
        (struct harness){.kind = HARNESS_LOG, .make_disk = harness_simulated_disk, .context = sim};
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
    enum { EVERY = IS_SLOW ? 17 : 1 }; /* of no common measure with 7 and 8 below */
    for (uint32_t at = good.end; at-- > good.end - (64 << 10);) {
        if (at % EVERY != 0) {
            continue;
        }
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
    harness_done_simulated(&harness);
    buffer_done(&bytes);
}

static void a_damaged_index_is_made_anew(void **state)
{
    (void)state;
    struct harness harness;
    harness_open_simulated(&harness, 1 << 20);
    for (uint64_t n = 0; n < 10; n++) {
        harness_accept(&harness, n, 100);
    }
    spool_close(harness.spool);
    struct newest newest = newest_segment(harness.context);
    assert_true(disk_sim_flip(harness.context, newest.name, newest.size - 4000, 1));
    assert_int_equal(harness_try_open(&harness), ERROR_NONE);
    harness_load(&harness);
    assert_int_equal(harness.messages, 10);
    harness_done_simulated(&harness);
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
        harness_done_simulated(&harness);
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
    struct harness harness = {
        .make_disk = harness_simulated_disk, .context = sim, .kind = HARNESS_LOG};
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

/* ---- what cannot be told from mail ------------------------------------------------------- */

struct counted {
    const char *prefix;
    size_t files;
    uint64_t bytes;
};

static void count_name(void *context, const char *name, uint64_t size)
{
    struct counted *counted = context;
    if (strncmp(name, counted->prefix, strlen(counted->prefix)) == 0) {
        counted->files++;
        counted->bytes += size;
    }
}

static struct counted count_files(struct disk_sim *sim, const char *prefix)
{
    struct counted counted = {.prefix = prefix};
    struct disk *disk = disk_sim_open(sim);
    assert_int_equal(disk->ops->list(disk, count_name, &counted), ERROR_NONE);
    disk_free(disk);
    return counted;
}

static uint64_t quarantined(const struct harness *harness)
{
    struct spool_state status;
    spool_status(harness->spool, &status);
    return status.quarantined;
}

static void a_segment_without_its_header_is_set_aside(void **state)
{
    (void)state;
    struct disk_sim *sim = killed_with_messages(5, 100);
    struct newest newest = newest_segment(sim);
    unsigned lines;
    assert_true(disk_sim_flip(sim, newest.name, 100, 1));
    assert_true(disk_sim_flip(sim, newest.name, LOG_BLOCK + 100, 1));
    assert_int_equal(verify(sim, &lines).damaged_records, 1);
    struct harness harness;
    open_killed(&harness, sim);
    assert_int_equal(harness.messages, 0);
    assert_int_equal(harness.damages, 1);
    assert_int_equal(quarantined(&harness), 1);
    struct counted kept = count_files(sim, "quarantine-");
    assert_int_equal(kept.files, 1);
    assert_int_equal(kept.bytes, newest.size);
    harness_reopen(&harness);
    assert_int_equal(harness.damages, 0);
    harness_done_simulated(&harness);
}

static void content_without_its_message_is_kept_when_something_is_damaged(void **state)
{
    (void)state;
    enum { LARGE = 400000 };
    struct harness harness;
    harness_open_simulated(&harness, 1 << 20);
    harness_accept(&harness, 1, LARGE);
    spool_close(harness.spool);
    struct newest newest = newest_segment(harness.context);
    for (uint64_t block = 0; block < 3; block++) { /* headers and seal */
        assert_true(disk_sim_flip(harness.context, newest.name, block * LOG_BLOCK + 100, 1));
    }
    assert_int_equal(count_files(harness.context, "content-").files, 1);
    assert_int_equal(harness_try_open(&harness), ERROR_NONE);
    harness_load(&harness);
    assert_int_equal(harness.messages, 0);
    assert_int_equal(harness.damages, 2);
    for (int i = 0; i < 10; i++) {
        harness_settle(&harness);
        harness_pass(&harness, 1);
    }
    assert_int_equal(count_files(harness.context, "content-").files, 0);
    struct counted kept = count_files(harness.context, "quarantine-");
    assert_int_equal(kept.files, 2);
    assert_true(kept.bytes >= newest.size + LARGE - LOG_CHUNK);
    harness_done_simulated(&harness);
}

static void a_segment_that_was_never_begun_is_removed(void **state)
{
    (void)state;
    struct disk_sim *sim = killed_with_messages(5, 100);
    struct disk *disk = disk_sim_open(sim);
    struct disk_file *file;
    unsigned lines;
    struct buffer bytes = read_segment(sim, newest_segment(sim).name);
    const char *const names[] = {"segment-0000000000001000", "segment-0000000000001001",
                                 "segment-0000000000001002"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(disk->ops->open(disk, names[i], DISK_WRITE | DISK_CREATE, &file),
                         ERROR_NONE);
        assert_int_equal(disk->ops->allocate(file, i == 0 ? 100 : bytes.length), ERROR_NONE);
        disk->ops->close(file);
    }
    /* Recycled: what its former life has left. */
    assert_int_equal(disk->ops->open(disk, names[2], DISK_WRITE, &file), ERROR_NONE);
    assert_int_equal(disk->ops->write(file, 0, buffer_slice(&bytes)), ERROR_NONE);
    disk->ops->close(file);
    disk_free(disk);
    assert_int_equal(verify(sim, &lines).damaged_records, 0);
    struct harness harness;
    open_killed(&harness, sim);
    assert_int_equal(harness.messages, 5);
    assert_int_equal(harness.damages, 0);
    assert_int_equal(count_files(sim, "segment-000000000000100").files, 1); /* the new head */
    assert_int_equal(count_files(sim, "quarantine-").files, 0);
    buffer_done(&bytes);
    harness_done_simulated(&harness);
}

/* ---- what cannot be read ----------------------------------------------------------------- */

static void an_unreadable_index_is_made_anew(void **state)
{
    (void)state;
    struct harness harness;
    unsigned lines;
    harness_open_simulated(&harness, 1 << 20);
    for (uint64_t n = 0; n < 10; n++) {
        harness_accept(&harness, n, 100);
    }
    spool_close(harness.spool);
    struct newest newest = newest_segment(harness.context);
    disk_sim_fail_reads(harness.context, newest.name, newest.size - 4000, newest.size - 3999);
    assert_int_equal(verify(harness.context, &lines).messages, 10);
    assert_int_equal(harness_try_open(&harness), ERROR_NONE);
    harness_load(&harness);
    assert_int_equal(harness.messages, 10);
    harness_done_simulated(&harness);
}

static void an_unreadable_header_does_no_harm_if_another_can_be_read(void **state)
{
    (void)state;
    for (uint64_t copy = 0; copy < 2; copy++) {
        struct disk_sim *sim = killed_with_messages(5, 100);
        disk_sim_fail_reads(sim, newest_segment(sim).name, copy * LOG_BLOCK, copy * LOG_BLOCK + 1);
        struct harness harness;
        open_killed(&harness, sim);
        assert_int_equal(harness.messages, 5);
        harness_done_simulated(&harness);
    }
}

/* It may be the cable: nothing is set aside before one header has been read. */
static void a_disk_that_reads_nothing_is_not_touched(void **state)
{
    (void)state;
    struct disk_sim *sim = killed_with_messages(5, 100);
    struct newest newest = newest_segment(sim);
    struct harness harness = {
        .make_disk = harness_simulated_disk, .context = sim, .kind = HARNESS_LOG};
    spool_settings_default(&harness.settings);
    harness.settings.segment_bytes = 256 << 10;
    harness.loop = loop_new();
    uint64_t changes = disk_sim_changes(sim);
    disk_sim_fail_reads(sim, newest.name, 0, newest.size);
    assert_int_equal(harness_try_open(&harness), ERROR_IO);
    assert_int_equal(disk_sim_changes(sim), changes);
    disk_sim_fail_reads(sim, NULL, 0, 0);
    assert_int_equal(harness_try_open(&harness), ERROR_NONE);
    harness_load(&harness);
    assert_int_equal(harness.messages, 5);
    harness_done_simulated(&harness);
}

static void a_bad_sector_costs_what_it_held(void **state)
{
    (void)state;
    enum { MESSAGES = 40 };
    struct disk_sim *sim = killed_with_messages(MESSAGES, 1000);
    struct newest newest = newest_segment(sim);
    struct harness harness;
    unsigned lines;
    disk_sim_fail_reads(sim, newest.name, LOG_DATA_AT + 20480, LOG_DATA_AT + 20481);
    assert_true(verify(sim, &lines).damaged_records > 0);
    open_killed(&harness, sim);
    assert_in_range(harness.messages, MESSAGES - 4, MESSAGES - 1);
    assert_true(harness.damages > 0 && quarantined(&harness) > 0);
    /* Its file is kept, when all that could be read has been handed over. */
    for (uint64_t n = 0; n < MESSAGES; n++) {
        struct spool_handle handle = spool_find(harness.spool, harness_id(n));
        if (handle.index != SPOOL_NO_HANDLE.index) {
            harness_check(&harness, n, 1000);
            for (uint32_t i = 0; i <= n % 3; i++) {
                harness_finish(&harness, handle, i);
            }
        }
    }
    for (int i = 0; i < 1000 && count_files(sim, newest.name).files > 0; i++) {
        harness_settle(&harness);
        harness_pass(&harness, 1);
    }
    assert_int_equal(count_files(sim, newest.name).files, 0);
    assert_true(count_files(sim, "quarantine-").bytes >= newest.size);
    harness_reopen(&harness);
    assert_int_equal(harness.messages, 0);
    harness_done_simulated(&harness);
}

/* ---- the offline check ------------------------------------------------------------------- */

static void the_offline_check_tells_what_is_there(void **state)
{
    (void)state;
    struct harness harness;
    unsigned lines;
    harness_open_simulated(&harness, 1 << 20);
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
    harness_done_simulated(&harness);
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
    harness_open_simulated(&harness, 256 << 10);
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
    harness_done_simulated(&harness);
}

static void a_seal_that_failed_is_tried_again(void **state)
{
    (void)state;
    struct harness harness;
    unsigned lines;
    harness_open_simulated(&harness, 256 << 10);
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
    harness_done_simulated(&harness);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_content_is_never_read_to_its_end),
        cmocka_unit_test(no_part_of_damaged_content_is_read),
        cmocka_unit_test(no_torn_or_flipped_byte_makes_a_wrong_message),
        cmocka_unit_test(damage_in_the_middle_costs_one_record),
        cmocka_unit_test(a_damaged_index_is_made_anew),
        cmocka_unit_test(either_copy_of_the_header_will_do),
        cmocka_unit_test(a_newer_journal_is_not_touched),
        cmocka_unit_test(a_segment_without_its_header_is_set_aside),
        cmocka_unit_test(content_without_its_message_is_kept_when_something_is_damaged),
        cmocka_unit_test(a_segment_that_was_never_begun_is_removed),
        cmocka_unit_test(an_unreadable_index_is_made_anew),
        cmocka_unit_test(an_unreadable_header_does_no_harm_if_another_can_be_read),
        cmocka_unit_test(a_disk_that_reads_nothing_is_not_touched),
        cmocka_unit_test(a_bad_sector_costs_what_it_held),
        cmocka_unit_test(the_offline_check_tells_what_is_there),
        cmocka_unit_test(the_offline_check_needs_a_journal),
        cmocka_unit_test(what_has_no_seal_is_sealed_after_the_next_start),
        cmocka_unit_test(a_seal_that_failed_is_tried_again),
    };
    return cmocka_run_group_tests_name("spool on a damaged disk", tests, NULL, NULL);
}
