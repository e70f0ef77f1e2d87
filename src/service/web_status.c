/* SPDX-License-Identifier: Apache-2.0
 *
 * Asks core for its status over the control stream, one question at a time. What arrives is bounded
 * by the frames; an answer that does not come in time ends the wait, not the stream.
 */
#include "service/web_internal.h"

#include "sys/clock.h"
#include "sys/net.h"

#include <stdlib.h>

enum {
    ANSWER_MS = 2000,
    LANES_MAX = 100000, /* entries taken from one answer */
};

struct web_status {
    struct loop *loop;
    int fd;
    struct loop_watch *watch;
    struct loop_timer *timer;
    struct control_reader reader;
    struct buffer out;
    bool asking;  /* a request is under way on this stream */
    bool waiting; /* somebody wants to know */
    json_t *coming;
    json_t *last;
    int64_t last_ms;
    void (*fn)(void *context);
    void *context;
};

static void answered(struct web_status *status)
{
    if (status->waiting) {
        status->waiting = false;
        loop_timer_cancel(status->timer);
        status->fn(status->context);
    }
}

static void give_up(void *context)
{
    answered(context);
}

static void hang_up(struct web_status *status)
{
    if (status->fd >= 0) {
        loop_watch_free(status->watch);
        status->watch = NULL;
        net_close(status->fd);
        status->fd = -1;
    }
    control_reader_done(&status->reader);
    control_reader_init(&status->reader);
    buffer_clear(&status->out);
    json_decref(status->coming);
    status->coming = NULL;
    status->asking = false;
}

/* {"more":{"lanes":[...]}}: appended to the row's arrays. */
static void append(json_t *row, json_t *more)
{
    const char *key;
    json_t *value;
    json_object_foreach(more, key, value)
    {
        json_t *array = json_object_get(row, key);
        if (json_is_array(array) && json_is_array(value) &&
            json_array_size(array) + json_array_size(value) <= LANES_MAX) {
            json_array_extend(array, value);
        }
    }
}

static void take(struct web_status *status, json_t *frame)
{
    json_t *row = json_object_get(frame, "row");
    json_t *more = json_object_get(frame, "more");
    if (json_is_object(row) && status->coming == NULL) {
        status->coming = json_incref(row);
    } else if (json_is_object(more) && status->coming != NULL) {
        append(status->coming, more);
    } else if (json_object_get(frame, "end") != NULL) {
        status->asking = false;
        if (status->coming != NULL) {
            json_decref(status->last);
            status->last = status->coming;
            status->coming = NULL;
            status->last_ms = clock_steady_ms();
        }
        answered(status);
    }
    json_decref(frame);
}

static enum error receive(struct web_status *status)
{
    for (;;) {
        json_t *frame;
        enum error error = control_reader_next(&status->reader, &frame);
        if (error == ERROR_NONE) {
            take(status, frame);
            continue;
        }
        if (error != ERROR_AGAIN) {
            return error;
        }
        size_t size, length;
        void *space = control_reader_space(&status->reader, &size);
        error = space == NULL ? ERROR_MEMORY : net_receive(status->fd, space, size, &length);
        if (error != ERROR_NONE) {
            return error;
        }
        control_reader_filled(&status->reader, length);
    }
}

static void send_out(struct web_status *status)
{
    while (status->fd >= 0 && status->out.length > 0) {
        size_t sent;
        enum error error = net_send(status->fd, buffer_slice(&status->out), &sent);
        if (error == ERROR_AGAIN) {
            break;
        }
        if (error != ERROR_NONE) {
            hang_up(status);
            return;
        }
        buffer_consume(&status->out, sent);
    }
    if (status->fd >= 0) {
        loop_watch_set(status->watch, LOOP_READ | (status->out.length > 0 ? LOOP_WRITE : 0U));
    }
}

static void ready(void *context, unsigned readiness)
{
    struct web_status *status = context;
    if (readiness & LOOP_READ) {
        enum error error = receive(status);
        if (error != ERROR_AGAIN) {
            hang_up(status);
            answered(status);
            return;
        }
    }
    send_out(status);
}

void web_status_set(struct web_status *status, int fd)
{
    hang_up(status);
    status->fd = fd;
    if (fd >= 0) {
        status->watch = loop_watch_new(status->loop, fd, ready, status);
        if (status->watch == NULL) {
            net_close(fd);
            status->fd = -1;
            return;
        }
        loop_watch_set(status->watch, LOOP_READ);
    }
}

void web_status_ask(struct web_status *status)
{
    status->waiting = true;
    if (status->asking) {
        return;
    }
    loop_timer_set(status->timer, status->fd >= 0 ? ANSWER_MS : 0);
    if (status->fd < 0) {
        return;
    }
    json_t *request = json_pack("{ss}", "command", "status");
    if (request != NULL && control_put(&status->out, request) == ERROR_NONE) {
        status->asking = true;
        send_out(status);
    }
    json_decref(request);
}

json_t *web_status_get(const struct web_status *status, int64_t max_age_ms)
{
    return status->last != NULL && clock_steady_ms() - status->last_ms <= max_age_ms ? status->last
                                                                                     : NULL;
}

struct web_status *web_status_new(struct loop *loop, int fd, void (*fn)(void *context),
                                  void *context)
{
    struct web_status *status = calloc(1, sizeof(*status));
    struct loop_timer *timer = status != NULL ? loop_timer_new(loop, give_up, status) : NULL;
    if (timer == NULL) {
        free(status);
        if (fd >= 0) {
            net_close(fd);
        }
        return NULL;
    }
    status->loop = loop;
    status->fd = -1;
    status->timer = timer;
    status->fn = fn;
    status->context = context;
    control_reader_init(&status->reader);
    buffer_init(&status->out, CONTROL_FRAME_MAX);
    web_status_set(status, fd);
    return status;
}

void web_status_free(struct web_status *status)
{
    if (status != NULL) {
        hang_up(status);
        loop_timer_free(status->timer);
        control_reader_done(&status->reader);
        buffer_done(&status->out);
        json_decref(status->last);
        free(status);
    }
}
