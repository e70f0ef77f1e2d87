/* SPDX-License-Identifier: Apache-2.0
 *
 * What another writer still writes, who has been taken over from and may not know it yet.
 *
 * Its segments are named with its token, and it alone changes them (journal_is_others()): nothing
 * of its is written to, sealed, emptied, removed or used again here. A hung write of its may come
 * to its end at any time, and with it a complete group, or even a new segment. So once a second the
 * janitor looks: is there a record behind the end of what is known of its last segment, or a file
 * that is not known? Only then all its segments are judged anew, by what its own newest header says
 * of them, and what has come is loaded as at a start (log_load.c), where it lies.
 *
 * That is durable by itself: each later start judges each writer's segments by that writer's own
 * headers, reads the last of them up to its last complete group, and so finds the same and more.
 *
 * When the other is known to have ended (spool_others_ended()), one more look is the last; then its
 * segments are ours, like those of an earlier life.
 */
#include "spool/log_found.h"
#include "spool/log_internal.h"

#include <stdlib.h>

enum { ADOPT_WAIT_MAX = 30 }; /* ticks */

struct known {
    uint64_t number, nonce;
    uint32_t end;
    bool others;
};

/* A segment in which there is more than was known. */
struct adopted {
    uint64_t number, nonce, size;
    uint32_t end;
    bool head; /* and there may come more */
    struct buffer index;
};

struct adopt_job {
    struct journal *journal;
    uint32_t from_token, to_token; /* others are between the two */
    uint32_t ending;
    struct log_files files;
    struct buffer known;   /* struct known, ascending */
    struct buffer found;   /* struct log_found */
    struct buffer adopted; /* struct adopted */
    bool changed;          /* there seemed to be more than was known */
    enum error error;
};

static void job_free(struct adopt_job *job)
{
    struct adopted *adopted = (void *)job->adopted.data;
    for (size_t i = 0; i < job->adopted.length / sizeof(*adopted); i++) {
        buffer_done(&adopted[i].index);
    }
    log_files_done(&job->files);
    buffer_done(&job->known);
    buffer_done(&job->found);
    buffer_done(&job->adopted);
    free(job);
}

/* ---- looking: on the janitor's thread ---------------------------------------------------- */

static void list_one(void *context, const char *file, uint64_t size)
{
    struct adopt_job *job = context;
    enum log_name kind;
    struct log_found found = {.size = size};
    if (log_name_parse(file, &kind, &found.number) && kind == LOG_NAME_SEGMENT &&
        log_token(found.number) > job->from_token && log_token(found.number) < job->to_token) {
        buffer_append(&job->found, slice_make(&found, sizeof(found)));
    }
}

static int by_number(const void *key, const void *item)
{
    uint64_t number = *(const uint64_t *)key, other = ((const struct known *)item)->number;
    return (number > other) - (number < other);
}

static const struct known *known_of(const struct adopt_job *job, uint64_t number)
{
    size_t count = job->known.length / sizeof(struct known);
    return count == 0 ? NULL
                      : bsearch(&number, job->known.data, count, sizeof(struct known), by_number);
}

/* A record stands where nothing was when we last looked. */
static bool has_more(struct adopt_job *job, const struct known *known)
{
    uint8_t header[LOG_RECORD_HEADER];
    struct log_record record;
    return log_files_read(&job->files, known->number, known->end, header, sizeof(header)) ==
               ERROR_NONE &&
           log_record_decode(header, known->nonce, known->end, &record);
}

static bool has_changed(struct adopt_job *job)
{
    const struct log_found *found = (const void *)job->found.data;
    for (size_t i = 0; i < job->found.length / sizeof(*found); i++) {
        const struct known *known = known_of(job, found[i].number);
        /* One that is not begun stays unknown: a look at its header is a look at all. */
        if (known == NULL || (known->others && has_more(job, known))) {
            return true;
        }
    }
    return false;
}

static void ignore_unreadable(void *context, uint32_t from, uint32_t to)
{
    (void)context;
    (void)from;
    (void)to;
}

