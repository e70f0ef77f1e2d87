/* SPDX-License-Identifier: Apache-2.0
 *
 * The course of things.
 *
 *   WATCHING --may take--> [FENCING] --> CLAIMING --> PREPARING --> WORKING
 *      ^  ^                    |            |             |            |  keeper ends, lease lost,
 *      |  +------ fails -------+--- fails --+             |            |  by command, to stop
 *      |                                                  v            v
 *      +--------------- MARKING <-- RELEASING <-------- ENDING <-------+
 *
 * Once a second a round goes to the worker: it renews the lease or says that we stand by, and looks
 * at what the other machine has written. Its end is the only place where a lease is taken. That the
 * lease is over is seen here by the clock alone, ten times a second, whatever the worker hangs in;
 * core sees it by itself (service/lease_page.h).
 */
#include "app/warden.h"

#include "app/notify.h"
#include "app/warden_internal.h"
#include "sys/clock.h"
#include "sys/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CHECK_MS = 100,
    FRESH_MS = 4 * LEASE_RENEW_MS, /* who has not been seen for so long does not stand by now */
    LOCK_TRIES = 40,
    LOCK_PAUSE_US = 50000,
    MARK_LIMIT_MS = 10000, /* who is to stop does not wait longer for storage that hangs */
};

static void go_on(struct warden *warden);
static void keeper_ready(void *context, unsigned ready);

static void say(const struct warden *warden, enum log_level level, const char *event,
                const char *reason)
{
    log_event(level, event, LOG_TEXT("name", warden->plan->standby.name),
              LOG_TEXT("of", warden->plan->standby.of), LOG_NUMBER("token", warden->record.token),
              LOG_TEXT("reason", reason));
}

static bool holds(const struct warden *warden)
{
    return warden->lease != NULL;
}

static bool at_work(const struct warden *warden)
{
    return warden->state == WARDEN_PREPARING || warden->state == WARDEN_WORKING;
}

static void change(struct warden *warden, enum warden_state state)
{
    warden->state = state;
}

/* ---- watching ---------------------------------------------------------------------------- */

static void watch_anew(struct warden *warden)
{
    warden->watch = (struct lease_watch){0};
    warden->answered_ms = clock_steady_ms();
    warden->since_ms = clock_wall_ms();
    change(warden, WARDEN_WATCHING);
    if (warden->quitting) {
        loop_stop(warden->loop);
        return;
    }
    char status[200];
    snprintf(status, sizeof(status), "READY=1\nSTATUS=standing by for %s",
             warden->plan->standby.of);
    notify_manager(status);
}

/* ---- taking over ------------------------------------------------------------------------- */

static void claimed(void *context);

static void note_used(struct warden *warden, uint32_t token)
{
    warden->used = token > warden->used ? token : warden->used;
}

static void claim(struct warden *warden, bool fenced)
{
    const struct plan_standby *standby = &warden->plan->standby;
    struct warden_claim *claim = &warden->claim;
    const struct lease_view *view = &warden->look.view;
    *claim = (struct warden_claim){.warden = warden,
                                   .fenced = fenced,
                                   .newest = view->token,
                                   .was_short = lease_view_is_short(view),
                                   .alone = -1};
    struct lease_record *record = &claim->record;
    *record = (struct lease_record){.token = lease_view_next(view),
                                    .hold_ms = lease_hold_ms(standby->after_ms),
                                    .since_ms = clock_wall_ms()};
    memcpy(record->machine, warden->machine, LEASE_MACHINE);
    snprintf(record->name, sizeof(record->name), "%s", standby->name);
    change(warden, WARDEN_CLAIMING);
    warden->under_way =
        worker_submit(warden->worker, warden_claim_run, claimed, claim) == ERROR_NONE;
    if (!warden->under_way) {
        change(warden, WARDEN_WATCHING);
    }
}

static void begin_work(struct warden *warden)
{
    change(warden, WARDEN_WORKING);
    warden->trouble = LEASE_WELL;
    say(warden, LOG_LEVEL_INFO, "standby-works", warden->took_from_other ? "taken over" : "begun");
    if (!warden_keeper_start(warden)) {
        say(warden, LOG_LEVEL_ERROR, "takeover-failed", strerror(errno));
        warden->trouble = LEASE_DAEMON_FAILED;
        warden->how = LEASE_LOST;
        change(warden, WARDEN_ENDING);
        go_on(warden);
        return;
    }
    loop_watch_free(warden->ready_watch);
    warden->ready_watch = loop_watch_new(warden->loop, warden->ready_fd, keeper_ready, warden);
    if (warden->ready_watch != NULL) {
        loop_watch_set(warden->ready_watch, LOOP_READ);
    }
}

