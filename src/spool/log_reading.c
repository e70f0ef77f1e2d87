/* SPDX-License-Identifier: Apache-2.0 */
#include "spool/log_reading.h"

#include "base/crc32c.h"
#include "spool/log_copies.h"

#include <stdlib.h>

enum { SKIP_BYTES = 64 << 10 };

void log_reading_init(struct log_reading *reading, struct log_files *files, uint64_t segment,
                      uint32_t offset, const struct log_piece *pieces, size_t count)
{
    *reading = (struct log_reading){.files = files,
                                    .segment = segment,
                                    .offset = offset,
                                    .pieces = pieces,
                                    .piece_count = count};
}

void log_reading_done(struct log_reading *reading)
{
    if (reading->content != NULL) {
        reading->files->disk->ops->close(reading->content);
        reading->content = NULL;
    }
}

/* ---- stored bytes ------------------------------------------------------------------------ */

static enum error read_own_file(struct log_reading *reading, const struct log_piece *piece,
                                uint64_t offset, void *bytes, size_t length)
{
    struct disk *disk = reading->files->disk;
    if (reading->content_number != piece->where) {
        log_reading_done(reading);
    }
    if (reading->content == NULL) {
        char name[LOG_NAME_SIZE];
        log_name_make(LOG_NAME_CONTENT, piece->where, name);
        enum error error = disk->ops->open(disk, name, DISK_READ, &reading->content);
        if (error == ERROR_MISSING &&
            log_copies_name(reading->files->copies, LOG_PAIR_LARGE, piece->where, name)) {
            error = disk->ops->open(disk, name, DISK_READ, &reading->content);
        }
        if (error != ERROR_NONE) {
            reading->content = NULL;
            return error;
        }
        reading->content_number = piece->where;
    }
    return disk->ops->read(reading->content, piece->offset + offset, bytes, length);
}

static enum error read_stored(struct log_reading *reading, const struct log_piece *piece,
                              uint64_t offset, void *bytes, size_t length)
{
    switch (piece->kind) {
    case LOG_FILE:
        return read_own_file(reading, piece, offset, bytes, length);
    case LOG_FAR:
        return log_files_read(reading->files, piece->where, piece->offset + offset, bytes, length);
    default:
        return piece->offset > reading->offset
                   ? ERROR_CORRUPT
                   : log_files_read(reading->files, reading->segment,
                                    reading->offset - piece->offset + offset, bytes, length);
    }
}

enum error log_reading_piece(struct log_reading *reading, const struct log_piece *piece,
                             uint8_t *ret_bytes)
{
    enum error error = read_stored(reading, piece, 0, ret_bytes, piece->stored);
    if (error == ERROR_NONE && crc32c(0, slice_make(ret_bytes, piece->stored)) != piece->crc) {
        error = ERROR_CORRUPT;
    }
    return error;
}

/* ---- in order ---------------------------------------------------------------------------- */

static enum error read_on(struct log_reading *reading, const struct log_piece *piece, void *bytes,
                          size_t length)
{
    enum error error = read_stored(reading, piece, reading->done, bytes, length);
    if (error == ERROR_NONE) {
        reading->crc = crc32c(reading->crc, slice_make(bytes, length));
        reading->done += length;
    }
    return error;
}

/* Bytes that nobody wants, but the checksum. */
static enum error pass_over(struct log_reading *reading, const struct log_piece *piece,
                            uint64_t until)
{
    if (reading->done >= until) {
        return ERROR_NONE;
    }
    uint8_t *bytes = malloc(SKIP_BYTES);
    enum error error = bytes == NULL ? ERROR_MEMORY : ERROR_NONE;
    while (error == ERROR_NONE && reading->done < until) {
        uint64_t left = until - reading->done;
        error = read_on(reading, piece, bytes, left < SKIP_BYTES ? (size_t)left : SKIP_BYTES);
    }
    free(bytes);
    return error;
}

enum error log_reading_verify(struct log_reading *reading)
{
    if (reading->piece == reading->piece_count || reading->done == 0) {
        return ERROR_NONE; /* nothing of it has been read */
    }
    const struct log_piece *piece = &reading->pieces[reading->piece];
    enum error error = pass_over(reading, piece, piece->stored);
    return error == ERROR_NONE && reading->crc != piece->crc ? ERROR_CORRUPT : error;
}

static void begin_piece(struct log_reading *reading)
{
    reading->done = 0;
    reading->crc = 0;
}

/* The piece that holds `offset`, becoming the present one. */
static const struct log_piece *seek_piece(struct log_reading *reading, uint64_t offset)
{
    size_t before = reading->piece;
    if (offset < reading->piece_start) {
        reading->piece = 0;
        reading->piece_start = 0;
    }
    while (reading->piece < reading->piece_count &&
           offset >= reading->piece_start + reading->pieces[reading->piece].take) {
        reading->piece_start += reading->pieces[reading->piece++].take;
    }
    if (reading->piece == reading->piece_count) {
        return NULL;
    }
    const struct log_piece *piece = &reading->pieces[reading->piece];
    if (reading->piece != before || reading->done > piece->skip + (offset - reading->piece_start)) {
        begin_piece(reading);
    }
    return piece;
}

static enum error read_part(struct log_reading *reading, const struct log_piece *piece,
                            uint64_t from, void *bytes, size_t length)
{
    enum error error = pass_over(reading, piece, piece->skip + from);
    if (error == ERROR_NONE) {
        error = read_on(reading, piece, bytes, length);
    }
    bool last = from + length == piece->take;
    return error == ERROR_NONE && last ? log_reading_verify(reading) : error;
}

enum error log_reading_read(struct log_reading *reading, uint64_t offset, void *ret_bytes,
                            size_t size, size_t *ret_length)
{
    uint8_t *at = ret_bytes;
    *ret_length = 0;
    while (size > 0) {
        const struct log_piece *piece = seek_piece(reading, offset);
        if (piece == NULL) {
            break;
        }
        uint64_t from = offset - reading->piece_start;
        size_t length = piece->take - from < size ? (size_t)(piece->take - from) : size;
        enum error error = read_part(reading, piece, from, at, length);
        if (error != ERROR_NONE) {
            begin_piece(reading);
            return error;
        }
        at += length;
        size -= length;
        offset += length;
    }
    *ret_length = (size_t)(at - (uint8_t *)ret_bytes);
    return ERROR_NONE;
}
