/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages and deliveries in slabs: a message at the place of its spool handle, deliveries where
 * there is room. No string and no allocation per delivery; a message for several recipients has one
 * small table.
 */
#include <assert.h>
#include <stdlib.h>

#include "relay/relay_internal.h"

enum { DOMAIN_BYTES_MAX = 256 }; /* kept and compared */

static bool chunks_grow(struct chunks *chunks, uint32_t index, size_t item_size)
{
    uint32_t which = index >> CHUNK_SHIFT;
    while (which >= chunks->room) {
        uint32_t room = chunks->room == 0 ? 16 : chunks->room * 2;
        void **more = realloc(chunks->chunk, room * sizeof *more);
        if (more == NULL) {
            return false;
        }
        memset(more + chunks->room, 0, (room - chunks->room) * sizeof *more);
        chunks->chunk = more;
        chunks->room = room;
    }
    if (chunks->chunk[which] == NULL) {
        chunks->chunk[which] = calloc(CHUNK_SIZE, item_size);
    }
    if (which >= chunks->count) {
        chunks->count = which + 1;
    }
    return chunks->chunk[which] != NULL;
}

static void chunks_done(struct chunks *chunks)
{
    for (uint32_t i = 0; i < chunks->count; i++) {
        free(chunks->chunk[i]);
    }
    free(chunks->chunk);
    *chunks = (struct chunks){0};
}

struct message *message_at(const struct relay *relay, uint32_t index)
{
    struct message *chunk = relay->messages.chunk[index >> CHUNK_SHIFT];
    return &chunk[index & (CHUNK_SIZE - 1)];
}

struct message *message_find(const struct relay *relay, uint32_t index)
{
    uint32_t which = index >> CHUNK_SHIFT;
    if (which >= relay->messages.count || relay->messages.chunk[which] == NULL) {
        return NULL;
    }
    struct message *message = message_at(relay, index);
    return (message->flags & MESSAGE_PRESENT) != 0 ? message : NULL;
}

struct delivery *delivery_at(const struct relay *relay, uint32_t number)
{
    struct delivery *chunk = relay->deliveries.chunk[number >> CHUNK_SHIFT];
    return &chunk[number & (CHUNK_SIZE - 1)];
}

uint32_t delivery_number(const struct message *message, uint32_t which)
{
    assert(which < message->recipient_count);
    return message->recipient_count == 1 ? message->deliveries.single
                                         : message->deliveries.many[which];
}

bool delivery_before(const struct relay *relay, uint32_t a, uint32_t b)
{
    const struct delivery *one = delivery_at(relay, a), *other = delivery_at(relay, b);
    if (one->message == other->message) {
        return one->number < other->number;
    }
    const struct message *first = message_at(relay, one->message);
    const struct message *second = message_at(relay, other->message);
    if (first->sequence != second->sequence) {
        return first->sequence < second->sequence;
    }
    /* What a node of a cluster had alone, all of it has its place behind the same one. */
    return first->received_ms != second->received_ms ? first->received_ms < second->received_ms
                                                     : one->message < other->message;
}

/* ---- making and freeing ------------------------------------------------------------------- */

/* Room in the schedule for each delivery and for its recipient's patience, so that putting one off
 * can never fail. */
bool timers_reserve(struct relay *relay, uint32_t more_deliveries, uint32_t more_others)
{
    uint64_t others = (uint64_t)relay->deliver_by.count + 1 + relay->server_count +
                      relay->exchanger_room + relay->lanes.destination_room + 1 + more_others;
    uint64_t need = 2 * ((uint64_t)relay->delivery_count + more_deliveries) + others;
    return need < UINT32_MAX && schedule_reserve(&relay->schedule, (uint32_t)need) == ERROR_NONE;
}

