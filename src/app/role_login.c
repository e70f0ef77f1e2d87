/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that keeps the secrets of who may log in (service/login_desk.h): the table of users
 * to read, files of hashes from the configuration, a link to edge-in, whose loops send it an end of
 * a pair each, one each to directory and pam, and one over which core is told. It hears no
 * stranger's bytes but names, passwords and proofs, and writes nothing.
 */
#include "app/role_channel.h"
#include "base/digest.h"
#include "base/password.h"
#include "service/login_desk.h"
#include "sys/fdpass.h"

#include <stdlib.h>
#include <unistd.h>

struct login_role {
    struct role_start start;
    struct loop *loop;
    struct login_desk *desk;
    int link; /* -1: none */
    struct loop_watch *watch;
};

static void unlink_edge(struct login_role *role)
{
    loop_watch_free(role->watch);
    role->watch = NULL;
    if (role->link >= 0) {
        close(role->link);
    }
    role->link = -1;
}

/* A loop of edge-in that has begun. */
static void link_ready(void *context, unsigned ready)
{
    struct login_role *role = context;
    int descriptors[FDPASS_DESCRIPTORS_MAX];
    uint8_t byte;
    size_t length, count;
    (void)ready;
    enum error error =
        fdpass_receive(role->link, &byte, sizeof(byte), &length, descriptors, &count);
    if (error == ERROR_AGAIN || error == ERROR_LIMIT) {
        return;
    }
    if (error != ERROR_NONE) {
        unlink_edge(role); /* the keeper gives another */
        return;
    }
    for (size_t i = 0; i < count; i++) {
        login_desk_serve(role->desk, descriptors[i]);
    }
}

static void set_link(void *context, enum keeper_link link, int fd)
{
    struct login_role *role = context;
    if (link == KEEPER_LINK_DIRECTORY) {
        login_desk_set_directory(role->desk, fd);
        return;
    }
    if (link == KEEPER_LINK_PAM) {
        login_desk_set_pam(role->desk, fd);
        return;
    }
    if (link == KEEPER_LINK_LOGINS) {
        login_desk_set_core(role->desk, fd);
        return;
    }
    unlink_edge(role);
    role->link = fd;
    role->watch = loop_watch_new(role->loop, fd, link_ready, role);
    if (role->watch == NULL) {
        exit(role_fail("link", ERROR_MEMORY));
    }
    loop_watch_set(role->watch, LOOP_READ);
}

static enum error reload(void *context, struct settings *settings, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    (void)generation;
    (void)listeners;
    struct login_role *role = context;
    login_desk_reconfigure(role->desk, settings_config(settings));
    settings_free(role->start.settings);
    role->start.settings = settings;
    return ERROR_NONE;
}

static void stop(void *context, uint32_t grace_ms)
{
    (void)grace_ms;
    const struct login_role *role = context;
    loop_stop(role->loop);
}

static enum error open_desk(struct login_role *role)
{
    const struct service_config *config = settings_config(role->start.settings);
    struct disk *disk;
    enum error error = disk_from_descriptor(role->start.spool_directory, &disk);
    if (error != ERROR_NONE) {
        return error;
    }
    role->desk = login_desk_new(role->loop, config, disk, &role->start.counters->slots[SLOT_LOGIN]);
    return role->desk != NULL ? ERROR_NONE : ERROR_MEMORY;
}

int role_login(int channel)
{
    static struct login_role role;
    role.link = -1;
    enum error error = role_receive_start(channel, ROLE_LOGIN, &role.start);
    if (error == ERROR_NONE) {
        error = digest_prepare();
    }
    if (error == ERROR_NONE) {
        error = password_prepare();
    }
    if (error != ERROR_NONE) {
        return role_fail("start", error);
    }
    error = role_confine(&role.start, &role.start.spool_directory, 1);
    if (error != ERROR_NONE) {
        return role_fail("sandbox", error);
    }
    role.loop = loop_new();
    error = role.loop != NULL ? open_desk(&role) : ERROR_MEMORY;
    if (error != ERROR_NONE) {
        return role_fail("users", error);
    }
    set_link(&role, KEEPER_LINK_LOGIN, role.start.links[KEEPER_LINK_LOGIN]);
    set_link(&role, KEEPER_LINK_DIRECTORY, role.start.links[KEEPER_LINK_DIRECTORY]);
    set_link(&role, KEEPER_LINK_PAM, role.start.links[KEEPER_LINK_PAM]);
    set_link(&role, KEEPER_LINK_LOGINS, role.start.links[KEEPER_LINK_LOGINS]);
    const struct role_handlers handlers = {
        .context = &role, .link = set_link, .reload = reload, .stop = stop};
    struct role_channel *keeper;
    error = role_channel_new(role.loop, &role.start, &handlers, &keeper);
    if (error != ERROR_NONE) {
        return role_fail("keeper", error);
    }
    loop_run(role.loop);
    unlink_edge(&role);
    login_desk_free(role.desk);
    role_channel_free(keeper);
    settings_free(role.start.settings);
    loop_free(role.loop);
    return ROLE_EXIT_STOPPED;
}
