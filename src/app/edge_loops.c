/* SPDX-License-Identifier: Apache-2.0 */
#include "app/edge_loops.h"

#include "sys/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct edge_call {
    struct edge_call *next;
    edge_call_fn *fn;
    void *context;
};

struct shared_config {
    struct edge_config config;
    struct settings *settings;
    atomic_uint users;
};

struct edge_loop {
    struct loop *loop;
    struct loop_wake *wake;
    uint32_t index;
    pthread_t thread;
    _Atomic(struct edge_call *) box; /* newest first */
    struct ring *ring;
    struct shared_config *config;
};

struct edge_loops {
    uint32_t count;
    enum keeper_edge edge;
    const struct edge_handlers *handlers;
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

/* ---- configurations ---------------------------------------------------------------------- */

/* Takes over settings and listeners, also on failure. NULL: memory. */
static struct shared_config *config_new(struct settings *settings, uint32_t generation,
                                        const int listeners[LISTENERS_MAX], uint32_t users)
{
    struct shared_config *shared = malloc(sizeof(*shared));
    if (shared == NULL) {
        settings_free(settings);
        role_close_listeners(listeners);
        return NULL;
    }
    shared->settings = settings;
    shared->config.values = settings_config(settings);
    shared->config.generation = generation;
    memcpy(shared->config.listeners, listeners, sizeof(shared->config.listeners));
    atomic_init(&shared->users, users);
    return shared;
}

static void config_leave(struct shared_config *shared)
{
    if (shared != NULL && atomic_fetch_sub(&shared->users, 1) == 1) {
        role_close_listeners(shared->config.listeners);
        settings_free(shared->settings);
        free(shared);
    }
}

/* ---- on its way to a loop ---------------------------------------------------------------- */

struct request {
    struct edge_loops *loops;
    struct ring_descriptors descriptors;
    struct shared_config *config;
    uint32_t grace_ms;
    enum keeper_link link;
    int link_fd;
    struct role_channel *channel;
    uint32_t question;
};

static void post_request(struct edge_loops *loops, uint32_t index, edge_call_fn *fn,
                         struct request request)
{
    struct request *copy = malloc(sizeof(*copy));
    if (copy == NULL) {
        exit(role_fail("request", ERROR_MEMORY));
    }
    *copy = request;
    copy->loops = loops;
    edge_loops_post(loops, index, fn, copy);
}

static void drained(void *context)
{
    (void)context; /* who uses the ring sets its own handler */
}

static enum error attach(struct edge_loop *loop, struct ring_descriptors descriptors)
{
    return ring_attach(descriptors, RING_SIDE_A, loop->loop, drained, NULL, &loop->ring);
}

static void set_ring_there(void *context, uint32_t index)
{
    struct request *request = context;
    const struct edge_handlers *handlers = request->loops->handlers;
    struct edge_loop *loop = &request->loops->loops[index];
    struct ring *old = loop->ring;
    enum error error = attach(loop, request->descriptors);
    if (error != ERROR_NONE) {
        exit(role_fail("ring", error));
    }
    handlers->set_ring(handlers->context, index, loop->ring);
    ring_free(old);
    free(request);
}

static void set_ring(void *context, enum keeper_edge edge, uint32_t index, uint32_t count,
                     struct ring_descriptors descriptors)
{
    struct edge_loops *loops = context;
    if (edge != loops->edge || count != loops->count) {
        exit(role_fail("ring", ERROR_INVALID));
    }
    post_request(loops, index, set_ring_there, (struct request){.descriptors = descriptors});
}

static void set_link_there(void *context, uint32_t index)
{
    struct request *request = context;
    const struct edge_handlers *handlers = request->loops->handlers;
    handlers->set_link(handlers->context, request->link, index, request->link_fd);
    free(request);
}

/* A copy for each loop. Those that cannot have one go without: until the next. */
static void set_link(void *context, enum keeper_link link, int fd)
{
    struct edge_loops *loops = context;
    bool wanted = loops->handlers->set_link != NULL;
    for (uint32_t i = 0; wanted && i < loops->count; i++) {
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (copy >= 0) {
            post_request(loops, i, set_link_there, (struct request){.link = link, .link_fd = copy});
        }
    }
    close(fd);
}

static void reconfigure_there(void *context, uint32_t index)
{
    struct request *request = context;
    const struct edge_handlers *handlers = request->loops->handlers;
    struct edge_loop *loop = &request->loops->loops[index];
    enum error error = handlers->reconfigure(handlers->context, index, &request->config->config);
    if (error != ERROR_NONE) {
        exit(role_fail("reload", error)); /* and it is started with the new configuration */
    }
    config_leave(loop->config);
    loop->config = request->config;
    free(request);
}

static enum error reload(void *context, struct settings *settings, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    struct edge_loops *loops = context;
    struct shared_config *config = config_new(settings, generation, listeners, loops->count);
    if (config == NULL) {
        return ERROR_MEMORY;
    }
    for (uint32_t i = 0; i < loops->count; i++) {
        post_request(loops, i, reconfigure_there, (struct request){.config = config});
    }
    return ERROR_NONE;
}

/* From loop to loop, down to the first, which has the channel. */
static void ask_there(void *context, uint32_t index)
{
    struct request *request = context;
    if (index > 0) {
        edge_loops_post(request->loops, index - 1, ask_there, request);
    } else {
        role_channel_alive(request->channel, request->question);
        free(request);
    }
}

static void asked(void *context, struct role_channel *channel, uint32_t question)
{
    struct edge_loops *loops = context;
    post_request(loops, loops->count - 1, ask_there,
                 (struct request){.channel = channel, .question = question});
}

static void stop_there(void *context, uint32_t index)
{
    struct request *request = context;
    const struct edge_handlers *handlers = request->loops->handlers;
    handlers->stop(handlers->context, index, request->grace_ms);
    free(request);
}

static void stop(void *context, uint32_t grace_ms)
{
    struct edge_loops *loops = context;
    for (uint32_t i = 0; i < loops->count; i++) {
        post_request(loops, i, stop_there, (struct request){.grace_ms = grace_ms});
    }
}

enum error edge_loops_begin(struct edge_loops *loops, struct role_start *start,
                            enum keeper_edge edge, const struct edge_handlers *handlers)
{
    loops->edge = edge;
    loops->handlers = handlers;
    struct shared_config *config =
        config_new(start->settings, start->generation, start->listeners, loops->count);
    start->settings = NULL;
    if (config == NULL) {
        return ERROR_MEMORY;
    }
    enum error error = ERROR_NONE;
    for (uint32_t i = 0; i < loops->count; i++) {
        loops->loops[i].config = config;
        if (error == ERROR_NONE) {
            error = attach(&loops->loops[i], start->rings[edge][i]);
        }
    }
    for (int link = 0; link < KEEPER_LINKS; link++) {
        if (start->links[link] >= 0) {
            set_link(loops, (enum keeper_link)link, start->links[link]);
            start->links[link] = -1;
        }
    }
    return error;
}

void edge_loops_ring_broken(void *context)
{
    (void)context;
    exit(role_fail("ring to core", ERROR_CORRUPT));
}

struct ring *edge_loops_ring(const struct edge_loops *loops, uint32_t index)
{
    return loops->loops[index].ring;
}

const struct edge_config *edge_loops_config(const struct edge_loops *loops, uint32_t index)
{
    return &loops->loops[index].config->config;
}

struct role_handlers edge_loops_role_handlers(struct edge_loops *loops)
{
    return (struct role_handlers){.context = loops,
                                  .ring = set_ring,
                                  .link = set_link,
                                  .reload = reload,
                                  .stop = stop,
                                  .asked = asked};
}

enum error edge_loops_serve(struct edge_loops *loops, const struct role_start *start)
{
    const struct role_handlers handlers = edge_loops_role_handlers(loops);
    struct role_channel *keeper;
    enum error error = role_channel_new(loops->loops[0].loop, start, &handlers, &keeper);
    if (error == ERROR_NONE) {
        error = edge_loops_run(loops);
        role_channel_free(keeper);
    }
    return error;
}

/* ---- the end ----------------------------------------------------------------------------- */

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
        ring_free(loop->ring);
        config_leave(loop->config);
        loop_wake_free(loop->wake);
        loop_free(loop->loop);
    }
    free(loops);
}
