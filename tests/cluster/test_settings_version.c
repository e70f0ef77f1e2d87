/* SPDX-License-Identifier: Apache-2.0
 *
 * The form in which a version of the cluster's settings lies on a disk: what goes in comes out, and
 * nothing else does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cluster/settings_version.h"

#include <stdio.h>
#include <stdlib.h>

static const struct settings_file two_files[] = {
    {{(const uint8_t *)"ca.pem", 6}, {(const uint8_t *)"A\0B", 3}},
    {{(const uint8_t *)"empty", 5}, {(const uint8_t *)"", 0}},
};

static const struct settings_version example = {
    .number = 17,
    .text = {(const uint8_t *)"domain a { }\n", 13},
    .files = two_files,
    .file_count = 2,
};

static enum error get(struct slice bytes, struct settings_version *ret_version)
{
    static struct settings_file files[SETTINGS_FILES_MAX];
    return settings_version_get(bytes, ret_version, files);
}

static void what_goes_in_comes_out(void **state)
{
    (void)state;
    struct buffer bytes;
    struct settings_version version;
    buffer_init(&bytes, 0);
    settings_version_put(&bytes, &example);
    assert_false(bytes.failed);
    assert_int_equal(get(buffer_slice(&bytes), &version), ERROR_NONE);
    assert_int_equal(version.number, 17);
    assert_true(slice_equal(version.text, example.text));
    assert_int_equal(version.file_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(slice_equal(version.files[i].name, two_files[i].name));
        assert_true(slice_equal(version.files[i].content, two_files[i].content));
    }
    buffer_done(&bytes);
}

/* A disk that lost the end, one octet, or has more than was written. */
static void a_torn_one_is_none(void **state)
{
    (void)state;
    struct buffer bytes;
    struct settings_version version;
    buffer_init(&bytes, 0);
    settings_version_put(&bytes, &example);
    for (size_t length = 0; length < bytes.length; length++) {
        assert_int_equal(get(slice_take(buffer_slice(&bytes), length), &version), ERROR_CORRUPT);
        bytes.data[length] ^= 0x20;
        assert_int_equal(get(buffer_slice(&bytes), &version), ERROR_CORRUPT);
        bytes.data[length] ^= 0x20;
    }
    buffer_put_u8(&bytes, 0);
    assert_int_equal(get(buffer_slice(&bytes), &version), ERROR_CORRUPT);
    buffer_done(&bytes);
}

static void names_of_files(void **state)
{
    (void)state;
    static const char *const bad[] = {"", ".x", "-x", "a/b", "a b", "a\n", "\xc3\xa9"};
    char longest[SETTINGS_FILE_NAME_MAX + 1];
    memset(longest, 'a', sizeof(longest));
    assert_null(settings_file_name_fault(SLICE_LITERAL("mx-1.example.net_KEY")));
    assert_null(settings_file_name_fault(slice_make(longest, SETTINGS_FILE_NAME_MAX)));
    assert_non_null(settings_file_name_fault(slice_make(longest, SETTINGS_FILE_NAME_MAX + 1)));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_non_null(settings_file_name_fault(slice_from_text(bad[i])));
    }
}

static void bounds_hold(void **state)
{
    (void)state;
    static struct settings_file many[SETTINGS_FILES_MAX + 1];
    static char names[SETTINGS_FILES_MAX + 1][8];
    struct settings_version version = {.number = 1, .files = many};
    for (uint32_t i = 0; i <= SETTINGS_FILES_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "f%u", i);
        many[i].name = slice_from_text(names[i]);
    }
    version.file_count = SETTINGS_FILES_MAX;
    assert_null(settings_version_fault(&version));
    version.file_count = SETTINGS_FILES_MAX + 1;
    assert_non_null(settings_version_fault(&version));
    version.file_count = 2;
    /* Only lengths are looked at. */
    many[0].content = slice_make(names, SETTINGS_FILES_BYTES_MAX - 1);
    many[1].content = slice_make(names, 1);
    assert_null(settings_version_fault(&version));
    many[1].content = slice_make(names, 2);
    assert_non_null(settings_version_fault(&version));
    many[1] = (struct settings_file){.name = many[0].name};
    assert_string_equal(settings_version_fault(&version), "two files have one name");
    version = (struct settings_version){.text = {(const uint8_t *)names, SETTINGS_TEXT_MAX + 1}};
    assert_non_null(settings_version_fault(&version));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(a_torn_one_is_none),
        cmocka_unit_test(names_of_files),
        cmocka_unit_test(bounds_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
