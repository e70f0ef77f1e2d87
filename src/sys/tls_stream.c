/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection: OpenSSL reads and writes the descriptor through sys/net, so that the simulated one
 * serves as well.
 */
#include "sys/tls_internal.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/network.h"
#include "sys/loop.h"
#include "sys/net.h"

struct tls {
    SSL *ssl;
    BIO_METHOD *methods; /* of its descriptor; its own, for the library's life is nobody's */
    uint8_t wants;       /* of the last call that said ERROR_AGAIN */
    uint8_t receive_wants, send_wants;
    bool is_open;  /* the handshake is done, and nothing has failed since */
    bool is_asked; /* something was asked of the other side's certificate */
    bool is_dry;   /* all that has come was used, but for a part of a record */
};

/* ---- the descriptor -------------------------------------------------------------------------- */

static int fd_of(BIO *bio)
{
    return (int)(intptr_t)BIO_get_data(bio);
}

static int descriptor_write(BIO *bio, const char *bytes, int length)
{
    size_t sent = 0;
    BIO_clear_retry_flags(bio);
    enum error error = net_send(fd_of(bio), slice_make(bytes, (size_t)length), &sent);
    if (error == ERROR_AGAIN) {
        BIO_set_retry_write(bio);
    }
    return error == ERROR_NONE ? (int)sent : -1;
}

static int descriptor_read(BIO *bio, char *bytes, int size)
{
    size_t length = 0;
    BIO_clear_retry_flags(bio);
    enum error error = net_receive(fd_of(bio), bytes, (size_t)size, &length);
    if (error == ERROR_AGAIN) {
        BIO_set_retry_read(bio);
        return -1;
    }
    if (error == ERROR_CLOSED) {
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
        return 0;
    }
    return error == ERROR_NONE ? (int)length : -1;
}

static long descriptor_control(BIO *bio, int command, long number, void *pointer)
{
    (void)number, (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH:
    case BIO_CTRL_DUP:
        return 1;
    case BIO_CTRL_EOF:
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    default:
        return 0;
    }
}

static int descriptor_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

/* NULL: memory. */
static BIO_METHOD *make_methods(void)
{
    BIO_METHOD *made = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "descriptor");
    if (made == NULL || BIO_meth_set_write(made, descriptor_write) != 1 ||
        BIO_meth_set_read(made, descriptor_read) != 1 ||
        BIO_meth_set_ctrl(made, descriptor_control) != 1 ||
        BIO_meth_set_create(made, descriptor_create) != 1) {
        BIO_meth_free(made);
        return NULL;
    }
    return made;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static struct tls *tls_new(SSL_CTX *context, int fd)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    BIO_METHOD *methods = tls == NULL ? NULL : make_methods();
    SSL *ssl = methods == NULL ? NULL : SSL_new(context);
    BIO *bio = ssl == NULL ? NULL : BIO_new(methods);
    if (bio == NULL) {
        SSL_free(ssl);
        BIO_meth_free(methods);
        free(tls);
        ERR_clear_error();
        return NULL;
    }
    BIO_set_data(bio, (void *)(intptr_t)fd);
    SSL_set_bio(ssl, bio, bio);
    tls->ssl = ssl;
    tls->methods = methods;
    tls->wants = LOOP_READ;
    tls->receive_wants = LOOP_READ;
    tls->send_wants = LOOP_WRITE;
    return tls;
}

struct tls *tls_accept(struct tls_server *server, int fd)
{
    struct tls *tls = tls_new(server->contexts[0], fd);
    if (tls != NULL) {
        SSL_set_accept_state(tls->ssl);
        tls->is_asked = SSL_get_verify_mode(tls->ssl) != SSL_VERIFY_NONE;
    }
    return tls;
}

void tls_free(struct tls *tls)
{
    if (tls == NULL) {
        return;
    }
    if (tls->is_open) {
        (void)SSL_shutdown(tls->ssl); /* once: the answer is not awaited */
    }
    SSL_free(tls->ssl);
    BIO_meth_free(tls->methods);
    ERR_clear_error();
    free(tls);
}

/* ---- whom a client talks to ------------------------------------------------------------------ */

enum { NAME_SIZE = 256 };

static bool name_text(struct slice name, char ret_text[NAME_SIZE])
{
    if (name.length > 0 && name.data[name.length - 1] == '.') {
        name.length--;
    }
    if (name.length == 0 || name.length >= NAME_SIZE || memchr(name.data, 0, name.length) != NULL) {
        return false;
    }
    memcpy(ret_text, name.data, name.length);
    ret_text[name.length] = 0;
    return true;
}

/* An address is no name (RFC 6066 3). */
static bool send_name(SSL *ssl, struct slice name)
{
    char text[NAME_SIZE];
    struct ip_address address;
    if (!name_text(name, text) || ip_from_text(slice_from_text(text), &address)) {
        return true;
    }
    return SSL_set_tlsext_host_name(ssl, text) == 1;
}

