/* SPDX-License-Identifier: Apache-2.0
 *
 * The clock that stops (R7): for each domain, milliseconds in which one server of its chain could
 * take mail while we ran. It counts in steady time, so that no jump of the wall clock moves it; it
 * is written when it starts, when it stops, and each minute in between: a crash loses a minute, and
 * mail waits that much longer.
 *
 * In a cluster each node counts, and all take over the largest reading when they hear of it: the
 * chain has worked for somebody. A node that has not heard of the others' since its start does not
 * know what its own should read: until it does they stand, and nothing is begun on them.
 *
 * A message keeps what the odometer of its first recipient's route read at acceptance. While it
 * belongs to no route (an orphan, or accepted before the odometers were loaded) it keeps what had
 * elapsed until then, and goes on from there with the next route.
 */
#include <stdlib.h>

#include "relay/destination.h"

static bool any_usable(const struct relay *relay, const uint32_t *chain, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++) {
        if (server_usable(server_at(relay, chain[i]))) {
            return true;
        }
    }
    return false;
}

/* Under MX routing one of the domains that the route is for. */
static bool chain_works(const struct relay *relay, uint32_t index)
{
    const struct route_config *route = &relay->config->routes[index];
    bool by_domain = route->mx && route->kind == ROUTE_DOMAIN;
    for (uint32_t i = 0; by_domain && i < relay->lanes.destination_room; i++) {
        const struct destination *destination = relay->lanes.destinations[i];
        if (destination != NULL && destination->route == index &&
            any_usable(relay, destination->chain, destination->chain_length)) {
            return true;
        }
    }
    return any_usable(relay, route->chain, route->chain_length);
}

static int64_t reading_ms(const struct relay *relay, uint32_t route)
{
    const struct odometer *odometer = &relay->odometers[route];
    return odometer->ms +
           (odometer->since_ms == ODOMETER_STOPPED ? 0 : relay->now.steady_ms - odometer->since_ms);
}

uint32_t odometer_reading_s(const struct relay *relay, uint32_t route)
{
    return route == NO_INDEX ? 0 : (uint32_t)(reading_ms(relay, route) / 1000);
}

bool odometer_moves(const struct relay *relay, uint32_t route)
{
    return relay->odometers[route].since_ms != ODOMETER_STOPPED;
}

static void write_reading(struct relay *relay, uint32_t route)
{
    buffer_clear(&relay->scratch);
    if (!note_odometer_key(&relay->scratch, relay->lanes.all[route]->name)) {
        return; /* its name is too long: after a restart its mail waits until keep-max */
    }
    struct slice key = action_copy(relay, buffer_slice(&relay->scratch));
    buffer_clear(&relay->scratch);
    note_encode_odometer(&relay->scratch, relay->odometers[route].ms);
    struct relay_action *action = action_add(relay, RELAY_GLOBAL);
    action->key = key;
    action->payload = action_copy(relay, buffer_slice(&relay->scratch));
}

/* Takes over what it reads now, and writes it. */
static void settle(struct relay *relay, uint32_t route, bool moves)
{
    struct odometer *odometer = &relay->odometers[route];
    odometer->ms = reading_ms(relay, route);
    odometer->since_ms = moves ? relay->now.steady_ms : ODOMETER_STOPPED;
    write_reading(relay, route);
    if (moves && relay->now.steady_ms + ODOMETER_WRITE_MS < relay->odometers_due_ms) {
        relay->odometers_due_ms = relay->now.steady_ms + ODOMETER_WRITE_MS;
    }
}

void odometers_turn(struct relay *relay)
{
    for (uint32_t i = 0; relay->started && i < relay->config->route_count; i++) {
        const struct route_config *route = &relay->config->routes[i];
        bool moves = !relay->odometers_unknown && route->kind == ROUTE_DOMAIN &&
                     chain_works(relay, i) && !lane_is_frozen(relay, relay->lanes.all[i]);
        if (moves != odometer_moves(relay, i)) {
            settle(relay, i, moves);
            if (moves) {
                expiry_soon(relay);
            }
        }
    }
}

void odometers_write_due(struct relay *relay)
{
    int64_t next = INT64_MAX;
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        if (!odometer_moves(relay, i)) {
            continue;
        }
        if (relay->now.steady_ms - relay->odometers[i].since_ms >= ODOMETER_WRITE_MS) {
            settle(relay, i, true);
        }
        int64_t due = relay->odometers[i].since_ms + ODOMETER_WRITE_MS;
        next = due < next ? due : next;
    }
    relay->odometers_due_ms = next;
}

