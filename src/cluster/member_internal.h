/* SPDX-License-Identifier: Apache-2.0
 *
 * A member from within. member.c: the loop's side; member_round.c: the thread's. What is in `struct
 * member_job` belongs to the thread while a job is under way, all else to the loop.
 */
#ifndef HOLDFAST_CLUSTER_MEMBER_INTERNAL_H
#define HOLDFAST_CLUSTER_MEMBER_INTERNAL_H

#include "cluster/member.h"
#include "cluster/member_sql.h"
#include "cluster/watch.h"
#include "sys/worker.h"

enum command_kind { COMMAND_NAME_SHARE, COMMAND_DRAIN, COMMAND_UNDRAIN, COMMAND_REMOVE };

struct command {
    enum command_kind kind;
    struct slice name; /* allocated */
    int node;          /* REMOVE: whom, with this last heartbeat */
    int64_t beat_us;
    bool answered; /* without asking */
    enum member_answer answer;
    int64_t number;
    member_answer_fn *done;
    void *context;
};

enum job_end {
    JOB_FAILED,     /* outcome and text say how */
    JOB_FOUND,      /* who has our name; nothing was joined */
    JOB_SUPERSEDED, /* our life has ended */
    JOB_READ,
    JOB_CHANGED,
};

struct member_job {
    struct database *database;
    const struct member_settings *settings;
    /* What to do: a round, */
    int number; /* 0: find, and with `joins` join as what was found */
    bool joins;
    struct message_id incarnation;
    struct node_health health;
    /* or a change. */
    struct member_sql_claim *claims;
    size_t claim_count;
    struct member_sql_release *releases;
    size_t release_count;
    struct command commands[MEMBER_COMMANDS_MAX];
    size_t command_count;
    /* What came of it. */
    enum job_end end;
    enum database_outcome outcome;
    char text[MEMBER_TEXT_SIZE];
    struct member_sql_name found;
    struct lease_time sent, returned; /* of the renewal, of finding */
    int64_t answered_ms;              /* steady: all is read */
    int64_t database_wall_us;         /* between the two; 0: not told */
    struct arena *arena;
    struct view view;
    uint64_t server;
};

struct lease_time member_now(const struct member_settings *settings);
/* On the thread. */
void member_job_round(void *job);
void member_job_change(void *job);
void member_job_leave(void *job);

#endif
