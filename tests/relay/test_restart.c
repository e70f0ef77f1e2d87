/* SPDX-License-Identifier: Apache-2.0
 *
 * What survives: notes written, loaded and described; attempts without a result; jobs that go on;
 * operators' commands; a new configuration.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/notes.h"
#include "world.h"

static struct world world;

static void start(void)
{
    world_configure(&world);
    world_start(&world);
}

/* Everything that relay says about a message, put into a fresh relay. */
static void carry(void *context, uint32_t delivery, uint16_t kind, struct slice payload)
{
    relay_load_note(context, (struct spool_handle){1}, delivery, kind, payload, world.now);
}

static void reborn(const char *recipients)
{
    struct relay *old = world.relay;
    world_open(&world);
    world_insert(&world, 1, 1, "a@x", recipients, 0);
    relay_describe(old, (struct spool_handle){1}, carry, world.relay);
    relay_free(old);
}

static void check_same(const struct relay_delivery_view *before)
{
    struct relay_delivery_view after;
    assert_true(relay_delivery(world.relay, (struct spool_handle){1}, 0, &after));
    assert_int_equal(after.state, before->state);
    assert_int_equal(after.attempts, before->attempts);
    assert_int_equal(after.next_wall_ms, before->next_wall_ms);
}

static void every_state_is_the_same_after_a_restart(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++) {
        start();
        world_up(&world, 0);
        world_add(&world, 1, "a@x", "bob@one.example", 0);
        struct relay_action deliver = world_one(&world, RELAY_DELIVER);
        switch (which) {
        case 0:
            world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 451);
            break;
        case 1:
            world_result(&world, &deliver, RELAY_IN_DOUBT, RELAY_AT_DOT, RELAY_LOST, 0);
            break;
        case 2:
            world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_MAIL, RELAY_REPLY, 550);
            break;
        case 3:
            world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 550);
            break;
        }
        struct relay_delivery_view before;
        assert_true(relay_delivery(world.relay, (struct spool_handle){1}, 0, &before));
        const enum delivery_state expected[] = {DELIVERY_DEFERRED, DELIVERY_IN_DOUBT, DELIVERY_HELD,
                                                DELIVERY_DEAD};
        assert_int_equal(before.state, expected[which]);
        assert_int_equal(world_count(&world, RELAY_NOTE), 1);
        char reason[64];
        assert_true(before.reason.length < sizeof reason);
        memcpy(reason, before.reason.data, before.reason.length);
        size_t length = before.reason.length;
        reborn("bob@one.example");
        check_same(&before);
        struct relay_delivery_view after;
        assert_true(relay_delivery(world.relay, (struct spool_handle){1}, 0, &after));
        assert_true(slice_equal(after.reason, slice_make(reason, length)));
        world_close(&world);
    }
}

static void a_clock_set_back_does_not_stretch_a_wait(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 451);
    world.now.wall_ms -= 10LL * 86400 * 1000;
    reborn("bob@one.example");
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, (struct spool_handle){1}, 0, &view));
    assert_in_range(view.next_wall_ms - world.now.wall_ms, 0, 600000);
    world_close(&world);
}

static void an_attempt_without_a_result_is_in_doubt_and_the_third_is_held(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    for (unsigned doubts = 1; doubts <= 3; doubts++) {
        struct relay_action deliver = world_one(&world, RELAY_DELIVER);
        assert_int_equal(deliver.server, 0); /* the same server, while it may be asked */
        uint16_t kind;
        struct slice payload;
        struct spool_handle handle;
        const uint32_t *deliveries;
        uint32_t count;
        assert_int_equal(ERROR_NONE, relay_attempt_note(world.relay, deliver.job, world.now, &kind,
                                                        &payload, &handle, &deliveries, &count));
        assert_int_equal(kind, NOTE_ATTEMPT);
        assert_int_equal(count, 1);
        reborn("bob@one.example");
        relay_start(world.relay, world.now);
        world_take(&world);
        assert_non_null(world_event(&world, RELAY_EVENT_IN_DOUBT, 0));
        assert_int_equal(world_delivery(&world, 1, 0),
                         doubts < 3 ? DELIVERY_IN_DOUBT : DELIVERY_HELD);
        if (doubts == 3) {
            assert_non_null(world_event(&world, RELAY_EVENT_HELD, 0));
            break;
        }
        world_up(&world, 0);
        assert_int_equal(
            relay_retry(world.relay, (struct spool_handle){1}, SPOOL_ALL_DELIVERIES, world.now),
            ERROR_NONE);
        world_take(&world);
    }
    world_close(&world);
}

