/* SPDX-License-Identifier: Apache-2.0
 *
 * Who gets a server's connections: the lanes that share it in their turns (R6), a message's
 * recipients and a connection's messages as far as the server allows (LIMITS, RFC 9422).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "world.h"

enum {
    DRAIN = 20000,
    UNDERWAY_MAX = 64,
    SESSIONS_MAX = 64,
    ONE = 0, /* routes; both have m1 first */
    TWO = 1,
    QUANTUM = 256 << 10, /* what a lane sends before the next one's turn */
    LARGE = 100 << 10,
};

static struct world world;
static struct relay_action underway[UNDERWAY_MAX];
static size_t underway_count;
static struct {
    uint32_t id, mails;
} sessions[SESSIONS_MAX];
static size_t session_count;
static uint32_t closed;
static uint8_t route_of[2 * DRAIN + 10]; /* by handle */
static size_t given[2];

/* m1 answers whatever is asked of it; the others never do. */
static void look(void)
{
    static struct relay_action actions[WORLD_ACTIONS];
    size_t count = world.action_count;
    memcpy(actions, world.actions, count * sizeof actions[0]);
    for (size_t i = 0; i < count; i++) {
        const struct relay_action *action = &actions[i];
        if (action->kind == RELAY_DELIVER) {
            assert_true(underway_count < UNDERWAY_MAX);
            underway[underway_count++] = *action;
            given[route_of[action->handle.index]]++;
            for (size_t j = 0; j < session_count; j++) {
                sessions[j].mails += sessions[j].id == action->session;
            }
        } else if (action->kind == RELAY_CLOSE) {
            closed++;
        } else if (action->kind == RELAY_CONNECT && action->server == 0) {
            assert_true(session_count < SESSIONS_MAX);
            sessions[session_count++].id = action->session;
            world_opened(&world, action->session);
            look();
        }
    }
}

static void start(uint32_t connections)
{
    world_configure(&world);
    world.servers[0].connections = connections;
    memset(sessions, 0, sizeof sessions);
    underway_count = session_count = closed = 0;
    given[ONE] = given[TWO] = 0;
}

/* m1 is reached at last. */
static void go(void)
{
    world_start(&world);
    look();
}

static void add(uint32_t handle, int route)
{
    char address[40];
    snprintf(address, sizeof address, "r%u@%s.example", handle % 200, route == ONE ? "one" : "two");
    route_of[handle] = (uint8_t)route;
    world_add(&world, handle, "a@x.example", address, 0);
    look();
}

static void accept_next(void)
{
    assert_true(underway_count > 0);
    struct relay_action job = underway[0];
    memmove(underway, underway + 1, --underway_count * sizeof underway[0]);
    world_result(&world, &job, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    look();
}

/* One lane drains; what comes for the other is gone before the drain has sent a turn's worth. */
static void new_mail_does_not_wait_behind_anothers_drain(void **state)
{
    (void)state;
    start(2);
    go();
    for (uint32_t i = 0; i < DRAIN; i++) {
        add(i, ONE);
    }
    while (given[ONE] < 1000) {
        accept_next();
    }
    add(DRAIN, TWO);
    size_t before = given[ONE];
    while (given[TWO] == 0) {
        accept_next();
    }
    assert_in_range(given[ONE] - before, 0, QUANTUM / (4096 + 1000) + UNDERWAY_MAX / 8);
    for (uint32_t i = 0; i < 500; i++) { /* and so it goes on */
        add(DRAIN + 1 + i, TWO);
        accept_next();
    }
    before = given[ONE];
    while (given[TWO] < 501) {
        accept_next();
    }
    assert_in_range(given[ONE] - before, 0, 600);
    assert_in_range(given[ONE], 1000, DRAIN / 2); /* the drain is far from its end */
    world_close(&world);
}

/* They share by what they send, not by messages. */
static void large_mail_has_no_larger_share(void **state)
{
    (void)state;
    start(2);
    go();
    for (uint32_t i = 0; i < 2000; i++) {
        world.body_length = LARGE;
        add(2 * i, ONE);
        world.body_length = 0;
        add(2 * i + 1, TWO);
    }
    size_t before[2] = {given[ONE], given[TWO]};
    while (given[ONE] - before[ONE] < 60) {
        accept_next();
    }
    size_t small = given[TWO] - before[TWO], equal = 60 * (4096 + LARGE) / (4096 + 1000);
    assert_in_range(small, equal * 9 / 10, equal * 11 / 10);
    world_close(&world);
}

static void a_server_that_takes_two_recipients_gets_two(void **state)
{
    (void)state;
    start(1);
    world.recipients_max = 2;
    go();
    world_add(&world, 1, "a@x.example",
              "a@one.example b@one.example c@one.example d@one.example e@one.example", 0);
    look();
    uint32_t next = 0;
    while (underway_count > 0) {
        assert_true(underway[0].delivery_count <= 2);
        for (uint32_t i = 0; i < underway[0].delivery_count; i++) {
            assert_int_equal(underway[0].deliveries[i], next++);
        }
        accept_next();
    }
    assert_int_equal(next, 5);
    world_close(&world);
}

static void a_connection_carries_as_many_messages_as_the_server_takes(void **state)
{
    (void)state;
    start(1);
    world.mails_max = 3;
    go();
    for (uint32_t i = 0; i < 10; i++) {
        add(i, ONE);
    }
    for (uint32_t i = 0; i < 10; i++) {
        if (underway_count == 0) { /* the connection before is to be gone */
            world_ended(&world, sessions[session_count - 1].id, RELAY_AT_IDLE, RELAY_LOCAL, 0);
            look();
        }
        accept_next();
    }
    assert_int_equal(given[ONE], 10);
    assert_int_equal(session_count, 4);
    assert_in_range(closed, 3, 4);
    for (size_t i = 0; i < session_count; i++) {
        assert_in_range(sessions[i].mails, 1, 3);
    }
    assert_int_equal(world_state(&world, 0), SERVER_UP); /* no trouble of the server's */
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_mail_does_not_wait_behind_anothers_drain),
        cmocka_unit_test(large_mail_has_no_larger_share),
        cmocka_unit_test(a_server_that_takes_two_recipients_gets_two),
        cmocka_unit_test(a_connection_carries_as_many_messages_as_the_server_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
