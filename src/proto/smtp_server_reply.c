/* SPDX-License-Identifier: Apache-2.0
 *
 * Replies as bytes. No reply can carry what a client sent in a way that makes it more than a line.
 */
#include "proto/smtp_server_internal.h"

enum { REPLY_TEXT_MAX = 480 }; /* RFC 5321 section 4.5.3.1.5: 512 with code and CRLF */

static void append_number(struct buffer *output, uint64_t number)
{
    uint8_t digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    buffer_append(output, slice_make(digits + at, sizeof(digits) - at));
}

/* Printable ASCII only (UTF-8 in replies would need the client's consent, RFC 6531 section 3.7.4).
 */
static void append_text(struct buffer *output, struct slice text)
{
    uint8_t clean[REPLY_TEXT_MAX];
    text = slice_take(text, sizeof(clean));
    for (size_t i = 0; i < text.length; i++) {
        uint8_t c = text.data[i];
        clean[i] = c >= ' ' && c < 0x7f ? c : '?';
    }
    buffer_append(output, slice_make(clean, text.length));
}

static void append_line(struct smtp_server *server, const char *line)
{
    buffer_append_text(&server->output, line);
    buffer_append(&server->output, SLICE_LITERAL("\r\n"));
}

void smtp_server_reply(struct smtp_server *server, const char *line)
{
    append_line(server, line);
}

bool smtp_server_errs(struct smtp_server *server)
{
    server->errors++;
    if (server->settings->errors == 0 || server->errors <= server->settings->errors) {
        return false;
    }
    smtp_server_reply_goodbye(server, "421 4.7.0 ", "Too many errors");
    return true;
}

enum smtp_server_step smtp_server_mistake(struct smtp_server *server, const char *line)
{
    if (smtp_server_errs(server)) {
        return STEP_CLOSING;
    }
    append_line(server, line);
    return STEP_COMMAND;
}

void smtp_server_reply_answer(struct smtp_server *server, const struct smtp_answer *answer,
                              const char *usual)
{
    struct buffer *output = &server->output;
    if (answer->code == 0 || answer->text.length == 0) {
        append_line(server, usual[0] != '\0' ? usual : "451 4.3.0 Not now");
        return;
    }
    append_number(output, answer->code);
    if (answer->enhanced != NULL) {
        buffer_append(output, SLICE_LITERAL(" "));
        buffer_append_text(output, answer->enhanced);
    }
    buffer_append(output, SLICE_LITERAL(" "));
    append_text(output, answer->text);
    buffer_append(output, SLICE_LITERAL("\r\n"));
}

/* RFC 4954 section 4.2: a blank follows the code even where nothing follows it. */
void smtp_server_reply_challenge(struct smtp_server *server, struct slice challenge)
{
    buffer_append(&server->output, SLICE_LITERAL("334 "));
    buffer_append(&server->output, challenge);
    buffer_append(&server->output, SLICE_LITERAL("\r\n"));
}

void smtp_server_reply_greeting(struct smtp_server *server)
{
    struct buffer *output = &server->output;
    buffer_append(output, SLICE_LITERAL("220 "));
    buffer_append(output, server->settings->hostname);
    buffer_append(output, SLICE_LITERAL(" ESMTP holdfast\r\n"));
}

void smtp_server_reply_goodbye(struct smtp_server *server, const char *code, const char *text)
{
    buffer_append_text(&server->output, code);
    buffer_append(&server->output, server->settings->hostname);
    buffer_append(&server->output, SLICE_LITERAL(" "));
    append_line(server, text);
}

static void append_limits(struct smtp_server *server)
{
    struct buffer *output = &server->output;
    if (server->settings->recipients == 0) {
        buffer_append(output, SLICE_LITERAL("250 CHUNKING\r\n"));
        return;
    }
    buffer_append(output, SLICE_LITERAL("250-CHUNKING\r\n250 LIMITS RCPTMAX="));
    append_number(output, server->settings->recipients);
    buffer_append(output, SLICE_LITERAL("\r\n"));
}

