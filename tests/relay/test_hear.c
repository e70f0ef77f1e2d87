/* SPDX-License-Identifier: Apache-2.0
 *
 * What other nodes of a cluster have written about no message: odometers (R7), of which the largest
 * counts, and servers taken out of service by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/notes.h"
#include "world.h"

#define LANE SLICE_LITERAL("domain:one.example")
enum { SECOND_MS = 1000, DAY_S = 86400 };

static struct world world;

static void open_world(void)
{
    world_configure(&world);
    world_open(&world);
}

static void start(void)
{
    relay_start(world.relay, world.now);
    world_take(&world);
}

static void load(struct slice key, struct slice payload)
{
    relay_load_global(world.relay, key, payload, world.now);
    world_take(&world);
}

static void load_odometer(int64_t seconds)
{
    struct buffer key, payload;
    buffer_init(&key, SPOOL_KEY_MAX);
    buffer_init(&payload, SPOOL_NOTE_MAX);
    assert_true(note_odometer_key(&key, LANE));
    note_encode_odometer(&payload, seconds * SECOND_MS);
    load(buffer_slice(&key), buffer_slice(&payload));
    buffer_done(&key);
    buffer_done(&payload);
}

static void load_hand_of(const char *key, int64_t when_ms, bool disabled)
{
    struct buffer payload;
    buffer_init(&payload, SPOOL_NOTE_MAX);
    note_encode_hand(&payload, &(struct hand_note){when_ms, disabled});
    load(slice_from_text(key), buffer_slice(&payload));
    buffer_done(&payload);
}

static void load_hand(const char *key, bool disabled)
{
    static int64_t when_ms;
    load_hand_of(key, ++when_ms, disabled);
}

static uint32_t reading(void)
{
    struct spool_recipient recipient = {.address = SLICE_LITERAL("ann@one.example")};
    const struct spool_message message = {.recipients = &recipient, .recipient_count = 1};
    return relay_odometer(world.relay, &message, world.now);
}

/* A message that was accepted by another node. */
static void add(uint32_t handle, uint32_t odometer_s)
{
    struct spool_recipient recipient = {.address = SLICE_LITERAL("ann@one.example")};
    const struct spool_message message = {.sequence = handle,
                                          .received_ms = world.now.wall_ms,
                                          .odometer_s = odometer_s,
                                          .header_length = 1,
                                          .recipients = &recipient,
                                          .recipient_count = 1};
    relay_together_begin(world.relay, world.now);
    assert_int_equal(relay_add(world.relay, (struct spool_handle){handle}, &message, world.now),
                     ERROR_NONE);
    (void)relay_rest(world.relay, (struct spool_handle){handle}, true, world.now);
    relay_together_end(world.relay, world.now);
    world_take(&world);
}

static uint32_t elapsed(uint32_t handle)
{
    (void)reading(); /* so that it is now */
    return relay_elapsed_s(world.relay, (struct spool_handle){handle});
}

/* Servers answer every probe meanwhile. */
static void pass(int64_t ms)
{
    int64_t end = world.now.steady_ms + ms;
    while (world.now.steady_ms < end) {
        world_wait(&world, end - world.now.steady_ms);
        for (size_t i = 0; i < world.action_count; i++) {
            if (world.actions[i].kind == RELAY_CONNECT) {
                world_opened(&world, world.actions[i].session);
            }
        }
    }
}

/* ---- keys ------------------------------------------------------------------------------------ */

static void a_key_says_whose_it_is(void **state)
{
    (void)state;
    static const char *const of_cluster[] = {"odometer/domain:one.example", "server/m1/hand",
                                             "exchanger/mx.example/hand"};
    static const char *const of_node[] = {"server/m1/state",
                                          "server/m1/capabilities",
                                          "exchanger/mx.example/state",
                                          "switched/domain:one.example",
                                          "freeze/domain:one.example",
                                          "mx/one.example",
                                          "clock",
                                          "name/mx.example",
                                          "server/hand/state",
                                          "hand",
                                          "",
                                          "odometer"};
    for (size_t i = 0; i < sizeof(of_cluster) / sizeof(of_cluster[0]); i++) {
        assert_int_equal(note_scope(slice_from_text(of_cluster[i])), NOTE_OF_CLUSTER);
    }
    for (size_t i = 0; i < sizeof(of_node) / sizeof(of_node[0]); i++) {
        assert_int_equal(note_scope(slice_from_text(of_node[i])), NOTE_OF_NODE);
    }
}

/* ---- odometers ------------------------------------------------------------------------------- */

static void the_largest_reading_counts(void **state)
{
    (void)state;
    open_world();
    load_odometer(500);
    load_odometer(400);
    start();
    assert_int_equal(reading(), 500);
    load_odometer(300);
    assert_int_equal(reading(), 500);
    load_odometer(900);
    assert_int_equal(reading(), 900);
    world_close(&world);
}

