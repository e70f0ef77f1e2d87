/* SPDX-License-Identifier: Apache-2.0
 *
 * The world tests itself: clients talk to a server directly, so that a wrong verdict about the
 * program is not the simulation's fault; and the judge must notice what is put in its way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sim/actors.h"
#include "sim/sim.h"

static struct ledger *run(uint64_t seed, const struct server_mood *mood)
{
    struct ledger *ledger = calloc(1, sizeof(*ledger));
    sim_begin(seed);
    struct loop *loop = loop_new();
    struct ip_endpoint at = {.port = 25};
    ip_from_text(SLICE_LITERAL("192.0.2.1"), &at.address);
    sim_server_set_mood(sim_server_new(loop, "m1", &at, ledger), mood);
    sim_client_new(loop, &at, ledger, 0, 3);
    sim_client_new(loop, &at, ledger, 3, 1);
    sim_run_until(sim_now_ns() + 120LL * 1000000000);
    return ledger;
}

static void honest_world_keeps_every_promise(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 6; seed++) {
        struct ledger *ledger = run(seed, &(struct server_mood){0});
        assert_true(ledger->acknowledged > 100);
        assert_int_equal(ledger_judge(ledger), 0);
        free(ledger);
    }
}

static void same_seed_same_history(void **state)
{
    (void)state;
    struct server_mood mood = {.dot_4xx = 50, .cut_before_dot = 20, .slow = 10};
    struct ledger *first = run(7, &mood);
    struct ledger *second = run(7, &mood);
    assert_memory_equal(first, second, sizeof(*first));
    free(first);
    free(second);
}

static void judge_sees_loss_doubling_and_two_fates(void **state)
{
    (void)state;
    struct ledger *ledger = run(3, &(struct server_mood){0});
    struct ledger_message *message = &ledger->messages[10];
    assert_true(message->acknowledged);
    struct ledger_message honest = *message;
    message->entries[0].delivered = 0;
    assert_int_equal(ledger_judge(ledger), 1);
    message->entries[0].delivered = 2;
    assert_int_equal(ledger_judge(ledger), 1);
    *message = honest;
    message->entries[0].refused = 1;
    assert_int_equal(ledger_judge(ledger), 1);
    free(ledger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest_world_keeps_every_promise),
        cmocka_unit_test(same_seed_same_history),
        cmocka_unit_test(judge_sees_loss_doubling_and_two_fates),
    };
    return cmocka_run_group_tests_name("sim_actors", tests, NULL, NULL);
}