/* Once: it is tried again each second. */
static void claim_said(struct warden *warden, enum error error)
{
    if (error != ERROR_NONE && error != warden->claim_error) {
        log_event(error == ERROR_DENIED ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "claim",
                  LOG_TEXT("path", warden->plan->state),
                  LOG_TEXT("reason", error == ERROR_EXISTS    ? "the other machine was faster"
                                     : error == ERROR_AGAIN   ? "an earlier process of ours "
                                                                "is still there"
                                     : error == ERROR_DENIED  ? "a holdfastd without a standby "
                                                                "block works on this directory"
                                     : error == ERROR_MISSING ? warden->storage_reason
                                                              : error_text(error)));
    }
    warden->claim_error = error;
}

static void claimed(void *context)
{
    struct warden_claim *claim = context;
    struct warden *warden = claim->warden;
    const struct plan_standby *standby = &warden->plan->standby;
    warden->under_way = false;
    claim_said(warden, claim->error);
    note_used(warden, warden->journal_token);
    if (claim->error != ERROR_NONE) {
        change(warden, WARDEN_WATCHING);
        if (warden->quitting) {
            loop_stop(warden->loop);
        }
        return;
    }
    note_used(warden, claim->record.token);
    warden->record = claim->record;
    warden->lease = claim->file;
    warden->alone = claim->alone;
    warden->how = LEASE_LOST;
    warden->begun = false;
    warden->other_looked = false;
    struct lease_page *page = warden->page;
    *page = (struct lease_page){.token = claim->record.token,
                                .after_ms = standby->after_ms,
                                .since_ms = claim->record.since_ms,
                                .taken_over = warden->took_from_other};
    memcpy(page->name, standby->name, sizeof(page->name));
    memcpy(page->of, standby->of, sizeof(page->of));
    atomic_store(&page->ended_token,
                 claim->open_token != 0 ? claim->open_token - 1 : claim->record.token - 1);
    atomic_store(&page->until_ms, claim->began_ms + (int64_t)claim->record.hold_ms);
    if (warden->quitting) { /* told while it was being taken */
        warden->how = LEASE_STOPPED;
        change(warden, WARDEN_ENDING);
        go_on(warden);
        return;
    }
    warden->begun = true;
    change(warden, WARDEN_PREPARING);
    if (!warden_program_start(warden, standby->before, "before-takeover")) {
        begin_work(warden);
    }
}

static void take_over(struct warden *warden)
{
    const struct plan_standby *standby = &warden->plan->standby;
    const struct lease_view *view = &warden->look.view;
    bool ours = view->readable && strcmp(view->record.name, standby->name) == 0;
    bool is_short = lease_view_is_short(view);
    warden->took_from_other = is_short || (view->token != 0 && view->end == LEASE_GOES_ON && !ours);
    if (warden->took_from_other) {
        say(warden, LOG_LEVEL_WARNING, "taking-over",
            is_short ? "the leases have been removed" : "the other machine gives no sign of life");
        change(warden, WARDEN_FENCING);
        if (standby->fence[0] != '\0') {
            if (!warden_program_start(warden, standby->fence, "fence")) {
                watch_anew(warden);
            }
            return;
        }
    }
    claim(warden, false);
}

/* ---- rounds ------------------------------------------------------------------------------ */

static void storage_said(struct warden *warden, enum error error)
{
    if (error != ERROR_NONE && !warden->storage_fails) {
        log_event(LOG_LEVEL_ERROR, "standby-storage", LOG_TEXT("path", warden->plan->state),
                  LOG_TEXT("reason", warden->disk == NULL && warden->storage_reason[0] != '\0'
                                         ? warden->storage_reason
                                         : error_text(error)));
    } else if (error == ERROR_NONE && warden->storage_fails) {
        log_event(LOG_LEVEL_INFO, "standby-storage", LOG_TEXT("path", warden->plan->state),
                  LOG_TEXT("reason", "it is there again"));
    }
    warden->storage_fails = error != ERROR_NONE;
}

