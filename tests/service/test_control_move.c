/* SPDX-License-Identifier: Apache-2.0
 *
 * `queue export` and `queue import` against a whole core: what moves from one to another, and what
 * an import refuses.
 */
#include "control_answer.h"

#include <stdlib.h>

/* Says what was exported to the core that runs now. */
static void import_rows(struct bench *bench, json_t *rows)
{
    size_t i;
    json_t *object;
    json_array_foreach(rows, i, object)
    {
        char *head = NULL;
        if (json_object_get(object, "envelope") != NULL) {
            json_t *record = json_pack("{sO}", "record", object);
            head = json_dumps(record, 0);
            json_decref(record);
        } else {
            json_t *piece = json_pack("{sOsO}", "content", json_object_get(object, "content"),
                                      "last", json_object_get(object, "last"));
            head = json_dumps(piece, 0);
            json_decref(piece);
        }
        assert_int_equal(bench_ask(bench, "queue import", head), 0);
        free(head);
    }
}

static void wait_for_dispatch(struct bench *bench)
{
    for (int i = 0; i < 500 && !bench->core->dispatching; i++) {
        bench_run_ms(bench, 2);
    }
    assert_true(bench->core->dispatching);
}

/* Another machine: nothing is stored there. */
static void begin_anew(struct bench *bench)
{
    bench_close(bench);
    spool_memory_store_free(bench->store);
    bench->store = spool_memory_store_new();
    bench_open(bench);
    bench_attach_out(bench, true, true);
    wait_for_dispatch(bench);
}

static void export_and_import_move_a_queue(void **state)
{
    struct bench *bench = *state;
    fill(bench, 3);
    assert_int_equal(ask_about(bench, "queue discard", "{'ids':['%s/0']}", 1), 0);
    assert_int_equal(ask_about(bench, "queue hold", "{'ids':['%s'],'reason':'stay'}", 2), 0);
    assert_int_equal(ask_about(bench, "queue redirect", "{'ids':['%s'],'to':'m2'}", 0), 0);
    assert_int_equal(bench_ask(bench, "queue export", "{'all':true}"), 0);
    json_t *exported = json_deep_copy(bench->rows);
    assert_int_equal(json_array_size(exported), 6);
    json_t *recipients = json_object_get(json_array_get(exported, 2), "recipients");
    assert_int_equal(json_array_size(recipients), 2);
    assert_string_equal(text(json_array_get(recipients, 0), "fate"), "discarded");

    import_rows(bench, exported); /* onto itself: nothing changes */
    assert_string_equal(text(row(bench, 0), "result"), "exists");
    begin_anew(bench);
    import_rows(bench, exported);
    assert_string_equal(text(row(bench, 0), "result"), "imported");
    for (int restart = 0; restart < 2; restart++) {
        assert_int_equal(bench_ask(bench, "queue show", "{'all':true}"), 0);
        assert_int_equal(json_array_size(bench->rows), 3);
        assert_string_equal(text(row(bench, 0), "id"), bench_id(bench, 0));
        assert_string_equal(text(row(bench, 0), "server"), "m2");
        json_t *deliveries = json_object_get(row(bench, 1), "deliveries");
        assert_string_equal(text(json_array_get(deliveries, 0), "state"), "finished");
        assert_string_equal(text(json_array_get(deliveries, 0), "fate"), "discarded");
        assert_string_equal(text(json_array_get(deliveries, 1), "state"), "waiting");
        assert_string_equal(text(row(bench, 2), "state"), "held");
        assert_string_equal(text(row(bench, 2), "reason"), "stay");
        assert_string_equal(text(json_object_get(row(bench, 2), "envelope"), "sender"),
                            "ann@sender.example");
        assert_true(truth(json_object_get(row(bench, 2), "envelope"), "sender_verified"));
        bench_close(bench);
        bench_open(bench);
        bench_attach_out(bench, true, true);
        bench_run_ms(bench, 50);
    }
    import_rows(bench, exported);
    assert_string_equal(text(row(bench, 0), "result"), "exists");
    assert_int_equal(bench_ask(bench, "queue export", "{'all':true}"), 0);
    json_t *content = json_array_get(bench->rows, 1);
    assert_string_equal(text(content, "content"), text(json_array_get(exported, 1), "content"));
    json_decref(exported);
}

