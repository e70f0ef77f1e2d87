/* SPDX-License-Identifier: Apache-2.0
 *
 * Life of a connection to a filter: packets in and out, and what is agreed at its beginning.
 */
#include "proto/milter_internal.h"

#include <assert.h>
#include <stdlib.h>

enum { HEAD_BYTES = 5, OUTPUT_MAX = 4 << 20 };

/* What is sent unless the filter chooses: what Sendmail and Postfix send, less what we do not know.
 */
static const char *const usual_macros[MACRO_STEPS] = {
    "j _ v {daemon_name} {daemon_addr} {client_addr} {client_name} {client_port} {client_ptr}",
    "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}",
    "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
    "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
    "i",
    "i", /* end of message */
    "i", /* end of header */
};

/* ---- numbers and texts ----------------------------------------------------------------------- */

uint32_t milter_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

void milter_put_u32(struct buffer *to, uint32_t number)
{
    const uint8_t bytes[4] = {(uint8_t)(number >> 24), (uint8_t)(number >> 16),
                              (uint8_t)(number >> 8), (uint8_t)number};
    buffer_append(to, slice_make(bytes, sizeof(bytes)));
}

void milter_put_text(struct milter *milter, struct slice text)
{
    size_t nul = text.length == 0 ? 0 : slice_find(text, 0);
    buffer_append(&milter->output, slice_take(text, nul));
    buffer_put_u8(&milter->output, 0);
}

void milter_break(struct milter *milter, const char *why)
{
    if (milter->state != STATE_BROKEN) {
        milter->state = STATE_BROKEN;
        milter->broken = why;
        milter->deadline_ms = INT64_MAX;
        buffer_clear(&milter->output);
    }
}

size_t milter_begin(struct milter *milter, char command)
{
    size_t begun = milter->output.length;
    milter_put_u32(&milter->output, 0);
    buffer_put_u8(&milter->output, (uint8_t)command);
    return begun;
}

void milter_finish(struct milter *milter, size_t begun)
{
    struct buffer *output = &milter->output;
    if (output->failed) {
        milter_break(milter, "no memory");
        return;
    }
    uint32_t length = (uint32_t)(output->length - begun - 4);
    uint8_t *at = output->data + begun;
    at[0] = (uint8_t)(length >> 24);
    at[1] = (uint8_t)(length >> 16);
    at[2] = (uint8_t)(length >> 8);
    at[3] = (uint8_t)length;
}

/* ---- the beginning --------------------------------------------------------------------------- */

struct milter *milter_new(const struct milter_settings *settings, int64_t now_ms)
{
    struct milter *milter = calloc(1, sizeof(*milter));
    if (milter == NULL) {
        return NULL;
    }
    milter->settings = *settings;
    milter->now_ms = now_ms;
    milter->deadline_ms = now_ms + settings->command_timeout_ms;
    /* What comes may end one packet and begin another. */
    buffer_init(&milter->input, 2 * (HEAD_BYTES + MILTER_PACKET_MAX));
    buffer_init(&milter->output, OUTPUT_MAX);
    for (int i = 0; i < MACRO_STEPS; i++) {
        buffer_init(&milter->macros[i], MILTER_MACROS_MAX);
    }
    size_t begun = milter_begin(milter, SAYS_NEGOTIATE);
    milter_put_u32(&milter->output, VERSION_MOST);
    milter_put_u32(&milter->output, settings->may);
    milter_put_u32(&milter->output, PROTOCOL_ALL);
    milter_finish(milter, begun);
    if (milter->state == STATE_BROKEN) {
        milter_free(milter);
        return NULL;
    }
    return milter;
}

void milter_free(struct milter *milter)
{
    if (milter == NULL) {
        return;
    }
    buffer_done(&milter->input);
    buffer_done(&milter->output);
    for (int i = 0; i < MACRO_STEPS; i++) {
        buffer_done(&milter->macros[i]);
    }
    free(milter);
}

/* "number, names NUL" for each step whose macros it chooses. */
static bool take_macros(struct milter *milter, struct slice data)
{
    while (data.length > 0) {
        size_t end = data.length < 4 ? 0 : slice_find(slice_skip(data, 4), 0);
        if (data.length < 5 || end == data.length - 4) {
            return false;
        }
        uint32_t step = milter_u32(data.data);
        struct slice names = slice_take(slice_skip(data, 4), end);
        if (step < MACRO_STEPS) {
            buffer_clear(&milter->macros[step]);
            buffer_append(&milter->macros[step], names);
            milter->chose_macros[step] = true;
            if (milter->macros[step].failed) {
                return false;
            }
        }
        data = slice_skip(data, 4 + end + 1);
    }
    return true;
}

