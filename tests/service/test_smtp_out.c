/* SPDX-License-Identifier: Apache-2.0
 *
 * The outgoing door on the simulated world: real ring, clock that jumps, servers that misbehave.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "out_world.h"
#include "service/smtp_out_internal.h"
#include "sim/sim.h"
#include "sys/net.h"

enum { SERVERS = 8 };

static struct server_address addresses[SERVERS][2];
static struct server_config servers[SERVERS];
static char names[SERVERS][8];
static struct service_config config;
static struct counters counters;
static struct loop *loop;
static struct dns *dns;
static struct fake_core core;
static struct ring *ring;
static struct smtp_out *out;
static struct server *server; /* at 192.0.2.1, and good if it is not told otherwise */

static const struct server_script good = {
    .greeting = "220 mail.test",
    .hello = "250-mail.test\r\n250-PIPELINING\r\n250 SIZE 1000000",
    .mail = "250 2.1.0 ok",
    .recipient = "250 2.1.5 ok",
    .data = "354 go",
    .dot = "250 2.0.0 queued",
};

static void literal(uint32_t which, uint32_t index, const char *address)
{
    addresses[which][index].is_literal = true;
    addresses[which][index].port = 25;
    ip_from_text(slice_from_text(address), &addresses[which][index].literal);
}

static void configure(void)
{
    memset(addresses, 0, sizeof(addresses));
    for (uint32_t i = 0; i < SERVERS; i++) {
        literal(i, 0, "192.0.2.1");
        snprintf(names[i], sizeof(names[i]), "s%u", i);
        servers[i] = (struct server_config){.name = slice_from_text(names[i]),
                                            .addresses = addresses[i],
                                            .address_count = 1,
                                            .connect_timeout_ms = 30000,
                                            .greeting_timeout_ms = 60000};
    }
    /* 0: there. 1: nobody listens. 2: nobody, then there. 3: a name. 4: an unknown name. 5: LMTP.
     * 6: silent host, then there. */
    literal(1, 0, "192.0.2.9");
    literal(2, 0, "192.0.2.9");
    literal(2, 1, "192.0.2.1");
    servers[2].address_count = 2;
    addresses[3][0] = (struct server_address){.host = SLICE_LITERAL("a1.test"), .port = 25};
    addresses[4][0] = (struct server_address){.host = SLICE_LITERAL("nowhere.test"), .port = 25};
    servers[5].protocol = SERVER_LMTP;
    literal(6, 0, "192.0.2.8");
    literal(6, 1, "192.0.2.1");
    servers[6].address_count = 2;
    config = (struct service_config){.hostname = SLICE_LITERAL("mx2.test")};
    config.relay.servers = servers;
    config.relay.server_count = SERVERS;
}

static void attach(size_t ring_bytes)
{
    struct ring *theirs;
    assert_int_equal(ring_pair_local(ring_bytes, ring_bytes, loop, loop, &theirs, &ring),
                     ERROR_NONE);
    core_attach(&core, loop, theirs);
}

static void pass(int64_t ms)
{
    sim_run_until(sim_now_ns() + ms * 1000000);
}

static int begin(void **state)
{
    (void)state;
    sim_begin(1);
    configure();
    store_clear();
    memset(&core, 0, sizeof(core));
    loop = loop_new();
    assert_int_equal(dns_new(loop, &(struct dns_settings){0}, &dns), ERROR_NONE);
    attach(64 << 10);
    core.go = true;
    core.durable = true;
    out = smtp_out_new(loop, &config, NULL, dns, ring, &counters);
    assert_non_null(out);
    server = server_new(loop, "192.0.2.1", 25, &good);
    for (uint8_t i = 0; i < 200; i++) {
        store_put(i,
                  &(struct stored_message){.sender = "a@x.test",
                                           .recipients = {"b@y.test", "c@y.test"},
                                           .content = SLICE_LITERAL("Subject: s\r\n\r\nhi\r\n")});
    }
    return 0;
}

static int end(void **state)
{
    (void)state;
    server_free(server);
    smtp_out_free(out);
    assert_int_equal(store_open_count(), 0);
    ring_free(ring);
    core_done(&core);
    dns_free(dns);
    pass(3600 * 1000); /* lets the world forget what is on its way */
    loop_free(loop);
    sim_end();
    return 0;
}

/* That many octets in lines of 50, of dots now and then; until the next call. */
static struct slice lines(size_t size, bool dots)
{
    static char text[1000000];
    assert_true(size <= sizeof(text));
    for (size_t i = 0; i < size; i += 50) {
        memset(text + i, dots && i % 1000 == 0 ? '.' : 'y', 48);
        memcpy(text + i + 48, "\r\n", 2);
    }
    return slice_make(text, size);
}

/* All that core has heard since the last time. */
static void assert_heard(const char *expected)
{
    buffer_put_u8(&core.heard, 0);
    assert_string_equal((const char *)core.heard.data, expected);
    buffer_clear(&core.heard);
}

