/* SPDX-License-Identifier: Apache-2.0 */
#include "base/network.h"

#include <arpa/inet.h>

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool ip_from_text(struct slice text, struct ip_address *ret_address)
{
    char copy[IP_TEXT_SIZE];
    if (text.length == 0 || text.length >= sizeof(copy) || slice_find(text, 0) != text.length) {
        return false;
    }
    memcpy(copy, text.data, text.length);
    copy[text.length] = '\0';
    uint8_t v4[4];
    if (inet_pton(AF_INET, copy, v4) == 1) {
        memcpy(ret_address->bytes, mapped, 12);
        memcpy(ret_address->bytes + 12, v4, 4);
        return true;
    }
    return inet_pton(AF_INET6, copy, ret_address->bytes) == 1;
}

void ip_to_text(const struct ip_address *address, char ret_text[IP_TEXT_SIZE])
{
    if (ip_is_v4(address)) {
        inet_ntop(AF_INET, address->bytes + 12, ret_text, IP_TEXT_SIZE);
    } else {
        inet_ntop(AF_INET6, address->bytes, ret_text, IP_TEXT_SIZE);
    }
}

bool ip_is_v4(const struct ip_address *address)
{
    return memcmp(address->bytes, mapped, 12) == 0;
}

bool ip_is_loopback(const struct ip_address *address)
{
    static const uint8_t v6[16] = {[15] = 1};
    return ip_is_v4(address) ? address->bytes[12] == 127 : memcmp(address->bytes, v6, 16) == 0;
}

struct slice ip_neighbours(const struct ip_address *address)
{
    return slice_make(address->bytes, ip_is_v4(address) ? 15 : 8);
}

bool ip_equal(const struct ip_address *a, const struct ip_address *b)
{
    return memcmp(a->bytes, b->bytes, 16) == 0;
}

bool ip_network_from_text(struct slice text, struct ip_network *ret_network)
{
    size_t slash = slice_find(text, '/');
    if (!ip_from_text(slice_take(text, slash), &ret_network->address)) {
        return false;
    }
    bool v4 = ip_is_v4(&ret_network->address) && slice_find(slice_take(text, slash), ':') == slash;
    uint64_t prefix = v4 ? 32 : 128;
    if (slash < text.length) {
        uint64_t given;
        if (!slice_to_u64(slice_skip(text, slash + 1), &given) || given > prefix) {
            return false;
        }
        prefix = given;
    }
    ret_network->prefix = (uint8_t)(v4 ? prefix + 96 : prefix);
    for (unsigned bit = ret_network->prefix; bit < 128; bit++) {
        if (ret_network->address.bytes[bit / 8] & (0x80 >> bit % 8)) {
            return false;
        }
    }
    return true;
}

bool ip_network_contains(const struct ip_network *network, const struct ip_address *address)
{
    unsigned whole = network->prefix / 8;
    unsigned rest = network->prefix % 8;
    if (memcmp(network->address.bytes, address->bytes, whole) != 0) {
        return false;
    }
    if (rest == 0) {
        return true;
    }
    uint8_t mask = (uint8_t)(0xff << (8 - rest));
    return (network->address.bytes[whole] & mask) == (address->bytes[whole] & mask);
}
