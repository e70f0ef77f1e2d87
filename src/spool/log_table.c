/* SPDX-License-Identifier: Apache-2.0 */
#include "spool/log_table.h"

#include "sys/random.h"

#include <assert.h>
#include <stdlib.h>

enum {
    CHUNK_SHIFT = 10,
    CHUNK = 1 << CHUNK_SHIFT,
    BUCKETS_SHIFT = 12,
    BUCKETS = 1 << BUCKETS_SHIFT,
};

/* ---- chunks ------------------------------------------------------------------------------ */

/* The lists of chunks are short (one pointer for 56 KB), so doubling them is no spike. */
static bool list_grow(void ***list, uint32_t count, uint32_t *capacity)
{
    if (count < *capacity) {
        return true;
    }
    uint32_t larger = *capacity == 0 ? 16 : *capacity * 2;
    void **grown = realloc(*list, larger * sizeof(void *));
    if (grown == NULL) {
        return false;
    }
    *list = grown;
    *capacity = larger;
    return true;
}

struct stored *table_at(const struct table *table, uint32_t index)
{
    assert(index < table->used);
    return &table->chunks[index >> CHUNK_SHIFT][index & (CHUNK - 1)];
}

bool table_holds(const struct table *table, uint32_t index)
{
    return index < table->used;
}

static uint32_t *bucket_at(const struct table *table, uint32_t bucket)
{
    return &table->buckets[bucket >> BUCKETS_SHIFT][bucket & (BUCKETS - 1)];
}

static enum error add_bucket(struct table *table)
{
    if ((table->bucket_count & (BUCKETS - 1)) == 0) {
        if (!list_grow((void ***)&table->buckets, table->bucket_chunks, &table->bucket_capacity)) {
            return ERROR_MEMORY;
        }
        uint32_t *chunk = malloc(BUCKETS * sizeof(uint32_t));
        if (chunk == NULL) {
            return ERROR_MEMORY;
        }
        table->buckets[table->bucket_chunks++] = chunk;
    }
    *bucket_at(table, table->bucket_count++) = STORED_NONE;
    return ERROR_NONE;
}

enum error table_init(struct table *table)
{
    *table = (struct table){.free = STORED_NONE};
    table->key = (struct hash_key){random_u64(), random_u64()};
    enum error error = add_bucket(table);
    return error;
}

void table_done(struct table *table)
{
    for (uint32_t i = 0; i < table->used; i++) {
        stored_done(table_at(table, i));
    }
    for (uint32_t i = 0; i < table->chunk_count; i++) {
        free(table->chunks[i]);
    }
    for (uint32_t i = 0; i < table->bucket_chunks; i++) {
        free(table->buckets[i]);
    }
    free(table->chunks);
    free(table->buckets);
    *table = (struct table){.free = STORED_NONE};
}

/* ---- finding by id ----------------------------------------------------------------------- */

/* Strangers choose ids of imported mail, hence the key. */
static uint32_t *bucket_of(const struct table *table, struct message_id id)
{
    uint64_t hash = hash_bytes(table->key, slice_make(&id, sizeof(id)));
    uint32_t bucket = (uint32_t)hash & (table->mask << 1 | 1);
    if (bucket >= table->bucket_count) {
        bucket = (uint32_t)hash & table->mask;
    }
    return bucket_at(table, bucket);
}

static uint32_t find_from(const struct table *table, uint32_t index, struct message_id id)
{
    while (index != STORED_NONE && !id_equal(table_at(table, index)->id, id)) {
        index = table_at(table, index)->next;
    }
    return index;
}

uint32_t table_find(const struct table *table, struct message_id id)
{
    return find_from(table, *bucket_of(table, id), id);
}

uint32_t table_find_next(const struct table *table, uint32_t index)
{
    const struct stored *stored = table_at(table, index);
    return find_from(table, stored->next, stored->id);
}

/* One more bucket: the entries of the one that it halves are dealt out anew. A failure only makes
 * the buckets longer. */
static void split(struct table *table)
{
    uint32_t low = table->bucket_count & table->mask;
    if (table->bucket_count == (table->mask << 1 | 1) + 1) {
        table->mask = table->mask << 1 | 1;
        low = 0;
    }
    if (add_bucket(table) != ERROR_NONE) {
        return;
    }
    uint32_t *from = bucket_at(table, low);
    uint32_t index = *from;
    *from = STORED_NONE;
    while (index != STORED_NONE) {
        struct stored *stored = table_at(table, index);
        uint32_t next = stored->next;
        uint32_t *to = bucket_of(table, stored->id);
        stored->next = *to;
        *to = index;
        index = next;
    }
}

