/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS over a socket pair: both sides in one thread, with certificates made here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sys/tls.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys/loop.h"
#include "sys/net.h"

enum { DAY = 24 * 3600, PEM_SIZE = 8192 };

/* ---- certificates ---------------------------------------------------------------------------- */

struct made {
    X509 *x509;
    EVP_PKEY *key;
    char chain[PEM_SIZE];
    char pem[PEM_SIZE]; /* of the key */
    struct tls_certificate certificate;
};

static void write_pem(struct made *made, const struct made *issuer)
{
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_X509(bio, made->x509), 1);
    if (issuer != NULL) {
        assert_int_equal(PEM_write_bio_X509(bio, issuer->x509), 1);
    }
    int length = BIO_read(bio, made->chain, PEM_SIZE - 1);
    made->chain[length] = 0;
    assert_int_equal(PEM_write_bio_PrivateKey(bio, made->key, NULL, NULL, 0, NULL, NULL), 1);
    length = BIO_read(bio, made->pem, PEM_SIZE - 1);
    made->pem[length] = 0;
    BIO_free(bio);
    made->certificate =
        (struct tls_certificate){slice_from_text(made->chain), slice_from_text(made->pem)};
}

static void extend(X509 *x509, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(x509, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

/* An authority without `issuer`, else "DNS:..." names; `days` from now it ends. */
static struct made *make(const char *subject, const struct made *issuer, const char *names,
                         int days)
{
    static long serial;
    struct made *made = calloc(1, sizeof(*made));
    made->key = EVP_EC_gen("P-256");
    X509 *x509 = made->x509 = X509_new();
    X509_set_version(x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x509), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(x509), -100 * DAY);
    X509_gmtime_adj(X509_getm_notAfter(x509), (long)days * DAY);
    X509_set_pubkey(x509, made->key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_ASC,
                               (const unsigned char *)subject, -1, -1, 0);
    X509 *by = issuer != NULL ? issuer->x509 : x509;
    X509_set_issuer_name(x509, X509_get_subject_name(by));
    if (issuer == NULL) {
        extend(x509, by, NID_basic_constraints, "critical,CA:TRUE");
        extend(x509, by, NID_key_usage, "critical,keyCertSign");
    }
    if (names != NULL) {
        extend(x509, by, NID_subject_alt_name, names);
    }
    assert_true(X509_sign(x509, issuer != NULL ? issuer->key : made->key, EVP_sha256()) > 0);
    write_pem(made, issuer);
    return made;
}

static void unmake(struct made *made)
{
    X509_free(made->x509);
    EVP_PKEY_free(made->key);
    free(made);
}

static struct made *root, *mail, *other, *expired;
static struct tls_tickets tickets;

static int set_up(void **state)
{
    (void)state;
    assert_int_equal(tls_prepare(), ERROR_NONE);
    root = make("Root", NULL, NULL, 100);
    mail = make("mail", root, "DNS:mail.example.net,DNS:*.wild.example.net", 50);
    other = make("other", root, "DNS:other.example.net", 50);
    expired = make("expired", root, "DNS:mail.example.net", -1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unmake(root);
    unmake(mail);
    unmake(other);
    unmake(expired);
    return 0;
}

/* ---- a pair ---------------------------------------------------------------------------------- */

struct pair {
    int fds[2]; /* server, client */
    struct tls_server *server;
    struct tls_client *client;
    struct tls *sides[2];
    enum error errors[2];
    char problems[2][TLS_PROBLEM_SIZE];
};

static void sockets(struct pair *pair)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair->fds), 0);
}

static struct tls_server *server_of(const struct made *first, const struct made *second)
{
    char problem[TLS_PROBLEM_SIZE] = "";
    struct tls_certificate both[2] = {first->certificate};
    if (second != NULL) {
        both[1] = second->certificate;
    }
    struct tls_server *server = tls_server_new(
        &(struct tls_server_settings){
            .certificates = both, .certificate_count = second != NULL ? 2 : 1, .tickets = &tickets},
        problem);
    assert_string_equal(problem, "");
    assert_non_null(server);
    return server;
}

