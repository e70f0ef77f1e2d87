/* SPDX-License-Identifier: Apache-2.0 */
#include "app/hook_core.h"

#include "app/frame_stream.h"

#include <stdlib.h>

struct hook_core {
    struct frame_stream *stream;
    bool asking;
    struct hook_asker asker;
};

static void end(struct hook_core *core, const char *error)
{
    if (core->asking) {
        core->asking = false;
        if (core->asker.end != NULL) {
            core->asker.end(core->asker.context, error);
        }
    }
}

static void take(void *context, const json_t *frame)
{
    struct hook_core *core = context;
    const json_t *row = json_object_get(frame, "row");
    const json_t *more = json_object_get(frame, "more");
    const json_t *last = json_object_get(frame, "end");
    if (!core->asking) {
        return;
    }
    if (row != NULL && core->asker.row != NULL) {
        core->asker.row(core->asker.context, row);
    } else if (more != NULL && core->asker.more != NULL) {
        core->asker.more(core->asker.context, more);
    } else if (last != NULL) {
        bool done = json_integer_value(json_object_get(last, "exit")) == CONTROL_DONE;
        const char *error = json_string_value(json_object_get(last, "error"));
        end(core, done ? NULL : error != NULL ? error : "refused");
    }
}

static void lost(void *context)
{
    end(context, HOOK_CORE_GONE);
}

struct hook_core *hook_core_new(struct loop *loop)
{
    struct hook_core *core = calloc(1, sizeof(*core));
    if (core != NULL) {
        const struct frame_handlers handlers = {.context = core, .take = take, .lost = lost};
        core->stream = frame_stream_new(loop, &handlers);
        if (core->stream == NULL) {
            free(core);
            return NULL;
        }
    }
    return core;
}

void hook_core_free(struct hook_core *core)
{
    if (core != NULL) {
        frame_stream_free(core->stream);
        free(core);
    }
}

void hook_core_set(struct hook_core *core, int fd)
{
    frame_stream_set(core->stream, fd);
}

void hook_core_forget(struct hook_core *core)
{
    if (core != NULL) {
        core->asker = (struct hook_asker){0};
    }
}

bool hook_core_ask(struct hook_core *core, const char *command, json_t *arguments,
                   const struct hook_asker *asker)
{
    if (core->asking || !frame_stream_is_open(core->stream)) {
        json_decref(arguments);
        return false;
    }
    json_t *request = json_pack("{ssso}", "command", command, "arguments", arguments);
    bool sent = request != NULL && frame_stream_send(core->stream, request);
    json_decref(request);
    if (sent) {
        core->asking = true;
        core->asker = *asker;
    }
    return sent;
}
