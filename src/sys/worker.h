/* SPDX-License-Identifier: Apache-2.0
 *
 * A background thread for blocking work (the committer's write and sync, preparing segments).
 * Jobs run one at a time in the order given; each completion is delivered on the loop, in order.
 * A job touches only its own context until its completion has run: that is the whole locking rule.
 * Simulated twin: tests/sim/worker_sim.c runs each job as an event after a drawn delay.
 */
#ifndef HOLDFAST_SYS_WORKER_H
#define HOLDFAST_SYS_WORKER_H

#include "sys/loop.h"

struct worker;

typedef void worker_fn(void *job);

struct worker *worker_new(struct loop *loop, const char *name);
/* Waits for all jobs; completions not yet delivered are delivered. NULL is allowed. */
void worker_free(struct worker *worker);
/* ERROR_MEMORY or ERROR_NONE. `run` on the thread, then `done` on the loop, both with `job`. */
enum error worker_submit(struct worker *worker, worker_fn *run, worker_fn *done,
                         void *job) MUST_CHECK;
/* Blocks until every job given so far is complete and delivered (shutdown, tests). */
void worker_drain(struct worker *worker);

#endif