static void a_doubt_goes_to_the_next_server_only_after_a_quarter_of_an_hour(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    int64_t began = world.now.steady_ms;
    world_result(&world, &deliver, RELAY_IN_DOUBT, RELAY_AT_DOT, RELAY_LOST, 0);
    struct relay_action to = {0};
    while (to.job == 0 && world.now.steady_ms - began < 3600000) {
        struct relay_action actions[32];
        size_t count = world.action_count < 32 ? world.action_count : 32;
        memcpy(actions, world.actions, count * sizeof actions[0]);
        for (size_t i = 0; i < count; i++) {
            if (actions[i].kind == RELAY_DELIVER) {
                to = actions[i];
            } else if (actions[i].kind == RELAY_CONNECT && actions[i].server == 1) {
                world_opened(&world, actions[i].session);
                if (world_action(&world, RELAY_DELIVER, 0) != NULL) {
                    to = world_one(&world, RELAY_DELIVER);
                }
            } else if (actions[i].kind == RELAY_CONNECT) {
                world_ended(&world, actions[i].session, RELAY_AT_CONNECT, RELAY_LOST, 0);
            } else if (actions[i].kind == RELAY_CLOSE) {
                world_ended(&world, actions[i].session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
            }
        }
        if (to.job == 0) {
            world_wait(&world, 60000);
        }
    }
    assert_int_equal(to.server, 1);
    assert_in_range(world.now.steady_ms - began, 900000, 905000);
    world_close(&world);
}

static void a_job_that_goes_on_is_not_in_doubt(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    uint16_t kind;
    struct slice payload;
    struct spool_handle handle;
    const uint32_t *deliveries;
    uint32_t count, which = 0;
    assert_int_equal(ERROR_NONE, relay_attempt_note(world.relay, deliver.job, world.now, &kind,
                                                    &payload, &handle, &deliveries, &count));
    reborn("bob@one.example");
    relay_resume(world.relay, deliver.session, deliver.job, (struct spool_handle){1}, &which, 1, 0,
                 world.now);
    relay_start(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_IN_FLIGHT);
    struct relay_delivery_result result = {
        0, RELAY_ACCEPTED, {.stage = RELAY_AT_DOT, .how = RELAY_REPLY, .code = 250}};
    relay_result(world.relay, deliver.job, deliver.session, false, &result, 1, world.now);
    world_take(&world);
    assert_int_equal(world_one(&world, RELAY_FATE).fate, SPOOL_DELIVERED);
    assert_int_equal(world_one(&world, RELAY_CLOSE).session,
                     deliver.session); /* nobody's session now */
    /* One whose sender dies too is in doubt then, even if its session is of an earlier life. */
    world_insert(&world, 1, 9, "a@x", "bob@one.example", 0);
    relay_resume(world.relay, 77, 123456, (struct spool_handle){1}, &which, 1, 0, world.now);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_IN_FLIGHT);
    relay_sessions_lost(world.relay, 1, 2, world.now);
    world_take(&world);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_IN_DOUBT);
    world_close(&world);
}

static void servers_keep_state_and_capabilities_over_a_restart(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 0);
    world_configure(&world);
    world_open(&world);
    note_encode_hand(&buffer, &(struct hand_note){1, true});
    relay_load_global(world.relay, SLICE_LITERAL("server/m1/hand"), buffer_slice(&buffer),
                      world.now);
    buffer_clear(&buffer);
    struct state_note up = {SERVER_UP, 5, SLICE_LITERAL("fine")};
    note_encode_state(&buffer, &up);
    relay_load_global(world.relay, SLICE_LITERAL("server/m2/state"), buffer_slice(&buffer),
                      world.now);
    relay_load_global(world.relay, SLICE_LITERAL("server/m1/state"), buffer_slice(&buffer),
                      world.now);
    buffer_clear(&buffer);
    struct relay_capabilities capabilities = {.flags = RELAY_CAP_SMTPUTF8, .size_limit = 1000};
    note_encode_capabilities(&buffer, &capabilities);
    relay_load_global(world.relay, SLICE_LITERAL("server/m3/capabilities"), buffer_slice(&buffer),
                      world.now);
    relay_load_global(world.relay, SLICE_LITERAL("server/gone/state"), buffer_slice(&buffer),
                      world.now);
    relay_load_global(world.relay, SLICE_LITERAL("odometer/one.example"), buffer_slice(&buffer),
                      world.now);
    relay_start(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_state(&world, 0), SERVER_DISABLED);
    assert_int_equal(world_state(&world, 1), SERVER_UP);
    assert_int_equal(world_state(&world, 2), SERVER_SUSPECT);
    assert_int_equal(world_count(&world, RELAY_CONNECT), 1);
    struct relay_server_view view;
    relay_server(world.relay, 2, &view);
    assert_true(view.capabilities_known);
    assert_int_equal(view.capabilities.size_limit, 1000);
    relay_server(world.relay, 1, &view);
    assert_int_equal(view.since_wall_ms, 5);
    buffer_done(&buffer);
    world_close(&world);
}

