/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/told.h"

#include <stdio.h>
#include <string.h>

#include "sim/sim.h"

enum attribute { ADDR = 1, PORT = 2, PROTO = 4, HELO = 8, LOGIN = 16, NAME = 32, REVERSE = 64 };

static const struct {
    const char *name;
    enum attribute attribute;
} attributes[TOLD_ATTRIBUTES] = {{"ADDR", ADDR},           {"PORT", PORT},   {"PROTO", PROTO},
                                 {"HELO", HELO},           {"LOGIN", LOGIN}, {"NAME", NAME},
                                 {"REVERSE_NAME", REVERSE}};

static bool chance(unsigned per_mille)
{
    return per_mille > 0 && sim_chance(per_mille);
}

/* ---- offers ---------------------------------------------------------------------------------- */

/* Whether the address is among it; nobody is told of by less. */
static bool offer(const char *command, enum attribute others, const struct server_mood *mood,
                  struct buffer *out)
{
    bool all = chance(mood->offers_all), has_address = false;
    buffer_printf(out, "250-%s", command);
    for (size_t i = 0; i < TOLD_ATTRIBUTES; i++) {
        if ((attributes[i].attribute & others) == 0 && (all || sim_chance(700))) {
            buffer_printf(out, " %s", attributes[i].name);
            has_address = has_address || attributes[i].attribute == ADDR;
        }
    }
    buffer_append_text(out, "\r\n");
    return has_address;
}

void told_offer(struct told *told, const struct server_mood *mood, struct buffer *out)
{
    told->presentable = chance(mood->offers_xclient) && offer("XCLIENT", 0, mood, out);
    told->offers_xforward = chance(mood->offers_xforward);
    told->forwardable = told->offers_xforward && offer("XFORWARD", LOGIN | REVERSE, mood, out);
}

bool told_hello(struct told *told, struct slice name)
{
    snprintf(told->hello, sizeof(told->hello), "%.*s", SLICE_PRINT(name));
    bool refused = told->client_refused;
    told->client_refused = false;
    return !refused;
}

/* ---- what is told ---------------------------------------------------------------------------- */

static bool decode(struct slice value, char ret_text[32])
{
    static const char digits[] = "0123456789ABCDEF";
    size_t length = 0;
    for (size_t i = 0; i < value.length && length < 31; i++) {
        int octet = value.data[i];
        if (octet == '+' && i + 2 < value.length) {
            const char *high = strchr(digits, value.data[i + 1]);
            const char *low = strchr(digits, value.data[i + 2]);
            octet =
                high == NULL || low == NULL ? 0 : (int)(high - digits) * 16 + (int)(low - digits);
            i += 2;
        }
        ret_text[length++] = (char)octet;
    }
    ret_text[length] = '\0';
    return length > 0;
}

static bool take_address(struct ledger_origin *origin, struct slice value)
{
    bool v6 = slice_starts_fold(value, SLICE_LITERAL("IPV6:"));
    origin->has_address = true;
    return ip_from_text(slice_skip(value, v6 ? 5 : 0), &origin->client.address) &&
           ip_is_v4(&origin->client.address) == !v6;
}

static bool take_value(struct told *told, enum attribute attribute, struct slice value)
{
    struct ledger_origin *origin = &told->origin;
    uint64_t number;
    bool unavailable = slice_equal(value, SLICE_LITERAL("[UNAVAILABLE]"));
    if ((attribute & (NAME | REVERSE)) != 0 && slice_equal(value, SLICE_LITERAL("[TEMPUNAVAIL]"))) {
        return true;
    }
    switch (unavailable ? 0 : attribute) {
    case ADDR:
        return take_address(origin, value);
    case PORT:
        origin->has_port = slice_to_u64(value, &number);
        origin->client.port = origin->has_port ? (uint16_t)number : 0;
        return origin->has_port;
    case PROTO:
        origin->has_protocol = true;
        origin->is_extended = slice_equal(value, SLICE_LITERAL("ESMTP"));
        return origin->is_extended || slice_equal(value, SLICE_LITERAL("SMTP"));
    case HELO:
        return decode(value, origin->helo);
    case LOGIN:
        return decode(value, origin->login);
    case NAME:
        told->has_name = true;
        return decode(value, told->name);
    case REVERSE:
        told->has_reverse_name = true;
        return decode(value, told->reverse_name);
    default:
        return unavailable;
    }
}

