/* SPDX-License-Identifier: Apache-2.0
 *
 * The shares that are known here, and which of them are ours.
 */
#include "spool/pg_internal.h"

#include "sys/clock.h"

#include <assert.h>
#include <stdlib.h>

struct pg_share *pg_share_named(struct pg_spool *pg, struct slice name)
{
    uint64_t hash = hash_bytes(pg->key, name);
    struct pg_share *first = map_get(&pg->names, hash);
    for (struct pg_share *share = first; share != NULL; share = share->next) {
        if (slice_equal(slice_make(share->name, share->length), name)) {
            return share;
        }
    }
    struct pg_share *share = calloc(1, sizeof(*share) + name.length + 1);
    if (share == NULL) {
        return NULL;
    }
    share->number = -1;
    share->length = name.length;
    memcpy(share->name, name.data, name.length);
    if (first != NULL) {
        share->next = first->next;
        first->next = share;
    } else if (map_put(&pg->names, hash, share) != ERROR_NONE) {
        free(share);
        return NULL;
    }
    return share;
}

/* One that is taken before mail for it came has no name here, and gets another entry with it. */
struct pg_share *pg_share_numbered(struct pg_spool *pg, int32_t number)
{
    struct pg_share *share = map_get(&pg->numbers, (uint64_t)number);
    if (share != NULL) {
        return share;
    }
    share = calloc(1, sizeof(*share) + 1);
    if (share != NULL) {
        share->number = number;
        if (map_put(&pg->numbers, (uint64_t)number, share) != ERROR_NONE) {
            free(share);
            share = NULL;
        }
    }
    return share;
}

void pg_shares_free(struct pg_spool *pg)
{
    size_t cursor = 0;
    struct pg_share *share;
    while ((share = map_next(&pg->names, &cursor)) != NULL) {
        while (share != NULL) {
            struct pg_share *next = share->next;
            free(share);
            share = next;
        }
    }
    cursor = 0;
    while ((share = map_next(&pg->numbers, &cursor)) != NULL) {
        free(share);
    }
    map_done(&pg->names);
    map_done(&pg->numbers);
}

/* ---- the parts of a message -------------------------------------------------------------- */

static struct pg_new_part *part_for(struct pg_new *fresh, struct pg_share *share)
{
    for (uint32_t i = 0; i < fresh->part_count; i++) {
        if (fresh->parts[i].share == share) {
            return &fresh->parts[i];
        }
    }
    fresh->parts[fresh->part_count] = (struct pg_new_part){.share = share, .part = STORED_NONE};
    return &fresh->parts[fresh->part_count++];
}

static enum error share_of_each(struct pg_spool *pg, const struct spool_message *message,
                                struct pg_share **ret_shares)
{
    uint8_t buffer[SPOOL_SHARE_MAX];
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        struct slice name = pg->shares.name(pg->shares.context, message, i, buffer);
        assert(name.length > 0 && name.length <= SPOOL_SHARE_MAX);
        ret_shares[i] = pg_share_named(pg, name);
        if (ret_shares[i] == NULL) {
            return ERROR_MEMORY;
        }
    }
    return ERROR_NONE;
}

enum error pg_share_out(struct pg_spool *pg, const struct spool_message *message,
                        struct arena *arena, struct pg_new *fresh)
{
    uint32_t count = message->recipient_count;
    fresh->part_count = 0;
    fresh->parts = arena_allocate(arena, (pg->shared ? count : 1) * sizeof(*fresh->parts));
    if (fresh->parts == NULL) {
        return ERROR_MEMORY;
    }
    if (!pg->shared) {
        part_for(fresh, pg->only)->count = count;
        return ERROR_NONE;
    }
    struct pg_share **each = calloc(count, sizeof(struct pg_share *));
    enum error error = each == NULL ? ERROR_MEMORY : share_of_each(pg, message, each);
    for (uint32_t i = 0; i < count && error == ERROR_NONE; i++) {
        part_for(fresh, each[i])->count++;
    }
    for (uint32_t p = 0; p < fresh->part_count && fresh->part_count > 1; p++) {
        struct pg_new_part *part = &fresh->parts[p];
        int32_t *deliveries = arena_allocate(arena, part->count * sizeof(*deliveries));
        if (deliveries == NULL) {
            error = ERROR_MEMORY;
            break;
        }
        part->deliveries = deliveries;
        for (uint32_t i = 0; i < count; i++) {
            if (each[i] == part->share) {
                *deliveries++ = (int32_t)i;
            }
        }
    }
    free(each);
    return error;
}

