/* SPDX-License-Identifier: Apache-2.0
 *
 * Replies of an SMTP or LMTP server (RFC 5321 4.2, RFC 2034), parsed from any split of the bytes.
 *
 * Strict and bounded: a line ends in CRLF and holds no other CR, LF or NUL; the lines of one reply
 * have one code; lines, their length and their number have limits, so that a hostile server can
 * neither fill memory nor make us take a part of its text for a reply.
 */
#ifndef HOLDFAST_PROTO_SMTP_REPLY_H
#define HOLDFAST_PROTO_SMTP_REPLY_H

#include "base/slice.h"

enum {
    SMTP_REPLY_LINE_MAX = 2048, /* bytes with CRLF; RFC 5321 allows 512, some servers write more */
    SMTP_REPLY_LINES_MAX = 128, /* lines of one reply: stops endless multi-line replies */
    SMTP_REPLY_TEXT_MAX = 512,  /* bytes of text kept */
};

struct smtp_reply {
    uint16_t code;       /* 200 to 599 */
    uint8_t enhanced[3]; /* RFC 3463; class 0: none; subject and detail above 255 are clamped */
    struct slice text;   /* without codes, lines joined by a blank; well-formed UTF-8 without
                            control characters */
};

enum smtp_reply_status {
    SMTP_REPLY_MORE,     /* the input is used up within a reply or between two */
    SMTP_REPLY_LINE,     /* one more line, others follow */
    SMTP_REPLY_COMPLETE, /* the last line */
    SMTP_REPLY_BROKEN,   /* no reply, or over a limit; the connection is of no further use */
};

struct smtp_reply_parser {
    size_t held; /* bytes in `line`: a line begun */
    uint32_t lines;
    uint16_t code;
    uint8_t enhanced[3];
    bool complete;
    const char *fault;
    size_t text_length;
    uint8_t line[SMTP_REPLY_LINE_MAX];
    uint8_t text[SMTP_REPLY_TEXT_MAX];
};

void smtp_reply_parser_init(struct smtp_reply_parser *parser);
/* Takes bytes from the front of *input, at most to the end of one line. With LINE and COMPLETE,
 * *ret_line is what follows the code and its separator, valid while parser and input are. */
enum smtp_reply_status smtp_reply_parse(struct smtp_reply_parser *parser, struct slice *input,
                                        struct slice *ret_line);
/* The reply that was just COMPLETE; the text is valid until the next smtp_reply_parse(). */
void smtp_reply_get(const struct smtp_reply_parser *parser, struct smtp_reply *ret_reply);
/* After BROKEN: why, in words ("a NUL in a reply"); static. */
const char *smtp_reply_fault(const struct smtp_reply_parser *parser);
/* Bytes of a begun reply are waiting for their rest. */
bool smtp_reply_is_begun(const struct smtp_reply_parser *parser);

#endif
