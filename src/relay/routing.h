/* SPDX-License-Identifier: Apache-2.0
 *
 * Which route a delivery takes (DESIGN words "route"): a domain by the recipient, else the first
 * relay whose `from` or AUTH and `senders` match, else none. Pure; used at RCPT by the door and at
 * dispatch by the lanes, so that both always agree.
 */
#ifndef HOLDFAST_RELAY_ROUTING_H
#define HOLDFAST_RELAY_ROUTING_H

#include "base/error.h"
#include "relay/config.h"

struct routing; /* hash tables over a configuration */

struct routing_query {
    struct slice sender;    /* reverse-path, may be empty */
    struct slice recipient; /* forward-path; "postmaster" without a domain is allowed */
    const struct ip_address *client;
    bool authenticated;
    bool own_dsn; /* made by us: leaves by `bounces` unless its recipient is in a domain */
};

/* Keeps a reference to config, which must outlive it. NULL: memory. */
struct routing *routing_new(const struct relay_config *config);
void routing_free(struct routing *routing);
/* Route index or NO_INDEX (to be refused with 550 5.7.1; after acceptance: orphan). */
uint32_t routing_find(const struct routing *routing, const struct routing_query *query);
/* The domain route of a domain name, or NO_INDEX. */
uint32_t routing_domain(const struct routing *routing, struct slice domain);
/* R8: "postmaster", postmaster@hostname or abuse@hostname: accepted from anybody and rewritten to
 * config->postmaster. */
bool routing_is_postmaster(const struct routing *routing, struct slice recipient);
/* True if the client's address is in a relay's `from` (any sender): DSN is offered to it, its
 * sender counts as verified. */
bool routing_is_relay_client(const struct routing *routing, const struct ip_address *client);

#endif
