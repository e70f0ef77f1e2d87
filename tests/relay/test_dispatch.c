/* SPDX-License-Identifier: Apache-2.0
 *
 * From acceptance to fate: probes, chains, order per recipient, deferral and return, doubts.
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

static void accepted(struct relay_action deliver)
{
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
}

static void every_server_is_probed_at_the_start(void **state)
{
    (void)state;
    start();
    assert_int_equal(world_count(&world, RELAY_CONNECT), 3);
    world_close(&world);
}

static void the_first_good_probe_carries_the_first_delivery(void **state)
{
    (void)state;
    world_configure(&world);
    world_open(&world);
    world_add(&world, 7, "a@x.example", "bob@one.example", 0);
    assert_int_equal(world.action_count, 0); /* nothing before the start */
    relay_start(world.relay, world.now);
    world_take(&world);
    struct relay_action connect = world_one(&world, RELAY_CONNECT);
    assert_int_equal(connect.server, 0);
    world_opened(&world, connect.session);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(deliver.session, connect.session);
    assert_int_equal(deliver.handle.index, 7);
    assert_int_equal(world_state(&world, 0), SERVER_RECOVERING);
    accepted(deliver);
    struct relay_action fate = world_one(&world, RELAY_FATE);
    assert_int_equal(fate.handle.index, 7);
    assert_int_equal(fate.fate, SPOOL_DELIVERED);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    struct relay_totals totals;
    relay_totals(world.relay, &totals);
    assert_int_equal(totals.messages, 0);
    assert_int_equal(totals.oldest_wall_ms, 0);
    world_close(&world);
}

static void a_refused_server_costs_one_step_and_the_next_is_taken(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_wait(&world, 100);
    /* m2 answers too. */
    world_up(&world, 1);
    world_wait(&world, 6000); /* idle sessions are closed */
    world_wait(&world, 6000);
    world_add(&world, 1, "a@x.example", "bob@one.example", 0);
    const struct relay_action *deliver = world_action(&world, RELAY_DELIVER, 0);
    if (deliver != NULL) { /* a session was still open */
        struct relay_action copy = *deliver;
        world_result(&world, &copy, RELAY_CUT, RELAY_AT_MAIL, RELAY_LOST, 0);
    } else {
        struct relay_action connect = world_one(&world, RELAY_CONNECT);
        assert_int_equal(connect.server, 0);
        world_ended(&world, connect.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    }
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    bool second = false;
    for (size_t i = 0; i < world.action_count; i++) {
        second |=
            (world.actions[i].kind == RELAY_CONNECT || world.actions[i].kind == RELAY_DELIVER) &&
            world.actions[i].server == 1;
    }
    assert_true(second);
    world_close(&world);
}

static void recipients_too_many_go_next_over_the_same_session(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x.example", "a@one.example b@one.example c@one.example", 0);
    uint32_t session = 0;
    for (uint32_t first = 0; first < 3; first++) {
        struct relay_action deliver = world_one(&world, RELAY_DELIVER);
        session = first == 0 ? deliver.session : session;
        assert_int_equal(deliver.session, session);
        assert_int_equal(deliver.delivery_count, 3 - first);
        struct relay_delivery_result results[3];
        for (uint32_t i = 0; i < 3 - first; i++) {
            results[i] = (struct relay_delivery_result){
                .delivery = deliver.deliveries[i],
                .verdict = i == 0 ? RELAY_ACCEPTED : RELAY_NOT_TRIED,
                .reply = {.stage = i == 0 ? RELAY_AT_DOT : RELAY_AT_RECIPIENT,
                          .how = first == 0 ? RELAY_REPLY : RELAY_LOCAL,
                          .code = i == 0 ? 250 : 452}};
        }
        relay_result(world.relay, deliver.job, deliver.session, false, results, 3 - first,
                     world.now);
        world_take(&world);
        assert_int_equal(world_count(&world, RELAY_CLOSE), 0);
        assert_int_equal(world_count(&world, RELAY_CONNECT), 0);
        assert_int_equal(world_count(&world, RELAY_FATE), 1);
    }
    struct relay_totals totals;
    relay_totals(world.relay, &totals);
    assert_int_equal(totals.messages, 0);
    world_close(&world);
}

static enum error attempt(struct relay_action deliver)
{
    uint16_t kind;
    struct slice payload;
    struct spool_handle handle;
    const uint32_t *deliveries;
    uint32_t count;
    return relay_attempt_note(world.relay, deliver.job, world.now, &kind, &payload, &handle,
                              &deliveries, &count);
}

/* The next one goes along on the same session, but its dot waits. */
static void a_recipients_later_mail_waits_for_the_earlier_ones_reply(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x.example", "bob@one.example", 0);
    struct relay_action first = world_one(&world, RELAY_DELIVER);
    world_add(&world, 2, "a@x.example", "BOB@one.example", 0);
    struct relay_action second = world_one(&world, RELAY_DELIVER);
    assert_int_equal(second.handle.index, 2);
    assert_int_equal(second.session, first.session);
    assert_int_equal(attempt(second), ERROR_AGAIN);
    assert_int_equal(attempt(first), ERROR_NONE);
    world_add(&world, 3, "a@x.example", "bob@one.example", 0);
    assert_null(world_action(&world, RELAY_DELIVER, 0));
    assert_int_equal(attempt(second), ERROR_AGAIN);
    accepted(first);
    struct relay_action third = world_one(&world, RELAY_DELIVER);
    assert_int_equal(third.handle.index, 3);
    assert_int_equal(third.session, first.session);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 1);
    assert_int_equal(attempt(third), ERROR_AGAIN);
    assert_int_equal(attempt(second), ERROR_NONE);
    accepted(second);
    assert_int_equal(attempt(third), ERROR_NONE);
    accepted(third);
    world_close(&world);
}

