/* SPDX-License-Identifier: Apache-2.0
 *
 * The incoming door against clients and a core of a few lines, on the simulated net and clock.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "in_world.h"
#include "sys/net.h"

static const char stranger[] = "198.51.100.7";
static const char ours[] = "192.0.2.9";

static struct world *begin(void)
{
    static struct world world;
    world_init(&world);
    return &world;
}

static struct world *started(void)
{
    struct world *world = begin();
    assert_true(world_start(world));
    return world;
}

static uint64_t counter(const struct world *world, enum counter which)
{
    return atomic_load(&world->counters.value[which]);
}

static bool content_has(const struct world *world, const char *text)
{
    return memmem(world->mail.content.data, world->mail.content.length, text, strlen(text)) != NULL;
}

static bool talk_all(struct client *client, const char *const lines[][2])
{
    for (int i = 0; lines[i][0] != NULL; i++) {
        if (!client_talk(client, lines[i][0], lines[i][1])) {
            return false;
        }
    }
    return true;
}

/* A client with EHLO and MAIL behind it. */
static struct client *greeted(struct world *world, const char *address, const char *mail)
{
    struct client *client = client_new(world, address);
    assert_true(client_talk(client, NULL, "220 mx.example.net ESMTP"));
    assert_true(client_talk(client, "EHLO client.example", "250 "));
    assert_true(client_talk(client, mail, "250 2.1.0 "));
    return client;
}

#define MAIL "MAIL FROM:<sender@example.net>"

/* ---- taking mail ------------------------------------------------------------------------- */

static void takes_a_message(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world, stranger, MAIL " BODY=8BITMIME");
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(client, "DATA", "354 "));
    client_say(client, "Message-ID: <1@example.net>\r\nSubject: x\r\n\r\nHello\r\n.");
    const char *reply = client_hear(client);
    assert_memory_equal(reply, "250 2.0.0 Ok: queued as ", 24);
    char id[ID_TEXT_LENGTH + 1], said[ID_TEXT_LENGTH + 1];
    snprintf(said, sizeof(said), "%s", reply + 24);

    const struct spool_message *message = &world->mail.message;
    id_to_text(message->id, id);
    assert_string_equal(id, said);
    assert_int_equal(world->commits, 1);
    assert_int_equal(world->appends, 0);
    assert_true(slice_equal(message->sender, SLICE_LITERAL("sender@example.net")));
    assert_int_equal(message->recipient_count, 1);
    assert_true(slice_equal(message->recipients[0].address, SLICE_LITERAL("bob@example.com")));
    assert_true(slice_equal(message->message_id_header, SLICE_LITERAL("<1@example.net>")));
    assert_true(slice_equal(message->origin.helo, SLICE_LITERAL("client.example")));
    assert_true(slice_equal(message->origin.listener, SLICE_LITERAL("mx")));
    assert_true(slice_equal(message->origin.protocol, SLICE_LITERAL("ESMTP")));
    char address[IP_TEXT_SIZE];
    ip_to_text(&message->origin.client.address, address);
    assert_string_equal(address, stranger);
    assert_int_equal(message->flags, SPOOL_8BIT);
    assert_int_equal(message->body_length, 7);

    char trace[512];
    snprintf(trace, sizeof(trace),
             "Received: from client.example ([198.51.100.7]) by mx.example.net (holdfast)\r\n"
             "\twith ESMTP id %s for <bob@example.com>;\r\n\t",
             id);
    assert_memory_equal(world->mail.content.data, trace, strlen(trace));
    assert_true(content_has(world, " +0000\r\nMessage-ID: <1@example.net>\r\nSubject: x\r\n\r\n"));
    assert_true(client_talk(client, "QUIT", "221 "));
    assert_true(client->closed);
    assert_int_equal(counter(world, COUNTER_MESSAGES_ACCEPTED), 1);
    assert_int_equal(counter(world, COUNTER_BYTES_ACCEPTED), world->mail.content.length);
    assert_int_equal(counter(world, COUNTER_SESSIONS), 1);
    assert_int_equal(counter(world, COUNTER_SESSIONS_OPEN), 0);
    client_free(client);
    world_end(world);
}

static void recipients_do_not_see_each_other(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = client_new(world, stranger);
    assert_true(talk_all(client, (const char *const[][2]){{NULL, NULL}}));
    assert_true(client_talk(client, NULL, "220 "));
    assert_true(talk_all(client, (const char *const[][2]){{"HELO (evil)\"x", "250 "},
                                                          {"MAIL FROM:<>", "250 "},
                                                          {"RCPT TO:<bob@example.com>", "250 "},
                                                          {"RCPT TO:<eve@example.com>", "250 "},
                                                          {"DATA", "354 "},
                                                          {".", "250 2.0.0 Ok: queued"},
                                                          {NULL, NULL}}));
    assert_int_equal(world->mail.message.recipient_count, 2);
    assert_int_equal(world->mail.message.sender.length, 0);
    assert_true(content_has(world, "from ?evil??x ([198.51.100.7])"));
    assert_true(slice_equal(world->mail.message.origin.protocol, SLICE_LITERAL("SMTP")));
    assert_false(content_has(world, "bob@"));
    assert_false(content_has(world, "eve@"));
    assert_int_equal(world->mail.message.body_length, 0);
    client_free(client);
    world_end(world);
}

