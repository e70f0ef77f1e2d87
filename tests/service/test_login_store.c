/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of users, on a real directory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/password.h"
#include "service/login_store.h"

static char directory[] = "/tmp/holdfast-login-XXXXXX";

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) != NULL && password_prepare() == ERROR_NONE ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    char path[100];
    snprintf(path, sizeof(path), "%s/" LOGIN_FILE, directory);
    (void)unlink(path);
    return rmdir(directory);
}

static struct login_user some_user(const char *name, const struct slice *addresses, uint32_t count)
{
    return (struct login_user){
        .name = slice_from_text(name), .addresses = addresses, .address_count = count};
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct slice addresses[] = {SLICE_LITERAL("ann@example.org"), SLICE_LITERAL("*@x.example"),
                                SLICE_LITERAL("\xc3\xa4@example.org")};
    struct login_store *store = login_store_new(), *read;
    struct login_user ann = some_user("Ann\"\\", addresses, 3), bob = some_user("bob", NULL, 0);
    struct disk *disk;
    uint32_t line;
    assert_non_null(store);
    assert_int_equal(login_user_set_password(store, &ann, SLICE_LITERAL("secret")), ERROR_NONE);
    assert_int_equal(login_store_put(store, &ann), ERROR_NONE);
    assert_int_equal(login_store_put(store, &bob), ERROR_NONE);
    assert_int_equal(disk_open_directory(directory, &disk), ERROR_NONE);
    assert_int_equal(login_store_read(disk, &read, &line), ERROR_MISSING);
    assert_int_equal(login_store_write(disk, store), ERROR_NONE);
    assert_int_equal(login_store_write(disk, store), ERROR_NONE);
    assert_int_equal(login_store_read(disk, &read, &line), ERROR_NONE);
    assert_int_equal(login_store_count(read), 2);
    const struct login_user *found = login_store_find(read, SLICE_LITERAL("aNN\"\\"));
    assert_non_null(found);
    assert_true(slice_equal(found->password, ann.password));
    assert_true(password_proves(found->password, SLICE_LITERAL("secret")));
    assert_false(password_proves(found->password, SLICE_LITERAL("secreT")));
    assert_memory_equal(&found->keys, &ann.keys, sizeof(ann.keys));
    assert_memory_equal(found->salt, ann.salt, sizeof(ann.salt));
    assert_int_equal(found->address_count, 3);
    assert_true(slice_equal(found->addresses[2], addresses[2]));
    found = login_store_find(read, SLICE_LITERAL("bob"));
    assert_true(found != NULL && found->password.length == 0 && !found->has_keys);
    /* Nobody's salt is the same over a restart. */
    uint8_t before[LOGIN_SALT_BYTES], after[LOGIN_SALT_BYTES];
    login_store_nobodys_salt(store, SLICE_LITERAL("nobody"), before);
    login_store_nobodys_salt(read, SLICE_LITERAL("NoBody"), after);
    assert_memory_equal(before, after, sizeof(after));
    login_store_nobodys_salt(read, SLICE_LITERAL("nobodi"), after);
    assert_memory_not_equal(before, after, sizeof(after));
    login_store_free(store);
    login_store_free(read);
    disk_free(disk);
}

static void many_users_come_and_go(void **state)
{
    (void)state;
    struct login_store *store = login_store_new();
    char name[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "user%d", i);
        struct login_user user = some_user(name, NULL, 0);
        assert_int_equal(login_store_put(store, &user), ERROR_NONE);
    }
    for (int i = 0; i < 1000; i += 2) {
        snprintf(name, sizeof(name), "USER%d", i);
        assert_true(login_store_remove(store, slice_from_text(name)));
        assert_false(login_store_remove(store, slice_from_text(name)));
    }
    assert_int_equal(login_store_count(store), 500);
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "user%d", i);
        assert_int_equal(login_store_find(store, slice_from_text(name)) != NULL, i % 2);
    }
    login_store_free(store);
}

#define FIRST "{\"users\":1,\"secret\":\"vAgkWxs7CZtwPIgglK+wYh95Y39DLBtFget0amnzEnU=\"}\n"

