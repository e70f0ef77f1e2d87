/* SPDX-License-Identifier: Apache-2.0
 *
 * ATRN: what a call is for, whether anything waits for it, and how it begins and ends. What a
 * call says about its server is the governor's matter.
 */
#include "relay/atrn.h"

#include "relay/relay_internal.h"

bool server_calls(const struct server *server)
{
    return server->config->protocol == SERVER_ODMR;
}

bool server_awaits_call(const struct server *server)
{
    return server_calls(server) && server->state == SERVER_DOWN;
}

bool server_takes_route(const struct server *server, uint32_t route)
{
    for (uint32_t i = 0; i < server->called_for_count; i++) {
        if (server->called_for[i] == route) {
            return true;
        }
    }
    return !server_calls(server);
}

/* ---- what a call is for ------------------------------------------------------------------- */

/* The routes of the domains, and the server that all of them end with; NULL: there is none. */
static struct server *find_server(const struct relay *relay, const struct slice *domains,
                                  uint32_t count, uint32_t *ret_routes)
{
    uint32_t found = NO_INDEX;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t route = routing_domain(relay->routing, domains[i]);
        uint32_t length = route == NO_INDEX ? 0 : relay->config->routes[route].chain_length;
        uint32_t last = length == 0 ? NO_INDEX : relay->config->routes[route].chain[length - 1];
        if (last == NO_INDEX || (i > 0 && last != found)) {
            return NULL;
        }
        found = last;
        ret_routes[i] = route;
    }
    struct server *server = found == NO_INDEX ? NULL : server_at(relay, found);
    return server != NULL && server_calls(server) ? server : NULL;
}

static bool is_called_for(const uint32_t *routes, uint32_t count, uint32_t route)
{
    for (uint32_t i = 0; i < count; i++) {
        if (routes[i] == route) {
            return true;
        }
    }
    return false;
}

/* Nobody before it in the lane's chain takes the mail. */
static bool would_go_there(const struct relay *relay, const struct lane *lane,
                           const struct server *server)
{
    if (lane->pinned_server != NO_INDEX) {
        return lane->pinned_server == server->index;
    }
    if (lane_is_frozen(relay, lane)) {
        return false; /* a fire drill holds it back */
    }
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, lane, &length);
    for (uint32_t i = 0; i < length && chain[i] != server->index; i++) {
        if (server_usable(server_at(relay, chain[i]))) {
            return false;
        }
    }
    return true;
}

/* ---- what waits --------------------------------------------------------------------------- */

static void deferred_due(struct relay *relay, const struct message *message, const uint32_t *routes,
                         uint32_t count)
{
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        uint32_t number = delivery_number(message, i);
        if (number != NOBODY && delivery_at(relay, number)->state == DELIVERY_DEFERRED &&
            is_called_for(routes, count, lane_of(relay, delivery_at(relay, number))->route)) {
            delivery_due(relay, number);
        }
    }
}

/* In a queue longer than one look those beyond it keep to their schedule. */
static void all_due(struct relay *relay, const uint32_t *routes, uint32_t count)
{
    bool some = false;
    for (uint32_t i = 0; i < relay->lanes.count && !some; i++) {
        const struct lane *lane = relay->lanes.all[i];
        some = is_called_for(routes, count, lane->route) &&
               lane->deliveries > lane->waiting + lane->in_flight + lane->held;
    }
    uint32_t budget = RELAY_ETRN_LOOK;
    for (uint32_t at = relay->oldest; some && at != NOBODY && budget-- > 0;) {
        const struct message *message = message_at(relay, at);
        at = message->next;
        deferred_due(relay, message, routes, count);
    }
}

static uint64_t count_waiting(const struct relay *relay, const struct server *server,
                              const uint32_t *routes, uint32_t count)
{
    uint64_t waiting = 0;
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        const struct lane *lane = relay->lanes.all[i];
        if (is_called_for(routes, count, lane->route) && would_go_there(relay, lane, server)) {
            waiting += lane->waiting;
        }
    }
    return waiting;
}

/* ---- a call ------------------------------------------------------------------------------- */

struct relay_atrn relay_atrn(struct relay *relay, const struct slice *domains, uint32_t count,
                             struct relay_time now)
{
    uint32_t routes[RELAY_ATRN_DOMAINS_MAX];
    struct relay_atrn answer = {.outcome = RELAY_ATRN_DENIED};
    assert(count > 0 && count <= RELAY_ATRN_DOMAINS_MAX);
    relay_begin(relay, now);
    struct server *server = find_server(relay, domains, count, routes);
    if (server == NULL) {
        return answer;
    }
    if (!relay->started || server->state == SERVER_DISABLED || server->open > 0) {
        answer.outcome = !relay->started                    ? RELAY_ATRN_LATER
                         : server->state == SERVER_DISABLED ? RELAY_ATRN_OUT
                                                            : RELAY_ATRN_BUSY;
        return answer;
    }
    all_due(relay, routes, count);
    answer.deliveries = count_waiting(relay, server, routes, count);
    answer.outcome = RELAY_ATRN_NOTHING;
    if (answer.deliveries > 0) {
        server->call = session_open(relay, server, false);
        answer.outcome = server->call != NULL ? RELAY_ATRN_TURN : RELAY_ATRN_LATER;
    }
    if (server->call != NULL) {
        answer.session = server->call->id;
        memcpy(server->called_for, routes, count * sizeof(routes[0]));
        server->called_for_count = count;
    }
    relay_settle(relay);
    return answer;
}

void call_close_if_done(struct relay *relay, struct server *server)
{
    struct session *call = server->call;
    if (call != NULL && call->state == SESSION_OPEN && call->job_count == 0 && server->ready == 0 &&
        !relay->more) {
        session_close(relay, call);
    }
}

void call_forget(struct server *server)
{
    server->call = NULL;
    server->called_for_count = 0;
}
