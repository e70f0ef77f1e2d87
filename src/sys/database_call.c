/* SPDX-License-Identifier: Apache-2.0
 *
 * Statements, pipelines, COPY and notifications. libpq is in non-blocking mode throughout: it waits
 * nowhere but in await() and drain_output() here, which know the deadline.
 */
#include "sys/database_internal.h"

#include "sys/clock.h"

#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- waiting -------------------------------------------------------------------------------- */

/* What the server has said last is worth more than what libpq makes of the end. */
static enum database_outcome lose_by_libpq(struct database *database)
{
    if (database->state[0] == '\0' || database->warned) {
        const char *text = database->calls.PQerrorMessage(database->connection);
        char state[6];
        database_state_in(text, state);
        database_keep_error(database, state, text);
    }
    return database_lose(database, NULL);
}

/* Waits until bytes can be read, or, if asked, written; takes in what can be read. */
static enum database_outcome turn(struct database *database, bool writes, int64_t deadline_ms)
{
    struct pollfd ready[2] = {[1] = {.fd = database->calls.PQsocket(database->connection),
                                     .events = (short)(POLLIN | (writes ? POLLOUT : 0))}};
    if (ready[1].fd < 0) {
        return lose_by_libpq(database);
    }
    switch (database_poll(database, ready, 2, deadline_ms)) {
    case WAIT_LATE:
        return database_lose(database, "no answer in time");
    case WAIT_INTERRUPTED:
        return database_lose(database, "interrupted");
    case WAIT_READY:
        break;
    }
    if ((ready[1].revents & ~POLLOUT) != 0 &&
        !database->calls.PQconsumeInput(database->connection)) {
        return lose_by_libpq(database);
    }
    return DATABASE_DONE;
}

/* Until all is sent. */
static enum database_outcome drain_output(struct database *database, int64_t deadline_ms)
{
    int left;
    while ((left = database->calls.PQflush(database->connection)) > 0) {
        enum database_outcome outcome = turn(database, true, deadline_ms);
        if (outcome != DATABASE_DONE) {
            return outcome;
        }
    }
    return left == 0 ? DATABASE_DONE : lose_by_libpq(database);
}

/* The next result, which may be NULL (the end of a statement's results). */
static enum database_outcome await(struct database *database, int64_t deadline_ms,
                                   PGresult **ret_result)
{
    const struct database_calls *calls = &database->calls;
    *ret_result = NULL;
    for (;;) {
        /* A loss shows as a result, or as the end of results. */
        int left = calls->PQflush(database->connection);
        if (!calls->PQisBusy(database->connection)) {
            *ret_result = calls->PQgetResult(database->connection);
            return *ret_result != NULL || calls->PQstatus(database->connection) != CONNECTION_BAD
                       ? DATABASE_DONE
                       : lose_by_libpq(database);
        }
        enum database_outcome outcome = turn(database, left > 0, deadline_ms);
        if (outcome != DATABASE_DONE) {
            return outcome;
        }
    }
}

static int64_t deadline_after(int timeout_ms)
{
    return clock_steady_ms() + timeout_ms;
}

/* ---- what results mean ------------------------------------------------------------------------
 */

static bool is_failure(const struct database *database, const PGresult *result)
{
    switch (database->calls.PQresultStatus(result)) {
    case PGRES_BAD_RESPONSE:
    case PGRES_NONFATAL_ERROR:
    case PGRES_FATAL_ERROR:
        return true;
    default:
        return false;
    }
}

/* Keeps its error. The connection is not closed yet if it is lost: more results may follow. */
static enum database_outcome read_failure(struct database *database, const PGresult *result)
{
    const char *state = database->calls.PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = database->calls.PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (state == NULL || state[0] == '\0') { /* libpq's own */
        database_keep_error(database, "",
                            text != NULL ? text
                                         : database->calls.PQerrorMessage(database->connection));
        return DATABASE_LOST;
    }
    database_keep_error(database, state, text != NULL ? text : "an error without a text");
    return database_outcome_of(state);
}

static enum database_outcome end(struct database *database, enum database_outcome failure)
{
    if (failure == DATABASE_LOST ||
        (database->connection != NULL &&
         database->calls.PQstatus(database->connection) == CONNECTION_BAD)) {
        return database_lose(database, NULL);
    }
    return failure != DATABASE_DONE ? failure : database->warned ? DATABASE_WARNED : DATABASE_DONE;
}

/* ---- text: run and COPY -----------------------------------------------------------------------
 */

