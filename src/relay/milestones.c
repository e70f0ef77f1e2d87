/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a message belongs that is older than the last one: all messages are one list by sequence,
 * and to find a place in it by walking alone would cost more the more is held. So whoever walks
 * sets a milestone each MILESTONE_STEPS messages, and who comes later begins at the last one before
 * his place. What is walked over without one is walked over once.
 *
 * Mail that comes in its order, as nearly all does, needs none: it belongs at the end, or behind
 * the one that was placed last (load_hint).
 *
 * Nobody takes a milestone away with its message: one whose message is gone, or whose place in
 * memory is another's now, is known by its sequence when it is met, and goes then.
 */
#include <stdlib.h>

#include "relay/relay_internal.h"

enum { MILESTONE_STEPS = 256 };

static bool stands_yet(const struct relay *relay, const struct milestone *milestone)
{
    const struct message *message = message_find(relay, milestone->message);
    return message != NULL && message->sequence == milestone->sequence;
}

/* How many of them are not behind that sequence. */
static uint32_t count_before(const struct milestones *milestones, uint64_t sequence)
{
    uint32_t low = 0, high = milestones->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (milestones->all[middle].sequence <= sequence) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* All that stands yet moves up. */
static void clear_away(const struct relay *relay, struct milestones *milestones)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < milestones->count; i++) {
        if (stands_yet(relay, &milestones->all[i])) {
            milestones->all[kept++] = milestones->all[i];
        }
    }
    milestones->count = kept;
}

static bool make_room(const struct relay *relay, struct milestones *milestones)
{
    if (milestones->count < milestones->room) {
        return true;
    }
    clear_away(relay, milestones);
    if (milestones->count < milestones->room / 2) {
        return true;
    }
    uint32_t room = milestones->room == 0 ? 64 : milestones->room * 2;
    struct milestone *more = realloc(milestones->all, room * sizeof *more);
    if (more == NULL) {
        return milestones->count < milestones->room;
    }
    milestones->all = more;
    milestones->room = room;
    return true;
}

/* Without memory for it others walk farther. */
static void set(struct relay *relay, uint32_t message)
{
    struct milestones *milestones = &relay->milestones;
    uint64_t sequence = message_at(relay, message)->sequence;
    if (!make_room(relay, milestones)) {
        return;
    }
    uint32_t at = count_before(milestones, sequence);
    memmove(&milestones->all[at + 1], &milestones->all[at],
            (milestones->count - at) * sizeof milestones->all[0]);
    milestones->all[at] = (struct milestone){sequence, message};
    milestones->count++;
}

/* The last message with a milestone that is not behind that sequence; or NOBODY. */
static uint32_t last_before(struct relay *relay, uint64_t sequence)
{
    struct milestones *milestones = &relay->milestones;
    uint32_t end = count_before(milestones, sequence), at = end;
    while (at > 0 && !stands_yet(relay, &milestones->all[at - 1])) {
        at--;
    }
    if (at < end) {
        memmove(&milestones->all[at], &milestones->all[end],
                (milestones->count - end) * sizeof milestones->all[0]);
        milestones->count -= end - at;
    }
    return at == 0 ? NOBODY : milestones->all[at - 1].message;
}

static bool is_behind(const struct relay *relay, uint32_t message, uint64_t sequence)
{
    return message == NOBODY || message_at(relay, message)->sequence > sequence;
}

uint32_t milestones_find(struct relay *relay, uint64_t sequence)
{
    uint32_t after = relay->load_hint;
    if (is_behind(relay, after, sequence) ||
        !is_behind(relay, message_at(relay, after)->next, sequence)) {
        uint32_t other = last_before(relay, sequence);
        bool farther = is_behind(relay, after, sequence) ||
                       (other != NOBODY &&
                        message_at(relay, other)->sequence > message_at(relay, after)->sequence);
        after = farther ? other : after;
    }
    uint32_t next = after == NOBODY ? relay->first_message : message_at(relay, after)->next;
    for (uint32_t steps = 1; !is_behind(relay, next, sequence); steps++) {
        after = next;
        next = message_at(relay, next)->next;
        if (steps % MILESTONE_STEPS == 0) {
            set(relay, after);
        }
    }
    return after;
}

void milestones_done(struct milestones *milestones)
{
    free(milestones->all);
    *milestones = (struct milestones){0};
}
