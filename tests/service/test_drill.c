/* SPDX-License-Identifier: Apache-2.0
 *
 * Fire drills against a whole core: what is refused, what is sent, held and told, and what ends
 * one.
 */
#include "control_answer.h"

#include "relay/freeze.h"

static void begin(struct bench *bench)
{
    bench->connects = bench->readies = bench->answers = true;
    bench_attach_out(bench, true, true);
    bench->routes[0].drill_recipient = SLICE_LITERAL("drill@example.com");
    for (int i = 0; i < 500; i++) {
        assert_int_equal(bench_ask(bench, "status", "{}"), 0);
        if (strcmp(text(json_array_get(json_object_get(row(bench, 0), "servers"), 0), "state"),
                   "up") == 0) {
            return;
        }
        bench_run_ms(bench, 10);
    }
    fail_msg("m1 does not come up");
}

static json_t *lane(struct bench *bench)
{
    assert_int_equal(bench_ask(bench, "status", "{}"), 0);
    return json_array_get(json_object_get(row(bench, 0), "lanes"), 0);
}

static bool alerted(struct bench *bench)
{
    return alerts_find(&bench->core->alerts, ALERT_DRILL, SLICE_LITERAL("domain:example.com")) !=
           NULL;
}

static void freeze(struct bench *bench)
{
    assert_int_equal(relay_freeze(bench->core->relay, 0, 60000, core_now(bench->core)),
                     RELAY_FREEZE_DONE);
    core_act(bench->core, SPOOL_SYNCED, CORE_NOTHING_AFTER);
}

static void messages_are_sent_held_and_told(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    assert_int_equal(
        bench_ask(bench, "drill", "{'domain':'EXAMPLE.com','minutes':0.04,'messages':4}"), 0);
    json_t *report = row(bench, 0);
    assert_string_equal(text(report, "domain"), "example.com");
    assert_string_equal(text(report, "ended"), "time");
    assert_string_equal(text(report, "recipient"), "drill@example.com");
    assert_true(number(report, "injected") >= 3); /* looked at once a second */
    assert_int_equal(number(report, "held"), number(report, "injected"));
    assert_int_equal(number(report, "delivered"), number(report, "injected"));
    assert_int_equal(number(report, "out_of_order"), 0);
    assert_int_equal(number(report, "doubled"), 0);
    assert_true(number(report, "first_ms") >= 0);
    assert_true(number(report, "drained_ms") >= number(report, "first_ms"));
    assert_true(bench->progress >= 2);
    assert_false(alerted(bench));
    assert_string_equal(text(lane(bench), "state"), "idle");
}

static void without_a_recipient_the_postmasters_envelope_is_all(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    bench->routes[0].drill_recipient = SLICE_EMPTY;
    bench->stage = RELAY_AT_RECIPIENT;
    assert_int_equal(
        bench_ask(bench, "drill", "{'domain':'example.com','minutes':0.02,'messages':1}"), 0);
    json_t *report = row(bench, 0);
    assert_string_equal(text(report, "recipient"), "postmaster@example.com");
    assert_true(truth(report, "envelope_only"));
    assert_int_equal(number(report, "injected"), 1);
    assert_int_equal(number(report, "held"), 1);
    assert_int_equal(number(report, "delivered"), 0);
    assert_int_equal(number(report, "asked"), 1);
    assert_int_equal(bench_ask(bench, "trace", "{'what':'postmaster@example.com'}"), 0);
    json_t *last = row(bench, json_array_size(bench->rows) - 1);
    assert_string_equal(text(last, "event"), "discarded");

    bench->verdict = RELAY_REFUSED;
    bench->code = 550;
    assert_int_equal(
        bench_ask(bench, "drill", "{'domain':'example.com','minutes':0.02,'messages':1}"), 0);
    assert_int_equal(number(row(bench, 0), "asked"), 0);
    assert_int_equal(number(row(bench, 0), "refused"), 1);
    assert_int_equal(bench_ask(bench, "status", "{}"), 0);
    assert_int_equal(number(row(bench, 0), "dead_letters"), 0);
}

static void where_no_name_is_known_nothing_is_sent(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    struct domain_pattern pattern = bench->routes[0].domains[0];
    pattern.wild = true;
    bench->routes[0].domains = &pattern;
    bench->routes[0].drill_recipient = SLICE_EMPTY;
    assert_int_equal(bench_ask(bench, "drill", "{'domain':'example.com','minutes':0.001}"), 0);
    json_t *report = row(bench, 0);
    assert_int_equal(number(report, "injected"), 0);
    assert_true(json_is_null(json_object_get(report, "recipient")));
    assert_true(json_is_null(json_object_get(report, "first_ms")));
    assert_true(json_is_null(json_object_get(report, "rate")));
}

