/* SPDX-License-Identifier: Apache-2.0
 *
 * A new configuration while mail is held and under way (R13). What can fail is made first; then
 * servers take over their state by name, and every delivery is laned anew in acceptance order.
 *
 * A recipient's domain is known of each delivery, so most routes are found without the envelope.
 * Only where no domain matches, and the rules for relays and notices have changed, it is read
 * (foresight.c).
 */
#include <stdlib.h>

#include "relay/destination.h"
#include "relay/refusal.h"

/* ---- what has changed ---------------------------------------------------------------------- */

static bool same_place(const struct server_config *a, const struct server_config *b)
{
    if (a->address_count != b->address_count || a->protocol != b->protocol || a->tls != b->tls ||
        !slice_equal(a->tls_name, b->tls_name)) {
        return false;
    }
    for (uint32_t i = 0; i < a->address_count; i++) {
        const struct server_address *one = &a->addresses[i], *other = &b->addresses[i];
        if (one->is_literal != other->is_literal || one->port != other->port ||
            (one->is_literal ? !ip_equal(&one->literal, &other->literal)
                             : !slice_equal_fold(one->host, other->host))) {
            return false;
        }
    }
    return true;
}

static uint32_t find_route(const struct relay_config *config, const struct route_config *like)
{
    for (uint32_t i = 0; i < config->route_count; i++) {
        if (config->routes[i].kind == like->kind &&
            slice_equal(config->routes[i].name, like->name)) {
            return i;
        }
    }
    return NO_INDEX;
}

/* ---- servers ------------------------------------------------------------------------------- */

static void adopt_list(struct link *to, struct link *from)
{
    LIST_EACH(from, at, after)
    {
        list_remove(at);
        list_append(to, at);
    }
}

/* The same server goes on with its sessions and all that is known of it. */
static void adopt(struct relay *relay, struct server *to, struct server *from)
{
    const struct server_config *config = to->config;
    uint32_t index = to->index;
    struct link *empty_heads[] = {&to->sessions, &to->idle,   &to->single,
                                  &to->turns,    &to->guests, &to->touched};
    *to = *from;
    to->config = config;
    to->index = index;
    for (size_t i = 0; i < sizeof empty_heads / sizeof empty_heads[0]; i++) {
        list_init(empty_heads[i]);
    }
    adopt_list(&to->sessions, &from->sessions);
    adopt_list(&to->idle, &from->idle);
    adopt_list(&to->single, &from->single);
    LIST_EACH(&to->sessions, at, after)
    {
        LIST_ENTRY(at, struct session, all)->server = to;
    }
    to->called_for_count =
        0; /* routes have other places now: the client calls again for the rest */
    to->timer = SCHEDULE_NOWHERE;
    to->ready = to->guests_ready = 0;
    server_touch(relay, to);
    to->ceiling = config->connections;
}

/* It has left the configuration, or stands elsewhere now: its sessions end when their jobs have. */
static void abandon(struct relay *relay, struct server *server)
{
    LIST_EACH(&server->sessions, at, after)
    {
        struct session *session = LIST_ENTRY(at, struct session, all);
        session_close(relay, session);
        list_remove(&session->all);
        session->server = NULL;
    }
}

/* Exchangers stay where they are. */
static uint32_t moved_server(const uint32_t *server_map, uint32_t server)
{
    return server >= RELAY_EXCHANGERS ? server : server_map[server];
}

static void map_servers(const struct relay *relay, const struct relay_config *config,
                        uint32_t *ret_map)
{
    for (uint32_t i = 0; i < relay->server_count; i++) {
        ret_map[i] = relay_config_server(config, relay->servers[i].config->name);
    }
}

/* The old servers are still there. */
static void move_jobs(struct relay *relay, const uint32_t *server_map)
{
    for (uint32_t i = 0; i < relay->job_used; i++) {
        struct job *job = relay->jobs[i];
        if (job == NULL || job->server == NO_INDEX) {
            continue;
        }
        const struct server *old = server_at(relay, job->server);
        bool goes_on = job->session == NULL || job->session->server != NULL;
        job->server = goes_on ? moved_server(server_map, job->server) : NO_INDEX;
        if (job->server == NO_INDEX && job->count > 0 &&
            !delivery_is_withdrawn(relay, job->deliveries[0])) {
            job->unbelieved =
                !refusal_is_believed(relay, old, delivery_at(relay, job->deliveries[0]));
        }
    }
}

