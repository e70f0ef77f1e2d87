/* SPDX-License-Identifier: Apache-2.0 */
#include "spool/pg_schema.h"

#include "base/digest.h"

#include <stdio.h>

enum {
    QUICK_MS = 10000,
    MIGRATE_MS = 120000, /* one migration, and waiting for who does the same */
};

/* Of pg_advisory_xact_lock(): "holdfast". */
#define LOCK_KEY "7526763402218500980"

static const char IS_THERE[] = "SELECT to_regclass('holdfast.migrations') IS NOT NULL";
static const char READ[] =
    "SELECT number, checksum, oldest FROM holdfast.migrations ORDER BY number";
static const char RECORD[] =
    "INSERT INTO holdfast.migrations (number, checksum, oldest) VALUES ($1, $2, $3)";
static const char BEGIN[] = "BEGIN; SET LOCAL lock_timeout = '60s'; "
                            "SELECT pg_advisory_xact_lock(" LOCK_KEY "); "
                            "SET LOCAL lock_timeout = '2s'";
static const char HAS_SCHEMA[] = "SELECT to_regnamespace('holdfast') IS NOT NULL";
static const char PREPARE[] =
    "CREATE TABLE IF NOT EXISTS holdfast.migrations ("
    "number int PRIMARY KEY, checksum text NOT NULL, oldest int NOT NULL, "
    "applied timestamptz NOT NULL DEFAULT now())";

struct work {
    struct database *database;
    const struct pg_migration *migrations;
    size_t count;
    int number; /* of the schema as it stands */
    char *problem;
};

/* ---- errors --------------------------------------------------------------------------------- */

static enum error problem(const struct work *work, enum error error, const char *text)
{
    snprintf(work->problem, DATABASE_ERROR_SIZE, "%s", text);
    return error;
}

static enum error error_of(const struct work *work, enum database_outcome outcome)
{
    const char *state = database_state_code(work->database);
    enum error error = ERROR_IO;
    switch (outcome) {
    case DATABASE_DONE:
    case DATABASE_WARNED:
        return ERROR_NONE;
    case DATABASE_AGAIN:
        error = ERROR_AGAIN;
        break;
    case DATABASE_REFUSED:
        error = strcmp(state, "42501") == 0 ? ERROR_DENIED : ERROR_IO;
        break;
    case DATABASE_FULL:
        error = ERROR_SPACE;
        break;
    case DATABASE_READONLY:
    case DATABASE_LOST:
        error = ERROR_CLOSED;
        break;
    case DATABASE_MEMORY:
        error = ERROR_MEMORY;
        break;
    }
    return problem(work, error, database_error(work->database));
}

static enum error run(const struct work *work, const char *sql, int timeout_ms)
{
    return error_of(work, database_run(work->database, sql, timeout_ms));
}

/* ---- what stands ---------------------------------------------------------------------------- */

static enum error checksum(const struct work *work, size_t index,
                           char ret_text[2 * DIGEST_SHA256_BYTES + 1])
{
    uint8_t digest[DIGEST_MAX_BYTES];
    if (digest_make(DIGEST_SHA256, slice_from_text(work->migrations[index].sql), digest) !=
        ERROR_NONE) {
        return problem(work, ERROR_MEMORY, "out of memory");
    }
    for (size_t i = 0; i < DIGEST_SHA256_BYTES; i++) {
        snprintf(ret_text + 2 * i, 3, "%02x", digest[i]);
    }
    return ERROR_NONE;
}

/* One row of `migrations`, the next in order. */
static enum error check(struct work *work, const struct database_rows *rows, size_t row)
{
    char text[160], sum[2 * DIGEST_SHA256_BYTES + 1];
    int number = (int)database_get_int(rows, row, 0);
    int oldest = (int)database_get_int(rows, row, 2);
    if (number != work->number + 1) {
        snprintf(text, sizeof(text), "the schema lacks migration %d", work->number + 1);
        return problem(work, ERROR_CORRUPT, text);
    }
    work->number = number;
    if ((size_t)number > work->count) {
        if (oldest <= (int)work->count) {
            return ERROR_NONE;
        }
        snprintf(text, sizeof(text),
                 "the schema has number %d, which wants a program of number %d; ours is %zu",
                 number, oldest, work->count);
        return problem(work, ERROR_NEWER, text);
    }
    enum error error = checksum(work, (size_t)number - 1, sum);
    if (error == ERROR_NONE &&
        !slice_equal(database_get_slice(rows, row, 1), slice_from_text(sum))) {
        snprintf(text, sizeof(text), "migration %d of the schema is not ours", number);
        return problem(work, ERROR_CORRUPT, text);
    }
    return error;
}

static enum error read_number(struct work *work)
{
    const struct database_rows *rows;
    enum error error =
        error_of(work, database_query(work->database, READ, NULL, 0, QUICK_MS, &rows));
    work->number = 0;
    for (size_t i = 0; error == ERROR_NONE && i < database_count(rows); i++) {
        error = check(work, rows, i);
    }
    return error;
}

