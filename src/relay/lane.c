/* SPDX-License-Identifier: Apache-2.0
 *
 * Lanes: the ordered deliveries of one route, and which server they go to. New mail is appended to
 * a FIFO; what comes back (due again, given back by a session, let go by its recipient) goes into a
 * small heap. Both are in acceptance order and the earlier of the two heads goes next. There is a
 * pair of them for each level of priority (RFC 6710).
 */
#include <assert.h>
#include <stdlib.h>

#include "relay/notes.h"
#include "relay/refusal.h"
#include "relay/relay_internal.h"

struct lane *lane_of(const struct relay *relay, const struct delivery *delivery)
{
    return relay->lanes.all[delivery->lane];
}

/* ---- the FIFO and the heap ---------------------------------------------------------------- */

static void change_ready(struct relay *relay, struct lane *lane, int change)
{
    lane->ready += (uint64_t)(int64_t)change;
    if (lane->placed != NO_INDEX) {
        struct server *server = server_at(relay, lane->placed);
        *(lane->guest ? &server->guests_ready : &server->ready) += (uint64_t)(int64_t)change;
        server_touch(relay, server);
    }
    if ((lane->ready == 0) != (lane->placed == NO_INDEX)) {
        lane_place(relay, lane);
    }
}

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

static void fifo_unlink(struct relay *relay, uint32_t *head, uint32_t *tail, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    *(delivery->previous == NOBODY ? head : &delivery_at(relay, delivery->previous)->next) =
        delivery->next;
    *(delivery->next == NOBODY ? tail : &delivery_at(relay, delivery->next)->previous) =
        delivery->previous;
}

/* In acceptance order: at the end, or near the head as a rule. */
static void fifo_insert(struct relay *relay, uint32_t *head, uint32_t *tail, uint32_t number)
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

/* ---- into the lane ------------------------------------------------------------------------ */

/* Order is kept within a lane. Domains' lanes need nothing to tell their recipients apart. */
uint64_t record_key(const struct relay *relay, const struct delivery *delivery)
{
    return delivery->recipient ^ lane_of(relay, delivery)->salt;
}

static struct recipient *record_of(const struct relay *relay, const struct delivery *delivery)
{
    uintptr_t found = (uintptr_t)map_get(&relay->recipients, record_key(relay, delivery));
    return found == 0 ? NULL : &relay->records[found - 1];
}

static unsigned own_level(const struct relay *relay, uint32_t number)
{
    return message_at(relay, delivery_at(relay, number)->message)->level;
}

/* What goes before a more urgent one of its recipient is as urgent. `record` may be NULL. */
static unsigned level_of(const struct relay *relay, const struct recipient *record, uint32_t number)
{
    unsigned level = own_level(relay, number);
    if (record != NULL && record->urgent != NOBODY &&
        delivery_before(relay, number, record->urgent) &&
        own_level(relay, record->urgent) > level) {
        level = own_level(relay, record->urgent);
    }
    return level;
}

static void stand(struct relay *relay, uint32_t number, unsigned wanted, bool is_new)
{
    struct delivery *delivery = delivery_at(relay, number);
    struct lane *lane = lane_of(relay, delivery);
    unsigned level = make_level(lane, wanted);
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
    waiting_put(relay, number);
}

static void unstand(struct relay *relay, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    struct lane *lane = lane_of(relay, delivery);
    struct lane_queue *queue = queue_at(lane, delivery->level);
    waiting_remove(relay, number);
    if (delivery->place == PLACE_IN_LANE) {
        fifo_unlink(relay, &queue->head, &queue->tail, number);
    } else {
        heap_remove(relay, queue, delivery->next);
    }
    if (queue->head == NOBODY && queue->returned_count == 0) {
        lane->taken_levels &= ~(1u << delivery->level);
    }
}

static bool stands(const struct delivery *delivery)
{
    return delivery->place == PLACE_IN_LANE || delivery->place == PLACE_RETURNED;
}

