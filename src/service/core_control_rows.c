/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages and deliveries as JSON, as service/control.h describes.
 */
#include "service/core_control.h"

#include "service/core_cluster.h"

#include <stdio.h>

void control_set(json_t *object, const char *key, json_t *value)
{
    /* Without memory the key is missing and the row refused by who reads it; never a crash. */
    if (object == NULL) {
        json_decref(value);
    } else {
        (void)json_object_set_new_nocheck(object, key, value);
    }
}

void control_piece_add(json_t *array, size_t *bytes, json_t *entry)
{
    *bytes += json_dumpb(entry, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY) + sizeof(",") - 1;
    (void)json_array_append_new(array, entry);
}

json_t *control_time(int64_t wall_ms)
{
    return wall_ms == 0 ? json_null() : json_integer(wall_ms);
}

json_t *control_id(struct message_id id, int64_t delivery)
{
    char text[ID_TEXT_LENGTH + 1];
    id_to_text(id, text);
    return delivery < 0 ? json_string(text) : json_sprintf("%s/%lld", text, (long long)delivery);
}

const char *control_delivery_state(enum delivery_state state)
{
    static const char *const texts[] = {"waiting", "deferred", "in_flight", "in_doubt",
                                        "held",    "dead",     "finished"};
    return texts[state];
}

const char *control_fate(unsigned fate)
{
    static const char *const texts[] = {NULL, "delivered", "bounced", "discarded", "pulled"};
    return fate < sizeof(texts) / sizeof(texts[0]) ? texts[fate] : NULL;
}

json_t *control_server_or_null(const struct core *core, uint32_t server)
{
    return control_string_or_null(core_server_name(core, server));
}

static json_t *route_text(const struct core *core, uint32_t route)
{
    if (route >= core->config->relay.route_count) {
        return json_string("orphan");
    }
    const struct route_config *config = &core->config->relay.routes[route];
    char text[300];
    int length =
        snprintf(text, sizeof(text), "%s:%.*s", config->kind == ROUTE_DOMAIN ? "domain" : "relay",
                 SLICE_PRINT(slice_take(config->name, 280)));
    return control_string(slice_make(text, length > 0 ? (size_t)length : 0));
}

/* In flight with, redirected to, else the head of the chain. */
static uint32_t shown_server(const struct core *core, const struct relay_delivery_view *view)
{
    if (view->server != NO_INDEX || view->route >= core->config->relay.route_count) {
        return view->server;
    }
    const struct route_config *route = &core->config->relay.routes[view->route];
    return route->chain_length > 0 && !(route->mx && route->mx_place == 0) ? route->chain[0]
                                                                           : NO_INDEX;
}

/* Nearest to leaving first. */
static int rank(enum delivery_state state)
{
    static const int ranks[] = {
        [DELIVERY_IN_FLIGHT] = 0, [DELIVERY_WAITING] = 1, [DELIVERY_DEFERRED] = 2,
        [DELIVERY_IN_DOUBT] = 3,  [DELIVERY_HELD] = 4,    [DELIVERY_DEAD] = 5,
        [DELIVERY_FINISHED] = 6};
    return ranks[state];
}

static json_t *state_word(const struct relay_delivery_view *view)
{
    bool waits_in_doubt = view->in_doubt && view->state == DELIVERY_WAITING;
    return json_string(control_delivery_state(waits_in_doubt ? DELIVERY_IN_DOUBT : view->state));
}

/* In another part of the message: who owns that knows about it. */
static bool is_elsewhere(const struct core *core, const struct match *match, uint32_t delivery)
{
    return core->cluster != NULL &&
           spool_postgres_is_elsewhere(core->spool, match->handle, delivery);
}

/* How many of its deliveries are in this part, of how many; null: all of them. */
static json_t *part_object(const struct core *core, const struct match *match)
{
    uint32_t count = match->message.recipient_count, here = 0;
    for (uint32_t i = 0; i < count; i++) {
        here += !is_elsewhere(core, match, i);
    }
    return here == count
               ? json_null()
               : json_pack("{sI sI}", "deliveries", (json_int_t)here, "of", (json_int_t)count);
}

