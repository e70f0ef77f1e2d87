/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/id.h"

static void text_round_trip(void **state)
{
    (void)state;
    struct message_id id = {0x0123456789abcdefULL, 0xfedcba9876543210ULL};
    char text[ID_TEXT_LENGTH + 1];
    id_to_text(id, text);
    struct message_id back;
    assert_true(id_from_text(slice_from_text(text), &back));
    assert_true(id_equal(id, back));
}

static void text_order_is_time_order(void **state)
{
    (void)state;
    struct id_maker maker = {.node = 7, .start = 0xffffffff, .counter = 0xffffffff};
    char first[ID_TEXT_LENGTH + 1], second[ID_TEXT_LENGTH + 1];
    id_to_text(id_make(&maker, 1000), first);
    id_to_text(id_make(&maker, 1001), second);
    assert_true(strcmp(first, second) < 0);
}

static void refuses_what_is_no_id(void **state)
{
    (void)state;
    struct message_id id;
    assert_false(id_from_text(SLICE_LITERAL(""), &id));
    assert_false(id_from_text(SLICE_LITERAL("0000000000000000000000000"), &id));
    assert_false(id_from_text(SLICE_LITERAL("80000000000000000000000000"), &id));
    assert_false(id_from_text(SLICE_LITERAL("0000000000000000000000000u"), &id));
    assert_false(id_from_text(SLICE_LITERAL("0000000000000000000000000I"), &id));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_round_trip),
        cmocka_unit_test(text_order_is_time_order),
        cmocka_unit_test(refuses_what_is_no_id),
    };
    return cmocka_run_group_tests_name("id", tests, NULL, NULL);
}