static struct tls_client *client_of(const struct made *authority)
{
    char problem[TLS_PROBLEM_SIZE] = "";
    struct tls_client *client = tls_client_new(slice_from_text(authority->chain), problem);
    assert_string_equal(problem, "");
    return client;
}

/* Until neither side can go on. */
static void shake(struct pair *pair)
{
    pair->errors[0] = pair->errors[1] = ERROR_AGAIN;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 2; i++) {
            if (pair->sides[i] != NULL && pair->errors[i] == ERROR_AGAIN) {
                pair->errors[i] = tls_shake_hands(pair->sides[i], pair->problems[i]);
            }
        }
    }
}

static void meet(struct pair *pair, struct tls_server *server, const struct tls_peer *peer)
{
    *pair = (struct pair){.server = server, .client = client_of(root)};
    sockets(pair);
    pair->sides[0] = tls_accept(server, pair->fds[0]);
    pair->sides[1] = tls_connect(pair->client, peer, pair->fds[1]);
    assert_non_null(pair->sides[0]);
    assert_non_null(pair->sides[1]);
    shake(pair);
}

static void part(struct pair *pair)
{
    for (int i = 0; i < 2; i++) {
        tls_free(pair->sides[i]);
        close(pair->fds[i]);
    }
    tls_server_free(pair->server);
    tls_client_free(pair->client);
}

static void say(struct pair *pair, int from, const char *text)
{
    char heard[64] = "";
    size_t length = 0;
    assert_int_equal(tls_send(pair->sides[from], slice_from_text(text), &length), ERROR_NONE);
    assert_int_equal(length, strlen(text));
    assert_int_equal(tls_receive(pair->sides[1 - from], heard, sizeof(heard) - 1, &length),
                     ERROR_NONE);
    heard[length] = 0;
    assert_string_equal(heard, text);
}

static const struct slice mail_name = SLICE_LITERAL("mail.example.net");

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_talk(void **state)
{
    (void)state;
    struct pair pair;
    struct tls_facts facts;
    struct tls_peer peer = {.trust = TLS_TRUST_AUTHORITIES, .name = mail_name};
    meet(&pair, server_of(mail, NULL), &peer);
    assert_int_equal(pair.errors[0], ERROR_NONE);
    assert_int_equal(pair.errors[1], ERROR_NONE);
    tls_facts(pair.sides[1], &facts);
    assert_string_equal(facts.protocol, "TLSv1.3");
    assert_true(facts.proved);
    assert_false(facts.resumed);
    assert_int_equal(strlen(facts.fingerprint), 64);
    tls_facts(pair.sides[0], &facts);
    assert_true(slice_equal(facts.server_name, mail_name));
    assert_false(facts.has_certificate);
    assert_false(facts.proved);
    char text[TLS_TEXT_SIZE];
    tls_describe(pair.sides[0], text);
    assert_non_null(strstr(text, "TLSv1.3 TLS_"));
    say(&pair, 1, "EHLO client");
    say(&pair, 0, "250 server");
    part(&pair);
}

static void expect_refusal(const struct made *shown, const struct tls_peer *peer, const char *why)
{
    struct pair pair;
    struct tls_facts facts;
    meet(&pair, server_of(shown, NULL), peer);
    if (!peer->only_look) {
        assert_int_equal(pair.errors[1], ERROR_DENIED);
        assert_non_null(strstr(pair.problems[1], why));
    } else {
        assert_int_equal(pair.errors[1], ERROR_NONE);
        tls_facts(pair.sides[1], &facts);
        assert_false(facts.proved);
        assert_non_null(strstr(facts.problem, why));
        say(&pair, 1, "goes on");
    }
    part(&pair);
}

static void test_wrong_certificates(void **state)
{
    (void)state;
    struct made *stranger = make("stranger", NULL, "DNS:mail.example.net", 10);
    for (int look = 0; look < 2; look++) {
        struct tls_peer peer = {
            .trust = TLS_TRUST_AUTHORITIES, .only_look = look == 1, .name = mail_name};
        expect_refusal(other, &peer, "hostname mismatch");
        expect_refusal(expired, &peer, "expired");
        expect_refusal(stranger, &peer, "self-signed");
    }
    unmake(stranger);
}

