/* SPDX-License-Identifier: Apache-2.0
 *
 * When a server is up: every transition of the governor, its probes' timing, what ends sessions,
 * limits, forgiveness, switch and switch-back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "world.h"

static struct world world;

static int start(void **state)
{
    (void)state;
    world_configure(&world);
    world_start(&world);
    return 0;
}

static int end(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

static void start_anew(void)
{
    world_close(&world);
    start(NULL);
}

/* A copy of the first action of this kind for the server. False: there is none. */
static bool find_one(enum relay_action_kind kind, uint32_t server, struct relay_action *ret_action)
{
    for (size_t i = 0; i < world.action_count; i++) {
        if (world.actions[i].kind == kind && world.actions[i].server == server) {
            *ret_action = world.actions[i];
            return true;
        }
    }
    return false;
}

static struct relay_action take_one(enum relay_action_kind kind, uint32_t server)
{
    struct relay_action action = {0};
    if (!find_one(kind, server, &action)) {
        fail_msg("no such action");
    }
    return action;
}

/* Message `number` for rNUMBER@one.example. */
static void add_numbered(uint32_t number)
{
    char recipient[32];
    snprintf(recipient, sizeof recipient, "r%u@one.example", number);
    world_add(&world, number, "a@x", recipient, 0);
}

/* Adds mail from `first` on until a new session to m1 is asked for. */
static struct relay_action add_until_connect(uint32_t first)
{
    struct relay_action connect;
    for (uint32_t i = first; i < 8; i++) {
        add_numbered(i);
        if (find_one(RELAY_CONNECT, 0, &connect)) {
            return connect;
        }
    }
    fail_msg("no new session");
    return (struct relay_action){0};
}

/* The next probe of m1, answering those of the others with a refusal; its delay in ms. */
static struct relay_action next_probe(int64_t *ret_delay)
{
    int64_t began = world.now.steady_ms;
    while (world.now.steady_ms - began < 120000) {
        world_wait(&world, 120000);
        struct relay_action probe = {0};
        struct relay_action actions[16];
        size_t count = world.action_count < 16 ? world.action_count : 16;
        memcpy(actions, world.actions, count * sizeof actions[0]);
        for (size_t i = 0; i < count; i++) {
            if (actions[i].kind == RELAY_CONNECT && actions[i].server == 0) {
                probe = actions[i];
            } else if (actions[i].kind == RELAY_CONNECT) {
                world_ended(&world, actions[i].session, RELAY_AT_CONNECT, RELAY_LOST, 0);
            }
        }
        if (probe.kind == RELAY_CONNECT && probe.session != 0) {
            *ret_delay = world.now.steady_ms - began;
            return probe;
        }
    }
    fail_msg("no probe");
    return (struct relay_action){0};
}

