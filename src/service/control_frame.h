/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames of the control protocol (service/control.h), for both sides: a u32 length (big-endian, 2
 * to CONTROL_FRAME_MAX) and that many bytes of JSON, one object. Bytes in, objects out; no
 * descriptor. Bounded: a reader never holds more than CONTROL_FRAME_MAX + 4 bytes.
 */
#ifndef HOLDFAST_SERVICE_CONTROL_FRAME_H
#define HOLDFAST_SERVICE_CONTROL_FRAME_H

#include "base/buffer.h"
#include "service/control.h"

#include <jansson.h>

struct control_reader {
    struct buffer bytes;
    size_t taken; /* bytes at the front that earlier frames used */
};

void control_reader_init(struct control_reader *reader);
void control_reader_done(struct control_reader *reader);
/* Where to put what comes next, and how much fits, at least 1 byte once control_reader_next() has
 * said ERROR_AGAIN. NULL: memory. Say how much came with control_reader_filled(). */
void *control_reader_space(struct control_reader *reader, size_t *ret_size);
void control_reader_filled(struct control_reader *reader, size_t length);
/* The next object, owned by the caller (json_decref). ERROR_AGAIN: not all there. ERROR_LIMIT: the
 * length is out of bounds; ERROR_INVALID: no JSON object, or a name twice; ERROR_MEMORY. After any
 * of the last three the stream cannot be followed: close it. */
enum error control_reader_next(struct control_reader *reader, json_t **ret_object) MUST_CHECK;

/* Append one frame; on failure `out` is as before (its `failed` may be set). ERROR_LIMIT: the
 * object is too large for a frame, or `out` for its own limit. */
enum error control_put(struct buffer *out, const json_t *object) MUST_CHECK;
/* {"row":row}, {"more":more}; the reference is taken over. A NULL is ERROR_MEMORY. */
enum error control_put_row(struct buffer *out, json_t *row) MUST_CHECK;
enum error control_put_more(struct buffer *out, json_t *more) MUST_CHECK;
enum error control_put_progress(struct buffer *out, uint64_t done, uint64_t all) MUST_CHECK;
/* `error` may be NULL. `again`: the same request may do in a moment. */
enum error control_put_end(struct buffer *out, enum control_exit code, const char *error,
                           bool again) MUST_CHECK;

/* A JSON string of any bytes: what is not UTF-8, and NUL, becomes U+FFFD. NULL: memory. */
json_t *control_string(struct slice bytes);
/* "local@domain", likewise. */
json_t *control_mailbox(struct slice local, struct slice domain);
/* As control_string(), null when empty. */
json_t *control_string_or_null(struct slice bytes);

#endif
