// SPDX-License-Identifier: Apache-2.0
//
// A wall clock that is wrong, and can be put wrong while a program runs: preloaded (ld.so(8)), it
// adds to the time what the file SKEW_FILE says, a number of seconds as eight bytes in the
// machine's order. The file is mapped at the start, so this works in a process that opens no files
// any more. Time that only passes (CLOCK_MONOTONIC) is left alone.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*real_clock_gettime)(clockid_t clock, struct timespec *ret_now);
static const volatile int64_t *skew_s;

__attribute__((constructor)) static void prepare(void)
{
    *(void **)&real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("SKEW_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    void *at = mmap(NULL, sizeof *skew_s, PROT_READ, MAP_SHARED, fd, 0);
    if (real_clock_gettime == NULL || at == MAP_FAILED) {
        abort();
    }
    skew_s = at;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *ret_now)
{
    if (real_clock_gettime == NULL) { // another library's constructor came first
        prepare();
    }
    int result = real_clock_gettime(clock, ret_now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        ret_now->tv_sec += *skew_s;
    }
    return result;
}

int gettimeofday(struct timeval *restrict ret_now, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    *ret_now = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return result;
}

time_t time(time_t *ret_now)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (ret_now != NULL) {
        *ret_now = now.tv_sec;
    }
    return now.tv_sec;
}
