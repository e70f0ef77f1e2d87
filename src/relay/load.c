/* SPDX-License-Identifier: Apache-2.0
 *
 * From the journal back into memory: fates and notes of messages just loaded, what was noted of
 * servers, jobs that the sender process still has. And the way there: notes that a moved message
 * still needs. Loading tells nothing and sends nothing; relay_start() does.
 */
#include <stdlib.h>

#include "relay/destination.h"
#include "relay/refusal.h"

enum { HELD_MOST_MS = 3600 * 1000 }; /* R5: a refusal that is tried again by the clock */

/* ---- notes -------------------------------------------------------------------------------- */

/* False: nobody takes it there. An address has a route, and a server is *ret_server. */
static bool find_redirect(const struct relay *relay, uint32_t number, struct slice to,
                          uint32_t *ret_route, uint32_t *ret_server)
{
    uint32_t route = lane_of(relay, delivery_at(relay, number))->route;
    *ret_route = route;
    *ret_server = NO_INDEX;
    if (slice_find(to, '@') == to.length) {
        *ret_server = relay_config_server(relay->config, to);
        /* A call is for the mail of its own domains. */
        return *ret_server != NO_INDEX && !server_calls(server_at(relay, *ret_server));
    }
    uint32_t domain = routing_domain(relay->routing, slice_skip(to, slice_find_last(to, '@') + 1));
    /* Elsewhere: by the relay it came for, else the way our own notices leave. */
    if (domain != NO_INDEX) {
        *ret_route = domain;
    } else if (route == NO_INDEX || relay->config->routes[route].kind != ROUTE_RELAY) {
        *ret_route = relay->config->bounces;
    }
    return *ret_route != NO_INDEX;
}

bool redirect_is_possible(const struct relay *relay, uint32_t number, struct slice to)
{
    uint32_t route, server;
    return find_redirect(relay, number, to, &route, &server);
}

enum error redirect_apply(struct relay *relay, uint32_t number, struct slice to)
{
    uint32_t route, server;
    if (!find_redirect(relay, number, to, &route, &server)) {
        return ERROR_INVALID;
    }
    const struct lane_key key = {
        .route = route, .pin = PIN_REDIRECT, .pinned_server = server, .redirect = to};
    bool address = server == NO_INDEX;
    const struct lane *lane =
        address ? lane_for_address(relay, route, to) : lane_sibling(relay, &key);
    if (lane == NULL) {
        return ERROR_MEMORY;
    }
    delivery_move(relay, number, lane->index);
    if (address) { /* order is that of the new recipient */
        delivery_at(relay, number)->recipient = recipient_hash(relay, to);
    }
    return ERROR_NONE;
}

/* The server that a note names. One in doubt goes back there, even if DNS is to say first where
 * that is. */
static void load_server(struct relay *relay, struct delivery *delivery, struct slice name,
                        bool doubt)
{
    uint32_t server = name.length > 0 ? relay_config_server(relay->config, name) : NO_INDEX;
    struct destination *destination = lane_of(relay, delivery)->destination;
    if (server == NO_INDEX && name.length > 0 && destination != NULL) {
        server = destination_server(relay, destination, name, doubt);
    }
    delivery->server = server < NO_SERVER ? (uint16_t)server : NO_SERVER;
}

static void load_counts(struct relay *relay, uint32_t number, const struct delivery_note *note,
                        bool doubt)
{
    struct delivery *delivery = delivery_at(relay, number);
    load_server(relay, delivery, note->server, doubt);
    delivery->attempts = note->attempts;
    delivery->strikes = note->strikes < STRIKES_MAX ? note->strikes & 3 : STRIKES_MAX;
    delivery->doubts = note->doubts < DOUBTS_MAX ? note->doubts & 3 : DOUBTS_MAX;
    delivery->doubted = (note->flags & NOTE_DOUBTED) != 0;
    delivery_set_flags(relay, delivery,
                       DELIVERY_BY_RULE | DELIVERY_PATIENCE_SET | DELIVERY_REFUSED_ONCE,
                       ((note->flags & NOTE_BY_RULE) != 0 ? DELIVERY_BY_RULE : 0u) |
                           ((note->flags & NOTE_PATIENCE_RUN) != 0 ? DELIVERY_PATIENCE_SET : 0u) |
                           ((note->flags & NOTE_REFUSED_ONCE) != 0 ? DELIVERY_REFUSED_ONCE : 0u) |
                           ((note->flags & NOTE_DELAY_TOLD) != 0 ? DELIVERY_NO_DELAY : 0u));
    deliver_by_load(relay, number, (note->flags & NOTE_BY_TOLD) != 0,
                    (note->flags & NOTE_BY_WAIVED) != 0);
    /* Deferred before the restart: forgiven when a server that is in trouble now comes up; one that
     * is up closes the chapter with its next success. */
    delivery->trouble_attempts = 1;
    if (delivery->server != NO_SERVER) {
        struct server *server = server_at(relay, delivery->server);
        delivery->epoch = server->epoch;
        server->epoch_used = true;
    }
    delivery_set_reason(relay, delivery, note->text);
}

