/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranges are made, and retired while the connection dies before and after each statement
 * (database_run and database_query are wrapped, see meson.build).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spool/pg_partition.h"
#include "spool/pg_schema.h"
#include "tests/sys/postgres.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LONG_MS = 60000, MINUTE_MS = 60000 };

/* ---- death by number ------------------------------------------------------------------------ */

enum database_outcome __real_database_run(struct database *database, const char *sql,
                                          int timeout_ms);
enum database_outcome __real_database_query(struct database *database, const char *sql,
                                            const struct database_value *values, int count,
                                            int timeout_ms, const struct database_rows **ret_rows);
enum database_outcome __wrap_database_run(struct database *database, const char *sql,
                                          int timeout_ms);
enum database_outcome __wrap_database_query(struct database *database, const char *sql,
                                            const struct database_value *values, int count,
                                            int timeout_ms, const struct database_rows **ret_rows);

static long calls_left = -1; /* -1: none dies */
static bool dies_after;
static void (*before_lock)(void); /* once */

/* True: this one. */
static bool is_the_end(void)
{
    return calls_left >= 0 && calls_left-- == 0;
}

enum database_outcome __wrap_database_run(struct database *database, const char *sql,
                                          int timeout_ms)
{
    bool ends = is_the_end();
    if (before_lock != NULL && strncmp(sql, "LOCK", 4) == 0) {
        before_lock();
        before_lock = NULL;
    }
    if (ends && !dies_after) {
        database_disconnect(database);
    }
    enum database_outcome outcome = __real_database_run(database, sql, timeout_ms);
    if (ends) {
        database_disconnect(database);
    }
    return ends ? DATABASE_LOST : outcome;
}

enum database_outcome __wrap_database_query(struct database *database, const char *sql,
                                            const struct database_value *values, int count,
                                            int timeout_ms, const struct database_rows **ret_rows)
{
    bool ends = is_the_end();
    if (ends && !dies_after) {
        database_disconnect(database);
    }
    enum database_outcome outcome =
        __real_database_query(database, sql, values, count, timeout_ms, ret_rows);
    if (ends) {
        database_disconnect(database);
    }
    return ends ? DATABASE_LOST : outcome;
}

/* ---- a world -------------------------------------------------------------------------------- */

struct world {
    struct postgres *server;
    struct database *database, *other;
    struct pg_partition_settings settings;
    struct message_id after; /* of the cleaning */
    int64_t old_ms;          /* where ranges of the past begin */
    int64_t gap_ms;          /* as pg_partition_make() has told */
};

static struct database *connect_to(const struct postgres *server)
{
    char conninfo[300]; /* on a busy machine a transaction may stand still for long */
    snprintf(conninfo, sizeof(conninfo), "%s options='-c idle_in_transaction_session_timeout=0'",
             postgres_conninfo(server));
    struct database_settings settings = {.conninfo = slice_from_text(conninfo),
                                         .connect_timeout_ms = LONG_MS};
    struct database *database = database_new(&settings);
    assert_non_null(database);
    assert_int_equal(database_connect(database), DATABASE_DONE);
    return database;
}

static void good(struct database *database, enum database_outcome outcome, const char *what)
{
    if (outcome != DATABASE_DONE) {
        fail_msg("%s: %d %s %s", what, outcome, database_state_code(database),
                 database_error(database));
    }
}

static void run(struct database *database, const char *sql)
{
    good(database, __real_database_run(database, sql, LONG_MS), sql);
}

/* Of a text that need not stay. */
static int64_t number(struct database *database, const char *sql)
{
    char text[2000];
    const struct database_rows *rows;
    static const char READ[] = "SELECT n FROM answer";
    snprintf(text, sizeof(text),
             "CREATE TEMP TABLE IF NOT EXISTS answer (n bigint); DELETE FROM answer; "
             "INSERT INTO answer %s",
             sql);
    run(database, text);
    good(database, __real_database_query(database, READ, NULL, 0, LONG_MS, &rows), sql);
    return database_count(rows) > 0 ? database_get_int(rows, 0, 0) : 0;
}

