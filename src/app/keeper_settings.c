/* SPDX-License-Identifier: Apache-2.0
 *
 * The cluster's settings: helper brings a version, and this node takes it on or does not.
 *
 *   offered    its bytes, unread, become the file SETTINGS_COPY.next; its number is noted in
 *              SETTINGS_COPY.trial; the reader reads the configuration with them
 *   trial      all was good, the listeners are bound, and every process has been given it, core
 *              first; when each has taken it on, a second begins in which none may die; after that
 *              each is asked whether it lives, and answers when all of its loops have turned
 *   taken      SETTINGS_COPY.next becomes SETTINGS_COPY, the note goes
 *
 * That says nothing of what only mail or time brings about. The reader may refuse: then nothing has
 * happened. Whoever has not done his part in LIMIT_MS is killed. If a process dies during the
 * trial, all go back to what they had, and the note becomes SETTINGS_COPY.bad: that version is not
 * taken here again. If all of the program dies, the note is found at its next start, which begins
 * with SETTINGS_COPY as ever, and comes to the same. Until SIGHUP: whoever sends it may know
 * better.
 */
#include "app/keeper_internal.h"
#include "service/whole_file.h"
#include "sys/fdpass.h"
#include "sys/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT_COPY SETTINGS_COPY ".next"
#define TRIAL_NOTE SETTINGS_COPY ".trial"
#define BAD_NOTE SETTINGS_COPY ".bad"

enum {
    TRIAL_MS = 1000,
    LIMIT_MS = 60000, /* a hang is no life; much queued mail may take core its time */
};

static void tell(struct keeper_settings *settings, uint64_t number, enum settings_outcome outcome,
                 const char *problem)
{
    struct settings_result result = {.number = number, .outcome = outcome};
    snprintf(result.problem, sizeof(result.problem), "%s", problem);
    if (settings->link >= 0) {
        /* Without room it asks again. */
        (void)!settings_result_send(settings->link, &result);
    }
}

/* ---- files ------------------------------------------------------------------------------- */

