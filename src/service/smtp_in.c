/* SPDX-License-Identifier: Apache-2.0
 *
 * The door as a whole: configuration, the ring's coming and going, the end.
 */
#include "service/smtp_in_internal.h"

#include "service/smtp_in_milter.h"
#include "sys/random.h"

#include <assert.h>
#include <stdlib.h>

enum { RETRY_MS = 50 };

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
    struct access *access = access_new(in->key, config->access, config->access_count);
    if (routing == NULL || access == NULL || !listeners_make(in, config, listeners, &fresh)) {
        routing_free(routing);
        access_free(access);
        return ERROR_MEMORY;
    }
    routing_free(in->routing);
    in->routing = routing;
    access_free(in->access);
    in->access = access;
    in->config = config;
    free(in->listed); /* it may be other lists */
    in->listed = NULL;
    in->ids.node = config->node;
    in->servers_by_name = has_named_server(&config->relay);
    adopt_routes(in, generation);
    listeners_replace(in, &fresh);
    listeners_resume(in);
    return ERROR_NONE;
}

void smtp_in_set_filters(struct smtp_in *in, smtp_in_dial_fn *dial, void *context,
                         struct scratch *store)
{
    in->dial = dial;
    in->dial_context = context;
    in->store = store;
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

/* What TLS has read and not given yet: the descriptor is silent about it. */
static void hurry_on(void *context)
{
    struct smtp_in *in = context;
    struct link turn;
    list_init(&turn);
    while (!list_is_empty(&in->hurried)) {
        struct link *first = in->hurried.next;
        list_remove(first);
        list_append(&turn, first);
    }
    while (!list_is_empty(&turn)) {
        struct session *session = LIST_ENTRY(turn.next, struct session, waiting);
        list_remove(&session->waiting);
        session->is_hurried = false;
        session_ready(session);
    }
}

static void on_retry(void *context)
{
    struct smtp_in *in = context;
    listeners_resume(in);
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
    if (in->ring != NULL) {
        core_ring_ready(in); /* what core had said before it died */
    }
    in->ring = NULL;
    core_forget(in);
    in->ring = ring;
    if (ring != NULL) {
        ring_set_handler(ring, core_ring_ready, in);
        core_ring_ready(in);
    }
}

void smtp_in_set_broken_handler(struct smtp_in *in, void (*broken)(void *context), void *context)
{
    in->broken = broken;
    in->broken_context = context;
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
    listeners_pause(in);
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
    in->chunk = malloc(sizeof(*in->chunk));
    in->stop_timer = loop_timer_new(in->loop, on_stop, in);
    in->resume = loop_later_new(in->loop, resume_waiting, in);
    in->hurry = loop_later_new(in->loop, hurry_on, in);
    return in->patrol != NULL && in->retry != NULL && in->stop_timer != NULL &&
           in->resume != NULL && in->hurry != NULL && in->chunk != NULL;
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
    list_init(&in->hurried);
    list_init(&in->aborted);
    list_init(&in->kept);
    map_init(&in->tokens);
    map_init(&in->requests);
    map_init(&in->milter_dials);
    list_init(&in->milter_peers);
    map_init(&in->logins);
    in->login_fd = -1;
    buffer_init(&in->frame, SPOOL_ENVELOPE_MAX + 64);
    if (!make_tools(in) || smtp_in_reconfigure(in, config, generation, listeners) != ERROR_NONE) {
        smtp_in_free(in);
        return NULL;
    }
    smtp_in_set_ring(in, ring);
    return in;
}

/* The ring outlives us by a moment. */
static void nobody_listens(void *context)
{
    (void)context;
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
    listeners_free(&in->listeners);
    listeners_free(&in->retired);
    if (in->ring != NULL) {
        ring_set_handler(in->ring, nobody_listens, NULL);
    }
    loop_timer_free(in->patrol);
    loop_timer_free(in->retry);
    loop_timer_free(in->stop_timer);
    loop_later_free(in->resume);
    loop_later_free(in->hurry);
    routing_free(in->routing);
    access_free(in->access);
    free(in->listed);
    map_done(&in->tokens);
    map_done(&in->requests);
    map_done(&in->milter_dials);
    scratch_free(in->store);
    free(in->chunk);
    smtp_in_set_login(in, -1);
    map_done(&in->logins);
    buffer_done(&in->frame);
    free(in->routes.states);
    free(in->next_routes.states);
    free(in);
}
