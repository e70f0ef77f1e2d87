/* SPDX-License-Identifier: Apache-2.0
 *
 * What senders ask of TLS (RFC 8689), under MX routing: mail that waives what a domain demands goes
 * over connections of its own, and mail that requires TLS to the exchangers that can take it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mx_answer.h"
#include "world.h"

static struct world world;

#define BOB "bob@far.example"
#define TWO "10 a 192.0.2.1; 20 b 192.0.2.2"

static int setup(void **state)
{
    (void)state;
    world_configure(&world);
    mx_follow(&world, 2, 0, 0);
    world.config.exchanger.tls = SERVER_TLS_DANE;
    world_start(&world);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

static void add(uint32_t handle, uint32_t flags)
{
    world_add(&world, handle, "ann@one.example", BOB, SPOOL_SENDER_VERIFIED | flags);
}

static void answer(const char *text)
{
    mx_answer(&world, "far.example", text, ERROR_NONE, 3600);
}

/* The session called for in the last input; it must be there. */
static struct relay_action call_to(const char *host, bool waived)
{
    for (size_t i = 0; i < world_count(&world, RELAY_CONNECT); i++) {
        const struct relay_action *call = world_action(&world, RELAY_CONNECT, i);
        const struct server_config *config = relay_server_config(world.relay, call->server);
        if (slice_equal(config->name, slice_from_text(host)) && config->waived == waived) {
            return *call;
        }
    }
    fail_msg("%s was not called", host);
    abort();
}

/* It is greeted, and offers this; what is to be delivered there then, if anything. */
static struct relay_action open_with(uint32_t session, uint32_t capabilities)
{
    struct relay_action job = {0};
    world.capabilities = capabilities;
    world_opened(&world, session);
    if (world_count(&world, RELAY_DELIVER) > 0) {
        job = world_one(&world, RELAY_DELIVER);
    }
    return job;
}

/* Edge-out says that the server does not offer REQUIRETLS. */
static void keep_back(const struct relay_action *job)
{
    const struct relay_delivery_result result = {
        .delivery = job->delivery,
        .verdict = RELAY_REFUSED,
        .reply = {.stage = RELAY_AT_MAIL, .how = RELAY_LOCAL, .code = 550, .enhanced = {5, 7, 30}}};
    relay_result(world.relay, job->job, job->session, false, &result, 1, world.now);
    world_take(&world);
}

