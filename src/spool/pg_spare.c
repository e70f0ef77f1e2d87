/* SPDX-License-Identifier: Apache-2.0
 *
 * What the database may lose though it has said that it is safe: its leader died, and the server
 * that followed had not all of it; two led for a moment, and what one of them had committed was
 * undone; a backup was put back. So each node keeps for a while what it has given to the database:
 * messages in its journal, fates here. When it meets another server it asks which of them that one
 * has, and gives it the rest once more (docs/decisions/0052).
 *
 * Why nothing comes twice by it. A message is sent again as all that is forwarded, so one that is
 * there stays as it is. One that is not there because it was finished long ago is not asked for:
 * the watermark stays below all that is kept (pg_gather.c), and what is not below it is neither
 * retired nor cleaned. A fate that has gone is still known to whoever has told it, so its part is
 * not taken for new there (pg_load.c), and it is told again as a fact, whatever it was: a notice
 * about it may be on its way. Notes go: they say how far something had come.
 */
#include "spool/pg_internal.h"
#include "spool/pg_send.h"
#include "sys/clock.h"

#include <stdlib.h>

enum { HEADS = PG_SPARE_FATES / 2, SERVERS_MAX = 10000 };

static const char messages_sql[] =
    "SELECT w.n FROM unnest($1::uuid[]) WITH ORDINALITY AS w (id, n)"
    " WHERE NOT EXISTS (SELECT FROM holdfast.messages m WHERE m.id = w.id)"
    " AND NOT EXISTS (SELECT FROM holdfast.kept_messages k WHERE k.id = w.id)";
#define IS_IN(TABLE)                                                                               \
    "EXISTS (SELECT FROM holdfast." TABLE " f WHERE f.id = w.id AND f.delivery = w.delivery)"
static const char fates_sql[] =
    "SELECT w.n FROM unnest($1::uuid[], $2::int4[]) WITH ORDINALITY AS w (id, delivery, n)"
    " WHERE NOT " IS_IN("fates") " AND NOT " IS_IN("kept_fates");

void pg_spare_init(struct pg_spare *spare)
{
    spare->keep_ms = PG_SPARE_MS;
    spare->messages_max = PG_SPARE_MESSAGES;
    spare->bytes_max = PG_SPARE_BYTES;
    spare->room = UINT64_MAX; /* until it is known */
    buffer_init(&spare->messages, 0);
    map_init(&spare->servers);
}

void pg_spare_done(struct pg_spare *spare)
{
    buffer_done(&spare->messages);
    free(spare->fates);
    free(spare->heads);
    size_t cursor = 0;
    struct pg_spare_server *server;
    while ((server = map_next(&spare->servers, &cursor)) != NULL) {
        free(server);
    }
    map_done(&spare->servers);
}

static bool keeps(const struct pg_spool *pg)
{
    return pg->shared && pg->spare.keep_ms > 0 && !pg->ending;
}

/* ---- messages ---------------------------------------------------------------------------- */

/* The oldest, and behind it the others. */
static struct pg_spare_message *messages_of(const struct pg_spare *spare, size_t *ret_count)
{
    struct pg_spare_message *messages = (void *)spare->messages.data;
    *ret_count = spare->messages.length / sizeof(*messages) - spare->messages_at;
    return messages == NULL ? NULL : messages + spare->messages_at;
}

void pg_spare_message(struct pg_spool *pg, uint32_t journal)
{
    struct pg_spare *spare = &pg->spare;
    struct pg_local *local = pg->locals[journal];
    const struct pg_spare_message added = {
        .id = local->id, .journal = journal, .since_ms = clock_steady_ms()};
    if (!keeps(pg) || local->spare == UINT16_MAX) {
        return;
    }
    buffer_append(&spare->messages, slice_make(&added, sizeof(added)));
    if (spare->messages.failed) {
        spare->messages.failed = false;
        return;
    }
    local->spare++;
    spare->bytes += local->bytes;
    spare->last.message++;
}

