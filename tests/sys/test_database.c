/* SPDX-License-Identifier: Apache-2.0
 *
 * Against a real server of its own; another one where a test stops, kills or pauses it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "postgres.h"
#include "sys/database.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LONG_MS = 60000, SHORT_MS = 300 };

static struct database *database_by(const char *conninfo, const char *password)
{
    struct database_settings settings = {.conninfo = slice_from_text(conninfo),
                                         .password = slice_from_text(password),
                                         .name = SLICE_LITERAL("test"),
                                         .connect_timeout_ms = LONG_MS};
    struct database *database = database_new(&settings);
    assert_non_null(database);
    return database;
}

static struct database *database_to(const struct postgres *server)
{
    struct database *database = database_by(postgres_conninfo(server), "");
    assert_int_equal(database_connect(database), DATABASE_DONE);
    return database;
}

static void run(struct database *database, const char *sql)
{
    enum database_outcome outcome = database_run(database, sql, LONG_MS);
    if (outcome != DATABASE_DONE) {
        fail_msg("%s: %d %s %s", sql, outcome, database_state_code(database),
                 database_error(database));
    }
}

static int64_t number(struct database *database, const char *sql)
{
    const struct database_rows *rows;
    assert_int_equal(database_query(database, sql, NULL, 0, LONG_MS, &rows), DATABASE_DONE);
    assert_int_equal(database_count(rows), 1);
    return database_get_int(rows, 0, 0);
}

/* ---- values --------------------------------------------------------------------------------- */

static void values_come_back_as_they_went(void **state)
{
    struct database *database = database_to(*state);
    static const char SQL[] = "SELECT $1::bool, $2::int2, $3::int4, $4::int8, $5::uuid, $6::bytea, "
                              "$7::text, $8::xid8, $9::int4[], $10::int4[], $11::bytea, $12::text";
    struct database_scalar store[6];
    struct message_id id = {0x0123456789abcdef, 0xfedcba9876543210};
    struct buffer array, empty;
    buffer_init(&array, 0);
    buffer_init(&empty, 0);
    database_array_begin(&array, DATABASE_INT4, 3);
    database_put_int4(&array, 1);
    database_put_int4(&array, -2);
    database_put_int4(&array, INT32_MAX);
    database_array_begin(&empty, DATABASE_INT4, 0);
    struct database_value values[] = {
        database_bool(&store[0], true),
        database_int2(&store[1], -2),
        database_int4(&store[2], INT32_MIN),
        database_int8(&store[3], INT64_MIN),
        database_uuid(&store[4], id),
        database_bytea(slice_make("a\0b\xff", 4)),
        database_text(SLICE_LITERAL("Grüße")),
        database_xid8(&store[5], 0xffffffff00000001),
        database_array(&array, DATABASE_INT4_ARRAY),
        database_array(&empty, DATABASE_INT4_ARRAY),
        database_null(DATABASE_BYTEA),
        database_text(SLICE_EMPTY),
    };
    const struct database_rows *rows;
    assert_int_equal(database_query(database, SQL, values, 12, LONG_MS, &rows), DATABASE_DONE);
    assert_int_equal(database_count(rows), 1);
    assert_int_equal(database_get_int(rows, 0, 0), 1);
    assert_int_equal(database_get_int(rows, 0, 1), -2);
    assert_int_equal(database_get_int(rows, 0, 2), INT32_MIN);
    assert_true(database_get_int(rows, 0, 3) == INT64_MIN);
    assert_true(id_equal(database_get_uuid(rows, 0, 4), id));
    assert_true(slice_equal(database_get_slice(rows, 0, 5), slice_make("a\0b\xff", 4)));
    assert_true(slice_equal(database_get_slice(rows, 0, 6), SLICE_LITERAL("Grüße")));
    assert_true((uint64_t)database_get_int(rows, 0, 7) == 0xffffffff00000001);
    struct slice elements;
    size_t count;
    assert_true(database_get_int4_array(rows, 0, 8, &elements, &count));
    assert_int_equal(count, 3);
    assert_int_equal(database_element_int4(elements, 1), -2);
    assert_int_equal(database_element_int4(elements, 2), INT32_MAX);
    assert_true(database_get_int4_array(rows, 0, 9, &elements, &count));
    assert_int_equal(count, 0);
    assert_true(database_is_null(rows, 0, 10));
    assert_false(database_get_int4_array(rows, 0, 10, &elements, &count));
    assert_false(database_is_null(rows, 0, 11));
    assert_int_equal(database_get_slice(rows, 0, 11).length, 0);
    buffer_done(&array);
    buffer_done(&empty);
    database_free(database);
}

