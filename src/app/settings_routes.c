/* SPDX-License-Identifier: Apache-2.0
 *
 * The domain and relay blocks: patterns, chains, schedules; and what refers to them: bounces and
 * postmaster.
 */
#include "app/settings_internal.h"

#include <ctype.h>
#include <stdlib.h>

struct routes {
    struct settings *settings;
    const struct names *servers;
    struct names domains; /* pattern as written, in lower case, to the line of its block */
    struct names relays;  /* to route indexes */
    struct route_config *all;
    uint32_t count;
    uint32_t domain_blocks;
    const uint32_t **chains; /* of servers by failover, made when first asked for */
    uint32_t *chain_lengths;
    uint8_t *used;                /* by server: is in a chain */
    uint8_t *early;               /* by server: is followed by another in some chain */
    const struct entry **entries; /* scratch of settings_fill() */
};

static struct slice lower(struct settings *settings, struct slice text)
{
    uint8_t *copy = settings_allocate(settings, text.length + 1, 1);
    for (size_t i = 0; copy != NULL && i < text.length; i++) {
        copy[i] = (uint8_t)tolower(text.data[i]);
    }
    return slice_make(copy, copy == NULL ? 0 : text.length);
}

/* ---- chains ------------------------------------------------------------------------------- */

/* The chain that begins at a server and follows failover. */
static const uint32_t *linked_chain(struct routes *routes, uint32_t head, const struct place at,
                                    uint32_t *ret_length)
{
    struct settings *settings = routes->settings;
    const struct server_config *servers = settings->config.relay.servers;
    if (routes->chains[head] == NULL) {
        uint32_t length = 0;
        for (uint32_t i = head; i != NO_INDEX && length <= SETTINGS_CHAIN_MAX;
             i = servers[i].failover) {
            length++;
        }
        if (length > SETTINGS_CHAIN_MAX) {
            settings_complain(settings, at, "deliver-to: the chain has more than %d servers",
                              SETTINGS_CHAIN_MAX);
            return NULL;
        }
        uint32_t *chain = settings_allocate(settings, length, sizeof(*chain));
        if (chain == NULL) {
            return NULL;
        }
        length = 0;
        for (uint32_t i = head; i != NO_INDEX; i = servers[i].failover) {
            chain[length++] = i;
        }
        routes->chains[head] = chain;
        routes->chain_lengths[head] = length;
    }
    *ret_length = routes->chain_lengths[head];
    return routes->chains[head];
}

/* The word mx: from here on as DNS says. Once in a chain. */
static bool take_mx(struct settings *settings, struct route_config *route,
                    const struct value *value, uint32_t place)
{
    if (!slice_equal_fold(value->text, SLICE_LITERAL("mx"))) {
        return false;
    }
    if (route->mx) {
        settings_complain(settings, value->at, "deliver-to: 'mx' is in the list twice");
    }
    route->mx = true;
    route->mx_place = place;
    return true;
}

static bool in_chain(const uint32_t *chain, uint32_t length, uint32_t server)
{
    for (uint32_t i = 0; i < length; i++) {
        if (chain[i] == server) {
            return true;
        }
    }
    return false;
}

static const uint32_t *listed_chain(struct routes *routes, struct route_config *route,
                                    const struct entry *entry, uint32_t *ret_length)
{
    struct settings *settings = routes->settings;
    if (entry->count > SETTINGS_CHAIN_MAX) {
        settings_complain(settings, entry->at, "deliver-to: the chain has more than %d servers",
                          SETTINGS_CHAIN_MAX);
        return NULL;
    }
    uint32_t *chain = settings_allocate(settings, entry->count, sizeof(*chain));
    uint32_t length = 0;
    for (uint32_t i = 0; chain != NULL && i < entry->count; i++) {
        const struct value *value = &entry->values[i];
        if (take_mx(settings, route, value, length)) {
            continue;
        }
        uint32_t server = settings_server_index(settings, routes->servers, value);
        if (server == NO_INDEX) {
            continue;
        }
        if (in_chain(chain, length, server)) {
            settings_complain(settings, value->at, "deliver-to: '%.*s' is in the list twice",
                              SHOWN(value->text));
            continue;
        }
        if (settings->config.relay.servers[server].failover != NO_INDEX) {
            settings_complain(settings, value->at,
                              "deliver-to: server '%.*s' has a failover, and a list is a chain by "
                              "itself; use one or the other",
                              SHOWN(value->text));
        }
        chain[length++] = server;
    }
    *ret_length = length;
    return chain;
}

