/* SPDX-License-Identifier: Apache-2.0
 *
 * The process that keeps the mail: spool, lanes, control socket. It is given the journal's
 * directories and never a path, the rings and never a socket to the network.
 */
#include "app/role_channel.h"
#include "service/core.h"
#include "sys/database.h"
#include "sys/log.h"
#include "sys/machine.h"
#include "sys/net.h"

#include <malloc.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct core_process {
    struct role_start start;
    struct loop *loop;
    struct core *core;
    struct loop_watch *control_watch;
    struct loop_timer *last_words;
    struct role_channel *keeper;
    struct slice boot;       /* machine_boot() */
    struct settings *coming; /* a configuration that core gets ready for; or NULL */
};

enum { GROUPS_MAX = 64, ACCEPTS_PER_TURN = 16, LAST_WORDS_MS = 20, LARGE = 1 << 20 };

/* ---- who commands ------------------------------------------------------------------------ */

static bool has_group(int fd, gid_t wanted)
{
    gid_t groups[GROUPS_MAX];
    socklen_t length = sizeof(groups);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) != 0) {
        return false;
    }
    for (size_t i = 0; i < length / sizeof(groups[0]); i++) {
        if (groups[i] == wanted) {
            return true;
        }
    }
    return false;
}

/* root, ourselves, and the group that the configuration names. */
static bool may_command(const struct core_process *process, int fd)
{
    const struct keeper_identity *identity = &process->start.identity;
    struct ucred peer;
    socklen_t length = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
        return false;
    }
    if (peer.uid == 0 || peer.uid == geteuid()) {
        return true;
    }
    return identity->has_control_group && (peer.gid == (gid_t)identity->control_group ||
                                           has_group(fd, (gid_t)identity->control_group));
}

static void control_ready(void *context, unsigned ready)
{
    (void)ready;
    struct core_process *process = context;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd;
        struct ip_endpoint nobody;
        if (net_accept(process->start.control, &fd, &nobody) != ERROR_NONE) {
            return;
        }
        core_add_control(process->core, fd, may_command(process, fd));
    }
}

/* ---- from the keeper --------------------------------------------------------------------- */

static void drained_by_core(void *context)
{
    (void)context; /* core sets its own handler */
}

static void take_ring(void *context, enum keeper_edge edge, uint32_t index, uint32_t count,
                      struct ring_descriptors descriptors)
{
    struct core_process *process = context;
    struct ring *ring;
    enum error error =
        ring_attach(descriptors, RING_SIDE_B, process->loop, drained_by_core, NULL, &ring);
    if (error != ERROR_NONE) {
        exit(role_fail("ring", error));
    }
    if (edge == KEEPER_EDGE_IN) {
        core_set_edge_in(process->core, index, ring);
    } else {
        core_set_edge_out(process->core, index, count, ring);
    }
}

static void edge_broken(void *context, enum core_edge edge)
{
    const struct core_process *process = context;
    struct keeper_message message = {
        .kind = KEEPER_BROKEN, .edge = edge == CORE_EDGE_IN ? KEEPER_EDGE_IN : KEEPER_EDGE_OUT};
    enum error error = keeper_send(process->start.channel, &message);
    if (error != ERROR_NONE) {
        exit(role_fail("keeper", error));
    }
}

/* web asks, the helper also commands: it puts mail of ours into the queue, runs errands, and hands
 * lists over. The runner asks for guards' work. login only tells. */
static void take_link(void *context, enum keeper_link link, int fd)
{
    struct core_process *process = context;
    if (link == KEEPER_LINK_LOGINS) {
        core_set_logins(process->core, fd);
        return;
    }
    core_add_control(process->core, fd, link != KEEPER_LINK_WEB);
}

static void reloaded(void *context, enum error error)
{
    struct core_process *process = context;
    struct settings *settings = process->coming;
    process->coming = NULL;
    if (error == ERROR_NONE) {
        struct settings *old = process->start.settings;
        process->start.settings = settings;
        settings = old;
    }
    settings_free(settings);
    role_channel_reloaded(process->keeper, error);
}

static enum error reload(void *context, struct settings *settings, uint32_t generation,
                         const int listeners[LISTENERS_MAX])
{
    (void)listeners;
    struct core_process *process = context;
    struct settings *overtaken = process->coming;
    process->coming = settings;
    core_reconfigure_soon(process->core, settings_config(settings), generation, reloaded, process);
    settings_free(overtaken);
    return ERROR_AGAIN;
}

static void stale(void *context, struct slice why)
{
    const struct core_process *process = context;
    core_set_stale(process->core, why);
}

static void stopped(void *context)
{
    struct core_process *process = context;
    loop_stop(process->loop);
}

static void stop_now(void *context)
{
    struct core_process *process = context;
    core_stop(process->core, stopped, process);
}

/* The edges have ended, and their last words may lie in the rings still: those are read first, for
 * a result that is not heard is a delivery in doubt. */