static void several_messages_in_one_session_and_in_one_segment(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = client_new(world, stranger);
    assert_true(client_talk(client, NULL, "220 "));
    client_send(client, SLICE_LITERAL("EHLO c\r\n"
                                      "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@example.com>\r\n"
                                      "BDAT 5\r\nHelloBDAT 0 LAST\r\n"
                                      "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@example.com>\r\n"
                                      "DATA\r\nx\r\n.\r\nQUIT\r\n"));
    assert_true(talk_all(client, (const char *const[][2]){{NULL, NULL}}));
    static const char *const replies[] = {
        "250 ",      "250 2.1.0", "250 2.1.5", "250 2.0.0 5 octets",   "250 2.0.0 Ok: queued",
        "250 2.1.0", "250 2.1.5", "354 ",      "250 2.0.0 Ok: queued", "221 "};
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        assert_true(client_talk(client, NULL, replies[i]));
    }
    assert_int_equal(world->commits, 2);
    client_free(client);
    world_end(world);
}

static void large_content_is_streamed(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world, stranger, MAIL);
    struct buffer text;
    buffer_init(&text, 0);
    for (int i = 0; i < 40000; i++) {
        buffer_printf(&text, "line %d\n%s", i, i % 3 == 0 ? "." : ""); /* bare LF, and dots */
    }
    buffer_append_text(&text, "\r\n.\r\n");
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(client, "DATA", "354 "));
    client_send(client, buffer_slice(&text));
    assert_true(client_talk(client, NULL, "250 2.0.0 "));
    assert_true(world->appends > 4);
    assert_true(world->largest_frame <= CHANNEL_CHUNK + 1024);
    struct buffer expected;
    buffer_init(&expected, 0);
    for (int i = 0; i < 40000; i++) {
        buffer_printf(&expected, "line %d\r\n", i); /* a dot that begins a line is taken away */
    }
    buffer_append_text(&expected, "\r\n");
    size_t trace = world->mail.content.length - expected.length;
    assert_memory_equal(world->mail.content.data + trace, expected.data, expected.length);
    assert_int_equal(counter(world, COUNTER_BARE_NEWLINES), 1);
    buffer_done(&text);
    buffer_done(&expected);
    client_free(client);
    world_end(world);
}

/* ---- who may send ------------------------------------------------------------------------ */

static void relay_rules(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world, stranger, MAIL);
    assert_true(talk_all(
        client,
        (const char *const[][2]){{"RCPT TO:<bob@example.com>", "250 "},
                                 {"RCPT TO:<bob@EXAMPLE.org>", "250 "},
                                 {"RCPT TO:<bob@elsewhere.example>", "550 5.7.1 Relaying denied"},
                                 {"RCPT TO:<bob@sub.example.com>", "550 5.7.1"},
                                 {"RCPT TO:<bob%elsewhere.example@example.com>", "550 5.7.1"},
                                 {"RCPT TO:<elsewhere.example!bob@example.com>", "550 5.7.1"},
                                 {"RCPT TO:<\"bob@elsewhere.example\"@example.com>", "550 5.7.1"},
                                 {"RCPT TO:<@example.com:bob@elsewhere.example>", "550 5.7.1"},
                                 {"RCPT TO:<bob@[127.0.0.1]>", "550 5.7.1"},
                                 {"RCPT TO:<\"a>b\"@elsewhere.example>", "550 5.7.1"},
                                 {"RCPT TO:<bob@example.com.>", "501 5.1.3"},
                                 {NULL, NULL}}));
    assert_int_equal(counter(world, COUNTER_RECIPIENTS_REFUSED), 8);
    client_free(client);
    client = greeted(world, ours, MAIL);
    assert_true(
        talk_all(client, (const char *const[][2]){{"RCPT TO:<bob@elsewhere.example>", "250 "},
                                                  {"RCPT TO:<bob%x@elsewhere.example>", "250 "},
                                                  {"DATA", "354 "},
                                                  {".", "250 "},
                                                  {NULL, NULL}}));
    assert_int_equal(world->mail.message.flags, SPOOL_SENDER_VERIFIED);
    client_free(client);
    world_end(world);
}

static void twice_the_same_recipient_is_one(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world, stranger, MAIL);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 40; i++) {
            char line[64];
            snprintf(line, sizeof(line), "RCPT TO:<r%d@%s>", i,
                     round == 0 ? "example.com" : "EXAMPLE.com");
            assert_true(client_talk(client, line, "250 "));
        }
    }
    assert_true(client_talk(client, "RCPT TO:<R0@example.com>", "250 ")); /* another one */
    assert_true(client_talk(client, "DATA", "354 "));
    assert_true(client_talk(client, ".", "250 "));
    assert_int_equal(world->mail.message.recipient_count, 41);
    client_free(client);
    world_end(world);
}

