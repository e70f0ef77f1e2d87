/* SPDX-License-Identifier: Apache-2.0 */
#include "service/whole_file.h"

#include "sys/log.h"
#include "sys/worker.h"

#include <stdio.h>
#include <stdlib.h>

enum { NAME_SIZE = 256 + 1 };

struct whole_files {
    struct loop *loop;
    struct disk *disk;
    struct worker *worker; /* made when there is something to write */
};

struct writing {
    struct disk *disk;
    const char *name;
    whole_file_fn *make; /* NULL: the bytes are there */
    void *context;
    struct buffer bytes;
    enum error error;
};

static void report(const char *name, enum error error)
{
    log_event(LOG_LEVEL_WARNING, "state-file", LOG_TEXT("name", name),
              LOG_TEXT("error", error_text(error)));
}

/* ---- reading --------------------------------------------------------------------------------- */

enum error whole_files_read(struct whole_files *files, const char *name, struct buffer *ret_bytes)
{
    struct disk *disk = files->disk;
    struct disk_file *file;
    uint64_t size = 0;
    enum error error = disk->ops->open(disk, name, DISK_READ, &file);
    if (error != ERROR_NONE) {
        return error;
    }
    error = disk->ops->size(file, &size);
    if (error == ERROR_NONE) {
        error = buffer_reserve(ret_bytes, (size_t)size);
    }
    if (error == ERROR_NONE) {
        error = disk->ops->read(file, 0, ret_bytes->data + ret_bytes->length, (size_t)size);
    }
    if (error == ERROR_NONE) {
        ret_bytes->length += (size_t)size;
    }
    disk->ops->close(file);
    return error;
}

/* ---- writing --------------------------------------------------------------------------------- */

enum error whole_file_put(struct disk *disk, const char *name, struct slice bytes)
{
    struct disk_file *file;
    char temporary[NAME_SIZE];
    if (snprintf(temporary, sizeof(temporary), "~%s", name) >= NAME_SIZE) {
        return ERROR_LIMIT;
    }
    (void)!disk->ops->unlink(disk, temporary);
    enum error error = disk->ops->open(disk, temporary, DISK_WRITE | DISK_CREATE, &file);
    if (error != ERROR_NONE) {
        return error;
    }
    error = disk->ops->write(file, 0, bytes);
    disk->ops->close(file);
    error = error == ERROR_NONE ? disk->ops->rename(disk, temporary, name) : error;
    if (error != ERROR_NONE) {
        (void)!disk->ops->unlink(disk, temporary); /* a full disk needs the room */
    }
    return error;
}

static void write_file(void *context)
{
    struct writing *writing = context;
    if (writing->make != NULL) {
        writing->make(writing->context, &writing->bytes);
    }
    writing->error = writing->bytes.failed ? ERROR_MEMORY
                                           : whole_file_put(writing->disk, writing->name,
                                                            buffer_slice(&writing->bytes));
}

static void written(void *context)
{
    struct writing *writing = context;
    if (writing->error != ERROR_NONE) {
        report(writing->name, writing->error);
    }
    buffer_done(&writing->bytes);
    free(writing);
}

static void submit(struct whole_files *files, struct writing writing)
{
    struct writing *copy = calloc(1, sizeof(*copy));
    if (files->worker == NULL) {
        files->worker = worker_new(files->loop, "state");
    }
    if (copy == NULL || files->worker == NULL) {
        report(writing.name, ERROR_MEMORY);
        buffer_done(&writing.bytes);
        free(copy);
        return;
    }
    *copy = writing;
    copy->disk = files->disk;
    if (worker_submit(files->worker, write_file, written, copy) != ERROR_NONE) {
        copy->error = ERROR_MEMORY;
        written(copy);
    }
}

void whole_files_write(struct whole_files *files, const char *name, struct buffer *bytes)
{
    submit(files, (struct writing){.name = name, .bytes = *bytes});
}

void whole_files_make(struct whole_files *files, const char *name, whole_file_fn *make,
                      void *context)
{
    struct writing writing = {.name = name, .make = make, .context = context};
    buffer_init(&writing.bytes, 0);
    submit(files, writing);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct whole_files *whole_files_new(struct loop *loop, struct disk *disk)
{
    struct whole_files *files = calloc(1, sizeof(*files));
    if (files == NULL) {
        disk_free(disk);
        return NULL;
    }
    files->loop = loop;
    files->disk = disk;
    return files;
}

void whole_files_free(struct whole_files *files)
{
    if (files != NULL) {
        worker_free(files->worker);
        disk_free(files->disk);
        free(files);
    }
}
