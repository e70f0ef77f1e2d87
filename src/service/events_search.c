/* SPDX-License-Identifier: Apache-2.0
 *
 * Finding events. An address or a Message-ID is first turned into message ids, from the newest file
 * to the oldest; then the events of the ids are read from the oldest of these files to the newest.
 * A step is one file, on the worker's thread, behind what is being written; what is still in memory
 * is looked at on the loop.
 */
#include "service/events_internal.h"

#include <assert.h>
#include <stdlib.h>

enum { RESULTS_MAX = 16 << 20 }; /* bytes of one step */

enum phase { PHASE_TEXT, PHASE_IDS, PHASE_END };

struct events_search {
    struct events *events;
    events_found_fn *fn;
    void *context;
    enum phase phase;
    struct buffer text; /* address or Message-ID */
    bool is_client;     /* and the address is a client's: */
    struct ip_address client;
    struct message_id ids[EVENTS_IDS_MAX];
    size_t id_count;
    bool cut;
    bool failed;    /* something could not be read: told as cut */
    uint64_t at;    /* number of the file last looked at; PHASE_TEXT: going down */
    uint64_t first; /* PHASE_IDS: nothing older is of interest */
    bool stepping;  /* with the worker */
    bool answering; /* inside fn */
    bool unwanted;  /* freed as soon as neither */

    /* One step, the worker's while it runs. */
    uint64_t number; /* 0: no file, only memory */
    enum index_state index;
    struct message_id new_ids[EVENTS_IDS_MAX]; /* PHASE_TEXT: a ring of the newest of this file */
    size_t new_count;                          /* ever put into it */
    struct buffer results;                     /* u32 length and payload each */
    bool memory_seen;                          /* by this step */
    struct buffer late;                        /* the same, from memory: newer than the file's */
};

static int compare_ids(const void *a, const void *b)
{
    const struct message_id *left = a, *right = b;
    return id_compare(*left, *right);
}

static bool has_text(const struct event *event, struct slice text)
{
    bool found = slice_equal_fold(event->sender, text) || slice_equal(event->message_id, text);
    for (uint32_t i = 0; !found && i < event->recipient_count; i++) {
        found = slice_equal_fold(event->recipients[i], text);
    }
    return found;
}

/* A refusal that speaks of others of its network may be of each of them. */
static bool has_client(const struct event *event, const struct ip_address *client)
{
    return event->has_client && (ip_equal(&event->client, client) ||
                                 (event->left_out > 0 && slice_equal(ip_neighbours(&event->client),
                                                                     ip_neighbours(client))));
}

/* Whole or not at all: half a record would spoil those behind it. Told as cut. */
static void put_result(struct buffer *results, struct slice payload)
{
    size_t before = results->length;
    if (!results->failed) {
        buffer_put_bytes(results, payload);
    }
    if (results->failed) {
        results->length = before;
    }
}

/* Called for records that may or may not match; on either thread. */
static void look(void *context, uint64_t offset, struct slice payload)
{
    (void)offset;
    struct events_search *search = context;
    struct arena arena;
    struct event event;
    arena_init(&arena);
    if (event_decode(payload, &arena, &event)) {
        if (search->phase == PHASE_TEXT) {
            if (search->is_client ? has_client(&event, &search->client)
                                  : has_text(&event, buffer_slice(&search->text))) {
                search->new_ids[search->new_count++ % EVENTS_IDS_MAX] = event.id;
            }
        } else if (bsearch(&event.id, search->ids, search->id_count, sizeof(search->ids[0]),
                           compare_ids) != NULL) {
            put_result(&search->results, payload);
        }
    }
    arena_done(&arena);
}

/* ---- on the worker --------------------------------------------------------------------------- */

