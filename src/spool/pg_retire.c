/* SPDX-License-Identifier: Apache-2.0
 *
 * Retiring a range of partitions, and what each step leaves where it stops:
 *
 *   1. look     counts; nothing changes but when to look again
 *   2. move     one transaction: survivors are copied to kept_* and deleted from the range, whose
 *               state becomes 3 with that. Messages, chunks and parts never change, so they are
 *               copied before fates and notes are locked; under the lock move the survivors' fates
 *               and notes, and what mail has come meanwhile, and from its end on all goes to
 *               kept_*. What was in kept_* before counts as surviving: its fates and notes of the
 *               time when it had a range are in that
 *   3. detach   each of the five, CONCURRENTLY, outside any transaction. Where it was left in the
 *               middle (pending) it is finalised; what is detached already is passed over. All that
 *               is still in the range is finished, and parts go first: so nobody finds a part
 *               without its fates
 *   4. drop     one transaction: whatever came after the move moves too, then tables and row go.
 *               Nothing comes, while clocks go on (pg_send.c): it is a second line. Who follows may
 *               not have seen it, so its parts are of this transaction
 *
 * Two at once: the row of `partitions` is locked in 2 and 4, and its state asked; in 3 one of them
 * fails, and comes again.
 */
#include "spool/pg_partition.h"

#include "spool/pg_partition_internal.h"

#include <stdio.h>

enum { RANGES_MAX = 64, DETACH_MS = 30000 };

struct range {
    struct message_id low, high;
    char name[PG_NAME_SIZE];
    bool is_retiring;
    int64_t keep_ms; /* what has its fates survives for so long */
};

/* Of `low` and `high`, the first parameters of most statements here; then of `keep_ms`. */
struct bounds {
    struct database_scalar store[3];
    struct database_value values[3];
};

static void bounds_of(const struct range *range, struct bounds *ret_bounds)
{
    ret_bounds->values[2] = database_int8(&ret_bounds->store[2], range->keep_ms);
    ret_bounds->values[0] = database_uuid(&ret_bounds->store[0], range->low);
    ret_bounds->values[1] = database_uuid(&ret_bounds->store[1], range->high);
}

#define IN_RANGE(id) id " >= $1 AND " id " < $2"

/* ---- which ---------------------------------------------------------------------------------- */

/* Some node may bring mail for which that holds of its watermark, `w.below`. */
#define MAY_BRING(condition)                                                                       \
    "EXISTS (SELECT FROM holdfast.nodes n"                                                         \
    "  LEFT JOIN holdfast.watermarks w ON w.node = n.number"                                       \
    "  LEFT JOIN holdfast.heartbeats h ON h.node = n.number"                                       \
    "  WHERE NOT n.removed AND (w.below IS NULL OR " condition ")"                                 \
    "  AND greatest(n.joined, w.beat, h.beat) > now() - interval '7 days')"

static const char PICK[] = "SELECT low, high, name, state = 3 FROM holdfast.partitions p"
                           " WHERE state = 3 OR (state = 2 AND next_look <= now()"
                           " AND high <= " PG_ID_OF_AGE("$1") " AND NOT " MAY_BRING(
                               "w.below < p.high") ") ORDER BY state DESC, low LIMIT $2";

static enum database_outcome pick(struct database *database,
                                  const struct pg_partition_settings *settings,
                                  struct range ret_ranges[RANGES_MAX], size_t *ret_count)
{
    struct database_scalar store[2];
    const struct database_rows *rows;
    int limit = settings->ranges_a_call < RANGES_MAX ? settings->ranges_a_call : RANGES_MAX;
    struct database_value values[] = {database_int8(&store[0], settings->keep_ms),
                                      database_int8(&store[1], limit)};
    *ret_count = 0;
    enum database_outcome outcome = database_query(database, PICK, values, 2, PG_QUICK_MS, &rows);
    for (size_t i = 0; pg_is_good(outcome) && i < database_count(rows); i++) {
        struct range *range = &ret_ranges[(*ret_count)++];
        *range = (struct range){.low = database_get_uuid(rows, i, 0),
                                .high = database_get_uuid(rows, i, 1),
                                .is_retiring = database_get_int(rows, i, 3) != 0,
                                .keep_ms = settings->keep_ms};
        snprintf(range->name, sizeof(range->name), "%.*s",
                 SLICE_PRINT(database_get_slice(rows, i, 2)));
    }
    return outcome;
}

