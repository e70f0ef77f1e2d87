/* SPDX-License-Identifier: Apache-2.0
 *
 * The door as a whole: listeners, configuration, the ring's coming and going, the end.
 */
#include "service/smtp_in_internal.h"

#include "sys/clock.h"
#include "sys/log.h"
#include "sys/net.h"
#include "sys/random.h"

#include <assert.h>
#include <stdlib.h>

enum {
    ACCEPTS_PER_TURN = 16, /* the other loops want their share */
    RETRY_MS = 50,
    PAUSE_MS = 100, /* without descriptors to accept with */
};

/* ---- listeners --------------------------------------------------------------------------- */

static char *copy_text(struct slice text)
{
    char *copy = malloc(text.length + 1);
    if (copy != NULL) {
        memcpy(copy, text.data, text.length);
        copy[text.length] = '\0';
    }
    return copy;
}

void listener_unref(struct listener *listener)
{
    assert(listener->references > 0);
    if (--listener->references > 0) {
        return;
    }
    list_remove(&listener->link);
    loop_watch_free(listener->watch);
    free(listener->hostname);
    free(listener->name);
    free(listener);
}

/* One refused connection a second is logged, with how many there were. */
static void log_full(struct smtp_in *in, const struct ip_endpoint *peer, const char *reason)
{
    char client[IP_TEXT_SIZE];
    int64_t now_ms = clock_steady_ms();
    in->full_unlogged++;
    if (in->full_logged_ms != 0 && now_ms - in->full_logged_ms < 1000) {
        return;
    }
    ip_to_text(&peer->address, client);
    log_event(LOG_LEVEL_WARNING, "refused", LOG_TEXT("stage", "connect"),
              LOG_TEXT("client", client), LOG_NUMBER("code", 421), LOG_TEXT("reason", reason),
              LOG_NUMBER("connections", in->full_unlogged));
    in->full_logged_ms = now_ms;
    in->full_unlogged = 0;
}

static void turn_away(struct listener *listener, int fd, const struct ip_endpoint *peer,
                      enum smtp_in_admission admission)
{
    struct smtp_in *in = listener->in;
    const char *reason = admission == SMTP_IN_FULL ? "too many connections"
                                                   : "too many connections from this client";
    struct buffer line;
    size_t sent;
    buffer_init(&line, 1024);
    buffer_append_text(&line, admission == SMTP_IN_FULL ? "421 4.3.2 " : "421 4.7.0 ");
    buffer_append(&line, listener->settings.hostname);
    buffer_append_text(&line, admission == SMTP_IN_FULL
                                  ? " Too many connections, try again later\r\n"
                                  : " Too many connections from your address\r\n");
    /* A new socket has room for a line, or the peer has gone: nothing to wait for. */
    while (line.length > 0 && net_send(fd, buffer_slice(&line), &sent) == ERROR_NONE) {
        buffer_consume(&line, sent);
    }
    buffer_done(&line);
    net_close(fd);
    counter_add(in->counters, COUNTER_SESSIONS_REFUSED, 1);
    log_full(in, peer, reason);
}

static void set_listening(struct smtp_in *in, unsigned interest)
{
    LIST_EACH(&in->listeners, at, after)
    {
        loop_watch_set(LIST_ENTRY(at, struct listener, link)->watch, interest);
    }
}

static void on_connection(void *context, unsigned ready)
{
    struct listener *listener = context;
    struct smtp_in *in = listener->in;
    (void)ready;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd;
        struct ip_endpoint peer;
        enum error error = net_accept(listener->fd, &fd, &peer);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            log_full(in, &(struct ip_endpoint){0}, error_text(error));
            set_listening(in, 0);
            loop_timer_set(in->retry, PAUSE_MS);
            return;
        }
        enum smtp_in_admission admission =
            smtp_in_enter(in->shared, &in->config->limits, &peer.address);
        if (admission == SMTP_IN_ADMITTED) {
            session_accept(listener, fd, &peer);
        } else {
            turn_away(listener, fd, &peer, admission);
        }
    }
}

static struct smtp_server_settings server_settings(const struct service_config *config,
                                                   const struct listener_config *listener,
                                                   const char *hostname)
{
    const struct limits_config *limits = &config->limits;
    return (struct smtp_server_settings){
        .hostname = slice_from_text(hostname),
        .message_bytes = limits->message_bytes,
        .recipients = limits->recipients != 0 && limits->recipients < SPOOL_RECIPIENTS_MAX
                          ? limits->recipients
                          : SPOOL_RECIPIENTS_MAX,
        .commands = limits->commands,
        .errors = limits->errors,
        .line_bytes = limits->line_bytes,
        .header_bytes = limits->header_bytes,
        .hops = limits->hops,
        .command_timeout_ms = limits->command_timeout_ms,
        .session_timeout_ms = limits->session_timeout_ms,
        .reject_bare_newline = listener->reject_bare_newline,
    };
}

