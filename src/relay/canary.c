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

enum { FRONT_ROOM = 1 + 2 * FRONT_LOOK };

struct front {
    uint32_t numbers[FRONT_ROOM];
    uint32_t count;
    uint32_t unseen; /* the first of the FIFO that was not looked at, or NOBODY */
};

static void add(struct front *front, uint32_t number)
{
    if (front->count < FRONT_ROOM) {
        front->numbers[front->count++] = number;
    }
}

/* Those that came back stand in a heap: in order, each after the one above it. */
static void add_returned(const struct relay *relay, const struct lane_queue *queue,
                         struct front *front)
{
    uint32_t edge[FRONT_LOOK + 1] = {0};
    uint32_t edge_count = queue->returned_count > 0;
    for (uint32_t looked = 0; looked < FRONT_LOOK && edge_count > 0; looked++) {
        uint32_t first = 0;
        for (uint32_t i = 1; i < edge_count; i++) {
            if (delivery_before(relay, queue->returned[edge[i]], queue->returned[edge[first]])) {
                first = i;
            }
        }
        uint32_t place = edge[first];
        edge[first] = edge[--edge_count];
        add(front, queue->returned[place]);
        for (uint32_t below = 2 * place + 1; below <= 2 * place + 2; below++) {
            if (below < queue->returned_count) {
                edge[edge_count++] = below;
            }
        }
    }
}

static void add_waiting(const struct relay *relay, const struct server *server,
                        const struct lane_queue *queue, struct front *front)
{
    uint32_t looked = 0, passed = 0, number = queue->head;
    for (; number != NOBODY && looked < FRONT_LOOK && passed < LOOK_AHEAD;
         number = delivery_at(relay, number)->next) {
        if (canary_was_tried(server, delivery_at(relay, number)->recipient)) {
            passed++;
        } else {
            add(front, number);
            looked++;
        }
    }
    front->unseen = number;
}

/* The urgent levels first, as many as there is room for. */
static bool look_at_front(struct relay *relay, const struct server *server, struct lane *lane,
                          uint32_t *budget, struct front *front)
{
    uint32_t first = lane_first(relay, lane, budget);
    if (first == NOBODY || delivery_waits_for_older(relay, first)) {
        return false;
    }
    *front = (struct front){.unseen = NOBODY};
    add(front, first);
    for (unsigned level = LEVELS; level-- > 0 && front->count < FRONT_ROOM;) {
        const struct lane_queue *queue = lane_queue(lane, level);
        if (queue != NULL) {
            add_returned(relay, queue, front);
            add_waiting(relay, server, queue, front);
        }
    }
    return true;
}

/* In a lane that does not line up an earlier one of the recipient may stand where nobody looked.
 * False: perhaps. */
static bool is_first_of_unseen(const struct relay *relay, const struct lane *lane,
                               const struct front *front, uint32_t number)
{
    const struct lane_queue *queue = &lane->normal;
    const struct delivery *delivery = delivery_at(relay, number);
    if (lane->lines_up || number == front->numbers[0]) {
        return true;
    }
    if (delivery->place == PLACE_RETURNED) {
        return front->unseen == NOBODY || delivery_before(relay, number, front->unseen);
    }
    bool first = queue->returned_count <= LOOK_AHEAD;
    for (uint32_t i = 0; first && i < queue->returned_count; i++) {
        first = delivery_at(relay, queue->returned[i])->recipient != delivery->recipient ||
                delivery_before(relay, number, queue->returned[i]);
    }
    return first;
}

static bool is_first_of_its_recipient(const struct relay *relay, const struct lane *lane,
                                      const struct front *front, uint32_t number)
{
    uint64_t recipient = delivery_at(relay, number)->recipient;
    for (uint32_t i = 0; i < front->count; i++) {
        if (front->numbers[i] != number &&
            delivery_at(relay, front->numbers[i])->recipient == recipient &&
            delivery_before(relay, front->numbers[i], number)) {
            return false;
        }
    }
    return recipient_allows(relay, number) && is_first_of_unseen(relay, lane, front, number);
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
            is_first_of_its_recipient(relay, lane, front, choice.number)) {
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
