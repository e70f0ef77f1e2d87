/* SPDX-License-Identifier: Apache-2.0
 *
 * The event loop: readiness of descriptors, timers, and a wake-up from other threads or processes.
 * One loop per thread; nothing here may be called from another thread except what says so.
 * Real: libevent (loop.c). Simulated twin: tests/sim/loop_sim.c, where a descriptor is a number of
 * the simulated net and time jumps from event to event.
 *
 * A handler may free its own watch or timer, or any other.
 */
#ifndef HOLDFAST_SYS_LOOP_H
#define HOLDFAST_SYS_LOOP_H

#include "base/error.h"

#include <stdint.h>

struct loop;
struct loop_watch;
struct loop_timer;

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

typedef void loop_watch_fn(void *context, unsigned ready);
typedef void loop_timer_fn(void *context);

struct loop *loop_new(void); /* NULL when the kernel refuses */
void loop_free(struct loop *loop);
/* Until loop_stop(), which may have come before. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* The struct event_base of the real loop, for evhttp, libunbound and libcurl; NULL in simulation.
 */
void *loop_backend(struct loop *loop);

/* A level-triggered watch; starts with no interest. Does not own the descriptor. NULL: memory. */
struct loop_watch *loop_watch_new(struct loop *loop, int fd, loop_watch_fn *fn, void *context);
void loop_watch_set(struct loop_watch *watch, unsigned interest);
void loop_watch_free(struct loop_watch *watch); /* NULL is allowed */

/* A one-shot timer on the steady clock; setting it again moves it. */
struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn *fn, void *context);
void loop_timer_set(struct loop_timer *timer, int64_t delay_ms);
void loop_timer_cancel(struct loop_timer *timer);
void loop_timer_free(struct loop_timer *timer); /* NULL is allowed */

/* Runs fn once after the handlers of this turn: to batch work that many handlers ask for. Asked for
 * while such functions run, it runs in the next turn. */
struct loop_later;
struct loop_later *loop_later_new(struct loop *loop, loop_timer_fn *fn, void *context);
void loop_later_ask(struct loop_later *later);  /* idempotent until it has run */
void loop_later_free(struct loop_later *later); /* NULL is allowed */

/* A one-shot timer for waits far below a millisecond, which loop_timer rounds up. Costs two system
 * calls more than that. Setting it again moves it. */
struct loop_alarm;
struct loop_alarm *loop_alarm_new(struct loop *loop, loop_timer_fn *fn, void *context);
void loop_alarm_set(struct loop_alarm *alarm, int64_t delay_us); /* > 0 */
void loop_alarm_cancel(struct loop_alarm *alarm);
void loop_alarm_free(struct loop_alarm *alarm); /* NULL is allowed */

/* Runs fn on the loop after somebody has sent, once for one or many sends. Made and freed on the
 * loop's thread; a sender on another thread keeps a reference of its own, so that the two sides may
 * go in any order. Sending after the free does nothing. */
struct loop_wake;
struct loop_wake *loop_wake_new(struct loop *loop, loop_timer_fn *fn, void *context);
void loop_wake_free(struct loop_wake *wake); /* NULL is allowed */
/* Any thread: */
void loop_wake_send(struct loop_wake *wake);
struct loop_wake *loop_wake_ref(struct loop_wake *wake);
void loop_wake_unref(struct loop_wake *wake); /* NULL is allowed */

#endif
