/* SPDX-License-Identifier: Apache-2.0
 *
 * Lanes: the ordered deliveries of one route, which server they go to, and what is told of that:
 * stops, switches, drains. What stands in one is the matter of lane_queue.c, the order of each
 * recipient's mail that of recipient.c.
 */
#include <assert.h>

#include "relay/destination.h"
#include "relay/notes.h"
#include "relay/refusal.h"

struct lane *lane_of(const struct relay *relay, const struct delivery *delivery)
{
    return relay->lanes.all[delivery->lane];
}

void lane_change_ready(struct relay *relay, struct lane *lane, int change)
{
    lane->ready += (uint64_t)(int64_t)change;
    if (lane->placed != NO_INDEX) {
        struct server *server = server_at(relay, lane->placed);
        *(lane->guest ? &server->guests_ready : &server->ready) += (uint64_t)(int64_t)change;
        server_touch(relay, server);
    }
    if ((lane->ready == 0) != (lane->placed == NO_INDEX)) {
        lane_place(relay, lane);
    }
}

/* ---- which server ------------------------------------------------------------------------- */

static uint32_t choose_from_chain(const struct relay *relay, const struct lane *lane)
{
    if (lane->route == NO_INDEX && lane->pinned_server == NO_INDEX) {
        return NO_INDEX;
    }
    if (lane->pinned_server != NO_INDEX) {
        const struct server *server = server_at(relay, lane->pinned_server);
        return server_usable(server) && exchanger_has_place(server) &&
                       server_takes_route(server, lane->route)
                   ? server->index
                   : NO_INDEX;
    }
    if (lane->destination != NULL) {
        return destination_choose(relay, lane->destination);
    }
    const struct route_config *route = &relay->config->routes[lane->route];
    uint32_t found = NO_INDEX;
    for (uint32_t i = 0; i < route->chain_length; i++) {
        const struct server *server = server_at(relay, route->chain[i]);
        if (server_takes_route(server, lane->route) && server_is_choice(relay, server, &found)) {
            break;
        }
    }
    return found;
}

uint32_t lane_choose(const struct relay *relay, const struct lane *lane)
{
    return lane_is_frozen(relay, lane) ? NO_INDEX : choose_from_chain(relay, lane);
}

bool lane_may_go_to(const struct relay *relay, const struct lane *lane, uint32_t server)
{
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, lane, &length);
    for (uint32_t i = 0; lane->pinned_server == NO_INDEX && i < length; i++) {
        if (chain[i] == server) {
            return true;
        }
    }
    return lane->pinned_server == server;
}

struct slice lane_place_by_hand(const struct relay *relay, const struct lane *lane)
{
    return lane->pin == PIN_REDIRECT && !lane->redirect_address
               ? intern_text(&relay->redirects, lane->redirect)
               : SLICE_EMPTY;
}

static bool is_away(const struct server *server)
{
    return server->state == SERVER_DOWN || server->state == SERVER_DISABLED;
}

bool lane_awaits_call(const struct relay *relay, const struct lane *lane)
{
    uint32_t length = 1;
    const uint32_t *chain = lane->pinned_server != NO_INDEX ? &lane->pinned_server
                            : lane->route == NO_INDEX       ? NULL
                                                            : lane_chain(relay, lane, &length);
    const struct server *server = chain != NULL && length == 1 ? server_at(relay, chain[0]) : NULL;
    return server != NULL && server_calls(server) && server->state != SERVER_DISABLED &&
           lane_choose(relay, lane) == NO_INDEX;
}

bool lane_is_stopped(const struct relay *relay, const struct lane *lane)
{
    if (lane_awaits_call(relay, lane)) {
        return false;
    }
    if (lane->pinned_server != NO_INDEX) {
        return is_away(server_at(relay, lane->pinned_server));
    }
    if (lane->route == NO_INDEX ||
        (lane->destination == NULL && relay->config->routes[lane->route].mx)) {
        return false;
    }
    if (lane->destination != NULL) {
        return destination_is_stopped(relay, lane->destination);
    }
    const struct route_config *route = &relay->config->routes[lane->route];
    for (uint32_t i = 0; i < route->chain_length; i++) {
        if (!is_away(server_at(relay, route->chain[i]))) {
            return false;
        }
    }
    return true;
}

