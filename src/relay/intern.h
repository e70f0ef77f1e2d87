/* SPDX-License-Identifier: Apache-2.0
 *
 * Strings kept once and counted: reasons, domains, addresses to redirect to. A delivery holds the
 * number, so a million deliveries of one domain cost one string.
 */
#ifndef HOLDFAST_RELAY_INTERN_H
#define HOLDFAST_RELAY_INTERN_H

#include "base/hash.h"
#include "base/map.h"
#include "base/slice.h"

#define INTERN_NONE UINT32_MAX

struct interned;
struct intern {
    struct hash_key key;
    struct map by_hash;
    struct interned *strings;
    uint32_t used; /* numbers ever given out */
    uint32_t room;
    uint32_t free; /* first of the free list */
    uint32_t live;
    uint32_t limit; /* most strings at once */
};

void intern_init(struct intern *intern, struct hash_key key, uint32_t limit);
void intern_done(struct intern *intern);
/* The number of this string, counted once more; INTERN_NONE: memory is out, or the limit is
 * reached. Numbers are below the limit. */
uint32_t intern_take(struct intern *intern, struct slice text);
bool intern_has(const struct intern *intern, struct slice text);
void intern_again(struct intern *intern, uint32_t number); /* INTERN_NONE is allowed */
void intern_drop(struct intern *intern, uint32_t number);  /* INTERN_NONE is allowed */
/* Valid until dropped. */
struct slice intern_text(const struct intern *intern, uint32_t number);

#endif
