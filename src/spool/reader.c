/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading by ticket, from the journal's files alone. Everything read is checked: the record by its
 * place, nonce and checksum, each piece of content by its checksum when its last byte is read in
 * order. A few segments stay open.
 */
#include "spool/reader.h"

#include "base/crc32c.h"
#include "spool/log_files.h"

#include <stdlib.h>

enum { SKIP_BYTES = 64 << 10 };

struct spool_reader {
    struct disk *disk;
    struct log_files files;
};

struct spool_stored {
    struct spool_reader *reader;
    uint64_t segment;
    uint32_t offset;
    struct log_piece *pieces;
    size_t piece_count;
    struct disk_file *content; /* its own file, when one is needed */
    uint64_t content_number;
    /* The piece that is being read in order: how far, and its checksum so far. */
    size_t piece;
    uint64_t piece_start; /* of the piece in the content */
    uint64_t done;        /* of its stored bytes */
    uint32_t crc;
};

/* ---- readers and messages
 * ------------------------------------------------------------------------------- */

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
    stored->reader = reader;
    stored->segment = decoded.segment;
    stored->offset = decoded.offset;
    stored->pieces = pieces;
    stored->piece_count = message.piece_count;
    *ret_message = message.message;
    *ret_stored = stored;
    return ERROR_NONE;
}

void spool_stored_close(struct spool_stored *stored)
{
    if (stored != NULL) {
        if (stored->content != NULL) {
            stored->reader->disk->ops->close(stored->content);
        }
        free(stored->pieces);
        free(stored);
    }
}

/* ---- content ----------------------------------------------------------------------------- */

static enum error read_own_file(struct spool_stored *stored, const struct log_piece *piece,
                                uint64_t offset, void *bytes, size_t length)
{
    const struct disk_ops *ops = stored->reader->disk->ops;
    if (stored->content != NULL && stored->content_number != piece->where) {
        ops->close(stored->content);
        stored->content = NULL;
    }
    if (stored->content == NULL) {
        char name[LOG_NAME_SIZE];
        log_name_make(LOG_NAME_CONTENT, piece->where, name);
        enum error error = ops->open(stored->reader->disk, name, DISK_READ, &stored->content);
        if (error != ERROR_NONE) {
            stored->content = NULL;
            return error;
        }
        stored->content_number = piece->where;
    }
    return ops->read(stored->content, piece->offset + offset, bytes, length);
}

/* Stored bytes of a piece. */
static enum error read_piece(struct spool_stored *stored, const struct log_piece *piece,
                             uint64_t offset, void *bytes, size_t length)
{
    switch (piece->kind) {
    case LOG_FILE:
        return read_own_file(stored, piece, offset, bytes, length);
    case LOG_FAR:
        return log_files_read(&stored->reader->files, piece->where, piece->offset + offset, bytes,
                              length);
    default:
        return piece->offset > stored->offset
                   ? ERROR_CORRUPT
                   : log_files_read(&stored->reader->files, stored->segment,
                                    stored->offset - piece->offset + offset, bytes, length);
    }
}

/* Bytes that the message does not use, or that were not read in order: only for the checksum. */
static enum error pass_over(struct spool_stored *stored, const struct log_piece *piece,
                            uint64_t until)
{
    uint8_t *bytes = malloc(SKIP_BYTES);
    enum error error = bytes == NULL ? ERROR_MEMORY : ERROR_NONE;
    while (error == ERROR_NONE && stored->done < until) {
        uint64_t left = until - stored->done;
        size_t part = left < SKIP_BYTES ? (size_t)left : SKIP_BYTES;
        error = read_piece(stored, piece, stored->done, bytes, part);
        if (error == ERROR_NONE) {
            stored->crc = crc32c(stored->crc, slice_make(bytes, part));
            stored->done += part;
        }
    }
    free(bytes);
    return error;
}

static enum error read_in_order(struct spool_stored *stored, const struct log_piece *piece,
                                uint64_t from, void *bytes, size_t length)
{
    uint64_t offset = piece->skip + from;
    enum error error = ERROR_NONE;
    if (stored->done < offset && from == 0) {
        error = pass_over(stored, piece, offset);
    }
    if (error == ERROR_NONE) {
        error = read_piece(stored, piece, offset, bytes, length);
    }
    if (error != ERROR_NONE || stored->done != offset) {
        return error; /* out of order: nothing is said about the checksum */
    }
    stored->crc = crc32c(stored->crc, slice_make(bytes, length));
    stored->done += length;
    if (from + length < piece->take) {
        return ERROR_NONE;
    }
    error = pass_over(stored, piece, piece->stored);
    if (error == ERROR_NONE && stored->crc != piece->crc) {
        error = ERROR_CORRUPT;
    }
    return error;
}

/* The piece that holds `offset`, becoming the present one. */
static const struct log_piece *seek_piece(struct spool_stored *stored, uint64_t offset)
{
    size_t before = stored->piece;
    if (offset < stored->piece_start) {
        stored->piece = 0;
        stored->piece_start = 0;
    }
    while (stored->piece < stored->piece_count &&
           offset >= stored->piece_start + stored->pieces[stored->piece].take) {
        stored->piece_start += stored->pieces[stored->piece++].take;
    }
    if (stored->piece != before || offset == stored->piece_start) {
        stored->done = 0;
        stored->crc = 0;
    }
    return stored->piece < stored->piece_count ? &stored->pieces[stored->piece] : NULL;
}

enum error spool_stored_read(struct spool_stored *stored, uint64_t offset, void *ret_bytes,
                             size_t size, size_t *ret_length)
{
    uint8_t *at = ret_bytes;
    *ret_length = 0;
    while (size > 0) {
        const struct log_piece *piece = seek_piece(stored, offset);
        if (piece == NULL) {
            break;
        }
        uint64_t from = offset - stored->piece_start;
        size_t length = piece->take - from < size ? (size_t)(piece->take - from) : size;
        enum error error = read_in_order(stored, piece, from, at, length);
        if (error != ERROR_NONE) {
            *ret_length = 0;
            return error;
        }
        at += length;
        size -= length;
        offset += length;
    }
    *ret_length = (size_t)(at - (uint8_t *)ret_bytes);
    return ERROR_NONE;
}
