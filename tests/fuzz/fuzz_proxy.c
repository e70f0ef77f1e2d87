/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a PROXY header: what is read of them lies within them, a shorter piece never says
 * another thing, and what is known can be written and read again.
 */
#include "proto/proxy.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_make(data, size);
    struct proxy_header header, again;
    enum proxy_verdict verdict = proxy_read(input, &header);
    assert(verdict != PROXY_MORE || size < PROXY_HEADER_MAX);
    for (size_t i = 0; i < size; i++) {
        enum proxy_verdict before = proxy_read(slice_take(input, i), &again);
        assert(before == verdict || before == PROXY_MORE);
        assert(before != PROXY_DONE || again.length <= i);
        assert(before != PROXY_MORE || verdict != PROXY_DONE ||
               proxy_wanted(slice_take(input, i)) <= header.length - i);
        assert(before != PROXY_MORE || proxy_wanted(slice_take(input, i)) > 0);
    }
    if (verdict != PROXY_DONE) {
        return 0;
    }
    assert(header.length > 0 && header.length <= size && header.length <= PROXY_HEADER_MAX);
    assert(header.tls_version.length == 0 ||
           (header.tls_version.data > data &&
            header.tls_version.data + header.tls_version.length <= data + header.length));
    if (header.is_known) {
        uint8_t bytes[PROXY_V2_MAX];
        size_t length = proxy_write(&header.source, &header.destination, bytes);
        assert(proxy_read(slice_make(bytes, length), &again) == PROXY_DONE);
        assert(ip_equal(&again.source.address, &header.source.address) &&
               again.destination.port == header.destination.port);
    }
    return 0;
}
