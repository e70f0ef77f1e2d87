/* SPDX-License-Identifier: Apache-2.0
 *
 * The loops of an edge, one per thread; the first runs on the process's first thread. Each has a
 * box that any thread may put a call into.
 */
#ifndef HOLDFAST_APP_EDGE_LOOPS_H
#define HOLDFAST_APP_EDGE_LOOPS_H

#include "sys/loop.h"

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
void edge_loops_free(struct edge_loops *loops);

#endif
