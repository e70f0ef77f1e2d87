/* SPDX-License-Identifier: Apache-2.0
 *
 * Exchangers of a domain block count as configured servers (R3): what DNS last said of them, their
 * states, and a hand laid on them outlast failures of DNS and restarts. Of a relay's destinations
 * only one thing does: who has a delivery in doubt. Route 0 is the domain one.example, route 2 the
 * relay "out", route 3 the domain *.wild.example; all follow DNS.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mx_answer.h"
#include "relay/notes.h"

static struct world world;

static int setup(void **state)
{
    (void)state;
    world_configure(&world);
    mx_follow(&world, 0, 0, 0);
    mx_follow(&world, 2, 0, 0);
    mx_follow(&world, 3, 0, 0);
    world_start(&world);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

static void answer(const char *text)
{
    mx_answer(&world, "one.example", text, ERROR_NONE, 3600);
}

static void fails(const char *domain, enum error error)
{
    mx_answer(&world, domain, "", error, 60);
}

static void start_again(void)
{
    world_reopen(&world);
    relay_start(world.relay, world.now);
    world_take(&world);
}

static uint32_t exchanger(const char *host)
{
    for (uint32_t i = relay_next_exchanger(world.relay, 0); i != NO_INDEX;
         i = relay_next_exchanger(world.relay, i + 1)) {
        if (slice_equal(relay_server_config(world.relay, i)->name, slice_from_text(host))) {
            return i;
        }
    }
    return NO_INDEX;
}

static uint8_t last_octet(const char *host)
{
    const struct server_config *config = relay_server_config(world.relay, exchanger(host));
    assert_non_null(config);
    assert_int_equal(config->address_count, 1);
    return config->addresses[0].literal.bytes[15];
}

/* Greeted twice with nothing to send: up. */
static void bring_up(const char *host)
{
    uint32_t server = exchanger(host);
    for (int i = 0; i < 20 && world_state(&world, server) != SERVER_UP; i++) {
        uint32_t session = mx_called(&world, host);
        if (session != 0) {
            world_opened(&world, session);
        } else {
            world_wait(&world, 1000);
        }
    }
    assert_int_equal(world_state(&world, server), SERVER_UP);
}

/* So long nobody answers there. */
static void pass(const char *host, int64_t ms)
{
    for (int64_t end = world.now.steady_ms + ms; world.now.steady_ms < end;) {
        const struct relay_action *close = world_action(&world, RELAY_CLOSE, 0);
        if (mx_called(&world, host) != 0) {
            world_ended(&world, mx_called(&world, host), RELAY_AT_CONNECT, RELAY_LOST, 0);
        } else if (close != NULL) {
            world_ended(&world, close->session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
        } else {
            world_wait(&world, end - world.now.steady_ms);
        }
    }
}

/* A call for an exchanger; or 0. */
static uint32_t call(void)
{
    for (size_t i = 0; i < world_count(&world, RELAY_CONNECT); i++) {
        const struct relay_action *connect = world_action(&world, RELAY_CONNECT, i);
        if (connect->server >= RELAY_EXCHANGERS) {
            return connect->session;
        }
    }
    return 0;
}

/* Meanwhile all exchangers answer when they are called. */
static void wait_for_question(const char *domain)
{
    for (int i = 0; i < 5000 && !mx_is_asked(&world, domain); i++) {
        const struct relay_action *close = world_action(&world, RELAY_CLOSE, 0);
        if (call() != 0) {
            world_opened(&world, call());
        } else if (close != NULL) {
            world_ended(&world, close->session, RELAY_AT_IDLE, RELAY_LOCAL, 0);
        } else {
            world_wait(&world, 60000);
        }
    }
    assert_true(mx_is_asked(&world, domain));
}

/* ---- without DNS ---------------------------------------------------------------------------- */

static void after_a_restart_without_dns_the_last_answer_holds(void **state)
{
    (void)state;
    answer("20 second 192.0.2.12; 10 first 192.0.2.11; 30 mx2.example.net 192.0.2.1");
    start_again();
    assert_true(mx_is_asked(&world, "one.example"));
    assert_int_equal(last_octet("first"), 11);
    assert_int_equal(last_octet("second"), 12);
    bring_up("first");
    fails("one.example", ERROR_TIMEOUT);
    world_add(&world, 1, "x@far.example", "ann@one.example", 0);
    assert_int_equal(mx_lane(&world, "domain:one.example").server, exchanger("first"));
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_IN_FLIGHT);
    wait_for_question("one.example");
    fails("one.example", ERROR_MISSING); /* NXDOMAIN is a failure, too */
    assert_int_equal(mx_lane(&world, "domain:one.example").server, exchanger("first"));
    wait_for_question("one.example");
    answer("10 third 192.0.2.13"); /* DNS speaks again */
    assert_int_equal(mx_lane(&world, "domain:one.example").chain_length, 1);
}

