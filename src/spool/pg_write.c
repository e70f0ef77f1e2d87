/* SPDX-License-Identifier: Apache-2.0
 *
 * The committer: a group becomes one transaction, sent as one pipeline, so that it costs one round
 * trip and one commit. Runs on its worker's thread; of the loop's things it has the group alone.
 *
 * Each transaction writes the group's number into a row of the node's own, and demands that it
 * finds there what the one before it has left. When the end of a commit is not known, that row says
 * what became of it: it is locked by whatever is still under way. A group that was not committed is
 * sent again only when something else stands in the row (resolve()): what an old connection still
 * has in its pipe, however late it is read, does not find what it demands.
 */
#include "spool/pg_partition.h"
#include "spool/pg_schema.h"
#include "spool/pg_send.h"
#include "sys/clock.h"
#include "sys/random.h"

#include <stdio.h>
#include <stdlib.h>

static const char begin_sql[] = "BEGIN";
static const char lazy_sql[] = "SET LOCAL synchronous_commit TO off";
static const char commit_sql[] = "COMMIT";
static const char mark_new_sql[] = "INSERT INTO holdfast.globals (node, key, payload)"
                                   " VALUES ($1, '.group', '') ON CONFLICT DO NOTHING";
static const char mark_sql[] =
    "INSERT INTO holdfast.globals (node, key, payload) VALUES ($1, '.group', $2)"
    " ON CONFLICT (node, key) DO UPDATE SET payload = excluded.payload";
/* Divides by zero unless it finds $3. */
static const char mark_next_sql[] =
    "WITH next AS (UPDATE holdfast.globals SET payload = $2 WHERE node = $1 AND key = '.group'"
    " AND payload = $3 RETURNING node) SELECT 1 / count(*)::int4 FROM next";
static const char mark_read_sql[] =
    "SELECT payload FROM holdfast.globals WHERE node = $1 AND key = '.group' FOR UPDATE";
/* By the database's clock, which ids are made by. */
static const char watermark_sql[] =
    "INSERT INTO holdfast.watermarks (node, below, beat)"
    " VALUES ($1, least($2::uuid, " PG_ID_OF_AGE(
        "$3") "), now())"
              " ON CONFLICT (node) DO UPDATE SET below = excluded.below, beat = excluded.beat"
              " RETURNING below";
/* Divides by zero unless each share has its token; the locks keep it so until the commit. */
static const char check_sql[] = "WITH held AS (SELECT s.share FROM holdfast.shares s"
                                " JOIN unnest($1::int4[], $2::int8[]) AS w (share, token)"
                                " ON s.share = w.share AND s.token = w.token ORDER BY s.share"
                                " FOR SHARE OF s)"
                                " SELECT 1 / (count(*) = $3)::int4 FROM held";
static const char stale_sql[] =
    "SELECT w.share, w.token FROM unnest($1::int4[], $2::int8[]) AS w (share, token)"
    " WHERE NOT EXISTS (SELECT FROM holdfast.shares s"
    " WHERE s.share = w.share AND s.token = w.token)";
static const char name_new_sql[] =
    "INSERT INTO holdfast.shares (name, family, \"group\", part)"
    " SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int4[]) ON CONFLICT DO NOTHING";
static const char name_sql[] =
    "SELECT s.share FROM unnest($1::text[]) WITH ORDINALITY AS w (name, n)"
    " JOIN holdfast.shares s ON s.name = w.name ORDER BY w.n";

static const char global_sql[] =
    "INSERT INTO holdfast.globals (node, key, payload) VALUES ($1, $2, $3)"
    " ON CONFLICT (node, key) DO UPDATE SET payload = excluded.payload"
    " WHERE globals.node <> 0 OR excluded.payload < '\\x02'::bytea"
    " OR excluded.payload > globals.payload";
static const char server_sql[] = "SELECT " PG_SERVER;
static const char global_gone_sql[] = "DELETE FROM holdfast.globals WHERE node = $1 AND key = $2";

