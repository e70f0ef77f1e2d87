/* SPDX-License-Identifier: Apache-2.0 */
#include "app/control_address.h"
#include "app/keeper_internal.h"
#include "app/lease_files.h"
#include "service/channel.h"
#include "service/greylist.h"
#include "service/login_store.h"
#include "sys/log.h"
#include "sys/net.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BACKLOG = 4096, /* the kernel cuts it to somaxconn */
    LOCK_TRIES = 20,
    LOCK_PAUSE_US = 50000,
};

static bool complain(const char *what, const char *about)
{
    log_event(LOG_LEVEL_ERROR, "cannot-start", LOG_TEXT("at", what), LOG_TEXT("path", about),
              LOG_TEXT("reason", strerror(errno)));
    return false;
}

static void close_one(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

void holdings_init(struct holdings *holdings)
{
    *holdings = (struct holdings){.state = -1,
                                  .spool = -1,
                                  .events = -1,
                                  .recipients = -1,
                                  .other_state = -1,
                                  .login = -1,
                                  .lock = -1,
                                  .control = -1,
                                  .counters_fd = -1,
                                  .greylist = -1};
    for (int link = 0; link < KEEPER_LINKS; link++) {
        holdings->links[link][0] = -1;
        holdings->links[link][1] = -1;
    }
    for (size_t i = 0; i < LOOPS_MAX; i++) {
        holdings->rings[KEEPER_EDGE_IN][i] = (struct ring_descriptors){-1, -1, -1};
        holdings->rings[KEEPER_EDGE_OUT][i] = (struct ring_descriptors){-1, -1, -1};
    }
}

/* ---- the state directory ----------------------------------------------------------------- */

/* A directory of ours beneath `parent`, made if it is not there. */
static int open_directory(int parent, const char *name, mode_t mode, const struct plan *plan)
{
    if (mkdirat(parent, name, mode) != 0 && errno != EEXIST) {
        return -1;
    }
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && plan->identity.change &&
        fchown(fd, plan->identity.user, plan->identity.group) != 0) {
        close_one(&fd);
    }
    return fd;
}

/* The tool may have made the table before there was anybody to own it. */
static bool own_users(const struct holdings *holdings, const struct plan *plan)
{
    return !plan->identity.change ||
           fchownat(holdings->login, LOGIN_FILE, plan->identity.user, plan->identity.group,
                    AT_SYMLINK_NOFOLLOW) == 0 ||
           errno == ENOENT;
}

