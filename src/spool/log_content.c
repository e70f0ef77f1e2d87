/* SPDX-License-Identifier: Apache-2.0
 *
 * Content on its way in: runs in memory, in extents already gathered or written, and in a file of
 * its own. Nothing here is promised: until a message record names it, it is garbage.
 */
#include "base/crc32c.h"
#include "spool/log_internal.h"
#include "sys/random.h"

#include <assert.h>
#include <stdlib.h>

enum {
    EXTENT_MAX = 1 << 20,      /* one checksum's run */
    FILE_SYNC_EVERY = 4 << 20, /* so that the last sync, which others wait for, is short */
    RELIEF_BYTES = 4 << 20,    /* moved on at once: one group, and then others have their turn */
};

static struct log_content *content_of(struct spool_content *content)
{
    return (struct log_content *)content;
}

/* ---- the file ---------------------------------------------------------------------------- */

struct file_job {
    struct content_file *file;
    uint64_t offset;
    struct buffer bytes;
    enum error error; /* as it left the file, which later jobs go on with */
};

static void file_write_run(void *context)
{
    struct file_job *job = context;
    struct content_file *file = job->file;
    struct disk *disk = file->journal->disk;
    if (file->handle == NULL && file->error == ERROR_NONE) {
        char name[LOG_NAME_SIZE];
        log_name_make(LOG_NAME_CONTENT, file->number, name);
        file->error =
            disk->ops->open(disk, name, DISK_READ | DISK_WRITE | DISK_CREATE, &file->handle);
    }
    if (file->error == ERROR_NONE) {
        file->error = disk->ops->write(file->handle, job->offset, buffer_slice(&job->bytes));
        file->unsynced += job->bytes.length;
    }
    if (file->error == ERROR_NONE && file->unsynced >= FILE_SYNC_EVERY) {
        file->error = disk->ops->sync(file->handle);
        file->unsynced = 0;
    }
    job->error = file->error;
}

static void file_end_run(void *context)
{
    struct content_file *file = context;
    if (file->handle != NULL) {
        file->journal->disk->ops->close(file->handle);
        file->handle = NULL;
    }
}

static void file_discard_run(void *context)
{
    struct content_file *file = context;
    char name[LOG_NAME_SIZE];
    log_name_make(LOG_NAME_CONTENT, file->number, name);
    file_end_run(file);
    (void)file->journal->disk->ops->unlink(file->journal->disk, name);
}

static void file_ended(void *context)
{
    free(context);
}

/* Memory is out, and no job has it any more: what the worker would do is done here. */
static void file_discard_here(struct content_file *file)
{
    file_discard_run(file);
    file_ended(file);
}

static void file_write_done(void *context)
{
    struct file_job *job = context;
    struct content_file *file = job->file;
    file->told_error = job->error;
    file->journal->content_pending -= job->bytes.length;
    journal_wrote(file->journal, job->bytes.length);
    buffer_done(&job->bytes);
    free(job);
    if (--file->writes == 0 && file->discarded) {
        file_discard_here(file);
    }
}

/* Takes the bytes over. */
static enum error file_write(struct log_content *content, struct buffer *bytes)
{
    struct journal *journal = content->journal;
    if (content->file == NULL) {
        content->file = calloc(1, sizeof(*content->file));
        if (content->file == NULL) {
            return ERROR_MEMORY;
        }
        content->file->journal = journal;
        content->file->number = random_u64() | 1;
    }
    if (content->file->told_error != ERROR_NONE) {
        return content->file->told_error;
    }
    struct file_job *job = malloc(sizeof(*job));
    if (job == NULL) {
        return ERROR_MEMORY;
    }
    *job = (struct file_job){content->file, content->file->length, *bytes};
    size_t length = bytes->length;
    enum error error = worker_submit(journal->committer, file_write_run, file_write_done, job);
    if (error != ERROR_NONE) {
        free(job);
        return error;
    }
    content->file->length += length;
    content->file->writes++;
    journal->content_bytes += length;
    buffer_init(bytes, 0);
    return ERROR_NONE;
}

void content_file_close(struct content_file *file)
{
    if (worker_submit(file->journal->committer, file_end_run, file_ended, file) != ERROR_NONE) {
        file_end_run(file); /* memory is out, and no job has it any more */
        file_ended(file);
    }
}

