/* SPDX-License-Identifier: Apache-2.0
 *
 * Guessing is slow, and nobody is locked out from where he usually is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "service/login_throttle.h"

#define ANN SLICE_LITERAL("ann@example.org")
#define JOE SLICE_LITERAL("joe@example.org")

static struct ip_address address(const char *text)
{
    struct ip_address found;
    assert_true(ip_from_text(slice_from_text(text), &found));
    return found;
}

static struct login_throttle *new_throttle(void)
{
    struct login_throttle *throttle = login_throttle_new((struct hash_key){1, 2});
    assert_non_null(throttle);
    return throttle;
}

static void a_client_that_guesses_must_wait_longer_and_longer(void **state)
{
    (void)state;
    struct login_throttle *throttle = new_throttle();
    struct ip_address client = address("192.0.2.1"), other = address("192.0.2.2");
    int64_t now_ms = 1000, wait_ms = 0;
    for (int i = 0; i < LOGIN_CLIENT_FREE; i++) {
        struct login_failure failure =
            login_throttle_failed(throttle, &client, ANN, SLICE_EMPTY, now_ms);
        assert_int_equal(failure.client_wait_ms, 0);
        assert_int_equal(failure.delay_ms,
                         i < 15 ? (i + 1) * LOGIN_DELAY_STEP_MS : LOGIN_DELAY_MOST_MS);
        assert_int_equal(login_throttle_wait(throttle, &client, ANN, now_ms), 0);
    }
    for (int i = 0; i < 12; i++) {
        struct login_failure failure =
            login_throttle_failed(throttle, &client, JOE, SLICE_EMPTY, now_ms);
        assert_true(failure.client_wait_ms > wait_ms ||
                    failure.client_wait_ms == LOGIN_WAIT_MOST_MS);
        wait_ms = failure.client_wait_ms;
        assert_int_equal(wait_ms, i < 7 ? LOGIN_WAIT_FIRST_MS << i : LOGIN_WAIT_MOST_MS);
        /* Whatever account it names; and others need not. */
        assert_int_equal(login_throttle_wait(throttle, &client, ANN, now_ms), wait_ms);
        assert_int_equal(login_throttle_wait(throttle, &other, ANN, now_ms), 0);
        now_ms += wait_ms;
        assert_int_equal(login_throttle_wait(throttle, &client, ANN, now_ms), 0);
    }
    login_throttle_free(throttle);
}

static void an_ipv6_client_is_its_network(void **state)
{
    (void)state;
    struct login_throttle *throttle = new_throttle();
    char text[64];
    for (int i = 0; i <= LOGIN_CLIENT_FREE; i++) {
        snprintf(text, sizeof(text), "2001:db8:0:1::%x", i + 1);
        struct ip_address client = address(text);
        (void)login_throttle_failed(throttle, &client, ANN, SLICE_EMPTY, 0);
    }
    struct ip_address same = address("2001:db8:0:1:ffff::1"), other = address("2001:db8:0:2::1");
    assert_true(login_throttle_wait(throttle, &same, JOE, 0) > 0);
    assert_int_equal(login_throttle_wait(throttle, &other, JOE, 0), 0);
    login_throttle_free(throttle);
}

static void guess_from_everywhere(struct login_throttle *throttle, struct slice account, int count,
                                  int64_t now_ms)
{
    char text[64];
    for (int i = 0; i < count; i++) {
        snprintf(text, sizeof(text), "198.%d.%d.%d", 18 + (i >> 16), i >> 8 & 255, i & 255);
        struct ip_address client = address(text);
        (void)login_throttle_failed(throttle, &client, account, SLICE_EMPTY, now_ms);
    }
}

static void strangers_at_an_account_lock_out_strangers_only(void **state)
{
    (void)state;
    struct login_throttle *throttle = new_throttle();
    struct ip_address home = address("192.0.2.1"), stranger = address("203.0.113.7");
    login_throttle_passed(throttle, &home, SLICE_LITERAL("Ann@example.org"), 0);
    guess_from_everywhere(throttle, ANN, LOGIN_ACCOUNT_FREE + 5, 0);
    assert_true(login_throttle_wait(throttle, &stranger, ANN, 0) > 0);
    assert_true(login_throttle_wait(throttle, &stranger, SLICE_LITERAL("ANN@example.org"), 0) > 0);
    assert_int_equal(login_throttle_wait(throttle, &stranger, JOE, 0), 0);
    assert_int_equal(login_throttle_wait(throttle, &home, ANN, 0), 0);
    /* Nor does it matter to him there that somebody at his address guesses at others. */
    for (int i = 0; i < 30; i++) {
        (void)login_throttle_failed(throttle, &home, JOE, SLICE_EMPTY, 0);
    }
    assert_true(login_throttle_wait(throttle, &home, SLICE_LITERAL("third@example.org"), 0) > 0);
    assert_int_equal(login_throttle_wait(throttle, &home, ANN, 0), 0);
    /* But guessing at his from there has an end too. */
    for (int i = 0; i <= LOGIN_FRIEND_FREE; i++) {
        assert_int_equal(login_throttle_wait(throttle, &home, ANN, 0), 0);
        (void)login_throttle_failed(throttle, &home, ANN, SLICE_EMPTY, 0);
    }
    assert_true(login_throttle_wait(throttle, &home, ANN, 0) > 0);
    login_throttle_free(throttle);
}