static void postmaster_is_always_reached(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world, stranger, MAIL);
    assert_true(
        talk_all(client, (const char *const[][2]){{"RCPT TO:<Postmaster>", "250 "},
                                                  {"DATA", "354 "},
                                                  {".", "250 "},
                                                  {MAIL, "250 "},
                                                  {"RCPT TO:<abuse@mx.example.net>", "250 "},
                                                  {"RCPT TO:<bob@mx.example.net>", "550 "},
                                                  {NULL, NULL}}));
    assert_true(
        slice_equal(world->mail.message.recipients[0].address, SLICE_LITERAL("ann@example.com")));
    assert_true(content_has(world, "for <Postmaster>;"));
    client_free(client);
    world_end(world);

    world = begin();
    world->config.relay.postmaster = SLICE_EMPTY;
    assert_true(world_start(world));
    client = greeted(world, stranger, MAIL);
    assert_true(client_talk(client, "RCPT TO:<postmaster>", "550 5.1.1"));
    client_free(client);
    world_end(world);
}

static void what_the_head_server_would_refuse(void **state)
{
    (void)state;
    struct world *world = started();
    world_tell_route(world, 1, 0, ERROR_NONE, true, RELAY_CAP_8BITMIME, 1000);
    struct client *client = greeted(world, stranger, MAIL " SIZE=1001");
    assert_true(
        talk_all(client, (const char *const[][2]){{"RCPT TO:<bob@example.com>", "552 5.3.4"},
                                                  {"RCPT TO:<bob@example.org>", "250 "},
                                                  {"RSET", "250 "},
                                                  {MAIL " SMTPUTF8", "250 "},
                                                  {"RCPT TO:<bob@example.com>", "553 5.6.7"},
                                                  {"RCPT TO:<bob@example.org>", "250 "},
                                                  {"RSET", "250 "},
                                                  {MAIL, "250 "},
                                                  {"RCPT TO:<bob@example.com>", "250 "},
                                                  {"DATA", "354 "},
                                                  {NULL, NULL}}));
    char line[1100];
    memset(line, 'x', sizeof(line));
    client_send(client, slice_make(line, sizeof(line)));
    assert_true(client_talk(client, "\r\n.", "552 5.3.4"));
    assert_int_equal(world->commits, 0);
    assert_int_equal(counter(world, COUNTER_MESSAGES_REFUSED), 1);
    client_free(client);
    world_end(world);
}

/* The server behind us counts our Received field too: what it would refuse is refused here, and
 * what just fits is taken. */
static void head_limit_counts_our_field(void **state)
{
    (void)state;
    static const char body[] = "Subject: x\r\n\r\n0123456789\r\n.";
    char mail[96];
    struct world *world = started();
    snprintf(mail, sizeof(mail), MAIL " SIZE=%zu", sizeof(body) - 2);
    struct client *client = greeted(world, stranger, mail);
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(client, "DATA", "354 "));
    assert_true(client_talk(client, body, "250 "));
    uint64_t whole = world->mail.message.header_length + world->mail.message.body_length;
    assert_true(whole > sizeof(body));

    world_tell_route(world, 1, 0, ERROR_NONE, true, RELAY_CAP_8BITMIME, whole);
    assert_true(talk_all(client, (const char *const[][2]){{mail, "250 "},
                                                          {"RCPT TO:<bob@example.com>", "250 "},
                                                          {"RCPT TO:<bob@EXAMPLE.com>", "250 "},
                                                          {"DATA", "354 "},
                                                          {body, "250 "},
                                                          {NULL, NULL}}));
    assert_int_equal(world->mail.message.header_length + world->mail.message.body_length, whole);

    world_tell_route(world, 1, 0, ERROR_NONE, true, RELAY_CAP_8BITMIME, whole - 1);
    assert_true(
        talk_all(client, (const char *const[][2]){{mail, "250 "},
                                                  {"RCPT TO:<bob@example.com>", "552 5.3.4"},
                                                  {"RSET", "250 "},
                                                  {MAIL, "250 "},
                                                  {"RCPT TO:<bob@example.com>", "250 "},
                                                  {"DATA", "354 "},
                                                  {body, "552 5.3.4"},
                                                  {NULL, NULL}}));
    assert_int_equal(world->commits, 2);
    client_free(client);
    world_end(world);
}

static bool hears_dsn(struct world *world, const char *address)
{
    struct client *client = client_new(world, address);
    bool dsn = false;
    assert_true(client_talk(client, NULL, "220 "));
    client_say(client, "EHLO x");
    for (const char *line = client_hear(client); line[0] != '\0'; line = client_hear(client)) {
        dsn = dsn || strcmp(line + 4, "DSN") == 0;
    }
    client_free(client);
    return dsn;
}

