/* SPDX-License-Identifier: Apache-2.0 */
#include "base/slice.h"

bool slice_equal(struct slice a, struct slice b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

static uint8_t fold(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

bool slice_equal_fold(struct slice a, struct slice b)
{
    return a.length == b.length && slice_starts_fold(a, b);
}

bool slice_starts_fold(struct slice s, struct slice prefix)
{
    if (s.length < prefix.length) {
        return false;
    }
    for (size_t i = 0; i < prefix.length; i++) {
        if (fold(s.data[i]) != fold(prefix.data[i])) {
            return false;
        }
    }
    return true;
}

/* Going back to the last star only is enough. */
bool slice_matches_fold(struct slice s, struct slice pattern)
{
    size_t at = 0, in_pattern = 0;
    size_t star = pattern.length, resume = 0;
    while (at < s.length) {
        if (in_pattern < pattern.length && pattern.data[in_pattern] == '*') {
            star = in_pattern++;
            resume = at;
        } else if (in_pattern < pattern.length &&
                   fold(pattern.data[in_pattern]) == fold(s.data[at])) {
            in_pattern++;
            at++;
        } else if (star < pattern.length) {
            in_pattern = star + 1;
            at = ++resume;
        } else {
            return false;
        }
    }
    while (in_pattern < pattern.length && pattern.data[in_pattern] == '*') {
        in_pattern++;
    }
    return in_pattern == pattern.length;
}

size_t slice_find(struct slice s, uint8_t c)
{
    const uint8_t *at = s.length == 0 ? NULL : memchr(s.data, c, s.length);
    return at == NULL ? s.length : (size_t)(at - s.data);
}

size_t slice_find_last(struct slice s, uint8_t c)
{
    for (size_t i = s.length; i > 0; i--) {
        if (s.data[i - 1] == c) {
            return i - 1;
        }
    }
    return s.length;
}

struct slice slice_trim(struct slice s)
{
    while (s.length > 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.length--;
    }
    while (s.length > 0 && (s.data[s.length - 1] == ' ' || s.data[s.length - 1] == '\t')) {
        s.length--;
    }
    return s;
}

bool slice_to_u64(struct slice s, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (s.length == 0) {
        return false;
    }
    for (size_t i = 0; i < s.length; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') {
            return false;
        }
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(s.data[i] - '0'), &value)) {
            return false;
        }
    }
    *ret_value = value;
    return true;
}
