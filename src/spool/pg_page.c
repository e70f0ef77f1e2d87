/* SPDX-License-Identifier: Apache-2.0
 *
 * The reader: a page of parts with their envelopes, fates and notes, in one transaction, so that
 * they belong together. Runs on its worker's thread; of the loop's things it has the page alone.
 */
#include "spool/pg_page.h"

#include <stdio.h>
#include <stdlib.h>

static const char begin_sql[] = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/* Before there is a snapshot: what is moved after it stays where it was to the end, for who retires
 * a range detaches its parts first, and waits for us there (pg_retire.c). */
static const char stay_sql[] = "LOCK TABLE ONLY holdfast.parts IN ACCESS SHARE MODE";
static const char commit_sql[] = "COMMIT";
static const char where_sql[] =
    "SELECT pg_snapshot_xmin(pg_current_snapshot()), " PG_SERVER ", pg_backend_pid()";
#define PARTS(TABLE, CONDITION)                                                                    \
    "SELECT p.share, p.seq, p.xid, p.id, p.deliveries, p.count FROM holdfast." TABLE               \
    " p WHERE " CONDITION
/* The next parts, whether they have all their fates or not: so a page has its bound. */
#define NEXT_WHERE "p.share = w.share AND (p.xid, p.seq, p.id) > ($2, $3, $4)"
#define NEXT(TABLE) "(" PARTS(TABLE, NEXT_WHERE) " ORDER BY p.xid, p.seq, p.id LIMIT $5)"
#define NEXT_OF_BOTH NEXT("parts") " UNION ALL " NEXT("kept_parts") " ORDER BY 3, 2, 4 LIMIT $5"
static const char share_sql[] =
    "SELECT n.* FROM unnest($1::int4[]) AS w (share) CROSS JOIN LATERAL (" NEXT_OF_BOTH
    ") n ORDER BY n.xid, n.seq, n.id";
/* By an index that has nothing else: that of shares would be searched for each of them, in each
 * partition. */
#define FOLLOWED "coalesce(p.xid, '0'::xid8)"
/* Many shares at once: where their parts lie in the tables each page is read once, not once for
 * each of them. */
#define TOGETHER(TABLE)                                                                            \
    "(" PARTS(TABLE, "(" FOLLOWED ", p.seq, p.id) > ($1, $2, $3)") " ORDER BY " FOLLOWED           \
                                                                   ", p.seq, p.id LIMIT $4)"
static const char together_sql[] =
    TOGETHER("parts") " UNION ALL " TOGETHER("kept_parts") " ORDER BY 3, 2, 4 LIMIT $4";
#define FOLLOW(TABLE)                                                                              \
    PARTS(TABLE, "p.share + 0 = ANY($1) AND " FOLLOWED " >= $2 AND " FOLLOWED " < $3"              \
                 " AND (p.xid, p.seq, p.id) > ($4, $5, $6)")
static const char follow_sql[] =
    FOLLOW("parts") " UNION ALL " FOLLOW("kept_parts") " ORDER BY 3, 2, 4 LIMIT $7";
static const char late_sql[] = "SELECT share, id, delivery, fate, xid FROM holdfast.late_fates"
                               " WHERE share + 0 = ANY($1) AND xid >= $2 AND xid < $3"
                               " AND (xid, id, delivery, share) > ($4, $5, $6, $7)"
                               " ORDER BY xid, id, delivery, share LIMIT $8";
/* Of ids that are near each other: few partitions are looked into, but for all of them. */
#define NEAR_OF(COLUMNS, TABLE, CONDITION)                                                         \
    "SELECT " COLUMNS " FROM holdfast." TABLE " WHERE id = ANY($1)" CONDITION
#define NEAR(COLUMNS, TABLE)                                                                       \
    NEAR_OF(COLUMNS, TABLE, " AND id BETWEEN $2 AND $3")                                           \
    " UNION ALL " NEAR_OF(COLUMNS, "kept_" TABLE, "")
/* Of others: id by id (OFFSET 0 keeps the subquery as it is), so that each looks into one. */
#define FAR(COLUMNS, TABLE)                                                                        \
    "SELECT m.* FROM unnest($1::uuid[]) AS w (id) CROSS JOIN LATERAL (SELECT " COLUMNS             \
    " FROM holdfast." TABLE " t WHERE t.id = w.id UNION ALL SELECT " COLUMNS                       \
    " FROM holdfast.kept_" TABLE " k WHERE k.id = w.id OFFSET 0) m"
