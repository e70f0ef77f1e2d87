/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base64.h"
#include "proto/sasl.h"

#define FIRST                                                                                      \
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"

struct exchange {
    struct sasl_client *client;
    struct buffer response;
};

/* With the nonce of RFC 7677's example. */
static int begin(struct exchange *exchange, enum sasl_mechanism mechanism, const char *name,
                 const char *password)
{
    struct buffer nonce;
    buffer_init(&nonce, 0);
    assert_int_equal(base64_decode(&nonce, SLICE_LITERAL("rOprNGfwEbeRWgbNEkqO")), ERROR_NONE);
    assert_int_equal(nonce.length, SASL_NONCE_BYTES);
    buffer_init(&exchange->response, 0);
    enum error error = sasl_client_new(mechanism, slice_from_text(name), slice_from_text(password),
                                       nonce.data, &exchange->client);
    buffer_done(&nonce);
    return error;
}

static void end(struct exchange *exchange)
{
    sasl_client_free(exchange->client);
    buffer_done(&exchange->response);
}

static void answers(struct exchange *exchange, const char *challenge, struct slice expected)
{
    buffer_clear(&exchange->response);
    assert_int_equal(
        sasl_client_step(exchange->client, slice_from_text(challenge), &exchange->response),
        ERROR_NONE);
    assert_int_equal(exchange->response.length, expected.length);
    assert_memory_equal(exchange->response.data, expected.data, expected.length);
}

static void refuses(struct exchange *exchange, const char *challenge)
{
    assert_int_equal(
        sasl_client_step(exchange->client, slice_from_text(challenge), &exchange->response),
        ERROR_INVALID);
    assert_false(sasl_client_done(exchange->client));
}

static void plain_says_all_at_once(void **state)
{
    (void)state;
    struct exchange exchange;
    assert_int_equal(begin(&exchange, SASL_PLAIN, "tim", "tanstaaf"), ERROR_NONE);
    assert_true(sasl_client_begins(exchange.client));
    assert_true(sasl_shows_password(SASL_PLAIN));
    answers(&exchange, "", SLICE_LITERAL("\0tim\0tanstaaf"));
    assert_true(sasl_client_done(exchange.client));
    assert_int_equal(sasl_client_step(exchange.client, SLICE_EMPTY, &exchange.response),
                     ERROR_INVALID);
    end(&exchange);
}

static void login_says_it_in_two_steps(void **state)
{
    (void)state;
    struct exchange exchange;
    assert_int_equal(begin(&exchange, SASL_LOGIN, "tim", "tanstaaf"), ERROR_NONE);
    assert_false(sasl_client_begins(exchange.client));
    answers(&exchange, "Username:", SLICE_LITERAL("tim"));
    assert_false(sasl_client_done(exchange.client));
    answers(&exchange, "Password:", SLICE_LITERAL("tanstaaf"));
    assert_true(sasl_client_done(exchange.client));
    end(&exchange);
}

