/* SPDX-License-Identifier: Apache-2.0
 *
 * One end of a stream between two children: frames as of service/control_frame.h on a loop. The
 * stream may be replaced when the other side has been started again.
 */
#ifndef HOLDFAST_APP_FRAME_STREAM_H
#define HOLDFAST_APP_FRAME_STREAM_H

#include "service/control_frame.h"
#include "sys/loop.h"

struct frame_stream;

struct frame_handlers {
    void *context;
    void (*take)(void *context, const json_t *frame); /* valid during the call */
    void (*lost)(void *context); /* it has ended, or is being replaced; may be NULL */
};

/* Without a stream yet. NULL: memory. */
struct frame_stream *frame_stream_new(struct loop *loop, const struct frame_handlers *handlers);
void frame_stream_free(struct frame_stream *stream); /* NULL is allowed; lost is not called */
/* Takes the descriptor over; -1: none. */
void frame_stream_set(struct frame_stream *stream, int fd);
/* False: there is no stream, or it is lost with this. */
bool frame_stream_send(struct frame_stream *stream, const json_t *frame);
bool frame_stream_is_open(const struct frame_stream *stream);

#endif
