/* SPDX-License-Identifier: Apache-2.0
 *
 * On-demand mail relay (RFC 2645): the users files of listeners, and that servers without an
 * address stand where mail can wait for a call.
 *
 * A users file has a line for each user: his name, his password, and the domains whose mail he may
 * fetch, joined by commas; "#" begins a line that is none. Only the login process gets its
 * content.
 */
#include "app/settings_internal.h"
#include "relay/atrn.h"

/* ---- users -------------------------------------------------------------------------------- */

static struct slice next_word(struct slice *line)
{
    struct slice rest = slice_trim(*line);
    size_t end = 0;
    while (end < rest.length && rest.data[end] != ' ' && rest.data[end] != '\t') {
        end++;
    }
    *line = slice_trim(slice_skip(rest, end));
    return slice_take(rest, end);
}

static bool fill_domains(struct settings *settings, struct place at, struct slice list,
                         struct odmr_user *user)
{
    uint32_t most = settings_count(list, ',') + 1;
    struct slice *domains = settings_allocate(settings, most, sizeof(*domains));
    if (most > RELAY_ATRN_DOMAINS_MAX || domains == NULL) {
        settings_complain(settings, at, "users: more than %d domains for one user",
                          RELAY_ATRN_DOMAINS_MAX);
        return false;
    }
    user->domains = domains;
    while (list.length > 0) {
        struct slice domain = slice_take(list, slice_find(list, ','));
        const char *why = "is empty";
        list = slice_skip(list, domain.length + 1);
        if (!value_hostname(domain, &why)) {
            settings_complain(settings, at, "users: domain '%.*s' %s", SHOWN(domain), why);
            return false;
        }
        domains[user->domain_count++] = domain;
    }
    return true;
}

/* Nothing of the password is ever quoted. */
static bool fill_user(struct settings *settings, struct place at, struct slice line,
                      struct odmr_user *user)
{
    user->name = next_word(&line);
    user->password = next_word(&line);
    struct slice domains = next_word(&line);
    if (domains.length == 0 || line.length > 0) {
        settings_complain(settings, at,
                          "users: a line is NAME PASSWORD DOMAIN[,DOMAIN...], without blanks in "
                          "them");
        return false;
    }
    if (user->name.length > SETTINGS_SECRET_MAX || user->password.length > SETTINGS_SECRET_MAX ||
        slice_find(user->name, '\0') < user->name.length ||
        slice_find(user->password, '\0') < user->password.length) {
        settings_complain(settings, at, "users: a name and a password have 1 to %d octets",
                          SETTINGS_SECRET_MAX);
        return false;
    }
    return fill_domains(settings, at, domains, user);
}

static void fill_users(struct settings *settings, uint32_t source, struct listener_config *listener)
{
    struct slice rest = settings->sources[source].content, text;
    struct place at = {source, 0};
    struct odmr_user *users =
        settings_allocate(settings, settings_count(rest, '\n') + 1, sizeof(*users));
    struct names names;
    names_init(&names);
    while (users != NULL && settings_user_line(&rest, &at.line, &text)) {
        struct odmr_user *user = &users[listener->odmr_user_count];
        *user = (struct odmr_user){.line = at.line};
        if (!fill_user(settings, at, text, user)) {
            continue;
        }
        if (names_once(settings, &names, user->name, at, "users:")) {
            listener->odmr_user_count++;
        }
    }
    names_done(&names);
    listener->odmr_users = users;
    listener->odmr_source = source;
    if (!settings->sealed && listener->odmr_user_count == 0 && !settings->failed) {
        settings_warn(settings, (struct place){source, 1}, "users: there are none");
    }
}

void settings_odmr_listener(struct settings *settings, const struct block *block,
                            const struct entry *users, struct listener_config *listener)
{
    struct slice prefix = SLICE_LITERAL("file:");
    uint32_t source;
    if (listener->protocol != LISTENER_ODMR) {
        if (users != NULL) {
            settings_complain(settings, users->at, "users is for protocol = odmr");
        }
        return;
    }
    if (users == NULL) {
        if (!block->broken) {
            settings_complain(settings, block->at, "listen '%.*s' needs users = \"file:PATH\"",
                              SHOWN(listener->name));
        }
        return;
    }
    if (users->count != 1 || users->list || !slice_starts_fold(users->values[0].text, prefix)) {
        settings_complain(settings, users->at, "users: must be \"file:PATH\"");
        return;
    }
    if (settings_secret_file(settings, &users->values[0].at,
                             slice_skip(users->values[0].text, prefix.length), SETTINGS_FOR_LOGIN,
                             &source)) {
        fill_users(settings, source, listener);
    }
}

