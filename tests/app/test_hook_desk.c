/* SPDX-License-Identifier: Apache-2.0
 *
 * What people are told of alerts, and when: rate, repetition, retry, summaries, and what is told
 * again after a death of core or of ourselves. Time is an argument.
 */
#include "app/hook_desk.h"
#include "app/hook_mail.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SECOND = 1000, MINUTE = 60000, HOUR = 3600000 };

struct table {
    struct hook_desk desk;
    struct hook_config hooks[2];
    struct service_config config;
    struct hook_time now;
    uint64_t number;
};

static int set_up(void **state)
{
    struct table *table = calloc(1, sizeof(*table));
    table->hooks[0] = (struct hook_config){.name = SLICE_LITERAL("web"),
                                           .kinds = UINT64_MAX,
                                           .url = SLICE_LITERAL("http://a/"),
                                           .repeat_ms = 4 * HOUR,
                                           .rate = 6};
    table->hooks[1] = (struct hook_config){.name = SLICE_LITERAL("mail"),
                                           .kinds = 1U << ALERT_STOPPED,
                                           .mail = SLICE_LITERAL("a@b.c"),
                                           .rate = 1};
    table->config = (struct service_config){.hooks = table->hooks, .hook_count = 1};
    table->now = (struct hook_time){1000 * SECOND, 5000000 * (int64_t)SECOND};
    hook_desk_init(&table->desk, (struct hash_key){1, 2});
    hook_desk_configure(&table->desk, &table->config, table->now);
    hook_desk_new_life(&table->desk, 0, table->now);
    *state = table;
    return 0;
}

static int tear_down(void **state)
{
    struct table *table = *state;
    hook_desk_done(&table->desk);
    free(table);
    return 0;
}

static void pass(struct table *table, int64_t ms)
{
    table->now.steady_ms += ms;
    table->now.wall_ms += ms;
    hook_desk_tick(&table->desk, table->now);
}

static void take(struct table *table, enum alert_edge edge, enum alert_kind kind,
                 const char *subject)
{
    const struct hook_news news = {.edge = edge,
                                   .number = ++table->number,
                                   .kind = kind,
                                   .time_ms = table->now.wall_ms,
                                   .since_ms = table->now.wall_ms,
                                   .subject = slice_from_text(subject),
                                   .text = slice_from_text(subject)};
    hook_desk_take(&table->desk, &news, table->now);
}

static void stands(struct table *table, uint64_t number, enum alert_kind kind, const char *subject)
{
    const struct hook_news news = {.stands = true,
                                   .number = number,
                                   .kind = kind,
                                   .subject = slice_from_text(subject),
                                   .text = slice_from_text(subject)};
    hook_desk_take(&table->desk, &news, table->now);
}

/* The next message of the first block, done with `result`: "raised m1". Empty: there is none. */
static const char *step(struct table *table, enum hook_result result)
{
    static char text[200];
    const struct hook_message *message = hook_desk_next(&table->desk, 0, table->now);
    text[0] = 0;
    if (message != NULL) {
        snprintf(text, sizeof(text), "%s %.100s", hook_edge_text(message->edge), message->subject);
        (void)hook_desk_result(&table->desk, 0, result, table->now);
    }
    return text;
}

static void each_edge_is_told_once_in_order(void **state)
{
    struct table *table = *state;
    take(table, ALERT_RAISED, ALERT_SERVER, "m1");
    take(table, ALERT_RAISED, ALERT_SERVER, "m1");
    take(table, ALERT_CHANGED, ALERT_SWITCHED, "lane");
    take(table, ALERT_HAPPENED, ALERT_DEAD_LETTER, "id/0");
    take(table, ALERT_ENDED, ALERT_SERVER, "m1");
    assert_string_equal(step(table, HOOK_SENT), "raised m1");
    assert_string_equal(step(table, HOOK_SENT), "changed lane");
    assert_string_equal(step(table, HOOK_SENT), "happened id/0");
    assert_string_equal(step(table, HOOK_SENT), "ended m1");
    assert_string_equal(step(table, HOOK_SENT), "");
    assert_int_equal(hook_desk_told(&table->desk), 5);
}

