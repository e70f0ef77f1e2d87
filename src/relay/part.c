/* SPDX-License-Identifier: Apache-2.0
 *
 * What is another node's: deliveries of a message that were never ours, and those that have been
 * until now. They go without a word, for their fate is not ours to tell.
 *
 * One that is in flight then cannot be called back. It goes all the same, and its message with the
 * last one, but its number stays taken, in state FINISHED, until its job has its result: should
 * that be a 2xx, it is a fact, whoever decides about the delivery now, and is told as one. All else
 * that a server says of it is the new owner's matter, who takes the attempt for one in doubt (R2).
 * Its session is closed, and no attempt is noted for its job any more, so that no dot is sent that
 * has not been sent yet.
 *
 * A message that rests stands in no lane, and what comes back to it, or was behind its recipient,
 * goes into none: whatever would put it there finds that in recipient.c. So nothing is searched
 * for, and a share at rest costs what is dispatched meanwhile nothing.
 */
#include "relay/refusal.h"
#include "relay/relay_internal.h"

enum { WITHDRAWN_LEFT = 1 }; /* flags of one that was withdrawn: to be told if it is handed over */

bool delivery_is_withdrawn(const struct relay *relay, uint32_t number)
{
    return delivery_at(relay, number)->state == DELIVERY_FINISHED;
}

static void forget_attempt(struct relay *relay, struct delivery *delivery)
{
    relay->attempted -= (delivery->flags & DELIVERY_ATTEMPTED) != 0;
    delivery->flags &= (uint8_t)~DELIVERY_ATTEMPTED;
}

void delivery_withdraw(struct relay *relay, uint32_t number, bool is_left)
{
    struct delivery *delivery = delivery_at(relay, number);
    const struct message *message = message_at(relay, delivery->message);
    bool rehearses = (message->flags & MESSAGE_ENVELOPE_ONLY) != 0; /* ends here, not there */
    struct session *session =
        delivery->place == PLACE_ON_JOB ? relay->jobs[delivery->next]->session : NULL;
    bool under_way = delivery->place == PLACE_ON_JOB;
    uint64_t sequence = message->sequence;
    forget_attempt(relay, delivery);
    refusal_forget(relay, number);
    delivery_take_out(relay, number);
    recipient_release(relay, number);
    if (!under_way) {
        delivery_vanish(relay, number);
        return;
    }
    delivery_entomb(relay, number);
    delivery->recipient = sequence; /* its message may have another handle, and this another one */
    delivery->flags = is_left && !rehearses ? WITHDRAWN_LEFT : 0;
    if (session != NULL) {
        session_close(relay, session);
    }
}

static void tell_fact(struct relay *relay, const struct delivery *gone, uint32_t server_index,
                      const struct relay_reply *reply)
{
    struct server *server = server_at(relay, server_index);
    struct relay_action *action = action_add(relay, RELAY_FATE);
    action->handle = (struct spool_handle){gone->message};
    action->delivery = gone->number;
    action->server = server == NULL ? NO_INDEX : server_index;
    action->fate = server != NULL && server_calls(server) ? SPOOL_PULLED : SPOOL_DELIVERED;
    struct relay_action *event = action_event(relay, RELAY_EVENT_DELIVERED);
    *event = relay->actions[relay->action_count - 2];
    event->kind = RELAY_EVENT;
    event->event = RELAY_EVENT_DELIVERED;
    event->count = gone->attempts + 1u;
    action_set_reply(relay, event, reply);
    if (server != NULL) {
        server->used++;
    }
}

void withdrawn_settle(struct relay *relay, const struct job *job, uint32_t number, bool delivered,
                      const struct relay_reply *reply)
{
    const struct delivery gone = *delivery_at(relay, number);
    delivery_bury(relay, number);
    const struct message *message = message_find(relay, gone.message);
    bool same = message != NULL && message->sequence == gone.recipient;
    if (!delivered || (gone.flags & WITHDRAWN_LEFT) == 0 || (message != NULL && !same)) {
        return;
    }
    uint32_t here = same ? delivery_number(message, gone.number) : NOBODY;
    if (here == NOBODY || delivery_at(relay, here)->state == DELIVERY_IN_FLIGHT) {
        tell_fact(relay, &gone, job->server, reply);
    }
    if (here == NOBODY) {
        return;
    }
    /* It has come back meanwhile. */
    if (delivery_at(relay, here)->state == DELIVERY_IN_FLIGHT) {
        delivery_withdraw(relay, here, false);
        return;
    }
    struct delivery *delivery = delivery_at(relay, here);
    forget_attempt(relay, delivery);
    refusal_forget(relay, here);
    delivery->server = job->server < NO_SERVER ? (uint16_t)job->server : NO_SERVER;
    fate_delivered(relay, here, reply);
}

