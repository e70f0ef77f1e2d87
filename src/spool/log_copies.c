/* SPDX-License-Identifier: Apache-2.0
 *
 * Which segments become safety copies, and when copies go. A copy is made by one rename, in the
 * place of the removal: a crash leaves the one name or the other, and either is right. Nothing is
 * written to it. A content file takes its new name when its message has ended.
 */
#include "spool/log_copies.h"
#include "spool/log_internal.h"

#include <assert.h>
#include <stdlib.h>

enum { GO_AT_ONCE = 32, SEGMENTS_SPARED = 4 };

static struct log_copy *copies_begin(const struct log_copies *copies)
{
    return (struct log_copy *)(void *)copies->all.data;
}

static size_t copies_count(const struct log_copies *copies)
{
    return copies->all.length / sizeof(struct log_copy);
}

static const struct log_copy *find_copy(const struct log_copies *copies, enum log_pair kind,
                                        uint64_t number)
{
    const struct log_copy *copy = copies_begin(copies);
    for (size_t i = copies_count(copies); i-- > 0;) {
        if (copy[i].number == number && copy[i].kind == kind) {
            return &copy[i];
        }
    }
    return NULL;
}

static void name_of(const struct log_copy *copy, char ret_name[LOG_NAME_SIZE])
{
    log_pair_make(copy->kind, copy->number, (uint64_t)copy->time_s, ret_name);
}

bool log_copies_name(const struct log_copies *copies, enum log_pair kind, uint64_t number,
                     char ret_name[LOG_NAME_SIZE])
{
    const struct log_copy *copy = copies == NULL ? NULL : find_copy(copies, kind, number);
    if (copy != NULL) {
        name_of(copy, ret_name);
    }
    return copy != NULL;
}

static int by_time(const void *a, const void *b)
{
    const struct log_copy *left = a, *right = b;
    return left->time_s != right->time_s
               ? (left->time_s > right->time_s ? 1 : -1)
               : (left->number > right->number) - (left->number < right->number);
}

/* ---- made -------------------------------------------------------------------------------- */

static bool are_kept(const struct journal *journal)
{
    return journal->copies.keep_s > 0 && !journal->copies.narrow;
}

bool copies_await_seal(const struct journal *journal, const struct segment *segment)
{
    return are_kept(journal) && !segment->sealed && !segment->failed && !segment->unreadable &&
           !segment->seal_failed && segment->index_known;
}

bool copies_take(const struct journal *journal, const struct segment *segment)
{
    return are_kept(journal) && segment->sealed && !segment->failed && !segment->unreadable;
}

bool copies_take_content(const struct journal *journal)
{
    return are_kept(journal);
}

void copies_add(struct journal *journal, const struct log_copy *copy)
{
    struct log_copies *copies = &journal->copies;
    buffer_append(&copies->all, slice_make(copy, sizeof(*copy)));
    if (copies->all.failed) {
        copies->all.failed = false; /* found at the next start */
        return;
    }
    copies->bytes += copy->bytes;
    copies->segments += copy->kind == LOG_PAIR_COPY;
    size_t count = copies_count(copies);
    if (count > 1 && by_time(&copies_begin(copies)[count - 2], copy) > 0) {
        qsort(copies->all.data, count, sizeof(*copy), by_time); /* the clock was set back */
    }
}

/* ---- going ------------------------------------------------------------------------------- */

struct going_job {
    struct journal *journal;
    struct log_copy going[GO_AT_ONCE];
    uint64_t spares[GO_AT_ONCE]; /* which each becomes; 0: it is unlinked */
    bool gone[GO_AT_ONCE];
    size_t count;
    bool narrow; /* before their time */
};

static void go_run(void *context)
{
    struct going_job *job = context;
    struct disk *disk = job->journal->disk;
    for (size_t i = 0; i < job->count; i++) {
        char name[LOG_NAME_SIZE], to[LOG_NAME_SIZE];
        name_of(&job->going[i], name);
        log_name_make(LOG_NAME_SPARE, job->spares[i], to);
        enum error error =
            job->spares[i] != 0 ? disk->ops->rename(disk, name, to) : disk->ops->unlink(disk, name);
        job->gone[i] = error == ERROR_NONE || error == ERROR_MISSING;
        job->spares[i] = error == ERROR_NONE ? job->spares[i] : 0;
    }
    (void)!disk->ops->sync_directory(disk); /* nothing depends on it */
}

