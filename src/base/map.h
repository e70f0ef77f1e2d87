/* SPDX-License-Identifier: Apache-2.0
 *
 * A hash table from 64-bit keys to pointers, for tokens, jobs and sessions: numbers that our own
 * processes choose. Open addressing; memory is at most 32 bytes an entry, freed by map_done() only.
 */
#ifndef HOLDFAST_BASE_MAP_H
#define HOLDFAST_BASE_MAP_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct map_entry {
    uint64_t key;
    void *value; /* NULL: free */
};

struct map {
    struct map_entry *entries;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
};

void map_init(struct map *map);
void map_done(struct map *map);
/* NULL: no such key. */
void *map_get(const struct map *map, uint64_t key);
/* The key must be new, the value not NULL. ERROR_MEMORY. */
enum error map_put(struct map *map, uint64_t key, void *value) MUST_CHECK;
/* The value that was there, or NULL. */
void *map_remove(struct map *map, uint64_t key);
/* All values one by one, from a cursor that starts at 0; NULL at the end. No changes meanwhile. */
void *map_next(const struct map *map, size_t *cursor);

#endif
