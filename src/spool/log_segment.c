/* SPDX-License-Identifier: Apache-2.0
 *
 * Segments: what lives in each, when one may go, and the janitor's jobs (prepare, seal, remove).
 * The argument for removal is in log.c.
 */
#include "base/crc32c.h"
#include "spool/log_internal.h"
#include "sys/random.h"

#include <assert.h>
#include <stdlib.h>

/* ---- the list ---------------------------------------------------------------------------- */

static bool take_slot(struct journal *journal, uint32_t *ret_slot)
{
    for (uint32_t i = 0; i < journal->slot_count; i++) {
        if (journal->slots[i] == NULL) {
            *ret_slot = i;
            return true;
        }
    }
    uint32_t count = journal->slot_count == 0 ? 16 : journal->slot_count * 2;
    struct segment **slots = realloc(journal->slots, count * sizeof(*slots));
    if (slots == NULL) {
        return false;
    }
    memset(slots + journal->slot_count, 0, (count - journal->slot_count) * sizeof(*slots));
    *ret_slot = journal->slot_count;
    journal->slots = slots;
    journal->slot_count = count;
    return true;
}

/* Numbers only grow, but recovery may add them in any order. */
struct segment *segment_new(struct journal *journal, uint64_t number, uint64_t nonce)
{
    struct segment *segment = calloc(1, sizeof(*segment));
    if (segment == NULL || !take_slot(journal, &segment->slot)) {
        free(segment);
        return NULL;
    }
    segment->number = number;
    segment->nonce = nonce;
    segment->rank = UINT32_MAX; /* newer than what is being loaded */
    segment->end = segment->synced_end = LOG_DATA_AT;
    buffer_init(&segment->index, 0);
    journal->slots[segment->slot] = segment;
    struct link *at = journal->segments.previous;
    while (at != &journal->segments && segment_of(at)->number > number) {
        at = at->previous;
    }
    list_insert_before(at->next, &segment->link);
    journal->segment_count++;
    return segment;
}

static void drop_references(struct journal *journal, uint64_t number)
{
    LIST_EACH(&journal->segments, at, after)
    {
        struct segment *segment = segment_of(at);
        for (size_t i = 0; i < segment->reference_count; i++) {
            if (segment->references[i].number == number) {
                segment->references[i] = segment->references[--segment->reference_count];
                break;
            }
        }
    }
}

void segment_free(struct journal *journal, struct segment *segment)
{
    if (segment->file != NULL) {
        journal->disk->ops->close(segment->file);
    }
    log_files_forget(&journal->files, segment->number);
    list_remove(&segment->link);
    drop_references(journal, segment->number);
    journal->slots[segment->slot] = NULL;
    journal->segment_count--;
    buffer_done(&segment->index);
    free(segment->references);
    free(segment);
}

struct segment *segment_by_number(const struct journal *journal, uint64_t number)
{
    for (struct link *at = journal->segments.previous; at != &journal->segments;
         at = at->previous) {
        if (segment_of(at)->number == number) {
            return segment_of(at);
        }
    }
    return NULL;
}

/* ---- what refers to what ----------------------------------------------------------------- */

enum error segment_refer(struct segment *segment, uint64_t number, bool copies)
{
    if (segment->number == number) {
        return ERROR_NONE;
    }
    /* From the last: fates mostly concern the segment that the one before concerned. */
    for (size_t i = segment->reference_count; i-- > 0;) {
        if (segment->references[i].number == number) {
            segment->references[i].count++;
            segment->references[i].copies |= copies;
            return ERROR_NONE;
        }
    }
    if (segment->reference_count == segment->reference_capacity) {
        size_t capacity = segment->reference_capacity == 0 ? 4 : segment->reference_capacity * 2;
        struct log_reference *grown = realloc(segment->references, capacity * sizeof(*grown));
        if (grown == NULL) {
            return ERROR_MEMORY;
        }
        segment->references = grown;
        segment->reference_capacity = capacity;
    }
    segment->references[segment->reference_count++] =
        (struct log_reference){.number = number, .count = 1, .copies = copies};
    return ERROR_NONE;
}

bool segment_is_needed(const struct segment *segment)
{
    return segment->live_messages > 0 || segment->live_extents > 0 || segment->pins > 0 ||
           segment->reference_count > 0;
}

/* ---- what lives where -------------------------------------------------------------------- */