static void looked_watching(struct warden *warden, const struct warden_round *round)
{
    const struct plan_standby *standby = &warden->plan->standby;
    const struct lease_view *view = &round->look.view;
    bool was_short = warden->is_short;
    warden->is_short = lease_view_is_short(view);
    if (warden->is_short && !was_short) {
        say(warden, LOG_LEVEL_ERROR, "leases-gone",
            "others have been here than the files of standby say: it is waited for their end");
    }
    lease_watch_saw(&warden->watch, view, round->look_ended_ms);
    warden->answered_ms = round->answers ? round->look_ended_ms : warden->answered_ms;
    if (!warden->quitting &&
        lease_may_take(view, &warden->watch, slice_from_text(standby->name), warden->machine,
                       standby->after_ms, round->look_began_ms)) {
        take_over(warden);
    }
}

static void looked_holding(struct warden *warden, const struct warden_round *round)
{
    const struct lease_look *look = &round->look;
    struct lease_page *page = warden->page;
    uint32_t token = warden->record.token;
    if (round->gone || look->view.token != token) {
        if (at_work(warden)) {
            say(warden, LOG_LEVEL_ERROR, "lease-gone",
                round->gone                ? warden->storage_reason
                : look->view.token > token ? "the other machine has taken over"
                                           : "its file has been removed");
        }
        atomic_store(&page->until_ms, INT64_MIN); /* at once, and whatever is there is not ours */
        return;
    }
    uint32_t open_token =
        look->open_token != 0 && look->open_token < token ? look->open_token : token;
    atomic_store(&page->ended_token, open_token - 1);
    uint64_t counter = look->other_known ? look->other.counter : 0;
    if (warden->other_looked && look->other_known && counter != warden->other_counter) {
        atomic_store(&page->other_seen_ms, round->look_ended_ms);
    }
    warden->other_counter = counter;
    warden->other_looked = true;
    int64_t seen_ms = atomic_load(&page->other_seen_ms);
    bool stands_by = seen_ms != 0 && round->look_ended_ms - seen_ms < FRESH_MS;
    if (look->wanted && stands_by && warden->state == WARDEN_WORKING) {
        say(warden, LOG_LEVEL_INFO, "handing-over", "by command");
        warden->how = LEASE_HANDED;
        change(warden, WARDEN_ENDING);
        kill(warden->keeper, SIGTERM);
    }
    warden->round.forget_wanted = look->wanted && !stands_by;
}

static void round_done(void *context)
{
    struct warden_round *round = context;
    struct warden *warden = round->warden;
    warden->under_way = false;
    enum error error = round->renew_error != ERROR_NONE ? round->renew_error : round->look_error;
    storage_said(warden, error);
    if (round->look_error != ERROR_NONE) {
        go_on(warden);
        return;
    }
    note_used(warden, warden->journal_token);
    note_used(warden, round->look.view.token);
    round->look.view.used = warden->used;
    warden->look = round->look;
    warden->settled |= round->settled;
    if (warden->state == WARDEN_WATCHING && !round->renew) {
        looked_watching(warden, round);
    } else if (holds(warden) && round->renew) {
        looked_holding(warden, round);
    }
    go_on(warden);
}

static void start_round(struct warden *warden)
{
    struct warden_round *round = &warden->round;
    const struct plan_standby *standby = &warden->plan->standby;
    int64_t now_ms = clock_steady_ms();
    bool forget_wanted = round->forget_wanted;
    *round = (struct warden_round){.warden = warden, .renew = holds(warden)};
    if (holds(warden)) {
        warden->record.counter++;
        round->record = warden->record;
        round->forget_wanted = forget_wanted;
    } else {
        int64_t age_ms = warden->watch.token != 0 ? now_ms - warden->watch.seen_ms : 0;
        round->record = (struct lease_record){
            .token = warden->watch.token,
            .hold_ms = (uint32_t)(age_ms < LEASE_AFTER_MOST_MS ? age_ms : LEASE_AFTER_MOST_MS),
            .counter = ++warden->counter,
            .since_ms = warden->since_ms,
            .trouble = warden->trouble};
        memcpy(round->record.machine, warden->machine, LEASE_MACHINE);
        snprintf(round->record.name, sizeof(round->record.name), "%s", standby->name);
        round->settle = !warden->settled;
        round->ask = now_ms - warden->answered_ms > (int64_t)standby->after_ms;
        if (round->ask) {
            log_event(LOG_LEVEL_WARNING, "standby-asks", LOG_TEXT("of", standby->of),
                      LOG_TEXT("reason", "none of its ports answers"));
            warden->answered_ms = now_ms;
        }
    }
    warden->under_way =
        worker_submit(warden->worker, warden_round_run, round_done, round) == ERROR_NONE;
}

