/* SPDX-License-Identifier: Apache-2.0
 *
 * Two judgements of one handshake: by the usual authorities, and by TLSA records. OpenSSL judges a
 * connection by one of them only, so the authorities are asked afterwards, over the same chain.
 */
#include "sys/tls_inspect.h"

#include "sys/clock.h"
#include "sys/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>

static void say(struct tls_inspection *inspection, const char *text)
{
    snprintf(inspection->problem, sizeof(inspection->problem), "%s", text);
}

static void say_library_error(struct tls_inspection *inspection)
{
    unsigned long number = ERR_peek_last_error();
    const char *reason = number != 0 ? ERR_reason_error_string(number) : NULL;
    say(inspection, reason != NULL ? reason : "the handshake failed");
    ERR_clear_error();
}

static enum error wait_for(int fd, int want, int64_t deadline_ms)
{
    struct pollfd waiting = {.fd = fd, .events = want == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN};
    int64_t left = deadline_ms - clock_steady_ms();
    int count = left > 0 ? poll(&waiting, 1, (int)left) : 0;
    return count > 0 ? ERROR_NONE : count == 0 ? ERROR_TIMEOUT : ERROR_IO;
}

static enum error shake_hands(SSL *ssl, int fd, int64_t deadline_ms,
                              struct tls_inspection *inspection)
{
    for (;;) {
        int done = SSL_connect(ssl);
        if (done == 1) {
            return ERROR_NONE;
        }
        int want = SSL_get_error(ssl, done);
        if (want != SSL_ERROR_WANT_READ && want != SSL_ERROR_WANT_WRITE) {
            say_library_error(inspection);
            return want == SSL_ERROR_SSL ? ERROR_INVALID : ERROR_CLOSED;
        }
        enum error error = wait_for(fd, want, deadline_ms);
        if (error != ERROR_NONE) {
            say(inspection, error_text(error));
            return error;
        }
    }
}

static int64_t end_of(X509 *certificate)
{
    struct tm tm;
    const ASN1_TIME *end = certificate != NULL ? X509_get0_notAfter(certificate) : NULL;
    return end != NULL && ASN1_TIME_to_tm(end, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

/* By the authorities this machine trusts, and by name. */
static void judge_chain(SSL *ssl, SSL_CTX *context, const char *name,
                        struct tls_inspection *inspection)
{
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    X509_STORE_CTX *check = X509_STORE_CTX_new();
    if (certificate == NULL || check == NULL ||
        X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(context), certificate,
                            SSL_get_peer_cert_chain(ssl)) != 1) {
        say(inspection, "no certificate");
        X509_STORE_CTX_free(check);
        return;
    }
    X509_VERIFY_PARAM *wanted = X509_STORE_CTX_get0_param(check);
    (void)X509_STORE_CTX_set_default(check, "ssl_server");
    (void)X509_VERIFY_PARAM_set1_host(wanted, name, 0);
    if (X509_verify_cert(check) != 1) {
        say(inspection, X509_verify_cert_error_string(X509_STORE_CTX_get_error(check)));
    }
    X509_STORE_CTX_free(check);
}

static void add_tlsa(SSL *ssl, const char *name, const struct slice *tlsa, size_t count,
                     struct tls_inspection *inspection)
{
    if (count == 0 || SSL_dane_enable(ssl, name) != 1) {
        return;
    }
    /* Of a certificate that a record names itself (DANE-EE), names mean nothing: RFC 7672 3.1.1. */
    (void)SSL_dane_set_flags(ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *record = tlsa[i].data;
        if (tls_tlsa_is_usable(tlsa[i]) && SSL_dane_tlsa_add(ssl, record[0], record[1], record[2],
                                                             record + 3, tlsa[i].length - 3) == 1) {
            inspection->tlsa_usable++;
        }
    }
}

static enum error inspect(SSL_CTX *context, SSL *ssl, int fd, const char *name,
                          const struct slice *tlsa, size_t tlsa_count, int timeout_ms,
                          struct tls_inspection *inspection)
{
    (void)SSL_CTX_set_default_verify_paths(context);
    SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
    add_tlsa(ssl, name, tlsa, tlsa_count, inspection);
    if (SSL_set_tlsext_host_name(ssl, name) != 1 || SSL_set_fd(ssl, fd) != 1) {
        return ERROR_MEMORY;
    }
    enum error error = shake_hands(ssl, fd, clock_steady_ms() + timeout_ms, inspection);
    if (error != ERROR_NONE) {
        return error;
    }
    snprintf(inspection->protocol, sizeof(inspection->protocol), "%s", SSL_get_version(ssl));
    inspection->not_after_s = end_of(SSL_get0_peer_certificate(ssl));
    inspection->tlsa_matches = inspection->tlsa_usable > 0 &&
                               SSL_get_verify_result(ssl) == X509_V_OK &&
                               SSL_get0_dane_authority(ssl, NULL, NULL) >= 0;
    judge_chain(ssl, context, name, inspection);
    (void)SSL_shutdown(ssl);
    return ERROR_NONE;
}

enum error tls_inspect(int fd, const char *name, const struct slice *tlsa, size_t tlsa_count,
                       int timeout_ms, struct tls_inspection *ret_inspection)
{
    *ret_inspection = (struct tls_inspection){0};
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = NULL;
    enum error error = ERROR_MEMORY;
    if (context != NULL && SSL_CTX_dane_enable(context) == 1) {
        ssl = SSL_new(context);
    }
    if (ssl != NULL) {
        error = inspect(context, ssl, fd, name, tlsa, tlsa_count, timeout_ms, ret_inspection);
    }
    SSL_free(ssl);
    SSL_CTX_free(context);
    ERR_clear_error();
    return error;
}