static void assert_slice(struct slice slice, const char *expected)
{
    assert_int_equal(slice.length, strlen(expected));
    assert_memory_equal(slice.data, expected, slice.length);
}

static void delivers(void **state)
{
    (void)state;
    core.go = false;
    core_connect(&core, 7, 0);
    pass(1000);
    assert_heard("resumed 1\nopened 7 0 8\n");
    core_deliver(&core, 7, 100, 5, "", 2);
    pass(1000);
    assert_heard("ready 7 100\n");
    assert_slice(server_heard(server, 0), "EHLO mx2.test\r\nMAIL FROM:<a@x.test> SIZE=18\r\n"
                                          "RCPT TO:<b@y.test>\r\nRCPT TO:<c@y.test>\r\nDATA\r\n");
    core_say(&core, CHANNEL_GO, 7, 100);
    pass(1000);
    assert_heard("result 7 0 100 id5 0:accepted dot-reply-250 1:accepted dot-reply-250\n");
    assert_slice(server_taken(server), "Subject: s\r\n\r\nhi\r\n|");
    core_say(&core, CHANNEL_CLOSE, 7, 0);
    pass(1000);
    assert_heard("ended 7 0 idle-local\n");
    assert_int_equal(server_visits(server), 1);
}

static void an_envelope_that_is_all_is_taken_back(void **state)
{
    (void)state;
    store_put(1, &(struct stored_message){.sender = "",
                                          .recipients = {"postmaster@y.test"},
                                          .content = SLICE_LITERAL("Subject: s\r\n\r\nhi\r\n"),
                                          .flags = SPOOL_DRILL | SPOOL_ENVELOPE_ONLY});
    core_connect(&core, 1, 0);
    pass(1000);
    core_deliver(&core, 1, 10, 1, "", 1);
    core_deliver(&core, 1, 11, 1, "other@y.test", 1); /* by hand to another: no content either */
    pass(1000);
    core_deliver(&core, 1, 12, 2, "", 1);
    pass(1000);
    assert_heard("resumed 1\nopened 1 0 8\n"
                 "result 1 0 10 id1 0:accepted recipient-reply-250\n"
                 "result 1 0 11 reused id1 0:accepted recipient-reply-250\n"
                 "ready 1 12\n"
                 "result 1 0 12 reused id2 0:accepted dot-reply-250\n");
    assert_slice(server_heard(server, 0),
                 "EHLO mx2.test\r\n"
                 "MAIL FROM:<> SIZE=18\r\nRCPT TO:<postmaster@y.test>\r\nRSET\r\n"
                 "MAIL FROM:<> SIZE=18\r\nRCPT TO:<other@y.test>\r\nRSET\r\n"
                 "MAIL FROM:<a@x.test> SIZE=18\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"
                 "Subject: s\r\n\r\nhi\r\n.\r\n");
    assert_slice(server_taken(server), "Subject: s\r\n\r\nhi\r\n|");
}

static void next_dot_waits_for_durable(void **state)
{
    (void)state;
    core.durable = false;
    core_connect(&core, 1, 0);
    pass(1000);
    core_deliver(&core, 1, 10, 1, "", 1);
    core_deliver(&core, 1, 11, 2, "", 1);
    pass(1000);
    assert_heard("resumed 1\nopened 1 0 8\nready 1 10\nready 1 11\n"
                 "result 1 0 10 id1 0:accepted dot-reply-250\n");
    /* The second has its GO, its envelope is out, but the first is not durable. */
    assert_slice(server_taken(server), "Subject: s\r\n\r\nhi\r\n|");
    core_say(&core, CHANNEL_DURABLE, 1, 10);
    pass(1000);
    assert_heard("result 1 0 11 reused id2 0:accepted dot-reply-250\n");
}

static void many_in_order_over_one_connection(void **state)
{
    (void)state;
    struct buffer expected;
    static char texts[200][40];
    buffer_init(&expected, 0);
    core_connect(&core, 1, 0);
    pass(1000);
    for (uint8_t i = 0; i < 200; i++) {
        snprintf(texts[i], sizeof(texts[i]), "Subject: %u\r\n\r\n.\r\n", i);
        store_put(i, &(struct stored_message){.sender = "",
                                              .recipients = {"b@y.test"},
                                              .content = slice_from_text(texts[i])});
        core_deliver(&core, 1, i, i, "", 1);
        buffer_printf(&expected, "Subject: %u\r\n\r\n..\r\n|", i);
    }
    pass(60000);
    assert_int_equal(core.results, 200);
    assert_true(slice_equal(server_taken(server), buffer_slice(&expected)));
    assert_int_equal(server_visits(server), 1);
    buffer_done(&expected);
}

