/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spool/pg_schema.h"
#include "tests/sys/postgres.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum { LONG_MS = 60000 };

static const struct pg_migration TWO[] = {
    {.oldest = 1, .sql = "CREATE TABLE holdfast.first (a int)"},
    {.oldest = 1, .sql = "ALTER TABLE holdfast.first ADD b int; CREATE TABLE holdfast.second ()"},
};
static const struct pg_migration BROKEN[] = {
    {.oldest = 1, .sql = "CREATE TABLE holdfast.first (a int)"},
    {.oldest = 1, .sql = "ALTER TABLE holdfast.first ADD b int; CREATE TABLE holdfast.first ()"},
};
static const struct pg_migration BREAKING[] = {
    {.oldest = 1, .sql = "CREATE TABLE holdfast.first (a int)"},
    {.oldest = 2, .sql = "ALTER TABLE holdfast.first DROP a"},
};

static struct database *connect_as(const struct postgres *server, const char *user)
{
    char conninfo[300]; /* on a busy machine a transaction may stand still for long */
    snprintf(conninfo, sizeof(conninfo),
             "host=%s dbname=postgres user=%s options='-c idle_in_transaction_session_timeout=0'",
             postgres_host(server), user);
    struct database_settings settings = {.conninfo = slice_from_text(conninfo),
                                         .password = SLICE_LITERAL("open sesame"),
                                         .connect_timeout_ms = LONG_MS};
    struct database *database = database_new(&settings);
    assert_non_null(database);
    assert_int_equal(database_connect(database), DATABASE_DONE);
    return database;
}

static void run(struct database *database, const char *sql)
{
    enum database_outcome outcome = database_run(database, sql, LONG_MS);
    if (outcome != DATABASE_DONE) {
        fail_msg("%s: %d %s", sql, outcome, database_error(database));
    }
}

static enum error apply(struct database *database, const struct pg_migration *migrations,
                        size_t count, int *ret_number)
{
    char problem[DATABASE_ERROR_SIZE];
    enum error error = pg_schema_apply(database, migrations, count, ret_number, problem);
    assert_true((error != ERROR_NONE) == (problem[0] != '\0'));
    return error;
}

static enum error check(struct database *database, const struct pg_migration *migrations,
                        size_t count)
{
    char problem[DATABASE_ERROR_SIZE];
    enum error error = pg_schema_check(database, migrations, count, problem);
    assert_true((error != ERROR_NONE) == (problem[0] != '\0'));
    return error;
}

static int clear(void **state)
{
    struct database *database = connect_as(*state, "postgres");
    run(database, "SET client_min_messages = warning; DROP SCHEMA IF EXISTS holdfast CASCADE");
    database_free(database);
    return 0;
}

static void the_schema_is_made_once(void **state)
{
    struct database *database = connect_as(*state, "postgres");
    size_t count;
    int number;
    const struct pg_migration *migrations = pg_migrations(&count);
    assert_int_equal(apply(database, migrations, count, &number), ERROR_NONE);
    assert_int_equal(number, count);
    run(database, "INSERT INTO holdfast.globals VALUES (0, 'a', 'b')");
    assert_int_equal(apply(database, migrations, count, &number), ERROR_NONE);
    assert_int_equal(number, count);
    const struct database_rows *rows;
    assert_int_equal(
        database_query(database, "SELECT count(*) FROM holdfast.globals", NULL, 0, LONG_MS, &rows),
        DATABASE_DONE);
    assert_int_equal(database_get_int(rows, 0, 0), 1);
    database_free(database);
}

