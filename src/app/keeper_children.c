/* SPDX-License-Identifier: Apache-2.0
 *
 * What a child is given depends on its role alone, so a start and a start again are the same. When
 * one dies, what it shared with another is made new and the other is given its end at once; its own
 * end waits here for the next start, so nothing that is said meanwhile is lost.
 */
#include "app/keeper_internal.h"
#include "sys/clock.h"
#include "sys/fdpass.h"
#include "sys/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    RESTART_LEAST_MS = 100,
    RESTART_MOST_MS = 5000,
    GOOD_LIFE_MS = 60000, /* after so long a death is a first one again */
    KILL_AFTER_MS = 5000, /* beyond the grace */
};

/* ---- a new process ----------------------------------------------------------------------- */

static void become_child(int channel, const char *role, const char *path, const char *copy)
{
    /* Signals that the keeper takes from a descriptor; a child is told over its channel. One that
     * has come already, to the whole group, is gone before they are let in. */
    sigset_t none;
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* The copy stays open over exec; if it is in its place already, make it so. */
    if (channel == KEEPER_CHILD_CHANNEL ? fcntl(channel, F_SETFD, 0) != 0
                                        : dup2(channel, KEEPER_CHILD_CHANNEL) < 0) {
        _exit(ROLE_EXIT_FAILED);
    }
    char title[32], option[32];
    snprintf(title, sizeof(title), "holdfast-%s", role);
    snprintf(option, sizeof(option), "--role=%s", role);
    char *const arguments[] = {title, option, path != NULL ? strdup(path) : NULL,
                               copy != NULL ? strdup(copy) : NULL, NULL};
    /* A new program image, for its own address layout and canaries; the very file that the keeper
     * runs, also after an upgrade has replaced it. */
    execv("/proc/self/exe", arguments);
    _exit(ROLE_EXIT_FAILED);
}

pid_t keeper_spawn(const char *role, const char *path, const char *copy, int *ret_channel)
{
    int ends[2];
    if (fdpass_pair(ends) != ERROR_NONE) {
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        become_child(ends[1], role, path, copy);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return -1;
    }
    *ret_channel = ends[0];
    return pid;
}

/* ---- what it is given -------------------------------------------------------------------- */

/* Sticky: one check at the end. */
struct gift {
    int channel;
    enum error error;
};

static void give(struct gift *gift, struct keeper_message message)
{
    if (gift->error == ERROR_NONE) {
        gift->error = keeper_send(gift->channel, &message);
    }
}

static void give_descriptor(struct gift *gift, enum keeper_kind kind, int fd)
{
    give(gift, (struct keeper_message){.kind = kind, .descriptors = {fd}, .descriptor_count = 1});
}

static void give_config(struct gift *gift, const struct keeper *keeper, enum role role)
{
    static const enum keeper_text texts[ROLE_COUNT] = {
        [ROLE_CORE] = KEEPER_TEXT_CORE,       [ROLE_EDGE_OUT] = KEEPER_TEXT_EDGE_OUT,
        [ROLE_EDGE_IN] = KEEPER_TEXT_EDGE_IN, [ROLE_WEB] = KEEPER_TEXT_COMMON,
        [ROLE_HELPER] = KEEPER_TEXT_HELPER,   [ROLE_RUNNER] = KEEPER_TEXT_COMMON,
        [ROLE_LOGIN] = KEEPER_TEXT_LOGIN,     [ROLE_DIRECTORY] = KEEPER_TEXT_DIRECTORY,
        [ROLE_PAM] = KEEPER_TEXT_COMMON};
    give(gift, (struct keeper_message){.kind = KEEPER_CONFIG,
                                       .generation = keeper->generation,
                                       .descriptors = {keeper->texts[texts[role]]},
                                       .descriptor_count = 1});
}

static void give_listeners(struct gift *gift, const struct keeper *keeper, enum role role)
{
    if (role != ROLE_WEB && role != ROLE_EDGE_IN) {
        return;
    }
    for (uint32_t i = 0; i < keeper->holdings.listeners.count; i++) {
        if ((keeper->plan.listeners[i].protocol == LISTENER_HTTP) == (role == ROLE_WEB)) {
            give(gift, (struct keeper_message){.kind = KEEPER_LISTENER,
                                               .index = i,
                                               .descriptors = {keeper->holdings.listeners.fds[i]},
                                               .descriptor_count = 1});
        }
    }
}

