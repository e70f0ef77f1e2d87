/* SPDX-License-Identifier: Apache-2.0
 *
 * The clock that stops (R7): what counts against `keep` and what does not, over outages, restarts,
 * reloads and jumps of the wall clock; who is told, and when a dead letter goes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/notes.h"
#include "world.h"

#define HOUR_MS INT64_C(3600000)
#define MINUTE_MS INT64_C(60000)
#define DAY_MS (24 * HOUR_MS)

static struct world world;
static const struct spool_handle one = {1};

/* What a long wait has told, added up. */
static struct {
    unsigned dead, bounced, discarded, delayed, expired;
    unsigned level; /* of the last RELAY_EVENT_EXPIRY, plus 1 */
    char reason[256];
    int64_t bounce_ms, dead_ms, delayed_ms;
    uint8_t status[3];
} told;

static void configure(void)
{
    world_configure(&world);
    for (uint32_t i = 0; i < WORLD_ROUTES; i++) {
        bool relay = world.routes[i].kind == ROUTE_RELAY;
        world.routes[i].keep_ms = (uint64_t)(relay ? 5 * DAY_MS : 30 * DAY_MS);
        world.routes[i].keep_max_ms = (uint64_t)(90 * DAY_MS);
        world.routes[i].delay_notice_ms = relay ? (uint64_t)(4 * HOUR_MS) : 0;
    }
    world.config.dead_letter_keep_ms = (uint64_t)(30 * DAY_MS);
    memset(&told, 0, sizeof told);
}

static void start(void)
{
    configure();
    world_start(&world);
}

static void note_reason(const struct relay_action *action)
{
    assert_true(action->reason.length < sizeof told.reason);
    memcpy(told.reason, action->reason.data, action->reason.length);
    told.reason[action->reason.length] = 0;
}

static void listen(const struct relay_action *action)
{
    if (action->kind == RELAY_BOUNCE) {
        told.bounce_ms = world.now.wall_ms;
        memcpy(told.status, action->reply.enhanced, sizeof told.status);
        note_reason(action);
    } else if (action->kind == RELAY_DELAYED) {
        told.delayed++;
        told.delayed_ms = world.now.wall_ms;
    } else if (action->kind == RELAY_EVENT) {
        told.expired += action->expired;
        told.dead += action->event == RELAY_EVENT_DEAD;
        told.bounced += action->event == RELAY_EVENT_BOUNCED;
        told.discarded += action->event == RELAY_EVENT_DISCARDED;
        if (action->event == RELAY_EVENT_DEAD || action->event == RELAY_EVENT_DISCARDED) {
            told.dead_ms = world.now.wall_ms;
            note_reason(action);
        }
        if (action->event == RELAY_EVENT_EXPIRY) {
            told.level = (unsigned)action->count + 1;
        }
    }
}

static void listen_all(void)
{
    for (size_t i = 0; i < world.action_count; i++) {
        listen(&world.actions[i]);
    }
    world.action_count = 0;
}

/* Servers in `up` answer whatever connects, and defer what is sent to them; the others are refused.
 */
