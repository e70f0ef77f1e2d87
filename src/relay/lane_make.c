/* SPDX-License-Identifier: Apache-2.0
 *
 * Which lanes there are: one for each route and one for orphans, which stay; and those made when
 * they are first needed: for what was redirected, for doubts, and under MX routing for each domain
 * that there is mail to. What is not needed any more makes place for others.
 */
#include <assert.h>
#include <stdlib.h>

#include "relay/destination.h"

/* ---- one lane ----------------------------------------------------------------------------- */

static struct slice lane_name(const struct relay *relay, uint32_t route,
                              const struct destination *destination)
{
    struct buffer name;
    buffer_init(&name, 0);
    if (route == NO_INDEX) {
        buffer_append_text(&name, "orphan");
    } else {
        const struct route_config *config = &relay->config->routes[route];
        bool to_us = config->kind == ROUTE_DOMAIN;
        buffer_append_text(&name, to_us ? "domain:" : destination != NULL ? "mx:" : "relay:");
        buffer_append(&name, destination != NULL ? intern_text(&relay->domains, destination->domain)
                                                 : config->name);
    }
    if (name.failed) {
        buffer_done(&name);
        return SLICE_EMPTY;
    }
    return buffer_slice(&name); /* the memory is the lane's now */
}

const uint32_t *lane_chain(const struct relay *relay, const struct lane *lane, uint32_t *ret_length)
{
    if (lane->destination != NULL) {
        *ret_length = lane->destination->chain_length;
        return lane->destination->chain;
    }
    const struct route_config *route =
        lane->route == NO_INDEX ? NULL : &relay->config->routes[lane->route];
    *ret_length = route == NULL ? 0 : route->chain_length;
    return route == NULL ? NULL : route->chain;
}

uint32_t lane_chain_head(const struct relay *relay, const struct lane *lane)
{
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, lane, &length);
    return length > 0 ? chain[0] : NO_INDEX;
}

bool lane_is_one_of_many(const struct relay *relay, const struct lane *lane)
{
    return lane->destination != NULL && relay->config->routes[lane->route].kind == ROUTE_RELAY;
}

/* A place for it: that of one which is not needed any more, or a new one. NULL: memory. */
static struct lane *find_place(struct relay *relay)
{
    if (!list_is_empty(&relay->lanes.spare)) {
        struct lane *spare = LIST_ENTRY(relay->lanes.spare.next, struct lane, sibling);
        list_remove(&spare->sibling);
        return spare;
    }
    uint32_t count = relay->lanes.count;
    if ((count & (count - 1)) == 0) { /* full: room is a power of two */
        size_t room = count == 0 ? 1 : (size_t)count * 2;
        struct lane **lanes = realloc(relay->lanes.all, room * sizeof(struct lane *));
        if (lanes == NULL) {
            return NULL;
        }
        relay->lanes.all = lanes;
    }
    struct lane *lane = calloc(1, sizeof *lane);
    if (lane != NULL) {
        lane->index = count;
        relay->lanes.all[relay->lanes.count++] = lane;
    }
    return lane;
}

/* Not in use: nothing finds it, and there is nothing in it. */
static void make_spare(struct relay *relay, struct lane *lane)
{
    *lane = (struct lane){
        .index = lane->index,
        .route = NO_INDEX,
        .pin = PIN_SPARE,
        .pinned_server = NO_INDEX,
        .redirect = INTERN_NONE,
        .placed = NO_INDEX,
        .recovery = {.server = NO_INDEX},
        .last_server = NO_INDEX,
    };
    lane_queues_init(lane);
    list_init(&lane->turn);
    list_append(&relay->lanes.spare, &lane->sibling);
}

static struct lane *lane_new(struct relay *relay, uint32_t route, struct destination *destination)
{
    struct slice name = lane_name(relay, route, destination);
    struct lane *lane = name.data == NULL ? NULL : find_place(relay);
    if (lane == NULL) {
        free((void *)(uintptr_t)name.data);
        return NULL;
    }
    *lane = (struct lane){
        .index = lane->index,
        .route = route,
        .destination = destination,
        .pinned_server = NO_INDEX,
        .redirect = INTERN_NONE,
        .name = name,
        .placed = NO_INDEX,
        .recovery = {.server = NO_INDEX},
    };
    lane_queues_init(lane);
    list_init(&lane->turn);
    list_init(&lane->sibling);
    if (destination != NULL) {
        list_append(&destination->lanes, &lane->sibling);
    }
    lane->last_server = lane_chain_head(relay, lane);
    if (route != NO_INDEX && relay->config->routes[route].kind == ROUTE_RELAY) {
        lane->salt = hash_bytes(relay->key, relay->config->routes[route].name) +
                     (destination == NULL ? SENDER_TLS_ANY : destination->tls);
    }
    return lane;
}

