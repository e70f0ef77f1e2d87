/* SPDX-License-Identifier: Apache-2.0
 *
 * The incoming door for sites that call (RFC 2645): who is let in, what core is asked, what becomes
 * of the connection.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/digest.h"
#include "in_world.h"
#include "service/login_desk.h"
#include "service/login_throttle.h"
#include "sim/disk_sim.h"
#include "sys/fdpass.h"

static const char stranger[] = "198.51.100.7";

static const struct slice joes[] = {SLICE_LITERAL("s.example"), SLICE_LITERAL("t.example")};
static const struct slice anns[] = {SLICE_LITERAL("t.example")};
static const struct odmr_user users[] = {
    {SLICE_LITERAL("joe"), SLICE_LITERAL("secret"), joes, 2, 1},
    {SLICE_LITERAL("ann"), SLICE_LITERAL("sesame"), anns, 1, 2},
};

/* What was handed over. */
static struct {
    bool refuses;
    unsigned count;
    int fd;
    uint32_t session;
} turned;

static bool turn(void *context, int fd, uint32_t session)
{
    (void)context;
    turned.count++;
    turned.fd = fd;
    turned.session = session;
    return !turned.refuses;
}

static struct login_desk *desk; /* who knows the passwords */
static struct disk_sim *users_disk;

static struct world *started(void)
{
    static struct world world;
    int ends[2];
    world_init(&world);
    world.listeners[0].protocol = LISTENER_ODMR;
    world.listeners[0].odmr_users = users;
    world.listeners[0].odmr_user_count = 2;
    assert_int_equal(digest_prepare(), ERROR_NONE);
    assert_true(world_start(&world));
    turned.refuses = false;
    turned.count = 0;
    smtp_in_set_turn(world.in, turn, NULL);
    users_disk = disk_sim_new();
    desk = login_desk_new(world.loop, &world.config, disk_sim_open(users_disk), &world.counters);
    assert_non_null(desk);
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    login_desk_serve(desk, ends[0]);
    smtp_in_set_login(world.in, ends[1]);
    return &world;
}

static void ended(struct world *world)
{
    login_desk_free(desk);
    disk_sim_free(users_disk);
    world_end(world);
}

/* Answers the challenge as `user` with `password`; true if the reply begins with `code`. */
static bool login(struct client *client, const char *user, const char *password, const char *code)
{
    uint8_t digest[DIGEST_MAX_BYTES];
    struct buffer challenge, response, line;
    buffer_init(&challenge, 0);
    buffer_init(&response, 0);
    buffer_init(&line, 0);
    client_say(client, "AUTH CRAM-MD5");
    const char *reply = client_hear(client);
    assert_true(slice_starts_fold(slice_from_text(reply), SLICE_LITERAL("334 ")));
    assert_int_equal(base64_decode(&challenge, slice_from_text(reply + 4)), ERROR_NONE);
    assert_int_equal(challenge.data[0], '<');
    assert_int_equal(
        digest_hmac(DIGEST_MD5, slice_from_text(password), buffer_slice(&challenge), digest),
        ERROR_NONE);
    buffer_printf(&response, "%s ", user);
    for (int i = 0; i < DIGEST_MD5_BYTES; i++) {
        buffer_printf(&response, "%02x", digest[i]);
    }
    base64_encode(&line, buffer_slice(&response));
    buffer_put_u8(&line, 0);
    client_say(client, (const char *)line.data);
    backend_run(client->world, 5000); /* a refusal takes its time */
    bool good = client_talk(client, NULL, code);
    buffer_done(&challenge);
    buffer_done(&response);
    buffer_done(&line);
    return good;
}

static struct client *greeted(struct world *world)
{
    struct client *client = client_new(world, stranger);
    assert_true(client_talk(client, NULL, "220 "));
    assert_true(client_talk(client, "EHLO site.example", "250 ATRN"));
    return client;
}

static struct client *joe(struct world *world)
{
    struct client *client = greeted(world);
    assert_true(login(client, "joe", "secret", "235 2.7.0 "));
    return client;
}

