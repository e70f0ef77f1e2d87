/* SPDX-License-Identifier: Apache-2.0
 *
 * IP addresses and networks as values; no resolving, no sockets.
 */
#ifndef HOLDFAST_BASE_NETWORK_H
#define HOLDFAST_BASE_NETWORK_H

#include "base/slice.h"

#define IP_TEXT_SIZE 46

/* An IPv4 address is kept as IPv4-mapped IPv6 (::ffff:a.b.c.d), so one comparison serves both. */
struct ip_address {
    uint8_t bytes[16];
};

struct ip_network {
    struct ip_address address;
    uint8_t prefix; /* 0..128, counted in the 128-bit form */
};

struct ip_endpoint {
    struct ip_address address;
    uint16_t port;
};

bool ip_from_text(struct slice text, struct ip_address *ret_address); /* no brackets */
void ip_to_text(const struct ip_address *address, char ret_text[IP_TEXT_SIZE]);
bool ip_is_v4(const struct ip_address *address);
bool ip_is_loopback(const struct ip_address *address);
/* What its neighbours have in common, as a rule one site: IPv4 /24, IPv6 /64. Points into it. */
struct slice ip_neighbours(const struct ip_address *address);
bool ip_equal(const struct ip_address *a, const struct ip_address *b);
/* "192.0.2.0/24", "2001:db8::/32" or a bare address. Host bits set is an error. */
bool ip_network_from_text(struct slice text, struct ip_network *ret_network);
bool ip_network_contains(const struct ip_network *network, const struct ip_address *address);

#endif
