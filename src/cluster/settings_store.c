/* SPDX-License-Identifier: Apache-2.0
 *
 * A file of a version stands once, by its SHA-256, however many versions have it: a list of
 * recipients of megabytes does not come again with each change of a line.
 */
#include "cluster/settings_store.h"

#include "base/digest.h"
#include "spool/pg_schema.h"

#include <assert.h>
#include <stdio.h>

enum { CALL_MS = 5000, TRANSFER_MS = 30000 };

const char *const settings_store_listen = "LISTEN holdfast_settings";

#define NOTIFY "NOTIFY holdfast_settings"

/* `settled` is when the state became what it is. */
#define AGO(ms) "clock_timestamp() - " ms " * interval '1 ms'"
#define OVERDUE(ms) "state = 1 AND coalesce(settled, made) < " AGO(ms)

bool settings_store_connect(struct database *database, char ret_problem[DATABASE_ERROR_SIZE])
{
    size_t count;
    const struct pg_migration *migrations = pg_migrations(&count);
    if (database_connect(database) != DATABASE_DONE) {
        snprintf(ret_problem, DATABASE_ERROR_SIZE, "%s", database_error(database));
        return false;
    }
    if (pg_schema_apply(database, migrations, count, NULL, ret_problem) != ERROR_NONE) {
        database_disconnect(database);
        return false;
    }
    return true;
}

static enum settings_state state_from(int64_t value)
{
    return value >= SETTINGS_NEW && value <= SETTINGS_REPLACED ? (enum settings_state)value
                                                               : SETTINGS_BAD;
}

/* ---- following ------------------------------------------------------------------------------ */

enum database_outcome settings_store_heads(struct database *database, struct slice member,
                                           struct settings_heads *ret_heads)
{
    static const char sql[] =
        "SELECT version, state, coalesce(tried_by = $1, false),"
        " (SELECT coalesce(max(version), 0) FROM holdfast.settings WHERE state = 2),"
        " EXISTS (SELECT FROM holdfast.settings WHERE " OVERDUE(
            "$2") ")"
                  " FROM holdfast.settings ORDER BY version DESC LIMIT 1";
    struct database_scalar store;
    const struct database_value values[] = {database_text(member),
                                            database_int8(&store, SETTINGS_OVERDUE_MS)};
    const struct database_rows *rows;
    *ret_heads = (struct settings_heads){0};
    enum database_outcome outcome = database_query(database, sql, values, 2, CALL_MS, &rows);
    if (outcome == DATABASE_DONE && database_count(rows) > 0) {
        *ret_heads = (struct settings_heads){
            .newest = (uint64_t)database_get_int(rows, 0, 0),
            .state = state_from(database_get_int(rows, 0, 1)),
            .is_mine = database_get_int(rows, 0, 2) != 0,
            .approved = (uint64_t)database_get_int(rows, 0, 3),
            .is_overdue = database_get_int(rows, 0, 4) != 0,
        };
    }
    return outcome;
}

static enum database_outcome fetch_text(struct database *database,
                                        const struct database_value *number,
                                        struct buffer *ret_text, bool *ret_found)
{
    static const char sql[] = "SELECT body FROM holdfast.settings WHERE version = $1";
    const struct database_rows *rows;
    enum database_outcome outcome = database_query(database, sql, number, 1, TRANSFER_MS, &rows);
    *ret_found = outcome == DATABASE_DONE && database_count(rows) == 1;
    if (*ret_found) {
        buffer_append(ret_text, database_get_slice(rows, 0, 0));
    }
    return outcome;
}

static void put_version(const struct database_rows *rows, uint64_t number, struct slice text,
                        struct buffer *ret_bytes)
{
    struct settings_file files[SETTINGS_FILES_MAX];
    size_t count = database_count(rows);
    for (size_t i = 0; i < count && i < SETTINGS_FILES_MAX; i++) {
        files[i] =
            (struct settings_file){database_get_slice(rows, i, 0), database_get_slice(rows, i, 1)};
    }
    const struct settings_version version = {
        .number = number, .text = text, .files = files, .file_count = (uint32_t)count};
    /* What somebody has written there by hand is judged like any other. */
    if (settings_version_fault(&version) == NULL) {
        settings_version_put(ret_bytes, &version);
    }
}