/* Ours alone: there are secrets in it. */
static enum error open_directory(struct keeper_settings *settings, bool make)
{
    int state = settings->keeper->holdings.state;
    if (settings->disk != NULL) {
        return ERROR_NONE;
    }
    if (make && mkdirat(state, SETTINGS_COPY_DIRECTORY, 0700) != 0 && errno != EEXIST) {
        return error_from_errno(errno);
    }
    int fd =
        openat(state, SETTINGS_COPY_DIRECTORY, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 ? disk_from_descriptor(fd, &settings->disk) : error_from_errno(errno);
}

/* The number in a note; 0: there is none. */
static uint64_t read_note(struct keeper_settings *settings, const char *name)
{
    struct disk *disk = settings->disk;
    struct disk_file *file;
    char text[24];
    uint64_t size = 0, number = 0;
    if (disk->ops->open(disk, name, DISK_READ, &file) != ERROR_NONE) {
        return 0;
    }
    if (disk->ops->size(file, &size) == ERROR_NONE && size < sizeof(text) &&
        disk->ops->read(file, 0, text, (size_t)size) == ERROR_NONE) {
        (void)!slice_to_u64(slice_make(text, (size_t)size), &number);
    }
    disk->ops->close(file);
    return number;
}

static enum error write_note(struct keeper_settings *settings, uint64_t number)
{
    char text[24];
    int length = snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
    return whole_file_put(settings->disk, TRIAL_NOTE, slice_make(text, (size_t)length));
}

static enum error keep_offer(struct keeper_settings *settings, uint64_t number, int fd)
{
    char *bytes;
    size_t length;
    enum error error = open_directory(settings, true);
    if (error == ERROR_NONE) {
        error = keeper_text_from_descriptor(fd, &bytes, &length);
    }
    if (error != ERROR_NONE) {
        return error;
    }
    error = length <= SETTINGS_VERSION_BYTES_MAX
                ? whole_file_put(settings->disk, NEXT_COPY, slice_make(bytes, length))
                : ERROR_LIMIT;
    free(bytes);
    return error == ERROR_NONE ? write_note(settings, number) : error;
}

/* No version is on trial any more. */
static void forget_offer(struct keeper_settings *settings)
{
    (void)!settings->disk->ops->unlink(settings->disk, NEXT_COPY);
    (void)!settings->disk->ops->unlink(settings->disk, TRIAL_NOTE);
}

/* After a power cut a version that was good must not look as if its trial had no end. */
static void settle_names(struct keeper_settings *settings)
{
    enum error error = settings->disk->ops->sync_directory(settings->disk);
    if (error != ERROR_NONE) {
        log_event(LOG_LEVEL_WARNING, "settings-not-synced", LOG_TEXT("reason", error_text(error)));
    }
}

static void mark_bad(struct keeper_settings *settings, uint64_t number, const char *why)
{
    settings->bad = number;
    snprintf(settings->trouble, sizeof(settings->trouble), "version %llu of the settings: %s",
             (unsigned long long)number, why);
    (void)!settings->disk->ops->rename(settings->disk, TRIAL_NOTE, BAD_NOTE);
    (void)!settings->disk->ops->unlink(settings->disk, NEXT_COPY);
    settle_names(settings);
    log_event(LOG_LEVEL_ERROR, "settings-bad", LOG_NUMBER("version", (int64_t)number),
              LOG_TEXT("reason", why));
}

/* ---- a trial ----------------------------------------------------------------------------- */

static void texts_forget(int texts[KEEPER_TEXTS])
{
    for (int i = 0; i < KEEPER_TEXTS; i++) {
        if (texts[i] >= 0) {
            close(texts[i]);
        }
        texts[i] = -1;
    }
}

static void end_trial(struct keeper_settings *settings)
{
    loop_timer_cancel(settings->timer);
    loop_timer_cancel(settings->limit);
    settings->hung = false;
    texts_forget(settings->before);
    settings->phase = SETTINGS_IDLE;
}

static void trial_is_over(struct keeper_settings *settings)
{
    uint64_t number = settings->number;
    enum error error = settings->disk->ops->rename(settings->disk, NEXT_COPY, SETTINGS_COPY);
    if (error != ERROR_NONE) {
        log_event(LOG_LEVEL_ERROR, "settings-not-kept", LOG_NUMBER("version", (int64_t)number),
                  LOG_TEXT("reason", error_text(error)));
    }
    forget_offer(settings);
    (void)!settings->disk->ops->unlink(settings->disk, BAD_NOTE);
    settle_names(settings);
    settings->bad = 0;
    settings->trouble[0] = '\0';
    end_trial(settings);
    log_event(LOG_LEVEL_INFO, "settings-taken", LOG_NUMBER("version", (int64_t)number));
    tell(settings, number, SETTINGS_TAKEN, "");
    keeper_settings_settled(settings->keeper);
}

static void ask_all(void *context)
{
    struct keeper_settings *settings = context;
    settings->phase = SETTINGS_ASKED;
    settings->question++;
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct child *child = &settings->keeper->children[role];
        child->answered = false;
        child_ask(child, settings->question);
    }
}

void keeper_settings_answered(struct keeper *keeper, struct child *child, uint32_t question)
{
    struct keeper_settings *settings = &keeper->settings;
    child->answered = question == settings->question;
    bool all = settings->phase == SETTINGS_ASKED;
    for (int role = 0; all && role < ROLE_COUNT; role++) {
        all = keeper->children[role].answered;
    }
    if (all) {
        trial_is_over(settings);
    }
}

/* Has it done its part? Before core has, the others have nothing to do. */
static bool is_late(const struct keeper *keeper, const struct child *child)
{
    if (keeper->settings.phase == SETTINGS_ASKED) {
        return !child->answered;
    }
    bool has_turn = child->role == ROLE_CORE || !keeper->others_wait;
    return has_turn && (!child->ready || child->generation != keeper->generation);
}

