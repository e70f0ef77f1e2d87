/* SPDX-License-Identifier: Apache-2.0
 *
 * The world tests itself: clients talk to a server directly, so that a wrong verdict about the
 * program is not the simulation's fault; and the judge must notice what is put in its way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
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
    sim_server_set_mood(sim_server_new(loop, "m1", &at, false, ledger), mood);
    sim_client_new(loop, &at, NULL, ledger, 0, 3);
    sim_client_new(loop, &at, NULL, ledger, 3, 1);
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
    message->entries[0].bounced = 1;
    assert_int_equal(ledger_judge(ledger), 1);
    free(ledger);
}

static struct ledger_notice *notice(struct ledger *ledger, uint32_t number, const char *id,
                                    uint32_t recipient)
{
    char text[500], address[64];
    ledger_address(recipient, address);
    snprintf(text, sizeof(text),
             "Message-ID: <%s>\r\nAuto-Submitted: auto-replied\r\n\r\n"
             "Final-Recipient: rfc822; %s\r\nAction: failed\r\n\r\nX-Number: %u\r\n",
             id, address, number);
    return ledger_take_notice(ledger, number, slice_from_text(text));
}

static void judge_knows_notices(void **state)
{
    (void)state;
    struct ledger *ledger = run(3, &(struct server_mood){0});
    struct ledger_message *message = &ledger->messages[10];
    struct ledger_entry *entry = &message->entries[0];
    entry->delivered = 0;
    entry->refused = 1;
    assert_int_equal(ledger_judge(ledger), 1);
    assert_false(ledger_is_settled(ledger));

    message->verified = true;
    struct ledger_notice *first = notice(ledger, 10, "one", entry->recipient);
    assert_int_equal(ledger->faults, 0);
    assert_int_equal(ledger_judge(ledger), 1); /* it has not arrived */
    assert_false(ledger_is_settled(ledger));
    first->delivered = 1;
    assert_int_equal(ledger_judge(ledger), 0);
    assert_true(ledger_is_settled(ledger));
    assert_ptr_equal(notice(ledger, 10, "one", entry->recipient), first);
    assert_int_equal(ledger->faults, 0);
    first->delivered = 2;
    assert_int_equal(ledger_judge(ledger), 1);
    first->doubts = 1;
    assert_int_equal(ledger_judge(ledger), 0);

    notice(ledger, 10, "two", entry->recipient); /* there was one already */
    assert_int_equal(ledger->faults, 1);
    ledger->messages[11].entries[0].refused = 1;
    notice(ledger, 11, "three", ledger->messages[11].entries[0].recipient); /* to a stranger */
    assert_int_equal(ledger->faults, 2);
    ledger->messages[12].verified = true;
    notice(ledger, 12, "four", ledger->messages[12].entries[0].recipient); /* nobody refused */
    assert_int_equal(ledger->faults, 3);
    ledger->messages[13].verified = true;
    notice(ledger, 13, "five", 63); /* it was not sent to him */
    assert_int_equal(ledger->faults, 4);
    free(ledger);
}

/* Message 1 of two for recipient 9 arrives when message 0 has been put off for a while; then that
 * arrives. The faults. */
static uint32_t passing(int64_t put_off_ms, int64_t passed_ms)
{
    struct ledger *ledger = calloc(1, sizeof(*ledger));
    sim_begin(1);
    ledger->issued = 2;
    for (uint32_t i = 0; i < 2; i++) {
        ledger->messages[i].count = 1;
        ledger->messages[i].entries[0].recipient = 9;
    }
    for (int64_t ms = 0; ms <= passed_ms; ms++) {
        if (ms == put_off_ms || ms == put_off_ms + 1000) {
            ledger_put_off(ledger, 0, 0, 30000);
        }
        sim_run_until(sim_now_ns() + 1000000);
    }
    for (uint32_t i = 2; i-- > 0;) {
        struct ledger_entry *entry = &ledger->messages[i].entries[0];
        entry->delivered++;
        ledger_check_order(ledger, entry, i);
    }
    uint32_t faults = ledger->faults;
    sim_end();
    free(ledger);
    return faults;
}

static void judge_lets_pass_what_patience_is_over_for(void **state)
{
    (void)state;
    assert_int_equal(passing(-2000, 10), 1);
    assert_int_equal(passing(100, 20000), 1);
    assert_int_equal(passing(100, 30098), 1);
    assert_int_equal(passing(100, 30099), 0);
    assert_int_equal(passing(100, 40000), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest_world_keeps_every_promise),
        cmocka_unit_test(same_seed_same_history),
        cmocka_unit_test(judge_sees_loss_doubling_and_two_fates),
        cmocka_unit_test(judge_knows_notices),
        cmocka_unit_test(judge_lets_pass_what_patience_is_over_for),
    };
    return cmocka_run_group_tests_name("sim_actors", tests, NULL, NULL);
}