/* Both commands begin anew: what is not told is not known. */
static bool take_words(struct told *told, struct slice words)
{
    told->attributes = 0;
    told->origin = (struct ledger_origin){0};
    told->has_name = told->has_reverse_name = false;
    while (words.length > 0) {
        struct slice word = slice_take(words, slice_find(words, ' '));
        struct slice name = slice_take(word, slice_find(word, '='));
        enum attribute attribute = 0;
        for (size_t i = 0; i < TOLD_ATTRIBUTES; i++) {
            if (slice_equal(name, slice_from_text(attributes[i].name))) {
                attribute = attributes[i].attribute;
            }
        }
        if (attribute == 0 || (told->attributes & attribute) != 0 ||
            !take_value(told, attribute, slice_skip(word, name.length + 1))) {
            return false;
        }
        told->attributes |= attribute;
        words = slice_skip(words, word.length + 1);
    }
    return true;
}

const char *told_xclient(struct told *told, const struct server_mood *mood, struct slice words,
                         struct ledger *ledger)
{
    if (!told->presentable || told->proxied) {
        ledger_fault(ledger, "XCLIENT where it is not offered");
    }
    if (chance(mood->xclient_refused)) {
        static const char *const replies[] = {"550 5.7.0 you?", "501 5.5.4 what?",
                                              "451 4.3.0 not now"};
        told->xclient_refused = true;
        return replies[sim_draw(3)];
    }
    if (!take_words(told, words)) {
        ledger_fault(ledger, "XCLIENT cannot be read: %.*s", SLICE_PRINT(words));
    }
    told->presented = true;
    told->forwarded = false;
    if (chance(mood->client_cut)) {
        ledger_disturb_all(ledger);
        return NULL;
    }
    if (chance(mood->client_421)) {
        ledger_disturb_all(ledger);
        return "421 4.7.0 too many of yours";
    }
    bool for_good = chance(mood->client_5xx);
    if (for_good || chance(mood->client_4xx)) {
        ledger_refuse_client(ledger, &told->origin.client);
        told->client_refused = true;
        return for_good ? "554 5.7.1 not from there" : "450 4.7.1 not from there now";
    }
    return "220 sim.test ESMTP";
}

const char *told_xforward(struct told *told, const struct server_mood *mood, struct slice words,
                          struct ledger *ledger)
{
    if (!told->offers_xforward || told->proxied || told->presented) {
        ledger_fault(ledger, "XFORWARD where it is not offered");
    }
    told->forwarded = false;
    if (chance(mood->xforward_refused)) {
        told->xforward_refused = true;
        return sim_chance(500) ? "501 5.5.4 what?" : "451 4.3.0 not now";
    }
    if (!take_words(told, words)) {
        ledger_fault(ledger, "XFORWARD cannot be read: %.*s", SLICE_PRINT(words));
    }
    told->forwarded = true;
    return "250 2.0.0 yes";
}

void told_reset(struct told *told)
{
    told->forwarded = false;
}

/* ---- PROXY, version 2 ------------------------------------------------------------------------ */

size_t told_header(struct told *told, struct slice bytes, struct ledger *ledger)
{
    static const char mark[] = "\r\n\r\n\0\r\nQUIT\n";
    if (told->begun || bytes.length == 0 || bytes.data[0] != '\r') {
        told->begun = told->begun || bytes.length > 0;
        return 0;
    }
    size_t length = bytes.length < 16 ? 16 : 16 + (size_t)(bytes.data[14] << 8 | bytes.data[15]);
    if (bytes.length < length) {
        return SIZE_MAX;
    }
    const uint8_t *at = bytes.data;
    bool local = at[12] == 0x20, v4 = at[13] == 0x11;
    size_t width = v4 ? 4 : 16;
    told->begun = told->proxied = true;
    told->presented = !local;
    if (memcmp(at, mark, 12) != 0 ||
        (!local && (at[12] != 0x21 || (!v4 && at[13] != 0x21) || length < 20 + 2 * width))) {
        ledger_fault(ledger, "no PROXY header");
    } else if (!local) {
        struct ledger_origin *origin = &told->origin;
        static const struct ip_address nobody;
        told->attributes = ADDR | PORT;
        (void)ip_from_text(SLICE_LITERAL("0.0.0.0"), &origin->client.address);
        memcpy(origin->client.address.bytes + 16 - width, at + 16, width);
        if (!v4) {
            memcpy(origin->client.address.bytes, at + 16, width);
        }
        origin->has_address = !ip_equal(&origin->client.address, &nobody);
        origin->client.port = (uint16_t)(at[16 + 2 * width] << 8 | at[17 + 2 * width]);
        origin->has_port = origin->client.port != 0;
    }
    return length;
}

