/* SPDX-License-Identifier: Apache-2.0
 *
 * Finding mail that was handed over (spool/copies.h) in the tables, where all mail of the cluster
 * is, whoever handed it over. It stays there while the leader keeps ranges for it
 * (pg_partition_settings.keep_ms).
 *
 * A search is pages, each a job of the reader, so that what it has to read for deliveries comes in
 * between: all fates, in the order of their key; the envelopes of all messages, for what they are
 * copies of; then those of the messages that the fates are of. A page that fails ends the search. A
 * message that moves meanwhile (to kept_*) is found where it is then, for kept_* is read last; what
 * was sent again while the search runs may be missed, as on one machine.
 */
#include "spool/copies_pick.h"
#include "spool/pg_internal.h"

#include <stdlib.h>

enum { ROWS = 2000, WANTED = 500 };

/* Of the index alone, so that a page ends soon however few are of the window. */
#define FATES(TABLE)                                                                               \
    "SELECT id, delivery, fate, when_ms, server FROM holdfast." TABLE                              \
    " WHERE (id, delivery) > ($1, $2) ORDER BY id, delivery LIMIT $3"
#define ENVELOPES(TABLE)                                                                           \
    "SELECT id, envelope FROM holdfast." TABLE " WHERE id > $1 ORDER BY id LIMIT $2"
#define WANTED_OF(PREFIX)                                                                          \
    "SELECT m.id, m.envelope, p.seq FROM holdfast." PREFIX "messages m,"                           \
    " (SELECT id, min(seq) AS seq FROM holdfast." PREFIX "parts WHERE id = ANY($1) GROUP BY id) p" \
    " WHERE m.id = ANY($1) AND p.id = m.id"
static const char fates_sql[] = FATES("fates");
static const char kept_fates_sql[] = FATES("kept_fates");
static const char envelopes_sql[] = ENVELOPES("messages");
static const char kept_envelopes_sql[] = ENVELOPES("kept_messages");
static const char wanted_sql[] = WANTED_OF("") " UNION ALL " WANTED_OF("kept_");

enum pass { PASS_FATES, PASS_KEPT_FATES, PASS_SENT, PASS_KEPT_SENT, PASS_MESSAGES, PASS_OVER };

struct pg_copies {
    struct spool_copies copies;
    struct pg_spool *pg;
    struct database *database; /* the reader's */
    struct copies_pick pick;
    enum pass pass;
    struct message_id last; /* of the page before; null: there was none */
    uint32_t last_delivery;
    size_t wanted;      /* for copies_pick_wanted() */
    struct arena arena; /* of one envelope */
    enum error error;
    /* The loop's, also while a page is under way: */
    uint64_t pages;
    bool over;
    bool under_way; /* with the reader */
    bool freed;
};

static struct pg_copies *search_of(const struct spool_copies *copies)
{
    return (struct pg_copies *)(uintptr_t)copies;
}

/* ---- a page, on the reader's thread ------------------------------------------------------ */

static enum error ask(struct pg_copies *search, const char *sql,
                      const struct database_value *values, int count,
                      const struct database_rows **ret_rows)
{
    enum database_outcome outcome = pg_reading_ensure(search->database);
    if (outcome == DATABASE_DONE) {
        outcome = database_query(search->database, sql, values, count, PG_CALL_MS, ret_rows);
    }
    if (outcome != DATABASE_DONE) {
        database_disconnect(search->database);
    }
    return outcome == DATABASE_DONE     ? ERROR_NONE
           : outcome == DATABASE_MEMORY ? ERROR_MEMORY
                                        : ERROR_AGAIN;
}

/* The next pass begins; of the first four when a page was not full. */
static void pass_on(struct pg_copies *search)
{
    search->last = (struct message_id){0};
    search->last_delivery = 0;
    search->pass++;
    if (search->pass == PASS_SENT && search->pick.query.again) {
        search->pass = PASS_MESSAGES; /* whatever was sent before */
    }
    if (search->pass == PASS_MESSAGES) {
        copies_pick_between(&search->pick);
    } else if (search->pass == PASS_OVER) {
        copies_pick_after(&search->pick);
    }
}