/* What must not reach a mailbox here must not reach one there. */
static void a_drills_envelope_stays_one(void **state)
{
    struct bench *bench = *state;
    fill(bench, 0);
    assert_int_equal(
        bench_ask(bench, "queue import",
                  "{'record':{'format':1,'id':'01h00000000000000000000001','received':1,'bytes':5,"
                  "'header_bytes':0,'envelope':{'sender':'','envelope_only':true},"
                  "'origin':{'client':'127.0.0.1'},'recipients':[{'address':'a@example.com'}]},"
                  "'content':'aGVsbG8=','last':true}"),
        0);
    assert_int_equal(bench_ask(bench, "queue export", "{'all':true}"), 0);
    json_t *exported = json_deep_copy(bench->rows);
    assert_true(truth(json_object_get(json_array_get(exported, 0), "envelope"), "envelope_only"));
    begin_anew(bench);
    import_rows(bench, exported);
    assert_int_equal(bench_ask(bench, "queue show", "{'all':true}"), 0);
    assert_true(truth(json_object_get(row(bench, 0), "envelope"), "envelope_only"));
    json_decref(exported);
}

/* The one message that core has becomes a dead letter: its server refuses it for good. */
static void make_dead_letter(struct bench *bench)
{
    bench->verdict = RELAY_REFUSED;
    bench->code = 554;
    bench_attach_out(bench, true, true);
    bench_send(bench, 1, false);
    bench_until(bench, &bench->durable, 1);
    for (int i = 0; i < 300; i++) {
        if (bench_ask(bench, "queue list", "{'dead':true}") == 0) {
            return;
        }
        bench_run_ms(bench, 10);
    }
    fail_msg("no dead letter");
}

static size_t exported_messages(struct bench *bench, const char *arguments)
{
    int code = bench_ask(bench, "queue export", arguments);
    assert_int_equal(code, json_array_size(bench->rows) == 0 ? CONTROL_NOTHING_MATCHED : 0);
    return json_array_size(bench->rows) / 2; /* head and content */
}

static void an_export_of_everything_takes_dead_letters_along(void **state)
{
    struct bench *bench = *state;
    make_dead_letter(bench);
    assert_int_equal(bench_ask(bench, "server down", "{'name':'m1'}"), 0);
    bench_send(bench, 1, false);
    bench_until(bench, &bench->stored, 2);
    assert_int_equal(exported_messages(bench, "{'domain':'example.com'}"), 1);
    assert_int_equal(exported_messages(bench, "{'domain':'example.com','all':true}"), 2);
    assert_int_equal(exported_messages(bench, "{'dead':true}"), 1);
    assert_int_equal(exported_messages(bench, "{'dead':true,'all':true}"), 1);
    assert_int_equal(exported_messages(bench, "{}"), 2);
    assert_int_equal(exported_messages(bench, "{'all':true}"), 2);
    json_t *exported = json_deep_copy(bench->rows);
    assert_int_equal(bench_ask(bench, "queue list", "{'all':true}"), 0);
    assert_int_equal(json_array_size(bench->rows), 1);

    bench->connects = false;
    begin_anew(bench);
    import_rows(bench, exported);
    json_decref(exported);
    for (int restart = 0; restart < 2; restart++) {
        assert_int_equal(bench_ask(bench, "queue list", "{'dead':true}"), 0);
        assert_int_equal(json_array_size(bench->rows), 1);
        assert_string_equal(text(row(bench, 0), "id"), bench_id(bench, 0));
        assert_non_null(strstr(text(row(bench, 0), "reason"), "554"));
        bench_close(bench);
        bench_open(bench);
        bench_attach_out(bench, true, true);
        wait_for_dispatch(bench);
    }
}

/* What is told of the only recipient of an exported message. */
static json_t *recipient(json_t *exported, size_t message)
{
    json_t *head = json_array_get(exported, message * 2);
    return json_array_get(json_object_get(head, "recipients"), 0);
}

