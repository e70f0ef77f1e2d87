/* SPDX-License-Identifier: Apache-2.0
 *
 * Fire drills: when one may begin, what ends it, and what is counted meanwhile. lane_choose() names
 * no server for a lane that is frozen; that is all that holds its mail.
 */
#include "relay/freeze.h"

#include <stdlib.h>

#include "relay/notes.h"
#include "relay/relay_internal.h"

enum { FREEZE_RECIPIENTS_MAX = 1 << 16 }; /* whose order is watched: memory */

struct freeze {
    bool frozen;           /* else what was held drains */
    bool started;          /* told */
    int64_t thaw_due_ms;   /* steady */
    int64_t until_wall_ms; /* for people */
    int64_t thawed_ms;     /* steady */
    uint64_t mark;         /* what was accepted up to this sequence was held at the thaw */
    struct relay_rehearsal seen;
    struct map last; /* recipient -> sequence of the message last delivered to him */
};

const char *relay_thaw_text(enum relay_thaw why)
{
    static const char *const texts[] = {"time", "stop", "failure", "storage"};
    return texts[why];
}

/* ---- one route's -------------------------------------------------------------------------- */

/* It is the route's first lane's, and is there for all of them (those of a domain's further names
 * under MX routing, those of doubts) but redirected ones. NULL: none. */
static struct freeze *freeze_of(const struct relay *relay, const struct lane *lane)
{
    return lane->route == NO_INDEX || lane->redirect != INTERN_NONE
               ? NULL
               : relay->lanes.all[lane->route]->freeze;
}

/* One whose mail a drill counts. */
static bool is_counted(const struct lane *lane, uint32_t route)
{
    return lane->route == route && lane->pin == PIN_NONE;
}

bool lane_is_frozen(const struct relay *relay, const struct lane *lane)
{
    const struct freeze *freeze = freeze_of(relay, lane);
    return freeze != NULL && freeze->frozen;
}

int64_t lane_frozen_until(const struct relay *relay, const struct lane *lane)
{
    return lane_is_frozen(relay, lane) ? freeze_of(relay, lane)->until_wall_ms : 0;
}

void freeze_free(struct lane *lane)
{
    if (lane->freeze != NULL) {
        map_done(&lane->freeze->last);
        free(lane->freeze);
        lane->freeze = NULL;
    }
}

static void arm(struct relay *relay)
{
    relay->thaw_due_ms = INT64_MAX;
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        const struct freeze *freeze = relay->lanes.all[i]->freeze;
        if (freeze != NULL && freeze->frozen && freeze->thaw_due_ms < relay->thaw_due_ms) {
            relay->thaw_due_ms = freeze->thaw_due_ms;
        }
    }
}

static void write_note(struct relay *relay, const struct lane *lane, const struct freeze *freeze)
{
    buffer_clear(&relay->scratch);
    if (!note_freeze_key(&relay->scratch, lane->name)) {
        return;
    }
    struct slice key = action_copy(relay, buffer_slice(&relay->scratch));
    buffer_clear(&relay->scratch);
    if (freeze != NULL) {
        note_encode_freeze(&relay->scratch, freeze->seen.began_wall_ms, freeze->until_wall_ms);
    }
    struct relay_action *action = action_add(relay, RELAY_GLOBAL);
    action->key = key;
    action->payload = action_copy(relay, buffer_slice(&relay->scratch));
}

static struct freeze *begin(struct lane *lane, int64_t began_wall_ms, int64_t until_wall_ms,
                            int64_t thaw_due_ms)
{
    struct freeze *freeze = calloc(1, sizeof *freeze);
    if (freeze != NULL) {
        freeze->frozen = true;
        freeze->thaw_due_ms = thaw_due_ms;
        freeze->until_wall_ms = until_wall_ms;
        freeze->seen = (struct relay_rehearsal){
            .began_wall_ms = began_wall_ms, .first_ms = -1, .drained_ms = -1};
        map_init(&freeze->last);
        freeze_free(lane);
        lane->freeze = freeze;
    }
    return freeze;
}