static enum error fates_page(struct pg_copies *search)
{
    struct database_scalar scalars[3];
    const struct database_rows *rows;
    const struct database_value values[] = {
        database_uuid(&scalars[0], search->last),
        database_int4(&scalars[1], id_is_null(search->last) ? -1 : (int32_t)search->last_delivery),
        database_int8(&scalars[2], ROWS)};
    enum error error =
        ask(search, search->pass == PASS_FATES ? fates_sql : kept_fates_sql, values, 3, &rows);
    size_t count = error == ERROR_NONE ? database_count(rows) : 0;
    for (size_t i = 0; error == ERROR_NONE && i < count; i++) {
        search->last = database_get_uuid(rows, i, 0);
        search->last_delivery = (uint32_t)database_get_int(rows, i, 1);
        error = copies_pick_fate(&search->pick, search->last, search->last_delivery,
                                 (enum spool_fate)database_get_int(rows, i, 2),
                                 database_get_int(rows, i, 3), database_get_slice(rows, i, 4));
    }
    if (error == ERROR_NONE && count < ROWS) {
        pass_on(search);
    }
    return error;
}

/* Messages that cannot be read are counted once: in the last pass, where they matter. */
static enum error open(struct pg_copies *search, const struct database_rows *rows, size_t i,
                       struct log_message *ret_message)
{
    arena_reset(&search->arena);
    struct slice bytes = arena_copy(&search->arena, database_get_slice(rows, i, 1));
    return bytes.data == NULL ? ERROR_MEMORY
                              : pg_envelope_open(bytes, database_get_uuid(rows, i, 0),
                                                 &search->arena, ret_message);
}

static enum error sent_page(struct pg_copies *search)
{
    struct database_scalar scalars[2];
    const struct database_rows *rows;
    const struct database_value values[] = {database_uuid(&scalars[0], search->last),
                                            database_int8(&scalars[1], ROWS)};
    enum error error = ask(search, search->pass == PASS_SENT ? envelopes_sql : kept_envelopes_sql,
                           values, 2, &rows);
    size_t count = error == ERROR_NONE ? database_count(rows) : 0;
    for (size_t i = 0; error == ERROR_NONE && i < count; i++) {
        struct log_message message;
        search->last = database_get_uuid(rows, i, 0);
        error = open(search, rows, i, &message);
        if (error == ERROR_NONE) {
            error = copies_pick_sent(&search->pick, &message.message);
        }
        error = error == ERROR_CORRUPT ? ERROR_NONE : error;
    }
    if (error == ERROR_NONE && count < ROWS) {
        pass_on(search);
    }
    return error;
}

static enum error messages_page(struct pg_copies *search)
{
    struct message_id ids[WANTED];
    const struct database_rows *rows;
    size_t wanted = copies_pick_wanted(&search->pick, &search->wanted, ids, WANTED);
    struct buffer array = {0};
    if (wanted == 0) {
        pass_on(search);
        return ERROR_NONE;
    }
    database_array_begin(&array, DATABASE_UUID, wanted);
    for (size_t i = 0; i < wanted; i++) {
        database_put_uuid(&array, ids[i]);
    }
    const struct database_value value = database_array(&array, DATABASE_UUID_ARRAY);
    enum error error = array.failed ? ERROR_MEMORY : ask(search, wanted_sql, &value, 1, &rows);
    for (size_t i = 0; error == ERROR_NONE && i < database_count(rows); i++) {
        struct log_message message;
        error = open(search, rows, i, &message);
        if (error == ERROR_NONE) {
            const struct log_ticket place = {.id = message.message.id};
            message.message.sequence = (uint64_t)database_get_int(rows, i, 2);
            error = copies_pick_message(&search->pick, &place, &message.message);
        } else if (error == ERROR_CORRUPT) {
            search->pick.counts.unreadable++;
            error = ERROR_NONE;
        }
    }
    buffer_done(&array);
    return error;
}

