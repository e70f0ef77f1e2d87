/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service/greylist.h"

#include <stdio.h>

#define MINUTE INT64_C(60000)
#define DAY (24 * 60 * MINUTE)

static const int64_t start = 1000; /* a steady clock may be young */

static int64_t ask(struct greylist *list, const char *client, const char *sender,
                   const char *recipient, int64_t now_ms)
{
    struct ip_address address;
    assert_true(ip_from_text(slice_from_text(client), &address));
    struct greylist_query query = {&address, slice_from_text(sender), slice_from_text(recipient),
                                   5 * MINUTE, now_ms};
    return greylist_wait_ms(list, &query);
}

static void what_comes_back_is_let_through(void **state)
{
    (void)state;
    struct greylist *list = greylist_new();
    assert_int_equal(ask(list, "192.0.2.1", "a@x", "b@y", start), 5 * MINUTE);
    assert_int_equal(ask(list, "192.0.2.1", "a@x", "b@y", start + 2 * MINUTE), 3 * MINUTE);
    /* Another of the same network, as large senders do; case says nothing. */
    assert_int_equal(ask(list, "192.0.2.77", "A@X", "b@Y", start + 5 * MINUTE), 0);
    assert_int_equal(ask(list, "192.0.2.1", "a@x", "b@y", start + 6 * MINUTE), 0);
    /* Whatever differs is new. */
    assert_int_not_equal(ask(list, "192.0.3.1", "a@x", "b@y", start + 6 * MINUTE), 0);
    assert_int_not_equal(ask(list, "192.0.2.1", "c@x", "b@y", start + 6 * MINUTE), 0);
    assert_int_not_equal(ask(list, "192.0.2.1", "a@x", "d@y", start + 6 * MINUTE), 0);
    greylist_free(list);
}

static void what_comes_late_is_new(void **state)
{
    (void)state;
    struct greylist *list = greylist_new();
    assert_int_not_equal(ask(list, "2001:db8::1", "a@x", "b@y", start), 0);
    assert_int_equal(ask(list, "2001:db8::1", "a@x", "b@y", start + 3 * DAY), 5 * MINUTE);
    assert_int_equal(ask(list, "2001:db8::2", "a@x", "b@y", start + 3 * DAY + 6 * MINUTE), 0);
    /* Known for long, from each time on. */
    assert_int_equal(ask(list, "2001:db8::2", "a@x", "b@y", start + 33 * DAY), 0);
    assert_int_equal(ask(list, "2001:db8::2", "a@x", "b@y", start + 66 * DAY), 0);
    assert_int_not_equal(ask(list, "2001:db8::2", "a@x", "b@y", start + 110 * DAY), 0);
    greylist_free(list);
}

static void a_network_becomes_known(void **state)
{
    (void)state;
    struct greylist *list = greylist_new();
    char sender[32];
    for (int i = 0; i < 5; i++) {
        snprintf(sender, sizeof(sender), "s%d@x", i);
        assert_int_not_equal(ask(list, "192.0.2.1", sender, "b@y", start), 0);
    }
    for (int i = 0; i < 5; i++) {
        snprintf(sender, sizeof(sender), "s%d@x", i);
        assert_int_not_equal(ask(list, "192.0.2.1", "new@x", "b@y", start + 4 * MINUTE), 0);
        assert_int_equal(ask(list, "192.0.2.1", sender, "b@y", start + 6 * MINUTE), 0);
        /* Again and again the same proves nothing. */
        assert_int_equal(ask(list, "192.0.2.1", sender, "b@y", start + 6 * MINUTE), 0);
    }
    assert_int_equal(ask(list, "192.0.2.9", "another@x", "c@y", start + 6 * MINUTE), 0);
    assert_int_not_equal(ask(list, "192.0.3.9", "another@x", "c@y", start + 6 * MINUTE), 0);
    greylist_free(list);
}

/* A flood of strangers makes room for nobody who waits, and stops nobody. */
static void a_full_table_lets_through(void **state)
{
    (void)state;
    struct greylist *list = greylist_new();
    char sender[32];
    int passed = 0;
    assert_int_not_equal(ask(list, "192.0.2.1", "a@x", "b@y", start), 0);
    for (int i = 0; i < 3000000; i++) {
        snprintf(sender, sizeof(sender), "%d@spam", i);
        passed += ask(list, "198.51.100.1", sender, "b@y", start + 1) == 0;
    }
    assert_true(passed > 1000000);
    assert_int_equal(ask(list, "192.0.2.1", "a@x", "b@y", start + 5 * MINUTE), 0);
    /* It is over with them in time. */
    assert_int_not_equal(ask(list, "203.0.113.1", "c@x", "b@y", start + 3 * DAY), 0);
    greylist_free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_back_is_let_through),
        cmocka_unit_test(what_comes_late_is_new),
        cmocka_unit_test(a_network_becomes_known),
        cmocka_unit_test(a_full_table_lets_through),
    };
    return cmocka_run_group_tests_name("greylist", tests, NULL, NULL);
}
