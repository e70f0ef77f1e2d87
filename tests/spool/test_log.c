/* SPDX-License-Identifier: Apache-2.0
 *
 * What only the log back-end promises: reading by ticket, bounded disk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sim/disk_sim.h"
#include "sim/slow.h"
#include "spool/log_format.h"
#include "spool/reader.h"
#include "tests/spool/harness.h"

#include <stdio.h>
#include <stdlib.h>

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
    harness_open_simulated(&harness, 1 << 20);
    assert_int_equal(spool_reader_open_log(disk_sim_open(harness.context), &reader), ERROR_NONE);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        harness_accept(&harness, i, lengths[i]);
        read_by_ticket(&harness, reader, i, lengths[i], 65536);
        read_by_ticket(&harness, reader, i, lengths[i], 9973);
    }
    spool_reader_close(reader);
    harness_done_simulated(&harness);
}

/* ---- room -------------------------------------------------------------------------------- */

enum { MANY = IS_SLOW ? 30000 : 1000000 };

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
    harness_open_simulated(&harness, 4 << 20);
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
    harness_done_simulated(&harness);
}

static uint32_t segments_now(struct harness *harness)
{
    struct spool_state status;
    spool_status(harness->spool, &status);
    return status.segments;
}

/* The janitor is behind. To empty again what is empty already, and only waits for it, would write
 * more than ever goes, and keep it from going. */
static void what_waits_for_removal_is_emptied_once(void **state)
{
    (void)state;
    struct harness harness;
    harness_open_simulated(&harness, 1 << 20);
    harness_accept(&harness, 42, 1000);
    struct flood flood = {.harness = &harness};
    for (int i = 0; i < 20; i++) {
        flood_once(&flood);
    }
    uint32_t before = segments_now(&harness);
    assert_true(before > 10);
    disk_sim_hold(harness.context, "segment-");
    for (int i = 0; i < 200; i++) {
        harness_settle(&harness);
    }
    assert_true(segments_now(&harness) < before * 2);
    disk_sim_hold(harness.context, NULL);
    for (int i = 0; i < 5000 && segments_now(&harness) > before / 2; i++) {
        harness_settle(&harness);
        harness_pass(&harness, 1);
    }
    assert_true(segments_now(&harness) <= before / 2);
    harness_reopen(&harness);
    assert_int_equal(harness.messages, 1001);
    harness_check(&harness, 42, 1000);
    harness_done_simulated(&harness);
}

/* The janitor does not come to sealing. That is said, and mail is refused; when it has caught up,
 * mail is taken again, and all that was promised is there. */
static void a_disk_that_does_not_keep_up_is_waited_for(void **state)
{
    (void)state;
    struct harness harness;
    struct spool_state status;
    harness_open_simulated(&harness, 64 << 10);
    struct flood flood = {.harness = &harness};
    flood_once(&flood);
    flood_once(&flood); /* what the janitor hangs in */
    disk_sim_hold(harness.context, "segment-");
    uint64_t stored = 0;
    enum error error = ERROR_NONE;
    for (uint64_t n = 1; error == ERROR_NONE; n++) {
        assert_true(n < 2000);
        spool_tick(harness.spool); /* without a batch of no mail: that would wait for the disk */
        struct arena arena;
        struct buffer content;
        struct spool_message message;
        arena_init(&arena);
        harness_message(n, &arena, &message);
        harness_content(n, 40000, &content);
        message.header_length = 0;
        message.body_length = content.length;
        spool_batch_begin(harness.spool);
        error = spool_batch_message(harness.spool, &message, NULL, buffer_slice(&content));
        enum error told = harness_submit(&harness, SPOOL_SYNCED);
        error = error != ERROR_NONE ? error : told;
        stored += error == ERROR_NONE;
        buffer_done(&content);
        arena_done(&arena);
    }
    assert_int_equal(error, ERROR_SPACE);
    assert_true(stored > 60);
    spool_status(harness.spool, &status);
    assert_int_equal(status.accepting, ERROR_SPACE);
    assert_non_null(strstr(status.reason, "await their seal"));
    disk_sim_hold(harness.context, NULL);
    for (int i = 0; i < 5000 && status.accepting != ERROR_NONE; i++) {
        spool_tick(harness.spool);
        harness_pass(&harness, 1);
        spool_status(harness.spool, &status);
    }
    assert_int_equal(status.accepting, ERROR_NONE);
    harness_accept(&harness, 100000, 1000);
    harness_reopen(&harness);
    assert_int_equal(harness.messages, 1000 + stored + 1);
    assert_int_equal(harness.damages, 0);
    harness_done_simulated(&harness);
}