static enum error scan(struct adopt_job *job, const struct log_found *found,
                       const struct log_judged *judged, struct adopted *ret_adopted)
{
    uint8_t *bytes = malloc((size_t)found->size + 1);
    if (bytes == NULL) {
        return ERROR_MEMORY;
    }
    *ret_adopted = (struct adopted){.number = found->number,
                                    .nonce = judged->nonce,
                                    .size = found->size,
                                    .head = judged->judgement == LOG_HEAD};
    buffer_init(&ret_adopted->index, 0);
    struct log_scan scan = {
        .nonce = judged->nonce, .known_end = judged->end, .index = &ret_adopted->index};
    enum error error = log_found_bytes(&job->files, found->number, bytes, (size_t)found->size,
                                       ignore_unreadable, NULL);
    if (error == ERROR_NONE) {
        error = log_scan(&scan, slice_make(bytes, (size_t)found->size));
    }
    free(bytes);
    ret_adopted->end = judged->end != 0 ? judged->end : scan.end;
    if (error != ERROR_NONE) {
        buffer_done(&ret_adopted->index);
    }
    return error;
}

static enum error look_at(struct adopt_job *job, const struct log_found *found,
                          const struct log_found *own, const struct log_found *newest)
{
    const struct known *known = known_of(job, found->number);
    struct log_judged judged = log_found_judge(found, own, newest);
    if ((known != NULL && !known->others) || judged.judgement == LOG_NOT_BEGUN ||
        judged.judgement == LOG_LOST) {
        return ERROR_NONE;
    }
    struct adopted adopted;
    enum error error = scan(job, found, &judged, &adopted);
    if (error != ERROR_NONE) {
        return error;
    }
    if (known == NULL || adopted.end > known->end) {
        buffer_append(&job->adopted, slice_make(&adopted, sizeof(adopted)));
        error = job->adopted.failed ? ERROR_MEMORY : ERROR_NONE;
        if (error == ERROR_NONE) {
            return error;
        }
    }
    buffer_done(&adopted.index);
    return error;
}

static enum error look_at_all(struct adopt_job *job)
{
    struct log_found *found = (void *)job->found.data;
    size_t count = job->found.length / sizeof(*found);
    enum error error = ERROR_NONE;
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        error = log_found_read(&job->files, &found[i]);
    }
    const struct log_found *newest = log_found_sort(found, count), *own = NULL;
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        bool first = i == 0 || log_token(found[i].number) != log_token(found[i - 1].number);
        own = first ? log_found_newest_of(found, count, i) : own;
        error = look_at(job, &found[i], own, newest);
    }
    return error;
}

static void adopt_run(void *context)
{
    struct adopt_job *job = context;
    struct disk *disk = job->journal->disk;
    job->error = disk->ops->list(disk, list_one, job);
    if (job->error == ERROR_NONE && job->found.failed) {
        job->error = ERROR_MEMORY;
    }
    job->changed = job->error == ERROR_NONE && has_changed(job);
    if (job->changed) {
        job->error = look_at_all(job);
    }
}

/* ---- taking ------------------------------------------------------------------------------ */

/* Where in the index the entries begin that were not known. */
static size_t first_new(const struct segment *segment, const struct adopted *adopted)
{
    struct log_entry entry;
    size_t at = 0;
    bool sound;
    while (log_entry_next(buffer_slice(&adopted->index), &at, &entry, &sound)) {
        if (entry.offset >= segment->end) {
            return entry.at;
        }
    }
    return adopted->index.length;
}

static enum error add_part(struct journal *journal, const struct adopted *adopted,
                           struct buffer *parts)
{
    struct segment *segment = segment_by_number(journal, adopted->number);
    if (segment == NULL) {
        segment = segment_new(journal, adopted->number, adopted->nonce);
        if (segment == NULL) {
            return ERROR_MEMORY;
        }
        segment->size = adopted->size;
        segment->durable = segment->from_before = segment->others = true;
    }
    const struct late_part part = {segment->slot, first_new(segment, adopted), SIZE_MAX};
    buffer_append(parts, slice_make(&part, sizeof(part)));
    return parts->failed ? ERROR_MEMORY : ERROR_NONE;
}

