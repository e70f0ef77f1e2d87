/* SPDX-License-Identifier: Apache-2.0
 *
 * Both versions are read strictly: what a load balancer writes has one form.
 */
#include "proto/proxy.h"

static const uint8_t signature[12] = "\r\n\r\n\0\r\nQUIT\n";

enum {
    V1_MIN = 15,  /* "PROXY UNKNOWN" and CRLF */
    V1_MAX = 107, /* likewise */
    V2_FIXED = 16,
    V4_BYTES = 12,
    V6_BYTES = 36,
    TYPE_SSL = 0x20,
    TYPE_SSL_VERSION = 0x21,
    SSL_CLIENT = 1,
};

static bool begins_alike(struct slice bytes, struct slice with)
{
    size_t length = bytes.length < with.length ? bytes.length : with.length;
    return length == 0 || memcmp(bytes.data, with.data, length) == 0;
}

/* ---- version 1 ------------------------------------------------------------------------------- */

/* The next word, with the space behind it; the last one has none. */
static struct slice next_word(struct slice *rest)
{
    size_t end = slice_find(*rest, ' ');
    struct slice word = slice_take(*rest, end);
    *rest = slice_skip(*rest, end + 1);
    return word;
}

static bool read_port(struct slice word, uint16_t *ret_port)
{
    uint64_t number;
    if (word.length > 5 || (word.length > 1 && word.data[0] == '0') ||
        !slice_to_u64(word, &number) || number > UINT16_MAX) {
        return false;
    }
    *ret_port = (uint16_t)number;
    return true;
}

static bool read_line(struct slice line, struct proxy_header *header)
{
    struct slice family = next_word(&line);
    bool v4 = slice_equal(family, SLICE_LITERAL("TCP4"));
    if (slice_equal(family, SLICE_LITERAL("UNKNOWN"))) {
        return true; /* whatever follows */
    }
    if (!v4 && !slice_equal(family, SLICE_LITERAL("TCP6"))) {
        return false;
    }
    header->is_known = ip_from_text(next_word(&line), &header->source.address) &&
                       ip_from_text(next_word(&line), &header->destination.address) &&
                       ip_is_v4(&header->source.address) == v4 &&
                       ip_is_v4(&header->destination.address) == v4 &&
                       read_port(next_word(&line), &header->source.port) &&
                       read_port(line, &header->destination.port);
    return header->is_known;
}

static enum proxy_verdict read_v1(struct slice bytes, struct proxy_header *header)
{
    static const struct slice word = SLICE_LITERAL("PROXY ");
    size_t end = slice_find(slice_take(bytes, V1_MAX), '\n');
    if (end >= V1_MAX || end == bytes.length) {
        return bytes.length < V1_MAX ? PROXY_MORE : PROXY_BROKEN;
    }
    if (end <= word.length || bytes.data[end - 1] != '\r') {
        return PROXY_BROKEN;
    }
    header->length = end + 1;
    return read_line(slice_skip(slice_take(bytes, end - 1), word.length), header) ? PROXY_DONE
                                                                                  : PROXY_BROKEN;
}

/* ---- version 2 ------------------------------------------------------------------------------- */

static uint16_t number_at(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static struct ip_address v4_address(const uint8_t *bytes)
{
    struct ip_address address = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}};
    memcpy(address.bytes + 12, bytes, 4);
    return address;
}

static struct ip_address v6_address(const uint8_t *bytes)
{
    struct ip_address address;
    memcpy(address.bytes, bytes, 16);
    return address;
}

/* One type-length-value; false: what is left is none. */
static bool next_item(struct slice *rest, uint8_t *ret_type, struct slice *ret_value)
{
    if (rest->length < 3 || rest->length - 3 < number_at(rest->data + 1)) {
        return false;
    }
    *ret_type = rest->data[0];
    *ret_value = slice_take(slice_skip(*rest, 3), number_at(rest->data + 1));
    *rest = slice_skip(*rest, 3 + ret_value->length);
    return true;
}

/* Of a client that spoke TLS: a byte of flags, four of a verdict, then items again. */
static bool read_ssl(struct slice value, struct proxy_header *header)
{
    uint8_t type;
    struct slice inner;
    if (value.length < 5) {
        return false;
    }
    header->is_tls = (value.data[0] & SSL_CLIENT) != 0;
    value = slice_skip(value, 5);
    while (value.length > 0) {
        if (!next_item(&value, &type, &inner)) {
            return false;
        }
        if (type == TYPE_SSL_VERSION) {
            header->tls_version = inner;
        }
    }
    return true;
}

