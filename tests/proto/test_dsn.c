/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "failing_memory.h"
#include "proto/dsn.h"
#include "proto/dsn_encode.h"

static const char original_header[] = "Received: from a by b\r\n"
                                      "Subject: hello\r\n"
                                      "Message-ID: <1@example.org>\r\n\r\n";

static struct dsn_recipient recipients[2];
static struct dsn_report report;
static struct buffer content;
static uint64_t header_length;
static bool utf8;

static int begin(void **state)
{
    (void)state;
    recipients[0] = (struct dsn_recipient){
        .address = SLICE_LITERAL("bob@example.com"),
        .orcpt = SLICE_LITERAL("rfc822;bob+2Bx@example.com"),
        .code = 550,
        .enhanced = {5, 1, 1},
        .diagnostic = SLICE_LITERAL("No such user"),
        .remote = SLICE_LITERAL("mail1.example.com"),
        .last_attempt_ms = 1790000000000,
    };
    recipients[1] = (struct dsn_recipient){.address = SLICE_LITERAL("cy@example.com"),
                                           .diagnostic = SLICE_LITERAL("given up by hand")};
    report = (struct dsn_report){
        .action = DSN_FAILED,
        .hostname = SLICE_LITERAL("mx2.example.net"),
        .id = "01abcdefghjkmnpqrstvwxyz01",
        .now_ms = 1790000001000,
        .sender = SLICE_LITERAL("ann@example.org"),
        .envelope_id = SLICE_LITERAL("QQ+3D314"),
        .original_id = "01zzz",
        .arrival_ms = 1789999999000,
        .message_id = SLICE_LITERAL("<1@example.org>"),
        .header = slice_from_text(original_header),
        .recipients = recipients,
        .recipient_count = 2,
    };
    buffer_init(&content, 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    buffer_done(&content);
    return 0;
}

static void write_it(void)
{
    assert_true(dsn_write(&report, &content, &header_length, &utf8));
    buffer_put_u8(&content, 0);
    content.length--;
}

static bool has(const char *text)
{
    return strstr((const char *)content.data, text) != NULL;
}

/* Lines of at most 998 octets that end in CRLF; no octet above 127 unless `eight_bit`. */
static void assert_lines(bool eight_bit)
{
    size_t line = 0;
    for (size_t i = 0; i < content.length; i++) {
        uint8_t c = content.data[i];
        assert_true(c != 0 && (c < 128 || eight_bit));
        if (c == '\r') {
            assert_true(i + 1 < content.length && content.data[i + 1] == '\n');
        } else if (c == '\n') {
            assert_true(i > 0 && content.data[i - 1] == '\r');
            line = 0;
            continue;
        }
        assert_true(++line <= 999);
    }
    assert_int_equal(line, 0);
}

static void failed_report_is_whole(void **state)
{
    (void)state;
    write_it();
    assert_lines(false);
    assert_false(utf8);
    assert_memory_equal(content.data + header_length - 4, "\r\n\r\n", 4);
    static const char *const lines[] = {
        "Date: Mon, 21 Sep 2026 14:13:21 +0000\r\n",
        "From: Mail Delivery System <MAILER-DAEMON@mx2.example.net>\r\n",
        "To: <ann@example.org>\r\n",
        "Message-ID: <01abcdefghjkmnpqrstvwxyz01@mx2.example.net>\r\n",
        "In-Reply-To: <1@example.org>\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "Content-Type: multipart/report; report-type=delivery-status;\r\n",
        "--=_01abcdefghjkmnpqrstvwxyz01_0\r\nContent-Type: message/delivery-status\r\n"
        "Content-Transfer-Encoding: 7bit\r\n\r\n"
        "Original-Envelope-Id: QQ=314\r\n"
        "Reporting-MTA: dns; mx2.example.net\r\n"
        "Arrival-Date: Mon, 21 Sep 2026 14:13:19 +0000\r\n"
        "\r\n"
        "Original-Recipient: rfc822; bob+x@example.com\r\n"
        "Final-Recipient: rfc822; bob@example.com\r\n"
        "Action: failed\r\n"
        "Status: 5.1.1\r\n"
        "Remote-MTA: dns; mail1.example.com\r\n"
        "Diagnostic-Code: smtp; 550 5.1.1 No such user\r\n"
        "Last-Attempt-Date: Mon, 21 Sep 2026 14:13:20 +0000\r\n"
        "\r\n"
        "Final-Recipient: rfc822; cy@example.com\r\n"
        "Action: failed\r\n"
        "Status: 5.0.0\r\n"
        "Diagnostic-Code: x-holdfast; given up by hand\r\n"
        "\r\n--=_01abcdefghjkmnpqrstvwxyz01_0\r\n"
        "Content-Type: text/rfc822-headers\r\n"
        "Content-Transfer-Encoding: 7bit\r\n\r\n"
        "Received: from a by b\r\nSubject: hello\r\nMessage-ID: <1@example.org>\r\n\r\n"
        "--=_01abcdefghjkmnpqrstvwxyz01_0--\r\n",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        assert_true(has(lines[i]));
    }
}

static void delayed_report_says_until_when(void **state)
{
    (void)state;
    report.action = DSN_DELAYED;
    report.retry_until_ms = 1790100000000;
    recipients[0].code = 451;
    recipients[0].enhanced[0] = 0;
    write_it();
    assert_true(has("Action: delayed\r\nStatus: 4.0.0\r\n"));
    assert_true(has("Diagnostic-Code: smtp; 451 No such user\r\n"));
    assert_true(has("Will-Retry-Until: Tue, 22 Sep 2026 18:00:00 +0000\r\n"));
}

static void success_has_no_diagnostic(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        recipients[i].code = 250;
        memcpy(recipients[i].enhanced, (uint8_t[]){2, 1, 5}, 3);
        recipients[i].diagnostic = SLICE_LITERAL("Ok");
    }
    recipients[1].enhanced[0] = 0;
    report.action = DSN_RELAYED;
    write_it();
    assert_lines(false);
    assert_true(has("Subject: Your message was passed on\r\n"));
    assert_true(has("Action: relayed\r\nStatus: 2.1.5\r\nRemote-MTA: dns; mail1.example.com\r\n"));
    assert_true(has("Action: relayed\r\nStatus: 2.0.0\r\n"));
    assert_true(has("mail1.example.com answered: 250 2.1.5 Ok\r\n"));
    assert_false(has("Diagnostic-Code"));
    buffer_clear(&content);
    report.action = DSN_DELIVERED;
    write_it();
    assert_true(has("Subject: Your message was delivered\r\n"));
    assert_true(has("Action: delivered\r\n"));
}

