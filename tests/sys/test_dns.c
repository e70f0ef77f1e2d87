/* SPDX-License-Identifier: Apache-2.0
 *
 * Resolving over the loop against a name server of our own on loopback.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "sys/dns.h"
#include "sys/dns_packet.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct world {
    struct loop *loop;
    int socket; /* the name server's */
    struct loop_watch *watch;
    struct dns *dns;
    struct dns_answer answer;
    int answers;
    int questions;
    bool inside; /* dns_resolve() has not returned */
};

/* "l1" is its own first label. */
static const uint8_t mx_records[] = {
    0xc0, 12,   0,  15,   0,  1, 0,  0, 1, 44, 0, 9, 0,  10, 4, 'M', 'x', '-',
    '2',  0xc0, 12, 0xc0, 12, 0, 15, 0, 1, 0,  0, 0, 60, 0,  3, 0,   0,   0, /* null MX */
};
static const uint8_t txt_records[] = {0xc0, 12, 0,   16,  0,   1,   0, 0,   0,   9,   0,
                                      10,   4,  'v', '=', 's', 'p', 4, 'f', '1', ' ', '~'};

/* Answers A with 192.0.2.7, MX and TXT with the records above, a name that begins with 'n' with
 * NXDOMAIN, and AAAA of one that begins with 'f' with SERVFAIL; AAAA and all else with no data. */
static void serve(void *context, unsigned ready)
{
    (void)ready;
    struct world *world = context;
    uint8_t packet[600];
    struct sockaddr_in from;
    socklen_t from_length = sizeof(from);
    ssize_t length =
        recvfrom(world->socket, packet, 512, 0, (struct sockaddr *)&from, &from_length);
    if (length < 17) {
        return;
    }
    size_t end = 12;
    while (end < (size_t)length && packet[end] != 0) {
        end += packet[end] + 1U;
    }
    end += 5;
    world->questions++;
    bool missing = packet[13] == 'n';
    bool fails = packet[13] == 'f' && packet[end - 3] == DNS_TYPE_AAAA;
    static const uint8_t a_record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7};
    struct slice records = SLICE_EMPTY;
    uint8_t count = 0;
    switch (missing ? 0 : packet[end - 3]) {
    case 1:
        records = slice_make(a_record, sizeof(a_record));
        count = 1;
        break;
    case DNS_MX:
        records = slice_make(mx_records, sizeof(mx_records));
        count = 2;
        break;
    case DNS_TXT:
        records = slice_make(txt_records, sizeof(txt_records));
        count = 1;
        break;
    }
    packet[2] = 0x85;
    packet[3] = missing ? 0x83 : fails ? 0x82 : 0x80;
    packet[7] = count;
    memset(packet + 8, 0, 4);
    if (count > 0) {
        memcpy(packet + end, records.data, records.length);
        end += records.length;
    }
    (void)!sendto(world->socket, packet, end, 0, (struct sockaddr *)&from, from_length);
}

static int setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(at);
    world->loop = loop_new();
    world->socket = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (bind(world->socket, (struct sockaddr *)&at, length) != 0 ||
        getsockname(world->socket, (struct sockaddr *)&at, &length) != 0) {
        return -1;
    }
    world->watch = loop_watch_new(world->loop, world->socket, serve, world);
    loop_watch_set(world->watch, LOOP_READ);
    char forwarder[32];
    snprintf(forwarder, sizeof(forwarder), "127.0.0.1@%d", ntohs(at.sin_port));
    const char *forwarders[] = {forwarder};
    struct dns_settings settings = {
        .forwarders = forwarders,
        .forwarder_count = 1,
        .hosts =
            "# local\n192.0.2.1 \t mail.example other # x\n2001:db8::1 mail.example\nbad line\n",
    };
    *state = world;
    return dns_new(world->loop, &settings, &world->dns) == ERROR_NONE ? 0 : -1;
}

static int teardown(void **state)
{
    struct world *world = *state;
    dns_free(world->dns);
    loop_watch_free(world->watch);
    close(world->socket);
    loop_free(world->loop);
    free(world);
    return 0;
}

