/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/schedule.h"

#include <assert.h>
#include <stdlib.h>

void schedule_init(struct schedule *schedule,
                   void (*moved)(void *context, const struct timer *timer, uint32_t place),
                   void *context)
{
    *schedule = (struct schedule){.moved = moved, .context = context};
}

void schedule_done(struct schedule *schedule)
{
    for (uint32_t i = 0; i < schedule->room >> SCHEDULE_PIECE_SHIFT; i++) {
        free(schedule->pieces[i]);
    }
    free(schedule->pieces);
    *schedule = (struct schedule){0};
}

enum error schedule_reserve(struct schedule *schedule, uint32_t count)
{
    enum { PIECE = 1 << SCHEDULE_PIECE_SHIFT };
    if (count > UINT32_MAX - PIECE) {
        return ERROR_MEMORY;
    }
    while (schedule->room < count) {
        uint32_t made = schedule->room >> SCHEDULE_PIECE_SHIFT;
        struct timer **pieces = realloc(schedule->pieces, (made + 1) * sizeof *pieces);
        if (pieces == NULL) {
            return ERROR_MEMORY;
        }
        schedule->pieces = pieces;
        pieces[made] = malloc(PIECE * sizeof *pieces[made]);
        if (pieces[made] == NULL) {
            return ERROR_MEMORY;
        }
        schedule->room += PIECE;
    }
    return ERROR_NONE;
}

static void put(struct schedule *schedule, uint32_t place, struct timer timer)
{
    *schedule_at(schedule, place) = timer;
    schedule->moved(schedule->context, &timer, place);
}

static void sift_up(struct schedule *schedule, uint32_t place)
{
    struct timer timer = *schedule_at(schedule, place);
    while (place > 0 && timer.due_ms < schedule_at(schedule, (place - 1) / 2)->due_ms) {
        put(schedule, place, *schedule_at(schedule, (place - 1) / 2));
        place = (place - 1) / 2;
    }
    put(schedule, place, timer);
}

static void sift_down(struct schedule *schedule, uint32_t place)
{
    struct timer timer = *schedule_at(schedule, place);
    for (;;) {
        uint64_t child = (uint64_t)place * 2 + 1;
        if (child + 1 < schedule->count &&
            schedule_at(schedule, child + 1)->due_ms < schedule_at(schedule, child)->due_ms) {
            child++;
        }
        if (child >= schedule->count || timer.due_ms <= schedule_at(schedule, child)->due_ms) {
            break;
        }
        put(schedule, place, *schedule_at(schedule, child));
        place = (uint32_t)child;
    }
    put(schedule, place, timer);
}

void schedule_add(struct schedule *schedule, struct timer timer)
{
    assert(schedule->count < schedule->room);
    *schedule_at(schedule, schedule->count) = timer;
    sift_up(schedule, schedule->count++);
}

void schedule_remove(struct schedule *schedule, uint32_t place)
{
    assert(place < schedule->count);
    struct timer gone = *schedule_at(schedule, place);
    struct timer last = *schedule_at(schedule, --schedule->count);
    if (place < schedule->count) {
        *schedule_at(schedule, place) = last;
        sift_down(schedule, place);
        sift_up(schedule, place);
    }
    schedule->moved(schedule->context, &gone, SCHEDULE_NOWHERE);
}

void schedule_change(struct schedule *schedule, uint32_t place, int64_t due_ms)
{
    assert(place < schedule->count);
    schedule_at(schedule, place)->due_ms = due_ms;
    sift_down(schedule, place);
    sift_up(schedule, place);
}

void schedule_restore(struct schedule *schedule)
{
    for (uint32_t place = schedule->count / 2; place > 0; place--) {
        sift_down(schedule, place - 1);
    }
}

int64_t schedule_next(const struct schedule *schedule)
{
    return schedule->count == 0 ? INT64_MAX : schedule_at(schedule, 0)->due_ms;
}
