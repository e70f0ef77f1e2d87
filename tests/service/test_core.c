/* SPDX-License-Identifier: Apache-2.0
 *
 * core between its edges: a message in, durable, out, done; and what happens when something breaks
 * at each of these points.
 */
#include "core_bench.h"

#include "base/base64.h"
#include "relay/etrn.h"
#include "sys/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static json_int_t queued(struct bench *bench, const char *key)
{
    assert_int_equal(bench_ask(bench, "status", "{}"), 0);
    json_t *row = json_array_get(bench->rows, 0);
    assert_non_null(row);
    json_t *value = strcmp(key, "dead_letters") == 0
                        ? json_object_get(row, key)
                        : json_object_get(json_object_get(row, "queue"), key);
    return json_integer_value(value);
}

/* Until `status` counts so many: the last fate or note may still be on its way. */
static void until_counted(struct bench *bench, const char *key, json_int_t count)
{
    for (int i = 0; i < 1000 && queued(bench, key) != count; i++) {
        bench_run_ms(bench, 5);
    }
    assert_int_equal(queued(bench, key), count);
}

static void until_queued(struct bench *bench, json_int_t count)
{
    until_counted(bench, "deliveries", count);
}

static void until_true(struct bench *bench, const bool *condition)
{
    for (int i = 0; i < 300 && !*condition; i++) {
        bench_run_ms(bench, 10);
    }
    assert_true(*condition);
}

/* A fresh edge-out, one message, until it has come as far as `*counter` says. */
static void send_until(struct bench *bench, uint32_t recipients, bool as_relay_client,
                       const uint32_t *counter)
{
    bench_attach_out(bench, true, true);
    bench_send(bench, recipients, as_relay_client);
    bench_until(bench, counter, 1);
}

/* Core anew on what it has stored. */
static void reopen(struct bench *bench)
{
    bench_close(bench);
    bench_open(bench);
}

/* And edge-out as well. */
static void restart(struct bench *bench)
{
    reopen(bench);
    bench_attach_out(bench, true, true);
}

static bool has_alert(struct bench *bench, enum alert_kind kind, const char *subject)
{
    return alerts_find(&bench->core->alerts, kind, slice_from_text(subject)) != NULL;
}

static void a_message_goes_all_the_way(void **state)
{
    struct bench *bench = *state;
    send_until(bench, 3, false, &bench->stored);
    assert_int_equal(bench->stored_error[0], ERROR_NONE);
    bench_until(bench, &bench->durable, 1);
    until_queued(bench, 0);
    assert_int_equal(bench->gone, bench->delivered);
    assert_int_equal(atomic_load(&bench->counters.value[COUNTER_DELIVERIES]), 3);
    assert_int_equal(bench_ask(bench, "queue list", "{}"), CONTROL_NOTHING_MATCHED);
    /* Nothing comes back. */
    uint32_t delivered = bench->delivered;
    restart(bench);
    until_queued(bench, 0);
    bench_run_ms(bench, 50);
    assert_int_equal(bench->delivered, delivered);
}

static void what_does_not_fit_is_refused(void **state)
{
    struct bench *bench = *state;
    bench_attach_out(bench, true, true);
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_COMMIT);
    buffer_put_u64(&frame, 7);
    buffer_append_text(&frame, "this is no envelope");
    bench_send_frame(bench, bench->in, &frame);
    bench_until(bench, &bench->stored, 1);
    assert_int_equal(bench->stored_error[7], ERROR_INVALID);

    /* Lengths that do not fit what came. */
    const struct spool_recipient recipient = {.address = SLICE_LITERAL("a@example.com")};
    struct spool_message message = {.id = {1, 2},
                                    .header_length = 10,
                                    .body_length = UINT64_MAX - 4,
                                    .recipients = &recipient,
                                    .recipient_count = 1};
    buffer_clear(&frame);
    buffer_put_u8(&frame, CHANNEL_COMMIT);
    buffer_put_u64(&frame, 8);
    channel_put_message(&frame, &message);
    buffer_append_text(&frame, "123456");
    bench_send_frame(bench, bench->in, &frame);
    bench_until(bench, &bench->stored, 2);
    assert_int_equal(bench->stored_error[8], ERROR_INVALID);

    /* Unknown frames and half ones are passed over. */
    buffer_clear(&frame);
    buffer_put_u8(&frame, 200);
    bench_send_frame(bench, bench->in, &frame);
    buffer_put_u64(&frame, 9);
    bench_send_frame(bench, bench->in, &frame);
    buffer_done(&frame);
    bench_send(bench, 1, false);
    bench_until(bench, &bench->stored, 3);
    bench_until(bench, &bench->durable, 1);
    assert_int_equal(bench->delivered, 1);
}

static void append_to(struct bench *bench, uint64_t token, uint8_t byte, size_t length)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_APPEND);
    buffer_put_u64(&frame, token);
    for (size_t i = 0; i < length; i++) {
        buffer_put_u8(&frame, byte);
    }
    bench_send_frame(bench, bench->in, &frame);
    buffer_done(&frame);
}

/* With `length` bytes in all, of them `last` in the frame itself. */
static void commit_of(struct bench *bench, uint64_t token, uint64_t length, const char *last)
{
    const struct spool_recipient recipient = {.address = SLICE_LITERAL("a@example.com")};
    struct spool_message message = {.id = {0x0190000000000000ULL, token + 1},
                                    .received_ms = 1,
                                    .body_length = length,
                                    .recipients = &recipient,
                                    .recipient_count = 1};
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_COMMIT);
    buffer_put_u64(&frame, token);
    channel_put_message(&frame, &message);
    buffer_append_text(&frame, last);
    bench_send_frame(bench, bench->in, &frame);
    buffer_done(&frame);
}

