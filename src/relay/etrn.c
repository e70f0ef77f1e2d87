/* SPDX-License-Identifier: Apache-2.0
 *
 * ETRN: who may ask, what waits, and what asking sets going.
 */
#include "relay/etrn.h"

#include "relay/destination.h"

/* What was asked for, with the last verdicts: neighbours in the queue are alike. */
struct request {
    struct relay *relay;
    struct slice domain;
    bool subdomains;
    const struct ip_address *client;
    uint32_t route; /* may it be asked for? */
    bool route_allowed;
    uint32_t interned; /* is this domain meant? */
    bool domain_meant;
};

struct tally {
    uint64_t waiting;     /* messages */
    uint64_t held;        /* messages of which nothing else waits */
    uint64_t by_operator; /* of these */
};

/* ---- a route's servers ----------------------------------------------------------------------- */

struct chain {
    const uint32_t *servers;
    uint32_t length;
};

/* One after the other, from a cursor that is 0 at first: under MX routing each name of a route has
 * a chain of its own. False: there are no more. */
static bool next_chain(const struct relay *relay, uint32_t route, uint32_t *cursor,
                       struct chain *ret_chain)
{
    const struct lane *lane = relay->lanes.all[route];
    if ((*cursor)++ == 0) {
        ret_chain->servers = lane_chain(relay, lane, &ret_chain->length);
        return true;
    }
    for (; *cursor - 2 < relay->lanes.destination_room; (*cursor)++) {
        const struct destination *destination = relay->lanes.destinations[*cursor - 2];
        if (destination != NULL && destination->route == route &&
            destination != lane->destination) {
            *ret_chain = (struct chain){destination->chain, destination->chain_length};
            return true;
        }
    }
    return false;
}

/* ---- who may ask -------------------------------------------------------------------------- */

static bool has_address(const struct server *server, const struct ip_address *client)
{
    for (size_t i = 0; server != NULL && i < server->address_count; i++) {
        if (ip_equal(&server->addresses[i], client)) {
            return true;
        }
    }
    return false;
}

static bool may_ask(const struct relay *relay, uint32_t index, const struct ip_address *client)
{
    const struct route_config *route = &relay->config->routes[index];
    struct chain chain;
    for (uint32_t cursor = 0; next_chain(relay, index, &cursor, &chain);) {
        for (uint32_t i = 0; i < chain.length; i++) {
            if (has_address(server_at(relay, chain.servers[i]), client)) {
                return true;
            }
        }
    }
    for (uint32_t i = 0; i < route->etrn_from_count; i++) {
        if (ip_network_contains(&route->etrn_from[i], client)) {
            return true;
        }
    }
    return false;
}

static bool is_allowed(struct request *request, uint32_t route)
{
    if (route == NO_INDEX) {
        return false;
    }
    if (route != request->route) {
        request->route = route;
        request->route_allowed = may_ask(request->relay, route, request->client);
    }
    return request->route_allowed;
}

/* ---- which domains are meant -------------------------------------------------------------- */

static bool is_below(struct slice name, struct slice domain)
{
    return name.length > domain.length && name.data[name.length - domain.length - 1] == '.' &&
           slice_equal_fold(slice_skip(name, name.length - domain.length), domain);
}

static bool is_meant(const struct request *request, struct slice name)
{
    return slice_equal_fold(name, request->domain) ||
           (request->subdomains && is_below(name, request->domain));
}

static bool covers(const struct request *request, const struct route_config *route)
{
    for (uint32_t i = 0; i < route->domain_count; i++) {
        const struct domain_pattern *pattern = &route->domains[i];
        if (is_meant(request, pattern->name) ||
            (pattern->wild && is_below(request->domain, pattern->name))) {
            return true;
        }
    }
    return false;
}

static void probe_servers(struct relay *relay, uint32_t route)
{
    struct chain chain;
    for (uint32_t cursor = 0; next_chain(relay, route, &cursor, &chain);) {
        for (uint32_t i = 0; i < chain.length; i++) {
            struct server *server = server_at(relay, chain.servers[i]);
            if (server != NULL && !server_usable(server)) {
                governor_probe_now(relay, server);
            }
        }
    }
}

/* Why nothing of the route can move, whatever is asked; RELAY_ETRN_COUNTED: it can. */
static enum relay_etrn_outcome bar_of(const struct relay *relay, uint32_t route)
{
    uint32_t disabled = 0, call = 0;
    struct chain chain;
    if (lane_is_frozen(relay, relay->lanes.all[route])) {
        return RELAY_ETRN_DRILL;
    }
    for (uint32_t cursor = 0; next_chain(relay, route, &cursor, &chain);) {
        for (uint32_t i = 0; i < chain.length; i++) {
            const struct server *server = server_at(relay, chain.servers[i]);
            bool out = server != NULL && server->state == SERVER_DISABLED;
            if (server == NULL || (!out && !server_awaits_call(server))) {
                return RELAY_ETRN_COUNTED;
            }
            disabled += out;
            call += !out;
        }
    }
    return call > 0 ? RELAY_ETRN_CALLS : disabled > 0 ? RELAY_ETRN_TAKEN_OUT : RELAY_ETRN_COUNTED;
}

