/* SPDX-License-Identifier: Apache-2.0 */
#include "service/login_remote.h"

#include "base/digest.h"
#include "base/list.h"
#include "sys/clock.h"
#include "sys/fdpass.h"
#include "sys/net.h"
#include "sys/random.h"

#include <stdlib.h>

struct waiting {
    struct link link; /* in the order of due_ms */
    uint64_t token;
    int64_t due_ms;
    struct slice source; /* behind the struct */
    login_remote_fn *fn;
    void *context;
};

struct login_remote {
    struct loop *loop;
    struct loop_timer *timer;
    struct loop_watch *watch;
    struct link waiting;
    struct buffer message;
    uint64_t next_token;
    int fd; /* -1: nobody */
};

static void end(struct waiting *waiting, const struct login_answer *answer)
{
    list_remove(&waiting->link);
    waiting->fn(waiting->context, answer);
    free(waiting);
}

static void unlink_it(struct login_remote *remote)
{
    const struct login_answer away = {.verdict = LOGIN_AWAY};
    if (remote->fd >= 0) {
        loop_watch_free(remote->watch);
        net_close(remote->fd);
    }
    remote->watch = NULL;
    remote->fd = -1;
    while (!list_is_empty(&remote->waiting)) { /* who is called may ask again, in vain */
        end(LIST_ENTRY(remote->waiting.next, struct waiting, link), &away);
    }
}

static void on_timer(void *context)
{
    struct login_remote *remote = context;
    const struct login_answer away = {.verdict = LOGIN_AWAY};
    int64_t now_ms = clock_steady_ms();
    while (!list_is_empty(&remote->waiting)) {
        struct waiting *first = LIST_ENTRY(remote->waiting.next, struct waiting, link);
        if (first->due_ms > now_ms) {
            loop_timer_set(remote->timer, first->due_ms - now_ms);
            return;
        }
        end(first, &away);
    }
}

static void take_answer(struct login_remote *remote, const struct login_answer *answer)
{
    LIST_EACH(&remote->waiting, at, after)
    {
        struct waiting *waiting = LIST_ENTRY(at, struct waiting, link);
        if (waiting->token == answer->token) {
            end(waiting, answer);
            return;
        }
    }
}

static bool answer_heard(void *context, struct slice message)
{
    struct login_remote *remote = context;
    struct login_answer answer;
    bool good = login_get_answer(message, &answer);
    if (good) {
        take_answer(remote, &answer);
    }
    return good;
}

static void on_answer(void *context, unsigned ready)
{
    struct login_remote *remote = context;
    (void)ready;
    if (!login_hear(&remote->fd, answer_heard, remote)) {
        unlink_it(remote);
    }
}

void login_remote_set_link(struct login_remote *remote, int fd)
{
    unlink_it(remote);
    remote->watch = fd >= 0 ? loop_watch_new(remote->loop, fd, on_answer, remote) : NULL;
    if (remote->watch == NULL) {
        if (fd >= 0) {
            net_close(fd);
        }
        return;
    }
    remote->fd = fd;
    loop_watch_set(remote->watch, LOOP_READ);
}

static bool has_room(const struct login_remote *remote, struct slice source)
{
    uint32_t same = 0;
    LIST_EACH(&remote->waiting, at, after)
    {
        same += slice_equal(LIST_ENTRY(at, struct waiting, link)->source, source);
    }
    return same < LOGIN_REMOTE_WAITING;
}

static bool send_question(struct login_remote *remote, const struct login_request *request)
{
    buffer_clear(&remote->message);
    login_put_request(&remote->message, request);
    bool sent = !remote->message.failed &&
                fdpass_send(remote->fd, buffer_slice(&remote->message), NULL, 0) == ERROR_NONE;
    if (remote->message.data != NULL) {
        digest_forget(remote->message.data, remote->message.length);
    }
    return sent;
}

bool login_remote_ask(struct login_remote *remote, struct slice source,
                      const struct ip_address *client, struct slice name, struct slice password,
                      login_remote_fn *fn, void *context)
{
    struct waiting *waiting = remote->fd >= 0 && has_room(remote, source)
                                  ? malloc(sizeof(*waiting) + source.length)
                                  : NULL;
    if (waiting == NULL) {
        return false;
    }
    memcpy(waiting + 1, source.data, source.length);
    *waiting = (struct waiting){.token = remote->next_token++,
                                .due_ms = clock_steady_ms() + LOGIN_REMOTE_PATIENCE_MS,
                                .source = slice_make(waiting + 1, source.length),
                                .fn = fn,
                                .context = context};
    const struct login_request request = {.token = waiting->token,
                                          .question = LOGIN_PASSWORD,
                                          .client = *client,
                                          .listener = source,
                                          .name = name,
                                          .secret = password};
    if (!send_question(remote, &request)) {
        free(waiting);
        return false;
    }
    bool is_first = list_is_empty(&remote->waiting);
    list_append(&remote->waiting, &waiting->link);
    if (is_first) {
        loop_timer_set(remote->timer, LOGIN_REMOTE_PATIENCE_MS);
    }
    return true;
}

struct login_remote *login_remote_new(struct loop *loop)
{
    struct login_remote *remote = calloc(1, sizeof(*remote));
    if (remote == NULL) {
        return NULL;
    }
    /* What was asked before us, and is answered now, is of none of ours. */
    *remote = (struct login_remote){.loop = loop, .fd = -1, .next_token = random_u64()};
    list_init(&remote->waiting);
    buffer_init(&remote->message, LOGIN_MESSAGE_MAX);
    remote->timer = loop_timer_new(loop, on_timer, remote);
    if (remote->timer == NULL) {
        login_remote_free(remote);
        return NULL;
    }
    return remote;
}

void login_remote_free(struct login_remote *remote)
{
    if (remote == NULL) {
        return;
    }
    while (!list_is_empty(&remote->waiting)) {
        struct waiting *waiting = LIST_ENTRY(remote->waiting.next, struct waiting, link);
        list_remove(&waiting->link);
        free(waiting);
    }
    login_remote_set_link(remote, -1);
    loop_timer_free(remote->timer);
    buffer_done(&remote->message);
    free(remote);
}
