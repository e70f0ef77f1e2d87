/* SPDX-License-Identifier: Apache-2.0
 *
 * A header block taken apart, changed as filters ask, and put together.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "proto/header_list.h"

struct block {
    struct arena arena;
    struct header_list list;
};

static void take(struct block *block, const char *text)
{
    arena_init(&block->arena);
    assert_true(header_list_take(&block->list, slice_from_text(text), 1000, &block->arena));
}

/* That the block is this now, and that its length is known. */
static void is(struct block *block, const char *expected)
{
    struct buffer whole;
    buffer_init(&whole, 0);
    for (uint32_t i = 0; i < block->list.count; i++) {
        buffer_append(&whole, block->list.fields[i].whole);
    }
    assert_int_equal(whole.length, block->list.bytes);
    buffer_append(&whole, block->list.tail);
    buffer_put_u8(&whole, 0);
    assert_false(whole.failed);
    assert_string_equal((const char *)whole.data, expected);
    buffer_done(&whole);
    header_list_done(&block->list);
    arena_done(&block->arena);
}

static struct slice text(const char *words)
{
    return slice_from_text(words);
}

static void unchanged_fields_keep_their_bytes(void **state)
{
    (void)state;
    static const char *const blocks[] = {
        "A: b\r\nC:d\r\n e\r\n\tf\r\nG :\r\n\r\n",
        "From someone Mon\r\nA: b\r\n\r\n",
        "A: b\r\n",
        "\r\n",
        "",
        "A: b",
        ": b\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        struct block block;
        take(&block, blocks[i]);
        assert_false(block.list.changed);
        is(&block, blocks[i]);
    }
}

static void fields_have_names_and_values(void **state)
{
    (void)state;
    struct block block;
    take(&block, "From x\r\nSubject : a\r\n b\r\nB c: d\r\nE:\r\n\r\n");
    assert_int_equal(block.list.count, 4);
    assert_int_equal(block.list.fields[0].name.length, 0);
    assert_true(slice_equal(block.list.fields[1].name, text("Subject")));
    assert_true(slice_equal(header_field_value(&block.list.fields[1]), text(" a\r\n b")));
    assert_int_equal(block.list.fields[2].name.length, 0);
    assert_int_equal(header_field_value(&block.list.fields[3]).length, 0);
    assert_ptr_equal(header_list_find(&block.list, text("SUBJECT")), &block.list.fields[1]);
    assert_null(header_list_find(&block.list, text("C")));
    header_list_done(&block.list);
    arena_done(&block.arena);
}

static void fields_are_added_and_inserted(void **state)
{
    (void)state;
    struct block block;
    take(&block, "A: b\r\n\r\n");
    assert_true(header_list_add(&block.list, text("X"), text("1\n 2\r\n\t3"), true));
    assert_true(header_list_insert(&block.list, 0, text("Y"), text("4"), false));
    assert_true(header_list_insert(&block.list, 2, text("Z"), text(""), true));
    assert_true(header_list_insert(&block.list, 99, text("L"), text("5"), true));
    assert_true(block.list.changed);
    is(&block, "Y:4\r\nA: b\r\nZ: \r\nX: 1\r\n 2\r\n\t3\r\nL: 5\r\n\r\n");
}

static void fields_are_changed_and_removed_by_number(void **state)
{
    (void)state;
    struct block block;
    take(&block, "A: 1\r\nB: 2\r\na: 3\r\nA: 4\r\n\r\n");
    assert_true(header_list_change(&block.list, 2, text("A"), text("new"), true));
    assert_true(header_list_change(&block.list, 1, text("b"), text(""), true));
    assert_true(header_list_change(&block.list, 0, text("A"), text("first"), true));
    assert_true(header_list_change(&block.list, 9, text("A"), text(""), true));
    assert_true(header_list_change(&block.list, 9, text("A"), text("more"), true));
    is(&block, "A: first\r\na: new\r\nA: 4\r\nA: more\r\n\r\n");
}

static void the_own_field_is_nobodys_to_change(void **state)
{
    (void)state;
    struct block block;
    take(&block, "Received: theirs\r\n\r\n");
    assert_true(header_list_put_own(&block.list, text("Received: ours\r\n")));
    assert_true(header_list_change(&block.list, 1, text("Received"), text(""), true));
    assert_true(header_list_insert(&block.list, 1, text("B"), text("2"), true));
    assert_true(header_list_insert(&block.list, 0, text("A"), text("1"), true));
    is(&block, "A: 1\r\nReceived: ours\r\nB: 2\r\n\r\n");
}

static void more_than_fits_is_refused(void **state)
{
    (void)state;
    struct block block;
    char large[1001];
    memset(large, 'x', sizeof(large));
    take(&block, "A: b\r\n\r\n");
    assert_false(header_list_add(&block.list, text("X"), slice_make(large, 990), true));
    assert_true(header_list_add(&block.list, text("X"), slice_make(large, 980), true));
    assert_false(header_list_change(&block.list, 1, text("A"), slice_make(large, 20), true));
    header_list_done(&block.list);
    arena_done(&block.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unchanged_fields_keep_their_bytes),
        cmocka_unit_test(fields_have_names_and_values),
        cmocka_unit_test(fields_are_added_and_inserted),
        cmocka_unit_test(fields_are_changed_and_removed_by_number),
        cmocka_unit_test(the_own_field_is_nobodys_to_change),
        cmocka_unit_test(more_than_fits_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