static void large_content_comes_in_pieces(void **state)
{
    struct bench *bench = *state;
    bench->connects = false;
    bench_attach_out(bench, true, true);
    for (int i = 0; i < 40; i++) {
        append_to(bench, i % 2 == 0 ? 1 : 2, 'x', CHANNEL_CHUNK);
    }
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_ABORT);
    buffer_put_u64(&frame, 2);
    bench_send_frame(bench, bench->in, &frame);
    buffer_done(&frame);
    commit_of(bench, 1, 20 * CHANNEL_CHUNK + 3, "end");
    bench_until(bench, &bench->stored, 1);
    assert_int_equal(bench->stored_error[1], ERROR_NONE);
    assert_int_equal(bench_ask(bench, "queue export", "{'all':true}"), 0);
    assert_int_equal(json_array_size(bench->rows), 5); /* head, 4 pieces of 384 KB */
    json_t *head = json_array_get(bench->rows, 0);
    assert_int_equal(json_integer_value(json_object_get(head, "bytes")), 20 * CHANNEL_CHUNK + 3);
    json_t *last = json_array_get(bench->rows, 4);
    assert_true(json_is_true(json_object_get(last, "last")));
    struct buffer content;
    buffer_init(&content, 0);
    assert_int_equal(base64_decode(&content, slice_from_text(json_string_value(
                                                 json_object_get(last, "content")))),
                     ERROR_NONE);
    assert_memory_equal(content.data + content.length - 4, "xend", 4);
    buffer_done(&content);
    assert_null(map_get(&bench->core->in[0].uploads, 2));
}

/* Each waits for its next frame, and none is long enough to leave memory by itself. */
static void messages_that_fill_the_memory_together_are_all_stored(void **state)
{
    enum { MESSAGES = 40, LENGTH = 40000 };
    struct bench *bench = *state;
    bench->config.content_memory_bytes = 1 << 20;
    for (uint64_t token = 0; token < MESSAGES; token++) {
        append_to(bench, token, (uint8_t)token, LENGTH);
    }
    bench_run_ms(bench, 20);
    for (uint64_t token = 0; token < MESSAGES; token++) {
        append_to(bench, token, (uint8_t)~token, 100);
        commit_of(bench, token, LENGTH + 100, "");
    }
    bench_until(bench, &bench->stored, MESSAGES);
    for (uint64_t token = 0; token < MESSAGES; token++) {
        struct spool_handle handle =
            spool_find(bench->core->spool, (struct message_id){0x0190000000000000ULL, token + 1});
        uint8_t bytes[200];
        size_t length;
        assert_int_equal(bench->stored_error[token], ERROR_NONE);
        assert_int_equal(spool_read_content(bench->core->spool, handle, LENGTH - 100, bytes,
                                            sizeof(bytes), &length),
                         ERROR_NONE);
        assert_int_equal(length, 200);
        assert_int_equal(bytes[99], (uint8_t)token);
        assert_int_equal(bytes[100], (uint8_t)~token);
    }
}

static void a_job_that_was_let_go_is_in_doubt_when_edge_out_dies(void **state)
{
    struct bench *bench = *state;
    bench->answers = false;
    send_until(bench, 1, false, &bench->gone);
    bench_attach_out(bench, true, true);
    bench_run_ms(bench, 100);
    assert_int_equal(bench->delivered, 1); /* not tried again at once */
    assert_int_equal(queued(bench, "in_doubt"), 1);
    assert_int_equal(atomic_load(&bench->counters.value[COUNTER_IN_DOUBT]), 1);
}

static void a_job_without_go_is_not_tried_when_edge_out_dies(void **state)
{
    struct bench *bench = *state;
    bench->readies = false;
    send_until(bench, 1, false, &bench->delivered);
    core_set_edge_out(bench->core, 0, 1, NULL);
    bench_run_ms(bench, 20);
    bench->readies = true;
    bench_attach_out(bench, true, true);
    bench_until(bench, &bench->delivered, 2);
    bench_until(bench, &bench->durable, 1);
    until_queued(bench, 0);
}

static void work_of_edge_out_outlives_core(void **state)
{
    struct bench *bench = *state;
    bench->answers = false;
    send_until(bench, 2, false, &bench->gone);
    assert_int_equal(bench->delivery_count, 2);
    reopen(bench);
    bench_attach_out(bench, false, false);
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_WORKING);
    buffer_put_u32(&frame, bench->session);
    buffer_put_u32(&frame, channel_server_key(&bench->config.relay, 0));
    buffer_put_u64(&frame, bench->job);
    channel_put_id(&frame, bench->message);
    buffer_put_u32(&frame, 2);
    buffer_put_u32(&frame, 0);
    buffer_put_u32(&frame, 1);
    bench_send_frame(bench, bench->out, &frame);
    buffer_done(&frame);
    bench_resumed(bench, false);
    bench_run_ms(bench, 100);
    assert_int_equal(bench->delivered, 1);
    assert_int_equal(queued(bench, "deliveries"), 2);
    bench_result(bench, RELAY_ACCEPTED, 250);
    bench_until(bench, &bench->durable, 1);
    until_queued(bench, 0);
    assert_int_equal(bench->delivered, 1);
    /* Said once more, for CHANNEL_DURABLE might have been lost: forgotten, not done again. */
    bench_result(bench, RELAY_ACCEPTED, 250);
    bench_until(bench, &bench->durable, 2);
    assert_int_equal(atomic_load(&bench->counters.value[COUNTER_DELIVERIES]), 2);
}