/* ---- look ----------------------------------------------------------------------------------- */

/* A fate that nobody wants to send again any more ($3: `keep_ms`). */
#define OVER "(when_ms IS NULL OR when_ms <= extract(epoch FROM clock_timestamp()) * 1000 - $3)"

static const char COUNT[] =
    "SELECT (SELECT coalesce(sum(count), 0) FROM holdfast.parts WHERE " IN_RANGE(
        "id") ")::bigint,"
              " (SELECT count(*) FROM holdfast.fates WHERE " IN_RANGE("id") " AND " OVER ")";
/* After 5 s, 10 s, .. 10 min. */
static const char LOOK_LATER[] =
    "UPDATE holdfast.partitions SET looks = looks + 1,"
    " next_look = now() + interval '1 second' * least(600, 5 * 2 ^ least(looks, 10))"
    " WHERE low = $1 AND state = 2";

/* Whether so few are left that they may move. */
static enum database_outcome is_nearly_finished(struct database *database,
                                                const struct pg_partition_settings *settings,
                                                const struct range *range, bool *ret_is)
{
    struct bounds bounds;
    const struct database_rows *rows;
    bounds_of(range, &bounds);
    enum database_outcome outcome =
        database_query(database, COUNT, bounds.values, 3, PG_SCAN_MS, &rows);
    if (!pg_is_good(outcome)) {
        return outcome;
    }
    int64_t deliveries = database_get_int(rows, 0, 0);
    int64_t left = deliveries - database_get_int(rows, 0, 1);
    *ret_is =
        left <= settings->survivors_max && left * 100 <= deliveries * settings->survivors_percent;
    return *ret_is ? outcome
                   : database_query(database, LOOK_LATER, bounds.values, 1, PG_QUICK_MS, NULL);
}

/* ---- move ----------------------------------------------------------------------------------- */

static const char LOCK_OPEN[] =
    "SELECT FROM holdfast.partitions WHERE low = $1 AND state = 2 FOR UPDATE";
static const char SURVIVORS[] =
    "SELECT coalesce(array_agg(id), '{}'), pg_snapshot_xmin(pg_current_snapshot())"
    " FROM (SELECT p.id FROM holdfast.parts p LEFT JOIN"
    " (SELECT id, count(*) AS n FROM holdfast.fates WHERE " IN_RANGE(
        "id") " AND " OVER " GROUP BY id) f"
              " ON f.id = p.id WHERE " IN_RANGE(
                  "p.id") " GROUP BY p.id, f.n HAVING sum(p.count) > coalesce(f.n, 0)"
                          " UNION SELECT id FROM holdfast.kept_messages WHERE " IN_RANGE("id") ") "
                                                                                               "s";
/* What has come since; survivors have gone already. */
static const char NEWCOMERS[] =
    "SELECT coalesce(array_agg(DISTINCT id), '{}') FROM holdfast.parts WHERE " IN_RANGE(
        "id") " AND xid >= $3";

#define SURVIVING(kind) IN_RANGE(kind ".id") " AND " kind ".id = ANY($3)"
#define COPY_OF(kind)                                                                              \
    "INSERT INTO holdfast.kept_" kind " SELECT * FROM holdfast." kind " WHERE " SURVIVING(kind)
#define DELETE_OF(kind) "DELETE FROM holdfast." kind " WHERE " SURVIVING(kind)

/* With low, high and the survivors. What is in both is kept once. */
static const char COPY_MESSAGES[] = COPY_OF("messages") " ON CONFLICT DO NOTHING";
static const char COPY_CHUNKS[] = COPY_OF("chunks") " ON CONFLICT DO NOTHING";
static const char COPY_PARTS[] =
    COPY_OF("parts") " AND NOT EXISTS (SELECT FROM holdfast.kept_parts k WHERE k.id = parts.id)";
