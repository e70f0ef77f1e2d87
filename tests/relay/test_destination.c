/* SPDX-License-Identifier: Apache-2.0
 *
 * MX routing: when DNS is asked, which exchangers the mail goes to then, when they are tried again,
 * and what goes when nobody needs it any more. Route 2 is the relay "out", route 0 the domain
 * one.example; each test says which of them follow DNS.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mx_answer.h"
#include "world.h"

static struct world world;

static void follow(uint32_t route, uint32_t servers, uint32_t place)
{
    mx_follow(&world, route, servers, place);
}

static void open_world(void)
{
    world_start(&world);
}

/* The relay follows DNS; nothing is up. */
static int setup_relay(void **state)
{
    (void)state;
    world_configure(&world);
    follow(2, 0, 0);
    open_world();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

static void answer_text(const char *domain, const char *text, enum error error, uint32_t ttl_s)
{
    mx_answer(&world, domain, text, error, ttl_s);
}

static void answer(const char *domain, const char *text)
{
    answer_text(domain, text, ERROR_NONE, 3600);
}

static void add(uint32_t handle, const char *recipients)
{
    world_add(&world, handle, "ann@one.example", recipients, SPOOL_SENDER_VERIFIED);
}

static bool is_asked(const char *domain)
{
    return mx_is_asked(&world, domain);
}

static uint32_t called(const char *host)
{
    return mx_called(&world, host);
}

static void accept_all(void)
{
    struct relay_action jobs[8];
    size_t count = 0, done = 0;
    do {
        for (size_t i = 0; i < world_count(&world, RELAY_DELIVER); i++) {
            assert_true(count < 8);
            jobs[count++] = *world_action(&world, RELAY_DELIVER, i);
        }
        if (done < count) {
            world_result(&world, &jobs[done], RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
        }
    } while (done++ < count);
}

static void refuse_connection(uint32_t session)
{
    assert_int_not_equal(session, 0);
    world_ended(&world, session, RELAY_AT_CONNECT, RELAY_LOST, 0);
}

/* Sessions that are asked to end do. */
static void end_sessions(void)
{
    while (world_action(&world, RELAY_CLOSE, 0) != NULL) {
        world_ended(&world, world_action(&world, RELAY_CLOSE, 0)->session, RELAY_AT_IDLE,
                    RELAY_LOCAL, 0);
    }
}

static void pass(int64_t ms)
{
    for (int64_t end = world.now.steady_ms + ms; world.now.steady_ms < end;) {
        world_wait(&world, end - world.now.steady_ms);
        end_sessions();
    }
}

/* Waits until an exchanger of this name is called; or 0. */
static uint32_t wait_for_call(const char *host, int64_t ms)
{
    int64_t end = world.now.steady_ms + ms;
    while (world.now.steady_ms < end) {
        world_wait(&world, end - world.now.steady_ms);
        uint32_t session = called(host);
        if (session != 0) {
            return session;
        }
        end_sessions();
    }
    return 0;
}

static uint32_t count_exchangers(void)
{
    uint32_t count = 0;
    for (uint32_t i = relay_next_exchanger(world.relay, 0); i != NO_INDEX;
         i = relay_next_exchanger(world.relay, i + 1)) {
        count++;
    }
    return count;
}

static struct relay_lane_view lane_named(const char *name)
{
    return mx_lane(&world, name);
}

static uint8_t bounced_with(void)
{
    const struct relay_action *bounce = world_action(&world, RELAY_BOUNCE, 0);
    assert_non_null(bounce);
    assert_int_equal(bounce->reply.enhanced[0], 5);
    return (uint8_t)(bounce->reply.enhanced[1] * 16 + bounce->reply.enhanced[2]);
}

/* ---- a relay ------------------------------------------------------------------------------ */

static void mail_goes_to_the_best_exchanger(void **state)
{
    (void)state;
    add(1, "bob@far.example");
    assert_true(is_asked("far.example"));
    answer("far.example", "20 mx2.far 192.0.2.12; 10 mx1.far 192.0.2.11");
    assert_int_equal(world_count(&world, RELAY_CONNECT), 1); /* the other one is not knocked at */
    const struct relay_action *call = world_action(&world, RELAY_CONNECT, 0);
    assert_int_equal(call->knock_interval_ms, 0);
    const struct server_config *config = relay_server_config(world.relay, call->server);
    assert_int_equal(config->addresses[0].literal.bytes[15], 11);
    assert_int_equal(config->addresses[0].port, 25);
    struct relay_lane_view lane = lane_named("mx:far.example");
    assert_int_equal(lane.deliveries, 1);
    assert_int_equal(lane.state, LANE_FLOWING);
    world_opened(&world, called("mx1.far"));
    accept_all();
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_FINISHED);
    add(2, "bob@far.example carl@far.example"); /* it is known now, and the session is there */
    assert_int_equal(world_count(&world, RELAY_RESOLVE), 0);
    assert_int_equal(world_action(&world, RELAY_DELIVER, 0)->delivery_count, 2);
}

static void the_next_one_takes_over_and_nobody_is_told(void **state)
{
    (void)state;
    add(1, "bob@far.example");
    answer("far.example", "10 mx1.far 192.0.2.11; 20 mx2.far 192.0.2.12");
    refuse_connection(called("mx1.far"));
    assert_null(world_event(&world, RELAY_EVENT_SWITCHED, 0));
    uint32_t session = called("mx2.far");
    assert_int_not_equal(session, 0);
    world_opened(&world, session);
    assert_null(world_event(&world, RELAY_EVENT_SWITCHED, 0));
    accept_all();
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_FINISHED);
}

