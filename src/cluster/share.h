/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares: what a node owns. The share of a recipient is a pure function of the address and of the
 * settings of its route; it must be the same in every version of the program, for mail for one
 * recipient is always in one share, and order is kept within it (docs/decisions/0043).
 *
 *   in:0 .. in:63         recipients of a domain, by a hash of the recipient's domain
 *   out:0 .. out:63       the rest
 *   in@NODES:K            a domain with `nodes`, its names in order and joined by commas: K is 0
 *                         for one of them, else below 16 and by the whole address
 *   in@site=NAME:K        a domain with `site`: K below 16, by the domain
 *   leader                not of recipients: whoever owns it does the periodic work
 *
 * `split` takes the whole address instead of the domain. The hash is SipHash-1-3 (base/hash.h) with
 * a key of zeroes, of the bytes with ASCII letters in lower case, modulo the number of parts: a
 * stranger who chooses addresses may choose their part, which costs no more than mail for one
 * recipient does.
 */
#ifndef HOLDFAST_CLUSTER_SHARE_H
#define HOLDFAST_CLUSTER_SHARE_H

#include "base/error.h"
#include "base/slice.h"

enum {
    SHARE_PARTS = 64,       /* of a family */
    SHARE_GROUP_PARTS = 16, /* of a group of nodes, or of a site */
    SHARE_GROUP_MAX = 400,  /* bytes; names of nodes or of a site */
    SHARE_NAME_MAX = SHARE_GROUP_MAX + 16,
    NODE_NAME_MAX = 63, /* bytes; of a site, too */
};

enum share_family { SHARE_IN, SHARE_OUT, SHARE_LEADER };

/* What a name says. */
struct share_name {
    enum share_family family;
    struct slice group; /* "", "n1,n2" or "site=NAME" */
    unsigned part;
};

/* Letters of ASCII in lower case, digits, and after the first `.`, `-`, `_`: what node and site are
 * called. */
bool node_name_is_good(struct slice name);

/* The group of a domain with `nodes` (count > 0; in any order, repeated ones count once) or with
 * `site`. Writes a NUL, too. ERROR_INVALID: a name is not good. ERROR_LIMIT: too long together. */
enum error share_group_of_nodes(const struct slice *nodes, size_t count,
                                char ret_group[SHARE_GROUP_MAX + 1]) MUST_CHECK;
enum error share_group_of_site(struct slice site, char ret_group[SHARE_GROUP_MAX + 1]) MUST_CHECK;
/* Whether it is a group of nodes that lists this one, or of this site. */
bool share_group_has_node(struct slice group, struct slice node);
bool share_group_has_site(struct slice group, struct slice site);

/* How many parts there are; the group is one that the functions above have made, or empty. */
unsigned share_parts(enum share_family family, struct slice group);
/* The name of the share of a recipient: its address (domain after the last `@`; without one, as in
 * <postmaster>, the domain is empty). `group` is empty for SHARE_OUT. Writes a NUL, too. */
void share_name_of(enum share_family family, struct slice group, bool split, struct slice address,
                   char ret_name[SHARE_NAME_MAX + 1]);
/* Whether it is the name of a share as this version knows them; slices point into `name`. */
bool share_name_parse(struct slice name, struct share_name *ret_name);

#endif
