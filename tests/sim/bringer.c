/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/bringer.h"

#include <stdio.h>
#include <string.h>

#include "sim/sim.h"

/* Few, so that those who are told apart by one attribute alone meet. */
static const char *const strangers[] = {"198.18.0.1",  "198.18.0.2",   "192.0.2.131",
                                        "192.0.2.132", "2001:db8::17", "203.0.113.99"};
static const char *const relay_clients[] = {"198.51.100.7",   "198.51.100.8",   "198.51.100.131",
                                            "198.51.100.132", "198.51.100.133", "198.51.100.134"};
static const char *const names[] = {"a.client.test", "b.client.test", "a+b=c.test",
                                    "[192.0.2.131]"};
static const char *const logins[] = {"ann", "bob+x", "c=d@client.test"};
enum { ADDRESSES = 6, NAMES = 4, LOGINS = 3, PORTS = 3 };

static struct ip_address address_of(const char *text, unsigned more)
{
    struct ip_address address;
    (void)ip_from_text(slice_from_text(text), &address);
    address.bytes[15] = (uint8_t)(address.bytes[15] + more);
    return address;
}

static struct ip_address draw_address(bool relay)
{
    return address_of((relay ? relay_clients : strangers)[sim_draw(ADDRESSES)], 0);
}

static uint16_t draw_port(void)
{
    return (uint16_t)(40000 + sim_draw(PORTS));
}

static void copy(char to[32], const char *text)
{
    snprintf(to, 32, "%s", text);
}

void bringer_draw(struct bringer *bringer, bool relay)
{
    static const char *const from[2][4] = {
        {NULL, BRINGER_BALANCERS, BRINGER_SERVERS, BRINGER_SERVERS},
        {NULL, BRINGER_RELAY_BALANCERS, BRINGER_RELAY_SERVERS, BRINGER_RELAY_SERVERS}};
    *bringer = (struct bringer){.way = sim_draw(4)};
    bringer->source = bringer->way == COMES_ITSELF
                          ? draw_address(relay)
                          : address_of(from[relay][bringer->way], (unsigned)sim_draw(3));
    bringer->to_present = bringer->way == BRINGS_BY_XCLIENT ? 1 + (unsigned)sim_draw(2) : 0;
}

void bringer_connected(struct bringer *bringer, const struct ip_endpoint *from)
{
    bringer->origin =
        (struct ledger_origin){.has_address = true, .has_port = true, .client = *from};
}

/* ---- PROXY ----------------------------------------------------------------------------------- */

static void put_text_header(const struct ip_endpoint *client, struct buffer *to)
{
    char text[IP_TEXT_SIZE];
    bool v4 = ip_is_v4(&client->address);
    ip_to_text(&client->address, text);
    buffer_printf(to, "PROXY %s %s %s %u 25\r\n", v4 ? "TCP4" : "TCP6", text,
                  v4 ? "192.0.2.100" : "2001:db8::100", client->port);
}

static void put_binary_header(const struct ip_endpoint *client, struct buffer *to)
{
    static const char mark[] = "\r\n\r\n\0\r\nQUIT\n";
    bool v4 = ip_is_v4(&client->address);
    size_t width = v4 ? 4 : 16, items = sim_chance(500) ? 7 : 0;
    uint8_t head[4] = {0x21, v4 ? 0x11 : 0x21, 0, (uint8_t)(2 * width + 4 + items)};
    uint8_t ports[4] = {(uint8_t)(client->port >> 8), (uint8_t)client->port, 0, 25};
    buffer_append(to, slice_make(mark, 12));
    buffer_append(to, slice_make(head, 4));
    buffer_append(to, slice_make(client->address.bytes + 16 - width, width));
    buffer_append(to, slice_make(client->address.bytes + 16 - width, width));
    buffer_append(to, slice_make(ports, 4));
    buffer_append(to, slice_make("\x04\0\4none", items)); /* PP2_TYPE_NOOP */
}

void bringer_put_header(struct bringer *bringer, struct buffer *to)
{
    static const char mark[] = "\r\n\r\n\0\r\nQUIT\n\x20\0\0";
    if (bringer->way != BRINGS_BY_PROXY) {
        return;
    }
    if (sim_chance(100)) { /* its own: LOCAL */
        buffer_append(to, slice_make(mark, 16));
        return;
    }
    struct ip_address relay_network = address_of("198.51.100.0", 0);
    bool relay = memcmp(bringer->source.bytes, relay_network.bytes, 15) == 0;
    bringer->origin.client.address = draw_address(relay);
    bringer->origin.client.port = draw_port();
    if (sim_chance(500)) {
        put_text_header(&bringer->origin.client, to);
    } else {
        put_binary_header(&bringer->origin.client, to);
    }
}

