/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/header_list.h"

#include <stdlib.h>

/* With its last CRLF; continuation lines belong to it. */
static size_t field_length(struct slice block)
{
    size_t length = 0;
    for (;;) {
        size_t end = slice_find(slice_skip(block, length), '\n');
        length += end;
        if (length == block.length) {
            return length;
        }
        length++;
        if (length == block.length || (block.data[length] != ' ' && block.data[length] != '\t')) {
            return length;
        }
    }
}

static struct slice field_name(struct slice whole)
{
    struct slice name = slice_take(whole, slice_find(whole, ':'));
    if (name.length == whole.length) {
        return SLICE_EMPTY;
    }
    while (name.length > 0 &&
           (name.data[name.length - 1] == ' ' || name.data[name.length - 1] == '\t')) {
        name.length--;
    }
    for (size_t i = 0; i < name.length; i++) {
        if (name.data[i] <= ' ' || name.data[i] == 0x7f) {
            return SLICE_EMPTY;
        }
    }
    return name;
}

struct slice header_field_value(const struct header_field *field)
{
    struct slice value = slice_skip(field->whole, slice_find(field->whole, ':') + 1);
    while (value.length > 0 &&
           (value.data[value.length - 1] == '\n' || value.data[value.length - 1] == '\r')) {
        value.length--;
    }
    return value;
}

const struct header_field *header_list_find(const struct header_list *list, struct slice name)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (slice_equal_fold(list->fields[i].name, name)) {
            return &list->fields[i];
        }
    }
    return NULL;
}

/* ---- changes --------------------------------------------------------------------------------- */

static bool put(struct header_list *list, uint32_t at, struct header_field field)
{
    if (field.whole.length > list->most || list->bytes > list->most - field.whole.length) {
        return false;
    }
    if (list->count == list->room) {
        uint32_t room = list->room == 0 ? 32 : list->room * 2;
        struct header_field *more = realloc(list->fields, room * sizeof(*more));
        if (more == NULL) {
            return false;
        }
        list->fields = more;
        list->room = room;
    }
    memmove(&list->fields[at + 1], &list->fields[at], (list->count - at) * sizeof(field));
    list->fields[at] = field;
    list->count++;
    list->bytes += field.whole.length;
    return true;
}

static void remove_at(struct header_list *list, uint32_t at)
{
    list->bytes -= list->fields[at].whole.length;
    list->count--;
    memmove(&list->fields[at], &list->fields[at + 1], (list->count - at) * sizeof(list->fields[0]));
}

bool header_list_take(struct header_list *list, struct slice block, uint64_t most,
                      struct arena *arena)
{
    *list = (struct header_list){.arena = arena, .most = most};
    while (block.length > 0) {
        if (block.data[0] == '\r' || block.data[0] == '\n') {
            list->tail = block;
            return true;
        }
        struct slice whole = slice_take(block, field_length(block));
        if (!put(list, list->count,
                 (struct header_field){.whole = whole, .name = field_name(whole)})) {
            return false;
        }
        block = slice_skip(block, whole.length);
    }
    return true;
}

bool header_list_put_own(struct header_list *list, struct slice whole)
{
    struct header_field field = {.whole = arena_copy(list->arena, whole), .is_own = true};
    field.name = slice_take(field.whole, slice_find(field.whole, ':'));
    list->most += whole.length;
    return field.whole.data != NULL && put(list, 0, field);
}

void header_list_done(struct header_list *list)
{
    free(list->fields);
    *list = (struct header_list){0};
}

/* "name: value" with each line end a CRLF. False: memory. */
static bool make(struct header_list *list, struct slice name, struct slice value, bool needs_blank,
                 struct header_field *ret_field)
{
    struct buffer text;
    buffer_init(&text, 0);
    buffer_append(&text, name);
    buffer_append_text(&text, needs_blank ? ": " : ":");
    while (value.length > 0) {
        size_t end = slice_find(value, '\n');
        struct slice line = slice_take(value, end);
        bool folds = end < value.length;
        if (line.length > 0 && line.data[line.length - 1] == '\r') {
            line.length--;
        }
        buffer_append(&text, line);
        if (folds) {
            buffer_append_text(&text, "\r\n");
        }
        value = slice_skip(value, end + 1);
    }
    buffer_append_text(&text, "\r\n");
    *ret_field = (struct header_field){.is_added = true};
    if (!text.failed) {
        ret_field->whole = arena_copy(list->arena, buffer_slice(&text));
        ret_field->name = slice_take(ret_field->whole, name.length);
    }
    buffer_done(&text);
    return ret_field->whole.data != NULL;
}

bool header_list_insert(struct header_list *list, uint32_t index, struct slice name,
                        struct slice value, bool needs_blank)
{
    struct header_field field;
    list->changed = true;
    return make(list, name, value, needs_blank, &field) &&
           put(list, index < list->count ? index : list->count, field);
}

bool header_list_add(struct header_list *list, struct slice name, struct slice value,
                     bool needs_blank)
{
    return header_list_insert(list, list->count, name, value, needs_blank);
}

bool header_list_change(struct header_list *list, uint32_t index, struct slice name,
                        struct slice value, bool needs_blank)
{
    uint32_t left = index == 0 ? 1 : index;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct header_field *field = &list->fields[i];
        if (field->is_own || !slice_equal_fold(field->name, name) || --left > 0) {
            continue;
        }
        list->changed = true;
        struct slice own = list->fields[i].name;
        remove_at(list, i);
        return value.length == 0 || header_list_insert(list, i, own, value, needs_blank);
    }
    return value.length == 0 || header_list_add(list, name, value, needs_blank);
}
