/* SPDX-License-Identifier: Apache-2.0
 *
 * A node of a cluster: mail of which only a part is ours, and mail that is left to another node
 * while some of it is held, deferred or in flight.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "relay/notes.h"
#include "world.h"

static struct world world;

static void start(void)
{
    world_configure(&world);
    world_start(&world);
}

static struct relay_totals totals(void)
{
    struct relay_totals all;
    relay_totals(world.relay, &all);
    return all;
}

static void check_nothing_is_left(void)
{
    struct relay_totals all = totals(), none = {0};
    assert_memory_equal(&all, &none, sizeof(all));
    for (uint32_t i = 0; i < relay_lane_count(world.relay); i++) {
        assert_int_equal(world_lane(&world, i).deliveries, 0);
        assert_int_equal(world_lane(&world, i).moving, 0);
    }
    for (uint32_t i = 0; i < WORLD_ROUTES; i++) {
        assert_int_equal(relay_route_bytes(world.relay, i), 0);
    }
}

/* One message of which others have the deliveries that are named, as a share's loading says it. */
static void add_part(uint32_t handle, const char *recipients, const uint32_t *elsewhere,
                     uint32_t count)
{
    relay_together_begin(world.relay, world.now);
    world.keeps_actions = true;
    world_add(&world, handle, "a@x", recipients, 0);
    world.keeps_actions = false;
    for (uint32_t i = 0; i < count; i++) {
        relay_load_elsewhere(world.relay, (struct spool_handle){handle}, elsewhere[i]);
    }
    relay_together_end(world.relay, world.now);
    world_take(&world);
}

static bool rest(uint32_t handle)
{
    bool under_way = relay_rest(world.relay, (struct spool_handle){handle}, true, world.now);
    world_take(&world);
    return under_way;
}

static void wake(uint32_t handle)
{
    (void)relay_rest(world.relay, (struct spool_handle){handle}, false, world.now);
    world_take(&world);
}

static void leave(uint32_t handle)
{
    relay_leave(world.relay, (struct spool_handle){handle}, world.now);
    world_take(&world);
}

static bool in_flight(uint32_t handle)
{
    return relay_in_flight(world.relay, (struct spool_handle){handle});
}

static enum error note(const struct relay_action *deliver)
{
    uint16_t kind;
    struct slice payload;
    struct spool_handle handle;
    const uint32_t *deliveries;
    uint32_t count;
    return relay_attempt_note(world.relay, deliver->job, world.now, &kind, &payload, &handle,
                              &deliveries, &count);
}

static void load_note(uint32_t handle, uint16_t kind, const struct delivery_note *what)
{
    struct buffer buffer;
    buffer_init(&buffer, NOTE_PAYLOAD_MAX);
    note_encode(&buffer, what);
    relay_load_note(world.relay, (struct spool_handle){handle}, SPOOL_ALL_DELIVERIES, kind,
                    buffer_slice(&buffer), world.now);
    buffer_done(&buffer);
}

static void check_silence(void)
{
    assert_int_equal(world_count(&world, RELAY_FATE), 0);
    assert_int_equal(world_count(&world, RELAY_NOTE), 0);
    assert_int_equal(world_count(&world, RELAY_BOUNCE), 0);
    assert_int_equal(world_count(&world, RELAY_EVENT), 0);
}

/* ---- a part ---------------------------------------------------------------------------------- */

static void what_others_have_is_neither_sent_nor_counted(void **state)
{
    (void)state;
    static const uint32_t others[] = {0, 2, 3};
    start();
    world_up(&world, 0);
    add_part(1, "ann@one.example bob@one.example carl@two.example dora@nowhere.example", others, 3);
    assert_int_equal(totals().deliveries, 1);
    assert_int_equal(totals().messages, 1);
    assert_int_equal(relay_route_bytes(world.relay, 1), 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 1);
    assert_int_equal(deliver.delivery_count, 1);
    assert_int_equal(deliver.deliveries[0], 1);
    assert_null(world_event(&world, RELAY_EVENT_ORPHANED, 0));
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_FATE), 1);
    assert_int_equal(relay_delivery_count(world.relay, (struct spool_handle){1}), 0);
    check_nothing_is_left();
    world_close(&world);
}

static void one_without_a_route_is_told_of_by_who_has_it(void **state)
{
    (void)state;
    static const uint32_t others[] = {0, 2};
    start();
    add_part(1, "ann@nowhere.example bob@nowhere.example carl@nowhere.example", others, 2);
    assert_non_null(world_event(&world, RELAY_EVENT_ORPHANED, 0));
    assert_int_equal(world_event(&world, RELAY_EVENT_ORPHANED, 0)->delivery, 1);
    assert_null(world_event(&world, RELAY_EVENT_ORPHANED, 1));
    world_close(&world);
}

