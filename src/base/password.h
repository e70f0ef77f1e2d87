/* SPDX-License-Identifier: Apache-2.0
 *
 * Passwords at rest: made by argon2id (RFC 9106, libsodium), checked also against what crypt(3)
 * knows, so that hashes from elsewhere serve.
 *
 * Both are slow on purpose, some 50 to 100 ms, and argon2id takes 64 MB while it runs: never on a
 * loop's thread. Any thread, several at once.
 */
#ifndef HOLDFAST_BASE_PASSWORD_H
#define HOLDFAST_BASE_PASSWORD_H

#include "base/error.h"
#include "base/slice.h"

enum {
    PASSWORD_MAX = 255,      /* octets of a password */
    PASSWORD_HASH_MAX = 384, /* characters of a hash, its NUL included */
};

/* Once in each process that uses these, before it gives up its rights and has threads. */
enum error password_prepare(void) MUST_CHECK;
/* "$argon2id$..." with a new salt. ERROR_MEMORY; ERROR_INVALID: longer than PASSWORD_MAX, empty, or
 * with a NUL. */
enum error password_hash(struct slice password, char ret_hash[PASSWORD_HASH_MAX]) MUST_CHECK;
/* False also for a hash of an unknown kind. The comparison takes as long whatever differs. */
bool password_proves(struct slice hash, struct slice password);
/* A hash that password_proves() can check and no password fits: what is asked for a name that
 * nobody has, so that it takes as long. Static. */
struct slice password_nobody(void);
/* It looks like one: "$" id "$" ..., within bounds and printable. */
bool password_hash_is_valid(struct slice hash);

#endif
