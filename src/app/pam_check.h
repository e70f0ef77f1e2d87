/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether PAM takes a password (pam(3)): for a process that was made to find out that one thing,
 * for modules load libraries, run programs, wait and may never return.
 */
#ifndef HOLDFAST_APP_PAM_CHECK_H
#define HOLDFAST_APP_PAM_CHECK_H

#include "service/login.h"

enum { PAM_REASON_SIZE = 160 };

/* `service` is the name of a file in /etc/pam.d, or the absolute path of one. Each question of a
 * module for what is not shown is answered with the password, the first of them only; any other is
 * one too many. The account must be one that may be used now. LOGIN_GOOD, LOGIN_REFUSED,
 * LOGIN_UNKNOWN, or LOGIN_AWAY with ret_reason: it could not be found out. */
enum login_verdict pam_check(const char *service, const char *name, const char *password,
                             const char *client, char ret_reason[PAM_REASON_SIZE]);

#endif
