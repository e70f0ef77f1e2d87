/* SPDX-License-Identifier: Apache-2.0
 *
 * The system calls of each privilege, by name: what glibc 2.36 to 2.41, libevent and libunbound
 * use. A name that this machine does not have is skipped.
 */
#ifndef HOLDFAST_SYS_SANDBOX_CALLS_H
#define HOLDFAST_SYS_SANDBOX_CALLS_H

struct sandbox_calls {
    unsigned privilege; /* one of SANDBOX_*; 0: every process */
    const char *title;
    const char *const *names; /* NULL at the end */
};
/* Ends with a NULL title. */
extern const struct sandbox_calls sandbox_calls[];

/* Allowed for some arguments only; see sandbox.c. */
extern const char *const sandbox_restricted[];

/* These end the process in any profile. */
extern const char *const sandbox_deadly[];

#endif
