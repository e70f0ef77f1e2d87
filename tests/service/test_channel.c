/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames between processes: what is put is got, and nothing that breaks the rules is taken.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service/channel.h"
#include "service/metrics.h"

static struct spool_message sample(const struct spool_recipient *recipients, uint32_t count)
{
    struct spool_message message = {
        .id = {0x0123456789abcdefULL, 0xfedcba9876543210ULL},
        .received_ms = 1780000000123,
        .odometer_s = 7,
        .elapsed_s = 8,
        .flags = SPOOL_8BIT | SPOOL_SMTPUTF8,
        .priority = -3,
        .deliver_by_ms = 1790000000000,
        .header_length = 100,
        .body_length = 200,
        .sender = SLICE_LITERAL("ann@example.net"),
        .envelope_id = SLICE_LITERAL("QQ314159"),
        .message_id_header = SLICE_LITERAL("<a.b@example.net>"),
        .origin = {.client = {{{0, 1, 2, 3}}, 4711},
                   .helo = SLICE_LITERAL("client.example"),
                   .listener = SLICE_LITERAL("mx"),
                   .protocol = SLICE_LITERAL("ESMTP"),
                   .tls = SLICE_LITERAL("TLSv1.3"),
                   .user = SLICE_LITERAL("ann"),
                   .verdicts = SLICE_LITERAL("spf=pass\r\n"),
                   .forwarded = SLICE_LITERAL("ADDR=192.0.2.9")},
        .recipients = recipients,
        .recipient_count = count,
    };
    return message;
}

static const struct spool_recipient two[] = {
    {SLICE_LITERAL("bob@example.com"), SLICE_LITERAL("rfc822;bob@example.com"),
     SPOOL_NOTIFY_FAILURE},
    {SLICE_LITERAL("postmaster"), {NULL, 0}, 0},
};

/* What is put, and where slices of what is got are. */
static struct buffer buffer;
static struct arena arena;

static int set_up(void **state)
{
    (void)state;
    buffer_init(&buffer, 0);
    arena_init(&arena);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_done(&arena);
    buffer_done(&buffer);
    return 0;
}

/* All but the last `cut` bytes. */
static struct reader read_back(size_t cut)
{
    return reader_make(slice_take(buffer_slice(&buffer), buffer.length - cut));
}

static bool survives(const struct spool_message *message, struct spool_message *ret_back)
{
    buffer_clear(&buffer);
    channel_put_message(&buffer, message);
    assert_false(buffer.failed);
    struct reader reader = read_back(0);
    return channel_get_message(&reader, &arena, ret_back) && reader.rest.length == 0;
}

static void message_round_trip(void **state)
{
    (void)state;
    struct spool_message message = sample(two, 2), back;
    assert_true(survives(&message, &back));
    assert_true(id_equal(back.id, message.id));
    assert_int_equal(back.received_ms, message.received_ms);
    assert_int_equal(back.odometer_s, 7);
    assert_int_equal(back.elapsed_s, 8);
    assert_int_equal(back.flags, message.flags);
    assert_int_equal(back.priority, -3);
    assert_int_equal(back.deliver_by_ms, message.deliver_by_ms);
    assert_int_equal(back.header_length, 100);
    assert_int_equal(back.body_length, 200);
    assert_true(slice_equal(back.sender, message.sender));
    assert_true(slice_equal(back.envelope_id, message.envelope_id));
    assert_true(slice_equal(back.message_id_header, message.message_id_header));
    assert_memory_equal(&back.origin.client.address, &message.origin.client.address, 16);
    assert_int_equal(back.origin.client.port, 4711);
    assert_true(slice_equal(back.origin.helo, message.origin.helo));
    assert_true(slice_equal(back.origin.listener, message.origin.listener));
    assert_true(slice_equal(back.origin.protocol, message.origin.protocol));
    assert_true(slice_equal(back.origin.tls, message.origin.tls));
    assert_true(slice_equal(back.origin.user, message.origin.user));
    assert_true(slice_equal(back.origin.verdicts, message.origin.verdicts));
    assert_true(slice_equal(back.origin.forwarded, message.origin.forwarded));
    assert_int_equal(back.recipient_count, 2);
    assert_true(slice_equal(back.recipients[0].address, two[0].address));
    assert_true(slice_equal(back.recipients[0].orcpt, two[0].orcpt));
    assert_int_equal(back.recipients[0].notify, SPOOL_NOTIFY_FAILURE);
    assert_true(slice_equal(back.recipients[1].address, two[1].address));
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    struct spool_message message = sample(two, 2), back;
    channel_put_message(&buffer, &message);
    for (size_t cut = 1; cut <= buffer.length; cut++) {
        struct reader reader = read_back(cut);
        assert_false(channel_get_message(&reader, &arena, &back));
    }
}

static void refuses_what_could_hurt(void **state)
{
    (void)state;
    const struct spool_recipient empty = {{NULL, 0}, {NULL, 0}, 0};
    struct spool_message bad[7], back;
    for (size_t i = 0; i < 7; i++) {
        bad[i] = sample(two, 2);
        assert_true(survives(&bad[i], &back));
    }
    bad[0].sender = SLICE_LITERAL("a\r\nRCPT TO:<x@y>");
    bad[1].origin.helo = SLICE_LITERAL("x\ny");
    bad[2].message_id_header = SLICE_LITERAL("a\0b");
    bad[3].header_length = UINT64_MAX;
    bad[4].recipient_count = 0;
    bad[5].id = (struct message_id){0, 0};
    bad[6] = sample(&empty, 1);
    for (size_t i = 0; i < 7; i++) {
        assert_false(survives(&bad[i], &back));
    }
}

