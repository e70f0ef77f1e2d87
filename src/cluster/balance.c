/* SPDX-License-Identifier: Apache-2.0
 *
 * Class by class (a family and group). Each share is *placed* (its owner is one of the candidates),
 * *misplaced* (its owner may have it, but others suit it better) or *free*. Each candidate's due is
 * the number of shares over the number of candidates, and one more for as many as there is a rest,
 * first for those who own most. Then, in this order and as long as a due is not reached: free
 * shares go to any candidate; misplaced ones, and those that a candidate owns beyond its due, to
 * settled ones only. What finds no place stays where it is.
 *
 * If all dues were kept and one candidate goes, no other owns more than its new due: only the
 * shares of the one that went move.
 */
#include "cluster/balance.h"

#include <assert.h>

enum { NOBODY = -1, RANK_NEVER = 100, RANK_DRAINING = 10 };

struct candidate {
    bool in_class; /* of those that suit best */
    size_t owned;  /* placed, and given by now */
    size_t due;
    bool has_rest; /* one of those with one more */
};

struct balancing {
    const struct balance_node *nodes;
    size_t node_count;
    const struct balance_share *shares; /* of the class */
    size_t share_count;
    int *wanted;
    int ranks[NODE_MEMBERS_MAX];
    int best;
    struct candidate candidates[NODE_MEMBERS_MAX];
    size_t totals[NODE_MEMBERS_MAX]; /* over the classes so far */
};

/* How well a node suits a class; the lowest is best. */
static int rank_of(const struct balance_node *node, const struct balance_share *share)
{
    bool is_node = (node->roles & NODE_ROLE_NODE) != 0;
    bool is_hub = (node->roles & NODE_ROLE_HUB) != 0;
    bool is_gateway = (node->roles & NODE_ROLE_GATEWAY) != 0;
    int rank = RANK_NEVER;
    switch (share->family) {
    case SHARE_IN:
        if (is_node) {
            bool is_preferred = share->group.length == 0 ||
                                share_group_has_node(share->group, node->name) ||
                                share_group_has_site(share->group, node->site);
            rank = is_preferred ? 0 : 1;
        }
        break;
    case SHARE_OUT:
        rank = is_gateway ? 0 : is_node ? 1 : RANK_NEVER;
        break;
    case SHARE_LEADER:
        rank = is_hub ? 0 : is_node ? 1 : is_gateway ? 2 : RANK_NEVER;
        break;
    }
    return !node->up || rank == RANK_NEVER ? RANK_NEVER
                                           : rank + (node->draining ? RANK_DRAINING : 0);
}

static int index_of(const struct balancing *b, int number)
{
    for (size_t i = 0; number != 0 && i < b->node_count; i++) {
        if (b->nodes[i].number == number) {
            return (int)i;
        }
    }
    return NOBODY;
}

/* ---- who is asked ------------------------------------------------------------------------- */

static void rank_nodes(struct balancing *b)
{
    b->best = RANK_NEVER;
    for (size_t i = 0; i < b->node_count; i++) {
        b->ranks[i] = rank_of(&b->nodes[i], &b->shares[0]);
        b->best = b->ranks[i] < b->best ? b->ranks[i] : b->best;
    }
    for (size_t i = 0; i < b->node_count; i++) {
        b->candidates[i] =
            (struct candidate){.in_class = b->best != RANK_NEVER && b->ranks[i] == b->best};
    }
}

enum place { PLACE_FREE, PLACE_MISPLACED, PLACE_PLACED };

/* Where a share is now; *ret_owner is the index of a member that may go on owning it, or NOBODY. A
 * member that drains leaves what it has, if there is one that does not. */
static enum place place_of(const struct balancing *b, const struct balance_share *share,
                           int *ret_owner)
{
    int owner = index_of(b, share->owner);
    *ret_owner = NOBODY;
    if (owner == NOBODY || b->ranks[owner] == RANK_NEVER ||
        (b->ranks[owner] >= RANK_DRAINING && b->best < RANK_DRAINING)) {
        return PLACE_FREE;
    }
    *ret_owner = owner;
    return b->candidates[owner].in_class ? PLACE_PLACED : PLACE_MISPLACED;
}

/* ---- dues --------------------------------------------------------------------------------- */