static void take(struct journal *journal, struct adopted *adopted)
{
    struct segment *segment = segment_by_number(journal, adopted->number);
    buffer_done(&segment->index);
    segment->index = adopted->index;
    buffer_init(&adopted->index, 0);
    segment->index_known = true;
    segment->size = adopted->size;
    segment->end = segment->synced_end = adopted->end;
    segment->others = adopted->head;
}

static enum error take_all(struct journal *journal, struct adopt_job *job)
{
    struct adopted *adopted = (void *)job->adopted.data;
    size_t count = job->adopted.length / sizeof(*adopted);
    struct buffer parts;
    buffer_init(&parts, 0);
    enum error error = ERROR_NONE;
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        error = add_part(journal, &adopted[i], &parts);
    }
    if (error == ERROR_NONE && count > 0) {
        error = loading_start_late(journal, &parts);
    }
    for (size_t i = 0; i < count && error == ERROR_NONE; i++) {
        take(journal, &adopted[i]);
    }
    buffer_done(&parts);
    return error;
}

void adopt_loaded(struct journal *journal)
{
    if (journal->looked_token <= journal->ended_token) {
        return;
    }
    journal->ended_token = journal->looked_token;
    LIST_EACH(&journal->segments, at, after)
    {
        struct segment *segment = segment_of(at);
        segment->others &= journal_is_others(journal, segment->number);
    }
    segments_seal(journal);
    segments_reclaim(journal);
}

static void adopt_done(void *context)
{
    struct adopt_job *job = context;
    struct journal *journal = job->journal;
    journal->adopting = false;
    /* After an error the next tick looks again. */
    if (job->error == ERROR_NONE && !journal->ending && take_all(journal, job) == ERROR_NONE) {
        journal->looked_token = job->ending;
        /* A group that will never be whole stands there for ever: it is not scanned each second. */
        bool vain = job->changed && job->adopted.length == 0;
        journal->adopt_vain = vain ? journal->adopt_vain * 2 + 1 : 0;
        journal->adopt_vain =
            journal->adopt_vain < ADOPT_WAIT_MAX ? journal->adopt_vain : ADOPT_WAIT_MAX;
        journal->adopt_wait = journal->adopt_vain;
        if (journal->loading == NULL) {
            adopt_loaded(journal);
        }
    }
    job_free(job);
}

void adopt_step(struct journal *journal)
{
    if (journal->adopting || journal->loading != NULL || journal->ending ||
        journal->ended_token + 1 >= journal->settings.token) {
        return;
    }
    bool last = journal->ending_token > journal->ended_token;
    if (journal->adopt_wait > 0 && !last) {
        journal->adopt_wait--;
        return;
    }
    struct adopt_job *job = calloc(1, sizeof(*job));
    if (job == NULL) {
        return;
    }
    job->journal = journal;
    job->from_token = journal->ended_token;
    job->to_token = journal->settings.token;
    job->ending = journal->ending_token;
    log_files_init(&job->files, journal->disk);
    LIST_EACH(&journal->segments, at, after)
    {
        const struct segment *segment = segment_of(at);
        if (journal_is_others(journal, segment->number)) {
            const struct known known = {segment->number, segment->nonce, segment->end,
                                        segment->others};
            buffer_append(&job->known, slice_make(&known, sizeof(known)));
        }
    }
    journal->adopting = !job->known.failed &&
                        worker_submit(journal->janitor, adopt_run, adopt_done, job) == ERROR_NONE;
    if (!journal->adopting) {
        job_free(job);
    }
}

void log_others_ended(struct spool *spool, uint32_t token)
{
    struct journal *journal = journal_of(spool);
    if (token >= journal->settings.token) {
        token = journal->settings.token - (journal->settings.token > 0);
    }
    if (token > journal->ending_token) {
        journal->ending_token = token;
    }
    adopt_step(journal);
}