static void move_servers(struct relay *relay, struct server *servers, const uint32_t *server_map)
{
    for (uint32_t i = 0; i < relay->server_count; i++) {
        struct server *old = &relay->servers[i];
        list_remove(&old->touched);
        if (old->timer != SCHEDULE_NOWHERE) {
            schedule_remove(&relay->schedule, old->timer);
        }
        uint32_t index = server_map[i];
        if (index != NO_INDEX && same_place(old->config, servers[index].config)) {
            adopt(relay, &servers[index], old);
        } else {
            abandon(relay, old);
            if (index != NO_INDEX) {
                governor_moved(relay, &servers[index], old);
            } else if (old->state == SERVER_DISABLED) {
                hand_remember(relay, old->config->name);
            }
        }
    }
    move_jobs(relay, server_map);
}

/* ---- deliveries ---------------------------------------------------------------------------- */

struct relaning {
    const struct relay_config *old_config;
    struct lane **old_lanes;
    uint32_t old_lane_count;
    uint32_t old_orphan;
    const uint32_t *server_map;
    bool relays_same;
};

static uint32_t same_route_now(const struct relay *relay, const struct relaning *relaning,
                               uint32_t old_route)
{
    return old_route == NO_INDEX
               ? NO_INDEX
               : find_route(relay->config, &relaning->old_config->routes[old_route]);
}

static uint32_t new_route(const struct relay *relay, const struct relaning *relaning,
                          uint32_t number, const struct lane *old_lane)
{
    struct slice domain = intern_text(&relay->domains, delivery_at(relay, number)->domain);
    uint32_t route = routing_domain(relay->routing, domain);
    if (route != NO_INDEX) {
        return route;
    }
    bool was_relay = old_lane->route != NO_INDEX &&
                     relaning->old_config->routes[old_lane->route].kind == ROUTE_RELAY;
    if (was_relay && relaning->relays_same) {
        return same_route_now(relay, relaning, old_lane->route);
    }
    route = foresight_route(relay, number);
    return route == UNFORESEEN ? same_route_now(relay, relaning, old_lane->route) : route;
}

/* A redirect and a doubt's pin go along while their server exists. NOBODY: memory. */
static uint32_t new_lane(struct relay *relay, const struct relaning *relaning, uint32_t number,
                         const struct lane *old_lane)
{
    const struct delivery *delivery = delivery_at(relay, number);
    uint32_t route = new_route(relay, relaning, number, old_lane);
    const struct lane *base =
        lane_for(relay, route, delivery->domain, message_at(relay, delivery->message));
    if (base == NULL || old_lane->pin == PIN_NONE) {
        return base == NULL ? NOBODY : base->index;
    }
    uint32_t server = old_lane->pinned_server == NO_INDEX
                          ? NO_INDEX
                          : moved_server(relaning->server_map, old_lane->pinned_server);
    if (server >= RELAY_EXCHANGERS && server != NO_INDEX && base->destination == NULL &&
        !exchanger_has_place(server_at(relay, server))) {
        server = NO_INDEX; /* nobody will ask DNS where it is */
    }
    struct slice redirect = intern_text(&relay->redirects, old_lane->redirect);
    enum lane_pin pin = old_lane->pin;
    if (server == NO_INDEX && old_lane->pinned_server != NO_INDEX) {
        if (!old_lane->redirect_address) {
            return base->index;
        }
        pin = PIN_REDIRECT;
    }
    if (old_lane->redirect_address) {
        uint32_t domain = routing_domain(relay->routing,
                                         slice_skip(redirect, slice_find_last(redirect, '@') + 1));
        bool relays = route != NO_INDEX && relay->config->routes[route].kind == ROUTE_RELAY;
        route = domain != NO_INDEX ? domain : relays ? route : relay->config->bounces;
        if (route == NO_INDEX) {
            return relay->lanes.orphan;
        }
        base = lane_for_address(relay, route, redirect);
    } else if (redirect.length > 0) {
        struct lane_key key = {
            .route = route, .pin = PIN_REDIRECT, .pinned_server = server, .redirect = redirect};
        base = lane_sibling(relay, &key);
    }
    if (base != NULL && pin == PIN_DOUBT) {
        base = lane_for_doubt(relay, base, server);
    }
    return base == NULL ? NOBODY : base->index;
}

