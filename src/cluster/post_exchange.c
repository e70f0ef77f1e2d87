/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes out and what comes in is one pipeline, one transaction.
 */
#include "cluster/post_internal.h"

#include <stdio.h>

enum {
    TRIES = 4,
    PIECE_LOST = -1, /* too long: as one that is missing */
};

static const char ASK[] =
    "INSERT INTO holdfast.requests (id, asker, target, privileged, body) VALUES ($1, $2, $3, $4, "
    "$5)";
static const char END[] = "WITH gone AS (DELETE FROM holdfast.requests WHERE id = ANY($1))"
                          " DELETE FROM holdfast.answers WHERE request = ANY($1)";
static const char TAKE[] =
    "UPDATE holdfast.requests SET served = clock_timestamp() WHERE served IS NULL AND id IN"
    " (SELECT id FROM holdfast.requests WHERE " POST_IS_FOR_US " ORDER BY made LIMIT $2)"
    " RETURNING id, asker, privileged, body";
#define SILENT_MS(COLUMN)                                                                          \
    "coalesce((extract(epoch FROM clock_timestamp() - " COLUMN ") * 1000)::bigint, 0)"
#define WAITED "id, served IS NOT NULL, " SILENT_MS("served")
#define SERVED                                                                                     \
    "id, " SILENT_MS("waited") ", (SELECT count(*) FROM holdfast.answers a WHERE a.request = id)"
static const char WAIT[] = "SELECT " WAITED " FROM holdfast.requests WHERE id = ANY($1)";
static const char WAIT_ALIVE[] = "UPDATE holdfast.requests SET waited = clock_timestamp()"
                                 " WHERE id = ANY($1) RETURNING " WAITED;
static const char SERVE[] = "SELECT " SERVED " FROM holdfast.requests WHERE id = ANY($1)";
static const char SERVE_ALIVE[] = "UPDATE holdfast.requests SET served = clock_timestamp()"
                                  " WHERE id = ANY($1) RETURNING " SERVED;
static const char FETCH[] =
    "DELETE FROM holdfast.answers WHERE request = ANY($1)"
    " RETURNING request, n, CASE WHEN octet_length(bytes) <= 262144 THEN bytes END";
_Static_assert(POST_PIECE_BYTES == 262144, "no longer one is read");
static const char PUT[] = "INSERT INTO holdfast.answers (request, n, bytes)"
                          " SELECT $1, $2, $3 WHERE EXISTS"
                          " (SELECT 1 FROM holdfast.requests WHERE id = $1)";
static const char NOTIFY[] = "SELECT pg_notify('holdfast_post_' || $1::int, '')";
static const char CLEAN[] =
    "DELETE FROM holdfast.requests WHERE waited < clock_timestamp() - make_interval(secs => $1)";
static const char CLEAN_ANSWERS[] = "DELETE FROM holdfast.answers a WHERE NOT EXISTS"
                                    " (SELECT 1 FROM holdfast.requests r WHERE r.id = a.request)";

void post_job_copy(struct post_job *job, struct buffer *ret, struct slice bytes)
{
    buffer_init(ret, 0);
    buffer_append(ret, bytes);
    job->memory = job->memory || ret->failed;
}

void post_job_free(struct post_job *job)
{
    for (size_t i = 0; i < job->ask_count; i++) {
        buffer_done(&job->asks[i].body);
    }
    for (size_t i = 0; i < job->put_count; i++) {
        buffer_done(&job->puts[i].bytes);
    }
    for (size_t i = 0; i < job->taken_count; i++) {
        buffer_done(&job->taken[i].body);
    }
    for (size_t i = 0; i < job->got_count; i++) {
        buffer_done(&job->got[i].bytes);
    }
}

struct line {
    struct post_job *job;
    enum database_outcome outcome;
    size_t count;
};

/* The index of its answer. */
static size_t queue(struct line *line, const char *sql, const struct database_value *values,
                    int count)
{
    if (line->outcome == DATABASE_DONE) {
        line->outcome = database_queue(line->job->database, sql, values, count);
    }
    return line->count++;
}

static size_t queue_ids(struct line *line, const char *sql, const struct message_id *ids,
                        size_t count)
{
    struct buffer array = {0};
    database_array_begin(&array, DATABASE_UUID, count);
    for (size_t i = 0; i < count; i++) {
        database_put_uuid(&array, ids[i]);
    }
    const struct database_value value = database_array(&array, DATABASE_UUID_ARRAY);
    if (array.failed) {
        line->outcome = DATABASE_MEMORY;
    }
    size_t index = queue(line, sql, &value, 1);
    buffer_done(&array);
    return index;
}

static void read_taken(struct post_job *job, const struct database_rows *rows)
{
    for (size_t i = 0; i < database_count(rows) && job->taken_count < POST_SERVED_MAX; i++) {
        struct post_request *taken = &job->taken[job->taken_count++];
        taken->id = database_get_uuid(rows, i, 0);
        taken->node = (int)database_get_int(rows, i, 1);
        taken->privileged = database_get_int(rows, i, 2) != 0;
        post_job_copy(job, &taken->body, database_get_slice(rows, i, 3));
    }
}

