/* SPDX-License-Identifier: Apache-2.0
 *
 * Plays dialogue scripts (*.client) against the SMTP client core: the script is the server, the
 * clock and the caller. Each script runs three times: with each S: line as one piece of input, with
 * adjacent S: lines as one piece, and byte by byte; all must go the same way.
 *
 *   protocol lmtp              before anything else; default smtp
 *   login USER PASSWORD [clear]  before anything else: credentials, to be shown bare or not
 *   envelope WORD ...          parameters of the next mail: 8bit utf8 ret=full ret=hdrs envid=X
 *                              notify=BITS orcpt=X (the last two: of every recipient)
 *   content TAG TEXT           content of TAG, escapes \r \n \\ \xHH; "content TAG" alone: empty
 *   fill TAG LINES             its content: so many lines of 76 octets; the 3rd begins with a dot
 *   unreadable TAG OFFSET      its content cannot be read from OFFSET on
 *   mail TAG <SENDER> <RECIPIENT> ...
 *   go TAG | quit | abort | cut
 *   again TAG                  mail is refused: busy
 *   S: LINE                    the server sends LINE and CRLF;  S\ TEXT: with escapes, no CRLF
 *   C: LINE                    the next line the client has sent;  C* N: any N further lines
 *   sends N                    only so many more bytes leave from now on;  sends all
 *   pass SECONDS               nothing happens for that long, and the client waits on
 *   timeout SECONDS            nothing happens for that long, and the client gives up just then
 *   silent                     the client has sent nothing more
 *   anything else              the next event in words, a trailing * matches any rest:
 *                              "opened PIPELINING SIZE=5", "started 1", "result 1 reused",
 *                              "- accepted dot reply 250 2.0.0 queued", "closed idle lost: text"
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "proto/smtp_client.h"

enum { TAGS = 10, WORDS_MAX = 400 };
enum mode { MODE_LINES, MODE_JOINED, MODE_BYTES };

struct play {
    const char *path;
    unsigned line;
    enum mode mode;
    struct smtp_client *client;
    struct arena arena;
    struct smtp_client_mail envelope;
    uint8_t notify;
    struct slice orcpt;
    struct buffer content[TAGS];
    uint64_t unreadable[TAGS];
    struct buffer pending; /* of S: lines not yet given, MODE_JOINED */
    struct buffer wire;    /* what the client has sent, not yet expected */
    struct buffer events;  /* as lines of text, not yet expected */
    size_t allowance;
    int64_t now;
    bool lmtp;
    struct smtp_client_credentials credentials;
};

static _Noreturn void fail(const struct play *play, const char *format, ...)
{
    static const char *const modes[] = {"lines", "joined", "bytes"};
    va_list arguments;
    fprintf(stderr, "%s:%u (%s): ", play->path, play->line, modes[play->mode]);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nsent: %.*s\nevents: %.*s\n", SLICE_PRINT(buffer_slice(&play->wire)),
            SLICE_PRINT(buffer_slice(&play->events)));
    exit(1);
}

/* ---- the client's side -------------------------------------------------------------------- */

static const char *const stages[] = {"greeting",  "hello", "tls",     "auth", "mail",
                                     "recipient", "data",  "content", "dot",  "idle"};
static const char *const hows[] = {"reply", "lost", "timeout", "local"};
static const char *const verdicts[] = {"accepted", "refused", "not-tried", "cut", "in-doubt"};

static void print_cause(struct play *play, const struct smtp_client_cause *cause)
{
    struct buffer *events = &play->events;
    buffer_printf(events, "%s %s", stages[cause->stage], hows[cause->how]);
    if (cause->how != SMTP_CLIENT_REPLY) {
        buffer_printf(events, ": %.*s\n", SLICE_PRINT(cause->text));
        return;
    }
    buffer_printf(events, " %u", cause->code);
    if (cause->enhanced[0] != 0) {
        buffer_printf(events, " %u.%u.%u", cause->enhanced[0], cause->enhanced[1],
                      cause->enhanced[2]);
    }
    buffer_printf(events, " %.*s\n", SLICE_PRINT(cause->text));
}

