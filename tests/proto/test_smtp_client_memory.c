/* SPDX-License-Identifier: Apache-2.0
 *
 * The N-th allocation fails, for every N: two mails through the client, and whatever fails, each
 * mail that was taken has one result, and none is accepted that the server did not accept.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "failing_memory.h"
#include "proto/smtp_client.h"

static const char content[] = "Subject: x\r\n\r\n.\r\n";

struct tally {
    unsigned taken, results, accepted, closed;
};

static void drain(struct smtp_client *client, struct tally *tally)
{
    struct smtp_client_event event;
    while (smtp_client_next(client, &event)) {
        if (event.kind == SMTP_CLIENT_CONTENT) {
            smtp_client_content(
                client, slice_make(content + event.offset, sizeof(content) - 1 - event.offset), 0);
        } else if (event.kind == SMTP_CLIENT_RESULT) {
            tally->results++;
            tally->accepted += event.outcomes[0].verdict == SMTP_CLIENT_ACCEPTED;
        } else if (event.kind == SMTP_CLIENT_CLOSED) {
            tally->closed++;
        }
    }
    smtp_client_sent(client, smtp_client_output(client).length, 0);
    if (smtp_client_next(client, &event)) {
        fail();
    }
}

static void play(struct smtp_client *client, bool logs_in, struct tally *tally)
{
    const char *const server[] = {
        "220 m\r\n",
        logs_in ? "250-m\r\n250-AUTH LOGIN\r\n250 PIPELINING\r\n" : "250-m\r\n250 PIPELINING\r\n",
        logs_in ? "334 VXNlcm5hbWU6\r\n" : "",
        logs_in ? "334 UGFzc3dvcmQ6\r\n" : "",
        logs_in ? "235 ok\r\n" : "",
        "250 a\r\n250 b\r\n354 c\r\n",
        "250 d\r\n250 a\r\n250 b\r\n354 c\r\n",
        "250 e\r\n",
    };
    struct smtp_client_recipient recipient = {.address = SLICE_LITERAL("b@y")};
    for (unsigned i = 0; i < 2; i++) {
        struct smtp_client_mail mail = {.tag = i,
                                        .sender = SLICE_LITERAL("a@x"),
                                        .size = sizeof(content) - 1,
                                        .recipients = &recipient,
                                        .recipient_count = 1};
        tally->taken += smtp_client_mail(client, &mail, 0) == ERROR_NONE;
        smtp_client_go(client, i, 0);
    }
    for (size_t i = 0; i < sizeof(server) / sizeof(server[0]); i++) {
        smtp_client_input(client, slice_from_text(server[i]), 0);
        drain(client, tally);
    }
    memory_fail_never();
    smtp_client_abort(client, SLICE_LITERAL("end"));
    drain(client, tally);
}

static void survives(bool logs_in)
{
    struct smtp_client_settings settings = {.helo = SLICE_LITERAL("mx"),
                                            .greeting_timeout_ms = 1000};
    if (logs_in) {
        settings.credentials.user = SLICE_LITERAL("tim");
        settings.credentials.password = SLICE_LITERAL("secret");
        settings.credentials.in_clear = true;
    }
    for (long n = 0;; n++) {
        struct tally tally = {0};
        memory_fail_at(n);
        struct smtp_client *client = smtp_client_new(&settings, 0);
        if (client != NULL) {
            play(client, logs_in, &tally);
            assert_int_equal(tally.results, tally.taken);
            assert_int_equal(tally.closed, 1);
        }
        smtp_client_free(client);
        memory_fail_never();
        assert_true(n < 100);
        if (tally.accepted == 2) {
            assert_true(n > 3); /* or nothing was tested */
            return;
        }
    }
}

static void survives_every_failed_allocation(void **state)
{
    (void)state;
    survives(false);
}

static void survives_it_while_logging_in(void **state)
{
    (void)state;
    survives(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(survives_every_failed_allocation),
                                       cmocka_unit_test(survives_it_while_logging_in)};
    return cmocka_run_group_tests_name("smtp_client_memory", tests, NULL, NULL);
}
