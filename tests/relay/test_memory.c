/* SPDX-License-Identifier: Apache-2.0
 *
 * Mail comes in, and the configuration changes, while the N-th allocation fails, for every N: what
 * was not taken can be said again, nothing else has changed, and everything is delivered in order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/failing_memory.h"
#include "relay/freeze.h"
#include "world.h"

enum { MANY = 20, FAR = 5000 };

static struct world world;
static uint64_t last_sequence; /* of ann's and bob's mail, as delivered */
static uint32_t delivered;

static enum error add(uint32_t handle, const char *const *recipients, uint32_t count)
{
    struct spool_recipient list[MANY];
    for (uint32_t i = 0; i < count; i++) {
        list[i] = (struct spool_recipient){.address = slice_from_text(recipients[i])};
    }
    struct spool_message message = {.sequence = handle,
                                    .received_ms = world.now.wall_ms,
                                    .header_length = 100,
                                    .body_length = 900,
                                    .sender = SLICE_LITERAL("a@x.example"),
                                    .recipients = list,
                                    .recipient_count = count};
    return relay_add(world.relay, (struct spool_handle){handle}, &message, world.now);
}

static const char *const bob[] = {"bob@one.example"};
static const char *const ann[] = {"ann@one.example"};
static const char *many[MANY];

static void begin(void)
{
    static char names[MANY][32];
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "r%d@d%d.wild.example", i, i);
        many[i] = names[i];
    }
    last_sequence = 0;
    delivered = 0;
    world_configure(&world);
    world_open(&world);
    relay_start(world.relay, world.now);
}

/* Servers answer and take everything. */
static void drain(void)
{
    static const struct relay_capabilities none = {0};
    for (int round = 0; round < 200; round++) {
        struct relay_action action;
        while (relay_next(world.relay, &action)) {
            if (action.kind == RELAY_CONNECT) {
                relay_session_opened(world.relay, action.session, &none, world.now);
            } else if (action.kind == RELAY_CLOSE) {
                const struct relay_reply end = {.stage = RELAY_AT_IDLE, .how = RELAY_LOCAL};
                relay_session_ended(world.relay, action.session, &end, world.now);
            } else if (action.kind == RELAY_DELIVER) {
                struct relay_delivery_result results[MANY];
                for (uint32_t i = 0; i < action.delivery_count; i++) {
                    results[i] = (struct relay_delivery_result){
                        .delivery = action.deliveries[i],
                        .verdict = RELAY_ACCEPTED,
                        .reply = {.stage = RELAY_AT_DOT, .how = RELAY_REPLY, .code = 250}};
                }
                if (action.delivery_count == 1 && action.redirect_to.length == 0) {
                    assert_true(action.handle.index > last_sequence);
                    last_sequence = action.handle.index;
                }
                delivered += action.delivery_count;
                relay_result(world.relay, action.job, action.session, false, results,
                             action.delivery_count, world.now);
            }
        }
        world.now.steady_ms += 500;
        world.now.wall_ms += 500;
        relay_tick(world.relay, world.now);
    }
    struct relay_totals totals;
    relay_totals(world.relay, &totals);
    assert_int_equal(totals.deliveries, 0);
    assert_int_equal(totals.messages, 0);
}

/* Adds it, twice if the first time memory is out. */
static void insist(uint32_t handle, const char *const *recipients, uint32_t count)
{
    struct relay_totals before, after;
    relay_totals(world.relay, &before);
    enum error error = add(handle, recipients, count);
    if (error != ERROR_NONE) {
        assert_int_equal(error, ERROR_MEMORY);
        relay_totals(world.relay, &after);
        assert_memory_equal(&before, &after, sizeof(before));
        assert_int_equal(relay_delivery_count(world.relay, (struct spool_handle){handle}), 0);
        assert_int_equal(add(handle, recipients, count), ERROR_NONE);
    }
    assert_int_equal(relay_delivery_count(world.relay, (struct spool_handle){handle}), count);
}

