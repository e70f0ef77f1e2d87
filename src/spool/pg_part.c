/* SPDX-License-Identifier: Apache-2.0
 *
 * The parts that are here: what a handle stands for.
 */
#include "spool/pg_internal.h"

#include <assert.h>
#include <stdlib.h>

static bool owners_reserve(struct pg_spool *pg, uint32_t index)
{
    if (index < pg->owner_capacity) {
        return true;
    }
    uint32_t capacity = pg->owner_capacity == 0 ? 1024 : pg->owner_capacity * 2;
    struct pg_share **grown = realloc(pg->owners, capacity * sizeof(struct pg_share *));
    if (grown == NULL) {
        return false;
    }
    pg->owners = grown;
    pg->owner_capacity = capacity;
    return true;
}

enum error pg_part_add(struct pg_spool *pg, struct message_id id, uint32_t recipients,
                       uint64_t content, struct pg_share *share, uint32_t *ret_part)
{
    uint32_t part;
    enum error error = table_add(&pg->table, id, &part);
    if (error != ERROR_NONE) {
        return error;
    }
    struct stored *stored = table_at(&pg->table, part);
    error =
        owners_reserve(pg, part) ? stored_prepare(stored, part, recipients, 0, 0) : ERROR_MEMORY;
    if (error != ERROR_NONE) {
        table_hide(&pg->table, part);
        table_free(&pg->table, part);
        return error;
    }
    stored->flags |= STORED_PENDING;
    stored->offset = PG_NO_JOURNAL;
    stored->content_low = (uint32_t)content;
    stored->content_high = (uint8_t)(content >> 32);
    pg->owners[part] = share;
    *ret_part = part;
    return ERROR_NONE;
}

struct stored *pg_part_of(const struct pg_spool *pg, uint32_t part, struct message_id id)
{
    if (part == STORED_NONE || !table_holds(&pg->table, part)) {
        return NULL;
    }
    struct stored *stored = table_at(&pg->table, part);
    return id_equal(stored->id, id) && (stored->flags & STORED_FINISHED) == 0 ? stored : NULL;
}

uint32_t pg_part_find(const struct pg_spool *pg, struct message_id id, const struct pg_share *share)
{
    uint32_t part = table_find(&pg->table, id);
    while (part != STORED_NONE &&
           (!id_equal(table_at(&pg->table, part)->id, id) || pg->owners[part] != share)) {
        part = table_at(&pg->table, part)->next;
    }
    return part;
}

void pg_part_appear(struct pg_spool *pg, uint32_t part)
{
    struct stored *stored = table_at(&pg->table, part);
    assert((stored->flags & STORED_PENDING) != 0);
    stored->flags &= (uint8_t)~STORED_PENDING;
    pg->messages++;
    pg->live_bytes += stored_content(stored);
    if (stored->sequence > pg->last_sequence) {
        pg->last_sequence = stored->sequence;
    }
}

static void part_free(struct pg_spool *pg, uint32_t part)
{
    uint32_t journal = table_at(&pg->table, part)->offset;
    table_free(&pg->table, part);
    struct pg_local *local = pg_local_at(pg, journal);
    if (local != NULL) {
        assert(local->refs > 0);
        local->refs--;
        pg_local_release(pg, journal);
    }
}

void pg_part_forget(struct pg_spool *pg, uint32_t part)
{
    table_hide(&pg->table, part);
    part_free(pg, part);
}

void pg_part_end(struct pg_spool *pg, uint32_t part)
{
    struct stored *stored = table_at(&pg->table, part);
    assert((stored->flags & (STORED_PENDING | STORED_FINISHED)) == 0);
    stored->flags |= STORED_FINISHED;
    pg->messages--;
    pg->live_bytes -= stored_content(stored);
    table_hide(&pg->table, part);
    if (stored->pins == 0) {
        part_free(pg, part);
    }
}

void pg_part_fate(struct pg_spool *pg, uint32_t part, uint32_t delivery, uint8_t fate)
{
    struct stored *stored = table_at(&pg->table, part);
    stored_set_fate(stored, delivery, fate);
    pg_ended(pg, stored->id, delivery, fate);
    assert(stored->left > 0);
    if (--stored->left == 0) {
        pg_part_end(pg, part);
    }
}

