/* SPDX-License-Identifier: Apache-2.0
 *
 * What an operator may do with deliveries and servers. A command for a whole message is done for
 * every delivery that allows it.
 */
#include "relay/destination.h"

/* One command for one delivery; `argument` is the command's own. */
typedef enum error command_fn(struct relay *relay, uint32_t number, const void *argument);

static int severity(enum error error)
{
    return error == ERROR_NONE ? 0 : error == ERROR_AGAIN ? 2 : 1;
}

static enum error for_each(struct relay *relay, struct spool_handle handle, uint32_t which,
                           struct relay_time now, command_fn *command, const void *argument)
{
    relay_begin(relay, now);
    struct message *message = message_find(relay, handle.index);
    if (message == NULL || (which != SPOOL_ALL_DELIVERIES && which >= message->recipient_count)) {
        return ERROR_MISSING;
    }
    enum error worst = ERROR_NONE;
    bool found = false, done = false;
    uint32_t count = message->recipient_count;
    uint32_t first = which == SPOOL_ALL_DELIVERIES ? 0 : which;
    uint32_t end = which == SPOOL_ALL_DELIVERIES ? count : which + 1;
    for (uint32_t i = first; i < end; i++) {
        /* The message itself may go with its last delivery. */
        message = message_find(relay, handle.index);
        uint32_t number = message == NULL ? NOBODY : delivery_number(message, i);
        if (number == NOBODY) {
            continue;
        }
        found = true;
        enum error error = delivery_at(relay, number)->state == DELIVERY_IN_FLIGHT
                               ? ERROR_AGAIN
                               : command(relay, number, argument);
        done |= error == ERROR_NONE;
        worst = severity(error) > severity(worst) ? error : worst;
    }
    relay_settle(relay);
    return !found ? ERROR_MISSING : done ? ERROR_NONE : worst;
}

static enum error hold(struct relay *relay, uint32_t number, const void *argument)
{
    const struct slice *reason = argument;
    struct delivery *delivery = delivery_at(relay, number);
    if (delivery->state == DELIVERY_DEAD) {
        return ERROR_INVALID;
    }
    if (delivery->state != DELIVERY_HELD || (delivery->flags & DELIVERY_BY_RULE) != 0) {
        fate_held(relay, number, false, NULL,
                  reason->length > 0 ? *reason : SLICE_LITERAL("by hand"));
    }
    return ERROR_NONE;
}

enum error relay_hold(struct relay *relay, struct spool_handle handle, uint32_t delivery,
                      struct slice reason, struct relay_time now)
{
    return for_each(relay, handle, delivery, now, hold, &reason);
}

/* Waits like a new one: in its place by acceptance, with no count against it. */
static void make_fresh(struct relay *relay, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    delivery->attempts = 0;
    delivery->strikes = 0;
    delivery->doubts = 0;
    delivery->trouble_attempts = 0;
    delivery->doubted = false;
    delivery_set_flags(relay, delivery,
                       DELIVERY_BY_RULE | DELIVERY_REFUSED_ONCE | DELIVERY_PATIENCE_RUN |
                           DELIVERY_PATIENCE_SET,
                       0);
    delivery->server = NO_SERVER;
    delivery_set_state(relay, number, DELIVERY_WAITING);
}

static enum error release(struct relay *relay, uint32_t number, const void *argument)
{
    (void)argument;
    struct delivery *delivery = delivery_at(relay, number);
    if (delivery->state != DELIVERY_HELD && delivery->state != DELIVERY_DEAD) {
        return ERROR_INVALID;
    }
    if (delivery->state == DELIVERY_DEAD) {
        span_restart(relay, number);
        deliver_by_waive(relay, number);
    } else if ((delivery->flags & DELIVERY_BY_RULE) == 0) {
        span_give_back(relay, number);
    }
    delivery_take_out(relay, number);
    delivery_set_reason(relay, delivery, SLICE_EMPTY);
    make_fresh(relay, number);
    action_note(relay, number, NOTE_WAITING, SLICE_EMPTY);
    (void)action_delivery_event(relay, RELAY_EVENT_RELEASED, number);
    lane_return(relay, number);
    return ERROR_NONE;
}

