/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/sasl_server.h"

#include "base/base64.h"

#include <assert.h>
#include <stdlib.h>

static_assert((int)SASL_PROOF_BYTES == 2 * (int)DIGEST_MD5_BYTES, "a proof of CRAM-MD5 in hex");

enum { SERVER_NONCE_LENGTH = BASE64_LENGTH(SASL_NONCE_BYTES) };

struct secret {
    uint8_t bytes[SASL_SECRET_MAX];
    size_t length;
};

enum server_state {
    STATE_BEGIN,
    STATE_PLAIN, /* all of PLAIN */
    STATE_LOGIN_NAME,
    STATE_LOGIN_PASSWORD,
    STATE_SCRAM_FIRST,
    STATE_SCRAM_FINAL,
    STATE_CRAM,
    STATE_SCRAM_SEEN, /* the client has our signature, and says nothing */
    STATE_ASKED,      /* a question is open */
    STATE_OVER,
};

struct sasl_server {
    enum sasl_mechanism mechanism;
    enum server_state state;
    struct secret name, password;
    uint8_t nonce[SERVER_NONCE_LENGTH];
    /* SCRAM: the three parts joined by commas, as they come; and the header that "c=" repeats.
     * CRAM: the challenge. */
    struct buffer auth_message;
    struct buffer header;
    struct buffer whole_nonce;
    uint8_t proof[SASL_PROOF_BYTES];
};

static const struct slice ask_name = SLICE_LITERAL("Username:");
static const struct slice ask_password = SLICE_LITERAL("Password:");

struct sasl_server *sasl_server_new(enum sasl_mechanism mechanism,
                                    const uint8_t nonce[SASL_NONCE_BYTES], struct slice host)
{
    struct sasl_server *server = calloc(1, sizeof(*server));
    if (server == NULL) {
        return NULL;
    }
    assert(mechanism != SASL_NONE);
    server->mechanism = mechanism;
    buffer_init(&server->auth_message, 3 * SASL_MESSAGE_MAX);
    buffer_init(&server->header, SASL_MESSAGE_MAX);
    buffer_init(&server->whole_nonce, SASL_CLIENT_NONCE_MAX + SERVER_NONCE_LENGTH);
    struct buffer text;
    buffer_init(&text, 0);
    base64_encode(&text, slice_make(nonce, SASL_NONCE_BYTES));
    if (mechanism == SASL_CRAM_MD5) {
        sasl_cram_challenge(nonce, host, &server->auth_message);
    }
    bool failed = text.failed || server->auth_message.failed;
    if (!failed) {
        memcpy(server->nonce, text.data, sizeof(server->nonce));
    }
    buffer_done(&text);
    if (failed) {
        sasl_server_free(server);
        return NULL;
    }
    return server;
}

void sasl_server_free(struct sasl_server *server)
{
    if (server != NULL) {
        buffer_done(&server->auth_message);
        buffer_done(&server->header);
        buffer_done(&server->whole_nonce);
        digest_forget(server, sizeof(*server));
        free(server);
    }
}

struct slice sasl_server_name(const struct sasl_server *server)
{
    return slice_make(server->name.bytes, server->name.length);
}

struct slice sasl_server_password(const struct sasl_server *server)
{
    return slice_make(server->password.bytes, server->password.length);
}

struct slice sasl_server_auth_message(const struct sasl_server *server)
{
    return buffer_slice(&server->auth_message);
}

struct slice sasl_server_proof(const struct sasl_server *server)
{
    return slice_make(server->proof, sizeof(server->proof));
}

/* As a client may send it (proto/sasl.h). */
static bool secret_set(struct secret *secret, struct slice value)
{
    if (value.length == 0 || value.length > SASL_SECRET_MAX) {
        return false;
    }
    for (size_t i = 0; i < value.length; i++) {
        if (value.data[i] == '\0' || value.data[i] == '\r' || value.data[i] == '\n') {
            return false;
        }
    }
    memcpy(secret->bytes, value.data, value.length);
    secret->length = value.length;
    return true;
}

static enum sasl_turn ask(struct sasl_server *server, enum sasl_turn question)
{
    server->state = STATE_ASKED;
    return question;
}

static enum sasl_turn end(struct sasl_server *server, enum sasl_turn turn)
{
    server->state = STATE_OVER;
    digest_forget(&server->password, sizeof(server->password));
    return turn;
}

