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
    free(schedule->heap);
    *schedule = (struct schedule){0};
}

enum error schedule_reserve(struct schedule *schedule, uint32_t count)
{
    if (count <= schedule->room) {
        return ERROR_NONE;
    }
    uint32_t room = schedule->room == 0 ? 256 : schedule->room;
    while (room < count) {
        room = room > UINT32_MAX / 2 ? UINT32_MAX : room * 2;
    }
    struct timer *heap = realloc(schedule->heap, (size_t)room * sizeof *heap);
    if (heap == NULL) {
        return ERROR_MEMORY;
    }
    schedule->heap = heap;
    schedule->room = room;
    return ERROR_NONE;
}

static void put(struct schedule *schedule, uint32_t place, struct timer timer)
{
    schedule->heap[place] = timer;
    schedule->moved(schedule->context, &timer, place);
}

static void sift_up(struct schedule *schedule, uint32_t place)
{
    struct timer timer = schedule->heap[place];
    while (place > 0 && timer.due_ms < schedule->heap[(place - 1) / 2].due_ms) {
        put(schedule, place, schedule->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    put(schedule, place, timer);
}

static void sift_down(struct schedule *schedule, uint32_t place)
{
    struct timer timer = schedule->heap[place];
    for (;;) {
        uint64_t child = (uint64_t)place * 2 + 1;
        if (child + 1 < schedule->count &&
            schedule->heap[child + 1].due_ms < schedule->heap[child].due_ms) {
            child++;
        }
        if (child >= schedule->count || timer.due_ms <= schedule->heap[child].due_ms) {
            break;
        }
        put(schedule, place, schedule->heap[child]);
        place = (uint32_t)child;
    }
    put(schedule, place, timer);
}

void schedule_add(struct schedule *schedule, struct timer timer)
{
    assert(schedule->count < schedule->room);
    schedule->heap[schedule->count] = timer;
    sift_up(schedule, schedule->count++);
}

void schedule_remove(struct schedule *schedule, uint32_t place)
{
    assert(place < schedule->count);
    struct timer gone = schedule->heap[place];
    struct timer last = schedule->heap[--schedule->count];
    if (place < schedule->count) {
        schedule->heap[place] = last;
        sift_down(schedule, place);
        sift_up(schedule, place);
    }
    schedule->moved(schedule->context, &gone, SCHEDULE_NOWHERE);
}

void schedule_change(struct schedule *schedule, uint32_t place, int64_t due_ms)
{
    assert(place < schedule->count);
    schedule->heap[place].due_ms = due_ms;
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
    return schedule->count == 0 ? INT64_MAX : schedule->heap[0].due_ms;
}