static void beat(void *context)
{
    struct warden *warden = context;
    loop_timer_set(warden->beat, LEASE_RENEW_MS);
    bool idle = warden->state == WARDEN_FENCING || warden->state == WARDEN_MARKING ||
                warden->state == WARDEN_CLAIMING;
    if (!warden->under_way && !idle) {
        start_round(warden);
    }
    go_on(warden);
}

/* ---- ending ------------------------------------------------------------------------------ */

static void marked(void *context)
{
    struct warden_mark *mark = context;
    struct warden *warden = mark->warden;
    warden->under_way = false;
    storage_said(warden, mark->error);
    /* Where the directory has gone nobody looks for it. */
    if (mark->error != ERROR_NONE && mark->error != ERROR_MISSING && !warden->quitting) {
        return; /* the other one waits for it, or for the time: it is tried again */
    }
    warden->disk->ops->close(warden->lease);
    warden->lease = NULL;
    close(warden->alone);
    warden->alone = -1;
    say(warden, LOG_LEVEL_INFO, "standby-ended",
        mark->how == LEASE_HANDED    ? "handed over"
        : mark->how == LEASE_STOPPED ? "stopped"
                                     : "it could not go on");
    watch_anew(warden);
}

/* Of what we had, the address first: it does not hang with the storage, and who comes next needs
 * it. */
static void released(struct warden *warden)
{
    warden->marking_ms = clock_steady_ms();
    change(warden, WARDEN_MARKING);
    go_on(warden);
}

static void release(struct warden *warden)
{
    atomic_store(&warden->page->until_ms, INT64_MIN);
    loop_watch_free(warden->ready_watch);
    warden->ready_watch = NULL;
    if (warden->ready_fd >= 0) {
        close(warden->ready_fd);
        warden->ready_fd = -1;
    }
    change(warden, WARDEN_RELEASING);
    if (!warden->begun ||
        !warden_program_start(warden, warden->plan->standby.after_release, "after-release")) {
        released(warden);
    }
}

static void lose(struct warden *warden)
{
    say(warden, LOG_LEVEL_ERROR, "lease-lost",
        "it could not be renewed in time, or was taken over from");
    atomic_store(&warden->page->until_ms, INT64_MIN);
    warden->how = LEASE_LOST;
    if (warden->program != 0) {
        kill(-warden->program, SIGKILL);
    }
    if (warden->keeper != 0) {
        kill(-warden->keeper, SIGKILL);
    }
    change(warden, WARDEN_ENDING);
}

/* What waits for something that may have come. */
static void go_on(struct warden *warden)
{
    if (warden->state == WARDEN_ENDING && warden->program == 0 && warden_keeper_bury(warden)) {
        release(warden);
    } else if (warden->state == WARDEN_MARKING && !warden->under_way) {
        warden->mark = (struct warden_mark){
            .warden = warden, .token = warden->record.token, .how = warden->how};
        warden->under_way =
            worker_submit(warden->worker, warden_mark_run, marked, &warden->mark) == ERROR_NONE;
    }
}

static void check(void *context)
{
    struct warden *warden = context;
    loop_timer_set(warden->check, CHECK_MS);
    bool awaited = warden->state == WARDEN_ENDING && warden->how != LEASE_LOST;
    if ((at_work(warden) || awaited) && clock_steady_ms() >= atomic_load(&warden->page->until_ms)) {
        lose(warden);
    }
    if (warden->quitting && warden->state == WARDEN_MARKING &&
        clock_steady_ms() - warden->marking_ms > MARK_LIMIT_MS) {
        loop_stop(warden->loop); /* the other one knows by the time */
    }
    if (warden->state == WARDEN_ENDING) {
        go_on(warden);
    }
}

