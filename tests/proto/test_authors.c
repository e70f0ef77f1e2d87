/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/authors.h"

#include <stdio.h>

static bool note(void *context, struct slice address)
{
    char *list = context;
    size_t length = strlen(list);
    snprintf(list + length, 256 - length, "%.*s;", SLICE_PRINT(address));
    return true;
}

static bool refuse(void *context, struct slice address)
{
    (void)context;
    return slice_find(address, 'b') == address.length;
}

static const char *read_value(const char *value)
{
    static char list[256];
    uint32_t count;
    list[0] = '\0';
    enum authors_result result = authors_read(slice_from_text(value), note, list, &count);
    return result == AUTHORS_READ ? list : "broken";
}

static void addresses_are_found(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"ann@x.org", "ann@x.org;"},
        {" Ann <ann@x.org>\r\n", "ann@x.org;"},
        {"\"Ann, of x\" <ann@x.org>, joe@x.org", "ann@x.org;joe@x.org;"},
        {"Ann\r\n\t<ann@x.org>", "ann@x.org;"},
        {"ann @ x . org (a (nested\\)) comment, b@c)", "ann@x.org;"},
        {"(before) ann@x.org", "ann@x.org;"},
        {"Us: ann@x.org, Joe <joe@x.org>;", "ann@x.org;joe@x.org;"},
        {"nobody:;", ""},
        {"", ""},
        {",ann@x.org,,", "ann@x.org;"},
        {"\"a b\"@x.org", "\"a b\"@x.org;"},
        {"\"boss@x.org\" <ann@x.org>", "ann@x.org;"},
        {"ann@[192.0.2.1]", "ann@[192.0.2.1];"},
        /* What some programs would show counts. */
        {"boss@x.org <ann@x.org>", "ann@x.org;boss@x.org;"},
        {"=?utf-8?q?boss=40x.org?= <ann@x.org>", "ann@x.org;"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_string_equal(read_value(cases[i][0]), cases[i][1]);
    }
}

static void what_may_be_read_in_two_ways_is_not_read(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "Ann",
        "ann@x.org boss@x.org",
        "an n@x.org",
        "<ann@x.org> <boss@x.org>",
        "<ann@x.org> boss@x.org",
        "<ann@x.org",
        "ann@x.org>",
        "<>",
        "<<ann@x.org>>",
        "<@y.org:ann@x.org>",
        "\"Ann <ann@x.org>",
        "(Ann <ann@x.org>",
        "boss@x.org: ann@x.org;",
        "a: b: ann@x.org;;",
        "a: ann@x.org",
        "ann@x.org;",
        "ann@@x.org",
        "ann@x.org\\",
        "Boss boss@x.org <ann@x.org>",
        "<ann@x.org (c), boss@x.org>",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_string_equal(read_value(cases[i]), "broken");
    }
}

static void the_caller_may_refuse(void **state)
{
    (void)state;
    uint32_t count;
    assert_int_equal(authors_read(SLICE_LITERAL("a@x.org, b@x.org, c@"), refuse, NULL, &count),
                     AUTHORS_REFUSED);
    assert_int_equal(count, 2);
}

static void a_long_address_is_none(void **state)
{
    (void)state;
    char value[2 * AUTHOR_MAX];
    uint32_t count;
    memset(value, 'a', sizeof(value));
    memcpy(value + sizeof(value) - 6, "@x.org", 6);
    assert_int_equal(authors_read(slice_make(value, sizeof(value)), refuse, NULL, &count),
                     AUTHORS_BROKEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_found),
        cmocka_unit_test(what_may_be_read_in_two_ways_is_not_read),
        cmocka_unit_test(the_caller_may_refuse),
        cmocka_unit_test(a_long_address_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
