/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections to filters, made for edge-in: it may make none, lives where no local socket has a
 * path, and its user may not be allowed to use one. The keeper only begins to connect: whether it
 * succeeds edge-in sees, and nothing is ever read here. Likewise files with lists of recipients,
 * which helper has opened by their paths: it has no file system either.
 */
#include "app/dial.h"
#include "app/keeper_internal.h"
#include "sys/fdpass.h"
#include "sys/net.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { REQUESTS_PER_TURN = 64 };

static enum error connect_local(const char *path, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return error_from_errno(errno);
    }
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        enum error error = error_from_errno(errno);
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return ERROR_NONE;
}

static enum error connect_to(const struct plan *plan, const char *name, int *ret_fd)
{
    for (uint32_t i = 0; i < plan->milter_count; i++) {
        const struct plan_milter *milter = &plan->milters[i];
        if (strcmp(milter->name, name) == 0) {
            return milter->path[0] != '\0' ? connect_local(milter->path, ret_fd)
                                           : net_connect(&milter->at, NULL, ret_fd);
        }
    }
    return ERROR_MISSING;
}

static enum error open_list(const struct plan *plan, const char *name, int *ret_fd)
{
    for (uint32_t i = 0; i < plan->list_count; i++) {
        if (strcmp(plan->lists[i], name) == 0) {
            *ret_fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
            return *ret_fd >= 0 ? ERROR_NONE : error_from_errno(errno);
        }
    }
    return ERROR_MISSING;
}

static void dial_close(struct keeper_dial *dial)
{
    loop_watch_free(dial->watch);
    dial->watch = NULL;
    if (dial->fd >= 0) {
        close(dial->fd);
    }
    dial->fd = -1;
}

static void dial_heard(void *context, unsigned ready)
{
    (void)ready;
    struct keeper_dial *dial = context;
    for (int i = 0; i < REQUESTS_PER_TURN; i++) {
        struct dial_request request;
        struct dial_answer answer = {.fd = -1};
        enum error error = dial_receive(dial->fd, &request);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            dial_close(dial); /* it has gone, or talks nonsense: no more for it */
            return;
        }
        answer.token = request.token;
        answer.error = dial->make(&dial->keeper->plan, request.name, &answer.fd);
        /* Without room the asker's own time-out ends its waiting. */
        (void)!dial_answer(dial->fd, &answer);
        if (answer.fd >= 0) {
            close(answer.fd);
        }
    }
}

static enum error open_scratch(const struct holdings *holdings, uint32_t index, int *ret_fd)
{
    char name[32];
    snprintf(name, sizeof(name), "scratch.%u", index);
    (void)unlinkat(holdings->state, name, 0);
    *ret_fd =
        openat(holdings->state, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (*ret_fd < 0) {
        return error_from_errno(errno);
    }
    return unlinkat(holdings->state, name, 0) == 0 ? ERROR_NONE : error_from_errno(errno);
}

static enum error open_link(struct keeper_dial *dial, int *ret_link)
{
    int ends[2];
    dial_close(dial);
    enum error error = fdpass_pair(ends);
    if (error != ERROR_NONE) {
        return error;
    }
    dial->fd = ends[0];
    dial->watch = loop_watch_new(dial->keeper->loop, dial->fd, dial_heard, dial);
    if (dial->watch == NULL) {
        dial_close(dial);
        close(ends[1]);
        return ERROR_MEMORY;
    }
    loop_watch_set(dial->watch, LOOP_READ);
    *ret_link = ends[1];
    return ERROR_NONE;
}

enum error dial_open(struct keeper *keeper, uint32_t index, int *ret_link, int *ret_scratch)
{
    dial_close(&keeper->dials[index]);
    enum error error = open_scratch(&keeper->holdings, index, ret_scratch);
    if (error != ERROR_NONE) {
        return error;
    }
    error = open_link(&keeper->dials[index], ret_link);
    if (error != ERROR_NONE) {
        close(*ret_scratch);
    }
    return error;
}

enum error dial_open_lists(struct keeper *keeper, int *ret_link)
{
    return open_link(&keeper->lists, ret_link);
}

void dial_close_lists(struct keeper *keeper)
{
    dial_close(&keeper->lists);
}

void dials_init(struct keeper *keeper)
{
    for (uint32_t i = 0; i < LOOPS_MAX; i++) {
        keeper->dials[i] = (struct keeper_dial){.keeper = keeper, .make = connect_to, .fd = -1};
    }
    keeper->lists = (struct keeper_dial){.keeper = keeper, .make = open_list, .fd = -1};
}

void dials_close(struct keeper *keeper)
{
    for (uint32_t i = 0; i < LOOPS_MAX; i++) {
        dial_close(&keeper->dials[i]);
    }
}
