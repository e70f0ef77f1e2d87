/* SPDX-License-Identifier: Apache-2.0
 *
 * Refusals that are not believed (R5): each reason to hold one, its end, what happens then; the
 * breaker; the operator's share; restarts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/notes.h"
#include "world.h"

enum { MINUTE_MS = 60000, HOUR_MS = 60 * MINUTE_MS, WINDOW_MS = 10 * MINUTE_MS };

static struct world world;
static uint32_t last_number;
static uint8_t globals[8][300];
static size_t global_lengths[8];
static char global_keys[8][SPOOL_KEY_MAX + 1];
static size_t global_count;
/* Jobs in the order in which they are given out. */
static struct relay_action jobs[64];
static uint32_t job_count;
static bool refuses_connections;

static void begin(uint32_t window_ms, bool manual)
{
    world_configure(&world);
    for (uint32_t i = 0; i < WORLD_SERVERS; i++) {
        world.servers[i].hold_5xx_after_recovery_ms = window_ms;
        world.servers[i].hold_5xx_manual = manual;
    }
    world.chains[0][1] = 2; /* one.example > m1 */
    world.routes[0].chain_length = 1;
    last_number = 0;
    global_count = 0;
    job_count = 0;
    refuses_connections = false;
    world_open(&world);
    relay_start(world.relay, world.now);
    for (uint32_t i = 1; i < WORLD_SERVERS; i++) {
        assert_int_equal(relay_server_disable(world.relay, i, world.now), ERROR_NONE);
    }
    world_take(&world);
}

/* What relay would write of its servers, to be read again. */
static void keep_globals(void)
{
    for (size_t i = 0; i < world.action_count; i++) {
        const struct relay_action *action = &world.actions[i];
        size_t at = 0;
        while (action->kind == RELAY_GLOBAL && at < global_count &&
               !slice_equal(slice_from_text(global_keys[at]), action->key)) {
            at++;
        }
        if (action->kind == RELAY_GLOBAL) {
            assert_true(at < 8 && action->payload.length <= sizeof globals[0]);
            snprintf(global_keys[at], sizeof global_keys[at], "%.*s", SLICE_PRINT(action->key));
            memcpy(globals[at], action->payload.data, action->payload.length);
            global_lengths[at] = action->payload.length;
            global_count += at == global_count;
        }
    }
}

/* What came out last is answered: m1's sessions open, those of the others never do. */
static void respond(void)
{
    struct relay_action actions[64];
    size_t count = world.action_count;
    assert_true(count <= 64);
    memcpy(actions, world.actions, count * sizeof actions[0]);
    keep_globals();
    world.action_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (actions[i].kind == RELAY_DELIVER) {
            assert_true(job_count < 64);
            jobs[job_count++] = actions[i];
        } else if (actions[i].kind == RELAY_CLOSE) {
            world_ended(&world, actions[i].session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
            respond();
        } else if (actions[i].kind == RELAY_CONNECT &&
                   (actions[i].server != 0 || refuses_connections)) {
            world_ended(&world, actions[i].session, RELAY_AT_CONNECT, RELAY_LOST, 0);
            refuses_connections = refuses_connections && actions[i].server != 0;
            respond();
        } else if (actions[i].kind == RELAY_CONNECT) {
            world_opened(&world, actions[i].session);
            respond();
        }
    }
}

/* Its next connection is refused, however long that takes. */
static void refuse_connection(void)
{
    refuses_connections = true;
    for (int i = 0; i < 1000 && refuses_connections; i++) {
        respond();
        if (refuses_connections) {
            world_wait(&world, MINUTE_MS);
        }
    }
    assert_false(refuses_connections);
}

static void await_up(void)
{
    for (int i = 0; i < 1000 && world_state(&world, 0) != SERVER_UP; i++) {
        respond();
        if (world_state(&world, 0) != SERVER_UP) {
            world_wait(&world, MINUTE_MS);
        }
    }
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    respond();
}

/* Up again after trouble, with nothing waiting. */
static void recover(void)
{
    refuse_connection();
    assert_int_not_equal(world_state(&world, 0), SERVER_UP);
    await_up();
}

static uint32_t add(const char *sender, const char *recipient)
{
    world_add(&world, ++last_number, sender, recipient, 0);
    return last_number;
}