static void answers_are_in_the_words_of_the_standard(void **state)
{
    (void)state;
    static const char *const replies[RELAY_ATRN_OUTCOMES] = {
        [RELAY_ATRN_DENIED] = "450 4.7.1 ATRN request refused",
        [RELAY_ATRN_OUT] = "450 4.7.1 ATRN request refused",
        [RELAY_ATRN_BUSY] = "450 4.7.1 ATRN request refused: your mail is being sent",
        [RELAY_ATRN_LATER] = "451 4.3.0 Unable to process ATRN request now",
        [RELAY_ATRN_NOTHING] = "453 4.0.0 You have no mail",
        [RELAY_ATRN_TURN] = "250 2.0.0 OK, now reversing the connection",
    };
    struct world *world = started();
    struct client *client = joe(world);
    for (int outcome = 0; outcome < RELAY_ATRN_OUTCOMES; outcome++) {
        world->atrn_outcome = (enum relay_atrn_outcome)outcome;
        assert_int_equal(turned.count, 0);
        assert_true(client_talk(client, "ATRN", replies[outcome]));
    }
    assert_int_equal(turned.count, 1);
    assert_int_equal(turned.session, 7);
    world_settle(world);
    assert_true(client->closed); /* here: nobody has the other copy */
    client_free(client);
    ended(world);
}

static void core_is_asked_for_what_the_user_may_have(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = joe(world);
    world->atrn_outcome = RELAY_ATRN_NOTHING;
    assert_true(client_talk(client, "ATRN", "453 "));
    assert_string_equal(world->atrn_request, "joe: s.example t.example");
    assert_true(client_talk(client, "ATRN T.example", "453 "));
    assert_string_equal(world->atrn_request, "joe: T.example");
    assert_int_equal(world->atrns, 2);
    assert_true(client_talk(client, "ATRN s.example,u.example", "450 "));
    assert_true(client_talk(client, "ATRN u.example", "450 "));
    assert_int_equal(world->atrns, 2);
    /* A new configuration takes the user away: he logs in no more. */
    struct service_config changed = world->config;
    struct listener_config listener = world->listeners[0];
    listener.odmr_users = &users[1];
    listener.odmr_user_count = 1;
    changed.listeners = &listener;
    assert_int_equal(smtp_in_reconfigure(world->in, &changed, 2, &world->listener), ERROR_NONE);
    login_desk_reconfigure(desk, &changed);
    client_free(client);
    client = greeted(world);
    assert_true(login(client, "joe", "secret", "535 "));
    assert_true(login(client, "ann", "sesame", "235 "));
    assert_true(client_talk(client, "ATRN s.example", "450 "));
    assert_int_equal(world->atrns, 2);
    client_free(client);
    ended(world);
}

/* What a session has said counts for the protocol that it has said it in. */
static void a_call_goes_on_when_its_listener_takes_mail(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = joe(world), *asked = greeted(world);
    struct service_config changed = world->config;
    struct listener_config listener = world->listeners[0];
    listener.protocol = LISTENER_SMTP;
    changed.listeners = &listener;
    world->atrn_outcome = RELAY_ATRN_NOTHING;
    assert_true(client_talk(asked, "AUTH CRAM-MD5", "334 "));
    assert_int_equal(smtp_in_reconfigure(world->in, &changed, 2, &world->listener), ERROR_NONE);
    assert_true(client_talk(asked, "am9l", "501 5.5.2 "));
    assert_true(client_talk(client, "MAIL FROM:<joe@site.example>", "502 "));
    assert_true(client_talk(client, "QUIT", "221 "));
    struct client *fresh = client_new(world, stranger);
    assert_true(client_talk(fresh, NULL, "220 "));
    assert_true(client_envelope(fresh, "bob@example.com"));
    client_free(fresh);
    client_free(asked);
    client_free(client);
    ended(world);
}

static void only_who_proves_it_is_let_in(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world);
    assert_true(client_talk(client, "ATRN", "530 5.7.0 "));
    assert_true(login(client, "joe", "sesame", "535 5.7.8 "));
    assert_true(login(client, "nobody", "nobody has this", "535 5.7.8 "));
    assert_true(client_talk(client, "AUTH CRAM-MD5", "334 "));
    assert_true(client_talk(client, "?", "501 5.5.2 "));
    assert_true(client_talk(client, "AUTH CRAM-MD5", "334 "));
    assert_true(client_talk(client, "am9l", "501 5.5.2 "));
    assert_true(client_talk(client, "AUTH CRAM-MD5", "334 "));
    assert_true(client_talk(client, "", "501 5.5.2 "));
    assert_true(client_talk(client, "ATRN", "530 5.7.0 "));
    assert_int_equal(atomic_load(&world->counters.value[COUNTER_LOGINS_FAILED]), 2);
    assert_true(login(client, "ann", "sesame", "235 "));
    assert_int_equal(world->atrns, 0);
    client_free(client);
    ended(world);
}

