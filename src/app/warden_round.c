/* SPDX-License-Identifier: Apache-2.0
 *
 * What may hang with the storage, or with the network: on a thread of its own, so that the warden
 * sees in time that it does.
 */
#include "app/warden_internal.h"
#include "base/hash.h"
#include "sys/clock.h"
#include "sys/machine.h"
#include "sys/net.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { CONNECT_MS = 1000 };

void warden_machine(uint8_t ret_machine[LEASE_MACHINE])
{
    char buffer[MACHINE_NAME_SIZE];
    struct slice name = machine_name(buffer);
    memset(ret_machine, 0, LEASE_MACHINE);
    /* Not the id itself, which is nobody's business. */
    for (uint64_t half = 0; half < 2; half++) {
        const struct hash_key key = {UINT64_C(0x686f6c6466617374), half};
        uint64_t hash = hash_bytes(key, name);
        memcpy(ret_machine + half * 8, &hash, sizeof(hash));
    }
}

int warden_lock(int directory, const char *name, int how)
{
    int fd = openat(directory, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && flock(fd, how | LOCK_NB) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        fd = -1;
    }
    return fd;
}

static bool answers_at(const struct ip_endpoint *at)
{
    int fd;
    if (net_connect(at, NULL, &fd) != ERROR_NONE) {
        return false;
    }
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    bool connected = poll(&poll_fd, 1, CONNECT_MS) == 1 && net_connected(fd) == ERROR_NONE;
    net_close(fd);
    return connected;
}

static bool other_answers(const struct plan_standby *standby)
{
    bool answers = standby->watch_count == 0;
    for (uint32_t i = 0; i < standby->watch_count && !answers; i++) {
        answers = answers_at(&standby->watch[i]);
    }
    return answers;
}

/* What is left of earlier lives of ours has ended with them, if their lock is free. We are back: it
 * is for us to go on, not for the other one. */
static enum error bury_our_own(struct warden *warden)
{
    char name[LEASE_NAME_MAX + 16];
    snprintf(name, sizeof(name), "lock-%s", warden->plan->standby.name);
    int lock = warden_lock(warden->state_fd, name, LOCK_EX);
    if (lock < 0) {
        return errno == EWOULDBLOCK ? ERROR_AGAIN : ERROR_IO;
    }
    close(lock);
    return lease_files_settle(warden->disk, slice_from_text(warden->plan->standby.name),
                              warden->machine, UINT32_MAX, LEASE_STOPPED);
}

/* Whether the round can be. Who holds a lease does not let go of what it has it on. */
static bool at_the_storage(struct warden *warden, struct warden_round *round)
{
    if (warden->disk == NULL) {
        round->look_error = warden_storage_open(warden);
    } else if (!warden_storage_is_there(warden)) {
        round->gone = true;
        if (!round->renew) {
            warden_storage_close(warden);
            round->look_error = ERROR_MISSING;
        }
    }
    return round->look_error == ERROR_NONE;
}

void warden_round_run(void *context)
{
    struct warden_round *round = context;
    struct warden *warden = round->warden;
    if (!at_the_storage(warden, round)) {
        return;
    }
    const struct plan_standby *standby = &warden->plan->standby;
    const struct slice of = slice_from_text(standby->of);
    round->renew_began_ms = clock_steady_ms();
    if (round->renew) {
        round->renew_error = lease_files_renew(warden->lease, &round->record);
        if (round->renew_error == ERROR_NONE) {
            atomic_store(&warden->page->until_ms,
                         round->renew_began_ms + (int64_t)round->record.hold_ms);
        }
    } else {
        round->renew_error = lease_files_watch(warden->disk, &round->record);
        if (round->renew_error == ERROR_MISSING) { /* its directory has gone */
            warden_storage_close(warden);
            round->look_error = ERROR_MISSING;
            return;
        }
    }
    round->settled = round->settle && bury_our_own(warden) == ERROR_NONE;
    if (round->ask) {
        (void)!lease_files_want(warden->disk, slice_from_text(standby->name), true);
    }
    if (round->forget_wanted) {
        (void)!lease_files_want(warden->disk, of, false);
    }
    round->look_began_ms = clock_steady_ms();
    round->look_error = lease_files_look(warden->disk, of, &round->look);
    round->look_ended_ms = clock_steady_ms();
    round->answers = round->renew || other_answers(standby);
}

/* A daemon without the block has the lock for itself, and looks at no lease before it is at work.
 * Ours is shared: one that a dead machine has left does not keep the other one from taking over. */
static enum error keep_others_away(struct warden_claim *claim)
{
    claim->alone = warden_lock(claim->warden->state_fd, "lock", LOCK_SH);
    return claim->alone >= 0 ? ERROR_NONE : errno == EWOULDBLOCK ? ERROR_DENIED : ERROR_IO;
}

/* Leases have gone, so nobody can say of whom of them is over: of none, until `standby fenced`. */
static enum error stand_for_what_is_missing(struct warden *warden)
{
    struct disk_file *file;
    struct lease_record record = {.token = 1};
    snprintf(record.name, sizeof(record.name), "%s", warden->plan->standby.of);
    enum error error = lease_files_claim(warden->disk, &record, &file);
    if (error == ERROR_NONE) {
        warden->disk->ops->close(file);
    }
    return error == ERROR_EXISTS ? ERROR_NONE : error;
}

static void take_token(struct warden_claim *claim)
{
    struct warden *warden = claim->warden;
    const struct slice of = slice_from_text(warden->plan->standby.of);
    struct lease_look look;
    claim->error = bury_our_own(warden);
    if (claim->error == ERROR_NONE) {
        claim->error = warden_storage_tokens(warden, &warden->journal_token);
    }
    if (claim->error == ERROR_NONE && warden->journal_token >= claim->record.token) {
        claim->error = ERROR_EXISTS;
    }
    if (claim->error == ERROR_NONE) {
        claim->began_ms = clock_steady_ms();
        claim->error = lease_files_take(warden->disk, of, claim->fenced, claim->newest,
                                        &claim->record, &look, &claim->file);
    }
    if (claim->error == ERROR_NONE && claim->was_short && !claim->fenced) {
        claim->error = stand_for_what_is_missing(warden);
        look.open_token = 1;
        if (claim->error != ERROR_NONE) {
            warden->disk->ops->close(claim->file);
            (void)!lease_files_end(warden->disk, claim->record.token, LEASE_LOST);
        }
    }
    if (claim->error == ERROR_NONE) {
        claim->open_token = look.open_token;
        (void)!lease_files_want(warden->disk, slice_from_text(warden->plan->standby.name), false);
        lease_files_clean(warden->disk,
                          look.open_token != 0 ? look.open_token : claim->record.token);
    }
}

void warden_claim_run(void *context)
{
    struct warden_claim *claim = context;
    claim->error =
        !warden_storage_is_there(claim->warden) ? ERROR_MISSING : keep_others_away(claim);
    if (claim->error == ERROR_NONE) {
        take_token(claim);
    }
    if (claim->error != ERROR_NONE && claim->alone >= 0) { /* taken before it failed */
        close(claim->alone);
    }
}

void warden_mark_run(void *context)
{
    struct warden_mark *mark = context;
    mark->error = lease_files_end(mark->warden->disk, mark->token, mark->how);
}
