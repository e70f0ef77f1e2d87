/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "relay/access.h"

#define P(text) SLICE_LITERAL(text)

static struct ip_network network(const char *text)
{
    struct ip_network network;
    assert_true(ip_network_from_text(slice_from_text(text), &network));
    return network;
}

static const struct hash_key key = {5, 6};

/* The name of the rule that holds; NULL arguments are not known yet. */
static const char *held(const struct access *access, const char *client, const char *helo,
                        const char *sender)
{
    struct ip_address address;
    assert_true(ip_from_text(slice_from_text(client), &address));
    struct access_query query = {
        .client = &address,
        .has_helo = helo != NULL,
        .helo = slice_from_text(helo != NULL ? helo : ""),
        .has_sender = sender != NULL,
        .sender = slice_from_text(sender != NULL ? sender : ""),
    };
    const struct access_rule *rule = access_find(access, &query);
    return rule == NULL ? "" : (const char *)rule->name.data;
}

static void a_rule_holds_when_all_it_names_holds(void **state)
{
    (void)state;
    struct ip_network nets[] = {network("192.0.2.0/24")};
    struct slice helos[] = {P("*.dyn.example")}, senders[] = {P("*@spam.example"), P("<>")};
    struct access_rule rules[] = {
        {.name = P("net"), .clients = nets, .client_count = 1, .helos = helos, .helo_count = 1},
        {.name = P("from"), .senders = senders, .sender_count = 2},
    };
    struct access *access = access_new(key, rules, 2);
    assert_string_equal(held(access, "192.0.2.1", NULL, NULL), "");
    assert_string_equal(held(access, "192.0.2.1", "a.dyn.example", NULL), "net");
    assert_string_equal(held(access, "198.51.100.1", "a.dyn.example", NULL), "");
    assert_string_equal(held(access, "192.0.2.1", "mail.example", NULL), "");
    assert_string_equal(held(access, "198.51.100.1", "mail.example", "x@spam.example"), "from");
    assert_string_equal(held(access, "198.51.100.1", "mail.example", ""), "from");
    assert_string_equal(held(access, "198.51.100.1", "mail.example", "x@ham.example"), "");
    access_free(access);
}

static void what_allows_comes_first(void **state)
{
    (void)state;
    struct ip_network wide[] = {network("0.0.0.0/0")}, one[] = {network("192.0.2.9")};
    struct slice senders[] = {P("*@partner.example")};
    struct access_rule rules[] = {
        {.name = P("all"), .clients = wide, .client_count = 1},
        {.name = P("second"), .clients = wide, .client_count = 1},
        {.name = P("one"), .allows = true, .clients = one, .client_count = 1},
        {.name = P("partner"), .allows = true, .senders = senders, .sender_count = 1},
    };
    struct access *access = access_new(key, rules, 4);
    assert_string_equal(held(access, "192.0.2.8", NULL, NULL), "all");
    assert_string_equal(held(access, "192.0.2.9", NULL, NULL), "one");
    assert_string_equal(held(access, "192.0.2.8", "x", "ann@partner.example"), "partner");
    assert_string_equal(held(access, "2001:db8::1", NULL, NULL), "");
    access_free(access);
}

static void no_rules(void **state)
{
    (void)state;
    struct access *access = access_new(key, NULL, 0);
    assert_string_equal(held(access, "192.0.2.8", "x", "y@z"), "");
    access_free(access);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rule_holds_when_all_it_names_holds),
        cmocka_unit_test(what_allows_comes_first),
        cmocka_unit_test(no_rules),
    };
    return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
