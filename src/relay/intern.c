/* SPDX-License-Identifier: Apache-2.0
 *
 * The map holds number + 1, for it takes no null values.
 */
#include "relay/intern.h"

#include <assert.h>
#include <stdlib.h>

struct interned {
    uint8_t *text; /* NULL: free */
    uint64_t hash;
    uint32_t length;
    uint32_t references; /* of a free one: the next free */
};

void intern_init(struct intern *intern, struct hash_key key, uint32_t limit)
{
    *intern = (struct intern){.key = key, .free = INTERN_NONE, .limit = limit};
    map_init(&intern->by_hash);
}

void intern_done(struct intern *intern)
{
    for (uint32_t i = 0; i < intern->used; i++) {
        free(intern->strings[i].text);
    }
    free(intern->strings);
    map_done(&intern->by_hash);
    *intern = (struct intern){0};
}

static uint32_t new_number(struct intern *intern)
{
    if (intern->free != INTERN_NONE) {
        uint32_t number = intern->free;
        intern->free = intern->strings[number].references;
        return number;
    }
    if (intern->used == intern->room) {
        uint32_t room = intern->room == 0 ? 64 : intern->room * 2;
        struct interned *more = realloc(intern->strings, room * sizeof *more);
        if (more == NULL) {
            return INTERN_NONE;
        }
        intern->strings = more;
        intern->room = room;
    }
    intern->strings[intern->used] = (struct interned){0};
    return intern->used++;
}

static void give_back(struct intern *intern, uint32_t number)
{
    free(intern->strings[number].text);
    intern->strings[number] = (struct interned){.references = intern->free};
    intern->free = number;
}

uint32_t intern_take(struct intern *intern, struct slice text)
{
    uint64_t hash = hash_bytes(intern->key, text);
    uintptr_t known = (uintptr_t)map_get(&intern->by_hash, hash);
    if (known != 0) {
        uint32_t number = (uint32_t)(known - 1);
        struct interned *string = &intern->strings[number];
        if (slice_equal(slice_make(string->text, string->length), text)) {
            string->references++;
            return number;
        }
        return INTERN_NONE; /* two strings of one 64-bit keyed hash: never in practice */
    }
    if (intern->live == intern->limit || text.length > UINT32_MAX - 1) {
        return INTERN_NONE;
    }
    uint32_t number = new_number(intern);
    if (number == INTERN_NONE) {
        return INTERN_NONE;
    }
    struct interned *string = &intern->strings[number];
    *string = (struct interned){malloc(text.length + 1), hash, (uint32_t)text.length, 1};
    if (string->text == NULL ||
        map_put(&intern->by_hash, hash, (void *)((uintptr_t)number + 1)) != ERROR_NONE) {
        give_back(intern, number);
        return INTERN_NONE;
    }
    if (text.length > 0) {
        memcpy(string->text, text.data, text.length);
    }
    intern->live++;
    return number;
}

bool intern_has(const struct intern *intern, struct slice text)
{
    uintptr_t known = (uintptr_t)map_get(&intern->by_hash, hash_bytes(intern->key, text));
    return known != 0 && slice_equal(intern_text(intern, (uint32_t)(known - 1)), text);
}

void intern_again(struct intern *intern, uint32_t number)
{
    if (number != INTERN_NONE) {
        assert(number < intern->used && intern->strings[number].text != NULL);
        intern->strings[number].references++;
    }
}

void intern_drop(struct intern *intern, uint32_t number)
{
    if (number == INTERN_NONE) {
        return;
    }
    assert(number < intern->used && intern->strings[number].text != NULL);
    if (--intern->strings[number].references == 0) {
        map_remove(&intern->by_hash, intern->strings[number].hash);
        give_back(intern, number);
        intern->live--;
    }
}

struct slice intern_text(const struct intern *intern, uint32_t number)
{
    if (number == INTERN_NONE) {
        return SLICE_EMPTY;
    }
    assert(number < intern->used && intern->strings[number].text != NULL);
    return slice_make(intern->strings[number].text, intern->strings[number].length);
}
