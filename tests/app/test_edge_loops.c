/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "app/edge_loops.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { LOOPS = 3, ROUNDS = 3000 };

struct walk {
    struct edge_loops *loops;
    int rounds; /* handed from thread to thread, never shared */
    atomic_int stopped;
    pthread_t seen[LOOPS];
};

static void stop_here(void *context, uint32_t index)
{
    struct walk *walk = context;
    atomic_fetch_add(&walk->stopped, 1);
    loop_stop(edge_loops_at(walk->loops, index));
}

static void step(void *context, uint32_t index)
{
    struct walk *walk = context;
    walk->seen[index] = pthread_self();
    if (++walk->rounds == ROUNDS) {
        for (uint32_t i = 0; i < LOOPS; i++) {
            edge_loops_post(walk->loops, i, stop_here, walk);
        }
    } else {
        edge_loops_post(walk->loops, (index + 1) % LOOPS, step, walk);
    }
}

static void calls_run_on_their_loop(void **state)
{
    (void)state;
    static struct walk walk;
    walk.loops = edge_loops_new(LOOPS);
    assert_non_null(walk.loops);
    assert_int_equal(edge_loops_count(walk.loops), LOOPS);
    edge_loops_post(walk.loops, 0, step, &walk);
    assert_int_equal(edge_loops_run(walk.loops), ERROR_NONE);
    assert_int_equal(walk.rounds, ROUNDS);
    assert_int_equal(walk.stopped, LOOPS);
    assert_true(pthread_equal(walk.seen[0], pthread_self()));
    assert_false(pthread_equal(walk.seen[1], walk.seen[2]));
    edge_loops_free(walk.loops);
}

enum { CALLS = 100 };

struct order {
    struct edge_loops *loops;
    int next;
    int wrong;
};

struct call {
    struct order *order;
    int number;
};

static void in_order(void *context, uint32_t index)
{
    struct call *call = context;
    struct order *order = call->order;
    order->wrong += call->number != order->next || index != 1;
    order->next++;
    if (order->next == CALLS) {
        loop_stop(edge_loops_at(order->loops, index));
    }
}

static void stop_first(void *context, uint32_t index)
{
    loop_stop(edge_loops_at(context, index));
}

static void posts_of_one_thread_keep_their_order(void **state)
{
    (void)state;
    struct order order = {.loops = edge_loops_new(2)};
    struct call calls[CALLS];
    for (int i = 0; i < CALLS; i++) {
        calls[i] = (struct call){&order, i};
        edge_loops_post(order.loops, 1, in_order, &calls[i]);
    }
    edge_loops_post(order.loops, 0, stop_first, order.loops);
    assert_int_equal(edge_loops_run(order.loops), ERROR_NONE);
    assert_int_equal(order.next, CALLS);
    assert_int_equal(order.wrong, 0);
    edge_loops_free(order.loops);
}

/* ---- what comes from the keeper ---------------------------------------------------------- */

struct edge {
    struct edge_loops *loops;
    uint32_t generations[2]; /* of each loop */
    struct ring *rings[2];
    uint32_t graces[2];
    int links[2];
};

static void take_ring(void *context, uint32_t index, struct ring *ring)
{
    struct edge *edge = context;
    edge->rings[index] = ring;
}

static void take_link(void *context, enum keeper_link link, uint32_t index, int fd)
{
    assert_int_equal(link, KEEPER_LINK_TURN);
    struct edge *edge = context;
    edge->links[index] = fd;
}

static enum error take_config(void *context, uint32_t index, const struct edge_config *config)
{
    struct edge *edge = context;
    assert_true(slice_equal(config->values->hostname, SLICE_LITERAL("a.b")));
    edge->generations[index] = config->generation;
    return ERROR_NONE;
}

static void take_stop(void *context, uint32_t index, uint32_t grace_ms)
{
    struct edge *edge = context;
    edge->graces[index] = grace_ms;
    loop_stop(edge_loops_at(edge->loops, index));
}

