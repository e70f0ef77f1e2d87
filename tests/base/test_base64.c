/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base64.h"

/* RFC 4648 section 10 */
static void known_answers(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        struct buffer buffer;
        buffer_init(&buffer, 0);
        base64_encode(&buffer, slice_from_text(pairs[i][0]));
        assert_true(slice_equal(buffer_slice(&buffer), slice_from_text(pairs[i][1])));
        buffer_clear(&buffer);
        assert_int_equal(base64_decode(&buffer, slice_from_text(pairs[i][1])), ERROR_NONE);
        assert_true(slice_equal(buffer_slice(&buffer), slice_from_text(pairs[i][0])));
        buffer_done(&buffer);
    }
}

static void all_bytes_round_trip(void **state)
{
    (void)state;
    uint8_t bytes[256];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 167 + 13);
    }
    for (size_t length = 0; length <= sizeof(bytes); length++) {
        struct buffer text, back;
        buffer_init(&text, 0);
        buffer_init(&back, 0);
        base64_encode(&text, slice_make(bytes, length));
        assert_int_equal(text.length, BASE64_LENGTH(length));
        assert_int_equal(base64_decode(&back, buffer_slice(&text)), ERROR_NONE);
        assert_true(slice_equal(buffer_slice(&back), slice_make(bytes, length)));
        buffer_done(&text);
        buffer_done(&back);
    }
}

static void malformed_text_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "Z",    "Zg",   "Zg=",  "Zg=g",     "=Zg=",     "Z===",     "Zm9v\n",
        "Zm 9", "Zh==", "Zm9=", "Zg==Zg==", "Zm9vY*==", "Zm9v====", "Zm-_"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct buffer buffer;
        buffer_init(&buffer, 0);
        buffer_append_text(&buffer, "before");
        assert_int_equal(base64_decode(&buffer, slice_from_text(wrong[i])), ERROR_INVALID);
        assert_int_equal(buffer.length, 6);
        buffer_done(&buffer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(all_bytes_round_trip),
        cmocka_unit_test(malformed_text_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