/* ---- sending ----------------------------------------------------------------------------- */

static enum database_outcome send_globals(struct pg_group *group)
{
    const struct pg_send_global *globals = (const void *)group->globals.data;
    enum database_outcome outcome = DATABASE_DONE;
    for (size_t i = 0; i < group->globals.length / sizeof(*globals) && outcome == DATABASE_DONE;
         i++) {
        struct database_scalar node;
        /* That it has gone must be heard by the others, too. */
        bool gone = globals[i].payload.length == 0 && !globals[i].is_common;
        int16_t of = globals[i].is_common ? 0 : (int16_t)group->node;
        const struct database_value values[] = {database_int2(&node, of),
                                                database_bytea(globals[i].key),
                                                database_bytea(globals[i].payload)};
        outcome = database_queue(group->writer->database, gone ? global_gone_sql : global_sql,
                                 values, gone ? 2 : 3);
    }
    return outcome;
}

static void check_arrays(const struct pg_group *group, struct pg_arrays *arrays)
{
    const struct pg_check *checks = (const void *)group->checks.data;
    size_t count = group->checks.length / sizeof(*checks);
    struct buffer numbers = {0}, tokens = {0};
    for (size_t i = 0; i < count; i++) {
        database_put_int4(&numbers, checks[i].number);
        database_put_int8(&tokens, checks[i].token);
    }
    pg_arrays_add(arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &numbers);
    pg_arrays_add(arrays, DATABASE_INT8, DATABASE_INT8_ARRAY, count, &tokens);
    buffer_done(&numbers);
    buffer_done(&tokens);
}

static enum database_outcome send_checks(struct pg_group *group)
{
    struct pg_arrays arrays = {0};
    struct database_scalar count;
    check_arrays(group, &arrays);
    arrays.values[arrays.count] =
        database_int8(&count, (int64_t)(group->checks.length / sizeof(struct pg_check)));
    buffer_init(&arrays.buffers[arrays.count++], 0);
    enum database_outcome outcome =
        arrays.failed
            ? DATABASE_MEMORY
            : database_queue(group->writer->database, check_sql, arrays.values, arrays.count);
    pg_arrays_done(&arrays);
    return outcome;
}

static enum database_outcome send_mark(struct pg_group *group)
{
    struct database_scalar node;
    struct slice number = slice_make(&group->number, sizeof(group->number));
    struct slice before = slice_make(&group->writer->mark, sizeof(group->writer->mark));
    const struct database_value values[] = {database_int2(&node, (int16_t)group->node),
                                            database_bytea(number), database_bytea(before)};
    return database_queue(group->writer->database, mark_next_sql, values, 3);
}

/* ---- the transaction --------------------------------------------------------------------- */

static void keep_reason(struct pg_group *group, enum database_outcome outcome)
{
    const char *text = database_error(group->writer->database);
    group->outcome = outcome;
    snprintf(group->reason, sizeof(group->reason), "%.*s", (int)sizeof(group->reason) - 1,
             text[0] != '\0' ? text : "out of memory");
}

/* What comes first has a known place in the pipeline; SIZE_MAX: it is not in it. */
struct places {
    size_t mark, check, watermark;
};

static enum database_outcome send_watermark(struct pg_group *group)
{
    struct database_scalar scalars[3];
    const struct database_value values[] = {database_int2(&scalars[0], (int16_t)group->node),
                                            database_uuid(&scalars[1], group->below),
                                            database_int8(&scalars[2], PG_MARGIN_MS)};
    return database_queue(group->writer->database, watermark_sql, values, 3);
}