static void one_is_under_way_at_a_time(void **state)
{
    struct table *table = *state;
    take(table, ALERT_RAISED, ALERT_SERVER, "m1");
    take(table, ALERT_RAISED, ALERT_SERVER, "m2");
    assert_non_null(hook_desk_next(&table->desk, 0, table->now));
    assert_null(hook_desk_next(&table->desk, 0, table->now));
    assert_false(hook_desk_result(&table->desk, 0, HOOK_SENT, table->now));
    assert_string_equal(step(table, HOOK_SENT), "raised m2");
}

static void a_block_hears_of_its_kinds_only(void **state)
{
    struct table *table = *state;
    table->config.hook_count = 2;
    hook_desk_configure(&table->desk, &table->config, table->now);
    take(table, ALERT_RAISED, ALERT_SERVER, "m1");
    assert_null(hook_desk_next(&table->desk, 1, table->now));
    take(table, ALERT_RAISED, ALERT_STOPPED, "lane");
    assert_non_null(hook_desk_next(&table->desk, 1, table->now));
    (void)hook_desk_result(&table->desk, 1, HOOK_LATER, table->now);
    assert_int_equal(hook_desk_told(&table->desk), 0);
}

static void what_stands_is_told_again(void **state)
{
    struct table *table = *state;
    take(table, ALERT_RAISED, ALERT_SERVER, "m1");
    assert_string_equal(step(table, HOOK_SENT), "raised m1");
    pass(table, 4 * HOUR - SECOND);
    assert_string_equal(step(table, HOOK_SENT), "");
    pass(table, SECOND);
    assert_string_equal(step(table, HOOK_SENT), "repeated m1");
    pass(table, 4 * HOUR);
    assert_string_equal(step(table, HOOK_SENT), "repeated m1");
    take(table, ALERT_ENDED, ALERT_SERVER, "m1");
    assert_string_equal(step(table, HOOK_SENT), "ended m1");
    pass(table, 5 * HOUR);
    assert_string_equal(step(table, HOOK_SENT), "");
}

static void above_the_rate_is_summed_up(void **state)
{
    struct table *table = *state;
    char name[16];
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "m%d", i);
        take(table, ALERT_RAISED, ALERT_SERVER, name);
    }
    for (int i = 0; i < 6; i++) {
        assert_memory_equal(step(table, HOOK_SENT), "raised m", 8);
    }
    assert_string_equal(step(table, HOOK_SENT), "");
    assert_int_equal(hook_desk_told(&table->desk), 6);
    pass(table, 10 * MINUTE - SECOND);
    assert_string_equal(step(table, HOOK_SENT), "");
    pass(table, SECOND);
    const struct hook_message *message = hook_desk_next(&table->desk, 0, table->now);
    assert_non_null(message);
    assert_int_equal(message->edge, HOOK_SUMMARY);
    assert_int_equal(message->more, 14);
    assert_string_equal(hook_event(message), "summary");
    assert_non_null(strstr(message->text, "server-down: m6\nserver-down: m7\n"));
    assert_non_null(strstr(message->text, "m13"));
    assert_null(strstr(message->text, "m14")); /* the first few */
    assert_int_equal(hook_desk_told(&table->desk), 6);
    (void)hook_desk_result(&table->desk, 0, HOOK_SENT, table->now);
    assert_int_equal(hook_desk_told(&table->desk), 20);
    /* One alone stays what it is. */
    take(table, ALERT_ENDED, ALERT_SERVER, "m1");
    assert_string_equal(step(table, HOOK_SENT), "");
    pass(table, 10 * MINUTE);
    assert_string_equal(step(table, HOOK_SENT), "ended m1");
}

