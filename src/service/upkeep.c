/* SPDX-License-Identifier: Apache-2.0
 *
 * One run after the other, each on the thread; the loop looks at what came of it.
 */
#include "service/upkeep.h"

#include "cluster/post.h"
#include "spool/pg_partition.h"
#include "sys/clock.h"
#include "sys/log.h"
#include "sys/worker.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    UPKEEP_MS = 60000,
    UPKEEP_AGAIN_MS = 5000, /* while there is more to do, or the database was away */
};

struct upkeep {
    struct worker *worker;
    struct database *database;
    bool runs;
    int64_t at_ms;   /* steady: the next */
    int64_t keep_ms; /* of what was handed over */
    enum database_outcome outcome, told;
    size_t retired;
    int64_t gap_ms;            /* before the ranges that were made now */
    struct message_id cleaned; /* as far as that one; null: all, at last */
    char reason[DATABASE_ERROR_SIZE];
};

static void run(void *context)
{
    struct upkeep *upkeep = context;
    struct pg_partition_settings settings;
    pg_partition_settings_default(&settings);
    settings.keep_ms = upkeep->keep_ms;
    upkeep->retired = 0;
    upkeep->gap_ms = 0;
    upkeep->reason[0] = '\0';
    enum database_outcome outcome = database_ensure(upkeep->database, NULL, 0);
    if (outcome == DATABASE_DONE) {
        outcome = pg_partition_make(upkeep->database, &settings, &upkeep->gap_ms);
    }
    if (outcome == DATABASE_DONE) {
        outcome = pg_partition_retire(upkeep->database, &settings, &upkeep->retired);
    }
    if (outcome == DATABASE_DONE) {
        outcome = pg_partition_clean(upkeep->database, &settings, &upkeep->cleaned, NULL);
    }
    if (outcome == DATABASE_DONE) {
        outcome = post_clean(upkeep->database);
    }
    if (outcome != DATABASE_DONE) {
        snprintf(upkeep->reason, sizeof(upkeep->reason), "%s", database_error(upkeep->database));
    }
    upkeep->outcome = outcome;
}

static void done(void *context)
{
    struct upkeep *upkeep = context;
    upkeep->runs = false;
    bool more =
        upkeep->retired > 0 || !id_is_null(upkeep->cleaned) || upkeep->outcome != DATABASE_DONE;
    upkeep->at_ms = clock_steady_ms() + (more ? UPKEEP_AGAIN_MS : UPKEEP_MS);
    if (upkeep->gap_ms > 0) {
        log_event(LOG_LEVEL_WARNING, "partitions-far", LOG_NUMBER("gap_ms", upkeep->gap_ms));
    }
    if (upkeep->retired > 0) {
        log_event(LOG_LEVEL_INFO, "partitions-retired", LOG_NUMBER("count", upkeep->retired));
    }
    bool is_trouble = upkeep->outcome != DATABASE_DONE && upkeep->outcome != DATABASE_AGAIN &&
                      upkeep->outcome != DATABASE_LOST;
    if (is_trouble && upkeep->outcome != upkeep->told) {
        log_event(LOG_LEVEL_WARNING, "upkeep", LOG_TEXT("reason", upkeep->reason));
    }
    upkeep->told = is_trouble ? upkeep->outcome : DATABASE_DONE;
}

void upkeep_if_due(struct upkeep *upkeep, int64_t keep_ms)
{
    if (!upkeep->runs && clock_steady_ms() >= upkeep->at_ms) {
        upkeep->keep_ms = keep_ms;
        upkeep->runs = worker_submit(upkeep->worker, run, done, upkeep) == ERROR_NONE;
    }
}

void upkeep_soon(struct upkeep *upkeep)
{
    upkeep->at_ms = 0;
}

struct upkeep *upkeep_new(struct loop *loop, const struct database_settings *database)
{
    struct upkeep *upkeep = calloc(1, sizeof(*upkeep));
    if (upkeep == NULL) {
        return NULL;
    }
    upkeep->worker = worker_new(loop, "upkeep");
    upkeep->database = database_new(database);
    if (upkeep->worker == NULL || upkeep->database == NULL) {
        upkeep_free(upkeep);
        return NULL;
    }
    return upkeep;
}

void upkeep_free(struct upkeep *upkeep)
{
    if (upkeep == NULL) {
        return;
    }
    if (upkeep->database != NULL) {
        database_interrupt(upkeep->database);
    }
    worker_free(upkeep->worker);
    database_free(upkeep->database);
    free(upkeep);
}
