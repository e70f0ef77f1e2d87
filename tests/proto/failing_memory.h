/* SPDX-License-Identifier: Apache-2.0
 *
 * The C library's allocations, wrapped by the linker (--wrap), with one that fails.
 */
#ifndef HOLDFAST_TESTS_FAILING_MEMORY_H
#define HOLDFAST_TESTS_FAILING_MEMORY_H

#include <stdbool.h>

/* The allocation behind `count` good ones fails, and only that. */
void memory_fail_at(long count);
/* True: the one that was to fail has done so. */
bool memory_fail_never(void);

#endif
