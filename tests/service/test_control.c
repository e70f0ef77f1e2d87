/* SPDX-License-Identifier: Apache-2.0
 *
 * The operator's requests against a whole core: what they select, change and answer, and what they
 * refuse.
 */
#include "core_bench.h"

#include "base/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static json_t *row(struct bench *bench, size_t index)
{
    json_t *object = json_array_get(bench->rows, index);
    assert_non_null(object);
    return object;
}

static const char *text(json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "(null)";
}

static json_int_t number(json_t *object, const char *key)
{
    assert_true(json_is_integer(json_object_get(object, key)));
    return json_integer_value(json_object_get(object, key));
}

static bool truth(json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* `count` messages wait for a server that is not there. */
static void fill(struct bench *bench, uint32_t count)
{
    bench->connects = false;
    bench_attach_out(bench, true, true);
    for (uint32_t i = 0; i < count; i++) {
        bench_send(bench, 1 + i % 2, i % 3 == 2);
    }
    bench_until(bench, &bench->stored, count);
    for (int i = 0; i < 500 && !bench->core->dispatching; i++) {
        bench_run_ms(bench, 2);
    }
}

static int ask_about(struct bench *bench, const char *command, const char *format, uint32_t which)
{
    char arguments[200];
    snprintf(arguments, sizeof(arguments), format, bench_id(bench, which));
    return bench_ask(bench, command, arguments);
}

static void status_shows_everything(void **state)
{
    struct bench *bench = *state;
    fill(bench, 3);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(bench_ask(bench, "status", "{}"), 0);
        if (strcmp(text(json_array_get(json_object_get(row(bench, 0), "servers"), 0), "state"),
                   "down") == 0) {
            break;
        }
        bench_run_ms(bench, 10);
    }
    json_t *status = row(bench, 0);
    assert_int_equal(json_array_size(bench->rows), 1);
    assert_string_equal(text(status, "hostname"), "mx2.example.net");
    assert_true(truth(status, "accepting"));
    assert_false(truth(status, "loading"));
    json_t *queue = json_object_get(status, "queue");
    assert_int_equal(number(queue, "messages"), 3);
    assert_int_equal(number(queue, "deliveries"), 4);
    assert_int_equal(number(queue, "bytes"), 3 * 25);
    assert_int_equal(number(status, "dead_letters"), 0);
    json_t *servers = json_object_get(status, "servers");
    assert_int_equal(json_array_size(servers), 2);
    assert_string_equal(text(json_array_get(servers, 0), "name"), "m1");
    assert_string_equal(text(json_array_get(servers, 0), "state"), "down");
    json_t *lanes = json_object_get(status, "lanes");
    assert_string_equal(text(json_array_get(lanes, 0), "route"), "domain:example.com");
    assert_string_equal(text(json_array_get(lanes, 0), "state"), "stopped");
    assert_int_equal(number(json_array_get(lanes, 0), "deliveries"), 3);
    assert_true(json_array_size(json_object_get(status, "alerts")) > 0);
    assert_true(number(json_object_get(status, "disk"), "segments") >= 0);
}

static void list_selects(void **state)
{
    struct bench *bench = *state;
    fill(bench, 6);
    assert_int_equal(bench_ask(bench, "queue list", "{}"), 0);
    assert_int_equal(json_array_size(bench->rows), 6);
    assert_string_equal(text(row(bench, 1), "id"), bench_id(bench, 1)); /* acceptance order */
    assert_string_equal(text(row(bench, 0), "sender"), "ann@sender.example");
    assert_string_equal(text(row(bench, 0), "route"), "domain:example.com");
    assert_string_equal(text(row(bench, 0), "state"), "waiting");
    assert_string_equal(text(row(bench, 0), "server"), "m1");
    assert_int_equal(number(row(bench, 0), "bytes"), 25);
    assert_int_equal(number(row(bench, 1), "recipient_count"), 2);
    assert_true(json_is_null(json_object_get(row(bench, 0), "next")));
    static const struct {
        const char *arguments;
        size_t count;
    } choices[] = {
        {"{'domain':'EXAMPLE.com'}", 4},
        {"{'domain':'example.org'}", 2},
        {"{'server':'m2'}", 2},
        {"{'sender':'ANN@*'}", 6},
        {"{'sender':'bob@*'}", 0},
        {"{'sender':'<>'}", 0},
        {"{'recipient':'r1@*'}", 3},
        {"{'recipient':'*r1@*','domain':'example.org'}", 1},
        {"{'older':3600}", 0},
        {"{'older':0}", 6},
        {"{'dead':true}", 0},
        {"{'ids':['00000000000000000000000000','nonsense']}", 0},
    };
    for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
        int code = bench_ask(bench, "queue list", choices[i].arguments);
        assert_int_equal(json_array_size(bench->rows), choices[i].count);
        assert_int_equal(code, choices[i].count == 0 ? CONTROL_NOTHING_MATCHED : CONTROL_DONE);
    }
    assert_int_equal(ask_about(bench, "queue list", "{'ids':['%s','x']}", 3), 0);
    assert_int_equal(json_array_size(bench->rows), 1);
    assert_int_equal(bench_ask(bench, "queue list", "{'server':'m9'}"), CONTROL_NOTHING_MATCHED);
    assert_string_equal(bench->error, "no such server");
}

