/* SPDX-License-Identifier: Apache-2.0
 *
 * Digests, keyed digests and keys from passwords, by OpenSSL's libcrypto (docs/decisions/0017).
 * Values in, values out. A function that returns an error could not work (memory, or a library
 * built without the algorithm: MD5 where policy forbids it); its output is then all zeroes.
 */
#ifndef HOLDFAST_BASE_DIGEST_H
#define HOLDFAST_BASE_DIGEST_H

#include "base/buffer.h"
#include "base/error.h"
#include "base/slice.h"

enum digest { DIGEST_SHA256, DIGEST_MD5 };

enum { DIGEST_MAX_BYTES = 32, DIGEST_SHA256_BYTES = 32, DIGEST_MD5_BYTES = 16 };

/* Once in each process that uses these, before it gives up its rights: the library looks for what
 * it needs now. System-wide OpenSSL configuration is not read. */
enum error digest_prepare(void) MUST_CHECK;
size_t digest_bytes(enum digest digest);
enum error digest_make(enum digest digest, struct slice input,
                       uint8_t ret_digest[DIGEST_MAX_BYTES]) MUST_CHECK;
/* RFC 2104. */
enum error digest_hmac(enum digest digest, struct slice key, struct slice input,
                       uint8_t ret_digest[DIGEST_MAX_BYTES]) MUST_CHECK;
/* RFC 8018 PBKDF2 with HMAC-SHA-256; as RFC 5802's Hi(). `iterations` at least 1. Costs about a
 * microsecond for two of them: the caller bounds what a peer may ask for. */
enum error digest_from_password(struct slice password, struct slice salt, uint32_t iterations,
                                uint8_t ret_key[DIGEST_SHA256_BYTES]) MUST_CHECK;
/* Takes as long whatever the bytes are; only the lengths may show. */
bool digest_equal(struct slice a, struct slice b);
/* Overwrites a secret; not optimised away. */
void digest_forget(void *secret, size_t length);
/* And frees it; the buffer is empty then. */
void digest_forget_buffer(struct buffer *secret);

#endif
