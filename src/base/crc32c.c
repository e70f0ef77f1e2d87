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

/* The instruction is begun each cycle, but one that needs the result of the one before waits for
 * two more. So three blocks are worked on at once; what comes of the first two is carried over the
 * bytes behind them: multiplied by x^(8n - 33), to which clmul adds one power and the instruction
 * 32, all modulo the polynomial. Bits are reflected. */
enum { CRC_BLOCK = 256 };
#define CRC_OVER_ONE 0xb9e02b86 /* n = CRC_BLOCK */
#define CRC_OVER_TWO 0xdd7e3b0c /* n = 2 x CRC_BLOCK */

__attribute__((target("sse4.2,pclmul"))) static uint64_t crc_carried(uint64_t crc, int64_t over)
{
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), _mm_cvtsi64_si128(over), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t
crc_by_blocks(uint32_t crc, const uint8_t *data, size_t length)
{
    uint64_t first = crc;
    while (length >= 3 * CRC_BLOCK) {
        uint64_t second = 0, third = 0, words[3];
        for (size_t i = 0; i < CRC_BLOCK; i += sizeof(words[0])) {
            memcpy(&words[0], data + i, sizeof(words[0]));
            memcpy(&words[1], data + CRC_BLOCK + i, sizeof(words[1]));
            memcpy(&words[2], data + 2 * CRC_BLOCK + i, sizeof(words[2]));
            first = _mm_crc32_u64(first, words[0]);
            second = _mm_crc32_u64(second, words[1]);
            third = _mm_crc32_u64(third, words[2]);
        }
        first = crc_carried(first, CRC_OVER_TWO) ^ crc_carried(second, CRC_OVER_ONE) ^ third;
        data += 3 * CRC_BLOCK;
        length -= 3 * CRC_BLOCK;
    }
    return crc_by_instruction((uint32_t)first, data, length);
}
#endif

uint32_t crc32c(uint32_t crc, struct slice bytes)
{
    if (bytes.length == 0) {
        return crc;
    }
    crc = ~crc;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        return ~crc_by_blocks(crc, bytes.data, bytes.length);
    }
    if (__builtin_cpu_supports("sse4.2")) {
        return ~crc_by_instruction(crc, bytes.data, bytes.length);
    }
#endif
    return ~crc_by_bit(crc, bytes.data, bytes.length);
}