static void a_message_that_is_all_elsewhere_is_gone_from_here(void **state)
{
    (void)state;
    static const uint32_t others[] = {1, 0};
    start();
    add_part(1, "ann@one.example bob@one.example", others, 2);
    check_silence();
    check_nothing_is_left();
    world_add(&world, 1, "a@x", "ann@one.example", 0); /* its handle is free */
    assert_int_equal(totals().deliveries, 1);
    world_close(&world);
}

static void what_is_elsewhere_ends_no_drain(void **state)
{
    (void)state;
    static const uint32_t others[] = {0};
    start();
    world_up(&world, 0);
    for (uint32_t server = 0; server < WORLD_SERVERS; server++) {
        assert_int_equal(relay_server_disable(world.relay, server, world.now), ERROR_NONE);
    }
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    world_add(&world, 2, "a@x", "bob@one.example", 0);
    assert_true(world_lane(&world, 0).stopped);
    assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    for (int i = 0; i < 10 && world_count(&world, RELAY_CONNECT) == 0; i++) {
        world_wait(&world, 1000);
    }
    world_opened(&world, world_one(&world, RELAY_CONNECT).session);
    struct relay_action first = world_one(&world, RELAY_DELIVER);
    first.deliveries = others; /* its only one */
    struct relay_lane_view before = world_lane(&world, 0);
    assert_int_equal(before.left, 2);
    relay_together_begin(world.relay, world.now);
    world_insert(&world, 3, 1, "a@x", "carl@one.example", 0);
    relay_load_elsewhere(world.relay, (struct spool_handle){3}, others[0]);
    relay_together_end(world.relay, world.now);
    world_take(&world);
    struct relay_lane_view after = world_lane(&world, 0);
    assert_int_equal(after.left, before.left);
    assert_int_equal(after.done, before.done);
    world_result(&world, &first, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_lane(&world, 0).done, before.done + 1);
    world_close(&world);
}

/* ---- leaving --------------------------------------------------------------------------------- */

static void everything_is_left_without_a_word(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "ann@one.example", SPOOL_SENDER_VERIFIED);
    struct relay_action deferred = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deferred, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    world_add(&world, 2, "a@x", "bob@one.example", 0);
    struct relay_action doubted = world_one(&world, RELAY_DELIVER);
    assert_int_equal(note(&doubted), ERROR_NONE);
    world_result(&world, &doubted, RELAY_IN_DOUBT, RELAY_AT_DOT, RELAY_LOST, 0);
    world_add(&world, 3, "a@x", "carl@two.example dora@two.example", 0);
    assert_int_equal(relay_hold(world.relay, (struct spool_handle){3}, 0, SLICE_EMPTY, world.now),
                     ERROR_NONE);
    world_add(&world, 4, "a@x", "ann@one.example", 0); /* behind the deferred one */
    world_add(&world, 5, "a@x", "eve@nowhere.example", 0);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_IN_DOUBT);
    assert_int_equal(world_delivery(&world, 3, 0), DELIVERY_HELD);
    for (uint32_t handle = 1; handle <= 5; handle++) {
        (void)rest(handle);
        assert_int_equal(world_count(&world, RELAY_FATE), 0);
        assert_int_equal(world_count(&world, RELAY_EVENT), 0);
    }
    for (uint32_t handle = 1; handle <= 5; handle++) {
        leave(handle);
        check_silence();
        assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
        assert_int_equal(relay_delivery_count(world.relay, (struct spool_handle){handle}), 0);
    }
    check_nothing_is_left();
    struct relay_cursor cursor = {0};
    struct spool_handle none;
    assert_false(relay_next_message(world.relay, &cursor, &none));
    world_wait(&world, 3600000);
    assert_int_equal(world_count(&world, RELAY_FATE) + world_count(&world, RELAY_NOTE), 0);
    world_close(&world);
}

static void a_dead_letter_is_left_too(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 550);
    assert_int_equal(totals().dead_letters, 1);
    leave(1);
    check_silence();
    check_nothing_is_left();
    world_close(&world);
}

