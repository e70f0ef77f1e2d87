/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"

struct sip {
    uint64_t v0, v1, v2, v3;
};

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotate(s->v1, 13) ^ s->v0;
    s->v0 = rotate(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate(s->v1, 17) ^ s->v2;
    s->v2 = rotate(s->v2, 32);
}

static uint8_t byte_at(struct slice bytes, size_t i, bool fold)
{
    uint8_t c = bytes.data[i];
    return fold && c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

static uint64_t hash(struct hash_key key, struct slice bytes, bool fold)
{
    struct sip s = {
        key.k0 ^ 0x736f6d6570736575ULL,
        key.k1 ^ 0x646f72616e646f6dULL,
        key.k0 ^ 0x6c7967656e657261ULL,
        key.k1 ^ 0x7465646279746573ULL,
    };
    size_t whole = bytes.length - bytes.length % 8;
    for (size_t i = 0; i < whole; i += 8) {
        uint64_t word = 0;
        for (size_t j = 0; j < 8; j++) {
            word |= (uint64_t)byte_at(bytes, i + j, fold) << (8 * j);
        }
        s.v3 ^= word;
        sip_round(&s);
        s.v0 ^= word;
    }
    uint64_t last = (uint64_t)bytes.length << 56;
    for (size_t i = whole; i < bytes.length; i++) {
        last |= (uint64_t)byte_at(bytes, i, fold) << (8 * (i - whole));
    }
    s.v3 ^= last;
    sip_round(&s);
    s.v0 ^= last;
    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

uint64_t hash_bytes(struct hash_key key, struct slice bytes)
{
    return hash(key, bytes, false);
}

uint64_t hash_bytes_fold(struct hash_key key, struct slice bytes)
{
    return hash(key, bytes, true);
}
