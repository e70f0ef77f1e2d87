/* SPDX-License-Identifier: Apache-2.0
 *
 * Finding mail that was handed over (spool/copies.h) in the indexes of all copies and segments,
 * twice in the order of the journal: first the fates of the window, and what has been sent again
 * before; then the messages that these are of. Each index is read and walked as one job of the
 * janitor, to which the search belongs meanwhile; so what the loop does to a segment in between is
 * done before the job or after it, and the name that the job is given is right.
 *
 * A message may stand in several places (compaction): the last one counts. A fate that compaction
 * has carried on says no time and is passed over; where it was first written is kept for longer
 * than it matters.
 */
#include "base/crc32c.h"
#include "base/map.h"
#include "spool/log_internal.h"
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

enum search_pass { PASS_FATES, PASS_MESSAGES, PASS_OVER };

struct log_search {
    struct spool_copies copies;
    struct journal *journal;
    struct spool_copies_query query;
    enum search_pass pass;
    bool under_way; /* with the janitor */
    bool freed;
    uint64_t last; /* number of the segment walked last */
    uint64_t walked;
    struct hash_key key;
    struct arena arena;  /* of one record */
    struct arena names;  /* of servers */
    struct map servers;  /* hash -> struct slice */
    struct buffer taken; /* struct spool_taken; sorted by id and delivery after the first pass */
    struct buffer sent;  /* struct sent; sorted then */
    struct buffer found; /* struct found */
    struct buffer deliveries;
    struct spool_copies_counts counts;
    enum error error;
    /* The job: where the index is. */
    char name[LOG_NAME_SIZE];
    uint64_t number, nonce;
    bool known; /* nonce, end and place of the index; else the seal says them */
    uint32_t end;
    uint32_t index_at, index_length, index_crc; /* length 0: there is none */
    struct buffer index;                        /* if it is in memory */
};

static struct log_search *search_of(const struct spool_copies *copies)
{
    return (struct log_search *)(uintptr_t)copies;
}

static struct spool_taken *taken_of(const struct log_search *search)
{
    return (struct spool_taken *)(void *)search->taken.data;
}

static size_t taken_count(const struct log_search *search)
{
    return search->taken.length / sizeof(struct spool_taken);
}

static struct found *found_of(const struct log_search *search)
{
    return (struct found *)(void *)search->found.data;
}

static int compare_ids(struct message_id a, struct message_id b)
{
    return a.high != b.high ? (a.high > b.high ? 1 : -1) : (a.low > b.low) - (a.low < b.low);
}

/* ---- the first pass ---------------------------------------------------------------------- */

static const struct slice *server_name(struct log_search *search, struct slice name)
{
    uint64_t hash = hash_bytes(search->key, name);
    struct slice *known = map_get(&search->servers, hash);
    if (known == NULL) {
        known = arena_allocate(&search->names, sizeof(*known));
        if (known == NULL) {
            return NULL;
        }
        *known = arena_copy(&search->names, name);
        if (map_put(&search->servers, hash, known) != ERROR_NONE) {
            return NULL;
        }
    }
    return known;
}

static enum error take_fate(struct log_search *search, struct slice payload)
{
    struct log_fate fate;
    if (!log_get_fate(payload, &fate) ||
        !spool_copies_in_window(&search->query, fate.fate, fate.when_ms, fate.server)) {
        return ERROR_NONE;
    }
    if (taken_count(search) == SPOOL_COPIES_MAX) {
        return ERROR_LIMIT;
    }
    struct spool_taken taken = {.id = fate.id,
                                .when_ms = fate.when_ms,
                                .server = server_name(search, fate.server),
                                .delivery = fate.delivery,
                                .row = NO_ROW};
    buffer_append(&search->taken, slice_make(&taken, sizeof(taken)));
    return taken.server == NULL || search->taken.failed ? ERROR_MEMORY : ERROR_NONE;
}

static enum error take_sent(struct log_search *search, const struct spool_message *message)
{
    if (id_is_null(message->copy_of) || search->query.again) {
        return ERROR_NONE;
    }
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        struct sent sent = {message->copy_of,
                            hash_bytes(search->key, message->recipients[i].address)};
        buffer_append(&search->sent, slice_make(&sent, sizeof(sent)));
    }
    return search->sent.failed                                            ? ERROR_MEMORY
           : search->sent.length / sizeof(struct sent) > SPOOL_COPIES_MAX ? ERROR_LIMIT
                                                                          : ERROR_NONE;
}

