/* SPDX-License-Identifier: Apache-2.0
 *
 * A server that has no address and whose client calls (RFC 2645): what a call is for, how long it
 * lasts, what it says about the server, and that its absence is no trouble.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "relay/atrn.h"
#include "world.h"

/* Routes: 0 one.example > m1 site; 1 two.example > site; 3 wild.example > site. */
enum { M1, SITE, M3 };

static struct world world;

static void start(void)
{
    world_configure(&world);
    world.servers[SITE].name = SLICE_LITERAL("site");
    world.servers[SITE].protocol = SERVER_ODMR;
    world.servers[SITE].address_count = 0;
    world.servers[SITE].connections = 1;
    world.routes[0].chain_length = 2;
    world.routes[1].chain_length = world.routes[3].chain_length = 1;
    world.chains[1][0] = world.chains[3][0] = SITE;
    world.chains[2][0] = M3;
    world.domains[3].wild = false;
    world_start(&world);
}

static struct relay_atrn call(const char *first, const char *second)
{
    struct slice domains[2] = {slice_from_text(first), slice_from_text(second)};
    struct relay_atrn answer = relay_atrn(world.relay, domains, second != NULL ? 2 : 1, world.now);
    world_take(&world);
    return answer;
}

/* The deliver action that came last must be of this message; it is taken. */
static void takes(uint32_t handle, uint32_t session)
{
    const struct relay_action *found = world_action(&world, RELAY_DELIVER, 0);
    assert_non_null(found);
    struct relay_action deliver = *found;
    assert_int_equal(deliver.handle.index, handle);
    assert_int_equal(deliver.session, session);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
}

static bool closes(uint32_t session)
{
    const struct relay_action *close = world_action(&world, RELAY_CLOSE, 0);
    return close != NULL && close->session == session;
}

