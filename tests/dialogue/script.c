/* SPDX-License-Identifier: Apache-2.0 */
#include "dialogue/script.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 1 << 20 };

static bool read_file(const char *path, struct buffer *ret_text)
{
    char piece[4096];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return false;
    }
    for (size_t length; (length = fread(piece, 1, sizeof(piece), file)) > 0;) {
        buffer_append(ret_text, slice_make(piece, length));
    }
    bool good = !ferror(file) && !ret_text->failed;
    fclose(file);
    return good;
}

int script_main(int count, char **paths,
                void (*play)(const char *path, struct slice text, enum script_mode mode))
{
    if (count == 0) {
        fprintf(stderr, "name the scripts\n");
        return 2;
    }
    for (int i = 0; i < count; i++) {
        struct buffer text;
        buffer_init(&text, FILE_MAX);
        if (!read_file(paths[i], &text)) {
            perror(paths[i]);
            return 1;
        }
        for (enum script_mode mode = SCRIPT_LINES; mode <= SCRIPT_BYTES; mode++) {
            play(paths[i], buffer_slice(&text), mode);
        }
        buffer_done(&text);
    }
    return 0;
}

void script_init(struct script *script, const char *path, struct slice text, enum script_mode mode,
                 void (*input)(void *context, struct slice piece), void *context)
{
    *script = (struct script){
        .path = path, .mode = mode, .input = input, .context = context, .rest = text};
    buffer_init(&script->pending, 0);
    buffer_init(&script->wire, 0);
    buffer_init(&script->events, 0);
}

void script_done(struct script *script)
{
    buffer_done(&script->pending);
    buffer_done(&script->wire);
    buffer_done(&script->events);
}

void script_fail(const struct script *script, const char *format, ...)
{
    static const char *const modes[] = {"lines", "joined", "bytes"};
    va_list arguments;
    fprintf(stderr, "%s:%u (%s): ", script->path, script->line, modes[script->mode]);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nsent: %.*s\nevents: %.*s\n", SLICE_PRINT(buffer_slice(&script->wire)),
            SLICE_PRINT(buffer_slice(&script->events)));
    exit(1);
}

/* ---- reading ------------------------------------------------------------------------------- */

bool script_next(struct script *script, struct slice *ret_line)
{
    while (script->rest.length > 0) {
        size_t end = slice_find(script->rest, '\n');
        struct slice line = slice_take(script->rest, end);
        script->rest = slice_skip(script->rest, end + 1);
        script->line++;
        if (line.length > 0 && line.data[0] != '#') {
            *ret_line = line;
            return true;
        }
    }
    return false;
}

struct slice script_word(struct slice *rest)
{
    size_t end = slice_find(*rest, ' ');
    struct slice word = slice_take(*rest, end);
    *rest = slice_skip(*rest, end + 1);
    return word;
}

/* The byte that an escape means; *ret_length of its letters behind the backslash. */
static uint8_t escaped_byte(const struct script *script, struct slice text, size_t *ret_length)
{
    static const char letters[] = "rn0\\";
    static const char bytes[] = "\r\n\0\\";
    *ret_length = 1;
    const char *at = text.length == 0 ? NULL : memchr(letters, text.data[0], sizeof(letters) - 1);
    if (at != NULL) {
        return (uint8_t)bytes[at - letters];
    }
    if (text.length < 3 || text.data[0] != 'x') {
        script_fail(script, "bad escape");
    }
    *ret_length = 3;
    return (uint8_t)strtoul((const char[]){(char)text.data[1], (char)text.data[2], '\0'}, NULL, 16);
}

void script_unescape(const struct script *script, struct buffer *to, struct slice text)
{
    while (text.length > 0) {
        uint8_t byte = text.data[0];
        text = slice_skip(text, 1);
        if (byte == '\\') {
            size_t length;
            byte = escaped_byte(script, text, &length);
            text = slice_skip(text, length);
        }
        buffer_put_u8(to, byte);
    }
}

/* ---- both directions ------------------------------------------------------------------------- */

void script_flush(struct script *script)
{
    struct slice all = buffer_slice(&script->pending);
    size_t piece = script->mode == SCRIPT_BYTES ? 1 : all.length;
    for (; all.length > 0; all = slice_skip(all, piece)) {
        script->input(script->context, slice_take(all, piece));
    }
    buffer_clear(&script->pending);
}

void script_give(struct script *script, struct slice bytes)
{
    buffer_append(&script->pending, bytes);
    if (script->mode != SCRIPT_JOINED) {
        script_flush(script);
    }
}

static void expect(struct script *script, struct buffer *from, const char *end, struct slice wanted,
                   bool any_rest)
{
    struct slice all = buffer_slice(from);
    size_t mark = strlen(end);
    size_t length = slice_find(all, '\n') + 1;
    if (length > all.length || length < mark) {
        script_fail(script, "expected \"%.*s\", nothing came", SLICE_PRINT(wanted));
    }
    struct slice line = slice_take(all, length - mark);
    if (!slice_equal(any_rest ? slice_take(line, wanted.length) : line, wanted) ||
        memcmp(all.data + length - mark, end, mark) != 0) {
        script_fail(script, "expected \"%.*s\"", SLICE_PRINT(wanted));
    }
    buffer_consume(from, length);
}

void script_expect(struct script *script, struct buffer *from, const char *end, struct slice wanted)
{
    expect(script, from, end, wanted, false);
}

void script_expect_like(struct script *script, struct buffer *from, const char *end,
                        struct slice pattern)
{
    bool any_rest = pattern.length > 0 && pattern.data[pattern.length - 1] == '*';
    pattern.length -= any_rest;
    expect(script, from, end, pattern, any_rest);
}