static struct listener *listener_new(struct smtp_in *in, const struct service_config *config,
                                     const struct listener_config *from, int fd)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL) {
        return NULL;
    }
    listener->in = in;
    listener->references = 1;
    listener->fd = fd;
    list_init(&listener->link);
    listener->hostname = copy_text(config->hostname);
    listener->name = copy_text(from->name);
    listener->watch = loop_watch_new(in->loop, fd, on_connection, listener);
    if (listener->hostname == NULL || listener->name == NULL || listener->watch == NULL) {
        listener_unref(listener);
        return NULL;
    }
    listener->settings = server_settings(config, from, listener->hostname);
    return listener;
}

static void drop_listeners(struct link *list)
{
    while (!list_is_empty(list)) {
        listener_unref(LIST_ENTRY(list->next, struct listener, link));
    }
}

static bool make_listeners(struct smtp_in *in, const struct service_config *config,
                           const int *descriptors, struct link *ret_list)
{
    list_init(ret_list);
    for (uint32_t i = 0; i < config->listener_count; i++) {
        if (config->listeners[i].protocol != LISTENER_SMTP || descriptors[i] < 0) {
            continue;
        }
        struct listener *listener = listener_new(in, config, &config->listeners[i], descriptors[i]);
        if (listener == NULL) {
            drop_listeners(ret_list);
            return false;
        }
        list_append(ret_list, &listener->link);
    }
    return true;
}

/* A session of an old listener takes the new rules of the one with its name. */
static void move_session(struct session *session, struct link *listeners)
{
    LIST_EACH(listeners, at, after)
    {
        struct listener *listener = LIST_ENTRY(at, struct listener, link);
        if (strcmp(listener->name, session->listener->name) == 0) {
            listener->references++;
            listener_unref(session->listener);
            session->listener = listener;
            smtp_server_set_settings(&session->server, &listener->settings);
            return;
        }
    }
}

static void replace_listeners(struct smtp_in *in, struct link *fresh)
{
    LIST_EACH(&in->sessions, at, after)
    {
        move_session(LIST_ENTRY(at, struct session, link), fresh);
    }
    while (!list_is_empty(&in->listeners)) {
        struct listener *old = LIST_ENTRY(in->listeners.next, struct listener, link);
        list_remove(&old->link);
        list_append(&in->retired, &old->link);
        loop_watch_free(old->watch);
        old->watch = NULL;
        listener_unref(old);
    }
    while (!list_is_empty(fresh)) {
        struct link *first = fresh->next;
        list_remove(first);
        list_append(&in->listeners, first);
    }
}

/* ---- configuration ----------------------------------------------------------------------- */

static bool has_named_server(const struct relay_config *config)
{
    for (uint32_t i = 0; i < config->server_count; i++) {
        for (uint32_t k = 0; k < config->servers[i].address_count; k++) {
            if (!config->servers[i].addresses[k].is_literal) {
                return true;
            }
        }
    }
    return false;
}

static void adopt_routes(struct smtp_in *in, uint32_t generation)
{
    if (in->next_routes.generation == generation && generation != in->generation) {
        struct route_table old = in->routes;
        in->routes = in->next_routes;
        in->next_routes = old;
    } else if (generation != in->generation && in->routes.count > 0) {
        memset(in->routes.states, 0, in->routes.count * sizeof(*in->routes.states));
    }
    in->routes.generation = generation;
    in->next_routes.generation = generation;
    if (in->next_routes.count > 0) {
        memset(in->next_routes.states, 0, in->next_routes.count * sizeof(*in->next_routes.states));
    }
    in->generation = generation;
}

enum error smtp_in_reconfigure(struct smtp_in *in, const struct service_config *config,
                               uint32_t generation, const int *listeners)
{
    struct link fresh;
    struct routing *routing = routing_new(&config->relay);
    if (routing == NULL) {
        return ERROR_MEMORY;
    }
    if (!make_listeners(in, config, listeners, &fresh)) {
        routing_free(routing);
        return ERROR_MEMORY;
    }
    routing_free(in->routing);
    in->routing = routing;
    in->config = config;
    in->ids.node = config->node;
    in->servers_by_name = has_named_server(&config->relay);
    adopt_routes(in, generation);
    replace_listeners(in, &fresh);
    set_listening(in, in->is_stopping ? 0 : LOOP_READ);
    return ERROR_NONE;
}

/* ---- going on ---------------------------------------------------------------------------- */

/* Every session that waited gets one try; those that must go on waiting line up again. */
static void resume_waiting(void *context)
{
    struct smtp_in *in = context;
    struct link turn;
    list_init(&turn);
    while (!list_is_empty(&in->waiting)) {
        struct link *first = in->waiting.next;
        list_remove(first);
        list_append(&turn, first);
    }
    if (!list_is_empty(&turn)) {
        in->favoured = LIST_ENTRY(turn.next, struct session, waiting);
    }
    while (!list_is_empty(&turn)) {
        session_resume(LIST_ENTRY(turn.next, struct session, waiting));
        in->favoured = NULL;
    }
}