static void answer(const struct relay_action *action, unsigned up)
{
    if (action->kind == RELAY_DELIVER) {
        world_result(&world, action, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    } else if (action->kind == RELAY_CONNECT && (up & 1u << action->server) != 0) {
        world_opened(&world, action->session);
    } else if (action->kind == RELAY_CONNECT) {
        world_ended(&world, action->session, RELAY_AT_CONNECT, RELAY_LOST, 0);
    }
}

/* Lets time pass; a step of the wall clock beside it is the caller's. */
static void pass(int64_t ms, unsigned up)
{
    int64_t end = world.now.steady_ms + ms;
    do {
        struct relay_action actions[64];
        uint32_t numbers[64];
        size_t count = world.action_count < 64 ? world.action_count : 64;
        memcpy(actions, world.actions, count * sizeof actions[0]);
        for (size_t i = 0; i < count; i++) { /* what they point to goes with the next input */
            numbers[i] = actions[i].delivery;
            actions[i].deliveries = &numbers[i];
        }
        listen_all();
        for (size_t i = 0; i < count; i++) {
            answer(&actions[i], up);
            listen_all();
        }
        world_wait(&world, end - world.now.steady_ms);
    } while (world.now.steady_ms < end);
    listen_all();
}

/* Not every 700 ms: the tests go through months. */
static void slow_probes(void)
{
    for (uint32_t i = 0; i < WORLD_SERVERS; i++) {
        world.servers[i].probe_interval_ms = 3600000;
    }
}

static void domain_mail(uint32_t handle)
{
    world_add(&world, handle, "a@x", "bob@two.example", 0);
}

static void an_outage_of_sixty_days_ends_no_mail_of_a_domain(void **state)
{
    (void)state;
    start();
    slow_probes();
    domain_mail(1);
    pass(60 * DAY_MS, 0);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_WAITING);
    assert_int_equal(told.dead, 0);
    assert_int_equal(told.level, 0);
    struct relay_delivery_view view;
    assert_true(relay_delivery(world.relay, one, 0, &view));
    assert_in_range(view.expires_wall_ms, world.now.wall_ms + 29 * DAY_MS,
                    world.now.wall_ms + 30 * DAY_MS);
    assert_int_equal(relay_elapsed_s(world.relay, one), 0);
    world_close(&world);
}

static void keep_max_ends_it_and_its_lane_is_told_ahead(void **state)
{
    (void)state;
    start();
    slow_probes();
    int64_t born = world.now.wall_ms;
    domain_mail(1);
    pass(82 * DAY_MS, 0);
    assert_int_equal(told.level, 0);
    pass(2 * DAY_MS, 0);
    assert_int_equal(told.level, 1 + 1);
    pass(5 * DAY_MS + HOUR_MS, 0);
    assert_int_equal(told.level, 2 + 1);
    assert_int_equal(told.dead, 0);
    pass(DAY_MS, 0);
    assert_int_equal(told.dead, 1);
    assert_int_equal(told.expired, 1);
    assert_in_range(told.dead_ms - born, 90 * DAY_MS, 90 * DAY_MS + HOUR_MS / 2);
    assert_memory_equal(told.reason, "not delivered in 90 d (keep-max)", 32);
    assert_int_equal(told.level, 0 + 1);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    pass(31 * DAY_MS, 0);
    assert_int_equal(told.discarded, 1);
    assert_int_equal(told.expired, 2);
    assert_memory_equal(told.reason, "a dead letter for 30 d (dead-letter-keep)", 41);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_FINISHED);
    world_close(&world);
}

/* Deferred by a server that is up: the odometer runs. */
static void defer(uint32_t handle)
{
    domain_mail(handle);
    pass(1000, 1);
    assert_int_equal(world_delivery(&world, handle, 0), DELIVERY_DEFERRED);
}

static void set_retry(uint32_t ms)
{
    for (int i = 0; i < 3; i++) {
        world.retry_ms[i] = ms;
    }
}

static void keep_counts_while_a_server_is_up(void **state)
{
    (void)state;
    start();
    set_retry(40u * 86400 * 1000);
    world_up(&world, 0);
    defer(1);
    pass(10 * DAY_MS, 1);
    assert_in_range(relay_elapsed_s(world.relay, one), 10 * 86400 - 60, 10 * 86400 + 60);
    assert_true(world.odometer_notes > 10 * 1440 - 60);
    /* Ten days of outage do not count. */
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    assert_int_equal(relay_server_disable(world.relay, 2, world.now), ERROR_NONE);
    world_take(&world);
    pass(10 * DAY_MS, 0);
    assert_in_range(relay_elapsed_s(world.relay, one), 10 * 86400 - 60, 10 * 86400 + 60);
    assert_int_equal(relay_server_enable(world.relay, 0, world.now), ERROR_NONE);
    world_take(&world);
    pass(19 * DAY_MS, 1);
    assert_int_equal(told.dead, 0);
    pass(DAY_MS + HOUR_MS, 1);
    assert_int_equal(told.dead, 1);
    assert_memory_equal(told.reason, "not delivered in 30 d (keep); last: 450 said so", 47);
    world_close(&world);
}

