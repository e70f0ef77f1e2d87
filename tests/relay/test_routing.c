/* SPDX-License-Identifier: Apache-2.0
 *
 * Routes as configured: exact and wildcard domains, longest match, relays by network, user and
 * sender, postmaster mail, our own DSNs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/routing.h"

#define S(text) SLICE_LITERAL(text)

static const struct domain_pattern first_domains[] = {{S("example.com"), false},
                                                      {S("example.org"), true}};
static const struct domain_pattern second_domains[] = {
    {S("sub.example.org"), true}, {S("mail.example.org"), false}, {S("example.com"), false}};
static const struct sender_pattern ann[] = {{S("ann@*")}, {S("*@*.lists.example")}};

static struct ip_address ip(const char *text)
{
    struct ip_address address;
    assert_true(ip_from_text(slice_from_text(text), &address));
    return address;
}

static struct ip_network networks[2];
static struct route_config routes[4];
static struct relay_config config;

static struct routing *make(void)
{
    assert_true(ip_network_from_text(S("192.0.2.0/24"), &networks[0]));
    assert_true(ip_network_from_text(S("2001:db8::/32"), &networks[1]));
    routes[0] =
        (struct route_config){.kind = ROUTE_DOMAIN, .domains = first_domains, .domain_count = 2};
    routes[1] =
        (struct route_config){.kind = ROUTE_DOMAIN, .domains = second_domains, .domain_count = 3};
    routes[2] = (struct route_config){
        .kind = ROUTE_RELAY, .from = networks, .from_count = 2, .senders = ann, .sender_count = 2};
    routes[3] = (struct route_config){
        .kind = ROUTE_RELAY, .from = networks, .from_count = 1, .any_user = true};
    config = (struct relay_config){.routes = routes,
                                   .route_count = 4,
                                   .bounces = 3,
                                   .hostname = S("mx2.example.net"),
                                   .postmaster = S("admin@example.com")};
    struct routing *routing = routing_new(&config);
    assert_non_null(routing);
    return routing;
}

static void domains_match_exactly_then_by_the_longest_wildcard(void **state)
{
    (void)state;
    struct routing *routing = make();
    assert_int_equal(routing_domain(routing, S("example.com")), 0);
    assert_int_equal(routing_domain(routing, S("EXAMPLE.Com")), 0);
    assert_int_equal(routing_domain(routing, S("a.example.com")), NO_INDEX);
    assert_int_equal(routing_domain(routing, S("example.org")), NO_INDEX);
    assert_int_equal(routing_domain(routing, S("a.b.example.org")), 0);
    assert_int_equal(routing_domain(routing, S("mail.example.org")), 1);
    assert_int_equal(routing_domain(routing, S("x.mail.example.org")), 0);
    assert_int_equal(routing_domain(routing, S("x.sub.example.org")), 1);
    assert_int_equal(routing_domain(routing, S("sub.example.org")), 0);
    assert_int_equal(routing_domain(routing, S("xexample.com")), NO_INDEX);
    assert_int_equal(routing_domain(routing, S("")), NO_INDEX);
    assert_int_equal(routing_domain(routing, S(".")), NO_INDEX);
    assert_int_equal(routing_domain(routing, S("[192.0.2.1]")), NO_INDEX);
    char dots[400];
    memset(dots, '.', sizeof dots);
    assert_int_equal(routing_domain(routing, slice_make(dots, sizeof dots)), NO_INDEX);
    routing_free(routing);
}

static uint32_t find(struct routing *routing, const char *sender, const char *recipient,
                     const char *client, bool user)
{
    struct ip_address address = ip(client);
    struct routing_query query = {.sender = slice_from_text(sender),
                                  .recipient = slice_from_text(recipient),
                                  .client = &address,
                                  .authenticated = user};
    return routing_find(routing, &query);
}

static void the_first_relay_that_matches_client_and_sender_is_taken(void **state)
{
    (void)state;
    struct routing *routing = make();
    assert_int_equal(find(routing, "ann@x", "bob@far.example", "192.0.2.9", false), 2);
    assert_int_equal(find(routing, "ANN@x", "bob@far.example", "2001:db8::1", false), 2);
    assert_int_equal(find(routing, "a@b.lists.example", "bob@far.example", "192.0.2.9", false), 2);
    assert_int_equal(find(routing, "carl@x", "bob@far.example", "192.0.2.9", false), 3);
    assert_int_equal(find(routing, "", "bob@far.example", "192.0.2.9", false), 3);
    assert_int_equal(find(routing, "carl@x", "bob@far.example", "2001:db8::1", false), NO_INDEX);
    assert_int_equal(find(routing, "carl@x", "bob@far.example", "198.51.100.1", true), 3);
    assert_int_equal(find(routing, "ann@x", "bob@far.example", "198.51.100.1", false), NO_INDEX);
    /* A domain of ours goes its way whoever sends, and a quoted @ fools nobody. */
    assert_int_equal(find(routing, "ann@x", "bob@example.com", "192.0.2.9", true), 0);
    assert_int_equal(find(routing, "x@y", "\"a@example.com\"@far.example", "198.51.100.1", false),
                     NO_INDEX);
    assert_int_equal(find(routing, "ann@x", "bob", "192.0.2.9", true), NO_INDEX);
    routing_free(routing);
}

