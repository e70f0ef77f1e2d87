/* SPDX-License-Identifier: Apache-2.0 */
#include "base/network_set.h"

#include <stdlib.h>

enum { LENGTHS = 129 };

struct network_set {
    size_t ends[LENGTHS]; /* those of a length lie before ends[length], sorted */
    struct ip_network networks[];
};

static int compare(const void *left, const void *right)
{
    const struct ip_network *a = left, *b = right;
    return a->prefix != b->prefix ? a->prefix - b->prefix
                                  : memcmp(a->address.bytes, b->address.bytes, 16);
}

struct network_set *network_set_new(const struct ip_network *networks, size_t count)
{
    struct network_set *set = NULL;
    if (count <= (SIZE_MAX - sizeof(*set)) / sizeof(*networks)) {
        set = malloc(sizeof(*set) + count * sizeof(*networks));
    }
    if (set == NULL) {
        return NULL;
    }
    if (count > 0) {
        memcpy(set->networks, networks, count * sizeof(*networks));
        qsort(set->networks, count, sizeof(*networks), compare);
    }
    size_t at = 0;
    for (unsigned length = 0; length < LENGTHS; length++) {
        while (at < count && set->networks[at].prefix == length) {
            at++;
        }
        set->ends[length] = at;
    }
    return set;
}

void network_set_free(struct network_set *set)
{
    free(set);
}

static struct ip_network around(const struct ip_address *address, unsigned length)
{
    struct ip_network network = {.prefix = (uint8_t)length};
    memcpy(network.address.bytes, address->bytes, length / 8);
    if (length % 8 != 0) {
        network.address.bytes[length / 8] =
            (uint8_t)(address->bytes[length / 8] & (0xff << (8 - length % 8)));
    }
    return network;
}

bool network_set_contains(const struct network_set *set, const struct ip_address *address)
{
    size_t begin = 0;
    for (unsigned length = 0; length < LENGTHS; length++) {
        size_t count = set->ends[length] - begin;
        if (count > 0) {
            struct ip_network wanted = around(address, length);
            if (bsearch(&wanted, &set->networks[begin], count, sizeof(wanted), compare) != NULL) {
                return true;
            }
        }
        begin = set->ends[length];
    }
    return false;
}
