/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP half: evhttp parses; what is ambiguous about a request's length is refused and its
 * connection closed, for a proxy in front might have seen another request in it.
 */
#include "service/web_internal.h"

#include "base/list.h"
#include "sys/net.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HEADERS_MAX = 16 << 10,
    TIMEOUT_S = 10,
    WAITING_MAX = 64,
    FRESH_MS = 1000,
};

struct web;

/* Answers from core's status, which is NULL if core does not answer. */
typedef void answer_fn(struct web *web, struct evhttp_request *request, json_t *status);

/* What needs core's status. What names domains, servers and hosts is for this machine alone: a
 * proxy on it that knows who may look, or a tunnel. */
struct resource {
    const char *path;
    answer_fn *answer;
    bool is_local;
};

/* A request that waits for core's answer. */
struct waiting {
    struct link link;
    struct web *web;
    struct evhttp_request *request;
    answer_fn *answer;
};

/* A connection that evhttp has accepted in this turn of the loop. */
struct newcomer {
    struct link link;
    struct bufferevent *connection; /* a reference */
};

struct web {
    struct evhttp *http;
    struct slice hostname;
    const struct counter_page *page;
    struct web_status *status;
    struct link waiting;
    size_t waiting_count;
    struct web_clients clients;
    struct link newcomers;
    struct loop_later *look; /* at them */
};

/* ---- answers --------------------------------------------------------------------------------- */

static void reply(struct evhttp_request *request, int code, const char *reason, const char *type,
                  struct slice body)
{
    struct evbuffer *buffer = evbuffer_new();
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    evhttp_add_header(headers, "Content-Type", type);
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    evhttp_add_header(headers, "Referrer-Policy", "no-referrer");
    evhttp_add_header(headers, "Content-Security-Policy",
                      "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
                      "frame-ancestors 'none'");
    if (code >= 400 && code != 503) {
        evhttp_add_header(headers, "Connection", "close");
    }
    if (buffer != NULL) {
        evbuffer_add(buffer, body.data, body.length);
    }
    evhttp_send_reply(request, code, reason, buffer);
    if (buffer != NULL) {
        evbuffer_free(buffer);
    }
}

static void reply_text(struct evhttp_request *request, int code, const char *reason)
{
    char body[100];
    int length = evutil_snprintf(body, sizeof(body), "%d %s\n", code, reason);
    reply(request, code, reason, "text/plain; charset=utf-8", slice_make(body, (size_t)length));
}

static void reply_buffer(struct evhttp_request *request, const char *type, struct buffer *body)
{
    if (body->failed) {
        reply_text(request, 500, "Internal Server Error");
    } else {
        reply(request, 200, "OK", type, buffer_slice(body));
    }
    buffer_done(body);
}

static void reply_metrics(struct web *web, struct evhttp_request *request, json_t *status)
{
    struct buffer body;
    buffer_init(&body, 0);
    web_metrics(&body, web->page, status);
    reply_buffer(request, "text/plain; version=0.0.4; charset=utf-8", &body);
}

static void reply_health(struct web *web, struct evhttp_request *request, json_t *status)
{
    (void)web;
    bool accepting = json_is_true(json_object_get(status, "accepting"));
    const char *why = json_string_value(json_object_get(status, "accepting_reason"));
    if (status == NULL) {
        why = "core does not answer";
    }
    json_t *body = json_pack("{ssss?}", "status", accepting ? "ok" : "failing", "reason",
                             accepting ? NULL : why);
    char *text = json_dumps(body, JSON_COMPACT);
    reply(request, accepting ? 200 : 503, accepting ? "OK" : "Service Unavailable",
          "application/json", slice_from_text(text));
    free(text);
    json_decref(body);
}

static void reply_status(struct web *web, struct evhttp_request *request, json_t *status)
{
    (void)web;
    char *text = status != NULL ? json_dumps(status, JSON_COMPACT) : NULL;
    if (text == NULL) {
        reply_text(request, 503, "Service Unavailable");
    } else {
        reply(request, 200, "OK", "application/json", slice_from_text(text));
    }
    free(text);
}