static void tell_frozen(struct relay *relay, const struct lane *lane)
{
    struct relay_action *event = action_event(relay, RELAY_EVENT_FROZEN);
    event->lane = action_copy(relay, lane->name);
    event->next_wall_ms = lane->freeze->until_wall_ms;
    lane->freeze->started = true;
}

/* ---- when it may begin -------------------------------------------------------------------- */

static bool has_mail(const struct relay *relay, uint32_t route)
{
    uint64_t deliveries = 0;
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        const struct lane *lane = relay->lanes.all[i];
        bool counts = lane->route == route && lane->redirect == INTERN_NONE;
        deliveries += counts ? lane->deliveries : 0;
    }
    return deliveries > 0;
}

/* Dead letters wait for nobody, and what was redirected is another lane's. A walk over all that is
 * queued: drills are rare. */
static bool has_old_mail(const struct relay *relay, uint32_t route)
{
    int64_t old_ms = relay->now.wall_ms - RELAY_FREEZE_OLD_MS;
    uint32_t first = has_mail(relay, route) ? relay->oldest : NOBODY;
    for (uint32_t at = first; at != NOBODY; at = message_at(relay, at)->next) {
        const struct message *message = message_at(relay, at);
        for (uint32_t i = 0; message->received_ms <= old_ms && i < message->recipient_count; i++) {
            uint32_t number = delivery_number(message, i);
            const struct delivery *delivery = number == NOBODY ? NULL : delivery_at(relay, number);
            if (delivery != NULL && delivery->state != DELIVERY_DEAD &&
                lane_of(relay, delivery)->route == route &&
                lane_of(relay, delivery)->redirect == INTERN_NONE) {
                return true;
            }
        }
    }
    return false;
}

static bool any_server_up(const struct relay *relay, const struct lane *lane)
{
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, lane, &length);
    for (uint32_t i = 0; i < length; i++) {
        if (server_at(relay, chain[i])->state == SERVER_UP) {
            return true;
        }
    }
    return false;
}

/* Where another server stands in for the first of a configured chain, that is an outage. Of what MX
 * records name, some are often away: NULL. */
static const struct server *head_of(const struct relay *relay, const struct lane *lane)
{
    return lane->destination != NULL ? NULL : server_at(relay, lane_chain_head(relay, lane));
}

static bool is_well(const struct relay *relay, const struct lane *lane)
{
    const struct server *head = head_of(relay, lane);
    return head != NULL ? head->state == SERVER_UP : any_server_up(relay, lane);
}

bool freeze_must_end(const struct relay *relay, const struct lane *lane)
{
    if (lane->freeze == NULL || !lane->freeze->frozen) {
        return false;
    }
    const struct server *head = head_of(relay, lane);
    return lane_is_stopped(relay, lane) ||
           (head != NULL && (head->state == SERVER_DOWN || head->state == SERVER_DISABLED));
}

static bool drains(const struct relay *relay, uint32_t route)
{
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        if (is_counted(relay->lanes.all[i], route) && relay->lanes.all[i]->draining) {
            return true;
        }
    }
    return false;
}

static enum relay_freeze_bar bar(const struct relay *relay, const struct lane *lane)
{
    if (!relay->started) {
        return RELAY_FREEZE_LOADING;
    }
    if (lane->freeze != NULL) {
        return RELAY_FREEZE_STANDS;
    }
    if (lane_is_stopped(relay, lane)) {
        return RELAY_FREEZE_STOPPED;
    }
    if (!is_well(relay, lane)) {
        return RELAY_FREEZE_NO_SERVER;
    }
    if (drains(relay, lane->route)) {
        return RELAY_FREEZE_DRAINING;
    }
    return has_old_mail(relay, lane->route) ? RELAY_FREEZE_OLD_MAIL : RELAY_FREEZE_DONE;
}

static void place_all(struct relay *relay, uint32_t route)
{
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        if (relay->lanes.all[i]->route == route) {
            lane_place(relay, relay->lanes.all[i]);
        }
    }
    odometers_turn(relay);
}

