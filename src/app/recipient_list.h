/* SPDX-License-Identifier: Apache-2.0
 *
 * A list of recipients as people and programs write it: one address a
 * line, whatever stands behind it on the line being ignored, so that lists made for other mail
 * servers do; "@domain" for everybody there; "#" begins a comment. Pure: bytes in, addresses out.
 */
#ifndef HOLDFAST_APP_RECIPIENT_LIST_H
#define HOLDFAST_APP_RECIPIENT_LIST_H

#include "relay/config.h"

enum {
    RECIPIENT_LINE_MAX = 1024,
    RECIPIENT_LIST_BYTES_MAX = 1 << 30,
    RECIPIENT_PROBLEM_MAX = 200,
};

struct recipient_line {
    struct slice local;  /* empty: everybody of the domain */
    struct slice domain; /* empty: none is written */
};

struct recipient_lines {
    struct slice rest;
    uint32_t line; /* of the one that was given last */
    bool is_end;   /* `rest` is the end of the list: its last line may lack a newline */
};

/* The next that holds an address. False: the rest is no whole line any more (it stays in `rest`),
 * or *ret_why, a phrase, says what is wrong with the line; else that is NULL. */
bool recipient_lines_next(struct recipient_lines *lines, struct recipient_line *ret_line,
                          const char **ret_why);

/* The domain of a line in a list of this block, in *ret_domain. NULL, or why there is none. */
const char *recipient_line_domain(const struct route_config *route,
                                  const struct recipient_line *line, struct slice *ret_domain);

#endif
