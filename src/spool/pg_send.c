/* SPDX-License-Identifier: Apache-2.0
 *
 * What a group has about mail, as statements of its transaction: messages with their parts, read
 * from the journal; fates; notes. Runs on the committer's thread.
 */
#include "spool/pg_send.h"
#include "base/crc32c.h"
#include "spool/log_reading.h"
#include "spool/pg_partition.h"
#include "sys/clock.h"

#include <stdlib.h>

/* What goes by id, into the partition that its range has, or beside them (pg_partition.h): first
 * what has one, then what has none. New mail does not ask. */
#define CHUNK(PREFIX, WHERE)                                                                       \
    "INSERT INTO holdfast." PREFIX "chunks (id, n, bytes) SELECT w.id, w.n, w.bytes"               \
    " FROM (VALUES ($1::uuid, $2::int4, $3::bytea)) AS w (id, n, bytes) WHERE " WHERE              \
    " ON CONFLICT DO NOTHING"
/* A message that was there already keeps its parts. */
#define MESSAGES(PREFIX, WHERE)                                                                    \
    "WITH fresh AS (INSERT INTO holdfast." PREFIX "messages (id, envelope, content)"               \
    " SELECT w.id, w.envelope, w.content FROM unnest($1::uuid[], $2::bytea[], $3::bytea[])"        \
    " AS w (id, envelope, content) WHERE " WHERE " ON CONFLICT DO NOTHING RETURNING id)"           \
    " INSERT INTO holdfast." PREFIX "parts (share, seq, id, count, deliveries)"                    \
    " SELECT p.share, CASE WHEN p.late IS NULL THEN nextval('holdfast.part_seq')"                  \
    " ELSE greatest(p.behind, (SELECT m.seq FROM holdfast.order_marks m"                           \
    " WHERE m.at <= to_timestamp(p.late / 1000.0) ORDER BY m.at DESC LIMIT 1)) END,"               \
    " p.id, p.count, p.deliveries::int4[]"                                                         \
    " FROM unnest($4::int4[], $5::int8[], $6::uuid[], $7::int4[], $8::text[], $9::int8[])"         \
    " WITH ORDINALITY AS p (share, late, id, count, deliveries, behind, n) JOIN fresh USING (id)"  \
    " ORDER BY p.n RETURNING id, share, seq"
#define FATES(PREFIX, WHERE)                                                                       \
    "INSERT INTO holdfast." PREFIX "fates (id, delivery, fate, when_ms, server)"                   \
    " SELECT w.id, w.delivery, w.fate, w.when_ms, w.server"                                        \
    " FROM unnest($1::uuid[], $2::int4[], $3::int2[], $4::int8[], $5::text[])"                     \
    " AS w (id, delivery, fate, when_ms, server) WHERE " WHERE " ON CONFLICT DO NOTHING"
#define NOTES(PREFIX, WHERE)                                                                       \
    "INSERT INTO holdfast." PREFIX "notes (id, delivery, share, kind, payload)"                    \
    " SELECT w.id, w.delivery, w.share, w.kind, w.payload"                                         \
    " FROM unnest($1::uuid[], $2::int4[], $3::int4[], $4::int4[], $5::bytea[])"                    \
    " WITH ORDINALITY AS w (id, delivery, share, kind, payload, n) WHERE " WHERE " ORDER BY w.n"
#define ROUTES(STATEMENT)                                                                          \
    {                                                                                              \
        STATEMENT("", PG_PARTITION_OPEN("w.id")),                                                  \
            STATEMENT("kept_", "NOT " PG_PARTITION_OPEN("w.id")), STATEMENT("", "true")            \
    }
enum route { ROUTE_OPEN, ROUTE_KEPT, ROUTE_STRAIGHT };
static const char *const chunk_sql[] = ROUTES(CHUNK);
static const char *const messages_sql[] = ROUTES(MESSAGES);
static const char *const fates_sql[] = ROUTES(FATES);
static const char *const notes_sql[] = ROUTES(NOTES);
/* ---- reading what is in the journal ------------------------------------------------------ */

/* What is sent of the messages: the columns, without their heads. */
struct columns {
    struct pg_group *group;
    struct log_files files;
    struct buffer ids, envelopes, contents;
    struct buffer shares, lates, part_ids, counts, deliveries, behind;
    struct buffer scratch, piece;
    size_t messages, parts;
    bool routed;
    enum database_outcome outcome;
};

