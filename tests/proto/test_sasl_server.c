/* SPDX-License-Identifier: Apache-2.0
 *
 * The server's side of SASL: against our own client, against RFC 7677's example, and against what a
 * stranger may send.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/base64.h"
#include "proto/sasl_server.h"

static const uint8_t nonce[SASL_NONCE_BYTES] = {1, 2, 3};
#define SALT SLICE_LITERAL("\x5b\x6d\x99\x68\x9d\x12\x35\x8e\xec\xa0\x4b\x14\x12\x36\xfa\x81")

enum { ITERATIONS = 4096 };

/* What the keeper of the secrets would do for "user" with "pencil". */
static enum sasl_turn decide(struct sasl_server *server, enum sasl_turn question,
                             struct buffer *challenge)
{
    struct sasl_scram_keys keys;
    uint8_t signature[SASL_PROOF_BYTES] = {0};
    bool is_user = slice_equal(sasl_server_name(server), SLICE_LITERAL("user"));
    switch (question) {
    case SASL_PASSWORD:
        return sasl_server_judge(
            server, is_user && slice_equal(sasl_server_password(server), SLICE_LITERAL("pencil")),
            signature, challenge);
    case SASL_SALT:
        return sasl_server_salt(server, SALT, ITERATIONS, challenge);
    case SASL_PROOF:
        assert_int_equal(sasl_scram_derive(SLICE_LITERAL("pencil"), SALT, ITERATIONS, &keys),
                         ERROR_NONE);
        bool proves = sasl_scram_proves(&keys, sasl_server_auth_message(server),
                                        sasl_server_proof(server), signature);
        return sasl_server_judge(server, is_user && proves, signature, challenge);
    default:
        return question;
    }
}

/* A whole exchange; true if the server is content, and then the client must be. */
static bool log_in(enum sasl_mechanism mechanism, const char *name, const char *password,
                   bool with_initial)
{
    struct sasl_server *server = sasl_server_new(mechanism, nonce, SLICE_LITERAL("mx.example"));
    struct sasl_client *client;
    struct buffer response, challenge;
    assert_non_null(server);
    buffer_init(&response, 0);
    buffer_init(&challenge, 0);
    assert_int_equal(sasl_client_new(mechanism, slice_from_text(name), slice_from_text(password),
                                     nonce, &client),
                     ERROR_NONE);
    with_initial = with_initial && sasl_client_begins(client);
    if (with_initial) {
        assert_int_equal(sasl_client_step(client, SLICE_EMPTY, &response), ERROR_NONE);
    }
    enum sasl_turn turn =
        sasl_server_step(server, with_initial, buffer_slice(&response), &challenge);
    for (;;) {
        while (turn == SASL_PASSWORD || turn == SASL_SALT || turn == SASL_PROOF) {
            turn = decide(server, turn, &challenge);
        }
        if (turn != SASL_CHALLENGE) {
            break;
        }
        buffer_clear(&response);
        if (sasl_client_step(client, buffer_slice(&challenge), &response) != ERROR_NONE) {
            turn = SASL_MALFORMED;
            break;
        }
        buffer_clear(&challenge);
        turn = sasl_server_step(server, true, buffer_slice(&response), &challenge);
    }
    if (turn == SASL_DONE) {
        assert_true(sasl_client_done(client));
        assert_true(slice_equal(sasl_server_name(server), slice_from_text(name)));
        assert_int_equal(sasl_server_password(server).length, 0); /* forgotten */
    }
    sasl_server_free(server);
    sasl_client_free(client);
    buffer_done(&response);
    buffer_done(&challenge);
    return turn == SASL_DONE;
}

static void lets_in_who_knows_the_password(void **state)
{
    (void)state;
    static const enum sasl_mechanism all[] = {SASL_PLAIN, SASL_LOGIN, SASL_SCRAM_SHA_256};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        for (int with_initial = 0; with_initial < 2; with_initial++) {
            assert_true(log_in(all[i], "user", "pencil", with_initial));
            assert_false(log_in(all[i], "user", "pencil2", with_initial));
            assert_false(log_in(all[i], "user2", "pencil", with_initial));
            assert_false(log_in(all[i], "us,e=r", "pencil", with_initial));
        }
    }
}

/* One response to a new exchange that has been begun. */
static enum sasl_turn first(enum sasl_mechanism mechanism, struct slice response,
                            struct sasl_server **ret_server)
{
    struct buffer challenge;
    buffer_init(&challenge, 0);
    *ret_server = sasl_server_new(mechanism, nonce, SLICE_LITERAL("mx.example"));
    assert_non_null(*ret_server);
    enum sasl_turn turn = sasl_server_step(*ret_server, true, response, &challenge);
    buffer_done(&challenge);
    return turn;
}

static void malformed(enum sasl_mechanism mechanism, struct slice response)
{
    struct sasl_server *server;
    struct buffer challenge;
    buffer_init(&challenge, 0);
    assert_int_equal(first(mechanism, response, &server), SASL_MALFORMED);
    /* And it stays so. */
    assert_int_equal(sasl_server_step(server, true, SLICE_LITERAL("\0user\0pencil"), &challenge),
                     SASL_MALFORMED);
    sasl_server_free(server);
    buffer_done(&challenge);
}

