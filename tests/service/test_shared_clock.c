/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service/shared_clock.h"

#define HOUR_MS INT64_C(3600000)

static void the_first_reading_is_believed(void **state)
{
    (void)state;
    struct shared_clock clock = {0};
    shared_clock_read(&clock, 1000, 5 * HOUR_MS, 1200);
    assert_true(clock.known);
    assert_int_equal(shared_clock_wall_ms(&clock, 1200), 5 * HOUR_MS + 200);
    assert_int_equal(shared_clock_wall_ms(&clock, 31200), 5 * HOUR_MS + 30200);
}

static void it_never_goes_back(void **state)
{
    (void)state;
    struct shared_clock clock = {0};
    shared_clock_read(&clock, 0, 5 * HOUR_MS, 0);
    int64_t before_ms = shared_clock_wall_ms(&clock, 0), now_ms;
    for (now_ms = 1; now_ms < 2 * HOUR_MS + 10000; now_ms += 7) {
        if (now_ms % 500 < 7) { /* an hour less, again and again */
            shared_clock_read(&clock, now_ms, 4 * HOUR_MS + now_ms, now_ms + 3);
        }
        int64_t wall_ms = shared_clock_wall_ms(&clock, now_ms + 3);
        assert_true(wall_ms >= before_ms);
        assert_true(wall_ms - before_ms <= 7);
        before_ms = wall_ms;
    }
    assert_int_equal(before_ms, 4 * HOUR_MS + now_ms - 7 + 3);
}

static void it_never_leaps(void **state)
{
    (void)state;
    struct shared_clock clock = {0};
    shared_clock_read(&clock, 0, 5 * HOUR_MS, 0);
    shared_clock_read(&clock, 10, 7 * HOUR_MS + 10, 10);
    assert_int_equal(shared_clock_wall_ms(&clock, 10), 5 * HOUR_MS + 10);
    assert_int_equal(shared_clock_wall_ms(&clock, 1010), 5 * HOUR_MS + 2010);
    assert_int_equal(shared_clock_wall_ms(&clock, 2 * HOUR_MS + 10), 9 * HOUR_MS + 10);
    assert_int_equal(shared_clock_wall_ms(&clock, 3 * HOUR_MS), 10 * HOUR_MS);
}

static void a_reading_that_comes_late_is_of_its_time(void **state)
{
    (void)state;
    struct shared_clock clock = {0};
    shared_clock_read(&clock, 0, HOUR_MS, 0);
    shared_clock_read(&clock, 5000, HOUR_MS + 5000, 7000);
    assert_int_equal(shared_clock_wall_ms(&clock, 7000), HOUR_MS + 7000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_reading_is_believed),
        cmocka_unit_test(it_never_goes_back),
        cmocka_unit_test(it_never_leaps),
        cmocka_unit_test(a_reading_that_comes_late_is_of_its_time),
    };
    return cmocka_run_group_tests_name("the wall time of a cluster", tests, NULL, NULL);
}