/* While the odometer stands it is keep-max that would end it, and people are told so. */
static void an_outage_takes_back_that_the_end_is_near(void **state)
{
    (void)state;
    configure();
    slow_probes();
    set_retry(5 * 86400000);
    world_start(&world);
    pass(2 * HOUR_MS, 1);
    domain_mail(1);
    pass(24 * DAY_MS, 1);
    assert_int_equal(told.level, 2); /* six days are left by the odometer */
    assert_int_equal(relay_server_disable(world.relay, 0, world.now), ERROR_NONE);
    pass(DAY_MS, 0);
    assert_int_equal(told.level, 1);
    world_close(&world);
}

/* ---- restarts ------------------------------------------------------------------------------ */

static void carry(void *context, uint32_t delivery, uint16_t kind, struct slice payload)
{
    relay_load_note(context, one, delivery, kind, payload, world.now);
}

/* A new life, with the odometer as it was noted and message 1 as it was stored. */
static void reborn(int64_t received_ms, uint32_t reading_s, int64_t odometer_ms, bool describe)
{
    static const struct spool_recipient bob = {.address = {(const uint8_t *)"bob@two.example", 15}};
    struct relay *old = world.relay;
    world_open(&world);
    struct buffer buffer;
    buffer_init(&buffer, 0);
    note_encode_odometer(&buffer, odometer_ms);
    relay_load_global(world.relay, SLICE_LITERAL("odometer/domain:two.example"),
                      buffer_slice(&buffer), world.now);
    buffer_done(&buffer);
    struct spool_message message = {.sequence = 1,
                                    .received_ms = received_ms,
                                    .odometer_s = reading_s,
                                    .sender = SLICE_LITERAL("a@x"),
                                    .recipients = &bob,
                                    .recipient_count = 1};
    assert_int_equal(relay_add(world.relay, one, &message, world.now), ERROR_NONE);
    if (describe) {
        relay_describe(old, one, carry, world.relay);
    }
    relay_free(old);
    relay_start(world.relay, world.now);
    world_take(&world);
}

static void a_restart_keeps_the_odometer(void **state)
{
    (void)state;
    start();
    slow_probes();
    int64_t born = world.now.wall_ms;
    /* Accepted at 100 s, the odometer has come to 20 days. */
    reborn(born - 40 * DAY_MS, 100, 100000 + 20 * DAY_MS, false);
    assert_int_equal(relay_elapsed_s(world.relay, one), 20 * 86400);
    /* A crash that lost its last minute: waits longer, never shorter. */
    reborn(born, 100, 40000, false);
    assert_int_equal(relay_elapsed_s(world.relay, one), 0);
    /* Accepted while the journal was still being read: adopted by the first sweep. */
    reborn(born, ODOMETER_UNKNOWN, 20 * DAY_MS, false);
    pass(HOUR_MS, 0);
    assert_int_equal(relay_elapsed_s(world.relay, one), 0);
    reborn(born, ODOMETER_UNKNOWN, 25 * DAY_MS, true);
    assert_int_equal(relay_elapsed_s(world.relay, one), 5 * 86400);
    world_close(&world);
}