static enum database_outcome send_all(struct pg_group *group, struct places *ret_places)
{
    struct database *database = group->writer->database;
    enum database_outcome outcome = database_queue(database, begin_sql, NULL, 0);
    size_t count = 1;
    *ret_places = (struct places){SIZE_MAX, SIZE_MAX, SIZE_MAX};
    if (outcome == DATABASE_DONE && group->lazy) {
        outcome = database_queue(database, lazy_sql, NULL, 0);
        count++;
    }
    if (outcome == DATABASE_DONE) {
        ret_places->mark = count++;
        outcome = send_mark(group);
    }
    if (outcome == DATABASE_DONE && group->checks.length > 0) {
        ret_places->check = count++;
        outcome = send_checks(group);
    }
    if (outcome == DATABASE_DONE && group->has_below) {
        ret_places->watermark = count++;
        outcome = send_watermark(group);
    }
    if (outcome == DATABASE_DONE) {
        outcome = pg_send_mail(group);
    }
    if (outcome == DATABASE_DONE) {
        outcome = send_globals(group);
    }
    return outcome == DATABASE_DONE ? database_queue(database, commit_sql, NULL, 0) : outcome;
}

static struct pg_new_part *part_of(struct pg_group *group, struct message_id id, int32_t share,
                                   size_t *at)
{
    struct pg_send_message *messages = (void *)group->messages.data;
    size_t count = group->messages.length / sizeof(*messages);
    for (size_t i = 0; i < count; i++, *at = (*at + 1) % count) {
        if (!id_equal(messages[*at].id, id)) {
            continue;
        }
        for (uint32_t p = 0; p < messages[*at].part_count; p++) {
            if (messages[*at].parts[p].share->number == share) {
                return &messages[*at].parts[p];
            }
        }
    }
    return NULL;
}

/* Where new mail stands in the order: as the statement has said it (pg_send.c). */
static void take_places(struct pg_group *group, const struct database_rows *rows)
{
    struct pg_send_message *messages = (void *)group->messages.data;
    int64_t sequence = database_get_int(rows, 0, 0), n = 0;
    bool soon = database_get_int(rows, 0, 1) != 0;
    group->xid = (uint64_t)database_get_int(rows, 0, 2);
    for (size_t i = 0; i < group->messages.length / sizeof(*messages); i++) {
        for (uint32_t p = 0; p < messages[i].part_count && messages[i].error == ERROR_NONE; p++) {
            n++;
            messages[i].parts[p].sequence =
                soon ? sequence + n : messages[i].received_ms * 1000 + (n < 999 ? n : 999);
        }
    }
}

/* Where each part stands, as the database has given it. */
static void take_sequences(struct pg_group *group, const struct database_rows *rows)
{
    size_t at = 0;
    for (size_t i = 0; rows != NULL && i < database_count(rows); i++) {
        struct pg_new_part *part = part_of(group, database_get_uuid(rows, i, 0),
                                           (int32_t)database_get_int(rows, i, 1), &at);
        if (part != NULL) {
            part->sequence = database_get_int(rows, i, 2);
            group->xid = (uint64_t)database_get_int(rows, i, 3);
        }
    }
}

static void find_stale(struct pg_group *group)
{
    const struct database_rows *rows;
    struct pg_arrays arrays = {0};
    check_arrays(group, &arrays);
    enum database_outcome outcome = arrays.failed
                                        ? DATABASE_MEMORY
                                        : database_query(group->writer->database, stale_sql,
                                                         arrays.values, 2, PG_CALL_MS, &rows);
    struct pg_check *checks = (void *)group->checks.data;
    for (size_t i = 0; outcome == DATABASE_DONE && i < database_count(rows); i++) {
        for (size_t c = 0; c < group->checks.length / sizeof(*checks); c++) {
            if (checks[c].number == database_get_int(rows, i, 0) &&
                checks[c].token == database_get_int(rows, i, 1)) {
                checks[c].stale = group->stale = true;
            }
        }
    }
    pg_arrays_done(&arrays);
}

/* A large message takes its time, over a slow link to the database or from it to its standby; one
 * that was cut off would be sent again, and cut off again, for ever. */
