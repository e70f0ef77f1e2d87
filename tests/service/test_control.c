/* SPDX-License-Identifier: Apache-2.0
 *
 * The operator's requests against a whole core: what they select, change and answer, and what they
 * refuse.
 */
#include "control_answer.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

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
    assert_in_range(number(json_array_get(lanes, 0), "oldest_seconds"), 0, 60);
    assert_string_equal(text(json_array_get(lanes, 0), "reason"), "m1 down: connection refused");
    assert_int_equal(number(json_array_get(lanes, 0), "since"),
                     number(json_array_get(servers, 0), "since"));
    assert_int_equal(bench_ask(bench, "server down", "{'all':true}"), 0);
    assert_int_equal(bench_ask(bench, "status", "{}"), 0);
    lanes = json_object_get(row(bench, 0), "lanes");
    assert_string_equal(text(json_array_get(lanes, 0), "reason"), "m1 disabled");
    status = row(bench, 0);
    assert_true(json_array_size(json_object_get(status, "alerts")) > 0);
    assert_true(number(json_object_get(status, "disk"), "segments") >= 0);
}

/* Thousands of servers and domains, with names of 200 octets: more than a frame holds of each. */
static void status_is_not_bounded_by_a_frame(void **state)
{
    enum { MANY = 6000, NAME = 200 };
    static struct server_config servers[MANY];
    static struct route_config routes[MANY];
    static struct domain_pattern domains[MANY];
    static uint32_t chains[MANY];
    static char names[MANY][NAME + 1];
    struct bench *bench = *state;
    for (uint32_t i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "%0*u", NAME, i);
        servers[i] = bench->servers[0];
        servers[i].name = slice_from_text(names[i]);
        chains[i] = i;
        domains[i] = (struct domain_pattern){slice_from_text(names[i]), false};
        routes[i] = bench->routes[0];
        routes[i].name = slice_from_text(names[i]);
        routes[i].domains = &domains[i];
        routes[i].chain = &chains[i];
    }
    bench_close(bench);
    bench->config.relay.servers = servers;
    bench->config.relay.server_count = MANY;
    bench->config.relay.routes = routes;
    bench->config.relay.route_count = MANY;
    bench->config.relay.bounces = NO_INDEX;
    bench_open(bench);
    assert_int_equal(bench_ask(bench, "status", "{}"), 0);
    assert_string_equal(bench->error, "");
    assert_int_equal(json_array_size(bench->rows), 1);
    json_t *told = json_object_get(row(bench, 0), "servers");
    json_t *lanes = json_object_get(row(bench, 0), "lanes");
    assert_int_equal(json_array_size(told), MANY);
    assert_int_equal(json_array_size(lanes), MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_string_equal(text(json_array_get(told, i), "name"), names[i]);
        assert_string_equal(text(json_array_get(lanes, i), "route") + strlen("domain:"), names[i]);
    }
}