static void give_rings(struct gift *gift, const struct keeper *keeper, enum keeper_edge edge)
{
    const struct holdings *holdings = &keeper->holdings;
    for (uint32_t i = 0; i < holdings->loops; i++) {
        const struct ring_descriptors *ring = &holdings->rings[edge][i];
        give(gift,
             (struct keeper_message){.kind = KEEPER_RING,
                                     .edge = edge,
                                     .index = i,
                                     .count = holdings->loops,
                                     .descriptors = {ring->memory, ring->wake_a, ring->wake_b},
                                     .descriptor_count = 3});
    }
}

/* The role's end of a link, if it has one. */
static void give_link(struct gift *gift, const struct keeper *keeper, enum role role,
                      enum keeper_link link)
{
    for (int end = 0; end < 2; end++) {
        if (keeper_link_roles[link][end] == role) {
            give(gift, (struct keeper_message){.kind = KEEPER_LINK,
                                               .index = (uint32_t)link,
                                               .descriptors = {keeper->holdings.links[link][end]},
                                               .descriptor_count = 1});
        }
    }
}

static void give_core(struct gift *gift, const struct keeper *keeper)
{
    const struct holdings *holdings = &keeper->holdings;
    give(gift, (struct keeper_message){.kind = KEEPER_DIRECTORIES,
                                       .descriptors = {holdings->spool, holdings->events,
                                                       holdings->recipients, holdings->other_state,
                                                       holdings->lock},
                                       .descriptor_count = 5});
    give_descriptor(gift, KEEPER_GREYLIST, holdings->greylist);
    give_descriptor(gift, KEEPER_CONTROL, holdings->control);
    if (keeper->lease.page >= 0) {
        give_descriptor(gift, KEEPER_LEASE, keeper->lease.page);
    }
    give_rings(gift, keeper, KEEPER_EDGE_IN);
    give_rings(gift, keeper, KEEPER_EDGE_OUT);
}

static void give_stale(struct gift *gift, const struct keeper *keeper)
{
    give(gift,
         (struct keeper_message){.kind = KEEPER_STALE, .bytes = slice_from_text(keeper->stale)});
}

static void give_filters(struct gift *gift, struct keeper *keeper)
{
    for (uint32_t i = 0; i < keeper->holdings.loops && gift->error == ERROR_NONE; i++) {
        int link, scratch;
        gift->error = dial_open(keeper, i, &link, &scratch);
        if (gift->error == ERROR_NONE) {
            give(gift, (struct keeper_message){.kind = KEEPER_FILTERS,
                                               .index = i,
                                               .descriptors = {link, scratch},
                                               .descriptor_count = 2});
            close(link);
            close(scratch);
        }
    }
}

static void give_lists(struct gift *gift, struct keeper *keeper)
{
    int link = -1;
    if (gift->error == ERROR_NONE) {
        gift->error = dial_open_lists(keeper, &link);
    }
    if (gift->error == ERROR_NONE) {
        give_descriptor(gift, KEEPER_LISTS, link);
        close(link);
    }
}

static void give_settings(struct gift *gift, struct keeper *keeper)
{
    int link = -1;
    if (gift->error == ERROR_NONE) {
        gift->error = keeper_settings_link(keeper, &link);
    }
    if (gift->error == ERROR_NONE) {
        give_descriptor(gift, KEEPER_SETTINGS, link);
        close(link);
    }
}