static void plain_is_three_parts(void **state)
{
    (void)state;
    struct sasl_server *server;
    malformed(SASL_PLAIN, SLICE_EMPTY);
    malformed(SASL_PLAIN, SLICE_LITERAL("user"));
    malformed(SASL_PLAIN, SLICE_LITERAL("\0user"));
    malformed(SASL_PLAIN, SLICE_LITERAL("\0user\0"));
    malformed(SASL_PLAIN, SLICE_LITERAL("\0\0pencil"));
    malformed(SASL_PLAIN, SLICE_LITERAL("\0user\0pencil\0more"));
    malformed(SASL_PLAIN, SLICE_LITERAL("\0us\r\ner\0pencil"));
    malformed(SASL_PLAIN, SLICE_LITERAL("other\0user\0pencil")); /* in another's name */
    assert_int_equal(first(SASL_PLAIN, SLICE_LITERAL("user\0user\0pencil"), &server),
                     SASL_PASSWORD);
    assert_true(slice_equal(sasl_server_name(server), SLICE_LITERAL("user")));
    assert_true(slice_equal(sasl_server_password(server), SLICE_LITERAL("pencil")));
    sasl_server_free(server);
}

static void scram_begins_with_a_name_and_a_nonce(void **state)
{
    (void)state;
    struct sasl_server *server;
    static const char *const bad[] = {
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=user",
        "n,,n=,r=abc",
        "n,,n=user,r=",
        "n,,n=user,r=a\tb",
        "n,,m=ext,n=user,r=abc",
        "n,b=user,n=user,r=abc",
        "n,a=other,n=user,r=abc",
        "n,,n=us=er,r=abc",
        "n,,n=user=2,r=abc",
        "p=tls-unique,,n=user,r=abc",
        "x,,n=user,r=abc",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        malformed(SASL_SCRAM_SHA_256, slice_from_text(bad[i]));
    }
    static const char *const good[] = {"n,,n=user,r=abc", "y,,n=user,r=abc",
                                       "n,a=user,n=user,r=abc,x=unknown"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(first(SASL_SCRAM_SHA_256, slice_from_text(good[i]), &server), SASL_SALT);
        assert_true(slice_equal(sasl_server_name(server), SLICE_LITERAL("user")));
        sasl_server_free(server);
    }
    assert_int_equal(first(SASL_SCRAM_SHA_256, SLICE_LITERAL("n,,n=a=3Db=2Cc,r=abc"), &server),
                     SASL_SALT);
    assert_true(slice_equal(sasl_server_name(server), SLICE_LITERAL("a=b,c")));
    sasl_server_free(server);
}

static void names_and_nonces_are_bounded(void **state)
{
    (void)state;
    char text[1200];
    struct sasl_server *server;
    for (int length = SASL_SECRET_MAX; length <= SASL_SECRET_MAX + 1; length++) {
        int end = snprintf(text, sizeof(text), "n,,n=%0*d,r=abc", length, 1);
        assert_int_equal(first(SASL_SCRAM_SHA_256, slice_make(text, (size_t)end), &server),
                         length == SASL_SECRET_MAX ? SASL_SALT : SASL_MALFORMED);
        sasl_server_free(server);
    }
    for (int length = SASL_CLIENT_NONCE_MAX; length <= SASL_CLIENT_NONCE_MAX + 1; length++) {
        int end = snprintf(text, sizeof(text), "n,,n=user,r=%0*d", length, 1);
        assert_int_equal(first(SASL_SCRAM_SHA_256, slice_make(text, (size_t)end), &server),
                         length == SASL_CLIENT_NONCE_MAX ? SASL_SALT : SASL_MALFORMED);
        sasl_server_free(server);
    }
}

