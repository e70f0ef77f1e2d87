/* SPDX-License-Identifier: Apache-2.0
 *
 * The committer: the one place that writes groups and syncs them, and so the one place where a
 * batch becomes true (R1). At most one group is being written; meanwhile the next gathers.
 *
 *     gather --launch--> writing --written--> (synced: done) or (not synced: retained)
 *                           |                                        |
 *                           +--failed--> waiting <--segment failed---+
 *
 * A retained group has told its lazy and written batches but is not on stable storage; should its
 * segment fail, it is written again in the next one. A waiting group goes before the gathering one,
 * so the order of submission is the order of the journal, whatever fails.
 */
#include "spool/log_internal.h"
#include "sys/random.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    COMPANY_WAIT_US = 60,          /* docs/decisions/0010: measured */
    COMPANY_LEAST = 2,             /* batches of the group before, for the next one to wait */
    COMPANY_ENOUGH = 16,           /* batches that are worth a sync at once */
    SMALL_SEGMENT_BYTES = 1 << 20, /* beyond what its first group needs */
    COMPANY_BYTES = 128 << 10,     /* so many bytes take their time anyway */
};

static void launch(struct journal *journal, struct group *group);

/* ---- group objects ----------------------------------------------------------------------- */

struct group *group_new(struct journal *journal)
{
    struct group *group;
    if (!list_is_empty(&journal->idle)) {
        group = group_of(journal->idle.next);
        list_remove(&group->link);
    } else {
        group = calloc(1, sizeof(*group));
        if (group == NULL) {
            return NULL;
        }
        list_init(&group->link);
        group->journal = journal;
    }
    group->number = journal->next_group++;
    return group;
}

void group_free(struct group *group)
{
    if (group != NULL) {
        buffer_done(&group->bytes);
        buffer_done(&group->index);
        buffer_done(&group->batches);
        buffer_done(&group->news);
        buffer_done(&group->handles);
        buffer_done(&group->changes);
        buffer_done(&group->files);
        buffer_done(&group->globals);
        buffer_done(&group->globals_index);
        free(group);
    }
}

static void keep_small(struct buffer *buffer)
{
    enum { KEEP = 8 << 20 };
    if (buffer->capacity > KEEP) {
        buffer_done(buffer);
    }
    buffer_clear(buffer);
}

void group_recycle(struct journal *journal, struct group *group)
{
    struct group empty = {.journal = journal,
                          .bytes = group->bytes,
                          .index = group->index,
                          .batches = group->batches,
                          .news = group->news,
                          .handles = group->handles,
                          .changes = group->changes,
                          .files = group->files,
                          .globals_index = group->globals_index,
                          .globals = group->globals};
    list_remove(&group->link);
    *group = empty;
    struct buffer *const buffers[] = {&group->bytes, &group->index,   &group->batches,
                                      &group->news,  &group->handles, &group->changes,
                                      &group->files, &group->globals, &group->globals_index};
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++) {
        keep_small(buffers[i]);
    }
    list_init(&group->link);
    list_append(&journal->idle, &group->link);
}

/* ---- the jobs ---------------------------------------------------------------------------- */

static enum error sync_files(struct group *group)
{
    struct group_file *files = (void *)group->files.data;
    struct disk *disk = group->journal->disk;
    enum error first = ERROR_NONE;
    for (size_t i = 0; i < group->files.length / sizeof(*files); i++) {
        struct content_file *file = files[i].file;
        if (file->error == ERROR_NONE) {
            file->error = file->handle == NULL ? ERROR_IO : disk->ops->sync(file->handle);
        }
        first = first == ERROR_NONE ? file->error : first;
    }
    if (first == ERROR_NONE && group->files.length > 0) {
        first = disk->ops->sync_directory(disk);
        for (size_t i = 0; i < group->files.length / sizeof(*files) && first != ERROR_NONE; i++) {
            files[i].file->error = first; /* its name may be gone after a crash */
        }
    }
    return first;
}

static enum error leave_old(struct group *group)
{
    struct segment *old = group->old;
    struct disk *disk = group->journal->disk;
    if (old == NULL || old->file == NULL) {
        return ERROR_NONE;
    }
    enum error error =
        old->synced_end == old->end && old->durable ? ERROR_NONE : disk->ops->sync(old->file);
    disk->ops->close(old->file);
    old->file = NULL;
    return error;
}

static enum error open_spare(struct group *group, uint64_t spare, const char *name)
{
    struct disk *disk = group->journal->disk;
    char from[LOG_NAME_SIZE];
    log_name_make(LOG_NAME_SPARE, spare, from);
    enum error error = disk->ops->rename(disk, from, name);
    if (error == ERROR_NONE) {
        group->created = true;
        error = disk->ops->open(disk, name, DISK_READ | DISK_WRITE, &group->segment->file);
    }
    return error;
}