/* An edge that lies: it marks mail, and calls a reply to RCPT the end. */
static void strangers_mail_is_no_rehearsal(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    bench->flags = SPOOL_DRILL | SPOOL_ENVELOPE_ONLY;
    bench->stage = RELAY_AT_RECIPIENT;
    bench->answers = false;
    uint32_t sent = bench_send(bench, 1, false);
    bench_until(bench, &bench->gone, 1);
    assert_int_equal(bench_ask(bench, "queue show", "{'all':true}"), 0);
    assert_string_equal(text(row(bench, 0), "id"), bench_id(bench, sent));
    assert_false(truth(json_object_get(row(bench, 0), "envelope"), "envelope_only"));
    bench_result(bench, RELAY_REFUSED, 450);
    bench_until(bench, &bench->durable, 1);
    assert_int_equal(bench_ask(bench, "queue list", "{'all':true}"), 0);
    assert_int_equal(json_array_size(bench->rows), 1);
}

static void status_shows_one_and_it_can_be_stopped(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    freeze(bench);
    assert_true(alerted(bench));
    assert_string_equal(text(lane(bench), "state"), "held");
    assert_memory_equal(text(lane(bench), "reason"), "drill until ", strlen("drill until "));
    assert_int_equal(bench_ask(bench, "drill", "{'domain':'example.com'}"), CONTROL_FAILED);
    assert_string_equal(bench->error, "another drill runs there");
    (void)bench_send(bench, 1, false);
    bench_until(bench, &bench->stored, 1);
    bench_run_ms(bench, 50);
    assert_int_equal(bench->delivered, 0);
    assert_int_equal(bench_ask(bench, "drill stop", "{'domain':'example.com'}"), 0);
    assert_string_equal(text(row(bench, 0), "domain"), "example.com");
    bench_until(bench, &bench->delivered, 1);
    assert_false(alerted(bench));
    assert_int_equal(bench_ask(bench, "drill stop", "{}"), CONTROL_NOTHING_MATCHED);
    assert_string_equal(bench->error, "no drill runs");
}

static struct service_config changed;
static struct bench *changing;

static void change(void *context)
{
    (void)context;
    assert_int_equal(core_reconfigure(changing->core, &changed, 2), ERROR_NONE);
}

/* Asks for a drill, and takes the configuration `changed` on a while later. */
static int drill_and_change(struct bench *bench, const char *arguments)
{
    struct loop_timer *timer = loop_timer_new(bench->loop, change, NULL);
    changing = bench;
    loop_timer_set(timer, 300);
    int code = bench_ask(bench, "drill", arguments);
    loop_timer_free(timer);
    return code;
}

static void one_goes_on_with_a_new_configuration(void **state)
{
    struct bench *bench = *state;
    static struct route_config routes[2];
    begin(bench);
    memcpy(routes, (const struct route_config[]){bench->routes[1], bench->routes[0]},
           sizeof(routes));
    changed = bench->config;
    changed.relay.routes = routes;
    changed.relay.bounces = 0;
    assert_int_equal(
        drill_and_change(bench, "{'domain':'example.com','minutes':0.04,'messages':1}"), 0);
    assert_string_equal(text(row(bench, 0), "ended"), "time");
    assert_int_equal(number(row(bench, 0), "delivered"), 1);
}

static void one_ends_when_its_domain_goes(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    changed = bench->config;
    changed.relay.routes = bench->routes + 1;
    changed.relay.route_count = 1;
    changed.relay.bounces = 0;
    assert_int_equal(drill_and_change(bench, "{'domain':'example.com','messages':1}"), 0);
    assert_string_equal(text(row(bench, 0), "ended"), "stop");
    assert_false(alerted(bench));
    assert_int_equal(bench_ask(bench, "drill stop", "{}"), CONTROL_NOTHING_MATCHED);
}