static void programs_one_version_apart_live_together(void **state)
{
    struct database *database = connect_as(*state, "postgres");
    int number;
    assert_int_equal(check(database, TWO, 1), ERROR_AGAIN);
    assert_int_equal(apply(database, TWO, 1, &number), ERROR_NONE);
    assert_int_equal(number, 1);
    /* Who only looks changes nothing. */
    assert_int_equal(check(database, TWO, 2), ERROR_AGAIN);
    assert_int_equal(apply(database, TWO, 1, &number), ERROR_NONE);
    assert_int_equal(number, 1);
    assert_int_equal(apply(database, TWO, 2, &number), ERROR_NONE);
    assert_int_equal(number, 2);
    /* The program before: it goes on, and sees what it stands on. */
    assert_int_equal(apply(database, TWO, 1, &number), ERROR_NONE);
    assert_int_equal(number, 2);
    assert_int_equal(check(database, TWO, 1), ERROR_NONE);
    database_free(database);
}

static void a_schema_beyond_us_is_not_touched(void **state)
{
    struct database *database = connect_as(*state, "postgres");
    int number;
    assert_int_equal(apply(database, BREAKING, 2, &number), ERROR_NONE);
    assert_int_equal(apply(database, BREAKING, 1, &number), ERROR_NEWER);
    assert_int_equal(check(database, BREAKING, 1), ERROR_NEWER);
    assert_int_equal(check(database, BREAKING, 2), ERROR_NONE);
    assert_int_equal(apply(database, TWO, 2, &number), ERROR_CORRUPT);
    run(database, "DELETE FROM holdfast.migrations WHERE number = 1");
    assert_int_equal(apply(database, BREAKING, 2, &number), ERROR_CORRUPT);
    database_free(database);
}

static void a_migration_is_whole_or_not_there(void **state)
{
    struct database *database = connect_as(*state, "postgres");
    int number;
    assert_int_equal(apply(database, BROKEN, 2, &number), ERROR_IO);
    assert_int_equal(number, 1);
    run(database, "SELECT a FROM holdfast.first");
    assert_int_equal(database_run(database, "SELECT b FROM holdfast.first", LONG_MS),
                     DATABASE_REFUSED);
    assert_int_equal(apply(database, TWO, 2, &number), ERROR_NONE);
    database_free(database);
}

struct program {
    struct database *database;
    enum error error;
};

static int64_t number_of(struct database *database, const char *sql)
{
    const struct database_rows *rows;
    assert_int_equal(database_query(database, sql, NULL, 0, LONG_MS, &rows), DATABASE_DONE);
    return database_get_int(rows, 0, 0);
}

/* Each by itself: who is cut off goes on where he was. */
static void what_is_long_is_done_ahead(void **state)
{
    static const struct pg_migration LONG[] = {
        {.oldest = 1,
         .sql = "CREATE TABLE holdfast.first (); SELECT 1 / 0",
         .ahead = "SELECT 'CREATE TABLE holdfast.ahead_' || n || ' ()' FROM generate_series(1, 3) n"
                  " WHERE to_regclass('holdfast.ahead_' || n) IS NULL ORDER BY n LIMIT 1"},
    };
    static const char COUNT[] = "SELECT count(*) FROM pg_class WHERE relname LIKE 'ahead%'";
    struct database *database = connect_as(*state, "postgres");
    int number;
    assert_int_equal(apply(database, LONG, 1, &number), ERROR_IO);
    assert_int_equal(number, 0);
    assert_int_equal(number_of(database, COUNT), 3);
    run(database, "DROP TABLE holdfast.ahead_2");
    assert_int_equal(apply(database, LONG, 1, &number), ERROR_IO);
    assert_int_equal(number_of(database, COUNT), 3);
    database_free(database);
}