/* What cannot be read is in the queue all the same, and can be acted on. */
static void a_message_without_an_envelope_can_be_seen_and_discarded(void **state)
{
    struct bench *bench = *state;
    fill(bench, 2);
    bench->unreadable = true;
    assert_int_equal(bench_ask(bench, "queue list", "{}"), 0);
    assert_int_equal(json_array_size(bench->rows), 2);
    assert_int_equal(ask_about(bench, "queue list", "{'ids':['%s']}", 1), 0);
    assert_string_equal(text(row(bench, 0), "id"), bench_id(bench, 1));
    assert_true(json_is_null(json_object_get(row(bench, 0), "sender")));
    assert_true(json_is_null(json_object_get(row(bench, 0), "age")));
    assert_int_equal(json_array_size(json_object_get(row(bench, 0), "recipients")), 0);
    assert_int_equal(number(row(bench, 0), "recipient_count"), 2);
    assert_string_equal(text(row(bench, 0), "route"), "domain:example.com");
    assert_int_equal(bench_ask(bench, "queue list", "{'sender':'*'}"), CONTROL_NOTHING_MATCHED);
    assert_int_equal(bench_ask(bench, "queue list", "{'recipient':'*'}"), CONTROL_NOTHING_MATCHED);
    assert_int_equal(bench_ask(bench, "queue list", "{'server':'m1'}"), 0);
    assert_int_equal(ask_about(bench, "queue show", "{'ids':['%s']}", 1), 0);
    assert_true(json_is_null(json_object_get(row(bench, 0), "envelope")));
    assert_int_equal(json_array_size(json_object_get(row(bench, 0), "deliveries")), 2);
    assert_int_equal(bench_ask(bench, "queue export", "{'all':true}"), CONTROL_NOTHING_MATCHED);
    assert_string_equal(bench->error, "some messages could not be read");
    assert_int_equal(ask_about(bench, "queue hold", "{'ids':['%s/0']}", 1), 0);
    assert_true(json_is_null(json_object_get(row(bench, 0), "recipient")));
    assert_int_equal(ask_about(bench, "queue redirect", "{'ids':['%s'],'to':'m2'}", 1), 0);
    assert_int_equal(ask_about(bench, "queue discard", "{'ids':['%s']}", 1), 0);
    bench->unreadable = false;
    assert_int_equal(bench_ask(bench, "queue list", "{}"), 0);
    assert_int_equal(json_array_size(bench->rows), 1);
    assert_string_equal(text(row(bench, 0), "sender"), "ann@sender.example");
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
        {"{'older':9223372036854775807}", 0},
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

static void what_was_not_named_is_passed_over(void **state)
{
    struct bench *bench = *state;
    fill(bench, 2);
    assert_int_equal(ask_about(bench, "queue hold", "{'ids':['%s/1']}", 1), 0);
    assert_int_equal(bench_ask(bench, "queue hold", "{'domain':'example.com'}"), 0);
    size_t others = json_array_size(bench->rows);
    assert_int_equal(ask_about(bench, "queue release", "{'ids':['%s/1']}", 1), 0);
    assert_int_equal(bench_ask(bench, "queue release", "{'all':true}"), 0);
    assert_int_equal(json_array_size(bench->rows), others - 1);
    assert_int_equal(bench_ask(bench, "queue release", "{'all':true}"), CONTROL_NOTHING_MATCHED);
    assert_int_equal(json_array_size(bench->rows), 0);
    assert_int_equal(bench_ask(bench, "queue redirect", "{'all':true,'to':'nope'}"), CONTROL_USAGE);
    assert_int_equal(json_array_size(bench->rows), 0);
}

static void long_work_shows_progress(void **state)
{
    static const char *const commands[] = {"queue export", "queue hold", "queue release",
                                           "queue retry", "queue discard"};
    struct bench *bench = *state;
    fill(bench, 450);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        assert_int_equal(bench_ask(bench, commands[i], "{'all':true}"), 0);
        assert_true(json_array_size(bench->rows) >= 450);
        assert_in_range(bench->progress, 1, 4);
        assert_in_range(bench->progress_done, 100, 450);
        assert_true(bench->progress_all >= bench->progress_done);
        /* What is discarded is gone at once, and with it what is counted. */
        assert_true(bench->progress_all == 450 || i == 4);
    }
}

