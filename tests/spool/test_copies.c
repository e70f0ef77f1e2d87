/* SPDX-License-Identifier: Apache-2.0
 *
 * Mail that was handed over, and is found again while it is kept: on every back-end what
 * spool/copies.h says, then what only the log back-end promises of its disk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sim/disk_sim.h"
#include "spool/copies.h"
#include "spool/verify.h"
#include "tests/spool/harness.h"
#include "tests/spool/harness_postgres.h"

#include <stdio.h>
#include <stdlib.h>

enum { DAY_MS = 86400 * 1000 };
static const int64_t began_ms = 1700000000000;
static const int64_t keep_ms = 2LL * DAY_MS;

static enum harness_kind kind_under_test;

static int set_up(void **state)
{
    struct harness *harness = calloc(1, sizeof(*harness));
    harness_open(harness, kind_under_test);
    spool_keep_copies(harness->spool, keep_ms, began_ms);
    *state = harness;
    return 0;
}

static int tear_down(void **state)
{
    harness_done(*state);
    free(*state);
    return 0;
}

/* ---- asking ------------------------------------------------------------------------------ */

static void take(struct harness *harness, uint64_t n, uint32_t delivery, int64_t when_ms,
                 const char *server)
{
    struct spool_handle handle = spool_find(harness->spool, harness_id(n));
    assert_int_not_equal(handle.index, SPOOL_NO_HANDLE.index);
    spool_batch_begin(harness->spool);
    spool_batch_taken(harness->spool, handle, delivery, SPOOL_DELIVERED, when_ms,
                      slice_from_text(server));
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
}

/* Accepted, and taken by m1 for each recipient. */
static void pass_on(struct harness *harness, uint64_t n, size_t length, int64_t when_ms)
{
    harness_accept(harness, n, length);
    for (uint32_t i = 0; i < 1 + n % 3; i++) {
        take(harness, n, i, when_ms, "m1");
    }
}

struct asking {
    struct harness *harness;
    bool done;
    enum error error;
};

static void found(void *context, enum error error)
{
    struct asking *asking = context;
    asking->done = true;
    asking->error = error;
    loop_stop(asking->harness->loop);
}

static struct spool_copies *ask(struct harness *harness, struct spool_copies_query query)
{
    struct asking asking = {.harness = harness};
    struct spool_copies *copies;
    query.until_ms = query.until_ms == 0 ? INT64_MAX : query.until_ms;
    query.done = found;
    query.context = &asking;
    assert_int_equal(spool_copies_find(harness->spool, &query, &copies), ERROR_NONE);
    assert_false(asking.done); /* never from inside the call */
    while (!asking.done) {
        loop_run(harness->loop);
    }
    assert_int_equal(asking.error, ERROR_NONE);
    return copies;
}

/* "2:0,1 4:0" are messages in order, each with its deliveries. */
static void check_found(struct harness *harness, struct spool_copies_query query, const char *want)
{
    struct spool_copies *copies = ask(harness, query);
    struct spool_copies_counts counts;
    struct buffer text;
    buffer_init(&text, 0);
    spool_copies_counts(copies, &counts);
    size_t deliveries = 0;
    for (size_t i = 0; i < counts.messages; i++) {
        struct spool_copy copy;
        spool_copies_get(copies, i, &copy);
        uint64_t n = copy.id.high & 0xffffffff;
        buffer_printf(&text, "%s%llu:", i > 0 ? " " : "", (unsigned long long)n);
        for (uint32_t d = 0; d < copy.count; d++) {
            buffer_printf(&text, "%s%u", d > 0 ? "," : "", copy.deliveries[d]);
        }
        deliveries += copy.count;
    }
    buffer_put_u8(&text, 0);
    assert_string_equal((char *)text.data, want);
    assert_int_equal(counts.deliveries, deliveries);
    buffer_done(&text);
    spool_copies_free(copies);
}