/* What followed in vain is given back to its place in line, with its session. */
static void a_follower_does_not_pass_one_that_is_not_settled(void **state)
{
    (void)state;
    static const enum relay_verdict verdicts[] = {RELAY_NOT_TRIED, RELAY_REFUSED};
    for (int i = 0; i < 2; i++) {
        start();
        world_up(&world, 0);
        world_add(&world, 1, "a@x.example", "bob@one.example", 0);
        struct relay_action first = world_one(&world, RELAY_DELIVER);
        world_add(&world, 2, "a@x.example", "bob@one.example", 0);
        struct relay_action second = world_one(&world, RELAY_DELIVER);
        world_add(&world, 3, "a@x.example", "bob@one.example", 0);
        world_result(&world, &first, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 450);
        assert_int_equal(world_one(&world, RELAY_CLOSE).session, first.session);
        assert_int_equal(attempt(second), ERROR_MISSING);
        world.now.steady_ms += 100; /* it may have been refused as well, before it was given back */
        world_result(&world, &second, verdicts[i], RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
        assert_null(world_action(&world, RELAY_DELIVER, 0));
        int64_t began = world.now.steady_ms;
        struct relay_action next = {0};
        while (next.kind != RELAY_DELIVER && world.now.steady_ms - began < 70000) {
            world_wait(&world, 1000);
            for (size_t j = 0; j < world.action_count; j++) {
                struct relay_action action = world.actions[j];
                if (action.kind == RELAY_DELIVER) {
                    next = action;
                    break;
                }
                if (action.kind == RELAY_CONNECT && action.server == 0) {
                    world_opened(&world, action.session);
                    j = (size_t)-1;
                }
            }
        }
        assert_int_equal(next.handle.index, i == 0 ? 2 : 3);
        assert_int_equal(attempt(next), ERROR_NONE);
        int64_t wait_ms = i == 0 ? 29900 : 59900; /* each deferred one has its patience */
        assert_in_range(world.now.steady_ms - began, wait_ms, wait_ms + 1000);
        world_close(&world);
    }
}

static void patience_runs_once_then_later_mail_passes(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x.example", "bob@one.example", 0);
    struct relay_action first = world_one(&world, RELAY_DELIVER);
    world_add(&world, 2, "a@x.example", "bob@one.example", 0);
    struct relay_action second = world_one(&world, RELAY_DELIVER);
    world_result(&world, &first, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    world_result(&world, &second, RELAY_NOT_TRIED, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    world_ended(&world, first.session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_WAITING);
    assert_null(world_action(&world, RELAY_DELIVER, 0));
    int64_t began = world.now.steady_ms;
    second = (struct relay_action){0};
    while (second.kind != RELAY_DELIVER && world.now.steady_ms - began < 40000) {
        world_wait(&world, 1000);
        for (size_t i = 0; i < world.action_count; i++) {
            struct relay_action action = world.actions[i];
            if (action.kind == RELAY_DELIVER) {
                second = action;
            } else if (action.kind == RELAY_CONNECT && action.server == 0) {
                world_opened(&world, action.session);
                i = (size_t)-1;
            }
        }
    }
    assert_int_equal(second.kind, RELAY_DELIVER);
    assert_int_equal(second.handle.index, 2);
    assert_in_range(world.now.steady_ms - began, 30000, 31000);
    world_close(&world);
}

static void one_message_for_several_goes_in_one_transaction(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x.example", "bob@one.example ann@one.example carl@two.example", 0);
    struct relay_action both = world_one(&world, RELAY_DELIVER);
    assert_int_equal(both.delivery_count, 2);
    assert_int_equal(both.deliveries[0], 0);
    assert_int_equal(both.deliveries[1], 1);
    world_close(&world);
}

static void refused_for_a_domain_is_a_dead_letter_and_for_a_client_of_ours_a_notice(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x.example", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    assert_non_null(world_event(&world, RELAY_EVENT_DEAD, 0));
    assert_null(world_action(&world, RELAY_BOUNCE, 0));
    struct relay_totals totals;
    relay_totals(world.relay, &totals);
    assert_int_equal(totals.messages, 0);
    assert_int_equal(totals.dead_letters, 1);
    world_add(&world, 2, "a@one.example", "bob@one.example", SPOOL_SENDER_VERIFIED);
    deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 554);
    struct relay_action bounce = world_one(&world, RELAY_BOUNCE);
    assert_int_equal(bounce.handle.index, 2);
    assert_int_equal(bounce.delivery_count, 1);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_FINISHED);
    /* Never in answer to a null reverse-path, nor for a notice of our own. */
    world_add(&world, 3, "", "bob@one.example", SPOOL_SENDER_VERIFIED);
    deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 554);
    assert_int_equal(world_delivery(&world, 3, 0), DELIVERY_DEAD);
    world_add(&world, 4, "x@one.example", "bob@one.example", SPOOL_SENDER_VERIFIED | SPOOL_OWN_DSN);
    deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 554);
    assert_int_equal(world_delivery(&world, 4, 0), DELIVERY_DEAD);
    world_close(&world);
}