static void connection_refused(void **state)
{
    (void)state;
    core_connect(&core, 1, 1);
    pass(1000);
    assert_heard("resumed 1\nended 1 1 connect-lost\n");
}

static void connect_timeout(void **state)
{
    (void)state;
    struct ip_endpoint at = {.port = 25};
    ip_from_text(SLICE_LITERAL("192.0.2.9"), &at.address);
    sim_net_reach(&at, SIM_UNREACHABLE);
    core_connect(&core, 1, 1);
    pass(29900);
    assert_heard("resumed 1\n");
    pass(200);
    assert_heard("ended 1 1 connect-timeout\n");
}

static struct ip_endpoint unreachable(const char *address)
{
    struct ip_endpoint at = {.port = 25};
    ip_from_text(slice_from_text(address), &at.address);
    sim_net_reach(&at, SIM_UNREACHABLE);
    return at;
}

static uint32_t attempts_under_way(void)
{
    uint32_t count = 0;
    LIST_EACH(&LIST_ENTRY(out->sessions.next, struct out_session, link)->attempts, at, after)
    {
        count++;
    }
    return count;
}

static void a_probe_notices_a_silent_host_within_its_interval(void **state)
{
    (void)state;
    struct ip_endpoint at = unreachable("192.0.2.1");
    for (uint32_t i = 1; i < 8; i++) {
        core_probe(&core, i, 0, 700);
        pass(12000 + 100 * i);
        assert_int_equal(attempts_under_way(), ATTEMPTS_MAX);
        buffer_clear(&core.heard);
        sim_net_reach(&at, SIM_REACHABLE);
        pass(750);
        assert_true(core_heard(&core, "opened"));
        assert_int_equal(server_visits(server), i);
        core_say(&core, CHANNEL_CLOSE, i, 0);
        sim_net_reach(&at, SIM_UNREACHABLE);
        pass(6000);
    }
}

static void a_probe_of_a_silent_host_ends_by_connect_timeout(void **state)
{
    (void)state;
    (void)unreachable("192.0.2.9");
    core_probe(&core, 1, 1, 700);
    pass(29900);
    assert_heard("resumed 1\n");
    pass(200);
    assert_heard("ended 1 1 connect-timeout\n");
    core_probe(&core, 2, 1, 700);
    pass(5000);
    core_say(&core, CHANNEL_CLOSE, 2, 0);
    pass(100);
    assert_heard("ended 2 1 idle-local\n");
}

static void a_contact_brings_a_fresh_attempt_at_once(void **state)
{
    (void)state;
    struct ip_endpoint at = unreachable("192.0.2.1");
    core_probe(&core, 1, 0, 60000);
    pass(20000);
    assert_int_equal(attempts_under_way(), 1);
    sim_net_reach(&at, SIM_REACHABLE);
    core_say(&core, CHANNEL_KNOCK, 1, 0);
    pass(20);
    assert_heard("resumed 1\nopened 1 0 8\n");
    core_say(&core, CHANNEL_KNOCK, 1, 0); /* too late, or of a session that has gone: nothing */
    core_say(&core, CHANNEL_KNOCK, 9, 0);
    pass(1000);
    assert_int_equal(server_visits(server), 1);
}

static void a_probe_takes_all_addresses_in_turn(void **state)
{
    (void)state;
    struct ip_endpoint at = unreachable("192.0.2.8");
    core_probe(&core, 1, 6, 700);
    pass(650);
    assert_heard("resumed 1\n");
    pass(100);
    assert_heard("opened 1 6 8\n");
    /* The second one refuses, the first comes back: a refusal ends only what it speaks of. */
    core_say(&core, CHANNEL_CLOSE, 1, 0);
    server_free(server);
    core_probe(&core, 2, 6, 700);
    pass(20000);
    assert_heard("ended 1 6 idle-local\n");
    struct server_script busy = good;
    busy.greeting = "421 4.3.2 busy";
    struct server *busy_server = server_new(loop, "192.0.2.8", 25, &busy);
    server = server_new(loop, "192.0.2.1", 25, &good);
    struct ip_endpoint other = unreachable("192.0.2.1");
    sim_net_reach(&at, SIM_REACHABLE);
    pass(1450);
    /* It does not greet: now the other's turn, whole. */
    assert_int_equal(server_visits(busy_server), 1);
    sim_net_reach(&other, SIM_REACHABLE);
    pass(1450);
    assert_heard("opened 2 6 8\n");
    server_free(busy_server);
}

static void silent_greeting(void **state)
{
    (void)state;
    struct server_script silent = good;
    silent.greeting = NULL;
    server_set(server, &silent);
    core_connect(&core, 1, 0);
    pass(59900);
    assert_heard("resumed 1\n");
    pass(200);
    assert_heard("ended 1 0 greeting-timeout\n");
}