/* Their deaths end the trial. */
static void limit_is_reached(void *context)
{
    struct keeper_settings *settings = context;
    struct keeper *keeper = settings->keeper;
    if (settings->phase == SETTINGS_READ) {
        log_event(LOG_LEVEL_ERROR, "killed", LOG_TEXT("process", "reader"),
                  LOG_TEXT("reason", "did not answer in time"));
        keeper_end_reader(keeper);
        return;
    }
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct child *child = &keeper->children[role];
        if (child->pid != 0 && is_late(keeper, child)) {
            log_event(LOG_LEVEL_ERROR, "killed", LOG_TEXT("process", role_name(child->role)),
                      LOG_TEXT("reason", "did not take on the settings in time"));
            settings->hung = true;
            kill(child->pid, SIGKILL);
        }
    }
    if (!settings->hung) {
        loop_timer_set(settings->limit, TRIAL_MS); /* in its last second */
    }
}

void keeper_settings_ready(struct keeper *keeper)
{
    struct keeper_settings *settings = &keeper->settings;
    for (int role = 0; role < ROLE_COUNT; role++) {
        const struct child *child = &keeper->children[role];
        if (!child->ready || child->generation != keeper->generation) {
            return;
        }
    }
    if (settings->phase == SETTINGS_TRIED) {
        settings->phase = SETTINGS_WATCHED;
        loop_timer_set(settings->timer, TRIAL_MS);
    }
}

bool keeper_settings_read(struct keeper *keeper, const char *problem)
{
    struct keeper_settings *settings = &keeper->settings;
    if (settings->conflicts && problem[0] == '\0') {
        settings->conflicts = false;
        settings->trouble[0] = '\0';
    }
    if (settings->phase != SETTINGS_READ) {
        return false;
    }
    if (problem[0] == '\0') {
        settings->phase = SETTINGS_TRIED;
        return true;
    }
    forget_offer(settings);
    snprintf(settings->trouble, sizeof(settings->trouble), "version %llu of the settings: %s",
             (unsigned long long)settings->number, problem);
    end_trial(settings);
    tell(settings, settings->number, SETTINGS_REFUSED, problem);
    return true;
}

void keeper_settings_replaces(struct keeper *keeper, const struct plan *new)
{
    struct keeper_settings *settings = &keeper->settings;
    if (settings->phase != SETTINGS_READ) {
        return;
    }
    /* With other listeners the texts before do not go. */
    const struct plan *old = &keeper->plan;
    bool same = old->listener_count ==
                new->listener_count &&memcmp(old->listeners, new->listeners,
                                             old->listener_count * sizeof(old->listeners[0])) == 0;
    for (int i = 0; same && i < KEEPER_TEXTS; i++) {
        settings->before[i] = fcntl(keeper->texts[i], F_DUPFD_CLOEXEC, 0);
        same = settings->before[i] >= 0;
    }
    if (!same) {
        texts_forget(settings->before);
    }
}

bool keeper_settings_died(struct keeper *keeper, enum role role)
{
    struct keeper_settings *settings = &keeper->settings;
    char why[64];
    if (settings->phase == SETTINGS_IDLE || settings->phase == SETTINGS_READ) {
        return false;
    }
    snprintf(why, sizeof(why), "%s %s", role_name(role),
             settings->hung ? "hung with it" : "died of it");
    mark_bad(settings, settings->number, why);
    if (settings->before[0] >= 0) {
        /* What died begins again with what it had, and so, a moment later, do the others. */
        for (int i = 0; i < KEEPER_TEXTS; i++) {
            close(keeper->texts[i]);
            keeper->texts[i] = settings->before[i];
            settings->before[i] = -1;
        }
        keeper->generation++;
    }
    end_trial(settings);
    tell(settings, settings->number, SETTINGS_DIED, why);
    return true;
}

void keeper_settings_forgive(struct keeper *keeper)
{
    struct keeper_settings *settings = &keeper->settings;
    if (settings->bad != 0) {
        settings->bad = 0;
        (void)!settings->disk->ops->unlink(settings->disk, BAD_NOTE);
    }
}

/* ---- the link ---------------------------------------------------------------------------- */

