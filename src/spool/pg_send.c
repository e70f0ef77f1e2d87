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
 * what has one, then what has none. New mail does not ask. Who asks for mail locks out first that
 * survivors move, so that a message and all its chunks go to one place, and none comes to a range
 * that is being left. */
static const char routed_sql[] = "LOCK TABLE holdfast.fates IN ROW EXCLUSIVE MODE";
#define CHUNK(PREFIX, WHERE)                                                                       \
    "INSERT INTO holdfast." PREFIX "chunks (id, n, bytes) SELECT w.id, w.n, w.bytes"               \
    " FROM (VALUES ($1::uuid, $2::int4, $3::bytea)) AS w (id, n, bytes) WHERE " WHERE              \
    " ON CONFLICT DO NOTHING"
/* Where a part stands in the order is when it was accepted, in microseconds: by the clock of the
 * database, which all share, and never less than what it said before, for another server's clock
 * may be behind. That is asked once for a group, when its messages are in, for each change of a
 * sequence is logged; its parts take the numbers that follow, of which there are fewer than
 * microseconds pass. Mail that comes late (its node has found that, or this is carried out 1 s
 * after it was sent: the server stood still, and its node has answered for it from the journal, as
 * for what came behind it) was accepted when its node says, which knows that clock; what it has of
 * one millisecond keeps its order. */
#define CLOCK_US "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
#define FRESH(PREFIX, WHERE, RETURNING)                                                            \
    "WITH fresh AS (INSERT INTO holdfast." PREFIX "messages (id, envelope, content)"               \
    " SELECT w.id, w.envelope, w.content FROM unnest($1::uuid[], $2::bytea[], $3::bytea[])"        \
    " AS w (id, envelope, content)" WHERE RETURNING "),"                                           \
    " clock AS MATERIALIZED (SELECT count(*), " CLOCK_US " AS us FROM fresh),"                     \
    " start AS MATERIALIZED (SELECT us / 1000 - ($9::int8[])[1] < 1000 AS soon,"                   \
    " setval('holdfast.part_seq', greatest(nextval('holdfast.part_seq'), us) + cardinality($4))"   \
    " - cardinality($4) AS seq FROM clock) "
#define PLACED(PREFIX, SOON, LISTS, NAMES)                                                         \
    "INSERT INTO holdfast." PREFIX "parts (share, seq, id, count, deliveries)"                     \
    " SELECT p.share, CASE WHEN " SOON " THEN s.seq + p.n"                                         \
    " ELSE p.received * 1000 + least(p.n, 999) END, p.id, p.count, p.deliveries::int4[]"           \
    " FROM start s CROSS JOIN ROWS FROM (unnest($4::int4[]), unnest($5::int8[]),"                  \
    " unnest($6::uuid[]), unnest($7::int4[]), unnest($8::text[])" LISTS ")"                        \
    " WITH ORDINALITY AS p (share, received, id, count, deliveries" NAMES ", n)"
/* A message that was there already, in whichever place, keeps its parts. */
#define MESSAGES(PREFIX, WHERE)                                                                    \
    FRESH(PREFIX, " WHERE " WHERE " ON CONFLICT DO NOTHING", " RETURNING id")                      \
    PLACED(PREFIX, "s.soon AND NOT p.late", ", unnest($10::bool[])", ", late")                     \
    " JOIN fresh USING (id) ORDER BY p.n RETURNING id, share, seq, xid"
/* New mail is not there, nor late, so it is cheaper: it says where its parts begin, and whether
 * they stand there. What is there all the same is refused, and asked about then (pg_write.c). */
#define NEW_MESSAGES                                                                               \
    FRESH("", "", " RETURNING 1")                                                                  \
    ", placed AS (" PLACED("", "s.soon", "", "") ") SELECT seq, soon, pg_current_xact_id()"        \
                                                 " FROM start"
#define FATES(PREFIX, WHERE)                                                                       \
    "INSERT INTO holdfast." PREFIX "fates (id, delivery, fate, when_ms, server)"                   \
    " SELECT w.id, w.delivery, w.fate, w.when_ms, w.server"                                        \
    " FROM unnest($1::uuid[], $2::int4[], $3::int2[], $4::int8[], $5::text[])"                     \
    " AS w (id, delivery, fate, when_ms, server) WHERE " WHERE " ON CONFLICT DO NOTHING"
/* Notes that came with a message that is forwarded were written with it, if it was. */
#define NOT_BEFORE                                                                                 \
    " AND NOT (w.with_message AND (EXISTS (SELECT FROM holdfast.notes b WHERE b.id = w.id)"        \
    " OR EXISTS (SELECT FROM holdfast.kept_notes b WHERE b.id = w.id)))"
#define NOTES(PREFIX, WHERE)                                                                       \
    "INSERT INTO holdfast." PREFIX "notes (id, delivery, share, kind, payload)"                    \
    " SELECT w.id, w.delivery, w.share, w.kind, w.payload"                                         \
    " FROM unnest($1::uuid[], $2::int4[], $3::int4[], $4::int4[], $5::bytea[], $6::bool[])"        \
    " WITH ORDINALITY AS w (id, delivery, share, kind, payload, with_message, n) WHERE " WHERE     \
        NOT_BEFORE " ORDER BY w.n"
