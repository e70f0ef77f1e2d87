/* SPDX-License-Identifier: Apache-2.0 */
#include "base/date.h"

#include <stdio.h>

static const char *const weekdays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

enum { DAY_S = 86400, ERA_DAYS = 146097 }; /* an era is 400 years */
#define FIRST_S (-62167219200LL)           /* 0000-01-01 00:00:00 */
#define LAST_S 253402300799LL              /* 9999-12-31 23:59:59 */

void date_to_text(int64_t unix_ms, char ret_text[DATE_TEXT_SIZE])
{
    int64_t seconds = unix_ms / 1000 - (unix_ms % 1000 < 0);
    seconds = seconds < FIRST_S ? FIRST_S : seconds > LAST_S ? LAST_S : seconds;
    /* Days since 0000-03-01: years that begin in March have their leap day at the end. */
    int64_t days = seconds / DAY_S - (seconds % DAY_S < 0);
    int second = (int)(seconds - days * DAY_S);
    int weekday = (int)((days % 7 + 11) % 7); /* 1970-01-01 was a Thursday */
    int64_t shifted = days + 719468;
    int64_t era = (shifted < 0 ? shifted - (ERA_DAYS - 1) : shifted) / ERA_DAYS;
    int day_of_era = (int)(shifted - era * ERA_DAYS);
    int year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int march_month = (5 * day_of_year + 2) / 153;
    int day = day_of_year - (153 * march_month + 2) / 5 + 1;
    int month = march_month < 10 ? march_month + 2 : march_month - 10;
    int year = (int)(year_of_era + era * 400) + (month <= 1);
    snprintf(ret_text, DATE_TEXT_SIZE, "%s, %d %s %04d %02d:%02d:%02d +0000", weekdays[weekday],
             day, months[month], year, second / 3600, second / 60 % 60, second % 60);
}
