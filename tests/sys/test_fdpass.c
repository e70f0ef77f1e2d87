/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sys/fdpass.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static int receive_number(int end)
{
    char bytes[16];
    size_t length, count;
    int got[FDPASS_DESCRIPTORS_MAX];
    enum error error;
    do {
        error = fdpass_receive(end, bytes, sizeof(bytes), &length, got, &count);
        usleep(1000);
    } while (error == ERROR_AGAIN);
    if (error != ERROR_NONE || count != 2 || length != 4 || memcmp(bytes, "pair", 4) != 0) {
        return -1;
    }
    /* What came is the very pipe: write into it, and say so in the exit code. */
    return write(got[1], "hello", 5) == 5 && fcntl(got[0], F_GETFD) == FD_CLOEXEC ? 0 : -1;
}

static void descriptors_work_in_the_other_process(void **state)
{
    (void)state;
    int ends[2], pipes[2];
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        close(pipes[0]);
        close(pipes[1]);
        close(ends[0]);
        _exit(receive_number(ends[1]) == 0 ? 0 : 1);
    }
    close(ends[1]);
    assert_int_equal(fdpass_send(ends[0], SLICE_LITERAL("pair"), pipes, 2), ERROR_NONE);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    char bytes[8];
    assert_int_equal(read(pipes[0], bytes, sizeof(bytes)), 5);
    assert_memory_equal(bytes, "hello", 5);
    /* Its end is gone with it. */
    assert_int_equal(fdpass_send(ends[0], SLICE_LITERAL("x"), NULL, 0), ERROR_CLOSED);
    close(ends[0]);
    close(pipes[0]);
    close(pipes[1]);
}

static void messages_keep_their_bounds(void **state)
{
    (void)state;
    int ends[2], got[FDPASS_DESCRIPTORS_MAX];
    char bytes[16];
    size_t length, count;
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    assert_int_equal(fdpass_receive(ends[1], bytes, sizeof(bytes), &length, got, &count),
                     ERROR_AGAIN);
    assert_int_equal(fdpass_send(ends[0], SLICE_LITERAL("one"), NULL, 0), ERROR_NONE);
    assert_int_equal(fdpass_send(ends[0], SLICE_LITERAL("three"), NULL, 0), ERROR_NONE);
    assert_int_equal(fdpass_receive(ends[1], bytes, sizeof(bytes), &length, got, &count),
                     ERROR_NONE);
    assert_int_equal(length, 3);
    assert_int_equal(count, 0);
    assert_int_equal(fdpass_receive(ends[1], bytes, sizeof(bytes), &length, got, &count),
                     ERROR_NONE);
    assert_int_equal(length, 5);
    close(ends[0]);
    assert_int_equal(fdpass_receive(ends[1], bytes, sizeof(bytes), &length, got, &count),
                     ERROR_CLOSED);
    close(ends[1]);
}

static void a_message_too_long_is_refused_and_leaks_nothing(void **state)
{
    (void)state;
    int ends[2], got[FDPASS_DESCRIPTORS_MAX];
    char bytes[4];
    size_t length, count;
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    int before = open_descriptors();
    int passed[3] = {0, 1, 2};
    assert_int_equal(fdpass_send(ends[0], SLICE_LITERAL("longer"), passed, 3), ERROR_NONE);
    assert_int_equal(fdpass_receive(ends[1], bytes, sizeof(bytes), &length, got, &count),
                     ERROR_LIMIT);
    assert_int_equal(open_descriptors(), before);
    close(ends[0]);
    close(ends[1]);
}

static void a_full_socket_says_again(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    enum error error = ERROR_NONE;
    for (int i = 0; i < 100000 && error == ERROR_NONE; i++) {
        error = fdpass_send(ends[0], SLICE_LITERAL("some bytes"), NULL, 0);
    }
    assert_int_equal(error, ERROR_AGAIN);
    close(ends[0]);
    close(ends[1]);
}

static void descriptors_that_nobody_wants_are_closed(void **state)
{
    (void)state;
    int ends[2], pipes[2];
    char bytes[16];
    size_t length = 0;
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    assert_int_equal(pipe(pipes), 0);
    int before = open_descriptors();
    assert_int_equal(fdpass_send(ends[0], SLICE_LITERAL("pair"), pipes, 2), ERROR_NONE);
    assert_int_equal(fdpass_send(ends[0], SLICE_LITERAL("none"), NULL, 0), ERROR_NONE);
    assert_int_equal(fdpass_receive_bytes(ends[1], bytes, sizeof(bytes), &length), ERROR_CORRUPT);
    assert_int_equal(open_descriptors(), before);
    assert_int_equal(fdpass_receive_bytes(ends[1], bytes, sizeof(bytes), &length), ERROR_NONE);
    assert_int_equal(length, 4);
    assert_memory_equal(bytes, "none", 4);
    assert_int_equal(fdpass_receive_bytes(ends[1], bytes, sizeof(bytes), &length), ERROR_AGAIN);
    for (int i = 0; i < 2; i++) {
        close(ends[i]);
        close(pipes[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_work_in_the_other_process),
        cmocka_unit_test(messages_keep_their_bounds),
        cmocka_unit_test(a_message_too_long_is_refused_and_leaks_nothing),
        cmocka_unit_test(a_full_socket_says_again),
        cmocka_unit_test(descriptors_that_nobody_wants_are_closed),
    };
    return cmocka_run_group_tests_name("fdpass", tests, NULL, NULL);
}