static int by_delivery(const void *a, const void *b)
{
    const struct spool_taken *left = a, *right = b;
    int order = compare_ids(left->id, right->id);
    return order != 0 ? order
                      : (left->delivery > right->delivery) - (left->delivery < right->delivery);
}

static int by_address(const void *a, const void *b)
{
    const struct sent *left = a, *right = b;
    int order = compare_ids(left->id, right->id);
    return order != 0 ? order : (left->address > right->address) - (left->address < right->address);
}

static void sort(struct buffer *buffer, size_t size, int (*compare)(const void *, const void *))
{
    if (buffer->length > 0) {
        qsort(buffer->data, buffer->length / size, size, compare);
    }
}

/* Groups that had to be written twice have their fates twice. */
static void make_unique(struct log_search *search)
{
    struct spool_taken *taken = taken_of(search);
    size_t kept = 0;
    for (size_t i = 0; i < taken_count(search); i++) {
        if (kept == 0 || by_delivery(&taken[kept - 1], &taken[i]) != 0) {
            taken[kept++] = taken[i];
        }
    }
    search->taken.length = kept * sizeof(*taken);
}

static void between(struct log_search *search)
{
    sort(&search->taken, sizeof(struct spool_taken), by_delivery);
    make_unique(search);
    sort(&search->sent, sizeof(struct sent), by_address);
}

/* ---- the second pass --------------------------------------------------------------------- */

static bool was_sent(const struct log_search *search, struct message_id id, struct slice address)
{
    struct sent key = {id, hash_bytes(search->key, address)};
    return search->sent.length > 0 &&
           bsearch(&key, search->sent.data, search->sent.length / sizeof(key), sizeof(key),
                   by_address) != NULL;
}

