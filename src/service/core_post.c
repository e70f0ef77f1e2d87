/* SPDX-License-Identifier: Apache-2.0
 *
 * Who asks: frames of the answer are read out of the stream of bytes and given to the connection,
 * as fast as that takes them. Who answers: a connection of the control protocol like any other,
 * whose other end is here; frames are only bytes here.
 */
#include "service/core_post.h"

#include "base/list.h"
#include "cluster/member.h"
#include "service/core_cluster.h"
#include "sys/log.h"
#include "sys/net.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    READ_BYTES = 64 << 10,
    INCOMING_HIGH = 1 << 20, /* nothing more is fetched while so much waits for who asked */
};

struct core_post {
    struct loop *loop;
    struct core *core;
    struct post *post;
};

/* A request of another member. */
struct asked {
    struct core_post *post;
    struct post_served *served;
    int fd;
    struct loop_watch *watch;
    struct buffer out; /* the request */
};

/* A request to another member. */
struct control_forward {
    struct control_request *request;
    struct post_call *call; /* NULL: it has ended */
    char name[NODE_NAME_MAX + 1];
    struct buffer incoming;
    struct control_reader reader;
    bool failed;
    char why[DATABASE_ERROR_SIZE + NODE_NAME_MAX + 80];
};

/* ---- answering ------------------------------------------------------------------------------- */

static void gone(void *context)
{
    struct asked *asked = context;
    loop_watch_free(asked->watch);
    net_close(asked->fd);
    buffer_done(&asked->out);
    free(asked);
}

static void watch(struct asked *asked)
{
    loop_watch_set(asked->watch, (post_room(asked->served) > 0 ? LOOP_READ : 0U) |
                                     (asked->out.length > 0 ? LOOP_WRITE : 0U));
}

static enum error send_request(struct asked *asked)
{
    enum error error = ERROR_NONE;
    while (error == ERROR_NONE && asked->out.length > 0) {
        size_t sent;
        error = net_send(asked->fd, buffer_slice(&asked->out), &sent);
        buffer_consume(&asked->out, error == ERROR_NONE ? sent : 0);
    }
    return error == ERROR_AGAIN ? ERROR_NONE : error;
}

static void ready(void *context, unsigned readiness)
{
    struct asked *asked = context;
    uint8_t bytes[READ_BYTES];
    size_t room = post_room(asked->served), length = 0;
    enum error error = send_request(asked);
    if (error == ERROR_NONE && (readiness & LOOP_READ) && room > 0) {
        error = net_receive(asked->fd, bytes, room < sizeof(bytes) ? room : sizeof(bytes), &length);
        error = error == ERROR_AGAIN ? ERROR_NONE : error;
    }
    if (error != ERROR_NONE) {
        post_leave(asked->served);
        return;
    }
    watch(asked); /* it may be no more after the next */
    if (length > 0) {
        post_put(asked->served, slice_make(bytes, length));
    }
}

static void room(void *context)
{
    watch(context);
}