/* ---- where servers without an address stand ------------------------------------------------ */

static const struct entry *find_entry(const struct block *block, const char *key)
{
    const struct entry *entry = block->first;
    while (entry != NULL && !slice_equal(entry->key, slice_from_text(key))) {
        entry = entry->next;
    }
    return entry;
}

static const struct server_config *odmr_server(const struct relay_config *relay,
                                               const struct route_config *route, uint32_t at)
{
    const struct server_config *server =
        route->chain != NULL && at < route->chain_length ? &relay->servers[route->chain[at]] : NULL;
    return server != NULL && server->protocol == SERVER_ODMR ? server : NULL;
}

static void check_route(struct settings *settings, const struct block *block,
                        const struct route_config *route)
{
    const struct relay_config *relay = &settings->config.relay;
    const struct entry *entry = find_entry(block, "deliver-to");
    struct place at = entry != NULL ? entry->at : block->at;
    for (uint32_t i = 0; i < route->chain_length; i++) {
        const struct server_config *server = odmr_server(relay, route, i);
        if (server == NULL) {
            continue;
        }
        if (i + 1 < route->chain_length || route->mx) {
            settings_complain(settings, at,
                              "deliver-to: server '%.*s' waits for a call (protocol = odmr) and "
                              "must be the last of its chain, without mx",
                              SHOWN(server->name));
        } else if (route->kind != ROUTE_DOMAIN || route->domain_count != 1 ||
                   route->domains[0].wild) {
            settings_complain(settings, at,
                              "deliver-to: server '%.*s' waits for a call (protocol = odmr), which "
                              "names domains: it can only serve a domain block of one plain name",
                              SHOWN(server->name));
        }
    }
}

/* The server that mail of a domain may wait at for a call, or NO_INDEX. */
static uint32_t server_of(const struct relay_config *relay, struct slice domain)
{
    for (uint32_t i = 0; i < relay->route_count; i++) {
        const struct route_config *route = &relay->routes[i];
        if (route->kind == ROUTE_DOMAIN && route->domain_count == 1 && !route->domains[0].wild &&
            slice_equal_fold(route->domains[0].name, domain)) {
            uint32_t last = route->chain_length == 0 ? 0 : route->chain_length - 1;
            return odmr_server(relay, route, last) != NULL ? route->chain[last] : NO_INDEX;
        }
    }
    return NO_INDEX;
}

static void check_user(struct settings *settings, struct place at, const struct odmr_user *user)
{
    uint32_t first = NO_INDEX;
    for (uint32_t i = 0; i < user->domain_count; i++) {
        uint32_t server = server_of(&settings->config.relay, user->domains[i]);
        if (server == NO_INDEX) {
            settings_complain(settings, at,
                              "users: no domain '%.*s' has a server with protocol = odmr",
                              SHOWN(user->domains[i]));
            return;
        }
        first = i == 0 ? server : first;
        if (server != first) {
            settings_complain(settings, at,
                              "users: '%.*s' and '%.*s' have different servers; what one user "
                              "fetches goes over one connection",
                              SHOWN(user->domains[0]), SHOWN(user->domains[i]));
            return;
        }
    }
}

void settings_odmr(struct settings *settings)
{
    const struct service_config *config = &settings->config;
    uint32_t route = 0;
    for (const struct block *block = settings->first_block; block != NULL; block = block->next) {
        enum setting_block kind = settings_block_find(block->kind);
        if ((kind == BLOCK_DOMAIN || kind == BLOCK_RELAY) && route < config->relay.route_count) {
            check_route(settings, block, &config->relay.routes[route++]);
        }
    }
    const struct odmr_user *checked = NULL;
    for (uint32_t i = 0; i < config->listener_count && !settings->failed; i++) {
        const struct listener_config *listener = &config->listeners[i];
        for (uint32_t j = 0; j < listener->odmr_user_count && listener->odmr_users != checked;
             j++) {
            check_user(settings,
                       (struct place){listener->odmr_source, listener->odmr_users[j].line},
                       &listener->odmr_users[j]);
        }
        checked = listener->odmr_users != NULL ? listener->odmr_users : checked;
    }
}
