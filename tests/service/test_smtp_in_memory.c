/* SPDX-License-Identifier: Apache-2.0
 *
 * The incoming door on real sockets when the N-th allocation fails, for every N: nothing crashes,
 * nothing is leaked (under a sanitizer), and no message is answered with 250 that core did not
 * store. Only what the door does in its loop may fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "in_world.h"
#include "proto/failing_memory.h"

static struct world world;
/* What the door does in its loop. */
static bool is_the_doors(void)
{
    return world.is_running && !world.is_working;
}

static void run(void)
{
    backend_run(&world, 0);
}

static const char *await(struct client *client)
{
    for (int turn = 0; turn < 1000; turn++) {
        const char *line = client_hear(client);
        if (line[0] != '\0' || client->closed) {
            return line;
        }
        run();
    }
    return "";
}

/* The reply's class, 0 when the session is over. */
static int say(struct client *client, struct slice text)
{
    const char *line;
    client_send(client, text);
    do {
        line = await(client);
    } while (strlen(line) > 3 && line[3] == '-');
    return client->closed && line[0] == '\0' ? 0 : line[0] - '0';
}

/* One message of `size` bytes; 2 when it is answered with 250. */
static int send_message(struct client *client, size_t size)
{
    static char block[100000];
    for (size_t i = 0; i < size; i++) {
        block[i] = i % 66 == 64 ? '\r' : i % 66 == 65 ? '\n' : 'x';
    }
    if (say(client, SLICE_LITERAL("MAIL FROM:<a@x.example>\r\n")) != 2) {
        return 4;
    }
    for (int i = 0; i < 6; i++) {
        (void)say(client, SLICE_LITERAL("RCPT TO:<b@example.com>\r\n"));
    }
    int reply = say(client, SLICE_LITERAL("DATA\r\n"));
    if (reply != 3) {
        return reply;
    }
    client_send(client, slice_make(block, size));
    return say(client, SLICE_LITERAL(".\r\n"));
}

static int play(void)
{
    int accepted = 0;
    struct client *client = client_new(&world, NULL);
    (void)await(client);
    if (say(client, SLICE_LITERAL("EHLO client.example\r\n")) == 2) {
        accepted += send_message(client, 3 * 66) == 2;
        accepted += send_message(client, 1200 * 66) == 2; /* beyond one frame */
        (void)say(client, SLICE_LITERAL("QUIT\r\n"));
    }
    (void)memory_fail_never();
    client_free(client);
    return accepted;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    memory_count_if(is_the_doors);
    long needed = 1;
    for (long good = -1; good < needed; good++) {
        world_init(&world);
        assert_true(world_start(&world));
        memory_fail_at(good);
        int accepted = play();
        if (good < 0) {
            assert_int_equal(accepted, 2);
            assert_int_equal(world.commits, 2);
            needed = memory_counted();
            assert_true(needed > 20);
        }
        assert_true((uint32_t)accepted <= world.commits);
        assert_int_equal(atomic_load(&world.counters.value[COUNTER_SESSIONS_OPEN]), 0);
        world_end(&world);
    }
}

static void a_door_that_cannot_be_made(void **state)
{
    (void)state;
    memory_count_if(NULL);
    bool made = false;
    long good = 0;
    for (; !made; good++) {
        world_init(&world);
        world.ring_bytes = 0;
        memory_fail_at(good);
        made = world_start(&world);
        (void)memory_fail_never();
        world_end(&world);
        assert_true(good < 200);
    }
    assert_true(good > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(a_door_that_cannot_be_made),
    };
    return cmocka_run_group_tests_name("smtp_in_memory", tests, NULL, NULL);
}
