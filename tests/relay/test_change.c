/* SPDX-License-Identifier: Apache-2.0
 *
 * Servers that go, move, come back or are taken out by hand, over reloads and restarts: what
 * becomes of mail that was held, deferred or in doubt for their sake, and of what was known of
 * them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/notes.h"
#include "world.h"

enum { QUEUE = 1024, KEYS = 16, MINUTE_MS = 60000, HOUR_MS = 60 * MINUTE_MS };
enum { M1 = 1, M2 = 2 }; /* servers that answer, as a set */
static const struct spool_handle one = {1};

static struct world world;
/* Actions to be answered, in order; a job's message has one recipient. */
static struct relay_action queue[QUEUE];
static uint32_t queue_count;
static uint32_t switches; /* told */
static struct {
    char key[SPOOL_KEY_MAX + 1];
    uint8_t payload[400];
    size_t length;
} globals[KEYS];
static uint32_t global_count;

static void keep_global(const struct relay_action *action)
{
    uint32_t at = 0;
    while (at < global_count && !slice_equal(slice_from_text(globals[at].key), action->key)) {
        at++;
    }
    assert_true(at < KEYS && action->payload.length <= sizeof globals[at].payload);
    snprintf(globals[at].key, sizeof globals[at].key, "%.*s", SLICE_PRINT(action->key));
    globals[at].length = action->payload.length;
    if (action->payload.length > 0) {
        memcpy(globals[at].payload, action->payload.data, action->payload.length);
    }
    global_count += at == global_count;
}

/* What the last input has brought. */
static void gather(void)
{
    for (size_t i = 0; i < world.action_count; i++) {
        const struct relay_action *action = &world.actions[i];
        if (action->kind == RELAY_GLOBAL) {
            keep_global(action);
        } else if (action->kind == RELAY_CONNECT || action->kind == RELAY_CLOSE ||
                   action->kind == RELAY_DELIVER) {
            assert_true(queue_count < QUEUE);
            queue[queue_count++] = *action;
        }
        switches += action->kind == RELAY_EVENT && action->event == RELAY_EVENT_SWITCHED;
    }
    world.action_count = 0;
}

/* relay was called by hand. */
static void take(void)
{
    world_take(&world);
    gather();
}

static void forget_all(void)
{
    queue_count = global_count = switches = 0;
}

static void start(void)
{
    forget_all();
    world_configure(&world);
    world_start(&world);
    gather();
}