static void put_behind(struct relay *relay, struct recipient *record, uint32_t number)
{
    fifo_insert(relay, &record->head, &record->tail, number);
    struct delivery *delivery = delivery_at(relay, number);
    delivery->place = PLACE_BEHIND;
    uint32_t ahead = delivery->previous != NOBODY ? delivery->previous : record->blocker;
    unsigned level = own_level(relay, number);
    if (record->urgent == NOBODY ? level > own_level(relay, ahead)
                                 : level > own_level(relay, record->urgent) ||
                                       (level == own_level(relay, record->urgent) &&
                                        delivery_before(relay, record->urgent, number))) {
        record->urgent = number;
    }
    const struct delivery *blocker = delivery_at(relay, record->blocker);
    level = level_of(relay, record, record->blocker);
    if (stands(blocker) && level > blocker->level) {
        unstand(relay, record->blocker);
        stand(relay, record->blocker, level, false);
    }
}

/* A blocker that only waits has no right before an earlier one: it may have come to be one when a
 * sender process named its jobs after a restart. */
static bool blocker_yields(struct relay *relay, struct recipient *record, uint32_t number)
{
    uint32_t blocker = record->blocker;
    if (delivery_at(relay, blocker)->state != DELIVERY_WAITING || record->follower != NOBODY ||
        record->timer != SCHEDULE_NOWHERE || !delivery_before(relay, number, blocker)) {
        return false;
    }
    record->blocker = number;
    delivery_take_out(relay, blocker);
    put_behind(relay, record, blocker);
    return true;
}

/* Its recipient's record, if it needs one: when another stands in the lane already, all but the
 * earlier of the two are behind that. *ret_level: where it is to stand. */
static struct recipient *line_up(struct relay *relay, uint32_t number, unsigned *ret_level)
{
    struct recipient *record = record_of(relay, delivery_at(relay, number));
    uint32_t other = record != NULL ? NOBODY : waiting_find(relay, number);
    *ret_level = own_level(relay, number);
    if (other == NOBODY) {
        return record;
    }
    bool first = delivery_before(relay, number, other);
    if (!recipient_block(relay, first ? number : other)) {
        /* Out of memory: both stand in the lane, the later one no higher. */
        unsigned level = delivery_at(relay, other)->level;
        *ret_level = (*ret_level > level) == first ? *ret_level : level;
        return NULL;
    }
    record = record_of(relay, delivery_at(relay, number));
    if (first) {
        delivery_take_out(relay, other);
        put_behind(relay, record, other);
    }
    return record;
}

/* There is a follower for it. */
static void tell_blocker(struct relay *relay, const struct recipient *record)
{
    const struct delivery *blocker = delivery_at(relay, record->blocker);
    struct server *server =
        blocker->state == DELIVERY_IN_FLIGHT ? server_at(relay, blocker->server) : NULL;
    if (server != NULL && record->follower == NOBODY) {
        server_touch(relay, server);
    }
}

static void enter(struct relay *relay, uint32_t number, bool is_new)
{
    const struct delivery *delivery = delivery_at(relay, number);
    assert(delivery->state == DELIVERY_WAITING && delivery->place == PLACE_NOWHERE);
    unsigned level;
    struct recipient *record = line_up(relay, number, &level);
    if (record != NULL && record->blocker != number && !blocker_yields(relay, record, number)) {
        put_behind(relay, record, number);
        tell_blocker(relay, record);
        return;
    }
    stand(relay, number, record == NULL ? level : level_of(relay, record, number), is_new);
    change_ready(relay, lane_of(relay, delivery), 1);
}

void lane_append(struct relay *relay, uint32_t number)
{
    enter(relay, number, true);
}

void lane_return(struct relay *relay, uint32_t number)
{
    enter(relay, number, false);
}

void delivery_take_out(struct relay *relay, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    struct lane *lane = lane_of(relay, delivery);
    enum place place = delivery->place;
    struct recipient *record;
    switch (place) {
    case PLACE_IN_LANE:
    case PLACE_RETURNED:
        unstand(relay, number);
        break;
    case PLACE_BEHIND:
        record = record_of(relay, delivery);
        fifo_unlink(relay, &record->head, &record->tail, number);
        record->urgent = record->urgent == number ? NOBODY : record->urgent;
        break;
    case PLACE_TIMED:
        schedule_remove(&relay->schedule, delivery->next);
        break;
    case PLACE_ON_JOB:
    case PLACE_NOWHERE:
        break;
    }
    if (place == PLACE_TIMED || place == PLACE_ON_JOB) {
        record = record_of(relay, delivery);
        if (record != NULL && record->follower == number) {
            record->follower = NOBODY;
        }
    }
    delivery->place = PLACE_NOWHERE;
    delivery->next = delivery->previous = NOBODY;
    if (place == PLACE_IN_LANE || place == PLACE_RETURNED) {
        change_ready(relay, lane, -1);
    }
}