static void test_anybody(void **state)
{
    (void)state;
    struct pair pair;
    struct tls_peer peer = {.trust = TLS_TRUST_ANYBODY, .name = mail_name};
    struct tls_facts facts;
    meet(&pair, server_of(expired, NULL), &peer);
    assert_int_equal(pair.errors[1], ERROR_NONE);
    tls_facts(pair.sides[1], &facts);
    assert_false(facts.proved);
    part(&pair);
}

static void test_names(void **state)
{
    (void)state;
    const struct slice names[] = {SLICE_LITERAL("example.org"),
                                  SLICE_LITERAL("a.wild.example.net")};
    struct pair pair;
    struct tls_peer peer = {.trust = TLS_TRUST_AUTHORITIES,
                            .name = SLICE_LITERAL("127.0.0.1"),
                            .names = names,
                            .name_count = 2};
    struct tls_facts facts;
    meet(&pair, server_of(mail, NULL), &peer);
    assert_int_equal(pair.errors[1], ERROR_NONE);
    tls_facts(pair.sides[0], &facts);
    assert_int_equal(facts.server_name.length, 0); /* an address is not sent */
    part(&pair);
    peer.name_count = 1;
    expect_refusal(mail, &peer, "hostname mismatch");
}

static void expect_shown(struct slice name, const struct made *wanted)
{
    struct pair pair;
    struct tls_peer peer = {.trust = TLS_TRUST_AUTHORITIES, .only_look = true, .name = name};
    struct tls_facts facts;
    char expected[TLS_FINGERPRINT_SIZE];
    uint8_t digest[32];
    meet(&pair, server_of(mail, other), &peer);
    assert_int_equal(pair.errors[1], ERROR_NONE);
    tls_facts(pair.sides[1], &facts);
    assert_int_equal(X509_digest(wanted->x509, EVP_sha256(), digest, NULL), 1);
    for (int i = 0; i < 32; i++) {
        snprintf(expected + 2 * i, 3, "%02x", digest[i]);
    }
    assert_string_equal(facts.fingerprint, expected);
    part(&pair);
}

static void test_certificate_by_name(void **state)
{
    (void)state;
    expect_shown(mail_name, mail);
    expect_shown(SLICE_LITERAL("other.example.net"), other);
    expect_shown(SLICE_LITERAL("OTHER.example.net"), other);
    expect_shown(SLICE_LITERAL("b.wild.example.net"), mail);
    expect_shown(SLICE_LITERAL("nobody.example.net"), mail);
}

/* ---- DANE ------------------------------------------------------------------------------------ */

/* "usage 1 1": of the public key, by SHA-256. */
static struct slice record_of(uint8_t record[35], uint8_t usage, const struct made *made)
{
    unsigned char *der = NULL;
    int length = i2d_PUBKEY(made->key, &der);
    assert_true(length > 0);
    record[0] = usage;
    record[1] = record[2] = 1;
    assert_int_equal(EVP_Digest(der, (size_t)length, record + 3, NULL, EVP_sha256(), NULL), 1);
    OPENSSL_free(der);
    return slice_make(record, 35);
}

static void expect_dane(const struct made *shown, uint8_t usage, const struct made *in_record,
                        bool good, const char *why)
{
    uint8_t bytes[35];
    struct slice record = record_of(bytes, usage, in_record);
    struct tls_peer peer = {
        .trust = TLS_TRUST_DANE, .name = mail_name, .tlsa = &record, .tlsa_count = 1};
    struct pair pair;
    meet(&pair, server_of(shown, NULL), &peer);
    assert_int_equal(pair.errors[1], good ? ERROR_NONE : ERROR_DENIED);
    if (good) {
        struct tls_facts facts;
        tls_facts(pair.sides[1], &facts);
        assert_true(facts.proved);
        say(&pair, 1, "proved");
    } else {
        assert_non_null(strstr(pair.problems[1], why));
    }
    part(&pair);
}

