/* SPDX-License-Identifier: Apache-2.0
 *
 * The link by which edge-in asks for connections: what one side says the other hears, and nonsense
 * is told apart, its descriptors closed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "app/dial.h"
#include "sys/fdpass.h"

#include <fcntl.h>
#include <unistd.h>

static int next_free(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(fd);
    return fd;
}

static void requests_and_answers_pass(void **state)
{
    (void)state;
    int ends[2];
    struct dial_answer answer;
    struct dial_request request;
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    assert_int_equal(dial_receive(ends[1], &request), ERROR_AGAIN);
    assert_int_equal(dial_ask(ends[0], 4711, SLICE_LITERAL("clamav")), ERROR_NONE);
    assert_int_equal(dial_ask(ends[0], 4712, SLICE_EMPTY), ERROR_NONE);
    assert_int_equal(dial_receive(ends[1], &request), ERROR_NONE);
    assert_int_equal(request.token, 4711);
    assert_string_equal(request.name, "clamav");
    assert_int_equal(dial_receive(ends[1], &request), ERROR_NONE);
    assert_string_equal(request.name, "");
    const struct dial_answer good = {4711, ERROR_NONE, STDIN_FILENO, ""},
                             none = {4712, ERROR_MISSING, -1, "it has gone"};
    assert_int_equal(dial_answer(ends[1], &good), ERROR_NONE);
    assert_int_equal(dial_answer(ends[1], &none), ERROR_NONE);
    assert_int_equal(dial_answered(ends[0], &answer), ERROR_NONE);
    assert_int_equal(answer.token, 4711);
    assert_int_equal(answer.error, ERROR_NONE);
    assert_true(answer.fd > STDERR_FILENO);
    assert_string_equal(answer.problem, "");
    close(answer.fd);
    assert_int_equal(dial_answered(ends[0], &answer), ERROR_NONE);
    assert_int_equal(answer.error, ERROR_MISSING);
    assert_int_equal(answer.fd, -1);
    assert_string_equal(answer.problem, "it has gone");
    assert_int_equal(dial_answered(ends[0], &answer), ERROR_AGAIN);
    close(ends[0]);
    assert_int_equal(dial_receive(ends[1], &request), ERROR_CLOSED);
    close(ends[1]);
}

static void nonsense_is_told_apart(void **state)
{
    (void)state;
    uint8_t long_one[8 + 4 + DIAL_NAME_MAX + 1] = "12345678\0\1\0\0"; /* 256 bytes of name */
    memset(long_one + 12, 'x', DIAL_NAME_MAX + 1);
    const struct slice wrong[] = {
        SLICE_LITERAL("x"),
        SLICE_LITERAL("12345678"),
        SLICE_LITERAL("12345678\6\0\0\0clam"),
        SLICE_LITERAL("12345678\4\0\0\0clamav"),
        slice_make(long_one, sizeof(long_one)),
    };
    int ends[2];
    struct dial_answer answer;
    struct dial_request request;
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    int before = next_free();
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(fdpass_send(ends[0], wrong[i], NULL, 0), ERROR_NONE);
        assert_int_equal(dial_receive(ends[1], &request), ERROR_INVALID);
    }
    const int two[] = {STDIN_FILENO, STDERR_FILENO};
    assert_int_equal(fdpass_send(ends[0], SLICE_LITERAL("12345678\1\0\0\0a"), two, 1), ERROR_NONE);
    assert_int_equal(dial_receive(ends[1], &request), ERROR_INVALID);
    assert_int_equal(fdpass_send(ends[1], SLICE_LITERAL("12345678\0\0\0\0\0"), two, 2), ERROR_NONE);
    assert_int_equal(dial_answered(ends[0], &answer), ERROR_INVALID);
    /* Said to be there, and is not; and the other way round. */
    assert_int_equal(fdpass_send(ends[1], SLICE_LITERAL("12345678\0\0\0\0\0"), NULL, 0),
                     ERROR_NONE);
    assert_int_equal(dial_answered(ends[0], &answer), ERROR_INVALID);
    assert_int_equal(fdpass_send(ends[1], SLICE_LITERAL("12345678\6\0\0\0\0"), two, 1), ERROR_NONE);
    assert_int_equal(dial_answered(ends[0], &answer), ERROR_INVALID);
    /* No words, and words that are none. */
    assert_int_equal(fdpass_send(ends[1], SLICE_LITERAL("12345678\6"), NULL, 0), ERROR_NONE);
    assert_int_equal(dial_answered(ends[0], &answer), ERROR_INVALID);
    assert_int_equal(fdpass_send(ends[1], SLICE_LITERAL("12345678\6\2\0\0\0a"), NULL, 0),
                     ERROR_NONE);
    assert_int_equal(dial_answered(ends[0], &answer), ERROR_INVALID);
    assert_int_equal(next_free(), before);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_and_answers_pass),
        cmocka_unit_test(nonsense_is_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