/* Steady time of a moment noted by the wall clock, at most `most` ahead: a clock that has been set
 * back must not stretch a wait. */
static int64_t steady_of(const struct relay *relay, int64_t wall_ms, int64_t most)
{
    int64_t left = 0;
    if (wall_ms > relay->now.wall_ms) {
        left = wall_ms - relay->now.wall_ms < most ? wall_ms - relay->now.wall_ms : most;
    }
    return relay->now.steady_ms + left;
}

/* What is left of its patience keeps the recipient's later mail back, as before the restart. */
static void load_patience(struct relay *relay, uint32_t number, const struct delivery_note *note)
{
    uint32_t route = lane_of(relay, delivery_at(relay, number))->route;
    int64_t patience = route == NO_INDEX ? 0 : relay->config->routes[route].order_patience_ms;
    int64_t left = steady_of(relay, note->patience_ms, patience) - relay->now.steady_ms;
    if (left == 0) {
        delivery_at(relay, number)->flags |= DELIVERY_PATIENCE_SET; /* it has run */
    }
    if (left > 0) {
        recipient_precede(relay, number); /* the next one may have come to be first in line */
    }
    if (left == 0 || !recipient_allows(relay, number) || !recipient_block(relay, number)) {
        return;
    }
    recipient_patience(relay, number, left);
}

/* One that an import brings along; all others are counted when loading is complete. */
static void load_refusal(struct relay *relay, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    if (!relay->started || !is_held_refusal(delivery) || delivery->place == PLACE_TIMED) {
        return;
    }
    struct server *server = server_at(relay, delivery->server);
    if (server != NULL && server->state != SERVER_UP) {
        server->held_refusals++;
        return;
    }
    delivery_set_flags(relay, delivery, DELIVERY_BY_RULE, 0);
    delivery_set_state(relay, number, DELIVERY_WAITING); /* nobody has to recover first */
    lane_return(relay, number);
}

/* Since when it is held or dead. */
static void load_rest(struct delivery *delivery, const struct delivery_note *note)
{
    int64_t since_s = note->when_ms / 1000;
    delivery->next = since_s > 0 && since_s < UINT32_MAX ? (uint32_t)since_s : 0;
    delivery->previous = note->odometer_s;
}

static void doubt_attempt(struct relay *relay, uint32_t number)
{
    static const struct relay_reply reply = {
        .stage = RELAY_AT_DOT,
        .how = RELAY_LOCAL,
        .text = {(const uint8_t *)"no result was recorded of the last attempt", 42}};
    struct delivery *delivery = delivery_at(relay, number);
    if ((delivery->flags & DELIVERY_ATTEMPTED) != 0 && !delivery_is_withdrawn(relay, number)) {
        delivery->flags &= (uint8_t)~DELIVERY_ATTEMPTED;
        relay->attempted--;
        fate_doubt(relay, number, &reply);
    }
}

void attempts_doubt_all(struct relay *relay)
{
    for (uint32_t at = relay->first_message; at != NOBODY && relay->attempted > 0;) {
        const struct message *message = message_at(relay, at);
        uint32_t count = message->recipient_count;
        at = message->next;
        for (uint32_t i = 0; i < count; i++) {
            if (delivery_number(message, i) != NOBODY) {
                doubt_attempt(relay, delivery_number(message, i));
            }
        }
    }
}