static void fill_chain(struct routes *routes, struct route_config *route, const struct entry *entry)
{
    uint32_t length = 0;
    if (entry->list) {
        route->chain = listed_chain(routes, route, entry, &length);
    } else if (!take_mx(routes->settings, route, &entry->values[0], 0)) {
        uint32_t head = settings_server_index(routes->settings, routes->servers, &entry->values[0]);
        if (head != NO_INDEX) {
            route->chain = linked_chain(routes, head, entry->values[0].at, &length);
        }
    }
    route->chain_length = length;
    for (uint32_t i = 0; route->chain != NULL && i < length; i++) {
        routes->used[route->chain[i]] = 1;
        if (i + 1 < length || (route->mx && route->mx_place == length)) {
            routes->early[route->chain[i]] = 1;
        }
    }
}

/* ---- lists -------------------------------------------------------------------------------- */

/* The words of a list in the table's default. */
static uint32_t default_values(const struct setting *setting,
                               struct value ret_values[SETTINGS_RETRY_MAX])
{
    struct lexer lexer;
    lexer_init(&lexer, slice_from_text(setting->fallback), NULL);
    uint32_t count = 0;
    for (struct token token = lexer_next(&lexer);
         token.kind != TOKEN_END && count < SETTINGS_RETRY_MAX; token = lexer_next(&lexer)) {
        if (token.kind == TOKEN_WORD) {
            ret_values[count++] = (struct value){token.text, {0, 1}};
        }
    }
    return count;
}

/* "x2", "x1.5": above 1, in thousandths, up to 100. */
static bool growth(struct slice text, uint64_t *ret_thousandths)
{
    uint64_t whole, part = 0;
    if (text.length < 2 || (text.data[0] != 'x' && text.data[0] != 'X')) {
        return false;
    }
    text = slice_skip(text, 1);
    size_t dot = slice_find(text, '.');
    struct slice digits = slice_skip(text, dot + 1);
    if (!slice_to_u64(slice_take(text, dot), &whole) || whole > 100 ||
        (dot < text.length && (digits.length > 3 || !slice_to_u64(digits, &part)))) {
        return false;
    }
    for (size_t i = digits.length; i < 3; i++) {
        part *= 10;
    }
    *ret_thousandths = whole * 1000 + part;
    return *ret_thousandths > 1000;
}

struct retry {
    uint32_t ms[SETTINGS_RETRY_MAX];
    uint32_t count;
};

static bool retry_delay(struct settings *settings, const struct setting *setting,
                        const struct value *value, uint32_t *ret_ms)
{
    uint64_t ms = 0;
    const char *why = "is out of range; from 1s to 30d";
    if (!value_duration(value->text, &ms, &why) || ms < setting->least || ms > setting->most) {
        settings_complain(settings, value->at, "retry: '%.*s' %s", SHOWN(value->text), why);
        return false;
    }
    *ret_ms = (uint32_t)ms;
    return true;
}

/* {5m, x2, 4h}: each delay so many times the one before, up to the last. */
static void grow(struct settings *settings, const struct value *values, uint32_t last_ms,
                 uint64_t thousandths, struct retry *retry)
{
    uint64_t ms = retry->ms[retry->count - 1];
    if (last_ms < ms) {
        settings_complain(settings, values[1].at, "retry: what grows ends above where it begins");
        return;
    }
    while (ms < last_ms && retry->count < SETTINGS_RETRY_MAX) {
        ms = ms * thousandths / 1000;
        ms = ms > last_ms ? last_ms : ms;
        retry->ms[retry->count++] = (uint32_t)ms;
    }
    if (ms < last_ms) {
        settings_complain(settings, values[0].at, "retry: with %.*s it takes more than %d steps",
                          SHOWN(values[0].text), SETTINGS_RETRY_MAX);
    }
}