uint32_t lane_first(struct relay *relay, struct lane *lane, uint32_t *budget)
{
    uint32_t number = lane_head(relay, lane);
    while (number != NOBODY) {
        struct delivery *delivery = delivery_at(relay, number);
        struct recipient *record = record_of(relay, delivery);
        if (record == NULL || record->blocker == number) {
            return number;
        }
        if (blocker_yields(relay, record, number)) {
            return number;
        }
        if (*budget == 0) {
            relay->more = true;
            return NOBODY;
        }
        --*budget;
        delivery_take_out(relay, number);
        put_behind(relay, record, number);
        number = lane_head(relay, lane);
    }
    return NOBODY;
}

/* ---- recipients --------------------------------------------------------------------------- */

bool recipient_allows(const struct relay *relay, uint32_t number)
{
    const struct recipient *record = record_of(relay, delivery_at(relay, number));
    return record == NULL || record->blocker == number;
}

bool recipient_block(struct relay *relay, uint32_t number)
{
    uint64_t key = record_key(relay, delivery_at(relay, number));
    const struct recipient *known = record_of(relay, delivery_at(relay, number));
    if (known != NULL) {
        assert(known->blocker == number);
        return true;
    }
    uint32_t free_record = relay->record_free;
    if (free_record == NOBODY) {
        if (relay->record_used == relay->record_room) {
            uint32_t room = relay->record_room == 0 ? 64 : relay->record_room * 2;
            struct recipient *more = realloc(relay->records, room * sizeof *more);
            if (more == NULL) {
                return false;
            }
            relay->records = more;
            relay->record_room = room;
        }
        free_record = relay->record_used;
    }
    if (map_put(&relay->recipients, key, (void *)((uintptr_t)free_record + 1)) != ERROR_NONE) {
        return false;
    }
    if (free_record == relay->record_used) {
        relay->record_used++;
    } else {
        relay->record_free = relay->records[free_record].head;
    }
    relay->records[free_record] =
        (struct recipient){key, number, NOBODY, NOBODY, SCHEDULE_NOWHERE, NOBODY, NOBODY};
    return true;
}

static void record_free(struct relay *relay, struct recipient *record)
{
    map_remove(&relay->recipients, record->key);
    uint32_t number = (uint32_t)(record - relay->records);
    *record = (struct recipient){.blocker = NOBODY,
                                 .head = relay->record_free,
                                 .tail = NOBODY,
                                 .timer = SCHEDULE_NOWHERE,
                                 .follower = NOBODY,
                                 .urgent = NOBODY};
    relay->record_free = number;
}

static void stop_patience(struct relay *relay, struct recipient *record)
{
    if (record->timer != SCHEDULE_NOWHERE) {
        schedule_remove(&relay->schedule, record->timer);
    }
}

static int64_t order_patience_ms(const struct relay *relay, uint32_t number)
{
    uint32_t route = lane_of(relay, delivery_at(relay, number))->route;
    return route == NO_INDEX ? 0 : relay->config->routes[route].order_patience_ms;
}

void recipient_release(struct relay *relay, uint32_t number)
{
    struct recipient *record = record_of(relay, delivery_at(relay, number));
    if (record == NULL || record->blocker != number) {
        return;
    }
    stop_patience(relay, record);
    if (record->follower != NOBODY) { /* in flight already, or has been deferred meanwhile */
        record->blocker = record->follower;
        record->follower = NOBODY;
        if (delivery_at(relay, record->blocker)->state == DELIVERY_DEFERRED) {
            recipient_patience(relay, record->blocker, order_patience_ms(relay, record->blocker));
        }
        return;
    }
    uint32_t next = record->head;
    if (next == NOBODY) {
        record_free(relay, record);
        return;
    }
    record->blocker = next;
    delivery_take_out(relay, next);
    lane_return(relay, next);
}

