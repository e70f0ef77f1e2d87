/* SPDX-License-Identifier: Apache-2.0
 *
 * Trust anchors for DNSSEC: text in the form of a zone file, a record a line, as every tool that
 * makes keys writes them. A record that the resolver could not read would leave it without any
 * answer at all, so each is looked at when the configuration is read.
 */
#include "app/settings_internal.h"

static struct slice next_word(struct slice *rest)
{
    *rest = slice_trim(*rest);
    size_t end = 0;
    while (end < rest->length && rest->data[end] != ' ' && rest->data[end] != '\t') {
        end++;
    }
    struct slice word = slice_take(*rest, end);
    *rest = slice_skip(*rest, end);
    return word;
}

static bool take_number(struct slice *rest, uint64_t most)
{
    uint64_t value;
    return slice_to_u64(next_word(rest), &value) && value <= most;
}

static bool is_hex(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_base64(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' ||
           c == '/' || c == '=';
}

/* What is left, blanks apart: whole bytes, or groups of four. */
static bool is_data(struct slice rest, bool hex)
{
    size_t count = 0;
    for (size_t i = 0; i < rest.length; i++) {
        uint8_t c = rest.data[i];
        if (c == ' ' || c == '\t') {
            continue;
        }
        if (!(hex ? is_hex(c) : is_base64(c))) {
            return false;
        }
        count++;
    }
    return count > 0 && count % (hex ? 2 : 4) == 0;
}

/* "example. 3600 IN DS 20326 8 2 E06D", RFC 4034 2.2 and 5.3; TTL and class may be left out. */
static bool is_anchor(struct slice line)
{
    uint64_t ttl;
    struct slice rest = line;
    struct slice word = next_word(&rest); /* whose */
    for (word = next_word(&rest);
         slice_equal_fold(word, SLICE_LITERAL("IN")) || slice_to_u64(word, &ttl);
         word = next_word(&rest)) {
    }
    bool ds = slice_equal_fold(word, SLICE_LITERAL("DS"));
    if (!ds && !slice_equal_fold(word, SLICE_LITERAL("DNSKEY"))) {
        return false;
    }
    return take_number(&rest, UINT16_MAX) && take_number(&rest, UINT8_MAX) &&
           take_number(&rest, UINT8_MAX) && is_data(rest, ds);
}

bool settings_anchors_are_good(struct slice text, uint32_t *ret_line)
{
    bool some = false;
    *ret_line = 0;
    while (text.length > 0) {
        size_t end = slice_find(text, '\n');
        struct slice line = slice_take(text, end);
        line = slice_trim(slice_take(line, slice_find(line, ';')));
        text = slice_skip(text, end + 1);
        ++*ret_line;
        if (line.length > 0 && !is_anchor(line)) {
            return false;
        }
        some |= line.length > 0;
    }
    return some;
}
