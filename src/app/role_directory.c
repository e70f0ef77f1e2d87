/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that asks directories (app/directory_desk.h): the network, the passwords by which it
 * searches, and links to login and to helper, which ask it. It hears what directories say, and the
 * password of who logs in by one; it has no hashes and no file.
 */
#include "app/directory_desk.h"
#include "app/name_servers.h"
#include "app/role_channel.h"
#include "base/digest.h"

struct directory_role {
    struct loop *loop;
    struct directory_desk *desk;
};

static void set_link(void *context, enum keeper_link link, int fd)
{
    const struct directory_role *role = context;
    if (link == KEEPER_LINK_ENTRIES) {
        directory_desk_set_lists(role->desk, fd);
    } else {
        directory_desk_set_logins(role->desk, fd);
    }
}

static enum error reload(void *context, struct settings *settings, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    (void)generation;
    (void)listeners;
    const struct directory_role *role = context;
    enum error error = directory_desk_reconfigure(role->desk, settings);
    if (error != ERROR_NONE) {
        settings_free(settings);
    }
    return error;
}

static void stop(void *context, uint32_t grace_ms)
{
    (void)grace_ms;
    const struct directory_role *role = context;
    loop_stop(role->loop);
}

int role_directory(int channel)
{
    static struct directory_role role;
    struct role_start start;
    struct ldap_library *library = NULL;
    struct name_servers *names = NULL;
    struct dns *dns = NULL;
    enum error error = role_receive_start(channel, ROLE_DIRECTORY, &start);
    if (error == ERROR_NONE) {
        error = digest_prepare();
    }
    if (error == ERROR_NONE) {
        error = tls_prepare();
    }
    if (error == ERROR_NONE) {
        library = ldap_library_open();
        names = name_servers_read(settings_config(start.settings));
        error = library != NULL && names != NULL ? ERROR_NONE : ERROR_MEMORY;
    }
    if (error != ERROR_NONE) {
        return role_fail("start", error);
    }
    error = role_confine(&start, NULL, 0);
    if (error != ERROR_NONE) {
        return role_fail("sandbox", error);
    }
    role.loop = loop_new();
    error =
        role.loop != NULL ? dns_new(role.loop, name_servers_settings(names), &dns) : ERROR_MEMORY;
    if (error != ERROR_NONE) {
        return role_fail("resolver", error);
    }
    role.desk = directory_desk_new(role.loop, start.settings, library, dns);
    if (role.desk == NULL) {
        return role_fail("directories", ERROR_MEMORY);
    }
    directory_desk_set_logins(role.desk, start.links[KEEPER_LINK_DIRECTORY]);
    directory_desk_set_lists(role.desk, start.links[KEEPER_LINK_ENTRIES]);
    const struct role_handlers handlers = {
        .context = &role, .link = set_link, .reload = reload, .stop = stop};
    struct role_channel *keeper;
    error = role_channel_new(role.loop, &start, &handlers, &keeper);
    if (error != ERROR_NONE) {
        return role_fail("keeper", error);
    }
    loop_run(role.loop);
    directory_desk_free(role.desk);
    role_channel_free(keeper);
    dns_free(dns);
    name_servers_free(names);
    ldap_library_free(library);
    loop_free(role.loop);
    return ROLE_EXIT_STOPPED;
}
