/* SPDX-License-Identifier: Apache-2.0
 *
 * libcrypto behind base/digest.h; nothing else in this room knows it.
 */
#include "base/digest.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

static const EVP_MD *algorithm(enum digest digest)
{
    return digest == DIGEST_MD5 ? EVP_md5() : EVP_sha256();
}

enum error digest_prepare(void)
{
    uint8_t output[DIGEST_MAX_BYTES];
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1) {
        return ERROR_MEMORY;
    }
    enum error error = digest_hmac(DIGEST_SHA256, SLICE_EMPTY, SLICE_EMPTY, output);
    return error != ERROR_NONE ? error : digest_make(DIGEST_SHA256, SLICE_EMPTY, output);
}

size_t digest_bytes(enum digest digest)
{
    return digest == DIGEST_MD5 ? DIGEST_MD5_BYTES : DIGEST_SHA256_BYTES;
}

static enum error outcome(bool done, uint8_t *output, size_t length)
{
    if (!done) {
        memset(output, 0, length);
    }
    return done ? ERROR_NONE : ERROR_MEMORY;
}

enum error digest_make(enum digest digest, struct slice input, uint8_t ret_digest[DIGEST_MAX_BYTES])
{
    unsigned length = 0;
    bool done =
        EVP_Digest(input.data, input.length, ret_digest, &length, algorithm(digest), NULL) == 1;
    return outcome(done && length == digest_bytes(digest), ret_digest, DIGEST_MAX_BYTES);
}

enum error digest_hmac(enum digest digest, struct slice key, struct slice input,
                       uint8_t ret_digest[DIGEST_MAX_BYTES])
{
    static const uint8_t nothing[1]; /* an empty key is a key; NULL means another thing there */
    unsigned length = 0;
    bool done = key.length <= INT_MAX &&
                HMAC(algorithm(digest), key.data != NULL ? key.data : nothing, (int)key.length,
                     input.data, input.length, ret_digest, &length) != NULL;
    return outcome(done && length == digest_bytes(digest), ret_digest, DIGEST_MAX_BYTES);
}

enum error digest_from_password(struct slice password, struct slice salt, uint32_t iterations,
                                uint8_t ret_key[DIGEST_SHA256_BYTES])
{
    bool done = password.length <= INT_MAX && salt.length <= INT_MAX && iterations >= 1 &&
                iterations <= INT_MAX &&
                PKCS5_PBKDF2_HMAC((const char *)password.data, (int)password.length, salt.data,
                                  (int)salt.length, (int)iterations, EVP_sha256(),
                                  DIGEST_SHA256_BYTES, ret_key) == 1;
    return outcome(done, ret_key, DIGEST_SHA256_BYTES);
}

bool digest_equal(struct slice a, struct slice b)
{
    return a.length == b.length && (a.length == 0 || CRYPTO_memcmp(a.data, b.data, a.length) == 0);
}

void digest_forget(void *secret, size_t length)
{
    OPENSSL_cleanse(secret, length);
}

void digest_forget_buffer(struct buffer *secret)
{
    if (secret->data != NULL) {
        digest_forget(secret->data, secret->length);
    }
    buffer_done(secret);
}
