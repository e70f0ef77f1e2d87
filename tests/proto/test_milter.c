/* SPDX-License-Identifier: Apache-2.0
 *
 * The mail server's side against packets written by hand as libmilter writes them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "proto/milter.h"

#include <stdio.h>

enum { COMMAND_MS = 30000, CONTENT_MS = 300000 };

struct filter {
    struct milter *milter;
    struct milter_event event;
    int64_t now_ms;
};

static bool macro(void *context, struct slice name, struct slice *ret_value)
{
    (void)context;
    if (slice_equal(name, SLICE_LITERAL("client_addr"))) {
        *ret_value = SLICE_LITERAL("192.0.2.1");
    } else if (slice_equal(name, SLICE_LITERAL("i"))) {
        *ret_value = SLICE_LITERAL("id4711");
    } else if (slice_equal(name, SLICE_LITERAL("j"))) {
        *ret_value = SLICE_LITERAL("mx2.example.net");
    } else {
        return false;
    }
    return true;
}

/* ---- packets --------------------------------------------------------------------------------- */

static void put_packet(struct buffer *to, char command, struct slice data)
{
    uint32_t length = (uint32_t)data.length + 1;
    const uint8_t head[5] = {(uint8_t)(length >> 24), (uint8_t)(length >> 16),
                             (uint8_t)(length >> 8), (uint8_t)length, (uint8_t)command};
    buffer_append(to, slice_make(head, 5));
    buffer_append(to, data);
}

static void says(struct filter *filter, char command, struct slice data)
{
    struct buffer packet;
    buffer_init(&packet, 0);
    put_packet(&packet, command, data);
    milter_input(filter->milter, buffer_slice(&packet), filter->now_ms);
    buffer_done(&packet);
}

#define SAYS(filter, command, text) says(filter, command, SLICE_LITERAL(text))

/* That all which has been sent is these packets, in turn: command, data. */
static void heard(struct filter *filter, size_t count, const char *commands,
                  const struct slice *data)
{
    struct buffer expected;
    struct slice output = milter_output(filter->milter);
    buffer_init(&expected, 0);
    for (size_t i = 0; i < count; i++) {
        put_packet(&expected, commands[i], data[i]);
    }
    assert_int_equal(output.length, expected.length);
    assert_memory_equal(output.data, expected.data, expected.length);
    milter_sent(filter->milter, output.length, filter->now_ms);
    buffer_done(&expected);
}

#define HEARD(filter, command, text)                                                               \
    heard(filter, 1, (char[]){command}, (struct slice[]){SLICE_LITERAL(text)})
#define HEARD_TWO(filter, first, first_text, second, second_text)                                  \
    heard(filter, 2, (char[]){first, second},                                                      \
          (struct slice[]){SLICE_LITERAL(first_text), SLICE_LITERAL(second_text)})

static void expect(struct filter *filter, enum milter_event_kind kind)
{
    assert_true(milter_next(filter->milter, &filter->event));
    assert_int_equal(filter->event.kind, kind);
}

static void expect_verdict(struct filter *filter, enum milter_verdict verdict)
{
    expect(filter, MILTER_VERDICT);
    assert_int_equal(filter->event.verdict, verdict);
    assert_false(milter_next(filter->milter, &filter->event));
}

static void expect_broken(struct filter *filter, const char *why)
{
    expect(filter, MILTER_BROKEN);
    if (!slice_equal(filter->event.text, slice_from_text(why))) {
        fail_msg("'%.*s' is not '%s'", SLICE_PRINT(filter->event.text), why);
    }
    assert_false(milter_next(filter->milter, &filter->event));
    assert_false(milter_helo(filter->milter, SLICE_LITERAL("x"), filter->now_ms));
    assert_int_equal(milter_output(filter->milter).length, 0);
}

static void is(struct slice value, const char *text)
{
    assert_int_equal(value.length, strlen(text));
    assert_memory_equal(value.data, text, value.length);
}

