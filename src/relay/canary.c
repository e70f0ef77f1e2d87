/* SPDX-License-Identifier: Apache-2.0
 *
 * The delivery that a recovering server is tried with (R5): the oldest of less than 256 KB,
 * preferably for a recipient whom this server has taken mail for; if all are larger, the oldest.
 * Only the front of the lanes is looked at, and no recipient's mail is passed by for a later one
 * (R6).
 */
#include "relay/refusal.h"
#include "relay/relay_internal.h"

enum {
    CANARY_BYTES_MAX = 256 << 10,
    LANES_LOOK = 8,
    FRONT_LOOK = 64,
};

struct front {
    uint32_t numbers[2 * FRONT_LOOK];
    uint32_t count;
};

static bool look_at_front(struct relay *relay, struct lane *lane, uint32_t *budget,
                          struct front *front)
{
    front->count = 0;
    uint32_t first = lane_first(relay, lane, budget);
    if (first == NOBODY) {
        return false;
    }
    if (lane->returned_count > FRONT_LOOK) { /* in no order that could be followed */
        front->numbers[front->count++] = first;
        return true;
    }
    for (uint32_t i = 0; i < lane->returned_count; i++) {
        front->numbers[front->count++] = lane->returned[i];
    }
    uint32_t number = lane->head;
    for (uint32_t i = 0; i < FRONT_LOOK && number != NOBODY; i++) {
        front->numbers[front->count++] = number;
        number = delivery_at(relay, number)->next;
    }
    return true;
}

static bool is_first_of_its_recipient(const struct relay *relay, const struct front *front,
                                      uint32_t number)
{
    uint64_t recipient = delivery_at(relay, number)->recipient;
    for (uint32_t i = 0; i < front->count; i++) {
        if (front->numbers[i] != number &&
            delivery_at(relay, front->numbers[i])->recipient == recipient &&
            delivery_before(relay, front->numbers[i], number)) {
            return false;
        }
    }
    return recipient_allows(relay, number);
}

struct choice {
    struct lane *lane;
    uint32_t number;
    bool is_known_good;
};

static bool is_better(const struct relay *relay, const struct choice *choice,
                      const struct choice *than)
{
    if (than->number == NOBODY || choice->is_known_good != than->is_known_good) {
        return than->number == NOBODY || choice->is_known_good;
    }
    return delivery_before(relay, choice->number, than->number);
}

static void choose_from(struct relay *relay, const struct server *server, struct lane *lane,
                        const struct front *front, struct choice *best)
{
    for (uint32_t i = 0; i < front->count; i++) {
        const struct delivery *delivery = delivery_at(relay, front->numbers[i]);
        struct choice choice = {lane, front->numbers[i],
                                recipient_is_known_good(relay, server, delivery)};
        if (message_at(relay, delivery->message)->bytes < CANARY_BYTES_MAX &&
            is_better(relay, &choice, best) &&
            is_first_of_its_recipient(relay, front, choice.number)) {
            *best = choice;
        }
    }
}

struct lane *canary_choose(struct relay *relay, const struct server *server, struct link *turns,
                           uint32_t *budget, uint32_t *ret_number)
{
    struct choice best = {.number = NOBODY};
    struct front front;
    uint32_t looked = 0;
    LIST_EACH(turns, at, after)
    {
        struct lane *lane = LIST_ENTRY(at, struct lane, turn);
        if (looked++ == LANES_LOOK) {
            break;
        }
        if (look_at_front(relay, lane, budget, &front)) {
            choose_from(relay, server, lane, &front, &best);
        }
    }
    *ret_number = best.number;
    return best.lane;
}
