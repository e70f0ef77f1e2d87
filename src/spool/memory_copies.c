/* SPDX-License-Identifier: Apache-2.0
 *
 * The model of safety copies: what has ended stays as it was, until its time is over.
 */
#include "spool/memory_internal.h"

#include <stdlib.h>

struct model_found {
    const struct model_message *message;
    uint32_t from, to; /* in `deliveries` */
    int64_t when_ms;
    struct slice server;
};

struct memory_search {
    struct spool_copies copies;
    struct memory_spool *memory;
    struct spool_copies_query query;
    struct buffer found;      /* struct model_found */
    struct buffer deliveries; /* uint32_t */
    struct spool_copies_counts counts;
    struct loop_later *later;
};

static struct memory_search *search_of(const struct spool_copies *copies)
{
    return (struct memory_search *)(uintptr_t)copies;
}

static const struct model_found *found_of(const struct memory_search *search)
{
    return (const void *)search->found.data;
}

/* ---- keeping ----------------------------------------------------------------------------- */

void memory_taken(struct model_message *message, uint32_t delivery, enum spool_fate fate,
                  int64_t when_ms, struct slice server)
{
    if (message->taken == NULL) {
        message->taken = arena_allocate(&message->arena,
                                        message->message.recipient_count * sizeof(*message->taken));
        if (message->taken == NULL) {
            abort();
        }
        memset(message->taken, 0, message->message.recipient_count * sizeof(*message->taken));
    }
    message->taken[delivery] =
        (struct model_taken){fate, when_ms, arena_copy(&message->arena, server)};
}

void memory_ended(struct memory_spool *memory, struct model_message *message)
{
    if (memory->keep_ms == 0 && memory->store->searches == 0) {
        model_message_free(message);
        return;
    }
    message->ended_ms = memory->now_ms;
    buffer_append(&memory->store->kept, slice_make(&message, sizeof(message)));
}

void memory_keep_copies(struct spool *spool, int64_t keep_ms, int64_t now_ms)
{
    memory_of(spool)->keep_ms = keep_ms;
    memory_of(spool)->now_ms = now_ms;
}

void memory_copies_tick(struct memory_spool *memory)
{
    struct buffer *kept = &memory->store->kept;
    struct model_message **messages = (void *)kept->data;
    size_t count = kept->length / sizeof(*messages), gone = 0;
    while (memory->store->searches == 0 && gone < count &&
           (memory->keep_ms == 0 || memory->now_ms - messages[gone]->ended_ms >= memory->keep_ms)) {
        model_message_free(messages[gone++]);
    }
    buffer_consume(kept, gone * sizeof(*messages));
}

void memory_copies_status(const struct memory_spool *memory, struct spool_state *state)
{
    const struct buffer *kept = &memory->store->kept;
    struct model_message *const *messages = (const void *)kept->data;
    for (size_t i = 0; i < kept->length / sizeof(*messages); i++) {
        state->copy_bytes += messages[i]->content.length;
        state->copies_since_ms = messages[0]->ended_ms;
    }
    state->copy_segments = state->copy_bytes > 0;
}

/* ---- finding ----------------------------------------------------------------------------- */

static bool names(const struct model_message *message, struct message_id id, struct slice address)
{
    for (uint32_t i = 0; i < message->message.recipient_count; i++) {
        if (id_equal(message->message.copy_of, id) &&
            slice_equal(message->message.recipients[i].address, address)) {
            return true;
        }
    }
    return false;
}

static bool was_sent(const struct spool_memory_store *store, struct message_id id,
                     struct slice address)
{
    struct model_message *const *kept = (const void *)store->kept.data;
    for (size_t i = 0; i < store->kept.length / sizeof(*kept); i++) {
        if (names(kept[i], id, address)) {
            return true;
        }
    }
    for (uint32_t i = 0; i < store->capacity; i++) {
        if (store->messages[i] != NULL && names(store->messages[i], id, address)) {
            return true;
        }
    }
    return false;
}

static void look_at(struct memory_search *search, const struct model_message *message)
{
    const struct spool_copies_query *query = &search->query;
    const struct spool_message *envelope = &message->message;
    uint32_t from = (uint32_t)(search->deliveries.length / sizeof(uint32_t));
    struct model_found found = {.message = message, .from = from, .to = from};
    for (uint32_t i = 0; message->taken != NULL && i < envelope->recipient_count; i++) {
        const struct model_taken *taken = &message->taken[i];
        if (!spool_copies_in_window(query, taken->fate, taken->when_ms, taken->server) ||
            !spool_copies_may_go(query, envelope) ||
            (query->wants != NULL && !query->wants(query->choice, envelope, i))) {
            continue;
        }
        if (!query->again &&
            was_sent(search->memory->store, envelope->id, envelope->recipients[i].address)) {
            search->counts.sent++;
            continue;
        }
        buffer_append(&search->deliveries, slice_make(&i, sizeof(i)));
        found.to++;
        if (taken->when_ms >= found.when_ms) {
            found.when_ms = taken->when_ms;
            found.server = taken->server;
        }
    }
    if (found.to > found.from) {
        buffer_append(&search->found, slice_make(&found, sizeof(found)));
        search->counts.messages++;
        search->counts.deliveries += found.to - found.from;
    }
}