static void message_goes(struct pg_spool *pg)
{
    struct pg_spare *spare = &pg->spare;
    size_t count;
    const struct pg_spare_message oldest = *messages_of(spare, &count);
    spare->bytes -= pg->locals[oldest.journal]->bytes;
    spare->messages_at++;
    spare->first.message++;
    if (spare->messages_at > count) {
        buffer_consume(&spare->messages, spare->messages_at * sizeof(oldest));
        spare->messages_at = 0;
    }
    pg_local_unspare(pg, oldest.journal);
}

/* ---- fates ------------------------------------------------------------------------------- */

static uint32_t *head_of(const struct pg_spare *spare, struct message_id id)
{
    uint64_t hash = (id.low ^ id.high) * UINT64_C(0x9e3779b97f4a7c15);
    return &spare->heads[hash >> 32 & (HEADS - 1)];
}

static struct pg_spare_fate *fate_at(const struct pg_spare *spare, uint64_t place)
{
    return &spare->fates[place & (PG_SPARE_FATES - 1)];
}

const struct pg_spare_fate *pg_spare_fate_of(const struct pg_spool *pg, struct message_id id,
                                             const struct pg_spare_fate *after)
{
    const struct pg_spare *spare = &pg->spare;
    if (spare->fates == NULL) {
        return NULL;
    }
    uint32_t next = after == NULL ? *head_of(spare, id) : after->next;
    while (next != 0 && !id_equal(spare->fates[next - 1].id, id)) {
        next = spare->fates[next - 1].next;
    }
    return next == 0 ? NULL : &spare->fates[next - 1];
}

static void fate_goes(struct pg_spare *spare)
{
    uint32_t place = (uint32_t)(spare->first.fate & (PG_SPARE_FATES - 1)) + 1;
    uint32_t *at = head_of(spare, fate_at(spare, spare->first.fate)->id);
    while (*at != place) {
        at = &spare->fates[*at - 1].next;
    }
    *at = 0; /* it is the oldest of them */
    spare->first.fate++;
}

/* NULL: it has no name, or is one too many; of two with one hash the second has none. */
static const struct pg_spare_server *server_of(struct pg_spool *pg, struct slice name)
{
    struct map *servers = &pg->spare.servers;
    uint64_t hash = hash_bytes(pg->key, name);
    struct pg_spare_server *server = map_get(servers, hash);
    if (server != NULL) {
        bool same = slice_equal(slice_make(server->name, server->length), name);
        return same ? server : NULL;
    }
    if (name.length == 0 || servers->count >= SERVERS_MAX) {
        return NULL;
    }
    server = malloc(sizeof(*server) + name.length);
    if (server == NULL || map_put(servers, hash, server) != ERROR_NONE) {
        free(server);
        return NULL;
    }
    memcpy(server->name, name.data, name.length);
    server->length = name.length;
    return server;
}

static bool is_ready(struct pg_spare *spare)
{
    if (spare->fates == NULL) {
        spare->fates = calloc(PG_SPARE_FATES, sizeof(*spare->fates));
        spare->heads = calloc(HEADS, sizeof(*spare->heads));
        if (spare->fates == NULL || spare->heads == NULL) {
            free(spare->fates);
            free(spare->heads);
            spare->fates = NULL;
            spare->heads = NULL;
        }
    }
    return spare->fates != NULL;
}

void pg_spare_fates(struct pg_spool *pg, const struct pg_group *group)
{
    struct pg_spare *spare = &pg->spare;
    const struct pg_send_fate *fates = (const void *)group->fates.data;
    size_t count = group->fates.length / sizeof(*fates);
    int64_t now_ms = clock_steady_ms();
    if (count == 0 || !keeps(pg) || !is_ready(spare)) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (spare->last.fate - spare->first.fate == PG_SPARE_FATES) {
            fate_goes(spare);
        }
        uint32_t *head = head_of(spare, fates[i].id);
        *fate_at(spare, spare->last.fate) =
            (struct pg_spare_fate){.id = fates[i].id,
                                   .when_ms = fates[i].when_ms,
                                   .since_ms = now_ms,
                                   .server = server_of(pg, fates[i].server),
                                   .delivery = fates[i].delivery,
                                   .next = *head,
                                   .fate = fates[i].fate};
        *head = (uint32_t)(spare->last.fate++ & (PG_SPARE_FATES - 1)) + 1;
    }
}