static void what_dns_rules_out_is_returned(void **state)
{
    (void)state;
    add(1, "bob@gone.example carl@gone.example dora@far.example");
    answer_text("gone.example", "", ERROR_MISSING, 60);
    assert_int_equal(bounced_with(), 0x12);
    assert_int_equal(world_action(&world, RELAY_BOUNCE, 0)->delivery_count, 2); /* one notice */
    assert_int_equal(world_delivery(&world, 1, 2), DELIVERY_WAITING);
    add(2, "bob@null.example");
    answer("null.example", "0 .");
    assert_int_equal(bounced_with(), 0x1a);
    add(3, "bob@ours.example");
    answer("ours.example", "10 mx2.example.net 192.0.2.1; 20 other 192.0.2.2");
    assert_int_equal(bounced_with(), 0x46);
    add(4, "bob@lying.example");
    answer("lying.example", "10 lie 127.0.0.1; 20 lie2 10.0.0.1");
    assert_int_equal(bounced_with(), 0x44);
    add(5, "bob@lying.example"); /* known for a while */
    assert_int_equal(bounced_with(), 0x44);
    assert_int_equal(world_count(&world, RELAY_RESOLVE), 0);
    assert_int_equal(count_exchangers(), 0);
}

static void without_an_answer_mail_waits(void **state)
{
    (void)state;
    int asked = 0;
    add(1, "bob@far.example");
    answer_text("far.example", "", ERROR_IO, 0);
    assert_int_equal(world_count(&world, RELAY_BOUNCE), 0);
    assert_true(lane_named("mx:far.example").trouble.length > 0);
    const struct relay_action *told = world_event(&world, RELAY_EVENT_DNS, 0);
    assert_non_null(told);
    assert_true(slice_equal(told->lane, SLICE_LITERAL("mx:far.example")));
    while (!is_asked("far.example")) {
        world_wait(&world, 600000);
    }
    answer_text("far.example", "10 mx1.far ?", ERROR_NONE, 0); /* the same in other words */
    assert_non_null(world_event(&world, RELAY_EVENT_DNS, 0));
    while (!is_asked("far.example")) {
        world_wait(&world, 600000);
    }
    answer_text("far.example", "", ERROR_TIMEOUT, 0);
    assert_null(world_event(&world, RELAY_EVENT_DNS, 0)); /* told already */
    for (int64_t end = world.now.steady_ms + 3600 * 1000; world.now.steady_ms < end;) {
        world_wait(&world, end - world.now.steady_ms);
        if (world_count(&world, RELAY_RESOLVE) > 0 && is_asked("far.example")) {
            answer_text("far.example", "", ERROR_TIMEOUT, 0);
            asked++;
        }
    }
    assert_in_range(asked, 11, 20); /* ever more rarely, up to each 5 minutes */
    while (!is_asked("far.example")) {
        world_wait(&world, 600000);
    }
    answer("far.example", "10 mx1.far 192.0.2.11");
    assert_int_not_equal(called("mx1.far"), 0);
    assert_non_null(world_event(&world, RELAY_EVENT_DNS, 0));
    assert_int_equal(lane_named("mx:far.example").trouble.length, 0);
}

