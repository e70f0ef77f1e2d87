/* SPDX-License-Identifier: Apache-2.0
 *
 * Plays dialogue scripts (*.client) against the SMTP client core: the script is the server, the
 * clock and the caller. Each script runs three times: with each S: line as one piece of input, with
 * adjacent S: lines as one piece, and byte by byte; all must go the same way.
 *
 *   protocol lmtp              before anything else; default smtp
 *   patience SECONDS SECONDS   likewise: with commands and with the dot; default RFC 5321's
 *   tls offered|demanded|first before anything else; default never
 *   tls failed                 likewise: it has failed before
 *   secured [proved]           the handshake is done
 *   login USER PASSWORD [clear]  before anything else: credentials, to be shown bare or not
 *   tells                      before anything else: XCLIENT and XFORWARD are used
 *   envelope WORD ...          parameters of the next mail: 8bit utf8 ret=full ret=hdrs envid=X
 *                              requiretls notify=BITS orcpt=X (these two: of every recipient)
 *                              priority=N by=SECONDS;MODE (from when the mail is given, RFC 2852)
 *   origin WORDS               of the next mail, as parameters of XCLIENT; default: it is ours
 *   content TAG TEXT           content of TAG, escapes \r \n \\ \xHH; without TEXT: empty
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
#include <string.h>

#include "base/arena.h"
#include "dialogue/script.h"
#include "proto/smtp_client.h"

#include <assert.h>

enum { TAGS = 10, WORDS_MAX = 400 };

struct play {
    struct script script;
    struct smtp_client *client;
    struct arena arena;
    struct smtp_client_mail envelope;
    int64_t by_s; /* of the next mail, from then */
    uint8_t notify;
    struct slice orcpt;
    struct buffer content[TAGS];
    uint64_t unreadable[TAGS];
    size_t allowance;
    int64_t now;
    bool lmtp, tells, proxied;
    const struct xclient *proxied_for;
    uint32_t command_timeout_ms, dot_timeout_ms;
    enum smtp_client_tls tls;
    bool tls_failed;
    struct smtp_client_credentials credentials;
};

/* ---- the client's side -------------------------------------------------------------------- */

static const char *const stages[] = {"greeting",  "hello", "tls",     "auth", "mail",
                                     "recipient", "data",  "content", "dot",  "idle"};
static const char *const hows[] = {"reply", "lost", "timeout", "local", "declined"};
static const char *const verdicts[] = {"accepted", "refused", "not-tried", "cut", "in-doubt"};

static void print_cause(struct play *play, const struct smtp_client_cause *cause)
{
    struct buffer *events = &play->script.events;
    buffer_printf(events, "%s %s", stages[cause->stage], hows[cause->how]);
    if (cause->code == 0) {
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
    static const char *const flags[] = {"8BITMIME",    "SMTPUTF8",  "DSN",      "PIPELINING",
                                        "CHUNKING",    NULL,        "STARTTLS", "DELIVERBY",
                                        "MT-PRIORITY", "REQUIRETLS"};
    buffer_append_text(&play->script.events, "opened");
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if ((capabilities->flags & 1U << i) && flags[i] != NULL) {
            buffer_printf(&play->script.events, " %s", flags[i]);
        }
    }
    if (capabilities->flags & SMTP_CLIENT_CAP_SIZE) {
        buffer_printf(&play->script.events, " SIZE=%llu",
                      (unsigned long long)capabilities->size_limit);
    }
    if (capabilities->deliver_by_min_s > 0) {
        buffer_printf(&play->script.events, " BYMIN=%u", capabilities->deliver_by_min_s);
    }
    if (capabilities->recipients_max > 0) {
        buffer_printf(&play->script.events, " RCPTMAX=%u", capabilities->recipients_max);
    }
    if (capabilities->mails_max > 0) {
        buffer_printf(&play->script.events, " MAILMAX=%u", capabilities->mails_max);
    }
    buffer_printf(&play->script.events, "%s%s\n", capabilities->xclient ? " XCLIENT" : "",
                  capabilities->xforward ? " XFORWARD" : "");
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
    case SMTP_CLIENT_HANDSHAKE:
        buffer_append_text(&play->script.events, "handshake\n");
        break;
    case SMTP_CLIENT_OPENED:
        print_opened(play, &event->capabilities);
        break;
    case SMTP_CLIENT_STARTED:
        buffer_printf(&play->script.events, "started %u\n", (unsigned)event->tag);
        break;
    case SMTP_CLIENT_CONTENT:
        give_content(play, event->tag, event->offset);
        break;
    case SMTP_CLIENT_RESULT:
        buffer_printf(&play->script.events, "result %u%s%s\n", (unsigned)event->tag,
                      event->reused ? " reused" : "", event->elsewhere ? " elsewhere" : "");
        for (uint32_t i = 0; i < event->outcome_count; i++) {
            buffer_printf(&play->script.events, "- %s ", verdicts[event->outcomes[i].verdict]);
            print_cause(play, &event->outcomes[i].cause);
        }
        break;
    case SMTP_CLIENT_CLOSED:
        buffer_printf(&play->script.events, "closed %s", event->elsewhere ? "elsewhere " : "");
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
            buffer_append(&play->script.wire, output);
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
                                                .tells_origin = play->tells,
                                                .is_proxied = play->proxied,
                                                .proxied_for = play->proxied_for,
                                                .greeting_timeout_ms = 60000,
                                                .command_timeout_ms = play->command_timeout_ms,
                                                .dot_timeout_ms = play->dot_timeout_ms,
                                                .tls = play->tls,
                                                .tls_failed = play->tls_failed,
                                                .credentials = play->credentials};
        play->client = smtp_client_new(&settings, play->now);
        settle(play);
    }
}