static struct relay_action first_probe(void)
{
    struct relay_action probe = take_one(RELAY_CONNECT, 0);
    struct relay_action second = take_one(RELAY_CONNECT, 1);
    struct relay_action third = take_one(RELAY_CONNECT, 2);
    world_ended(&world, second.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    world_ended(&world, third.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    return probe;
}

static void while_connecting_fails_probes_never_back_off(void **state)
{
    (void)state;
    struct relay_action probe = first_probe();
    for (int i = 0; i < 50; i++) {
        int64_t delay;
        enum relay_stage stage = i % 2 == 0 ? RELAY_AT_CONNECT : RELAY_AT_RESOLVE;
        world_ended(&world, probe.session, stage, RELAY_LOST, 0);
        assert_int_equal(world_state(&world, 0), SERVER_DOWN);
        probe = next_probe(&delay);
        assert_in_range(delay, 560, 840);
    }
    /* One that had no answer for long has knocked all the while: the next goes on at once. */
    world.now.steady_ms += 30000;
    world_ended(&world, probe.session, RELAY_AT_CONNECT, RELAY_TIMEOUT, 0);
    (void)take_one(RELAY_CONNECT, 0);
}

static void without_a_good_greeting_probes_double_up_to_half_a_minute(void **state)
{
    (void)state;
    static const int64_t delays[] = {2000, 4000, 8000, 16000, 30000, 30000};
    struct relay_action probe = first_probe();
    for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
        int64_t delay;
        world_ended(&world, probe.session, RELAY_AT_GREETING, RELAY_REPLY, 554);
        probe = next_probe(&delay);
        assert_int_equal(delay, delays[i]);
    }
}

/* That it cannot be reached, and then that it greets badly, are two stories. */
static void that_another_trouble_keeps_it_down_is_told(void **state)
{
    (void)state;
    int64_t delay;
    struct relay_action probe = first_probe();
    world_ended(&world, probe.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    assert_int_equal(world_state(&world, 0), SERVER_DOWN);
    for (int i = 0; i < 3; i++) {
        probe = next_probe(&delay);
        world_ended(&world, probe.session, i == 0 ? RELAY_AT_CONNECT : RELAY_AT_GREETING,
                    i == 0 ? RELAY_LOST : RELAY_REPLY, i == 0 ? 0 : 554);
        const struct relay_action *told = world_event(&world, RELAY_EVENT_SERVER, 0);
        if (i != 1) { /* the same again */
            assert_null(told);
            continue;
        }
        assert_non_null(told);
        assert_int_equal(told->old_state, SERVER_DOWN);
        assert_int_equal(told->new_state, SERVER_DOWN);
        assert_true(slice_starts_fold(told->reason, SLICE_LITERAL("554")));
    }
}

static void with_nothing_waiting_a_second_good_probe_makes_it_up(void **state)
{
    (void)state;
    struct relay_action probe = first_probe();
    world_opened(&world, probe.session);
    assert_int_equal(world_state(&world, 0), SERVER_RECOVERING);
    int64_t delay;
    probe = next_probe(&delay);
    assert_in_range(delay, 0, 840);
    world_opened(&world, probe.session);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    assert_non_null(world_event(&world, RELAY_EVENT_SERVER, 0));
    assert_int_equal(world_count(&world, RELAY_GLOBAL), 1);
}

static void an_up_server_is_probed_only_when_not_heard_of_for_a_minute(void **state)
{
    (void)state;
    world_up(&world, 0);
    int64_t delay;
    struct relay_action probe = next_probe(&delay);
    assert_in_range(delay, 50000, 60000);
    world_ended(&world, probe.session, RELAY_AT_CONNECT, RELAY_TIMEOUT, 0);
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    probe = take_one(RELAY_CONNECT, 0); /* and asked again at once */
    world_ended(&world, probe.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    assert_int_equal(world_state(&world, 0), SERVER_DOWN);
}

static void an_up_server_that_strangers_doubt_is_asked(void **state)
{
    (void)state;
    world_up(&world, 0);
    relay_server_doubted(world.relay, 0, world.now);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0); /* heard of just now */
    world.now.steady_ms += 1000;
    relay_server_doubted(world.relay, 0, world.now);
    world_take(&world);
    struct relay_action probe = take_one(RELAY_CONNECT, 0);
    world.now.steady_ms += 1000;
    relay_server_doubted(world.relay, 0, world.now);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0); /* one is under way */
    world_opened(&world, probe.session);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    relay_server_doubted(world.relay, 0, world.now);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0);
    world.now.steady_ms += 1000;
    relay_server_doubted(world.relay, 0, world.now);
    world_take(&world);
    probe = take_one(RELAY_CONNECT, 0);
    world_ended(&world, probe.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    probe = take_one(RELAY_CONNECT, 0);
    world_ended(&world, probe.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    assert_int_equal(world_state(&world, 0), SERVER_DOWN);
    world.now.steady_ms += 10;
    relay_server_doubted(world.relay, 0, world.now);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0); /* its own probes go on */
    relay_server_doubted(world.relay, 4711, world.now);
}

static void one_probe_at_a_time_and_a_contact_brings_it_at_once(void **state)
{
    (void)state;
    struct relay_action probe = first_probe();
    assert_in_range(probe.knock_interval_ms, 560, 840);
    struct ip_address own = world.addresses[0].literal;
    relay_contact(world.relay, &own, world.now);
    world_take(&world);
    assert_int_equal(world.action_count, 0); /* one has just begun */
    for (int i = 0; i < 3; i++) {
        world.now.steady_ms += 200;
        relay_contact(world.relay, &own, world.now);
        world_take(&world);
        assert_int_equal(world_count(&world, RELAY_CONNECT), 0); /* one is under way */
        assert_int_equal(take_one(RELAY_KNOCK, 0).session, probe.session);
    }
    world_ended(&world, probe.session, RELAY_AT_GREETING, RELAY_REPLY, 554);
    world.now.steady_ms += 200;
    struct ip_address stranger;
    assert_true(ip_from_text(SLICE_LITERAL("203.0.113.9"), &stranger));
    relay_contact(world.relay, &stranger, world.now);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0);
    relay_contact(world.relay, &own, world.now);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_CONNECT), 1);
}

