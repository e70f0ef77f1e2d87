/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/smtp_address.h"

#include "base/network.h"
#include "base/utf8.h"

static bool is_letter_or_digit(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* atext of RFC 5322, or a byte of a UTF-8 sequence (checked as a whole elsewhere). */
static bool is_atom_byte(uint8_t c)
{
    return is_letter_or_digit(c) || c >= 0x80 ||
           (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

static bool is_label_byte(uint8_t c)
{
    return is_letter_or_digit(c) || c == '-' || c == '_' || c >= 0x80;
}

/* Length of a Dot-string at the front, or 0. */
static size_t dot_string(struct slice s)
{
    size_t at = 0;
    for (;;) {
        size_t atom = at;
        while (at < s.length && is_atom_byte(s.data[at])) {
            at++;
        }
        if (at == atom) {
            return 0;
        }
        if (at == s.length || s.data[at] != '.') {
            return at;
        }
        at++;
    }
}

/* Length of a Quoted-string at the front, quotes included, or 0. */
static size_t quoted_string(struct slice s)
{
    for (size_t at = 1; at < s.length; at++) {
        uint8_t c = s.data[at];
        if (c == '"') {
            return at + 1;
        }
        if (c == '\\') {
            at++;
            if (at == s.length || s.data[at] >= 0x7f) {
                return 0;
            }
            c = s.data[at];
        }
        if (c < ' ' || c == 0x7f) {
            return 0;
        }
    }
    return 0;
}

/* Length of a run that may be a domain name: labels and dots; checked by domain_name_is_valid. */
static size_t domain_span(struct slice s)
{
    size_t at = 0;
    if (s.length > 0 && s.data[0] == '[') {
        size_t end = slice_find(s, ']');
        return end == s.length ? 0 : end + 1;
    }
    while (at < s.length && (is_label_byte(s.data[at]) || s.data[at] == '.')) {
        at++;
    }
    return at;
}

static bool domain_name_is_valid(struct slice domain)
{
    size_t label = 0;
    for (size_t at = 0; at <= domain.length; at++) {
        if (at < domain.length && domain.data[at] != '.') {
            if (!is_label_byte(domain.data[at])) {
                return false;
            }
            continue;
        }
        if (at == label || at - label > SMTP_LABEL_MAX || domain.data[label] == '-' ||
            domain.data[at - 1] == '-') {
            return false;
        }
        label = at + 1;
    }
    return utf8_is_valid(domain);
}

static bool literal_is_valid(struct slice literal)
{
    struct slice inner = slice_make(literal.data + 1, literal.length - 2);
    struct ip_address address;
    if (slice_starts_fold(inner, SLICE_LITERAL("IPv6:"))) {
        inner = slice_skip(inner, 5);
        return slice_find(inner, ':') != inner.length && ip_from_text(inner, &address);
    }
    return slice_find(inner, ':') == inner.length && ip_from_text(inner, &address);
}

bool smtp_domain_is_valid(struct slice domain)
{
    if (domain.length == 0 || domain.length > SMTP_DOMAIN_MAX) {
        return false;
    }
    if (domain.data[0] == '[') {
        return domain.length > 2 && domain.data[domain.length - 1] == ']' &&
               literal_is_valid(domain);
    }
    return domain_name_is_valid(domain);
}

/* Reads local part, "@" and domain from the front of *rest. Without "@" the domain is empty. */
static bool read_mailbox(struct slice *rest, struct smtp_mailbox *ret_mailbox)
{
    struct smtp_mailbox box = {.local = {rest->data, 0}};
    struct slice input = *rest;
    if (input.length == 0) {
        return false;
    }
    box.local.length = input.data[0] == '"' ? quoted_string(input) : dot_string(input);
    if (box.local.length == 0 || box.local.length > SMTP_LOCAL_PART_MAX) {
        return false;
    }
    struct slice after = slice_skip(input, box.local.length);
    if (after.length > 0 && after.data[0] == '@') {
        after = slice_skip(after, 1);
        box.domain = slice_take(after, domain_span(after));
        if (!smtp_domain_is_valid(box.domain)) {
            return false;
        }
        after = slice_skip(after, box.domain.length);
    }
    box.text =
        slice_take(input, box.local.length + (box.domain.length > 0 ? 1 + box.domain.length : 0));
    box.is_utf8 = !utf8_is_ascii(box.text);
    if (box.is_utf8 && !utf8_is_valid(box.text)) {
        return false;
    }
    *rest = after;
    *ret_mailbox = box;
    return true;
}

bool smtp_mailbox_parse(struct slice text, struct smtp_mailbox *ret_mailbox)
{
    return read_mailbox(&text, ret_mailbox) && text.length == 0 && ret_mailbox->domain.length > 0;
}

/* Moves behind "@a,@b:" at the front of *rest, if it is there. */
static bool skip_source_route(struct slice *rest)
{
    while (rest->length > 0 && rest->data[0] == '@') {
        struct slice domain = slice_skip(*rest, 1);
        size_t length = domain_span(domain);
        if (!smtp_domain_is_valid(slice_take(domain, length)) || length == domain.length) {
            return false;
        }
        uint8_t after = domain.data[length];
        *rest = slice_skip(domain, length + 1);
        if (after == ':') {
            return true;
        }
        if (after != ',' || rest->length == 0 || rest->data[0] != '@') {
            return false;
        }
    }
    return true;
}

static bool take_byte(struct slice *rest, uint8_t c)
{
    if (rest->length == 0 || rest->data[0] != c) {
        return false;
    }
    *rest = slice_skip(*rest, 1);
    return true;
}

bool smtp_path_read(struct slice *rest, enum smtp_path_kind kind, struct smtp_mailbox *ret_mailbox)
{
    if (!take_byte(rest, '<')) {
        return false;
    }
    if (kind == SMTP_REVERSE_PATH && take_byte(rest, '>')) {
        *ret_mailbox = (struct smtp_mailbox){0};
        return true;
    }
    if (!skip_source_route(rest) || !read_mailbox(rest, ret_mailbox)) {
        return false;
    }
    if (ret_mailbox->domain.length == 0 &&
        !(kind == SMTP_FORWARD_PATH &&
          slice_equal_fold(ret_mailbox->local, SLICE_LITERAL("postmaster")))) {
        return false;
    }
    return take_byte(rest, '>');
}

bool smtp_local_part_routes(struct slice local)
{
    return slice_find(local, '%') != local.length || slice_find(local, '!') != local.length ||
           slice_find(local, '@') != local.length;
}

/* Length of a keyword at the front: letters and digits, then also "-". */
static size_t keyword_span(struct slice s)
{
    size_t at = 0;
    while (at < s.length && (is_letter_or_digit(s.data[at]) || (at > 0 && s.data[at] == '-'))) {
        at++;
    }
    return at;
}

enum smtp_parameter_result smtp_parameter_next(struct slice *rest,
                                               struct smtp_parameter *ret_parameter)
{
    struct smtp_parameter parameter = {0};
    struct slice s = *rest;
    while (s.length > 0 && s.data[0] == ' ') {
        s = slice_skip(s, 1);
    }
    if (s.length == 0) {
        *rest = SLICE_EMPTY;
        return SMTP_PARAMETER_NONE;
    }
    if (s.length == rest->length) {
        return SMTP_PARAMETER_BAD; /* nothing stands between it and what came before */
    }
    parameter.keyword = slice_take(s, keyword_span(s));
    s = slice_skip(s, parameter.keyword.length);
    if (take_byte(&s, '=')) {
        size_t length = 0;
        while (length < s.length && s.data[length] > ' ' && s.data[length] != '=' &&
               s.data[length] != 0x7f) {
            length++;
        }
        parameter.has_value = true;
        parameter.value = slice_take(s, length);
        s = slice_skip(s, length);
    }
    if (parameter.keyword.length == 0 || (parameter.has_value && parameter.value.length == 0) ||
        (s.length > 0 && s.data[0] != ' ')) {
        return SMTP_PARAMETER_BAD;
    }
    *rest = s;
    *ret_parameter = parameter;
    return SMTP_PARAMETER_FOUND;
}

static bool is_upper_hex(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F');
}

/* xtext; bytes above 127 are left to the caller. */
static bool xtext_or_utf8(struct slice text)
{
    for (size_t i = 0; i < text.length; i++) {
        uint8_t c = text.data[i];
        if (c == '+') {
            if (text.length - i < 3 || !is_upper_hex(text.data[i + 1]) ||
                !is_upper_hex(text.data[i + 2])) {
                return false;
            }
            i += 2;
        } else if (c <= ' ' || c == '=' || c == 0x7f) {
            return false;
        }
    }
    return text.length > 0;
}

bool smtp_xtext_is_valid(struct slice text)
{
    return utf8_is_ascii(text) && xtext_or_utf8(text);
}

bool smtp_orcpt_is_valid(struct slice value)
{
    size_t type = slice_find(value, ';');
    return value.length <= SMTP_ORCPT_MAX && type > 0 && type < value.length &&
           keyword_span(value) == type && xtext_or_utf8(slice_skip(value, type + 1)) &&
           utf8_is_valid(value);
}
