/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/dns_packet.h"

#include <stdio.h>

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

/* ---- names and other data ----------------------------------------------------------------- */

/* A name that begins at `at`, in text: lower case, without the last dot; "." for the root. Dots and
 * bytes that no host name has make it unusable. False: malformed or unusable. */
static bool read_name(struct slice packet, size_t at, uint8_t ret_text[DNS_NAME_MAX],
                      size_t *ret_length, size_t *ret_end)
{
    size_t length = 0, limit = at; /* a pointer must lead before it: no loops */
    *ret_end = 0;
    for (;;) {
        if (at >= packet.length) {
            return false;
        }
        unsigned label = packet.data[at];
        if ((label & LABEL_POINTER) == LABEL_POINTER) {
            if (at + 1 >= packet.length) {
                return false;
            }
            size_t to = (label & ~(unsigned)LABEL_POINTER) << 8 | packet.data[at + 1];
            *ret_end = *ret_end == 0 ? at + 2 : *ret_end;
            if (to >= limit) {
                return false;
            }
            at = limit = to;
            continue;
        }
        if ((label & LABEL_POINTER) != 0 || label > packet.length - at - 1 ||
            length + label + 1 > DNS_NAME_MAX) {
            return false;
        }
        if (label == 0) {
            break;
        }
        for (size_t i = 0; i < label; i++) {
            uint8_t c = packet.data[at + 1 + i];
            if (c <= ' ' || c == '.' || c >= 0x7f) {
                return false;
            }
            ret_text[length++] = c >= 'A' && c <= 'Z' ? (uint8_t)(c - 'A' + 'a') : c;
        }
        ret_text[length++] = '.';
        at += label + 1;
    }
    *ret_end = *ret_end == 0 ? at + 1 : *ret_end;
    if (length == 0) {
        ret_text[0] = '.';
    }
    *ret_length = length == 0 ? 1 : length - 1;
    return true;
}

static enum error read_host(struct slice packet, size_t at, size_t end, struct arena *arena,
                            struct dns_record *ret_record)
{
    uint8_t text[DNS_NAME_MAX];
    size_t length, name_end;
    if (!read_name(packet, at, text, &length, &name_end) || name_end != end) {
        return ERROR_INVALID;
    }
    ret_record->name = arena_copy(arena, slice_make(text, length));
    return ret_record->name.data != NULL ? ERROR_NONE : ERROR_MEMORY;
}

/* RFC 1035 3.3.14: strings of a length and bytes. */
static enum error read_text(struct slice data, struct arena *arena, struct dns_record *ret_record)
{
    uint8_t *text = arena_allocate(arena, data.length + 1);
    size_t length = 0;
    if (text == NULL) {
        return ERROR_MEMORY;
    }
    while (data.length > 0) {
        size_t part = data.data[0];
        if (part > data.length - 1) {
            return ERROR_INVALID;
        }
        memcpy(text + length, data.data + 1, part);
        length += part;
        data = slice_skip(data, part + 1);
    }
    ret_record->data = slice_make(text, length);
    return ERROR_NONE;
}

static enum error read_data(struct slice packet, struct slice data, enum dns_type type,
                            struct arena *arena, struct dns_record *ret_record)
{
    enum { TLSA_LEAST = 3, A_BYTES = 4 };
    size_t at = (size_t)(data.data - packet.data), end = at + data.length;
    switch (type) {
    case DNS_MX:
        if (data.length < 3) {
            return ERROR_INVALID;
        }
        ret_record->preference = (uint16_t)(data.data[0] << 8 | data.data[1]);
        return read_host(packet, at + 2, end, arena, ret_record);
    case DNS_CNAME:
    case DNS_PTR:
        return read_host(packet, at, end, arena, ret_record);
    case DNS_TXT:
        return read_text(data, arena, ret_record);
    case DNS_A:
    case DNS_TLSA:
        if (type == DNS_A ? data.length != A_BYTES : data.length <= TLSA_LEAST) {
            return ERROR_INVALID;
        }
        ret_record->data = arena_copy(arena, data);
        return ret_record->data.data != NULL ? ERROR_NONE : ERROR_MEMORY;
    }
    return ERROR_INVALID;
}

/* ---- the answer section ------------------------------------------------------------------- */

struct answer {
    unsigned type;
    unsigned class;
    uint32_t ttl_s;
    struct slice data;
};

/* How many answers there are, with the cursor before the first. */
static unsigned begin(struct cursor *cursor)
{
    (void)take(cursor, 4); /* id and flags: libunbound has judged them */
    unsigned questions = take_u16(cursor);
    unsigned answers = take_u16(cursor);
    (void)take(cursor, HEADER_BYTES - 8);
    for (unsigned i = 0; i < questions && !cursor->failed; i++) {
        skip_name(cursor);
        (void)take(cursor, 4);
    }
    return answers;
}

