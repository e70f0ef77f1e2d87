/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading at once, on the loop: from the journal where it has the message, else from the database,
 * on a connection that waits for no longer than PG_AT_ONCE_MS and after one silence for nothing
 * until the database answers again.
 */
#include "base/crc32c.h"
#include "spool/pg_internal.h"
#include "sys/clock.h"

#include <stdlib.h>

enum { SILENCE_MS = 5000 }; /* of an idle node, to which the database has no other way to answer */

#define BOTH(COLUMNS, TABLE, CONDITION)                                                            \
    "SELECT " COLUMNS " FROM holdfast." TABLE " WHERE " CONDITION " UNION ALL SELECT " COLUMNS     \
    " FROM holdfast.kept_" TABLE " WHERE " CONDITION
static const char envelopes_sql[] = BOTH("id, envelope", "messages", "id = ANY($1)");
static const char content_sql[] = BOTH("content", "messages", "id = $1");
static const char fates_sql[] = BOTH("delivery, fate", "fates", "id = $1");
static const char chunk_sql[] = BOTH("bytes", "chunks", "id = $1 AND n = $2");

static enum database_outcome query(struct pg_spool *pg, const char *sql,
                                   const struct database_value *values, int count, int64_t until_ms,
                                   const struct database_rows **ret_rows)
{
    int64_t left_ms = until_ms - clock_steady_ms();
    return left_ms <= 0 ? DATABASE_LOST
                        : database_query(pg->asking, sql, values, count, (int)left_ms, ret_rows);
}

/* All of it, connecting too, takes PG_AT_ONCE_MS at most. */
static enum error ask(struct pg_spool *pg, const char *sql, const struct database_value *values,
                      int count, const struct database_rows **ret_rows)
{
    if (pg->ask_failed && clock_steady_ms() - pg->ask_failed_ms < SILENCE_MS) {
        return ERROR_AGAIN;
    }
    int64_t until_ms = clock_steady_ms() + PG_AT_ONCE_MS;
    bool idle = database_is_connected(pg->asking);
    enum database_outcome outcome = idle ? DATABASE_DONE : database_connect(pg->asking);
    if (outcome == DATABASE_DONE) {
        outcome = query(pg, sql, values, count, until_ms, ret_rows);
    }
    if (idle && outcome == DATABASE_LOST && until_ms - clock_steady_ms() > PG_CONNECT_AT_ONCE_MS) {
        /* The server may have closed it long ago. */
        outcome = database_connect(pg->asking);
        if (outcome == DATABASE_DONE) {
            outcome = query(pg, sql, values, count, until_ms, ret_rows);
        }
    }
    pg->ask_failed = outcome != DATABASE_DONE;
    if (pg->ask_failed) {
        pg->ask_failed_ms = clock_steady_ms();
        database_disconnect(pg->asking);
    }
    return outcome == DATABASE_DONE ? ERROR_NONE : ERROR_AGAIN;
}

/* ---- envelopes --------------------------------------------------------------------------- */

void pg_ahead_free(struct pg_spool *pg)
{
    for (size_t i = 0; i < pg->ahead_count; i++) {
        free((void *)(uintptr_t)pg->ahead[i].bytes.data);
    }
    free(pg->ahead);
    pg->ahead = NULL;
    pg->ahead_count = 0;
}

static const struct pg_envelope *find_ahead(const struct pg_spool *pg, struct message_id id)
{
    for (size_t i = 0; i < pg->ahead_count; i++) {
        if (id_equal(pg->ahead[i].id, id)) {
            return &pg->ahead[i];
        }
    }
    return NULL;
}

static bool is_wanted(const struct pg_spool *pg, uint32_t part)
{
    const struct stored *stored = table_at(&pg->table, part);
    return !id_is_null(stored->id) && stored->offset == PG_NO_JOURNAL &&
           (stored->flags & (STORED_PENDING | STORED_FINISHED)) == 0;
}