static void a_disabled_server_is_left_alone_until_brought_back(void **state)
{
    (void)state;
    world_up(&world, 0);
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_state(&world, 0), SERVER_DISABLED);
    assert_int_equal(world_count(&world, RELAY_GLOBAL), 2); /* by hand, and the state */
    int64_t end = world.now.steady_ms + 300000;
    while (world.now.steady_ms < end) {
        world_wait(&world, 10000);
        for (size_t i = 0; i < world.action_count; i++) {
            struct relay_action action = world.actions[i];
            if (action.kind == RELAY_CONNECT) {
                assert_int_not_equal(action.server, 0);
                world_ended(&world, action.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
                break;
            }
        }
    }
    assert_int_equal(relay_server_probe(world.relay, 0, world.now), ERROR_INVALID);
    assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    (void)take_one(RELAY_CONNECT, 0);
}

static void a_421_while_another_session_works_is_a_limit(void **state)
{
    (void)state;
    world_up(&world, 0);
    world_wait(&world, 1);
    add_numbered(1);
    (void)take_one(RELAY_DELIVER, 0);
    /* All idle sessions take work until a new one must be opened. */
    struct relay_action connect = add_until_connect(2);
    world_ended(&world, connect.session, RELAY_AT_GREETING, RELAY_REPLY, 421);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0); /* not tried again and again */
}

static void a_failure_within_a_transaction_needs_a_canarys_success(void **state)
{
    (void)state;
    world_up(&world, 0);
    add_numbered(1);
    struct relay_action deliver = take_one(RELAY_DELIVER, 0);
    world_result(&world, &deliver, RELAY_CUT, RELAY_AT_CONTENT, RELAY_LOST, 0);
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    struct relay_action probe = take_one(RELAY_CONNECT, 0);
    world_opened(&world, probe.session);
    assert_int_equal(world_state(&world, 0), SERVER_RECOVERING);
    deliver = take_one(RELAY_DELIVER, 0);
    assert_int_equal(deliver.session, probe.session);
    /* Two strikes: the message is to blame. */
    world_result(&world, &deliver, RELAY_CUT, RELAY_AT_CONTENT, RELAY_LOST, 0);
    assert_int_equal(world_state(&world, 0), SERVER_DOWN);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, (struct spool_handle){1}, 0, &view));
    assert_true(slice_equal(view.reason, SLICE_LITERAL("breaks sessions")));
    int64_t delay;
    (void)next_probe(&delay);
    assert_int_equal(delay, 5000);
}

