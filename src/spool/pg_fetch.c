/* SPDX-License-Identifier: Apache-2.0
 *
 * What is about to be delivered comes from the database into the journal, a chunk at a time, so
 * that it is read by ticket like all else. Written, not synced: the database has it.
 */
#include "base/crc32c.h"
#include "spool/pg_internal.h"

#include <assert.h>
#include <stdlib.h>

#define BOTH(COLUMNS, TABLE, CONDITION)                                                            \
    "SELECT " COLUMNS " FROM holdfast." TABLE " WHERE " CONDITION " UNION ALL SELECT " COLUMNS     \
    " FROM holdfast.kept_" TABLE " WHERE " CONDITION
static const char message_sql[] = BOTH("envelope, content", "messages", "id = $1");
static const char chunk_sql[] = BOTH("bytes", "chunks", "id = $1 AND n = $2");

struct waiter {
    struct link link;
    spool_prepared_fn *fn;
    void *context;
};

struct pg_fetch {
    struct link link; /* pg->fetches */
    struct pg_spool *pg;
    struct database *database;
    uint32_t part;
    struct message_id id;
    struct link waiters;
    struct spool_content *content;
    /* The job's. */
    struct arena arena; /* of the envelope */
    struct log_message message;
    bool opened;
    size_t piece; /* the next */
    struct buffer bytes;
    enum error error;
};

/* ---- the reader's ------------------------------------------------------------------------ */

static enum error get(struct pg_fetch *fetch, const char *sql, int32_t n,
                      const struct database_rows **ret_rows)
{
    struct database_scalar scalars[2];
    const struct database_value values[] = {database_uuid(&scalars[0], fetch->id),
                                            database_int4(&scalars[1], n)};
    enum database_outcome outcome = pg_reading_ensure(fetch->database);
    if (outcome == DATABASE_DONE) {
        outcome = database_query(fetch->database, sql, values, n < 0 ? 1 : 2, PG_CALL_MS, ret_rows);
    }
    if (outcome != DATABASE_DONE) {
        database_disconnect(fetch->database);
        return outcome == DATABASE_MEMORY ? ERROR_MEMORY : ERROR_AGAIN;
    }
    return database_count(*ret_rows) == 1 ? ERROR_NONE : ERROR_MISSING;
}

static enum error keep_piece(struct pg_fetch *fetch, struct slice bytes)
{
    const struct log_piece *piece = &fetch->message.pieces[fetch->piece++];
    if (bytes.length != piece->stored || crc32c(0, bytes) != piece->crc) {
        return ERROR_CORRUPT;
    }
    buffer_append(&fetch->bytes, bytes);
    return fetch->bytes.failed ? ERROR_MEMORY : ERROR_NONE;
}

static enum error open_message(struct pg_fetch *fetch)
{
    const struct database_rows *rows;
    enum error error = get(fetch, message_sql, -1, &rows);
    if (error != ERROR_NONE) {
        return error;
    }
    struct slice envelope = arena_copy(&fetch->arena, database_get_slice(rows, 0, 0));
    error = envelope.data == NULL
                ? ERROR_MEMORY
                : pg_envelope_open(envelope, fetch->id, &fetch->arena, &fetch->message);
    fetch->opened = error == ERROR_NONE;
    if (error == ERROR_NONE && fetch->message.piece_count == 1 &&
        fetch->message.pieces[0].kind == LOG_NEAR) {
        error = keep_piece(fetch, database_get_slice(rows, 0, 1));
    }
    return error;
}

static void fetch_run(void *job)
{
    struct pg_fetch *fetch = job;
    const struct database_rows *rows;
    buffer_clear(&fetch->bytes);
    fetch->error = fetch->opened ? ERROR_NONE : open_message(fetch);
    if (fetch->error == ERROR_NONE && fetch->bytes.length == 0 &&
        fetch->piece < fetch->message.piece_count) {
        fetch->error = get(fetch, chunk_sql, (int32_t)fetch->piece, &rows);
        if (fetch->error == ERROR_NONE) {
            fetch->error = keep_piece(fetch, database_get_slice(rows, 0, 0));
        }
    }
}

/* ---- the loop's -------------------------------------------------------------------------- */

static void fetch_free(struct pg_fetch *fetch)
{
    LIST_EACH(&fetch->waiters, at, after)
    {
        list_remove(at);
        free(LIST_ENTRY(at, struct waiter, link));
    }
    list_remove(&fetch->link);
    arena_done(&fetch->arena);
    buffer_done(&fetch->bytes);
    free(fetch);
}

static void fetch_end(struct pg_fetch *fetch, enum error error)
{
    struct link waiters;
    list_init(&waiters);
    LIST_EACH(&fetch->waiters, at, after)
    {
        list_remove(at);
        list_append(&waiters, at);
    }
    spool_content_abort(fetch->content);
    fetch_free(fetch);
    while (!list_is_empty(&waiters)) {
        struct waiter *waiter = LIST_ENTRY(waiters.next, struct waiter, link);
        struct waiter copy = *waiter;
        list_remove(&waiter->link);
        free(waiter);
        copy.fn(copy.context, error);
    }
}