static enum error open_new(struct group *group, const char *name)
{
    struct disk *disk = group->journal->disk;
    struct disk_file **file = &group->segment->file;
    enum error error = disk->ops->open(disk, name, DISK_READ | DISK_WRITE | DISK_CREATE, file);
    if (error != ERROR_NONE) {
        return error;
    }
    group->created = true;
    error = disk->ops->allocate(*file, group->fresh_size);
    /* A full disk may have room for a little one: fates and attempts must go on (R2). */
    uint64_t small = group->fresh_least + SMALL_SEGMENT_BYTES;
    if (error == ERROR_SPACE && group->emergency == 0 && small < group->fresh_size) {
        error = disk->ops->truncate(*file, 0);
        group->fresh_size = small;
        error = error == ERROR_NONE ? disk->ops->allocate(*file, small) : error;
    }
    return error;
}

static enum error open_fresh(struct group *group)
{
    struct disk *disk = group->journal->disk;
    struct segment *segment = group->segment;
    char name[LOG_NAME_SIZE];
    log_name_make(LOG_NAME_SEGMENT, segment->number, name);
    enum error error = ERROR_MISSING;
    if (group->spare != 0) {
        error = open_spare(group, group->spare, name);
        group->spare = error == ERROR_MISSING ? 0 : group->spare; /* somebody has tidied up */
    }
    if (group->spare == 0) {
        error = open_new(group, name);
    }
    if (error == ERROR_SPACE && group->emergency != 0) {
        if (segment->file != NULL) {
            disk->ops->close(segment->file);
            segment->file = NULL;
        }
        group->used_emergency = true;
        error = open_spare(group, group->emergency, name);
    }
    for (int copy = 0; copy < 2 && error == ERROR_NONE; copy++) {
        error = disk->ops->write(segment->file, (uint64_t)copy * LOG_BLOCK,
                                 slice_make(group->header, LOG_BLOCK));
    }
    if (error == ERROR_NONE) {
        error = disk->ops->sync_directory(disk);
    }
    return error;
}

static bool go_on(struct group *group, enum group_stage stage)
{
    if (group->error == ERROR_NONE) {
        group->stage = stage;
        return true;
    }
    return false;
}

static void sync_run(void *context)
{
    struct group *group = context;
    if (go_on(group, STAGE_SYNC)) {
        group->error = group->journal->disk->ops->sync(group->segment->file);
    }
}

static void write_run(void *context)
{
    struct group *group = context;
    struct disk *disk = group->journal->disk;
    if (group->error == ERROR_NONE) {
        group->stage = STAGE_CONTENT;
        group->error = journal_may_write(group->journal);
    }
    if (go_on(group, STAGE_CONTENT)) {
        group->error = sync_files(group);
    }
    if (group->fresh && go_on(group, STAGE_OLD)) {
        group->error = leave_old(group);
    }
    if (group->fresh && go_on(group, STAGE_OPEN)) {
        group->error = open_fresh(group);
    }
    if (group->globals.length > 0 && go_on(group, STAGE_WRITE)) {
        group->error = disk->ops->write(group->segment->file, group->globals_at,
                                        buffer_slice(&group->globals));
    }
    if (go_on(group, STAGE_WRITE)) {
        group->error =
            disk->ops->write(group->segment->file, group->base, buffer_slice(&group->bytes));
    }
    group->write_error = group->error;
    if (group->sync && !group->two_jobs) {
        sync_run(context);
    }
}

/* ---- completion -------------------------------------------------------------------------- */

void group_tell(struct group *group, struct batch *batch, enum error error)
{
    const struct spool_handle *handles = (const void *)group->handles.data;
    size_t count = error == ERROR_NONE ? batch->news_to - batch->news_from : 0;
    batch->completed = true;
    if (batch->fn != NULL) {
        batch->fn(batch->context, error, count > 0 ? handles + batch->news_from : NULL, count);
    }
}

static void complete(struct journal *journal, struct group *group, bool synced)
{
    for (size_t i = 0; i < group_batch_count(group); i++) {
        struct batch *batch = group_batch(group, i);
        bool due = synced || batch->durability != SPOOL_SYNCED;
        if (!due || batch->dropped || batch->applied) {
            continue;
        }
        bool first = !batch->completed;
        batch_apply(journal, group, batch);
        batch->applied = true;
        if (first) {
            group_tell(group, batch, ERROR_NONE);
        }
    }
}

