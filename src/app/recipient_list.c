/* SPDX-License-Identifier: Apache-2.0 */
#include "app/recipient_list.h"

#include "base/utf8.h"

static bool is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r';
}

/* The first word of a line; a quoted local part may hold spaces. */
static struct slice first_word(struct slice line)
{
    struct slice text = slice_trim(line);
    bool quoted = false;
    for (size_t i = 0; i < text.length; i++) {
        if (text.data[i] == '"') {
            quoted = !quoted;
        } else if (text.data[i] == '\\' && quoted) {
            i++;
        } else if (is_space(text.data[i]) && !quoted) {
            return slice_take(text, i);
        }
    }
    return text;
}

static const char *take_word(struct slice word, struct recipient_line *ret_line)
{
    size_t at = slice_find_last(word, '@');
    ret_line->local = slice_take(word, at);
    ret_line->domain = slice_skip(word, at + 1);
    if (at < word.length && ret_line->domain.length == 0) {
        return "no domain behind the @";
    }
    if (ret_line->local.length > 255 || ret_line->domain.length > 255) {
        return "too long for an address";
    }
    if (!utf8_is_valid(word)) {
        return "no UTF-8";
    }
    if (at == 0) {
        return NULL; /* @domain: whether it is one of ours is the caller's to say */
    }
    bool quoted = ret_line->local.data[0] == '"';
    for (size_t i = 0; i < ret_line->local.length; i++) {
        uint8_t byte = ret_line->local.data[i];
        if (byte < ' ' || byte == 0x7f || (!quoted && strchr("@<>()[]\\,;:\"", byte) != NULL)) {
            return "no address";
        }
    }
    /* Quotes around nothing: who that would be has no name. */
    return slice_equal(ret_line->local, SLICE_LITERAL("\"\"")) ? "no address" : NULL;
}

bool recipient_lines_next(struct recipient_lines *lines, struct recipient_line *ret_line,
                          const char **ret_why)
{
    *ret_why = NULL;
    for (;;) {
        size_t length = slice_find(lines->rest, '\n');
        bool whole = length < lines->rest.length;
        if (length > RECIPIENT_LINE_MAX) {
            lines->line++;
            *ret_why = "the line is too long";
            return false;
        }
        if (!whole && (!lines->is_end || length == 0)) {
            return false;
        }
        struct slice word = first_word(slice_take(lines->rest, length));
        lines->rest = slice_skip(lines->rest, length + 1);
        lines->line++;
        if (word.length > 0 && word.data[0] != '#') {
            *ret_why = take_word(word, ret_line);
            return *ret_why == NULL;
        }
    }
}

const char *recipient_line_domain(const struct route_config *route,
                                  const struct recipient_line *line, struct slice *ret_domain)
{
    uint32_t names = 0;
    for (uint32_t i = 0; i < route->domain_count; i++) {
        const struct domain_pattern *pattern = &route->domains[i];
        struct slice name = pattern->name;
        struct slice domain = line->domain;
        if (domain.length == 0) {
            names += !pattern->wild && !pattern->alias;
            *ret_domain = names == 1 && !pattern->wild && !pattern->alias ? name : *ret_domain;
        } else if (!pattern->wild && slice_equal_fold(name, domain)) {
            *ret_domain = domain;
            return NULL;
        } else if (pattern->wild && domain.length > name.length + 1 &&
                   domain.data[domain.length - name.length - 1] == '.' &&
                   slice_equal_fold(slice_skip(domain, domain.length - name.length), name)) {
            *ret_domain = domain;
            return NULL;
        }
    }
    return line->domain.length > 0 ? "a domain that is not of this block"
           : names != 1            ? "no domain, and the block has not just one"
                                   : NULL;
}
