/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes that need not outlive the process and are too many for its memory: strings of them in one
 * file without a name, whose blocks are used again. The descriptor is given, so a process without a
 * file system can have it. Nothing is ever synced. One thread.
 */
#ifndef HOLDFAST_SYS_SCRATCH_H
#define HOLDFAST_SYS_SCRATCH_H

#include "base/error.h"
#include "base/slice.h"

#include <stdint.h>

struct scratch;

enum { SCRATCH_BLOCK_BYTES = 64 << 10 };

/* One string. To be zeroed at first, and cleared at last. */
struct scratch_text {
    uint32_t *blocks;
    uint32_t block_count;
    uint64_t length;
};

/* Takes the descriptor over, also on failure. NULL: memory. */
struct scratch *scratch_new(int fd);
void scratch_free(struct scratch *scratch); /* NULL is allowed */
/* ERROR_SPACE, ERROR_IO, ERROR_MEMORY: the string is then what it was, or a part longer. */
enum error scratch_append(struct scratch *scratch, struct scratch_text *text,
                          struct slice bytes) MUST_CHECK;
/* At most `size` bytes from `offset`, not beyond a block's end; 0 at the string's end. */
enum error scratch_read(struct scratch *scratch, const struct scratch_text *text, uint64_t offset,
                        void *ret_bytes, size_t size, size_t *ret_length) MUST_CHECK;
/* Its blocks are free; the file is made empty with the last of them. */
void scratch_clear(struct scratch *scratch, struct scratch_text *text);

#endif
