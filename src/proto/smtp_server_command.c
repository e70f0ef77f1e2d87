/* SPDX-License-Identifier: Apache-2.0
 *
 * Command lines: what a line must look like, and the table of verbs with what each needs. Whether a
 * need is met is decided in one place, so that no handler has to ask.
 */
#include "proto/smtp_server_internal.h"

#include "base/utf8.h"

enum {
    NEED_HELLO = 1 << 0,
    NEED_MAIL = 1 << 1,
    NEED_NO_MAIL = 1 << 2,
    NEED_RECIPIENT = 1 << 3,
    NEED_NO_CHUNK = 1 << 4, /* content has not begun to come by BDAT */
    WITHOUT_ARGUMENT = 1 << 5,
    WITH_ARGUMENT = 1 << 6,
    ENDS_TRANSACTION = 1 << 7,
    HAS_CHUNK = 1 << 8, /* octets follow the line, whatever we think of it */
    NEED_LOGIN = 1 << 9,
    NEED_NO_LOGIN = 1 << 10,
    ODMR = 1 << 11,       /* there, too */
    ONLY_ODMR = 1 << 12,  /* there only */
    WITH_AUTH = 1 << 13,  /* where clients may log in */
    SUBMISSION = 1 << 14, /* there only after a login */
    NO_SUBMISSION = 1 << 15,
    WITH_STARTTLS = 1 << 16, /* where a listener has it */
    NEED_TRUST = 1 << 17,
};

struct command {
    const char *verb;
    unsigned rules;
    smtp_server_command_fn *run;
    const char *reply; /* for a command that has no more to it */
};

/* RFC 5321 section 4.1.1.1. A name that breaks the grammar of domains is taken all the same, for
 * real clients send many; what is to stand in a header field is made harmless there. */
static enum smtp_server_step hello(struct smtp_server *server, struct slice name, bool is_extended,
                                   struct smtp_server_event *event)
{
    if (name.length > SMTP_DOMAIN_MAX || slice_find(name, ' ') != name.length ||
        !utf8_is_valid(name)) {
        return smtp_server_mistake(server, "501 5.5.4 Syntax: EHLO hostname");
    }
    server->is_extended = is_extended;
    server->mail_refused = false;
    server->has_forward = false;
    event->name = name;
    event->is_extended = is_extended;
    return smtp_server_ask(server, event, SMTP_SERVER_HELLO);
}

static enum smtp_server_step run_ehlo(struct smtp_server *server, struct slice arguments,
                                      struct smtp_server_event *event)
{
    return hello(server, arguments, true, event);
}

static enum smtp_server_step run_helo(struct smtp_server *server, struct slice arguments,
                                      struct smtp_server_event *event)
{
    return hello(server, arguments, false, event);
}

static enum smtp_server_step run_rset(struct smtp_server *server, struct slice arguments,
                                      struct smtp_server_event *event)
{
    (void)arguments;
    (void)event;
    server->mail_refused = false;
    server->has_forward = false;
    smtp_server_reply(server, "250 2.0.0 Ok");
    return STEP_COMMAND;
}

static enum smtp_server_step run_help(struct smtp_server *server, struct slice arguments,
                                      struct smtp_server_event *event)
{
    (void)arguments;
    (void)event;
    smtp_server_reply_help(server);
    return STEP_COMMAND;
}

/* RFC 1985 section 5. There are no named queues ("#"), and "@" is the only other option. */
static enum smtp_server_step run_etrn(struct smtp_server *server, struct slice name,
                                      struct smtp_server_event *event)
{
    if (name.data[0] == '#') {
        return smtp_server_mistake(server, "458 4.3.3 No named queues here");
    }
    event->with_subdomains = name.data[0] == '@';
    event->name = slice_skip(name, event->with_subdomains);
    if (!smtp_domain_is_valid(event->name)) {
        return smtp_server_mistake(server, "501 5.5.4 Syntax: ETRN domain");
    }
    return smtp_server_ask(server, event, SMTP_SERVER_ETRN);
}