/* ---- applying ------------------------------------------------------------------------------- */

static enum error prepare(const struct work *work)
{
    const struct database_rows *rows;
    enum error error =
        error_of(work, database_query(work->database, HAS_SCHEMA, NULL, 0, QUICK_MS, &rows));
    /* Who was given the schema may have no right to make one. */
    if (error == ERROR_NONE && !database_get_int(rows, 0, 0)) {
        error = run(work, "CREATE SCHEMA holdfast", QUICK_MS);
    }
    return error != ERROR_NONE ? error : run(work, PREPARE, QUICK_MS);
}

static enum error apply_next(const struct work *work)
{
    const struct pg_migration *next = &work->migrations[work->number];
    char sum[2 * DIGEST_SHA256_BYTES + 1];
    struct database_scalar number, oldest;
    enum error error = checksum(work, (size_t)work->number, sum);
    if (error == ERROR_NONE) {
        error = run(work, next->sql, MIGRATE_MS);
    }
    if (error != ERROR_NONE) {
        return error;
    }
    struct database_value values[] = {database_int4(&number, work->number + 1),
                                      database_text(slice_from_text(sum)),
                                      database_int4(&oldest, next->oldest)};
    return error_of(work, database_query(work->database, RECORD, values, 3, QUICK_MS, NULL));
}

/* *ret_done: a statement ahead of the next migration was run instead of it. */
static enum error run_ahead(const struct work *work, bool *ret_done)
{
    const char *ahead = work->migrations[work->number].ahead;
    const struct database_rows *rows;
    char sql[512];
    *ret_done = false;
    if (ahead == NULL) {
        return ERROR_NONE;
    }
    enum error error =
        error_of(work, database_query(work->database, ahead, NULL, 0, QUICK_MS, &rows));
    if (error != ERROR_NONE || database_count(rows) == 0) {
        return error;
    }
    struct slice text = database_get_slice(rows, 0, 0);
    if (text.length >= sizeof(sql)) {
        return problem(work, ERROR_CORRUPT, "a statement of a migration is too long");
    }
    snprintf(sql, sizeof(sql), "%.*s", SLICE_PRINT(text));
    *ret_done = true;
    return run(work, sql, MIGRATE_MS);
}

/* One transaction: what others have done meanwhile is seen, one step is made. */
static enum error step(struct work *work)
{
    bool applies = false, is_ahead = false;
    enum error error = run(work, BEGIN, MIGRATE_MS);
    if (error == ERROR_NONE) {
        error = prepare(work);
    }
    if (error == ERROR_NONE) {
        error = read_number(work);
    }
    if (error == ERROR_NONE && (size_t)work->number < work->count) {
        error = run_ahead(work, &is_ahead);
    }
    if (error == ERROR_NONE && (size_t)work->number < work->count && !is_ahead) {
        applies = true;
        error = apply_next(work);
    }
    if (error == ERROR_NONE) {
        error = run(work, "COMMIT", QUICK_MS);
    }
    if (error == ERROR_NONE) {
        work->number += applies;
    } else if (database_is_connected(work->database)) {
        /* The error that counts is the first; a connection lost here shows at the next call. */
        enum database_outcome outcome = database_run(work->database, "ROLLBACK", QUICK_MS);
        (void)outcome;
    }
    return error;
}

/* read_number(), where there is any. */
static enum error look(struct work *work)
{
    const struct database_rows *rows;
    enum error error =
        error_of(work, database_query(work->database, IS_THERE, NULL, 0, QUICK_MS, &rows));
    if (error == ERROR_NONE && database_get_int(rows, 0, 0)) {
        error = read_number(work);
    }
    return error;
}

enum error pg_schema_check(struct database *database, const struct pg_migration *migrations,
                           size_t count, char ret_problem[DATABASE_ERROR_SIZE])
{
    struct work work = {database, migrations, count, 0, ret_problem};
    ret_problem[0] = '\0';
    enum error error = look(&work);
    if (error == ERROR_NONE && (size_t)work.number < count) {
        char text[100];
        snprintf(text, sizeof(text), "the schema has number %d yet; ours is %zu", work.number,
                 count);
        error = problem(&work, ERROR_AGAIN, text);
    }
    return error;
}

enum error pg_schema_apply(struct database *database, const struct pg_migration *migrations,
                           size_t count, int *ret_number, char ret_problem[DATABASE_ERROR_SIZE])
{
    struct work work = {database, migrations, count, 0, ret_problem};
    ret_problem[0] = '\0';
    enum error error = look(&work);
    while (error == ERROR_NONE && (size_t)work.number < count) {
        error = step(&work);
    }
    if (ret_number != NULL) {
        *ret_number = work.number;
    }
    return error;
}

enum database_outcome pg_commit_durably(struct database *database)
{
    static const char sql[] =
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";
    return database_run(database, sql, QUICK_MS);
}
