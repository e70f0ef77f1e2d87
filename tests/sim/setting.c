/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/setting.h"

#include <assert.h>
#include <stdlib.h>

#include "sim/bringer.h"
#include "sim/sim.h"

enum { ROUTES = 3, CHAIN_MAX = 3, RETRIES = 3, LISTENERS = 2, SITE = SETTING_SERVERS };

struct setting {
    struct server_address addresses[SETTING_SERVERS];
    struct server_config servers[SETTING_SERVERS + 1]; /* and the site that calls, or not */
    uint32_t place[SETTING_SERVERS];                   /* of each in `servers`, or NO_INDEX */
    uint32_t server_count;
    struct domain_pattern domains[ROUTES];
    struct ip_network relay_clients;
    uint32_t chains[ROUTES][CHAIN_MAX];
    uint32_t retry_ms[RETRIES];
    struct route_config routes[ROUTES];
    uint32_t route_count;
    struct ip_network trusted[2], balancers[2];
    struct listener_config listeners[LISTENERS];
    struct service_config config;
};

/* ---- places ---------------------------------------------------------------------------------- */

static struct ip_address address(const char *text)
{
    struct ip_address address;
    bool ok = ip_from_text(slice_from_text(text), &address);
    assert(ok);
    (void)ok;
    return address;
}

bool setting_server_is_lmtp(enum setting_server server)
{
    return server == L1;
}

struct ip_endpoint setting_server_at(enum setting_server server)
{
    struct ip_endpoint at = {.address = address("192.0.2.0"),
                             .port = setting_server_is_lmtp(server) ? 24 : 25};
    at.address.bytes[15] = (uint8_t)(server + 1);
    return at;
}

const char *setting_server_name(enum setting_server server)
{
    static const char *const names[SETTING_SERVERS] = {"m1", "m2", "m3", "l1", "o1"};
    return names[server];
}

struct ip_endpoint setting_listener(void)
{
    return (struct ip_endpoint){.address = address("192.0.2.100"), .port = 25};
}

struct ip_endpoint setting_odmr_listener(void)
{
    return (struct ip_endpoint){.address = address("192.0.2.100"), .port = 366};
}

struct ip_address setting_relay_client(void)
{
    return address("198.51.100.7");
}

/* ---- parts ----------------------------------------------------------------------------------- */

static void add_server(struct setting *setting, enum setting_server server, uint32_t hold_5xx_ms)
{
    uint32_t place = setting->server_count++;
    struct ip_endpoint at = setting_server_at(server);
    setting->place[server] = place;
    setting->addresses[place] =
        (struct server_address){.literal = at.address, .is_literal = true, .port = at.port};
    if (server == M2) {
        setting->addresses[place].is_literal = false;
        setting->addresses[place].host = SLICE_LITERAL("a2.test");
    }
    setting->servers[place] = (struct server_config){
        .name = slice_from_text(setting_server_name(server)),
        .addresses = &setting->addresses[place],
        .address_count = 1,
        .protocol = setting_server_is_lmtp(server) ? SERVER_LMTP : SERVER_SMTP,
        .tls = SERVER_TLS_NONE,
        .connections = 4,
        .connect_timeout_ms = 30000,
        .greeting_timeout_ms = 60000,
        .probe_interval_ms = 700,
        .failover = NO_INDEX,
        .hold_5xx_after_recovery_ms = hold_5xx_ms,
        .xclient = true,
    };
}

/* `chain` names servers, SETTING_SERVERS ends it; those that are not configured are left out. */
static struct route_config *add_route(struct setting *setting, const enum setting_server *chain)
{
    uint32_t index = setting->route_count++;
    struct route_config *route = &setting->routes[index];
    *route = (struct route_config){
        .chain = setting->chains[index],
        .retry_ms = setting->retry_ms,
        .retry_count = RETRIES,
        .keep_ms = 30ULL * 86400000,
        .keep_max_ms = 90ULL * 86400000,
        .order_patience_ms = SETTING_PATIENCE_MS,
    };
    for (; *chain != SETTING_SERVERS; chain++) {
        if (setting->place[*chain] != NO_INDEX) {
            setting->chains[index][route->chain_length++] = setting->place[*chain];
        }
    }
    assert(route->chain_length > 0);
    return route;
}

/* The exchangers behind so many of its servers; the rest of them are behind the exchangers. */
static void follow_dns(struct route_config *route, uint32_t before, uint32_t servers)
{
    route->mx = true;
    route->chain_length = servers < route->chain_length ? servers : route->chain_length;
    route->mx_place = before < route->chain_length ? before : route->chain_length;
}