static void what_is_refused_is_tried_again_then_summed_up(void **state)
{
    struct table *table = *state;
    take(table, ALERT_RAISED, ALERT_SERVER, "m1");
    int64_t begun = table->now.steady_ms;
    int tries = 0;
    int64_t last_pause = 0, last = begun;
    while (hook_desk_told(&table->desk) == 0 && table->desk.queues[0].gathered == 0) {
        if (step(table, HOOK_REFUSED)[0] != 0) {
            last_pause = table->now.steady_ms - last;
            last = table->now.steady_ms;
            tries++;
        }
        assert_true(table->now.steady_ms - begun < 2 * (int64_t)HOUR);
        table->now.steady_ms += SECOND;
    }
    assert_in_range(tries, 15, 25);
    assert_in_range(last_pause, HOOK_RETRY_MOST_MS, HOOK_RETRY_MOST_MS + SECOND);
    assert_in_range(table->now.steady_ms - begun, 50 * MINUTE, HOUR + SECOND);
    assert_int_equal(hook_desk_told(&table->desk), 0);
    pass(table, SECOND);
    assert_string_equal(step(table, HOOK_SENT), "raised m1");
    assert_int_equal(hook_desk_told(&table->desk), 1);
}

static void what_failed_for_good_is_not_tried_again(void **state)
{
    struct table *table = *state;
    take(table, ALERT_RAISED, ALERT_SERVER, "m1");
    assert_string_equal(step(table, HOOK_FAILED), "raised m1");
    pass(table, HOUR);
    assert_string_equal(step(table, HOOK_SENT), "");
    assert_int_equal(hook_desk_told(&table->desk), 1);
}

static void a_queue_is_bounded(void **state)
{
    struct table *table = *state;
    table->hooks[0].rate = 3600;
    for (int i = 0; i < HOOK_QUEUE_MAX + 50; i++) {
        take(table, ALERT_HAPPENED, ALERT_DEAD_LETTER, "id/0");
    }
    assert_int_equal(table->desk.queues[0].count, HOOK_QUEUE_MAX);
    assert_int_equal(table->desk.queues[0].gathered, 50);
    for (int i = 0; i < HOOK_QUEUE_MAX; i++) {
        assert_string_equal(step(table, HOOK_SENT), "happened id/0");
    }
    pass(table, SECOND);
    assert_string_equal(step(table, HOOK_SENT), "summary ");
}

static void a_core_that_starts_again_is_believed_after_a_minute(void **state)
{
    struct table *table = *state;
    take(table, ALERT_RAISED, ALERT_SERVER, "m1");
    take(table, ALERT_RAISED, ALERT_SERVER, "m2");
    take(table, ALERT_RAISED, ALERT_SERVER, "m3");
    for (int i = 0; i < 3; i++) {
        (void)step(table, HOOK_SENT);
    }
    hook_desk_new_life(&table->desk, 0, table->now);
    table->number = 0;
    stands(table, 1, ALERT_SERVER, "m1"); /* known: nothing to tell */
    table->number = 1;
    pass(table, 30 * SECOND);
    take(table, ALERT_RAISED, ALERT_SERVER, "m2"); /* again */
    assert_string_equal(step(table, HOOK_SENT), "");
    pass(table, 30 * SECOND);
    const struct hook_message *end = hook_desk_next(&table->desk, 0, table->now);
    assert_non_null(end);
    assert_string_equal(end->subject, "m3");
    assert_int_equal(end->edge, HOOK_ENDED);
    assert_memory_equal(end->text, "not seen again since a restart: ", 32); /* not: it answers */
    (void)hook_desk_result(&table->desk, 0, HOOK_SENT, table->now);
    assert_string_equal(step(table, HOOK_SENT), "");
    assert_int_equal(hook_desk_told(&table->desk), 2);
}

