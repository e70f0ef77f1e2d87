/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/network.h"

static bool contains(const char *network, const char *address)
{
    struct ip_network n;
    struct ip_address a;
    assert_true(ip_network_from_text(slice_from_text(network), &n));
    assert_true(ip_from_text(slice_from_text(address), &a));
    return ip_network_contains(&n, &a);
}

static void networks_contain(void **state)
{
    (void)state;
    assert_true(contains("127.0.0.0/8", "127.255.0.1"));
    assert_false(contains("127.0.0.0/8", "128.0.0.1"));
    assert_true(contains("0.0.0.0/0", "192.0.2.1"));
    assert_false(contains("0.0.0.0/0", "2001:db8::1"));
    assert_true(contains("2001:db8::/33", "2001:db8:7fff::1"));
    assert_false(contains("2001:db8::/33", "2001:db8:8000::1"));
    assert_true(contains("192.0.2.7", "192.0.2.7"));
    assert_false(contains("192.0.2.7", "192.0.2.6"));
}

static void refuses_what_is_no_network(void **state)
{
    (void)state;
    struct ip_network n;
    const char *bad[] = {"", "/8", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "10.0.0.0/+8", "x/8"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(ip_network_from_text(slice_from_text(bad[i]), &n));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_contain),
        cmocka_unit_test(refuses_what_is_no_network),
    };
    return cmocka_run_group_tests_name("network", tests, NULL, NULL);
}