static const char COPY_FATES[] = COPY_OF("fates") " ON CONFLICT DO NOTHING";
static const char COPY_NOTES[] = COPY_OF("notes");
static const char DELETE_MESSAGES[] = DELETE_OF("messages");
static const char DELETE_CHUNKS[] = DELETE_OF("chunks");
static const char DELETE_PARTS[] = DELETE_OF("parts");
static const char DELETE_FATES[] = DELETE_OF("fates");
static const char DELETE_NOTES[] = DELETE_OF("notes");
static const char *const MOVE_MAIL[] = {COPY_MESSAGES, COPY_CHUNKS,     COPY_PARTS,
                                        DELETE_PARTS,  DELETE_MESSAGES, DELETE_CHUNKS};
static const char *const MOVE_HISTORY[] = {COPY_FATES, COPY_NOTES, DELETE_FATES, DELETE_NOTES};

static const char LOCK[] = "LOCK TABLE holdfast.fates, holdfast.notes IN SHARE ROW EXCLUSIVE MODE";
static const char RETIRING[] = "UPDATE holdfast.partitions SET state = 3 WHERE low = $1";

#define RUN_EACH(database, statements, values)                                                     \
    run_each(database, statements, sizeof(statements) / sizeof((statements)[0]), values)

static enum database_outcome run_each(struct database *database, const char *const *statements,
                                      size_t count, const struct database_value *values)
{
    enum database_outcome outcome = DATABASE_DONE;
    for (size_t i = 0; i < count && pg_is_good(outcome); i++) {
        outcome = database_query(database, statements[i], values, 3, PG_SCAN_MS, NULL);
    }
    return outcome;
}

/* Asks for ids, an array as the server has sent it: it goes back as it is, as the third value. */
static enum database_outcome ask_ids(struct database *database, const char *sql, int count,
                                     struct bounds *bounds, struct buffer *ids, uint64_t *ret_xid)
{
    const struct database_rows *rows;
    enum database_outcome outcome =
        database_query(database, sql, bounds->values, count, PG_SCAN_MS, &rows);
    if (!pg_is_good(outcome)) {
        return outcome;
    }
    buffer_clear(ids); /* a copy: the rows go with the next call */
    buffer_append(ids, database_get_slice(rows, 0, 0));
    if (ret_xid != NULL) {
        *ret_xid = (uint64_t)database_get_int(rows, 0, 1);
    }
    bounds->values[2] = (struct database_value){ids->data, (int)ids->length, DATABASE_UUID_ARRAY};
    return ids->failed ? DATABASE_MEMORY : outcome;
}

static enum database_outcome move_newcomers(struct database *database, const struct range *range,
                                            uint64_t since_xid)
{
    struct bounds bounds;
    struct database_scalar xid;
    struct buffer ids;
    buffer_init(&ids, 0);
    bounds_of(range, &bounds);
    bounds.values[2] = database_xid8(&xid, since_xid);
    enum database_outcome outcome = ask_ids(database, NEWCOMERS, 3, &bounds, &ids, NULL);
    if (pg_is_good(outcome)) {
        outcome = RUN_EACH(database, MOVE_MAIL, bounds.values);
    }
    if (pg_is_good(outcome)) {
        outcome = RUN_EACH(database, MOVE_HISTORY, bounds.values);
    }
    buffer_done(&ids);
    return outcome;
}

static enum database_outcome move_survivors(struct database *database, const struct range *range)
{
    struct bounds bounds;
    struct buffer ids;
    uint64_t since_xid;
    buffer_init(&ids, 0);
    bounds_of(range, &bounds);
    enum database_outcome outcome = ask_ids(database, SURVIVORS, 3, &bounds, &ids, &since_xid);
    if (pg_is_good(outcome)) {
        outcome = RUN_EACH(database, MOVE_MAIL, bounds.values);
    }
    if (pg_is_good(outcome)) {
        outcome = database_run(database, LOCK, PG_QUICK_MS);
    }
    if (pg_is_good(outcome)) {
        outcome = RUN_EACH(database, MOVE_HISTORY, bounds.values);
    }
    buffer_done(&ids);
    return pg_is_good(outcome) ? move_newcomers(database, range, since_xid) : outcome;
}

