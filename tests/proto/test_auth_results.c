/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "proto/auth_results.h"

#include <stdio.h>

static const struct slice own[] = {SLICE_LITERAL("mx.example.net"), SLICE_LITERAL("example.net")};
static const struct auth_names names = {own, 2};

/* ---- the sieve ------------------------------------------------------------------------------- */

/* A header, cut into pieces of so many octets. */
static void sieves(const char *header, size_t piece, const char *expected, uint32_t fields)
{
    struct auth_sieve sieve = {0};
    struct buffer kept;
    struct slice run, rest = slice_from_text(header);
    buffer_init(&kept, 0);
    while (rest.length > 0) {
        struct slice next = slice_take(rest, piece);
        rest = slice_skip(rest, piece);
        while (auth_sieve_next(&sieve, &names, &next, &run)) {
            buffer_append(&kept, run);
        }
        assert_int_equal(next.length, 0);
    }
    buffer_append(&kept, auth_sieve_end(&sieve, &names));
    buffer_put_u8(&kept, 0);
    assert_string_equal((const char *)kept.data, expected);
    assert_int_equal(sieve.fields, fields);
    assert_int_equal(sieve.removed, strlen(header) - strlen(expected));
    buffer_done(&kept);
}

static void forged(const char *field)
{
    char header[1024];
    static const char rest[] = "A: 1\r\nAuthentication: x\r\n\r\n";
    snprintf(header, sizeof(header), "From: a\r\n%s%s", field, rest);
    for (size_t piece = 1; piece < 70; piece++) {
        sieves(header, piece, "From: a\r\nA: 1\r\nAuthentication: x\r\n\r\n", 1);
    }
    sieves(field, 1, "", 1); /* and nothing behind it */
}

static void stays(const char *header)
{
    for (size_t piece = 1; piece < 70; piece++) {
        sieves(header, piece, header, 0);
    }
}

static void removes_what_claims_to_be_ours(void **state)
{
    (void)state;
    forged("Authentication-Results: mx.example.net; spf=pass\r\n");
    forged("authentication-RESULTS: MX.Example.NET; spf=pass\r\n\tsmtp.mailfrom=a\r\n b\r\n");
    forged("Authentication-Results:mx.example.net;none\r\n");
    forged("Authentication-Results : mx.example.net\r\n");
    forged("Authentication-Results \t:\r\n mx.example.net 1; none\r\n");
    forged("Authentication-Results: (a (nested \\) one)) mx.example.net; none\r\n");
    forged("Authentication-Results:\r\n (folded\r\n here)\r\n\texample.net (b); none\r\n");
    forged("Authentication-Results: \"mx.example.net\"; none\r\n");
    forged("Authentication-Results: \"mx\\.example.net\"; none\r\n");
    forged("Authentication-Results: mx.example.net/4711; none\r\n");
    forged("Authentication-Results: mx.example.net.; none\r\n");
    forged("Authentication-Results: (without an end; none\r\n");
}

static void leaves_the_others(void **state)
{
    (void)state;
    stays("Authentication-Results: mx.example.org; spf=pass\r\n\r\n");
    stays("Authentication-Results: notmx.example.net; spf=pass\r\n\r\n");
    stays("Authentication-Results: mx.example.net.example.org; spf=pass\r\n\r\n");
    stays("Authentication-Results: \"mx.example.ne\"; spf=pass\r\n\r\n");
    stays("Authentication-Results:\r\nA: mx.example.net\r\n\r\n");
    stays("Authentication-Results-Too: mx.example.net; spf=pass\r\n\r\n");
    stays("ARC-Authentication-Results: i=1; mx.example.net; spf=pass\r\n\r\n");
    stays("X: a\r\n Authentication-Results: mx.example.net; spf=pass\r\n\r\n");
    stays("X: Authentication-Results: mx.example.net; spf=pass\r\n\r\n");
    stays("Authentication-Results mx.example.net\r\n");
    stays("A");
    stays("Authentication-Res");
}

/* As RFC 8601 section 5 allows: what cannot be told apart cheaply goes. */
static void takes_endless_ones_for_forged(void **state)
{
    (void)state;
    /* What is held fills up with the end of a line: the field may go on behind it, or is over. */
    char line_end[AUTH_SIEVE_HELD + 1];
    snprintf(line_end, sizeof(line_end), "%-254s\r\n", "Authentication-Results:");
    forged(line_end);
    char header[1024];
    int length = snprintf(header, sizeof(header), "Authentication-Results: (");
    memset(header + length, 'x', 500);
    snprintf(header + length + 500, sizeof(header) - (size_t)length - 500,
             ") mx.example.org; none\r\nA: 1\r\n");
    sieves(header, 1, "A: 1\r\n", 1);
    sieves(header, 1000, "A: 1\r\n", 1);
}