uint32_t recipient_next(const struct relay *relay, uint32_t blocker)
{
    const struct recipient *record = record_of(relay, delivery_at(relay, blocker));
    bool may = record != NULL && record->blocker == blocker && record->follower == NOBODY;
    return may ? record->head : NOBODY;
}

void recipient_precede(struct relay *relay, uint32_t number)
{
    struct recipient *record = record_of(relay, delivery_at(relay, number));
    if (record == NULL || record->blocker == number || blocker_yields(relay, record, number)) {
        return;
    }
    uint32_t blocker = record->blocker;
    if (delivery_at(relay, blocker)->state == DELIVERY_IN_FLIGHT && record->follower == NOBODY &&
        delivery_before(relay, number, blocker)) {
        record->blocker = number;
        record->follower = blocker;
    }
}

void recipient_follow(struct relay *relay, uint32_t number)
{
    struct recipient *record = record_of(relay, delivery_at(relay, number));
    assert(record != NULL && record->blocker != number && record->follower == NOBODY);
    record->follower = number;
}

bool recipient_follows(const struct relay *relay, uint32_t number)
{
    const struct recipient *record = record_of(relay, delivery_at(relay, number));
    return record != NULL && record->follower == number;
}

void recipient_patience(struct relay *relay, uint32_t number, int64_t patience_ms)
{
    struct delivery *delivery = delivery_at(relay, number);
    struct recipient *record = record_of(relay, delivery);
    if (record == NULL) {
        return;
    }
    if (record->blocker != number) {
        if (record->follower == NOBODY && (delivery->flags & DELIVERY_PATIENCE_SET) == 0) {
            record->follower = number; /* it followed: its patience is to come */
        }
        return;
    }
    if ((delivery->flags & DELIVERY_PATIENCE_SET) == 0) {
        delivery->flags |= DELIVERY_PATIENCE_SET;
        if (patience_ms > 0 && record->timer == SCHEDULE_NOWHERE) {
            schedule_add(&relay->schedule,
                         (struct timer){relay->now.steady_ms + patience_ms, TIMER_RECIPIENT,
                                        (uint32_t)(record - relay->records)});
            return;
        }
    }
    if (record->timer == SCHEDULE_NOWHERE) { /* it has run */
        delivery->flags |= DELIVERY_PATIENCE_RUN;
        recipient_release(relay, number);
    }
}

int64_t recipient_patience_end(const struct relay *relay, uint32_t number)
{
    const struct recipient *record = record_of(relay, delivery_at(relay, number));
    bool runs = record != NULL && record->blocker == number && record->timer != SCHEDULE_NOWHERE;
    return runs ? schedule_at(&relay->schedule, record->timer)->due_ms : INT64_MAX;
}

void recipient_timer(struct relay *relay, uint32_t which)
{
    struct recipient *record = &relay->records[which];
    uint32_t number = record->blocker;
    struct delivery *delivery = delivery_at(relay, number);
    stop_patience(relay, record);
    delivery->flags |= DELIVERY_PATIENCE_RUN;
    /* In flight again, or on its way to be: its reply comes first in any case. */
    if (delivery->state == DELIVERY_DEFERRED) {
        recipient_release(relay, number);
    }
}

/* Of two that are under way in lanes that have become one, the earlier is waited for. */
static void rekey(struct relay *relay, uint32_t number)
{
    struct recipient *record = &relay->records[number];
    uint64_t key = record_key(relay, delivery_at(relay, record->blocker));
    uintptr_t found = (uintptr_t)map_get(&relay->recipients, key);
    record->key = key;
    if (record->follower != NOBODY &&
        record_key(relay, delivery_at(relay, record->follower)) != key) {
        record->follower = NOBODY; /* in another lane now, where other mail is to be waited for */
    }
    if (found != 0) {
        struct recipient *other = &relay->records[found - 1];
        bool first = delivery_before(relay, record->blocker, other->blocker);
        stop_patience(relay, first ? other : record);
        record_free(relay, first ? other : record); /* with the entry of the key */
        number = first ? number : (uint32_t)found - 1;
    }
    enum error error = map_put(&relay->recipients, key, (void *)((uintptr_t)number + 1));
    assert(error == ERROR_NONE); /* there have been as many entries before */
    (void)error;
}

