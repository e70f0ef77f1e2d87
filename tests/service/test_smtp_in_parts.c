/* SPDX-License-Identifier: Apache-2.0
 *
 * The Received field and the count of connections by client.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service/smtp_in_limits.h"
#include "service/smtp_in_trace.h"

static void check_field(const struct smtp_in_trace *trace, const char *expected)
{
    struct buffer field;
    buffer_init(&field, 0);
    smtp_in_trace_write(trace, &field);
    buffer_put_u8(&field, 0);
    assert_string_equal((const char *)field.data, expected);
    buffer_done(&field);
}

static void received_field(void **state)
{
    (void)state;
    struct ip_address client;
    ip_from_text(SLICE_LITERAL("2001:db8::1"), &client);
    struct smtp_in_trace trace = {
        .helo = SLICE_LITERAL("[IPv6:2001:db8::1]"),
        .client = &client,
        .hostname = SLICE_LITERAL("mx.example.net"),
        .protocol = SLICE_LITERAL("ESMTP"),
        .id = {0x0123456789abcdefULL, 0xfedcba9876543210ULL},
        .recipient = SLICE_LITERAL("bob@example.com"),
        .received_ms = 1795304960123,
    };
    check_field(&trace,
                "Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1]) by mx.example.net\r\n"
                "\t(holdfast) with ESMTP id 014d2pf2dbsqqzxq5tk1v58cgg for\r\n"
                "\t<bob@example.com>; Sat, 21 Nov 2026 23:49:20 +0000\r\n");
    /* A hostile name cannot end the field, a comment or a string. */
    ip_from_text(SLICE_LITERAL("192.0.2.1"), &client);
    trace.helo = SLICE_LITERAL("a)b(c\"d\\e;f\r\n g\x01\xc3\xa4");
    trace.recipient = SLICE_EMPTY;
    check_field(&trace,
                "Received: from a?b?c?d?e?f???g??? ([192.0.2.1]) by mx.example.net (holdfast)\r\n"
                "\twith ESMTP id 014d2pf2dbsqqzxq5tk1v58cgg;\r\n"
                "\tSat, 21 Nov 2026 23:49:20 +0000\r\n");
    /* Nor can a name of who has logged in. */
    trace.helo = SLICE_LITERAL("c");
    trace.authserv_id = SLICE_LITERAL("example.net");
    trace.login = SLICE_LITERAL("a\"b\\;spf=pass\r\nX: \xc3\xa4@x");
    check_field(&trace,
                "Received: from c ([192.0.2.1]) by mx.example.net (holdfast) with ESMTP id\r\n"
                "\t014d2pf2dbsqqzxq5tk1v58cgg; Sat, 21 Nov 2026 23:49:20 +0000\r\n"
                "Authentication-Results: example.net;\r\n"
                "\tauth=pass smtp.auth=\"a\\\"b\\\\;spf=pass??X: ??@x\"\r\n");
}

/* RFC 5321 section 4.4, RFC 3848, RFC 6531, RFC 6710, RFC 8314: each clause in its place, or not
 * there. */
