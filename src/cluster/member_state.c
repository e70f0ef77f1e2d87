/* SPDX-License-Identifier: Apache-2.0
 *
 * What is known now: of the lease, of what we hold, of the others. Nothing changes by asking.
 */
#include "cluster/member_internal.h"

#include "sys/clock.h"

bool member_may(const struct member *member, uint32_t share, int64_t token)
{
    int64_t held = 0;
    return holding_has(&member->holding, share, &held) && held == token &&
           lease_allows(&member->lease, member_now(&member->settings));
}

bool member_leads(const struct member *member)
{
    for (size_t i = 0; i < member->view.share_count; i++) {
        const struct view_share *share = &member->view.shares[i];
        int64_t token;
        if (share->parsed.family == SHARE_LEADER) {
            return holding_has(&member->holding, share->number, &token) &&
                   lease_allows(&member->lease, member_now(&member->settings));
        }
    }
    return false;
}

void member_due(const struct member *member, struct member_due *ret_due)
{
    bool is_known = member->contact.made && member->doubted_ms == 0;
    *ret_due = (struct member_due){.until_xid = member->view.until_xid,
                                   .asked_ms = member->view_asked_ms,
                                   .takes = member->job.claim_count > 0};
    ret_due->upto_ms = watch_due(&member->watch, &member->view,
                                 is_known ? member->known_ms : INT64_MAX, &ret_due->node);
}

int64_t member_told_ms(const struct member *member)
{
    if (!member->alive || member->away || member_lease_left_ms(member) == 0) {
        return INT64_MIN;
    }
    bool is_read =
        member->told_since_ms != 0 && clock_steady_ms() - member->told_since_ms >= MEMBER_READ_MS;
    return is_read ? member->told_ms : INT64_MAX;
}

int64_t member_lease_left_ms(const struct member *member)
{
    return lease_left_ms(&member->lease, member_now(&member->settings));
}

int member_number(const struct member *member)
{
    return member->number;
}

int64_t member_clock_ahead_ms(const struct member *member)
{
    return member->clock_ahead_ms;
}

bool member_database_time(const struct member *member, struct lease_time *ret_time)
{
    *ret_time = member->database_time;
    return member->database_time.wall_ms != 0;
}

int64_t member_age_ms(const struct member *member)
{
    return member->view_ms == 0 ? -1 : clock_steady_ms() - member->view_ms;
}

const char *member_refusal(const struct member *member)
{
    return member->refused;
}

bool member_node_at(const struct member *member, size_t i, struct member_node *ret_node)
{
    if (member == NULL || i >= member->view.member_count) {
        return false;
    }
    const struct view *view = &member->view;
    const struct view_member *node = &view->members[i];
    int leader = 0;
    for (size_t s = 0; s < view->share_count; s++) {
        leader = view->shares[s].parsed.family == SHARE_LEADER ? view->shares[s].owner : leader;
    }
    *ret_node = (struct member_node){
        .number = node->number,
        .name = node->name,
        .site = node->site,
        .role = node->roles,
        .state = node->state,
        .version = node->version,
        .place = node->place,
        .last_contact = node->beat_us == 0 ? -1 : node->age_ms / 1000,
        .lanes = node->shares,
        .leader = node->number == leader,
        .draining = node->draining,
        .health = node->health,
    };
    return true;
}

struct slice member_owner_of(const struct member *member, struct slice share)
{
    const struct view *view = &member->view;
    int owner = 0;
    for (size_t i = 0; i < view->share_count; i++) {
        owner = slice_equal(view->shares[i].name, share) ? view->shares[i].owner : owner;
    }
    for (size_t i = 0; owner != 0 && i < view->member_count; i++) {
        if (view->members[i].number == owner) {
            return view->members[i].name;
        }
    }
    return SLICE_EMPTY;
}
