/* SPDX-License-Identifier: Apache-2.0
 *
 * What becomes of a delivery, once outcome.c has said what was meant: each function takes it out of
 * wherever it is, changes its state, lets its recipient's next one go (or not yet), and tells: fate
 * or note for the journal, event for people.
 */
#include <assert.h>

#include "relay/destination.h"
#include "relay/refusal.h"

enum { RETRY_WITHOUT_ROUTE_MS = 10 * 60 * 1000 };

static struct server *server_of(const struct relay *relay, const struct delivery *delivery)
{
    return server_at(relay, delivery->server);
}

/* Out of its place. A lane made for a doubt is left with it: order there is its own. Its server did
 * not take it now, but may have before. */
static struct delivery *begin(struct relay *relay, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    delivery_take_out(relay, number);
    struct lane *lane = lane_of(relay, delivery);
    if (lane->pin == PIN_DOUBT) {
        delivery->doubted = delivery->server == lane->pinned_server;
        recipient_release(relay, number);
        delivery_move(relay, number, lane_base(relay, lane)->index);
    }
    return delivery;
}

/* ---- the schedule ------------------------------------------------------------------------- */

static const struct route_config *route_of(const struct relay *relay,
                                           const struct delivery *delivery)
{
    uint32_t route = lane_of(relay, delivery)->route;
    return route == NO_INDEX ? NULL : &relay->config->routes[route];
}

uint32_t retry_delay(const struct relay *relay, const struct delivery *delivery)
{
    const struct route_config *route = route_of(relay, delivery);
    if (route == NULL) {
        return RETRY_WITHOUT_ROUTE_MS;
    }
    uint32_t which = delivery->attempts == 0 ? 0 : delivery->attempts - 1u;
    return route->retry_ms[which < route->retry_count ? which : route->retry_count - 1];
}

void delivery_schedule(struct relay *relay, uint32_t number, int64_t due_ms)
{
    struct delivery *delivery = delivery_at(relay, number);
    assert(delivery->place == PLACE_NOWHERE);
    delivery->place = PLACE_TIMED;
    schedule_add(&relay->schedule, (struct timer){due_ms, TIMER_DELIVERY, number});
}

static int64_t next_wall(const struct relay *relay, const struct delivery *delivery)
{
    return relay->now.wall_ms +
           (schedule_at(&relay->schedule, delivery->next)->due_ms - relay->now.steady_ms);
}

/* A doubt goes back to the server that may have the message (R2), until that has been away for too
 * long. */
bool doubt_pin(struct relay *relay, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    const struct server *server = server_of(relay, delivery);
    struct lane *lane = lane_of(relay, delivery);
    bool same = server != NULL && !exchanger_is_gone(server) && lane->pinned_server == NO_INDEX &&
                (server->away_since_ms == INT64_MAX ||
                 relay->now.steady_ms - server->away_since_ms < DOUBT_PATIENCE_MS);
    if (same) {
        struct lane *pinned = lane_for_doubt(relay, lane, server->index);
        if (pinned == NULL) {
            return false;
        }
        recipient_release(relay, number); /* what is in doubt keeps nobody back (R6) */
        delivery_move(relay, number, pinned->index);
    }
    delivery->doubted = false;
    return true;
}

void delivery_due(struct relay *relay, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    delivery_take_out(relay, number);
    if (is_held_refusal(delivery)) {
        refusal_retry(relay, number, true);
        return;
    }
    bool doubt = delivery->state == DELIVERY_IN_DOUBT || delivery->doubted;
    if (doubt && !doubt_pin(relay, number)) {
        delivery_schedule(relay, number, relay->now.steady_ms + OWN_TROUBLE_MS);
        return;
    }
    delivery_set_state(relay, number, DELIVERY_WAITING);
    lane_return(relay, number);
}

void doubts_unpin(struct relay *relay, struct server *server)
{
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        struct lane *lane = relay->lanes.all[i];
        struct lane *base;
        if (lane->pin != PIN_DOUBT || lane->pinned_server != server->index || lane->ready == 0 ||
            (base = lane_base(relay, lane)) == lane) {
            continue;
        }
        while (lane->ready > 0) {
            uint32_t number = lane_head(relay, lane);
            delivery_take_out(relay, number);
            recipient_release(relay, number);
            delivery_move(relay, number, base->index);
            lane_return(relay, number);
        }
    }
}

static bool is_deferred_in_trouble(const struct delivery *delivery, const struct server *server)
{
    return delivery->state == DELIVERY_DEFERRED && delivery->server == server->index &&
           delivery->epoch == server->epoch && delivery->trouble_attempts > 0;
}

