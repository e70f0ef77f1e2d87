/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/smtp_reply.h"

#include "base/utf8.h"

void smtp_reply_parser_init(struct smtp_reply_parser *parser)
{
    parser->held = 0;
    parser->lines = 0;
    parser->code = 0;
    parser->complete = false;
    parser->fault = "";
    parser->text_length = 0;
    memset(parser->enhanced, 0, sizeof(parser->enhanced));
}

const char *smtp_reply_fault(const struct smtp_reply_parser *parser)
{
    return parser->fault;
}

static enum smtp_reply_status broken(struct smtp_reply_parser *parser, const char *fault)
{
    parser->fault = fault;
    return SMTP_REPLY_BROKEN;
}

bool smtp_reply_is_begun(const struct smtp_reply_parser *parser)
{
    return parser->held > 0 || (parser->lines > 0 && !parser->complete);
}

/* One number of an enhanced code: 1 to 3 digits, clamped to what a byte holds. */
static bool take_number(struct slice *rest, uint8_t *ret_number)
{
    unsigned number = 0;
    size_t digits = 0;
    while (digits < rest->length && rest->data[digits] >= '0' && rest->data[digits] <= '9') {
        number = number * 10 + (unsigned)(rest->data[digits] - '0');
        digits++;
        if (digits > 3) {
            return false;
        }
    }
    *rest = slice_skip(*rest, digits);
    *ret_number = number > 255 ? 255 : (uint8_t)number;
    return digits > 0;
}

static bool take_dot(struct slice *rest)
{
    if (rest->length == 0 || rest->data[0] != '.') {
        return false;
    }
    *rest = slice_skip(*rest, 1);
    return true;
}

/* Takes "5.1.1" and the blank behind it off the front, if its class is that of the code. */
static bool take_enhanced(struct slice *line, uint16_t code, uint8_t ret_enhanced[3])
{
    struct slice rest = *line;
    if (!take_number(&rest, &ret_enhanced[0]) || ret_enhanced[0] != code / 100 || code / 100 == 3 ||
        !take_dot(&rest) || !take_number(&rest, &ret_enhanced[1]) || !take_dot(&rest) ||
        !take_number(&rest, &ret_enhanced[2]) || (rest.length > 0 && rest.data[0] != ' ')) {
        return false;
    }
    *line = slice_skip(rest, 1);
    return true;
}

static void add_text(struct smtp_reply_parser *parser, struct slice line)
{
    if (parser->text_length > 0 && line.length > 0 && parser->text_length < SMTP_REPLY_TEXT_MAX) {
        parser->text[parser->text_length++] = ' ';
    }
    while (line.length > 0) {
        size_t length = utf8_sequence(line);
        size_t taken = length > 0 ? length : 1;
        if (SMTP_REPLY_TEXT_MAX - parser->text_length < taken) {
            return;
        }
        if (length == 0 || line.data[0] < ' ' || line.data[0] == 0x7f) {
            parser->text[parser->text_length] = line.data[0] == '\t' ? ' ' : '?';
        } else {
            memcpy(parser->text + parser->text_length, line.data, length);
        }
        parser->text_length += taken;
        line = slice_skip(line, taken);
    }
}

/* `line` without its CRLF. */
static enum smtp_reply_status take_line(struct smtp_reply_parser *parser, struct slice line,
                                        struct slice *ret_line)
{
    uint64_t code;
    if (slice_find(line, '\0') < line.length) {
        return broken(parser, "a NUL in a reply");
    }
    if (slice_find(line, '\r') < line.length) {
        return broken(parser, "a bare CR in a reply");
    }
    if (++parser->lines > SMTP_REPLY_LINES_MAX) {
        return broken(parser, "a reply without end");
    }
    if (line.length < 3 || !slice_to_u64(slice_take(line, 3), &code) || code < 200 || code > 599) {
        return broken(parser, "not a reply: it begins with no code");
    }
    bool last = line.length == 3 || line.data[3] == ' ';
    if (!last && line.data[3] != '-') {
        return broken(parser, "not a reply: neither blank nor hyphen follows the code");
    }
    if (parser->code != 0 && parser->code != code) {
        return broken(parser, "lines of one reply have different codes");
    }
    parser->code = (uint16_t)code;
    *ret_line = slice_skip(line, 4);
    struct slice text = *ret_line;
    uint8_t enhanced[3];
    if (take_enhanced(&text, parser->code, enhanced)) {
        memcpy(parser->enhanced, enhanced, sizeof(enhanced));
    }
    add_text(parser, text);
    parser->complete = last;
    return last ? SMTP_REPLY_COMPLETE : SMTP_REPLY_LINE;
}

enum smtp_reply_status smtp_reply_parse(struct smtp_reply_parser *parser, struct slice *input,
                                        struct slice *ret_line)
{
    if (parser->complete) {
        smtp_reply_parser_init(parser);
    }
    size_t end = slice_find(*input, '\n');
    size_t taken = end < input->length ? end + 1 : input->length;
    if (parser->held + taken > SMTP_REPLY_LINE_MAX) {
        return broken(parser, "a reply has too long a line");
    }
    struct slice line = slice_take(*input, taken);
    if (parser->held > 0 || end == input->length) {
        if (taken > 0) {
            memcpy(parser->line + parser->held, input->data, taken);
        }
        parser->held += taken;
        line = slice_make(parser->line, parser->held);
    }
    bool whole = end < input->length;
    *input = slice_skip(*input, taken);
    if (!whole) {
        return SMTP_REPLY_MORE;
    }
    parser->held = 0;
    if (line.length < 2 || line.data[line.length - 2] != '\r') {
        return broken(parser, "a bare LF in a reply");
    }
    return take_line(parser, slice_take(line, line.length - 2), ret_line);
}

void smtp_reply_get(const struct smtp_reply_parser *parser, struct smtp_reply *ret_reply)
{
    *ret_reply = (struct smtp_reply){
        .code = parser->code,
        .text = slice_make(parser->text, parser->text_length),
    };
    memcpy(ret_reply->enhanced, parser->enhanced, sizeof(ret_reply->enhanced));
}
