/* SPDX-License-Identifier: Apache-2.0
 *
 * What a filter tells us. Each packet has its place: a change is heard only at the end of a message
 * and only if it was agreed on, an answer only when one is awaited.
 */
#include "proto/milter_internal.h"

/* The next text that ends with NUL; false: there is none. */
static bool next_text(struct slice *rest, struct slice *ret_text)
{
    size_t end = rest->length == 0 ? 0 : slice_find(*rest, 0);
    if (end == rest->length) {
        return false;
    }
    *ret_text = slice_take(*rest, end);
    *rest = slice_skip(*rest, end + 1);
    return true;
}

/* Neither ends a line nor hides in a log. */
static bool is_one_line(struct slice text)
{
    for (size_t i = 0; i < text.length; i++) {
        if (text.data[i] < ' ' && text.data[i] != '\t') {
            return false;
        }
    }
    return true;
}

/* RFC 5322 2.2. */
static bool is_field_name(struct slice name)
{
    for (size_t i = 0; i < name.length; i++) {
        if (name.data[i] <= ' ' || name.data[i] >= 0x7f || name.data[i] == ':') {
            return false;
        }
    }
    return name.length > 0;
}

/* Folded: each LF, with or without CR, has a blank behind it; no CR elsewhere. */
static bool is_field_value(struct slice value)
{
    for (size_t i = 0; i < value.length; i++) {
        uint8_t c = value.data[i], next = i + 1 < value.length ? value.data[i + 1] : 0;
        if ((c == '\n' && next != ' ' && next != '\t') || (c == '\r' && next != '\n')) {
            return false;
        }
    }
    return true;
}

/* ---- changes --------------------------------------------------------------------------------- */

static bool take_header(struct slice data, bool has_index, struct milter_event *event)
{
    if (has_index) {
        if (data.length < 4) {
            return false;
        }
        event->index = milter_u32(data.data);
        data = slice_skip(data, 4);
    }
    return next_text(&data, &event->name) && next_text(&data, &event->value) &&
           is_field_name(event->name) && is_field_value(event->value);
}

static bool take_address(struct slice data, bool may_have_more, struct milter_event *event)
{
    if (!next_text(&data, &event->value) || !is_one_line(event->value)) {
        return false;
    }
    if (may_have_more && data.length > 0) {
        return next_text(&data, &event->parameters) && is_one_line(event->parameters);
    }
    return true;
}

static const struct {
    char command;
    uint8_t kind;
    uint16_t right;
} changes[] = {
    {'h', MILTER_ADD_HEADER, MILTER_MAY_ADD_HEADERS},
    {'i', MILTER_INSERT_HEADER, MILTER_MAY_ADD_HEADERS},
    {'m', MILTER_CHANGE_HEADER, MILTER_MAY_CHANGE_HEADERS},
    {'+', MILTER_ADD_RECIPIENT, MILTER_MAY_ADD_RECIPIENTS},
    {'2', MILTER_ADD_RECIPIENT, MILTER_MAY_ADD_RECIPIENTS_PAR},
    {'-', MILTER_DEL_RECIPIENT, MILTER_MAY_DELETE_RECIPIENTS},
    {'e', MILTER_CHANGE_SENDER, MILTER_MAY_CHANGE_SENDER},
    {'b', MILTER_REPLACE_BODY, MILTER_MAY_CHANGE_BODY},
    {'q', MILTER_QUARANTINE, MILTER_MAY_QUARANTINE},
};

