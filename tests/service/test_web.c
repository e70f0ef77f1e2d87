/* SPDX-License-Identifier: Apache-2.0
 *
 * web on a real loop and a loopback socket, with a core played by the test.
 */
#include "service/control_frame.h"
#include "service/web.h"
#include "sys/net.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct bench {
    struct loop *loop;
    struct web *web;
    struct service_config config;
    struct listener_config listener;
    struct counter_page *page;
    struct ip_endpoint at;
    struct loop_timer *limit;
    /* the core that the test plays */
    int core;
    struct loop_watch *core_watch;
    struct control_reader reader;
    const char *answer; /* NULL: silence */
    /* the client */
    int client;
    struct loop_watch *client_watch;
    char reply[1 << 16];
    size_t length;
};

static void play_core(void *context, unsigned ready)
{
    (void)ready;
    struct bench *bench = context;
    size_t size, length;
    void *space = control_reader_space(&bench->reader, &size);
    if (net_receive(bench->core, space, size, &length) != ERROR_NONE) {
        loop_watch_set(bench->core_watch, 0);
        return;
    }
    control_reader_filled(&bench->reader, length);
    json_t *request;
    if (control_reader_next(&bench->reader, &request) != ERROR_NONE) {
        return;
    }
    assert_string_equal(json_string_value(json_object_get(request, "command")), "status");
    json_decref(request);
    if (bench->answer == NULL) {
        return;
    }
    struct buffer out;
    buffer_init(&out, 0);
    assert_int_equal(control_put_row(&out, json_loads(bench->answer, 0, NULL)), ERROR_NONE);
    assert_int_equal(
        control_put_more(&out, json_loads("{\"lanes\":[{\"route\":\"orphan\",\"state\":\"orphan\","
                                          "\"deliveries\":3}]}",
                                          0, NULL)),
        ERROR_NONE);
    assert_int_equal(control_put_end(&out, CONTROL_DONE, NULL, false), ERROR_NONE);
    assert_int_equal(write(bench->core, out.data, out.length), out.length);
    buffer_done(&out);
}

static void read_reply(void *context, unsigned ready)
{
    (void)ready;
    struct bench *bench = context;
    ssize_t length = recv(bench->client, bench->reply + bench->length,
                          sizeof(bench->reply) - 1 - bench->length, 0);
    if (length > 0) {
        bench->length += (size_t)length;
        bench->reply[bench->length] = 0;
    } else {
        loop_stop(bench->loop);
    }
}

static void too_late(void *context)
{
    struct bench *bench = context;
    loop_stop(bench->loop);
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    bench->loop = loop_new();
    bench->page = calloc(1, sizeof(*bench->page));
    counter_add(&bench->page->slots[1], COUNTER_MESSAGES_ACCEPTED, 40);
    counter_add(&bench->page->slots[2], COUNTER_MESSAGES_ACCEPTED, 2);
    bench->listener.protocol = LISTENER_HTTP;
    bench->config.hostname = SLICE_LITERAL("mx.<example>");
    bench->config.listeners = &bench->listener;
    bench->config.listener_count = 1;
    struct ip_endpoint any = {.port = 0};
    assert_true(ip_from_text(SLICE_LITERAL("0.0.0.0"), &any.address));
    int listener;
    assert_int_equal(net_listen(&any, 2 * WEB_CONNECTIONS_MAX, &listener), ERROR_NONE);
    assert_int_equal(net_local(listener, &bench->at), ERROR_NONE);
    assert_true(ip_from_text(SLICE_LITERAL("127.0.0.1"), &bench->at.address));
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    bench->core = pair[0];
    control_reader_init(&bench->reader);
    bench->core_watch = loop_watch_new(bench->loop, bench->core, play_core, bench);
    loop_watch_set(bench->core_watch, LOOP_READ);
    bench->web = web_new(bench->loop, &bench->config, &listener, pair[1], bench->page);
    assert_non_null(bench->web);
    bench->limit = loop_timer_new(bench->loop, too_late, bench);
    bench->answer = "{\"accepting\":true,\"accepting_reason\":null,\"loading\":false,"
                    "\"queue\":{\"messages\":5,\"deliveries\":7},\"dead_letters\":1,"
                    "\"servers\":[{\"name\":\"m\\\"1\",\"state\":\"down\",\"used\":9}],"
                    "\"lanes\":[{\"route\":\"domain:a\",\"state\":\"stopped\",\"deliveries\":7,"
                    "\"oldest_seconds\":90}],"
                    "\"disk\":{\"used_bytes\":100},\"alerts\":[]}";
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    web_free(bench->web);
    loop_watch_free(bench->core_watch);
    loop_timer_free(bench->limit);
    close(bench->core);
    control_reader_done(&bench->reader);
    loop_free(bench->loop);
    free(bench->page);
    free(bench);
    return 0;
}