static int set_up(void **state)
{
    struct world *world = *state;
    char problem[DATABASE_ERROR_SIZE];
    size_t count;
    calls_left = -1;
    world->after = (struct message_id){0};
    world->database = connect_to(world->server);
    world->other = connect_to(world->server);
    run(world->other, "SET client_min_messages = warning; DROP SCHEMA IF EXISTS holdfast CASCADE");
    const struct pg_migration *migrations = pg_migrations(&count);
    assert_int_equal(pg_schema_apply(world->other, migrations, count, NULL, problem), ERROR_NONE);
    pg_partition_settings_default(&world->settings);
    world->settings.survivors_percent = 60;
    world->old_ms =
        number(world->other, "SELECT (extract(epoch FROM now()) * 1000)::bigint") - 3600000;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    calls_left = -1;
    database_free(world->database);
    database_free(world->other);
    return 0;
}

/* A range of the past with mail: of `count` messages of two deliveries every third is unfinished,
 * with one fate. Each has a chunk and a note. */
static void add_mail(struct world *world, int minute, int count)
{
    char sql[2000];
    int64_t low_ms = world->old_ms + minute * MINUTE_MS;
    good(world->other, pg_partition_add(world->other, low_ms, low_ms + MINUTE_MS), "add");
    snprintf(sql, sizeof(sql),
             "CREATE TEMP TABLE mail ON COMMIT DROP AS SELECT n, (lpad(to_hex(%lld + n), 12, '0') "
             "|| lpad(to_hex(n), 20, '0'))::uuid AS id FROM generate_series(0, %d) n;"
             "INSERT INTO holdfast.messages SELECT id, 'envelope', NULL FROM mail;"
             "INSERT INTO holdfast.chunks SELECT id, 0, 'content' FROM mail;"
             "INSERT INTO holdfast.parts (share, count, id) SELECT 1, 1, id FROM mail ORDER BY n;"
             "INSERT INTO holdfast.parts (share, count, id, deliveries) SELECT 2, 1, id, '{1}' "
             " FROM mail ORDER BY n;"
             "INSERT INTO holdfast.notes (id, delivery, share, kind, payload) "
             " SELECT id, 0, 1, 7, 'note' FROM mail;"
             "INSERT INTO holdfast.fates (id, delivery, fate) SELECT id, 0, 1 FROM mail;"
             "INSERT INTO holdfast.fates (id, delivery, fate) SELECT id, 1, 1 FROM mail "
             " WHERE n %% 3 <> 0",
             (long long)low_ms, count - 1);
    run(world->other, sql);
}

/* A message of that range that was kept when it had no range yet; what became of it since is in the
 * range: it is finished. */
static void add_kept(struct world *world, int minute)
{
    char sql[1000];
    snprintf(sql, sizeof(sql),
             "CREATE TEMP TABLE early ON COMMIT DROP AS SELECT (lpad(to_hex(%lld::bigint), 12, '0')"
             " || repeat('e', 20))::uuid AS id;"
             "INSERT INTO holdfast.kept_messages SELECT id, 'envelope', NULL FROM early;"
             "INSERT INTO holdfast.kept_parts (share, count, id) SELECT 1, 1, id FROM early;"
             "INSERT INTO holdfast.chunks SELECT id, 0, 'content' FROM early;"
             "INSERT INTO holdfast.notes (id, delivery, share, kind, payload) "
             " SELECT id, 0, 1, 7, 'note' FROM early;"
             "INSERT INTO holdfast.fates (id, delivery, fate) SELECT id, 0, 1 FROM early",
             (long long)world->old_ms + minute * MINUTE_MS + 30000);
    run(world->other, sql);
}

static int64_t rows_of(struct world *world, const char *table)
{
    char sql[200];
    snprintf(sql, sizeof(sql), "SELECT count(*) FROM holdfast.%s", table);
    return number(world->other, sql);
}

/* Parts without all their fates, as who loads them sees them. */
#define UNFINISHED                                                                                 \
    "(SELECT p.id, min(p.seq) AS seq, min(p.xid::text::bigint) AS xid, count(*) AS parts FROM "    \
    "(SELECT * FROM holdfast.parts UNION ALL SELECT * FROM holdfast.kept_parts) p LEFT JOIN "      \
    "(SELECT id, count(*) AS n FROM (SELECT id FROM holdfast.fates UNION ALL "                     \
    "SELECT id FROM holdfast.kept_fates) e GROUP BY id) f ON f.id = p.id "                         \
    "GROUP BY p.id, f.n HAVING sum(p.count) > coalesce(f.n, 0)) u"

static int64_t unfinished(struct world *world)
{
    return number(world->other, "SELECT count(*) FROM " UNFINISHED);
}