/* The same whenever it is asked for one message, so that counts come back to zero. */
static uint64_t live_estimate(const struct stored *stored)
{
    enum { RECORD = 512 };
    bool apart = (stored->flags & STORED_EXTRA) != 0 && stored->extra->file != 0;
    return RECORD + (apart ? 0 : stored_content(stored));
}

static void count_foreign(struct journal *journal, const struct stored *stored, int by,
                          uint64_t group)
{
    if ((stored->flags & STORED_EXTRA) == 0) {
        return;
    }
    for (uint32_t i = 0; i < stored->extra->foreign_count; i++) {
        struct segment *segment = journal->slots[stored->extra->foreign[i]];
        segment->live_extents += (uint32_t)by;
        segment->live_bytes += (uint64_t)((int64_t)by * LOG_CHUNK);
        segment->pins += (uint32_t)(by * (stored->pins > 0));
        if (group > segment->settled_group) {
            segment->settled_group = group;
        }
    }
}

void stored_settle(struct journal *journal, struct stored *stored, uint32_t slot, uint32_t offset)
{
    struct segment *segment = journal->slots[slot];
    stored->slot = slot;
    stored->offset = offset;
    segment->live_messages++;
    segment->live_bytes += live_estimate(stored);
    segment->pins += stored->pins > 0;
    count_foreign(journal, stored, 1, 0);
    if ((stored->flags & STORED_EXTRA) != 0 && stored->extra->foreign_count > 0) {
        list_append(&journal->spread, &stored->extra->link);
    }
}

/* `group` makes it so: only when that one is on stable storage may the segments be reclaimed. */
void stored_unsettle(struct journal *journal, struct stored *stored, uint64_t group)
{
    struct segment *segment = journal->slots[stored->slot];
    assert(segment->live_messages > 0);
    segment->live_messages--;
    journal->reclaim_hint |= segment->live_messages == 0;
    segment->live_bytes -= live_estimate(stored);
    segment->pins -= stored->pins > 0;
    if (group > segment->settled_group) {
        segment->settled_group = group;
    }
    count_foreign(journal, stored, -1, group);
    if ((stored->flags & STORED_EXTRA) != 0) {
        list_remove(&stored->extra->link);
    }
}

static void remember_garbage(struct journal *journal, uint64_t file, uint64_t group)
{
    struct content_garbage garbage = {file, group, true};
    buffer_append(&journal->garbage, slice_make(&garbage, sizeof(garbage)));
    journal->garbage.failed = false; /* else it is removed at the next start */
}

void stored_finish(struct journal *journal, uint32_t index, uint64_t group)
{
    struct stored *stored = table_at(&journal->table, index);
    table_hide(&journal->table, index);
    stored->flags |= STORED_FINISHED;
    journal->messages--;
    journal->live_bytes -= stored_content(stored);
    if (stored->pins == 0) {
        stored_release(journal, index, group);
    } else {
        struct segment *segment = journal->slots[stored->slot];
        segment->settled_group = group > segment->settled_group ? group : segment->settled_group;
    }
}

void stored_release(struct journal *journal, uint32_t index, uint64_t group)
{
    struct stored *stored = table_at(&journal->table, index);
    if ((stored->flags & STORED_EXTRA) != 0 && stored->extra->file != 0) {
        remember_garbage(journal, stored->extra->file, group);
    }
    stored_unsettle(journal, stored, group);
    table_free(&journal->table, index);
}

uint64_t journal_disk_bytes(const struct journal *journal)
{
    uint64_t total = journal->content_bytes + journal->copies.bytes;
    for (struct link *at = journal->segments.next; at != &journal->segments; at = at->next) {
        total += segment_of(at)->size;
    }
    total += journal->spares.length / sizeof(uint64_t) * journal->settings.segment_bytes;
    return total;
}

/* Groups are long and syncs few: the device's speed counts, not its latency. */
static bool is_bulk(const struct journal *journal)
{
    enum { LONG_GROUP_BYTES = 256 << 10 };
    return journal->group_bytes_mean >= LONG_GROUP_BYTES;
}

/* ---- sealing ----------------------------------------------------------------------------- */