static void read_pieces(struct post_job *job, const struct database_rows *rows)
{
    for (size_t i = 0; i < database_count(rows); i++) {
        if (job->got_count == sizeof(job->got) / sizeof(job->got[0])) {
            job->memory = true; /* more than anybody of ours puts there */
            return;
        }
        struct post_piece *piece = &job->got[job->got_count++];
        piece->id = database_get_uuid(rows, i, 0);
        piece->n =
            database_is_null(rows, i, 2) ? PIECE_LOST : (int32_t)database_get_int(rows, i, 1);
        post_job_copy(job, &piece->bytes, database_get_slice(rows, i, 2));
    }
}

static void read_standings(struct post_job *job, const struct database_rows *waited,
                           const struct database_rows *served)
{
    for (size_t i = 0; i < database_count(waited) && i < POST_CALLS_MAX; i++) {
        job->waited[job->waited_count++] =
            (struct post_standing){.id = database_get_uuid(waited, i, 0),
                                   .taken = database_get_int(waited, i, 1) != 0,
                                   .silent_ms = database_get_int(waited, i, 2)};
    }
    for (size_t i = 0; i < database_count(served) && i < POST_SERVED_MAX; i++) {
        job->served[job->served_count++] =
            (struct post_standing){.id = database_get_uuid(served, i, 0),
                                   .silent_ms = database_get_int(served, i, 1),
                                   .pending = database_get_int(served, i, 2)};
    }
}

static enum database_outcome exchange(struct post_job *job)
{
    struct line line = {job, DATABASE_DONE, 0};
    struct database_scalar scalars[4];
    for (size_t i = 0; i < job->ask_count; i++) {
        const struct post_request *ask = &job->asks[i];
        const struct database_value values[] = {
            database_uuid(&scalars[0], ask->id), database_int4(&scalars[1], job->node),
            database_int4(&scalars[2], ask->node), database_bool(&scalars[3], ask->privileged),
            database_bytea(buffer_slice(&ask->body))};
        queue(&line, ASK, values, 5);
    }
    if (job->ended_count > 0) {
        queue_ids(&line, END, job->ended, job->ended_count);
    }
    for (size_t i = 0; i < job->put_count; i++) {
        const struct post_piece *put = &job->puts[i];
        const struct database_value values[] = {database_uuid(&scalars[0], put->id),
                                                database_int4(&scalars[1], put->n),
                                                database_bytea(buffer_slice(&put->bytes))};
        queue(&line, PUT, values, 3);
    }
    const struct database_value take[] = {database_int4(&scalars[0], job->node),
                                          database_int8(&scalars[1], (int64_t)job->takes)};
    size_t taken = queue(&line, TAKE, take, 2);
    size_t got = queue_ids(&line, FETCH, job->fetches, job->fetch_count);
    size_t waited = queue_ids(&line, job->alive ? WAIT_ALIVE : WAIT, job->waits, job->wait_count);
    size_t served =
        queue_ids(&line, job->alive ? SERVE_ALIVE : SERVE, job->serves, job->serve_count);
    for (size_t i = 0; i < job->notify_count; i++) {
        const struct database_value node = database_int4(&scalars[0], job->notify[i]);
        queue(&line, NOTIFY, &node, 1);
    }
    enum database_outcome outcome = database_flush(job->database, POST_CALL_MS, NULL);
    outcome = line.outcome != DATABASE_DONE ? line.outcome : outcome;
    if (outcome != DATABASE_DONE) {
        return outcome;
    }
    read_taken(job, database_result(job->database, taken));
    read_pieces(job, database_result(job->database, got));
    read_standings(job, database_result(job->database, waited),
                   database_result(job->database, served));
    return job->memory ? DATABASE_MEMORY : DATABASE_DONE;
}

void post_job_run(struct post_job *job)
{
    /* What stands here need not outlive the database. */
    enum database_outcome outcome =
        database_ensure(job->database, "SET synchronous_commit = off", POST_CALL_MS);
    /* Two who remove and touch the same rows in another order. */
    for (unsigned tries = 0; tries < TRIES && outcome == DATABASE_DONE; tries++) {
        outcome = exchange(job);
        job->done = outcome == DATABASE_DONE;
        if (job->done) {
            return;
        }
        outcome = outcome == DATABASE_AGAIN && tries + 1 < TRIES ? DATABASE_DONE : outcome;
    }
    snprintf(job->text, sizeof(job->text), "%s", database_error(job->database));
    database_disconnect(job->database);
}

enum database_outcome post_clean(struct database *database)
{
    struct database_scalar scalar;
    const struct database_value kept = database_int4(&scalar, POST_KEPT_S);
    enum database_outcome outcome = database_query(database, CLEAN, &kept, 1, POST_CALL_MS, NULL);
    return outcome != DATABASE_DONE
               ? outcome
               : database_query(database, CLEAN_ANSWERS, NULL, 0, POST_CALL_MS, NULL);
}