/* Something that changes when a survivor is lost, doubled or altered. */
static int64_t survivors_hash(struct world *world)
{
    return number(world->other,
                  "SELECT sum(hashtextextended(u.id::text || u.seq || u.xid || u.parts || "
                  "m.envelope::text || "
                  "c.bytes::text || n.payload::text || n.seq || f.delivery, 0) / 1000)::bigint "
                  "FROM " UNFINISHED " JOIN (SELECT * FROM holdfast.messages UNION ALL "
                  "SELECT * FROM holdfast.kept_messages) m ON m.id = u.id "
                  "JOIN (SELECT * FROM holdfast.chunks UNION ALL "
                  "SELECT * FROM holdfast.kept_chunks) c ON c.id = u.id "
                  "JOIN (SELECT * FROM holdfast.notes UNION ALL "
                  "SELECT * FROM holdfast.kept_notes) n ON n.id = u.id "
                  "JOIN (SELECT * FROM holdfast.fates UNION ALL "
                  "SELECT * FROM holdfast.kept_fates) f ON f.id = u.id");
}

static int64_t tables(struct world *world)
{
    return number(world->other,
                  "SELECT count(*) FROM pg_class c JOIN pg_namespace s ON s.oid = relnamespace "
                  "WHERE nspname = 'holdfast' AND relkind = 'r' AND relname ~ '_2'");
}

static void look_again(struct world *world)
{
    run(world->other, "UPDATE holdfast.partitions SET next_look = now()");
}

/* ---- making --------------------------------------------------------------------------------- */

static void ranges_are_made_ahead_without_gaps(void **state)
{
    struct world *world = *state;
    static const char GAPS[] = "SELECT count(*) FROM holdfast.partitions p WHERE low <> (SELECT "
                               "min(low::text)::uuid FROM holdfast.partitions) AND NOT EXISTS "
                               "(SELECT FROM holdfast.partitions o WHERE o.high = p.low)";
    static const char NOW_ID[] = "INSERT INTO holdfast.messages SELECT (lpad(to_hex((extract(epoch "
                                 "FROM clock_timestamp()) * "
                                 "1000)::bigint + %d), 12, '0') || repeat('0', 20))::uuid, ''";
    char sql[400];
    /* A node, and then the leader, and twice. */
    good(world->other, pg_partition_make(world->other, &world->settings, &world->gap_ms), "make");
    int64_t made = rows_of(world, "partitions");
    assert_true(made >= 2);
    good(world->database, pg_partition_make(world->database, &world->settings, &world->gap_ms),
         "make");
    assert_int_equal(rows_of(world, "partitions"), made);
    assert_int_equal(number(world->other, GAPS), 0);
    static const int AHEAD_MS[] = {0, 10 * MINUTE_MS, -5 * MINUTE_MS};
    for (size_t i = 0; i < 3; i++) {
        snprintf(sql, sizeof(sql), NOW_ID, AHEAD_MS[i]);
        run(world->other, sql);
    }
    /* Nobody made any for two hours: no gap. */
    run(world->other, "DROP SCHEMA holdfast CASCADE");
    struct database *again = world->database;
    world->database = NULL;
    database_free(again);
    database_free(world->other);
    set_up(state);
    good(world->other, pg_partition_add(world->other, world->old_ms - MINUTE_MS, world->old_ms),
         "add");
    good(world->other, pg_partition_make(world->other, &world->settings, &world->gap_ms), "make");
    assert_int_equal(number(world->other, GAPS), 0);
    snprintf(sql, sizeof(sql), NOW_ID, -1800000);
    run(world->other, sql);
    /* One that overlaps is refused whole. */
    made = rows_of(world, "partitions");
    assert_int_equal(
        pg_partition_add(world->other, world->old_ms + 1000, world->old_ms + MINUTE_MS),
        DATABASE_REFUSED);
    assert_int_equal(rows_of(world, "partitions"), made);
}

/* The database's clock says so much more, for world->other. */
static void leap(struct world *world, const char *interval)
{
    char sql[300];
    snprintf(sql, sizeof(sql),
             "DROP SCHEMA IF EXISTS leap CASCADE; CREATE SCHEMA leap; "
             "CREATE FUNCTION leap.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
             "$$SELECT pg_catalog.clock_timestamp() + interval '%s'$$; "
             "SET search_path = leap, pg_catalog",
             interval);
    run(world->other, sql);
}

