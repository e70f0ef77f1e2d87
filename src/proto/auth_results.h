/* SPDX-License-Identifier: Apache-2.0
 *
 * Authentication-Results (RFC 8601): fields that claim to be ours are taken out of mail on its way
 * in (section 5), and of those that our own filters have written it is read whether the sender was
 * verified. Values may be folded; comments may nest. Pure: bytes in, answers out; nothing is kept
 * beyond AUTH_SIEVE_HELD octets.
 */
#ifndef HOLDFAST_PROTO_AUTH_RESULTS_H
#define HOLDFAST_PROTO_AUTH_RESULTS_H

#include "base/slice.h"

/* The names by which our filters sign (authserv-id). */
struct auth_names {
    const struct slice *names;
    size_t count;
};

/* ---- on receipt ------------------------------------------------------------------------------ */

enum { AUTH_SIEVE_HELD = 256 };

/* Begins as zeros. A field whose name or authserv-id is not to be found within AUTH_SIEVE_HELD
 * octets is taken for a forged one. */
struct auth_sieve {
    uint8_t state;
    bool is_over;
    uint16_t length;
    uint8_t held[AUTH_SIEVE_HELD]; /* of a field that may be one of ours */
    uint64_t removed;              /* octets */
    uint32_t fields;
};

/* Takes from the front of *input, which is the next of a header. *ret_run: the next bytes that
 * stay, valid until the next call and as long as the input. False: the input is used up. */
bool auth_sieve_next(struct auth_sieve *sieve, const struct auth_names *names, struct slice *input,
                     struct slice *ret_run);
/* The header is over: what is still held; once. Valid as long as the sieve. */
struct slice auth_sieve_end(struct auth_sieve *sieve, const struct auth_names *names);

/* ---- what filters say ------------------------------------------------------------------------ */

enum auth_proof { AUTH_NOTHING, AUTH_BY_SPF, AUTH_BY_DKIM, AUTH_BY_DMARC };

/* What `value`, of an Authentication-Results field that a filter of ours has written, proves of a
 * sender of `domain`: SPF that passed for this very domain as MAIL FROM; a DKIM signature by it or
 * by a domain above it, for which RFC 6376 section 3.5 lets that speak; DMARC that passed for such
 * a one in From. A field with another's name, or one that breaks the grammar, proves nothing. */
enum auth_proof auth_results_prove(struct slice value, const struct auth_names *names,
                                   struct slice domain);

#endif