static void trouble_with_storage_ends_one(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    freeze(bench);
    bench_run_ms(bench, 50);
    bench->failing = true;
    (void)bench_send(bench, 1, false);
    bench_until(bench, &bench->stored, 1);
    for (int i = 0; i < 300 && alerted(bench); i++) {
        bench_run_ms(bench, 10);
    }
    assert_false(alerted(bench));
    assert_string_equal(text(lane(bench), "state"), "idle");
    assert_int_equal(bench_ask(bench, "drill", "{'domain':'example.com'}"), CONTROL_FAILED);
    assert_string_equal(bench->error, "no drill: no mail can be stored");
    bench->failing = false;
}

/* What a drill holds must not be what keeps new mail out. */
static void a_quota_that_is_reached_ends_one(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    bench_attach_in(bench);
    freeze(bench);
    bench->routes[0].quota_bytes = 1;
    (void)bench_send(bench, 1, false);
    for (int i = 0; i < 500 && alerted(bench); i++) {
        bench_run_ms(bench, 10);
    }
    assert_false(alerted(bench));
    bench_until(bench, &bench->delivered, 1);
}

static void one_survives_a_restart(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    freeze(bench);
    bench_run_ms(bench, 50);
    bench_close(bench);
    bench_open(bench);
    bench_attach_out(bench, true, true);
    for (int i = 0; i < 500 && !alerted(bench); i++) {
        bench_run_ms(bench, 10);
    }
    assert_true(alerted(bench));
    assert_string_equal(text(lane(bench), "state"), "held");
    assert_int_equal(bench_ask(bench, "drill stop", "{}"), 0);
    bench_run_ms(bench, 50);
    bench_close(bench);
    bench_open(bench);
    bench_attach_out(bench, true, true);
    bench_run_ms(bench, 100);
    assert_false(alerted(bench));
}

static void its_recipient_must_be_in_the_domain(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    bench->routes[0].drill_recipient = SLICE_LITERAL("drill@elsewhere.example");
    assert_int_equal(bench_ask(bench, "drill", "{'domain':'example.com'}"), CONTROL_FAILED);
    assert_string_equal(bench->error, "no drill: drill-recipient is not in that domain");
}

static void refusals_say_why(void **state)
{
    struct bench *bench = *state;
    fill(bench, 1);
    for (int i = 0; i < 300 && strcmp(text(lane(bench), "state"), "stopped") != 0; i++) {
        bench_run_ms(bench, 10);
    }
    assert_int_equal(bench_ask(bench, "drill", "{'domain':'example.com'}"), CONTROL_FAILED);
    assert_string_equal(bench->error, "no drill: all servers of the domain are down");
    assert_int_equal(bench_ask(bench, "drill", "{'domain':'elsewhere.example'}"),
                     CONTROL_NOTHING_MATCHED);
    assert_string_equal(bench->error, "no such domain");
    assert_int_equal(bench_ask(bench, "drill stop", "{'domain':'elsewhere.example'}"),
                     CONTROL_NOTHING_MATCHED);
    static const char *const wrong[] = {
        "{'domain':'example.com','minutes':0}",      "{'domain':'example.com','minutes':'a'}",
        "{'domain':'example.com','minutes':241}",    "{'domain':'example.com','messages':-1}",
        "{'domain':'example.com','messages':10001}", "{'domain':'example.com','messages':1.5}",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(bench_ask(bench, "drill", wrong[i]), CONTROL_USAGE);
    }
}

#define MEMORY_TEST(name)                                                                          \
    cmocka_unit_test_setup_teardown(name, bench_set_up_memory, bench_tear_down)
#define DISK_TEST(name) cmocka_unit_test_setup_teardown(name, bench_set_up_disk, bench_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MEMORY_TEST(messages_are_sent_held_and_told),
        DISK_TEST(messages_are_sent_held_and_told),
        MEMORY_TEST(without_a_recipient_the_postmasters_envelope_is_all),
        MEMORY_TEST(where_no_name_is_known_nothing_is_sent),
        MEMORY_TEST(strangers_mail_is_no_rehearsal),
        MEMORY_TEST(status_shows_one_and_it_can_be_stopped),
        MEMORY_TEST(one_goes_on_with_a_new_configuration),
        MEMORY_TEST(one_ends_when_its_domain_goes),
        DISK_TEST(trouble_with_storage_ends_one),
        MEMORY_TEST(a_quota_that_is_reached_ends_one),
        DISK_TEST(one_survives_a_restart),
        MEMORY_TEST(its_recipient_must_be_in_the_domain),
        MEMORY_TEST(refusals_say_why),
    };
    return cmocka_run_group_tests_name("drill", tests, NULL, NULL);
}