static void a_lost_question_is_asked_again(void **state)
{
    (void)state;
    add(1, "bob@far.example");
    assert_true(is_asked("far.example"));
    int64_t asked = world.now.steady_ms;
    do {
        world_wait(&world, 100000);
    } while (!is_asked("far.example"));
    assert_in_range(world.now.steady_ms - asked, 30000, 40000);
    relay_sessions_lost(world.relay, 0, 1, world.now); /* with the process that was asked */
    world_take(&world);
    assert_true(is_asked("far.example"));
}

static void an_answer_that_has_expired_is_used_no_more(void **state)
{
    (void)state;
    add(1, "bob@far.example");
    answer_text("far.example", "10 old.far 192.0.2.11", ERROR_NONE, 60);
    world_opened(&world, called("old.far"));
    accept_all();
    pass(61000); /* the session ends, the lane stays a little */
    add(2, "bob@far.example");
    assert_true(is_asked("far.example"));
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0);
    answer("far.example", "10 new.far 192.0.2.12");
    assert_int_not_equal(called("new.far"), 0);
    assert_int_equal(called("old.far"), 0);
}

static void the_oldest_delivery_probes_ever_more_rarely(void **state)
{
    (void)state;
    add(1, "bob@far.example");
    answer_text("far.example", "10 mx1.far 192.0.2.11", ERROR_NONE, 86400);
    refuse_connection(called("mx1.far"));
    refuse_connection(called("mx1.far")); /* suspect: once more at once */
    int64_t last = world.now.steady_ms;
    const int64_t minutes[] = {1, 2, 4, 8, 16, 30, 30};
    for (size_t i = 0; i < sizeof minutes / sizeof minutes[0]; i++) {
        uint32_t session = wait_for_call("mx1.far", 3600 * 1000);
        assert_int_equal(world.now.steady_ms - last, minutes[i] * 60000);
        last = world.now.steady_ms;
        refuse_connection(session);
        assert_null(world_event(&world, RELAY_EVENT_STOPPED, 0));
    }
    assert_int_equal(lane_named("mx:far.example").state, LANE_STOPPED);
    add(2, "carl@far.example"); /* no reason to try earlier */
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0);
    world_opened(&world, wait_for_call("mx1.far", 3600 * 1000));
    assert_int_equal(world_action(&world, RELAY_DELIVER, 0)->handle.index, 1);
    accept_all();
    accept_all();
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_FINISHED);
}

/* Nobody else would ever ask it again. */
static void an_exchanger_that_comes_back_is_believed(void **state)
{
    (void)state;
    add(1, "bob@far.example");
    answer_text("far.example", "10 mx1.far 192.0.2.11", ERROR_NONE, 86400);
    refuse_connection(called("mx1.far"));
    refuse_connection(called("mx1.far"));
    world_opened(&world, wait_for_call("mx1.far", 3600 * 1000));
    struct relay_action job = *world_action(&world, RELAY_DELIVER, 0);
    world_result(&world, &job, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_count(&world, RELAY_BOUNCE), 1);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_FINISHED);
    add(2, "bob@far.example");
    job = *world_action(&world, RELAY_DELIVER, 0);
    world_result(&world, &job, RELAY_REFUSED, RELAY_AT_MAIL, RELAY_REPLY, 550);
    assert_int_equal(world_count(&world, RELAY_BOUNCE), 1);
}

static void destinations_share_an_exchanger(void **state)
{
    (void)state;
    add(1, "bob@one.far");
    answer("one.far", "10 mx.host 192.0.2.11");
    world_opened(&world, called("mx.host"));
    accept_all();
    add(2, "bob@two.far");
    answer("two.far", "10 mx.host 192.0.2.11");
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 1);
    assert_int_equal(count_exchangers(), 1);
}