static void dsn_is_offered_where_it_is_kept(void **state)
{
    (void)state;
    struct world *world = started();
    assert_true(hears_dsn(world, ours));
    assert_false(hears_dsn(world, stranger));
    world_tell_route(world, 1, 0, ERROR_NONE, true, RELAY_CAP_DSN, 0);
    assert_false(hears_dsn(world, stranger)); /* the other domain's head is not known */
    world_tell_route(world, 1, 1, ERROR_NONE, true, RELAY_CAP_DSN, 0);
    assert_true(hears_dsn(world, stranger));
    world_tell_route(world, 1, 1, ERROR_NONE, true, 0, 0);
    assert_false(hears_dsn(world, stranger));

    struct client *client = greeted(world, ours, MAIL " RET=HDRS ENVID=QQ1");
    assert_true(talk_all(
        client, (const char *const[][2]){{"RCPT TO:<bob@example.com> NOTIFY=SUCCESS,FAILURE "
                                          "ORCPT=rfc822;rob@example.com",
                                          "250 "},
                                         {"DATA", "354 "},
                                         {".", "250 "},
                                         {NULL, NULL}}));
    const struct spool_message *message = &world->mail.message;
    assert_int_equal(message->flags, SPOOL_SENDER_VERIFIED | SPOOL_RET_HEADERS);
    assert_true(slice_equal(message->envelope_id, SLICE_LITERAL("QQ1")));
    assert_true(slice_equal(message->recipients[0].orcpt, SLICE_LITERAL("rfc822;rob@example.com")));
    assert_int_equal(message->recipients[0].notify, SPOOL_NOTIFY_SUCCESS | SPOOL_NOTIFY_FAILURE);
    client_free(client);
    world_end(world);
}

static void time_of_delivery_and_priority_are_for_our_own(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world, ours, MAIL " BY=-60;NT MT-PRIORITY=-4");
    assert_true(talk_all(client, (const char *const[][2]){{"RCPT TO:<bob@example.com>", "250 "},
                                                          {"DATA", "354 "},
                                                          {".", "250 "},
                                                          {NULL, NULL}}));
    const struct spool_message *message = &world->mail.message;
    assert_int_equal(message->flags, SPOOL_SENDER_VERIFIED | SPOOL_BY_TRACE);
    assert_int_equal(message->priority, -4);
    assert_int_equal(message->deliver_by_ms, message->received_ms - 60000);
    assert_non_null(
        memmem(world->mail.content.data, world->mail.content.length, "PRIORITY -4", 11));
    assert_true(client_talk(client, MAIL " BY=60;R", "250 "));
    assert_true(talk_all(client, (const char *const[][2]){{"RCPT TO:<bob@example.com>", "250 "},
                                                          {"DATA", "354 "},
                                                          {".", "250 "},
                                                          {NULL, NULL}}));
    message = &world->mail.message;
    assert_int_equal(message->flags, SPOOL_SENDER_VERIFIED | SPOOL_BY_RETURN);
    assert_int_equal(message->priority, 0);
    assert_int_equal(message->deliver_by_ms, message->received_ms + 60000);
    assert_null(memmem(world->mail.content.data, world->mail.content.length, "PRIORITY", 8));
    client_free(client);

    client = client_new(world, stranger);
    assert_true(client_talk(client, NULL, "220 "));
    assert_true(client_talk(client, "EHLO x", "250 "));
    assert_true(client_talk(client, MAIL " BY=60;R", "555 5.5.4"));
    assert_true(client_talk(client, MAIL " MT-PRIORITY=9", "555 5.5.4"));
    client_free(client);
    world_end(world);
}

static void smtputf8_is_told(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world, stranger, MAIL " SMTPUTF8");
    assert_true(client_talk(client,
                            "RCPT TO:<b\xc3\xb6"
                            "b@example.com>",
                            "250 "));
    assert_true(client_talk(client, "DATA", "354 "));
    assert_true(client_talk(client, ".", "250 "));
    assert_true(content_has(world, "with UTF8SMTP id"));
    assert_int_equal(world->mail.message.flags, SPOOL_SMTPUTF8 | SPOOL_8BIT);
    assert_true(talk_all(client, (const char *const[][2]){{MAIL " SMTPUTF8", "250 "},
                                                          {"RCPT TO:<bob@example.com>", "250 "},
                                                          {"DATA", "354 "},
                                                          {".", "250 "},
                                                          {NULL, NULL}}));
    assert_int_equal(world->mail.message.flags, 0); /* announced, but nothing needs it */
    client_free(client);
    world_end(world);
}

/* ---- core's side ------------------------------------------------------------------------- */

static void no_space_is_said_at_rcpt(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world, stranger, MAIL);
    world_tell_accepting(world, ERROR_SPACE);
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "452 4.3.1"));
    world_tell_accepting(world, ERROR_IO);
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "451 4.3.0"));
    world_tell_accepting(world, ERROR_NONE);
    world_tell_route(world, 1, 0, ERROR_SPACE, false, 0, 0);
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "452 4.3.1"));
    assert_true(client_talk(client, "RCPT TO:<bob@example.org>", "250 "));
    client_free(client);
    world_end(world);
}

static void failed_storage_is_never_250(void **state)
{
    (void)state;
    static const struct {
        enum error error;
        const char *reply;
    } cases[] = {{ERROR_SPACE, "452 4.3.1"},   {ERROR_IO, "451 4.3.0"},
                 {ERROR_MEMORY, "451 4.3.0"},  {ERROR_LIMIT, "552 5.3.4"},
                 {ERROR_CORRUPT, "451 4.3.0"}, {ERROR_EXISTS, "451 4.3.0"},
                 {ERROR_LOOP, "451 4.4.6"}};
    struct world *world = started();
    struct client *client = client_new(world, stranger);
    assert_true(client_talk(client, NULL, "220 "));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        world->store_error = cases[i].error;
        assert_true(client_envelope(client, "bob@example.com"));
        assert_true(client_talk(client, "DATA", "354 "));
        assert_true(client_talk(client, "x\r\n.", cases[i].reply));
    }
    assert_int_equal(counter(world, COUNTER_MESSAGES_ACCEPTED), 0);
    client_free(client);
    world_end(world);
}

