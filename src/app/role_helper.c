/* SPDX-License-Identifier: Apache-2.0
 *
 * The process for jobs that block: hooks, webhooks, directories. There is none yet; it is here
 * because where a job will run is decided with the other walls.
 */
#include "app/role_channel.h"

static enum error reload(void *context, struct settings *settings, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    (void)context;
    settings_free(settings);
    (void)generation;
    (void)listeners;
    return ERROR_NONE;
}

static void stop(void *context, uint32_t grace_ms)
{
    (void)grace_ms;
    loop_stop(context);
}

int role_helper(int channel)
{
    static struct role_start start;
    enum error error = role_receive_start(channel, ROLE_HELPER, &start);
    if (error != ERROR_NONE) {
        return role_fail("start", error);
    }
    error = role_confine(&start, NULL, 0);
    if (error != ERROR_NONE) {
        return role_fail("sandbox", error);
    }
    struct loop *loop = loop_new();
    const struct role_handlers handlers = {.context = loop, .reload = reload, .stop = stop};
    struct role_channel *keeper;
    error = loop != NULL ? role_channel_new(loop, &start, &handlers, &keeper) : ERROR_MEMORY;
    if (error != ERROR_NONE) {
        return role_fail("keeper", error);
    }
    loop_run(loop);
    role_channel_free(keeper);
    settings_free(start.settings);
    loop_free(loop);
    return ROLE_EXIT_STOPPED;
}