/* ---- XCLIENT and XFORWARD -------------------------------------------------------------------- */

static void put_xtext(struct buffer *to, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '+' || *text == '=') {
            buffer_printf(to, "+%02X", (unsigned)*text);
        } else {
            buffer_printf(to, "%c", *text);
        }
    }
}

static void put_address(struct buffer *to, const struct ledger_origin *origin)
{
    char text[IP_TEXT_SIZE];
    ip_to_text(&origin->client.address, text);
    buffer_printf(to, " ADDR=%s%s",
                  !origin->has_address || ip_is_v4(&origin->client.address) ? "" : "IPV6:",
                  origin->has_address ? text : "[UNAVAILABLE]");
}

static void put_port(struct buffer *to, struct ledger_origin *origin)
{
    origin->has_port = sim_chance(800);
    origin->client.port = origin->has_port ? draw_port() : 0;
    if (origin->has_port) {
        buffer_printf(to, " PORT=%u", origin->client.port);
    } else if (sim_chance(500)) {
        buffer_append_text(to, " PORT=[UNAVAILABLE]");
    }
}

/* Nothing, or that there is none, where it is not told. */
static bool put_text(struct buffer *to, const char *name, const char *const *all, size_t count,
                     char ret_text[32])
{
    bool is_told = sim_chance(800);
    copy(ret_text, is_told ? all[sim_draw(count)] : "");
    if (is_told || sim_chance(500)) {
        buffer_printf(to, " %s=", name);
        put_xtext(to, is_told ? ret_text : "[UNAVAILABLE]");
    }
    return is_told;
}

static bool put_protocol(struct buffer *to, bool *ret_extended)
{
    bool is_told = sim_chance(700);
    *ret_extended = is_told && sim_chance(500);
    if (is_told) {
        buffer_printf(to, " PROTO=%s", *ret_extended ? "ESMTP" : "SMTP");
    }
    return is_told;
}

void bringer_put_xclient(struct bringer *bringer, bool relay, struct buffer *to)
{
    struct ledger_origin *origin = &bringer->origin;
    buffer_append_text(to, "XCLIENT");
    if (--bringer->to_present > 0) { /* the next one of a row, that may say it as well */
        origin->client.address =
            address_of(relay ? BRINGER_RELAY_SERVERS : BRINGER_SERVERS, (unsigned)sim_draw(3));
    } else {
        origin->has_address = relay || sim_chance(900);
        origin->client.address = origin->has_address ? draw_address(relay) : (struct ip_address){0};
    }
    put_address(to, origin);
    put_port(to, origin);
    bringer->has_helo = put_text(to, "HELO", names, NAMES, origin->helo);
    bringer->has_protocol = put_protocol(to, &origin->is_extended);
    (void)put_text(to, "LOGIN", logins, LOGINS, origin->login);
    buffer_append_text(to, "\r\n");
}

void bringer_put_hello(struct bringer *bringer, struct buffer *to)
{
    struct ledger_origin *origin = &bringer->origin;
    bool extended = bringer->way == BRINGS_BY_XFORWARD || bringer->to_present > 0 ||
                    sim_chance(700); /* it must see that it may */
    const char *name = names[sim_draw(NAMES)];
    name = strchr(name, '+') != NULL ? names[0] : name; /* that one only XCLIENT can tell */
    buffer_printf(to, "%s %s\r\n", extended ? "EHLO" : "HELO", name);
    if (!bringer->has_helo) {
        copy(origin->helo, name);
    }
    if (!bringer->has_protocol) {
        origin->is_extended = extended;
    }
    origin->has_protocol = true;
    bringer->said_ehlo = extended;
}

unsigned bringer_put_xforward(const struct bringer *bringer, struct buffer *to,
                              struct ledger_origin *ret_origin)
{
    struct ledger_origin said = {0};
    *ret_origin = bringer->origin;
    if (bringer->way != BRINGS_BY_XFORWARD || sim_chance(200)) {
        return 0;
    }
    bool has_address = sim_chance(900), in_two = sim_chance(300);
    buffer_append_text(to, "XFORWARD NAME=[UNAVAILABLE] SOURCE=REMOTE");
    if (has_address) {
        said.has_address = true;
        said.client.address = draw_address(false);
        put_address(to, &said);
    }
    put_port(to, &said);
    if (in_two) {
        buffer_append_text(to, "\r\nXFORWARD IDENT=abc");
    }
    (void)put_text(to, "HELO", names, NAMES, said.helo);
    said.has_protocol = put_protocol(to, &said.is_extended);
    buffer_append_text(to, "\r\n");
    if (has_address) {
        *ret_origin = said;
    }
    return in_two ? 2 : 1;
}
