/* SPDX-License-Identifier: Apache-2.0
 *
 * The governor as a table: each state and each thing that can be seen in it (R3, R5). What began
 * before the trouble did, its old job, says nothing about the server any more, whatever comes of
 * it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spool/spool.h"
#include "world.h"

static struct world world;
static uint32_t probe;                   /* the session under way, or 0 */
static struct relay_action fresh, stale; /* jobs of after and of before the trouble */
static struct relay_action jobs[8];
static uint32_t job_count;

static void look(void)
{
    for (size_t i = 0; i < world.action_count; i++) {
        const struct relay_action *action = &world.actions[i];
        if (action->kind == RELAY_CONNECT && action->server == 0) {
            probe = action->session;
        } else if (action->kind == RELAY_DELIVER) {
            assert_true(job_count < 8);
            jobs[job_count++] = *action;
        }
    }
}

static void add(uint32_t number)
{
    char recipient[32];
    snprintf(recipient, sizeof recipient, "r%u@one.example", number);
    world_add(&world, number, "a@x", recipient, 0);
    look();
}

static void greet(void)
{
    uint32_t session = probe;
    probe = 0;
    world_opened(&world, session);
    look();
}

static void refuse(enum relay_stage stage, uint16_t code)
{
    uint32_t session = probe;
    probe = 0;
    world_ended(&world, session, stage, code == 0 ? RELAY_LOST : RELAY_REPLY, code);
    look();
}

static void await_probe(void)
{
    for (int i = 0; i < 10 && probe == 0; i++) {
        world_wait(&world, 60000);
        look();
    }
    assert_int_not_equal(probe, 0);
}

static void answer(const struct relay_action *job, enum relay_verdict verdict,
                   enum relay_stage stage, enum relay_how how, uint16_t code)
{
    world_result(&world, job, verdict, stage, how, code);
    look();
}

/* Up, with two jobs on a session each. */
static void be_up(void)
{
    world_configure(&world);
    world.routes[0].chain_length = 1;
    world_open(&world);
    relay_start(world.relay, world.now);
    for (uint32_t i = 1; i < WORLD_SERVERS; i++) {
        assert_int_equal(relay_server_disable(world.relay, i, world.now), ERROR_NONE);
    }
    world_take(&world);
    probe = job_count = 0;
    look();
    greet();
    await_probe();
    greet();
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    add(1);
    add(2);
    assert_int_equal(job_count, 2);
    assert_int_not_equal(jobs[0].session, jobs[1].session);
    stale = jobs[0];
    fresh = jobs[1];
}

static void be(enum server_state state)
{
    be_up();
    if (state == SERVER_DISABLED) {
        assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
        world_take(&world);
    } else if (state != SERVER_UP) {
        answer(&fresh, RELAY_CUT, RELAY_AT_CONTENT, RELAY_LOST, 0);
    }
    if (state == SERVER_DOWN) {
        refuse(RELAY_AT_CONNECT, 0);
        await_probe();
    } else if (state == SERVER_RECOVERING) {
        greet();
        assert_int_equal(job_count, 3);
        fresh = jobs[2];
    }
    assert_int_equal(world_state(&world, 0), state);
}

enum sight {
    PROBE_REFUSED,
    PROBE_SILENT,
    PROBE_UNWELCOME,
    PROBE_GREETED,
    TAKEN,
    DEFERRED,
    REFUSED,
    LOST,
    LOST_AT_DOT,
    LOGIN_REFUSED,
    OLD_TAKEN,
    OLD_DEFERRED,
    OLD_REFUSED,
    OLD_LOST,
    MAIL_CAME_BACK,
    PUT_DOWN,
    PUT_UP,
    SIGHTS
};