/* ---- a session ------------------------------------------------------------------------------- */

static void meet(struct filter *filter)
{
    *filter = (struct filter){.now_ms = 1000};
    filter->milter = milter_new(&(struct milter_settings){.may = MILTER_MAY_ALL,
                                                          .command_timeout_ms = COMMAND_MS,
                                                          .content_timeout_ms = CONTENT_MS,
                                                          .macro = macro},
                                filter->now_ms);
    assert_non_null(filter->milter);
    HEARD(filter, 'O', "\0\0\0\6\0\0\1\xff\0\x1f\xf7\xff");
}

/* With these bits of protocol. */
static void begin(struct filter *filter, uint32_t protocol)
{
    uint8_t answer[12] = {0, 0, 0, 6, 0, 0, 1, 0xff};
    for (int i = 0; i < 4; i++) {
        answer[8 + i] = (uint8_t)(protocol >> (24 - 8 * i));
    }
    meet(filter);
    says(filter, 'O', slice_make(answer, 12));
    expect(filter, MILTER_READY);
    assert_int_equal(milter_deadline(filter->milter), INT64_MAX);
}

static void end(struct filter *filter)
{
    milter_free(filter->milter);
}

static bool connects(struct filter *filter, const char *address)
{
    struct ip_endpoint client = {.port = 4711};
    assert_true(ip_from_text(slice_from_text(address), &client.address));
    return milter_connect(filter->milter, SLICE_LITERAL("host.example"), &client, filter->now_ms);
}

/* To the end of the header. */
static void send_header(struct filter *filter)
{
    struct milter *milter = filter->milter;
    assert_false(connects(filter, "192.0.2.1"));
    assert_false(milter_helo(milter, SLICE_LITERAL("c"), filter->now_ms));
    assert_false(milter_mail(milter, SLICE_LITERAL("a@b"), SLICE_EMPTY, filter->now_ms));
    assert_false(milter_rcpt(milter, SLICE_LITERAL("c@d"), SLICE_EMPTY, filter->now_ms));
    assert_false(milter_data(milter, filter->now_ms));
    assert_false(milter_header(milter, SLICE_LITERAL("A"), SLICE_LITERAL(" b"), filter->now_ms));
    assert_false(milter_eoh(milter, filter->now_ms));
    milter_sent(milter, milter_output(milter).length, filter->now_ms);
}

/* Nothing is answered before the end. */
enum { SILENT = 0xdf080 };

