/* SPDX-License-Identifier: Apache-2.0
 *
 * What is asked about a recipient, and what is made of the server's answer (R8).
 */
#include "relay/directory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "world.h"

static struct world world;

/* *.wild.example learns, and its server is up. */
static void start(void)
{
    world_configure(&world);
    world.routes[3].recipients = RECIPIENTS_LEARN;
    world.routes[3].unknown = UNKNOWN_DEFER;
    world_start(&world);
    world_up(&world, 2);
    assert_int_equal(world_state(&world, 2), SERVER_UP);
}

static struct relay_recipient ask(const char *address)
{
    struct relay_recipient recipient;
    relay_recipient(world.relay, slice_from_text(address), world.now, &recipient);
    return recipient;
}

static enum mailbox_answer answered(const char *address, uint16_t code)
{
    const struct relay_reply reply = {
        .stage = RELAY_AT_RECIPIENT, .how = RELAY_REPLY, .code = code};
    const struct relay_callout callout = {
        .address = slice_from_text(address), .server = 2, .reply = &reply};
    return relay_recipient_asked(world.relay, &callout, world.now);
}

static void a_name_that_no_table_can_have_is_unknown(void **state)
{
    (void)state;
    start();
    assert_int_equal(ask("\"\"@a.wild.example").answer, MAILBOX_ASK);
    assert_int_equal(answered("\"\"@a.wild.example", 550), MAILBOX_REFUSE);
    assert_int_equal(answered("\"\"@a.wild.example", 250), MAILBOX_TAKE);
    assert_int_equal(ask("\"\"@a.wild.example").answer, MAILBOX_ASK);
    world_close(&world);
}

/* Strangers think up domains where any is taken. */
static void what_cannot_be_kept_is_answered_all_the_same(void **state)
{
    (void)state;
    char address[64];
    start();
    for (int i = 0; i < DIRECTORY_DOMAINS_MAX; i++) {
        snprintf(address, sizeof(address), "nobody@d%d.wild.example", i);
        assert_int_equal(answered(address, 550), MAILBOX_REFUSE);
    }
    assert_int_equal(ask("nobody@d7.wild.example").answer, MAILBOX_REFUSE);
    assert_int_equal(ask("nobody@more.wild.example").answer, MAILBOX_ASK);
    assert_int_equal(answered("nobody@more.wild.example", 550), MAILBOX_REFUSE);
    assert_int_equal(answered("ann@more.wild.example", 250), MAILBOX_TAKE);
    assert_int_equal(answered("ann@more.wild.example", 450), MAILBOX_DEFER);
    assert_int_equal(ask("nobody@more.wild.example").answer, MAILBOX_ASK);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_that_no_table_can_have_is_unknown),
        cmocka_unit_test(what_cannot_be_kept_is_answered_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
