/* SPDX-License-Identifier: Apache-2.0
 *
 * What is too old (R7, R8): a sweep over all mail, a slice at a time, which ends deliveries whose
 * time is over, tells senders of those that are late, and tells lanes whose first one ends soon.
 *
 *   of a domain        `keep` on the odometer, `keep-max` by the wall: a dead letter
 *   of a relay         `keep` by the wall: told to a sender who may be told (R8), else a dead
 * letter our own notice     one day by the wall: a dead letter a dead letter `dead-letter-keep` by
 * the wall: discarded in flight, in doubt, held by the operator, without a route: not touched
 *
 * A round remembers how soon, at the earliest, something will have to be done; the next one begins
 * then, or when new mail could first be of age. So mail that is held for weeks is looked at a few
 * times a day, and never more often than a round costs little of.
 *
 * The wall clock is believed only as far as time has passed by the steady clock, too: one that
 * jumps ahead by days ends nobody's mail. If it was right, we catch up at twice the speed.
 *
 * How far it was believed is noted each minute while there is mail, and the next life goes on from
 * there: what the clock says at a start (a machine whose battery is empty, a wrong time server) is
 * believed only if it is earlier. So time in which nothing ran counts only as it is caught up with:
 * mail waits at most as much longer, and none is ended by a clock that nobody has watched. Noted
 * and not merely the smaller of both: a clock that begins in 1970 and is then set right has lost
 * nothing. With no mail at all there is nothing to protect, and the clock is believed as it is.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "relay/relay_internal.h"

enum {
    SECOND_MS = 1000,
    MINUTE_MS = 60 * SECOND_MS,
    HOUR_MS = 60 * MINUTE_MS,
    DAY_MS = 24 * HOUR_MS,
    NOTICE_KEEP_MS = DAY_MS, /* R8 */
    FIRST_ROUND_MS = 2000,   /* after a start or a new configuration */
    SLICE_MESSAGES = 1000,   /* looked at in one slice */
    SLICE_ENDED = 50,        /* ended or told of in one: each may be a notice to be made */
    SLICE_GAP_MS = 5,
    ROUND_GAP_MS = 10 * MINUTE_MS,
    ROUND_GAP_LEAST_MS = SECOND_MS,
    ROUND_GAP_US_A_MESSAGE = 500, /* between rounds: some thousand times what one costs */
    AHEAD_PARTS = 4,              /* told 7 days ahead, or a quarter of what it is kept */
    NEAR_PARTS = 30,              /* and one day, or this part of it */
};
#define NEVER INT64_MAX

enum cause { CAUSE_KEEP, CAUSE_KEEP_MAX, CAUSE_NOTICE, CAUSE_DEAD };

struct term {
    int64_t left_ms; /* at the earliest; NEVER: not before something else happens to it */
    int64_t keep_ms; /* all of it */
    enum cause cause;
};

/* ---- time --------------------------------------------------------------------------------- */

static int64_t trusted_wall(const struct relay *relay)
{
    const struct expiry *expiry = &relay->expiry;
    int64_t passed = relay->now.steady_ms - expiry->steady_ms;
    int64_t trusted = expiry->trusted_ms + passed;
    if (relay->now.wall_ms <= trusted) {
        return relay->now.wall_ms;
    }
    int64_t behind = relay->now.wall_ms - trusted;
    return trusted + (behind < passed ? behind : passed);
}

static void take_time(struct relay *relay)
{
    struct expiry *expiry = &relay->expiry;
    int64_t trusted = expiry->trusted_ms + relay->now.steady_ms - expiry->steady_ms;
    int64_t wall = trusted_wall(relay);
    expiry->trusted_ms = wall > trusted ? wall : trusted; /* set back and right again: no loss */
    expiry->steady_ms = relay->now.steady_ms;
}

void expiry_believe_clock(struct relay *relay, int64_t wall_ms)
{
    relay->expiry.trusted_ms = wall_ms;
    relay->expiry.steady_ms = relay->now.steady_ms;
}

void expiry_note_clock(struct relay *relay)
{
    take_time(relay);
    relay->expiry.note_ms = relay->now.steady_ms + MINUTE_MS;
    buffer_clear(&relay->scratch);
    note_encode_clock(&relay->scratch, relay->expiry.trusted_ms);
    struct relay_action *action = action_add(relay, RELAY_GLOBAL);
    action->key = NOTE_CLOCK_KEY;
    action->payload = action_copy(relay, buffer_slice(&relay->scratch));
}

