/* SPDX-License-Identifier: Apache-2.0
 *
 * SASL mechanisms. A client's exchange is a row of steps, each answering one challenge:
 *
 *   PLAIN          (nothing) -> authorization NUL name NUL password
 *   LOGIN          "Username:" -> name;  "Password:" -> password      (what is asked is not read)
 *   SCRAM-SHA-256  (nothing) -> first;   nonce, salt, iterations -> proof;   signature -> (nothing)
 */
#include "proto/sasl.h"

#include "base/base64.h"
#include "base/digest.h"

#include <stdio.h>
#include <stdlib.h>

struct secret {
    uint8_t bytes[SASL_SECRET_MAX];
    size_t length;
};

struct sasl_client {
    enum sasl_mechanism mechanism;
    unsigned step; /* the next one */
    bool done;
    struct secret name, password;
    uint8_t nonce[BASE64_LENGTH(SASL_NONCE_BYTES)];
    uint8_t signature[DIGEST_SHA256_BYTES]; /* that the server must show */
    char trouble[96];                       /* why a challenge was refused; empty: no proof */
};

/* ---- names ------------------------------------------------------------------------------- */

static const struct {
    enum sasl_mechanism mechanism;
    const char *name;
} mechanisms[] = {
    {SASL_PLAIN, "PLAIN"},
    {SASL_LOGIN, "LOGIN"},
    {SASL_SCRAM_SHA_256, "SCRAM-SHA-256"},
    {SASL_CRAM_MD5, "CRAM-MD5"},
};

enum { MECHANISMS = sizeof(mechanisms) / sizeof(mechanisms[0]) };

enum sasl_mechanism sasl_find(struct slice name)
{
    for (size_t i = 0; i < MECHANISMS; i++) {
        if (slice_equal_fold(name, slice_from_text(mechanisms[i].name))) {
            return mechanisms[i].mechanism;
        }
    }
    return SASL_NONE;
}

const char *sasl_name(enum sasl_mechanism mechanism)
{
    for (size_t i = 0; i < MECHANISMS; i++) {
        if (mechanisms[i].mechanism == mechanism) {
            return mechanisms[i].name;
        }
    }
    return "";
}

bool sasl_shows_password(enum sasl_mechanism mechanism)
{
    return mechanism == SASL_PLAIN || mechanism == SASL_LOGIN;
}

/* ---- client ------------------------------------------------------------------------------ */

static bool secret_set(struct secret *secret, struct slice value)
{
    bool good = value.length > 0 && value.length <= SASL_SECRET_MAX &&
                slice_find(value, '\0') == value.length &&
                slice_find(value, '\r') == value.length && slice_find(value, '\n') == value.length;
    if (good) {
        memcpy(secret->bytes, value.data, value.length);
        secret->length = value.length;
    }
    return good;
}

static struct slice secret_slice(const struct secret *secret)
{
    return slice_make(secret->bytes, secret->length);
}

enum error sasl_client_new(enum sasl_mechanism mechanism, struct slice name, struct slice password,
                           const uint8_t nonce[SASL_NONCE_BYTES], struct sasl_client **ret_client)
{
    struct sasl_client *client = calloc(1, sizeof(*client));
    if (client == NULL) {
        return ERROR_MEMORY;
    }
    client->mechanism = mechanism;
    struct buffer text;
    buffer_init(&text, 0);
    base64_encode(&text, slice_make(nonce, SASL_NONCE_BYTES));
    enum error error = text.failed ? ERROR_MEMORY : ERROR_NONE;
    if (error == ERROR_NONE) {
        memcpy(client->nonce, text.data, sizeof(client->nonce));
    }
    buffer_done(&text);
    if (error == ERROR_NONE &&
        (mechanism == SASL_NONE || mechanism == SASL_CRAM_MD5 || !secret_set(&client->name, name) ||
         !secret_set(&client->password, password))) {
        error = ERROR_INVALID;
    }
    if (error != ERROR_NONE) {
        sasl_client_free(client);
        return error;
    }
    *ret_client = client;
    return ERROR_NONE;
}

void sasl_client_free(struct sasl_client *client)
{
    if (client != NULL) {
        digest_forget(client, sizeof(*client));
        free(client);
    }
}

bool sasl_client_begins(const struct sasl_client *client)
{
    return client->mechanism != SASL_LOGIN;
}

bool sasl_client_done(const struct sasl_client *client)
{
    return client->done;
}

const char *sasl_client_trouble(const struct sasl_client *client)
{
    return client->trouble[0] != '\0' ? client->trouble
                                      : "the server has not proved that it knows the password";
}

static enum error plain_step(struct sasl_client *client, struct buffer *response)
{
    if (client->step != 0) {
        return ERROR_INVALID;
    }
    buffer_put_u8(response, 0); /* no authorization identity but his own */
    buffer_append(response, secret_slice(&client->name));
    buffer_put_u8(response, 0);
    buffer_append(response, secret_slice(&client->password));
    client->done = true;
    return ERROR_NONE;
}

