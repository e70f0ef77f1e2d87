/* SPDX-License-Identifier: Apache-2.0
 *
 * MAIL and RCPT with their parameters. What is wrong becomes one of the fixed replies below; what
 * is right becomes an event.
 */
#include "proto/smtp_server_internal.h"

#include "base/utf8.h"

/* A reply to a parameter, or NULL when it is fine. */
typedef const char *parameter_fn(struct smtp_server *server, struct slice value,
                                 struct smtp_server_event *event);

struct parameter {
    const char *keyword;
    bool has_value;
    uint8_t offer; /* known only where that is offered; 0: always */
    parameter_fn *take;
};

static const char not_recognized[] = "555 5.5.4 Parameter not recognized";
static const char bad_value[] = "501 5.5.4 Bad parameter value";

static const char *take_size(struct smtp_server *server, struct slice value,
                             struct smtp_server_event *event)
{
    if (value.length > 20) {
        return bad_value; /* RFC 1870 section 4 */
    }
    if (!slice_to_u64(value, &event->size)) {
        for (size_t i = 0; i < value.length; i++) {
            if (value.data[i] < '0' || value.data[i] > '9') {
                return bad_value;
            }
        }
        event->size = UINT64_MAX;
    }
    if (server->settings->message_bytes != 0 && event->size > server->settings->message_bytes) {
        return "552 5.3.4 Message too large";
    }
    return NULL;
}

static const char *take_body(struct smtp_server *server, struct slice value,
                             struct smtp_server_event *event)
{
    (void)server;
    event->is_8bit = slice_equal_fold(value, SLICE_LITERAL("8BITMIME"));
    return event->is_8bit || slice_equal_fold(value, SLICE_LITERAL("7BIT")) ? NULL : bad_value;
}

static const char *take_smtputf8(struct smtp_server *server, struct slice value,
                                 struct smtp_server_event *event)
{
    (void)server;
    (void)value;
    event->is_smtputf8 = true;
    return NULL;
}

static const char *take_ret(struct smtp_server *server, struct slice value,
                            struct smtp_server_event *event)
{
    (void)server;
    if (slice_equal_fold(value, SLICE_LITERAL("FULL"))) {
        event->ret = SMTP_RET_FULL;
    } else if (slice_equal_fold(value, SLICE_LITERAL("HDRS"))) {
        event->ret = SMTP_RET_HEADERS;
    } else {
        return bad_value;
    }
    return NULL;
}

static const char *take_envid(struct smtp_server *server, struct slice value,
                              struct smtp_server_event *event)
{
    (void)server;
    event->envelope_id = value;
    return value.length <= SMTP_ENVID_MAX && smtp_xtext_is_valid(value) ? NULL : bad_value;
}

static uint8_t notify_word(struct slice word)
{
    if (slice_equal_fold(word, SLICE_LITERAL("SUCCESS"))) {
        return SMTP_NOTIFY_SUCCESS;
    }
    if (slice_equal_fold(word, SLICE_LITERAL("FAILURE"))) {
        return SMTP_NOTIFY_FAILURE;
    }
    return slice_equal_fold(word, SLICE_LITERAL("DELAY")) ? SMTP_NOTIFY_DELAY : 0;
}

static const char *take_notify(struct smtp_server *server, struct slice value,
                               struct smtp_server_event *event)
{
    (void)server;
    if (slice_equal_fold(value, SLICE_LITERAL("NEVER"))) {
        event->notify = SMTP_NOTIFY_NEVER;
        return NULL;
    }
    for (bool is_last = false; !is_last;) {
        size_t end = slice_find(value, ',');
        uint8_t word = notify_word(slice_take(value, end));
        if (word == 0 || (event->notify & word) != 0) {
            return bad_value;
        }
        event->notify |= word;
        is_last = end == value.length;
        value = slice_skip(value, end + 1);
    }
    return NULL;
}

static const char *take_orcpt(struct smtp_server *server, struct slice value,
                              struct smtp_server_event *event)
{
    event->orcpt = value;
    if (!server->is_smtputf8 && !utf8_is_ascii(value)) {
        return bad_value;
    }
    return smtp_orcpt_is_valid(value) ? NULL : bad_value;
}