/* The one that shows least comes first. */
static void append_mechanisms(struct smtp_server *server)
{
    static const enum sasl_mechanism order[] = {SASL_SCRAM_SHA_256, SASL_CRAM_MD5, SASL_PLAIN,
                                                SASL_LOGIN};
    unsigned offered = smtp_server_mechanisms(server);
    if (offered == 0 || server->has_login) {
        return;
    }
    buffer_append(&server->output, SLICE_LITERAL("250-AUTH"));
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        if ((offered & 1u << order[i]) != 0) {
            buffer_append(&server->output, SLICE_LITERAL(" "));
            buffer_append_text(&server->output, sasl_name(order[i]));
        }
    }
    buffer_append(&server->output, SLICE_LITERAL("\r\n"));
}

static void append_starttls(struct smtp_server *server)
{
    if (server->settings->starttls && !server->is_secure) {
        buffer_append(&server->output, SLICE_LITERAL("250-STARTTLS\r\n"));
    }
}

void smtp_server_reply_hello(struct smtp_server *server)
{
    struct buffer *output = &server->output;
    buffer_append(output, server->is_extended ? SLICE_LITERAL("250-") : SLICE_LITERAL("250 "));
    buffer_append(output, server->settings->hostname);
    buffer_append(output, SLICE_LITERAL("\r\n"));
    if (!server->is_extended) {
        return;
    }
    if (server->settings->odmr) {
        buffer_append(output, SLICE_LITERAL("250-ENHANCEDSTATUSCODES\r\n"));
        append_starttls(server);
        append_mechanisms(server);
        buffer_append(output, SLICE_LITERAL("250 ATRN\r\n"));
        return;
    }
    buffer_append(output, SLICE_LITERAL("250-PIPELINING\r\n250-SIZE"));
    if (server->settings->message_bytes != 0) {
        buffer_append(output, SLICE_LITERAL(" "));
        append_number(output, server->settings->message_bytes);
    }
    buffer_append(output,
                  SLICE_LITERAL("\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n"));
    if (!server->settings->submission) {
        buffer_append(output, SLICE_LITERAL("250-ETRN\r\n"));
    }
    append_starttls(server);
    append_mechanisms(server);
    if ((server->offers & SMTP_OFFER_DSN) != 0) {
        buffer_append(output, SLICE_LITERAL("250-DSN\r\n"));
    }
    if ((server->offers & SMTP_OFFER_DELIVERBY) != 0) {
        buffer_append(output, SLICE_LITERAL("250-DELIVERBY\r\n"));
    }
    if ((server->offers & SMTP_OFFER_PRIORITY) != 0) {
        buffer_append(output, SLICE_LITERAL("250-MT-PRIORITY\r\n"));
    }
    if ((server->offers & SMTP_OFFER_REQUIRETLS) != 0) {
        buffer_append(output, SLICE_LITERAL("250-REQUIRETLS\r\n"));
    }
    if (server->is_trusted) {
        buffer_append(output, SLICE_LITERAL("250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR "
                                            "DESTPORT REVERSE_NAME\r\n"
                                            "250-XFORWARD NAME ADDR PORT PROTO HELO IDENT "
                                            "SOURCE\r\n"));
    }
    append_limits(server);
}

void smtp_server_reply_help(struct smtp_server *server)
{
    if (server->settings->odmr) {
        append_line(server, "214 2.0.0 EHLO HELO AUTH ATRN RSET NOOP HELP QUIT");
        return;
    }
    buffer_append(&server->output, SLICE_LITERAL("214-2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET\r\n"
                                                 "214 2.0.0 NOOP VRFY ETRN HELP QUIT\r\n"));
}

void smtp_server_reply_chunk(struct smtp_server *server, uint64_t size)
{
    struct buffer *output = &server->output;
    buffer_append(output, SLICE_LITERAL("250 2.0.0 "));
    append_number(output, size);
    buffer_append(output, SLICE_LITERAL(" octets received\r\n"));
}
