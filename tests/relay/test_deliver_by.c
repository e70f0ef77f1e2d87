/* SPDX-License-Identifier: Apache-2.0
 *
 * DELIVERBY (RFC 2852): what becomes of mail when the time that its sender set is over, and of mail
 * that goes to servers which promise no time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/notes.h"
#include "world.h"

enum { MINUTE = 60000 };

static struct world world;

static void start(uint32_t capabilities)
{
    world_configure(&world);
    world.capabilities = capabilities;
    world_start(&world);
}

static void add(uint32_t handle, const char *sender, const char *recipients, uint32_t flags,
                int64_t in_ms)
{
    world.deliver_by_ms = world.now.wall_ms + in_ms;
    world_add(&world, handle, sender, recipients, flags | SPOOL_SENDER_VERIFIED);
    world.deliver_by_ms = 0;
}

/* Until something other than connecting happens, refusing all of that. False: nothing did. */
static bool wait_refusing(int64_t ms, enum relay_action_kind kind)
{
    int64_t end = world.now.steady_ms + ms;
    while (world.now.steady_ms < end) {
        world_wait(&world, end - world.now.steady_ms);
        if (world_count(&world, kind) > 0) {
            return true;
        }
        struct relay_action taken[64];
        size_t count = world.action_count < 64 ? world.action_count : 64;
        for (size_t i = 0; i < count; i++) {
            taken[i] = world.actions[i];
        }
        for (size_t i = 0; i < count; i++) {
            if (taken[i].kind == RELAY_CONNECT) {
                world_ended(&world, taken[i].session, RELAY_AT_CONNECT, RELAY_LOST, 0);
            }
        }
        if (count == 0) {
            world.now.steady_ms += 1;
            world.now.wall_ms += 1;
        }
    }
    return false;
}

static const struct relay_action *event(enum relay_event_kind kind)
{
    const struct relay_action *found = world_event(&world, kind, 0);
    assert_non_null(found);
    return found;
}

static void refuse_first(void)
{
    struct relay_action first = *world_action(&world, RELAY_CONNECT, 0);
    world_ended(&world, first.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
}

static void what_is_to_be_returned_is_when_its_time_is_over(void **state)
{
    (void)state;
    start(RELAY_CAP_DELIVERBY);
    refuse_first();
    add(1, "ann@x.example", "bob@one.example", SPOOL_BY_RETURN, 10 * MINUTE);
    assert_false(wait_refusing(10 * MINUTE - 10, RELAY_BOUNCE));
    assert_true(wait_refusing(20, RELAY_BOUNCE));
    const struct relay_action *bounce = world_action(&world, RELAY_BOUNCE, 0);
    assert_int_equal(bounce->reply.enhanced[0], 5);
    assert_int_equal(bounce->reply.enhanced[1], 4);
    assert_int_equal(bounce->reply.enhanced[2], 7);
    assert_true(event(RELAY_EVENT_BOUNCED)->expired);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_FINISHED);
    world_close(&world);
}

/* R8: nobody is told by mail what he may not have sent; nothing answers a null reverse-path. */
static void what_may_not_be_returned_is_a_dead_letter(void **state)
{
    (void)state;
    start(RELAY_CAP_DELIVERBY);
    refuse_first();
    world.deliver_by_ms = world.now.wall_ms + MINUTE;
    world_add(&world, 1, "forged@x.example", "bob@one.example", SPOOL_BY_RETURN);
    add(2, "", "bob@one.example", SPOOL_BY_RETURN, MINUTE);
    world.notify = SPOOL_NOTIFY_NEVER;
    add(3, "ann@x.example", "bob@one.example", SPOOL_BY_RETURN, MINUTE);
    assert_false(wait_refusing(2 * MINUTE, RELAY_BOUNCE));
    for (uint32_t i = 1; i <= 3; i++) {
        assert_int_equal(world_delivery(&world, i, 0), DELIVERY_DEAD);
    }
    world_close(&world);
}

