/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <stdalign.h>
#include <stdlib.h>

struct arena_block {
    struct arena_block *older;
    size_t capacity;
    size_t used;
    alignas(16) uint8_t data[];
};

enum { BLOCK_BYTES = 2048 };

void arena_init(struct arena *arena)
{
    *arena = (struct arena){0};
}

static void free_from(struct arena_block *block)
{
    while (block != NULL) {
        struct arena_block *older = block->older;
        free(block);
        block = older;
    }
}

void arena_done(struct arena *arena)
{
    free_from(arena->newest);
    arena_init(arena);
}

void arena_reset(struct arena *arena)
{
    struct arena_block *keep = arena->newest;
    if (keep != NULL) {
        free_from(keep->older);
        keep->older = NULL;
        keep->used = 0;
    }
    arena->used = 0;
}

void *arena_allocate(struct arena *arena, size_t size)
{
    size_t need;
    if (__builtin_add_overflow(size, (size_t)15, &need)) {
        return NULL;
    }
    need &= ~(size_t)15;
    struct arena_block *block = arena->newest;
    if (block == NULL || block->capacity - block->used < need) {
        size_t capacity = need > BLOCK_BYTES ? need : BLOCK_BYTES;
        size_t total;
        if (__builtin_add_overflow(capacity, sizeof(struct arena_block), &total)) {
            return NULL;
        }
        block = malloc(total);
        if (block == NULL) {
            return NULL;
        }
        block->older = arena->newest;
        block->capacity = capacity;
        block->used = 0;
        arena->newest = block;
    }
    void *result = block->data + block->used;
    block->used += need;
    arena->used += need;
    memset(result, 0, need);
    return result;
}

struct slice arena_copy(struct arena *arena, struct slice bytes)
{
    uint8_t *copy = arena_allocate(arena, bytes.length + 1);
    if (copy == NULL) {
        return SLICE_EMPTY;
    }
    if (bytes.length > 0) {
        memcpy(copy, bytes.data, bytes.length);
    }
    return slice_make(copy, bytes.length);
}