static uint32_t delivery_new(struct relay *relay)
{
    uint32_t number = relay->delivery_free;
    if (number != NOBODY) {
        relay->delivery_free = delivery_at(relay, number)->next;
    } else {
        number = relay->delivery_used;
        if (number == NOBODY - 1 ||
            !chunks_grow(&relay->deliveries, number, sizeof(struct delivery))) {
            return NOBODY;
        }
        relay->delivery_used++;
    }
    relay->delivery_count++;
    foresight_renew(relay, number);
    *delivery_at(relay, number) = (struct delivery){
        .next = NOBODY,
        .previous = NOBODY,
        .lane = NOBODY,
        .domain = INTERN_NONE,
        .server = NO_SERVER,
        .state = DELIVERY_FINISHED,
        .place = PLACE_NOWHERE,
    };
    return number;
}

static void delivery_free(struct relay *relay, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    intern_drop(&relay->domains, delivery->domain);
    delivery_set_reason(relay, delivery, SLICE_EMPTY);
    *delivery = (struct delivery){.next = relay->delivery_free, .state = DELIVERY_FINISHED};
    relay->delivery_free = number;
    relay->delivery_count--;
}

static struct slice fold_domain(struct slice domain, uint8_t folded[DOMAIN_BYTES_MAX])
{
    domain = slice_take(domain, DOMAIN_BYTES_MAX);
    for (size_t i = 0; i < domain.length; i++) {
        uint8_t c = domain.data[i];
        folded[i] = c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
    }
    return slice_make(folded, domain.length);
}

struct slice domain_of_address(struct slice address)
{
    return slice_skip(address, slice_find_last(address, '@') + 1);
}

uint32_t domain_take(struct relay *relay, struct slice domain)
{
    uint8_t folded[DOMAIN_BYTES_MAX];
    return intern_take(&relay->domains, fold_domain(domain, folded));
}

bool queue_has_domain(const struct relay *relay, struct slice domain)
{
    uint8_t folded[DOMAIN_BYTES_MAX];
    return intern_has(&relay->domains, fold_domain(domain, folded));
}

static void link_message(struct relay *relay, uint32_t index)
{
    struct message *message = message_at(relay, index);
    uint32_t after = relay->last_message;
    if (after != NOBODY && message_at(relay, after)->sequence > message->sequence) {
        after = milestones_find(relay, message->sequence);
        relay->load_hint = index;
    }
    message->previous = after;
    message->next = after == NOBODY ? relay->first_message : message_at(relay, after)->next;
    *(after == NOBODY ? &relay->first_message : &message_at(relay, after)->next) = index;
    *(message->next == NOBODY ? &relay->last_message
                              : &message_at(relay, message->next)->previous) = index;
}

static void unlink_message(struct relay *relay, uint32_t index)
{
    struct message *message = message_at(relay, index);
    expiry_forget(relay, index);
    foresight_forget(relay, index);
    if (relay->load_hint == index) {
        relay->load_hint = message->previous;
    }
    *(message->previous == NOBODY ? &relay->first_message
                                  : &message_at(relay, message->previous)->next) = message->next;
    *(message->next == NOBODY ? &relay->last_message
                              : &message_at(relay, message->next)->previous) = message->previous;
}

static void message_free(struct relay *relay, uint32_t index)
{
    struct message *message = message_at(relay, index);
    deliver_by_forget(relay, index);
    unlink_message(relay, index);
    if (message->recipient_count > 1) {
        free(message->deliveries.many);
    }
    *message = (struct message){0};
}

static bool add_deliveries(struct relay *relay, struct message *message, uint32_t index,
                           const struct spool_message *from)
{
    for (uint32_t i = 0; i < from->recipient_count; i++) {
        uint32_t number = delivery_new(relay);
        *(from->recipient_count == 1 ? &message->deliveries.single : &message->deliveries.many[i]) =
            number;
        if (number == NOBODY) {
            return false;
        }
        message->unfinished++;
        struct delivery *delivery = delivery_at(relay, number);
        uint8_t notify = from->recipients[i].notify;
        delivery->message = index;
        delivery->number = (uint16_t)i;
        delivery->recipient = recipient_hash(relay, from->recipients[i].address);
        if (notify != 0 && (notify & SPOOL_NOTIFY_FAILURE) == 0) {
            delivery->flags |= DELIVERY_NO_NOTICE;
        }
        if (notify != 0 && (notify & SPOOL_NOTIFY_DELAY) == 0) {
            delivery->flags |= DELIVERY_NO_DELAY;
        }
        if ((notify & SPOOL_NOTIFY_SUCCESS) != 0) {
            delivery->flags |= DELIVERY_TELL_SUCCESS;
        }
        delivery->domain = domain_take(relay, domain_of_address(from->recipients[i].address));
        if (delivery->domain == INTERN_NONE) {
            return false;
        }
    }
    return true;
}