/* ---- what filters say ------------------------------------------------------------------------ */

static void proves(const char *value, enum auth_proof expected)
{
    assert_int_equal(
        auth_results_prove(slice_from_text(value), &names, SLICE_LITERAL("client.example")),
        expected);
}

static void believes_aligned_results(void **state)
{
    (void)state;
    proves(" mx.example.net; spf=pass smtp.mailfrom=bob@client.example", AUTH_BY_SPF);
    proves("example.net 1;\r\n\tspf=pass (a; b) reason=\"c; d\"\r\n smtp.mailfrom=CLIENT.example;",
           AUTH_BY_SPF);
    proves("mx.example.net; spf=pass smtp.mailfrom=\"b@b\"@client.example", AUTH_BY_SPF);
    proves("mx.example.net; dkim=pass (2048-bit key) header.d=client.example header.i=@client."
           "example header.a=rsa-sha256 header.s=s1 header.b=ab/c+d==",
           AUTH_BY_DKIM);
    proves("mx.example.net; dkim=pass header.i=@client.example", AUTH_BY_DKIM);
    proves("mx.example.net; dkim/1=pass header.b=a=b header.d=client.example", AUTH_BY_DKIM);
    proves("mx.example.net; spf=fail smtp.mailfrom=client.example; dkim=none; dkim=pass "
           "header.d=client.example",
           AUTH_BY_DKIM);
    proves("mx.example.net; dmarc=pass (p=none dis=none) header.from=client.example",
           AUTH_BY_DMARC);
    assert_int_equal(
        auth_results_prove(SLICE_LITERAL("mx.example.net; dkim=pass header.d=a.example"), &names,
                           SLICE_LITERAL("sub.a.example")),
        AUTH_BY_DKIM);
}

static void believes_nothing_else(void **state)
{
    (void)state;
    proves("mx.example.net; none", AUTH_NOTHING);
    proves("mx.example.net", AUTH_NOTHING);
    proves("", AUTH_NOTHING);
    proves("mx.example.org; spf=pass smtp.mailfrom=client.example", AUTH_NOTHING);
    proves("mx.example.net; spf=pass", AUTH_NOTHING);
    proves("mx.example.net; spf=pass smtp.helo=client.example", AUTH_NOTHING);
    proves("mx.example.net; spf=pass smtp.mailfrom=bob@sub.client.example", AUTH_NOTHING);
    proves("mx.example.net; spf=pass smtp.mailfrom=bob@other.example smtp.mailfrom=client.example",
           AUTH_NOTHING);
    proves("mx.example.net; spf=softfail smtp.mailfrom=client.example", AUTH_NOTHING);
    proves("mx.example.net; spf=passed smtp.mailfrom=client.example", AUTH_NOTHING);
    proves("mx.example.net; x-spf=pass smtp.mailfrom=client.example", AUTH_NOTHING);
    proves("mx.example.net; iprev=pass policy.iprev=client.example", AUTH_NOTHING);
    proves("mx.example.net; dkim=pass header.d=other.example header.i=@client.example",
           AUTH_NOTHING);
    proves("mx.example.net; dkim=pass header.d=sub.client.example", AUTH_NOTHING);
    proves("mx.example.net; dkim=pass header.d=example", AUTH_NOTHING);
    proves("mx.example.net; dkim=pass header.d=.example", AUTH_NOTHING);
    proves("mx.example.net; dkim=fail header.d=client.example; spf=none", AUTH_NOTHING);
    proves("mx.example.net; dmarc=pass header.from=other.example", AUTH_NOTHING);
    /* What was put into comments and strings by who was judged. */
    proves("mx.example.net; spf=fail (; dkim=pass header.d=client.example)", AUTH_NOTHING);
    proves("mx.example.net; spf=fail smtp.mailfrom=\"; dkim=pass header.d=client.example",
           AUTH_NOTHING);
    proves("mx.example.net; dkim=pass header.d=client.example; spf=fail (no end", AUTH_NOTHING);
    proves("mx.example.net; dkim=pass header.d=client.example; what is this", AUTH_NOTHING);
    assert_int_equal(auth_results_prove(SLICE_LITERAL("mx.example.net; spf=pass smtp.mailfrom=a"),
                                        &names, SLICE_EMPTY),
                     AUTH_NOTHING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(removes_what_claims_to_be_ours),
        cmocka_unit_test(leaves_the_others),
        cmocka_unit_test(takes_endless_ones_for_forged),
        cmocka_unit_test(believes_aligned_results),
        cmocka_unit_test(believes_nothing_else),
    };
    return cmocka_run_group_tests_name("auth_results", tests, NULL, NULL);
}
