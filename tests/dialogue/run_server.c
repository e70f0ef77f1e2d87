/* SPDX-License-Identifier: Apache-2.0
 *
 * Plays dialogue scripts (*.smtp) against the SMTP server core: the script is the client, the clock
 * and the caller. Each script runs three times: with each C: line as one piece of input, with
 * adjacent C: lines as one piece, and byte by byte; all must go the same way.
 *
 *   set KEY VALUE       before anything else: recipients commands errors size line header hops
 *                       reject-bare relay-client odmr submission auth secure trusted
 *                       told-login
 *                       command-timeout session-timeout starttls
 *   C: LINE             the client sends LINE and CRLF
 *   C\ TEXT             the client sends TEXT with the escapes \r \n \0 \\ \xHH, no CRLF
 *   fill COUNT CHARACTER   the client sends so many of them
 *   S: LINE             the next reply line; a trailing * matches any rest
 *   S- none             no reply has come
 *   answer REPLY        how the next question is answered ("550 5.7.1 Not here"); default: yes
 *   later               the next question is not answered until "now"
 *   now REPLY           answers it ("now" alone: yes)
 *   E: WORDS            the next event, in words; a script with one such line lists all of them
 *   content TEXT        all content since the last such line, with escapes
 *   wait MS             time passes; "expired" must follow where the deadline is passed
 *   expired             the deadline has passed: the core is told so
 *   secured             after STARTTLS: hands are shaken
 *   idle | busy         what smtp_server_is_idle() says
 *   end REPLY           smtp_server_end()
 */
#include <stdio.h>
#include <string.h>

#include "dialogue/script.h"
#include "proto/smtp_server.h"

struct play {
    struct script script;
    struct smtp_server_settings settings;
    struct smtp_server server;
    unsigned offers; /* SMTP_OFFER_* */
    bool has_tls;    /* and then: */
    bool requiretls; /* it is offered */
    bool is_secure, is_trusted;
    bool tells_login; /* XCLIENT's client has logged in */
    bool begun;
    struct buffer unread; /* left by the core */
    struct buffer content;
    char answer[600];
    bool answers_later;
    bool waits; /* a question is open */
    bool lists_events;
    int64_t now;
};

/* ---- the caller's side -------------------------------------------------------------------- */

static void give_answer(struct play *play, const char *text)
{
    struct smtp_answer answer = {0};
    char enhanced[12] = "";
    int used = 0;
    unsigned code = 0;
    if (sscanf(text, "%3u %11[0-9.] %n", &code, enhanced, &used) == 2 && used > 0) {
        answer.code = (uint16_t)code;
        answer.enhanced = enhanced;
        answer.text = slice_from_text(text + used);
    } else if (text[0] != '\0') {
        script_fail(&play->script, "bad answer \"%s\"", text);
    }
    smtp_server_answer(&play->server, &answer, play->now);
    play->waits = false;
}

static void print_mailbox(struct play *play, const char *word, const struct smtp_mailbox *box)
{
    buffer_printf(&play->script.events, "%s <%.*s>%s", word, SLICE_PRINT(box->text),
                  box->is_utf8 ? " utf8" : "");
}

static void print_mail(struct play *play, const struct smtp_server_event *event)
{
    struct buffer *events = &play->script.events;
    print_mailbox(play, "mail", &event->mailbox);
    if (event->size != 0) {
        buffer_printf(events, " size=%llu", (unsigned long long)event->size);
    }
    buffer_printf(events, "%s%s%s%s", event->is_8bit ? " 8bit" : "",
                  event->is_smtputf8 ? " smtputf8" : "",
                  event->ret == SMTP_RET_FULL ? " ret=full" : "",
                  event->ret == SMTP_RET_HEADERS ? " ret=headers" : "");
    if (event->envelope_id.length > 0) {
        buffer_printf(events, " envid=%.*s", SLICE_PRINT(event->envelope_id));
    }
    if (event->deliver_by.mode != 0) {
        buffer_printf(events, " by=%d;%c%s", (int)event->deliver_by.in_s, event->deliver_by.mode,
                      event->deliver_by.is_traced ? "T" : "");
    }
    if (event->has_priority) {
        buffer_printf(events, " priority=%d", event->priority);
    }
    if (event->requires_tls) {
        buffer_append_text(events, " requiretls");
    }
    if (event->is_forwarded) {
        buffer_append_text(events, " forwarded");
    }
}

