/* SPDX-License-Identifier: Apache-2.0
 *
 * The N-th operation on the disk fails, for every N: once, half done, or for good until it is
 * repaired; then the same for the N-th allocation. Whatever happens, a batch told to be stored is
 * loaded again, one told to have failed is not, and when the fault has ended mail is taken again
 * without a restart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sim/disk_sim.h"
#include "spool/copies.h"
#include "tests/proto/failing_memory.h"
#include "tests/spool/harness.h"

enum { BATCHES = 24, DAY_MS = 86400 * 1000 };

static const int64_t now_ms = 1700000000000;
static int64_t keep_ms; /* copies */

/* Only the loop's thread is counted, and only in the code under test. */
static _Thread_local bool counting;

static bool is_counted(void)
{
    return counting;
}

/* ---- a short life of a spool ------------------------------------------------------------- */

enum outcome { UNKNOWN, STORED, REFUSED };

struct life {
    struct loop *loop;
    struct disk_sim *sim;
    struct spool *spool;
    struct spool_settings settings;
    enum outcome messages[BATCHES + 1];
    enum outcome ends[BATCHES + 1]; /* the fate of message n */
    struct spool_handle handles[BATCHES + 1];
    unsigned outstanding;
};

struct asked {
    struct life *life;
    unsigned message, end; /* 0: none */
};

static struct asked asked[2 * BATCHES + 2];

static void told(void *context, enum error error, const struct spool_handle *handles, size_t count)
{
    struct asked *about = context;
    bool was_counting = counting;
    counting = false;
    about->life->outstanding--;
    if (about->message != 0) {
        about->life->messages[about->message] = error == ERROR_NONE ? STORED : REFUSED;
        if (error == ERROR_NONE) {
            assert_int_equal(count, 1);
            about->life->handles[about->message] = handles[0];
        }
    }
    if (about->end != 0) {
        about->life->ends[about->end] = error == ERROR_NONE ? STORED : REFUSED;
    }
    counting = was_counting;
    loop_stop(about->life->loop);
}

static size_t length_of(unsigned n)
{
    return n % 8 == 3 ? 180000 : n % 8 == 6 ? 90000 : 500 + n;
}

static enum error add(struct life *life, unsigned n)
{
    struct spool_recipient recipient = {.address = SLICE_LITERAL("someone@example.com")};
    struct spool_message message = {.id = {7, n},
                                    .body_length = length_of(n),
                                    .sender = SLICE_LITERAL("sender@example.org"),
                                    .recipients = &recipient,
                                    .recipient_count = 1};
    static uint8_t bytes[90000];
    memset(bytes, (int)n, sizeof(bytes));
    struct spool_content *content = NULL;
    if (n % 4 == 3) {
        content = spool_content_new(life->spool, 0);
        for (size_t at = 0; content != NULL && at < length_of(n); at += 30000) {
            (void)!spool_content_append(content, slice_make(bytes, 30000));
        }
        if (content == NULL) {
            return ERROR_MEMORY;
        }
        message.body_length = (length_of(n) + 29999) / 30000 * 30000;
        return spool_batch_message(life->spool, &message, content, SLICE_EMPTY);
    }
    return spool_batch_message(life->spool, &message, NULL, slice_make(bytes, length_of(n)));
}

static void stop(void *context)
{
    loop_stop(context);
}

static void pass_time(struct life *life, int64_t ms)
{
    bool was_counting = counting;
    counting = false;
    struct loop_timer *timer = loop_timer_new(life->loop, stop, life->loop);
    loop_timer_set(timer, ms);
    counting = was_counting;
    loop_run(life->loop);
    counting = false;
    loop_timer_free(timer);
    counting = was_counting;
}

/* A while, or until no more than so many batches are under way: with a disk that fails for good
 * fates wait. */
static void let_run(struct life *life, unsigned until)
{
    for (int i = 0; life->outstanding > until && i < (until == 0 ? 200 : 2); i++) {
        spool_tick(life->spool);
        pass_time(life, 2);
    }
}

/* One batch: a message, or the fate of an earlier one, or both (a bounce). */
static void ask(struct life *life, unsigned n)
{
    struct asked *about = &asked[n];
    *about = (struct asked){.life = life};
    unsigned end = n > 4 && n % 2 == 0 ? n - 4 : 0;
    spool_batch_begin(life->spool);
    if (end != 0 && life->messages[end] == STORED && life->ends[end] == UNKNOWN) {
        spool_batch_taken(life->spool, life->handles[end], 0, SPOOL_DELIVERED, now_ms,
                          SLICE_LITERAL("m1"));
        about->end = end;
    }
    enum error error = add(life, n);
    about->message = error == ERROR_NONE ? n : 0;
    if (error != ERROR_NONE) {
        life->messages[n] = REFUSED;
        if (about->end != 0 && error != ERROR_EXISTS && error != ERROR_SPACE && error != ERROR_IO) {
            spool_batch_cancel(life->spool);
            return;
        }
    }
    life->outstanding++;
    spool_batch_submit(life->spool, SPOOL_SYNCED, told, about);
}