int64_t expiry_note_due(const struct relay *relay)
{
    return relay->first_message == NOBODY ? NEVER : relay->expiry.note_ms;
}

/* ---- what is left of a delivery's time ---------------------------------------------------- */

static struct term term_make(uint64_t keep_ms, int64_t over_ms, enum cause cause)
{
    if (keep_ms == 0 || keep_ms > INT64_MAX / 2) {
        return (struct term){.left_ms = NEVER};
    }
    int64_t keep = (int64_t)keep_ms;
    return (struct term){over_ms < -keep ? 2 * keep : keep - over_ms, keep, cause};
}

static struct term term_earlier(struct term a, struct term b)
{
    return b.left_ms < a.left_ms ? b : a;
}

static struct term term_of_domain(const struct relay *relay, const struct message *message,
                                  uint32_t route, int64_t wall_ms)
{
    const struct route_config *config = &relay->config->routes[route];
    struct term term = {.left_ms = NEVER};
    if (message->odometer == route) {
        int64_t elapsed_ms = (int64_t)span_elapsed_s(relay, message) * SECOND_MS;
        term = term_make(config->keep_ms, elapsed_ms, CAUSE_KEEP);
    }
    return term_earlier(
        term, term_make(config->keep_max_ms, span_age_ms(message, wall_ms), CAUSE_KEEP_MAX));
}

bool expiry_is_untouched(const struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    bool by_hand = delivery->state == DELIVERY_HELD && (delivery->flags & DELIVERY_BY_RULE) == 0;
    const struct lane *lane = lane_of(relay, delivery);
    return by_hand || delivery->state == DELIVERY_IN_FLIGHT ||
           delivery->state == DELIVERY_IN_DOUBT || lane->pin == PIN_DOUBT ||
           lane->route == NO_INDEX;
}

static struct term term_of(const struct relay *relay, uint32_t number, int64_t wall_ms)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct message *message = message_at(relay, delivery->message);
    uint32_t route = lane_of(relay, delivery)->route;
    if (delivery->state == DELIVERY_DEAD) {
        int64_t over_ms = wall_ms - (int64_t)delivery->next * SECOND_MS;
        return term_make(relay->config->dead_letter_keep_ms, over_ms, CAUSE_DEAD);
    }
    if (expiry_is_untouched(relay, number)) {
        return (struct term){.left_ms = NEVER};
    }
    int64_t age_ms = span_age_ms(message, wall_ms);
    if ((message->flags & MESSAGE_OWN_DSN) != 0) {
        return term_make(NOTICE_KEEP_MS, age_ms, CAUSE_NOTICE);
    }
    return relay->config->routes[route].kind == ROUTE_DOMAIN
               ? term_of_domain(relay, message, route, wall_ms)
               : term_make(relay->config->routes[route].keep_ms, age_ms, CAUSE_KEEP);
}

/* While the odometer stands there is no saying when it will end a thing: keep-max may be first. */
static struct term as_things_are(const struct relay *relay, uint32_t number, struct term term,
                                 int64_t wall_ms)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct message *message = message_at(relay, delivery->message);
    uint32_t route = lane_of(relay, delivery)->route;
    if (term.left_ms != NEVER && term.cause == CAUSE_KEEP &&
        relay->config->routes[route].kind == ROUTE_DOMAIN && !odometer_moves(relay, route)) {
        term = term_make(relay->config->routes[route].keep_max_ms, span_age_ms(message, wall_ms),
                         CAUSE_KEEP_MAX);
    }
    return term;
}

int64_t expiry_of(const struct relay *relay, uint32_t number)
{
    int64_t wall = trusted_wall(relay);
    struct term term = as_things_are(relay, number, term_of(relay, number, wall), wall);
    int64_t end = term.left_ms == NEVER ? 0 : relay->now.wall_ms + term.left_ms;
    bool rests = delivery_at(relay, number)->state == DELIVERY_DEAD;
    int64_t set =
        rests || expiry_is_untouched(relay, number) ? 0 : deliver_by_end_ms(relay, number);
    return set != 0 && (end == 0 || set < end) ? set : end;
}

/* ---- ending -------------------------------------------------------------------------------- */