static void mail_of_a_wildcard_finds_its_exchangers_too(void **state)
{
    (void)state;
    world_add(&world, 1, "x@far.example", "ann@a.wild.example", 0);
    mx_answer(&world, "a.wild.example", "10 host 192.0.2.11", ERROR_NONE, 3600);
    world_reopen(&world);
    world_insert(&world, 1, 1, "x@far.example", "ann@a.wild.example", 0);
    relay_start(world.relay, world.now);
    world_take(&world);
    world_opened(&world, mx_called(&world, "host"));
    assert_non_null(world_action(&world, RELAY_DELIVER, 0));
    assert_int_equal(mx_lane(&world, "domain:a.wild.example").server, exchanger("host"));
}

static void an_exchanger_without_an_answer_keeps_its_addresses(void **state)
{
    (void)state;
    answer("10 first 192.0.2.11; 20 second 192.0.2.12");
    static const char *const answers[] = {"10 first ?; 20 second 192.0.2.22",
                                          "10 first -; 20 second 192.0.2.22"};
    for (size_t i = 0; i < 2; i++) {
        wait_for_question("one.example");
        answer(answers[i]);
        assert_int_equal(last_octet("first"), 11);
        assert_int_equal(last_octet("second"), 22);
        assert_int_equal(mx_lane(&world, "domain:one.example").chain[0], exchanger("first"));
    }
    int64_t then = world.now.steady_ms;
    wait_for_question("one.example"); /* asked again before the answer's time is over */
    assert_true(world.now.steady_ms - then <= 300000);
    answer("10 first 192.0.2.31; 20 second 192.0.2.22");
    assert_int_equal(last_octet("first"), 31);
}

static void what_dns_rules_out_is_not_remembered_against_it(void **state)
{
    (void)state;
    answer("10 first 192.0.2.11");
    wait_for_question("one.example");
    answer("0 ."); /* said, not silent: nobody is to have it */
    assert_int_equal(mx_lane(&world, "domain:one.example").chain_length, 0);
}

static void nothing_is_written_while_nothing_changes(void **state)
{
    (void)state;
    answer("10 a 192.0.2.11 192.0.2.21; 10 b 192.0.2.12");
    size_t writes = world.global_writes;
    for (int i = 0; i < 20; i++) {
        wait_for_question("one.example");
        answer(i % 2 == 0 ? "10 b 192.0.2.12; 10 a 192.0.2.21 192.0.2.11"
                          : "10 a 192.0.2.11 192.0.2.21; 10 b 192.0.2.12");
        for (size_t j = 0; j < world.action_count; j++) { /* states may change */
            assert_false(world.actions[j].kind == RELAY_GLOBAL &&
                         slice_starts_fold(world.actions[j].key, SLICE_LITERAL("mx/")));
        }
    }
    assert_in_range(writes, 1, 3);
}

static void a_domain_that_follows_dns_no_more_is_forgotten(void **state)
{
    (void)state;
    answer("10 first 192.0.2.11");
    world.routes[0].mx = false;
    world.routes[0].chain_length = 1;
    start_again();
    world_wait(&world, 1000);
    world.routes[0].mx = true;
    world.routes[0].chain_length = 0;
    start_again();
    assert_int_equal(exchanger("first"), NO_INDEX);
}

static void our_own_new_name_is_no_exchanger(void **state)
{
    (void)state;
    answer("10 first 192.0.2.11; 20 second 192.0.2.12");
    world.config.hostname = SLICE_LITERAL("second");
    start_again();
    assert_int_equal(mx_lane(&world, "domain:one.example").chain_length, 1);
}

