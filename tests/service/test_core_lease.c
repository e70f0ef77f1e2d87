/* SPDX-License-Identifier: Apache-2.0
 *
 * A node of a cluster whose lease has no time left says GO to nobody, wherever a job stands then;
 * what has waited goes on when it has again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core_bench.h"
#include "service/core_out.h"

static void begin(struct bench *bench)
{
    bench->answers = false;
    bench_attach_out(bench, true, true);
    bench_until_up(bench);
}

static void check_no_go(struct bench *bench, uint32_t gone)
{
    bench_run_ms(bench, 100);
    assert_int_equal(bench->gone, gone);
    assert_int_equal(bench->closed, 0);
}

static void what_is_about_to_send_its_dot_waits(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    bench->readies = false;
    bench_send(bench, 1, false);
    bench_until(bench, &bench->delivered, 1);
    core_job_lease(bench->core, false);
    bench_ready(bench);
    check_no_go(bench, 0);
    core_job_lease(bench->core, true);
    bench_until(bench, &bench->gone, 1);
    bench_result(bench, RELAY_ACCEPTED, 250);
    bench_until(bench, &bench->durable, 1);
}

static void what_comes_meanwhile_waits(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    core_job_lease(bench->core, false);
    bench_send(bench, 1, false);
    check_no_go(bench, 0);
    assert_int_equal(bench->delivered, 0);
    core_job_lease(bench->core, true);
    bench_until(bench, &bench->gone, 1);
}

/* Its attempt is on the way into the journal. */
static void a_note_that_is_written_meanwhile_lets_nothing_go(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    bench->readies = false;
    bench_send(bench, 1, false);
    bench_until(bench, &bench->delivered, 1);
    core_job_ask(bench->core, map_get(&bench->core->jobs, bench->job));
    assert_int_equal(bench->core->notes_pending, 1);
    core_job_lease(bench->core, false);
    check_no_go(bench, 0);
    assert_int_equal(bench->core->notes_pending, 0);
    core_job_lease(bench->core, true);
    bench_until(bench, &bench->gone, 1);
    bench_result(bench, RELAY_ACCEPTED, 250);
    bench_until(bench, &bench->durable, 1);
}

/* It has had its GO, and asks again for it, since its ring is a new one. */
static void what_asks_again_waits(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    bench_send(bench, 1, false);
    bench_until(bench, &bench->gone, 1);
    core_job_lease(bench->core, false);
    bench_ready(bench);
    check_no_go(bench, 1);
    core_job_lease(bench->core, true);
    bench_until(bench, &bench->gone, 2);
    bench_result(bench, RELAY_ACCEPTED, 250);
    bench_until(bench, &bench->durable, 1);
}

/* What was left has no dot, whenever the lease comes back. */
static void what_was_left_meanwhile_is_closed(void **state)
{
    struct bench *bench = *state;
    begin(bench);
    bench->readies = false;
    bench_send(bench, 1, false);
    bench_until(bench, &bench->delivered, 1);
    core_job_lease(bench->core, false);
    bench_ready(bench);
    check_no_go(bench, 0);
    const struct job *job = map_get(&bench->core->jobs, bench->job);
    assert_non_null(job);
    relay_leave(bench->core->relay, job->handle, core_now(bench->core));
    core_job_lease(bench->core, true);
    bench_until(bench, &bench->closed, 1);
    bench_run_ms(bench, 100);
    assert_int_equal(bench->gone, 0);
    assert_int_equal(bench->durable, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_about_to_send_its_dot_waits, bench_set_up_memory,
                                        bench_tear_down),
        cmocka_unit_test_setup_teardown(what_comes_meanwhile_waits, bench_set_up_memory,
                                        bench_tear_down),
        cmocka_unit_test_setup_teardown(a_note_that_is_written_meanwhile_lets_nothing_go,
                                        bench_set_up_memory, bench_tear_down),
        cmocka_unit_test_setup_teardown(what_asks_again_waits, bench_set_up_memory,
                                        bench_tear_down),
        cmocka_unit_test_setup_teardown(what_was_left_meanwhile_is_closed, bench_set_up_memory,
                                        bench_tear_down),
    };
    return cmocka_run_group_tests_name("core_lease", tests, NULL, NULL);
}