static void next_address_of_the_list(void **state)
{
    (void)state;
    struct server_script busy = good;
    busy.greeting = "421 4.3.2 busy";
    struct server *other = server_new(loop, "192.0.2.8", 25, &busy);
    core_connect(&core, 1, 2);
    core_connect(&core, 2, 6);
    pass(1000);
    assert_int_equal(server_visits(server), 2);
    assert_int_equal(server_visits(other), 1);
    assert_true(core_heard(&core, "opened 1 2 8\n"));
    assert_true(core_heard(&core, "opened 2 6 8\n"));
    server_free(other);
}

static void names_and_their_last_good_addresses(void **state)
{
    (void)state;
    core_connect(&core, 1, 3);
    core_connect(&core, 2, 4);
    pass(1000);
    assert_int_equal(server_visits(server), 1);
    assert_true(core_heard(&core, "addresses 3 1\n"));
    assert_true(core_heard(&core, "name a1.test 1\n"));
    assert_true(core_heard(&core, "ended 2 4 resolve-lost\n"));
    /* Long after the TTL, and nobody answers any more. */
    pass(3600 * 1000);
    out->dns = NULL;
    core_connect(&core, 3, 3);
    pass(1000);
    assert_int_equal(server_visits(server), 2);
}

static void addresses_that_core_has_kept(void **state)
{
    (void)state;
    pass(100);
    core_tell_name(&core, "nowhere.test", "192.0.2.1");
    core_tell_name(&core, "of.no.server.test", "192.0.2.1");
    core_connect(&core, 1, 4);
    pass(5000);
    assert_heard("resumed 1\naddresses 4 1\nname nowhere.test 1\nopened 1 4 8\n");
    assert_int_equal(server_visits(server), 1);
}

static void greeting_and_hello_misbehave(void **state)
{
    (void)state;
    static const struct {
        const char *greeting, *hello;
        bool flood;
        const char *heard;
    } cases[] = {
        {"421 4.3.2 busy", "", false, "ended 1 0 greeting-reply-421\n"},
        {"554 5.7.1 go", "", false, "ended 1 0 greeting-reply-554\n"},
        {"", "", false, "ended 1 0 greeting-lost\n"},
        {"hello there", "", false, "ended 1 0 greeting-lost\n"},
        {NULL, "", true, "ended 1 0 greeting-lost\n"},
        {"220 a", "", false, "ended 1 0 hello-lost\n"},
        {"220 a", "450 4.3.2 later", false, "ended 1 0 hello-reply-450\n"},
        {"220 a\r\n220 b", "250 c", false, "ended 1 0 hello-lost\n"},
    };
    pass(100);
    assert_heard("resumed 1\n");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct server_script script = good;
        script.greeting = cases[i].greeting;
        script.hello = cases[i].hello;
        script.flood = cases[i].flood;
        server_set(server, &script);
        core_connect(&core, 1, 0);
        pass(2000);
        assert_heard(cases[i].heard);
    }
}

static void transactions_misbehave(void **state)
{
    (void)state;
    static const struct {
        struct server_script script;
        int64_t ms;
        const char *heard;
    } cases[] = {
        {{.mail = ""}, 1000, "0:cut mail-lost"},
        {{.mail = "250 ok", .recipient = ""}, 1000, "0:cut recipient-lost"},
        {{.mail = "250 ok", .recipient = "250 ok", .data = ""}, 1000, "0:cut data-lost"},
        {{.mail = "250 ok", .recipient = "250 ok", .data = "354 go", .dot = ""},
         1000,
         "0:in-doubt dot-lost"},
        {{.mail = "250 ok", .recipient = "250 ok", .data = "354 go", .dot = NULL},
         601000,
         "0:in-doubt dot-timeout"},
        {{.mail = NULL}, 301000, "0:cut mail-timeout"},
        {{.mail = "421 4.3.2 bye"}, 1000, "0:refused mail-reply-421"},
        {{.mail = "250 ok", .recipient = "550 5.1.1 no"}, 1000, "0:refused recipient-reply-550"},
        {{.mail = "250 ok", .recipient = "250 ok", .data = "354 go", .dot = "554 5.6.0 no"},
         1000,
         "0:refused dot-reply-554"},
        {{.mail = "250 ok", .recipient = "250 ok", .data = "354 go", .dot = "421 4.3.0 no"},
         1000,
         "0:refused dot-reply-421"},
    };
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct server_script script = cases[i].script;
        script.greeting = good.greeting;
        script.hello = good.hello;
        server_set(server, &script);
        core_connect(&core, i, 0);
        core_deliver(&core, i, i, 1, "", 1);
        pass(cases[i].ms);
        char expected[100];
        snprintf(expected, sizeof(expected), "result %u 0 %u id1 %s\n", i, i, cases[i].heard);
        assert_true(core_heard(&core, expected));
        buffer_clear(&core.heard);
    }
}