/* ---- while loading ------------------------------------------------------------------------ */

/* relay_add() has just said that it has no route: not ours to say, or too late. */
static void untell_orphan(struct relay *relay, struct spool_handle handle, uint32_t which)
{
    for (size_t i = relay->action_count; i > relay->action_first; i--) {
        struct relay_action *action = &relay->actions[i - 1];
        if (action->kind != RELAY_EVENT || action->event != RELAY_EVENT_ORPHANED ||
            action->handle.index != handle.index) {
            return;
        }
        if (action->delivery == which) {
            memmove(action, action + 1, (relay->action_count - i) * sizeof *action);
            relay->action_count--;
            return;
        }
    }
}

static void load_end(struct relay *relay, struct spool_handle handle, uint32_t which, bool is_left)
{
    const struct message *message = message_find(relay, handle.index);
    if (message == NULL || which >= message->recipient_count ||
        delivery_number(message, which) == NOBODY) {
        return;
    }
    untell_orphan(relay, handle, which);
    delivery_withdraw(relay, delivery_number(message, which), is_left);
}

void relay_load_fate(struct relay *relay, struct spool_handle handle, uint32_t which,
                     enum spool_fate fate)
{
    (void)fate;
    load_end(relay, handle, which, false);
}

void relay_load_elsewhere(struct relay *relay, struct spool_handle handle, uint32_t which)
{
    load_end(relay, handle, which, true);
}

/* ---- leaving ------------------------------------------------------------------------------ */

/* Of what is at rest nothing waits for its turn; of what is not, all that stood in no place. */
static void rest_delivery(struct relay *relay, uint32_t number, bool rests)
{
    const struct delivery *delivery = delivery_at(relay, number);
    if (delivery->state != DELIVERY_WAITING) {
        return;
    }
    if (!rests && delivery->place == PLACE_NOWHERE) {
        /* A later one may have come to be its recipient's first meanwhile. */
        (recipient_allows(relay, number) ? lane_append : lane_return)(relay, number);
    } else if (rests && delivery->place != PLACE_BEHIND) {
        delivery_take_out(relay, number);
    }
}

bool relay_rest(struct relay *relay, struct spool_handle handle, bool rests, struct relay_time now)
{
    relay_begin(relay, now);
    struct message *message = message_find(relay, handle.index);
    if (message == NULL || message->rests == rests) {
        return relay_in_flight(relay, handle);
    }
    message->rests = rests;
    bool under_way = false;
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        uint32_t number = delivery_number(message, i);
        if (number != NOBODY) {
            rest_delivery(relay, number, rests);
            under_way |= delivery_at(relay, number)->state == DELIVERY_IN_FLIGHT;
        }
    }
    if (rests && (message->flags & MESSAGE_SPAN_WANTED) != 0) {
        span_write_note(relay, handle.index); /* no sweep of ours may come to it any more */
    }
    relay_settle(relay);
    return under_way;
}

bool relay_in_flight(const struct relay *relay, struct spool_handle handle)
{
    for (uint32_t i = 0; i < relay->job_used; i++) {
        if (relay->jobs[i] != NULL && relay->jobs[i]->message == handle.index) {
            return true;
        }
    }
    return false;
}

void relay_leave(struct relay *relay, struct spool_handle handle, struct relay_time now)
{
    relay_begin(relay, now);
    const struct message *message = message_find(relay, handle.index);
    uint32_t count = message == NULL ? 0 : message->recipient_count;
    for (uint32_t i = 0; i < count && message != NULL; i++) {
        if (delivery_number(message, i) != NOBODY) {
            delivery_withdraw(relay, delivery_number(message, i), true);
            message = message_find(relay, handle.index); /* gone with its last delivery */
        }
    }
    relay_settle(relay);
}