static enum error give_all(const struct child *child)
{
    struct keeper *keeper = child->keeper;
    struct gift gift = {.channel = child->channel};
    give_config(&gift, keeper, child->role);
    give(&gift, (struct keeper_message){.kind = KEEPER_IDENTITY,
                                        .identity = keeper->plan.identity,
                                        .bytes = slice_from_text(keeper->holdings.empty)});
    give_descriptor(&gift, KEEPER_COUNTERS, keeper->holdings.counters_fd);
    give_listeners(&gift, keeper, child->role);
    for (int link = 0; link < KEEPER_LINKS; link++) {
        give_link(&gift, keeper, child->role, (enum keeper_link)link);
    }
    switch (child->role) {
    case ROLE_CORE:
        give_core(&gift, keeper);
        break;
    case ROLE_EDGE_OUT:
        give_descriptor(&gift, KEEPER_DIRECTORIES, keeper->holdings.spool);
        give_rings(&gift, keeper, KEEPER_EDGE_OUT);
        break;
    case ROLE_EDGE_IN:
        give_descriptor(&gift, KEEPER_GREYLIST, keeper->holdings.greylist);
        give_rings(&gift, keeper, KEEPER_EDGE_IN);
        give_filters(&gift, keeper);
        break;
    case ROLE_LOGIN:
        give_descriptor(&gift, KEEPER_DIRECTORIES, keeper->holdings.login);
        break;
    case ROLE_HELPER:
        give_lists(&gift, keeper);
        give_settings(&gift, keeper);
        break;
    case ROLE_WEB:
    case ROLE_RUNNER:
    case ROLE_DIRECTORY:
    case ROLE_PAM:
    case ROLE_COUNT:
        break;
    }
    give(&gift, (struct keeper_message){.kind = KEEPER_START});
    if (child->role == ROLE_CORE && keeper->stale[0] != '\0') {
        give_stale(&gift, keeper);
    }
    return gift.error;
}

/* ---- its life ---------------------------------------------------------------------------- */

static void child_close(struct child *child)
{
    loop_watch_free(child->watch);
    child->watch = NULL;
    if (child->channel >= 0) {
        close(child->channel);
    }
    child->channel = -1;
    child->pid = 0;
    child->ready = false;
}

/* Its rings are made new when it has ended. */
static void replace_edge(struct keeper *keeper, enum keeper_edge edge)
{
    const struct child *child =
        &keeper->children[edge == KEEPER_EDGE_IN ? ROLE_EDGE_IN : ROLE_EDGE_OUT];
    if (child->pid == 0 || child->stopping) {
        return;
    }
    log_event(LOG_LEVEL_ERROR, "killed", LOG_TEXT("process", role_name(child->role)),
              LOG_TEXT("reason", "core has cut its ring off"));
    kill(child->pid, SIGKILL);
}

static void child_heard(void *context, unsigned ready)
{
    (void)ready;
    struct child *child = context;
    struct keeper *keeper = child->keeper;
    struct keeper_message message;
    enum error error = keeper_receive(child->channel, keeper->buffer, &message);
    if (error == ERROR_NONE && message.kind == KEEPER_READY) {
        child->ready = true;
        child->was_ready = true;
        child->generation = message.generation;
        keeper_child_ready(keeper, child, message.generation, message.error);
    } else if (error == ERROR_NONE && message.kind == KEEPER_ALIVE) {
        keeper_settings_answered(keeper, child, message.index);
    } else if (error == ERROR_NONE && message.kind == KEEPER_BROKEN && child->role == ROLE_CORE) {
        replace_edge(keeper, message.edge);
    } else if (error == ERROR_CLOSED) {
        /* Its death is told by SIGCHLD. */
        loop_watch_set(child->watch, 0);
    } else if (error != ERROR_AGAIN) {
        if (error == ERROR_NONE) {
            keeper_message_close(&message);
        }
        kill(child->pid, SIGKILL);
    }
}

static int64_t restart_delay(const struct child *child)
{
    int64_t delay = 0;
    for (uint32_t i = 1; i < child->failures && delay < RESTART_MOST_MS; i++) {
        delay = delay == 0 ? RESTART_LEAST_MS : delay * 2;
    }
    return delay < RESTART_MOST_MS ? delay : RESTART_MOST_MS;
}

static void child_restart_later(struct child *child)
{
    if (clock_steady_ms() - child->started_ms > GOOD_LIFE_MS) {
        child->failures = 0;
    }
    child->failures++;
    loop_timer_set(child->timer, restart_delay(child));
}