static void who_begins_anew_tells_what_was_not_told(void **state)
{
    struct table *table = *state;
    hook_desk_new_life(&table->desk, 10, table->now);
    table->number = 12;
    take(table, ALERT_RAISED, ALERT_SERVER, "untold");
    stands(table, 4, ALERT_SERVER, "told");
    stands(table, 11, ALERT_SERVER, "lost"); /* its edge is not among the latest */
    stands(table, 13, ALERT_SERVER, "untold");
    assert_string_equal(step(table, HOOK_SENT), "raised untold");
    assert_string_equal(step(table, HOOK_SENT), "raised lost");
    assert_string_equal(step(table, HOOK_SENT), "");
    take(table, ALERT_ENDED, ALERT_SERVER, "told");
    assert_string_equal(step(table, HOOK_SENT), "ended told");
    assert_int_equal(hook_desk_told(&table->desk), 14);
}

static void queues_outlive_a_reload(void **state)
{
    struct table *table = *state;
    take(table, ALERT_RAISED, ALERT_STOPPED, "lane");
    struct hook_config swapped[2] = {table->hooks[1], table->hooks[0]};
    const struct service_config config = {.hooks = swapped, .hook_count = 2};
    hook_desk_configure(&table->desk, &config, table->now);
    const struct hook_message *message = hook_desk_next(&table->desk, 1, table->now);
    assert_non_null(message);
    assert_int_equal(message->edge, HOOK_RAISED);
    message = hook_desk_next(&table->desk, 0, table->now); /* new: hears what stands */
    assert_non_null(message);
    assert_int_equal(message->edge, HOOK_REPEATED);
    (void)hook_desk_result(&table->desk, 0, HOOK_SENT, table->now);
    (void)hook_desk_result(&table->desk, 1, HOOK_SENT, table->now);
    const struct service_config none = {.hook_count = 0};
    hook_desk_configure(&table->desk, &none, table->now);
    assert_int_equal(hook_desk_told(&table->desk), 1);
}

static void a_mail_goes_when_something_has_ended(void **state)
{
    struct table *table = *state;
    table->hooks[0].url = SLICE_EMPTY;
    table->hooks[0].mail = SLICE_LITERAL("a@b.c");
    take(table, ALERT_RAISED, ALERT_STOPPED, "lane");
    assert_string_equal(step(table, HOOK_REFUSED), "raised lane");
    assert_string_equal(step(table, HOOK_SENT), "");
    take(table, ALERT_ENDED, ALERT_STOPPED, "lane");
    assert_string_equal(step(table, HOOK_SENT), "raised lane");
    assert_string_equal(step(table, HOOK_SENT), "ended lane");
}