/* ---- the script --------------------------------------------------------------------------- */

static struct slice unescape(struct play *play, struct slice text)
{
    struct buffer bytes;
    buffer_init(&bytes, 0);
    script_unescape(&play->script, &bytes, text);
    struct slice copy = arena_copy(&play->arena, buffer_slice(&bytes));
    buffer_done(&bytes);
    return copy;
}

static uint64_t take_number(struct play *play, struct slice *rest)
{
    uint64_t number;
    if (!slice_to_u64(script_word(rest), &number)) {
        script_fail(&play->script, "a number is missing");
    }
    return number;
}

static uint64_t take_tag(struct play *play, struct slice *rest)
{
    uint64_t tag = take_number(play, rest);
    if (tag >= TAGS) {
        script_fail(&play->script, "no such tag");
    }
    return tag;
}

static int64_t take_signed(struct play *play, struct slice word)
{
    bool negative = word.length > 0 && word.data[0] == '-';
    struct slice digits = slice_skip(word, negative);
    int64_t number = (int64_t)take_number(play, &digits);
    return negative ? -number : number;
}

static void do_envelope(struct play *play, struct slice rest)
{
    while (rest.length > 0) {
        struct slice word = script_word(&rest);
        size_t equals = slice_find(word, '=');
        struct slice name = slice_take(word, equals);
        struct slice value = arena_copy(&play->arena, slice_skip(word, equals + 1));
        if (slice_equal(name, SLICE_LITERAL("8bit"))) {
            play->envelope.eight_bit = true;
        } else if (slice_equal(name, SLICE_LITERAL("utf8"))) {
            play->envelope.utf8 = true;
        } else if (slice_equal(name, SLICE_LITERAL("requiretls"))) {
            play->envelope.requires_tls = true;
        } else if (slice_equal(name, SLICE_LITERAL("only"))) {
            play->envelope.envelope_only = true;
        } else if (slice_equal(name, SLICE_LITERAL("ret"))) {
            bool full = slice_equal(value, SLICE_LITERAL("full"));
            play->envelope.return_content =
                full ? SMTP_CLIENT_RETURN_FULL : SMTP_CLIENT_RETURN_HEADERS;
        } else if (slice_equal(name, SLICE_LITERAL("envid"))) {
            play->envelope.envelope_id = value;
        } else if (slice_equal(name, SLICE_LITERAL("notify"))) {
            play->notify = (uint8_t)take_number(play, &value);
        } else if (slice_equal(name, SLICE_LITERAL("priority"))) {
            play->envelope.priority = (int8_t)take_signed(play, value);
        } else if (slice_equal(name, SLICE_LITERAL("by"))) {
            size_t end = slice_find(value, ';');
            struct slice mode = slice_skip(value, end + 1);
            play->by_s = take_signed(play, slice_take(value, end));
            play->envelope.by_mode = mode.length > 0 ? (char)mode.data[0] : 0;
            play->envelope.by_trace = mode.length > 1;
        } else if (slice_equal(name, SLICE_LITERAL("orcpt"))) {
            play->orcpt = value;
        } else {
            script_fail(&play->script, "unknown envelope word");
        }
    }
}

static void do_origin(struct play *play, struct slice words)
{
    struct xclient *facts = arena_allocate(&play->arena, sizeof(*facts));
    struct xclient_storage *storage = arena_allocate(&play->arena, sizeof(*storage));
    assert(facts != NULL && storage != NULL);
    if (xclient_read(words, ~0u, storage, facts) != ERROR_NONE) {
        script_fail(&play->script, "not parameters of XCLIENT");
    }
    play->envelope.origin = facts;
}

/* "<address>" without its brackets, escapes resolved. */
static struct slice take_path(struct play *play, struct slice *rest)
{
    struct slice word = script_word(rest);
    if (word.length < 2) {
        script_fail(&play->script, "a path is missing");
    }
    return unescape(play, slice_take(slice_skip(word, 1), word.length - 2));
}

