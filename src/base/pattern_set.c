/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pattern_set.h"

#include <stdint.h>
#include <stdlib.h>

/* A pattern without its leading `*`; whether it had one is a part of what is compared. */
struct slot {
    struct slice tail; /* data NULL: free */
    bool is_open;
};

struct pattern_set {
    struct hash_key key;
    const struct slice *patterns;
    uint32_t *others; /* indexes of those that are tried one by one */
    size_t other_count;
    size_t mask;
    struct slot slots[];
};

/* A tail that begins where a name can be divided: found by looking at the few places there are. */
static bool is_hashed(struct slice pattern)
{
    bool open = pattern.length > 1 && pattern.data[0] == '*';
    struct slice tail = slice_skip(pattern, open ? 1 : 0);
    return tail.length > 0 && slice_find(tail, '*') == tail.length &&
           (!open || tail.data[0] == '@' || tail.data[0] == '.');
}

static struct slot *find(const struct pattern_set *set, struct slice tail, bool open)
{
    size_t at = hash_bytes_fold(set->key, tail) + (open ? 1 : 0);
    for (;; at++) {
        const struct slot *slot = &set->slots[at & set->mask];
        if (slot->tail.data == NULL ||
            (slot->is_open == open && slice_equal_fold(slot->tail, tail))) {
            return (struct slot *)slot;
        }
    }
}

struct pattern_set *pattern_set_new(struct hash_key key, const struct slice *patterns, size_t count)
{
    size_t capacity = 4;
    while (capacity < 2 * count && capacity < SIZE_MAX / 4 / sizeof(struct slot)) {
        capacity *= 2;
    }
    struct pattern_set *set = calloc(1, sizeof(*set) + capacity * sizeof(struct slot));
    uint32_t *others = calloc(count + 1, sizeof(*others));
    if (set == NULL || others == NULL || capacity < 2 * count || count > UINT32_MAX) {
        free(set);
        free(others);
        return NULL;
    }
    set->key = key;
    set->patterns = patterns;
    set->others = others;
    set->mask = capacity - 1;
    for (size_t i = 0; i < count; i++) {
        if (is_hashed(patterns[i])) {
            bool open = patterns[i].data[0] == '*';
            struct slice tail = slice_skip(patterns[i], open ? 1 : 0);
            *find(set, tail, open) = (struct slot){tail, open};
        } else {
            others[set->other_count++] = (uint32_t)i;
        }
    }
    return set;
}

void pattern_set_free(struct pattern_set *set)
{
    if (set != NULL) {
        free(set->others);
        free(set);
    }
}

bool pattern_set_matches(const struct pattern_set *set, struct slice text)
{
    if (text.length > 0 && find(set, text, false)->tail.data != NULL) {
        return true;
    }
    for (size_t i = 0; i < text.length; i++) {
        if ((text.data[i] == '@' || text.data[i] == '.') &&
            find(set, slice_skip(text, i), true)->tail.data != NULL) {
            return true;
        }
    }
    for (size_t i = 0; i < set->other_count; i++) {
        if (slice_matches_fold(text, set->patterns[set->others[i]])) {
            return true;
        }
    }
    return false;
}
