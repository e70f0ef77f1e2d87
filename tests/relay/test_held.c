/* SPDX-License-Identifier: Apache-2.0
 *
 * Held by rule: what waits for the operator and is counted for him, and refusals that are tried
 * once more whatever becomes of the server that gave them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/notes.h"
#include "world.h"

static struct world world;
static const struct spool_handle first = {1};

static void start(void)
{
    world_configure(&world);
    world_start(&world);
}

static void carry(void *context, uint32_t delivery, uint16_t kind, struct slice payload)
{
    relay_load_note(context, first, delivery, kind, payload, world.now);
}

/* As after a restart, with all notes that are still needed. */
static void reborn(void)
{
    struct relay *old = world.relay;
    world_open(&world);
    world_insert(&world, 1, 1, "a@x", "bob@one.example", 0);
    relay_describe(old, first, carry, world.relay);
    relay_free(old);
}

static void found_damaged(void)
{
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_DAMAGED, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
}

static void what_only_the_operator_lets_go_is_counted(void **state)
{
    (void)state;
    start();
    found_damaged();
    assert_int_equal(world_held_by_rule(&world), 1);
    reborn();
    assert_int_equal(world_held_by_rule(&world), 1);
    relay_start(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_held_by_rule(&world), 1);
    /* By hand it is his own will. */
    assert_int_equal(relay_hold(world.relay, first, 0, SLICE_EMPTY, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_held_by_rule(&world), 0);
    assert_int_equal(relay_release(world.relay, first, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_held_by_rule(&world), 0);
    world_close(&world);
    for (int i = 0; i < 3; i++) {
        start();
        found_damaged();
        enum error error =
            i == 0   ? relay_release(world.relay, first, 0, world.now)
            : i == 1 ? relay_discard(world.relay, first, 0, SLICE_EMPTY, world.now)
                     : relay_redirect(world.relay, first, 0, SLICE_LITERAL("m3"), world.now);
        assert_int_equal(error, ERROR_NONE);
        world_take(&world);
        assert_int_equal(world_held_by_rule(&world), 0);
        world_close(&world);
    }
}

/* R2 */
static void three_doubts_are_counted_when_they_are_in_doubt_no_more(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    for (int i = 0; i < 3; i++) {
        const struct relay_action *deliver = world_action(&world, RELAY_DELIVER, 0);
        for (int j = 0; deliver == NULL && j < 1000; j++) {
            const struct relay_action *connect = world_action(&world, RELAY_CONNECT, 0);
            if (connect != NULL && connect->server == 0) {
                world_opened(&world, connect->session);
            } else {
                world_wait(&world, 60000);
            }
            deliver = world_action(&world, RELAY_DELIVER, 0);
        }
        assert_non_null(deliver);
        struct relay_action copy = *deliver;
        assert_int_equal(world_held_by_rule(&world), 0);
        world_result(&world, &copy, RELAY_IN_DOUBT, RELAY_AT_DOT, RELAY_LOST, 0);
    }
    struct relay_totals totals;
    relay_totals(world.relay, &totals);
    assert_int_equal(totals.in_doubt, 0);
    assert_int_equal(totals.held, 1);
    assert_int_equal(totals.held_by_rule, 1);
    world_close(&world);
}

/* m1 comes back and refuses: held (R5), until it is up. */
static void refused_by_a_recovering_server(void)
{
    start();
    struct relay_action probe = world_one(&world, RELAY_CONNECT);
    assert_int_equal(probe.server, 0);
    world_ended(&world, probe.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    do {
        world_wait(&world, 2000);
        probe = world_one(&world, RELAY_CONNECT);
    } while (probe.server != 0);
    world_add(&world, 1, "a@x", "bob@one.example", 0);
    world_opened(&world, probe.session);
    struct relay_action canary = world_one(&world, RELAY_DELIVER);
    world_result(&world, &canary, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
    assert_int_equal(world_held_by_rule(&world), 0); /* this one is let go by itself */
}

/* The configuration with m1 at another port, or under another name. */
static struct relay_config *changed_server(bool renamed)
{
    static struct relay_config second;
    static struct server_config servers[WORLD_SERVERS];
    static struct server_address elsewhere;
    second = world.config;
    memcpy(servers, world.servers, sizeof servers);
    elsewhere = world.addresses[0];
    elsewhere.port = 2525;
    servers[0].addresses = renamed ? &world.addresses[0] : &elsewhere;
    servers[0].name = renamed ? SLICE_LITERAL("new") : servers[0].name;
    second.servers = servers;
    return &second;
}

static void a_held_refusal_is_tried_when_its_server_has_moved_and_is_up(void **state)
{
    (void)state;
    refused_by_a_recovering_server();
    assert_int_equal(relay_reconfigure(world.relay, changed_server(false), NULL, world.now),
                     ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
    for (int i = 0; i < 100 && world_action(&world, RELAY_DELIVER, 0) == NULL; i++) {
        const struct relay_action *connect = world_action(&world, RELAY_CONNECT, 0);
        if (connect != NULL && connect->server == 0) {
            world_opened(&world, connect->session);
        } else {
            world_wait(&world, 2000);
        }
    }
    assert_int_equal(world_one(&world, RELAY_DELIVER).handle.index, 1);
    world_close(&world);
}

/* An operator sees that it is let go by itself, and when as soon as that is known. */
static void a_held_refusal_tells_when_it_is_tried_again(void **state)
{
    (void)state;
    const struct spool_handle handle = {1};
    struct relay_delivery_view view;
    refused_by_a_recovering_server();
    assert_true(relay_delivery(world.relay, handle, 0, &view));
    assert_true(view.not_believed);
    assert_int_equal(view.next_wall_ms, 0); /* first it is to be well */
    world.servers[0].hold_5xx_after_recovery_ms = 600000;
    world_add(&world, 2, "a@x", "eve@one.example", 0);
    struct relay_action canary = world_one(&world, RELAY_DELIVER);
    world_result(&world, &canary, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    world_wait(&world, 1000);
    assert_true(relay_delivery(world.relay, handle, 0, &view));
    assert_true(view.not_believed);
    int64_t due_ms = world.now.wall_ms + world.servers[0].hold_5xx_after_recovery_ms;
    assert_in_range(view.next_wall_ms, due_ms - 5000, due_ms);
    assert_int_equal(relay_hold(world.relay, handle, 0, SLICE_EMPTY, world.now), ERROR_NONE);
    world_take(&world);
    assert_true(relay_delivery(world.relay, handle, 0, &view));
    assert_false(view.not_believed);
    world_close(&world);
}

static void a_held_refusal_waits_no_longer_for_a_server_that_is_gone(void **state)
{
    (void)state;
    refused_by_a_recovering_server();
    assert_int_equal(relay_reconfigure(world.relay, changed_server(true), NULL, world.now),
                     ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    assert_non_null(world_event(&world, RELAY_EVENT_RELEASED, 0));
    world_close(&world);
    /* The same if it was renamed between a stop and a start. */
    refused_by_a_recovering_server();
    struct relay *old = world.relay;
    world.relay = relay_new(changed_server(true), 43, world.now);
    assert_non_null(world.relay);
    world_insert(&world, 1, 1, "a@x", "bob@one.example", 0);
    relay_describe(old, first, carry, world.relay);
    relay_free(old);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
    relay_start(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    world_close(&world);
}

/* An import brings one along whose server is up, or unknown here. */
static void an_imported_refusal_waits_for_no_recovery(void **state)
{
    (void)state;
    for (int known = 0; known < 2; known++) {
        start();
        world_up(&world, 0);
        struct buffer note;
        buffer_init(&note, 0);
        const struct delivery_note held = {.flags = NOTE_BY_RULE | NOTE_REFUSED_ONCE,
                                           .server = known ? SLICE_LITERAL("m1")
                                                           : SLICE_LITERAL("other")};
        note_encode(&note, &held);
        relay_together_begin(world.relay, world.now);
        world_insert(&world, 1, 1, "a@x", "bob@one.example", 0);
        relay_load_note(world.relay, first, 0, NOTE_HOLD, buffer_slice(&note), world.now);
        relay_together_end(world.relay, world.now);
        world_take(&world);
        assert_int_equal(world_one(&world, RELAY_DELIVER).handle.index, 1);
        buffer_done(&note);
        world_close(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_only_the_operator_lets_go_is_counted),
        cmocka_unit_test(three_doubts_are_counted_when_they_are_in_doubt_no_more),
        cmocka_unit_test(a_held_refusal_is_tried_when_its_server_has_moved_and_is_up),
        cmocka_unit_test(a_held_refusal_tells_when_it_is_tried_again),
        cmocka_unit_test(a_held_refusal_waits_no_longer_for_a_server_that_is_gone),
        cmocka_unit_test(an_imported_refusal_waits_for_no_recovery),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