void recipients_rekey(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->record_used; i++) {
        if (relay->records[i].blocker != NOBODY) {
            map_remove(&relay->recipients, relay->records[i].key);
        }
    }
    for (uint32_t i = 0; i < relay->record_used; i++) {
        if (relay->records[i].blocker != NOBODY) {
            rekey(relay, i);
        }
    }
}

void recipients_dissolve(struct relay *relay)
{
    waiting_clear(relay);
    for (uint32_t i = 0; i < relay->record_used; i++) {
        struct recipient *record = &relay->records[i];
        if (record->blocker == NOBODY) {
            continue;
        }
        for (uint32_t at = record->head; at != NOBODY;) {
            struct delivery *delivery = delivery_at(relay, at);
            uint32_t next = delivery->next;
            delivery->place = PLACE_NOWHERE;
            delivery->next = delivery->previous = NOBODY;
            at = next;
        }
        record->head = record->tail = record->urgent = NOBODY;
        /* One that waits first in line does so by its place in the lane; but running patience is
         * kept. */
        if (delivery_at(relay, record->blocker)->state == DELIVERY_WAITING &&
            record->timer == SCHEDULE_NOWHERE && record->follower == NOBODY) {
            record_free(relay, record);
        }
    }
}

/* ---- which server ------------------------------------------------------------------------- */

static uint32_t choose_from_chain(const struct relay *relay, const struct lane *lane)
{
    if (lane->route == NO_INDEX && lane->pinned_server == NO_INDEX) {
        return NO_INDEX;
    }
    if (lane->pinned_server != NO_INDEX) {
        const struct server *server = server_at(relay, lane->pinned_server);
        return server_usable(server) && exchanger_has_place(server) &&
                       server_takes_route(server, lane->route)
                   ? server->index
                   : NO_INDEX;
    }
    if (lane->destination != NULL) {
        return destination_choose(relay, lane->destination);
    }
    const struct route_config *route = &relay->config->routes[lane->route];
    uint32_t found = NO_INDEX;
    for (uint32_t i = 0; i < route->chain_length; i++) {
        const struct server *server = server_at(relay, route->chain[i]);
        if (server_takes_route(server, lane->route) && server_is_choice(relay, server, &found)) {
            break;
        }
    }
    return found;
}

uint32_t lane_choose(const struct relay *relay, const struct lane *lane)
{
    return lane_is_frozen(relay, lane) ? NO_INDEX : choose_from_chain(relay, lane);
}

bool lane_may_go_to(const struct relay *relay, const struct lane *lane, uint32_t server)
{
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, lane, &length);
    for (uint32_t i = 0; lane->pinned_server == NO_INDEX && i < length; i++) {
        if (chain[i] == server) {
            return true;
        }
    }
    return lane->pinned_server == server;
}

struct slice lane_place_by_hand(const struct relay *relay, const struct lane *lane)
{
    return lane->pin == PIN_REDIRECT && !lane->redirect_address
               ? intern_text(&relay->redirects, lane->redirect)
               : SLICE_EMPTY;
}

static bool is_away(const struct server *server)
{
    return server->state == SERVER_DOWN || server->state == SERVER_DISABLED;
}

bool lane_awaits_call(const struct relay *relay, const struct lane *lane)
{
    uint32_t length = 1;
    const uint32_t *chain = lane->pinned_server != NO_INDEX ? &lane->pinned_server
                            : lane->route == NO_INDEX       ? NULL
                                                            : lane_chain(relay, lane, &length);
    const struct server *server = chain != NULL && length == 1 ? server_at(relay, chain[0]) : NULL;
    return server != NULL && server_calls(server) && server->state != SERVER_DISABLED &&
           lane_choose(relay, lane) == NO_INDEX;
}