static void nothing_is_said_before_core_has(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world, stranger, MAIL);
    world->holds_answers = true;
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(client, "DATA", "354 "));
    client_say(client, "x\r\n.\r\nNOOP");
    assert_true(client_talk(client, NULL, ""));
    assert_int_equal(world->commits, 1);
    world_answer_all(world, ERROR_NONE);
    world_settle(world);
    assert_true(client_talk(client, NULL, "250 2.0.0 Ok: queued"));
    assert_true(client_talk(client, NULL, "250 2.0.0 Ok"));
    client_free(client);
    world_end(world);
}

static void full_ring_stops_reading(void **state)
{
    (void)state;
    struct world *world = begin();
    world->ring_bytes = 256 << 10;
    assert_true(world_start(world));
    struct client *client = greeted(world, stranger, MAIL);
    struct buffer text;
    buffer_init(&text, 0);
    for (int i = 0; i < 100000; i++) {
        buffer_append_text(&text, "0123456789\r\n");
    }
    buffer_append_text(&text, ".\r\n");
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(client, "DATA", "354 "));
    world->is_deaf = true;
    struct slice all = buffer_slice(&text);
    for (int turn = 0; turn < 200; turn++) {
        /* Nobody drinks: what the net and the ring hold is all that leaves. */
        client_send(client, slice_take(all, 0));
        size_t sent = 0;

        if (net_send(client->fd, all, &sent) == ERROR_NONE) {
            all = slice_skip(all, sent);
        }
    }
    assert_true(all.length > 500000);
    world->is_deaf = false;
    world_hear(world);
    client_send(client, all);
    assert_true(client_talk(client, NULL, "250 2.0.0 "));
    assert_true(world->mail.content.length > 1200000);
    buffer_done(&text);
    client_free(client);
    world_end(world);
}

static void core_goes_and_comes_back(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *committed = greeted(world, stranger, MAIL);
    struct client *streaming = greeted(world, stranger, MAIL);
    struct client *small = greeted(world, stranger, MAIL);
    world->holds_answers = true;
    assert_true(client_talk(committed, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(committed, "DATA", "354 "));
    client_say(committed, "x\r\n.");
    assert_true(client_talk(streaming, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(streaming, "DATA", "354 "));
    for (int i = 0; i < 3; i++) {
        static char block[50002];
        memset(block, 'x', 50000);
        memcpy(block + 50000, "\r\n", 2);
        client_send(streaming, slice_make(block, sizeof(block)));
    }
    assert_true(world->appends > 0);
    assert_true(client_talk(small, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(small, "DATA", "354 "));
    client_say(small, "small");

    world_core_gone(world);
    world_settle(world);
    assert_string_equal(client_hear(committed), ""); /* the next core is asked */
    struct client *late = client_new(world, stranger);
    assert_true(client_talk(late, NULL, "421 "));
    assert_true(late->closed);

    world->holds_answers = false;
    assert_true(world_new_core(world));
    world_tell_accepting(world, ERROR_NONE);
    assert_true(client_talk(committed, NULL, "250 2.0.0 "));
    assert_true(client_talk(streaming, ".", "451 4.3.0")); /* half of it is lost */
    assert_true(client_talk(small, ".", "250 2.0.0 "));    /* all of it was still here */
    assert_true(client_talk(committed, MAIL, "250 "));
    assert_true(client_talk(committed, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(committed, "DATA", "354 "));
    assert_true(client_talk(committed, "x\r\n.", "250 2.0.0 "));
    client_free(committed);
    client_free(streaming);
    client_free(small);
    client_free(late);
    world_end(world);
}

static void count(void *context)
{
    ++*(int *)context;
}

static void broken_core_is_dropped(void **state)
{
    (void)state;
    struct world *world = started();
    int told = 0;
    smtp_in_set_broken_handler(world->in, count, &told);
    struct client *client = greeted(world, stranger, MAIL);
    assert_int_equal(ring_send(world->core, SLICE_LITERAL("\xff\x01\x02")), ERROR_NONE);
    world_settle(world);
    assert_int_equal(told, 1);
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "451 4.3.0"));
    assert_true(world_new_core(world));
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "250 "));
    client_free(client);
    world_end(world);
}

