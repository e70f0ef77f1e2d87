/* SPDX-License-Identifier: Apache-2.0
 *
 * From left to right, one mailbox at a time: what stands outside of <>, without comments, is a name
 * or, where there is no <>, the address.
 */
#include "proto/authors.h"

#include "proto/smtp_address.h"

struct part {
    uint8_t text[AUTHOR_MAX];
    size_t length;
    bool has_at;    /* outside of quotes */
    bool has_gap;   /* two words without a dot or an @ between them */
    bool was_blank; /* since the last byte */
    bool is_full;
};

struct scan {
    struct slice rest;
    struct part plain, angle;
    bool has_angle, is_in_group, is_broken, is_refused;
    author_fn *fn;
    void *context;
    uint32_t count;
};

static bool is_joint(uint8_t byte)
{
    return byte == '@' || byte == '.';
}

static void append(struct part *part, uint8_t byte, bool is_quoted)
{
    if (part->length == AUTHOR_MAX) {
        part->is_full = true;
        return;
    }
    if (part->was_blank && part->length > 0 && !is_joint(byte) &&
        !is_joint(part->text[part->length - 1])) {
        part->has_gap = true;
    }
    part->was_blank = false;
    part->has_at = part->has_at || (byte == '@' && !is_quoted);
    part->text[part->length++] = byte;
}

static uint8_t take(struct scan *scan)
{
    uint8_t byte = scan->rest.data[0];
    scan->rest = slice_skip(scan->rest, 1);
    return byte;
}

/* Behind its "(". */
static void skip_comment(struct scan *scan)
{
    for (size_t depth = 1; depth > 0;) {
        if (scan->rest.length == 0) {
            scan->is_broken = true;
            return;
        }
        uint8_t byte = take(scan);
        if (byte == '\\') {
            scan->rest = slice_skip(scan->rest, 1);
        }
        depth += byte == '(';
        depth -= byte == ')';
    }
}

/* Up to `close` and with it; the opening byte has been taken. */
static void take_enclosed(struct scan *scan, struct part *part, uint8_t open, uint8_t close)
{
    append(part, open, true);
    for (;;) {
        if (scan->rest.length == 0) {
            scan->is_broken = true;
            return;
        }
        uint8_t byte = take(scan);
        append(part, byte, true);
        if (byte == '\\' && scan->rest.length > 0) {
            append(part, take(scan), true);
        } else if (byte == close) {
            return;
        }
    }
}

static void tell(struct scan *scan, const struct part *part)
{
    struct smtp_mailbox mailbox;
    struct slice text = slice_make(part->text, part->length);
    if (part->is_full || part->has_gap || !part->has_at || !smtp_mailbox_parse(text, &mailbox)) {
        scan->is_broken = true;
        return;
    }
    scan->count++;
    scan->is_refused = !scan->fn(scan->context, text);
}

static void end_mailbox(struct scan *scan)
{
    if (scan->has_angle) {
        tell(scan, &scan->angle);
    }
    if (!scan->is_broken && !scan->is_refused &&
        (scan->has_angle ? scan->plain.has_at : scan->plain.length > 0)) {
        tell(scan, &scan->plain);
    }
    scan->plain = scan->angle = (struct part){0};
    scan->has_angle = false;
}

static void take_byte(struct scan *scan, bool *is_inside)
{
    struct part *part = *is_inside ? &scan->angle : &scan->plain;
    uint8_t byte = take(scan);
    switch (byte) {
    case ' ':
    case '\t':
    case '\r':
    case '\n':
        part->was_blank = true;
        return;
    case '(':
        skip_comment(scan);
        part->was_blank = true;
        return;
    case '<':
        scan->is_broken = scan->is_broken || scan->has_angle;
        scan->has_angle = *is_inside = true;
        return;
    case '>':
        scan->is_broken = scan->is_broken || !*is_inside;
        *is_inside = false;
        return;
    case ',':
    case ';':
    case ':':
        if (*is_inside) {
            scan->is_broken = true; /* a route, too */
        } else if (byte == ':') {
            scan->is_broken = scan->is_in_group || scan->has_angle || scan->plain.has_at;
            scan->is_in_group = true;
            scan->plain = (struct part){0};
        } else {
            end_mailbox(scan);
            scan->is_broken = scan->is_broken || (byte == ';' && !scan->is_in_group);
            scan->is_in_group = scan->is_in_group && byte == ',';
        }
        return;
    default:
        break;
    }
    if (scan->has_angle && !*is_inside) {
        scan->is_broken = true;
    } else if (byte == '"' || byte == '[') {
        take_enclosed(scan, part, byte, byte == '"' ? '"' : ']');
    } else {
        append(part, byte, false);
    }
}

enum authors_result authors_read(struct slice value, author_fn *fn, void *context,
                                 uint32_t *ret_count)
{
    struct scan scan = {.rest = value, .fn = fn, .context = context};
    bool is_inside = false;
    while (scan.rest.length > 0 && !scan.is_broken && !scan.is_refused) {
        take_byte(&scan, &is_inside);
    }
    scan.is_broken = scan.is_broken || is_inside || scan.is_in_group;
    if (!scan.is_broken && !scan.is_refused) {
        end_mailbox(&scan);
    }
    *ret_count = scan.count;
    return scan.is_refused ? AUTHORS_REFUSED : scan.is_broken ? AUTHORS_BROKEN : AUTHORS_READ;
}
