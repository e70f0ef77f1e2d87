/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver of the steps, and what each answer leads to.
 *
 *   step        next
 *   GREETING    ANSWER
 *   COMMAND     COMMAND  SKIP_LINE  ANSWER  SKIP_CHUNK  CHUNK  CLOSING
 *   SKIP_LINE   SKIP_LINE  COMMAND  CLOSING
 *   RESPONSE    RESPONSE  COMMAND  SKIP_LINE  ANSWER  CLOSING
 *   ANSWER      by smtp_server_answer(): GREETING  COMMAND  RESPONSE  HANDSHAKE  DATA  CHUNK
 *               SKIP_CHUNK  CLOSING
 *   HANDSHAKE   by smtp_server_secured(): COMMAND
 *   DATA        DATA  ANSWER  COMMAND
 *   CHUNK       CHUNK  COMMAND  ANSWER  SKIP_CHUNK  END
 *   SKIP_CHUNK  SKIP_CHUNK  COMMAND
 *   END         ANSWER
 *   CLOSING     CLOSING (after an ABORT)  CLOSED
 */
#include "proto/smtp_server_internal.h"

#include <assert.h>
#include <stdlib.h>

enum {
    OUTPUT_MAX = 64 << 10,
    OUTPUT_HIGH = 8 << 10, /* with this much unsent no more input is used */
};

void smtp_server_init(struct smtp_server *server, const struct smtp_server_settings *settings,
                      int64_t now_ms)
{
    *server = (struct smtp_server){
        .settings = settings,
        .step = STEP_GREETING,
        .start_ms = now_ms,
        .since_ms = now_ms,
        .now_ms = now_ms,
    };
    buffer_init(&server->output, OUTPUT_MAX);
}

void smtp_server_done(struct smtp_server *server)
{
    buffer_done(&server->output);
    free(server->content);
    server->content = NULL;
    server->step = STEP_CLOSED;
}

void smtp_server_set_settings(struct smtp_server *server,
                              const struct smtp_server_settings *settings)
{
    server->settings = settings;
}

void smtp_server_input(struct smtp_server *server, struct slice bytes, int64_t now_ms)
{
    server->input = bytes;
    server->now_ms = now_ms;
    if (bytes.length > 0 && server->step >= STEP_DATA && server->step <= STEP_SKIP_CHUNK) {
        server->since_ms = now_ms;
    }
}

void smtp_server_consume(struct smtp_server *server, size_t count)
{
    server->input = slice_skip(server->input, count);
}

void smtp_server_forget(struct smtp_server *server)
{
    free(server->content);
    server->content = NULL;
    server->has_mail = false;
    server->is_chunked = false;
    server->recipients = 0;
    server->has_forward = false;
}

void smtp_server_abort(struct smtp_server *server, struct smtp_server_event *event,
                       const char *reason)
{
    assert(server->has_mail && event->kind == SMTP_SERVER_NONE);
    server->has_mail = false;
    event->kind = SMTP_SERVER_ABORT;
    event->reason = reason;
}

enum smtp_server_step smtp_server_ask(struct smtp_server *server, struct smtp_server_event *event,
                                      enum smtp_server_event_kind kind)
{
    event->kind = kind;
    server->asked = (uint8_t)kind;
    return STEP_ANSWER;
}

static enum smtp_server_step step_greeting(struct smtp_server *server,
                                           struct smtp_server_event *event)
{
    return smtp_server_ask(server, event, SMTP_SERVER_GREETING);
}

static enum smtp_server_step step_answer(struct smtp_server *server,
                                         struct smtp_server_event *event)
{
    (void)event;
    server->starved = true;
    return STEP_ANSWER;
}

static enum smtp_server_step step_handshake(struct smtp_server *server,
                                            struct smtp_server_event *event)
{
    (void)event;
    server->starved = true;
    return STEP_HANDSHAKE;
}

static enum smtp_server_step step_closing(struct smtp_server *server,
                                          struct smtp_server_event *event)
{
    if (server->has_mail) {
        smtp_server_abort(server, event, "session ended");
        return STEP_CLOSING;
    }
    smtp_server_forget(server);
    event->kind = SMTP_SERVER_CLOSE;
    return STEP_CLOSED;
}

static enum smtp_server_step step_closed(struct smtp_server *server,
                                         struct smtp_server_event *event)
{
    (void)event;
    server->starved = true;
    return STEP_CLOSED;
}

