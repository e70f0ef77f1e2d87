/* SPDX-License-Identifier: Apache-2.0 */
#include "spool/copies_pick.h"

#include "sys/random.h"

#include <assert.h>
#include <stdlib.h>

enum { NO_ROW = UINT32_MAX };

/* A recipient that a message has been sent again to. */
struct sent {
    struct message_id id;
    uint64_t address; /* hash */
};

/* A message that was found. */
struct found {
    uint64_t sequence;
    struct log_ticket place;
    uint32_t from, to; /* its deliveries in `taken` */
};

static struct spool_taken *taken_of(const struct copies_pick *pick)
{
    return (struct spool_taken *)(void *)pick->taken.data;
}

static size_t taken_count(const struct copies_pick *pick)
{
    return pick->taken.length / sizeof(struct spool_taken);
}

static struct found *found_of(const struct copies_pick *pick)
{
    return (struct found *)(void *)pick->found.data;
}

enum error copies_pick_init(struct copies_pick *pick, const struct spool_copies_query *query,
                            int64_t keep_ms, int64_t now_ms)
{
    uint8_t *server = malloc(query->server.length + 1);
    if (server == NULL) {
        return ERROR_MEMORY;
    }
    *pick =
        (struct copies_pick){.query = *query, .key = (struct hash_key){random_u64(), random_u64()}};
    pick->query.since_ms = spool_copies_since(query, keep_ms, now_ms);
    if (query->server.length > 0) {
        memcpy(server, query->server.data, query->server.length);
    }
    pick->query.server = slice_make(server, query->server.length);
    arena_init(&pick->names);
    map_init(&pick->servers);
    return ERROR_NONE;
}

void copies_give_back(const struct spool_copies_query *query)
{
    if (query->choice_free != NULL) {
        query->choice_free(query->choice);
    }
}

void copies_pick_done(struct copies_pick *pick)
{
    copies_give_back(&pick->query);
    free((void *)(uintptr_t)pick->query.server.data);
    arena_done(&pick->names);
    map_done(&pick->servers);
    buffer_done(&pick->taken);
    buffer_done(&pick->sent);
    buffer_done(&pick->found);
    buffer_done(&pick->deliveries);
}

/* ---- the first pass ---------------------------------------------------------------------- */

static const struct slice *server_name(struct copies_pick *pick, struct slice name)
{
    uint64_t hash = hash_bytes(pick->key, name);
    struct slice *known = map_get(&pick->servers, hash);
    if (known == NULL) {
        known = arena_allocate(&pick->names, sizeof(*known));
        if (known == NULL) {
            return NULL;
        }
        *known = arena_copy(&pick->names, name);
        if (map_put(&pick->servers, hash, known) != ERROR_NONE) {
            return NULL;
        }
    }
    return known;
}

enum error copies_pick_fate(struct copies_pick *pick, struct message_id id, uint32_t delivery,
                            enum spool_fate fate, int64_t when_ms, struct slice server)
{
    if (!spool_copies_in_window(&pick->query, fate, when_ms, server)) {
        return ERROR_NONE;
    }
    if (taken_count(pick) == SPOOL_COPIES_MAX) {
        return ERROR_LIMIT;
    }
    struct spool_taken taken = {.id = id,
                                .when_ms = when_ms,
                                .server = server_name(pick, server),
                                .delivery = delivery,
                                .row = NO_ROW};
    buffer_append(&pick->taken, slice_make(&taken, sizeof(taken)));
    return taken.server == NULL || pick->taken.failed ? ERROR_MEMORY : ERROR_NONE;
}

enum error copies_pick_sent(struct copies_pick *pick, const struct spool_message *message)
{
    if (id_is_null(message->copy_of) || pick->query.again) {
        return ERROR_NONE;
    }
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        struct sent sent = {message->copy_of,
                            hash_bytes(pick->key, message->recipients[i].address)};
        buffer_append(&pick->sent, slice_make(&sent, sizeof(sent)));
    }
    return pick->sent.failed                                            ? ERROR_MEMORY
           : pick->sent.length / sizeof(struct sent) > SPOOL_COPIES_MAX ? ERROR_LIMIT
                                                                        : ERROR_NONE;
}

static int by_delivery(const void *a, const void *b)
{
    const struct spool_taken *left = a, *right = b;
    int order = id_compare(left->id, right->id);
    return order != 0 ? order
                      : (left->delivery > right->delivery) - (left->delivery < right->delivery);
}

static int by_address(const void *a, const void *b)
{
    const struct sent *left = a, *right = b;
    int order = id_compare(left->id, right->id);
    return order != 0 ? order : (left->address > right->address) - (left->address < right->address);
}

static void sort(struct buffer *buffer, size_t size, int (*compare)(const void *, const void *))
{
    if (buffer->length > 0) {
        qsort(buffer->data, buffer->length / size, size, compare);
    }
}

/* Groups that had to be written twice have their fates twice. */
static void make_unique(struct copies_pick *pick)
{
    struct spool_taken *taken = taken_of(pick);
    size_t kept = 0;
    for (size_t i = 0; i < taken_count(pick); i++) {
        if (kept == 0 || by_delivery(&taken[kept - 1], &taken[i]) != 0) {
            taken[kept++] = taken[i];
        }
    }
    pick->taken.length = kept * sizeof(*taken);
}