static void written(void *context, enum error error, const struct spool_handle *handles,
                    size_t count)
{
    struct pg_fetch *fetch = context;
    struct pg_spool *pg = fetch->pg;
    if (error == ERROR_NONE) {
        assert(count == 1);
        const struct spool_message *message = &fetch->message.message;
        struct pg_local *local =
            pg_local_new(pg, handles[0].index, fetch->id, message->recipient_count,
                         message->header_length + message->body_length);
        if (local == NULL) {
            error = ERROR_MEMORY; /* it stays in the journal until the next start */
        } else {
            local->stored = true;
            struct stored *stored = pg_part_of(pg, fetch->part, fetch->id);
            if (stored != NULL && stored->offset == PG_NO_JOURNAL) {
                pg_part_link(pg, fetch->part, handles[0].index);
            }
            pg_local_release(pg, handles[0].index);
        }
    }
    fetch_end(fetch, error);
}

static void fetch_on(struct pg_fetch *fetch);

/* The journal has forgotten by now what it was about to. */
static void forgotten(void *context, enum error error, const struct spool_handle *handles,
                      size_t count)
{
    (void)handles;
    (void)count;
    struct pg_fetch *fetch = context;
    if (error != ERROR_NONE) {
        fetch_end(fetch, error);
        return;
    }
    fetch->opened = false;
    fetch->piece = 0;
    arena_reset(&fetch->arena);
    fetch_on(fetch);
}

static void keep(struct pg_fetch *fetch)
{
    struct pg_spool *pg = fetch->pg;
    struct stored *stored = pg_part_of(pg, fetch->part, fetch->id);
    if (stored == NULL || stored->offset != PG_NO_JOURNAL ||
        pg_part_link_known(pg, fetch->part, fetch->id)) {
        fetch_end(fetch, stored == NULL ? ERROR_MISSING : ERROR_NONE);
        return;
    }
    spool_batch_begin(pg->journal);
    enum error error =
        spool_batch_message(pg->journal, &fetch->message.message, fetch->content, SLICE_EMPTY);
    fetch->content = NULL;
    if (error != ERROR_NONE) {
        spool_batch_cancel(pg->journal);
        if (error != ERROR_EXISTS) {
            fetch_end(fetch, error);
            return;
        }
        /* It was here, was wanted no more, and its end is on its way. */
        spool_batch_begin(pg->journal);
        spool_batch_submit(pg->journal, SPOOL_WRITTEN, forgotten, fetch);
        return;
    }
    spool_batch_new_note(pg->journal, SPOOL_ALL_DELIVERIES, PG_NOTE_STORED, SLICE_EMPTY);
    spool_batch_submit(pg->journal, SPOOL_WRITTEN, written, fetch);
}

static void fetch_done(void *job);

static void fetch_on(struct pg_fetch *fetch)
{
    if (worker_submit(fetch->pg->reader, fetch_run, fetch_done, fetch) != ERROR_NONE) {
        fetch_end(fetch, ERROR_MEMORY);
    }
}

static void fetch_done(void *job)
{
    struct pg_fetch *fetch = job;
    struct pg_spool *pg = fetch->pg;
    enum error error = pg->ending ? ERROR_CLOSED : fetch->error;
    if (error == ERROR_NONE && fetch->content == NULL) {
        const struct spool_message *message = &fetch->message.message;
        fetch->content =
            spool_content_new(pg->journal, message->header_length + message->body_length);
        error = fetch->content == NULL ? ERROR_MEMORY : ERROR_NONE;
    }
    if (error == ERROR_NONE) {
        error = spool_content_append(fetch->content, buffer_slice(&fetch->bytes));
    }
    if (error != ERROR_NONE) {
        fetch_end(fetch, error);
    } else if (fetch->piece < fetch->message.piece_count) {
        fetch_on(fetch);
    } else {
        keep(fetch);
    }
}

static struct pg_fetch *fetch_of(struct pg_spool *pg, uint32_t part)
{
    LIST_EACH(&pg->fetches, at, after)
    {
        struct pg_fetch *fetch = LIST_ENTRY(at, struct pg_fetch, link);
        if (fetch->part == part) {
            return fetch;
        }
    }
    return NULL;
}

bool pg_prepare(struct spool *spool, struct spool_handle handle, spool_prepared_fn *fn,
                void *context)
{
    struct pg_spool *pg = pg_of(spool);
    struct stored *stored = table_at(&pg->table, handle.index);
    if (stored->offset != PG_NO_JOURNAL || pg_part_link_known(pg, handle.index, stored->id)) {
        return true;
    }
    struct pg_fetch *fetch = fetch_of(pg, handle.index);
    struct waiter *waiter = calloc(1, sizeof(*waiter));
    bool fresh = fetch == NULL;
    if (fresh) {
        fetch = calloc(1, sizeof(*fetch));
    }
    if (fetch == NULL || waiter == NULL) {
        abort(); /* nobody could be told */
    }
    *waiter = (struct waiter){.fn = fn, .context = context};
    if (fresh) {
        fetch->pg = pg;
        fetch->database = pg->reading;
        fetch->part = handle.index;
        fetch->id = stored->id;
        arena_init(&fetch->arena);
        list_init(&fetch->waiters);
        list_append(&pg->fetches, &fetch->link);
    }
    list_append(&fetch->waiters, &waiter->link);
    if (fresh) {
        fetch_on(fetch);
    }
    return false;
}
