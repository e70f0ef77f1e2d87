/* SPDX-License-Identifier: Apache-2.0
 *
 * Lists that go on in files.
 */
#include "app/settings_internal.h"

static const struct slice prefix = SLICE_LITERAL("file:");

static struct slice take_line(struct slice *rest, uint32_t *line)
{
    struct slice text = slice_take(*rest, slice_find(*rest, '\n'));
    *rest = slice_skip(*rest, text.length + 1);
    (*line)++;
    return text;
}

/* The next line that says something. False: there is none. */
static bool next_line(struct slice *rest, uint32_t *line, struct slice *ret_text)
{
    while (rest->length > 0) {
        struct slice text = take_line(rest, line);
        text = slice_take(text, slice_find(text, '#'));
        *ret_text = slice_trim(slice_take(text, slice_find(text, '\r')));
        if (ret_text->length > 0) {
            return true;
        }
    }
    return false;
}

/* In a password '#' is no comment, nor a CR an end. */
bool settings_user_line(struct slice *rest, uint32_t *line, struct slice *ret_text)
{
    while (rest->length > 0) {
        struct slice text = take_line(rest, line);
        bool cr = slice_find_last(text, '\r') + 1 == text.length;
        *ret_text = slice_trim(slice_take(text, text.length - cr));
        if (ret_text->length > 0 && ret_text->data[0] != '#') {
            return true;
        }
    }
    return false;
}

uint32_t settings_count(struct slice text, char byte)
{
    uint32_t count = 0;
    for (size_t i = 0; i < text.length; i++) {
        count += text.data[i] == (uint8_t)byte;
    }
    return count;
}

/* Without `into` only counts. */
static uint32_t take_file(struct settings *settings, uint32_t source, struct value *into)
{
    struct slice rest = settings->sources[source].content, text;
    uint32_t count = 0, line = 0;
    while (next_line(&rest, &line, &text)) {
        if (into != NULL) {
            into[count] = (struct value){text, {source, line}};
        }
        count++;
    }
    return count;
}

enum { PLAIN = UINT32_MAX, UNREAD = UINT32_MAX - 1 };

const struct value *settings_list(struct settings *settings, const struct value *values,
                                  uint32_t count, uint32_t *ret_count, bool *ret_good)
{
    uint32_t *sources = settings_allocate_tree(settings, count, sizeof(*sources));
    uint32_t room = 0, taken = 0;
    bool any = false;
    *ret_good = true;
    for (uint32_t i = 0; sources != NULL && i < count; i++) {
        bool is_file = slice_starts_fold(values[i].text, prefix);
        any = any || is_file;
        sources[i] = PLAIN;
        if (is_file && !settings_source(settings, &values[i].at,
                                        slice_skip(values[i].text, prefix.length), &sources[i])) {
            sources[i] = UNREAD;
            *ret_good = false;
        }
        room += !is_file ? 1 : sources[i] == UNREAD ? 0 : take_file(settings, sources[i], NULL);
    }
    *ret_count = sources == NULL ? 0 : count;
    if (!any) {
        return values;
    }
    struct value *all = settings_allocate_tree(settings, room, sizeof(*all));
    for (uint32_t i = 0; all != NULL && i < count; i++) {
        if (sources[i] == PLAIN) {
            all[taken++] = values[i];
        } else if (sources[i] != UNREAD) {
            taken += take_file(settings, sources[i], &all[taken]);
        }
    }
    *ret_count = taken;
    return all;
}
