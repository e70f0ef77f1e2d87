/* SPDX-License-Identifier: Apache-2.0
 *
 * The operator's programs: run by their path, without arguments, with an environment of HOLDFAST_
 * variables and a time limit, in a process group of their own. For the process that is not
 * confined (app/role_runner.c).
 */
#ifndef HOLDFAST_APP_PROGRAMS_H
#define HOLDFAST_APP_PROGRAMS_H

#include "base/slice.h"
#include "sys/loop.h"

#include <jansson.h>

struct programs;

struct program_end {
    const char *problem; /* NULL: it went well; else "exit status 1" ... */
    struct slice output; /* the beginning of what it said; valid during the call */
    int64_t ms;
};
typedef void program_ended_fn(void *context, uint64_t number, const struct program_end *end);

struct program {
    program_ended_fn *fn;
    void *context;
    uint64_t number;     /* the caller's */
    struct slice path;   /* absolute; ends in NUL, which the length does not count */
    json_t *environment; /* an object of strings, whose names begin with HOLDFAST_; borrowed */
    uint32_t timeout_ms; /* then its group is killed */
};

/* NULL: memory. */
struct programs *programs_new(struct loop *loop);
/* Kills what runs; nobody is called. NULL is allowed. */
void programs_free(struct programs *programs);
/* NULL: it runs, and `fn` will be called. Else why it could not be begun. */
const char *programs_run(struct programs *programs, const struct program *what);
/* Those of this context that run; they are let run by programs_forget(), but nobody is called. */
uint32_t programs_count(const struct programs *programs, const void *context);
void programs_forget(struct programs *programs, const void *context);

#endif