static void reply_page(struct web *web, struct evhttp_request *request, json_t *status)
{
    struct buffer body;
    buffer_init(&body, 0);
    web_page(&body, web->hostname, status);
    reply_buffer(request, "text/html; charset=utf-8", &body);
}

static const struct resource resources[] = {
    {"/", reply_page, true},
    {"/api/status", reply_status, true},
    {"/metrics", reply_metrics, false},
    {"/health", reply_health, false},
};

/* ---- waiting for core ------------------------------------------------------------------------ */

static void waiting_free(struct waiting *waiting)
{
    list_remove(&waiting->link);
    waiting->web->waiting_count--;
    struct evhttp_connection *connection = evhttp_request_get_connection(waiting->request);
    if (connection != NULL) {
        evhttp_connection_set_closecb(connection, NULL, NULL);
    }
    free(waiting);
}

/* The client has gone; evhttp frees the request. */
static void client_closed(struct evhttp_connection *connection, void *context)
{
    (void)connection;
    waiting_free(context);
}

static void answer_waiting(void *context)
{
    struct web *web = context;
    while (!list_is_empty(&web->waiting)) {
        struct waiting *waiting = LIST_ENTRY(web->waiting.next, struct waiting, link);
        struct evhttp_request *request = waiting->request;
        answer_fn *answer = waiting->answer;
        waiting_free(waiting);
        answer(web, request, web_status_get(web->status, FRESH_MS * 3));
    }
}

static void wait_for_core(struct web *web, struct evhttp_request *request, answer_fn *answer)
{
    struct waiting *waiting = web->waiting_count < WAITING_MAX ? calloc(1, sizeof(*waiting)) : NULL;
    if (waiting == NULL) {
        reply_text(request, 503, "Service Unavailable");
        return;
    }
    waiting->web = web;
    waiting->request = request;
    waiting->answer = answer;
    list_append(&web->waiting, &waiting->link);
    web->waiting_count++;
    evhttp_connection_set_closecb(evhttp_request_get_connection(request), client_closed, waiting);
    web_status_ask(web->status);
}

/* ---- requests -------------------------------------------------------------------------------- */

static bool length_is_ambiguous(struct evhttp_request *request)
{
    unsigned lengths = 0, encodings = 0;
    const struct evkeyval *header = evhttp_request_get_input_headers(request)->tqh_first;
    for (; header != NULL; header = header->next.tqe_next) {
        lengths += strcasecmp(header->key, "Content-Length") == 0;
        encodings += strcasecmp(header->key, "Transfer-Encoding") == 0;
    }
    return lengths > 1 || encodings > 1 || (lengths > 0 && encodings > 0);
}

static const struct resource *find_resource(const char *path)
{
    for (size_t i = 0; i < sizeof(resources) / sizeof(resources[0]); i++) {
        if (strcmp(path, resources[i].path) == 0) {
            return &resources[i];
        }
    }
    return NULL;
}

static bool is_from_here(struct evhttp_request *request)
{
    struct bufferevent *connection =
        evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
    struct ip_endpoint peer;
    return net_peer(bufferevent_getfd(connection), &peer) == ERROR_NONE &&
           ip_is_loopback(&peer.address);
}

static void take_request(struct evhttp_request *request, void *context)
{
    struct web *web = context;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const char *path = uri != NULL ? evhttp_uri_get_path(uri) : NULL;
    if (length_is_ambiguous(request) || path == NULL) {
        reply_text(request, 400, "Bad Request");
        return;
    }
    if (strcmp(path, "/style.css") == 0) {
        reply(request, 200, "OK", "text/css; charset=utf-8", slice_from_text(web_page_style()));
        return;
    }
    const struct resource *resource = find_resource(path[0] == '\0' ? "/" : path);
    if (resource == NULL) {
        reply_text(request, 404, "Not Found");
    } else if (resource->is_local && !is_from_here(request)) {
        reply_text(request, 403, "Forbidden: shown to this machine only");
    } else if (web_status_get(web->status, FRESH_MS) == NULL) {
        wait_for_core(web, request, resource->answer);
    } else {
        resource->answer(web, request, web_status_get(web->status, FRESH_MS));
    }
}