static void read_retry(struct settings *settings, const struct setting *setting,
                       const struct value *values, uint32_t count, struct retry *retry)
{
    for (uint32_t i = 0; i < count && retry->count < SETTINGS_RETRY_MAX; i++) {
        uint64_t thousandths;
        uint32_t ms;
        if (!growth(values[i].text, &thousandths)) {
            if (retry_delay(settings, setting, &values[i], &ms)) {
                retry->ms[retry->count++] = ms;
            }
        } else if (retry->count == 0 || i + 2 != count) {
            settings_complain(settings, values[i].at,
                              "retry: '%.*s' stands between the delay that grows and the longest: "
                              "{5m, x2, 4h}",
                              SHOWN(values[i].text));
        } else if (retry_delay(settings, setting, &values[i + 1], &ms)) {
            grow(settings, &values[i], ms, thousandths, retry);
            return;
        }
    }
}

static void fill_retry(struct routes *routes, struct route_config *route, enum setting_block block,
                       const struct entry *entry)
{
    struct settings *settings = routes->settings;
    const struct setting *setting = settings_find(block, SLICE_LITERAL("retry"));
    struct value usual[SETTINGS_RETRY_MAX];
    struct retry retry = {.count = 0};
    if (entry != NULL && entry->count > SETTINGS_RETRY_MAX) {
        settings_complain(settings, entry->at, "retry: more than %d values", SETTINGS_RETRY_MAX);
        return;
    }
    if (entry != NULL && entry->count > 0) {
        read_retry(settings, setting, entry->values, entry->count, &retry);
    } else {
        read_retry(settings, setting, usual, default_values(setting, usual), &retry);
    }
    uint32_t *delays = settings_allocate(settings, retry.count + 1, sizeof(*delays));
    if (delays != NULL) {
        memcpy(delays, retry.ms, retry.count * sizeof(*delays));
    }
    route->retry_ms = delays;
    route->retry_count = delays == NULL ? 0 : retry.count;
}

static bool is_everybody(const struct ip_network *network)
{
    return network->prefix == 0 || (network->prefix <= 96 && ip_is_v4(&network->address));
}

/* `everybody`: what is wrong with a network that is everybody; NULL: nothing. */
const struct ip_network *settings_networks(struct settings *settings, const struct entry *entry,
                                           const char *everybody, uint32_t *ret_count)
{
    struct ip_network *networks = settings_allocate(settings, entry->count, sizeof(*networks));
    *ret_count = 0;
    for (uint32_t i = 0; networks != NULL && i < entry->count; i++) {
        const struct value *value = &entry->values[i];
        struct ip_network *network = &networks[*ret_count];
        const char *why = everybody;
        if (value_network(value->text, network, &why) &&
            (everybody == NULL || !is_everybody(network))) {
            (*ret_count)++;
        } else {
            settings_complain(settings, value->at, "%.*s: '%.*s' %s", SHOWN(entry->key),
                              SHOWN(value->text), why);
        }
    }
    return networks;
}

static bool is_sender_pattern(struct slice text)
{
    if (slice_equal(text, SLICE_LITERAL("*"))) {
        return true;
    }
    size_t at = slice_find_last(text, '@');
    return at > 0 && at + 1 < text.length && slice_find(text, ' ') == text.length;
}

