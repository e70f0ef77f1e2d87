/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing the event journal: a buffer fills on the loop, another is with the worker. A file is
 * made when the first event for it comes; every life of the process begins a new one, so nothing
 * is ever written behind a torn tail. A full file gets its index from the worker, which reads it
 * once more.
 */
#include "service/events_internal.h"

#include "sys/clock.h"
#include "sys/random.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    FLUSH_BYTES = 64 << 10,
    RETENTION_EVERY_MS = 60 * 1000,
    FILES_MAX = 4096,
};

/* ---- the list of files ----------------------------------------------------------------------- */

static struct events_file *file_find(struct events *events, uint64_t number)
{
    for (size_t i = events->file_count; i > 0; i--) {
        if (events->files[i - 1].number == number) {
            return &events->files[i - 1];
        }
    }
    return NULL;
}

static enum error file_add(struct events *events, uint64_t number, uint64_t bytes)
{
    if (events->file_count == events->file_capacity) {
        size_t capacity = events->file_capacity == 0 ? 16 : events->file_capacity * 2;
        struct events_file *files = realloc(events->files, capacity * sizeof(*files));
        if (files == NULL) {
            return ERROR_MEMORY;
        }
        events->files = files;
        events->file_capacity = capacity;
    }
    events->files[events->file_count++] =
        (struct events_file){.number = number, .bytes = bytes, .index = INDEX_ABSENT};
    return ERROR_NONE;
}

static bool parse_name(const char *name, uint64_t *ret_number, bool *ret_index)
{
    unsigned long long number;
    int used = 0;
    if (strlen(name) < 23 || sscanf(name, "events-%16llx%n", &number, &used) != 1 || used != 23) {
        return false;
    }
    *ret_number = number;
    *ret_index = strcmp(name + used, ".index") == 0;
    return name[used] == 0 || *ret_index;
}

struct listing {
    struct events *events;
    enum error error;
};

static void list_file(void *context, const char *name, uint64_t size)
{
    struct listing *listing = context;
    uint64_t number;
    bool index;
    if (listing->error == ERROR_NONE && parse_name(name, &number, &index) && !index) {
        listing->error = file_add(listing->events, number, size);
    }
}

static void list_index(void *context, const char *name, uint64_t size)
{
    struct listing *listing = context;
    uint64_t number;
    bool index;
    if (parse_name(name, &number, &index) && index) {
        struct events_file *file = file_find(listing->events, number);
        if (file != NULL) {
            file->bytes += size;
            file->index = INDEX_UNCHECKED; /* looked at below */
        }
    }
}

static int compare_files(const void *a, const void *b)
{
    uint64_t left = ((const struct events_file *)a)->number;
    uint64_t right = ((const struct events_file *)b)->number;
    return (left > right) - (left < right);
}

/* ---- work for the worker --------------------------------------------------------------------- */

enum task_kind { TASK_WRITE, TASK_INDEX, TASK_CHECK, TASK_UNLINK };

struct task {
    enum task_kind kind;
    struct events *events;
    uint64_t number;
    struct disk_file *file; /* TASK_WRITE; TASK_INDEX: closed by it, if not NULL */
    uint64_t offset;
    struct slice bytes;
    enum error error;
    int64_t last_ms;
    bool good;
};

static void task_run(void *job)
{
    struct task *task = job;
    struct disk *disk = task->events->disk;
    char name[EVENTS_NAME_SIZE];
    switch (task->kind) {
    case TASK_WRITE:
        task->error = disk->ops->write(task->file, task->offset, task->bytes);
        break;
    case TASK_INDEX:
        if (task->file != NULL) {
            disk->ops->close(task->file);
        }
        task->error = events_index_write(disk, task->number, &task->last_ms);
        break;
    case TASK_CHECK:
        task->good = events_index_check(disk, task->number, false, &task->last_ms);
        if (!task->good) {
            task->error = events_index_write(disk, task->number, &task->last_ms);
        }
        break;
    case TASK_UNLINK:
        events_file_name(name, task->number, true);
        (void)disk->ops->unlink(disk, name);
        events_file_name(name, task->number, false);
        (void)disk->ops->unlink(disk, name);
        break;
    }
}

static void seal(struct events *events);

