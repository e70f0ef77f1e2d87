/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/clock.h"

#include <assert.h>
#include <time.h>

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    int result = clock_gettime(clock, &now);
    assert(result == 0);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_wall_ms(void)
{
    return now_ns(CLOCK_REALTIME) / 1000000;
}

int64_t clock_steady_ms(void)
{
    return now_ns(CLOCK_BOOTTIME) / 1000000;
}

int64_t clock_steady_ns(void)
{
    return now_ns(CLOCK_BOOTTIME);
}
