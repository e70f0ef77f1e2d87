/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/holding.h"

#include "cluster/balance.h"

#include <stdlib.h>

struct held {
    uint32_t share;
    int64_t token;
    bool leaving; /* the caller knows */
    bool read;    /* in this view, as ours */
};

void holding_init(struct holding *holding)
{
    map_init(&holding->held);
}

void holding_done(struct holding *holding)
{
    size_t cursor = 0;
    for (void *held; (held = map_next(&holding->held, &cursor)) != NULL;) {
        free(held);
    }
    map_done(&holding->held);
}

/* ---- what should be ------------------------------------------------------------------------ */

/* The owner of each share as all members see it. A member that cannot be judged yet counts as up.
 */
static int *wanted_owners(const struct view *view, struct arena *arena)
{
    struct balance_node *nodes = arena_allocate(arena, (view->member_count + 1) * sizeof(*nodes));
    struct balance_share *shares = arena_allocate(arena, (view->share_count + 1) * sizeof(*shares));
    int *wanted = arena_allocate(arena, (view->share_count + 1) * sizeof(*wanted));
    if (nodes == NULL || shares == NULL || wanted == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < view->member_count; i++) {
        const struct view_member *member = &view->members[i];
        nodes[i] = (struct balance_node){
            .number = member->number,
            .roles = member->roles,
            .name = member->name,
            .site = member->site,
            .up = member->has_beat && !member->lapsed,
            .settled = member->up_ms >= BALANCE_SETTLE_MS,
            .draining = member->draining,
        };
    }
    for (size_t i = 0; i < view->share_count; i++) {
        shares[i] = (struct balance_share){view->shares[i].parsed.family,
                                           view->shares[i].parsed.group, view->shares[i].owner};
    }
    balance(nodes, view->member_count, shares, view->share_count, wanted);
    return wanted;
}

/* NULL: nobody's, or of one that is no member any more. */
static const struct view_member *owner_of(const struct view *view, const struct view_share *share)
{
    for (size_t i = 0; i < view->member_count; i++) {
        if (view->members[i].number == share->owner) {
            return &view->members[i];
        }
    }
    return NULL;
}

/* ---- what to do ---------------------------------------------------------------------------- */

struct steps {
    struct holding_step *steps;
    size_t count;
};

static void add_step(struct steps *steps, enum holding_act act, const struct view *view, size_t row,
                     int64_t token)
{
    const struct view_share *share = &view->shares[row];
    const struct view_member *owner = owner_of(view, share);
    steps->steps[steps->count++] = (struct holding_step){
        act, share->number, token, share->owner, owner != NULL ? owner->beat_us : 0, row};
}

static void follow_share(struct holding *holding, const struct view *view, size_t row, int wanted,
                         bool may_claim, struct steps *steps)
{
    const struct view_share *share = &view->shares[row];
    struct held *held = map_get(&holding->held, share->number);
    if (held != NULL && (share->owner != view->own || share->token != held->token)) {
        add_step(steps, HOLDING_LOST, view, row, held->token);
        free(map_remove(&holding->held, share->number));
        held = NULL;
    }
    if (held != NULL) {
        held->read = true;
        if (!held->leaving && wanted != view->own) {
            held->leaving = true;
            add_step(steps, HOLDING_LEAVE, view, row, held->token);
        }
        return;
    }
    bool is_ours = share->owner == view->own;
    if (wanted == view->own) {
        const struct view_member *owner = owner_of(view, share);
        if (may_claim && (is_ours || owner == NULL || !owner->has_beat || owner->lapsed)) {
            add_step(steps, HOLDING_CLAIM, view, row, share->token);
        }
    } else if (is_ours) {
        add_step(steps, HOLDING_RELEASE, view, row, share->token);
    }
}

/* Shares whose row is gone. */
static void lose_unread(struct holding *holding, struct steps *steps)
{
    for (bool found = true; found;) {
        found = false;
        size_t cursor = 0;
        for (struct held *held; !found && (held = map_next(&holding->held, &cursor)) != NULL;) {
            if (!held->read) {
                steps->steps[steps->count++] = (struct holding_step){
                    .act = HOLDING_LOST, .share = held->share, .token = held->token};
                free(map_remove(&holding->held, held->share));
                found = true;
            }
        }
    }
}

enum error holding_follow(struct holding *holding, const struct view *view, bool may_claim,
                          struct arena *arena, struct holding_step **ret_steps, size_t *ret_count)
{
    /* A share is lost and claimed at once, at most. */
    size_t most = 2 * view->share_count + holding->held.count + 1;
    struct steps steps = {arena_allocate(arena, most * sizeof(*steps.steps)), 0};
    const int *wanted = wanted_owners(view, arena);
    if (steps.steps == NULL || wanted == NULL) {
        return ERROR_MEMORY;
    }
    size_t cursor = 0;
    for (struct held *held; (held = map_next(&holding->held, &cursor)) != NULL;) {
        held->read = false;
    }
    for (size_t row = 0; row < view->share_count; row++) {
        follow_share(holding, view, row, wanted[row], may_claim, &steps);
    }
    lose_unread(holding, &steps);
    *ret_steps = steps.steps;
    *ret_count = steps.count;
    return ERROR_NONE;
}

/* ---- the table ----------------------------------------------------------------------------- */

enum error holding_take(struct holding *holding, uint32_t share, int64_t token)
{
    struct held *held = map_get(&holding->held, share);
    if (held != NULL) {
        held->token = token;
        held->leaving = false;
        return ERROR_NONE;
    }
    held = malloc(sizeof(*held));
    if (held == NULL) {
        return ERROR_MEMORY;
    }
    *held = (struct held){.share = share, .token = token};
    enum error error = map_put(&holding->held, share, held);
    if (error != ERROR_NONE) {
        free(held);
    }
    return error;
}

bool holding_left(struct holding *holding, uint32_t share, int64_t *ret_token)
{
    struct held *held = map_remove(&holding->held, share);
    if (held == NULL) {
        return false;
    }
    *ret_token = held->token;
    free(held);
    return true;
}

bool holding_has(const struct holding *holding, uint32_t share, int64_t *ret_token)
{
    const struct held *held = map_get(&holding->held, share);
    if (held != NULL) {
        *ret_token = held->token;
    }
    return held != NULL;
}

size_t holding_count(const struct holding *holding)
{
    return holding->held.count;
}
