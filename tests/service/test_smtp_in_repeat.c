/* SPDX-License-Identifier: Apache-2.0
 *
 * What the incoming door does for who waits at the dot when core dies: it asks the next one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "in_world.h"
#include "service/smtp_in_internal.h"

static const char stranger[] = "198.51.100.7";

static struct world *started(uint64_t content_memory_bytes)
{
    static struct world world;
    world_init(&world);
    if (content_memory_bytes > 0) {
        world.config.content_memory_bytes = content_memory_bytes;
    }
    assert_true(world_start(&world));
    return &world;
}

/* Has said everything but the last dot. */
static struct client *at_the_dot(struct world *world, size_t length)
{
    static char line[1002];
    struct client *client = client_new(world, stranger);
    assert_true(client_talk(client, NULL, "220 "));
    assert_true(client_envelope(client, "bob@example.com"));
    assert_true(client_talk(client, "DATA", "354 "));
    memset(line, 'x', sizeof(line) - 2);
    memcpy(line + sizeof(line) - 2, "\r\n", 2);
    for (size_t sent = 0; sent < length; sent += sizeof(line)) {
        client_send(client, slice_make(line, sizeof(line)));
    }
    return client;
}

/* Core has it and says nothing. */
static struct message_id given(struct world *world, struct client *client)
{
    world->holds_answers = true;
    client_say(client, "last line\r\n.");
    world_settle(world);
    assert_int_equal(world->unanswered_count, 1);
    assert_int_equal(world->mail.message.flags & CHANNEL_REPEATED, 0);
    return world->mail.message.id;
}

static void answer_all(struct world *world, enum error error)
{
    world_answer_all(world, error);
    world_settle(world);
}

static void hears_nothing(struct client *client)
{
    assert_string_equal(client_hear(client), "");
    assert_false(client->closed);
}

static void the_next_core_gets_the_same_message(void **state)
{
    (void)state;
    struct world *world = started(0);
    struct client *client = at_the_dot(world, 5000);
    struct message_id id = given(world, client);
    size_t length = world->mail.content.length;
    world_core_gone(world);
    world_settle(world);
    hears_nothing(client);
    assert_true(world_new_core(world));
    world_settle(world);
    assert_int_equal(world->commits, 1); /* it has not said that it knows what was stored */
    world->is_loading = true;
    world_tell_accepting(world, ERROR_NONE);
    assert_int_equal(world->commits, 1);
    world->is_loading = false;
    world_tell_accepting(world, ERROR_NONE);
    assert_int_equal(world->commits, 2);
    assert_true(id_equal(world->mail.message.id, id));
    assert_int_equal(world->mail.message.flags & CHANNEL_REPEATED, CHANNEL_REPEATED);
    assert_int_equal(world->mail.content.length, length);
    assert_int_equal(world->mail.message.header_length + world->mail.message.body_length, length);
    hears_nothing(client);
    answer_all(world, ERROR_NONE);
    assert_true(client_talk(client, NULL, "250 2.0.0 Ok: queued as "));
    assert_int_equal(atomic_load(&world->counters.value[COUNTER_MESSAGES_ACCEPTED]), 1);

    /* The next one is new. */
    world->holds_answers = false;
    assert_true(client_envelope(client, "bob@example.com"));
    assert_true(client_talk(client, "DATA", "354 "));
    assert_true(client_talk(client, "x\r\n.", "250 2.0.0 "));
    assert_int_equal(world->mail.message.flags & CHANNEL_REPEATED, 0);
    assert_int_equal(world->commits, 3);
    client_free(client);
    world_end(world);
}

static void of_a_large_one_it_is_only_asked(void **state)
{
    (void)state;
    for (int stored = 0; stored < 2; stored++) {
        struct world *world = started(0);
        struct client *client = at_the_dot(world, 200000);
        struct message_id id = given(world, client);
        assert_true(world->appends > 0);
        assert_true(world_new_core(world));
        world_tell_accepting(world, ERROR_NONE);
        assert_int_equal(world->commits, 2);
        assert_true(id_equal(world->mail.message.id, id));
        assert_int_equal(world->mail.message.flags & CHANNEL_REPEATED, CHANNEL_REPEATED);
        assert_int_equal(world->mail.content.length, 0);
        assert_true(world->mail.message.body_length > 200000);
        answer_all(world, stored ? ERROR_NONE : ERROR_INVALID);
        assert_true(client_talk(client, NULL, stored ? "250 2.0.0 " : "451 4.3.0 "));
        client_free(client);
        world_end(world);
    }
}

static void under_pressure_no_content_is_kept(void **state)
{
    (void)state;
    struct world *world = started(40000);
    struct client *client = at_the_dot(world, 30000);
    given(world, client);
    assert_true(world_new_core(world));
    world_tell_accepting(world, ERROR_NONE);
    assert_int_equal(world->commits, 2);
    assert_int_equal(world->mail.content.length, 0);
    assert_true(world->mail.message.body_length > 0);
    answer_all(world, ERROR_INVALID);
    assert_true(client_talk(client, NULL, "451 4.3.0 "));
    client_free(client);
    world_end(world);
}