bool lane_is_stopped(const struct relay *relay, const struct lane *lane)
{
    if (lane_awaits_call(relay, lane)) {
        return false;
    }
    if (lane->pinned_server != NO_INDEX) {
        return is_away(server_at(relay, lane->pinned_server));
    }
    if (lane->route == NO_INDEX ||
        (lane->destination == NULL && relay->config->routes[lane->route].mx)) {
        return false;
    }
    if (lane->destination != NULL) {
        return destination_is_stopped(relay, lane->destination);
    }
    const struct route_config *route = &relay->config->routes[lane->route];
    for (uint32_t i = 0; i < route->chain_length; i++) {
        if (!is_away(server_at(relay, route->chain[i]))) {
            return false;
        }
    }
    return true;
}

static struct relay_action *lane_event(struct relay *relay, const struct lane *lane,
                                       enum relay_event_kind kind)
{
    struct relay_action *event = action_event(relay, kind);
    event->lane = action_copy(relay, lane->name);
    event->redirect_to = action_copy(relay, lane_place_by_hand(relay, lane));
    return event;
}

/* When the last of its servers went. 0: DNS knows none. */
static int64_t away_since(const struct relay *relay, const struct lane *lane)
{
    int64_t since = 0;
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, lane, &length);
    for (uint32_t i = 0; i < length; i++) {
        const struct server *server = server_at(relay, chain[i]);
        if (server != NULL && server->since_wall_ms > since) {
            since = server->since_wall_ms;
        }
    }
    return since;
}

static void lane_stops(struct relay *relay, struct lane *lane)
{
    lane->stopped = true;
    lane->draining = false; /* what comes back later drains anew */
    struct relay_action *event = lane_event(relay, lane, RELAY_EVENT_STOPPED);
    event->count = lane->waiting;
    event->since_wall_ms = away_since(relay, lane);
    freeze_drained(relay, lane, false);
}

/* A server answers; what waits is counted from here, though nothing is told before one is up. */
static void drain_begins(const struct relay *relay, struct lane *lane)
{
    lane->draining = true;
    lane->drain_mark = relay->last_sequence;
    lane->drain_left = lane->waiting + lane->in_flight;
    lane->drain_done = 0;
    lane->drain_since_ms = relay->now.steady_ms;
}

static void tell_drain(struct relay *relay, struct lane *lane, uint32_t server)
{
    struct relay_action *event = lane_event(relay, lane, RELAY_EVENT_DRAINING);
    event->server = server;
    event->count = lane->drain_left + lane->drain_done;
}

void lane_drain(struct relay *relay, struct lane *lane, uint32_t server)
{
    drain_begins(relay, lane);
    tell_drain(relay, lane, server);
}

static void lane_resumes(struct relay *relay, struct lane *lane, uint32_t server)
{
    lane->stopped = false;
    if (lane->drain_left + lane->drain_done == 0) { /* held, discarded or redirected meanwhile */
        lane->draining = false;
        (void)lane_event(relay, lane, RELAY_EVENT_DRAINED);
        return;
    }
    tell_drain(relay, lane, server);
    relay->drained |= lane->drain_left == 0;
}

/* The lane was told to have stopped. A server that answers, but has not taken anything since, is no
 * end of that, unless there is nothing to be taken. */
static void look_at_stop(struct relay *relay, struct lane *lane, uint32_t usable)
{
    if (usable == NO_INDEX) {
        lane->draining = false;
        return;
    }
    if (!lane->draining) {
        drain_begins(relay, lane);
    }
    if (server_at(relay, usable)->state == SERVER_UP || lane->deliveries == 0) {
        lane_resumes(relay, lane, usable);
    }
}

/* So that the way back is told in the next life, too. An exchanger is not known then by its number,
 * nor by its name before DNS is asked: of a switch to one nothing is noted. */
static void note_switch(struct relay *relay, const struct lane *lane, uint32_t server, bool is_head)
{
    buffer_clear(&relay->scratch);
    if (!note_switched_key(&relay->scratch, lane->name)) {
        return;
    }
    struct slice key = action_copy(relay, buffer_slice(&relay->scratch));
    buffer_clear(&relay->scratch);
    if (!is_head && server < RELAY_EXCHANGERS) {
        note_encode_switched(&relay->scratch, server_name(relay, server), relay->now.wall_ms);
    }
    struct relay_action *action = action_add(relay, RELAY_GLOBAL);
    action->key = key;
    action->payload = action_copy(relay, buffer_slice(&relay->scratch));
}

