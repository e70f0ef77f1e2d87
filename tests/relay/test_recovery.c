/* SPDX-License-Identifier: Apache-2.0
 *
 * Hours with servers that are half well (R3 to R5), minute by minute: a message that they break off
 * at, refusals and deferrals of everything, hangs, a repair that nobody tells us of. What must come
 * out is mail: all of it that the server would take, soon, and no storm of probes or changes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spool/spool.h"
#include "world.h"

enum { SECOND_MS = 1000, MINUTE_MS = 60 * SECOND_MS, HOUR_MS = 60 * MINUTE_MS };

static struct world world;

/* ---- servers that answer -------------------------------------------------------------------- */

enum { QUEUE_MAX = 4096, MESSAGES_MAX = 2048, HANGS_MAX = 8 };

/* How a server answers a delivery; `after_ms` later. */
struct answer {
    enum relay_verdict verdict;
    enum relay_stage stage;
    enum relay_how how;
    uint16_t code;
    uint8_t enhanced[3];
    int64_t after_ms;
};

static const struct answer takes = {RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250, {0}, 0};

typedef struct answer answer_fn(const struct relay_action *deliver);

static struct relay_action queue[QUEUE_MAX];
static uint32_t queue_count;
static struct {
    struct relay_action job;
    struct answer answer;
    int64_t due_ms; /* 0: free */
} hangs[HANGS_MAX];
static bool greets[WORLD_SERVERS];
static int64_t first_taken_ms; /* steady; 0: none was */
static uint32_t taken[WORLD_SERVERS], tries[MESSAGES_MAX], connects[WORLD_SERVERS];
static uint32_t changes, stops, resumes, switches;
static int64_t taken_ms[MESSAGES_MAX], added_ms[MESSAGES_MAX];

/* What the last input made relay ask for. */
static void gather(void)
{
    for (size_t i = 0; i < world.action_count; i++) {
        const struct relay_action *action = &world.actions[i];
        changes += action->kind == RELAY_EVENT && action->event == RELAY_EVENT_SERVER &&
                   action->server == 0;
        stops += action->kind == RELAY_EVENT && action->event == RELAY_EVENT_STOPPED;
        resumes += action->kind == RELAY_EVENT && action->event == RELAY_EVENT_DRAINING;
        switches += action->kind == RELAY_EVENT && action->event == RELAY_EVENT_SWITCHED;
        if (action->kind == RELAY_CONNECT || action->kind == RELAY_CLOSE ||
            action->kind == RELAY_DELIVER) {
            assert_true(queue_count < QUEUE_MAX);
            queue[queue_count++] = *action;
            queue[queue_count - 1].deliveries = NULL; /* valid until the next input */
        }
    }
    world.action_count = 0;
}

static void begin(uint32_t chain_length)
{
    world_configure(&world);
    world.routes[0].chain_length = chain_length;
    queue_count = 0;
    memset(hangs, 0, sizeof hangs);
    memset(greets, 0, sizeof greets);
    memset(taken, 0, sizeof taken);
    memset(tries, 0, sizeof tries);
    memset(taken_ms, 0, sizeof taken_ms);
    memset(connects, 0, sizeof connects);
    first_taken_ms = 0;
}

static void start(void)
{
    world_start(&world);
    changes = stops = resumes = switches = 0;
    gather();
}

static void add_from(uint32_t number, const char *sender, const char *recipient)
{
    assert_true(number < MESSAGES_MAX);
    added_ms[number] = world.now.steady_ms;
    world_add(&world, number, sender, recipient, 0);
    gather();
}

/* From a sender of its own, too. */
static void add_own(uint32_t number)
{
    char sender[32], recipient[32];
    snprintf(sender, sizeof sender, "s%u@x", number);
    snprintf(recipient, sizeof recipient, "r%u@one.example", number);
    add_from(number, sender, recipient);
}

/* The session is over, and with it what else was to go there. */
static void end_session(uint32_t session, const struct answer *answer)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < queue_count; i++) {
        if (queue[i].session != session) {
            queue[kept++] = queue[i];
        }
    }
    queue_count = kept;
    world_ended(&world, session, answer->stage, answer->how, answer->code);
    gather();
}