static enum error open_life(struct life *life)
{
    struct spool_owner owner = {0};
    return spool_open_log(life->loop, disk_sim_open(life->sim), &life->settings, &owner,
                          &life->spool);
}

struct found {
    struct life *life;
    bool messages[BATCHES + 100];
    unsigned damages;
};

static void found_message(void *context, struct spool_handle handle,
                          const struct spool_message *message)
{
    struct found *found = context;
    (void)handle;
    found->messages[message->id.low] = true;
}

static void found_damage(void *context, const char *text)
{
    struct found *found = context;
    (void)text;
    found->damages++;
}

static enum error load(struct life *life, struct found *found)
{
    *found = (struct found){.life = life};
    struct spool_loader loader = {
        .context = found, .message = found_message, .damage = found_damage};
    bool complete = false;
    enum error error = ERROR_NONE;
    for (int i = 0; !complete && i < 100; i++) {
        error = spool_load(life->spool, &loader, &complete);
    }
    return complete ? ERROR_NONE : error;
}

static void begin_life(struct life *life)
{
    *life = (struct life){.loop = loop_new(), .sim = disk_sim_new()};
    spool_settings_default(&life->settings);
    life->settings.segment_bytes = 128 << 10;
    life->settings.large_bytes = 80 << 10;
    life->settings.reserve_bytes = 1;
    life->settings.ready_segments = 1;
}

static void end_life(struct life *life)
{
    loop_free(life->loop);
    disk_sim_free(life->sim);
}

static void searched(void *context, enum error error)
{
    (void)error;
    loop_stop(((struct life *)context)->loop);
}

/* It may fail, as everything here. */
static void search(struct life *life)
{
    const struct spool_copies_query query = {
        .until_ms = INT64_MAX, .done = searched, .context = life};
    struct spool_copies *copies;
    if (spool_copies_find(life->spool, &query, &copies) == ERROR_NONE) {
        loop_run(life->loop);
        spool_copies_free(copies);
    }
}

/* A spool that the fault kept from opening or loading is opened again, as the daemon would be. */
static void live(struct life *life)
{
    struct found found;
    enum error error = ERROR_IO;
    for (int i = 0; error != ERROR_NONE && i < 3; i++) {
        error = open_life(life);
        if (error == ERROR_NONE && load(life, &found) != ERROR_NONE) {
            spool_close(life->spool);
            error = ERROR_IO;
        }
    }
    life->spool = error == ERROR_NONE ? life->spool : NULL;
    for (unsigned n = 1; n <= BATCHES && life->spool != NULL; n++) {
        spool_keep_copies(life->spool, keep_ms, now_ms);
        ask(life, n);
        let_run(life, 2);
    }
    if (life->spool != NULL && keep_ms > 0) {
        spool_tick(life->spool);
        let_run(life, 2);
        search(life);
    }
}

static void check_found(const struct life *life, const struct found *found)
{
    for (unsigned n = 1; n <= BATCHES; n++) {
        bool stored = life->messages[n] == STORED, ended = life->ends[n] == STORED;
        if (found->messages[n] != (stored && !ended)) {
            fail_msg("message %u: told %d, fate %d, found %d", n, life->messages[n], life->ends[n],
                     found->messages[n]);
        }
    }
}

static void check_stored(struct life *life)
{
    struct found found;
    assert_int_equal(open_life(life), ERROR_NONE);
    assert_int_equal(load(life, &found), ERROR_NONE);
    check_found(life, &found);
    spool_close(life->spool);
}