static void postmaster_is_accepted_from_anybody(void **state)
{
    (void)state;
    struct routing *routing = make();
    assert_true(routing_is_postmaster(routing, S("PostMaster")));
    assert_true(routing_is_postmaster(routing, S("postmaster@MX2.example.net")));
    assert_true(routing_is_postmaster(routing, S("abuse@mx2.example.net")));
    assert_false(routing_is_postmaster(routing, S("abuse")));
    assert_false(routing_is_postmaster(routing, S("postmaster@example.com")));
    assert_false(routing_is_postmaster(routing, S("ann@mx2.example.net")));
    assert_int_equal(find(routing, "x@y", "postmaster", "198.51.100.1", false), 0);
    config.postmaster = S("admin@far.example");
    assert_int_equal(find(routing, "x@y", "postmaster", "198.51.100.1", false), 3);
    assert_int_equal(find(routing, "x@y", "Admin@far.example", "198.51.100.1", false), 3);
    config.postmaster = SLICE_EMPTY;
    assert_int_equal(find(routing, "x@y", "postmaster", "198.51.100.1", false), NO_INDEX);
    routing_free(routing);
}

static void our_own_notices_leave_by_bounces_or_a_domain(void **state)
{
    (void)state;
    struct routing *routing = make();
    struct ip_address nobody = ip("::");
    struct routing_query query = {
        .recipient = S("bob@far.example"), .client = &nobody, .own_dsn = true};
    assert_int_equal(routing_find(routing, &query), 3);
    query.recipient = S("bob@example.com");
    assert_int_equal(routing_find(routing, &query), 0);
    config.bounces = NO_INDEX;
    query.recipient = S("bob@far.example");
    assert_int_equal(routing_find(routing, &query), NO_INDEX);
    routing_free(routing);
}

static void relay_clients_are_known_by_their_network(void **state)
{
    (void)state;
    struct routing *routing = make();
    struct ip_address inside = ip("2001:db8::5"), outside = ip("198.51.100.1");
    assert_true(routing_is_relay_client(routing, &inside));
    assert_false(routing_is_relay_client(routing, &outside));
    routing_free(routing);
}

static void thousands_of_domains_are_found(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    struct domain_pattern *domains = calloc(COUNT, sizeof *domains);
    char(*names)[32] = calloc(COUNT, sizeof *names);
    assert_non_null(domains);
    assert_non_null(names);
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "d%zu.example", i);
        domains[i] = (struct domain_pattern){slice_from_text(names[i]), i % 2 == 0};
    }
    struct route_config route = {.kind = ROUTE_DOMAIN, .domains = domains, .domain_count = COUNT};
    struct relay_config many = {.routes = &route, .route_count = 1, .bounces = NO_INDEX};
    struct routing *routing = routing_new(&many);
    assert_non_null(routing);
    for (size_t i = 0; i < COUNT; i++) {
        char name[40];
        snprintf(name, sizeof name, "a.%s", names[i]);
        assert_int_equal(routing_domain(routing, slice_from_text(names[i])),
                         i % 2 == 0 ? NO_INDEX : 0);
        assert_int_equal(routing_domain(routing, slice_from_text(name)), i % 2 == 0 ? 0 : NO_INDEX);
    }
    routing_free(routing);
    free(domains);
    free(names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(domains_match_exactly_then_by_the_longest_wildcard),
        cmocka_unit_test(the_first_relay_that_matches_client_and_sender_is_taken),
        cmocka_unit_test(postmaster_is_accepted_from_anybody),
        cmocka_unit_test(our_own_notices_leave_by_bounces_or_a_domain),
        cmocka_unit_test(relay_clients_are_known_by_their_network),
        cmocka_unit_test(thousands_of_domains_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