/* Exports two messages: deferred by m1, and under way there or already in doubt. */
static json_t *export_troubled(struct bench *bench, bool under_way)
{
    /* The server is up: one that still recovers would be given the deferred one once more when it
     * is believed. */
    bench_attach_out(bench, true, true);
    bench_send_to(bench, 0);
    bench_until(bench, &bench->durable, 1);
    bench->gone = bench->durable = bench->sent_count = 0;
    bench->answers = false;
    bench_send_to(bench, 0);
    bench_until(bench, &bench->gone, 1);
    bench_result(bench, RELAY_REFUSED, 450);
    bench_until(bench, &bench->durable, 1);
    bench_send_to(bench, 1);
    bench_until(bench, &bench->gone, 2);
    if (!under_way) {
        bench_result(bench, RELAY_IN_DOUBT, 0);
        bench_until(bench, &bench->durable, 2);
    }
    assert_int_equal(bench_ask(bench, "queue export", "{'all':true}"), 0);
    assert_int_equal(json_array_size(bench->rows), 4);
    json_t *exported = json_deep_copy(bench->rows);
    if (under_way) { /* so that the end need not wait for it */
        bench_result(bench, RELAY_ACCEPTED, 250);
        bench_until(bench, &bench->durable, 2);
    }
    return exported;
}

static void what_an_export_tells_survives_the_move(void **state)
{
    struct bench *bench = *state;
    json_t *exported = export_troubled(bench, false);
    json_t *deferred = recipient(exported, 0);
    assert_string_equal(text(deferred, "state"), "deferred");
    assert_int_equal(number(deferred, "attempts"), 1);
    assert_true(number(deferred, "next") > core_now(bench->core).wall_ms);
    assert_string_equal(text(deferred, "server"), "m1");
    assert_false(truth(deferred, "in_doubt"));
    json_t *doubt = recipient(exported, 1);
    assert_string_equal(text(doubt, "state"), "in_doubt");
    assert_string_equal(text(doubt, "server"), "m1");
    assert_int_equal(number(doubt, "doubts"), 1);
    assert_true(truth(doubt, "in_doubt"));
    bench->connects = false;
    begin_anew(bench);
    import_rows(bench, exported);
    for (int restart = 0; restart < 2; restart++) {
        assert_int_equal(bench_ask(bench, "queue export", "{}"), 0);
        for (size_t i = 0; i < 2; i++) {
            static const char *const keys[] = {"state",  "attempts", "strikes",  "doubts",
                                               "server", "reason",   "in_doubt", "by_rule"};
            for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
                if (!json_equal(json_object_get(recipient(bench->rows, i), keys[k]),
                                json_object_get(recipient(exported, i), keys[k]))) {
                    fail_msg("message %zu: %s", i, keys[k]);
                }
            }
            int64_t next = number(recipient(bench->rows, i), "next");
            assert_in_range(next - number(recipient(exported, i), "next") + 1000, 0, 2000);
        }
        bench_close(bench);
        bench_open(bench);
        bench_attach_out(bench, true, true);
        wait_for_dispatch(bench);
    }
    json_decref(exported);
}

