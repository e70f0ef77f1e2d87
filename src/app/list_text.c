/* SPDX-License-Identifier: Apache-2.0 */
#include "app/list_text.h"

#include "app/recipient_list.h"

#include <jansson.h>

/* What would be another line, or none, is no address. */
static bool is_one_line(struct slice address)
{
    for (size_t i = 0; i < address.length; i++) {
        if (address.data[i] < ' ' || address.data[i] == 0x7f) {
            return false;
        }
    }
    return address.length > 0 && address.data[0] != '#' && address.data[0] != ' ';
}

static const char *put_all(const json_t *addresses, struct buffer *text)
{
    for (size_t i = 0; i < json_array_size(addresses); i++) {
        const json_t *address = json_array_get(addresses, i);
        if (!json_is_string(address)) {
            return "the list has something else than addresses";
        }
        struct slice line = slice_make(json_string_value(address), json_string_length(address));
        if (!is_one_line(line)) {
            return "the list has something that is no address";
        }
        buffer_append(text, line);
        buffer_put_u8(text, '\n');
    }
    return text->failed ? "out of memory" : NULL;
}

const char *list_text_from_page(struct slice page, struct buffer *text)
{
    size_t at = 0;
    while (at < page.length && (page.data[at] <= ' ')) {
        at++;
    }
    if (at == page.length || (page.data[at] != '{' && page.data[at] != '[')) {
        buffer_append(text, page);
        return text->failed ? "out of memory" : NULL;
    }
    json_error_t error;
    json_t *root = json_loadb((const char *)page.data, page.length,
                              JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    const json_t *list = json_is_object(root) ? json_object_get(root, "recipients") : root;
    const char *why = root == NULL           ? "it is no JSON"
                      : !json_is_array(list) ? "it has no array \"recipients\""
                                             : put_all(list, text);
    json_decref(root);
    return why;
}

static const struct slice mail_scheme = SLICE_LITERAL("smtp:");

bool list_text_from_value(struct slice value, struct slice *ret_address)
{
    struct recipient_line line;
    const char *why;
    struct slice address = slice_trim(
        slice_starts_fold(value, mail_scheme) ? slice_skip(value, mail_scheme.length) : value);
    struct recipient_lines lines = {.rest = address, .is_end = true};
    /* What a list has before and behind an address on its line, an address has not. */
    if (!is_one_line(address) || !recipient_lines_next(&lines, &line, &why) ||
        line.local.length == 0 || lines.rest.length > 0 ||
        slice_find(address, '*') < address.length) {
        return false;
    }
    size_t whole = line.local.length + (line.domain.length > 0 ? line.domain.length + 1 : 0);
    *ret_address = address;
    return whole == address.length;
}

bool list_text_is_of_other_kind(struct slice value)
{
    size_t colon = slice_find(value, ':');
    for (size_t i = 0; i < colon; i++) {
        uint8_t c = value.data[i] | 0x20;
        if (!((c >= 'a' && c <= 'z') || (value.data[i] >= '0' && value.data[i] <= '9'))) {
            return false;
        }
    }
    return colon > 0 && colon < value.length && !slice_starts_fold(value, mail_scheme);
}