static void eight_deferrals_over_three_senders_and_recipients_are_the_servers_trouble(void **state)
{
    (void)state;
    world_up(&world, 0);
    for (uint32_t i = 0; i < 8; i++) {
        char sender[32], recipient[32];
        snprintf(sender, sizeof sender, "s%u@x", i % 3);
        snprintf(recipient, sizeof recipient, "r%u@one.example", i);
        assert_int_equal(world_state(&world, 0), SERVER_UP);
        world_add(&world, i, sender, recipient, 0);
        struct relay_action deliver = take_one(RELAY_DELIVER, 0);
        world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 451);
    }
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    /* It comes back: what was deferred since is due now, its count restored (R3). */
    struct relay_action probe = take_one(RELAY_CONNECT, 0);
    world_opened(&world, probe.session);
    world_add(&world, 20, "s@x", "new@one.example", 0);
    struct relay_action canary = take_one(RELAY_DELIVER, 0);
    world_result(&world, &canary, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    world_wait(&world, 0);
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, (struct spool_handle){3}, 0, &view));
    assert_int_not_equal(view.state, DELIVERY_DEFERRED);
    assert_int_equal(view.attempts, 0);
}

static void greylisting_is_never_the_servers_trouble(void **state)
{
    (void)state;
    world_up(&world, 0);
    for (uint32_t i = 0; i < 30; i++) {
        char sender[32], recipient[32];
        snprintf(sender, sizeof sender, "s%u@x", i);
        snprintf(recipient, sizeof recipient, "r%u@one.example", i);
        world_add(&world, i, sender, recipient, 0);
        struct relay_action deliver = take_one(RELAY_DELIVER, 0);
        world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    }
    assert_int_equal(world_state(&world, 0), SERVER_UP);
}