static void put_duration(struct buffer *text, int64_t ms)
{
    static const struct {
        int64_t ms;
        const char *word;
    } units[] = {{DAY_MS, "d"}, {HOUR_MS, "h"}, {MINUTE_MS, "min"}, {SECOND_MS, "s"}};
    size_t which = 0;
    while (which < 3 && (ms < units[which].ms || ms % units[which].ms != 0)) {
        which++;
    }
    buffer_printf(text, "%" PRId64 " %s", ms / units[which].ms, units[which].word);
}

/* In relay->scratch. */
static struct slice reason_of(struct relay *relay, const struct delivery *delivery,
                              const struct term *term)
{
    static const char *const texts[][2] = {
        [CAUSE_KEEP] = {"not delivered in ", " (keep)"},
        [CAUSE_KEEP_MAX] = {"not delivered in ", " (keep-max)"},
        [CAUSE_NOTICE] = {"a notice that was not delivered in ", ""},
        [CAUSE_DEAD] = {"a dead letter for ", " (dead-letter-keep)"},
    };
    struct buffer *text = &relay->scratch;
    struct slice last = delivery_reason(relay, delivery);
    buffer_clear(text);
    buffer_append_text(text, texts[term->cause][0]);
    put_duration(text, term->keep_ms);
    buffer_append_text(text, texts[term->cause][1]);
    if (last.length > 0) {
        buffer_append_text(text, "; last: ");
        buffer_append(text, slice_take(last, REASON_BYTES_MAX - text->length));
    }
    return action_copy(relay, buffer_slice(text));
}

static bool is_told(const struct relay *relay, uint32_t number)
{
    uint32_t route = lane_of(relay, delivery_at(relay, number))->route;
    return relay->config->routes[route].kind == ROUTE_RELAY &&
           fate_bounce_bar(relay, number) == BOUNCE_BAR_NONE;
}

/* Of one message, the same time over with the same last reason: one notice. */
static void end_alike(struct relay *relay, const uint32_t *numbers, uint32_t count,
                      const struct term *term)
{
    const struct delivery *first = delivery_at(relay, numbers[0]);
    struct slice reason = reason_of(relay, first, term);
    bool dead = first->state == DELIVERY_DEAD;
    if (!dead && is_told(relay, numbers[0])) {
        fate_bounced(relay, numbers, count, reason, &fate_time_is_over);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (dead) {
            fate_discarded(relay, numbers[i], &fate_time_is_over, reason);
        } else {
            fate_dead(relay, numbers[i], &fate_time_is_over, reason);
        }
    }
}

static bool ends_alike(const struct relay *relay, uint32_t a, uint32_t b)
{
    const struct delivery *one = delivery_at(relay, a), *other = delivery_at(relay, b);
    bool dead = one->state == DELIVERY_DEAD;
    return one->reason == other->reason && one->lane == other->lane &&
           dead == (other->state == DELIVERY_DEAD) &&
           (dead || is_told(relay, a) == is_told(relay, b));
}

/* The deliveries of a message that are to be ended or told of, numbers in order. */
static void end_all(struct relay *relay, const uint32_t *numbers, uint32_t count, int64_t wall_ms)
{
    for (uint32_t i = 0, run; i < count; i += run) {
        struct term term = term_of(relay, numbers[i], wall_ms);
        run = 1;
        while (i + run < count && ends_alike(relay, numbers[i], numbers[i + run])) {
            run++;
        }
        end_alike(relay, numbers + i, run, &term);
    }
}

/* ---- late ---------------------------------------------------------------------------------- */

/* Until it is to be said that it is late; NEVER: not to be said. */
static int64_t delay_left(const struct relay *relay, uint32_t number, int64_t wall_ms)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct message *message = message_at(relay, delivery->message);
    uint32_t route = lane_of(relay, delivery)->route;
    bool waits = delivery->state == DELIVERY_WAITING || delivery->state == DELIVERY_DEFERRED;
    if (!waits || route == NO_INDEX || (delivery->flags & DELIVERY_NO_DELAY) != 0 ||
        (message->flags & MESSAGE_VERIFIED) == 0 || relay->config->bounces == NO_INDEX ||
        (message->flags & (MESSAGE_OWN_DSN | MESSAGE_NULL_SENDER)) != 0) {
        return NEVER;
    }
    return term_make(relay->config->routes[route].delay_notice_ms, span_age_ms(message, wall_ms),
                     CAUSE_KEEP)
        .left_ms;
}