/* R7: time on operator hold does not count, before and after the move. */
static void time_on_hold_survives_the_move(void **state)
{
    struct bench *bench = *state;
    fill(bench, 2);
    bench->connects = false;
    assert_int_equal(ask_about(bench, "queue hold", "{'ids':['%s']}", 1), 0);
    assert_int_equal(bench_ask(bench, "queue export", "{'all':true}"), 0);
    json_t *exported = json_deep_copy(bench->rows);
    int64_t now = core_now(bench->core).wall_ms;
    assert_in_range(now - number(recipient(exported, 1), "since"), 0, 10000);
    assert_true(json_is_null(json_object_get(recipient(exported, 0), "since")));
    json_object_set_new(recipient(exported, 1), "since", json_integer(now - 3600000));
    for (size_t i = 0; i < 2; i++) {
        json_t *envelope = json_object_get(json_array_get(exported, 2 * i), "envelope");
        assert_int_equal(number(envelope, "uncounted"), 0);
        json_object_set_new(envelope, "uncounted", json_integer(7200));
        json_object_set_new(envelope, "elapsed", json_integer(300));
    }
    begin_anew(bench);
    import_rows(bench, exported);
    json_decref(exported);
    for (int restart = 0; restart < 2; restart++) {
        assert_int_equal(bench_ask(bench, "queue export", "{'all':true}"), 0);
        for (size_t i = 0; i < 2; i++) {
            json_t *envelope = json_object_get(row(bench, 2 * i), "envelope");
            assert_int_equal(number(envelope, "uncounted"), 7200);
            assert_in_range(number(envelope, "elapsed"), 300, 310);
        }
        assert_int_equal(number(recipient(bench->rows, 1), "since") / 1000, (now - 3600000) / 1000);
        bench_close(bench);
        bench_open(bench);
        bench_attach_out(bench, true, true);
        wait_for_dispatch(bench);
    }
    assert_int_equal(ask_about(bench, "queue release", "{'ids':['%s']}", 1), 0);
    assert_int_equal(bench_ask(bench, "queue export", "{'all':true}"), 0);
    json_t *envelope = json_object_get(row(bench, 2), "envelope");
    assert_in_range(number(envelope, "uncounted"), 7200 + 3600, 7200 + 3620);
}

/* R2: m1 may have it. */
static void what_was_under_way_is_in_doubt_after_the_move(void **state)
{
    struct bench *bench = *state;
    json_t *exported = export_troubled(bench, true);
    assert_string_equal(text(recipient(exported, 1), "state"), "in_flight");
    bench->connects = false;
    begin_anew(bench);
    import_rows(bench, exported);
    json_decref(exported);
    assert_int_equal(bench_ask(bench, "queue export", "{}"), 0);
    json_t *doubt = recipient(bench->rows, 1);
    assert_true(truth(doubt, "in_doubt"));
    assert_int_equal(number(doubt, "doubts"), 1);
    assert_string_equal(text(doubt, "server"), "m1");
}

/* R2: three doubts are held, the one that the move makes included. */
static void the_third_doubt_is_held_after_the_move(void **state)
{
    struct bench *bench = *state;
    json_t *exported = export_troubled(bench, true);
    json_object_set_new(recipient(exported, 1), "doubts", json_integer(3));
    bench->connects = false;
    begin_anew(bench);
    import_rows(bench, exported);
    json_decref(exported);
    for (int restart = 0; restart < 2; restart++) {
        assert_int_equal(ask_about(bench, "queue list", "{'ids':['%s']}", 1), 0);
        assert_string_equal(text(row(bench, 0), "state"), "held");
        bench_close(bench);
        bench_open(bench);
        bench_attach_out(bench, true, true);
        wait_for_dispatch(bench);
    }
}

/* A thousand recipients with parameters of a thousand octets do not fit one frame. */
/* A node that did not answer the export may have delivered it, or do so yet. */
static void what_another_node_had_is_held_after_the_move(void **state)
{
    struct bench *bench = *state;
    fill(bench, 2);
    bench->connects = false;
    assert_int_equal(bench_ask(bench, "queue export", "{'all':true}"), 0);
    json_t *exported = json_deep_copy(bench->rows);
    json_object_set_new(recipient(exported, 1), "state", json_string("elsewhere"));
    begin_anew(bench);
    import_rows(bench, exported);
    json_decref(exported);
    for (int restart = 0; restart < 2; restart++) {
        assert_int_equal(ask_about(bench, "queue show", "{'ids':['%s']}", 1), 0);
        json_t *first = json_array_get(json_object_get(row(bench, 0), "deliveries"), 0);
        assert_string_equal(text(first, "state"), "held");
        assert_non_null(strstr(text(first, "reason"), "a node that did not answer"));
        bench_close(bench);
        bench_open(bench);
        bench_attach_out(bench, true, true);
        wait_for_dispatch(bench);
    }
    assert_int_equal(ask_about(bench, "queue release", "{'ids':['%s']}", 1), 0);
}

