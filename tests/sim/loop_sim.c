/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated twin of sys/loop.h and sys/worker.h: timers, readiness and jobs as events of the world.
 * Nothing is freed at once, because an event on the queue may still name it: what has been freed
 * is marked, and swept when its last event has passed.
 */
#include "sys/loop.h"

#include <assert.h>
#include <stdlib.h>

#include "sim/sim.h"
#include "sys/worker.h"

struct loop {
    struct sim_process *process;
};

/* Anything that events on the queue point to. */
struct target {
    unsigned pending; /* events on the queue */
    bool freed;
};

static void target_release(struct target *target)
{
    if (target->freed && target->pending == 0) {
        free(target);
    }
}

static struct loop_watch *watches;

void sim_loop_begin(void)
{
    watches = NULL; /* those of an earlier world are left behind with it */
}

struct loop *loop_new(void)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (loop != NULL) {
        loop->process = sim_current();
    }
    return loop;
}

void loop_free(struct loop *loop)
{
    free(loop);
}

void loop_run(struct loop *loop)
{
    (void)loop;
    assert(!"the world runs all loops");
}

void loop_stop(struct loop *loop)
{
    (void)loop;
}

void *loop_backend(struct loop *loop)
{
    (void)loop;
    return NULL;
}

/* ---- watches ---- */

struct loop_watch {
    struct target target;
    struct loop_watch *next, **previous;
    struct loop *loop;
    int fd;
    unsigned interest;
    loop_watch_fn *fn;
    void *context;
};

static void watch_fire(void *context);

static void watch_consider(struct loop_watch *watch)
{
    if (watch->target.pending == 0 && !watch->target.freed &&
        (sim_net_readiness(watch->fd) & watch->interest) != 0) {
        watch->target.pending++;
        sim_after(watch->loop->process, (int64_t)sim_draw(20000), watch_fire, watch);
    }
}

static void watch_fire(void *context)
{
    struct loop_watch *watch = context;
    watch->target.pending--;
    if (watch->target.freed) {
        target_release(&watch->target);
        return;
    }
    unsigned ready = sim_net_readiness(watch->fd) & watch->interest;
    if (ready == 0) {
        return;
    }
    watch->target.pending++; /* keeps it across its own handler */
    watch->fn(watch->context, ready);
    watch->target.pending--;
    if (watch->target.freed) {
        target_release(&watch->target);
    } else {
        watch_consider(watch);
    }
}

struct loop_watch *loop_watch_new(struct loop *loop, int fd, loop_watch_fn *fn, void *context)
{
    struct loop_watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) {
        return NULL;
    }
    watch->loop = loop;
    watch->fd = fd;
    watch->fn = fn;
    watch->context = context;
    watch->next = watches;
    watch->previous = &watches;
    if (watches != NULL) {
        watches->previous = &watch->next;
    }
    watches = watch;
    return watch;
}

void loop_watch_set(struct loop_watch *watch, unsigned interest)
{
    watch->interest = interest;
    watch_consider(watch);
}

void loop_watch_free(struct loop_watch *watch)
{
    if (watch == NULL) {
        return;
    }
    *watch->previous = watch->next;
    if (watch->next != NULL) {
        watch->next->previous = watch->previous;
    }
    watch->target.freed = true;
    target_release(&watch->target);
}

void sim_loop_ready(int fd)
{
    for (struct loop_watch *watch = watches; watch != NULL; watch = watch->next) {
        if (watch->fd == fd && sim_process_alive(watch->loop->process)) {
            watch_consider(watch);
        }
    }
}

/* ---- timers ---- */

struct loop_timer {
    struct target target;
    struct loop *loop;
    loop_timer_fn *fn;
    void *context;
    int64_t due_ns; /* of the newest setting; INT64_MAX: none */
};

struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn *fn, void *context)
{
    struct loop_timer *timer = calloc(1, sizeof(*timer));
    if (timer != NULL) {
        *timer =
            (struct loop_timer){.loop = loop, .fn = fn, .context = context, .due_ns = INT64_MAX};
    }
    return timer;
}

static void timer_fire(void *context)
{
    struct loop_timer *timer = context;
    timer->target.pending--;
    if (timer->target.freed) {
        target_release(&timer->target);
        return;
    }
    if (timer->due_ns > sim_now_ns()) {
        return; /* cancelled, or moved: another event is on its way */
    }
    timer->due_ns = INT64_MAX;
    timer->fn(timer->context);
}

static void timer_set_ns(struct loop_timer *timer, int64_t delay_ns)
{
    timer->due_ns = sim_now_ns() + delay_ns;
    timer->target.pending++;
    sim_after(timer->loop->process, delay_ns, timer_fire, timer);
}

void loop_timer_set(struct loop_timer *timer, int64_t delay_ms)
{
    timer_set_ns(timer, (delay_ms < 0 ? 0 : delay_ms) * 1000000);
}

void loop_timer_cancel(struct loop_timer *timer)
{
    timer->due_ns = INT64_MAX;
}

void loop_timer_free(struct loop_timer *timer)
{
    if (timer != NULL) {
        timer->target.freed = true;
        target_release(&timer->target);
    }
}

/* ---- alarms: timers by another name ---- */

struct loop_alarm {
    struct loop_timer timer;
};

struct loop_alarm *loop_alarm_new(struct loop *loop, loop_timer_fn *fn, void *context)
{
    return (struct loop_alarm *)loop_timer_new(loop, fn, context);
}

void loop_alarm_set(struct loop_alarm *alarm, int64_t delay_us)
{
    timer_set_ns(&alarm->timer, delay_us * 1000);
}

void loop_alarm_cancel(struct loop_alarm *alarm)
{
    loop_timer_cancel(&alarm->timer);
}