static enum database_outcome move_locked(struct database *database, const struct range *range)
{
    struct bounds bounds;
    bounds_of(range, &bounds);
    enum database_outcome outcome = move_survivors(database, range);
    return pg_is_good(outcome)
               ? database_query(database, RETIRING, bounds.values, 1, PG_QUICK_MS, NULL)
               : outcome;
}

/* *ret_has false: another has done it, or is at it. */
static enum database_outcome begin_with_row(struct database *database, const char *lock,
                                            const struct range *range, bool *ret_has)
{
    struct bounds bounds;
    const struct database_rows *rows;
    bounds_of(range, &bounds);
    enum database_outcome outcome =
        database_run(database, "BEGIN; SET LOCAL lock_timeout = '200ms'", PG_QUICK_MS);
    if (pg_is_good(outcome)) {
        outcome = database_query(database, lock, bounds.values, 1, PG_QUICK_MS, &rows);
    }
    if (!pg_is_good(outcome)) {
        return outcome;
    }
    *ret_has = database_count(rows) > 0;
    return DATABASE_DONE;
}

static enum database_outcome move(struct database *database, const struct range *range)
{
    bool has = false;
    enum database_outcome outcome = begin_with_row(database, LOCK_OPEN, range, &has);
    if (pg_is_good(outcome) && has) {
        outcome = move_locked(database, range);
    }
    if (pg_is_good(outcome)) {
        outcome = database_run(database, "COMMIT", PG_QUICK_MS);
    }
    return pg_is_good(outcome) ? DATABASE_DONE : pg_roll_back(database, outcome);
}

/* ---- detach --------------------------------------------------------------------------------- */

static const char ATTACHED[] =
    "SELECT inhdetachpending FROM pg_inherits WHERE inhparent = to_regclass($1)"
    " AND inhrelid = to_regclass($2)";

static enum database_outcome detach(struct database *database, const struct range *range,
                                    const char *kind)
{
    char parent[64], child[64 + PG_NAME_SIZE];
    const struct database_rows *rows;
    snprintf(parent, sizeof(parent), "holdfast.%s", kind);
    snprintf(child, sizeof(child), "holdfast.%s_%s", kind, range->name);
    struct database_value values[] = {database_text(slice_from_text(parent)),
                                      database_text(slice_from_text(child))};
    enum database_outcome outcome =
        database_query(database, ATTACHED, values, 2, PG_QUICK_MS, &rows);
    if (!pg_is_good(outcome) || database_count(rows) == 0) {
        return outcome;
    }
    struct buffer sql;
    buffer_init(&sql, 0);
    buffer_printf(&sql, "ALTER TABLE %s DETACH PARTITION %s %s", parent, child,
                  database_get_int(rows, 0, 0) ? "FINALIZE" : "CONCURRENTLY");
    outcome = pg_run_buffer(database, &sql, DETACH_MS);
    buffer_done(&sql);
    return outcome;
}

static enum database_outcome detach_all(struct database *database, const struct range *range)
{
    /* Only those wait for it who change tables, so it may wait long. */
    enum database_outcome outcome = database_run(database, "SET lock_timeout = '10s'", PG_QUICK_MS);
    for (size_t i = 0; i < PG_KIND_COUNT && pg_is_good(outcome); i++) {
        outcome = detach(database, range, PG_KINDS[i].name);
    }
    if (database_is_connected(database)) {
        enum database_outcome reset = database_run(database, "RESET lock_timeout", PG_QUICK_MS);
        outcome = pg_is_good(outcome) ? reset : outcome;
    }
    return outcome;
}

/* ---- drop ----------------------------------------------------------------------------------- */

static const char LOCK_RETIRING[] =
    "SELECT FROM holdfast.partitions WHERE low = $1 AND state = 3 FOR UPDATE";
static const char FORGET[] = "DELETE FROM holdfast.partitions WHERE low = $1";

/* @ is the range's name. What is kept already is not doubled; of that chunks, fates and notes go
 * along. */