static void one_that_is_late_is_told_of_once_and_goes_on(void **state)
{
    (void)state;
    start(0);
    refuse_first();
    world.notify = SPOOL_NOTIFY_DELAY | SPOOL_NOTIFY_FAILURE;
    add(1, "ann@x.example", "bob@one.example carl@one.example", 0, MINUTE);
    world.notify = SPOOL_NOTIFY_FAILURE;
    add(2, "ann@x.example", "dora@one.example", 0, MINUTE);
    world.notify = 0;
    add(3, "ann@x.example", "emil@one.example", 0, -MINUTE); /* late before it came to us */
    assert_true(wait_refusing(MINUTE + 10, RELAY_DELAYED));
    const struct relay_action *delayed = world_action(&world, RELAY_DELAYED, 0);
    assert_int_equal(delayed->handle.index, 1);
    assert_int_equal(delayed->delivery_count, 2);
    assert_int_equal(delayed->reply.enhanced[0], 4);
    assert_int_equal(delayed->reply.enhanced[2], 7);
    struct delivery_note note;
    assert_true(note_decode(world_action(&world, RELAY_NOTE, 0)->payload, &note));
    assert_int_equal(note.flags & NOTE_BY_TOLD, NOTE_BY_TOLD);
    assert_false(wait_refusing(60 * MINUTE, RELAY_DELAYED));
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    world_close(&world);
}

static struct relay_action deliver(void)
{
    const struct relay_action *found = world_action(&world, RELAY_DELIVER, 0);
    assert_non_null(found);
    return *found;
}

static void accepted(struct relay_action job)
{
    world_result(&world, &job, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
}

/* 4.1.4.2 */
static void a_server_that_promises_no_time_does_not_get_what_is_to_be_returned(void **state)
{
    (void)state;
    start(0);
    world_up(&world, 0);
    for (uint32_t i = 1; i <= 20; i++) { /* and is not blamed for it */
        add(i, i % 2 == 0 ? "ann@x.example" : "eve@x.example", "bob@one.example carl@one.example",
            SPOOL_BY_RETURN, MINUTE);
        assert_int_equal(world_count(&world, RELAY_DELIVER), 0);
        const struct relay_action *bounce = world_action(&world, RELAY_BOUNCE, 0);
        assert_non_null(bounce);
        assert_int_equal(bounce->delivery_count, 2);
        assert_int_equal(bounce->reply.enhanced[2], 7);
    }
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    add(30, "ann@x.example", "bob@one.example", 0, MINUTE);
    accepted(deliver());
    assert_non_null(world_action(&world, RELAY_NOTICE, 0)); /* relayed, and nobody promises more */
    world.notify = SPOOL_NOTIFY_NEVER;
    add(31, "ann@x.example", "bob@one.example", SPOOL_BY_TRACE, MINUTE);
    accepted(deliver());
    assert_null(world_action(&world, RELAY_NOTICE, 0));
    world_close(&world);
}

static void a_server_that_promises_gets_it_and_a_trace_is_told(void **state)
{
    (void)state;
    start(RELAY_CAP_DELIVERBY | RELAY_CAP_DSN);
    world_up(&world, 0);
    add(1, "ann@x.example", "bob@one.example", SPOOL_BY_RETURN, MINUTE);
    accepted(deliver());
    assert_null(world_action(&world, RELAY_NOTICE, 0));
    add(2, "ann@x.example", "bob@one.example", 0, MINUTE);
    accepted(deliver());
    assert_null(world_action(&world, RELAY_NOTICE, 0));
    add(3, "ann@x.example", "bob@one.example", SPOOL_BY_RETURN | SPOOL_BY_TRACE, MINUTE);
    accepted(deliver());
    assert_non_null(world_action(&world, RELAY_NOTICE, 0));
    world_close(&world);
}

/* LMTP delivers: no promise is needed, and nothing is relayed. */
static void a_mailbox_needs_no_promise(void **state)
{
    (void)state;
    world_configure(&world);
    world.capabilities = 0;
    world.servers[0].protocol = SERVER_LMTP;
    world_start(&world);
    world_up(&world, 0);
    add(1, "ann@x.example", "bob@one.example", SPOOL_BY_RETURN | SPOOL_BY_TRACE, MINUTE);
    accepted(deliver());
    assert_null(world_action(&world, RELAY_NOTICE, 0));
    world_close(&world);
}

/* It is under way when its time ends: what is said of it counts, and only then its time. */
static void what_is_under_way_is_not_touched(void **state)
{
    (void)state;
    start(RELAY_CAP_DELIVERBY);
    world_up(&world, 0);
    add(1, "ann@x.example", "bob@one.example", SPOOL_BY_RETURN, MINUTE);
    struct relay_action job = deliver();
    assert_false(wait_refusing(2 * MINUTE, RELAY_BOUNCE));
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_IN_FLIGHT);
    world_result(&world, &job, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 451);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    assert_true(wait_refusing(15000, RELAY_BOUNCE));
    world_close(&world);
}

