/* SPDX-License-Identifier: Apache-2.0
 *
 * A member's thread: one job after the other, each a few blocking calls.
 */
#include "cluster/member_internal.h"

#include "sys/clock.h"

#include <stdio.h>

struct lease_time member_now(const struct member_settings *settings)
{
    return (struct lease_time){clock_steady_ms(), clock_wall_ms() + settings->wall_ahead_ms};
}

/* A warning is not good enough for a heartbeat or a share: it may be on one machine only. */
static bool is_done(struct member_job *job, enum database_outcome outcome)
{
    job->outcome = outcome;
    if (outcome == DATABASE_DONE) {
        return true;
    }
    snprintf(job->text, sizeof(job->text), "%s", database_error(job->database));
    job->end = JOB_FAILED;
    return false;
}

static bool connect_if_needed(struct member_job *job)
{
    if (database_is_connected(job->database)) {
        return true;
    }
    job->outcome = member_sql_connect(job->database, job->text);
    return job->outcome == DATABASE_DONE;
}

/* ---- a round -------------------------------------------------------------------------------- */

static bool find(struct member_job *job)
{
    job->sent = member_now(job->settings);
    bool done = is_done(job, member_sql_find(job->database, job->settings, &job->found));
    job->returned = member_now(job->settings);
    job->answered_ms = job->returned.steady_ms;
    job->end = done ? JOB_FOUND : JOB_FAILED;
    return done;
}

/* True if we live, and the others know. */
static bool join(struct member_job *job)
{
    bool joined = false;
    job->sent = member_now(job->settings);
    if (!is_done(job, member_sql_join(job->database, job->settings, &job->found, job->incarnation,
                                      job->health.behind_ms, &joined))) {
        return false;
    }
    job->returned = member_now(job->settings);
    job->number = joined ? job->found.number : 0;
    job->end = JOB_FOUND;
    return joined || (find(job) && false);
}

static bool renew(struct member_job *job)
{
    bool ours = false;
    job->sent = member_now(job->settings);
    enum database_outcome outcome =
        member_sql_renew(job->database, job->settings, job->number, job->incarnation, &job->health,
                         &job->word, &ours, &job->database_wall_us);
    if (!is_done(job, outcome)) {
        return false;
    }
    job->returned = member_now(job->settings);
    job->end = JOB_SUPERSEDED;
    return ours;
}

void member_job_round(void *context)
{
    struct member_job *job = context;
    job->end = JOB_FAILED;
    job->text[0] = '\0';
    job->database_wall_us = 0;
    if (!connect_if_needed(job)) {
        return;
    }
    if (job->number == 0 && !job->joins) {
        (void)find(job);
        return;
    }
    if (job->number == 0 ? !join(job) : !renew(job)) {
        return;
    }
    /* Not before: what is ours now was ours after the renewal. */
    arena_reset(job->arena);
    if (is_done(job, member_sql_read(job->database, job->arena, job->number, &job->view,
                                     &job->server))) {
        job->answered_ms = clock_steady_ms();
        job->end = JOB_READ;
    }
}

/* ---- changes -------------------------------------------------------------------------------- */

static bool run_command(struct member_job *job, struct command *command)
{
    enum database_outcome outcome = DATABASE_LOST;
    switch (command->kind) {
    case COMMAND_NAME_SHARE:
        outcome = member_sql_name_share(job->database, command->name, &command->number);
        break;
    case COMMAND_DRAIN:
    case COMMAND_UNDRAIN:
        outcome = member_sql_drain(job->database, command->name, command->kind == COMMAND_DRAIN,
                                   &command->number);
        break;
    case COMMAND_REMOVE:
        outcome =
            member_sql_remove(job->database, command->node, command->beat_us, &command->number);
        break;
    }
    if (!is_done(job, outcome)) {
        return false;
    }
    enum member_answer none = command->kind == COMMAND_REMOVE ? MEMBER_ALIVE : MEMBER_MISSING;
    command->answer = command->number != 0 ? MEMBER_DONE : none;
    return true;
}

void member_job_change(void *context)
{
    struct member_job *job = context;
    bool goes_on = database_is_connected(job->database);
    job->end = JOB_CHANGED;
    job->outcome = goes_on ? DATABASE_DONE : DATABASE_LOST;
    if (goes_on && job->claim_count > 0) {
        goes_on = is_done(job, member_sql_claim(job->database, job->number, job->incarnation,
                                                job->claims, job->claim_count));
    }
    if (goes_on && job->release_count > 0) {
        goes_on = is_done(
            job, member_sql_release(job->database, job->number, job->releases, job->release_count));
    }
    for (size_t i = 0; i < job->command_count; i++) {
        struct command *command = &job->commands[i];
        if (!command->answered) {
            command->answer = MEMBER_UNREACHABLE;
            goes_on = goes_on && run_command(job, command);
        }
    }
}

void member_job_leave(void *context)
{
    struct member_job *job = context;
    job->end = JOB_CHANGED;
    if (job->number != 0 && database_is_connected(job->database)) {
        (void)is_done(job, member_sql_leave(job->database, job->number, job->incarnation));
    }
}