/* ---- the verdict ----------------------------------------------------------------------------- */

/* The name that DNS has for the address; only those of 192.0.2.0/24 lead back. */
static bool names_are_right(const struct told *told, const struct ledger_origin *client)
{
    char name[32];
    struct ip_address network;
    (void)ip_from_text(SLICE_LITERAL("192.0.2.0"), &network);
    snprintf(name, sizeof(name), "a%u.test", client->client.address.bytes[15]);
    bool has_name = client->has_address && ip_is_v4(&client->client.address);
    bool leads_back = has_name && memcmp(client->client.address.bytes, network.bytes, 15) == 0;
    return (!told->has_name || (leads_back && strcmp(told->name, name) == 0)) &&
           (!told->has_reverse_name || (has_name && strcmp(told->reverse_name, name) == 0));
}

/* What differs, or NULL. */
static const char *difference(const struct told *told, const struct ledger_origin *client)
{
    const struct ledger_origin *said = &told->origin;
    if ((told->attributes & ADDR) != 0 &&
        (said->has_address != client->has_address ||
         (said->has_address && !ip_equal(&said->client.address, &client->client.address)))) {
        return "address";
    }
    if ((told->attributes & PORT) != 0 && said->client.port != client->client.port) {
        return "port";
    }
    if ((told->attributes & PROTO) != 0 &&
        (said->has_protocol != client->has_protocol || said->is_extended != client->is_extended)) {
        return "protocol";
    }
    if ((told->attributes & HELO) != 0 && strcmp(said->helo, client->helo) != 0) {
        return "HELO name";
    }
    if (told->presented && !told->proxied && client->helo[0] != '\0' &&
        strcmp(told->hello, client->helo) != 0) {
        return "name in EHLO";
    }
    if ((told->attributes & LOGIN) != 0 && strcmp(said->login, client->login) != 0) {
        return "login";
    }
    return names_are_right(told, client) ? NULL : "name";
}

void told_check(const struct told *told, struct ledger *ledger, const char *server, uint32_t number)
{
    static const struct ledger_origin nobody;
    bool is_told = told->presented || told->forwarded;
    if (number == LEDGER_NOBODY) {
        if (told->presented) {
            ledger_fault(ledger, "%s: our own mail comes as a client's", server);
        } else if (told->forwarded && difference(told, &nobody) != NULL) {
            ledger_fault(ledger, "%s: our own mail is said to be a client's", server);
        }
        return;
    }
    const struct ledger_origin *client = &ledger->messages[number].origin;
    const char *what = is_told ? difference(told, client) : NULL;
    if (what != NULL) {
        char his[IP_TEXT_SIZE], said[IP_TEXT_SIZE];
        ip_to_text(&client->client.address, his);
        ip_to_text(&told->origin.client.address, said);
        ledger_fault(ledger,
                     "%s: message %u arrives with another %s: of %s %u %s %s, said to be of %s %u "
                     "%s %s",
                     server, number, what, his, client->client.port, client->helo, client->login,
                     said, told->origin.client.port,
                     told->presented ? told->hello : told->origin.helo, told->origin.login);
    }
    bool may_be_silent = !told->proxied && (!told->presentable || told->xclient_refused) &&
                         (!told->forwardable || told->xforward_refused);
    if (ledger->telling && !is_told && !may_be_silent) {
        ledger_fault(ledger, "%s: message %u arrives as ours", server, number);
    }
    if (is_told && what == NULL) {
        ledger->told[told->proxied     ? TOLD_BY_PROXY
                     : told->presented ? TOLD_BY_XCLIENT
                                       : TOLD_BY_XFORWARD]++;
    }
}