static void received_clauses(void **state)
{
    (void)state;
    static const struct {
        const char *client, *protocol, *tls, *suite, *recipient;
        bool has_priority;
        const char *from, *rest;
    } rows[] = {
        {"192.0.2.1", "SMTP", "", "", "", false, "([192.0.2.1])", "with SMTP id I;"},
        {"2001:db8::1", "ESMTP", "", "", "b@x", false, "([IPv6:2001:db8::1])",
         "with ESMTP id I for <b@x>;"},
        {"::ffff:192.0.2.1", "ESMTPA", "", "", "b@x", true, "([192.0.2.1])",
         "with ESMTPA id I for <b@x> PRIORITY 3;"},
        {"192.0.2.1", "ESMTPSA", "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384",
         "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "\"a b\"@x", true, "([192.0.2.1])",
         "with ESMTPSA (TLSv1.2) id I for <\"a b\"@x> tls TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 "
         "PRIORITY 3;"},
        {"192.0.2.1", "UTF8SMTPS", "TLSv1.3", "", "", false, "([192.0.2.1])",
         "with UTF8SMTPS (TLSv1.3) id I;"},
        {NULL, "UTF8SMTP", "", "", "\xc3\xa4@x", false, "(unknown)",
         "with UTF8SMTP id I for <\xc3\xa4@x>;"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ip_address client = {{0}};
        struct buffer field, expected;
        if (rows[i].client != NULL) {
            assert_true(ip_from_text(slice_from_text(rows[i].client), &client));
        }
        struct smtp_in_trace trace = {
            .helo = SLICE_LITERAL("c.example"),
            .client = &client,
            .hostname = SLICE_LITERAL("mx.example.net"),
            .protocol = slice_from_text(rows[i].protocol),
            .tls = slice_from_text(rows[i].tls),
            .suite = slice_from_text(rows[i].suite),
            .recipient = slice_from_text(rows[i].recipient),
            .received_ms = 1795304960123,
            .priority = 3,
            .has_priority = rows[i].has_priority,
        };
        buffer_init(&field, 0);
        buffer_init(&expected, 0);
        smtp_in_trace_write(&trace, &field);
        buffer_printf(&expected, "Received: from c.example %s by mx.example.net (holdfast) %s %s",
                      rows[i].from, rows[i].rest, "Sat, 21 Nov 2026 23:49:20 +0000\r\n");
        /* In one line, and with a short id: where it is folded does not count here. */
        struct slice rest = buffer_slice(&field);
        struct buffer plain;
        buffer_init(&plain, 0);
        for (size_t at = 0; at < rest.length; at++) {
            static const char id[] = "00000000000000000000000000";
            if (rest.data[at] == '\r' && at + 2 < rest.length) {
                buffer_append_text(&plain, " ");
                at += 2;
            } else if (slice_starts_fold(slice_skip(rest, at), SLICE_LITERAL(id))) {
                buffer_append_text(&plain, "I");
                at += sizeof(id) - 2;
            } else {
                buffer_append(&plain, slice_make(rest.data + at, 1));
            }
        }
        buffer_put_u8(&plain, 0);
        buffer_put_u8(&expected, 0);
        assert_string_equal((const char *)plain.data, (const char *)expected.data);
        buffer_done(&plain);
        buffer_done(&field);
        buffer_done(&expected);
    }
}

static enum smtp_in_admission enter(struct smtp_in_shared *shared, const char *text, uint32_t all,
                                    uint32_t each)
{
    struct limits_config limits = {.connections = all, .connections_per_client = each};
    struct ip_address client;
    assert_true(ip_from_text(slice_from_text(text), &client));
    return smtp_in_enter(shared, &limits, &client);
}

static void leave(struct smtp_in_shared *shared, const char *text)
{
    struct ip_address client;
    assert_true(ip_from_text(slice_from_text(text), &client));
    smtp_in_leave(shared, &client);
}

static void connections_by_client(void **state)
{
    (void)state;
    struct smtp_in_shared *shared = smtp_in_shared_new(NULL);
    assert_int_equal(enter(shared, "192.0.2.1", 100, 2), SMTP_IN_ADMITTED);
    assert_int_equal(enter(shared, "192.0.2.1", 100, 2), SMTP_IN_ADMITTED);
    assert_int_equal(enter(shared, "192.0.2.1", 100, 2), SMTP_IN_CLIENT_FULL);
    assert_int_equal(enter(shared, "192.0.2.2", 100, 2), SMTP_IN_ADMITTED);
    leave(shared, "192.0.2.1");
    assert_int_equal(enter(shared, "192.0.2.1", 100, 2), SMTP_IN_ADMITTED);
    /* A /64 is one client. */
    assert_int_equal(enter(shared, "2001:db8::1", 100, 1), SMTP_IN_ADMITTED);
    assert_int_equal(enter(shared, "2001:db8::2", 100, 1), SMTP_IN_CLIENT_FULL);
    assert_int_equal(enter(shared, "2001:db8:0:1::2", 100, 1), SMTP_IN_ADMITTED);
    /* Loopback counts only in all. */
    assert_int_equal(enter(shared, "127.0.0.1", 7, 1), SMTP_IN_ADMITTED);
    assert_int_equal(enter(shared, "127.0.0.1", 7, 1), SMTP_IN_ADMITTED);
    assert_int_equal(enter(shared, "127.0.0.1", 7, 1), SMTP_IN_FULL);
    leave(shared, "127.0.0.1");
    assert_int_equal(enter(shared, "::1", 7, 1), SMTP_IN_ADMITTED);
    smtp_in_shared_free(shared);
}

static void many_clients_are_not_taken_for_one(void **state)
{
    (void)state;
    struct smtp_in_shared *shared = smtp_in_shared_new(NULL);
    unsigned refused = 0;
    for (unsigned i = 0; i < 20000; i++) {
        struct limits_config limits = {.connections_per_client = 4};
        struct ip_address client = {{0}};
        client.bytes[0] = 0x20;
        memcpy(client.bytes + 2, &i, sizeof(i));
        refused += smtp_in_enter(shared, &limits, &client) != SMTP_IN_ADMITTED;
    }
    assert_true(refused < 20); /* two rows must collide four times over */
    smtp_in_shared_free(shared);
}

/* One that stands for another from now on; NULL is nobody's. */
static void connections_change_hands(void **state)
{
    (void)state;
    struct smtp_in_shared *shared = smtp_in_shared_new(NULL);
    struct limits_config limits = {.connections = 2, .connections_per_client = 1};
    struct ip_address one, two;
    assert_true(ip_from_text(SLICE_LITERAL("192.0.2.1"), &one));
    assert_true(ip_from_text(SLICE_LITERAL("192.0.2.2"), &two));
    assert_int_equal(smtp_in_enter(shared, &limits, NULL), SMTP_IN_ADMITTED);
    assert_int_equal(smtp_in_enter(shared, &limits, NULL), SMTP_IN_ADMITTED);
    assert_int_equal(smtp_in_enter(shared, &limits, NULL), SMTP_IN_FULL);
    assert_int_equal(smtp_in_change(shared, &limits, NULL, &one), SMTP_IN_ADMITTED);
    assert_int_equal(smtp_in_change(shared, &limits, NULL, &one), SMTP_IN_CLIENT_FULL);
    assert_int_equal(smtp_in_change(shared, &limits, &one, &two), SMTP_IN_ADMITTED);
    assert_int_equal(smtp_in_change(shared, &limits, NULL, &one), SMTP_IN_ADMITTED);
    smtp_in_leave(shared, &one);
    smtp_in_leave(shared, &two);
    assert_int_equal(smtp_in_enter(shared, &limits, &one), SMTP_IN_ADMITTED);
    assert_int_equal(smtp_in_enter(shared, &limits, &two), SMTP_IN_ADMITTED);
    smtp_in_shared_free(shared);
}

static void deeds_are_paid_off_by_time(void **state)
{
    (void)state;
    struct smtp_in_shared *shared = smtp_in_shared_new(NULL);
    const struct smtp_in_pace pace = {30000000, 300000000};
    struct ip_address client, other;
    assert_true(ip_from_text(SLICE_LITERAL("192.0.2.1"), &client));
    assert_true(ip_from_text(SLICE_LITERAL("192.0.2.2"), &other));
    int64_t now = 1000000;
    for (int i = 0; i < 10; i++) {
        assert_true(smtp_in_may(shared, SMTP_IN_MISSES, pace, &client, now));
        smtp_in_did(shared, SMTP_IN_MISSES, pace, &client, now);
    }
    assert_false(smtp_in_may(shared, SMTP_IN_MISSES, pace, &client, now));
    assert_true(smtp_in_may(shared, SMTP_IN_MISSES, pace, &other, now));
    assert_false(smtp_in_may(shared, SMTP_IN_MISSES, pace, &client, now + 29999));
    assert_true(smtp_in_may(shared, SMTP_IN_MISSES, pace, &client, now + 30000));
    smtp_in_did(shared, SMTP_IN_MISSES, pace, &client, now + 30000);
    assert_false(smtp_in_may(shared, SMTP_IN_MISSES, pace, &client, now + 30000));
    assert_true(smtp_in_may(shared, SMTP_IN_MISSES, pace, &client, now + 60000));
    smtp_in_shared_free(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(received_field),
        cmocka_unit_test(received_clauses),
        cmocka_unit_test(connections_by_client),
        cmocka_unit_test(many_clients_are_not_taken_for_one),
        cmocka_unit_test(connections_change_hands),
        cmocka_unit_test(deeds_are_paid_off_by_time),
    };
    return cmocka_run_group_tests_name("smtp_in_parts", tests, NULL, NULL);
}