static void add_to_index(struct journal *journal, struct group *group)
{
    struct segment *segment = group->segment;
    log_index_rebase(&group->index, 0, group->base);
    buffer_append(&segment->index, buffer_slice(&group->index));
    log_index_rebase(&group->index, 0, -group->base);
    if (segment->index.failed) {
        segment->index_known = false; /* it will be scanned instead */
        segment->index.failed = false;
    }
    (void)journal;
}

/* On disk as far as a process that dies is concerned. */
static void written(struct journal *journal, struct group *group)
{
    add_to_index(journal, group);
    journal->groups++;
    journal->content_pending -= group->loose_bytes;
    group->loose_bytes = 0;
    uint64_t length = group->bytes.length;
    journal_wrote(journal, length);
    journal->group_bytes_mean += (uint64_t)((int64_t)(length - journal->group_bytes_mean) / 16);
    struct group_file *files = (void *)group->files.data;
    for (size_t i = 0; i < group->files.length / sizeof(*files); i++) {
        content_file_close(files[i].file);
    }
    buffer_clear(&group->files);
    if (group->fresh) {
        if (!group->used_emergency && group->emergency != 0) {
            buffer_append(&journal->spares, slice_make(&group->emergency, sizeof(uint64_t)));
            journal->spares.failed = false;
        }
        if (group->old != NULL) {
            group->old->synced_end = group->old->end;
            group->old->durable = true;
        }
    }
}

static void synced(struct journal *journal, struct group *group)
{
    journal->syncs++;
    group->segment->durable = true;
    group->segment->synced_end = group->base + (uint32_t)group->bytes.length;
    journal->synced_group = group->number;
    if (group->globals.length > 0) {
        journal->globals_number = group->segment->number;
    }
    while (!list_is_empty(&journal->retained)) {
        group_recycle(journal, group_of(journal->retained.next));
    }
    journal->retained_bytes = 0;
}

static void retain(struct journal *journal, struct group *group)
{
    /* Of extents alone nothing was promised. */
    if (group_batch_count(group) == 0) {
        group_recycle(journal, group);
        return;
    }
    list_append(&journal->retained, &group->link);
    journal->retained_bytes += group->bytes.length;
}

static void finished(void *context)
{
    struct group *group = context;
    struct journal *journal = group->journal;
    if (group->error != ERROR_NONE) {
        group_failed(journal, group);
    } else {
        if (!group->two_jobs) {
            written(journal, group);
        }
        bool fresh = group->fresh, group_synced = group->sync;
        if (fresh) {
            group->segment->size = group->fresh_size; /* less than planned on a full disk */
        }
        bool used_emergency = group->used_emergency;
        if (group_synced) {
            synced(journal, group);
        }
        batch_apply_globals(journal, group);
        complete(journal, group, group->sync);
        journal->writing = NULL;
        if (group->sync) {
            group_recycle(journal, group);
            journal_set_state(journal, ERROR_NONE, journal->space_low, NULL);
        } else {
            retain(journal, group);
        }
        if (fresh && used_emergency) {
            journal->emergency_used = true;
            journal_set_state(journal, journal->trouble, true, "no space for another segment");
        }
        if (fresh) {
            segments_seal(journal);
            segments_prepare(journal);
        }
        if (group_synced && journal->reclaim_hint) {
            segments_reclaim(journal);
        }
        if (journal->compact_next) {
            compaction_step(journal);
        }
    }
    journal_flush(journal);
}

static void written_done(void *context)
{
    struct group *group = context;
    if (group->write_error == ERROR_NONE) { /* `error` may be the sync's already, on its thread */
        written(group->journal, group);
        complete(group->journal, group, false);
    }
    if (group->sync_missed) {
        sync_run(group);
        finished(group);
    }
}

/* ---- placing ----------------------------------------------------------------------------- */

static bool fits(const struct journal *journal, const struct segment *segment,
                 const struct group *group)
{
    enum { INDEX_SLACK = 4096 };
    uint64_t end = (uint64_t)segment->end + group->globals.length + group->bytes.length +
                   segment->index.length + group->index.length + INDEX_SLACK;
    uint64_t size = segment->size < journal->settings.segment_bytes
                        ? segment->size
                        : journal->settings.segment_bytes;
    return end <= size;
}

static void take_spares(struct journal *journal, struct group *group)
{
    uint64_t *spares = (void *)journal->spares.data;
    size_t count = journal->spares.length / sizeof(*spares);
    group->spare = group->emergency = 0;
    if (count == 0 || group->fresh_size != journal->settings.segment_bytes) {
        return;
    }
    uint64_t taken = spares[count - 1];
    journal->spares.length -= sizeof(taken);
    if (count > 1 || journal->space_low || journal->trouble == ERROR_SPACE) {
        group->spare = taken;
    } else {
        group->emergency = taken;
    }
}