static enum error look_by_index(struct events_search *search, struct disk_file *file, uint64_t end)
{
    struct hash_key key;
    enum error error = events_read_key(file, &key);
    if (error != ERROR_NONE) {
        return error;
    }
    uint64_t one;
    uint64_t *hashes = &one;
    size_t count = 1;
    if (search->phase == PHASE_TEXT) {
        one = search->is_client ? events_hash_client(key, &search->client)
                                : events_hash_text(key, buffer_slice(&search->text));
    } else {
        count = search->id_count;
        hashes = calloc(count + 1, sizeof(*hashes));
        if (hashes == NULL) {
            return ERROR_MEMORY;
        }
        for (size_t i = 0; i < count; i++) {
            hashes[i] = events_hash_id(key, search->ids[i]);
        }
    }
    uint64_t *offsets = NULL;
    size_t offset_count = 0;
    error = events_index_find(search->events->disk, search->number, hashes, count, &offsets,
                              &offset_count);
    if (hashes != &one) {
        free(hashes);
    }
    struct buffer record;
    buffer_init(&record, 0);
    for (size_t i = 0; error == ERROR_NONE && i < offset_count; i++) {
        struct slice payload;
        if (events_read_record(file, offsets[i], end, &record, &payload) == ERROR_NONE) {
            look(search, offsets[i], payload);
        }
    }
    buffer_done(&record);
    free(offsets);
    return error;
}

static void step_run(void *job)
{
    struct events_search *search = job;
    struct disk *disk = search->events->disk;
    char name[EVENTS_NAME_SIZE];
    struct disk_file *file;
    events_file_name(name, search->number, false);
    if (search->number == 0 || disk->ops->open(disk, name, DISK_READ, &file) != ERROR_NONE) {
        return; /* gone, or unreadable: nothing found there */
    }
    uint64_t end = 0;
    if (disk->ops->size(file, &end) != ERROR_NONE || end < EVENTS_FILE_HEAD) {
        disk->ops->close(file);
        return;
    }
    end = end < EVENTS_FILE_MAX ? end : EVENTS_FILE_MAX;
    int64_t last_ms;
    if (search->index == INDEX_UNCHECKED) {
        search->index =
            events_index_check(disk, search->number, true, &last_ms) ? INDEX_GOOD : INDEX_ABSENT;
    }
    if (search->index != INDEX_GOOD || look_by_index(search, file, end) != ERROR_NONE) {
        search->new_count = 0;
        buffer_clear(&search->results);
        search->failed = events_scan(file, EVENTS_FILE_HEAD, end, look, search) != ERROR_NONE;
    }
    disk->ops->close(file);
}

/* ---- on the loop ----------------------------------------------------------------------------- */

static void add_id(struct events_search *search, struct message_id id)
{
    for (size_t i = 0; i < search->id_count; i++) {
        if (id_equal(search->ids[i], id)) {
            return;
        }
    }
    if (search->id_count == EVENTS_IDS_MAX) {
        search->cut = true;
        return;
    }
    search->ids[search->id_count++] = id;
}

static void take_new_ids(struct events_search *search)
{
    size_t kept = search->new_count < EVENTS_IDS_MAX ? search->new_count : EVENTS_IDS_MAX;
    search->cut = search->cut || search->new_count > EVENTS_IDS_MAX;
    for (size_t i = 0; i < kept; i++) {
        add_id(search, search->new_ids[(search->new_count - 1 - i) % EVENTS_IDS_MAX]);
    }
    if (kept > 0) {
        search->first = search->number;
    }
}

/* The next file of the phase, or NULL. */
static const struct events_file *next_file(const struct events_search *search)
{
    const struct events *events = search->events;
    for (size_t i = 0; i < events->file_count; i++) {
        size_t at = search->phase == PHASE_TEXT ? events->file_count - 1 - i : i;
        const struct events_file *file = &events->files[at];
        if (search->phase == PHASE_TEXT
                ? file->number < search->at
                : file->number > search->at && file->number >= search->first) {
            return file;
        }
    }
    return NULL;
}

static void begin_ids(struct events_search *search)
{
    search->phase = search->id_count > 0 ? PHASE_IDS : PHASE_END;
    qsort(search->ids, search->id_count, sizeof(search->ids[0]), compare_ids);
    search->at = 0;
}

