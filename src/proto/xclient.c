/* SPDX-License-Identifier: Apache-2.0
 *
 * The attributes in one table; each knows how to be written and how to be read.
 */
#include "proto/xclient.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "proto/smtp_address.h"

#define UNAVAILABLE "[UNAVAILABLE]"
#define LATER "[TEMPUNAVAIL]"

static const struct {
    const char *name;
    unsigned attribute;
} attributes[] = {
    /* In the order of their worth. */
    {"ADDR", XCLIENT_ADDR},
    {"NAME", XCLIENT_NAME},
    {"HELO", XCLIENT_HELO},
    {"PROTO", XCLIENT_PROTO},
    {"PORT", XCLIENT_PORT},
    {"LOGIN", XCLIENT_LOGIN},
    {"IDENT", XCLIENT_IDENT},
    {"SOURCE", XCLIENT_SOURCE},
    {"DESTADDR", XCLIENT_DESTADDR},
    {"DESTPORT", XCLIENT_DESTPORT},
    {"REVERSE_NAME", XCLIENT_REVERSE_NAME},
};

enum { ATTRIBUTES = sizeof(attributes) / sizeof(attributes[0]) };

/* The one of that name, or 0. */
static unsigned find(struct slice name)
{
    for (size_t i = 0; i < ATTRIBUTES; i++) {
        if (slice_equal_fold(name, slice_from_text(attributes[i].name))) {
            return attributes[i].attribute;
        }
    }
    return 0;
}

static struct slice next_word(struct slice *rest)
{
    while (rest->length > 0 && rest->data[0] == ' ') {
        *rest = slice_skip(*rest, 1);
    }
    struct slice word = slice_take(*rest, slice_find(*rest, ' '));
    *rest = slice_skip(*rest, word.length);
    return word;
}