/* RFC 3461 5.2.2: asked for, and the server that took it will not send it. */
static void success_is_told_where_nobody_else_tells_it(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world.notify = SPOOL_NOTIFY_SUCCESS | SPOOL_NOTIFY_FAILURE;
    world_add(&world, 1, "a@one.example", "bob@one.example ann@one.example", SPOOL_SENDER_VERIFIED);
    accepted(world_one(&world, RELAY_DELIVER));
    struct relay_action notice = world_one(&world, RELAY_NOTICE);
    assert_int_equal(notice.handle.index, 1);
    assert_int_equal(notice.delivery_count, 2);
    assert_int_equal(notice.deliveries[1], 1);
    assert_int_equal(notice.server, 0);
    assert_int_equal(world_count(&world, RELAY_FATE), 2);
    assert_int_equal(world_count(&world, RELAY_NOTICE), 1);
    assert_int_equal(relay_delivery_count(world.relay, (struct spool_handle){1}), 0);

    /* Not to strangers, not about notices, not where it was not asked for. */
    world_add(&world, 2, "a@x.example", "bob@one.example", 0);
    accepted(world_one(&world, RELAY_DELIVER));
    assert_null(world_action(&world, RELAY_NOTICE, 0));
    world_add(&world, 3, "", "bob@one.example", SPOOL_SENDER_VERIFIED | SPOOL_OWN_DSN);
    accepted(world_one(&world, RELAY_DELIVER));
    assert_null(world_action(&world, RELAY_NOTICE, 0));
    world.notify = SPOOL_NOTIFY_FAILURE;
    world_add(&world, 4, "a@one.example", "bob@one.example", SPOOL_SENDER_VERIFIED);
    accepted(world_one(&world, RELAY_DELIVER));
    assert_null(world_action(&world, RELAY_NOTICE, 0));

    /* Nor by us when the server does. */
    world_close(&world);
    start();
    world.capabilities = RELAY_CAP_DSN;
    world.notify = SPOOL_NOTIFY_SUCCESS;
    world_up(&world, 0);
    world_add(&world, 5, "a@one.example", "bob@one.example", SPOOL_SENDER_VERIFIED);
    accepted(world_one(&world, RELAY_DELIVER));
    assert_null(world_action(&world, RELAY_NOTICE, 0));
    assert_non_null(world_action(&world, RELAY_FATE, 0));
    world_close(&world);
}