#define FATES "id, delivery, fate", "fates"
#define NOTES "id, delivery, share, kind, payload, seq", "notes"
#define ENVELOPES "id, envelope", "messages"
#define EXPAND(MACRO, ...) MACRO(__VA_ARGS__)
enum history { HISTORY_FATES, HISTORY_NOTES, HISTORY_ENVELOPES };
static const char *const near_sql[] = {EXPAND(NEAR, FATES), EXPAND(NEAR, NOTES) " ORDER BY 6",
                                       EXPAND(NEAR, ENVELOPES)};
static const char *const far_sql[] = {EXPAND(FAR, FATES), EXPAND(FAR, NOTES) " ORDER BY 6",
                                      EXPAND(FAR, ENVELOPES)};
/* A plan for each page would cost more than the page; and one that is kept was made when a
 * partition was empty, and would go on reading it as a whole. */
static const char session_sql[] =
    "SELECT set_config(name, CASE name WHEN 'enable_seqscan' THEN 'off'"
    " ELSE 'force_generic_plan' END, false) FROM pg_settings"
    " WHERE name IN ('enable_seqscan', 'plan_cache_mode')";
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
                         .id = database_get_uuid(rows, i, 3),
                         .count = database_get_int(rows, i, 5)};
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
    return id_compare(left->id, right->id);
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
                sorted[r]->fated++;
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

static void queue(struct pg_page *page, const char *sql, const struct database_value *values,
                  int count)
{
    if (page->outcome == DATABASE_DONE) {
        page->outcome = database_queue(page->database, sql, values, count);
    }
}

/* What has been queued is one round trip; its answers are good until the next call. */
static bool flush(struct pg_page *page)
{
    if (page->outcome == DATABASE_DONE) {
        page->outcome = database_flush(page->database, PG_CALL_MS, NULL);
    }
    return page->outcome == DATABASE_DONE;
}

static void keep_where(struct pg_page *page, const struct database_rows *rows)
{
    if (database_count(rows) == 1) {
        page->xmin = (uint64_t)database_get_int(rows, 0, 0);
        page->server = database_get_int(rows, 0, 1);
        page->session = database_get_int(rows, 0, 2);
        if (page->until_xid == 0) {
            page->until_xid = page->xmin; /* the pages of one look have one end */
        }
    }
}

static void put_shares(struct pg_page *page, struct buffer *out)
{
    const int32_t *numbers = (const void *)page->shares.data;
    size_t count = page->shares.length / sizeof(*numbers);
    database_array_begin(out, DATABASE_INT4, count);
    for (size_t i = 0; i < count; i++) {
        database_put_int4(out, numbers[i]);
    }
    if (out->failed) {
        page->outcome = DATABASE_MEMORY;
    }
}

static struct pg_place place_of(const struct database_rows *rows, size_t i)
{
    return (struct pg_place){.xid = (uint64_t)database_get_int(rows, i, 2),
                             .sequence = database_get_int(rows, i, 1),
                             .id = database_get_uuid(rows, i, 3)};
}

/* ---- of shares that are taken ------------------------------------------------------------ */

static void queue_share(struct pg_page *page)
{
    struct database_scalar scalars[4];
    struct buffer shares = {0};
    const struct pg_head *heads = (const void *)page->heads.data;
    put_shares(page, &shares);
    const struct database_value values[] = {database_array(&shares, DATABASE_INT4_ARRAY),
                                            database_xid8(&scalars[0], heads[0].after.xid),
                                            database_int8(&scalars[1], heads[0].after.sequence),
                                            database_uuid(&scalars[2], heads[0].after.id),
                                            database_int8(&scalars[3], page->limit)};
    if (page->together) {
        queue(page, together_sql, values + 1, 4);
    } else {
        queue(page, share_sql, values, 5);
    }
    buffer_done(&shares);
}

static void keep_share(struct pg_page *page, const struct database_rows *rows)
{
    struct pg_head *heads = (void *)page->heads.data;
    size_t count = page->heads.length / sizeof(*heads);
    for (size_t i = 0; i < database_count(rows) && page->outcome == DATABASE_DONE; i++) {
        int64_t number = database_get_int(rows, i, 0);
        bool wanted = false;
        for (size_t h = 0; h < count && !wanted; h++) {
            wanted = heads[h].number == number;
            if (wanted && !page->together) {
                heads[h].after = place_of(rows, i);
                heads[h].looked_at++;
            }
        }
        if (wanted) {
            page->outcome = keep_row(page, rows, i);
        }
    }
    for (size_t h = 0; h < count && page->together; h++) {
        heads[h].looked_at = database_count(rows);
        if (heads[h].looked_at > 0) {
            heads[h].after = place_of(rows, heads[h].looked_at - 1);
        }
    }
}

/* ---- of those that are followed ---------------------------------------------------------- */

