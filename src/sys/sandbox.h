/* SPDX-License-Identifier: Apache-2.0
 *
 * Giving up what a process does not need. A profile is data: the same table that confines a process
 * is printed for people (sandbox_describe).
 *
 * Four walls, each of which holds if another has a hole: another user and an empty root directory
 * (only when started as root), Landlock for the file system (Linux 5.13 and later), a seccomp
 * allow-list for system calls, and no new privileges; and limits (setrlimit(2)), which the list
 * keeps from being raised. A call outside the list fails with EPERM, so that a new C library's
 * novelty does not stop the mail; what no library has a reason to call here (execve, ptrace, mount
 * ...) ends the process.
 *
 * Memory can be mapped writable or executable, never changed to executable; descriptors cannot be
 * made blocking (sys/ring.h relies on it); signals can be sent to no other process.
 */
#ifndef HOLDFAST_SYS_SANDBOX_H
#define HOLDFAST_SYS_SANDBOX_H

#include "base/buffer.h"
#include "base/error.h"

#include <sys/types.h>

/* What a profile allows beyond memory, time, threads, the loop, and reading and writing the
 * descriptors at hand. */
enum {
    SANDBOX_SERVE = 1 << 0,       /* accept connections on sockets it was given */
    SANDBOX_CONNECT = 1 << 1,     /* make Internet sockets, bind and connect them */
    SANDBOX_READ_FILES = 1 << 2,  /* open files beneath its directories for reading */
    SANDBOX_WRITE_FILES = 1 << 3, /* and make, write, sync, rename and remove them */
    SANDBOX_SCRATCH = 1 << 5,     /* read and write places of files at hand (sys/scratch.h) */
    SANDBOX_DATABASE = 1 << 6,    /* make and connect Unix sockets, and open for reading whatever
                                     file its user may: certificates, hosts(5), resolv.conf(5) */
    SANDBOX_FREE = 1 << 4,        /* not confined: whatever its user may, and so may its children */
};

struct sandbox_profile {
    const char *role;
    unsigned allowed;  /* SANDBOX_* */
    unsigned files;    /* descriptors at once; 0: as many as its parent may */
    const char *prose; /* one line: what it is given, and why */
};

/* Built with sanitizers or for coverage, whose runtimes need files and calls that nobody else does:
 * there is only the change of user then. */
bool sandbox_is_left_out(void);

/* Becomes another user in a directory that holds nothing; needs root. Never half done: on an error
 * the process must end. */
struct sandbox_identity {
    uid_t user;
    gid_t group;
    const char *root; /* becomes "/"; NULL: stays */
};
enum error sandbox_become(const struct sandbox_identity *identity) MUST_CHECK;

struct sandbox_result {
    int landlock; /* version in force; 0: the kernel has none */
    bool seccomp; /* false: left out of this build */
    bool strict;  /* calls outside the list end the process (HOLDFAST_SECCOMP=strict) */
};
/* Files may be opened beneath `directories` only, as far as the profile allows.
 * For good, for the calling thread and those it makes: so before any others are made.
 * ERROR_DENIED: a wall could not be raised that this kernel has. */
enum error sandbox_confine(const struct sandbox_profile *profile, const int *directories,
                           size_t count, struct sandbox_result *ret_result) MUST_CHECK;

/* The process ends when its parent does; not readable by other processes of the same user. */
enum error sandbox_bind_to_parent(pid_t parent) MUST_CHECK;

/* What all profiles have in common: the system calls of every process, those of which it may do but
 * a part, and those that end it. */
void sandbox_describe_all(struct buffer *ret_text);
/* The profile in words, one line for each kind of privilege, system calls by name beyond those. */
void sandbox_describe(const struct sandbox_profile *profile, struct buffer *ret_text);

#endif
