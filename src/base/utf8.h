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

#endif
