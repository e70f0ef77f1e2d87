/* SPDX-License-Identifier: Apache-2.0
 *
 * Who should own what: the same answer on every member that has read the same. A member acts on its
 * own behalf only (cluster/holding.h), so it does no harm that two have read at different times.
 *
 * Shares of one family and group are spread evenly, within one, over the members that suit them
 * best: of `in` those with the role node (of the group's nodes or site, where one of these is up),
 * of `out` gateways, else nodes; the leader is a hub, else a node, else a gateway. A member that
 * drains is the last choice of all. What a member owns it keeps while its part is not more than its
 * due; what has no owner goes where least is missing least movement. What another member owns, and
 * could go on owning, moves only to one that is *settled*: a member that has just returned gets its
 * part once, not each time that it fails to stay.
 */
#ifndef HOLDFAST_CLUSTER_BALANCE_H
#define HOLDFAST_CLUSTER_BALANCE_H

#include "cluster/share.h"

enum {
    NODE_MEMBERS_MAX = 256,    /* of a cluster; more are not counted in */
    BALANCE_SETTLE_MS = 10000, /* up for so long without a break: settled */
};

enum node_role { NODE_ROLE_GATEWAY = 1, NODE_ROLE_NODE = 2, NODE_ROLE_HUB = 4 };

struct balance_node {
    int number; /* > 0 */
    unsigned roles;
    struct slice name;
    struct slice site; /* "": none */
    bool up;
    bool settled;
    bool draining;
};

struct balance_share {
    enum share_family family;
    struct slice group;
    int owner; /* 0: nobody */
};

/* `shares` of one family and group stand together, in an order that is the same on every member; so
 * do `nodes` (at most NODE_MEMBERS_MAX). ret_wanted: a node's number for each share, or 0 where no
 * member that is up may have it. */
void balance(const struct balance_node *nodes, size_t node_count,
             const struct balance_share *shares, size_t share_count, int *ret_wanted);

#endif