/* ---- owning ------------------------------------------------------------------------------ */

bool pg_lease_holds(const struct pg_spool *pg)
{
    return !pg->shared || pg->lease_until_ms - clock_steady_ms() >= SPOOL_LEASE_MS;
}

void spool_postgres_lease(struct spool *spool, int64_t good_until_steady_ms)
{
    struct pg_spool *pg = pg_of(spool);
    pg->lease_until_ms = good_until_steady_ms;
    pg_pump_later(pg);
}

void spool_postgres_time(struct spool *spool, int64_t wall_ms)
{
    pg_of(spool)->time_ahead_ms = wall_ms - clock_steady_ms();
}

void spool_postgres_take(struct spool *spool, int32_t number, int64_t token)
{
    struct pg_spool *pg = pg_of(spool);
    assert(pg->shared);
    struct pg_share *share = pg_share_numbered(pg, number);
    if (share == NULL) {
        return; /* nobody works on it; memory is out */
    }
    share->token = token;
    share->leaving = false;
    if (share->owned || share->taking) {
        pg_load_next(pg); /* it may have been left out */
        return;
    }
    if (pg_load_begin(pg, share) != ERROR_NONE) {
        return;
    }
    share->taking = true;
    share->stale = false;
    pg_load_next(pg);
}

void spool_postgres_leave(struct spool *spool, int32_t number)
{
    struct pg_spool *pg = pg_of(spool);
    struct pg_share *share = map_get(&pg->numbers, (uint64_t)number);
    if (share == NULL || (!share->owned && !share->taking)) {
        return;
    }
    share->leaving = true;
    pg_pump_later(pg);
}

void pg_share_lost(struct pg_spool *pg, struct pg_share *share)
{
    if ((share->owned || share->taking) && !share->stale) {
        share->stale = true;
        share->telling = pg->shares.stale != NULL;
        share->leaving |= !share->telling;
        pg_pump_later(pg);
    }
}

void spool_postgres_set_node(struct spool *spool, uint16_t node)
{
    struct pg_spool *pg = pg_of(spool);
    if (!pg_has_joined(pg)) {
        pg->settings.node = node;
        pg_set_up(pg, true, "");
    }
    pg_load_next(pg);
    pg_pump_later(pg);
}

int32_t spool_postgres_share(const struct spool *spool, struct spool_handle handle)
{
    return pg_of(spool)->owners[handle.index]->number;
}

static bool is_part_of(const struct pg_spool *pg, uint32_t part, const struct pg_share *share)
{
    const struct stored *stored = table_at(&pg->table, part);
    return !id_is_null(stored->id) && pg->owners[part] == share &&
           (stored->flags & (STORED_FINISHED | STORED_PENDING)) == 0;
}

void spool_postgres_parts(const struct spool *spool, int32_t number,
                          void (*fn)(void *context, struct spool_handle handle), void *context)
{
    const struct pg_spool *pg = pg_of(spool);
    const struct pg_share *share = map_get(&pg->numbers, (uint64_t)number);
    for (uint32_t i = 0; share != NULL && i < pg->table.used; i++) {
        if (is_part_of(pg, i, share)) {
            fn(context, (struct spool_handle){i});
        }
    }
}

static void leave(struct pg_spool *pg, struct pg_share *share)
{
    bool stale = share->stale;
    share->owned = share->taking = share->anew = share->leaving = share->stale = false;
    pg_load_stop(pg, share);
    pg_refuse_held(pg, share);
    pg->shares.left(pg->shares.context, share->number, stale);
    for (uint32_t i = 0; i < pg->table.used; i++) {
        if (is_part_of(pg, i, share)) {
            pg_part_end(pg, i);
        }
    }
}

void pg_shares_settle(struct pg_spool *pg)
{
    size_t cursor = 0;
    struct pg_share *share;
    while ((share = map_next(&pg->numbers, &cursor)) != NULL) {
        if (share->telling) {
            share->telling = false;
            pg->shares.stale(pg->shares.context, share->number);
            cursor = 0;
        } else if (share->leaving && (share->owned || share->taking) && !pg_load_is_at(pg, share)) {
            leave(pg, share);
            cursor = 0; /* it may have taken another */
        }
    }
}