static void print_end(struct play *play, const struct smtp_content *content)
{
    buffer_printf(&play->script.events,
                  "end header=%llu body=%llu received=%u bare=%llu%s%s id=%.*s",
                  (unsigned long long)smtp_content_header_length(content),
                  (unsigned long long)(content->length - smtp_content_header_length(content)),
                  content->header.received, (unsigned long long)content->bare_newlines,
                  content->has_8bit ? " 8bit" : "", content->header.has_8bit ? " 8bit-header" : "",
                  SLICE_PRINT(smtp_header_message_id(&content->header)));
}

static void print_event(struct play *play, const struct smtp_server_event *event)
{
    struct buffer *events = &play->script.events;
    switch (event->kind) {
    case SMTP_SERVER_NONE:
    case SMTP_SERVER_CONTENT:
        return;
    case SMTP_SERVER_GREETING:
        buffer_append_text(events, "greeting");
        break;
    case SMTP_SERVER_HELLO:
        buffer_printf(events, "%s %.*s", event->is_extended ? "ehlo" : "helo",
                      SLICE_PRINT(event->name));
        break;
    case SMTP_SERVER_MAIL:
        print_mail(play, event);
        break;
    case SMTP_SERVER_RECIPIENT:
        print_mailbox(play, "rcpt", &event->mailbox);
        if (event->notify != 0) {
            buffer_printf(events, " notify=%u", event->notify);
        }
        if (event->orcpt.length > 0) {
            buffer_printf(events, " orcpt=%.*s", SLICE_PRINT(event->orcpt));
        }
        break;
    case SMTP_SERVER_DATA:
        buffer_append_text(events, "data");
        break;
    case SMTP_SERVER_END:
        print_end(play, event->content);
        break;
    case SMTP_SERVER_ETRN:
        buffer_printf(events, "etrn %.*s%s", SLICE_PRINT(event->name),
                      event->with_subdomains ? " and below" : "");
        break;
    case SMTP_SERVER_AUTH:
        buffer_printf(events, "auth %s%s%.*s", sasl_name(event->mechanism),
                      event->has_response ? " with " : "", SLICE_PRINT(event->bytes));
        break;
    case SMTP_SERVER_RESPONSE:
        buffer_printf(events, "response %.*s", SLICE_PRINT(event->bytes));
        break;
    case SMTP_SERVER_STARTTLS:
        buffer_append_text(events, "starttls");
        break;
    case SMTP_SERVER_XCLIENT:
        buffer_printf(events, "xclient %.*s", SLICE_PRINT(event->bytes));
        break;
    case SMTP_SERVER_XFORWARD:
        buffer_printf(events, "xforward %.*s%s", SLICE_PRINT(event->bytes),
                      event->is_forwarded ? " and more" : "");
        break;
    case SMTP_SERVER_ATRN:
        buffer_printf(events, "atrn%s%.*s", event->name.length > 0 ? " " : "",
                      SLICE_PRINT(event->name));
        break;
    case SMTP_SERVER_ABORT:
        buffer_printf(events, "abort %s", event->reason);
        break;
    case SMTP_SERVER_CLOSE:
        buffer_append_text(events, "close");
        break;
    }
    buffer_append_text(events, "\n");
}

static void take_output(struct play *play)
{
    struct slice output = smtp_server_output(&play->server);
    buffer_append(&play->script.wire, output);
    smtp_server_sent(&play->server, output.length);
}

static void take_events(struct play *play)
{
    struct smtp_server_event event;
    while (smtp_server_next(&play->server, &event)) {
        print_event(play, &event);
        take_output(play);
        if (event.kind == SMTP_SERVER_CONTENT) {
            buffer_append(&play->content, event.bytes);
        }
        if (event.kind == SMTP_SERVER_CONTENT || event.kind == SMTP_SERVER_ABORT ||
            event.kind == SMTP_SERVER_CLOSE) {
            continue;
        }
        if (event.kind == SMTP_SERVER_HELLO) {
            unsigned by_tls = play->requiretls && play->has_tls ? SMTP_OFFER_REQUIRETLS : 0;
            smtp_server_offer(&play->server, play->offers | by_tls);
        }
        if (event.kind == SMTP_SERVER_XCLIENT) {
            smtp_server_tell_login(&play->server, play->tells_login);
        }
        if (play->answers_later) {
            play->answers_later = false;
            play->waits = true;
            continue;
        }
        give_answer(play, play->answer);
        play->answer[0] = '\0';
    }
    take_output(play);
}