static void what_nobody_needs_goes(void **state)
{
    (void)state;
    uint32_t lanes = relay_lane_count(world.relay);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 50; i++) {
            char text[64], host[64];
            snprintf(text, sizeof text, "bob@d%u.far", round * 50 + i);
            snprintf(host, sizeof host, "10 mx%u.far 192.0.2.%u", round * 50 + i, i + 1);
            add(i, text);
            answer(text + 4, host);
            while (world_action(&world, RELAY_CONNECT, 0) != NULL) {
                refuse_connection(world_action(&world, RELAY_CONNECT, 0)->session);
            }
            assert_int_equal(
                relay_discard(world.relay, (struct spool_handle){i}, 0, SLICE_EMPTY, world.now),
                ERROR_NONE);
            world_take(&world);
        }
        assert_int_equal(count_exchangers(), 50);
        for (int64_t end = world.now.steady_ms + 400000; world.now.steady_ms < end;) {
            world_wait(&world, end - world.now.steady_ms);
            assert_int_equal(world_count(&world, RELAY_CONNECT), 0); /* nothing waits there */
        }
        assert_int_equal(count_exchangers(), 0);
        assert_int_equal(relay_lane_count(world.relay), lanes);
    }
}

static void the_table_of_exchangers_is_bounded(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 500; i++) {
        char domain[32], text[MX_EXCHANGERS_MAX * 40] = "";
        snprintf(domain, sizeof domain, "bob@d%u.far", i);
        for (uint32_t j = 0; j < MX_EXCHANGERS_MAX; j++) {
            snprintf(text + strlen(text), sizeof text - strlen(text), "%u h%u-%u.far 192.0.2.1;",
                     10 + j, i, j);
        }
        add(i, domain);
        answer(domain + 4, text);
    }
    assert_int_equal(count_exchangers(), RELAY_EXCHANGERS_MAX);
    assert_int_equal(world_delivery(&world, 499, 0), DELIVERY_WAITING); /* there is room later */
    assert_int_equal(lane_named("mx:d499.far").server, NO_INDEX);
}

static void a_doubt_goes_back_to_its_exchanger(void **state)
{
    (void)state;
    add(1, "bob@far.example");
    answer("far.example", "10 mx1.far 192.0.2.11; 20 mx2.far 192.0.2.12");
    refuse_connection(called("mx1.far"));
    uint32_t probe = called("mx1.far");
    world_opened(&world, called("mx2.far"));
    struct relay_action job = *world_action(&world, RELAY_DELIVER, 0);
    uint16_t kind;
    struct slice payload;
    struct spool_handle handle;
    const uint32_t *deliveries;
    uint32_t count;
    assert_int_equal(ERROR_NONE, relay_attempt_note(world.relay, job.job, world.now, &kind,
                                                    &payload, &handle, &deliveries, &count));
    world_result(&world, &job, RELAY_IN_DOUBT, RELAY_AT_DOT, RELAY_LOCAL, 0);
    world_ended(&world, job.session, RELAY_AT_DOT, RELAY_LOCAL, 0);
    world_opened(&world, probe); /* the better one is back, but may not have it */
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    uint32_t again = wait_for_call("mx2.far", 700000);
    world_opened(&world, again);
    assert_int_equal(world_action(&world, RELAY_DELIVER, 0)->session, again);
    accept_all();
    pass(900000);
    assert_int_equal(count_exchangers(), 0);
}

static void mail_redirected_to_an_address_follows_its_domain(void **state)
{
    (void)state;
    add(1, "bob@far.example");
    assert_int_equal(relay_redirect(world.relay, (struct spool_handle){1}, 0,
                                    SLICE_LITERAL("Bob@New.example"), world.now),
                     ERROR_NONE);
    world_take(&world);
    assert_true(is_asked("new.example"));
    answer("new.example", "10 mx.new 192.0.2.11");
    world_opened(&world, called("mx.new"));
    const struct relay_action *job = world_action(&world, RELAY_DELIVER, 0);
    assert_true(slice_equal(job->redirect_to, SLICE_LITERAL("Bob@New.example")));
}

/* ---- beside configured servers ------------------------------------------------------------- */

