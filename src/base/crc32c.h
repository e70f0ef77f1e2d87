/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC-32C (Castagnoli, RFC 3720 appendix B.4). Uses the processor's instruction where it has one.
 */
#ifndef HOLDFAST_BASE_CRC32C_H
#define HOLDFAST_BASE_CRC32C_H

#include "base/slice.h"

/* crc32c(0, all) equals crc32c(crc32c(0, first), rest). */
uint32_t crc32c(uint32_t crc, struct slice bytes);

#endif