/* The world is well again: mail is taken again, without a restart. */
static void check_recovered(struct life *life)
{
    disk_sim_fail(life->sim, 0, DISK_SIM_ONCE, ERROR_NONE);
    let_run(life, 0);
    assert_int_equal(life->outstanding, 0);
    struct spool_state status = {.accepting = ERROR_IO};
    for (int i = 0; i < 2000 && status.accepting != ERROR_NONE; i++) {
        spool_tick(life->spool);
        spool_batch_begin(life->spool);
        asked[0] = (struct asked){.life = life};
        life->outstanding++;
        spool_batch_submit(life->spool, SPOOL_SYNCED, told, &asked[0]);
        let_run(life, 0);
        spool_status(life->spool, &status);
        if (status.accepting != ERROR_NONE) {
            pass_time(life, 2); /* for the janitor */
        }
    }
    assert_int_equal(status.accepting, ERROR_NONE);
    spool_batch_begin(life->spool);
    assert_int_equal(add(life, BATCHES + 10), ERROR_NONE);
    asked[0] = (struct asked){.life = life};
    life->outstanding++;
    spool_batch_submit(life->spool, SPOOL_SYNCED, told, &asked[0]);
    let_run(life, 0);
    assert_int_not_equal(spool_find(life->spool, (struct message_id){7, BATCHES + 10}).index,
                         SPOOL_NO_HANDLE.index);
}

static uint64_t changes_of_a_life(void)
{
    struct life life;
    begin_life(&life);
    live(&life);
    let_run(&life, 0);
    spool_close(life.spool);
    uint64_t changes = disk_sim_changes(life.sim);
    check_stored(&life);
    end_life(&life);
    return changes;
}

static void fail_each(enum disk_sim_fault fault, enum error error)
{
    uint64_t changes = changes_of_a_life();
    for (uint64_t nth = 1; nth <= changes; nth++) {
        struct life life;
        begin_life(&life);
        disk_sim_fail(life.sim, nth, fault, error);
        live(&life);
        if (life.spool != NULL) {
            check_recovered(&life);
            spool_close(life.spool);
        }
        disk_sim_fail(life.sim, 0, DISK_SIM_ONCE, ERROR_NONE);
        check_stored(&life);
        assert_int_equal(disk_sim_open_files(life.sim), 0);
        end_life(&life);
    }
}

static void any_operation_may_fail(void **state)
{
    (void)state;
    fail_each(DISK_SIM_ONCE, ERROR_IO);
}

static void any_write_may_be_short(void **state)
{
    (void)state;
    fail_each(DISK_SIM_SHORT, ERROR_IO);
}

static void any_operation_may_find_no_space(void **state)
{
    (void)state;
    fail_each(DISK_SIM_ONCE, ERROR_SPACE);
}

static void the_disk_may_fail_for_good(void **state)
{
    (void)state;
    fail_each(DISK_SIM_STUCK, ERROR_IO);
}

static void the_disk_may_be_full_for_good(void **state)
{
    (void)state;
    fail_each(DISK_SIM_STUCK, ERROR_SPACE);
}

/* ---- R1: who keeps the mail himself is told at once ----------------------------------------- */

static void submit(struct life *life, unsigned message, unsigned end)
{
    asked[message + end] = (struct asked){.life = life, .message = message, .end = end};
    life->outstanding++;
    spool_batch_submit(life->spool, SPOOL_SYNCED, told, &asked[message + end]);
}

static void begin_with_one(struct life *life)
{
    struct found found;
    begin_life(life);
    assert_int_equal(open_life(life), ERROR_NONE);
    assert_int_equal(load(life, &found), ERROR_NONE);
    ask(life, 1);
    let_run(life, 0);
    assert_int_equal(life->messages[1], STORED);
}

/* A fate waits for the disk; the mail that came while it was written does not. */
static void mail_does_not_wait_with_fates(void **state)
{
    (void)state;
    struct life life;
    begin_with_one(&life);
    disk_sim_fail(life.sim, 1, DISK_SIM_STUCK, ERROR_IO);
    spool_batch_begin(life.spool);
    spool_batch_fate(life.spool, life.handles[1], 0, SPOOL_DELIVERED);
    submit(&life, 0, 1);
    spool_tick(life.spool); /* under way */
    spool_batch_begin(life.spool);
    assert_int_equal(add(&life, 2), ERROR_NONE);
    submit(&life, 2, 0);
    for (int i = 0; i < 10; i++) {
        spool_tick(life.spool);
        pass_time(&life, 2);
    }
    assert_int_equal(life.messages[2], REFUSED);
    assert_int_equal(life.ends[1], UNKNOWN);
    check_recovered(&life);
    assert_int_equal(life.ends[1], STORED);
    spool_close(life.spool);
    check_stored(&life);
    end_life(&life);
}