static void write_done(struct task *task)
{
    struct events *events = task->events;
    events->write_under_way = false;
    if (task->error != ERROR_NONE) {
        events->dropped++;
        seal(events); /* the descriptor is not to be trusted; the next event makes a new file */
    }
    buffer_clear(&events->writing);
    if (events->pending.length >= FLUSH_BYTES) {
        events_flush(events);
    }
}

static void task_done(void *job)
{
    struct task *task = job;
    struct events_file *file = file_find(task->events, task->number);
    if (task->kind == TASK_WRITE) {
        write_done(task);
    } else if (file != NULL && task->kind == TASK_INDEX) {
        file->index = task->error == ERROR_NONE ? INDEX_GOOD : INDEX_ABSENT;
        file->last_ms = task->last_ms > file->last_ms ? task->last_ms : file->last_ms;
    } else if (file != NULL && task->kind == TASK_CHECK) {
        file->index = task->good                  ? INDEX_UNCHECKED
                      : task->error == ERROR_NONE ? INDEX_GOOD
                                                  : INDEX_ABSENT;
        file->last_ms = task->last_ms;
    }
    free(task);
}

static bool task_submit(struct events *events, struct task settings)
{
    struct task *task = malloc(sizeof(*task));
    if (task == NULL) {
        return false;
    }
    *task = settings;
    task->events = events;
    if (worker_submit(events->worker, task_run, task_done, task) != ERROR_NONE) {
        free(task);
        return false;
    }
    return true;
}

/* Ends the active file, if there is one. */
static void seal(struct events *events)
{
    if (events->open == NULL) {
        return;
    }
    struct events_file *active = &events->files[events->file_count - 1];
    struct task task = {.kind = TASK_INDEX, .number = active->number, .file = events->open};
    if (!task_submit(events, task)) {
        events->disk->ops->close(events->open);
    }
    events->open = NULL;
}

/* ---- writing --------------------------------------------------------------------------------- */

static enum error begin_file(struct events *events)
{
    char name[EVENTS_NAME_SIZE];
    uint64_t number = events->next_number;
    events_file_name(name, number, false);
    uint8_t key[16];
    random_bytes(key, sizeof(key));
    struct buffer head;
    buffer_init(&head, 0);
    buffer_append_text(&head, "HFEVENT1");
    buffer_put_u64(&head, (uint64_t)clock_wall_ms());
    buffer_append(&head, slice_make(key, sizeof(key)));
    struct disk_file *file = NULL;
    enum error error = head.failed ? ERROR_MEMORY : ERROR_NONE;
    if (error == ERROR_NONE) {
        error = events->disk->ops->open(events->disk, name, DISK_WRITE | DISK_CREATE, &file);
    }
    if (error == ERROR_NONE) {
        events->next_number++;
        error = events->disk->ops->write(file, 0, buffer_slice(&head));
        if (error == ERROR_NONE) {
            error = file_add(events, number, EVENTS_FILE_HEAD);
        }
        if (error != ERROR_NONE) {
            events->disk->ops->close(file);
            (void)events->disk->ops->unlink(events->disk, name);
        }
    }
    buffer_done(&head);
    events->open = error == ERROR_NONE ? file : NULL;
    return error;
}

void events_flush(struct events *events)
{
    if (events->write_under_way || events->pending.length == 0) {
        return;
    }
    if (events->open != NULL &&
        events->files[events->file_count - 1].bytes + events->pending.length >
            events->settings.file_bytes) {
        seal(events);
    }
    if (events->open == NULL && begin_file(events) != ERROR_NONE) {
        events->dropped++;
        buffer_clear(&events->pending);
        return;
    }
    struct buffer writing = events->pending;
    events->pending = events->writing;
    events->writing = writing;
    struct events_file *active = &events->files[events->file_count - 1];
    struct task task = {.kind = TASK_WRITE,
                        .number = active->number,
                        .file = events->open,
                        .offset = active->bytes,
                        .bytes = buffer_slice(&events->writing)};
    if (!task_submit(events, task)) {
        events->dropped++;
        buffer_clear(&events->writing);
        return;
    }
    events->write_under_way = true;
    active->bytes += events->writing.length;
    active->last_ms = events->pending_last_ms;
}

void events_add(struct events *events, const struct event *event)
{
    event_encode(&events->pending, event);
    if (events->pending.failed) {
        events->dropped++;
        events->pending.failed = false;
        return;
    }
    events->pending_last_ms = event->time_ms;
    if (events->pending.length >= FLUSH_BYTES && !events->write_under_way) {
        events_flush(events);
    }
}