/* ---- how long ------------------------------------------------------------------------------ */

/* It may be another server that answers next. */
static bool is_in_doubt(const struct pg_spool *pg)
{
    return pg_spare_is_due(&pg->spare) || !pg->up || pg->page_failed;
}

void pg_spare_room(struct pg_spool *pg, uint64_t bytes)
{
    pg->spare.room = bytes;
    pg_spare_expire(pg);
}

void pg_spare_expire(struct pg_spool *pg)
{
    struct pg_spare *spare = &pg->spare;
    int64_t old_ms = clock_steady_ms() - spare->keep_ms;
    uint64_t quarter = spare->room / 4;
    uint64_t bytes_max = spare->bytes_max < quarter ? spare->bytes_max : quarter;
    bool is_sure = !is_in_doubt(pg);
    size_t count;
    const struct pg_spare_message *oldest;
    while ((oldest = messages_of(spare, &count)) != NULL && count > 0 &&
           (count > spare->messages_max || spare->bytes > bytes_max ||
            (is_sure && oldest->since_ms <= old_ms))) {
        message_goes(pg);
    }
    while (spare->first.fate < spare->last.fate && is_sure &&
           fate_at(spare, spare->first.fate)->since_ms <= old_ms) {
        fate_goes(spare);
    }
}

int64_t pg_spare_oldest_ms(const struct pg_spool *pg)
{
    size_t count;
    const struct pg_spare_message *messages = messages_of(&pg->spare, &count);
    int64_t oldest_ms = INT64_MAX;
    for (size_t i = 0; is_in_doubt(pg) && i < count && i < PG_BEHIND_LOOK; i++) {
        int64_t time_ms = id_time_ms(messages[i].id);
        oldest_ms = time_ms < oldest_ms ? time_ms : oldest_ms;
    }
    return oldest_ms;
}

void pg_spare_lower(const struct pg_spool *pg, struct message_id *below)
{
    size_t count;
    const struct pg_spare_message *messages = messages_of(&pg->spare, &count);
    for (size_t i = 0; i < count; i++) {
        if (id_before(messages[i].id, *below)) {
            *below = messages[i].id;
        }
    }
}

/* ---- asking -------------------------------------------------------------------------------- */

static uint64_t later(uint64_t one, uint64_t other)
{
    return one > other ? one : other;
}

/* What is asked for next; what has gone meanwhile is not. */
static struct pg_spare_place next_of(const struct pg_spare *spare)
{
    return (struct pg_spare_place){.message = later(spare->asked.message, spare->first.message),
                                   .fate = later(spare->asked.fate, spare->first.fate)};
}

bool pg_spare_is_due(const struct pg_spare *spare)
{
    const struct pg_spare_place next = next_of(spare);
    return next.message < spare->until.message || next.fate < spare->until.fate;
}

void pg_spare_doubt(struct pg_spool *pg)
{
    struct pg_spare *spare = &pg->spare;
    spare->round++;
    spare->asked = spare->first;
    spare->until = spare->last;
    if (pg_spare_is_due(spare)) {
        pg_pump_later(pg);
    }
}

/* By turns with the mail that waits. */
void pg_spare_ask(struct pg_spool *pg, struct pg_group *group)
{
    struct pg_spare *spare = &pg->spare;
    size_t count;
    const struct pg_spare_message *messages = messages_of(spare, &count);
    spare->has_asked = pg_spare_is_due(spare) && !spare->has_asked;
    if (!spare->has_asked) {
        return;
    }
    struct pg_spare_place at = next_of(spare);
    for (size_t n = 0; n < PG_SPARE_ASKED && at.message < spare->until.message; n++) {
        const struct pg_spare_message *message = &messages[at.message++ - spare->first.message];
        const struct pg_send_spare send = {.id = message->id, .journal = message->journal};
        buffer_append(&group->spares, slice_make(&send, sizeof(send)));
    }
    for (size_t n = 0; n < PG_SPARE_ASKED && at.fate < spare->until.fate; n++) {
        const struct pg_spare_fate *fate = fate_at(spare, at.fate++);
        const struct pg_send_spare send = {.id = fate->id,
                                           .delivery = fate->delivery,
                                           .when_ms = fate->when_ms,
                                           .server = fate->server,
                                           .fate = fate->fate};
        buffer_append(&group->spares, slice_make(&send, sizeof(send)));
    }
    if (group->spares.failed) {
        abort(); /* what was acknowledged may be missing */
    }
    group->spares_round = spare->round;
    group->spares_upto = at;
}