/* An optional sign of `signs`, then at most `most` digits. */
static bool read_number(struct slice text, const char *signs, size_t most, int64_t *ret_number)
{
    uint64_t number;
    bool is_signed = text.length > 0 && text.data[0] != '\0' && strchr(signs, text.data[0]) != NULL;
    bool is_negative = is_signed && text.data[0] == '-';
    text = slice_skip(text, is_signed);
    if (text.length > most || !slice_to_u64(text, &number)) {
        return false;
    }
    *ret_number = is_negative ? -(int64_t)number : (int64_t)number;
    return true;
}

/* RFC 2852 section 3: by-time ";" by-mode [by-trace]. */
static const char *take_by(struct smtp_server *server, struct slice value,
                           struct smtp_server_event *event)
{
    (void)server;
    int64_t in_s;
    size_t end = slice_find(value, ';');
    struct slice mode = slice_skip(value, end + 1);
    if (!read_number(slice_take(value, end), "+-", 9, &in_s) || mode.length < 1 ||
        mode.length > 2 || (mode.length == 2 && (mode.data[1] | 0x20) != 't')) {
        return bad_value;
    }
    event->deliver_by =
        (struct smtp_deliver_by){.in_s = (int32_t)in_s, .is_traced = mode.length == 2};
    event->deliver_by.mode = slice_equal_fold(slice_take(mode, 1), SLICE_LITERAL("R"))   ? 'R'
                             : slice_equal_fold(slice_take(mode, 1), SLICE_LITERAL("N")) ? 'N'
                                                                                         : '\0';
    bool has_time = in_s > 0 || event->deliver_by.mode == 'N';
    return event->deliver_by.mode != '\0' && has_time ? NULL : bad_value;
}

/* RFC 6710 section 7: no sign but "-", no leading zero. */
static const char *take_priority(struct smtp_server *server, struct slice value,
                                 struct smtp_server_event *event)
{
    (void)server;
    int64_t priority;
    if (!read_number(value, "-", 1, &priority) || (priority == 0 && value.length > 1)) {
        return bad_value;
    }
    event->priority = (int8_t)priority;
    event->has_priority = true;
    return NULL;
}

static const char *take_requiretls(struct smtp_server *server, struct slice value,
                                   struct smtp_server_event *event)
{
    (void)server;
    (void)value;
    event->requires_tls = true;
    return NULL;
}

/* RFC 4954 section 5: who submitted it first, as far as the client knows. We trust nobody with
 * that, so it goes no further than to filters; but who is offered AUTH may say it. */
static const char *take_auth(struct smtp_server *server, struct slice value,
                             struct smtp_server_event *event)
{
    (void)event;
    if (server->settings->mechanisms == 0) {
        return not_recognized;
    }
    return value.length <= SMTP_AUTH_MAX && smtp_xtext_is_valid(value) ? NULL : bad_value;
}

static const struct parameter mail_parameters[] = {
    {"SIZE", true, 0, take_size},
    {"BODY", true, 0, take_body},
    {"SMTPUTF8", false, 0, take_smtputf8},
    {"RET", true, SMTP_OFFER_DSN, take_ret},
    {"ENVID", true, SMTP_OFFER_DSN, take_envid},
    {"BY", true, SMTP_OFFER_DELIVERBY, take_by},
    {"MT-PRIORITY", true, SMTP_OFFER_PRIORITY, take_priority},
    {"REQUIRETLS", false, SMTP_OFFER_REQUIRETLS, take_requiretls},
    {"AUTH", true, 0, take_auth},
    {NULL, false, 0, NULL},
};

static const struct parameter recipient_parameters[] = {
    {"NOTIFY", true, SMTP_OFFER_DSN, take_notify},
    {"ORCPT", true, SMTP_OFFER_DSN, take_orcpt},
    {NULL, false, 0, NULL},
};

static const char *take_parameter(struct smtp_server *server, const struct parameter *table,
                                  const struct smtp_parameter *parameter, unsigned *seen,
                                  struct smtp_server_event *event)
{
    for (unsigned i = 0; table[i].keyword != NULL; i++) {
        if (!slice_equal_fold(parameter->keyword, slice_from_text(table[i].keyword)) ||
            (table[i].offer & ~(unsigned)server->offers) != 0) {
            continue;
        }
        if ((*seen & 1u << i) != 0 || parameter->has_value != table[i].has_value) {
            return "501 5.5.4 Bad parameter";
        }
        *seen |= 1u << i;
        return table[i].take(server, parameter->value, event);
    }
    return not_recognized;
}