static void fill_senders(struct routes *routes, struct route_config *route,
                         const struct entry *entry)
{
    struct settings *settings = routes->settings;
    struct sender_pattern *senders = settings_allocate(settings, entry->count, sizeof(*senders));
    for (uint32_t i = 0; senders != NULL && i < entry->count; i++) {
        const struct value *value = &entry->values[i];
        if (!is_sender_pattern(value->text)) {
            settings_complain(settings, value->at,
                              "senders: '%.*s' is no pattern; write ann@example.com, "
                              "*@example.com or *",
                              SHOWN(value->text));
            continue;
        }
        senders[route->sender_count++] = (struct sender_pattern){value->text};
    }
    route->senders = senders;
}

static bool is_in(const struct route_config *route, const struct ip_address *address)
{
    for (uint32_t i = 0; i < route->deliver_only_to_count; i++) {
        if (ip_network_contains(&route->deliver_only_to[i], address)) {
            return true;
        }
    }
    return false;
}

/* Names are looked at when they are known. */
static void check_literals(struct routes *routes, const struct route_config *route, struct place at)
{
    for (uint32_t i = 0; i < route->chain_length; i++) {
        const struct server_config *server =
            &routes->settings->config.relay.servers[route->chain[i]];
        for (uint32_t j = 0; j < server->address_count; j++) {
            char text[IP_TEXT_SIZE];
            ip_to_text(&server->addresses[j].literal, text);
            if (server->addresses[j].is_literal && !is_in(route, &server->addresses[j].literal)) {
                settings_complain(routes->settings, at,
                                  "deliver-only-to: %s of server '%.*s' is not in it", text,
                                  SHOWN(server->name));
            }
        }
    }
}

static void fill_deliver_only_to(struct routes *routes, struct route_config *route,
                                 const struct entry *entry)
{
    if (entry != NULL) {
        route->deliver_only_to =
            settings_networks(routes->settings, entry, NULL, &route->deliver_only_to_count);
        check_literals(routes, route, entry->at);
    }
}

/* A server of several routes keeps to the networks of each: its connections are theirs together. */
static void fill_only(struct routes *routes, struct server_config *servers)
{
    uint32_t count = routes->settings->config.relay.server_count;
    struct ip_networks **only = settings_allocate(routes->settings, count, sizeof(*only));
    for (int fills = 0; only != NULL && fills < 2; fills++) {
        for (uint32_t i = 0; i < routes->count; i++) {
            const struct route_config *route = &routes->all[i];
            for (uint32_t j = 0; route->deliver_only_to_count > 0 && j < route->chain_length; j++) {
                struct server_config *server = &servers[route->chain[j]];
                if (fills && only[route->chain[j]] != NULL) {
                    only[route->chain[j]][server->only_count] =
                        (struct ip_networks){route->deliver_only_to, route->deliver_only_to_count};
                }
                server->only_count++;
            }
        }
        for (uint32_t i = 0; !fills && i < count; i++) {
            only[i] = settings_allocate(routes->settings, servers[i].only_count, sizeof(*only[i]));
            servers[i].only = only[i];
            servers[i].only_count = 0;
        }
    }
}

/* ---- domain ------------------------------------------------------------------------------- */

static void add_pattern(struct routes *routes, struct route_config *route,
                        struct domain_pattern *patterns, const struct value *title, bool alias)
{
    struct settings *settings = routes->settings;
    struct slice written = lower(settings, title->text);
    struct slice prefix = SLICE_LITERAL("*.");
    bool wild = slice_starts_fold(written, prefix);
    struct slice name = wild ? slice_skip(written, prefix.length) : written;
    const char *why = "";
    if (!value_hostname(name, &why)) {
        settings_complain(settings, title->at, "domain '%.*s' %s", SHOWN(title->text), why);
        return;
    }
    if (!names_once(settings, &routes->domains, written, title->at, "domain")) {
        return;
    }
    if (route->domain_count == 0) {
        route->name = written;
    }
    if (alias && wild) {
        settings_complain(settings, title->at, "aliases: '%.*s' is a pattern, not a domain",
                          SHOWN(title->text));
    }
    patterns[route->domain_count++] =
        (struct domain_pattern){.name = name, .wild = wild, .alias = alias};
}