/* It may go to the server now; whom it is to was not tried there lately. */
static bool may_be_canary(const struct relay *relay, const struct server *server, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    return is_deferred_in_trouble(delivery, server) && recipient_allows(relay, number) &&
           !message_at(relay, delivery->message)->rests &&
           lane_choose(relay, lane_of(relay, delivery)) == server->index &&
           !canary_was_tried(server, delivery->recipient);
}

/* Among the next LOOK_AHEAD timers, so that it costs little however many there are. */
static uint32_t find_canary(const struct relay *relay, struct server *server, uint32_t look)
{
    const struct schedule *schedule = &relay->schedule;
    uint32_t best = NOBODY;
    for (uint32_t i = 0; i < look; i++) {
        server->spare_look = server->spare_look + 1 < schedule->count ? server->spare_look + 1 : 0;
        const struct timer *timer = schedule_at(schedule, server->spare_look);
        if (timer->kind == TIMER_DELIVERY && may_be_canary(relay, server, timer->index) &&
            (best == NOBODY || delivery_before(relay, timer->index, best))) {
            best = timer->index;
        }
    }
    return best;
}

bool deferrals_canary(struct relay *relay, struct server *server)
{
    if (!server->epoch_used || server->defers_none) {
        return false;
    }
    bool all = relay->schedule.count <= LOOK_AHEAD;
    uint32_t look = all ? relay->schedule.count : LOOK_AHEAD;
    uint32_t number = find_canary(relay, server, look);
    if (number == NOBODY && all && canary_forget(server)) { /* from the first on again */
        number = find_canary(relay, server, look);
    }
    if (number == NOBODY) {
        server->defers_none = all;
        return false;
    }
    struct delivery *delivery = delivery_at(relay, number);
    delivery->attempts -= delivery->attempts > 0;
    delivery->trouble_attempts--;
    delivery_due(relay, number);
    return true;
}

/* Deferred by one that comes after `server` in its chain: it was tried there because that was away,
 * and goes to it now. */
static bool is_by_stand_in(const struct relay *relay, const struct delivery *delivery,
                           uint32_t server)
{
    const struct lane *lane = lane_of(relay, delivery);
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, lane, &length);
    bool later = false;
    for (uint32_t i = 0; i < length && (later || chain[i] != delivery->server); i++) {
        later |= chain[i] == server;
    }
    return later && !delivery->doubted && delivery->server != server &&
           lane_may_go_to(relay, lane, delivery->server) && lane_choose(relay, lane) == server;
}

void deferrals_forgive(struct relay *relay, struct server *server)
{
    bool any = false;
    for (uint32_t i = 0; i < relay->schedule.count; i++) {
        struct timer *timer = schedule_at(&relay->schedule, i);
        if (timer->kind != TIMER_DELIVERY) {
            continue;
        }
        struct delivery *delivery = delivery_at(relay, timer->index);
        if (is_deferred_in_trouble(delivery, server) ||
            (delivery->state == DELIVERY_DEFERRED &&
             is_by_stand_in(relay, delivery, server->index))) {
            unsigned counted = delivery->trouble_attempts;
            delivery->attempts -= delivery->attempts < counted ? delivery->attempts : counted;
            delivery->trouble_attempts = 0;
            timer->due_ms = relay->now.steady_ms;
            any = true;
        }
    }
    if (any) {
        schedule_restore(&relay->schedule);
    }
}

void deferrals_forget(struct relay *relay, const struct server *server)
{
    for (uint32_t at = relay->first_message; at != NOBODY; at = message_at(relay, at)->next) {
        const struct message *message = message_at(relay, at);
        for (uint32_t i = 0; i < message->recipient_count; i++) {
            uint32_t number = delivery_number(message, i);
            if (number != NOBODY && delivery_at(relay, number)->server == server->index) {
                delivery_at(relay, number)->trouble_attempts = 0;
            }
        }
    }
}

/* ---- put off ------------------------------------------------------------------------------ */

static void count_attempt(struct relay *relay, struct delivery *delivery)
{
    delivery->attempts += delivery->attempts < UINT16_MAX;
    struct server *server = server_of(relay, delivery);
    if (server == NULL) {
        return;
    }
    if (delivery->epoch != server->epoch) {
        delivery->trouble_attempts = 0;
    }
    delivery->trouble_attempts += delivery->trouble_attempts < 15;
    delivery->epoch = server->epoch;
    server->epoch_used = true;
    server->defers_none = false;
}

