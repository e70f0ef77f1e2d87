/* SPDX-License-Identifier: Apache-2.0
 *
 * The loops of an edge, one per thread; the first runs on the process's first thread. Each has a
 * box that any thread may put a call into, a ring to core, and the configuration that is in force
 * there: what comes from the keeper reaches each loop on its own thread.
 */
#ifndef HOLDFAST_APP_EDGE_LOOPS_H
#define HOLDFAST_APP_EDGE_LOOPS_H

#include "app/role_channel.h"

struct edge_loops;

typedef void edge_call_fn(void *context, uint32_t index);

/* Makes the loops; no thread yet. NULL: memory or descriptors are out. */
struct edge_loops *edge_loops_new(uint32_t count);
uint32_t edge_loops_count(const struct edge_loops *loops);
struct loop *edge_loops_at(struct edge_loops *loops, uint32_t index);
/* Runs fn(context, index) on that loop's thread, in the order of the posts of one thread. Any
 * thread may call. Memory out is fatal: a call must not be lost. */
void edge_loops_post(struct edge_loops *loops, uint32_t index, edge_call_fn *fn, void *context);
/* Starts the threads and runs the first loop; returns when every loop has been stopped with
 * loop_stop() on its own thread. */
enum error edge_loops_run(struct edge_loops *loops) MUST_CHECK;
/* Rings and configurations too: after all that uses them. */
void edge_loops_free(struct edge_loops *loops);

/* ---- what comes from the keeper ---------------------------------------------------------- */

/* A configuration with its listening sockets. The loops share it; it goes with the last one that
 * has taken on another, and the sockets are closed: as long as anybody holds one, clients are let
 * into its queue. */
struct edge_config {
    const struct service_config *values;
    uint32_t generation;
    int listeners[LISTENERS_MAX];
};

/* Called on the thread of the loop `index`. */
struct edge_handlers {
    void *context;
    /* To be used from now on; the old one is freed on return. */
    void (*set_ring)(void *context, uint32_t index, struct ring *ring);
    /* A new end of a link to another process, which is the handler's. NULL: there is no use for
     * it. */
    void (*set_link)(void *context, enum keeper_link link, uint32_t index, int fd);
    /* On return nothing may point into the old one. An error ends the process. */
    enum error (*reconfigure)(void *context, uint32_t index, const struct edge_config *config);
    /* To end with loop_stop(). */
    void (*stop)(void *context, uint32_t index, uint32_t grace_ms);
};

/* Attaches the rings and takes over the settings and listeners of the start, for all loops. Keeps a
 * pointer to `handlers`. Before edge_loops_run(). */
enum error edge_loops_begin(struct edge_loops *loops, struct role_start *start,
                            enum keeper_edge edge, const struct edge_handlers *handlers) MUST_CHECK;
/* Core has broken the ring of a loop: ends the process, for a new one gets new rings. On any of the
 * loops' threads. */
void edge_loops_ring_broken(void *context);
struct ring *edge_loops_ring(const struct edge_loops *loops, uint32_t index);
const struct edge_config *edge_loops_config(const struct edge_loops *loops, uint32_t index);
/* For role_channel_new(): hands everything on to the loops. */
struct role_handlers edge_loops_role_handlers(struct edge_loops *loops);
/* edge_loops_run() with the keeper's channel, which the first loop watches. */
enum error edge_loops_serve(struct edge_loops *loops, const struct role_start *start) MUST_CHECK;

#endif
