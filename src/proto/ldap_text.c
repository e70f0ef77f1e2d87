/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/ldap_text.h"

static const char digits[] = "0123456789abcdef";

static void append_hex(struct buffer *text, uint8_t byte)
{
    const uint8_t escape[] = {'\\', (uint8_t)digits[byte >> 4], (uint8_t)digits[byte & 15]};
    buffer_append(text, slice_make(escape, sizeof(escape)));
}

void ldap_escape_filter(struct buffer *text, struct slice value)
{
    for (size_t i = 0; i < value.length; i++) {
        uint8_t byte = value.data[i];
        if (byte < ' ' || byte >= 0x7f || byte == '*' || byte == '(' || byte == ')' ||
            byte == '\\') {
            append_hex(text, byte);
        } else {
            buffer_append(text, slice_make(&byte, 1));
        }
    }
}

void ldap_escape_name(struct buffer *text, struct slice value)
{
    for (size_t i = 0; i < value.length; i++) {
        uint8_t byte = value.data[i];
        bool is_at_end = i == 0 || i + 1 == value.length;
        if (byte < ' ' || byte >= 0x7f || strchr("\"+,;<=>\\", byte) != NULL ||
            (byte == ' ' && is_at_end) || (byte == '#' && i == 0)) {
            append_hex(text, byte);
        } else {
            buffer_append(text, slice_make(&byte, 1));
        }
    }
}

static const char *text_fault(struct slice text)
{
    if (text.length == 0 || text.length > LDAP_TEXT_MAX / 4) {
        return text.length == 0 ? "is empty" : "is too long";
    }
    for (size_t i = 0; i < text.length; i++) {
        if (text.data[i] < ' ' || text.data[i] == 0x7f) {
            return "has a control character";
        }
    }
    return NULL;
}

const char *ldap_filter_fault(struct slice text)
{
    int depth = 0;
    const char *why = text_fault(text);
    for (size_t i = 0; why == NULL && i < text.length; i++) {
        depth += (text.data[i] == '(') - (text.data[i] == ')');
        if (depth < 0 || text.data[0] != '(' || (depth == 0) != (i + 1 == text.length)) {
            why = "must be one pair of parentheses with all else in it";
        }
    }
    return why;
}

const char *ldap_template_fault(enum ldap_template kind, struct slice text)
{
    bool has_value = false;
    const char *why = kind == LDAP_TEMPLATE_FILTER ? ldap_filter_fault(text) : text_fault(text);
    for (size_t i = 0; why == NULL && i < text.length; i++) {
        if (text.data[i] == '%') {
            uint8_t what = ++i < text.length ? text.data[i] : 0;
            if (what == 0 || strchr("uld%", what) == NULL) {
                return "has a % that is neither %u, %l, %d nor %%";
            }
            has_value = has_value || what != '%';
        }
    }
    return why != NULL ? why : has_value ? NULL : "has neither %u, %l nor %d";
}

bool ldap_template_fill(enum ldap_template kind, struct slice text, struct slice value,
                        struct buffer *ret_text)
{
    size_t at = slice_find_last(value, '@');
    for (size_t i = 0; i < text.length; i++) {
        uint8_t byte = text.data[i];
        if (byte != '%' || i + 1 == text.length) {
            buffer_append(ret_text, slice_make(&byte, 1));
            continue;
        }
        byte = text.data[++i];
        struct slice part = byte == 'l'   ? slice_take(value, at)
                            : byte == 'd' ? slice_skip(value, at + 1)
                                          : value;
        if (byte == '%') {
            buffer_append_text(ret_text, "%");
        } else if (part.length == 0) {
            return false;
        } else if (kind == LDAP_TEMPLATE_FILTER) {
            ldap_escape_filter(ret_text, part);
        } else {
            ldap_escape_name(ret_text, part);
        }
    }
    return true;
}

static bool read_port(struct slice text, uint16_t *ret_port)
{
    uint64_t port;
    if (!slice_to_u64(text, &port) || port == 0 || port > UINT16_MAX) {
        return false;
    }
    *ret_port = (uint16_t)port;
    return true;
}

bool ldap_url_read(struct slice text, struct ldap_url *ret_url)
{
    static const struct slice plain = SLICE_LITERAL("ldap://"), tls = SLICE_LITERAL("ldaps://");
    bool has_tls = slice_starts_fold(text, tls);
    if (!has_tls && !slice_starts_fold(text, plain)) {
        return false;
    }
    *ret_url = (struct ldap_url){.has_tls = has_tls, .port = has_tls ? 636 : 389};
    text = slice_skip(text, has_tls ? tls.length : plain.length);
    if (text.length > 0 && text.data[text.length - 1] == '/') {
        text.length--;
    }
    bool has_brackets = text.length > 0 && text.data[0] == '[';
    size_t end = has_brackets ? slice_find(text, ']') : slice_find(text, ':');
    if (has_brackets && end == text.length) {
        return false;
    }
    ret_url->host = has_brackets ? slice_skip(slice_take(text, end), 1) : slice_take(text, end);
    text = slice_skip(text, end + has_brackets);
    for (size_t i = 0; i < ret_url->host.length; i++) {
        uint8_t byte = ret_url->host.data[i];
        if (byte <= ' ' || byte >= 0x7f || strchr("/?#[]@%", byte) != NULL) {
            return false;
        }
    }
    return ret_url->host.length > 0 &&
           (text.length == 0 ||
            (text.data[0] == ':' && read_port(slice_skip(text, 1), &ret_url->port)));
}