#define IS_OPEN PG_PARTITION_OPEN("w.id")
#define ROUTES(STATEMENT)                                                                          \
    {                                                                                              \
        STATEMENT("", IS_OPEN), STATEMENT("kept_", "NOT " IS_OPEN), STATEMENT("", "true")          \
    }
enum route { ROUTE_OPEN, ROUTE_KEPT, ROUTE_STRAIGHT };
static const char *const chunk_sql[] = ROUTES(CHUNK);
static const char *const messages_sql[] = {
    MESSAGES("",
             IS_OPEN " AND NOT EXISTS (SELECT FROM holdfast.kept_messages k WHERE k.id = w.id)"),
    MESSAGES("kept_",
             "NOT " IS_OPEN " AND NOT EXISTS (SELECT FROM holdfast.messages k WHERE k.id = w.id)"),
    NEW_MESSAGES};
static const char *const fates_sql[] = ROUTES(FATES);
static const char *const notes_sql[] = ROUTES(NOTES);
/* Of a share that has been taken over since, its owner must hear: it may have loaded the part
 * without that. The lock makes sure that it either has not loaded it yet, or is seen here. */
static const char late_sql[] =
    "WITH w AS (SELECT * FROM unnest($1::int4[], $2::int8[], $3::uuid[], $4::int4[], $5::int2[])"
    " AS w (share, token, id, delivery, fate)),"
    " held AS MATERIALIZED (SELECT s.share, s.token FROM holdfast.shares s"
    " WHERE s.share IN (SELECT share FROM w) ORDER BY s.share FOR SHARE)"
    " INSERT INTO holdfast.late_fates (share, id, delivery, fate)"
    " SELECT w.share, w.id, w.delivery, w.fate FROM w JOIN held h USING (share)"
    " WHERE h.token <> w.token ON CONFLICT DO NOTHING";
/* And where we do not know the share any more, its owner hears of it in any case. */
static const char unplaced_sql[] =
    "INSERT INTO holdfast.late_fates (share, id, delivery, fate)"
    " SELECT p.share, w.id, w.delivery, w.fate"
    " FROM unnest($1::uuid[], $2::int4[], $3::int2[]) AS w (id, delivery, fate) CROSS JOIN LATERAL"
    " (SELECT t.share, t.deliveries FROM holdfast.parts t WHERE t.id = w.id"
    " UNION ALL SELECT k.share, k.deliveries FROM holdfast.kept_parts k WHERE k.id = w.id"
    " OFFSET 0) p WHERE p.deliveries IS NULL OR w.delivery = ANY(p.deliveries)"
    " ON CONFLICT DO NOTHING";

/* ---- reading what is in the journal ------------------------------------------------------ */

/* What is sent of the messages: the columns, without their heads. */
struct columns {
    struct pg_group *group;
    struct log_files files;
    struct buffer ids, envelopes, contents;
    struct buffer shares, lates, received, part_ids, counts, deliveries;
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
    buffer_done(&columns->received);
    buffer_done(&columns->part_ids);
    buffer_done(&columns->counts);
    buffer_done(&columns->deliveries);
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
        database_put_bool(&columns->lates, send->late || columns->group->again);
        database_put_int8(&columns->received, send->received_ms);
        database_put_uuid(&columns->part_ids, send->id);
        database_put_int4(&columns->counts, (int32_t)send->parts[i].count);
        put_deliveries(columns, &send->parts[i]);
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
    if (send->error == ERROR_MEMORY || send->error == ERROR_SPACE || send->error == ERROR_AGAIN) {
        columns->outcome = DATABASE_MEMORY; /* or descriptors: nothing is wrong with the message */
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
    return group->old || group->again || clock_steady_ms() < group->writer->routed_until_ms;
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
        pg_arrays_add(&arrays, DATABASE_INT8, DATABASE_INT8_ARRAY, columns.parts,
                      &columns.received);
        pg_arrays_add(&arrays, DATABASE_UUID, DATABASE_UUID_ARRAY, columns.parts,
                      &columns.part_ids);
        pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, columns.parts, &columns.counts);
        pg_arrays_add(&arrays, DATABASE_TEXT, DATABASE_TEXT_ARRAY, columns.parts,
                      &columns.deliveries);
        struct buffer sent = {0};
        database_put_int8(&sent, clock_steady_ms() + group->time_ahead_ms);
        pg_arrays_add(&arrays, DATABASE_INT8, DATABASE_INT8_ARRAY, 1, &sent);
        buffer_done(&sent);
        if (columns.routed) {
            pg_arrays_add(&arrays, DATABASE_BOOL, DATABASE_BOOL_ARRAY, columns.parts,
                          &columns.lates);
        }
        group->routed = columns.routed;
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

static enum database_outcome send_lates(struct pg_group *group)
{
    const struct pg_send_fate *fates = (const void *)group->fates.data;
    struct buffer shares = {0}, tokens = {0}, ids = {0}, deliveries = {0}, kinds = {0};
    size_t count = 0;
    for (size_t i = 0; i < group->fates.length / sizeof(*fates); i++) {
        if (fates[i].share != NULL && group->pg->shared) {
            database_put_int4(&shares, fates[i].share->number);
            database_put_int8(&tokens, fates[i].token);
            database_put_uuid(&ids, fates[i].id);
            database_put_int4(&deliveries, (int32_t)fates[i].delivery);
            database_put_int2(&kinds, fates[i].fate);
            count++;
        }
    }
    struct pg_arrays arrays = {0};
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &shares);
    pg_arrays_add(&arrays, DATABASE_INT8, DATABASE_INT8_ARRAY, count, &tokens);
    pg_arrays_add(&arrays, DATABASE_UUID, DATABASE_UUID_ARRAY, count, &ids);
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &deliveries);
    pg_arrays_add(&arrays, DATABASE_INT2, DATABASE_INT2_ARRAY, count, &kinds);
    buffer_done(&shares);
    buffer_done(&tokens);
    buffer_done(&ids);
    buffer_done(&deliveries);
    buffer_done(&kinds);
    enum database_outcome outcome = arrays.failed ? DATABASE_MEMORY : DATABASE_DONE;
    if (outcome == DATABASE_DONE && count > 0) {
        outcome = database_queue(group->writer->database, late_sql, arrays.values, arrays.count);
    }
    pg_arrays_done(&arrays);
    return outcome;
}