static void leap_ends(struct world *world)
{
    run(world->other, "RESET search_path; DROP SCHEMA leap CASCADE");
}

/* How many ranges cover the present, and how many are wider than a day. */
static int64_t now_covered(struct world *world)
{
    return number(world->other,
                  "SELECT count(*) FROM holdfast.partitions WHERE state = 2 AND "
                  "(lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') "
                  "|| repeat('0', 20))::uuid BETWEEN low AND high");
}

static int64_t wide_ranges(struct world *world)
{
    return number(world->other,
                  "SELECT count(*) FROM holdfast.partitions WHERE "
                  "('x' || left(replace(high::text, '-', ''), 12))::bit(48)::bigint - "
                  "('x' || left(replace(low::text, '-', ''), 12))::bit(48)::bigint > 86400000");
}

/* Else all mail until then would be in one range, which could not go. */
static void a_clock_that_leaps_makes_no_range_up_to_there(void **state)
{
    struct world *world = *state;
    good(world->other, pg_partition_make(world->other, &world->settings, &world->gap_ms), "make");
    leap(world, "5 years");
    good(world->other, pg_partition_make(world->other, &world->settings, &world->gap_ms), "make");
    assert_int_equal(now_covered(world), 1);
    assert_true(world->gap_ms > INT64_C(4) * 365 * 1440 * MINUTE_MS); /* told */
    leap_ends(world);
    assert_int_equal(wide_ranges(world), 0);
    assert_int_equal(now_covered(world), 1);
    /* What comes when it is right again has ranges of its own. */
    leap(world, "10 days");
    good(world->other, pg_partition_make(world->other, &world->settings, &world->gap_ms), "make");
    assert_int_equal(now_covered(world), 1);
    assert_int_equal(world->gap_ms, 0);
    leap(world, "-5 years");
    good(world->other, pg_partition_make(world->other, &world->settings, &world->gap_ms), "make");
    assert_int_equal(now_covered(world), 1);
    leap_ends(world);
    assert_int_equal(now_covered(world), 1);
    assert_int_equal(wide_ranges(world), 0);
}

/* How many ranges of a minute are made after one that holds so much. */
static int64_t minutes_made(struct world *world, int messages)
{
    char sql[400];
    int64_t now_ms = world->old_ms + 60 * MINUTE_MS;
    good(world->other,
         pg_partition_add(world->other, now_ms - 10 * MINUTE_MS,
                          now_ms / MINUTE_MS * MINUTE_MS + 2 * MINUTE_MS),
         "add");
    snprintf(sql, sizeof(sql),
             "INSERT INTO holdfast.chunks SELECT (lpad(to_hex(%lld), 12, '0') || "
             "lpad(to_hex(n), 20, '0'))::uuid, 0, convert_to(repeat(md5(n::text), 250), 'UTF8') "
             "FROM generate_series(1, %d) n",
             (long long)now_ms, messages);
    run(world->other, sql);
    good(world->other, pg_partition_make(world->other, &world->settings, &world->gap_ms), "make");
    return number(world->other,
                  "SELECT count(*) FROM holdfast.partitions WHERE "
                  "('x' || left(replace(high::text, '-', ''), 12))::bit(48)::bigint - "
                  "('x' || left(replace(low::text, '-', ''), 12))::bit(48)::bigint <= 60000");
}

static void much_traffic_makes_narrow_ranges(void **state)
{
    struct world *world = *state;
    world->settings.bytes = 1 << 20;
    assert_true(minutes_made(world, 1) <= 1);
    assert_int_equal(tear_down(state), 0);
    assert_int_equal(set_up(state), 0);
    world->settings.bytes = 1 << 20;
    assert_true(minutes_made(world, 1000) >= 10);
}

/* ---- retiring ------------------------------------------------------------------------------- */

