/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/random.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

enum { ENTROPY_MAX = 256 }; /* what getentropy(3) gives at once */

void random_bytes(void *ret_bytes, size_t length)
{
    uint8_t *at = ret_bytes;
    while (length > 0) {
        size_t part = length < ENTROPY_MAX ? length : ENTROPY_MAX;
        if (getentropy(at, part) != 0) {
            /* No weak numbers: ids and nonces rest on this. Every supported kernel has the call. */
            abort();
        }
        at += part;
        length -= part;
    }
}

uint64_t random_u64(void)
{
    uint64_t value;
    random_bytes(&value, sizeof(value));
    return value;
}

uint64_t random_below(uint64_t bound)
{
    assert(bound > 0);
    /* Values from the last, incomplete run of `bound` would make the first ones more likely. */
    uint64_t beyond = -bound % bound;
    uint64_t value = random_u64();
    while (value < beyond) {
        value = random_u64();
    }
    return value % bound;
}