/* ---- the sweep ----------------------------------------------------------------------------- */

static void expect(struct relay *relay, int64_t left_ms)
{
    if (left_ms < relay->expiry.soonest_ms) {
        relay->expiry.soonest_ms = left_ms > 0 ? left_ms : 0;
    }
}

static int64_t ahead_ms(const struct term *term, int64_t most_ms, int64_t parts)
{
    return term->keep_ms / parts < most_ms ? term->keep_ms / parts : most_ms;
}

/* R7: for people, 7 days and 1 day before a domain's mail ends. The lane's first one counts. */
static void look_ahead(struct relay *relay, uint32_t number, const struct term *term)
{
    struct lane *lane = lane_of(relay, delivery_at(relay, number));
    bool domain = lane->route != NO_INDEX && lane->pin == PIN_NONE &&
                  relay->config->routes[lane->route].kind == ROUTE_DOMAIN;
    if (!domain || term->cause > CAUSE_KEEP_MAX) {
        return;
    }
    int64_t near = ahead_ms(term, DAY_MS, NEAR_PARTS);
    int64_t ahead = ahead_ms(term, 7 * (int64_t)DAY_MS, AHEAD_PARTS);
    if (term->left_ms < ahead && term->left_ms < lane->expiry_left_ms) {
        lane->expiry_left_ms = term->left_ms;
        lane->expiry_seen = term->left_ms < near ? 2 : 1;
    }
    expect(relay, term->left_ms >= ahead  ? term->left_ms - ahead
                  : term->left_ms >= near ? term->left_ms - near
                                          : term->left_ms);
}

/* One that is under way may come back old, and an odometer that stands may move. */
static int64_t sweep_again(const struct relay *relay, uint32_t number, const struct term *term)
{
    const struct delivery *delivery = delivery_at(relay, number);
    uint32_t route = lane_of(relay, delivery)->route;
    bool stands = term->cause == CAUSE_KEEP && route != NO_INDEX &&
                  relay->config->routes[route].kind == ROUTE_DOMAIN &&
                  !odometer_moves(relay, route);
    if (term->left_ms == NEVER) {
        return expiry_is_untouched(relay, number) && route != NO_INDEX &&
                       delivery->state != DELIVERY_HELD
                   ? ROUND_GAP_MS
                   : NEVER;
    }
    return stands && term->left_ms < ROUND_GAP_MS ? ROUND_GAP_MS : term->left_ms;
}

/* How many were ended or told of. */
static uint32_t look_at(struct relay *relay, uint32_t index, int64_t wall_ms)
{
    struct message *message = message_at(relay, index);
    uint32_t *over = NULL, *late = NULL, over_count = 0, late_count = 0;
    if (message->odometer == NO_INDEX) {
        span_adopt(relay, message);
    }
    if ((message->flags & MESSAGE_SPAN_WANTED) != 0) {
        span_write_note(relay, index);
    }
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        uint32_t number = delivery_number(message, i);
        if (number == NOBODY) {
            continue;
        }
        struct term term = term_of(relay, number, wall_ms);
        if (term.left_ms <= 0) {
            over = over != NULL ? over : action_numbers(relay, message->recipient_count);
            over[over_count++] = number;
            continue;
        }
        expect(relay, sweep_again(relay, number, &term));
        term = as_things_are(relay, number, term, wall_ms);
        look_ahead(relay, number, &term);
        int64_t delay = delay_left(relay, number, wall_ms);
        if (delay <= 0) {
            late = late != NULL ? late : action_numbers(relay, message->recipient_count);
            late[late_count++] = number;
        } else {
            expect(relay, delay);
        }
    }
    if (late_count > 0) {
        fate_delayed(relay, late, late_count, expiry_of(relay, late[0]), NULL);
    }
    end_all(relay, over, over_count, wall_ms); /* the message may go with them */
    return over_count + (late_count > 0);
}

static void tell_ahead(struct relay *relay, struct lane *lane)
{
    if (lane->expiry_seen == lane->expiry_level) {
        return;
    }
    lane->expiry_level = lane->expiry_seen;
    struct relay_action *event = action_event(relay, RELAY_EVENT_EXPIRY);
    event->lane = action_copy(relay, lane->name);
    event->count = lane->expiry_level;
    event->duration_ms = lane->expiry_level > 0 ? lane->expiry_left_ms : 0;
}

