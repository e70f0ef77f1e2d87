/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/pattern_set.h"

#include <stdlib.h>

#define P(text) SLICE_LITERAL(text)

static void each_kind_of_pattern(void **state)
{
    (void)state;
    static const struct slice patterns[] = {P("ann@example.com"), P("*@spam.example"),
                                            P("*.dyn.example.net"), P("news*@example.org"),
                                            P("localhost")};
    struct pattern_set *set = pattern_set_new((struct hash_key){1, 2}, patterns, 5);
    assert_non_null(set);
    static const char *const in[] = {"ann@example.com",        "ANN@Example.COM",
                                     "x@spam.example",         "a.b.dyn.example.net",
                                     "x@host.dyn.example.net", "newsletter@example.org",
                                     "news@EXAMPLE.org",       "Localhost"};
    static const char *const out[] = {"",
                                      "ann@example.co",
                                      "bob@example.com",
                                      "spam.example",
                                      "x@sub.spam.example",
                                      "dyn.example.net",
                                      "xdyn.example.net",
                                      "old-news@example.org",
                                      "localhost.localdomain",
                                      "*@spam.example.org"};
    for (size_t i = 0; i < sizeof(in) / sizeof(in[0]); i++) {
        if (!pattern_set_matches(set, slice_from_text(in[i]))) {
            fail_msg("%s does not match", in[i]);
        }
    }
    for (size_t i = 0; i < sizeof(out) / sizeof(out[0]); i++) {
        if (pattern_set_matches(set, slice_from_text(out[i]))) {
            fail_msg("%s matches", out[i]);
        }
    }
    pattern_set_free(set);
}

static void nothing_and_everything(void **state)
{
    (void)state;
    struct pattern_set *none = pattern_set_new((struct hash_key){1, 2}, NULL, 0);
    assert_false(pattern_set_matches(none, P("x")));
    pattern_set_free(none);
    static const struct slice star[] = {P("*")};
    struct pattern_set *all = pattern_set_new((struct hash_key){1, 2}, star, 1);
    assert_true(pattern_set_matches(all, P("x")) && pattern_set_matches(all, SLICE_EMPTY));
    pattern_set_free(all);
}

/* Against the plain question, one pattern after the other. */
static void it_agrees_with_looking_at_each(void **state)
{
    (void)state;
    enum { MANY = 200, LONGEST = 6 };
    static char texts[MANY][LONGEST + 1];
    struct slice patterns[MANY];
    const char letters[] = "aB.@*";
    srand(11);
    for (int i = 0; i < MANY; i++) {
        size_t length = 4 + (size_t)(rand() % 3);
        for (size_t j = 0; j < length; j++) {
            texts[i][j] = letters[rand() % (j == 0 ? 5 : 4)];
        }
        patterns[i] = slice_make(texts[i], length);
    }
    struct pattern_set *set = pattern_set_new((struct hash_key){3, 4}, patterns, MANY);
    int found = 0;
    for (int i = 0; i < 20000; i++) {
        char text[LONGEST + 2];
        size_t length = 1 + (size_t)(rand() % (LONGEST + 1));
        for (size_t j = 0; j < length; j++) {
            text[j] = "Ab.@"[rand() % 4];
        }
        bool expected = false;
        for (int j = 0; j < MANY && !expected; j++) {
            expected = slice_matches_fold(slice_make(text, length), patterns[j]);
        }
        assert_int_equal(pattern_set_matches(set, slice_make(text, length)), expected);
        found += expected;
    }
    assert_in_range(found, 500, 19500);
    pattern_set_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_pattern),
        cmocka_unit_test(nothing_and_everything),
        cmocka_unit_test(it_agrees_with_looking_at_each),
    };
    return cmocka_run_group_tests_name("pattern sets", tests, NULL, NULL);
}
