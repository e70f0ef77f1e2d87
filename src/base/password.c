/* SPDX-License-Identifier: Apache-2.0 */
#include "base/password.h"

#include "base/digest.h"

#include <crypt.h>
#include <sodium.h>
#include <stdlib.h>

_Static_assert(PASSWORD_HASH_MAX >= crypto_pwhash_STRBYTES, "argon2id fits");
_Static_assert(PASSWORD_HASH_MAX >= CRYPT_OUTPUT_SIZE, "crypt(3) fits");

#define ARGON2ID "$argon2id$"

enum {
    OPERATIONS = 2,         /* passes over the memory, */
    MEMORY_BYTES = 64 << 20 /* which is that much: RFC 9106 section 4, the second choice */
};

enum error password_prepare(void)
{
    return sodium_init() >= 0 ? ERROR_NONE : ERROR_MEMORY;
}

static bool is_password(struct slice password)
{
    return password.length > 0 && password.length <= PASSWORD_MAX &&
           slice_find(password, '\0') == password.length;
}

enum error password_hash(struct slice password, char ret_hash[PASSWORD_HASH_MAX])
{
    if (!is_password(password)) {
        return ERROR_INVALID;
    }
    return crypto_pwhash_str_alg(ret_hash, (const char *)password.data, password.length, OPERATIONS,
                                 MEMORY_BYTES, crypto_pwhash_ALG_ARGON2ID13) == 0
               ? ERROR_NONE
               : ERROR_MEMORY;
}

bool password_hash_is_valid(struct slice hash)
{
    if (hash.length < 4 || hash.length >= PASSWORD_HASH_MAX || hash.data[0] != '$') {
        return false;
    }
    for (size_t i = 0; i < hash.length; i++) {
        if (hash.data[i] <= ' ' || hash.data[i] >= 0x7f) {
            return false;
        }
    }
    return true;
}

static bool crypt_proves(const char *hash, size_t length, const char *password)
{
    struct crypt_data *data = calloc(1, sizeof(*data));
    if (data == NULL) {
        return false;
    }
    const char *made = crypt_rn(password, hash, data, (int)sizeof(*data));
    bool proves = made != NULL && digest_equal(slice_from_text(made), slice_make(hash, length));
    digest_forget(data, sizeof(*data));
    free(data);
    return proves;
}

bool password_proves(struct slice hash, struct slice password)
{
    char stored[PASSWORD_HASH_MAX] = {0}, given[PASSWORD_MAX + 1] = {0};
    if (!is_password(password) || !password_hash_is_valid(hash)) {
        return false;
    }
    memcpy(stored, hash.data, hash.length);
    memcpy(given, password.data, password.length);
    bool proves = strncmp(stored, ARGON2ID, sizeof(ARGON2ID) - 1) == 0
                      ? crypto_pwhash_str_verify(stored, given, password.length) == 0
                      : crypt_proves(stored, hash.length, given);
    digest_forget(given, sizeof(given));
    return proves;
}

/* Its salt is sixteen zeroes and its value thirty-two: nobody has searched for a password of it. */
struct slice password_nobody(void)
{
    return SLICE_LITERAL("$argon2id$v=19$m=65536,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$"
                         "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
}