void attempts_doubt_loaded(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->attempts.count; i++) {
        doubt_attempt(relay, relay->attempts.numbers[i]);
    }
    relay->attempts.count = 0;
}

/* Until all that comes with it is there, a result may still follow. */
static void remember_attempt(struct relay *relay, uint32_t number)
{
    struct attempts *attempts = &relay->attempts;
    if (attempts->count == attempts->room) {
        uint32_t room = attempts->room == 0 ? 64 : attempts->room * 2;
        uint32_t *more = realloc(attempts->numbers, room * sizeof *more);
        if (more == NULL) {
            abort(); /* as in action.c: it would be sent again at once */
        }
        attempts->numbers = more;
        attempts->room = room;
    }
    attempts->numbers[attempts->count++] = number;
}

static void load_note(struct relay *relay, uint32_t number, uint16_t kind,
                      const struct delivery_note *note)
{
    struct delivery *delivery = delivery_at(relay, number);
    if (delivery->state == DELIVERY_IN_FLIGHT) {
        return;
    }
    relay->attempted -= (delivery->flags & DELIVERY_ATTEMPTED) != 0;
    delivery->flags &= (uint8_t)~DELIVERY_ATTEMPTED;
    if (kind == NOTE_ATTEMPT) {
        load_server(relay, delivery, note->server, true);
        delivery->flags |= DELIVERY_ATTEMPTED;
        relay->attempted++;
        if (relay->started) {
            remember_attempt(relay, number);
        }
        return;
    }
    delivery_take_out(relay, number);
    recipient_release(relay, number);
    if (kind == NOTE_REDIRECT) {
        enum error error = redirect_apply(relay, number, note->text);
        if (error != ERROR_NONE) {
            delivery->attempts = 0; /* that place is gone: by its route again */
        }
    } else {
        load_counts(relay, number, note, kind == NOTE_DOUBT);
    }
    if (kind == NOTE_DOUBT && delivery->doubts >= DOUBTS_MAX) {
        kind = NOTE_HOLD; /* one more by being moved while it was under way */
        delivery_set_flags(relay, delivery, DELIVERY_REFUSED_ONCE, DELIVERY_BY_RULE);
    }
    switch (kind) {
    case NOTE_DEFER:
    case NOTE_DOUBT:
        delivery_set_state(relay, number,
                           kind == NOTE_DEFER ? DELIVERY_DEFERRED : DELIVERY_IN_DOUBT);
        delivery_schedule(relay, number,
                          steady_of(relay, note->next_ms, retry_delay(relay, delivery)));
        if (kind == NOTE_DEFER) {
            load_patience(relay, number, note);
        }
        break;
    case NOTE_HOLD:
        delivery_set_state(relay, number, DELIVERY_HELD);
        if (note->next_ms > 0 && is_held_refusal(delivery)) {
            delivery_schedule(relay, number, steady_of(relay, note->next_ms, HELD_MOST_MS));
        } else {
            load_rest(delivery, note);
        }
        load_refusal(relay, number);
        break;
    case NOTE_DEAD:
        delivery_set_state(relay, number, DELIVERY_DEAD);
        load_rest(delivery, note);
        break;
    case NOTE_WAITING:
    case NOTE_REDIRECT:
        delivery_set_state(relay, number, DELIVERY_WAITING);
        lane_return(relay, number);
        break;
    }
}

void relay_load_note(struct relay *relay, struct spool_handle handle, uint32_t which, uint16_t kind,
                     struct slice payload, struct relay_time now)
{
    relay->now = now;
    struct delivery_note note;
    struct span_note span;
    struct message *message = message_find(relay, handle.index);
    if (message != NULL && kind == NOTE_SPAN && note_decode_span(payload, &span)) {
        span_load(relay, message, &span);
    }
    if (message == NULL || kind < NOTE_ATTEMPT || kind > NOTE_REDIRECT ||
        !note_decode(payload, &note)) {
        return;
    }
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        if (which == SPOOL_ALL_DELIVERIES || which == i) {
            uint32_t number = delivery_number(message, i);
            if (number != NOBODY) {
                load_note(relay, number, kind, &note);
            }
        }
    }
}