/* Deferred by the server that may have it, it is due there while its patience runs. */
static void one_that_goes_back_in_doubt_keeps_nobody_back_when_it_is_left(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    relay_together_begin(world.relay, world.now);
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    load_note(1, NOTE_DEFER,
              &(struct delivery_note){.when_ms = world.now.wall_ms,
                                      .next_ms = world.now.wall_ms + 5000,
                                      .patience_ms = world.now.wall_ms + 20000,
                                      .flags = NOTE_DOUBTED,
                                      .server = SLICE_LITERAL("m1")});
    (void)rest(1);
    relay_together_end(world.relay, world.now);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    for (int i = 0; i < 100 && world_delivery(&world, 1, 0) == DELIVERY_DEFERRED; i++) {
        world_wait(&world, 1000);
    }
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    assert_int_equal(totals().in_doubt, 1);
    leave(1);
    world_add(&world, 2, "a@x", "bob@one.example", 0); /* has its place in memory */
    world_opened(&world, world_one(&world, RELAY_CONNECT).session);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    static const uint32_t one[] = {0};
    deliver.deliveries = one;
    world_add(&world, 3, "a@x", "ann@one.example", 0);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_delivery(&world, 3, 0), DELIVERY_IN_FLIGHT);
    world_close(&world);
}

/* ---- resting --------------------------------------------------------------------------------- */

static void what_rests_is_not_sent_until_it_is_woken(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    relay_together_begin(world.relay, world.now);
    world_add(&world, 1, "a@x", "ann@one.example bob@one.example", 0);
    world_add(&world, 2, "a@x", "ann@one.example", 0);
    world_add(&world, 3, "a@x", "carl@one.example", 0);
    assert_false(rest(1));
    assert_false(rest(2));
    relay_together_end(world.relay, world.now);
    world_take(&world);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(deliver.handle.index, 3); /* all else goes on */
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    assert_int_equal(totals().deliveries, 3); /* still ours */
    relay_together_begin(world.relay, world.now);
    wake(1);
    wake(2);
    relay_together_end(world.relay, world.now);
    world_take(&world);
    deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(deliver.handle.index, 1); /* in its order */
    assert_int_equal(deliver.delivery_count, 2);
    world_close(&world);
}

static void what_comes_back_to_rest_stays_and_what_is_under_way_is_told(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    relay_together_begin(world.relay, world.now);
    world_add(&world, 2, "a@x", "ann@one.example", 0);
    (void)rest(2);
    relay_together_end(world.relay, world.now);
    assert_true(rest(1));
    assert_true(in_flight(1));
    assert_false(in_flight(2));
    world_result(&world, &deliver, RELAY_NOT_TRIED, RELAY_AT_IDLE, RELAY_LOST, 0);
    assert_false(in_flight(1));
    for (int i = 0; i < 10; i++) {
        world_wait(&world, 1000);
        assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
        if (world_action(&world, RELAY_CONNECT, 0) != NULL) {
            world_opened(&world, world_one(&world, RELAY_CONNECT).session);
        }
        assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    }
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_WAITING);
    world_close(&world);
}