static void a_reload_takes_what_has_elapsed_along(void **state)
{
    (void)state;
    start();
    slow_probes();
    reborn(world.now.wall_ms, 100, 100000 + 20 * DAY_MS, false);
    struct world other = world;
    other.config.routes = other.routes;
    other.routes[1].name = SLICE_LITERAL("renamed");
    assert_int_equal(relay_reconfigure(world.relay, &other.config, NULL, world.now), ERROR_NONE);
    world_take(&world);
    assert_int_equal(relay_elapsed_s(world.relay, one), 20 * 86400);
    pass(HOUR_MS, 0);
    assert_int_equal(relay_elapsed_s(world.relay, one), 20 * 86400);
    struct relay *old = world.relay;
    world.relay = relay_new(&other.config, 3, world.now);
    static const struct spool_recipient bob = {.address = {(const uint8_t *)"bob@two.example", 15}};
    struct spool_message message = {.sequence = 1,
                                    .received_ms = world.now.wall_ms,
                                    .odometer_s = 100,
                                    .recipients = &bob,
                                    .recipient_count = 1};
    assert_int_equal(relay_add(world.relay, one, &message, world.now), ERROR_NONE);
    relay_describe(old, one, carry, world.relay);
    assert_int_equal(relay_elapsed_s(world.relay, one), 20 * 86400);
    relay_free(old);
    world_close(&world);
}

/* ---- the wall clock -------------------------------------------------------------------------- */

static void a_clock_that_jumps_ends_nobodys_mail(void **state)
{
    (void)state;
    start();
    slow_probes();
    domain_mail(1);
    world_add(&world, 2, "a@client", "far@away.example", SPOOL_SENDER_VERIFIED);
    pass(DAY_MS, 0);
    told.delayed = 0;
    world.now.wall_ms += 100 * DAY_MS;
    pass(DAY_MS, 0);
    world.now.wall_ms -= 160 * DAY_MS;
    pass(HOUR_MS, 0);
    world.now.wall_ms += 60 * DAY_MS;
    pass(DAY_MS, 0);
    assert_int_equal(told.dead + told.bounced, 0);
    pass(3 * DAY_MS, 0);
    assert_int_equal(told.bounced, 1); /* in time, all the same */
    assert_int_equal(told.dead, 0);
    world_close(&world);
}

/* Message 1, received then, after a restart with the clock that was noted. */
static void reborn_by_the_clock(const char *recipient, uint32_t flags, int64_t received_ms)
{
    struct relay *old = world.relay;
    struct buffer buffer;
    world_open(&world);
    buffer_init(&buffer, 0);
    note_encode_clock(&buffer, world.noted_clock_ms);
    relay_load_global(world.relay, NOTE_CLOCK_KEY, buffer_slice(&buffer), world.now);
    buffer_done(&buffer);
    int64_t wall_ms = world.now.wall_ms;
    world.now.wall_ms = received_ms;
    world_insert(&world, 1, 1, "a@client", recipient, flags);
    world.now.wall_ms = wall_ms;
    relay_describe(old, one, carry, world.relay);
    relay_free(old);
    relay_start(world.relay, world.now);
    world_take(&world);
}

static void a_clock_that_is_wrong_at_the_start_ends_nobodys_mail(void **state)
{
    (void)state;
    start();
    slow_probes();
    int64_t received_ms = world.now.wall_ms;
    world_add(&world, 1, "a@client", "far@away.example", SPOOL_SENDER_VERIFIED);
    pass(2 * MINUTE_MS, 0);
    world.now.wall_ms += 100 * DAY_MS;
    reborn_by_the_clock("far@away.example", SPOOL_SENDER_VERIFIED, received_ms);
    pass(DAY_MS, 0);
    assert_int_equal(told.bounced, 0);
    reborn_by_the_clock("far@away.example", SPOOL_SENDER_VERIFIED, received_ms);
    pass(MINUTE_MS, 0);
    assert_int_equal(told.bounced, 0);
    world.now.wall_ms -= 100 * DAY_MS; /* set right */
    pass(4 * DAY_MS - HOUR_MS, 0);
    assert_int_equal(told.bounced, 0);
    pass(2 * HOUR_MS, 0);
    assert_int_equal(told.bounced, 1);
    world_close(&world);
}

