/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/network_set.h"

#include <stdio.h>
#include <stdlib.h>

static struct ip_network network(const char *text)
{
    struct ip_network network;
    if (!ip_network_from_text(slice_from_text(text), &network)) {
        fail_msg("%s", text);
    }
    return network;
}

static bool has(const struct network_set *set, const char *text)
{
    struct ip_address address;
    assert_true(ip_from_text(slice_from_text(text), &address));
    return network_set_contains(set, &address);
}

static void networks_of_all_lengths(void **state)
{
    (void)state;
    struct ip_network networks[] = {network("192.0.2.7"),      network("198.51.100.0/25"),
                                    network("10.0.0.0/8"),     network("2001:db8::/33"),
                                    network("2001:db9::1"),    network("192.0.2.7"),
                                    network("203.0.113.64/27")};
    struct network_set *set = network_set_new(networks, sizeof(networks) / sizeof(networks[0]));
    assert_non_null(set);
    assert_true(has(set, "192.0.2.7"));
    assert_false(has(set, "192.0.2.6"));
    assert_true(has(set, "198.51.100.127"));
    assert_false(has(set, "198.51.100.128"));
    assert_true(has(set, "10.255.0.1"));
    assert_false(has(set, "11.0.0.1"));
    assert_true(has(set, "2001:db8:7fff::1"));
    assert_false(has(set, "2001:db8:8000::1"));
    assert_true(has(set, "2001:db9::1"));
    assert_false(has(set, "2001:db9::2"));
    assert_true(has(set, "203.0.113.95"));
    assert_false(has(set, "203.0.113.96"));
    network_set_free(set);
}

static void nothing_and_everything(void **state)
{
    (void)state;
    struct network_set *none = network_set_new(NULL, 0);
    assert_false(has(none, "192.0.2.1"));
    network_set_free(none);
    struct ip_network v4 = network("0.0.0.0/0");
    struct network_set *all = network_set_new(&v4, 1);
    assert_true(has(all, "192.0.2.1"));
    assert_false(has(all, "2001:db8::1"));
    network_set_free(all);
}

/* Against the plain question, one network after the other. */
static void it_agrees_with_looking_at_each(void **state)
{
    (void)state;
    enum { MANY = 300 };
    struct ip_network networks[MANY];
    srand(7);
    for (int i = 0; i < MANY; i++) {
        char text[64];
        int length = 8 + rand() % 25;
        unsigned address =
            ((10u << 24) | (unsigned)(rand() & 0xffffff)) & (length == 32 ? ~0u : ~(~0u >> length));
        snprintf(text, sizeof(text), "%u.%u.%u.%u/%d", address >> 24, address >> 16 & 255,
                 address >> 8 & 255, address & 255, length);
        networks[i] = network(text);
        networks[i].prefix = length < 12 ? 128 : networks[i].prefix; /* not all of it */
    }
    struct network_set *set = network_set_new(networks, MANY);
    int found = 0;
    for (int i = 0; i < 20000; i++) {
        char text[64];
        snprintf(text, sizeof(text), "10.%d.%d.%d", rand() % 256, rand() % 256, rand() % 256);
        struct ip_address address;
        bool expected = false;
        assert_true(ip_from_text(slice_from_text(text), &address));
        for (int j = 0; j < MANY && !expected; j++) {
            expected = ip_network_contains(&networks[j], &address);
        }
        assert_int_equal(network_set_contains(set, &address), expected);
        found += expected;
    }
    assert_in_range(found, 1000, 19000);
    network_set_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_of_all_lengths),
        cmocka_unit_test(nothing_and_everything),
        cmocka_unit_test(it_agrees_with_looking_at_each),
    };
    return cmocka_run_group_tests_name("network sets", tests, NULL, NULL);
}
