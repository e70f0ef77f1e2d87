/* SPDX-License-Identifier: Apache-2.0
 *
 * Where mail goes by a configuration that is to come. Only an envelope says which relay a delivery
 * takes, and each is a read of the journal: too much for one go with a million of them queued. So
 * they are read ahead, in slices, while the old configuration is in force.
 *
 * What is found hangs on envelope and configuration alone, and neither changes, so that nothing
 * that happens meanwhile makes it wrong; only a place in the slab may be given to another delivery.
 * What has been missed, mail put between what was seen already, foresight_complete() reads.
 */
#include <stdlib.h>

#include "relay/relay_internal.h"

enum { SEEN_A_SLICE = 16384 }; /* messages whose envelope is not wanted cost next to nothing */

/* ---- what has changed ---------------------------------------------------------------------- */

static bool same_networks(const struct route_config *a, const struct route_config *b)
{
    if (a->from_count != b->from_count) {
        return false;
    }
    for (uint32_t i = 0; i < a->from_count; i++) {
        if (!ip_equal(&a->from[i].address, &b->from[i].address) ||
            a->from[i].prefix != b->from[i].prefix) {
            return false;
        }
    }
    return true;
}

static bool same_senders(const struct route_config *a, const struct route_config *b)
{
    if (a->sender_count != b->sender_count) {
        return false;
    }
    for (uint32_t i = 0; i < a->sender_count; i++) {
        if (!slice_equal(a->senders[i].text, b->senders[i].text)) {
            return false;
        }
    }
    return true;
}

static uint32_t next_relay(const struct relay_config *config, uint32_t from)
{
    while (from < config->route_count && config->routes[from].kind != ROUTE_RELAY) {
        from++;
    }
    return from;
}

static bool same_bounces(const struct relay_config *a, const struct relay_config *b)
{
    if (a->bounces == NO_INDEX || b->bounces == NO_INDEX) {
        return a->bounces == b->bounces;
    }
    return slice_equal(a->routes[a->bounces].name, b->routes[b->bounces].name);
}

/* Both choose the relay of the same name for every message. */
static bool same_relays(const struct relay_config *a, const struct relay_config *b)
{
    uint32_t i = next_relay(a, 0), j = next_relay(b, 0);
    while (i < a->route_count && j < b->route_count) {
        const struct route_config *one = &a->routes[i], *other = &b->routes[j];
        if (!slice_equal(one->name, other->name) || one->any_user != other->any_user ||
            !same_networks(one, other) || !same_senders(one, other)) {
            return false;
        }
        i = next_relay(a, i + 1);
        j = next_relay(b, j + 1);
    }
    return i == a->route_count && j == b->route_count && same_bounces(a, b) &&
           slice_equal_fold(a->postmaster, b->postmaster) &&
           slice_equal_fold(a->hostname, b->hostname);
}

/* ---- looking ahead ------------------------------------------------------------------------- */

static bool make_room(struct relay *relay)
{
    struct foresight *foresight = &relay->foresight;
    uint32_t need = relay->delivery_used;
    if (need <= foresight->room) {
        return true;
    }
    need = need < UINT32_MAX / 2 ? need + need / 8 : need;
    uint32_t *more = realloc(foresight->routes, (size_t)need * sizeof *more);
    if (more == NULL) {
        return false;
    }
    for (uint32_t i = foresight->room; i < need; i++) {
        more[i] = UNFORESEEN;
    }
    foresight->routes = more;
    foresight->room = need;
    return true;
}

static bool wants_envelope(const struct relay *relay, uint32_t number)
{
    const struct foresight *foresight = &relay->foresight;
    const struct delivery *delivery = delivery_at(relay, number);
    struct slice domain = intern_text(&relay->domains, delivery->domain);
    if (foresight->routes[number] != UNFORESEEN ||
        routing_domain(foresight->routing, domain) != NO_INDEX) {
        return false;
    }
    uint32_t route = lane_of(relay, delivery)->route;
    return !foresight->relays_same || route == NO_INDEX ||
           relay->config->routes[route].kind != ROUTE_RELAY;
}

