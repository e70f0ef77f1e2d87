/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "proto/smtp_reply.h"

static struct smtp_reply_parser parser;

static enum smtp_reply_status parse(struct slice input, struct smtp_reply *ret_reply)
{
    smtp_reply_parser_init(&parser);
    enum smtp_reply_status status = SMTP_REPLY_MORE;
    struct slice line;
    while (input.length > 0 && (status == SMTP_REPLY_MORE || status == SMTP_REPLY_LINE)) {
        status = smtp_reply_parse(&parser, &input, &line);
    }
    if (status == SMTP_REPLY_COMPLETE) {
        smtp_reply_get(&parser, ret_reply);
    }
    return status;
}

static void assert_text(const struct smtp_reply *reply, const char *text)
{
    assert_int_equal(reply->text.length, strlen(text));
    assert_memory_equal(reply->text.data, text, strlen(text));
}

static void takes_one_line(void **state)
{
    (void)state;
    struct smtp_reply reply;
    assert_int_equal(parse(SLICE_LITERAL("550 5.1.1 No such user\r\n"), &reply),
                     SMTP_REPLY_COMPLETE);
    assert_int_equal(reply.code, 550);
    assert_int_equal(reply.enhanced[0], 5);
    assert_int_equal(reply.enhanced[1], 1);
    assert_int_equal(reply.enhanced[2], 1);
    assert_text(&reply, "No such user");
}

static void takes_a_code_alone(void **state)
{
    (void)state;
    struct smtp_reply reply;
    assert_int_equal(parse(SLICE_LITERAL("250\r\n"), &reply), SMTP_REPLY_COMPLETE);
    assert_int_equal(reply.text.length, 0);
    assert_int_equal(reply.enhanced[0], 0);
}

static void joins_lines_without_their_codes(void **state)
{
    (void)state;
    struct smtp_reply reply;
    assert_int_equal(
        parse(SLICE_LITERAL("550-5.7.1 You\r\n550-\r\n550 5.7.1 shall not\r\n"), &reply),
        SMTP_REPLY_COMPLETE);
    assert_text(&reply, "You shall not");
    assert_int_equal(reply.enhanced[2], 1);
}

static void takes_only_true_enhanced_codes(void **state)
{
    (void)state;
    static const struct {
        const char *line, *text;
        uint8_t enhanced[3];
    } cases[] = {
        {"550 5.1 no\r\n", "5.1 no", {0, 0, 0}},
        {"550 5.1\r\n", "5.1", {0, 0, 0}},
        {"550 5.1.\r\n", "5.1.", {0, 0, 0}},
        {"550 5.1.1\r\n", "", {5, 1, 1}},
        {"550 4.1.1 no\r\n", "4.1.1 no", {0, 0, 0}},
        {"550 5.1.1x\r\n", "5.1.1x", {0, 0, 0}},
        {"550 5.1000.1 no\r\n", "5.1000.1 no", {0, 0, 0}},
        {"550 5.999.256 no\r\n", "no", {5, 255, 255}},
        {"354 3.0.0 go\r\n", "3.0.0 go", {0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct smtp_reply reply;
        assert_int_equal(parse(slice_from_text(cases[i].line), &reply), SMTP_REPLY_COMPLETE);
        assert_text(&reply, cases[i].text);
        assert_memory_equal(reply.enhanced, cases[i].enhanced, 3);
    }
}

static void text_is_clean(void **state)
{
    (void)state;
    struct smtp_reply reply;
    assert_int_equal(parse(SLICE_LITERAL("550 a\tb\x1b[1m\xff \xc3\xa4\r\n"), &reply),
                     SMTP_REPLY_COMPLETE);
    assert_text(&reply, "a b?[1m? \xc3\xa4");
}

static void refuses_what_is_no_reply(void **state)
{
    (void)state;
    static const struct {
        const char *input, *fault;
    } cases[] = {
        {"\r\n", "no code"},           {"25\r\n", "no code"},
        {"2x0 ok\r\n", "no code"},     {"250ok\r\n", "neither blank nor hyphen"},
        {"150 ok\r\n", "no code"},     {"600 ok\r\n", "no code"},
        {"000 ok\r\n", "no code"},     {"250 ok\n", "bare LF"},
        {"250 a\rb\r\n", "bare CR"},   {"250 a\r\r\n", "bare CR"},
        {"+OK\r\n", "no code"},        {"250-a\r\n251 b\r\n", "different codes"},
        {"250-a\r\nx\r\n", "no code"}, {"HTTP/1.1 400\r\n", "no code"},
        {" 250 ok\r\n", "no code"},    {"-50 ok\r\n", "no code"},
    };
    struct smtp_reply reply;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse(slice_from_text(cases[i].input), &reply), SMTP_REPLY_BROKEN);
        assert_non_null(strstr(smtp_reply_fault(&parser), cases[i].fault));
    }
    assert_int_equal(parse(SLICE_LITERAL("250 a\0b\r\n"), &reply), SMTP_REPLY_BROKEN);
    assert_string_equal(smtp_reply_fault(&parser), "a NUL in a reply");
}

static void bounds_lines_and_their_number(void **state)
{
    (void)state;
    struct smtp_reply reply;
    struct buffer flood;
    buffer_init(&flood, 0);
    buffer_append_text(&flood, "250 ");
    while (flood.length < SMTP_REPLY_LINE_MAX - 2) {
        buffer_append_text(&flood, "x");
    }
    buffer_append_text(&flood, "\r\n");
    assert_int_equal(parse(buffer_slice(&flood), &reply), SMTP_REPLY_COMPLETE);
    assert_int_equal(reply.text.length, SMTP_REPLY_TEXT_MAX);
    flood.data[flood.length - 2] = 'x';
    flood.data[flood.length - 1] = '\r';
    buffer_append_text(&flood, "\n");
    assert_int_equal(parse(buffer_slice(&flood), &reply), SMTP_REPLY_BROKEN);
    flood.length--; /* without its end it is not waited for either */
    buffer_append_text(&flood, "x");
    assert_int_equal(parse(buffer_slice(&flood), &reply), SMTP_REPLY_BROKEN);

    buffer_clear(&flood);
    for (int i = 0; i < SMTP_REPLY_LINES_MAX; i++) {
        buffer_append_text(&flood, "250-x\r\n");
    }
    assert_int_equal(parse(buffer_slice(&flood), &reply), SMTP_REPLY_LINE);
    buffer_append_text(&flood, "250 x\r\n");
    assert_int_equal(parse(buffer_slice(&flood), &reply), SMTP_REPLY_BROKEN);
    buffer_done(&flood);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_one_line),
        cmocka_unit_test(takes_a_code_alone),
        cmocka_unit_test(joins_lines_without_their_codes),
        cmocka_unit_test(takes_only_true_enhanced_codes),
        cmocka_unit_test(text_is_clean),
        cmocka_unit_test(refuses_what_is_no_reply),
        cmocka_unit_test(bounds_lines_and_their_number),
    };
    return cmocka_run_group_tests_name("smtp_reply", tests, NULL, NULL);
}
