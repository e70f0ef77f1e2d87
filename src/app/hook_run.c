/* SPDX-License-Identifier: Apache-2.0 */
#include "app/hook_run.h"

#include "app/frame_stream.h"

#include <stdlib.h>

struct hook_run {
    struct frame_stream *stream;
    hook_ran_fn *fn;
    void *context;
};

static void take(void *context, const json_t *frame)
{
    struct hook_run *run = context;
    const json_t *slot = json_object_get(frame, "ran");
    const char *output = json_string_value(json_object_get(frame, "output"));
    if (json_is_integer(slot)) {
        run->fn(run->context, (uint64_t)json_integer_value(slot),
                json_string_value(json_object_get(frame, "problem")), output != NULL ? output : "");
    }
}

struct hook_run *hook_run_new(struct loop *loop, hook_ran_fn *fn, void *context)
{
    struct hook_run *run = calloc(1, sizeof(*run));
    if (run != NULL) {
        const struct frame_handlers handlers = {.context = run, .take = take};
        run->fn = fn;
        run->context = context;
        run->stream = frame_stream_new(loop, &handlers);
        if (run->stream == NULL) {
            free(run);
            return NULL;
        }
    }
    return run;
}

void hook_run_free(struct hook_run *run)
{
    if (run != NULL) {
        frame_stream_free(run->stream);
        free(run);
    }
}

void hook_run_set(struct hook_run *run, int fd)
{
    frame_stream_set(run->stream, fd);
}

bool hook_run_ask(struct hook_run *run, uint64_t slot, struct slice alert, json_t *environment)
{
    json_t *request = json_pack("{sIsoso}", "run", (json_int_t)slot, "alert", control_string(alert),
                                "environment", environment);
    bool asked = request != NULL && frame_stream_send(run->stream, request);
    json_decref(request);
    return asked;
}
