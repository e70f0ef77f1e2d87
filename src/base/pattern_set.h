/* SPDX-License-Identifier: Apache-2.0
 *
 * Many patterns of names or addresses, asked whether one of them matches: "ann@example.com",
 * "*@example.com" and "*.example.com" are found by hash, whatever else has a `*` is tried one by
 * one. ASCII case is folded.
 */
#ifndef HOLDFAST_BASE_PATTERN_SET_H
#define HOLDFAST_BASE_PATTERN_SET_H

#include "base/hash.h"
#include "base/slice.h"

struct pattern_set;

/* The patterns themselves are not copied. NULL: memory. */
struct pattern_set *pattern_set_new(struct hash_key key, const struct slice *patterns,
                                    size_t count);
void pattern_set_free(struct pattern_set *set);
bool pattern_set_matches(const struct pattern_set *set, struct slice text);

#endif