static void scram_is_that_of_rfc_7677(void **state)
{
    (void)state;
    struct exchange exchange;
    assert_int_equal(begin(&exchange, SASL_SCRAM_SHA_256, "user", "pencil"), ERROR_NONE);
    assert_false(sasl_shows_password(SASL_SCRAM_SHA_256));
    answers(&exchange, "", SLICE_LITERAL("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"));
    answers(&exchange, FIRST,
            SLICE_LITERAL("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                          "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="));
    assert_false(sasl_client_done(exchange.client));
    answers(&exchange, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", SLICE_EMPTY);
    assert_true(sasl_client_done(exchange.client));
    end(&exchange);
}

static void scram_writes_commas_and_equals_signs_of_a_name_in_code(void **state)
{
    (void)state;
    struct exchange exchange;
    assert_int_equal(begin(&exchange, SASL_SCRAM_SHA_256, "a=b,c", "pencil"), ERROR_NONE);
    answers(&exchange, "", SLICE_LITERAL("n,,n=a=3Db=2Cc,r=rOprNGfwEbeRWgbNEkqO"));
    end(&exchange);
}

static void scram_believes_no_server_without_proof(void **state)
{
    (void)state;
    static const char *const finals[] = {
        "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        "v=6rriTRBi23WpRR/wtup+mMhUZUn=",
        "v=",
        "",
        "e=other-error",
    };
    for (size_t i = 0; i < sizeof(finals) / sizeof(finals[0]); i++) {
        struct exchange exchange;
        assert_int_equal(begin(&exchange, SASL_SCRAM_SHA_256, "user", "pencil"), ERROR_NONE);
        assert_int_equal(sasl_client_step(exchange.client, SLICE_EMPTY, &exchange.response),
                         ERROR_NONE);
        assert_int_equal(
            sasl_client_step(exchange.client, SLICE_LITERAL(FIRST), &exchange.response),
            ERROR_NONE);
        refuses(&exchange, finals[i]);
        end(&exchange);
    }
}

static void scram_refuses_a_first_message_that_weakens_it(void **state)
{
    (void)state;
    static const char *const firsts[] = {
        "",
        "r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",                 /* not our nonce */
        "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",    /* nothing of its own */
        "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095",   /* cheap to guess from */
        "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=100001", /* dear to us */
        "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=-1",
        "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ,i=4096",
        "r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096",
        "s=W22ZaJ0SNY7soEsUEjb6gQ==,r=rOprNGfwEbeRWgbNEkqOx,i=4096",
        "m=ext,r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", /* RFC 5802 5.1 */
        "r=rOprNGfwEbeRWgbNEkqOx",
    };
    for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        struct exchange exchange;
        assert_int_equal(begin(&exchange, SASL_SCRAM_SHA_256, "user", "pencil"), ERROR_NONE);
        assert_int_equal(sasl_client_step(exchange.client, SLICE_EMPTY, &exchange.response),
                         ERROR_NONE);
        refuses(&exchange, firsts[i]);
        end(&exchange);
    }
}

static void names_and_passwords_are_bounded(void **state)
{
    (void)state;
    char longest[SASL_SECRET_MAX + 2];
    memset(longest, 'x', sizeof(longest) - 1);
    longest[SASL_SECRET_MAX + 1] = '\0';
    struct exchange exchange;
    assert_int_equal(begin(&exchange, SASL_PLAIN, longest, "p"), ERROR_INVALID);
    assert_int_equal(begin(&exchange, SASL_PLAIN, "u", longest), ERROR_INVALID);
    assert_int_equal(begin(&exchange, SASL_PLAIN, "", "p"), ERROR_INVALID);
    assert_int_equal(begin(&exchange, SASL_PLAIN, "u", ""), ERROR_INVALID);
    assert_int_equal(begin(&exchange, SASL_PLAIN, "u\r\nQUIT", "p"), ERROR_INVALID);
    assert_int_equal(begin(&exchange, SASL_NONE, "u", "p"), ERROR_INVALID);
    longest[SASL_SECRET_MAX] = '\0';
    assert_int_equal(begin(&exchange, SASL_PLAIN, longest, longest), ERROR_NONE);
    end(&exchange);
}

static void mechanisms_have_names(void **state)
{
    (void)state;
    assert_int_equal(sasl_find(SLICE_LITERAL("scram-sha-256")), SASL_SCRAM_SHA_256);
    assert_int_equal(sasl_find(SLICE_LITERAL("SCRAM-SHA-256-PLUS")), SASL_NONE);
    assert_int_equal(sasl_find(SLICE_EMPTY), SASL_NONE);
    assert_string_equal(sasl_name(SASL_LOGIN), "LOGIN");
    assert_string_equal(sasl_name(SASL_NONE), "");
}

static void cram_is_that_of_rfc_2195(void **state)
{
    (void)state;
    struct slice challenge = SLICE_LITERAL("<1896.697170952@postoffice.reston.mci.net>");
    struct slice password = SLICE_LITERAL("tanstaaftanstaaf"), name, proof;
    assert_int_equal(
        sasl_cram_read(SLICE_LITERAL("tim b913a602c7eda7a495b4e6e7334d3890"), &name, &proof),
        ERROR_NONE);
    assert_true(slice_equal(name, SLICE_LITERAL("tim")));
    assert_true(sasl_cram_proves(challenge, password, proof));
    assert_false(sasl_cram_proves(challenge, SLICE_LITERAL("another"), proof));
    assert_false(sasl_cram_proves(SLICE_LITERAL("<1@x>"), password, proof));
}

static void cram_takes_only_a_name_and_a_proof(void **state)
{
    (void)state;
    struct slice name, proof;
    static const char *const bad[] = {"",
                                      "tim",
                                      " b913a602c7eda7a495b4e6e7334d3890",
                                      "tim b913a602c7eda7a495b4e6e7334d389",
                                      "tim b913a602c7eda7a495b4e6e7334d38900",
                                      "tim "};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(sasl_cram_read(slice_from_text(bad[i]), &name, &proof), ERROR_INVALID);
    }
    assert_int_equal(
        sasl_cram_read(SLICE_LITERAL("ann lee b913a602c7eda7a495b4e6e7334d3890"), &name, &proof),
        ERROR_NONE);
    assert_true(slice_equal(name, SLICE_LITERAL("ann lee")));
}

static void cram_challenges_are_message_ids(void **state)
{
    (void)state;
    static const uint8_t nonce[SASL_NONCE_BYTES] = {0xab, 1};
    struct buffer challenge;
    buffer_init(&challenge, 0);
    sasl_cram_challenge(nonce, SLICE_LITERAL("mx2.example.net"), &challenge);
    assert_true(slice_equal(buffer_slice(&challenge),
                            SLICE_LITERAL("<ab0100000000000000000000000000@mx2.example.net>")));
    buffer_done(&challenge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_says_all_at_once),
        cmocka_unit_test(login_says_it_in_two_steps),
        cmocka_unit_test(scram_is_that_of_rfc_7677),
        cmocka_unit_test(scram_writes_commas_and_equals_signs_of_a_name_in_code),
        cmocka_unit_test(scram_believes_no_server_without_proof),
        cmocka_unit_test(scram_refuses_a_first_message_that_weakens_it),
        cmocka_unit_test(names_and_passwords_are_bounded),
        cmocka_unit_test(mechanisms_have_names),
        cmocka_unit_test(cram_is_that_of_rfc_2195),
        cmocka_unit_test(cram_takes_only_a_name_and_a_proof),
        cmocka_unit_test(cram_challenges_are_message_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