static enum error login_step(struct sasl_client *client, struct buffer *response)
{
    if (client->step > 1) {
        return ERROR_INVALID;
    }
    buffer_append(response, secret_slice(client->step == 0 ? &client->name : &client->password));
    client->done = client->step == 1;
    return ERROR_NONE;
}

/* ---- SCRAM-SHA-256 (RFC 5802) ------------------------------------------------------------ */

/* Without channel binding, and saying that we have none. */
#define GS2_HEADER "n,,"
#define GS2_HEADER_BASE64 "biws"

/* "n=" name with = and , written as =3D and =2C, ",r=" nonce */
static void put_first_bare(const struct sasl_client *client, struct buffer *buffer)
{
    buffer_append_text(buffer, "n=");
    for (size_t i = 0; i < client->name.length; i++) {
        uint8_t byte = client->name.bytes[i];
        if (byte == '=' || byte == ',') {
            buffer_append_text(buffer, byte == '=' ? "=3D" : "=2C");
        } else {
            buffer_append(buffer, slice_make(&byte, 1));
        }
    }
    buffer_append_text(buffer, ",r=");
    buffer_append(buffer, slice_make(client->nonce, sizeof(client->nonce)));
}

/* Takes "k=value" up to the next comma off the front. */
static bool take_attribute(struct slice *rest, char key, struct slice *ret_value)
{
    if (rest->length < 2 || rest->data[0] != (uint8_t)key || rest->data[1] != '=') {
        return false;
    }
    size_t end = slice_find(*rest, ',');
    *ret_value = slice_skip(slice_take(*rest, end), 2);
    *rest = slice_skip(*rest, end + 1);
    return true;
}

struct server_first {
    struct slice nonce, salt;
    uint64_t iterations;
};

static bool iterations_are_fair(struct sasl_client *client, uint64_t iterations)
{
    bool few = iterations < SASL_ITERATIONS_LEAST;
    if (!few && iterations <= SASL_ITERATIONS_MAX) {
        return true;
    }
    snprintf(client->trouble, sizeof(client->trouble),
             "the server asks for %llu iterations of SCRAM-SHA-256, %s %d",
             (unsigned long long)iterations,
             few ? "fewer than the least," : "more than our limit of",
             few ? SASL_ITERATIONS_LEAST : SASL_ITERATIONS_MAX);
    return false;
}

static bool read_server_first(struct sasl_client *client, struct slice message,
                              struct server_first *ret_first)
{
    struct slice rest = message, iterations;
    if (!take_attribute(&rest, 'r', &ret_first->nonce) ||
        !take_attribute(&rest, 's', &ret_first->salt) || !take_attribute(&rest, 'i', &iterations) ||
        !slice_to_u64(iterations, &ret_first->iterations)) {
        return false;
    }
    /* The server's part comes behind ours; without one it could use an old exchange again. */
    return ret_first->nonce.length > sizeof(client->nonce) &&
           memcmp(ret_first->nonce.data, client->nonce, sizeof(client->nonce)) == 0 &&
           iterations_are_fair(client, ret_first->iterations);
}

/* ClientProof into `ret_proof`, and what the server must answer into client->signature. */
static enum error prove(struct sasl_client *client, struct slice salt, uint32_t iterations,
                        struct slice auth_message, uint8_t ret_proof[DIGEST_SHA256_BYTES])
{
    uint8_t salted[DIGEST_SHA256_BYTES], key[DIGEST_MAX_BYTES], stored[DIGEST_MAX_BYTES],
        signature[DIGEST_MAX_BYTES];
    struct slice salted_password = slice_make(salted, sizeof(salted));
    enum error error =
        digest_from_password(secret_slice(&client->password), salt, iterations, salted);
    if (error == ERROR_NONE) {
        error = digest_hmac(DIGEST_SHA256, salted_password, SLICE_LITERAL("Client Key"), key);
    }
    if (error == ERROR_NONE) {
        error = digest_make(DIGEST_SHA256, slice_make(key, DIGEST_SHA256_BYTES), stored);
    }
    if (error == ERROR_NONE) {
        error = digest_hmac(DIGEST_SHA256, slice_make(stored, DIGEST_SHA256_BYTES), auth_message,
                            signature);
    }
    for (size_t i = 0; error == ERROR_NONE && i < DIGEST_SHA256_BYTES; i++) {
        ret_proof[i] = key[i] ^ signature[i];
    }
    if (error == ERROR_NONE) {
        error = digest_hmac(DIGEST_SHA256, salted_password, SLICE_LITERAL("Server Key"), key);
    }
    if (error == ERROR_NONE) {
        error = digest_hmac(DIGEST_SHA256, slice_make(key, DIGEST_SHA256_BYTES), auth_message,
                            signature);
        memcpy(client->signature, signature, DIGEST_SHA256_BYTES);
    }
    digest_forget(salted, sizeof(salted));
    digest_forget(key, sizeof(key));
    digest_forget(stored, sizeof(stored));
    return error;
}