static void take_offer(struct keeper_settings *settings, uint64_t number, int fd)
{
    if (number != 0 && number == settings->bad) {
        tell(settings, number, SETTINGS_DIED, "this node has died of it before");
        return;
    }
    if (settings->phase != SETTINGS_IDLE || !keeper_may_reload(settings->keeper)) {
        tell(settings, number, SETTINGS_BUSY, "");
        return;
    }
    enum error error = keep_offer(settings, number, fd);
    if (error != ERROR_NONE) {
        if (settings->disk != NULL) {
            forget_offer(settings);
        }
        tell(settings, number, SETTINGS_REFUSED, error_text(error));
        return;
    }
    settings->number = number;
    settings->phase = SETTINGS_READ;
    loop_timer_set(settings->limit, LIMIT_MS);
    keeper_read_with(settings->keeper, NEXT_COPY);
}

static void close_link(struct keeper_settings *settings)
{
    loop_watch_free(settings->watch);
    settings->watch = NULL;
    if (settings->link >= 0) {
        close(settings->link);
    }
    settings->link = -1;
}

static void link_heard(void *context, unsigned ready)
{
    (void)ready;
    struct keeper_settings *settings = context;
    uint64_t number;
    int fd;
    enum error error = settings_offer_receive(settings->link, &number, &fd);
    if (error == ERROR_AGAIN) {
        return;
    }
    if (error != ERROR_NONE) {
        close_link(settings); /* it has gone, or talks nonsense: no more from it */
        return;
    }
    take_offer(settings, number, fd);
    close(fd);
}

enum error keeper_settings_link(struct keeper *keeper, int *ret_link)
{
    struct keeper_settings *settings = &keeper->settings;
    int ends[2];
    close_link(settings);
    enum error error = fdpass_pair(ends);
    if (error != ERROR_NONE) {
        return error;
    }
    settings->link = ends[0];
    settings->watch = loop_watch_new(keeper->loop, settings->link, link_heard, settings);
    if (settings->watch == NULL) {
        close_link(settings);
        close(ends[1]);
        return ERROR_MEMORY;
    }
    loop_watch_set(settings->watch, LOOP_READ);
    if (settings->bad != 0) {
        tell(settings, settings->bad, SETTINGS_DIED, "this node has died of it before");
    }
    *ret_link = ends[1];
    return ERROR_NONE;
}

/* ---- all --------------------------------------------------------------------------------- */

bool keeper_settings_init(struct keeper *keeper)
{
    struct keeper_settings *settings = &keeper->settings;
    settings->keeper = keeper;
    settings->link = -1;
    for (int i = 0; i < KEEPER_TEXTS; i++) {
        settings->before[i] = -1;
    }
    settings->timer = loop_timer_new(keeper->loop, ask_all, settings);
    settings->limit = loop_timer_new(keeper->loop, limit_is_reached, settings);
    return settings->timer != NULL && settings->limit != NULL;
}

void keeper_settings_start(struct keeper *keeper)
{
    struct keeper_settings *settings = &keeper->settings;
    if (open_directory(settings, false) != ERROR_NONE) {
        return; /* there is none: this is no member yet */
    }
    uint64_t number = read_note(settings, TRIAL_NOTE);
    const char *conflict = settings->keeper->plan.conflict;
    if (conflict[0] != '\0') {
        settings->conflicts = true;
        snprintf(settings->trouble, sizeof(settings->trouble), "the node's own file holds: %s",
                 conflict);
    }
    if (number != 0) {
        mark_bad(settings, number, "this node died while it tried it");
    } else {
        settings->bad = read_note(settings, BAD_NOTE);
    }
    forget_offer(settings);
}

void keeper_settings_done(struct keeper *keeper)
{
    struct keeper_settings *settings = &keeper->settings;
    if (settings->phase != SETTINGS_IDLE) {
        forget_offer(settings); /* we end in order: it has killed nobody */
    }
    close_link(settings);
    texts_forget(settings->before);
    loop_timer_free(settings->timer);
    loop_timer_free(settings->limit);
    disk_free(settings->disk);
}