static void columns_done(struct columns *columns)
{
    log_files_done(&columns->files);
    buffer_done(&columns->ids);
    buffer_done(&columns->envelopes);
    buffer_done(&columns->contents);
    buffer_done(&columns->shares);
    buffer_done(&columns->lates);
    buffer_done(&columns->part_ids);
    buffer_done(&columns->counts);
    buffer_done(&columns->deliveries);
    buffer_done(&columns->behind);
    buffer_done(&columns->scratch);
    buffer_done(&columns->piece);
}

/* `length` bytes from offset, into `piece`. */
static enum error read_piece(struct columns *columns, struct log_reading *reading, uint64_t offset,
                             size_t length)
{
    buffer_clear(&columns->piece);
    enum error error = buffer_reserve(&columns->piece, length + 1);
    while (error == ERROR_NONE && columns->piece.length < length) {
        size_t part;
        error = log_reading_read(reading, offset + columns->piece.length,
                                 columns->piece.data + columns->piece.length,
                                 length - columns->piece.length, &part);
        if (error == ERROR_NONE && part == 0) {
            error = ERROR_CORRUPT;
        }
        columns->piece.length += error == ERROR_NONE ? part : 0;
    }
    return error;
}

static void send_chunk(struct columns *columns, struct message_id id, size_t n)
{
    struct database_scalar scalars[2];
    const struct database_value values[] = {database_uuid(&scalars[0], id),
                                            database_int4(&scalars[1], (int32_t)n),
                                            database_bytea(buffer_slice(&columns->piece))};
    enum route from = columns->routed ? ROUTE_OPEN : ROUTE_STRAIGHT;
    for (enum route route = from; route <= (columns->routed ? ROUTE_KEPT : from); route++) {
        if (columns->outcome == DATABASE_DONE) {
            columns->outcome =
                database_queue(columns->group->writer->database, chunk_sql[route], values, 3);
        }
    }
}

/* Small content stays in `piece`, what is larger is sent in chunks; `pieces` get the checksums. */
static enum error read_content(struct columns *columns, const struct pg_send_message *send,
                               const struct log_message *from, struct buffer *pieces)
{
    uint64_t length = from->message.header_length + from->message.body_length;
    bool chunked = length > columns->group->inline_bytes;
    struct log_reading reading;
    log_reading_init(&reading, &columns->files, send->ticket.segment, send->ticket.offset,
                     from->pieces, from->piece_count);
    enum error error = ERROR_NONE;
    buffer_clear(&columns->piece);
    size_t n = 0;
    for (uint64_t at = 0; at < length && error == ERROR_NONE;) {
        uint64_t rest = length - at;
        size_t part = (size_t)rest;
        if (chunked && rest > columns->group->chunk_bytes) {
            part = columns->group->chunk_bytes;
        }
        error = read_piece(columns, &reading, at, part);
        struct log_piece piece = {.kind = chunked ? LOG_FAR : LOG_NEAR,
                                  .stored = (uint32_t)part,
                                  .crc = crc32c(0, buffer_slice(&columns->piece)),
                                  .take = (uint32_t)part,
                                  .where = n,
                                  .offset = at};
        buffer_append(pieces, slice_make(&piece, sizeof(piece)));
        if (chunked && error == ERROR_NONE) {
            send_chunk(columns, send->id, n);
        }
        at += part;
        n++;
    }
    if (error == ERROR_NONE && !chunked) {
        error = log_reading_verify(&reading);
    }
    log_reading_done(&reading);
    return error == ERROR_NONE && pieces->failed ? ERROR_MEMORY : error;
}

static void put_deliveries(struct columns *columns, const struct pg_new_part *part)
{
    if (part->deliveries == NULL) {
        database_put_null(&columns->deliveries);
        return;
    }
    struct buffer text;
    buffer_init(&text, 0);
    for (uint32_t i = 0; i < part->count; i++) {
        buffer_printf(&text, "%c%d", i == 0 ? '{' : ',', part->deliveries[i]);
    }
    buffer_append_text(&text, "}");
    database_put_bytes(&columns->deliveries, buffer_slice(&text));
    columns->deliveries.failed |= text.failed;
    buffer_done(&text);
}