static void many_failures_of_a_client_cost_it_time(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world);
    for (int i = 0; i <= LOGIN_CLIENT_FREE; i++) {
        assert_true(login(client, "joe", "wrong", "535 "));
    }
    assert_true(login(client, "joe", "secret", "454 4.7.0 Too many failed logins"));
    backend_run(world, LOGIN_WAIT_FIRST_MS);
    assert_true(login(client, "joe", "secret", "235 "));
    client_free(client);
    ended(world);
}

static void without_who_knows_nobody_is_let_in(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world);
    smtp_in_set_login(world->in, -1);
    assert_true(login(client, "joe", "secret", "454 4.7.0 "));
    assert_true(client_talk(client, "ATRN", "530 5.7.0 "));
    client_free(client);
    ended(world);
}

static void a_connection_that_cannot_be_handed_over_stays(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = joe(world);
    world->atrn_outcome = RELAY_ATRN_TURN;
    turned.refuses = true;
    assert_true(client_talk(client, "ATRN", "451 4.3.0 "));
    smtp_in_set_turn(world->in, NULL, NULL);
    assert_true(client_talk(client, "ATRN", "451 4.3.0 "));
    assert_int_equal(turned.count, 1);
    assert_true(client_talk(client, "NOOP", "250 "));
    client_free(client);
    ended(world);
}

static void nothing_may_come_behind_atrn(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = joe(world);
    world->atrn_outcome = RELAY_ATRN_TURN;
    client_say(client, "ATRN\r\n220 evil");
    assert_true(client_talk(client, NULL, "503 5.5.1 Nothing may follow ATRN"));
    assert_true(client_talk(client, NULL, "500 "));
    assert_int_equal(world->atrns, 0);
    /* While core is asked. */
    world->holds_answers = true;
    client_say(client, "ATRN");
    world_settle(world);
    assert_int_equal(world->atrns, 1);
    client_say(client, "220 evil");
    world_settle(world);
    world_answer_atrn(world);
    world_settle(world);
    assert_true(client_talk(client, NULL, "503 5.5.1 Nothing may follow ATRN"));
    assert_int_equal(turned.count, 0);
    client_free(client);
    ended(world);
}

static void core_is_waited_for_but_not_for_ever(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = joe(world), *impatient = joe(world), *other = joe(world);
    world->holds_answers = true;
    world->atrn_outcome = RELAY_ATRN_TURN;
    client_say(impatient, "ATRN");
    world_settle(world);
    client_free(impatient);
    world_settle(world);
    world_answer_atrn(world);
    world_settle(world);
    assert_int_equal(turned.count, 0);
    client_say(client, "ATRN");
    backend_run(world, 40000);
    assert_true(client_talk(client, NULL, "451 4.3.0 "));
    client_say(other, "ATRN");
    world_settle(world);
    world_core_gone(world);
    world_settle(world);
    assert_true(client_talk(other, NULL, "451 4.3.0 "));
    assert_true(client_talk(other, "ATRN", "451 4.3.0 "));
    client_free(client);
    client_free(other);
    ended(world);
}

static void a_broken_core_mixes_nothing_up(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = joe(world);
    world->holds_answers = true;
    client_say(client, "ATRN");
    world_settle(world);
    world_answer_etrn(world); /* an answer of another kind */
    world_settle(world);
    assert_true(client_talk(client, NULL, "451 "));
    assert_int_equal(turned.count, 0);
    assert_true(world_new_core(world));
    world->holds_answers = false;
    world->atrn_outcome = RELAY_ATRN_NOTHING;
    assert_true(client_talk(client, "ATRN", "453 "));
    client_free(client);
    ended(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_in_the_words_of_the_standard),
        cmocka_unit_test(core_is_asked_for_what_the_user_may_have),
        cmocka_unit_test(a_call_goes_on_when_its_listener_takes_mail),
        cmocka_unit_test(only_who_proves_it_is_let_in),
        cmocka_unit_test(many_failures_of_a_client_cost_it_time),
        cmocka_unit_test(without_who_knows_nobody_is_let_in),
        cmocka_unit_test(a_connection_that_cannot_be_handed_over_stays),
        cmocka_unit_test(nothing_may_come_behind_atrn),
        cmocka_unit_test(core_is_waited_for_but_not_for_ever),
        cmocka_unit_test(a_broken_core_mixes_nothing_up),
    };
    return cmocka_run_group_tests_name("smtp_in_odmr", tests, NULL, NULL);
}
