/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "proto/xclient.h"

#include <stdio.h>

static struct xclient_storage storage;

static struct xclient reads(const char *words, unsigned allowed)
{
    struct xclient facts;
    assert_int_equal(xclient_read(slice_from_text(words), allowed, &storage, &facts), ERROR_NONE);
    return facts;
}

static void is(struct slice value, const char *text)
{
    assert_true(slice_equal(value, slice_from_text(text)));
}

static void is_address(const struct ip_address *address, const char *expected)
{
    char text[IP_TEXT_SIZE];
    ip_to_text(address, text);
    assert_string_equal(text, expected);
}

static void puts_as(const struct xclient *facts, unsigned wanted, const char *expected)
{
    struct buffer line;
    buffer_init(&line, 0);
    xclient_put(&line, facts, wanted, 7);
    is(buffer_slice(&line), expected);
    buffer_done(&line);
}

static void finds_what_is_offered(void **state)
{
    (void)state;
    assert_int_equal(xclient_offered(SLICE_LITERAL("NAME ADDR PROTO HELO PORT LOGIN DESTADDR "
                                                   "DESTPORT REVERSE_NAME")),
                     XCLIENT_OF_XCLIENT);
    assert_int_equal(xclient_offered(SLICE_LITERAL(" name  Addr PROTO HELO IDENT SOURCE PORT")),
                     XCLIENT_OF_XFORWARD);
    assert_int_equal(xclient_offered(SLICE_LITERAL("")), 0);
    assert_int_equal(xclient_offered(SLICE_LITERAL("ADDRESS")), 0);
}

static void reads_all(void **state)
{
    (void)state;
    struct xclient facts =
        reads("NAME=host.example ADDR=192.0.2.1 PORT=4711 PROTO=ESMTP HELO=the+20host+2B+3D "
              "LOGIN=ann+40example.org DESTADDR=IPV6:2001:db8::1 DESTPORT=25 "
              "REVERSE_NAME=back.example",
              XCLIENT_OF_XCLIENT);
    assert_int_equal(facts.given, XCLIENT_OF_XCLIENT);
    is(facts.name, "host.example");
    is(facts.helo, "the host+=");
    is(facts.login, "ann@example.org");
    is(facts.reverse_name, "back.example");
    assert_true(facts.has_address && facts.has_port && facts.is_extended);
    is_address(&facts.client.address, "192.0.2.1");
    assert_int_equal(facts.client.port, 4711);
    is_address(&facts.destination.address, "2001:db8::1");
    assert_int_equal(facts.destination.port, 25);
    facts = reads("addr=ipv6:2001:db8::2 name=[tempunavail] reverse_name=[TEMPUNAVAIL] "
                  "port=[unavailable] helo=[UNAVAILABLE] "
                  "proto=smtp",
                  XCLIENT_OF_XCLIENT);
    is_address(&facts.client.address, "2001:db8::2");
    assert_true(facts.name_later && facts.reverse_name_later);
    assert_false(facts.has_port);
    assert_int_equal(facts.helo.length, 0);
    assert_false(facts.is_extended);
    facts = reads("IDENT=4711 SOURCE=LOCAL ADDR=[UNAVAILABLE]", XCLIENT_OF_XFORWARD);
    is(facts.ident, "4711");
    assert_true(facts.is_local);
    assert_false(facts.has_address);
}

static void refuses(void **state)
{
    (void)state;
    static const char *const words[] = {
        "",
        "NAME",
        "NAME=",
        "=x",
        "ADDRESS=192.0.2.1",
        "ADDR=192.0.2.1 ADDR=192.0.2.2",
        "ADDR=192.0.2",
        "ADDR=2001:db8::1",
        "ADDR=IPV6:",
        "ADDR=[TEMPUNAVAIL]",
        "PORT=65536",
        "PORT=-1",
        "PORT=000025",
        "PROTO=HTTP",
        "HELO=a+2",
        "HELO=a+2g",
        "HELO=a+0D+0AQUIT",
        "HELO=a+00",
        "HELO=a=b",
        "HELO=a\tb",
        "NAME=not+20a+20name",
        "IDENT=1",
    };
    struct xclient facts;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        assert_int_equal(
            xclient_read(slice_from_text(words[i]), XCLIENT_OF_XCLIENT, &storage, &facts),
            ERROR_INVALID);
    }
    assert_int_equal(
        xclient_read(SLICE_LITERAL("LOGIN=ann"), XCLIENT_OF_XFORWARD, &storage, &facts),
        ERROR_INVALID);
}