/* ERROR_SPACE: too many older segments have no seal yet, and a header has no room for more. */
static enum error place_fresh(struct journal *journal, struct group *group)
{
    struct segment *fresh = segment_new(journal, journal->next_number, random_u64());
    if (fresh == NULL) {
        return ERROR_MEMORY;
    }
    struct log_header header;
    if (!segments_take_header(journal, fresh, &header)) {
        segment_free(journal, fresh);
        return ERROR_SPACE;
    }
    journal->next_number++;
    log_header_encode(&header, group->header);
    enum { INDEX_SLACK = 4096 };
    uint64_t need = log_align(LOG_DATA_AT + group->globals.length + group->bytes.length +
                                  group->index.length + INDEX_SLACK,
                              LOG_BLOCK);
    group->fresh = true;
    group->fresh_least = need;
    group->fresh_size =
        need > journal->settings.segment_bytes ? need : journal->settings.segment_bytes;
    fresh->size = group->fresh_size;
    fresh->head = true;
    fresh->index_known = true;
    group->old = journal->head;
    if (journal->head != NULL) {
        journal->head->head = false;
    }
    journal->head = fresh;
    take_spares(journal, group);
    return ERROR_NONE;
}

static bool encode_globals(struct journal *journal, struct group *group)
{
    buffer_clear(&group->globals);
    buffer_clear(&group->globals_index);
    if (journal->loading != NULL) {
        return true; /* not all known yet: repeated when they are */
    }
    globals_put(journal, &group->globals, &group->globals_index);
    log_group_close(&group->globals);
    return !group->globals.failed && !group->globals_index.failed;
}

static enum error place(struct journal *journal, struct group *group)
{
    struct segment *head = journal->head;
    bool fresh = head == NULL || head->failed || !fits(journal, head, group);
    group->fresh = false;
    group->old = NULL;
    group->spare = group->emergency = 0;
    buffer_clear(&group->globals);
    if ((fresh || journal->repeat_globals) && !encode_globals(journal, group)) {
        return ERROR_MEMORY;
    }
    enum error error = fresh ? place_fresh(journal, group) : ERROR_NONE;
    if (error != ERROR_NONE) {
        return error;
    }
    head = journal->head;
    group->segment = head;
    if (group->globals.length > 0) {
        group->globals_at = head->end;
        log_group_place(&group->globals, head->nonce, head->end, head->synced_end);
        log_index_rebase(&group->globals_index, 0, head->end);
        buffer_append(&head->index, buffer_slice(&group->globals_index));
        head->end += (uint32_t)group->globals.length;
    }
    group->base = head->end;
    log_group_place(&group->bytes, head->nonce, group->base, head->synced_end);
    head->end += (uint32_t)group->bytes.length;
    return ERROR_NONE;
}

/* ---- launching --------------------------------------------------------------------------- */

void group_put_back(struct journal *journal, struct group *group)
{
    list_insert_before(journal->waiting.next, &group->link);
}

static void launch(struct journal *journal, struct group *group)
{
    if (!group->closed) {
        log_group_close(&group->bytes);
        group->closed = !group->bytes.failed;
        group->bytes.failed = false;
    }
    enum error error = group->closed ? place(journal, group) : ERROR_MEMORY;
    if (error != ERROR_NONE) {
        group_put_back(journal, group);
        journal_in_trouble(journal, error,
                           error == ERROR_SPACE
                               ? "the disk does not keep up: too many segments await their seal"
                               : "out of memory");
        return;
    }
    for (size_t i = 0; i < group_batch_count(group); i++) {
        group_batch(group, i)->applied = false;
    }
    contents_placed(journal, group);
    group->error = ERROR_NONE;
    group->created = group->used_emergency = group->sync_missed = false;
    group->sync = group->needs_sync || group->fresh || group->globals.length > 0 ||
                  journal->sync_asked ||
                  journal->retained_bytes + group->bytes.length > LOG_RETAIN_BYTES;
    group->two_jobs = group->sync && group->tells_written;
    journal->repeat_globals &= group->globals.length == 0;
    journal->sync_asked = false;
    journal->writing = group;
    if (worker_submit(journal->committer, write_run, group->two_jobs ? written_done : finished,
                      group) != ERROR_NONE) {
        /* Memory is out: what the worker would do is done here, late but right. */
        group->two_jobs = false;
        write_run(group);
        finished(group);
        return;
    }
    if (group->two_jobs) {
        group->sync_missed =
            worker_submit(journal->committer, sync_run, finished, group) != ERROR_NONE;
    }
}