/* ---- operators ----------------------------------------------------------------------------- */

static const struct spool_handle one = {1};

static void commands_say_what_they_cannot_do(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    assert_int_equal(relay_hold(world.relay, one, 0, SLICE_EMPTY, world.now), ERROR_MISSING);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(relay_hold(world.relay, one, 0, SLICE_EMPTY, world.now), ERROR_AGAIN);
    assert_int_equal(relay_hold(world.relay, one, 1, SLICE_EMPTY, world.now), ERROR_MISSING);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    assert_int_equal(relay_hold(world.relay, one, 0, SLICE_EMPTY, world.now), ERROR_INVALID);
    assert_int_equal(relay_retry(world.relay, one, 0, world.now), ERROR_INVALID);
    assert_int_equal(relay_bounce(world.relay, one, 0, false, world.now), ERROR_DENIED);
    assert_int_equal(relay_redirect(world.relay, one, 0, SLICE_LITERAL("m9"), world.now),
                     ERROR_INVALID);
    assert_int_equal(relay_release(world.relay, one, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_non_null(world_event(&world, RELAY_EVENT_RELEASED, 0));
    deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(relay_bounce(world.relay, one, 0, true, world.now), ERROR_NONE);
    world_take(&world);
    (void)world_one(&world, RELAY_BOUNCE);
    assert_int_equal(relay_delivery_count(world.relay, one), 0);
    world_close(&world);
}

static void held_mail_lets_others_pass_and_comes_back(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    world_add(&world, 2, "a@x", "bob@one.example", 0);
    assert_int_equal(
        relay_hold(world.relay, one, SPOOL_ALL_DELIVERIES, SLICE_LITERAL("why"), world.now),
        ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_one(&world, RELAY_NOTE).note, NOTE_HOLD);
    struct relay_totals totals;
    relay_totals(world.relay, &totals);
    assert_int_equal(totals.held, 1);
    assert_int_equal(totals.messages, 2);
    world_wait(&world, 1000);
    for (int i = 0; i < 20 && world_action(&world, RELAY_DELIVER, 0) == NULL; i++) {
        const struct relay_action *connect = world_action(&world, RELAY_CONNECT, 0);
        if (connect != NULL && connect->server == 0) {
            world_opened(&world, connect->session);
        } else {
            world_wait(&world, 1000);
        }
        if (i == 0) {
            assert_int_equal(relay_server_probe(world.relay, 0, world.now), ERROR_NONE);
        }
    }
    relay_release(world.relay, one, 0, world.now) == ERROR_NONE ? world_take(&world) : fail();
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    world_close(&world);
}

static void redirected_mail_goes_to_the_server_or_address_named(void **state)
{
    (void)state;
    start();
    world_up(&world, 2);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(deliver.server, 2); /* the others are down */
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(relay_redirect(world.relay, one, 0,
                                    SLICE_LITERAL("z@wild.example.wild.example"), world.now),
                     ERROR_NONE);
    world_take(&world);
    deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(deliver.server, 2);
    assert_true(slice_equal(deliver.redirect_to, SLICE_LITERAL("z@wild.example.wild.example")));
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    /* It stays so after a restart, counts and all. */
    reborn("bob@one.example");
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, one, 0, &view));
    assert_true(slice_equal(view.redirect_to, SLICE_LITERAL("z@wild.example.wild.example")));
    assert_int_equal(view.state, DELIVERY_DEFERRED);
    assert_int_equal(view.attempts, 1);
    relay_start(world.relay, world.now);
    assert_int_equal(relay_redirect(world.relay, one, 0, SLICE_LITERAL("m2"), world.now),
                     ERROR_NONE);
    world_take(&world);
    assert_true(relay_delivery(world.relay, one, 0, &view));
    assert_int_equal(view.server, 1);
    assert_int_equal(view.state, DELIVERY_WAITING);
    world_close(&world);
}

