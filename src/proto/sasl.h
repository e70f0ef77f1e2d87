/* SPDX-License-Identifier: Apache-2.0
 *
 * SASL (RFC 4422) as exchanges of byte strings: no base64, no protocol around it, no randomness of
 * its own. A client logs in at a next hop:
 *
 *   PLAIN          RFC 4616; the password crosses the line
 *   LOGIN          draft-murchison-sasl-login; the same in two steps
 *   SCRAM-SHA-256  RFC 7677 and 5802, without channel binding; each side proves that it knows the
 *                  password
 *
 * and CRAM-MD5 (RFC 2195) lets a client in, because RFC 2645 (ODMR) asks for it: each shows that it
 * knows the password, which the server must have in clear.
 *
 * Names and passwords are taken as they are: SASLprep (RFC 4013) is left to whoever sets them, as
 * it changes nothing in ASCII. Neither may be empty or hold NUL, CR or LF.
 */
#ifndef HOLDFAST_PROTO_SASL_H
#define HOLDFAST_PROTO_SASL_H

#include "base/buffer.h"

enum sasl_mechanism {
    SASL_NONE,
    SASL_PLAIN,
    SASL_LOGIN,
    SASL_SCRAM_SHA_256,
    SASL_CRAM_MD5, /* of a server only (sasl_server.h) */
};

enum {
    SASL_SECRET_MAX = 255,        /* of a name, of a password */
    SASL_MESSAGE_MAX = 2048,      /* of one step, decoded; longer ones are refused */
    SASL_NONCE_BYTES = 15,        /* of randomness for each exchange; 20 characters */
    SASL_ITERATIONS_MAX = 100000, /* that a server may ask of us: the work is ours */
    SASL_ITERATIONS_LEAST = 4096, /* RFC 7677 section 4: with fewer, a proof gives much away */
};

/* "SCRAM-SHA-256" in any case, or SASL_NONE. */
enum sasl_mechanism sasl_find(struct slice name);
const char *sasl_name(enum sasl_mechanism mechanism); /* static; "" for SASL_NONE */
/* PLAIN and LOGIN: only over TLS or to this machine. */
bool sasl_shows_password(enum sasl_mechanism mechanism);

/* ---- client ------------------------------------------------------------------------------ */

struct sasl_client;

/* name, password and nonce are copied; the password is wiped by sasl_client_free(). ERROR_INVALID:
 * a name or password that cannot be sent, or CRAM-MD5. */
enum error sasl_client_new(enum sasl_mechanism mechanism, struct slice name, struct slice password,
                           const uint8_t nonce[SASL_NONCE_BYTES],
                           struct sasl_client **ret_client) MUST_CHECK;
void sasl_client_free(struct sasl_client *client);
/* True: sasl_client_step() with an empty challenge gives what goes along with the command (RFC 4954
 * section 4); it must be called so. False: the server speaks first. */
bool sasl_client_begins(const struct sasl_client *client);
/* Appends the answer to a challenge. ERROR_INVALID: the challenge is none, asks too much or too
 * little, or the server has not proved that it knows the password: cancel ("*") and trust nothing.
 */
enum error sasl_client_step(struct sasl_client *client, struct slice challenge,
                            struct buffer *response) MUST_CHECK;
/* After ERROR_INVALID, or where sasl_client_done() is false: why, in words. Valid as long as the
 * client is. */
const char *sasl_client_trouble(const struct sasl_client *client);
/* The server says it was successful. False: it must not be believed, for its proof is missing. */
bool sasl_client_done(const struct sasl_client *client);

/* ---- CRAM-MD5, the server's side --------------------------------------------------------- */

/* Appends "<nonce@host>"; the nonce must never have been used before. */
void sasl_cram_challenge(const uint8_t nonce[SASL_NONCE_BYTES], struct slice host,
                         struct buffer *challenge);
/* Takes "name proof" apart; slices of the response. ERROR_INVALID: it is not that. */
enum error sasl_cram_read(struct slice response, struct slice *ret_name,
                          struct slice *ret_proof) MUST_CHECK;
/* In constant time. For a name that nobody has, ask with a password that nobody has. */
bool sasl_cram_proves(struct slice challenge, struct slice password, struct slice proof);

#endif
