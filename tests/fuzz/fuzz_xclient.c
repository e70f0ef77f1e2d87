/* SPDX-License-Identifier: Apache-2.0
 *
 * Any words as parameters of XCLIENT and XFORWARD: what is read lies within the storage, holds
 * nothing that ends a line, and is read the same when it has been written again.
 */
#include "proto/xclient.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const struct xclient_storage *storage, struct slice text)
{
    assert(text.length == 0 ||
           (text.data >= storage->bytes &&
            text.data + text.length <= storage->bytes + sizeof(storage->bytes)));
    for (size_t i = 0; i < text.length; i++) {
        assert(text.data[i] >= ' ');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xclient_storage storage, second;
    struct xclient facts, again;
    struct buffer line;
    if (xclient_read(slice_make(data, size), ~0u, &storage, &facts) != ERROR_NONE) {
        return 0;
    }
    check_text(&storage, facts.name);
    check_text(&storage, facts.helo);
    check_text(&storage, facts.login);
    check_text(&storage, facts.ident);
    check_text(&storage, facts.reverse_name);
    buffer_init(&line, 0);
    xclient_put(&line, &facts, ~0u, 0);
    assert(line.length + 2 <= XCLIENT_LINE_MAX);
    assert(xclient_read(buffer_slice(&line), ~0u, &second, &again) == ERROR_NONE);
    assert(again.given == facts.given);
    assert(again.helo.length == 0 || slice_equal(again.helo, facts.helo));
    assert(again.name_later == facts.name_later && again.has_protocol == facts.has_protocol);
    assert(again.has_address == facts.has_address &&
           ip_equal(&again.client.address, &facts.client.address));
    buffer_done(&line);
    return 0;
}
