/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sys/loop.h"
#include "sys/net.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

struct record {
    struct loop *loop;
    char order[32];
    size_t length;
    struct loop_timer *timer;
    struct loop_later *later;
    struct loop_watch *watch;
    struct loop_wake *wake;
    int fd;
};

static void note(struct record *record, char what)
{
    assert_true(record->length + 1 < sizeof(record->order));
    record->order[record->length++] = what;
}

static void stop_now(void *context)
{
    struct record *record = context;
    note(record, '.');
    loop_stop(record->loop);
}

static void note_a(void *context)
{
    note(context, 'a');
}

static void note_b(void *context)
{
    note(context, 'b');
}

static void timers_run_in_order_of_their_deadlines(void **state)
{
    (void)state;
    struct record record = {.loop = loop_new()};
    struct loop_timer *end = loop_timer_new(record.loop, stop_now, &record);
    struct loop_timer *a = loop_timer_new(record.loop, note_a, &record);
    struct loop_timer *b = loop_timer_new(record.loop, note_b, &record);
    struct loop_timer *never = loop_timer_new(record.loop, note_b, &record);
    loop_timer_set(end, 60);
    loop_timer_set(a, 1);
    loop_timer_set(b, 20);
    loop_timer_set(a, 40); /* moved behind b */
    loop_timer_set(never, 5);
    loop_timer_cancel(never);
    loop_run(record.loop);
    assert_string_equal(record.order, "ba.");
    loop_timer_free(end);
    loop_timer_free(a);
    loop_timer_free(b);
    loop_timer_free(never);
    loop_timer_free(NULL);
    loop_free(record.loop);
}

static void free_own_timer(void *context)
{
    struct record *record = context;
    note(record, 'f');
    loop_timer_free(record->timer);
    record->timer = NULL;
}

static void a_timer_may_free_itself(void **state)
{
    (void)state;
    struct record record = {.loop = loop_new()};
    record.timer = loop_timer_new(record.loop, free_own_timer, &record);
    struct loop_timer *end = loop_timer_new(record.loop, stop_now, &record);
    loop_timer_set(record.timer, 0);
    loop_timer_set(end, 5);
    loop_run(record.loop);
    assert_string_equal(record.order, "f.");
    loop_timer_free(end);
    loop_free(record.loop);
}

static void stopping_before_running_holds(void **state)
{
    (void)state;
    struct loop *loop = loop_new();
    loop_stop(loop);
    loop_run(loop);
    loop_free(loop);
}

static void ask_twice(void *context, unsigned ready)
{
    (void)ready;
    struct record *record = context;
    char byte;
    assert_int_equal(read(record->fd, &byte, 1), 1);
    note(record, 'w');
    loop_later_ask(record->later);
    loop_later_ask(record->later);
}

static void later_runs_once_after_the_handlers_of_a_turn(void **state)
{
    (void)state;
    struct record record = {.loop = loop_new()};
    int pipes[2][2];
    struct loop_watch *watches[2];
    assert_int_equal(pipe(pipes[0]), 0);
    record.fd = pipes[0][0];
    /* Two watches of the same pipe, two bytes: both handlers run in one turn. */
    pipes[1][0] = dup(pipes[0][0]);
    record.later = loop_later_new(record.loop, note_a, &record);
    for (size_t i = 0; i < 2; i++) {
        watches[i] = loop_watch_new(record.loop, pipes[i][0], ask_twice, &record);
        loop_watch_set(watches[i], LOOP_READ);
    }
    struct loop_timer *end = loop_timer_new(record.loop, stop_now, &record);
    loop_timer_set(end, 20);
    assert_int_equal(write(pipes[0][1], "xy", 2), 2);
    loop_run(record.loop);
    assert_string_equal(record.order, "wwa.");
    for (size_t i = 0; i < 2; i++) {
        loop_watch_free(watches[i]);
        close(pipes[i][0]);
    }
    close(pipes[0][1]);
    loop_timer_free(end);
    loop_later_free(record.later);
    loop_later_free(NULL);
    loop_free(record.loop);
}

static void ask_again(void *context)
{
    struct record *record = context;
    note(record, 'l');
    if (record->length < 3) {
        loop_later_ask(record->later);
    } else {
        loop_stop(record->loop);
    }
}