/* The header of a new segment says how far each older one without a seal is valid. */
bool segments_take_header(struct journal *journal, struct segment *fresh,
                          struct log_header *ret_header)
{
    *ret_header = (struct log_header){
        .number = fresh->number, .nonce = fresh->nonce, .next_sequence = journal->next_sequence};
    LIST_EACH(&journal->segments, at, after)
    {
        struct segment *segment = segment_of(at);
        if (segment == fresh || segment->sealed) {
            continue;
        }
        if (ret_header->open_end_count == LOG_OPEN_ENDS_MAX) {
            return false;
        }
        /* A failed one counts as far as it was synced; if not even its header was, not at all. */
        uint32_t failed_end = segment->durable ? segment->synced_end : 0;
        ret_header->open_ends[ret_header->open_end_count++] = (struct log_open_end){
            segment->number, segment->nonce, segment->failed ? failed_end : segment->end,
            segment->others && !segment->failed};
    }
    return true;
}

enum error segment_write_seal(struct disk *disk, struct disk_file *file,
                              const struct segment *segment, struct slice index,
                              uint64_t next_sequence)
{
    uint8_t block[LOG_BLOCK];
    struct log_seal seal = {.number = segment->number,
                            .nonce = segment->nonce,
                            .next_sequence = next_sequence,
                            .end = segment->end,
                            .index_at = (uint32_t)log_align(segment->end, LOG_GROUP_ALIGN),
                            .index_length = (uint32_t)index.length,
                            .index_crc = crc32c(0, index)};
    log_seal_encode(&seal, block);
    enum error error = disk->ops->write(file, seal.index_at, index);
    if (error == ERROR_NONE) {
        error = disk->ops->write(file, LOG_SEAL_AT, slice_make(block, LOG_BLOCK));
    }
    if (error == ERROR_NONE) {
        error = disk->ops->sync(file);
    }
    return error;
}

struct seal_job {
    struct journal *journal;
    struct segment *segment;
    uint64_t next_sequence;
    bool forget; /* the kernel's copy: a stream of large mail would fill the memory with it */
    enum error error;
};

static void seal_run(void *context)
{
    struct seal_job *job = context;
    struct segment *segment = job->segment;
    struct disk *disk = job->journal->disk;
    struct disk_file *file = NULL;
    char name[LOG_NAME_SIZE];
    log_name_make(LOG_NAME_SEGMENT, segment->number, name);
    job->error = journal_may_write(job->journal);
    if (job->error == ERROR_NONE) {
        job->error = disk->ops->open(disk, name, DISK_READ | DISK_WRITE, &file);
    }
    if (job->error == ERROR_NONE) {
        job->error = segment_write_seal(disk, file, segment, buffer_slice(&segment->index),
                                        job->next_sequence);
        if (job->error == ERROR_NONE && job->forget) {
            disk_file_forget(file);
        }
        disk->ops->close(file);
    }
}

static void seal_done(void *context)
{
    struct seal_job *job = context;
    struct segment *segment = job->segment;
    struct journal *journal = job->journal;
    segment->busy = false;
    if (job->error == ERROR_NONE) {
        segment->sealed = true;
        segment->index_at = (uint32_t)log_align(segment->end, LOG_GROUP_ALIGN);
        segment->index_length = (uint32_t)segment->index.length;
        segment->index_crc = crc32c(0, buffer_slice(&segment->index));
        segment->index_known = false;
        buffer_done(&segment->index);
    } else {
        /* An open end in every later header until a try succeeds, which writes all of it anew. */
        segment->seal_failed = true;
    }
    free(job);
    segments_seal(journal);
    segments_reclaim(journal);
}

void segments_seal(struct journal *journal)
{
    LIST_EACH(&journal->segments, at, after)
    {
        struct segment *segment = segment_of(at);
        if (segment->head || segment->sealed || segment->failed || segment->busy ||
            segment->seal_failed || segment->unreadable || !segment->index_known || segment->gone ||
            segment->synced_end != segment->end || journal->janitor == NULL ||
            journal_is_others(journal, segment->number)) {
            continue;
        }
        struct seal_job *job = malloc(sizeof(*job));
        if (job == NULL) {
            return;
        }
        *job = (struct seal_job){journal, segment, journal->next_sequence, is_bulk(journal),
                                 ERROR_NONE};
        segment->busy = true;
        if (worker_submit(journal->janitor, seal_run, seal_done, job) != ERROR_NONE) {
            segment->busy = false;
            free(job);
            return;
        }
    }
}

void segments_seal_again(struct journal *journal)
{
    LIST_EACH(&journal->segments, at, after)
    {
        segment_of(at)->seal_failed = false;
    }
    segments_seal(journal);
}

/* ---- removal ----------------------------------------------------------------------------- */