#define TO(step) (1u << STEP_##step)

static const struct {
    smtp_server_step_fn *run;
    unsigned next;
} steps[STEP_COUNT] = {
    [STEP_GREETING] = {step_greeting, TO(ANSWER)},
    [STEP_COMMAND] = {smtp_server_step_command, TO(COMMAND) | TO(SKIP_LINE) | TO(ANSWER) |
                                                    TO(CHUNK) | TO(SKIP_CHUNK) | TO(CLOSING)},
    [STEP_SKIP_LINE] = {smtp_server_step_skip_line, TO(SKIP_LINE) | TO(COMMAND) | TO(CLOSING)},
    [STEP_RESPONSE] = {smtp_server_step_response,
                       TO(RESPONSE) | TO(COMMAND) | TO(SKIP_LINE) | TO(ANSWER) | TO(CLOSING)},
    [STEP_ANSWER] = {step_answer, TO(ANSWER)},
    [STEP_HANDSHAKE] = {step_handshake, TO(HANDSHAKE)},
    [STEP_DATA] = {smtp_server_step_data, TO(DATA) | TO(ANSWER) | TO(COMMAND)},
    [STEP_CHUNK] = {smtp_server_step_chunk,
                    TO(CHUNK) | TO(COMMAND) | TO(ANSWER) | TO(SKIP_CHUNK) | TO(END)},
    [STEP_SKIP_CHUNK] = {smtp_server_step_skip_chunk, TO(SKIP_CHUNK) | TO(COMMAND)},
    [STEP_END] = {smtp_server_step_end, TO(ANSWER)},
    [STEP_CLOSING] = {step_closing, TO(CLOSING) | TO(CLOSED)},
    [STEP_CLOSED] = {step_closed, TO(CLOSED)},
};

bool smtp_server_next(struct smtp_server *server, struct smtp_server_event *ret_event)
{
    *ret_event = (struct smtp_server_event){0};
    do {
        if (server->output.failed && server->step < STEP_CLOSING) {
            server->step = STEP_CLOSING; /* out of memory: an unsaid reply would mix up the rest */
        }
        if (server->output.length > OUTPUT_HIGH && server->step < STEP_CLOSING) {
            return false;
        }
        server->starved = false;
        enum smtp_server_step next = steps[server->step].run(server, ret_event);
        assert((steps[server->step].next & 1u << next) != 0);
        server->step = (uint8_t)next;
    } while (ret_event->kind == SMTP_SERVER_NONE && !server->starved);
    return ret_event->kind != SMTP_SERVER_NONE;
}

/* Nothing that the client has said counts any more. */
static void start_over(struct smtp_server *server)
{
    server->has_hello = false;
    server->is_extended = false;
    server->has_login = false;
    server->mail_refused = false;
    server->has_forward = false;
    server->offers = 0;
}

/* ---- answers ----------------------------------------------------------------------------- */

static bool accepts(const struct smtp_answer *answer)
{
    return answer->code < 300;
}

static enum smtp_server_step greeting_answered(struct smtp_server *server,
                                               const struct smtp_answer *answer)
{
    if (accepts(answer)) {
        smtp_server_reply_greeting(server);
        return STEP_COMMAND;
    }
    smtp_server_reply_answer(server, answer, "");
    return STEP_CLOSING;
}

static enum smtp_server_step hello_answered(struct smtp_server *server,
                                            const struct smtp_answer *answer)
{
    server->has_hello = accepts(answer);
    if (accepts(answer)) {
        smtp_server_reply_hello(server);
    } else {
        smtp_server_reply_answer(server, answer, "");
    }
    return STEP_COMMAND;
}

static enum smtp_server_step mail_answered(struct smtp_server *server,
                                           const struct smtp_answer *answer)
{
    server->has_mail = accepts(answer);
    server->mail_refused = !accepts(answer);
    server->has_forward = server->has_forward && server->has_mail;
    server->recipients = 0;
    smtp_server_reply_answer(server, answer, "250 2.1.0 Ok");
    return STEP_COMMAND;
}

static enum smtp_server_step recipient_answered(struct smtp_server *server,
                                                const struct smtp_answer *answer)
{
    if (accepts(answer)) {
        server->recipients++;
        server->commands--; /* the bound on recipients is their bound */
    }
    smtp_server_reply_answer(server, answer, "250 2.1.5 Ok");
    return STEP_COMMAND;
}