enum error relay_release(struct relay *relay, struct spool_handle handle, uint32_t delivery,
                         struct relay_time now)
{
    return for_each(relay, handle, delivery, now, release, NULL);
}

/* A waiting one can only wait for its servers: ask them now. */
static void probe_chain(struct relay *relay, const struct lane *lane)
{
    if (lane->pinned_server != NO_INDEX) {
        governor_probe_now(relay, server_at(relay, lane->pinned_server));
        return;
    }
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, lane, &length);
    for (uint32_t i = 0; i < length; i++) {
        struct server *server = server_at(relay, chain[i]);
        if (!server_usable(server)) {
            governor_probe_now(relay, server);
        }
    }
}

static enum error retry(struct relay *relay, uint32_t number, const void *argument)
{
    (void)argument;
    struct delivery *delivery = delivery_at(relay, number);
    switch ((enum delivery_state)delivery->state) {
    case DELIVERY_WAITING:
        if (delivery->attempts > 0 || delivery->strikes > 0) {
            delivery->attempts = 0;
            delivery->strikes = 0;
            action_state_note(relay, number);
        }
        break;
    case DELIVERY_IN_DOUBT:
        /* Still the server that may have it, and still counted: R2 is no matter of patience. */
        delivery->attempts = 0;
        action_state_note(relay, number);
        delivery_due(relay, number);
        break;
    case DELIVERY_DEFERRED:
        if (delivery->doubted) {
            delivery->attempts = 0;
            action_state_note(relay, number);
            delivery_due(relay, number);
            break;
        }
        delivery_take_out(relay, number);
        make_fresh(relay, number);
        action_note(relay, number, NOTE_WAITING, delivery_reason(relay, delivery));
        lane_return(relay, number);
        break;
    default:
        return ERROR_INVALID;
    }
    probe_chain(relay, lane_of(relay, delivery));
    return ERROR_NONE;
}

enum error relay_retry(struct relay *relay, struct spool_handle handle, uint32_t delivery,
                       struct relay_time now)
{
    return for_each(relay, handle, delivery, now, retry, NULL);
}

static enum error discard(struct relay *relay, uint32_t number, const void *argument)
{
    const struct slice *reason = argument;
    fate_discarded(relay, number, NULL, reason->length > 0 ? *reason : SLICE_LITERAL("by hand"));
    return ERROR_NONE;
}

enum error relay_discard(struct relay *relay, struct spool_handle handle, uint32_t delivery,
                         struct slice reason, struct relay_time now)
{
    return for_each(relay, handle, delivery, now, discard, &reason);
}

struct ended_elsewhere {
    enum spool_fate fate;
    struct slice reason;
};

static enum error ended_elsewhere(struct relay *relay, uint32_t number, const void *argument)
{
    const struct ended_elsewhere *ended = argument;
    fate_elsewhere(relay, number, ended->fate, ended->reason);
    return ERROR_NONE;
}

enum error relay_ended_elsewhere(struct relay *relay, struct spool_handle handle, uint32_t delivery,
                                 enum spool_fate fate, struct slice reason, struct relay_time now)
{
    const struct ended_elsewhere ended = {fate, reason};
    return for_each(relay, handle, delivery, now, ended_elsewhere, &ended);
}

static enum error bounce(struct relay *relay, uint32_t number, const void *argument)
{
    const bool *force = argument;
    const struct delivery *delivery = delivery_at(relay, number);
    /* Even by force nothing answers a null reverse-path, and a notice needs a way out. */
    enum relay_bounce_bar needed = *force ? BOUNCE_BAR_UNVERIFIED : BOUNCE_BAR_NONE;
    if (fate_bounce_bar(relay, number) < needed) {
        return ERROR_DENIED;
    }
    struct slice reason = delivery_reason(relay, delivery);
    fate_bounced(
        relay, &number, 1,
        action_copy(relay, reason.length > 0 ? reason : SLICE_LITERAL("returned by the operator")),
        NULL);
    return ERROR_NONE;
}

enum error relay_bounce(struct relay *relay, struct spool_handle handle, uint32_t delivery,
                        bool force, struct relay_time now)
{
    return for_each(relay, handle, delivery, now, bounce, &force);
}

