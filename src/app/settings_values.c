/* SPDX-License-Identifier: Apache-2.0
 *
 * Texts of the configuration to values: pure functions, strict, each with a phrase for what it did
 * not like.
 */
#include "app/settings_internal.h"

#include <ctype.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* Digits, then one of the units (the last one has a NULL name). */
static bool number_with_unit(struct slice text, const struct unit *units, uint64_t *ret_value)
{
    size_t digits = 0;
    while (digits < text.length && isdigit(text.data[digits])) {
        digits++;
    }
    uint64_t number;
    if (!slice_to_u64(slice_take(text, digits), &number)) {
        return false;
    }
    struct slice unit = slice_skip(text, digits);
    for (; units->name != NULL; units++) {
        if (slice_equal_fold(unit, slice_from_text(units->name))) {
            return !__builtin_mul_overflow(number, units->factor, ret_value);
        }
    }
    return false;
}

bool value_duration(struct slice text, uint64_t *ret_ms, const char **ret_why)
{
    static const struct unit units[] = {
        {"ms", 1},       {"s", 1000},      {"m", 60000}, {"h", 3600000},
        {"d", 86400000}, {"w", 604800000}, {NULL, 0},
    };
    if (slice_equal(text, SLICE_LITERAL("0"))) {
        *ret_ms = 0;
        return true;
    }
    *ret_why = "is no duration; write a number and a unit: 700ms, 30s, 10m, 2h, 5d or 1w";
    return number_with_unit(text, units, ret_ms);
}

bool value_size(struct slice text, uint64_t *ret_bytes, const char **ret_why)
{
    static const struct unit units[] = {
        {"", 1},
        {"K", UINT64_C(1) << 10},
        {"M", UINT64_C(1) << 20},
        {"G", UINT64_C(1) << 30},
        {"T", UINT64_C(1) << 40},
        {NULL, 0},
    };
    *ret_why = "is no size; write a number of bytes, or with K, M, G or T: 64M";
    return number_with_unit(text, units, ret_bytes);
}

bool value_count(struct slice text, uint64_t *ret_count, const char **ret_why)
{
    *ret_why = "is no number";
    return slice_to_u64(text, ret_count);
}

bool value_hostname(struct slice text, const char **ret_why)
{
    *ret_why = "is no host name (letters, digits and hyphens, in parts of 1 to 63 with dots)";
    if (text.length == 0 || text.length > 253) {
        return false;
    }
    while (text.length > 0) {
        size_t length = slice_find(text, '.');
        struct slice label = slice_take(text, length);
        if (length == 0 || length > 63 || label.data[0] == '-' || label.data[length - 1] == '-') {
            return false;
        }
        for (size_t i = 0; i < length; i++) {
            uint8_t c = label.data[i];
            if (c >= 0x80) {
                *ret_why = "is no ASCII name; write it in its xn-- form";
                return false;
            }
            if (!isalnum(c) && c != '-' && c != '_') {
                return false;
            }
        }
        if (length + 1 == text.length) {
            *ret_why = "must not end in a dot";
            return false;
        }
        text = slice_skip(text, length + 1);
    }
    return true;
}

bool value_mailbox(struct slice text, const char **ret_why)
{
    size_t at = slice_find_last(text, '@');
    *ret_why = "is no address; write local@domain";
    if (at == text.length || at == 0 || at > 64) {
        return false;
    }
    for (size_t i = 0; i < at; i++) {
        if (text.data[i] <= ' ' || text.data[i] == 0x7f || strchr("<>,;\"\\", text.data[i])) {
            return false;
        }
    }
    const char *why;
    return value_hostname(slice_skip(text, at + 1), &why);
}

bool value_network(struct slice text, struct ip_network *ret_network, const char **ret_why)
{
    struct ip_address address;
    size_t slash = slice_find(text, '/');
    if (ip_network_from_text(text, ret_network)) {
        return true;
    }
    *ret_why = "is no network; write 192.0.2.0/24 or 2001:db8::/32";
    uint64_t prefix;
    if (slash < text.length && ip_from_text(slice_take(text, slash), &address) &&
        slice_to_u64(slice_skip(text, slash + 1), &prefix) &&
        prefix <= (ip_is_v4(&address) ? 32 : 128)) {
        *ret_why = "has bits set beyond its prefix";
    }
    return false;
}

static bool value_port(struct slice text, uint16_t *ret_port)
{
    uint64_t port;
    if (!slice_to_u64(text, &port) || port == 0 || port > 65535) {
        return false;
    }
    *ret_port = (uint16_t)port;
    return true;
}

/* Digits and dots only: a mistyped address, which no resolver should be asked for. */
static bool looks_like_ip(struct slice host)
{
    for (size_t i = 0; i < host.length; i++) {
        if (!isdigit(host.data[i]) && host.data[i] != '.') {
            return false;
        }
    }
    return host.length > 0;
}

bool value_address(struct slice text, uint16_t port, struct server_address *ret_address,
                   const char **ret_why)
{
    *ret_address = (struct server_address){.port = port};
    struct slice host = text;
    struct slice after = SLICE_EMPTY;
    bool bracketed = text.length > 0 && text.data[0] == '[';
    if (bracketed) {
        size_t close = slice_find(text, ']');
        host = slice_skip(slice_take(text, close), 1);
        after = slice_skip(text, close + 1);
        if (close == text.length || (after.length > 0 && after.data[0] != ':')) {
            *ret_why = "is no address; write [2001:db8::1]:25";
            return false;
        }
    } else if (slice_find(text, ':') == slice_find_last(text, ':')) {
        host = slice_take(text, slice_find(text, ':'));
        after = slice_skip(text, host.length);
    } /* else colons without brackets: an IPv6 address without a port */
    ret_address->is_literal = ip_from_text(host, &ret_address->literal);
    if (bracketed && !ret_address->is_literal) {
        *ret_why = "is no address; write [2001:db8::1]:25";
        return false;
    }
    if (!ret_address->is_literal) {
        if (looks_like_ip(host)) {
            *ret_why = "is no IP address";
            return false;
        }
        if (!value_hostname(host, ret_why)) {
            return false;
        }
        ret_address->host = host;
    }
    if (after.length > 0 && !value_port(slice_skip(after, 1), &ret_address->port)) {
        *ret_why = "has no valid port (1 to 65535) after ':'";
        return false;
    }
    if (ret_address->port == 0) {
        *ret_why = "needs a port: HOST:PORT";
        return false;
    }
    return true;
}
