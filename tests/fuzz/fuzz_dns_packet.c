/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/dns_packet.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned types[] = {DNS_TYPE_A, DNS_TYPE_AAAA};
    for (size_t i = 0; i < 2; i++) {
        struct ip_address addresses[4];
        struct dns_addresses found = {.addresses = addresses, .limit = 4, .ttl_s = UINT32_MAX};
        (void)dns_packet_read(slice_make(data, size), types[i], &found);
        assert(found.count <= found.limit);
    }
    return 0;
}