static bool may_go(struct journal *journal, const struct segment *segment)
{
    /* A void one was never promised anything. */
    bool is_void = segment->failed && !segment->durable;
    if (segment->head || segment->busy || segment->gone || segment->emptying ||
        journal_may_be_copied(journal, segment->number) || segment_is_needed(segment) ||
        segment->references_lost || journal->globals_lost ||
        (!is_void && segment->number >= journal->globals_number) ||
        copies_await_seal(journal, segment)) {
        return false;
    }
    bool settled = segment->settled_group <= journal->synced_group;
    journal->reclaim_hint |= !settled; /* after the next sync */
    return settled;
}

enum { REMOVE_AT_ONCE = 32 };

struct remove_job {
    struct journal *journal;
    struct segment *segments[REMOVE_AT_ONCE];
    size_t count;
    enum error error;
};

static void remove_run(void *context)
{
    struct remove_job *job = context;
    struct disk *disk = job->journal->disk;
    job->error = job->error == ERROR_NONE ? journal_may_write(job->journal) : job->error;
    for (size_t i = 0; i < job->count && job->error == ERROR_NONE; i++) {
        char name[LOG_NAME_SIZE], to[LOG_NAME_SIZE];
        const struct segment *segment = job->segments[i];
        log_name_make(LOG_NAME_SEGMENT, segment->number, name);
        if (segment->spare != 0) {
            log_name_make(LOG_NAME_SPARE, segment->spare, to);
            job->error = disk->ops->rename(disk, name, to);
        } else if (segment->copy_s != 0) {
            log_pair_make(LOG_PAIR_COPY, segment->number, (uint64_t)segment->copy_s, to);
            job->error = disk->ops->rename(disk, name, to);
        } else if (segment->unreadable) {
            log_name_make(LOG_NAME_SET_ASIDE, segment->number, to);
            job->error = disk->ops->rename(disk, name, to);
        } else {
            job->error = disk->ops->unlink(disk, name);
        }
        if (job->error == ERROR_MISSING) {
            job->error = ERROR_NONE; /* tried before */
        }
    }
    if (job->error == ERROR_NONE) {
        job->error = disk->ops->sync_directory(disk);
    }
}

static void remove_done(void *context)
{
    struct remove_job *job = context;
    struct journal *journal = job->journal;
    journal->removing = false;
    for (size_t i = 0; i < job->count; i++) {
        if (job->error != ERROR_NONE) {
            /* Whether it is gone for good is unknown: it counts as here, and is tried again. */
            job->segments[i]->gone = false;
            continue;
        }
        if (job->segments[i]->spare != 0) {
            buffer_append(&journal->spares, slice_make(&job->segments[i]->spare, sizeof(uint64_t)));
            journal->spares.failed = false;
        }
        if (job->segments[i]->copy_s != 0) {
            struct log_copy copy = {LOG_PAIR_COPY, job->segments[i]->number,
                                    job->segments[i]->copy_s, job->segments[i]->size};
            copies_add(journal, &copy);
        }
        segment_free(journal, job->segments[i]);
    }
    bool again = job->error == ERROR_NONE;
    free(job);
    if (again && !journal->ending) {
        segments_reclaim(journal);
    }
}

static size_t spare_count(const struct journal *journal)
{
    return journal->spares.length / sizeof(uint64_t);
}

/* One spare beyond the settings is kept for fates, notes and DSNs when the disk is full. */
static size_t spare_target(const struct journal *journal)
{
    return (size_t)journal->settings.ready_segments + 1;
}

/* Only what is free now goes in one round: what it frees goes in the next, after the directory has
 * been synced, so that a fate never goes before the message it is about. */
void segments_reclaim(struct journal *journal)
{
    if (journal->removing || journal->loading != NULL || journal->janitor == NULL) {
        return;
    }
    journal->reclaim_hint = false;
    contents_collect(journal); /* first, so that no copy is without its contents for long */
    struct remove_job *job = NULL;
    size_t recycled = spare_count(journal) + journal->preparing;
    LIST_EACH(&journal->segments, at, after)
    {
        struct segment *segment = segment_of(at);
        if (!may_go(journal, segment)) {
            continue;
        }
        if (job == NULL && (job = calloc(1, sizeof(*job))) == NULL) {
            return;
        }
        job->journal = journal;
        bool keep = copies_take(journal, segment);
        /* W6: another machine's kernel may still hold pages of what its writer wrote there. */
        bool recycle = !keep && recycled < spare_target(journal) && !segment->failed &&
                       !segment->unreadable && segment->size == journal->settings.segment_bytes &&
                       log_token(segment->number) == journal->settings.token;
        if (!segment->tried) {
            segment->spare = recycle ? journal->next_spare++ : 0;
            segment->copy_s = keep ? journal->copies.now_s : 0;
        }
        segment->tried = true;
        job->segments[job->count++] = segment;
        recycled += segment->spare != 0;
        segment->gone = true;
        log_files_forget(&journal->files, segment->number);
        if (job->count == REMOVE_AT_ONCE) {
            break;
        }
    }
    if (job == NULL) {
        return;
    }
    journal->removing = worker_submit(journal->janitor, remove_run, remove_done, job) == ERROR_NONE;
    if (!journal->removing) {
        job->error = ERROR_MEMORY;
        remove_done(job);
    }
}

