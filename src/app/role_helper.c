/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that tells people of alerts (app/hooks.h), fetches what core needs from the web
 * (app/errands.h) and reads lists of recipients (app/list_desk.h): a stream to core for each, one
 * to the runner of programs, links to ask the keeper for files and directory for what directories
 * have, and HTTP to the world. In a cluster it follows the settings in the database
 * (app/settings_follower.h). Whatever takes its time here holds up no mail.
 */
#include "app/errands.h"
#include "app/hooks.h"
#include "app/list_desk.h"
#include "app/name_servers.h"
#include "app/role_channel.h"
#include "app/settings_follower.h"
#include "base/digest.h"

#include <stdlib.h>

struct helper {
    struct role_start start;
    struct loop *loop;
    struct hooks *hooks;
    struct errands *errands;
    struct list_desk *lists;
    struct settings_follower *settings; /* NULL: no cluster */
};

static void take_link(void *context, enum keeper_link link, int fd)
{
    const struct helper *helper = context;
    if (link == KEEPER_LINK_HELPER) {
        hooks_set_core(helper->hooks, fd);
    } else if (link == KEEPER_LINK_ERRANDS) {
        errands_set_core(helper->errands, fd);
    } else if (link == KEEPER_LINK_LISTS) {
        list_desk_set_core(helper->lists, fd);
    } else if (link == KEEPER_LINK_ENTRIES) {
        list_desk_set_directories(helper->lists, fd);
    } else {
        hooks_set_runner(helper->hooks, fd);
    }
}

static enum error reload(void *context, struct settings *settings, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    (void)generation;
    (void)listeners;
    struct helper *helper = context;
    const struct service_config *config = settings_config(settings);
    enum error error = hooks_reconfigure(helper->hooks, config);
    if (error != ERROR_NONE) {
        settings_free(settings);
        return error;
    }
    errands_configure(helper->errands, settings_config(settings));
    if (list_desk_reconfigure(helper->lists, config) != ERROR_NONE) {
        exit(role_fail("lists", ERROR_MEMORY)); /* and begins again with it */
    }
    if (helper->settings != NULL) {
        settings_follower_configure(helper->settings, config);
    }
    settings_free(helper->start.settings);
    helper->start.settings = settings;
    return ERROR_NONE;
}

static void stop(void *context, uint32_t grace_ms)
{
    (void)grace_ms;
    const struct helper *helper = context;
    loop_stop(helper->loop);
}

/* What needs files, before there are none. */
static enum error prepare(struct helper *helper, struct name_servers **ret_names,
                          struct fetcher **ret_fetcher)
{
    const struct service_config *config = settings_config(helper->start.settings);
    bool is_member = config->cluster.database.length > 0;
    *ret_names = name_servers_read(config);
    *ret_fetcher = fetcher_new();
    helper->settings =
        is_member ? settings_follower_new(config, helper->start.settings_link) : NULL;
    if (*ret_names == NULL || *ret_fetcher == NULL || (is_member && helper->settings == NULL)) {
        return ERROR_MEMORY;
    }
    return digest_prepare();
}

int role_helper(int channel)
{
    static struct helper helper;
    struct role_start *start = &helper.start;
    struct name_servers *names = NULL;
    struct fetcher *fetcher = NULL;
    struct dns *dns = NULL;
    enum error error = role_receive_start(channel, ROLE_HELPER, start);
    if (error == ERROR_NONE) {
        error = prepare(&helper, &names, &fetcher);
    }
    if (error != ERROR_NONE) {
        return role_fail("start", error);
    }
    error = role_confine(start, NULL, 0);
    if (error != ERROR_NONE) {
        return role_fail("sandbox", error);
    }
    helper.loop = loop_new();
    error = helper.loop != NULL ? dns_new(helper.loop, name_servers_settings(names), &dns)
                                : ERROR_MEMORY;
    if (error != ERROR_NONE) {
        return role_fail("resolver", error);
    }
    fetcher_start(fetcher, helper.loop, dns);
    helper.hooks = hooks_new(helper.loop, settings_config(start->settings), fetcher,
                             &start->counters->slots[SLOT_HELPER]);
    if (helper.hooks == NULL) {
        return role_fail("hooks", ERROR_MEMORY);
    }
    helper.errands = errands_new(helper.loop, fetcher);
    if (helper.errands == NULL) {
        return role_fail("errands", ERROR_MEMORY);
    }
    errands_configure(helper.errands, settings_config(start->settings));
    errands_set_core(helper.errands, start->links[KEEPER_LINK_ERRANDS]);
    helper.lists = list_desk_new(helper.loop, settings_config(start->settings), fetcher);
    if (helper.lists == NULL || !list_desk_set_files(helper.lists, start->lists)) {
        return role_fail("lists", ERROR_MEMORY);
    }
    hooks_set_core(helper.hooks, start->links[KEEPER_LINK_HELPER]);
    list_desk_set_core(helper.lists, start->links[KEEPER_LINK_LISTS]);
    list_desk_set_directories(helper.lists, start->links[KEEPER_LINK_ENTRIES]);
    hooks_set_runner(helper.hooks, start->links[KEEPER_LINK_RUNNER]);
    const struct role_handlers handlers = {
        .context = &helper, .link = take_link, .reload = reload, .stop = stop};
    struct role_channel *keeper;
    error = role_channel_new(helper.loop, start, &handlers, &keeper);
    if (error != ERROR_NONE) {
        return role_fail("keeper", error);
    }
    error = helper.settings != NULL ? settings_follower_start(helper.settings, helper.loop)
                                    : ERROR_NONE;
    if (error != ERROR_NONE) {
        return role_fail("settings", error);
    }
    loop_run(helper.loop);
    settings_follower_free(helper.settings);
    list_desk_free(helper.lists);
    hooks_free(helper.hooks);
    errands_free(helper.errands);
    fetcher_free(fetcher);
    dns_free(dns);
    name_servers_free(names);
    role_channel_free(keeper);
    settings_free(start->settings);
    loop_free(helper.loop);
    return ROLE_EXIT_STOPPED;
}
