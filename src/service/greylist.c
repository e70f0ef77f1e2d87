/* SPDX-License-Identifier: Apache-2.0
 *
 * A cell is one number: what it is about (a part of its hash), how often that has come back, and
 * when it was seen: first, while it waits; last, when it is known.
 *
 * A file is a head, cells in ascending order of their places, and a CRC-32C of all that (numbers
 * are little-endian):
 *
 *     8 "HFGREYL" and the version, 1
 *    16 the key of the hashes
 *     8 Unix time in ms when it was written
 *     4 count of cells; each of them:
 *         4 its place
 *         8 the cell, with its age in ms for the time
 *     4 CRC-32C
 */
#include "service/greylist.h"

#include "base/crc32c.h"
#include "base/hash.h"
#include "sys/random.h"

#include <assert.h>
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

static_assert(GREYLIST_FILE_MAX >= 64 + 12 * BUCKETS * CELLS, "a full table has room in a file");

/* Begins on a page; cells begin on a line of the cache. */
struct greylist {
    struct hash_key key;
    atomic_bool has_begun;
    _Atomic uint64_t serial;
    uint64_t unused[4];
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
                         .at_ms = (int64_t)(cell << (64 - TIME_BITS)) >> (64 - TIME_BITS)};
}

static bool is_over(struct seen seen, int64_t now_ms)
{
    return seen.tag == 0 || now_ms - seen.at_ms > (seen.count > 0 ? KEEP_MS : RETURN_MS);
}

size_t greylist_bytes(void)
{
    return sizeof(struct greylist);
}

struct greylist *greylist_new(void)
{
    struct greylist *list = calloc(1, sizeof(*list));
    if (list != NULL) {
        greylist_begin(list);
    }
    return list;
}

void greylist_begin(struct greylist *list)
{
    if (list->key.k0 == 0 && list->key.k1 == 0) {
        random_bytes(&list->key, sizeof(list->key));
    }
    atomic_store_explicit(&list->has_begun, true, memory_order_release);
}

bool greylist_has_begun(const struct greylist *list)
{
    return atomic_load_explicit(&list->has_begun, memory_order_acquire);
}

uint64_t greylist_serial(const struct greylist *list)
{
    return atomic_load_explicit(&list->serial, memory_order_relaxed);
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
static void put(struct greylist *list, const struct place *place, struct seen seen)
{
    uint64_t before = place->before;
    (void)atomic_compare_exchange_strong_explicit(place->cell, &before, pack(seen),
                                                  memory_order_relaxed, memory_order_relaxed);
    atomic_fetch_add_explicit(&list->serial, 1, memory_order_relaxed);
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
    put(list, &place, place.seen);
    return true;
}

static void count_network(struct greylist *list, uint64_t hash, int64_t now_ms)
{
    struct place place = find(list, hash, tag_of(hash), now_ms);
    if (place.cell != NULL) {
        unsigned count = place.seen.tag == 0 ? 0 : place.seen.count;
        put(list, &place,
            (struct seen){tag_of(hash), count < COUNT_MOST ? count + 1 : count, now_ms});
    }
}

int64_t greylist_wait_ms(struct greylist *list, const struct greylist_query *query)
{
    int64_t now_ms = query->now_ms;
    if (!greylist_has_begun(list)) {
        return 0;
    }
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
        put(list, &place, (struct seen){tag_of(hash), 0, now_ms});
        return query->delay_ms;
    }
    int64_t waited_ms = now_ms - place.seen.at_ms;
    if (place.seen.count == 0 && waited_ms < query->delay_ms) {
        return query->delay_ms - waited_ms;
    }
    if (place.seen.count == 0) {
        count_network(list, network, now_ms);
    }
    put(list, &place, (struct seen){tag_of(hash), 1, now_ms});
    return 0;
}

/* ---- in a file --------------------------------------------------------------------------- */

enum { VERSION = 1, HEAD_BYTES = 36, CELL_BYTES = 12, SUM_BYTES = 4 };

