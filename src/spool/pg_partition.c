/* SPDX-License-Identifier: Apache-2.0
 *
 * Making ranges. Retiring them: pg_retire.c.
 *
 * A range is made in one transaction with its row in `partitions`, whose key is its lower end; each
 * begins where the last one ends. So of two that make ranges at once one waits and finds it done.
 *
 * A clock that leaps far ahead, and is put right again, leaves a few ranges there: none covers what
 * lies between, for it would take all mail until then and could not go. So the last range is the
 * last of those that reach the present, and one is never wider than WIDEST_MS.
 */
#include "spool/pg_partition.h"

#include "spool/pg_partition_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

enum {
    MINUTE_MS = 60000,
    AHEAD_MS = 10 * MINUTE_MS,
    FIRST_MS = 10 * MINUTE_MS, /* before the present: mail that is just being accepted */
    RANGES_MAX = 64,           /* made by one call */
};
static const int64_t WIDEST_MS = INT64_C(1440) * MINUTE_MS;
/* After more time without ranges the clock is doubted, and nothing covers it. */
static const int64_t GAP_MOST_MS = INT64_C(32) * 1440 * MINUTE_MS;
/* What begins so far ahead was made by a clock that leapt: else it is at most 2 ranges. */
static const int64_t REACH_MS = AHEAD_MS + INT64_C(2) * 1440 * MINUTE_MS;

const struct pg_kind PG_KINDS[PG_KIND_COUNT] = {
    {"parts", "autovacuum_vacuum_insert_threshold = -1"},
    {"messages", "autovacuum_enabled = false, toast.autovacuum_enabled = false"},
    {"chunks", "autovacuum_enabled = false, toast.autovacuum_enabled = false"},
    {"notes", "autovacuum_vacuum_insert_threshold = -1"},
    {"fates", "autovacuum_vacuum_insert_threshold = -1"},
};

/* Widths to choose from; the wide ones are for a time when nothing can be retired. */
static const int64_t WIDTHS_MS[] = {MINUTE_MS,      5 * MINUTE_MS,   15 * MINUTE_MS,
                                    60 * MINUTE_MS, 360 * MINUTE_MS, 1440 * MINUTE_MS};
enum {
    WIDTHS = sizeof(WIDTHS_MS) / sizeof(WIDTHS_MS[0]),
    WIDEST_BY_TRAFFIC = 3,
    OPEN_PER_WIDTH = 24
};

void pg_partition_settings_default(struct pg_partition_settings *settings)
{
    *settings = (struct pg_partition_settings){.bytes = 256 << 20,
                                               .survivors_max = 20000,
                                               .survivors_percent = 25,
                                               .ranges_a_call = 16,
                                               .cleaned_a_call = 2000};
}

/* ---- helpers shared with pg_retire.c -------------------------------------------------------- */

bool pg_is_good(enum database_outcome outcome)
{
    return outcome == DATABASE_DONE || outcome == DATABASE_WARNED;
}

enum database_outcome pg_roll_back(struct database *database, enum database_outcome failure)
{
    if (database_is_connected(database)) {
        enum database_outcome outcome = database_run(database, "ROLLBACK", PG_QUICK_MS);
        if (!pg_is_good(outcome)) {
            return outcome;
        }
    }
    return failure;
}

enum database_outcome pg_run_buffer(struct database *database, struct buffer *sql, int timeout_ms)
{
    buffer_put_u8(sql, 0);
    enum database_outcome outcome =
        sql->failed ? DATABASE_MEMORY : database_run(database, (const char *)sql->data, timeout_ms);
    buffer_clear(sql);
    return outcome;
}

/* ---- one range ------------------------------------------------------------------------------ */

static struct message_id id_at(int64_t ms)
{
    return (struct message_id){(uint64_t)ms << 16, 0};
}

static void range_name(int64_t low_ms, char ret_name[PG_NAME_SIZE])
{
    struct tm time;
    time_t seconds = (time_t)(low_ms / 1000);
    gmtime_r(&seconds, &time);
    strftime(ret_name, PG_NAME_SIZE, "%Y%m%d_%H%M%S", &time);
    size_t length = strlen(ret_name);
    if (low_ms % 1000 != 0) {
        snprintf(ret_name + length, PG_NAME_SIZE - length, "_%03d", (int)(low_ms % 1000));
    }
}