static void do_mail(struct play *play, struct slice rest, enum error expected)
{
    struct smtp_client_recipient *recipients =
        arena_allocate(&play->arena, WORDS_MAX * sizeof(*recipients));
    struct smtp_client_mail mail = play->envelope;
    mail.tag = take_tag(play, &rest);
    mail.deliver_by_ms = play->now + play->by_s * 1000;
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
        script_fail(&play->script, "smtp_client_mail");
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

/* A piece of what the server sends. */
static void input(void *context, struct slice piece)
{
    struct play *play = context;
    start(play);
    smtp_client_input(play->client, piece, play->now);
    settle(play);
}

static void skip_lines(struct play *play, uint64_t count)
{
    for (; count > 0; count--) {
        script_expect_like(&play->script, &play->script.wire, "\r\n", SLICE_LITERAL("*"));
    }
}

static void do_pass(struct play *play, struct slice rest)
{
    play->now += (int64_t)take_number(play, &rest) * 1000;
    if (smtp_client_deadline(play->client) <= play->now) {
        script_fail(&play->script, "the client gives up before that");
    }
    smtp_client_tick(play->client, play->now);
}

static void do_timeout(struct play *play, struct slice rest)
{
    int64_t deadline = smtp_client_deadline(play->client);
    int64_t expected = play->now + (int64_t)take_number(play, &rest) * 1000;
    if (deadline != expected) {
        script_fail(&play->script, "the deadline is %lld s away",
                    (long long)(deadline - play->now) / 1000);
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
        play->credentials.user = arena_copy(&play->arena, script_word(&line));
        play->credentials.password = arena_copy(&play->arena, script_word(&line));
        play->credentials.in_clear = slice_equal(line, SLICE_LITERAL("clear"));
    } else if (starts(&line, "tls ")) {
        static const char *const words[] = {"never", "offered", "demanded", "first"};
        play->tls_failed = play->tls_failed || slice_equal(line, SLICE_LITERAL("failed"));
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
            play->tls =
                slice_equal(line, slice_from_text(words[i])) ? (enum smtp_client_tls)i : play->tls;
        }
    } else if (starts(&line, "secured")) {
        start(play);
        smtp_client_secured(play->client, slice_equal(line, SLICE_LITERAL(" proved")), play->now);
    } else if (starts(&line, "protocol lmtp")) {
        play->lmtp = true;
    } else if (starts(&line, "proxied")) {
        play->proxied = true;
        if (line.length > 0) {
            do_origin(play, slice_skip(line, 1));
            play->proxied_for = play->envelope.origin;
            play->envelope.origin = NULL;
        }
    } else if (starts(&line, "tells")) {
        play->tells = true;
    } else if (starts(&line, "origin ")) {
        do_origin(play, line);
    } else if (starts(&line, "patience ")) {
        play->command_timeout_ms = (uint32_t)take_number(play, &line) * 1000;
        play->dot_timeout_ms = (uint32_t)take_number(play, &line) * 1000;
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
        script_expect_like(&play->script, &play->script.events, "\n", whole);
    }
}

static void give_line(struct play *play, struct slice line)
{
    struct buffer bytes;
    buffer_init(&bytes, 0);
    buffer_append(&bytes, line);
    buffer_append_text(&bytes, "\r\n");
    script_give(&play->script, buffer_slice(&bytes));
    buffer_done(&bytes);
}

static void do_line(struct play *play, struct slice line)
{
    struct script *script = &play->script;
    if (starts(&line, "S: ")) {
        give_line(play, line);
        return;
    }
    if (starts(&line, "S\\ ")) {
        script_give(script, unescape(play, line));
        return;
    }
    script_flush(script);
    if (starts(&line, "C: ")) {
        start(play);
        script_expect(script, &script->wire, "\r\n", unescape(play, line));
    } else if (starts(&line, "C* ")) {
        start(play);
        skip_lines(play, take_number(play, &line));
    } else if (starts(&line, "C\\ ")) {
        if (!slice_equal(buffer_slice(&script->wire), unescape(play, line))) {
            script_fail(script, "the client has sent something else");
        }
        buffer_clear(&script->wire);
    } else if (starts(&line, "silent")) {
        if (script->wire.length > 0) {
            script_fail(script, "the client has sent more");
        }
    } else {
        do_caller(play, line);
        if (play->client != NULL) {
            settle(play);
        }
    }
}

static void play_script(const char *path, struct slice text, enum script_mode mode)
{
    struct play play = {.allowance = SIZE_MAX, .now = 1000000};
    struct script *script = &play.script;
    script_init(script, path, text, mode, input, &play);
    arena_init(&play.arena);
    for (size_t i = 0; i < TAGS; i++) {
        buffer_init(&play.content[i], 0);
        play.unreadable[i] = UINT64_MAX;
    }
    for (struct slice line; script_next(script, &line);) {
        do_line(&play, line);
    }
    script_flush(script);
    if (script->wire.length > 0 || script->events.length > 0) {
        script_fail(script, "left over at the end");
    }
    smtp_client_free(play.client);
    for (size_t i = 0; i < TAGS; i++) {
        buffer_done(&play.content[i]);
    }
    arena_done(&play.arena);
    script_done(script);
}

int main(int count, char **arguments)
{
    return script_main(count - 1, arguments + 1, play_script);
}