/* ---- preparing --------------------------------------------------------------------------- */

struct prepare_job {
    struct journal *journal;
    uint64_t number;
    uint64_t size;
    bool write; /* zeros, so that the first use of a block changes no metadata */
    enum error error;
};

static enum error write_zeros(struct disk *disk, struct disk_file *file, uint64_t size)
{
    enum { PART = 1 << 20, SYNC_EVERY = 8 << 20 };
    uint8_t *zeros = calloc(1, PART);
    enum error error = zeros == NULL ? ERROR_MEMORY : ERROR_NONE;
    for (uint64_t at = 0; at < size && error == ERROR_NONE; at += PART) {
        error = disk->ops->write(file, at, slice_make(zeros, size - at < PART ? size - at : PART));
        /* In small steps: the committer's syncs share the device. */
        if (error == ERROR_NONE && (at + PART) % SYNC_EVERY == 0) {
            error = disk->ops->sync(file);
        }
    }
    free(zeros);
    return error;
}

static enum error prepare(struct disk *disk, const struct prepare_job *job, const char *name)
{
    struct disk_file *file;
    enum error error = disk->ops->open(disk, name, DISK_READ | DISK_WRITE | DISK_CREATE, &file);
    if (error != ERROR_NONE) {
        return error;
    }
    error = disk->ops->allocate(file, job->size);
    if (error == ERROR_NONE && job->write) {
        error = write_zeros(disk, file, job->size);
    }
    if (error == ERROR_NONE) {
        error = disk->ops->sync(file);
    }
    disk->ops->close(file);
    return error;
}

static void prepare_run(void *context)
{
    struct prepare_job *job = context;
    struct disk *disk = job->journal->disk;
    char name[LOG_NAME_SIZE], spare[LOG_NAME_SIZE];
    log_name_make(LOG_NAME_NEW, job->number, name);
    log_name_make(LOG_NAME_SPARE, job->number, spare);
    job->error = journal_may_write(job->journal);
    if (job->error == ERROR_NONE) {
        job->error = prepare(disk, job, name);
    }
    if (job->error == ERROR_NONE) {
        job->error = disk->ops->rename(disk, name, spare);
    }
    if (job->error == ERROR_NONE) {
        job->error = disk->ops->sync_directory(disk);
    }
    if (job->error != ERROR_NONE && job->error != ERROR_DENIED) {
        (void)!disk->ops->unlink(disk, name);
        (void)!disk->ops->unlink(disk, spare);
    }
}

static void prepare_done(void *context)
{
    struct prepare_job *job = context;
    struct journal *journal = job->journal;
    journal->preparing = false;
    bool prepared = job->error == ERROR_NONE;
    if (prepared) {
        buffer_append(&journal->spares, slice_make(&job->number, sizeof(job->number)));
        journal->spares.failed = false;
    }
    free(job);
    /* After an error the next tick tries again. */
    if (prepared && !journal->ending) {
        segments_prepare(journal);
    }
}

void segments_prepare(struct journal *journal)
{
    size_t target = journal->space_low ? 1 : spare_target(journal);
    if (journal->preparing || journal->janitor == NULL || journal->trouble != ERROR_NONE ||
        spare_count(journal) >= target) {
        return;
    }
    struct prepare_job *job = malloc(sizeof(*job));
    if (job == NULL) {
        return;
    }
    *job = (struct prepare_job){.journal = journal,
                                .number = journal->next_spare++,
                                .size = journal->settings.segment_bytes,
                                .write = !is_bulk(journal)}; /* twice does not pay */
    journal->preparing =
        worker_submit(journal->janitor, prepare_run, prepare_done, job) == ERROR_NONE;
    if (!journal->preparing) {
        free(job);
    }
}