/* Takes results up to the next COPY that wants bytes, or to the end. */
static enum database_outcome run_on(struct database *database, int64_t deadline_ms)
{
    enum database_outcome failure = DATABASE_DONE;
    for (;;) {
        PGresult *result;
        enum database_outcome outcome = await(database, deadline_ms, &result);
        if (outcome != DATABASE_DONE) {
            return outcome;
        }
        if (result == NULL) {
            return end(database, failure);
        }
        ExecStatusType status = database->calls.PQresultStatus(result);
        assert(status != PGRES_COPY_OUT && status != PGRES_COPY_BOTH);
        if (is_failure(database, result) && failure == DATABASE_DONE) {
            failure = read_failure(database, result);
        } else if (status == PGRES_COMMAND_OK) {
            struct slice count = slice_from_text(database->calls.PQcmdTuples(result));
            if (database->copying && !slice_to_u64(count, &database->copied)) {
                database->copied = 0;
            }
            database->copying = false;
        }
        database->calls.PQclear(result);
        if (status == PGRES_COPY_IN) {
            database->copying = true;
            return end(database, failure);
        }
        if (failure != DATABASE_DONE) {
            database->copying = false;
        }
    }
}

static enum database_outcome run_text(struct database *database, const char *sql, int timeout_ms)
{
    assert(!database->queueing && !database->copying);
    if (!database_enter(database)) {
        return DATABASE_LOST;
    }
    if (!database->calls.PQsendQuery(database->connection, sql)) {
        return lose_by_libpq(database);
    }
    return run_on(database, deadline_after(timeout_ms));
}

enum database_outcome database_run(struct database *database, const char *sql, int timeout_ms)
{
    enum database_outcome outcome = run_text(database, sql, timeout_ms);
    assert(!database->copying);
    return outcome;
}

enum database_outcome database_copy_begin(struct database *database, const char *sql,
                                          int timeout_ms)
{
    enum database_outcome outcome = run_text(database, sql, timeout_ms);
    assert(database->copying || (outcome != DATABASE_DONE && outcome != DATABASE_WARNED));
    return outcome;
}

enum database_outcome database_copy_bytes(struct database *database, struct slice bytes,
                                          int timeout_ms)
{
    enum { PIECE = 1 << 20 }; /* so much is copied at a time */
    if (database->connection == NULL) {
        database_keep_error(database, "", "not connected");
        return DATABASE_LOST;
    }
    assert(database->copying);
    int64_t deadline_ms = deadline_after(timeout_ms);
    while (bytes.length > 0) {
        struct slice piece = slice_take(bytes, PIECE);
        if (database->calls.PQputCopyData(database->connection, (const char *)piece.data,
                                          (int)piece.length) <= 0) {
            return lose_by_libpq(database);
        }
        enum database_outcome outcome = drain_output(database, deadline_ms);
        if (outcome != DATABASE_DONE) {
            return outcome;
        }
        bytes = slice_skip(bytes, piece.length);
    }
    return DATABASE_DONE;
}

enum database_outcome database_copy_end(struct database *database, int timeout_ms)
{
    if (database->connection == NULL) {
        database_keep_error(database, "", "not connected");
        return DATABASE_LOST;
    }
    assert(database->copying);
    database->warned = false;
    if (database->calls.PQputCopyEnd(database->connection, NULL) <= 0) {
        return lose_by_libpq(database);
    }
    return run_on(database, deadline_after(timeout_ms));
}

bool database_is_copying(const struct database *database)
{
    return database->copying;
}

uint64_t database_copied(const struct database *database)
{
    return database->copied;
}

/* ---- prepared statements, in a pipeline ---------------------------------------------------------
 */

/* Its index; SIZE_MAX: memory, or too many. */
static size_t find_statement(struct database *database, const char *sql)
{
    for (size_t i = 0; i < database->statement_count; i++) {
        if (database->statements[i].sql == sql) {
            return i;
        }
    }
    if (database->statement_count == database->statement_room) {
        size_t room = database->statement_room > 0 ? database->statement_room * 2 : 32;
        struct statement *more = room <= DATABASE_STATEMENTS_MAX
                                     ? realloc(database->statements, room * sizeof(*more))
                                     : NULL;
        if (more == NULL) {
            return SIZE_MAX;
        }
        database->statements = more;
        database->statement_room = room;
    }
    database->statements[database->statement_count] = (struct statement){.sql = sql};
    return database->statement_count++;
}

static bool make_room(struct database *database)
{
    if (database->queue_count < database->queue_room) {
        return true;
    }
    size_t room = database->queue_room > 0 ? database->queue_room * 2 : 16;
    struct queued *queue = realloc(database->queue, room * sizeof(*queue));
    if (queue != NULL) {
        database->queue = queue;
    }
    struct database_rows *rows = realloc(database->rows, room * sizeof(*rows));
    if (rows != NULL) {
        database->rows = rows;
    }
    if (queue == NULL || rows == NULL) {
        return false;
    }
    database->queue_room = room;
    return true;
}