static void exchangers_follow_a_server(void **state)
{
    (void)state;
    world_configure(&world);
    follow(2, 1, 1); /* m2, then mx */
    open_world();
    world_up(&world, 1);
    add(1, "bob@far.example");
    assert_int_equal(world_count(&world, RELAY_RESOLVE), 0);
    assert_int_equal(relay_server_disable(world.relay, 1, world.now), ERROR_NONE);
    world_take(&world);
    uint32_t sessions[8];
    size_t count = world_count(&world, RELAY_CLOSE);
    assert_in_range(count, 1, 8);
    for (size_t n = 0; n < count; n++) {
        sessions[n] = world_action(&world, RELAY_CLOSE, n)->session;
    }
    for (size_t n = 0; n < count && !is_asked("far.example"); n++) {
        world_ended(&world, sessions[n], RELAY_AT_IDLE, RELAY_LOCAL, 0);
    }
    assert_true(is_asked("far.example"));
    answer("far.example", "10 mx.far 192.0.2.11");
    assert_int_not_equal(called("mx.far"), 0);
}

static void a_server_follows_the_exchangers(void **state)
{
    (void)state;
    world_configure(&world);
    follow(2, 1, 0); /* mx, then m2 */
    open_world();
    world_up(&world, 1);
    add(1, "bob@gone.example");
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0); /* DNS is asked first */
    answer_text("gone.example", "", ERROR_MISSING, 60);
    assert_int_equal(world_count(&world, RELAY_BOUNCE), 0);
    assert_int_equal(lane_named("mx:gone.example").server, 1);
    add(2, "bob@far.example");
    answer("far.example", "10 mx.far 192.0.2.11");
    refuse_connection(called("mx.far"));
    assert_int_equal(lane_named("mx:far.example").server, 1);
}

/* ---- a domain ----------------------------------------------------------------------------- */

static int setup_domain(void **state)
{
    (void)state;
    world_configure(&world);
    follow(0, 0, 0);
    open_world();
    return 0;
}

static void a_domains_exchangers_are_probed_without_mail(void **state)
{
    (void)state;
    assert_true(is_asked("one.example"));
    answer("one.example", "10 primary 192.0.2.11; 20 mx2.example.net 192.0.2.1");
    const struct relay_action *call = world_action(&world, RELAY_CONNECT, 0);
    assert_int_not_equal(call->knock_interval_ms, 0);
    uint32_t server = call->server, session = called("primary");
    assert_int_equal(count_exchangers(), 1);
    world_opened(&world, session);
    assert_int_equal(world_state(&world, server), SERVER_RECOVERING);
    assert_int_equal(lane_named("domain:one.example").server, server);
}

