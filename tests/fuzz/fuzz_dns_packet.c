/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/dns_packet.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take_records(struct slice packet, enum dns_type type)
{
    struct dns_found found;
    struct arena arena;
    arena_init(&arena);
    if (dns_packet_records(packet, type, &arena, &found) == ERROR_NONE) {
        assert(found.count <= DNS_RECORDS_MAX);
        for (size_t i = 0; i < found.count; i++) {
            const struct dns_record *record = &found.records[i];
            bool host = type == DNS_MX || type == DNS_PTR || type == DNS_CNAME;
            assert(host == (record->name.length > 0) && record->name.length <= 255);
            for (size_t k = 0; k < record->name.length; k++) {
                uint8_t c = record->name.data[k];
                assert(c > ' ' && c < 0x7f && (c < 'A' || c > 'Z'));
            }
            assert(record->data.length <= packet.length);
        }
    }
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned types[] = {DNS_TYPE_A, DNS_TYPE_AAAA};
    for (size_t i = 0; i < 2; i++) {
        struct ip_address addresses[4];
        struct dns_addresses found = {.addresses = addresses, .limit = 4, .ttl_s = UINT32_MAX};
        (void)dns_packet_read(slice_make(data, size), types[i], &found);
        assert(found.count <= found.limit && found.owner_length <= DNS_NAME_MAX);
        assert(found.owner_length == 0 || found.count > 0);
    }
    const enum dns_type record_types[] = {DNS_PTR, DNS_MX, DNS_TXT, DNS_A, DNS_TLSA, DNS_CNAME};
    for (size_t i = 0; i < sizeof(record_types) / sizeof(record_types[0]); i++) {
        take_records(slice_make(data, size), record_types[i]);
    }
    return 0;
}