void server_load_note(struct relay *relay, struct server *server, enum global_note_kind kind,
                      struct slice payload)
{
    struct state_note state;
    struct hand_note hand;
    struct relay_capabilities capabilities;
    switch (kind) {
    case GLOBAL_HAND:
        if (note_decode_hand(payload, &hand)) {
            server->hand_ms = hand.when_ms;
            server->state = hand.disabled ? SERVER_DISABLED : server->state;
        }
        break;
    case GLOBAL_STATE:
        if (note_decode_state(payload, &state)) {
            governor_loaded(relay, server, &state);
        }
        break;
    case GLOBAL_CAPABILITIES:
        if (note_decode_capabilities(payload, &capabilities)) {
            server->capabilities = capabilities;
            server->capabilities_known = true;
        }
        break;
    }
}

/* Also of a server that is not configured here, or an exchanger that nobody asks for just now. */
static void hear_hand(struct relay *relay, const struct note_key *key, struct slice payload)
{
    struct hand_note note;
    uint32_t index = relay_config_server(relay->config, key->name);
    if (!note_decode_hand(payload, &note)) {
        return;
    }
    if (key->owner == NOTE_OF_EXCHANGER) {
        noted_hear_hand(relay, key, payload, &note);
    } else if (index != NO_INDEX) {
        governor_hear_hand(relay, &relay->servers[index], &note);
    } else if (note.disabled) {
        hand_remember(relay, key->name);
    } else {
        (void)hand_recall(relay, key->name);
    }
}

/* While we run: what another node has written. */
static void hear_global(struct relay *relay, struct slice text, struct slice payload)
{
    struct note_key key;
    struct slice lane;
    int64_t ms;
    if (note_odometer_key_parse(text, &lane) && note_decode_odometer(payload, &ms)) {
        odometer_load(relay, lane, ms);
    } else if (note_key_parse(text, &key) && key.kind == GLOBAL_HAND) {
        hear_hand(relay, &key, payload);
    }
}

void relay_load_global(struct relay *relay, struct slice text, struct slice payload,
                       struct relay_time now)
{
    if (relay->started) {
        relay_begin(relay, now);
        hear_global(relay, text, payload);
        relay_settle(relay);
        return;
    }
    relay->now = now;
    struct slice name, server;
    struct note_key key;
    struct hand_note hand;
    int64_t ms;
    if (note_freeze_key_parse(text, &name)) {
        freeze_load(relay, name, payload);
        return;
    }
    if (payload.length == 0) {
        return;
    }
    if (note_odometer_key_parse(text, &name)) {
        if (note_decode_odometer(payload, &ms)) {
            odometer_load(relay, name, ms);
        }
    } else if (note_switched_key_parse(text, &name)) {
        if (note_decode_switched(payload, &server, &ms)) {
            lane_load_switch(relay, name, server, ms);
        }
    } else if (slice_equal(text, NOTE_CLOCK_KEY)) {
        if (note_decode_clock(payload, &ms)) {
            expiry_believe_clock(relay, ms);
        }
    } else if (note_mx_key_parse(text, &name)) {
        mx_known_load(relay, name, payload);
    } else if (note_key_parse(text, &key) && key.owner == NOTE_OF_EXCHANGER) {
        noted_load(relay, &key, payload);
    } else if (note_key_parse(text, &key)) {
        uint32_t index = relay_config_server(relay->config, key.name);
        if (index != NO_INDEX) {
            server_load_note(relay, &relay->servers[index], key.kind, payload);
        } else if (key.kind == GLOBAL_HAND && note_decode_hand(payload, &hand) && hand.disabled) {
            hand_remember(relay, key.name);
        }
    }
}

/* ---- jobs of an earlier life ---------------------------------------------------------------- */