static struct exchanger *pinned_exchanger(const struct relay *relay, const struct lane *lane)
{
    struct server *server =
        lane->pinned_server >= RELAY_EXCHANGERS ? server_at(relay, lane->pinned_server) : NULL;
    return server == NULL ? NULL : server->exchanger;
}

static void lane_clear(struct relay *relay, struct lane *lane)
{
    struct exchanger *pinned = pinned_exchanger(relay, lane);
    if (pinned != NULL) {
        pinned->pin_count--;
    }
    list_remove(&lane->turn);
    list_remove(&lane->sibling);
    intern_drop(&relay->redirects, lane->redirect);
    freeze_free(lane);
    free((void *)(uintptr_t)lane->name.data);
    lane_queues_done(lane);
}

void lane_free(struct relay *relay, struct lane *lane)
{
    lane_clear(relay, lane);
    free(lane);
}

void lane_retire(struct relay *relay, struct lane *lane)
{
    assert(lane->members == 0 && lane->placed == NO_INDEX);
    lane_clear(relay, lane);
    make_spare(relay, lane);
}

/* ---- of routes ---------------------------------------------------------------------------- */

/* The exchangers of a domain block's first name are watched from the start. */
static bool make_lasting(struct relay *relay, uint32_t route)
{
    const struct route_config *config = &relay->config->routes[route];
    if (!config->mx || config->kind != ROUTE_DOMAIN || config->domain_count == 0 ||
        config->domains[0].wild) {
        return lane_new(relay, route, NULL) != NULL;
    }
    uint32_t domain = domain_take(relay, config->domains[0].name);
    struct destination *destination =
        domain == INTERN_NONE ? NULL : destination_take(relay, route, domain, SENDER_TLS_ANY);
    intern_drop(&relay->domains, domain);
    if (destination == NULL || lane_new(relay, route, destination) == NULL) {
        return false;
    }
    destination->lasting = true;
    return true;
}

void lanes_init(struct lane_set *set)
{
    *set = (struct lane_set){0};
    list_init(&set->spare);
    list_init(&set->touched_destinations);
    map_init(&set->destinations_by_key);
}

void lanes_done(struct relay *relay, struct lane_set *set)
{
    for (uint32_t i = 0; i < set->count; i++) {
        lane_free(relay, set->all[i]);
    }
    free(set->all);
    for (uint32_t i = 0; i < set->destination_room; i++) {
        if (set->destinations[i] != NULL) {
            destination_free(relay, set->destinations[i]);
        }
    }
    free(set->destinations);
    map_done(&set->destinations_by_key);
}

bool lanes_make(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        if (!make_lasting(relay, i)) {
            return false;
        }
    }
    struct lane *orphan = lane_new(relay, NO_INDEX, NULL);
    relay->lanes.orphan = orphan == NULL ? NOBODY : orphan->index;
    return orphan != NULL;
}

/* ---- on demand ---------------------------------------------------------------------------- */

static bool fits(const struct relay *relay, const struct lane *lane, const struct lane_key *key)
{
    return lane->route == key->route && lane->destination == key->destination &&
           lane->pin == key->pin && lane->pinned_server == key->pinned_server &&
           slice_equal(intern_text(&relay->redirects, lane->redirect), key->redirect);
}

static struct lane *find_sibling(const struct relay *relay, const struct lane_key *key)
{
    if (key->destination != NULL) {
        LIST_EACH(&key->destination->lanes, at, after)
        {
            struct lane *lane = LIST_ENTRY(at, struct lane, sibling);
            if (fits(relay, lane, key)) {
                return lane;
            }
        }
        return NULL;
    }
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        if (fits(relay, relay->lanes.all[i], key)) {
            return relay->lanes.all[i];
        }
    }
    return NULL;
}