static void check_content(struct harness *harness, struct spool_copies *copies, size_t i,
                          uint64_t n, size_t length)
{
    struct arena arena;
    struct spool_message want, got;
    struct buffer content;
    size_t read = 0, part;
    arena_init(&arena);
    harness_message(n, &arena, &want);
    harness_content(n, length, &content);
    assert_int_equal(spool_copies_read_envelope(copies, i, &arena, &got), ERROR_NONE);
    assert_true(id_equal(got.id, want.id));
    assert_true(slice_equal(got.message_id_header, want.message_id_header));
    assert_true(slice_equal(got.origin.helo, want.origin.helo));
    assert_int_equal(got.recipient_count, want.recipient_count);
    assert_int_equal(got.header_length + got.body_length, length);
    uint8_t *bytes = malloc(length + 1);
    do {
        assert_int_equal(spool_copies_read_content(copies, i, read, bytes + read, 100000, &part),
                         ERROR_NONE);
        read += part;
    } while (part > 0 && read + 100000 <= length);
    if (read < length) {
        assert_int_equal(
            spool_copies_read_content(copies, i, read, bytes + read, length - read, &part),
            ERROR_NONE);
        read += part;
    }
    assert_int_equal(read, length);
    assert_memory_equal(bytes, content.data, length);
    free(bytes);
    buffer_done(&content);
    arena_done(&arena);
    (void)harness;
}

#define ANY ((struct spool_copies_query){0})

static struct spool_state state_of(struct harness *harness)
{
    struct spool_state state;
    spool_status(harness->spool, &state);
    return state;
}

/* The janitor is behind on a busy machine. */
static void step(struct harness *harness, int64_t keep, int64_t now_ms)
{
    spool_keep_copies(harness->spool, keep, now_ms);
    harness_settle(harness);
    harness_pass(harness, 1);
}

#define STEP_UNTIL(harness, keep, now_ms, condition)                                               \
    do {                                                                                           \
        step(harness, keep, now_ms);                                                               \
        for (int tries = 0; tries < 5000 && !(condition); tries++) {                               \
            step(harness, keep, now_ms);                                                           \
        }                                                                                          \
        assert_true(condition);                                                                    \
    } while (false)

/* ---- on every back-end ------------------------------------------------------------------- */

static void what_was_handed_over_is_found(void **state)
{
    struct harness *harness = *state;
    pass_on(harness, 3, 3000, began_ms);
    pass_on(harness, 5, 300000, began_ms); /* in a file of its own */
    harness_accept(harness, 6, 100);       /* waits */
    struct spool_copies *copies = ask(harness, ANY);
    struct spool_copies_counts counts;
    struct spool_copy copy;
    spool_copies_counts(copies, &counts);
    assert_int_equal(counts.messages, 2);
    assert_int_equal(counts.deliveries, 4);
    check_content(harness, copies, 0, 3, 3000);
    check_content(harness, copies, 1, 5, 300000);
    spool_copies_get(copies, 1, &copy);
    assert_int_equal(copy.when_ms, began_ms);
    assert_true(slice_equal(copy.server, SLICE_LITERAL("m1")));
    spool_copies_free(copies);
}

static void nothing_of_it_is_loaded(void **state)
{
    struct harness *harness = *state;
    pass_on(harness, 1, 3000, began_ms);
    pass_on(harness, 2, 300000, began_ms);
    harness_settle(harness);
    harness_reopen(harness);
    assert_int_equal(harness->messages + harness->fates + harness->damages, 0);
    spool_keep_copies(harness->spool, keep_ms, began_ms);
    struct spool_state status;
    spool_status(harness->spool, &status);
    assert_int_equal(status.messages, 0);
    assert_int_equal(status.live_bytes, 0);
    struct spool_copies *copies = ask(harness, ANY);
    check_content(harness, copies, 0, 1, 3000);
    check_content(harness, copies, 1, 2, 300000);
    spool_copies_free(copies);
}

