/* SPDX-License-Identifier: Apache-2.0
 *
 * The course of things.
 *
 *   start    the reader reads; holdings are opened; all children are started; "started" is said
 *            when each is ready
 *   reload   the reader reads; new listeners are bound; then, and only then, every child is given
 *            the new text, and the old listeners are closed
 *   stop     edge-in, web, helper and runner; then edge-out, when no more comes in; then core, when
 *            both have said their last
 */
#include "app/keeper.h"

#include "app/keeper_internal.h"
#include "app/notify.h"
#include "app/warden.h"
#include "sys/log.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    EDGE_IN_GRACE_MS = 5000,
    EDGE_OUT_GRACE_MS = 15000,
    CORE_GRACE_MS = 60000, /* its disk may be slow; what it has is acknowledged */
    WEB_GRACE_MS = 1000,
    RUNNER_GRACE_MS = 1000,
    DIRECTORY_GRACE_MS = 20000, /* threads that wait for an answer are waited for */
};

/* ---- stop -------------------------------------------------------------------------------- */

static bool has_ended(const struct keeper *keeper, enum role role)
{
    const struct child *child = &keeper->children[role];
    return child->stopping && child->pid == 0;
}

static void stop_if_not_yet(struct keeper *keeper, enum role role, uint32_t grace_ms)
{
    if (!keeper->children[role].stopping) {
        child_stop(&keeper->children[role], grace_ms);
    }
}

/* The next step is taken when what it waits for has ended. */
static void go_on_stopping(struct keeper *keeper)
{
    stop_if_not_yet(keeper, ROLE_WEB, WEB_GRACE_MS);
    stop_if_not_yet(keeper, ROLE_HELPER, WEB_GRACE_MS);
    stop_if_not_yet(keeper, ROLE_RUNNER, RUNNER_GRACE_MS);
    stop_if_not_yet(keeper, ROLE_EDGE_IN, EDGE_IN_GRACE_MS);
    if (has_ended(keeper, ROLE_EDGE_IN)) {
        stop_if_not_yet(keeper, ROLE_LOGIN, WEB_GRACE_MS);
        stop_if_not_yet(keeper, ROLE_DIRECTORY, DIRECTORY_GRACE_MS);
        stop_if_not_yet(keeper, ROLE_PAM, RUNNER_GRACE_MS);
    }
    stop_if_not_yet(keeper, ROLE_EDGE_OUT, EDGE_OUT_GRACE_MS);
    if (has_ended(keeper, ROLE_EDGE_IN) && has_ended(keeper, ROLE_EDGE_OUT) &&
        has_ended(keeper, ROLE_WEB)) {
        stop_if_not_yet(keeper, ROLE_CORE, CORE_GRACE_MS);
    }
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!has_ended(keeper, (enum role)role)) {
            return;
        }
    }
    loop_stop(keeper->loop);
}

void keeper_stop(struct keeper *keeper, int exit_status)
{
    if (keeper->phase == KEEPER_STOPPING) {
        return;
    }
    enum keeper_phase before = keeper->phase;
    keeper->phase = KEEPER_STOPPING;
    keeper->exit_status = exit_status;
    notify_manager("STOPPING=1");
    if (before == KEEPER_STARTING) {
        loop_stop(keeper->loop);
        return;
    }
    log_write(LOG_LEVEL_INFO, "stopping", NULL, 0);
    go_on_stopping(keeper);
}

void keeper_child_stopped(struct keeper *keeper, struct child *child)
{
    (void)child;
    if (keeper->phase == KEEPER_STOPPING) {
        go_on_stopping(keeper);
    }
}

/* ---- start and reload -------------------------------------------------------------------- */

static void say_if_all_are_ready(struct keeper *keeper)
{
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!keeper->children[role].ready) {
            return;
        }
    }
    if (!keeper->announced) {
        keeper->announced = true;
        log_event(LOG_LEVEL_INFO, "started", LOG_NUMBER("pid", getpid()),
                  LOG_NUMBER("loops", keeper->plan.loops));
        notify_manager("READY=1");
        if (keeper->lease.ready >= 0) {
            (void)!write(keeper->lease.ready, "", 1);
        }
    }
}

