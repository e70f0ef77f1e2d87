/* SPDX-License-Identifier: Apache-2.0
 *
 * core when its disk fails: every kind of failure refuses mail and nothing else, is told by status,
 * an alert and the log, and ends by itself.
 */
#include "core_bench.h"

#include "service/events_internal.h"
#include "sys/clock.h"
#include "sys/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the log, gathered in a file ------------------------------------------------------------- */

static int saved_stderr = -1;
static FILE *log_file;

static int set_up(void **state)
{
    saved_stderr = dup(STDERR_FILENO);
    log_file = tmpfile();
    assert_non_null(log_file);
    assert_true(dup2(fileno(log_file), STDERR_FILENO) >= 0);
    assert_int_equal(log_open(LOG_TO_STDERR, LOG_LEVEL_INFO, "core"), ERROR_NONE);
    return bench_set_up_disk(state);
}

static int tear_down(void **state)
{
    int result = bench_tear_down(state);
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    fclose(log_file);
    return result;
}

/* Lines of the log that hold both words. */
static int logged(const char *event, const char *about)
{
    char line[5000];
    int count = 0;
    rewind(log_file);
    while (fgets(line, sizeof(line), log_file) != NULL) {
        count += strstr(line, event) != NULL && strstr(line, about) != NULL;
    }
    (void)fseek(log_file, 0, SEEK_END);
    return count;
}

/* ---- status ---------------------------------------------------------------------------------- */

static const json_t *status(struct bench *bench)
{
    assert_int_equal(bench_ask(bench, "status", "{}"), 0);
    return json_array_get(bench->rows, 0);
}

/* The text of the alert that begins so, or NULL. */
static const char *alerted(struct bench *bench, const char *text)
{
    const json_t *alerts = json_object_get(status(bench), "alerts");
    for (size_t i = 0; i < json_array_size(alerts); i++) {
        const char *have = json_string_value(json_object_get(json_array_get(alerts, i), "text"));
        if (strncmp(have, text, strlen(text)) == 0) {
            return have;
        }
    }
    return NULL;
}

static void until_accepting(struct bench *bench, bool accepting)
{
    for (int i = 0; i < 1000 && (bench->accepting == ERROR_NONE) != accepting; i++) {
        bench_run_ms(bench, 10);
    }
    assert_int_equal(bench->accepting == ERROR_NONE, accepting);
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void fails_and_recovers(struct bench *bench, enum bench_fault fault)
{
    bench_attach_out(bench, true, true);
    bench_send(bench, 1, false);
    bench_until(bench, &bench->durable, 1);
    assert_true(json_is_true(json_object_get(status(bench), "accepting")));

    bench->fault = fault;
    for (uint32_t tries = 1; tries <= 3; tries++) { /* none of them is ever promised */
        bench_send(bench, 1, false);
        bench_until(bench, &bench->stored, 1 + tries);
        assert_int_not_equal(bench->stored_error[tries], ERROR_NONE);
    }
    until_accepting(bench, false);
    assert_true(json_is_false(json_object_get(status(bench), "accepting")));
    assert_non_null(json_string_value(json_object_get(status(bench), "accepting_reason")));
    assert_non_null(alerted(bench, "no mail is accepted: "));
    assert_int_equal(logged(" alert ", "kind=storage"), 1);
    assert_int_equal(logged(" alert-over ", "kind=storage"), 0);

    bench->fault = BENCH_GOOD;
    until_accepting(bench, true);
    assert_true(json_is_true(json_object_get(status(bench), "accepting")));
    assert_null(alerted(bench, "no mail is accepted: "));
    assert_int_equal(logged(" alert-over ", "kind=storage"), 1);
    bench_send(bench, 1, false);
    bench_until(bench, &bench->stored, 5);
    assert_int_equal(bench->stored_error[4], ERROR_NONE);
    bench_until(bench, &bench->durable, 2);
    assert_int_equal(bench->delivered, 2); /* what was refused is nowhere */
}

static void a_write_that_fails(void **state)
{
    fails_and_recovers(*state, BENCH_NO_WRITE);
}

static void a_sync_that_fails(void **state)
{
    fails_and_recovers(*state, BENCH_NO_SYNC);
}

static void a_write_that_is_cut_short(void **state)
{
    fails_and_recovers(*state, BENCH_SHORT_WRITE);
}

static void a_file_system_that_turns_read_only(void **state)
{
    fails_and_recovers(*state, BENCH_READ_ONLY);
}

/* Events that go before their time are told, until the history is whole again. */
static void a_trace_that_is_cut_is_told(void **state)
{
    struct bench *bench = *state;
    bench->config.trace_bytes = 64 << 10;
    bench_close(bench);
    bench_open(bench);
    for (uint32_t i = 0; i < 1000; i++) {
        bench_send(bench, 1, false);
        bench_until(bench, &bench->stored, i + 1);
        events_tick(bench->core->events, clock_wall_ms());
    }
    assert_null(alerted(bench, "events went"));
    bench->core->events->looked_ms = 0; /* a minute has passed */
    for (int i = 0; i < 300 && alerted(bench, "events went") == NULL; i++) {
        bench_run_ms(bench, 10);
    }
    assert_non_null(alerted(bench, "events went before trace-keep was over: trace-size"));
    assert_int_equal(logged(" trace-shortened ", "until="), 1);
    bench->config.trace_keep_ms = 1; /* by a reload */
    for (int i = 0; i < 300 && alerted(bench, "events went") != NULL; i++) {
        bench_run_ms(bench, 10);
    }
    assert_null(alerted(bench, "events went"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_write_that_fails, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_sync_that_fails, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_write_that_is_cut_short, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_system_that_turns_read_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_trace_that_is_cut_is_told, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("core_faults", tests, NULL, NULL);
}
