/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sys/log.h"

#include <unistd.h>

/* What is written to standard error meanwhile. */
struct capture {
    int saved;
    int reading;
    char text[16384];
    size_t length;
};

static void capture_begin(struct capture *capture)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    capture->saved = dup(STDERR_FILENO);
    capture->reading = ends[0];
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
}

static void capture_end(struct capture *capture)
{
    dup2(capture->saved, STDERR_FILENO);
    close(capture->saved);
    ssize_t length = read(capture->reading, capture->text, sizeof(capture->text) - 1);
    capture->length = length > 0 ? (size_t)length : 0;
    capture->text[capture->length] = '\0';
    close(capture->reading);
}

static void a_line_holds_whatever_the_values_hold(void **state)
{
    (void)state;
    struct capture capture;
    capture_begin(&capture);
    assert_int_equal(log_open(LOG_TO_STDERR, LOG_LEVEL_INFO, "core"), ERROR_NONE);
    log_event(LOG_LEVEL_INFO, "accepted", LOG_TEXT("sender", "ann@example.com"),
              LOG_TEXT("plain", "a b"), LOG_TEXT("empty", ""), LOG_NUMBER("bytes", -42),
              LOG_SLICE("bad", SLICE_LITERAL("x\r\ny=\"\\\x7f\xc3\0z")));
    capture_end(&capture);
    /* The time stands in front: 2026-01-01T00:00:00.000Z */
    assert_int_equal(capture.text[10], 'T');
    assert_int_equal(capture.text[23], 'Z');
    assert_string_equal(capture.text + 25,
                        "info core accepted sender=ann@example.com plain=\"a b\" empty=\"\" "
                        "bytes=-42 bad=\"x\\x0d\\x0ay=\\\"\\\\\\x7f\\xc3\\x00z\"\n");
}

static void levels_below_the_least_are_silent(void **state)
{
    (void)state;
    struct capture capture;
    capture_begin(&capture);
    assert_int_equal(log_open(LOG_TO_STDERR, LOG_LEVEL_WARNING, "core"), ERROR_NONE);
    log_event(LOG_LEVEL_INFO, "silent", LOG_NUMBER("n", 1));
    log_write(LOG_LEVEL_ERROR, "loud", NULL, 0);
    capture_end(&capture);
    assert_string_equal(capture.text + 25, "error core loud\n");
}

static void a_line_is_bounded_and_still_a_line(void **state)
{
    (void)state;
    static char big[100000];
    memset(big, '\n', sizeof(big) - 1);
    struct capture capture;
    capture_begin(&capture);
    assert_int_equal(log_open(LOG_TO_STDERR, LOG_LEVEL_INFO, "core"), ERROR_NONE);
    log_event(LOG_LEVEL_INFO, "big", LOG_TEXT("a", big), LOG_TEXT("b", big), LOG_TEXT("c", big));
    capture_end(&capture);
    assert_true(capture.length <= 4096);
    assert_ptr_equal(strchr(capture.text, '\n'), capture.text + capture.length - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_holds_whatever_the_values_hold),
        cmocka_unit_test(levels_below_the_least_are_silent),
        cmocka_unit_test(a_line_is_bounded_and_still_a_line),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