static void run(void *context, struct slice bytes)
{
    struct play *play = context;
    struct buffer all;
    buffer_init(&all, 0);
    buffer_append(&all, buffer_slice(&play->unread));
    buffer_append(&all, bytes);
    buffer_clear(&play->unread);
    smtp_server_input(&play->server, buffer_slice(&all), play->now);
    take_events(play);
    buffer_append(&play->unread, smtp_server_unread(&play->server));
    buffer_done(&all);
    smtp_server_input(&play->server, SLICE_EMPTY, play->now);
    if (smtp_server_wants_input(&play->server) && play->unread.length > SMTP_COMMAND_LINE_MAX) {
        script_fail(&play->script, "%zu bytes left unread", play->unread.length);
    }
}

static void begin(struct play *play)
{
    if (!play->begun) {
        play->begun = true;
        smtp_server_init(&play->server, &play->settings, play->now);
        smtp_server_set_secure(&play->server, play->is_secure);
        smtp_server_set_trusted(&play->server, play->is_trusted);
        take_events(play);
    }
}

/* ---- the script --------------------------------------------------------------------------- */

static bool is(struct slice word, const char *text)
{
    return slice_equal(word, slice_from_text(text));
}

static uint64_t take_number(struct play *play, struct slice *rest)
{
    uint64_t number;
    if (!slice_to_u64(script_word(rest), &number)) {
        script_fail(&play->script, "a number is missing");
    }
    return number;
}

static void set(struct play *play, struct slice rest)
{
    struct smtp_server_settings *s = &play->settings;
    struct {
        const char *key;
        uint32_t *at;
    } numbers[] = {{"recipients", &s->recipients},
                   {"commands", &s->commands},
                   {"errors", &s->errors},
                   {"line", &s->line_bytes},
                   {"header", &s->header_bytes},
                   {"hops", &s->hops},
                   {"command-timeout", &s->command_timeout_ms},
                   {"session-timeout", &s->session_timeout_ms}};
    struct slice key = script_word(&rest);
    uint64_t value = take_number(play, &rest);
    if (play->begun) {
        script_fail(&play->script, "set KEY VALUE, before anything else");
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (is(key, numbers[i].key)) {
            *numbers[i].at = (uint32_t)value;
            return;
        }
    }
    if (is(key, "size")) {
        s->message_bytes = value;
    } else if (is(key, "reject-bare")) {
        s->reject_bare_newline = value != 0;
    } else if (is(key, "odmr")) {
        s->odmr = value != 0;
        s->clear_mechanisms = 1u << SASL_CRAM_MD5;
        s->mechanisms = s->clear_mechanisms | (value > 1 ? 1u << SASL_PLAIN : 0);
    } else if (is(key, "starttls")) {
        s->starttls = value != 0;
    } else if (is(key, "submission")) {
        s->submission = value != 0;
    } else if (is(key, "auth")) {
        s->mechanisms =
            1u << SASL_PLAIN | 1u << SASL_LOGIN | (value > 1 ? 1u << SASL_SCRAM_SHA_256 : 0);
    } else if (is(key, "trusted")) {
        play->is_trusted = value != 0;
    } else if (is(key, "told-login")) {
        play->tells_login = value != 0;
    } else if (is(key, "secure")) {
        play->is_secure = value != 0;
    } else if (is(key, "relay-client")) {
        play->offers = value != 0 ? SMTP_OFFER_DSN | SMTP_OFFER_DELIVERBY | SMTP_OFFER_PRIORITY : 0;
    } else if (is(key, "requiretls")) {
        play->requiretls = value != 0;
    } else {
        script_fail(&play->script, "unknown key %.*s", SLICE_PRINT(key));
    }
}

static void expect_content(struct play *play, struct slice text)
{
    struct buffer wanted;
    buffer_init(&wanted, 0);
    script_unescape(&play->script, &wanted, text);
    if (!slice_equal(buffer_slice(&wanted), buffer_slice(&play->content))) {
        script_fail(&play->script, "content is \"%.*s\"",
                    SLICE_PRINT(buffer_slice(&play->content)));
    }
    buffer_done(&wanted);
    buffer_clear(&play->content);
}

static void fill(struct play *play, struct buffer *to, struct slice rest)
{
    uint64_t count = take_number(play, &rest);
    if (rest.length != 1) {
        script_fail(&play->script, "fill COUNT CHARACTER");
    }
    for (; count > 0; count--) {
        buffer_append(to, rest);
    }
}