static void give_answer(const struct relay_action *job, const struct answer *answer)
{
    uint32_t number = job->handle.index;
    if (answer->verdict == RELAY_ACCEPTED) {
        taken[job->server]++;
        taken_ms[number] = world.now.steady_ms;
        first_taken_ms = first_taken_ms == 0 ? world.now.steady_ms : first_taken_ms;
    }
    struct relay_delivery_result result = {.delivery = job->delivery,
                                           .verdict = answer->verdict,
                                           .reply = {.stage = answer->stage,
                                                     .how = answer->how,
                                                     .code = answer->code,
                                                     .text = SLICE_LITERAL("said so")}};
    memcpy(result.reply.enhanced, answer->enhanced, sizeof answer->enhanced);
    relay_result(world.relay, job->job, job->session, false, &result, 1, world.now);
    world_take(&world);
    gather();
    if (answer->code == 421 || answer->how != RELAY_REPLY) {
        end_session(job->session, answer);
    }
}

static void deliver(const struct relay_action *job, answer_fn *answer)
{
    tries[job->handle.index]++;
    struct answer given = answer(job);
    if (given.after_ms == 0) {
        give_answer(job, &given);
        return;
    }
    size_t i = 0;
    while (hangs[i].due_ms != 0) {
        assert_true(++i < HANGS_MAX);
    }
    hangs[i].job = *job;
    hangs[i].answer = given;
    hangs[i].due_ms = world.now.steady_ms + given.after_ms;
}