static void survivors_move_and_the_rest_goes(void **state)
{
    struct world *world = *state;
    size_t retired;
    add_mail(world, 0, 300);
    add_mail(world, 1, 30);
    int64_t hash = survivors_hash(world);
    assert_int_equal(unfinished(world), 110);
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 2);
    assert_int_equal(tables(world), 0);
    assert_int_equal(rows_of(world, "partitions"), 0);
    assert_int_equal(rows_of(world, "kept_messages"), 110);
    assert_int_equal(rows_of(world, "kept_parts"), 220);
    assert_int_equal(unfinished(world), 110);
    assert_true(survivors_hash(world) == hash);
    /* They get their last fates where there is no range, and go. */
    run(world->other, "INSERT INTO holdfast.kept_fates (id, delivery, fate) "
                      "SELECT id, 1, 1 FROM holdfast.kept_messages i WHERE NOT " PG_PARTITION_OPEN(
                          "i.id") " ORDER BY id LIMIT 100");
    size_t removed;
    good(world->database,
         pg_partition_clean(world->database, &world->settings, &world->after, &removed), "clean");
    assert_int_equal(removed, 100);
    assert_int_equal(unfinished(world), 10);
    assert_int_equal(rows_of(world, "kept_messages"), 10);
    assert_int_equal(rows_of(world, "kept_parts"), 20);
    assert_int_equal(rows_of(world, "kept_chunks"), 10);
    assert_int_equal(rows_of(world, "kept_notes"), 10);
    assert_int_equal(rows_of(world, "kept_fates"), 10);
}

/* A few at a time, whatever stands before them; and nothing that a node may bring once more. */
static void what_was_kept_is_gone_through_by_turns(void **state)
{
    struct world *world = *state;
    size_t removed, all = 0;
    int calls = 0;
    add_mail(world, 0, 30);
    good(world->database, pg_partition_retire(world->database, &world->settings, NULL), "retire");
    assert_int_equal(rows_of(world, "kept_messages"), 10);
    run(world->other,
        "INSERT INTO holdfast.kept_fates (id, delivery, fate) SELECT id, 1, 1 FROM "
        "(SELECT id, row_number() OVER (ORDER BY id) AS n FROM holdfast.kept_messages) o"
        " WHERE n % 2 = 0;"
        /* Of mail that has gone. */
        "INSERT INTO holdfast.kept_fates (id, delivery, fate)"
        " VALUES ('00000000-0000-0000-0000-000000000001', 0, 1);"
        "INSERT INTO holdfast.nodes (number, name, roles, version, schema) VALUES "
        "(1, 'one', 1, '', 1);"
        "INSERT INTO holdfast.watermarks SELECT 1, id, now() FROM holdfast.kept_messages"
        " ORDER BY id OFFSET 5 LIMIT 1");
    world->settings.cleaned_a_call = 3;
    do {
        good(world->database,
             pg_partition_clean(world->database, &world->settings, &world->after, &removed),
             "clean");
        assert_true(removed <= 3);
        all += removed;
        calls++;
    } while (!id_is_null(world->after));
    assert_int_equal(calls, 4);
    assert_int_equal(all, 2); /* the second and the fourth, not the sixth */
    assert_int_equal(rows_of(world, "kept_messages"), 8);
    assert_int_equal(rows_of(world, "kept_fates"), 11);
    run(world->other, "UPDATE holdfast.nodes SET removed = true");
    world->settings.cleaned_a_call = 100;
    good(world->database,
         pg_partition_clean(world->database, &world->settings, &world->after, &removed), "clean");
    assert_int_equal(removed, 3);
    assert_int_equal(unfinished(world), 5);
}

static void an_outage_stays_where_it_is(void **state)
{
    struct world *world = *state;
    size_t retired;
    add_mail(world, 0, 300);
    world->settings.survivors_percent = 10; /* a sixth is unfinished */
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 0);
    assert_int_equal(tables(world), 5);
    assert_int_equal(rows_of(world, "kept_messages"), 0);
    /* Nor is it looked at again at once. */
    world->settings.survivors_percent = 60;
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 0);
    look_again(world);
    world->settings.survivors_max = 99;
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 0);
    look_again(world);
    world->settings.survivors_max = 100;
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 1);
}

