/* SPDX-License-Identifier: Apache-2.0
 *
 * Passwords that another process finds out about: one that asks directories, say. It is asked over
 * a pair of sockets with messages, in the words of service/login.h: LOGIN_PASSWORD with the
 * source's name for the listener's, and answered with one of LOGIN_GOOD, LOGIN_REFUSED,
 * LOGIN_UNKNOWN (nobody there has the name) and LOGIN_AWAY.
 *
 * What waits is bounded for each source, so that one that is slow takes no room from others; and
 * in time: whatever becomes of the process, each question is answered, once.
 */
#ifndef HOLDFAST_SERVICE_LOGIN_REMOTE_H
#define HOLDFAST_SERVICE_LOGIN_REMOTE_H

#include "service/login.h"
#include "sys/loop.h"

enum {
    LOGIN_REMOTE_WAITING = 16,        /* questions of one source */
    LOGIN_REMOTE_PATIENCE_MS = 25000, /* less than who logs in is let wait */
};

struct login_remote;

struct login_remote *login_remote_new(struct loop *loop); /* NULL: memory */
/* NULL is allowed. Nobody is called any more. */
void login_remote_free(struct login_remote *remote);
/* Takes the descriptor over, or -1: there is nobody. What waits is answered LOGIN_AWAY. */
void login_remote_set_link(struct login_remote *remote, int fd);

/* All in the answer is valid during the call. */
typedef void login_remote_fn(void *context, const struct login_answer *answer);
/* Keeps nothing of the question. False: it cannot be asked now, and nobody is called. */
bool login_remote_ask(struct login_remote *remote, struct slice source,
                      const struct ip_address *client, struct slice name, struct slice password,
                      login_remote_fn *fn, void *context);

#endif