void lane_load_switch(struct relay *relay, struct slice name, struct slice server, int64_t since_ms)
{
    uint32_t index = relay_config_server(relay->config, server);
    for (uint32_t i = 0; index != NO_INDEX && i < relay->config->route_count; i++) {
        if (slice_equal(relay->lanes.all[i]->name, name)) {
            relay->lanes.all[i]->last_server = index;
            relay->lanes.all[i]->switched_wall_ms = since_ms;
        }
    }
}

void lane_tell_switch(struct relay *relay, struct lane *lane, uint32_t server)
{
    uint32_t before = lane->last_server;
    lane->last_server = server;
    lane->switched_wall_ms = relay->now.wall_ms;
    const struct server *from = server_at(relay, before);
    if (before == server || lane->pin != PIN_NONE || from == NULL ||
        lane_is_one_of_many(relay, lane)) {
        return;
    }
    struct relay_action *event = action_event(relay, RELAY_EVENT_SWITCHED);
    event->lane = action_copy(relay, lane->name);
    event->from_server = before;
    event->server = server;
    event->is_head = server == lane_chain_head(relay, lane);
    lane->switches++;
    event->reason = action_copy(relay, slice_make(from->reason, from->reason_length));
    note_switch(relay, lane, server, event->is_head);
}

/* R4: it is back where it belongs, whether or not there is mail to show it. */
static void switch_back(struct relay *relay, struct lane *lane, uint32_t usable)
{
    if (usable != lane->last_server && usable == lane_chain_head(relay, lane) &&
        server_at(relay, usable)->state == SERVER_UP) {
        lane_tell_switch(relay, lane, usable);
    }
}

static void leave_turns(struct relay *relay, struct lane *lane)
{
    list_remove(&lane->turn);
    if (lane->placed != NO_INDEX) {
        struct server *server = server_at(relay, lane->placed);
        *(lane->guest ? &server->guests_ready : &server->ready) -= lane->ready;
    }
    lane->placed = NO_INDEX;
    lane->deficit = 0;
}

/* A server stands in for the head of the lane's chain. One named by hand, or by a doubt, does not.
 */
static bool stands_in(const struct relay *relay, const struct lane *lane, uint32_t server)
{
    return lane->pinned_server == NO_INDEX && lane->route != NO_INDEX &&
           lane_chain_head(relay, lane) != server;
}

static void take_turns(struct relay *relay, struct lane *lane, uint32_t choice)
{
    if (choice == NO_INDEX) {
        return;
    }
    struct server *server = server_at(relay, choice);
    lane->placed = choice;
    lane->guest = server->config->warm_up > 0 && stands_in(relay, lane, choice);
    list_append(lane->guest ? &server->guests : &server->turns, &lane->turn);
    *(lane->guest ? &server->guests_ready : &server->ready) += lane->ready;
    server_touch(relay, server);
}

void lane_place(struct relay *relay, struct lane *lane)
{
    uint32_t usable = lane_choose(relay, lane);
    uint32_t choice = lane->ready > 0 ? usable : NO_INDEX;
    if (choice != lane->placed) {
        leave_turns(relay, lane);
        take_turns(relay, lane, choice);
    }
    if (lane->destination != NULL && lane->ready > 0) {
        destination_touch(relay, lane->destination);
    }
    if (!relay->started) {
        return;
    }
    if (freeze_must_end(relay, lane)) {
        freeze_end(relay, lane, RELAY_THAW_FAILURE); /* which places it anew */
        return;
    }
    if (usable != NO_INDEX) {
        switch_back(relay, lane, usable);
    }
    if (lane->stopped) {
        look_at_stop(relay, lane, usable);
    } else if (usable == NO_INDEX && lane->waiting > 0 && lane->pin != PIN_DOUBT &&
               !lane_is_one_of_many(relay, lane) && lane_is_stopped(relay, lane)) {
        lane_stops(relay, lane);
    }
}

void lanes_called(struct relay *relay, const struct server *server)
{
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        struct lane *lane = relay->lanes.all[i];
        if (lane->pin == PIN_NONE && !lane->draining && lane->waiting > 0 &&
            lane_choose(relay, lane) == server->index) {
            lane_drain(relay, lane, server->index);
        }
    }
}