static enum sasl_turn final(const char *format)
{
    struct sasl_server *server;
    struct buffer challenge;
    char text[400];
    buffer_init(&challenge, 0);
    assert_int_equal(first(SASL_SCRAM_SHA_256, SLICE_LITERAL("n,,n=user,r=abc"), &server),
                     SASL_SALT);
    assert_int_equal(sasl_server_salt(server, SALT, ITERATIONS, &challenge), SASL_CHALLENGE);
    assert_true(
        slice_equal(buffer_slice(&challenge), SLICE_LITERAL("r=abcAQIDAAAAAAAAAAAAAAAA,"
                                                            "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")));
    snprintf(text, sizeof(text), format, "abcAQIDAAAAAAAAAAAAAAAA",
             "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    enum sasl_turn turn = sasl_server_step(server, true, slice_from_text(text), &challenge);
    sasl_server_free(server);
    buffer_done(&challenge);
    return turn;
}

static void scram_ends_with_the_same_nonce_and_a_proof(void **state)
{
    (void)state;
    assert_int_equal(final("c=biws,r=%s,p=%s"), SASL_PROOF);
    assert_int_equal(final("c=biws,r=%s,x=new,p=%s"), SASL_PROOF);
    assert_int_equal(final("c=eSws,r=%s,p=%s"), SASL_MALFORMED); /* "y,,": not what was said */
    assert_int_equal(final("c=biws,r=%sx,p=%s"), SASL_MALFORMED);
    assert_int_equal(final("c=biws,r=abc,p=%s"), SASL_MALFORMED);
    assert_int_equal(final("r=%s,p=%s"), SASL_MALFORMED);
    assert_int_equal(final("c=biws,r=%s"), SASL_MALFORMED);
    assert_int_equal(final("c=biws,r=%s,p=AAAA"), SASL_MALFORMED);
    assert_int_equal(final("c=biws,r=%s,p=%s="), SASL_MALFORMED);
    assert_int_equal(final("%.0s%.0s"), SASL_MALFORMED);
}

/* The example's own nonces; its proof is right and its signature is what we answer. */
static void scram_is_that_of_rfc_7677(void **state)
{
    (void)state;
    struct sasl_scram_keys keys;
    uint8_t signature[SASL_PROOF_BYTES];
    struct buffer proof, text;
    buffer_init(&proof, 0);
    buffer_init(&text, 0);
    struct slice auth_message =
        SLICE_LITERAL("n=user,r=rOprNGfwEbeRWgbNEkqO,"
                      "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                      "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
                      "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    assert_int_equal(
        base64_decode(&proof, SLICE_LITERAL("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")),
        ERROR_NONE);
    assert_int_equal(sasl_scram_derive(SLICE_LITERAL("pencil"), SALT, 4096, &keys), ERROR_NONE);
    assert_true(sasl_scram_proves(&keys, auth_message, buffer_slice(&proof), signature));
    base64_encode(&text, slice_make(signature, sizeof(signature)));
    assert_true(slice_equal(buffer_slice(&text),
                            SLICE_LITERAL("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")));
    proof.data[0] ^= 1;
    assert_false(sasl_scram_proves(&keys, auth_message, buffer_slice(&proof), signature));
    buffer_done(&proof);
    buffer_done(&text);
}

static void cram_md5_asks_whether_the_proof_is_right(void **state)
{
    (void)state;
    struct sasl_server *server = sasl_server_new(SASL_CRAM_MD5, nonce, SLICE_LITERAL("mx.example"));
    struct buffer challenge;
    uint8_t none[SASL_PROOF_BYTES] = {0};
    buffer_init(&challenge, 0);
    assert_int_equal(sasl_server_step(server, false, SLICE_EMPTY, &challenge), SASL_CHALLENGE);
    assert_true(slice_equal(buffer_slice(&challenge),
                            SLICE_LITERAL("<010203000000000000000000000000@mx.example>")));
    assert_int_equal(sasl_server_step(server, true,
                                      SLICE_LITERAL("a b 0123456789abcdef0123456789ABCDEF"),
                                      &challenge),
                     SASL_PROOF);
    assert_true(slice_equal(sasl_server_name(server), SLICE_LITERAL("a b")));
    assert_true(
        slice_equal(sasl_server_proof(server), SLICE_LITERAL("0123456789abcdef0123456789ABCDEF")));
    assert_true(slice_equal(sasl_server_auth_message(server), buffer_slice(&challenge)));
    assert_int_equal(sasl_server_judge(server, true, none, &challenge), SASL_DONE);
    sasl_server_free(server);
    buffer_done(&challenge);
    assert_int_equal(sasl_client_new(SASL_CRAM_MD5, SLICE_LITERAL("user"), SLICE_LITERAL("pencil"),
                                     nonce, &(struct sasl_client *){NULL}),
                     ERROR_INVALID);
}

static void cram_md5_takes_nothing_else(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "user", "user 0123", " 0123456789abcdef0123456789abcdef",
                                      "user 0123456789abcdef0123456789abcdef0"};
    struct sasl_server *server;
    struct buffer challenge;
    buffer_init(&challenge, 0);
    /* An answer before the question. */
    malformed(SASL_CRAM_MD5, SLICE_LITERAL("user 0123456789abcdef0123456789abcdef"));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        server = sasl_server_new(SASL_CRAM_MD5, nonce, SLICE_LITERAL("mx.example"));
        assert_int_equal(sasl_server_step(server, false, SLICE_EMPTY, &challenge), SASL_CHALLENGE);
        assert_int_equal(sasl_server_step(server, true, slice_from_text(bad[i]), &challenge),
                         SASL_MALFORMED);
        sasl_server_free(server);
    }
    buffer_done(&challenge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lets_in_who_knows_the_password),
        cmocka_unit_test(plain_is_three_parts),
        cmocka_unit_test(scram_begins_with_a_name_and_a_nonce),
        cmocka_unit_test(names_and_nonces_are_bounded),
        cmocka_unit_test(scram_ends_with_the_same_nonce_and_a_proof),
        cmocka_unit_test(scram_is_that_of_rfc_7677),
        cmocka_unit_test(cram_md5_asks_whether_the_proof_is_right),
        cmocka_unit_test(cram_md5_takes_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