static void no_range_goes_that_a_node_may_have_mail_for(void **state)
{
    struct world *world = *state;
    static const struct {
        const char *sql;
        size_t retired;
    } STEPS[] = {
        {"INSERT INTO holdfast.nodes (number, name, roles, version, schema) VALUES "
         "(1, 'one', 1, '', 1), (2, 'two', 1, '', 1)",
         0},
        {"INSERT INTO holdfast.watermarks SELECT 1, high, now() FROM holdfast.partitions", 0},
        /* Not quite. */
        {"INSERT INTO holdfast.watermarks SELECT 2, low, now() FROM holdfast.partitions", 0},
        {"UPDATE holdfast.nodes SET joined = now() - interval '8 days' WHERE number = 2", 0},
        {"UPDATE holdfast.watermarks SET beat = now() - interval '8 days' WHERE node = 2; "
         "INSERT INTO holdfast.heartbeats VALUES (2, gen_random_uuid(), now() - interval '6 days')",
         0},
        {"UPDATE holdfast.heartbeats SET beat = now() - interval '8 days'", 1},
    };
    size_t retired;
    add_mail(world, 0, 30);
    for (size_t i = 0; i < sizeof(STEPS) / sizeof(STEPS[0]); i++) {
        run(world->other, STEPS[i].sql);
        good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
             "retire");
        if (retired != STEPS[i].retired) {
            fail_msg("%s", STEPS[i].sql);
        }
    }
    /* A node that was removed has nothing to say; one whose mark has passed hinders nobody. */
    add_mail(world, 1, 30);
    run(world->other, "UPDATE holdfast.watermarks SET beat = now()");
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 0);
    run(world->other,
        "UPDATE holdfast.nodes SET removed = true WHERE number = 2; "
        "UPDATE holdfast.watermarks SET below = (SELECT high FROM holdfast.partitions)"
        " WHERE node = 1");
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 1);
    /* Finished mail may be wanted for a while. */
    add_mail(world, 2, 30);
    run(world->other, "UPDATE holdfast.nodes SET removed = true");
    world->settings.keep_ms = 2 * 3600000;
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 0);
}

/* It may have to be sent again: 10 an hour ago, 10 just now, 10 before anybody said when. */
static void what_was_just_handed_over_survives(void **state)
{
    struct world *world = *state;
    size_t retired, removed;
    add_mail(world, 0, 30);
    run(world->other,
        "INSERT INTO holdfast.fates (id, delivery, fate) SELECT id, 1, 1 FROM holdfast.messages"
        " ON CONFLICT DO NOTHING;"
        "UPDATE holdfast.fates f SET server = 'm1', when_ms = extract(epoch FROM now()) * 1000 -"
        " CASE WHEN o.n <= 10 THEN 3600000 ELSE 0 END FROM (SELECT id, row_number() OVER"
        " (ORDER BY id) AS n FROM holdfast.messages) o WHERE o.id = f.id AND o.n <= 20");
    assert_int_equal(unfinished(world), 0);
    world->settings.keep_ms = 1800000;
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 1);
    assert_int_equal(rows_of(world, "kept_messages"), 10);
    assert_int_equal(rows_of(world, "kept_fates"), 20);
    good(world->database,
         pg_partition_clean(world->database, &world->settings, &world->after, &removed), "clean");
    assert_int_equal(removed, 0);
    world->settings.keep_ms = 0;
    good(world->database,
         pg_partition_clean(world->database, &world->settings, &world->after, &removed), "clean");
    assert_int_equal(removed, 10);
}

/* The server ends a transaction whose client has gone when it notices. */
static void wait_for_the_end(struct world *world)
{
    while (number(world->other, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = "
                                "'client backend' AND pid <> pg_backend_pid()") > 0) {
        usleep(10000);
    }
    assert_int_equal(database_connect(world->database), DATABASE_DONE);
}

static void it_may_die_at_each_statement(void **state)
{
    struct world *world = *state;
    bool complete = false;
    int n = 0;
    /* Before the first statement, behind it, before the second .. */
    for (; !complete; n++) {
        add_mail(world, 0, 60);
        add_kept(world, 0); /* finished; so it is to be seen by nobody, at any time */
        int64_t hash = survivors_hash(world);
        calls_left = n / 2;
        dies_after = n % 2 != 0;
        enum database_outcome outcome =
            pg_partition_retire(world->database, &world->settings, NULL);
        complete = calls_left >= 0;
        calls_left = -1;
        assert_int_equal(outcome, complete ? DATABASE_DONE : DATABASE_LOST);
        for (int i = 0; i < 2; i++) {
            if (unfinished(world) != 20 || survivors_hash(world) != hash) {
                fail_msg("death %d, %s: survivors are not what they were", n,
                         i == 0 ? "at once" : "taken up");
            }
            if (i == 0 && !complete) {
                wait_for_the_end(world);
                look_again(world);
                good(world->database, pg_partition_retire(world->database, &world->settings, NULL),
                     "retire");
            }
        }
        assert_int_equal(tables(world), 0);
        assert_int_equal(rows_of(world, "partitions"), 0);
        run(world->other, "TRUNCATE holdfast.kept_messages, holdfast.kept_chunks, "
                          "holdfast.kept_parts, holdfast.kept_fates, holdfast.kept_notes");
    }
    assert_true(n > 60);
}

