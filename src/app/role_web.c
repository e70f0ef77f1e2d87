/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that answers HTTP (service/web.h): listening sockets, the counters to read, and a
 * stream to core over which it may ask and change nothing.
 */
#include "app/role_channel.h"
#include "service/web.h"

struct web_process {
    struct role_start start;
    struct loop *loop;
    struct web *web;
};

static void take_stream(void *context, enum keeper_link link, int fd)
{
    (void)link;
    struct web_process *process = context;
    web_set_control(process->web, fd);
}

/* A new one in place of the old: a page that is under way is asked for again. The keeper gives a
 * new stream to core after it. */
static enum error reload(void *context, struct settings *settings, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    (void)generation;
    struct web_process *process = context;
    web_free(process->web);
    settings_free(process->start.settings);
    process->start.settings = settings;
    process->web =
        web_new(process->loop, settings_config(settings), listeners, -1, process->start.counters);
    return process->web != NULL ? ERROR_NONE : ERROR_MEMORY;
}

static void stop(void *context, uint32_t grace_ms)
{
    (void)grace_ms;
    struct web_process *process = context;
    loop_stop(process->loop);
}

int role_web(int channel)
{
    static struct web_process process;
    struct role_start *start = &process.start;
    enum error error = role_receive_start(channel, ROLE_WEB, start);
    if (error != ERROR_NONE) {
        return role_fail("start", error);
    }
    error = role_confine(start, NULL, 0);
    if (error != ERROR_NONE) {
        return role_fail("sandbox", error);
    }
    process.loop = loop_new();
    if (process.loop != NULL) {
        process.web = web_new(process.loop, settings_config(start->settings), start->listeners,
                              start->links[KEEPER_LINK_WEB], start->counters);
    }
    if (process.web == NULL) {
        return role_fail("listeners", ERROR_MEMORY);
    }
    const struct role_handlers handlers = {
        .context = &process, .link = take_stream, .reload = reload, .stop = stop};
    struct role_channel *keeper;
    error = role_channel_new(process.loop, start, &handlers, &keeper);
    if (error != ERROR_NONE) {
        return role_fail("keeper", error);
    }
    loop_run(process.loop);
    web_free(process.web);
    role_channel_free(keeper);
    settings_free(start->settings);
    loop_free(process.loop);
    return ROLE_EXIT_STOPPED;
}