static enum sasl_turn challenge_with(struct sasl_server *server, enum server_state next,
                                     struct slice text, struct buffer *challenge)
{
    buffer_append(challenge, text);
    server->state = next;
    return challenge->failed ? end(server, SASL_NO_MEMORY) : SASL_CHALLENGE;
}

/* ---- PLAIN (RFC 4616), LOGIN -------------------------------------------------------------- */

static enum sasl_turn plain(struct sasl_server *server, struct slice response)
{
    size_t end_of_identity = slice_find(response, '\0');
    struct slice rest = slice_skip(response, end_of_identity + 1);
    size_t end_of_name = slice_find(rest, '\0');
    struct slice identity = slice_take(response, end_of_identity);
    struct slice name = slice_take(rest, end_of_name);
    if (end_of_name == rest.length || !secret_set(&server->name, name) ||
        !secret_set(&server->password, slice_skip(rest, end_of_name + 1)) ||
        (identity.length > 0 && !slice_equal(identity, name))) {
        return end(server, SASL_MALFORMED);
    }
    return ask(server, SASL_PASSWORD);
}

static enum sasl_turn login_name(struct sasl_server *server, struct slice response,
                                 struct buffer *challenge)
{
    if (!secret_set(&server->name, response)) {
        return end(server, SASL_MALFORMED);
    }
    return challenge_with(server, STATE_LOGIN_PASSWORD, ask_password, challenge);
}

static enum sasl_turn login_password(struct sasl_server *server, struct slice response)
{
    return secret_set(&server->password, response) ? ask(server, SASL_PASSWORD)
                                                   : end(server, SASL_MALFORMED);
}

/* ---- SCRAM-SHA-256 (RFC 5802, RFC 7677) --------------------------------------------------- */

/* Takes "k=value" up to the next comma, and that, off the front. */
static bool take_attribute(struct slice *rest, char key, struct slice *ret_value)
{
    if (rest->length < 2 || rest->data[0] != (uint8_t)key || rest->data[1] != '=') {
        return false;
    }
    size_t comma = slice_find(*rest, ',');
    *ret_value = slice_skip(slice_take(*rest, comma), 2);
    *rest = slice_skip(*rest, comma + 1);
    return true;
}

/* "=2C" is a comma, "=3D" an equals sign; no other = may stand there. */
static bool read_name(struct slice text, struct secret *ret_name)
{
    uint8_t plain_name[SASL_SECRET_MAX];
    size_t length = 0;
    for (size_t i = 0; i < text.length; i++) {
        uint8_t byte = text.data[i];
        if (byte == '=') {
            struct slice code = slice_take(slice_skip(text, i + 1), 2);
            bool is_comma = slice_equal(code, SLICE_LITERAL("2C"));
            if (!is_comma && !slice_equal(code, SLICE_LITERAL("3D"))) {
                return false;
            }
            byte = is_comma ? ',' : '=';
            i += 2;
        }
        if (length == sizeof(plain_name)) {
            return false;
        }
        plain_name[length++] = byte;
    }
    return secret_set(ret_name, slice_make(plain_name, length));
}

static bool is_nonce(struct slice nonce)
{
    if (nonce.length == 0 || nonce.length > SASL_CLIENT_NONCE_MAX) {
        return false;
    }
    for (size_t i = 0; i < nonce.length; i++) {
        if (nonce.data[i] < 0x21 || nonce.data[i] > 0x7e || nonce.data[i] == ',') {
            return false;
        }
    }
    return true;
}

/* "n,," or "y,,", an identity between the commas. True: *rest is what follows. */
static bool take_header(struct slice *rest, struct slice *ret_header, struct slice *ret_identity)
{
    struct slice whole = *rest;
    if (rest->length < 3 || (rest->data[0] != 'n' && rest->data[0] != 'y') ||
        rest->data[1] != ',') {
        return false;
    }
    *rest = slice_skip(*rest, 2);
    size_t comma = slice_find(*rest, ',');
    struct slice identity = slice_take(*rest, comma);
    if (comma == rest->length ||
        (identity.length > 0 && !slice_equal(slice_take(identity, 2), SLICE_LITERAL("a=")))) {
        return false;
    }
    *ret_identity = slice_skip(identity, 2);
    *rest = slice_skip(*rest, comma + 1);
    *ret_header = slice_take(whole, whole.length - rest->length);
    return true;
}

