/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/digest.h"

static void assert_hex(const uint8_t *bytes, size_t length, const char *hex)
{
    struct buffer text;
    buffer_init(&text, 0);
    for (size_t i = 0; i < length; i++) {
        buffer_printf(&text, "%02x", bytes[i]);
    }
    buffer_put_u8(&text, 0);
    assert_string_equal((const char *)text.data, hex);
    buffer_done(&text);
}

static void digests_are_those_of_the_standards(void **state)
{
    (void)state;
    uint8_t bytes[DIGEST_MAX_BYTES];
    assert_int_equal(digest_prepare(), ERROR_NONE);
    assert_int_equal(digest_make(DIGEST_SHA256, SLICE_LITERAL("abc"), bytes), ERROR_NONE);
    assert_hex(bytes, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(digest_make(DIGEST_MD5, SLICE_EMPTY, bytes), ERROR_NONE);
    assert_hex(bytes, 16, "d41d8cd98f00b204e9800998ecf8427e");
}

static void keyed_digests_are_those_of_the_standards(void **state)
{
    (void)state;
    uint8_t bytes[DIGEST_MAX_BYTES];
    /* RFC 4231 section 4.3, RFC 2202 section 2 */
    struct slice input = SLICE_LITERAL("what do ya want for nothing?");
    assert_int_equal(digest_hmac(DIGEST_SHA256, SLICE_LITERAL("Jefe"), input, bytes), ERROR_NONE);
    assert_hex(bytes, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_int_equal(digest_hmac(DIGEST_MD5, SLICE_LITERAL("Jefe"), input, bytes), ERROR_NONE);
    assert_hex(bytes, 16, "750c783e6ab0b503eaa86e310a5db738");
    assert_int_equal(digest_hmac(DIGEST_SHA256, SLICE_EMPTY, SLICE_EMPTY, bytes), ERROR_NONE);
    assert_hex(bytes, 32, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void keys_come_from_passwords(void **state)
{
    (void)state;
    uint8_t key[DIGEST_SHA256_BYTES];
    /* RFC 7914 section 11, the first 32 of 64 octets. */
    assert_int_equal(digest_from_password(SLICE_LITERAL("passwd"), SLICE_LITERAL("salt"), 1, key),
                     ERROR_NONE);
    assert_hex(key, 32, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc");
    assert_int_not_equal(
        digest_from_password(SLICE_LITERAL("passwd"), SLICE_LITERAL("salt"), 0, key), ERROR_NONE);
    assert_hex(key, 32, "0000000000000000000000000000000000000000000000000000000000000000");
}

static void secrets_are_compared_whole(void **state)
{
    (void)state;
    assert_true(digest_equal(SLICE_LITERAL("secret"), SLICE_LITERAL("secret")));
    assert_false(digest_equal(SLICE_LITERAL("secret"), SLICE_LITERAL("secreT")));
    assert_false(digest_equal(SLICE_LITERAL("secret"), SLICE_LITERAL("secre")));
    assert_true(digest_equal(SLICE_EMPTY, SLICE_EMPTY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_those_of_the_standards),
        cmocka_unit_test(keyed_digests_are_those_of_the_standards),
        cmocka_unit_test(keys_come_from_passwords),
        cmocka_unit_test(secrets_are_compared_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