static bool expect_name(SSL *ssl, struct slice name)
{
    char text[NAME_SIZE];
    struct ip_address address;
    if (!name_text(name, text)) {
        return false;
    }
    if (ip_from_text(slice_from_text(text), &address)) {
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), text) == 1;
    }
    return SSL_add1_host(ssl, text) == 1;
}

static bool expect_names(SSL *ssl, const struct tls_peer *peer)
{
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    for (size_t i = 0; i < peer->name_count; i++) {
        if (!expect_name(ssl, peer->names[i])) {
            return false;
        }
    }
    return peer->name_count > 0 || expect_name(ssl, peer->name);
}

/* Of DANE-EE only the key counts: no names, no dates (RFC 7672 3.1.1). */
static bool expect_records(SSL *ssl, const struct tls_peer *peer)
{
    char base[NAME_SIZE];
    size_t usable = 0;
    if (!name_text(peer->name, base) || SSL_dane_enable(ssl, base) != 1) {
        return false;
    }
    (void)SSL_dane_set_flags(ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
    for (size_t i = 0; i < peer->tlsa_count; i++) {
        struct slice record = peer->tlsa[i];
        if (!tls_tlsa_is_usable(record)) {
            continue;
        }
        int added = SSL_dane_tlsa_add(ssl, record.data[0], record.data[1], record.data[2],
                                      record.data + 3, record.length - 3);
        if (added < 0) {
            return false;
        }
        usable += added > 0;
    }
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    for (size_t i = 0; i < peer->name_count; i++) {
        if (!expect_name(ssl, peer->names[i])) {
            return false;
        }
    }
    return usable > 0;
}

static bool expect(struct tls *tls, const struct tls_peer *peer)
{
    SSL *ssl = tls->ssl;
    tls->is_asked = peer->trust != TLS_TRUST_ANYBODY;
    if (!tls->is_asked || peer->only_look) {
        SSL_set_security_level(ssl, 1); /* the other choice is no encryption at all */
    }
    SSL_set_verify(ssl, tls->is_asked && !peer->only_look ? SSL_VERIFY_PEER : SSL_VERIFY_NONE,
                   NULL);
    switch (peer->trust) {
    case TLS_TRUST_ANYBODY:
        return send_name(ssl, peer->name);
    case TLS_TRUST_AUTHORITIES:
        return send_name(ssl, peer->name) && expect_names(ssl, peer);
    case TLS_TRUST_DANE:
        return expect_records(ssl, peer);
    }
    return false;
}

struct tls *tls_connect(struct tls_client *client, const struct tls_peer *peer, int fd)
{
    struct tls *tls = tls_new(client->context, fd);
    if (tls == NULL) {
        return NULL;
    }
    SSL_set_connect_state(tls->ssl);
    tls->wants = LOOP_WRITE;
    if (!expect(tls, peer)) {
        tls_free(tls);
        return NULL;
    }
    return tls;
}

/* ---- the dialogue ---------------------------------------------------------------------------- */

/* What a call's result means; of the descriptor it is known already. */
static enum error outcome(struct tls *tls, int result)
{
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_NONE:
        return ERROR_NONE;
    case SSL_ERROR_WANT_READ:
        tls->wants = LOOP_READ;
        return ERROR_AGAIN;
    case SSL_ERROR_WANT_WRITE:
        tls->wants = LOOP_WRITE;
        return ERROR_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return ERROR_CLOSED;
    case SSL_ERROR_SYSCALL:
        tls->is_open = false;
        return ERROR_CLOSED;
    default:
        tls->is_open = false;
        return ERROR_INVALID;
    }
}

static void say_why(const struct tls *tls, enum error error, char *ret_problem)
{
    long verdict = SSL_get_verify_result(tls->ssl);
    if (error == ERROR_DENIED) {
        snprintf(ret_problem, TLS_PROBLEM_SIZE, "certificate not trusted: %s",
                 X509_verify_cert_error_string(verdict));
        ERR_clear_error();
    } else if (error == ERROR_CLOSED) {
        tls_say(ret_problem, "closed in the handshake");
    } else {
        tls_say(ret_problem, "the handshake failed");
    }
}

enum error tls_shake_hands(struct tls *tls, char ret_problem[TLS_PROBLEM_SIZE])
{
    ERR_clear_error();
    enum error error = outcome(tls, SSL_do_handshake(tls->ssl));
    if (error == ERROR_NONE) {
        tls->is_open = true;
        return ERROR_NONE;
    }
    if (error == ERROR_AGAIN) {
        return error;
    }
    if (error == ERROR_INVALID &&
        ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        error = ERROR_DENIED;
    }
    say_why(tls, error, ret_problem);
    return error;
}

unsigned tls_wants(const struct tls *tls)
{
    return tls->wants;
}

unsigned tls_interest(const struct tls *tls, unsigned wanted)
{
    if (tls == NULL) {
        return wanted;
    }
    return (wanted & LOOP_READ ? tls->receive_wants : 0U) |
           (wanted & LOOP_WRITE ? tls->send_wants : 0U);
}

