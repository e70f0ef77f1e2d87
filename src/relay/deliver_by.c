/* SPDX-License-Identifier: Apache-2.0
 *
 * The time that a sender has set for the delivery of a message (DELIVERBY, RFC 2852), by the wall
 * clock. Few messages have one: theirs is kept beside them, with a timer of its own.
 *
 *   mode R   over before it is handed over, or the next server could not keep to it: returned with
 *            5.4.7, by the rules of R8; what may not be returned is a dead letter
 *   mode N   over: the sender is told once that it is late (4.4.7), and it goes on as before;
 * handed to a server without the extension: the sender is told that (4.1.4.2) trace T  the sender
 * is told of each server it is handed to (4.1.4)
 *
 * What is under way, in doubt or held by the operator is not touched before it comes back. What an
 * operator lets go again, its time being over, goes without one.
 */
#include <stdlib.h>

#include "relay/relay_internal.h"

enum { LOOK_AGAIN_MS = 10000 };

enum {                     /* struct deliver_by, recipients */
       BY_NEVER = 1,       /* RFC 3461 NOTIFY=NEVER */
       BY_NOT_DELAYED = 2, /* NOTIFY without DELAY */
       BY_TOLD = 4,        /* that it is late */
       BY_WAIVED = 8,      /* by the operator: it has all the time now */
};

struct deliver_by {
    int64_t wall_ms;
    uint32_t timer; /* place in the schedule */
    bool returns;   /* mode R */
    bool traces;
    uint8_t recipients[];
};

static struct deliver_by *find(const struct relay *relay, uint32_t message)
{
    bool has = (message_at(relay, message)->flags & MESSAGE_DELIVER_BY) != 0;
    return has ? map_get(&relay->deliver_by, message) : NULL;
}

static void arm(struct relay *relay, const struct deliver_by *by, uint32_t message,
                int64_t least_ms)
{
    int64_t left = by->wall_ms - relay->now.wall_ms;
    left = left < least_ms ? least_ms : left < INT32_MAX * (int64_t)1000 ? left : INT32_MAX * 1000L;
    schedule_add(&relay->schedule,
                 (struct timer){relay->now.steady_ms + left, TIMER_DELIVER_BY, message});
}

bool deliver_by_insert(struct relay *relay, uint32_t index, const struct spool_message *from)
{
    if (from->deliver_by_ms == 0) {
        return true;
    }
    struct deliver_by *by = calloc(1, sizeof *by + from->recipient_count);
    if (by == NULL || map_put(&relay->deliver_by, index, by) != ERROR_NONE) {
        free(by);
        return false;
    }
    by->wall_ms = from->deliver_by_ms;
    by->timer = SCHEDULE_NOWHERE;
    by->returns = (from->flags & SPOOL_BY_RETURN) != 0;
    by->traces = (from->flags & SPOOL_BY_TRACE) != 0;
    bool was_late = by->wall_ms <= from->received_ms; /* whoever sent it so has told it */
    for (uint32_t i = 0; i < from->recipient_count; i++) {
        uint8_t notify = from->recipients[i].notify;
        by->recipients[i] =
            (uint8_t)((notify == SPOOL_NOTIFY_NEVER ? BY_NEVER : 0) |
                      (notify != 0 && (notify & SPOOL_NOTIFY_DELAY) == 0 ? BY_NOT_DELAYED : 0) |
                      (was_late ? BY_TOLD : 0));
    }
    message_at(relay, index)->flags |= MESSAGE_DELIVER_BY;
    arm(relay, by, index, 0);
    return true;
}

void deliver_by_forget(struct relay *relay, uint32_t message)
{
    struct deliver_by *by = find(relay, message);
    if (by == NULL) {
        return;
    }
    if (by->timer != SCHEDULE_NOWHERE) {
        schedule_remove(&relay->schedule, by->timer);
    }
    (void)map_remove(&relay->deliver_by, message);
    free(by);
}