void control_part(const struct core *core, const struct match *match, json_t *row)
{
    if (core->cluster != NULL) {
        control_set(row, "sequence",
                    json_integer((json_int_t)spool_sequence(core->spool, match->handle)));
        control_set(row, "part", part_object(core, match));
    }
}

/* What the deliveries of a row have in common. */
struct summary {
    struct relay_delivery_view nearest;
    uint32_t attempts;
    int64_t next_ms;
};

static struct summary summarise(struct control_request *request, const struct match *match)
{
    struct summary summary = {
        .nearest = {.state = DELIVERY_FINISHED, .server = NO_INDEX, .route = NO_INDEX}};
    struct slice reason = SLICE_EMPTY;
    for (uint32_t i = 0; i < match->count; i++) {
        struct relay_delivery_view view;
        if (is_elsewhere(request->core, match, match->deliveries[i]) ||
            !relay_delivery(request->core->relay, match->handle, match->deliveries[i], &view)) {
            continue;
        }
        if (i == 0 || rank(view.state) < rank(summary.nearest.state)) {
            summary.nearest = view;
        }
        summary.attempts = view.attempts > summary.attempts ? view.attempts : summary.attempts;
        if (view.next_wall_ms != 0 &&
            (summary.next_ms == 0 || view.next_wall_ms < summary.next_ms)) {
            summary.next_ms = view.next_wall_ms;
        }
        if (view.reason.length > 0) {
            reason = arena_copy(&request->arena, view.reason);
        }
    }
    summary.nearest.reason = reason;
    return summary;
}

json_t *control_message_row(struct control_request *request, const struct match *match)
{
    struct core *core = request->core;
    const struct spool_message *message = &match->message;
    struct summary summary = summarise(request, match);
    json_t *row = json_object();
    control_set(row, "id", control_id(message->id, -1));
    control_set(row, "sender", match->unreadable ? json_null() : control_string(message->sender));
    json_t *recipients = json_array();
    for (uint32_t i = 0; i < match->count && i < CONTROL_LIST_MAX && !match->unreadable; i++) {
        json_array_append_new(recipients,
                              control_string(message->recipients[match->deliveries[i]].address));
    }
    control_set(row, "recipients", recipients);
    control_set(row, "recipient_count", json_integer(match->count));
    int64_t age = (core_now(core).wall_ms - message->received_ms) / 1000;
    uint64_t bytes = message->header_length + message->body_length;
    control_set(row, "received", control_time(message->received_ms));
    control_set(row, "age", match->unreadable ? json_null() : json_integer(age > 0 ? age : 0));
    control_set(row, "bytes", match->unreadable ? json_null() : json_integer((json_int_t)bytes));
    control_set(row, "attempts", json_integer(summary.attempts));
    control_set(row, "next", control_time(summary.next_ms));
    control_set(row, "reason", control_string_or_null(summary.nearest.reason));
    control_set(row, "state", state_word(&summary.nearest));
    control_set(row, "not_believed", json_boolean(summary.nearest.not_believed));
    control_set(row, "doubt_until", control_time(summary.nearest.doubt_until_wall_ms));
    control_set(row, "server", control_server_or_null(core, shown_server(core, &summary.nearest)));
    control_set(row, "route", route_text(core, summary.nearest.route));
    control_part(core, match, row);
    return row;
}

static json_t *deliver_by_mode(const struct spool_message *message)
{
    if (message->deliver_by_ms == 0) {
        return json_null();
    }
    return json_string((message->flags & SPOOL_BY_RETURN) != 0 ? "return" : "notify");
}

