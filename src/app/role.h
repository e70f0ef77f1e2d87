/* SPDX-License-Identifier: Apache-2.0
 *
 * The processes of one daemon. The keeper makes the others and gives each what it needs over its
 * channel (app/keeper_channel.h); each entry below is one page in one order: take descriptors,
 * confine, open peers, loop. Returns the exit status.
 */
#ifndef HOLDFAST_APP_ROLE_H
#define HOLDFAST_APP_ROLE_H

#include "sys/sandbox.h"

enum role {
    ROLE_CORE,
    ROLE_EDGE_OUT,
    ROLE_EDGE_IN,
    ROLE_WEB,
    ROLE_HELPER,
    ROLE_RUNNER,
    ROLE_LOGIN,
    ROLE_DIRECTORY,
    ROLE_PAM,
    ROLE_COUNT
};

enum {
    LOOPS_MAX = 30, /* of one edge: their counters share a page */

    /* Slots of the counter page: one writer each. */
    SLOT_KEEPER = 0,
    SLOT_CORE = 1,
    SLOT_HELPER = 2,
    SLOT_LOGIN = 3,
    SLOT_EDGE_IN = 4,
    SLOT_EDGE_OUT = SLOT_EDGE_IN + LOOPS_MAX,
};

enum role_exit {
    ROLE_EXIT_STOPPED = 0,
    ROLE_EXIT_FAILED = 1,   /* worth another try */
    ROLE_EXIT_REFUSED = 78, /* another try would end alike: the journal is of a newer version ... */
};

int role_core(int channel);
int role_edge_in(int channel);
int role_edge_out(int channel);
int role_web(int channel);
int role_helper(int channel);
int role_runner(int channel);
int role_login(int channel);
int role_directory(int channel);
int role_pam(int channel);
/* Short-lived: reads FILE, answers with the plan and the text, or with what is wrong. `copy`: of a
 * cluster's settings, which may not be good, instead of the good one; or NULL. */
#define READER_TO_START "@" /* instead of the name of a copy: settings_read_to_start() */
int role_reader(int channel, const char *path, const char *copy);

const char *role_name(enum role role);
/* False: no such role. */
bool role_from_name(const char *name, enum role *ret_role);
/* What the role may do; printed by `holdfastd --privileges`. */
const struct sandbox_profile *role_privileges(enum role role);
/* In a cluster; NULL: the same. */
const struct sandbox_profile *role_member_privileges(enum role role);
extern const struct sandbox_profile reader_privileges;

#endif
