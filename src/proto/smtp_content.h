/* SPDX-License-Identifier: Apache-2.0
 *
 * Message content on its way in: finds the end of DATA, undoes dot-stuffing, gives every line one
 * kind of end (R10), measures, and looks at the header as it passes.
 *
 *   - Only CR LF "." CR LF ends DATA (RFC 5321 section 4.5.2), at its very start also "." CR LF.
 *   - A bare LF becomes CR LF, a bare CR a space; counted. A dot that begins a line is removed
 *     whatever ended the line before, but only after a true CR LF can it end the content.
 *   - Content that does not end a line (BDAT) gets a last CR LF.
 *   - All other bytes, NUL among them, pass as they are.
 *
 * It works in runs that point into the input wherever nothing is to be changed, so ordinary mail
 * is never copied here. What it keeps does not grow with the content.
 */
#ifndef HOLDFAST_PROTO_SMTP_CONTENT_H
#define HOLDFAST_PROTO_SMTP_CONTENT_H

#include "proto/smtp_header.h"

struct smtp_content_limits {
    uint64_t bytes;        /* of the whole content; 0: none */
    uint32_t line_bytes;   /* without CR LF; 0: none */
    uint32_t header_bytes; /* 0: none */
    uint32_t hops;         /* Received fields; 0: none */
    bool reject_bare_newline;
    struct slice own_host; /* see smtp_header; must outlive the content */
};

/* Why content is refused. Of several the first in this order is told, at the end the same one
 * however the input was cut. */
enum smtp_content_fault {
    SMTP_CONTENT_GOOD,
    SMTP_CONTENT_TOO_LARGE,
    SMTP_CONTENT_LINE_TOO_LONG,
    SMTP_CONTENT_HEADER_TOO_LARGE,
    SMTP_CONTENT_TOO_MANY_HOPS,
    SMTP_CONTENT_BARE_NEWLINE,
};

struct smtp_content {
    struct smtp_content_limits limits;
    bool is_dotted; /* DATA; else BDAT, where dots mean nothing */
    uint8_t state;
    enum smtp_content_fault fault;
    bool has_8bit;
    uint64_t length;        /* bytes given out */
    uint64_t line_length;   /* of the current line */
    uint64_t bare_newlines; /* bare CR and bare LF */
    struct smtp_header header;
};

enum smtp_content_result {
    SMTP_CONTENT_MORE, /* the input is used up */
    SMTP_CONTENT_RUN,  /* *ret_run holds the next bytes of the content */
    SMTP_CONTENT_END,  /* the end of DATA; the rest of the input is not content */
};

void smtp_content_init(struct smtp_content *content, const struct smtp_content_limits *limits,
                       bool is_dotted);
/* Takes from the front of *input. A run is valid as long as the input. After a fault no more runs
 * are given, but the end is still found. */
enum smtp_content_result smtp_content_next(struct smtp_content *content, struct slice *input,
                                           struct slice *ret_run);
/* The last BDAT chunk has passed: what must still be added, at most 3 bytes, static. */
struct slice smtp_content_finish(struct smtp_content *content);
/* Length of the header block; the whole content when it has no end. */
uint64_t smtp_content_header_length(const struct smtp_content *content);

#endif