static void test_dane(void **state)
{
    (void)state;
    struct made *stranger = make("stranger", NULL, "DNS:elsewhere.example", 10);
    expect_dane(mail, 3, mail, true, NULL);
    expect_dane(other, 3, other, true, NULL);       /* names do not count */
    expect_dane(expired, 3, expired, true, NULL);   /* nor do dates */
    expect_dane(stranger, 3, stranger, true, NULL); /* nor authorities */
    expect_dane(mail, 3, other, false, "TLSA");
    expect_dane(mail, 2, root, true, NULL);
    expect_dane(other, 2, root, false, "hostname mismatch");
    expect_dane(expired, 2, root, false, "expired");
    expect_dane(stranger, 2, root, false, "TLSA");
    unmake(stranger);
}

static void test_usable_records(void **state)
{
    (void)state;
    uint8_t record[67] = {3, 1, 1};
    assert_true(tls_tlsa_is_usable(slice_make(record, 35)));
    assert_false(tls_tlsa_is_usable(slice_make(record, 34)));
    assert_false(tls_tlsa_is_usable(slice_make(record, 3)));
    assert_false(tls_tlsa_is_usable(SLICE_EMPTY));
    record[0] = 1;
    assert_false(tls_tlsa_is_usable(slice_make(record, 35)));
    record[0] = 2;
    record[2] = 2;
    assert_true(tls_tlsa_is_usable(slice_make(record, 67)));
    record[2] = 3;
    assert_false(tls_tlsa_is_usable(slice_make(record, 67)));
    record[2] = 0;
    record[1] = 2;
    assert_false(tls_tlsa_is_usable(slice_make(record, 67)));
}

static void test_only_unusable_records(void **state)
{
    (void)state;
    uint8_t bytes[35] = {1, 1, 1};
    struct slice record = slice_make(bytes, sizeof(bytes));
    struct tls_peer peer = {
        .trust = TLS_TRUST_DANE, .name = mail_name, .tlsa = &record, .tlsa_count = 1};
    struct tls_client *client = client_of(root);
    assert_null(tls_connect(client, &peer, 0)); /* the caller is to ask first */
    tls_client_free(client);
}

/* ---- tickets --------------------------------------------------------------------------------- */

/* One connection of a client that keeps its session; whether it was resumed. */
static bool resumes(struct tls_server *server, SSL_CTX *context, SSL_SESSION **session)
{
    struct pair pair = {.server = server};
    char byte;
    size_t length;
    sockets(&pair);
    pair.sides[0] = tls_accept(server, pair.fds[0]);
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, pair.fds[1]);
    if (*session != NULL) {
        SSL_set_session(ssl, *session);
        SSL_SESSION_free(*session);
    }
    enum error error = ERROR_AGAIN;
    for (int i = 0; i < 20 && (error == ERROR_AGAIN || SSL_in_init(ssl)); i++) {
        (void)SSL_connect(ssl);
        if (error == ERROR_AGAIN) {
            error = tls_shake_hands(pair.sides[0], pair.problems[0]);
        }
    }
    assert_int_equal(error, ERROR_NONE);
    assert_int_equal(tls_send(pair.sides[0], SLICE_LITERAL("x"), &length), ERROR_NONE);
    assert_int_equal(SSL_read(ssl, &byte, 1), 1);
    *session = SSL_get1_session(ssl);
    bool resumed = SSL_session_reused(ssl) == 1;
    struct tls_facts facts;
    tls_facts(pair.sides[0], &facts);
    assert_int_equal(facts.resumed, resumed);
    (void)SSL_shutdown(ssl); /* else its session counts as broken */
    SSL_free(ssl);
    tls_free(pair.sides[0]);
    close(pair.fds[0]);
    close(pair.fds[1]);
    tls_server_free(server);
    return resumed;
}

