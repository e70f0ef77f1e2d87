/* SPDX-License-Identifier: Apache-2.0
 *
 * Certificates and authorities, and what a side of a connection is begun with.
 */
#include "sys/tls_internal.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/digest.h"
#include "sys/tls.h"

/* For TLS 1.2: forward secrecy and authenticated encryption first; the plain RSA and CBC ones are
 * better than the cleartext that a peer with nothing else would fall back to. */
#define CIPHERS                                                                                    \
    "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:RSA+AESGCM:RSA+AES:"    \
    "!aNULL:!eNULL:!MD5:!PSK:!SRP"

enum { CHAIN_MAX = 16 };

/* ---- what the library says ------------------------------------------------------------------- */

void tls_say(char ret_problem[TLS_PROBLEM_SIZE], const char *otherwise)
{
    unsigned long number = ERR_peek_last_error();
    const char *reason = number != 0 ? ERR_reason_error_string(number) : NULL;
    snprintf(ret_problem, TLS_PROBLEM_SIZE, "%s", reason != NULL ? reason : otherwise);
    ERR_clear_error();
}

/* Whoever comes first: the system-wide configuration of the library is not ours. */
static bool begin_library(void)
{
    return OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS, NULL) == 1;
}

enum error tls_prepare(void)
{
    /* The first context finds the algorithms. */
    SSL_CTX *context = tls_context(TLS_method());
    SSL_CTX_free(context);
    return context != NULL ? digest_prepare() : ERROR_MEMORY;
}

SSL_CTX *tls_context(const SSL_METHOD *method)
{
    SSL_CTX *context = begin_library() ? SSL_CTX_new(method) : NULL;
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(context, CIPHERS) != 1) {
        SSL_CTX_free(context);
        ERR_clear_error();
        return NULL;
    }
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_read_ahead(context, 1); /* else each record costs two calls of the kernel */
    (void)SSL_CTX_set_dh_auto(context, 1);
    return context;
}

/* ---- certificates ---------------------------------------------------------------------------- */

static BIO *bio_of(struct slice pem)
{
    return pem.length > INT_MAX
               ? NULL
               : BIO_new_mem_buf(pem.length > 0 ? (const void *)pem.data : "", (int)pem.length);
}

/* A key with a passphrase is none: nobody is there to ask. */
static int no_passphrase(char *buffer, int size, int writes, void *context)
{
    (void)buffer, (void)size, (void)writes, (void)context;
    return -1;
}

static X509 *read_certificate(BIO *bio)
{
    X509 *certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
    if (certificate == NULL && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE) {
        ERR_clear_error(); /* the end of the file */
    }
    return certificate;
}