static void by_window_and_server(void **state)
{
    struct harness *harness = *state;
    harness_accept(harness, 1, 10);
    harness_accept(harness, 2, 10);
    take(harness, 2, 2, began_ms + 3000, "m1");
    take(harness, 1, 0, began_ms + 1000, "m1");
    take(harness, 1, 1, began_ms + 2000, "M2");
    take(harness, 2, 0, began_ms + 4000, "m2");
    check_found(harness, ANY, "1:0,1 2:0,2");
    check_found(
        harness,
        (struct spool_copies_query){.since_ms = began_ms + 2000, .until_ms = began_ms + 4000},
        "1:1 2:2");
    check_found(harness, (struct spool_copies_query){.server = SLICE_LITERAL("m2")}, "1:1 2:0");
    check_found(harness, (struct spool_copies_query){.server = SLICE_LITERAL("m3")}, "");
}

static void only_what_was_handed_over(void **state)
{
    struct harness *harness = *state;
    struct spool_handle handle = harness_accept(harness, 2, 10);
    spool_batch_begin(harness->spool);
    spool_batch_fate(harness->spool, handle, 0, SPOOL_BOUNCED);
    spool_batch_fate(harness->spool, handle, 1, SPOOL_DISCARDED);
    spool_batch_taken(harness->spool, handle, 2, SPOOL_PULLED, began_ms, SLICE_LITERAL("site"));
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    check_found(harness, ANY, "2:2");
}

static void a_drills_mail_is_not_found(void **state)
{
    struct harness *harness = *state;
    struct arena arena;
    struct spool_message message;
    arena_init(&arena);
    harness_message(3, &arena, &message);
    message.flags |= SPOOL_DRILL;
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_NONE);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    take(harness, 3, 0, began_ms, "m1");
    check_found(harness, ANY, "");
    arena_done(&arena);
}

static void order_is_that_of_acceptance(void **state)
{
    struct harness *harness = *state;
    for (uint64_t n = 0; n < 30; n += 3) {
        harness_accept(harness, n + 100, 10);
        harness_accept(harness, 30 - n, 10);
    }
    for (uint64_t n = 3; n <= 30; n += 3) { /* one recipient each */
        take(harness, n, 0, began_ms, "m1");
    }
    check_found(harness, ANY, "30:0 27:0 24:0 21:0 18:0 15:0 12:0 9:0 6:0 3:0");
}

/* As `queue resend` does: the recipients of `deliveries`, of message n, under another id. */
static void send_again(struct harness *harness, uint64_t n, uint64_t as, uint32_t from, uint32_t to)
{
    struct arena arena;
    struct spool_message message;
    arena_init(&arena);
    harness_message(n, &arena, &message);
    message.id = harness_id(as);
    message.copy_of = harness_id(n);
    message.recipients += from;
    message.recipient_count = to - from;
    spool_batch_begin(harness->spool);
    assert_int_equal(spool_batch_message(harness->spool, &message, NULL, SLICE_EMPTY), ERROR_NONE);
    assert_int_equal(harness_submit(harness, SPOOL_SYNCED), ERROR_NONE);
    arena_done(&arena);
}

static void what_was_sent_again_is_left_out(void **state)
{
    struct harness *harness = *state;
    const struct spool_copies_query again = {.again = true};
    pass_on(harness, 2, 10, began_ms);
    pass_on(harness, 4, 10, began_ms);
    send_again(harness, 2, 50, 1, 3);
    check_found(harness, ANY, "2:0 4:0,1");
    check_found(harness, again, "2:0,1,2 4:0,1");
    struct spool_copies *copies = ask(harness, ANY);
    struct spool_copies_counts counts;
    spool_copies_counts(copies, &counts);
    assert_int_equal(counts.sent, 2);
    spool_copies_free(copies);
    /* The copy, once it has gone, is mail like any other, but not both it and what it is of. */
    take(harness, 50, 0, began_ms + 1000, "m1");
    check_found(harness, ANY, "2:0 4:0,1 50:0");
    check_found(harness, again, "2:0,1,2 4:0,1");
    take(harness, 50, 1, began_ms + 1000, "m1");
    harness_settle(harness);
    harness_reopen(harness);
    spool_keep_copies(harness->spool, keep_ms, began_ms);
    check_found(harness, ANY, "2:0 4:0,1 50:0,1");
}