static void a_deferred_one_is_due_while_it_rests_and_waits(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    assert_false(rest(1));
    assert_int_equal(relay_retry(world.relay, (struct spool_handle){1}, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    wake(1);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 1);
    world_close(&world);
}

static void rest_outlives_a_new_configuration(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    relay_together_begin(world.relay, world.now);
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    (void)rest(1);
    relay_together_end(world.relay, world.now);
    const struct relay_envelopes none = {0};
    assert_int_equal(relay_reconfigure(world.relay, &world.config, &none, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    wake(1);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 1);
    world_close(&world);
}

/* R7: the next sweep would have written it, here. */
static void a_note_of_its_time_is_written_before_it_goes(void **state)
{
    (void)state;
    start();
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    assert_int_equal(relay_hold(world.relay, (struct spool_handle){1}, 0, SLICE_EMPTY, world.now),
                     ERROR_NONE);
    world_take(&world);
    world.now.wall_ms += 60000;
    world.now.steady_ms += 60000;
    assert_int_equal(relay_release(world.relay, (struct spool_handle){1}, 0, world.now),
                     ERROR_NONE);
    world_take(&world);
    (void)rest(1);
    struct relay_action span = world_one(&world, RELAY_NOTE);
    struct span_note told;
    assert_int_equal(span.note, NOTE_SPAN);
    assert_true(note_decode_span(span.payload, &told));
    assert_int_equal(told.credit_s, 60);
    world_close(&world);
}

/* ---- left while in flight -------------------------------------------------------------------- */

static struct relay_action left_in_flight(bool noted)
{
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "ann@one.example bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(deliver.delivery_count, 2);
    if (noted) {
        assert_int_equal(note(&deliver), ERROR_NONE);
    }
    leave(1);
    check_silence();
    assert_int_equal(world_one(&world, RELAY_CLOSE).session, deliver.session);
    check_nothing_is_left();
    assert_true(in_flight(1));
    return deliver;
}

static void what_was_left_in_flight_may_send_no_dot(void **state)
{
    (void)state;
    struct relay_action deliver = left_in_flight(false);
    assert_int_equal(note(&deliver), ERROR_MISSING);
    static const uint32_t both[] = {0, 1};
    deliver.deliveries = both;
    world_result(&world, &deliver, RELAY_NOT_TRIED, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    check_silence();
    assert_false(in_flight(1));
    check_nothing_is_left();
    world_close(&world);
}

static void that_it_was_handed_over_all_the_same_is_a_fact(void **state)
{
    (void)state;
    static const uint32_t both[] = {0, 1};
    struct relay_action deliver = left_in_flight(true);
    deliver.deliveries = both;
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_FATE), 2);
    for (uint32_t i = 0; i < 2; i++) {
        const struct relay_action *fate = world_action(&world, RELAY_FATE, i);
        assert_int_equal(fate->handle.index, 1);
        assert_int_equal(fate->delivery, i);
        assert_int_equal(fate->fate, SPOOL_DELIVERED);
        assert_int_equal(fate->server, 0);
        const struct relay_action *event = world_event(&world, RELAY_EVENT_DELIVERED, i);
        assert_non_null(event);
        assert_int_equal(event->delivery, i);
        assert_int_equal(event->reply.code, 250);
    }
    assert_false(in_flight(1));
    check_nothing_is_left();
    world_close(&world);
}

static void what_else_its_server_says_is_the_new_owners_matter(void **state)
{
    (void)state;
    static const uint32_t both[] = {0, 1};
    static const struct {
        enum relay_verdict verdict;
        enum relay_how how;
        uint16_t code;
    } ends[] = {{RELAY_REFUSED, RELAY_REPLY, 550},
                {RELAY_REFUSED, RELAY_REPLY, 450},
                {RELAY_IN_DOUBT, RELAY_LOST, 0},
                {RELAY_CUT, RELAY_LOST, 0}};
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        struct relay_action deliver = left_in_flight(true);
        deliver.deliveries = both;
        world_result(&world, &deliver, ends[i].verdict, RELAY_AT_DOT, ends[i].how, ends[i].code);
        assert_int_equal(world_count(&world, RELAY_FATE), 0);
        assert_int_equal(world_count(&world, RELAY_NOTE), 0);
        assert_int_equal(world_count(&world, RELAY_BOUNCE), 0);
        assert_null(world_event(&world, RELAY_EVENT_DEFERRED, 0));
        assert_null(world_event(&world, RELAY_EVENT_DEAD, 0));
        assert_false(in_flight(1));
        world_close(&world);
    }
}

static void its_sender_dies_and_nothing_is_said_of_it(void **state)
{
    (void)state;
    (void)left_in_flight(true);
    relay_sessions_lost(world.relay, 0, 1, world.now);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_FATE) + world_count(&world, RELAY_NOTE), 0);
    assert_false(in_flight(1));
    check_nothing_is_left();
    world_close(&world);
}

static void a_new_configuration_finds_it_gone(void **state)
{
    (void)state;
    static const uint32_t both[] = {0, 1};
    struct relay_action deliver = left_in_flight(true);
    deliver.deliveries = both;
    const struct relay_envelopes none = {0};
    world.config.server_count = 2; /* m3 goes, and routes that need it */
    world.config.route_count = 1;
    world.routes[0].chain_length = 2;
    world.config.bounces = NO_INDEX;
    assert_int_equal(relay_reconfigure(world.relay, &world.config, &none, world.now), ERROR_NONE);
    world_take(&world);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_FATE), 2);
    world_close(&world);
}

static void a_job_of_an_earlier_life_is_withdrawn_alike(void **state)
{
    (void)state;
    static const uint32_t one[] = {0};
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    assert_int_equal(note(&deliver), ERROR_NONE);
    world_reopen(&world);
    world_insert(&world, 1, 1, "a@x", "ann@one.example", 0);
    relay_resume(world.relay, 77, deliver.job, (struct spool_handle){1}, one, 1, 0, world.now);
    relay_start(world.relay, world.now);
    world_take(&world);
    assert_true(in_flight(1));
    leave(1);
    assert_int_equal(note(&deliver), ERROR_MISSING);
    deliver.deliveries = one;
    deliver.session = 77;
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_FATE), 1);
    check_nothing_is_left();
    world_close(&world);
}