static void stop(void *context, uint32_t grace_ms)
{
    (void)grace_ms; /* what is acknowledged is written, however long it takes */
    struct core_process *process = context;
    loop_watch_set(process->control_watch, 0);
    loop_timer_set(process->last_words, LAST_WORDS_MS);
}

/* ---- the entry --------------------------------------------------------------------------- */

static enum error open_core(struct core_process *process)
{
    struct role_start *start = &process->start;
    struct disk *spool = NULL;
    struct disk *events = NULL;
    struct disk *recipients = NULL;
    struct disk *state = NULL;
    enum error error = disk_from_descriptor(start->spool_directory, &spool);
    if (error == ERROR_NONE) {
        error = disk_from_descriptor(start->events_directory, &events);
    }
    if (error == ERROR_NONE) {
        error = disk_from_descriptor(start->recipients_directory, &recipients);
    }
    if (error == ERROR_NONE) {
        error = disk_from_descriptor(start->state_directory, &state);
    }
    if (error != ERROR_NONE) {
        return error;
    }
    error = core_new(process->loop, settings_config(start->settings), start->generation, spool,
                     events, &start->counters->slots[SLOT_CORE], start->lease, &process->core);
    if (error == ERROR_NONE) {
        core_keep_recipients(process->core, recipients);
        core_keep_state(process->core, state, process->boot);
        core_keep_greylist(process->core, start->greylist);
    }
    return error;
}

static void take_links(struct core_process *process)
{
    struct role_start *start = &process->start;
    core_set_broken_handler(process->core, edge_broken, process);
    for (uint32_t i = 0; i < start->loops; i++) {
        take_ring(process, KEEPER_EDGE_IN, i, start->loops, start->rings[KEEPER_EDGE_IN][i]);
        take_ring(process, KEEPER_EDGE_OUT, i, start->loops, start->rings[KEEPER_EDGE_OUT][i]);
    }
    take_link(process, KEEPER_LINK_WEB, start->links[KEEPER_LINK_WEB]);
    take_link(process, KEEPER_LINK_HELPER, start->links[KEEPER_LINK_HELPER]);
    take_link(process, KEEPER_LINK_ERRANDS, start->links[KEEPER_LINK_ERRANDS]);
    take_link(process, KEEPER_LINK_LISTS, start->links[KEEPER_LINK_LISTS]);
    take_link(process, KEEPER_LINK_GUARDS, start->links[KEEPER_LINK_GUARDS]);
    take_link(process, KEEPER_LINK_LOGINS, start->links[KEEPER_LINK_LOGINS]);
}

/* What is large is mapped by itself and goes back as a whole: indexes that come and go would leave
 * holes in the heap between what stays, a fifth of what held mail takes. */
static void keep_heap_whole(void)
{
    mallopt(M_MMAP_THRESHOLD, LARGE);
    mallopt(M_TRIM_THRESHOLD, 4 * LARGE);
}

int role_core(int channel)
{
    static struct core_process process;
    keep_heap_whole();
    struct role_start *start = &process.start;
    enum error error = role_receive_start(channel, ROLE_CORE, start);
    if (error != ERROR_NONE || start->lock < 0 || start->greylist == NULL) {
        return role_fail("start", error);
    }
    if (settings_config(start->settings)->cluster.database.length > 0) {
        const char *trouble = database_load_library();
        if (trouble != NULL) {
            log_event(LOG_LEVEL_ERROR, "database", LOG_TEXT("reason", trouble));
        }
    }
    static char boot[MACHINE_NAME_SIZE];
    process.boot = machine_boot(boot); /* while files may be opened */
    const int directories[] = {start->spool_directory, start->events_directory,
                               start->recipients_directory, start->state_directory};
    error = role_confine(start, directories, 4);
    if (error != ERROR_NONE) {
        return role_fail("sandbox", error);
    }
    process.loop = loop_new();
    error = process.loop != NULL ? open_core(&process) : ERROR_MEMORY;
    if (error != ERROR_NONE) {
        return role_fail("spool", error);
    }
    take_links(&process);
    process.control_watch = loop_watch_new(process.loop, start->control, control_ready, &process);
    process.last_words = loop_timer_new(process.loop, stop_now, &process);
    const struct role_handlers handlers = {.context = &process,
                                           .ring = take_ring,
                                           .link = take_link,
                                           .reload = reload,
                                           .stale = stale,
                                           .stop = stop};
    error = role_channel_new(process.loop, start, &handlers, &process.keeper);
    if (error != ERROR_NONE || process.control_watch == NULL || process.last_words == NULL) {
        return role_fail("keeper", error);
    }
    loop_watch_set(process.control_watch, LOOP_READ);
    loop_run(process.loop);
    core_free(process.core);
    loop_watch_free(process.control_watch);
    loop_timer_free(process.last_words);
    role_channel_free(process.keeper);
    settings_free(process.coming);
    settings_free(start->settings);
    loop_free(process.loop);
    return ROLE_EXIT_STOPPED;
}