static enum error take_free(struct table *table, uint32_t *ret_index)
{
    if (table->free != STORED_NONE) {
        *ret_index = table->free;
        table->free = table_at(table, *ret_index)->next;
        return ERROR_NONE;
    }
    if ((table->used & (CHUNK - 1)) == 0) {
        if (!list_grow((void ***)&table->chunks, table->chunk_count, &table->chunk_capacity)) {
            return ERROR_MEMORY;
        }
        struct stored *chunk = calloc(CHUNK, sizeof(*chunk));
        if (chunk == NULL) {
            return ERROR_MEMORY;
        }
        table->chunks[table->chunk_count++] = chunk;
    }
    *ret_index = table->used++;
    return ERROR_NONE;
}

enum error table_add(struct table *table, struct message_id id, uint32_t *ret_index)
{
    enum error error = take_free(table, ret_index);
    if (error != ERROR_NONE) {
        return error;
    }
    struct stored *stored = table_at(table, *ret_index);
    uint32_t *bucket = bucket_of(table, id);
    *stored = (struct stored){.id = id, .next = *bucket};
    *bucket = *ret_index;
    table->count++;
    if (table->count > table->bucket_count) {
        split(table);
    }
    return ERROR_NONE;
}

void table_hide(struct table *table, uint32_t index)
{
    uint32_t *at = bucket_of(table, table_at(table, index)->id);
    while (*at != index) {
        assert(*at != STORED_NONE);
        at = &table_at(table, *at)->next;
    }
    *at = table_at(table, index)->next;
    table->count--;
}

void table_free(struct table *table, uint32_t index)
{
    struct stored *stored = table_at(table, index);
    stored_done(stored);
    *stored = (struct stored){.next = table->free};
    table->free = index;
}

/* ---- fates ------------------------------------------------------------------------------- */

enum error stored_prepare(struct stored *stored, uint32_t index, uint32_t recipients,
                          uint32_t foreign_count, uint64_t file)
{
    stored->recipients = (uint16_t)recipients;
    stored->left = (uint16_t)recipients;
    if (recipients <= STORED_INLINE_FATES && foreign_count == 0 && file == 0) {
        stored->fates = 0;
        return ERROR_NONE;
    }
    struct stored_extra *extra = calloc(1, sizeof(*extra) + (recipients + 1) / 2);
    uint32_t *foreign = calloc(foreign_count + 1, sizeof(*foreign));
    if (extra == NULL || foreign == NULL) {
        free(extra);
        free(foreign);
        return ERROR_MEMORY;
    }
    extra->stored = index;
    extra->foreign = foreign;
    extra->foreign_count = foreign_count;
    extra->file = file;
    list_init(&extra->link);
    stored->extra = extra;
    stored->flags |= STORED_EXTRA;
    return ERROR_NONE;
}

void stored_done(struct stored *stored)
{
    if ((stored->flags & STORED_EXTRA) != 0) {
        list_remove(&stored->extra->link);
        free(stored->extra->foreign);
        free(stored->extra);
        stored->flags &= (uint8_t)~STORED_EXTRA;
        stored->fates = 0;
    }
}

unsigned stored_fate(const struct stored *stored, uint32_t delivery)
{
    assert(delivery < stored->recipients);
    if ((stored->flags & STORED_EXTRA) != 0) {
        return stored->extra->fates[delivery / 2] >> (delivery % 2 * 4) & 15;
    }
    return (unsigned)(stored->fates >> (delivery * 4)) & 15;
}

void stored_set_fate(struct stored *stored, uint32_t delivery, unsigned fate)
{
    assert(delivery < stored->recipients && fate < 16);
    if ((stored->flags & STORED_EXTRA) != 0) {
        uint8_t *byte = &stored->extra->fates[delivery / 2];
        unsigned shift = delivery % 2 * 4;
        *byte = (uint8_t)((*byte & ~(15u << shift)) | fate << shift);
    } else {
        unsigned shift = delivery * 4;
        stored->fates = (stored->fates & ~((uint64_t)15 << shift)) | (uint64_t)fate << shift;
    }
}

bool stored_fates_underway(const struct stored *stored)
{
    if ((stored->flags & STORED_EXTRA) == 0) {
        return (stored->fates & 0x8888888888888888ULL) != 0;
    }
    for (uint32_t i = 0; i < ((uint32_t)stored->recipients + 1) / 2; i++) {
        if ((stored->extra->fates[i] & 0x88) != 0) {
            return true;
        }
    }
    return false;
}
