/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service/greylist.h"

#include <stdio.h>
#include <stdlib.h>

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
    /* And a full one fits into its file. */
    struct buffer file;
    buffer_init(&file, GREYLIST_FILE_MAX);
    greylist_write(list, (struct greylist_time){start + 1, 1}, &file);
    assert_false(file.failed);
    assert_true(file.length > (11 << 20));
    buffer_done(&file);
    greylist_free(list);
}

/* ---- in a file ------------------------------------------------------------------------------- */

static const int64_t wall = INT64_C(1700000000000);

static void write_all(const struct greylist *list, int64_t now_ms, struct buffer *file)
{
    buffer_init(file, GREYLIST_FILE_MAX);
    greylist_write(list, (struct greylist_time){now_ms, wall + now_ms}, file);
    assert_false(file->failed);
}

/* As a new process reads it, whose steady clock has begun anew and shows `now_ms`. */
static struct greylist *reopen(struct buffer *file, int64_t now_ms, int64_t wall_ms)
{
    struct greylist *list = calloc(1, greylist_bytes());
    assert_non_null(list);
    assert_int_equal(
        greylist_read(list, buffer_slice(file), (struct greylist_time){now_ms, wall_ms}),
        ERROR_NONE);
    buffer_done(file);
    assert_false(greylist_has_begun(list));
    greylist_begin(list);
    return list;
}

static void what_is_known_outlives_a_restart(void **state)
{
    (void)state;
    const int64_t begin = 10 * DAY;
    struct greylist *list = greylist_new();
    struct buffer file;
    uint64_t serial = greylist_serial(list);
    assert_int_not_equal(ask(list, "192.0.2.1", "a@x", "b@y", begin), 0);
    assert_int_not_equal(greylist_serial(list), serial);
    assert_int_equal(ask(list, "192.0.2.1", "a@x", "b@y", begin + 5 * MINUTE), 0);
    assert_int_not_equal(ask(list, "198.51.100.1", "c@x", "b@y", begin + 4 * MINUTE), 0);
    write_all(list, begin + 5 * MINUTE, &file);
    greylist_free(list);
    /* A minute later, after a boot: it has waited two minutes. */
    list = reopen(&file, start, wall + begin + 6 * MINUTE);
    assert_int_equal(ask(list, "192.0.2.1", "a@x", "b@y", start), 0);
    assert_int_equal(ask(list, "198.51.100.1", "c@x", "b@y", start), 3 * MINUTE);
    assert_int_not_equal(ask(list, "203.0.113.1", "a@x", "b@y", start), 0);
    /* And once more, a month later; who still waited is new. */
    write_all(list, start, &file);
    greylist_free(list);
    list = reopen(&file, start, wall + start + 30 * DAY);
    assert_int_equal(ask(list, "192.0.2.1", "a@x", "b@y", start), 0);
    assert_int_equal(ask(list, "198.51.100.1", "c@x", "b@y", start), 5 * MINUTE);
    /* What is over is not written. */
    write_all(list, start + 40 * DAY, &file);
    assert_int_equal(file.length, 40);
    buffer_done(&file);
    greylist_free(list);
}

static void a_clock_that_goes_back_makes_nothing_younger(void **state)
{
    (void)state;
    struct greylist *list = greylist_new();
    struct buffer file;
    assert_int_not_equal(ask(list, "192.0.2.1", "a@x", "b@y", start), 0);
    write_all(list, start + 2 * MINUTE, &file);
    greylist_free(list);
    list = reopen(&file, start, wall - DAY);
    assert_int_equal(ask(list, "192.0.2.1", "a@x", "b@y", start), 3 * MINUTE);
    greylist_free(list);
}

static void before_it_has_begun_nobody_waits(void **state)
{
    (void)state;
    struct greylist *list = calloc(1, greylist_bytes());
    assert_non_null(list);
    assert_int_equal(ask(list, "192.0.2.1", "a@x", "b@y", start), 0);
    assert_int_equal(greylist_serial(list), 0);
    greylist_begin(list);
    assert_int_equal(ask(list, "192.0.2.1", "a@x", "b@y", start), 5 * MINUTE);
    greylist_free(list);
}

static void damage_anywhere_leaves_it_empty(void **state)
{
    (void)state;
    struct greylist *list = greylist_new(), *empty = calloc(1, greylist_bytes());
    struct greylist *other = calloc(1, greylist_bytes());
    const struct greylist_time now = {start, wall};
    struct buffer file;
    assert_true(empty != NULL && other != NULL);
    for (char sender[] = "a@x"; sender[0] <= 'e'; sender[0]++) {
        assert_int_not_equal(ask(list, "192.0.2.1", sender, "b@y", start), 0);
    }
    write_all(list, start, &file);
    assert_int_equal(file.length, 40 + 5 * 12);
    for (size_t i = 0; i < file.length; i++) {
        struct slice less = slice_take(buffer_slice(&file), i);
        assert_int_equal(greylist_read(other, less, now), ERROR_CORRUPT);
        file.data[i] ^= 1 << i % 8;
        enum error error = greylist_read(other, buffer_slice(&file), now);
        assert_int_equal(error, i == 7 ? ERROR_NEWER : ERROR_CORRUPT);
        file.data[i] ^= 1 << i % 8;
    }
    buffer_append_text(&file, "x");
    assert_int_equal(greylist_read(other, buffer_slice(&file), now), ERROR_CORRUPT);
    assert_memory_equal(other, empty, greylist_bytes());
    buffer_done(&file);
    greylist_free(list);
    greylist_free(other);
    greylist_free(empty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_back_is_let_through),
        cmocka_unit_test(what_comes_late_is_new),
        cmocka_unit_test(a_network_becomes_known),
        cmocka_unit_test(a_full_table_lets_through),
        cmocka_unit_test(what_is_known_outlives_a_restart),
        cmocka_unit_test(a_clock_that_goes_back_makes_nothing_younger),
        cmocka_unit_test(before_it_has_begun_nobody_waits),
        cmocka_unit_test(damage_anywhere_leaves_it_empty),
    };
    return cmocka_run_group_tests_name("greylist", tests, NULL, NULL);
}