void deliver_by_done(struct relay *relay)
{
    size_t cursor = 0;
    for (struct deliver_by *by; (by = map_next(&relay->deliver_by, &cursor)) != NULL;) {
        free(by);
    }
    map_done(&relay->deliver_by);
}

void deliver_by_timer_moved(struct relay *relay, uint32_t message, uint32_t place)
{
    find(relay, message)->timer = place;
}

/* ---- notes -------------------------------------------------------------------------------- */

bool deliver_by_is_told(const struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct deliver_by *by = find(relay, delivery->message);
    return by != NULL && (by->recipients[delivery->number] & BY_TOLD) != 0;
}

bool deliver_by_is_waived(const struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct deliver_by *by = find(relay, delivery->message);
    return by != NULL && (by->recipients[delivery->number] & BY_WAIVED) != 0;
}

void deliver_by_load(struct relay *relay, uint32_t number, bool told, bool waived)
{
    const struct delivery *delivery = delivery_at(relay, number);
    struct deliver_by *by = find(relay, delivery->message);
    if (by != NULL) {
        by->recipients[delivery->number] |=
            (uint8_t)((told ? BY_TOLD : 0) | (waived ? BY_WAIVED : 0));
    }
}

void deliver_by_waive(struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct deliver_by *by = find(relay, delivery->message);
    if (by != NULL && by->returns) {
        deliver_by_load(relay, number, false, true);
    }
}

/* ---- over --------------------------------------------------------------------------------- */

int64_t deliver_by_end_ms(const struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct deliver_by *by = find(relay, delivery->message);
    bool ends = by != NULL && by->returns && (by->recipients[delivery->number] & BY_WAIVED) == 0;
    return ends ? by->wall_ms : 0;
}

const struct relay_reply fate_by_is_over = {
    .stage = RELAY_AT_IDLE, .how = RELAY_LOCAL, .enhanced = {5, 4, 7}};

/* Of one message, all for the same reason. */
static void end_alike(struct relay *relay, const uint32_t *numbers, uint32_t count,
                      const char *text, const struct relay_reply *reply)
{
    struct slice last = delivery_reason(relay, delivery_at(relay, numbers[0]));
    struct buffer *reason = &relay->scratch;
    buffer_clear(reason);
    buffer_append_text(reason, text);
    if (last.length > 0) {
        buffer_append_text(reason, "; last: ");
        buffer_append(reason, slice_take(last, REASON_BYTES_MAX - reason->length));
    }
    struct slice kept = action_copy(relay, buffer_slice(reason));
    if (fate_bounce_bar(relay, numbers[0]) == BOUNCE_BAR_NONE) {
        fate_bounced(relay, numbers, count, kept, reply);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        fate_dead(relay, numbers[i], reply, kept);
    }
}

static void end_all(struct relay *relay, const uint32_t *numbers, uint32_t count, const char *text)
{
    for (uint32_t i = 0, run; i < count; i += run) {
        const struct delivery *first = delivery_at(relay, numbers[i]);
        enum relay_bounce_bar bar = fate_bounce_bar(relay, numbers[i]);
        run = 1;
        while (i + run < count && delivery_at(relay, numbers[i + run])->reason == first->reason &&
               (fate_bounce_bar(relay, numbers[i + run]) == BOUNCE_BAR_NONE) ==
                   (bar == BOUNCE_BAR_NONE)) {
            run++;
        }
        end_alike(relay, numbers + i, run, text, &fate_by_is_over);
    }
}

static bool wants_delay_notice(const struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct deliver_by *by = find(relay, delivery->message);
    enum relay_bounce_bar bar = fate_bounce_bar(relay, number);
    return (by->recipients[delivery->number] & (BY_NOT_DELAYED | BY_TOLD)) == 0 &&
           (bar == BOUNCE_BAR_NONE || bar == BOUNCE_BAR_UNWANTED); /* which is of failures */
}

