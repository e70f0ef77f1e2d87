/* SPDX-License-Identifier: Apache-2.0
 *
 * The reader: a page of parts with their envelopes, fates and notes, in one transaction, so that
 * they belong together. Runs on its worker's thread; of the loop's things it has the page alone.
 */
#include "spool/pg_page.h"

#include <stdio.h>
#include <stdlib.h>

static const char begin_sql[] = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
static const char until_sql[] = "SELECT pg_snapshot_xmin(pg_current_snapshot())";
#define PARTS(TABLE, CONDITION)                                                                    \
    "SELECT p.share, p.seq, p.xid, p.id, p.deliveries FROM holdfast." TABLE " p WHERE " CONDITION
/* What has not all its fates. Most have one delivery: that is a join, the rest are looked at one by
 * one. */
#define OPEN_ONE(PREFIX)                                                                           \
    PARTS(PREFIX "parts", "p.share = $1 AND p.xid < $2 AND p.count = 1"                            \
                          " AND NOT EXISTS (SELECT FROM holdfast." PREFIX "fates f"                \
                          " WHERE f.id = p.id AND f.delivery = coalesce(p.deliveries[1], 0))")
#define OPEN_MANY(PREFIX)                                                                          \
    PARTS(PREFIX "parts",                                                                          \
          "p.share = $1 AND p.xid < $2 AND p.count > 1"                                            \
          " AND (SELECT count(*) FROM holdfast." PREFIX "fates f WHERE f.id = p.id"                \
          " AND (p.deliveries IS NULL OR f.delivery = ANY(p.deliveries))) < p.count")
static const char share_sql[] = OPEN_ONE("") " UNION ALL " OPEN_MANY("") " UNION ALL " OPEN_ONE(
    "kept_") " UNION ALL " OPEN_MANY("kept_") " ORDER BY 2, 4";
#define FOLLOW(TABLE)                                                                              \
    PARTS(TABLE, "p.share = ANY($1) AND p.xid >= $2 AND p.xid < $3"                                \
                 " AND (p.xid, p.seq, p.id) > ($4, $5, $6)")
static const char follow_sql[] =
    FOLLOW("parts") " UNION ALL " FOLLOW("kept_parts") " ORDER BY 3, 2, 4 LIMIT $7";
#define BOTH(COLUMNS, TABLE)                                                                       \
    "SELECT " COLUMNS " FROM holdfast." TABLE " WHERE id = ANY($1) UNION ALL SELECT " COLUMNS      \
    " FROM holdfast.kept_" TABLE " WHERE id = ANY($1)"
static const char envelopes_sql[] = BOTH("id, envelope", "messages");
static const char fates_sql[] = BOTH("id, delivery, fate", "fates");
static const char notes_sql[] =
    BOTH("id, delivery, share, kind, payload, seq", "notes") " ORDER BY 6";
static const char globals_sql[] =
    "SELECT key, payload FROM holdfast.globals WHERE node IN (0, $1) AND key <> '.group'"
    " ORDER BY key";

/* ---- keeping rows ------------------------------------------------------------------------ */

static struct pg_row *rows_of(const struct pg_page *page)
{
    return (struct pg_row *)(void *)page->rows.data;
}

static enum database_outcome keep_row(struct pg_page *page, const struct database_rows *rows,
                                      size_t i)
{
    struct slice deliveries = SLICE_EMPTY;
    struct pg_row row = {.share = (int32_t)database_get_int(rows, i, 0),
                         .sequence = database_get_int(rows, i, 1),
                         .xid = (uint64_t)database_get_int(rows, i, 2),
                         .id = database_get_uuid(rows, i, 3)};
    bool all = !database_get_int4_array(rows, i, 4, &deliveries, &row.delivery_count);
    if (!all) {
        row.deliveries =
            arena_allocate(&page->arena, (row.delivery_count + 1) * sizeof(*row.deliveries));
        for (size_t d = 0; row.deliveries != NULL && d < row.delivery_count; d++) {
            row.deliveries[d] = database_element_int4(deliveries, d);
        }
    }
    buffer_append(&page->rows, slice_make(&row, sizeof(row)));
    bool lost = (!all && row.deliveries == NULL) || page->rows.failed;
    return lost ? DATABASE_MEMORY : DATABASE_DONE;
}

static int by_id(const void *a, const void *b)
{
    const struct pg_row *left = *(struct pg_row *const *)a, *right = *(struct pg_row *const *)b;
    if (left->id.high != right->id.high) {
        return left->id.high < right->id.high ? -1 : 1;
    }
    return (left->id.low > right->id.low) - (left->id.low < right->id.low);
}