static void start_reader(struct keeper *keeper, const char *copy);

/* One reload at a time: until all have been given the last one, a listener that it has closed is
 * still open in some of them, and cannot be opened again. */
bool keeper_may_reload(const struct keeper *keeper)
{
    return keeper->phase == KEEPER_RUNNING && !keeper->others_wait && keeper->reader.channel < 0 &&
           keeper->settings.phase == SETTINGS_IDLE;
}

static void reload_if_wanted(struct keeper *keeper)
{
    if (keeper->reload_wanted && keeper_may_reload(keeper)) {
        keeper->reload_wanted = false;
        start_reader(keeper, NULL);
    }
}

/* Those that core has gone ahead of. */
static void reload_others(struct keeper *keeper)
{
    keeper->others_wait = false;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (role != ROLE_CORE) {
            child_reload(&keeper->children[role]);
        }
    }
    children_renew_link(keeper, KEEPER_LINK_WEB); /* web begins anew with a configuration */
    log_event(LOG_LEVEL_INFO, "reloaded", LOG_NUMBER("generation", keeper->generation));
    reload_if_wanted(keeper);
}

void keeper_child_ready(struct keeper *keeper, struct child *child, uint32_t generation,
                        enum error error)
{
    const char *name = role_name(child->role);
    if (error != ERROR_NONE) {
        /* What it could not take on it will be started with. */
        log_event(LOG_LEVEL_ERROR, "reload-failed", LOG_TEXT("process", name),
                  LOG_TEXT("reason", error_text(error)));
        kill(child->pid, SIGKILL);
        return;
    }
    log_event(LOG_LEVEL_DEBUG, "ready", LOG_TEXT("process", name),
              LOG_NUMBER("generation", generation));
    say_if_all_are_ready(keeper);
    if (child->role == ROLE_CORE && keeper->others_wait && generation == keeper->generation &&
        keeper->phase == KEEPER_RUNNING) {
        reload_others(keeper);
    }
    keeper_settings_ready(keeper);
}

static void log_lines(enum log_level level, const char *event, struct slice text)
{
    while (text.length > 0) {
        size_t end = slice_find(text, '\n');
        log_event(level, event, LOG_SLICE("reason", slice_take(text, end)));
        text = slice_skip(text, end + 1);
    }
}

/* Of a configuration that is in force from now on. */
static void log_warnings(int descriptor)
{
    char *text;
    size_t length;
    enum error error = keeper_text_from_descriptor(descriptor, &text, &length);
    if (error != ERROR_NONE) {
        log_lines(LOG_LEVEL_WARNING, "configuration", slice_from_text(error_text(error)));
        return;
    }
    log_lines(LOG_LEVEL_WARNING, "configuration", slice_make(text, length));
    free(text);
}

static void texts_close(const int texts[KEEPER_TEXTS])
{
    for (int i = 0; i < KEEPER_TEXTS; i++) {
        if (texts[i] >= 0) {
            close(texts[i]);
        }
    }
}

static void start_all(struct keeper *keeper, const struct plan *plan, const int texts[KEEPER_TEXTS],
                      int warnings)
{
    keeper->plan = *plan;
    memcpy(keeper->texts, texts, sizeof(keeper->texts));
    keeper->generation = 1;
    /* What fails here the person who started it reads; from then on the log has it. */
    if (!holdings_open(&keeper->holdings, plan, keeper->lease.page >= 0)) {
        keeper_stop(keeper, 1);
        return;
    }
    enum error error = log_open(plan->log_target, plan->log_level, "keeper");
    if (error != ERROR_NONE) {
        log_event(LOG_LEVEL_ERROR, "cannot-log", LOG_TEXT("reason", error_text(error)));
        keeper_stop(keeper, 1);
        return;
    }
    log_warnings(warnings);
    keeper_settings_start(keeper);
    snprintf(keeper->stale, sizeof(keeper->stale), "%s", keeper->settings.trouble);
    keeper->phase = KEEPER_RUNNING;
    for (int role = 0; role < ROLE_COUNT; role++) {
        child_start(&keeper->children[role]);
    }
}

