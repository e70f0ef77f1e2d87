/* SPDX-License-Identifier: Apache-2.0
 *
 * The real loop, on libevent's plain events. A watch has one event per direction, so that taking an
 * interest in the other direction is one epoll_ctl(2), not two. Our events live inside our own
 * structures: one allocation each.
 */
/* Before base/list.h: it borrows the name LIST_ENTRY and gives it back. */
#include <event2/event_struct.h>

#include "base/list.h"
#include "sys/loop.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct loop {
    struct event_base *base;
    bool stopped;
    bool running_laters;
    struct link laters;
    struct event later_event;
};

struct loop_watch {
    loop_watch_fn *fn;
    void *context;
    unsigned interest;
    struct event read;
    struct event write;
};

struct loop_timer {
    loop_timer_fn *fn;
    void *context;
    struct event event;
};

struct loop_later {
    struct loop *loop;
    loop_timer_fn *fn;
    void *context;
    struct link link; /* in loop->laters while asked for */
};

struct loop_wake {
    atomic_uint references;
    int fd; /* eventfd, open as long as there are references */
    loop_timer_fn *fn;
    void *context;
    struct event event;
};

/* ---- the loop ---------------------------------------------------------------------------- */

static void run_laters(evutil_socket_t fd, short what, void *context);

struct loop *loop_new(void)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (loop == NULL) {
        return NULL;
    }
    struct event_config *config = event_config_new();
    if (config != NULL) {
        /* Other threads reach a loop only through an eventfd. */
        (void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
        (void)event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
        loop->base = event_base_new_with_config(config);
        event_config_free(config);
    }
    if (loop->base == NULL) {
        free(loop);
        return NULL;
    }
    list_init(&loop->laters);
    (void)event_assign(&loop->later_event, loop->base, -1, 0, run_laters, loop);
    return loop;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL) {
        return;
    }
    assert(list_is_empty(&loop->laters));
    event_del(&loop->later_event);
    event_base_free(loop->base);
    free(loop);
}

void loop_run(struct loop *loop)
{
    while (!loop->stopped) {
        int result = event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
        assert(result != -1);
    }
    loop->stopped = false;
}

void loop_stop(struct loop *loop)
{
    loop->stopped = true;
    event_base_loopbreak(loop->base);
}

void *loop_backend(struct loop *loop)
{
    return loop->base;
}

/* ---- watches ----------------------------------------------------------------------------- */

static void watch_ready(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    struct loop_watch *watch = context;
    watch->fn(watch->context, (what & EV_READ) != 0 ? LOOP_READ : LOOP_WRITE);
}

struct loop_watch *loop_watch_new(struct loop *loop, int fd, loop_watch_fn *fn, void *context)
{
    struct loop_watch *watch = malloc(sizeof(*watch));
    if (watch == NULL) {
        return NULL;
    }
    watch->fn = fn;
    watch->context = context;
    watch->interest = 0;
    (void)event_assign(&watch->read, loop->base, fd, EV_READ | EV_PERSIST, watch_ready, watch);
    (void)event_assign(&watch->write, loop->base, fd, EV_WRITE | EV_PERSIST, watch_ready, watch);
    return watch;
}

static void event_want(struct event *event, bool wanted)
{
    if (wanted) {
        /* The kernel refuses only what is no pollable descriptor. */
        int result = event_add(event, NULL);
        assert(result == 0);
    } else {
        event_del(event);
    }
}

void loop_watch_set(struct loop_watch *watch, unsigned interest)
{
    unsigned changed = watch->interest ^ interest;
    watch->interest = interest;
    if ((changed & LOOP_READ) != 0) {
        event_want(&watch->read, (interest & LOOP_READ) != 0);
    }
    if ((changed & LOOP_WRITE) != 0) {
        event_want(&watch->write, (interest & LOOP_WRITE) != 0);
    }
}

void loop_watch_free(struct loop_watch *watch)
{
    if (watch != NULL) {
        loop_watch_set(watch, 0);
        free(watch);
    }
}

/* ---- timers ------------------------------------------------------------------------------ */

static void timer_due(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct loop_timer *timer = context;
    timer->fn(timer->context);
}

struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn *fn, void *context)
{
    struct loop_timer *timer = malloc(sizeof(*timer));
    if (timer == NULL) {
        return NULL;
    }
    timer->fn = fn;
    timer->context = context;
    (void)event_assign(&timer->event, loop->base, -1, 0, timer_due, timer);
    return timer;
}

void loop_timer_set(struct loop_timer *timer, int64_t delay_ms)
{
    if (delay_ms < 0) {
        delay_ms = 0;
    }
    /* Counted from the start of this turn, so it may fire some ms early by clock_steady_ms(): who
     * compares finds nothing due and asks for the rest. */
    struct timeval delay = {.tv_sec = delay_ms / 1000, .tv_usec = (delay_ms % 1000) * 1000};
    int result = event_add(&timer->event, &delay);
    assert(result == 0);
}

void loop_timer_cancel(struct loop_timer *timer)
{
    event_del(&timer->event);
}

void loop_timer_free(struct loop_timer *timer)
{
    if (timer != NULL) {
        event_del(&timer->event);
        free(timer);
    }
}