static enum database_outcome send_unplaced(struct pg_group *group)
{
    const struct pg_send_fate *fates = (const void *)group->fates.data;
    struct buffer ids = {0}, deliveries = {0}, kinds = {0};
    size_t count = 0;
    for (size_t i = 0; i < group->fates.length / sizeof(*fates); i++) {
        if (fates[i].unplaced && group->pg->shared) {
            database_put_uuid(&ids, fates[i].id);
            database_put_int4(&deliveries, (int32_t)fates[i].delivery);
            database_put_int2(&kinds, fates[i].fate);
            count++;
        }
    }
    struct pg_arrays arrays = {0};
    pg_arrays_add(&arrays, DATABASE_UUID, DATABASE_UUID_ARRAY, count, &ids);
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &deliveries);
    pg_arrays_add(&arrays, DATABASE_INT2, DATABASE_INT2_ARRAY, count, &kinds);
    buffer_done(&ids);
    buffer_done(&deliveries);
    buffer_done(&kinds);
    enum database_outcome outcome = arrays.failed ? DATABASE_MEMORY : DATABASE_DONE;
    if (outcome == DATABASE_DONE && count > 0) {
        outcome =
            database_queue(group->writer->database, unplaced_sql, arrays.values, arrays.count);
    }
    pg_arrays_done(&arrays);
    return outcome;
}

static enum database_outcome send_notes(struct pg_group *group)
{
    const struct pg_send_note *notes = (const void *)group->notes.data;
    size_t count = group->notes.length / sizeof(*notes);
    struct buffer ids = {0}, deliveries = {0}, shares = {0}, kinds = {0}, payloads = {0};
    struct buffer with = {0};
    for (size_t i = 0; i < count; i++) {
        database_put_uuid(&ids, notes[i].id);
        database_put_int4(&deliveries, (int32_t)notes[i].delivery); /* all: -1 */
        database_put_int4(&shares, notes[i].share->number);
        database_put_int4(&kinds, notes[i].kind);
        database_put_bytes(&payloads, notes[i].payload);
        database_put_bool(&with, notes[i].with_message);
    }
    struct pg_arrays arrays = {0};
    pg_arrays_add(&arrays, DATABASE_UUID, DATABASE_UUID_ARRAY, count, &ids);
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &deliveries);
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &shares);
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &kinds);
    pg_arrays_add(&arrays, DATABASE_BYTEA, DATABASE_BYTEA_ARRAY, count, &payloads);
    pg_arrays_add(&arrays, DATABASE_BOOL, DATABASE_BOOL_ARRAY, count, &with);
    buffer_done(&with);
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
    if (group->messages.length > 0 && is_routed(group)) {
        outcome = database_queue(group->writer->database, routed_sql, NULL, 0);
    }
    if (outcome == DATABASE_DONE && group->messages.length > 0) {
        outcome = send_messages(group);
    }
    if (outcome == DATABASE_DONE && group->fates.length > 0) {
        outcome = send_fates(group);
    }
    if (outcome == DATABASE_DONE && group->fates.length > 0) {
        outcome = send_lates(group);
    }
    if (outcome == DATABASE_DONE && group->fates.length > 0) {
        outcome = send_unplaced(group);
    }
    if (outcome == DATABASE_DONE && group->notes.length > 0) {
        outcome = send_notes(group);
    }
    return outcome;
}