static void answered(void *context, const struct dns_answer *answer)
{
    struct world *world = context;
    assert_false(world->inside);
    world->answer = *answer;
    world->answers++;
    loop_stop(world->loop);
}

static struct dns_query *resolve(struct world *world, const char *name)
{
    world->inside = true;
    struct dns_query *query = dns_resolve(world->dns, slice_from_text(name), answered, world);
    world->inside = false;
    assert_non_null(query);
    return query;
}

static bool has(const struct dns_answer *answer, const char *text)
{
    struct ip_address address;
    assert_true(ip_from_text(slice_from_text(text), &address));
    for (size_t i = 0; i < answer->count; i++) {
        if (ip_equal(&answer->addresses[i], &address)) {
            return true;
        }
    }
    return false;
}

struct found {
    struct world *world;
    enum error error;
    bool no_name;
    size_t count;
    uint32_t ttl_s;
    char text[4][64];
    unsigned preference[4];
};

static void found_records(void *context, const struct dns_records *records)
{
    struct found *found = context;
    assert_false(found->world->inside);
    found->error = records->error;
    found->no_name = records->no_name;
    found->count = records->count;
    found->ttl_s = records->ttl_s;
    for (size_t i = 0; i < records->count && i < 4; i++) {
        const struct dns_record *record = &records->records[i];
        struct slice text = record->name.length > 0 ? record->name : record->data;
        found->preference[i] = record->preference;
        snprintf(found->text[i], sizeof(found->text[i]), "%.*s", SLICE_PRINT(text));
    }
    loop_stop(found->world->loop);
}

static struct found look_up(struct world *world, const char *name, enum dns_type type)
{
    struct found found = {.world = world};
    world->inside = true;
    assert_non_null(dns_lookup(world->dns, slice_from_text(name), type, found_records, &found));
    world->inside = false;
    loop_run(world->loop);
    return found;
}

static void exchangers_come_with_their_preference(void **state)
{
    struct found found = look_up(*state, "l1.example.com", DNS_MX);
    assert_int_equal(found.error, ERROR_NONE);
    assert_int_equal(found.count, 2);
    size_t first = found.preference[0] == 0; /* in any order: resolvers turn them round */
    assert_int_equal(found.preference[first], 10);
    assert_string_equal(found.text[first], "mx-2.l1.example.com");
    assert_int_equal(found.preference[1 - first], 0);
    assert_string_equal(found.text[1 - first], "."); /* RFC 7505 */
    assert_true(found.ttl_s > 0 && found.ttl_s <= 60);
}

static void strings_of_a_text_are_joined(void **state)
{
    struct found found = look_up(*state, "l1.example.com", DNS_TXT);
    assert_int_equal(found.error, ERROR_NONE);
    assert_int_equal(found.count, 1);
    assert_string_equal(found.text[0], "v=spf1 ~");
}

static void an_address_is_four_bytes(void **state)
{
    struct found found = look_up(*state, "l1.example.com", DNS_A);
    assert_int_equal(found.error, ERROR_NONE);
    assert_int_equal(found.count, 1);
    assert_string_equal(found.text[0], "\xc0"); /* 192, and what ends a text */
}

static void half_an_answer_is_not_whole(void **state)
{
    struct world *world = *state;
    (void)resolve(world, "l1.example.com");
    loop_run(world->loop);
    assert_true(world->answer.error == ERROR_NONE && world->answer.is_whole);
    (void)resolve(world, "f1.example.com");
    loop_run(world->loop);
    assert_true(world->answer.error == ERROR_NONE && world->answer.count == 1);
    assert_false(world->answer.is_whole);
}

