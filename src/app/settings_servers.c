/* SPDX-License-Identifier: Apache-2.0
 *
 * The server blocks: names, addresses, and the failover links between them, which must not form a
 * loop.
 */
#include "app/settings_internal.h"
#include "base/crc32c.h"
#include "relay/relay.h"

#include <assert.h>
#include <stdlib.h>

struct servers {
    struct settings *settings;
    const struct names *names;
    struct server_config *all;
    uint32_t *keys;
    const struct entry **failovers; /* by server */
    const struct block **blocks;
    const struct block *exchangers; /* server mx, or NULL */
    uint32_t count;
    const struct entry **entries; /* scratch of settings_fill() */
};

static_assert((int)SETTINGS_SERVERS_MAX <= (int)RELAY_EXCHANGERS, "indexes of servers");

static uint32_t count_blocks(const struct settings *settings)
{
    uint32_t count = 0;
    for (const struct block *block = settings->first_block; block != NULL; block = block->next) {
        count += settings_block_find(block->kind) == BLOCK_SERVER;
    }
    return count;
}

/* Processes name a server by the checksum of its name (service/channel.h). NO_INDEX: nobody else
 * has it, and it is kept. */
static uint32_t same_key(const struct servers *servers, struct slice name)
{
    uint32_t key = crc32c(0, name);
    for (uint32_t i = 0; i < servers->count; i++) {
        if (servers->keys[i] == key) {
            return i;
        }
    }
    servers->keys[servers->count] = key;
    return NO_INDEX;
}

/* The block that speaks of all exchangers. */
static void take_exchangers(struct servers *servers, const struct block *block)
{
    if (servers->exchangers != NULL) {
        settings_complain(servers->settings, block->at, "server 'mx' is there twice; first in %s",
                          settings_line(servers->settings, block->at, servers->exchangers->at));
        return;
    }
    servers->exchangers = block;
}

/* Takes the names; a server of a name that is known or reserved is left out. */
static void collect(struct servers *servers, struct names *names)
{
    struct settings *settings = servers->settings;
    for (const struct block *block = settings->first_block; block != NULL; block = block->next) {
        if (settings_block_find(block->kind) != BLOCK_SERVER || block->title_count == 0) {
            continue;
        }
        struct slice name = block->titles[0].text;
        if (slice_equal_fold(name, SLICE_LITERAL("mx"))) {
            take_exchangers(servers, block);
            continue;
        }
        if (slice_equal_fold(name, SLICE_LITERAL("none"))) {
            settings_complain(settings, block->at, "'%.*s' is a reserved word, not a server's name",
                              SHOWN(name));
            continue;
        }
        if (name.length == 0 || slice_find(name, '@') != name.length) {
            settings_complain(settings, block->at, "'%.*s' is no name for a server", SHOWN(name));
            continue;
        }
        uint32_t known = names_add(settings, names, name, servers->count);
        if (known != NO_INDEX) {
            settings_complain(settings, block->at, "server '%.*s' is there twice; first in %s",
                              SHOWN(name),
                              settings_line(settings, block->at, servers->blocks[known]->at));
            continue;
        }
        if (servers->count == SETTINGS_SERVERS_MAX) {
            settings_complain(settings, block->at, "more than %d servers", SETTINGS_SERVERS_MAX);
            return;
        }
        uint32_t twin = same_key(servers, name);
        if (twin != NO_INDEX) {
            settings_complain(settings, block->at,
                              "server '%.*s' cannot be told from '%.*s' by its checksum; rename it",
                              SHOWN(name), SHOWN(servers->all[twin].name));
            continue;
        }
        servers->blocks[servers->count] = block;
        settings->server_places[servers->count] = block->at;
        servers->all[servers->count].name = name;
        servers->count++;
    }
}

static void fill_addresses(struct servers *servers, struct server_config *server,
                           const struct entry *entry)
{
    struct settings *settings = servers->settings;
    uint16_t usual = server->protocol == SERVER_LMTP      ? 0
                     : server->tls == SERVER_TLS_IMPLICIT ? 465
                                                          : 25;
    struct server_address *addresses =
        settings_allocate(settings, entry->count, sizeof(*addresses));
    for (uint32_t i = 0; addresses != NULL && i < entry->count; i++) {
        const struct value *value = &entry->values[i];
        const char *why = "";
        if (value_address(value->text, usual, &addresses[server->address_count], &why)) {
            server->address_count++;
            continue;
        }
        settings_complain(
            settings, value->at, "address: '%.*s' %s%s", SHOWN(value->text), why,
            usual == 0 && strstr(why, "needs a port") != NULL ? "; LMTP has no usual one" : "");
    }
    server->addresses = addresses;
}