static void a_pinned_message_stays_where_its_ticket_says(void **state)
{
    (void)state;
    struct harness harness;
    struct spool_reader *reader;
    harness_open_simulated(&harness, 1 << 20);
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
    harness_done_simulated(&harness);
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
    harness_open_simulated(&harness, 1 << 20);
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
    harness_done_simulated(&harness);
}

static void a_full_disk_stops_acceptance_but_not_fates(void **state)
{
    (void)state;
    struct harness harness;
    enum { SEGMENT = 256 << 10 };
    harness_open_simulated(&harness, SEGMENT);
    struct spool_handle handles[400];
    unsigned count = 0;
    struct arena arena;
    struct spool_message message;
    struct buffer content;
    struct spool_state status;
    arena_init(&arena);
    spool_status(harness.spool, &status);
    for (int i = 0; i < 5000 && status.disk_bytes < 2 * SEGMENT; i++) {
        harness_pass(&harness, 1);
        spool_status(harness.spool, &status);
    }
    assert_true(status.disk_bytes >= 2 * SEGMENT); /* one is kept for fates */
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
    harness_done_simulated(&harness);
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
    harness_open_simulated(&harness, 16 << 20);
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
    harness_done_simulated(&harness);
}

/* Somebody has tidied up: a new segment is made from nothing. */
static void a_spare_that_has_gone_is_not_missed(void **state)
{
    (void)state;
    struct harness harness;
    harness_open_simulated(&harness, 256 << 10);
    for (uint64_t n = 0; n < 20; n++) {
        harness_settle(&harness);
        harness_pass(&harness, 2);
        drop_spares(harness.context);
        harness_accept(&harness, n, 100000);
    }
    harness_reopen(&harness);
    assert_int_equal(harness.messages, 20);
    harness_done_simulated(&harness);
}

/* Whether a segment has become a spare is not known: it is tried again, under the same name. */
static void a_segment_may_be_recycled_twice(void **state)
{
    (void)state;
    struct harness harness;
    harness_open_simulated(&harness, 256 << 10);
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
    struct spool_state status;
    for (int i = 0; i < 1500; i++) { /* what is prepared at once may take a while */
        harness_pass(&harness, 20);
        spool_status(harness.spool, &status);
        if (status.disk_bytes == disk_sim_used(harness.context)) {
            break;
        }
    }
    assert_int_equal(status.disk_bytes, disk_sim_used(harness.context));
    harness_reopen(&harness);
    assert_int_equal(harness.messages, 0);
    harness_done_simulated(&harness);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ticket_gives_envelope_and_content),
        cmocka_unit_test(one_survivor_does_not_hold_the_disk),
        cmocka_unit_test(what_waits_for_removal_is_emptied_once),
        cmocka_unit_test(a_disk_that_does_not_keep_up_is_waited_for),
        cmocka_unit_test(a_pinned_message_stays_where_its_ticket_says),
        cmocka_unit_test(a_ticket_outlives_a_move_under_way),
        cmocka_unit_test(a_full_disk_stops_acceptance_but_not_fates),
        cmocka_unit_test(a_full_disk_without_a_spare_still_takes_fates),
        cmocka_unit_test(a_spare_that_has_gone_is_not_missed),
        cmocka_unit_test(a_segment_may_be_recycled_twice),
    };
    return cmocka_run_group_tests_name("spool in a log", tests, NULL, NULL);
}
