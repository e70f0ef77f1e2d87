/* SPDX-License-Identifier: Apache-2.0
 *
 * The C library's allocations, wrapped by the linker (--wrap), with one that fails.
 */
#ifndef HOLDFAST_TESTS_FAILING_MEMORY_H
#define HOLDFAST_TESTS_FAILING_MEMORY_H

#include <stdbool.h>

/* The allocation behind `count` good ones fails, and only that; below 0 none does. They are counted
 * from here on. */
void memory_fail_at(long count);
/* The one that was to fail has done so. */
bool memory_has_failed(void);
/* None fails or is counted any more; memory_has_failed(). */
bool memory_fail_never(void);
/* Those counted since memory_fail_at(), the one that failed included. */
long memory_counted(void);
/* Only an allocation for which this holds is counted and may fail; NULL: each. It is asked on the
 * thread that allocates, while memory_fail_at() is in force; on other threads it must not hold. */
void memory_count_if(bool (*counts)(void));

#endif
