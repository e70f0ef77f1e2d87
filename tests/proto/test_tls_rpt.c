/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "proto/tls_rpt.h"

static void reads_records(void **state)
{
    (void)state;
    static const char *const others[] = {
        "", "v=spf1 -all", "v=TLSRPTv1", "rua=mailto:a@b; v=TLSRPTv1", "v=TLSRPTv2; rua=mailto:a@b",
    };
    struct tls_rpt_record record;
    assert_true(tls_rpt_read(SLICE_LITERAL("v=TLSRPTv1; rua=mailto:a@example.com"), &record));
    assert_int_equal(record.count, 1);
    assert_true(slice_equal(record.targets[0], SLICE_LITERAL("mailto:a@example.com")));
    assert_true(tls_rpt_read(
        SLICE_LITERAL("v=TLSRPTv1;x=y; rua=https://r.example/v1 , mailto:a@example.com,ftp://x,"
                      "http://plain.example/,mailto:,https://b\\c,mailto:b@c;"),
        &record));
    assert_int_equal(record.count, 3);
    assert_true(slice_equal(record.targets[0], SLICE_LITERAL("https://r.example/v1")));
    assert_true(slice_equal(record.targets[2], SLICE_LITERAL("mailto:b@c")));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_false(tls_rpt_read(slice_from_text(others[i]), &record));
    }
}

static void no_more_targets_than_are_kept(void **state)
{
    (void)state;
    struct tls_rpt_record record;
    assert_true(tls_rpt_read(
        SLICE_LITERAL("v=TLSRPTv1; rua=mailto:1@a,mailto:2@a,mailto:3@a,mailto:4@a,mailto:5@a"),
        &record));
    assert_int_equal(record.count, TLS_RPT_TARGETS_MAX);
}

static void addresses_are_decoded(void **state)
{
    (void)state;
    static const char *const wrong[] = {"https://a.example/",   "mailto:",          "mailto:?a@b",
                                        "mailto:a%0d%0aRCPT@b", "mailto:a%2",       "mailto:a%zz@b",
                                        "mailto:a b@c",         "mailto:12345678@b"};
    char address[10];
    assert_true(tls_rpt_mailbox(SLICE_LITERAL("mailto:a%2Cb@c?x=y"), address, sizeof(address)));
    assert_string_equal(address, "a,b@c");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(tls_rpt_mailbox(slice_from_text(wrong[i]), address, sizeof(address)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_records),
        cmocka_unit_test(no_more_targets_than_are_kept),
        cmocka_unit_test(addresses_are_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
