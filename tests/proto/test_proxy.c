/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "proto/proxy.h"

#include <stdio.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V4_BODY "\xc0\0\2\1\xc0\0\2\2\x10\0\0\x19" /* 192.0.2.1:4096 to 192.0.2.2:25 */

static void is_endpoint(const struct ip_endpoint *endpoint, const char *address, unsigned port)
{
    char text[IP_TEXT_SIZE];
    ip_to_text(&endpoint->address, text);
    assert_string_equal(text, address);
    assert_int_equal(endpoint->port, port);
}

/* Every beginning of a header asks for more; what follows it is not looked at. */
static struct proxy_header reads(struct slice header)
{
    uint8_t bytes[512];
    struct proxy_header found;
    assert_true(header.length + 3 <= sizeof(bytes));
    memcpy(bytes, header.data, header.length);
    memcpy(bytes + header.length, "QUI", 3);
    for (size_t i = 0; i < header.length; i++) {
        assert_in_range(proxy_wanted(slice_make(bytes, i)), 1, header.length - i);
        assert_int_equal(proxy_read(slice_make(bytes, i), &found), PROXY_MORE);
    }
    assert_int_equal(proxy_read(slice_make(bytes, header.length + 3), &found), PROXY_DONE);
    assert_int_equal(found.length, header.length);
    assert_int_equal(proxy_read(header, &found), PROXY_DONE); /* pointing to what stays */
    return found;
}

static void is_broken(struct slice bytes)
{
    struct proxy_header found;
    assert_int_equal(proxy_read(bytes, &found), PROXY_BROKEN);
}

static void reads_lines(void **state)
{
    (void)state;
    struct proxy_header header = reads(SLICE_LITERAL("PROXY TCP4 192.0.2.1 192.0.2.2 4096 25\r\n"));
    assert_true(header.is_known);
    is_endpoint(&header.source, "192.0.2.1", 4096);
    is_endpoint(&header.destination, "192.0.2.2", 25);
    header = reads(SLICE_LITERAL("PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n"));
    assert_true(header.is_known);
    is_endpoint(&header.source, "2001:db8::1", 0);
    is_endpoint(&header.destination, "2001:db8::2", 65535);
    header = reads(SLICE_LITERAL("PROXY UNKNOWN\r\n"));
    assert_false(header.is_known);
    header = reads(SLICE_LITERAL("PROXY UNKNOWN what ever it says\r\n"));
    assert_false(header.is_known);
}

static void refuses_lines(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "EHLO client\r\n",
        "PROXY\r\n",
        "proxy TCP4 192.0.2.1 192.0.2.2 4096 25\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 4096 25\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 4096\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 4096 25 \r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 4096 25\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 04096 25\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 -1 25\r\n",
        "PROXY TCP4 192.0.2 192.0.2.2 4096 25\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 4096 25\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 4096 25\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 4096 25\r\n",
        "PROXY \r\n",
        ("PROXY UNKNOWN 0123456789012345678901234567890123456789012345678901234567890123456789"
         "0123456789012345678901234567890123456789\r\n"),
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        is_broken(slice_from_text(lines[i]));
    }
}

static void reads_bytes(void **state)
{
    (void)state;
    struct proxy_header header = reads(SLICE_LITERAL(SIGNATURE "\x21\x11\0\x0c" V4_BODY));
    assert_true(header.is_known);
    is_endpoint(&header.source, "192.0.2.1", 4096);
    is_endpoint(&header.destination, "192.0.2.2", 25);
    header = reads(SLICE_LITERAL(SIGNATURE "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
                                           "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2\x10\0\0\x19"));
    assert_true(header.is_known);
    is_endpoint(&header.source, "2001:db8::1", 4096);
    is_endpoint(&header.destination, "2001:db8::2", 25);
    header = reads(SLICE_LITERAL(SIGNATURE "\x20\x11\0\x0c" V4_BODY)); /* LOCAL */
    assert_false(header.is_known);
    header = reads(SLICE_LITERAL(SIGNATURE "\x20\0\0\0"));
    assert_false(header.is_known);
    header = reads(SLICE_LITERAL(SIGNATURE "\x21\0\0\0")); /* UNSPEC */
    assert_false(header.is_known);
}

