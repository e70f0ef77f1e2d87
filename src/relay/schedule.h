/* SPDX-License-Identifier: Apache-2.0
 *
 * What is due when: a binary heap over deliveries that wait for a time, recipients whose patience
 * runs, servers and destinations. 16 bytes an entry; each thing knows its place in the heap, so it
 * can be taken out again. In large pieces, so that room which is only kept free is never copied and
 * stays address space.
 */
#ifndef HOLDFAST_RELAY_SCHEDULE_H
#define HOLDFAST_RELAY_SCHEDULE_H

#include <stdint.h>

#include "base/error.h"

#define SCHEDULE_NOWHERE UINT32_MAX

enum { SCHEDULE_PIECE_SHIFT = 16 }; /* a piece is 1 MB */

enum timer_kind {
    TIMER_DELIVERY,
    TIMER_RECIPIENT,
    TIMER_SERVER,
    TIMER_DESTINATION,
    TIMER_DELIVER_BY, /* of a message */
    TIMER_SWEEP,      /* of destinations and exchangers that nobody needs any more */
};

struct timer {
    int64_t due_ms; /* steady */
    uint32_t kind;  /* enum timer_kind */
    uint32_t index;
};

struct schedule {
    struct timer **pieces;
    uint32_t count;
    uint32_t room;
    /* Told whenever a timer's place changes; SCHEDULE_NOWHERE when it has left. */
    void (*moved)(void *context, const struct timer *timer, uint32_t place);
    void *context;
};

void schedule_init(struct schedule *schedule,
                   void (*moved)(void *context, const struct timer *timer, uint32_t place),
                   void *context);
void schedule_done(struct schedule *schedule);
/* Room for `count` timers in all, so that schedule_add() cannot fail. Costs address space only. */
enum error schedule_reserve(struct schedule *schedule, uint32_t count) MUST_CHECK;
/* Room must have been reserved. */
void schedule_add(struct schedule *schedule, struct timer timer);
void schedule_remove(struct schedule *schedule, uint32_t place);
void schedule_change(struct schedule *schedule, uint32_t place, int64_t due_ms);
/* After due times were changed in place (the one exception): makes it a heap again. */
void schedule_restore(struct schedule *schedule);
int64_t schedule_next(const struct schedule *schedule); /* INT64_MAX: empty */

static inline struct timer *schedule_at(const struct schedule *schedule, uint32_t place)
{
    uint32_t within = place & ((1u << SCHEDULE_PIECE_SHIFT) - 1);
    return &schedule->pieces[place >> SCHEDULE_PIECE_SHIFT][within];
}

#endif