/* One step: servers in `up` answer, the others refuse. True: a job came out. */
static bool step(unsigned up, int64_t wait_ms, struct relay_action *ret_job)
{
    if (queue_count == 0) {
        world_wait(&world, wait_ms);
        gather();
        return false;
    }
    struct relay_action action = queue[0];
    memmove(queue, queue + 1, --queue_count * sizeof queue[0]);
    if (action.kind == RELAY_DELIVER) {
        *ret_job = action;
        return true;
    }
    if (action.kind == RELAY_CLOSE) {
        world_ended(&world, action.session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
    } else if ((up & 1u << action.server) != 0) {
        world_opened(&world, action.session);
    } else {
        world_ended(&world, action.session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    }
    gather();
    return false;
}

static bool await_job(unsigned up, int64_t most_ms, struct relay_action *ret_job)
{
    int64_t end = world.now.steady_ms + most_ms;
    while (world.now.steady_ms < end) {
        if (step(up, end - world.now.steady_ms < 500 ? end - world.now.steady_ms : 500, ret_job)) {
            return true;
        }
    }
    return false;
}

/* Nothing may be sent meanwhile. */
static void pass(unsigned up, int64_t ms)
{
    struct relay_action job;
    assert_false(await_job(up, ms, &job));
}

static void add(uint32_t number, const char *recipient)
{
    world_add(&world, number, "a@x", recipient, 0);
    gather();
}

static void say(const struct relay_action *job, enum relay_verdict verdict, enum relay_stage stage,
                enum relay_how how, uint16_t code)
{
    struct relay_delivery_result result = {
        .delivery = job->delivery,
        .verdict = verdict,
        .reply = {.stage = stage, .how = how, .code = code, .text = SLICE_LITERAL("so")}};
    relay_result(world.relay, job->job, job->session, false, &result, 1, world.now);
    take();
}

static void refuse(const struct relay_action *job, enum relay_stage stage, uint16_t code)
{
    say(job, RELAY_REFUSED, stage, RELAY_REPLY, code);
}

static void accept_job(const struct relay_action *job)
{
    say(job, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
}

/* ---- restarts and reloads -------------------------------------------------------------------- */

static void carry(void *context, uint32_t delivery, uint16_t kind, struct slice payload)
{
    relay_load_note(context, one, delivery, kind, payload, world.now);
}

/* A new life with what was noted, and message 1 as it was, if it is for `recipient`. */
static void reborn(const char *recipient)
{
    struct relay *old = world.relay;
    world_open(&world);
    for (uint32_t i = 0; i < global_count; i++) {
        relay_load_global(world.relay, slice_from_text(globals[i].key),
                          slice_make(globals[i].payload, globals[i].length), world.now);
    }
    if (recipient != NULL) {
        world_insert(&world, 1, 1, "a@x", recipient, 0);
        relay_describe(old, one, carry, world.relay);
    }
    relay_free(old);
    queue_count = 0;
    relay_start(world.relay, world.now);
    take();
}

enum change { MOVED, RENAMED, OUT_OF_CHAINS, GONE };

/* The configuration with m1 at another port, under another name, in no chain, or not there. */
static const struct relay_config *changed(enum change change)
{
    static struct relay_config second;
    static struct server_config servers[WORLD_SERVERS];
    static struct server_address elsewhere;
    static struct route_config routes[WORLD_ROUTES];
    static const uint32_t last[] = {2}, first[] = {0};
    second = world.config;
    memcpy(servers, world.servers, sizeof servers);
    memcpy(routes, world.routes, sizeof routes);
    elsewhere = world.addresses[0];
    elsewhere.port = 2525;
    servers[0].addresses = change == MOVED ? &elsewhere : &world.addresses[0];
    servers[0].name = change == RENAMED ? SLICE_LITERAL("new") : servers[0].name;
    second.servers = change == GONE ? servers + 1 : servers;
    second.server_count = change == GONE ? WORLD_SERVERS - 1 : WORLD_SERVERS;
    for (uint32_t i = 0; i < WORLD_ROUTES && change >= OUT_OF_CHAINS; i++) {
        routes[i].chain = change == GONE ? first : last;
        routes[i].chain_length = 1;
        second.routes = routes;
    }
    return &second;
}

static void reload(const struct relay_config *config)
{
    assert_int_equal(relay_reconfigure(world.relay, config, NULL, world.now), ERROR_NONE);
    take();
}

/* ---- a refusal that is held ------------------------------------------------------------------ */

/* m1 comes back and refuses message 1, while m2 is up or not. */
static void held_for_m1(unsigned others_up)
{
    struct relay_action job;
    start();
    pass(others_up, 5000);
    while (world_state(&world, 0) != SERVER_RECOVERING) {
        assert_false(step(others_up | M1, 100, &job));
    }
    add(1, "bob@one.example");
    assert_true(await_job(others_up | M1, 1000, &job));
    assert_int_equal(job.server, 0);
    refuse(&job, RELAY_AT_RECIPIENT, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
}

static void a_held_refusal_goes_to_the_next_server_when_its_own_goes_away(void **state)
{
    (void)state;
    for (int by_hand = 0; by_hand < 2; by_hand++) {
        struct relay_action job;
        held_for_m1(M2);
        if (by_hand) {
            assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
            take();
        }
        assert_true(await_job(M2, 10000, &job));
        assert_int_equal(job.server, 1);
        assert_int_equal(job.handle.index, 1);
        refuse(&job, RELAY_AT_RECIPIENT, 550); /* and that one is believed */
        assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
        world_close(&world);
    }
}

/* The next server may come back later than its own goes, or while nothing runs. */
static void a_held_refusal_goes_to_a_server_that_comes_back_first(void **state)
{
    (void)state;
    for (int restarted = 0; restarted < 2; restarted++) {
        struct relay_action job;
        held_for_m1(0);
        pass(0, 5000);
        assert_int_equal(world_state(&world, 0), SERVER_DOWN);
        assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
        if (restarted) {
            reborn("bob@one.example");
        }
        assert_true(await_job(M2, 10000, &job));
        assert_int_equal(job.server, 1);
        accept_job(&job);
        world_close(&world);
    }
}

static void with_its_server_taken_out_by_hand_a_held_refusal_waits_like_all_mail(void **state)
{
    (void)state;
    held_for_m1(0);
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    take();
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    world_close(&world);
}

static void a_held_refusal_does_not_wait_for_a_server_out_of_its_chain(void **state)
{
    (void)state;
    struct relay_action job;
    held_for_m1(0);
    reload(changed(OUT_OF_CHAINS));
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    assert_true(await_job(7, 10000, &job));
    assert_int_equal(job.server, 2);
    world_close(&world);
}

/* ---- what is known of a server over a restart
 * ---------------------------------------------------- */

static void a_restart_does_not_forget_what_a_server_has_to_prove(void **state)
{
    (void)state;
    for (int waits = 0; waits < 2; waits++) { /* for its next canary: it is down, or recovering */
        struct relay_action job;
        start();
        pass(M1, 4000);
        add(1, "bob@one.example");
        assert_true(await_job(M1, 1000, &job));
        refuse(&job, RELAY_AT_MAIL, 535);
        while (world_state(&world, 0) != SERVER_DOWN) {
            if (step(M1, 200, &job)) {
                refuse(&job, RELAY_AT_MAIL, 535);
            }
        }
        assert_int_equal(relay_discard(world.relay, one, 0, SLICE_EMPTY, world.now), ERROR_NONE);
        take();
        if (waits) {
            pass(M1, MINUTE_MS);
            assert_int_equal(world_state(&world, 0), SERVER_RECOVERING);
        }
        reborn(NULL);
        pass(M1, 5 * MINUTE_MS);
        assert_int_equal(world_state(&world, 0), SERVER_RECOVERING);
        add(2, "bob@one.example");
        assert_true(await_job(M1, MINUTE_MS, &job));
        accept_job(&job);
        assert_int_equal(world_state(&world, 0), SERVER_UP);
        reborn(NULL);
        assert_int_equal(world_state(&world, 0), SERVER_UP);
        world_close(&world);
    }
}

/* What an older version has written says nothing of it. */
static void a_state_without_its_trouble_is_read(void **state)
{
    (void)state;
    forget_all();
    world_configure(&world);
    world_open(&world);
    struct buffer note;
    struct state_note read;
    buffer_init(&note, 0);
    const struct state_note down = {
        .state = SERVER_DOWN, .since_ms = 5, .reason = SLICE_LITERAL("why"), .trouble = 3};
    note_encode_state(&note, &down);
    assert_true(note_decode_state(buffer_slice(&note), &read));
    assert_int_equal(read.trouble, 3);
    struct slice old = slice_take(buffer_slice(&note), note.length - 1);
    assert_true(note_decode_state(old, &read));
    assert_int_equal(read.trouble, 0);
    relay_load_global(world.relay, SLICE_LITERAL("server/m1/state"), old, world.now);
    relay_start(world.relay, world.now);
    take();
    assert_int_equal(world_state(&world, 0), SERVER_DOWN);
    pass(M1, 5000);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    buffer_done(&note);
    world_close(&world);
}

static void a_switch_back_is_told_over_a_restart_too(void **state)
{
    (void)state;
    struct relay_action job;
    start();
    pass(M2, 4000);
    add(1, "bob@one.example");
    assert_true(await_job(M2, 1000, &job));
    accept_job(&job);
    assert_int_equal(switches, 1);
    reborn(NULL);
    struct relay_lane_view lane;
    relay_lane(world.relay, 0, &lane);
    assert_true(lane.switched);
    pass(M1 | M2, 5000);
    assert_int_equal(switches, 2);
    relay_lane(world.relay, 0, &lane);
    assert_false(lane.switched);
    reborn(NULL); /* once */
    pass(M1 | M2, 5000);
    add(2, "bob@one.example");
    assert_true(await_job(M1 | M2, 1000, &job));
    assert_int_equal(switches, 2);
    world_close(&world);
}

static void what_was_taken_out_by_hand_stays_out_until_it_is_brought_back(void **state)
{
    (void)state;
    for (int restarted = 0; restarted < 2; restarted++) { /* while it is not configured */
        start();
        pass(M1, 4000);
        assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
        take();
        reload(changed(GONE));
        if (restarted) {
            struct relay_config before = world.config;
            world.config = *changed(GONE);
            reborn(NULL);
            world.config = before;
        }
        reload(&world.config);
        assert_int_equal(world_state(&world, 0), SERVER_DISABLED);
        pass(M1, 4000);
        assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
        take();
        pass(M1, 4000);
        assert_int_equal(world_state(&world, 0), SERVER_UP);
        reload(changed(GONE));
        reload(&world.config);
        pass(M1, 4000);
        assert_int_equal(world_state(&world, 0), SERVER_UP);
        world_close(&world);
    }
}

/* A job of the life before is no word on what has come since. */
static void a_session_of_an_earlier_life_brings_nobody_down(void **state)
{
    (void)state;
    for (int recovers = 0; recovers < 2; recovers++) {
        struct relay_action job;
        static const uint32_t first[] = {0};
        start();
        pass(M1, 4000);
        add(1, "bob@one.example");
        assert_true(await_job(M1, 1000, &job));
        struct relay *old = world.relay;
        world_open(&world);
        if (!recovers) {
            for (uint32_t i = 0; i < global_count; i++) {
                relay_load_global(world.relay, slice_from_text(globals[i].key),
                                  slice_make(globals[i].payload, globals[i].length), world.now);
            }
        }
        world_insert(&world, 1, 1, "a@x", "bob@one.example", 0);
        relay_free(old);
        relay_resume(world.relay, job.session, job.job, one, first, 1, 0, world.now);
        queue_count = 0;
        relay_start(world.relay, world.now);
        take();
        struct relay_action none;
        for (int i = 0; recovers && world_state(&world, 0) != SERVER_RECOVERING; i++) {
            assert_true(i < 100);
            assert_false(step(M1, 100, &none));
        }
        say(&job, RELAY_CUT, RELAY_AT_DATA, RELAY_LOST, 0);
        assert_int_equal(world_state(&world, 0), recovers ? SERVER_RECOVERING : SERVER_SUSPECT);
        world_close(&world);
    }
}

/* Troubles are counted in few bits. */
static void an_old_deferral_is_not_brought_forward_by_the_256th_trouble(void **state)
{
    (void)state;
    struct relay_action job;
    world_configure(&world);
    world.retry_ms[0] = 2000000000;
    forget_all();
    world_start(&world);
    gather();
    pass(M1, 4000);
    add(1, "bob@one.example");
    assert_true(await_job(M1, 1000, &job));
    refuse(&job, RELAY_AT_RECIPIENT, 451);
    for (uint32_t i = 0; i < 256; i++) {
        add(2, "ann@one.example");
        assert_true(await_job(M1, 1000, &job));
        if (i > 0) {
            refuse(&job, RELAY_AT_RECIPIENT, 451); /* so that the trouble has a deferral */
            assert_int_equal(relay_retry(world.relay, (struct spool_handle){2}, 0, world.now),
                             ERROR_NONE);
            take();
            assert_true(await_job(M1, 1000, &job));
        }
        assert_int_equal(job.handle.index, 2);
        accept_job(&job);
    }
    pass(0, 2 * MINUTE_MS);
    assert_int_not_equal(world_state(&world, 0), SERVER_UP);
    pass(M1, 4000);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    world_close(&world);
}

/* ---- what a stand-in has put off ---------------------------------------------------------------
 */

static void what_a_stand_in_put_off_is_due_when_the_head_is_up(void **state)
{
    (void)state;
    for (int restarted = 0; restarted < 2; restarted++) {
        struct relay_action job;
        start();
        pass(M2, 4000);
        add(1, "bob@one.example");
        assert_true(await_job(M2, 1000, &job));
        assert_int_equal(job.server, 1);
        refuse(&job, RELAY_AT_RECIPIENT, 451);
        if (restarted) {
            reborn("bob@one.example");
        }
        pass(M2, 5000);
        assert_true(await_job(M1 | M2, 5000, &job));
        assert_int_equal(job.server, 0);
        assert_int_equal(world_state(&world, 0), SERVER_UP);
        struct relay_delivery_view view;
        assert_true(relay_delivery(world.relay, one, 0, &view));
        assert_int_equal(view.attempts, 0);
        world_close(&world);
    }
}

/* The head has put it off itself, or it stands in no chain with that server. */
static void what_another_put_off_keeps_to_its_schedule(void **state)
{
    (void)state;
    struct relay_action job;
    start();
    pass(M1 | 4, 4000);
    add(1, "bob@one.example"); /* > m1 m2 m3 */
    assert_true(await_job(M1 | 4, 1000, &job));
    refuse(&job, RELAY_AT_RECIPIENT, 451);
    world_add(&world, 2, "a@x", "ann@sub.wild.example", 0); /* > m3 */
    gather();
    assert_true(await_job(M1 | 4, 10000, &job));
    assert_int_equal(job.server, 2);
    refuse(&job, RELAY_AT_RECIPIENT, 451);
    pass(M1 | M2 | 4, 5 * MINUTE_MS); /* m2 comes up */
    assert_int_equal(world_state(&world, 1), SERVER_UP);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
    assert_int_equal(world_delivery(&world, 2, 0), DELIVERY_DEFERRED);
    world_close(&world);
}

/* ---- a server that has moved ------------------------------------------------------------------
 */

/* A new machine, whose mailboxes may not be there yet; whether the old one had failed or not. */
static void a_server_that_has_moved_is_not_believed_before_it_is_up(void **state)
{
    (void)state;
    for (unsigned was_up = 0; was_up < 2; was_up++) {
        for (int restarted = 0; restarted < 2; restarted++) {
            struct relay_action job;
            start();
            pass(was_up, 5000);
            assert_int_equal(world_state(&world, 0), was_up ? SERVER_UP : SERVER_DOWN);
            reload(changed(MOVED));
            if (restarted) {
                reborn(NULL);
            }
            add(1, "bob@one.example");
            assert_true(await_job(M1, 10000, &job));
            assert_int_equal(world_state(&world, 0), SERVER_RECOVERING);
            refuse(&job, RELAY_AT_RECIPIENT, 550);
            assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
            world_close(&world);
        }
    }
}

static void what_it_had_to_prove_a_server_must_prove_where_it_has_moved_to(void **state)
{
    (void)state;
    struct relay_action job;
    start();
    pass(M1, 5000);
    add(1, "bob@one.example");
    assert_true(await_job(M1, 1000, &job));
    refuse(&job, RELAY_AT_MAIL, 535);
    assert_int_equal(relay_discard(world.relay, one, 0, SLICE_EMPTY, world.now), ERROR_NONE);
    take();
    reload(changed(MOVED));
    pass(M1, 2 * MINUTE_MS); /* greetings alone are not enough */
    assert_int_equal(world_state(&world, 0), SERVER_RECOVERING);
    add(2, "bob@one.example");
    assert_true(await_job(M1, 10000, &job));
    accept_job(&job);
    assert_int_equal(world_state(&world, 0), SERVER_UP);
    world_close(&world);
}

static void what_a_server_says_after_it_has_gone_counts_if_it_was_believed(void **state)
{
    (void)state;
    for (unsigned was_up = 0; was_up < 2; was_up++) {
        for (enum change change = MOVED; change <= RENAMED; change++) {
            struct relay_action job, again;
            start();
            pass(0, 5000);
            if (was_up) {
                pass(M1, HOUR_MS);
            }
            add(1, "bob@one.example");
            assert_true(await_job(M1, 10000, &job));
            reload(changed(change));
            refuse(&job, RELAY_AT_DOT, 554);
            assert_int_equal(world_delivery(&world, 1, 0),
                             was_up ? DELIVERY_DEAD : DELIVERY_WAITING);
            if (!was_up) { /* another's word, or that of the new one */
                assert_true(await_job(M1, 10000, &again));
            }
            world_close(&world);
        }
    }
}

/* ---- a doubt -------------------------------------------------------------------------------- */

/* Message 1 is in doubt at m1, goes there once more and is put off, and so again when m1 has come
 * up by another; m2 is up all the time. */
static void doubted_and_put_off(void)
{
    struct relay_action job;
    start();
    pass(M1 | M2, 4000);
    add(1, "bob@one.example");
    assert_true(await_job(M1 | M2, 1000, &job));
    say(&job, RELAY_IN_DOUBT, RELAY_AT_DOT, RELAY_LOST, 0);
    assert_true(await_job(M1 | M2, HOUR_MS, &job));
    assert_int_equal(job.server, 0);
    refuse(&job, RELAY_AT_RECIPIENT, 451);
    add(2, "eve@one.example");
    assert_true(await_job(M1 | M2, 1000, &job));
    assert_int_equal(job.handle.index, 2);
    accept_job(&job);
    assert_true(await_job(M1 | M2, 1000, &job));
    assert_int_equal(job.handle.index, 1);
    assert_int_equal(job.server, 0);
    refuse(&job, RELAY_AT_RECIPIENT, 451);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEFERRED);
}

static void a_doubt_that_is_put_off_still_waits_for_its_server(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        struct relay_action job;
        doubted_and_put_off();
        if (how == 1) {
            reload(&world.config);
        } else if (how == 3) {
            reborn("bob@one.example");
        }
        if (how == 2) { /* also when it is told to go */
            pass(M2, 5000);
            assert_int_equal(relay_retry(world.relay, one, 0, world.now), ERROR_NONE);
            take();
        } else { /* it is due 20 minutes after it was put off; m1 goes shortly before */
            pass(M1 | M2, 19 * MINUTE_MS);
        }
        int64_t away_ms = world.now.steady_ms;
        assert_true(await_job(M2, HOUR_MS, &job));
        assert_int_equal(job.server, 1);
        assert_in_range(world.now.steady_ms - away_ms, 14 * MINUTE_MS, 17 * MINUTE_MS);
        world_close(&world);
        doubted_and_put_off();
        pass(M1 | M2, 19 * MINUTE_MS);
        pass(M2, 5 * MINUTE_MS);
        assert_true(await_job(M1 | M2, MINUTE_MS, &job)); /* it is back in time */
        assert_int_equal(job.server, 0);
        world_close(&world);
    }
}

/* After the quarter of an hour nothing binds it any more. */
static void one_that_another_server_has_put_off_is_in_doubt_nowhere(void **state)
{
    (void)state;
    struct relay_action job;
    doubted_and_put_off();
    assert_true(await_job(M2, HOUR_MS, &job));
    assert_int_equal(job.server, 1);
    refuse(&job, RELAY_AT_RECIPIENT, 451);
    assert_true(await_job(4, 2 * HOUR_MS, &job));
    assert_int_equal(job.server, 2);
    world_close(&world);
}

static void a_held_refusal_that_was_in_doubt_waits_for_its_server_too(void **state)
{
    (void)state;
    struct relay_action job;
    start();
    pass(M1 | M2, 4000);
    add(1, "bob@one.example");
    assert_true(await_job(M1 | M2, 1000, &job));
    say(&job, RELAY_IN_DOUBT, RELAY_AT_DOT, RELAY_LOST, 0);
    pass(M2, 10 * MINUTE_MS + 30000); /* it is due, and waits for m1 */
    assert_true(await_job(M1 | M2, MINUTE_MS, &job));
    assert_int_equal(job.server, 0);
    assert_int_equal(world_state(&world, 0), SERVER_RECOVERING);
    refuse(&job, RELAY_AT_RECIPIENT, 550);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_HELD);
    int64_t away_ms = world.now.steady_ms;
    assert_true(await_job(M2, HOUR_MS, &job)); /* m1 goes away again */
    assert_int_equal(job.server, 1);
    assert_in_range(world.now.steady_ms - away_ms, 14 * MINUTE_MS, 17 * MINUTE_MS);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_held_refusal_goes_to_the_next_server_when_its_own_goes_away),
        cmocka_unit_test(a_held_refusal_goes_to_a_server_that_comes_back_first),
        cmocka_unit_test(with_its_server_taken_out_by_hand_a_held_refusal_waits_like_all_mail),
        cmocka_unit_test(a_held_refusal_does_not_wait_for_a_server_out_of_its_chain),
        cmocka_unit_test(a_restart_does_not_forget_what_a_server_has_to_prove),
        cmocka_unit_test(a_state_without_its_trouble_is_read),
        cmocka_unit_test(a_switch_back_is_told_over_a_restart_too),
        cmocka_unit_test(what_was_taken_out_by_hand_stays_out_until_it_is_brought_back),
        cmocka_unit_test(a_session_of_an_earlier_life_brings_nobody_down),
        cmocka_unit_test(an_old_deferral_is_not_brought_forward_by_the_256th_trouble),
        cmocka_unit_test(what_a_stand_in_put_off_is_due_when_the_head_is_up),
        cmocka_unit_test(what_another_put_off_keeps_to_its_schedule),
        cmocka_unit_test(a_server_that_has_moved_is_not_believed_before_it_is_up),
        cmocka_unit_test(what_it_had_to_prove_a_server_must_prove_where_it_has_moved_to),
        cmocka_unit_test(what_a_server_says_after_it_has_gone_counts_if_it_was_believed),
        cmocka_unit_test(a_doubt_that_is_put_off_still_waits_for_its_server),
        cmocka_unit_test(one_that_another_server_has_put_off_is_in_doubt_nowhere),
        cmocka_unit_test(a_held_refusal_that_was_in_doubt_waits_for_its_server_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
