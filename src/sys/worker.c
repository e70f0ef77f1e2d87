/* SPDX-License-Identifier: Apache-2.0
 *
 * The real worker: a thread, two queues under one lock, and a wake of the loop.
 */
#include "sys/worker.h"

#include "base/list.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct worker_task {
    struct link link;
    worker_fn *run;
    worker_fn *done;
    void *job;
};

struct worker {
    struct loop_wake *wake;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a task to run, one complete, or the end */
    struct link to_run;
    struct link complete;
    uint64_t completed; /* by the thread; counted to know when a drain is over */
    bool ending;
    char name[16];      /* the kernel takes no longer one */
    uint64_t submitted; /* this and `delivered` are the loop's */
    uint64_t delivered;
};

static void *worker_main(void *context)
{
    struct worker *worker = context;
    /* For people who look at the threads; by the thread itself, which needs no file in /proc. */
    (void)pthread_setname_np(pthread_self(), worker->name);
    pthread_mutex_lock(&worker->lock);
    for (;;) {
        while (list_is_empty(&worker->to_run) && !worker->ending) {
            pthread_cond_wait(&worker->changed, &worker->lock);
        }
        if (list_is_empty(&worker->to_run)) {
            break;
        }
        struct worker_task *task = LIST_ENTRY(worker->to_run.next, struct worker_task, link);
        list_remove(&task->link);
        pthread_mutex_unlock(&worker->lock);
        task->run(task->job);
        pthread_mutex_lock(&worker->lock);
        bool was_empty = list_is_empty(&worker->complete);
        list_append(&worker->complete, &task->link);
        worker->completed++;
        pthread_cond_broadcast(&worker->changed);
        if (was_empty) {
            loop_wake_send(worker->wake);
        }
    }
    pthread_mutex_unlock(&worker->lock);
    return NULL;
}

/* Takes one at a time, so that a completion may itself drain. */
static bool deliver_one(struct worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    struct worker_task *task = NULL;
    if (!list_is_empty(&worker->complete)) {
        task = LIST_ENTRY(worker->complete.next, struct worker_task, link);
        list_remove(&task->link);
    }
    pthread_mutex_unlock(&worker->lock);
    if (task == NULL) {
        return false;
    }
    worker->delivered++;
    worker_fn *done = task->done;
    void *job = task->job;
    free(task);
    done(job);
    return true;
}

static void deliver_waiting(void *context)
{
    struct worker *worker = context;
    /* A completion submits the next job, whose own completion may be there before we look again:
     * other handlers of the loop have their turn in between. */
    pthread_mutex_lock(&worker->lock);
    uint64_t until = worker->completed;
    pthread_mutex_unlock(&worker->lock);
    while (worker->delivered < until && deliver_one(worker)) {
    }
    pthread_mutex_lock(&worker->lock);
    bool more = !list_is_empty(&worker->complete);
    pthread_mutex_unlock(&worker->lock);
    if (more) {
        loop_wake_send(worker->wake);
    }
}

/* Signals belong to the loop's thread. */
static int start_thread(struct worker *worker)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&worker->thread, NULL, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

struct worker *worker_new(struct loop *loop, const char *name)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL) {
        return NULL;
    }
    snprintf(worker->name, sizeof(worker->name), "%s", name);
    list_init(&worker->to_run);
    list_init(&worker->complete);
    pthread_mutex_init(&worker->lock, NULL);
    pthread_cond_init(&worker->changed, NULL);
    worker->wake = loop_wake_new(loop, deliver_waiting, worker);
    if (worker->wake == NULL || start_thread(worker) != 0) {
        loop_wake_free(worker->wake);
        pthread_cond_destroy(&worker->changed);
        pthread_mutex_destroy(&worker->lock);
        free(worker);
        return NULL;
    }
    return worker;
}

enum error worker_submit(struct worker *worker, worker_fn *run, worker_fn *done, void *job)
{
    struct worker_task *task = malloc(sizeof(*task));
    if (task == NULL) {
        return ERROR_MEMORY;
    }
    task->run = run;
    task->done = done;
    task->job = job;
    worker->submitted++;
    pthread_mutex_lock(&worker->lock);
    list_append(&worker->to_run, &task->link);
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->lock);
    return ERROR_NONE;
}

void worker_drain(struct worker *worker)
{
    uint64_t until = worker->submitted;
    while (worker->delivered < until) {
        pthread_mutex_lock(&worker->lock);
        while (list_is_empty(&worker->complete)) {
            pthread_cond_wait(&worker->changed, &worker->lock);
        }
        pthread_mutex_unlock(&worker->lock);
        (void)deliver_one(worker);
    }
}

void worker_free(struct worker *worker)
{
    if (worker == NULL) {
        return;
    }
    while (worker->delivered < worker->submitted) {
        worker_drain(worker);
    }
    pthread_mutex_lock(&worker->lock);
    worker->ending = true;
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->lock);
    pthread_join(worker->thread, NULL);
    loop_wake_free(worker->wake);
    pthread_cond_destroy(&worker->changed);
    pthread_mutex_destroy(&worker->lock);
    free(worker);
}