struct choice {
    uint32_t delivery;
    unsigned *freed;
};

static bool is_chosen(const void *choice, const struct spool_message *message, uint32_t delivery)
{
    assert_int_equal(message->body_length + message->header_length, 10);
    assert_true(
        slice_starts_fold(message->recipients[delivery].address, SLICE_LITERAL("recipient")));
    return delivery == ((const struct choice *)choice)->delivery;
}

static void give_back(void *choice)
{
    ++*((struct choice *)choice)->freed;
}

static void the_asker_chooses(void **state)
{
    struct harness *harness = *state;
    unsigned freed = 0;
    struct choice choice = {1, &freed};
    const struct spool_copies_query query = {
        .wants = is_chosen, .choice = &choice, .choice_free = give_back};
    pass_on(harness, 1, 10, began_ms);
    pass_on(harness, 2, 10, began_ms);
    check_found(harness, query, "1:1 2:1");
    assert_int_equal(freed, 1);
    /* Given up while it searches. */
    struct asking asking = {.harness = harness};
    struct spool_copies_query dropped = query;
    struct spool_copies *copies;
    dropped.until_ms = INT64_MAX;
    dropped.done = found;
    dropped.context = &asking;
    assert_int_equal(spool_copies_find(harness->spool, &dropped, &copies), ERROR_NONE);
    spool_copies_free(copies);
    harness_settle(harness);
    harness_pass(harness, 20);
    assert_false(asking.done);
    assert_int_equal(freed, 2);
}

static void its_time_ends(void **state)
{
    struct harness *harness = *state;
    pass_on(harness, 3, 10, began_ms);
    harness_settle(harness);
    harness_accept(harness, 6, 10); /* the journal goes on */
    harness_reopen(harness);        /* in another segment */
    for (int i = 0; i < 3; i++) {
        spool_keep_copies(harness->spool, keep_ms, began_ms + i);
        harness_settle(harness);
    }
    check_found(harness, ANY, "3:0");
    struct spool_copies *copies = ask(harness, ANY);
    spool_keep_copies(harness->spool, keep_ms, began_ms + keep_ms + 1000);
    harness_settle(harness);
    harness_pass(harness, 10);
    check_content(harness, copies, 0, 3, 10); /* while somebody reads */
    spool_copies_free(copies);
    STEP_UNTIL(harness, keep_ms, began_ms + keep_ms + 1000, state_of(harness).copy_bytes == 0);
    assert_int_equal(state_of(harness).copies_given_up, 0);
    check_found(harness, ANY, "");
    harness_check(harness, 6, 10);
}

static void switched_off_it_goes(void **state)
{
    struct harness *harness = *state;
    pass_on(harness, 3, 300000, began_ms);
    harness_settle(harness);
    harness_reopen(harness);
    STEP_UNTIL(harness, keep_ms, began_ms, state_of(harness).copy_bytes >= 300000);
    STEP_UNTIL(harness, 0, began_ms, state_of(harness).copy_bytes == 0);
    check_found(harness, ANY, "");
}

/* ---- on the log -------------------------------------------------------------------------- */

static void count_one(void *context, const char *name, uint64_t size)
{
    struct {
        const char *prefix;
        size_t count;
        uint64_t bytes;
    } *counting = context;
    if (strncmp(name, counting->prefix, strlen(counting->prefix)) == 0) {
        counting->count++;
        counting->bytes += size;
    }
}