static struct relay_action *lane_event(struct relay *relay, const struct lane *lane,
                                       enum relay_event_kind kind)
{
    struct relay_action *event = action_event(relay, kind);
    event->lane = action_copy(relay, lane->name);
    event->redirect_to = action_copy(relay, lane_place_by_hand(relay, lane));
    return event;
}

/* When the last of its servers went. 0: DNS knows none. */
static int64_t away_since(const struct relay *relay, const struct lane *lane)
{
    int64_t since = 0;
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, lane, &length);
    for (uint32_t i = 0; i < length; i++) {
        const struct server *server = server_at(relay, chain[i]);
        if (server != NULL && server->since_wall_ms > since) {
            since = server->since_wall_ms;
        }
    }
    return since;
}

static void lane_stops(struct relay *relay, struct lane *lane)
{
    lane->stopped = true;
    lane->draining = false; /* what comes back later drains anew */
    struct relay_action *event = lane_event(relay, lane, RELAY_EVENT_STOPPED);
    event->count = lane->waiting;
    event->since_wall_ms = away_since(relay, lane);
    freeze_drained(relay, lane, false);
}

/* A server answers; what waits is counted from here, though nothing is told before one is up. */
static void drain_begins(const struct relay *relay, struct lane *lane)
{
    lane->draining = true;
    lane->drain_mark = relay->last_sequence;
    lane->drain_left = lane->waiting + lane->in_flight;
    lane->drain_done = 0;
    lane->drain_since_ms = relay->now.steady_ms;
}

static void tell_drain(struct relay *relay, struct lane *lane, uint32_t server)
{
    struct relay_action *event = lane_event(relay, lane, RELAY_EVENT_DRAINING);
    event->server = server;
    event->count = lane->drain_left + lane->drain_done;
}

void lane_drain(struct relay *relay, struct lane *lane, uint32_t server)
{
    drain_begins(relay, lane);
    tell_drain(relay, lane, server);
}

static void lane_resumes(struct relay *relay, struct lane *lane, uint32_t server)
{
    lane->stopped = false;
    if (lane->drain_left + lane->drain_done == 0) { /* held, discarded or redirected meanwhile */
        lane->draining = false;
        (void)lane_event(relay, lane, RELAY_EVENT_DRAINED);
        return;
    }
    tell_drain(relay, lane, server);
    relay->drained |= lane->drain_left == 0;
}

/* The lane was told to have stopped. A server that answers, but has not taken anything since, is no
 * end of that, unless there is nothing to be taken. */
static void look_at_stop(struct relay *relay, struct lane *lane, uint32_t usable)
{
    if (usable == NO_INDEX) {
        lane->draining = false;
        return;
    }
    if (!lane->draining) {
        drain_begins(relay, lane);
    }
    if (server_at(relay, usable)->state == SERVER_UP || lane->deliveries == 0) {
        lane_resumes(relay, lane, usable);
    }
}

/* So that the way back is told in the next life, too. An exchanger is not known then by its number,
 * nor by its name before DNS is asked: of a switch to one nothing is noted. */
static void note_switch(struct relay *relay, const struct lane *lane, uint32_t server, bool is_head)
{
    buffer_clear(&relay->scratch);
    if (!note_switched_key(&relay->scratch, lane->name)) {
        return;
    }
    struct slice key = action_copy(relay, buffer_slice(&relay->scratch));
    buffer_clear(&relay->scratch);
    if (!is_head && server < RELAY_EXCHANGERS) {
        note_encode_switched(&relay->scratch, server_name(relay, server), relay->now.wall_ms);
    }
    struct relay_action *action = action_add(relay, RELAY_GLOBAL);
    action->key = key;
    action->payload = action_copy(relay, buffer_slice(&relay->scratch));
}

void lane_load_switch(struct relay *relay, struct slice name, struct slice server, int64_t since_ms)
{
    uint32_t index = relay_config_server(relay->config, server);
    for (uint32_t i = 0; index != NO_INDEX && i < relay->config->route_count; i++) {
        if (slice_equal(relay->lanes.all[i]->name, name)) {
            relay->lanes.all[i]->last_server = index;
            relay->lanes.all[i]->switched_wall_ms = since_ms;
        }
    }
}

