/* SPDX-License-Identifier: Apache-2.0
 *
 * A database as the members of a cluster meet it, for the simulation: statements that run at once,
 * commit later, and are answered later still or never; row locks that are held from the one to the
 * other; a clock that jumps. What the statements do is what src/cluster/member_sql.c has PostgreSQL
 * do.
 */
#ifndef HOLDFAST_TESTS_CLUSTER_SIM_DATABASE_H
#define HOLDFAST_TESTS_CLUSTER_SIM_DATABASE_H

#include "cluster/holding.h"

enum {
    SIM_NODES = 4,
    SIM_SHARES = 13,
    SIM_STATEMENTS = 64,
    SIM_NEVER = 1 << 30,
};

enum sim_kind { SIM_RENEW, SIM_READ, SIM_CHANGE };

struct sim_change {
    bool claim; /* else a release */
    uint32_t share;
    int64_t token;
    int owner; /* as read, and its heartbeat */
    int64_t beat_us;
    bool done;
};

struct sim_statement {
    bool used;
    enum sim_kind kind;
    int node; /* from 1 */
    uint64_t incarnation;
    int64_t run_ms, commit_ms, answer_ms; /* SIM_NEVER; commit and answer follow running */
    int64_t commit_delay_ms, answer_delay_ms;
    bool has_run, has_committed;
    bool joins; /* RENEW: a new incarnation, after the expected one */
    uint64_t expected;
    bool refused;    /* another incarnation is there */
    int64_t beat_us; /* RENEW: as run */
    struct sim_change changes[SIM_SHARES];
    size_t change_count;
    /* READ: what was there. */
    struct sim_heartbeat {
        bool has_beat;
        uint64_t incarnation;
        int64_t beat_us, since_us;
    } heartbeats[SIM_NODES];
    struct sim_share {
        int owner;
        int64_t token;
    } shares[SIM_SHARES];
    int64_t read_us;
    uint64_t database;
};

struct sim_database {
    bool away;
    uint64_t identity;
    int64_t clock_offset_ms;
    struct sim_heartbeat heartbeats[SIM_NODES];
    struct sim_share shares[SIM_SHARES]; /* number - 1 */
    struct sim_statement statements[SIM_STATEMENTS];
};

/* A statement to fill in, sent now. Asserts that there is room. */
struct sim_statement *sim_send(struct sim_database *database);
/* Runs and commits what is due. */
void sim_database_step(struct sim_database *database, int64_t now_ms);

#endif