/* The indexes of partitions that stand are built one by one, and not once more. */
static void partitions_get_their_index_ahead(void **state)
{
    static const char INDEXES[] =
        "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_inherits h ON h.inhrelid = c.oid WHERE i.indisvalid"
        " AND c.relname IN ('parts_a_follow', 'parts_b_follow')";
    static const char ALL[] = "SELECT count(*) FROM pg_indexes WHERE tablename = 'parts_a'";
    struct database *database = connect_as(*state, "postgres");
    size_t count;
    int number;
    const struct pg_migration *migrations = pg_migrations(&count);
    assert_int_equal(apply(database, migrations, 2, &number), ERROR_NONE);
    run(database, "CREATE TABLE holdfast.parts_a PARTITION OF holdfast.parts FOR VALUES"
                  " FROM ('00000000-0000-0000-0000-000000000000') TO "
                  "('10000000-0000-0000-0000-000000000000');"
                  "CREATE TABLE holdfast.parts_b PARTITION OF holdfast.parts FOR VALUES"
                  " FROM ('10000000-0000-0000-0000-000000000000') TO "
                  "('20000000-0000-0000-0000-000000000000')");
    assert_int_equal(number_of(database, ALL), 1);
    assert_int_equal(apply(database, migrations, count, &number), ERROR_NONE);
    assert_int_equal(number, count);
    assert_int_equal(number_of(database, INDEXES), 2);
    assert_int_equal(number_of(database, ALL), 2);
    database_free(database);
}

static void *apply_real(void *context)
{
    struct program *program = context;
    char problem[DATABASE_ERROR_SIZE];
    size_t count;
    const struct pg_migration *migrations = pg_migrations(&count);
    program->error = pg_schema_apply(program->database, migrations, count, NULL, problem);
    return NULL;
}

static void many_may_try_at_once(void **state)
{
    enum { PROGRAMS = 6 };
    struct program programs[PROGRAMS];
    pthread_t threads[PROGRAMS];
    for (size_t i = 0; i < PROGRAMS; i++) {
        programs[i].database = connect_as(*state, "postgres");
        assert_int_equal(pthread_create(&threads[i], NULL, apply_real, &programs[i]), 0);
    }
    for (size_t i = 0; i < PROGRAMS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(programs[i].error, ERROR_NONE);
        database_free(programs[i].database);
    }
}

static void locks_of_others_are_waited_for_and_given_up(void **state)
{
    struct database *database = connect_as(*state, "postgres"),
                    *other = connect_as(*state, "postgres");
    int number;
    assert_int_equal(apply(database, TWO, 1, &number), ERROR_NONE);
    run(other, "BEGIN; LOCK TABLE holdfast.first IN ACCESS SHARE MODE");
    assert_int_equal(apply(database, TWO, 2, &number), ERROR_AGAIN);
    assert_int_equal(number, 1);
    run(other, "ROLLBACK");
    assert_int_equal(apply(database, TWO, 2, &number), ERROR_NONE);
    database_free(database);
    database_free(other);
}

static void who_may_not_is_told(void **state)
{
    struct database *database = connect_as(*state, "postgres"),
                    *guarded = connect_as(*state, "guarded");
    size_t count;
    const struct pg_migration *migrations = pg_migrations(&count);
    assert_int_equal(apply(guarded, migrations, count, NULL), ERROR_DENIED);
    /* An administrator makes the schema, and gives nothing but that. */
    run(database, "CREATE SCHEMA holdfast AUTHORIZATION guarded");
    assert_int_equal(apply(guarded, migrations, count, NULL), ERROR_NONE);
    database_free(guarded);
    assert_int_equal(
        database_run(database, "SELECT pg_terminate_backend(pg_backend_pid())", LONG_MS),
        DATABASE_LOST);
    assert_int_equal(apply(database, migrations, count, NULL), ERROR_CLOSED);
    database_free(database);
}

static int start(void **state)
{
    *state = postgres_new("fsync = off"); /* nothing is killed here */
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
        cmocka_unit_test_setup(the_schema_is_made_once, clear),
        cmocka_unit_test_setup(programs_one_version_apart_live_together, clear),
        cmocka_unit_test_setup(a_schema_beyond_us_is_not_touched, clear),
        cmocka_unit_test_setup(a_migration_is_whole_or_not_there, clear),
        cmocka_unit_test_setup(what_is_long_is_done_ahead, clear),
        cmocka_unit_test_setup(partitions_get_their_index_ahead, clear),
        cmocka_unit_test_setup(many_may_try_at_once, clear),
        cmocka_unit_test_setup(locks_of_others_are_waited_for_and_given_up, clear),
        cmocka_unit_test_setup(who_may_not_is_told, clear),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
