/* SPDX-License-Identifier: Apache-2.0
 *
 * What the players of dialogues have in common: the script as lines, bytes for the core in pieces
 * of three kinds, escapes, and what the core has said and done, line by line against what is
 * expected.
 */
#ifndef HOLDFAST_TESTS_SCRIPT_H
#define HOLDFAST_TESTS_SCRIPT_H

#include "base/buffer.h"

/* How bytes reach the core: each line of the script by itself, adjacent ones as one piece, or byte
 * by byte. All must go the same way. */
enum script_mode { SCRIPT_LINES, SCRIPT_JOINED, SCRIPT_BYTES };

struct script {
    const char *path;
    unsigned line; /* of the script, for messages */
    enum script_mode mode;
    void (*input)(void *context, struct slice piece);
    void *context;
    struct slice rest;     /* of the script */
    struct buffer pending; /* given, not yet input */
    struct buffer wire;    /* what the core has sent, not yet expected */
    struct buffer events;  /* what it has told, as lines of text, not yet expected */
};

/* Plays each file in each mode by calling `play`, which begins with script_init(). Exit code. */
int script_main(int count, char **paths,
                void (*play)(const char *path, struct slice text, enum script_mode mode));

void script_init(struct script *script, const char *path, struct slice text, enum script_mode mode,
                 void (*input)(void *context, struct slice piece), void *context);
void script_done(struct script *script);
/* Names the line, shows what was not expected, and ends. */
_Noreturn void script_fail(const struct script *script, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The next line that is neither empty nor a comment. */
bool script_next(struct script *script, struct slice *ret_line);
/* The first word; the rest stays. */
struct slice script_word(struct slice *rest);
/* Appends text with the escapes \r \n \0 \\ \xHH resolved. */
void script_unescape(const struct script *script, struct buffer *to, struct slice text);
/* For the core; input at once unless lines are joined. */
void script_give(struct script *script, struct slice bytes);
void script_flush(struct script *script);
/* Takes the next line of `from`, which must be `wanted` and end in `end`. */
void script_expect(struct script *script, struct buffer *from, const char *end,
                   struct slice wanted);
/* The same; a trailing * matches any rest. */
void script_expect_like(struct script *script, struct buffer *from, const char *end,
                        struct slice pattern);

#endif