static int flush_ms(const struct pg_group *group)
{
    const struct pg_send_message *messages = (const void *)group->messages.data;
    uint64_t bytes = 0;
    for (size_t i = 0; i < group->messages.length / sizeof(*messages); i++) {
        bytes += messages[i].bytes;
    }
    return PG_CALL_MS + (int)(bytes / PG_SLOWEST);
}

static void take_answers(struct pg_group *group, const struct places *places)
{
    const struct database *database = group->writer->database;
    if (places->watermark != SIZE_MAX) {
        const struct database_rows *rows = database_result(database, places->watermark);
        if (rows != NULL && database_count(rows) == 1) {
            group->said = database_get_uuid(rows, 0, 0);
        }
    }
    for (size_t i = 0; group->messages.length > 0; i++) {
        const struct database_rows *rows = database_result(database, i);
        if (rows == NULL) {
            break;
        }
        if (database_count(rows) > 0 && i != places->mark && i != places->check &&
            i != places->watermark) {
            if (group->routed) {
                take_sequences(group, rows);
            } else {
                take_places(group, rows);
            }
        }
    }
}

/* What the server has against the data, not against us: exceptions, constraints, limits. */
static bool is_of_a_row(const char *code)
{
    return strncmp(code, "22", 2) == 0 || strncmp(code, "23", 2) == 0 ||
           strncmp(code, "54", 2) == 0;
}

static void transact(struct pg_group *group)
{
    size_t failed = SIZE_MAX;
    struct places places;
    enum database_outcome outcome = send_all(group, &places);
    if (outcome != DATABASE_DONE) {
        keep_reason(group, outcome); /* COMMIT was not sent */
        database_disconnect(group->writer->database);
        return;
    }
    outcome = database_flush(group->writer->database, flush_ms(group), &failed);
    if (outcome == DATABASE_DONE || outcome == DATABASE_WARNED) {
        take_answers(group, &places);
    }
    if (outcome == DATABASE_DONE) {
        group->stage = PG_STAGE_COMMITTED;
        group->writer->mark = group->number;
        return;
    }
    keep_reason(group, outcome);
    if (outcome == DATABASE_WARNED || outcome == DATABASE_LOST) {
        group->stage = PG_STAGE_UNKNOWN;
        return;
    }
    const char *code = database_state_code(group->writer->database);
    bool of_a_row = outcome == DATABASE_REFUSED && is_of_a_row(code);
    if (strcmp(code, "23514") == 0) {
        /* There is no partition. */
        group->writer->routed_until_ms = clock_steady_ms() + PG_ROUTED_MS;
        group->surprised = true;
    } else if (strcmp(code, "23505") == 0 && !group->routed) {
        /* Somebody has brought it: a core that has died since, or an import. */
        group->old = group->surprised = true;
    }
    if (database_run(group->writer->database, "ROLLBACK", PG_CALL_MS) != DATABASE_DONE) {
        return;
    }
    if (failed == places.check) {
        find_stale(group);
    } else if (failed == places.mark) {
        group->writer->fenced = false; /* another's number: an older database, perhaps */
    } else {
        group->refused = of_a_row;
    }
}

/* Whether it was committed after all; and then, whether that will last: a commit that follows it,
 * and is confirmed, says so. If it was not, that commit sees to it that it never will be: it leaves
 * a number that nobody waits for. */