static void expect_resumption(int version)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_SESSION *session = NULL;
    SSL_CTX_set_max_proto_version(context, version);
    assert_false(resumes(server_of(mail, NULL), context, &session));
    assert_true(resumes(server_of(mail, NULL), context, &session)); /* another server */
    tickets.secret[0]++;
    assert_false(resumes(server_of(mail, NULL), context, &session));
    SSL_SESSION_free(session);
    SSL_CTX_free(context);
}

static struct tls_server *asking_server(const struct made *authority)
{
    char problem[TLS_PROBLEM_SIZE] = "";
    struct tls_server *server = tls_server_new(
        &(struct tls_server_settings){.certificates = &mail->certificate,
                                      .certificate_count = 1,
                                      .tickets = &tickets,
                                      .ask_client = true,
                                      .client_authorities =
                                          authority == NULL ? SLICE_EMPTY
                                                            : slice_from_text(authority->chain)},
        problem);
    assert_non_null(server);
    return server;
}

/* What a client has proved to some authorities is nothing to others. */
static void test_tickets_and_authorities(void **state)
{
    (void)state;
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_SESSION *session = NULL;
    assert_false(resumes(asking_server(mail), context, &session));
    assert_true(resumes(asking_server(mail), context, &session));
    assert_false(resumes(asking_server(NULL), context, &session));
    assert_false(resumes(asking_server(mail), context, &session));
    assert_false(resumes(server_of(mail, NULL), context, &session));
    SSL_SESSION_free(session);
    SSL_CTX_free(context);
}

static void test_tickets(void **state)
{
    (void)state;
    expect_resumption(TLS1_3_VERSION);
    expect_resumption(TLS1_2_VERSION);
}

/* ---- clients with certificates --------------------------------------------------------------- */

static void meet_client(const struct made *shown, const struct made *authority,
                        struct tls_facts *ret_facts)
{
    struct pair pair = {.server = asking_server(authority)};
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    sockets(&pair);
    if (shown != NULL) {
        assert_int_equal(SSL_CTX_use_certificate(context, shown->x509), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(context, shown->key), 1);
    }
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, pair.fds[1]);
    pair.sides[0] = tls_accept(pair.server, pair.fds[0]);
    enum error error = ERROR_AGAIN;
    for (int i = 0; i < 20 && (error == ERROR_AGAIN || SSL_in_init(ssl)); i++) {
        (void)SSL_connect(ssl);
        if (error == ERROR_AGAIN) {
            error = tls_shake_hands(pair.sides[0], pair.problems[0]);
        }
    }
    assert_int_equal(error, ERROR_NONE);
    tls_facts(pair.sides[0], ret_facts);
    SSL_free(ssl);
    SSL_CTX_free(context);
    part(&pair);
}

static void test_client_certificates(void **state)
{
    (void)state;
    struct tls_facts facts;
    meet_client(NULL, root, &facts);
    assert_false(facts.has_certificate);
    assert_false(facts.proved);
    meet_client(other, root, &facts);
    assert_true(facts.has_certificate);
    assert_true(facts.proved);
    meet_client(expired, root, &facts);
    assert_true(facts.has_certificate);
    assert_false(facts.proved);
    meet_client(other, NULL, &facts);
    assert_true(facts.has_certificate);
    assert_false(facts.proved);
    assert_int_equal(strlen(facts.fingerprint), 64);
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

static void expect_bad(struct slice chain, struct slice key, const char *why)
{
    char problem[TLS_PROBLEM_SIZE] = "";
    struct tls_certificate certificate = {chain, key};
    assert_int_equal(tls_certificate_check(&certificate, NULL, problem), ERROR_INVALID);
    if (strstr(problem, why) == NULL) {
        fail_msg("'%s' does not say '%s'", problem, why);
    }
    assert_null(tls_server_new(
        &(struct tls_server_settings){.certificates = &certificate, .certificate_count = 1},
        problem));
}

static void test_bad_certificates(void **state)
{
    (void)state;
    struct slice chain = mail->certificate.chain, key = mail->certificate.key;
    char problem[TLS_PROBLEM_SIZE] = "", sealed[PEM_SIZE];
    int64_t end_s = 0;
    assert_int_equal(tls_certificate_check(&mail->certificate, &end_s, problem), ERROR_NONE);
    assert_true(end_s > 49 * DAY);
    expect_bad(SLICE_EMPTY, key, "no certificate");
    expect_bad(SLICE_LITERAL("nonsense"), key, "no certificate");
    expect_bad(key, key, "no certificate");
    expect_bad(chain, SLICE_EMPTY, "no private key");
    expect_bad(chain, chain, "no private key");
    expect_bad(chain, other->certificate.key, "key values mismatch");
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PrivateKey(bio, mail->key, EVP_aes_128_cbc(),
                                              (const unsigned char *)"word", 4, NULL, NULL),
                     1);
    int length = BIO_read(bio, sealed, PEM_SIZE);
    BIO_free(bio);
    expect_bad(chain, slice_make(sealed, (size_t)length), "passphrase");
    assert_int_equal(tls_authorities_check(slice_from_text(root->chain), problem), ERROR_NONE);
    assert_int_equal(tls_authorities_check(SLICE_LITERAL("none"), problem), ERROR_INVALID);
    assert_int_equal(tls_authorities_check(SLICE_EMPTY, problem), ERROR_INVALID);
}