/* The first of its deliveries, or the end. */
static size_t first_taken(const struct log_search *search, struct message_id id)
{
    const struct spool_taken *taken = taken_of(search);
    size_t low = 0, high = taken_count(search);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_ids(taken[middle].id, id) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool wants(const struct log_search *search, const struct spool_message *message,
                  uint32_t delivery)
{
    return search->query.wants == NULL ||
           search->query.wants(search->query.choice, message, delivery);
}

static enum error take_message(struct log_search *search, uint32_t offset,
                               const struct spool_message *message)
{
    struct spool_taken *taken = taken_of(search);
    size_t from = first_taken(search, message->id), to = from;
    while (to < taken_count(search) && id_equal(taken[to].id, message->id)) {
        to++;
    }
    if (from == to || !spool_copies_may_go(&search->query, message)) {
        return ERROR_NONE;
    }
    struct found found = {message->sequence,
                          {search->number, search->nonce, offset, message->id},
                          (uint32_t)from,
                          (uint32_t)to};
    if (taken[from].row != NO_ROW) {
        found_of(search)[taken[from].row] = found; /* a later place */
        return ERROR_NONE;
    }
    size_t chosen = 0;
    for (size_t i = from; i < to; i++) {
        if (taken[i].delivery >= message->recipient_count ||
            !wants(search, message, taken[i].delivery)) {
            continue;
        }
        if (was_sent(search, message->id, message->recipients[taken[i].delivery].address)) {
            search->counts.sent++;
            continue;
        }
        taken[i].chosen = true;
        chosen++;
    }
    /* A row of its own even without any: what was sent is counted once. */
    taken[from].row = (uint32_t)(search->found.length / sizeof(found));
    buffer_append(&search->found, slice_make(&found, sizeof(found)));
    search->counts.messages += chosen > 0;
    search->counts.deliveries += chosen;
    return search->found.failed ? ERROR_MEMORY : ERROR_NONE;
}

static int by_sequence(const void *a, const void *b)
{
    const struct found *left = a, *right = b;
    return (left->sequence > right->sequence) - (left->sequence < right->sequence);
}

static bool has_chosen(const struct log_search *search, const struct found *found)
{
    for (uint32_t i = found->from; i < found->to; i++) {
        if (taken_of(search)[i].chosen) {
            return true;
        }
    }
    return false;
}

static void after(struct log_search *search)
{
    struct found *found = found_of(search);
    size_t kept = 0;
    for (size_t i = 0; i < search->found.length / sizeof(*found); i++) {
        if (has_chosen(search, &found[i])) {
            found[kept++] = found[i];
        }
    }
    search->found.length = kept * sizeof(*found);
    sort(&search->found, sizeof(*found), by_sequence);
}

/* ---- one index --------------------------------------------------------------------------- */

static enum error take_entry(struct log_search *search, const struct log_entry *entry)
{
    if (entry->type == LOG_FATE && search->pass == PASS_FATES) {
        return take_fate(search, entry->payload);
    }
    if (entry->type != LOG_MESSAGE) {
        return ERROR_NONE;
    }
    struct log_message message;
    arena_reset(&search->arena);
    enum error error = log_get_message(entry->payload, &search->arena, &message);
    if (error == ERROR_NONE) {
        error = search->pass == PASS_FATES ? take_sent(search, &message.message)
                                           : take_message(search, entry->offset, &message.message);
    }
    return error == ERROR_CORRUPT ? ERROR_NONE : error;
}

static enum error read_seal(struct log_search *search, struct disk_file *file)
{
    uint8_t block[LOG_BLOCK];
    struct log_seal seal;
    enum error error = search->journal->disk->ops->read(file, LOG_SEAL_AT, block, sizeof(block));
    if (error == ERROR_NONE) {
        error = log_seal_decode(block, &seal);
    }
    if (error == ERROR_NONE && seal.number != search->number) {
        error = ERROR_CORRUPT;
    }
    if (error == ERROR_NONE) {
        search->nonce = seal.nonce;
        search->end = seal.end;
        search->index_at = seal.index_at;
        search->index_length = seal.index_length;
        search->index_crc = seal.index_crc;
    }
    return error;
}

static enum error read_part(struct disk_file *file, uint32_t at, uint32_t length,
                            struct buffer *ret_bytes)
{
    uint64_t size;
    enum error error = file->disk->ops->size(file, &size);
    if (error == ERROR_NONE && (uint64_t)at + length > size) {
        error = ERROR_CORRUPT;
    }
    buffer_clear(ret_bytes);
    if (error == ERROR_NONE) {
        error = buffer_reserve(ret_bytes, (size_t)length + 1);
    }
    if (error == ERROR_NONE) {
        error = file->disk->ops->read(file, at, ret_bytes->data, length);
        ret_bytes->length = length;
    }
    return error;
}

/* One that a power cut has torn, or that was never written, is made anew, as a start would. */
static enum error make_index(struct log_search *search, struct disk_file *file)
{
    struct log_scan scan = {
        .nonce = search->nonce, .known_end = search->end, .index = &search->index};
    struct buffer bytes;
    buffer_init(&bytes, 0);
    enum error error = read_part(file, 0, search->end, &bytes);
    buffer_clear(&search->index);
    if (error == ERROR_NONE) {
        error = log_scan(&scan, buffer_slice(&bytes));
    }
    buffer_done(&bytes);
    return error;
}

static enum error read_index(struct log_search *search)
{
    struct disk *disk = search->journal->disk;
    struct disk_file *file;
    enum error error = disk->ops->open(disk, search->name, DISK_READ, &file);
    if (error != ERROR_NONE) {
        return error;
    }
    if (!search->known) {
        error = read_seal(search, file);
    }
    if (error == ERROR_NONE) {
        error = read_part(file, search->index_at, search->index_length, &search->index);
        bool sound = error == ERROR_NONE && search->index_length > 0 &&
                     crc32c(0, buffer_slice(&search->index)) == search->index_crc;
        if (!sound && error != ERROR_MEMORY) {
            error = make_index(search, file);
        }
    }
    disk->ops->close(file);
    return error;
}

static void walk_run(void *context)
{
    struct log_search *search = context;
    struct log_entry entry;
    bool sound = true;
    size_t at = 0;
    enum error error = search->name[0] != '\0' ? read_index(search) : ERROR_NONE;
    while (error == ERROR_NONE &&
           log_entry_next(buffer_slice(&search->index), &at, &entry, &sound)) {
        error = take_entry(search, &entry);
    }
    if (error == ERROR_NONE && !sound) {
        error = ERROR_CORRUPT;
    }
    if (error == ERROR_MEMORY || error == ERROR_LIMIT) {
        search->error = error;
    } else if (error != ERROR_NONE && error != ERROR_MISSING && search->pass == PASS_FATES) {
        search->counts.unreadable++;
    }
}

/* ---- from one to the next ---------------------------------------------------------------- */

static void search_free(struct log_search *search)
{
    search->journal->copies.searches--;
    if (search->query.choice_free != NULL) {
        search->query.choice_free(search->query.choice);
    }
    free((void *)(uintptr_t)search->query.server.data);
    arena_done(&search->arena);
    arena_done(&search->names);
    map_done(&search->servers);
    buffer_done(&search->taken);
    buffer_done(&search->sent);
    buffer_done(&search->found);
    buffer_done(&search->deliveries);
    buffer_done(&search->index);
    free(search);
}

/* One that is going is read as the copy that it becomes, since that is done first. False: it
 * becomes none. */
static bool aim_at_segment(struct log_search *search, const struct segment *segment)
{
    search->nonce = segment->nonce;
    search->known = true;
    search->name[0] = '\0';
    buffer_clear(&search->index);
    if (segment->index_known) {
        buffer_append(&search->index, buffer_slice(&segment->index));
        search->error = search->index.failed ? ERROR_MEMORY : search->error;
        return true;
    }
    search->end = segment->failed ? segment->synced_end : segment->end;
    search->index_at = segment->index_at;
    search->index_length = segment->sealed ? segment->index_length : 0;
    search->index_crc = segment->index_crc;
    log_name_make(LOG_NAME_SEGMENT, segment->number, search->name);
    if (segment->gone && segment->copy_s != 0) {
        log_pair_make(LOG_PAIR_COPY, segment->number, (uint64_t)segment->copy_s, search->name);
    }
    return !segment->gone || segment->copy_s != 0;
}

static const struct log_copy *next_copy(const struct log_search *search)
{
    const struct buffer *all = &search->journal->copies.all;
    const struct log_copy *copies = (const void *)all->data;
    const struct log_copy *next = NULL;
    for (size_t i = 0; i < all->length / sizeof(*copies); i++) {
        if (copies[i].kind == LOG_PAIR_COPY && copies[i].number > search->last &&
            (next == NULL || copies[i].number < next->number)) {
            next = &copies[i];
        }
    }
    return next;
}

static const struct segment *next_segment(const struct log_search *search)
{
    const struct link *segments = &search->journal->segments;
    struct link *at = segments->next;
    while (at != segments && segment_of(at)->number <= search->last) {
        at = at->next;
    }
    return at == segments ? NULL : segment_of(at);
}

/* The next segment or copy after `last`. False: that was the last one. */
static bool aim(struct log_search *search)
{
    for (;;) {
        const struct log_copy *copy = next_copy(search);
        const struct segment *segment = next_segment(search);
        if (copy != NULL && (segment == NULL || copy->number < segment->number)) {
            search->number = search->last = copy->number;
            search->known = false;
            buffer_clear(&search->index);
            return log_copies_name(&search->journal->copies, LOG_PAIR_COPY, copy->number,
                                   search->name);
        }
        if (segment == NULL) {
            return false;
        }
        search->number = search->last = segment->number;
        if (aim_at_segment(search, segment)) {
            return true;
        }
    }
}

static void walk_done(void *context);

static void walk_on(struct log_search *search)
{
    while (search->error == ERROR_NONE && search->pass != PASS_OVER && !aim(search)) {
        if (search->pass == PASS_FATES) {
            between(search);
        } else {
            after(search);
        }
        search->pass++;
        search->last = 0;
    }
    if (search->error == ERROR_NONE && search->pass != PASS_OVER) {
        search->error = worker_submit(search->journal->janitor, walk_run, walk_done, search);
        search->under_way = search->error == ERROR_NONE;
    }
    if (!search->under_way) {
        buffer_done(&search->index);
        buffer_init(&search->index, 0);
        search->query.done(search->query.context, search->error);
    }
}

static void walk_done(void *context)
{
    struct log_search *search = context;
    search->under_way = false;
    search->walked++;
    if (search->freed) {
        search_free(search);
    } else {
        walk_on(search);
    }
}

static void nothing_run(void *context)
{
    (void)context;
}

enum error log_copies_find(struct spool *spool, const struct spool_copies_query *query,
                           struct spool_copies **ret_copies)
{
    struct journal *journal = journal_of(spool);
    struct log_search *search = calloc(1, sizeof(*search));
    uint8_t *server = malloc(query->server.length + 1);
    enum error error = search == NULL || server == NULL ? ERROR_MEMORY
                       : journal->loading != NULL       ? ERROR_AGAIN
                                                        : ERROR_NONE;
    /* It begins in a completion, so that `done` is never called from inside this. */
    if (error == ERROR_NONE) {
        error = worker_submit(journal->janitor, nothing_run, walk_done, search);
    }
    if (error != ERROR_NONE) {
        free(search);
        free(server);
        if (query->choice_free != NULL) {
            query->choice_free(query->choice);
        }
        return error;
    }
    search->copies.spool = spool;
    search->journal = journal;
    search->query = *query;
    search->query.since_ms =
        spool_copies_since(query, journal->copies.keep_s * 1000, journal->copies.now_s * 1000);
    memcpy(server, query->server.data == NULL ? (const uint8_t *)"" : query->server.data,
           query->server.length);
    search->query.server = slice_make(server, query->server.length);
    search->key = (struct hash_key){random_u64(), random_u64()};
    search->under_way = true;
    arena_init(&search->arena);
    arena_init(&search->names);
    map_init(&search->servers);
    journal->copies.searches++;
    *ret_copies = &search->copies;
    return ERROR_NONE;
}

void log_copies_free(struct spool_copies *copies)
{
    struct log_search *search = search_of(copies);
    if (search->under_way) {
        search->freed = true; /* with the job's end */
    } else {
        search_free(search);
    }
}

/* ---- what was found ---------------------------------------------------------------------- */

void log_copies_progress(const struct spool_copies *copies, uint64_t *ret_done, uint64_t *ret_all)
{
    const struct log_search *search = search_of(copies);
    const struct journal *journal = search->journal;
    uint64_t all = 2 * (uint64_t)(journal->segment_count + journal->copies.segments);
    *ret_done = search->walked;
    *ret_all = all > search->walked ? all : search->walked;
}

void log_copies_counts(const struct spool_copies *copies, struct spool_copies_counts *ret_counts)
{
    *ret_counts = search_of(copies)->counts;
}

static const struct found *found_at(const struct log_search *search, size_t i)
{
    assert(search->pass == PASS_OVER && i < search->found.length / sizeof(struct found));
    return &found_of(search)[i];
}

void log_copies_get(struct spool_copies *copies, size_t i, struct spool_copy *ret_copy)
{
    struct log_search *search = search_of(copies);
    const struct found *found = found_at(search, i);
    *ret_copy = (struct spool_copy){.id = found->place.id};
    buffer_clear(&search->deliveries);
    for (uint32_t at = found->from; at < found->to; at++) {
        const struct spool_taken *taken = &taken_of(search)[at];
        if (!taken->chosen) {
            continue;
        }
        buffer_append(&search->deliveries, slice_make(&taken->delivery, sizeof(uint32_t)));
        if (taken->when_ms >= ret_copy->when_ms) {
            ret_copy->when_ms = taken->when_ms;
            ret_copy->server = *taken->server;
        }
    }
    ret_copy->deliveries = (const void *)search->deliveries.data;
    ret_copy->count = (uint32_t)(search->deliveries.length / sizeof(uint32_t));
}

enum error log_copies_read_envelope(struct spool_copies *copies, size_t i, struct arena *arena,
                                    struct spool_message *ret_message)
{
    struct log_search *search = search_of(copies);
    struct log_message message;
    enum error error =
        log_files_message(&search->journal->files, &found_at(search, i)->place, arena, &message);
    if (error == ERROR_NONE) {
        *ret_message = message.message;
    }
    return error;
}

enum error log_copies_read_content(struct spool_copies *copies, size_t i, uint64_t offset,
                                   void *ret_bytes, size_t size, size_t *ret_length)
{
    struct log_search *search = search_of(copies);
    return journal_read_content(search->journal, &found_at(search, i)->place, offset, ret_bytes,
                                size, ret_length);
}