static void long_lists_come_in_slices(void **state)
{
    struct bench *bench = *state;
    fill(bench, 3000);
    assert_int_equal(bench_ask(bench, "queue list", "{}"), 0);
    assert_int_equal(json_array_size(bench->rows), 3000);
}

static void many_recipients_come_in_pieces(void **state)
{
    struct bench *bench = *state;
    bench->connects = false;
    bench_attach_out(bench, true, true);
    bench_send(bench, 2500, false);
    bench_until(bench, &bench->stored, 1);
    assert_int_equal(bench->stored_error[0], ERROR_NONE);
    assert_int_equal(bench_ask(bench, "queue show", "{'all':true}"), 0);
    assert_int_equal(json_array_size(bench->rows), 1);
    json_t *deliveries = json_object_get(row(bench, 0), "deliveries");
    assert_int_equal(json_array_size(deliveries), 2500);
    assert_string_equal(text(json_array_get(deliveries, 2499), "recipient"), "r2499@example.com");
    assert_int_equal(json_array_size(json_object_get(row(bench, 0), "recipients")), 100);
    assert_string_equal(text(json_object_get(row(bench, 0), "origin"), "client"), "198.51.100.7");
}

static void hold_and_release(void **state)
{
    struct bench *bench = *state;
    fill(bench, 2);
    assert_int_equal(bench_ask(bench, "queue hold", "{}"), CONTROL_USAGE);
    assert_int_equal(ask_about(bench, "queue hold", "{'ids':['%s/1'],'reason':'wait'}", 1), 0);
    assert_int_equal(json_array_size(bench->rows), 1);
    assert_true(truth(row(bench, 0), "done"));
    assert_string_equal(text(row(bench, 0), "recipient"), "r1@example.com");
    assert_int_equal(ask_about(bench, "queue release", "{'ids':['%s/0']}", 1),
                     CONTROL_NOTHING_MATCHED);
    assert_string_equal(text(row(bench, 0), "error"), "neither held nor dead");
    /* Held over a restart, and not delivered when the server is there. */
    bench_close(bench);
    bench_open(bench);
    bench->connects = true;
    bench_attach_out(bench, true, true);
    bench_until(bench, &bench->durable, 2);
    bench_run_ms(bench, 50);
    assert_int_equal(bench_ask(bench, "queue list", "{}"), 0);
    assert_int_equal(json_array_size(bench->rows), 1);
    assert_string_equal(text(row(bench, 0), "state"), "held");
    assert_string_equal(text(row(bench, 0), "reason"), "wait");
    assert_int_equal(bench_ask(bench, "queue release", "{'all':true}"), 0);
    bench_until(bench, &bench->durable, 3);
}

static void redirect_to_an_address(void **state)
{
    struct bench *bench = *state;
    fill(bench, 1);
    assert_int_equal(bench_ask(bench, "queue redirect", "{'all':true}"), CONTROL_USAGE);
    assert_int_equal(bench_ask(bench, "queue redirect", "{'all':true,'to':'nowhere'}"),
                     CONTROL_NOTHING_MATCHED);
    assert_int_equal(bench_ask(bench, "queue redirect", "{'all':true,'to':'bob@example.com'}"), 0);
    bench_close(bench);
    bench_open(bench);
    bench->connects = true;
    bench_attach_out(bench, true, true);
    bench_until(bench, &bench->durable, 1);
    assert_string_equal(bench->redirect, "bob@example.com");
}