static void clients_go_at_any_time(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world, stranger, MAIL);
    client_free(client);

    client = greeted(world, stranger, MAIL);
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(client, "DATA", "354 "));
    static char block[100000];
    memset(block, 'x', sizeof(block));
    client_send(client, slice_make(block, sizeof(block)));
    assert_int_equal(world->aborts, 0);
    client_free(client);
    assert_int_equal(world->aborts, 1);

    client = greeted(world, stranger, MAIL);
    world->holds_answers = true;
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(client, "DATA", "354 "));
    client_say(client, "x\r\n.");
    client_free(client);
    world_answer_all(world, ERROR_NONE);
    world_settle(world);
    assert_int_equal(counter(world, COUNTER_MESSAGES_ACCEPTED), 1);
    assert_int_equal(counter(world, COUNTER_SESSIONS_OPEN), 0);
    world_end(world);
}

/* ---- limits and time --------------------------------------------------------------------- */

static void full_house(void **state)
{
    (void)state;
    struct world *world = begin();
    world->config.limits.connections = 4;
    world->config.limits.connections_per_client = 2;
    assert_true(world_start(world));
    struct client *a = client_new(world, stranger);
    struct client *b = client_new(world, stranger);
    struct client *c = client_new(world, stranger);
    assert_true(client_talk(a, NULL, "220 ") && client_talk(b, NULL, "220 "));
    assert_true(client_talk(c, NULL, "421 4.7.0 mx.example.net"));
    assert_true(c->closed);
    struct client *d = client_new(world, "198.51.100.8");
    struct client *e = client_new(world, "198.51.100.9");
    struct client *f = client_new(world, "198.51.100.10");
    assert_true(client_talk(d, NULL, "220 ") && client_talk(e, NULL, "220 "));
    assert_true(client_talk(f, NULL, "421 4.3.2 mx.example.net"));
    assert_int_equal(counter(world, COUNTER_SESSIONS_REFUSED), 2);
    client_free(a);
    struct client *g = client_new(world, stranger);
    assert_true(client_talk(g, NULL, "220 "));
    struct client *all[] = {b, c, d, e, f, g};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        client_free(all[i]);
    }
    /* Loopback is not counted by client. */
    for (size_t i = 0; i < 4; i++) {
        all[i] = client_new(world, "127.0.0.1");
        assert_true(client_talk(all[i], NULL, "220 "));
    }
    for (size_t i = 0; i < 4; i++) {
        client_free(all[i]);
    }
    world_end(world);
}

static void time_runs_out(void **state)
{
    (void)state;
    struct world *world = begin();
    world->config.limits.command_timeout_ms = 10000;
    assert_true(world_start(world));
    struct client *idle = greeted(world, stranger, MAIL);
    struct client *slow = greeted(world, stranger, MAIL);
    struct client *busy = greeted(world, stranger, MAIL);
    world->holds_answers = true;
    assert_true(client_talk(busy, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(busy, "DATA", "354 "));
    client_say(busy, "x\r\n.");
    for (int second = 0; second < 15; second++) {
        client_send(slow, SLICE_LITERAL("N")); /* bytes alone do not buy time */
        backend_run(world, 1000);
    }
    assert_true(client_talk(idle, NULL, "421 4.4.2 mx.example.net"));
    assert_true(client_talk(slow, NULL, "421 4.4.2 mx.example.net"));
    assert_true(idle->closed && slow->closed);
    world_answer_all(world, ERROR_NONE); /* it waited for us, not for the client */
    world_settle(world);
    assert_true(client_talk(busy, NULL, "250 2.0.0 Ok: queued"));
    client_free(idle);
    client_free(slow);
    client_free(busy);
    world_end(world);
}

static void too_little_content_memory(void **state)
{
    (void)state;
    enum { CLIENTS = 12, BLOCK = 8192, BLOCKS = 25 };
    struct world *world = begin();
    world->config.content_memory_bytes = 50000;
    world->ring_bytes = 256 << 10;
    assert_true(world_start(world));
    struct client *clients[CLIENTS];
    char block[BLOCK];
    memset(block, 'x', sizeof(block));
    memcpy(block + BLOCK - 2, "\r\n", 2);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = greeted(world, stranger, MAIL);
        assert_true(client_talk(clients[i], "RCPT TO:<bob@example.com>", "250 "));
        assert_true(client_talk(clients[i], "DATA", "354 "));
    }
    for (int k = 0; k < BLOCKS; k++) {
        for (int i = 0; i < CLIENTS; i++) {
            client_send(clients[i], slice_make(block, sizeof(block)));
        }
    }
    for (int i = 0; i < CLIENTS; i++) {
        client_say(clients[i], ".");
        backend_run(world, 2000);
        assert_true(client_talk(clients[i], NULL, "250 2.0.0 "));
        assert_true(world->mail.content.length > BLOCK * BLOCKS);
        client_free(clients[i]);
    }
    world_end(world);
}

static void tells_core_of_servers(void **state)
{
    (void)state;
    struct world *world = started();
    client_free(client_new(world, stranger));
    assert_int_equal(world->contacts, 0);
    client_free(client_new(world, "203.0.113.1"));
    client_free(client_new(world, "203.0.113.1"));
    assert_int_equal(world->contacts, 1);
    backend_run(world, 1100);
    client_free(client_new(world, "203.0.113.1"));
    assert_int_equal(world->contacts, 2);
    world_end(world);
}

/* ---- ETRN -------------------------------------------------------------------------------- */

