/* SPDX-License-Identifier: Apache-2.0
 *
 * What core makes of logins that it is told of: events for `trace`, few of each, and alerts while
 * somebody must wait.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "core_bench.h"
#include "service/login.h"
#include "sys/fdpass.h"

enum { TURN_MS = 20, PATIENCE = 1000, MINUTE_MS = 60000, HOUR_MS = 60 * MINUTE_MS };

static int told; /* our end of the pair */

static int set_up(void **state)
{
    int ends[2];
    if (bench_set_up_memory(state) != 0) {
        return 1;
    }
    const struct bench *bench = *state;
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    core_set_logins(bench->core, ends[0]);
    told = ends[1];
    return 0;
}

static int tear_down(void **state)
{
    close(told);
    return bench_tear_down(state);
}

static void tell(struct login_news news, const char *client, const char *name)
{
    struct buffer bytes;
    buffer_init(&bytes, 0);
    assert_true(ip_from_text(slice_from_text(client), &news.client));
    news.listener = SLICE_LITERAL("submission");
    news.name = slice_from_text(name);
    news.how = SLICE_LITERAL("password");
    login_put_news(&bytes, &news);
    assert_int_equal(fdpass_send(told, buffer_slice(&bytes), NULL, 0), ERROR_NONE);
    buffer_done(&bytes);
}

static uint32_t standing(const struct bench *bench, enum alert_kind kind)
{
    uint32_t count = 0;
    LIST_EACH(&bench->core->alerts.standing, at, after)
    {
        count += LIST_ENTRY(at, struct alert, link)->kind == kind;
    }
    return count;
}

static void until_standing(struct bench *bench, enum alert_kind kind, uint32_t count)
{
    for (int i = 0; i < PATIENCE && standing(bench, kind) != count; i++) {
        bench_run_ms(bench, TURN_MS);
    }
    assert_int_equal(standing(bench, kind), count);
}

static uint64_t raised(const struct bench *bench)
{
    return atomic_load(&bench->counters.value[COUNTER_ALERTS]);
}

/* The rows of `trace`, when there are so many; its words are the user's or the client's. */
static json_t *trace(struct bench *bench, const char *what, size_t count)
{
    char arguments[100];
    snprintf(arguments, sizeof(arguments), "{'what':'%s'}", what);
    for (int i = 0; i < PATIENCE; i++) {
        (void)bench_ask(bench, "trace", arguments);
        if (json_array_size(bench->rows) == count) {
            return bench->rows;
        }
        bench_run_ms(bench, TURN_MS);
    }
    fail_msg("%zu events of %s", json_array_size(bench->rows), what);
    return NULL;
}

static const char *text(const json_t *rows, size_t index, const char *key)
{
    const char *value = json_string_value(json_object_get(json_array_get(rows, index), key));
    return value != NULL ? value : "";
}

static void logins_good_and_failed_are_events(void **state)
{
    struct bench *bench = *state;
    tell((struct login_news){.verdict = LOGIN_REFUSED, .is_known = true}, "192.0.2.7",
         "ann@example.org");
    tell((struct login_news){.verdict = LOGIN_GOOD, .is_known = true}, "192.0.2.8",
         "ann@example.org");
    tell((struct login_news){.verdict = LOGIN_LATER, .wait_ms = 5000}, "192.0.2.8", "ben");
    tell((struct login_news){.verdict = LOGIN_AWAY}, "192.0.2.9", "ben");
    const json_t *rows = trace(bench, "ann@example.org", 2);
    assert_string_equal(text(rows, 0, "event"), "denied");
    assert_string_equal(text(rows, 0, "user"), "ann@example.org");
    assert_string_equal(text(rows, 0, "client"), "192.0.2.7");
    assert_string_equal(text(rows, 0, "reason"), "wrong; by password, listener submission");
    assert_true(json_is_null(json_object_get(json_array_get(rows, 0), "sender")));
    assert_string_equal(text(rows, 1, "event"), "login");
    assert_string_equal(text(rows, 1, "reason"), "by password, listener submission");
    rows = trace(bench, "192.0.2.8", 2);
    assert_string_equal(text(rows, 1, "user"), "ben");
    assert_string_equal(text(rows, 1, "reason"),
                        "not tried, for too many have failed; by password, listener submission");
    assert_true(json_is_integer(json_object_get(json_array_get(rows, 1), "next")));
    rows = trace(bench, "ben", 2);
    assert_string_equal(text(rows, 1, "client"), "192.0.2.9");
    assert_int_equal(raised(bench), 0);
}