static void show_stale(struct keeper *keeper, const char *why)
{
    bool was_stale = keeper->stale[0] != '\0';
    snprintf(keeper->stale, sizeof(keeper->stale), "%s", why);
    if (was_stale || keeper->stale[0] != '\0') {
        child_tell_stale(&keeper->children[ROLE_CORE]);
    }
}

/* `status` shows it until a reload succeeds. Empty: one has. What is wrong with the cluster's
 * settings is shown until there are others that are good. */
static void set_stale(struct keeper *keeper, const char *format, ...)
{
    char why[KEEPER_STALE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof(why), format, arguments);
    va_end(arguments);
    bool was_version = keeper_settings_read(keeper, why);
    show_stale(keeper, was_version || why[0] == '\0' ? keeper->settings.trouble : why);
}

void keeper_settings_settled(struct keeper *keeper)
{
    show_stale(keeper, keeper->settings.trouble);
    reload_if_wanted(keeper);
}

static void refuse_change(struct keeper *keeper, const char *setting)
{
    log_event(LOG_LEVEL_ERROR, "reload-refused", LOG_TEXT("setting", setting),
              LOG_TEXT("reason", "takes a restart to change"));
    set_stale(keeper, "%s takes a restart to change", setting);
}

/* What is bound to a process for its life: what the table of settings says, and who an account was
 * when we became it. */
static bool can_change_to(struct keeper *keeper, const struct plan *new)
{
    const struct plan *old = &keeper->plan;
    bool can = true;
    for (uint32_t i = 0; i < old->fixed_count; i++) {
        if (i >= new->fixed_count || old->fixed[i].digest != new->fixed[i].digest) {
            refuse_change(keeper, old->fixed[i].key);
            can = false;
        }
    }
    if (can &&
        (old->identity.user != new->identity.user || old->identity.group != new->identity.group ||
         old->identity.control_group != new->identity.control_group)) {
        refuse_change(keeper, "user or group");
        can = false;
    }
    return can;
}

static void reload_all(struct keeper *keeper, const struct plan *plan,
                       const int texts[KEEPER_TEXTS], int warnings)
{
    struct keeper_listeners listeners;
    if (!can_change_to(keeper, plan)) {
        texts_close(texts);
        return;
    }
    if (!listeners_bind(plan, &keeper->plan, &keeper->holdings.listeners, &listeners)) {
        set_stale(keeper, "a listener cannot be opened, and the log says which and why");
        texts_close(texts);
        return;
    }
    /* From here on nothing fails. */
    keeper_settings_replaces(keeper, plan);
    listeners_close(&keeper->holdings.listeners, &listeners);
    keeper->holdings.listeners = listeners;
    keeper->plan = *plan;
    texts_close(keeper->texts);
    memcpy(keeper->texts, texts, sizeof(keeper->texts));
    keeper->generation++;
    /* core first: it knows the new routes before anything comes for them. With much mail queued
     * that takes it a while. Should it die meanwhile, it starts with them, and nobody waits. */
    keeper->others_wait = keeper->children[ROLE_CORE].pid != 0;
    child_reload(&keeper->children[ROLE_CORE]);
    log_warnings(warnings);
    set_stale(keeper, "%s", "");
    if (!keeper->others_wait) {
        reload_others(keeper);
    }
}

/* ---- the reader -------------------------------------------------------------------------- */

static void reader_close(struct keeper *keeper)
{
    loop_watch_free(keeper->reader.watch);
    keeper->reader.watch = NULL;
    if (keeper->reader.channel >= 0) {
        close(keeper->reader.channel);
    }
    keeper->reader.channel = -1;
}

static void read_failed(struct keeper *keeper, const char *reason)
{
    log_event(LOG_LEVEL_ERROR, keeper->phase == KEEPER_STARTING ? "cannot-start" : "reload-refused",
              LOG_TEXT("file", keeper->config_path), LOG_TEXT("reason", reason));
    if (keeper->phase == KEEPER_STARTING) {
        keeper_stop(keeper, 1);
    } else {
        set_stale(keeper, "%s", reason);
    }
}

