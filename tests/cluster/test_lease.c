/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/lease.h"

#include "cluster/clock_offset.h"

#include "cluster/balance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct lease_time at(int64_t steady_ms, int64_t wall_ms)
{
    return (struct lease_time){steady_ms, wall_ms};
}

static void a_lease_counts_from_the_sending(void **state)
{
    (void)state;
    struct lease lease = {0};
    assert_int_equal(lease_left_ms(&lease, at(1000, 5000)), 0);
    assert_false(lease_allows(&lease, at(1000, 5000)));
    lease_renew(&lease, at(1000, 5000));
    assert_int_equal(lease_left_ms(&lease, at(1400, 5400)), LEASE_MS - 400);
    assert_true(lease_allows(&lease, at(2500, 6500)));
    assert_false(lease_allows(&lease, at(2501, 6501)));
    assert_int_equal(lease_left_ms(&lease, at(4499, 8499)), 1);
    assert_int_equal(lease_left_ms(&lease, at(4500, 8500)), 0);
    assert_int_equal(lease_left_ms(&lease, at(100000, 8500)), 0);
    lease_renew(&lease, at(1500, 5500));
    assert_true(lease_allows(&lease, at(3000, 7000)));
}

/* The host of a virtual machine has paused it: its steady clock has not seen it. */
static void a_wall_clock_that_has_run_ahead_ends_it(void **state)
{
    (void)state;
    struct lease lease = {0};
    lease_renew(&lease, at(1000, 5000));
    assert_false(lease_allows(&lease, at(1100, 15100)));
    assert_int_equal(lease_left_ms(&lease, at(1100, 15100)), 0);
    lease_renew(&lease, at(1100, 15100));
    assert_true(lease_allows(&lease, at(1200, 15200)));
    /* Set back: who knows what else has happened to it since. */
    assert_false(lease_allows(&lease, at(1200, -15200)));
    /* Brought into step slowly. */
    assert_true(lease_allows(&lease, at(1200, 15199)));
}

static void beat(struct contact *contact, int64_t from_ms, int64_t to_ms)
{
    for (int64_t ms = from_ms; ms <= to_ms; ms += LEASE_BEAT_MS) {
        contact_heard(contact, ms - 5, ms, 7);
    }
}

static void contact_is_answers_without_a_gap(void **state)
{
    (void)state;
    struct contact contact = {0};
    assert_int_equal(contact_ms(&contact, 1000), 0);
    beat(&contact, 1000, 5000);
    assert_int_equal(contact_ms(&contact, 5000), 4000);
    assert_int_equal(contact_ms(&contact, 5000 + LEASE_GAP_MS), 4000);
    assert_int_equal(contact_ms(&contact, 5001 + LEASE_GAP_MS), 0);
    /* We were paused, or it was away: it begins anew. */
    beat(&contact, 7000, 8000);
    assert_int_equal(contact_ms(&contact, 8000), 1000);
    /* A slow answer. */
    beat(&contact, 8500, 12000);
    contact_heard(&contact, 11400, 13000, 7);
    assert_int_equal(contact_ms(&contact, 13000), 0);
    /* Another database. */
    beat(&contact, 13500, 17500);
    assert_true(contact_ms(&contact, 17500) >= LEASE_MS);
    contact_heard(&contact, 17995, 18000, 8);
    assert_int_equal(contact_ms(&contact, 18000), 0);
    /* Lost, and there again at once. */
    contact_lost(&contact);
    assert_int_equal(contact_ms(&contact, 18000), 0);
    contact_heard(&contact, 18095, 18100, 8);
    assert_int_equal(contact_ms(&contact, 18100), 0);
}

static void who_has_been_away_judges_nobody(void **state)
{
    (void)state;
    struct contact contact = {0};
    struct heartbeat_seen seen = {0};
    heartbeat_read(&seen, 1, 100, 5500);
    beat(&contact, 1000, 7500);
    assert_false(heartbeat_has_lapsed(&seen, 1000000, &contact, 7500));
    beat(&contact, 8000, 8000);
    assert_true(heartbeat_has_lapsed(&seen, LEASE_MS, &contact, 8000));
    assert_false(heartbeat_has_lapsed(&seen, LEASE_MS - 1, &contact, 8000));
    contact_lost(&contact);
    assert_false(heartbeat_has_lapsed(&seen, 1000000, &contact, 8000));
}