enum { NAME_SIZE = 32 };

static void statement_name(const struct database *database, size_t index, char ret_name[NAME_SIZE])
{
    snprintf(ret_name, NAME_SIZE, "hf%zu_%u", index, database->statements[index].generation);
}

static bool send_prepare(struct database *database, size_t index,
                         const struct database_value *values, int count)
{
    char name[NAME_SIZE];
    Oid types[DATABASE_VALUES_MAX];
    statement_name(database, index, name);
    for (int i = 0; i < count; i++) {
        types[i] = values[i].type;
    }
    database->statements[index].state = STATEMENT_ASKED;
    return database->calls.PQsendPrepare(database->connection, name,
                                         database->statements[index].sql, count, types);
}

static bool send_execute(struct database *database, size_t index,
                         const struct database_value *values, int count)
{
    char name[NAME_SIZE];
    const char *bytes[DATABASE_VALUES_MAX];
    int lengths[DATABASE_VALUES_MAX], formats[DATABASE_VALUES_MAX];
    statement_name(database, index, name);
    for (int i = 0; i < count; i++) {
        /* For libpq a NULL pointer is a null, also where the length is 0. */
        bytes[i] = values[i].length < 0 ? NULL : values[i].bytes != NULL ? values[i].bytes : "";
        lengths[i] = values[i].length < 0 ? 0 : values[i].length;
        formats[i] = 1;
    }
    return database->calls.PQsendQueryPrepared(database->connection, name, count, bytes, lengths,
                                               formats, 1);
}

enum database_outcome database_queue(struct database *database, const char *sql,
                                     const struct database_value *values, int count)
{
    assert(count >= 0 && count <= DATABASE_VALUES_MAX && !database->copying);
    if (!database->queueing) {
        if (!database_enter(database)) {
            return DATABASE_LOST;
        }
        if (!database->calls.PQenterPipelineMode(database->connection)) {
            return lose_by_libpq(database);
        }
        database->queueing = true;
    }
    size_t index = find_statement(database, sql);
    if (index == SIZE_MAX || !make_room(database)) {
        return database_lack(database);
    }
    bool prepares = database->statements[index].state == STATEMENT_NEW;
    if ((prepares && !send_prepare(database, index, values, count)) ||
        !send_execute(database, index, values, count)) {
        return lose_by_libpq(database);
    }
    database->queue[database->queue_count++] = (struct queued){index, prepares};
    return DATABASE_DONE;
}

/* One result and the NULL behind it. */
static enum database_outcome await_one(struct database *database, int64_t deadline_ms,
                                       PGresult **ret_result)
{
    enum database_outcome outcome = await(database, deadline_ms, ret_result);
    if (outcome != DATABASE_DONE) {
        return outcome;
    }
    if (*ret_result == NULL) { /* libpq has lost count: a connection not to be trusted */
        return database_lose(database, "an answer is missing");
    }
    PGresult *rest;
    outcome = await(database, deadline_ms, &rest);
    if (outcome != DATABASE_DONE || rest != NULL) {
        database->calls.PQclear(*ret_result);
        database->calls.PQclear(rest);
        *ret_result = NULL;
        return outcome != DATABASE_DONE ? outcome : database_lose(database, "an answer too many");
    }
    return DATABASE_DONE;
}

/* A statement that was prepared is not there, or means something else since (DISCARD, a migration):
 * prepared anew it may serve. */
static enum database_outcome reconsider(struct database *database, const struct queued *queued,
                                        enum database_outcome failure)
{
    bool is_stale = strcmp(database->state, "26000") == 0 || strcmp(database->state, "0A000") == 0;
    if (!is_stale || queued->prepares ||
        database->statements[queued->statement].state != STATEMENT_STANDS) {
        return failure;
    }
    database->statements[queued->statement].state = STATEMENT_NEW;
    database->statements[queued->statement].generation++;
    return DATABASE_AGAIN;
}