static void rows_are_copied_in(void **state)
{
    struct database *database = database_to(*state);
    struct buffer out;
    buffer_init(&out, 0);
    run(database, "CREATE TEMP TABLE t (a int2, b int4, c int8, d uuid, e bytea, f text, g int4[], "
                  "h xid8, i bool); CREATE TEMP TABLE u (a int4)");
    enum { ROWS = 50000 };
    database_copy_header(&out);
    for (int i = 0; i < ROWS; i++) {
        int32_t values[] = {i, -i};
        database_copy_row(&out, 9);
        database_put_int2(&out, (int16_t)(i % 1000));
        database_put_int4(&out, i);
        database_put_int8(&out, (int64_t)i << 32);
        database_put_uuid(&out, (struct message_id){7, (uint64_t)i});
        database_put_bytes(&out, slice_make("\0\1", 2));
        database_put_null(&out);
        database_put_int4_array(&out, values, (size_t)(i % 3));
        database_put_xid8(&out, (uint64_t)i);
        database_put_bool(&out, i % 2 != 0);
    }
    database_copy_trailer(&out);
    assert_false(out.failed);
    assert_int_equal(database_copy_begin(database,
                                         "BEGIN; COPY t FROM STDIN (FORMAT binary); "
                                         "COPY u FROM STDIN (FORMAT binary); COMMIT",
                                         LONG_MS),
                     DATABASE_DONE);
    for (struct slice rest = buffer_slice(&out); rest.length > 0; rest = slice_skip(rest, 77777)) {
        assert_int_equal(database_copy_bytes(database, slice_take(rest, 77777), LONG_MS),
                         DATABASE_DONE);
    }
    assert_int_equal(database_copy_end(database, LONG_MS), DATABASE_DONE);
    assert_int_equal(database_copied(database), ROWS);
    assert_true(database_is_copying(database)); /* the second one */
    buffer_clear(&out);
    database_copy_header(&out);
    database_copy_row(&out, 1);
    database_put_int4(&out, 41);
    database_copy_trailer(&out);
    assert_int_equal(database_copy_bytes(database, buffer_slice(&out), LONG_MS), DATABASE_DONE);
    assert_int_equal(database_copy_end(database, LONG_MS), DATABASE_DONE);
    assert_false(database_is_copying(database));
    assert_int_equal(number(database, "SELECT a FROM u"), 41);
    assert_int_equal(
        number(database, "SELECT count(*) FROM t WHERE a = b % 1000 AND c = b::int8 << 32 AND "
                         "e = '\\x0001' AND f IS NULL AND h::text = b::text AND i = (b % 2 <> 0) "
                         "AND cardinality(g) = b % 3 AND d::text LIKE '00000000-0000-0007-%'"),
        ROWS);
    buffer_done(&out);
    database_free(database);
}

/* ---- pipelines ------------------------------------------------------------------------------ */

static const char INSERT[] = "INSERT INTO pipe VALUES ($1)";

static void queue_number(struct database *database, const char *sql, int32_t value)
{
    struct database_scalar store;
    struct database_value values[] = {database_int4(&store, value)};
    assert_int_equal(database_queue(database, sql, values, 1), DATABASE_DONE);
}