static bool is_local(const struct server_address *address)
{
    return address->is_literal ? ip_is_loopback(&address->literal)
                               : slice_equal_fold(address->host, SLICE_LITERAL("localhost"));
}

/* Without TLS a password, or a proof to guess it from, may not leave the machine. */
static void check_login_is_safe(struct servers *servers, const struct server_config *server,
                                struct place at)
{
    if (server->tls == SERVER_TLS_ENCRYPT) {
        settings_warn(servers->settings, at,
                      "auth-user: with tls = encrypt the password goes to whoever answers; tls = "
                      "required finds out who that is");
    }
    bool demanded = server->tls == SERVER_TLS_ENCRYPT || server_tls_asks_authorities(server->tls);
    for (uint32_t i = 0; i < server->address_count && !demanded; i++) {
        if (!is_local(&server->addresses[i])) {
            settings_complain(
                servers->settings, at,
                "auth-user: logging in needs tls = required, encrypt or implicit, but "
                "for servers on this machine (127.0.0.1, ::1, localhost)");
            return;
        }
    }
}

static void fill_login(struct servers *servers, struct server_config *server)
{
    struct settings *settings = servers->settings;
    const struct entry *const *entries = servers->entries;
    const struct entry *user = settings_entry(entries, BLOCK_SERVER, "auth-user");
    const struct entry *file = settings_entry(entries, BLOCK_SERVER, "auth-password-file");
    if (user == NULL && file == NULL) {
        return;
    }
    if (user == NULL || file == NULL) {
        settings_complain(settings, (user != NULL ? user : file)->at,
                          "auth-user and auth-password-file go together");
        return;
    }
    if (server->auth_user.length == 0 || server->auth_user.length > SETTINGS_SECRET_MAX) {
        settings_complain(settings, user->at, "auth-user: a name of 1 to %d octets is needed",
                          SETTINGS_SECRET_MAX);
    }
    if (file->count != 1 || file->list) {
        settings_complain(settings, file->at, "auth-password-file: one file is needed");
        return;
    }
    (void)settings_secret(settings, &file->values[0].at, file->values[0].text,
                          SETTINGS_FOR_EDGE_OUT, SETTINGS_SECRET_MAX, &server->auth_password);
    check_login_is_safe(servers, server, user->at);
}

/* ---- TLS --------------------------------------------------------------------------------- */

/* Who asks for a proof and names nobody trusts whom the machine trusts; of others it is good to
 * know what they could prove. */
static void fill_authorities(struct servers *servers, struct server_config *server,
                             const struct entry *entry, struct place at)
{
    struct settings *settings = servers->settings;
    bool named = entry != NULL && entry->count == 1 && !entry->list;
    struct slice path = named ? entry->values[0].text : SLICE_LITERAL(SETTINGS_MACHINE_AUTHORITIES);
    if (!named && !server_tls_asks_authorities(server->tls) && server->tls != SERVER_TLS_MTA_STS) {
        if (server->tls != SERVER_TLS_NONE) {
            server->tls_ca = settings_machine_authorities(settings, SETTINGS_FOR_EDGE_OUT);
        }
        return;
    }
    at = named ? entry->values[0].at : at;
    settings_authorities(settings, "tls-ca", &at, path, SETTINGS_FOR_EDGE_OUT, &server->tls_ca);
}

/* RFC 7672 and RFC 8461 are about one name, the former about what DNSSEC proves. */
static void check_name_policy(struct servers *servers, const struct server_config *server,
                              const struct entry *entry)
{
    struct settings *settings = servers->settings;
    bool is_exchanger = server == &settings->config.relay.exchanger;
    if (!server_tls_is_theirs(server->tls) || entry == NULL) {
        return;
    }
    if (!is_exchanger && (server->address_count != 1 || server->addresses[0].is_literal)) {
        settings_complain(settings, entry->at, "tls = %s: address must be one name",
                          server_tls_text(server->tls));
    }
    const struct entry *name = settings_entry(servers->entries, BLOCK_SERVER, "tls-name");
    if (!is_exchanger && server->tls == SERVER_TLS_MTA_STS && name != NULL) {
        settings_complain(settings, name->at,
                          "tls-name: with tls = mta-sts a server proves the name of its address");
    }
    if (server->tls == SERVER_TLS_DANE && settings->config.dns_trust_anchor.length == 0) {
        settings_complain(settings, entry->at,
                          "tls = dane needs dns-trust-anchor: only signed records count");
    }
}