static size_t count_files(struct harness *harness, const char *prefix, uint64_t *ret_bytes)
{
    struct disk *disk = disk_sim_open(harness->context);
    struct {
        const char *prefix;
        size_t count;
        uint64_t bytes;
    } counting = {prefix, 0, 0};
    assert_int_equal(disk->ops->list(disk, count_one, &counting), ERROR_NONE);
    disk_free(disk);
    if (ret_bytes != NULL) {
        *ret_bytes = counting.bytes;
    }
    return counting.count;
}

static void keep_name(void *context, const char *name, uint64_t size)
{
    (void)size;
    if (strncmp(name, "copy-", 5) == 0) {
        strcpy(context, name);
    }
}

/* All but the head, once all that there was has been handed over. */
static void settle(struct harness *harness, int64_t now_ms)
{
    STEP_UNTIL(harness, keep_ms, now_ms,
               state_of(harness).segments == 1 && count_files(harness, "content-", NULL) == 0 &&
                   state_of(harness).disk_bytes == disk_sim_used(harness->context));
}

static void verify(struct harness *harness, struct spool_verify_report *ret_report)
{
    struct disk *disk = disk_sim_open(harness->context);
    assert_int_equal(spool_verify(disk, NULL, NULL, NULL, ret_report), ERROR_NONE);
    disk_free(disk);
}

static void the_offline_check_knows_them(void **state)
{
    (void)state;
    struct harness harness;
    struct spool_verify_report report;
    char name[64] = "";
    harness_open_simulated(&harness, 256 << 10);
    spool_keep_copies(harness.spool, keep_ms, began_ms);
    pass_on(&harness, 3, 100000, began_ms);
    pass_on(&harness, 6, 400000, began_ms);
    harness_reopen(&harness);
    settle(&harness, began_ms);
    uint64_t bytes, large;
    size_t copies = count_files(&harness, "copy-", &bytes);
    assert_int_equal(count_files(&harness, "large-", &large), 1);
    verify(&harness, &report);
    assert_int_equal(report.copies, copies);
    assert_int_equal(report.copy_bytes, bytes + large);
    assert_int_equal(report.messages + report.damaged_records + report.missing_contents, 0);
    struct disk *disk = disk_sim_open(harness.context);
    assert_int_equal(disk->ops->list(disk, keep_name, name), ERROR_NONE);
    disk_free(disk);
    assert_true(disk_sim_flip(harness.context, name, 20000, 3));
    verify(&harness, &report);
    assert_int_equal(report.damaged_records, 1);
    harness_done_simulated(&harness);
}

/* Messages 3, 6, 9 ... of one recipient each, all handed over, over many segments. */
static void fill(struct harness *harness, uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n < to; n++) {
        pass_on(harness, n * 3, 20000, began_ms + (int64_t)n);
        if (n % 10 == 0) {
            spool_tick(harness->spool);
        }
    }
}

static void a_start_reads_no_copy(void **state)
{
    (void)state;
    struct harness harness;
    harness_open_simulated(&harness, 256 << 10);
    spool_keep_copies(harness.spool, keep_ms, began_ms);
    fill(&harness, 1, 60);
    settle(&harness, began_ms);
    uint64_t bytes;
    size_t copies = count_files(&harness, "copy-", &bytes);
    assert_true(copies >= 4);
    struct spool_state status;
    spool_status(harness.spool, &status);
    assert_int_equal(status.copy_segments, copies);
    assert_int_equal(status.copy_bytes, bytes);
    /* It could not even: and who searches is told that something is missing. */
    char name[64] = "";
    struct disk *disk = disk_sim_open(harness.context);
    assert_int_equal(disk->ops->list(disk, keep_name, name), ERROR_NONE);
    disk_free(disk);
    disk_sim_fail_reads(harness.context, name, 0, 256 << 10);
    harness_reopen(&harness);
    spool_keep_copies(harness.spool, keep_ms, began_ms);
    assert_int_equal(harness.messages + harness.damages, 0);
    spool_status(harness.spool, &status);
    assert_true(status.copy_segments >= copies);
    assert_true(status.copies_since_ms > 0);
    struct spool_copies *search = ask(&harness, ANY);
    struct spool_copies_counts counts;
    spool_copies_counts(search, &counts);
    assert_int_equal(counts.unreadable, 1);
    assert_true(counts.messages > 40 && counts.messages < 59);
    spool_copies_free(search);
    harness_done_simulated(&harness);
}