/* ---- processes --------------------------------------------------------------------------- */

static void keeper_ready(void *context, unsigned ready)
{
    struct warden *warden = context;
    uint8_t byte;
    (void)ready;
    loop_watch_set(warden->ready_watch, 0);
    if (read(warden->ready_fd, &byte, 1) != 1 || warden->state != WARDEN_WORKING) {
        return;
    }
    char status[200];
    snprintf(status, sizeof(status), "READY=1\nSTATUS=at work; %s stands by, or should",
             warden->plan->standby.of);
    notify_manager(status);
    (void)warden_program_start(warden, warden->plan->standby.after_takeover, "after-takeover");
}

static void program_too_long(void *context)
{
    struct warden *warden = context;
    if (warden->program != 0) {
        warden->program_late = true;
        kill(-warden->program, SIGKILL);
    }
}

static void program_ended(struct warden *warden, int status)
{
    char reason[64];
    bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    loop_timer_cancel(warden->limit);
    warden->program = 0;
    if (warden->program_late) {
        snprintf(reason, sizeof(reason), "killed: it took too long");
    } else if (WIFEXITED(status)) {
        snprintf(reason, sizeof(reason), "exit status %d", WEXITSTATUS(status));
    } else {
        snprintf(reason, sizeof(reason), "signal %d", WTERMSIG(status));
    }
    log_event(good ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, "standby-program",
              LOG_TEXT("event", warden->program_name), LOG_TEXT("reason", reason));
    switch (warden->state) {
    case WARDEN_FENCING:
        if (good && !warden->quitting) {
            claim(warden, true);
        } else {
            log_event(LOG_LEVEL_ERROR, "takeover-failed", LOG_TEXT("reason", "fence has failed"));
            warden->trouble = LEASE_FENCE_FAILED;
            watch_anew(warden); /* and it is tried again, after the time of `after` */
        }
        break;
    case WARDEN_PREPARING:
        if (good && !warden->quitting) {
            begin_work(warden);
            break;
        }
        log_event(LOG_LEVEL_ERROR, "takeover-failed",
                  LOG_TEXT("reason", "before-takeover has failed"));
        warden->trouble = LEASE_PROGRAM_FAILED;
        warden->how = LEASE_LOST;
        change(warden, WARDEN_ENDING);
        break;
    case WARDEN_RELEASING:
        released(warden);
        break;
    default:
        break;
    }
    go_on(warden);
}

static void keeper_ended(struct warden *warden, int status)
{
    warden->keeper_gone = true;
    if (warden->state == WARDEN_WORKING) {
        log_event(LOG_LEVEL_ERROR, "takeover-failed",
                  LOG_TEXT("reason", "the daemon has ended by itself; its log says why"));
        warden->trouble = LEASE_DAEMON_FAILED;
        warden->how = LEASE_LOST;
        change(warden, WARDEN_ENDING);
    } else if (warden->how == LEASE_STOPPED && !(WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
        warden->exit_status = 1;
    }
    go_on(warden);
}

static void bury(struct warden *warden)
{
    int status;
    siginfo_t info;
    for (;;) {
        /* Those of the keeper's group are counted by who waits for the last of them. */
        pid_t pid = warden->program != 0 ? waitpid(warden->program, &status, WNOHANG) : 0;
        if (pid > 0) {
            program_ended(warden, status);
            continue;
        }
        pid = warden->keeper != 0 && !warden->keeper_gone
                  ? waitpid(warden->keeper, &status, WNOHANG)
                  : 0;
        if (pid > 0) {
            keeper_ended(warden, status);
            continue;
        }
        break;
    }
    /* Whom others of ours have left. */
    info.si_pid = 0;
    while (warden->keeper == 0 && warden->program == 0 &&
           waitid(P_ALL, 0, &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0) {
        info.si_pid = 0;
    }
    go_on(warden);
}

/* ---- signals ----------------------------------------------------------------------------- */

static void quit(struct warden *warden)
{
    if (warden->quitting) {
        return;
    }
    warden->quitting = true;
    notify_manager("STOPPING=1");
    if (warden->state == WARDEN_WATCHING) {
        loop_stop(warden->loop);
    } else if (warden->state == WARDEN_WORKING) {
        warden->how = LEASE_STOPPED;
        change(warden, WARDEN_ENDING);
        kill(warden->keeper, SIGTERM);
    } else if (warden->program != 0 && warden->state != WARDEN_RELEASING) {
        kill(-warden->program, SIGTERM); /* what gives the address up is waited for */
    }
}

static void signal_ready(void *context, unsigned ready)
{
    (void)ready;
    struct warden *warden = context;
    struct signalfd_siginfo info;
    while (read(warden->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD) {
            bury(warden);
        } else if (info.ssi_signo != SIGHUP) {
            quit(warden);
        } else if (warden->keeper != 0) {
            kill(warden->keeper, SIGHUP);
        }
    }
}

static bool watch_signals(struct warden *warden)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_BLOCK, &set, NULL);
    warden->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    warden->signals_watch =
        warden->signals < 0 ? NULL
                            : loop_watch_new(warden->loop, warden->signals, signal_ready, warden);
    if (warden->signals_watch != NULL) {
        loop_watch_set(warden->signals_watch, LOOP_READ);
    }
    return warden->signals_watch != NULL;
}