static void fill_patterns(struct routes *routes, struct route_config *route,
                          const struct block *block)
{
    struct settings *settings = routes->settings;
    const struct entry *aliases = settings_entry(routes->entries, BLOCK_DOMAIN, "aliases");
    uint32_t alias_count = aliases == NULL ? 0 : aliases->count;
    struct domain_pattern *patterns =
        settings_allocate(settings, block->title_count + alias_count, sizeof(*patterns));
    for (uint32_t i = 0; patterns != NULL && i < block->title_count; i++) {
        if (block->titles[i].text.data != NULL) {
            add_pattern(routes, route, patterns, &block->titles[i], false);
        }
    }
    if (alias_count > 0 && route->domain_count > 0 && patterns[0].wild) {
        settings_complain(settings, aliases->at,
                          "aliases: the block's first domain is a pattern, so of what?");
    }
    for (uint32_t i = 0; patterns != NULL && i < alias_count; i++) {
        add_pattern(routes, route, patterns, &aliases->values[i], true);
    }
    route->domains = patterns;
    if (block->title_count > 0 && route->domain_count == 0 && !settings->failed) {
        settings_complain(settings, block->at, "this domain block names no domain");
    }
}

static void fill_domain(struct routes *routes, struct route_config *route,
                        const struct block *block)
{
    struct settings *settings = routes->settings;
    const struct entry *const *entries = routes->entries;
    routes->domain_blocks++;
    fill_patterns(routes, route, block);
    settings_recipients(settings, route, entries);
    settings_share(settings, entries, route);
    const struct entry *etrn = settings_entry(entries, BLOCK_DOMAIN, "etrn-from");
    if (etrn != NULL) {
        route->etrn_from = settings_networks(settings, etrn, NULL, &route->etrn_from_count);
    }
    if (settings_entry(entries, BLOCK_DOMAIN, "quota") == NULL) {
        route->quota_bytes = QUOTA_DEFAULT;
    }
    if (route->keep_max_ms < route->keep_ms) {
        const struct entry *keep = settings_entry(entries, BLOCK_DOMAIN, "keep-max");
        keep = keep != NULL ? keep : settings_entry(entries, BLOCK_DOMAIN, "keep");
        settings_complain(settings, keep != NULL ? keep->at : block->at,
                          "keep-max is shorter than keep");
    }
}

/* ---- relay -------------------------------------------------------------------------------- */

static void fill_relay(struct routes *routes, struct route_config *route, const struct block *block,
                       uint32_t index)
{
    struct settings *settings = routes->settings;
    const struct entry *const *entries = routes->entries;
    route->name = block->title_count > 0 ? block->titles[0].text : SLICE_EMPTY;
    if (slice_equal_fold(route->name, SLICE_LITERAL("none"))) {
        settings_complain(settings, block->at, "'none' is a reserved word, not a relay's name");
    }
    uint32_t known = names_add(settings, &routes->relays, route->name, index);
    if (known != NO_INDEX) {
        settings_complain(settings, block->at, "relay '%.*s' is there twice", SHOWN(route->name));
    }
    const struct entry *from = settings_entry(entries, BLOCK_RELAY, "from");
    const struct entry *senders = settings_entry(entries, BLOCK_RELAY, "senders");
    if (from != NULL) {
        route->from =
            settings_networks(routes->settings, from, "is everybody, and makes this an open relay",
                              &route->from_count);
    } else if (!block->broken && !route->any_user) {
        settings_complain(settings, block->at,
                          "relay '%.*s' must say whose mail it takes: from = {192.0.2.0/24}, or "
                          "auth = yes",
                          SHOWN(route->name));
    }
    if (senders != NULL) {
        fill_senders(routes, route, senders);
    }
}

/* ---- all ---------------------------------------------------------------------------------- */