static uint8_t level_of_priority(int8_t priority)
{
    int level = priority + LEVEL_NORMAL;
    return (uint8_t)(level < 0 ? 0 : level >= LEVELS ? LEVELS - 1 : level);
}

enum error message_insert(struct relay *relay, uint32_t index, const struct spool_message *from)
{
    uint32_t count = from->recipient_count;
    if (count == 0 || count > SPOOL_RECIPIENTS_MAX || index >= UINT32_MAX - CHUNK_SIZE) {
        return ERROR_INVALID;
    }
    if (message_find(relay, index) != NULL) {
        return ERROR_EXISTS;
    }
    if (!chunks_grow(&relay->messages, index, sizeof(struct message)) ||
        !timers_reserve(relay, count, 0) ||
        (relay->waiting.room > 0 && !waiting_reserve(relay, relay->delivery_count + count))) {
        return ERROR_MEMORY;
    }
    uint32_t *many = count == 1 ? NULL : malloc(count * sizeof *many);
    if (count > 1 && many == NULL) {
        return ERROR_MEMORY;
    }
    struct message *message = message_at(relay, index);
    *message = (struct message){
        .sequence = from->sequence,
        .received_ms = from->received_ms,
        .bytes = from->header_length + from->body_length,
        .sender = (uint32_t)recipient_hash(relay, from->sender),
        .odometer = NO_INDEX,
        .recipient_count = (uint16_t)count,
        .level = level_of_priority(from->priority) & 31u,
        .tls = (from->flags & SPOOL_REQUIRE_TLS) != 0    ? SENDER_TLS_REQUIRED
               : (from->flags & SPOOL_TLS_OPTIONAL) != 0 ? SENDER_TLS_WAIVED
                                                         : SENDER_TLS_ANY,
        .flags = MESSAGE_PRESENT |
                 ((from->flags & SPOOL_SENDER_VERIFIED) != 0 ? MESSAGE_VERIFIED : 0) |
                 ((from->flags & SPOOL_OWN_DSN) != 0 ? MESSAGE_OWN_DSN : 0) |
                 ((from->flags & SPOOL_ENVELOPE_ONLY) != 0 ? MESSAGE_ENVELOPE_ONLY : 0) |
                 (from->sender.length == 0 ? MESSAGE_NULL_SENDER : 0),
    };
    if (many != NULL) {
        memset(many, 0xff, count * sizeof *many); /* NOBODY */
        message->deliveries.many = many;
    }
    link_message(relay, index);
    if (!add_deliveries(relay, message, index, from) || !deliver_by_insert(relay, index, from)) {
        message_abandon(relay, index);
        return ERROR_MEMORY;
    }
    if (message->sequence > relay->last_sequence) {
        relay->last_sequence = message->sequence;
    }
    return ERROR_NONE;
}

void message_abandon(struct relay *relay, uint32_t index)
{
    struct message *message = message_at(relay, index);
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        if (delivery_number(message, i) != NOBODY) {
            delivery_free(relay, delivery_number(message, i));
        }
    }
    message_free(relay, index);
}

void queue_done(struct relay *relay)
{
    for (uint32_t at = relay->first_message; at != NOBODY;) {
        struct message *message = message_at(relay, at);
        at = message->next;
        if (message->recipient_count > 1) {
            free(message->deliveries.many);
        }
    }
    chunks_done(&relay->messages);
    chunks_done(&relay->deliveries);
}

/* ---- counts ------------------------------------------------------------------------------- */

static bool is_live(enum delivery_state state)
{
    return state != DELIVERY_FINISHED && state != DELIVERY_DEAD;
}