/* Probes what is to be probed. False: the client may ask for none of it. `ret_bar` is what bars all
 * of it, the last of several. */
static bool ask_servers(struct request *request, enum relay_etrn_outcome *ret_bar)
{
    const struct relay_config *config = request->relay->config;
    uint32_t only =
        request->subdomains ? NO_INDEX : routing_domain(request->relay->routing, request->domain);
    bool found = false, moves = false;
    *ret_bar = RELAY_ETRN_COUNTED;
    for (uint32_t i = 0; i < config->route_count; i++) {
        const struct route_config *route = &config->routes[i];
        bool meant =
            request->subdomains ? route->kind == ROUTE_DOMAIN && covers(request, route) : i == only;
        if (meant && is_allowed(request, i)) {
            found = true;
            enum relay_etrn_outcome bar = bar_of(request->relay, i);
            moves = moves || bar == RELAY_ETRN_COUNTED;
            *ret_bar = moves ? RELAY_ETRN_COUNTED : bar;
            if (request->relay->started) {
                probe_servers(request->relay, i);
            }
        }
    }
    return found;
}

/* ---- what waits --------------------------------------------------------------------------- */

/* What was redirected by hand goes elsewhere and is not the client's. */
static bool is_asked_for(struct request *request, const struct delivery *delivery)
{
    const struct lane *lane = lane_of(request->relay, delivery);
    if (lane->redirect != INTERN_NONE || !is_allowed(request, lane->route)) {
        return false;
    }
    if (delivery->domain != request->interned) {
        request->interned = delivery->domain;
        request->domain_meant =
            is_meant(request, intern_text(&request->relay->domains, delivery->domain));
    }
    return request->domain_meant;
}

static void look_at(struct request *request, const struct message *message, struct tally *tally)
{
    bool waits = false, held = false, by_operator = false;
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        uint32_t number = delivery_number(message, i);
        const struct delivery *delivery =
            number == NOBODY ? NULL : delivery_at(request->relay, number);
        if (delivery == NULL || delivery->state == DELIVERY_DEAD ||
            !is_asked_for(request, delivery)) {
            continue;
        }
        held = held || delivery->state == DELIVERY_HELD;
        by_operator = by_operator || (delivery->state == DELIVERY_HELD &&
                                      (delivery->flags & DELIVERY_BY_RULE) == 0);
        waits = waits || delivery->state != DELIVERY_HELD;
        if (delivery->state == DELIVERY_DEFERRED) {
            delivery_due(request->relay, number);
        }
    }
    tally->waiting += waits;
    tally->held += held && !waits;
    tally->by_operator += by_operator && !waits;
}

/* False: the queue is longer than one look. Most requests are for nothing, and cost none. */
static bool look(struct request *request, struct tally *tally)
{
    if (!request->subdomains && !queue_has_domain(request->relay, request->domain)) {
        return true;
    }
    uint32_t budget = RELAY_ETRN_LOOK;
    for (uint32_t at = request->relay->oldest; at != NOBODY;) {
        const struct message *message = message_at(request->relay, at);
        uint32_t cost = message->recipient_count > 0 ? message->recipient_count : 1;
        if (cost > budget) {
            return false;
        }
        budget -= cost;
        at = message->next;
        look_at(request, message, tally);
    }
    return true;
}

struct relay_etrn relay_etrn(struct relay *relay, struct slice domain, bool subdomains,
                             const struct ip_address *client, struct relay_time now)
{
    struct request request = {
        .relay = relay,
        .domain = domain,
        .subdomains = subdomains,
        .client = client,
        .route = NO_INDEX,
        .interned = INTERN_NONE,
    };
    struct tally tally = {0};
    struct relay_etrn answer = {RELAY_ETRN_DENIED, 0};
    enum relay_etrn_outcome bar;
    relay_begin(relay, now);
    if (!ask_servers(&request, &bar)) {
        return answer;
    }
    if (!relay->started) {
        answer.outcome = RELAY_ETRN_LATER;
        return answer;
    }
    bool whole = look(&request, &tally);
    relay_settle(relay);
    answer.messages = tally.waiting;
    if (tally.waiting > 0) {
        answer.outcome = bar != RELAY_ETRN_COUNTED ? bar
                         : whole                   ? RELAY_ETRN_COUNTED
                                                   : RELAY_ETRN_UNCOUNTED;
    } else if (tally.held > 0) {
        answer = (struct relay_etrn){tally.by_operator > 0 ? RELAY_ETRN_HELD : RELAY_ETRN_REFUSED,
                                     tally.held};
    } else {
        answer.outcome = whole ? RELAY_ETRN_NOTHING : RELAY_ETRN_STARTED;
    }
    return answer;
}
