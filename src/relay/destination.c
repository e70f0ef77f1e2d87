/* SPDX-License-Identifier: Apache-2.0
 *
 * MX routing: for each route and domain what DNS has said, and the chain that follows from it.
 *
 *   unknown   no answer, or it has expired. A question is asked when somebody waits for it, and at
 *             once for a `domain`, whose exchangers count as configured servers (R3)
 *   found     the exchangers belong to the chain
 *   final     a relay's mail is returned, unless another server follows in the chain
 *   trouble   anything else: asked again, ever more rarely up to a bound
 *
 * A relay's mail never goes to an exchanger of an answer that has expired. A domain's does, as long
 * as there is no newer one, and even after a restart (mx_known.c): a failure of DNS must not stop
 * mail to a server that stands.
 */
#include <stdlib.h>

#include "relay/destination.h"

enum {
    ANSWER_PATIENCE_MS = 30000, /* a question without an answer is asked again */
    SWEEP_MS = 60000,
    FINAL_BUDGET = 256, /* messages ended in one call */
};

const struct route_config *destination_route(const struct relay *relay,
                                             const struct destination *destination)
{
    return &relay->config->routes[destination->route];
}

bool destination_is_domains(const struct relay *relay, const struct destination *destination)
{
    return destination_route(relay, destination)->kind == ROUTE_DOMAIN;
}

/* ---- making ------------------------------------------------------------------------------- */

uint64_t destination_key(uint32_t route, uint32_t domain, enum sender_tls tls)
{
    return (uint64_t)tls << 62 | (uint64_t)route << 32 | domain;
}

/* NO_INDEX: memory. */
static uint32_t find_place(struct relay *relay)
{
    if (relay->lanes.destination_count == relay->lanes.destination_room) {
        uint32_t room = relay->lanes.destination_room == 0 ? 16 : relay->lanes.destination_room * 2;
        struct destination **more = timers_reserve(relay, 0, room)
                                        ? realloc(relay->lanes.destinations, room * sizeof *more)
                                        : NULL;
        if (more == NULL) {
            return NO_INDEX;
        }
        for (uint32_t i = relay->lanes.destination_room; i < room; i++) {
            more[i] = NULL;
        }
        relay->lanes.destinations = more;
        relay->lanes.destination_room = room;
    }
    uint32_t place = relay->lanes.destination_hint;
    while (relay->lanes.destinations[place] != NULL) {
        place = (place + 1) % relay->lanes.destination_room;
    }
    relay->lanes.destination_hint = place;
    return place;
}

void destination_set_chain(const struct relay *relay, struct destination *destination,
                           const uint32_t *exchangers, uint32_t count)
{
    const struct route_config *route = destination_route(relay, destination);
    uint32_t length = 0;
    for (uint32_t i = 0; i <= route->chain_length; i++) {
        if (i == route->mx_place) {
            for (uint32_t j = 0; j < count; j++) {
                destination->chain[length++] = exchangers[j];
            }
        }
        if (i < route->chain_length) {
            destination->chain[length++] = route->chain[i];
        }
    }
    destination->chain_length = length;
    destination->exchanger_count = count;
}

struct destination *destination_take(struct relay *relay, uint32_t route, uint32_t domain,
                                     enum sender_tls tls)
{
    uint64_t key = destination_key(route, domain, tls);
    struct destination *destination = map_get(&relay->lanes.destinations_by_key, key);
    if (destination != NULL) {
        return destination;
    }
    uint32_t place = find_place(relay);
    uint32_t room = relay->config->routes[route].chain_length + MX_EXCHANGERS_MAX;
    destination = place == NO_INDEX ? NULL : calloc(1, sizeof *destination);
    uint32_t *chain = destination == NULL ? NULL : calloc(room, sizeof *chain);
    if (chain == NULL ||
        map_put(&relay->lanes.destinations_by_key, key, destination) != ERROR_NONE) {
        free(destination);
        free(chain);
        return NULL;
    }
    intern_again(&relay->domains, domain);
    destination->index = place;
    destination->route = route;
    destination->domain = domain;
    destination->tls = tls;
    destination->chain = chain;
    destination->timer = SCHEDULE_NOWHERE;
    list_init(&destination->lanes);
    list_init(&destination->touched);
    for (uint32_t i = 0; i < MX_EXCHANGERS_MAX; i++) {
        list_init(&destination->uses[i].link);
        destination->uses[i].destination = destination;
    }
    destination_set_chain(relay, destination, NULL, 0);
    relay->lanes.destinations[place] = destination;
    relay->lanes.destination_count++;
    destination_touch(relay, destination);
    if (!relay->remaking) {
        destination_recall(relay, destination);
    }
    return destination;
}