static void lmtp_replies_for_each(void **state)
{
    (void)state;
    struct server_script script = good;
    script.lmtp = true;
    server_set(server, &script);
    core_connect(&core, 1, 5);
    core_deliver(&core, 1, 1, 1, "", 2);
    core.close = true;
    pass(1000);
    assert_heard("resumed 1\nopened 1 5 8\nready 1 1\n"
                 "result 1 5 1 id1 0:accepted dot-reply-250 1:accepted dot-reply-250\n"
                 "ended 1 5 idle-local\n");
    assert_true(slice_starts_fold(server_heard(server, 0), SLICE_LITERAL("LHLO mx2.test\r\n")));
}

static void redirected(void **state)
{
    (void)state;
    core_connect(&core, 1, 0);
    core_deliver(&core, 1, 1, 1, "other@z.test", 1);
    pass(1000);
    assert_non_null(memmem(server_heard(server, 0).data, server_heard(server, 0).length,
                           "RCPT TO:<other@z.test>\r\n", 24));
}

static void what_cannot_be_read_gets_no_dot(void **state)
{
    (void)state;
    struct slice large = lines(200000, false);
    struct stored_message message = {
        .sender = "a@x.test", .recipients = {"b@y.test"}, .content = large, .damaged_at = 150000};
    store_put(1, &message);
    message.missing = true;
    store_put(2, &message);
    message = (struct stored_message){
        .sender = "a@x.test", .recipients = {"b@y.test"}, .content = SLICE_LITERAL("a\nb\r\n")};
    store_put(3, &message);
    message.error = ERROR_IO;
    message.missing = true;
    store_put(4, &message);
    message = (struct stored_message){.sender = "a@x.test",
                                      .recipients = {"b@y.test"},
                                      .content = large,
                                      .damaged_at = 150000,
                                      .error = ERROR_IO};
    store_put(5, &message);
    core_connect(&core, 1, 0);
    core_deliver(&core, 1, 1, 1, "", 1);
    pass(1000);
    core_connect(&core, 2, 0);
    core_deliver(&core, 2, 2, 2, "", 1);
    core_deliver(&core, 2, 4, 4, "", 1);
    core_deliver(&core, 2, 3, 3, "", 1);
    pass(1000);
    core_connect(&core, 3, 0);
    core_deliver(&core, 3, 5, 5, "", 1);
    pass(1000);
    /* What may be read later is put off, what never can be is told apart. */
    assert_heard("resumed 1\nopened 1 0 8\nready 1 1\n"
                 "result 1 0 1 id1 0:damaged content-local\nended 1 0 content-local\n"
                 "result 2 0 2 id0 0:damaged content-local\n"
                 "result 2 0 4 id0 0:refused content-local\n"
                 "opened 2 0 8\nready 2 3\n"
                 "result 2 0 3 id3 0:damaged content-local\nended 2 0 content-local\n"
                 "opened 3 0 8\nready 3 5\n"
                 "result 3 0 5 id5 0:refused content-local\nended 3 0 content-local\n");
    assert_int_equal(server_taken(server).length, 0);
}

static void large_content_to_a_slow_reader(void **state)
{
    (void)state;
    struct slice large = lines(1000000, true);
    struct buffer expected;
    buffer_init(&expected, 0);
    for (size_t i = 0; i < large.length; i += 50) {
        buffer_append_text(&expected, large.data[i] == '.' ? "." : "");
        buffer_append(&expected, slice_take(slice_skip(large, i), 50));
    }
    buffer_append_text(&expected, "|");
    store_put(1, &(struct stored_message){
                     .sender = "a@x.test", .recipients = {"b@y.test"}, .content = large});
    struct server_script slow = good;
    slow.reads = 777;
    server_set(server, &slow);
    core_connect(&core, 1, 0);
    core_deliver(&core, 1, 1, 1, "", 1);
    pass(60000);
    assert_heard("resumed 1\nopened 1 0 8\nready 1 1\n"
                 "result 1 0 1 id1 0:accepted dot-reply-250\n");
    assert_true(slice_equal(server_taken(server), buffer_slice(&expected)));
    buffer_done(&expected);
}

static void stalled_reader_times_out(void **state)
{
    (void)state;
    struct slice large = lines(1000000, false);
    store_put(1, &(struct stored_message){
                     .sender = "a@x.test", .recipients = {"b@y.test"}, .content = large});
    struct server_script stalled = good;
    stalled.stalls = true;
    server_set(server, &stalled);
    core_connect(&core, 1, 0);
    core_deliver(&core, 1, 1, 1, "", 1);
    pass(185000);
    assert_heard("resumed 1\nopened 1 0 8\nready 1 1\n"
                 "result 1 0 1 id1 0:cut content-timeout\nended 1 0 content-timeout\n");
}