static void a_result_repeated_to_a_new_core_counts(void **state)
{
    struct bench *bench = *state;
    bench->answers = false;
    send_until(bench, 1, false, &bench->gone);
    reopen(bench);
    bench_attach_out(bench, false, false);
    bench_result(bench, RELAY_ACCEPTED, 250);
    bench_resumed(bench, false);
    bench_until(bench, &bench->durable, 1);
    until_queued(bench, 0);
    bench_run_ms(bench, 50);
    assert_int_equal(bench->delivered, 1);
}

static void an_attempt_without_a_word_is_in_doubt_after_a_restart(void **state)
{
    struct bench *bench = *state;
    bench->answers = false;
    send_until(bench, 1, false, &bench->gone);
    restart(bench);
    bench_run_ms(bench, 100);
    assert_int_equal(bench->delivered, 1);
    assert_int_equal(queued(bench, "in_doubt"), 1);
}

static void say_name(struct bench *bench, const char *host)
{
    const struct ip_address address = {{[10] = 0xff, [11] = 0xff, 192, 0, 2, 1}};
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_NAME);
    buffer_put_bytes(&frame, slice_from_text(host));
    buffer_put_u32(&frame, 1);
    buffer_append(&frame, slice_make(address.bytes, 16));
    bench_send_frame(bench, bench->out, &frame);
    buffer_done(&frame);
}

static void addresses_of_names_outlive_core(void **state)
{
    struct bench *bench = *state;
    bench->addresses[1] = (struct server_address){.host = SLICE_LITERAL("mail.test"), .port = 25};
    bench_attach_out(bench, true, true);
    say_name(bench, "mail.test");
    say_name(bench, "of.no.server.test");
    bench_run_ms(bench, 20);
    restart(bench);
    bench_until(bench, &bench->names_told, 1);
    assert_string_equal(bench->name_told, "mail.test 1");
    /* The server has another name now: the old one is forgotten. */
    bench_close(bench);
    bench->addresses[1].host = SLICE_LITERAL("other.test");
    bench_open(bench);
    bench_attach_out(bench, true, true);
    bench_run_ms(bench, 20);
    bench_close(bench);
    bench->addresses[1].host = SLICE_LITERAL("mail.test");
    bench_open(bench);
    bench_attach_out(bench, true, true);
    bench_run_ms(bench, 20);
    assert_int_equal(bench->names_told, 1);
}

static void an_unreadable_envelope_is_put_off(void **state)
{
    struct bench *bench = *state;
    bench->answers = false;
    bench->readies = false;
    send_until(bench, 1, false, &bench->delivered);
    bench->message = (struct message_id){0, 0}; /* edge-out cannot know it */
    bench_result(bench, RELAY_REFUSED, 451);
    bench_until(bench, &bench->durable, 1);
    assert_int_equal(queued(bench, "deliveries"), 1);
}

/* No schedule mends it: the operator is told, and lets it go or discards it. */
static void a_damaged_message_is_held_with_an_alert(void **state)
{
    struct bench *bench = *state;
    bench->answers = false;
    bench->readies = false;
    send_until(bench, 1, false, &bench->delivered);
    bench->message = (struct message_id){0, 0};
    bench_result(bench, RELAY_DAMAGED, 0);
    bench_until(bench, &bench->durable, 1);
    assert_int_equal(queued(bench, "held"), 1);
    for (int i = 0; i < 500 && !has_alert(bench, ALERT_HELD, ""); i++) {
        bench_run_ms(bench, 10);
    }
    assert_true(has_alert(bench, ALERT_HELD, ""));
}

static void a_refusal_for_a_domain_is_a_dead_letter(void **state)
{
    struct bench *bench = *state;
    bench->verdict = RELAY_REFUSED;
    bench->code = 554;
    send_until(bench, 1, false, &bench->durable);
    until_counted(bench, "dead_letters", 1);
    assert_int_equal(queued(bench, "messages"), 0);
    assert_int_equal(bench_ask(bench, "queue list", "{}"), CONTROL_NOTHING_MATCHED);
    assert_int_equal(bench_ask(bench, "queue list", "{'dead':true}"), 0);
    assert_int_equal(json_array_size(bench->rows), 1);
    /* Kept over a restart, then released by hand. */
    reopen(bench);
    bench->verdict = RELAY_ACCEPTED;
    bench->code = 250;
    bench_attach_out(bench, true, true);
    until_true(bench, &bench->core->dispatching);
    char arguments[100];
    snprintf(arguments, sizeof(arguments), "{'ids':['%s/0']}", bench_id(bench, 0));
    assert_int_equal(bench_ask(bench, "queue release", arguments), 0);
    bench_until(bench, &bench->durable, 2);
    until_queued(bench, 0);
    assert_int_equal(queued(bench, "dead_letters"), 0);
}

static void a_refusal_for_a_relay_client_bounces(void **state)
{
    struct bench *bench = *state;
    bench->answers = false;
    bench_attach_out(bench, true, true);
    bench_until_up(bench);
    bench_send(bench, 2, true);
    bench_until(bench, &bench->gone, 1);
    struct message_id original = bench->message;
    bench_result(bench, RELAY_REFUSED, 554);
    bench_until(bench, &bench->gone, 2); /* the notification */
    assert_false(id_equal(bench->message, original));
    assert_int_equal(bench_ask(bench, "queue show", "{'all':true}"), 0);
    assert_int_equal(json_array_size(bench->rows), 1);
    json_t *row = json_array_get(bench->rows, 0);
    assert_string_equal(json_string_value(json_object_get(row, "sender")), "");
    assert_string_equal(json_string_value(json_array_get(json_object_get(row, "recipients"), 0)),
                        "ann@sender.example");
    bench_result(bench, RELAY_ACCEPTED, 250);
    bench_until(bench, &bench->durable, 2);
    until_queued(bench, 0);
}