static struct relay_action await_job(void)
{
    respond();
    for (int i = 0; i < 1000 && job_count == 0; i++) {
        world_wait(&world, MINUTE_MS);
        respond();
    }
    assert_true(job_count > 0);
    struct relay_action job = jobs[0];
    memmove(jobs, jobs + 1, --job_count * sizeof jobs[0]);
    return job;
}

static void answer(const struct relay_action *job, enum relay_stage stage, uint16_t code,
                   uint8_t subject, uint8_t detail)
{
    struct relay_delivery_result result = {
        .delivery = job->delivery,
        .verdict = code < 400 ? RELAY_ACCEPTED : RELAY_REFUSED,
        .reply = {.stage = stage, .how = RELAY_REPLY, .code = code, .text = SLICE_LITERAL("so")}};
    if (subject + detail > 0) {
        result.reply.enhanced[0] = (uint8_t)(code / 100);
        result.reply.enhanced[1] = subject;
        result.reply.enhanced[2] = detail;
    }
    relay_result(world.relay, job->job, job->session, false, &result, 1, world.now);
    world_take(&world);
    respond();
}

static enum delivery_state refuse(const char *sender, const char *recipient, enum relay_stage stage,
                                  uint8_t subject)
{
    uint32_t number = add(sender, recipient);
    struct relay_action job = await_job();
    assert_int_equal(job.handle.index, number);
    answer(&job, stage, 550, subject, subject > 0);
    return world_delivery(&world, number, 0);
}

static void take_mail(const char *recipient)
{
    (void)add("a@x", recipient);
    struct relay_action job = await_job();
    answer(&job, RELAY_AT_DOT, 250, 0, 0);
}

/* Steady ms until a held one is tried again. */
static int64_t until_tried_again(uint32_t number)
{
    int64_t began = world.now.steady_ms;
    struct relay_action job = await_job();
    assert_int_equal(job.handle.index, number);
    answer(&job, RELAY_AT_RECIPIENT, 550, 0, 0);
    return world.now.steady_ms - began;
}

/* ---- a recovery ---------------------------------------------------------------------------- */

static void for_a_while_after_its_recovery_a_server_is_not_believed(void **state)
{
    (void)state;
    static const enum relay_stage stages[] = {RELAY_AT_RECIPIENT, RELAY_AT_DATA, RELAY_AT_DOT};
    for (size_t i = 0; i < 3; i++) {
        begin(WINDOW_MS, false);
        recover();
        int64_t up_ms = world.now.steady_ms;
        assert_int_equal(refuse("a@x", "bob@one.example", stages[i], 0), DELIVERY_HELD);
        assert_int_equal(world_held_by_rule(&world), 0);
        (void)until_tried_again(1);
        assert_int_equal(world.now.steady_ms - up_ms, WINDOW_MS);
        assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD); /* twice is final */
        assert_int_equal(refuse("a@x", "eve@one.example", stages[i], 0), DELIVERY_DEAD);
        world_close(&world);
    }
}

static void what_waited_for_it_is_held_until_all_that_waited_has_gone(void **state)
{
    (void)state;
    begin(0, false);
    refuse_connection();
    (void)add("a@x", "r1@one.example");
    (void)add("a@x", "r2@one.example");
    (void)add("a@x", "r3@one.example");
    struct relay_action canary = await_job();
    answer(&canary, RELAY_AT_DOT, 250, 0, 0);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    struct relay_action second = await_job();
    answer(&second, RELAY_AT_RECIPIENT, 550, 0, 0);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_HELD);
    struct relay_action third = await_job();
    assert_int_equal(third.handle.index, 3);
    answer(&third, RELAY_AT_DOT, 250, 0, 0);
    assert_int_equal(until_tried_again(2), 0);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_DEAD);
    world_close(&world);
}

/* `hold-5xx-after-recovery = 0`: what has come since the recovery is believed even meanwhile. */
static void without_a_window_new_mail_is_refused_for_good(void **state)
{
    (void)state;
    begin(0, false);
    recover();
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_DOT, 0), DELIVERY_DEAD);
    world_close(&world);
}