static void print_opened(struct play *play, const struct smtp_client_capabilities *capabilities)
{
    static const char *const flags[] = {"8BITMIME", "SMTPUTF8", "DSN",     "PIPELINING",
                                        "CHUNKING", NULL,       "STARTTLS"};
    buffer_append_text(&play->events, "opened");
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if ((capabilities->flags & 1U << i) && flags[i] != NULL) {
            buffer_printf(&play->events, " %s", flags[i]);
        }
    }
    if (capabilities->flags & SMTP_CLIENT_CAP_SIZE) {
        buffer_printf(&play->events, " SIZE=%llu", (unsigned long long)capabilities->size_limit);
    }
    if (capabilities->recipients_max > 0) {
        buffer_printf(&play->events, " RCPTMAX=%u", capabilities->recipients_max);
    }
    if (capabilities->mails_max > 0) {
        buffer_printf(&play->events, " MAILMAX=%u", capabilities->mails_max);
    }
    buffer_append_text(&play->events, "\n");
}

static void give_content(struct play *play, uint64_t tag, uint64_t offset)
{
    struct slice content = buffer_slice(&play->content[tag]);
    struct slice piece = slice_take(slice_skip(content, offset), SMTP_CLIENT_PIECE_MAX);
    if (offset + piece.length > play->unreadable[tag]) {
        smtp_client_content_failed(play->client, SLICE_LITERAL("unreadable"));
    } else {
        smtp_client_content(play->client, piece, play->now);
    }
}

static void take_event(struct play *play, const struct smtp_client_event *event)
{
    switch (event->kind) {
    case SMTP_CLIENT_OPENED:
        print_opened(play, &event->capabilities);
        break;
    case SMTP_CLIENT_STARTED:
        buffer_printf(&play->events, "started %u\n", (unsigned)event->tag);
        break;
    case SMTP_CLIENT_CONTENT:
        give_content(play, event->tag, event->offset);
        break;
    case SMTP_CLIENT_RESULT:
        buffer_printf(&play->events, "result %u%s\n", (unsigned)event->tag,
                      event->reused ? " reused" : "");
        for (uint32_t i = 0; i < event->outcome_count; i++) {
            buffer_printf(&play->events, "- %s ", verdicts[event->outcomes[i].verdict]);
            print_cause(play, &event->outcomes[i].cause);
        }
        break;
    case SMTP_CLIENT_CLOSED:
        buffer_append_text(&play->events, "closed ");
        print_cause(play, &event->cause);
        break;
    }
}

/* What a caller does after each verb. */
static void settle(struct play *play)
{
    for (bool busy = true; busy;) {
        busy = false;
        struct smtp_client_event event;
        while (smtp_client_next(play->client, &event)) {
            take_event(play, &event);
        }
        struct slice output = slice_take(smtp_client_output(play->client), play->allowance);
        if (output.length > 0) {
            buffer_append(&play->wire, output);
            play->allowance -= play->allowance == SIZE_MAX ? 0 : output.length;
            smtp_client_sent(play->client, output.length, play->now);
            busy = true;
        }
    }
}

static void start(struct play *play)
{
    if (play->client == NULL) {
        struct smtp_client_settings settings = {.helo = SLICE_LITERAL("mx2.example.net"),
                                                .lmtp = play->lmtp,
                                                .greeting_timeout_ms = 60000,
                                                .credentials = play->credentials};
        play->client = smtp_client_new(&settings, play->now);
        settle(play);
    }
}

/* ---- the script --------------------------------------------------------------------------- */

