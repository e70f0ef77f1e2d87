/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a configuration with the N-th allocation failing, for every N: said, not crashed, nothing
 * half-configured.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "app/settings.h"
#include "proto/failing_memory.h"

static const char text[] =
    "holdfast-settings 1\nmachine 3\na.b\ndirectory 1\n/\npath 4\nconf\ncontent 600\n"
    "hostname = mx2.example.net state = \"r\\\\un\"\n"
    "dns-forwarders = {192.0.2.53, 192.0.2.54}\n"
    "listen mx { address = {\"0.0.0.0:25\", \"[::]:25\"} }\n"
    "server m1 { address = {a, b, c} failover = m2 }\n"
    "server m2 { address = \"192.0.2.1:25\" }\n"
    "server m3 { address = a }\n"
    "domain {example.com, \"*.example.com\"} { deliver-to = m1 retry = {1m, 2m} }\n"
    "domain {example.net, example.org} { deliver-to = {m3, m2} }\n"
    "relay out { from = {127.0.0.0/8} senders = {\"*@example.com\"} deliver-to = m3 }\n"
    "include more\n";

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct buffer whole;
    buffer_init(&whole, 0);
    buffer_append_text(&whole, text);
    size_t start = (size_t)(strstr(text, "hostname") - text);
    while (whole.length < start + 600) {
        buffer_append_text(&whole, "\n");
    }
    buffer_append_text(&whole, "\npath 4\nmore\ncontent 9\nnode = 7\n\n");
    bool complete = false;
    long failures = 0;
    for (long n = 0; !complete; n++) {
        struct buffer errors;
        buffer_init(&errors, 0);
        memory_fail_at(n);
        struct settings *settings = settings_parse(buffer_slice(&whole), &errors);
        complete = !memory_fail_never();
        if (settings != NULL) {
            assert_int_equal(settings_config(settings)->relay.server_count, 3);
            assert_int_equal(settings_config(settings)->relay.route_count, 3);
            assert_int_equal(settings_config(settings)->node, 7);
        } else {
            failures++;
        }
        settings_free(settings);
        buffer_done(&errors);
        assert_true(n < 10000);
    }
    assert_true(failures > 5);
    buffer_done(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