json_t *control_envelope(struct control_request *request, const struct spool_message *message)
{
    const char *ret = message->flags & SPOOL_RET_FULL      ? "full"
                      : message->flags & SPOOL_RET_HEADERS ? "headers"
                                                           : NULL;
    json_t *envelope = json_object();
    control_set(envelope, "sender", control_string(message->sender));
    control_set(envelope, "envelope_id", control_string(message->envelope_id));
    control_set(envelope, "ret", ret != NULL ? json_string(ret) : json_null());
    control_set(envelope, "smtputf8", json_boolean(message->flags & SPOOL_SMTPUTF8));
    control_set(envelope, "eightbit", json_boolean(message->flags & SPOOL_8BIT));
    control_set(envelope, "priority", json_integer(message->priority));
    control_set(envelope, "deliver_by", control_time(message->deliver_by_ms));
    control_set(envelope, "deliver_by_mode", deliver_by_mode(message));
    control_set(envelope, "deliver_by_trace", json_boolean(message->flags & SPOOL_BY_TRACE));
    control_set(envelope, "require_tls", json_boolean(message->flags & SPOOL_REQUIRE_TLS));
    control_set(envelope, "tls_optional", json_boolean(message->flags & SPOOL_TLS_OPTIONAL));
    control_set(envelope, "sender_verified", json_boolean(message->flags & SPOOL_SENDER_VERIFIED));
    control_set(envelope, "own_dsn", json_boolean(message->flags & SPOOL_OWN_DSN));
    control_set(envelope, "envelope_only", json_boolean(message->flags & SPOOL_ENVELOPE_ONLY));
    control_set(envelope, "elapsed",
                json_integer(relay_elapsed_s(request->core->relay, request->match.handle)));
    control_set(envelope, "uncounted",
                json_integer(relay_uncounted_s(request->core->relay, request->match.handle)));
    return envelope;
}

json_t *control_origin(const struct spool_message *message)
{
    const struct spool_origin *from = &message->origin;
    char client[IP_TEXT_SIZE];
    ip_to_text(&from->client.address, client);
    json_t *origin = json_object();
    control_set(origin, "client", json_string(client));
    control_set(origin, "port", json_integer(from->client.port));
    control_set(origin, "helo", control_string(from->helo));
    control_set(origin, "listener", control_string(from->listener));
    control_set(origin, "protocol", control_string(from->protocol));
    control_set(origin, "tls", control_string(from->tls));
    control_set(origin, "user", control_string(from->user));
    control_set(origin, "verdicts", control_string(from->verdicts));
    control_set(origin, "forwarded", control_string(from->forwarded));
    return origin;
}

json_t *control_copy_of(const struct spool_message *message)
{
    return id_is_null(message->copy_of) ? json_null() : control_id(message->copy_of, -1);
}

json_t *control_recipient(const struct match *match, uint32_t delivery)
{
    return match->unreadable ? json_null()
                             : control_string(match->message.recipients[delivery].address);
}

void control_read_fates(struct control_request *request, struct match *match)
{
    const struct core *core = request->core;
    uint32_t count = match->message.recipient_count, here = 0;
    while (here < count && !is_elsewhere(core, match, here)) {
        here++;
    }
    uint8_t *fates = here < count ? arena_allocate(&request->arena, count) : NULL;
    if (fates != NULL &&
        spool_postgres_fates(core->spool, match->message.id, fates, count) == ERROR_NONE) {
        match->fates = fates;
    }
}

json_t *control_delivery(struct control_request *request, const struct match *match,
                         uint32_t delivery)
{
    struct core *core = request->core;
    struct relay_delivery_view view = {
        .state = DELIVERY_FINISHED, .server = NO_INDEX, .route = NO_INDEX};
    bool here = relay_delivery(core->relay, match->handle, delivery, &view) &&
                view.state != DELIVERY_FINISHED;
    bool elsewhere = is_elsewhere(core, match, delivery);
    const char *fate = control_fate(elsewhere && match->fates != NULL
                                        ? match->fates[delivery]
                                        : spool_fate_of(core->spool, match->handle, delivery));
    json_t *row = json_object();
    control_set(row, "id", control_id(match->message.id, delivery));
    control_set(row, "recipient", control_recipient(match, delivery));
    control_set(row, "state",
                elsewhere && fate == NULL ? json_string("elsewhere") : state_word(&view));
    control_set(row, "fate", !here && fate != NULL ? json_string(fate) : json_null());
    control_set(row, "attempts", json_integer(view.attempts));
    control_set(row, "next", control_time(view.next_wall_ms));
    control_set(row, "not_believed", json_boolean(view.not_believed));
    control_set(row, "doubt_until", control_time(view.doubt_until_wall_ms));
    control_set(row, "expires", control_time(view.expires_wall_ms));
    control_set(row, "reason", control_string_or_null(view.reason));
    control_set(row, "server",
                here ? control_server_or_null(core, shown_server(core, &view)) : json_null());
    control_set(row, "route", here ? route_text(core, view.route) : json_null());
    control_set(row, "redirect_to", control_string_or_null(view.redirect_to));
    return row;
}