static void what_comes_late_is_rescued(void **state)
{
    struct world *world = *state;
    size_t retired;
    add_mail(world, 0, 30);
    /* Someone reads for long: the detaching has begun when it gives up. */
    run(world->other, "BEGIN; SELECT count(*) FROM holdfast.parts");
    assert_int_equal(pg_partition_retire(world->database, &world->settings, &retired),
                     DATABASE_AGAIN);
    run(world->other, "ROLLBACK");
    assert_int_equal(
        number(world->other, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending"), 1);
    assert_int_equal(number(world->other, "SELECT state FROM holdfast.partitions"),
                     PG_PARTITION_RETIRING);
    assert_int_equal(unfinished(world), 10);
    /* Who asked before it for the place of its mail puts it there; of another, a piece of content
     * alone. */
    char sql[1500];
    snprintf(sql, sizeof(sql),
             "CREATE TEMP TABLE late AS SELECT (lpad(to_hex(%lld::bigint), 12, '0') || "
             "repeat('f', 20))::uuid AS id, pg_current_xact_id() AS xid;"
             "CREATE TEMP TABLE large AS SELECT (lpad(to_hex(%lld::bigint), 12, '0') || "
             "repeat('e', 20))::uuid AS id;"
             "INSERT INTO holdfast.kept_messages SELECT id, '' FROM large;"
             "INSERT INTO holdfast.kept_parts (share, count, id) SELECT 1, 1, id FROM large;"
             "DO $$DECLARE n text = (SELECT name FROM holdfast.partitions); BEGIN "
             "EXECUTE 'INSERT INTO holdfast.messages_' || n || ' SELECT id, '''' FROM late';"
             "EXECUTE 'INSERT INTO holdfast.chunks_' || n || ' SELECT id, 0, ''''::bytea FROM late "
             "UNION ALL SELECT id, 0, ''''::bytea FROM large';"
             "EXECUTE 'INSERT INTO holdfast.parts_' || n || ' (share, count, id) "
             "SELECT 1, 1, id FROM late'; END$$",
             (long long)world->old_ms + 5000, (long long)world->old_ms + 6000);
    run(world->other, sql);
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 1);
    assert_int_equal(unfinished(world), 12);
    assert_int_equal(number(world->other, "SELECT count(*) FROM holdfast.kept_messages "
                                          "JOIN late USING (id)"),
                     1);
    assert_int_equal(number(world->other, "SELECT count(*) FROM holdfast.kept_chunks WHERE id IN "
                                          "(SELECT id FROM late UNION SELECT id FROM large)"),
                     2);
    /* It may have been read by nobody: who follows comes by it now. */
    assert_int_equal(number(world->other, "SELECT count(*) FROM holdfast.kept_parts p "
                                          "JOIN late l ON l.id = p.id AND p.xid > l.xid"),
                     1);
    assert_int_equal(tables(world), 0);
}

static struct world *late_world;

/* One message that is finished at once, and one that is not. */
static void come_late(void)
{
    char sql[1000];
    snprintf(sql, sizeof(sql),
             "CREATE TEMP TABLE late AS SELECT (lpad(to_hex(%lld + n), 12, '0') || "
             "repeat('f', 20))::uuid AS id, n FROM generate_series(1, 2) n;"
             "INSERT INTO holdfast.messages SELECT id, '' FROM late;"
             "INSERT INTO holdfast.chunks SELECT id, 0, '' FROM late;"
             "INSERT INTO holdfast.parts (share, count, id) SELECT 1, 1, id FROM late;"
             "INSERT INTO holdfast.fates (id, delivery, fate) SELECT id, 0, 1 FROM late"
             " WHERE n = 1",
             (long long)late_world->old_ms + 5000);
    run(late_world->other, sql);
}

/* It is where it is looked for as soon as the range is being retired, and its part is as it was:
 * who has read it reads it once. */
static void what_comes_while_survivors_move_moves_too(void **state)
{
    struct world *world = late_world = *state;
    add_mail(world, 0, 30);
    before_lock = come_late;
    good(world->database, pg_partition_retire(world->database, &world->settings, NULL), "retire");
    assert_int_equal(unfinished(world), 11);
    assert_int_equal(number(world->other, "SELECT count(*) FROM holdfast.kept_messages "
                                          "JOIN late USING (id)"),
                     2);
    assert_int_equal(number(world->other, "SELECT count(*) FROM holdfast.kept_chunks "
                                          "JOIN late USING (id)"),
                     2);
    assert_int_equal(number(world->other, "SELECT count(DISTINCT xid) FROM holdfast.kept_parts "
                                          "JOIN late USING (id)"),
                     1);
    assert_int_equal(rows_of(world, "kept_fates"), 11);
}

/* What was kept because it had no range then, and was sent once more when it had one. */
static void what_is_in_both_places_is_kept_once(void **state)
{
    struct world *world = *state;
    size_t retired;
    add_mail(world, 0, 30);
    run(world->other,
        "CREATE TEMP TABLE twin AS SELECT id FROM holdfast.messages ORDER BY id LIMIT 1;"
        "INSERT INTO holdfast.kept_messages SELECT m.* FROM holdfast.messages m JOIN twin USING "
        "(id);"
        "INSERT INTO holdfast.kept_chunks SELECT m.* FROM holdfast.chunks m JOIN twin USING (id);"
        "INSERT INTO holdfast.kept_parts SELECT m.* FROM holdfast.parts m JOIN twin USING (id);"
        "INSERT INTO holdfast.kept_fates SELECT m.* FROM holdfast.fates m JOIN twin USING (id)");
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 1);
    assert_int_equal(unfinished(world), 10);
    assert_int_equal(rows_of(world, "kept_parts"), 20);
}