static void what_is_no_table_is_refused(void **state)
{
    (void)state;
    struct {
        const char *text;
        uint32_t line;
    } bad[] = {
        {"", 1},
        {"{}\n", 1},
        {"{\"users\":2,\"secret\":\"vAgkWxs7CZtwPIgglK+wYh95Y39DLBtFget0amnzEnU=\"}\n", 1},
        {"{\"users\":1,\"secret\":\"AAAA\"}\n", 1},
        {FIRST "{\"name\":\"a\"}", 2}, /* cut */
        {FIRST "[]\n", 2},
        {FIRST "\n", 2},
        {FIRST "{\"name\":\"\"}\n", 2},
        {FIRST "{\"name\":\"a b\"}\n", 2},
        {FIRST "{\"name\":7}\n", 2},
        {FIRST "{\"name\":\"a\",\"name\":\"b\"}\n", 2},
        {FIRST "{\"name\":\"a\"}\n{\"name\":\"A\"}\n", 3},
        {FIRST "{\"name\":\"a\",\"password\":\"secret\"}\n", 2},
        {FIRST "{\"name\":\"a\",\"addresses\":\"a@b\"}\n", 2},
        {FIRST "{\"name\":\"a\",\"addresses\":[\"nobody\"]}\n", 2},
        {FIRST "{\"name\":\"a\",\"scram\":{\"iterations\":1}}\n", 2},
        {FIRST "{\"name\":\"a\",\"scram\":{\"iterations\":4096,\"salt\":\"AA==\"}}\n", 2},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct login_store *store;
        uint32_t line;
        assert_int_equal(login_store_parse(slice_from_text(bad[i].text), &store, &line),
                         ERROR_CORRUPT);
        assert_int_equal(line, bad[i].line);
    }
}

static void hashes_of_other_kinds_serve(void **state)
{
    (void)state;
    /* By openssl passwd. */
    struct slice sha512 =
        SLICE_LITERAL("$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu"
                      "9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/");
    struct slice md5 = SLICE_LITERAL("$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/");
    assert_true(password_proves(sha512, SLICE_LITERAL("password")));
    assert_false(password_proves(sha512, SLICE_LITERAL("Password")));
    assert_true(password_proves(md5, SLICE_LITERAL("password")));
    assert_false(password_proves(md5, SLICE_LITERAL("")));
    assert_false(password_proves(SLICE_LITERAL("$9$unknown$kind"), SLICE_LITERAL("password")));
    assert_false(password_proves(SLICE_LITERAL("password"), SLICE_LITERAL("password")));
    assert_false(password_proves(password_nobody(), SLICE_LITERAL("password")));
    assert_true(password_hash_is_valid(password_nobody()));
}

static void passwords_are_bounded(void **state)
{
    (void)state;
    char hash[PASSWORD_HASH_MAX], longest[PASSWORD_MAX + 1];
    memset(longest, 'x', sizeof(longest));
    assert_int_equal(password_hash(SLICE_EMPTY, hash), ERROR_INVALID);
    assert_int_equal(password_hash(SLICE_LITERAL("a\0b"), hash), ERROR_INVALID);
    assert_int_equal(password_hash(slice_make(longest, sizeof(longest)), hash), ERROR_INVALID);
    assert_int_equal(password_hash(slice_make(longest, PASSWORD_MAX), hash), ERROR_NONE);
    assert_true(password_proves(slice_from_text(hash), slice_make(longest, PASSWORD_MAX)));
    assert_false(password_proves(slice_from_text(hash), slice_make(longest, PASSWORD_MAX - 1)));
}

static void addresses_are_patterns(void **state)
{
    (void)state;
    struct slice own[] = {SLICE_LITERAL("ann@example.org"), SLICE_LITERAL("*@sales.example.org")};
    assert_true(login_may_send_as(own, 2, SLICE_LITERAL("Ann@Example.org")));
    assert_true(login_may_send_as(own, 2, SLICE_LITERAL("x@sales.example.org")));
    assert_false(login_may_send_as(own, 2, SLICE_LITERAL("x@example.org")));
    assert_false(login_may_send_as(own, 2, SLICE_LITERAL("ann@example.org.evil.example")));
    assert_false(login_may_send_as(own, 0, SLICE_LITERAL("ann@example.org")));
    assert_null(login_address_fault(SLICE_LITERAL("*")));
    assert_null(login_address_fault(SLICE_LITERAL("*@example.org")));
    assert_non_null(login_address_fault(SLICE_LITERAL("ann")));
    assert_non_null(login_address_fault(SLICE_LITERAL("@example.org")));
    assert_non_null(login_address_fault(SLICE_LITERAL("a b@example.org")));
    assert_non_null(login_name_fault(SLICE_LITERAL("a\nb")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(many_users_come_and_go),
        cmocka_unit_test(what_is_no_table_is_refused),
        cmocka_unit_test(hashes_of_other_kinds_serve),
        cmocka_unit_test(passwords_are_bounded),
        cmocka_unit_test(addresses_are_patterns),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