static bool next(struct cursor *cursor, struct answer *ret_answer)
{
    skip_name(cursor);
    ret_answer->type = take_u16(cursor);
    ret_answer->class = take_u16(cursor);
    ret_answer->ttl_s = (uint32_t)take_u16(cursor) << 16;
    ret_answer->ttl_s |= take_u16(cursor);
    unsigned length = take_u16(cursor);
    ret_answer->data = slice_make(take(cursor, length), length);
    return !cursor->failed;
}

static void keep_owner(struct dns_addresses *found, struct slice packet, size_t at)
{
    size_t end;
    if (found->owner_length == 0 &&
        !read_name(packet, at, found->owner, &found->owner_length, &end)) {
        found->owner_length = 0;
    }
}

/* Without memory it is not known, which nobody takes for more than it is. */
static void copy_owner(struct dns_found *found, struct slice packet, size_t at, struct arena *arena)
{
    uint8_t text[DNS_NAME_MAX];
    size_t length, end;
    if (found->owner.length == 0 && read_name(packet, at, text, &length, &end)) {
        struct slice copy = arena_copy(arena, slice_make(text, length));
        found->owner = copy.data != NULL ? copy : SLICE_EMPTY;
    }
}

bool dns_packet_read(struct slice packet, unsigned type, struct dns_addresses *ret_found)
{
    struct cursor cursor = {.packet = packet};
    struct answer answer;
    size_t expected = type == DNS_TYPE_A ? 4 : 16;
    unsigned answers = begin(&cursor);
    for (unsigned i = 0; i < answers && !cursor.failed; i++) {
        size_t owner = cursor.at;
        if (!next(&cursor, &answer)) {
            break;
        }
        if (answer.ttl_s < ret_found->ttl_s) {
            ret_found->ttl_s = answer.ttl_s;
        }
        if (answer.type == type && answer.class == CLASS_IN && answer.data.length == expected) {
            add_address(ret_found, answer.data.data, expected);
            keep_owner(ret_found, packet, owner);
        }
    }
    return !cursor.failed;
}

/* Of too many exchangers the best are kept: who else should know which could be left out? */
static bool make_room(struct dns_found *found, enum dns_type type, struct slice data)
{
    if (found->count < DNS_RECORDS_MAX) {
        return true;
    }
    size_t worst = 0;
    for (size_t i = 1; i < found->count; i++) {
        worst = found->records[i].preference > found->records[worst].preference ? i : worst;
    }
    if (type != DNS_MX || data.length < 2 ||
        (data.data[0] << 8 | data.data[1]) >= found->records[worst].preference) {
        return false;
    }
    found->records[worst] = found->records[--found->count];
    return true;
}

enum error dns_packet_records(struct slice packet, enum dns_type type, struct arena *arena,
                              struct dns_found *ret_found)
{
    struct cursor cursor = {.packet = packet};
    struct answer answer;
    *ret_found = (struct dns_found){.ttl_s = UINT32_MAX};
    ret_found->records = arena_allocate(arena, DNS_RECORDS_MAX * sizeof(*ret_found->records));
    if (ret_found->records == NULL) {
        return ERROR_MEMORY;
    }
    unsigned answers = begin(&cursor);
    for (unsigned i = 0; i < answers && !cursor.failed; i++) {
        size_t owner = cursor.at;
        if (!next(&cursor, &answer)) {
            break;
        }
        if (answer.ttl_s < ret_found->ttl_s) {
            ret_found->ttl_s = answer.ttl_s;
        }
        if (answer.type != type || answer.class != CLASS_IN ||
            !make_room(ret_found, type, answer.data)) {
            continue;
        }
        struct dns_record record = {0};
        enum error error = read_data(packet, answer.data, type, arena, &record);
        if (error == ERROR_MEMORY) {
            return error;
        }
        if (error == ERROR_NONE) {
            ret_found->records[ret_found->count++] = record;
            copy_owner(ret_found, packet, owner, arena);
        } else {
            ret_found->broken++;
        }
    }
    return cursor.failed ? ERROR_INVALID : ERROR_NONE;
}

/* ---- names ------------------------------------------------------------------------------- */

void dns_reverse_name(const struct ip_address *address, char ret_name[DNS_REVERSE_MAX])
{
    const uint8_t *bytes = address->bytes;
    if (ip_is_v4(address)) {
        snprintf(ret_name, DNS_REVERSE_MAX, "%u.%u.%u.%u.in-addr.arpa", bytes[15], bytes[14],
                 bytes[13], bytes[12]);
        return;
    }
    size_t length = 0;
    for (size_t i = sizeof(address->bytes); i > 0; i--) {
        length += (size_t)snprintf(ret_name + length, DNS_REVERSE_MAX - length, "%x.%x.",
                                   bytes[i - 1] & 15U, (unsigned)bytes[i - 1] >> 4);
    }
    snprintf(ret_name + length, DNS_REVERSE_MAX - length, "ip6.arpa");
}
