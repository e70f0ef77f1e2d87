/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

static bool is_tail(uint8_t c)
{
    return (c & 0xc0) == 0x80;
}

size_t utf8_sequence(struct slice s)
{
    if (s.length == 0) {
        return 0;
    }
    uint8_t first = s.data[0];
    if (first < 0x80) {
        return 1;
    }
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || s.length < length) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if (!is_tail(s.data[i])) {
            return 0;
        }
    }
    uint8_t second = s.data[1];
    bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
    bool outside = (first == 0xed && second > 0x9f) || (first == 0xf4 && second > 0x8f);
    return overlong || outside ? 0 : length;
}

bool utf8_is_valid(struct slice s)
{
    while (s.length > 0) {
        size_t length = utf8_sequence(s);
        if (length == 0) {
            return false;
        }
        s = slice_skip(s, length);
    }
    return true;
}

bool utf8_is_ascii(struct slice s)
{
    /* Every header line passes here: eight bytes at a time. */
    for (; s.length >= sizeof(uint64_t); s = slice_skip(s, sizeof(uint64_t))) {
        uint64_t word;
        memcpy(&word, s.data, sizeof(word));
        if ((word & 0x8080808080808080) != 0) {
            return false;
        }
    }
    for (size_t i = 0; i < s.length; i++) {
        if (s.data[i] > 127) {
            return false;
        }
    }
    return true;
}

uint32_t utf8_code_point(struct slice sequence)
{
    static const uint8_t masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t code_point = sequence.data[0] & masks[sequence.length];
    for (size_t i = 1; i < sequence.length; i++) {
        code_point = code_point << 6 | (sequence.data[i] & 0x3f);
    }
    return code_point;
}

bool utf8_is_unsafe(uint32_t code_point)
{
    static const struct {
        uint32_t from, to;
    } ranges[] = {{0, 0x1f},        {0x7f, 0x9f},     {0x61c, 0x61c},
                  {0x200e, 0x200f}, {0x2028, 0x202e}, {0x2066, 0x2069}};
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (code_point >= ranges[i].from && code_point <= ranges[i].to) {
            return true;
        }
    }
    return false;
}

const char *utf8_clean(struct slice text, const char *keep, char *buffer, size_t size)
{
    size_t length = 0;
    while (text.length > 0) {
        size_t sequence = utf8_sequence(text);
        struct slice one = slice_take(text, sequence == 0 ? 1 : sequence);
        bool kept = sequence == 1 && one.data[0] != 0 && strchr(keep, one.data[0]) != NULL;
        bool bad = sequence == 0 || (!kept && utf8_is_unsafe(utf8_code_point(one)));
        struct slice shown = bad ? SLICE_LITERAL("?") : one;
        if (length + shown.length >= size) {
            break;
        }
        memcpy(buffer + length, shown.data, shown.length);
        length += shown.length;
        text = slice_skip(text, one.length);
    }
    buffer[length] = '\0';
    return buffer;
}