/* Of several readings the largest: what one node has not seen, another has. */
void odometer_load(struct relay *relay, struct slice lane, int64_t ms)
{
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        struct odometer *odometer = &relay->odometers[i];
        if (slice_equal(relay->lanes.all[i]->name, lane) && ms > reading_ms(relay, i)) {
            odometer->ms = ms;
            odometer->since_ms = odometer_moves(relay, i) ? relay->now.steady_ms : ODOMETER_STOPPED;
            expiry_soon(relay);
        }
    }
}

void relay_odometers_known(struct relay *relay, bool known, struct relay_time now)
{
    relay_begin(relay, now);
    relay->odometers_unknown = !known;
    odometers_turn(relay);
    expiry_soon(relay);
}

struct odometer *odometers_new(uint32_t route_count)
{
    struct odometer *odometers = calloc(route_count + 1, sizeof *odometers);
    for (uint32_t i = 0; odometers != NULL && i < route_count; i++) {
        odometers[i].since_ms = ODOMETER_STOPPED;
    }
    return odometers;
}

uint32_t relay_odometer(struct relay *relay, const struct spool_message *message,
                        struct relay_time now)
{
    relay->now = now;
    uint32_t route = route_of_recipient(relay, message, 0);
    return relay->started && !relay->odometers_unknown ? odometer_reading_s(relay, route)
                                                       : ODOMETER_UNKNOWN;
}

/* ---- of messages -------------------------------------------------------------------------- */

/* What an odometer read when the time of one began of which `elapsed_s` are over at `reading_s`. */
static int32_t base_of(int64_t reading_s, int64_t elapsed_s)
{
    int64_t base = reading_s - elapsed_s;
    return base > INT32_MAX ? INT32_MAX : base < -INT32_MAX ? -INT32_MAX : (int32_t)base;
}

/* On `route`, which may be NO_INDEX: `elapsed_s` of its time are over. */
static void begin(const struct relay *relay, struct message *message, uint32_t route,
                  uint32_t elapsed_s)
{
    message->odometer = route;
    message->base_s = base_of(odometer_reading_s(relay, route), elapsed_s);
}

void span_accepted(struct relay *relay, struct message *message, const struct spool_message *from,
                   uint32_t route)
{
    bool known = from->odometer_s != ODOMETER_UNKNOWN && route != NO_INDEX;
    message->odometer = known ? route : NO_INDEX;
    message->base_s = base_of(known ? from->odometer_s : 0, from->elapsed_s);
    if (!known) {
        message->flags |= MESSAGE_SPAN_WANTED;
        expiry_soon(relay);
    }
}

uint32_t span_elapsed_s(const struct relay *relay, const struct message *message)
{
    int64_t elapsed = (int64_t)odometer_reading_s(relay, message->odometer) - message->base_s;
    return elapsed > 0 ? (uint32_t)elapsed : 0;
}

/* Seconds in which its route could have taken it, had it not been held. */
static int64_t on_hold_s(const struct relay *relay, const struct delivery *delivery)
{
    uint32_t route = lane_of(relay, delivery)->route;
    int64_t worked_s = (int64_t)odometer_reading_s(relay, route) - delivery->previous;
    return worked_s > 0 ? worked_s : 0;
}

/* The message's delivery for that recipient, if the operator holds it; else NULL. */
static struct delivery *held_by_hand(const struct relay *relay, const struct message *message,
                                     uint32_t which)
{
    uint32_t number = delivery_number(message, which);
    struct delivery *delivery = number == NOBODY ? NULL : delivery_at(relay, number);
    bool held = delivery != NULL && delivery->state == DELIVERY_HELD &&
                (delivery->flags & DELIVERY_BY_RULE) == 0;
    return held ? delivery : NULL;
}

uint32_t span_on_hold_s(const struct relay *relay, const struct message *message)
{
    int64_t most_s = 0;
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        const struct delivery *delivery = held_by_hand(relay, message, i);
        if (delivery != NULL && lane_of(relay, delivery)->route == message->odometer) {
            int64_t here_s = on_hold_s(relay, delivery);
            most_s = here_s > most_s ? here_s : most_s;
        }
    }
    return (uint32_t)most_s;
}

int64_t span_age_ms(const struct message *message, int64_t wall_ms)
{
    return wall_ms - message->received_ms - (int64_t)message->credit_s * 1000;
}

static void want_note(struct relay *relay, struct message *message)
{
    message->flags |= MESSAGE_SPAN_WANTED | MESSAGE_SPAN_NOTED;
    expiry_soon(relay);
}

/* The message has been given back its time up to now. What else of it is held gives back what comes
 * after that: not the same time twice. `odometer`: of that, too. */
static void hold_anew(struct relay *relay, const struct message *message, bool odometer)
{
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        struct delivery *delivery = held_by_hand(relay, message, i);
        if (delivery != NULL) {
            delivery->next = (uint32_t)(relay->now.wall_ms / 1000);
        }
        if (delivery != NULL && odometer) {
            delivery->previous = odometer_reading_s(relay, lane_of(relay, delivery)->route);
        }
    }
}