static enum error scram_final(struct sasl_client *client, struct slice challenge,
                              struct buffer *response)
{
    struct server_first first;
    snprintf(client->trouble, sizeof(client->trouble),
             "the server's challenge is not one of SCRAM-SHA-256");
    if (!read_server_first(client, challenge, &first)) {
        return ERROR_INVALID;
    }
    struct buffer salt, auth_message;
    buffer_init(&salt, 0);
    buffer_init(&auth_message, 0);
    size_t final_from = response->length;
    buffer_append_text(response, "c=" GS2_HEADER_BASE64 ",r=");
    buffer_append(response, first.nonce);
    put_first_bare(client, &auth_message);
    buffer_append_text(&auth_message, ",");
    buffer_append(&auth_message, challenge);
    buffer_append_text(&auth_message, ",");
    buffer_append(&auth_message, slice_skip(buffer_slice(response), final_from));

    uint8_t proof[DIGEST_SHA256_BYTES];
    enum error error = base64_decode(&salt, first.salt);
    if (error == ERROR_NONE && (salt.failed || salt.length == 0)) {
        error = ERROR_INVALID;
    }
    if (error == ERROR_NONE && auth_message.failed) {
        error = ERROR_MEMORY;
    }
    if (error == ERROR_NONE) {
        error = prove(client, buffer_slice(&salt), (uint32_t)first.iterations,
                      buffer_slice(&auth_message), proof);
    }
    if (error == ERROR_NONE) {
        buffer_append_text(response, ",p=");
        base64_encode(response, slice_make(proof, sizeof(proof)));
        client->trouble[0] = '\0';
    }
    buffer_done(&salt);
    buffer_done(&auth_message);
    return error;
}

static enum error scram_verify(struct sasl_client *client, struct slice challenge)
{
    struct slice rest = challenge, value;
    struct buffer signature;
    buffer_init(&signature, 0);
    client->done = take_attribute(&rest, 'v', &value) &&
                   base64_decode(&signature, value) == ERROR_NONE &&
                   digest_equal(buffer_slice(&signature),
                                slice_make(client->signature, sizeof(client->signature)));
    buffer_done(&signature);
    return client->done ? ERROR_NONE : ERROR_INVALID;
}

static enum error scram_step(struct sasl_client *client, struct slice challenge,
                             struct buffer *response)
{
    switch (client->step) {
    case 0:
        buffer_append_text(response, GS2_HEADER);
        put_first_bare(client, response);
        return ERROR_NONE;
    case 1:
        return scram_final(client, challenge, response);
    case 2:
        return scram_verify(client, challenge);
    default:
        return ERROR_INVALID;
    }
}

enum error sasl_client_step(struct sasl_client *client, struct slice challenge,
                            struct buffer *response)
{
    if (challenge.length > SASL_MESSAGE_MAX) {
        return ERROR_INVALID;
    }
    enum error error = client->mechanism == SASL_PLAIN   ? plain_step(client, response)
                       : client->mechanism == SASL_LOGIN ? login_step(client, response)
                                                         : scram_step(client, challenge, response);
    client->step++;
    return error == ERROR_NONE && response->failed ? ERROR_MEMORY : error;
}

/* ---- CRAM-MD5 (RFC 2195) ----------------------------------------------------------------- */

enum { MD5_HEX = 2 * DIGEST_MD5_BYTES };

static void put_hex(struct buffer *buffer, struct slice bytes)
{
    for (size_t i = 0; i < bytes.length; i++) {
        buffer_printf(buffer, "%02x", bytes.data[i]);
    }
}

void sasl_cram_challenge(const uint8_t nonce[SASL_NONCE_BYTES], struct slice host,
                         struct buffer *challenge)
{
    buffer_append_text(challenge, "<");
    put_hex(challenge, slice_make(nonce, SASL_NONCE_BYTES));
    buffer_append_text(challenge, "@");
    buffer_append(challenge, host);
    buffer_append_text(challenge, ">");
}

enum error sasl_cram_read(struct slice response, struct slice *ret_name, struct slice *ret_proof)
{
    /* A name may hold blanks; the proof is behind the last one. */
    size_t blank = slice_find_last(response, ' ');
    if (blank == 0 || blank == response.length || blank > SASL_SECRET_MAX ||
        response.length - blank - 1 != MD5_HEX) {
        return ERROR_INVALID;
    }
    *ret_name = slice_take(response, blank);
    *ret_proof = slice_skip(response, blank + 1);
    return ERROR_NONE;
}

bool sasl_cram_proves(struct slice challenge, struct slice password, struct slice proof)
{
    uint8_t digest[DIGEST_MAX_BYTES];
    struct buffer expected;
    buffer_init(&expected, 0);
    bool proves = digest_hmac(DIGEST_MD5, password, challenge, digest) == ERROR_NONE;
    put_hex(&expected, slice_make(digest, DIGEST_MD5_BYTES));
    proves = proves && !expected.failed && digest_equal(buffer_slice(&expected), proof);
    digest_forget(digest, sizeof(digest));
    buffer_done(&expected);
    return proves;
}
