/* SPDX-License-Identifier: Apache-2.0
 *
 * The scanner of headers: which Received field is our own, and what is said of TLS, however it is
 * folded and cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/smtp_header.h"

static void scan(struct smtp_header *header, const char *text, size_t piece)
{
    smtp_header_init(header);
    header->own_host = SLICE_LITERAL("Mx2.example.net");
    struct slice rest = slice_from_text(text);
    while (rest.length > 0) {
        smtp_header_feed(header, slice_take(rest, piece));
        rest = slice_skip(rest, piece);
    }
}

static bool is_ours(const char *text, size_t piece)
{
    struct smtp_header header;
    scan(&header, text, piece);
    return header.is_ours;
}

static void our_own_received_field_is_known_again(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_ours;
    } cases[] = {
        {"Received: from x ([192.0.2.1]) by mx2.example.net (holdfast) with ESMTP\r\n\r\n", true},
        {"Subject: x\r\nreceived: from by ([192.0.2.1])\r\n\tBY mx2.EXAMPLE.net\r\n (holdfast)\r\n",
         true},
        {"Received: from x by by mx2.example.net (holdfast)\r\n\r\n", true},
        {"Received: from x by mx2.example.net by mx2.example.net  (holdfast)\r\n\r\n", true},
        {"Received: from x by m1.example.com\r\nReceived: by mx2.example.net (holdfast)\r\n", true},
        {"Received: from x by mx2.example.net (Postfix)\r\n\r\n", false},
        {"Received: from x by mx2.example.net.org (holdfast)\r\n\r\n", false},
        {"Received: from x xby mx2.example.net (holdfast)\r\n\r\n", false},
        {"Received: from x x by xmx2.example.net (holdfast)\r\n\r\n", false},
        {"Received: from mx2.example.net (holdfast) by m1\r\n\r\n", false},
        {"X-Received: from x by mx2.example.net (holdfast)\r\n\r\n", false},
        {"Received: by mx2.example.net\r\nReceived: (holdfast)\r\n\r\n", false},
        {"Subject: x\r\n\r\nReceived: from x by mx2.example.net (holdfast)\r\n", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t piece = 1; piece < 100; piece += 3) {
            assert_int_equal(is_ours(cases[i].text, piece), cases[i].is_ours);
        }
    }
}

static void mail_may_say_that_it_needs_no_tls(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool needs_none;
    } cases[] = {
        {"TLS-Required: No\r\n\r\n", true},
        {"Subject: x\r\ntls-required:no\r\nTo: y\r\n\r\n", true},
        {"TLS-Required:\r\n\tNO \t\r\n \r\n\r\n", true},
        {"TLS-Required : No\r\n\r\n", true},
        {"TLS-Required: Not\r\n\r\n", false},
        {"TLS-Required: N o\r\n\r\n", false},
        {"TLS-Required: N\r\n o\r\n\r\n", false},
        {"TLS-Required: No, really\r\n\r\n", false},
        {"TLS-Required: No No\r\n\r\n", false},
        {"TLS-Required: Yes\r\n\r\n", false},
        {"TLS-Required:\r\n\r\n", false},
        {"TLS-Requiredx: No\r\n\r\n", false},
        {"TLS-Require: No\r\n\r\n", false},
        {"X-TLS-Required: No\r\n\r\n", false},
        {"TLS-Required: No\r\nTLS-Required: No\r\n\r\n", false},
        {"TLS-Required: x\r\nTLS-Required: No\r\n\r\n", false},
        {"Subject: x\r\n\r\nTLS-Required: No\r\n", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t piece = 1; piece < 60; piece += 3) {
            struct smtp_header header;
            scan(&header, cases[i].text, piece);
            assert_int_equal(smtp_header_needs_no_tls(&header), cases[i].needs_none);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_may_say_that_it_needs_no_tls),
        cmocka_unit_test(our_own_received_field_is_known_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