/* `WHOSE` is what the directory calls both of them. */
#define WHOSE SLICE_LITERAL("uid=ann")

static void an_account_is_one_however_its_name_is_written(void **state)
{
    (void)state;
    struct login_throttle *throttle = new_throttle();
    struct ip_address home = address("192.0.2.1"), stranger = address("203.0.113.7");
    struct login_failure failure = {0};
    char name[32], text[64];
    login_throttle_passed(throttle, &home, WHOSE, 0);
    for (int i = 0; i <= LOGIN_ACCOUNT_FREE; i++) {
        assert_int_equal(login_throttle_wait(throttle, &stranger, WHOSE, 0), 0);
        snprintf(name, sizeof(name), "spelling%d", i);
        snprintf(text, sizeof(text), "198.51.100.%d", i);
        struct ip_address client = address(text);
        failure = login_throttle_failed(throttle, &client, slice_from_text(name), WHOSE, 0);
        assert_int_equal(failure.client_wait_ms, 0);
        assert_int_equal(failure.delay_ms, LOGIN_DELAY_STEP_MS); /* it counts once for the client */
    }
    assert_int_equal(failure.account_wait_ms, LOGIN_WAIT_FIRST_MS);
    assert_int_equal(login_throttle_wait(throttle, &stranger, WHOSE, 0), LOGIN_WAIT_FIRST_MS);
    assert_int_equal(login_throttle_wait(throttle, &stranger, ANN, 0), 0);
    /* Who is known there by any of them is known, and what he guesses is counted apart. */
    assert_int_equal(login_throttle_wait(throttle, &home, WHOSE, 0), 0);
    for (int i = 0; i <= LOGIN_FRIEND_FREE; i++) {
        assert_int_equal(login_throttle_wait(throttle, &home, WHOSE, 0), 0);
        failure = login_throttle_failed(throttle, &home, ANN, WHOSE, 0);
    }
    assert_true(failure.client_wait_ms > 0);
    assert_true(login_throttle_wait(throttle, &home, WHOSE, 0) > 0);
    assert_int_equal(login_throttle_wait(throttle, &home, JOE, 0), 0);
    login_throttle_free(throttle);
}

static void failures_are_forgotten_in_time(void **state)
{
    (void)state;
    struct login_throttle *throttle = new_throttle();
    struct ip_address client = address("192.0.2.1");
    for (int i = 0; i <= LOGIN_CLIENT_FREE; i++) {
        (void)login_throttle_failed(throttle, &client, ANN, SLICE_EMPTY, 0);
    }
    int64_t later_ms = LOGIN_WAIT_FIRST_MS + LOGIN_HALF_LIFE_MS;
    struct login_failure failure =
        login_throttle_failed(throttle, &client, ANN, SLICE_EMPTY, later_ms);
    assert_int_equal(failure.client_wait_ms, 0);
    assert_int_equal(failure.delay_ms, (LOGIN_CLIENT_FREE / 2 + 1) * LOGIN_DELAY_STEP_MS);
    login_throttle_free(throttle);
}

/* A flood of names and addresses neither grows anything nor sets the guesser free. */
static void a_flood_does_not_wash_a_lock_away(void **state)
{
    (void)state;
    struct login_throttle *throttle = new_throttle();
    struct ip_address stranger = address("203.0.113.7");
    char name[32], text[64];
    guess_from_everywhere(throttle, ANN, LOGIN_ACCOUNT_FREE + 5, 0);
    for (int i = 0; i < 100000; i++) {
        snprintf(name, sizeof(name), "u%d@example.org", i);
        snprintf(text, sizeof(text), "100.%d.%d.%d", 64 + (i >> 16), i >> 8 & 255, i & 255);
        struct ip_address client = address(text);
        (void)login_throttle_failed(throttle, &client, slice_from_text(name), SLICE_EMPTY, 1);
    }
    assert_true(login_throttle_wait(throttle, &stranger, ANN, 1) > 0);
    login_throttle_free(throttle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_that_guesses_must_wait_longer_and_longer),
        cmocka_unit_test(an_ipv6_client_is_its_network),
        cmocka_unit_test(strangers_at_an_account_lock_out_strangers_only),
        cmocka_unit_test(an_account_is_one_however_its_name_is_written),
        cmocka_unit_test(failures_are_forgotten_in_time),
        cmocka_unit_test(a_flood_does_not_wash_a_lock_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
