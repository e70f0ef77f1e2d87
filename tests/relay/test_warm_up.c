/* SPDX-License-Identifier: Apache-2.0
 *
 * A server that stands in for the head of a chain is given no more than its warm-up; its own mail,
 * and what the operator sends it by hand, goes as ever.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "world.h"

enum { M1, M2, M3, MINUTE_MS = 60000, HOUR_MS = 60 * MINUTE_MS };

static struct world world;
static bool is_up[WORLD_SERVERS];
static unsigned delivered[WORLD_SERVERS];
static uint32_t next_handle;

static void answer_all(void);

static void answer(const struct relay_action *action)
{
    if (action->kind == RELAY_CONNECT && is_up[action->server]) {
        world_opened(&world, action->session);
    } else if (action->kind == RELAY_CONNECT) {
        world_ended(&world, action->session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    } else if (action->kind == RELAY_DELIVER) {
        const struct relay_delivery_result result = {.delivery = 0,
                                                     .verdict = RELAY_ACCEPTED,
                                                     .reply = {.stage = RELAY_AT_DOT, .code = 250}};
        delivered[action->server]++;
        relay_result(world.relay, action->job, action->session, false, &result, 1, world.now);
        world_take(&world);
    } else if (action->kind == RELAY_CLOSE) {
        world_ended(&world, action->session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    } else {
        return;
    }
    answer_all();
}

/* What came out last, and what comes of that. */
static void answer_all(void)
{
    size_t count = world.action_count;
    struct relay_action *actions = calloc(count + 1, sizeof(*actions));
    assert_non_null(actions);
    memcpy(actions, world.actions, count * sizeof(*actions));
    for (size_t i = 0; i < count; i++) {
        answer(&actions[i]);
    }
    free(actions);
}

static void run(int64_t ms)
{
    int64_t end = world.now.steady_ms + ms;
    while (world.now.steady_ms < end) {
        world_wait(&world, end - world.now.steady_ms);
        answer_all();
    }
}

static void add(const char *recipient, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        world_add(&world, ++next_handle, "a@x.example", recipient, 0);
        answer_all();
    }
}

/* M1 is down, M2 and M3 are up, M2 has a warm-up of 60 messages an hour. */
static void start(void)
{
    world_configure(&world);
    world.servers[M2].warm_up = 60;
    memcpy(is_up, (bool[]){false, true, true}, sizeof(is_up));
    memset(delivered, 0, sizeof(delivered));
    next_handle = 0;
    world_start(&world);
    answer_all();
    run(10000);
    assert_int_equal(world_state(&world, M2), SERVER_UP);
}

static void a_stand_in_takes_what_its_warm_up_allows(void **state)
{
    (void)state;
    start();
    add("bob@one.example", 200);
    run(1000);
    assert_in_range(delivered[M2], 1, 3); /* a minute's worth ahead of its time */
    run(HOUR_MS);
    assert_in_range(delivered[M2], 59, 63);
    run(HOUR_MS);
    assert_in_range(delivered[M2], 118, 123);
    assert_int_equal(delivered[M3], 0); /* the others wait: they do not go on down the chain */
    world_close(&world);
}

static void quiet_hours_save_up_nothing(void **state)
{
    (void)state;
    start();
    run(5 * HOUR_MS);
    add("bob@one.example", 100);
    run(1000);
    assert_in_range(delivered[M2], 1, 3);
    world_close(&world);
}

static void the_head_that_returns_takes_the_rest_at_once(void **state)
{
    (void)state;
    start();
    add("bob@one.example", 100);
    run(MINUTE_MS);
    is_up[M1] = true;
    run(5000);
    assert_in_range(delivered[M1], 90, 99);
    assert_int_equal(delivered[M1] + delivered[M2], 100);
    world_close(&world);
}

static void its_own_mail_is_not_held_up(void **state)
{
    (void)state;
    start();
    add("bob@one.example", 100);        /* waits for the warm-up */
    for (unsigned i = 0; i < 50; i++) { /* the relay whose head M2 is */
        world_add(&world, ++next_handle, "ann@one.example", "x@far.example", SPOOL_SENDER_VERIFIED);
        answer_all();
    }
    run(1000);
    assert_in_range(delivered[M2], 51, 53);
    world_close(&world);
}

static void what_is_sent_there_by_hand_goes_now(void **state)
{
    (void)state;
    start();
    add("bob@one.example", 10);
    for (uint32_t handle = 1; handle <= 10; handle++) {
        (void)!relay_redirect(world.relay, (struct spool_handle){handle}, 0, SLICE_LITERAL("m2"),
                              world.now);
        world_take(&world);
        answer_all();
    }
    run(1000);
    assert_int_equal(delivered[M2], 10);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stand_in_takes_what_its_warm_up_allows),
        cmocka_unit_test(quiet_hours_save_up_nothing),
        cmocka_unit_test(the_head_that_returns_takes_the_rest_at_once),
        cmocka_unit_test(its_own_mail_is_not_held_up),
        cmocka_unit_test(what_is_sent_there_by_hand_goes_now),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
