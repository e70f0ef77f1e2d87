/* SPDX-License-Identifier: Apache-2.0
 *
 * What dialogue scripts cannot say: input cut at every position, lines of every length around the
 * edges of read buffers, a client that never reads, memory of an idle session.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/smtp_server.h"

static const struct smtp_server_settings settings = {
    .hostname = SLICE_LITERAL("mx.example.net"),
    .message_bytes = 10 << 20,
    .recipients = 100,
    .errors = 20,
    .command_timeout_ms = 1000,
    .session_timeout_ms = 10000,
};

struct run {
    struct smtp_server server;
    struct buffer unread;
    struct buffer wire;
    struct buffer content;
    unsigned messages;
};

static void take_events(struct run *run)
{
    struct smtp_server_event event;
    while (smtp_server_next(&run->server, &event)) {
        if (event.kind == SMTP_SERVER_CONTENT) {
            buffer_append(&run->content, event.bytes);
        } else if (event.kind != SMTP_SERVER_ABORT && event.kind != SMTP_SERVER_CLOSE) {
            struct smtp_answer yes = SMTP_ACCEPT;
            run->messages += event.kind == SMTP_SERVER_END;
            smtp_server_answer(&run->server, &yes, 0);
        }
    }
}

static void give(struct run *run, struct slice bytes)
{
    buffer_append(&run->unread, bytes);
    smtp_server_input(&run->server, buffer_slice(&run->unread), 0);
    take_events(run);
    struct slice output = smtp_server_output(&run->server);
    buffer_append(&run->wire, output);
    smtp_server_sent(&run->server, output.length);
    buffer_consume(&run->unread, run->unread.length - smtp_server_unread(&run->server).length);
}

static void begin(struct run *run)
{
    memset(run, 0, sizeof(*run));
    smtp_server_init(&run->server, &settings, 0);
}

static void end(struct run *run)
{
    smtp_server_done(&run->server);
    buffer_done(&run->unread);
    buffer_done(&run->wire);
    buffer_done(&run->content);
}

static const char session[] =
    "EHLO client.example\r\n"
    "MAIL FROM:<ann@example.net> SIZE=100\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"
    "Subject: x\r\n\r\n..dot\r\nbare\n.\r\n\r.\r\r\n.\r\r\nend\r\n.\r\n"
    "MAIL FROM:<>\r\nRCPT TO:<postmaster>\r\n"
    "BDAT 7\r\nSubjectBDAT 10\r\n: y\r\n\r\n.\r\n"
    "BDAT 3 LAST\r\na\rb"
    "FOO\r\nRSET\r\nVRFY x\r\nQUIT\r\n";

static void cut_at_every_two_positions(void **state)
{
    (void)state;
    struct slice all = slice_make(session, sizeof(session) - 1);
    struct run whole;
    begin(&whole);
    give(&whole, all);
    assert_int_equal(whole.messages, 2);
    for (size_t first = 0; first <= all.length; first++) {
        for (size_t second = first; second <= all.length; second += 7) {
            struct run cut;
            begin(&cut);
            give(&cut, slice_take(all, first));
            give(&cut, slice_make(all.data + first, second - first));
            give(&cut, slice_skip(all, second));
            assert_int_equal(cut.wire.length, whole.wire.length);
            assert_memory_equal(cut.wire.data, whole.wire.data, whole.wire.length);
            assert_int_equal(cut.content.length, whole.content.length);
            assert_memory_equal(cut.content.data, whole.content.data, whole.content.length);
            end(&cut);
        }
    }
    end(&whole);
}

/* One message whose line of `length` bytes ends just where reads of `piece` bytes do, or beside. */
static void check_line(size_t length, size_t piece)
{
    struct run run;
    struct buffer line;
    begin(&run);
    give(&run, SLICE_LITERAL("HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
                             "DATA\r\n"));
    buffer_init(&line, 0);
    for (size_t i = 0; i < length; i++) {
        buffer_put_u8(&line, 'x');
    }
    buffer_append_text(&line, "\r\n..\r\n.\r\n");
    struct slice rest = buffer_slice(&line);
    for (; rest.length > 0; rest = slice_skip(rest, piece)) {
        give(&run, slice_take(rest, piece));
    }
    assert_int_equal(run.messages, 1);
    assert_int_equal(run.content.length, length + 5);
    assert_memory_equal(run.content.data + length, "\r\n.\r\n", 5);
    buffer_done(&line);
    end(&run);
}