struct destination *destination_find(struct relay *relay, uint32_t route, struct slice domain)
{
    uint32_t number = relay->config->routes[route].mx ? domain_take(relay, domain) : INTERN_NONE;
    struct destination *destination = number == INTERN_NONE
                                          ? NULL
                                          : map_get(&relay->lanes.destinations_by_key,
                                                    destination_key(route, number, SENDER_TLS_ANY));
    intern_drop(&relay->domains, number);
    return destination;
}

void destination_drop_exchangers(struct destination *destination)
{
    for (uint32_t i = 0; i < destination->exchanger_count; i++) {
        list_remove(&destination->uses[i].link);
    }
}

void destination_free(struct relay *relay, struct destination *destination)
{
    destination_drop_exchangers(destination);
    list_remove(&destination->touched);
    if (destination->timer != SCHEDULE_NOWHERE) {
        schedule_remove(&relay->schedule, destination->timer);
    }
    intern_drop(&relay->domains, destination->domain);
    free(destination->chain);
    free(destination);
}

/* ---- choosing ----------------------------------------------------------------------------- */

static bool is_current(const struct relay *relay, const struct destination *destination)
{
    return destination->answered && relay->now.steady_ms < destination->expires_ms;
}

/* Whether its exchangers are known as far as is needed to go to them, or past them. */
static bool is_known(const struct relay *relay, const struct destination *destination)
{
    return is_current(relay, destination) ||
           (destination_is_domains(relay, destination) && destination->exchanger_count > 0);
}

/* What requires TLS was not, or would not be, taken there. */
static bool lacks_requiretls(const struct server *server)
{
    return server->capabilities_known && (server->capabilities.flags & RELAY_CAP_REQUIRETLS) == 0;
}

/* `able`: those that lack what the mail requires are passed over. */
static uint32_t choose(const struct relay *relay, const struct destination *destination, bool able)
{
    uint32_t first_exchanger = destination_route(relay, destination)->mx_place;
    uint32_t found = NO_INDEX;
    for (uint32_t i = 0; i <= destination->chain_length; i++) {
        if (i == destination->chain_length ||
            (i == first_exchanger && !is_known(relay, destination))) {
            break;
        }
        const struct server *server = server_at(relay, destination->chain[i]);
        if (!(able && lacks_requiretls(server)) && server_is_choice(relay, server, &found)) {
            break;
        }
    }
    return found;
}

uint32_t destination_choose(const struct relay *relay, const struct destination *destination)
{
    bool strict = destination->tls == SENDER_TLS_REQUIRED;
    uint32_t found = strict ? choose(relay, destination, true) : NO_INDEX;
    return found != NO_INDEX ? found : choose(relay, destination, false);
}

enum elsewhere destination_elsewhere(struct relay *relay, const struct destination *destination,
                                     struct server *server)
{
    if (destination->tls != SENDER_TLS_REQUIRED) {
        return ELSEWHERE_NOBODY;
    }
    if (!lacks_requiretls(server)) { /* one of its hosts, then: until another has greeted us */
        server->capabilities.flags &= ~(uint32_t)RELAY_CAP_REQUIRETLS;
        server->capabilities_known = true;
        destinations_place_strict(relay, server);
    }
    enum elsewhere elsewhere = ELSEWHERE_NOBODY;
    for (uint32_t i = 0; i < destination->chain_length; i++) {
        const struct server *other = server_at(relay, destination->chain[i]);
        if (!lacks_requiretls(other) && other->state != SERVER_DISABLED) {
            elsewhere = ELSEWHERE_LATER;
        }
    }
    return choose(relay, destination, true) != NO_INDEX ? ELSEWHERE_NOW : elsewhere;
}