static void resolve(struct pg_group *group)
{
    struct pg_writer *writer = group->writer;
    struct database_scalar node;
    const struct database_rows *rows;
    uint64_t mark = random_u64();
    struct slice number = slice_make(&group->number, sizeof(group->number));
    struct database_value values[] = {database_int2(&node, (int16_t)group->node),
                                      database_bytea(slice_make(&mark, sizeof(mark)))};
    enum database_outcome outcome = database_run(writer->database, "BEGIN", PG_CALL_MS);
    if (outcome == DATABASE_DONE) {
        outcome = database_query(writer->database, mark_read_sql, values, 1, PG_CALL_MS, &rows);
    }
    bool there = outcome == DATABASE_DONE && database_count(rows) == 1 &&
                 slice_equal(database_get_slice(rows, 0, 0), number);
    if (there) {
        mark = group->number;
    }
    if (outcome == DATABASE_DONE) {
        outcome = database_query(writer->database, mark_sql, values, 2, PG_CALL_MS, NULL);
    }
    if (outcome == DATABASE_DONE) {
        outcome = database_run(writer->database, "COMMIT", PG_CALL_MS);
    }
    if (outcome == DATABASE_DONE) {
        group->stage = there ? PG_STAGE_COMMITTED : PG_STAGE_NEW;
        writer->mark = mark;
        writer->fenced = true;
        return;
    }
    keep_reason(group, outcome);
    if (outcome != DATABASE_LOST && outcome != DATABASE_WARNED) {
        database_disconnect(group->writer->database);
    }
}

/* FAMILY[@GROUP]:PART */
static void put_name(struct buffer columns[4], const struct pg_share *share)
{
    struct slice name = slice_make(share->name, share->length);
    size_t colon = slice_find_last(name, ':');
    struct slice front = slice_take(name, colon);
    size_t at = slice_find(front, '@');
    uint64_t part = 0;
    (void)!slice_to_u64(slice_skip(name, colon + 1), &part);
    database_put_bytes(&columns[0], name);
    database_put_bytes(&columns[1], slice_take(front, at));
    database_put_bytes(&columns[2], slice_skip(front, at + 1));
    database_put_int4(&columns[3], (int32_t)part);
}

/* What was asked for on an earlier connection may have been another database: after a failover, or
 * when it was restored. */
static void need_number(struct pg_group *group, struct pg_share *share)
{
    struct pg_share *const *names = (const void *)group->names.data;
    bool known = share == NULL || share->length == 0 || share->asked == group->writer->connections;
    for (size_t i = 0; i < group->names.length / sizeof(*names) && !known; i++) {
        known = names[i] == share;
    }
    if (!known) {
        buffer_append(&group->names, slice_make(&share, sizeof(share)));
    }
}

static void need_numbers(struct pg_group *group)
{
    const struct pg_send_message *messages = (const void *)group->messages.data;
    const struct pg_send_note *notes = (const void *)group->notes.data;
    const struct pg_send_fate *fates = (const void *)group->fates.data;
    group->names.length = 0;
    for (size_t i = 0; i < group->messages.length / sizeof(*messages); i++) {
        for (uint32_t p = 0; p < messages[i].part_count; p++) {
            need_number(group, messages[i].parts[p].share);
        }
    }
    for (size_t i = 0; i < group->notes.length / sizeof(*notes); i++) {
        need_number(group, notes[i].share);
    }
    for (size_t i = 0; i < group->fates.length / sizeof(*fates); i++) {
        need_number(group, fates[i].share);
    }
}

static enum database_outcome ask_names(struct pg_group *group)
{
    struct pg_share *const *names = (const void *)group->names.data;
    size_t count = group->names.length / sizeof(*names);
    struct database *database = group->writer->database;
    const struct database_rows *rows;
    struct buffer columns[4] = {0};
    struct pg_arrays arrays = {0};
    for (size_t i = 0; i < count; i++) {
        put_name(columns, names[i]);
    }
    for (int i = 0; i < 3; i++) {
        pg_arrays_add(&arrays, DATABASE_TEXT, DATABASE_TEXT_ARRAY, count, &columns[i]);
    }
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &columns[3]);
    enum database_outcome outcome =
        arrays.failed || group->names.failed
            ? DATABASE_MEMORY
            : database_query(database, name_new_sql, arrays.values, 4, PG_CALL_MS, NULL);
    if (outcome == DATABASE_DONE) {
        outcome = database_query(database, name_sql, arrays.values, 1, PG_CALL_MS, &rows);
    }
    if (outcome == DATABASE_DONE && database_count(rows) != count) {
        outcome = DATABASE_AGAIN;
    }
    for (size_t i = 0; i < count && outcome == DATABASE_DONE; i++) {
        names[i]->number = (int32_t)database_get_int(rows, i, 0);
        names[i]->asked = group->writer->connections;
    }
    for (int i = 0; i < 4; i++) {
        buffer_done(&columns[i]);
        buffer_done(&arrays.buffers[i]);
    }
    return outcome;
}

