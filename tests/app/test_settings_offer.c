/* SPDX-License-Identifier: Apache-2.0
 *
 * The link by which helper gives the keeper a version of the settings: what one side says the other
 * hears, and nonsense is told apart, its descriptors closed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "app/settings_offer.h"
#include "sys/fdpass.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static int next_free(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(fd);
    return fd;
}

static void offers_and_results_pass(void **state)
{
    (void)state;
    int ends[2], fd;
    uint64_t number;
    struct settings_result result;
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    assert_int_equal(settings_offer_receive(ends[1], &number, &fd), ERROR_AGAIN);
    assert_int_equal(settings_offer_send(ends[0], 17, STDIN_FILENO), ERROR_NONE);
    assert_int_equal(settings_offer_receive(ends[1], &number, &fd), ERROR_NONE);
    assert_int_equal(number, 17);
    assert_true(fd > STDERR_FILENO);
    close(fd);
    struct settings_result refused = {17, SETTINGS_REFUSED, ""};
    memset(refused.problem, 'x', SETTINGS_PROBLEM_MAX);
    assert_int_equal(settings_result_send(ends[1], &refused), ERROR_NONE);
    assert_int_equal(settings_result_receive(ends[0], &result), ERROR_NONE);
    assert_int_equal(result.number, 17);
    assert_int_equal(result.outcome, SETTINGS_REFUSED);
    assert_string_equal(result.problem, refused.problem);
    close(ends[0]);
    assert_int_equal(settings_offer_receive(ends[1], &number, &fd), ERROR_CLOSED);
    close(ends[1]);
}

static void nonsense_is_told_apart(void **state)
{
    (void)state;
    int ends[2], fd;
    uint64_t number;
    struct settings_result result;
    const int two[] = {STDIN_FILENO, STDIN_FILENO};
    assert_int_equal(fdpass_pair(ends), ERROR_NONE);
    int before = next_free();
    static const struct {
        struct slice bytes;
        size_t descriptors;
    } offers[] = {{{(const uint8_t *)"\1\0\0\0\0\0\0\0", 8}, 0},
                  {{(const uint8_t *)"\1\0\0\0\0\0\0\0", 8}, 2},
                  {{(const uint8_t *)"\1\0\0\0\0\0\0", 7}, 1},
                  {{(const uint8_t *)"\1\0\0\0\0\0\0\200", 8}, 1},
                  {{(const uint8_t *)"\1\0\0\0\0\0\0\0x", 9}, 1}};
    for (size_t i = 0; i < sizeof(offers) / sizeof(offers[0]); i++) {
        assert_int_equal(fdpass_send(ends[0], offers[i].bytes, two, offers[i].descriptors),
                         ERROR_NONE);
        assert_int_equal(settings_offer_receive(ends[1], &number, &fd), ERROR_INVALID);
        assert_int_equal(next_free(), before);
    }
    static const struct slice results[] = {
        {(const uint8_t *)"\1\0\0\0\0\0\0\0\4\0\0\0\0", 13},   /* no such outcome */
        {(const uint8_t *)"\1\0\0\0\0\0\0\0\1\1\0\0\0", 13},   /* no text, though it is counted */
        {(const uint8_t *)"\1\0\0\0\0\0\0\0\1\0\0\0\0x", 14}}; /* more than there should be */
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
        assert_int_equal(fdpass_send(ends[0], results[i], NULL, 0), ERROR_NONE);
        assert_int_equal(settings_result_receive(ends[1], &result), ERROR_INVALID);
    }
    assert_int_equal(fdpass_send(ends[0], slice_make("\1\0\0\0\0\0\0\0\1\0\0\0\0", 13), two, 1),
                     ERROR_NONE);
    assert_int_equal(settings_result_receive(ends[1], &result), ERROR_INVALID);
    assert_int_equal(next_free(), before);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offers_and_results_pass),
        cmocka_unit_test(nonsense_is_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