/* The database's clock has jumped by an hour, and all heartbeats look old. */
static void a_clock_that_jumps_takes_from_nobody(void **state)
{
    (void)state;
    struct contact contact = {0};
    struct heartbeat_seen seen = {0};
    beat(&contact, 1000, 8000);
    heartbeat_read(&seen, 1, 100, 8000);
    assert_false(heartbeat_has_lapsed(&seen, 3600000, &contact, 8000));
    heartbeat_read(&seen, 1, 101, 8500);
    beat(&contact, 8500, 9500);
    heartbeat_read(&seen, 1, 101, 9500);
    assert_false(heartbeat_has_lapsed(&seen, 3600000, &contact, 9500));
    beat(&contact, 10000, 10000);
    heartbeat_read(&seen, 1, 101, 10000);
    assert_true(heartbeat_has_lapsed(&seen, 3600000, &contact, 10000));
    /* A new life of that node is another heartbeat. */
    heartbeat_read(&seen, 2, 101, 10000);
    assert_false(heartbeat_has_lapsed(&seen, 3600000, &contact, 10000));
}

/* It has gone back, and a dead node's heartbeat is in the future. */
static void a_clock_that_goes_back_keeps_nobody_alive(void **state)
{
    (void)state;
    struct contact contact = {0};
    struct heartbeat_seen seen = {0};
    beat(&contact, 1000, 8000);
    heartbeat_read(&seen, 1, 100, 8000);
    beat(&contact, 8500, 11000);
    assert_false(heartbeat_has_lapsed(&seen, -3600000, &contact, 11499));
    beat(&contact, 11500, 11500);
    assert_true(heartbeat_has_lapsed(&seen, -3600000, &contact, 11500));
}

static void states(void **state)
{
    (void)state;
    struct node_read read = {false, 0, BALANCE_SETTLE_MS, false};
    assert_int_equal(node_state_of(&read), NODE_UP);
    read.up_ms--;
    assert_int_equal(node_state_of(&read), NODE_JOINING);
    read.draining = true;
    assert_int_equal(node_state_of(&read), NODE_DRAINING);
    read.age_ms = LEASE_SUSPECT_MS;
    assert_int_equal(node_state_of(&read), NODE_SUSPECT);
    read.gone = true;
    assert_int_equal(node_state_of(&read), NODE_DOWN);
    assert_string_equal(node_state_text(NODE_JOINING), "joining");
    assert_string_equal(node_state_text(NODE_DOWN), "down");
}

static void of_clocks_the_quickest_answer_is_believed(void **state)
{
    (void)state;
    struct clock_offset offset = {0};
    clock_offset_read(&offset, 5000, 1000, 1900); /* 3100 to 4000 ahead */
    assert_int_equal(offset.ahead_ms, 3550);
    clock_offset_read(&offset, 6005, 2000, 2010);
    assert_int_equal(offset.ahead_ms, 4000);
    for (int i = 0; i < 500; i++) {
        clock_offset_read(&offset, 7010, 3000, 4000); /* agrees, and says nothing new */
        assert_int_equal(offset.ahead_ms, 4000);
    }
    clock_offset_read(&offset, 16020, 12000, 12020); /* clocks do not drift apart so soon */
    assert_int_equal(offset.ahead_ms, 4000);
    clock_offset_read(&offset, 28520, 24500, 24520); /* that one is old */
    assert_int_equal(offset.ahead_ms, 4010);
    clock_offset_read(&offset, 1000, 25000, 26000); /* it was set */
    assert_int_equal(offset.ahead_ms, -24500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lease_counts_from_the_sending),
        cmocka_unit_test(a_wall_clock_that_has_run_ahead_ends_it),
        cmocka_unit_test(contact_is_answers_without_a_gap),
        cmocka_unit_test(who_has_been_away_judges_nobody),
        cmocka_unit_test(a_clock_that_jumps_takes_from_nobody),
        cmocka_unit_test(a_clock_that_goes_back_keeps_nobody_alive),
        cmocka_unit_test(states),
        cmocka_unit_test(of_clocks_the_quickest_answer_is_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