static void discard_and_bounce(void **state)
{
    struct bench *bench = *state;
    fill(bench, 3); /* the last one is of a relay client */
    assert_int_equal(ask_about(bench, "queue bounce", "{'ids':['%s']}", 0),
                     CONTROL_NOTHING_MATCHED);
    assert_string_equal(text(row(bench, 0), "error"), "the sender is not verified (use --force)");
    assert_int_equal(ask_about(bench, "queue bounce", "{'ids':['%s'],'force':true}", 0), 0);
    assert_int_equal(ask_about(bench, "queue bounce", "{'ids':['%s']}", 2), 0);
    assert_int_equal(ask_about(bench, "queue discard", "{'ids':['%s']}", 1), 0);
    assert_int_equal(json_array_size(bench->rows), 2);
    bench_run_ms(bench, 50);
    assert_int_equal(bench_ask(bench, "queue list", "{'sender':'<>'}"), 0);
    assert_int_equal(json_array_size(bench->rows), 2); /* two notifications */
    assert_int_equal(bench_ask(bench, "queue list", "{'sender':'ann@*'}"), CONTROL_NOTHING_MATCHED);
    /* All of that is still so after a restart. */
    bench_close(bench);
    bench_open(bench);
    bench_attach_out(bench, true, true);
    bench_run_ms(bench, 50);
    assert_int_equal(bench_ask(bench, "queue list", "{}"), 0);
    assert_int_equal(json_array_size(bench->rows), 2);
}

static void servers_by_hand(void **state)
{
    struct bench *bench = *state;
    fill(bench, 1);
    assert_int_equal(bench_ask(bench, "server list", "{}"), 0);
    assert_int_equal(json_array_size(bench->rows), 2);
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(row(bench, 0), "addresses"), 0)),
        "192.0.2.1:25");
    assert_int_equal(number(row(bench, 0), "deliveries"), 1);
    assert_int_equal(bench_ask(bench, "server down", "{}"), CONTROL_USAGE);
    assert_int_equal(bench_ask(bench, "server down", "{'name':'m9'}"), CONTROL_NOTHING_MATCHED);
    assert_int_equal(bench_ask(bench, "server down", "{'name':'m1'}"), 0);
    assert_string_equal(text(row(bench, 0), "state"), "disabled");
    bench_close(bench);
    bench->connects = true;
    bench_open(bench);
    bench_attach_out(bench, true, true);
    bench_run_ms(bench, 200);
    assert_int_equal(bench->delivered, 0);
    assert_int_equal(bench_ask(bench, "server up", "{'name':'m1'}"), 0);
    bench_until(bench, &bench->durable, 1);
    assert_int_equal(bench_ask(bench, "server probe", "{}"), 0);
    assert_int_equal(json_array_size(bench->rows), 2);
}

static void trace_tells_the_story(void **state)
{
    struct bench *bench = *state;
    bench_attach_out(bench, true, true);
    bench_send(bench, 2, false);
    bench_until(bench, &bench->durable, 1);
    char id[100];
    snprintf(id, sizeof(id), "{'what':'%s'}", bench_id(bench, 0));
    const char *const ways[] = {id, "{'what':'R1@example.com'}", "{'what':'ann@sender.example'}",
                                "{'what':'<one@sender.example>'}"};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(bench_ask(bench, "trace", ways[i]), 0);
        assert_true(json_array_size(bench->rows) >= 5);
        assert_string_equal(text(row(bench, 0), "event"), "accepted");
        assert_string_equal(text(row(bench, 0), "recipient"), "r0@example.com, r1@example.com");
        assert_string_equal(text(row(bench, 0), "client"), "198.51.100.7");
        size_t last = json_array_size(bench->rows) - 1;
        assert_string_equal(text(row(bench, last), "event"), "delivered");
        assert_string_equal(text(row(bench, last), "server"), "m1");
        assert_string_equal(text(row(bench, last), "reply"), "250 2.0.0 so it is");
    }
    snprintf(id, sizeof(id), "{'what':'%s/1'}", bench_id(bench, 0));
    assert_int_equal(bench_ask(bench, "trace", id), 0);
    for (size_t i = 1; i < json_array_size(bench->rows); i++) {
        assert_string_equal(text(row(bench, i), "recipient"), "r1@example.com");
    }
    bench_close(bench);
    bench_open(bench);
    assert_int_equal(bench_ask(bench, "trace", "{'what':'r0@example.com'}"), 0);
    assert_int_equal(bench_ask(bench, "trace", "{'what':'x@example.com'}"),
                     CONTROL_NOTHING_MATCHED);
    assert_int_equal(bench_ask(bench, "trace", "{}"), CONTROL_USAGE);
}