static void on_retry(void *context)
{
    struct smtp_in *in = context;
    if (!in->is_stopping) {
        set_listening(in, LOOP_READ);
    }
    resume_waiting(in);
    if (!list_is_empty(&in->waiting)) {
        loop_timer_set(in->retry, RETRY_MS);
    }
}

static void on_patrol(void *context)
{
    session_patrol(context);
}

void smtp_in_set_ring(struct smtp_in *in, struct ring *ring)
{
    in->ring = NULL;
    core_forget(in);
    in->ring = ring;
    if (ring != NULL) {
        ring_set_handler(ring, core_ring_ready, in);
        core_ring_ready(in);
    }
}

/* ---- the end ----------------------------------------------------------------------------- */

void smtp_in_ended(struct smtp_in *in)
{
    if (in->is_stopping && in->session_count == 0) {
        loop_timer_set(in->stop_timer, 0);
    }
}

static void on_stop(void *context)
{
    struct smtp_in *in = context;
    while (!list_is_empty(&in->sessions)) {
        session_free(LIST_ENTRY(in->sessions.next, struct session, link));
    }
    loop_timer_cancel(in->stop_timer);
    if (in->stopped != NULL) {
        void (*stopped)(void *) = in->stopped;
        in->stopped = NULL;
        stopped(in->stopped_context);
    }
}

void smtp_in_stop(struct smtp_in *in, int64_t grace_ms, void (*done)(void *context), void *context)
{
    in->is_stopping = true;
    in->stopped = done;
    in->stopped_context = context;
    set_listening(in, 0);
    loop_timer_set(in->stop_timer, in->session_count == 0 ? 0 : grace_ms);
    LIST_EACH(&in->sessions, at, after)
    {
        struct session *session = LIST_ENTRY(at, struct session, link);
        if (smtp_server_is_idle(&session->server) && session->unread_length == 0 &&
            !session->is_closing) {
            session_dismiss(session);
        }
    }
}

static bool make_tools(struct smtp_in *in)
{
    in->patrol = loop_timer_new(in->loop, on_patrol, in);
    in->retry = loop_timer_new(in->loop, on_retry, in);
    in->stop_timer = loop_timer_new(in->loop, on_stop, in);
    in->resume = loop_later_new(in->loop, resume_waiting, in);
    return in->patrol != NULL && in->retry != NULL && in->stop_timer != NULL && in->resume != NULL;
}

struct smtp_in *smtp_in_new(struct loop *loop, const struct service_config *config,
                            uint32_t generation, struct smtp_in_shared *shared,
                            const int *listeners, struct ring *ring, struct counters *counters)
{
    struct smtp_in *in = calloc(1, sizeof(*in));
    if (in == NULL) {
        return NULL;
    }
    in->loop = loop;
    in->shared = shared;
    in->counters = counters;
    in->generation = generation;
    in->next_token = 1;
    in->ids.start = (uint32_t)random_u64();
    random_bytes(&in->key, sizeof(in->key));
    list_init(&in->listeners);
    list_init(&in->retired);
    list_init(&in->sessions);
    list_init(&in->waiting);
    list_init(&in->aborted);
    list_init(&in->kept);
    map_init(&in->tokens);
    buffer_init(&in->frame, SPOOL_ENVELOPE_MAX + 64);
    if (!make_tools(in) || smtp_in_reconfigure(in, config, generation, listeners) != ERROR_NONE) {
        smtp_in_free(in);
        return NULL;
    }
    smtp_in_set_ring(in, ring);
    return in;
}

static void free_transactions(struct smtp_in *in)
{
    for (;;) {
        size_t cursor = 0;
        struct transaction *transaction = map_next(&in->tokens, &cursor);
        if (transaction == NULL) {
            break;
        }
        (void)map_remove(&in->tokens, transaction->token);
        transaction_release(in, transaction);
    }
    in->kept_count = SMTP_IN_TRANSACTIONS_KEPT; /* from here on nothing is kept */
    while (!list_is_empty(&in->aborted)) {
        transaction_release(in, LIST_ENTRY(in->aborted.next, struct transaction, link));
    }
    while (!list_is_empty(&in->kept)) {
        transaction_release(in, LIST_ENTRY(in->kept.next, struct transaction, link));
    }
}

void smtp_in_free(struct smtp_in *in)
{
    if (in == NULL) {
        return;
    }
    in->stopped = NULL;
    while (!list_is_empty(&in->sessions)) {
        session_free(LIST_ENTRY(in->sessions.next, struct session, link));
    }
    free_transactions(in);
    drop_listeners(&in->listeners);
    drop_listeners(&in->retired);
    if (in->ring != NULL) {
        ring_set_handler(in->ring, NULL, NULL);
    }
    loop_timer_free(in->patrol);
    loop_timer_free(in->retry);
    loop_timer_free(in->stop_timer);
    loop_later_free(in->resume);
    routing_free(in->routing);
    map_done(&in->tokens);
    buffer_done(&in->frame);
    free(in->routes.states);
    free(in->next_routes.states);
    free(in);
}
