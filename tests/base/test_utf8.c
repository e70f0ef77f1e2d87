/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/utf8.h"

static void takes_what_is_well_formed(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t length;
    } cases[] = {
        {"a", 1},
        {"\x7f", 1},
        {"\xc2\x80", 2},
        {"\xdf\xbf", 2},
        {"\xe0\xa0\x80", 3},
        {"\xed\x9f\xbf", 3},
        {"\xee\x80\x80", 3},
        {"\xef\xbf\xbf", 3},
        {"\xc3\xa4z", 2},
        {"\xf0\x90\x80\x80", 4},
        {"\xf4\x8f\xbf\xbf", 4},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(utf8_sequence(slice_from_text(cases[i].text)), cases[i].length);
        assert_true(utf8_is_valid(slice_from_text(cases[i].text)));
    }
    assert_true(utf8_is_valid(SLICE_EMPTY));
    assert_int_equal(utf8_sequence(SLICE_EMPTY), 0);
}

static void refuses_overlong_surrogates_and_beyond(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xc2",
        "\xc2z",
        "\xe0\x9f\xbf",
        "\xe0\xa0",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xe4\xbe\xc0",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xf0\x90\x80",
        "a\xfe",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_false(utf8_is_valid(slice_from_text(cases[i])));
    }
}

static void sees_eight_bits_at_any_place(void **state)
{
    (void)state;
    uint8_t bytes[40];
    for (size_t length = 0; length <= sizeof(bytes); length++) {
        memset(bytes, 'a', sizeof(bytes));
        assert_true(utf8_is_ascii(slice_make(bytes, length)));
        for (size_t at = 0; at < length; at++) {
            bytes[at] = 0x80;
            assert_false(utf8_is_ascii(slice_make(bytes, length)));
            bytes[at] = 'a';
        }
    }
}

static void cleans_the_words_of_strangers(void **state)
{
    (void)state;
    static const struct {
        const char *text, *keep, *clean;
    } cases[] = {
        {"Gr\xc3\xbc\xc3\x9f"
         "e \xf0\x9f\x93\xa7 \xe4\xb8\xad",
         "",
         "Gr\xc3\xbc\xc3\x9f"
         "e \xf0\x9f\x93\xa7 \xe4\xb8\xad"},
        {"a\x1b[31mb\x7f"
         "c\n",
         "", "a?[31mb?c?"},
        {"a\nb\tc\r", "\n\t", "a\nb\tc?"},
        {"\xc2\x9b"
         "31m\xc2\x80\xc2\xa0",
         "", "?31m?\xc2\xa0"},
        {"\xe2\x80\xae\xe2\x80\x8e\xe2\x81\xa6\xd8\x9c\xe2\x80\xa8|\xe2\x80\xaf\xe2\x81\xaa", "",
         "?????|\xe2\x80\xaf\xe2\x81\xaa"},
        {"\xff\xc3", "", "??"},
    };
    char buffer[64];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(
            utf8_clean(slice_from_text(cases[i].text), cases[i].keep, buffer, sizeof(buffer)),
            cases[i].clean);
    }
    assert_string_equal(utf8_clean(SLICE_LITERAL("ab\xc3\x9f"), "", buffer, 4), "ab");
    assert_string_equal(utf8_clean(SLICE_LITERAL("ab\xc3\x9f"), "", buffer, 5), "ab\xc3\x9f");
    assert_int_equal(utf8_code_point(SLICE_LITERAL("\xf0\x9f\x93\xa7")), 0x1f4e7);
    assert_int_equal(utf8_code_point(SLICE_LITERAL("\xe2\x80\xae")), 0x202e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_is_well_formed),
        cmocka_unit_test(refuses_overlong_surrogates_and_beyond),
        cmocka_unit_test(sees_eight_bits_at_any_place),
        cmocka_unit_test(cleans_the_words_of_strangers),
    };
    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