static bool open_state(struct holdings *holdings, const struct plan *plan)
{
    if (mkdir(plan->state, 0755) != 0 && errno != EEXIST) {
        return complain("state", plan->state);
    }
    holdings->state = open(plan->state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (holdings->state < 0) {
        return complain("state", plan->state);
    }
    holdings->spool = open_directory(holdings->state, "spool", 0700, plan);
    if (holdings->spool < 0) {
        return complain("spool", plan->state);
    }
    holdings->events = open_directory(holdings->state, "events", 0700, plan);
    if (holdings->events < 0) {
        return complain("events", plan->state);
    }
    holdings->recipients = open_directory(holdings->state, "recipients", 0700, plan);
    if (holdings->recipients < 0) {
        return complain("recipients", plan->state);
    }
    holdings->other_state = open_directory(holdings->state, "state", 0700, plan);
    if (holdings->other_state < 0) {
        return complain("state", plan->state);
    }
    holdings->login = open_directory(holdings->state, LOGIN_DIRECTORY, 0700, plan);
    if (holdings->login < 0 || !own_users(holdings, plan)) {
        return complain(LOGIN_DIRECTORY, plan->state);
    }
    if (!plan->identity.change) {
        return true;
    }
    /* Ours, empty, and not theirs to write: where the others live once they are confined. */
    if ((mkdirat(holdings->state, "empty", 0555) != 0 && errno != EEXIST) ||
        fchownat(holdings->state, "empty", 0, 0, AT_SYMLINK_NOFOLLOW) != 0 ||
        asprintf(&holdings->empty, "%s/empty", plan->state) < 0) {
        return complain("empty", plan->state);
    }
    return true;
}

/* A machine with a standby block works here, or has died without a word: then what it was still
 * writing is not known to be all there, even if another one has worked since. */
static bool is_leased(const struct holdings *holdings)
{
    struct disk *disk = NULL;
    struct lease_look look = {0};
    int directory = openat(holdings->state, "standby", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || disk_from_descriptor(directory, &disk) != ERROR_NONE) {
        return false;
    }
    bool leased =
        lease_files_look(disk, SLICE_LITERAL("-"), &look) != ERROR_NONE || look.open_token != 0;
    disk_free(disk);
    if (leased) {
        log_event(LOG_LEVEL_ERROR, "cannot-start", LOG_TEXT("at", "standby"),
                  LOG_TEXT("reason",
                           "another machine has a lease on this state directory, and this "
                           "configuration has no standby block; if none is at work, "
                           "remove the directory 'standby' there"));
    }
    return leased;
}

/* The lock's owner is core too: should the keeper be killed, a new one waits for core's end. */
static bool take_lock(struct holdings *holdings, const struct plan *plan, bool has_lease)
{
    char name[PLAN_NAME_MAX + 8] = "lock";
    if (has_lease) {
        /* Of this machine alone: that the other one does not work the lease says, and the file
         * system may give a dead machine's locks away late. The warden keeps those without the
         * block away (warden_round.c). */
        snprintf(name, sizeof(name), "lock-%s", plan->standby.name);
    }
    holdings->lock = openat(holdings->state, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (holdings->lock < 0) {
        return complain("lock", plan->state);
    }
    for (int i = 0; flock(holdings->lock, LOCK_EX | LOCK_NB) != 0; i++) {
        if (errno != EWOULDBLOCK) {
            return complain("lock", plan->state);
        }
        if (i == LOCK_TRIES && !has_lease && is_leased(holdings)) {
            return false; /* which says more */
        }
        if (i == LOCK_TRIES) {
            char pid[16] = "";
            ssize_t length = pread(holdings->lock, pid, sizeof(pid) - 1, 0);
            log_event(LOG_LEVEL_ERROR, "cannot-start",
                      LOG_TEXT("reason", "another holdfastd uses this state directory"),
                      LOG_TEXT("path", plan->state),
                      LOG_SLICE("pid", slice_make(pid, length > 0 ? (size_t)length : 0)));
            return false;
        }
        usleep(LOCK_PAUSE_US);
    }
    char pid[16];
    int length = snprintf(pid, sizeof(pid), "%d", (int)getpid());
    if (ftruncate(holdings->lock, 0) != 0 ||
        pwrite(holdings->lock, pid, (size_t)length, 0) != length) {
        return complain("lock", plan->state);
    }
    return true;
}

static bool open_control(struct holdings *holdings, const struct plan *plan)
{
    struct sockaddr_un address;
    const struct keeper_identity *identity = &plan->identity;
    if (!control_address(slice_from_text(plan->state), holdings->state, &address) ||
        (unlinkat(holdings->state, "control.sock", 0) != 0 && errno != ENOENT)) {
        return complain("control.sock", plan->state);
    }
    holdings->control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Nobody may connect between bind and chmod. */
    mode_t before = umask(0177);
    bool done = holdings->control >= 0 &&
                bind(holdings->control, (struct sockaddr *)&address, sizeof(address)) == 0;
    umask(before);
    if (done && identity->has_control_group) {
        done = fchownat(holdings->state, "control.sock", identity->user, identity->control_group,
                        AT_SYMLINK_NOFOLLOW) == 0 &&
               fchmodat(holdings->state, "control.sock", 0660, 0) == 0;
    } else if (done && identity->change) {
        done = fchownat(holdings->state, "control.sock", identity->user, identity->group,
                        AT_SYMLINK_NOFOLLOW) == 0;
    }
    if (!done || listen(holdings->control, 64) != 0) {
        return complain("control.sock", plan->state);
    }
    return true;
}

/* Memory for several processes, which none of them can make smaller. -1: errno says why. */
static int make_memory(const char *name, size_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && (ftruncate(fd, (off_t)bytes) != 0 ||
                    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW) != 0)) {
        close_one(&fd);
    }
    return fd;
}