static void redirect_to_an_address(void **state)
{
    struct bench *bench = *state;
    fill(bench, 1);
    assert_int_equal(bench_ask(bench, "queue redirect", "{'all':true}"), CONTROL_USAGE);
    assert_int_equal(bench_ask(bench, "queue redirect", "{'all':true,'to':'nowhere'}"),
                     CONTROL_USAGE);
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

/* Takes in message 01h...N from `sender`, as a relay client's. */
static void take_in(struct bench *bench, unsigned n, const char *sender, const char *more)
{
    char arguments[600];
    snprintf(arguments, sizeof(arguments),
             "{'record':{'format':1,'id':'01h%023u','received':1,'bytes':5,'header_bytes':0,"
             "'envelope':{'sender':'%s','sender_verified':true},'origin':{'client':'127.0.0.1'},"
             "'recipients':[{'address':'a@example.com'%s}]},'content':'aGVsbG8=','last':true}",
             n, sender, more);
    assert_int_equal(bench_ask(bench, "queue import", arguments), 0);
}

static const char *bounce_error(struct bench *bench, unsigned n, bool force)
{
    char arguments[100];
    snprintf(arguments, sizeof(arguments), "{'ids':['01h%023u'],'force':%s}", n,
             force ? "true" : "false");
    (void)bench_ask(bench, "queue bounce", arguments);
    return text(row(bench, 0), "error");
}

static void a_bounce_that_is_refused_says_why(void **state)
{
    struct bench *bench = *state;
    fill(bench, 0);
    take_in(bench, 1, "", "");
    take_in(bench, 2, "ann@sender.example", ",'notify':['never']");
    take_in(bench, 3, "ann@sender.example", "");
    for (int force = 0; force < 2; force++) {
        assert_string_equal(bounce_error(bench, 1, force), "there is no sender who could be told");
    }
    assert_string_equal(bounce_error(bench, 2, false),
                        "the sender wants no failure notice (use --force)");
    assert_string_equal(bounce_error(bench, 2, true), "(null)");
    bench->config.relay.bounces = NO_INDEX;
    for (int force = 0; force < 2; force++) {
        assert_string_equal(bounce_error(bench, 3, force),
                            "no relay carries bounces (bounces = RELAY in the configuration)");
    }
    bench->config.relay.bounces = 1;
    assert_string_equal(bounce_error(bench, 3, false), "(null)");
}

/* What was said by hand before, and in a cluster what time it is, may not have been read yet. */
static void no_hand_is_laid_on_a_server_before_the_start(void **state)
{
    struct bench *bench = *state;
    fill(bench, 1);
    assert_int_equal(bench_ask(bench, "server down", "{'name':'m1'}"), 0);
    bench_close(bench);
    bench_open(bench);
    assert_int_equal(bench_ask(bench, "server up", "{}"), CONTROL_USAGE);
    assert_int_equal(bench_ask(bench, "server up", "{'name':'m1'}"), CONTROL_NOTHING_MATCHED);
    assert_int_equal(bench_ask(bench, "server down", "{'all':true}"), CONTROL_NOTHING_MATCHED);
    bench_attach_out(bench, true, true);
    bench_run_ms(bench, 200);
    assert_int_equal(bench_ask(bench, "server up", "{'name':'m1'}"), 0);
    assert_string_not_equal(text(row(bench, 0), "state"), "disabled");
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

/* The row of an edge about a subject; NULL: none. */
static json_t *edge_row(struct bench *bench, const char *kind, const char *edge)
{
    size_t i;
    json_t *object;
    json_array_foreach(bench->rows, i, object)
    {
        if (strcmp(text(object, "kind"), kind) == 0 && strcmp(text(object, "edge"), edge) == 0) {
            return object;
        }
    }
    return NULL;
}

/* The number of the latest; they come before those that stand. */
static json_int_t last_edge(struct bench *bench)
{
    size_t at = 1;
    while (at < json_array_size(bench->rows) &&
           strcmp(text(row(bench, at), "edge"), "stands") != 0) {
        at++;
    }
    return number(row(bench, at - 1), "number");
}

static void news_of_alerts_are_told_once(void **state)
{
    struct bench *bench = *state;
    char ask[200];
    fill(bench, 1);
    for (int i = 0; i < 500 && bench->core->alerts.count < 2; i++) {
        bench_run_ms(bench, 10);
    }
    bench_run_ms(bench, 1100);
    assert_int_equal(bench_ask(bench, "alert news", "{}"), 0);
    json_int_t life = number(row(bench, 0), "life");
    assert_int_equal(number(row(bench, 0), "after"), 0);
    json_t *stands = edge_row(bench, "stopped", "stands");
    json_t *raised = edge_row(bench, "stopped", "raised");
    assert_non_null(stands);
    assert_non_null(raised);
    assert_string_equal(text(raised, "subject"), "domain:example.com");
    assert_int_equal(number(stands, "number"), number(raised, "number"));
    assert_non_null(edge_row(bench, "server", "raised"));
    json_int_t last = last_edge(bench);

    /* Who knows it all hears nothing more, and says up to where he has told people. */
    snprintf(ask, sizeof(ask), "{'life':%lld,'after':%lld,'done':%lld}", (long long)life,
             (long long)last, (long long)last - 1);
    assert_int_equal(bench_ask(bench, "alert news", ask), 0);
    assert_int_equal(json_array_size(bench->rows), 1);
    /* The next one goes on from there. */
    assert_int_equal(bench_ask(bench, "alert news", "{}"), 0);
    assert_int_equal(number(row(bench, 0), "after"), last - 1);
    assert_non_null(edge_row(bench, "stopped", "stands"));
    assert_int_equal(last_edge(bench), last);
    /* Of another life nothing is believed. */
    snprintf(ask, sizeof(ask), "{'life':%lld,'after':99,'done':%lld}", (long long)life + 1,
             (long long)last);
    assert_int_equal(bench_ask(bench, "alert news", ask), 0);
    assert_int_equal(number(row(bench, 0), "after"), last - 1);
}

#define MEMORY_TEST(name)                                                                          \
    cmocka_unit_test_setup_teardown(name, bench_set_up_memory, bench_tear_down)
#define DISK_TEST(name) cmocka_unit_test_setup_teardown(name, bench_set_up_disk, bench_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MEMORY_TEST(status_shows_everything),
        MEMORY_TEST(status_is_not_bounded_by_a_frame),
        MEMORY_TEST(list_selects),
        DISK_TEST(list_selects),
        DISK_TEST(a_message_without_an_envelope_can_be_seen_and_discarded),
        DISK_TEST(long_lists_come_in_slices),
        DISK_TEST(many_recipients_come_in_pieces),
        MEMORY_TEST(hold_and_release),
        MEMORY_TEST(what_was_not_named_is_passed_over),
        DISK_TEST(hold_and_release),
        MEMORY_TEST(long_work_shows_progress),
        MEMORY_TEST(redirect_to_an_address),
        MEMORY_TEST(discard_and_bounce),
        MEMORY_TEST(a_bounce_that_is_refused_says_why),
        MEMORY_TEST(no_hand_is_laid_on_a_server_before_the_start),
        MEMORY_TEST(servers_by_hand),
        MEMORY_TEST(trace_tells_the_story),
        MEMORY_TEST(strangers_may_only_look),
        MEMORY_TEST(news_of_alerts_are_told_once),
        MEMORY_TEST(a_broken_frame_ends_the_connection_only),
        DISK_TEST(a_change_that_cannot_be_stored_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