static void it_goes_on_from_there_and_counts_nothing_twice(void **state)
{
    (void)state;
    open_world();
    start();
    world_up(&world, 0);
    uint32_t before = reading();
    pass(30 * SECOND_MS);
    assert_int_equal(reading(), before + 30);
    load_odometer(before + 20); /* another node's clock of the same seconds */
    assert_int_equal(reading(), before + 30);
    load_odometer(before + 100);
    assert_int_equal(reading(), before + 100);
    pass(10 * SECOND_MS);
    assert_int_equal(reading(), before + 110);
    size_t notes = world.odometer_notes;
    pass(120 * SECOND_MS);
    assert_true(world.odometer_notes > notes);
    assert_int_equal(reading(), before + 230);
    world_close(&world);
}

static void a_reading_that_cannot_be_is_none(void **state)
{
    (void)state;
    open_world();
    load_odometer(100);
    start();
    load_odometer((int64_t)UINT32_MAX + 5);
    load_odometer(-7);
    assert_int_equal(reading(), 100);
    world_close(&world);
}

/* What a chain of ours could take meanwhile, whoever has seen it. */
static void time_that_others_have_seen_is_over_for_our_mail_too(void **state)
{
    (void)state;
    open_world();
    load_odometer(1000);
    start();
    add(1, 1000);
    assert_int_equal(elapsed(1), 0);
    load_odometer(1600);
    assert_int_equal(elapsed(1), 600);
    world_close(&world);
}

static void mail_that_is_ahead_of_our_reading_begins_with_nothing(void **state)
{
    (void)state;
    open_world();
    load_odometer(1000);
    start();
    add(1, 1050);
    assert_int_equal(elapsed(1), 0);
    load_odometer(1040);
    assert_int_equal(elapsed(1), 0);
    load_odometer(1090);
    assert_int_equal(elapsed(1), 40);
    world_close(&world);
}

/* The database was away when we started: ours may be days behind. */
static void what_is_not_known_is_not_said_and_does_not_move(void **state)
{
    (void)state;
    open_world();
    relay_odometers_known(world.relay, false, world.now);
    start();
    world_up(&world, 0);
    assert_int_equal(reading(), ODOMETER_UNKNOWN);
    size_t notes = world.odometer_notes;
    pass(300 * SECOND_MS);
    assert_int_equal(world.odometer_notes, notes);
    add(1, reading());
    pass(3600 * SECOND_MS); /* sweeps, which begin nothing */
    load_odometer(30 * DAY_S);
    assert_int_equal(elapsed(1), 0);
    relay_odometers_known(world.relay, true, world.now);
    world_take(&world);
    assert_int_equal(reading(), 30 * DAY_S);
    assert_int_equal(elapsed(1), 0);
    pass(1200 * SECOND_MS); /* the sweep begins it, on what is known now */
    assert_in_range(reading(), 30 * DAY_S + 1200, 30 * DAY_S + 1201);
    uint32_t first = elapsed(1);
    assert_in_range(first, 0, 1200);
    pass(100 * SECOND_MS);
    assert_int_equal(elapsed(1), first + 100);
    world_close(&world);
}

static void mail_without_a_reading_begins_here_with_a_note(void **state)
{
    (void)state;
    open_world();
    load_odometer(5000);
    start();
    world_up(&world, 0);
    add(1, ODOMETER_UNKNOWN);
    assert_int_equal(elapsed(1), 0);
    bool noted = false;
    int64_t end = world.now.steady_ms + 3600 * SECOND_MS;
    while (!noted && world.now.steady_ms < end) {
        pass(SECOND_MS);
        for (size_t i = 0; i < world.action_count; i++) {
            struct span_note note;
            if (world.actions[i].kind == RELAY_NOTE && world.actions[i].note == NOTE_SPAN) {
                assert_true(note_decode_span(world.actions[i].payload, &note));
                noted |=
                    slice_equal(note.lane, LANE) && note.reading_s >= 5000 && note.elapsed_s == 0;
            }
        }
    }
    assert_true(noted);
    uint32_t first = elapsed(1);
    pass(60 * SECOND_MS);
    assert_int_equal(elapsed(1), first + 60);
    world_close(&world);
}

/* ---- by hand --------------------------------------------------------------------------------- */

static void a_server_goes_and_comes_back_by_anothers_hand(void **state)
{
    (void)state;
    open_world();
    start();
    world_up(&world, 0);
    load_hand("server/m1/hand", true);
    assert_int_equal(world_state(&world, 0), SERVER_DISABLED);
    assert_true(world_count(&world, RELAY_CLOSE) > 0);
    assert_non_null(world_event(&world, RELAY_EVENT_SERVER, 0));
    for (size_t i = 0; i < world.action_count; i++) {
        assert_false(world.actions[i].kind == RELAY_GLOBAL &&
                     slice_equal(world.actions[i].key, SLICE_LITERAL("server/m1/hand")));
    }
    load_hand("server/m1/hand", true); /* what we hear is often what we have said */
    assert_int_equal(world.action_count, 0);
    load_hand("server/m1/hand", false);
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    for (size_t i = 0; i < world.action_count; i++) {
        assert_false(world.actions[i].kind == RELAY_GLOBAL &&
                     slice_equal(world.actions[i].key, SLICE_LITERAL("server/m1/hand")));
    }
    load_hand("server/m1/hand", false);
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    load(SLICE_LITERAL("server/m1/hand"), SLICE_LITERAL("\xff\xff"));
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    world_close(&world);
}