static void a_clock_that_is_wrong_at_the_start_discards_no_dead_letter(void **state)
{
    (void)state;
    start();
    world_up(&world, 0);
    int64_t received_ms = world.now.wall_ms;
    domain_mail(1);
    struct relay_action job = *world_action(&world, RELAY_DELIVER, 0);
    world_result(&world, &job, RELAY_REFUSED, RELAY_AT_DOT, RELAY_REPLY, 554);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    slow_probes();
    pass(2 * MINUTE_MS, 0);
    world.now.wall_ms += 40 * DAY_MS;
    reborn_by_the_clock("bob@two.example", 0, received_ms);
    pass(HOUR_MS, 0);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_DEAD);
    assert_int_equal(told.discarded, 0);
    world_close(&world);
}

/* The clock was right, nothing has run: its time goes on, and is made up for. */
static void mail_waits_at_most_as_much_longer_as_nothing_has_run(void **state)
{
    (void)state;
    start();
    slow_probes();
    int64_t received_ms = world.now.wall_ms;
    world_add(&world, 1, "a@client", "far@away.example", SPOOL_SENDER_VERIFIED);
    pass(2 * MINUTE_MS, 0);
    world.now.wall_ms += 3 * DAY_MS;
    reborn_by_the_clock("far@away.example", SPOOL_SENDER_VERIFIED, received_ms);
    pass(2 * DAY_MS + 12 * HOUR_MS - HOUR_MS, 0); /* five days at twice the speed */
    assert_int_equal(told.bounced, 0);
    pass(2 * HOUR_MS, 0);
    assert_int_equal(told.bounced, 1);
    world_close(&world);
}

/* What was noted long ago does not hold up mail that has come since. */
static void with_nothing_queued_the_clock_is_believed(void **state)
{
    (void)state;
    start();
    slow_probes();
    world.noted_clock_ms = world.now.wall_ms - 100 * DAY_MS;
    struct buffer buffer;
    buffer_init(&buffer, 0);
    note_encode_clock(&buffer, world.noted_clock_ms);
    for (int before = 0; before < 2; before++) {
        struct relay *old = world.relay;
        world_open(&world);
        relay_free(old);
        relay_load_global(world.relay, NOTE_CLOCK_KEY, buffer_slice(&buffer), world.now);
        if (before) { /* its mail goes, and then there is none */
            world_add(&world, 1, "a@x", "bob@two.example", 0);
        }
        relay_start(world.relay, world.now);
        world_take(&world);
        if (before) {
            assert_int_equal(relay_discard(world.relay, one, 0, SLICE_EMPTY, world.now),
                             ERROR_NONE);
            world_take(&world);
        }
        told.bounced = 0;
        world_add(&world, 2, "a@client", "far@away.example", SPOOL_SENDER_VERIFIED);
        pass(MINUTE_MS, 0);
        assert_in_range(world.now.wall_ms - world.noted_clock_ms, 0, MINUTE_MS);
        pass(5 * DAY_MS + HOUR_MS, 0);
        assert_int_equal(told.bounced, 1);
    }
    buffer_done(&buffer);
    world_close(&world);
}

/* ---- relays -----------------------------------------------------------------------------------
 */

static void a_relays_mail_is_late_after_four_hours_and_returned_after_five_days(void **state)
{
    (void)state;
    start();
    slow_probes();
    int64_t born = world.now.wall_ms;
    world_add(&world, 1, "a@client", "far@away.example", SPOOL_SENDER_VERIFIED);
    world_add(&world, 2, "", "far@away.example", SPOOL_SENDER_VERIFIED);
    world.notify = SPOOL_NOTIFY_FAILURE;
    world_add(&world, 3, "a@client", "other@away.example", SPOOL_SENDER_VERIFIED);
    pass(4 * HOUR_MS + HOUR_MS / 2, 0);
    assert_int_equal(told.delayed, 1);
    assert_in_range(told.delayed_ms - born, 4 * HOUR_MS, 4 * HOUR_MS + HOUR_MS / 2);
    pass(5 * DAY_MS - 5 * HOUR_MS, 0);
    assert_int_equal(told.delayed, 1);
    assert_int_equal(told.bounced + told.dead, 0);
    pass(HOUR_MS, 0);
    assert_int_equal(told.bounced, 2);
    assert_int_equal(told.dead, 1); /* nobody to tell */
    assert_int_equal(told.status[0], 4);
    assert_int_equal(told.status[1], 4);
    assert_int_equal(told.status[2], 7);
    assert_in_range(told.bounce_ms - born, 5 * DAY_MS, 5 * DAY_MS + HOUR_MS / 2);
    world_close(&world);
}