static const char *take_parameters(struct smtp_server *server, const struct parameter *table,
                                   struct slice rest, struct smtp_server_event *event)
{
    unsigned seen = 0;
    for (;;) {
        struct smtp_parameter parameter;
        enum smtp_parameter_result result = smtp_parameter_next(&rest, &parameter);
        if (result == SMTP_PARAMETER_NONE) {
            return NULL;
        }
        if (result == SMTP_PARAMETER_BAD) {
            return "501 5.5.4 Syntax error in parameters";
        }
        if (!server->is_extended) {
            return "555 5.5.4 No parameters after HELO";
        }
        const char *reply = take_parameter(server, table, &parameter, &seen, event);
        if (reply != NULL) {
            return reply;
        }
    }
}

/* "FROM:" or "TO:", then a path. Blanks before the path are against the grammar and common. */
static bool read_path(struct slice *rest, struct slice word, enum smtp_path_kind kind,
                      struct smtp_mailbox *ret_mailbox)
{
    if (!slice_starts_fold(*rest, word)) {
        return false;
    }
    *rest = slice_skip(*rest, word.length);
    while (rest->length > 0 && rest->data[0] == ' ') {
        *rest = slice_skip(*rest, 1);
    }
    return smtp_path_read(rest, kind, ret_mailbox);
}

/* A reply that is no mistake in the grammar is not counted as one. */
static enum smtp_server_step refuse(struct smtp_server *server, const char *reply)
{
    if (strncmp(reply, "50", 2) == 0 || strncmp(reply, "555", 3) == 0) {
        return smtp_server_mistake(server, reply);
    }
    smtp_server_reply(server, reply);
    return STEP_COMMAND;
}

enum smtp_server_step smtp_server_command_mail(struct smtp_server *server, struct slice arguments,
                                               struct smtp_server_event *event)
{
    const char *reply;
    struct smtp_server_event found = {0};
    server->is_smtputf8 = false;
    server->mail_refused = true; /* until it is accepted */
    if (!slice_starts_fold(arguments, SLICE_LITERAL("FROM:"))) {
        return smtp_server_mistake(server, "501 5.5.4 Syntax: MAIL FROM:<address>");
    }
    if (!read_path(&arguments, SLICE_LITERAL("FROM:"), SMTP_REVERSE_PATH, &found.mailbox)) {
        return smtp_server_mistake(server, "501 5.1.7 Bad sender address syntax");
    }
    found.parameters = slice_trim(arguments);
    reply = take_parameters(server, mail_parameters, arguments, &found);
    if (reply == NULL && found.mailbox.is_utf8 && !found.is_smtputf8) {
        reply = "553 5.6.7 Address needs SMTPUTF8";
    }
    if (reply != NULL) {
        return refuse(server, reply);
    }
    server->is_smtputf8 = found.is_smtputf8;
    *event = found;
    event->is_forwarded = server->has_forward;
    return smtp_server_ask(server, event, SMTP_SERVER_MAIL);
}

enum smtp_server_step smtp_server_command_rcpt(struct smtp_server *server, struct slice arguments,
                                               struct smtp_server_event *event)
{
    const char *reply;
    struct smtp_server_event found = {0};
    if (!slice_starts_fold(arguments, SLICE_LITERAL("TO:"))) {
        return smtp_server_mistake(server, "501 5.5.4 Syntax: RCPT TO:<address>");
    }
    if (!read_path(&arguments, SLICE_LITERAL("TO:"), SMTP_FORWARD_PATH, &found.mailbox)) {
        return smtp_server_mistake(server, "501 5.1.3 Bad recipient address syntax");
    }
    found.parameters = slice_trim(arguments);
    reply = take_parameters(server, recipient_parameters, arguments, &found);
    if (reply == NULL && found.mailbox.is_utf8 && !server->is_smtputf8) {
        reply = "553 5.6.7 Address needs SMTPUTF8";
    }
    if (reply == NULL && server->settings->recipients != 0 &&
        server->recipients >= server->settings->recipients) {
        server->commands -= server->commands > 0; /* the client may well try them all */
        reply = "452 4.5.3 Too many recipients";
    }
    if (reply != NULL) {
        return refuse(server, reply);
    }
    *event = found;
    return smtp_server_ask(server, event, SMTP_SERVER_RECIPIENT);
}