void copies_pick_between(struct copies_pick *pick)
{
    sort(&pick->taken, sizeof(struct spool_taken), by_delivery);
    make_unique(pick);
    sort(&pick->sent, sizeof(struct sent), by_address);
}

/* ---- the second pass --------------------------------------------------------------------- */

static bool was_sent(const struct copies_pick *pick, struct message_id id, struct slice address)
{
    struct sent key = {id, hash_bytes(pick->key, address)};
    return pick->sent.length > 0 && bsearch(&key, pick->sent.data, pick->sent.length / sizeof(key),
                                            sizeof(key), by_address) != NULL;
}

/* The first of its deliveries, or the end. */
static size_t first_taken(const struct copies_pick *pick, struct message_id id)
{
    const struct spool_taken *taken = taken_of(pick);
    size_t low = 0, high = taken_count(pick);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (id_compare(taken[middle].id, id) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool wants(const struct copies_pick *pick, const struct spool_message *message,
                  uint32_t delivery)
{
    return pick->query.wants == NULL || pick->query.wants(pick->query.choice, message, delivery);
}

enum error copies_pick_message(struct copies_pick *pick, const struct log_ticket *place,
                               const struct spool_message *message)
{
    struct spool_taken *taken = taken_of(pick);
    size_t from = first_taken(pick, message->id), to = from;
    while (to < taken_count(pick) && id_equal(taken[to].id, message->id)) {
        to++;
    }
    if (from == to || !spool_copies_may_go(&pick->query, message)) {
        return ERROR_NONE;
    }
    struct found found = {message->sequence, *place, (uint32_t)from, (uint32_t)to};
    if (taken[from].row != NO_ROW) {
        found_of(pick)[taken[from].row] = found; /* a later place */
        return ERROR_NONE;
    }
    size_t chosen = 0;
    for (size_t i = from; i < to; i++) {
        if (taken[i].delivery >= message->recipient_count ||
            !wants(pick, message, taken[i].delivery)) {
            continue;
        }
        if (was_sent(pick, message->id, message->recipients[taken[i].delivery].address)) {
            pick->counts.sent++;
            continue;
        }
        taken[i].chosen = true;
        chosen++;
    }
    /* A row of its own even without any: what was sent is counted once. */
    taken[from].row = (uint32_t)(pick->found.length / sizeof(found));
    buffer_append(&pick->found, slice_make(&found, sizeof(found)));
    pick->counts.messages += chosen > 0;
    pick->counts.deliveries += chosen;
    return pick->found.failed ? ERROR_MEMORY : ERROR_NONE;
}

static int by_sequence(const void *a, const void *b)
{
    const struct found *left = a, *right = b;
    return (left->sequence > right->sequence) - (left->sequence < right->sequence);
}

static bool has_chosen(const struct copies_pick *pick, const struct found *found)
{
    for (uint32_t i = found->from; i < found->to; i++) {
        if (taken_of(pick)[i].chosen) {
            return true;
        }
    }
    return false;
}

void copies_pick_after(struct copies_pick *pick)
{
    struct found *found = found_of(pick);
    size_t kept = 0;
    for (size_t i = 0; i < pick->found.length / sizeof(*found); i++) {
        if (has_chosen(pick, &found[i])) {
            found[kept++] = found[i];
        }
    }
    pick->found.length = kept * sizeof(*found);
    sort(&pick->found, sizeof(*found), by_sequence);
}

size_t copies_pick_wanted(const struct copies_pick *pick, size_t *at, struct message_id *ret_ids,
                          size_t max)
{
    const struct spool_taken *taken = taken_of(pick);
    size_t count = 0;
    for (; *at < taken_count(pick); ++*at) {
        struct message_id id = taken[*at].id;
        if (count > 0 && id_equal(ret_ids[count - 1], id)) {
            continue;
        }
        if (count == max) {
            break;
        }
        ret_ids[count++] = id;
    }
    return count;
}

/* ---- what was found ---------------------------------------------------------------------- */

static const struct found *found_at(const struct copies_pick *pick, size_t i)
{
    assert(i < pick->found.length / sizeof(struct found));
    return &found_of(pick)[i];
}

const struct log_ticket *copies_pick_place(const struct copies_pick *pick, size_t i)
{
    return &found_at(pick, i)->place;
}

void copies_pick_get(struct copies_pick *pick, size_t i, struct spool_copy *ret_copy)
{
    const struct found *found = found_at(pick, i);
    *ret_copy = (struct spool_copy){.id = found->place.id};
    buffer_clear(&pick->deliveries);
    for (uint32_t at = found->from; at < found->to; at++) {
        const struct spool_taken *taken = &taken_of(pick)[at];
        if (!taken->chosen) {
            continue;
        }
        buffer_append(&pick->deliveries, slice_make(&taken->delivery, sizeof(uint32_t)));
        if (taken->when_ms >= ret_copy->when_ms) {
            ret_copy->when_ms = taken->when_ms;
            ret_copy->server = *taken->server;
        }
    }
    ret_copy->deliveries = (const void *)pick->deliveries.data;
    ret_copy->count = (uint32_t)(pick->deliveries.length / sizeof(uint32_t));
}
