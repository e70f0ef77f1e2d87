/* SPDX-License-Identifier: Apache-2.0
 *
 * Which refusals are kept: few of each network, few of all, and nothing is lost of the count.
 */
#include "service/refusals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static struct ip_address client_of(uint32_t network, uint32_t host)
{
    char text[IP_TEXT_SIZE];
    struct ip_address address;
    snprintf(text, sizeof(text), "10.%u.%u.%u", network / 256, network % 256, host);
    assert_true(ip_from_text(slice_from_text(text), &address));
    return address;
}

static int set_up(void **state)
{
    *state = refusals_new();
    return *state == NULL;
}

static int tear_down(void **state)
{
    refusals_free(*state);
    return 0;
}

static void a_network_has_its_share_and_is_told_the_rest(void **state)
{
    uint64_t left_out = 77, kept = 0;
    struct ip_address client, told;
    for (uint32_t i = 0; i < 100; i++) {
        client = client_of(1, i);
        kept += refusals_take(*state, &client, 1000 + i, &left_out);
    }
    assert_int_equal(kept, REFUSALS_OF_NETWORK);
    assert_int_equal(left_out, 0);
    struct ip_address other = client_of(2, 1);
    assert_true(refusals_take(*state, &other, 1200, &left_out));
    assert_false(refusals_over(*state, 60999, &told, &left_out));
    assert_true(refusals_over(*state, 61000, &told, &left_out));
    assert_true(ip_equal(&told, &client));
    assert_int_equal(left_out, 100 - REFUSALS_OF_NETWORK);
    assert_false(refusals_over(*state, 61000, &told, &left_out));
    assert_true(refusals_take(*state, &client, 61001, &left_out));
    assert_int_equal(left_out, 0);
}

static void the_next_of_a_network_tells_what_was_left_out(void **state)
{
    uint64_t left_out;
    struct ip_address client = client_of(1, 1);
    for (uint32_t i = 0; i < REFUSALS_OF_NETWORK + 5; i++) {
        (void)refusals_take(*state, &client, 0, &left_out);
    }
    assert_true(refusals_take(*state, &client, 60000, &left_out));
    assert_int_equal(left_out, 5);
}

static void a_flood_of_many_networks_is_bounded_and_counted(void **state)
{
    enum { NETWORKS = 60000, HOUR_MS = 3600000 };
    uint64_t kept = 0, told = 0, sum = 0, left_out;
    struct ip_address client;
    int64_t now_ms = 0;
    for (uint32_t i = 0; i < NETWORKS; i++) {
        now_ms = (int64_t)i * HOUR_MS / NETWORKS;
        client = client_of(i, 1);
        if (refusals_take(*state, &client, now_ms, &left_out)) {
            kept++;
            sum += left_out + 1;
        }
        while (refusals_over(*state, now_ms, &client, &left_out)) {
            told++;
            sum += left_out;
        }
    }
    assert_in_range(kept + told, 1000, REFUSALS_BURST + REFUSALS_A_MINUTE * 60 + 1);
    for (; now_ms < 50 * (int64_t)HOUR_MS; now_ms += 10000) {
        while (refusals_over(*state, now_ms, &client, &left_out)) {
            sum += left_out;
        }
    }
    assert_int_equal(sum, NETWORKS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_network_has_its_share_and_is_told_the_rest, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_next_of_a_network_tells_what_was_left_out, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_flood_of_many_networks_is_bounded_and_counted, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
