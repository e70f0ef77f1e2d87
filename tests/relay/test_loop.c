/* SPDX-License-Identifier: Apache-2.0
 *
 * Mail that a server sends back to us (R5): only from a server of its recipient's own chain, or an
 * exchanger of his domain under MX routing, is it a loop, and that server is suspect.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mx_answer.h"
#include "spool/spool.h"
#include "world.h"

static struct world world;

static bool comes_back(const char *recipient, struct ip_address client)
{
    struct spool_recipient recipients[2] = {{.address = SLICE_LITERAL("x@wild.example")},
                                            {.address = slice_from_text(recipient)}};
    struct spool_message message = {.sequence = 1,
                                    .received_ms = world.now.wall_ms,
                                    .sender = SLICE_LITERAL("a@x"),
                                    .recipients = recipients,
                                    .recipient_count = 2};
    message.origin.client.address = client;
    bool loops = relay_loop(world.relay, &message, world.now);
    world_take(&world);
    return loops;
}

static void a_server_of_the_recipients_chain_is_suspect(void **state)
{
    (void)state;
    world_configure(&world);
    world_start(&world);
    world_up(&world, 0);
    struct ip_address stranger;
    assert_true(ip_from_text(SLICE_LITERAL("203.0.113.9"), &stranger));
    assert_false(comes_back("a@one.example", stranger));
    assert_false(comes_back("a@two.example", world.addresses[1].literal)); /* not of that chain */
    assert_false(comes_back("a@elsewhere.example", world.addresses[0].literal));
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    assert_true(comes_back("a@one.example", world.addresses[0].literal));
    assert_int_equal(world_state(&world, 0), SERVER_SUSPECT);
    assert_non_null(world_event(&world, RELAY_EVENT_LOOP, 0));
    struct relay_server_view view;
    relay_server(world.relay, 0, &view);
    assert_int_equal(view.before, SERVER_UP);
    /* Only a message that it takes makes it up again. */
    uint32_t probe = 0;
    for (size_t i = 0; i < world.action_count; i++) {
        probe = world.actions[i].kind == RELAY_CONNECT && world.actions[i].server == 0
                    ? world.actions[i].session
                    : probe;
    }
    world_opened(&world, probe);
    world_wait(&world, 5000);
    assert_int_equal(world_state(&world, 0), SERVER_RECOVERING);
    world_close(&world);
}

static void an_exchanger_of_the_recipients_domain_is_suspect(void **state)
{
    (void)state;
    struct ip_address primary, other;
    assert_true(ip_from_text(SLICE_LITERAL("192.0.2.11"), &primary));
    assert_true(ip_from_text(SLICE_LITERAL("192.0.2.12"), &other));
    world_configure(&world);
    mx_follow(&world, 0, 0, 0); /* one.example */
    mx_follow(&world, 3, 0, 0); /* *.wild.example */
    world_start(&world);
    assert_false(comes_back("a@one.example", primary)); /* DNS has said nothing yet */
    mx_answer(&world, "one.example", "10 primary 192.0.2.11", ERROR_NONE, 3600);
    assert_false(comes_back("a@one.example", other));
    assert_false(comes_back("a@b.wild.example", primary)); /* not of that domain */
    assert_true(comes_back("a@One.Example", primary));
    const struct relay_action *event = world_event(&world, RELAY_EVENT_LOOP, 0);
    assert_non_null(event);
    assert_true(event->server >= RELAY_EXCHANGERS);
    world_add(&world, 1, "x@far.example", "a@b.wild.example", 0);
    mx_answer(&world, "b.wild.example", "10 other 192.0.2.12", ERROR_NONE, 3600);
    assert_true(comes_back("a@b.wild.example", other));
    assert_false(comes_back("a@c.wild.example", other));
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_of_the_recipients_chain_is_suspect),
        cmocka_unit_test(an_exchanger_of_the_recipients_domain_is_suspect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