static void quit(uint32_t session)
{
    assert_true(closes(session));
    world_ended(&world, session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
}

static void that_nobody_calls_is_no_trouble(void **state)
{
    (void)state;
    start();
    assert_int_equal(world_state(&world, SITE), SERVER_DOWN);
    assert_int_equal(world_lane(&world, 1).state, LANE_IDLE);
    world_add(&world, 1, "a@x.example", "u@two.example", 0);
    assert_null(world_event(&world, RELAY_EVENT_STOPPED, 0));
    assert_int_equal(world_lane(&world, 1).state, LANE_IDLE);
    for (int i = 0; i < 600; i++) {
        world_wait(&world, 1000);
        for (size_t j = 0; world_action(&world, RELAY_CONNECT, j) != NULL; j++) {
            assert_int_not_equal(world_action(&world, RELAY_CONNECT, j)->server, SITE);
        }
    }
    struct relay_server_view view;
    relay_server(world.relay, SITE, &view);
    assert_int_equal(view.failures, 0);
    assert_int_equal(relay_server_probe(world.relay, SITE, world.now), ERROR_DENIED);
    world_close(&world);
}

static void a_call_takes_in_order_what_waits_and_ends(void **state)
{
    (void)state;
    start();
    assert_int_equal(call("two.example", NULL).outcome, RELAY_ATRN_NOTHING);
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0);
    world_add(&world, 1, "a@x.example", "u@two.example", 0);
    world_add(&world, 2, "a@x.example", "v@two.example", 0);
    struct relay_atrn answer = call("Two.Example", NULL);
    assert_int_equal(answer.outcome, RELAY_ATRN_TURN);
    assert_int_equal(answer.deliveries, 2);
    assert_int_equal(world_action(&world, RELAY_CONNECT, 0)->session, answer.session);
    assert_int_equal(world_action(&world, RELAY_CONNECT, 0)->knock_interval_ms, 0);
    assert_int_equal(world_state(&world, SITE), SERVER_DOWN);
    world_opened(&world, answer.session);
    assert_int_equal(world_state(&world, SITE), SERVER_UP);
    assert_non_null(world_event(&world, RELAY_EVENT_DRAINING, 0));
    struct relay_action second = *world_action(&world, RELAY_DELIVER, 1); /* pipelined behind it */
    assert_int_equal(second.handle.index, 2);
    takes(1, answer.session);
    assert_int_equal(world_action(&world, RELAY_FATE, 0)->fate, SPOOL_PULLED);
    assert_int_equal(world_event(&world, RELAY_EVENT_DELIVERED, 0)->fate, SPOOL_PULLED);
    assert_false(closes(answer.session));
    world_result(&world, &second, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_non_null(world_event(&world, RELAY_EVENT_DRAINED, 0));
    quit(answer.session);
    assert_int_equal(world_state(&world, SITE), SERVER_DOWN);
    assert_null(world_event(&world, RELAY_EVENT_STOPPED, 0));
    assert_int_equal(call("two.example", NULL).outcome, RELAY_ATRN_NOTHING);
    struct relay_server_view view;
    relay_server(world.relay, SITE, &view);
    assert_int_equal(view.used, 2);
    assert_int_equal(view.failures, 0);
    world_close(&world);
}

static void a_call_is_for_the_domains_that_it_names(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x.example", "u@two.example", 0);
    world_add(&world, 2, "a@x.example", "u@wild.example", 0);
    struct relay_atrn answer = call("wild.example", NULL);
    assert_int_equal(answer.deliveries, 1);
    world_opened(&world, answer.session);
    takes(2, answer.session);
    quit(answer.session);
    answer = call("two.example", "wild.example");
    assert_int_equal(answer.deliveries, 1);
    world_opened(&world, answer.session);
    struct relay_action deliver = *world_action(&world, RELAY_DELIVER, 0);
    assert_int_equal(deliver.handle.index, 1);
    world_add(&world, 4, "a@x.example", "u@one.example", 0); /* is not called for */
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    world_add(&world, 3, "a@x.example", "u@wild.example", 0); /* is, and comes during the call */
    takes(3, answer.session);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    quit(answer.session);
    world_close(&world);
}

static void who_may_not_have_it_is_refused(void **state)
{
    (void)state;
    start();
    assert_int_equal(call("none.example", NULL).outcome, RELAY_ATRN_DENIED);
    assert_int_equal(call("two.example", "none.example").outcome, RELAY_ATRN_DENIED);
    world.chains[1][0] = M3; /* as after a reload: not its server any more */
    assert_int_equal(call("two.example", NULL).outcome, RELAY_ATRN_DENIED);
    world_close(&world);
}

static void there_is_one_call_at_a_time(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x.example", "u@two.example", 0);
    world_add(&world, 2, "a@x.example", "u@wild.example", 0);
    struct relay_atrn answer = call("two.example", NULL);
    assert_int_equal(call("two.example", NULL).outcome, RELAY_ATRN_BUSY);
    world_opened(&world, answer.session);
    struct relay_action deliver = *world_action(&world, RELAY_DELIVER, 0);
    assert_int_equal(call("wild.example", NULL).outcome, RELAY_ATRN_BUSY);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    quit(answer.session);
    assert_int_equal(call("wild.example", NULL).outcome, RELAY_ATRN_TURN);
    world_close(&world);
}

static void the_operator_takes_it_out_and_brings_it_back(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x.example", "u@two.example", 0);
    assert_int_equal(relay_server_disable(world.relay, SITE, world.now), ERROR_NONE);
    world_take(&world);
    assert_non_null(world_event(&world, RELAY_EVENT_STOPPED, 0));
    assert_int_equal(world_lane(&world, 1).state, LANE_STOPPED);
    assert_int_equal(call("two.example", NULL).outcome, RELAY_ATRN_OUT);
    assert_int_equal(relay_server_enable(world.relay, SITE, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_state(&world, SITE), SERVER_DOWN);
    assert_int_equal(call("two.example", NULL).outcome, RELAY_ATRN_TURN);
    world_close(&world);
}

/* Its connection breaks on a message: nothing is lost, and the next call is believed slowly. */
static void a_call_that_breaks_leaves_the_rest_for_the_next(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x.example", "u@two.example", 0);
    world_add(&world, 2, "a@x.example", "v@two.example", 0);
    struct relay_atrn answer = call("two.example", NULL);
    world_opened(&world, answer.session);
    struct relay_action deliver = *world_action(&world, RELAY_DELIVER, 0);
    world_result(&world, &deliver, RELAY_CUT, RELAY_AT_CONTENT, RELAY_LOST, 0);
    world_ended(&world, answer.session, RELAY_AT_CONTENT, RELAY_LOST, 0);
    assert_int_equal(world_state(&world, SITE), SERVER_DOWN);
    assert_null(world_event(&world, RELAY_EVENT_STOPPED, 0));
    assert_int_equal(world_lane(&world, 1).state, LANE_IDLE);
    struct relay_server_view view;
    relay_server(world.relay, SITE, &view);
    assert_true(view.failures > 0);
    answer = call("two.example", NULL);
    assert_int_equal(answer.outcome, RELAY_ATRN_TURN);
    assert_int_equal(answer.deliveries, 2);
    world_opened(&world, answer.session);
    assert_int_equal(world_state(&world, SITE), SERVER_RECOVERING);
    takes(1, answer.session);
    assert_int_equal(world_state(&world, SITE), SERVER_UP);
    takes(2, answer.session);
    quit(answer.session);
    assert_int_equal(world_state(&world, SITE), SERVER_DOWN);
    world_close(&world);
}

static void what_never_became_a_connection_is_no_failure(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x.example", "u@two.example", 0);
    struct relay_atrn answer = call("two.example", NULL);
    world_ended(&world, answer.session, RELAY_AT_CONNECT, RELAY_LOCAL, 0);
    struct relay_server_view view;
    relay_server(world.relay, SITE, &view);
    assert_int_equal(view.state, SERVER_DOWN);
    assert_int_equal(view.failures, 0);
    assert_int_equal(call("two.example", NULL).outcome, RELAY_ATRN_TURN);
    world_close(&world);
}

static void what_was_deferred_is_due_at_the_next_call(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x.example", "u@two.example", 0);
    struct relay_atrn answer = call("two.example", NULL);
    world_opened(&world, answer.session);
    struct relay_action deliver = *world_action(&world, RELAY_DELIVER, 0);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    quit(answer.session);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    answer = call("two.example", NULL);
    assert_int_equal(answer.outcome, RELAY_ATRN_TURN);
    world_opened(&world, answer.session);
    takes(1, answer.session);
    world_close(&world);
}

/* A refusal in an ordinary call is the client's word: it is no half-repaired primary. */
static void a_refusal_is_final(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x.example", "u@two.example", 0);
    struct relay_atrn answer = call("two.example", NULL);
    world_opened(&world, answer.session);
    struct relay_action deliver = *world_action(&world, RELAY_DELIVER, 0);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    world_close(&world);
}

/* The state that is found at a start is down as ever, and no trouble that it has to live down. */
static void a_restart_does_not_make_it_doubtful(void **state)
{
    (void)state;
    char key[128], payload[512];
    start();
    world_add(&world, 1, "a@x.example", "u@two.example", 0);
    struct relay_atrn answer = call("two.example", NULL);
    world_opened(&world, answer.session);
    takes(1, answer.session);
    quit(answer.session);
    const struct relay_action *note = world_action(&world, RELAY_GLOBAL, 0);
    assert_non_null(note);
    struct slice noted_key = slice_make(key, note->key.length);
    struct slice noted = slice_make(payload, note->payload.length);
    memcpy(key, note->key.data, note->key.length);
    memcpy(payload, note->payload.data, note->payload.length);
    world_close(&world);
    world_open(&world);
    relay_load_global(world.relay, noted_key, noted, world.now);
    relay_start(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_state(&world, SITE), SERVER_DOWN);
    world_add(&world, 2, "a@x.example", "u@two.example", 0);
    answer = call("two.example", NULL);
    world_opened(&world, answer.session);
    assert_int_equal(world_state(&world, SITE), SERVER_UP);
    struct relay_action deliver = *world_action(&world, RELAY_DELIVER, 0);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_DEAD);
    world_close(&world);
}

/* The head of the chain first, always (R4). */
static void behind_a_working_server_there_is_nothing_to_fetch(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x.example", "u@one.example", 0);
    world_wait(&world, 40000);
    assert_int_not_equal(world_state(&world, M1), SERVER_UP);
    struct relay_atrn answer = call("one.example", NULL);
    assert_int_equal(answer.outcome, RELAY_ATRN_TURN);
    world_ended(&world, answer.session, RELAY_AT_CONNECT, RELAY_LOCAL, 0);
    world_close(&world);
    start();
    world_up(&world, M1);
    for (uint32_t i = 1; i <= 5; i++) { /* they wait for their turn */
        world_add(&world, i, "a@x.example", "u@one.example", 0);
    }
    assert_int_equal(call("one.example", NULL).outcome, RELAY_ATRN_NOTHING);
    world_close(&world);
}

static void a_new_configuration_ends_the_call(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x.example", "u@two.example", 0);
    world_add(&world, 2, "a@x.example", "v@two.example", 0);
    world_add(&world, 3, "a@x.example", "w@two.example", 0);
    struct relay_atrn answer = call("two.example", NULL);
    world_opened(&world, answer.session);
    struct relay_action first = *world_action(&world, RELAY_DELIVER, 0);
    struct relay_action second = *world_action(&world, RELAY_DELIVER, 1);
    assert_int_equal(relay_reconfigure(world.relay, &world.config, NULL, world.now), ERROR_NONE);
    world_take(&world);
    world_result(&world, &first, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    world_result(&world, &second, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    quit(answer.session);
    answer = call("two.example", NULL);
    assert_int_equal(answer.outcome, RELAY_ATRN_TURN);
    assert_int_equal(answer.deliveries, 1);
    world_close(&world);
}

static void nothing_is_redirected_to_it(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x.example", "u@out.example", 0);
    assert_int_equal(
        relay_redirect(world.relay, (struct spool_handle){1}, 0, SLICE_LITERAL("site"), world.now),
        ERROR_INVALID);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(that_nobody_calls_is_no_trouble),
        cmocka_unit_test(a_call_takes_in_order_what_waits_and_ends),
        cmocka_unit_test(a_call_is_for_the_domains_that_it_names),
        cmocka_unit_test(who_may_not_have_it_is_refused),
        cmocka_unit_test(there_is_one_call_at_a_time),
        cmocka_unit_test(the_operator_takes_it_out_and_brings_it_back),
        cmocka_unit_test(a_call_that_breaks_leaves_the_rest_for_the_next),
        cmocka_unit_test(what_never_became_a_connection_is_no_failure),
        cmocka_unit_test(what_was_deferred_is_due_at_the_next_call),
        cmocka_unit_test(a_refusal_is_final),
        cmocka_unit_test(a_restart_does_not_make_it_doubtful),
        cmocka_unit_test(behind_a_working_server_there_is_nothing_to_fetch),
        cmocka_unit_test(a_new_configuration_ends_the_call),
        cmocka_unit_test(nothing_is_redirected_to_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
