/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands in a lane. New mail is appended to a FIFO; what comes back (due again, given back by
 * a session, let go by its recipient) goes into a small heap. Both are in acceptance order and the
 * earlier of the two heads goes next. There is a pair of them for each level of priority (RFC
 * 6710).
 */
#include <assert.h>
#include <stdlib.h>

#include "relay/relay_internal.h"

/* ---- the FIFO and the heap ---------------------------------------------------------------- */

static void heap_put(struct relay *relay, struct lane_queue *queue, uint32_t place, uint32_t number)
{
    queue->returned[place] = number;
    delivery_at(relay, number)->next = place;
}

static void heap_up(struct relay *relay, struct lane_queue *queue, uint32_t place)
{
    uint32_t number = queue->returned[place];
    while (place > 0 && delivery_before(relay, number, queue->returned[(place - 1) / 2])) {
        heap_put(relay, queue, place, queue->returned[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    heap_put(relay, queue, place, number);
}

static void heap_down(struct relay *relay, struct lane_queue *queue, uint32_t place)
{
    uint32_t number = queue->returned[place];
    for (;;) {
        uint32_t child = place * 2 + 1;
        if (child + 1 < queue->returned_count &&
            delivery_before(relay, queue->returned[child + 1], queue->returned[child])) {
            child++;
        }
        if (child >= queue->returned_count ||
            !delivery_before(relay, queue->returned[child], number)) {
            break;
        }
        heap_put(relay, queue, place, queue->returned[child]);
        place = child;
    }
    heap_put(relay, queue, place, number);
}

static void heap_remove(struct relay *relay, struct lane_queue *queue, uint32_t place)
{
    uint32_t last = queue->returned[--queue->returned_count];
    if (place < queue->returned_count) {
        heap_put(relay, queue, place, last);
        heap_down(relay, queue, place);
        heap_up(relay, queue, delivery_at(relay, last)->next);
    }
    if (queue->returned_count == 0 && queue->returned_room > 1024) {
        free(queue->returned);
        queue->returned = NULL;
        queue->returned_room = 0;
    }
}

static bool heap_reserve(struct lane_queue *queue)
{
    if (queue->returned_count < queue->returned_room) {
        return true;
    }
    uint32_t room = queue->returned_room == 0 ? 16 : queue->returned_room * 2;
    uint32_t *more = realloc(queue->returned, (size_t)room * sizeof *more);
    if (more != NULL) {
        queue->returned = more;
        queue->returned_room = room;
    }
    return more != NULL;
}

static void fifo_link(struct relay *relay, uint32_t *head, uint32_t *tail, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    delivery->next = NOBODY;
    delivery->previous = *tail;
    *(*tail == NOBODY ? head : &delivery_at(relay, *tail)->next) = number;
    *tail = number;
}

void fifo_unlink(struct relay *relay, uint32_t *head, uint32_t *tail, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    *(delivery->previous == NOBODY ? head : &delivery_at(relay, delivery->previous)->next) =
        delivery->next;
    *(delivery->next == NOBODY ? tail : &delivery_at(relay, delivery->next)->previous) =
        delivery->previous;
}

/* In acceptance order: at the end, or near the head as a rule. */
void fifo_insert(struct relay *relay, uint32_t *head, uint32_t *tail, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    if (*tail == NOBODY || delivery_before(relay, *tail, number)) {
        fifo_link(relay, head, tail, number);
        return;
    }
    uint32_t before = NOBODY, after = *head;
    while (after != NOBODY && delivery_before(relay, after, number)) {
        before = after;
        after = delivery_at(relay, after)->next;
    }
    delivery->previous = before;
    delivery->next = after;
    *(before == NOBODY ? head : &delivery_at(relay, before)->next) = number;
    *(after == NOBODY ? tail : &delivery_at(relay, after)->previous) = number;
}

/* ---- levels ------------------------------------------------------------------------------- */

static const struct lane_queue empty_queue = {.head = NOBODY, .tail = NOBODY};

void lane_queues_init(struct lane *lane)
{
    lane->normal = empty_queue;
    lane->passed_over_ms = INT64_MAX;
}

void lane_queues_done(struct lane *lane)
{
    for (unsigned level = 0; lane->levels != NULL && level < LEVELS; level++) {
        free(lane->levels[level].returned);
    }
    free(lane->levels);
    free(lane->normal.returned);
}

static struct lane_queue *queue_at(struct lane *lane, unsigned level)
{
    return level == LEVEL_NORMAL ? &lane->normal : &lane->levels[level];
}

const struct lane_queue *lane_queue(const struct lane *lane, unsigned level)
{
    bool is_made = level == LEVEL_NORMAL || lane->levels != NULL;
    return !is_made ? NULL : level == LEVEL_NORMAL ? &lane->normal : &lane->levels[level];
}

/* `level`, or without memory for it the normal one. */
static unsigned make_level(struct lane *lane, unsigned level)
{
    if (level == LEVEL_NORMAL || lane->levels != NULL) {
        return level;
    }
    lane->levels = malloc(LEVELS * sizeof *lane->levels);
    for (unsigned i = 0; lane->levels != NULL && i < LEVELS; i++) {
        lane->levels[i] = empty_queue;
    }
    return lane->levels != NULL ? level : LEVEL_NORMAL;
}

static unsigned highest(uint32_t levels)
{
    return 31u - (unsigned)__builtin_clz(levels);
}

/* Of a lane in which something stands. Nothing changes by asking. */
static unsigned level_in_turn(const struct relay *relay, const struct lane *lane)
{
    unsigned top = highest(lane->taken_levels);
    uint32_t lower = lane->taken_levels & ((1u << top) - 1);
    bool shares = lower != 0 && lane->passed_over_ms != INT64_MAX &&
                  relay->now.steady_ms - lane->passed_over_ms >= LEVEL_PATIENCE_MS;
    if (!shares || lane->unshared_turns + 1 < LEVEL_SHARE) {
        return top;
    }
    uint32_t next = lower & ((1u << lane->last_share) - 1);
    return highest(next != 0 ? next : lower);
}

void lane_takes_turn(const struct relay *relay, struct lane *lane, uint32_t number)
{
    unsigned level = delivery_at(relay, number)->level;
    uint32_t lower = lane->taken_levels & ((1u << highest(lane->taken_levels)) - 1);
    if (lower == 0) {
        lane->passed_over_ms = INT64_MAX;
        lane->unshared_turns = 0;
    } else if ((lower & 1u << level) != 0) {
        lane->last_share = level;
        lane->unshared_turns = 0;
    } else {
        lane->unshared_turns += lane->unshared_turns < LEVEL_SHARE;
        lane->passed_over_ms =
            lane->passed_over_ms == INT64_MAX ? relay->now.steady_ms : lane->passed_over_ms;
    }
}

static uint32_t queue_head(const struct relay *relay, const struct lane_queue *queue)
{
    if (queue->returned_count == 0) {
        return queue->head;
    }
    uint32_t back = queue->returned[0];
    return queue->head == NOBODY || delivery_before(relay, back, queue->head) ? back : queue->head;
}

uint32_t lane_head(const struct relay *relay, const struct lane *lane)
{
    return lane->taken_levels == 0
               ? NOBODY
               : queue_head(relay, lane_queue(lane, level_in_turn(relay, lane)));
}

uint32_t lane_oldest(const struct relay *relay, const struct lane *lane)
{
    uint32_t oldest = NOBODY;
    for (unsigned level = 0; level < LEVELS; level++) {
        uint32_t head = (lane->taken_levels & 1u << level) == 0
                            ? NOBODY
                            : queue_head(relay, lane_queue(lane, level));
        if (head != NOBODY && (oldest == NOBODY || delivery_before(relay, head, oldest))) {
            oldest = head;
        }
    }
    return oldest;
}
/* ---- to stand in it, and to leave it -------------------------------------------------------- */

void lane_stand(struct relay *relay, uint32_t number, unsigned wanted, bool is_new)
{
    struct delivery *delivery = delivery_at(relay, number);
    struct lane *lane = lane_of(relay, delivery);
    /* One of the recipient's in another lane may be urgent. */
    unsigned level = lane->lines_up ? make_level(lane, wanted) : LEVEL_NORMAL;
    struct lane_queue *queue = queue_at(lane, level);
    delivery->level = level & 31u;
    /* Mail loaded after new mail has come in is older than the FIFO's end. */
    if (is_new && (queue->tail == NOBODY || delivery_before(relay, queue->tail, number))) {
        fifo_link(relay, &queue->head, &queue->tail, number);
        delivery->place = PLACE_IN_LANE;
    } else if (heap_reserve(queue)) {
        heap_put(relay, queue, queue->returned_count, number);
        heap_up(relay, queue, queue->returned_count++);
        delivery->place = PLACE_RETURNED;
    } else { /* out of memory */
        fifo_insert(relay, &queue->head, &queue->tail, number);
        delivery->place = PLACE_IN_LANE;
    }
    lane->taken_levels |= 1u << level;
    if (lane->lines_up) {
        waiting_put(relay, number);
    }
}

void lane_unstand(struct relay *relay, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    struct lane *lane = lane_of(relay, delivery);
    struct lane_queue *queue = queue_at(lane, delivery->level);
    if (lane->lines_up) {
        waiting_remove(relay, number);
    }
    if (delivery->place == PLACE_IN_LANE) {
        fifo_unlink(relay, &queue->head, &queue->tail, number);
    } else {
        heap_remove(relay, queue, delivery->next);
    }
    if (queue->head == NOBODY && queue->returned_count == 0) {
        lane->taken_levels &= ~(1u << delivery->level);
    }
}
