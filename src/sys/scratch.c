/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/scratch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct scratch {
    int fd;
    uint32_t used;  /* blocks that strings have */
    uint32_t made;  /* blocks that the file has room for */
    uint32_t *free; /* those of them that no string has: made - used */
    uint32_t free_room;
};

struct scratch *scratch_new(int fd)
{
    struct scratch *scratch = calloc(1, sizeof(*scratch));
    if (scratch == NULL) {
        close(fd);
        return NULL;
    }
    scratch->fd = fd;
    return scratch;
}

void scratch_free(struct scratch *scratch)
{
    if (scratch != NULL) {
        close(scratch->fd);
        free(scratch->free);
        free(scratch);
    }
}

/* Room in both lists first, so that giving a block back never needs memory. */
static enum error take_block(struct scratch *scratch, struct scratch_text *text)
{
    if (scratch->used == scratch->made && scratch->made == scratch->free_room) {
        uint32_t room = scratch->free_room == 0 ? 16 : scratch->free_room * 2;
        uint32_t *more = realloc(scratch->free, room * sizeof(*more));
        if (more == NULL) {
            return ERROR_MEMORY;
        }
        scratch->free = more;
        scratch->free_room = room;
    }
    /* The list's room is the next power of two. */
    if ((text->block_count & (text->block_count - 1)) == 0) {
        uint32_t room = text->block_count == 0 ? 1 : text->block_count * 2;
        uint32_t *more = realloc(text->blocks, room * sizeof(*more));
        if (more == NULL) {
            return ERROR_MEMORY;
        }
        text->blocks = more;
    }
    uint32_t block = scratch->used < scratch->made
                         ? scratch->free[scratch->made - scratch->used - 1]
                         : scratch->made++;
    scratch->used++;
    text->blocks[text->block_count++] = block;
    return ERROR_NONE;
}

static off_t place(const struct scratch_text *text, uint64_t offset)
{
    return (off_t)text->blocks[offset / SCRATCH_BLOCK_BYTES] * SCRATCH_BLOCK_BYTES +
           (off_t)(offset % SCRATCH_BLOCK_BYTES);
}

static size_t in_block(uint64_t offset, size_t size)
{
    size_t left = SCRATCH_BLOCK_BYTES - (size_t)(offset % SCRATCH_BLOCK_BYTES);
    return size < left ? size : left;
}

enum error scratch_append(struct scratch *scratch, struct scratch_text *text, struct slice bytes)
{
    while (bytes.length > 0) {
        if (text->length == (uint64_t)text->block_count * SCRATCH_BLOCK_BYTES) {
            enum error error = take_block(scratch, text);
            if (error != ERROR_NONE) {
                return error;
            }
        }
        ssize_t put = pwrite(scratch->fd, bytes.data, in_block(text->length, bytes.length),
                             place(text, text->length));
        if (put < 0 && errno != EINTR) {
            return error_from_errno(errno);
        }
        put = put < 0 ? 0 : put;
        text->length += (uint64_t)put;
        bytes = slice_skip(bytes, (size_t)put);
    }
    return ERROR_NONE;
}

enum error scratch_read(struct scratch *scratch, const struct scratch_text *text, uint64_t offset,
                        void *ret_bytes, size_t size, size_t *ret_length)
{
    *ret_length = 0;
    if (offset >= text->length) {
        return ERROR_NONE;
    }
    size = text->length - offset < size ? (size_t)(text->length - offset) : size;
    size = in_block(offset, size);
    while (*ret_length < size) {
        ssize_t got = pread(scratch->fd, (uint8_t *)ret_bytes + *ret_length, size - *ret_length,
                            place(text, offset + *ret_length));
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return got == 0 ? ERROR_IO : error_from_errno(errno);
        }
        *ret_length += got < 0 ? 0 : (size_t)got;
    }
    return ERROR_NONE;
}

void scratch_clear(struct scratch *scratch, struct scratch_text *text)
{
    for (uint32_t i = 0; i < text->block_count; i++) {
        assert(scratch->used > 0);
        scratch->used--;
        scratch->free[scratch->made - scratch->used - 1] = text->blocks[i];
    }
    if (text->block_count > 0 && scratch->used == 0) {
        scratch->made = 0;
        (void)!ftruncate(scratch->fd, 0); /* what stays is written over */
    }
    free(text->blocks);
    *text = (struct scratch_text){0};
}