/* ---- a new configuration --------------------------------------------------------------------- */

static enum error read_envelope(void *context, struct spool_handle handle, struct arena *arena,
                                struct spool_message *ret_message)
{
    static const struct spool_recipient recipient = {.address = SLICE_LITERAL("bob@far.example")};
    (void)arena;
    (void)handle;
    ++*(int *)context;
    *ret_message = (struct spool_message){
        .sender = SLICE_LITERAL("s@one.example"), .recipients = &recipient, .recipient_count = 1};
    return ip_from_text(SLICE_LITERAL("198.51.100.7"), &ret_message->origin.client.address)
               ? ERROR_NONE
               : ERROR_INVALID;
}

static void a_reload_lanes_everything_anew_in_order(void **state)
{
    (void)state;
    static struct relay_config second;
    static struct route_config routes[WORLD_ROUTES];
    int reads = 0;
    struct relay_envelopes envelopes = {&reads, read_envelope};
    start();
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    world_add(&world, 2, "a@x", "bob@two.example", 0);
    world_add(&world, 3, "s@one.example", "bob@far.example", SPOOL_SENDER_VERIFIED);
    world_add(&world, 4, "a@x", "carl@one.example", 0);
    assert_int_equal(relay_route_bytes(world.relay, 0), 2000);
    /* two.example goes, one.example moves, the relay is as it was. */
    second = world.config;
    routes[0] = world.routes[2];
    routes[1] = world.routes[3];
    routes[2] = world.routes[0];
    second.routes = routes;
    second.route_count = 3;
    second.bounces = 0;
    assert_int_equal(relay_reconfigure(world.relay, &second, &envelopes, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(reads, 1); /* only the one whose domain has gone */
    assert_int_equal(relay_route_bytes(world.relay, 2), 2000);
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, (struct spool_handle){1}, 0, &view));
    assert_int_equal(view.route, 2);
    assert_true(relay_delivery(world.relay, (struct spool_handle){3}, 0, &view));
    assert_int_equal(view.route, 0);
    world_close(&world);
}

static void mail_without_a_route_waits_as_an_orphan_and_finds_home_again(void **state)
{
    (void)state;
    static struct relay_config without;
    start();
    world_add(&world, 1, "a@x", "bob@two.example", 0);
    without = world.config;
    static struct route_config routes[1];
    routes[0] = world.routes[0];
    without.routes = routes;
    without.route_count = 1;
    without.bounces = NO_INDEX;
    assert_int_equal(relay_reconfigure(world.relay, &without, NULL, world.now), ERROR_NONE);
    world_take(&world);
    assert_non_null(world_event(&world, RELAY_EVENT_ORPHANED, 0));
    assert_int_equal(relay_lane_count(world.relay), 2);
    struct relay_lane_view lane;
    relay_lane(world.relay, 1, &lane);
    assert_int_equal(lane.state, LANE_ORPHAN);
    assert_true(slice_equal(lane.route, SLICE_LITERAL("orphan")));
    assert_int_equal(lane.deliveries, 1);
    assert_int_equal(relay_reconfigure(world.relay, &world.config, NULL, world.now), ERROR_NONE);
    world_take(&world);
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, (struct spool_handle){1}, 0, &view));
    assert_int_equal(view.route, 1);
    world_close(&world);
}

static void a_server_that_goes_or_moves_has_its_sessions_closed(void **state)
{
    (void)state;
    static struct relay_config second;
    static struct server_config servers[WORLD_SERVERS];
    static struct server_address elsewhere;
    static const uint32_t first = 0;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    deliver.deliveries = &first; /* outlives what comes in between */
    second = world.config;
    memcpy(servers, world.servers, sizeof servers);
    elsewhere = world.addresses[0];
    elsewhere.port = 2525;
    servers[0].addresses = &elsewhere;
    second.servers = servers;
    assert_int_equal(relay_reconfigure(world.relay, &second, NULL, world.now), ERROR_NONE);
    world_take(&world);
    assert_true(world_count(&world, RELAY_CLOSE) >= 1);
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    /* What was under way ends as usual. */
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_one(&world, RELAY_FATE).fate, SPOOL_DELIVERED);
    world_ended(&world, deliver.session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    world_close(&world);
}