static void append_uuid(struct buffer *sql, int64_t ms)
{
    uint64_t high = id_at(ms).high;
    buffer_printf(sql, "'%08" PRIx64 "-%04" PRIx64 "-%04" PRIx64 "-0000-000000000000'", high >> 32,
                  high >> 16 & 0xffff, high & 0xffff);
}

static enum database_outcome make_tables(struct database *database, const char *name,
                                         int64_t low_ms, int64_t high_ms)
{
    struct buffer sql;
    enum database_outcome outcome = DATABASE_DONE;
    buffer_init(&sql, 0);
    for (size_t i = 0; i < PG_KIND_COUNT && pg_is_good(outcome); i++) {
        const char *kind = PG_KINDS[i].name;
        buffer_printf(&sql,
                      "CREATE TABLE holdfast.%s_%s (LIKE holdfast.%s INCLUDING ALL) WITH (%s);"
                      "ALTER TABLE holdfast.%s ATTACH PARTITION holdfast.%s_%s FOR VALUES FROM (",
                      kind, name, kind, PG_KINDS[i].parameters, kind, kind, name);
        append_uuid(&sql, low_ms);
        buffer_append_text(&sql, ") TO (");
        append_uuid(&sql, high_ms);
        buffer_append_text(&sql, ")");
        outcome = pg_run_buffer(database, &sql, PG_QUICK_MS);
    }
    buffer_done(&sql);
    return outcome;
}

static const char NOTE_RANGE[] = "INSERT INTO holdfast.partitions (low, high, name, state) "
                                 "VALUES ($1, $2, $3, 2) ON CONFLICT DO NOTHING";

static enum database_outcome add(struct database *database, int64_t low_ms, int64_t high_ms)
{
    char name[PG_NAME_SIZE];
    struct database_scalar low, high;
    const struct database_rows *rows;
    range_name(low_ms, name);
    struct database_value values[] = {database_uuid(&low, id_at(low_ms)),
                                      database_uuid(&high, id_at(high_ms)),
                                      database_text(slice_from_text(name))};
    enum database_outcome outcome =
        database_query(database, NOTE_RANGE, values, 3, PG_QUICK_MS, &rows);
    if (pg_is_good(outcome) && database_affected(rows) > 0) {
        outcome = make_tables(database, name, low_ms, high_ms);
    }
    return outcome;
}

enum database_outcome pg_partition_add(struct database *database, int64_t low_ms, int64_t high_ms)
{
    enum database_outcome outcome =
        database_run(database, "BEGIN; SET LOCAL lock_timeout = '1s'", PG_QUICK_MS);
    if (pg_is_good(outcome)) {
        outcome = add(database, low_ms, high_ms);
    }
    if (pg_is_good(outcome)) {
        outcome = database_run(database, "COMMIT", PG_QUICK_MS);
    }
    return pg_is_good(outcome) ? DATABASE_DONE : pg_roll_back(database, outcome);
}

/* ---- what is missing ------------------------------------------------------------------------ */

struct standing {
    int64_t now_ms, end_ms;  /* the database's time; where the last range ends, 0: there is none */
    int64_t next_ms;         /* where one begins that a clock has left ahead, INT64_MAX: none */
    int64_t open;            /* ranges */
    int64_t bytes, bytes_ms; /* what the newest ranges hold, and since when they take it */
};

/* The first 48 bits of an id. */
#define MS_OF(uuid) "('x' || left(replace(" uuid "::text, '-', ''), 12))::bit(48)::bigint"

static const char LOOK[] = "SELECT n.now, coalesce(max(" MS_OF("p.high") ") FILTER (WHERE " MS_OF(
    "p.low") " <= n.now + $1), 0), count(p.low),"
             " coalesce(min(" MS_OF("p.low") ") FILTER (WHERE " MS_OF(
                 "p.low") " > n.now + $1), $2)"
                          " FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS "
                          "now) n"
                          " LEFT JOIN holdfast.partitions p ON true GROUP BY n.now";