/* True if the word gives the core something from the client. */
static bool give(struct play *play, struct slice word, struct slice rest)
{
    struct buffer bytes;
    buffer_init(&bytes, 0);
    if (is(word, "C:")) {
        buffer_append(&bytes, rest);
        buffer_append_text(&bytes, "\r\n");
    } else if (is(word, "C\\")) {
        script_unescape(&play->script, &bytes, rest);
    } else if (is(word, "fill")) {
        fill(play, &bytes, rest);
    } else {
        buffer_done(&bytes);
        return false;
    }
    script_give(&play->script, buffer_slice(&bytes));
    buffer_done(&bytes);
    return true;
}

static void expire(struct play *play)
{
    if (smtp_server_deadline(&play->server) > play->now) {
        script_fail(&play->script, "the deadline is %lld ms ahead",
                    (long long)(smtp_server_deadline(&play->server) - play->now));
    }
    smtp_server_expire(&play->server);
    take_events(play);
}

static void direct(struct play *play, struct slice word, struct slice rest)
{
    if (is(word, "answer")) {
        snprintf(play->answer, sizeof(play->answer), "%.*s", SLICE_PRINT(rest));
    } else if (is(word, "later")) {
        play->answers_later = true;
    } else if (is(word, "now")) {
        char text[sizeof(play->answer)];
        if (!play->waits) {
            script_fail(&play->script, "no question is open");
        }
        snprintf(text, sizeof(text), "%.*s", SLICE_PRINT(rest));
        give_answer(play, text);
        run(play, SLICE_EMPTY);
    } else if (is(word, "wait")) {
        play->now += (int64_t)take_number(play, &rest);
    } else if (is(word, "expired")) {
        expire(play);
    } else if (is(word, "secured")) {
        if (!smtp_server_wants_handshake(&play->server)) {
            script_fail(&play->script, "nobody wants to shake hands");
        }
        play->has_tls = true;
        smtp_server_secured(&play->server, play->now);
        take_events(play);
    } else if (is(word, "idle") || is(word, "busy")) {
        if (smtp_server_is_idle(&play->server) != is(word, "idle")) {
            script_fail(&play->script, "it is not %.*s", SLICE_PRINT(word));
        }
    } else if (is(word, "end")) {
        struct smtp_answer answer = {421, "4.3.2", rest};
        smtp_server_end(&play->server, &answer);
        take_events(play);
    } else {
        script_fail(&play->script, "unknown word %.*s", SLICE_PRINT(word));
    }
}

static void play_line(struct play *play, struct slice rest)
{
    struct script *script = &play->script;
    struct slice word = script_word(&rest);
    if (is(word, "set")) {
        set(play, rest);
        return;
    }
    if (!is(word, "answer") && !is(word, "later")) {
        begin(play);
    }
    if (give(play, word, rest)) {
        return;
    }
    script_flush(script);
    if (is(word, "S:")) {
        script_expect_like(script, &script->wire, "\r\n", rest);
    } else if (is(word, "S-")) {
        if (script->wire.length > 0) {
            script_fail(script, "a reply has come");
        }
    } else if (is(word, "E:")) {
        play->lists_events = true;
        script_expect_like(script, &script->events, "\n", rest);
    } else if (is(word, "content")) {
        expect_content(play, rest);
    } else {
        direct(play, word, rest);
    }
}

static void play_script(const char *path, struct slice text, enum script_mode mode)
{
    struct play play = {.now = 1000};
    struct script *script = &play.script;
    script_init(script, path, text, mode, run, &play);
    buffer_init(&play.unread, 0);
    buffer_init(&play.content, 0);
    play.settings = (struct smtp_server_settings){
        .hostname = SLICE_LITERAL("mx.example.net"),
        .message_bytes = 1000000,
        .recipients = 100,
        .commands = 1000,
        .errors = 20,
        .line_bytes = 100000,
        .header_bytes = 100000,
        .hops = 100,
        .command_timeout_ms = 300000,
        .session_timeout_ms = 3600000,
    };
    for (struct slice line; script_next(script, &line);) {
        play_line(&play, line);
    }
    script_flush(script);
    if (script->wire.length > 0 || (play.lists_events && script->events.length > 0)) {
        script_fail(script, "more has come than was expected");
    }
    smtp_server_done(&play.server);
    buffer_done(&play.unread);
    buffer_done(&play.content);
    script_done(script);
}

int main(int count, char **arguments)
{
    return script_main(count - 1, arguments + 1, play_script);
}