static bool open_shared(struct holdings *holdings)
{
    holdings->counters_fd = make_memory("holdfast-counters", sizeof(struct counter_page));
    holdings->greylist = make_memory("holdfast-greylist", greylist_bytes());
    void *page = MAP_FAILED;
    if (holdings->counters_fd >= 0 && holdings->greylist >= 0) {
        page = mmap(NULL, sizeof(struct counter_page), PROT_READ | PROT_WRITE, MAP_SHARED,
                    holdings->counters_fd, 0);
    }
    if (page == MAP_FAILED) {
        return complain("shared memory", "memory");
    }
    holdings->counters = page;
    return true;
}

/* ---- listeners --------------------------------------------------------------------------- */

static bool same_endpoint(const struct ip_endpoint *a, const struct ip_endpoint *b)
{
    return a->port == b->port && ip_equal(&a->address, &b->address);
}

static int find_listener(const struct ip_endpoint *at, const struct plan *plan,
                         const struct keeper_listeners *listeners)
{
    for (uint32_t i = 0; plan != NULL && i < listeners->count; i++) {
        if (same_endpoint(at, &plan->listeners[i].at)) {
            return listeners->fds[i];
        }
    }
    return -1;
}

static bool bind_one(const struct plan_listener *listener, int *ret_fd)
{
    static const char *const protocols[] = {[LISTENER_SMTP] = "smtp",
                                            [LISTENER_HTTP] = "http",
                                            [LISTENER_ODMR] = "odmr",
                                            [LISTENER_SUBMISSION] = "submission"};
    char address[IP_TEXT_SIZE];
    ip_to_text(&listener->at.address, address);
    enum error error = net_listen(&listener->at, BACKLOG, ret_fd);
    if (error != ERROR_NONE) {
        log_event(LOG_LEVEL_ERROR, "cannot-listen", LOG_TEXT("listener", listener->name),
                  LOG_TEXT("address", address), LOG_NUMBER("port", listener->at.port),
                  LOG_TEXT("reason", error == ERROR_EXISTS ? "address in use" : error_text(error)));
        return false;
    }
    log_event(LOG_LEVEL_INFO, "listening", LOG_TEXT("listener", listener->name),
              LOG_TEXT("address", address), LOG_NUMBER("port", listener->at.port),
              LOG_TEXT("protocol", protocols[listener->protocol]));
    return true;
}

bool listeners_bind(const struct plan *plan, const struct plan *old_plan,
                    const struct keeper_listeners *old, struct keeper_listeners *ret_listeners)
{
    ret_listeners->count = 0;
    for (uint32_t i = 0; i < plan->listener_count; i++) {
        int fd = find_listener(&plan->listeners[i].at, old_plan, old);
        if (fd < 0 && !bind_one(&plan->listeners[i], &fd)) {
            listeners_close(ret_listeners, old);
            return false;
        }
        ret_listeners->fds[ret_listeners->count++] = fd;
    }
    return true;
}

static bool has_listener(const struct keeper_listeners *listeners, int fd)
{
    for (uint32_t i = 0; listeners != NULL && i < listeners->count; i++) {
        if (listeners->fds[i] == fd) {
            return true;
        }
    }
    return false;
}

void listeners_close(struct keeper_listeners *listeners, const struct keeper_listeners *kept)
{
    for (uint32_t i = 0; i < listeners->count; i++) {
        if (!has_listener(kept, listeners->fds[i])) {
            close(listeners->fds[i]);
        }
    }
    listeners->count = 0;
}

/* ---- between the children ---------------------------------------------------------------- */

enum error holdings_renew_rings(struct holdings *holdings, enum keeper_edge edge)
{
    for (uint32_t i = 0; i < holdings->loops; i++) {
        struct ring_descriptors *ring = &holdings->rings[edge][i];
        ring_descriptors_close(ring);
        /* The edge is side A. */
        enum error error = edge == KEEPER_EDGE_IN
                               ? ring_create(CHANNEL_RING_IN, CHANNEL_RING_IN_BACK, ring)
                               : ring_create(CHANNEL_RING_OUT, CHANNEL_RING_OUT, ring);
        if (error != ERROR_NONE) {
            return error;
        }
    }
    return ERROR_NONE;
}