static void expired_is_4_4_7(void **state)
{
    (void)state;
    recipients[0].code = 451;
    recipients[0].enhanced[0] = 0;
    write_it();
    assert_true(has("Action: failed\r\nStatus: 4.4.7\r\n"));
}

static void strangers_strings_stay_in_their_line(void **state)
{
    (void)state;
    recipients[0].address = SLICE_LITERAL("bob\r\nAction: delivered\r\n@example.com");
    recipients[0].orcpt = SLICE_LITERAL("rfc822\r\nX: y;bob+0D+0AX: y+00");
    recipients[0].diagnostic = SLICE_LITERAL("no\r\n\r\n--=_01abcdefghjkmnpqrstvwxyz01_0\r\n\xff");
    recipients[0].remote = SLICE_LITERAL("mail\r\nBcc: z");
    report.envelope_id = SLICE_LITERAL("a+0D+0AX: y");
    report.message_id = SLICE_LITERAL("<1@x>\r\nBcc: z");
    report.sender = SLICE_LITERAL("ann>\r\nBcc: z@x");
    write_it();
    assert_lines(false);
    assert_false(has("\r\nAction: delivered"));
    assert_false(has("\r\nX: y"));
    assert_false(has("\r\nBcc: z"));
    assert_true(has("To: undisclosed-recipients:;\r\n"));
    assert_false(has("In-Reply-To"));
    assert_true(has("Original-Recipient: rfc822??X: y; bob??X: y?\r\n"));
    size_t parts = 0;
    for (const char *at = (const char *)content.data;
         (at = strstr(at, "\r\n--=_01abcdefghjkmnpqrstvwxyz01_0\r\n")) != NULL; at++) {
        parts++;
    }
    assert_int_equal(parts, 3);
}

static void boundary_is_not_in_the_header(void **state)
{
    (void)state;
    report.header = SLICE_LITERAL("Subject: x\r\n--=_01abcdefghjkmnpqrstvwxyz01_0\r\n");
    write_it();
    assert_true(has("boundary=\"=_01abcdefghjkmnpqrstvwxyz01_1\""));
}

static void eight_bit_header_is_quoted(void **state)
{
    (void)state;
    report.header = SLICE_LITERAL("Subject: \xe4\xf6=\r\nX: a\nb\rc \r\n\r\n");
    write_it();
    assert_lines(false);
    assert_true(has("text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
                    "Subject: =E4=F6=3D\r\nX: a=0Ab=0Dc=20\r\n\r\n--"));
}