static void our_own_hand_is_written(void **state)
{
    (void)state;
    open_world();
    start();
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    size_t written = 0;
    for (size_t i = 0; i < world.action_count; i++) {
        written += world.actions[i].kind == RELAY_GLOBAL &&
                   slice_equal(world.actions[i].key, SLICE_LITERAL("server/m1/hand")) &&
                   world.actions[i].payload.length > 0;
    }
    assert_int_equal(written, 1);
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_count(&world, RELAY_GLOBAL), 0);
    world_close(&world);
}

/* What is read may have been written before ours; and what another noted before it, and could not
 * tell, comes late. */
static void an_older_hand_undoes_no_newer_one(void **state)
{
    (void)state;
    open_world();
    start();
    int64_t now_ms = world.now.wall_ms;
    load_hand_of("server/m1/hand", now_ms + 5000, true); /* by a clock that is ahead of ours */
    assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    load_hand_of("server/m1/hand", now_ms + 5000, true);
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    load_hand_of("server/m1/hand", now_ms + 6000, true);
    assert_int_equal(world_state(&world, 0), SERVER_DISABLED);
    world_close(&world);
}

/* The database keeps the greater of two. */
static void the_later_hand_is_the_greater(void **state)
{
    (void)state;
    static const struct hand_note hands[] = {{1, true}, {255, false}, {256, true}, {257, false}};
    struct buffer before, after;
    buffer_init(&before, SPOOL_NOTE_MAX);
    buffer_init(&after, SPOOL_NOTE_MAX);
    buffer_append(&before, SLICE_LITERAL("\x01\x01")); /* as older ones were */
    for (size_t i = 0; i < sizeof(hands) / sizeof(hands[0]); i++) {
        struct hand_note read;
        buffer_clear(&after);
        note_encode_hand(&after, &hands[i]);
        size_t shorter = before.length < after.length ? before.length : after.length;
        assert_true(memcmp(after.data, before.data, shorter) > 0);
        assert_true(note_decode_hand(buffer_slice(&after), &read));
        assert_true(read.when_ms == hands[i].when_ms && read.disabled == hands[i].disabled);
        buffer_clear(&before);
        buffer_append(&before, buffer_slice(&after));
    }
    buffer_done(&before);
    buffer_done(&after);
}

/* It is configured by the next version of the settings. */
static void a_hand_is_remembered_for_a_server_to_come(void **state)
{
    (void)state;
    const struct relay_envelopes none = {0};
    world_configure(&world);
    const struct relay_config whole = world.config;
    world.config.server_count = 2; /* without m3, which routes 1 and 3 go to */
    world.config.route_count = 1;
    world.routes[0].chain_length = 2;
    world.config.bounces = NO_INDEX;
    const struct relay_config few = world.config;
    world_open(&world);
    start();
    load_hand("server/m3/hand", true);
    assert_int_equal(relay_reconfigure(world.relay, &whole, &none, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(world_state(&world, 2), SERVER_DISABLED);
    world_close(&world);
    world.config = few;
    world_open(&world);
    start();
    load_hand("server/m3/hand", true);
    load_hand("server/m3/hand", false);
    assert_int_equal(relay_reconfigure(world.relay, &whole, &none, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_not_equal(world_state(&world, 2), SERVER_DISABLED);
    world_close(&world);
}

/* What another node has seen of a server is nothing to us. */
static void states_are_a_nodes_own(void **state)
{
    (void)state;
    open_world();
    start();
    world_up(&world, 0);
    struct buffer payload;
    buffer_init(&payload, SPOOL_NOTE_MAX);
    const struct state_note down = {.state = SERVER_DOWN, .since_ms = world.now.wall_ms};
    note_encode_state(&payload, &down);
    load(SLICE_LITERAL("server/m1/state"), buffer_slice(&payload));
    buffer_done(&payload);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    assert_int_equal(world.action_count, 0);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_says_whose_it_is),
        cmocka_unit_test(the_largest_reading_counts),
        cmocka_unit_test(it_goes_on_from_there_and_counts_nothing_twice),
        cmocka_unit_test(a_reading_that_cannot_be_is_none),
        cmocka_unit_test(time_that_others_have_seen_is_over_for_our_mail_too),
        cmocka_unit_test(mail_that_is_ahead_of_our_reading_begins_with_nothing),
        cmocka_unit_test(what_is_not_known_is_not_said_and_does_not_move),
        cmocka_unit_test(mail_without_a_reading_begins_here_with_a_note),
        cmocka_unit_test(a_server_goes_and_comes_back_by_anothers_hand),
        cmocka_unit_test(our_own_hand_is_written),
        cmocka_unit_test(an_older_hand_undoes_no_newer_one),
        cmocka_unit_test(the_later_hand_is_the_greater),
        cmocka_unit_test(a_hand_is_remembered_for_a_server_to_come),
        cmocka_unit_test(states_are_a_nodes_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