static void put_message(struct columns *columns, const struct pg_send_message *send,
                        const struct log_message *from, struct slice pieces)
{
    struct buffer *scratch = &columns->scratch;
    buffer_clear(scratch);
    buffer_put_u32(scratch, 0);
    log_put_message(scratch, &from->message, (const void *)pieces.data,
                    pieces.length / sizeof(struct log_piece));
    if (!scratch->failed) {
        uint32_t crc = crc32c(0, slice_skip(buffer_slice(scratch), 4));
        for (int i = 0; i < 4; i++) {
            scratch->data[i] = (uint8_t)(crc >> (8 * i));
        }
    }
    columns->envelopes.failed |= scratch->failed;
    database_put_uuid(&columns->ids, send->id);
    database_put_bytes(&columns->envelopes, buffer_slice(scratch));
    uint64_t length = from->message.header_length + from->message.body_length;
    if (length > columns->group->inline_bytes) {
        database_put_null(&columns->contents);
    } else {
        database_put_bytes(&columns->contents, buffer_slice(&columns->piece));
    }
    columns->messages++;
    for (uint32_t i = 0; i < send->part_count; i++) {
        database_put_int4(&columns->shares, send->parts[i].share->number);
        if (send->late || columns->group->again) {
            database_put_int8(&columns->lates, send->received_ms);
        } else {
            database_put_null(&columns->lates);
        }
        database_put_uuid(&columns->part_ids, send->id);
        database_put_int4(&columns->counts, (int32_t)send->parts[i].count);
        put_deliveries(columns, &send->parts[i]);
        database_put_int8(&columns->behind, send->behind);
        columns->parts++;
    }
}

static void read_message(struct columns *columns, struct pg_send_message *send)
{
    struct arena arena;
    struct log_message from;
    struct buffer pieces;
    arena_init(&arena);
    buffer_init(&pieces, 0);
    send->error = log_files_message(&columns->files, &send->ticket, &arena, &from);
    if (send->error == ERROR_NONE) {
        send->error = read_content(columns, send, &from, &pieces);
    }
    if (send->error == ERROR_NONE) {
        put_message(columns, send, &from, buffer_slice(&pieces));
    }
    if (send->error != ERROR_NONE && send->error != ERROR_CORRUPT && send->error != ERROR_MISSING) {
        columns->outcome = DATABASE_MEMORY; /* or the disk: another time, perhaps */
    }
    buffer_done(&pieces);
    arena_done(&arena);
}

/* ---- sending ----------------------------------------------------------------------------- */

void pg_arrays_add(struct pg_arrays *arrays, enum database_type element, enum database_type type,
                   size_t count, const struct buffer *elements)
{
    struct buffer *buffer = &arrays->buffers[arrays->count];
    buffer_init(buffer, 0);
    database_array_begin(buffer, element, count);
    buffer_append(buffer, buffer_slice(elements));
    arrays->values[arrays->count++] = database_array(buffer, type);
    arrays->failed |= buffer->failed || elements->failed;
}

void pg_arrays_done(struct pg_arrays *arrays)
{
    for (int i = 0; i < arrays->count; i++) {
        buffer_done(&arrays->buffers[i]);
    }
}

static enum database_outcome arrays_send(struct pg_group *group, const char *const routes[],
                                         bool routed, struct pg_arrays *arrays)
{
    struct database *database = group->writer->database;
    enum database_outcome outcome = arrays->failed ? DATABASE_MEMORY : DATABASE_DONE;
    enum route from = routed ? ROUTE_OPEN : ROUTE_STRAIGHT;
    for (enum route route = from; route <= (routed ? ROUTE_KEPT : from); route++) {
        if (outcome == DATABASE_DONE) {
            outcome = database_queue(database, routes[route], arrays->values, arrays->count);
        }
    }
    pg_arrays_done(arrays);
    return outcome;
}

/* Mail that is not new, or whose time has no partition yet. */
static bool is_routed(const struct pg_group *group)
{
    const struct pg_send_message *messages = (const void *)group->messages.data;
    bool late = group->again || clock_steady_ms() < group->writer->routed_until_ms;
    for (size_t i = 0; i < group->messages.length / sizeof(*messages) && !late; i++) {
        late = messages[i].late;
    }
    return late;
}

static enum database_outcome send_messages(struct pg_group *group)
{
    struct columns columns = {.group = group, .routed = is_routed(group), .outcome = DATABASE_DONE};
    struct pg_send_message *messages = (void *)group->messages.data;
    size_t count = group->messages.length / sizeof(*messages);
    log_files_init(&columns.files, group->disk);
    for (size_t i = 0; i < count && columns.outcome == DATABASE_DONE; i++) {
        read_message(&columns, &messages[i]);
    }
    if (columns.messages > 0 && columns.outcome == DATABASE_DONE) {
        struct pg_arrays arrays = {0};
        pg_arrays_add(&arrays, DATABASE_UUID, DATABASE_UUID_ARRAY, columns.messages, &columns.ids);
        pg_arrays_add(&arrays, DATABASE_BYTEA, DATABASE_BYTEA_ARRAY, columns.messages,
                      &columns.envelopes);
        pg_arrays_add(&arrays, DATABASE_BYTEA, DATABASE_BYTEA_ARRAY, columns.messages,
                      &columns.contents);
        pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, columns.parts, &columns.shares);
        pg_arrays_add(&arrays, DATABASE_INT8, DATABASE_INT8_ARRAY, columns.parts, &columns.lates);
        pg_arrays_add(&arrays, DATABASE_UUID, DATABASE_UUID_ARRAY, columns.parts,
                      &columns.part_ids);
        pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, columns.parts, &columns.counts);
        pg_arrays_add(&arrays, DATABASE_TEXT, DATABASE_TEXT_ARRAY, columns.parts,
                      &columns.deliveries);
        pg_arrays_add(&arrays, DATABASE_INT8, DATABASE_INT8_ARRAY, columns.parts, &columns.behind);
        columns.outcome = arrays_send(group, messages_sql, columns.routed, &arrays);
    }
    columns_done(&columns);
    return columns.outcome;
}