/* Moves all that was exported into the same, emptied bench. */
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
    bench_close(bench);
    spool_memory_store_free(bench->store);
    bench->store = spool_memory_store_new();
    bench_open(bench);
    bench_attach_out(bench, true, true);
    for (int i = 0; i < 500 && !bench->core->dispatching; i++) {
        bench_run_ms(bench, 2);
    }
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
        RECORD(GOOD, "") ",'content':'aGVsbG8=','last':true}",
        RECORD(GOOD, TO) ",'content':'aGVsbA==','last':true}",
        RECORD(GOOD, TO) ",'content':'aGVsbG8h','last':true}",
        RECORD(GOOD, TO) ",'content':'!','last':true}",
        RECORD(GOOD, ",'recipients':[{'address':'a\\r\\nb'}]") "}",
        RECORD(GOOD, ",'recipients':[{'address':''}]") "}",
        RECORD(GOOD, ",'recipients':[{'address':'a@b','fate':'eaten'}]") "}",
        RECORD(GOOD, ",'recipients':7") "}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(bench_ask(bench, "queue import", bad[i]), CONTROL_USAGE);
    }
    assert_int_equal(
        bench_ask(bench, "queue import", RECORD(GOOD, TO) ",'content':'aGVsbG8=','last':true}"), 0);
    assert_int_equal(bench_ask(bench, "queue list", "{}"), 0);
    assert_int_equal(json_array_size(bench->rows), 1);
}

static void strangers_may_only_look(void **state)
{
    struct bench *bench = *state;
    fill(bench, 1);
    assert_int_equal(bench_ask(bench, "no such thing", "{}"), CONTROL_USAGE);
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    core_add_control(bench->core, pair[1], false);
    int privileged = bench->control;
    bench->control = pair[0];
    assert_int_equal(bench_ask(bench, "queue list", "{}"), 0);
    static const char *const forbidden[] = {"queue retry",  "queue hold",    "queue discard",
                                            "queue export", "queue import",  "server down",
                                            "server probe", "queue redirect"};
    for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
        assert_int_equal(bench_ask(bench, forbidden[i], "{'all':true,'name':'m1','to':'m2'}"),
                         CONTROL_USAGE);
        assert_string_equal(bench->error, "permission denied");
    }
    close(bench->control);
    bench->control = privileged;
    assert_int_equal(bench_ask(bench, "status", "{}"), 0);
}

static void a_broken_frame_ends_the_connection_only(void **state)
{
    struct bench *bench = *state;
    fill(bench, 1);
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    core_add_control(bench->core, pair[1], true);
    assert_int_equal(write(pair[0], "\xff\xff\xff\xff", 4), 4);
    bench_run_ms(bench, 20);
    char byte;
    assert_int_equal(read(pair[0], &byte, 1), 0);
    close(pair[0]);
    assert_int_equal(bench_ask(bench, "status", "{}"), 0);
}

/* The answer to a change says what is on stable storage. */
static void a_change_that_cannot_be_stored_says_so(void **state)
{
    struct bench *bench = *state;
    fill(bench, 1);
    bench->failing = true;
    assert_int_equal(bench_ask(bench, "queue hold", "{'all':true}"), CONTROL_NOTHING_MATCHED);
    assert_int_equal(json_array_size(bench->rows), 0);
    assert_non_null(strstr(bench->error, "journal"));
    bench->failing = false;
    for (int i = 0; i < 500 && !list_is_empty(&bench->core->unwritten); i++) {
        bench_run_ms(bench, 10);
    }
    bench_run_ms(bench, 100);
    bench_close(bench);
    bench_open(bench);
    bench_attach_out(bench, true, true);
    bench_run_ms(bench, 50);
    assert_int_equal(bench_ask(bench, "queue list", "{}"), 0);
    assert_string_equal(text(row(bench, 0), "state"), "held");
}

#define MEMORY_TEST(name)                                                                          \
    cmocka_unit_test_setup_teardown(name, bench_set_up_memory, bench_tear_down)
#define DISK_TEST(name) cmocka_unit_test_setup_teardown(name, bench_set_up_disk, bench_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MEMORY_TEST(status_shows_everything),
        MEMORY_TEST(list_selects),
        DISK_TEST(list_selects),
        DISK_TEST(long_lists_come_in_slices),
        DISK_TEST(many_recipients_come_in_pieces),
        MEMORY_TEST(hold_and_release),
        DISK_TEST(hold_and_release),
        MEMORY_TEST(redirect_to_an_address),
        MEMORY_TEST(discard_and_bounce),
        MEMORY_TEST(servers_by_hand),
        MEMORY_TEST(trace_tells_the_story),
        MEMORY_TEST(export_and_import_move_a_queue),
        MEMORY_TEST(import_refuses_what_is_wrong),
        MEMORY_TEST(strangers_may_only_look),
        MEMORY_TEST(a_broken_frame_ends_the_connection_only),
        DISK_TEST(a_change_that_cannot_be_stored_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