static void fates_in_flight_are_waited_for(void **state)
{
    struct world *world = *state;
    size_t retired;
    static const char FATE[] =
        "INSERT INTO holdfast.fates (id, delivery, fate) SELECT id, 1, 2 FROM (SELECT min(id::text)"
        "::uuid AS id FROM " UNFINISHED ") i WHERE " PG_PARTITION_OPEN("i.id");
    add_mail(world, 0, 30);
    run(world->other, "BEGIN");
    run(world->other, FATE);
    assert_int_equal(pg_partition_retire(world->database, &world->settings, &retired),
                     DATABASE_AGAIN);
    assert_int_equal(rows_of(world, "kept_messages"), 0);
    run(world->other, "COMMIT");
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 1);
    assert_int_equal(unfinished(world), 9);
    /* And the next one finds that it goes elsewhere. */
    run(world->other, FATE);
    assert_int_equal(rows_of(world, "fates"), 0);
}

static void two_may_be_at_it(void **state)
{
    struct world *world = *state;
    size_t retired;
    add_mail(world, 0, 30);
    /* The other has the row. */
    run(world->other, "BEGIN; SELECT FROM holdfast.partitions FOR UPDATE");
    assert_int_equal(pg_partition_retire(world->database, &world->settings, &retired),
                     DATABASE_AGAIN);
    run(world->other, "ROLLBACK");
    good(world->database, pg_partition_retire(world->database, &world->settings, &retired),
         "retire");
    assert_int_equal(retired, 1);
    good(world->other, pg_partition_retire(world->other, &world->settings, &retired), "retire");
    assert_int_equal(retired, 0);
    assert_int_equal(unfinished(world), 10);
}

static int start(void **state)
{
    struct world *world = test_calloc(1, sizeof(*world));
    world->server = postgres_new("fsync = off"); /* connections die here, not the server */
    *state = world;
    return world->server != NULL ? 0 : -1;
}

static int stop(void **state)
{
    struct world *world = *state;
    postgres_free(world->server);
    test_free(world);
    return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(ranges_are_made_ahead_without_gaps),
        TEST(a_clock_that_leaps_makes_no_range_up_to_there),
        TEST(much_traffic_makes_narrow_ranges),
        TEST(survivors_move_and_the_rest_goes),
        TEST(what_was_kept_is_gone_through_by_turns),
        TEST(an_outage_stays_where_it_is),
        TEST(no_range_goes_that_a_node_may_have_mail_for),
        TEST(what_was_just_handed_over_survives),
        TEST(it_may_die_at_each_statement),
        TEST(what_comes_late_is_rescued),
        TEST(what_comes_while_survivors_move_moves_too),
        TEST(what_is_in_both_places_is_kept_once),
        TEST(fates_in_flight_are_waited_for),
        TEST(two_may_be_at_it),
    };
#undef TEST
    return cmocka_run_group_tests(tests, start, stop);
}