/* ---- states --------------------------------------------------------------------------------- */

static void states_outlast_a_restart(void **state)
{
    (void)state;
    answer("10 first 192.0.2.11; 20 second 192.0.2.12");
    bring_up("second");
    struct relay_server_view before;
    relay_server(world.relay, exchanger("second"), &before);
    world.now.steady_ms += 5000;
    world.now.wall_ms += 5000;
    start_again();
    struct relay_server_view after;
    relay_server(world.relay, exchanger("second"), &after);
    assert_int_equal(after.state, SERVER_UP);
    assert_int_equal(after.since_wall_ms, before.since_wall_ms);
}

static void a_hand_outlasts_a_restart_and_silence(void **state)
{
    (void)state;
    answer("10 first 192.0.2.11; 20 second 192.0.2.12");
    assert_int_equal(relay_server_disable(world.relay, exchanger("first"), world.now), ERROR_NONE);
    world_take(&world);
    start_again();
    fails("one.example", ERROR_IO);
    assert_int_equal(world_state(&world, exchanger("first")), SERVER_DISABLED);
    assert_int_equal(relay_server_enable(world.relay, exchanger("first"), world.now), ERROR_NONE);
    world_take(&world);
    start_again();
    assert_int_not_equal(world_state(&world, exchanger("first")), SERVER_DISABLED);
}

static void a_hand_waits_for_an_exchanger_that_comes_back(void **state)
{
    (void)state;
    world_add(&world, 1, "x@far.example", "ann@a.wild.example", 0);
    mx_answer(&world, "a.wild.example", "10 host 192.0.2.11", ERROR_NONE, 3600);
    assert_int_equal(relay_server_disable(world.relay, exchanger("host"), world.now), ERROR_NONE);
    world_take(&world);
    start_again();
    assert_int_equal(exchanger("host"), NO_INDEX); /* nobody needs it */
    world_add(&world, 1, "x@far.example", "ann@a.wild.example", 0);
    assert_int_equal(world_state(&world, exchanger("host")), SERVER_DISABLED);
    assert_int_equal(relay_server_enable(world.relay, exchanger("host"), world.now), ERROR_NONE);
    world_take(&world);
    pass("host", 1000);
    mx_answer(&world, "a.wild.example", "10 other 192.0.2.12", ERROR_NONE, 30);
    pass("host", 300000);
    assert_int_equal(exchanger("host"), NO_INDEX); /* swept away */
    wait_for_question("a.wild.example");
    mx_answer(&world, "a.wild.example", "10 host 192.0.2.11", ERROR_NONE, 3600);
    assert_int_not_equal(world_state(&world, exchanger("host")), SERVER_DISABLED);
}

static void hear_hand(const char *key, bool disabled)
{
    static int64_t when_ms;
    struct buffer payload;
    buffer_init(&payload, SPOOL_NOTE_MAX);
    note_encode_hand(&payload, &(struct hand_note){++when_ms, disabled});
    relay_load_global(world.relay, slice_from_text(key), buffer_slice(&payload), world.now);
    buffer_done(&payload);
    world_take(&world);
}

static void another_nodes_hand_is_laid_on_those_here_and_those_to_come(void **state)
{
    (void)state;
    answer("10 first 192.0.2.11; 20 second 192.0.2.12");
    hear_hand("exchanger/first/hand", true);
    hear_hand("exchanger/host/hand", true);
    hear_hand("exchanger/gone/hand", true);
    hear_hand("exchanger/gone/hand", false);
    assert_int_equal(world_state(&world, exchanger("first")), SERVER_DISABLED);
    assert_int_not_equal(world_state(&world, exchanger("second")), SERVER_DISABLED);
    hear_hand("exchanger/first/hand", false);
    assert_int_equal(world_state(&world, exchanger("first")), SERVER_SUSPECT);
    world_add(&world, 1, "x@far.example", "ann@a.wild.example", 0);
    mx_answer(&world, "a.wild.example", "10 host 192.0.2.13; 20 gone 192.0.2.14", ERROR_NONE, 3600);
    assert_int_equal(world_state(&world, exchanger("host")), SERVER_DISABLED);
    assert_int_not_equal(world_state(&world, exchanger("gone")), SERVER_DISABLED);
}