unsigned xclient_offered(struct slice words)
{
    unsigned offered = 0;
    for (struct slice word = next_word(&words); word.length > 0; word = next_word(&words)) {
        offered |= find(word);
    }
    return offered;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void put_xtext(struct buffer *to, struct slice text)
{
    for (size_t i = 0; i < text.length; i++) {
        uint8_t c = text.data[i];
        if (c <= ' ' || c >= 0x7f || c == '+' || c == '=') {
            buffer_printf(to, "+%02X", c);
        } else {
            buffer_append(to, slice_make(&text.data[i], 1));
        }
    }
}

static void put_value(struct buffer *to, struct slice value)
{
    if (value.length == 0) {
        buffer_append_text(to, UNAVAILABLE);
    } else {
        put_xtext(to, value);
    }
}

static void put_name(struct buffer *to, struct slice name, bool later)
{
    if (later) {
        buffer_append_text(to, LATER);
    } else {
        put_value(to, name);
    }
}

static void put_address(struct buffer *to, const struct ip_address *address, bool known)
{
    char text[IP_TEXT_SIZE];
    if (!known) {
        buffer_append_text(to, UNAVAILABLE);
        return;
    }
    ip_to_text(address, text);
    buffer_printf(to, "%s%s", ip_is_v4(address) ? "" : "IPV6:", text);
}

static void put_port(struct buffer *to, uint16_t port, bool known)
{
    if (known) {
        buffer_printf(to, "%u", port);
    } else {
        buffer_append_text(to, UNAVAILABLE);
    }
}

static void put(struct buffer *to, const struct xclient *facts, unsigned attribute)
{
    switch (attribute) {
    case XCLIENT_NAME:
        put_name(to, facts->name, facts->name_later);
        break;
    case XCLIENT_REVERSE_NAME:
        put_name(to, facts->reverse_name, facts->reverse_name_later);
        break;
    case XCLIENT_ADDR:
        put_address(to, &facts->client.address, facts->has_address);
        break;
    case XCLIENT_PORT:
        put_port(to, facts->client.port, facts->has_port);
        break;
    case XCLIENT_PROTO:
        buffer_append_text(to, !facts->has_protocol ? UNAVAILABLE
                               : facts->is_extended ? "ESMTP"
                                                    : "SMTP");
        break;
    case XCLIENT_HELO:
        put_value(to, facts->helo);
        break;
    case XCLIENT_LOGIN:
        put_value(to, facts->login);
        break;
    case XCLIENT_DESTADDR:
        put_address(to, &facts->destination.address, facts->has_destination_address);
        break;
    case XCLIENT_DESTPORT:
        put_port(to, facts->destination.port, facts->has_destination_port);
        break;
    case XCLIENT_IDENT:
        put_value(to, facts->ident);
        break;
    case XCLIENT_SOURCE:
        buffer_append_text(to, facts->is_local ? "LOCAL" : "REMOTE");
        break;
    }
}

/* Octets that are left when each attribute is unavailable. */
static size_t spare(unsigned chosen, size_t used)
{
    size_t least = used + 2;
    for (size_t i = 0; i < ATTRIBUTES; i++) {
        if (chosen & attributes[i].attribute) {
            least += strlen(attributes[i].name) + 2 + strlen(UNAVAILABLE);
        }
    }
    assert(least <= XCLIENT_LINE_MAX);
    return XCLIENT_LINE_MAX - least;
}

void xclient_put(struct buffer *to, const struct xclient *facts, unsigned wanted, size_t used)
{
    unsigned chosen = facts->given & wanted;
    size_t left = spare(chosen, used);
    for (size_t i = 0; i < ATTRIBUTES; i++) {
        if ((chosen & attributes[i].attribute) == 0) {
            continue;
        }
        buffer_printf(to, " %s=", attributes[i].name);
        size_t before = to->length;
        put(to, facts, attributes[i].attribute);
        size_t length = to->length - before;
        size_t more = length > strlen(UNAVAILABLE) ? length - strlen(UNAVAILABLE) : 0;
        if (length > XCLIENT_VALUE_MAX || more > left) {
            to->length = before;
            buffer_append_text(to, UNAVAILABLE);
            more = 0;
        }
        left -= more;
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

struct reading {
    struct xclient_storage *storage;
    size_t used;
    struct xclient *facts;
};

static int digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* No value may hold what could end a line or a text. */
static bool is_text(uint8_t c)
{
    return c >= ' ' && c != 0x7f;
}

/* Empty if it is said to be unavailable. Only five attributes are texts, each at most once. */
static bool read_text(struct reading *reading, struct slice value, struct slice *ret_text)
{
    uint8_t *text = reading->storage->bytes + reading->used;
    size_t length = 0;
    *ret_text = SLICE_EMPTY;
    if (slice_equal_fold(value, SLICE_LITERAL(UNAVAILABLE))) {
        return true;
    }
    if (value.length > XCLIENT_VALUE_MAX || !smtp_xtext_is_valid(value)) {
        return false;
    }
    for (size_t i = 0; i < value.length; i++) {
        uint8_t c = value.data[i];
        if (c == '+') {
            c = (uint8_t)(digit(value.data[i + 1]) << 4 | digit(value.data[i + 2]));
            i += 2;
        }
        if (!is_text(c)) {
            return false;
        }
        text[length++] = c;
    }
    reading->used += length;
    *ret_text = slice_make(text, length);
    return true;
}

static bool is_unavailable(struct slice value)
{
    return slice_equal_fold(value, SLICE_LITERAL(UNAVAILABLE));
}

static bool read_address(struct slice value, struct ip_address *ret_address, bool *ret_known)
{
    static const struct slice prefix = SLICE_LITERAL("IPV6:");
    if (is_unavailable(value)) {
        return true;
    }
    bool v6 = slice_starts_fold(value, prefix);
    *ret_known = ip_from_text(v6 ? slice_skip(value, prefix.length) : value, ret_address) &&
                 (v6 || ip_is_v4(ret_address));
    return *ret_known;
}

static bool read_port(struct slice value, uint16_t *ret_port, bool *ret_known)
{
    uint64_t number;
    if (is_unavailable(value)) {
        return true;
    }
    *ret_known = value.length <= 5 && slice_to_u64(value, &number) && number <= UINT16_MAX;
    *ret_port = *ret_known ? (uint16_t)number : 0;
    return *ret_known;
}

static bool read_name(struct reading *reading, struct slice value, struct slice *ret_name,
                      bool *ret_later)
{
    *ret_later = slice_equal_fold(value, SLICE_LITERAL(LATER));
    return *ret_later || (read_text(reading, value, ret_name) &&
                          (ret_name->length == 0 || smtp_domain_is_valid(*ret_name)));
}

static bool read_choice(struct slice value, const char *yes, const char *no, bool *ret_yes)
{
    *ret_yes = slice_equal_fold(value, slice_from_text(yes));
    return *ret_yes || slice_equal_fold(value, slice_from_text(no)) || is_unavailable(value);
}

static bool read_value(struct reading *reading, unsigned attribute, struct slice value)
{
    struct xclient *facts = reading->facts;
    switch (attribute) {
    case XCLIENT_NAME:
        return read_name(reading, value, &facts->name, &facts->name_later);
    case XCLIENT_REVERSE_NAME:
        return read_name(reading, value, &facts->reverse_name, &facts->reverse_name_later);
    case XCLIENT_ADDR:
        return read_address(value, &facts->client.address, &facts->has_address);
    case XCLIENT_PORT:
        return read_port(value, &facts->client.port, &facts->has_port);
    case XCLIENT_PROTO:
        facts->has_protocol = !is_unavailable(value);
        return read_choice(value, "ESMTP", "SMTP", &facts->is_extended);
    case XCLIENT_HELO:
        return read_text(reading, value, &facts->helo);
    case XCLIENT_LOGIN:
        return read_text(reading, value, &facts->login);
    case XCLIENT_DESTADDR:
        return read_address(value, &facts->destination.address, &facts->has_destination_address);
    case XCLIENT_DESTPORT:
        return read_port(value, &facts->destination.port, &facts->has_destination_port);
    case XCLIENT_IDENT:
        return read_text(reading, value, &facts->ident);
    default:
        return read_choice(value, "LOCAL", "REMOTE", &facts->is_local);
    }
}

enum error xclient_read(struct slice words, unsigned allowed, struct xclient_storage *storage,
                        struct xclient *ret_facts)
{
    struct reading reading = {.storage = storage, .facts = ret_facts};
    *ret_facts = (struct xclient){0};
    for (struct slice word = next_word(&words); word.length > 0; word = next_word(&words)) {
        size_t equals = slice_find(word, '=');
        unsigned attribute = find(slice_take(word, equals)) & allowed;
        if (attribute == 0 || equals + 1 >= word.length || (ret_facts->given & attribute) != 0 ||
            !read_value(&reading, attribute, slice_skip(word, equals + 1))) {
            return ERROR_INVALID;
        }
        ret_facts->given |= attribute;
    }
    return ret_facts->given != 0 ? ERROR_NONE : ERROR_INVALID;
}
