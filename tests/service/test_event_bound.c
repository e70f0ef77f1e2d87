/* SPDX-License-Identifier: Apache-2.0
 *
 * Which events are kept: few of each network, few of all, and nothing is lost of the count.
 */
#include "service/event_bound.h"

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
    *state = event_bound_new(true);
    return *state == NULL;
}

static int tear_down(void **state)
{
    event_bound_free(*state);
    return 0;
}

static void a_network_has_its_share_and_is_told_the_rest(void **state)
{
    uint64_t left_out = 77, kept = 0;
    struct ip_address client, told;
    for (uint32_t i = 0; i < 100; i++) {
        client = client_of(1, i);
        kept += event_bound_take(*state, ip_neighbours(&client), &client, 1000 + i, &left_out);
    }
    assert_int_equal(kept, EVENT_BOUND_OF_ONE);
    assert_int_equal(left_out, 0);
    struct ip_address other = client_of(2, 1);
    assert_true(event_bound_take(*state, ip_neighbours(&other), &other, 1200, &left_out));
    assert_false(event_bound_over(*state, 60999, &told, &left_out));
    assert_true(event_bound_over(*state, 61000, &told, &left_out));
    assert_true(ip_equal(&told, &client));
    assert_int_equal(left_out, 100 - EVENT_BOUND_OF_ONE);
    assert_false(event_bound_over(*state, 61000, &told, &left_out));
    assert_true(event_bound_take(*state, ip_neighbours(&client), &client, 61001, &left_out));
    assert_int_equal(left_out, 0);
}

static void the_next_of_a_network_tells_what_was_left_out(void **state)
{
    uint64_t left_out;
    struct ip_address client = client_of(1, 1);
    for (uint32_t i = 0; i < EVENT_BOUND_OF_ONE + 5; i++) {
        (void)event_bound_take(*state, ip_neighbours(&client), &client, 0, &left_out);
    }
    assert_true(event_bound_take(*state, ip_neighbours(&client), &client, 60000, &left_out));
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
        if (event_bound_take(*state, ip_neighbours(&client), &client, now_ms, &left_out)) {
            kept++;
            sum += left_out + 1;
        }
        while (event_bound_over(*state, now_ms, &client, &left_out)) {
            told++;
            sum += left_out;
        }
    }
    assert_in_range(kept + told, 1000, EVENT_BOUND_BURST + EVENT_BOUND_A_MINUTE * 60 + 1);
    for (; now_ms < 50 * (int64_t)HOUR_MS; now_ms += 10000) {
        while (event_bound_over(*state, now_ms, &client, &left_out)) {
            sum += left_out;
        }
    }
    assert_int_equal(sum, NETWORKS);
}

static void without_a_total_each_has_its_share_and_no_more(void **state)
{
    (void)state;
    struct event_bound *bound = event_bound_new(false);
    uint64_t kept = 0, left_out, sum = 0;
    struct ip_address client = client_of(1, 1);
    assert_non_null(bound);
    for (uint32_t i = 0; i < 10 * EVENT_BOUND_BURST; i++) {
        char name[16];
        int length = snprintf(name, sizeof(name), "ann%u", i % 1000);
        if (event_bound_take(bound, slice_make(name, (size_t)length), &client, i, &left_out)) {
            kept++;
            sum += left_out + 1;
        }
    }
    /* Some find their place taken by another. */
    assert_in_range(kept, 8 * 1000, EVENT_BOUND_OF_ONE * 1000);
    while (event_bound_over(bound, 1000000, &client, &left_out)) {
        sum += left_out;
    }
    assert_int_equal(sum, 10 * EVENT_BOUND_BURST);
    event_bound_free(bound);
}

/* Whoever finds a place taken does not keep what was left out there from being told. */
static void strangers_do_not_renew_the_minute_of_a_place(void **state)
{
    (void)state;
    enum { MANY = 20000 };
    struct event_bound *bound = event_bound_new(false);
    uint64_t left_out, sum = 0;
    struct ip_address client = client_of(1, 1);
    assert_non_null(bound);
    for (uint32_t i = 0; i < 2 * MANY; i++) {
        char name[16];
        int length = snprintf(name, sizeof(name), "ann%u", i);
        (void)event_bound_take(bound, slice_make(name, (size_t)length), &client,
                               i < MANY ? 0 : 60000, &left_out);
    }
    while (event_bound_over(bound, 60000, &client, &left_out)) {
        sum += left_out;
    }
    assert_in_range(sum, MANY / 2, 2 * MANY);
    event_bound_free(bound);
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
        cmocka_unit_test(without_a_total_each_has_its_share_and_no_more),
        cmocka_unit_test(strangers_do_not_renew_the_minute_of_a_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
