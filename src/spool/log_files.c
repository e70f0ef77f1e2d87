/* SPDX-License-Identifier: Apache-2.0
 *
 * Segments open for reading, the one not used for longest making room; and a message record's
 * checks.
 */
#include "spool/log_files.h"

#include "base/crc32c.h"
#include "spool/log_copies.h"

void log_files_done(struct log_files *files)
{
    for (size_t i = 0; i < LOG_FILES_KEPT; i++) {
        if (files->kept[i].file != NULL) {
            files->disk->ops->close(files->kept[i].file);
            files->kept[i].file = NULL;
        }
    }
}

void log_files_forget(struct log_files *files, uint64_t number)
{
    for (size_t i = 0; i < LOG_FILES_KEPT; i++) {
        struct log_kept_file *kept = &files->kept[i];
        if (kept->file != NULL && kept->number == number) {
            files->disk->ops->close(kept->file);
            *kept = (struct log_kept_file){0};
        }
    }
}

static enum error find_file(struct log_files *files, uint64_t number, struct disk_file **ret_file)
{
    struct log_kept_file *oldest = &files->kept[0];
    for (size_t i = 0; i < LOG_FILES_KEPT; i++) {
        struct log_kept_file *kept = &files->kept[i];
        if (kept->file != NULL && kept->number == number) {
            kept->used = ++files->clock;
            *ret_file = kept->file;
            return ERROR_NONE;
        }
        oldest = kept->used < oldest->used ? kept : oldest;
    }
    char name[LOG_NAME_SIZE];
    log_name_make(LOG_NAME_SEGMENT, number, name);
    enum error error = files->disk->ops->open(files->disk, name, DISK_READ, ret_file);
    if (error == ERROR_MISSING && log_copies_name(files->copies, LOG_PAIR_COPY, number, name)) {
        error = files->disk->ops->open(files->disk, name, DISK_READ, ret_file);
    }
    if (error != ERROR_NONE) {
        return error;
    }
    if (oldest->file != NULL) {
        files->disk->ops->close(oldest->file);
    }
    *oldest = (struct log_kept_file){number, *ret_file, ++files->clock};
    return ERROR_NONE;
}

enum error log_files_read(struct log_files *files, uint64_t number, uint64_t offset,
                          void *ret_bytes, size_t length)
{
    struct disk_file *file;
    enum error error = find_file(files, number, &file);
    return error == ERROR_NONE ? files->disk->ops->read(file, offset, ret_bytes, length) : error;
}

enum error log_files_message(struct log_files *files, const struct log_ticket *at,
                             struct arena *arena, struct log_message *ret_message)
{
    uint8_t header[LOG_RECORD_HEADER];
    struct log_record record;
    enum error error = log_files_read(files, at->segment, at->offset, header, sizeof(header));
    if (error != ERROR_NONE) {
        return error;
    }
    if (!log_record_decode(header, at->nonce, at->offset, &record) || record.type != LOG_MESSAGE ||
        record.length > SPOOL_ENVELOPE_MAX * 2) {
        return ERROR_CORRUPT;
    }
    uint8_t *payload = arena_allocate(arena, record.length);
    if (payload == NULL) {
        return ERROR_MEMORY;
    }
    error = log_files_read(files, at->segment, (uint64_t)at->offset + LOG_RECORD_HEADER, payload,
                           record.length);
    if (error != ERROR_NONE) {
        return error;
    }
    struct slice bytes = slice_make(payload, record.length);
    if (crc32c(0, bytes) != record.payload_crc) {
        return ERROR_CORRUPT;
    }
    error = log_get_message(bytes, arena, ret_message);
    if (error == ERROR_NONE && !id_equal(ret_message->message.id, at->id)) {
        return ERROR_CORRUPT;
    }
    return error;
}
