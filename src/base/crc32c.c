/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crc32c.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static uint32_t crc_by_bit(uint32_t crc, const uint8_t *data, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
        }
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t
crc_by_instruction(uint32_t crc, const uint8_t *data, size_t length)
{
    uint64_t wide = crc;
    while (length >= 8) {
        uint64_t word;
        memcpy(&word, data, sizeof(word));
        wide = _mm_crc32_u64(wide, word);
        data += 8;
        length -= 8;
    }
    crc = (uint32_t)wide;
    while (length > 0) {
        crc = _mm_crc32_u8(crc, *data++);
        length--;
    }
    return crc;
}
#endif

uint32_t crc32c(uint32_t crc, struct slice bytes)
{
    if (bytes.length == 0) {
        return crc;
    }
    crc = ~crc;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        return ~crc_by_instruction(crc, bytes.data, bytes.length);
    }
#endif
    return ~crc_by_bit(crc, bytes.data, bytes.length);
}