static const char RESCUE[] =
    "WITH late AS MATERIALIZED (SELECT p.id FROM holdfast.parts_@ p LEFT JOIN"
    "  (SELECT id, count(*) AS n FROM holdfast.fates_@ GROUP BY id) f ON f.id = p.id"
    "  GROUP BY p.id, f.n HAVING sum(p.count) > coalesce(f.n, 0)),"
    " fresh AS MATERIALIZED (SELECT id FROM late WHERE NOT EXISTS"
    "  (SELECT FROM holdfast.kept_messages k WHERE k.id = late.id)),"
    " whose AS MATERIALIZED (SELECT id FROM fresh UNION SELECT id FROM holdfast.kept_messages),"
    " m AS (INSERT INTO holdfast.kept_messages SELECT * FROM holdfast.messages_@"
    "  WHERE id IN (SELECT id FROM fresh)),"
    " c AS (INSERT INTO holdfast.kept_chunks SELECT * FROM holdfast.chunks_@"
    "  WHERE id IN (SELECT id FROM whose) ON CONFLICT DO NOTHING),"
    " p AS (INSERT INTO holdfast.kept_parts (seq, share, count, id, deliveries)"
    "  SELECT seq, share, count, id, deliveries FROM holdfast.parts_@"
    "  WHERE id IN (SELECT id FROM fresh)),"
    " n AS (INSERT INTO holdfast.kept_notes SELECT * FROM holdfast.notes_@"
    "  WHERE id IN (SELECT id FROM whose))"
    " INSERT INTO holdfast.kept_fates SELECT * FROM holdfast.fates_@"
    "  WHERE id IN (SELECT id FROM whose) ON CONFLICT DO NOTHING";
static const char DROP[] = "DROP TABLE holdfast.parts_@, holdfast.messages_@, holdfast.chunks_@,"
                           " holdfast.notes_@, holdfast.fates_@";

static enum database_outcome run_named(struct database *database, const struct range *range,
                                       const char *text)
{
    struct buffer sql;
    buffer_init(&sql, 0);
    for (; *text != '\0'; text++) {
        if (*text == '@') {
            buffer_append_text(&sql, range->name);
        } else {
            buffer_put_u8(&sql, (uint8_t)*text);
        }
    }
    enum database_outcome outcome = pg_run_buffer(database, &sql, PG_SCAN_MS);
    buffer_done(&sql);
    return outcome;
}

static enum database_outcome drop(struct database *database, const struct range *range,
                                  bool *ret_has)
{
    struct bounds bounds;
    bounds_of(range, &bounds);
    enum database_outcome outcome = begin_with_row(database, LOCK_RETIRING, range, ret_has);
    if (pg_is_good(outcome) && *ret_has) {
        outcome = run_named(database, range, RESCUE);
        if (pg_is_good(outcome)) {
            outcome = run_named(database, range, DROP);
        }
        if (pg_is_good(outcome)) {
            outcome = database_query(database, FORGET, bounds.values, 1, PG_QUICK_MS, NULL);
        }
    }
    if (pg_is_good(outcome)) {
        outcome = database_run(database, "COMMIT", PG_QUICK_MS);
    }
    return pg_is_good(outcome) ? DATABASE_DONE : pg_roll_back(database, outcome);
}

/* ---- all of it ------------------------------------------------------------------------------ */

static enum database_outcome retire(struct database *database,
                                    const struct pg_partition_settings *settings,
                                    const struct range *range, bool *ret_gone)
{
    bool wanted = range->is_retiring;
    enum database_outcome outcome = DATABASE_DONE;
    *ret_gone = false;
    if (!wanted) {
        outcome = is_nearly_finished(database, settings, range, &wanted);
        if (!pg_is_good(outcome) || !wanted) {
            return outcome;
        }
        outcome = move(database, range);
    }
    if (pg_is_good(outcome)) {
        outcome = detach_all(database, range);
    }
    return pg_is_good(outcome) ? drop(database, range, ret_gone) : outcome;
}

