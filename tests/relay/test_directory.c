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

static struct relay_reply no_such = {.stage = RELAY_AT_RECIPIENT, .how = RELAY_REPLY, .code = 550};

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

/* Only this one, whoever asks. */
static enum error read_ann(void *context, struct spool_handle handle, struct arena *arena,
                           struct spool_message *ret_message)
{
    static struct spool_recipient ann = {.address = SLICE_LITERAL("ann@a.wild.example")};
    (void)context;
    (void)handle;
    (void)arena;
    *ret_message = (struct spool_message){.recipients = &ann, .recipient_count = 1};
    return ERROR_NONE;
}

static void hand_over(uint32_t handle)
{
    world_add(&world, handle, "x@client.example", "ann@a.wild.example", 0);
    const struct relay_action *connect = world_action(&world, RELAY_CONNECT, 0);
    if (connect != NULL) {
        world_opened(&world, connect->session);
    }
    const struct relay_action deliver = world_one(&world, RELAY_DELIVER);
    world_result(&world, &deliver, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
}

static struct mailbox known(const char *name)
{
    struct mailbox found = {0};
    struct slice domain;
    struct mailboxes *mailboxes =
        relay_mailboxes(world.relay, SLICE_LITERAL("a.wild.example"), &domain);
    assert_non_null(mailboxes);
    assert_true(mailboxes_find(mailboxes, slice_from_text(name), &found));
    return found;
}

/* A server that refuses who cannot exist was asked about ann, and got mail for her. */
static void start_with_ann(void)
{
    const struct relay_envelopes envelopes = {.read = read_ann};
    const struct relay_reply taken = {.stage = RELAY_AT_RECIPIENT, .how = RELAY_REPLY, .code = 250};
    const struct relay_callout callout = {.address = SLICE_LITERAL("ann@a.wild.example"),
                                          .server = 2,
                                          .reply = &taken,
                                          .random = &no_such};
    start();
    relay_set_envelopes(world.relay, &envelopes);
    assert_int_equal(relay_recipient_asked(world.relay, &callout, world.now), MAILBOX_TAKE);
    assert_int_equal(known("ann").source, MAILBOX_FROM_CALLOUT);
    hand_over(1);
    assert_int_equal(known("ann").source, MAILBOX_FROM_DELIVERY);
}

/* Of her own acceptance behind it, though mail for her had taught all there was an hour long. */
static void a_callouts_refusal_is_ended_by_the_next_delivery(const char *address)
{
    start_with_ann();
    assert_int_equal(answered(address, 550), MAILBOX_REFUSE);
    assert_int_not_equal(known("ann").refused_ms, 0);
    hand_over(2);
    assert_int_equal(known("ann").refused_ms, 0);
    world.now.wall_ms += MAILBOX_APART_MS + 1;
    world.now.steady_ms += MAILBOX_APART_MS + 1;
    assert_int_equal(answered(address, 550), MAILBOX_REFUSE);
    assert_int_equal(known("ann").standing, MAILBOX_GOOD);
    world_close(&world);
}

static void ones_own_acceptance_is_not_anothers(void **state)
{
    (void)state;
    a_callouts_refusal_is_ended_by_the_next_delivery("ann@a.wild.example");
    a_callouts_refusal_is_ended_by_the_next_delivery("\"Ann\"@A.WILD.EXAMPLE");
}

static void who_is_forgotten_is_learned_anew(void **state)
{
    (void)state;
    struct slice domain;
    start_with_ann();
    struct mailboxes *mailboxes =
        relay_mailboxes(world.relay, SLICE_LITERAL("a.wild.example"), &domain);
    assert_true(mailboxes_forget(mailboxes, SLICE_LITERAL("ann")));
    hand_over(2);
    assert_int_equal(known("ann").standing, MAILBOX_GOOD);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_that_no_table_can_have_is_unknown),
        cmocka_unit_test(what_cannot_be_kept_is_answered_all_the_same),
        cmocka_unit_test(ones_own_acceptance_is_not_anothers),
        cmocka_unit_test(who_is_forgotten_is_learned_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
