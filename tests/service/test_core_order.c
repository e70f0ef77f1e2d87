/* SPDX-License-Identifier: Apache-2.0
 *
 * What core could not write is written later in the order in which it happened: a spool that
 * refuses a batch at once must not let the later ones pass.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core_bench.h"

static bool refuses_notices;
static uint32_t refused;
static enum spool_fate fates[16];
static uint32_t fate_count;

enum error __real_spool_batch_message(struct spool *spool, const struct spool_message *message,
                                      struct spool_content *content, struct slice tail);
enum error __wrap_spool_batch_message(struct spool *spool, const struct spool_message *message,
                                      struct spool_content *content, struct slice tail);
enum error __wrap_spool_batch_message(struct spool *spool, const struct spool_message *message,
                                      struct spool_content *content, struct slice tail)
{
    if (refuses_notices && (message->flags & SPOOL_OWN_DSN) != 0) {
        refused++;
        return ERROR_MEMORY;
    }
    return __real_spool_batch_message(spool, message, content, tail);
}

void __real_spool_batch_fate(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                             enum spool_fate fate);
void __wrap_spool_batch_fate(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                             enum spool_fate fate);
void __wrap_spool_batch_fate(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                             enum spool_fate fate)
{
    assert_true(fate_count < 16);
    fates[fate_count++] = fate;
    __real_spool_batch_fate(spool, handle, delivery, fate);
}

void __real_spool_batch_taken(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                              enum spool_fate fate, int64_t when_ms, struct slice server);
void __wrap_spool_batch_taken(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                              enum spool_fate fate, int64_t when_ms, struct slice server);
void __wrap_spool_batch_taken(struct spool *spool, struct spool_handle handle, uint32_t delivery,
                              enum spool_fate fate, int64_t when_ms, struct slice server)
{
    assert_true(fate_count < 16);
    assert_true(server.length > 0);
    fates[fate_count++] = fate;
    __real_spool_batch_taken(spool, handle, delivery, fate, when_ms, server);
}

static void what_is_refused_lets_nothing_pass(void **state)
{
    struct bench *bench = *state;
    bench->answers = false;
    bench_attach_out(bench, true, true);
    bench_until_up(bench);
    bench_send(bench, 1, true);
    bench_until(bench, &bench->gone, 1);
    refuses_notices = true;
    bench_result(bench, RELAY_REFUSED, 554); /* a bounce, which is refused */
    bench_until(bench, &refused, 1);
    bench_send(bench, 1, false);
    bench_until(bench, &bench->gone, 2);
    bench_result(bench, RELAY_ACCEPTED, 250);
    bench_until(bench, &refused, 3); /* two ticks */
    bench_run_ms(bench, 100);
    assert_int_equal(fate_count, 0);

    refuses_notices = false;
    bench_until(bench, &bench->durable, 2);
    assert_int_equal(fate_count, 2);
    assert_int_equal(fates[0], SPOOL_BOUNCED);
    assert_int_equal(fates[1], SPOOL_DELIVERED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_refused_lets_nothing_pass, bench_set_up_memory,
                                        bench_tear_down),
    };
    return cmocka_run_group_tests_name("core_order", tests, NULL, NULL);
}