/* ---- later ------------------------------------------------------------------------------- */

static void run_laters(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct loop *loop = context;
    /* What is asked for from here on waits behind this mark for the next turn. */
    struct link mark;
    list_append(&loop->laters, &mark);
    loop->running_laters = true;
    while (loop->laters.next != &mark) {
        struct loop_later *later = LIST_ENTRY(loop->laters.next, struct loop_later, link);
        list_remove(&later->link);
        later->fn(later->context);
    }
    loop->running_laters = false;
    list_remove(&mark);
    if (!list_is_empty(&loop->laters)) {
        (void)event_add(&loop->later_event, &(struct timeval){0, 0});
    }
}

struct loop_later *loop_later_new(struct loop *loop, loop_timer_fn *fn, void *context)
{
    struct loop_later *later = malloc(sizeof(*later));
    if (later == NULL) {
        return NULL;
    }
    later->loop = loop;
    later->fn = fn;
    later->context = context;
    list_init(&later->link);
    return later;
}

void loop_later_ask(struct loop_later *later)
{
    struct loop *loop = later->loop;
    if (!list_is_empty(&later->link)) {
        return;
    }
    bool first = list_is_empty(&loop->laters);
    list_append(&loop->laters, &later->link);
    if (first && !loop->running_laters) {
        /* Goes to the end of this turn's active events. */
        event_active(&loop->later_event, EV_TIMEOUT, 0);
    }
}

void loop_later_free(struct loop_later *later)
{
    if (later != NULL) {
        list_remove(&later->link);
        free(later);
    }
}

/* ---- alarms ------------------------------------------------------------------------------ */

struct loop_alarm {
    int fd; /* timerfd */
    loop_timer_fn *fn;
    void *context;
    struct event event;
};

static void alarm_due(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    struct loop_alarm *alarm = context;
    uint64_t count;
    /* Nothing to read: it was moved or cancelled after it had fired. */
    if (read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count)) {
        alarm->fn(alarm->context);
    }
}

struct loop_alarm *loop_alarm_new(struct loop *loop, loop_timer_fn *fn, void *context)
{
    struct loop_alarm *alarm = malloc(sizeof(*alarm));
    if (alarm == NULL) {
        return NULL;
    }
    alarm->fn = fn;
    alarm->context = context;
    alarm->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (alarm->fd < 0) {
        free(alarm);
        return NULL;
    }
    (void)event_assign(&alarm->event, loop->base, alarm->fd, EV_READ | EV_PERSIST, alarm_due,
                       alarm);
    event_want(&alarm->event, true);
    return alarm;
}

static void alarm_arm(struct loop_alarm *alarm, int64_t delay_us)
{
    struct itimerspec when = {
        .it_value = {.tv_sec = delay_us / 1000000, .tv_nsec = delay_us % 1000000 * 1000}};
    int result = timerfd_settime(alarm->fd, 0, &when, NULL);
    assert(result == 0);
}

void loop_alarm_set(struct loop_alarm *alarm, int64_t delay_us)
{
    assert(delay_us > 0);
    alarm_arm(alarm, delay_us);
}

void loop_alarm_cancel(struct loop_alarm *alarm)
{
    alarm_arm(alarm, 0);
}

void loop_alarm_free(struct loop_alarm *alarm)
{
    if (alarm != NULL) {
        event_del(&alarm->event);
        close(alarm->fd);
        free(alarm);
    }
}

/* ---- wake -------------------------------------------------------------------------------- */

static void wake_ready(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    struct loop_wake *wake = context;
    uint64_t count;
    ssize_t length = read(fd, &count, sizeof(count));
    assert(length == (ssize_t)sizeof(count) || errno == EAGAIN || errno == EINTR);
    wake->fn(wake->context);
}

struct loop_wake *loop_wake_new(struct loop *loop, loop_timer_fn *fn, void *context)
{
    struct loop_wake *wake = malloc(sizeof(*wake));
    if (wake == NULL) {
        return NULL;
    }
    atomic_init(&wake->references, 1);
    wake->fn = fn;
    wake->context = context;
    wake->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake->fd < 0) {
        free(wake);
        return NULL;
    }
    (void)event_assign(&wake->event, loop->base, wake->fd, EV_READ | EV_PERSIST, wake_ready, wake);
    event_want(&wake->event, true);
    return wake;
}

void loop_wake_free(struct loop_wake *wake)
{
    if (wake != NULL) {
        event_del(&wake->event);
        loop_wake_unref(wake);
    }
}

void loop_wake_send(struct loop_wake *wake)
{
    uint64_t one = 1;
    /* EAGAIN: 2^64 sends are waiting; it will wake. */
    ssize_t length = write(wake->fd, &one, sizeof(one));
    assert(length == (ssize_t)sizeof(one) || errno == EAGAIN || errno == EINTR);
}

struct loop_wake *loop_wake_ref(struct loop_wake *wake)
{
    atomic_fetch_add_explicit(&wake->references, 1, memory_order_relaxed);
    return wake;
}

void loop_wake_unref(struct loop_wake *wake)
{
    if (wake != NULL &&
        atomic_fetch_sub_explicit(&wake->references, 1, memory_order_acq_rel) == 1) {
        close(wake->fd);
        free(wake);
    }
}