const enum role keeper_link_roles[KEEPER_LINKS][2] = {
    [KEEPER_LINK_WEB] = {ROLE_CORE, ROLE_WEB},
    [KEEPER_LINK_HELPER] = {ROLE_CORE, ROLE_HELPER},
    [KEEPER_LINK_ERRANDS] = {ROLE_CORE, ROLE_HELPER},
    [KEEPER_LINK_LISTS] = {ROLE_CORE, ROLE_HELPER},
    [KEEPER_LINK_RUNNER] = {ROLE_HELPER, ROLE_RUNNER},
    [KEEPER_LINK_GUARDS] = {ROLE_CORE, ROLE_RUNNER},
    [KEEPER_LINK_TURN] = {ROLE_EDGE_IN, ROLE_EDGE_OUT},
    [KEEPER_LINK_LOGIN] = {ROLE_EDGE_IN, ROLE_LOGIN},
    [KEEPER_LINK_DIRECTORY] = {ROLE_LOGIN, ROLE_DIRECTORY},
    [KEEPER_LINK_PAM] = {ROLE_LOGIN, ROLE_PAM},
    [KEEPER_LINK_LOGINS] = {ROLE_CORE, ROLE_LOGIN},
    [KEEPER_LINK_ENTRIES] = {ROLE_HELPER, ROLE_DIRECTORY},
};

enum error holdings_renew_link(struct holdings *holdings, enum keeper_link link)
{
    int *ends = holdings->links[link];
    close_one(&ends[0]);
    close_one(&ends[1]);
    int type = link >= KEEPER_LINK_TURN ? SOCK_SEQPACKET : SOCK_STREAM;
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
        ends[0] = -1;
        ends[1] = -1;
        return error_from_errno(errno);
    }
    return ERROR_NONE;
}

static bool open_links(struct holdings *holdings, const struct plan *plan)
{
    holdings->loops = plan->loops;
    if (holdings_renew_rings(holdings, KEEPER_EDGE_IN) != ERROR_NONE ||
        holdings_renew_rings(holdings, KEEPER_EDGE_OUT) != ERROR_NONE) {
        return complain("rings", "memory");
    }
    for (int link = 0; link < KEEPER_LINKS; link++) {
        if (holdings_renew_link(holdings, (enum keeper_link)link) != ERROR_NONE) {
            return complain("links", "memory");
        }
    }
    return true;
}

/* ---- all --------------------------------------------------------------------------------- */

bool holdings_open(struct holdings *holdings, const struct plan *plan, bool has_lease)
{
    const struct keeper_listeners none = {0};
    return open_state(holdings, plan) && take_lock(holdings, plan, has_lease) &&
           (has_lease || !is_leased(holdings)) && open_shared(holdings) &&
           open_links(holdings, plan) && open_control(holdings, plan) &&
           listeners_bind(plan, NULL, &none, &holdings->listeners);
}

void holdings_close(struct holdings *holdings, const struct plan *plan)
{
    (void)plan;
    listeners_close(&holdings->listeners, NULL);
    if (holdings->control >= 0) {
        (void)unlinkat(holdings->state, "control.sock", 0);
    }
    for (uint32_t i = 0; i < holdings->loops; i++) {
        ring_descriptors_close(&holdings->rings[KEEPER_EDGE_IN][i]);
        ring_descriptors_close(&holdings->rings[KEEPER_EDGE_OUT][i]);
    }
    for (int link = 0; link < KEEPER_LINKS; link++) {
        close_one(&holdings->links[link][0]);
        close_one(&holdings->links[link][1]);
    }
    int *const fds[] = {&holdings->control,    &holdings->spool,       &holdings->events,
                        &holdings->recipients, &holdings->login,       &holdings->state,
                        &holdings->lock,       &holdings->counters_fd, &holdings->other_state,
                        &holdings->greylist};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        close_one(fds[i]);
    }
    if (holdings->counters != NULL) {
        munmap(holdings->counters, sizeof(struct counter_page));
    }
    free(holdings->empty);
}