static uint32_t route_of(const struct routing *routing, const struct spool_message *envelope,
                         uint32_t recipient)
{
    const struct routing_query query = {
        .sender = envelope->sender,
        .recipient = envelope->recipients[recipient].address,
        .client = &envelope->origin.client.address,
        .authenticated = envelope->origin.user.length > 0,
        .own_dsn = (envelope->flags & SPOOL_OWN_DSN) != 0,
    };
    return routing_find(routing, &query);
}

/* True: its envelope was read. One that cannot be leaves its mail where it is. */
static bool look_at(struct relay *relay, const struct relay_envelopes *envelopes, uint32_t index)
{
    struct foresight *foresight = &relay->foresight;
    const struct message *message = message_at(relay, index);
    struct spool_message envelope;
    bool is_read = false, good = false;
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        uint32_t number = delivery_number(message, i);
        if (number == NOBODY || !wants_envelope(relay, number)) {
            continue;
        }
        if (!is_read) {
            is_read = true;
            arena_reset(&foresight->arena);
            good = envelopes != NULL &&
                   envelopes->read(envelopes->context, (struct spool_handle){index},
                                   &foresight->arena, &envelope) == ERROR_NONE;
        }
        if (good && i < envelope.recipient_count) {
            foresight->routes[number] = route_of(foresight->routing, &envelope, i);
        }
    }
    return is_read;
}

void foresight_drop(struct relay *relay)
{
    routing_free(relay->foresight.routing);
    free(relay->foresight.routes);
    arena_done(&relay->foresight.arena);
    relay->foresight = (struct foresight){.next = NOBODY};
    arena_init(&relay->foresight.arena);
}

enum error relay_foresee(struct relay *relay, const struct relay_config *config)
{
    struct foresight *foresight = &relay->foresight;
    foresight_drop(relay);
    foresight->routing = routing_new(config);
    if (foresight->routing == NULL) {
        return ERROR_MEMORY;
    }
    foresight->config = config;
    foresight->relays_same = same_relays(relay->config, config);
    foresight->next = relay->first_message;
    return ERROR_NONE;
}

bool relay_foresee_slice(struct relay *relay, const struct relay_envelopes *envelopes,
                         uint32_t reads)
{
    struct foresight *foresight = &relay->foresight;
    if (foresight->next == NOBODY || !make_room(relay)) {
        return true; /* without memory it is said by relay_reconfigure() */
    }
    for (uint32_t seen = 0; foresight->next != NOBODY && reads > 0 && seen < SEEN_A_SLICE; seen++) {
        uint32_t index = foresight->next;
        foresight->next = message_at(relay, index)->next;
        reads -= look_at(relay, envelopes, index);
    }
    return foresight->next == NOBODY;
}

bool foresight_complete(struct relay *relay, const struct relay_config *config,
                        const struct relay_envelopes *envelopes)
{
    if ((relay->foresight.config != config && relay_foresee(relay, config) != ERROR_NONE) ||
        !make_room(relay)) {
        return false;
    }
    for (uint32_t at = relay->first_message; at != NOBODY; at = message_at(relay, at)->next) {
        look_at(relay, envelopes, at);
    }
    return true;
}

uint32_t foresight_route(const struct relay *relay, uint32_t number)
{
    return relay->foresight.routes[number];
}

struct routing *foresight_routing(struct relay *relay)
{
    struct routing *routing = relay->foresight.routing;
    relay->foresight.routing = NULL;
    return routing;
}

void foresight_renew(struct relay *relay, uint32_t number)
{
    if (number < relay->foresight.room) {
        relay->foresight.routes[number] = UNFORESEEN;
    }
}

void foresight_forget(struct relay *relay, uint32_t message)
{
    if (relay->foresight.next == message) {
        relay->foresight.next = message_at(relay, message)->next;
    }
}
