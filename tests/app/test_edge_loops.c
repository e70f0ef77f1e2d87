/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "app/edge_loops.h"

#include <pthread.h>
#include <stdatomic.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_run_on_their_loop),
        cmocka_unit_test(posts_of_one_thread_keep_their_order),
    };
    return cmocka_run_group_tests_name("edge_loops", tests, NULL, NULL);
}