static void hand_out(struct events_search *search)
{
    struct arena arena;
    arena_init(&arena);
    struct reader reader = reader_make(buffer_slice(&search->results));
    size_t count = 0;
    while (reader.rest.length > 0) {
        (void)reader_bytes(&reader);
        count++;
    }
    struct event *events = arena_allocate(&arena, (count + 1) * sizeof(*events));
    size_t decoded = 0;
    reader = reader_make(buffer_slice(&search->results));
    for (size_t i = 0; events != NULL && i < count; i++) {
        decoded += event_decode(reader_bytes(&reader), &arena, &events[decoded]) ? 1 : 0;
    }
    bool end = search->phase == PHASE_END;
    search->fn(search->context, events, decoded, end,
               search->cut || search->failed || search->results.failed);
    arena_done(&arena);
}

static void search_destroy(struct events_search *search)
{
    search->events->searches--;
    buffer_done(&search->text);
    buffer_done(&search->results);
    buffer_done(&search->late);
    free(search);
}

static void step_done(void *job)
{
    struct events_search *search = job;
    search->stepping = false;
    if (search->unwanted) {
        search_destroy(search);
        return;
    }
    struct events *events = search->events;
    for (size_t i = 0; i < events->file_count; i++) {
        if (events->files[i].number == search->number &&
            events->files[i].index == INDEX_UNCHECKED) {
            events->files[i].index = search->index;
        }
    }
    if (search->phase == PHASE_TEXT) {
        take_new_ids(search);
        if (search->cut || next_file(search) == NULL) {
            begin_ids(search);
        }
    } else if (search->memory_seen || next_file(search) == NULL) {
        search->phase = PHASE_END; /* what was in memory is newer than any file of that moment */
    }
    buffer_append(&search->results, buffer_slice(&search->late));
    search->answering = true;
    hand_out(search);
    search->answering = false;
    if (search->unwanted && !search->stepping) {
        search_destroy(search);
    }
}

/* The newest events are in no file yet; they belong to the step of the newest file. */
static void look_at_memory(struct events_search *search)
{
    events_scan_memory(buffer_slice(&search->events->pending), look, search);
    if (search->phase == PHASE_TEXT) {
        take_new_ids(search);
        search->new_count = 0;
    }
    struct buffer late = search->late;
    search->late = search->results;
    search->results = late;
}

void events_search_step(struct events_search *search)
{
    struct events *events = search->events;
    assert(!search->stepping && !search->unwanted);
    search->new_count = 0;
    buffer_clear(&search->results);
    buffer_clear(&search->late);
    search->memory_seen = false;
    events_flush(events);
    const struct events_file *file = search->phase == PHASE_END ? NULL : next_file(search);
    search->number = file != NULL ? file->number : 0;
    search->index = file != NULL ? file->index : INDEX_ABSENT;
    if (file == NULL || file == &events->files[events->file_count - 1]) {
        look_at_memory(search);
        search->memory_seen = true;
    }
    if (file != NULL) {
        search->at = file->number;
    }
    search->stepping = true;
    if (worker_submit(events->worker, step_run, step_done, search) != ERROR_NONE) {
        search->phase = PHASE_END; /* cannot go on: what was found is all */
        step_done(search);
    }
}

struct events_search *events_search_new(struct events *events, struct slice what,
                                        events_found_fn *fn, void *context)
{
    struct events_search *search = calloc(1, sizeof(*search));
    if (search == NULL) {
        return NULL;
    }
    search->events = events;
    search->fn = fn;
    search->context = context;
    buffer_init(&search->text, 0);
    buffer_init(&search->results, RESULTS_MAX);
    buffer_init(&search->late, RESULTS_MAX);
    struct slice id = slice_take(what, slice_find(what, '/'));
    if (id_from_text(id, &search->ids[0])) {
        search->id_count = 1;
        search->phase = PHASE_IDS;
    } else {
        buffer_append(&search->text, what);
        search->is_client = ip_from_text(what, &search->client);
        search->phase = PHASE_TEXT;
        search->at = UINT64_MAX;
    }
    events->searches++;
    return search;
}

void events_search_free(struct events_search *search)
{
    if (search == NULL) {
        return;
    }
    if (search->stepping || search->answering) {
        search->unwanted = true;
    } else {
        search_destroy(search);
    }
}