void loop_alarm_free(struct loop_alarm *alarm)
{
    loop_timer_free((struct loop_timer *)alarm);
}

/* ---- later ---- */

struct loop_later {
    struct target target;
    struct loop *loop;
    loop_timer_fn *fn;
    void *context;
    bool asked;
};

struct loop_later *loop_later_new(struct loop *loop, loop_timer_fn *fn, void *context)
{
    struct loop_later *later = calloc(1, sizeof(*later));
    if (later != NULL) {
        *later = (struct loop_later){.loop = loop, .fn = fn, .context = context};
    }
    return later;
}

static void later_fire(void *context)
{
    struct loop_later *later = context;
    later->target.pending--;
    if (later->target.freed) {
        target_release(&later->target);
        return;
    }
    later->asked = false;
    later->fn(later->context);
}

void loop_later_ask(struct loop_later *later)
{
    if (!later->asked) {
        later->asked = true;
        later->target.pending++;
        sim_after(later->loop->process, (int64_t)sim_draw(2000), later_fire, later);
    }
}

void loop_later_free(struct loop_later *later)
{
    if (later != NULL) {
        later->target.freed = true;
        target_release(&later->target);
    }
}

/* ---- wake ---- */

struct loop_wake {
    struct target target;
    struct loop *loop;
    loop_timer_fn *fn;
    void *context;
    unsigned references;
    bool closed; /* freed by its owner: sends do nothing */
    bool sent;
};

struct loop_wake *loop_wake_new(struct loop *loop, loop_timer_fn *fn, void *context)
{
    struct loop_wake *wake = calloc(1, sizeof(*wake));
    if (wake != NULL) {
        *wake = (struct loop_wake){.loop = loop, .fn = fn, .context = context, .references = 1};
    }
    return wake;
}

static void wake_fire(void *context)
{
    struct loop_wake *wake = context;
    wake->target.pending--;
    wake->sent = false;
    if (!wake->closed) {
        wake->fn(wake->context);
    } else {
        target_release(&wake->target);
    }
}

void loop_wake_send(struct loop_wake *wake)
{
    if (!wake->closed && !wake->sent) {
        wake->sent = true;
        wake->target.pending++;
        sim_after(wake->loop->process, (int64_t)sim_draw(30000), wake_fire, wake);
    }
}

struct loop_wake *loop_wake_ref(struct loop_wake *wake)
{
    wake->references++;
    return wake;
}

void loop_wake_unref(struct loop_wake *wake)
{
    if (wake != NULL && --wake->references == 0) {
        wake->target.freed = true;
        target_release(&wake->target);
    }
}

void loop_wake_free(struct loop_wake *wake)
{
    if (wake != NULL) {
        wake->closed = true;
        loop_wake_unref(wake);
    }
}

/* ---- workers (sys/worker.h) ---- */

struct job {
    struct job *next;
    worker_fn *run;
    worker_fn *done;
    void *job;
};

struct worker {
    struct target target;
    struct loop *loop;
    struct job *first, **last;
    bool busy;
};

struct worker *worker_new(struct loop *loop, const char *name)
{
    (void)name;
    struct worker *worker = calloc(1, sizeof(*worker));
    if (worker != NULL) {
        worker->loop = loop;
        worker->last = &worker->first;
    }
    return worker;
}

/* Two events a job: it runs, and some time later its completion is seen. */
static void worker_run(void *context);

static void worker_next(struct worker *worker)
{
    if (!worker->busy && worker->first != NULL) {
        worker->busy = true;
        worker->target.pending++;
        sim_after(worker->loop->process, (int64_t)(20000 + sim_draw(400000)), worker_run, worker);
    }
}

static void job_finish(struct worker *worker)
{
    struct job *job = worker->first;
    worker->first = job->next;
    if (worker->first == NULL) {
        worker->last = &worker->first;
    }
    worker->busy = false;
    job->done(job->job);
    free(job);
}

static void worker_done(void *context)
{
    struct worker *worker = context;
    worker->target.pending--;
    if (worker->target.freed) {
        target_release(&worker->target);
        return;
    }
    if (!worker->busy) {
        return; /* drained meanwhile */
    }
    worker->target.pending++;
    job_finish(worker);
    worker->target.pending--;
    if (worker->target.freed) {
        target_release(&worker->target);
    } else {
        worker_next(worker);
    }
}

static void worker_run(void *context)
{
    struct worker *worker = context;
    worker->target.pending--;
    if (worker->target.freed) {
        target_release(&worker->target);
        return;
    }
    if (worker->first == NULL || worker->first->run == NULL) {
        return;
    }
    worker_fn *run = worker->first->run;
    worker->first->run = NULL;
    run(worker->first->job);
    worker->target.pending++;
    sim_after(worker->loop->process, (int64_t)(1000 + sim_draw(50000)), worker_done, worker);
}

enum error worker_submit(struct worker *worker, worker_fn *run, worker_fn *done, void *context)
{
    struct job *job = malloc(sizeof(*job));
    if (job == NULL) {
        return ERROR_MEMORY;
    }
    *job = (struct job){NULL, run, done, context};
    *worker->last = job;
    worker->last = &job->next;
    worker_next(worker);
    return ERROR_NONE;
}

void worker_drain(struct worker *worker)
{
    while (worker->first != NULL) {
        if (worker->first->run != NULL) {
            worker_fn *run = worker->first->run;
            worker->first->run = NULL;
            run(worker->first->job);
        }
        worker->busy = true;
        job_finish(worker);
    }
}

void worker_free(struct worker *worker)
{
    if (worker != NULL) {
        worker_drain(worker);
        worker->target.freed = true;
        target_release(&worker->target);
    }
}
