/* SPDX-License-Identifier: Apache-2.0
 *
 * A member from within. member.c: the loop's side, with member_command.c and member_state.c;
 * member_round.c: the thread's. What is in `struct member_job` belongs to the thread while a job is
 * under way, all else to the loop.
 */
#ifndef HOLDFAST_CLUSTER_MEMBER_INTERNAL_H
#define HOLDFAST_CLUSTER_MEMBER_INTERNAL_H

#include "cluster/clock_offset.h"
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
    struct member_word word;
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

struct member {
    struct loop *loop;
    struct member_settings settings; /* its slices are ours */
    struct arena texts;
    struct member_handler handler;
    struct worker *worker;
    struct loop_timer *round_timer;
    struct loop_timer *lapse_timer;
    struct loop_timer *stop_timer;
    struct member_job job;
    bool busy; /* the job is the thread's */
    int number;
    bool alive; /* joined, and not told otherwise */
    struct message_id incarnation;
    struct heartbeat_seen other; /* who has our name */
    bool other_seen;
    struct lease lease;
    struct contact contact;
    struct watch watch;
    struct watch_event events[WATCH_EVENTS_MAX];
    struct holding holding;
    struct arena arenas[2]; /* of the view, and of the one that is being read */
    unsigned view_arena;
    struct arena changes;
    struct view view;
    int64_t view_ms; /* steady; 0: none */
    int64_t view_asked_ms;
    struct node_health health;
    int64_t told_ms;       /* what the others read of us: mail since then may be missing; */
    int64_t told_since_ms; /* steady: since when they read that, or of more mail; 0: of none */
    int64_t known_ms;   /* steady: since then the database is the same to all that we know of it; */
    int64_t doubted_ms; /* unless this is set: then again with an answer to what is asked later */
    struct clock_offset offset; /* the database's wall clock less our steady one */
    int64_t clock_ahead_ms;
    struct lease_time database_time; /* its clock, at a time of ours; zeroes: not read yet */
    int pause_ms;                    /* 0: nothing has failed */
    bool away, split;
    char away_text[MEMBER_TEXT_SIZE + 64];
    enum database_outcome away_outcome;
    int64_t away_ms, split_ms;
    char refused[MEMBER_TEXT_SIZE]; /* told last */
    bool hurry;
    struct command commands[MEMBER_COMMANDS_MAX];
    size_t command_count;
    bool stopping, stopped, closing;
    bool left; /* said so to the database */
    void (*stop_done)(void *context);
    void *stop_context;
};

struct lease_time member_now(const struct member_settings *settings);
/* Tells who asked what became of the job's commands. */
void member_answer_commands(struct member *member);
/* What waits is told so rather than kept. */
void member_fail_commands(struct member *member);
/* On the thread. */
void member_job_round(void *job);
void member_job_change(void *job);
void member_job_leave(void *job);

#endif