/* Lanes with a pin or redirect, and those of destinations, are made when they are first needed:
 * here, where it may fail. Looks through all mail, but only while there is some in such a lane. */
static bool make_special_lanes(struct relay *relay, const struct relaning *relaning)
{
    uint64_t some = 0;
    for (uint32_t i = 0; i < relaning->old_lane_count; i++) {
        some += relaning->old_lanes[i]->pin != PIN_NONE;
    }
    bool mx = false;
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        mx |= relay->config->routes[i].mx;
    }
    for (uint32_t at = relay->first_message; (some > 0 || mx) && at != NOBODY;
         at = message_at(relay, at)->next) {
        const struct message *message = message_at(relay, at);
        for (uint32_t i = 0; i < message->recipient_count; i++) {
            uint32_t number = delivery_number(message, i);
            const struct delivery *delivery = number == NOBODY ? NULL : delivery_at(relay, number);
            if (delivery != NULL && (mx || relaning->old_lanes[delivery->lane]->pin != PIN_NONE) &&
                new_lane(relay, relaning, number, relaning->old_lanes[delivery->lane]) == NOBODY) {
                return false;
            }
        }
    }
    return true;
}

static void relane(struct relay *relay, const struct relaning *relaning, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    const struct lane *old_lane = relaning->old_lanes[delivery->lane];
    bool was_orphan = delivery->lane == relaning->old_orphan;
    delivery->server = delivery->server == NO_SERVER
                           ? NO_SERVER
                           : (uint16_t)moved_server(relaning->server_map, delivery->server);
    uint32_t lane = new_lane(relay, relaning, number, old_lane);
    relay->totals.in_doubt -= delivery_in_doubt(delivery, old_lane);
    delivery->lane = lane == NOBODY ? relay->lanes.orphan : lane; /* NOBODY: never, they are made */
    relay->totals.in_doubt += delivery_in_doubt(delivery, lane_of(relay, delivery));
    lane_count(relay, number, delivery->state, 1);
    if (delivery->state == DELIVERY_WAITING) {
        delivery->place = PLACE_NOWHERE;
    }
    if (delivery->lane == relay->lanes.orphan && !was_orphan) {
        (void)action_delivery_event(relay, RELAY_EVENT_ORPHANED, number);
    }
}

/* Into the new lanes, when it is known again who keeps whom back. */
static void append_all(struct relay *relay)
{
    for (uint32_t at = relay->first_message; at != NOBODY; at = message_at(relay, at)->next) {
        const struct message *message = message_at(relay, at);
        for (uint32_t i = 0; i < message->recipient_count; i++) {
            uint32_t number = delivery_number(message, i);
            if (number != NOBODY && delivery_at(relay, number)->state == DELIVERY_WAITING) {
                lane_append(relay, number);
            }
        }
    }
}

static void relane_all(struct relay *relay, const struct relaning *relaning)
{
    for (uint32_t at = relay->first_message; at != NOBODY; at = message_at(relay, at)->next) {
        const struct message *message = message_at(relay, at);
        for (uint32_t i = 0; i < message->recipient_count; i++) {
            if (delivery_number(message, i) != NOBODY) {
                relane(relay, relaning, delivery_number(message, i));
            }
        }
    }
    recipients_rekey(relay);
    append_all(relay);
    route_bytes_count(relay);
}

static void map_routes(const struct relay *relay, const struct relay_config *config,
                       uint32_t *ret_map)
{
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        ret_map[i] = find_route(config, &relay->config->routes[i]);
    }
}