/* Whoever lets a dead letter go wants it delivered, late as it is. */
static void the_operator_gives_it_all_the_time(void **state)
{
    (void)state;
    start(0);
    refuse_first();
    world.deliver_by_ms = world.now.wall_ms + MINUTE;
    world_add(&world, 1, "forged@x.example", "bob@one.example", SPOOL_BY_RETURN);
    assert_false(wait_refusing(2 * MINUTE, RELAY_BOUNCE));
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    assert_int_equal(relay_release(world.relay, (struct spool_handle){1}, 0, world.now),
                     ERROR_NONE);
    world_take(&world);
    struct delivery_note note;
    assert_true(note_decode(world_action(&world, RELAY_NOTE, 0)->payload, &note));
    assert_int_equal(note.flags & NOTE_BY_WAIVED, NOTE_BY_WAIVED);
    world_wait(&world, 2000);
    world_opened(&world, world_action(&world, RELAY_CONNECT, 0)->session);
    assert_int_equal(deliver().handle.index, 1);
    world_close(&world);
}

/* The same after a restart: what was told, and what was waived. */
static void a_restart_forgets_neither(void **state)
{
    (void)state;
    start(0);
    refuse_first();
    world_close(&world);
    world_open(&world);
    add(1, "ann@x.example", "bob@one.example", 0, -1000);
    add(2, "ann@x.example", "bob@one.example", 0, MINUTE);
    add(3, "", "carl@one.example", SPOOL_BY_RETURN, MINUTE);
    struct buffer buffer;
    buffer_init(&buffer, 0);
    note_encode(&buffer, &(struct delivery_note){.flags = NOTE_BY_TOLD});
    relay_load_note(world.relay, (struct spool_handle){2}, 0, NOTE_WAITING, buffer_slice(&buffer),
                    world.now);
    buffer_clear(&buffer);
    note_encode(&buffer, &(struct delivery_note){.flags = NOTE_BY_WAIVED});
    relay_load_note(world.relay, (struct spool_handle){3}, 0, NOTE_WAITING, buffer_slice(&buffer),
                    world.now);
    buffer_done(&buffer);
    relay_start(world.relay, world.now);
    world_take(&world);
    assert_false(wait_refusing(5 * MINUTE, RELAY_DELAYED));
    assert_int_equal(world_delivery(&world, 3, 0), DELIVERY_WAITING);
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, (struct spool_handle){3}, 0, &view));
    assert_int_equal(view.expires_wall_ms, 0);
    world_close(&world);
}

/* The wall clock counts, but one that was set back gives no time that it has taken. */
static void the_end_is_shown(void **state)
{
    (void)state;
    start(0);
    refuse_first();
    add(1, "ann@x.example", "bob@one.example", SPOOL_BY_RETURN, MINUTE);
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, (struct spool_handle){1}, 0, &view));
    assert_int_equal(view.expires_wall_ms, world.now.wall_ms + MINUTE);
    world.now.wall_ms -= MINUTE;
    assert_false(wait_refusing(MINUTE + 10, RELAY_BOUNCE));
    assert_true(wait_refusing(MINUTE, RELAY_BOUNCE));
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_to_be_returned_is_when_its_time_is_over),
        cmocka_unit_test(what_may_not_be_returned_is_a_dead_letter),
        cmocka_unit_test(one_that_is_late_is_told_of_once_and_goes_on),
        cmocka_unit_test(a_server_that_promises_no_time_does_not_get_what_is_to_be_returned),
        cmocka_unit_test(a_server_that_promises_gets_it_and_a_trace_is_told),
        cmocka_unit_test(a_mailbox_needs_no_promise),
        cmocka_unit_test(what_is_under_way_is_not_touched),
        cmocka_unit_test(the_operator_gives_it_all_the_time),
        cmocka_unit_test(a_restart_forgets_neither),
        cmocka_unit_test(the_end_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
