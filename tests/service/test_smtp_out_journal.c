/* SPDX-License-Identifier: Apache-2.0
 *
 * The outgoing door on the kernel's sockets, reading messages from a journal as edge-out does.
 *
 *   test_smtp_out_journal                                      a server of our own on loopback
 *   test_smtp_out_journal ADDRESS PORT COUNT SESSIONS BYTES [lmtp]
 *       hands COUNT messages of BYTES to a server there and prints the rate; for looking at real
 *       servers and at system calls, no part of the tests
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "out_world.h"
#include "sys/clock.h"

enum { COUNT_MAX = 100000, QUEUED = 2 };

static struct server_address address;
static struct server_config server_config;
static struct service_config config;
static struct counters counters;

struct world {
    struct loop *loop;
    struct spool *spool;
    struct spool_reader *reader;
    struct fake_core core;
    struct ring *ring;
    struct smtp_out *out;
    char path[64];
    struct spool_handle handles[COUNT_MAX];
    uint32_t count, sent, awaited;
    size_t stored;
    struct loop_timer *timer;
    bool failed;
};

static struct world world;

/* ---- the journal ---- */

static void open_journal(void)
{
    struct disk *disk;
    struct spool_settings settings;
    struct spool_owner owner = {0};
    snprintf(world.path, sizeof(world.path), "/tmp/smtp-out-XXXXXX");
    assert_non_null(mkdtemp(world.path));
    spool_settings_default(&settings);
    settings.segment_bytes = 8 << 20;
    assert_int_equal(disk_open_directory(world.path, &disk), ERROR_NONE);
    assert_int_equal(spool_open_log(world.loop, disk, &settings, &owner, &world.spool), ERROR_NONE);
    struct spool_loader loader = {0};
    for (bool complete = false; !complete;) {
        assert_int_equal(spool_load(world.spool, &loader, &complete), ERROR_NONE);
    }
    assert_int_equal(disk_open_directory(world.path, &disk), ERROR_NONE);
    assert_int_equal(spool_reader_open_log(disk, &world.reader), ERROR_NONE);
}

static void stored(void *context, enum error error, const struct spool_handle *handles,
                   size_t count)
{
    (void)context;
    assert_int_equal(error, ERROR_NONE);
    assert_int_equal(count, 1);
    world.handles[world.stored++] = handles[0];
    if (world.stored == world.count) {
        loop_stop(world.loop);
    }
}

static void make_content(uint32_t number, size_t bytes, struct buffer *ret_content)
{
    buffer_clear(ret_content);
    buffer_printf(ret_content, "Subject: %05u\r\n\r\n", number);
    while (ret_content->length < bytes) {
        buffer_append_text(ret_content,
                           ".lines of a length that people write, as a rule, in mail\r\n");
    }
}

static void store(uint32_t count, size_t bytes)
{
    struct id_maker maker = {.node = 1, .start = 1};
    struct spool_recipient recipient = {.address = SLICE_LITERAL("bob@example.com")};
    struct buffer content;
    buffer_init(&content, 0);
    world.count = count;
    for (uint32_t i = 0; i < count; i++) {
        make_content(i, bytes, &content);
        struct spool_message message = {.id = id_make(&maker, clock_wall_ms()),
                                        .received_ms = clock_wall_ms(),
                                        .header_length = 18,
                                        .body_length = content.length - 18,
                                        .sender = SLICE_LITERAL("ann@example.org"),
                                        .recipients = &recipient,
                                        .recipient_count = 1};
        spool_batch_begin(world.spool);
        assert_int_equal(spool_batch_message(world.spool, &message, NULL, buffer_slice(&content)),
                         ERROR_NONE);
        spool_batch_submit(world.spool, SPOOL_WRITTEN, stored, NULL);
    }
    buffer_done(&content);
    loop_run(world.loop);
    assert_int_equal(world.stored, count);
}

/* ---- a core that keeps every session busy ---- */

static void deliver_next(uint32_t session)
{
    uint8_t ticket[SPOOL_TICKET_MAX];
    size_t length;
    if (world.sent < world.count) {
        spool_pin(world.spool, world.handles[world.sent]);
        assert_int_equal(spool_ticket(world.spool, world.handles[world.sent], ticket, &length),
                         ERROR_NONE);
        core_deliver_ticket(&world.core, session, world.sent, slice_make(ticket, length), "", 1);
        world.sent++;
    }
}

static void heard(struct fake_core *core, enum channel_frame type, uint32_t session)
{
    if (type == CHANNEL_OPENED) {
        for (int i = 0; i < QUEUED; i++) {
            deliver_next(session);
        }
    } else if (type == CHANNEL_RESULT) {
        deliver_next(session);
    } else if (type == CHANNEL_ENDED) {
        world.failed = true;
    }
    if (core->results == world.count || world.failed) {
        loop_stop(world.loop);
    }
}

static void too_slow(void *context)
{
    (void)context;
    world.failed = true;
    loop_stop(world.loop);
}

