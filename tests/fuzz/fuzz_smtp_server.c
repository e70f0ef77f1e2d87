/* SPDX-License-Identifier: Apache-2.0
 *
 * The SMTP server core under any input: the same replies and events however the input is cut, no
 * reply that is not a line, questions and aborts that match. The first byte chooses piece size,
 * settings and answers.
 */
#include "proto/smtp_server.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct buffer wire;
    struct buffer content;
    uint64_t events;
    bool has_mail;
    bool closed;
    bool is_odmr;
    bool has_auth;
    bool has_starttls, is_secured;
    unsigned questions;
};

static struct smtp_answer draw_answer(struct run *run, uint8_t choice,
                                      enum smtp_server_event_kind kind)
{
    struct smtp_answer answer = SMTP_ACCEPT;
    run->questions++;
    if ((choice & 0x80) != 0 && run->questions % 7 == 5) {
        answer = (struct smtp_answer){550, "5.7.1", SLICE_LITERAL("no\r\nnever\xff")};
    } else if ((choice & 0x40) != 0 && run->questions % 11 == 10) {
        answer = (struct smtp_answer){421, "4.3.2", SLICE_LITERAL("going")};
    } else if (kind == SMTP_SERVER_AUTH && run->questions % 2 == 0) {
        answer = (struct smtp_answer){334, NULL, SLICE_LITERAL("PGFAYj4=")};
    }
    return answer;
}

static void note(struct run *run, const struct smtp_server_event *event)
{
    assert(!run->closed);
    switch (event->kind) {
    case SMTP_SERVER_STARTTLS:
        assert(run->has_starttls && !run->is_secured && !run->has_mail);
        break;
    case SMTP_SERVER_CONTENT:
        assert(run->has_mail && event->bytes.length > 0);
        buffer_append(&run->content, event->bytes);
        return;
    case SMTP_SERVER_ABORT:
        assert(run->has_mail && event->reason != NULL);
        run->has_mail = false;
        break;
    case SMTP_SERVER_CLOSE:
        assert(!run->has_mail);
        run->closed = true;
        break;
    case SMTP_SERVER_RECIPIENT:
        assert(run->has_mail && event->mailbox.text.length > 0);
        break;
    case SMTP_SERVER_END:
        assert(run->has_mail);
        assert(smtp_content_header_length(event->content) <= event->content->length);
        break;
    case SMTP_SERVER_AUTH:
    case SMTP_SERVER_RESPONSE:
        assert(run->is_odmr || (run->has_auth && !run->has_mail));
        assert(slice_find(event->bytes, '\n') == event->bytes.length);
        break;
    case SMTP_SERVER_ATRN:
        assert(run->is_odmr && slice_find(event->name, '[') == event->name.length);
        break;
    case SMTP_SERVER_XCLIENT:
    case SMTP_SERVER_XFORWARD:
        assert(!run->has_mail && slice_find(event->bytes, '=') < event->bytes.length);
        break;
    case SMTP_SERVER_ETRN:
        assert(!run->has_mail && smtp_domain_is_valid(event->name));
        break;
    default:
        break;
    }
    run->events = run->events * 31 + event->kind;
}

static void take_output(struct smtp_server *server, struct run *run)
{
    struct slice output = smtp_server_output(server);
    buffer_append(&run->wire, output);
    smtp_server_sent(server, output.length);
}