static void core_restarts(void **state)
{
    (void)state;
    struct server_script slow = good;
    slow.dot = NULL;
    core.durable = false;
    for (uint32_t session = 1; session <= 4; session++) {
        core_connect(&core, session, 0);
    }
    pass(1000);
    /* 1: result not confirmed. 2: dot under way. 3: envelope only. 4: idle. */
    core_deliver(&core, 1, 1, 1, "", 1);
    pass(1000);
    server_set(server, &slow);
    core_deliver(&core, 2, 2, 2, "", 1);
    core_deliver(&core, 2, 20, 20, "", 1);
    pass(1000);
    core.go = false;
    core_deliver(&core, 3, 3, 3, "", 1);
    pass(1000);

    struct ring *old = ring;
    struct fake_core before = core;
    memset(&core, 0, sizeof(core));
    attach(64 << 10);
    smtp_out_set_ring(out, ring);
    ring_free(old);
    core_done(&before);
    pass(1000);
    assert_heard("result 1 0 1 id1 0:accepted dot-reply-250\n"
                 "working 2 0 2\n"
                 "result 2 0 20 id20 0:not-tried idle-local\n"
                 "result 3 0 3 id3 0:not-tried content-local\n"
                 "resumed 0\n");
    /* A session of the new core may have an old number; what is confirmed is forgotten. */
    core_connect(&core, 2, 0);
    core_say(&core, CHANNEL_DURABLE, 1, 1);
    core_say(&core, CHANNEL_DURABLE, 3, 3);
    core_say(&core, CHANNEL_DURABLE, 2, 20);
    pass(1000);
    assert_heard("opened 2 0 8\n");
    pass(600000);
    assert_heard("result 2 0 2 id2 0:in-doubt dot-timeout\nended 2 0 dot-timeout\n");
    core_say(&core, CHANNEL_DURABLE, 2, 2);
    pass(1000);
    assert_int_equal(out->jobs_by_id.count, 0);
    assert_true(list_is_empty(&out->unconfirmed));
}

static bool stopped;

static void note_stopped(void *context)
{
    (void)context;
    stopped = true;
}

static void stops_after_the_dots_under_way(void **state)
{
    (void)state;
    struct server_script slow = good;
    slow.dot = NULL;
    server_set(server, &slow);
    for (uint32_t session = 1; session <= 3; session++) {
        core_connect(&core, session, 0);
    }
    pass(1000);
    core_deliver(&core, 2, 2, 2, "", 1);
    pass(1000);
    core.go = false;
    core_deliver(&core, 3, 3, 3, "", 1);
    pass(1000);
    buffer_clear(&core.heard);
    stopped = false;
    smtp_out_stop(out, 5000, note_stopped, NULL);
    pass(4900);
    assert_heard("ended 1 0 idle-local\nresult 3 0 3 id3 0:not-tried content-local\n"
                 "ended 3 0 content-local\n");
    assert_false(stopped);
    pass(200);
    assert_heard("result 2 0 2 id2 0:in-doubt dot-local\nended 2 0 dot-local\n");
    assert_true(stopped);
}

static void reports_wait_for_room(void **state)
{
    (void)state;
    pass(100);
    ring_set_handler(core.ring, note_stopped, NULL); /* core is busy elsewhere */
    core.go = false;
    for (uint32_t i = 0; i < 100; i++) {
        store_put((uint8_t)i, &(struct stored_message){.missing = true});
    }
    /* 2,000 jobs, each with a result of some 90 octets: more than the ring holds. */
    core_connect(&core, 1, 0);
    for (uint32_t i = 0; i < 2000; i++) {
        core_deliver(&core, 1, i, 0, "", 1);
        if (i % 100 == 0) {
            pass(10);
        }
    }
    pass(1000);
    ring_set_handler(core.ring, NULL, NULL);
    struct ring *theirs = core.ring;
    core_attach(&core, loop, theirs);
    pass(10000);
    assert_int_equal(core.results, 2000);
    assert_int_equal(out->jobs_by_id.count, 0);
}

static void closing_gives_back_what_has_no_go(void **state)
{
    (void)state;
    struct server_script late = good;
    late.dot = NULL;
    server_set(server, &late);
    core_connect(&core, 1, 0);
    core_deliver(&core, 1, 1, 1, "", 1);
    core_deliver(&core, 1, 2, 2, "", 1);
    core_deliver(&core, 1, 3, 3, "", 1);
    pass(1000);
    core.go = false;
    core_connect(&core, 2, 0);
    core_deliver(&core, 2, 4, 4, "", 1);
    pass(1000);
    assert_heard("resumed 1\nopened 1 0 8\nready 1 1\nready 1 2\nopened 2 0 8\nready 2 4\n");
    core_say(&core, CHANNEL_CLOSE, 1, 0);
    core_say(&core, CHANNEL_CLOSE, 2, 0);
    pass(1000);
    assert_heard("result 1 0 2 id2 0:not-tried idle-local\n"
                 "result 1 0 3 id3 0:not-tried idle-local\n"
                 "result 2 0 4 id4 0:not-tried idle-local\nended 2 0 content-local\n");
    server_say(server, 0, "250 2.0.0 queued");
    pass(1000);
    assert_heard("result 1 0 1 id1 0:accepted dot-reply-250\nended 1 0 mail-local\n");
}