static void a_second_outage_begins_it_anew(void **state)
{
    (void)state;
    begin(WINDOW_MS, false);
    recover();
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_DOT, 0), DELIVERY_HELD);
    for (int i = 0; i < 20; i++) { /* flapping for longer than the window */
        recover();
        assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
    }
    int64_t up_ms = world.now.steady_ms;
    (void)until_tried_again(1);
    assert_int_equal(world.now.steady_ms - up_ms, WINDOW_MS);
    world_close(&world);
}

static void one_brought_back_by_hand_is_not_believed_at_once(void **state)
{
    (void)state;
    begin(WINDOW_MS, false);
    await_up();
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_DOT, 0), DELIVERY_HELD);
    world_close(&world);
}

static void the_operator_may_want_to_decide_himself(void **state)
{
    (void)state;
    begin(WINDOW_MS, true);
    recover();
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_DOT, 0), DELIVERY_HELD);
    assert_int_equal(world_held_by_rule(&world), 1);
    for (int i = 0; i < 100; i++) {
        world_wait(&world, HOUR_MS);
        respond();
        assert_int_equal(job_count, 0);
        assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
    }
    world_close(&world);
}

/* ---- known good recipients ------------------------------------------------------------------ */

static void a_known_good_recipient_is_asked_again_after_an_hour(void **state)
{
    (void)state;
    begin(WINDOW_MS, false);
    await_up();
    take_mail("bob@one.example");
    assert_int_equal(refuse("a@x", "BOB@one.example", RELAY_AT_RECIPIENT, 1), DELIVERY_HELD);
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, (struct spool_handle){2}, 0, &view));
    assert_int_equal(view.next_wall_ms, world.now.wall_ms + HOUR_MS);
    assert_int_equal(until_tried_again(2), HOUR_MS);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_DEAD);
    /* Only at RCPT, and only of that one. */
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_DOT, 0), DELIVERY_DEAD);
    assert_int_equal(refuse("a@x", "eve@one.example", RELAY_AT_RECIPIENT, 1), DELIVERY_DEAD);
    world_close(&world);
}

static void who_is_told_to_let_it_go_need_not_wait_for_the_hour(void **state)
{
    (void)state;
    begin(WINDOW_MS, false);
    await_up();
    take_mail("bob@one.example");
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_RECIPIENT, 1), DELIVERY_HELD);
    assert_int_equal(relay_release(world.relay, (struct spool_handle){2}, 0, world.now),
                     ERROR_NONE);
    world_take(&world);
    struct relay_action job = await_job();
    answer(&job, RELAY_AT_DOT, 250, 0, 0);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_FINISHED);
    world_close(&world);
}

static void one_that_cannot_be_redirected_is_tried_when_it_would_have_been(void **state)
{
    (void)state;
    begin(WINDOW_MS, false);
    world.config.bounces = NO_INDEX; /* no way out of the domains */
    await_up();
    take_mail("bob@one.example");
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_RECIPIENT, 1), DELIVERY_HELD);
    for (int again = 0; again < 2; again++) {
        int64_t due_ms = world.now.wall_ms + (again == 0 ? HOUR_MS : 10 * MINUTE_MS);
        assert_int_equal(relay_redirect(world.relay, (struct spool_handle){2}, 0,
                                        SLICE_LITERAL("bob@elsewhere.example"), world.now),
                         ERROR_INVALID);
        world_take(&world);
        struct relay_delivery_view view;
        assert_true(relay_delivery(world.relay, (struct spool_handle){2}, 0, &view));
        assert_int_equal(view.state, again == 0 ? DELIVERY_HELD : DELIVERY_DEFERRED);
        assert_int_equal(view.next_wall_ms, due_ms);
        struct relay_action job = await_job();
        assert_int_equal(job.handle.index, 2);
        assert_int_equal(world.now.wall_ms, due_ms);
        answer(&job, RELAY_AT_RECIPIENT, 450, 2, 1);
    }
    world_close(&world);
}

