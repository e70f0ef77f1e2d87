/* SPDX-License-Identifier: Apache-2.0
 *
 * ETRN: who is believed, that the answer is the truth, and what it sets going.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mx_answer.h"
#include "relay/etrn.h"
#include "relay/freeze.h"
#include "world.h"

static struct world world;
static struct ip_network office;

static int start(void **state)
{
    (void)state;
    world_configure(&world);
    assert_true(ip_network_from_text(SLICE_LITERAL("203.0.113.0/28"), &office));
    world.routes[0].etrn_from = &office;
    world.routes[0].etrn_from_count = 1;
    world_start(&world);
    return 0;
}

static int end(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

static struct relay_etrn ask(const char *domain, const char *client)
{
    bool below = domain[0] == '@';
    struct ip_address address;
    assert_true(ip_from_text(slice_from_text(client), &address));
    struct relay_etrn etrn =
        relay_etrn(world.relay, slice_from_text(domain + below), below, &address, world.now);
    world_take(&world);
    return etrn;
}

#define assert_etrn(domain, client, wanted, count)                                                 \
    do {                                                                                           \
        struct relay_etrn got_ = ask(domain, client);                                              \
        assert_int_equal(got_.outcome, wanted);                                                    \
        assert_int_equal(got_.messages, count);                                                    \
    } while (0)

#define M1 "192.0.0.1"
#define M2 "192.0.0.2"
#define M3 "192.0.0.3"
#define OFFICE "203.0.113.9"

static void only_servers_of_the_chain_and_etrn_from_are_believed(void **state)
{
    (void)state;
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    assert_etrn("one.example", M1, RELAY_ETRN_COUNTED, 1);
    assert_etrn("ONE.Example", M3, RELAY_ETRN_COUNTED, 1);
    assert_etrn("one.example", OFFICE, RELAY_ETRN_COUNTED, 1);
    assert_etrn("one.example", "203.0.113.99", RELAY_ETRN_DENIED, 0);
    assert_etrn("two.example", M3, RELAY_ETRN_NOTHING, 0);
    assert_etrn("two.example", M2, RELAY_ETRN_DENIED, 0); /* not in that chain */
    assert_etrn("two.example", OFFICE, RELAY_ETRN_DENIED, 0);
    assert_etrn("elsewhere.example", M1, RELAY_ETRN_DENIED, 0);
    assert_etrn("out", M2, RELAY_ETRN_DENIED, 0); /* a relay's name is no domain */
}

static void before_the_start_asking_does_nothing(void **state)
{
    (void)state;
    world_close(&world);
    world_open(&world);
    world_insert(&world, 1, 1, "a@x", "bob@one.example", 0);
    assert_etrn("one.example", M1, RELAY_ETRN_LATER, 0);
    assert_etrn("one.example", "203.0.113.99", RELAY_ETRN_DENIED, 0);
}

static void messages_are_counted_not_recipients(void **state)
{
    (void)state;
    world_add(&world, 1, "a@x", "bob@one.example carol@ONE.example dan@two.example", 0);
    world_add(&world, 2, "a@x", "bob@one.example", 0);
    world_add(&world, 3, "a@x", "bob@two.example", 0);
    assert_etrn("one.example", M1, RELAY_ETRN_COUNTED, 2);
    assert_etrn("two.example", M1, RELAY_ETRN_COUNTED, 2);
    assert_int_equal(
        relay_discard(world.relay, (struct spool_handle){2}, 0, SLICE_EMPTY, world.now),
        ERROR_NONE);
    world_take(&world);
    assert_etrn("one.example", M1, RELAY_ETRN_COUNTED, 1);
    /* What goes elsewhere by hand is not theirs. */
    assert_int_equal(
        relay_redirect(world.relay, (struct spool_handle){3}, 0, SLICE_LITERAL("m2"), world.now),
        ERROR_NONE);
    world_take(&world);
    assert_etrn("two.example", M1, RELAY_ETRN_COUNTED, 1);
}

static void subdomains_are_asked_for_as_far_as_they_are_his(void **state)
{
    (void)state;
    world_add(&world, 1, "a@x", "bob@a.wild.example", 0);
    world_add(&world, 2, "a@x", "bob@b.a.wild.example", 0);
    world_add(&world, 3, "a@x", "bob@c.wild.example", 0);
    world_add(&world, 4, "a@x", "bob@one.example", 0);
    world_add(&world, 5, "a@x", "bob@two.example", 0);
    assert_etrn("a.wild.example", M3, RELAY_ETRN_COUNTED, 1);
    assert_etrn("@a.wild.example", M3, RELAY_ETRN_COUNTED, 2);
    assert_etrn("@wild.example", M3, RELAY_ETRN_COUNTED, 3);
    assert_etrn("@ild.example", M3, RELAY_ETRN_DENIED, 0);
    assert_etrn("@example", M3, RELAY_ETRN_COUNTED, 5);
    assert_etrn("@example", M1, RELAY_ETRN_COUNTED, 2);
    assert_etrn("@example", M2, RELAY_ETRN_COUNTED, 1);
    assert_etrn("@wild.example", M1, RELAY_ETRN_DENIED, 0);
}

