/* SPDX-License-Identifier: Apache-2.0
 *
 * A member of a cluster as a process of its own, for tests that kill it: it does what core will do,
 * and writes what it believes into memory that it shares with the test.
 */
#ifndef HOLDFAST_TESTS_CLUSTER_MEMBER_PROCESS_H
#define HOLDFAST_TESTS_CLUSTER_MEMBER_PROCESS_H

#include "cluster/balance.h"
#include "cluster/member.h"

#include <stdatomic.h>
#include <sys/types.h>

enum { BELIEFS_MAX = 4096, PROCESS_NODES_MAX = 8, PROCESS_SHARES_MAX = 256, NEWS_KINDS = 10 };

/* That it might deliver for a share, at these times and, looking each 10 ms, between them. */
struct belief {
    uint32_t share;
    int64_t token;
    int64_t first_ns, last_ns; /* steady */
};

struct told {
    atomic_int count;
    char node[64];
    char text[MEMBER_TEXT_SIZE + 64];
    size_t shares;
    int64_t after_ms;
};

struct process_report {
    atomic_int number;
    atomic_int shares; /* held */
    atomic_int lost;
    atomic_bool leads, may; /* the lease allows it */
    atomic_bool stopped;
    struct told news[NEWS_KINDS];
    struct belief beliefs[BELIEFS_MAX];
    atomic_int belief_count;
    atomic_int answers; /* to commands */
    atomic_int answer;
    _Atomic int64_t answer_number;
    atomic_int nodes_listed;
    struct {
        char name[64];
        enum node_state state;
        size_t lanes;
        bool leader;
        int64_t clock_offset_ms, messages;
        char place[64], version[64];
    } nodes[PROCESS_NODES_MAX];
};

struct process_settings {
    const char *conninfo;
    const char *name;
    const char *machine;
    unsigned roles;
    struct message_id instance;
    int64_t wall_ahead_ms;
};

struct process {
    pid_t pid; /* 0: it has been waited for */
    int commands;
    struct process_report *report; /* stays until process_free() */
    char name[64];
};

struct process *process_new(const struct process_settings *settings);
/* SIGKILL, and waits. */
void process_kill(struct process *process);
/* One letter and a name: D(rain), U(ndrain), R(emove), N(ame a share), S(top, and end). */
void process_command(struct process *process, char letter, const char *name);
void process_free(struct process *process); /* kills it if it runs; NULL is allowed */

#endif