/* Of the server, or of the sender: R4 does not know, so it is asked twice. */
static void a_refusal_at_mail_is_asked_again_after_an_hour_and_then_final(void **state)
{
    (void)state;
    begin(WINDOW_MS, false);
    await_up();
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_MAIL, 7), DELIVERY_HELD);
    assert_int_equal(world_held_by_rule(&world), 0);
    for (int again = 0; again < 2; again++) {
        struct relay_delivery_view view;
        assert_true(relay_delivery(world.relay, (struct spool_handle){1}, 0, &view));
        assert_int_equal(view.next_wall_ms, world.now.wall_ms + HOUR_MS);
        int64_t refused_ms = world.now.steady_ms;
        struct relay_action job = await_job();
        assert_int_equal(world.now.steady_ms - refused_ms, HOUR_MS);
        if (again == 0) { /* released by hand meanwhile it is a new one */
            answer(&job, RELAY_AT_MAIL, 451, 0, 0);
            assert_int_equal(relay_retry(world.relay, (struct spool_handle){1}, 0, world.now),
                             ERROR_NONE);
            world_take(&world);
            job = await_job();
        }
        answer(&job, RELAY_AT_MAIL, 550, 7, 1);
        assert_int_equal(world_delivery(&world, 1, 0),
                         again == 0 ? DELIVERY_HELD : DELIVERY_DEAD); /* R8 */
    }
    world_close(&world);

    begin(WINDOW_MS, false); /* in a window: when that is over, and then final, too */
    recover();
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_MAIL, 7), DELIVERY_HELD);
    struct relay_action job = await_job();
    answer(&job, RELAY_AT_MAIL, 550, 7, 1);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    world_close(&world);

    begin(WINDOW_MS, true);
    await_up();
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_MAIL, 7), DELIVERY_HELD);
    assert_int_equal(world_held_by_rule(&world), 1); /* as the operator wants it */
    world_close(&world);
}

/* ---- the breaker ----------------------------------------------------------------------------- */

static enum delivery_state refuse_numbered(uint32_t i, uint32_t senders, enum relay_stage stage,
                                           uint8_t subject)
{
    char sender[32], recipient[32];
    snprintf(sender, sizeof sender, "s%u@x", i % senders);
    snprintf(recipient, sizeof recipient, "b%u@one.example", i);
    return refuse(sender, recipient, stage, subject);
}

static void ten_refusals_that_speak_of_the_server_open_the_breaker(void **state)
{
    (void)state;
    static const struct {
        enum relay_stage stage;
        uint8_t subject;
    } kinds[] = {{RELAY_AT_MAIL, 0},
                 {RELAY_AT_RECIPIENT, 3},
                 {RELAY_AT_RECIPIENT, 4},
                 {RELAY_AT_RECIPIENT, 7}};
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
        begin(0, false);
        await_up();
        for (uint32_t i = 0; i < 9; i++) {
            (void)refuse_numbered(i, 3, kinds[kind].stage, kinds[kind].subject);
            assert_int_equal(world_state(&world, 0), SERVER_UP);
        }
        assert_int_equal(refuse_numbered(9, 3, kinds[kind].stage, kinds[kind].subject),
                         DELIVERY_HELD);
        assert_int_not_equal(world_state(&world, 0), SERVER_UP);
        struct relay_server_view view;
        relay_server(world.relay, 0, &view);
        assert_true(view.breaker_open);
        /* It takes mail again: what was held goes, too. */
        (void)add("z@x", "new@one.example");
        struct relay_action canary = await_job();
        answer(&canary, RELAY_AT_DOT, 250, 0, 0);
        assert_int_equal(world_state(&world, 0), SERVER_UP);
        relay_server(world.relay, 0, &view);
        assert_false(view.breaker_open);
        struct relay_action again = await_job();
        assert_int_equal(again.handle.index, 10);
        world_close(&world);
    }
}

static void a_breaker_needs_many_senders_and_no_success_in_between(void **state)
{
    (void)state;
    begin(0, false);
    await_up();
    for (uint32_t i = 0; i < 30; i++) {
        assert_int_equal(refuse_numbered(i, 2, RELAY_AT_RECIPIENT, 7), DELIVERY_DEAD);
    }
    for (uint32_t i = 0; i < 30; i++) {
        if (i % 9 == 0) {
            take_mail("good@one.example");
        }
        assert_int_equal(refuse_numbered(i, 5, RELAY_AT_RECIPIENT, 7), DELIVERY_DEAD);
    }
    /* Unknown users, and words about content, say nothing about the server. */
    take_mail("good@one.example");
    for (uint32_t i = 0; i < 30; i++) {
        assert_int_equal(refuse_numbered(i, 5, RELAY_AT_RECIPIENT, 1), DELIVERY_DEAD);
        assert_int_equal(refuse_numbered(i, 5, RELAY_AT_DOT, 7), DELIVERY_DEAD);
    }
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    world_close(&world);
}