/* At the start the person who typed reads them; later the log does. */
static void say_errors(struct keeper *keeper, struct slice text)
{
    if (keeper->phase == KEEPER_STARTING) {
        fprintf(stderr, "%.*s", SLICE_PRINT(text));
    } else {
        struct slice first = slice_take(text, slice_find(text, '\n'));
        bool more = first.length + 1 < text.length;
        log_lines(LOG_LEVEL_ERROR, "reload-refused", text);
        set_stale(keeper, "%.*s%s", SLICE_PRINT(slice_take(first, KEEPER_STALE_SIZE - 24)),
                  more ? "; and there is more" : "");
    }
}

static void take_refusal(struct keeper *keeper, struct keeper_message *message)
{
    char *text;
    size_t length;
    enum error error = keeper_text_from_descriptor(message->descriptors[0], &text, &length);
    keeper_message_close(message);
    if (error != ERROR_NONE) {
        read_failed(keeper, error_text(error));
        return;
    }
    say_errors(keeper, slice_make(text, length));
    free(text);
    if (keeper->phase == KEEPER_STARTING) {
        keeper_stop(keeper, 1);
    }
}

static void take_plan(struct keeper *keeper, struct keeper_message *message)
{
    static struct plan plan; /* large; used by this call only */
    if (!plan_get(message->bytes, &plan)) {
        keeper_message_close(message);
        read_failed(keeper, "the reader answered nonsense");
        return;
    }
    bool shares = plan.standby.of[0] != '\0';
    if (keeper->phase == KEEPER_STARTING && shares != (keeper->lease.page >= 0)) {
        keeper->plan = plan;
        keeper->stands_by = shares;
        texts_close(message->descriptors + 1);
        if (!shares) { /* the block has gone since the warden read it */
            read_failed(keeper, "there is no standby block any more");
        }
        loop_stop(keeper->loop);
    } else if (keeper->phase == KEEPER_STARTING) {
        start_all(keeper, &plan, message->descriptors + 1, message->descriptors[0]);
    } else {
        reload_all(keeper, &plan, message->descriptors + 1, message->descriptors[0]);
    }
    close(message->descriptors[0]);
}

static void reader_heard(void *context, unsigned ready)
{
    (void)ready;
    struct keeper *keeper = context;
    struct keeper_message message;
    enum error error = keeper_receive(keeper->reader.channel, keeper->buffer, &message);
    if (error == ERROR_AGAIN) {
        return;
    }
    reader_close(keeper);
    if (keeper->phase == KEEPER_STOPPING) {
        if (error == ERROR_NONE) {
            keeper_message_close(&message);
        }
    } else if (error != ERROR_NONE) {
        read_failed(keeper, "the reader ended without an answer");
    } else if (message.kind == KEEPER_PLAN) {
        take_plan(keeper, &message);
    } else if (message.kind == KEEPER_REFUSED) {
        take_refusal(keeper, &message);
    } else {
        keeper_message_close(&message);
        read_failed(keeper, "the reader answered nonsense");
    }
    reload_if_wanted(keeper);
}

/* `copy`: of the cluster's settings, instead of the last good one; READER_TO_START; or NULL. */
static void start_reader(struct keeper *keeper, const char *copy)
{
    struct keeper_reader *reader = &keeper->reader;
    reader->pid = keeper_spawn("reader", keeper->config_path, copy, &reader->channel);
    if (reader->pid > 0) {
        reader->watch = loop_watch_new(keeper->loop, reader->channel, reader_heard, keeper);
    }
    if (reader->pid <= 0 || reader->watch == NULL) {
        reader_close(keeper);
        read_failed(keeper, strerror(errno));
        return;
    }
    loop_watch_set(reader->watch, LOOP_READ);
}

void keeper_read_with(struct keeper *keeper, const char *copy)
{
    start_reader(keeper, copy);
}

