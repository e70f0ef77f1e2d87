/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of a recipient's mail (R6): who may go into a lane, who waits behind whom, and how
 * long.
 */
#include <assert.h>
#include <stdlib.h>

#include "relay/relay_internal.h"

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

static unsigned level_wanted(const struct relay *relay, uint32_t number)
{
    return message_at(relay, delivery_at(relay, number)->message)->level;
}

static unsigned own_level(const struct relay *relay, uint32_t number)
{
    bool has_levels = lane_of(relay, delivery_at(relay, number))->lines_up;
    return has_levels ? level_wanted(relay, number) : LEVEL_NORMAL;
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
        lane_unstand(relay, record->blocker);
        lane_stand(relay, record->blocker, level, false);
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
    bool lines_up = lane_of(relay, delivery_at(relay, number))->lines_up;
    uint32_t other = record != NULL || !lines_up ? NOBODY : waiting_find(relay, number);
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
    lane_stand(relay, number, record == NULL ? level : level_of(relay, record, number), is_new);
    lane_change_ready(relay, lane_of(relay, delivery), 1);
}

static void join_line(struct relay *relay, uint32_t number)
{
    const struct recipient *record = record_of(relay, delivery_at(relay, number));
    if (record == NULL ? waiting_find(relay, number) == NOBODY : record->blocker == number) {
        waiting_put(relay, number);
    } else {
        delivery_take_out(relay, number);
        enter(relay, number, false);
    }
}

/* What stands in the lane lines up. Without memory it does not, and nothing in it has priority. */
static void begin_lines(struct relay *relay, struct lane *lane)
{
    uint32_t count = 0;
    uint32_t *numbers = malloc((lane->ready + 1) * sizeof *numbers);
    if (numbers == NULL || !waiting_reserve(relay, relay->delivery_count)) {
        free(numbers);
        return;
    }
    for (uint32_t at = lane->normal.head; at != NOBODY; at = delivery_at(relay, at)->next) {
        numbers[count++] = at;
    }
    for (uint32_t i = 0; i < lane->normal.returned_count; i++) {
        numbers[count++] = lane->normal.returned[i];
    }
    assert(count == lane->ready);
    lane->lines_up = true;
    for (uint32_t i = 0; i < count; i++) {
        if (stands(delivery_at(relay, numbers[i])) &&
            waiting_find(relay, numbers[i]) != numbers[i]) {
            join_line(relay, numbers[i]);
        }
    }
    free(numbers);
}

/* Later than all that stands in a lane which does not line up: it may stand there, too, whoever is
 * before it. */
static bool is_last(const struct relay *relay, const struct lane *lane, uint32_t number)
{
    return !lane->lines_up && lane->ready > 0 && lane->normal.tail != NOBODY &&
           delivery_before(relay, lane->normal.tail, number);
}

static void put(struct relay *relay, uint32_t number, bool is_new)
{
    const struct delivery *delivery = delivery_at(relay, number);
    struct lane *lane = lane_of(relay, delivery);
    if (message_at(relay, delivery->message)->rests) {
        return;
    }
    lane->lines_up = lane->lines_up && lane->ready > 0;
    if (!lane->lines_up && level_wanted(relay, number) != LEVEL_NORMAL) {
        begin_lines(relay, lane);
    }
    if (is_new && is_last(relay, lane, number)) {
        lane_stand(relay, number, LEVEL_NORMAL, true);
        lane_change_ready(relay, lane, 1);
    } else if (delivery->place == PLACE_NOWHERE) { /* else behind an earlier one, as a blocker */
        enter(relay, number, is_new);
    }
}

void lane_append(struct relay *relay, uint32_t number)
{
    put(relay, number, true);
}

void lane_return(struct relay *relay, uint32_t number)
{
    put(relay, number, false);
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
        lane_unstand(relay, number);
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
        lane_change_ready(relay, lane, -1);
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

int64_t order_patience_ms(const struct relay *relay, uint32_t number)
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
    if (delivery_is_withdrawn(relay, blocker)) {
        return NOBODY;
    }
    const struct recipient *record = record_of(relay, delivery_at(relay, blocker));
    bool may = record != NULL && record->blocker == blocker && record->follower == NOBODY &&
               record->head != NOBODY &&
               !message_at(relay, delivery_at(relay, record->head)->message)->rests;
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
    if (delivery_is_withdrawn(relay, number)) {
        return false;
    }
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