static void a_notice_that_cannot_be_made_leaves_a_dead_letter(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world.bounces_fail = true;
    world_add(&world, 1, "a@one.example", "bob@one.example ann@one.example", SPOOL_SENDER_VERIFIED);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    world_add(&world, 2, "a@one.example", "bob@one.example", 0);
    struct relay_action next = world_one(&world, RELAY_DELIVER);
    deliver.deliveries = (const uint32_t[]){0, 1};
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 554);
    assert_int_equal(world_one(&world, RELAY_BOUNCE).delivery_count, 2);
    assert_null(world_action(&world, RELAY_FATE, 0));
    assert_null(world_event(&world, RELAY_EVENT_BOUNCED, 0));
    const struct relay_action *dead = world_event(&world, RELAY_EVENT_DEAD, 1);
    assert_non_null(dead);
    assert_int_equal(dead->delivery, 1);
    assert_int_equal(dead->reply.code, 554);
    assert_int_equal(world_count(&world, RELAY_NOTE), 2);
    assert_int_equal(attempt(next), ERROR_NONE); /* it blocks nobody */
    struct relay_totals totals;
    relay_totals(world.relay, &totals);
    assert_int_equal(totals.dead_letters, 2);
    assert_int_equal(totals.messages, 1);
    /* Once more by hand, half of it. */
    world.bounces_fail = false;
    assert_int_equal(relay_bounce(world.relay, (struct spool_handle){1}, 1, true, world.now),
                     ERROR_NONE);
    world_take(&world);
    assert_non_null(world_event(&world, RELAY_EVENT_BOUNCED, 0));
    assert_int_equal(world_delivery(&world, 1, 1), DELIVERY_FINISHED);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    world_close(&world);
    world.bounces_fail = false;
}

static void mail_loaded_late_keeps_its_place(void **state)
{
    (void)state;
    world_configure(&world);
    world_open(&world);
    world_insert(&world, 1, 10, "a@x.example", "bob@one.example", 0); /* came in while loading */
    world.now.wall_ms += 5;
    world_insert(&world, 2, 3, "a@x.example", "bob@one.example", 0);
    world_insert(&world, 3, 4, "a@x.example", "bob@one.example", 0);
    struct spool_handle handle;
    struct relay_cursor cursor = {0};
    const uint32_t listed[] = {2, 3, 1}, order[] = {2, 3, 1};
    for (size_t i = 0; i < 3; i++) {
        assert_true(relay_next_message(world.relay, &cursor, &handle));
        assert_int_equal(handle.index, listed[i]);
    }
    assert_false(relay_next_message(world.relay, &cursor, &handle));
    relay_start(world.relay, world.now);
    world_take(&world);
    world_opened(&world, world_one(&world, RELAY_CONNECT).session);
    struct relay_action given[3];
    size_t count = 0;
    for (size_t i = 0; i < 3; i++) { /* the last one goes along behind the second */
        for (size_t j = 0; j < world_count(&world, RELAY_DELIVER); j++) {
            assert_true(count < 3);
            given[count++] = *world_action(&world, RELAY_DELIVER, j);
        }
        assert_true(i < count);
        assert_int_equal(given[i].handle.index, order[i]);
        accepted(given[i]);
    }
    world_close(&world);
}