void child_start(struct child *child)
{
    const char *name = role_name(child->role);
    child->started_ms = clock_steady_ms();
    child->pid = keeper_spawn(name, NULL, NULL, &child->channel);
    if (child->pid < 0) {
        child->pid = 0;
        log_event(LOG_LEVEL_ERROR, "cannot-start-process", LOG_TEXT("process", name),
                  LOG_TEXT("reason", strerror(errno)));
        child_restart_later(child);
        return;
    }
    child->watch = loop_watch_new(child->keeper->loop, child->channel, child_heard, child);
    enum error error = child->watch != NULL ? give_all(child) : ERROR_MEMORY;
    if (error != ERROR_NONE) {
        log_event(LOG_LEVEL_ERROR, "cannot-start-process", LOG_TEXT("process", name),
                  LOG_TEXT("reason", error_text(error)));
        kill(child->pid, SIGKILL); /* and again from its death */
        return;
    }
    loop_watch_set(child->watch, LOOP_READ);
}

void child_reload(struct child *child)
{
    if (child->pid == 0) {
        return; /* will be started with it */
    }
    struct gift gift = {.channel = child->channel};
    give_config(&gift, child->keeper, child->role);
    give_listeners(&gift, child->keeper, child->role);
    give(&gift, (struct keeper_message){.kind = KEEPER_APPLY});
    if (gift.error != ERROR_NONE) {
        kill(child->pid, SIGKILL);
    }
}

void child_ask(struct child *child, uint32_t question)
{
    const struct keeper_message ask = {.kind = KEEPER_ASK, .index = question};
    if (child->pid != 0 && keeper_send(child->channel, &ask) != ERROR_NONE) {
        kill(child->pid, SIGKILL);
    }
}

void child_tell_stale(struct child *core)
{
    struct gift gift = {.channel = core->channel};
    if (core->pid == 0) {
        return; /* will be told when it starts */
    }
    give_stale(&gift, core->keeper);
    if (gift.error != ERROR_NONE) {
        kill(core->pid, SIGKILL);
    }
}

void child_stop(struct child *child, uint32_t grace_ms)
{
    child->stopping = true;
    if (child->pid == 0) {
        loop_timer_cancel(child->timer);
        keeper_child_stopped(child->keeper, child);
        return;
    }
    struct keeper_message stop = {.kind = KEEPER_STOP, .grace_ms = grace_ms};
    if (keeper_send(child->channel, &stop) != ERROR_NONE) {
        kill(child->pid, SIGKILL);
    }
    loop_timer_set(child->timer, (int64_t)grace_ms + KILL_AFTER_MS);
}

static void timer_due(void *context)
{
    struct child *child = context;
    if (child->pid == 0) {
        child_start(child);
    } else {
        log_event(LOG_LEVEL_ERROR, "killed", LOG_TEXT("process", role_name(child->role)),
                  LOG_TEXT("reason", "did not stop in time"));
        kill(child->pid, SIGKILL);
    }
}

/* ---- its death --------------------------------------------------------------------------- */

static void give_new_rings(struct keeper *keeper, enum role to, enum keeper_edge edge)
{
    struct child *child = &keeper->children[to];
    if (child->pid == 0) {
        return;
    }
    struct gift gift = {.channel = child->channel};
    give_rings(&gift, keeper, edge);
    if (gift.error != ERROR_NONE) {
        kill(child->pid, SIGKILL);
    }
}

static void give_new_link(struct keeper *keeper, enum keeper_link link)
{
    for (int end = 0; end < 2; end++) {
        struct child *child = &keeper->children[keeper_link_roles[link][end]];
        struct gift gift = {.channel = child->channel};
        if (child->pid != 0) {
            give_link(&gift, keeper, child->role, link);
        }
    }
}

void children_renew_link(struct keeper *keeper, enum keeper_link link)
{
    /* Without it each says that the other is away, until one of the two starts again. */
    if (holdings_renew_link(&keeper->holdings, link) == ERROR_NONE) {
        give_new_link(keeper, link);
    }
}

/* Those of a role that has died: its new end waits for its next start. */
static enum error renew_streams(struct keeper *keeper, enum role dead)
{
    for (int link = 0; link < KEEPER_LINKS; link++) {
        if (keeper_link_roles[link][0] == dead || keeper_link_roles[link][1] == dead) {
            enum error error = holdings_renew_link(&keeper->holdings, (enum keeper_link)link);
            if (error != ERROR_NONE) {
                return error;
            }
            give_new_link(keeper, (enum keeper_link)link);
        }
    }
    return ERROR_NONE;
}

