/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections of the control protocol: frames in, requests run in steps, frames out with the
 * socket's own flow control.
 *
 * A request outlives its connection while the journal still holds a batch of it.
 */
#include "service/core_control.h"

#include "service/core_post.h"
#include "sys/net.h"

#include <assert.h>
#include <stdlib.h>

static const struct control_command commands[] = {
    {"status", false, false, NULL, status_step, true},
    {"queue list", false, true, NULL, queue_list_step, true},
    {"queue show", false, true, NULL, queue_show_step, true},
    {"queue retry", true, true, queue_change_begin, queue_change_step, true},
    {"queue hold", true, true, queue_change_begin, queue_change_step, true},
    {"queue release", true, true, queue_change_begin, queue_change_step, true},
    {"queue redirect", true, true, queue_change_begin, queue_change_step, true},
    {"queue discard", true, true, queue_change_begin, queue_change_step, true},
    {"queue bounce", true, true, queue_change_begin, queue_change_step, true},
    {"queue export", true, true, queue_export_begin, queue_export_step, true},
    {"queue import", true, false, queue_import_begin, queue_import_step},
    {"queue resend", true, false, queue_resend_begin, queue_resend_step},
    {"queue watch", false, true, queue_watch_begin, queue_watch_step, true},
    {"server list", false, false, server_begin, server_list_step, true},
    {"server history", false, false, history_begin, trace_step, true},
    {"server probe", true, false, server_probe_begin, server_list_step, true},
    {"server down", true, false, server_down_begin, server_list_step, true},
    {"server up", true, false, server_up_begin, server_list_step, true},
    {"drill", true, false, drill_begin, drill_step, true},
    {"drill stop", true, false, drill_stop_begin, drill_stop_step, true},
    {"trace", false, false, trace_begin, trace_step, true},
    {"recipients list", false, false, NULL, recipients_list_step},
    {"recipients import", true, false, NULL, recipients_import_step},
    {"recipients forget", true, false, NULL, recipients_forget_step},
    {"recipients load", true, false, NULL, recipients_load_step},
    {"recipients verify", true, false, recipients_verify_begin, recipients_verify_step},
    {"alert news", true, false, alert_news_begin, alert_news_step},
    {"tls-reports list", false, false, NULL, tls_reports_list_step},
    {"tls-reports send", true, false, NULL, tls_reports_send_step},
    {"node list", false, false, NULL, node_list_step},
    {"node drain", true, false, node_drain_begin, node_changed_step},
    {"node undrain", true, false, node_undrain_begin, node_changed_step},
    {"node remove", true, false, node_remove_begin, node_changed_step},
    {"guard list", false, false, guard_list_begin, guard_list_step},
    {"guard start", true, false, guard_start_begin, guard_changed_step},
    {"guard undo", true, false, guard_undo_begin, guard_changed_step},
    {"guard reset", true, false, guard_reset_begin, guard_changed_step},
    {"guard work", true, false, NULL, guard_work_step},
    {"errands", true, false, NULL, errands_step},
    {"errand done", true, false, NULL, errand_done_step},
};

static const struct control_command forwarding = {.step = control_forward_step};

/* ---- requests -------------------------------------------------------------------------------- */

static void request_free(struct control_request *request)
{
    if (request->control != NULL) {
        request->control->request = NULL;
        request->control = NULL;
    }
    control_unpin(request);
    events_search_free(request->search);
    request->search = NULL;
    drill_forget_request(request);
    core_recipients_forget_context(request->core, request);
    control_forward_free(request->forward);
    request->forward = NULL;
    control_trace_free(request->trace);
    request->trace = NULL;
    control_resend_free(request->resend);
    request->resend = NULL;
    if (request->waiting > 0) {
        return; /* by the last batch */
    }
    json_decref(request->arguments);
    buffer_done(&request->rows);
    arena_done(&request->arena);
    free(request);
}

void control_unpin(struct control_request *request)
{
    if (request->pinned) {
        spool_unpin(request->core->spool, request->match.handle);
        request->pinned = false;
    }
}

void control_ask(struct control_request *request)
{
    loop_later_ask(request->core->control_later);
}

enum control_step control_fail(struct control_request *request, enum control_exit code,
                               const char *error)
{
    request->code = code;
    request->error = error;
    return STEP_END;
}

enum control_step control_not_yet(struct control_request *request)
{
    request->again = true;
    return control_fail(request, CONTROL_NOTHING_MATCHED, "still loading the journal");
}

struct slice control_argument(const struct control_request *request, const char *name)
{
    const json_t *value = json_object_get(request->arguments, name);
    return json_is_string(value) ? slice_make(json_string_value(value), json_string_length(value))
                                 : SLICE_EMPTY;
}