/* Its end is seen on its channel. */
void keeper_end_reader(struct keeper *keeper)
{
    if (keeper->reader.channel >= 0) {
        kill(keeper->reader.pid, SIGKILL);
    }
}

void keeper_reload(struct keeper *keeper)
{
    keeper->reload_wanted = true;
    reload_if_wanted(keeper);
}

/* ---- signals ----------------------------------------------------------------------------- */

static void bury(struct keeper *keeper)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        /* The reader's end is seen on its channel. */
        (void)children_ended(keeper, pid, status);
        if (keeper->others_wait && keeper->children[ROLE_CORE].pid == 0 &&
            keeper->phase == KEEPER_RUNNING) {
            reload_others(keeper);
        }
        reload_if_wanted(keeper);
    }
}

static void signal_ready(void *context, unsigned ready)
{
    (void)ready;
    struct keeper *keeper = context;
    struct signalfd_siginfo info;
    while (read(keeper->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        switch (info.ssi_signo) {
        case SIGCHLD:
            bury(keeper);
            break;
        case SIGHUP:
            keeper_settings_forgive(keeper);
            keeper_reload(keeper);
            break;
        default:
            keeper_stop(keeper, 0);
            break;
        }
    }
}

static bool watch_signals(struct keeper *keeper)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    /* An ignored SIGCHLD, inherited, would bury the children unseen. */
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_BLOCK, &set, NULL);
    keeper->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (keeper->signals < 0) {
        return false;
    }
    keeper->signals_watch = loop_watch_new(keeper->loop, keeper->signals, signal_ready, keeper);
    if (keeper->signals_watch == NULL) {
        return false;
    }
    loop_watch_set(keeper->signals_watch, LOOP_READ);
    return true;
}

/* ---- all --------------------------------------------------------------------------------- */

/* Many sessions are many descriptors; the children inherit it. Root may go beyond what it was
 * given. */
static void raise_limits(void)
{
    enum { ENOUGH = 1 << 16 };
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < ENOUGH) {
        limit = (struct rlimit){ENOUGH, ENOUGH};
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool keeper_init(struct keeper *keeper, const char *config_path)
{
    keeper->config_path = config_path;
    for (int i = 0; i < KEEPER_TEXTS; i++) {
        keeper->texts[i] = -1;
    }
    keeper->signals = -1;
    keeper->reader.channel = -1;
    holdings_init(&keeper->holdings);
    dials_init(keeper);
    keeper->loop = loop_new();
    return keeper->loop != NULL && children_init(keeper) && keeper_settings_init(keeper) &&
           watch_signals(keeper);
}

static void keeper_done(struct keeper *keeper)
{
    reader_close(keeper);
    loop_watch_free(keeper->signals_watch);
    if (keeper->signals >= 0) {
        close(keeper->signals);
    }
    dials_close(keeper);
    dial_close_lists(keeper);
    keeper_settings_done(keeper);
    children_done(keeper);
    holdings_close(&keeper->holdings, &keeper->plan);
    texts_close(keeper->texts);
    loop_free(keeper->loop);
    free(keeper);
}

int keeper_run(const char *config_path, const struct keeper_lease *lease)
{
    static struct plan shared; /* large; the warden's for as long as the process lives */
    struct keeper *keeper = calloc(1, sizeof(*keeper));
    if (keeper != NULL) {
        keeper->lease = *lease;
    }
    if (log_open(LOG_TO_STDERR, LOG_LEVEL_INFO, "keeper") != ERROR_NONE || keeper == NULL ||
        !keeper_init(keeper, config_path)) {
        fprintf(stderr, "holdfastd: cannot start: %s\n", strerror(errno));
        return 1;
    }
    raise_limits();
    start_reader(keeper, READER_TO_START);
    loop_run(keeper->loop);
    int status = keeper->exit_status;
    if (keeper->announced) {
        log_event(LOG_LEVEL_INFO, "stopped", LOG_NUMBER("status", status));
    }
    bool stands_by = keeper->stands_by;
    shared = keeper->plan;
    keeper_done(keeper);
    return stands_by ? warden_run(config_path, &shared) : status;
}