static void follow_dns_perhaps(struct route_config *route)
{
    if (sim_draw(3) == 0) {
        uint32_t servers = (uint32_t)sim_draw(3);
        follow_dns(route, (uint32_t)sim_draw(2), servers);
    }
}

static struct route_config *add_domain(struct setting *setting, const char *name,
                                       const enum setting_server *chain)
{
    struct route_config *route = add_route(setting, chain);
    struct domain_pattern *pattern = &setting->domains[route - setting->routes];
    pattern->name = slice_from_text(name);
    route->kind = ROUTE_DOMAIN;
    route->name = pattern->name;
    route->domains = pattern;
    route->domain_count = 1;
    return route;
}

static struct route_config *add_relay(struct setting *setting, const enum setting_server *chain)
{
    setting->relay_clients = (struct ip_network){address("198.51.100.0"), 96 + 24};
    struct route_config *route = add_route(setting, chain);
    route->kind = ROUTE_RELAY;
    route->name = SLICE_LITERAL("outgoing");
    route->from = &setting->relay_clients;
    route->from_count = 1;
    return route;
}

static void finish(struct setting *setting, bool bounces)
{
    static const struct slice domains[] = {SLICE_LITERAL("example.test")};
    static const struct odmr_user user = {.name = SLICE_LITERAL(SETTING_SITE),
                                          .password = SLICE_LITERAL(SETTING_SITE_PASSWORD),
                                          .domains = domains,
                                          .domain_count = 1};
    setting->trusted[0] = (struct ip_network){address(BRINGER_SERVERS), 96 + BRINGER_BITS};
    setting->trusted[1] = (struct ip_network){address(BRINGER_RELAY_SERVERS), 96 + BRINGER_BITS};
    setting->balancers[0] = (struct ip_network){address(BRINGER_BALANCERS), 96 + BRINGER_BITS};
    setting->balancers[1] =
        (struct ip_network){address(BRINGER_RELAY_BALANCERS), 96 + BRINGER_BITS};
    setting->listeners[0] = (struct listener_config){.name = SLICE_LITERAL("mx"),
                                                     .at = setting_listener(),
                                                     .trusted = {setting->trusted, 2},
                                                     .believes_login = true,
                                                     .sender_check = SENDER_CHECK_NONE,
                                                     .proxies = {setting->balancers, 2}};
    setting->listeners[1] = (struct listener_config){.name = SLICE_LITERAL("odmr"),
                                                     .at = setting_odmr_listener(),
                                                     .protocol = LISTENER_ODMR,
                                                     .odmr_users = &user,
                                                     .odmr_user_count = 1};
    setting->config = (struct service_config){
        .hostname = SLICE_LITERAL("mx2.example.test"),
        .listeners = setting->listeners,
        .listener_count = LISTENERS,
        .limits = {.connections = 1000,
                   .connections_per_client = 1000,
                   .recipients = 100,
                   .message_bytes = 10 << 20,
                   .line_bytes = 4096,
                   .header_bytes = 256 << 10,
                   .commands = 1000,
                   .errors = 20,
                   .command_timeout_ms = 300000,
                   .session_timeout_ms = 3600000,
                   .hops = 100},
        .relay = {.servers = setting->servers,
                  .server_count = setting->server_count,
                  .routes = setting->routes,
                  .route_count = setting->route_count,
                  .bounces = NO_INDEX,
                  .hostname = SLICE_LITERAL("mx2.example.test"),
                  .exchanger = {.connections = 4,
                                .tls = SERVER_TLS_NONE,
                                .connect_timeout_ms = 30000,
                                .greeting_timeout_ms = 60000,
                                .probe_interval_ms = 700,
                                .failover = NO_INDEX,
                                .hold_5xx_after_recovery_ms = 5000},
                  .dead_letter_keep_ms = 30ULL * 86400000},
        .reserve_bytes = 1 << 20,
        .content_memory_bytes = 64 << 20,
        .trace_keep_ms = 30ULL * 86400000,
        .large_content_bytes = 200 << 10,
        .segment_bytes = 1 << 20,
        .log_level = LOG_LEVEL_ERROR,
    };
    for (uint32_t i = 0; bounces && i < setting->route_count; i++) {
        if (setting->routes[i].kind == ROUTE_RELAY) {
            setting->config.relay.bounces = i;
        }
    }
}

