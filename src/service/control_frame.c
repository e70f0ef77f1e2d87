/* SPDX-License-Identifier: Apache-2.0 */
#include "service/control_frame.h"
#include "base/utf8.h"

#include <assert.h>

enum {
    PREFIX = 4,
    FRAME_MIN = 2,        /* "{}" */
    READ_STEP = 16 << 10, /* room offered before the length is known */
};

void control_reader_init(struct control_reader *reader)
{
    *reader = (struct control_reader){0};
    buffer_init(&reader->bytes, PREFIX + CONTROL_FRAME_MAX);
}

void control_reader_done(struct control_reader *reader)
{
    buffer_done(&reader->bytes);
    reader->taken = 0;
}

static uint32_t frame_length(const uint8_t *prefix)
{
    return (uint32_t)prefix[0] << 24 | (uint32_t)prefix[1] << 16 | (uint32_t)prefix[2] << 8 |
           prefix[3];
}

void *control_reader_space(struct control_reader *reader, size_t *ret_size)
{
    struct buffer *bytes = &reader->bytes;
    buffer_consume(bytes, reader->taken);
    reader->taken = 0;
    size_t want = READ_STEP;
    if (bytes->length >= PREFIX) {
        /* Memory is given as it is filled, so that a length alone makes nobody allocate. */
        size_t whole = PREFIX + (size_t)frame_length(bytes->data);
        size_t missing = whole > bytes->length ? whole - bytes->length : 1;
        want = missing < bytes->length + READ_STEP ? missing : bytes->length + READ_STEP;
    }
    if (want > bytes->limit - bytes->length) {
        want = bytes->limit - bytes->length;
    }
    assert(want > 0); /* else a whole frame is here and was not asked for */
    if (buffer_reserve(bytes, want) != ERROR_NONE) {
        return NULL;
    }
    *ret_size = bytes->capacity - bytes->length;
    return bytes->data + bytes->length;
}

void control_reader_filled(struct control_reader *reader, size_t length)
{
    assert(length <= reader->bytes.capacity - reader->bytes.length);
    reader->bytes.length += length;
}

enum error control_reader_next(struct control_reader *reader, json_t **ret_object)
{
    struct slice rest = slice_skip(buffer_slice(&reader->bytes), reader->taken);
    if (rest.length < PREFIX) {
        return ERROR_AGAIN;
    }
    uint32_t length = frame_length(rest.data);
    if (length < FRAME_MIN || length > CONTROL_FRAME_MAX) {
        return ERROR_LIMIT;
    }
    if (rest.length - PREFIX < length) {
        return ERROR_AGAIN;
    }
    json_error_t why;
    json_t *object =
        json_loadb((const char *)rest.data + PREFIX, length, JSON_REJECT_DUPLICATES, &why);
    if (object == NULL) {
        return json_error_code(&why) == json_error_out_of_memory ? ERROR_MEMORY : ERROR_INVALID;
    }
    if (!json_is_object(object)) {
        json_decref(object);
        return ERROR_INVALID;
    }
    reader->taken += PREFIX + length;
    *ret_object = object;
    return ERROR_NONE;
}

static int append_piece(const char *piece, size_t size, void *data)
{
    struct buffer *out = data;
    buffer_append(out, slice_make(piece, size));
    return out->failed ? -1 : 0;
}

enum error control_put(struct buffer *out, const json_t *object)
{
    assert(json_is_object(object));
    size_t start = out->length;
    buffer_append(out, slice_make((const uint8_t[PREFIX]){0}, PREFIX));
    if (out->failed || json_dump_callback(object, append_piece, out, JSON_COMPACT) != 0) {
        out->length = start;
        return out->failed && out->limit != 0 ? ERROR_LIMIT : ERROR_MEMORY;
    }
    size_t length = out->length - start - PREFIX;
    if (length > CONTROL_FRAME_MAX) {
        out->length = start;
        return ERROR_LIMIT;
    }
    for (int i = 0; i < PREFIX; i++) {
        out->data[start + (size_t)i] = (uint8_t)(length >> (24 - 8 * i));
    }
    return ERROR_NONE;
}

/* {key: value} as a frame; the reference is taken over. */
static enum error put_member(struct buffer *out, const char *key, json_t *value)
{
    json_t *object = json_object();
    if (object == NULL || value == NULL) {
        json_decref(object);
        json_decref(value);
        return ERROR_MEMORY;
    }
    enum error error = ERROR_MEMORY;
    if (json_object_set_new(object, key, value) == 0) {
        error = control_put(out, object);
    }
    json_decref(object);
    return error;
}

enum error control_put_row(struct buffer *out, json_t *row)
{
    return put_member(out, "row", row);
}

enum error control_put_more(struct buffer *out, json_t *more)
{
    return put_member(out, "more", more);
}

enum error control_put_progress(struct buffer *out, uint64_t done, uint64_t all)
{
    return put_member(out, "progress",
                      json_pack("{sIsI}", "done", (json_int_t)done, "all", (json_int_t)all));
}

enum error control_put_end(struct buffer *out, enum control_exit code, const char *error,
                           bool again)
{
    json_t *end = json_pack("{si}", "exit", (int)code);
    bool good = end != NULL;
    if (good && error != NULL) {
        good = json_object_set_new(end, "error", control_string(slice_from_text(error))) == 0;
    }
    if (good && again) {
        good = json_object_set_new(end, "again", json_true()) == 0;
    }
    if (!good) {
        json_decref(end);
        end = NULL;
    }
    return put_member(out, "end", end);
}

/* The length of what JSON can hold at the front: a UTF-8 sequence that is not NUL; or 0. */
static size_t good_sequence(struct slice s)
{
    return s.data[0] == 0 ? 0 : utf8_sequence(s);
}

static json_t *repaired_string(struct slice bytes)
{
    struct buffer text;
    buffer_init(&text, 0);
    while (bytes.length > 0) {
        size_t length = good_sequence(bytes);
        buffer_append(&text,
                      length > 0 ? slice_take(bytes, length) : SLICE_LITERAL("\xef\xbf\xbd"));
        bytes = slice_skip(bytes, length > 0 ? length : 1);
    }
    json_t *string = text.failed ? NULL : json_stringn((const char *)text.data, text.length);
    buffer_done(&text);
    return string;
}

json_t *control_string(struct slice bytes)
{
    if (bytes.length == 0) {
        return json_string("");
    }
    for (struct slice rest = bytes; rest.length > 0;) {
        size_t length = good_sequence(rest);
        if (length == 0) {
            return repaired_string(bytes);
        }
        rest = slice_skip(rest, length);
    }
    return json_stringn_nocheck((const char *)bytes.data, bytes.length);
}

json_t *control_mailbox(struct slice local, struct slice domain)
{
    struct buffer address;
    buffer_init(&address, 0);
    buffer_append(&address, local);
    buffer_put_u8(&address, '@');
    buffer_append(&address, domain);
    json_t *text = address.failed ? NULL : control_string(buffer_slice(&address));
    buffer_done(&address);
    return text;
}

json_t *control_string_or_null(struct slice bytes)
{
    return bytes.length == 0 ? json_null() : control_string(bytes);
}