static void see_job(const struct relay_action *job, enum sight sight)
{
    switch (sight) {
    case TAKEN:
        answer(job, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
        break;
    case DEFERRED:
        answer(job, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 451);
        break;
    case REFUSED:
        answer(job, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 554);
        break;
    case LOST:
        answer(job, RELAY_CUT, RELAY_AT_CONTENT, RELAY_LOST, 0);
        break;
    case LOST_AT_DOT:
        answer(job, RELAY_IN_DOUBT, RELAY_AT_DOT, RELAY_TIMEOUT, 0);
        break;
    default:
        answer(job, RELAY_REFUSED, RELAY_AT_MAIL, RELAY_REPLY, 530);
        break;
    }
}

static void see_came_back(void)
{
    struct spool_recipient recipient = {.address = SLICE_LITERAL("a@one.example")};
    struct spool_message message = {.recipients = &recipient, .recipient_count = 1};
    message.origin.client.address = world.addresses[0].literal;
    assert_true(relay_loop(world.relay, &message, world.now));
}

static void see(enum sight sight)
{
    switch (sight) {
    case PROBE_REFUSED:
        refuse(RELAY_AT_CONNECT, 0);
        break;
    case PROBE_SILENT:
        refuse(RELAY_AT_GREETING, 0);
        break;
    case PROBE_UNWELCOME:
        refuse(RELAY_AT_GREETING, 554);
        break;
    case PROBE_GREETED:
        greet();
        break;
    case OLD_TAKEN:
    case OLD_DEFERRED:
    case OLD_REFUSED:
        see_job(&stale, TAKEN + (sight - OLD_TAKEN));
        break;
    case OLD_LOST:
        see_job(&stale, LOST);
        break;
    case MAIL_CAME_BACK:
        see_came_back();
        break;
    case PUT_DOWN:
        assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
        break;
    case PUT_UP:
        assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
        break;
    default:
        see_job(&fresh, sight);
        break;
    }
}

enum { CANNOT_BE = -1 };
#define UP SERVER_UP
#define SUSPECT SERVER_SUSPECT
#define DOWN SERVER_DOWN
#define RECOVERS SERVER_RECOVERING
#define DISABLED SERVER_DISABLED

static void each_sight_in_each_state_leads_where_the_table_says(void **state)
{
    (void)state;
    static const int expected[SIGHTS][5] = {
        /*                    up         suspect    down       recovering  disabled */
        [PROBE_REFUSED] = {CANNOT_BE, DOWN, DOWN, CANNOT_BE, CANNOT_BE},
        [PROBE_SILENT] = {CANNOT_BE, DOWN, DOWN, CANNOT_BE, CANNOT_BE},
        [PROBE_UNWELCOME] = {CANNOT_BE, DOWN, DOWN, CANNOT_BE, CANNOT_BE},
        [PROBE_GREETED] = {CANNOT_BE, RECOVERS, RECOVERS, CANNOT_BE, CANNOT_BE},
        [TAKEN] = {UP, CANNOT_BE, CANNOT_BE, UP, CANNOT_BE},
        [DEFERRED] = {UP, CANNOT_BE, CANNOT_BE, RECOVERS, CANNOT_BE},
        [REFUSED] = {UP, CANNOT_BE, CANNOT_BE, RECOVERS, CANNOT_BE},
        [LOST] = {SUSPECT, CANNOT_BE, CANNOT_BE, DOWN, CANNOT_BE},
        [LOST_AT_DOT] = {SUSPECT, CANNOT_BE, CANNOT_BE, DOWN, CANNOT_BE},
        [LOGIN_REFUSED] = {SUSPECT, CANNOT_BE, CANNOT_BE, DOWN, CANNOT_BE},
        [OLD_TAKEN] = {UP, SUSPECT, DOWN, RECOVERS, DISABLED},
        [OLD_DEFERRED] = {UP, SUSPECT, DOWN, RECOVERS, DISABLED},
        [OLD_REFUSED] = {UP, SUSPECT, DOWN, RECOVERS, DISABLED},
        [OLD_LOST] = {SUSPECT, SUSPECT, DOWN, RECOVERS, DISABLED},
        [MAIL_CAME_BACK] = {SUSPECT, DOWN, DOWN, DOWN, DISABLED},
        [PUT_DOWN] = {DISABLED, DISABLED, DISABLED, DISABLED, DISABLED},
        [PUT_UP] = {UP, SUSPECT, DOWN, RECOVERS, SUSPECT},
    };
    static const enum server_state states[] = {UP, SUSPECT, DOWN, RECOVERS, DISABLED};
    for (int sight = 0; sight < SIGHTS; sight++) {
        for (int i = 0; i < 5; i++) {
            if (expected[sight][i] == CANNOT_BE) {
                continue;
            }
            be(states[i]);
            see((enum sight)sight);
            if ((int)world_state(&world, 0) != expected[sight][i]) {
                fail_msg("sight %d in state %d leads to %d", sight, states[i],
                         world_state(&world, 0));
            }
            world_close(&world);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_sight_in_each_state_leads_where_the_table_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