/* `why`: what such a server has none of these for. */
static void refuse_entries(struct servers *servers, const char *const *names, size_t count,
                           const char *why)
{
    for (size_t i = 0; i < count; i++) {
        const struct entry *entry = settings_entry(servers->entries, BLOCK_SERVER, names[i]);
        if (entry != NULL) {
            settings_complain(servers->settings, entry->at, "%s: %s", names[i], why);
        }
    }
}

/* Its client calls: what is about calling it is a mistake. */
static void check_odmr(struct servers *servers, struct server_config *server)
{
    static const char *const others[] = {"address",
                                         "failover",
                                         "tls",
                                         "connections",
                                         "warm-up",
                                         "connect-timeout",
                                         "probe-interval",
                                         "source-address",
                                         "auth-user",
                                         "authoritative",
                                         "auth-password-file",
                                         "tls-name",
                                         "tls-ca",
                                         "tls-required-no",
                                         "proxy"};
    refuse_entries(servers, others, sizeof(others) / sizeof(others[0]),
                   "a server with protocol = odmr has none, for its client calls us");
    server->connections = 1;
    server->tls = SERVER_TLS_NONE;
}

/* What only the block itself can say of its timing and place. */
static void fill_presence(const struct entry *const *entries, struct server_config *server)
{
    server->has_source = settings_entry(entries, BLOCK_SERVER, "source-address") != NULL;
    server->greeting_timeout_set =
        settings_entry(entries, BLOCK_SERVER, "greeting-timeout") != NULL;
}

static void fill(struct servers *servers, uint32_t index)
{
    struct settings *settings = servers->settings;
    struct server_config *server = &servers->all[index];
    settings_fill(settings, BLOCK_SERVER, servers->blocks[index], server, servers->entries);
    server->failover = NO_INDEX;
    const struct entry *const *entries = servers->entries;
    fill_presence(entries, server);
    const struct entry *address = settings_entry(entries, BLOCK_SERVER, "address");
    if (server->protocol == SERVER_ODMR) {
        check_odmr(servers, server);
        return;
    }
    if (address != NULL) {
        fill_addresses(servers, server, address);
    } else if (!servers->blocks[index]->broken) {
        settings_complain(settings, servers->blocks[index]->at, "server '%.*s' needs address = ...",
                          SHOWN(server->name));
    }
    fill_authorities(servers, server, settings_entry(entries, BLOCK_SERVER, "tls-ca"),
                     servers->blocks[index]->at);
    check_name_policy(servers, server, settings_entry(entries, BLOCK_SERVER, "tls"));
    refuse_entries(servers, (const char *const[]){"tls-required-no"}, 1,
                   "only server mx has it, for of other servers you say what they must prove");
    fill_login(servers, server);
    const struct entry *failover = settings_entry(entries, BLOCK_SERVER, "failover");
    if (failover == NULL || failover->count != 1 || failover->list) {
        return;
    }
    servers->failovers[index] = failover;
    const struct value *value = &failover->values[0];
    if (slice_equal_fold(value->text, SLICE_LITERAL("none"))) {
        return;
    }
    if (slice_equal_fold(value->text, SLICE_LITERAL("mx"))) {
        settings_complain(settings, value->at, "failover = mx is not available in this version");
        return;
    }
    server->failover = settings_server_index(settings, servers->names, value);
}

/* Says the loop that `at` stands in, beginning with the server that the file names first. */
static void complain_loop(struct servers *servers, uint32_t at)
{
    uint32_t first = at;
    for (uint32_t i = servers->all[at].failover; i != at; i = servers->all[i].failover) {
        first = i < first ? i : first;
    }
    struct buffer text;
    buffer_init(&text, 300);
    uint32_t i = first;
    do {
        buffer_printf(&text, "%.*s > ", SHOWN(servers->all[i].name));
        i = servers->all[i].failover;
    } while (i != first);
    buffer_printf(&text, "%.*s", SHOWN(servers->all[first].name));
    settings_complain(servers->settings, servers->failovers[first]->at, "failover loop: %.*s%s",
                      SLICE_PRINT(buffer_slice(&text)), text.failed ? "..." : "");
    buffer_done(&text);
}

