/* SPDX-License-Identifier: Apache-2.0
 *
 * A cell is one number: what it is about (a part of its hash), how often that has come back, and
 * when it was seen: first, while it waits; last, when it is known.
 */
#include "service/greylist.h"

#include "base/hash.h"
#include "sys/random.h"

#include <stdatomic.h>
#include <stdlib.h>

enum {
    BUCKETS = 1 << 17,
    CELLS = 8, /* of a bucket, which is a line of the cache */
    TIME_BITS = 40,
    COUNT_BITS = 4,
    COUNT_MOST = (1 << COUNT_BITS) - 1,
    TAG_BITS = 64 - TIME_BITS - COUNT_BITS,
    NETWORK_KNOWN = 5, /* messages that came back */
};
#define MINUTE_MS INT64_C(60000)
#define RETURN_MS (2 * 24 * 60 * MINUTE_MS) /* within which it should come back */
#define KEEP_MS (36 * 24 * 60 * MINUTE_MS)  /* what is known stays so, from each time on */

struct greylist {
    struct hash_key key;
    _Atomic uint64_t cells[BUCKETS][CELLS];
};

struct seen {
    uint64_t tag; /* never 0 */
    unsigned count;
    int64_t at_ms;
};

static uint64_t pack(struct seen seen)
{
    return seen.tag << (TIME_BITS + COUNT_BITS) | (uint64_t)seen.count << TIME_BITS |
           ((uint64_t)seen.at_ms & ((UINT64_C(1) << TIME_BITS) - 1));
}

static struct seen unpack(uint64_t cell)
{
    return (struct seen){.tag = cell >> (TIME_BITS + COUNT_BITS),
                         .count = (unsigned)(cell >> TIME_BITS) & COUNT_MOST,
                         .at_ms = (int64_t)(cell & ((UINT64_C(1) << TIME_BITS) - 1))};
}

static bool is_over(struct seen seen, int64_t now_ms)
{
    return seen.tag == 0 || now_ms - seen.at_ms > (seen.count > 0 ? KEEP_MS : RETURN_MS);
}

struct greylist *greylist_new(void)
{
    struct greylist *list = calloc(1, sizeof(*list));
    if (list != NULL) {
        random_bytes(&list->key, sizeof(list->key));
    }
    return list;
}

void greylist_free(struct greylist *list)
{
    free(list);
}

/* ---- cells ------------------------------------------------------------------------------- */

struct place {
    _Atomic uint64_t *cell; /* NULL: there is no room */
    uint64_t before;
    struct seen seen; /* tag 0: it is new */
};

/* The cell of what has this hash; else one that is free. */
static struct place find(struct greylist *list, uint64_t hash, uint64_t tag, int64_t now_ms)
{
    _Atomic uint64_t *bucket = list->cells[hash % BUCKETS];
    struct place free_place = {0};
    for (int i = 0; i < CELLS; i++) {
        uint64_t cell = atomic_load_explicit(&bucket[i], memory_order_relaxed);
        struct seen seen = unpack(cell);
        if (is_over(seen, now_ms)) {
            free_place = (struct place){&bucket[i], cell, {0}};
        } else if (seen.tag == tag) {
            return (struct place){&bucket[i], cell, seen};
        }
    }
    return free_place;
}

/* What somebody else has written meanwhile stays: it will be asked again. */
static void put(const struct place *place, struct seen seen)
{
    uint64_t before = place->before;
    (void)atomic_compare_exchange_strong_explicit(place->cell, &before, pack(seen),
                                                  memory_order_relaxed, memory_order_relaxed);
}

static uint64_t tag_of(uint64_t hash)
{
    uint64_t tag = hash >> (64 - TAG_BITS);
    return tag != 0 ? tag : 1;
}

/* ---- asking ------------------------------------------------------------------------------ */

static uint64_t hash_all(const struct greylist *list, const struct greylist_query *query)
{
    const uint64_t parts[] = {hash_bytes(list->key, ip_neighbours(query->client)),
                              hash_bytes_fold(list->key, query->sender),
                              hash_bytes_fold(list->key, query->recipient)};
    return hash_bytes(list->key, slice_make(parts, sizeof(parts)));
}

/* Mail of this network has come back often enough. */
static bool knows_network(struct greylist *list, uint64_t hash, int64_t now_ms)
{
    struct place place = find(list, hash, tag_of(hash), now_ms);
    if (place.seen.tag == 0 || place.seen.count < NETWORK_KNOWN) {
        return false;
    }
    place.seen.at_ms = now_ms;
    put(&place, place.seen);
    return true;
}

static void count_network(struct greylist *list, uint64_t hash, int64_t now_ms)
{
    struct place place = find(list, hash, tag_of(hash), now_ms);
    if (place.cell != NULL) {
        unsigned count = place.seen.tag == 0 ? 0 : place.seen.count;
        put(&place, (struct seen){tag_of(hash), count < COUNT_MOST ? count + 1 : count, now_ms});
    }
}

int64_t greylist_wait_ms(struct greylist *list, const struct greylist_query *query)
{
    int64_t now_ms = query->now_ms;
    uint64_t network = hash_bytes(list->key, ip_neighbours(query->client));
    if (knows_network(list, network, now_ms)) {
        return 0;
    }
    uint64_t hash = hash_all(list, query);
    struct place place = find(list, hash, tag_of(hash), now_ms);
    if (place.cell == NULL) {
        return 0;
    }
    if (place.seen.tag == 0) {
        put(&place, (struct seen){tag_of(hash), 0, now_ms});
        return query->delay_ms;
    }
    int64_t waited_ms = now_ms - place.seen.at_ms;
    if (place.seen.count == 0 && waited_ms < query->delay_ms) {
        return query->delay_ms - waited_ms;
    }
    if (place.seen.count == 0) {
        count_network(list, network, now_ms);
    }
    put(&place, (struct seen){tag_of(hash), 1, now_ms});
    return 0;
}