static void carry_time(struct relay *relay, const struct odometer *old, const uint32_t *route_map)
{
    for (uint32_t at = relay->first_message; at != NOBODY; at = message_at(relay, at)->next) {
        span_remap(relay, message_at(relay, at), old, route_map);
    }
}

/* What a route's lane was doing goes on in the lane of the same name. What is left of a drain is
 * counted as its mail is laned anew. */
static void carry_lane(struct relay *relay, struct lane *old, const uint32_t *server_map)
{
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        struct lane *lane = relay->lanes.all[i];
        if (lane->pin != PIN_NONE || !slice_equal(lane->name, old->name)) {
            continue;
        }
        uint32_t last =
            old->last_server == NO_INDEX ? NO_INDEX : moved_server(server_map, old->last_server);
        if (last < RELAY_EXCHANGERS || lane_may_go_to(relay, lane, last)) {
            lane->last_server = last;
            lane->switched_wall_ms = old->switched_wall_ms;
        }
        lane->switches = old->switches;
        freeze_carry(relay, old, lane);
        lane->stopped = old->stopped;
        lane->draining = old->draining;
        lane->drain_mark = old->drain_mark;
        lane->drain_done = old->drain_done;
        lane->drain_since_ms = old->drain_since_ms;
        lane->recovery = old->recovery;
        lane->recovery.left = 0;
        if (old->recovery.server != NO_INDEX) {
            lane->recovery.server = moved_server(server_map, old->recovery.server);
        }
        lane->expiry_level = old->expiry_level;
        relay->drained |= lane->draining || lane->recovery.drains;
    }
    freeze_abandon(relay, old);
}

/* ---- the lanes there are, as one thing ------------------------------------------------------ */

/* `from` is empty afterwards. */
static void lanes_move(struct lane_set *to, struct lane_set *from)
{
    *to = *from;
    list_init(&to->spare);
    list_init(&to->touched_destinations);
    adopt_list(&to->spare, &from->spare);
    adopt_list(&to->touched_destinations, &from->touched_destinations);
    lanes_init(from);
}

/* Their timers know them by their place in relay. */
static void stop_destinations(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->lanes.destination_room; i++) {
        const struct destination *destination = relay->lanes.destinations[i];
        if (destination != NULL && destination->timer != SCHEDULE_NOWHERE) {
            schedule_remove(&relay->schedule, destination->timer);
        }
    }
}

/* What DNS has said is known on, where it means the same. */
static void carry_destinations(struct relay *relay, const struct relay_config *old_config,
                               const struct lane_set *old)
{
    for (uint32_t i = 0; i < old->destination_room; i++) {
        struct destination *from = old->destinations[i];
        uint32_t route =
            from == NULL ? NO_INDEX : find_route(relay->config, &old_config->routes[from->route]);
        if (route != NO_INDEX && relay->config->routes[route].mx &&
            destination_same_policy(old_config, from->route, relay->config, route)) {
            destination_carry(relay, route, from);
        }
    }
}

static void carry_lanes(struct relay *relay, const struct relay_config *old_config,
                        const struct lane_set *old, const uint32_t *server_map)
{
    for (uint32_t i = 0; i < old->count; i++) {
        struct lane *lane = old->all[i];
        bool of_many =
            lane->destination != NULL && old_config->routes[lane->route].kind == ROUTE_RELAY;
        if (lane->pin == PIN_NONE && !of_many) {
            carry_lane(relay, lane, server_map);
        }
    }
}

/* Lanes part and join: who follows whom is settled anew. */
static void withdraw_followers(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->job_used; i++) {
        const struct job *job = relay->jobs[i];
        if (job != NULL && job->session != NULL && recipient_follows(relay, job->deliveries[0])) {
            session_close(relay, job->session);
        }
    }
}

