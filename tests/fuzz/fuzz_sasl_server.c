/* SPDX-License-Identifier: Apache-2.0
 *
 * Any responses, one a line, of a client that wants to log in; the first byte chooses the
 * mechanism. What is asked of the caller is within its bounds, and nobody is let in whom the caller
 * refuses.
 */
#include "proto/sasl_server.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_question(const struct sasl_server *server, enum sasl_turn turn)
{
    struct slice name = sasl_server_name(server);
    assert(name.length > 0 && name.length <= SASL_SECRET_MAX);
    assert(slice_find(name, '\0') == name.length && slice_find(name, '\n') == name.length);
    if (turn == SASL_PASSWORD) {
        struct slice password = sasl_server_password(server);
        assert(password.length > 0 && password.length <= SASL_SECRET_MAX);
        assert(slice_find(password, '\0') == password.length);
    } else {
        assert(sasl_server_auth_message(server).length <= 3 * SASL_MESSAGE_MAX);
    }
}

static enum sasl_turn answer(struct sasl_server *server, enum sasl_turn turn, bool is_good,
                             struct buffer *challenge)
{
    static const uint8_t signature[SASL_PROOF_BYTES] = {7};
    check_question(server, turn);
    return turn == SASL_SALT ? sasl_server_salt(server, SLICE_LITERAL("salt"), 4096, challenge)
                             : sasl_server_judge(server, is_good, signature, challenge);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t nonce[SASL_NONCE_BYTES] = {0};
    if (size == 0) {
        return 0;
    }
    bool is_good = (data[0] & 8) != 0, has_response = (data[0] & 4) != 0;
    struct slice input = slice_make(data + 1, size - 1);
    struct sasl_server *server = sasl_server_new((enum sasl_mechanism)(SASL_PLAIN + (data[0] & 3)),
                                                 nonce, SLICE_LITERAL("mx2.example.net"));
    struct buffer challenge;
    buffer_init(&challenge, 0);
    enum sasl_turn turn = SASL_CHALLENGE;
    for (bool begun = false; turn == SASL_CHALLENGE && (!begun || input.length > 0); begun = true) {
        size_t end = slice_find(input, '\n');
        bool takes = begun || has_response;
        buffer_clear(&challenge);
        turn = sasl_server_step(server, takes, slice_take(input, end), &challenge);
        input = takes ? slice_skip(input, end + 1) : input;
        while (turn == SASL_PASSWORD || turn == SASL_SALT || turn == SASL_PROOF) {
            turn = answer(server, turn, is_good, &challenge);
        }
        assert(slice_find(buffer_slice(&challenge), '\n') == challenge.length);
    }
    assert(turn != SASL_DONE || is_good);
    assert(turn != SASL_NO_MEMORY);
    sasl_server_free(server);
    buffer_done(&challenge);
    return 0;
}
