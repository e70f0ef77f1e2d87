/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/ldap_text.h"

static const char *filled(enum ldap_template kind, const char *text, struct slice value)
{
    static char result[512];
    struct buffer buffer;
    buffer_init(&buffer, sizeof(result) - 1);
    assert_null(ldap_template_fault(kind, slice_from_text(text)));
    bool good = ldap_template_fill(kind, slice_from_text(text), value, &buffer);
    assert_false(buffer.failed);
    memcpy(result, buffer.data != NULL ? (const char *)buffer.data : "", buffer.length);
    result[buffer.length] = '\0';
    buffer_done(&buffer);
    return good ? result : NULL;
}

static const char *filter(const char *text, const char *value)
{
    return filled(LDAP_TEMPLATE_FILTER, text, slice_from_text(value));
}

static const char *name(const char *text, const char *value)
{
    return filled(LDAP_TEMPLATE_NAME, text, slice_from_text(value));
}

static void a_value_in_a_filter_means_only_itself(void **state)
{
    (void)state;
    assert_string_equal(filter("(uid=%u)", "ann"), "(uid=ann)");
    assert_string_equal(filter("(uid=%u)", "*"), "(uid=\\2a)");
    assert_string_equal(filter("(uid=%u)", "a)(uid=*"), "(uid=a\\29\\28uid=\\2a)");
    assert_string_equal(filter("(uid=%u)", "a\\b"), "(uid=a\\5cb)");
    assert_string_equal(filter("(uid=%u)", "\xc3\xa4"), "(uid=\\c3\\a4)");
    assert_string_equal(filled(LDAP_TEMPLATE_FILTER, "(uid=%u)", slice_make("a\0b\x7f", 4)),
                        "(uid=a\\00b\\7f)");
    assert_string_equal(filter("(|(uid=%l)(mail=%u)(o=%d)(x=5%%))", "ann@b.c"),
                        "(|(uid=ann)(mail=ann@b.c)(o=b.c)(x=5%))");
    assert_string_equal(filter("(uid=%l)", "ann"), "(uid=ann)");
    assert_null(filter("(o=%d)", "ann"));
    assert_null(filter("(o=%l)", "@b.c"));
}

static void a_value_in_a_name_means_only_itself(void **state)
{
    (void)state;
    assert_string_equal(name("uid=%u,dc=x", "ann"), "uid=ann,dc=x");
    assert_string_equal(name("uid=%u,dc=x", "ann,dc=y"), "uid=ann\\2cdc\\3dy,dc=x");
    assert_string_equal(name("uid=%u,dc=x", "#a b "), "uid=\\23a b\\20,dc=x");
    assert_string_equal(name("uid=%u,dc=x", "a+b<c>d\"e;f\\g"),
                        "uid=a\\2bb\\3cc\\3ed\\22e\\3bf\\5cg,dc=x");
    assert_string_equal(name("uid=%u,dc=x", " "), "uid=\\20,dc=x");
}

static void a_broken_template_is_told(void **state)
{
    (void)state;
    static const char *const filters[] = {
        "",          "uid=%u",    "(uid=%u",    "(uid=%u))",  "(a=%u)(b=c)", "(uid=%x)",
        "(uid=ann)", "(uid=%u)%", ")(uid=%u)(", "(uid=%u)\n", "(uid=100%%)", " (uid=%u)"};
    for (size_t i = 0; i < sizeof(filters) / sizeof(*filters); i++) {
        assert_non_null(ldap_template_fault(LDAP_TEMPLATE_FILTER, slice_from_text(filters[i])));
    }
    static const char *const broken[] = {"",        "a=b",    "(a=b",  "(a=b))", "(a=b)(c=d)",
                                         "(a=b)\n", "(a=b) ", ")a=b(", " (a=b)", "a"};
    for (size_t i = 0; i < sizeof(broken) / sizeof(*broken); i++) {
        assert_non_null(ldap_filter_fault(slice_from_text(broken[i])));
    }
    assert_null(ldap_filter_fault(SLICE_LITERAL("(&(a=*)(!(b=\\28)))")));
    assert_non_null(ldap_template_fault(LDAP_TEMPLATE_NAME, slice_from_text("uid=ann")));
    assert_null(ldap_template_fault(LDAP_TEMPLATE_NAME, slice_from_text("uid=%u,cn=(x")));
}

static void urls_of_directories(void **state)
{
    (void)state;
    struct ldap_url url;
    assert_true(ldap_url_read(slice_from_text("ldap://dir.example.net"), &url));
    assert_true(!url.has_tls && url.port == 389);
    assert_true(slice_equal(url.host, SLICE_LITERAL("dir.example.net")));
    assert_true(ldap_url_read(slice_from_text("LDAPS://dir.example.net/"), &url));
    assert_true(url.has_tls && url.port == 636);
    assert_true(ldap_url_read(slice_from_text("ldap://[2001:db8::1]:3389"), &url));
    assert_true(url.port == 3389 && slice_equal(url.host, SLICE_LITERAL("2001:db8::1")));
    static const char *const wrong[] = {"",
                                        "ldap:",
                                        "ldap://",
                                        "ldap:///",
                                        "http://x",
                                        "ldap://x:0",
                                        "ldap://x:65536",
                                        "ldap://x:",
                                        "ldap://x:1x",
                                        "ldap://[::1",
                                        "ldap://[]",
                                        "ldap://[::1]x",
                                        "ldap://x/dc=y",
                                        "ldap://a@b",
                                        "ldap://a b",
                                        "ldap://a%20b",
                                        "ldapi://x"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        assert_false(ldap_url_read(slice_from_text(wrong[i]), &url));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_in_a_filter_means_only_itself),
        cmocka_unit_test(a_value_in_a_name_means_only_itself),
        cmocka_unit_test(a_broken_template_is_told),
        cmocka_unit_test(urls_of_directories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