static void *asked_by(void *context, struct post_served *served, int node, bool privileged,
                      struct slice body)
{
    struct core_post *post = context;
    int ends[2];
    struct asked *asked = calloc(1, sizeof(*asked));
    if (asked == NULL || net_pair(ends) != ERROR_NONE) {
        free(asked);
        return NULL;
    }
    *asked = (struct asked){.post = post, .served = served, .fd = ends[0]};
    asked->watch = loop_watch_new(post->loop, ends[0], ready, asked);
    buffer_init(&asked->out, 0);
    buffer_append(&asked->out, body);
    if (asked->watch == NULL || asked->out.failed) {
        net_close(ends[1]);
        gone(asked);
        return NULL;
    }
    log_event(LOG_LEVEL_DEBUG, "asked", LOG_NUMBER("node", node),
              LOG_NUMBER("privileged", privileged));
    core_add_control(post->core, ends[1], privileged);
    loop_watch_set(asked->watch, LOOP_READ | LOOP_WRITE);
    return asked;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void bytes(void *context, struct slice bytes)
{
    struct control_forward *forward = context;
    buffer_append(&forward->incoming, bytes);
    post_want(forward->call, forward->incoming.length < INCOMING_HIGH);
    control_ask(forward->request);
}

static void failed(void *context, const char *why)
{
    struct control_forward *forward = context;
    forward->call = NULL;
    forward->failed = true;
    snprintf(forward->why, sizeof(forward->why), "node %s was not reached: %s", forward->name, why);
    control_ask(forward->request);
}

void control_forward_free(struct control_forward *forward)
{
    if (forward != NULL) {
        post_end(forward->call);
        buffer_done(&forward->incoming);
        control_reader_done(&forward->reader);
        free(forward);
    }
}

/* Its number; 0: there is none. */
static int find_node(const struct core *core, struct slice name, enum node_state *ret_state)
{
    const struct member *member = core_cluster_member(core->cluster);
    struct member_node node;
    for (size_t i = 0; member_node_at(member, i, &node); i++) {
        if (slice_equal(node.name, name)) {
            *ret_state = node.state;
            return node.number;
        }
    }
    return 0;
}

enum control_step control_forward_begin(struct control_request *request, struct slice node,
                                        const char *command)
{
    struct core *core = request->core;
    enum node_state state = NODE_DOWN;
    int number = find_node(core, node, &state);
    struct core_post *post = core_cluster_post(core->cluster);
    if (number == 0) {
        return control_fail(request, CONTROL_NOTHING_MATCHED, "there is no such node");
    }
    struct control_forward *forward = calloc(1, sizeof(*forward));
    if (forward == NULL) {
        return control_fail(request, CONTROL_FAILED, error_text(ERROR_MEMORY));
    }
    request->forward = forward;
    forward->request = request;
    snprintf(forward->name, sizeof(forward->name), "%.*s", SLICE_PRINT(node));
    buffer_init(&forward->incoming, 0);
    control_reader_init(&forward->reader);
    if (state == NODE_DOWN) {
        failed(forward, "it is down");
        return STEP_MORE;
    }
    json_t *object = json_pack("{ss sO}", "command", command, "arguments", request->arguments);
    struct buffer frame;
    buffer_init(&frame, 0);
    if (object != NULL && control_put(&frame, object) == ERROR_NONE) {
        const struct post_answer answer = {.context = forward, .bytes = bytes, .failed = failed};
        forward->call = post_ask(post->post, number, request->control->privileged,
                                 buffer_slice(&frame), &answer);
    }
    json_decref(object);
    buffer_done(&frame);
    if (forward->call == NULL) {
        failed(forward, "too many requests at once");
    }
    return STEP_MORE;
}

static enum control_step take_end(struct control_request *request, const json_t *end)
{
    json_int_t code = json_integer_value(json_object_get(end, "exit"));
    const char *error = json_string_value(json_object_get(end, "error"));
    post_end(request->forward->call);
    request->forward->call = NULL;
    request->again = json_is_true(json_object_get(end, "again"));
    if (error != NULL) {
        struct slice copy =
            arena_copy(&request->arena, slice_make(error, strlen(error) + 1)); /* with its NUL */
        error = copy.data != NULL ? (const char *)copy.data : error_text(ERROR_MEMORY);
    }
    bool known = code >= CONTROL_DONE && code <= CONTROL_INCOMPLETE;
    return control_fail(request, known ? (enum control_exit)code : CONTROL_FAILED, error);
}

/* The next frame, if all of it is here. */
static enum error next_frame(struct control_forward *forward, json_t **ret_object)
{
    for (;;) {
        enum error error = control_reader_next(&forward->reader, ret_object);
        if (error != ERROR_AGAIN || forward->incoming.length == 0) {
            return error;
        }
        size_t size;
        void *space = control_reader_space(&forward->reader, &size);
        if (space == NULL) {
            return ERROR_MEMORY;
        }
        struct slice taken = slice_take(buffer_slice(&forward->incoming), size);
        memcpy(space, taken.data, taken.length);
        control_reader_filled(&forward->reader, taken.length);
        buffer_consume(&forward->incoming, taken.length);
    }
}

enum control_step control_forward_step(struct control_request *request)
{
    struct control_forward *forward = request->forward;
    enum error error = forward->incoming.failed ? ERROR_MEMORY : ERROR_NONE;
    while (error == ERROR_NONE && request->rows.length < CONTROL_OUT_HIGH) {
        json_t *object;
        error = next_frame(forward, &object);
        if (error != ERROR_NONE) {
            break;
        }
        const json_t *end = json_object_get(object, "end");
        enum control_step step = end != NULL ? take_end(request, end) : STEP_MORE;
        error = end != NULL ? ERROR_NONE : control_put(&request->rows, object);
        json_decref(object);
        if (step == STEP_END) {
            return STEP_END;
        }
    }
    if (error != ERROR_NONE && error != ERROR_AGAIN) {
        return control_fail(request, CONTROL_INCOMPLETE, "what the node answers cannot be read");
    }
    if (error == ERROR_AGAIN && forward->failed) {
        return control_fail(request, CONTROL_INCOMPLETE, forward->why);
    }
    if (forward->call != NULL) {
        post_want(forward->call, forward->incoming.length < INCOMING_HIGH);
    }
    return error == ERROR_NONE ? STEP_MORE : STEP_WAIT;
}

/* ---- life cycle ------------------------------------------------------------------------------ */

struct core_post *core_post_new(struct loop *loop, const struct database_settings *database)
{
    struct core_post *post = calloc(1, sizeof(*post));
    if (post == NULL) {
        return NULL;
    }
    const struct post_handler handler = {
        .context = post, .asked = asked_by, .room = room, .gone = gone};
    post->loop = loop;
    post->post = post_new(loop, database, &handler);
    if (post->post == NULL) {
        free(post);
        return NULL;
    }
    return post;
}

void core_post_begin(struct core_post *post, struct core *core, int node)
{
    post->core = core;
    post_set_node(post->post, node);
}

void core_post_free(struct core_post *post)
{
    if (post != NULL) {
        post_free(post->post);
        free(post);
    }
}