static struct client *eager(struct world *world)
{
    struct client *client = client_new(world, stranger);
    assert_true(client_talk(client, NULL, "220 "));
    assert_true(client_talk(client, "EHLO client.example", "250 "));
    return client;
}

static void etrn_is_answered_in_the_words_of_its_standard(void **state)
{
    (void)state;
    static const char *const replies[RELAY_ETRN_OUTCOMES] = {
        [RELAY_ETRN_DENIED] = "459 4.7.1 ",
        [RELAY_ETRN_NOTHING] = "251 2.0.0 Ok, no messages",
        [RELAY_ETRN_COUNTED] = "253 2.0.0 Ok, 42 pending messages",
        [RELAY_ETRN_UNCOUNTED] = "252 2.0.0 Ok, pending messages",
        [RELAY_ETRN_STARTED] = "250 2.0.0 Ok, queuing",
        [RELAY_ETRN_LATER] = "458 4.3.0 Unable to queue messages, try again later",
        [RELAY_ETRN_HELD] = "458 4.3.0 Unable to queue messages: 42 held by the operator",
        [RELAY_ETRN_REFUSED] = "458 4.3.0 Unable to queue messages: 42 were refused before",
        [RELAY_ETRN_TAKEN_OUT] = "458 4.3.0 Unable to queue messages: 42 wait for servers that are",
        [RELAY_ETRN_CALLS] = "458 4.3.0 Unable to queue messages: 42 wait for a server that calls",
        [RELAY_ETRN_DRILL] = "458 4.3.0 Unable to queue messages: 42 held back by a drill",
    };
    struct world *world = started();
    struct client *client = eager(world);
    for (int outcome = 0; outcome < RELAY_ETRN_OUTCOMES; outcome++) {
        world->etrn_outcome = (enum relay_etrn_outcome)outcome;
        assert_true(client_talk(client, "ETRN example.com", replies[outcome]));
    }
    assert_true(client_talk(client, "NOOP", "250 "));
    client_free(client);
    world_end(world);
}

static void etrn_waits_for_core_but_not_for_ever(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = eager(world), *impatient = eager(world);
    world->holds_answers = true;
    world->etrn_outcome = RELAY_ETRN_NOTHING;
    client_say(impatient, "ETRN example.com");
    world_settle(world);
    client_free(impatient);
    client_say(client, "ETRN example.com\r\nNOOP");
    assert_true(client_talk(client, NULL, ""));
    assert_int_equal(world->etrns, 2);
    world_answer_etrn(world);
    world_settle(world);
    assert_true(client_talk(client, NULL, "251 "));
    assert_true(client_talk(client, NULL, "250 "));
    /* An answer that comes when nobody waits for it any more. */
    world_answer_etrn(world);
    world_settle(world);
    assert_true(client_talk(client, "NOOP", "250 "));
    /* No answer at all. */
    client_say(client, "ETRN example.com");
    backend_run(world, 40000);
    assert_true(client_talk(client, NULL, "458 4.3.0 "));
    client_free(client);
    world_end(world);
}

static void etrn_survives_core(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *clients[] = {eager(world), eager(world)};
    world->holds_answers = true;
    client_say(clients[0], "ETRN example.com\r\nETRN example.com\r\nNOOP");
    client_say(clients[1], "ETRN example.com");
    world_settle(world);
    assert_int_equal(world->etrns, 2);
    world_core_gone(world);
    world_settle(world);
    assert_true(client_talk(clients[0], NULL, "458 4.3.0 "));
    assert_true(client_talk(clients[0], NULL, "458 4.3.0 "));
    assert_true(client_talk(clients[0], NULL, "250 "));
    assert_true(client_talk(clients[1], NULL, "458 4.3.0 "));
    world->holds_answers = false;
    world->etrn_outcome = RELAY_ETRN_NOTHING;
    assert_true(world_new_core(world));
    assert_true(client_talk(clients[1], "ETRN example.com", "251 "));
    client_free(clients[0]);
    client_free(clients[1]);
    world_end(world);
}

/* ---- configuration and the end ----------------------------------------------------------- */

static void new_rules(void **state)
{
    (void)state;
    struct world *world = started();
    struct client *client = greeted(world, stranger, MAIL);
    struct service_config other = world->config;
    struct domain_pattern domain = {.name = SLICE_LITERAL("new.example")};
    struct route_config route = world->routes[0];
    route.domains = &domain;
    other.relay.routes = &route;
    other.relay.route_count = 1;
    other.hostname = SLICE_LITERAL("renamed.example.net");
    other.limits.recipients = 1;
    /* Core has followed before us. */
    world_tell_route(world, 2, 0, ERROR_SPACE, false, 0, 0);
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "250 "));
    assert_int_equal(smtp_in_reconfigure(world->in, &other, 2, &world->listener), ERROR_NONE);
    assert_true(client_talk(client, "RCPT TO:<bob@example.com>", "452 4.5.3"));
    assert_true(
        talk_all(client, (const char *const[][2]){{"RSET", "250 "},
                                                  {MAIL, "250 "},
                                                  {"RCPT TO:<bob@example.com>", "550 5.7.1"},
                                                  {"RCPT TO:<bob@new.example>", "452 4.3.1"},
                                                  {NULL, NULL}}));
    world_tell_route(world, 2, 0, ERROR_NONE, false, 0, 0);
    assert_true(client_talk(client, "RCPT TO:<bob@new.example>", "250 "));
    struct client *fresh = client_new(world, stranger);
    assert_true(client_talk(fresh, NULL, "220 renamed.example.net"));

    /* Without its listener a session goes on by the old name. */
    other.listener_count = 0;
    assert_int_equal(smtp_in_reconfigure(world->in, &other, 3, NULL), ERROR_NONE);
    assert_true(client_talk(client, "DATA", "354 "));
    assert_true(client_talk(client, ".", "250 2.0.0 "));
    assert_true(slice_equal(world->mail.message.origin.listener, SLICE_LITERAL("mx")));
    client_free(client);
    client_free(fresh);
    world_end(world);
}