/* The least that new mail may need to be looked at for. */
static int64_t shortest_term(const struct relay *relay)
{
    uint64_t least = relay->config->bounces != NO_INDEX ? NOTICE_KEEP_MS : NEVER;
    for (uint32_t i = 0; i < relay->config->route_count; i++) {
        const struct route_config *route = &relay->config->routes[i];
        const uint64_t terms[] = {route->keep_ms, route->keep_max_ms, route->delay_notice_ms};
        for (size_t j = 0; j < sizeof terms / sizeof terms[0]; j++) {
            least = terms[j] > 0 && terms[j] < least ? terms[j] : least;
        }
    }
    uint64_t dead = relay->config->dead_letter_keep_ms;
    return (int64_t)(dead > 0 && dead < least ? dead : least);
}

/* Nothing goes unseen for longer than an eighth of the shortest term, and no round costs much. */
static void end_round(struct relay *relay)
{
    struct expiry *expiry = &relay->expiry;
    int64_t shortest = shortest_term(relay);
    int64_t wait = expiry->soonest_ms < shortest ? expiry->soonest_ms : shortest;
    int64_t gap = (int64_t)expiry->seen * ROUND_GAP_US_A_MESSAGE / 1000;
    bool told = false;
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        tell_ahead(relay, relay->lanes.all[i]);
        told |= relay->lanes.all[i]->expiry_level > 0;
    }
    if ((expiry->asked || told) && wait > ROUND_GAP_MS) {
        wait = ROUND_GAP_MS;
    }
    gap = gap > ROUND_GAP_LEAST_MS ? gap : ROUND_GAP_LEAST_MS;
    gap = gap < ROUND_GAP_MS ? gap : ROUND_GAP_MS;
    wait = wait > gap ? wait : gap;
    expiry->due_ms = wait >= NEVER / 2 ? NEVER : relay->now.steady_ms + wait;
    expiry->next = NOBODY;
    expiry->asked = false;
    expiry->running = false;
}

static void begin_round(struct relay *relay)
{
    struct expiry *expiry = &relay->expiry;
    expiry->running = true;
    expiry->asked = false;
    expiry->next = relay->first_message;
    expiry->seen = 0;
    expiry->soonest_ms = NEVER;
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        relay->lanes.all[i]->expiry_left_ms = NEVER;
        relay->lanes.all[i]->expiry_seen = 0;
    }
}

void expiry_due(struct relay *relay)
{
    struct expiry *expiry = &relay->expiry;
    take_time(relay);
    int64_t wall = trusted_wall(relay);
    if (!expiry->running) {
        begin_round(relay);
    }
    uint32_t ended = 0;
    for (uint32_t i = 0; i < SLICE_MESSAGES && ended < SLICE_ENDED && expiry->next != NOBODY; i++) {
        uint32_t index = expiry->next;
        expiry->next = message_at(relay, index)->next;
        expiry->seen++;
        ended += look_at(relay, index, wall);
    }
    if (expiry->next == NOBODY) {
        end_round(relay);
    } else {
        expiry->due_ms = relay->now.steady_ms + SLICE_GAP_MS;
    }
}

void expiry_start(struct relay *relay)
{
    relay->expiry.running = relay->expiry.asked = false;
    relay->expiry.next = NOBODY;
    relay->expiry.due_ms = relay->now.steady_ms + FIRST_ROUND_MS;
}

void expiry_soon(struct relay *relay)
{
    struct expiry *expiry = &relay->expiry;
    if (!relay->started) {
        return; /* the first round is still to come */
    }
    if (expiry->running || expiry->asked) {
        expiry->asked = true;
        return;
    }
    expiry->asked = true;
    int64_t shortest = shortest_term(relay);
    int64_t wait = shortest < ROUND_GAP_MS ? shortest : ROUND_GAP_MS;
    int64_t due = relay->now.steady_ms + wait;
    expiry->due_ms = due < expiry->due_ms ? due : expiry->due_ms;
}

void expiry_forget(struct relay *relay, uint32_t message)
{
    if (relay->expiry.next == message) {
        relay->expiry.next = message_at(relay, message)->next;
    }
}