static void a_domains_mail_waits_whatever_dns_says(void **state)
{
    (void)state;
    world_add(&world, 1, "x@far.example", "ann@one.example", 0);
    answer_text("one.example", "", ERROR_MISSING, 60);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    assert_non_null(world_event(&world, RELAY_EVENT_STOPPED, 0));
    struct relay_lane_view lane = lane_named("domain:one.example");
    assert_int_equal(lane.state, LANE_STOPPED);
    assert_true(lane.trouble.length > 0);
    do {
        world_wait(&world, 40000);
    } while (world_count(&world, RELAY_RESOLVE) == 0);
    answer_text("one.example", "10 primary 192.0.2.11", ERROR_NONE, 30);
    uint32_t session = called("primary");
    world_opened(&world, session);
    const struct relay_action *canary = world_action(&world, RELAY_DELIVER, 0);
    world_result(&world, canary, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_non_null(world_event(&world, RELAY_EVENT_DRAINING, 0));
    accept_all();
    do {
        world_wait(&world, 40000);
    } while (world_count(&world, RELAY_RESOLVE) == 0);
    answer_text("one.example", "", ERROR_IO, 30); /* DNS is gone: the primary is not */
    world_add(&world, 2, "x@far.example", "ann@one.example", 0);
    assert_true(lane_named("domain:one.example").server >= RELAY_EXCHANGERS);
    assert_true(world_delivery(&world, 2, 0) == DELIVERY_IN_FLIGHT || called("primary") != 0);
}

static void a_domains_switches_are_told(void **state)
{
    (void)state;
    answer("one.example", "10 a 192.0.2.11; 20 b 192.0.2.12");
    uint32_t a = called("a"), b = called("b");
    world_opened(&world, b);
    refuse_connection(a);
    world_add(&world, 1, "x@far.example", "ann@one.example", 0);
    for (int i = 0; i < 10 && world_count(&world, RELAY_DELIVER) == 0; i++) {
        world_wait(&world, 1000);
        if (called("a") != 0) {
            refuse_connection(called("a"));
        }
    }
    const struct relay_action *event = world_event(&world, RELAY_EVENT_SWITCHED, 0);
    assert_non_null(event);
    assert_false(event->is_head);
}

/* ---- a new configuration ------------------------------------------------------------------- */

static bool read_nothing_called;
static enum error read_nothing(void *context, struct spool_handle handle, struct arena *arena,
                               struct spool_message *ret_message)
{
    (void)context;
    (void)handle;
    (void)arena;
    (void)ret_message;
    read_nothing_called = true;
    return ERROR_IO;
}

static void reconfigure(struct world *next)
{
    const struct relay_envelopes envelopes = {.read = read_nothing};
    assert_int_equal(relay_reconfigure(world.relay, &next->config, &envelopes, world.now),
                     ERROR_NONE);
    world_take(&world);
}

static void a_reload_keeps_what_dns_said_and_the_order(void **state)
{
    (void)state;
    static struct world next, last;
    add(1, "bob@far.example");
    add(2, "bob@far.example");
    answer("far.example", "10 mx1.far 192.0.2.11");
    uint32_t session = called("mx1.far");
    world_configure(&next);
    next.routes[2].mx = true;
    next.routes[2].chain_length = 0;
    next.config.exchanger = world.config.exchanger;
    reconfigure(&next);
    assert_int_equal(world_count(&world, RELAY_RESOLVE), 0);
    assert_int_equal(lane_named("mx:far.example").deliveries, 2);
    world_opened(&world, session);
    assert_int_equal(world_action(&world, RELAY_DELIVER, 0)->handle.index, 1);
    accept_all();
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_FINISHED);
    add(3, "bob@far.example");
    add(4, "bob@far.example");
    world_configure(&last); /* DNS is followed no more: both go to m2, in order */
    reconfigure(&last);
    struct relay_lane_view lane = lane_named("relay:out");
    assert_int_equal(lane.deliveries, 2);
    assert_int_equal(lane_named("mx:far.example").deliveries, 0);
    world_configure(&next);
    next.routes[2].mx = true;
    next.routes[2].chain_length = 0;
    next.routes[2].deliver_only_to = &next.from; /* other rules: what DNS said is asked anew */
    next.routes[2].deliver_only_to_count = 1;
    next.config.exchanger = world.config.exchanger;
    reconfigure(&next);
    assert_int_equal(lane_named("mx:far.example").deliveries, 2);
    assert_false(read_nothing_called);
}

int main(void)
{
#define RELAY(name) cmocka_unit_test_setup_teardown(name, setup_relay, teardown)
#define DOMAIN(name) cmocka_unit_test_setup_teardown(name, setup_domain, teardown)
    const struct CMUnitTest tests[] = {
        RELAY(mail_goes_to_the_best_exchanger),
        RELAY(the_next_one_takes_over_and_nobody_is_told),
        RELAY(what_dns_rules_out_is_returned),
        RELAY(without_an_answer_mail_waits),
        RELAY(a_lost_question_is_asked_again),
        RELAY(an_answer_that_has_expired_is_used_no_more),
        RELAY(the_oldest_delivery_probes_ever_more_rarely),
        RELAY(an_exchanger_that_comes_back_is_believed),
        RELAY(destinations_share_an_exchanger),
        RELAY(what_nobody_needs_goes),
        RELAY(the_table_of_exchangers_is_bounded),
        RELAY(a_doubt_goes_back_to_its_exchanger),
        RELAY(mail_redirected_to_an_address_follows_its_domain),
        cmocka_unit_test_teardown(exchangers_follow_a_server, teardown),
        cmocka_unit_test_teardown(a_server_follows_the_exchangers, teardown),
        DOMAIN(a_domains_exchangers_are_probed_without_mail),
        DOMAIN(a_domains_mail_waits_whatever_dns_says),
        DOMAIN(a_domains_switches_are_told),
        RELAY(a_reload_keeps_what_dns_said_and_the_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
