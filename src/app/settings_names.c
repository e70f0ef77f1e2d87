/* SPDX-License-Identifier: Apache-2.0
 *
 * A table from names to numbers: open addressing, at most half full. The names come from the
 * administrator's own files, so a fixed key does.
 */
#include "app/settings_internal.h"
#include "base/hash.h"

#include <stdlib.h>

struct names_slot {
    struct slice name;
    uint32_t number;
    uint32_t source; /* with a line as number: names_once() */
};

static const struct hash_key key = {0x686f6c6466617374, 0x73657474696e6773};

void names_init(struct names *names)
{
    *names = (struct names){0};
}

void names_done(struct names *names)
{
    free(names->slots);
    names_init(names);
}

static struct names_slot *slot_of(const struct names *names, struct slice name)
{
    uint64_t at = hash_bytes_fold(key, name);
    for (;; at++) {
        struct names_slot *slot = &names->slots[at & (names->capacity - 1)];
        if (slot->name.data == NULL || slice_equal_fold(slot->name, name)) {
            return slot;
        }
    }
}

static bool grow(struct names *names)
{
    struct names larger = {.capacity = names->capacity == 0 ? 64 : names->capacity * 2,
                           .count = names->count};
    larger.slots = calloc(larger.capacity, sizeof(*larger.slots));
    if (larger.slots == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < names->capacity; i++) {
        if (names->slots[i].name.data != NULL) {
            *slot_of(&larger, names->slots[i].name) = names->slots[i];
        }
    }
    free(names->slots);
    *names = larger;
    return true;
}

uint32_t names_add(struct settings *settings, struct names *names, struct slice name,
                   uint32_t number)
{
    if (names->count >= names->capacity / 2 && !grow(names)) {
        settings->out_of_memory = true;
        return NO_INDEX;
    }
    struct names_slot *slot = slot_of(names, name);
    if (slot->name.data != NULL) {
        return slot->number;
    }
    *slot = (struct names_slot){.name = name, .number = number};
    names->count++;
    return NO_INDEX;
}

bool names_once(struct settings *settings, struct names *names, struct slice name, struct place at,
                const char *what)
{
    uint32_t known = names_add(settings, names, name, at.line);
    if (settings->out_of_memory) {
        return true;
    }
    struct names_slot *slot = slot_of(names, name);
    if (known == NO_INDEX) {
        slot->source = at.source;
    } else {
        settings_complain(settings, at, "%s '%.*s' is there twice; first in %s", what, SHOWN(name),
                          settings_line(settings, at, (struct place){slot->source, known}));
    }
    return known == NO_INDEX;
}

uint32_t names_find(const struct names *names, struct slice name)
{
    if (names->capacity == 0 || name.data == NULL) {
        return NO_INDEX;
    }
    const struct names_slot *slot = slot_of(names, name);
    return slot->name.data == NULL ? NO_INDEX : slot->number;
}

struct slice names_nearest(const struct names *names, struct slice name)
{
    struct slice nearest = SLICE_EMPTY;
    unsigned best = UINT32_MAX;
    for (uint32_t i = 0; i < names->capacity; i++) {
        if (names->slots[i].name.data != NULL &&
            settings_is_near(name, names->slots[i].name, &best)) {
            nearest = names->slots[i].name;
        }
    }
    return nearest;
}
