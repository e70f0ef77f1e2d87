/* SPDX-License-Identifier: Apache-2.0 */
#include "base/slice.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static bool matches(const char *text, const char *pattern)
{
    return slice_matches_fold(slice_from_text(text), slice_from_text(pattern));
}

static void a_star_is_any_run(void **state)
{
    (void)state;
    assert_true(matches("", ""));
    assert_true(matches("", "*"));
    assert_true(matches("ann@example.com", "*@example.com"));
    assert_true(matches("Ann@Example.COM", "ann@*"));
    assert_true(matches("aab", "*ab"));
    assert_true(matches("a.b.c", "a*.*c"));
    assert_true(matches("abc", "**a*b*c**"));
    assert_true(matches("a*b", "a*b"));
    assert_false(matches("a", ""));
    assert_false(matches("", "a"));
    assert_false(matches("ann@example.com.org", "*@example.com"));
    assert_false(matches("ann@example.com", "*@example.co"));
    assert_false(matches("abab", "*abc"));
    assert_false(matches("[", "{")); /* only letters are folded */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_star_is_any_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