/* By our own clock mail could end at once, as too old. */
static void a_node_waits_for_the_clusters_time(void **state)
{
    (void)state;
    struct world *world = begin();
    world->config.cluster.database = SLICE_LITERAL("host=db1");
    assert_true(world_start(world));
    struct client *early = client_new(world, stranger);
    assert_true(client_talk(early, NULL, ""));
    assert_int_equal(smtp_in_reconfigure(world->in, &world->config, 2, &world->listener),
                     ERROR_NONE);
    world_settle(world);
    assert_true(client_talk(early, NULL, ""));
    assert_int_equal(counter(world, COUNTER_SESSIONS), 0);

    world_tell_accepting(world, ERROR_NONE);
    assert_true(client_talk(early, NULL, "220 "));
    struct client *later = client_new(world, stranger);
    assert_true(client_talk(later, NULL, "220 "));
    client_free(early);
    client_free(later);
    world_end(world);

    /* What is not in a cluster has its own clock. */
    world = started();
    struct client *client = client_new(world, stranger);
    assert_true(client_talk(client, NULL, "220 "));
    client_free(client);
    world_end(world);
}

static void note_stop(void *context)
{
    ++*(int *)context;
}

static void stops_gracefully(void **state)
{
    (void)state;
    struct world *world = started();
    int stops = 0;
    struct client *idle = client_new(world, stranger);
    struct client *busy = greeted(world, stranger, MAIL);
    assert_true(client_talk(idle, NULL, "220 "));
    assert_true(client_talk(busy, "RCPT TO:<bob@example.com>", "250 "));
    assert_true(client_talk(busy, "DATA", "354 "));
    smtp_in_stop(world->in, 10000, note_stop, &stops);
    world_settle(world);
    assert_true(client_talk(idle, NULL, "421 4.3.2"));
    assert_true(idle->closed);
    assert_int_equal(stops, 0);
    assert_true(client_talk(busy, "x\r\n.", "250 2.0.0 "));
    assert_true(client_talk(busy, NULL, "421 4.3.2"));
    assert_int_equal(stops, 1);
    client_free(idle);
    client_free(busy);
    world_end(world);

    world = started();
    stops = 0;
    busy = greeted(world, stranger, MAIL);
    smtp_in_stop(world->in, 5000, note_stop, &stops);
    backend_run(world, 4000);
    assert_int_equal(stops, 0);
    backend_run(world, 2000);
    assert_int_equal(stops, 1);
    client_free(busy);
    world_end(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_a_message),
        cmocka_unit_test(recipients_do_not_see_each_other),
        cmocka_unit_test(several_messages_in_one_session_and_in_one_segment),
        cmocka_unit_test(large_content_is_streamed),
        cmocka_unit_test(relay_rules),
        cmocka_unit_test(twice_the_same_recipient_is_one),
        cmocka_unit_test(postmaster_is_always_reached),
        cmocka_unit_test(what_the_head_server_would_refuse),
        cmocka_unit_test(head_limit_counts_our_field),
        cmocka_unit_test(dsn_is_offered_where_it_is_kept),
        cmocka_unit_test(time_of_delivery_and_priority_are_for_our_own),
        cmocka_unit_test(smtputf8_is_told),
        cmocka_unit_test(no_space_is_said_at_rcpt),
        cmocka_unit_test(failed_storage_is_never_250),
        cmocka_unit_test(nothing_is_said_before_core_has),
        cmocka_unit_test(full_ring_stops_reading),
        cmocka_unit_test(core_goes_and_comes_back),
        cmocka_unit_test(broken_core_is_dropped),
        cmocka_unit_test(clients_go_at_any_time),
        cmocka_unit_test(full_house),
        cmocka_unit_test(time_runs_out),
        cmocka_unit_test(too_little_content_memory),
        cmocka_unit_test(tells_core_of_servers),
        cmocka_unit_test(etrn_is_answered_in_the_words_of_its_standard),
        cmocka_unit_test(etrn_waits_for_core_but_not_for_ever),
        cmocka_unit_test(etrn_survives_core),
        cmocka_unit_test(new_rules),
        cmocka_unit_test(a_node_waits_for_the_clusters_time),
        cmocka_unit_test(stops_gracefully),
    };
    return cmocka_run_group_tests_name("smtp_in", tests, NULL, NULL);
}
