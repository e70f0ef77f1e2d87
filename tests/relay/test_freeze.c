/* SPDX-License-Identifier: Apache-2.0
 *
 * Fire drills: what is held, what goes on, what ends them, what a restart makes of them, and what
 * they count.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mx_answer.h"
#include "relay/freeze.h"
#include "relay/notes.h"
#include "world.h"

enum { MINUTE = 60 * 1000 };

static struct world world;
static struct relay_action jobs[32]; /* given, the first of them answered */
static size_t job_count, jobs_done;

static int start(void **state)
{
    (void)state;
    world_configure(&world);
    world_open(&world);
    relay_start(world.relay, world.now);
    world_take(&world);
    world_up(&world, 0);
    job_count = jobs_done = 0;
    return 0;
}

static int end(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

static enum relay_freeze_bar freeze(uint32_t route, int64_t ms)
{
    enum relay_freeze_bar bar = relay_freeze(world.relay, route, ms, world.now);
    world_take(&world);
    return bar;
}

static uint32_t thaw(void)
{
    uint32_t count = relay_thaw(world.relay, NO_INDEX, RELAY_THAW_STOP, world.now);
    world_take(&world);
    return count;
}

static struct relay_rehearsal report(void)
{
    const struct relay_action *event = world_event(&world, RELAY_EVENT_REHEARSED, 0);
    struct relay_rehearsal rehearsal;
    assert_non_null(event);
    assert_int_equal(event->rehearsal.length, sizeof rehearsal);
    memcpy(&rehearsal, event->rehearsal.data, sizeof rehearsal);
    return rehearsal;
}

/* Time passes: m1 and m3 answer, sessions end when they are asked to. Returns early with the end of
 * a drill, whose actions are then those taken. */
static void pass(int64_t ms)
{
    int64_t until = world.now.steady_ms + ms;
    while (world.now.steady_ms < until) {
        world_wait(&world, until - world.now.steady_ms);
        if (world_event(&world, RELAY_EVENT_THAWED, 0) != NULL) {
            return;
        }
        struct relay_action actions[64];
        size_t count = world.action_count < 64 ? world.action_count : 64;
        memcpy(actions, world.actions, count * sizeof actions[0]);
        world.action_count = 0;
        for (size_t i = 0; i < count; i++) {
            if (actions[i].kind == RELAY_CONNECT && actions[i].server != 1) {
                world_opened(&world, actions[i].session);
            } else if (actions[i].kind == RELAY_CONNECT) {
                world_ended(&world, actions[i].session, RELAY_AT_CONNECT, RELAY_LOST, 0);
            } else if (actions[i].kind == RELAY_CLOSE) {
                world_ended(&world, actions[i].session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
            }
        }
    }
}

/* A session for the first delivery, if none is open. */
static void connect(void)
{
    if (world_count(&world, RELAY_DELIVER) == 0) {
        assert_int_equal(world_count(&world, RELAY_CONNECT) > 0, 1);
        world_opened(&world, world_action(&world, RELAY_CONNECT, 0)->session);
    }
}

static void take_jobs(void)
{
    for (size_t i = 0; i < world_count(&world, RELAY_DELIVER); i++) {
        struct relay_action job = *world_action(&world, RELAY_DELIVER, i);
        bool known = false;
        for (size_t j = 0; j < job_count; j++) {
            known |= jobs[j].job == job.job;
        }
        if (!known) {
            assert_true(job_count < 32);
            jobs[job_count++] = job;
        }
    }
}

/* Answers what has been given until nothing more is. The last input's actions stay taken. */
static void deliver_all(unsigned most)
{
    for (take_jobs(); most-- > 0 && jobs_done < job_count; take_jobs()) {
        world_result(&world, &jobs[jobs_done++], RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    }
}

static void only_its_own_lane_is_held(void **state)
{
    (void)state;
    assert_int_equal(freeze(0, 5 * MINUTE), RELAY_FREEZE_DONE);
    assert_non_null(world_event(&world, RELAY_EVENT_FROZEN, 0));
    assert_int_equal(world_lane(&world, 0).state, LANE_HELD);
    assert_int_equal(world_lane(&world, 0).frozen_until_ms, world.now.wall_ms + 5 * MINUTE);
    assert_int_equal(world_lane(&world, 1).frozen_until_ms, 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    struct relay_delivery_view held;
    assert_true(relay_delivery(world.relay, (struct spool_handle){1}, 0, &held));
    assert_int_equal(held.state, DELIVERY_WAITING);
    assert_true(slice_equal(held.reason, SLICE_LITERAL("a drill holds it back")));
    world_add(&world, 2, "a@x", "bob@two.example", 0);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 1);
    /* By hand it goes. */
    assert_int_equal(
        relay_redirect(world.relay, (struct spool_handle){1}, 0, SLICE_LITERAL("m1"), world.now),
        ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_IN_FLIGHT);
}

static void it_ends_with_its_time_and_tells(void **state)
{
    (void)state;
    assert_int_equal(freeze(0, 5 * MINUTE), RELAY_FREEZE_DONE);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    world_add(&world, 2, "a@x", "bob@one.example", 0);
    pass(5 * MINUTE - 1);
    assert_int_equal(world_lane(&world, 0).state, LANE_HELD);
    pass(1);
    assert_int_equal(world_lane(&world, 0).frozen_until_ms, 0);
    assert_int_equal(world_lane(&world, 0).state, LANE_DRAINING);
    assert_int_equal(world_event(&world, RELAY_EVENT_THAWED, 0)->count, 2);
    assert_int_equal(world_action(&world, RELAY_GLOBAL, 0)->payload.length, 0);
    connect();
    world.now.steady_ms += 7;
    deliver_all(1);
    world.now.steady_ms += 5;
    deliver_all(9);
    struct relay_rehearsal seen = report();
    assert_int_equal(seen.ended, RELAY_THAW_TIME);
    assert_int_equal(seen.held, 2);
    assert_int_equal(seen.delivered, 2);
    assert_int_equal(seen.first_ms, 7);
    assert_int_equal(seen.drained_ms, 12);
    assert_int_equal(seen.out_of_order, 0);
    assert_int_equal(seen.doubled, 0);
    assert_int_equal(world_lane(&world, 0).state, LANE_IDLE);
}

static uint32_t odometer(void)
{
    const struct spool_recipient bob = {.address = SLICE_LITERAL("bob@one.example")};
    const struct spool_message message = {
        .sender = SLICE_LITERAL("a@x"), .recipients = &bob, .recipient_count = 1};
    return relay_odometer(world.relay, &message, world.now);
}

static void mail_grows_no_older(void **state)
{
    (void)state;
    assert_int_equal(freeze(0, 5 * MINUTE), RELAY_FREEZE_DONE);
    uint32_t before = odometer();
    pass(4 * MINUTE);
    assert_int_equal(odometer(), before);
    assert_int_equal(thaw(), 1);
    pass(MINUTE);
    assert_true(odometer() > before);
}

static void it_is_stopped(void **state)
{
    (void)state;
    assert_int_equal(thaw(), 0);
    assert_int_equal(freeze(0, 5 * MINUTE), RELAY_FREEZE_DONE);
    assert_int_equal(freeze(1, 5 * MINUTE), RELAY_FREEZE_DONE);
    assert_int_equal(relay_thaw(world.relay, 1, RELAY_THAW_STOP, world.now), 1);
    world_take(&world);
    assert_int_equal(report().ended, RELAY_THAW_STOP);
    assert_int_equal(report().drained_ms, 0); /* nothing was held */
    assert_int_equal(report().first_ms, -1);
    assert_int_equal(thaw(), 1);
    assert_int_equal(thaw(), 0);
    assert_int_equal(freeze(0, MINUTE), RELAY_FREEZE_DONE);
}

static void a_real_failure_ends_it(void **state)
{
    (void)state;
    world_up(&world, 2);
    assert_int_equal(freeze(1, 5 * MINUTE), RELAY_FREEZE_DONE);
    world_add(&world, 1, "a@x", "bob@two.example", 0);
    assert_int_equal(relay_server_disable(world.relay, 2, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_lane(&world, 1).state, LANE_HELD); /* of m3 it needs nothing now */
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_lane(&world, 1).state, LANE_STOPPED);
    assert_non_null(world_event(&world, RELAY_EVENT_THAWED, 0));
    assert_non_null(world_event(&world, RELAY_EVENT_STOPPED, 0));
    assert_int_equal(report().ended, RELAY_THAW_FAILURE);
    assert_int_equal(report().held, 1);
    assert_int_equal(report().drained_ms, -1);
}

static void where_another_stands_in_mail_goes_at_once(void **state)
{
    (void)state;
    world_up(&world, 2);
    assert_int_equal(freeze(1, 5 * MINUTE), RELAY_FREEZE_DONE);
    world_add(&world, 1, "a@x", "bob@two.example", 0);
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_non_null(world_event(&world, RELAY_EVENT_THAWED, 0));
    connect();
    deliver_all(9);
    assert_int_equal(report().ended, RELAY_THAW_FAILURE);
    assert_int_equal(report().delivered, 1);
    assert_int_equal(freeze(1, MINUTE), RELAY_FREEZE_NO_SERVER);
}

static void the_head_already_away_after_a_restart_ends_it(void **state)
{
    (void)state;
    struct buffer note;
    world_close(&world);
    world_open(&world);
    buffer_init(&note, 0);
    note_encode_freeze(&note, world.now.wall_ms, world.now.wall_ms + MINUTE);
    relay_load_global(world.relay, SLICE_LITERAL("freeze/domain:one.example"), buffer_slice(&note),
                      world.now);
    buffer_clear(&note);
    note_encode_hand(&note, &(struct hand_note){1, true});
    relay_load_global(world.relay, SLICE_LITERAL("server/m1/hand"), buffer_slice(&note), world.now);
    buffer_done(&note);
    assert_true(world_lane(&world, 0).frozen_until_ms > 0);
    relay_start(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_state(&world, 0), SERVER_DISABLED);
    assert_int_equal(world_lane(&world, 0).frozen_until_ms, 0);
    assert_int_equal(report().ended, RELAY_THAW_FAILURE);
}

static void a_troubled_lane_refuses(void **state)
{
    (void)state;
    assert_int_equal(freeze(3, MINUTE), RELAY_FREEZE_STOPPED); /* m3 is down */
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    assert_int_equal(relay_hold(world.relay, (struct spool_handle){1}, 0, SLICE_EMPTY, world.now),
                     ERROR_AGAIN); /* under way */
    deliver_all(9);
    world_add(&world, 2, "a@x", "bob@one.example", 0);
    struct relay_action deliver = *world_action(&world, RELAY_DELIVER, 0);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    assert_int_equal(relay_hold(world.relay, (struct spool_handle){2}, 0, SLICE_EMPTY, world.now),
                     ERROR_NONE);
    world_take(&world);
    world.now.wall_ms += RELAY_FREEZE_OLD_MS;
    assert_int_equal(freeze(0, MINUTE), RELAY_FREEZE_OLD_MAIL);
    assert_int_equal(freeze(1, MINUTE), RELAY_FREEZE_DONE);
    assert_int_equal(freeze(1, MINUTE), RELAY_FREEZE_STANDS);
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    assert_int_equal(relay_server_disable(world.relay, 1, world.now), ERROR_NONE);
    assert_int_equal(relay_server_disable(world.relay, 2, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(freeze(0, MINUTE), RELAY_FREEZE_STOPPED);
}

/* The note as written, given to a new relay. */
static void restart(int64_t away_ms)
{
    char key[64];
    uint8_t payload[64];
    const struct relay_action *note = world_action(&world, RELAY_GLOBAL, 0);
    assert_non_null(note);
    size_t key_length = note->key.length, length = note->payload.length;
    assert_true(key_length <= sizeof key && length > 0 && length <= sizeof payload);
    memcpy(key, note->key.data, key_length);
    memcpy(payload, note->payload.data, length);
    assert_string_equal("freeze/domain:one.example", (key[key_length] = 0, key));
    world_close(&world);
    world.now.wall_ms += away_ms;
    world.now.steady_ms += 12345;
    world_open(&world);
    relay_load_global(world.relay, slice_make(key, key_length), slice_make(payload, length),
                      world.now);
    world_insert(&world, 1, 1, "a@x", "bob@one.example", 0);
    relay_start(world.relay, world.now);
    world_take(&world);
}

static void a_restart_does_not_prolong_it(void **state)
{
    (void)state;
    assert_int_equal(freeze(0, 5 * MINUTE), RELAY_FREEZE_DONE);
    restart(2 * MINUTE);
    assert_non_null(world_event(&world, RELAY_EVENT_FROZEN, 0));
    world_up(&world, 0);
    int64_t left = world_lane(&world, 0).frozen_until_ms - world.now.wall_ms;
    assert_in_range(left, 2 * MINUTE, 3 * MINUTE);
    pass(left - 1);
    assert_int_equal(world_lane(&world, 0).state, LANE_HELD);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    pass(1);
    assert_int_equal(world_lane(&world, 0).frozen_until_ms, 0);
    assert_int_equal(world_lane(&world, 0).state, LANE_DRAINING);
}

static void what_is_over_after_a_restart_ends_at_once(void **state)
{
    (void)state;
    assert_int_equal(freeze(0, 5 * MINUTE), RELAY_FREEZE_DONE);
    restart(6 * MINUTE);
    assert_true(relay_deadline(world.relay) <= world.now.steady_ms);
    relay_tick(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_lane(&world, 0).frozen_until_ms, 0);
    assert_int_equal(world_action(&world, RELAY_GLOBAL, 0)->payload.length, 0);
}

static void a_clock_set_back_does_not_prolong_it(void **state)
{
    (void)state;
    assert_int_equal(freeze(0, 5 * MINUTE), RELAY_FREEZE_DONE);
    restart(-600 * MINUTE);
    assert_true(relay_deadline(world.relay) <= world.now.steady_ms);
    relay_tick(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_lane(&world, 0).frozen_until_ms, 0);
}

static void while_we_run_only_steady_time_counts(void **state)
{
    (void)state;
    assert_int_equal(freeze(0, 5 * MINUTE), RELAY_FREEZE_DONE);
    world.now.wall_ms += 600 * MINUTE;
    pass(3 * MINUTE);
    world.now.wall_ms -= 1200 * MINUTE;
    pass(2 * MINUTE - 1);
    assert_int_equal(world_lane(&world, 0).state, LANE_HELD);
    pass(1);
    assert_int_equal(world_lane(&world, 0).frozen_until_ms, 0);
}

static void an_ended_or_endless_one_is_not_loaded(void **state)
{
    (void)state;
    struct buffer note;
    struct slice key = SLICE_LITERAL("freeze/domain:one.example");
    buffer_init(&note, 0);
    note_encode_freeze(&note, world.now.wall_ms, world.now.wall_ms + RELAY_FREEZE_MAX_MS + 1);
    world_close(&world);
    world_open(&world);
    relay_load_global(world.relay, key, buffer_slice(&note), world.now);
    assert_int_equal(world_lane(&world, 0).frozen_until_ms, 0);
    buffer_clear(&note);
    note_encode_freeze(&note, world.now.wall_ms, world.now.wall_ms + MINUTE);
    relay_load_global(world.relay, key, buffer_slice(&note), world.now);
    assert_true(world_lane(&world, 0).frozen_until_ms > 0);
    relay_load_global(world.relay, key, SLICE_EMPTY, world.now);
    assert_int_equal(world_lane(&world, 0).frozen_until_ms, 0);
    buffer_done(&note);
}

static void a_new_configuration_keeps_it_or_ends_it(void **state)
{
    (void)state;
    assert_int_equal(freeze(0, 5 * MINUTE), RELAY_FREEZE_DONE);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    struct relay_config config = world.config;
    assert_int_equal(relay_reconfigure(world.relay, &config, NULL, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_lane(&world, 0).frozen_until_ms, world.now.wall_ms + 5 * MINUTE);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    struct route_config fewer[WORLD_ROUTES];
    memcpy(fewer, world.routes, sizeof fewer);
    fewer[0].name = SLICE_LITERAL("other.example");
    config.routes = fewer;
    assert_int_equal(relay_reconfigure(world.relay, &config, NULL, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_lane(&world, 0).frozen_until_ms, 0);
    assert_int_equal(report().ended, RELAY_THAW_STOP);
    assert_true(world_event(&world, RELAY_EVENT_THAWED, 0) != NULL);
    assert_int_equal(relay_reconfigure(world.relay, &world.config, NULL, world.now), ERROR_NONE);
    world_take(&world);
}

/* That of a message with one recipient, to be answered whenever. */
static struct relay_action take_job(uint32_t handle)
{
    static const uint32_t only[] = {0};
    const struct relay_action *deliver;
    for (size_t i = 0; (deliver = world_action(&world, RELAY_DELIVER, i)) != NULL; i++) {
        if (deliver->handle.index == handle) {
            struct relay_action kept = *deliver;
            kept.deliveries = only;
            return kept;
        }
    }
    fail_msg("message %u is not under way", handle);
    abort();
}

static void disorder_and_doubts_are_counted(void **state)
{
    (void)state;
    world.routes[0].order_patience_ms = 0;
    assert_int_equal(freeze(0, 1000), RELAY_FREEZE_DONE);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    world_add(&world, 2, "a@x", "bob@one.example", 0);
    pass(1000);
    connect();
    struct relay_action first = take_job(1), second = take_job(2);
    world_result(&world, &first, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    assert_int_equal(relay_retry(world.relay, (struct spool_handle){1}, 0, world.now), ERROR_NONE);
    world_result(&world, &second, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    struct relay_action again = take_job(1);
    world_result(&world, &again, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(report().out_of_order, 1);
    assert_int_equal(report().delivered, 2);
    assert_int_equal(report().doubled, 0);

    assert_int_equal(freeze(0, 1000), RELAY_FREEZE_DONE);
    world_add(&world, 4, "a@x", "bob@one.example", 0);
    assert_int_equal(thaw(), 1);
    connect();
    struct relay_action lost = take_job(4);
    world_result(&world, &lost, RELAY_IN_DOUBT, RELAY_AT_DOT, RELAY_LOST, 0);
    assert_int_equal(report().doubled, 1);
    assert_int_equal(report().delivered, 0);
}

static void envelopes_that_are_all_are_counted_apart(void **state)
{
    (void)state;
    assert_int_equal(freeze(0, 1000), RELAY_FREEZE_DONE);
    world_add(&world, 1, "", "postmaster@one.example", SPOOL_DRILL | SPOOL_ENVELOPE_ONLY);
    world_add(&world, 2, "", "postmaster@one.example", SPOOL_DRILL | SPOOL_ENVELOPE_ONLY);
    world_add(&world, 3, "a@x", "bob@one.example", 0);
    assert_int_equal(thaw(), 1);
    connect();
    struct relay_action first = take_job(1), second = take_job(2), third = take_job(3);
    world_result(&world, &first, RELAY_ACCEPTED, RELAY_AT_RECIPIENT, RELAY_REPLY, 250);
    assert_int_equal(world_action(&world, RELAY_FATE, 0)->fate, SPOOL_DISCARDED);
    world_result(&world, &second, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_action(&world, RELAY_FATE, 0)->fate, SPOOL_DISCARDED);
    assert_int_equal(world_count(&world, RELAY_NOTE), 0); /* no dead letter */
    world_result(&world, &third, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(report().held, 3);
    assert_int_equal(report().delivered, 1);
    assert_int_equal(report().asked, 1);
    assert_int_equal(report().refused, 1);
}

/* ---- MX routing ---------------------------------------------------------------------------- */

static void answer(const char *domain, const char *text)
{
    struct mx_answer_text answer;
    mx_answer_read(&answer, text);
    answer.answer.ttl_s = 3600;
    relay_resolved(world.relay, slice_from_text(domain), &answer.answer, world.now);
    world_take(&world);
}

static int start_mx(void **state)
{
    static struct domain_pattern names[] = {{SLICE_LITERAL("one.example"), false},
                                            {SLICE_LITERAL("also.example"), false}};
    (void)state;
    world_configure(&world);
    world.routes[0].domains = names;
    world.routes[0].domain_count = 2;
    world.routes[0].mx = true;
    world.routes[0].chain_length = 0;
    world.config.exchanger = (struct server_config){.connections = 4,
                                                    .connect_timeout_ms = 30000,
                                                    .greeting_timeout_ms = 60000,
                                                    .probe_interval_ms = 700,
                                                    .failover = NO_INDEX};
    world_start(&world);
    return 0;
}

/* Opens what is to be opened, and answers what is given, until nothing more is. */
static void deliver_here(void)
{
    for (int i = 0; i < 20; i++) {
        const struct relay_action *next = world_action(&world, RELAY_DELIVER, 0);
        if (next != NULL) {
            deliver_all(1);
        } else if ((next = world_action(&world, RELAY_CONNECT, 0)) != NULL) {
            world_opened(&world, next->session);
        } else {
            return;
        }
        if (world_event(&world, RELAY_EVENT_REHEARSED, 0) != NULL) {
            return;
        }
    }
}

static void under_mx_routing_all_names_of_the_domain_are_held(void **state)
{
    (void)state;
    answer("one.example", "10 a 192.0.2.11");
    world_opened(&world, world_action(&world, RELAY_CONNECT, 0)->session);
    world_add(&world, 1, "a@x", "bob@also.example", 0);
    answer("also.example", "10 a 192.0.2.11");
    deliver_here();
    pass(2000);
    assert_int_equal(freeze(0, 5 * MINUTE), RELAY_FREEZE_DONE);
    world_add(&world, 2, "a@x", "bob@also.example", 0);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    world_add(&world, 3, "a@x", "bob@one.example", 0);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    assert_int_equal(thaw(), 1);
    assert_int_equal(world_event(&world, RELAY_EVENT_THAWED, 0)->count, 2);
    deliver_here();
    assert_int_equal(report().held, 2);
    assert_int_equal(report().delivered, 2);
    assert_int_equal(report().drained_ms, 0);
    assert_int_equal(world_lane(&world, 0).state, LANE_IDLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_its_own_lane_is_held, start, end),
        cmocka_unit_test_setup_teardown(it_ends_with_its_time_and_tells, start, end),
        cmocka_unit_test_setup_teardown(mail_grows_no_older, start, end),
        cmocka_unit_test_setup_teardown(it_is_stopped, start, end),
        cmocka_unit_test_setup_teardown(a_real_failure_ends_it, start, end),
        cmocka_unit_test_setup_teardown(where_another_stands_in_mail_goes_at_once, start, end),
        cmocka_unit_test_setup_teardown(the_head_already_away_after_a_restart_ends_it, start, end),
        cmocka_unit_test_setup_teardown(a_troubled_lane_refuses, start, end),
        cmocka_unit_test_setup_teardown(a_restart_does_not_prolong_it, start, end),
        cmocka_unit_test_setup_teardown(what_is_over_after_a_restart_ends_at_once, start, end),
        cmocka_unit_test_setup_teardown(a_clock_set_back_does_not_prolong_it, start, end),
        cmocka_unit_test_setup_teardown(while_we_run_only_steady_time_counts, start, end),
        cmocka_unit_test_setup_teardown(an_ended_or_endless_one_is_not_loaded, start, end),
        cmocka_unit_test_setup_teardown(a_new_configuration_keeps_it_or_ends_it, start, end),
        cmocka_unit_test_setup_teardown(disorder_and_doubts_are_counted, start, end),
        cmocka_unit_test_setup_teardown(envelopes_that_are_all_are_counted_apart, start, end),
        cmocka_unit_test_setup_teardown(under_mx_routing_all_names_of_the_domain_are_held, start_mx,
                                        end),
    };
    return cmocka_run_group_tests_name("freeze", tests, NULL, NULL);
}