static void the_disk_comes_back_when_their_time_is_over(void **state)
{
    (void)state;
    struct harness harness;
    harness_open_simulated(&harness, 256 << 10);
    spool_keep_copies(harness.spool, keep_ms, began_ms);
    uint64_t before = disk_sim_used(harness.context);
    fill(&harness, 1, 100);
    pass_on(&harness, 999, 400000, began_ms); /* large */
    harness_reopen(&harness);
    settle(&harness, began_ms);
    assert_int_equal(count_files(&harness, "large-", NULL), 1);
    assert_int_equal(count_files(&harness, "content-", NULL), 0);
    struct spool_state status;
    spool_status(harness.spool, &status);
    assert_true(status.copy_bytes > 100 * 20000 + 400000);
    assert_int_equal(status.disk_bytes, disk_sim_used(harness.context));
    settle(&harness, began_ms + keep_ms - 2000);
    assert_int_equal(count_files(&harness, "large-", NULL), 1);
    STEP_UNTIL(&harness, keep_ms, began_ms + keep_ms + 1000, state_of(&harness).copy_bytes == 0);
    settle(&harness, began_ms + keep_ms + 1000);
    assert_int_equal(count_files(&harness, "copy-", NULL), 0);
    assert_int_equal(count_files(&harness, "large-", NULL), 0);
    spool_status(harness.spool, &status);
    assert_int_equal(status.copy_bytes, 0);
    assert_int_equal(status.disk_bytes, disk_sim_used(harness.context));
    assert_true(disk_sim_used(harness.context) <= before + (512 << 10));
    harness_done_simulated(&harness);
}

/* Mail that waits is moved out of segments that are garbage otherwise; then it is handed over. */
static void a_message_that_was_moved_is_found_once(void **state)
{
    (void)state;
    struct harness harness;
    harness_open_simulated(&harness, 256 << 10);
    spool_keep_copies(harness.spool, keep_ms, began_ms);
    harness_accept(&harness, 1000, 5000);   /* two recipients */
    harness_accept(&harness, 1001, 270000); /* in a file; three */
    take(&harness, 1000, 1, began_ms, "m1");
    take(&harness, 1001, 2, began_ms, "m1");
    fill(&harness, 1, 100);
    /* It does not keep all that came after it. */
    STEP_UNTIL(&harness, keep_ms, began_ms, state_of(&harness).segments < 6);
    assert_int_equal(count_files(&harness, "content-", NULL), 1);
    struct spool_copies_query large = {.since_ms = began_ms, .until_ms = began_ms + 1};
    check_found(&harness, large, "1000:1 1001:2");
    harness_reopen(&harness);
    spool_keep_copies(harness.spool, keep_ms, began_ms);
    take(&harness, 1000, 0, began_ms, "m1");
    take(&harness, 1001, 0, began_ms, "m1");
    take(&harness, 1001, 1, began_ms, "m1");
    fill(&harness, 200, 240);
    settle(&harness, began_ms);
    assert_int_equal(count_files(&harness, "large-", NULL), 1);
    check_found(&harness, large, "1000:0,1 1001:0,1,2");
    struct spool_copies *copies = ask(&harness, large);
    check_content(&harness, copies, 0, 1000, 5000);
    check_content(&harness, copies, 1, 1001, 270000);
    spool_copies_free(copies);
    harness_done_simulated(&harness);
}