void lanes_call_ended(struct relay *relay, const struct server *server)
{
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        struct lane *lane = relay->lanes.all[i];
        bool called_for = lane->route != NO_INDEX && server_takes_route(server, lane->route);
        lane->draining = lane->draining && !(called_for && lane_choose(relay, lane) == NO_INDEX);
    }
}

void lanes_place(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        lane_place(relay, relay->lanes.all[i]);
    }
    odometers_turn(relay);
}

/* ---- counts ------------------------------------------------------------------------------- */

static void lane_recovers(struct relay *relay, struct lane *lane, const struct server *server,
                          int64_t since_wall_ms)
{
    if (choose_from_chain(relay, lane) != server->index) {
        return;
    }
    refusals_look_again(relay, lane->recovery.server); /* it is another's lane now */
    uint32_t head = lane_oldest(relay, lane);
    bool waits =
        lane->in_flight > 0 ||
        (head != NOBODY &&
         message_at(relay, delivery_at(relay, head)->message)->received_ms <= since_wall_ms) ||
        lane->waiting > lane->ready;
    lane->recovery = (struct recovery){.server = server->index,
                                       .drains = waits,
                                       .mark = relay->last_sequence,
                                       .left = lane->waiting + lane->in_flight,
                                       .drained_ms = server->recovered_ms};
}

void lanes_recover(struct relay *relay, const struct server *server, int64_t since_wall_ms)
{
    for (uint32_t i = 0; server->exchanger == NULL && i < relay->lanes.count; i++) {
        lane_recovers(relay, relay->lanes.all[i], server, since_wall_ms);
    }
    if (server->exchanger == NULL) {
        return;
    }
    LIST_EACH(&server->exchanger->uses, at, after)
    {
        struct destination *destination = LIST_ENTRY(at, struct exchanger_use, link)->destination;
        LIST_EACH(&destination->lanes, lane_at, lane_after)
        {
            lane_recovers(relay, LIST_ENTRY(lane_at, struct lane, sibling), server, since_wall_ms);
        }
    }
}

static void recovery_drained(struct relay *relay, struct lane *lane)
{
    lane->recovery.drains = false;
    lane->recovery.drained_ms = relay->now.steady_ms;
    refusals_lane_drained(relay, lane);
}

void lanes_drained(struct relay *relay)
{
    relay->drained = false;
    for (uint32_t i = 0; i < relay->lanes.count; i++) {
        struct lane *lane = relay->lanes.all[i];
        if (lane->recovery.drains && lane->recovery.left == 0) {
            recovery_drained(relay, lane);
        }
        if (!lane->draining || lane->stopped || lane->drain_left > 0) {
            continue;
        }
        lane->draining = false;
        struct relay_action *event = lane_event(relay, lane, RELAY_EVENT_DRAINED);
        event->count = lane->drain_done;
        event->duration_ms = relay->now.steady_ms - lane->drain_since_ms;
        freeze_drained(relay, lane, true);
    }
}

void lane_count(struct relay *relay, uint32_t number, enum delivery_state state, int change)
{
    const struct delivery *delivery = delivery_at(relay, number);
    struct lane *lane = lane_of(relay, delivery);
    uint64_t by = (uint64_t)(int64_t)change;
    bool moving = state == DELIVERY_WAITING || state == DELIVERY_IN_FLIGHT;
    lane->deliveries += state != DELIVERY_FINISHED && state != DELIVERY_DEAD ? by : 0;
    lane->members += state != DELIVERY_FINISHED ? by : 0;
    lane->waiting += state == DELIVERY_WAITING ? by : 0;
    lane->in_flight += state == DELIVERY_IN_FLIGHT ? by : 0;
    lane->held += state == DELIVERY_HELD ? by : 0;
    if (lane->draining && message_at(relay, delivery->message)->sequence <= lane->drain_mark) {
        lane->drain_left += moving ? by : 0;
        lane->drain_done += state == DELIVERY_FINISHED && change > 0;
        relay->drained |= lane->drain_left == 0;
    }
    if (lane->recovery.drains && moving &&
        message_at(relay, delivery->message)->sequence <= lane->recovery.mark) {
        lane->recovery.left += by;
        relay->drained |= lane->recovery.left == 0;
    }
}