/* Nor does content on its way keep memory for which others wait. */
static void content_under_way_fails_with_the_disk(void **state)
{
    (void)state;
    struct life life;
    begin_with_one(&life);
    struct spool_content *content = spool_content_new(life.spool, 0);
    assert_int_equal(spool_content_append(content, SLICE_LITERAL("it goes on")), ERROR_NONE);
    disk_sim_fail(life.sim, 1, DISK_SIM_STUCK, ERROR_IO);
    spool_batch_begin(life.spool);
    spool_batch_fate(life.spool, life.handles[1], 0, SPOOL_DELIVERED);
    submit(&life, 0, 1);
    for (int i = 0; i < 10; i++) {
        spool_tick(life.spool);
        pass_time(&life, 2);
    }
    assert_int_equal(spool_content_pending(life.spool), 0);
    assert_int_equal(spool_content_append(content, SLICE_LITERAL("and on")), ERROR_IO);
    struct spool_content *another = spool_content_new(life.spool, 0);
    assert_int_equal(spool_content_append(another, SLICE_LITERAL("begun")), ERROR_IO);
    assert_int_equal(spool_content_pending(life.spool), 0);
    spool_content_abort(content);
    spool_content_abort(another);
    check_recovered(&life);
    spool_close(life.spool);
    check_stored(&life);
    end_life(&life);
}

/* A content file whose name may not outlive a crash is not stored; the rest of its group is. */
static void a_directory_that_cannot_be_synced_refuses_large_mail(void **state)
{
    (void)state;
    struct life life;
    begin_with_one(&life);
    disk_sim_fail_directory(life.sim, true);
    spool_batch_begin(life.spool);
    assert_int_equal(add(&life, 6), ERROR_NONE);
    submit(&life, 6, 0);
    spool_batch_begin(life.spool);
    spool_batch_fate(life.spool, life.handles[1], 0, SPOOL_DELIVERED);
    submit(&life, 0, 1);
    for (int i = 0; i < 10; i++) {
        spool_tick(life.spool);
        pass_time(&life, 2);
    }
    assert_int_equal(life.messages[6], REFUSED);
    assert_int_equal(life.ends[1], STORED);
    disk_sim_fail_directory(life.sim, false);
    check_recovered(&life);
    spool_close(life.spool);
    check_stored(&life);
    end_life(&life);
}

/* ---- the same with memory ---------------------------------------------------------------- */

/* Allocations; the one behind `good` fails. */
static long live_counted(struct life *life, long good)
{
    memory_fail_at(good);
    counting = true;
    live(life);
    if (life->spool != NULL) {
        let_run(life, 0);
        counting = false;
        check_recovered(life);
        counting = true;
        spool_close(life->spool);
    }
    counting = false;
    (void)memory_fail_never();
    return memory_counted();
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    struct life life;
    memory_count_if(is_counted);
    begin_life(&life);
    long count = live_counted(&life, -1);
    check_stored(&life);
    end_life(&life);
    assert_true(count > 100);
    for (long good = 0; good < count; good++) {
        begin_life(&life);
        live_counted(&life, good);
        check_stored(&life);
        end_life(&life);
    }
}

static void the_same_where_copies_are_kept(void **state)
{
    keep_ms = DAY_MS;
    fail_each(DISK_SIM_ONCE, ERROR_IO);
    fail_each(DISK_SIM_STUCK, ERROR_SPACE);
    any_allocation_may_fail(state);
    keep_ms = 0;
}

/* A step of loading that failed is done again, and nothing is left out: no message, no fate. Each
 * time from the same disk: an opened spool begins a segment, and the next load would need more. */
static void loading_goes_on_where_memory_was_out(void **state)
{
    (void)state;
    memory_count_if(is_counted);
    bool failed = true;
    for (long good = 0; failed; good++) {
        struct life life;
        struct found found;
        begin_life(&life);
        live(&life);
        let_run(&life, 0);
        spool_close(life.spool);
        assert_int_equal(open_life(&life), ERROR_NONE);
        memory_fail_at(good);
        counting = true;
        enum error error = load(&life, &found);
        counting = false;
        failed = memory_fail_never();
        assert_true(failed || good > 10);
        assert_int_equal(error, ERROR_NONE);
        check_found(&life, &found);
        spool_close(life.spool);
        end_life(&life);
    }
}

/* Content of its own file that is given up when memory is out, while it is still being written or
 * when it has been, leaves no file behind. */