static void answer_one(answer_fn *answer)
{
    struct relay_action action = queue[0];
    memmove(queue, queue + 1, --queue_count * sizeof queue[0]);
    if (action.kind == RELAY_DELIVER) {
        deliver(&action, answer);
        return;
    }
    if (action.kind == RELAY_CLOSE) {
        world_ended(&world, action.session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    } else {
        connects[action.server]++;
        if (greets[action.server]) {
            world_opened(&world, action.session);
        } else {
            world_ended(&world, action.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
        }
    }
    gather();
}

static void answer_late(void)
{
    for (size_t i = 0; i < HANGS_MAX; i++) {
        if (hangs[i].due_ms != 0 && hangs[i].due_ms <= world.now.steady_ms) {
            hangs[i].due_ms = 0;
            give_answer(&hangs[i].job, &hangs[i].answer);
        }
    }
}

static void run(int64_t ms, answer_fn *answer)
{
    int64_t end = world.now.steady_ms + ms;
    while (world.now.steady_ms < end) {
        while (queue_count > 0) {
            answer_one(answer);
        }
        int64_t left = end - world.now.steady_ms;
        world_wait(&world, left < 100 ? left : 100);
        gather();
        answer_late();
    }
}

static struct answer take_all(const struct relay_action *deliver)
{
    (void)deliver;
    return takes;
}

/* m1 has been down for a moment, and is up again or about to be. */
static void come_back(uint32_t chain_length)
{
    begin(chain_length);
    start();
    run(3 * SECOND_MS, take_all);
    assert_int_equal(world_state(&world, 0), SERVER_DOWN);
}

/* ---- a message that the server breaks off at ------------------------------------------------- */

static struct answer poison;

static struct answer poisoned_by_the_first(const struct relay_action *deliver)
{
    return deliver->handle.index == 1 ? poison : takes;
}

static void one_message_that_is_broken_off_at_stops_no_others(void **state)
{
    (void)state;
    static const struct answer poisons[] = {
        {RELAY_REFUSED, RELAY_AT_MAIL, RELAY_REPLY, 421, {0}, 0},
        {RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 421, {4, 7, 0}, 0},
        {RELAY_REFUSED, RELAY_AT_DATA, RELAY_REPLY, 421, {0}, 0},
        {RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 530, {0}, 0},
        {RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 535, {0}, 0},
        {RELAY_CUT, RELAY_AT_RECIPIENT, RELAY_LOST, 0, {0}, 0},
    };
    for (size_t i = 0; i < sizeof poisons / sizeof poisons[0]; i++) {
        come_back(1);
        poison = poisons[i];
        for (uint32_t number = 1; number <= 11; number++) {
            add_own(number);
        }
        greets[0] = true;
        run(MINUTE_MS, poisoned_by_the_first);
        assert_int_equal(taken[0], 10);
        assert_in_range(tries[1], 2, 3); /* what was deferred meanwhile is due when it is up */
        assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
        assert_int_equal(world_state(&world, 0), SERVER_UP);
        /* It goes on by its schedule, and breaks nothing any more. */
        changes = 0;
        run(6 * HOUR_MS, poisoned_by_the_first);
        assert_in_range(tries[1], 5, 12);
        assert_int_equal(changes, 0);
        world_close(&world);
    }
}

static struct answer break_off_at_all(const struct relay_action *deliver)
{
    (void)deliver;
    return poison;
}

static void one_that_breaks_off_at_all_of_them_is_down_and_forgiven_when_repaired(void **state)
{
    (void)state;
    come_back(1);
    poison = (struct answer){RELAY_REFUSED, RELAY_AT_MAIL, RELAY_REPLY, 421, {0}, 0};
    for (uint32_t number = 1; number <= 3; number++) {
        add_own(number);
    }
    greets[0] = true;
    run(HOUR_MS, break_off_at_all);
    assert_int_not_equal(world_state(&world, 0), SERVER_UP);
    assert_in_range(tries[1] + tries[2] + tries[3], 6, 60 * 6);
    assert_int_equal(taken[0], 0);
    run(2 * MINUTE_MS, take_all);
    assert_int_equal(taken[0], 3);
    world_close(&world);
}

/* All of a message's recipients, but the one who is broken off at, get it by and by. */
static void a_recipient_who_is_broken_off_at_keeps_it_from_no_others(void **state)
{
    (void)state;
    static const struct answer off = {RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 421, {0}, 0};
    come_back(1);
    add_from(1, "a@x", "ann@one.example bob@one.example eve@one.example");
    greets[0] = true;
    uint32_t alone = 0;
    for (int64_t left = 2 * HOUR_MS; left > 0; left -= 100) {
        while (queue_count > 0 && queue[0].kind != RELAY_DELIVER) {
            answer_one(take_all);
        }
        if (queue_count == 0) {
            world_wait(&world, 100);
            gather();
            continue;
        }
        struct relay_action job = queue[0];
        memmove(queue, queue + 1, --queue_count * sizeof queue[0]);
        uint32_t numbers[3] = {0, 1, 2};
        job.deliveries = job.delivery_count == 1 ? &job.delivery : numbers;
        if (job.delivery_count == 1 && job.delivery != 1) {
            alone++;
            world_result(&world, &job, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
            gather();
        } else { /* bob is among them */
            world_result(&world, &job, off.verdict, off.stage, off.how, off.code);
            gather();
            end_session(job.session, &off);
        }
    }
    assert_int_equal(alone, 2);
    assert_int_equal(world_delivery(&world, 1, 1), DELIVERY_DEFERRED);
    world_close(&world);
}

static uint32_t turn_count;

static struct answer break_off_at_every_other(const struct relay_action *deliver)
{
    (void)deliver;
    return ++turn_count % 2 == 0 ? poison : takes;
}

static void changes_of_state_have_their_time_whatever_the_trouble(void **state)
{
    (void)state;
    static const struct answer offs[] = {
        {RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 421, {4, 7, 0}, 0},
        {RELAY_NOT_TRIED, RELAY_AT_IDLE, RELAY_LOST, 0, {0}, 0}, /* hangs up after EHLO */
    };
    for (size_t i = 0; i < sizeof offs / sizeof offs[0]; i++) {
        come_back(1);
        greets[0] = true;
        for (uint32_t number = 1; number < 1000; number++) {
            add_own(number);
        }
        changes = 0;
        poison = offs[i];
        run(MINUTE_MS, break_off_at_every_other);
        assert_in_range(changes, 4, 40);
        run(HOUR_MS, take_all);
        assert_int_equal(taken[0], 999);
        world_close(&world);
    }
}

static void a_stop_is_over_when_something_was_taken_not_when_it_answers(void **state)
{
    (void)state;
    begin(1);
    start();
    poison = (struct answer){RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 554, {0}, 0};
    for (uint32_t number = 1; number <= 50; number++) {
        add_own(number);
    }
    run(3 * SECOND_MS, take_all);
    assert_int_equal(stops, 1);
    greets[0] = true;
    run(10 * MINUTE_MS, break_off_at_all);
    assert_in_range(changes, 4, 100);
    assert_int_equal(stops, 1);
    assert_int_equal(resumes, 0);
    run(2 * MINUTE_MS, take_all);
    assert_int_equal(stops, 1);
    assert_int_equal(resumes, 1);
    world_close(&world);
}

/* ---- many for one whom it does not take mail for --------------------------------------------- */

static struct answer refuse_nobody_at_all(const struct relay_action *deliver)
{
    static const struct answer refuses = {RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY,
                                          550,           {5, 1, 1},          0};
    return deliver->handle.index <= 1000 ? refuses : takes;
}

static void much_mail_for_unknown_recipients_keeps_it_down_for_no_others(void **state)
{
    (void)state;
    for (uint32_t unknown = 1; unknown <= 10; unknown += 9) {
        come_back(1);
        for (uint32_t number = 1; number <= 1000; number++) {
            char recipient[32];
            snprintf(recipient, sizeof recipient, "nobody%u@one.example", number % unknown);
            add_from(number, "spam@x", recipient);
        }
        for (uint32_t number = 1001; number <= 1020; number++) {
            add_own(number);
        }
        int64_t began = world.now.steady_ms;
        greets[0] = true;
        run(MINUTE_MS, refuse_nobody_at_all);
        assert_int_equal(taken[0], 20);
        assert_in_range(first_taken_ms - began, 0, 30 * SECOND_MS);
        world_close(&world);
    }
}

static struct answer greylist(const struct relay_action *deliver)
{
    (void)deliver;
    return (struct answer){RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450, {4, 7, 1}, 0};
}

static uint32_t first_tried;

static struct answer note_the_first(const struct relay_action *deliver)
{
    first_tried = first_tried == 0 ? deliver->handle.index : first_tried;
    return takes;
}

static void the_canary_is_small_however_many_have_come_back(void **state)
{
    (void)state;
    enum { DEFERRED = 200 };
    come_back(1);
    greets[0] = true;
    run(5 * SECOND_MS, take_all);
    for (uint32_t number = 1; number <= DEFERRED; number++) {
        char recipient[32];
        snprintf(recipient, sizeof recipient, "r%u@one.example", number);
        struct spool_recipient to = {.address = slice_from_text(recipient)};
        struct spool_message message = {.sequence = number,
                                        .received_ms = world.now.wall_ms,
                                        .body_length = number <= 3 ? 50 << 20 : 1000,
                                        .sender = SLICE_LITERAL("a@x"),
                                        .recipients = &to,
                                        .recipient_count = 1};
        assert_true(ip_from_text(SLICE_LITERAL("203.0.113.7"), &message.origin.client.address));
        assert_int_equal(relay_add(world.relay, (struct spool_handle){number}, &message, world.now),
                         ERROR_NONE);
        world_take(&world);
        gather();
        run(100, greylist);
        assert_int_equal(world_delivery(&world, number, 0), DELIVERY_DEFERRED);
    }
    greets[0] = false;
    run(15 * MINUTE_MS, take_all);
    assert_int_equal(world_state(&world, 0), SERVER_DOWN);
    greets[0] = true;
    first_tried = 0;
    run(MINUTE_MS, note_the_first);
    assert_int_equal(first_tried, 4);
    assert_int_equal(taken[0], DEFERRED);
    world_close(&world);
}

/* ---- all deferred, and repaired ---------------------------------------------------------------
 */

static void what_was_deferred_is_tried_soon_after_the_repair(void **state)
{
    (void)state;
    for (uint32_t messages = 1; messages <= 12; messages += 11) {
        come_back(1);
        world.retry_ms[1] = 600000;
        world.retry_ms[2] = 24 * HOUR_MS; /* the classical schedule */
        greets[0] = true;
        run(5 * SECOND_MS, take_all);
        poison = (struct answer){RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 452, {4, 3, 1}, 0};
        for (uint32_t number = 1; number <= messages; number++) {
            add_own(number);
        }
        if (messages == 1) { /* a single one is no server's trouble: another sees to that */
            run(SECOND_MS, break_off_at_all);
            poison = (struct answer){RELAY_CUT, RELAY_AT_CONTENT, RELAY_LOST, 0, {0}, 0};
            add_own(2);
            run(SECOND_MS, break_off_at_all);
            poison = (struct answer){RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 452, {4, 3, 1}, 0};
        }
        run(8 * HOUR_MS, break_off_at_all);
        assert_int_not_equal(world_state(&world, 0), SERVER_UP);
        uint32_t tried = 0;
        for (uint32_t number = 1; number <= 12; number++) {
            tried += tries[number];
        }
        assert_in_range(tried, 100, 5 * 60 * 8);
        struct relay_delivery_view view;
        assert_true(relay_delivery(world.relay, (struct spool_handle){1}, 0, &view));
        assert_in_range(view.attempts, 1, 4); /* by its schedule, not by what it was used for */
        run(2 * MINUTE_MS, take_all);
        assert_int_equal(world_state(&world, 0), SERVER_UP);
        assert_int_equal(taken[0], messages == 1 ? 2 : messages);
        world_close(&world);
    }
}

static struct answer refuse_the_first_and_defer(const struct relay_action *deliver)
{
    static const struct answer refuses = {RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY,
                                          550,           {5, 1, 1},          0};
    return deliver->handle.index <= 3 ? refuses : poison;
}

static struct answer refuse_the_first(const struct relay_action *deliver)
{
    poison = takes;
    return refuse_the_first_and_defer(deliver);
}

static void unknown_recipients_that_are_held_do_not_hide_the_repair(void **state)
{
    (void)state;
    come_back(1);
    greets[0] = true;
    poison = (struct answer){RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 452, {4, 3, 1}, 0};
    for (uint32_t number = 1; number <= 8; number++) {
        add_own(number);
    }
    run(8 * HOUR_MS, refuse_the_first_and_defer);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
    run(3 * MINUTE_MS, refuse_the_first);
    assert_int_equal(taken[0], 5);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    world_close(&world);
}

/* ---- a server that hangs --------------------------------------------------------------------- */

static struct answer silent_at_the_dot(const struct relay_action *deliver)
{
    static const struct answer silent = {RELAY_IN_DOUBT, RELAY_AT_DOT, RELAY_TIMEOUT, 0, {0},
                                         10 * MINUTE_MS};
    return deliver->server == 0 ? silent : takes;
}

/* All its sessions wait for a reply, and it lets nobody in any more: that is found out, though
 * there is no room for a probe. */
static void one_whose_sessions_are_all_silent_is_asked_beyond_its_limit(void **state)
{
    (void)state;
    for (uint32_t limit = 1; limit <= 2; limit++) {
        begin(2);
        world.servers[0].connections = limit;
        start();
        greets[0] = greets[1] = true;
        run(5 * SECOND_MS, take_all);
        assert_int_equal(world_state(&world, 0), SERVER_UP);
        for (uint32_t number = 1; number <= limit; number++) {
            add_own(number);
            run(SECOND_MS, silent_at_the_dot);
        }
        greets[0] = false;
        add_own(10);
        run(65 * SECOND_MS, silent_at_the_dot);
        assert_int_not_equal(world_state(&world, 0), SERVER_UP);
        assert_int_not_equal(taken_ms[10], 0);
        world_close(&world);
    }
}

/* It is well, only busy: a session beyond its limit is closed again, and none is made while it
 * speaks. */
static void one_that_is_busy_and_well_keeps_its_limit(void **state)
{
    (void)state;
    begin(2);
    world.servers[0].connections = 1;
    start();
    greets[0] = greets[1] = true;
    run(5 * SECOND_MS, take_all);
    add_own(1);
    run(SECOND_MS, silent_at_the_dot);
    connects[0] = 0;
    add_own(2);
    run(50 * SECOND_MS, silent_at_the_dot);
    assert_int_equal(connects[0], 0);
    run(8 * MINUTE_MS, silent_at_the_dot);
    assert_in_range(connects[0], 6, 10);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    assert_int_equal(taken_ms[2], 0); /* no overflow (R4) */
    struct relay_server_view view;
    relay_server(world.relay, 0, &view);
    assert_int_equal(view.sessions, 1);
    world_close(&world);
}

static struct answer hang_at_the_head(const struct relay_action *deliver)
{
    static const struct answer hangs_at_mail = {RELAY_CUT, RELAY_AT_MAIL, RELAY_TIMEOUT,
                                                0,         {0},           5 * MINUTE_MS};
    return deliver->server == 0 ? hangs_at_mail : takes;
}

static void one_that_hangs_costs_its_canary_and_nobody_else(void **state)
{
    (void)state;
    begin(2);
    start();
    greets[1] = true;
    run(5 * SECOND_MS, take_all);
    greets[0] = true;
    run(5 * SECOND_MS, take_all);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    assert_int_equal(world_state(&world, 1), SERVER_UP);
    switches = 0;
    uint32_t last = 360;
    for (uint32_t number = 1; number <= last; number++) { /* an hour */
        add_own(number);
        run(10 * SECOND_MS, hang_at_the_head);
    }
    uint32_t late = 0;
    for (uint32_t number = 1; number <= last - 40; number++) {
        assert_int_not_equal(taken_ms[number], 0);
        late += taken_ms[number] - added_ms[number] > 10 * SECOND_MS;
    }
    /* Those of the first five minutes have waited for the verdict; then one at a time. */
    assert_in_range(late, 30, 48);
    assert_in_range(taken[1], last - 8, last);
    assert_in_range(switches, 1, 2);
    /* It is well again: the canary shows it, and all mail goes there. */
    run(10 * MINUTE_MS, take_all);
    uint32_t before = taken[0];
    switches = 0;
    for (uint32_t number = last + 1; number <= last + 60; number++) {
        add_own(number);
        run(10 * SECOND_MS, take_all);
    }
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    assert_in_range(taken[0] - before, 50, 60);
    assert_in_range(switches, 0, 1);
    world_close(&world);
}

/* ---- mail that comes back -------------------------------------------------------------------- */

static void mail_that_comes_back_does_not_put_off_the_probe(void **state)
{
    (void)state;
    come_back(1);
    struct spool_recipient recipient = {.address = SLICE_LITERAL("bob@one.example")};
    struct spool_message message = {
        .sender = SLICE_LITERAL("a@x"), .recipients = &recipient, .recipient_count = 1};
    message.origin.client.address = world.addresses[0].literal;
    greets[0] = true;
    for (uint32_t i = 0; i < 900; i++) { /* an hour */
        message.received_ms = world.now.wall_ms;
        assert_true(relay_loop(world.relay, &message, world.now));
        world_take(&world);
        gather();
        run(4 * SECOND_MS, take_all);
    }
    assert_in_range(connects[0], 50, 400);
    run(2 * MINUTE_MS, take_all);
    assert_int_not_equal(world_state(&world, 0), SERVER_DOWN);
    add_own(1);
    run(2 * MINUTE_MS, take_all);
    assert_int_equal(taken[0], 1);
    world_close(&world);
}

/* ---- what no server has said ----------------------------------------------------------------- */

static struct answer cannot_be_said(const struct relay_action *deliver)
{
    (void)deliver;
    return (struct answer){RELAY_REFUSED, RELAY_AT_MAIL, RELAY_LOCAL, 553, {5, 6, 7}, 0};
}

static void refusals_of_our_own_are_not_the_servers(void **state)
{
    (void)state;
    come_back(1);
    greets[0] = true;
    run(5 * SECOND_MS, take_all);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    changes = 0;
    for (uint32_t number = 1; number <= 20; number++) {
        add_own(number);
        run(SECOND_MS, cannot_be_said);
        assert_int_equal(world_delivery(&world, number, 0), DELIVERY_DEAD);
    }
    assert_int_equal(changes, 0);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_message_that_is_broken_off_at_stops_no_others),
        cmocka_unit_test(one_that_breaks_off_at_all_of_them_is_down_and_forgiven_when_repaired),
        cmocka_unit_test(a_recipient_who_is_broken_off_at_keeps_it_from_no_others),
        cmocka_unit_test(changes_of_state_have_their_time_whatever_the_trouble),
        cmocka_unit_test(a_stop_is_over_when_something_was_taken_not_when_it_answers),
        cmocka_unit_test(much_mail_for_unknown_recipients_keeps_it_down_for_no_others),
        cmocka_unit_test(the_canary_is_small_however_many_have_come_back),
        cmocka_unit_test(what_was_deferred_is_tried_soon_after_the_repair),
        cmocka_unit_test(unknown_recipients_that_are_held_do_not_hide_the_repair),
        cmocka_unit_test(one_whose_sessions_are_all_silent_is_asked_beyond_its_limit),
        cmocka_unit_test(one_that_is_busy_and_well_keeps_its_limit),
        cmocka_unit_test(one_that_hangs_costs_its_canary_and_nobody_else),
        cmocka_unit_test(mail_that_comes_back_does_not_put_off_the_probe),
        cmocka_unit_test(refusals_of_our_own_are_not_the_servers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
