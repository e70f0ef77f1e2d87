/* SPDX-License-Identifier: Apache-2.0
 *
 * Forged and real Authentication-Results: however a header is cut, the same of it stays, and
 * nothing but whole fields goes; what is left over proves nothing by our name. The input is an
 * octet for the cut, a header, a NUL, and a value as a filter would write it.
 */
#include "proto/auth_results.h"

#include "base/buffer.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct slice own[] = {SLICE_LITERAL("mx.example.net")};
static const struct auth_names names = {own, 1};

static uint64_t sieve_it(struct slice header, size_t piece, struct buffer *kept)
{
    struct auth_sieve sieve = {0};
    struct slice run;
    while (header.length > 0) {
        struct slice next = slice_take(header, piece);
        header = slice_skip(header, piece);
        while (auth_sieve_next(&sieve, &names, &next, &run)) {
            buffer_append(kept, run);
        }
    }
    buffer_append(kept, auth_sieve_end(&sieve, &names));
    assert(sieve.length == 0);
    return sieve.removed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(data, size);
    if (size == 0) {
        return 0;
    }
    size_t piece = (size_t)data[0] + 1;
    rest = slice_skip(rest, 1);
    struct slice header = slice_take(rest, slice_find(rest, 0));
    struct buffer whole, cut, again;
    buffer_init(&whole, 0);
    buffer_init(&cut, 0);
    buffer_init(&again, 0);
    uint64_t removed = sieve_it(header, header.length + 1, &whole);
    assert(sieve_it(header, piece, &cut) == removed);
    assert(slice_equal(buffer_slice(&whole), buffer_slice(&cut)));
    assert(whole.length + removed == header.length);
    assert(sieve_it(buffer_slice(&whole), 1, &again) == 0);
    (void)auth_results_prove(slice_skip(rest, header.length + 1), &names,
                             SLICE_LITERAL("client.example"));
    buffer_done(&whole);
    buffer_done(&cut);
    buffer_done(&again);
    return 0;
}
