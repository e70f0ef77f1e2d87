/* SPDX-License-Identifier: Apache-2.0
 *
 * The server's side of SASL (RFC 4422): a client says who he is by PLAIN, LOGIN, SCRAM-SHA-256 or
 * CRAM-MD5.
 * This core takes his words apart and writes ours; whether a password or a proof is right it asks
 * the caller, who need not know either: the secrets may be another process's.
 *
 *   PLAIN          response -> PASSWORD
 *   LOGIN          [name] -> "Password:"; password -> PASSWORD
 *   SCRAM-SHA-256  first -> SALT; nonce, salt, iterations; proof -> PROOF; signature; empty -> DONE
 *   CRAM-MD5       (nothing) -> challenge; name and proof -> PROOF
 *
 * An authorization identity is allowed only where it says the same as the name. SCRAM is offered
 * without channel binding, so a client who says that he could have bound ("y") is believed, one who
 * binds ("p") is refused.
 */
#ifndef HOLDFAST_PROTO_SASL_SERVER_H
#define HOLDFAST_PROTO_SASL_SERVER_H

#include "base/digest.h"
#include "proto/sasl.h"

enum {
    SASL_SALT_MAX = 64,
    SASL_PROOF_BYTES = DIGEST_SHA256_BYTES,
    SASL_CLIENT_NONCE_MAX = 256,
};

struct sasl_server;

/* What the caller is to do next. */
enum sasl_turn {
    SASL_CHALLENGE, /* send what was appended to `challenge` (it may be empty), and give what comes
                       back to sasl_server_step() */
    SASL_PASSWORD,  /* find out whether name and password are right: sasl_server_judge() */
    SASL_SALT,      /* find out the name's salt and iterations: sasl_server_salt() */
    SASL_PROOF,     /* find out whether the proof is right, and sign: sasl_server_judge() */
    SASL_DONE,      /* the client is who he says */
    SASL_REFUSED,   /* he is not, or nobody knows */
    SASL_MALFORMED, /* those are no words of the mechanism */
    SASL_NO_MEMORY,
};

/* NULL: memory. The nonce must never have been used before. The host is our name. */
struct sasl_server *sasl_server_new(enum sasl_mechanism mechanism,
                                    const uint8_t nonce[SASL_NONCE_BYTES], struct slice host);
/* Wipes what it knows. NULL is allowed. */
void sasl_server_free(struct sasl_server *server);

/* Begins: with the client's initial response, or (`has_response` false) without; then
 * SASL_CHALLENGE comes, whose text is empty where the client speaks first. After that the response
 * to each challenge, decoded. Not while a question is open. */
enum sasl_turn sasl_server_step(struct sasl_server *server, bool has_response,
                                struct slice response, struct buffer *challenge);
/* Of a question, until it is answered. The name also later. */
struct slice sasl_server_name(const struct sasl_server *server);
struct slice sasl_server_password(const struct sasl_server *server);
/* What the proof is over: with CRAM-MD5 our challenge. */
struct slice sasl_server_auth_message(const struct sasl_server *server);
/* SASL_PROOF_BYTES; with CRAM-MD5 as many hexadecimal digits. */
struct slice sasl_server_proof(const struct sasl_server *server);

/* The answer to SASL_SALT: salt of 1 to SASL_SALT_MAX bytes. A name that nobody has must have one
 * too, always the same. */
enum sasl_turn sasl_server_salt(struct sasl_server *server, struct slice salt, uint32_t iterations,
                                struct buffer *challenge);
/* The answer to SASL_PASSWORD and SASL_PROOF; `signature` is what that of SCRAM is to be answered
 * with if it is good. */
enum sasl_turn sasl_server_judge(struct sasl_server *server, bool is_good,
                                 const uint8_t signature[SASL_PROOF_BYTES],
                                 struct buffer *challenge);

/* ---- for who keeps the secrets ------------------------------------------------------------ */

/* RFC 5802 section 3: enough to check proofs by, and to sign, but not to log in with. */
struct sasl_scram_keys {
    uint8_t stored[DIGEST_SHA256_BYTES];
    uint8_t server[DIGEST_SHA256_BYTES];
};
enum error sasl_scram_derive(struct slice password, struct slice salt, uint32_t iterations,
                             struct sasl_scram_keys *ret_keys) MUST_CHECK;
/* In constant time. True: *ret_signature answers it. */
bool sasl_scram_proves(const struct sasl_scram_keys *keys, struct slice auth_message,
                       struct slice proof, uint8_t ret_signature[SASL_PROOF_BYTES]);

#endif