/* A node of a cluster had them alone while there was no database: one place for all. */
static void mail_at_one_place_goes_by_its_time(void **state)
{
    (void)state;
    world_configure(&world);
    world_open(&world);
    int64_t at_ms = world.now.wall_ms;
    const uint32_t order[] = {4, 2, 3, 1};
    for (uint32_t handle = 1; handle <= 4; handle++) {
        for (uint32_t i = 0; i < 4; i++) {
            world.now.wall_ms = order[i] == handle ? at_ms + 5 * (i + 1) : world.now.wall_ms;
        }
        world_insert(&world, handle, 7, "a@x.example", "bob@one.example", 0);
    }
    world.now.wall_ms = at_ms + 100;
    relay_start(world.relay, world.now);
    world_take(&world);
    world_opened(&world, world_one(&world, RELAY_CONNECT).session);
    struct relay_action given[4];
    size_t count = 0;
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < world_count(&world, RELAY_DELIVER); j++) {
            assert_true(count < 4);
            given[count++] = *world_action(&world, RELAY_DELIVER, j);
        }
        assert_true(i < count);
        assert_int_equal(given[i].handle.index, order[i]);
        accepted(given[i]);
    }
    world_close(&world);
}

static void totals_follow_the_oldest_message(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    int64_t first = world.now.wall_ms;
    world_add(&world, 1, "a@x.example", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    world.now.wall_ms += 7;
    world_add(&world, 2, "a@x.example", "bob@one.example", 0);
    struct relay_totals totals;
    relay_totals(world.relay, &totals);
    assert_int_equal(totals.oldest_wall_ms, first);
    assert_int_equal(totals.messages, 2);
    assert_int_equal(totals.bytes, 2000);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 550);
    relay_totals(world.relay, &totals); /* a dead letter is not in the queue */
    assert_int_equal(totals.oldest_wall_ms, first + 7);
    assert_int_equal(totals.messages, 1);
    assert_int_equal(totals.dead_letters, 1);
    assert_int_equal(relay_release(world.relay, (struct spool_handle){1}, 0, world.now),
                     ERROR_NONE);
    world_take(&world);
    relay_totals(world.relay, &totals);
    assert_int_equal(totals.oldest_wall_ms, first);
    world_close(&world);
}

static void a_message_that_broke_two_sessions_blames_no_server_any_more(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x.example", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_CUT, RELAY_AT_CONTENT, RELAY_LOST, 0);
    world_opened(&world, world_one(&world, RELAY_CONNECT).session);
    deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_CUT, RELAY_AT_CONTENT, RELAY_LOST, 0);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    for (int i = 0; i < 20 && world_state(&world, 0) != SERVER_RECOVERING; i++) {
        world_wait(&world, 10000);
        for (size_t j = 0; j < world.action_count; j++) {
            struct relay_action action = world.actions[j];
            if (action.kind == RELAY_CONNECT && action.server == 0) {
                world_opened(&world, action.session);
                break;
            }
        }
    }
    world_add(&world, 2, "a@x.example", "ann@one.example", 0);
    accepted(world_one(&world, RELAY_DELIVER));
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    world_wait(&world, 0); /* its count is restored and it is due, the server being back */
    deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(deliver.handle.index, 1);
    world_result(&world, &deliver, RELAY_CUT, RELAY_AT_CONTENT, RELAY_LOST, 0);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    world_close(&world);
}