static void a_delay_is_told_once_over_a_restart_too(void **state)
{
    (void)state;
    start();
    slow_probes();
    world_add(&world, 1, "a@client", "far@away.example", SPOOL_SENDER_VERIFIED);
    pass(5 * HOUR_MS, 0);
    assert_int_equal(told.delayed, 1);
    struct relay *old = world.relay;
    world_open(&world);
    world_insert(&world, 1, 1, "a@client", "far@away.example", SPOOL_SENDER_VERIFIED);
    relay_describe(old, one, carry, world.relay);
    relay_free(old);
    relay_start(world.relay, world.now);
    world_take(&world);
    pass(5 * HOUR_MS, 0);
    assert_int_equal(told.delayed, 1);
    world_close(&world);
}

static void our_own_notice_is_tried_for_a_day(void **state)
{
    (void)state;
    start();
    slow_probes();
    world_add(&world, 1, "", "a@away.example", SPOOL_OWN_DSN);
    pass(23 * HOUR_MS, 0);
    assert_int_equal(told.dead, 0);
    pass(2 * HOUR_MS, 0);
    assert_int_equal(told.dead, 1);
    assert_int_equal(told.bounced, 0);
    world_close(&world);
}

/* ---- operators ------------------------------------------------------------------------------- */

static void time_on_operator_hold_does_not_count(void **state)
{
    (void)state;
    start();
    slow_probes();
    world_add(&world, 1, "", "far@away.example", SPOOL_SENDER_VERIFIED);
    pass(DAY_MS, 0);
    assert_int_equal(relay_hold(world.relay, one, 0, SLICE_EMPTY, world.now), ERROR_NONE);
    world_take(&world);
    pass(20 * DAY_MS, 0);
    assert_int_equal(told.dead, 0);
    assert_int_equal(relay_release(world.relay, one, 0, world.now), ERROR_NONE);
    world_take(&world);
    pass(4 * DAY_MS - HOUR_MS, 0);
    assert_int_equal(told.dead, 0);
    pass(2 * HOUR_MS, 0);
    assert_int_equal(told.dead, 1);
    /* Released as a dead letter it has all of its time again. */
    assert_int_equal(relay_release(world.relay, one, 0, world.now), ERROR_NONE);
    world_take(&world);
    pass(5 * DAY_MS - HOUR_MS, 0);
    assert_int_equal(told.dead, 1);
    pass(2 * HOUR_MS, 0);
    assert_int_equal(told.dead, 2);
    world_close(&world);
}

