/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/smtp_header.h"

#include "base/utf8.h"

/* Where in a line we are. */
enum {
    AT_LINE,  /* nothing of the line seen */
    AT_EMPTY, /* a CR came first: only LF can follow */
    AT_NAME,  /* within a field's name */
    AT_BLANK, /* blanks between name and colon (RFC 5322 section 4.5) */
    AT_VALUE, /* to the end of the line */
};

/* What the current field is. */
enum { FIELD_NONE, FIELD_OTHER, FIELD_MESSAGE_ID, FIELD_RECEIVED, FIELD_TLS_REQUIRED };

/* How far the value of TLS-Required is what it can be. */
enum { TLS_BEFORE, TLS_N, TLS_NO, TLS_AFTER, TLS_OTHER };

void smtp_header_init(struct smtp_header *header)
{
    memset(header, 0, offsetof(struct smtp_header, id));
}

static void end_field_name(struct smtp_header *header)
{
    struct slice name = slice_make(header->name, header->name_length);
    header->field = FIELD_OTHER;
    header->state = AT_VALUE;
    if (slice_equal_fold(name, SLICE_LITERAL("Received"))) {
        header->received++;
        header->field = FIELD_RECEIVED;
        header->matched = 0;
        header->after_blank = false;
    } else if (!header->id_seen && slice_equal_fold(name, SLICE_LITERAL("Message-ID"))) {
        header->field = FIELD_MESSAGE_ID;
        header->id_seen = true;
    } else if (slice_equal_fold(name, SLICE_LITERAL("Date"))) {
        header->date_seen = true;
    } else if (slice_equal_fold(name, SLICE_LITERAL("TLS-Required"))) {
        header->field = header->tls_fields == 0 ? FIELD_TLS_REQUIRED : FIELD_OTHER;
        header->tls_fields = header->tls_fields == 0 ? 1 : 2;
    }
}

/* The line is no field: the header ended before it. */
static void end_before_line(struct smtp_header *header)
{
    struct slice name = slice_make(header->name, header->name_length);
    if (header->line == 0 && header->state == AT_BLANK &&
        (slice_equal(name, SLICE_LITERAL("From")) || slice_equal(name, SLICE_LITERAL(">From")))) {
        header->field = FIELD_OTHER;
        header->state = AT_VALUE;
        return;
    }
    header->length = header->line;
    header->complete = true;
}

static void at_line(struct smtp_header *header, uint8_t c)
{
    if (c == '\r') {
        header->state = AT_EMPTY;
    } else if (c == ' ' || c == '\t') {
        if (header->field == FIELD_NONE) {
            end_before_line(header);
        } else {
            header->state = AT_VALUE;
        }
    } else if (c > ' ' && c < 0x7f && c != ':') {
        header->name[0] = c;
        header->name_length = 1;
        header->state = AT_NAME;
    } else {
        end_before_line(header);
    }
}

static void at_name(struct smtp_header *header, uint8_t c)
{
    if (c == ':') {
        end_field_name(header);
    } else if (c == ' ' || c == '\t') {
        header->state = AT_BLANK;
    } else if (c > ' ' && c < 0x7f && header->state == AT_NAME) {
        /* A name longer than those looked for need only stay different from them. */
        if (header->name_length < sizeof(header->name)) {
            header->name[header->name_length++] = c;
        }
    } else {
        end_before_line(header);
    }
}

/* A Message-ID that could not be passed on as one line is none. */
static void keep_id(struct smtp_header *header, struct slice value)
{
    for (size_t i = 0; i < value.length; i++) {
        uint8_t c = value.data[i];
        if (c == '\r' || c == '\n') {
            continue;
        }
        if (c == '\0' || header->id_length == SMTP_MESSAGE_ID_MAX) {
            header->id_length = 0;
            header->field = FIELD_OTHER;
            return;
        }
        header->id[header->id_length++] = c;
    }
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

/* " by own_host (holdfast)", byte by byte; NUL behind it. */
static uint8_t own_trace_byte(const struct smtp_header *header, size_t at)
{
    static const char before[] = " by ", behind[] = " (holdfast)";
    size_t host = sizeof(before) - 1, rest = host + header->own_host.length;
    uint8_t c = at < host   ? (uint8_t)before[at]
                : at < rest ? header->own_host.data[at - host]
                            : (uint8_t)behind[at - rest];
    return lower(c);
}

/* The blank that a word ended with may begin the whole as well; no longer part can. */
static void match_byte(struct smtp_header *header, uint8_t c)
{
    while (header->matched > 0 && c != own_trace_byte(header, header->matched)) {
        bool blank = header->matched > 1 && own_trace_byte(header, header->matched - 1) == ' ';
        header->matched = blank;
    }
    header->matched += c == own_trace_byte(header, header->matched);
    header->is_ours = own_trace_byte(header, header->matched) == '\0';
}

static void match_own_trace(struct smtp_header *header, struct slice value)
{
    for (size_t i = 0; !header->is_ours && header->own_host.length > 0 && i < value.length; i++) {
        uint8_t c = lower(value.data[i]);
        bool is_blank = c == ' ' || c == '\t' || c == '\r' || c == '\n';
        if (!is_blank || !header->after_blank) {
            match_byte(header, is_blank ? ' ' : c);
        }
        header->after_blank = is_blank;
    }
}

/* "No" between blanks. */
static void match_no(struct smtp_header *header, struct slice value)
{
    for (size_t i = 0; i < value.length; i++) {
        uint8_t c = lower(value.data[i]), step = header->tls_step;
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
            header->tls_step = step == TLS_N ? TLS_OTHER : step == TLS_NO ? TLS_AFTER : step;
        } else {
            header->tls_step = step == TLS_BEFORE && c == 'n' ? TLS_N
                               : step == TLS_N && c == 'o'    ? TLS_NO
                                                              : TLS_OTHER;
        }
    }
}

static size_t at_value(struct smtp_header *header, struct slice rest)
{
    size_t end = slice_find(rest, '\n');
    size_t taken = end == rest.length ? end : end + 1;
    struct slice value = slice_take(rest, taken);
    if (header->field == FIELD_MESSAGE_ID) {
        keep_id(header, value);
    } else if (header->field == FIELD_RECEIVED) {
        match_own_trace(header, value);
    } else if (header->field == FIELD_TLS_REQUIRED) {
        match_no(header, value);
    }
    header->has_8bit = header->has_8bit || !utf8_is_ascii(value);
    if (end < rest.length) {
        header->state = AT_LINE;
        header->line = header->length + taken;
    }
    return taken;
}

void smtp_header_feed(struct smtp_header *header, struct slice bytes)
{
    for (size_t at = 0; at < bytes.length && !header->complete;) {
        size_t taken = 1;
        uint8_t c = bytes.data[at];
        switch (header->state) {
        case AT_LINE:
            at_line(header, c);
            break;
        case AT_EMPTY:
            header->complete = true;
            header->length++;
            return;
        case AT_NAME:
        case AT_BLANK:
            at_name(header, c);
            break;
        default:
            taken = at_value(header, slice_skip(bytes, at));
            break;
        }
        if (!header->complete) {
            header->length += taken;
            at += taken;
        }
    }
}

bool smtp_header_has_empty_line(const struct smtp_header *header)
{
    return header->complete && header->state == AT_EMPTY;
}

bool smtp_header_needs_no_tls(const struct smtp_header *header)
{
    return header->tls_fields == 1 && (header->tls_step == TLS_NO || header->tls_step == TLS_AFTER);
}

struct slice smtp_header_message_id(const struct smtp_header *header)
{
    return slice_trim(slice_make(header->id, header->id_length));
}
