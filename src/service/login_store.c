/* SPDX-License-Identifier: Apache-2.0 */
#include "service/login_store.h"

#include "base/base64.h"
#include "base/password.h"
#include "sys/random.h"

#include <jansson.h>
#include <stdlib.h>

enum { FORMAT = 1 };

struct login_store {
    struct arena arena;
    struct hash_key key;
    uint8_t secret[LOGIN_SECRET_BYTES];
    struct login_user *users;
    uint32_t count, room;
    struct map by_name; /* hash to index plus 1; two of one hash: the second is searched for */
};

struct login_store *login_store_new(void)
{
    struct login_store *store = calloc(1, sizeof(*store));
    if (store != NULL) {
        arena_init(&store->arena);
        map_init(&store->by_name);
        random_bytes(&store->key, sizeof(store->key));
        random_bytes(store->secret, sizeof(store->secret));
    }
    return store;
}

void login_store_free(struct login_store *store)
{
    if (store != NULL) {
        arena_done(&store->arena);
        map_done(&store->by_name);
        free(store->users);
        free(store);
    }
}

/* ---- users -------------------------------------------------------------------------------- */

uint32_t login_store_count(const struct login_store *store)
{
    return store->count;
}

const struct login_user *login_store_at(const struct login_store *store, uint32_t index)
{
    return &store->users[index];
}

static uint32_t find_index(const struct login_store *store, struct slice name)
{
    uintptr_t place = (uintptr_t)map_get(&store->by_name, hash_bytes_fold(store->key, name));
    if (place == 0) {
        return UINT32_MAX;
    }
    if (slice_equal_fold(store->users[place - 1].name, name)) {
        return (uint32_t)place - 1;
    }
    for (uint32_t i = 0; i < store->count; i++) { /* two names of one hash: hardly ever */
        if (slice_equal_fold(store->users[i].name, name)) {
            return i;
        }
    }
    return UINT32_MAX;
}

const struct login_user *login_store_find(const struct login_store *store, struct slice name)
{
    uint32_t index = find_index(store, name);
    return index != UINT32_MAX ? &store->users[index] : NULL;
}

static bool copy_user(struct login_store *store, const struct login_user *from,
                      struct login_user *ret_user)
{
    struct slice *addresses =
        arena_allocate(&store->arena, (from->address_count + 1) * sizeof(*addresses));
    *ret_user = *from;
    ret_user->name = arena_copy(&store->arena, from->name);
    ret_user->password = arena_copy(&store->arena, from->password);
    ret_user->addresses = addresses;
    bool good = addresses != NULL && ret_user->name.data != NULL && ret_user->password.data != NULL;
    for (uint32_t i = 0; good && i < from->address_count; i++) {
        addresses[i] = arena_copy(&store->arena, from->addresses[i]);
        good = addresses[i].data != NULL;
    }
    return good;
}

enum error login_store_put(struct login_store *store, const struct login_user *user)
{
    struct login_user copy;
    uint32_t index = find_index(store, user->name);
    if (!copy_user(store, user, &copy)) {
        return ERROR_MEMORY;
    }
    if (index != UINT32_MAX) {
        store->users[index] = copy;
        return ERROR_NONE;
    }
    if (store->count == store->room) {
        uint32_t room = store->room == 0 ? 16 : store->room * 2;
        struct login_user *users = realloc(store->users, room * sizeof(*users));
        if (users == NULL) {
            return ERROR_MEMORY;
        }
        store->users = users;
        store->room = room;
    }
    uint64_t hash = hash_bytes_fold(store->key, copy.name);
    if (map_get(&store->by_name, hash) == NULL &&
        map_put(&store->by_name, hash, (void *)(uintptr_t)(store->count + 1)) != ERROR_NONE) {
        return ERROR_MEMORY;
    }
    store->users[store->count++] = copy;
    return ERROR_NONE;
}

bool login_store_remove(struct login_store *store, struct slice name)
{
    uint32_t index = find_index(store, name);
    if (index == UINT32_MAX) {
        return false;
    }
    memmove(&store->users[index], &store->users[index + 1],
            (store->count - index - 1) * sizeof(*store->users));
    store->count--;
    map_done(&store->by_name);
    map_init(&store->by_name);
    for (uint32_t i = 0; i < store->count; i++) {
        uint64_t hash = hash_bytes_fold(store->key, store->users[i].name);
        if (map_get(&store->by_name, hash) == NULL) {
            (void)!map_put(&store->by_name, hash, (void *)(uintptr_t)(i + 1));
        }
    }
    return true;
}