enum relay_bounce_bar relay_bounce_bar(const struct relay *relay, struct spool_handle handle,
                                       uint32_t delivery)
{
    const struct message *message = message_find(relay, handle.index);
    uint32_t number = message == NULL || delivery >= message->recipient_count
                          ? NOBODY
                          : delivery_number(message, delivery);
    return number == NOBODY ? BOUNCE_BAR_NONE : fate_bounce_bar(relay, number);
}

static enum error redirect(struct relay *relay, uint32_t number, const void *argument)
{
    const struct slice *to = argument;
    struct delivery *delivery = delivery_at(relay, number);
    enum delivery_state before = delivery->state;
    uint32_t rests_since = delivery->next, rests_reading = delivery->previous;
    bool timed = delivery->place == PLACE_TIMED;
    int64_t due_ms = timed ? schedule_at(&relay->schedule, delivery->next)->due_ms : 0;
    if (!redirect_is_possible(relay, number, *to)) {
        return ERROR_INVALID;
    }
    delivery_take_out(relay, number);
    recipient_release(relay, number);
    enum error error = redirect_apply(relay, number, *to);
    if (error != ERROR_NONE) { /* out of memory, and unharmed: where it was */
        if (before == DELIVERY_WAITING) {
            lane_return(relay, number);
        } else if (timed) {
            delivery_schedule(relay, number, due_ms);
        } else {
            delivery->next = rests_since;
            delivery->previous = rests_reading;
        }
        return error;
    }
    span_restart(relay, number);
    if (before == DELIVERY_DEAD) {
        deliver_by_waive(relay, number);
    }
    delivery_set_reason(relay, delivery, SLICE_EMPTY);
    make_fresh(relay, number);
    action_note(relay, number, NOTE_REDIRECT, *to);
    action_note(relay, number, NOTE_WAITING, SLICE_EMPTY);
    struct relay_action *event = action_delivery_event(relay, RELAY_EVENT_REDIRECTED, number);
    event->redirect_to = action_copy(relay, *to);
    lane_return(relay, number);
    return ERROR_NONE;
}

enum error relay_redirect(struct relay *relay, struct spool_handle handle, uint32_t delivery,
                          struct slice to, struct relay_time now)
{
    bool address = slice_find(to, '@') < to.length;
    if (to.length == 0 || to.length > NOTE_TEXT_MAX ||
        (!address && relay_config_server(relay->config, to) == NO_INDEX)) {
        return message_find(relay, handle.index) == NULL ? ERROR_MISSING : ERROR_INVALID;
    }
    return for_each(relay, handle, delivery, now, redirect, &to);
}

/* ---- servers ------------------------------------------------------------------------------ */

/* One that no hand may be laid on: there are too many of them, and they come and go. */
static bool is_nobodys(const struct server *server)
{
    return server == NULL || server->on_demand;
}

static void command_hand(struct relay *relay, struct server *server, bool disabled)
{
    if ((server->state == SERVER_DISABLED) != disabled) {
        governor_write_hand(relay, server, disabled);
        governor_hand(relay, server, disabled);
    }
}

enum error relay_server_disable(struct relay *relay, uint32_t index, struct relay_time now)
{
    relay_begin(relay, now);
    struct server *server = server_at(relay, index);
    if (is_nobodys(server)) {
        return ERROR_MISSING;
    }
    command_hand(relay, server, true);
    relay_settle(relay);
    return ERROR_NONE;
}

enum error relay_server_enable(struct relay *relay, uint32_t index, struct relay_time now)
{
    relay_begin(relay, now);
    struct server *server = server_at(relay, index);
    if (is_nobodys(server)) {
        return ERROR_MISSING;
    }
    if (server->exchanger != NULL) {
        noted_forget(relay, server->config->name);
    }
    command_hand(relay, server, false);
    relay_settle(relay);
    return ERROR_NONE;
}

enum error relay_server_probe(struct relay *relay, uint32_t index, struct relay_time now)
{
    relay_begin(relay, now);
    struct server *server = server_at(relay, index);
    if (server == NULL) {
        return ERROR_MISSING;
    }
    if (server->state == SERVER_DISABLED) {
        return ERROR_INVALID;
    }
    if (server_calls(server)) {
        return ERROR_DENIED;
    }
    server->probe_asked = true;
    governor_probe_now(relay, server);
    relay_settle(relay);
    return ERROR_NONE;
}