static void reads_of_tls(void **state)
{
    (void)state;
    struct proxy_header header = reads(
        SLICE_LITERAL(SIGNATURE "\x21\x11\0\x26" V4_BODY "\1\0\2h2" /* ALPN: not ours to know */
                                "\x20\0\x0f\1\0\0\0\0\x21\0\7TLSv1.3\x30\0\0"));
    assert_true(header.is_tls);
    assert_true(slice_equal(header.tls_version, SLICE_LITERAL("TLSv1.3")));
    header = reads(SLICE_LITERAL(SIGNATURE "\x21\x11\0\x14" V4_BODY "\x20\0\5\0\0\0\0\0"));
    assert_false(header.is_tls);
}

static void refuses_bytes(void **state)
{
    (void)state;
    is_broken(SLICE_LITERAL("\r\n\r\n\0\r\nQUIX\n"));
    is_broken(SLICE_LITERAL("\r\nE"));
    is_broken(SLICE_LITERAL(SIGNATURE "\x11\x11\0\x0c" V4_BODY)); /* version 1 */
    is_broken(SLICE_LITERAL(SIGNATURE "\x22\x11\0\x0c" V4_BODY)); /* a third command */
    is_broken(SLICE_LITERAL(SIGNATURE "\x21\x12\0\x0c" V4_BODY)); /* UDP */
    is_broken(SLICE_LITERAL(SIGNATURE "\x21\x31\0\x0c" V4_BODY)); /* unix */
    is_broken(SLICE_LITERAL(SIGNATURE "\x21\x11\0\x0b" V4_BODY)); /* too short */
    is_broken(SLICE_LITERAL(SIGNATURE "\x21\x21\0\x0c" V4_BODY));
    is_broken(SLICE_LITERAL(SIGNATURE "\x21\x11\xff\xff" V4_BODY)); /* more than we take */
    is_broken(SLICE_LITERAL(SIGNATURE "\x21\x11\0\x0e" V4_BODY "\1\0"));
    is_broken(SLICE_LITERAL(SIGNATURE "\x21\x11\0\x10" V4_BODY "\1\0\2h"));
    is_broken(SLICE_LITERAL(SIGNATURE "\x21\x11\0\x13" V4_BODY "\x20\0\4\1\0\0\0"));
    is_broken(SLICE_LITERAL(SIGNATURE "\x21\x11\0\x16" V4_BODY "\x20\0\7\1\0\0\0\0\x21\0"));
}

static void writes_what_it_reads(void **state)
{
    (void)state;
    static const char *const addresses[][2] = {{"192.0.2.1", "198.51.100.2"},
                                               {"2001:db8::1", "2001:db8::2"},
                                               {"192.0.2.1", "2001:db8::2"}};
    for (size_t i = 0; i < 3; i++) {
        struct ip_endpoint source = {.port = 4711}, destination = {.port = 25};
        uint8_t bytes[PROXY_V2_MAX];
        assert_true(ip_from_text(slice_from_text(addresses[i][0]), &source.address));
        assert_true(ip_from_text(slice_from_text(addresses[i][1]), &destination.address));
        size_t length = proxy_write(&source, &destination, bytes);
        struct proxy_header header = reads(slice_make(bytes, length));
        assert_true(header.is_known);
        is_endpoint(&header.source, addresses[i][0], 4711);
        is_endpoint(&header.destination, addresses[i][1], 25);
    }
    uint8_t bytes[PROXY_V2_MAX];
    size_t length = proxy_write_local(bytes);
    struct proxy_header header = reads(slice_make(bytes, length));
    assert_true(!header.is_known);
    assert_int_equal(header.length, length);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_lines),   cmocka_unit_test(refuses_lines),
        cmocka_unit_test(reads_bytes),   cmocka_unit_test(reads_of_tls),
        cmocka_unit_test(refuses_bytes), cmocka_unit_test(writes_what_it_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