/* ---- connections ----------------------------------------------------------------------------- */

static void newcomer_free(struct newcomer *newcomer)
{
    list_remove(&newcomer->link);
    bufferevent_decref(newcomer->connection);
    free(newcomer);
}

/* Before a byte is read from them. Who is shut down is for evhttp like one who has gone: a request
 * that came already may still be read, but its answer goes nowhere and the descriptor is closed. */
static void look_at_newcomers(void *context)
{
    struct web *web = context;
    LIST_EACH(&web->newcomers, at, after)
    {
        struct newcomer *newcomer = LIST_ENTRY(at, struct newcomer, link);
        int fd = bufferevent_getfd(newcomer->connection);
        if (fd >= 0 && !web_clients_enter(&web->clients, fd)) {
            (void)shutdown(fd, SHUT_RDWR);
        }
        newcomer_free(newcomer);
    }
}

/* The one moment at which evhttp lets us see a connection come: it asks for something to keep it
 * in, and gives it its descriptor when we have returned. NULL: memory; it makes its own. */
static struct bufferevent *connection_new(struct event_base *base, void *context)
{
    struct web *web = context;
    struct newcomer *newcomer = malloc(sizeof(*newcomer));
    if (newcomer == NULL) {
        return NULL;
    }
    newcomer->connection = bufferevent_socket_new(base, -1, 0);
    if (newcomer->connection == NULL) {
        free(newcomer);
        return NULL;
    }
    bufferevent_incref(newcomer->connection);
    list_append(&web->newcomers, &newcomer->link);
    loop_later_ask(web->look);
    return newcomer->connection;
}

/* ---- life cycle ------------------------------------------------------------------------------ */

static struct web *give_up(struct web *web, const struct service_config *config,
                           const int *listeners, uint32_t from)
{
    for (uint32_t i = from; i < config->listener_count; i++) {
        if (listeners[i] >= 0) {
            close(listeners[i]);
        }
    }
    web_free(web);
    return NULL;
}

struct web *web_new(struct loop *loop, const struct service_config *config, const int *listeners,
                    int control_fd, const struct counter_page *page)
{
    struct web *web = calloc(1, sizeof(*web));
    if (web == NULL) {
        if (control_fd >= 0) {
            close(control_fd);
        }
        return give_up(web, config, listeners, 0);
    }
    list_init(&web->waiting);
    list_init(&web->newcomers);
    web->page = page;
    web->hostname = config->hostname;
    web->status = web_status_new(loop, control_fd, answer_waiting, web);
    web->look = loop_later_new(loop, look_at_newcomers, web);
    web->http = evhttp_new(loop_backend(loop));
    if (web->status == NULL || web->look == NULL || web->http == NULL) {
        return give_up(web, config, listeners, 0);
    }
    evhttp_set_max_headers_size(web->http, HEADERS_MAX);
    evhttp_set_max_body_size(web->http, 0);
    evhttp_set_timeout(web->http, TIMEOUT_S);
    evhttp_set_allowed_methods(web->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_gencb(web->http, take_request, web);
    evhttp_set_bevcb(web->http, connection_new, web);
    for (uint32_t i = 0; i < config->listener_count; i++) {
        if (listeners[i] >= 0 && evhttp_accept_socket(web->http, listeners[i]) != 0) {
            return give_up(web, config, listeners, i);
        }
    }
    return web;
}

void web_set_control(struct web *web, int control_fd)
{
    web_status_set(web->status, control_fd);
}

void web_free(struct web *web)
{
    if (web == NULL) {
        return;
    }
    LIST_EACH(&web->waiting, at, after)
    {
        waiting_free(LIST_ENTRY(at, struct waiting, link));
    }
    LIST_EACH(&web->newcomers, at, after)
    {
        newcomer_free(LIST_ENTRY(at, struct newcomer, link));
    }
    loop_later_free(web->look);
    web_status_free(web->status);
    if (web->http != NULL) {
        evhttp_free(web->http);
    }
    free(web);
}
