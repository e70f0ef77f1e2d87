/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buffer.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void buffer_init(struct buffer *buffer, size_t limit)
{
    *buffer = (struct buffer){.limit = limit};
}

void buffer_done(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){.limit = buffer->limit};
}

void buffer_clear(struct buffer *buffer)
{
    buffer->length = 0;
    buffer->failed = false;
}

enum error buffer_reserve(struct buffer *buffer, size_t more)
{
    size_t need;
    if (__builtin_add_overflow(buffer->length, more, &need)) {
        buffer->failed = true;
        return ERROR_LIMIT;
    }
    if (need <= buffer->capacity) {
        return ERROR_NONE;
    }
    if (buffer->limit != 0 && need > buffer->limit) {
        buffer->failed = true;
        return ERROR_LIMIT;
    }
    size_t capacity = buffer->capacity < 64 ? 64 : buffer->capacity;
    while (capacity < need) {
        if (__builtin_mul_overflow(capacity, (size_t)2, &capacity)) {
            capacity = need;
        }
    }
    if (buffer->limit != 0 && capacity > buffer->limit) {
        capacity = buffer->limit;
    }
    uint8_t *data = realloc(buffer->data, capacity);
    if (data == NULL) {
        buffer->failed = true;
        return ERROR_MEMORY;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return ERROR_NONE;
}

void buffer_append(struct buffer *buffer, struct slice bytes)
{
    if (bytes.length == 0 || buffer_reserve(buffer, bytes.length) != ERROR_NONE) {
        return;
    }
    memcpy(buffer->data + buffer->length, bytes.data, bytes.length);
    buffer->length += bytes.length;
}

void buffer_append_text(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, slice_from_text(text));
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0 || buffer_reserve(buffer, (size_t)length + 1) != ERROR_NONE) {
        buffer->failed = true;
        return;
    }
    va_start(arguments, format);
    vsnprintf((char *)buffer->data + buffer->length, (size_t)length + 1, format, arguments);
    va_end(arguments);
    buffer->length += (size_t)length;
}

void buffer_consume(struct buffer *buffer, size_t count)
{
    assert(count <= buffer->length);
    buffer->length -= count;
    if (buffer->length > 0 && count > 0) {
        memmove(buffer->data, buffer->data + count, buffer->length);
    }
}

struct slice buffer_slice(const struct buffer *buffer)
{
    return slice_make(buffer->data, buffer->length);
}

static void put(struct buffer *buffer, uint64_t value, size_t width)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < width; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
    buffer_append(buffer, slice_make(bytes, width));
}

void buffer_put_u8(struct buffer *buffer, uint8_t value)
{
    put(buffer, value, 1);
}

void buffer_put_u16(struct buffer *buffer, uint16_t value)
{
    put(buffer, value, 2);
}

void buffer_put_u32(struct buffer *buffer, uint32_t value)
{
    put(buffer, value, 4);
}

void buffer_put_u64(struct buffer *buffer, uint64_t value)
{
    put(buffer, value, 8);
}

void buffer_put_bytes(struct buffer *buffer, struct slice bytes)
{
    assert(bytes.length <= UINT32_MAX);
    buffer_put_u32(buffer, (uint32_t)bytes.length);
    buffer_append(buffer, bytes);
}

struct reader reader_make(struct slice input)
{
    return (struct reader){.rest = input};
}

struct slice reader_take(struct reader *reader, size_t length)
{
    if (reader->failed || length > reader->rest.length) {
        reader->failed = true;
        return SLICE_EMPTY;
    }
    struct slice taken = slice_take(reader->rest, length);
    reader->rest = (struct slice){reader->rest.data + length, reader->rest.length - length};
    return taken;
}

static uint64_t get(struct reader *reader, size_t width)
{
    struct slice bytes = reader_take(reader, width);
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.length; i++) {
        value |= (uint64_t)bytes.data[i] << (8 * i);
    }
    return value;
}

uint8_t reader_u8(struct reader *reader)
{
    return (uint8_t)get(reader, 1);
}

uint16_t reader_u16(struct reader *reader)
{
    return (uint16_t)get(reader, 2);
}

uint32_t reader_u32(struct reader *reader)
{
    return (uint32_t)get(reader, 4);
}

uint64_t reader_u64(struct reader *reader)
{
    return get(reader, 8);
}

struct slice reader_bytes(struct reader *reader)
{
    return reader_take(reader, reader_u32(reader));
}