static void a_pipeline_is_one_transaction_and_says_what_failed(void **state)
{
    struct database *database = database_to(*state);
    size_t failed;
    run(database, "CREATE TEMP TABLE pipe (a int PRIMARY KEY)");
    for (int i = 0; i < 3000; i++) {
        queue_number(database, INSERT, i);
    }
    assert_int_equal(
        database_queue(database, "UPDATE pipe SET a = a WHERE a < 10 RETURNING a", NULL, 0),
        DATABASE_DONE);
    assert_int_equal(database_flush(database, LONG_MS, &failed), DATABASE_DONE);
    assert_int_equal(database_affected(database_result(database, 2999)), 1);
    assert_int_equal(database_affected(database_result(database, 3000)), 10);
    assert_int_equal(database_count(database_result(database, 3000)), 10);
    assert_null(database_result(database, 3001));

    queue_number(database, INSERT, 10000);
    queue_number(database, INSERT, 5); /* is there */
    queue_number(database, INSERT, 10001);
    assert_int_equal(database_flush(database, LONG_MS, &failed), DATABASE_REFUSED);
    assert_int_equal(failed, 1);
    assert_string_equal(database_state_code(database), "23505");
    assert_non_null(database_result(database, 0));
    assert_null(database_result(database, 1));
    assert_null(database_result(database, 2));
    assert_int_equal(number(database, "SELECT count(*) FROM pipe"), 3000);

    /* A statement whose preparation did not come about is prepared the next time. */
    static const char LATE[] = "INSERT INTO late VALUES ($1)";
    queue_number(database, LATE, 1);
    assert_int_equal(database_flush(database, LONG_MS, &failed), DATABASE_REFUSED);
    assert_string_equal(database_state_code(database), "42P01");
    run(database, "CREATE TEMP TABLE late (a int)");
    queue_number(database, LATE, 1);
    queue_number(database, LATE, 2);
    assert_int_equal(database_flush(database, LONG_MS, &failed), DATABASE_DONE);
    assert_int_equal(database_flush(database, LONG_MS, &failed), DATABASE_DONE); /* of nothing */
    database_free(database);
}

static void stale_statements_are_prepared_anew(void **state)
{
    static const char SQL[] = "SELECT * FROM stale";
    struct database *database = database_to(*state);
    const struct database_rows *rows;
    run(database, "CREATE TEMP TABLE stale (a int); INSERT INTO stale VALUES (1)");
    assert_int_equal(number(database, SQL), 1);
    run(database, "ALTER TABLE stale ALTER a TYPE int8");
    assert_int_equal(database_query(database, SQL, NULL, 0, LONG_MS, &rows), DATABASE_AGAIN);
    assert_null(rows);
    assert_int_equal(number(database, SQL), 1);
    run(database, "DEALLOCATE ALL");
    assert_int_equal(database_query(database, SQL, NULL, 0, LONG_MS, &rows), DATABASE_AGAIN);
    assert_int_equal(number(database, SQL), 1);
    /* After a reconnect at once. */
    assert_int_equal(database_connect(database), DATABASE_DONE);
    run(database, "CREATE TEMP TABLE stale (a int); INSERT INTO stale VALUES (2)");
    assert_int_equal(number(database, SQL), 2);
    database_free(database);
}

/* ---- what the server says ------------------------------------------------------------------- */