void content_file_discard(struct content_file *file)
{
    if (file == NULL) {
        return;
    }
    file->journal->content_bytes -= file->length;
    if (worker_submit(file->journal->committer, file_discard_run, file_ended, file) == ERROR_NONE) {
        return;
    }
    if (file->writes == 0) {
        file_discard_here(file);
    } else {
        file->discarded = true; /* by the last of them */
    }
}

/* ---- runs -------------------------------------------------------------------------------- */

static size_t run_length(const struct content_run *run)
{
    return run->in_memory ? run->memory.length : run->piece.take;
}

static struct content_run *run_insert(struct log_content *content, size_t at)
{
    if (content->run_count == content->run_capacity) {
        size_t capacity = content->run_capacity == 0 ? 2 : content->run_capacity * 2;
        struct content_run *grown = realloc(content->runs, capacity * sizeof(*grown));
        if (grown == NULL) {
            return NULL;
        }
        content->runs = grown;
        content->run_capacity = capacity;
    }
    memmove(content->runs + at + 1, content->runs + at,
            (content->run_count - at) * sizeof(struct content_run));
    content->run_count++;
    content->runs[at] = (struct content_run){.in_memory = true};
    buffer_init(&content->runs[at].memory, 0);
    return &content->runs[at];
}

/* An extent that has its place pins the segment as long as the content is not committed. */
static void run_pin(const struct log_content *content, const struct content_run *run, int by)
{
    if (!run->in_memory && run->piece.kind == LOG_FAR) {
        segment_by_number(content->journal, run->piece.where)->pins += (uint32_t)by;
    }
}

static void hold(struct journal *journal, size_t bytes)
{
    journal->content_pending += bytes;
    journal->content_held += bytes;
}

static void let_go(struct journal *journal, size_t bytes)
{
    journal->content_pending -= bytes;
    journal->content_held -= bytes;
}

static void run_done(struct log_content *content, struct content_run *run)
{
    if (run->in_memory) {
        let_go(content->journal, run->memory.length);
        buffer_done(&run->memory);
    }
    run_pin(content, run, -1);
}

/* For good: it keeps no memory until its owner hears of it. */
static enum error content_fail(struct log_content *content, enum error error)
{
    content->error = error;
    for (size_t i = 0; i < content->run_count; i++) {
        if (content->runs[i].in_memory) {
            let_go(content->journal, content->runs[i].memory.length);
            buffer_done(&content->runs[i].memory);
        }
    }
    return error;
}

void content_free(struct log_content *content)
{
    for (size_t i = 0; i < content->run_count; i++) {
        run_done(content, &content->runs[i]);
    }
    content_file_discard(content->file);
    list_remove(&content->link);
    free(content->runs);
    free(content);
}

