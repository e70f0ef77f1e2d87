/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of alerts: what begins and ends, and what happens when it is full. And the news of
 * them.
 */
#include "service/alert_news.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct hash_key key = {1, 2};

static bool raise_of(struct alerts *alerts, const char *subject, int64_t now)
{
    return alerts_raise(alerts, ALERT_STOPPED, slice_from_text(subject), "down", now);
}

static bool end_of(struct alerts *alerts, enum alert_kind kind, const char *subject)
{
    struct alert *alert = alerts_find(alerts, kind, slice_from_text(subject));
    if (alert != NULL) {
        alerts_end(alerts, alert);
    }
    return alert != NULL;
}

static void one_begins_once_and_ends_once(void **state)
{
    (void)state;
    struct alerts alerts;
    alerts_init(&alerts, key);
    assert_false(end_of(&alerts, ALERT_STORAGE, ""));
    assert_true(alerts_raise(&alerts, ALERT_STORAGE, SLICE_EMPTY, "no space", 5));
    assert_false(alerts_raise(&alerts, ALERT_STORAGE, SLICE_EMPTY, "less space", 6));
    const struct alert *alert = alerts_find(&alerts, ALERT_STORAGE, SLICE_EMPTY);
    assert_non_null(alert);
    assert_int_equal(alert->since_wall_ms, 5);
    assert_string_equal(alert->text, "less space");
    assert_int_equal(alerts.count, 1);
    assert_true(end_of(&alerts, ALERT_STORAGE, ""));
    assert_null(alerts_find(&alerts, ALERT_STORAGE, SLICE_EMPTY));
    assert_int_equal(alerts.count, 0);
    assert_true(list_is_empty(&alerts.standing));
    alerts_done(&alerts);
}

static void kind_and_subject_tell_them_apart(void **state)
{
    (void)state;
    struct alerts alerts;
    alerts_init(&alerts, key);
    char name[] = "relay:out";
    assert_true(raise_of(&alerts, name, 1));
    name[0] = 'x'; /* it has its own copy */
    assert_true(raise_of(&alerts, "domain:one.example", 2));
    assert_true(alerts_raise(&alerts, ALERT_SWITCHED, SLICE_LITERAL("relay:out"), "goes to m2", 3));
    assert_false(raise_of(&alerts, "relay:out", 4));
    assert_int_equal(alerts.count, 3);
    assert_true(end_of(&alerts, ALERT_STOPPED, "relay:out"));
    const struct alert *left = alerts_find(&alerts, ALERT_SWITCHED, SLICE_LITERAL("relay:out"));
    assert_non_null(left);
    assert_true(slice_equal(left->subject, SLICE_LITERAL("relay:out")));
    assert_string_equal(alert_kind_text(left->kind), "switched");
    alerts_done(&alerts);
}

static void a_full_table_still_knows_those_without_a_subject(void **state)
{
    (void)state;
    struct alerts alerts;
    char name[32];
    alerts_init(&alerts, key);
    for (int i = 0; i < ALERTS_MAX + 10; i++) {
        assert_int_equal(alerts_full(&alerts), i >= ALERTS_MAX);
        snprintf(name, sizeof(name), "domain:d%d.example", i);
        assert_true(raise_of(&alerts, name, i));
    }
    assert_int_equal(alerts.count, ALERTS_MAX);
    assert_true(alerts_raise(&alerts, ALERT_DEAD_LETTERS, SLICE_EMPTY, "some", 1));
    assert_false(alerts_raise(&alerts, ALERT_DEAD_LETTERS, SLICE_EMPTY, "some", 2));
    assert_false(end_of(&alerts, ALERT_STOPPED, name));
    assert_true(end_of(&alerts, ALERT_STOPPED, "domain:d7.example"));
    assert_true(raise_of(&alerts, name, 1)); /* has a place now */
    assert_false(raise_of(&alerts, name, 1));
    alerts_done(&alerts);
}