/* The recipient's next message is at the server before the reply to the one before it, but gets its
 * GO only when that is durable (R2, R6); and none if that was deferred. */
static void the_next_for_a_recipient_waits_with_the_server(void **state)
{
    struct bench *bench = *state;
    bench_attach_out(bench, true, true);
    bench_send_to(bench, 1);
    bench_until(bench, &bench->durable, 1); /* the server is up */
    bench->answers = false;
    uint64_t jobs[3];
    struct message_id messages[3];
    uint32_t session = 0;
    for (uint32_t i = 0; i < 3; i++) {
        bench_send_to(bench, 7);
        bench_until(bench, &bench->delivered, 2 + i); /* and READY is said at once */
        jobs[i] = bench->job;
        messages[i] = bench->message;
        session = i == 0 ? bench->session : session;
        assert_int_equal(bench->session, session);
        bench_until(bench, &bench->gone, i == 0 ? 2 : 1 + i);
        bench_run_ms(bench, 50);
        assert_int_equal(bench->gone, i == 0 ? 2 : 1 + i);
        if (i > 0) { /* the one before it: accepted, then deferred */
            bench->job = jobs[i - 1];
            bench->message = messages[i - 1];
            bench_result(bench, i == 1 ? RELAY_ACCEPTED : RELAY_REFUSED, i == 1 ? 250 : 450);
            bench_until(bench, i == 1 ? &bench->gone : &bench->closed, i == 1 ? 3 : 1);
            assert_true(i == 2 || bench->durable == 2);
        }
    }
    bench_run_ms(bench, 50);
    assert_int_equal(bench->gone, 3);
}

static bool content_has(struct bench *bench, struct message_id id, const char *text)
{
    static char content[8192];
    size_t have = 0, more = 1;
    struct spool_handle handle = spool_find(bench->core->spool, id);
    while (more > 0 && have < sizeof(content) - 1) {
        assert_int_equal(spool_read_content(bench->core->spool, handle, have, content + have,
                                            sizeof(content) - 1 - have, &more),
                         ERROR_NONE);
        have += more;
    }
    content[have] = '\0';
    return strstr(content, text) != NULL;
}

/* The servers here offer no DSN: we say that it was passed on, with LMTP that it was delivered. */
static void a_notice_of_success_is_made_for_a_relay_client(void **state)
{
    struct bench *bench = *state;
    bench->answers = false;
    bench->notify = SPOOL_NOTIFY_SUCCESS;
    bench_attach_out(bench, true, true);
    for (uint32_t round = 0; round < 2; round++) {
        bench_send(bench, 2, true);
        bench_until(bench, &bench->gone, 2 * round + 1);
        struct message_id original = bench->message;
        bench_result(bench, RELAY_ACCEPTED, 250);
        bench_until(bench, &bench->gone, 2 * round + 2); /* the notification */
        assert_false(id_equal(bench->message, original));
        assert_true(content_has(bench, bench->message, "To: <ann@sender.example>\r\n"));
        assert_true(content_has(bench, bench->message, "Final-Recipient: rfc822; r1@example.org"));
        assert_true(content_has(bench, bench->message,
                                round == 0 ? "Action: relayed\r\n" : "Action: delivered\r\n"));
        assert_true(content_has(bench, bench->message, "Status: 2.0.0\r\n"));
        bench_result(bench, RELAY_ACCEPTED, 250);
        bench_until(bench, &bench->durable, 2 * round + 2);
        until_queued(bench, 0);
        bench->servers[1].protocol = SERVER_LMTP; /* from now on */
    }
}

/* Without the original no notice can be made: the delivery is kept, seen, and bounced later. */
static void a_bounce_that_cannot_be_made_leaves_a_dead_letter(void **state)
{
    struct bench *bench = *state;
    bench->answers = false;
    bench_attach_out(bench, true, true);
    bench_until_up(bench);
    bench_send(bench, 1, true);
    bench_until(bench, &bench->gone, 1);
    bench->unreadable = true;
    bench_result(bench, RELAY_REFUSED, 554);
    bench_until(bench, &bench->durable, 1);
    bench->unreadable = false;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(bench_ask(bench, "queue list", "{'dead':true}"), 0);
        assert_int_equal(json_array_size(bench->rows), 1);
        assert_string_equal(
            json_string_value(json_object_get(json_array_get(bench->rows, 0), "id")),
            bench_id(bench, 0));
        if (round == 0) {
            reopen(bench);
            bench_attach_in(bench);
            bench_attach_out(bench, true, true);
            bench_run_ms(bench, 100);
        }
    }
    char arguments[100];
    snprintf(arguments, sizeof(arguments), "{'ids':['%s']}", bench_id(bench, 0));
    uint32_t gone = bench->gone;
    assert_int_equal(bench_ask(bench, "queue bounce", arguments), 0);
    bench_until(bench, &bench->gone, gone + 1); /* the notification */
    assert_int_not_equal(bench_ask(bench, "queue list", "{'dead':true}"), 0);
}

static void a_fate_that_cannot_be_written_is_written_later(void **state)
{
    struct bench *bench = *state;
    bench->answers = false;
    send_until(bench, 1, false, &bench->gone);
    bench->failing = true;
    bench_result(bench, RELAY_ACCEPTED, 250);
    bench_run_ms(bench, 2500); /* more than one try */
    assert_int_equal(bench->durable, 0);
    assert_int_equal(bench->delivered, 1);
    bench->failing = false;
    bench_until(bench, &bench->durable, 1);
    restart(bench);
    until_queued(bench, 0);
    bench_run_ms(bench, 100);
    assert_int_equal(bench->delivered, 1);
}

