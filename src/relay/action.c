/* SPDX-License-Identifier: Apache-2.0
 *
 * The queue of actions. Whatever they point to lies in an arena that is emptied when the queue is,
 * at the beginning of the next input.
 *
 * When memory is out here the process ends: a decision has been taken and could not be told, and
 * everything about it stands in the journal, so a restart is the way back to a known state.
 */
#include <stdlib.h>

#include "relay/relay_internal.h"

struct relay_action *action_add(struct relay *relay, enum relay_action_kind kind)
{
    if (relay->action_count == relay->action_room) {
        size_t room = relay->action_room == 0 ? 64 : relay->action_room * 2;
        struct relay_action *more = realloc(relay->actions, room * sizeof *more);
        if (more == NULL) {
            abort();
        }
        relay->actions = more;
        relay->action_room = room;
    }
    struct relay_action *action = &relay->actions[relay->action_count++];
    *action = (struct relay_action){
        .kind = kind, .server = NO_INDEX, .from_server = NO_INDEX, .handle = SPOOL_NO_HANDLE};
    return action;
}

struct relay_action *action_event(struct relay *relay, enum relay_event_kind event)
{
    struct relay_action *action = action_add(relay, RELAY_EVENT);
    action->event = event;
    return action;
}

struct relay_action *action_delivery_event(struct relay *relay, enum relay_event_kind event,
                                           uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    struct relay_action *action = action_event(relay, event);
    action->handle = (struct spool_handle){delivery->message};
    action->delivery = delivery->number;
    action->server = delivery->server == NO_SERVER ? NO_INDEX : delivery->server;
    action->lane = action_copy(relay, lane_of(relay, delivery)->name);
    return action;
}

struct slice action_copy(struct relay *relay, struct slice bytes)
{
    if (bytes.length == 0) {
        return SLICE_EMPTY;
    }
    struct slice copy = arena_copy(&relay->action_memory, bytes);
    if (copy.data == NULL) {
        abort();
    }
    return copy;
}

uint32_t *action_numbers(struct relay *relay, uint32_t count)
{
    uint32_t *numbers = arena_allocate(&relay->action_memory, count * sizeof *numbers);
    if (numbers == NULL) {
        abort();
    }
    return numbers;
}

void action_set_reply(struct relay *relay, struct relay_action *action,
                      const struct relay_reply *reply)
{
    if (reply != NULL) {
        action->reply = *reply;
        action->reply.text = action_copy(relay, reply->text);
    }
}

/* ---- notes -------------------------------------------------------------------------------- */

static int64_t wall_of(const struct relay *relay, int64_t steady_ms)
{
    return relay->now.wall_ms + (steady_ms - relay->now.steady_ms);
}

void note_put_delivery(const struct relay *relay, uint32_t number, uint16_t kind, struct slice text,
                       struct buffer *buffer)
{
    const struct delivery *delivery = delivery_at(relay, number);
    int64_t patience = recipient_patience_end(relay, number);
    bool patience_run = (delivery->flags & DELIVERY_PATIENCE_SET) != 0 && patience == INT64_MAX;
    struct delivery_note note = {
        .when_ms = relay->now.wall_ms,
        .patience_ms = patience == INT64_MAX ? 0 : wall_of(relay, patience),
        .attempts = delivery->attempts,
        .strikes = delivery->strikes,
        .doubts = delivery->doubts,
        .flags =
            (uint8_t)(((delivery->flags & DELIVERY_BY_RULE) != 0 ? NOTE_BY_RULE : 0) |
                      (patience_run ? NOTE_PATIENCE_RUN : 0) |
                      ((delivery->flags & DELIVERY_REFUSED_ONCE) != 0 ? NOTE_REFUSED_ONCE : 0) |
                      ((delivery->flags & DELIVERY_NO_DELAY) != 0 ? NOTE_DELAY_TOLD : 0) |
                      (delivery->doubted ? NOTE_DOUBTED : 0) |
                      (deliver_by_is_told(relay, number) ? NOTE_BY_TOLD : 0) |
                      (deliver_by_is_waived(relay, number) ? NOTE_BY_WAIVED : 0)),
        .text = text,
    };
    if (delivery->place == PLACE_NOWHERE && (kind == NOTE_HOLD || kind == NOTE_DEAD)) {
        note.when_ms = (int64_t)delivery->next * 1000;
        note.odometer_s = delivery->previous;
    }
    if (delivery->place == PLACE_TIMED) {
        note.next_ms = wall_of(relay, schedule_at(&relay->schedule, delivery->next)->due_ms);
    } else if (delivery->place == PLACE_ON_JOB) {
        note.job = relay->jobs[delivery->next]->id;
    }
    uint32_t server = delivery->server;
    const struct lane *lane = lane_of(relay, delivery);
    if (kind == NOTE_DOUBT && lane->pin == PIN_DOUBT) {
        server = lane->pinned_server;
    }
    const struct server *known = server_at(relay, server);
    if (known != NULL) {
        note.server = known->config->name;
    }
    note_encode(buffer, &note);
}

void action_note(struct relay *relay, uint32_t number, uint16_t kind, struct slice text)
{
    const struct delivery *delivery = delivery_at(relay, number);
    buffer_clear(&relay->scratch);
    note_put_delivery(relay, number, kind, text, &relay->scratch);
    if (relay->scratch.failed) {
        abort();
    }
    struct relay_action *action = action_add(relay, RELAY_NOTE);
    action->handle = (struct spool_handle){delivery->message};
    action->delivery = delivery->number;
    action->note = kind;
    action->payload = action_copy(relay, buffer_slice(&relay->scratch));
}

void action_state_note(struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    action_note(relay, number, note_kind_of_state(delivery->state),
                delivery_reason(relay, delivery));
}

void action_server_note(struct relay *relay, const struct server *server,
                        enum global_note_kind kind)
{
    const struct note_key key = {server->exchanger != NULL ? NOTE_OF_EXCHANGER : NOTE_OF_SERVER,
                                 server->config->name, kind};
    struct slice payload = action_copy(relay, buffer_slice(&relay->scratch));
    buffer_clear(&relay->scratch);
    if (!note_key(&relay->scratch, &key)) {
        return;
    }
    struct slice copy = action_copy(relay, buffer_slice(&relay->scratch));
    struct relay_action *action = action_add(relay, RELAY_GLOBAL);
    action->server = server->index;
    action->key = copy;
    action->payload = payload;
}
