/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes as a gzip file (RFC 1952), by zlib.
 */
#ifndef HOLDFAST_SERVICE_GZIP_H
#define HOLDFAST_SERVICE_GZIP_H

#include "base/buffer.h"

/* Appends. ERROR_MEMORY, ERROR_LIMIT of the buffer. */
enum error gzip(struct slice bytes, struct buffer *ret_packed) MUST_CHECK;

#endif
