/* SPDX-License-Identifier: Apache-2.0
 *
 * How a server that has come back is loaded again (R5): which delivery is the canary, how wide the
 * ramp is, how long a server that fails again waits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/known.h"
#include "relay/ramp.h"
#include "spool/spool.h"
#include "world.h"

/* ---- the ramp by itself --------------------------------------------------------------------- */

static void take(struct ramp *ramp, uint32_t count, int64_t latency_ms)
{
    for (uint32_t i = 0; i < count; i++) {
        ramp_taken(ramp, 20, latency_ms, 1000000);
    }
}

static void it_doubles_after_as_many_as_it_is_wide(void **state)
{
    (void)state;
    struct ramp ramp;
    ramp_start(&ramp, 1);
    for (uint32_t width = 1; width < 16; width *= 2) {
        assert_int_equal(ramp.width, width);
        take(&ramp, width - 1, 5);
        assert_int_equal(ramp.width, width);
        take(&ramp, 1, 5);
    }
    assert_int_equal(ramp.width, 16);
    take(&ramp, 16, -1);
    assert_int_equal(ramp.width, 20);
    take(&ramp, 100, 5);
    assert_int_equal(ramp.width, 20);
}

static void it_halves_when_the_server_is_pressed_once_for_each_trouble(void **state)
{
    (void)state;
    struct ramp ramp;
    ramp_start(&ramp, UINT32_MAX);
    static const uint32_t widths[] = {10, 5, 2, 1, 1};
    for (int64_t i = 0; i < 5; i++) {
        ramp_pressed(&ramp, 20, i * RAMP_HALVING_GAP_MS);
        ramp_pressed(&ramp, 20, i * RAMP_HALVING_GAP_MS + RAMP_HALVING_GAP_MS - 1);
        assert_int_equal(ramp.width, widths[i]);
    }
}

static void it_halves_when_replies_take_longer_and_longer(void **state)
{
    (void)state;
    struct ramp ramp;
    ramp_start(&ramp, 16);
    take(&ramp, 15, 150);
    take(&ramp, 60, 290); /* less than twice as long */
    assert_int_equal(ramp.width, 20);
    ramp_start(&ramp, 16);
    take(&ramp, 15, 10);
    take(&ramp, 60, 90); /* a hundredth of a second more does not matter to anybody */
    assert_int_equal(ramp.width, 20);
    ramp_start(&ramp, 16);
    take(&ramp, 15, 100);
    take(&ramp, 60, 300);
    assert_int_equal(ramp.width, 10);
}

/* ---- in the world --------------------------------------------------------------------------- */

static struct world world;

static bool find(enum relay_action_kind kind, struct relay_action *ret_action)
{
    for (size_t i = 0; i < world.action_count; i++) {
        if (world.actions[i].kind == kind && world.actions[i].server == 0) {
            *ret_action = world.actions[i];
            return true;
        }
    }
    return false;
}

static struct relay_action expect(enum relay_action_kind kind)
{
    struct relay_action action = {0};
    assert_true(find(kind, &action));
    return action;
}

/* m1 alone, its first connection refused. */
static void start(void)
{
    world_configure(&world);
    world.servers[0].connections = 8;
    world_open(&world);
    relay_start(world.relay, world.now);
    assert_int_equal(relay_server_disable(world.relay, 1, world.now), ERROR_NONE);
    assert_int_equal(relay_server_disable(world.relay, 2, world.now), ERROR_NONE);
    world_take(&world);
    world_ended(&world, expect(RELAY_CONNECT).session, RELAY_AT_CONNECT, RELAY_LOST, 0);
}