static void each_class_of_errors_has_its_outcome(void **state)
{
    static const struct {
        const char *code;
        enum database_outcome outcome;
    } CASES[] = {
        {"40001", DATABASE_AGAIN},    {"40P01", DATABASE_AGAIN},   {"40003", DATABASE_LOST},
        {"55P03", DATABASE_AGAIN},    {"57014", DATABASE_AGAIN},   {"53100", DATABASE_FULL},
        {"53200", DATABASE_FULL},     {"53300", DATABASE_FULL},    {"58030", DATABASE_FULL},
        {"25006", DATABASE_READONLY}, {"57P01", DATABASE_LOST},    {"57P02", DATABASE_LOST},
        {"57P03", DATABASE_LOST},     {"57P05", DATABASE_LOST},    {"08006", DATABASE_LOST},
        {"25P03", DATABASE_LOST},     {"42P01", DATABASE_REFUSED}, {"23505", DATABASE_REFUSED},
        {"22P02", DATABASE_REFUSED},  {"XX000", DATABASE_REFUSED}, {"40002", DATABASE_REFUSED},
        {"25P02", DATABASE_REFUSED},  {"28P01", DATABASE_REFUSED}, {"0A000", DATABASE_REFUSED},
    };
    struct database *database = database_to(*state);
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        char sql[200];
        snprintf(sql, sizeof(sql),
                 "DO $$BEGIN RAISE EXCEPTION E'first\\nsecond' USING ERRCODE = '%s'; END$$",
                 CASES[i].code);
        enum database_outcome outcome = database_run(database, sql, LONG_MS);
        if (outcome != CASES[i].outcome) {
            fail_msg("%s: %d", CASES[i].code, outcome);
        }
        assert_string_equal(database_error(database), "first");
        assert_string_equal(database_state_code(database), CASES[i].code);
        if (outcome == DATABASE_LOST) {
            assert_false(database_is_connected(database));
            assert_int_equal(database_run(database, "SELECT 1", LONG_MS), DATABASE_LOST);
            assert_int_equal(database_connect(database), DATABASE_DONE);
        }
        run(database, "SELECT 1");
    }
    database_free(database);
}

static void real_troubles_are_told(void **state)
{
    struct database *database = database_to(*state), *other = database_to(*state);
    run(database, "CREATE TABLE locked (a int)");
    run(database, "SET idle_in_transaction_session_timeout = 0"); /* the machine may be busy */
    run(database, "BEGIN; LOCK TABLE locked");
    assert_int_equal(database_run(other, "SET lock_timeout = 50; SELECT * FROM locked", LONG_MS),
                     DATABASE_AGAIN);
    assert_string_equal(database_state_code(other), "55P03");
    run(database, "ROLLBACK");
    run(database, "SET default_transaction_read_only = on");
    assert_int_equal(database_run(database, "DROP TABLE locked", LONG_MS), DATABASE_READONLY);
    assert_int_equal(database_run(other, "SELECT * FROM nobody; SELECT 1", LONG_MS),
                     DATABASE_REFUSED);
    assert_int_equal(database_run(other, "DROP TABLE locked", LONG_MS), DATABASE_DONE);
    /* Idle in a transaction: the server lets go. */
    run(other, "SET idle_in_transaction_session_timeout = 50; BEGIN");
    bool notified;
    assert_int_equal(database_wait(other, LONG_MS, &notified), DATABASE_LOST);
    assert_string_equal(database_state_code(other), "25P03");
    database_free(database);
    database_free(other);
}

static void sessions_end_soon_when_cut_off(void **state)
{
    struct database *database = database_to(*state);
    assert_int_equal(number(database, "SELECT setting::int4 FROM pg_settings WHERE name = "
                                      "'idle_in_transaction_session_timeout'"),
                     3000);
    assert_int_equal(number(database, "SELECT setting::int4 FROM pg_settings WHERE name = "
                                      "'client_connection_check_interval'"),
                     2000);
    assert_int_equal(number(database, "SELECT (application_name = 'test')::int4 FROM "
                                      "pg_stat_activity WHERE pid = pg_backend_pid()"),
                     1);
    database_free(database);
    char conninfo[200];
    snprintf(conninfo, sizeof(conninfo), "%s options='-c idle_in_transaction_session_timeout=7000'",
             postgres_conninfo(*state));
    database = database_by(conninfo, "");
    assert_int_equal(database_connect(database), DATABASE_DONE);
    assert_int_equal(number(database, "SELECT setting::int4 FROM pg_settings WHERE name = "
                                      "'idle_in_transaction_session_timeout'"),
                     7000);
    database_free(database);
}