static void goes_through_a_session(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, 0);
    assert_true(connects(&filter, "192.0.2.1"));
    HEARD_TWO(&filter, 'D', "Cj\0mx2.example.net\0{client_addr}\000192.0.2.1\0", 'C',
              "host.example\0004\x12\x67"
              "192.0.2.1\0");
    assert_int_equal(milter_deadline(filter.milter), 1000 + COMMAND_MS);
    assert_false(milter_next(filter.milter, &filter.event));
    SAYS(&filter, 'c', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_true(milter_helo(filter.milter, SLICE_LITERAL("client"), filter.now_ms));
    HEARD(&filter, 'H', "client\0");
    SAYS(&filter, 'c', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_true(
        milter_mail(filter.milter, SLICE_EMPTY, SLICE_LITERAL("SIZE=1  BODY=7BIT"), filter.now_ms));
    HEARD_TWO(&filter, 'D', "Mi\0id4711\0", 'M', "<>\0SIZE=1\0BODY=7BIT\0");
    SAYS(&filter, 'c', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_true(milter_rcpt(filter.milter, SLICE_LITERAL("a@b"), SLICE_EMPTY, filter.now_ms));
    HEARD_TWO(&filter, 'D', "Ri\0id4711\0", 'R', "<a@b>\0");
    SAYS(&filter, 'c', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_true(milter_data(filter.milter, filter.now_ms));
    HEARD_TWO(&filter, 'D', "Ti\0id4711\0", 'T', "");
    SAYS(&filter, 'c', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_true(milter_header(filter.milter, SLICE_LITERAL("Subject"), SLICE_LITERAL(" a\r\n\tb"),
                              filter.now_ms));
    HEARD(&filter, 'L', "Subject\0a\n\tb\0");
    assert_int_equal(milter_deadline(filter.milter), 1000 + CONTENT_MS);
    SAYS(&filter, 'c', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_true(milter_eoh(filter.milter, filter.now_ms));
    HEARD_TWO(&filter, 'D', "Ni\0id4711\0", 'N', "");
    SAYS(&filter, 'c', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_true(milter_body(filter.milter, SLICE_LITERAL("one\r\n"), filter.now_ms));
    HEARD(&filter, 'B', "one\r\n");
    SAYS(&filter, 's', "");
    expect(&filter, MILTER_BROKEN); /* skipping was not agreed on */
    end(&filter);
}

static void steps_may_be_left_out(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, 0x27f); /* all but the end */
    assert_false(milter_wants(filter.milter, MILTER_HEADER));
    assert_false(milter_wants(filter.milter, MILTER_BODY));
    send_header(&filter);
    assert_false(milter_body(filter.milter, SLICE_LITERAL("x"), filter.now_ms));
    assert_int_equal(milter_output(filter.milter).length, 0);
    assert_true(milter_end(filter.milter, filter.now_ms));
    HEARD_TWO(&filter, 'D', "Ei\0id4711\0", 'E', "");
    end(&filter);
}

static void filters_may_be_silent(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, SILENT);
    assert_false(connects(&filter, "2001:db8::1"));
    HEARD_TWO(&filter, 'D', "Cj\0mx2.example.net\0{client_addr}\000192.0.2.1\0", 'C',
              "host.example\0006\x12\x67"
              "2001:db8::1\0");
    send_header(&filter);
    assert_false(milter_body(filter.milter, SLICE_LITERAL("x"), filter.now_ms));
    assert_true(milter_end(filter.milter, filter.now_ms));
    end(&filter);
}

static void filters_choose_macros(void **state)
{
    (void)state;
    struct filter filter;
    meet(&filter);
    says(&filter, 'O',
         SLICE_LITERAL("\0\0\0\6\0\0\1\xff\0\0\0\0\0\0\0\0{client_addr},j {no}\0\0\0\0\2\0"));
    expect(&filter, MILTER_READY);
    assert_true(connects(&filter, "192.0.2.1"));
    HEARD_TWO(&filter, 'D', "C{client_addr}\000192.0.2.1\0j\0mx2.example.net\0", 'C',
              "host.example\0004\x12\x67"
              "192.0.2.1\0");
    SAYS(&filter, 'c', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_true(milter_mail(filter.milter, SLICE_EMPTY, SLICE_EMPTY, filter.now_ms));
    HEARD(&filter, 'M', "<>\0"); /* it wants none there */
    end(&filter);
}

static void header_values_keep_their_blank(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, 0x100000);
    assert_true(milter_header(filter.milter, SLICE_LITERAL("A"), SLICE_LITERAL(" b\rc\r\n d\r\n"),
                              filter.now_ms));
    HEARD(&filter, 'L', "A\0 b\rc\n d\n\0");
    end(&filter);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void accepted_sessions_are_asked_no_more(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, 0);
    assert_true(connects(&filter, "192.0.2.1"));
    SAYS(&filter, 'a', "");
    expect_verdict(&filter, MILTER_ACCEPT);
    assert_false(milter_helo(filter.milter, SLICE_LITERAL("c"), filter.now_ms));
    assert_false(milter_mail(filter.milter, SLICE_EMPTY, SLICE_EMPTY, filter.now_ms));
    assert_false(milter_end(filter.milter, filter.now_ms));
    end(&filter);
}

/* libmilter takes SMFIC_QUIT_NC in one state only, and is deaf from then on in any other. */
static void another_session_follows_a_message_only(void **state)
{
    (void)state;
    static const char verdicts[] = "cadrt";
    struct filter filter;
    begin(&filter, 0);
    assert_false(milter_quit(filter.milter, true, filter.now_ms)); /* nothing but connect */
    HEARD(&filter, 'Q', "");
    end(&filter);
    for (const char *verdict = verdicts; *verdict != 0; verdict++) {
        begin(&filter, 0);
        assert_true(milter_end(filter.milter, filter.now_ms));
        milter_sent(filter.milter, milter_output(filter.milter).length, filter.now_ms);
        says(&filter, *verdict, SLICE_EMPTY);
        expect(&filter, MILTER_VERDICT);
        assert_int_equal(milter_quit(filter.milter, true, filter.now_ms), *verdict == 'c');
        if (*verdict == 'c') {
            HEARD(&filter, 'K', "");
            assert_true(connects(&filter, "192.0.2.1"));
        } else {
            HEARD(&filter, 'Q', "");
        }
        end(&filter);
    }
    begin(&filter, SILENT);
    assert_true(milter_end(filter.milter, filter.now_ms));
    SAYS(&filter, 'c', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_false(milter_mail(filter.milter, SLICE_EMPTY, SLICE_EMPTY, filter.now_ms));
    milter_abort(filter.milter, filter.now_ms);
    assert_false(milter_quit(filter.milter, true, filter.now_ms)); /* a second message, given up */
    end(&filter);
}

static void accepted_messages_are_asked_no_more(void **state)
{
    (void)state;
    static const char verdicts[] = "adrt";
    for (const char *verdict = verdicts; *verdict != 0; verdict++) {
        struct filter filter;
        begin(&filter, 0);
        assert_true(milter_mail(filter.milter, SLICE_EMPTY, SLICE_EMPTY, filter.now_ms));
        says(&filter, *verdict, SLICE_EMPTY);
        expect(&filter, MILTER_VERDICT);
        assert_false(milter_rcpt(filter.milter, SLICE_LITERAL("a"), SLICE_EMPTY, filter.now_ms));
        assert_false(milter_end(filter.milter, filter.now_ms));
        assert_true(milter_mail(filter.milter, SLICE_EMPTY, SLICE_EMPTY, filter.now_ms));
        end(&filter);
    }
}

static void refused_recipients_are_refused_alone(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, 0);
    assert_true(milter_rcpt(filter.milter, SLICE_LITERAL("a"), SLICE_EMPTY, filter.now_ms));
    SAYS(&filter, 'r', "");
    expect_verdict(&filter, MILTER_REJECT);
    assert_true(milter_rcpt(filter.milter, SLICE_LITERAL("b"), SLICE_EMPTY, filter.now_ms));
    SAYS(&filter, 'a', ""); /* but this is about the message */
    expect_verdict(&filter, MILTER_ACCEPT);
    assert_false(milter_data(filter.milter, filter.now_ms));
    end(&filter);
}

static void expect_reply(struct slice reply, enum milter_verdict verdict, unsigned code,
                         const char *enhanced, const char *text)
{
    struct filter filter;
    begin(&filter, 0);
    assert_true(milter_end(filter.milter, filter.now_ms));
    says(&filter, 'y', reply);
    expect(&filter, MILTER_VERDICT);
    assert_int_equal(filter.event.verdict, verdict);
    assert_int_equal(filter.event.code, code);
    is(filter.event.enhanced, enhanced);
    is(filter.event.text, text);
    end(&filter);
}

static void replies_are_taken_apart(void **state)
{
    (void)state;
    expect_reply(SLICE_LITERAL("550 5.7.1 go away\0"), MILTER_REJECT, 550, "5.7.1", "go away");
    expect_reply(SLICE_LITERAL("451 later\0"), MILTER_TEMPFAIL, 451, "", "later");
    expect_reply(SLICE_LITERAL("451 5.7.1 later\0"), MILTER_TEMPFAIL, 451, "", "5.7.1 later");
    expect_reply(SLICE_LITERAL("550 5.7.1\0"), MILTER_REJECT, 550, "5.7.1", "");
    expect_reply(SLICE_LITERAL("550 5.7.1234 x\0"), MILTER_REJECT, 550, "", "5.7.1234 x");
    expect_reply(SLICE_LITERAL("550-5.7.1 one\r\n550 5.7.1 two\0"), MILTER_REJECT, 550, "5.7.1",
                 "one");
    expect_reply(SLICE_LITERAL("550 100%% of it%%%%, 3%\0"), MILTER_REJECT, 550, "",
                 "100% of it%%, 3%");
    expect_reply(SLICE_LITERAL("554"), MILTER_REJECT, 554, "", "");
    expect_reply(SLICE_LITERAL("421 4.3.2 down\0"), MILTER_HANG_UP, 421, "4.3.2", "down");
}

static void steps_are_skipped(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, 0x400);
    assert_true(milter_body(filter.milter, SLICE_LITERAL("x"), filter.now_ms));
    SAYS(&filter, 's', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_false(milter_body(filter.milter, SLICE_LITERAL("x"), filter.now_ms));
    assert_true(milter_end(filter.milter, filter.now_ms));
    SAYS(&filter, 'c', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_true(milter_mail(filter.milter, SLICE_EMPTY, SLICE_EMPTY, filter.now_ms));
    SAYS(&filter, 'c', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_true(milter_header(filter.milter, SLICE_LITERAL("A"), SLICE_LITERAL(" b"), 1000));
    SAYS(&filter, 's', "");
    expect_verdict(&filter, MILTER_CONTINUE);
    assert_false(milter_header(filter.milter, SLICE_LITERAL("A"), SLICE_LITERAL(" b"), 1000));
    assert_true(milter_body(filter.milter, SLICE_LITERAL("x"), filter.now_ms));
    end(&filter);
}

/* ---- changes --------------------------------------------------------------------------------- */

static void tells_changes(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, SILENT);
    send_header(&filter);
    assert_true(milter_end(filter.milter, filter.now_ms));
    SAYS(&filter, 'h', "X-Spam\0 yes\n\tvery\0");
    SAYS(&filter, 'i', "\0\0\0\1Authentication-Results\0mx2; none\0");
    SAYS(&filter, 'm', "\0\0\0\2Subject\0\0");
    SAYS(&filter, '+', "<more@example.org>\0");
    SAYS(&filter, '2', "<other@example.org>\0NOTIFY=NEVER\0");
    SAYS(&filter, '-', "<less@example.org>\0");
    SAYS(&filter, 'e', "<new@example.org>\0SIZE=1\0");
    SAYS(&filter, 'b', "new body\r\n");
    SAYS(&filter, 'q', "looks bad\0");
    SAYS(&filter, 'c', "");
    expect(&filter, MILTER_ADD_HEADER);
    assert_true(filter.event.needs_blank);
    is(filter.event.name, "X-Spam");
    is(filter.event.value, " yes\n\tvery");
    expect(&filter, MILTER_INSERT_HEADER);
    assert_int_equal(filter.event.index, 1);
    is(filter.event.value, "mx2; none");
    expect(&filter, MILTER_CHANGE_HEADER);
    assert_int_equal(filter.event.index, 2);
    is(filter.event.name, "Subject");
    is(filter.event.value, "");
    expect(&filter, MILTER_ADD_RECIPIENT);
    is(filter.event.value, "<more@example.org>");
    is(filter.event.parameters, "");
    expect(&filter, MILTER_ADD_RECIPIENT);
    is(filter.event.parameters, "NOTIFY=NEVER");
    expect(&filter, MILTER_DEL_RECIPIENT);
    is(filter.event.value, "<less@example.org>");
    expect(&filter, MILTER_CHANGE_SENDER);
    is(filter.event.value, "<new@example.org>");
    expect(&filter, MILTER_REPLACE_BODY);
    is(filter.event.bytes, "new body\r\n");
    expect(&filter, MILTER_QUARANTINE);
    is(filter.event.value, "looks bad");
    expect_verdict(&filter, MILTER_CONTINUE);
    end(&filter);
}

static void breaks(char command, struct slice data, const char *why)
{
    struct filter filter;
    begin(&filter, SILENT);
    send_header(&filter);
    assert_true(milter_end(filter.milter, filter.now_ms));
    says(&filter, command, data);
    expect_broken(&filter, why);
    end(&filter);
}

static void values_bring_their_blank_if_agreed(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, SILENT | 0x100000);
    send_header(&filter);
    assert_true(milter_end(filter.milter, filter.now_ms));
    SAYS(&filter, 'h', "X-Spam\0 yes\0");
    expect(&filter, MILTER_ADD_HEADER);
    assert_false(filter.event.needs_blank);
    end(&filter);
}

/* A packet that is nearly as large as may be, and in the same bytes others. */
static void packets_follow_large_ones(void **state)
{
    (void)state;
    static uint8_t value[MILTER_PACKET_MAX - 1];
    struct filter filter;
    struct buffer bytes;
    memset(value, 'x', sizeof(value));
    buffer_init(&bytes, 0);
    put_packet(&bytes, 'b', slice_make(value, sizeof(value)));
    put_packet(&bytes, 'b', slice_make(value, sizeof(value) / 2));
    put_packet(&bytes, 'c', SLICE_EMPTY);
    begin(&filter, SILENT);
    send_header(&filter);
    assert_true(milter_end(filter.milter, filter.now_ms));
    milter_input(filter.milter, buffer_slice(&bytes), filter.now_ms);
    expect(&filter, MILTER_REPLACE_BODY);
    expect(&filter, MILTER_REPLACE_BODY);
    expect_verdict(&filter, MILTER_CONTINUE);
    buffer_done(&bytes);
    end(&filter);
}

static void sessions_cannot_be_discarded(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, 0);
    assert_true(connects(&filter, "192.0.2.1"));
    SAYS(&filter, 'd', "");
    expect_broken(&filter, "a packet of an unknown kind, or out of place");
    end(&filter);
}

static void malformed_changes_break(void **state)
{
    (void)state;
    static const char why[] = "a change that is malformed";
    breaks('h', SLICE_LITERAL("no end"), why);
    breaks('h', SLICE_LITERAL("Name\0no end"), why);
    breaks('h', SLICE_LITERAL("\0value\0"), why);
    breaks('h', SLICE_LITERAL("A:B\0value\0"), why);
    breaks('h', SLICE_LITERAL("A B\0value\0"), why);
    breaks('h', SLICE_LITERAL("A\0value\r\nBcc: all\0"), why);
    breaks('h', SLICE_LITERAL("A\0value\n\0"), why);
    breaks('h', SLICE_LITERAL("A\0va\rlue\0"), why);
    breaks('i', SLICE_LITERAL("\0\0\0"), why);
    breaks('m', SLICE_LITERAL("\0\0\0\1"), why);
    breaks('+', SLICE_LITERAL("<a@b>"), why);
    breaks('+', SLICE_LITERAL("<a@b>\r\nDATA\0"), why);
    breaks('e', SLICE_LITERAL("<a@b>\0A\nB\0"), why);
    breaks('q', SLICE_EMPTY, why);
    breaks('y', SLICE_LITERAL("250 fine\0"), "a reply that is none");
    breaks('y', SLICE_LITERAL("55"), "a reply that is none");
    breaks('y', SLICE_LITERAL("550_x\0"), "a reply that is none");
    breaks('?', SLICE_EMPTY, "a packet of an unknown kind, or out of place");
    breaks('O', SLICE_EMPTY, "a packet of an unknown kind, or out of place");
}

static void changes_have_their_time(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, 0);
    assert_true(milter_eoh(filter.milter, filter.now_ms));
    SAYS(&filter, 'h', "A\0b\0");
    expect_broken(&filter, "a change out of place, or not agreed on");
    end(&filter);
    meet(&filter);
    says(&filter, 'O', SLICE_LITERAL("\0\0\0\6\0\0\0\1\0\0\0\0")); /* headers only */
    expect(&filter, MILTER_READY);
    assert_true(milter_end(filter.milter, filter.now_ms));
    SAYS(&filter, 'h', "A\0b\0");
    expect(&filter, MILTER_ADD_HEADER);
    SAYS(&filter, 'b', "x");
    expect_broken(&filter, "a change out of place, or not agreed on");
    end(&filter);
}

static void changes_are_bounded(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, SILENT);
    for (int message = 0; message < 2; message++) {
        assert_false(milter_mail(filter.milter, SLICE_EMPTY, SLICE_EMPTY, filter.now_ms));
        assert_true(milter_end(filter.milter, filter.now_ms));
        for (int i = 0; i < MILTER_CHANGES_MAX; i++) {
            SAYS(&filter, '+', "a\0");
            expect(&filter, MILTER_ADD_RECIPIENT);
        }
        if (message == 0) {
            SAYS(&filter, 'c', "");
            expect_verdict(&filter, MILTER_CONTINUE);
        }
    }
    SAYS(&filter, '+', "a\0");
    expect_broken(&filter, "too many changes");
    end(&filter);
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

static void negotiates_wrongly(struct slice answer, const char *why)
{
    struct filter filter;
    meet(&filter);
    says(&filter, 'O', answer);
    expect_broken(&filter, why);
    end(&filter);
}

static void wrong_negotiations_break(void **state)
{
    (void)state;
    struct filter filter;
    negotiates_wrongly(SLICE_LITERAL("\0\0\0\6\0\0\0\0"), "a short negotiation");
    negotiates_wrongly(SLICE_LITERAL("\0\0\0\1\0\0\0\0\0\0\0\0"), "a version that we do not speak");
    negotiates_wrongly(SLICE_LITERAL("\0\0\0\7\0\0\0\0\0\0\0\0"), "a version that we do not speak");
    negotiates_wrongly(SLICE_LITERAL("\0\0\0\6\0\0\2\0\0\0\0\0"),
                       "it wants to change what we do not let it change");
    negotiates_wrongly(SLICE_LITERAL("\0\0\0\6\0\0\0\0\x10\0\0\0"),
                       "it wants a protocol that we do not speak");
    negotiates_wrongly(SLICE_LITERAL("\0\0\0\6\0\0\0\0\0\0\0\0\0\0\0\0j"),
                       "a broken list of macros");
    negotiates_wrongly(SLICE_LITERAL("\0\0\0\6\0\0\0\0\0\0\0\0\0\0\0"), "a broken list of macros");
    meet(&filter);
    SAYS(&filter, 'c', "");
    expect_broken(&filter, "no negotiation");
    end(&filter);
}

static void broken_connections_are_told(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, 0);
    SAYS(&filter, 'c', "");
    expect_broken(&filter, "an answer that nobody asked for");
    end(&filter);
    begin(&filter, 0);
    milter_input(filter.milter, SLICE_LITERAL("\0\0\0\0"), 1000);
    expect_broken(&filter, "a packet too large, or empty");
    end(&filter);
    begin(&filter, 0);
    milter_input(filter.milter, SLICE_LITERAL("\0\x20\0\0"), 1000);
    expect_broken(&filter, "a packet too large, or empty");
    end(&filter);
    begin(&filter, 0);
    milter_lost(filter.milter);
    expect_broken(&filter, "connection lost");
    milter_lost(filter.milter);
    assert_false(milter_next(filter.milter, &filter.event));
    end(&filter);
}

static void time_runs_out(void **state)
{
    (void)state;
    struct filter filter;
    meet(&filter);
    assert_int_equal(milter_deadline(filter.milter), 1000 + COMMAND_MS);
    milter_expire(filter.milter);
    expect_broken(&filter, "no answer in time");
    end(&filter);
    begin(&filter, 0);
    assert_true(milter_end(filter.milter, 1000));
    filter.now_ms = 200000;
    SAYS(&filter, 'p', "");
    assert_false(milter_next(filter.milter, &filter.event));
    assert_int_equal(milter_deadline(filter.milter), 200000 + CONTENT_MS);
    filter.now_ms = 2900000; /* it says so for ever */
    SAYS(&filter, 'p', "");
    assert_false(milter_next(filter.milter, &filter.event));
    assert_int_equal(milter_deadline(filter.milter), 1000 + MILTER_PROGRESS_MAX * CONTENT_MS);
    end(&filter);
}

static void messages_are_given_up(void **state)
{
    (void)state;
    struct filter filter;
    begin(&filter, SILENT);
    assert_false(milter_mail(filter.milter, SLICE_EMPTY, SLICE_EMPTY, filter.now_ms));
    milter_sent(filter.milter, milter_output(filter.milter).length, filter.now_ms);
    milter_abort(filter.milter, filter.now_ms);
    HEARD(&filter, 'A', "");
    assert_false(milter_quit(filter.milter, false, filter.now_ms));
    HEARD(&filter, 'Q', "");
    assert_true(milter_end(filter.milter, filter.now_ms));
    milter_abort(filter.milter, filter.now_ms);
    expect_broken(&filter, "given up while it was asked");
    end(&filter);
}

/* Byte by byte it is the same. */
static void packets_come_in_pieces(void **state)
{
    (void)state;
    struct filter filter;
    static const uint8_t bytes[] = "\0\0\0\7hA\0 b\0\0\0\0\1c";
    begin(&filter, 0);
    assert_true(milter_end(filter.milter, filter.now_ms));
    for (size_t i = 0; i + 1 < sizeof(bytes); i++) {
        milter_input(filter.milter, slice_make(&bytes[i], 1), filter.now_ms);
        if (i == 10 || i == 15) {
            expect(&filter, i == 15 ? MILTER_VERDICT : MILTER_ADD_HEADER);
        } else {
            assert_false(milter_next(filter.milter, &filter.event));
        }
    }
    end(&filter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_through_a_session),
        cmocka_unit_test(steps_may_be_left_out),
        cmocka_unit_test(filters_may_be_silent),
        cmocka_unit_test(filters_choose_macros),
        cmocka_unit_test(header_values_keep_their_blank),
        cmocka_unit_test(accepted_sessions_are_asked_no_more),
        cmocka_unit_test(another_session_follows_a_message_only),
        cmocka_unit_test(accepted_messages_are_asked_no_more),
        cmocka_unit_test(refused_recipients_are_refused_alone),
        cmocka_unit_test(replies_are_taken_apart),
        cmocka_unit_test(steps_are_skipped),
        cmocka_unit_test(tells_changes),
        cmocka_unit_test(values_bring_their_blank_if_agreed),
        cmocka_unit_test(packets_follow_large_ones),
        cmocka_unit_test(sessions_cannot_be_discarded),
        cmocka_unit_test(malformed_changes_break),
        cmocka_unit_test(changes_have_their_time),
        cmocka_unit_test(changes_are_bounded),
        cmocka_unit_test(wrong_negotiations_break),
        cmocka_unit_test(broken_connections_are_told),
        cmocka_unit_test(time_runs_out),
        cmocka_unit_test(messages_are_given_up),
        cmocka_unit_test(packets_come_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
