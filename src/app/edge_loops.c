/* SPDX-License-Identifier: Apache-2.0 */
#include "app/edge_loops.h"

#include "sys/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct edge_call {
    struct edge_call *next;
    edge_call_fn *fn;
    void *context;
};

struct edge_loop {
    struct loop *loop;
    struct loop_wake *wake;
    uint32_t index;
    pthread_t thread;
    _Atomic(struct edge_call *) box; /* newest first */
};

struct edge_loops {
    uint32_t count;
    struct edge_loop loops[];
};

static void open_box(void *context)
{
    struct edge_loop *loop = context;
    struct edge_call *newest = atomic_exchange(&loop->box, NULL);
    struct edge_call *oldest = NULL;
    while (newest != NULL) {
        struct edge_call *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct edge_call *call = oldest;
        oldest = call->next;
        call->fn(call->context, loop->index);
        free(call);
    }
}

struct edge_loops *edge_loops_new(uint32_t count)
{
    struct edge_loops *loops = calloc(1, sizeof(*loops) + count * sizeof(loops->loops[0]));
    if (loops == NULL) {
        return NULL;
    }
    loops->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct edge_loop *loop = &loops->loops[i];
        loop->index = i;
        loop->loop = loop_new();
        loop->wake = loop->loop != NULL ? loop_wake_new(loop->loop, open_box, loop) : NULL;
        if (loop->wake == NULL) {
            edge_loops_free(loops);
            return NULL;
        }
    }
    return loops;
}

uint32_t edge_loops_count(const struct edge_loops *loops)
{
    return loops->count;
}

struct loop *edge_loops_at(struct edge_loops *loops, uint32_t index)
{
    return loops->loops[index].loop;
}

void edge_loops_post(struct edge_loops *loops, uint32_t index, edge_call_fn *fn, void *context)
{
    struct edge_loop *loop = &loops->loops[index];
    struct edge_call *call = malloc(sizeof(*call));
    if (call == NULL) {
        log_write(LOG_LEVEL_ERROR, "out-of-memory", NULL, 0);
        abort();
    }
    call->fn = fn;
    call->context = context;
    call->next = atomic_load(&loop->box);
    while (!atomic_compare_exchange_weak(&loop->box, &call->next, call)) {
    }
    loop_wake_send(loop->wake);
}

static void *thread_main(void *context)
{
    struct edge_loop *loop = context;
    char name[16];
    snprintf(name, sizeof(name), "loop-%u", (unsigned)loop->index % 100);
    (void)pthread_setname_np(pthread_self(), name);
    loop_run(loop->loop);
    return NULL;
}

enum error edge_loops_run(struct edge_loops *loops)
{
    for (uint32_t i = 1; i < loops->count; i++) {
        struct edge_loop *loop = &loops->loops[i];
        if (pthread_create(&loop->thread, NULL, thread_main, loop) != 0) {
            return ERROR_MEMORY; /* the process ends, and the threads with it */
        }
    }
    loop_run(loops->loops[0].loop);
    for (uint32_t i = 1; i < loops->count; i++) {
        pthread_join(loops->loops[i].thread, NULL);
    }
    return ERROR_NONE;
}

void edge_loops_free(struct edge_loops *loops)
{
    if (loops == NULL) {
        return;
    }
    for (uint32_t i = 0; i < loops->count; i++) {
        struct edge_loop *loop = &loops->loops[i];
        struct edge_call *call = atomic_exchange(&loop->box, NULL);
        while (call != NULL) {
            struct edge_call *next = call->next;
            free(call);
            call = next;
        }
        loop_wake_free(loop->wake);
        loop_free(loop->loop);
    }
    free(loops);
}
