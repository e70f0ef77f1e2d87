/* SPDX-License-Identifier: Apache-2.0
 *
 * The warden's hold on the shared state. It makes nothing where that is not, waits for it, and sees
 * when another directory lies at its path. On the worker's thread, or before there is one.
 */
#include "app/warden_internal.h"
#include "spool/spool.h"
#include "sys/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static void give_reason(struct warden *warden, const char *reason)
{
    snprintf(warden->storage_reason, sizeof(warden->storage_reason), "%s", reason);
}

static enum error fail(struct warden *warden, enum error error, const char *reason)
{
    give_reason(warden, reason);
    warden_storage_close(warden);
    return error;
}

/* A directory of the state; without `make` ERROR_MISSING if it is not there. */
static enum error open_part(const struct warden *warden, const char *name, bool make,
                            struct disk **ret_disk)
{
    if (make && mkdirat(warden->state_fd, name, 0700) != 0 && errno != EEXIST) {
        return ERROR_IO;
    }
    int fd = openat(warden->state_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? ERROR_MISSING : ERROR_IO;
    }
    return disk_from_descriptor(fd, ret_disk);
}

enum error warden_storage_tokens(struct warden *warden, uint32_t *ret_token)
{
    struct disk *spool;
    *ret_token = 0;
    enum error error = open_part(warden, "spool", false, &spool);
    if (error == ERROR_NONE) {
        error = spool_newest_token(spool, ret_token);
        disk_free(spool);
    }
    return error == ERROR_MISSING ? ERROR_NONE : error;
}

static enum error open_shared(struct warden *warden)
{
    const struct plan *plan = warden->plan;
    struct shared_state shared;
    bool remembered = true;
    enum shared_verdict verdict =
        shared_state_look(plan->state, plan->standby.known, plan->standby.name, &shared);
    bool is_new = verdict == SHARED_NEW;
    if (verdict == SHARED_OURS || is_new) {
        verdict = shared_state_settle(plan->state, plan->standby.known, &shared, &remembered);
    }
    int why = errno;
    warden->state_fd = shared.fd;
    if (verdict != SHARED_OURS) {
        return fail(warden, ERROR_MISSING, shared_verdict_text(verdict));
    }
    if (is_new) {
        log_event(LOG_LEVEL_WARNING, "shared-state", LOG_TEXT("path", plan->state),
                  LOG_TEXT("reason", "used for the first time; it has its mark now"));
    }
    if (!remembered) {
        log_event(LOG_LEVEL_WARNING, "shared-state", LOG_TEXT("path", shared.memory),
                  LOG_TEXT("reason", strerror(why)),
                  LOG_TEXT("means", "that the storage is not mounted would not be seen"));
    }
    return ERROR_NONE;
}

enum error warden_storage_open(struct warden *warden)
{
    char name[LEASE_NAME_MAX + 16];
    enum error error = open_shared(warden);
    if (error != ERROR_NONE) {
        return error;
    }
    if (open_part(warden, "standby", true, &warden->disk) != ERROR_NONE) {
        return fail(warden, ERROR_IO, strerror(errno));
    }
    if (fstatat(warden->state_fd, "standby", &warden->leases, AT_SYMLINK_NOFOLLOW) != 0) {
        return fail(warden, ERROR_IO, strerror(errno));
    }
    snprintf(name, sizeof(name), "warden-%s", warden->plan->standby.name);
    warden->lock = warden_lock(warden->state_fd, name, LOCK_EX);
    if (warden->lock < 0) {
        bool other = errno == EWOULDBLOCK;
        return fail(warden, other ? ERROR_AGAIN : ERROR_IO,
                    other ? "another holdfastd of this name" : strerror(errno));
    }
    if (warden_storage_tokens(warden, &warden->journal_token) != ERROR_NONE) {
        return fail(warden, ERROR_IO, strerror(errno));
    }
    give_reason(warden, "");
    return ERROR_NONE;
}

void warden_storage_close(struct warden *warden)
{
    disk_free(warden->disk);
    warden->disk = NULL;
    int *const all[] = {&warden->lock, &warden->state_fd};
    for (size_t i = 0; i < 2; i++) {
        if (*all[i] >= 0) {
            close(*all[i]);
        }
        *all[i] = -1;
    }
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

bool warden_storage_is_there(struct warden *warden)
{
    struct stat ours, there;
    if (fstat(warden->state_fd, &ours) != 0 || stat(warden->plan->state, &there) != 0 ||
        !is_same(&ours, &there)) {
        give_reason(warden, "another directory lies there now, or none: is its storage mounted?");
        return false;
    }
    if (fstatat(warden->state_fd, "standby", &there, AT_SYMLINK_NOFOLLOW) != 0 ||
        !is_same(&warden->leases, &there)) {
        give_reason(warden, "its directory of leases has been removed");
        return false;
    }
    return true;
}