/* Of the range that takes mail now and the one before it. A table that goes meanwhile: null. */
static const char TRAFFIC[] =
    "SELECT coalesce(sum(coalesce(pg_total_relation_size(to_regclass('holdfast.messages_' || "
    "name)), 0)"
    " + coalesce(pg_total_relation_size(to_regclass('holdfast.chunks_' || name)), 0)"
    " + coalesce(pg_total_relation_size(to_regclass('holdfast.parts_' || name)), 0)), 0)::bigint,"
    " coalesce(min(" MS_OF("low") "), 0)"
                                  " FROM (SELECT name, low FROM holdfast.partitions WHERE " MS_OF(
                                      "low") " <= $1"
                                             " ORDER BY low DESC LIMIT 2) newest";

static enum database_outcome look(struct database *database, struct standing *ret_standing)
{
    const struct database_rows *rows;
    struct database_scalar reach, never;
    struct database_value bounds[] = {database_int8(&reach, REACH_MS),
                                      database_int8(&never, INT64_MAX)};
    enum database_outcome outcome = database_query(database, LOOK, bounds, 2, PG_QUICK_MS, &rows);
    if (!pg_is_good(outcome)) {
        return outcome;
    }
    *ret_standing = (struct standing){.now_ms = database_get_int(rows, 0, 0),
                                      .end_ms = database_get_int(rows, 0, 1),
                                      .open = database_get_int(rows, 0, 2),
                                      .next_ms = database_get_int(rows, 0, 3)};
    struct database_scalar store;
    struct database_value now = database_int8(&store, ret_standing->now_ms);
    outcome = database_query(database, TRAFFIC, &now, 1, PG_QUICK_MS, &rows);
    if (pg_is_good(outcome)) {
        ret_standing->bytes = database_get_int(rows, 0, 0);
        ret_standing->bytes_ms = ret_standing->now_ms - database_get_int(rows, 0, 1);
    }
    return outcome;
}

/* The widest that keeps within settings->bytes at the present traffic; wider where many ranges
 * stand that cannot be retired, for each costs whoever reads all of them. */
static int64_t choose_width(const struct standing *standing,
                            const struct pg_partition_settings *settings)
{
    int64_t width = 0;
    while (width < WIDEST_BY_TRAFFIC &&
           (standing->bytes_ms <= 0 ||
            (double)standing->bytes / (double)standing->bytes_ms * (double)WIDTHS_MS[width + 1] <=
                (double)settings->bytes)) {
        width++;
    }
    int64_t by_count = standing->open / OPEN_PER_WIDTH;
    width = by_count > width ? by_count : width;
    return WIDTHS_MS[width < WIDTHS ? width : WIDTHS - 1];
}

static int64_t least(int64_t one_ms, int64_t other_ms)
{
    return one_ms < other_ms ? one_ms : other_ms;
}

enum database_outcome pg_partition_make(struct database *database,
                                        const struct pg_partition_settings *settings,
                                        int64_t *ret_gap_ms)
{
    enum database_outcome outcome = DATABASE_DONE;
    *ret_gap_ms = 0;
    for (int i = 0; i < RANGES_MAX && pg_is_good(outcome); i++) {
        struct standing standing = {0};
        outcome = look(database, &standing);
        if (!pg_is_good(outcome)) {
            break;
        }
        int64_t width_ms = choose_width(&standing, settings), low_ms = standing.end_ms;
        int64_t first_ms = (standing.now_ms - FIRST_MS) / MINUTE_MS * MINUTE_MS;
        bool is_far = low_ms != 0 && first_ms - low_ms > GAP_MOST_MS;
        if (is_far) {
            *ret_gap_ms = first_ms - low_ms;
        }
        low_ms = is_far || low_ms == 0 ? first_ms : low_ms;
        if (low_ms >= standing.now_ms + AHEAD_MS + 2 * width_ms) {
            break;
        }
        /* After a time when nobody made any, wide ones cover it. */
        int64_t after_ms = low_ms > standing.now_ms ? low_ms : standing.now_ms;
        int64_t high_ms = least((after_ms / width_ms + 1) * width_ms, low_ms + WIDEST_MS);
        outcome = pg_partition_add(database, low_ms, least(high_ms, standing.next_ms));
    }
    return outcome;
}