static void lines_around_buffer_edges(void **state)
{
    (void)state;
    static const size_t edges[] = {64, 128, 512, 998, 1024, 4096, 61440, 65536};
    for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
        for (size_t length = edges[i] - 6; length <= edges[i] + 3; length++) {
            check_line(length, edges[i]);
            check_line(length, SIZE_MAX);
        }
    }
    check_line(1000000, 65536);
}

static void unsent_replies_stop_the_reading(void **state)
{
    (void)state;
    struct run run;
    struct buffer flood;
    begin(&run);
    buffer_init(&flood, 0);
    for (int i = 0; i < 20000; i++) {
        buffer_append_text(&flood, "NOOP\r\n");
    }
    smtp_server_input(&run.server, buffer_slice(&flood), 0);
    take_events(&run);
    assert_true(smtp_server_output(&run.server).length < 16 << 10);
    assert_true(smtp_server_unread(&run.server).length > 100000);
    assert_false(smtp_server_wants_input(&run.server));
    /* As replies leave, it goes on to the end. */
    size_t replies = 0;
    for (struct slice output = smtp_server_output(&run.server); output.length > 0;
         output = smtp_server_output(&run.server)) {
        for (size_t i = 0; i < output.length; i++) {
            replies += output.data[i] == '\n';
        }
        smtp_server_sent(&run.server, output.length);
        take_events(&run);
    }
    assert_int_equal(replies, 20001);
    assert_int_equal(smtp_server_unread(&run.server).length, 0);
    buffer_done(&flood);
    end(&run);
}

static void idle_session_holds_nothing(void **state)
{
    (void)state;
    struct run run;
    begin(&run);
    give(&run, slice_make(session, sizeof(session) - 1 - 6)); /* all but QUIT */
    assert_true(smtp_server_is_idle(&run.server));
    assert_null(run.server.content);
    assert_null(run.server.output.data);
    assert_true(sizeof(run.server) <= 192);
    end(&run);
}

/* What comes with STARTTLS in the clear may be an attacker's (RFC 3207 6): it is never used, and
 * the session ends; nor is what comes before the handshake is done. */
static void nothing_follows_starttls(void **state)
{
    (void)state;
    static const struct slice injected[] = {
        SLICE_LITERAL("STARTTLS\r\nMAIL FROM:<eve@example.net>\r\n"),
        SLICE_LITERAL("STARTTLS\r\nR"), SLICE_LITERAL("STARTTLS\r\n\r\n")};
    struct smtp_server_settings with_tls = settings;
    with_tls.starttls = true;
    for (size_t i = 0; i < sizeof(injected) / sizeof(injected[0]) + 1; i++) {
        bool at_once = i < sizeof(injected) / sizeof(injected[0]);
        struct run run;
        begin(&run);
        smtp_server_set_settings(&run.server, &with_tls);
        give(&run, SLICE_LITERAL("EHLO client.example\r\n"));
        buffer_clear(&run.wire);
        give(&run, at_once ? injected[i] : SLICE_LITERAL("STARTTLS\r\n"));
        if (at_once) {
            assert_true(
                slice_equal(buffer_slice(&run.wire),
                            SLICE_LITERAL("503 5.5.1 Nothing may come behind STARTTLS\r\n")));
            assert_false(smtp_server_wants_handshake(&run.server));
        } else {
            assert_true(smtp_server_wants_handshake(&run.server));
            assert_false(smtp_server_wants_input(&run.server));
            buffer_clear(&run.wire);
            give(&run, SLICE_LITERAL("EHLO eve.example\r\nMAIL FROM:<>\r\n"));
            assert_int_equal(run.wire.length, 0);
            buffer_clear(&run.unread);
            smtp_server_secured(&run.server, 0);
            give(&run, SLICE_LITERAL("MAIL FROM:<>\r\n"));
            assert_true(slice_equal(buffer_slice(&run.wire),
                                    SLICE_LITERAL("503 5.5.1 Send EHLO first\r\n")));
        }
        end(&run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_at_every_two_positions),
        cmocka_unit_test(lines_around_buffer_edges),
        cmocka_unit_test(unsent_replies_stop_the_reading),
        cmocka_unit_test(idle_session_holds_nothing),
        cmocka_unit_test(nothing_follows_starttls),
    };
    return cmocka_run_group_tests_name("smtp_server", tests, NULL, NULL);
}