void fate_deferred(struct relay *relay, uint32_t number, const struct relay_reply *reply,
                   struct slice reason)
{
    struct delivery *delivery = begin(relay, number);
    const struct route_config *route = route_of(relay, delivery);
    count_attempt(relay, delivery);
    delivery_set_reason(relay, delivery, reason);
    delivery_set_state(relay, number, DELIVERY_DEFERRED);
    delivery_schedule(relay, number, relay->now.steady_ms + retry_delay(relay, delivery));
    recipient_patience(relay, number, route == NULL ? 0 : route->order_patience_ms);
    action_note(relay, number, NOTE_DEFER, reason);
    struct relay_action *event = action_delivery_event(relay, RELAY_EVENT_DEFERRED, number);
    event->reason = action_copy(relay, reason);
    event->next_wall_ms = next_wall(relay, delivery);
    event->count = delivery->attempts;
    action_set_reply(relay, event, reply);
}

void fate_strike(struct relay *relay, uint32_t number, const struct relay_reply *reply)
{
    struct delivery *delivery = delivery_at(relay, number);
    if (++delivery->strikes >= STRIKES_MAX) {
        char text[REASON_BYTES_MAX];
        fate_deferred(relay, number, reply,
                      reply->how == RELAY_REPLY ? relay_reply_text(reply, text, sizeof text)
                                                : SLICE_LITERAL("breaks sessions"));
        return;
    }
    fate_again(relay, number, true);
}

void fate_again(struct relay *relay, uint32_t number, bool note)
{
    struct delivery *delivery = delivery_at(relay, number);
    delivery_take_out(relay, number);
    delivery_set_state(relay, number, DELIVERY_WAITING);
    if (note) {
        action_note(relay, number,
                    lane_of(relay, delivery)->pin == PIN_DOUBT ? NOTE_DOUBT : NOTE_WAITING,
                    delivery_reason(relay, delivery));
    }
    delivery->server = NO_SERVER;
    lane_return(relay, number);
}

void fate_doubt(struct relay *relay, uint32_t number, const struct relay_reply *reply)
{
    char text[REASON_BYTES_MAX];
    struct slice reason = relay_reply_text(reply, text, sizeof text);
    struct delivery *delivery = begin(relay, number);
    delivery->doubts += delivery->doubts < DOUBTS_MAX;
    delivery->attempts += delivery->attempts < UINT16_MAX;
    bool again = delivery->doubts < DOUBTS_MAX;
    freeze_doubted(relay, number);
    if (again) {
        delivery_set_reason(relay, delivery, reason);
        delivery_set_state(relay, number, DELIVERY_IN_DOUBT);
        delivery_schedule(relay, number, relay->now.steady_ms + retry_delay(relay, delivery));
        recipient_release(relay, number);
        action_note(relay, number, NOTE_DOUBT, reason);
    }
    struct relay_action *event = action_delivery_event(relay, RELAY_EVENT_IN_DOUBT, number);
    event->reason = action_copy(relay, reason);
    event->count = delivery->doubts;
    event->next_wall_ms = again ? next_wall(relay, delivery) : 0;
    action_set_reply(relay, event, reply);
    if (!again) {
        fate_held(relay, number, true, reply, SLICE_LITERAL("three times in doubt"));
    }
}

/* Held or dead from now on. */
static void begin_rest(const struct relay *relay, struct delivery *delivery)
{
    delivery->next = relay->now.wall_ms > 0 ? (uint32_t)(relay->now.wall_ms / 1000) : 0;
    delivery->previous = odometer_reading_s(relay, lane_of(relay, delivery)->route);
}

void fate_hold(struct relay *relay, uint32_t number, unsigned flags, int64_t due_ms,
               const struct relay_reply *reply, struct slice reason)
{
    struct delivery *delivery = begin(relay, number);
    recipient_release(relay, number);
    delivery_set_reason(relay, delivery, reason);
    delivery_set_flags(relay, delivery, DELIVERY_BY_RULE | DELIVERY_REFUSED_ONCE, flags);
    delivery_set_state(relay, number, DELIVERY_HELD);
    if (due_ms != 0) {
        delivery_schedule(relay, number, due_ms);
    } else {
        begin_rest(relay, delivery);
    }
    action_note(relay, number, NOTE_HOLD, reason);
    struct relay_action *event = action_delivery_event(relay, RELAY_EVENT_HELD, number);
    event->reason = action_copy(relay, reason);
    event->next_wall_ms = due_ms == 0 ? 0 : next_wall(relay, delivery);
    action_set_reply(relay, event, reply);
}

