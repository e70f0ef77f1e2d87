/* SPDX-License-Identifier: Apache-2.0
 *
 * Little-endian integers at an address, and room at the end of a buffer: for the two files that
 * encode the journal.
 */
#ifndef HOLDFAST_SPOOL_LOG_BYTES_H
#define HOLDFAST_SPOOL_LOG_BYTES_H

#include "base/buffer.h"

static inline void store(uint8_t *at, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static inline uint64_t fetch(const uint8_t *at, size_t width)
{
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

/* Room at the end of the buffer, counted in; NULL when memory is out. */
static inline uint8_t *grow(struct buffer *buffer, size_t length)
{
    if (buffer_reserve(buffer, length) != ERROR_NONE) {
        return NULL;
    }
    uint8_t *at = buffer->data + buffer->length;
    buffer->length += length;
    return at;
}

#endif