static struct settings *some_settings(void)
{
    struct buffer errors;
    buffer_init(&errors, 0);
    struct settings *settings =
        settings_parse(SLICE_LITERAL("holdfast-settings 1\nmachine 1\nm\ndirectory 1\n/\n"
                                     "path 1\nc\ncontent 14\nhostname = a.b\n"),
                       &errors);
    assert_non_null(settings);
    buffer_done(&errors);
    return settings;
}

static void no_listener_but(int listeners[LISTENERS_MAX], int fd)
{
    for (int i = 0; i < LISTENERS_MAX; i++) {
        listeners[i] = -1;
    }
    listeners[1] = fd;
}

static struct ring_descriptors some_ring(void)
{
    struct ring_descriptors descriptors;
    assert_int_equal(ring_create(4096, 4096, &descriptors), ERROR_NONE);
    return descriptors;
}

static void what_the_keeper_says_reaches_each_loop(void **state)
{
    (void)state;
    static struct role_start start;
    struct edge edge = {.loops = edge_loops_new(2)};
    const struct edge_handlers handlers = {.context = &edge,
                                           .set_ring = take_ring,
                                           .set_link = take_link,
                                           .reconfigure = take_config,
                                           .stop = take_stop};
    int listeners[LISTENERS_MAX], ends[2];
    assert_int_equal(pipe(ends), 0);
    start.settings = some_settings();
    start.generation = 1;
    no_listener_but(start.listeners, ends[0]);
    for (int i = 0; i < KEEPER_LINKS; i++) {
        start.links[i] = i == KEEPER_LINK_TURN ? dup(ends[0]) : -1;
    }
    int link = start.links[KEEPER_LINK_TURN];
    for (int i = 0; i < 2; i++) {
        start.rings[KEEPER_EDGE_OUT][i] = some_ring();
    }
    assert_int_equal(edge_loops_begin(edge.loops, &start, KEEPER_EDGE_OUT, &handlers), ERROR_NONE);
    assert_int_equal(edge_loops_config(edge.loops, 1)->generation, 1);
    assert_int_equal(edge_loops_config(edge.loops, 1)->listeners[1], ends[0]);
    struct ring *first = edge_loops_ring(edge.loops, 0);
    assert_non_null(first);

    const struct role_handlers keeper = edge_loops_role_handlers(edge.loops);
    no_listener_but(listeners, ends[1]);
    assert_int_equal(keeper.reload(keeper.context, some_settings(), 2, listeners), ERROR_NONE);
    keeper.ring(keeper.context, KEEPER_EDGE_OUT, 1, 2, some_ring());
    keeper.stop(keeper.context, 7);
    assert_true(fcntl(ends[0], F_GETFD) >= 0); /* both use it still */
    assert_int_equal(edge_loops_run(edge.loops), ERROR_NONE);
    assert_int_equal(fcntl(link, F_GETFD), -1); /* each loop has a copy of its own */
    assert_int_not_equal(edge.links[0], edge.links[1]);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(close(edge.links[i]), 0);
    }
    assert_int_equal(edge.generations[0], 2);
    assert_int_equal(edge.generations[1], 2);
    assert_null(edge.rings[0]);
    assert_ptr_equal(edge.rings[1], edge_loops_ring(edge.loops, 1));
    assert_ptr_equal(edge_loops_ring(edge.loops, 0), first);
    assert_int_equal(edge.graces[0], 7);
    assert_int_equal(edge.graces[1], 7);
    assert_int_equal(fcntl(ends[0], F_GETFD), -1); /* nobody does */
    assert_true(fcntl(ends[1], F_GETFD) >= 0);
    edge_loops_free(edge.loops);
    assert_int_equal(fcntl(ends[1], F_GETFD), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_run_on_their_loop),
        cmocka_unit_test(posts_of_one_thread_keep_their_order),
        cmocka_unit_test(what_the_keeper_says_reaches_each_loop),
    };
    return cmocka_run_group_tests_name("edge_loops", tests, NULL, NULL);
}
