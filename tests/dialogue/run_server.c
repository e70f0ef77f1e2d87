/* SPDX-License-Identifier: Apache-2.0
 *
 * Plays dialogue scripts (*.smtp) against the SMTP server core: the script is the client, the clock
 * and the caller. Each script runs three times: with each C: line as one piece of input, with
 * adjacent C: lines as one piece, and byte by byte; all must go the same way.
 *
 *   set KEY VALUE       before anything else: recipients commands errors size line header hops
 *                       reject-bare dsn command-timeout session-timeout
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
 *   idle | busy         what smtp_server_is_idle() says
 *   end REPLY           smtp_server_end()
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/smtp_server.h"

enum mode { MODE_LINES, MODE_JOINED, MODE_BYTES };

struct play {
    const char *path;
    unsigned line;
    enum mode mode;
    struct smtp_server_settings settings;
    struct smtp_server server;
    bool offers_dsn;
    bool begun;
    struct buffer pending; /* of C: lines not yet given, MODE_JOINED */
    struct buffer unread;  /* left by the core */
    struct buffer wire;    /* replies not yet expected */
    struct buffer events;  /* as lines of text, not yet expected */
    struct buffer content;
    char answer[600];
    bool answers_later;
    bool waits; /* a question is open */
    bool lists_events;
    int64_t now;
};

static _Noreturn void fail(const struct play *play, const char *format, ...)
{
    static const char *const modes[] = {"lines", "joined", "bytes"};
    va_list arguments;
    fprintf(stderr, "%s:%u (%s): ", play->path, play->line, modes[play->mode]);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nreplies: %.*s\nevents: %.*s\n", SLICE_PRINT(buffer_slice(&play->wire)),
            SLICE_PRINT(buffer_slice(&play->events)));
    exit(1);
}

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
        fail(play, "bad answer \"%s\"", text);
    }
    smtp_server_answer(&play->server, &answer, play->now);
    play->waits = false;
}

static void print_mailbox(struct play *play, const char *word, const struct smtp_mailbox *box)
{
    buffer_printf(&play->events, "%s <%.*s>%s", word, SLICE_PRINT(box->text),
                  box->is_utf8 ? " utf8" : "");
}

static void print_mail(struct play *play, const struct smtp_server_event *event)
{
    struct buffer *events = &play->events;
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
}

static void print_end(struct play *play, const struct smtp_content *content)
{
    buffer_printf(&play->events, "end header=%llu body=%llu received=%u bare=%llu%s%s id=%.*s",
                  (unsigned long long)smtp_content_header_length(content),
                  (unsigned long long)(content->length - smtp_content_header_length(content)),
                  content->header.received, (unsigned long long)content->bare_newlines,
                  content->has_8bit ? " 8bit" : "", content->header.has_8bit ? " 8bit-header" : "",
                  SLICE_PRINT(smtp_header_message_id(&content->header)));
}

static void print_event(struct play *play, const struct smtp_server_event *event)
{
    struct buffer *events = &play->events;
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
    buffer_append(&play->wire, output);
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
            smtp_server_offer_dsn(&play->server, play->offers_dsn);
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

static void run(struct play *play, struct slice bytes)
{
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
        fail(play, "%zu bytes left unread", play->unread.length);
    }
}

static void flush(struct play *play)
{
    if (!play->begun) {
        play->begun = true;
        smtp_server_init(&play->server, &play->settings, play->now);
        take_events(play);
    }
    struct slice all = buffer_slice(&play->pending);
    size_t piece = play->mode == MODE_BYTES ? 1 : all.length;
    for (; all.length > 0; all = slice_skip(all, piece)) {
        run(play, slice_take(all, piece));
    }
    buffer_clear(&play->pending);
}

/* ---- the script --------------------------------------------------------------------------- */

static void append_escaped(struct play *play, struct buffer *to, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned byte = (unsigned char)*text;
        if (*text == '\\') {
            text++;
            if (*text == 'x' && sscanf(text + 1, "%2x", &byte) == 1) {
                text += 2;
            } else if (*text == 'r' || *text == 'n' || *text == '0' || *text == '\\') {
                byte = *text == 'r' ? '\r' : *text == 'n' ? '\n' : *text == '0' ? '\0' : '\\';
            } else {
                fail(play, "bad escape");
            }
        }
        buffer_put_u8(to, (uint8_t)byte);
    }
}

static void expect_line(struct play *play, struct buffer *from, const char *end,
                        const char *pattern)
{
    struct slice all = buffer_slice(from);
    size_t length = slice_find(all, '\n');
    size_t mark = strlen(end);
    if (length == all.length || length + 1 < mark) {
        fail(play, "expected \"%s\", nothing came", pattern);
    }
    struct slice line = slice_take(all, length + 1 - mark);
    struct slice wanted = slice_from_text(pattern);
    if (wanted.length > 0 && wanted.data[wanted.length - 1] == '*') {
        wanted.length--;
        line = slice_take(line, wanted.length);
    }
    if (!slice_equal(line, wanted) || memcmp(all.data + length + 1 - mark, end, mark) != 0) {
        fail(play, "expected \"%s\"", pattern);
    }
    buffer_consume(from, length + 1);
}

