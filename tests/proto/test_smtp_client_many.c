/* SPDX-License-Identifier: Apache-2.0
 *
 * As many recipients as a message may have: commands leave in portions, replies come in any, and
 * each recipient gets its own outcome.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "proto/smtp_client.h"

enum { MANY = 10000 };

static char addresses[MANY][24];
static struct smtp_client_recipient recipients[MANY];

struct answers {
    struct buffer in;    /* of the client, not yet answered */
    uint32_t recipients; /* RCPT seen */
    size_t largest;      /* output at once */
    bool content;
};

/* Every third recipient is refused, with a text of its own. */
static void answer(struct answers *answers, struct buffer *replies)
{
    for (;;) {
        struct slice rest = buffer_slice(&answers->in);
        size_t end = slice_find(rest, '\n');
        if (end == rest.length) {
            return;
        }
        struct slice line = slice_take(rest, end + 1);
        if (answers->content) {
            if (slice_equal(line, SLICE_LITERAL(".\r\n"))) {
                buffer_append_text(replies, "250 2.0.0 taken\r\n");
                answers->content = false;
            }
        } else if (slice_starts_fold(line, SLICE_LITERAL("RCPT"))) {
            uint32_t number = answers->recipients++;
            buffer_printf(replies, number % 3 == 2 ? "550 5.1.1 <%u> unknown\r\n" : "250 ok\r\n",
                          number);
        } else if (slice_starts_fold(line, SLICE_LITERAL("DATA"))) {
            buffer_append_text(replies, "354 go\r\n");
            answers->content = true;
        } else if (slice_starts_fold(line, SLICE_LITERAL("EHLO"))) {
            buffer_append_text(replies, "250-m\r\n250 PIPELINING\r\n");
        } else {
            buffer_append_text(replies, "250 ok\r\n");
        }
        buffer_consume(&answers->in, line.length);
    }
}

static void send_some(struct smtp_client *client, struct answers *answers)
{
    struct slice output = smtp_client_output(client);
    answers->largest = output.length > answers->largest ? output.length : answers->largest;
    output = slice_take(output, 5000);
    buffer_append(&answers->in, output);
    smtp_client_sent(client, output.length, 0);
}

static void check(const struct smtp_client_event *event)
{
    assert_int_equal(event->outcome_count, MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        const struct smtp_client_outcome *outcome = &event->outcomes[i];
        if (i % 3 != 2) {
            assert_int_equal(outcome->verdict, SMTP_CLIENT_ACCEPTED);
            continue;
        }
        char text[40];
        snprintf(text, sizeof(text), "<%u> unknown", i);
        assert_int_equal(outcome->verdict, SMTP_CLIENT_REFUSED);
        assert_int_equal(outcome->cause.code, 550);
        assert_true(outcome->cause.text.length == 0 ||
                    slice_equal(outcome->cause.text, slice_from_text(text)));
    }
}

static void each_of_many_has_its_outcome(void **state)
{
    (void)state;
    struct smtp_client_settings settings = {.helo = SLICE_LITERAL("mx"),
                                            .greeting_timeout_ms = 1000};
    struct smtp_client *client = smtp_client_new(&settings, 0);
    struct answers answers = {0};
    struct buffer replies;
    buffer_init(&answers.in, 0);
    buffer_init(&replies, 0);
    buffer_append_text(&replies, "220 m\r\n");
    for (uint32_t i = 0; i < MANY; i++) {
        snprintf(addresses[i], sizeof(addresses[i]), "r%u@example.com", i);
        recipients[i].address = slice_from_text(addresses[i]);
    }
    struct smtp_client_mail mail = {.tag = 1,
                                    .sender = SLICE_LITERAL("a@x"),
                                    .size = 3,
                                    .recipients = recipients,
                                    .recipient_count = MANY};
    assert_int_equal(smtp_client_mail(client, &mail, 0), ERROR_NONE);
    smtp_client_go(client, 1, 0);
    for (bool over = false; !over;) {
        struct smtp_client_event event;
        smtp_client_input(client, slice_take(buffer_slice(&replies), 700), 0);
        buffer_consume(&replies, replies.length < 700 ? replies.length : 700);
        while (smtp_client_next(client, &event)) {
            if (event.kind == SMTP_CLIENT_CONTENT) {
                smtp_client_content(client, SLICE_LITERAL("x\r\n"), 0);
            } else if (event.kind == SMTP_CLIENT_RESULT) {
                check(&event);
                over = true;
            }
            assert_int_not_equal(event.kind, SMTP_CLIENT_CLOSED);
        }
        send_some(client, &answers);
        answer(&answers, &replies);
    }
    assert_int_equal(answers.recipients, MANY);
    assert_true(answers.largest < 2 * SMTP_CLIENT_PIECE_MAX);
    smtp_client_free(client);
    buffer_done(&answers.in);
    buffer_done(&replies);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_of_many_has_its_outcome)};
    return cmocka_run_group_tests_name("smtp_client_many", tests, NULL, NULL);
}