static void feed(struct smtp_server *server, struct run *run, uint8_t choice)
{
    struct smtp_server_event event;
    while (smtp_server_next(server, &event)) {
        bool is_question = event.kind != SMTP_SERVER_CONTENT && event.kind != SMTP_SERVER_ABORT &&
                           event.kind != SMTP_SERVER_CLOSE;
        note(run, &event);
        if (is_question) {
            struct smtp_answer answer = draw_answer(run, choice, event.kind);
            bool accepts = answer.code == 0;
            if (event.kind == SMTP_SERVER_HELLO) {
                smtp_server_offer(server, choice & 15u);
            } else if (event.kind == SMTP_SERVER_XCLIENT) {
                smtp_server_tell_login(server, (choice & 32) != 0);
            } else if (event.kind == SMTP_SERVER_MAIL) {
                run->has_mail = accepts;
            } else if (event.kind == SMTP_SERVER_END ||
                       (event.kind == SMTP_SERVER_DATA && !accepts)) {
                run->has_mail = false;
            }
            smtp_server_answer(server, &answer, 0);
        }
        take_output(server, run);
    }
    take_output(server, run);
    if (smtp_server_wants_handshake(server)) {
        assert(run->has_starttls && !run->has_mail && !smtp_server_wants_input(server));
        run->is_secured = true;
        smtp_server_secured(server, 0);
    }
}

static void play(struct slice input, size_t piece, uint8_t choice, struct run *run)
{
    static const struct smtp_server_settings kind = {.hostname = SLICE_LITERAL("mx.example"),
                                                     .message_bytes = 3000,
                                                     .recipients = 5,
                                                     .commands = 100,
                                                     .errors = 20,
                                                     .line_bytes = 500,
                                                     .header_bytes = 1000,
                                                     .hops = 5,
                                                     .command_timeout_ms = 1,
                                                     .session_timeout_ms = 1};
    struct smtp_server_settings settings = kind;
    struct smtp_server server;
    size_t used = 0, given = 0;
    settings.reject_bare_newline = (choice & 2) != 0;
    settings.odmr = run->is_odmr = (choice & 4) != 0;
    run->has_auth = !run->is_odmr && (choice & 8) != 0;
    settings.mechanisms = run->has_auth ? 1u << SASL_PLAIN | 1u << SASL_SCRAM_SHA_256 : 0;
    settings.clear_mechanisms = run->is_odmr ? 1u << SASL_CRAM_MD5 : 0;
    settings.mechanisms |= run->is_odmr ? settings.clear_mechanisms | 1u << SASL_PLAIN : 0;
    settings.submission = run->has_auth && (choice & 1) != 0;
    settings.starttls = run->has_starttls = choice >= 0xc0;
    smtp_server_init(&server, &settings, 0);
    smtp_server_set_secure(&server, run->has_auth && !run->has_starttls);
    smtp_server_set_trusted(&server, (choice & 16) != 0);
    feed(&server, run, choice);
    while (given < input.length && !run->closed) {
        given = input.length - given < piece ? input.length : given + piece;
        smtp_server_input(&server, slice_make(input.data + used, given - used), 0);
        feed(&server, run, choice);
        used = given - smtp_server_unread(&server).length;
        assert(given - used <= SMTP_COMMAND_LINE_MAX);
    }
    (void)smtp_server_deadline(&server);
    smtp_server_expire(&server);
    feed(&server, run, choice);
    assert(run->closed);
    smtp_server_done(&server);
}

static void check_wire(struct slice wire)
{
    while (wire.length > 0) {
        size_t end = slice_find(wire, '\n');
        assert(end < wire.length && end >= 5 && end <= 514 && wire.data[end - 1] == '\r');
        for (size_t i = 0; i + 1 < end; i++) {
            assert(wire.data[i] >= ' ' && wire.data[i] < 0x7f);
        }
        wire = slice_skip(wire, end + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t pieces[] = {1, 2, 13, 100};
    struct run whole = {0}, cut = {0};
    if (size == 0) {
        return 0;
    }
    struct slice input = slice_make(data + 1, size - 1);
    play(input, SIZE_MAX, data[0], &whole);
    play(input, pieces[data[0] >> 4 & 3], data[0], &cut);
    check_wire(buffer_slice(&whole.wire));
    if (!whole.has_starttls) { /* what comes with it is refused, what comes after is not */
        assert(slice_equal(buffer_slice(&whole.wire), buffer_slice(&cut.wire)));
        assert(whole.events == cut.events);
    }
    buffer_done(&whole.wire);
    buffer_done(&whole.content);
    buffer_done(&cut.wire);
    buffer_done(&cut.content);
    return 0;
}