static void closing_does_not_wait_for_a_greeting(void **state)
{
    (void)state;
    struct server_script silent = good;
    silent.greeting = NULL;
    server_set(server, &silent);
    core_connect(&core, 1, 0);
    pass(1000);
    core_say(&core, CHANNEL_CLOSE, 1, 0);
    pass(1000);
    assert_heard("resumed 1\nended 1 0 greeting-local\n");
}

static void closing_waits_for_the_reply_to_a_dot(void **state)
{
    (void)state;
    struct server_script late = good;
    late.dot = NULL;
    server_set(server, &late);
    for (uint32_t session = 1; session <= 2; session++) {
        core_connect(&core, session, 0);
        core_deliver(&core, session, session, (uint8_t)session, "", 1);
        pass(1000);
        core_say(&core, CHANNEL_CLOSE, session, 0);
    }
    pass(300 * 1000);
    assert_heard("resumed 1\nopened 1 0 8\nready 1 1\nopened 2 0 8\nready 2 2\n");
    server_say(server, 0, "250 2.0.0 queued");
    pass(1000);
    assert_heard("result 1 0 1 id1 0:accepted dot-reply-250\nended 1 0 idle-local\n");
    pass(300 * 1000); /* RFC 5321 4.5.3.2.6: ten minutes in all */
    assert_heard("result 2 0 2 id2 0:in-doubt dot-timeout\nended 2 0 dot-timeout\n");
}

static void closing_waits_while_content_moves(void **state)
{
    (void)state;
    struct slice large = lines(800000, false);
    store_put(1, &(struct stored_message){
                     .sender = "a@x.test", .recipients = {"b@y.test"}, .content = large});
    struct server_script slow = good;
    slow.pause_ms = 1000;
    server_set(server, &slow);
    core_connect(&core, 1, 0);
    core_deliver(&core, 1, 1, 1, "", 1);
    pass(5000);
    core_say(&core, CHANNEL_CLOSE, 1, 0);
    pass(120000); /* it takes some 100 s to read all */
    assert_heard("resumed 1\nopened 1 0 8\nready 1 1\n"
                 "result 1 0 1 id1 0:accepted dot-reply-250\nended 1 0 idle-local\n");
}

static void servers_change_their_numbers(void **state)
{
    (void)state;
    static struct server_config changed[2];
    static struct service_config other; /* outlives this test, as the sessions that point at it */
    other = config;
    changed[0] = servers[1];
    changed[0].name = SLICE_LITERAL("new");
    changed[1] = servers[0];
    other.relay.servers = changed;
    other.relay.server_count = 2;
    core_connect(&core, 1, 0);
    core_deliver(&core, 1, 1, 1, "", 1);
    core.go = false;
    pass(1000);
    assert_int_equal(smtp_out_reconfigure(out, &other), ERROR_NONE);
    core_say(&core, CHANNEL_GO, 1, 1);
    pass(1000);
    assert_heard("resumed 1\nopened 1 0 8\nready 1 1\n"
                 "result 1 0 1 id1 0:accepted dot-reply-250\n");
}

/* Servers that do anything, jobs without end: each job has one result, none is lost. */
static void every_job_has_one_result(void **state)
{
    (void)state;
    static const char *const replies[] = {"250 ok", "250 ok", "250 ok", "250 ok",
                                          "354 go", "550 no", "450 no", "421 bye",
                                          "what",   "",       NULL};
    core.close = false;
    uint64_t job = 0;
    for (uint32_t session = 1; session < 300; session++) {
        struct server_script script = good;
        const char **lines[] = {&script.greeting,  &script.hello, &script.mail,
                                &script.recipient, &script.data,  &script.dot};
        *lines[sim_draw(6)] = replies[sim_draw(11)];
        script.reads = sim_draw(2) == 0 ? 0 : 1 + sim_draw(40);
        server_set(server, &script);
        core_connect(&core, session, 0);
        for (uint64_t i = sim_draw(5); i > 0; i--) {
            core_deliver(&core, session, job++, (uint8_t)sim_draw(200), "", 1);
        }
        pass((int64_t)sim_draw(800));
        core_say(&core, CHANNEL_CLOSE, session, 0);
        if (sim_draw(20) == 0) {
            pass(700000);
        }
    }
    pass(1000000);
    assert_int_equal(core.results, job);
    assert_int_equal(out->jobs_by_id.count, 0);
    assert_true(list_is_empty(&out->sessions));
}

/* A connection that the test has made in the name of a client: the server at its other end greets.
 */
