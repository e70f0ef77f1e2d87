/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions of the helper and the runner to core (service/control.h), one at a time.
 */
#ifndef HOLDFAST_APP_HOOK_CORE_H
#define HOLDFAST_APP_HOOK_CORE_H

#include "sys/loop.h"

#include <jansson.h>
#include <stdbool.h>

struct hook_core;

/* The error when it has died, or its stream has been taken away. */
#define HOOK_CORE_GONE "core has gone"

struct hook_asker {
    void *context;
    void (*row)(void *context, const json_t *row);   /* may be NULL */
    void (*more)(void *context, const json_t *more); /* may be NULL */
    /* The last call. `error` is NULL or says why not; another question may be asked in it. */
    void (*end)(void *context, const char *error);
};

/* NULL: memory. */
struct hook_core *hook_core_new(struct loop *loop);
void hook_core_free(struct hook_core *core); /* NULL is allowed */
/* A new stream, taken over. */
void hook_core_set(struct hook_core *core, int fd);
/* The asker of the question under way is called no more. NULL is allowed. */
void hook_core_forget(struct hook_core *core);
/* False, and nobody is called: it is busy or not there. Takes the arguments over. */
bool hook_core_ask(struct hook_core *core, const char *command, json_t *arguments,
                   const struct hook_asker *asker);

#endif