static void failover_that_worked_is_told_from_one_that_did_not(void **state)
{
    (void)state;
    static const struct {
        enum alert_kind kind;
        enum hook_edge edge;
        const char *event;
    } cases[] = {
        {ALERT_SWITCHED, HOOK_RAISED, "failover-succeeded"},
        {ALERT_SWITCHED, HOOK_CHANGED, "failover-succeeded"},
        {ALERT_SWITCHED, HOOK_ENDED, "switched-back"},
        {ALERT_STOPPED, HOOK_RAISED, "failover-failed"},
        {ALERT_STOPPED, HOOK_ENDED, "resumed"},
        {ALERT_STORAGE, HOOK_RAISED, "storage"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct hook_message message = {.kind = cases[i].kind, .edge = cases[i].edge};
        assert_string_equal(hook_event(&message), cases[i].event);
    }
}

/* ---- the way of a mail -------------------------------------------------------------------- */

static void a_mail_goes_by_a_chain_that_works(void **state)
{
    (void)state;
    static const struct server_config servers[] = {{.name = SLICE_LITERAL("m1")},
                                                   {.name = SLICE_LITERAL("m2")},
                                                   {.name = SLICE_LITERAL("o1")},
                                                   {.name = SLICE_LITERAL("o2")},
                                                   {.name = SLICE_LITERAL("p1")}};
    static const struct domain_pattern ours = {.name = SLICE_LITERAL("example.com")};
    static const uint32_t inner[] = {0, 1}, outer[] = {2, 3}, third[] = {4};
    static const struct route_config routes[] = {
        {.kind = ROUTE_DOMAIN,
         .name = SLICE_LITERAL("example.com"),
         .domains = &ours,
         .domain_count = 1,
         .chain = inner,
         .chain_length = 2},
        {.kind = ROUTE_RELAY, .name = SLICE_LITERAL("out"), .chain = outer, .chain_length = 2},
        {.kind = ROUTE_RELAY, .name = SLICE_LITERAL("third"), .chain = third, .chain_length = 1}};
    static const struct relay_config config = {
        .servers = servers, .server_count = 5, .routes = routes, .route_count = 3, .bounces = 1};
    static const struct {
        const char *to, *about;
        bool works[5];
        const char *way; /* "own", a server, or "none" */
    } cases[] = {
        {"a@example.com", "", {1, 1, 1, 1, 1}, "own"},
        {"a@example.com", "m2", {1, 0, 1, 1, 1}, "own"},
        /* What it is about comes last. */
        {"a@example.com", "domain:example.com", {1, 1, 1, 1, 1}, "o1"},
        {"a@example.com", "domain:example.com", {1, 1, 0, 0, 1}, "p1"},
        {"a@example.com", "domain:example.com", {0, 1, 0, 0, 0}, "own"},
        {"a@example.com", "m1", {1, 1, 0, 1, 0}, "own"}, /* m2 stands in */
        {"a@example.com", "m1", {1, 1, 1, 1, 0}, "o1"},
        /* A first server before one that stands in. */
        {"a@example.com", "m1", {0, 1, 1, 1, 0}, "o1"},
        {"a@example.com", "m1", {0, 1, 0, 1, 0}, "own"},
        {"a@example.com", "m1", {0, 0, 0, 1, 0}, "o2"},
        {"a@example.com", "m1", {0, 0, 0, 0, 0}, "none"},
        /* Elsewhere: by the relay for bounces. */
        {"a@other.example", "m1", {0, 0, 1, 0, 0}, "own"},
        {"a@other.example", "relay:out", {0, 0, 1, 0, 1}, "p1"},
        {"a@other.example", "relay:out", {1, 1, 0, 0, 0}, "none"}, /* not theirs to relay */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct hook_way way = {.config = &config, .works = cases[i].works};
        struct slice server;
        char text[32] = "none";
        if (hook_mail_way(&way, slice_from_text(cases[i].to), slice_from_text(cases[i].about),
                          &server)) {
            snprintf(text, sizeof(text), "%.*s", server.length > 0 ? (int)server.length : 3,
                     server.length > 0 ? (const char *)server.data : "own");
        }
        if (strcmp(text, cases[i].way) != 0) {
            print_error("case %zu\n", i);
        }
        assert_string_equal(text, cases[i].way);
    }
}

#define TABLE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TABLE_TEST(each_edge_is_told_once_in_order),
        TABLE_TEST(one_is_under_way_at_a_time),
        TABLE_TEST(a_block_hears_of_its_kinds_only),
        TABLE_TEST(what_stands_is_told_again),
        TABLE_TEST(above_the_rate_is_summed_up),
        TABLE_TEST(what_is_refused_is_tried_again_then_summed_up),
        TABLE_TEST(what_failed_for_good_is_not_tried_again),
        TABLE_TEST(a_queue_is_bounded),
        TABLE_TEST(a_core_that_starts_again_is_believed_after_a_minute),
        TABLE_TEST(who_begins_anew_tells_what_was_not_told),
        TABLE_TEST(queues_outlive_a_reload),
        TABLE_TEST(a_mail_goes_when_something_has_ended),
        cmocka_unit_test(failover_that_worked_is_told_from_one_that_did_not),
        cmocka_unit_test(a_mail_goes_by_a_chain_that_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