static void what_core_said_before_it_died_is_heard(void **state)
{
    (void)state;
    struct world *world = started(0);
    struct client *client = at_the_dot(world, 5000);
    given(world, client);
    world_answer_all(world, ERROR_NONE); /* and nobody has looked yet */
    assert_true(world_new_core(world));
    world_tell_accepting(world, ERROR_NONE);
    assert_int_equal(world->commits, 1);
    assert_true(client_talk(client, NULL, "250 2.0.0 "));
    client_free(client);
    world_end(world);
}

static void the_wait_has_an_end(void **state)
{
    (void)state;
    struct world *world = started(0);
    struct client *client = at_the_dot(world, 5000);
    given(world, client);
    world_core_gone(world);
    backend_run(world, SMTP_IN_REPEAT_MS / 2);
    /* The next core gets it, and dies too: the time goes on. */
    assert_true(world_new_core(world));
    world_tell_accepting(world, ERROR_NONE);
    assert_int_equal(world->commits, 2);
    assert_true(world_new_core(world));
    backend_run(world, SMTP_IN_REPEAT_MS / 2 - 1000);
    hears_nothing(client);
    backend_run(world, 2000);
    assert_true(client_talk(client, NULL, "451 4.3.0 "));
    world_tell_accepting(world, ERROR_NONE);
    assert_int_equal(world->commits, 2);
    client_free(client);
    world_end(world);
}

static void the_core_after_the_next_is_asked_too(void **state)
{
    (void)state;
    struct world *world = started(0);
    struct client *small = at_the_dot(world, 5000), *large = at_the_dot(world, 200000);
    struct message_id id = given(world, small);
    client_say(large, ".");
    world_settle(world);
    assert_int_equal(world->unanswered_count, 2);
    for (int i = 0; i < 3; i++) {
        assert_true(world_new_core(world));
        world_tell_accepting(world, ERROR_NONE);
        assert_int_equal(world->commits, 2 * (i + 2));
    }
    assert_true(id_before(id, world->mail.message.id) || id_equal(id, world->mail.message.id));
    answer_all(world, ERROR_NONE);
    assert_true(client_talk(small, NULL, "250 2.0.0 "));
    assert_true(client_talk(large, NULL, "250 2.0.0 "));
    client_free(small);
    client_free(large);
    world_end(world);
}

static void of_who_has_gone_nothing_is_asked(void **state)
{
    (void)state;
    struct world *world = started(0);
    struct client *gone = at_the_dot(world, 5000);
    given(world, gone);
    smtp_in_stop(world->in, 0, NULL, NULL); /* which ends sessions at once */
    world_settle(world);
    assert_int_equal(atomic_load(&world->counters.value[COUNTER_SESSIONS_OPEN]), 0);
    assert_true(world_new_core(world));
    world_tell_accepting(world, ERROR_NONE);
    assert_int_equal(world->commits, 1);
    client_free(gone);
    world_end(world);
}

/* While others fill the ring, it waits its turn like any other. */
static void a_full_ring_is_waited_for(void **state)
{
    (void)state;
    struct world *world = started(0);
    struct client *clients[12];
    for (size_t i = 0; i < 12; i++) {
        clients[i] = at_the_dot(world, 60000);
    }
    world->holds_answers = true;
    for (size_t i = 0; i < 12; i++) {
        client_say(clients[i], ".");
    }
    world_settle(world);
    assert_int_equal(world->commits, 12);
    world->ring_bytes = 256 << 10;
    assert_true(world_new_core(world));
    world->is_deaf = true;
    world_tell_accepting(world, ERROR_NONE);
    assert_int_equal(world->commits, 12);
    world->is_deaf = false;
    for (int i = 0; i < 100 && world->commits < 24; i++) {
        world_hear(world);
        backend_run(world, 100);
    }
    assert_int_equal(world->commits, 24);
    answer_all(world, ERROR_NONE);
    for (size_t i = 0; i < 12; i++) {
        assert_true(client_talk(clients[i], NULL, "250 2.0.0 "));
        client_free(clients[i]);
    }
    world_end(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_core_gets_the_same_message),
        cmocka_unit_test(of_a_large_one_it_is_only_asked),
        cmocka_unit_test(under_pressure_no_content_is_kept),
        cmocka_unit_test(what_core_said_before_it_died_is_heard),
        cmocka_unit_test(the_wait_has_an_end),
        cmocka_unit_test(the_core_after_the_next_is_asked_too),
        cmocka_unit_test(of_who_has_gone_nothing_is_asked),
        cmocka_unit_test(a_full_ring_is_waited_for),
    };
    return cmocka_run_group_tests_name("smtp_in_repeat", tests, NULL, NULL);
}
