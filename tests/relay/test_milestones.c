/* SPDX-License-Identifier: Apache-2.0
 *
 * Mail is added in any order of its sequence, and leaves again: the order of all of it stays that
 * of acceptance.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "world.h"

enum { MESSAGES = 20000 };

static struct world world;
static uint64_t sequences[MESSAGES]; /* by handle; 0: none */
static uint32_t held;
static uint64_t random_state;

static uint32_t dice(uint32_t sides)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1dULL) >> 33) % sides;
}

static void start(void)
{
    world_configure(&world);
    world_start(&world);
    held = 0;
    random_state = 7;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        sequences[i] = 0;
    }
}

static void add(uint32_t handle, uint64_t sequence)
{
    world_insert(&world, handle, sequence, "a@x", "ann@one.example", 0);
    sequences[handle] = sequence;
    held++;
}

static void leave(uint32_t handle)
{
    relay_leave(world.relay, (struct spool_handle){handle}, world.now);
    world_take(&world);
    held -= sequences[handle] != 0;
    sequences[handle] = 0;
}

static void check_order(void)
{
    struct relay_cursor cursor = {0};
    uint64_t last = 0;
    uint32_t seen = 0;
    for (struct spool_handle at; relay_next_message(world.relay, &cursor, &at); seen++) {
        assert_true(sequences[at.index] >= last && sequences[at.index] != 0);
        last = sequences[at.index];
    }
    assert_int_equal(seen, held);
}

static void mail_of_any_sequence_finds_its_place(void **state)
{
    (void)state;
    start();
    for (uint32_t i = 0; i < MESSAGES; i++) {
        add(i, 1 + dice(MESSAGES * 4));
    }
    check_order();
    world_close(&world);
}

/* What a place was found by has gone meanwhile, or is another message. */
static void places_are_found_after_others_have_left(void **state)
{
    (void)state;
    start();
    for (uint32_t i = 0; i < MESSAGES; i++) {
        add(i, 1 + dice(MESSAGES * 4));
    }
    for (uint32_t round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < MESSAGES; i++) {
            if (dice(4) != 0) {
                leave(i);
            }
        }
        for (uint32_t i = 0; i < MESSAGES; i++) {
            if (sequences[i] == 0 && dice(2) == 0) {
                add(i, 1 + dice(MESSAGES * 4));
            }
        }
        check_order();
    }
    for (uint32_t i = 0; i < MESSAGES; i++) {
        leave(i);
    }
    add(0, 5);
    add(1, 4);
    check_order();
    world_close(&world);
}

/* Many shares are taken over behind newer mail: each goes upwards from its own beginning. */
static void shares_are_loaded_one_behind_the_other(void **state)
{
    (void)state;
    enum { SHARES = 8, EACH = MESSAGES / SHARES / 2 };
    uint32_t handle = 0;
    start();
    for (uint32_t i = 0; i < MESSAGES / 2; i++) {
        add(handle++, MESSAGES + i);
    }
    for (uint32_t share = 0; share < SHARES; share++) {
        for (uint32_t i = 0; i < EACH; i++) {
            add(handle++, 1 + i * SHARES + share);
        }
    }
    check_order();
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_of_any_sequence_finds_its_place),
        cmocka_unit_test(places_are_found_after_others_have_left),
        cmocka_unit_test(shares_are_loaded_one_behind_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