static uint64_t add(struct alert_news *news, enum alert_edge edge, const char *subject,
                    const char *text)
{
    const struct alert_news_item item = {.kind = ALERT_SWITCHED,
                                         .edge = edge,
                                         .time_wall_ms = 7,
                                         .since_wall_ms = 5,
                                         .subject = slice_from_text(subject),
                                         .text = slice_from_text(text),
                                         .from = SLICE_LITERAL("m1"),
                                         .to = SLICE_LITERAL("m2")};
    return alert_news_add(news, &item);
}

static void news_come_after_a_number(void **state)
{
    (void)state;
    struct alert_news news;
    alert_news_init(&news);
    assert_null(alert_news_after(&news, 0));
    char subject[] = "relay:out";
    assert_int_equal(add(&news, ALERT_RAISED, subject, "goes to m2"), 1);
    subject[0] = 'x'; /* it has its own copy */
    assert_int_equal(add(&news, ALERT_ENDED, "relay:out", ""), 2);
    const struct alert_news_item *item = alert_news_after(&news, 0);
    assert_int_equal(item->number, 1);
    assert_int_equal(item->edge, ALERT_RAISED);
    assert_true(slice_equal(item->subject, SLICE_LITERAL("relay:out")));
    assert_true(slice_equal(item->text, SLICE_LITERAL("goes to m2")));
    assert_true(slice_equal(item->from, SLICE_LITERAL("m1")));
    assert_true(slice_equal(item->to, SLICE_LITERAL("m2")));
    assert_int_equal(alert_news_after(&news, 1)->number, 2);
    assert_null(alert_news_after(&news, 2));
    alert_news_done(&news);
}

static void the_oldest_news_go(void **state)
{
    (void)state;
    struct alert_news news;
    alert_news_init(&news);
    for (int i = 0; i < ALERT_NEWS_MAX + 5; i++) {
        (void)add(&news, ALERT_HAPPENED, "a", "b");
    }
    assert_int_equal(news.count, ALERT_NEWS_MAX);
    assert_int_equal(alert_news_after(&news, 0)->number, 6);
    alert_news_done(&news);
}

static void an_end_has_words_of_its_own(void **state)
{
    (void)state;
    char text[ALERT_TEXT_SIZE];
    struct slice m1 = SLICE_LITERAL("m1");
    alert_end_text(ALERT_SERVER, m1, ALERT_OVER, 5400, text, sizeof(text));
    assert_string_equal(text, "server m1 answers again after 5 seconds");
    alert_end_text(ALERT_SERVER, m1, ALERT_OVER, 1999, text, sizeof(text));
    assert_string_equal(text, "server m1 answers again after 1 second");
    alert_end_text(ALERT_SERVER, m1, ALERT_DISABLED, 200000, text, sizeof(text));
    assert_string_equal(text, "server m1 was taken out by hand after 3 minutes of this");
    alert_end_text(ALERT_SERVER, m1, ALERT_REMOVED, 0, text, sizeof(text));
    assert_string_equal(text, "m1 is named no more, neither here nor by DNS");
    for (int kind = 0; kind < ALERT_KIND_COUNT; kind++) {
        if (kind != ALERT_DEAD_LETTER &&
            kind != ALERT_TAKEOVER) { /* they happen, and never stand */
            alert_end_text((enum alert_kind)kind, m1, ALERT_OVER, 7200000, text, sizeof(text));
            assert_null(strstr(text, " is over "));
            assert_non_null(strstr(text, " after 2 hours"));
        }
    }
    static char long_name[600];
    memset(long_name, 'x', sizeof(long_name));
    alert_end_text(ALERT_STOPPED, slice_make(long_name, sizeof(long_name)), ALERT_OVER, -5, text,
                   sizeof(text));
    assert_non_null(strstr(text, "after 0 seconds"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_begins_once_and_ends_once),
        cmocka_unit_test(kind_and_subject_tell_them_apart),
        cmocka_unit_test(a_full_table_still_knows_those_without_a_subject),
        cmocka_unit_test(news_come_after_a_number),
        cmocka_unit_test(the_oldest_news_go),
        cmocka_unit_test(an_end_has_words_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
