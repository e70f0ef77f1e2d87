/* SPDX-License-Identifier: Apache-2.0
 *
 * What can be seen from outside: each answer costs the same however much mail is held.
 */
#include <assert.h>

#include "relay/destination.h"
#include "relay/refusal.h"

uint32_t relay_delivery_count(const struct relay *relay, struct spool_handle handle)
{
    const struct message *message = message_find(relay, handle.index);
    return message == NULL ? 0 : message->recipient_count;
}

static int64_t doubt_until(const struct relay *relay, uint32_t index)
{
    const struct server *server = server_at(relay, index);
    return server == NULL || server->away_since_ms == INT64_MAX
               ? 0
               : relay->now.wall_ms + server->away_since_ms + DOUBT_PATIENCE_MS -
                     relay->now.steady_ms;
}

bool relay_delivery(const struct relay *relay, struct spool_handle handle, uint32_t which,
                    struct relay_delivery_view *ret_view)
{
    const struct message *message = message_find(relay, handle.index);
    if (message == NULL || which >= message->recipient_count) {
        return false;
    }
    *ret_view = (struct relay_delivery_view){.handle = handle,
                                             .delivery = which,
                                             .state = DELIVERY_FINISHED,
                                             .route = NO_INDEX,
                                             .server = NO_INDEX};
    uint32_t number = delivery_number(message, which);
    if (number == NOBODY) {
        return true;
    }
    const struct delivery *delivery = delivery_at(relay, number);
    const struct lane *lane = lane_of(relay, delivery);
    ret_view->state = delivery->state;
    ret_view->route = lane->route;
    ret_view->server = lane->pinned_server;
    ret_view->chain = lane_chain(relay, lane, &ret_view->chain_length);
    if (lane->pinned_server != NO_INDEX) {
        ret_view->chain = &lane->pinned_server;
        ret_view->chain_length = 1;
    }
    if ((delivery->state == DELIVERY_IN_FLIGHT || delivery->state == DELIVERY_IN_DOUBT) &&
        delivery->server != NO_SERVER) {
        ret_view->server = delivery->server;
    }
    ret_view->in_doubt = delivery_in_doubt(delivery, lane);
    ret_view->doubt_until_wall_ms = ret_view->in_doubt ? doubt_until(relay, ret_view->server) : 0;
    ret_view->attempts = delivery->attempts;
    if (delivery->place == PLACE_TIMED) {
        ret_view->next_wall_ms = relay->now.wall_ms +
                                 schedule_at(&relay->schedule, delivery->next)->due_ms -
                                 relay->now.steady_ms;
    }
    int64_t due_ms;
    ret_view->not_believed = refusal_due(relay, delivery, &due_ms);
    if (ret_view->not_believed && due_ms != INT64_MAX) {
        int64_t left_ms = due_ms - relay->now.steady_ms;
        ret_view->next_wall_ms = relay->now.wall_ms + (left_ms > 0 ? left_ms : 0);
    }
    ret_view->expires_wall_ms = expiry_of(relay, number);
    bool frozen = delivery->state == DELIVERY_WAITING && lane_is_frozen(relay, lane);
    ret_view->reason =
        frozen ? SLICE_LITERAL("a drill holds it back") : delivery_reason(relay, delivery);
    ret_view->redirect_to = intern_text(&relay->redirects, lane->redirect);
    return true;
}

uint32_t relay_elapsed_s(const struct relay *relay, struct spool_handle handle)
{
    const struct message *message = message_find(relay, handle.index);
    if (message == NULL) {
        return 0;
    }
    uint32_t elapsed_s = span_elapsed_s(relay, message), held_s = span_on_hold_s(relay, message);
    return elapsed_s > held_s ? elapsed_s - held_s : 0;
}

uint32_t relay_uncounted_s(const struct relay *relay, struct spool_handle handle)
{
    const struct message *message = message_find(relay, handle.index);
    return message == NULL ? 0 : message->credit_s;
}