/* No TLS at all, and a client that leaves. */
static void test_garbage(void **state)
{
    (void)state;
    struct pair pair = {.server = server_of(mail, NULL), .client = client_of(root)};
    struct tls_peer peer = {.trust = TLS_TRUST_ANYBODY, .name = mail_name};
    sockets(&pair);
    pair.sides[0] = tls_accept(pair.server, pair.fds[0]);
    assert_int_equal(tls_shake_hands(pair.sides[0], pair.problems[0]), ERROR_AGAIN);
    assert_int_equal(tls_wants(pair.sides[0]), LOOP_READ);
    assert_int_equal(write(pair.fds[1], "EHLO client\r\n", 13), 13);
    assert_int_equal(tls_shake_hands(pair.sides[0], pair.problems[0]), ERROR_INVALID);
    assert_string_not_equal(pair.problems[0], "");
    part(&pair);

    pair = (struct pair){.server = server_of(mail, NULL), .client = client_of(root)};
    sockets(&pair);
    pair.sides[1] = tls_connect(pair.client, &peer, pair.fds[1]);
    assert_int_equal(tls_shake_hands(pair.sides[1], pair.problems[1]), ERROR_AGAIN);
    shutdown(pair.fds[0], SHUT_RDWR);
    assert_int_equal(tls_shake_hands(pair.sides[1], pair.problems[1]), ERROR_CLOSED);
    assert_string_not_equal(pair.problems[1], "");
    part(&pair);
}

static void test_old_protocols(void **state)
{
    (void)state;
    struct pair pair = {.server = server_of(mail, NULL)};
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_cipher_list(context, "ALL:@SECLEVEL=0");
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION);
    sockets(&pair);
    pair.sides[0] = tls_accept(pair.server, pair.fds[0]);
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, pair.fds[1]);
    (void)SSL_connect(ssl);
    assert_int_equal(tls_shake_hands(pair.sides[0], pair.problems[0]), ERROR_INVALID);
    assert_non_null(strstr(pair.problems[0], "protocol"));
    SSL_free(ssl);
    SSL_CTX_free(context);
    part(&pair);
}

