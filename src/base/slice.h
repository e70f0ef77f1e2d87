/* SPDX-License-Identifier: Apache-2.0
 *
 * A borrowed run of bytes. It owns nothing; whoever hands one out says how long it is valid.
 */
#ifndef HOLDFAST_BASE_SLICE_H
#define HOLDFAST_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data;
    size_t length;
};

#define SLICE_EMPTY ((struct slice){NULL, 0})
#define SLICE_LITERAL(text) ((struct slice){(const uint8_t *)(text), sizeof(text) - 1})
/* For printf: "%.*s", SLICE_PRINT(s) */
#define SLICE_PRINT(s) (int)(s).length, (const char *)(s).data

static inline struct slice slice_make(const void *data, size_t length)
{
    return (struct slice){data, length};
}

static inline struct slice slice_from_text(const char *text)
{
    return (struct slice){(const uint8_t *)text, text != NULL ? strlen(text) : 0};
}

/* The part from offset on; empty when offset lies beyond the end. */
static inline struct slice slice_skip(struct slice s, size_t offset)
{
    return offset >= s.length ? SLICE_EMPTY : (struct slice){s.data + offset, s.length - offset};
}

static inline struct slice slice_take(struct slice s, size_t length)
{
    return (struct slice){s.data, length < s.length ? length : s.length};
}

bool slice_equal(struct slice a, struct slice b);
/* ASCII case folded comparisons. */
bool slice_equal_fold(struct slice a, struct slice b);
bool slice_starts_fold(struct slice s, struct slice prefix);
/* `*` in the pattern stands for any run of bytes; ASCII case is folded. The time is bounded by the
 * product of both lengths. */
bool slice_matches_fold(struct slice s, struct slice pattern);
/* The index of the first byte c, or s.length. */
size_t slice_find(struct slice s, uint8_t c);
/* Index of the last byte c, or s.length. */
size_t slice_find_last(struct slice s, uint8_t c);
struct slice slice_trim(struct slice s); /* spaces and tabs at both ends */
/* Decimal digits only, the whole slice, no sign; false on anything else or overflow. */
bool slice_to_u64(struct slice s, uint64_t *ret_value);

#endif