static void long_lines_are_quoted_softly(void **state)
{
    (void)state;
    static char line[2100];
    memset(line, 'x', sizeof(line));
    memcpy(line + 2098, "\r\n", 2);
    report.header = slice_make(line, sizeof(line));
    write_it();
    assert_lines(false);
    size_t width = 0;
    const char *part = strstr((const char *)content.data, "\r\n\r\nxxx") + 4;
    for (const char *at = part; *at != '-'; at++) {
        width = *at == '\r' || *at == '\n' ? 0 : width + 1;
        assert_true(width <= 76);
    }
}

static void long_header_is_cut_at_a_line(void **state)
{
    (void)state;
    static char header[DSN_HEADER_MAX * 2];
    for (size_t i = 0; i < sizeof(header); i += 32) {
        snprintf(header + i, 32, "X-Field: %021zu", i);
        memcpy(header + i + 30, "\r\n", 2);
    }
    header[sizeof(header) - 1] = '\n';
    report.header = slice_make(header, sizeof(header) - 5);
    write_it();
    assert_lines(false);
    assert_true(content.length < DSN_HEADER_MAX + 4000);
    assert_true(has("000065504\r\n\r\n--"));
}

static void internationalised_addresses(void **state)
{
    (void)state;
    report.sender = SLICE_LITERAL("j\xc3\xb6rg@example.org");
    recipients[0].address = SLICE_LITERAL("b\xc3\xa4r+x@\xe4\xbe\x8b.example");
    recipients[0].orcpt = SLICE_LITERAL("utf-8;b\\x{E4}r@example.com");
    recipients[0].diagnostic = SLICE_LITERAL("unbekannt: b\xc3\xa4r");
    write_it();
    assert_lines(true);
    assert_true(utf8);
    assert_true(has("To: <j\xc3\xb6rg@example.org>\r\n"));
    assert_true(has("Final-Recipient: utf-8; b\\x{E4}r\\x{2B}x@\\x{4F8B}.example\r\n"));
    assert_true(has("Original-Recipient: utf-8; b\\x{E4}r@example.com\r\n"));
    assert_true(has("Diagnostic-Code: smtp; 550 5.1.1 unbekannt: b??r\r\n"));
    assert_true(has("    b=C3=A4r+x@=E4=BE=8B.example\r\n"));
}

static void monstrous_address_stays_within_a_line(void **state)
{
    (void)state;
    static char address[4000];
    for (size_t i = 0; i < sizeof(address); i += 2) {
        memcpy(address + i, "\xc3\xa4", 2);
    }
    recipients[0].address = slice_make(address, sizeof(address));
    report.sender = slice_make(address, sizeof(address));
    write_it();
    assert_lines(false);
}

static void limit_is_reported(void **state)
{
    (void)state;
    write_it();
    for (size_t limit = 1; limit < content.length; limit += 7) {
        struct buffer small;
        buffer_init(&small, limit);
        assert_false(dsn_write(&report, &small, &header_length, &utf8));
        buffer_done(&small);
    }
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    bool whole = false;
    for (long n = 0; !whole; n++) {
        struct buffer fresh;
        buffer_init(&fresh, 0);
        memory_fail_at(n);
        whole = dsn_write(&report, &fresh, &header_length, &utf8);
        memory_fail_never();
        assert_true(n < 100 && (!whole || n > 5));
        if (whole) {
            assert_memory_equal(fresh.data + fresh.length - 4, "--\r\n", 4);
        }
        buffer_done(&fresh);
    }
}

#define WITH_REPORT(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    if (argc > 1) { /* for other programs to read: the report as it is */
        begin(NULL);
        write_it();
        return fwrite(content.data, 1, content.length, stdout) == content.length ? 0 : 1;
    }
    (void)argv;
    const struct CMUnitTest tests[] = {
        WITH_REPORT(failed_report_is_whole),
        WITH_REPORT(delayed_report_says_until_when),
        WITH_REPORT(success_has_no_diagnostic),
        WITH_REPORT(expired_is_4_4_7),
        WITH_REPORT(strangers_strings_stay_in_their_line),
        WITH_REPORT(boundary_is_not_in_the_header),
        WITH_REPORT(eight_bit_header_is_quoted),
        WITH_REPORT(long_lines_are_quoted_softly),
        WITH_REPORT(long_header_is_cut_at_a_line),
        WITH_REPORT(internationalised_addresses),
        WITH_REPORT(monstrous_address_stays_within_a_line),
        WITH_REPORT(limit_is_reported),
        WITH_REPORT(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests_name("dsn", tests, NULL, NULL);
}
