/* SPDX-License-Identifier: Apache-2.0
 *
 * How much room the tables of the cluster take after traffic with retiring, beside what the same
 * living mail takes in new tables (docs/decisions/0045).
 *
 *   retire_pg CONNINFO SECONDS RATE BYTES HELD
 *
 * For SECONDS so many messages a second are accepted, each is delivered a second later but for HELD
 * in a hundred, which stay; with each delivery goes a note. Ranges are a minute wide. Then it waits
 * until all ranges with mail have passed, and counts. Makes the schema `holdfast` anew.
 */
#include "spool/pg_partition.h"
#include "spool/pg_schema.h"
#include "sys/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LONG_MS = 600000, TICKS = 10, TEND_TICKS = 50 };

struct bench {
    struct database *database, *leader;
    struct pg_partition_settings settings;
    struct message_id cleaned;
    struct id_maker maker;
    struct buffer out, content;
    struct message_id *waiting; /* of one second, by tick */
    size_t per_tick;
    unsigned held;
    unsigned long accepted, retired;
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void good(struct database *database, enum database_outcome outcome, const char *what)
{
    if (outcome != DATABASE_DONE) {
        fail(what, database_error(database));
    }
}

static int64_t ask(struct bench *bench, const char *constant)
{
    const struct database_rows *rows;
    good(bench->leader, database_query(bench->leader, constant, NULL, 0, LONG_MS, &rows), constant);
    return database_get_int(rows, 0, 0);
}

static struct database *connect_to(const char *conninfo)
{
    struct database_settings settings = {.conninfo = slice_from_text(conninfo),
                                         .connect_timeout_ms = 10000};
    struct database *database = database_new(&settings);
    if (database == NULL) {
        fail("connect", "out of memory");
    }
    good(database, database_connect(database), "connect");
    return database;
}

/* ---- traffic ------------------------------------------------------------------------------------
 */

static void copy(struct bench *bench, const char *sql)
{
    database_copy_trailer(&bench->out);
    good(bench->database, database_copy_begin(bench->database, sql, LONG_MS), sql);
    good(bench->database, database_copy_bytes(bench->database, buffer_slice(&bench->out), LONG_MS),
         sql);
    good(bench->database, database_copy_end(bench->database, LONG_MS), sql);
    buffer_clear(&bench->out);
    database_copy_header(&bench->out);
}

static void accept(struct bench *bench, struct message_id *ids)
{
    good(bench->database, database_run(bench->database, "BEGIN", LONG_MS), "begin");
    for (size_t i = 0; i < bench->per_tick; i++) {
        ids[i] = id_make(&bench->maker, clock_wall_ms());
        database_copy_row(&bench->out, 3);
        database_put_uuid(&bench->out, ids[i]);
        database_put_bytes(&bench->out, slice_take(buffer_slice(&bench->content), 320));
        database_put_bytes(&bench->out, buffer_slice(&bench->content));
    }
    copy(bench, "COPY holdfast.messages FROM STDIN (FORMAT binary)");
    for (size_t i = 0; i < bench->per_tick; i++) {
        database_copy_row(&bench->out, 3);
        database_put_int4(&bench->out, (int32_t)(i % 128));
        database_put_int4(&bench->out, 1);
        database_put_uuid(&bench->out, ids[i]);
    }
    copy(bench, "COPY holdfast.parts (share, count, id) FROM STDIN (FORMAT binary)");
    good(bench->database, database_run(bench->database, "COMMIT", LONG_MS), "commit");
    bench->accepted += bench->per_tick;
}

static void deliver(struct bench *bench, const struct message_id *ids)
{
    static const char NOTES[] = "INSERT INTO holdfast.notes (id, delivery, share, kind, payload) "
                                "SELECT i.id, 0, 0, 1, 'attempt'"
                                " FROM unnest($1::uuid[]) i (id) WHERE " PG_PARTITION_OPEN("i.id");
    static const char FATES[] =
        "INSERT INTO holdfast.fates (when_ms, id, delivery, fate, server) SELECT"
        " (extract(epoch FROM now()) * 1000)::bigint, i.id, 0, 1, 'm1'"
        " FROM unnest($1::uuid[]) i (id) WHERE " PG_PARTITION_OPEN("i.id");
    struct buffer array;
    size_t count = bench->per_tick - bench->per_tick * bench->held / 100;
    if (id_is_null(ids[0])) {
        return;
    }
    buffer_init(&array, 0);
    database_array_begin(&array, DATABASE_UUID, count);
    for (size_t i = 0; i < count; i++) {
        database_put_uuid(&array, ids[i]);
    }
    struct database_value value = database_array(&array, DATABASE_UUID_ARRAY);
    if (database_queue(bench->database, NOTES, &value, 1) != DATABASE_DONE ||
        database_queue(bench->database, FATES, &value, 1) != DATABASE_DONE ||
        database_flush(bench->database, LONG_MS, NULL) != DATABASE_DONE) {
        fail("deliver", database_error(bench->database));
    }
    buffer_done(&array);
}

static void tend(struct bench *bench)
{
    size_t retired = 0;
    int64_t gap_ms;
    enum database_outcome outcome = pg_partition_make(bench->leader, &bench->settings, &gap_ms);
    if (outcome == DATABASE_DONE) {
        int64_t from = clock_steady_ms();
        outcome = pg_partition_retire(bench->leader, &bench->settings, &retired);
        if (retired > 0) {
            printf("retired %zu in %lld ms\n", retired, (long long)(clock_steady_ms() - from));
        }
    }
    if (outcome == DATABASE_DONE) {
        outcome = pg_partition_clean(bench->leader, &bench->settings, &bench->cleaned, NULL);
    }
    if (outcome != DATABASE_DONE && outcome != DATABASE_AGAIN) {
        fail("tend", database_error(bench->leader));
    }
    bench->retired += retired;
}

/* ---- counting -----------------------------------------------------------------------------------
 */

#define SIZE_OF(schema)                                                                            \
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN "         \
    "pg_namespace s ON s.oid = c.relnamespace WHERE s.nspname = '" schema                          \
    "' AND c.relkind = 'r' AND c.relname ~ '^(kept_)?(messages|chunks|parts|fates|notes)'"
#define ALIVE(kind)                                                                                \
    "CREATE TABLE fresh." kind " (LIKE holdfast." kind " INCLUDING ALL);"                          \
    "INSERT INTO fresh." kind " SELECT * FROM holdfast." kind                                      \
    " WHERE id IN (SELECT * FROM alive);"                                                          \
    "INSERT INTO fresh." kind " SELECT * FROM holdfast.kept_" kind                                 \
    " WHERE id IN (SELECT * FROM alive);"

static void count(struct bench *bench)
{
    int64_t taken = ask(bench, SIZE_OF("holdfast"));
    good(bench->leader,
         database_run(
             bench->leader,
             "DROP SCHEMA IF EXISTS fresh CASCADE; CREATE SCHEMA fresh;"
             "CREATE TEMP TABLE alive AS SELECT p.id FROM (SELECT id FROM holdfast.parts "
             "UNION ALL SELECT id FROM holdfast.kept_parts) p WHERE NOT EXISTS (SELECT FROM "
             "holdfast.fates f WHERE f.id = p.id) AND NOT EXISTS (SELECT FROM "
             "holdfast.kept_fates f WHERE f.id = p.id);" ALIVE("messages") ALIVE("chunks")
                 ALIVE("parts") ALIVE("fates") ALIVE("notes"),
             LONG_MS),
         "fresh");
    int64_t fresh = ask(bench, SIZE_OF("fresh"));
    printf(
        "accepted %lu  alive %lld  taken %.1f MB  in new tables %.1f MB  ratio %.3f  retired %lu\n",
        bench->accepted, (long long)ask(bench, "SELECT count(*) FROM alive"), (double)taken / 1e6,
        (double)fresh / 1e6, (double)taken / (double)fresh, bench->retired);
}

/* ---- the run ------------------------------------------------------------------------------------
 */

static void prepare(struct bench *bench, const char *conninfo)
{
    char problem[DATABASE_ERROR_SIZE];
    size_t migration_count;
    const struct pg_migration *migrations = pg_migrations(&migration_count);
    bench->database = connect_to(conninfo);
    bench->leader = connect_to(conninfo);
    good(bench->leader,
         database_run(bench->leader,
                      "SET client_min_messages = warning; DROP SCHEMA IF EXISTS holdfast CASCADE",
                      LONG_MS),
         "clear");
    if (pg_schema_apply(bench->leader, migrations, migration_count, NULL, problem) != ERROR_NONE) {
        fail("schema", problem);
    }
    pg_partition_settings_default(&bench->settings);
    /* The first range decides how wide the next are: with mail in it, a minute. */
    int64_t minute_ms = clock_wall_ms() / 60000 * 60000;
    bench->settings.bytes = 1;
    good(bench->leader, pg_partition_add(bench->leader, minute_ms - 60000, minute_ms + 60000),
         "add");
    database_copy_header(&bench->out);
}

int main(int argc, char **argv)
{
    struct bench bench = {.maker = {.node = 1, .start = 7}};
    if (argc != 6) {
        fprintf(stderr, "retire_pg CONNINFO SECONDS RATE BYTES HELD\n");
        return 2;
    }
    long ticks = strtol(argv[2], NULL, 10) * TICKS;
    bench.per_tick = strtoul(argv[3], NULL, 10) / TICKS;
    bench.held = (unsigned)strtoul(argv[5], NULL, 10);
    buffer_init(&bench.out, 0);
    buffer_init(&bench.content, 0);
    for (size_t i = 0; i < strtoul(argv[4], NULL, 10); i++) {
        buffer_put_u8(&bench.content, (uint8_t)('a' + i * i % 23));
    }
    bench.waiting = calloc(TICKS * bench.per_tick, sizeof(*bench.waiting));
    if (bench.waiting == NULL || bench.content.failed) {
        fail("start", "out of memory");
    }
    prepare(&bench, argv[1]);
    int64_t start_ms = clock_steady_ms();
    for (long tick = 0; tick < ticks; tick++) {
        struct message_id *ids = bench.waiting + (size_t)(tick % TICKS) * bench.per_tick;
        deliver(&bench, ids);
        accept(&bench, ids);
        if (tick % TEND_TICKS == 10) {
            tend(&bench);
        }
        int64_t early_ms = start_ms + (tick + 1) * 1000 / TICKS - clock_steady_ms();
        usleep(early_ms > 0 ? (useconds_t)early_ms * 1000 : 0);
    }
    for (size_t i = 0; i < TICKS; i++) {
        deliver(&bench, bench.waiting + i * bench.per_tick);
    }
    printf("traffic took %lld s\n", (long long)(clock_steady_ms() - start_ms) / 1000);
    count(&bench);
    while (ask(&bench, "SELECT count(*) FROM holdfast.parts") > 0) {
        sleep(2);
        tend(&bench);
    }
    good(bench.leader, database_run(bench.leader, "DROP TABLE alive", LONG_MS), "drop");
    count(&bench);
    database_free(bench.database);
    database_free(bench.leader);
    buffer_done(&bench.out);
    buffer_done(&bench.content);
    free(bench.waiting);
    return 0;
}
