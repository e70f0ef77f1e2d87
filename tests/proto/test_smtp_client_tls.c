/* SPDX-License-Identifier: Apache-2.0
 *
 * What a script cannot show, for each of its pieces comes by itself: that nothing may follow the
 * reply to STARTTLS in the clear (RFC 3207 4.2), neither with it nor before the handshake is done.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/smtp_client.h"

static const struct smtp_client_settings settings = {
    .helo = SLICE_LITERAL("mx"), .greeting_timeout_ms = 1000, .tls = SMTP_CLIENT_TLS_IF_OFFERED};

static void send_all(struct smtp_client *client)
{
    smtp_client_sent(client, smtp_client_output(client).length, 0);
}

static struct smtp_client *starting(void)
{
    struct smtp_client *client = smtp_client_new(&settings, 0);
    assert_non_null(client);
    smtp_client_input(client, SLICE_LITERAL("220 mail\r\n"), 0);
    send_all(client);
    smtp_client_input(client, SLICE_LITERAL("250-mail\r\n250 STARTTLS\r\n"), 0);
    assert_true(slice_equal(smtp_client_output(client), SLICE_LITERAL("STARTTLS\r\n")));
    send_all(client);
    return client;
}

static void expect_broken(struct smtp_client *client)
{
    struct smtp_client_event event;
    assert_true(smtp_client_next(client, &event));
    assert_int_equal(event.kind, SMTP_CLIENT_CLOSED);
    assert_int_equal(event.cause.stage, SMTP_CLIENT_AT_TLS);
    assert_int_equal(event.cause.how, SMTP_CLIENT_LOST);
    smtp_client_secured(client, false, 0);
    assert_int_equal(smtp_client_output(client).length, 0);
    smtp_client_free(client);
}

static void test_behind_the_reply(void **state)
{
    (void)state;
    static const struct slice injected[] = {SLICE_LITERAL("220 go\r\n250 AUTH PLAIN\r\n"),
                                            SLICE_LITERAL("220 go\r\n2"),
                                            SLICE_LITERAL("220 go\r\n\r\n")};
    for (size_t i = 0; i < sizeof(injected) / sizeof(injected[0]); i++) {
        struct smtp_client *client = starting();
        smtp_client_input(client, injected[i], 0);
        expect_broken(client);
    }
}

static void test_before_the_handshake_is_done(void **state)
{
    (void)state;
    struct smtp_client_event event;
    struct smtp_client *client = starting();
    smtp_client_input(client, SLICE_LITERAL("220 go\r\n"), 0);
    assert_true(smtp_client_next(client, &event));
    assert_int_equal(event.kind, SMTP_CLIENT_HANDSHAKE);
    smtp_client_input(client, SLICE_LITERAL("250 AUTH PLAIN\r\n"), 0);
    expect_broken(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_behind_the_reply),
        cmocka_unit_test(test_before_the_handshake_is_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