/* The share has come back while the old job is still under way. */
static void come_back(uint32_t handle)
{
    relay_together_begin(world.relay, world.now);
    world_insert(&world, handle, 1, "a@x", "ann@one.example bob@one.example", 0);
    load_note(handle, NOTE_ATTEMPT,
              &(struct delivery_note){.when_ms = world.now.wall_ms, .server = SLICE_LITERAL("m1")});
    relay_together_end(world.relay, world.now);
    world_take(&world);
}

static void a_fact_ends_what_has_come_back_meanwhile(void **state)
{
    (void)state;
    static const uint32_t both[] = {0, 1};
    struct relay_action deliver = left_in_flight(true);
    deliver.deliveries = both;
    come_back(1);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_IN_DOUBT); /* and not sent at once */
    assert_int_equal(totals().in_doubt, 2);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_FATE), 2);
    check_nothing_is_left();
    world_close(&world);
}

static void another_message_under_the_same_handle_is_left_alone(void **state)
{
    (void)state;
    static const uint32_t both[] = {0, 1};
    struct relay_action deliver = left_in_flight(true);
    deliver.deliveries = both;
    world_insert(&world, 1, 77, "a@x", "ann@one.example bob@one.example", 0);
    uint64_t before = totals().deliveries;
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_FATE), 0);
    assert_int_equal(totals().deliveries, before);
    world_close(&world);
}

/* Another node says what became of it, while it is in flight here. */
static void a_fate_from_elsewhere_withdraws_what_is_in_flight(void **state)
{
    (void)state;
    static const uint32_t both[] = {0, 1};
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "ann@one.example bob@one.example", 0);
    struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    relay_load_fate(world.relay, (struct spool_handle){1}, 0, SPOOL_DELIVERED);
    world_take(&world);
    assert_int_equal(note(&deliver), ERROR_MISSING);
    assert_int_equal(totals().deliveries, 1);
    deliver.deliveries = both;
    world_result(&world, &deliver, RELAY_NOT_TRIED, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    assert_int_equal(world_count(&world, RELAY_FATE), 0);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_FINISHED);
    assert_int_equal(totals().deliveries, 1);
    world_close(&world);
}