static void place_strict(struct relay *relay, struct destination *destination)
{
    if (destination != NULL && destination->tls == SENDER_TLS_REQUIRED) {
        destination_place_lanes(relay, destination);
    }
}

void destinations_place_strict(struct relay *relay, const struct server *server)
{
    if (server->exchanger != NULL) {
        LIST_EACH(&server->exchanger->uses, at, after)
        {
            place_strict(relay, LIST_ENTRY(at, struct exchanger_use, link)->destination);
        }
        return;
    }
    for (uint32_t i = 0; i < relay->lanes.destination_room; i++) {
        place_strict(relay, relay->lanes.destinations[i]);
    }
}

bool destination_is_stopped(const struct relay *relay, const struct destination *destination)
{
    if (!is_known(relay, destination) && !destination->answered) {
        return false;
    }
    for (uint32_t i = 0; i < destination->chain_length; i++) {
        const struct server *server = server_at(relay, destination->chain[i]);
        if (server->state != SERVER_DOWN && server->state != SERVER_DISABLED) {
            return false;
        }
    }
    return true;
}

/* What requires TLS was deferred perhaps for want of a server that is away: it is looked for. */
bool destination_has_mail(const struct destination *destination)
{
    bool strict = destination->tls == SENDER_TLS_REQUIRED;
    LIST_EACH(&destination->lanes, at, after)
    {
        const struct lane *lane = LIST_ENTRY(at, struct lane, sibling);
        if (lane->waiting + lane->in_flight > 0 || (strict && lane->deliveries > lane->held)) {
            return true;
        }
    }
    return false;
}

struct slice destination_trouble(const struct destination *destination)
{
    return destination->answered ? mx_trouble(destination->verdict, destination->error)
                                 : SLICE_EMPTY;
}

/* ---- asking ------------------------------------------------------------------------------- */

static bool has_ready(const struct relay *relay, const struct destination *destination)
{
    LIST_EACH(&destination->lanes, at, after)
    {
        const struct lane *lane = LIST_ENTRY(at, struct lane, sibling);
        bool to_find =
            lane->pin == PIN_DOUBT && !exchanger_has_place(server_at(relay, lane->pinned_server));
        if (lane->ready > 0 && (lane->pin != PIN_DOUBT || to_find)) {
            return true;
        }
    }
    return false;
}

/* A server that comes before the exchangers takes the mail: nobody needs to know them. */
static bool head_serves(const struct relay *relay, const struct destination *destination)
{
    for (uint32_t i = 0; i < destination_route(relay, destination)->mx_place; i++) {
        if (server_usable(server_at(relay, destination->chain[i]))) {
            return true;
        }
    }
    return false;
}

static bool is_needed(const struct relay *relay, const struct destination *destination)
{
    return destination_is_domains(relay, destination) ||
           (has_ready(relay, destination) && !head_serves(relay, destination));
}

static void ask(struct relay *relay, struct destination *destination)
{
    destination->asked = true;
    destination->asked_until_ms = relay->now.steady_ms + ANSWER_PATIENCE_MS;
    struct relay_action *action = action_add(relay, RELAY_RESOLVE);
    action->domain = action_copy(relay, intern_text(&relay->domains, destination->domain));
    destination_arm(relay, destination);
}

void destination_timer(struct relay *relay, struct destination *destination)
{
    const struct mx_decision silence = {.verdict = MX_NO_ANSWER, .error = ERROR_TIMEOUT};
    int64_t now = relay->now.steady_ms;
    schedule_remove(&relay->schedule, destination->timer);
    if (destination->asked && destination->asked_until_ms <= now) {
        destination_conclude(relay, destination, &silence);
    } else if (destination->answered && destination->expires_ms <= now) {
        destination_touch(relay, destination);
        destination_place_lanes(relay, destination);
    } else {
        destination_arm(relay, destination);
    }
}

