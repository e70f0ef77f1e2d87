/* SPDX-License-Identifier: Apache-2.0 */
#include "failing_memory.h"

#include <stdbool.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool armed;
static bool (*counts_if)(void);
static long counted, bad; /* the bad one's number; 0: none is bad */

void memory_fail_at(long count)
{
    bad = count < 0 ? 0 : count + 1;
    counted = 0;
    armed = true;
}

bool memory_has_failed(void)
{
    return bad > 0 && counted >= bad;
}

bool memory_fail_never(void)
{
    armed = false;
    return memory_has_failed();
}

long memory_counted(void)
{
    return counted;
}

void memory_count_if(bool (*counts)(void))
{
    counts_if = counts;
}

static bool allowed(void)
{
    return !armed || (counts_if != NULL && !counts_if()) || ++counted != bad;
}

void *__wrap_malloc(size_t size)
{
    return allowed() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return allowed() ? __real_calloc(count, size) : NULL;
}

void *__wrap_realloc(void *old, size_t size)
{
    return allowed() ? __real_realloc(old, size) : NULL;
}