static void want_of_memory_keeps_no_content(void **state)
{
    (void)state;
    static const uint8_t bytes[1 << 20];
    memory_count_if(NULL);
    for (int written = 0; written < 2; written++) {
        struct life life;
        begin_with_one(&life);
        uint64_t before = disk_sim_used(life.sim);
        struct spool_content *content = spool_content_new(life.spool, 4 * sizeof(bytes));
        for (int i = 0; i < 4; i++) {
            assert_int_equal(spool_content_append(content, slice_make(bytes, sizeof(bytes))),
                             ERROR_NONE);
        }
        for (int i = 0; written && disk_sim_used(life.sim) < before + 3 * sizeof(bytes); i++) {
            assert_true(i < 1000);
            pass_time(&life, 1);
        }
        memory_fail_at(0);
        spool_content_abort(content);
        assert_true(memory_fail_never());
        for (int i = 0; disk_sim_used(life.sim) > before + sizeof(bytes); i++) {
            assert_true(i < 1000);
            pass_time(&life, 1);
        }
        check_recovered(&life);
        spool_close(life.spool);
        check_stored(&life);
        assert_int_equal(disk_sim_open_files(life.sim), 0);
        end_life(&life);
    }
}

/* What is over leaves one message in each segment. */
static void litter(struct life *life, unsigned count)
{
    static uint8_t bytes[20000];
    struct spool_recipient recipient = {.address = SLICE_LITERAL("someone@example.com")};
    for (unsigned n = 1; n <= count; n++) {
        struct spool_message message = {.id = {8, n},
                                        .body_length = sizeof(bytes),
                                        .sender = SLICE_LITERAL("sender@example.org"),
                                        .recipients = &recipient,
                                        .recipient_count = 1};
        spool_batch_begin(life->spool);
        assert_int_equal(
            spool_batch_message(life->spool, &message, NULL, slice_make(bytes, sizeof(bytes))),
            ERROR_NONE);
        if (n % 6 != 0) {
            spool_batch_new_fate(life->spool, 0, SPOOL_DELIVERED);
        }
        asked[0] = (struct asked){.life = life};
        life->outstanding++;
        spool_batch_submit(life->spool, SPOOL_SYNCED, told, &asked[0]);
        let_run(life, 0);
    }
}

/* When there are no fewer for a while, or few enough. */
static uint32_t segments_at_rest(struct life *life, uint32_t enough)
{
    struct spool_state status = {.segments = UINT32_MAX};
    uint32_t least = UINT32_MAX;
    for (int calm = 0; calm < 300 && status.segments > enough; calm++) {
        spool_tick(life->spool);
        pass_time(life, 1);
        spool_status(life->spool, &status);
        calm = status.segments < least ? 0 : calm;
        least = status.segments < least ? status.segments : least;
    }
    return status.segments;
}

/* Segments that could not be emptied for want of memory, at one step or another, are emptied when
 * there is some. */
static void want_of_memory_keeps_no_segment(void **state)
{
    (void)state;
    enum { WAYS = 20, TICKS = 20 };
    memory_count_if(is_counted);
    uint32_t usual = 0;
    for (long good = -1; good < WAYS; good++) {
        struct life life;
        struct found found;
        begin_life(&life);
        assert_int_equal(open_life(&life), ERROR_NONE);
        litter(&life, 90);
        spool_close(life.spool);
        assert_int_equal(open_life(&life), ERROR_NONE);
        assert_int_equal(load(&life, &found), ERROR_NONE);
        for (int i = 0; good >= 0 && i < TICKS; i++) {
            memory_fail_at(good);
            counting = true;
            spool_tick(life.spool);
            counting = false;
            (void)memory_fail_never();
            pass_time(&life, 1);
        }
        uint32_t enough = good < 0 ? 0 : usual + 1; /* a new one may have been begun */
        uint32_t segments = segments_at_rest(&life, enough);
        usual = good < 0 ? segments : usual;
        if (good >= 0 && segments > enough) {
            fail_msg("after %ld good allocations: %u segments, not %u", good, segments, usual);
        }
        spool_close(life.spool);
        end_life(&life);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_operation_may_fail),
        cmocka_unit_test(any_write_may_be_short),
        cmocka_unit_test(any_operation_may_find_no_space),
        cmocka_unit_test(the_disk_may_fail_for_good),
        cmocka_unit_test(the_disk_may_be_full_for_good),
        cmocka_unit_test(mail_does_not_wait_with_fates),
        cmocka_unit_test(content_under_way_fails_with_the_disk),
        cmocka_unit_test(a_directory_that_cannot_be_synced_refuses_large_mail),
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(the_same_where_copies_are_kept),
        cmocka_unit_test(loading_goes_on_where_memory_was_out),
        cmocka_unit_test(want_of_memory_keeps_no_content),
        cmocka_unit_test(want_of_memory_keeps_no_segment),
    };
    return cmocka_run_group_tests_name("spool with faults", tests, NULL, NULL);
}