/* The message has got its first live delivery, or lost its last. */
static void message_lives(struct relay *relay, uint32_t index, bool lives)
{
    struct message *message = message_at(relay, index);
    if (lives) {
        relay->totals.messages++;
        relay->totals.bytes += message->bytes;
        if (relay->oldest == NOBODY ||
            message->sequence < message_at(relay, relay->oldest)->sequence) {
            relay->oldest = index;
        }
        return;
    }
    relay->totals.messages--;
    relay->totals.bytes -= message->bytes;
    if (relay->oldest == index) {
        uint32_t next = message->next;
        while (next != NOBODY && message_at(relay, next)->live == 0) {
            next = message_at(relay, next)->next;
        }
        relay->oldest = next;
    }
}

/* R2, R4: a refusal that is held (R5) is tried once more by itself. */
static bool needs_operator(const struct delivery *delivery)
{
    return delivery->state == DELIVERY_HELD &&
           (delivery->flags & (DELIVERY_BY_RULE | DELIVERY_REFUSED_ONCE)) == DELIVERY_BY_RULE;
}

static void count_total(struct relay *relay, enum delivery_state state, bool enters)
{
    uint64_t change = enters ? 1 : UINT64_MAX; /* plus or minus one */
    relay->totals.deliveries += is_live(state) ? change : 0;
    relay->totals.dead_letters += state == DELIVERY_DEAD ? change : 0;
    relay->totals.held += state == DELIVERY_HELD ? change : 0;
}

bool delivery_in_doubt(const struct delivery *delivery, const struct lane *lane)
{
    return delivery->state == DELIVERY_IN_DOUBT ||
           (lane->pin == PIN_DOUBT &&
            (delivery->state == DELIVERY_WAITING || delivery->state == DELIVERY_IN_FLIGHT));
}

static bool counts_as_doubt(const struct relay *relay, const struct delivery *delivery)
{
    return delivery->state != DELIVERY_FINISHED &&
           delivery_in_doubt(delivery, lane_of(relay, delivery));
}

/* Another unfinished delivery of the message stands in the same route. Deliveries begin and end in
 * their order as a rule, so looking from the far end finds one at once. */
static bool route_is_shared(const struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct message *message = message_at(relay, delivery->message);
    uint32_t route = lane_of(relay, delivery)->route;
    for (uint32_t i = message->recipient_count; i > 0; i--) {
        uint32_t other = delivery_number(message, i - 1);
        if (other != NOBODY && other != number &&
            delivery_at(relay, other)->state != DELIVERY_FINISHED &&
            lane_of(relay, delivery_at(relay, other))->route == route) {
            return true;
        }
    }
    return false;
}

static void count_route(struct relay *relay, uint32_t number, bool enters)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct message *message = message_at(relay, delivery->message);
    uint32_t route = lane_of(relay, delivery)->route;
    if (route == NO_INDEX || (message->recipient_count > 1 && route_is_shared(relay, number))) {
        return;
    }
    relay->route_bytes[route] += enters ? message->bytes : -message->bytes;
}

void route_bytes_count(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        relay->route_bytes[i] = 0;
    }
    for (uint32_t at = relay->first_message; at != NOBODY; at = message_at(relay, at)->next) {
        const struct message *message = message_at(relay, at);
        uint32_t before = NO_INDEX; /* routes of one message come in runs, as a rule in one */
        for (uint32_t i = 0; i < message->recipient_count; i++) {
            uint32_t number = delivery_number(message, i);
            uint32_t route =
                number == NOBODY ? NO_INDEX : lane_of(relay, delivery_at(relay, number))->route;
            bool counted = route == NO_INDEX || route == before;
            for (uint32_t j = 0; !counted && j < i; j++) {
                uint32_t other = delivery_number(message, j);
                counted =
                    other != NOBODY && lane_of(relay, delivery_at(relay, other))->route == route;
            }
            relay->route_bytes[counted ? 0 : route] += counted ? 0 : message->bytes;
            before = route == NO_INDEX ? before : route;
        }
    }
}