/* Four texts of full length fit the storage, a longer one does not. */
static void bounds_texts(void **state)
{
    (void)state;
    char words[2000], value[XCLIENT_VALUE_MAX + 2] = "";
    struct xclient facts;
    memset(value, 'a', XCLIENT_VALUE_MAX);
    snprintf(words, sizeof(words), "HELO=%s LOGIN=%s IDENT=%s", value, value, value);
    facts = reads(words, ~0u);
    assert_int_equal(facts.ident.length, XCLIENT_VALUE_MAX);
    snprintf(words, sizeof(words), "HELO=%sa", value);
    assert_int_equal(xclient_read(slice_from_text(words), ~0u, &storage, &facts), ERROR_INVALID);
}

static void writes(void **state)
{
    (void)state;
    struct xclient facts = {.given = ~0u,
                            .name = SLICE_LITERAL("host.example"),
                            .helo = SLICE_LITERAL("the host+="),
                            .has_address = true,
                            .has_port = true,
                            .has_protocol = true,
                            .is_extended = true};
    assert_true(ip_from_text(SLICE_LITERAL("2001:db8::2"), &facts.client.address));
    facts.client.port = 4711;
    puts_as(&facts, XCLIENT_ADDR | XCLIENT_NAME | XCLIENT_HELO | XCLIENT_PROTO | XCLIENT_PORT,
            " ADDR=IPV6:2001:db8::2 NAME=host.example HELO=the+20host+2B+3D PROTO=ESMTP PORT=4711");
    puts_as(&facts, XCLIENT_LOGIN | XCLIENT_SOURCE, " LOGIN=[UNAVAILABLE] SOURCE=REMOTE");
    facts.has_protocol = false;
    puts_as(&facts, XCLIENT_PROTO | XCLIENT_REVERSE_NAME,
            " PROTO=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE]");
    facts.given = XCLIENT_NAME;
    facts.name_later = true;
    puts_as(&facts, ~0u, " NAME=[TEMPUNAVAIL]");
    facts = (struct xclient){.given = XCLIENT_ADDR | XCLIENT_PORT | XCLIENT_DESTADDR};
    puts_as(&facts, ~0u, " ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] DESTADDR=[UNAVAILABLE]");
    facts.given = XCLIENT_HELO;
    facts.helo = SLICE_LITERAL("a\r\nQUIT \xc3\xa4");
    puts_as(&facts, ~0u, " HELO=a+0D+0AQUIT+20+C3+A4");
}

/* Nothing is left out, for what came in an earlier command would go on to hold; a text that is too
 * long as it stands in the line, or leaves no room for the rest, is unavailable. */
static void keeps_to_the_line(void **state)
{
    (void)state;
    char text[XCLIENT_VALUE_MAX + 2] = "";
    struct xclient facts = {.given = XCLIENT_ADDR | XCLIENT_HELO | XCLIENT_PORT,
                            .helo = slice_make(text, 86)};
    memset(text, '=', sizeof(text) - 1);
    puts_as(&facts, ~0u, " ADDR=[UNAVAILABLE] HELO=[UNAVAILABLE] PORT=[UNAVAILABLE]");
    memset(text, 'a', sizeof(text) - 1);
    facts.helo = slice_from_text(text);
    puts_as(&facts, ~0u, " ADDR=[UNAVAILABLE] HELO=[UNAVAILABLE] PORT=[UNAVAILABLE]");
    struct buffer line;
    for (size_t i = 7; i < sizeof(text) - 1; i += 8) {
        text[i] = '.';
    }
    for (size_t length = 1; length <= XCLIENT_VALUE_MAX; length += 1 + (length % 8 == 7)) {
        facts.given = ~0u;
        facts.helo = facts.name = facts.login = facts.ident = facts.reverse_name =
            slice_make(text, length);
        buffer_init(&line, 0);
        xclient_put(&line, &facts, ~0u, XCLIENT_COMMAND_MAX);
        assert_true(line.length + XCLIENT_COMMAND_MAX + 2 <= XCLIENT_LINE_MAX);
        struct xclient again;
        assert_int_equal(xclient_read(buffer_slice(&line), ~0u, &storage, &again), ERROR_NONE);
        assert_int_equal(again.given, 2 * XCLIENT_REVERSE_NAME - 1);
        assert_int_equal(again.name.length, length);
        assert_true(length > 50 || again.reverse_name.length == length);
        assert_true(length < 100 || again.reverse_name.length == 0);
        buffer_done(&line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_is_offered),
        cmocka_unit_test(reads_all),
        cmocka_unit_test(refuses),
        cmocka_unit_test(bounds_texts),
        cmocka_unit_test(writes),
        cmocka_unit_test(keeps_to_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
