/* SPDX-License-Identifier: Apache-2.0
 *
 * The file of a cluster's time: whole, or as if it were not there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service/cluster_time.h"

#include <string.h>

#define LAST_MS INT64_C(1790000000000)

static void write_down(struct buffer *out)
{
    struct cluster_time time = {.ahead_ms = -5000, .steady_ahead_ms = LAST_MS - 70000, .boot = "a"};
    buffer_init(out, 0);
    cluster_time_encode(&time, LAST_MS, out);
    assert_false(out->failed);
}

static void assert_is_nothing(struct slice bytes)
{
    struct cluster_time time = {.boot = "a"};
    assert_false(cluster_time_decode(&time, bytes));
    assert_int_equal(time.ahead_ms, 0);
    assert_int_equal(time.least_ms, 0);
    assert_int_equal(time.steady_ahead_ms, 0);
    assert_false(time.same_boot);
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    struct cluster_time time = {.boot = "a"}, other = {.boot = "b"};
    struct buffer bytes;
    write_down(&bytes);
    assert_true(cluster_time_decode(&time, buffer_slice(&bytes)));
    assert_int_equal(time.ahead_ms, -5000);
    assert_int_equal(time.least_ms, LAST_MS);
    assert_true(time.same_boot);
    assert_int_equal(time.steady_ahead_ms, LAST_MS - 70000);
    assert_true(cluster_time_decode(&other, buffer_slice(&bytes)));
    assert_int_equal(other.least_ms, LAST_MS);
    assert_false(other.same_boot);
    buffer_done(&bytes);
}

static void a_damaged_bit_makes_nothing_of_it(void **state)
{
    (void)state;
    struct buffer bytes;
    write_down(&bytes);
    for (size_t bit = 0; bit < bytes.length * 8; bit++) {
        bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_is_nothing(buffer_slice(&bytes));
        bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    buffer_done(&bytes);
}

static void what_is_cut_or_longer_is_nothing(void **state)
{
    (void)state;
    struct buffer bytes;
    write_down(&bytes);
    for (size_t length = 0; length < bytes.length; length++) {
        assert_is_nothing(slice_take(buffer_slice(&bytes), length));
    }
    buffer_put_u8(&bytes, 0);
    assert_is_nothing(buffer_slice(&bytes));
    buffer_done(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(a_damaged_bit_makes_nothing_of_it),
        cmocka_unit_test(what_is_cut_or_longer_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