void destinations_forget_questions(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->lanes.destination_room; i++) {
        struct destination *destination = relay->lanes.destinations[i];
        if (destination != NULL && destination->asked) {
            destination->asked = false;
            destination_arm(relay, destination);
            destination_touch(relay, destination);
        }
    }
}

/* ---- what cannot be delivered ------------------------------------------------------------- */

/* All of one message that waits in the lane, whose first is `number`. */
static void end_message(struct relay *relay, const struct lane *lane, uint32_t number,
                        const struct relay_reply *reply)
{
    const struct message *message = message_at(relay, delivery_at(relay, number)->message);
    uint32_t *numbers = action_numbers(relay, message->unfinished);
    uint32_t count = 0;
    for (uint32_t i = delivery_at(relay, number)->number; i < message->recipient_count; i++) {
        uint32_t other = delivery_number(message, i);
        const struct delivery *delivery = other == NOBODY ? NULL : delivery_at(relay, other);
        if (delivery != NULL && delivery->lane == lane->index &&
            (delivery->place == PLACE_IN_LANE || delivery->place == PLACE_RETURNED)) {
            numbers[count++] = other;
        }
    }
    fate_final(relay, numbers, count, reply);
}

/* DNS rules the domain out, and nobody else is to be asked. */
static bool is_final(const struct relay *relay, const struct destination *destination)
{
    const struct route_config *route = destination_route(relay, destination);
    return is_current(relay, destination) && mx_is_final(destination->verdict) &&
           route->kind == ROUTE_RELAY && route->mx_place == route->chain_length &&
           !head_serves(relay, destination);
}

static void end_all(struct relay *relay, struct destination *destination)
{
    uint32_t budget = FINAL_BUDGET;
    struct relay_reply reply = {.stage = RELAY_AT_RESOLVE, .how = RELAY_DECLINED, .code = 550};
    reply.enhanced[0] = 5;
    reply.text = mx_reason(destination->verdict, reply.enhanced + 1);
    LIST_EACH(&destination->lanes, at, after)
    {
        struct lane *lane = LIST_ENTRY(at, struct lane, sibling);
        while (lane->pin != PIN_DOUBT && lane->ready > 0) {
            if (budget-- == 0) {
                relay->more = true;
                destination_touch(relay, destination);
                return;
            }
            end_message(relay, lane, lane_head(relay, lane), &reply);
        }
    }
}

/* ---- all of them -------------------------------------------------------------------------- */

void destination_touch(struct relay *relay, struct destination *destination)
{
    destination->idle = false;
    if (list_is_empty(&destination->touched)) {
        list_append(&relay->lanes.touched_destinations, &destination->touched);
    }
}

void destinations_settle(struct relay *relay)
{
    struct link now;
    list_init(&now);
    while (!list_is_empty(&relay->lanes.touched_destinations)) {
        struct link *first = relay->lanes.touched_destinations.next;
        list_remove(first);
        list_append(&now, first);
    }
    while (!list_is_empty(&now)) {
        struct destination *destination = LIST_ENTRY(now.next, struct destination, touched);
        list_remove(&destination->touched);
        if (!is_current(relay, destination) && !destination->asked &&
            is_needed(relay, destination)) {
            ask(relay, destination);
        }
        if (is_final(relay, destination)) {
            end_all(relay, destination);
        }
    }
    if (relay->sweep == SCHEDULE_NOWHERE && relay->lanes.destination_count > 0) {
        schedule_add(&relay->schedule,
                     (struct timer){relay->now.steady_ms + SWEEP_MS, TIMER_SWEEP, 0});
    }
}