static void queue_new(struct pg_page *page)
{
    struct database_scalar scalars[6];
    struct buffer shares = {0};
    put_shares(page, &shares);
    const struct database_value values[] = {database_array(&shares, DATABASE_INT4_ARRAY),
                                            database_xid8(&scalars[0], page->from_xid),
                                            database_xid8(&scalars[1], page->until_xid),
                                            database_xid8(&scalars[2], page->after.xid),
                                            database_int8(&scalars[3], page->after.sequence),
                                            database_uuid(&scalars[4], page->after.id),
                                            database_int8(&scalars[5], page->limit)};
    queue(page, follow_sql, values, 7);
    buffer_done(&shares);
}

static void queue_lates(struct pg_page *page)
{
    struct database_scalar scalars[7];
    struct buffer shares = {0};
    const struct pg_late *after = &page->after_late;
    uint64_t from_xid = page->lates_anew ? 0 : page->from_xid;
    put_shares(page, &shares);
    const struct database_value values[] = {
        database_array(&shares, DATABASE_INT4_ARRAY),
        database_xid8(&scalars[0], after->xid > from_xid ? after->xid : from_xid),
        database_xid8(&scalars[1], page->until_xid),
        database_xid8(&scalars[2], after->xid),
        database_uuid(&scalars[3], after->id),
        database_int4(&scalars[4], (int32_t)after->delivery),
        database_int4(&scalars[5], after->share),
        database_int8(&scalars[6], page->limit)};
    queue(page, late_sql, values, 8);
    buffer_done(&shares);
}

static void keep_new(struct pg_page *page, const struct database_rows *rows)
{
    page->looked_at = database_count(rows);
    for (size_t i = 0; i < page->looked_at && page->outcome == DATABASE_DONE; i++) {
        page->after = place_of(rows, i);
        page->outcome = keep_row(page, rows, i);
    }
}

static void keep_lates(struct pg_page *page, const struct database_rows *rows)
{
    for (size_t i = 0; i < database_count(rows); i++) {
        const struct pg_late late = {.share = (int32_t)database_get_int(rows, i, 0),
                                     .id = database_get_uuid(rows, i, 1),
                                     .delivery = (uint32_t)database_get_int(rows, i, 2),
                                     .fate = (uint8_t)database_get_int(rows, i, 3),
                                     .xid = (uint64_t)database_get_int(rows, i, 4)};
        buffer_append(&page->lates, slice_make(&late, sizeof(late)));
        page->after_late = late;
    }
    if (page->lates.failed) {
        page->outcome = DATABASE_MEMORY;
    }
}

/* ---- a page ------------------------------------------------------------------------------ */

/* Each id once, though two parts of a message may be here; counts them. */
static size_t put_ids(struct pg_row *const *sorted, size_t count, struct buffer *out)
{
    size_t distinct = 0;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && id_equal(sorted[i - 1]->id, sorted[i]->id)) {
            continue;
        }
        if (out != NULL) {
            database_put_uuid(out, sorted[i]->id);
        }
        distinct++;
    }
    return distinct;
}

/* What is asked of all rows at once. */
struct asking {
    struct pg_row **sorted; /* by their ids */
    size_t count;
    struct buffer ids;
    struct database_scalar scalars[2];
    struct database_value values[3];
    bool is_near;
};

static void asking_begin(struct asking *asking, struct pg_page *page)
{
    *asking = (struct asking){.count = page->rows.length / sizeof(struct pg_row)};
    asking->sorted = calloc(asking->count, sizeof(struct pg_row *));
    if (asking->sorted == NULL) {
        page->outcome = DATABASE_MEMORY;
        return;
    }
    for (size_t i = 0; i < asking->count; i++) {
        asking->sorted[i] = &rows_of(page)[i];
    }
    qsort(asking->sorted, asking->count, sizeof(struct pg_row *), by_id);
    size_t distinct = put_ids(asking->sorted, asking->count, NULL);
    database_array_begin(&asking->ids, DATABASE_UUID, distinct);
    (void)put_ids(asking->sorted, asking->count, &asking->ids);
    if (asking->ids.failed) {
        page->outcome = DATABASE_MEMORY;
    }
    struct message_id first = asking->sorted[0]->id, last = asking->sorted[asking->count - 1]->id;
    asking->is_near = id_time_ms(last) - id_time_ms(first) <= PG_NEAR_MS;
    asking->values[0] = database_array(&asking->ids, DATABASE_UUID_ARRAY);
    asking->values[1] = database_uuid(&asking->scalars[0], first);
    asking->values[2] = database_uuid(&asking->scalars[1], last);
}

static void ask(struct pg_page *page, const struct asking *asking, enum history what)
{
    queue(page, asking->is_near ? near_sql[what] : far_sql[what], asking->values,
          asking->is_near ? 3 : 1);
}