/* ---- connecting -------------------------------------------------------------------------------
 */

static void passwords_are_kept_out_of_sight(void **state)
{
    char conninfo[200];
    snprintf(conninfo, sizeof(conninfo), "host=%s user=guarded dbname=postgres",
             postgres_host(*state));
    struct database *database = database_by(conninfo, "open sesame");
    assert_int_equal(database_connect(database), DATABASE_DONE);
    database_free(database);

    database = database_by(conninfo, "geheim");
    assert_int_equal(database_connect(database), DATABASE_REFUSED);
    assert_string_equal(database_state_code(database), "28P01");
    assert_non_null(strstr(database_error(database), "guarded"));
    assert_null(strstr(database_error(database), "geheim"));
    database_free(database);

    static const char *const WRONG[] = {"user=a password=geheim",
                                        "user=a geheim",
                                        "postgresql://a:geheim@localhost/b",
                                        "geheim=1",
                                        "postgresql://a:geheim@[::1/b",
                                        "host=a,b port=1,2,3"};
    for (size_t i = 0; i < sizeof(WRONG) / sizeof(WRONG[0]); i++) {
        database = database_by(WRONG[i], "");
        assert_int_equal(database_connect(database), DATABASE_REFUSED);
        assert_null(strstr(database_error(database), "geheim"));
        assert_true(database_error(database)[0] != '\0');
        database_free(database);
    }
}

static void a_session_is_what_it_was_asked_to_be(void **state)
{
    struct database *database = database_by(postgres_conninfo(*state), "");
    assert_int_equal(database_ensure(database, "SET lock_timeout = 'soon'", LONG_MS),
                     DATABASE_REFUSED);
    assert_non_null(strstr(database_error(database), "soon"));
    assert_false(database_is_connected(database));
    static const char COUNT[] =
        "SELECT set_config('test.count', concat(current_setting('test.count', true), 'x'), false)";
    for (int i = 0; i < 2; i++) { /* once for each connection */
        assert_int_equal(database_ensure(database, COUNT, LONG_MS), DATABASE_DONE);
    }
    assert_int_equal(number(database, "SELECT length(current_setting('test.count'))"), 1);
    database_disconnect(database);
    assert_int_equal(database_ensure(database, NULL, LONG_MS), DATABASE_DONE);
    assert_true(database_is_connected(database));
    database_free(database);
}

static void the_writable_host_of_several_is_found(void **state)
{
    struct postgres *readonly = postgres_new("default_transaction_read_only = on\nfsync = off");
    struct postgres *silent = postgres_new("fsync = off");
    char conninfo[400];
    postgres_pause(silent);
    snprintf(conninfo, sizeof(conninfo), "host=/nowhere,%s,%s,%s user=postgres dbname=postgres",
             postgres_host(silent), postgres_host(readonly), postgres_host(*state));
    struct database *database = database_by(conninfo, "");
    assert_int_equal(database_connect(database), DATABASE_DONE);
    run(database, "CREATE TABLE writable (a int); DROP TABLE writable");
    database_free(database);

    /* None can be written to. */
    snprintf(conninfo, sizeof(conninfo), "host=/nowhere,%s user=postgres dbname=postgres",
             postgres_host(readonly));
    database = database_by(conninfo, "");
    assert_int_equal(database_connect(database), DATABASE_LOST);
    assert_non_null(strstr(database_error(database), "/nowhere/.s.PGSQL.5432: No such file"));
    char expected[200];
    snprintf(expected, sizeof(expected), "%s/.s.PGSQL.5432: session is read-only",
             postgres_host(readonly));
    assert_non_null(strstr(database_error(database), expected));
    assert_int_equal(database_run(database, "SELECT 1", LONG_MS), DATABASE_LOST);
    database_free(database);
    postgres_free(readonly);
    postgres_free(silent);
}

