/* SPDX-License-Identifier: Apache-2.0
 *
 * A growing run of bytes with an upper bound. A failed append leaves the buffer as it was and sets
 * `failed`, so that a writer may append many times and check once.
 */
#ifndef HOLDFAST_BASE_BUFFER_H
#define HOLDFAST_BASE_BUFFER_H

#include "base/error.h"
#include "base/slice.h"

struct buffer {
    uint8_t *data;
    size_t length;
    size_t capacity;
    size_t limit; /* bytes; 0 means no bound beyond memory */
    bool failed;
};

void buffer_init(struct buffer *buffer, size_t limit);
void buffer_done(struct buffer *buffer);
/* Empties it and clears `failed`; keeps the memory. */
void buffer_clear(struct buffer *buffer);
/* Room for at least `more` further bytes; ERROR_LIMIT or ERROR_MEMORY otherwise. */
enum error buffer_reserve(struct buffer *buffer, size_t more) MUST_CHECK;
void buffer_append(struct buffer *buffer, struct slice bytes);
void buffer_append_text(struct buffer *buffer, const char *text);
void buffer_printf(struct buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Drops the first `count` bytes. */
void buffer_consume(struct buffer *buffer, size_t count);
struct slice buffer_slice(const struct buffer *buffer);

/* Little-endian integers and length-prefixed (u32) byte strings, for records and frames. */
void buffer_put_u8(struct buffer *buffer, uint8_t value);
void buffer_put_u16(struct buffer *buffer, uint16_t value);
void buffer_put_u32(struct buffer *buffer, uint32_t value);
void buffer_put_u64(struct buffer *buffer, uint64_t value);
void buffer_put_bytes(struct buffer *buffer, struct slice bytes);

/* Reads what buffer_put_* wrote. A read beyond the end returns zero or an empty slice and sets
 * `failed`; check once at the end. Slices point into the input. */
struct reader {
    struct slice rest;
    bool failed;
};
struct reader reader_make(struct slice input);
uint8_t reader_u8(struct reader *reader);
uint16_t reader_u16(struct reader *reader);
uint32_t reader_u32(struct reader *reader);
uint64_t reader_u64(struct reader *reader);
struct slice reader_bytes(struct reader *reader);               /* u32 length, then bytes */
struct slice reader_take(struct reader *reader, size_t length); /* exactly length bytes */

#endif