static void a_full_disk_gives_up_copies_before_acceptance(void **state)
{
    (void)state;
    enum { CAPACITY = 12 << 20, RESERVE = 2 << 20 };
    struct harness harness;
    harness_open_simulated(&harness, 256 << 10);
    disk_sim_set_capacity(harness.context, CAPACITY);
    spool_set_reserve(harness.spool, RESERVE);
    struct spool_state status;
    for (uint64_t n = 1; n < 2000; n++) {
        pass_on(&harness, n * 3, 20000, began_ms + (int64_t)n);
        if (n % 5 == 0) {
            spool_keep_copies(harness.spool, keep_ms, began_ms + (int64_t)n * 1000);
            spool_tick(harness.spool);
            harness_pass(&harness, 1);
        }
        spool_status(harness.spool, &status);
        assert_int_equal(status.accepting, ERROR_NONE); /* not for a moment */
    }
    assert_true(status.copies_given_up > 0);
    assert_true(status.copies_gone_ms >= began_ms);
    assert_true(status.copies_since_ms >= status.copies_gone_ms);
    assert_true(status.copy_segments > 4);
    assert_true(status.available_bytes >= RESERVE);
    harness_done_simulated(&harness);
}

/* Large contents of messages whose segment is in use still take room of their own. */
static void large_contents_make_room_too(void **state)
{
    (void)state;
    enum { CAPACITY = 12 << 20 };
    struct harness harness;
    harness_open_simulated(&harness, 256 << 10);
    disk_sim_set_capacity(harness.context, CAPACITY);
    spool_set_reserve(harness.spool, 2 << 20);
    struct spool_state status;
    for (uint64_t n = 1; n < 60; n++) {
        pass_on(&harness, n * 3, 500000, began_ms + (int64_t)n);
        spool_keep_copies(harness.spool, keep_ms, began_ms + (int64_t)n * 1000);
        spool_tick(harness.spool);
        harness_pass(&harness, 1);
        spool_status(harness.spool, &status);
        assert_int_equal(status.accepting, ERROR_NONE);
    }
    assert_true(status.copies_given_up > 10);
    assert_true(count_files(&harness, "large-", NULL) > 4);
    harness_done_simulated(&harness);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest all[] = {
        CASE(what_was_handed_over_is_found),
        CASE(nothing_of_it_is_loaded),
        CASE(by_window_and_server),
        CASE(only_what_was_handed_over),
        CASE(a_drills_mail_is_not_found),
        CASE(order_is_that_of_acceptance),
        CASE(what_was_sent_again_is_left_out),
        CASE(the_asker_chooses),
        CASE(its_time_ends),
        CASE(switched_off_it_goes), /* the last: it asks what room is taken on this machine */
    };
    const struct CMUnitTest log[] = {
        cmocka_unit_test(a_start_reads_no_copy),
        cmocka_unit_test(the_disk_comes_back_when_their_time_is_over),
        cmocka_unit_test(a_message_that_was_moved_is_found_once),
        cmocka_unit_test(a_full_disk_gives_up_copies_before_acceptance),
        cmocka_unit_test(large_contents_make_room_too),
        cmocka_unit_test(the_offline_check_knows_them),
    };
    kind_under_test = HARNESS_MEMORY;
    int failed = cmocka_run_group_tests_name("copies on memory", all, NULL, NULL);
    kind_under_test = HARNESS_LOG;
    failed += cmocka_run_group_tests_name("copies on log", all, NULL, NULL);
    failed += cmocka_run_group_tests_name("copies in a log", log, NULL, NULL);
    kind_under_test = HARNESS_POSTGRES;
    if (harness_server() != NULL) {
        struct CMUnitTest in_tables[sizeof(all) / sizeof(all[0]) - 1];
        memcpy(in_tables, all, sizeof(in_tables));
        failed += cmocka_run_group_tests_name("copies on PostgreSQL", in_tables, NULL, NULL);
        harness_server_done();
    }
    return failed;
}