/* "a.x" CNAME "B.x", which has an address. */
static void the_name_behind_an_alias_is_told(void **state)
{
    (void)state;
    static const uint8_t packet[] = {0, 0,   0x81, 0x80, 0, 1, 0,   2,    0,  0,    0,  0, 1, 'a',
                                     1, 'x', 0,    0,    1, 0, 1,   0xc0, 12, 0,    5,  0, 1, 0,
                                     0, 0,   9,    0,    4, 1, 'B', 0xc0, 14, 0xc0, 33, 0, 1, 0,
                                     1, 0,   0,    0,    9, 0, 4,   192,  0,  2,    7};
    struct ip_address addresses[1];
    struct dns_addresses found = {.addresses = addresses, .limit = 1};
    assert_true(dns_packet_read(slice_make(packet, sizeof(packet)), DNS_TYPE_A, &found));
    assert_int_equal(found.count, 1);
    assert_true(slice_equal(slice_make(found.owner, found.owner_length), SLICE_LITERAL("b.x")));
    struct dns_found aliases;
    struct arena arena;
    arena_init(&arena);
    assert_int_equal(
        dns_packet_records(slice_make(packet, sizeof(packet)), DNS_CNAME, &arena, &aliases),
        ERROR_NONE);
    assert_int_equal(aliases.count, 1);
    assert_true(slice_equal(aliases.records[0].name, SLICE_LITERAL("b.x")));
    assert_true(slice_equal(aliases.owner, SLICE_LITERAL("a.x")));
    struct dns_found behind;
    assert_int_equal(dns_packet_records(slice_make(packet, sizeof(packet)), DNS_A, &arena, &behind),
                     ERROR_NONE);
    assert_true(slice_equal(behind.owner, SLICE_LITERAL("b.x")));
    arena_done(&arena);
}

static void no_such_record_is_not_no_such_name(void **state)
{
    struct found found = look_up(*state, "l1.example.com", DNS_TLSA);
    assert_int_equal(found.error, ERROR_MISSING);
    assert_false(found.no_name);
    found = look_up(*state, "none.example.com", DNS_MX);
    assert_int_equal(found.error, ERROR_MISSING);
    assert_true(found.no_name);
}

static void a_cancelled_look_up_is_not_answered(void **state)
{
    struct world *world = *state;
    struct found found = {.world = world, .error = ERROR_AGAIN};
    dns_cancel(
        dns_lookup(world->dns, SLICE_LITERAL("l2.example.com"), DNS_MX, found_records, &found));
    (void)look_up(world, "l1.example.com", DNS_TXT);
    assert_int_equal(found.error, ERROR_AGAIN);
}

static void assert_reverse(const char *address, const char *expected)
{
    struct ip_address ip;
    char name[DNS_REVERSE_MAX];
    assert_true(ip_from_text(slice_from_text(address), &ip));
    dns_reverse_name(&ip, name);
    assert_string_equal(name, expected);
}

static void addresses_have_reverse_names(void **state)
{
    (void)state;
    assert_reverse("192.0.2.7", "7.2.0.192.in-addr.arpa");
    assert_reverse("2001:db8::ab", "b.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0."
                                   "8.b.d.0.1.0.0.2.ip6.arpa");
}

static void a_name_gives_its_addresses(void **state)
{
    struct world *world = *state;
    for (int i = 0; i < 2; i++) { /* from the server, then from the cache */
        (void)resolve(world, "m1.example.com");
        loop_run(world->loop);
        assert_int_equal(world->answer.error, ERROR_NONE);
        assert_int_equal(world->answer.count, 1);
        assert_true(has(&world->answer, "192.0.2.7"));
        assert_true(world->answer.ttl_s > 0 && world->answer.ttl_s <= 60);
        assert_false(world->answer.secure);
    }
    assert_int_equal(world->questions, 2);
}

static void no_such_name_is_missing(void **state)
{
    struct world *world = *state;
    (void)resolve(world, "nothing.example.com");
    loop_run(world->loop);
    assert_int_equal(world->answer.error, ERROR_MISSING);
    assert_int_equal(world->answer.count, 0);
    char longer[400];
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    const char *bad[] = {longer, "a..b"};
    for (size_t i = 0; i < 2; i++) {
        (void)resolve(world, bad[i]);
        loop_run(world->loop);
        assert_int_not_equal(world->answer.error, ERROR_NONE);
    }
}