/* "a" goes on to answer, and to offer nothing, until the other is called, which it must be. */
static struct relay_action live_until_called(const char *host, int64_t ms)
{
    int64_t end = world.now.steady_ms + ms;
    while (mx_called(&world, host) == 0) {
        const struct relay_action *close = world_action(&world, RELAY_CLOSE, 0);
        const struct relay_action *deliver = world_action(&world, RELAY_DELIVER, 0);
        assert_true(world.now.steady_ms < end);
        if (deliver != NULL) {
            const struct relay_action job = *deliver;
            keep_back(&job);
        } else if (mx_called(&world, "a") != 0) {
            (void)open_with(mx_called(&world, "a"), 0);
        } else if (close != NULL) {
            world_ended(&world, close->session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
        } else {
            world_wait(&world, end - world.now.steady_ms);
        }
    }
    return call_to(host, false);
}

/* ---- TLS-Required: No ----------------------------------------------------------------------- */

static void a_waiver_has_connections_of_its_own(void **state)
{
    (void)state;
    add(1, 0);
    add(2, SPOOL_TLS_OPTIONAL);
    answer("10 a 192.0.2.1");
    struct relay_action usual = call_to("a", false), waived = call_to("a", true);
    assert_int_not_equal(usual.server, waived.server);
    assert_int_equal(relay_server_config(world.relay, usual.server)->tls, SERVER_TLS_DANE);
    assert_int_equal(relay_server_config(world.relay, waived.server)->tls,
                     SERVER_TLS_OPPORTUNISTIC);
    assert_int_equal(open_with(waived.session, 0).handle.index, 2);
    /* The other server does not do what is demanded: that is nothing to this one. */
    world_ended(&world, usual.session, RELAY_AT_TLS, RELAY_LOST, 0);
    assert_int_equal(world_state(&world, waived.server), SERVER_UP);
    assert_int_not_equal(world_state(&world, usual.server), SERVER_UP);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
}

/* All that stands for another domain goes as if nothing had been said. */
static void assert_goes_with_the_rest(uint32_t flags)
{
    add(1, 0);
    add(2, flags);
    answer("10 a 192.0.2.1");
    assert_true(world_count(&world, RELAY_CONNECT) > 0);
    for (size_t i = 0; i < world_count(&world, RELAY_CONNECT); i++) {
        uint32_t server = world_action(&world, RELAY_CONNECT, i)->server;
        assert_false(relay_server_config(world.relay, server)->waived);
        assert_int_equal(server, world_action(&world, RELAY_CONNECT, 0)->server);
    }
    assert_int_equal(world_count(&world, RELAY_RESOLVE), 0);
}

static void an_operators_demand_is_not_waived(void **state)
{
    (void)state;
    world.config.exchanger.tls = SERVER_TLS_ENCRYPT;
    assert_goes_with_the_rest(SPOOL_TLS_OPTIONAL);
}

static void requiretls_counts_more(void **state)
{
    (void)state;
    assert_goes_with_the_rest(SPOOL_TLS_OPTIONAL | SPOOL_REQUIRE_TLS);
}

static void waivers_may_be_ignored_but_of_our_own_reports(void **state)
{
    (void)state;
    world.config.exchanger.ignores_waivers = true;
    assert_goes_with_the_rest(SPOOL_TLS_OPTIONAL);
    add(3, SPOOL_TLS_OPTIONAL | SPOOL_OWN_DSN);
    answer("10 a 192.0.2.1");
    (void)call_to("a", true);
}

/* ---- REQUIRETLS ----------------------------------------------------------------------------- */

static void it_goes_to_the_next_that_can_take_it(void **state)
{
    (void)state;
    add(1, SPOOL_REQUIRE_TLS);
    answer(TWO);
    struct relay_action first = call_to("a", false);
    assert_int_equal(open_with(first.session, 0).kind, 0); /* it is not even tried there */
    struct relay_action second = call_to("b", false);
    assert_int_equal(open_with(second.session, RELAY_CAP_REQUIRETLS).handle.index, 1);
    /* Other mail goes to the best. */
    add(2, 0);
    answer(TWO);
    assert_int_equal(world_one(&world, RELAY_DELIVER).session, first.session);
}

static void nobody_can_take_it(void **state)
{
    (void)state;
    add(1, SPOOL_REQUIRE_TLS);
    answer(TWO);
    struct relay_action first = call_to("a", false);
    (void)open_with(first.session, 0);
    struct relay_action job = open_with(call_to("b", false).session, 0);
    assert_int_equal(job.session, first.session);
    keep_back(&job);
    assert_int_equal(world_count(&world, RELAY_BOUNCE), 1);
}

static void another_may_take_it_when_it_is_there(void **state)
{
    (void)state;
    add(1, SPOOL_REQUIRE_TLS);
    answer(TWO);
    struct relay_action first = call_to("a", false);
    (void)open_with(first.session, 0);
    world_ended(&world, call_to("b", false).session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    struct relay_action job = world_one(&world, RELAY_DELIVER);
    struct relay_action verdict = call_to("b", false);
    assert_int_equal(job.session, first.session);
    keep_back(&job);
    world_ended(&world, verdict.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    /* Though nothing waits it is looked for. */
    struct relay_action probe = live_until_called("b", 3600 * 1000);
    (void)open_with(probe.session, RELAY_CAP_REQUIRETLS);
    while (world_count(&world, RELAY_DELIVER) == 0) {
        struct relay_action again = live_until_called("b", 3600 * 1000);
        (void)open_with(again.session, RELAY_CAP_REQUIRETLS);
    }
    job = world_one(&world, RELAY_DELIVER);
    assert_int_not_equal(job.session, first.session);
    world_result(&world, &job, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_BOUNCE), 0);
}

/* Of several hosts behind one name one offers it: what the other says is not the last word. */
static void a_refusal_is_believed_before_what_was_known(void **state)
{
    (void)state;
    add(1, SPOOL_REQUIRE_TLS);
    answer(TWO);
    struct relay_action job = open_with(call_to("a", false).session, RELAY_CAP_REQUIRETLS);
    assert_int_equal(job.handle.index, 1);
    keep_back(&job);
    struct relay_action second = call_to("b", false);
    assert_int_equal(open_with(second.session, RELAY_CAP_REQUIRETLS).handle.index, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_waiver_has_connections_of_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(an_operators_demand_is_not_waived, setup, teardown),
        cmocka_unit_test_setup_teardown(requiretls_counts_more, setup, teardown),
        cmocka_unit_test_setup_teardown(waivers_may_be_ignored_but_of_our_own_reports, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(it_goes_to_the_next_that_can_take_it, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_can_take_it, setup, teardown),
        cmocka_unit_test_setup_teardown(another_may_take_it_when_it_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refusal_is_believed_before_what_was_known, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