static int called(const char *address)
{
    struct ip_endpoint at = {.port = 25};
    int fd;
    assert_true(ip_from_text(slice_from_text(address), &at.address));
    assert_int_equal(net_connect(&at, NULL, &fd), ERROR_NONE);
    pass(10);
    assert_int_equal(net_connected(fd), ERROR_NONE);
    return fd;
}

/* In either order; and it is spoken to as any server's. */
static void a_turned_connection_finds_its_session(void **state)
{
    (void)state;
    servers[7].protocol = SERVER_ODMR;
    servers[7].address_count = 0;
    core_connect(&core, 5, 7);
    pass(100);
    assert_heard("resumed 1\n");
    smtp_out_turned(out, 5, called("192.0.2.1"));
    pass(100);
    assert_true(core_heard(&core, "opened 5"));
    core_deliver(&core, 5, 9, 1, "", 1);
    pass(100);
    assert_true(core_heard(&core, "result"));
    core_say(&core, CHANNEL_CLOSE, 5, 0);
    pass(100);
    assert_true(core_heard(&core, "ended 5"));
    assert_int_equal(server_taken(server).length > 0, true);
    buffer_clear(&core.heard);
    smtp_out_turned(out, 6, called("192.0.2.1"));
    pass(100);
    assert_heard("");
    core_connect(&core, 6, 7);
    pass(100);
    assert_true(core_heard(&core, "opened 6"));
    assert_int_equal(server_visits(server), 2);
}

static void a_turned_connection_that_does_not_come_is_given_up(void **state)
{
    (void)state;
    servers[7].protocol = SERVER_ODMR;
    servers[7].address_count = 0;
    core_connect(&core, 5, 7);
    pass(4000);
    assert_heard("resumed 1\n");
    pass(2000);
    assert_heard("ended 5 7 connect-local\n"); /* no failure of the server's */
    assert_true(list_is_empty(&out->sessions));
}

/* Nothing is kept of what belongs to no session: not in the end, and not with another core. */
static void turned_connections_without_a_session_are_closed(void **state)
{
    (void)state;
    servers[7].protocol = SERVER_ODMR;
    core_connect(&core, 4, 0); /* an ordinary server's */
    pass(100);
    smtp_out_turned(out, 4, called("192.0.2.1"));
    assert_true(list_is_empty(&out->turned));
    smtp_out_turned(out, 5, called("192.0.2.1"));
    assert_int_equal(out->turned_count, 1);
    pass(6000);
    smtp_out_turned(out, 6, called("192.0.2.1"));
    assert_int_equal(out->turned_count, 1); /* the older one's time is over */
    smtp_out_set_ring(out, ring);
    assert_int_equal(out->turned_count, 0);
    smtp_out_turned(out, 7, called("192.0.2.1"));
    /* And the last goes with the door. */
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(delivers),
        WITH_WORLD(an_envelope_that_is_all_is_taken_back),
        WITH_WORLD(a_turned_connection_finds_its_session),
        WITH_WORLD(a_turned_connection_that_does_not_come_is_given_up),
        WITH_WORLD(turned_connections_without_a_session_are_closed),
        WITH_WORLD(next_dot_waits_for_durable),
        WITH_WORLD(many_in_order_over_one_connection),
        WITH_WORLD(connection_refused),
        WITH_WORLD(connect_timeout),
        WITH_WORLD(a_probe_notices_a_silent_host_within_its_interval),
        WITH_WORLD(a_probe_of_a_silent_host_ends_by_connect_timeout),
        WITH_WORLD(a_contact_brings_a_fresh_attempt_at_once),
        WITH_WORLD(a_probe_takes_all_addresses_in_turn),
        WITH_WORLD(silent_greeting),
        WITH_WORLD(next_address_of_the_list),
        WITH_WORLD(names_and_their_last_good_addresses),
        WITH_WORLD(addresses_that_core_has_kept),
        WITH_WORLD(greeting_and_hello_misbehave),
        WITH_WORLD(transactions_misbehave),
        WITH_WORLD(lmtp_replies_for_each),
        WITH_WORLD(redirected),
        WITH_WORLD(what_cannot_be_read_gets_no_dot),
        WITH_WORLD(large_content_to_a_slow_reader),
        WITH_WORLD(stalled_reader_times_out),
        WITH_WORLD(core_restarts),
        WITH_WORLD(stops_after_the_dots_under_way),
        WITH_WORLD(reports_wait_for_room),
        WITH_WORLD(closing_gives_back_what_has_no_go),
        WITH_WORLD(closing_does_not_wait_for_a_greeting),
        WITH_WORLD(closing_waits_for_the_reply_to_a_dot),
        WITH_WORLD(closing_waits_while_content_moves),
        WITH_WORLD(servers_change_their_numbers),
        WITH_WORLD(every_job_has_one_result),
    };
    return cmocka_run_group_tests_name("smtp_out", tests, NULL, NULL);
}