static void hosts_are_known_without_asking(void **state)
{
    struct world *world = *state;
    (void)resolve(world, "mail.example");
    loop_run(world->loop);
    assert_int_equal(world->answer.error, ERROR_NONE);
    assert_int_equal(world->answer.count, 2);
    assert_true(has(&world->answer, "192.0.2.1"));
    assert_true(has(&world->answer, "2001:db8::1"));
    assert_int_equal(world->questions, 0);
}

static void a_cancelled_query_is_silent(void **state)
{
    struct world *world = *state;
    dns_cancel(resolve(world, "m2.example.com"));
    dns_cancel(resolve(world, "mail.example"));
    (void)resolve(world, "m3.example.com");
    loop_run(world->loop);
    assert_int_equal(world->answers, 1);
    /* One is left open when everything is freed. */
    (void)resolve(world, "m4.example.com");
}

/* A response with MX records of these preferences: "xPREFERENCE". */
static void put_exchangers(struct buffer *packet, const uint16_t *preferences, uint16_t count)
{
    const uint8_t head[] = {0, 0, 0x81, 0x80, 0, 0, (uint8_t)(count >> 8), (uint8_t)count,
                            0, 0, 0,    0};
    buffer_append(packet, slice_make(head, sizeof(head)));
    for (uint16_t i = 0; i < count; i++) {
        char name[8];
        int length = snprintf(name, sizeof(name), "x%u", preferences[i]);
        const uint8_t front[] = {0,
                                 0,
                                 DNS_MX,
                                 0,
                                 1,
                                 0,
                                 0,
                                 0,
                                 9,
                                 0,
                                 (uint8_t)(length + 4),
                                 (uint8_t)(preferences[i] >> 8),
                                 (uint8_t)preferences[i],
                                 (uint8_t)length};
        buffer_append(packet, slice_make(front, sizeof(front)));
        buffer_append(packet, slice_make(name, (size_t)length));
        buffer_put_u8(packet, 0);
    }
}

static void of_too_many_exchangers_the_best_are_kept(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    const unsigned steps[] = {1, 3, 7, 33, 99, 101, 177, 199}; /* none divides 200 */
    for (size_t step = 0; step < sizeof(steps) / sizeof(steps[0]); step++) {
        uint16_t preferences[COUNT];
        for (unsigned i = 0; i < COUNT; i++) { /* each once, in many an order */
            preferences[i] = (uint16_t)(i * steps[step] % COUNT);
        }
        struct buffer packet;
        struct arena arena;
        struct dns_found found;
        bool seen[DNS_RECORDS_MAX] = {false};
        buffer_init(&packet, 0);
        arena_init(&arena);
        put_exchangers(&packet, preferences, COUNT);
        assert_int_equal(dns_packet_records(buffer_slice(&packet), DNS_MX, &arena, &found),
                         ERROR_NONE);
        assert_int_equal(found.count, DNS_RECORDS_MAX);
        for (size_t i = 0; i < found.count; i++) {
            assert_true(found.records[i].preference < DNS_RECORDS_MAX);
            assert_false(seen[found.records[i].preference]);
            seen[found.records[i].preference] = true;
        }
        arena_done(&arena);
        buffer_done(&packet);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_name_gives_its_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(no_such_name_is_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(hosts_are_known_without_asking, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancelled_query_is_silent, setup, teardown),
        cmocka_unit_test_setup_teardown(exchangers_come_with_their_preference, setup, teardown),
        cmocka_unit_test_setup_teardown(strings_of_a_text_are_joined, setup, teardown),
        cmocka_unit_test_setup_teardown(an_address_is_four_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(half_an_answer_is_not_whole, setup, teardown),
        cmocka_unit_test(the_name_behind_an_alias_is_told),
        cmocka_unit_test_setup_teardown(no_such_record_is_not_no_such_name, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancelled_look_up_is_not_answered, setup, teardown),
        cmocka_unit_test(of_too_many_exchangers_the_best_are_kept),
        cmocka_unit_test(addresses_have_reverse_names),
    };
    return cmocka_run_group_tests_name("dns", tests, NULL, NULL);
}