static struct slice unescape(struct play *play, struct slice text)
{
    uint8_t *to = arena_allocate(&play->arena, text.length + 1);
    size_t length = 0;
    for (size_t i = 0; i < text.length; i++) {
        if (text.data[i] != '\\' || i + 1 == text.length) {
            to[length++] = text.data[i];
            continue;
        }
        uint8_t c = text.data[++i];
        if (c == 'x') {
            char digits[3] = {(char)text.data[i + 1], (char)text.data[i + 2], 0};
            to[length++] = (uint8_t)strtoul(digits, NULL, 16);
            i += 2;
        } else {
            to[length++] = c == 'r' ? '\r' : c == 'n' ? '\n' : c;
        }
    }
    return slice_make(to, length);
}

static struct slice take_word(struct slice *rest)
{
    size_t end = slice_find(*rest, ' ');
    struct slice word = slice_take(*rest, end);
    *rest = slice_skip(*rest, end + 1);
    return word;
}

static uint64_t take_number(struct play *play, struct slice *rest)
{
    uint64_t number;
    if (!slice_to_u64(take_word(rest), &number)) {
        fail(play, "a number is missing");
    }
    return number;
}

static uint64_t take_tag(struct play *play, struct slice *rest)
{
    uint64_t tag = take_number(play, rest);
    if (tag >= TAGS) {
        fail(play, "no such tag");
    }
    return tag;
}

static void do_envelope(struct play *play, struct slice rest)
{
    while (rest.length > 0) {
        struct slice word = take_word(&rest);
        size_t equals = slice_find(word, '=');
        struct slice name = slice_take(word, equals);
        struct slice value = arena_copy(&play->arena, slice_skip(word, equals + 1));
        if (slice_equal(name, SLICE_LITERAL("8bit"))) {
            play->envelope.eight_bit = true;
        } else if (slice_equal(name, SLICE_LITERAL("utf8"))) {
            play->envelope.utf8 = true;
        } else if (slice_equal(name, SLICE_LITERAL("ret"))) {
            bool full = slice_equal(value, SLICE_LITERAL("full"));
            play->envelope.return_content =
                full ? SMTP_CLIENT_RETURN_FULL : SMTP_CLIENT_RETURN_HEADERS;
        } else if (slice_equal(name, SLICE_LITERAL("envid"))) {
            play->envelope.envelope_id = value;
        } else if (slice_equal(name, SLICE_LITERAL("notify"))) {
            play->notify = (uint8_t)take_number(play, &value);
        } else if (slice_equal(name, SLICE_LITERAL("orcpt"))) {
            play->orcpt = value;
        } else {
            fail(play, "unknown envelope word");
        }
    }
}

/* "<address>" without its brackets, escapes resolved. */
static struct slice take_path(struct play *play, struct slice *rest)
{
    struct slice word = take_word(rest);
    if (word.length < 2) {
        fail(play, "a path is missing");
    }
    return unescape(play, slice_take(slice_skip(word, 1), word.length - 2));
}

static void do_mail(struct play *play, struct slice rest, enum error expected)
{
    struct smtp_client_recipient *recipients =
        arena_allocate(&play->arena, WORDS_MAX * sizeof(*recipients));
    struct smtp_client_mail mail = play->envelope;
    mail.tag = take_tag(play, &rest);
    mail.size = play->content[mail.tag].length;
    mail.sender = take_path(play, &rest);
    mail.recipients = recipients;
    while (rest.length > 0 && mail.recipient_count < WORDS_MAX) {
        recipients[mail.recipient_count++] = (struct smtp_client_recipient){
            .address = take_path(play, &rest), .orcpt = play->orcpt, .notify = play->notify};
    }
    play->envelope = (struct smtp_client_mail){0};
    play->notify = 0;
    play->orcpt = SLICE_EMPTY;
    start(play);
    if (smtp_client_mail(play->client, &mail, play->now) != expected) {
        fail(play, "smtp_client_mail");
    }
    settle(play);
}

static void do_fill(struct play *play, struct slice rest)
{
    struct buffer *content = &play->content[take_tag(play, &rest)];
    uint64_t lines = take_number(play, &rest);
    for (uint64_t i = 0; i < lines; i++) {
        buffer_printf(content, "%c%075llu\r\n", i == 2 ? '.' : ' ', (unsigned long long)i);
    }
}

