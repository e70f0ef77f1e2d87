/* SPDX-License-Identifier: Apache-2.0
 *
 * What core says of a message that edge-in had given to the core before it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core_bench.h"

static const char content[] = "Subject: x\r\n\r\n";

/* What core says to it; `text` may be less than what its lengths state. */
static enum error repeat(struct bench *bench, struct message_id id, const char *text,
                         uint32_t flags)
{
    const struct spool_recipient recipient = {.address = SLICE_LITERAL("a@example.com")};
    const struct spool_message message = {.id = id,
                                          .received_ms = 1,
                                          .flags = CHANNEL_REPEATED | flags,
                                          .header_length = strlen(content),
                                          .origin.verdicts = SLICE_LITERAL("a filter"),
                                          .recipients = &recipient,
                                          .recipient_count = 1};
    uint64_t token = BENCH_MAX - 1;
    uint32_t before = bench->stored;
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_COMMIT);
    buffer_put_u64(&frame, token);
    channel_put_message(&frame, &message);
    buffer_append_text(&frame, text);
    bench_send_frame(bench, bench->in, &frame);
    buffer_done(&frame);
    bench_until(bench, &bench->stored, before + 1);
    return bench->stored_error[token];
}

static uint64_t held(struct bench *bench)
{
    struct spool_state state;
    spool_status(bench->core->spool, &state);
    return state.messages;
}

static struct message_id number(uint64_t n)
{
    return (struct message_id){0x0190000000000000ULL, n};
}

static void what_was_stored_is_not_stored_again(void **state)
{
    struct bench *bench = *state;
    uint32_t sent = bench_send(bench, 1, false);
    bench_until(bench, &bench->stored, 1);
    bench_close(bench);
    bench_open(bench);
    bench_run_ms(bench, 50);
    assert_true(bench->knows);
    assert_int_equal(repeat(bench, bench->sent[sent], content, 0), ERROR_NONE);
    assert_int_equal(repeat(bench, bench->sent[sent], "", 0), ERROR_NONE);
    assert_int_equal(held(bench), 1);
}

static void what_was_not_is_stored_once(void **state)
{
    struct bench *bench = *state;
    bench_run_ms(bench, 50);
    assert_int_equal(repeat(bench, number(1), "", 0), ERROR_INVALID);
    assert_int_equal(repeat(bench, number(1), "Subj", 0), ERROR_INVALID);
    assert_int_equal(held(bench), 0);
    assert_int_equal(repeat(bench, number(1), content, 0), ERROR_NONE);
    assert_int_equal(repeat(bench, number(1), content, 0), ERROR_NONE);
    assert_int_equal(held(bench), 1);
    struct arena arena;
    struct spool_message message;
    arena_init(&arena);
    struct spool_handle handle = spool_find(bench->core->spool, number(1));
    assert_int_equal(spool_read_envelope(bench->core->spool, handle, &arena, &message), ERROR_NONE);
    assert_int_equal(message.flags, 0);
    arena_done(&arena);
}

/* By a filter: as if it had come for the first time. */
static void what_is_held_or_thrown_away_stays_so(void **state)
{
    struct bench *bench = *state;
    bench_attach_out(bench, true, true);
    bench_run_ms(bench, 50);
    assert_int_equal(repeat(bench, number(1), content, CHANNEL_DISCARDED), ERROR_NONE);
    assert_int_equal(held(bench), 0);
    assert_int_equal(repeat(bench, number(2), content, CHANNEL_QUARANTINED), ERROR_NONE);
    assert_int_equal(repeat(bench, number(2), content, CHANNEL_QUARANTINED), ERROR_NONE);
    bench_run_ms(bench, 100);
    assert_int_equal(held(bench), 1);
    assert_int_equal(bench->delivered, 0);
}

static void before_it_knows_it_takes_none(void **state)
{
    struct bench *bench = *state;
    uint32_t sent = bench_send(bench, 1, false);
    bench_until(bench, &bench->stored, 1);
    bench_run_ms(bench, 50);
    bench->core->loaded = false;
    assert_int_equal(repeat(bench, bench->sent[sent], content, 0), ERROR_CLOSED);
    assert_int_equal(repeat(bench, number(1), content, 0), ERROR_CLOSED);
    core_in_announce(bench->core, false);
    bench_run_ms(bench, 50);
    assert_false(bench->knows);
    bench->core->loaded = true;
    core_in_announce(bench->core, false);
    bench_run_ms(bench, 50);
    assert_true(bench->knows);
    assert_int_equal(repeat(bench, number(1), content, 0), ERROR_NONE);
    assert_int_equal(held(bench), 2);
}

#define BOTH(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, bench_set_up_memory, bench_tear_down),                   \
        cmocka_unit_test_setup_teardown(name, bench_set_up_disk, bench_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(what_was_stored_is_not_stored_again),
        BOTH(what_was_not_is_stored_once),
        BOTH(what_is_held_or_thrown_away_stays_so),
        BOTH(before_it_knows_it_takes_none),
    };
    return cmocka_run_group_tests_name("core and repeated messages", tests, NULL, NULL);
}
