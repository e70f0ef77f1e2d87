/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads the addresses out of a DNS response (RFC 1035 section 4). The bytes come from the network:
 * everything is bounded, and compression pointers are stepped over, never followed.
 */
#ifndef HOLDFAST_SYS_DNS_PACKET_H
#define HOLDFAST_SYS_DNS_PACKET_H

#include "base/network.h"

enum { DNS_TYPE_A = 1, DNS_TYPE_AAAA = 28 };

struct dns_addresses {
    struct ip_address *addresses; /* room for `limit` */
    size_t limit;
    size_t count;
    uint32_t ttl_s; /* the least of all records in the answer section; UINT32_MAX: none */
};

/* Appends the addresses of the answer section's records of `type` (one of DNS_TYPE_*) until the
 * room is full. False: malformed; what was found before stays appended. */
bool dns_packet_read(struct slice packet, unsigned type, struct dns_addresses *ret_found);

#endif