/* Who reads one reads those behind it, too: parts stand in the table as they were loaded. */
static size_t put_wanted(const struct pg_spool *pg, struct message_id id, uint32_t part,
                         struct buffer *ret_ids)
{
    uint32_t ahead = pg->ahead_next == part ? PG_AHEAD : 1; /* it goes in order */
    struct buffer ids = {0};
    size_t count = 1;
    database_put_uuid(&ids, id);
    for (uint32_t i = part; part != STORED_NONE && ++i < pg->table.used && count < ahead;) {
        if (is_wanted(pg, i)) {
            database_put_uuid(&ids, table_at(&pg->table, i)->id);
            count++;
        }
    }
    database_array_begin(ret_ids, DATABASE_UUID, count);
    buffer_append(ret_ids, buffer_slice(&ids));
    ret_ids->failed |= ids.failed;
    buffer_done(&ids);
    return count;
}

static enum error fetch(struct pg_spool *pg, struct message_id id, uint32_t part)
{
    const struct database_rows *rows;
    struct buffer ids = {0};
    size_t count = put_wanted(pg, id, part, &ids);
    pg_ahead_free(pg);
    pg->ahead = calloc(count, sizeof(*pg->ahead));
    if (pg->ahead == NULL || ids.failed) {
        buffer_done(&ids);
        return ERROR_MEMORY;
    }
    const struct database_value value = database_array(&ids, DATABASE_UUID_ARRAY);
    enum error error = ask(pg, envelopes_sql, &value, 1, &rows);
    for (size_t i = 0; error == ERROR_NONE && i < database_count(rows) && i < count; i++) {
        struct slice bytes = database_get_slice(rows, i, 1);
        uint8_t *copy = malloc(bytes.length + 1);
        if (copy == NULL) {
            error = ERROR_MEMORY;
            break;
        }
        memcpy(copy, bytes.data, bytes.length);
        pg->ahead[pg->ahead_count++] = (struct pg_envelope){
            .id = database_get_uuid(rows, i, 0), .bytes = slice_make(copy, bytes.length)};
    }
    buffer_done(&ids);
    return error;
}

/* `part` of it is known here; else STORED_NONE. */
static enum error read_stored(struct pg_spool *pg, struct message_id id, uint32_t part,
                              struct arena *arena, struct log_message *ret_message)
{
    const struct pg_envelope *found = find_ahead(pg, id);
    enum error error = found == NULL ? fetch(pg, id, part) : ERROR_NONE;
    pg->ahead_next = part == STORED_NONE ? STORED_NONE : part + 1;
    if (error != ERROR_NONE) {
        return error;
    }
    found = find_ahead(pg, id);
    if (found == NULL) {
        return ERROR_MISSING;
    }
    struct slice bytes = arena_copy(arena, found->bytes); /* what is decoded points into it */
    return bytes.data == NULL ? ERROR_MEMORY : pg_envelope_open(bytes, id, arena, ret_message);
}

enum error pg_read_stored(struct pg_spool *pg, struct message_id id, struct arena *arena,
                          struct log_message *ret_message)
{
    return read_stored(pg, id, STORED_NONE, arena, ret_message);
}

enum error pg_read_envelope(struct spool *spool, struct spool_handle handle, struct arena *arena,
                            struct spool_message *ret_message)
{
    struct pg_spool *pg = pg_of(spool);
    const struct stored *stored = table_at(&pg->table, handle.index);
    enum error error = ERROR_CORRUPT;
    if (stored->offset != PG_NO_JOURNAL) {
        error = spool_read_envelope(pg->journal, (struct spool_handle){stored->offset}, arena,
                                    ret_message);
    }
    if (error != ERROR_NONE) {
        struct log_message message;
        error = read_stored(pg, stored->id, handle.index, arena, &message);
        *ret_message = message.message;
    }
    if (error == ERROR_NONE) {
        ret_message->sequence = stored->sequence;
    }
    return error;
}

enum error spool_postgres_fates(struct spool *spool, struct message_id id, uint8_t *ret_fates,
                                uint32_t count)
{
    struct database_scalar scalar;
    const struct database_rows *rows;
    const struct database_value value = database_uuid(&scalar, id);
    memset(ret_fates, 0, count);
    enum error error = ask(pg_of(spool), fates_sql, &value, 1, &rows);
    for (size_t i = 0; error == ERROR_NONE && i < database_count(rows); i++) {
        uint64_t delivery = (uint64_t)database_get_int(rows, i, 0);
        if (delivery < count) {
            ret_fates[delivery] = (uint8_t)database_get_int(rows, i, 1);
        }
    }
    return error;
}