static struct setting *begin(void)
{
    struct setting *setting = calloc(1, sizeof(*setting));
    assert(setting != NULL);
    for (enum setting_server server = 0; server < SETTING_SERVERS; server++) {
        setting->place[server] = NO_INDEX;
    }
    return setting;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static const enum setting_server example_chains[][CHAIN_MAX + 1] = {
    {M1, M2, M3, SETTING_SERVERS},
    {M2, M1, SETTING_SERVERS},
    {M3, M2, M1, SETTING_SERVERS},
};
static const enum setting_server lmtp_chains[][CHAIN_MAX + 1] = {
    {L1, M3, SETTING_SERVERS},
    {L1, SETTING_SERVERS},
    {M1, L1, SETTING_SERVERS},
};
static const enum setting_server relay_chains[][CHAIN_MAX + 1] = {
    {O1, M2, SETTING_SERVERS},
    {O1, SETTING_SERVERS},
    {M2, O1, SETTING_SERVERS},
};

static struct setting *begin_plain(void)
{
    struct setting *setting = begin();
    for (enum setting_server server = 0; server < SETTING_SERVERS; server++) {
        add_server(setting, server, 5000);
    }
    setting->retry_ms[0] = 5000;
    setting->retry_ms[1] = 20000;
    setting->retry_ms[2] = 60000;
    return setting;
}

struct setting *setting_new_mx(void)
{
    struct setting *setting = begin_plain();
    follow_dns(add_domain(setting, "example.test", example_chains[0]), 0, 0);
    follow_dns(add_domain(setting, "lmtp.test", lmtp_chains[0]), 1, 1);
    follow_dns(add_relay(setting, relay_chains[0]), 0, 0);
    finish(setting, true);
    return setting;
}

struct setting *setting_new_odmr(void)
{
    struct setting *setting = begin_plain();
    setting->servers[setting->server_count++] =
        (struct server_config){.name = SLICE_LITERAL(SETTING_SITE),
                               .protocol = SERVER_ODMR,
                               .tls = SERVER_TLS_NONE,
                               .connections = 1,
                               .connect_timeout_ms = 30000,
                               .greeting_timeout_ms = 60000,
                               .probe_interval_ms = 700,
                               .failover = NO_INDEX,
                               .hold_5xx_after_recovery_ms = 5000};
    struct route_config *route = add_domain(setting, "example.test", example_chains[0]);
    route->chain_length = 1;
    setting->chains[route - setting->routes][0] = SITE;
    add_domain(setting, "lmtp.test", lmtp_chains[0]);
    add_relay(setting, relay_chains[0]);
    finish(setting, true);
    return setting;
}

struct setting *setting_new_plain(void)
{
    struct setting *setting = begin_plain();
    add_domain(setting, "example.test", example_chains[0]);
    add_domain(setting, "lmtp.test", lmtp_chains[0]);
    add_relay(setting, relay_chains[0]);
    finish(setting, true);
    return setting;
}

struct setting *setting_new_drawn(void)
{
    static const uint32_t holds_ms[] = {0, 0, 5000, 600000};
    struct setting *setting = begin();
    uint32_t hold_ms = holds_ms[sim_draw(4)];
    bool backwards = sim_draw(2) == 0;
    for (uint32_t i = 0; i < SETTING_SERVERS; i++) {
        enum setting_server server = backwards ? SETTING_SERVERS - 1 - i : i;
        if (server != M3 || sim_draw(4) > 0) {
            add_server(setting, server, hold_ms);
        }
    }
    for (uint32_t i = 0; i < RETRIES; i++) {
        setting->retry_ms[i] = 2000 + (uint32_t)sim_draw(60000);
    }
    bool relay_first = sim_draw(2) == 0;
    if (relay_first) {
        follow_dns_perhaps(add_relay(setting, relay_chains[sim_draw(3)]));
    }
    if (sim_draw(6) > 0) { /* else its mail is orphaned */
        add_domain(setting, "lmtp.test", lmtp_chains[sim_draw(3)]);
    }
    follow_dns_perhaps(add_domain(setting, "example.test", example_chains[sim_draw(3)]));
    if (!relay_first) {
        follow_dns_perhaps(add_relay(setting, relay_chains[sim_draw(3)]));
    }
    finish(setting, sim_draw(5) > 0); /* without: dead letters */
    return setting;
}

struct setting *setting_new_told(void)
{
    struct setting *setting = begin_plain();
    for (uint32_t i = 0; i < setting->server_count; i++) {
        setting->servers[i].proxy = sim_draw(3) == 0 ? SERVER_PROXY_V2 : SERVER_PROXY_OFF;
        setting->servers[i].connections = 1 + (uint32_t)sim_draw(4);
    }
    add_domain(setting, "example.test", example_chains[sim_draw(3)]);
    add_domain(setting, "lmtp.test", lmtp_chains[sim_draw(3)]);
    add_relay(setting, relay_chains[sim_draw(3)]);
    finish(setting, true);
    return setting;
}

void setting_free(struct setting *setting)
{
    free(setting);
}

const struct service_config *setting_config(const struct setting *setting)
{
    return &setting->config;
}
