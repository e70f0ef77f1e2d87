/* SPDX-License-Identifier: Apache-2.0 */
#include "app/frame_stream.h"

#include "sys/net.h"

#include <stdlib.h>

enum { OUT_MAX = 4 << 20 }; /* bytes that the other side has not read */

struct frame_stream {
    struct loop *loop;
    struct frame_handlers handlers;
    int fd;
    struct loop_watch *watch;
    struct control_reader reader;
    struct buffer out;
};

static void drop(struct frame_stream *stream)
{
    loop_watch_free(stream->watch);
    stream->watch = NULL;
    if (stream->fd >= 0) {
        net_close(stream->fd);
    }
    stream->fd = -1;
    control_reader_done(&stream->reader);
    control_reader_init(&stream->reader);
    buffer_clear(&stream->out);
}

static void lose(struct frame_stream *stream)
{
    bool was_open = stream->fd >= 0;
    drop(stream);
    if (was_open && stream->handlers.lost != NULL) {
        stream->handlers.lost(stream->handlers.context);
    }
}

static void send_out(struct frame_stream *stream)
{
    while (stream->out.length > 0) {
        size_t sent;
        enum error error = net_send(stream->fd, buffer_slice(&stream->out), &sent);
        if (error == ERROR_AGAIN) {
            break;
        }
        if (error != ERROR_NONE) {
            lose(stream);
            return;
        }
        buffer_consume(&stream->out, sent);
    }
    loop_watch_set(stream->watch, LOOP_READ | (stream->out.length > 0 ? LOOP_WRITE : 0U));
}

/* Until there is no more, or the stream is not the one that it was. */
static void receive(struct frame_stream *stream)
{
    const struct loop_watch *watch = stream->watch;
    while (stream->watch == watch) {
        json_t *frame;
        enum error error = control_reader_next(&stream->reader, &frame);
        if (error == ERROR_NONE) {
            stream->handlers.take(stream->handlers.context, frame);
            json_decref(frame);
            continue;
        }
        size_t size, length;
        void *space = error == ERROR_AGAIN ? control_reader_space(&stream->reader, &size) : NULL;
        error = space == NULL ? ERROR_MEMORY : net_receive(stream->fd, space, size, &length);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            lose(stream);
            return;
        }
        control_reader_filled(&stream->reader, length);
    }
}

static void ready(void *context, unsigned readiness)
{
    struct frame_stream *stream = context;
    if ((readiness & LOOP_READ) != 0) {
        receive(stream);
    }
    if (stream->fd >= 0) {
        send_out(stream);
    }
}

struct frame_stream *frame_stream_new(struct loop *loop, const struct frame_handlers *handlers)
{
    struct frame_stream *stream = calloc(1, sizeof(*stream));
    if (stream != NULL) {
        stream->loop = loop;
        stream->handlers = *handlers;
        stream->fd = -1;
        control_reader_init(&stream->reader);
        buffer_init(&stream->out, OUT_MAX);
    }
    return stream;
}

void frame_stream_free(struct frame_stream *stream)
{
    if (stream != NULL) {
        drop(stream);
        control_reader_done(&stream->reader);
        buffer_done(&stream->out);
        free(stream);
    }
}

void frame_stream_set(struct frame_stream *stream, int fd)
{
    lose(stream);
    stream->fd = fd;
    if (fd >= 0) {
        stream->watch = loop_watch_new(stream->loop, fd, ready, stream);
        if (stream->watch == NULL) {
            drop(stream);
            return;
        }
        loop_watch_set(stream->watch, LOOP_READ);
    }
}

bool frame_stream_send(struct frame_stream *stream, const json_t *frame)
{
    if (stream->fd < 0) {
        return false;
    }
    if (frame == NULL || control_put(&stream->out, frame) != ERROR_NONE) {
        lose(stream); /* half of what was said is worse than nothing */
        return false;
    }
    send_out(stream);
    return stream->fd >= 0;
}

bool frame_stream_is_open(const struct frame_stream *stream)
{
    return stream->fd >= 0;
}