/* ---- keeping --------------------------------------------------------------------------------- */

static void drop_oldest(struct events *events)
{
    struct task task = {.kind = TASK_UNLINK, .number = events->files[0].number};
    if (!task_submit(events, task)) {
        return;
    }
    events->file_count--;
    memmove(events->files, events->files + 1, events->file_count * sizeof(*events->files));
}

static void keep_within_bounds(struct events *events, int64_t now_ms)
{
    uint64_t total = 0;
    for (size_t i = 0; i < events->file_count; i++) {
        total += events->files[i].bytes;
    }
    size_t finished = events->file_count - (events->open != NULL ? 1 : 0);
    while (finished > 0) {
        const struct events_file *oldest = &events->files[0];
        bool old = oldest->last_ms != 0 && oldest->last_ms < now_ms &&
                   (uint64_t)(now_ms - oldest->last_ms) > events->settings.keep_ms;
        if (!old && total <= events->settings.total_bytes && finished < FILES_MAX) {
            return;
        }
        if (!old && oldest->last_ms > events->gone_ms) {
            events->gone_ms = oldest->last_ms;
        }
        total -= oldest->bytes;
        finished--;
        drop_oldest(events);
    }
}

void events_tick(struct events *events, int64_t now_ms)
{
    events_flush(events);
    int64_t since = now_ms - events->looked_ms;
    if (since >= RETENTION_EVERY_MS || since < 0) {
        events->looked_ms = now_ms;
        keep_within_bounds(events, now_ms);
    }
}

uint64_t events_dropped(const struct events *events)
{
    return events->dropped;
}

int64_t events_gone_until(const struct events *events)
{
    return events->gone_ms;
}

/* ---- life cycle ------------------------------------------------------------------------------ */

static enum error find_files(struct events *events)
{
    struct disk *disk = events->disk;
    struct listing listing = {.events = events};
    enum error error = disk->ops->list(disk, list_file, &listing);
    if (error == ERROR_NONE) {
        error = listing.error;
    }
    if (error == ERROR_NONE) {
        error = disk->ops->list(disk, list_index, &listing);
    }
    if (error != ERROR_NONE) {
        return error;
    }
    if (events->file_count > 0) {
        qsort(events->files, events->file_count, sizeof(*events->files), compare_files);
        events->next_number = events->files[events->file_count - 1].number + 1;
    }
    for (size_t i = 0; i < events->file_count; i++) {
        struct task task = {.kind = TASK_CHECK, .number = events->files[i].number};
        if (!task_submit(events, task)) {
            return ERROR_MEMORY;
        }
    }
    return ERROR_NONE;
}

void events_reconfigure(struct events *events, const struct events_settings *settings)
{
    assert(settings->file_bytes <= EVENTS_FILE_MAX);
    events->settings = *settings;
}

enum error events_open(struct loop *loop, struct disk *disk, const struct events_settings *settings,
                       struct events **ret_events)
{
    struct events *events = calloc(1, sizeof(*events));
    struct worker *worker = worker_new(loop, "events");
    if (events == NULL || worker == NULL) {
        free(events);
        worker_free(worker);
        disk_free(disk);
        return ERROR_MEMORY;
    }
    events->loop = loop;
    events->disk = disk;
    events->worker = worker;
    events->next_number = 1;
    events->looked_ms = clock_wall_ms(); /* first the worker says how old the files are */
    buffer_init(&events->pending, EVENTS_PENDING_MAX);
    buffer_init(&events->writing, EVENTS_PENDING_MAX);
    events_reconfigure(events, settings);
    enum error error = find_files(events);
    if (error != ERROR_NONE) {
        events_close(events);
        return error;
    }
    *ret_events = events;
    return ERROR_NONE;
}

void events_close(struct events *events)
{
    if (events == NULL) {
        return;
    }
    worker_drain(events->worker);
    assert(events->searches == 0);
    events_flush(events);
    worker_drain(events->worker);
    if (events->open != NULL) {
        events->disk->ops->close(events->open);
        events->open = NULL;
    }
    worker_free(events->worker);
    buffer_done(&events->pending);
    buffer_done(&events->writing);
    free(events->files);
    disk_free(events->disk);
    free(events);
}