/* More than the socket takes: each side waits for the other, and every byte arrives. */
static void test_a_lot(void **state)
{
    (void)state;
    enum { TOTAL = 3 << 20, PIECE = 70000 };
    struct pair pair;
    struct tls_peer peer = {.trust = TLS_TRUST_ANYBODY, .name = mail_name};
    static uint8_t out[PIECE], in[PIECE];
    size_t sent = 0, received = 0, length;
    bool waited = false;
    meet(&pair, server_of(mail, NULL), &peer);
    assert_int_equal(pair.errors[0], ERROR_NONE);
    while (received < TOTAL) {
        while (sent < TOTAL) {
            size_t size = TOTAL - sent < PIECE ? TOTAL - sent : PIECE;
            for (size_t i = 0; i < size; i++) {
                out[i] = (uint8_t)((sent + i) * 7 >> 3);
            }
            enum error error = tls_send(pair.sides[1], slice_make(out, size), &length);
            if (error == ERROR_AGAIN) {
                assert_int_equal(tls_interest(pair.sides[1], LOOP_WRITE), LOOP_WRITE);
                waited = true;
                break;
            }
            assert_int_equal(error, ERROR_NONE);
            sent += length;
        }
        enum error error;
        while ((error = tls_receive(pair.sides[0], in, sizeof(in), &length)) == ERROR_NONE) {
            for (size_t i = 0; i < length; i++) {
                assert_int_equal(in[i], (uint8_t)((received + i) * 7 >> 3));
            }
            received += length;
        }
        assert_int_equal(error, ERROR_AGAIN);
        assert_int_equal(tls_interest(pair.sides[0], LOOP_READ), LOOP_READ);
    }
    assert_true(waited);
    part(&pair);
}

/* A record longer than what is asked for: the descriptor is silent about the rest. */
static void test_unread(void **state)
{
    (void)state;
    struct pair pair;
    struct tls_peer peer = {.trust = TLS_TRUST_ANYBODY, .name = mail_name};
    char bytes[4];
    size_t length;
    meet(&pair, server_of(mail, NULL), &peer);
    assert_int_equal(tls_send(pair.sides[1], SLICE_LITERAL("eight ch"), &length), ERROR_NONE);
    assert_int_equal(tls_receive(pair.sides[0], bytes, 4, &length), ERROR_NONE);
    assert_true(tls_has_unread(pair.sides[0]));
    assert_int_equal(tls_receive(pair.sides[0], bytes, 4, &length), ERROR_NONE);
    assert_false(tls_has_unread(pair.sides[0]));
    tls_free(pair.sides[1]);
    pair.sides[1] = NULL;
    assert_int_equal(tls_receive(pair.sides[0], bytes, 4, &length), ERROR_CLOSED);
    part(&pair);
}

/* A record that has come in part: nothing to be had, so nothing to hurry for. */
static void test_part_of_a_record(void **state)
{
    (void)state;
    struct pair pair;
    struct tls_peer peer = {.trust = TLS_TRUST_ANYBODY, .name = mail_name};
    uint8_t record[256];
    char bytes[64];
    size_t length;
    int between[2];
    meet(&pair, server_of(mail, NULL), &peer);
    assert_int_equal(tls_receive(pair.sides[1], bytes, sizeof(bytes), &length), ERROR_AGAIN);
    assert_int_equal(tls_send(pair.sides[0], SLICE_LITERAL("in two parts"), &length), ERROR_NONE);
    ssize_t size = recv(pair.fds[1], record, sizeof(record), 0);
    assert_true(size > 20);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, between), 0);
    assert_true(dup2(between[0], pair.fds[1]) == pair.fds[1]);
    assert_int_equal(write(between[1], record, 20), 20);
    assert_int_equal(tls_receive(pair.sides[1], bytes, sizeof(bytes), &length), ERROR_AGAIN);
    assert_false(tls_has_unread(pair.sides[1]));
    assert_int_equal(write(between[1], record + 20, (size_t)size - 20), size - 20);
    assert_int_equal(tls_receive(pair.sides[1], bytes, sizeof(bytes), &length), ERROR_NONE);
    assert_int_equal(length, 12);
    part(&pair);
    close(between[0]);
    close(between[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_talk),
        cmocka_unit_test(test_wrong_certificates),
        cmocka_unit_test(test_anybody),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_certificate_by_name),
        cmocka_unit_test(test_dane),
        cmocka_unit_test(test_usable_records),
        cmocka_unit_test(test_only_unusable_records),
        cmocka_unit_test(test_tickets),
        cmocka_unit_test(test_tickets_and_authorities),
        cmocka_unit_test(test_client_certificates),
        cmocka_unit_test(test_bad_certificates),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_old_protocols),
        cmocka_unit_test(test_a_lot),
        cmocka_unit_test(test_unread),
        cmocka_unit_test(test_part_of_a_record),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
