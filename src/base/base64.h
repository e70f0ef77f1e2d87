/* SPDX-License-Identifier: Apache-2.0
 *
 * Base64 (RFC 4648 section 4), with padding, without line breaks.
 */
#ifndef HOLDFAST_BASE_BASE64_H
#define HOLDFAST_BASE_BASE64_H

#include "base/buffer.h"

/* Characters that `length` bytes take. */
#define BASE64_LENGTH(length) (((length) + 2) / 3 * 4)

/* Appends; buffer->failed tells if there was no room. */
void base64_encode(struct buffer *buffer, struct slice bytes);
/* Appends. Strict: whole groups of four, padding where it belongs, unused bits zero.
 * ERROR_INVALID: nothing was appended. */
enum error base64_decode(struct buffer *buffer, struct slice text) MUST_CHECK;

#endif
