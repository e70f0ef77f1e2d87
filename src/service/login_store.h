/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of users: who may log in with which password and send as whom. A file of its own
 * directory, "login" in the state directory, that the tool writes and one process of the daemon,
 * the keeper of the secrets, reads; holdfast(1) describes it for backups.
 *
 * The file is lines of JSON: first {"users":1,"secret":BASE64}, then one object for each user with
 * "name", and where he has them "password" (base/password.h), "scram" and "addresses". A file is
 * replaced whole: a reader sees the old one or the new one, after a crash too.
 */
#ifndef HOLDFAST_SERVICE_LOGIN_STORE_H
#define HOLDFAST_SERVICE_LOGIN_STORE_H

#include "base/arena.h"
#include "base/hash.h"
#include "base/map.h"
#include "proto/sasl_server.h"
#include "service/login.h"
#include "sys/disk.h"

#define LOGIN_DIRECTORY "login" /* in the state directory */
#define LOGIN_FILE "users"

enum {
    LOGIN_SALT_BYTES = 16,
    LOGIN_SECRET_BYTES = 32,
    LOGIN_ITERATIONS = SASL_ITERATIONS_MAX, /* of SCRAM's keys: the client's work */
    LOGIN_FILE_MAX = 256 << 20,
};

struct login_user {
    struct slice name;     /* compared without case */
    struct slice password; /* a hash; empty: other sources know it */
    bool has_keys;
    struct sasl_scram_keys keys;
    uint8_t salt[LOGIN_SALT_BYTES];
    uint32_t iterations;
    const struct slice *addresses; /* patterns; at most LOGIN_ADDRESSES_MAX */
    uint32_t address_count;
};

struct login_store;

/* An empty one with a new secret. NULL: memory. */
struct login_store *login_store_new(void);
void login_store_free(struct login_store *store); /* NULL is allowed */
/* ERROR_MISSING: there is no file. ERROR_CORRUPT: it is none of ours; *ret_line tells where. */
enum error login_store_read(struct disk *disk, struct login_store **ret_store,
                            uint32_t *ret_line) MUST_CHECK;
enum error login_store_parse(struct slice text, struct login_store **ret_store,
                             uint32_t *ret_line) MUST_CHECK;
/* Appends the text of the file. Secrets are in it. */
enum error login_store_format(const struct login_store *store, struct buffer *text) MUST_CHECK;
/* On stable storage when it returns. */
enum error login_store_write(struct disk *disk, const struct login_store *store) MUST_CHECK;

uint32_t login_store_count(const struct login_store *store);
const struct login_user *login_store_at(const struct login_store *store, uint32_t index);
const struct login_user *login_store_find(const struct login_store *store, struct slice name);
/* Copies; in the place of one of that name if there is one. */
enum error login_store_put(struct login_store *store, const struct login_user *user) MUST_CHECK;
bool login_store_remove(struct login_store *store, struct slice name);

/* Makes hash and keys: slow. */
enum error login_user_set_password(struct login_store *store, struct login_user *user,
                                   struct slice password) MUST_CHECK;
/* For a name that nobody has, or that has none: always the same. */
void login_store_nobodys_salt(const struct login_store *store, struct slice name,
                              uint8_t ret_salt[LOGIN_SALT_BYTES]);

#endif
