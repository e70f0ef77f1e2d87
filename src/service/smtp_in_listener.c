/* SPDX-License-Identifier: Apache-2.0
 *
 * Listeners: taking connections in, turning away what is too much, and giving way to those of a new
 * configuration.
 */
#include "service/smtp_in_internal.h"

#include "sys/clock.h"
#include "sys/log.h"
#include "sys/net.h"

#include <assert.h>
#include <stdlib.h>

enum {
    ACCEPTS_PER_TURN = 16, /* the other loops want their share */
    PAUSE_MS = 100,        /* without descriptors to accept with */
};

static char *copy_text(struct slice text)
{
    char *copy = malloc(text.length + 1);
    if (copy != NULL && text.length > 0) {
        memcpy(copy, text.data, text.length);
    }
    if (copy != NULL) {
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
    listener_drop_milters(listener);
    loop_watch_free(listener->watch);
    tls_server_free(listener->tls); /* connections live on without */
    listener_drop_peers(listener);
    free(listener->hostname);
    free(listener->authserv_id);
    free(listener->name);
    free(listener);
}

/* One refused connection a second is logged, with how many there were. */
static void log_full(struct smtp_in *in, const struct ip_endpoint *peer, struct slice reason)
{
    char client[IP_TEXT_SIZE];
    int64_t now_ms = clock_steady_ms();
    in->full_unlogged++;
    if (in->full_logged_ms != 0 && now_ms - in->full_logged_ms < 1000) {
        return;
    }
    ip_to_text(&peer->address, client);
    log_event(LOG_LEVEL_WARNING, "refused", LOG_TEXT("stage", "connect"),
              LOG_TEXT("client", client), LOG_NUMBER("code", 421), LOG_SLICE("reason", reason),
              LOG_NUMBER("connections", in->full_unlogged));
    in->full_logged_ms = now_ms;
    in->full_unlogged = 0;
}

static void turn_away(struct listener *listener, int fd, const struct ip_endpoint *peer,
                      enum smtp_in_admission admission)
{
    struct smtp_in *in = listener->in;
    struct smtp_answer answer = admission_answer(admission);
    struct buffer line;
    size_t sent;
    buffer_init(&line, 1024);
    buffer_printf(&line, "%u %s %.*s %.*s, try again later\r\n", answer.code, answer.enhanced,
                  SLICE_PRINT(listener->settings.hostname), SLICE_PRINT(answer.text));
    /* A new socket has room for a line, or the peer has gone: nothing to wait for. */
    while (!listener->is_implicit && line.length > 0 &&
           net_send(fd, buffer_slice(&line), &sent) == ERROR_NONE) {
        buffer_consume(&line, sent);
    }
    buffer_done(&line);
    net_close(fd);
    counter_add(in->counters, COUNTER_SESSIONS_REFUSED, 1);
    log_full(in, peer, answer.text);
    if (listener->is_implicit) {
        answer = (struct smtp_answer){0, NULL, answer.text}; /* nothing was said */
    }
    trace_refused(in, "connect", &peer->address, &answer);
}

static void watch_all(struct smtp_in *in, unsigned interest)
{
    LIST_EACH(&in->listeners, at, after)
    {
        loop_watch_set(LIST_ENTRY(at, struct listener, link)->watch, interest);
    }
}

static bool has_cluster(const struct smtp_in *in)
{
    return in->config->cluster.database.length > 0;
}

int64_t smtp_in_wall_ms(const struct smtp_in *in)
{
    return has_cluster(in) ? clock_steady_ms() + in->time_ahead_ms : clock_wall_ms();
}

void listeners_resume(struct smtp_in *in)
{
    bool knows_time = !has_cluster(in) || in->knows_time;
    watch_all(in, knows_time && !in->is_stopping ? LOOP_READ : 0);
}

void listeners_pause(struct smtp_in *in)
{
    watch_all(in, 0);
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
            log_full(in, &(struct ip_endpoint){0}, slice_from_text(error_text(error)));
            listeners_pause(in);
            loop_timer_set(in->retry, PAUSE_MS);
            return;
        }
        enum smtp_in_admission admission = smtp_in_enter(in->shared, &in->config->limits,
                                                         listener_counts(listener, &peer.address));
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
        .odmr = listener->protocol == LISTENER_ODMR,
        .starttls = listener->tls == LISTENER_TLS_STARTTLS,
        .submission = listener->protocol == LISTENER_SUBMISSION,
        .mechanisms = login_mechanisms(listener),
        .clear_mechanisms = listener->protocol == LISTENER_ODMR ? 1u << SASL_CRAM_MD5 : 0,
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
    listener->authserv_id = copy_text(config->authserv_id);
    listener->name = copy_text(from->name);
    listener->watch = loop_watch_new(in->loop, fd, on_connection, listener);
    listener->at = from->at;
    if (listener->hostname == NULL || listener->authserv_id == NULL || listener->name == NULL ||
        listener->watch == NULL || !listener_take_peers(listener, from) ||
        !listener_take_tls(listener, in->shared, from) ||
        !listener_take_milters(listener, config, from)) {
        listener_unref(listener);
        return NULL;
    }
    listener->settings = server_settings(config, from, listener->hostname);
    listener->own_names[0] = slice_from_text(listener->hostname);
    listener->own_names[1] = slice_from_text(listener->authserv_id);
    listener->greeting_delay_ms = from->greeting_delay_ms;
    listener->greylist_ms = from->greylist_ms;
    listener->dnsbl_score = from->dnsbl_score;
    listener->login_in_clear = from->login_in_clear;
    listener->believes_login = from->believes_login;
    listener->tells_login = from->tells_login;
    listener->sender_check = from->sender_check;
    return listener;
}

void listeners_free(struct link *list)
{
    while (!list_is_empty(list)) {
        listener_unref(LIST_ENTRY(list->next, struct listener, link));
    }
}

bool listeners_make(struct smtp_in *in, const struct service_config *config, const int *descriptors,
                    struct link *ret_list)
{
    list_init(ret_list);
    for (uint32_t i = 0; i < config->listener_count; i++) {
        if (config->listeners[i].protocol == LISTENER_HTTP || descriptors[i] < 0) {
            continue;
        }
        struct listener *listener = listener_new(in, config, &config->listeners[i], descriptors[i]);
        if (listener == NULL) {
            listeners_free(ret_list);
            return false;
        }
        list_append(ret_list, &listener->link);
    }
    return true;
}

/* A session of an old listener takes the new rules of the one with its name; not those of another
 * protocol, in which it has said nothing yet. */
static void move_session(struct session *session, struct link *listeners)
{
    LIST_EACH(listeners, at, after)
    {
        struct listener *listener = LIST_ENTRY(at, struct listener, link);
        if (strcmp(listener->name, session->listener->name) == 0 &&
            listener->settings.odmr == session->listener->settings.odmr) {
            listener->references++;
            listener_unref(session->listener);
            session->listener = listener;
            smtp_server_set_settings(&session->server, &listener->settings);
            smtp_server_set_trusted(&session->server, client_is_trusted(session));
            return;
        }
    }
}

void listeners_replace(struct smtp_in *in, struct link *fresh)
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