static bool gets_rest_before(const struct balancing *b, size_t a, size_t other)
{
    const struct candidate *x = &b->candidates[a];
    const struct candidate *y = &b->candidates[other];
    if (x->owned != y->owned) {
        return x->owned > y->owned;
    }
    if (b->nodes[a].settled != b->nodes[other].settled) {
        return b->nodes[a].settled;
    }
    if (b->totals[a] != b->totals[other]) {
        return b->totals[a] < b->totals[other];
    }
    return b->nodes[a].number < b->nodes[other].number;
}

static void set_dues(struct balancing *b)
{
    size_t asked = 0;
    for (size_t i = 0; i < b->node_count; i++) {
        asked += b->candidates[i].in_class ? 1 : 0;
    }
    for (size_t i = 0; i < b->node_count; i++) {
        b->candidates[i].due = b->candidates[i].in_class ? b->share_count / asked : 0;
    }
    for (size_t rest = b->share_count % asked; rest > 0; rest--) {
        int first = NOBODY;
        for (size_t i = 0; i < b->node_count; i++) {
            if (b->candidates[i].in_class && !b->candidates[i].has_rest &&
                (first == NOBODY || gets_rest_before(b, i, (size_t)first))) {
                first = (int)i;
            }
        }
        assert(first != NOBODY);
        b->candidates[first].has_rest = true;
        b->candidates[first].due++;
    }
}

/* ---- giving ------------------------------------------------------------------------------- */

/* Who misses most of its due; NOBODY: all have it. */
static int who_misses(const struct balancing *b, bool settled_only)
{
    int most = NOBODY;
    size_t missing = 0;
    for (size_t i = 0; i < b->node_count; i++) {
        const struct candidate *candidate = &b->candidates[i];
        if (candidate->in_class && candidate->due > candidate->owned &&
            candidate->due - candidate->owned > missing && (b->nodes[i].settled || !settled_only)) {
            most = (int)i;
            missing = candidate->due - candidate->owned;
        }
    }
    return most;
}

static bool give(struct balancing *b, size_t share, bool settled_only)
{
    int to = who_misses(b, settled_only);
    if (to == NOBODY) {
        return false;
    }
    b->candidates[to].owned++;
    b->wanted[share] = b->nodes[to].number;
    return true;
}

static void give_all(struct balancing *b, enum place wanted_place)
{
    for (size_t i = 0; i < b->share_count; i++) {
        int owner = NOBODY;
        if (place_of(b, &b->shares[i], &owner) == wanted_place) {
            (void)give(b, i, wanted_place == PLACE_MISPLACED);
        }
    }
}

/* From the end, so that what is kept is the same each time. */
static void give_excess(struct balancing *b)
{
    for (size_t i = b->share_count; i > 0; i--) {
        int owner = NOBODY;
        if (place_of(b, &b->shares[i - 1], &owner) == PLACE_PLACED &&
            b->candidates[owner].owned > b->candidates[owner].due && give(b, i - 1, true)) {
            b->candidates[owner].owned--;
        }
    }
}

static void balance_class(struct balancing *b)
{
    rank_nodes(b);
    for (size_t i = 0; i < b->share_count; i++) {
        int owner = NOBODY;
        if (place_of(b, &b->shares[i], &owner) == PLACE_PLACED) {
            b->candidates[owner].owned++;
        }
        b->wanted[i] = owner == NOBODY ? 0 : b->nodes[owner].number;
    }
    if (b->best == RANK_NEVER) {
        return;
    }
    set_dues(b);
    give_all(b, PLACE_FREE);
    give_all(b, PLACE_MISPLACED);
    give_excess(b);
    for (size_t i = 0; i < b->node_count; i++) {
        b->totals[i] += b->candidates[i].owned;
    }
}

void balance(const struct balance_node *nodes, size_t node_count,
             const struct balance_share *shares, size_t share_count, int *ret_wanted)
{
    assert(node_count <= NODE_MEMBERS_MAX);
    struct balancing b = {.nodes = nodes, .node_count = node_count};
    for (size_t first = 0, end; first < share_count; first = end) {
        for (end = first + 1; end < share_count; end++) {
            if (shares[end].family != shares[first].family ||
                !slice_equal(shares[end].group, shares[first].group)) {
                break;
            }
        }
        b.shares = shares + first;
        b.share_count = end - first;
        b.wanted = ret_wanted + first;
        balance_class(&b);
    }
}