static void set(struct play *play, const char *key, uint64_t value)
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
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (strcmp(key, numbers[i].key) == 0) {
            *numbers[i].at = (uint32_t)value;
            return;
        }
    }
    if (strcmp(key, "size") == 0) {
        s->message_bytes = value;
    } else if (strcmp(key, "reject-bare") == 0) {
        s->reject_bare_newline = value != 0;
    } else if (strcmp(key, "dsn") == 0) {
        play->offers_dsn = value != 0;
    } else {
        fail(play, "unknown key %s", key);
    }
}

static void expect_content(struct play *play, const char *text)
{
    struct buffer wanted;
    buffer_init(&wanted, 0);
    append_escaped(play, &wanted, text);
    if (!slice_equal(buffer_slice(&wanted), buffer_slice(&play->content))) {
        fail(play, "content is \"%.*s\"", SLICE_PRINT(buffer_slice(&play->content)));
    }
    buffer_done(&wanted);
    buffer_clear(&play->content);
}

static void send_line(struct play *play, const char *word, const char *rest)
{
    if (strcmp(word, "C:") == 0) {
        buffer_append_text(&play->pending, rest);
        buffer_append_text(&play->pending, "\r\n");
    } else if (strcmp(word, "C\\") == 0) {
        append_escaped(play, &play->pending, rest);
    } else {
        unsigned count = 0;
        char c = '\0';
        if (sscanf(rest, "%u %c", &count, &c) != 2) {
            fail(play, "fill COUNT CHARACTER");
        }
        while (count-- > 0) {
            buffer_put_u8(&play->pending, (uint8_t)c);
        }
    }
    if (play->mode != MODE_JOINED) {
        flush(play);
    }
}

static void expire(struct play *play)
{
    if (smtp_server_deadline(&play->server) > play->now) {
        fail(play, "the deadline is %lld ms ahead",
             (long long)(smtp_server_deadline(&play->server) - play->now));
    }
    smtp_server_expire(&play->server);
    take_events(play);
}

static void direct(struct play *play, const char *word, const char *rest)
{
    if (strcmp(word, "answer") == 0) {
        snprintf(play->answer, sizeof(play->answer), "%s", rest);
    } else if (strcmp(word, "later") == 0) {
        play->answers_later = true;
    } else if (strcmp(word, "now") == 0) {
        if (!play->waits) {
            fail(play, "no question is open");
        }
        give_answer(play, rest);
        run(play, SLICE_EMPTY);
    } else if (strcmp(word, "wait") == 0) {
        play->now += atoll(rest);
    } else if (strcmp(word, "expired") == 0) {
        expire(play);
    } else if (strcmp(word, "idle") == 0 || strcmp(word, "busy") == 0) {
        if (smtp_server_is_idle(&play->server) != (word[0] == 'i')) {
            fail(play, "it is not %s", word);
        }
    } else if (strcmp(word, "end") == 0) {
        struct smtp_answer answer = {421, "4.3.2", slice_from_text(rest)};
        smtp_server_end(&play->server, &answer);
        take_events(play);
    } else {
        fail(play, "unknown word %s", word);
    }
}

static void play_line(struct play *play, char *line)
{
    char *word = line;
    char *rest = strchr(line, ' ');
    rest = rest == NULL ? line + strlen(line) : (*rest = '\0', rest + 1);
    if (strcmp(word, "set") == 0) {
        char key[32] = "";
        unsigned long long value = 0;
        if (sscanf(rest, "%31s %llu", key, &value) != 2 || play->begun) {
            fail(play, "set KEY VALUE, before anything else");
        }
        set(play, key, value);
        return;
    }
    if (!play->begun && strcmp(word, "answer") != 0 && strcmp(word, "later") != 0) {
        flush(play);
    }
    if (strcmp(word, "C:") == 0 || strcmp(word, "C\\") == 0 || strcmp(word, "fill") == 0) {
        send_line(play, word, rest);
        return;
    }
    if (play->begun) {
        flush(play);
    }
    if (strcmp(word, "S:") == 0) {
        expect_line(play, &play->wire, "\r\n", rest);
    } else if (strcmp(word, "S-") == 0) {
        if (play->wire.length > 0) {
            fail(play, "a reply has come");
        }
    } else if (strcmp(word, "E:") == 0) {
        expect_line(play, &play->events, "\n", rest);
    } else if (strcmp(word, "content") == 0) {
        expect_content(play, rest);
    } else {
        direct(play, word, rest);
    }
}

static void play_file(struct play *play)
{
    char line[8192];
    FILE *file = fopen(play->path, "r");
    if (file == NULL) {
        perror(play->path);
        exit(1);
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        play->line++;
        line[strcspn(line, "\n")] = '\0';
        play->lists_events = play->lists_events || strncmp(line, "E:", 2) == 0;
        if (line[0] != '\0' && line[0] != '#') {
            play_line(play, line);
        }
    }
    fclose(file);
    flush(play);
    if (play->wire.length > 0 || (play->lists_events && play->events.length > 0)) {
        fail(play, "more has come than was expected");
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s SCRIPT\n", argv[0]);
        return 2;
    }
    for (int mode = MODE_LINES; mode <= MODE_BYTES; mode++) {
        struct play play = {.path = argv[1], .mode = (enum mode)mode, .now = 1000};
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
        play_file(&play);
        smtp_server_done(&play.server);
        buffer_done(&play.pending);
        buffer_done(&play.unread);
        buffer_done(&play.wire);
        buffer_done(&play.events);
        buffer_done(&play.content);
    }
    return 0;
}