static void a_message_that_finds_no_memory_may_come_again(void **state)
{
    (void)state;
    bool failed = true;
    for (long n = 0; failed; n++) {
        begin();
        memory_fail_at(n);
        insist(10, bob, 1);
        insist(30, bob, 1);
        insist(20, bob, 1); /* loaded after newer mail: its place is before 30 */
        insist(FAR, bob, 1);
        insist(15, many, MANY);
        failed = memory_fail_never();
        drain();
        assert_int_equal(delivered, 4 + MANY);
        world_close(&world);
        assert_true(n < 1000);
    }
}

static void assert_redirected(const char *to)
{
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, (struct spool_handle){40}, 0, &view));
    assert_true(slice_equal(view.redirect_to, slice_from_text(to)));
}

static void a_reload_that_finds_no_memory_changes_nothing(void **state)
{
    (void)state;
    bool failed = true;
    for (long n = 0; failed; n++) {
        begin();
        for (uint32_t handle = 10; handle <= 40; handle += 10) {
            assert_int_equal(add(handle, handle == 40 ? ann : bob, 1), ERROR_NONE);
        }
        assert_int_equal(relay_redirect(world.relay, (struct spool_handle){40}, 0,
                                        SLICE_LITERAL("cy@two.example"), world.now),
                         ERROR_NONE);
        struct relay_config second = world.config;
        struct server_config servers[2] = {world.servers[0], world.servers[2]};
        struct route_config routes[2] = {world.routes[1], world.routes[0]};
        const uint32_t chains[2][2] = {{0, 1}, {1, 0}};
        for (int i = 0; i < 2; i++) {
            routes[i].chain = chains[i];
            routes[i].chain_length = 2;
        }
        second.servers = servers;
        second.server_count = 2;
        second.routes = routes;
        second.route_count = 2;
        second.bounces = NO_INDEX;
        uint32_t lanes = relay_lane_count(world.relay);
        struct relay_lane_view before, after;
        relay_lane(world.relay, lanes - 1, &before);
        memory_fail_at(n);
        enum error error = relay_reconfigure(world.relay, &second, NULL, world.now);
        failed = memory_fail_never();
        if (error != ERROR_NONE) {
            assert_int_equal(error, ERROR_MEMORY);
            assert_int_equal(relay_lane_count(world.relay), lanes);
            relay_lane(world.relay, lanes - 1, &after);
            assert_memory_equal(&before, &after, sizeof(before));
            assert_redirected("cy@two.example");
            if (n % 2 != 0) { /* the old one works on, or it is said again */
                assert_int_equal(relay_reconfigure(world.relay, &second, NULL, world.now),
                                 ERROR_NONE);
            }
        }
        assert_redirected("cy@two.example");
        drain();
        assert_int_equal(delivered, 4);
        world_close(&world);
        assert_true(n < 1000);
    }
}

static void a_drill_that_finds_no_memory_does_not_begin(void **state)
{
    (void)state;
    struct relay_lane_view lane;
    begin();
    drain(); /* m1 is up */
    memory_fail_at(0);
    assert_int_equal(relay_freeze(world.relay, 0, 60000, world.now), RELAY_FREEZE_MEMORY);
    assert_true(memory_fail_never());
    relay_lane(world.relay, 0, &lane);
    assert_int_equal(lane.frozen_until_ms, 0);
    assert_int_equal(relay_freeze(world.relay, 0, 60000, world.now), RELAY_FREEZE_DONE);
    assert_int_equal(add(10, bob, 1), ERROR_NONE);
    assert_int_equal(relay_thaw(world.relay, 0, RELAY_THAW_STOP, world.now), 1);
    drain();
    assert_int_equal(delivered, 1);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_that_finds_no_memory_may_come_again),
        cmocka_unit_test(a_reload_that_finds_no_memory_changes_nothing),
        cmocka_unit_test(a_drill_that_finds_no_memory_does_not_begin),
    };
    return cmocka_run_group_tests_name("relay-memory", tests, NULL, NULL);
}
