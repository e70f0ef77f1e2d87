/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may not try to log in for a while: failures by client (an IPv6 client is a /64) and by
 * account, each with waits that double. An account's wait does not concern a client from which it
 * has logged in before, and neither does that client's own: nobody can lock a user out from where
 * he usually is, but who guesses at that account from there. Names that nobody has count like
 * others.
 *
 * Pure: time is an argument. Memory is fixed; of those that meet in one place the one that matters
 * least goes, and places are keyed, so that nobody can choose whom his addresses push out.
 */
#ifndef HOLDFAST_SERVICE_LOGIN_THROTTLE_H
#define HOLDFAST_SERVICE_LOGIN_THROTTLE_H

#include "base/hash.h"
#include "base/network.h"

enum {
    LOGIN_CLIENT_FREE = 10,  /* failures of a client before it must wait, */
    LOGIN_ACCOUNT_FREE = 20, /* of an account, from everywhere, */
    LOGIN_FRIEND_FREE = 20,  /* of a client at an account that it has logged in to */
    LOGIN_WAIT_FIRST_MS = 30000,
    LOGIN_WAIT_MOST_MS = 3600000,
    LOGIN_HALF_LIFE_MS = 6 * 3600000, /* in which half of the failures is forgotten, once the wait
                                         is over */
    LOGIN_DELAY_STEP_MS = 250,        /* that each failure adds to how long the next is told */
    LOGIN_DELAY_MOST_MS = 4000,
};

struct login_throttle;

struct login_throttle *login_throttle_new(struct hash_key key); /* NULL: memory */
void login_throttle_free(struct login_throttle *throttle);
/* 0: it may be tried; else in so many ms. */
int64_t login_throttle_wait(struct login_throttle *throttle, const struct ip_address *client,
                            struct slice account, int64_t now_ms);

struct login_failure {
    int64_t delay_ms; /* before the client is told: guessing in a row is slow */
    /* Not 0: this failure has made the client wait so long, or strangers at the account. */
    int64_t client_wait_ms, account_wait_ms;
};
/* `identity`: the same account, however its name was written; empty: not known. */
struct login_failure login_throttle_failed(struct login_throttle *throttle,
                                           const struct ip_address *client, struct slice account,
                                           struct slice identity, int64_t now_ms);
void login_throttle_passed(struct login_throttle *throttle, const struct ip_address *client,
                           struct slice account, int64_t now_ms);

#endif
