/* SPDX-License-Identifier: Apache-2.0
 *
 * MT-PRIORITY (RFC 6710, R6): recipients are ordered by it, the mail of one never; what waits below
 * is not forgotten.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "world.h"

enum { MOST = 512 };

static struct world world;
static struct relay_action jobs[MOST];
static size_t job_count, jobs_done;
static uint32_t probe; /* of m1, not answered yet */

static void take_jobs(void)
{
    for (size_t i = 0; i < world_count(&world, RELAY_DELIVER); i++) {
        assert_true(job_count < MOST);
        jobs[job_count++] = *world_action(&world, RELAY_DELIVER, i);
    }
}

static void start(void)
{
    world_configure(&world);
    world.servers[0].connections = 1; /* one after the other */
    world_start(&world);
    assert_int_equal(world_action(&world, RELAY_CONNECT, 0)->server, 0);
    probe = world_action(&world, RELAY_CONNECT, 0)->session;
    job_count = jobs_done = 0;
}

static void add(uint32_t handle, int8_t priority, const char *recipients)
{
    world.priority = priority;
    world_add(&world, handle, "a@x.example", recipients, 0);
    take_jobs();
}

static void accept_next(void)
{
    assert_true(jobs_done < job_count);
    struct relay_action job = jobs[jobs_done++];
    world_result(&world, &job, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    take_jobs();
}

/* m1 answers, and takes all of this in this order. */
static void drains(const uint32_t *handles, size_t count)
{
    world_opened(&world, probe);
    take_jobs();
    for (size_t i = 0; i < count; i++) {
        assert_true(i < job_count);
        assert_int_equal(jobs[i].handle.index, handles[i]);
        accept_next();
    }
    assert_int_equal(job_count, count);
    struct relay_totals totals;
    relay_totals(world.relay, &totals);
    assert_int_equal(totals.deliveries, totals.held);
    world_close(&world);
}

static void recipients_go_by_priority_and_then_by_acceptance(void **state)
{
    (void)state;
    start();
    add(1, 0, "ann@one.example");
    add(2, 5, "bob@one.example");
    add(3, -3, "carl@one.example");
    add(4, 9, "dora@one.example");
    add(5, 5, "emil@one.example");
    add(6, 0, "fred@one.example");
    add(7, -9, "gus@one.example");
    const uint32_t order[] = {4, 2, 5, 1, 6, 3, 7};
    drains(order, 7);
}

/* What would keep the urgent one back goes first, and as urgently. */
static void the_mail_of_one_recipient_keeps_its_order(void **state)
{
    (void)state;
    start();
    add(1, 0, "ann@one.example");
    add(2, 0, "bob@one.example");
    add(3, -9, "bob@one.example");
    add(4, 9, "bob@one.example");
    add(5, 0, "bob@one.example");
    add(6, 5, "carl@one.example");
    const uint32_t order[] = {2, 3, 6, 4, 1, 5}; /* 6 while the reply to 3 is awaited */
    drains(order, 6);
}

/* Of one that is as usual as the others nothing is urgent, though it stands behind a lower one. */
static void low_mail_does_not_keep_later_mail_of_its_recipient_below(void **state)
{
    (void)state;
    start();
    add(1, -9, "bob@one.example");
    add(2, -5, "ann@one.example");
    add(3, 0, "carl@one.example");
    add(4, 0, "bob@one.example");
    const uint32_t order[] = {1, 3, 4, 2};
    drains(order, 4);
}

/* The urgent one is taken away: nobody goes for its sake any more. */
static void what_was_taken_away_hurries_nobody(void **state)
{
    (void)state;
    start();
    add(1, 0, "ann@one.example");
    add(2, 0, "bob@one.example");
    add(3, 0, "bob@one.example");
    add(4, 9, "bob@one.example");
    assert_int_equal(relay_hold(world.relay, (struct spool_handle){4}, 0, SLICE_EMPTY, world.now),
                     ERROR_NONE);
    world_take(&world);
    const uint32_t order[] = {2, 1, 3};
    drains(order, 3);
}

/* Earlier mail that comes back (here from hold) stands before what was urgent without it. */
static void earlier_mail_that_comes_back_goes_before_urgent_mail(void **state)
{
    (void)state;
    start();
    add(1, 0, "bob@one.example");
    assert_int_equal(relay_hold(world.relay, (struct spool_handle){1}, 0, SLICE_EMPTY, world.now),
                     ERROR_NONE);
    world_take(&world);
    add(2, 0, "ann@one.example");
    add(3, 9, "bob@one.example");
    assert_int_equal(relay_release(world.relay, (struct spool_handle){1}, 0, world.now),
                     ERROR_NONE);
    world_take(&world);
    const uint32_t order[] = {1, 3, 2};
    drains(order, 3);
}

/* Nothing was urgent until then, so nobody had looked who stands before whom. */
static void the_first_urgent_message_finds_what_stands_before_it(void **state)
{
    (void)state;
    start();
    for (uint32_t i = 0; i < 6; i++) {
        add(1 + i, 0, i % 2 == 0 ? "ann@one.example" : "bob@one.example");
    }
    add(7, 0, "carl@one.example");
    assert_int_equal(relay_hold(world.relay, (struct spool_handle){4}, 0, SLICE_EMPTY, world.now),
                     ERROR_NONE);
    assert_int_equal(relay_release(world.relay, (struct spool_handle){4}, 0, world.now),
                     ERROR_NONE);
    world_take(&world);
    add(8, 9, "bob@one.example");
    add(9, 0, "bob@one.example");
    const uint32_t order[] = {2, 4, 1, 6, 3, 8, 5, 7, 9}; /* two are under way at once */
    drains(order, 9);
}

/* Urgent mail comes for ever: others wait for half a minute, and then get one turn in four. */
static void what_waits_below_is_not_forgotten(void **state)
{
    (void)state;
    static char address[32];
    uint32_t handle = 100;
    start();
    world_opened(&world, probe);
    add(1, 9, "first@one.example");
    add(2, 0, "ann@one.example");
    add(3, -9, "bob@one.example");
    add(4, 0, "carl@one.example");
    size_t turns[5] = {0};
    for (size_t i = 0; i < 200; i++) {
        for (int j = 0; j < 2; j++) {
            snprintf(address, sizeof address, "r%u@one.example", handle);
            add(handle++, 9, address);
        }
        world.now.steady_ms += 1000;
        world.now.wall_ms += 1000;
        uint32_t index = jobs[jobs_done].handle.index;
        if (index < 5) {
            turns[index] = i;
        }
        accept_next();
        if (turns[2] != 0 && turns[3] != 0 && turns[4] != 0) {
            break;
        }
    }
    assert_in_range(turns[2], 30, 40);
    assert_in_range(turns[3], turns[2] + 4, turns[2] + 4);
    assert_in_range(turns[4], turns[3] + 4, turns[3] + 4);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recipients_go_by_priority_and_then_by_acceptance),
        cmocka_unit_test(the_mail_of_one_recipient_keeps_its_order),
        cmocka_unit_test(low_mail_does_not_keep_later_mail_of_its_recipient_below),
        cmocka_unit_test(what_was_taken_away_hurries_nobody),
        cmocka_unit_test(earlier_mail_that_comes_back_goes_before_urgent_mail),
        cmocka_unit_test(the_first_urgent_message_finds_what_stands_before_it),
        cmocka_unit_test(what_waits_below_is_not_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