bool control_flag(const struct control_request *request, const char *name)
{
    return json_is_true(json_object_get(request->arguments, name));
}

static void put(struct control_request *request, enum error error)
{
    if (error != ERROR_NONE && request->control != NULL) {
        request->control->broken = true; /* half an answer is none */
    }
}

void control_row(struct control_request *request, json_t *row)
{
    put(request, control_put_row(&request->rows, row));
}

void control_more(struct control_request *request, json_t *more)
{
    put(request, control_put_more(&request->rows, more));
}

struct core_after control_after(struct control_request *request)
{
    if (request->waiting++ == 0) {
        request->waiting_since_ms = core_now(request->core).steady_ms;
    }
    return (struct core_after){.request = request};
}

void core_control_written(struct control_request *request, enum error error)
{
    assert(request->waiting > 0);
    request->waiting--;
    request->write_failed = request->write_failed || error != ERROR_NONE;
    if (request->control == NULL && request->waiting == 0) {
        request_free(request);
    } else {
        control_ask(request);
    }
}

static const struct control_command *find_command(const char *name)
{
    for (size_t i = 0; name != NULL && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

/* It is for another member of the cluster. */
static bool is_for_another(const struct core *core, struct slice node)
{
    return node.length > 0 &&
           (core->cluster == NULL || !slice_equal(node, core->config->cluster.name));
}

static enum control_step request_begin(struct control_request *request, const char *name,
                                       struct slice node)
{
    const struct control_command *command = find_command(name);
    if (command == NULL) {
        return control_fail(request, CONTROL_USAGE, "no such command");
    }
    if (command->privileged && !request->control->privileged) {
        return control_fail(request, CONTROL_USAGE, "permission denied");
    }
    if (is_for_another(request->core, node)) {
        if (!command->travels) {
            return control_fail(request, CONTROL_USAGE, "this must be asked there");
        }
        request->command = &forwarding;
        return request->core->cluster != NULL ? control_forward_begin(request, node, name)
                                              : control_fail(request, CONTROL_NOTHING_MATCHED,
                                                             "this machine is in no cluster");
    }
    request->command = command;
    if (command->selects && !control_select(request)) {
        return STEP_END;
    }
    return command->begin != NULL ? command->begin(request) : STEP_MORE;
}

static void request_end(struct control_request *request)
{
    struct control *control = request->control;
    if (request->write_failed) {
        /* The rows said "done": they are not sent. */
        request->code = CONTROL_NOTHING_MATCHED;
        request->error = CONTROL_NOT_WRITTEN;
    }
    if (control_put_end(&control->out, request->code, request->error, request->again) !=
        ERROR_NONE) {
        control->broken = true;
    }
    request_free(request);
}

static void request_new(struct control *control, json_t *object)
{
    struct control_request *request = calloc(1, sizeof(*request));
    if (request == NULL) {
        json_decref(object);
        control->broken = true;
        return;
    }
    request->control = control;
    request->core = control->core;
    request->share = -1;
    buffer_init(&request->rows, CONTROL_OUT_MAX);
    arena_init(&request->arena);
    request->arguments = json_incref(json_object_get(object, "arguments"));
    if (request->arguments == NULL || !json_is_object(request->arguments)) {
        json_decref(request->arguments);
        request->arguments = json_object();
    }
    control->request = request;
    const json_t *node = json_object_get(object, "node");
    enum control_step step =
        request_begin(request, json_string_value(json_object_get(object, "command")),
                      slice_make(json_string_value(node), json_string_length(node)));
    json_decref(object);
    if (step == STEP_END && request->waiting == 0) {
        buffer_append(&control->out, buffer_slice(&request->rows));
        request_end(request);
    } else if (step == STEP_END) {
        request->command = NULL; /* ends when the batches are through */
    }
}

/* ---- connections ----------------------------------------------------------------------------- */

static void control_free(struct control *control)
{
    if (control->request != NULL) {
        request_free(control->request);
    }
    control_import_free(control->import);
    list_remove(&control->link);
    loop_watch_free(control->watch);
    net_close(control->fd);
    control_reader_done(&control->reader);
    buffer_done(&control->out);
    free(control);
}

static void send_out(struct control *control)
{
    while (control->out.length > 0 && !control->broken) {
        size_t sent;
        enum error error = net_send(control->fd, buffer_slice(&control->out), &sent);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            control->broken = true;
            return;
        }
        buffer_consume(&control->out, sent);
    }
}

static bool is_watching(const struct control *control)
{
    return control->request != NULL && control->request->watching;
}

static void watch(struct control *control)
{
    bool reads = control->request == NULL || is_watching(control);
    loop_watch_set(control->watch,
                   (reads ? LOOP_READ : 0U) | (control->out.length > 0 ? LOOP_WRITE : 0U));
}

/* The next request, if all of it is here. */
static void read_request(struct control *control)
{
    json_t *object;
    enum error error = control_reader_next(&control->reader, &object);
    if (error == ERROR_NONE) {
        request_new(control, object);
    } else if (error != ERROR_AGAIN) {
        control->broken = true;
    }
}

static void receive(struct control *control)
{
    size_t size, length;
    void *space = control_reader_space(&control->reader, &size);
    enum error error =
        space == NULL ? ERROR_MEMORY : net_receive(control->fd, space, size, &length);
    if (error == ERROR_NONE) {
        control_reader_filled(&control->reader, length);
    } else if (error != ERROR_AGAIN) {
        control->broken = true;
    }
}

/* One step of the running request. True: there is more to do at the next turn. */
static bool step_request(struct control *control)
{
    struct control_request *request = control->request;
    if (request->waiting > 0 || control->out.length > CONTROL_OUT_HIGH) {
        return false;
    }
    if (!request->write_failed) {
        buffer_append(&control->out, buffer_slice(&request->rows));
        control->broken = control->broken || control->out.failed;
    }
    buffer_clear(&request->rows);
    enum control_step step = STEP_END;
    if (request->command != NULL && !request->write_failed) {
        step = request->command->step(request);
    }
    if (step == STEP_END && request->waiting == 0) {
        if (!request->write_failed) {
            buffer_append(&control->out, buffer_slice(&request->rows));
            control->broken = control->broken || control->out.failed;
        }
        request_end(request);
        return true; /* another request may be here already */
    }
    if (step == STEP_END) {
        request->command = NULL;
    }
    return step == STEP_MORE;
}

static void turn(struct control *control)
{
    if (!control->broken && control->request == NULL) {
        read_request(control);
    }
    bool more = !control->broken && control->request != NULL && step_request(control);
    bool was_full = control->out.length > CONTROL_OUT_HIGH;
    send_out(control);
    /* A reader that took all of it at once leaves nothing to wake us for the next step. */
    more = more || (was_full && control->out.length <= CONTROL_OUT_HIGH);
    if (control->broken) {
        control_free(control);
        return;
    }
    watch(control);
    if (more) {
        loop_later_ask(control->core->control_later);
    }
}

/* The spool keeps changes that it cannot write now and writes them later; nobody is to wait for a
 * disk to be mended. */
void core_control_tick(struct core *core)
{
    int64_t now = core_now(core).steady_ms;
    LIST_EACH(&core->controls, at, after)
    {
        struct control *control = LIST_ENTRY(at, struct control, link);
        struct control_request *request = control->request;
        if (request != NULL && request->waiting > 0 &&
            now - request->waiting_since_ms >= CONTROL_WAIT_MS) {
            request->write_failed = true;
            request_end(request);
            turn(control);
        }
    }
    control_watch_tick(core);
}

static void ready(void *context, unsigned readiness)
{
    struct control *control = context;
    if ((readiness & LOOP_READ) && is_watching(control)) {
        /* Nothing is due from who watches: it has gone, or breaks the rules. */
        size_t length;
        uint8_t byte;
        control->broken = net_receive(control->fd, &byte, 1, &length) != ERROR_AGAIN;
    } else if ((readiness & LOOP_READ) && control->request == NULL) {
        receive(control);
    }
    turn(control);
}

void core_control_later(void *context)
{
    struct core *core = context;
    LIST_EACH(&core->controls, at, after)
    {
        turn(LIST_ENTRY(at, struct control, link));
    }
}

void core_add_control(struct core *core, int fd, bool privileged)
{
    size_t count = 0;
    LIST_EACH(&core->controls, at, after)
    {
        count++;
    }
    struct control *control = count < CONTROL_CONNECTIONS_MAX ? calloc(1, sizeof(*control)) : NULL;
    if (control == NULL) {
        net_close(fd);
        return;
    }
    control->core = core;
    control->fd = fd;
    control->privileged = privileged;
    control_reader_init(&control->reader);
    buffer_init(&control->out, CONTROL_OUT_MAX + CONTROL_OUT_HIGH);
    list_append(&core->controls, &control->link);
    control->watch = loop_watch_new(core->loop, fd, ready, control);
    if (control->watch == NULL) {
        control_free(control);
        return;
    }
    watch(control);
}

void core_control_init(struct core *core)
{
    list_init(&core->controls);
}

void core_control_done(struct core *core)
{
    LIST_EACH(&core->controls, at, after)
    {
        control_free(LIST_ENTRY(at, struct control, link));
    }
}