static bool take_change(struct milter *milter, uint8_t command, struct slice data, size_t which,
                        struct milter_event *event)
{
    bool good = false;
    event->kind = changes[which].kind;
    switch (event->kind) {
    case MILTER_ADD_HEADER:
        event->needs_blank = (milter->protocol & PROTOCOL_LEADING_SPACE) == 0;
        good = take_header(data, false, event);
        break;
    case MILTER_INSERT_HEADER:
    case MILTER_CHANGE_HEADER:
        event->needs_blank = (milter->protocol & PROTOCOL_LEADING_SPACE) == 0;
        good = take_header(data, true, event);
        break;
    case MILTER_REPLACE_BODY:
        event->bytes = data;
        good = true;
        break;
    default:
        good = take_address(data, command == '2' || command == 'e', event);
    }
    if (!good) {
        milter_break(milter, "a change that is malformed");
    } else if (milter->stage != MILTER_END || milter->state != STATE_WAITING ||
               (milter->may & changes[which].right) == 0) {
        milter_break(milter, "a change out of place, or not agreed on");
    } else if (++milter->changes > MILTER_CHANGES_MAX) {
        milter_break(milter, "too many changes");
    }
    return milter->state != STATE_BROKEN;
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static bool decide(struct milter *milter, enum milter_verdict verdict, struct milter_event *event)
{
    event->kind = MILTER_VERDICT;
    event->stage = milter->stage;
    event->verdict = verdict;
    milter->state = STATE_IDLE;
    milter->deadline_ms = INT64_MAX;
    milter->may_meet_another = milter->stage == MILTER_END && verdict == MILTER_CONTINUE;
    bool whole = verdict == MILTER_ACCEPT || verdict == MILTER_DISCARD;
    bool refused = verdict == MILTER_REJECT || verdict == MILTER_TEMPFAIL;
    if (milter->stage <= MILTER_HELO) {
        milter->accepted_session = verdict == MILTER_ACCEPT;
    } else if (whole || (refused && milter->stage != MILTER_RCPT) || milter->stage == MILTER_END) {
        milter->accepted_message = true; /* nothing more is said of it */
    }
    return true;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* "5.7.1" in front of a text, if its class is the code's. */
static size_t enhanced_length(struct slice text, uint8_t class)
{
    size_t at = 0;
    for (int part = 0; part < 3; part++) {
        size_t digits = 0;
        while (at < text.length && is_digit(text.data[at]) && digits < 4) {
            at++;
            digits++;
        }
        bool ends = part == 2 && (at == text.length || text.data[at] == ' ');
        bool goes_on = part < 2 && at < text.length && text.data[at] == '.';
        if (digits == 0 || digits > 3 || (!ends && !goes_on)) {
            return 0;
        }
        at += part < 2;
    }
    return text.data[0] == class && text.data[1] == '.' ? at : 0;
}

/* In place: the packet is ours, and looked at once. */
static struct slice single_percents(struct slice text)
{
    uint8_t *bytes = (uint8_t *)(uintptr_t)text.data;
    size_t length = 0;
    for (size_t i = 0; i < text.length; i++) {
        bytes[length++] = bytes[i];
        i += bytes[i] == '%' && i + 1 < text.length && bytes[i + 1] == '%';
    }
    return slice_take(text, length);
}

/* "550 5.7.1 text"; of several lines the first. "%%" stands for "%" (libmilter). */
static bool take_reply(struct milter *milter, struct slice data, struct milter_event *event)
{
    struct slice line = slice_take(data, data.length == 0 ? 0 : slice_find(data, 0));
    line = slice_take(line, line.length == 0 ? 0 : slice_find(line, '\r'));
    line = slice_take(line, line.length == 0 ? 0 : slice_find(line, '\n'));
    bool good = line.length >= 3 && (line.data[0] == '4' || line.data[0] == '5') &&
                is_digit(line.data[1]) && is_digit(line.data[2]) &&
                (line.length == 3 || line.data[3] == ' ' || line.data[3] == '-') &&
                is_one_line(line);
    if (!good) {
        milter_break(milter, "a reply that is none");
        return false;
    }
    event->code =
        (uint16_t)((line.data[0] - '0') * 100 + (line.data[1] - '0') * 10 + (line.data[2] - '0'));
    struct slice text = slice_skip(line, 4);
    size_t enhanced = enhanced_length(text, line.data[0]);
    event->enhanced = slice_take(text, enhanced);
    event->text = single_percents(enhanced > 0 ? slice_skip(text, enhanced + 1) : text);
    if (event->code == 421) {
        return decide(milter, MILTER_HANG_UP, event);
    }
    return decide(milter, event->code < 500 ? MILTER_TEMPFAIL : MILTER_REJECT, event);
}

static bool take_verdict(struct milter *milter, uint8_t command, struct slice data,
                         struct milter_event *event)
{
    if (milter->state != STATE_WAITING) {
        milter_break(milter, "an answer that nobody asked for");
        return false;
    }
    switch (command) {
    case 'c':
        return decide(milter, MILTER_CONTINUE, event);
    case 'a':
        return decide(milter, MILTER_ACCEPT, event);
    case 'r':
        return decide(milter, MILTER_REJECT, event);
    case 't':
        return decide(milter, MILTER_TEMPFAIL, event);
    case 'd':
        if (milter->stage > MILTER_HELO) {
            return decide(milter, MILTER_DISCARD, event);
        }
        break;
    case 'f':
    case '4':
        return decide(milter, MILTER_HANG_UP, event);
    case 'y':
        return take_reply(milter, data, event);
    case 's':
        if (milter->stage >= MILTER_MAIL && milter->stage < MILTER_END &&
            (milter->protocol & PROTOCOL_SKIP) != 0) {
            milter->skipped |= 1u << milter->stage;
            return decide(milter, MILTER_CONTINUE, event);
        }
        break;
    default:
        break;
    }
    milter_break(milter, "a packet of an unknown kind, or out of place");
    return false;
}

bool milter_take(struct milter *milter, uint8_t command, struct slice data,
                 struct milter_event *ret_event)
{
    if (milter->state == STATE_NEGOTIATING) {
        if (command == SAYS_NEGOTIATE) {
            return milter_negotiated(milter, data, ret_event);
        }
        milter_break(milter, "no negotiation");
        return false;
    }
    if (command == 'p') { /* it works on it */
        if (milter->state == STATE_WAITING) {
            milter_wait(milter);
        }
        return false;
    }
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        if (command == (uint8_t)changes[i].command) {
            return take_change(milter, command, data, i, ret_event);
        }
    }
    return take_verdict(milter, command, data, ret_event);
}
