/* SPDX-License-Identifier: Apache-2.0
 *
 * UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
 */
#ifndef HOLDFAST_BASE_UTF8_H
#define HOLDFAST_BASE_UTF8_H

#include "base/slice.h"

/* The length of the well-formed sequence at the front (1 to 4 bytes); 0 when there is none. */
size_t utf8_sequence(struct slice s);
bool utf8_is_valid(struct slice s);
/* No byte above 127. */
bool utf8_is_ascii(struct slice s);

/* What a well-formed sequence stands for. */
uint32_t utf8_code_point(struct slice sequence);
/* Control characters (C0, DEL, C1) could drive a terminal; marks and overrides of direction, and
 * separators of lines, could make one text look like another. All are below U+10000. */
bool utf8_is_unsafe(uint32_t code_point);
/* The words of strangers for a terminal: "?" for each unsafe character not in `keep` and for each
 * byte that is no UTF-8. Cut to `size`, at a whole sequence, with a NUL. Returns `buffer`. */
const char *utf8_clean(struct slice text, const char *keep, char *buffer, size_t size);

#endif
