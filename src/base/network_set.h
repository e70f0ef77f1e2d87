/* SPDX-License-Identifier: Apache-2.0
 *
 * Many networks, asked whether one of them has an address: a search for each length of prefix that
 * occurs, so a list of a million costs some microseconds.
 */
#ifndef HOLDFAST_BASE_NETWORK_SET_H
#define HOLDFAST_BASE_NETWORK_SET_H

#include "base/network.h"

struct network_set;

/* A copy of the networks, 17 bytes each. NULL: memory. */
struct network_set *network_set_new(const struct ip_network *networks, size_t count);
void network_set_free(struct network_set *set);
bool network_set_contains(const struct network_set *set, const struct ip_address *address);

#endif