static enum smtp_server_step run_quit(struct smtp_server *server, struct slice arguments,
                                      struct smtp_server_event *event)
{
    (void)arguments;
    (void)event;
    smtp_server_reply(server, "221 2.0.0 Bye");
    return STEP_CLOSING;
}

/* What has come behind it may be somebody else's (RFC 3207 section 6, CVE-2011-0411): the session
 * ends. */
static enum smtp_server_step run_starttls(struct smtp_server *server, struct slice arguments,
                                          struct smtp_server_event *event)
{
    (void)arguments;
    if (server->is_secure) {
        return smtp_server_mistake(server, "503 5.5.1 TLS has begun already");
    }
    if (server->input.length > 0) {
        server->errors++;
        smtp_server_reply(server, "503 5.5.1 Nothing may come behind STARTTLS");
        return STEP_CLOSING;
    }
    return smtp_server_ask(server, event, SMTP_SERVER_STARTTLS);
}

static const struct command commands[] = {
    {"MAIL", NEED_HELLO | NEED_NO_MAIL | WITH_ARGUMENT | SUBMISSION, smtp_server_command_mail,
     NULL},
    {"RCPT", NEED_HELLO | NEED_MAIL | NEED_NO_CHUNK | WITH_ARGUMENT, smtp_server_command_rcpt,
     NULL},
    {"DATA", NEED_HELLO | NEED_MAIL | NEED_NO_CHUNK | NEED_RECIPIENT | WITHOUT_ARGUMENT,
     smtp_server_command_data, NULL},
    {"BDAT", NEED_HELLO | NEED_MAIL | NEED_RECIPIENT | HAS_CHUNK, smtp_server_command_bdat, NULL},
    {"EHLO", WITH_ARGUMENT | ENDS_TRANSACTION | ODMR, run_ehlo, NULL},
    {"HELO", WITH_ARGUMENT | ENDS_TRANSACTION | ODMR, run_helo, NULL},
    {"RSET", WITHOUT_ARGUMENT | ENDS_TRANSACTION | ODMR, run_rset, NULL},
    {"QUIT", WITHOUT_ARGUMENT | ENDS_TRANSACTION | ODMR, run_quit, NULL},
    {"NOOP", ODMR, NULL, "250 2.0.0 Ok"},
    {"VRFY", WITH_ARGUMENT | SUBMISSION, NULL,
     "252 2.5.0 Cannot verify, but will take mail for it"},
    {"ETRN", NEED_HELLO | NEED_NO_MAIL | WITH_ARGUMENT | NO_SUBMISSION, run_etrn, NULL},
    {"HELP", ODMR, run_help, NULL},
    {"AUTH", NEED_HELLO | NEED_NO_LOGIN | NEED_NO_MAIL | WITH_ARGUMENT | ODMR | WITH_AUTH,
     smtp_server_command_auth, NULL},
    {"STARTTLS", NEED_HELLO | NEED_NO_MAIL | WITHOUT_ARGUMENT | WITH_STARTTLS | ODMR, run_starttls,
     NULL},
    {"XCLIENT", NEED_TRUST | NEED_NO_MAIL | WITH_ARGUMENT, smtp_server_command_xclient, NULL},
    {"XFORWARD", NEED_TRUST | NEED_HELLO | NEED_NO_MAIL | WITH_ARGUMENT,
     smtp_server_command_xforward, NULL},
    {"ATRN", NEED_HELLO | NEED_LOGIN | ONLY_ODMR, smtp_server_command_atrn, NULL},
};

/* Known, and not offered. */
static const char *const unimplemented[] = {"EXPN", "TURN", "SEND", "SOML", "SAML"};

static bool is_here(const struct smtp_server_settings *settings, unsigned rules)
{
    unsigned elsewhere = settings->odmr ? 0 : ONLY_ODMR;
    if (settings->odmr && (rules & (ODMR | ONLY_ODMR)) == 0) {
        return false;
    }
    return (rules & elsewhere) == 0 && ((rules & WITH_AUTH) == 0 || settings->mechanisms != 0) &&
           ((rules & WITH_STARTTLS) == 0 || settings->starttls) &&
           ((rules & NO_SUBMISSION) == 0 || !settings->submission);
}

