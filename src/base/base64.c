/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct buffer *buffer, struct slice bytes)
{
    if (bytes.length == 0 || buffer_reserve(buffer, BASE64_LENGTH(bytes.length)) != ERROR_NONE) {
        return; /* for nothing a buffer may have no memory yet */
    }
    uint8_t *to = buffer->data + buffer->length;
    for (size_t i = 0; i < bytes.length; i += 3) {
        size_t left = bytes.length - i;
        uint32_t group = (uint32_t)bytes.data[i] << 16 |
                         (left > 1 ? (uint32_t)bytes.data[i + 1] << 8 : 0) |
                         (left > 2 ? bytes.data[i + 2] : 0);
        *to++ = (uint8_t)alphabet[group >> 18];
        *to++ = (uint8_t)alphabet[group >> 12 & 63];
        *to++ = left > 1 ? (uint8_t)alphabet[group >> 6 & 63] : '=';
        *to++ = left > 2 ? (uint8_t)alphabet[group & 63] : '=';
    }
    buffer->length += BASE64_LENGTH(bytes.length);
}

/* 64: not of the alphabet. */
static uint32_t value_of(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

/* One group of four with `bytes` bytes in it, 1 to 3; false if it is none. */
static bool decode_group(const uint8_t *from, size_t bytes, uint8_t *to)
{
    uint32_t group = 0;
    for (size_t i = 0; i < 4; i++) {
        uint32_t value = i <= bytes ? value_of(from[i]) : 0;
        if (value == 64) {
            return false;
        }
        group = group << 6 | value;
    }
    for (size_t i = 0; i < 3; i++) {
        uint8_t byte = (uint8_t)(group >> (16 - 8 * i));
        if (i < bytes) {
            to[i] = byte;
        } else if (byte != 0) {
            return false;
        }
    }
    return true;
}

enum error base64_decode(struct buffer *buffer, struct slice text)
{
    if (text.length % 4 != 0) {
        return ERROR_INVALID;
    }
    enum error error = buffer_reserve(buffer, text.length / 4 * 3);
    if (error != ERROR_NONE) {
        return error;
    }
    size_t length = 0;
    for (size_t i = 0; i < text.length; i += 4) {
        const uint8_t *from = text.data + i;
        size_t bytes = 3;
        if (i + 4 == text.length && from[3] == '=') {
            bytes = from[2] == '=' ? 1 : 2;
        }
        if (!decode_group(from, bytes, buffer->data + buffer->length + length)) {
            return ERROR_INVALID;
        }
        length += bytes;
    }
    buffer->length += length;
    return ERROR_NONE;
}
