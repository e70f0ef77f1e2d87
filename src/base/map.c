/* SPDX-License-Identifier: Apache-2.0
 *
 * Linear probing; a removal shifts back what follows, so there are no tombstones and a table that
 * breathes for months stays as fast as a new one.
 */
#include "base/map.h"

#include <assert.h>
#include <stdlib.h>

enum { CAPACITY_MIN = 64 };

void map_init(struct map *map)
{
    *map = (struct map){0};
}

void map_done(struct map *map)
{
    free(map->entries);
    map_init(map);
}

static size_t home(const struct map *map, uint64_t key)
{
    key *= 0x9e3779b97f4a7c15ULL; /* 2^64 / golden ratio: spreads counters over the high bits */
    return (size_t)(key >> 32) & (map->capacity - 1);
}

static size_t find(const struct map *map, uint64_t key)
{
    size_t at = home(map, key);
    while (map->entries[at].value != NULL && map->entries[at].key != key) {
        at = (at + 1) & (map->capacity - 1);
    }
    return at;
}

void *map_get(const struct map *map, uint64_t key)
{
    return map->count == 0 ? NULL : map->entries[find(map, key)].value;
}

static enum error grow(struct map *map)
{
    struct map larger = {.capacity = map->capacity == 0 ? CAPACITY_MIN : map->capacity * 2,
                         .count = map->count};
    larger.entries = calloc(larger.capacity, sizeof(*larger.entries));
    if (larger.entries == NULL) {
        return ERROR_MEMORY;
    }
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->entries[i].value != NULL) {
            larger.entries[find(&larger, map->entries[i].key)] = map->entries[i];
        }
    }
    free(map->entries);
    *map = larger;
    return ERROR_NONE;
}

enum error map_put(struct map *map, uint64_t key, void *value)
{
    assert(value != NULL);
    if (map->count * 4 >= map->capacity * 3) {
        enum error error = grow(map);
        if (error != ERROR_NONE) {
            return error;
        }
    }
    struct map_entry *entry = &map->entries[find(map, key)];
    assert(entry->value == NULL);
    *entry = (struct map_entry){key, value};
    map->count++;
    return ERROR_NONE;
}

void *map_remove(struct map *map, uint64_t key)
{
    if (map->count == 0) {
        return NULL;
    }
    size_t mask = map->capacity - 1;
    size_t hole = find(map, key);
    void *value = map->entries[hole].value;
    if (value == NULL) {
        return NULL;
    }
    for (size_t at = (hole + 1) & mask; map->entries[at].value != NULL; at = (at + 1) & mask) {
        /* An entry may move into the hole unless its home lies behind the hole. */
        if (((at - home(map, map->entries[at].key)) & mask) >= ((at - hole) & mask)) {
            map->entries[hole] = map->entries[at];
            hole = at;
        }
    }
    map->entries[hole].value = NULL;
    map->count--;
    return value;
}

void *map_next(const struct map *map, size_t *cursor)
{
    while (*cursor < map->capacity) {
        void *value = map->entries[(*cursor)++].value;
        if (value != NULL) {
            return value;
        }
    }
    return NULL;
}