static void all_down(void)
{
    for (uint32_t i = 0; i < WORLD_SERVERS; i++) {
        assert_int_equal(relay_server_disable(world.relay, i, world.now), ERROR_NONE);
        world_take(&world);
    }
}

static struct relay_lane_view lane_view(uint32_t index)
{
    struct relay_lane_view view;
    relay_lane(world.relay, index, &view);
    return view;
}

/* A lane that was told to be stopped is told to be so no longer, whatever became of its mail. */
static void a_stop_is_told_to_be_over_though_nothing_waits_any_more(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    all_down();
    assert_true(lane_view(0).stopped);
    assert_int_equal(
        relay_discard(world.relay, (struct spool_handle){1}, 0, SLICE_EMPTY, world.now),
        ERROR_NONE);
    world_take(&world);
    assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_null(world_event(&world, RELAY_EVENT_DRAINED, 0)); /* not yet: it may not answer */
    world_wait(&world, 1000);
    world_opened(&world, world_one(&world, RELAY_CONNECT).session);
    const struct relay_action *over = world_event(&world, RELAY_EVENT_DRAINED, 0);
    assert_non_null(over);
    assert_true(slice_equal(over->lane, SLICE_LITERAL("domain:one.example")));
    assert_int_equal(over->count, 0);
    assert_null(world_event(&world, RELAY_EVENT_DRAINED, 1));
    assert_false(lane_view(0).stopped);
    world_close(&world);
}

static void a_redirect_stops_under_its_own_name(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    assert_int_equal(relay_server_disable(world.relay, 2, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(
        relay_redirect(world.relay, (struct spool_handle){1}, 0, SLICE_LITERAL("m3"), world.now),
        ERROR_NONE);
    world_take(&world);
    const struct relay_action *stop = world_event(&world, RELAY_EVENT_STOPPED, 0);
    assert_non_null(stop);
    assert_true(slice_equal(stop->redirect_to, SLICE_LITERAL("m3")));
    assert_false(lane_view(0).stopped);
    struct relay_lane_view view = lane_view(WORLD_ROUTES);
    assert_true(view.stopped);
    assert_true(slice_equal(view.redirect_to, SLICE_LITERAL("m3")));
    world_close(&world);
}

static void a_drain_goes_on_over_a_reload(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    world_add(&world, 2, "a@x", "bob@one.example", 0);
    all_down();
    assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    world_wait(&world, 1000);
    world_opened(&world, world_one(&world, RELAY_CONNECT).session);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    struct relay_config second = world.config;
    assert_int_equal(relay_reconfigure(world.relay, &second, NULL, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(lane_view(0).state, LANE_DRAINING);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    const struct relay_action *draining = world_event(&world, RELAY_EVENT_DRAINING, 0);
    assert_non_null(draining);
    assert_int_equal(draining->count, 2);
    assert_null(world_event(&world, RELAY_EVENT_DRAINED, 0));
    deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    const struct relay_action *over = world_event(&world, RELAY_EVENT_DRAINED, 0);
    assert_non_null(over);
    assert_int_equal(over->count, 2);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_is_the_same_after_a_restart),
        cmocka_unit_test(a_clock_set_back_does_not_stretch_a_wait),
        cmocka_unit_test(an_attempt_without_a_result_is_in_doubt_and_the_third_is_held),
        cmocka_unit_test(a_doubt_goes_to_the_next_server_only_after_a_quarter_of_an_hour),
        cmocka_unit_test(a_job_that_goes_on_is_not_in_doubt),
        cmocka_unit_test(servers_keep_state_and_capabilities_over_a_restart),
        cmocka_unit_test(commands_say_what_they_cannot_do),
        cmocka_unit_test(held_mail_lets_others_pass_and_comes_back),
        cmocka_unit_test(redirected_mail_goes_to_the_server_or_address_named),
        cmocka_unit_test(a_reload_lanes_everything_anew_in_order),
        cmocka_unit_test(mail_without_a_route_waits_as_an_orphan_and_finds_home_again),
        cmocka_unit_test(a_server_that_goes_or_moves_has_its_sessions_closed),
        cmocka_unit_test(a_stop_is_told_to_be_over_though_nothing_waits_any_more),
        cmocka_unit_test(a_redirect_stops_under_its_own_name),
        cmocka_unit_test(a_drain_goes_on_over_a_reload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
