/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/dsn_encode.h"

#include "base/utf8.h"

enum {
    LINE_MAX_BYTES = 998,   /* RFC 5322 2.1.1, without CRLF */
    QUOTED_LINE_BYTES = 76, /* RFC 2045 6.7, without CRLF */
    ADDRESS_MAX_BYTES = 900,
};

static void put_byte(struct buffer *to, uint8_t byte)
{
    buffer_append(to, slice_make(&byte, 1));
}

static bool is_printable(uint8_t c)
{
    return c >= ' ' && c < 0x7f;
}

void dsn_put_clean(struct buffer *to, struct slice text, size_t limit)
{
    text = slice_take(text, limit);
    for (size_t i = 0; i < text.length; i++) {
        put_byte(to, is_printable(text.data[i]) ? text.data[i] : '?');
    }
}

void dsn_put_text(struct buffer *to, struct slice text, size_t limit)
{
    while (text.length > 0 && limit > 0) {
        size_t length = utf8_sequence(text);
        size_t taken = length > 0 ? length : 1;
        if (taken > limit) {
            return;
        }
        if (length == 0 || text.data[0] < ' ' || text.data[0] == 0x7f) {
            put_byte(to, '?');
        } else {
            buffer_append(to, slice_take(text, length));
        }
        text = slice_skip(text, taken);
        limit -= taken;
    }
}

static uint32_t code_point(struct slice sequence)
{
    static const uint8_t masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t point = sequence.data[0] & masks[sequence.length];
    for (size_t i = 1; i < sequence.length; i++) {
        point = point << 6 | (sequence.data[i] & 0x3f);
    }
    return point;
}

static void put_utf8_address(struct buffer *to, struct slice address)
{
    while (address.length > 0) {
        struct slice sequence = slice_take(address, utf8_sequence(address));
        if (sequence.length == 0) {
            return; /* cut within a character */
        }
        uint8_t c = sequence.data[0];
        if (c > ' ' && c < 0x7f && c != '+' && c != '=' && c != '\\') {
            put_byte(to, c);
        } else {
            buffer_printf(to, "\\x{%02X}", code_point(sequence));
        }
        address = slice_skip(address, sequence.length);
    }
}

/* In its 7-bit form, unless that would be longer than a line may be. */
static void put_utf8_or_clean(struct buffer *to, struct slice address)
{
    size_t before = to->length;
    put_utf8_address(to, slice_take(address, ADDRESS_MAX_BYTES));
    if (to->length - before > ADDRESS_MAX_BYTES) {
        to->length = before;
        dsn_put_clean(to, address, ADDRESS_MAX_BYTES);
    }
}

void dsn_put_address(struct buffer *to, struct slice address)
{
    if (utf8_is_ascii(address) || !utf8_is_valid(address)) {
        buffer_append_text(to, "rfc822; ");
        dsn_put_clean(to, address, ADDRESS_MAX_BYTES);
    } else {
        buffer_append_text(to, "utf-8; ");
        put_utf8_or_clean(to, address);
    }
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

void dsn_put_xtext(struct buffer *to, struct slice text)
{
    text = slice_take(text, ADDRESS_MAX_BYTES);
    for (size_t i = 0; i < text.length; i++) {
        uint8_t c = text.data[i];
        if (c == '+' && i + 2 < text.length && hex_digit(text.data[i + 1]) >= 0 &&
            hex_digit(text.data[i + 2]) >= 0) {
            c = (uint8_t)(hex_digit(text.data[i + 1]) << 4 | hex_digit(text.data[i + 2]));
            i += 2;
        }
        put_byte(to, is_printable(c) ? c : '?');
    }
}

void dsn_put_orcpt(struct buffer *to, struct slice orcpt)
{
    size_t end = slice_find(orcpt, ';');
    struct slice type = slice_take(orcpt, end);
    struct slice address = slice_skip(orcpt, end + 1);
    dsn_put_clean(to, type, 60);
    buffer_append_text(to, "; ");
    if (!slice_equal_fold(type, SLICE_LITERAL("utf-8"))) {
        dsn_put_xtext(to, address);
    } else if (utf8_is_ascii(address) || !utf8_is_valid(address)) {
        dsn_put_clean(to, address, ADDRESS_MAX_BYTES);
    } else {
        put_utf8_or_clean(to, address);
    }
}

bool dsn_is_7bit(struct slice text)
{
    size_t line = 0;
    for (size_t i = 0; i < text.length; i++) {
        uint8_t c = text.data[i];
        if (c == '\r' && i + 1 < text.length && text.data[i + 1] == '\n') {
            line = 0;
            i++;
        } else if (c == '\0' || c > 127 || c == '\r' || c == '\n' || ++line > LINE_MAX_BYTES) {
            return false;
        }
    }
    return line == 0;
}

/* A blank at the end of a line would be lost on the way. */
static bool is_literal(struct slice rest)
{
    uint8_t c = rest.data[0];
    bool ends = rest.length == 1 || rest.data[1] == '\r' || rest.data[1] == '\n';
    return (c > ' ' && c < 0x7f && c != '=') || ((c == ' ' || c == '\t') && !ends);
}

void dsn_put_quoted_printable(struct buffer *to, struct slice text)
{
    size_t line = 0;
    while (text.length > 0) {
        if (text.length > 1 && text.data[0] == '\r' && text.data[1] == '\n') {
            buffer_append_text(to, "\r\n");
            text = slice_skip(text, 2);
            line = 0;
            continue;
        }
        bool literal = is_literal(text);
        size_t width = literal ? 1 : 3;
        if (line + width >= QUOTED_LINE_BYTES) {
            buffer_append_text(to, "=\r\n");
            line = 0;
        }
        if (literal) {
            put_byte(to, text.data[0]);
        } else {
            buffer_printf(to, "=%02X", text.data[0]);
        }
        line += width;
        text = slice_skip(text, 1);
    }
    if (line > 0) {
        buffer_append_text(to, "=\r\n"); /* the next boundary begins a line */
    }
}