static void the_lane_stops_drains_and_switches_back_with_an_event_each(void **state)
{
    (void)state;
    struct relay_action probes[3];
    for (uint32_t i = 0; i < 3; i++) {
        probes[i] = take_one(RELAY_CONNECT, i);
    }
    for (uint32_t i = 0; i < 3; i++) {
        world_ended(&world, probes[i].session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    }
    add_numbered(1);
    assert_non_null(world_event(&world, RELAY_EVENT_STOPPED, 0));
    add_numbered(2);
    assert_null(world_event(&world, RELAY_EVENT_STOPPED, 0));
    /* m2 answers its next probe. */
    struct relay_action probe = {0};
    while (!find_one(RELAY_CONNECT, 1, &probe)) {
        world_wait(&world, 5000);
    }
    world_opened(&world, probe.session);
    assert_null(world_event(&world, RELAY_EVENT_DRAINING, 0)); /* it has taken nothing yet */
    struct relay_action deliver = take_one(RELAY_DELIVER, 1);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    const struct relay_action *draining = world_event(&world, RELAY_EVENT_DRAINING, 0);
    assert_non_null(draining);
    assert_int_equal(draining->count, 2);
    deliver = take_one(RELAY_DELIVER, 1);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    const struct relay_action *drained = world_event(&world, RELAY_EVENT_DRAINED, 0);
    assert_non_null(drained);
    assert_int_equal(drained->count, 2);

    start_anew();
    world_up(&world, 1); /* m1 refuses meanwhile */
    assert_int_equal(world_state(&world, 0), SERVER_DOWN);
    add_numbered(1);
    deliver = take_one(RELAY_DELIVER, 1);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    world_up(&world, 0); /* told at once, though no mail comes that shows it */
    const struct relay_action *switched = world_event(&world, RELAY_EVENT_SWITCHED, 0);
    assert_non_null(switched);
    assert_int_equal(switched->from_server, 1);
    assert_int_equal(switched->server, 0);
    assert_true(switched->is_head);
    struct relay_lane_view view;
    relay_lane(world.relay, 0, &view);
    assert_false(view.switched);
    add_numbered(2);
    (void)take_one(RELAY_DELIVER, 0);
    assert_null(world_event(&world, RELAY_EVENT_SWITCHED, 0));
}

static void let_idle_sessions_go(void)
{
    for (int i = 0; i < 20; i++) {
        world_wait(&world, 1000);
        for (size_t j = 0; j < world.action_count; j++) {
            if (world.actions[j].kind == RELAY_CLOSE) {
                uint32_t session = world.actions[j].session;
                world_ended(&world, session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
                j = 0;
            }
        }
    }
}

static void a_silent_server_costs_one_time_out_in_all(void **state)
{
    (void)state;
    world_up(&world, 0);
    world_up(&world, 1);
    let_idle_sessions_go();
    struct relay_action connects[4];
    uint32_t count = 0;
    for (uint32_t i = 0; i < 8; i++) {
        add_numbered(i);
        for (size_t j = 0; j < world.action_count; j++) {
            if (world.actions[j].kind == RELAY_CONNECT && world.actions[j].server == 0) {
                assert_true(count < 4);
                connects[count++] = world.actions[j];
            }
        }
    }
    assert_in_range(count, 1, 4);
    assert_int_equal(connects[0].knock_interval_ms, 0);
    world.now.steady_ms += 60000;
    world_ended(&world, connects[0].session, RELAY_AT_GREETING, RELAY_TIMEOUT, 0);
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    /* The other connections are given up, all mail goes to m2 now. */
    uint32_t closed = 0, to_second = 0;
    for (size_t j = 0; j < world.action_count; j++) {
        closed += world.actions[j].kind == RELAY_CLOSE && world.actions[j].server == 0;
        to_second += world.actions[j].server == 1 && (world.actions[j].kind == RELAY_CONNECT ||
                                                      world.actions[j].kind == RELAY_DELIVER);
    }
    assert_int_equal(closed, count - 1);
    assert_true(to_second > 0);
}

/* How the session with a job on it ends, or is said to have ended by the job's result first. */
static void hang_up(bool result_first, enum relay_how how, uint16_t code)
{
    start_anew();
    world_up(&world, 0);
    world_up(&world, 1);
    let_idle_sessions_go();
    add_numbered(1);
    world_opened(&world, take_one(RELAY_CONNECT, 0).session);
    struct relay_action deliver = take_one(RELAY_DELIVER, 0);
    if (result_first) {
        world_result(&world, &deliver, RELAY_NOT_TRIED, RELAY_AT_IDLE, how, code);
    }
    world_ended(&world, deliver.session, RELAY_AT_IDLE, how, code);
}

static void a_server_that_hangs_up_after_hello_loses_its_mail_to_the_next(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        hang_up(i % 2 == 1, i < 2 ? RELAY_LOST : RELAY_REPLY, i < 2 ? 0 : 421);
        assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
        struct relay_server_view view;
        relay_server(world.relay, 0, &view);
        assert_int_equal(view.failures, 1);
        (void)take_one(RELAY_CONNECT, 1);
    }
    /* It greets each probe, takes the canary, and hangs up again: the probes grow rarer. */
    start_anew();
    struct relay_action probe = first_probe();
    add_numbered(1);
    static const int64_t delays[] = {2000, 4000, 8000, 16000, 30000, 30000};
    for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
        world_opened(&world, probe.session);
        struct relay_action canary = take_one(RELAY_DELIVER, 0);
        if (i % 2 == 0) {
            world_result(&world, &canary, RELAY_NOT_TRIED, RELAY_AT_IDLE, RELAY_LOST, 0);
        }
        world_ended(&world, canary.session, RELAY_AT_IDLE, RELAY_LOST, 0);
        assert_int_equal(world_state(&world, 0), SERVER_DOWN);
        int64_t delay;
        probe = next_probe(&delay);
        assert_int_equal(delay, delays[i]);
    }
}

static void a_421_after_hello_while_another_session_works_is_a_limit(void **state)
{
    (void)state;
    world_up(&world, 0);
    world_wait(&world, 1);
    struct relay_action connect = add_until_connect(1);
    world_opened(&world, connect.session);
    struct relay_action deliver = take_one(RELAY_DELIVER, 0);
    assert_int_equal(deliver.session, connect.session);
    world_ended(&world, connect.session, RELAY_AT_IDLE, RELAY_REPLY, 421);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    assert_int_equal(world_count(&world, RELAY_CONNECT), 0);
}