enum database_outcome settings_store_fetch(struct database *database, uint64_t number,
                                           struct buffer *ret_bytes, bool *ret_found)
{
    static const char sql[] =
        "SELECT name, content FROM holdfast.settings_names JOIN holdfast.settings_files"
        " USING (hash) WHERE version = $1 ORDER BY name";
    struct database_scalar store;
    const struct database_value values[] = {database_int8(&store, (int64_t)number)};
    const struct database_rows *rows;
    struct buffer text;
    buffer_init(&text, 0);
    enum database_outcome outcome = fetch_text(database, values, &text, ret_found);
    if (*ret_found) {
        outcome = database_query(database, sql, values, 1, TRANSFER_MS, &rows);
    }
    if (*ret_found && outcome == DATABASE_DONE) {
        size_t before = ret_bytes->length;
        put_version(rows, number, buffer_slice(&text), ret_bytes);
        *ret_found = ret_bytes->length > before;
        if (text.failed || ret_bytes->failed) {
            outcome = DATABASE_MEMORY;
        }
    }
    buffer_done(&text);
    return outcome;
}

/* ---- a trial -------------------------------------------------------------------------------- */

/* An UPDATE of one row, that others are told of. */
static enum database_outcome change(struct database *database, const char *sql,
                                    const struct database_value *values, int count, bool *ret_done)
{
    const struct database_rows *rows;
    *ret_done = false;
    enum database_outcome outcome = database_query(database, sql, values, count, CALL_MS, &rows);
    if (outcome == DATABASE_DONE && database_affected(rows) == 1) {
        *ret_done = true;
        outcome = database_run(database, NOTIFY, CALL_MS);
    }
    return outcome;
}

enum database_outcome settings_store_claim(struct database *database, uint64_t number,
                                           struct slice member, bool *ret_done)
{
    static const char sql[] =
        "UPDATE holdfast.settings SET state = 1, tried_by = $2, settled = clock_timestamp(),"
        " refused_by = array_remove(refused_by, $2) WHERE version = $1 AND state = 0"
        " AND NOT EXISTS (SELECT FROM holdfast.settings o WHERE o.version <> $1"
        " AND (o.state = 1 OR (o.state = 3 AND o.settled > " AGO("$3") ")))";
    struct database_scalar stores[2];
    const struct database_value values[] = {database_int8(&stores[0], (int64_t)number),
                                            database_text(member),
                                            database_int8(&stores[1], SETTINGS_PAUSE_MS)};
    return change(database, sql, values, 3, ret_done);
}

enum database_outcome settings_store_approve(struct database *database, uint64_t number,
                                             struct slice member, bool *ret_done)
{
    static const char sql[] =
        "UPDATE holdfast.settings SET state = 2, settled = clock_timestamp(), problem = NULL"
        " WHERE version = $1 AND state = 1 AND tried_by = $2";
    struct database_scalar store;
    const struct database_value values[] = {database_int8(&store, (int64_t)number),
                                            database_text(member)};
    return change(database, sql, values, 2, ret_done);
}

enum database_outcome settings_store_give_up(struct database *database, uint64_t number,
                                             struct slice member, enum settings_state outcome,
                                             struct slice problem, bool *ret_done)
{
    static const char refuse[] =
        "UPDATE holdfast.settings SET state = 0, tried_by = NULL, problem = $3,"
        " refused_by = array_append(refused_by, $2), settled = clock_timestamp()"
        " WHERE version = $1 AND state = 1 AND tried_by = $2";
    static const char bad[] =
        "UPDATE holdfast.settings SET state = 3, problem = $3, settled = clock_timestamp()"
        " WHERE version = $1 AND state = 1 AND tried_by = $2";
    struct database_scalar store;
    const struct database_value values[] = {database_int8(&store, (int64_t)number),
                                            database_text(member), database_text(problem)};
    return change(database, outcome == SETTINGS_NEW ? refuse : bad, values, 3, ret_done);
}

enum database_outcome settings_store_expire(struct database *database)
{
    static const char sql[] =
        "UPDATE holdfast.settings SET state = 3, settled = clock_timestamp(),"
        " problem = tried_by || ' began to try it, and was not heard of again'"
        " WHERE " OVERDUE("$1");
    struct database_scalar store;
    const struct database_value values[] = {database_int8(&store, SETTINGS_OVERDUE_MS)};
    bool done;
    return change(database, sql, values, 1, &done);
}