/* What is not UTF-8 cannot be a text there. */
static void put_server(struct buffer *out, struct slice server)
{
    uint8_t text[SPOOL_SERVER_MAX];
    if (server.length == 0) {
        database_put_null(out);
        return;
    }
    server = slice_take(server, sizeof(text));
    for (size_t i = 0; i < server.length; i++) {
        text[i] = server.data[i] > 0 && server.data[i] < 0x80 ? server.data[i] : '?';
    }
    database_put_bytes(out, slice_make(text, server.length));
}

static enum database_outcome send_fates(struct pg_group *group)
{
    const struct pg_send_fate *fates = (const void *)group->fates.data;
    size_t count = group->fates.length / sizeof(*fates);
    struct buffer ids = {0}, deliveries = {0}, kinds = {0}, times = {0}, servers = {0};
    for (size_t i = 0; i < count; i++) {
        database_put_uuid(&ids, fates[i].id);
        database_put_int4(&deliveries, (int32_t)fates[i].delivery);
        database_put_int2(&kinds, fates[i].fate);
        if (fates[i].when_ms != 0) {
            database_put_int8(&times, fates[i].when_ms);
        } else {
            database_put_null(&times);
        }
        put_server(&servers, fates[i].server);
    }
    struct pg_arrays arrays = {0};
    pg_arrays_add(&arrays, DATABASE_UUID, DATABASE_UUID_ARRAY, count, &ids);
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &deliveries);
    pg_arrays_add(&arrays, DATABASE_INT2, DATABASE_INT2_ARRAY, count, &kinds);
    pg_arrays_add(&arrays, DATABASE_INT8, DATABASE_INT8_ARRAY, count, &times);
    pg_arrays_add(&arrays, DATABASE_TEXT, DATABASE_TEXT_ARRAY, count, &servers);
    buffer_done(&ids);
    buffer_done(&deliveries);
    buffer_done(&kinds);
    buffer_done(&times);
    buffer_done(&servers);
    return arrays_send(group, fates_sql, true, &arrays);
}

static enum database_outcome send_notes(struct pg_group *group)
{
    const struct pg_send_note *notes = (const void *)group->notes.data;
    size_t count = group->notes.length / sizeof(*notes);
    struct buffer ids = {0}, deliveries = {0}, shares = {0}, kinds = {0}, payloads = {0};
    for (size_t i = 0; i < count; i++) {
        database_put_uuid(&ids, notes[i].id);
        database_put_int4(&deliveries, (int32_t)notes[i].delivery); /* all: -1 */
        database_put_int4(&shares, notes[i].share->number);
        database_put_int4(&kinds, notes[i].kind);
        database_put_bytes(&payloads, notes[i].payload);
    }
    struct pg_arrays arrays = {0};
    pg_arrays_add(&arrays, DATABASE_UUID, DATABASE_UUID_ARRAY, count, &ids);
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &deliveries);
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &shares);
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &kinds);
    pg_arrays_add(&arrays, DATABASE_BYTEA, DATABASE_BYTEA_ARRAY, count, &payloads);
    buffer_done(&ids);
    buffer_done(&deliveries);
    buffer_done(&shares);
    buffer_done(&kinds);
    buffer_done(&payloads);
    return arrays_send(group, notes_sql, true, &arrays);
}

enum database_outcome pg_send_mail(struct pg_group *group)
{
    enum database_outcome outcome = DATABASE_DONE;
    if (group->messages.length > 0) {
        outcome = send_messages(group);
    }
    if (outcome == DATABASE_DONE && group->fates.length > 0) {
        outcome = send_fates(group);
    }
    if (outcome == DATABASE_DONE && group->notes.length > 0) {
        outcome = send_notes(group);
    }
    return outcome;
}
