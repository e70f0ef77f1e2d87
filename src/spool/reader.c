/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading by ticket, from the journal's files alone. Everything read is checked: the record by its
 * place, nonce and checksum, each piece of content by its checksum when its last byte is read. A
 * few segments stay open.
 */
#include "spool/reader.h"

#include "spool/log_reading.h"

#include <stdlib.h>

struct spool_reader {
    struct disk *disk;
    struct log_files files;
};

struct spool_stored {
    struct log_reading reading;
    struct log_piece *pieces;
};

/* ---- readers and messages ---------------------------------------------------------------- */

enum error spool_reader_open_log(struct disk *disk, struct spool_reader **ret_reader)
{
    struct spool_reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL) {
        disk_free(disk);
        return ERROR_MEMORY;
    }
    reader->disk = disk;
    log_files_init(&reader->files, disk);
    *ret_reader = reader;
    return ERROR_NONE;
}

void spool_reader_close(struct spool_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    log_files_done(&reader->files);
    disk_free(reader->disk);
    free(reader);
}

enum error spool_stored_open(struct spool_reader *reader, struct slice ticket, struct arena *arena,
                             struct spool_message *ret_message, struct spool_stored **ret_stored)
{
    struct log_ticket decoded;
    struct log_message message;
    if (!log_ticket_decode(ticket, &decoded)) {
        return ERROR_CORRUPT;
    }
    enum error error = log_files_message(&reader->files, &decoded, arena, &message);
    if (error != ERROR_NONE) {
        return error;
    }
    struct spool_stored *stored = calloc(1, sizeof(*stored));
    struct log_piece *pieces = malloc(message.piece_count * sizeof(*pieces) + 1);
    if (stored == NULL || pieces == NULL) {
        free(stored);
        free(pieces);
        return ERROR_MEMORY;
    }
    memcpy(pieces, message.pieces, message.piece_count * sizeof(*pieces));
    stored->pieces = pieces;
    log_reading_init(&stored->reading, &reader->files, decoded.segment, decoded.offset, pieces,
                     message.piece_count);
    *ret_message = message.message;
    *ret_stored = stored;
    return ERROR_NONE;
}

void spool_stored_close(struct spool_stored *stored)
{
    if (stored != NULL) {
        log_reading_done(&stored->reading);
        free(stored->pieces);
        free(stored);
    }
}

/* ---- content ----------------------------------------------------------------------------- */

enum error spool_stored_read(struct spool_stored *stored, uint64_t offset, void *ret_bytes,
                             size_t size, size_t *ret_length)
{
    return log_reading_read(&stored->reading, offset, ret_bytes, size, ret_length);
}