static void a_full_server_is_not_a_lost_one(void **state)
{
    (void)state;
    struct postgres *server =
        postgres_new("max_connections = 4\nsuperuser_reserved_connections = 0\nfsync = off\n"
                     "max_wal_senders = 0\nautovacuum_max_workers = 1\n");
    struct database *all[4];
    for (size_t i = 0; i < 4; i++) {
        all[i] = database_to(server);
    }
    struct database *database = database_by(postgres_conninfo(server), "");
    assert_int_equal(database_connect(database), DATABASE_FULL);
    assert_string_equal(database_state_code(database), "53300");
    database_free(database);
    for (size_t i = 0; i < 4; i++) {
        database_free(all[i]);
    }
    postgres_free(server);
}

/* ---- a server that goes -----------------------------------------------------------------------
 */

static void nothing_waits_longer_than_its_time(void **state)
{
    (void)state;
    struct postgres *server = postgres_new("fsync = off");
    struct database *query = database_to(server), *copy = database_to(server),
                    *queue = database_to(server), *wait = database_to(server);
    bool notified;
    run(wait, "LISTEN news");
    run(copy, "CREATE TABLE t (a bytea)");
    assert_int_equal(database_copy_begin(copy, "COPY t FROM STDIN (FORMAT binary)", LONG_MS),
                     DATABASE_DONE);
    postgres_pause(server);
    const struct database_rows *rows;
    assert_int_equal(database_query(query, "SELECT 1", NULL, 0, SHORT_MS, &rows), DATABASE_LOST);
    assert_null(rows);
    assert_false(database_is_connected(query));
    /* More than sockets and libpq take without an answer. */
    struct slice megabytes = slice_make(test_calloc(16, 1 << 20), 16 << 20);
    assert_int_equal(database_copy_bytes(copy, megabytes, SHORT_MS), DATABASE_LOST);
    assert_false(database_is_copying(copy));
    struct database_value value = database_bytea(megabytes);
    assert_int_equal(database_queue(queue, "SELECT length($1)", &value, 1), DATABASE_DONE);
    assert_int_equal(database_flush(queue, SHORT_MS, NULL), DATABASE_LOST);
    assert_int_equal(database_wait(wait, SHORT_MS, &notified), DATABASE_DONE);
    assert_false(notified);
    struct database_settings settings = {.conninfo = slice_from_text(postgres_conninfo(server)),
                                         .connect_timeout_ms = SHORT_MS};
    struct database *connect = database_new(&settings);
    assert_int_equal(database_connect(connect), DATABASE_LOST);
    postgres_resume(server);
    assert_int_equal(database_connect(query), DATABASE_DONE);
    assert_int_equal(number(query, "SELECT 1"), 1);
    database_free(connect);
    database_free(query);
    database_free(copy);
    database_free(queue);
    database_free(wait);
    test_free((void *)megabytes.data);
    postgres_free(server);
}