void fate_held(struct relay *relay, uint32_t number, bool by_rule, const struct relay_reply *reply,
               struct slice reason)
{
    fate_hold(relay, number, by_rule ? DELIVERY_BY_RULE : 0, 0, reply, reason);
}

/* ---- ends --------------------------------------------------------------------------------- */

static void write_fate(struct relay *relay, const struct delivery *delivery, enum spool_fate fate)
{
    struct relay_action *action = action_add(relay, RELAY_FATE);
    action->handle = (struct spool_handle){delivery->message};
    action->delivery = delivery->number;
    action->fate = fate;
    action->server = server_of(relay, delivery) != NULL ? delivery->server : NO_INDEX;
}

void fate_delivered(struct relay *relay, uint32_t number, const struct relay_reply *reply)
{
    struct delivery *delivery = begin(relay, number);
    struct server *server = server_of(relay, delivery);
    if (server != NULL) {
        server->used++;
        recipient_accepted(relay, server, delivery);
    }
    freeze_delivered(relay, number);
    enum spool_fate fate = server != NULL && server_calls(server) ? SPOOL_PULLED : SPOOL_DELIVERED;
    write_fate(relay, delivery, fate);
    struct relay_action *event = action_delivery_event(relay, RELAY_EVENT_DELIVERED, number);
    event->fate = fate;
    event->count = delivery->attempts + 1u;
    action_set_reply(relay, event, reply);
    recipient_release(relay, number);
    delivery_finish(relay, number);
}

void fate_rehearsed(struct relay *relay, uint32_t number, const struct relay_reply *reply)
{
    freeze_asked(relay, number, reply->code / 100 == 2);
    fate_discarded(relay, number, reply, SLICE_LITERAL("a drill's, taken back behind RCPT"));
}

const struct relay_reply fate_time_is_over = {
    .stage = RELAY_AT_IDLE, .how = RELAY_LOCAL, .enhanced = {4, 4, 7}};

static bool is_time_over(const struct relay_reply *reply)
{
    return reply != NULL && reply->how == RELAY_LOCAL && reply->enhanced[1] == 4 &&
           reply->enhanced[2] == 7;
}

static void tell(struct relay *relay, enum relay_event_kind kind, uint32_t number,
                 struct slice reason, const struct relay_reply *reply)
{
    struct relay_action *event = action_delivery_event(relay, kind, number);
    event->reason = action_copy(relay, reason);
    event->expired = is_time_over(reply);
    action_set_reply(relay, event, reply);
}

void fate_discarded(struct relay *relay, uint32_t number, const struct relay_reply *reply,
                    struct slice reason)
{
    struct delivery *delivery = begin(relay, number);
    write_fate(relay, delivery, SPOOL_DISCARDED);
    tell(relay, RELAY_EVENT_DISCARDED, number, reason, reply);
    recipient_release(relay, number);
    delivery_finish(relay, number);
}

void fate_elsewhere(struct relay *relay, uint32_t number, enum spool_fate fate, struct slice reason)
{
    struct delivery *delivery = begin(relay, number);
    enum relay_event_kind kind = fate == SPOOL_BOUNCED     ? RELAY_EVENT_BOUNCED
                                 : fate == SPOOL_DISCARDED ? RELAY_EVENT_DISCARDED
                                                           : RELAY_EVENT_DELIVERED;
    write_fate(relay, delivery, fate);
    struct relay_action *event = action_delivery_event(relay, kind, number);
    event->fate = fate;
    event->reason = action_copy(relay, reason);
    action_set_reply(relay, event, NULL);
    recipient_release(relay, number);
    delivery_finish(relay, number);
}

enum relay_bounce_bar fate_bounce_bar(const struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct message *message = message_at(relay, delivery->message);
    if ((message->flags & (MESSAGE_OWN_DSN | MESSAGE_NULL_SENDER)) != 0) {
        return BOUNCE_BAR_NOBODY;
    }
    return relay->config->bounces == NO_INDEX            ? BOUNCE_BAR_NO_ROUTE
           : (message->flags & MESSAGE_VERIFIED) == 0    ? BOUNCE_BAR_UNVERIFIED
           : (delivery->flags & DELIVERY_NO_NOTICE) != 0 ? BOUNCE_BAR_UNWANTED
                                                         : BOUNCE_BAR_NONE;
}

