/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that talks to clients: one door (service/smtp_in.h) per loop. Listening sockets and
 * rings are all it holds; it has no file system.
 */
#include "app/edge_loops.h"
#include "app/role_channel.h"
#include "service/smtp_in.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/* The listening sockets of one configuration; the last loop that leaves it closes them, for as long
 * as anybody holds one, clients are let into its queue. */
struct listener_set {
    atomic_uint users;
    int fds[LISTENERS_MAX];
};

struct edge_in {
    struct role_start start;
    struct edge_loops *loops;
    struct listener_set *sets[LOOPS_MAX]; /* in use by each loop */
    struct smtp_in_shared *shared;
    struct smtp_in *doors[LOOPS_MAX];
    struct ring *rings[LOOPS_MAX]; /* ours; the doors use them */
};

/* What one loop is asked to do. */
struct request {
    struct edge_in *edge;
    struct ring_descriptors descriptors;
    const struct service_config *config;
    uint32_t generation;
    struct listener_set *listeners;
    uint32_t grace_ms;
};

static void post(struct edge_in *edge, uint32_t index, edge_call_fn *fn, struct request request)
{
    struct request *copy = malloc(sizeof(*copy));
    if (copy == NULL) {
        exit(role_fail("request", ERROR_MEMORY));
    }
    *copy = request;
    copy->edge = edge;
    edge_loops_post(edge->loops, index, fn, copy);
}

static void drained_by_door(void *context)
{
    (void)context; /* the door sets its own handler */
}

static struct listener_set *listener_set_new(const int fds[LISTENERS_MAX], uint32_t users)
{
    struct listener_set *set = malloc(sizeof(*set));
    if (set != NULL) {
        atomic_init(&set->users, users);
        memcpy(set->fds, fds, sizeof(set->fds));
    }
    return set;
}

static void listener_set_leave(struct listener_set *set)
{
    if (atomic_fetch_sub(&set->users, 1) != 1) {
        return;
    }
    for (size_t i = 0; i < LISTENERS_MAX; i++) {
        if (set->fds[i] >= 0) {
            close(set->fds[i]);
        }
    }
    free(set);
}

static void attach_ring(struct edge_in *edge, uint32_t index, struct ring_descriptors descriptors)
{
    enum error error = ring_attach(descriptors, RING_SIDE_A, edge_loops_at(edge->loops, index),
                                   drained_by_door, NULL, &edge->rings[index]);
    if (error != ERROR_NONE) {
        exit(role_fail("ring", error));
    }
}

/* ---- from the keeper --------------------------------------------------------------------- */

static void set_ring_there(void *context, uint32_t index)
{
    struct request *request = context;
    struct edge_in *edge = request->edge;
    struct ring *old = edge->rings[index];
    attach_ring(edge, index, request->descriptors);
    smtp_in_set_ring(edge->doors[index], edge->rings[index]);
    ring_free(old);
    free(request);
}

static void set_ring(void *context, enum keeper_edge edge_kind, uint32_t index, uint32_t count,
                     struct ring_descriptors descriptors)
{
    struct edge_in *edge = context;
    if (edge_kind != KEEPER_EDGE_IN || count != edge_loops_count(edge->loops)) {
        exit(role_fail("ring", ERROR_INVALID));
    }
    post(edge, index, set_ring_there, (struct request){.descriptors = descriptors});
}

static void reconfigure_there(void *context, uint32_t index)
{
    struct request *request = context;
    struct edge_in *edge = request->edge;
    enum error error = smtp_in_reconfigure(edge->doors[index], request->config, request->generation,
                                           request->listeners->fds);
    if (error != ERROR_NONE) {
        exit(role_fail("reload", error)); /* and it is started with the new configuration */
    }
    listener_set_leave(edge->sets[index]);
    edge->sets[index] = request->listeners;
    free(request);
}

static enum error reload(void *context, const struct service_config *config, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    struct edge_in *edge = context;
    struct listener_set *set = listener_set_new(listeners, edge_loops_count(edge->loops));
    if (set == NULL) {
        return ERROR_MEMORY;
    }
    for (uint32_t i = 0; i < edge_loops_count(edge->loops); i++) {
        post(edge, i, reconfigure_there,
             (struct request){.config = config, .generation = generation, .listeners = set});
    }
    return ERROR_NONE;
}

static void stopped(void *context)
{
    loop_stop(context);
}

static void stop_there(void *context, uint32_t index)
{
    struct request *request = context;
    struct edge_in *edge = request->edge;
    smtp_in_stop(edge->doors[index], request->grace_ms, stopped, edge_loops_at(edge->loops, index));
    free(request);
}

static void stop(void *context, uint32_t grace_ms)
{
    struct edge_in *edge = context;
    for (uint32_t i = 0; i < edge_loops_count(edge->loops); i++) {
        post(edge, i, stop_there, (struct request){.grace_ms = grace_ms});
    }
}

/* ---- the entry --------------------------------------------------------------------------- */

static enum error open_doors(struct edge_in *edge)
{
    struct role_start *start = &edge->start;
    edge->loops = edge_loops_new(start->loops);
    edge->shared = smtp_in_shared_new();
    struct listener_set *set = listener_set_new(start->listeners, start->loops);
    if (edge->loops == NULL || edge->shared == NULL || set == NULL) {
        return ERROR_MEMORY;
    }
    for (uint32_t i = 0; i < start->loops; i++) {
        edge->sets[i] = set;
        attach_ring(edge, i, start->rings[KEEPER_EDGE_IN][i]);
        edge->doors[i] = smtp_in_new(
            edge_loops_at(edge->loops, i), settings_config(start->settings), start->generation,
            edge->shared, set->fds, edge->rings[i], &start->counters->slots[SLOT_EDGE_IN + i]);
        if (edge->doors[i] == NULL) {
            return ERROR_MEMORY;
        }
    }
    return ERROR_NONE;
}

static void close_doors(struct edge_in *edge)
{
    for (uint32_t i = 0; i < edge_loops_count(edge->loops); i++) {
        smtp_in_free(edge->doors[i]);
        ring_free(edge->rings[i]);
        listener_set_leave(edge->sets[i]);
    }
    smtp_in_shared_free(edge->shared);
}

int role_edge_in(int channel)
{
    static struct edge_in edge;
    enum error error = role_receive_start(channel, ROLE_EDGE_IN, &edge.start);
    if (error != ERROR_NONE || edge.start.loops == 0) {
        return role_fail("start", error);
    }
    error = role_confine(&edge.start, NULL, 0);
    if (error != ERROR_NONE) {
        return role_fail("sandbox", error);
    }
    error = open_doors(&edge);
    if (error != ERROR_NONE) {
        return role_fail("listeners", error);
    }
    const struct role_handlers handlers = {
        .context = &edge, .ring = set_ring, .reload = reload, .stop = stop};
    struct role_channel *keeper;
    error = role_channel_new(edge_loops_at(edge.loops, 0), &edge.start, &handlers, &keeper);
    if (error == ERROR_NONE) {
        error = edge_loops_run(edge.loops);
    }
    if (error != ERROR_NONE) {
        return role_fail("loops", error);
    }
    close_doors(&edge);
    role_channel_free(keeper);
    edge_loops_free(edge.loops);
    return ROLE_EXIT_STOPPED;
}
