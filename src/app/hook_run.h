/* SPDX-License-Identifier: Apache-2.0
 *
 * Programs for alerts. They are run by a process of their own (app/role_runner.c), which knows from
 * the configuration what may be run; the helper asks it, over frames as of
 * service/control_frame.h:
 *
 *   helper  {"run":n,"alert":"NAME","environment":{"HOLDFAST_KIND":"stopped", ...}}
 *   runner  {"ran":n,"problem":null or "exit status 1","output":"its first bytes","ms":n}
 *
 * One answer for each, when it has ended or could not be begun. Variables begin with HOLDFAST_.
 */
#ifndef HOLDFAST_APP_HOOK_RUN_H
#define HOLDFAST_APP_HOOK_RUN_H

#include "base/error.h"
#include "base/slice.h"
#include "sys/loop.h"

#include <jansson.h>

/* The helper's side. */
struct hook_run;

/* `slot` is the caller's number of the run. `problem` is NULL or says what went wrong. */
typedef void hook_ran_fn(void *context, uint64_t slot, const char *problem, const char *output);

/* NULL: memory. */
struct hook_run *hook_run_new(struct loop *loop, hook_ran_fn *fn, void *context);
void hook_run_free(struct hook_run *run);
/* A new stream to the runner, taken over. What it was asked over the old one is not answered any
 * more: the caller asks again. */
void hook_run_set(struct hook_run *run, int fd);
/* False: it cannot be asked now. Takes the environment over. */
bool hook_run_ask(struct hook_run *run, uint64_t slot, struct slice alert,
                  json_t *environment) MUST_CHECK;

#endif