static void hand_over(uint32_t sessions, int64_t patience_ms)
{
    world.timer = loop_timer_new(world.loop, too_slow, NULL);
    loop_timer_set(world.timer, patience_ms);
    for (uint32_t i = 0; i < sessions; i++) {
        core_connect(&world.core, i, 0);
    }
    loop_run(world.loop);
    loop_timer_free(world.timer);
    if (world.failed) {
        printf("%.*s\n", SLICE_PRINT(buffer_slice(&world.core.heard)));
    }
}

static void begin(const char *host, uint16_t port, bool lmtp)
{
    memset(&world, 0, sizeof(world));
    world.loop = loop_new();
    address = (struct server_address){.is_literal = true, .port = port};
    assert_true(ip_from_text(slice_from_text(host), &address.literal));
    server_config = (struct server_config){.name = SLICE_LITERAL("s0"),
                                           .addresses = &address,
                                           .address_count = 1,
                                           .protocol = lmtp ? SERVER_LMTP : SERVER_SMTP,
                                           .connect_timeout_ms = 30000,
                                           .greeting_timeout_ms = 60000};
    config = (struct service_config){.hostname = SLICE_LITERAL("mx2.test")};
    config.relay.servers = &server_config;
    config.relay.server_count = 1;
    open_journal();
    struct ring *theirs;
    assert_int_equal(ring_pair_local(CHANNEL_RING_OUT, CHANNEL_RING_OUT, world.loop, world.loop,
                                     &theirs, &world.ring),
                     ERROR_NONE);
    core_attach(&world.core, world.loop, theirs);
    world.core.go = true;
    world.core.durable = true;
    world.core.also = heard;
    world.out = smtp_out_new(world.loop, &config, world.reader, NULL, world.ring, &counters);
    assert_non_null(world.out);
}

static void remove_journal(void)
{
    char command[100];
    snprintf(command, sizeof(command), "rm -rf %s", world.path);
    assert_int_equal(system(command), 0);
}

static void end(void)
{
    smtp_out_free(world.out);
    core_done(&world.core);
    ring_free(world.ring);
    spool_reader_close(world.reader);
    spool_close(world.spool);
    loop_free(world.loop);
    remove_journal();
}

/* ---- the test ---- */

static void contents_arrive_from_the_journal(void **state)
{
    (void)state;
    static const struct server_script script = {
        .greeting = "220 mail.test",
        .hello = "250-mail.test\r\n250 PIPELINING",
        .mail = "250 2.1.0 ok",
        .recipient = "250 2.1.5 ok",
        .data = "354 go",
        .dot = "250 2.0.0 queued",
    };
    static const size_t sizes[] = {0, 4000, 300000};
    struct buffer content, expected;
    buffer_init(&content, 0);
    buffer_init(&expected, 0);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct loop *loop;
        begin("127.0.0.1", 1, false);
        loop = world.loop;
        struct server *server = server_new(loop, "127.0.0.1", 0, &script);
        address.port = server_port(server);
        store(20, sizes[i]);
        hand_over(1, 60000);
        assert_false(world.failed);
        buffer_clear(&expected);
        for (uint32_t j = 0; j < 20; j++) {
            make_content(j, sizes[i], &content);
            for (struct slice rest = buffer_slice(&content); rest.length > 0;) {
                struct slice line = slice_take(rest, slice_find(rest, '\n') + 1);
                buffer_append_text(&expected, line.data[0] == '.' ? "." : "");
                buffer_append(&expected, line);
                rest = slice_skip(rest, line.length);
            }
            buffer_append_text(&expected, "|");
        }
        assert_true(slice_equal(server_taken(server), buffer_slice(&expected)));
        assert_int_equal(server_visits(server), 1);
        server_free(server);
        end();
    }
    buffer_done(&content);
    buffer_done(&expected);
}

static void refused_by_the_kernel(void **state)
{
    (void)state;
    begin("127.0.0.1", 1, false); /* nobody listens there */
    world.count = 1;
    hand_over(1, 60000);
    assert_true(core_heard(&world.core, "ended 0 0 connect-lost\n"));
    end();
}

static int drive(char **arguments, int count)
{
    begin(arguments[0], (uint16_t)strtoul(arguments[1], NULL, 10), count > 5);
    store((uint32_t)strtoul(arguments[2], NULL, 10), strtoul(arguments[4], NULL, 10));
    int64_t start = clock_steady_ms();
    hand_over((uint32_t)strtoul(arguments[3], NULL, 10), 300000);
    int64_t ms = clock_steady_ms() - start;
    printf("%u messages in %lld ms: %lld/s\n", world.core.results, (long long)ms,
           ms > 0 ? (long long)world.core.results * 1000 / ms : 0);
    bool failed = world.failed;
    end();
    return failed;
}

int main(int argc, char **argv)
{
    if (argc > 5) {
        return drive(argv + 1, argc - 1);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contents_arrive_from_the_journal),
        cmocka_unit_test(refused_by_the_kernel),
    };
    return cmocka_run_group_tests_name("smtp_out_journal", tests, NULL, NULL);
}