enum relay_freeze_bar relay_freeze(struct relay *relay, uint32_t route, int64_t ms,
                                   struct relay_time now)
{
    assert(route < relay->config->route_count && ms <= RELAY_FREEZE_MAX_MS);
    relay_begin(relay, now);
    struct lane *lane = relay->lanes.all[route];
    enum relay_freeze_bar found = bar(relay, lane);
    if (found != RELAY_FREEZE_DONE) {
        return found;
    }
    struct freeze *freeze = begin(lane, now.wall_ms, now.wall_ms + ms, now.steady_ms + ms);
    if (freeze == NULL) {
        return RELAY_FREEZE_MEMORY;
    }
    arm(relay);
    write_note(relay, lane, freeze);
    tell_frozen(relay, lane);
    place_all(relay, route);
    relay_settle(relay);
    return RELAY_FREEZE_DONE;
}

/* ---- a restart ---------------------------------------------------------------------------- */

void freeze_load(struct relay *relay, struct slice name, struct slice payload)
{
    int64_t began_ms, until_ms;
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        struct lane *lane = relay->lanes.all[i];
        if (!slice_equal(lane->name, name)) {
            continue;
        }
        freeze_free(lane);
        if (!note_decode_freeze(payload, &began_ms, &until_ms) || began_ms < 0 ||
            until_ms < began_ms || until_ms - began_ms > RELAY_FREEZE_MAX_MS) {
            return;
        }
        /* A clock that has been set back to before it began would prolong it: then it is over. */
        int64_t left = relay->now.wall_ms < began_ms ? 0 : until_ms - relay->now.wall_ms;
        left = left > 0 ? left : 0;
        /* Without memory the drill is over. */
        (void)begin(lane, began_ms, relay->now.wall_ms + left, relay->now.steady_ms + left);
    }
}

void freezes_start(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        if (relay->lanes.all[i]->freeze != NULL && !relay->lanes.all[i]->freeze->started) {
            tell_frozen(relay, relay->lanes.all[i]);
        }
    }
    arm(relay);
}

/* ---- the end ------------------------------------------------------------------------------ */

static void rehearsed(struct relay *relay, struct lane *lane)
{
    struct relay_action *event = action_event(relay, RELAY_EVENT_REHEARSED);
    struct slice copy =
        action_copy(relay, slice_make(&lane->freeze->seen, sizeof lane->freeze->seen));
    event->lane = action_copy(relay, lane->name);
    event->rehearsal = copy;
    event->count = lane->freeze->seen.delivered;
    event->duration_ms = lane->freeze->seen.drained_ms;
    freeze_free(lane);
}

static void tell_thawed(struct relay *relay, const struct lane *lane)
{
    const struct freeze *freeze = lane->freeze;
    struct relay_action *event = action_event(relay, RELAY_EVENT_THAWED);
    event->lane = action_copy(relay, lane->name);
    event->count = freeze->seen.held;
    event->reason = slice_from_text(relay_thaw_text(freeze->seen.ended));
}

/* Returns how much waited. */
static uint64_t drain_all(struct relay *relay, uint32_t route)
{
    uint64_t held = 0;
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        struct lane *lane = relay->lanes.all[i];
        uint64_t waits = is_counted(lane, route) ? lane->waiting + lane->in_flight : 0;
        held += waits;
        if (waits > 0 && !lane_is_stopped(relay, lane)) {
            lane_drain(relay, lane, lane_choose(relay, lane));
        }
    }
    return held;
}

void freeze_end(struct relay *relay, struct lane *lane, enum relay_thaw why)
{
    struct freeze *freeze = lane->freeze;
    freeze->frozen = false;
    freeze->thawed_ms = relay->now.steady_ms;
    freeze->mark = relay->last_sequence;
    freeze->seen.ended = why;
    arm(relay);
    write_note(relay, lane, NULL);
    freeze->seen.held = drain_all(relay, lane->route);
    freeze->seen.drained_ms = freeze->seen.held == 0 ? 0 : -1;
    tell_thawed(relay, lane);
    place_all(relay, lane->route); /* a lane that stops ends it all */
    if (lane->freeze != NULL && !drains(relay, lane->route)) {
        rehearsed(relay, lane);
    }
}

