/* SPDX-License-Identifier: Apache-2.0
 *
 * Included before all else where the C library's allocations are wrapped by the linker (--wrap) and
 * some fail: what belongs to the world, and not to the program, goes past the wrapping.
 */
#ifndef HOLDFAST_TESTS_STURDY_MEMORY_H
#define HOLDFAST_TESTS_STURDY_MEMORY_H

#include <stdlib.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);

#define malloc __real_malloc
#define calloc __real_calloc
#define realloc __real_realloc

#endif