static enum smtp_server_step data_answered(struct smtp_server *server,
                                           const struct smtp_answer *answer)
{
    bool is_chunked = server->is_chunked;
    if (!accepts(answer)) {
        smtp_server_reply_answer(server, answer, "");
        smtp_server_forget(server);
        server->mail_refused = true;
        return is_chunked ? STEP_SKIP_CHUNK : STEP_COMMAND;
    }
    if (!is_chunked) {
        smtp_server_reply(server, "354 End data with <CR><LF>.<CR><LF>");
    }
    return is_chunked ? STEP_CHUNK : STEP_DATA;
}

static enum smtp_server_step end_answered(struct smtp_server *server,
                                          const struct smtp_answer *answer)
{
    if (accepts(answer)) {
        server->commands = 0;
    }
    smtp_server_reply_answer(server, answer, "250 2.0.0 Ok");
    smtp_server_forget(server);
    return STEP_COMMAND;
}

/* Asking for others' mail is an error, and too many of those end a session. */
static enum smtp_server_step etrn_answered(struct smtp_server *server,
                                           const struct smtp_answer *answer)
{
    if (answer->code == 459 && smtp_server_errs(server)) {
        return STEP_CLOSING;
    }
    smtp_server_reply_answer(server, answer, "250 2.0.0 Ok, queuing started");
    return STEP_COMMAND;
}

/* A wrong password is a mistake like others: too many of them end the session. */
static enum smtp_server_step auth_answered(struct smtp_server *server,
                                           const struct smtp_answer *answer)
{
    if (answer->code == 334) {
        smtp_server_reply_challenge(server, answer->text);
        return STEP_RESPONSE;
    }
    server->has_login = accepts(answer);
    if (answer->code >= 500 && smtp_server_errs(server)) {
        return STEP_CLOSING;
    }
    smtp_server_reply_answer(server, answer, "235 2.7.0 Authentication successful");
    return STEP_COMMAND;
}

static enum smtp_server_step starttls_answered(struct smtp_server *server,
                                               const struct smtp_answer *answer)
{
    smtp_server_reply_answer(server, answer, "220 2.0.0 Ready to start TLS");
    return accepts(answer) ? STEP_HANDSHAKE : STEP_COMMAND;
}

static enum smtp_server_step atrn_answered(struct smtp_server *server,
                                           const struct smtp_answer *answer)
{
    smtp_server_reply_answer(server, answer, "250 2.0.0 OK, now reversing the connection");
    return accepts(answer) ? STEP_CLOSING : STEP_COMMAND;
}

/* As at the beginning of the connection; but what it has cost us goes on to count. */
static enum smtp_server_step xclient_answered(struct smtp_server *server,
                                              const struct smtp_answer *answer)
{
    if (!accepts(answer)) {
        smtp_server_reply_answer(server, answer, "");
        return STEP_COMMAND;
    }
    start_over(server);
    server->has_login = server->has_told_login;
    return STEP_GREETING;
}

void smtp_server_answer(struct smtp_server *server, const struct smtp_answer *answer,
                        int64_t now_ms)
{
    enum smtp_server_step next = STEP_CLOSING;
    assert(server->step == STEP_ANSWER);
    server->now_ms = now_ms;
    server->since_ms = now_ms;
    switch (server->asked) {
    case SMTP_SERVER_GREETING:
        next = greeting_answered(server, answer);
        break;
    case SMTP_SERVER_HELLO:
        next = hello_answered(server, answer);
        break;
    case SMTP_SERVER_MAIL:
        next = mail_answered(server, answer);
        break;
    case SMTP_SERVER_RECIPIENT:
        next = recipient_answered(server, answer);
        break;
    case SMTP_SERVER_DATA:
        next = data_answered(server, answer);
        break;
    case SMTP_SERVER_END:
        next = end_answered(server, answer);
        break;
    case SMTP_SERVER_ETRN:
        next = etrn_answered(server, answer);
        break;
    case SMTP_SERVER_AUTH:
    case SMTP_SERVER_RESPONSE:
        next = auth_answered(server, answer);
        break;
    case SMTP_SERVER_STARTTLS:
        next = starttls_answered(server, answer);
        break;
    case SMTP_SERVER_XCLIENT:
        next = xclient_answered(server, answer);
        break;
    case SMTP_SERVER_XFORWARD:
        server->has_forward = accepts(answer);
        smtp_server_reply_answer(server, answer, "250 2.0.0 Ok");
        next = STEP_COMMAND;
        break;
    case SMTP_SERVER_ATRN:
        next = atrn_answered(server, answer);
        break;
    default:
        assert(false);
    }
    server->step = (uint8_t)(answer->code == 421 ? STEP_CLOSING : next);
}

