/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "service/control_frame.h"

static void feed(struct control_reader *reader, struct slice bytes)
{
    while (bytes.length > 0) {
        size_t room;
        uint8_t *space = control_reader_space(reader, &room);
        assert_non_null(space);
        assert_true(room > 0);
        size_t length = bytes.length < room ? bytes.length : room;
        memcpy(space, bytes.data, length);
        control_reader_filled(reader, length);
        bytes = slice_skip(bytes, length);
    }
}

static void frames_survive_any_cut(void **state)
{
    (void)state;
    struct buffer out;
    buffer_init(&out, 0);
    assert_int_equal(control_put_row(&out, json_pack("{ss}", "id", "1")), ERROR_NONE);
    assert_int_equal(control_put_progress(&out, 1, 2), ERROR_NONE);
    assert_int_equal(control_put_end(&out, CONTROL_NOTHING_MATCHED, "nothing matched", true),
                     ERROR_NONE);
    for (size_t step = 1; step <= out.length; step++) {
        struct control_reader reader;
        control_reader_init(&reader);
        const char *keys[] = {"row", "progress", "end"};
        size_t seen = 0;
        for (size_t at = 0; at < out.length; at += step) {
            feed(&reader, slice_take(slice_skip(buffer_slice(&out), at), step));
            json_t *object;
            enum error error;
            while ((error = control_reader_next(&reader, &object)) == ERROR_NONE) {
                assert_true(seen < 3);
                assert_non_null(json_object_get(object, keys[seen++]));
                json_decref(object);
            }
            assert_int_equal(error, ERROR_AGAIN);
        }
        assert_int_equal(seen, 3);
        control_reader_done(&reader);
    }
    buffer_done(&out);
}

static enum error next_of(struct slice bytes)
{
    struct control_reader reader;
    control_reader_init(&reader);
    feed(&reader, bytes);
    json_t *object;
    enum error error = control_reader_next(&reader, &object);
    if (error == ERROR_NONE) {
        json_decref(object);
    }
    control_reader_done(&reader);
    return error;
}

static void broken_frames_are_refused(void **state)
{
    (void)state;
    assert_int_equal(next_of(SLICE_LITERAL("\0\0\0\0")), ERROR_LIMIT);
    assert_int_equal(next_of(SLICE_LITERAL("\0\x10\0\1")), ERROR_LIMIT);
    assert_int_equal(next_of(SLICE_LITERAL("\0\x10\0\0")), ERROR_AGAIN);
    assert_int_equal(next_of(SLICE_LITERAL("\xff\xff\xff\xff")), ERROR_LIMIT);
    assert_int_equal(next_of(SLICE_LITERAL("\0\0\0\2[]")), ERROR_INVALID);
    assert_int_equal(next_of(SLICE_LITERAL("\0\0\0\2{x")), ERROR_INVALID);
    assert_int_equal(next_of(SLICE_LITERAL("\0\0\0\x0d{\"a\":1,\"a\":2}")), ERROR_INVALID);
    assert_int_equal(next_of(SLICE_LITERAL("\0\0\0\2{}")), ERROR_NONE);
}

static void largest_frame_passes_and_a_larger_one_is_not_made(void **state)
{
    (void)state;
    struct buffer text;
    buffer_init(&text, 0);
    while (text.length < CONTROL_FRAME_MAX) {
        buffer_append_text(&text, "0123456789abcdef");
    }
    struct buffer out;
    buffer_init(&out, 0);
    buffer_append_text(&out, "before");
    json_t *object = json_object();
    json_object_set_new(object, "a", control_string(buffer_slice(&text)));
    assert_int_equal(control_put(&out, object), ERROR_LIMIT);
    assert_int_equal(out.length, 6);
    /* {"a":""} takes 8 bytes */
    json_object_set_new(object, "a",
                        control_string(slice_take(buffer_slice(&text), CONTROL_FRAME_MAX - 8)));
    assert_int_equal(control_put(&out, object), ERROR_NONE);
    assert_int_equal(out.length, 6 + 4 + CONTROL_FRAME_MAX);
    assert_int_equal(next_of(slice_skip(buffer_slice(&out), 6)), ERROR_NONE);
    json_decref(object);
    buffer_done(&out);
    buffer_done(&text);
}

static void put_keeps_the_bound_of_its_buffer(void **state)
{
    (void)state;
    struct buffer out;
    buffer_init(&out, 10);
    assert_int_equal(control_put_progress(&out, 1, 2), ERROR_LIMIT);
    assert_int_equal(out.length, 0);
    buffer_done(&out);
    buffer_init(&out, 0);
    assert_int_equal(control_put_row(&out, NULL), ERROR_MEMORY);
    buffer_done(&out);
}

static void check_text(struct slice bytes, const char *text)
{
    json_t *string = control_string(bytes);
    assert_non_null(string);
    assert_string_equal(json_string_value(string), text);
    json_decref(string);
}

static void any_bytes_become_a_string(void **state)
{
    (void)state;
    check_text(SLICE_EMPTY, "");
    check_text(SLICE_LITERAL("J\xc3\xbcrgen \xe2\x82\xac \xf0\x9f\x93\xa7"),
               "J\xc3\xbcrgen \xe2\x82\xac \xf0\x9f\x93\xa7");
    check_text(SLICE_LITERAL("a\0b"), "a\xef\xbf\xbd"
                                      "b");
    check_text(SLICE_LITERAL("\xe9t\xe9"), "\xef\xbf\xbdt\xef\xbf\xbd");
    check_text(SLICE_LITERAL("\xc0\xaf"), "\xef\xbf\xbd\xef\xbf\xbd");
    check_text(SLICE_LITERAL("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    check_text(SLICE_LITERAL("\xf4\x90\x80\x80"),
               "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    json_t *null = control_string_or_null(SLICE_EMPTY);
    assert_true(json_is_null(null));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_survive_any_cut),
        cmocka_unit_test(broken_frames_are_refused),
        cmocka_unit_test(largest_frame_passes_and_a_larger_one_is_not_made),
        cmocka_unit_test(put_keeps_the_bound_of_its_buffer),
        cmocka_unit_test(any_bytes_become_a_string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
