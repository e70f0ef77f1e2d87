/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "proto/mta_sts.h"

static void announces(const char *record, const char *expected)
{
    struct slice id;
    assert_true(mta_sts_announces(slice_from_text(record), &id));
    assert_true(slice_equal(id, slice_from_text(expected)));
}

static void reads_records(void **state)
{
    (void)state;
    static const char *const others[] = {
        "",
        "v=spf1 -all",
        "v=STSv1",
        "v=STSv1;",
        "v=STSv1; id=",
        "v=STSv1; id=a-b",
        "v=STSv1; id=012345678901234567890123456789012",
        "v=STSv2; id=1",
        "V=STSv1; id=1",
        "id=1; v=STSv1",
    };
    struct slice id;
    announces("v=STSv1; id=20160831085700Z;", "20160831085700Z");
    announces("v=STSv1;id=1", "1");
    announces("v=STSv1 ; other=x; id=01234567890123456789012345678901",
              "01234567890123456789012345678901");
    announces("v=STSv1; id=1; id=2", "1");
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_false(mta_sts_announces(slice_from_text(others[i]), &id));
    }
}

#define POLICY                                                                                     \
    "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net.\r\n"            \
    "mx: backupmx.example.com\r\nmax_age: 604800\r\n"

static void reads_policies(void **state)
{
    (void)state;
    struct mta_sts_policy policy;
    assert_int_equal(mta_sts_read(SLICE_LITERAL(POLICY), &policy), ERROR_NONE);
    assert_int_equal(policy.mode, MTA_STS_ENFORCE);
    assert_int_equal(policy.max_age_s, 604800);
    assert_int_equal(policy.pattern_count, 3);
    assert_int_equal(
        mta_sts_read(SLICE_LITERAL("max_age:99999999\nmx: a\nversion:STSv1\n\nnews: 1\n"
                                   "mode: testing\nmode: enforce"),
                     &policy),
        ERROR_NONE);
    assert_int_equal(policy.mode, MTA_STS_TESTING);
    assert_int_equal(policy.max_age_s, MTA_STS_AGE_MAX_S);
    assert_int_equal(mta_sts_read(SLICE_LITERAL("version: STSv1\nmode: none\nmax_age: 0"), &policy),
                     ERROR_NONE);
    assert_int_equal(policy.mode, MTA_STS_NONE);
}

static void refuses_policies(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "mode: enforce\nmx: a\nmax_age: 1",
        "version: STSv1\nmx: a\nmax_age: 1",
        "version: STSv1\nmode: enforce\nmx: a",
        "version: STSv1\nmode: enforce\nmax_age: 1",
        "version: STSv2\nmode: enforce\nmx: a\nmax_age: 1",
        "version: STSv1\nmode: report\nmx: a\nmax_age: 1",
        "version: STSv1\nmode: enforce\nmx: a\nmax_age: -1",
        "version: STSv1\nmode: enforce\nmx: a\nmax_age: 99999999999",
        "version: STSv1\nmode: enforce\nmx: a b\nmax_age: 1",
        "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1",
        "version: STSv1\nmode: enforce\nmx: *.\nmax_age: 1",
        "version: STSv1\nmode: enforce\nmx: a.*.b\nmax_age: 1",
        "version: STSv1\nmode: enforce\nmx: .a\nmax_age: 1",
        "version: STSv1\nmode: enforce\nmx: a..b\nmax_age: 1",
        "version: STSv1\nmode: enforce\nmx: a..\nmax_age: 1",
        "version: STSv1\nmode: enforce\nmx: .\nmax_age: 1",
        "version: STSv1\nmode: enforce\nmx:\nmax_age: 1",
        "<html>not found</html>",
    };
    struct mta_sts_policy policy;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(mta_sts_read(slice_from_text(texts[i]), &policy), ERROR_INVALID);
    }
}

static void bounds_policies(void **state)
{
    (void)state;
    struct mta_sts_policy policy;
    struct buffer text;
    buffer_init(&text, 0);
    buffer_append_text(&text, "version: STSv1\nmode: enforce\nmax_age: 1\n");
    for (int i = 0; i < MTA_STS_PATTERNS_MAX; i++) {
        buffer_printf(&text, "mx: mx%d.example.com\n", i);
    }
    assert_int_equal(mta_sts_read(buffer_slice(&text), &policy), ERROR_NONE);
    assert_true(mta_sts_allows(&policy, SLICE_LITERAL("mx63.example.com")));
    buffer_append_text(&text, "mx: one.too.many\n");
    assert_int_equal(mta_sts_read(buffer_slice(&text), &policy), ERROR_LIMIT);
    while (text.length <= MTA_STS_POLICY_MAX) {
        buffer_append_text(&text, "\n");
    }
    assert_int_equal(mta_sts_read(buffer_slice(&text), &policy), ERROR_LIMIT);
    buffer_done(&text);
}

static void knows_its_exchangers(void **state)
{
    (void)state;
    struct mta_sts_policy policy;
    assert_int_equal(mta_sts_read(SLICE_LITERAL(POLICY), &policy), ERROR_NONE);
    assert_true(mta_sts_allows(&policy, SLICE_LITERAL("mail.example.com")));
    assert_true(mta_sts_allows(&policy, SLICE_LITERAL("MAIL.example.COM.")));
    assert_true(mta_sts_allows(&policy, SLICE_LITERAL("mx1.example.net")));
    assert_false(mta_sts_allows(&policy, SLICE_LITERAL("example.net")));
    assert_false(mta_sts_allows(&policy, SLICE_LITERAL(".example.net")));
    assert_false(mta_sts_allows(&policy, SLICE_LITERAL("a.b.example.net")));
    assert_false(mta_sts_allows(&policy, SLICE_LITERAL("mail.example.org")));
    assert_false(mta_sts_allows(&policy, SLICE_LITERAL("mail.example.com.evil")));
    assert_false(mta_sts_allows(&policy, SLICE_EMPTY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_records),        cmocka_unit_test(reads_policies),
        cmocka_unit_test(refuses_policies),     cmocka_unit_test(bounds_policies),
        cmocka_unit_test(knows_its_exchangers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