static enum sasl_turn scram_first(struct sasl_server *server, struct slice message)
{
    struct slice bare = message, header, identity, name, nonce;
    struct secret other = {0};
    if (!take_header(&bare, &header, &identity)) {
        return end(server, SASL_MALFORMED);
    }
    struct slice rest = bare; /* a mandatory extension ("m=") is none that we know */
    if (!take_attribute(&rest, 'n', &name) || !read_name(name, &server->name) ||
        !take_attribute(&rest, 'r', &nonce) || !is_nonce(nonce)) {
        return end(server, SASL_MALFORMED);
    }
    if (identity.length > 0 &&
        (!read_name(identity, &other) ||
         !slice_equal(slice_make(other.bytes, other.length), sasl_server_name(server)))) {
        return end(server, SASL_MALFORMED);
    }
    buffer_append(&server->header, header);
    buffer_append(&server->whole_nonce, nonce);
    buffer_append(&server->whole_nonce, slice_make(server->nonce, sizeof(server->nonce)));
    buffer_append(&server->auth_message, bare);
    buffer_append_text(&server->auth_message, ",");
    if (server->header.failed || server->whole_nonce.failed || server->auth_message.failed) {
        return end(server, SASL_NO_MEMORY);
    }
    return ask(server, SASL_SALT);
}

enum sasl_turn sasl_server_salt(struct sasl_server *server, struct slice salt, uint32_t iterations,
                                struct buffer *challenge)
{
    assert(server->state == STATE_ASKED && salt.length > 0 && salt.length <= SASL_SALT_MAX);
    size_t from = challenge->length;
    buffer_append_text(challenge, "r=");
    buffer_append(challenge, buffer_slice(&server->whole_nonce));
    buffer_append_text(challenge, ",s=");
    base64_encode(challenge, salt);
    buffer_printf(challenge, ",i=%u", (unsigned)iterations);
    if (!challenge->failed) {
        buffer_append(&server->auth_message, slice_skip(buffer_slice(challenge), from));
        buffer_append_text(&server->auth_message, ",");
    }
    if (server->auth_message.failed) {
        return end(server, SASL_NO_MEMORY);
    }
    return challenge_with(server, STATE_SCRAM_FINAL, SLICE_EMPTY, challenge);
}

static bool decodes_to(struct slice text, struct slice expected)
{
    struct buffer decoded;
    buffer_init(&decoded, SASL_MESSAGE_MAX);
    bool same = base64_decode(&decoded, text) == ERROR_NONE && !decoded.failed &&
                slice_equal(buffer_slice(&decoded), expected);
    buffer_done(&decoded);
    return same;
}

static bool read_proof(struct slice text, uint8_t ret_proof[SASL_PROOF_BYTES])
{
    struct buffer decoded;
    buffer_init(&decoded, SASL_MESSAGE_MAX);
    bool good = base64_decode(&decoded, text) == ERROR_NONE && !decoded.failed &&
                decoded.length == SASL_PROOF_BYTES;
    if (good) {
        memcpy(ret_proof, decoded.data, SASL_PROOF_BYTES);
    }
    buffer_done(&decoded);
    return good;
}

static enum sasl_turn scram_final(struct sasl_server *server, struct slice message)
{
    struct slice rest = message, binding, nonce, proof;
    size_t last = slice_find_last(message, ','); /* a proof in base64 has no comma */
    struct slice last_part = slice_skip(message, last + 1);
    if (!take_attribute(&rest, 'c', &binding) ||
        !decodes_to(binding, buffer_slice(&server->header)) ||
        !take_attribute(&rest, 'r', &nonce) ||
        !slice_equal(nonce, buffer_slice(&server->whole_nonce)) ||
        !take_attribute(&last_part, 'p', &proof) || !read_proof(proof, server->proof)) {
        return end(server, SASL_MALFORMED);
    }
    buffer_append(&server->auth_message, slice_take(message, last));
    return server->auth_message.failed ? end(server, SASL_NO_MEMORY) : ask(server, SASL_PROOF);
}

/* ---- CRAM-MD5 (RFC 2195) ------------------------------------------------------------------ */

static enum sasl_turn cram(struct sasl_server *server, struct slice response)
{
    struct slice name, proof;
    if (sasl_cram_read(response, &name, &proof) != ERROR_NONE || !secret_set(&server->name, name)) {
        return end(server, SASL_MALFORMED);
    }
    memcpy(server->proof, proof.data, sizeof(server->proof));
    return ask(server, SASL_PROOF);
}

/* ---- the course --------------------------------------------------------------------------- */

static enum server_state first_state(enum sasl_mechanism mechanism)
{
    return mechanism == SASL_PLAIN      ? STATE_PLAIN
           : mechanism == SASL_LOGIN    ? STATE_LOGIN_NAME
           : mechanism == SASL_CRAM_MD5 ? STATE_CRAM
                                        : STATE_SCRAM_FIRST;
}