static void page_run(void *context)
{
    struct pg_copies *search = context;
    search->error = search->pass <= PASS_KEPT_FATES  ? fates_page(search)
                    : search->pass <= PASS_KEPT_SENT ? sent_page(search)
                                                     : messages_page(search);
}

/* ---- from one to the next ---------------------------------------------------------------- */

static void search_free(struct pg_copies *search)
{
    copies_pick_done(&search->pick);
    arena_done(&search->arena);
    free(search);
}

static void page_done(void *context)
{
    struct pg_copies *search = context;
    search->under_way = false;
    search->pages++;
    if (search->freed) {
        search_free(search);
        return;
    }
    enum error error = search->error;
    search->over = error != ERROR_NONE || search->pass == PASS_OVER;
    if (!search->over) {
        /* From here on it is the job's, if there is one. */
        error = worker_submit(search->pg->reader, page_run, page_done, search);
        search->under_way = error == ERROR_NONE;
    }
    if (!search->under_way) {
        search->pick.query.done(search->pick.query.context, error);
    }
}

enum error pg_copies_find(struct spool *spool, const struct spool_copies_query *query,
                          struct spool_copies **ret_copies)
{
    struct pg_spool *pg = pg_of(spool);
    struct pg_copies *search = calloc(1, sizeof(*search));
    enum error error = search == NULL ? ERROR_MEMORY
                       : !pg_has_joined(pg)
                           ? ERROR_AGAIN
                           : copies_pick_init(&search->pick, query, pg->keep_ms, pg->now_ms);
    if (error != ERROR_NONE) {
        free(search);
        copies_give_back(query);
        return error;
    }
    search->copies.spool = spool;
    search->pg = pg;
    search->database = pg->reading;
    arena_init(&search->arena);
    error = worker_submit(pg->reader, page_run, page_done, search);
    if (error != ERROR_NONE) {
        search_free(search);
        return error;
    }
    search->under_way = true;
    *ret_copies = &search->copies;
    return ERROR_NONE;
}

void pg_copies_free(struct spool_copies *copies)
{
    struct pg_copies *search = search_of(copies);
    if (search->under_way) {
        search->freed = true; /* with the job's end */
    } else {
        search_free(search);
    }
}

void pg_keep_copies(struct spool *spool, int64_t keep_ms, int64_t now_ms)
{
    pg_of(spool)->keep_ms = keep_ms;
    pg_of(spool)->now_ms = now_ms;
}

/* ---- what was found ---------------------------------------------------------------------- */

/* How many pages there are is not known before the last. */
void pg_copies_progress(const struct spool_copies *copies, uint64_t *ret_done, uint64_t *ret_all)
{
    const struct pg_copies *search = search_of(copies);
    *ret_done = search->pages;
    *ret_all = search->pages + !search->over;
}

void pg_copies_counts(const struct spool_copies *copies, struct spool_copies_counts *ret_counts)
{
    *ret_counts = search_of(copies)->pick.counts;
}

void pg_copies_get(struct spool_copies *copies, size_t i, struct spool_copy *ret_copy)
{
    copies_pick_get(&search_of(copies)->pick, i, ret_copy);
}

enum error pg_copies_read_envelope(struct spool_copies *copies, size_t i, struct arena *arena,
                                   struct spool_message *ret_message)
{
    const struct pg_copies *search = search_of(copies);
    struct log_message message;
    enum error error =
        pg_read_stored(search->pg, copies_pick_place(&search->pick, i)->id, arena, &message);
    if (error == ERROR_NONE) {
        *ret_message = message.message;
    }
    return error;
}

enum error pg_copies_read_content(struct spool_copies *copies, size_t i, uint64_t offset,
                                  void *ret_bytes, size_t size, size_t *ret_length)
{
    const struct pg_copies *search = search_of(copies);
    *ret_length = 0;
    return pg_read_stored_content(search->pg, copies_pick_place(&search->pick, i)->id, offset,
                                  ret_bytes, size, ret_length);
}