static void recipient_count_is_bounded(void **state)
{
    (void)state;
    struct spool_message message = sample(two, 2), back;
    channel_put_message(&buffer, &message);
    /* The count stands before the two recipients: 4 + 15 + 4 + 22 + 1 and 4 + 10 + 4 + 1 bytes. */
    size_t at = buffer.length - (4 + 15 + 4 + 22 + 1) - (4 + 10 + 4 + 1) - 4;
    assert_int_equal(buffer.data[at], 2);
    memset(buffer.data + at, 0xff, 4);
    struct reader reader = read_back(0);
    assert_false(channel_get_message(&reader, &arena, &back));
    assert_int_equal(arena.used, 0);
}

static void reply_round_trip(void **state)
{
    (void)state;
    struct relay_reply reply = {RELAY_AT_DOT, RELAY_REPLY, 451, {4, 3, 0}, SLICE_LITERAL("later")};
    struct relay_reply back;
    channel_put_reply(&buffer, &reply);
    struct reader reader = read_back(0);
    assert_true(channel_get_reply(&reader, &back));
    assert_int_equal(back.stage, RELAY_AT_DOT);
    assert_int_equal(back.how, RELAY_REPLY);
    assert_int_equal(back.code, 451);
    assert_memory_equal(back.enhanced, reply.enhanced, 3);
    assert_true(slice_equal(back.text, reply.text));

    buffer.data[0] = RELAY_AT_IDLE + 1;
    reader = read_back(0);
    assert_false(channel_get_reply(&reader, &back));
}

static void capabilities_round_trip(void **state)
{
    (void)state;
    struct relay_capabilities some = {RELAY_CAP_DSN, 1ULL << 40, 100, 5}, back;
    channel_put_capabilities(&buffer, &some);
    struct reader reader = read_back(0);
    assert_true(channel_get_capabilities(&reader, &back));
    assert_int_equal(back.flags, some.flags);
    assert_int_equal(back.size_limit, some.size_limit);
    assert_int_equal(back.recipients_max, 100);
    assert_int_equal(back.mails_max, 5);
    reader = read_back(1);
    assert_false(channel_get_capabilities(&reader, &back));
}

static void refusal_round_trip(void **state)
{
    (void)state;
    static char text[CHANNEL_REFUSAL_TEXT_MAX + 10];
    memset(text, 'x', sizeof(text));
    struct channel_refusal some = {.id = {1, 2},
                                   .client = {{[15] = 7}},
                                   .code = 550,
                                   .has_sender = true,
                                   .stage = SLICE_LITERAL("rcpt"),
                                   .helo = SLICE_LITERAL("mail.example"),
                                   .sender = SLICE_LITERAL("bob@c.example"),
                                   .recipient = slice_make(text, sizeof(text)),
                                   .text = SLICE_LITERAL("No")};
    struct channel_refusal back;
    channel_put_refusal(&buffer, &some);
    struct reader reader = read_back(0);
    assert_true(channel_get_refusal(&reader, &back));
    assert_true(id_equal(back.id, some.id) && ip_equal(&back.client, &some.client));
    assert_true(back.code == 550 && back.has_sender);
    assert_true(slice_equal(back.stage, some.stage) && slice_equal(back.helo, some.helo));
    assert_true(slice_equal(back.sender, some.sender) && slice_equal(back.text, some.text));
    assert_int_equal(back.recipient.length, CHANNEL_REFUSAL_TEXT_MAX);
    reader = read_back(1);
    assert_false(channel_get_refusal(&reader, &back));
}

static void counters_add_up(void **state)
{
    (void)state;
    static struct counter_page page;
    counter_add(&page.slots[0], COUNTER_SESSIONS, 2);
    counter_add(&page.slots[COUNTER_SLOTS - 1], COUNTER_SESSIONS, 3);
    counter_add(&page.slots[1], COUNTER_SESSIONS_OPEN, (uint64_t)-1);
    counter_add(&page.slots[2], COUNTER_SESSIONS_OPEN, 1);
    assert_int_equal(counter_sum(&page, COUNTER_SESSIONS), 5);
    assert_int_equal(counter_sum(&page, COUNTER_SESSIONS_OPEN), 0);
    assert_string_equal(counter_name(COUNTER_SESSIONS), "holdfast_smtp_sessions_total");
    assert_string_equal(counter_help(COUNTER_RESTARTS), "Processes restarted by the keeper");
}

#define frame_test(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        frame_test(message_round_trip),      frame_test(every_cut_is_refused),
        frame_test(refuses_what_could_hurt), frame_test(recipient_count_is_bounded),
        frame_test(reply_round_trip),        frame_test(capabilities_round_trip),
        frame_test(refusal_round_trip),      cmocka_unit_test(counters_add_up),
    };
    return cmocka_run_group_tests_name("channel", tests, NULL, NULL);
}