/* Frees its lanes that nobody needs. True: there is none left that somebody does. */
static bool sweep_lanes(struct relay *relay, struct destination *destination)
{
    bool needed = destination->lasting;
    LIST_EACH(&destination->lanes, at, after)
    {
        struct lane *lane = LIST_ENTRY(at, struct lane, sibling);
        bool empty = lane->members == 0 && lane->placed == NO_INDEX;
        needed |= !empty || lane->stopped || lane->draining;
        if (empty && lane->pin != PIN_NONE) {
            lane_retire(relay, lane);
        }
    }
    return !needed;
}

static void retire(struct relay *relay, struct destination *destination)
{
    LIST_EACH(&destination->lanes, at, after)
    {
        lane_retire(relay, LIST_ENTRY(at, struct lane, sibling));
    }
    uint32_t index = destination->index;
    (void)map_remove(&relay->lanes.destinations_by_key,
                     destination_key(destination->route, destination->domain, destination->tls));
    destination_free(relay, destination);
    relay->lanes.destinations[index] = NULL;
    relay->lanes.destination_count--;
}

void destinations_sweep(struct relay *relay)
{
    schedule_remove(&relay->schedule, relay->sweep);
    for (uint32_t i = 0; i < relay->lanes.destination_room; i++) {
        struct destination *destination = relay->lanes.destinations[i];
        bool empty = destination != NULL && sweep_lanes(relay, destination);
        if (empty && destination->idle) {
            retire(relay, destination);
        } else if (destination != NULL) {
            destination->idle = empty;
        }
    }
    exchangers_sweep(relay);
    if (relay->lanes.destination_count + relay->exchanger_count > 0) {
        schedule_add(&relay->schedule,
                     (struct timer){relay->now.steady_ms + SWEEP_MS, TIMER_SWEEP, 0});
    }
}

/* ---- a new configuration ------------------------------------------------------------------- */

bool destination_same_policy(const struct relay_config *a, uint32_t route_a,
                             const struct relay_config *b, uint32_t route_b)
{
    const struct route_config *one = &a->routes[route_a], *other = &b->routes[route_b];
    if (one->deliver_only_to_count != other->deliver_only_to_count ||
        a->nat_address_count != b->nat_address_count || a->exchanger.tls != b->exchanger.tls ||
        !slice_equal_fold(a->hostname, b->hostname)) {
        return false;
    }
    for (uint32_t i = 0; i < one->deliver_only_to_count; i++) {
        if (!ip_equal(&one->deliver_only_to[i].address, &other->deliver_only_to[i].address) ||
            one->deliver_only_to[i].prefix != other->deliver_only_to[i].prefix) {
            return false;
        }
    }
    for (uint32_t i = 0; i < a->nat_address_count; i++) {
        if (!ip_equal(&a->nat_addresses[i], &b->nat_addresses[i])) {
            return false;
        }
    }
    return true;
}

void destination_carry(struct relay *relay, uint32_t route, const struct destination *from)
{
    struct destination *to =
        map_get(&relay->lanes.destinations_by_key, destination_key(route, from->domain, from->tls));
    if (to == NULL) {
        return; /* nothing of its mail goes by this route any more */
    }
    uint32_t exchangers[MX_EXCHANGERS_MAX];
    uint32_t count = from->exchanger_count;
    uint32_t first = 0; /* they stand together, before or between the route's own */
    while (first < from->chain_length && from->chain[first] < RELAY_EXCHANGERS) {
        first++;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct server *server = server_at(relay, from->chain[first + i]);
        exchangers[i] = server->index;
        list_append(&server->exchanger->uses, &to->uses[i].link);
    }
    destination_set_chain(relay, to, exchangers, count);
    to->answered = from->answered;
    to->verdict = from->verdict;
    to->error = from->error;
    to->told = from->told;
    to->expires_ms = from->expires_ms;
    to->wait_ms = from->wait_ms;
    to->idle = from->idle;
    destination_arm(relay, to);
    LIST_EACH(&to->lanes, at, after)
    {
        struct lane *lane = LIST_ENTRY(at, struct lane, sibling);
        lane->last_server = lane_chain_head(relay, lane);
    }
}
