/* SPDX-License-Identifier: Apache-2.0
 *
 * Envelopes that a reload needs are read ahead of it, in slices, while mail comes and goes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "world.h"

enum { MESSAGES = 16, RED = 0, BLUE = 1 }; /* relays to come, by sender */

static struct world world;
static const char *senders[MESSAGES]; /* by handle */
static uint32_t reads[MESSAGES], all_reads;

static enum error read_envelope(void *context, struct spool_handle handle, struct arena *arena,
                                struct spool_message *ret_message)
{
    static const struct spool_recipient recipient = {.address = SLICE_LITERAL("bob@far.example")};
    (void)context;
    (void)arena;
    assert_true(handle.index < MESSAGES && senders[handle.index] != NULL);
    reads[handle.index]++;
    all_reads++;
    *ret_message = (struct spool_message){.sender = slice_from_text(senders[handle.index]),
                                          .recipients = &recipient,
                                          .recipient_count = 1};
    return ip_from_text(SLICE_LITERAL("198.51.100.7"), &ret_message->origin.client.address)
               ? ERROR_NONE
               : ERROR_INVALID;
}

static const struct relay_envelopes envelopes = {NULL, read_envelope};

static void add(uint32_t handle, const char *sender)
{
    senders[handle] = sender;
    world_add(&world, handle, sender, "bob@far.example", SPOOL_SENDER_VERIFIED);
}

/* All by the relay "out" as yet. */
static void start(uint32_t messages)
{
    world_configure(&world);
    world_start(&world);
    memset(senders, 0, sizeof senders);
    memset(reads, 0, sizeof reads);
    all_reads = 0;
    for (uint32_t handle = 1; handle <= messages; handle++) {
        add(handle, handle % 2 != 0 ? "a@red.example" : "a@blue.example");
    }
}

static void discard(uint32_t handle)
{
    assert_int_equal(
        relay_discard(world.relay, (struct spool_handle){handle}, 0, SLICE_EMPTY, world.now),
        ERROR_NONE);
    world_take(&world);
    senders[handle] = NULL;
}

/* Relays red and blue instead of "out"; or the other way round, each takes the other's mail. */
static const struct relay_config *two_relays(bool swapped)
{
    static struct relay_config configs[2];
    static struct route_config routes[2][2];
    static const struct sender_pattern patterns[2] = {{SLICE_LITERAL("*@red.example")},
                                                      {SLICE_LITERAL("*@blue.example")}};
    static const struct slice names[2] = {SLICE_LITERAL("red"), SLICE_LITERAL("blue")};
    for (uint32_t i = 0; i < 2; i++) {
        routes[swapped][i] = world.routes[2];
        routes[swapped][i].name = names[i];
        routes[swapped][i].senders = &patterns[swapped ? 1 - i : i];
        routes[swapped][i].sender_count = 1;
    }
    configs[swapped] = world.config;
    configs[swapped].routes = routes[swapped];
    configs[swapped].route_count = 2;
    configs[swapped].bounces = NO_INDEX;
    return &configs[swapped];
}

static void foresee(const struct relay_config *config)
{
    assert_int_equal(relay_foresee(world.relay, config), ERROR_NONE);
}

static void reload(const struct relay_config *config)
{
    assert_int_equal(relay_reconfigure(world.relay, config, &envelopes, world.now), ERROR_NONE);
    world_take(&world);
}

static void assert_route(uint32_t handle, uint32_t route)
{
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, (struct spool_handle){handle}, 0, &view));
    assert_int_equal(view.route, route);
}

static void a_slice_reads_no_more_than_it_may_and_nothing_is_read_twice(void **state)
{
    (void)state;
    start(5);
    foresee(two_relays(false));
    assert_false(relay_foresee_slice(world.relay, &envelopes, 2));
    assert_int_equal(all_reads, 2);
    assert_route(1, 2); /* the old configuration is in force */
    assert_false(relay_foresee_slice(world.relay, &envelopes, 2));
    assert_true(relay_foresee_slice(world.relay, &envelopes, 2));
    assert_int_equal(all_reads, 5);
    reload(two_relays(false));
    assert_int_equal(all_reads, 5);
    for (uint32_t handle = 1; handle <= 5; handle++) {
        assert_route(handle, handle % 2 != 0 ? RED : BLUE);
    }
    world_close(&world);
}

static void mail_may_come_and_go_between_slices(void **state)
{
    (void)state;
    start(6);
    foresee(two_relays(false));
    assert_false(relay_foresee_slice(world.relay, &envelopes, 2));
    discard(3); /* the next to be looked at */
    discard(4);
    discard(1); /* its place goes to another, */
    add(7, "a@blue.example");
    assert_false(relay_foresee_slice(world.relay, &envelopes, 1));
    assert_true(relay_foresee_slice(world.relay, &envelopes, 9));
    discard(2); /* and so does this one's, after all was seen */
    discard(5);
    add(8, "a@red.example");
    add(9, "a@blue.example");
    world_insert(&world, 10, 0, "a@red.example", "bob@far.example", SPOOL_SENDER_VERIFIED);
    senders[10] = "a@red.example"; /* before all that was seen */
    reload(two_relays(false));
    assert_int_equal(reads[3] + reads[4], 0);
    assert_int_equal(reads[6], 1);
    assert_int_equal(reads[7], 1);
    assert_route(6, BLUE);
    assert_route(7, BLUE);
    assert_route(8, RED);
    assert_route(9, BLUE);
    assert_route(10, RED);
    world_close(&world);
}

static void what_was_foreseen_for_another_configuration_is_not_believed(void **state)
{
    (void)state;
    start(4);
    foresee(two_relays(false));
    assert_false(relay_foresee_slice(world.relay, &envelopes, 3));
    foresee(two_relays(true)); /* it overtakes the first */
    assert_false(relay_foresee_slice(world.relay, &envelopes, 2));
    reload(two_relays(true)); /* earlier than it had to be */
    for (uint32_t handle = 1; handle <= 4; handle++) {
        assert_route(handle, handle % 2 != 0 ? BLUE : RED);
        assert_true(reads[handle] >= 1);
    }
    foresee(&world.config);
    reload(two_relays(false)); /* not the one that was announced */
    for (uint32_t handle = 1; handle <= 4; handle++) {
        assert_route(handle, handle % 2 != 0 ? RED : BLUE);
    }
    world_close(&world);
}

static void with_the_same_relays_nothing_is_read(void **state)
{
    (void)state;
    static struct relay_config same;
    start(4);
    same = world.config;
    foresee(&same);
    assert_true(relay_foresee_slice(world.relay, &envelopes, 1));
    reload(&same);
    assert_int_equal(all_reads, 0);
    assert_route(4, 2);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slice_reads_no_more_than_it_may_and_nothing_is_read_twice),
        cmocka_unit_test(mail_may_come_and_go_between_slices),
        cmocka_unit_test(what_was_foreseen_for_another_configuration_is_not_believed),
        cmocka_unit_test(with_the_same_relays_nothing_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
