/* SPDX-License-Identifier: Apache-2.0
 *
 * Who is blocked and who is let through, whatever else is thought of him: the operator's own rules
 * by client, HELO and sender. A rule holds when everything that it names holds; among those that
 * hold, one that allows comes before one that blocks, then the first of the file. Pure.
 */
#ifndef HOLDFAST_RELAY_ACCESS_H
#define HOLDFAST_RELAY_ACCESS_H

#include "base/hash.h"
#include "base/network.h"

struct access_rule {
    struct slice name;
    bool allows; /* else blocks */
    /* NULL: not named. */
    const struct ip_network *clients;
    const struct slice *helos;   /* patterns, as base/pattern_set.h takes them */
    const struct slice *senders; /* likewise */
    uint32_t client_count, helo_count, sender_count;
    struct slice text; /* told to who is blocked; empty: nothing of its own */
};

struct access; /* tables over the rules */

/* What is known of a session so far. */
struct access_query {
    const struct ip_address *client;
    bool has_helo;
    bool has_sender;
    struct slice helo;
    struct slice sender; /* reverse-path, may be empty: then the pattern "<>" matches */
};

/* Keeps the rules, which must outlive it. NULL: memory. */
struct access *access_new(struct hash_key key, const struct access_rule *rules, uint32_t count);
void access_free(struct access *access);
/* The rule that holds, or NULL. A rule that names what is not known yet does not hold. */
const struct access_rule *access_find(const struct access *access,
                                      const struct access_query *query);

#endif