/* If the last message given has gone meanwhile, those before it in order have as a rule too, so
 * that looking from the front for the first later one is short. */
bool relay_next_message(const struct relay *relay, struct relay_cursor *cursor,
                        struct spool_handle *ret_handle)
{
    uint32_t next = relay->first_message;
    const struct message *last = cursor->began ? message_find(relay, cursor->last) : NULL;
    if (last != NULL && last->sequence == cursor->sequence) {
        next = last->next;
    } else if (cursor->began) {
        while (next != NOBODY && message_at(relay, next)->sequence <= cursor->sequence) {
            next = message_at(relay, next)->next;
        }
    }
    if (next == NOBODY) {
        return false;
    }
    *cursor = (struct relay_cursor){true, next, message_at(relay, next)->sequence};
    *ret_handle = (struct spool_handle){next};
    return true;
}

void relay_server(const struct relay *relay, uint32_t index, struct relay_server_view *ret_view)
{
    const struct server *server = server_at(relay, index);
    assert(server != NULL);
    *ret_view = (struct relay_server_view){
        .state = server->state,
        .since_wall_ms = server->since_wall_ms,
        .failures = server->failures,
        .used = server->used,
        .sessions = server->open,
        .changes = server->changes,
        .before = server->before,
        .before_ms = server->before_ms,
        .on_demand = server->on_demand,
        .breaker_open = server->breaker_open,
        .unreachable = server->state == SERVER_DOWN &&
                       (server->trouble == TROUBLE_CONNECT || server->trouble == TROUBLE_GREETING),
        .reason = slice_make(server->reason, server->reason_length),
        .capabilities = server->capabilities,
        .capabilities_known = server->capabilities_known,
    };
}

/* The routes' own lanes come first and are always shown; the orphans' and those made for a redirect
 * or a doubt while something is in them. */
static bool is_shown(const struct lane *lane)
{
    return lane->deliveries > 0;
}

uint32_t relay_lane_count(const struct relay *relay)
{
    uint32_t count = relay->config->route_count;
    for (uint32_t i = count; i < relay->lanes.count; i++) {
        count += is_shown(relay->lanes.all[i]);
    }
    return count;
}

/* Looks on from where the one before was found, if that is still there. */
static const struct lane *shown_lane(struct relay *relay, uint32_t index)
{
    uint32_t first = relay->config->route_count;
    if (index < first) {
        return relay->lanes.all[index];
    }
    uint32_t at = first, left = index - first;
    if (relay->shown_index >= first && index > relay->shown_index &&
        relay->shown_at < relay->lanes.count) {
        at = relay->shown_at + 1;
        left = index - relay->shown_index - 1;
    }
    for (; at < relay->lanes.count; at++) {
        if (is_shown(relay->lanes.all[at]) && left-- == 0) {
            relay->shown_index = index;
            relay->shown_at = at;
            return relay->lanes.all[at];
        }
    }
    return NULL;
}

static enum lane_state lane_state(const struct relay *relay, const struct lane *lane)
{
    if (lane->route == NO_INDEX && lane->pin == PIN_NONE) {
        return LANE_ORPHAN;
    }
    if (lane_is_stopped(relay, lane)) {
        return LANE_STOPPED;
    }
    if (lane_is_frozen(relay, lane) || (lane->deliveries > 0 && lane->held == lane->deliveries)) {
        return LANE_HELD;
    }
    if (lane->deliveries == 0) {
        return LANE_IDLE;
    }
    if (lane_awaits_call(relay, lane)) {
        return LANE_IDLE;
    }
    return lane->draining ? LANE_DRAINING : LANE_FLOWING;
}

/* Gives a delivery's lane its oldest, if it has none yet. True: it had none. */
static bool take_oldest(struct relay *relay, const struct message *message, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    struct lane *lane = lane_of(relay, delivery);
    if (delivery->state == DELIVERY_DEAD || lane->oldest_wall_ms != 0) {
        return false;
    }
    lane->oldest_wall_ms = message->received_ms;
    lane->oldest_sequence = message->sequence;
    return lane->oldest_wall_ms != 0;
}