void delivery_set_state(struct relay *relay, uint32_t number, enum delivery_state state)
{
    struct delivery *delivery = delivery_at(relay, number);
    enum delivery_state before = delivery->state;
    if (state == before) {
        return;
    }
    struct message *message = message_at(relay, delivery->message);
    count_total(relay, before, false);
    count_total(relay, state, true);
    lane_count(relay, number, before, -1);
    if (state == DELIVERY_FINISHED) {
        count_route(relay, number, false);
    } else if (before == DELIVERY_FINISHED) {
        count_route(relay, number, true);
    }
    relay->totals.held_by_rule -= needs_operator(delivery);
    relay->totals.in_doubt -= counts_as_doubt(relay, delivery);
    delivery->state = state;
    relay->totals.held_by_rule += needs_operator(delivery);
    relay->totals.in_doubt += counts_as_doubt(relay, delivery);
    lane_count(relay, number, state, 1);
    if (is_live(state) && !is_live(before) && message->live++ == 0) {
        message_lives(relay, delivery->message, true);
    } else if (!is_live(state) && is_live(before) && --message->live == 0) {
        message_lives(relay, delivery->message, false);
    }
}

void delivery_set_flags(struct relay *relay, struct delivery *delivery, unsigned clear,
                        unsigned set)
{
    relay->totals.held_by_rule -= needs_operator(delivery);
    delivery->flags = (uint8_t)((delivery->flags & ~clear) | set);
    relay->totals.held_by_rule += needs_operator(delivery);
}

void delivery_move(struct relay *relay, uint32_t number, uint32_t lane)
{
    struct delivery *delivery = delivery_at(relay, number);
    if (delivery->lane == lane) {
        return;
    }
    if (delivery->state == DELIVERY_FINISHED) { /* a new one: not counted yet */
        delivery->lane = lane;
        return;
    }
    lane_count(relay, number, delivery->state, -1);
    count_route(relay, number, false);
    relay->totals.in_doubt -= counts_as_doubt(relay, delivery);
    delivery->lane = lane;
    relay->totals.in_doubt += counts_as_doubt(relay, delivery);
    count_route(relay, number, true);
    lane_count(relay, number, delivery->state, 1);
}

void delivery_entomb(struct relay *relay, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    uint32_t index = delivery->message;
    struct message *message = message_at(relay, index);
    assert(delivery->place == PLACE_NOWHERE);
    delivery_set_state(relay, number, DELIVERY_FINISHED);
    if (message->recipient_count > 1) {
        message->deliveries.many[delivery->number] = NOBODY;
    }
    if (--message->unfinished == 0) {
        message_free(relay, index);
    }
}

void delivery_bury(struct relay *relay, uint32_t number)
{
    delivery_free(relay, number);
}

void delivery_vanish(struct relay *relay, uint32_t number)
{
    delivery_entomb(relay, number);
    delivery_bury(relay, number);
}

void delivery_finish(struct relay *relay, uint32_t number)
{
    lane_count_done(relay, number);
    delivery_vanish(relay, number);
}

/* ---- reasons ------------------------------------------------------------------------------ */

void delivery_set_reason(struct relay *relay, struct delivery *delivery, struct slice reason)
{
    uint32_t number = INTERN_NONE;
    if (reason.length > 0) {
        number = intern_take(&relay->reasons, slice_take(reason, REASON_BYTES_MAX));
        if (number == INTERN_NONE) {
            /* Too many different texts (replies with queue ids in them): the code must do. */
            number = intern_take(&relay->reasons, slice_take(reason, slice_find(reason, ' ')));
        }
        if (number == INTERN_NONE) {
            number = intern_take(&relay->reasons, SLICE_LITERAL("see the trace"));
        }
    }
    if (delivery->reason != 0) {
        intern_drop(&relay->reasons, delivery->reason - 1u);
    }
    delivery->reason = number == INTERN_NONE ? 0 : (uint16_t)(number + 1);
}

struct slice delivery_reason(const struct relay *relay, const struct delivery *delivery)
{
    return delivery->reason == 0 ? SLICE_EMPTY
                                 : intern_text(&relay->reasons, delivery->reason - 1u);
}