enum error tls_receive(struct tls *tls, void *ret_bytes, size_t size, size_t *ret_length)
{
    ERR_clear_error();
    int length = SSL_read(tls->ssl, ret_bytes, size > INT_MAX ? INT_MAX : (int)size);
    enum error error = outcome(tls, length);
    tls->is_dry = error != ERROR_NONE;
    tls->receive_wants = error == ERROR_AGAIN ? tls->wants : LOOP_READ;
    if (error == ERROR_NONE) {
        *ret_length = (size_t)length;
    }
    return error == ERROR_INVALID ? ERROR_CLOSED : error;
}

enum error tls_send(struct tls *tls, struct slice bytes, size_t *ret_sent)
{
    ERR_clear_error();
    *ret_sent = 0;
    if (bytes.length == 0) {
        return ERROR_NONE;
    }
    int sent =
        SSL_write(tls->ssl, bytes.data, bytes.length > INT_MAX ? INT_MAX : (int)bytes.length);
    enum error error = outcome(tls, sent);
    tls->send_wants = error == ERROR_AGAIN ? tls->wants : LOOP_WRITE;
    if (error == ERROR_NONE) {
        *ret_sent = (size_t)sent;
    }
    return error == ERROR_INVALID ? ERROR_CLOSED : error;
}

bool tls_has_unread(const struct tls *tls)
{
    return !tls->is_dry && SSL_has_pending(tls->ssl) == 1;
}

/* ---- what is known of it --------------------------------------------------------------------- */

static void fingerprint(X509 *certificate, char ret_text[TLS_FINGERPRINT_SIZE])
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    if (X509_digest(certificate, EVP_sha256(), digest, &length) != 1) {
        length = 0;
    }
    for (unsigned i = 0; i < length && 2 * i + 2 < TLS_FINGERPRINT_SIZE; i++) {
        snprintf(ret_text + 2 * (size_t)i, 3, "%02x", digest[i]);
    }
}

void tls_describe(const struct tls *tls, char ret_text[TLS_TEXT_SIZE])
{
    snprintf(ret_text, TLS_TEXT_SIZE, "%s %s", SSL_get_version(tls->ssl),
             SSL_get_cipher_name(tls->ssl));
}

const char *tls_suite(const struct tls *tls)
{
    const SSL_CIPHER *cipher = SSL_get_current_cipher(tls->ssl);
    const char *name = cipher == NULL ? NULL : SSL_CIPHER_standard_name(cipher);
    return name == NULL ? "" : name;
}

enum tls_fault tls_fault(const struct tls *tls)
{
    switch (SSL_get_verify_result(tls->ssl)) {
    case X509_V_OK:
        return TLS_FAULT_NONE;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return TLS_FAULT_NAME;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return TLS_FAULT_TIME;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED:
        return TLS_FAULT_UNTRUSTED;
    case X509_V_ERR_DANE_NO_MATCH:
        return TLS_FAULT_RECORDS;
    default:
        return TLS_FAULT_OTHER;
    }
}

void tls_facts(const struct tls *tls, struct tls_facts *ret_facts)
{
    SSL *ssl = tls->ssl;
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    long verdict = SSL_get_verify_result(ssl);
    *ret_facts = (struct tls_facts){
        .protocol = SSL_get_version(ssl),
        .cipher = SSL_get_cipher_name(ssl),
        .bits = SSL_get_cipher_bits(ssl, NULL),
        .resumed = SSL_session_reused(ssl) == 1,
        .server_name = name != NULL ? slice_from_text(name) : SLICE_EMPTY,
        .has_certificate = certificate != NULL,
        .proved = tls->is_asked && certificate != NULL && verdict == X509_V_OK,
    };
    if (certificate == NULL) {
        ret_facts->problem = "no certificate";
    } else {
        fingerprint(certificate, ret_facts->fingerprint);
        ret_facts->problem = ret_facts->proved ? "" : X509_verify_cert_error_string(verdict);
    }
}

static void common_name(const X509_NAME *name, char ret_text[TLS_NAME_SIZE])
{
    int at = name != NULL ? X509_NAME_get_index_by_NID(name, NID_commonName, -1) : -1;
    uint8_t *utf8 = NULL;
    if (at < 0) {
        return;
    }
    int length =
        ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    for (int i = 0; i < length && i + 1 < TLS_NAME_SIZE; i++) {
        ret_text[i] = utf8[i] < ' ' || utf8[i] == 0x7f ? '?' : (char)utf8[i];
        ret_text[i + 1] = '\0';
    }
    OPENSSL_free(utf8);
}

void tls_common_names(const struct tls *tls, char ret_subject[TLS_NAME_SIZE],
                      char ret_issuer[TLS_NAME_SIZE])
{
    X509 *certificate = SSL_get0_peer_certificate(tls->ssl);
    ret_subject[0] = ret_issuer[0] = '\0';
    if (certificate != NULL && tls->is_asked && SSL_get_verify_result(tls->ssl) == X509_V_OK) {
        common_name(X509_get_subject_name(certificate), ret_subject);
        common_name(X509_get_issuer_name(certificate), ret_issuer);
    }
}