/* Of these, by the first `columns` of their ids and deliveries. */
static enum database_outcome ask(struct database *database, const char *sql, int columns,
                                 struct pg_send_spare *spares, size_t count)
{
    struct buffer ids = {0}, deliveries = {0};
    struct pg_arrays arrays = {0};
    const struct database_rows *rows;
    if (count == 0) {
        return DATABASE_DONE;
    }
    for (size_t i = 0; i < count; i++) {
        database_put_uuid(&ids, spares[i].id);
        database_put_int4(&deliveries, (int32_t)spares[i].delivery);
    }
    pg_arrays_add(&arrays, DATABASE_UUID, DATABASE_UUID_ARRAY, count, &ids);
    pg_arrays_add(&arrays, DATABASE_INT4, DATABASE_INT4_ARRAY, count, &deliveries);
    enum database_outcome outcome =
        arrays.failed ? DATABASE_MEMORY
                      : database_query(database, sql, arrays.values, columns, PG_CALL_MS, &rows);
    for (size_t i = 0; outcome == DATABASE_DONE && i < database_count(rows); i++) {
        uint64_t n = (uint64_t)database_get_int(rows, i, 0);
        if (n >= 1 && n <= count) {
            spares[n - 1].missing = true;
        }
    }
    buffer_done(&ids);
    buffer_done(&deliveries);
    pg_arrays_done(&arrays);
    return outcome;
}

/* Messages come first. */
enum database_outcome pg_spare_run(struct pg_group *group)
{
    struct database *database = group->writer->database;
    struct pg_send_spare *spares = (void *)group->spares.data;
    size_t count = group->spares.length / sizeof(*spares), messages = 0;
    while (messages < count && spares[messages].fate == 0) {
        messages++;
    }
    enum database_outcome outcome = ask(database, messages_sql, 1, spares, messages);
    return outcome == DATABASE_DONE
               ? ask(database, fates_sql, 2, spares + messages, count - messages)
               : outcome;
}

/* ---- the answer ------------------------------------------------------------------------------ */

static void message_is_missing(struct pg_spool *pg, const struct pg_send_spare *message)
{
    const struct pg_local *local = pg_local_at(pg, message->journal);
    if (local != NULL && id_equal(local->id, message->id) && local->spare > 0 && local->stored) {
        pg_local_again(pg, message->journal);
        pg->spare.messages_missing++;
    }
}

static void fate_is_missing(struct pg_spool *pg, const struct pg_send_spare *fate)
{
    struct slice server =
        fate->server == NULL ? SLICE_EMPTY : slice_make(fate->server->name, fate->server->length);
    pg_batch_again(pg, fate->id, fate->delivery, fate->fate, fate->when_ms, server);
    pg->spare.fates_missing++;
}

void pg_spare_answered(struct pg_spool *pg, const struct pg_group *group)
{
    struct pg_spare *spare = &pg->spare;
    const struct pg_send_spare *spares = (const void *)group->spares.data;
    uint64_t before = spare->fates_missing;
    pg_batch_begin(&pg->spool);
    for (size_t i = 0; i < group->spares.length / sizeof(*spares); i++) {
        if (spares[i].missing && spares[i].fate == 0) {
            message_is_missing(pg, &spares[i]);
        } else if (spares[i].missing) {
            fate_is_missing(pg, &spares[i]);
        }
    }
    if (spare->fates_missing > before) {
        pg_batch_submit(&pg->spool, SPOOL_SYNCED, NULL, NULL);
    } else {
        pg_batch_cancel(&pg->spool);
    }
    if (group->spares_round == spare->round) {
        spare->asked = group->spares_upto;
    }
}
