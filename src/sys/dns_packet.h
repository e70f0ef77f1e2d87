/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads the answer section of a DNS response (RFC 1035 section 4). The bytes come from the network:
 * everything is bounded. Compression pointers of owner names are stepped over; those within the
 * data of MX and PTR are followed, each to an earlier place than the one before.
 */
#ifndef HOLDFAST_SYS_DNS_PACKET_H
#define HOLDFAST_SYS_DNS_PACKET_H

#include "base/arena.h"
#include "base/network.h"
#include "sys/dns.h"

enum { DNS_TYPE_A = 1, DNS_TYPE_AAAA = 28 };

struct dns_addresses {
    struct ip_address *addresses; /* room for `limit` */
    size_t limit;
    size_t count;
    uint32_t ttl_s;      /* the least of all records in the answer section; UINT32_MAX: none */
    size_t owner_length; /* 0: not known */
    uint8_t owner[DNS_NAME_MAX]; /* the name that has the first of them */
};

/* Appends the addresses of the answer section's records of `type` (one of DNS_TYPE_*) until the
 * room is full. False: malformed; what was found before stays appended. */
bool dns_packet_read(struct slice packet, unsigned type, struct dns_addresses *ret_found);

struct dns_found {
    struct dns_record *records; /* in the arena */
    size_t count;
    size_t broken;      /* records of the type that were left out */
    uint32_t ttl_s;     /* the least of all records in the answer section; UINT32_MAX: none */
    struct slice owner; /* the name that has the first of them, in the arena; empty: not known */
};

/* The answer section's records of a type, at most DNS_RECORDS_MAX: of MX the most preferred, of
 * others the first. Names and data are copied into the arena. ERROR_INVALID: malformed. */
enum error dns_packet_records(struct slice packet, enum dns_type type, struct arena *arena,
                              struct dns_found *ret_found) MUST_CHECK;

#endif
