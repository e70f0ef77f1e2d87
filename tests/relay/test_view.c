/* SPDX-License-Identifier: Apache-2.0
 *
 * What relay shows of its lanes: the oldest delivery, and the servers that it may go to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "world.h"

static struct world world;

static void start(void)
{
    world_configure(&world);
    world_start(&world);
}

/* Seconds since the oldest of the lane was received; -1: it has none. */
static int64_t oldest_s(uint32_t lane)
{
    struct relay_lane_view view;
    relay_look_for_oldest(world.relay);
    relay_lane(world.relay, lane, &view);
    return view.oldest_wall_ms == 0 ? -1 : (world.now.wall_ms - view.oldest_wall_ms) / 1000;
}

/* Only the clocks: what falls due meanwhile is no matter here. */
static void pass(int64_t seconds)
{
    world.now.steady_ms += seconds * 1000;
    world.now.wall_ms += seconds * 1000;
}

static void hold(uint32_t handle)
{
    assert_int_equal(
        relay_hold(world.relay, (struct spool_handle){handle}, 0, SLICE_EMPTY, world.now),
        ERROR_NONE);
}

static void each_lane_has_its_oldest(void **state)
{
    (void)state;
    start();
    assert_int_equal(oldest_s(0), -1);
    world_add(&world, 1, "a@x", "ann@one.example bob@two.example", 0);
    pass(5);
    world_add(&world, 2, "a@x", "bob@two.example", 0);
    world_add(&world, 3, "a@x", "cid@a.wild.example", 0);
    pass(1);
    assert_int_equal(oldest_s(0), 6);
    assert_int_equal(oldest_s(1), 6);
    assert_int_equal(oldest_s(2), -1);
    assert_int_equal(oldest_s(3), 1);
    assert_int_equal(
        relay_discard(world.relay, (struct spool_handle){1}, 1, SLICE_EMPTY, world.now),
        ERROR_NONE);
    assert_int_equal(oldest_s(0), 6);
    assert_int_equal(oldest_s(1), 1);
    world_close(&world);
}

/* It need not wait for its server to be the oldest; but a dead letter waits for nothing. */
static void held_and_deferred_ones_count(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    const struct relay_action *deliver = world_action(&world, RELAY_DELIVER, 0);
    assert_non_null(deliver);
    struct relay_action job = *deliver;
    assert_int_equal(oldest_s(0), 0);
    world_result(&world, &job, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    pass(7);
    world_add(&world, 2, "a@x", "cid@two.example", 0);
    assert_int_equal(oldest_s(0), 7);
    hold(1);
    assert_int_equal(oldest_s(0), 7);
    assert_int_equal(relay_release(world.relay, (struct spool_handle){1}, 0, world.now),
                     ERROR_NONE);
    world_take(&world);
    deliver = world_action(&world, RELAY_DELIVER, 0);
    assert_non_null(deliver);
    job = *deliver;
    world_result(&world, &job, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    assert_int_equal(oldest_s(0), -1);
    world_close(&world);
}

/* The walk is bounded; the heads of the lane's own queues are looked at in any case. */
static void behind_many_older_ones_the_first_that_waits_is_told(void **state)
{
    (void)state;
    start();
    for (uint32_t i = 0; i < RELAY_OLDEST_LOOK; i++) {
        world_add(&world, 1 + i, "a@x", "ann@one.example", 0);
    }
    uint32_t held = RELAY_OLDEST_LOOK + 1;
    pass(5);
    world_add(&world, held, "a@x", "bob@two.example", 0);
    hold(held);
    pass(2);
    world_add(&world, held + 1, "a@x", "cid@two.example", 0);
    pass(1);
    assert_int_equal(oldest_s(1), 1);
    assert_int_equal(
        relay_discard(world.relay, (struct spool_handle){1}, 0, SLICE_EMPTY, world.now),
        ERROR_NONE);
    assert_int_equal(oldest_s(1), 3);
    world_close(&world);
}

static void a_lane_shows_where_it_may_go(void **state)
{
    (void)state;
    start();
    struct relay_lane_view view;
    relay_lane(world.relay, 0, &view);
    assert_int_equal(view.chain_length, 3);
    assert_int_equal(view.chain[2], 2);
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    assert_int_equal(
        relay_redirect(world.relay, (struct spool_handle){1}, 0, SLICE_LITERAL("m3"), world.now),
        ERROR_NONE);
    relay_lane(world.relay, relay_lane_count(world.relay) - 1, &view);
    assert_int_equal(view.chain_length, 1);
    assert_int_equal(view.chain[0], 2);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_lane_has_its_oldest),
        cmocka_unit_test(held_and_deferred_ones_count),
        cmocka_unit_test(behind_many_older_ones_the_first_that_waits_is_told),
        cmocka_unit_test(a_lane_shows_where_it_may_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
