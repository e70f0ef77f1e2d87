/* SPDX-License-Identifier: Apache-2.0
 *
 * The keeper of the secrets: answers who may log in (service/login.h), from the table of users,
 * from files of hashes and by asking those that ask directories and PAM, and sees to it that
 * guessing is slow (service/login_throttle.h). It alone has the hashes; passwords come to it, none
 * leaves it.
 *
 * A password is checked on a worker thread, for that takes some 100 ms and 64 MB; those that wait
 * are bounded, in all and by client, beyond which the answer is LOGIN_BUSY. A name that nobody has
 * takes as long as one that somebody has: where a directory is asked, which may be faster, a
 * refusal comes after LOGIN_DESK_REMOTE_MS at the earliest. SCRAM's proofs cost little and are
 * checked at once.
 */
#ifndef HOLDFAST_SERVICE_LOGIN_DESK_H
#define HOLDFAST_SERVICE_LOGIN_DESK_H

#include "service/config.h"
#include "service/metrics.h"
#include "sys/disk.h"
#include "sys/loop.h"

enum {
    LOGIN_DESK_JOBS = 64,       /* passwords waiting to be checked, */
    LOGIN_DESK_CLIENT_JOBS = 4, /* of them from one client, here and at each directory */
    LOGIN_DESK_DELAYED = 4096,  /* refusals on their way */
    LOGIN_DESK_REMOTE_MS = 1000,
};

struct login_desk;

/* The disk is taken over: the directory of the table, of which it only reads. NULL: memory. */
struct login_desk *login_desk_new(struct loop *loop, const struct service_config *config,
                                  struct disk *disk, struct counters *counters);
void login_desk_free(struct login_desk *desk); /* NULL is allowed */
/* On return nothing points into the old one. */
void login_desk_reconfigure(struct login_desk *desk, const struct service_config *config);
/* Take the descriptor over, or -1: where directories are asked, and PAM (service/login_remote.h).
 */
void login_desk_set_directory(struct login_desk *desk, int fd);
void login_desk_set_pam(struct login_desk *desk, int fd);
/* Takes the descriptor over, one end of fdpass_pair(), or -1: core is told there of each login.
 * What it is too slow to hear is counted. */
void login_desk_set_core(struct login_desk *desk, int fd);
/* Takes the descriptor over, one end of fdpass_pair(): questions come from there. */
void login_desk_serve(struct login_desk *desk, int fd);

#endif