static void states_of_the_past_are_forgotten(void **state)
{
    (void)state;
    answer("10 first 192.0.2.11");
    bring_up("first");
    wait_for_question("one.example");
    answer("10 other 192.0.2.12");
    pass("first", 300000); /* it is swept away, its state with it */
    for (size_t i = 0; i < world.global_count; i++) {
        assert_true(world.globals[i].length == 0 ||
                    memmem(world.globals[i].key, world.globals[i].key_length, "/first/", 7) ==
                        NULL);
    }
}

static void a_relays_exchangers_take_no_hand(void **state)
{
    (void)state;
    world_add(&world, 1, "ann@one.example", "bob@far.example", SPOOL_SENDER_VERIFIED);
    mx_answer(&world, "far.example", "10 mx1.far 192.0.2.11", ERROR_NONE, 3600);
    uint32_t far = exchanger("mx1.far");
    assert_int_not_equal(far, NO_INDEX);
    assert_int_equal(relay_server_disable(world.relay, far, world.now), ERROR_MISSING);
    assert_int_equal(relay_server_enable(world.relay, far, world.now), ERROR_MISSING);
}

/* ---- doubts --------------------------------------------------------------------------------- */

static struct {
    uint16_t kind;
    size_t length;
    uint8_t payload[SPOOL_NOTE_MAX];
} noted;

static void keep_note(void *context, uint32_t delivery, uint16_t kind, struct slice payload)
{
    (void)context;
    (void)delivery;
    if (kind != NOTE_SPAN) {
        noted.kind = kind;
        noted.length = payload.length;
        memcpy(noted.payload, payload.data, payload.length);
    }
}

static void restart_with_note(void)
{
    world.seed++;
    world.now.steady_ms += 7000;
    world.now.wall_ms += 7000;
    relay_describe(world.relay, (struct spool_handle){1}, keep_note, NULL);
    world_reopen(&world);
    world_insert(&world, 1, 1, "ann@one.example", "bob@far.example", SPOOL_SENDER_VERIFIED);
    relay_load_note(world.relay, (struct spool_handle){1}, 0, noted.kind,
                    slice_make(noted.payload, noted.length), world.now);
    relay_start(world.relay, world.now);
    world_take(&world);
}

/* A delivery in doubt at the first of two equals that was called, and then restarts: the first
 * knows of an attempt, the second of a doubt. */
static void doubt_and_restart(char *ret_host, size_t size, bool until_due)
{
    world_add(&world, 1, "ann@one.example", "bob@far.example", SPOOL_SENDER_VERIFIED);
    mx_answer(&world, "far.example", "10 mx1.far 192.0.2.11; 10 mx2.far 192.0.2.12", ERROR_NONE,
              3600);
    uint32_t session =
        world_action(&world, RELAY_CONNECT, world_count(&world, RELAY_CONNECT) - 1)->session;
    snprintf(ret_host, size, "%s", mx_called(&world, "mx1.far") == session ? "mx1.far" : "mx2.far");
    world_opened(&world, session);
    struct relay_action job = *world_action(&world, RELAY_DELIVER, 0);
    uint16_t kind;
    struct slice payload;
    struct spool_handle handle;
    const uint32_t *deliveries;
    uint32_t count;
    assert_int_equal(ERROR_NONE, relay_attempt_note(world.relay, job.job, world.now, &kind,
                                                    &payload, &handle, &deliveries, &count));
    restart_with_note();
    assert_int_equal(noted.kind, NOTE_ATTEMPT);
    restart_with_note();
    assert_int_equal(noted.kind, NOTE_DOUBT);
    assert_int_equal(world_delivery(&world, 1, 0), DELIVERY_IN_DOUBT);
    if (until_due) {
        wait_for_question("far.example");
    }
}