/* Each server is walked over once: `walk` remembers in which walk it was met. */
static void find_loops(struct servers *servers)
{
    uint32_t *walk = settings_allocate_tree(servers->settings, servers->count, sizeof(*walk));
    for (uint32_t start = 0; walk != NULL && start < servers->count; start++) {
        uint32_t at = start;
        while (at != NO_INDEX && walk[at] == 0) {
            walk[at] = start + 1;
            at = servers->all[at].failover;
        }
        if (at != NO_INDEX && walk[at] == start + 1) {
            complain_loop(servers, at);
            servers->all[at].failover = NO_INDEX; /* so that nobody walks it for ever */
        }
    }
}

uint32_t settings_server_index(struct settings *settings, const struct names *servers,
                               const struct value *value)
{
    uint32_t index = names_find(servers, value->text);
    if (index == NO_INDEX) {
        /* Only for the first few: looking for a near one costs a look at all. */
        struct slice near =
            settings->complaint_count < 20 ? names_nearest(servers, value->text) : SLICE_EMPTY;
        settings_complain(settings, value->at, "there is no server '%.*s'%s%.*s%s",
                          SHOWN(value->text), near.length > 0 ? "; did you mean '" : "",
                          SHOWN(near), near.length > 0 ? "'?" : "");
    }
    return index;
}

/* What is said of all exchangers that DNS names; but they never hear of the client (R9), and nobody
 * knows them so well that he could log in or has a word on recipients. */
static void fill_exchanger(struct servers *servers)
{
    static const char *const others[] = {
        "address", "protocol", "failover",      "warm-up", "auth-user", "auth-password-file",
        "xclient", "tls-name", "authoritative", "proxy"};
    const struct block nothing = {.broken = true};
    const struct block *said = servers->exchangers != NULL ? servers->exchangers : &nothing;
    struct server_config *exchanger = &servers->settings->config.relay.exchanger;
    settings_fill(servers->settings, BLOCK_SERVER, said, exchanger, servers->entries);
    refuse_entries(servers, others, sizeof(others) / sizeof(others[0]),
                   "server mx has none, for it stands for the exchangers that DNS names");
    fill_presence(servers->entries, exchanger);
    fill_authorities(servers, exchanger, settings_entry(servers->entries, BLOCK_SERVER, "tls-ca"),
                     said->at);
    const struct entry *tls = settings_entry(servers->entries, BLOCK_SERVER, "tls");
    if (exchanger->tls == SERVER_TLS_IMPLICIT) {
        settings_complain(servers->settings, tls->at,
                          "tls: exchangers know no TLS before the greeting; none, opportunistic, "
                          "encrypt, required, dane or mta-sts");
    }
    check_name_policy(servers, exchanger, tls);
    exchanger->protocol = SERVER_SMTP;
    exchanger->failover = NO_INDEX;
    exchanger->xclient = false;
    exchanger->proxy = SERVER_PROXY_OFF;
}

void settings_servers(struct settings *settings, struct names *ret_names)
{
    names_init(ret_names);
    uint32_t most = count_blocks(settings);
    struct servers servers = {
        .settings = settings,
        .names = ret_names,
        .all = settings_allocate(settings, most, sizeof(struct server_config)),
        .keys = settings_allocate_tree(settings, most, sizeof(uint32_t)),
        .failovers = settings_allocate_tree(settings, most, sizeof(struct entry *)),
        .blocks = settings_allocate_tree(settings, most, sizeof(struct block *)),
        .entries = settings_allocate_tree(settings, settings_table_length, sizeof(struct entry *)),
    };
    settings->servers = servers.all;
    settings->server_places = settings_allocate_tree(settings, most, sizeof(struct place));
    if (settings->out_of_memory) {
        return;
    }
    collect(&servers, ret_names);
    for (uint32_t i = 0; i < servers.count; i++) {
        fill(&servers, i);
    }
    find_loops(&servers);
    fill_exchanger(&servers);
    settings->config.relay.servers = servers.all;
    settings->config.relay.server_count = servers.count;
}
