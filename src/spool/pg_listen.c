/* SPDX-License-Identifier: Apache-2.0
 *
 * Hearing that others have committed something, on a connection and a thread of its own. Who hears
 * nothing looks by itself each second (pg_load.c).
 */
#include "spool/pg_internal.h"

#include <stdlib.h>

struct pg_listening {
    struct pg_spool *pg;
    struct database *database;
    bool notified, failed;
};

static void listen_run(void *job)
{
    struct pg_listening *listening = job;
    enum database_outcome outcome =
        database_ensure(listening->database, "LISTEN holdfast_mail", PG_CALL_MS);
    if (outcome == DATABASE_DONE) {
        outcome = database_wait(listening->database, PG_POLL_MS, &listening->notified);
    }
    listening->failed = outcome != DATABASE_DONE;
    if (listening->failed) {
        database_disconnect(listening->database);
    }
}

static void listen_done(void *job)
{
    struct pg_listening *listening = job;
    struct pg_spool *pg = listening->pg;
    bool failed = listening->failed;
    pg->heard = NULL;
    if (listening->notified) {
        pg_follow_soon(pg);
    }
    free(listening);
    if (pg->ending) {
        return;
    }
    if (failed) {
        loop_timer_set(pg->listen, PG_AGAIN_MS);
    } else {
        pg_listen(pg);
    }
}

void pg_listen(void *context)
{
    struct pg_spool *pg = context;
    struct pg_listening *listening = calloc(1, sizeof(*listening));
    if (listening != NULL) {
        listening->pg = pg;
        listening->database = pg->listening;
    }
    if (listening == NULL ||
        worker_submit(pg->listener, listen_run, listen_done, listening) != ERROR_NONE) {
        free(listening);
        loop_timer_set(pg->listen, PG_AGAIN_MS);
        return;
    }
    pg->heard = listening;
}