/* The schema may have become that of a program which leaves no room for ours. */
static bool is_ours(struct pg_group *group)
{
    char problem[DATABASE_ERROR_SIZE];
    size_t count;
    const struct pg_migration *migrations = pg_migrations(&count);
    if (pg_schema_check(group->writer->database, migrations, count, problem) == ERROR_NONE) {
        return true;
    }
    group->outcome = DATABASE_REFUSED;
    snprintf(group->reason, sizeof(group->reason), "%.*s", (int)sizeof(group->reason) - 1, problem);
    database_disconnect(group->writer->database);
    return false;
}

static bool is_connected(struct pg_group *group)
{
    if (database_is_connected(group->writer->database)) {
        return true;
    }
    struct database_scalar node;
    const struct database_rows *rows;
    const struct database_value values[] = {database_int2(&node, (int16_t)group->node)};
    group->writer->fenced = false;
    enum database_outcome outcome = database_connect(group->writer->database);
    group->writer->connections++;
    if (outcome == DATABASE_DONE && !is_ours(group)) {
        return false;
    }
    if (outcome == DATABASE_DONE) {
        outcome = pg_commit_durably(group->writer->database);
    }
    if (outcome == DATABASE_DONE) {
        outcome =
            database_query(group->writer->database, mark_new_sql, values, 1, PG_CALL_MS, NULL);
    }
    if (outcome == DATABASE_DONE) {
        outcome = database_query(group->writer->database, server_sql, NULL, 0, PG_CALL_MS, &rows);
    }
    if (outcome == DATABASE_DONE && database_count(rows) == 1) {
        group->writer->server = database_get_int(rows, 0, 0);
    }
    if (outcome != DATABASE_DONE) {
        keep_reason(group, outcome);
        database_disconnect(group->writer->database);
    }
    return outcome == DATABASE_DONE;
}

static void ask_spares(struct pg_group *group)
{
    enum database_outcome outcome = pg_spare_run(group);
    if (outcome == DATABASE_DONE) {
        group->stage = PG_STAGE_COMMITTED;
        return;
    }
    keep_reason(group, outcome);
    database_disconnect(group->writer->database);
}

void pg_group_run(void *job)
{
    struct pg_group *group = job;
    group->began_ns = clock_steady_ns();
    group->stale = group->refused = false;
    if (!is_connected(group)) {
        return;
    }
    group->server = group->writer->server;
    if (group->spares.length > 0) {
        ask_spares(group);
        return;
    }
    if (group->stage == PG_STAGE_UNKNOWN || !group->writer->fenced) {
        resolve(group);
    }
    need_numbers(group);
    bool may = group->stage == PG_STAGE_NEW && group->writer->fenced;
    if (may && (group->names.length > 0 || group->names.failed)) {
        enum database_outcome outcome = ask_names(group);
        if (outcome != DATABASE_DONE) {
            keep_reason(group, outcome);
            return;
        }
    }
    group->surprised = false;
    if (may) {
        transact(group);
    }
    if (group->surprised) {
        group->refused = false;
        transact(group); /* which asks now */
    }
    group->took_ns = clock_steady_ns() - group->began_ns;
    if (group->outcome == DATABASE_READONLY && group->stage != PG_STAGE_COMMITTED) {
        database_disconnect(group->writer->database);
    }
}
