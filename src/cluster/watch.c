/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/watch.h"

struct telling {
    struct watch_event *events;
    size_t count;
    int64_t now_ms;
};

static void tell(struct telling *telling, enum watch_kind kind, const struct view_member *member,
                 size_t shares, int64_t after_ms)
{
    telling->events[telling->count++] =
        (struct watch_event){kind, member->number, member->name, shares, after_ms};
}

static void count_shares(struct view *view)
{
    for (size_t i = 0; i < view->member_count; i++) {
        struct view_member *member = &view->members[i];
        member->shares = 0;
        for (size_t row = 0; row < view->share_count; row++) {
            const struct view_share *share = &view->shares[row];
            member->shares +=
                share->owner == member->number && share->parsed.family != SHARE_LEADER;
        }
    }
}

static struct watched *watched_of(struct watch *watch, int number)
{
    struct watched *unused = NULL;
    for (size_t i = 0; i < NODE_MEMBERS_MAX; i++) {
        if (watch->nodes[i].number == number) {
            return &watch->nodes[i];
        }
        if (unused == NULL && watch->nodes[i].number == 0) {
            unused = &watch->nodes[i];
        }
    }
    if (unused != NULL) {
        *unused = (struct watched){.number = number};
    }
    return unused;
}

static const struct watched *find_watched(const struct watch *watch, int number)
{
    for (size_t i = 0; i < NODE_MEMBERS_MAX; i++) {
        if (watch->nodes[i].number == number) {
            return &watch->nodes[i];
        }
    }
    return NULL;
}

/* Those who are no members any more. */
static void forget_others(struct watch *watch, const struct view *view)
{
    for (size_t i = 0; i < NODE_MEMBERS_MAX; i++) {
        bool found = false;
        for (size_t j = 0; j < view->member_count && !found; j++) {
            found = view->members[j].number == watch->nodes[i].number;
        }
        if (!found) {
            watch->nodes[i] = (struct watched){0};
        }
    }
}

/* Lost, and what it owned goes to others. */
static void watch_takeover(struct watched *watched, const struct view_member *member,
                           struct telling *telling)
{
    int64_t after_ms = telling->now_ms - watched->lost_ms;
    if (watched->shares == 0) {
        return;
    }
    if (member->shares == 0) {
        tell(telling, WATCH_TAKEN, member, watched->shares, after_ms);
        watched->shares = 0;
    } else if (!watched->late && telling->now_ms - watched->judged_ms >= WATCH_LATE_MS) {
        watched->late = true;
        tell(telling, WATCH_LATE, member, member->shares, after_ms);
    }
}

/* Judged before, and not heard since: also while we cannot judge anew. */
static bool stays_down(const struct watched *watched)
{
    return watched->down && !watched->left && watched->heartbeat.beat_us == watched->judged_us;
}

static void follow_member(struct watched *watched, struct view_member *member,
                          const struct contact *contact, struct telling *telling)
{
    if (member->has_beat) {
        heartbeat_read(&watched->heartbeat, member->incarnation, member->beat_us, telling->now_ms);
    }
    int64_t unchanged_ms = heartbeat_unchanged_ms(&watched->heartbeat, telling->now_ms);
    member->lapsed = member->has_beat && heartbeat_has_lapsed(&watched->heartbeat, member->age_ms,
                                                              contact, telling->now_ms);
    bool is_gone = !member->has_beat || member->lapsed || stays_down(watched);
    /* The database's clock may have gone back. */
    member->age_ms = member->age_ms > unchanged_ms ? member->age_ms : unchanged_ms;
    member->state = node_state_of(
        &(struct node_read){is_gone, member->age_ms, member->up_ms, member->draining});
    if (is_gone && !watched->down) {
        watched->down = true;
        watched->left = !member->has_beat;
        watched->late = false;
        /* Others may have been quicker than we; who has left gave up what it had. */
        bool were_more = !watched->left && watched->owned > member->shares;
        watched->shares = were_more ? watched->owned : member->shares;
        watched->lost_ms = telling->now_ms - (member->has_beat ? member->age_ms : 0);
        watched->judged_ms = telling->now_ms;
        watched->judged_us = watched->heartbeat.beat_us;
        if (watched->known || watched->shares > 0) {
            tell(telling, watched->left ? WATCH_LEFT : WATCH_DOWN, member, watched->shares,
                 telling->now_ms - watched->lost_ms);
        }
    } else if (!is_gone && watched->down) {
        if (watched->known) {
            tell(telling, WATCH_BACK, member, member->shares, telling->now_ms - watched->lost_ms);
        }
        watched->down = false;
        watched->shares = 0;
    }
    if (!is_gone) {
        watched->owned = member->shares;
    }
    if (watched->down) {
        watch_takeover(watched, member, telling);
    }
    watched->known = watched->known || watched->down || member->state != NODE_SUSPECT;
}

size_t watch_read(struct watch *watch, struct view *view, const struct contact *contact,
                  int64_t now_ms, struct watch_event ret_events[WATCH_EVENTS_MAX])
{
    struct telling telling = {ret_events, 0, now_ms};
    forget_others(watch, view);
    count_shares(view);
    for (size_t i = 0; i < view->member_count; i++) {
        struct watched *watched = watched_of(watch, view->members[i].number);
        if (watched != NULL && view->members[i].number != view->own) {
            follow_member(watched, &view->members[i], contact, &telling);
        } else {
            view->members[i].state = node_state_of(
                &(struct node_read){false, 0, view->members[i].up_ms, view->members[i].draining});
            view->members[i].lapsed = false;
        }
    }
    return telling.count;
}

int64_t watch_due(const struct watch *watch, const struct view *view, int64_t since_ms,
                  struct slice *ret_node)
{
    int64_t due_ms = INT64_MAX;
    for (size_t i = 0; i < view->member_count; i++) {
        const struct view_member *member = &view->members[i];
        int64_t said_ms = member->health.behind_ms >= 0 ? member->health.behind_ms : INT64_MAX;
        const struct watched *watched = find_watched(watch, member->number);
        bool is_own = member->number == view->own;
        bool is_heard = since_ms != INT64_MAX &&
                        (is_own || (watched != NULL && watched->heartbeat.first_ms > since_ms));
        if (!member->has_beat || member->state == NODE_DOWN) {
            continue;
        }
        if (!is_heard && member->beat_us / 1000 - WATCH_UNSAID_MS < said_ms) {
            said_ms = member->beat_us / 1000 - WATCH_UNSAID_MS;
        }
        if (said_ms < due_ms) {
            due_ms = said_ms;
            *ret_node = member->name;
        }
    }
    return due_ms;
}