void smtp_server_offer(struct smtp_server *server, unsigned extensions)
{
    server->offers = (uint8_t)extensions;
}

void smtp_server_set_secure(struct smtp_server *server, bool is_secure)
{
    server->is_secure = is_secure;
}

void smtp_server_let_log_in(struct smtp_server *server, bool may)
{
    server->may_log_in = may;
}

bool smtp_server_wants_handshake(const struct smtp_server *server)
{
    return server->step == STEP_HANDSHAKE;
}

void smtp_server_secured(struct smtp_server *server, int64_t now_ms)
{
    assert(server->step == STEP_HANDSHAKE && !server->has_mail);
    server->step = STEP_COMMAND;
    server->input = SLICE_EMPTY;
    server->since_ms = now_ms;
    server->now_ms = now_ms;
    start_over(server);
    server->is_secure = true;
}

void smtp_server_set_trusted(struct smtp_server *server, bool is_trusted)
{
    server->is_trusted = is_trusted;
}

void smtp_server_tell_login(struct smtp_server *server, bool has_login)
{
    server->has_told_login = has_login;
}

/* ---- state ------------------------------------------------------------------------------- */

struct slice smtp_server_unread(const struct smtp_server *server)
{
    return server->step >= STEP_CLOSING ? SLICE_EMPTY : server->input;
}

bool smtp_server_wants_input(const struct smtp_server *server)
{
    return server->step != STEP_ANSWER && server->step != STEP_HANDSHAKE &&
           server->step < STEP_CLOSING && server->output.length <= OUTPUT_HIGH;
}

struct slice smtp_server_output(const struct smtp_server *server)
{
    return buffer_slice(&server->output);
}

void smtp_server_sent(struct smtp_server *server, size_t count)
{
    if (count < server->output.length) {
        buffer_consume(&server->output, count);
        return;
    }
    bool failed = server->output.failed;
    buffer_done(&server->output); /* an idle session holds no buffer */
    server->output.failed = failed;
}

int64_t smtp_server_deadline(const struct smtp_server *server)
{
    const struct smtp_server_settings *settings = server->settings;
    int64_t command = INT64_MAX, session = INT64_MAX;
    if (server->step == STEP_ANSWER || server->step == STEP_HANDSHAKE ||
        server->step >= STEP_CLOSING) {
        return INT64_MAX;
    }
    if (settings->command_timeout_ms != 0) {
        command = server->since_ms + settings->command_timeout_ms;
    }
    if (settings->session_timeout_ms != 0) {
        /* A transaction that has begun in time is let end. */
        session = server->start_ms + settings->session_timeout_ms +
                  (server->has_mail ? settings->command_timeout_ms : 0);
    }
    return command < session ? command : session;
}

void smtp_server_expire(struct smtp_server *server)
{
    if (server->step != STEP_ANSWER && server->step != STEP_HANDSHAKE &&
        server->step < STEP_CLOSING) {
        smtp_server_reply_goodbye(server, "421 4.4.2 ", "Timeout, closing connection");
        server->step = STEP_CLOSING;
    }
}

void smtp_server_end(struct smtp_server *server, const struct smtp_answer *answer)
{
    assert(server->step != STEP_ANSWER);
    if (server->step == STEP_HANDSHAKE) {
        server->step = STEP_CLOSING; /* nothing can be said in the clear any more */
    } else if (server->step < STEP_CLOSING) {
        smtp_server_reply_answer(server, answer, "421 4.3.2 Closing connection");
        server->step = STEP_CLOSING;
    }
}

bool smtp_server_is_asked(const struct smtp_server *server)
{
    return server->step == STEP_ANSWER;
}

bool smtp_server_is_idle(const struct smtp_server *server)
{
    return server->step == STEP_COMMAND && !server->has_mail && server->input.length == 0;
}