static const struct command *find_command(const struct smtp_server *server, struct slice verb)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (is_here(server->settings, commands[i].rules) &&
            slice_equal_fold(verb, slice_from_text(commands[i].verb))) {
            return &commands[i];
        }
    }
    return NULL;
}

static bool is_known_elsewhere(struct slice verb)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (slice_equal_fold(verb, slice_from_text(commands[i].verb))) {
            return true;
        }
    }
    return false;
}

static enum smtp_server_step unknown(struct smtp_server *server, struct slice verb)
{
    for (size_t i = 0; i < sizeof(unimplemented) / sizeof(unimplemented[0]); i++) {
        if (slice_equal_fold(verb, slice_from_text(unimplemented[i]))) {
            return smtp_server_mistake(server, "502 5.5.1 Command not implemented");
        }
    }
    return smtp_server_mistake(server, is_known_elsewhere(verb)
                                           ? "502 5.5.1 Command not implemented"
                                           : "500 5.5.1 Command unrecognized");
}

/* The reply to an unmet need, or NULL. */
static const char *unmet_need(const struct smtp_server *server, unsigned rules,
                              struct slice arguments)
{
    if ((rules & NEED_TRUST) != 0 && !server->is_trusted) {
        return "550 5.7.0 Not authorized";
    }
    if ((rules & WITHOUT_ARGUMENT) != 0 && arguments.length > 0) {
        return "501 5.5.4 No argument allowed";
    }
    if ((rules & WITH_ARGUMENT) != 0 && arguments.length == 0) {
        return "501 5.5.4 Argument missing";
    }
    if ((rules & NEED_HELLO) != 0 && !server->has_hello) {
        return "503 5.5.1 Send EHLO first";
    }
    bool needs_login =
        (rules & NEED_LOGIN) != 0 || ((rules & SUBMISSION) != 0 && server->settings->submission);
    if (needs_login && !server->has_login) {
        return smtp_server_mechanisms(server) != 0
                   ? "530 5.7.0 Authentication required"
                   : "530 5.7.0 Must issue a STARTTLS command first";
    }
    if ((rules & NEED_NO_LOGIN) != 0 && server->has_login) {
        return "503 5.5.1 Already authenticated";
    }
    if ((rules & NEED_NO_MAIL) != 0 && server->has_mail) {
        return "503 5.5.1 Sender already given";
    }
    if ((rules & NEED_MAIL) != 0 && !server->has_mail) {
        return "503 5.5.1 Send MAIL first";
    }
    if ((rules & NEED_NO_CHUNK) != 0 && server->is_chunked) {
        return "503 5.5.1 BDAT has begun";
    }
    if ((rules & NEED_RECIPIENT) != 0 && server->recipients == 0) {
        return "554 5.5.1 No valid recipients";
    }
    return NULL;
}

/* What a client pipelines behind a refused MAIL or RCPT is no mistake of its own. */
static bool is_follow_up(const struct smtp_server *server, unsigned rules)
{
    return (rules & NEED_MAIL) != 0 && server->has_hello &&
           (server->mail_refused || (server->has_mail && server->recipients == 0));
}

static enum smtp_server_step refuse(struct smtp_server *server, const struct command *command,
                                    struct slice arguments, const char *reply)
{
    enum smtp_server_step next = STEP_COMMAND;
    if (is_follow_up(server, command->rules)) {
        smtp_server_reply(server, reply);
    } else {
        next = smtp_server_mistake(server, reply);
    }
    if (next == STEP_COMMAND && (command->rules & HAS_CHUNK) != 0) {
        next = smtp_server_skip_bdat(server, arguments);
    }
    return next;
}