static const struct slice magic = SLICE_LITERAL("HFGREYL");

/* Its age for its time; 0: there is nothing to keep. */
static uint64_t aged(uint64_t cell, int64_t now_ms)
{
    struct seen seen = unpack(cell);
    if (is_over(seen, now_ms)) {
        return 0;
    }
    seen.at_ms = now_ms > seen.at_ms ? now_ms - seen.at_ms : 0;
    return pack(seen);
}

void greylist_write(const struct greylist *list, struct greylist_time now, struct buffer *file)
{
    size_t begin = file->length;
    buffer_append(file, magic);
    buffer_put_u8(file, VERSION);
    buffer_put_u64(file, list->key.k0);
    buffer_put_u64(file, list->key.k1);
    buffer_put_u64(file, (uint64_t)now.wall_ms);
    size_t count_at = file->length;
    uint32_t count = 0;
    buffer_put_u32(file, 0);
    for (uint32_t place = 0; place < BUCKETS * CELLS; place++) {
        uint64_t cell = aged(
            atomic_load_explicit(&list->cells[place / CELLS][place % CELLS], memory_order_relaxed),
            now.steady_ms);
        if (cell != 0) {
            buffer_put_u32(file, place);
            buffer_put_u64(file, cell);
            count++;
        }
    }
    for (size_t i = 0; !file->failed && i < sizeof(count); i++) {
        file->data[count_at + i] = (uint8_t)(count >> (8 * i));
    }
    buffer_put_u32(file, crc32c(0, slice_skip(buffer_slice(file), begin)));
}

/* Each cell at its time, from a file whose sum is right; `list` NULL: only looks whether they are
 * cells. */
static bool read_cells(struct greylist *list, struct reader *reader, uint32_t count,
                       int64_t written_ms)
{
    uint32_t least = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t place = reader_u32(reader);
        struct seen seen = unpack(reader_u64(reader));
        if (reader->failed || place < least || place >= BUCKETS * CELLS || seen.tag == 0 ||
            seen.at_ms < 0 || seen.at_ms > KEEP_MS) {
            return false;
        }
        least = place + 1;
        seen.at_ms = written_ms - seen.at_ms;
        if (list != NULL) {
            atomic_store_explicit(&list->cells[place / CELLS][place % CELLS], pack(seen),
                                  memory_order_relaxed);
        }
    }
    return reader->rest.length == SUM_BYTES;
}

enum error greylist_read(struct greylist *list, struct slice file, struct greylist_time now)
{
    struct reader reader = reader_make(file);
    struct slice start = reader_take(&reader, magic.length);
    uint8_t version = reader_u8(&reader);
    struct hash_key key = {reader_u64(&reader), 0};
    key.k1 = reader_u64(&reader);
    uint64_t wall_ms = reader_u64(&reader), now_ms = (uint64_t)now.wall_ms;
    uint32_t count = reader_u32(&reader);
    if (reader.failed || !slice_equal(start, magic)) {
        return ERROR_CORRUPT;
    }
    if (version != VERSION) {
        return ERROR_NEWER;
    }
    size_t summed = file.length - SUM_BYTES;
    struct reader sum = reader_make(slice_skip(file, summed));
    if (file.length < HEAD_BYTES + SUM_BYTES ||
        reader_u32(&sum) != crc32c(0, slice_take(file, summed))) {
        return ERROR_CORRUPT;
    }
    uint64_t away_ms = now_ms > wall_ms ? now_ms - wall_ms : 0;
    away_ms = away_ms < KEEP_MS ? away_ms : KEEP_MS + 1; /* and all is over */
    int64_t written_ms = now.steady_ms - (int64_t)away_ms;
    struct reader again = reader;
    if (!read_cells(NULL, &again, count, written_ms)) {
        return ERROR_CORRUPT;
    }
    list->key = key;
    (void)read_cells(list, &reader, count, written_ms);
    return ERROR_NONE;
}