static void fill_route(struct routes *routes, const struct block *block, enum setting_block kind)
{
    uint32_t index = routes->count++;
    struct route_config *route = &routes->all[index];
    const struct entry *const *entries = routes->entries;
    route->kind = kind == BLOCK_DOMAIN ? ROUTE_DOMAIN : ROUTE_RELAY;
    settings_fill(routes->settings, kind, block, route, routes->entries);
    const struct entry *chain = settings_entry(entries, kind, "deliver-to");
    if (chain != NULL && chain->count > 0) {
        fill_chain(routes, route, chain);
    }
    fill_deliver_only_to(routes, route, settings_entry(entries, kind, "deliver-only-to"));
    fill_retry(routes, route, kind, settings_entry(entries, kind, "retry"));
    if (kind == BLOCK_DOMAIN) {
        fill_domain(routes, route, block);
    } else {
        fill_relay(routes, route, block, index);
    }
}

static void fill_bounces(struct routes *routes, const struct entry *entry)
{
    struct settings *settings = routes->settings;
    uint32_t *bounces = &settings->config.relay.bounces;
    *bounces = NO_INDEX;
    if (entry == NULL || entry->count == 0) {
        for (uint32_t i = 0; i < routes->count && *bounces == NO_INDEX; i++) {
            *bounces = routes->all[i].kind == ROUTE_RELAY ? i : NO_INDEX;
        }
        return;
    }
    const struct value *value = &entry->values[0];
    if (slice_equal_fold(value->text, SLICE_LITERAL("none"))) {
        return;
    }
    *bounces = names_find(&routes->relays, value->text);
    if (*bounces == NO_INDEX) {
        struct slice near = names_nearest(&routes->relays, value->text);
        settings_complain(settings, value->at, "bounces: there is no relay '%.*s'%s%.*s%s",
                          SHOWN(value->text), near.length > 0 ? "; did you mean '" : "",
                          SHOWN(near), near.length > 0 ? "'?" : "");
    }
}

static bool is_own_domain(const struct routes *routes, struct slice domain)
{
    if (names_find(&routes->domains, domain) != NO_INDEX) {
        return true;
    }
    char wild[256] = "*";
    for (size_t dot = slice_find(domain, '.'); dot < domain.length; dot = slice_find(domain, '.')) {
        struct slice rest = slice_skip(domain, dot);
        if (rest.length + 1 < sizeof(wild)) {
            memcpy(wild + 1, rest.data, rest.length);
            if (names_find(&routes->domains, slice_make(wild, rest.length + 1)) != NO_INDEX) {
                return true;
            }
        }
        domain = slice_skip(domain, dot + 1);
    }
    return false;
}

/* The first that is a name and not a pattern; empty if there is none. */
static struct slice first_domain(const struct routes *routes)
{
    for (uint32_t i = 0; i < routes->count; i++) {
        const struct route_config *route = &routes->all[i];
        for (uint32_t j = 0; j < route->domain_count; j++) {
            if (!route->domains[j].wild) {
                return route->domains[j].name;
            }
        }
    }
    return SLICE_EMPTY;
}

static void fill_postmaster(struct routes *routes, const struct entry *entry)
{
    struct settings *settings = routes->settings;
    struct relay_config *relay = &settings->config.relay;
    if (entry != NULL) {
        struct slice domain =
            slice_skip(relay->postmaster, slice_find_last(relay->postmaster, '@') + 1);
        if (domain.length > 0 && relay->bounces == NO_INDEX && !is_own_domain(routes, domain)) {
            settings_warn(settings, entry->at,
                          "postmaster: no domain and no relay takes mail to '%.*s'",
                          SHOWN(relay->postmaster));
        }
        return;
    }
    struct slice domain = first_domain(routes);
    if (domain.length == 0) {
        if (!settings->config.joining) { /* the cluster's settings may bring a domain */
            settings_warn(settings, settings->top.at,
                          "no postmaster: mail to postmaster and abuse will be refused");
        }
        return;
    }
    struct slice prefix = SLICE_LITERAL("postmaster@");
    uint8_t *text = settings_allocate(settings, prefix.length + domain.length + 1, 1);
    if (text != NULL) {
        memcpy(text, prefix.data, prefix.length);
        memcpy(text + prefix.length, domain.data, domain.length);
        relay->postmaster = slice_make(text, prefix.length + domain.length);
    }
}