static enum database_outcome take_answer(struct database *database, const struct queued *queued,
                                         int64_t deadline_ms, enum database_outcome *failure)
{
    PGresult *result;
    struct statement *statement = &database->statements[queued->statement];
    if (queued->prepares) {
        enum database_outcome outcome = await_one(database, deadline_ms, &result);
        if (outcome != DATABASE_DONE) {
            return outcome;
        }
        bool stands = database->calls.PQresultStatus(result) == PGRES_COMMAND_OK;
        statement->state = stands ? STATEMENT_STANDS : STATEMENT_NEW;
        if (is_failure(database, result) && *failure == DATABASE_DONE) {
            *failure = read_failure(database, result);
        }
        database->calls.PQclear(result);
    }
    enum database_outcome outcome = await_one(database, deadline_ms, &result);
    if (outcome != DATABASE_DONE) {
        return outcome;
    }
    if (is_failure(database, result) && *failure == DATABASE_DONE) {
        *failure = reconsider(database, queued, read_failure(database, result));
    }
    if (is_failure(database, result) ||
        database->calls.PQresultStatus(result) == PGRES_PIPELINE_ABORTED) {
        database->calls.PQclear(result);
        result = NULL;
    }
    database->rows[database->row_count++] =
        (struct database_rows){.calls = &database->calls, .result = result};
    return DATABASE_DONE;
}

static enum database_outcome leave_pipeline(struct database *database, int64_t deadline_ms)
{
    PGresult *result;
    enum database_outcome outcome = await(database, deadline_ms, &result);
    if (outcome != DATABASE_DONE) {
        return outcome;
    }
    bool synced = result != NULL && database->calls.PQresultStatus(result) == PGRES_PIPELINE_SYNC;
    database->calls.PQclear(result);
    return synced && database->calls.PQexitPipelineMode(database->connection)
               ? DATABASE_DONE
               : lose_by_libpq(database);
}

enum database_outcome database_flush(struct database *database, int timeout_ms, size_t *ret_failed)
{
    if (ret_failed != NULL) {
        *ret_failed = 0;
    }
    if (!database->queueing) {
        return database_enter(database) ? DATABASE_DONE : DATABASE_LOST;
    }
    int64_t deadline_ms = deadline_after(timeout_ms);
    if (!database->calls.PQpipelineSync(database->connection)) {
        return lose_by_libpq(database);
    }
    enum database_outcome failure = DATABASE_DONE;
    for (size_t i = 0; i < database->queue_count; i++) {
        bool was_good = failure == DATABASE_DONE;
        enum database_outcome outcome =
            take_answer(database, &database->queue[i], deadline_ms, &failure);
        if (outcome != DATABASE_DONE) {
            return outcome;
        }
        if (was_good && failure != DATABASE_DONE && ret_failed != NULL) {
            *ret_failed = i;
        }
    }
    enum database_outcome outcome = leave_pipeline(database, deadline_ms);
    database->queueing = false;
    return outcome != DATABASE_DONE ? outcome : end(database, failure);
}

const struct database_rows *database_result(const struct database *database, size_t index)
{
    return index < database->row_count && database->rows[index].result != NULL
               ? &database->rows[index]
               : NULL;
}

enum database_outcome database_query(struct database *database, const char *sql,
                                     const struct database_value *values, int count, int timeout_ms,
                                     const struct database_rows **ret_rows)
{
    assert(!database->queueing);
    if (ret_rows != NULL) {
        *ret_rows = NULL;
    }
    enum database_outcome outcome = database_queue(database, sql, values, count);
    if (outcome == DATABASE_DONE) {
        outcome = database_flush(database, timeout_ms, NULL);
    }
    if (ret_rows != NULL && (outcome == DATABASE_DONE || outcome == DATABASE_WARNED)) {
        *ret_rows = database_result(database, 0);
    }
    return outcome;
}

/* ---- notifications ------------------------------------------------------------------------------
 */

static bool take_notifications(struct database *database)
{
    PGnotify *notification;
    bool any = false;
    while ((notification = database->calls.PQnotifies(database->connection)) != NULL) {
        any = true;
        database->calls.PQfreemem(notification);
    }
    return any;
}

enum database_outcome database_wait(struct database *database, int timeout_ms, bool *ret_notified)
{
    assert(!database->queueing && !database->copying);
    *ret_notified = false;
    if (!database_enter(database)) {
        return DATABASE_LOST;
    }
    int64_t deadline_ms = deadline_after(timeout_ms);
    for (;;) {
        *ret_notified = take_notifications(database);
        if (*ret_notified) {
            return DATABASE_DONE;
        }
        struct pollfd ready[2] = {
            [1] = {.fd = database->calls.PQsocket(database->connection), .events = POLLIN}};
        switch (database_poll(database, ready, 2, deadline_ms)) {
        case WAIT_LATE:
            return DATABASE_DONE;
        case WAIT_INTERRUPTED:
            return database_lose(database, "interrupted");
        case WAIT_READY:
            break;
        }
        if (!database->calls.PQconsumeInput(database->connection)) {
            return lose_by_libpq(database);
        }
    }
}
