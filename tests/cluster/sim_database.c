/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_database.h"

#include <assert.h>

struct sim_statement *sim_send(struct sim_database *database)
{
    for (size_t i = 0; i < SIM_STATEMENTS; i++) {
        struct sim_statement *statement = &database->statements[i];
        if (!statement->used) {
            *statement = (struct sim_statement){
                .used = true, .run_ms = SIM_NEVER, .commit_ms = SIM_NEVER, .answer_ms = SIM_NEVER};
            return statement;
        }
    }
    assert(!"too many statements");
    return NULL;
}

static int64_t clock_us(const struct sim_database *database, int64_t now_ms)
{
    return (now_ms + database->clock_offset_ms) * 1000;
}

static bool is_under_way(const struct sim_statement *statement)
{
    return statement->used && statement->has_run && !statement->has_committed;
}

/* Whether a renewal, or a claim that has looked at it, holds a heartbeat's row. */
static bool heartbeat_is_locked(const struct sim_database *database, int node, bool by_renewals)
{
    for (size_t i = 0; i < SIM_STATEMENTS; i++) {
        const struct sim_statement *other = &database->statements[i];
        if (!is_under_way(other)) {
            continue;
        }
        if (by_renewals && other->kind == SIM_RENEW && other->node == node && !other->refused) {
            return true;
        }
        for (size_t j = 0; !by_renewals && j < other->change_count; j++) {
            if (other->changes[j].done &&
                database->shares[other->changes[j].share - 1].owner == node) {
                return true;
            }
        }
    }
    return false;
}

static bool share_is_locked(const struct sim_database *database, uint32_t share)
{
    for (size_t i = 0; i < SIM_STATEMENTS; i++) {
        const struct sim_statement *other = &database->statements[i];
        for (size_t j = 0; is_under_way(other) && j < other->change_count; j++) {
            if (other->changes[j].done && other->changes[j].share == share) {
                return true;
            }
        }
    }
    return false;
}

/* ---- running ------------------------------------------------------------------------------- */

static bool run_renewal(struct sim_database *database, struct sim_statement *statement,
                        int64_t now_ms)
{
    struct sim_heartbeat *row = &database->heartbeats[statement->node - 1];
    if (heartbeat_is_locked(database, statement->node, true) ||
        heartbeat_is_locked(database, statement->node, false)) {
        return false;
    }
    statement->refused =
        row->incarnation != (statement->joins ? statement->expected : statement->incarnation);
    statement->beat_us = clock_us(database, now_ms);
    return true;
}

static void commit_renewal(struct sim_database *database, const struct sim_statement *statement)
{
    struct sim_heartbeat *row = &database->heartbeats[statement->node - 1];
    if (statement->refused) {
        return;
    }
    if (statement->joins || statement->beat_us - row->beat_us >= LEASE_MS * 1000 ||
        statement->beat_us < row->since_us) {
        row->since_us = statement->beat_us;
    }
    row->has_beat = true;
    row->incarnation = statement->incarnation;
    row->beat_us = statement->beat_us;
}

static bool run_read(struct sim_database *database, struct sim_statement *statement, int64_t now_ms)
{
    memcpy(statement->heartbeats, database->heartbeats, sizeof(database->heartbeats));
    memcpy(statement->shares, database->shares, sizeof(database->shares));
    statement->read_us = clock_us(database, now_ms);
    statement->database = database->identity;
    return true;
}

static bool run_change(struct sim_database *database, struct sim_statement *statement)
{
    for (size_t i = 0; i < statement->change_count; i++) {
        int owner = database->shares[statement->changes[i].share - 1].owner;
        if (owner != 0 && heartbeat_is_locked(database, owner, true)) {
            return false;
        }
    }
    bool is_current =
        database->heartbeats[statement->node - 1].incarnation == statement->incarnation;
    for (size_t i = 0; i < statement->change_count; i++) {
        struct sim_change *change = &statement->changes[i];
        const struct sim_share *row = &database->shares[change->share - 1];
        bool is_ours = row->owner == statement->node;
        bool is_free =
            row->owner == 0 || database->heartbeats[row->owner - 1].beat_us == change->beat_us;
        bool may = is_ours || (change->claim && is_free);
        change->done = is_current && may && row->token == change->token &&
                       !share_is_locked(database, change->share);
    }
    return true;
}

static void commit_change(struct sim_database *database, const struct sim_statement *statement)
{
    for (size_t i = 0; i < statement->change_count; i++) {
        const struct sim_change *change = &statement->changes[i];
        struct sim_share *row = &database->shares[change->share - 1];
        if (change->done) {
            row->owner = change->claim ? statement->node : 0;
            row->token += change->claim ? 1 : 0;
        }
    }
}

static bool run(struct sim_database *database, struct sim_statement *statement, int64_t now_ms)
{
    switch (statement->kind) {
    case SIM_RENEW:
        return run_renewal(database, statement, now_ms);
    case SIM_READ:
        return run_read(database, statement, now_ms);
    case SIM_CHANGE:
        return run_change(database, statement);
    }
    return false;
}

static void commit(struct sim_database *database, struct sim_statement *statement)
{
    if (statement->kind == SIM_RENEW) {
        commit_renewal(database, statement);
    } else if (statement->kind == SIM_CHANGE) {
        commit_change(database, statement);
    }
    statement->has_committed = true;
}

void sim_database_step(struct sim_database *database, int64_t now_ms)
{
    for (size_t i = 0; i < SIM_STATEMENTS; i++) {
        struct sim_statement *statement = &database->statements[i];
        if (!statement->used || statement->has_committed) {
            continue;
        }
        if (database->away && !statement->has_run) { /* it never came there */
            statement->has_run = statement->has_committed = true;
            continue;
        }
        if (!statement->has_run && now_ms >= statement->run_ms &&
            run(database, statement, now_ms)) {
            statement->has_run = true;
            statement->commit_ms = now_ms + statement->commit_delay_ms;
        }
        if (statement->has_run && now_ms >= statement->commit_ms) {
            commit(database, statement);
            statement->answer_ms = statement->answer_delay_ms >= SIM_NEVER
                                       ? SIM_NEVER
                                       : now_ms + statement->answer_delay_ms;
        }
    }
}
