/* SPDX-License-Identifier: Apache-2.0
 *
 * Keyed hashing for tables whose keys strangers choose (SipHash-1-3, Aumasson and Bernstein).
 */
#ifndef HOLDFAST_BASE_HASH_H
#define HOLDFAST_BASE_HASH_H

#include "base/slice.h"

struct hash_key {
    uint64_t k0;
    uint64_t k1;
};

uint64_t hash_bytes(struct hash_key key, struct slice bytes);
/* ASCII case folded, for domains and addresses. */
uint64_t hash_bytes_fold(struct hash_key key, struct slice bytes);

#endif