enum database_outcome settings_store_report(struct database *database, struct slice member,
                                            uint64_t number, struct slice problem)
{
    static const char sql[] =
        "INSERT INTO holdfast.settings_members (name, version, problem) VALUES ($1, $2, $3)"
        " ON CONFLICT (name) DO UPDATE SET version = excluded.version,"
        " problem = excluded.problem, seen = clock_timestamp()";
    struct database_scalar store;
    const struct database_value values[] = {
        database_text(member), database_int8(&store, (int64_t)number), database_text(problem)};
    return database_query(database, sql, values, 3, CALL_MS, NULL);
}

/* ---- making one ----------------------------------------------------------------------------- */

/* A claim of one that is new, at this moment, comes before, and is seen by the next statement; or
 * waits for us, and finds it new no more. */
static enum database_outcome replace_new(struct database *database, uint64_t number)
{
    static const char sql[] = "UPDATE holdfast.settings SET state = 4, settled = clock_timestamp()"
                              " WHERE state = 0 AND version < $1";
    struct database_scalar store;
    const struct database_value values[] = {database_int8(&store, (int64_t)number)};
    return database_query(database, sql, values, 1, CALL_MS, NULL);
}

static enum database_outcome make_row(struct database *database,
                                      const struct settings_version *version, uint64_t made_from,
                                      struct slice author, struct slice comment, bool *ret_done)
{
    /* Of two at once the second waits for the first, and finds its number taken. */
    static const char sql[] =
        "INSERT INTO holdfast.settings (version, author, comment, body) SELECT $1, $2, $3, $4"
        " WHERE $1 = (SELECT coalesce(max(version), 0) + 1 FROM holdfast.settings)"
        " AND NOT EXISTS (SELECT FROM holdfast.settings WHERE state = 1)"
        " AND ($5 = (SELECT coalesce(max(version), 0) FROM holdfast.settings WHERE state = 2)"
        " OR EXISTS (SELECT FROM holdfast.settings WHERE version = $5 AND version = $1 - 1"
        " AND state = 4))"
        " ON CONFLICT (version) DO NOTHING";
    struct database_scalar stores[2];
    const struct database_value values[] = {database_int8(&stores[0], (int64_t)version->number),
                                            database_text(author), database_text(comment),
                                            database_bytea(version->text),
                                            database_int8(&stores[1], (int64_t)made_from)};
    const struct database_rows *rows;
    *ret_done = false;
    enum database_outcome outcome = replace_new(database, version->number);
    if (outcome == DATABASE_DONE) {
        outcome = database_query(database, sql, values, 5, TRANSFER_MS, &rows);
    }
    *ret_done = outcome == DATABASE_DONE && database_affected(rows) == 1;
    return outcome;
}

/* What is there already is used again, and not thrown away meanwhile. */
static enum database_outcome make_file(struct database *database, uint64_t number,
                                       const struct settings_file *file)
{
    static const char content[] =
        "INSERT INTO holdfast.settings_files (hash, content) VALUES ($1, $2)"
        " ON CONFLICT (hash) DO UPDATE SET used = clock_timestamp()";
    static const char name[] =
        "INSERT INTO holdfast.settings_names (version, name, hash) VALUES ($1, $2, $3)";
    uint8_t hash[DIGEST_MAX_BYTES];
    struct database_scalar store;
    if (digest_make(DIGEST_SHA256, file->content, hash) != ERROR_NONE) {
        return DATABASE_MEMORY;
    }
    const struct database_value contents[] = {database_bytea(slice_make(hash, DIGEST_SHA256_BYTES)),
                                              database_bytea(file->content)};
    const struct database_value names[] = {database_int8(&store, (int64_t)number),
                                           database_text(file->name), contents[0]};
    enum database_outcome outcome =
        database_query(database, content, contents, 2, TRANSFER_MS, NULL);
    return outcome == DATABASE_DONE ? database_query(database, name, names, 3, CALL_MS, NULL)
                                    : outcome;
}

/* Versions beyond those kept, and files that none has had for a day: who makes a version with one
 * of them just now has said that it is used. */
