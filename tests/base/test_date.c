/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/date.h"

static void known_dates(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } known[] = {
        {0, "Thu, 1 Jan 1970 00:00:00 +0000"},
        {-1, "Wed, 31 Dec 1969 23:59:59 +0000"},
        {951782400000, "Tue, 29 Feb 2000 00:00:00 +0000"},
        {1795304960123, "Sat, 21 Nov 2026 23:49:20 +0000"},
        {4107542400000, "Mon, 1 Mar 2100 00:00:00 +0000"},
        {INT64_MAX, "Fri, 31 Dec 9999 23:59:59 +0000"},
        {INT64_MIN, "Sat, 1 Jan 0000 00:00:00 +0000"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        char text[DATE_TEXT_SIZE];
        date_to_text(known[i].ms, text);
        assert_string_equal(text, known[i].text);
    }
}

static void agrees_with_the_c_library(void **state)
{
    (void)state;
    for (int64_t seconds = -4000000000LL; seconds < 8000000000LL; seconds += 7654321) {
        char text[DATE_TEXT_SIZE], expected[DATE_TEXT_SIZE];
        time_t time = (time_t)seconds;
        struct tm tm;
        gmtime_r(&time, &tm);
        strftime(expected, sizeof(expected), "%a, X %b %Y %H:%M:%S +0000", &tm);
        char full[80];
        snprintf(full, sizeof(full), "%.5s%d%s", expected, tm.tm_mday, expected + 6);
        date_to_text(seconds * 1000, text);
        assert_string_equal(text, full);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_dates),
        cmocka_unit_test(agrees_with_the_c_library),
    };
    return cmocka_run_group_tests_name("date", tests, NULL, NULL);
}