static void known_good_recipients_refused_open_the_breaker(void **state)
{
    (void)state;
    begin(0, false);
    await_up();
    for (uint32_t i = 0; i < 10; i++) {
        char recipient[32];
        snprintf(recipient, sizeof recipient, "b%u@one.example", i);
        take_mail(recipient);
    }
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(world_state(&world, 0), SERVER_UP);
        assert_int_equal(refuse_numbered(i, 3, RELAY_AT_RECIPIENT, 1), DELIVERY_HELD);
    }
    assert_int_not_equal(world_state(&world, 0), SERVER_UP);
    world_close(&world);
}

/* ---- restarts -------------------------------------------------------------------------------- */

static void carry(void *context, uint32_t delivery, uint16_t kind, struct slice payload)
{
    relay_load_note(context, (struct spool_handle){last_number}, delivery, kind, payload,
                    world.now);
}

/* With the last message and all notes. */
static void reborn(const char *recipient)
{
    struct relay *old = world.relay;
    world_open(&world);
    for (size_t i = 0; i < global_count; i++) {
        relay_load_global(world.relay, slice_from_text(global_keys[i]),
                          slice_make(globals[i], global_lengths[i]), world.now);
    }
    world_insert(&world, last_number, last_number, "a@x", recipient, 0);
    relay_describe(old, (struct spool_handle){last_number}, carry, world.relay);
    relay_free(old);
    relay_start(world.relay, world.now);
    world_take(&world);
    job_count = 0;
}

static void a_restart_forgets_neither_the_recovery_nor_the_hour(void **state)
{
    (void)state;
    begin(WINDOW_MS, false);
    recover();
    int64_t up_ms = world.now.steady_ms;
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_DOT, 0), DELIVERY_HELD);
    world_wait(&world, MINUTE_MS);
    respond();
    reborn("bob@one.example");
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
    assert_int_equal(refuse("a@x", "eve@one.example", RELAY_AT_DOT, 0), DELIVERY_HELD);
    (void)until_tried_again(1);
    assert_int_equal(world.now.steady_ms - up_ms, WINDOW_MS);
    world_close(&world);

    begin(WINDOW_MS, false);
    await_up();
    take_mail("bob@one.example");
    assert_int_equal(refuse("a@x", "bob@one.example", RELAY_AT_RECIPIENT, 1), DELIVERY_HELD);
    int64_t refused_ms = world.now.steady_ms;
    world_wait(&world, MINUTE_MS);
    respond();
    reborn("bob@one.example");
    (void)until_tried_again(2);
    assert_int_equal(world.now.steady_ms - refused_ms, HOUR_MS);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_DEAD);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(for_a_while_after_its_recovery_a_server_is_not_believed),
        cmocka_unit_test(what_waited_for_it_is_held_until_all_that_waited_has_gone),
        cmocka_unit_test(without_a_window_new_mail_is_refused_for_good),
        cmocka_unit_test(a_second_outage_begins_it_anew),
        cmocka_unit_test(one_brought_back_by_hand_is_not_believed_at_once),
        cmocka_unit_test(the_operator_may_want_to_decide_himself),
        cmocka_unit_test(a_known_good_recipient_is_asked_again_after_an_hour),
        cmocka_unit_test(a_refusal_at_mail_is_asked_again_after_an_hour_and_then_final),
        cmocka_unit_test(who_is_told_to_let_it_go_need_not_wait_for_the_hour),
        cmocka_unit_test(one_that_cannot_be_redirected_is_tried_when_it_would_have_been),
        cmocka_unit_test(ten_refusals_that_speak_of_the_server_open_the_breaker),
        cmocka_unit_test(a_breaker_needs_many_senders_and_no_success_in_between),
        cmocka_unit_test(known_good_recipients_refused_open_the_breaker),
        cmocka_unit_test(a_restart_forgets_neither_the_recovery_nor_the_hour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