static enum smtp_server_step run_command(struct smtp_server *server, struct slice line,
                                         struct smtp_server_event *event)
{
    struct slice verb = slice_take(line, slice_find(line, ' '));
    struct slice arguments = slice_trim(slice_skip(line, verb.length));
    const struct command *command = find_command(server, verb);
    if (server->settings->commands != 0 && ++server->commands > server->settings->commands) {
        smtp_server_reply_goodbye(server, "421 4.7.0 ", "Too many commands");
        return STEP_CLOSING;
    }
    if (command == NULL) {
        return unknown(server, verb);
    }
    const char *need = unmet_need(server, command->rules, arguments);
    if (need != NULL) {
        return refuse(server, command, arguments, need);
    }
    if (command->run != NULL) {
        return command->run(server, arguments, event);
    }
    smtp_server_reply(server, command->reply);
    return STEP_COMMAND;
}

/* EHLO, RSET and QUIT end an open transaction: that event comes first, then the line once more. */
static bool must_abort_first(const struct smtp_server *server, struct slice line)
{
    if (!server->has_mail) {
        return false;
    }
    struct slice verb = slice_take(line, slice_find(line, ' '));
    const struct command *command = find_command(server, verb);
    return command != NULL && (command->rules & ENDS_TRANSACTION) != 0 &&
           unmet_need(server, command->rules, slice_trim(slice_skip(line, verb.length))) == NULL;
}

static bool has_control(struct slice line)
{
    for (size_t i = 0; i < line.length; i++) {
        if (line.data[i] < ' ' || line.data[i] == 0x7f) {
            return true;
        }
    }
    return false;
}

/* ERROR_AGAIN: there is none yet; ERROR_LIMIT: it is too long. */
static enum error find_line(const struct smtp_server *server, struct slice *ret_line,
                            size_t *ret_length, bool *ret_bare)
{
    struct slice window = slice_take(server->input, SMTP_COMMAND_LINE_MAX);
    size_t end = slice_find(window, '\n');
    if (end == window.length) {
        return window.length == SMTP_COMMAND_LINE_MAX ? ERROR_LIMIT : ERROR_AGAIN;
    }
    *ret_line = slice_take(window, end);
    *ret_bare = end == 0 || window.data[end - 1] != '\r';
    ret_line->length -= *ret_bare ? 0 : 1;
    *ret_length = end + 1;
    return ERROR_NONE;
}

enum error smtp_server_take_line(struct smtp_server *server, struct slice *ret_line,
                                 enum smtp_server_step *ret_next)
{
    size_t length;
    bool is_bare;
    enum error error = find_line(server, ret_line, &length, &is_bare);
    if (error != ERROR_NONE) {
        server->starved = error == ERROR_AGAIN;
        return error;
    }
    smtp_server_consume(server, length);
    server->since_ms = server->now_ms;
    server->bare_commands += is_bare;
    if (is_bare && server->settings->reject_bare_newline) {
        *ret_next = smtp_server_mistake(server, "500 5.5.2 Lines must end in CRLF");
        return ERROR_INVALID;
    }
    if (has_control(*ret_line)) {
        *ret_next = smtp_server_mistake(server, "500 5.5.2 Control character in command");
        return ERROR_INVALID;
    }
    return ERROR_NONE;
}

enum smtp_server_step smtp_server_step_command(struct smtp_server *server,
                                               struct smtp_server_event *event)
{
    struct slice line;
    size_t length;
    bool is_bare;
    enum smtp_server_step next = STEP_COMMAND;
    if (find_line(server, &line, &length, &is_bare) == ERROR_NONE &&
        must_abort_first(server, line)) {
        smtp_server_abort(server, event, "ended by the client");
        smtp_server_forget(server);
        return STEP_COMMAND;
    }
    switch (smtp_server_take_line(server, &line, &next)) {
    case ERROR_NONE:
        return run_command(server, line, event);
    case ERROR_LIMIT:
        return STEP_SKIP_LINE;
    default:
        return next;
    }
}

enum smtp_server_step smtp_server_step_skip_line(struct smtp_server *server,
                                                 struct smtp_server_event *event)
{
    (void)event;
    size_t end = slice_find(server->input, '\n');
    if (end == server->input.length) {
        server->input = SLICE_EMPTY;
        server->starved = true;
        return STEP_SKIP_LINE;
    }
    smtp_server_consume(server, end + 1);
    server->since_ms = server->now_ms;
    return smtp_server_mistake(server, "500 5.5.2 Line too long");
}
