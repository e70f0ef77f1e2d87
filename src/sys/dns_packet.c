/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/dns_packet.h"

enum {
    HEADER_BYTES = 12,
    CLASS_IN = 1,
    LABEL_POINTER = 0xc0,
};

struct cursor {
    struct slice packet;
    size_t at;
    bool failed;
};

static const uint8_t *take(struct cursor *cursor, size_t length)
{
    if (cursor->failed || length > cursor->packet.length - cursor->at) {
        cursor->failed = true;
        return NULL;
    }
    const uint8_t *bytes = cursor->packet.data + cursor->at;
    cursor->at += length;
    return bytes;
}

static unsigned take_u8(struct cursor *cursor)
{
    const uint8_t *bytes = take(cursor, 1);
    return bytes != NULL ? bytes[0] : 0;
}

static unsigned take_u16(struct cursor *cursor)
{
    const uint8_t *bytes = take(cursor, 2);
    return bytes != NULL ? (unsigned)bytes[0] << 8 | bytes[1] : 0;
}

static void skip_name(struct cursor *cursor)
{
    for (;;) {
        unsigned label = take_u8(cursor);
        if (cursor->failed || label == 0) {
            return;
        }
        if ((label & LABEL_POINTER) == LABEL_POINTER) {
            (void)take(cursor, 1);
            return;
        }
        if ((label & LABEL_POINTER) != 0) {
            cursor->failed = true; /* RFC 1035: reserved */
            return;
        }
        (void)take(cursor, label);
    }
}

static void add_address(struct dns_addresses *found, const uint8_t *bytes, size_t length)
{
    if (found->count == found->limit) {
        return;
    }
    struct ip_address *address = &found->addresses[found->count++];
    *address = (struct ip_address){{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}};
    memcpy(address->bytes + sizeof(address->bytes) - length, bytes, length);
}

static void read_record(struct cursor *cursor, unsigned type, struct dns_addresses *found)
{
    skip_name(cursor);
    unsigned record_type = take_u16(cursor);
    unsigned class = take_u16(cursor);
    uint32_t ttl_s = (uint32_t)take_u16(cursor) << 16;
    ttl_s |= take_u16(cursor);
    unsigned length = take_u16(cursor);
    const uint8_t *data = take(cursor, length);
    if (cursor->failed) {
        return;
    }
    if (ttl_s < found->ttl_s) {
        found->ttl_s = ttl_s;
    }
    size_t expected = type == DNS_TYPE_A ? 4 : 16;
    if (record_type == type && class == CLASS_IN && length == expected) {
        add_address(found, data, expected);
    }
}

bool dns_packet_read(struct slice packet, unsigned type, struct dns_addresses *ret_found)
{
    struct cursor cursor = {.packet = packet};
    (void)take(&cursor, 4); /* id and flags: libunbound has judged them */
    unsigned questions = take_u16(&cursor);
    unsigned answers = take_u16(&cursor);
    (void)take(&cursor, HEADER_BYTES - 8);
    for (unsigned i = 0; i < questions && !cursor.failed; i++) {
        skip_name(&cursor);
        (void)take(&cursor, 4);
    }
    for (unsigned i = 0; i < answers && !cursor.failed; i++) {
        read_record(&cursor, type, ret_found);
    }
    return !cursor.failed;
}