static void give(struct play *play, struct slice bytes)
{
    start(play);
    while (bytes.length > 0) {
        struct slice piece = slice_take(bytes, play->mode == MODE_BYTES ? 1 : bytes.length);
        smtp_client_input(play->client, piece, play->now);
        settle(play);
        bytes = slice_skip(bytes, piece.length);
    }
}

static void flush_pending(struct play *play)
{
    if (play->pending.length > 0) {
        give(play, buffer_slice(&play->pending));
        buffer_clear(&play->pending);
    }
}

static void do_server(struct play *play, struct slice bytes, bool with_line_end)
{
    buffer_append(&play->pending, bytes);
    if (with_line_end) {
        buffer_append_text(&play->pending, "\r\n");
    }
    if (play->mode != MODE_JOINED) {
        flush_pending(play);
    }
}

static struct slice take_wire_line(struct play *play)
{
    start(play);
    struct slice wire = buffer_slice(&play->wire);
    size_t end = slice_find(wire, '\n');
    if (end == wire.length || end == 0 || wire.data[end - 1] != '\r') {
        fail(play, "the client has not sent that line");
    }
    return slice_take(wire, end + 1);
}

static void expect_wire(struct play *play, struct slice expected)
{
    struct slice line = take_wire_line(play);
    if (!slice_equal(slice_take(line, line.length - 2), unescape(play, expected))) {
        fail(play, "the client has sent another line");
    }
    buffer_consume(&play->wire, line.length);
}

static void expect_event(struct play *play, struct slice expected)
{
    struct slice events = buffer_slice(&play->events);
    size_t end = slice_find(events, '\n');
    struct slice event = slice_take(events, end);
    if (expected.data[expected.length - 1] == '*') {
        expected.length--;
        event = slice_take(event, expected.length);
    }
    if (end == events.length || !slice_equal(event, expected)) {
        fail(play, "another event, or none");
    }
    buffer_consume(&play->events, end + 1);
}

static void do_pass(struct play *play, struct slice rest)
{
    play->now += (int64_t)take_number(play, &rest) * 1000;
    if (smtp_client_deadline(play->client) <= play->now) {
        fail(play, "the client gives up before that");
    }
    smtp_client_tick(play->client, play->now);
}

static void do_timeout(struct play *play, struct slice rest)
{
    int64_t deadline = smtp_client_deadline(play->client);
    int64_t expected = play->now + (int64_t)take_number(play, &rest) * 1000;
    if (deadline != expected) {
        fail(play, "the deadline is %lld s away", (long long)(deadline - play->now) / 1000);
    }
    smtp_client_tick(play->client, deadline - 1);
    settle(play);
    play->now = deadline;
    smtp_client_tick(play->client, play->now);
    settle(play);
}

static bool starts(struct slice *line, const char *word)
{
    size_t length = strlen(word);
    if (line->length < length || memcmp(line->data, word, length) != 0) {
        return false;
    }
    *line = slice_skip(*line, length);
    return true;
}