static void long_recipients_come_in_pieces(void **state)
{
    enum { COUNT = 1100, LONG = 1000 };
    struct bench *bench = *state;
    fill(bench, 0);
    assert_int_equal(bench_ask(bench, "queue import",
                               "{'record':{'format':1,'id':'01h00000000000000000000001',"
                               "'received':1,'bytes':0,'header_bytes':0,"
                               "'envelope':{'sender':'a@b'},'origin':{'client':'192.0.2.1'}}}"),
                     0);
    for (int i = 0; i < COUNT; i++) {
        char arguments[LONG + 200];
        snprintf(arguments, sizeof(arguments),
                 "{'recipients':[{'address':'r%d@example.com','orcpt':'%0*d'}],'last':%s}", i, LONG,
                 i, i == COUNT - 1 ? "true" : "false");
        assert_int_equal(bench_ask(bench, "queue import", arguments), 0);
    }
    assert_int_equal(bench_ask(bench, "queue export", "{}"), 0);
    assert_string_equal(bench->error, "");
    json_t *recipients = json_object_get(row(bench, 0), "recipients");
    assert_int_equal(json_array_size(recipients), COUNT);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(number(json_array_get(recipients, (size_t)i), "n"), i);
    }
}

static void import_refuses_what_is_wrong(void **state)
{
    struct bench *bench = *state;
    fill(bench, 0);
#define RECORD(id, extra)                                                                          \
    "{'record':{'format':1,'id':'" id "','received':1,'bytes':5,'header_bytes':0,"                 \
    "'envelope':{'sender':'a@b'},'origin':{'client':'192.0.2.1'}" extra "}"
#define GOOD "01h00000000000000000000001"
#define TO ",'recipients':[{'address':'a@example.com'}]"
    static const char *const bad[] = {
        "{'content':'aGVsbG8=','last':true}",
        "{'record':3}",
        RECORD("nonsense", TO) "}",
        RECORD("00000000000000000000000000", TO) ",'content':'aGVsbG8=','last':true}",
        RECORD(GOOD, "") ",'content':'aGVsbG8=','last':true}",
        RECORD(GOOD, TO) ",'content':'aGVsbA==','last':true}",
        RECORD(GOOD, TO) ",'content':'aGVsbG8h','last':true}",
        RECORD(GOOD, TO) ",'content':'!','last':true}",
        RECORD(GOOD, ",'recipients':[{'address':'a\\r\\nb'}]") "}",
        RECORD(GOOD, ",'recipients':[{'address':''}]") "}",
        RECORD(GOOD, ",'recipients':[{'address':'a@b','fate':'eaten'}]") "}",
        RECORD(GOOD, ",'recipients':7") "}",
        RECORD(GOOD, ",'recipients':[{'address':'a@b','doubts':-1}]") "}",
        RECORD(GOOD, ",'recipients':[{'address':'a@b','strikes':300}]") "}",
        RECORD(GOOD, ",'recipients':[{'address':'a@b','next':'soon'}]") "}",
        RECORD(GOOD, ",'recipients':[{'address':'a@b','next':253402300800000}]") "}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(bench_ask(bench, "queue import", bad[i]), CONTROL_USAGE);
    }
    assert_int_equal(
        bench_ask(bench, "queue import", RECORD(GOOD, TO) ",'content':'aGVsbG8=','last':true}"), 0);
    assert_int_equal(bench_ask(bench, "queue list", "{}"), 0);
    assert_int_equal(json_array_size(bench->rows), 1);
}

#define MEMORY_TEST(name)                                                                          \
    cmocka_unit_test_setup_teardown(name, bench_set_up_memory, bench_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MEMORY_TEST(export_and_import_move_a_queue),
        MEMORY_TEST(a_drills_envelope_stays_one),
        MEMORY_TEST(an_export_of_everything_takes_dead_letters_along),
        MEMORY_TEST(what_an_export_tells_survives_the_move),
        MEMORY_TEST(time_on_hold_survives_the_move),
        MEMORY_TEST(what_was_under_way_is_in_doubt_after_the_move),
        MEMORY_TEST(the_third_doubt_is_held_after_the_move),
        MEMORY_TEST(what_another_node_had_is_held_after_the_move),
        MEMORY_TEST(long_recipients_come_in_pieces),
        MEMORY_TEST(import_refuses_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
