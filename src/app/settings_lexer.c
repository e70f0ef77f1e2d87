/* SPDX-License-Identifier: Apache-2.0
 *
 * Tokens of the configuration. A word is a run of bytes without blanks and without { } = , " #;
 * a string stands in double quotes, on one line, with \" \\ \n \t; a comment goes from # to the end
 * of the line.
 */
#include "app/settings_internal.h"

void lexer_init(struct lexer *lexer, struct slice text, struct arena *arena)
{
    static const uint8_t mark[3] = {0xef, 0xbb, 0xbf}; /* some editors put it in front of UTF-8 */
    if (text.length >= 3 && memcmp(text.data, mark, 3) == 0) {
        text = slice_skip(text, 3);
    }
    *lexer = (struct lexer){.rest = text, .line = 1, .line_start = true, .arena = arena};
}

static void skip_line(struct lexer *lexer)
{
    lexer->rest = slice_skip(lexer->rest, slice_find(lexer->rest, '\n'));
}

static void skip_blanks(struct lexer *lexer)
{
    while (lexer->rest.length > 0) {
        uint8_t c = lexer->rest.data[0];
        if (c == '#') {
            skip_line(lexer);
            continue;
        }
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n') {
            return;
        }
        if (c == '\n') {
            lexer->line++;
            lexer->line_start = true;
        }
        lexer->rest = slice_skip(lexer->rest, 1);
    }
}

static bool in_word(uint8_t c)
{
    return c > ' ' && c != 0x7f && strchr("{}=,\"#", c) == NULL;
}

static struct token bad(struct lexer *lexer, struct token token, const char *why)
{
    skip_line(lexer);
    token.kind = TOKEN_BAD;
    token.text = slice_from_text(why);
    return token;
}

/* The length of the string's inside, or SIZE_MAX if it does not end on its line. */
static size_t string_length(struct slice inside, bool *ret_escapes)
{
    for (size_t i = 0; i < inside.length; i++) {
        uint8_t c = inside.data[i];
        if (c == '"') {
            return i;
        }
        if (c == '\n') {
            break;
        }
        if (c == '\\') {
            *ret_escapes = true;
            i++;
            if (i < inside.length && inside.data[i] == '\n') {
                break;
            }
        }
    }
    return SIZE_MAX;
}

static const char *unescape(struct slice inside, uint8_t *to, size_t *ret_length)
{
    size_t length = 0;
    for (size_t i = 0; i < inside.length; i++) {
        uint8_t c = inside.data[i];
        if (c == '\\') {
            i++; /* string_length() has seen that one follows */
            switch (inside.data[i]) {
            case '"':
            case '\\':
                c = inside.data[i];
                break;
            case 'n':
                c = '\n';
                break;
            case 't':
                c = '\t';
                break;
            default:
                return "unknown escape in a string; there are \\\" \\\\ \\n \\t";
            }
        }
        to[length++] = c;
    }
    *ret_length = length;
    return NULL;
}

static struct token next_string(struct lexer *lexer, struct token token)
{
    struct slice inside = slice_skip(lexer->rest, 1);
    bool escapes = false;
    size_t length = string_length(inside, &escapes);
    if (length == SIZE_MAX) {
        return bad(lexer, token, "this string is not closed; '\"' is missing");
    }
    lexer->rest = slice_skip(inside, length + 1);
    token.kind = TOKEN_STRING;
    token.text = slice_take(inside, length);
    for (size_t i = 0; i < length; i++) {
        if ((inside.data[i] < ' ' && inside.data[i] != '\t') || inside.data[i] == 0x7f) {
            return bad(lexer, token, "control character in a string");
        }
    }
    if (escapes) {
        uint8_t *copy = arena_allocate(lexer->arena, length + 1);
        if (copy == NULL) {
            return bad(lexer, token, "out of memory");
        }
        const char *why = unescape(token.text, copy, &length);
        if (why != NULL) {
            return bad(lexer, token, why);
        }
        token.text = slice_make(copy, length);
    }
    return token;
}

static struct token next_word(struct lexer *lexer, struct token token)
{
    size_t length = 0;
    while (length < lexer->rest.length && in_word(lexer->rest.data[length])) {
        length++;
    }
    uint8_t first = lexer->rest.data[0];
    if (length == 0) {
        return bad(lexer, token, "control character");
    }
    if (first == '\'') {
        return bad(lexer, token, "strings stand in double quotes");
    }
    token.kind = TOKEN_WORD;
    token.text = slice_take(lexer->rest, length);
    if (token.text.data[length - 1] == ';') {
        return bad(lexer, token, "';' is not used here; the next key or line ends a value");
    }
    lexer->rest = slice_skip(lexer->rest, length);
    return token;
}

struct token lexer_next(struct lexer *lexer)
{
    skip_blanks(lexer);
    struct token token = {
        .kind = TOKEN_END, .line = lexer->line, .first = lexer->line_start, .text = SLICE_EMPTY};
    if (lexer->rest.length == 0) {
        return token;
    }
    lexer->line_start = false;
    switch (lexer->rest.data[0]) {
    case '{':
        token.kind = TOKEN_OPEN;
        break;
    case '}':
        token.kind = TOKEN_CLOSE;
        break;
    case '=':
        token.kind = TOKEN_EQUALS;
        break;
    case ',':
        token.kind = TOKEN_COMMA;
        break;
    case '"':
        return next_string(lexer, token);
    default:
        return next_word(lexer, token);
    }
    token.text = slice_take(lexer->rest, 1);
    lexer->rest = slice_skip(lexer->rest, 1);
    return token;
}