void deliver_by_due(struct relay *relay, uint32_t index)
{
    struct message *message = message_at(relay, index);
    struct deliver_by *by = find(relay, index);
    schedule_remove(&relay->schedule, by->timer);
    if (relay->now.wall_ms < by->wall_ms) { /* the clock was set back */
        arm(relay, by, index, 0);
        return;
    }
    uint32_t *numbers = action_numbers(relay, message->recipient_count), count = 0;
    bool later = false;
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        uint32_t number = delivery_number(message, i);
        if (number == NOBODY || delivery_at(relay, number)->state == DELIVERY_DEAD ||
            (by->recipients[i] & BY_WAIVED) != 0) {
            continue;
        }
        if (expiry_is_untouched(relay, number)) {
            later = true;
        } else if (by->returns || wants_delay_notice(relay, number)) {
            numbers[count++] = number;
        }
    }
    if (later) {
        arm(relay, by, index, LOOK_AGAIN_MS);
    }
    if (count == 0) {
        return;
    }
    if (by->returns) {
        end_all(relay, numbers, count, "not delivered by the time that its sender set");
        return; /* the message may have gone with them */
    }
    for (uint32_t i = 0; i < count; i++) {
        by->recipients[delivery_at(relay, numbers[i])->number] |= BY_TOLD;
    }
    static const struct relay_reply late = {
        .stage = RELAY_AT_IDLE, .how = RELAY_LOCAL, .enhanced = {4, 4, 7}};
    fate_delayed(relay, numbers, count, expiry_of(relay, numbers[0]), &late);
}

/* ---- handing over -------------------------------------------------------------------------- */

/* RFC 2033: what LMTP takes is in the mailbox, and relayed no further. */
static bool delivers(const struct server *server)
{
    return server != NULL && server->config->protocol == SERVER_LMTP;
}

const char *deliver_by_objection(const struct relay *relay, const struct server *server,
                                 const struct session *session, uint32_t number)
{
    int64_t end_ms = deliver_by_end_ms(relay, number);
    if (end_ms == 0) {
        return NULL;
    }
    if (end_ms <= relay->now.wall_ms) {
        return "not delivered by the time that its sender set";
    }
    if (delivers(server)) {
        return NULL;
    }
    if (!session->takes_deliver_by) {
        return "the next server promises no time of delivery (DELIVERBY)";
    }
    return end_ms - relay->now.wall_ms < (int64_t)session->deliver_by_min_s * 1000
               ? "the next server cannot deliver it by the time that its sender set"
               : NULL;
}

void deliver_by_object(struct relay *relay, uint32_t number, const char *objection)
{
    const struct message *message = message_at(relay, delivery_at(relay, number)->message);
    uint32_t lane = delivery_at(relay, number)->lane;
    uint32_t *numbers = action_numbers(relay, message->recipient_count), count = 0;
    for (uint32_t i = delivery_at(relay, number)->number; i < message->recipient_count; i++) {
        uint32_t other = delivery_number(message, i);
        const struct delivery *delivery = other == NOBODY ? NULL : delivery_at(relay, other);
        if (delivery != NULL && delivery->lane == lane &&
            (delivery->place == PLACE_IN_LANE || delivery->place == PLACE_RETURNED) &&
            deliver_by_end_ms(relay, other) != 0) {
            numbers[count++] = other;
        }
    }
    end_all(relay, numbers, count, objection);
}

bool deliver_by_tells(const struct relay *relay, uint32_t number, const struct server *server,
                      bool takes_deliver_by)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct deliver_by *by = find(relay, delivery->message);
    if (by == NULL || delivers(server) || (by->recipients[delivery->number] & BY_NEVER) != 0) {
        return false;
    }
    enum relay_bounce_bar bar = fate_bounce_bar(relay, number);
    return (by->traces || (!by->returns && !takes_deliver_by)) &&
           (bar == BOUNCE_BAR_NONE || bar == BOUNCE_BAR_UNWANTED);
}