void lane_tell_switch(struct relay *relay, struct lane *lane, uint32_t server)
{
    uint32_t before = lane->last_server;
    lane->last_server = server;
    lane->switched_wall_ms = relay->now.wall_ms;
    const struct server *from = server_at(relay, before);
    if (before == server || lane->pin != PIN_NONE || from == NULL ||
        lane_is_one_of_many(relay, lane)) {
        return;
    }
    struct relay_action *event = action_event(relay, RELAY_EVENT_SWITCHED);
    event->lane = action_copy(relay, lane->name);
    event->from_server = before;
    event->server = server;
    event->is_head = server == lane_chain_head(relay, lane);
    lane->switches++;
    event->reason = action_copy(relay, slice_make(from->reason, from->reason_length));
    note_switch(relay, lane, server, event->is_head);
}

/* R4: it is back where it belongs, whether or not there is mail to show it. */
static void switch_back(struct relay *relay, struct lane *lane, uint32_t usable)
{
    if (usable != lane->last_server && usable == lane_chain_head(relay, lane) &&
        server_at(relay, usable)->state == SERVER_UP) {
        lane_tell_switch(relay, lane, usable);
    }
}

static void leave_turns(struct relay *relay, struct lane *lane)
{
    list_remove(&lane->turn);
    if (lane->placed != NO_INDEX) {
        struct server *server = server_at(relay, lane->placed);
        *(lane->guest ? &server->guests_ready : &server->ready) -= lane->ready;
    }
    lane->placed = NO_INDEX;
    lane->deficit = 0;
}

/* A server stands in for the head of the lane's chain. One named by hand, or by a doubt, does not.
 */
static bool stands_in(const struct relay *relay, const struct lane *lane, uint32_t server)
{
    return lane->pinned_server == NO_INDEX && lane->route != NO_INDEX &&
           lane_chain_head(relay, lane) != server;
}

static void take_turns(struct relay *relay, struct lane *lane, uint32_t choice)
{
    if (choice == NO_INDEX) {
        return;
    }
    struct server *server = server_at(relay, choice);
    lane->placed = choice;
    lane->guest = server->config->warm_up > 0 && stands_in(relay, lane, choice);
    list_append(lane->guest ? &server->guests : &server->turns, &lane->turn);
    *(lane->guest ? &server->guests_ready : &server->ready) += lane->ready;
    server_touch(relay, server);
}

void lane_place(struct relay *relay, struct lane *lane)
{
    uint32_t usable = lane_choose(relay, lane);
    uint32_t choice = lane->ready > 0 ? usable : NO_INDEX;
    if (choice != lane->placed) {
        leave_turns(relay, lane);
        take_turns(relay, lane, choice);
    }
    if (lane->destination != NULL && lane->ready > 0) {
        destination_touch(relay, lane->destination);
    }
    if (!relay->started) {
        return;
    }
    if (freeze_must_end(relay, lane)) {
        freeze_end(relay, lane, RELAY_THAW_FAILURE); /* which places it anew */
        return;
    }
    if (usable != NO_INDEX) {
        switch_back(relay, lane, usable);
    }
    if (lane->stopped) {
        look_at_stop(relay, lane, usable);
    } else if (usable == NO_INDEX && lane->waiting > 0 && lane->pin != PIN_DOUBT &&
               !lane_is_one_of_many(relay, lane) && lane_is_stopped(relay, lane)) {
        lane_stops(relay, lane);
    }
}

void lanes_called(struct relay *relay, const struct server *server)
{
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        struct lane *lane = relay->lanes.all[i];
        if (lane->pin == PIN_NONE && !lane->draining && lane->waiting > 0 &&
            lane_choose(relay, lane) == server->index) {
            lane_drain(relay, lane, server->index);
        }
    }
}

