/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tables (directory.c), their lists (directory_list.c) and their teachers
 * (directory_learn.c) share.
 */
#ifndef HOLDFAST_RELAY_DIRECTORY_INTERNAL_H
#define HOLDFAST_RELAY_DIRECTORY_INTERNAL_H

#include "relay/directory.h"
#include "relay/relay_internal.h"

struct domain_table {
    struct mailboxes *mailboxes;
    uint64_t doubts; /* of the mailboxes, when `taught` was last made empty for them */
    bool everybody;  /* by the list that is being taken */
    size_t length;
    uint8_t domain[];
};

struct directory {
    struct map tables;   /* by hash of the domain */
    struct known taught; /* recipients of whom there is nothing new to learn */
    int64_t taught_ms;   /* steady: since then */
    struct relay_envelopes envelopes;
    struct arena arena;
    uint8_t *source; /* of the list that is being taken; NULL: none is */
    size_t source_length;
};

static inline struct slice directory_domain_of(const struct domain_table *table)
{
    return slice_make(table->domain, table->length);
}

/* The block of a domain, and its index; NULL, NO_INDEX. */
const struct route_config *directory_route(const struct relay *relay, struct slice domain,
                                           uint32_t *ret_index);
/* Something is kept of its recipients. */
bool directory_keeps(const struct route_config *route);
/* The domain whose table it is looked up in. */
struct slice directory_domain(const struct route_config *route, struct slice domain);
/* What an address is called in a table; false: it is too long, or empty. */
bool directory_name(const struct route_config *route, struct slice address, bool whole,
                    uint8_t buffer[MAILBOX_NAME_MAX], struct slice *ret_name);
struct domain_table *directory_find(const struct relay *relay, struct slice domain);
/* NULL: too many, or memory. */
struct domain_table *directory_make(struct relay *relay, struct slice domain);
/* What a list says of all domains of a pattern. */
struct domain_table *directory_pattern_table(const struct relay *relay,
                                             const struct route_config *route, struct slice domain);

/* An address, and what is known of it. */
struct question {
    const struct route_config *route; /* NULL: nothing is kept of it */
    uint32_t index;
    struct slice domain;
    struct domain_table *table; /* NULL: there is none yet */
    struct slice name;
    uint8_t buffer[MAILBOX_NAME_MAX];
};
/* False: nothing is kept of it. */
bool question_make(const struct relay *relay, struct slice address, struct question *ret_question);

/* R8: the head of the chain, or an `authoritative` server. */
bool directory_may_teach(const struct server *server, const uint32_t *chain, uint32_t length);
/* Its name in the tables. */
uint64_t directory_server(const struct relay *relay, const struct server *server);
enum mailboxes_catch directory_catch(const struct relay *relay, const struct domain_table *table,
                                     const struct server *server);

#endif
