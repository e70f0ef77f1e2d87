/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hosts.h"

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r';
}

static struct slice next_word(struct slice *rest)
{
    size_t start = 0;
    while (start < rest->length && is_blank(rest->data[start])) {
        start++;
    }
    size_t end = start;
    while (end < rest->length && !is_blank(rest->data[end])) {
        end++;
    }
    struct slice word = slice_take(slice_skip(*rest, start), end - start);
    *rest = slice_skip(*rest, end);
    return word;
}

bool hosts_next(struct hosts_reader *reader, struct slice *ret_name)
{
    for (;;) {
        *ret_name = next_word(&reader->names);
        if (ret_name->length > 0) {
            return true;
        }
        if (reader->rest.length == 0) {
            return false;
        }
        size_t end = slice_find(reader->rest, '\n');
        struct slice line = slice_take(reader->rest, end);
        reader->rest = slice_skip(reader->rest, end + 1);
        reader->names = slice_take(line, slice_find(line, '#'));
        reader->text = next_word(&reader->names);
        if (!ip_from_text(reader->text, &reader->address)) {
            reader->names = SLICE_EMPTY;
        }
    }
}
