/* SPDX-License-Identifier: Apache-2.0
 *
 * Routing over hash tables: one entry per configured domain name, holding the route of the name
 * itself and that of its subdomains ("*.name"). A lookup asks for the whole name, then for each of
 * its parents, so the longest match wins and the cost is the number of labels.
 *
 * Strangers choose what is asked, only the configuration chooses what is stored; chains cannot be
 * made long from outside, so the hash needs no secret key.
 */
#include "relay/routing.h"

#include <stdlib.h>

#include "base/hash.h"

enum { DOMAIN_LENGTH_MAX = 255 }; /* RFC 5321 4.5.3.1.2; longer ones match nothing */

struct routing_entry {
    struct slice name; /* length 0: free */
    uint32_t exact;
    uint32_t wild;
};

struct routing {
    const struct relay_config *config;
    struct routing_entry *entries;
    size_t mask;
};

static const struct hash_key table_key = {0x686f6c6466617374ULL, 0x726f7574696e6720ULL};

/* The entry of a name, or the free place where it belongs. The table is never full. */
static struct routing_entry *find_entry(const struct routing *routing, struct slice name)
{
    size_t at = hash_bytes_fold(table_key, name) & routing->mask;
    while (routing->entries[at].name.length > 0 &&
           !slice_equal_fold(routing->entries[at].name, name)) {
        at = (at + 1) & routing->mask;
    }
    return &routing->entries[at];
}

static void add_domain(struct routing *routing, const struct domain_pattern *pattern,
                       uint32_t route)
{
    if (pattern->name.length == 0) {
        return;
    }
    struct routing_entry *entry = find_entry(routing, pattern->name);
    if (entry->name.length == 0) {
        *entry = (struct routing_entry){pattern->name, NO_INDEX, NO_INDEX};
    }
    uint32_t *place = pattern->wild ? &entry->wild : &entry->exact;
    if (*place == NO_INDEX) { /* the first of the file wins */
        *place = route;
    }
}

struct routing *routing_new(const struct relay_config *config)
{
    size_t names = 0;
    for (uint32_t i = 0; i < config->route_count; i++) {
        names += config->routes[i].domain_count;
    }
    size_t capacity = 16;
    while (capacity < 2 * names) {
        capacity *= 2;
    }
    struct routing *routing = calloc(1, sizeof *routing);
    if (routing == NULL) {
        return NULL;
    }
    routing->config = config;
    routing->mask = capacity - 1;
    routing->entries = calloc(capacity, sizeof *routing->entries);
    if (routing->entries == NULL) {
        free(routing);
        return NULL;
    }
    for (uint32_t i = 0; i < config->route_count; i++) {
        const struct route_config *route = &config->routes[i];
        for (uint32_t j = 0; route->kind == ROUTE_DOMAIN && j < route->domain_count; j++) {
            add_domain(routing, &route->domains[j], i);
        }
    }
    return routing;
}

void routing_free(struct routing *routing)
{
    if (routing != NULL) {
        free(routing->entries);
        free(routing);
    }
}

uint32_t routing_domain(const struct routing *routing, struct slice domain)
{
    if (domain.length == 0 || domain.length > DOMAIN_LENGTH_MAX) {
        return NO_INDEX;
    }
    const struct routing_entry *whole = find_entry(routing, domain);
    if (whole->name.length > 0 && whole->exact != NO_INDEX) {
        return whole->exact;
    }
    for (size_t dot = slice_find(domain, '.'); dot < domain.length; dot = slice_find(domain, '.')) {
        domain = slice_skip(domain, dot + 1);
        if (domain.length == 0) {
            break;
        }
        const struct routing_entry *entry = find_entry(routing, domain);
        if (entry->name.length > 0 && entry->wild != NO_INDEX) {
            return entry->wild;
        }
    }
    return NO_INDEX;
}

/* The part behind the last @ (a quoted local part may hold others); empty without one. */
static struct slice domain_of(struct slice address)
{
    return slice_skip(address, slice_find_last(address, '@') + 1);
}

static struct slice local_part_of(struct slice address)
{
    return slice_take(address, slice_find_last(address, '@'));
}

static bool network_matches(const struct route_config *route, const struct ip_address *client)
{
    for (uint32_t i = 0; client != NULL && i < route->from_count; i++) {
        if (ip_network_contains(&route->from[i], client)) {
            return true;
        }
    }
    return false;
}

static bool sender_matches(const struct route_config *route, struct slice sender)
{
    for (uint32_t i = 0; i < route->sender_count; i++) {
        if (slice_matches_fold(sender, route->senders[i].text)) {
            return true;
        }
    }
    return route->sender_count == 0;
}

static uint32_t find_relay(const struct routing *routing, const struct routing_query *query)
{
    const struct relay_config *config = routing->config;
    for (uint32_t i = 0; i < config->route_count; i++) {
        const struct route_config *route = &config->routes[i];
        if (route->kind == ROUTE_RELAY &&
            ((query->authenticated && route->any_user) || network_matches(route, query->client)) &&
            sender_matches(route, query->sender)) {
            return i;
        }
    }
    return NO_INDEX;
}

uint32_t routing_find(const struct routing *routing, const struct routing_query *query)
{
    const struct relay_config *config = routing->config;
    struct slice recipient = query->recipient;
    if (routing_is_postmaster(routing, recipient)) {
        recipient = config->postmaster;
    }
    uint32_t route = routing_domain(routing, domain_of(recipient));
    if (route != NO_INDEX) {
        return route;
    }
    if (slice_find_last(recipient, '@') == recipient.length) {
        return NO_INDEX; /* an address without a domain belongs to nobody */
    }
    if (query->own_dsn) {
        return config->bounces;
    }
    route = find_relay(routing, query);
    if (route == NO_INDEX && slice_equal_fold(recipient, config->postmaster)) {
        /* R8: postmaster mail is accepted from anybody, so it needs a way out even when the
         * operator reads it elsewhere. */
        route = config->bounces;
    }
    return route;
}

bool routing_is_postmaster(const struct routing *routing, struct slice recipient)
{
    const struct relay_config *config = routing->config;
    if (slice_equal_fold(recipient, SLICE_LITERAL("postmaster"))) {
        return true;
    }
    struct slice local = local_part_of(recipient);
    return local.length < recipient.length &&
           slice_equal_fold(domain_of(recipient), config->hostname) &&
           (slice_equal_fold(local, SLICE_LITERAL("postmaster")) ||
            slice_equal_fold(local, SLICE_LITERAL("abuse")));
}

bool routing_is_relay_client(const struct routing *routing, const struct ip_address *client)
{
    for (uint32_t i = 0; i < routing->config->route_count; i++) {
        const struct route_config *route = &routing->config->routes[i];
        if (route->kind == ROUTE_RELAY && network_matches(route, client)) {
            return true;
        }
    }
    return false;
}