/* R4: also the first delivery of a life that goes to another server than the head is a switch. */
static void a_start_with_the_head_down_tells_the_switch(void **state)
{
    (void)state;
    start();
    struct relay_action head = *world_action(&world, RELAY_CONNECT, 0);
    struct relay_action next = *world_action(&world, RELAY_CONNECT, 1);
    assert_int_equal(head.server, 0);
    world_ended(&world, head.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    world_opened(&world, next.session);
    world_add(&world, 1, "a@x.example", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(deliver.server, 1);
    const struct relay_action *switched = world_event(&world, RELAY_EVENT_SWITCHED, 0);
    assert_non_null(switched);
    assert_int_equal(switched->from_server, 0);
    assert_int_equal(switched->server, 1);
    assert_false(switched->is_head);
    struct relay_lane_view view;
    relay_lane(world.relay, 0, &view);
    assert_true(view.switched);
    /* A reload without that server: nothing to come back from. */
    static struct relay_config second;
    static struct route_config routes[WORLD_ROUTES];
    second = world.config;
    memcpy(routes, world.routes, sizeof routes);
    routes[0].chain_length = 1;
    second.routes = routes;
    assert_int_equal(relay_reconfigure(world.relay, &second, NULL, world.now), ERROR_NONE);
    world_take(&world);
    relay_lane(world.relay, 0, &view);
    assert_true(view.switched); /* m2 is there still, and the last to have got mail */
    second.servers = world.servers;
    second.server_count = 1;
    second.routes = routes;
    second.route_count = 1;
    second.bounces = NO_INDEX;
    assert_int_equal(relay_reconfigure(world.relay, &second, NULL, world.now), ERROR_NONE);
    world_take(&world);
    relay_lane(world.relay, 0, &view);
    assert_false(view.switched);
    world_close(&world);
}

/* The world with a second relay, for clients outside the first one's networks, to m3. */
static void start_with_two_relays(void)
{
    static struct ip_network anywhere;
    world_configure(&world);
    assert_true(ip_network_from_text(SLICE_LITERAL("203.0.113.0/24"), &anywhere));
    world.routes[3] = world.routes[2];
    world.routes[3].name = SLICE_LITERAL("other");
    world.routes[3].from = &anywhere;
    world.routes[3].chain = world.chains[3];
    world_start(&world);
    world_up(&world, 1);
    world_wait(&world, 100);
    world_up(&world, 2);
}

static void end_all_sessions(const struct relay_action *actions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (actions[i].kind == RELAY_CLOSE) {
            world_ended(&world, actions[i].session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
        }
    }
}

/* Order is kept within a lane (R6): what waits for one relay's servers must not keep back mail for
 * the same recipient by another relay. */
static void a_stopped_relay_keeps_no_mail_of_another_back(void **state)
{
    (void)state;
    start_with_two_relays();
    world_add(&world, 1, "a@x.example", "bob@far.example", SPOOL_SENDER_VERIFIED);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(deliver.server, 1);
    assert_int_equal(relay_server_disable(world.relay, 1, world.now), ERROR_NONE);
    world_take(&world);
    end_all_sessions(world.actions, world.action_count);
    world_result(&world, &deliver, RELAY_NOT_TRIED, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    world_add(&world, 2, "a@x.example", "bob@far.example", 0);
    deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(deliver.handle.index, 2);
    assert_int_equal(deliver.server, 2);
    accepted(deliver);
    world_close(&world);
}

/* In the lane of a relay and in that of a redirect. */
static void order_is_kept_over_a_reload(void **state)
{
    (void)state;
    for (int redirected = 0; redirected < 2; redirected++) {
        start_with_two_relays();
        if (redirected) {
            assert_int_equal(relay_server_disable(world.relay, 1, world.now), ERROR_NONE);
            world_take(&world);
        }
        struct relay_action first = {0};
        static const uint32_t zero[] = {0};
        for (uint32_t i = 1; i <= 2; i++) {
            world_add(&world, i, "a@x.example", "bob@far.example", SPOOL_SENDER_VERIFIED);
            if (redirected) {
                assert_int_equal(relay_redirect(world.relay, (struct spool_handle){i}, 0,
                                                SLICE_LITERAL("m3"), world.now),
                                 ERROR_NONE);
                world_take(&world);
            }
            if (i == 1) {
                first = world_one(&world, RELAY_DELIVER);
            }
        }
        struct relay_action follows = redirected ? first : world_one(&world, RELAY_DELIVER);
        struct relay_config second = world.config;
        assert_int_equal(relay_reconfigure(world.relay, &second, NULL, world.now), ERROR_NONE);
        world_take(&world);
        assert_null(world_action(&world, RELAY_DELIVER, 0));
        if (!redirected) { /* one that followed is taken back */
            assert_int_equal(world_one(&world, RELAY_CLOSE).session, first.session);
            assert_int_equal(attempt(follows), ERROR_MISSING);
            follows.deliveries = zero;
            world_result(&world, &follows, RELAY_NOT_TRIED, RELAY_AT_IDLE, RELAY_LOCAL, 0);
        }
        assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_WAITING);
        first.deliveries = zero;
        accepted(first);
        assert_int_equal(world_one(&world, RELAY_DELIVER).handle.index, 2);
        world_close(&world);
    }
}

/* A reload may make one lane of two, with mail to one recipient under way in both. */
static void lanes_that_become_one_keep_what_is_under_way(void **state)
{
    (void)state;
    static struct relay_config merged;
    static struct route_config routes[1];
    start_with_two_relays();
    world_add(&world, 1, "a@x.example", "bob@far.example", SPOOL_SENDER_VERIFIED);
    struct relay_action one = world_one(&world, RELAY_DELIVER);
    world_add(&world, 2, "a@x.example", "bob@far.example", 0);
    struct relay_action two = world_one(&world, RELAY_DELIVER);
    static struct domain_pattern far = {.name = SLICE_LITERAL("far.example")};
    routes[0] = world.routes[0];
    routes[0].domains = &far;
    routes[0].chain = world.chains[2]; /* m2 */
    routes[0].chain_length = 1;
    merged = world.config;
    merged.routes = routes;
    merged.route_count = 1;
    merged.bounces = NO_INDEX;
    assert_int_equal(relay_reconfigure(world.relay, &merged, NULL, world.now), ERROR_NONE);
    world_take(&world);
    static const uint32_t zero[] = {0};
    one.deliveries = two.deliveries = zero;
    world_add(&world, 3, "a@x.example", "bob@far.example", 0);
    struct relay_action three = world_one(&world, RELAY_DELIVER);
    assert_int_equal(three.handle.index, 3);
    assert_int_equal(three.session, one.session);
    accepted(two);
    assert_int_equal(attempt(three), ERROR_AGAIN); /* the first one's reply is awaited */
    accepted(one);
    assert_int_equal(attempt(three), ERROR_NONE);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_server_is_probed_at_the_start),
        cmocka_unit_test(the_first_good_probe_carries_the_first_delivery),
        cmocka_unit_test(a_refused_server_costs_one_step_and_the_next_is_taken),
        cmocka_unit_test(recipients_too_many_go_next_over_the_same_session),
        cmocka_unit_test(a_recipients_later_mail_waits_for_the_earlier_ones_reply),
        cmocka_unit_test(a_follower_does_not_pass_one_that_is_not_settled),
        cmocka_unit_test(patience_runs_once_then_later_mail_passes),
        cmocka_unit_test(one_message_for_several_goes_in_one_transaction),
        cmocka_unit_test(refused_for_a_domain_is_a_dead_letter_and_for_a_client_of_ours_a_notice),
        cmocka_unit_test(success_is_told_where_nobody_else_tells_it),
        cmocka_unit_test(a_notice_that_cannot_be_made_leaves_a_dead_letter),
        cmocka_unit_test(mail_loaded_late_keeps_its_place),
        cmocka_unit_test(mail_at_one_place_goes_by_its_time),
        cmocka_unit_test(totals_follow_the_oldest_message),
        cmocka_unit_test(a_message_that_broke_two_sessions_blames_no_server_any_more),
        cmocka_unit_test(a_start_with_the_head_down_tells_the_switch),
        cmocka_unit_test(a_stopped_relay_keeps_no_mail_of_another_back),
        cmocka_unit_test(order_is_kept_over_a_reload),
        cmocka_unit_test(lanes_that_become_one_keep_what_is_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