/* ---- all --------------------------------------------------------------------------------- */

static bool complain(const struct warden *warden, const char *what)
{
    log_event(LOG_LEVEL_ERROR, "cannot-start", LOG_TEXT("at", what),
              LOG_TEXT("path", warden->plan->state), LOG_TEXT("reason", strerror(errno)));
    return false;
}

/* Others map it to read only. */
static bool open_page(struct warden *warden)
{
    size_t bytes = sizeof(struct lease_page);
    warden->page_fd = memfd_create("holdfast-lease", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (warden->page_fd < 0 || ftruncate(warden->page_fd, (off_t)bytes) != 0) {
        return false;
    }
    void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, warden->page_fd, 0);
    if (page == MAP_FAILED) {
        return false;
    }
    warden->page = page;
    return fcntl(warden->page_fd, F_ADD_SEALS,
                 F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0;
}

/* Storage that is not there is waited for; another process of our name is not. */
static bool open_files(struct warden *warden)
{
    enum error error = ERROR_AGAIN;
    for (int i = 0; i < LOCK_TRIES && error == ERROR_AGAIN; i++) {
        if (i > 0) {
            usleep(LOCK_PAUSE_US);
        }
        error = warden_storage_open(warden);
    }
    if (error == ERROR_AGAIN) {
        errno = EWOULDBLOCK;
        return complain(warden, warden->storage_reason);
    }
    storage_said(warden, error);
    return true;
}

static bool warden_init(struct warden *warden)
{
    warden->loop = loop_new();
    if (warden->loop == NULL) {
        return false;
    }
    warden->beat = loop_timer_new(warden->loop, beat, warden);
    warden->check = loop_timer_new(warden->loop, check, warden);
    warden->limit = loop_timer_new(warden->loop, program_too_long, warden);
    if (warden->beat == NULL || warden->check == NULL || warden->limit == NULL ||
        !watch_signals(warden) || !open_page(warden)) {
        return complain(warden, "memory");
    }
    if (!open_files(warden)) {
        return false;
    }
    warden->worker = worker_new(warden->loop, "lease");
    return warden->worker != NULL && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0;
}

int warden_run(const char *config_path, const struct plan *plan)
{
    static struct warden warden;
    warden = (struct warden){.config_path = config_path,
                             .plan = plan,
                             .state_fd = -1,
                             .lock = -1,
                             .alone = -1,
                             .signals = -1,
                             .page_fd = -1,
                             .ready_fd = -1};
    if (log_open(plan->log_target, plan->log_level, "warden") != ERROR_NONE ||
        !warden_init(&warden)) {
        return 1;
    }
    warden_machine(warden.machine);
    log_event(LOG_LEVEL_INFO, "standing-by", LOG_TEXT("name", plan->standby.name),
              LOG_TEXT("of", plan->standby.of), LOG_NUMBER("pid", getpid()));
    watch_anew(&warden);
    loop_timer_set(warden.beat, 1);
    loop_timer_set(warden.check, CHECK_MS);
    loop_run(warden.loop);
    log_event(LOG_LEVEL_INFO, "stopped", LOG_NUMBER("status", warden.exit_status));
    /* The worker may hang with the storage; the process need not. */
    _exit(warden.exit_status);
}