enum sasl_turn sasl_server_step(struct sasl_server *server, bool has_response,
                                struct slice response, struct buffer *challenge)
{
    assert(server->state != STATE_ASKED);
    if (server->state == STATE_BEGIN) {
        server->state = first_state(server->mechanism);
        if (!has_response) {
            struct slice text = server->mechanism == SASL_LOGIN ? ask_name
                                : server->mechanism == SASL_CRAM_MD5
                                    ? sasl_server_auth_message(server)
                                    : SLICE_EMPTY;
            return challenge_with(server, server->state, text, challenge);
        }
        if (server->state == STATE_CRAM) {
            return end(server, SASL_MALFORMED); /* to which challenge? */
        }
    }
    if (!has_response || response.length > SASL_MESSAGE_MAX) {
        return end(server, SASL_MALFORMED);
    }
    switch (server->state) {
    case STATE_PLAIN:
        return plain(server, response);
    case STATE_LOGIN_NAME:
        return login_name(server, response, challenge);
    case STATE_LOGIN_PASSWORD:
        return login_password(server, response);
    case STATE_SCRAM_FIRST:
        return scram_first(server, response);
    case STATE_SCRAM_FINAL:
        return scram_final(server, response);
    case STATE_CRAM:
        return cram(server, response);
    case STATE_SCRAM_SEEN:
        return end(server, response.length == 0 ? SASL_DONE : SASL_MALFORMED);
    default:
        return end(server, SASL_MALFORMED);
    }
}

enum sasl_turn sasl_server_judge(struct sasl_server *server, bool is_good,
                                 const uint8_t signature[SASL_PROOF_BYTES],
                                 struct buffer *challenge)
{
    assert(server->state == STATE_ASKED);
    if (!is_good || server->mechanism != SASL_SCRAM_SHA_256) {
        return end(server, is_good ? SASL_DONE : SASL_REFUSED);
    }
    buffer_append_text(challenge, "v=");
    base64_encode(challenge, slice_make(signature, SASL_PROOF_BYTES));
    return challenge_with(server, STATE_SCRAM_SEEN, SLICE_EMPTY, challenge);
}

/* ---- for who keeps the secrets ------------------------------------------------------------ */

enum error sasl_scram_derive(struct slice password, struct slice salt, uint32_t iterations,
                             struct sasl_scram_keys *ret_keys)
{
    uint8_t salted[DIGEST_SHA256_BYTES], key[DIGEST_MAX_BYTES];
    struct slice salted_password = slice_make(salted, sizeof(salted));
    enum error error = digest_from_password(password, salt, iterations, salted);
    if (error == ERROR_NONE) {
        error = digest_hmac(DIGEST_SHA256, salted_password, SLICE_LITERAL("Client Key"), key);
    }
    if (error == ERROR_NONE) {
        error = digest_make(DIGEST_SHA256, slice_make(key, DIGEST_SHA256_BYTES), ret_keys->stored);
    }
    if (error == ERROR_NONE) {
        error = digest_hmac(DIGEST_SHA256, salted_password, SLICE_LITERAL("Server Key"),
                            ret_keys->server);
    }
    digest_forget(salted, sizeof(salted));
    digest_forget(key, sizeof(key));
    return error;
}

bool sasl_scram_proves(const struct sasl_scram_keys *keys, struct slice auth_message,
                       struct slice proof, uint8_t ret_signature[SASL_PROOF_BYTES])
{
    uint8_t key[DIGEST_MAX_BYTES], stored[DIGEST_MAX_BYTES];
    struct slice known = slice_make(keys->stored, sizeof(keys->stored));
    if (proof.length != SASL_PROOF_BYTES ||
        digest_hmac(DIGEST_SHA256, known, auth_message, key) != ERROR_NONE) {
        return false;
    }
    for (size_t i = 0; i < SASL_PROOF_BYTES; i++) {
        key[i] ^= proof.data[i]; /* the client's key, if he has it */
    }
    bool proves =
        digest_make(DIGEST_SHA256, slice_make(key, DIGEST_SHA256_BYTES), stored) == ERROR_NONE &&
        digest_equal(slice_make(stored, DIGEST_SHA256_BYTES), known);
    digest_forget(key, sizeof(key));
    return digest_hmac(DIGEST_SHA256, slice_make(keys->server, sizeof(keys->server)), auth_message,
                       ret_signature) == ERROR_NONE &&
           proves;
}