static void a_server_that_dies_is_noticed_everywhere(void **state)
{
    (void)state;
    struct postgres *server = postgres_new("fsync = off");
    for (int killed = 0; killed < 2; killed++) {
        struct database *idle = database_to(server), *copy = database_to(server),
                        *wait = database_to(server), *queue = database_to(server);
        bool notified;
        run(copy, "CREATE TABLE IF NOT EXISTS t (a bytea)");
        assert_int_equal(
            database_copy_begin(copy, "BEGIN; COPY t FROM STDIN (FORMAT binary); COMMIT", LONG_MS),
            DATABASE_DONE);
        assert_int_equal(database_queue(queue, "SELECT 1", NULL, 0), DATABASE_DONE);
        if (killed) {
            postgres_kill(server);
        } else {
            postgres_stop(server);
        }
        assert_int_equal(database_run(idle, "SELECT 1", LONG_MS), DATABASE_LOST);
        enum database_outcome outcome = DATABASE_DONE;
        struct slice bytes = slice_make("PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
        outcome = database_copy_bytes(copy, bytes, LONG_MS);
        if (outcome == DATABASE_DONE) {
            outcome = database_copy_end(copy, LONG_MS);
        }
        assert_int_equal(outcome, DATABASE_LOST);
        assert_false(database_is_copying(copy));
        assert_int_equal(database_copy_bytes(copy, bytes, LONG_MS), DATABASE_LOST);
        assert_int_equal(database_copy_end(copy, LONG_MS), DATABASE_LOST);
        assert_int_equal(database_wait(wait, LONG_MS, &notified), DATABASE_LOST);
        assert_int_equal(database_flush(queue, LONG_MS, NULL), DATABASE_LOST);
        assert_int_equal(database_connect(idle), DATABASE_LOST);
        postgres_start(server);
        assert_int_equal(database_connect(idle), DATABASE_DONE);
        assert_int_equal(number(idle, "SELECT 1"), 1);
        database_free(idle);
        database_free(copy);
        database_free(wait);
        database_free(queue);
    }
    postgres_free(server);
}

static void a_failed_copy_says_why(void **state)
{
    struct database *database = database_to(*state);
    struct buffer out;
    buffer_init(&out, 0);
    run(database, "CREATE TEMP TABLE once (a int PRIMARY KEY)");
    database_copy_header(&out);
    for (int i = 0; i < 2; i++) {
        database_copy_row(&out, 1);
        database_put_int4(&out, 1);
    }
    database_copy_trailer(&out);
    assert_int_equal(database_copy_begin(
                         database, "BEGIN; COPY once FROM STDIN (FORMAT binary); COMMIT", LONG_MS),
                     DATABASE_DONE);
    assert_int_equal(database_copy_bytes(database, buffer_slice(&out), LONG_MS), DATABASE_DONE);
    assert_int_equal(database_copy_end(database, LONG_MS), DATABASE_REFUSED);
    assert_string_equal(database_state_code(database), "23505");
    assert_false(database_is_copying(database));
    run(database, "ROLLBACK");
    assert_int_equal(number(database, "SELECT count(*) FROM once"), 0);
    buffer_done(&out);
    database_free(database);
}

/* ---- warnings -----------------------------------------------------------------------------------
 */

struct commit {
    struct database *database;
    enum database_outcome outcome;
};

static void *commit(void *context)
{
    struct commit *commit = context;
    commit->outcome = database_run(commit->database, "COMMIT", LONG_MS);
    return NULL;
}

static void a_commit_that_no_standby_has_is_a_warning(void **state)
{
    (void)state;
    struct postgres *server = postgres_new("synchronous_standby_names = 'nobody'");
    struct database *other = database_to(server);
    run(other, "SET synchronous_commit = local; CREATE TABLE kept (a int)");
    for (int i = 0; i < 2; i++) {
        struct commit job = {.database = database_to(server)};
        pthread_t thread;
        run(job.database, "SET idle_in_transaction_session_timeout = 0");
        run(job.database, "BEGIN; INSERT INTO kept VALUES (1)");
        assert_int_equal(pthread_create(&thread, NULL, commit, &job), 0);
        /* A cancel before it waits would end nothing. */
        static const char *const ENDS[] = {
            "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = "
            "'SyncRep'",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = "
            "'SyncRep'"};
        while (number(other, ENDS[i]) == 0) {
            usleep(10000);
        }
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(job.outcome, i == 0 ? DATABASE_WARNED : DATABASE_LOST);
        if (i == 0) {
            assert_string_equal(database_state_code(job.database), "01000");
            assert_int_equal(database_run(job.database, "SELECT 1", LONG_MS), DATABASE_DONE);
            /* Notices are none. */
            assert_int_equal(database_run(job.database, "DROP TABLE IF EXISTS nobody", LONG_MS),
                             DATABASE_DONE);
        }
        database_free(job.database);
    }
    assert_int_equal(number(other, "SELECT count(*) FROM kept"), 2);
    database_free(other);
    postgres_free(server);
}

/* ---- notifications and interrupts
 * ----------------------------------------------------------------- */

static void notifications_are_heard(void **state)
{
    struct database *database = database_to(*state), *other = database_to(*state);
    bool notified;
    run(database, "LISTEN news");
    assert_int_equal(database_wait(database, 0, &notified), DATABASE_DONE);
    assert_false(notified);
    run(other, "NOTIFY news, 'a'; NOTIFY news, 'b'");
    assert_int_equal(database_wait(database, LONG_MS, &notified), DATABASE_DONE);
    assert_true(notified);
    run(other, "NOTIFY news");
    run(database, "SELECT 1"); /* brings it along */
    assert_int_equal(database_wait(database, LONG_MS, &notified), DATABASE_DONE);
    assert_true(notified);
    database_free(database);
    database_free(other);
}

static void *interrupt(void *context)
{
    database_interrupt(context);
    return NULL;
}

static void an_interrupt_ends_one_call(void **state)
{
    struct database *database = database_to(*state);
    const struct database_rows *rows;
    pthread_t thread;
    bool notified;
    assert_int_equal(pthread_create(&thread, NULL, interrupt, database), 0);
    assert_int_equal(database_query(database, "SELECT pg_sleep(600)", NULL, 0, LONG_MS * 10, &rows),
                     DATABASE_LOST);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(database_error(database), "interrupted");
    assert_int_equal(database_connect(database), DATABASE_DONE);
    assert_int_equal(pthread_create(&thread, NULL, interrupt, database), 0);
    assert_int_equal(database_wait(database, LONG_MS * 10, &notified), DATABASE_LOST);
    assert_int_equal(pthread_join(thread, NULL), 0);
    /* Before the call: it is not forgotten. Two are one. */
    database_interrupt(database);
    database_interrupt(database);
    assert_int_equal(database_connect(database), DATABASE_LOST);
    assert_int_equal(database_connect(database), DATABASE_DONE);
    assert_int_equal(number(database, "SELECT 1"), 1);
    database_free(database);
}

/* ---- one server for most
 * ---------------------------------------------------------------------------- */

static int start(void **state)
{
    *state = postgres_new("fsync = off"); /* kills of processes lose nothing by it */
    return *state != NULL ? 0 : -1;
}

static int stop(void **state)
{
    postgres_free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_as_they_went),
        cmocka_unit_test(rows_are_copied_in),
        cmocka_unit_test(a_pipeline_is_one_transaction_and_says_what_failed),
        cmocka_unit_test(stale_statements_are_prepared_anew),
        cmocka_unit_test(each_class_of_errors_has_its_outcome),
        cmocka_unit_test(real_troubles_are_told),
        cmocka_unit_test(sessions_end_soon_when_cut_off),
        cmocka_unit_test(passwords_are_kept_out_of_sight),
        cmocka_unit_test(a_session_is_what_it_was_asked_to_be),
        cmocka_unit_test(the_writable_host_of_several_is_found),
        cmocka_unit_test(a_full_server_is_not_a_lost_one),
        cmocka_unit_test(nothing_waits_longer_than_its_time),
        cmocka_unit_test(a_server_that_dies_is_noticed_everywhere),
        cmocka_unit_test(a_failed_copy_says_why),
        cmocka_unit_test(a_commit_that_no_standby_has_is_a_warning),
        cmocka_unit_test(notifications_are_heard),
        cmocka_unit_test(an_interrupt_ends_one_call),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