void pg_part_link(struct pg_spool *pg, uint32_t part, uint32_t journal)
{
    struct stored *stored = table_at(&pg->table, part);
    assert(stored->offset == PG_NO_JOURNAL);
    stored->offset = journal;
    pg_local_at(pg, journal)->refs++;
    if (stored->pins > 0) {
        spool_pin(pg->journal, (struct spool_handle){journal});
    }
}

bool pg_part_link_known(struct pg_spool *pg, uint32_t part, struct message_id id)
{
    uint32_t journal;
    const struct pg_local *local = pg_local_of(pg, id, &journal);
    bool links = local != NULL && !local->ending;
    if (links) {
        pg_part_link(pg, part, journal);
    }
    return links;
}

/* ---- spool.h ----------------------------------------------------------------------------- */

struct spool_handle pg_find(const struct spool *spool, struct message_id id)
{
    const struct pg_spool *pg = pg_of(spool);
    uint32_t part = table_find(&pg->table, id);
    if (part == STORED_NONE || (table_at(&pg->table, part)->flags & STORED_PENDING) != 0) {
        return SPOOL_NO_HANDLE;
    }
    return (struct spool_handle){part};
}

/* The journal forgets a message when the database has it and it was told, and the database takes
 * an id once. */
bool pg_was_stored(const struct spool *spool, struct message_id id)
{
    return spool_was_stored(pg_of(spool)->journal, id);
}

struct spool_handle pg_find_delivery(const struct spool *spool, struct message_id id,
                                     uint32_t delivery)
{
    const struct pg_spool *pg = pg_of(spool);
    for (uint32_t part = table_find(&pg->table, id); part != STORED_NONE;
         part = table_find_next(&pg->table, part)) {
        const struct stored *stored = table_at(&pg->table, part);
        if ((stored->flags & STORED_PENDING) == 0 && delivery < stored->recipients &&
            stored_fate(stored, delivery) != PG_FATE_ELSEWHERE) {
            return (struct spool_handle){part};
        }
    }
    return SPOOL_NO_HANDLE;
}

struct spool_handle spool_postgres_next_part(const struct spool *spool, struct message_id id,
                                             int32_t share)
{
    const struct pg_spool *pg = pg_of(spool);
    uint32_t found = STORED_NONE;
    for (uint32_t part = table_find(&pg->table, id); part != STORED_NONE;
         part = table_find_next(&pg->table, part)) {
        bool is_here = (table_at(&pg->table, part)->flags & STORED_PENDING) == 0;
        if (is_here && pg->owners[part]->number > share &&
            (found == STORED_NONE || pg->owners[part]->number < pg->owners[found]->number)) {
            found = part;
        }
    }
    return found == STORED_NONE ? SPOOL_NO_HANDLE : (struct spool_handle){found};
}

bool spool_postgres_is_elsewhere(const struct spool *spool, struct spool_handle handle,
                                 uint32_t delivery)
{
    return pg_fate_of(spool, handle, delivery) == PG_FATE_ELSEWHERE;
}

struct message_id pg_id(const struct spool *spool, struct spool_handle handle)
{
    return table_at(&pg_of(spool)->table, handle.index)->id;
}

uint64_t pg_sequence(const struct spool *spool, struct spool_handle handle)
{
    return table_at(&pg_of(spool)->table, handle.index)->sequence;
}

unsigned pg_fate_of(const struct spool *spool, struct spool_handle handle, uint32_t delivery)
{
    return stored_fate(table_at(&pg_of(spool)->table, handle.index), delivery) &
           (STORED_FATE_UNDERWAY - 1);
}

void pg_pin(struct spool *spool, struct spool_handle handle)
{
    struct pg_spool *pg = pg_of(spool);
    struct stored *stored = table_at(&pg->table, handle.index);
    assert(stored->pins < UINT16_MAX);
    if (stored->pins++ == 0 && stored->offset != PG_NO_JOURNAL) {
        spool_pin(pg->journal, (struct spool_handle){stored->offset});
    }
}

void pg_unpin(struct spool *spool, struct spool_handle handle)
{
    struct pg_spool *pg = pg_of(spool);
    struct stored *stored = table_at(&pg->table, handle.index);
    assert(stored->pins > 0);
    if (--stored->pins > 0) {
        return;
    }
    if (stored->offset != PG_NO_JOURNAL) {
        spool_unpin(pg->journal, (struct spool_handle){stored->offset});
    }
    if ((stored->flags & STORED_FINISHED) != 0) {
        part_free(pg, handle.index);
    }
}