enum error login_user_set_password(struct login_store *store, struct login_user *user,
                                   struct slice password)
{
    char hash[PASSWORD_HASH_MAX];
    enum error error = password_hash(password, hash);
    if (error != ERROR_NONE) {
        return error;
    }
    user->password = arena_copy(&store->arena, slice_from_text(hash));
    random_bytes(user->salt, sizeof(user->salt));
    user->iterations = LOGIN_ITERATIONS;
    user->has_keys = true;
    error = sasl_scram_derive(password, slice_make(user->salt, sizeof(user->salt)),
                              user->iterations, &user->keys);
    return user->password.data == NULL ? ERROR_MEMORY : error;
}

void login_store_nobodys_salt(const struct login_store *store, struct slice name,
                              uint8_t ret_salt[LOGIN_SALT_BYTES])
{
    uint8_t folded[LOGIN_NAME_MAX], digest[DIGEST_MAX_BYTES] = {0};
    name = slice_take(name, sizeof(folded));
    for (size_t i = 0; i < name.length; i++) {
        uint8_t c = name.data[i];
        folded[i] = c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
    }
    (void)!digest_hmac(DIGEST_SHA256, slice_make(store->secret, sizeof(store->secret)),
                       slice_make(folded, name.length), digest);
    memcpy(ret_salt, digest, LOGIN_SALT_BYTES);
}

/* ---- the file's text ---------------------------------------------------------------------- */

static bool put_bytes(json_t *object, const char *key, struct slice bytes)
{
    struct buffer text;
    buffer_init(&text, 0);
    base64_encode(&text, bytes);
    bool good =
        !text.failed &&
        json_object_set_new(object, key, json_stringn((const char *)text.data, text.length)) == 0;
    buffer_done(&text);
    return good;
}

static bool get_bytes(const json_t *object, const char *key, void *ret_bytes, size_t length)
{
    const json_t *value = json_object_get(object, key);
    struct buffer bytes;
    buffer_init(&bytes, 2 * length);
    bool good = json_is_string(value) &&
                base64_decode(&bytes, slice_make(json_string_value(value),
                                                 json_string_length(value))) == ERROR_NONE &&
                !bytes.failed && bytes.length == length;
    if (good) {
        memcpy(ret_bytes, bytes.data, length);
    }
    buffer_done(&bytes);
    return good;
}

static bool put_line(struct buffer *text, json_t *object)
{
    char *line = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (line == NULL) {
        return false;
    }
    buffer_append_text(text, line);
    buffer_append_text(text, "\n");
    free(line);
    return !text->failed;
}

static json_t *scram_to_json(const struct login_user *user)
{
    json_t *scram = json_pack("{sI}", "iterations", (json_int_t)user->iterations);
    if (scram != NULL && put_bytes(scram, "salt", slice_make(user->salt, sizeof(user->salt))) &&
        put_bytes(scram, "stored", slice_make(user->keys.stored, sizeof(user->keys.stored))) &&
        put_bytes(scram, "server", slice_make(user->keys.server, sizeof(user->keys.server)))) {
        return scram;
    }
    json_decref(scram);
    return NULL;
}

static json_t *user_to_json(const struct login_user *user)
{
    json_t *object = json_pack("{ss%}", "name", (const char *)user->name.data, user->name.length);
    bool good = object != NULL;
    if (good && user->password.length > 0) {
        good = json_object_set_new(
                   object, "password",
                   json_stringn((const char *)user->password.data, user->password.length)) == 0;
    }
    if (good && user->has_keys) {
        good = json_object_set_new(object, "scram", scram_to_json(user)) == 0;
    }
    json_t *addresses = json_array();
    for (uint32_t i = 0; good && i < user->address_count; i++) {
        good = json_array_append_new(addresses, json_stringn((const char *)user->addresses[i].data,
                                                             user->addresses[i].length)) == 0;
    }
    good = good && json_object_set(object, "addresses", addresses) == 0;
    json_decref(addresses);
    if (!good) {
        json_decref(object);
        return NULL;
    }
    return object;
}

enum error login_store_format(const struct login_store *store, struct buffer *text)
{
    json_t *first = json_pack("{si}", "users", FORMAT);
    bool good = first != NULL &&
                put_bytes(first, "secret", slice_make(store->secret, sizeof(store->secret))) &&
                put_line(text, json_incref(first));
    json_decref(first);
    for (uint32_t i = 0; good && i < store->count; i++) {
        good = put_line(text, user_to_json(&store->users[i]));
    }
    return good ? ERROR_NONE : ERROR_MEMORY;
}

static struct slice json_slice(const json_t *value)
{
    return slice_make(json_string_value(value), json_string_length(value));
}