void span_restart(struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    struct message *message = message_at(relay, delivery->message);
    int64_t age_s = (relay->now.wall_ms - message->received_ms) / 1000;
    message->credit_s = age_s > 0 ? (uint32_t)age_s : 0;
    begin(relay, message, lane_of(relay, delivery)->route, 0);
    hold_anew(relay, message, true);
    want_note(relay, message);
}

void span_give_back(struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    struct message *message = message_at(relay, delivery->message);
    uint32_t route = lane_of(relay, delivery)->route;
    int64_t held_s = relay->now.wall_ms / 1000 - delivery->next;
    message->credit_s += held_s > 0 ? (uint32_t)held_s : 0;
    if (message->odometer == route) {
        message->base_s = base_of(message->base_s, -on_hold_s(relay, delivery));
    }
    hold_anew(relay, message, message->odometer == route);
    want_note(relay, message);
}

void span_remap(struct relay *relay, struct message *message, const struct odometer *old,
                const uint32_t *route_map)
{
    uint32_t was = message->odometer;
    uint32_t now = was == NO_INDEX ? NO_INDEX : route_map[was];
    bool stays = false;
    for (uint32_t i = 0; now != NO_INDEX && !stays && i < message->recipient_count; i++) {
        uint32_t number = delivery_number(message, i);
        stays = number != NOBODY && lane_of(relay, delivery_at(relay, number))->route == now;
    }
    if (was == NO_INDEX || stays) {
        message->odometer = now;
        return;
    }
    int64_t elapsed_s = old[was].ms / 1000 - message->base_s;
    message->odometer = NO_INDEX;
    message->base_s = base_of(0, elapsed_s > 0 ? elapsed_s : 0);
    message->flags |= MESSAGE_SPAN_WANTED | MESSAGE_SPAN_NOTED;
}

void odometers_carry(struct relay *relay, struct odometer *to, const uint32_t *route_map)
{
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        struct odometer *odometer = &relay->odometers[i];
        odometer->ms = reading_ms(relay, i);
        if (odometer->since_ms != ODOMETER_STOPPED) {
            odometer->since_ms = relay->now.steady_ms;
        }
        if (route_map[i] != NO_INDEX) {
            to[route_map[i]] = *odometer;
        }
    }
}

void span_adopt(struct relay *relay, struct message *message)
{
    for (uint32_t i = 0; !relay->odometers_unknown && i < message->recipient_count; i++) {
        uint32_t number = delivery_number(message, i);
        uint32_t route =
            number == NOBODY ? NO_INDEX : lane_of(relay, delivery_at(relay, number))->route;
        if (route != NO_INDEX) {
            begin(relay, message, route, span_elapsed_s(relay, message));
            message->flags |= MESSAGE_SPAN_WANTED | MESSAGE_SPAN_NOTED;
            return;
        }
    }
}

void span_put_note(const struct relay *relay, const struct message *message, struct buffer *buffer)
{
    struct span_note note = {.elapsed_s = span_elapsed_s(relay, message),
                             .reading_s = odometer_reading_s(relay, message->odometer),
                             .credit_s = message->credit_s};
    if (message->odometer != NO_INDEX) {
        note.lane = relay->lanes.all[message->odometer]->name;
    }
    note_encode_span(buffer, &note);
}

void span_write_note(struct relay *relay, uint32_t index)
{
    struct message *message = message_at(relay, index);
    message->flags &= (uint8_t)~MESSAGE_SPAN_WANTED;
    buffer_clear(&relay->scratch);
    span_put_note(relay, message, &relay->scratch);
    if (relay->scratch.failed) {
        abort(); /* as in action.c */
    }
    struct relay_action *action = action_add(relay, RELAY_NOTE);
    action->handle = (struct spool_handle){index};
    action->delivery = SPOOL_ALL_DELIVERIES;
    action->note = NOTE_SPAN;
    action->payload = action_copy(relay, buffer_slice(&relay->scratch));
}

void span_load(struct relay *relay, struct message *message, const struct span_note *note)
{
    message->credit_s = note->credit_s;
    message->flags |= MESSAGE_SPAN_NOTED;
    message->odometer = NO_INDEX;
    message->base_s = base_of(0, note->elapsed_s);
    for (uint32_t i = 0; note->lane.length > 0 && i < relay->config->route_count; i++) {
        if (slice_equal(relay->lanes.all[i]->name, note->lane)) {
            message->odometer = i;
            message->base_s = base_of(note->reading_s, note->elapsed_s);
        }
    }
}