static void forget_copy(struct journal *journal, const struct log_copy *gone)
{
    struct log_copies *copies = &journal->copies;
    struct log_copy *copy = copies_begin(copies);
    size_t count = copies_count(copies);
    for (size_t i = 0; i < count; i++) {
        if (copy[i].number == gone->number && copy[i].kind == gone->kind) {
            copies->bytes -= copy[i].bytes;
            copies->segments -= copy[i].kind == LOG_PAIR_COPY;
            memmove(copy + i, copy + i + 1, (count - i - 1) * sizeof(*copy));
            copies->all.length -= sizeof(*copy);
            break;
        }
    }
    if (gone->kind == LOG_PAIR_COPY) {
        log_files_forget(&journal->files, gone->number);
    }
}

static void go_done(void *context)
{
    struct going_job *job = context;
    struct journal *journal = job->journal;
    struct log_copies *copies = &journal->copies;
    for (size_t i = 0; i < job->count; i++) {
        if (!job->gone[i]) {
            continue; /* tried again */
        }
        forget_copy(journal, &job->going[i]);
        if (job->narrow) {
            copies->given_up++;
            copies->gone_s = job->going[i].time_s;
        }
        if (job->spares[i] != 0) {
            buffer_append(&journal->spares, slice_make(&job->spares[i], sizeof(uint64_t)));
            journal->spares.failed = false;
        }
    }
    copies->going = false;
    free(job);
}

static bool is_over(const struct log_copies *copies, const struct log_copy *copy)
{
    bool old = copies->keep_s == 0 || copies->now_s - copy->time_s >= copies->keep_s;
    return old && copies->searches == 0;
}

/* The oldest: those whose time is over, else as many as give `room` bytes. */
static void choose(struct journal *journal, struct going_job *job, uint64_t room)
{
    const struct log_copies *copies = &journal->copies;
    const struct log_copy *copy = copies_begin(copies);
    size_t spares = journal->spares.length / sizeof(uint64_t) + journal->preparing;
    uint64_t given = 0;
    for (size_t i = 0; i < copies_count(copies) && job->count < GO_AT_ONCE; i++) {
        bool over = is_over(copies, &copy[i]);
        if (!over && given >= room) {
            break;
        }
        bool recycle = room == 0 && copy[i].kind == LOG_PAIR_COPY &&
                       copy[i].bytes == journal->settings.segment_bytes &&
                       spares < (size_t)journal->settings.ready_segments + 1;
        job->going[job->count] = copy[i];
        job->spares[job->count++] = recycle ? journal->next_spare++ : 0;
        job->narrow |= !over;
        spares += recycle;
        given += copy[i].bytes;
    }
}

static void let_go(struct journal *journal, uint64_t room)
{
    struct log_copies *copies = &journal->copies;
    struct going_job *job = calloc(1, sizeof(*job));
    if (job == NULL) {
        return;
    }
    job->journal = journal;
    choose(journal, job, room);
    if (job->count == 0 || worker_submit(journal->janitor, go_run, go_done, job) != ERROR_NONE) {
        free(job);
        return;
    }
    copies->going = true;
}

/* Room is short long before acceptance would stop: when there is less than so much above the
 * reserve. */
static uint64_t margin_of(const struct journal *journal)
{
    uint64_t spared = (uint64_t)journal->settings.segment_bytes * SEGMENTS_SPARED;
    return journal->reserve_bytes > spared ? journal->reserve_bytes : spared;
}

/* Mail may come faster than the ticks. */
bool copies_ask_for_room(const struct journal *journal)
{
    return copies_count(&journal->copies) > 0 && !journal->copies.going &&
           journal->copies.room_taken >= margin_of(journal) / 8;
}

void copies_step(struct journal *journal)
{
    struct log_copies *copies = &journal->copies;
    uint64_t wanted;
    if (__builtin_add_overflow(journal->reserve_bytes, margin_of(journal), &wanted)) {
        wanted = UINT64_MAX;
    }
    copies->room_taken = 0;
    copies->narrow = journal->available_bytes < wanted;
    uint64_t room = copies->narrow ? wanted - journal->available_bytes : 0;
    if (copies->told && !copies->going && copies_count(copies) > 0 && !journal->ending) {
        let_go(journal, room);
    }
}

void log_keep_copies(struct spool *spool, int64_t keep_ms, int64_t now_ms)
{
    struct log_copies *copies = &journal_of(spool)->copies;
    copies->keep_s = (keep_ms + 999) / 1000;
    copies->now_s = now_ms / 1000;
    copies->told = true;
}

void copies_status(const struct journal *journal, struct spool_state *state)
{
    const struct log_copies *copies = &journal->copies;
    size_t count = copies_count(copies);
    state->copy_bytes = copies->bytes;
    state->copy_segments = copies->segments;
    state->copies_since_ms = count > 0 ? copies_begin(copies)->time_s * 1000 : 0;
    state->copies_given_up = copies->given_up;
    state->copies_gone_ms = copies->gone_s * 1000;
}
