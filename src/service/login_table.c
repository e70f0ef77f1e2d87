/* SPDX-License-Identifier: Apache-2.0 */
#include "service/login_table.h"

#include "sys/log.h"

#include <stdlib.h>
#include <sys/stat.h>

struct login_table {
    bool is_shared; /* it came with the configuration, and the file is of no matter */
    struct disk *disk;
    struct login_store *store;
    /* The file that it was read from. */
    uint64_t inode, bytes;
    struct timespec changed;
};

static void take_store(struct login_table *table, enum error error, struct login_store *store,
                       uint32_t line)
{
    if (error != ERROR_NONE) { /* the last good one serves on */
        log_event(LOG_LEVEL_ERROR, "users-unreadable",
                  LOG_TEXT("path", LOGIN_DIRECTORY "/" LOGIN_FILE), LOG_NUMBER("line", line),
                  LOG_TEXT("reason", error_text(error)));
        return;
    }
    login_store_free(table->store);
    table->store = store;
}

/* The tool replaces the file: another inode is another table. */
void login_table_refresh(struct login_table *table)
{
    struct disk_file *file;
    struct stat status = {0};
    if (table->is_shared) {
        return;
    }
    enum error error = table->disk->ops->open(table->disk, LOGIN_FILE, DISK_READ, &file);
    if (error == ERROR_NONE) {
        bool known = fstat(disk_file_descriptor(file), &status) == 0;
        table->disk->ops->close(file);
        if (!known) {
            return;
        }
    } else if (error != ERROR_MISSING) {
        return;
    }
    if (status.st_ino == table->inode && (uint64_t)status.st_size == table->bytes &&
        status.st_mtim.tv_sec == table->changed.tv_sec &&
        status.st_mtim.tv_nsec == table->changed.tv_nsec) {
        return;
    }
    struct login_store *store = NULL;
    uint32_t line = 0;
    if (error == ERROR_MISSING) {
        store = login_store_new();
        error = store == NULL ? ERROR_MEMORY : ERROR_NONE;
    } else {
        error = login_store_read(table->disk, &store, &line);
    }
    if (error != ERROR_MEMORY) { /* else it is read again with the next question */
        table->inode = status.st_ino;
        table->bytes = (uint64_t)status.st_size;
        table->changed = status.st_mtim;
    }
    take_store(table, error, store, line);
}

void login_table_share(struct login_table *table, struct slice text)
{
    struct login_store *store = NULL;
    uint32_t line = 0;
    bool was_shared = table->is_shared;
    table->is_shared = text.length > 0;
    if (table->is_shared) {
        enum error error = login_store_parse(text, &store, &line);
        take_store(table, error, store, line);
    } else if (was_shared) {
        table->inode = UINT64_MAX; /* none has it: the file is read again */
        login_table_refresh(table);
    }
}

const struct login_store *login_table_store(const struct login_table *table)
{
    return table->store;
}

struct login_table *login_table_new(struct disk *disk)
{
    struct login_table *table = calloc(1, sizeof(*table));
    if (table == NULL) {
        disk_free(disk);
        return NULL;
    }
    table->disk = disk;
    table->store = login_store_new();
    if (table->store == NULL) {
        login_table_free(table);
        return NULL;
    }
    login_table_refresh(table);
    return table;
}

void login_table_free(struct login_table *table)
{
    if (table != NULL) {
        login_store_free(table->store);
        disk_free(table->disk);
        free(table);
    }
}