/* Steady ms until the next connection is asked for. */
static int64_t await_connect(struct relay_action *ret_connect)
{
    int64_t began = world.now.steady_ms;
    for (int i = 0; i < 100 && !find(RELAY_CONNECT, ret_connect); i++) {
        world_wait(&world, 60000);
        struct relay_action close;
        if (find(RELAY_CLOSE, &close)) {
            world_ended(&world, close.session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
        }
    }
    assert_true(find(RELAY_CONNECT, ret_connect));
    return world.now.steady_ms - began;
}

static struct relay_action greet(void)
{
    struct relay_action connect;
    (void)await_connect(&connect);
    world_opened(&world, connect.session);
    return connect;
}

static void add_sized(uint32_t number, const char *recipient, uint64_t bytes)
{
    struct spool_recipient to = {.address = slice_from_text(recipient)};
    struct spool_message message = {.sequence = number,
                                    .received_ms = world.now.wall_ms,
                                    .body_length = bytes,
                                    .sender = SLICE_LITERAL("a@x"),
                                    .recipients = &to,
                                    .recipient_count = 1};
    assert_true(ip_from_text(SLICE_LITERAL("203.0.113.7"), &message.origin.client.address));
    assert_int_equal(relay_add(world.relay, (struct spool_handle){number}, &message, world.now),
                     ERROR_NONE);
    world_take(&world);
}

static void accept_job(const struct relay_action *job)
{
    world_result(&world, job, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
}

static void the_canary_is_the_oldest_small_one(void **state)
{
    (void)state;
    start();
    add_sized(1, "ann@one.example", 256 << 10);
    add_sized(2, "ann@one.example", 1000); /* behind a large one for the same recipient */
    add_sized(3, "bob@one.example", (256 << 10) - 1);
    add_sized(4, "eve@one.example", 1000);
    (void)greet();
    assert_int_equal(expect(RELAY_DELIVER).handle.index, 3);
    world_close(&world);
    start();
    add_sized(1, "ann@one.example", 1 << 20); /* there is no other */
    (void)greet();
    assert_int_equal(expect(RELAY_DELIVER).handle.index, 1);
    world_close(&world);
}

static void a_recipient_who_was_accepted_before_goes_first(void **state)
{
    (void)state;
    start();
    add_sized(1, "good@one.example", 1000);
    (void)greet();
    struct relay_action job = expect(RELAY_DELIVER);
    accept_job(&job);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    add_sized(2, "x@one.example", 1000);
    job = expect(RELAY_DELIVER);
    world_result(&world, &job, RELAY_CUT, RELAY_AT_CONTENT, RELAY_LOST, 0);
    world_ended(&world, expect(RELAY_CONNECT).session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    world_ended(&world, job.session, RELAY_AT_CONTENT, RELAY_LOST, 0);
    for (uint32_t i = 3; i < 20; i++) {
        char recipient[32];
        snprintf(recipient, sizeof recipient, "r%u@two.example", i);
        add_sized(i, recipient, 1000);
    }
    add_sized(20, "good@one.example", 300 << 10);
    add_sized(21, "good@one.example", 1000);
    (void)greet();
    assert_int_not_equal(expect(RELAY_DELIVER).handle.index, 21); /* it would pass number 20 */
    world_close(&world);
    start();
    add_sized(1, "good@one.example", 1000);
    (void)greet();
    job = expect(RELAY_DELIVER);
    accept_job(&job);
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    add_sized(2, "x@one.example", 1000);
    add_sized(3, "y@one.example", 1000);
    add_sized(4, "GOOD@one.example", 1000);
    assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    (void)greet();
    assert_int_equal(expect(RELAY_DELIVER).handle.index, 4);
    world_close(&world);
}

static struct relay_action jobs[64];
static uint32_t job_count, connects;

/* Opens all sessions that are asked for, and gathers jobs. */
static void pump(void)
{
    struct relay_action actions[64];
    size_t count = world.action_count;
    assert_true(count <= 64);
    memcpy(actions, world.actions, count * sizeof actions[0]);
    world.action_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (actions[i].kind == RELAY_DELIVER) {
            assert_true(job_count < 64);
            jobs[job_count++] = actions[i];
        } else if (actions[i].kind == RELAY_CONNECT) {
            connects++;
            world_opened(&world, actions[i].session);
            pump();
        }
    }
}

static void a_drain_begins_with_one_session_and_doubles(void **state)
{
    (void)state;
    start();
    for (uint32_t i = 1; i <= 60; i++) {
        char recipient[32];
        snprintf(recipient, sizeof recipient, "r%u@one.example", i);
        add_sized(i, recipient, 1000);
    }
    struct relay_action probe;
    (void)await_connect(&probe);
    job_count = connects = 0;
    for (uint32_t taken = 0; taken < 60; taken++) {
        pump();
        /* One while the canary is out, and with the first after it; then 2, 4, 8. */
        uint32_t most = taken < 2 ? 1 : taken < 4 ? 2 : taken < 8 ? 4 : 8;
        assert_int_equal(connects, most);
        assert_true(job_count > 0);
        struct relay_action job = jobs[0];
        memmove(jobs, jobs + 1, --job_count * sizeof jobs[0]);
        accept_job(&job);
    }
    world_close(&world);
}

static void one_that_fails_again_soon_waits_twice_as_long(void **state)
{
    (void)state;
    static const int64_t delays_ms[] = {5000, 10000, 20000, 40000, 60000, 60000};
    start();
    (void)greet();
    (void)greet();
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    for (uint32_t i = 0; i < 6; i++) {
        char recipient[32];
        snprintf(recipient, sizeof recipient, "r%u@one.example", i);
        add_sized(i + 1, recipient, 1000);
        struct relay_action job, connect;
        if (!find(RELAY_DELIVER, &job)) {
            (void)greet();
            job = expect(RELAY_DELIVER);
        }
        world_result(&world, &job, RELAY_CUT, RELAY_AT_CONTENT, RELAY_LOST, 0);
        connect = expect(RELAY_CONNECT);
        world_ended(&world, job.session, RELAY_AT_CONTENT, RELAY_LOST, 0);
        world_opened(&world, connect.session); /* asked at once, but that is not enough */
        assert_int_equal(world_state(&world, 0), SERVER_DOWN);
        world_ended(&world, connect.session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
        assert_int_equal(await_connect(&connect), delays_ms[i]);
        world_opened(&world, connect.session);
        job = expect(RELAY_DELIVER);
        accept_job(&job);
        assert_int_equal(world_state(&world, 0), SERVER_UP);
    }
    world_close(&world);
}

/* ---- what is known -------------------------------------------------------------------------- */

static void what_is_known_is_bounded_and_may_be_forgotten(void **state)
{
    (void)state;
    struct known known = {0};
    assert_false(known_has(&known, 7));
    uint64_t key = 88172645463325252ULL;
    for (uint32_t i = 0; i < 4 * KNOWN_MAX; i++) {
        key ^= key << 13;
        key ^= key >> 7;
        key ^= key << 17;
        known_put(&known, key);
        known_put(&known, key);
        assert_true(known_has(&known, key));
        assert_true(known.room <= KNOWN_MAX && known.used <= known.room);
    }
    known_done(&known);
    assert_false(known_has(&known, key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_doubles_after_as_many_as_it_is_wide),
        cmocka_unit_test(it_halves_when_the_server_is_pressed_once_for_each_trouble),
        cmocka_unit_test(it_halves_when_replies_take_longer_and_longer),
        cmocka_unit_test(the_canary_is_the_oldest_small_one),
        cmocka_unit_test(a_recipient_who_was_accepted_before_goes_first),
        cmocka_unit_test(a_drain_begins_with_one_session_and_doubles),
        cmocka_unit_test(one_that_fails_again_soon_waits_twice_as_long),
        cmocka_unit_test(what_is_known_is_bounded_and_may_be_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