static void a_storm_of_guesses_leaves_few_events(void **state)
{
    struct bench *bench = *state;
    for (int i = 0; i < 50; i++) {
        char name[16];
        snprintf(name, sizeof(name), "ann%d", i);
        tell((struct login_news){.verdict = LOGIN_REFUSED}, "192.0.2.7", name);
        tell((struct login_news){.verdict = LOGIN_GOOD, .is_known = true}, "192.0.2.7", "ben");
    }
    tell((struct login_news){.verdict = LOGIN_REFUSED}, "198.51.100.1", "carl");
    (void)trace(bench, "198.51.100.1", 1);
    (void)trace(bench, "ben", EVENT_BOUND_OF_ONE);
    (void)trace(bench, "192.0.2.7", 2 * EVENT_BOUND_OF_ONE);
    assert_int_equal(atomic_load(&bench->counters.value[COUNTER_LOGINS_LEFT_OUT]),
                     100 - 2 * EVENT_BOUND_OF_ONE);
}

/* Else the account that finds its place taken by another would stay unseen. */
static void what_was_left_out_of_good_logins_is_told_after_the_minute(void **state)
{
    struct bench *bench = *state;
    for (int i = 0; i < EVENT_BOUND_OF_ONE + 5; i++) {
        tell((struct login_news){.verdict = LOGIN_GOOD, .is_known = true}, "192.0.2.7", "ben");
    }
    (void)trace(bench, "192.0.2.7", EVENT_BOUND_OF_ONE);
    logins_tick(bench->core, core_now(bench->core).steady_ms + MINUTE_MS);
    const json_t *rows = trace(bench, "192.0.2.7", EVENT_BOUND_OF_ONE + 1);
    assert_string_equal(text(rows, EVENT_BOUND_OF_ONE, "event"), "login");
    const json_t *last = json_array_get(rows, EVENT_BOUND_OF_ONE);
    assert_int_equal(json_integer_value(json_object_get(last, "left_out")), 5);
    assert_true(json_is_null(json_object_get(last, "user")));
}

static void an_account_has_one_share_however_its_name_is_written(void **state)
{
    struct bench *bench = *state;
    for (int i = 0; i < 2 * EVENT_BOUND_OF_ONE; i++) {
        char name[16];
        snprintf(name, sizeof(name), "ben%d", i);
        tell((struct login_news){.verdict = LOGIN_GOOD, .identity = SLICE_LITERAL("whose")},
             "192.0.2.7", name);
    }
    tell((struct login_news){.verdict = LOGIN_GOOD}, "192.0.2.8", "carl");
    (void)trace(bench, "carl", 1);
    (void)trace(bench, "192.0.2.7", EVENT_BOUND_OF_ONE);
}

static void an_alert_stands_while_somebody_must_wait_and_an_hour(void **state)
{
    struct bench *bench = *state;
    const struct login_news failure = {
        .verdict = LOGIN_REFUSED, .is_known = true, .account_wait_ms = HOUR_MS + 2 * MINUTE_MS};
    tell(failure, "192.0.2.7", "ann");
    tell(failure, "192.0.2.8", "Ann"); /* the same */
    tell((struct login_news){.verdict = LOGIN_REFUSED, .client_wait_ms = 1}, "2001:db8::17",
         "nobody");
    until_standing(bench, ALERT_LOGIN_CLIENT, 1);
    assert_int_equal(standing(bench, ALERT_LOGIN_ACCOUNT), 1);
    const struct alert *alert =
        alerts_find(&bench->core->alerts, ALERT_LOGIN_ACCOUNT, SLICE_LITERAL("ann"));
    assert_non_null(alert);
    assert_string_equal(
        alert->text,
        "too many logins as Ann have failed, the last from 192.0.2.8: strangers are made to wait");
    assert_non_null(
        alerts_find(&bench->core->alerts, ALERT_LOGIN_CLIENT, SLICE_LITERAL("2001:db8::/64")));
    assert_int_equal(raised(bench), 2);
    report_alerts_reconfigured(bench->core); /* which is nothing to them */
    int64_t now_ms = core_now(bench->core).steady_ms;
    logins_tick(bench->core, now_ms + HOUR_MS - 10 * MINUTE_MS);
    assert_int_equal(standing(bench, ALERT_LOGIN_CLIENT), 1);
    logins_tick(bench->core, now_ms + HOUR_MS);
    assert_int_equal(standing(bench, ALERT_LOGIN_CLIENT), 0);
    assert_int_equal(standing(bench, ALERT_LOGIN_ACCOUNT), 1);
    logins_tick(bench->core, now_ms + HOUR_MS + 2 * MINUTE_MS);
    assert_int_equal(standing(bench, ALERT_LOGIN_ACCOUNT), 0);
    assert_int_equal(raised(bench), 2);
}

