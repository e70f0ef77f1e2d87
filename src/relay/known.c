/* SPDX-License-Identifier: Apache-2.0
 *
 * Buckets of four: a key lies in its bucket or nowhere, so looking for one is short and forgetting
 * leaves no gap to mind.
 */
#include "relay/known.h"

#include <stdlib.h>

enum { BUCKET = 4, FIRST_ROOM = 256 };

void known_done(struct known *known)
{
    free(known->keys);
    *known = (struct known){0};
}

static uint64_t *bucket_of(const struct known *known, uint64_t key)
{
    return &known->keys[key & (known->room - 1) & ~(uint64_t)(BUCKET - 1)];
}

static uint64_t *find(const struct known *known, uint64_t key)
{
    for (uint32_t i = 0; key != 0 && known->room > 0 && i < BUCKET; i++) {
        if (bucket_of(known, key)[i] == key) {
            return &bucket_of(known, key)[i];
        }
    }
    return NULL;
}

static void place(struct known *known, uint64_t key)
{
    uint64_t *bucket = bucket_of(known, key);
    for (uint32_t i = 0; i < BUCKET; i++) {
        if (bucket[i] == 0) {
            bucket[i] = key;
            known->used++;
            return;
        }
    }
    bucket[key >> 62] = key;
}

static void grow(struct known *known)
{
    struct known more = {.room = known->room == 0 ? FIRST_ROOM : known->room * 2};
    more.keys = calloc(more.room, sizeof *more.keys);
    if (more.keys == NULL) {
        return;
    }
    for (uint32_t i = 0; i < known->room; i++) {
        if (known->keys[i] != 0) {
            place(&more, known->keys[i]);
        }
    }
    known_done(known);
    *known = more;
}

void known_put(struct known *known, uint64_t key)
{
    if (key == 0 || find(known, key) != NULL) {
        return;
    }
    if (known->room < KNOWN_MAX && known->used >= known->room / 2) {
        grow(known);
    }
    if (known->room > 0) {
        place(known, key);
    }
}

bool known_has(const struct known *known, uint64_t key)
{
    return find(known, key) != NULL;
}