/* The first of the rows with that id, in order of ids; or `count`. */
static size_t first_with(struct pg_row *const *sorted, size_t count, struct message_id id)
{
    const struct pg_row wanted = {.id = id};
    const struct pg_row *key = &wanted;
    size_t from = 0, to = count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (by_id(&sorted[middle], &key) < 0) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

static bool row_has(const struct pg_row *row, int32_t delivery)
{
    for (size_t i = 0; i < row->delivery_count; i++) {
        if (row->deliveries[i] == delivery) {
            return true;
        }
    }
    return row->deliveries == NULL;
}

static bool keep_item(struct pg_page *page, struct pg_row *row, const struct pg_item *like,
                      struct slice payload)
{
    struct pg_item *item = arena_allocate(&page->arena, sizeof(*item));
    if (item == NULL) {
        return false;
    }
    *item = *like;
    item->payload = arena_copy(&page->arena, payload);
    if (row->last == NULL) {
        row->first = item;
    } else {
        row->last->next = item;
    }
    row->last = item;
    return item->payload.data != NULL || payload.length == 0;
}

static bool keep_envelopes(struct pg_page *page, struct pg_row *const *sorted, size_t count,
                           const struct database_rows *rows)
{
    bool kept = true;
    for (size_t i = 0; i < database_count(rows) && kept; i++) {
        struct message_id id = database_get_uuid(rows, i, 0);
        struct slice envelope = database_get_slice(rows, i, 1);
        for (size_t r = first_with(sorted, count, id);
             r < count && id_equal(sorted[r]->id, id) && kept; r++) {
            sorted[r]->envelope = arena_copy(&page->arena, envelope);
            kept = sorted[r]->envelope.data != NULL || envelope.length == 0;
        }
    }
    return kept;
}

static bool keep_fates(struct pg_page *page, struct pg_row *const *sorted, size_t count,
                       const struct database_rows *rows)
{
    bool kept = true;
    for (size_t i = 0; i < database_count(rows) && kept; i++) {
        struct message_id id = database_get_uuid(rows, i, 0);
        const struct pg_item item = {.delivery = (uint32_t)database_get_int(rows, i, 1),
                                     .fate = (uint8_t)database_get_int(rows, i, 2)};
        for (size_t r = first_with(sorted, count, id);
             r < count && id_equal(sorted[r]->id, id) && kept; r++) {
            if (row_has(sorted[r], (int32_t)item.delivery)) {
                kept = keep_item(page, sorted[r], &item, SLICE_EMPTY);
            }
        }
    }
    return kept;
}

static bool keep_notes(struct pg_page *page, struct pg_row *const *sorted, size_t count,
                       const struct database_rows *rows)
{
    bool kept = true;
    for (size_t i = 0; i < database_count(rows) && kept; i++) {
        struct message_id id = database_get_uuid(rows, i, 0);
        const struct pg_item item = {.delivery = (uint32_t)database_get_int(rows, i, 1),
                                     .is_note = true,
                                     .kind = (uint16_t)database_get_int(rows, i, 3)};
        int64_t share = database_get_int(rows, i, 2);
        for (size_t r = first_with(sorted, count, id);
             r < count && id_equal(sorted[r]->id, id) && kept; r++) {
            if (sorted[r]->share == share) {
                kept = keep_item(page, sorted[r], &item, database_get_slice(rows, i, 4));
            }
        }
    }
    return kept;
}

/* ---- asking ------------------------------------------------------------------------------ */

static enum database_outcome ask(struct pg_page *page, const char *sql,
                                 const struct database_value *values, int count,
                                 const struct database_rows **ret_rows)
{
    return database_query(page->database, sql, values, count, PG_CALL_MS, ret_rows);
}

static enum database_outcome ask_until(struct pg_page *page)
{
    const struct database_rows *rows;
    if (page->until_xid != 0) {
        return DATABASE_DONE; /* the pages of one load have one end */
    }
    enum database_outcome outcome = ask(page, until_sql, NULL, 0, &rows);
    if (outcome == DATABASE_DONE && database_count(rows) == 1) {
        page->until_xid = (uint64_t)database_get_int(rows, 0, 0);
    }
    return outcome;
}

static enum database_outcome ask_parts(struct pg_page *page)
{
    struct database_scalar scalars[7];
    const struct database_rows *rows;
    struct buffer shares = {0};
    enum database_outcome outcome;
    if (page->kind == PG_PAGE_KEYS) {
        const struct database_value values[] = {database_int4(&scalars[0], page->share),
                                                database_xid8(&scalars[1], page->until_xid)};
        outcome = ask(page, share_sql, values, 2, &rows);
    } else {
        const int32_t *numbers = (const void *)page->shares.data;
        size_t count = page->shares.length / sizeof(*numbers);
        database_array_begin(&shares, DATABASE_INT4, count);
        for (size_t i = 0; i < count; i++) {
            database_put_int4(&shares, numbers[i]);
        }
        const struct database_value values[] = {database_array(&shares, DATABASE_INT4_ARRAY),
                                                database_xid8(&scalars[1], page->from_xid),
                                                database_xid8(&scalars[2], page->until_xid),
                                                database_xid8(&scalars[3], page->after_xid),
                                                database_int8(&scalars[4], page->after_sequence),
                                                database_uuid(&scalars[5], page->after_id),
                                                database_int8(&scalars[6], PG_PAGE)};
        outcome = shares.failed ? DATABASE_MEMORY : ask(page, follow_sql, values, 7, &rows);
    }
    for (size_t i = 0; outcome == DATABASE_DONE && i < database_count(rows); i++) {
        outcome = keep_row(page, rows, i);
    }
    buffer_done(&shares);
    return outcome;
}

static enum database_outcome ask_histories(struct pg_page *page)
{
    size_t count = page->rows.length / sizeof(struct pg_row);
    const struct database_rows *rows;
    struct buffer ids = {0};
    struct pg_row **sorted = calloc(count + 1, sizeof(struct pg_row *));
    database_array_begin(&ids, DATABASE_UUID, count);
    for (size_t i = 0; i < count && sorted != NULL; i++) {
        sorted[i] = &rows_of(page)[i];
        database_put_uuid(&ids, sorted[i]->id);
    }
    const struct database_value value = database_array(&ids, DATABASE_UUID_ARRAY);
    enum database_outcome outcome =
        sorted == NULL || ids.failed ? DATABASE_MEMORY : ask(page, envelopes_sql, &value, 1, &rows);
    if (outcome == DATABASE_DONE) {
        qsort(sorted, count, sizeof(struct pg_row *), by_id);
        outcome = keep_envelopes(page, sorted, count, rows) ? DATABASE_DONE : DATABASE_MEMORY;
    }
    if (outcome == DATABASE_DONE) {
        outcome = ask(page, fates_sql, &value, 1, &rows);
    }
    if (outcome == DATABASE_DONE) {
        outcome = keep_fates(page, sorted, count, rows) ? DATABASE_DONE : DATABASE_MEMORY;
    }
    if (outcome == DATABASE_DONE) {
        outcome = ask(page, notes_sql, &value, 1, &rows);
    }
    if (outcome == DATABASE_DONE) {
        outcome = keep_notes(page, sorted, count, rows) ? DATABASE_DONE : DATABASE_MEMORY;
    }
    buffer_done(&ids);
    free(sorted);
    return outcome;
}

static enum database_outcome ask_globals(struct pg_page *page)
{
    struct database_scalar node;
    const struct database_rows *rows;
    const struct database_value value = database_int2(&node, (int16_t)page->node);
    enum database_outcome outcome = ask(page, globals_sql, &value, 1, &rows);
    for (size_t i = 0; outcome == DATABASE_DONE && i < database_count(rows); i++) {
        buffer_put_bytes(&page->globals, database_get_slice(rows, i, 0));
        buffer_put_bytes(&page->globals, database_get_slice(rows, i, 1));
        outcome = page->globals.failed ? DATABASE_MEMORY : DATABASE_DONE;
    }
    return outcome;
}

static enum database_outcome read_all(struct pg_page *page)
{
    if (page->kind == PG_PAGE_GLOBALS) {
        return ask_globals(page);
    }
    if (page->kind == PG_PAGE_NOTIFY) {
        return database_run(page->database, "NOTIFY holdfast_mail", PG_CALL_MS);
    }
    enum database_outcome outcome = ask(page, begin_sql, NULL, 0, NULL);
    if (outcome == DATABASE_DONE && page->kind != PG_PAGE_SHARE) {
        outcome = ask_until(page);
        if (outcome == DATABASE_DONE) {
            outcome = ask_parts(page);
        }
    }
    if (outcome == DATABASE_DONE && page->rows.length > 0 && page->kind != PG_PAGE_KEYS) {
        outcome = ask_histories(page);
    }
    if (outcome == DATABASE_DONE) {
        outcome = database_run(page->database, "COMMIT", PG_CALL_MS);
    }
    return outcome;
}

void pg_page_run(void *job)
{
    struct pg_page *page = job;
    page->outcome =
        database_is_connected(page->database) ? DATABASE_DONE : database_connect(page->database);
    if (page->outcome == DATABASE_DONE) {
        page->outcome = read_all(page);
    }
    if (page->outcome != DATABASE_DONE) {
        snprintf(page->reason, sizeof(page->reason), "%s", database_error(page->database));
        database_disconnect(page->database);
    }
}

struct pg_page *pg_page_new(struct pg_spool *pg, enum pg_page_kind kind)
{
    struct pg_page *page = calloc(1, sizeof(*page));
    if (page != NULL) {
        arena_init(&page->arena);
        page->pg = pg;
        page->database = pg->reading;
        page->node = pg->globals_loaded ? 0 : pg->settings.node;
        page->kind = kind;
    }
    return page;
}

void pg_page_free(struct pg_page *page)
{
    if (page != NULL) {
        arena_done(&page->arena);
        buffer_done(&page->rows);
        buffer_done(&page->globals);
        buffer_done(&page->shares);
        free(page);
    }
}