static bool read_items(struct slice rest, struct proxy_header *header)
{
    uint8_t type;
    struct slice value;
    while (rest.length > 0) {
        if (!next_item(&rest, &type, &value) || (type == TYPE_SSL && !read_ssl(value, header))) {
            return false;
        }
    }
    return true;
}

static enum proxy_verdict read_v2(struct slice bytes, struct proxy_header *header)
{
    if (bytes.length < V2_FIXED) {
        return PROXY_MORE;
    }
    uint8_t command = bytes.data[12], family = bytes.data[13];
    size_t length = number_at(bytes.data + 14);
    if (command >> 4 != 2 || (command & 15) > 1 || V2_FIXED + length > PROXY_HEADER_MAX) {
        return PROXY_BROKEN;
    }
    if (bytes.length < V2_FIXED + length) {
        return PROXY_MORE;
    }
    header->length = V2_FIXED + length;
    struct slice body = slice_take(slice_skip(bytes, V2_FIXED), length);
    const uint8_t *at = body.data;
    if ((command & 15) == 0) {
        return PROXY_DONE; /* LOCAL: a health check of the proxy itself */
    }
    if (family == 0x11 && length >= V4_BYTES) {
        header->source = (struct ip_endpoint){v4_address(at), number_at(at + 8)};
        header->destination = (struct ip_endpoint){v4_address(at + 4), number_at(at + 10)};
        body = slice_skip(body, V4_BYTES);
    } else if (family == 0x21 && length >= V6_BYTES) {
        header->source = (struct ip_endpoint){v6_address(at), number_at(at + 32)};
        header->destination = (struct ip_endpoint){v6_address(at + 16), number_at(at + 34)};
        body = slice_skip(body, V6_BYTES);
    } else {
        return family == 0 ? PROXY_DONE : PROXY_BROKEN; /* no mail comes by UDP or unix sockets */
    }
    header->is_known = true;
    return read_items(body, header) ? PROXY_DONE : PROXY_BROKEN;
}

enum proxy_verdict proxy_read(struct slice bytes, struct proxy_header *ret_header)
{
    *ret_header = (struct proxy_header){0};
    if (begins_alike(bytes, slice_make(signature, sizeof(signature)))) {
        return read_v2(bytes, ret_header);
    }
    return begins_alike(bytes, SLICE_LITERAL("PROXY ")) ? read_v1(bytes, ret_header) : PROXY_BROKEN;
}

size_t proxy_wanted(struct slice bytes)
{
    if (bytes.length < V1_MIN) {
        return V1_MIN - bytes.length;
    }
    if (bytes.data[0] != signature[0]) {
        return 1; /* a line */
    }
    if (bytes.length < V2_FIXED) {
        return V2_FIXED - bytes.length;
    }
    size_t length = V2_FIXED + number_at(bytes.data + 14);
    return length > bytes.length && length <= PROXY_HEADER_MAX ? length - bytes.length : 1;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void put_number(uint8_t *to, uint16_t number)
{
    to[0] = (uint8_t)(number >> 8);
    to[1] = (uint8_t)number;
}

size_t proxy_write(const struct ip_endpoint *source, const struct ip_endpoint *destination,
                   uint8_t ret_bytes[PROXY_V2_MAX])
{
    bool v4 = ip_is_v4(&source->address) && ip_is_v4(&destination->address);
    size_t width = v4 ? 4 : 16, skip = 16 - width;
    uint8_t *at = ret_bytes + V2_FIXED;
    memcpy(ret_bytes, signature, sizeof(signature));
    ret_bytes[12] = 0x21;
    ret_bytes[13] = v4 ? 0x11 : 0x21;
    put_number(ret_bytes + 14, v4 ? V4_BYTES : V6_BYTES);
    memcpy(at, source->address.bytes + skip, width);
    memcpy(at + width, destination->address.bytes + skip, width);
    put_number(at + 2 * width, source->port);
    put_number(at + 2 * width + 2, destination->port);
    return V2_FIXED + 2 * width + 4;
}

size_t proxy_write_local(uint8_t ret_bytes[PROXY_V2_MAX])
{
    memset(ret_bytes, 0, V2_FIXED);
    memcpy(ret_bytes, signature, sizeof(signature));
    ret_bytes[12] = 0x20;
    return V2_FIXED;
}
