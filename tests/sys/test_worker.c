/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sys/worker.h"

#include <unistd.h>

enum { JOBS = 2000 };

struct job {
    struct run *run;
    int number;
    int result;
};

struct run {
    struct loop *loop;
    struct worker *worker;
    int next_to_complete;
    int submitted;
    struct job jobs[JOBS];
};

static void work(void *context)
{
    struct job *job = context;
    job->result = job->number * 3;
}

static void submit_next(struct run *run);

static void completed(void *context)
{
    struct job *job = context;
    struct run *run = job->run;
    assert_int_equal(job->number, run->next_to_complete);
    assert_int_equal(job->result, job->number * 3);
    run->next_to_complete++;
    submit_next(run);
    if (run->next_to_complete == JOBS) {
        loop_stop(run->loop);
    }
}

static void submit_next(struct run *run)
{
    if (run->submitted < JOBS) {
        struct job *job = &run->jobs[run->submitted];
        *job = (struct job){.run = run, .number = run->submitted};
        run->submitted++;
        assert_int_equal(worker_submit(run->worker, work, completed, job), ERROR_NONE);
    }
}

static struct run *run_new(void)
{
    struct run *run = test_calloc(1, sizeof(*run));
    run->loop = loop_new();
    run->worker = worker_new(run->loop, "test-worker");
    assert_non_null(run->worker);
    return run;
}

static void run_free(struct run *run)
{
    worker_free(run->worker);
    loop_free(run->loop);
    test_free(run);
}

static void completions_come_on_the_loop_in_order(void **state)
{
    (void)state;
    struct run *run = run_new();
    for (int i = 0; i < 10; i++) {
        submit_next(run);
    }
    loop_run(run->loop);
    assert_int_equal(run->next_to_complete, JOBS);
    run_free(run);
}

static void nothing_completes_outside_the_loop(void **state)
{
    (void)state;
    struct run *run = run_new();
    run->submitted = JOBS - 1;
    run->next_to_complete = JOBS - 1;
    submit_next(run);
    usleep(5000);
    assert_int_equal(run->next_to_complete, JOBS - 1);
    worker_drain(run->worker);
    assert_int_equal(run->next_to_complete, JOBS);
    worker_drain(run->worker);
    run_free(run);
}

static void freeing_delivers_what_was_given(void **state)
{
    (void)state;
    struct run *run = run_new();
    for (int i = 0; i < 5; i++) {
        submit_next(run);
    }
    worker_free(run->worker);
    run->worker = NULL;
    /* Completions gave further jobs; all of them are complete. */
    assert_int_equal(run->next_to_complete, JOBS);
    run_free(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completions_come_on_the_loop_in_order),
        cmocka_unit_test(nothing_completes_outside_the_loop),
        cmocka_unit_test(freeing_delivers_what_was_given),
    };
    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