static void dots_that_are_awaited_take_no_place_of_new_sessions(void **state)
{
    (void)state;
    world_up(&world, 0);
    let_idle_sessions_go();
    struct relay_action jobs[4];
    for (uint32_t i = 0; i < 4; i++) {
        add_numbered(i);
        world_opened(&world, take_one(RELAY_CONNECT, 0).session);
        jobs[i] = take_one(RELAY_DELIVER, 0);
    }
    world_result(&world, &jobs[0], RELAY_IN_DOUBT, RELAY_AT_DOT, RELAY_LOST, 0);
    assert_int_equal(world_count(&world, RELAY_CLOSE), 4);
    struct relay_action probe = take_one(RELAY_CONNECT, 0);
    world_ended(&world, jobs[0].session, RELAY_AT_DOT, RELAY_LOST, 0);
    add_numbered(10);
    world_opened(&world, probe.session);
    struct relay_action canary = take_one(RELAY_DELIVER, 0);
    world_result(&world, &canary, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    for (uint32_t i = 11; i < 14; i++) { /* the ramp: 1, 2, 4 at once */
        add_numbered(i);
        struct relay_action job = take_one(RELAY_DELIVER, 0);
        world_result(&world, &job, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    }
    uint32_t connects = 0;
    for (uint32_t i = 14; i < 20; i++) {
        add_numbered(i);
        connects += (uint32_t)world_count(&world, RELAY_CONNECT);
    }
    assert_int_equal(connects, 3);
    /* Their ends come late, and count for nothing. */
    for (uint32_t i = 1; i < 4; i++) {
        world_result(&world, &jobs[i], RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
        world_ended(&world, jobs[i].session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
        assert_int_equal(world_count(&world, RELAY_CONNECT), 0);
    }
    struct relay_server_view view;
    relay_server(world.relay, 0, &view);
    assert_int_equal(view.sessions, 4);
}

static void a_session_that_we_close_blames_nobody(void **state)
{
    (void)state;
    world_up(&world, 0);
    add_numbered(1);
    struct relay_action deliver = take_one(RELAY_DELIVER, 0);
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    world_ended(&world, deliver.session, RELAY_AT_IDLE, RELAY_LOST, 0);
    struct relay_server_view view;
    relay_server(world.relay, 0, &view);
    assert_int_equal(view.failures, 0);
}

/* Jobs in the order in which they were given out, those on several sessions too. */
static struct relay_action given[16];
static uint32_t given_count;

static void note_jobs(void)
{
    struct relay_action actions[16];
    size_t count = world.action_count < 16 ? world.action_count : 16;
    memcpy(actions, world.actions, count * sizeof actions[0]);
    for (size_t i = 0; i < count; i++) {
        if (actions[i].kind == RELAY_DELIVER) {
            assert_true(given_count < 16);
            given[given_count++] = actions[i];
        }
    }
}

static struct relay_action take_next_job(void)
{
    note_jobs();
    world.action_count = 0;
    assert_true(given_count > 0);
    struct relay_action job = given[0];
    memmove(given, given + 1, --given_count * sizeof given[0]);
    return job;
}

static void answer_job(const struct relay_action *job, enum relay_verdict verdict,
                       enum relay_stage stage, uint16_t code)
{
    struct relay_delivery_result result = {
        .verdict = verdict,
        .reply = {.stage = stage, .how = RELAY_REPLY, .code = code, .text = SLICE_LITERAL("so")}};
    result.delivery = job->delivery;
    relay_result(world.relay, job->job, job->session, false, &result, 1, world.now);
    world_take(&world);
}

/* So many messages for m1, from number `first` on; what it asks for is opened, what it sends taken
 * if `taken`, else left at that. Its sessions then. */
static uint32_t sessions_for(uint32_t first, uint32_t count, bool taken)
{
    for (uint32_t i = 0; i < count; i++) {
        struct relay_action connect;
        add_numbered(first + i);
        note_jobs();
        while (find_one(RELAY_CONNECT, 0, &connect)) {
            world_opened(&world, connect.session);
            note_jobs();
        }
        while (taken && given_count > 0) {
            struct relay_action job = take_next_job();
            answer_job(&job, RELAY_ACCEPTED, RELAY_AT_DOT, 250);
            note_jobs();
        }
        given_count = 0;
    }
    struct relay_server_view view;
    relay_server(world.relay, 0, &view);
    return view.sessions;
}

static void a_limit_learned_from_a_421_eases_by_one_a_minute(void **state)
{
    (void)state;
    for (uint32_t minutes = 1; minutes <= 2; minutes++) { /* without mail for it */
        start_anew();
        given_count = 0;
        world_up(&world, 0);
        world_wait(&world, 1);
        struct relay_action connect = add_until_connect(1);
        world_ended(&world, connect.session, RELAY_AT_GREETING, RELAY_REPLY, 421);
        (void)sessions_for(100, 40, true); /* the ramp is no matter here */
        uint32_t limit = sessions_for(200, 10, false);
        assert_in_range(limit, 1, 2);
        world.now.steady_ms += 59999;
        assert_int_equal(sessions_for(300, 10, false), limit);
        world.now.steady_ms += 1 + (int64_t)(minutes - 1) * 60000;
        assert_int_equal(sessions_for(400, 10, false), limit + minutes);
        world.now.steady_ms += 600000; /* but never beyond what is configured */
        assert_int_equal(sessions_for(500, 10, false), 4);
    }
}

static void refusals_of_a_recovering_server_are_held_and_tried_once_more(void **state)
{
    (void)state;
    given_count = 0;
    struct relay_action probe = first_probe();
    int64_t delay;
    world_ended(&world, probe.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    probe = next_probe(&delay);
    for (uint32_t i = 1; i <= 10; i++) {
        add_numbered(i);
    }
    world_opened(&world, probe.session);
    for (uint32_t i = 1; i <= 4; i++) { /* one at a time, at once, and nothing is lost by it */
        struct relay_action canary = take_one(RELAY_DELIVER, 0);
        assert_int_equal(canary.handle.index, i);
        assert_int_equal(world_count(&world, RELAY_DELIVER), 1);
        world_result(&world, &canary, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
        assert_int_equal(world_delivery(&world, i, 0), DELIVERY_HELD);
        assert_int_equal(world_state(&world, 0), SERVER_RECOVERING);
    }
    struct relay_action good = take_one(RELAY_DELIVER, 0);
    world_result(&world, &good, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    /* What waited goes first. */
    for (uint32_t taken = 0; taken < 5; taken++) {
        struct relay_action job = take_next_job();
        assert_int_equal(job.handle.index, 6 + taken);
        assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
        answer_job(&job, RELAY_ACCEPTED, RELAY_AT_DOT, 250);
    }
    world_wait(&world, 0);
    struct relay_action job = take_one(RELAY_DELIVER, 0);
    assert_int_equal(job.handle.index, 1);
    world_result(&world, &job, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
}

static void five_canaries_refused_are_enough(void **state)
{
    (void)state;
    struct relay_action probe = first_probe();
    int64_t delay;
    world_ended(&world, probe.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    probe = next_probe(&delay);
    for (uint32_t i = 1; i <= 20; i++) {
        add_numbered(i);
    }
    for (uint32_t i = 1; i <= 20; i++) {
        if (i % 5 == 1) {
            world_opened(&world, probe.session);
        }
        struct relay_action canary = take_one(RELAY_DELIVER, 0);
        assert_int_equal(canary.handle.index, i);
        world_result(&world, &canary, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
        assert_int_equal(world_delivery(&world, i, 0), DELIVERY_HELD);
        assert_int_equal(world_state(&world, 0), i % 5 == 0 ? SERVER_DOWN : SERVER_RECOVERING);
        if (i % 5 == 0) {
            world_ended(&world, canary.session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
            probe = next_probe(&delay);
            assert_int_equal(delay, 5000 << (i / 5 - 1));
        }
    }
    /* Nothing waits: those it refused are the canaries, over and over, and none of them dies. */
    world_opened(&world, probe.session);
    for (uint32_t i = 0; i < 20; i++) {
        probe = next_probe(&delay);
        world_opened(&world, probe.session);
        struct relay_action canary;
        if (find_one(RELAY_DELIVER, 0, &canary)) {
            world_result(&world, &canary, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 554);
        }
        assert_int_not_equal(world_state(&world, 0), SERVER_UP);
    }
    for (uint32_t i = 1; i <= 20; i++) {
        assert_int_equal(world_delivery(&world, i, 0), DELIVERY_HELD);
    }
}

static void with_nothing_else_waiting_a_held_refusal_is_tried_when_it_is_up(void **state)
{
    (void)state;
    struct relay_action probe = first_probe();
    int64_t delay;
    world_ended(&world, probe.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    probe = next_probe(&delay);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    world_opened(&world, probe.session);
    struct relay_action canary = take_one(RELAY_DELIVER, 0);
    world_result(&world, &canary, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
    probe = next_probe(&delay);
    assert_in_range(delay, 0, 840);
    world_opened(&world, probe.session);
    canary = take_one(RELAY_DELIVER, 0);
    world_result(&world, &canary, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD); /* twice is final */
}

static void a_server_never_seen_is_believed_as_soon_as_it_is_up(void **state)
{
    (void)state;
    world_close(&world);
    world_configure(&world);
    world.servers[0].hold_5xx_after_recovery_ms = 600000;
    world_start(&world);
    struct relay_action probe = first_probe();
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    world_opened(&world, probe.session);
    struct relay_action job = take_one(RELAY_DELIVER, 0);
    world_result(&world, &job, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
    int64_t delay;
    probe = next_probe(&delay);
    assert_in_range(delay, 0, 840);
    world_opened(&world, probe.session);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    job = take_one(RELAY_DELIVER, 0);
    world_result(&world, &job, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    world_add(&world, 2, "a@x", "eve@one.example", 0);
    job = take_one(RELAY_DELIVER, 0);
    world_result(&world, &job, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_DEAD);
}

#define scene(test) cmocka_unit_test_setup_teardown(test, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        scene(while_connecting_fails_probes_never_back_off),
        scene(without_a_good_greeting_probes_double_up_to_half_a_minute),
        scene(that_another_trouble_keeps_it_down_is_told),
        scene(with_nothing_waiting_a_second_good_probe_makes_it_up),
        scene(an_up_server_is_probed_only_when_not_heard_of_for_a_minute),
        scene(an_up_server_that_strangers_doubt_is_asked),
        scene(one_probe_at_a_time_and_a_contact_brings_it_at_once),
        scene(a_disabled_server_is_left_alone_until_brought_back),
        scene(a_421_while_another_session_works_is_a_limit),
        scene(a_limit_learned_from_a_421_eases_by_one_a_minute),
        scene(a_failure_within_a_transaction_needs_a_canarys_success),
        scene(eight_deferrals_over_three_senders_and_recipients_are_the_servers_trouble),
        scene(greylisting_is_never_the_servers_trouble),
        scene(the_lane_stops_drains_and_switches_back_with_an_event_each),
        scene(a_silent_server_costs_one_time_out_in_all),
        scene(a_server_that_hangs_up_after_hello_loses_its_mail_to_the_next),
        scene(a_421_after_hello_while_another_session_works_is_a_limit),
        scene(dots_that_are_awaited_take_no_place_of_new_sessions),
        scene(a_session_that_we_close_blames_nobody),
        scene(refusals_of_a_recovering_server_are_held_and_tried_once_more),
        scene(five_canaries_refused_are_enough),
        scene(with_nothing_else_waiting_a_held_refusal_is_tried_when_it_is_up),
        scene(a_server_never_seen_is_believed_as_soon_as_it_is_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