enum database_outcome pg_partition_retire(struct database *database,
                                          const struct pg_partition_settings *settings,
                                          size_t *ret_retired)
{
    struct range ranges[RANGES_MAX];
    size_t count, retired = 0;
    enum database_outcome outcome = pick(database, settings, ranges, &count);
    for (size_t i = 0; i < count && pg_is_good(outcome); i++) {
        bool gone;
        outcome = retire(database, settings, &ranges[i], &gone);
        retired += pg_is_good(outcome) && gone;
    }
    if (ret_retired != NULL) {
        *ret_retired = retired;
    }
    return outcome;
}

/* ---- what was kept ----------------------------------------------------------------------------
 */

/* Looks at so many ids in their order, from where it was. What nobody brings any more goes: what is
 * finished, and what was told of mail that has gone. */
static const char CLEAN[] =
    "WITH looked AS MATERIALIZED (SELECT DISTINCT id FROM holdfast.kept_fates WHERE id > $2"
    "  ORDER BY id LIMIT $3),"
    " ours AS MATERIALIZED (SELECT id FROM looked WHERE NOT " MAY_BRING(
        "w.below <= looked.id") "),"
                                " done AS MATERIALIZED (SELECT o.id FROM ours o JOIN "
                                "holdfast.kept_parts p USING (id)"
                                "  CROSS JOIN LATERAL (SELECT count(*) AS n, max(when_ms) AS last "
                                "FROM holdfast.kept_fates f"
                                "   WHERE f.id = o.id) f GROUP BY o.id, f.n, f.last HAVING "
                                "sum(p.count) <= f.n"
                                "  AND (f.last IS NULL OR f.last <= extract(epoch FROM "
                                "clock_timestamp()) * 1000 - $1)),"
                                " over AS MATERIALIZED (SELECT id FROM done UNION ALL SELECT o.id "
                                "FROM ours o WHERE NOT EXISTS"
                                "  (SELECT FROM holdfast.kept_messages m WHERE m.id = o.id) AND "
                                "NOT "
                                "EXISTS"
                                "  (SELECT FROM holdfast.partitions r WHERE r.low <= o.id AND o.id "
                                "< "
                                "r.high)),"
                                " p AS (DELETE FROM holdfast.kept_parts WHERE id IN (SELECT id "
                                "FROM "
                                "over)),"
                                " m AS (DELETE FROM holdfast.kept_messages WHERE id IN (SELECT id "
                                "FROM over)),"
                                " c AS (DELETE FROM holdfast.kept_chunks WHERE id IN (SELECT id "
                                "FROM "
                                "over)),"
                                " n AS (DELETE FROM holdfast.kept_notes WHERE id IN (SELECT id "
                                "FROM "
                                "over)),"
                                " f AS (DELETE FROM holdfast.kept_fates WHERE id IN (SELECT id "
                                "FROM "
                                "over))"
                                " SELECT (SELECT count(*) FROM done), (SELECT count(*) FROM "
                                "looked),"
                                " (SELECT id FROM looked ORDER BY id DESC LIMIT 1)";

static const char FORGET_LATE[] =
    "DELETE FROM holdfast.late_fates WHERE made < now() - interval '1 day'";

enum database_outcome pg_partition_clean(struct database *database,
                                         const struct pg_partition_settings *settings,
                                         struct message_id *after, size_t *ret_removed)
{
    struct database_scalar store[3];
    const struct database_rows *rows;
    struct database_value values[] = {database_int8(&store[0], settings->keep_ms),
                                      database_uuid(&store[1], *after),
                                      database_int8(&store[2], settings->cleaned_a_call)};
    enum database_outcome outcome = database_query(database, CLEAN, values, 3, PG_SCAN_MS, &rows);
    if (pg_is_good(outcome)) {
        bool more = database_get_int(rows, 0, 1) >= settings->cleaned_a_call;
        *after = more ? database_get_uuid(rows, 0, 2) : (struct message_id){0};
    }
    if (ret_removed != NULL) {
        *ret_removed = pg_is_good(outcome) ? (size_t)database_get_int(rows, 0, 0) : 0;
    }
    return pg_is_good(outcome) ? database_query(database, FORGET_LATE, NULL, 0, PG_SCAN_MS, NULL)
                               : outcome;
}
