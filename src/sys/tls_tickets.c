/* SPDX-License-Identifier: Apache-2.0
 *
 * Session tickets are sealed with keys that are made anew each half day from one secret and the
 * time, so that threads need not talk about them. A ticket of the half day before is still opened,
 * and given anew.
 */
#include "sys/tls_internal.h"

#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <string.h>

#include "sys/clock.h"

enum { NAME_BYTES = 16, KEY_BYTES = 32, PERIOD_MS = 12 * 3600 * 1000 };

struct keys {
    uint8_t name[KEY_BYTES]; /* NAME_BYTES of it are used */
    uint8_t cipher[KEY_BYTES];
    uint8_t mac[KEY_BYTES];
};

static bool derive(const struct tls_tickets *tickets, uint8_t use, uint64_t period,
                   uint8_t ret_key[KEY_BYTES])
{
    uint8_t input[9] = {use};
    unsigned length = 0;
    for (int i = 0; i < 8; i++) {
        input[1 + i] = (uint8_t)(period >> (8 * i));
    }
    return HMAC(EVP_sha256(), tickets->secret, (int)sizeof(tickets->secret), input, sizeof(input),
                ret_key, &length) != NULL;
}

static bool keys_of(const struct tls_tickets *tickets, uint64_t period, struct keys *ret_keys)
{
    return derive(tickets, 'n', period, ret_keys->name) &&
           derive(tickets, 'c', period, ret_keys->cipher) &&
           derive(tickets, 'm', period, ret_keys->mac);
}

static bool begin(const struct keys *keys, const uint8_t *iv, EVP_CIPHER_CTX *cipher,
                  EVP_MAC_CTX *mac, int seals)
{
    char sha256[] = "SHA256";
    uint8_t mac_key[KEY_BYTES];
    memcpy(mac_key, keys->mac, sizeof(mac_key));
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, mac_key, sizeof(mac_key)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, sha256, 0),
        OSSL_PARAM_construct_end(),
    };
    bool done = EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, keys->cipher, iv, seals) == 1 &&
                EVP_MAC_CTX_set_params(mac, params) == 1;
    OPENSSL_cleanse(mac_key, sizeof(mac_key));
    return done;
}

static int seal(const struct tls_tickets *tickets, uint64_t period, uint8_t *name, uint8_t *iv,
                EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    struct keys keys;
    bool done = RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) == 1 &&
                keys_of(tickets, period, &keys);
    if (done) {
        memcpy(name, keys.name, NAME_BYTES);
        done = begin(&keys, iv, cipher, mac, 1);
    }
    OPENSSL_cleanse(&keys, sizeof(keys));
    return done ? 1 : 0; /* 0: no ticket */
}

/* 1: opened; 2: opened, and a new one is wanted; 0: not ours. TLS 1.3 gives new ones anyway, which
 * the library asks for by 2 as well. */
static int open_ticket(const struct tls_tickets *tickets, uint64_t period, const uint8_t *name,
                       const uint8_t *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    struct keys keys;
    int result = 0;
    for (uint64_t age = 0; result == 0 && age < 2; age++) {
        if (keys_of(tickets, period - age, &keys) &&
            CRYPTO_memcmp(name, keys.name, NAME_BYTES) == 0 && begin(&keys, iv, cipher, mac, 0)) {
            result = age == 0 ? 1 : 2;
        }
    }
    OPENSSL_cleanse(&keys, sizeof(keys));
    return result;
}

static int ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                  EVP_MAC_CTX *mac, int seals)
{
    const struct tls_tickets *tickets = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    uint64_t period = (uint64_t)clock_wall_ms() / PERIOD_MS;
    if (tickets == NULL) {
        return 0;
    }
    return seals ? seal(tickets, period, name, iv, cipher, mac)
                 : open_ticket(tickets, period, name, iv, cipher, mac);
}

bool tls_use_tickets(SSL_CTX *context, const struct tls_tickets *tickets)
{
    if (tickets == NULL) {
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
        return SSL_CTX_set_num_tickets(context, 0) == 1;
    }
    /* One is enough: mail comes over few connections at a time. */
    return SSL_CTX_set_app_data(context, (void *)(uintptr_t)tickets) == 1 &&
           SSL_CTX_set_tlsext_ticket_key_evp_cb(context, ticket) == 1 &&
           SSL_CTX_set_num_tickets(context, 1) == 1;
}