struct lane *lane_sibling(struct relay *relay, const struct lane_key *key)
{
    struct lane *lane = find_sibling(relay, key);
    if (lane != NULL) {
        return lane;
    }
    struct slice redirect = key->redirect;
    uint32_t text = redirect.length > 0 ? intern_take(&relay->redirects, redirect) : INTERN_NONE;
    if (redirect.length > 0 && text == INTERN_NONE) {
        return NULL;
    }
    lane = lane_new(relay, key->route, key->destination);
    if (lane == NULL) {
        intern_drop(&relay->redirects, text);
        return NULL;
    }
    lane->pin = key->pin;
    lane->pinned_server = key->pinned_server;
    lane->redirect = text;
    lane->redirect_address = key->redirect_address;
    if (pinned_exchanger(relay, lane) != NULL) {
        pinned_exchanger(relay, lane)->pin_count++;
    }
    if (key->pin != PIN_NONE) {
        struct slice place =
            key->pinned_server == NO_INDEX ? redirect : server_name(relay, key->pinned_server);
        lane->salt = hash_bytes(relay->key, place) + key->pin;
    }
    return lane;
}

/* As far as it matters: to strangers' servers, by whose word they are chosen, and of a waiver only
 * where there may be something to waive that is not our operator's demand. */
static enum sender_tls tls_that_counts(const struct relay *relay, uint32_t route,
                                       const struct message *message)
{
    const struct server_config *exchanger = &relay->config->exchanger;
    bool heeded = !exchanger->ignores_waivers || (message->flags & MESSAGE_OWN_DSN) != 0;
    if (relay->config->routes[route].kind != ROUTE_RELAY ||
        (message->tls == SENDER_TLS_WAIVED && !(server_tls_is_theirs(exchanger->tls) && heeded))) {
        return SENDER_TLS_ANY;
    }
    return (enum sender_tls)message->tls;
}

struct lane *lane_for(struct relay *relay, uint32_t route, uint32_t domain,
                      const struct message *message)
{
    if (route == NO_INDEX) {
        return relay->lanes.all[relay->lanes.orphan];
    }
    if (!relay->config->routes[route].mx) {
        return relay->lanes.all[route];
    }
    struct lane_key key = {.route = route,
                           .destination = destination_take(relay, route, domain,
                                                           tls_that_counts(relay, route, message)),
                           .pinned_server = NO_INDEX};
    return key.destination == NULL ? NULL : lane_sibling(relay, &key);
}

struct lane *lane_for_address(struct relay *relay, uint32_t route, struct slice address)
{
    struct lane_key key = {.route = route,
                           .pin = PIN_REDIRECT,
                           .pinned_server = NO_INDEX,
                           .redirect = address,
                           .redirect_address = true};
    if (relay->config->routes[route].mx) {
        uint32_t domain = domain_take(relay, domain_of_address(address));
        key.destination =
            domain == INTERN_NONE ? NULL : destination_take(relay, route, domain, SENDER_TLS_ANY);
        intern_drop(&relay->domains, domain);
        if (key.destination == NULL) {
            return NULL;
        }
    }
    return lane_sibling(relay, &key);
}

struct lane *lane_for_doubt(struct relay *relay, const struct lane *base, uint32_t server)
{
    struct lane_key key = {.route = base->route,
                           .destination = base->destination,
                           .pin = PIN_DOUBT,
                           .pinned_server = server,
                           .redirect = intern_text(&relay->redirects, base->redirect),
                           .redirect_address = base->redirect_address};
    return lane_sibling(relay, &key);
}

struct lane *lane_base(struct relay *relay, struct lane *lane)
{
    if (lane->pin != PIN_DOUBT) {
        return lane;
    }
    struct slice redirect = intern_text(&relay->redirects, lane->redirect);
    struct lane_key key = {.route = lane->route,
                           .destination = lane->destination,
                           .pin = redirect.length > 0 ? PIN_REDIRECT : PIN_NONE,
                           .pinned_server = NO_INDEX,
                           .redirect = redirect,
                           .redirect_address = lane->redirect_address};
    struct lane *base = lane_sibling(relay, &key);
    return base == NULL ? lane : base;
}