static enum database_outcome forget_old(struct database *database, uint64_t number)
{
    static const char *const sql[] = {
        "DELETE FROM holdfast.settings WHERE version <= $1 AND version <>"
        " (SELECT coalesce(max(version), 0) FROM holdfast.settings WHERE state = 2)",
        "DELETE FROM holdfast.settings_names n WHERE n.version <= $1 AND NOT EXISTS"
        " (SELECT FROM holdfast.settings s WHERE s.version = n.version)",
        "DELETE FROM holdfast.settings_files f WHERE $1 > 0 AND"
        " f.used < clock_timestamp() - interval '1 day' AND NOT EXISTS"
        " (SELECT FROM holdfast.settings_names n WHERE n.hash = f.hash)",
    };
    struct database_scalar store;
    int64_t last = (int64_t)number - SETTINGS_VERSIONS_KEPT;
    const struct database_value values[] = {database_int8(&store, last)};
    enum database_outcome outcome = DATABASE_DONE;
    for (size_t i = 0; last > 0 && outcome == DATABASE_DONE && i < 3; i++) {
        outcome = database_query(database, sql[i], values, 1, CALL_MS, NULL);
    }
    return outcome;
}

enum database_outcome settings_store_make(struct database *database,
                                          const struct settings_version *version,
                                          uint64_t made_from, struct slice author,
                                          struct slice comment, bool *ret_done)
{
    assert(settings_version_fault(version) == NULL && author.length <= SETTINGS_AUTHOR_MAX &&
           comment.length <= SETTINGS_COMMENT_MAX);
    *ret_done = false;
    bool made = false;
    enum database_outcome outcome = database_run(database, "BEGIN", CALL_MS);
    if (outcome == DATABASE_DONE) {
        outcome = make_row(database, version, made_from, author, comment, &made);
    }
    for (uint32_t i = 0; made && outcome == DATABASE_DONE && i < version->file_count; i++) {
        outcome = make_file(database, version->number, &version->files[i]);
    }
    if (made && outcome == DATABASE_DONE) {
        outcome = forget_old(database, version->number);
    }
    if (made && outcome == DATABASE_DONE) {
        outcome = database_run(database, NOTIFY "; COMMIT", TRANSFER_MS);
        *ret_done = outcome == DATABASE_DONE || outcome == DATABASE_WARNED;
        return outcome;
    }
    if (database_is_connected(database) &&
        database_run(database, "ROLLBACK", CALL_MS) != DATABASE_DONE) {
        database_disconnect(database);
    }
    return outcome;
}

/* ---- history -------------------------------------------------------------------------------- */

enum database_outcome settings_store_history(struct database *database, uint64_t first,
                                             uint32_t most, settings_entry_fn *fn, void *context)
{
    static const char sql[] =
        "SELECT version, state, (extract(epoch FROM made) * 1000)::bigint, author, comment,"
        " coalesce(tried_by, ''), array_to_string(refused_by, ', '), coalesce(problem, ''),"
        " coalesce((SELECT string_agg(m.name, ', ' ORDER BY m.name) FROM holdfast.settings_members"
        "  m WHERE m.version = s.version), ''), octet_length(body)::bigint,"
        " (SELECT count(*) FROM holdfast.settings_names n WHERE n.version = s.version)"
        " FROM holdfast.settings s WHERE $1 = 0 OR version <= $1 ORDER BY version DESC LIMIT $2";
    struct database_scalar stores[2];
    const struct database_value values[] = {database_int8(&stores[0], (int64_t)first),
                                            database_int8(&stores[1], most)};
    const struct database_rows *rows;
    enum database_outcome outcome = database_query(database, sql, values, 2, CALL_MS, &rows);
    for (size_t i = 0; outcome == DATABASE_DONE && i < database_count(rows); i++) {
        fn(context, &(struct settings_entry){
                        .number = (uint64_t)database_get_int(rows, i, 0),
                        .state = state_from(database_get_int(rows, i, 1)),
                        .made_ms = database_get_int(rows, i, 2),
                        .author = database_get_slice(rows, i, 3),
                        .comment = database_get_slice(rows, i, 4),
                        .tried_by = database_get_slice(rows, i, 5),
                        .refused_by = database_get_slice(rows, i, 6),
                        .problem = database_get_slice(rows, i, 7),
                        .members = database_get_slice(rows, i, 8),
                        .text_bytes = (uint64_t)database_get_int(rows, i, 9),
                        .file_count = (uint32_t)database_get_int(rows, i, 10),
                    });
    }
    return outcome;
}