/* Another node is told of what counts alone, while it is held and when it has been. */
static void time_on_operator_hold_is_not_passed_on(void **state)
{
    (void)state;
    start();
    set_retry(40u * 86400 * 1000);
    world_up(&world, 0);
    defer(1);
    pass(2 * DAY_MS, 1);
    assert_int_equal(relay_hold(world.relay, one, 0, SLICE_EMPTY, world.now), ERROR_NONE);
    world_take(&world);
    pass(10 * DAY_MS, 1);
    assert_in_range(relay_elapsed_s(world.relay, one), 2 * 86400 - 60, 2 * 86400 + 60);
    assert_int_equal(relay_uncounted_s(world.relay, one), 0); /* the hold tells of itself */
    assert_int_equal(relay_release(world.relay, one, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_in_range(relay_elapsed_s(world.relay, one), 2 * 86400 - 60, 2 * 86400 + 60);
    assert_in_range(relay_uncounted_s(world.relay, one), 10 * 86400 - 60, 10 * 86400 + 60);
    world_close(&world);
}

/* Two of one message were held together: the time was the same. */
static void what_was_held_together_is_given_back_once(void **state)
{
    (void)state;
    start();
    assert_int_equal(world_action(&world, RELAY_CONNECT, 0)->server, 0);
    uint32_t probe = world_action(&world, RELAY_CONNECT, 0)->session;
    set_retry(40u * 86400 * 1000);
    world_add(&world, 1, "", "ann@one.example bob@one.example", 0);
    assert_int_equal(relay_hold(world.relay, one, 0, SLICE_EMPTY, world.now), ERROR_NONE);
    assert_int_equal(relay_hold(world.relay, one, 1, SLICE_EMPTY, world.now), ERROR_NONE);
    world_take(&world);
    world_opened(&world, probe);
    pass(10 * DAY_MS, 1);
    assert_in_range(relay_elapsed_s(world.relay, one), 0, 60);
    assert_int_equal(relay_release(world.relay, one, 0, world.now), ERROR_NONE);
    world_take(&world);
    assert_in_range(relay_uncounted_s(world.relay, one), 10 * 86400 - 60, 10 * 86400 + 60);
    assert_in_range(relay_elapsed_s(world.relay, one), 0, 60);
    pass(DAY_MS, 1); /* the other one is held a day longer */
    assert_int_equal(relay_release(world.relay, one, 1, world.now), ERROR_NONE);
    world_take(&world);
    assert_in_range(relay_uncounted_s(world.relay, one), 11 * 86400 - 60, 11 * 86400 + 60);
    assert_in_range(relay_elapsed_s(world.relay, one), 0, 60);
    world_close(&world);
}

static void what_is_in_flight_is_left_alone(void **state)
{
    (void)state;
    start();
    world_up(&world, 1);
    world_add(&world, 1, "", "far@away.example", SPOOL_SENDER_VERIFIED);
    struct relay_action deliver = *world_action(&world, RELAY_DELIVER, 0);
    world.action_count = 0;
    pass(6 * DAY_MS, 2);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_IN_FLIGHT);
    world_result(&world, &deliver, RELAY_REFUSED, RELAY_AT_RECIPIENT, RELAY_REPLY, 450);
    pass(HOUR_MS / 2, 2);
    assert_int_equal(told.dead, 1);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_outage_of_sixty_days_ends_no_mail_of_a_domain),
        cmocka_unit_test(keep_max_ends_it_and_its_lane_is_told_ahead),
        cmocka_unit_test(keep_counts_while_a_server_is_up),
        cmocka_unit_test(a_restart_keeps_the_odometer),
        cmocka_unit_test(a_reload_takes_what_has_elapsed_along),
        cmocka_unit_test(an_outage_takes_back_that_the_end_is_near),
        cmocka_unit_test(a_clock_that_jumps_ends_nobodys_mail),
        cmocka_unit_test(a_clock_that_is_wrong_at_the_start_ends_nobodys_mail),
        cmocka_unit_test(a_clock_that_is_wrong_at_the_start_discards_no_dead_letter),
        cmocka_unit_test(mail_waits_at_most_as_much_longer_as_nothing_has_run),
        cmocka_unit_test(with_nothing_queued_the_clock_is_believed),
        cmocka_unit_test(a_relays_mail_is_late_after_four_hours_and_returned_after_five_days),
        cmocka_unit_test(a_delay_is_told_once_over_a_restart_too),
        cmocka_unit_test(our_own_notice_is_tried_for_a_day),
        cmocka_unit_test(time_on_operator_hold_does_not_count),
        cmocka_unit_test(time_on_operator_hold_is_not_passed_on),
        cmocka_unit_test(what_was_held_together_is_given_back_once),
        cmocka_unit_test(what_is_in_flight_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
