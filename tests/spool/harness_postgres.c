/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "spool/pg_partition.h"
#include "spool/pg_schema.h"
#include "tests/spool/harness_postgres.h"
#include "tests/sys/postgres.h"

#include <stdio.h>

static struct postgres *server;
static struct database *database;
static const char *as_user;
static bool defers;
static char conninfo[300];

struct postgres *harness_server(void)
{
    if (server == NULL) {
        server = postgres_new(NULL);
    }
    return server;
}

void harness_server_done(void)
{
    database_free(database);
    postgres_free(server);
    database = NULL;
    server = NULL;
}

int harness_ended(int failed)
{
    harness_server_done();
    return failed;
}

static struct database_settings settings_of_server(void)
{
    return (struct database_settings){.conninfo = slice_from_text(postgres_conninfo(server)),
                                      .name = SLICE_LITERAL("test"),
                                      .connect_timeout_ms = 30000};
}

struct database *harness_database(void)
{
    const struct database_settings settings = settings_of_server();
    if (database == NULL) {
        database = database_new(&settings);
        assert_non_null(database);
    }
    /* The server may have been away meanwhile. */
    if (database_run(database, "SELECT 1", 60000) != DATABASE_DONE) {
        assert_int_equal(database_connect(database), DATABASE_DONE);
    }
    return database;
}

void harness_tables(void)
{
    size_t count;
    char problem[DATABASE_ERROR_SIZE];
    const struct pg_migration *migrations = pg_migrations(&count);
    assert_int_equal(
        database_run(harness_database(), "DROP SCHEMA IF EXISTS holdfast CASCADE", 60000),
        DATABASE_DONE);
    assert_int_equal(pg_schema_apply(database, migrations, count, NULL, problem), ERROR_NONE);
    int64_t ms = id_time_ms(harness_id(0));
    assert_int_equal(pg_partition_add(database, ms, ms + 60000), DATABASE_DONE);
}

void harness_user(const char *user)
{
    as_user = user;
}

void harness_defer(bool defer)
{
    defers = defer;
}

enum error harness_open_postgres(struct harness *harness, struct disk *journal, uint16_t node,
                                 const struct spool_shares *shares)
{
    struct spool_postgres_settings settings;
    spool_postgres_settings_default(&settings);
    settings.database = settings_of_server();
    if (as_user != NULL) {
        snprintf(conninfo, sizeof(conninfo), "host=%s dbname=postgres user=%s",
                 postgres_host(server), as_user);
        settings.database.conninfo = slice_from_text(conninfo);
    }
    settings.defer_when_away = defers;
    settings.node = node;
    settings.shares = shares;
    return spool_open_postgres(harness->loop, journal, &harness->settings, &settings,
                               &harness->owner, &harness->spool);
}

struct spool_postgres_state harness_state(const struct harness *harness)
{
    struct spool_postgres_state state;
    spool_postgres_status(harness->spool, &state);
    return state;
}

int64_t harness_count(const char *sql)
{
    const struct database_rows *rows;
    (void)harness_database();
    enum database_outcome outcome = database_query(database, sql, NULL, 0, PATIENCE_MS, &rows);
    if (outcome != DATABASE_DONE) {
        fail_msg("%s: %s", sql, database_error(database));
    }
    return database_get_int(rows, 0, 0);
}