/* R2: the dot may be sent only when its attempt is noted in the journal. */
static void go_waits_for_the_attempt_note(void **state)
{
    struct bench *bench = *state;
    bench->readies = false;
    send_until(bench, 1, false, &bench->delivered);
    bench->failing = true;
    bench_ready(bench);
    bench_run_ms(bench, 1500);
    assert_int_equal(bench->gone, 0);
    bench->failing = false;
    bench_until(bench, &bench->gone, 1);
    bench_until(bench, &bench->durable, 1);
}

/* R2: a connection's next dot waits until the fate before it is durable. */
static void the_next_dot_waits_for_the_fate_before_it(void **state)
{
    struct bench *bench = *state;
    bench_close(bench);
    bench->servers[0].connections = 1;
    bench_open(bench);
    bench_attach_out(bench, true, true);
    bench_send_to(bench, 0); /* the server has proved itself */
    bench_until(bench, &bench->durable, 1);
    bench->answers = false;
    bench->delivered = bench->gone = bench->durable = 0;
    for (uint32_t i = 1; i < 4; i++) {
        bench_send_to(bench, i);
    }
    bench_until(bench, &bench->delivered, 2); /* one behind the other on one session */
    bench_run_ms(bench, 50);
    assert_int_equal(bench->gone, 1);
    bench->failing = true;
    bench_result_of_first(bench, RELAY_ACCEPTED, 250);
    bench_run_ms(bench, 1500);
    assert_int_equal(bench->durable, 0);
    assert_int_equal(bench->gone, 1);
    bench->failing = false;
    bench_until(bench, &bench->durable, 1);
    bench_until(bench, &bench->gone, 2);
}

/* R13, and no mail to another server because indexes have moved. */
static void ask_etrn(struct bench *bench, uint64_t token, const char *domain, const char *more)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_ETRN);
    buffer_put_u64(&frame, token);
    buffer_append(&frame, slice_make(bench->addresses[0].literal.bytes, 16));
    buffer_put_u8(&frame, 0);
    buffer_put_bytes(&frame, slice_from_text(domain));
    buffer_append_text(&frame, more);
    bench_send_frame(bench, bench->in, &frame);
    buffer_done(&frame);
}

static void a_request_for_mail_is_answered(void **state)
{
    struct bench *bench = *state;
    char too_long[CHANNEL_DOMAIN_MAX + 2];
    memset(too_long, 'x', sizeof(too_long) - 1);
    too_long[sizeof(too_long) - 1] = '\0';
    bench->connects = false;
    send_until(bench, 2, false, &bench->stored);
    /* Malformed ones are dropped. */
    ask_etrn(bench, 1, too_long, "");
    ask_etrn(bench, 2, "", "");
    ask_etrn(bench, 3, "example.com", "!");
    ask_etrn(bench, 4, "example.com", "");
    bench_until(bench, &bench->etrns, 1);
    assert_int_equal(bench->etrn_token, 4);
    assert_int_equal(bench->etrn_outcome, RELAY_ETRN_COUNTED);
    assert_int_equal(bench->etrn_messages, 1);
    ask_etrn(bench, 5, "example.net", "");
    bench_until(bench, &bench->etrns, 2);
    assert_int_equal(bench->etrn_outcome, RELAY_ETRN_DENIED);
    assert_int_equal(atomic_load(&bench->counters.value[COUNTER_ETRN]), 2);
}

static void ask_recipient(struct bench *bench, uint64_t token, const char *address)
{
    struct buffer frame;
    buffer_init(&frame, 0);
    buffer_put_u8(&frame, CHANNEL_RECIPIENT);
    buffer_put_u64(&frame, token);
    buffer_append(&frame, slice_make(bench->addresses[0].literal.bytes, 16));
    buffer_put_bytes(&frame, slice_from_text(address));
    bench_send_frame(bench, bench->in, &frame);
    buffer_done(&frame);
}

/* Whose recipients are learned. */
static struct mailboxes *learn(struct bench *bench, struct service_config *config,
                               struct route_config routes[2])
{
    struct slice domain;
    *config = bench->config;
    memcpy(routes, bench->routes, sizeof(bench->routes));
    routes[0].recipients = RECIPIENTS_LEARN;
    routes[0].unknown = UNKNOWN_ACCEPT;
    config->relay.routes = routes;
    assert_int_equal(core_reconfigure(bench->core, config, 2), ERROR_NONE);
    struct mailboxes *mailboxes =
        relay_mailboxes(bench->core->relay, SLICE_LITERAL("example.com"), &domain);
    assert_non_null(mailboxes);
    return mailboxes;
}

/* While the server is down all who are taken are taken alike, known or not: a question, an answer
 * of the same length, and nobody else is asked meanwhile, so that time says nothing of who exists.
 */