bool fate_tells_success(const struct relay *relay, uint32_t number, bool tells_dsn)
{
    enum relay_bounce_bar bar = fate_bounce_bar(relay, number);
    return !tells_dsn && (delivery_at(relay, number)->flags & DELIVERY_TELL_SUCCESS) != 0 &&
           (bar == BOUNCE_BAR_NONE || bar == BOUNCE_BAR_UNWANTED); /* R8; which is of failures */
}

/* The action that asks for a DSN, all but its kind's own. */
static struct relay_action *ask_notice(struct relay *relay, enum relay_action_kind kind,
                                       const uint32_t *numbers, uint32_t count,
                                       const struct relay_reply *reply)
{
    uint32_t *which = action_numbers(relay, count);
    for (uint32_t i = 0; i < count; i++) {
        which[i] = delivery_at(relay, numbers[i])->number;
    }
    const struct delivery *first = delivery_at(relay, numbers[0]);
    struct relay_action *action = action_add(relay, kind);
    action->handle = (struct spool_handle){first->message};
    action->delivery = which[0];
    action->deliveries = which;
    action->delivery_count = count;
    action->server = server_at(relay, first->server) != NULL ? first->server : NO_INDEX;
    action_set_reply(relay, action, reply);
    return action;
}

void fate_notice(struct relay *relay, const uint32_t *numbers, uint32_t count,
                 const struct relay_reply *reply)
{
    (void)ask_notice(relay, RELAY_NOTICE, numbers, count, reply);
}

void fate_delayed(struct relay *relay, const uint32_t *numbers, uint32_t count,
                  int64_t until_wall_ms, const struct relay_reply *reply)
{
    struct relay_action *notice = ask_notice(relay, RELAY_DELAYED, numbers, count, reply);
    notice->next_wall_ms = until_wall_ms;
    notice->reason = action_copy(relay, delivery_reason(relay, delivery_at(relay, numbers[0])));
    for (uint32_t i = 0; i < count; i++) {
        delivery_set_flags(relay, delivery_at(relay, numbers[i]), 0, DELIVERY_NO_DELAY);
        action_state_note(relay, numbers[i]);
    }
}

static void bury(struct relay *relay, uint32_t number, struct slice reason)
{
    struct delivery *delivery = begin(relay, number);
    recipient_release(relay, number);
    delivery_set_reason(relay, delivery, reason);
    delivery_set_state(relay, number, DELIVERY_DEAD);
    begin_rest(relay, delivery);
    expiry_soon(relay);
}

void fate_dead(struct relay *relay, uint32_t number, const struct relay_reply *reply,
               struct slice reason)
{
    bury(relay, number, reason);
    action_note(relay, number, NOTE_DEAD, reason);
    tell(relay, RELAY_EVENT_DEAD, number, reason, reply);
}

void fate_bounced(struct relay *relay, const uint32_t *numbers, uint32_t count, struct slice reason,
                  const struct relay_reply *reply)
{
    struct relay_action *bounce = ask_notice(relay, RELAY_BOUNCE, numbers, count, reply);
    bounce->fate = SPOOL_BOUNCED;
    bounce->reason = action_copy(relay, reason);
    for (uint32_t i = 0; i < count; i++) {
        bury(relay, numbers[i], reason); /* until its notice is made */
    }
}

void relay_bounced(struct relay *relay, const struct relay_action *bounce, bool made)
{
    for (uint32_t i = 0; i < bounce->delivery_count; i++) {
        const struct message *message = message_at(relay, bounce->handle.index);
        uint32_t number = delivery_number(message, bounce->deliveries[i]);
        if (made) {
            tell(relay, RELAY_EVENT_BOUNCED, number, bounce->reason, &bounce->reply);
            delivery_finish(relay, number);
        } else {
            action_note(relay, number, NOTE_DEAD, bounce->reason);
            tell(relay, RELAY_EVENT_DEAD, number, bounce->reason, &bounce->reply);
        }
    }
}

void fate_final(struct relay *relay, const uint32_t *numbers, uint32_t count,
                const struct relay_reply *reply)
{
    char text[REASON_BYTES_MAX];
    struct slice reason = relay_reply_text(reply, text, sizeof text);
    uint32_t *bounces = action_numbers(relay, count);
    uint32_t bounce_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (fate_bounce_bar(relay, numbers[i]) == BOUNCE_BAR_NONE) {
            bounces[bounce_count++] = numbers[i];
        } else {
            fate_dead(relay, numbers[i], reply, reason);
        }
    }
    if (bounce_count > 0) {
        fate_bounced(relay, bounces, bounce_count, reason, reply);
    }
}