uint32_t relay_thaw(struct relay *relay, uint32_t route, enum relay_thaw why, struct relay_time now)
{
    uint32_t count = 0;
    relay_begin(relay, now);
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        if ((route == NO_INDEX || route == i) && lane_is_frozen(relay, relay->lanes.all[i])) {
            freeze_end(relay, relay->lanes.all[i], why);
            count++;
        }
    }
    relay_settle(relay);
    return count;
}

void freezes_due(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        struct lane *lane = relay->lanes.all[i];
        if (lane_is_frozen(relay, lane) && lane->freeze->thaw_due_ms <= relay->now.steady_ms) {
            freeze_end(relay, lane, RELAY_THAW_TIME);
        }
    }
}

void freeze_drained(struct relay *relay, const struct lane *lane, bool whole)
{
    struct freeze *freeze = freeze_of(relay, lane);
    if (freeze == NULL || freeze->frozen || lane->pin != PIN_NONE ||
        (whole && drains(relay, lane->route))) {
        return;
    }
    freeze->seen.drained_ms = whole ? relay->now.steady_ms - freeze->thawed_ms : -1;
    rehearsed(relay, relay->lanes.all[lane->route]);
}

/* ---- a new configuration ------------------------------------------------------------------ */

void freeze_carry(const struct relay *relay, struct lane *from, struct lane *to)
{
    if (from->freeze == NULL || to->index >= relay->config->route_count) {
        return;
    }
    to->freeze = from->freeze;
    from->freeze = NULL;
}

void freeze_abandon(struct relay *relay, struct lane *lane)
{
    if (lane->freeze == NULL) {
        return;
    }
    if (lane->freeze->frozen) {
        lane->freeze->seen.ended = RELAY_THAW_STOP;
        write_note(relay, lane, NULL);
        tell_thawed(relay, lane);
    }
    rehearsed(relay, lane);
}

/* ---- what is counted ---------------------------------------------------------------------- */

static void watch_order(struct freeze *freeze, uint64_t recipient, uint64_t sequence)
{
    uint64_t before = (uintptr_t)map_get(&freeze->last, recipient);
    if (before > sequence) {
        freeze->seen.out_of_order++;
        return;
    }
    if (before == 0 && freeze->last.count >= FREEZE_RECIPIENTS_MAX) {
        return;
    }
    (void)map_remove(&freeze->last, recipient);
    enum error error = map_put(&freeze->last, recipient, (void *)(uintptr_t)sequence);
    (void)error; /* without memory his order is not watched */
}

/* Returns the drill that had held it back, or NULL. */
static struct relay_rehearsal *look_at_reply(struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    struct freeze *freeze = freeze_of(relay, lane_of(relay, delivery));
    if (freeze == NULL) {
        return NULL;
    }
    struct relay_rehearsal *seen = &freeze->seen;
    uint64_t sequence = message_at(relay, delivery->message)->sequence;
    watch_order(freeze, delivery->recipient, sequence);
    if (freeze->frozen) {
        return NULL;
    }
    if (seen->first_ms < 0) {
        seen->first_ms = relay->now.steady_ms - freeze->thawed_ms;
    }
    /* What was deferred when it ended comes, too, but had not been held by it. */
    bool held =
        sequence <= freeze->mark && seen->delivered + seen->asked + seen->refused < seen->held;
    return held ? seen : NULL;
}

void freeze_delivered(struct relay *relay, uint32_t number)
{
    struct relay_rehearsal *seen = look_at_reply(relay, number);
    if (seen != NULL) {
        seen->delivered++;
    }
}

void freeze_asked(struct relay *relay, uint32_t number, bool accepted)
{
    struct relay_rehearsal *seen = look_at_reply(relay, number);
    if (seen != NULL) {
        *(accepted ? &seen->asked : &seen->refused) += 1;
    }
}

void freeze_doubted(struct relay *relay, uint32_t number)
{
    struct freeze *freeze = freeze_of(relay, lane_of(relay, delivery_at(relay, number)));
    if (freeze != NULL) {
        freeze->seen.doubled++;
    }
}