/* Who knows has ended, and with it all waits. */
static void an_alert_ends_with_who_knows(void **state)
{
    struct bench *bench = *state;
    tell((struct login_news){.verdict = LOGIN_REFUSED, .client_wait_ms = 60000}, "192.0.2.7",
         "ann");
    until_standing(bench, ALERT_LOGIN_CLIENT, 1);
    core_set_logins(bench->core, -1);
    assert_int_equal(standing(bench, ALERT_LOGIN_CLIENT), 0);
}

static void names_that_nobody_has_raise_no_alert(void **state)
{
    struct bench *bench = *state;
    tell((struct login_news){.verdict = LOGIN_REFUSED, .account_wait_ms = 60000}, "192.0.2.7",
         "invented");
    (void)trace(bench, "invented", 1);
    assert_int_equal(raised(bench), 0);
}

/* A storm from everywhere is one alert more, not thousands. */
static void many_clients_share_an_alert(void **state)
{
    struct bench *bench = *state;
    for (int i = 0; i < 100; i++) {
        char client[32];
        snprintf(client, sizeof(client), "192.0.2.%d", i);
        tell((struct login_news){.verdict = LOGIN_REFUSED, .client_wait_ms = 60000}, client, "ann");
    }
    tell((struct login_news){.verdict = LOGIN_GOOD}, "198.51.100.1", "carl");
    (void)trace(bench, "carl", 1);
    assert_int_equal(standing(bench, ALERT_LOGIN_CLIENT), 5);
    assert_int_equal(raised(bench), 5);
    const struct alert *others = alerts_find(&bench->core->alerts, ALERT_LOGIN_CLIENT, SLICE_EMPTY);
    assert_non_null(others);
    assert_string_equal(others->text, "after too many failed logins other clients were made to "
                                      "wait, too: 96 times");
}

static void what_is_none_ends_the_link(void **state)
{
    struct bench *bench = *state;
    tell((struct login_news){.verdict = LOGIN_REFUSED, .client_wait_ms = 60000}, "192.0.2.7",
         "ann");
    until_standing(bench, ALERT_LOGIN_CLIENT, 1);
    assert_int_equal(fdpass_send(told, SLICE_LITERAL("nonsense"), NULL, 0), ERROR_NONE);
    for (int i = 0; i < PATIENCE && fdpass_send(told, SLICE_LITERAL("x"), NULL, 0) == ERROR_NONE;
         i++) {
        bench_run_ms(bench, TURN_MS);
    }
    assert_int_equal(fdpass_send(told, SLICE_LITERAL("x"), NULL, 0), ERROR_CLOSED);
}

#define LOGINS_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOGINS_TEST(logins_good_and_failed_are_events),
        LOGINS_TEST(a_storm_of_guesses_leaves_few_events),
        LOGINS_TEST(what_was_left_out_of_good_logins_is_told_after_the_minute),
        LOGINS_TEST(an_account_has_one_share_however_its_name_is_written),
        LOGINS_TEST(an_alert_stands_while_somebody_must_wait_and_an_hour),
        LOGINS_TEST(an_alert_ends_with_who_knows),
        LOGINS_TEST(names_that_nobody_has_raise_no_alert),
        LOGINS_TEST(many_clients_share_an_alert),
        LOGINS_TEST(what_is_none_ends_the_link),
    };
    return cmocka_run_group_tests_name("core_logins", tests, NULL, NULL);
}