static int64_t end_of(X509 *certificate)
{
    struct tm tm;
    return ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static bool use_chain(SSL_CTX *context, BIO *bio, int64_t *ret_not_after_s, char *ret_problem)
{
    X509 *leaf = read_certificate(bio);
    bool good = leaf != NULL && SSL_CTX_use_certificate(context, leaf) == 1;
    if (!good) {
        tls_say(ret_problem, "there is no certificate in it");
    } else {
        *ret_not_after_s = end_of(leaf);
    }
    X509_free(leaf);
    for (int i = 0; good; i++) {
        X509 *next = read_certificate(bio);
        if (next == NULL) {
            good = ERR_peek_last_error() == 0;
            break;
        }
        good = i < CHAIN_MAX && SSL_CTX_add0_chain_cert(context, next) == 1;
        if (!good) {
            X509_free(next);
        }
    }
    if (leaf != NULL && !good) {
        tls_say(ret_problem, "its chain is too long");
    }
    return good;
}

static bool use_key(SSL_CTX *context, BIO *bio, char *ret_problem)
{
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    bool good = key != NULL && SSL_CTX_use_PrivateKey(context, key) == 1;
    if (key == NULL) {
        bool sealed = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_BAD_PASSWORD_READ;
        ERR_clear_error();
        tls_say(ret_problem,
                sealed ? "its key needs a passphrase" : "there is no private key in it");
    } else if (!good) {
        tls_say(ret_problem, "its key is not the certificate's");
    }
    EVP_PKEY_free(key);
    return good;
}

static bool use_certificate(SSL_CTX *context, const struct tls_certificate *certificate,
                            int64_t *ret_not_after_s, char *ret_problem)
{
    BIO *chain = bio_of(certificate->chain), *key = bio_of(certificate->key);
    bool good = chain != NULL && key != NULL;
    if (!good) {
        tls_say(ret_problem, error_text(ERROR_MEMORY));
    }
    good = good && use_chain(context, chain, ret_not_after_s, ret_problem) &&
           use_key(context, key, ret_problem);
    BIO_free(chain);
    BIO_free(key);
    return good;
}

enum error tls_certificate_check(const struct tls_certificate *certificate,
                                 int64_t *ret_not_after_s, char ret_problem[TLS_PROBLEM_SIZE])
{
    int64_t not_after_s = 0;
    SSL_CTX *context = tls_context(TLS_server_method());
    if (context == NULL) {
        snprintf(ret_problem, TLS_PROBLEM_SIZE, "%s", error_text(ERROR_MEMORY));
        return ERROR_MEMORY;
    }
    bool good = use_certificate(context, certificate, &not_after_s, ret_problem);
    SSL_CTX_free(context);
    if (good && ret_not_after_s != NULL) {
        *ret_not_after_s = not_after_s;
    }
    return good ? ERROR_NONE : ERROR_INVALID;
}

/* ---- authorities ----------------------------------------------------------------------------- */

static bool trust(X509_STORE *store, struct slice pem, char *ret_problem)
{
    BIO *bio = bio_of(pem);
    size_t count = 0;
    bool good = bio != NULL;
    while (good) {
        X509 *authority = read_certificate(bio);
        if (authority == NULL) {
            good = ERR_peek_last_error() == 0 && count > 0;
            break;
        }
        good = X509_STORE_add_cert(store, authority) == 1;
        X509_free(authority);
        count++;
    }
    if (!good) {
        tls_say(ret_problem,
                bio == NULL ? error_text(ERROR_MEMORY) : "there is no certificate in it");
    }
    BIO_free(bio);
    return good;
}

enum error tls_authorities_check(struct slice pem, char ret_problem[TLS_PROBLEM_SIZE])
{
    X509_STORE *store = begin_library() ? X509_STORE_new() : NULL;
    if (store == NULL) {
        snprintf(ret_problem, TLS_PROBLEM_SIZE, "%s", error_text(ERROR_MEMORY));
        ERR_clear_error();
        return ERROR_MEMORY;
    }
    bool good = trust(store, pem, ret_problem);
    X509_STORE_free(store);
    return good ? ERROR_NONE : ERROR_INVALID;
}

/* ---- server ---------------------------------------------------------------------------------- */

/* The first certificate that has the name asked for takes over. */
static int choose(SSL *ssl, int *alert, void *context)
{
    (void)alert;
    const struct tls_server *server = context;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    for (size_t i = 0; name != NULL && i < server->count; i++) {
        if (X509_check_host(SSL_CTX_get0_certificate(server->contexts[i]), name, 0, 0, NULL) == 1) {
            SSL_set_SSL_CTX(ssl, server->contexts[i]);
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_OK; /* the first is as good as a refusal, and often better */
}

/* Its certificate proves something or not; either way it may go on. */
static int go_on(int good, X509_STORE_CTX *context)
{
    (void)good, (void)context;
    return 1;
}

static bool ask_client(SSL_CTX *context, struct slice authorities, char *ret_problem)
{
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, go_on);
    return authorities.length == 0 ||
           trust(SSL_CTX_get_cert_store(context), authorities, ret_problem);
}

/* Sessions of one listener are resumed by another, but not where a client's certificate would have
 * to be proved to other authorities. */
static bool use_session_context(SSL_CTX *context, const struct tls_server_settings *settings)
{
    uint8_t name[DIGEST_MAX_BYTES] = "";
    enum error error = ERROR_NONE;
    if (settings->ask_client) {
        error = digest_make(DIGEST_SHA256, settings->client_authorities, name);
    }
    return error == ERROR_NONE &&
           SSL_CTX_set_session_id_context(context, name, DIGEST_SHA256_BYTES) == 1;
}

static SSL_CTX *server_context(struct tls_server *server,
                               const struct tls_server_settings *settings,
                               const struct tls_certificate *certificate, char *ret_problem)
{
    int64_t not_after_s;
    SSL_CTX *context = tls_context(TLS_server_method());
    if (context == NULL) {
        snprintf(ret_problem, TLS_PROBLEM_SIZE, "%s", error_text(ERROR_MEMORY));
        return NULL;
    }
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* tickets only */
    (void)SSL_CTX_set_tlsext_servername_callback(context, choose);
    (void)SSL_CTX_set_tlsext_servername_arg(context, server);
    if (!use_certificate(context, certificate, &not_after_s, ret_problem) ||
        (settings->ask_client && !ask_client(context, settings->client_authorities, ret_problem))) {
        SSL_CTX_free(context);
        return NULL;
    }
    if (!use_session_context(context, settings) || !tls_use_tickets(context, settings->tickets)) {
        tls_say(ret_problem, error_text(ERROR_MEMORY));
        SSL_CTX_free(context);
        return NULL;
    }
    return context;
}

struct tls_server *tls_server_new(const struct tls_server_settings *settings,
                                  char ret_problem[TLS_PROBLEM_SIZE])
{
    struct tls_server *server = calloc(1, sizeof(*server));
    SSL_CTX **contexts = calloc(settings->certificate_count, sizeof(SSL_CTX *));
    if (server == NULL || contexts == NULL) {
        snprintf(ret_problem, TLS_PROBLEM_SIZE, "%s", error_text(ERROR_MEMORY));
        free(contexts);
        free(server);
        return NULL;
    }
    server->contexts = contexts;
    for (size_t i = 0; i < settings->certificate_count; i++) {
        contexts[i] = server_context(server, settings, &settings->certificates[i], ret_problem);
        if (contexts[i] == NULL) {
            tls_server_free(server);
            return NULL;
        }
        server->count++;
    }
    return server;
}

void tls_server_free(struct tls_server *server)
{
    if (server == NULL) {
        return;
    }
    for (size_t i = 0; i < server->count; i++) {
        /* A handshake under way asks nobody any more. */
        (void)SSL_CTX_set_tlsext_servername_callback(server->contexts[i], NULL);
        SSL_CTX_free(server->contexts[i]);
    }
    free(server->contexts);
    free(server);
}

/* ---- client ---------------------------------------------------------------------------------- */

struct tls_client *tls_client_new(struct slice authorities, char ret_problem[TLS_PROBLEM_SIZE])
{
    struct tls_client *client = calloc(1, sizeof(*client));
    SSL_CTX *context = client == NULL ? NULL : tls_context(TLS_client_method());
    bool good = context != NULL && SSL_CTX_dane_enable(context) == 1;
    if (!good) {
        tls_say(ret_problem, error_text(ERROR_MEMORY));
    } else if (authorities.length > 0) {
        good = trust(SSL_CTX_get_cert_store(context), authorities, ret_problem);
    }
    if (!good) {
        SSL_CTX_free(context);
        free(client);
        return NULL;
    }
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    client->context = context;
    return client;
}

void tls_client_free(struct tls_client *client)
{
    if (client != NULL) {
        SSL_CTX_free(client->context);
        free(client);
    }
}

bool tls_tlsa_is_usable(struct slice record)
{
    static const size_t lengths[] = {0, 32, 64}; /* of the digests; matching type 0 has none */
    if (record.length <= 3) {
        return false;
    }
    uint8_t usage = record.data[0], selector = record.data[1], matching = record.data[2];
    return (usage == 2 || usage == 3) && selector <= 1 && matching <= 2 &&
           (matching == 0 || record.length - 3 == lengths[matching]);
}
