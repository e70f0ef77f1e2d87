/* SPDX-License-Identifier: Apache-2.0
 *
 * A bounded set of keys that were seen of late: when it is full a new one takes the place of
 * another. For what may be forgotten: a key that was never put is not found, one that was put may
 * not be found any more.
 */
#ifndef HOLDFAST_RELAY_KNOWN_H
#define HOLDFAST_RELAY_KNOWN_H

#include <stdbool.h>
#include <stdint.h>

enum { KNOWN_MAX = 1 << 16 }; /* half a megabyte at most, taken as it fills */

struct known {
    uint64_t *keys; /* 0: free */
    uint32_t room;  /* a power of two, or 0 */
    uint32_t used;
};

/* All zero is the empty set. */
void known_done(struct known *known);
/* Keys are hashes. Without memory for it nothing is remembered. */
void known_put(struct known *known, uint64_t key);
bool known_has(const struct known *known, uint64_t key);

#endif