static void a_later_that_asks_again_runs_in_the_next_turn(void **state)
{
    (void)state;
    struct record record = {.loop = loop_new()};
    record.later = loop_later_new(record.loop, ask_again, &record);
    loop_later_ask(record.later);
    loop_run(record.loop);
    assert_string_equal(record.order, "lll");
    loop_later_free(record.later);
    loop_free(record.loop);
}

static void asked_and_freed_never_runs(void **state)
{
    (void)state;
    struct record record = {.loop = loop_new()};
    struct loop_later *gone = loop_later_new(record.loop, note_a, &record);
    struct loop_later *other = loop_later_new(record.loop, stop_now, &record);
    loop_later_ask(gone);
    loop_later_ask(other);
    loop_later_free(gone);
    loop_run(record.loop);
    assert_string_equal(record.order, ".");
    loop_later_free(other);
    loop_free(record.loop);
}

static void write_then_stop(void *context, unsigned ready)
{
    struct record *record = context;
    note(record, ready == LOOP_WRITE ? 'w' : 'r');
    if (ready == LOOP_WRITE) {
        loop_watch_set(record->watch, LOOP_READ);
        assert_int_equal(write(record->fd, "x", 1), 1);
    } else {
        loop_watch_free(record->watch);
        loop_stop(record->loop);
    }
}

static void a_watch_follows_its_interest_and_may_free_itself(void **state)
{
    (void)state;
    struct record record = {.loop = loop_new()};
    struct ip_endpoint at = {.port = 0};
    assert_true(ip_from_text(SLICE_LITERAL("127.0.0.1"), &at.address));
    int listener, client, server;
    assert_int_equal(net_listen(&at, 8, &listener), ERROR_NONE);
    assert_int_equal(net_local(listener, &at), ERROR_NONE);
    assert_int_not_equal(at.port, 0);
    assert_int_equal(net_connect(&at, NULL, &client), ERROR_NONE);
    struct ip_endpoint peer;
    enum error error;
    do {
        error = net_accept(listener, &server, &peer);
    } while (error == ERROR_AGAIN);
    assert_int_equal(error, ERROR_NONE);
    assert_true(ip_is_loopback(&peer.address));
    assert_int_equal(net_connected(client), ERROR_NONE);
    /* The other end sends a byte; ours becomes readable only after it asked to write. */
    record.fd = server;
    size_t sent;
    assert_int_equal(net_send(server, SLICE_LITERAL("y"), &sent), ERROR_NONE);
    record.watch = loop_watch_new(record.loop, client, write_then_stop, &record);
    loop_watch_set(record.watch, LOOP_WRITE);
    loop_run(record.loop);
    assert_string_equal(record.order, "wr");
    char bytes[8];
    size_t length;
    assert_int_equal(net_receive(client, bytes, sizeof(bytes), &length), ERROR_NONE);
    net_close(server);
    do {
        error = net_receive(client, bytes, sizeof(bytes), &length);
    } while (error == ERROR_NONE || error == ERROR_AGAIN);
    assert_int_equal(error, ERROR_CLOSED);
    net_close(client);
    net_close(listener);
    loop_free(record.loop);
}

static void *send_many(void *context)
{
    struct loop_wake *wake = context;
    for (int i = 0; i < 1000; i++) {
        loop_wake_send(wake);
    }
    loop_wake_unref(wake);
    return NULL;
}

static void another_thread_wakes_the_loop(void **state)
{
    (void)state;
    struct record record = {.loop = loop_new()};
    struct loop_wake *wake = loop_wake_new(record.loop, stop_now, &record);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_many, loop_wake_ref(wake)), 0);
    loop_run(record.loop);
    assert_int_equal(record.order[0], '.');
    /* The sender may outlive the receiver. */
    loop_wake_free(wake);
    pthread_join(thread, NULL);
    loop_wake_free(NULL);
    loop_free(record.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_run_in_order_of_their_deadlines),
        cmocka_unit_test(a_timer_may_free_itself),
        cmocka_unit_test(stopping_before_running_holds),
        cmocka_unit_test(later_runs_once_after_the_handlers_of_a_turn),
        cmocka_unit_test(a_later_that_asks_again_runs_in_the_next_turn),
        cmocka_unit_test(asked_and_freed_never_runs),
        cmocka_unit_test(a_watch_follows_its_interest_and_may_free_itself),
        cmocka_unit_test(another_thread_wakes_the_loop),
    };
    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