enum error relay_reconfigure(struct relay *relay, const struct relay_config *config,
                             const struct relay_envelopes *envelopes, struct relay_time now)
{
    relay_begin(relay, now);
    if (!foresight_complete(relay, config, envelopes)) {
        foresight_drop(relay);
        return ERROR_MEMORY;
    }
    uint32_t *server_map = calloc(relay->server_count + 1, sizeof *server_map);
    const struct relaning relaning = {
        .old_config = relay->config,
        .old_lanes = relay->lanes.all,
        .old_lane_count = relay->lanes.count,
        .old_orphan = relay->lanes.orphan,
        .server_map = server_map,
        .relays_same = relay->foresight.relays_same,
    };
    struct server *servers = NULL;
    struct routing *routing = foresight_routing(relay);
    uint64_t *route_bytes = calloc(config->route_count + 1, sizeof *route_bytes);
    uint32_t *route_map = calloc(relay->config->route_count + 1, sizeof *route_map);
    struct odometer *odometers = odometers_new(config->route_count);
    struct routing *old_routing = relay->routing;
    struct lane_set old, made;
    if (server_map != NULL) {
        map_servers(relay, config, server_map);
    }
    /* The new lanes are made under the new configuration; until nothing can fail any more the old
     * ones stand aside. */
    lanes_move(&old, &relay->lanes);
    relay->config = config;
    relay->routing = routing;
    relay->remaking = true;
    bool good = server_map != NULL && routing != NULL && route_bytes != NULL && route_map != NULL &&
                odometers != NULL && servers_new(relay, config, &servers) == ERROR_NONE &&
                lanes_make(relay) && make_special_lanes(relay, &relaning) &&
                timers_reserve(relay, 0, config->server_count + old.destination_room);
    relay->remaking = false;
    lanes_move(&made, &relay->lanes);
    lanes_move(&relay->lanes, &old);
    relay->config = relaning.old_config;
    relay->routing = old_routing;
    if (!good) {
        lanes_done(relay, &made);
        foresight_drop(relay);
        free(server_map);
        routing_free(routing);
        free(route_bytes);
        free(route_map);
        free(odometers);
        free(servers);
        return ERROR_MEMORY;
    }
    bool started = relay->started;
    relay->started = false; /* nothing is told or sent while lanes fill */
    withdraw_followers(relay);
    recipients_dissolve(relay);
    map_routes(relay, config, route_map);
    odometers_carry(relay, odometers, route_map);
    struct odometer *old_odometers = relay->odometers;
    relay->odometers = odometers;
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        list_remove(&relay->lanes.all[i]->turn);
    }
    stop_destinations(relay);
    move_servers(relay, servers, server_map);
    for (uint32_t i = 0; i < config->server_count; i++) {
        if (hand_recall(relay, config->servers[i].name)) {
            servers[i].state = SERVER_DISABLED;
        }
    }
    relay->config = config;
    free(relay->servers);
    relay->servers = servers;
    relay->server_count = config->server_count;
    exchangers_unplace(relay);
    routing_free(relay->routing);
    relay->routing = routing;
    free(relay->route_bytes);
    relay->route_bytes = route_bytes;
    lanes_move(&old, &relay->lanes);
    lanes_move(&relay->lanes, &made);
    carry_destinations(relay, relaning.old_config, &old);
    carry_lanes(relay, relaning.old_config, &old, server_map);
    relane_all(relay, &relaning);
    carry_time(relay, old_odometers, route_map);
    free(old_odometers);
    free(route_map);
    foresight_drop(relay);
    lanes_done(relay, &old);
    free(server_map);
    relay->started = started;
    if (started) {
        refusals_recount(relay);
        expiry_start(relay);
    }
    for (uint32_t i = 0; started && i < relay->server_count; i++) {
        struct server *server = &relay->servers[i];
        server_touch(relay, server);
        if (server->open == 0 && server->probe == NULL && server->next_probe_ms == INT64_MAX) {
            governor_start(relay, server); /* a new one, or one that has moved */
        }
    }
    mx_known_prune(relay);
    directory_reconfigured(relay);
    destinations_recall(relay);
    if (started) {
        freezes_start(relay);
        lanes_place(relay);
    }
    relay_settle(relay);
    return ERROR_NONE;
}