static void who_is_taken_alike_is_looked_up_alike(void **state)
{
    static struct service_config config;
    static struct route_config routes[2];
    static const char *const taken[] = {"ann@example.com", "once@example.com", "never@example.com",
                                        "ann+tag@example.com"};
    struct bench *bench = *state;
    bench->connects = false;
    bench_attach_out(bench, true, true);
    struct mailboxes *mailboxes = learn(bench, &config, routes);
    int64_t now_ms = clock_wall_ms();
    assert_int_equal(mailboxes_told(mailboxes, SLICE_LITERAL("ann"), now_ms), ERROR_NONE);
    assert_int_equal(
        mailboxes_refused(mailboxes, SLICE_LITERAL("once"), MAILBOX_FROM_CALLOUT, now_ms),
        ERROR_NONE);
    for (uint32_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        ask_recipient(bench, 100 + i, taken[i]);
        bench_until(bench, &bench->recipients_told, i + 1);
        assert_int_equal(bench->recipients_told, i + 1);
        assert_int_equal(bench->recipient_token, 100 + i);
        assert_int_equal(bench->recipient_answer, MAILBOX_TAKE);
        assert_int_equal(bench->recipient_bytes, 1 + 8 + 1);
    }
    assert_int_equal(bench->callouts, 0);
    assert_int_equal(atomic_load(&bench->counters.value[COUNTER_CALLOUTS]), 0);
}

/* And while it is up, who was not asked about of late costs a question to it, which takes time:
 * that tells who has had mail lately, beside what the answer says. */
static void who_was_not_asked_about_of_late_is_asked_about(void **state)
{
    static struct service_config config;
    static struct route_config routes[2];
    struct bench *bench = *state;
    bench_attach_out(bench, true, true);
    bench_until_up(bench);
    struct mailboxes *mailboxes = learn(bench, &config, routes);
    assert_int_equal(mailboxes_told(mailboxes, SLICE_LITERAL("ann"), clock_wall_ms()), ERROR_NONE);
    ask_recipient(bench, 1, "ann@example.com");
    bench_until(bench, &bench->recipients_told, 1);
    assert_int_equal(bench->callouts, 0);
    ask_recipient(bench, 2, "never@example.com");
    bench_until(bench, &bench->callouts, 1);
    assert_int_equal(bench->recipients_told, 1);
}

static void a_reload_changes_places_and_routes(void **state)
{
    static struct service_config changed;
    static struct server_config servers[2];
    static struct route_config routes[2];
    static const uint32_t chains[2] = {1, 0};
    struct bench *bench = *state;
    bench->connects = false;
    bench_attach_out(bench, true, true);
    bench_send(bench, 1, false);
    bench_send(bench, 1, true);
    bench_until(bench, &bench->stored, 2);
    changed = bench->config;
    servers[0] = bench->servers[1];
    servers[1] = bench->servers[0];
    memcpy(routes, bench->routes, sizeof(routes));
    routes[0].chain = &chains[0];
    routes[1].chain = &chains[1];
    changed.relay.servers = servers;
    changed.relay.routes = routes;
    uint32_t told = bench->routes_told;
    assert_int_equal(core_reconfigure(bench->core, &changed, 2), ERROR_NONE);
    bench_until(bench, &bench->routes_told, told + 2);
    assert_int_equal(bench->routes_generation, 2);
    assert_int_equal(queued(bench, "deliveries"), 2);
    bench->connects = true;
    bench_until(bench, &bench->durable, 2);
    assert_true(bench->connected_keys[0] == channel_server_key(&bench->config.relay, 0) ||
                bench->connected_keys[0] == channel_server_key(&bench->config.relay, 1));
    /* A domain that is gone strands nothing. */
    assert_int_equal(bench_ask(bench, "server down", "{'all':true}"), 0);
    bench_send(bench, 1, false);
    bench_until(bench, &bench->stored, 3);
    static struct service_config without;
    without = changed;
    without.relay.routes = routes + 1;
    without.relay.route_count = 1;
    without.relay.bounces = 0;
    assert_int_equal(core_reconfigure(bench->core, &without, 3), ERROR_NONE);
    assert_int_equal(bench_ask(bench, "queue list", "{}"), 0);
    assert_string_equal(json_string_value(json_object_get(json_array_get(bench->rows, 0), "route")),
                        "orphan");
}

static void count_reload(void *context, enum error error)
{
    assert_int_equal(error, ERROR_NONE);
    ++*(uint32_t *)context;
}

/* The domain goes, so that all its mail has to be asked for another route. */
static void a_reload_with_much_mail_is_made_in_turns_and_overtaken_by_the_next(void **state)
{
    static struct service_config without[2];
    struct bench *bench = *state;
    uint32_t done[2] = {0};
    bench->connects = false;
    bench_attach_out(bench, true, true);
    for (uint32_t i = 1; i <= 450; i++) {
        bench_send(bench, 1, false);
        bench_until(bench, &bench->stored, i);
    }
    for (uint32_t i = 0; i < 2; i++) {
        without[i] = bench->config;
        without[i].relay.routes = bench->routes + 1;
        without[i].relay.route_count = 1;
        without[i].relay.bounces = 0;
        core_reconfigure_soon(bench->core, &without[i], 2 + i, count_reload, &done[i]);
        assert_int_equal(done[i], 0);
        assert_int_equal(bench->core->generation, 1);
    }
    memset(&without[0], 0, sizeof(without[0])); /* nothing looks at it any more */
    bench_send(bench, 1, false);
    bench_until(bench, &done[1], 1);
    assert_int_equal(done[0], 0);
    assert_int_equal(bench->core->generation, 3);
    bench_until(bench, &bench->stored, 451);
    assert_int_equal(queued(bench, "deliveries"), 451);
    /* One with nothing to read is made at once, and ends one that is not. */
    without[0] = bench->config;
    done[1] = 0;
    core_reconfigure_soon(bench->core, &without[1], 4, count_reload, &done[1]);
    assert_int_equal(done[1], 0);
    core_reconfigure_soon(bench->core, &without[0], 5, count_reload, &done[0]);
    assert_int_equal(done[0], 1);
    bench_run_ms(bench, 50);
    assert_int_equal(done[1], 0);
    assert_int_equal(bench->core->generation, 5);
}

