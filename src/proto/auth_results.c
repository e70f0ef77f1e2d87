/* SPDX-License-Identifier: Apache-2.0
 *
 * The reader goes from word to word; what stands between them (CFWS) is passed over. A word is a
 * run without blanks, "=", ";" and parentheses, in which quoted strings may stand: that covers
 * tokens, quoted strings and addresses alike, and what filters write that is none of these.
 */
#include "proto/auth_results.h"

#include <assert.h>

enum { DOMAIN_MAX = 255 };

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Passes over blanks and comments. False: one of these has no end. */
static bool skip_blanks(struct slice *rest)
{
    size_t depth = 0, at = 0;
    for (; at < rest->length; at++) {
        uint8_t c = rest->data[at];
        if (c == '(') {
            depth++;
        } else if (depth > 0) {
            at += c == '\\';
            depth -= c == ')';
        } else if (!is_blank(c)) {
            break;
        }
    }
    *rest = slice_skip(*rest, at);
    return depth == 0;
}

static bool ends_word(uint8_t c)
{
    return is_blank(c) || c == '=' || c == ';' || c == '(' || c == ')';
}

/* False: a quoted string in it has no end. */
static bool read_word(struct slice *rest, struct slice *ret_word)
{
    bool quoted = false;
    size_t at = 0;
    for (; at < rest->length && (quoted || !ends_word(rest->data[at])); at++) {
        if (rest->data[at] == '"') {
            quoted = !quoted;
        } else if (rest->data[at] == '\\' && quoted) {
            at++;
        }
    }
    at = at < rest->length ? at : rest->length;
    *ret_word = slice_take(*rest, at);
    *rest = slice_skip(*rest, at);
    return !quoted;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Compared as it would be without quotes. */
static bool is_quoted_name(struct slice word, struct slice name)
{
    size_t matched = 0;
    for (size_t i = 1; i + 1 < word.length; i++, matched++) {
        i += word.data[i] == '\\' && i + 2 < word.length;
        if (matched == name.length ||
            !slice_equal_fold(slice_make(&word.data[i], 1), slice_make(&name.data[matched], 1))) {
            return false;
        }
    }
    return matched == name.length;
}

/* Some put a job's number behind it, after a slash, and some end it in a dot. */
static bool is_ours(struct slice word, const struct auth_names *names)
{
    bool quoted = word.length > 1 && word.data[0] == '"';
    struct slice plain = slice_take(word, slice_find(word, '/'));
    plain.length -= plain.length > 0 && plain.data[plain.length - 1] == '.';
    for (size_t i = 0; i < names->count; i++) {
        if (quoted ? is_quoted_name(word, names->names[i])
                   : slice_equal_fold(plain, names->names[i])) {
            return true;
        }
    }
    return false;
}

/* ---- the sieve ------------------------------------------------------------------------------- */

enum { AT_LINE, IN_NAME, BEFORE_COLON, IN_VALUE, KEPT, DROPPED, AT_DROPPED_LINE };

static const struct slice field_name = SLICE_LITERAL("authentication-results");

/* What the held value says so far. */
enum whose { WHOSE_NOT_KNOWN, WHOSE_OURS, WHOSE_OTHERS };

static enum whose whose_value(struct slice value, const struct auth_names *names, bool is_end)
{
    struct slice word;
    bool whole = skip_blanks(&value) && read_word(&value, &word);
    if (!is_end && (!whole || value.length == 0)) {
        return WHOSE_NOT_KNOWN;
    }
    return !whole || is_ours(word, names) ? WHOSE_OURS : WHOSE_OTHERS;
}

static bool drop(struct auth_sieve *sieve)
{
    sieve->state = sieve->held[sieve->length - 1] == '\n' ? AT_DROPPED_LINE : DROPPED;
    sieve->removed += sieve->length;
    sieve->length = 0;
    sieve->fields++;
    return false;
}

/* A blank at the beginning of a line belongs to the line before. */
static bool value_ends(const struct auth_sieve *sieve, uint8_t c)
{
    return sieve->held[sieve->length - 1] == '\n' && c != ' ' && c != '\t';
}

static struct slice held_value(const struct auth_sieve *sieve)
{
    struct slice held = slice_make(sieve->held, sieve->length);
    return slice_skip(held, slice_find(held, ':') + 1);
}

/* The next octet of a field that may be ours. True: what is held is none, this one included. */
static bool hold(struct auth_sieve *sieve, const struct auth_names *names, uint8_t c)
{
    sieve->held[sieve->length++] = c;
    if (sieve->state == AT_LINE || sieve->state == IN_NAME) {
        size_t at = sieve->length - 1;
        if (at < field_name.length) {
            sieve->state = IN_NAME;
            return (c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c) != field_name.data[at];
        }
        sieve->state = BEFORE_COLON;
    }
    if (sieve->state == BEFORE_COLON) {
        if (c == ':') {
            sieve->state = IN_VALUE;
        } else if (c != ' ' && c != '\t') {
            return true;
        }
    } else {
        enum whose whose = whose_value(held_value(sieve), names, false);
        if (whose != WHOSE_NOT_KNOWN) {
            return whose == WHOSE_OTHERS || drop(sieve);
        }
    }
    return sieve->length == AUTH_SIEVE_HELD && drop(sieve);
}

/* What is held, from the end of its field on. */
static struct slice give_up(struct auth_sieve *sieve, uint8_t state)
{
    struct slice held = slice_make(sieve->held, sieve->length);
    sieve->length = 0;
    sieve->state = state;
    return held;
}

static size_t to_line_end(struct slice bytes)
{
    size_t end = slice_find(bytes, '\n');
    return end < bytes.length ? end + 1 : end;
}

static struct slice keep_line(struct auth_sieve *sieve, struct slice *input)
{
    struct slice run = slice_take(*input, to_line_end(*input));
    *input = slice_skip(*input, run.length);
    sieve->state = run.data[run.length - 1] == '\n' ? AT_LINE : KEPT;
    return run;
}

static void drop_line(struct auth_sieve *sieve, struct slice *input)
{
    size_t length = to_line_end(*input);
    sieve->state = input->data[length - 1] == '\n' ? AT_DROPPED_LINE : DROPPED;
    sieve->removed += length;
    *input = slice_skip(*input, length);
}

/* One step; an empty run means only that the state has moved on. */
static struct slice take(struct auth_sieve *sieve, const struct auth_names *names,
                         struct slice *input)
{
    uint8_t c = input->data[0];
    switch (sieve->state) {
    case AT_LINE:
        if (c != 'a' && c != 'A') {
            return keep_line(sieve, input);
        }
        break;
    case KEPT:
        return keep_line(sieve, input);
    case AT_DROPPED_LINE:
        if (c != ' ' && c != '\t') {
            sieve->state = AT_LINE;
            return SLICE_EMPTY;
        }
        drop_line(sieve, input);
        return SLICE_EMPTY;
    case DROPPED:
        drop_line(sieve, input);
        return SLICE_EMPTY;
    case IN_VALUE:
        if (value_ends(sieve, c)) {
            if (whose_value(held_value(sieve), names, true) == WHOSE_OTHERS) {
                return give_up(sieve, AT_LINE);
            }
            (void)drop(sieve);
            sieve->state = AT_LINE;
            return SLICE_EMPTY;
        }
        break;
    default:
        break;
    }
    *input = slice_skip(*input, 1);
    return hold(sieve, names, c) ? give_up(sieve, c == '\n' ? AT_LINE : KEPT) : SLICE_EMPTY;
}

bool auth_sieve_next(struct auth_sieve *sieve, const struct auth_names *names, struct slice *input,
                     struct slice *ret_run)
{
    assert(!sieve->is_over);
    while (input->length > 0) {
        *ret_run = take(sieve, names, input);
        if (ret_run->length > 0) {
            return true;
        }
    }
    return false;
}

struct slice auth_sieve_end(struct auth_sieve *sieve, const struct auth_names *names)
{
    sieve->is_over = true;
    if (sieve->state == IN_VALUE && whose_value(held_value(sieve), names, true) != WHOSE_OTHERS) {
        (void)drop(sieve);
    }
    return give_up(sieve, KEPT);
}

/* ---- what filters say ------------------------------------------------------------------------ */

/* A method's result, and the properties that count. */
struct result {
    struct slice method, word;
    struct slice mail_from, signer, identity, from; /* empty: not said */
};

/* The domain of a property: behind the last "@", without quotes. */
static struct slice domain_of(struct slice value)
{
    if (value.length > 1 && value.data[0] == '"' && value.data[value.length - 1] == '"') {
        value = slice_make(value.data + 1, value.length - 2);
    }
    size_t at = slice_find_last(value, '@');
    value = at < value.length ? slice_skip(value, at + 1) : value;
    value.length -= value.length > 0 && value.data[value.length - 1] == '.';
    return value.length <= DOMAIN_MAX ? value : SLICE_EMPTY;
}

static void take_property(struct result *result, struct slice name, struct slice value)
{
    struct slice domain = domain_of(value);
    struct slice *place = slice_equal_fold(name, SLICE_LITERAL("smtp.mailfrom"))
                              ? &result->mail_from
                          : slice_equal_fold(name, SLICE_LITERAL("header.d"))    ? &result->signer
                          : slice_equal_fold(name, SLICE_LITERAL("header.i"))    ? &result->identity
                          : slice_equal_fold(name, SLICE_LITERAL("header.from")) ? &result->from
                                                                                 : NULL;
    if (place != NULL && place->length == 0) {
        *place = domain;
    }
}

/* "name = value". */
static bool read_pair(struct slice *rest, struct slice *ret_name, struct slice *ret_value)
{
    if (!read_word(rest, ret_name) || ret_name->length == 0 || !skip_blanks(rest) ||
        rest->length == 0 || rest->data[0] != '=') {
        return false;
    }
    *rest = slice_skip(*rest, 1);
    if (!skip_blanks(rest)) {
        return false;
    }
    size_t length = 0;
    struct slice from = *rest;
    for (;;) { /* "=" may stand in a value, as in header.b */
        struct slice part;
        if (!read_word(rest, &part)) {
            return false;
        }
        length += part.length;
        if (rest->length == 0 || rest->data[0] != '=') {
            break;
        }
        *rest = slice_skip(*rest, 1);
        length++;
    }
    *ret_value = slice_take(from, length);
    return true;
}

/* The next result, behind its ";". False: the field is over, or *ret_bad: it is none. */
static bool read_result(struct slice *rest, struct result *ret_result, bool *ret_bad)
{
    struct slice name, value;
    *ret_result = (struct result){0};
    *ret_bad = !skip_blanks(rest);
    if (*ret_bad || rest->length == 0) {
        return false;
    }
    *ret_bad = rest->data[0] != ';';
    *rest = slice_skip(*rest, 1);
    *ret_bad = *ret_bad || !skip_blanks(rest);
    if (*ret_bad || rest->length == 0) {
        return false; /* some end it with a ";" */
    }
    if (slice_equal_fold(slice_trim(slice_take(*rest, slice_find(*rest, ';'))),
                         SLICE_LITERAL("none"))) {
        *rest = slice_skip(*rest, slice_find(*rest, ';'));
        return true;
    }
    if (!read_pair(rest, &name, &ret_result->word)) {
        *ret_bad = true;
        return false;
    }
    ret_result->method = slice_take(name, slice_find(name, '/'));
    for (;;) {
        *ret_bad = !skip_blanks(rest);
        if (*ret_bad || rest->length == 0 || rest->data[0] == ';') {
            return !*ret_bad;
        }
        *ret_bad = !read_pair(rest, &name, &value);
        if (*ret_bad) {
            return false;
        }
        take_property(ret_result, name, value);
    }
}

/* `domain` is this one or lies below it; and one of a single label speaks for nobody else. */
static bool speaks_for(struct slice signer, struct slice domain)
{
    if (slice_equal_fold(signer, domain)) {
        return signer.length > 0;
    }
    return slice_find(signer, '.') < signer.length && signer.data[0] != '.' &&
           domain.length > signer.length + 1 &&
           domain.data[domain.length - signer.length - 1] == '.' &&
           slice_equal_fold(slice_skip(domain, domain.length - signer.length), signer);
}

static enum auth_proof proof_of(const struct result *result, struct slice domain)
{
    if (!slice_equal_fold(result->word, SLICE_LITERAL("pass"))) {
        return AUTH_NOTHING;
    }
    if (slice_equal_fold(result->method, SLICE_LITERAL("spf"))) {
        return slice_equal_fold(result->mail_from, domain) ? AUTH_BY_SPF : AUTH_NOTHING;
    }
    if (slice_equal_fold(result->method, SLICE_LITERAL("dkim"))) {
        struct slice signer = result->signer.length > 0 ? result->signer : result->identity;
        return speaks_for(signer, domain) ? AUTH_BY_DKIM : AUTH_NOTHING;
    }
    return slice_equal_fold(result->method, SLICE_LITERAL("dmarc")) &&
                   speaks_for(result->from, domain)
               ? AUTH_BY_DMARC
               : AUTH_NOTHING;
}

enum auth_proof auth_results_prove(struct slice value, const struct auth_names *names,
                                   struct slice domain)
{
    struct slice word;
    struct result result;
    enum auth_proof proof = AUTH_NOTHING;
    bool bad = false;
    if (domain.length == 0 || !skip_blanks(&value) || !read_word(&value, &word) ||
        !is_ours(word, names) || !skip_blanks(&value)) {
        return AUTH_NOTHING;
    }
    if (value.length > 0 && value.data[0] == '1') { /* the version */
        value = slice_skip(value, 1);
    }
    while (read_result(&value, &result, &bad)) {
        proof = proof != AUTH_NOTHING ? proof : proof_of(&result, domain);
    }
    return bad ? AUTH_NOTHING : proof;
}
