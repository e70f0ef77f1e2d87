/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/crc32c.h"

/* RFC 3720 appendix B.4. */
static void it_is_that_of_the_rfc(void **state)
{
    (void)state;
    uint8_t bytes[32] = {0};
    assert_int_equal(crc32c(0, slice_make(bytes, sizeof(bytes))), 0x8a9136aa);
    for (uint8_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = i;
    }
    assert_int_equal(crc32c(0, slice_make(bytes, sizeof(bytes))), 0x46dd794e);
    assert_int_equal(crc32c(0, SLICE_LITERAL("123456789")), 0xe3069283);
    assert_int_equal(crc32c(5, SLICE_EMPTY), 5);
}

static uint32_t by_definition(uint32_t crc, struct slice bytes)
{
    crc = ~crc;
    for (size_t i = 0; i < bytes.length; i++) {
        crc ^= bytes.data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
        }
    }
    return ~crc;
}

/* Whatever is worked on at once, and wherever it begins. */
static void each_length_is_right(void **state)
{
    (void)state;
    enum { LONGEST = 4000, SHIFTS = 8 };
    uint8_t bytes[LONGEST + SHIFTS];
    uint32_t crc = 1;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        crc = crc * 1103515245 + 12345;
        bytes[i] = (uint8_t)(crc >> 16);
    }
    for (size_t length = 0; length < LONGEST; length += length < 20 ? 1 : 17) {
        struct slice slice = slice_make(bytes + length % SHIFTS, length);
        assert_int_equal(crc32c(crc, slice), by_definition(crc, slice));
        crc = crc32c(crc, slice);
    }
}

static void parts_make_the_whole(void **state)
{
    (void)state;
    uint8_t bytes[3000];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * i >> 3);
    }
    struct slice all = slice_make(bytes, sizeof(bytes));
    for (size_t at = 0; at <= sizeof(bytes); at += 125) {
        uint32_t first = crc32c(0, slice_take(all, at));
        assert_int_equal(crc32c(first, slice_skip(all, at)), crc32c(0, all));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_that_of_the_rfc),
        cmocka_unit_test(each_length_is_right),
        cmocka_unit_test(parts_make_the_whole),
    };
    return cmocka_run_group_tests_name("crc32c", tests, NULL, NULL);
}