void lanes_call_ended(struct relay *relay, const struct server *server)
{
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        struct lane *lane = relay->lanes.all[i];
        bool called_for = lane->route != NO_INDEX && server_takes_route(server, lane->route);
        lane->draining = lane->draining && !(called_for && lane_choose(relay, lane) == NO_INDEX);
    }
}

void lanes_place(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        lane_place(relay, relay->lanes.all[i]);
    }
    odometers_turn(relay);
}

/* ---- counts ------------------------------------------------------------------------------- */

static void lane_recovers(struct relay *relay, struct lane *lane, const struct server *server,
                          int64_t since_wall_ms)
{
    if (choose_from_chain(relay, lane) != server->index) {
        return;
    }
    refusals_look_again(relay, lane->recovery.server); /* it is another's lane now */
    uint32_t head = lane_oldest(relay, lane);
    bool waits =
        lane->in_flight > 0 ||
        (head != NOBODY &&
         message_at(relay, delivery_at(relay, head)->message)->received_ms <= since_wall_ms) ||
        lane->waiting > lane->ready;
    lane->recovery = (struct recovery){.server = server->index,
                                       .drains = waits,
                                       .mark = relay->last_sequence,
                                       .left = lane->waiting + lane->in_flight,
                                       .drained_ms = server->recovered_ms};
}

void lanes_recover(struct relay *relay, const struct server *server, int64_t since_wall_ms)
{
    for (uint32_t i = 0; server->exchanger == NULL && i < relay->lanes.count; i++) {
        lane_recovers(relay, relay->lanes.all[i], server, since_wall_ms);
    }
    if (server->exchanger == NULL) {
        return;
    }
    LIST_EACH(&server->exchanger->uses, at, after)
    {
        struct destination *destination = LIST_ENTRY(at, struct exchanger_use, link)->destination;
        LIST_EACH(&destination->lanes, lane_at, lane_after)
        {
            lane_recovers(relay, LIST_ENTRY(lane_at, struct lane, sibling), server, since_wall_ms);
        }
    }
}

static void recovery_drained(struct relay *relay, struct lane *lane)
{
    lane->recovery.drains = false;
    lane->recovery.drained_ms = relay->now.steady_ms;
    refusals_lane_drained(relay, lane);
}

void lanes_drained(struct relay *relay)
{
    relay->drained = false;
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        struct lane *lane = relay->lanes.all[i];
        if (lane->recovery.drains && lane->recovery.left == 0) {
            recovery_drained(relay, lane);
        }
        if (!lane->draining || lane->stopped || lane->drain_left > 0) {
            continue;
        }
        lane->draining = false;
        struct relay_action *event = lane_event(relay, lane, RELAY_EVENT_DRAINED);
        event->count = lane->drain_done;
        event->duration_ms = relay->now.steady_ms - lane->drain_since_ms;
        freeze_drained(relay, lane, true);
    }
}

void lane_count_done(const struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    struct lane *lane = lane_of(relay, delivery);
    lane->drain_done +=
        lane->draining && message_at(relay, delivery->message)->sequence <= lane->drain_mark;
}

void lane_count(struct relay *relay, uint32_t number, enum delivery_state state, int change)
{
    const struct delivery *delivery = delivery_at(relay, number);
    struct lane *lane = lane_of(relay, delivery);
    uint64_t by = (uint64_t)(int64_t)change;
    bool moving = state == DELIVERY_WAITING || state == DELIVERY_IN_FLIGHT;
    lane->deliveries += state != DELIVERY_FINISHED && state != DELIVERY_DEAD ? by : 0;
    lane->members += state != DELIVERY_FINISHED ? by : 0;
    lane->waiting += state == DELIVERY_WAITING ? by : 0;
    lane->in_flight += state == DELIVERY_IN_FLIGHT ? by : 0;
    lane->held += state == DELIVERY_HELD ? by : 0;
    if (lane->draining && message_at(relay, delivery->message)->sequence <= lane->drain_mark) {
        lane->drain_left += moving ? by : 0;
        relay->drained |= lane->drain_left == 0;
    }
    if (lane->recovery.drains && moving &&
        message_at(relay, delivery->message)->sequence <= lane->recovery.mark) {
        lane->recovery.left += by;
        relay->drained |= lane->recovery.left == 0;
    }
}
