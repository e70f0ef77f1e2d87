/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that is freed all at once: one arena per request or session.
 */
#ifndef HOLDFAST_BASE_ARENA_H
#define HOLDFAST_BASE_ARENA_H

#include "base/slice.h"

struct arena_block;
struct arena {
    struct arena_block *newest;
    size_t used; /* bytes handed out since init or reset */
};

void arena_init(struct arena *arena);
void arena_done(struct arena *arena);
/* Frees all but keeps one block for the next use. */
void arena_reset(struct arena *arena);
/* Zeroed, aligned to 16. NULL when memory is out. */
void *arena_allocate(struct arena *arena, size_t size);
/* A copy followed by a NUL byte that the length does not count. data is NULL when memory is out. */
struct slice arena_copy(struct arena *arena, struct slice bytes);

#endif