/* Its recipient's next is in flight behind it, on the same session. */
static void a_follower_is_no_trouble(void **state)
{
    (void)state;
    static const uint32_t one[] = {0};
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    struct relay_action first = world_one(&world, RELAY_DELIVER);
    assert_int_equal(note(&first), ERROR_NONE);
    world_add(&world, 2, "a@x", "ann@one.example", 0);
    struct relay_action second = world_one(&world, RELAY_DELIVER);
    assert_int_equal(second.session, first.session);
    first.deliveries = second.deliveries = one;
    leave(1);
    leave(2);
    assert_int_equal(note(&second), ERROR_MISSING);
    world_result(&world, &first, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_FATE), 1);
    world_result(&world, &second, RELAY_NOT_TRIED, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    assert_int_equal(world_count(&world, RELAY_FATE), 0);
    world_ended(&world, first.session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    check_nothing_is_left();
    world_close(&world);
}

/* ---- taken over while we run ----------------------------------------------------------------- */

static uint32_t sent[16]; /* handles, as they were given to sessions */
static uint32_t sent_count;

/* Answers what was taken last; what has been given to sessions is taken by them. */
static void answer(void)
{
    static const uint32_t one[] = {0};
    struct relay_action taken[32];
    size_t count = world.action_count < 32 ? world.action_count : 32;
    memcpy(taken, world.actions, count * sizeof(taken[0]));
    for (size_t i = 0; i < count; i++) {
        if (taken[i].kind == RELAY_DELIVER) {
            assert_true(sent_count < 16);
            sent[sent_count++] = taken[i].handle.index;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (taken[i].kind == RELAY_CONNECT && taken[i].server == 0) {
            world_opened(&world, taken[i].session);
        } else if (taken[i].kind == RELAY_DELIVER) {
            taken[i].deliveries = one;
            world_result(&world, &taken[i], RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
        } else {
            continue;
        }
        answer();
    }
}

static void older_mail_goes_before_what_is_here(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    for (uint32_t server = 0; server < WORLD_SERVERS; server++) {
        assert_int_equal(relay_server_disable(world.relay, server, world.now), ERROR_NONE);
    }
    world.servers[0].connections = 1;
    world_insert(&world, 10, 10, "a@x", "dora@one.example", 0);
    world_insert(&world, 11, 11, "a@x", "fred@one.example", 0);
    relay_together_begin(world.relay, world.now);
    world_insert(&world, 2, 2, "a@x", "bob@one.example", 0);
    world_insert(&world, 3, 3, "a@x", "carl@one.example", 0);
    relay_together_end(world.relay, world.now);
    relay_together_begin(world.relay, world.now);
    world_insert(&world, 1, 1, "a@x", "ann@one.example", 0); /* of another share */
    world_insert(&world, 4, 4, "a@x", "eve@one.example", 0);
    relay_together_end(world.relay, world.now);
    assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    static const uint32_t order[] = {1, 2, 3, 4, 10, 11};
    for (int i = 0; i < 30 && sent_count < 6; i++) {
        answer();
        world_wait(&world, 1000);
    }
    assert_int_equal(sent_count, 6);
    assert_memory_equal(sent, order, sizeof(order));
    check_nothing_is_left();
    world_close(&world);
}

static void the_first_slice_goes_while_others_come(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    relay_together_begin(world.relay, world.now);
    world_insert(&world, 1, 1, "a@x", "ann@one.example", 0);
    world_insert(&world, 2, 2, "a@x", "ann@one.example", 0);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    relay_together_end(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_one(&world, RELAY_DELIVER).handle.index, 1);
    relay_together_begin(world.relay, world.now);
    world_insert(&world, 3, 3, "a@x", "ann@one.example", 0);
    relay_together_end(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_delivery(&world, 3, 0), DELIVERY_WAITING);
    world_close(&world);
}

/* Patience that a former owner began keeps later mail back, that of a later slice, too. */
static void patience_goes_on(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    relay_together_begin(world.relay, world.now);
    world_insert(&world, 1, 1, "a@x", "ann@one.example", 0);
    load_note(1, NOTE_DEFER,
              &(struct delivery_note){.when_ms = world.now.wall_ms - 10000,
                                      .next_ms = world.now.wall_ms + 60000,
                                      .patience_ms = world.now.wall_ms + 20000,
                                      .attempts = 1,
                                      .server = SLICE_LITERAL("m1")});
    world_insert(&world, 2, 2, "a@x", "ann@one.example", 0);
    relay_together_end(world.relay, world.now);
    relay_together_begin(world.relay, world.now);
    world_insert(&world, 3, 3, "a@x", "ann@one.example", 0);
    relay_together_end(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    int64_t began = world.now.steady_ms;
    while (world_count(&world, RELAY_DELIVER) == 0 && world.now.steady_ms < began + 60000) {
        world_wait(&world, 1000);
        const struct relay_action *connect = world_action(&world, RELAY_CONNECT, 0);
        if (connect != NULL && connect->server == 0) {
            world_opened(&world, connect->session);
        }
    }
    assert_int_equal(world_one(&world, RELAY_DELIVER).handle.index, 2);
    assert_true(world.now.steady_ms - began >= 20000);
    world_close(&world);
}

static void an_attempt_with_its_result_is_no_doubt(void **state)
{
    (void)state;
    const struct delivery_note attempt = {.server = SLICE_LITERAL("m1")};
    const struct delivery_note waits = {.attempts = 1, .server = SLICE_LITERAL("m1")};
    start();
    world_up(&world, 0);
    relay_together_begin(world.relay, world.now);
    world_insert(&world, 1, 1, "a@x", "ann@one.example", 0);
    load_note(1, NOTE_ATTEMPT, &attempt);
    load_note(1, NOTE_WAITING, &waits);
    world_insert(&world, 2, 2, "a@x", "bob@one.example", 0);
    load_note(2, NOTE_ATTEMPT, &attempt);
    relay_load_fate(world.relay, (struct spool_handle){2}, 0, SPOOL_DELIVERED);
    world_insert(&world, 3, 3, "a@x", "carl@one.example", 0);
    load_note(3, NOTE_ATTEMPT, &attempt);
    relay_together_end(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_one(&world, RELAY_DELIVER).handle.index, 1);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_FINISHED);
    assert_int_equal(world_delivery(&world, 3, 0), DELIVERY_IN_DOUBT);
    assert_int_equal(totals().in_doubt, 1);
    assert_int_equal(world_one(&world, RELAY_NOTE).note, NOTE_DOUBT);
    world_close(&world);
}

static void what_rests_there_rests_here(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    relay_together_begin(world.relay, world.now);
    world_insert(&world, 1, 1, "a@x", "ann@one.example", 0);
    load_note(1, NOTE_HOLD, &(struct delivery_note){.when_ms = world.now.wall_ms - 1000});
    world_insert(&world, 2, 2, "a@x", "bob@one.example", 0);
    load_note(2, NOTE_DEAD, &(struct delivery_note){.when_ms = world.now.wall_ms - 1000});
    relay_together_end(world.relay, world.now);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    assert_int_equal(totals().held, 1);
    assert_int_equal(totals().dead_letters, 1);
    assert_int_equal(totals().messages, 1);
    world_close(&world);
}

/* ---- the lease ------------------------------------------------------------------------------- */

static void without_the_lease_nothing_is_sent(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    struct relay_action first = world_one(&world, RELAY_DELIVER);
    relay_lease(world.relay, false, world.now);
    world_take(&world);
    assert_false(relay_lease_is_held(world.relay));
    assert_int_equal(note(&first), ERROR_AGAIN);
    world_add(&world, 2, "a@x", "bob@one.example", 0);
    world_add(&world, 3, "a@x", "ann@one.example", 0); /* would follow the first */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
        world_wait(&world, 1000);
        const struct relay_action *connect = world_action(&world, RELAY_CONNECT, 0);
        if (connect != NULL && connect->server == 0) {
            world_opened(&world, connect->session);
        }
    }
    relay_lease(world.relay, true, world.now);
    world_take(&world);
    assert_int_equal(note(&first), ERROR_NONE);
    bool goes_on = world_count(&world, RELAY_DELIVER) + world_count(&world, RELAY_CONNECT) > 0;
    assert_true(goes_on);
    world_close(&world);
}

/* Results are facts, and what they leave behind is written. */
static void without_the_lease_results_are_taken(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    world_add(&world, 1, "a@x", "ann@one.example", 0);
    static const uint32_t one[] = {0};
    struct relay_action first = world_one(&world, RELAY_DELIVER);
    first.deliveries = one;
    world_add(&world, 2, "a@x", "ann@one.example", 0);
    assert_int_equal(note(&first), ERROR_NONE);
    relay_lease(world.relay, false, world.now);
    world_take(&world);
    world_result(&world, &first, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_FATE), 1);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    world_close(&world);
}

/* ---- older mail that others have yet to bring ------------------------------------------------ */

static void add_accepted(uint32_t handle, const char *recipients, int64_t accepted_ms)
{
    int64_t now_ms = world.now.wall_ms;
    world.now.wall_ms = accepted_ms;
    world_add(&world, handle, "a@x", recipients, 0);
    world.now.wall_ms = now_ms;
}

static void due(int64_t accepted_ms)
{
    relay_older_due(world.relay, accepted_ms, world.now);
    world_take(&world);
}

/* The handle of what is handed over now; 0: nothing is. */
static uint32_t deliver_one(void)
{
    static const uint32_t one[] = {0};
    const struct relay_action *action = world_action(&world, RELAY_DELIVER, 0);
    if (action == NULL) {
        return 0;
    }
    struct relay_action deliver = *action;
    deliver.deliveries = one;
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    bool is_more = world_count(&world, RELAY_DELIVER) > 0;
    relay_result_durable(world.relay, deliver.job, world.now);
    if (!is_more) {
        world_take(&world);
    }
    return deliver.handle.index;
}

static void what_is_younger_waits_for_what_is_due(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    int64_t accepted_ms = world.now.wall_ms;
    due(accepted_ms - 1000);
    add_accepted(1, "bob@one.example", accepted_ms - 1000); /* just that, or before it */
    assert_int_equal(deliver_one(), 1);
    add_accepted(2, "ann@one.example", accepted_ms);
    due(accepted_ms - 500);
    assert_int_equal(deliver_one(), 0);
    due(INT64_MAX);
    assert_int_equal(deliver_one(), 2);
    world_close(&world);
}

static void a_lane_that_waits_stops_no_other(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    int64_t accepted_ms = world.now.wall_ms;
    relay_lease(world.relay, false, world.now);
    add_accepted(1, "ann@one.example", accepted_ms);
    add_accepted(2, "ann@two.example", accepted_ms - 1000);
    due(accepted_ms - 500);
    relay_lease(world.relay, true, world.now);
    world_take(&world);
    assert_int_equal(deliver_one(), 2);
    assert_int_equal(deliver_one(), 0);
    world_close(&world);
}

static void what_would_follow_on_its_connection_waits_too(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    int64_t accepted_ms = world.now.wall_ms;
    due(accepted_ms - 500);
    add_accepted(1, "ann@one.example", accepted_ms - 1000);
    struct relay_action first = world_one(&world, RELAY_DELIVER);
    add_accepted(2, "ann@one.example", accepted_ms);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    static const uint32_t one[] = {0};
    first.deliveries = one;
    world_result(&world, &first, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
    world_close(&world);
}

static void patience_ends_the_wait(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    int64_t accepted_ms = world.now.wall_ms;
    due(accepted_ms - 1000);
    add_accepted(1, "ann@one.example", accepted_ms);
    world.now.steady_ms += 29999;
    due(accepted_ms - 999); /* it goes on, and comes nearer */
    assert_int_equal(deliver_one(), 0);
    world.now.steady_ms++;
    due(accepted_ms - 998);
    assert_int_equal(deliver_one(), 1);
    world_close(&world);
}

/* While the database is away nobody can bring anything. */
static void without_the_lease_no_patience_runs_out(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    int64_t accepted_ms = world.now.wall_ms;
    due(accepted_ms - 1000);
    add_accepted(1, "ann@one.example", accepted_ms);
    world.now.steady_ms += 10000;
    relay_lease(world.relay, false, world.now);
    world.now.steady_ms += 60000;
    relay_lease(world.relay, true, world.now);
    world.now.steady_ms += 19999;
    due(accepted_ms - 1000);
    assert_int_equal(deliver_one(), 0);
    world.now.steady_ms++;
    due(accepted_ms - 1000);
    assert_int_equal(deliver_one(), 1);
    world_close(&world);
}

static void what_is_due_since_the_lease_lapsed_has_all_patience(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    int64_t accepted_ms = world.now.wall_ms;
    relay_lease(world.relay, false, world.now);
    add_accepted(1, "ann@one.example", accepted_ms);
    world.now.steady_ms += 10000;
    due(accepted_ms - 1000);
    world.now.steady_ms += 60000;
    relay_lease(world.relay, true, world.now);
    world.now.steady_ms += 29999;
    due(accepted_ms - 1000);
    assert_int_equal(deliver_one(), 0);
    world.now.steady_ms++;
    due(accepted_ms - 1000);
    assert_int_equal(deliver_one(), 1);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_others_have_is_neither_sent_nor_counted),
        cmocka_unit_test(one_without_a_route_is_told_of_by_who_has_it),
        cmocka_unit_test(a_message_that_is_all_elsewhere_is_gone_from_here),
        cmocka_unit_test(what_is_elsewhere_ends_no_drain),
        cmocka_unit_test(everything_is_left_without_a_word),
        cmocka_unit_test(a_dead_letter_is_left_too),
        cmocka_unit_test(one_that_goes_back_in_doubt_keeps_nobody_back_when_it_is_left),
        cmocka_unit_test(what_rests_is_not_sent_until_it_is_woken),
        cmocka_unit_test(what_comes_back_to_rest_stays_and_what_is_under_way_is_told),
        cmocka_unit_test(a_deferred_one_is_due_while_it_rests_and_waits),
        cmocka_unit_test(rest_outlives_a_new_configuration),
        cmocka_unit_test(a_note_of_its_time_is_written_before_it_goes),
        cmocka_unit_test(what_was_left_in_flight_may_send_no_dot),
        cmocka_unit_test(that_it_was_handed_over_all_the_same_is_a_fact),
        cmocka_unit_test(what_else_its_server_says_is_the_new_owners_matter),
        cmocka_unit_test(its_sender_dies_and_nothing_is_said_of_it),
        cmocka_unit_test(a_new_configuration_finds_it_gone),
        cmocka_unit_test(a_job_of_an_earlier_life_is_withdrawn_alike),
        cmocka_unit_test(a_fact_ends_what_has_come_back_meanwhile),
        cmocka_unit_test(another_message_under_the_same_handle_is_left_alone),
        cmocka_unit_test(a_fate_from_elsewhere_withdraws_what_is_in_flight),
        cmocka_unit_test(a_follower_is_no_trouble),
        cmocka_unit_test(older_mail_goes_before_what_is_here),
        cmocka_unit_test(the_first_slice_goes_while_others_come),
        cmocka_unit_test(patience_goes_on),
        cmocka_unit_test(an_attempt_with_its_result_is_no_doubt),
        cmocka_unit_test(what_rests_there_rests_here),
        cmocka_unit_test(without_the_lease_nothing_is_sent),
        cmocka_unit_test(without_the_lease_results_are_taken),
        cmocka_unit_test(what_is_younger_waits_for_what_is_due),
        cmocka_unit_test(a_lane_that_waits_stops_no_other),
        cmocka_unit_test(what_would_follow_on_its_connection_waits_too),
        cmocka_unit_test(patience_ends_the_wait),
        cmocka_unit_test(without_the_lease_no_patience_runs_out),
        cmocka_unit_test(what_is_due_since_the_lease_lapsed_has_all_patience),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