static void asking_end(struct asking *asking, struct pg_page *page, bool kept)
{
    if (page->outcome == DATABASE_DONE && !kept) {
        page->outcome = DATABASE_MEMORY;
    }
    buffer_done(&asking->ids);
    free(asking->sorted);
}

/* Nothing more is asked of what has all its fates. */
static void drop_finished(struct pg_page *page)
{
    struct asking asking;
    bool kept = true;
    asking_begin(&asking, page);
    ask(page, &asking, HISTORY_FATES);
    if (flush(page)) {
        kept = keep_fates(page, asking.sorted, asking.count, database_result(page->database, 0));
    }
    asking_end(&asking, page, kept);
    struct pg_row *rows = rows_of(page);
    size_t count = page->rows.length / sizeof(*rows), left = 0;
    for (size_t i = 0; i < count; i++) {
        if (rows[i].fated < rows[i].count) {
            rows[left++] = rows[i];
        }
    }
    page->rows.length = left * sizeof(*rows);
}

/* Of its rows; and ends the transaction. */
static void ask_histories(struct pg_page *page, bool fates_too)
{
    struct asking asking;
    bool kept = true;
    asking_begin(&asking, page);
    ask(page, &asking, HISTORY_ENVELOPES);
    ask(page, &asking, HISTORY_NOTES);
    if (fates_too) {
        ask(page, &asking, HISTORY_FATES);
    }
    queue(page, commit_sql, NULL, 0);
    if (flush(page)) {
        kept =
            keep_envelopes(page, asking.sorted, asking.count, database_result(page->database, 0)) &&
            keep_notes(page, asking.sorted, asking.count, database_result(page->database, 1)) &&
            (!fates_too ||
             keep_fates(page, asking.sorted, asking.count, database_result(page->database, 2)));
    }
    asking_end(&asking, page, kept);
}

static void ask_keys(struct pg_page *page)
{
    queue(page, where_sql, NULL, 0);
    if (page->kind != PG_PAGE_FOLLOW) {
        queue_share(page);
    }
    if (!flush(page)) {
        return;
    }
    keep_where(page, database_result(page->database, 2));
    if (page->kind != PG_PAGE_FOLLOW) {
        keep_share(page, database_result(page->database, 3));
        return;
    }
    queue_new(page);
    queue_lates(page);
    if (flush(page)) {
        keep_new(page, database_result(page->database, 0));
        keep_lates(page, database_result(page->database, 1));
    }
}

static void ask_mail(struct pg_page *page)
{
    bool follows = page->kind == PG_PAGE_FOLLOW; /* what is new has no fates, as a rule */
    queue(page, begin_sql, NULL, 0);
    queue(page, stay_sql, NULL, 0);
    if (page->kind == PG_PAGE_ROWS) {
        (void)flush(page);
    } else {
        ask_keys(page);
    }
    if (page->rows.length > 0 && page->kind != PG_PAGE_KEYS && !follows) {
        drop_finished(page);
    }
    if (page->rows.length > 0 && page->kind != PG_PAGE_KEYS) {
        ask_histories(page, follows);
    } else {
        queue(page, commit_sql, NULL, 0);
        (void)flush(page);
    }
}

static void ask_globals(struct pg_page *page)
{
    struct database_scalar node;
    const struct database_value value = database_int2(&node, (int16_t)page->node);
    queue(page, globals_sql, &value, 1);
    if (!flush(page)) {
        return;
    }
    const struct database_rows *rows = database_result(page->database, 0);
    for (size_t i = 0; i < database_count(rows); i++) {
        buffer_put_bytes(&page->globals, database_get_slice(rows, i, 0));
        buffer_put_bytes(&page->globals, database_get_slice(rows, i, 1));
    }
    if (page->globals.failed) {
        page->outcome = DATABASE_MEMORY;
    }
}

void pg_page_run(void *job)
{
    struct pg_page *page = job;
    page->outcome = pg_reading_ensure(page->database);
    if (page->outcome == DATABASE_DONE) {
        if (page->kind == PG_PAGE_GLOBALS) {
            ask_globals(page);
        } else if (page->kind == PG_PAGE_NOTIFY) {
            page->outcome = database_run(page->database, "NOTIFY holdfast_mail", PG_CALL_MS);
        } else {
            ask_mail(page);
        }
    }
    if (page->outcome != DATABASE_DONE) {
        snprintf(page->reason, sizeof(page->reason), "%s", database_error(page->database));
        database_disconnect(page->database);
    }
}

enum database_outcome pg_reading_ensure(struct database *database)
{
    return database_ensure(database, session_sql, PG_CALL_MS);
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
        buffer_done(&page->lates);
        buffer_done(&page->heads);
        buffer_done(&page->globals);
        buffer_done(&page->shares);
        free(page);
    }
}