static bool gather_has_work(const struct journal *journal, bool all)
{
    const struct group *gather = journal->gather;
    if (journal->sync_asked || journal->repeat_globals ||
        gather->bytes.length >= LOG_GATHER_BYTES) {
        return true;
    }
    if (all) {
        return gather->bytes.length > 0 || gather->batches.length > 0;
    }
    for (size_t i = 0; i < gather->batches.length / sizeof(struct batch); i++) {
        if (group_batch(journal->gather, i)->durability != SPOOL_LAZY) {
            return true;
        }
    }
    return false;
}

static uint32_t gather_told(const struct journal *journal)
{
    uint32_t count = 0;
    for (size_t i = 0; i < group_batch_count(journal->gather); i++) {
        count += group_batch(journal->gather, i)->durability != SPOOL_LAZY;
    }
    return count;
}

static void start(struct journal *journal, bool all)
{
    if (journal->writing != NULL || journal->batch_open) {
        return;
    }
    if (!list_is_empty(&journal->waiting)) {
        struct group *group = group_of(journal->waiting.next);
        list_remove(&group->link);
        launch(journal, group);
        return;
    }
    if (!gather_has_work(journal, all)) {
        return;
    }
    struct group *group = journal->gather;
    struct group *next = group_new(journal);
    if (next != NULL) {
        journal->company = gather_told(journal);
        journal->gather = next;
        if (journal->alarm_set) {
            journal->alarm_set = false;
            loop_alarm_cancel(journal->alarm);
        }
        launch(journal, group);
    }
}

static void tell_errors(struct journal *journal)
{
    /* Those told may submit again: their errors wait behind. */
    size_t count = journal->errors.length / sizeof(struct error_told);
    for (size_t i = 0; i < count; i++) {
        struct error_told told = ((struct error_told *)(void *)journal->errors.data)[i];
        told.fn(told.context, told.error, NULL, 0);
    }
    buffer_consume(&journal->errors, count * sizeof(struct error_told));
}

/* A sync costs the same for one batch and for twenty. While several clients are at work, a group
 * waits a moment for those that the group before has just answered; one alone never waits. */
static bool waits_for_company(struct journal *journal)
{
    const struct group *gather = journal->gather;
    if (journal->writing != NULL || !list_is_empty(&journal->waiting) || journal->sync_asked ||
        journal->repeat_globals || journal->company < COMPANY_LEAST ||
        gather->bytes.length >= COMPANY_BYTES) {
        return false;
    }
    uint32_t count = gather_told(journal);
    if (count == 0 || count >= COMPANY_ENOUGH) {
        return false;
    }
    if (!journal->alarm_set) {
        journal->alarm_set = true;
        loop_alarm_set(journal->alarm, COMPANY_WAIT_US);
    }
    return true;
}

void journal_flush(void *context)
{
    struct journal *journal = context;
    tell_errors(journal);
    if (journal->trouble == ERROR_NONE && !waits_for_company(journal)) {
        start(journal, false);
    }
}

void journal_alarm(void *context)
{
    struct journal *journal = context;
    journal->alarm_set = false;
    if (journal->trouble == ERROR_NONE) {
        start(journal, false);
    }
}

void journal_flush_later(struct journal *journal)
{
    if (journal->writing == NULL) {
        loop_later_ask(journal->later);
    }
}

void journal_flush_all(struct journal *journal, bool sync)
{
    journal->sync_asked |= sync;
    start(journal, true);
}

/* ---- the end ------------------------------------------------------------------------------ */

void journal_drain(struct journal *journal)
{
    for (;;) {
        tell_errors(journal);
        if (journal->writing == NULL) {
            start(journal, true);
        }
        if (journal->writing == NULL) {
            break;
        }
        worker_drain(journal->committer);
        if (journal->trouble != ERROR_NONE) {
            break;
        }
    }
    /* What is left could not be written. */
    enum error error = journal->trouble != ERROR_NONE ? journal->trouble : ERROR_MEMORY;
    while (!list_is_empty(&journal->waiting)) {
        struct group *group = group_of(journal->waiting.next);
        for (size_t i = 0; i < group_batch_count(group); i++) {
            group_give_up(journal, group, i, error);
        }
        group_recycle(journal, group);
    }
    for (size_t i = 0; i < group_batch_count(journal->gather); i++) {
        group_give_up(journal, journal->gather, i, error);
    }
}