static void edge_in_is_told_what_it_must_know(void **state)
{
    struct bench *bench = *state;
    bench_attach_out(bench, true, true);
    bench_until(bench, &bench->routes_told, 2);
    bench_send(bench, 1, false);
    bench_until(bench, &bench->durable, 1);
    until_true(bench, &bench->core->routes[0].head_known);
    assert_int_equal(bench->core->routes[0].head_size_limit, 10000000);
    /* Remembered over a restart. */
    bench_close(bench);
    bench->connects = false;
    bench_open(bench);
    bench_attach_out(bench, true, true);
    until_true(bench, &bench->core->routes[0].head_known);
}

static void a_quota_is_told(void **state)
{
    struct bench *bench = *state;
    bench->connects = false;
    bench->routes[0].quota_bytes = 20;
    send_until(bench, 1, false, &bench->stored);
    until_true(bench, &bench->core->routes[0].quota_reached);
    assert_false(bench->core->routes[1].quota_reached);
}

static void say_event(struct bench *bench, enum relay_event_kind event, uint32_t server,
                      const char *lane)
{
    const struct relay_action action = {.kind = RELAY_EVENT,
                                        .event = event,
                                        .server = server,
                                        .from_server = NO_INDEX,
                                        .lane = slice_from_text(lane)};
    report_relay_event(bench->core, &action);
}

/* However many conditions stand: none begins anew each second, and `status` shows all. */
static void each_alert_is_told_once(void **state)
{
    enum { MANY = 2500 };
    struct bench *bench = *state;
    struct core *core = bench->core;
    bench->verdict = RELAY_REFUSED;
    bench->code = 554;
    send_until(bench, 1, false, &bench->durable);
    char name[32];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "domain:d%d.example", i);
        say_event(bench, RELAY_EVENT_STOPPED, NO_INDEX, name);
    }
    bench_run_ms(bench, 3 * CORE_TICK_MS);
    assert_int_equal(atomic_load(&bench->counters.value[COUNTER_ALERTS]), MANY + 1);
    assert_int_equal(bench_ask(bench, "status", "{}"), 0);
    json_t *alerts = json_object_get(json_array_get(bench->rows, 0), "alerts");
    assert_int_equal(json_array_size(alerts), MANY + 1);
    unsigned stopped = 0, dead_letters = 0;
    size_t at;
    const json_t *alert;
    json_array_foreach(alerts, at, alert)
    {
        const char *kind = json_string_value(json_object_get(alert, "kind"));
        const char *subject = json_string_value(json_object_get(alert, "subject"));
        stopped += strcmp(kind, "stopped") == 0 && strncmp(subject, "domain:d", 8) == 0;
        dead_letters += strcmp(kind, "dead-letters") == 0 && subject == NULL;
    }
    assert_int_equal(stopped, MANY);
    assert_int_equal(dead_letters, 1);
    say_event(bench, RELAY_EVENT_DRAINED, NO_INDEX, name);
    assert_int_equal(core->alerts.count, MANY);
}

/* R2, R4: what only the operator can let go must not wait in silence. */
static void mail_held_by_rule_is_an_alert(void **state)
{
    struct bench *bench = *state;
    bench->verdict = RELAY_REFUSED;
    bench->code = 550;
    bench->stage = RELAY_AT_MAIL;
    bench->servers[0].hold_5xx_manual = true;
    send_until(bench, 1, false, &bench->durable);
    for (int i = 0; i < 500 && !has_alert(bench, ALERT_HELD, ""); i++) {
        bench_run_ms(bench, 10);
    }
    assert_true(has_alert(bench, ALERT_HELD, ""));
    assert_int_equal(queued(bench, "held"), 1);
    assert_int_equal(bench_ask(bench, "queue discard", "{'all':true}"), 0);
    for (int i = 0; i < 500 && has_alert(bench, ALERT_HELD, ""); i++) {
        bench_run_ms(bench, 10);
    }
    assert_false(has_alert(bench, ALERT_HELD, ""));
}

/* An alert of a lane or server that a reload has taken away would never end. */
static void a_reload_ends_alerts_without_a_cause(void **state)
{
    static struct service_config without;
    static struct server_config servers[1];
    static struct route_config routes[1];
    static const uint32_t chain[1] = {0};
    struct bench *bench = *state;
    bench->connects = false;
    bench_attach_out(bench, true, true);
    bench_send(bench, 1, false); /* to m1 */
    bench_send(bench, 1, true);  /* to m2 */
    for (int i = 0; i < 500 && !(has_alert(bench, ALERT_STOPPED, "relay:out") &&
                                 has_alert(bench, ALERT_STOPPED, "domain:example.com"));
         i++) {
        bench_run_ms(bench, 10);
    }
    say_event(bench, RELAY_EVENT_CREDENTIALS, 0, "");
    say_event(bench, RELAY_EVENT_CREDENTIALS, 1, "");
    say_event(bench, RELAY_EVENT_SWITCHED, 1, "relay:out");
    report_alert(bench->core, ALERT_LOAD, "not about a lane");
    without = bench->config;
    servers[0] = bench->servers[0];
    routes[0] = bench->routes[0];
    routes[0].chain = chain;
    without.relay.servers = servers;
    without.relay.server_count = 1;
    without.relay.routes = routes;
    without.relay.route_count = 1;
    without.relay.bounces = NO_INDEX;
    assert_int_equal(core_reconfigure(bench->core, &without, 2), ERROR_NONE);
    assert_true(has_alert(bench, ALERT_STOPPED, "domain:example.com"));
    assert_true(has_alert(bench, ALERT_CREDENTIALS, "m1"));
    assert_true(has_alert(bench, ALERT_LOAD, ""));
    assert_false(has_alert(bench, ALERT_STOPPED, "relay:out"));
    assert_false(has_alert(bench, ALERT_SWITCHED, "relay:out"));
    assert_false(has_alert(bench, ALERT_CREDENTIALS, "m2"));
    assert_true(has_alert(bench, ALERT_ORPHAN, ""));
}