/* Sends a request and collects the reply until the connection ends. */
static const char *ask(struct bench *bench, const char *request)
{
    assert_int_equal(net_connect(&bench->at, NULL, &bench->client), ERROR_NONE);
    bench->length = 0;
    bench->reply[0] = 0;
    bench->client_watch = loop_watch_new(bench->loop, bench->client, read_reply, bench);
    loop_watch_set(bench->client_watch, LOOP_READ);
    assert_int_equal(send(bench->client, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    loop_timer_set(bench->limit, 10000);
    loop_run(bench->loop);
    loop_watch_free(bench->client_watch);
    net_close(bench->client);
    return bench->reply;
}

#define REST " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void gives_metrics(void **state)
{
    const char *reply = ask(*state, "GET /metrics" REST);
    assert_non_null(strstr(reply, "HTTP/1.1 200 OK"));
    assert_non_null(strstr(reply, "# TYPE holdfast_messages_accepted_total counter\n"
                                  "holdfast_messages_accepted_total 42\n"));
    assert_non_null(strstr(reply, "# TYPE holdfast_smtp_sessions_open gauge\n"));
    assert_non_null(strstr(reply, "holdfast_up 1\n"));
    assert_non_null(strstr(reply, "holdfast_accepting 1\n"));
    assert_non_null(strstr(reply, "holdfast_queue_messages 5\n"));
    assert_non_null(strstr(reply, "holdfast_server_state{server=\"m\\\"1\",state=\"down\"} 1\n"));
    assert_non_null(strstr(reply, "holdfast_lane_deliveries{route=\"domain:a\"} 7\n"));
    assert_non_null(strstr(reply, "holdfast_lane_deliveries{route=\"orphan\"} 3\n"));
    assert_non_null(strstr(reply, "holdfast_lane_oldest_seconds{route=\"domain:a\"} 90\n"));
}

static void health_says_why(void **state)
{
    struct bench *bench = *state;
    const char *reply = ask(bench, "GET /health" REST);
    assert_non_null(strstr(reply, "HTTP/1.1 200 OK"));
    assert_non_null(strstr(reply, "{\"status\":\"ok\",\"reason\":null}"));
}

static void health_fails_when_nothing_is_accepted(void **state)
{
    struct bench *bench = *state;
    bench->answer = "{\"accepting\":false,\"accepting_reason\":\"reserve reached\"}";
    const char *reply = ask(bench, "GET /health" REST);
    assert_non_null(strstr(reply, "HTTP/1.1 503"));
    assert_non_null(strstr(reply, "{\"status\":\"failing\",\"reason\":\"reserve reached\"}"));
}

static void answers_without_core(void **state)
{
    struct bench *bench = *state;
    bench->answer = NULL;
    const char *reply = ask(bench, "GET /health" REST);
    assert_non_null(strstr(reply, "HTTP/1.1 503"));
    assert_non_null(strstr(reply, "core does not answer"));
    web_set_control(bench->web, -1);
    reply = ask(bench, "GET /metrics" REST);
    assert_non_null(strstr(reply, "HTTP/1.1 200 OK"));
    assert_non_null(strstr(reply, "holdfast_up 0\n"));
}

static void refuses_what_is_ambiguous_or_unknown(void **state)
{
    struct bench *bench = *state;
    assert_non_null(strstr(ask(bench, "GET /other" REST), "HTTP/1.1 404"));
    assert_non_null(strstr(ask(bench, "GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
                                      "Content-Length: 0\r\n\r\n"),
                           "HTTP/1.1 400"));
    assert_non_null(strstr(ask(bench, "GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
                                      "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                           "HTTP/1.1 400"));
    assert_non_null(strstr(ask(bench, "DELETE /health" REST), "HTTP/1.1 501"));
    const char *page = ask(bench, "GET /" REST);
    assert_non_null(strstr(page, "HTTP/1.1 200 OK"));
    assert_null(strstr(page, "<example>"));
}

static void shows_status_to_this_machine(void **state)
{
    struct bench *bench = *state;
    bench->answer = "{\"now\":90000,\"started\":0,\"version\":\"1\",\"accepting\":false,"
                    "\"accepting_reason\":\"disk \\\"full\\\"\","
                    "\"queue\":{\"messages\":5,\"bytes\":2048,\"oldest_seconds\":7200},"
                    "\"alerts\":[{\"text\":\"<script>alert(1)</script>\",\"since\":30000}],"
                    "\"servers\":[{\"name\":\"m1\",\"state\":\"down\\\"><b\",\"since\":null,"
                    "\"reason\":\"421 <x> & y\"}],"
                    "\"nodes\":[{\"name\":\"n<2\",\"state\":\"down\",\"role\":[\"hub\"]}],"
                    "\"cluster\":{\"name\":\"n1\",\"missing_nodes\":[\"n<2\"],"
                    "\"database\":{\"up\":false,\"since\":60000,\"reason\":\"gone\"},"
                    "\"one_copy\":3,\"queue\":{\"messages\":0}},"
                    "\"lanes\":[{\"route\":\"domain:idle\",\"state\":\"idle\","
                    "\"deliveries\":0}]}";
    const char *page = ask(bench, "GET /" REST);
    assert_non_null(strstr(page, "HTTP/1.1 200 OK"));
    assert_non_null(strstr(page, "Content-Security-Policy: default-src 'none'"));
    assert_non_null(strstr(page, "No mail is accepted: disk &quot;full&quot;"));
    assert_non_null(strstr(page, "&lt;script&gt;alert(1)&lt;/script&gt; <small>for 1m</small>"));
    assert_non_null(strstr(page, "<td class=\"s down&quot;&gt;&lt;b\">"));
    assert_non_null(strstr(page, "<td>421 &lt;x&gt; &amp; y</td>"));
    assert_non_null(strstr(page, "<b>5</b> messages wait, 2.0K, the oldest for 2h00m"));
    assert_non_null(strstr(page, "Not counted, for it is down: n&lt;2</p>"));
    assert_non_null(strstr(page, "The database is away for 30s: gone; 3 messages are in"));
    assert_null(strstr(page, "domain:idle"));
    assert_non_null(strstr(page, "<th>orphan</th>")); /* the lane that came as "more" */
    assert_null(strstr(page, "<script"));
    const char *json = strstr(ask(bench, "GET /api/status" REST), "\r\n\r\n");
    assert_non_null(json);
    json_t *status = json_loads(json + 4, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(status, "nodes")), 1);
    json_decref(status);
    bench->answer = NULL;
    web_set_control(bench->web, -1);
    assert_non_null(strstr(ask(bench, "GET /style.css" REST), "HTTP/1.1 200 OK"));
}

static void page_without_core(void **state)
{
    struct bench *bench = *state;
    web_set_control(bench->web, -1);
    assert_non_null(strstr(ask(bench, "GET /" REST), "core process does not answer"));
    assert_non_null(strstr(ask(bench, "GET /api/status" REST), "HTTP/1.1 503"));
}

/* Connections without a word, at the address that the listener has. */
static void connect_all(struct bench *bench, int *clients, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(net_connect(&bench->at, NULL, &clients[i]), ERROR_NONE);
    }
}

static void close_all(const int *clients, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        net_close(clients[i]);
    }
}

static void bounds_connections_in_all(void **state)
{
    struct bench *bench = *state;
    int silent[WEB_CONNECTIONS_MAX];
    connect_all(bench, silent, WEB_CONNECTIONS_MAX);
    assert_string_equal(ask(bench, "GET /health" REST), "");
    close_all(silent, 1);
    assert_non_null(strstr(ask(bench, "GET /health" REST), "HTTP/1.1 200 OK"));
    assert_non_null(strstr(ask(bench, "GET /health" REST), "HTTP/1.1 200 OK"));
    close_all(silent + 1, WEB_CONNECTIONS_MAX - 1);
}

/* The first address of this machine that is not loopback. */
static bool own_address(struct ip_address *ret_address)
{
    struct ifaddrs *all = NULL;
    bool found = false;
    assert_int_equal(getifaddrs(&all), 0);
    for (struct ifaddrs *at = all; at != NULL && !found; at = at->ifa_next) {
        char text[INET_ADDRSTRLEN];
        if (at->ifa_addr == NULL || at->ifa_addr->sa_family != AF_INET) {
            continue;
        }
        struct sockaddr_in address;
        memcpy(&address, at->ifa_addr, sizeof(address));
        assert_non_null(inet_ntop(AF_INET, &address.sin_addr, text, sizeof(text)));
        found = ip_from_text(slice_from_text(text), ret_address) && !ip_is_loopback(ret_address);
    }
    freeifaddrs(all);
    return found;
}

static void keeps_names_from_others(void **state)
{
    struct bench *bench = *state;
    if (!own_address(&bench->at.address)) {
        print_message("skipped: this machine has no address but loopback\n");
        skip();
    }
    assert_non_null(strstr(ask(bench, "GET /" REST), "HTTP/1.1 403"));
    assert_non_null(strstr(ask(bench, "GET /api/status" REST), "HTTP/1.1 403"));
    assert_non_null(strstr(ask(bench, "GET /health" REST), "HTTP/1.1 200 OK"));
}

static void bounds_connections_of_a_client(void **state)
{
    struct bench *bench = *state;
    int silent[WEB_CONNECTIONS_PER_CLIENT];
    struct ip_endpoint from_loopback = bench->at;
    if (!own_address(&bench->at.address)) {
        print_message("skipped: this machine has no address but loopback\n");
        skip();
    }
    connect_all(bench, silent, WEB_CONNECTIONS_PER_CLIENT);
    assert_string_equal(ask(bench, "GET /health" REST), "");
    struct ip_endpoint from_outside = bench->at;
    bench->at = from_loopback;
    assert_non_null(strstr(ask(bench, "GET /health" REST), "HTTP/1.1 200 OK"));
    bench->at = from_outside;
    close_all(silent, 1);
    assert_non_null(strstr(ask(bench, "GET /health" REST), "HTTP/1.1 200 OK"));
    close_all(silent + 1, WEB_CONNECTIONS_PER_CLIENT - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(gives_metrics, set_up, tear_down),
        cmocka_unit_test_setup_teardown(health_says_why, set_up, tear_down),
        cmocka_unit_test_setup_teardown(health_fails_when_nothing_is_accepted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_without_core, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_what_is_ambiguous_or_unknown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shows_status_to_this_machine, set_up, tear_down),
        cmocka_unit_test_setup_teardown(page_without_core, set_up, tear_down),
        cmocka_unit_test_setup_teardown(keeps_names_from_others, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bounds_connections_in_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bounds_connections_of_a_client, set_up, tear_down),
    };
    (void)signal(SIGPIPE, SIG_IGN); /* as the daemon does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