/* ---- content ----------------------------------------------------------------------------- */

static enum error read_piece(struct pg_spool *pg, struct message_id id,
                             const struct log_piece *piece, uint64_t skip, void *ret_bytes,
                             size_t size, size_t *ret_length)
{
    struct database_scalar scalars[2];
    const struct database_rows *rows;
    const struct database_value values[] = {database_uuid(&scalars[0], id),
                                            database_int4(&scalars[1], (int32_t)piece->where)};
    bool chunk = piece->kind == LOG_FAR;
    enum error error = ask(pg, chunk ? chunk_sql : content_sql, values, chunk ? 2 : 1, &rows);
    if (error != ERROR_NONE) {
        return error;
    }
    struct slice bytes = database_count(rows) == 1 ? database_get_slice(rows, 0, 0) : SLICE_EMPTY;
    if (bytes.length != piece->stored || crc32c(0, bytes) != piece->crc) {
        return database_count(rows) == 0 ? ERROR_MISSING : ERROR_CORRUPT;
    }
    bytes = slice_take(slice_skip(bytes, (size_t)skip), size);
    if (bytes.length > 0) {
        memcpy(ret_bytes, bytes.data, bytes.length);
    }
    *ret_length = bytes.length;
    return ERROR_NONE;
}

static enum error read_database(struct pg_spool *pg, struct message_id id, uint32_t part,
                                uint64_t offset, uint8_t *ret_bytes, size_t size,
                                size_t *ret_length)
{
    struct arena arena;
    struct log_message message;
    arena_init(&arena);
    enum error error = read_stored(pg, id, part, &arena, &message);
    for (size_t i = 0; error == ERROR_NONE && i < message.piece_count && *ret_length < size; i++) {
        const struct log_piece *piece = &message.pieces[i];
        uint64_t at = offset + *ret_length;
        size_t length;
        if (at < piece->offset || at >= piece->offset + piece->stored) {
            continue;
        }
        error = read_piece(pg, id, piece, at - piece->offset, ret_bytes + *ret_length,
                           size - *ret_length, &length);
        *ret_length += error == ERROR_NONE ? length : 0;
    }
    arena_done(&arena);
    *ret_length = error == ERROR_NONE ? *ret_length : 0;
    return error;
}

enum error pg_read_stored_content(struct pg_spool *pg, struct message_id id, uint64_t offset,
                                  void *ret_bytes, size_t size, size_t *ret_length)
{
    return read_database(pg, id, STORED_NONE, offset, ret_bytes, size, ret_length);
}

enum error pg_read_content(struct spool *spool, struct spool_handle handle, uint64_t offset,
                           void *ret_bytes, size_t size, size_t *ret_length)
{
    struct pg_spool *pg = pg_of(spool);
    const struct stored *stored = table_at(&pg->table, handle.index);
    *ret_length = 0;
    enum error error = ERROR_CORRUPT;
    if (stored->offset != PG_NO_JOURNAL) {
        error = spool_read_content(pg->journal, (struct spool_handle){stored->offset}, offset,
                                   ret_bytes, size, ret_length);
    }
    return error == ERROR_NONE
               ? ERROR_NONE
               : read_database(pg, stored->id, handle.index, offset, ret_bytes, size, ret_length);
}

enum error pg_ticket(struct spool *spool, struct spool_handle handle, uint8_t *ret_ticket,
                     size_t *ret_length)
{
    struct pg_spool *pg = pg_of(spool);
    const struct stored *stored = table_at(&pg->table, handle.index);
    if (stored->offset == PG_NO_JOURNAL) {
        return ERROR_MISSING; /* spool_prepare() */
    }
    return spool_ticket(pg->journal, (struct spool_handle){stored->offset}, ret_ticket, ret_length);
}