void relay_look_for_oldest(struct relay *relay)
{
    uint32_t wanted = 0, budget = RELAY_OLDEST_LOOK;
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        relay->lanes.all[i]->oldest_wall_ms = 0;
        wanted += relay->lanes.all[i]->deliveries > 0;
    }
    for (uint32_t at = relay->oldest; at != NOBODY && wanted > 0 && budget > 0;) {
        const struct message *message = message_at(relay, at);
        for (uint32_t i = 0; i < message->recipient_count && budget > 0; i++, budget--) {
            uint32_t number = delivery_number(message, i);
            wanted -= number != NOBODY && take_oldest(relay, message, number);
        }
        at = message->next;
    }
}

static int64_t oldest_of(const struct relay *relay, const struct lane *lane)
{
    uint32_t head = lane_oldest(relay, lane);
    if (head != NOBODY) {
        const struct message *message = message_at(relay, delivery_at(relay, head)->message);
        if (lane->oldest_wall_ms == 0 || message->sequence < lane->oldest_sequence) {
            return message->received_ms;
        }
    }
    return lane->deliveries > 0 ? lane->oldest_wall_ms : 0;
}

static void view_chain(const struct relay *relay, const struct lane *lane,
                       struct relay_lane_view *ret_view)
{
    if (lane->pinned_server != NO_INDEX) {
        ret_view->chain = &lane->pinned_server;
        ret_view->chain_length = 1;
    } else {
        ret_view->chain = lane_chain(relay, lane, &ret_view->chain_length);
    }
}

void relay_lane(struct relay *relay, uint32_t index, struct relay_lane_view *ret_view)
{
    const struct lane *lane = shown_lane(relay, index);
    *ret_view = (struct relay_lane_view){.server = NO_INDEX, .doubt = NO_INDEX};
    if (lane != NULL) {
        ret_view->route = lane->name;
        ret_view->state = lane_state(relay, lane);
        ret_view->deliveries = lane->deliveries;
        ret_view->moving = lane->waiting + lane->in_flight;
        if (ret_view->state == LANE_DRAINING) {
            ret_view->done = lane->drain_done;
            ret_view->left = lane->drain_left;
            ret_view->drain_since_ms = lane->drain_since_ms;
        }
        ret_view->server = lane_choose(relay, lane);
        ret_view->oldest_wall_ms = oldest_of(relay, lane);
        view_chain(relay, lane, ret_view);
        ret_view->redirect_to = lane_place_by_hand(relay, lane);
        ret_view->redirect = intern_text(&relay->redirects, lane->redirect);
        if (lane->pin == PIN_DOUBT) {
            ret_view->doubt = lane->pinned_server;
            ret_view->doubt_until_wall_ms = doubt_until(relay, lane->pinned_server);
        }
        ret_view->frozen_until_ms = lane_frozen_until(relay, lane);
        ret_view->stopped = lane->stopped;
        ret_view->expires_soon = lane->expiry_level > 0;
        ret_view->trouble = lane->destination == NULL || lane->pin == PIN_DOUBT
                                ? SLICE_EMPTY
                                : destination_trouble(lane->destination);
        ret_view->switched = lane->pin == PIN_NONE && lane->last_server != NO_INDEX &&
                             lane->last_server != lane_chain_head(relay, lane) &&
                             !lane_is_one_of_many(relay, lane);
        ret_view->last_server = lane->last_server;
        ret_view->switched_wall_ms = lane->switched_wall_ms;
        ret_view->switches = lane->switches;
    }
}

void relay_totals(const struct relay *relay, struct relay_totals *ret_totals)
{
    *ret_totals = relay->totals;
    ret_totals->oldest_wall_ms =
        relay->oldest == NOBODY ? 0 : message_at(relay, relay->oldest)->received_ms;
}

uint64_t relay_route_bytes(const struct relay *relay, uint32_t route)
{
    return route < relay->config->route_count ? relay->route_bytes[route] : 0;
}
