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
#include "spool/copies_pick.h"
#include "spool/log_internal.h"

#include <stdlib.h>

enum search_pass { PASS_FATES, PASS_MESSAGES, PASS_OVER };

struct log_search {
    struct spool_copies copies;
    struct journal *journal;
    struct copies_pick pick;
    enum search_pass pass;
    bool under_way; /* with the janitor */
    bool freed;
    uint64_t last; /* number of the segment walked last */
    uint64_t walked;
    struct arena arena; /* of one record */
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

/* ---- one index --------------------------------------------------------------------------- */

static enum error take_fate(struct log_search *search, struct slice payload)
{
    struct log_fate fate;
    return log_get_fate(payload, &fate) ? copies_pick_fate(&search->pick, fate.id, fate.delivery,
                                                           fate.fate, fate.when_ms, fate.server)
                                        : ERROR_NONE;
}

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
        const struct log_ticket place = {search->number, search->nonce, entry->offset,
                                         message.message.id};
        error = search->pass == PASS_FATES
                    ? copies_pick_sent(&search->pick, &message.message)
                    : copies_pick_message(&search->pick, &place, &message.message);
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
        search->pick.counts.unreadable++;
    }
}

/* ---- from one to the next ---------------------------------------------------------------- */

static void search_free(struct log_search *search)
{
    search->journal->copies.searches--;
    copies_pick_done(&search->pick);
    arena_done(&search->arena);
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
            copies_pick_between(&search->pick);
        } else {
            copies_pick_after(&search->pick);
        }
        search->pass++;
        search->last = 0;
    }
    enum error error = search->error;
    if (error == ERROR_NONE && search->pass != PASS_OVER) {
        /* From here on it is the job's, if there is one. */
        error = worker_submit(search->journal->janitor, walk_run, walk_done, search);
        search->under_way = error == ERROR_NONE;
    }
    if (!search->under_way) {
        buffer_done(&search->index);
        buffer_init(&search->index, 0);
        search->pick.query.done(search->pick.query.context, error);
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
    enum error error = search == NULL ? ERROR_MEMORY
                       : journal->loading != NULL
                           ? ERROR_AGAIN
                           : copies_pick_init(&search->pick, query, journal->copies.keep_s * 1000,
                                              journal->copies.now_s * 1000);
    if (error != ERROR_NONE) {
        free(search);
        copies_give_back(query);
        return error;
    }
    /* It begins in a completion, so that `done` is never called from inside this. */
    error = worker_submit(journal->janitor, nothing_run, walk_done, search);
    if (error != ERROR_NONE) {
        copies_pick_done(&search->pick);
        free(search);
        return error;
    }
    search->copies.spool = spool;
    search->journal = journal;
    search->under_way = true;
    arena_init(&search->arena);
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
    *ret_counts = search_of(copies)->pick.counts;
}

void log_copies_get(struct spool_copies *copies, size_t i, struct spool_copy *ret_copy)
{
    copies_pick_get(&search_of(copies)->pick, i, ret_copy);
}

enum error log_copies_read_envelope(struct spool_copies *copies, size_t i, struct arena *arena,
                                    struct spool_message *ret_message)
{
    struct log_search *search = search_of(copies);
    struct log_message message;
    enum error error = log_files_message(&search->journal->files,
                                         copies_pick_place(&search->pick, i), arena, &message);
    if (error == ERROR_NONE) {
        *ret_message = message.message;
    }
    return error;
}

enum error log_copies_read_content(struct spool_copies *copies, size_t i, uint64_t offset,
                                   void *ret_bytes, size_t size, size_t *ret_length)
{
    struct log_search *search = search_of(copies);
    return journal_read_content(search->journal, copies_pick_place(&search->pick, i), offset,
                                ret_bytes, size, ret_length);
}