static bool user_from_json(struct login_store *store, const json_t *object)
{
    struct slice addresses[LOGIN_ADDRESSES_MAX];
    const json_t *name = json_object_get(object, "name");
    const json_t *password = json_object_get(object, "password");
    const json_t *scram = json_object_get(object, "scram");
    const json_t *list = json_object_get(object, "addresses");
    struct login_user user = {.addresses = addresses};
    if (!json_is_string(name) || login_name_fault(json_slice(name)) != NULL ||
        (password != NULL &&
         !(json_is_string(password) && password_hash_is_valid(json_slice(password)))) ||
        (list != NULL && !json_is_array(list)) || json_array_size(list) > LOGIN_ADDRESSES_MAX) {
        return false;
    }
    user.name = json_slice(name);
    user.password = password != NULL ? json_slice(password) : SLICE_EMPTY;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *address = json_array_get(list, i);
        if (!json_is_string(address) || login_address_fault(json_slice(address)) != NULL) {
            return false;
        }
        addresses[user.address_count++] = json_slice(address);
    }
    if (scram != NULL) {
        json_int_t iterations = json_integer_value(json_object_get(scram, "iterations"));
        user.has_keys = true;
        user.iterations = (uint32_t)iterations;
        if (iterations < SASL_ITERATIONS_LEAST || iterations > SASL_ITERATIONS_MAX ||
            !get_bytes(scram, "salt", user.salt, sizeof(user.salt)) ||
            !get_bytes(scram, "stored", user.keys.stored, sizeof(user.keys.stored)) ||
            !get_bytes(scram, "server", user.keys.server, sizeof(user.keys.server))) {
            return false;
        }
    }
    return login_store_find(store, user.name) == NULL &&
           login_store_put(store, &user) == ERROR_NONE;
}

static bool parse_line(struct login_store *store, struct slice line, bool is_first)
{
    json_t *object = json_loadb((const char *)line.data, line.length, JSON_REJECT_DUPLICATES, NULL);
    bool good = json_is_object(object);
    if (good && is_first) {
        good = json_integer_value(json_object_get(object, "users")) == FORMAT &&
               get_bytes(object, "secret", store->secret, sizeof(store->secret));
    } else if (good) {
        good = user_from_json(store, object);
    }
    json_decref(object);
    return good;
}

enum error login_store_parse(struct slice text, struct login_store **ret_store, uint32_t *ret_line)
{
    struct login_store *store = login_store_new();
    if (store == NULL) {
        return ERROR_MEMORY;
    }
    bool good = text.length > 0;
    for (*ret_line = 1; good && text.length > 0;) {
        struct slice line = slice_take(text, slice_find(text, '\n'));
        good = line.length < text.length && parse_line(store, line, *ret_line == 1);
        text = slice_skip(text, line.length + 1);
        *ret_line += good;
    }
    if (!good) {
        login_store_free(store);
        return ERROR_CORRUPT;
    }
    *ret_store = store;
    return ERROR_NONE;
}

/* ---- the file ----------------------------------------------------------------------------- */

enum error login_store_read(struct disk *disk, struct login_store **ret_store, uint32_t *ret_line)
{
    struct disk_file *file;
    uint64_t size = 0;
    uint8_t *text = NULL;
    *ret_line = 0;
    enum error error = disk->ops->open(disk, LOGIN_FILE, DISK_READ, &file);
    if (error != ERROR_NONE) {
        return error;
    }
    error = disk->ops->size(file, &size);
    if (error == ERROR_NONE && size > LOGIN_FILE_MAX) {
        error = ERROR_LIMIT;
    }
    if (error == ERROR_NONE) {
        text = malloc(size + 1);
        error = text == NULL ? ERROR_MEMORY : disk->ops->read(file, 0, text, size);
    }
    if (error == ERROR_NONE) {
        error = login_store_parse(slice_make(text, size), ret_store, ret_line);
    }
    if (text != NULL) {
        digest_forget(text, size);
    }
    free(text);
    disk->ops->close(file);
    return error;
}

#define NEW_FILE LOGIN_FILE ".new"

enum error login_store_write(struct disk *disk, const struct login_store *store)
{
    struct buffer text;
    struct disk_file *file;
    buffer_init(&text, LOGIN_FILE_MAX);
    enum error error = login_store_format(store, &text);
    if (error == ERROR_NONE) {
        error = disk->ops->unlink(disk, NEW_FILE); /* of one who died */
        error = error == ERROR_MISSING ? ERROR_NONE : error;
    }
    if (error == ERROR_NONE) {
        error = disk->ops->open(disk, NEW_FILE, DISK_WRITE | DISK_CREATE, &file);
    }
    if (error == ERROR_NONE) {
        error = disk->ops->write(file, 0, buffer_slice(&text));
        if (error == ERROR_NONE) {
            error = disk->ops->sync(file);
        }
        disk->ops->close(file);
    }
    if (error == ERROR_NONE) {
        error = disk->ops->rename(disk, NEW_FILE, LOGIN_FILE);
    }
    if (error == ERROR_NONE) {
        error = disk->ops->sync_directory(disk);
    }
    digest_forget_buffer(&text);
    return error;
}