static uint32_t payload_crc(const struct group *group, size_t record)
{
    const uint8_t *at = group->bytes.data + record + 4;
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* A run leaves memory: into the gathering group, or to the file. */
static enum error run_send(struct log_content *content, struct content_run *run)
{
    struct journal *journal = content->journal;
    size_t length = run->memory.length;
    struct log_piece piece = {.stored = (uint32_t)length, .take = (uint32_t)length};
    if (content->large) {
        piece.kind = LOG_FILE;
        piece.offset = content->file != NULL ? content->file->length : 0;
        piece.crc = crc32c(0, buffer_slice(&run->memory));
        enum error error = file_write(content, &run->memory);
        if (error != ERROR_NONE) {
            return error;
        }
        piece.where = content->file->number;
        run->group = 0;
    } else {
        struct group *group = journal->gather;
        size_t before = group->bytes.length;
        log_record_put(&group->bytes, LOG_EXTENT, 0, buffer_slice(&run->memory));
        if (group->bytes.failed) {
            group->bytes.failed = false;
            group->bytes.length = before;
            return ERROR_MEMORY;
        }
        piece.kind = LOG_NEAR;
        piece.crc = payload_crc(group, before);
        run->group = group->number;
        run->group_at = before + LOG_RECORD_HEADER;
        group->loose_bytes += length; /* stays pending until written */
        buffer_done(&run->memory);
    }
    journal->content_held -= length;
    run->in_memory = false;
    run->piece = piece;
    return ERROR_NONE;
}

/* ---- spool.h ----------------------------------------------------------------------------- */

struct spool_content *log_content_new(struct spool *spool, uint64_t expected)
{
    struct journal *journal = journal_of(spool);
    struct log_content *content = calloc(1, sizeof(*content));
    if (content == NULL) {
        return NULL;
    }
    content->content.spool = spool;
    content->journal = journal;
    content->large = expected > journal->settings.large_bytes;
    list_append(&journal->contents, &content->link);
    return &content->content;
}

static enum error append_part(struct log_content *content, struct slice *bytes)
{
    struct content_run *run =
        content->run_count > 0 ? &content->runs[content->run_count - 1] : NULL;
    if (run == NULL || !run->in_memory || run->memory.length >= LOG_CHUNK) {
        run = run_insert(content, content->run_count);
        if (run == NULL) {
            return ERROR_MEMORY;
        }
    }
    struct slice part = slice_take(*bytes, LOG_CHUNK - run->memory.length);
    enum error error = buffer_reserve(&run->memory, part.length);
    if (error != ERROR_NONE) {
        return error;
    }
    buffer_append(&run->memory, part);
    hold(content->journal, part.length);
    content->length += part.length;
    *bytes = slice_skip(*bytes, part.length);
    content->large |= content->length > content->journal->settings.large_bytes;
    return run->memory.length >= LOG_CHUNK ? run_send(content, run) : ERROR_NONE;
}

enum error log_content_append(struct spool_content *base, struct slice bytes)
{
    struct log_content *content = content_of(base);
    struct journal *journal = content->journal;
    if (content->error == ERROR_NONE && journal->trouble != ERROR_NONE) {
        return content_fail(content, journal_accepting(journal));
    }
    while (bytes.length > 0 && content->error == ERROR_NONE) {
        enum error error = append_part(content, &bytes);
        if (error != ERROR_NONE) {
            return content_fail(content, error);
        }
    }
    if (!journal->batch_open && journal->gather->bytes.length >= LOG_GATHER_BYTES) {
        journal_flush_later(journal);
    }
    return content->error;
}

/* Drops bytes at the front from run `from` on. */
static void drop_front(struct log_content *content, size_t from, uint64_t length)
{
    content->length -= length;
    while (length > 0) {
        struct content_run *run = &content->runs[from];
        size_t part = run_length(run);
        if (part <= length) {
            run_done(content, run);
            content->run_count--;
            memmove(run, run + 1, (content->run_count - from) * sizeof(*run));
        } else if (run->in_memory) {
            part = (size_t)length;
            buffer_consume(&run->memory, part);
            let_go(content->journal, part);
        } else {
            part = (size_t)length;
            run->piece.skip += (uint32_t)part;
            run->piece.take -= (uint32_t)part;
        }
        length -= part;
    }
}

static void drop_back(struct log_content *content, uint64_t length)
{
    content->length -= length;
    while (length > 0) {
        struct content_run *run = &content->runs[content->run_count - 1];
        size_t part = run_length(run);
        if (part <= length) {
            run_done(content, run);
            content->run_count--;
        } else if (run->in_memory) {
            part = (size_t)length;
            run->memory.length -= part;
            let_go(content->journal, part);
        } else {
            part = (size_t)length;
            run->piece.take -= (uint32_t)part;
        }
        length -= part;
    }
}

enum error log_content_replace_header(struct spool_content *base, uint64_t old_length,
                                      struct slice header)
{
    struct log_content *content = content_of(base);
    if (content->error != ERROR_NONE) {
        return content->error;
    }
    if (old_length > content->length) {
        return ERROR_INVALID;
    }
    struct content_run *run = run_insert(content, 0);
    if (run == NULL || buffer_reserve(&run->memory, header.length) != ERROR_NONE) {
        return content_fail(content, ERROR_MEMORY);
    }
    buffer_append(&run->memory, header);
    hold(content->journal, header.length);
    content->length += header.length;
    drop_front(content, 1, old_length);
    return ERROR_NONE;
}

enum error log_content_replace_body(struct spool_content *base, uint64_t header_length,
                                    struct slice body)
{
    struct log_content *content = content_of(base);
    if (content->error != ERROR_NONE) {
        return content->error;
    }
    if (header_length > content->length) {
        return ERROR_INVALID;
    }
    drop_back(content, content->length - header_length);
    return log_content_append(base, body);
}

void log_content_abort(struct spool_content *content)
{
    content_free(content_of(content));
}

size_t log_content_pending(const struct spool *spool)
{
    return journal_of(spool)->content_pending;
}

static void send_runs(struct log_content *content)
{
    for (size_t i = 0; i < content->run_count && content->error == ERROR_NONE; i++) {
        struct content_run *run = &content->runs[i];
        enum error error =
            run->in_memory && run->memory.length > 0 ? run_send(content, run) : ERROR_NONE;
        if (error != ERROR_NONE) {
            content_fail(content, error);
        }
    }
}

/* Only when it is half of all at least: what is under way comes down by itself, and no message is
 * cut into ever smaller extents. */
void log_content_relieve(struct spool *spool)
{
    struct journal *journal = journal_of(spool);
    if (journal->trouble != ERROR_NONE || journal->batch_open) {
        return;
    }
    if (journal->content_held >= journal->content_pending / 2) {
        LIST_EACH(&journal->contents, at, after)
        {
            struct log_content *content = LIST_ENTRY(at, struct log_content, link);
            if (journal->gather->bytes.length >= RELIEF_BYTES) {
                break;
            }
            send_runs(content);
        }
    }
    journal_flush_all(journal, false);
}

/* ---- committing -------------------------------------------------------------------------- */

/* Runs in memory that stand side by side, and the tail, become one extent. */
struct storing {
    struct log_content *content;
    struct buffer *pieces;
    struct group *group;
    size_t record; /* of the extent being filled; SIZE_MAX: none */
};

static void extent_end(struct storing *storing)
{
    if (storing->record == SIZE_MAX || storing->group->bytes.failed) {
        return;
    }
    size_t at = storing->record + LOG_RECORD_HEADER;
    size_t length = storing->group->bytes.length - at;
    log_record_end(&storing->group->bytes, storing->record, LOG_EXTENT, 0);
    if (storing->group->bytes.failed) {
        return;
    }
    struct log_piece piece = {.kind = LOG_NEAR,
                              .stored = (uint32_t)length,
                              .take = (uint32_t)length,
                              .crc = payload_crc(storing->group, storing->record),
                              .offset = at};
    buffer_append(storing->pieces, slice_make(&piece, sizeof(piece)));
    storing->record = SIZE_MAX;
}

static void extent_add(struct storing *storing, struct slice bytes)
{
    struct buffer *out = &storing->group->bytes;
    while (bytes.length > 0 && !out->failed) {
        if (storing->record == SIZE_MAX) {
            storing->record = log_record_begin(out);
        }
        size_t used = out->length - storing->record - LOG_RECORD_HEADER;
        struct slice part = slice_take(bytes, EXTENT_MAX - used);
        buffer_append(out, part);
        bytes = slice_skip(bytes, part.length);
        if (used + part.length == EXTENT_MAX) {
            extent_end(storing);
        }
    }
}

static enum error add_run(struct storing *storing, const struct content_run *run,
                          uint64_t *needs_group)
{
    if (run->in_memory) {
        extent_add(storing, buffer_slice(&run->memory));
        return ERROR_NONE;
    }
    extent_end(storing);
    struct log_piece piece = run->piece;
    if (piece.take == 0) {
        return ERROR_NONE;
    }
    if (piece.kind == LOG_NEAR) {
        if (run->group != storing->group->number) {
            return ERROR_IO; /* its group could not be written */
        }
        piece.offset = run->group_at;
    } else if (piece.kind == LOG_FAR && run->group > *needs_group) {
        *needs_group = run->group;
    }
    buffer_append(storing->pieces, slice_make(&piece, sizeof(piece)));
    return ERROR_NONE;
}

enum error content_store(struct log_content *content, struct slice tail, struct buffer *pieces,
                         uint64_t *ret_needs_group)
{
    struct storing storing = {content, pieces, content->journal->gather, SIZE_MAX};
    *ret_needs_group = 0;
    for (size_t i = 0; i < content->run_count; i++) {
        enum error error = add_run(&storing, &content->runs[i], ret_needs_group);
        if (error != ERROR_NONE) {
            return error;
        }
    }
    extent_add(&storing, tail);
    extent_end(&storing);
    return storing.group->bytes.failed || pieces->failed ? ERROR_MEMORY : ERROR_NONE;
}

void content_give_file(struct log_content *content, size_t batch)
{
    if (content->file != NULL) {
        struct group_file given = {content->file, batch};
        struct buffer *files = &content->journal->gather->files;
        buffer_append(files, slice_make(&given, sizeof(given)));
        content->file = files->failed ? content->file : NULL;
    }
}

/* ---- groups ------------------------------------------------------------------------------ */

void contents_placed(struct journal *journal, const struct group *group)
{
    if (group->loose_bytes == 0) {
        return;
    }
    LIST_EACH(&journal->contents, at, after)
    {
        struct log_content *content = LIST_ENTRY(at, struct log_content, link);
        for (size_t i = 0; i < content->run_count; i++) {
            struct content_run *run = &content->runs[i];
            if (run->in_memory || run->group != group->number) {
                continue;
            }
            run_pin(content, run, -1); /* placed before, and written again */
            run->piece.kind = LOG_FAR;
            run->piece.where = group->segment->number;
            run->piece.offset = group->base + run->group_at;
            run_pin(content, run, 1);
        }
    }
}

void contents_unplaced(struct journal *journal, const struct group *group)
{
    LIST_EACH(&journal->contents, at, after)
    {
        struct log_content *content = LIST_ENTRY(at, struct log_content, link);
        for (size_t i = 0; i < content->run_count; i++) {
            struct content_run *run = &content->runs[i];
            if (!run->in_memory && run->group == group->number && run->piece.kind == LOG_FAR) {
                run_pin(content, run, -1);
                run->piece.kind = LOG_NEAR;
            }
        }
    }
}

void contents_poison(struct journal *journal, uint64_t after_group)
{
    LIST_EACH(&journal->contents, at, after)
    {
        struct log_content *content = LIST_ENTRY(at, struct log_content, link);
        for (size_t i = 0; i < content->run_count; i++) {
            const struct content_run *run = &content->runs[i];
            if (!run->in_memory && run->piece.kind == LOG_FAR && run->group > after_group) {
                content_fail(content, ERROR_IO);
                break;
            }
        }
    }
}

void contents_fail(struct journal *journal, enum error error)
{
    LIST_EACH(&journal->contents, at, after)
    {
        struct log_content *content = LIST_ENTRY(at, struct log_content, link);
        if (content->error == ERROR_NONE) {
            content_fail(content, error);
        }
    }
    journal->content_pending -= journal->gather->loose_bytes; /* nobody will name them */
    journal->gather->loose_bytes = 0;
}

/* ---- garbage ----------------------------------------------------------------------------- */

struct collect_job {
    struct journal *journal;
    uint64_t file;
    int64_t copy_s; /* it becomes a copy of that time; 0: it goes */
    uint64_t size;
    bool kept;
};

static void collect_run(void *context)
{
    struct collect_job *job = context;
    struct disk *disk = job->journal->disk;
    struct disk_file *file;
    char name[LOG_NAME_SIZE];
    log_name_make(LOG_NAME_CONTENT, job->file, name);
    if (disk->ops->open(disk, name, DISK_READ, &file) == ERROR_NONE) {
        (void)!disk->ops->size(file, &job->size);
        disk->ops->close(file);
    }
    if (job->copy_s != 0) {
        char to[LOG_NAME_SIZE];
        log_pair_make(LOG_PAIR_LARGE, job->file, (uint64_t)job->copy_s, to);
        job->kept = disk->ops->rename(disk, name, to) == ERROR_NONE;
    }
    if (!job->kept) {
        (void)disk->ops->unlink(disk, name);
    }
}

static void collect_done(void *context)
{
    struct collect_job *job = context;
    struct journal *journal = job->journal;
    uint64_t known = journal->content_bytes;
    journal->content_bytes -= job->size < known ? job->size : known;
    if (job->kept) {
        struct log_copy copy = {LOG_PAIR_LARGE, job->file, job->copy_s, job->size};
        copies_add(journal, &copy);
    }
    free(job);
}

void contents_collect(struct journal *journal)
{
    struct content_garbage *garbage = (void *)journal->garbage.data;
    size_t count = journal->garbage.length / sizeof(*garbage), done = 0;
    while (done < count && garbage[done].group <= journal->synced_group &&
           journal->loading == NULL) {
        struct collect_job *job = calloc(1, sizeof(*job));
        if (job == NULL) {
            break;
        }
        bool keep = garbage[done].ended && copies_take_content(journal);
        *job = (struct collect_job){.journal = journal,
                                    .file = garbage[done].file,
                                    .copy_s = keep ? journal->copies.now_s : 0};
        if (worker_submit(journal->janitor, collect_run, collect_done, job) != ERROR_NONE) {
            free(job);
            break;
        }
        done++;
    }
    buffer_consume(&journal->garbage, done * sizeof(*garbage));
}
