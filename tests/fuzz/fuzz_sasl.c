/* SPDX-License-Identifier: Apache-2.0
 *
 * Any challenges, one a line, to a client that logs in; the whole also as a CRAM-MD5 response.
 * Nobody is let in, and no server is believed, without knowing the password.
 */
#include "proto/sasl.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void log_in(struct slice challenges)
{
    static const uint8_t nonce[SASL_NONCE_BYTES] = {0xac, 0xea, 0x6b, 0x34, 0x67, 0xf0, 0x11, 0xb7,
                                                    0x91, 0x5a, 0x06, 0xcd, 0x12, 0x4a, 0x8e};
    struct sasl_client *client;
    struct buffer response;
    buffer_init(&response, 0);
    if (sasl_client_new(SASL_SCRAM_SHA_256, SLICE_LITERAL("user"), SLICE_LITERAL("secret"), nonce,
                        &client) != ERROR_NONE) {
        return;
    }
    enum error error = sasl_client_step(client, SLICE_EMPTY, &response);
    while (error == ERROR_NONE && challenges.length > 0) {
        size_t end = slice_find(challenges, '\n');
        error = sasl_client_step(client, slice_take(challenges, end), &response);
        challenges = slice_skip(challenges, end + 1);
    }
    assert(!sasl_client_done(client));
    sasl_client_free(client);
    buffer_done(&response);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_make(data, size), name, proof;
    log_in(input);
    if (sasl_cram_read(input, &name, &proof) == ERROR_NONE) {
        assert(name.length > 0 && name.length + 1 + proof.length == size);
        assert(!sasl_cram_proves(SLICE_LITERAL("<1@mx2.example.net>"), SLICE_LITERAL("secret"),
                                 proof));
    }
    return 0;
}
