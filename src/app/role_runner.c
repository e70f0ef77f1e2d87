/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that runs programs for alerts and guards. It is not confined, for they inherit what
 * holds it: so it is small, reads nothing from the network, and takes of the helper, which does, no
 * more than which alert block and what environment (app/hook_run.h). What is to be done for guards
 * it asks core itself (app/guard_desk.h).
 */
#include "app/frame_stream.h"
#include "app/guard_desk.h"
#include "app/hook_run.h"
#include "app/role_channel.h"

enum { RUNS_MAX = 2 * HOOKS_MAX }; /* one of each block, and those that a helper that died began */

struct runner {
    struct role_start start;
    struct loop *loop;
    struct programs *programs;
    struct frame_stream *helper;
    struct guard_desk *guards;
};

/* ---- for the helper -------------------------------------------------------------------------- */

static void answer(void *context, uint64_t number, const struct program_end *end)
{
    const struct runner *runner = context;
    json_t *answer = json_pack("{sIss?sosI}", "ran", (json_int_t)number, "problem", end->problem,
                               "output", control_string(end->output), "ms", (json_int_t)end->ms);
    (void)frame_stream_send(runner->helper, answer); /* lost: forget_helper() */
    json_decref(answer);
}

static const struct hook_config *find_hook(const struct runner *runner, const char *name)
{
    const struct service_config *config = settings_config(runner->start.settings);
    for (uint32_t i = 0; name != NULL && i < config->hook_count; i++) {
        if (slice_equal(config->hooks[i].name, slice_from_text(name)) &&
            config->hooks[i].exec.length > 0) {
            return &config->hooks[i];
        }
    }
    return NULL;
}

static void take_request(void *context, const json_t *request)
{
    struct runner *runner = context;
    uint64_t number = (uint64_t)json_integer_value(json_object_get(request, "run"));
    const struct hook_config *hook =
        find_hook(runner, json_string_value(json_object_get(request, "alert")));
    struct program_end end = {.problem = "no such program in the configuration"};
    if (hook != NULL && programs_count(runner->programs, runner) >= RUNS_MAX) {
        end.problem = "too many are running";
    } else if (hook != NULL) {
        const struct program what = {.fn = answer,
                                     .context = runner,
                                     .number = number,
                                     .path = hook->exec,
                                     .environment = json_object_get(request, "environment"),
                                     .timeout_ms = hook->timeout_ms};
        end.problem = programs_run(runner->programs, &what);
    }
    if (end.problem != NULL) {
        answer(runner, number, &end);
    }
}

/* What runs is let run, but nobody asks for its end any more. */
static void forget_helper(void *context)
{
    struct runner *runner = context;
    programs_forget(runner->programs, runner);
}

/* ---- the entry ---------------------------------------------------------------------------- */

static void take_link(void *context, enum keeper_link link, int fd)
{
    const struct runner *runner = context;
    if (link == KEEPER_LINK_GUARDS) {
        guard_desk_set_core(runner->guards, fd);
    } else {
        frame_stream_set(runner->helper, fd);
    }
}

static enum error reload(void *context, struct settings *settings, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    (void)generation;
    (void)listeners;
    struct runner *runner = context;
    guard_desk_configure(runner->guards, settings_config(settings));
    settings_free(runner->start.settings);
    runner->start.settings = settings;
    return ERROR_NONE;
}

static void stop(void *context, uint32_t grace_ms)
{
    (void)grace_ms;
    const struct runner *runner = context;
    loop_stop(runner->loop);
}

int role_runner(int channel)
{
    static struct runner runner;
    enum error error = role_receive_start(channel, ROLE_RUNNER, &runner.start);
    if (error != ERROR_NONE) {
        return role_fail("start", error);
    }
    error = role_become(&runner.start);
    if (error != ERROR_NONE) {
        return role_fail("user", error);
    }
    runner.loop = loop_new();
    const struct frame_handlers from_helper = {
        .context = &runner, .take = take_request, .lost = forget_helper};
    if (runner.loop != NULL) {
        runner.helper = frame_stream_new(runner.loop, &from_helper);
        runner.programs = programs_new(runner.loop);
        runner.guards = guard_desk_new(runner.loop, runner.programs);
    }
    if (runner.helper == NULL || runner.programs == NULL || runner.guards == NULL) {
        return role_fail("loop", ERROR_MEMORY);
    }
    take_link(&runner, KEEPER_LINK_RUNNER, runner.start.links[KEEPER_LINK_RUNNER]);
    guard_desk_configure(runner.guards, settings_config(runner.start.settings));
    guard_desk_set_core(runner.guards, runner.start.links[KEEPER_LINK_GUARDS]);
    const struct role_handlers handlers = {
        .context = &runner, .link = take_link, .reload = reload, .stop = stop};
    struct role_channel *keeper;
    error = role_channel_new(runner.loop, &runner.start, &handlers, &keeper);
    if (error != ERROR_NONE) {
        return role_fail("keeper", error);
    }
    loop_run(runner.loop);
    guard_desk_free(runner.guards);
    programs_free(runner.programs);
    frame_stream_free(runner.helper);
    role_channel_free(keeper);
    settings_free(runner.start.settings);
    loop_free(runner.loop);
    return ROLE_EXIT_STOPPED;
}