static void servers_that_are_away_are_probed_at_once(void **state)
{
    (void)state;
    uint32_t sessions[WORLD_SERVERS];
    for (uint32_t i = 0; i < WORLD_SERVERS; i++) {
        sessions[i] = world_action(&world, RELAY_CONNECT, i)->session;
    }
    for (uint32_t i = 0; i < WORLD_SERVERS; i++) {
        world_ended(&world, sessions[i], RELAY_AT_GREETING, RELAY_REPLY, 554);
    }
    world.now.steady_ms += 200;
    (void)ask("two.example", M1);
    assert_int_equal(world_count(&world, RELAY_CONNECT), 2);
    (void)ask("elsewhere.example", M1);
    (void)ask("one.example", "203.0.113.99");
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0);
    world.now.steady_ms += 200;
    (void)ask("one.example", OFFICE); /* m1 and m3 are being asked: they are knocked at */
    assert_int_equal(world_count(&world, RELAY_CONNECT), 1);
    assert_int_equal(world_action(&world, RELAY_CONNECT, 0)->server, 1);
}

static void what_was_deferred_is_tried_now(void **state)
{
    (void)state;
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    struct relay_action deliver = *world_action(&world, RELAY_DELIVER, 0);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    assert_etrn("two.example", M1, RELAY_ETRN_NOTHING, 0);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    assert_etrn("one.example", M1, RELAY_ETRN_COUNTED, 1);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 1);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_IN_FLIGHT);
}

static void what_the_operator_keeps_back_is_said_so(void **state)
{
    (void)state;
    world_up(&world, 0);
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    world_add(&world, 1, "a@x", "bob@two.example", 0);
    assert_etrn("two.example", M1, RELAY_ETRN_COUNTED, 1); /* m3 is left */
    assert_int_equal(relay_server_disable(world.relay, 2, world.now), ERROR_NONE);
    world_take(&world);
    assert_etrn("two.example", M1, RELAY_ETRN_TAKEN_OUT, 1);
    assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_etrn("two.example", M1, RELAY_ETRN_COUNTED, 1);
    assert_int_equal(relay_hold(world.relay, (struct spool_handle){1}, 0, SLICE_EMPTY, world.now),
                     ERROR_NONE);
    world_take(&world);
    assert_etrn("two.example", M1, RELAY_ETRN_HELD, 1);
    world_add(&world, 2, "a@x", "carol@two.example", 0);
    assert_etrn("two.example", M1, RELAY_ETRN_COUNTED, 1);
}

static void what_a_drill_keeps_back_is_said_so(void **state)
{
    (void)state;
    world_up(&world, 0);
    assert_int_equal(relay_freeze(world.relay, 1, 60000, world.now), RELAY_FREEZE_DONE);
    world_add(&world, 1, "a@x", "bob@two.example", 0);
    assert_etrn("two.example", M1, RELAY_ETRN_DRILL, 1);
    assert_int_equal(relay_thaw(world.relay, 1, RELAY_THAW_STOP, world.now), 1);
    world_take(&world);
    assert_etrn("two.example", M1, RELAY_ETRN_COUNTED, 1);
}

static void a_long_queue_is_looked_at_in_part(void **state)
{
    (void)state;
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    for (uint32_t i = 2; i < RELAY_ETRN_LOOK + 8; i++) {
        world_add(&world, i, "a@x", "bob@two.example", 0);
    }
    assert_etrn("one.example", M1, RELAY_ETRN_UNCOUNTED, 1);
    assert_etrn("wild.example", M3, RELAY_ETRN_DENIED, 0);
    assert_etrn("a.wild.example", M3, RELAY_ETRN_NOTHING, 0); /* known without looking */
    assert_etrn("@wild.example", M3, RELAY_ETRN_STARTED, 0);
}

static void exchangers_of_each_name_are_believed(void **state)
{
    (void)state;
    world_close(&world);
    mx_follow(&world, 3, 0, 0); /* *.wild.example */
    world_start(&world);
    world_add(&world, 1, "x@far.example", "ann@a.wild.example", 0);
    mx_answer(&world, "a.wild.example", "10 host 192.0.2.11", ERROR_NONE, 3600);
    assert_int_not_equal(mx_called(&world, "host"), 0);
    world.now.steady_ms += 200; /* it has been called, and is again at once */
    assert_etrn("a.wild.example", "192.0.2.11", RELAY_ETRN_COUNTED, 1);
    assert_int_equal(world_count(&world, RELAY_KNOCK), 1);
    assert_etrn("a.wild.example", "192.0.2.12", RELAY_ETRN_DENIED, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_servers_of_the_chain_and_etrn_from_are_believed, start,
                                        end),
        cmocka_unit_test_setup_teardown(before_the_start_asking_does_nothing, start, end),
        cmocka_unit_test_setup_teardown(messages_are_counted_not_recipients, start, end),
        cmocka_unit_test_setup_teardown(subdomains_are_asked_for_as_far_as_they_are_his, start,
                                        end),
        cmocka_unit_test_setup_teardown(servers_that_are_away_are_probed_at_once, start, end),
        cmocka_unit_test_setup_teardown(what_was_deferred_is_tried_now, start, end),
        cmocka_unit_test_setup_teardown(what_the_operator_keeps_back_is_said_so, start, end),
        cmocka_unit_test_setup_teardown(what_a_drill_keeps_back_is_said_so, start, end),
        cmocka_unit_test_setup_teardown(a_long_queue_is_looked_at_in_part, start, end),
        cmocka_unit_test_setup_teardown(exchangers_of_each_name_are_believed, start, end),
    };
    return cmocka_run_group_tests_name("etrn", tests, NULL, NULL);
}