static void after_a_restart_a_doubt_goes_back_to_its_exchanger(void **state)
{
    (void)state;
    char host[16];
    for (int i = 0; i < 8; i++) { /* equals come in a drawn order */
        world.seed = (uint64_t)i * 1000;
        doubt_and_restart(host, sizeof host, true);
        mx_answer(&world, "far.example", "10 mx1.far 192.0.2.11; 10 mx2.far 192.0.2.12", ERROR_NONE,
                  3600);
        assert_int_equal(world_count(&world, RELAY_CONNECT), 1);
        assert_int_not_equal(mx_called(&world, host), 0);
        teardown(NULL);
        setup(NULL);
    }
}

static void a_doubt_at_an_exchanger_that_is_none_any_more_goes_to_others(void **state)
{
    (void)state;
    char host[16];
    doubt_and_restart(host, sizeof host, true);
    mx_answer(&world, "far.example", "", ERROR_TIMEOUT, 60);
    assert_int_equal(mx_called(&world, host), 0); /* nobody knows where it is */
    wait_for_question("far.example");
    mx_answer(&world, "far.example", "10 mx3.far 192.0.2.13", ERROR_NONE, 3600);
    assert_int_not_equal(mx_called(&world, "mx3.far"), 0);
}

static void a_doubt_that_is_not_due_yet_follows_too(void **state)
{
    (void)state;
    char host[16];
    doubt_and_restart(host, sizeof host, false);
    for (int64_t end = world.now.steady_ms + 590000; world.now.steady_ms < end;) {
        world_wait(&world, end - world.now.steady_ms);
    }
    world_add(&world, 2, "ann@one.example", "carl@far.example", SPOOL_SENDER_VERIFIED);
    mx_answer(&world, "far.example", "10 mx3.far 192.0.2.13", ERROR_NONE, 86400);
    world_opened(&world, mx_called(&world, "mx3.far"));
    struct relay_action job = *world_action(&world, RELAY_DELIVER, 0);
    world_result(&world, &job, RELAY_ACCEPTED, RELAY_AT_DOT, RELAY_REPLY, 250);
    for (int i = 0; i < 30 && world_action(&world, RELAY_DELIVER, 0) == NULL; i++) {
        world_wait(&world, 10000);
        if (mx_called(&world, "mx3.far") != 0) {
            world_opened(&world, mx_called(&world, "mx3.far"));
        }
    }
    assert_non_null(world_action(&world, RELAY_DELIVER, 0));
}

static enum error read_nothing(void *context, struct spool_handle handle, struct arena *arena,
                               struct spool_message *ret_message)
{
    (void)context;
    (void)handle;
    (void)arena;
    (void)ret_message;
    return ERROR_IO;
}

static void a_doubt_whose_route_follows_dns_no_more_goes_by_the_route(void **state)
{
    (void)state;
    static struct world next;
    const struct relay_envelopes envelopes = {.read = read_nothing};
    char host[16];
    doubt_and_restart(host, sizeof host, true); /* nobody knows where that is */
    world_configure(&next);
    assert_int_equal(relay_reconfigure(world.relay, &next.config, &envelopes, world.now),
                     ERROR_NONE);
    world_take(&world);
    assert_int_equal(mx_lane(&world, "relay:out").deliveries, 1); /* not beside it */
}

int main(void)
{
#define MX(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        MX(after_a_restart_without_dns_the_last_answer_holds),
        MX(mail_of_a_wildcard_finds_its_exchangers_too),
        MX(an_exchanger_without_an_answer_keeps_its_addresses),
        MX(what_dns_rules_out_is_not_remembered_against_it),
        MX(nothing_is_written_while_nothing_changes),
        MX(a_domain_that_follows_dns_no_more_is_forgotten),
        MX(our_own_new_name_is_no_exchanger),
        MX(states_outlast_a_restart),
        MX(a_hand_outlasts_a_restart_and_silence),
        MX(a_hand_waits_for_an_exchanger_that_comes_back),
        MX(another_nodes_hand_is_laid_on_those_here_and_those_to_come),
        MX(states_of_the_past_are_forgotten),
        MX(a_relays_exchangers_take_no_hand),
        MX(after_a_restart_a_doubt_goes_back_to_its_exchanger),
        MX(a_doubt_at_an_exchanger_that_is_none_any_more_goes_to_others),
        MX(a_doubt_that_is_not_due_yet_follows_too),
        MX(a_doubt_whose_route_follows_dns_no_more_goes_by_the_route),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