static void do_caller(struct play *play, struct slice line)
{
    struct slice whole = line;
    if (starts(&line, "login ")) {
        play->credentials.user = arena_copy(&play->arena, take_word(&line));
        play->credentials.password = arena_copy(&play->arena, take_word(&line));
        play->credentials.in_clear = slice_equal(line, SLICE_LITERAL("clear"));
    } else if (starts(&line, "protocol lmtp")) {
        play->lmtp = true;
    } else if (starts(&line, "envelope ")) {
        do_envelope(play, line);
    } else if (starts(&line, "content ")) {
        uint64_t tag = take_tag(play, &line);
        buffer_append(&play->content[tag], unescape(play, line));
    } else if (starts(&line, "fill ")) {
        do_fill(play, line);
    } else if (starts(&line, "unreadable ")) {
        uint64_t tag = take_tag(play, &line);
        play->unreadable[tag] = take_number(play, &line);
    } else if (starts(&line, "mail ")) {
        do_mail(play, line, ERROR_NONE);
    } else if (starts(&line, "again ")) {
        do_mail(play, line, ERROR_AGAIN);
    } else if (starts(&line, "go ")) {
        smtp_client_go(play->client, take_tag(play, &line), play->now);
    } else if (starts(&line, "quit")) {
        smtp_client_quit(play->client, play->now);
    } else if (starts(&line, "abort")) {
        smtp_client_abort(play->client, SLICE_LITERAL("shutting down"));
    } else if (starts(&line, "cut")) {
        smtp_client_lost(play->client, SLICE_EMPTY, play->now);
    } else if (starts(&line, "pass ")) {
        do_pass(play, line);
    } else if (starts(&line, "timeout ")) {
        do_timeout(play, line);
    } else if (starts(&line, "sends all")) {
        play->allowance = SIZE_MAX;
    } else if (starts(&line, "sends ")) {
        play->allowance = take_number(play, &line);
    } else {
        expect_event(play, whole);
    }
}

static void do_line(struct play *play, struct slice line)
{
    if (line.length == 0 || line.data[0] == '#') {
        return;
    }
    if (starts(&line, "S: ")) {
        do_server(play, line, true);
        return;
    }
    if (starts(&line, "S\\ ")) {
        do_server(play, unescape(play, line), false);
        return;
    }
    flush_pending(play);
    if (starts(&line, "C: ")) {
        expect_wire(play, line);
    } else if (starts(&line, "C* ")) {
        for (uint64_t i = take_number(play, &line); i > 0; i--) {
            buffer_consume(&play->wire, take_wire_line(play).length);
        }
    } else if (starts(&line, "C\\ ")) {
        if (!slice_equal(buffer_slice(&play->wire), unescape(play, line))) {
            fail(play, "the client has sent something else");
        }
        buffer_clear(&play->wire);
    } else if (starts(&line, "silent")) {
        if (play->wire.length > 0) {
            fail(play, "the client has sent more");
        }
    } else {
        do_caller(play, line);
        if (play->client != NULL) {
            settle(play);
        }
    }
}

static void run(const char *path, struct slice script, enum mode mode)
{
    struct play play = {.path = path, .mode = mode, .allowance = SIZE_MAX, .now = 1000000};
    arena_init(&play.arena);
    buffer_init(&play.pending, 0);
    buffer_init(&play.wire, 0);
    buffer_init(&play.events, 0);
    for (size_t i = 0; i < TAGS; i++) {
        buffer_init(&play.content[i], 0);
        play.unreadable[i] = UINT64_MAX;
    }
    while (script.length > 0) {
        size_t end = slice_find(script, '\n');
        play.line++;
        do_line(&play, slice_take(script, end));
        script = slice_skip(script, end + 1);
    }
    flush_pending(&play);
    if (play.wire.length > 0 || play.events.length > 0) {
        fail(&play, "left over at the end");
    }
    smtp_client_free(play.client);
    for (size_t i = 0; i < TAGS; i++) {
        buffer_done(&play.content[i]);
    }
    buffer_done(&play.events);
    buffer_done(&play.wire);
    buffer_done(&play.pending);
    arena_done(&play.arena);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct buffer script;
        buffer_init(&script, 1 << 20);
        FILE *file = fopen(argv[i], "rb");
        char piece[4096];
        if (file == NULL) {
            perror(argv[i]);
            return 1;
        }
        for (size_t length; (length = fread(piece, 1, sizeof(piece), file)) > 0;) {
            buffer_append(&script, slice_make(piece, length));
        }
        fclose(file);
        for (enum mode mode = MODE_LINES; mode <= MODE_BYTES; mode++) {
            run(argv[i], buffer_slice(&script), mode);
        }
        buffer_done(&script);
    }
    return 0;
}