static int by_sequence(const void *a, const void *b)
{
    uint64_t left = ((const struct model_found *)a)->message->message.sequence;
    uint64_t right = ((const struct model_found *)b)->message->message.sequence;
    return (left > right) - (left < right);
}

static void search_all(void *context)
{
    struct memory_search *search = context;
    const struct spool_memory_store *store = search->memory->store;
    struct model_message *const *kept = (const void *)store->kept.data;
    for (size_t i = 0; i < store->kept.length / sizeof(*kept); i++) {
        look_at(search, kept[i]);
    }
    for (uint32_t i = 0; i < store->capacity; i++) {
        if (store->messages[i] != NULL) {
            look_at(search, store->messages[i]);
        }
    }
    if (search->counts.messages > 0) {
        qsort(search->found.data, search->counts.messages, sizeof(struct model_found), by_sequence);
    }
    bool failed = search->found.failed || search->deliveries.failed;
    search->query.done(search->query.context, failed ? ERROR_MEMORY : ERROR_NONE);
}

enum error memory_copies_find(struct spool *spool, const struct spool_copies_query *query,
                              struct spool_copies **ret_copies)
{
    struct memory_spool *memory = memory_of(spool);
    struct memory_search *search = calloc(1, sizeof(*search));
    uint8_t *server = malloc(query->server.length + 1);
    if (search == NULL || server == NULL ||
        (search->later = loop_later_new(memory->loop, search_all, search)) == NULL) {
        abort(); /* a model for tests does not go on without memory */
    }
    search->copies.spool = spool;
    search->memory = memory;
    search->query = *query;
    search->query.since_ms = spool_copies_since(query, memory->keep_ms, memory->now_ms);
    if (query->server.length > 0) {
        memcpy(server, query->server.data, query->server.length);
    }
    search->query.server = slice_make(server, query->server.length);
    memory->store->searches++;
    loop_later_ask(search->later);
    *ret_copies = &search->copies;
    return ERROR_NONE;
}

void memory_copies_free(struct spool_copies *copies)
{
    struct memory_search *search = search_of(copies);
    search->memory->store->searches--;
    if (search->query.choice_free != NULL) {
        search->query.choice_free(search->query.choice);
    }
    free((void *)(uintptr_t)search->query.server.data);
    loop_later_free(search->later);
    buffer_done(&search->found);
    buffer_done(&search->deliveries);
    free(search);
}

/* ---- what was found ---------------------------------------------------------------------- */

void memory_copies_progress(const struct spool_copies *copies, uint64_t *ret_done,
                            uint64_t *ret_all)
{
    (void)copies;
    *ret_done = *ret_all = 1;
}

void memory_copies_counts(const struct spool_copies *copies, struct spool_copies_counts *ret_counts)
{
    *ret_counts = search_of(copies)->counts;
}

void memory_copies_get(struct spool_copies *copies, size_t i, struct spool_copy *ret_copy)
{
    const struct memory_search *search = search_of(copies);
    const struct model_found *found = &found_of(search)[i];
    *ret_copy = (struct spool_copy){
        .id = found->message->message.id,
        .when_ms = found->when_ms,
        .server = found->server,
        .deliveries = (const uint32_t *)(const void *)search->deliveries.data + found->from,
        .count = found->to - found->from};
}

enum error memory_copies_read_envelope(struct spool_copies *copies, size_t i, struct arena *arena,
                                       struct spool_message *ret_message)
{
    model_copy_message(arena, ret_message, &found_of(search_of(copies))[i].message->message);
    return ERROR_NONE;
}

enum error memory_copies_read_content(struct spool_copies *copies, size_t i, uint64_t offset,
                                      void *ret_bytes, size_t size, size_t *ret_length)
{
    const struct buffer *content = &found_of(search_of(copies))[i].message->content;
    struct slice part = slice_take(slice_skip(buffer_slice(content), (size_t)offset), size);
    if (part.length > 0) {
        memcpy(ret_bytes, part.data, part.length);
    }
    *ret_length = part.length;
    return ERROR_NONE;
}