static enum error renew_links(struct keeper *keeper, enum role dead)
{
    struct holdings *holdings = &keeper->holdings;
    enum error error = ERROR_NONE;
    if (dead == ROLE_CORE || dead == ROLE_EDGE_IN) {
        error = holdings_renew_rings(holdings, KEEPER_EDGE_IN);
    }
    if (error == ERROR_NONE && (dead == ROLE_CORE || dead == ROLE_EDGE_OUT)) {
        error = holdings_renew_rings(holdings, KEEPER_EDGE_OUT);
    }
    if (error == ERROR_NONE) {
        error = renew_streams(keeper, dead);
    }
    if (error != ERROR_NONE) {
        return error;
    }
    if (dead == ROLE_CORE) {
        give_new_rings(keeper, ROLE_EDGE_IN, KEEPER_EDGE_IN);
        give_new_rings(keeper, ROLE_EDGE_OUT, KEEPER_EDGE_OUT);
    } else if (dead == ROLE_EDGE_IN) {
        give_new_rings(keeper, ROLE_CORE, KEEPER_EDGE_IN);
    } else if (dead == ROLE_EDGE_OUT) {
        give_new_rings(keeper, ROLE_CORE, KEEPER_EDGE_OUT);
    }
    return ERROR_NONE;
}

/* Its sessions have ended with it, uncounted. */
static void clear_gauges(struct counter_page *counters, enum role dead)
{
    for (int i = 0; dead == ROLE_EDGE_IN && i < LOOPS_MAX; i++) {
        atomic_store(&counters->slots[SLOT_EDGE_IN + i].value[COUNTER_SESSIONS_OPEN], 0);
    }
}

static void say_death(const struct child *child, int status)
{
    char reason[64];
    if (WIFSIGNALED(status)) {
        snprintf(reason, sizeof(reason), "signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    } else {
        snprintf(reason, sizeof(reason), "exit status %d", WEXITSTATUS(status));
    }
    log_event(LOG_LEVEL_ERROR, "process-died", LOG_TEXT("process", role_name(child->role)),
              LOG_NUMBER("pid", child->pid), LOG_TEXT("reason", reason));
}

static void child_ended(struct child *child, int status)
{
    struct keeper *keeper = child->keeper;
    loop_timer_cancel(child->timer);
    bool in_order = child->stopping && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!in_order) {
        say_death(child, status);
    }
    child_close(child);
    if (child->role == ROLE_EDGE_IN) {
        dials_close(keeper);
    } else if (child->role == ROLE_HELPER) {
        dial_close_lists(keeper);
    }
    clear_gauges(keeper->holdings.counters, child->role);
    if (child->stopping) {
        if (!in_order) {
            keeper->exit_status = 1;
        }
        keeper_child_stopped(keeper, child);
        return;
    }
    if (keeper_settings_died(keeper, child->role)) {
        keeper_reload(keeper);
    } else if (!child->was_ready && WIFEXITED(status) && WEXITSTATUS(status) == ROLE_EXIT_REFUSED) {
        keeper_stop(keeper, 1);
        return;
    }
    counter_add(&keeper->holdings.counters->slots[SLOT_KEEPER], COUNTER_RESTARTS, 1);
    enum error error = renew_links(keeper, child->role);
    if (error != ERROR_NONE) {
        log_event(LOG_LEVEL_ERROR, "cannot-restart", LOG_TEXT("reason", error_text(error)));
        keeper_stop(keeper, 1);
        return;
    }
    child_restart_later(child);
}

bool children_ended(struct keeper *keeper, pid_t pid, int status)
{
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (keeper->children[role].pid == pid) {
            child_ended(&keeper->children[role], status);
            return true;
        }
    }
    return false;
}

bool children_init(struct keeper *keeper)
{
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct child *child = &keeper->children[role];
        *child = (struct child){.keeper = keeper, .role = (enum role)role, .channel = -1};
        child->timer = loop_timer_new(keeper->loop, timer_due, child);
        if (child->timer == NULL) {
            return false;
        }
    }
    return true;
}

void children_done(struct keeper *keeper)
{
    for (int role = 0; role < ROLE_COUNT; role++) {
        child_close(&keeper->children[role]);
        loop_timer_free(keeper->children[role].timer);
    }
}