bool milter_negotiated(struct milter *milter, struct slice data, struct milter_event *ret_event)
{
    if (data.length < 12) {
        milter_break(milter, "a short negotiation");
        return false;
    }
    uint32_t version = milter_u32(data.data);
    uint32_t may = milter_u32(data.data + 4), protocol = milter_u32(data.data + 8);
    if (version < VERSION_LEAST || version > VERSION_MOST) {
        milter_break(milter, "a version that we do not speak");
    } else if ((may & ~milter->settings.may) != 0) {
        milter_break(milter, "it wants to change what we do not let it change");
    } else if ((protocol & ~(uint32_t)PROTOCOL_ALL) != 0) {
        milter_break(milter, "it wants a protocol that we do not speak");
    } else if (!take_macros(milter, slice_skip(data, 12))) {
        milter_break(milter, "a broken list of macros");
    } else {
        milter->version = version;
        milter->may = may;
        milter->protocol = protocol;
        milter->state = STATE_IDLE;
        milter->deadline_ms = INT64_MAX;
        ret_event->kind = MILTER_READY;
        return true;
    }
    return false;
}

/* ---- macros ---------------------------------------------------------------------------------- */

static struct slice next_name(struct slice *rest)
{
    while (rest->length > 0 && (rest->data[0] == ' ' || rest->data[0] == ',')) {
        *rest = slice_skip(*rest, 1);
    }
    size_t length = 0;
    while (length < rest->length && rest->data[length] != ' ' && rest->data[length] != ',') {
        length++;
    }
    struct slice name = slice_take(*rest, length);
    *rest = slice_skip(*rest, length);
    return name;
}

static struct slice without_braces(struct slice name)
{
    bool braced = name.length > 2 && name.data[0] == '{' && name.data[name.length - 1] == '}';
    return braced ? slice_make(name.data + 1, name.length - 2) : name;
}

void milter_say_macros(struct milter *milter, int step, char command)
{
    struct slice names = milter->chose_macros[step] ? buffer_slice(&milter->macros[step])
                                                    : slice_from_text(usual_macros[step]);
    size_t before = milter->output.length;
    size_t begun = milter_begin(milter, SAYS_MACROS);
    bool any = false;
    buffer_put_u8(&milter->output, (uint8_t)command);
    for (struct slice name = next_name(&names); name.length > 0; name = next_name(&names)) {
        struct slice value = SLICE_EMPTY;
        if (milter->settings.macro != NULL &&
            milter->settings.macro(milter->settings.context, without_braces(name), &value)) {
            milter_put_text(milter, name);
            milter_put_text(milter, value);
            any = true;
        }
    }
    if (any || milter->output.failed) {
        milter_finish(milter, begun);
    } else {
        milter->output.length = before;
    }
}

/* ---- bytes ----------------------------------------------------------------------------------- */

void milter_input(struct milter *milter, struct slice bytes, int64_t now_ms)
{
    milter->now_ms = now_ms;
    buffer_consume(&milter->input, milter->consumed);
    milter->consumed = 0;
    if (milter->state != STATE_BROKEN) {
        buffer_append(&milter->input, bytes);
        if (milter->input.failed) {
            milter_break(milter, "a packet too large, or no memory");
        }
    }
}

void milter_lost(struct milter *milter)
{
    milter_break(milter, "connection lost");
}

static bool told_broken(struct milter *milter, struct milter_event *ret_event)
{
    if (milter->broken == NULL) {
        return false;
    }
    ret_event->kind = MILTER_BROKEN;
    ret_event->text = slice_from_text(milter->broken);
    milter->broken = NULL;
    return true;
}

bool milter_next(struct milter *milter, struct milter_event *ret_event)
{
    for (;;) {
        *ret_event = (struct milter_event){.kind = MILTER_NONE, .stage = milter->stage};
        if (milter->state == STATE_BROKEN) {
            return told_broken(milter, ret_event);
        }
        struct slice rest = slice_skip(buffer_slice(&milter->input), milter->consumed);
        uint32_t length = rest.length < 4 ? 0 : milter_u32(rest.data);
        if (rest.length >= 4 && (length == 0 || length > MILTER_PACKET_MAX)) {
            milter_break(milter, "a packet too large, or empty");
            continue;
        }
        if (rest.length < 4 || rest.length - 4 < length) {
            return false;
        }
        milter->consumed += 4 + (size_t)length;
        if (milter_take(milter, rest.data[4], slice_take(slice_skip(rest, HEAD_BYTES), length - 1),
                        ret_event)) {
            return true;
        }
    }
}

struct slice milter_output(const struct milter *milter)
{
    return buffer_slice(&milter->output);
}

void milter_sent(struct milter *milter, size_t length, int64_t now_ms)
{
    assert(length <= milter->output.length);
    milter->now_ms = now_ms;
    buffer_consume(&milter->output, length);
}

int64_t milter_deadline(const struct milter *milter)
{
    return milter->deadline_ms;
}

void milter_expire(struct milter *milter)
{
    milter_break(milter, "no answer in time");
}
