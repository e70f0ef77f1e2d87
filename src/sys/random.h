/* SPDX-License-Identifier: Apache-2.0
 *
 * Randomness from the kernel. Has a simulated twin (tests/sim/random_sim.c), seeded.
 */
#ifndef HOLDFAST_SYS_RANDOM_H
#define HOLDFAST_SYS_RANDOM_H

#include <stddef.h>
#include <stdint.h>

void random_bytes(void *ret_bytes, size_t length);
uint64_t random_u64(void);
/* Uniform in [0, bound); bound > 0. */
uint64_t random_below(uint64_t bound);

#endif
