/* SPDX-License-Identifier: Apache-2.0
 *
 * The delivery that a recovering server is tried with (R5): the oldest of less than 256 KB,
 * preferably for a recipient whom this server has taken mail for; if all are larger, the oldest.
 * Recipients that it was tried with since its trouble began come last, for else one whom it never
 * takes mail for, with much of it at the front, would keep it down. Only the front of the lanes is
 * looked at, and no recipient's mail is passed by for a later one (R6).
 */
#include "relay/refusal.h"
#include "relay/relay_internal.h"

enum {
    CANARY_BYTES_MAX = 256 << 10,
    LANES_LOOK = 8,
    FRONT_LOOK = 64,
};

/* ---- recipients that were tried ------------------------------------------------------------ */

static uint32_t tried_count(const struct server *server)
{
    return server->tried_next < CANARIES_KEPT ? server->tried_next : CANARIES_KEPT;
}

bool canary_was_tried(const struct server *server, uint64_t recipient)
{
    for (uint32_t i = 0; i < tried_count(server); i++) {
        if (server->tried[i] == recipient) {
            return true;
        }
    }
    return false;
}

void canary_try(struct server *server, uint64_t recipient)
{
    if (!canary_was_tried(server, recipient)) {
        server->tried[server->tried_next++ % CANARIES_KEPT] = recipient;
    }
}

bool canary_forget(struct server *server)
{
    bool any = server->tried_next > 0;
    server->tried_next = 0;
    return any;
}

/* ---- the front of a lane ------------------------------------------------------------------- */

struct front {
    uint32_t numbers[1 + 2 * FRONT_LOOK];
    uint32_t count;
};

/* Those that came back stand in a heap: in order, each after the one above it. */
static void add_returned(const struct relay *relay, const struct lane *lane, struct front *front)
{
    uint32_t edge[FRONT_LOOK + 1] = {0};
    uint32_t edge_count = lane->returned_count > 0;
    for (uint32_t looked = 0; looked < FRONT_LOOK && edge_count > 0; looked++) {
        uint32_t first = 0;
        for (uint32_t i = 1; i < edge_count; i++) {
            if (delivery_before(relay, lane->returned[edge[i]], lane->returned[edge[first]])) {
                first = i;
            }
        }
        uint32_t place = edge[first];
        edge[first] = edge[--edge_count];
        front->numbers[front->count++] = lane->returned[place];
        for (uint32_t below = 2 * place + 1; below <= 2 * place + 2; below++) {
            if (below < lane->returned_count) {
                edge[edge_count++] = below;
            }
        }
    }
}

static void add_waiting(const struct relay *relay, const struct server *server,
                        const struct lane *lane, struct front *front)
{
    uint32_t looked = 0, passed = 0;
    for (uint32_t number = lane->head;
         number != NOBODY && looked < FRONT_LOOK && passed < LOOK_AHEAD;
         number = delivery_at(relay, number)->next) {
        if (canary_was_tried(server, delivery_at(relay, number)->recipient)) {
            passed++;
        } else {
            front->numbers[front->count++] = number;
            looked++;
        }
    }
}

static bool look_at_front(struct relay *relay, const struct server *server, struct lane *lane,
                          uint32_t *budget, struct front *front)
{
    uint32_t first = lane_first(relay, lane, budget);
    if (first == NOBODY) {
        return false;
    }
    front->numbers[0] = first;
    front->count = 1;
    add_returned(relay, lane, front);
    add_waiting(relay, server, lane, front);
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
    bool was_tried, is_large, is_known_good;
};

static bool is_better(const struct relay *relay, const struct choice *choice,
                      const struct choice *than)
{
    if (than->number == NOBODY) {
        return true;
    }
    if (choice->was_tried != than->was_tried) {
        return than->was_tried;
    }
    if (choice->is_large != than->is_large) {
        return than->is_large;
    }
    if (choice->is_known_good != than->is_known_good) {
        return choice->is_known_good;
    }
    return delivery_before(relay, choice->number, than->number);
}

static void choose_from(struct relay *relay, const struct server *server, struct lane *lane,
                        const struct front *front, struct choice *best)
{
    for (uint32_t i = 0; i < front->count; i++) {
        const struct delivery *delivery = delivery_at(relay, front->numbers[i]);
        bool is_large = message_at(relay, delivery->message)->bytes >= CANARY_BYTES_MAX;
        struct choice choice = {lane, front->numbers[i],
                                canary_was_tried(server, delivery->recipient), is_large,
                                !is_large && recipient_is_known_good(relay, server, delivery)};
        if (is_better(relay, &choice, best) &&
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
        if (look_at_front(relay, server, lane, budget, &front)) {
            choose_from(relay, server, lane, &front, &best);
        }
    }
    *ret_number = best.number;
    return best.lane;
}