static void count_broken(void *context, enum core_edge edge)
{
    unsigned *broken = context;
    broken[edge]++;
}

/* A ring to core, whose peer has produced one octet: positions are multiples of 8 (sys/ring.c). */
static struct ring *broken_ring(struct bench *bench)
{
    enum { HEAD_OF_A = 64 };
    struct ring_descriptors descriptors;
    struct ring *ring;
    const uint64_t head = 1, wake = 1;
    assert_int_equal(ring_create(CHANNEL_RING_OUT, CHANNEL_RING_OUT, &descriptors), ERROR_NONE);
    assert_int_equal(pwrite(descriptors.memory, &head, sizeof(head), HEAD_OF_A), sizeof(head));
    assert_int_equal(write(descriptors.wake_b, &wake, sizeof(wake)), sizeof(wake));
    assert_int_equal(
        ring_attach(descriptors, RING_SIDE_B, bench->loop, (ring_ready_fn *)abort, NULL, &ring),
        ERROR_NONE);
    return ring;
}

static void an_edge_that_breaks_its_ring_is_called_for_once(void **state)
{
    struct bench *bench = *state;
    unsigned broken[2] = {0};
    core_set_broken_handler(bench->core, count_broken, broken);
    core_set_edge_in(bench->core, 0, broken_ring(bench));
    bench_run_ms(bench, 20);
    assert_int_equal(broken[CORE_EDGE_IN], 1);
    assert_true(has_alert(bench, ALERT_EDGE_IN, ""));
    bench_attach_in(bench);
    assert_false(has_alert(bench, ALERT_EDGE_IN, ""));
    bench_attach_out(bench, true, true);
    core_set_edge_out(bench->core, 0, 1, broken_ring(bench));
    bench_run_ms(bench, 20);
    assert_int_equal(broken[CORE_EDGE_OUT], 1);
    assert_int_equal(broken[CORE_EDGE_IN], 1);
    assert_true(has_alert(bench, ALERT_EDGE_OUT, ""));
}

#define MEMORY_TEST(name)                                                                          \
    cmocka_unit_test_setup_teardown(name, bench_set_up_memory, bench_tear_down)
#define DISK_TEST(name) cmocka_unit_test_setup_teardown(name, bench_set_up_disk, bench_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MEMORY_TEST(a_message_goes_all_the_way),
        DISK_TEST(a_message_goes_all_the_way),
        MEMORY_TEST(an_edge_that_breaks_its_ring_is_called_for_once),
        MEMORY_TEST(what_does_not_fit_is_refused),
        MEMORY_TEST(large_content_comes_in_pieces),
        MEMORY_TEST(messages_that_fill_the_memory_together_are_all_stored),
        DISK_TEST(messages_that_fill_the_memory_together_are_all_stored),
        MEMORY_TEST(a_job_that_was_let_go_is_in_doubt_when_edge_out_dies),
        MEMORY_TEST(a_job_without_go_is_not_tried_when_edge_out_dies),
        MEMORY_TEST(work_of_edge_out_outlives_core),
        DISK_TEST(work_of_edge_out_outlives_core),
        MEMORY_TEST(addresses_of_names_outlive_core),
        DISK_TEST(addresses_of_names_outlive_core),
        MEMORY_TEST(an_unreadable_envelope_is_put_off),
        MEMORY_TEST(a_damaged_message_is_held_with_an_alert),
        MEMORY_TEST(a_result_repeated_to_a_new_core_counts),
        MEMORY_TEST(an_attempt_without_a_word_is_in_doubt_after_a_restart),
        MEMORY_TEST(a_refusal_for_a_domain_is_a_dead_letter),
        MEMORY_TEST(the_next_for_a_recipient_waits_with_the_server),
        DISK_TEST(the_next_for_a_recipient_waits_with_the_server),
        MEMORY_TEST(a_refusal_for_a_relay_client_bounces),
        DISK_TEST(a_refusal_for_a_relay_client_bounces),
        MEMORY_TEST(a_notice_of_success_is_made_for_a_relay_client),
        DISK_TEST(a_bounce_that_cannot_be_made_leaves_a_dead_letter),
        DISK_TEST(a_fate_that_cannot_be_written_is_written_later),
        DISK_TEST(go_waits_for_the_attempt_note),
        DISK_TEST(the_next_dot_waits_for_the_fate_before_it),
        MEMORY_TEST(a_request_for_mail_is_answered),
        MEMORY_TEST(who_is_taken_alike_is_looked_up_alike),
        MEMORY_TEST(who_was_not_asked_about_of_late_is_asked_about),
        MEMORY_TEST(a_reload_changes_places_and_routes),
        MEMORY_TEST(a_reload_with_much_mail_is_made_in_turns_and_overtaken_by_the_next),
        MEMORY_TEST(edge_in_is_told_what_it_must_know),
        MEMORY_TEST(a_quota_is_told),
        MEMORY_TEST(each_alert_is_told_once),
        MEMORY_TEST(a_reload_ends_alerts_without_a_cause),
        MEMORY_TEST(mail_held_by_rule_is_an_alert),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