void relay_resume(struct relay *relay, uint32_t session, uint64_t id, struct spool_handle handle,
                  const uint32_t *deliveries, uint32_t count, uint32_t server,
                  struct relay_time now)
{
    relay_begin(relay, now);
    struct message *message = message_find(relay, handle.index);
    if (message == NULL || count > message->recipient_count || id == 0 ||
        job_find(relay, id) != NULL) {
        return;
    }
    struct job *job = job_new(relay, id, count);
    if (job == NULL) {
        return;
    }
    job->session_id = session;
    job->server = server_at(relay, server) != NULL ? server : NO_INDEX;
    job->message = handle.index;
    job->noted = true;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = deliveries[i] < message->recipient_count
                              ? delivery_number(message, deliveries[i])
                              : NOBODY;
        if (number == NOBODY || delivery_at(relay, number)->state == DELIVERY_IN_FLIGHT) {
            continue;
        }
        struct delivery *delivery = delivery_at(relay, number);
        relay->attempted -= (delivery->flags & DELIVERY_ATTEMPTED) != 0;
        delivery->flags &= (uint8_t)~DELIVERY_ATTEMPTED;
        if (delivery->state == DELIVERY_IN_DOUBT) {
            delivery_take_out(relay, number);
            (void)doubt_pin(relay, number);
        }
        if (!job_take(relay, job, number) && delivery->place == PLACE_NOWHERE) {
            delivery_schedule(relay, number, relay->now.steady_ms);
        } /* no memory: it stays, its result is not heard */
        if (delivery->place == PLACE_ON_JOB) {
            recipient_precede(relay, number); /* jobs come by session, not by age */
        }
    }
    if (job->count == 0) {
        job_free(relay, job);
    }
    relay_settle(relay);
}

/* ---- what a moved message still needs ------------------------------------------------------- */

struct describing {
    void (*put)(void *context, uint32_t delivery, uint16_t kind, struct slice payload);
    void *context;
    struct buffer buffer;
};

static void put_note(struct describing *describing, uint32_t delivery, uint16_t kind)
{
    if (!describing->buffer.failed) {
        describing->put(describing->context, delivery, kind, buffer_slice(&describing->buffer));
    }
    buffer_clear(&describing->buffer);
}

static bool needs_state(const struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct lane *lane = lane_of(relay, delivery);
    return note_kind_of_state(delivery->state) != NOTE_WAITING || delivery->attempts > 0 ||
           delivery->strikes > 0 || delivery->doubts > 0 || lane->pin == PIN_DOUBT ||
           (delivery->flags & DELIVERY_NO_DELAY) != 0 || deliver_by_is_waived(relay, number);
}

static void describe(const struct relay *relay, uint32_t number, struct describing *describing)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct lane *lane = lane_of(relay, delivery);
    struct slice redirect = intern_text(&relay->redirects, lane->redirect);
    if (redirect.length > 0) {
        note_put_delivery(relay, number, NOTE_REDIRECT, redirect, &describing->buffer);
        put_note(describing, delivery->number, NOTE_REDIRECT);
    }
    if (needs_state(relay, number)) {
        bool doubt = delivery->state == DELIVERY_WAITING && lane->pin == PIN_DOUBT;
        uint16_t kind = doubt ? NOTE_DOUBT : note_kind_of_state(delivery->state);
        note_put_delivery(relay, number, kind, delivery_reason(relay, delivery),
                          &describing->buffer);
        put_note(describing, delivery->number, kind);
    }
    bool attempted = (delivery->flags & DELIVERY_ATTEMPTED) != 0 ||
                     (delivery->place == PLACE_ON_JOB && relay->jobs[delivery->next]->noted);
    if (attempted) {
        note_put_delivery(relay, number, NOTE_ATTEMPT, SLICE_EMPTY, &describing->buffer);
        put_note(describing, delivery->number, NOTE_ATTEMPT);
    }
}

void relay_describe(const struct relay *relay, struct spool_handle handle,
                    void (*put)(void *context, uint32_t delivery, uint16_t kind,
                                struct slice payload),
                    void *context)
{
    const struct message *message = message_find(relay, handle.index);
    struct describing describing = {put, context, {0}};
    buffer_init(&describing.buffer, NOTE_PAYLOAD_MAX);
    if (message != NULL && (message->flags & MESSAGE_SPAN_NOTED) != 0) {
        span_put_note(relay, message, &describing.buffer);
        put_note(&describing, SPOOL_ALL_DELIVERIES, NOTE_SPAN);
    }
    for (uint32_t i = 0; message != NULL && i < message->recipient_count; i++) {
        if (delivery_number(message, i) != NOBODY) {
            describe(relay, delivery_number(message, i), &describing);
        }
    }
    buffer_done(&describing.buffer);
}