/* A chain's last server may take its time to greet (R4), unless it is not the last elsewhere. */
static void finish_servers(struct routes *routes)
{
    struct settings *settings = routes->settings;
    struct server_config *servers = settings->servers;
    fill_only(routes, servers);
    for (uint32_t i = 0; i < settings->config.relay.server_count; i++) {
        if (routes->used[i] && !routes->early[i] && !servers[i].greeting_timeout_set &&
            servers[i].protocol != SERVER_ODMR) {
            servers[i].greeting_timeout_ms = 300000;
        }
        if (!routes->used[i]) {
            settings_warn(settings, settings->server_places[i], "no route uses server '%.*s'",
                          SHOWN(servers[i].name));
        }
    }
}

static void fill_nat_addresses(struct routes *routes, const struct entry *entry)
{
    struct settings *settings = routes->settings;
    uint32_t count = entry == NULL ? 0 : entry->count;
    struct ip_address *addresses = settings_allocate(settings, count, sizeof(*addresses));
    for (uint32_t i = 0; addresses != NULL && i < count; i++) {
        const struct value *value = &entry->values[i];
        if (!ip_from_text(value->text, &addresses[i])) {
            settings_complain(settings, value->at, "nat-address: '%.*s' is no IP address",
                              SHOWN(value->text));
        }
    }
    settings->config.relay.nat_addresses = addresses;
    settings->config.relay.nat_address_count = count;
}

static bool allocate(struct routes *routes)
{
    struct settings *settings = routes->settings;
    uint32_t servers = settings->config.relay.server_count;
    uint32_t blocks = 0;
    for (const struct block *block = settings->first_block; block != NULL; block = block->next) {
        blocks++;
    }
    routes->all = settings_allocate(settings, blocks, sizeof(*routes->all));
    routes->chains = settings_allocate_tree(settings, servers, sizeof(*routes->chains));
    routes->chain_lengths =
        settings_allocate_tree(settings, servers, sizeof(*routes->chain_lengths));
    routes->used = settings_allocate_tree(settings, servers, 1);
    routes->early = settings_allocate_tree(settings, servers, 1);
    routes->entries =
        settings_allocate_tree(settings, settings_table_length, sizeof(struct entry *));
    return !settings->out_of_memory;
}

void settings_routes(struct settings *settings, const struct names *servers,
                     const struct entry *const *top)
{
    struct routes routes = {.settings = settings, .servers = servers};
    names_init(&routes.domains);
    names_init(&routes.relays);
    if (!allocate(&routes)) {
        return;
    }
    for (const struct block *block = settings->first_block; block != NULL; block = block->next) {
        enum setting_block kind = settings_block_find(block->kind);
        if (kind == BLOCK_DOMAIN || kind == BLOCK_RELAY) {
            fill_route(&routes, block, kind);
        }
    }
    for (uint32_t i = 0; i < routes.count && routes.domain_blocks == 1; i++) {
        if (routes.all[i].quota_bytes == QUOTA_DEFAULT) {
            routes.all[i].quota_bytes = 0; /* one domain may have the whole disk */
        }
    }
    settings->config.relay.routes = routes.all;
    settings->config.relay.route_count = routes.count;
    settings_list_files(settings);
    fill_bounces(&routes, settings_entry(top, BLOCK_TOP, "bounces"));
    fill_postmaster(&routes, settings_entry(top, BLOCK_TOP, "postmaster"));
    fill_nat_addresses(&routes, settings_entry(top, BLOCK_TOP, "nat-address"));
    finish_servers(&routes);
    if (routes.count == 0 && !settings->config.joining) {
        settings_warn(settings, settings->top.at, "no domain and no relay: all mail is refused");
    }
    names_done(&routes.domains);
    names_done(&routes.relays);
}
