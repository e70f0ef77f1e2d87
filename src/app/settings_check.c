/* SPDX-License-Identifier: Apache-2.0
 *
 * The tree to values, by the table; and the blocks that stand for themselves (top, limits, listen).
 * What refers to other blocks is in settings_servers and settings_routes.
 */
#include "app/settings_internal.h"

#include <assert.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- one value ---------------------------------------------------------------------------- */

void settings_format(enum setting_type type, uint64_t value, char ret_text[32])
{
    static const struct {
        uint64_t factor;
        const char *name;
    } durations[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}},
      sizes[] = {{UINT64_C(1) << 40, "T"},
                 {UINT64_C(1) << 30, "G"},
                 {UINT64_C(1) << 20, "M"},
                 {UINT64_C(1) << 10, "K"},
                 {1, ""}};
    bool duration = type == SETTING_DURATION || type == SETTING_DURATIONS;
    if (value == 0 || (!duration && type != SETTING_SIZE)) {
        snprintf(ret_text, 32, "%llu", (unsigned long long)value);
        return;
    }
    for (size_t i = 0; i < 5; i++) {
        uint64_t factor = duration ? durations[i].factor : sizes[i].factor;
        if (value % factor == 0) {
            snprintf(ret_text, 32, "%llu%s", (unsigned long long)(value / factor),
                     duration ? durations[i].name : sizes[i].name);
            return;
        }
    }
}

static void store(const struct setting *setting, void *target, uint64_t value)
{
    uint8_t *at = (uint8_t *)target + setting->offset;
    switch (setting->width) {
    case 0: /* accepted, for later */
        break;
    case 1:
        *at = (uint8_t)value;
        break;
    case 2:
        memcpy(at, &(uint16_t){(uint16_t)value}, 2);
        break;
    case 4:
        memcpy(at, &(uint32_t){(uint32_t)value}, 4);
        break;
    default:
        memcpy(at, &value, 8);
    }
}

static void check_number(struct settings *settings, const struct setting *setting,
                         const struct value *value, void *target)
{
    uint64_t number = 0;
    const char *why = "";
    bool good = setting->none && slice_equal(value->text, SLICE_LITERAL("none"));
    if (!good) {
        good = setting->type == SETTING_DURATION ? value_duration(value->text, &number, &why)
               : setting->type == SETTING_SIZE   ? value_size(value->text, &number, &why)
                                                 : value_count(value->text, &number, &why);
        if (!good) {
            settings_complain(settings, value->at, "%s: '%.*s' %s", setting->name,
                              SHOWN(value->text), why);
            return;
        }
        bool zero_is_none = setting->none && number == 0;
        if (!zero_is_none && (number < setting->least || number > setting->most)) {
            char least[32], most[32];
            settings_format(setting->type, setting->least, least);
            settings_format(setting->type, setting->most, most);
            settings_complain(settings, value->at, "%s: '%.*s' is out of range; from %s to %s",
                              setting->name, SHOWN(value->text), least, most);
            return;
        }
    }
    store(setting, target, number);
}

static void check_choice(struct settings *settings, const struct setting *setting,
                         const struct value *value, void *target)
{
    const char *choices = setting->type == SETTING_SWITCH ? "no|yes" : setting->choices;
    if (setting->later != NULL && settings_choice_index(setting->later, value->text) >= 0) {
        settings_complain(settings, value->at, "%s = %.*s is not available in this version",
                          setting->name, SHOWN(value->text));
        return;
    }
    int index = settings_choice_index(choices, value->text);
    if (index >= 0) {
        store(setting, target, (uint64_t)index);
        return;
    }
    char list[128];
    size_t length = 0;
    for (const char *at = choices; *at != '\0' && length + 3 < sizeof(list); at++) {
        if (*at == '|') {
            list[length++] = ',';
            list[length++] = ' ';
        } else {
            list[length++] = *at;
        }
    }
    list[length] = '\0';
    struct slice near = settings_nearest_choice(choices, value->text);
    settings_complain(settings, value->at, "%s: '%.*s' is not one of %s%s%.*s%s", setting->name,
                      SHOWN(value->text), list, near.length > 0 ? "; did you mean '" : "",
                      SHOWN(near), near.length > 0 ? "'?" : "");
}

static void check_text(struct settings *settings, const struct setting *setting,
                       const struct value *value, void *target)
{
    const char *why = "is empty";
    bool good = value->text.length > 0;
    if (good && setting->type == SETTING_HOSTNAME) {
        good = value_hostname(value->text, &why);
    } else if (good && setting->type == SETTING_MAILBOX) {
        good = value_mailbox(value->text, &why);
    } else if (good && setting->type == SETTING_PATH) {
        why = "is no path";
        good = slice_find(value->text, '\n') == value->text.length;
    }
    if (!good) {
        settings_complain(settings, value->at, "%s: '%.*s' %s", setting->name, SHOWN(value->text),
                          why);
        return;
    }
    assert(setting->width == sizeof(value->text));
    memcpy((uint8_t *)target + setting->offset, &value->text, sizeof(value->text));
}

static void check_ip(struct settings *settings, const struct setting *setting,
                     const struct value *value, void *target)
{
    struct ip_address address;
    if (!ip_from_text(value->text, &address)) {
        settings_complain(settings, value->at, "%s: '%.*s' is no IP address", setting->name,
                          SHOWN(value->text));
        return;
    }
    memcpy((uint8_t *)target + setting->offset, &address, sizeof(address));
}

/* True if it was one of the types that need nothing but their own text. */
static void check_value(struct settings *settings, const struct setting *setting,
                        const struct value *value, void *target)
{
    switch (setting->type) {
    case SETTING_COUNT:
    case SETTING_DURATION:
    case SETTING_SIZE:
        check_number(settings, setting, value, target);
        break;
    case SETTING_SWITCH:
    case SETTING_CHOICE:
        check_choice(settings, setting, value, target);
        break;
    case SETTING_TEXT:
    case SETTING_HOSTNAME:
    case SETTING_PATH:
    case SETTING_MAILBOX:
    case SETTING_LDAP_TEXT:
        check_text(settings, setting, value, target);
        break;
    case SETTING_IP:
        check_ip(settings, setting, value, target);
        break;
    default:
        break; /* filled by hand */
    }
}

/* ---- one block ---------------------------------------------------------------------------- */

static bool takes_list(enum setting_type type)
{
    return type >= SETTING_DURATIONS && type <= SETTING_SENDERS;
}

static const char *block_name(enum setting_block block)
{
    return block == BLOCK_TOP ? "top" : settings_blocks[block].name;
}

static const char *article(enum setting_block block)
{
    return block == BLOCK_ALERT || block == BLOCK_ALLOW || block == BLOCK_LDAP ? "an" : "a";
}

static void complain_unknown(struct settings *settings, enum setting_block block,
                             const struct entry *entry)
{
    const char *near = settings_nearest(block, entry->key);
    if (near != NULL) {
        settings_complain(settings, entry->at, "unknown key '%.*s'; did you mean '%s'?",
                          SHOWN(entry->key), near);
        return;
    }
    for (int other = 0; other < BLOCK_COUNT; other++) {
        if (settings_find((enum setting_block)other, entry->key) != NULL) {
            settings_complain(settings, entry->at, "unknown key '%.*s' here; it belongs %s%s%s%s%s",
                              SHOWN(entry->key), other == BLOCK_TOP ? "outside of blocks" : "in ",
                              other == BLOCK_TOP ? "" : article((enum setting_block)other),
                              other == BLOCK_TOP ? "" : " ", settings_blocks[other].name,
                              other == BLOCK_TOP ? "" : " block");
            return;
        }
    }
    settings_complain(settings, entry->at, "unknown key '%.*s' in %s %s%s", SHOWN(entry->key),
                      block == BLOCK_TOP ? "the" : article(block), block_name(block),
                      block == BLOCK_TOP ? " of the file" : " block");
}

/* False: there is nothing to read a value from. */
static bool check_entry(struct settings *settings, enum setting_block block,
                        const struct setting *setting, const struct entry *entry)
{
    if (setting->type == SETTING_ABSENT) {
        settings_complain(settings, entry->at,
                          "'%s' in %s %s block is not available in this version", setting->name,
                          "a", block_name(block));
        return false;
    }
    for (uint32_t i = 0; i < entry->count; i++) {
        if (entry->values[i].text.data == NULL) {
            return false; /* the lexer has said what is wrong with it */
        }
    }
    if (entry->list && !takes_list(setting->type) && setting->type != SETTING_CHAIN) {
        settings_complain(settings, entry->at, "%s takes one value, not a list", setting->name);
        return false;
    }
    if (entry->count == 0) {
        settings_complain(settings, entry->at, "%s: the list is empty", setting->name);
        return false;
    }
    return true;
}

static void take_entries(struct settings *settings, enum setting_block block,
                         const struct block *tree, void *target, const struct entry **ret_entries)
{
    for (const struct entry *entry = tree->first; entry != NULL; entry = entry->next) {
        const struct setting *setting = settings_find(block, entry->key);
        if (setting == NULL) {
            complain_unknown(settings, block, entry);
            continue;
        }
        if ((setting->local || setting->restart) && settings_is_shared(settings, entry->at)) {
            settings_complain(settings, entry->at, "'%s' stands in each node's own file only",
                              setting->name);
            continue;
        }
        const struct entry **seen = &ret_entries[setting - settings_table];
        if (*seen != NULL) {
            settings_complain(settings, entry->at, "'%s' is given twice; first in %s",
                              setting->name, settings_line(settings, entry->at, (*seen)->at));
            continue;
        }
        *seen = entry;
        if (check_entry(settings, block, setting, entry)) {
            check_value(settings, setting, &entry->values[0], target);
        }
    }
}

void settings_fill(struct settings *settings, enum setting_block block, const struct block *tree,
                   void *target, const struct entry **ret_entries)
{
    memset(ret_entries, 0, settings_table_length * sizeof(*ret_entries));
    for (uint32_t i = 0; i < settings_table_length; i++) {
        const struct setting *setting = &settings_table[i];
        if (setting->block == block && setting->fallback != NULL) {
            struct value value = {slice_from_text(setting->fallback), tree->at};
            check_value(settings, setting, &value, target);
        }
    }
    take_entries(settings, block, tree, target, ret_entries);
    for (uint32_t i = 0; i < settings_table_length; i++) {
        const struct setting *setting = &settings_table[i];
        if (setting->block == block && setting->required && ret_entries[i] == NULL &&
            !tree->broken) {
            struct slice title = tree->title_count > 0 ? tree->titles[0].text : SLICE_EMPTY;
            const char *quote = settings_blocks[block].titled ? "'" : "";
            settings_complain(settings, tree->at, "%s%s%s%.*s%s needs %s = ...", block_name(block),
                              *quote != '\0' ? " " : "", quote, SHOWN(title), quote, setting->name);
        }
    }
}

const struct entry *settings_entry(const struct entry *const *entries, enum setting_block block,
                                   const char *name)
{
    const struct setting *setting = settings_find(block, slice_from_text(name));
    const struct entry *entry = setting == NULL ? NULL : entries[setting - settings_table];
    for (uint32_t i = 0; entry != NULL && i < entry->count; i++) {
        if (entry->values[i].text.data == NULL) {
            return NULL;
        }
    }
    return entry;
}

/* ---- listen ------------------------------------------------------------------------------- */

static bool is_listening(const struct settings *settings, const struct ip_endpoint *at)
{
    for (uint32_t i = 0; i < settings->config.listener_count; i++) {
        const struct ip_endpoint *other = &settings->config.listeners[i].at;
        if (other->port == at->port && ip_equal(&other->address, &at->address)) {
            return true;
        }
    }
    return false;
}

static void add_listener(struct settings *settings, struct listener_config *listeners,
                         const struct listener_config *like, const struct value *value)
{
    struct server_address address;
    const char *why = "";
    static const uint16_t usual_ports[] = {[LISTENER_SMTP] = 25,
                                           [LISTENER_HTTP] = 0,
                                           [LISTENER_ODMR] = 366,
                                           [LISTENER_SUBMISSION] = 587};
    bool is_465 = like->protocol == LISTENER_SUBMISSION && like->tls == LISTENER_TLS_IMPLICIT;
    uint16_t usual = is_465 ? 465 : usual_ports[like->protocol]; /* RFC 8314 */
    bool good = value_address(value->text, usual, &address, &why);
    if (good && !address.is_literal) {
        why = "must be an IP address and a port, such as 0.0.0.0:25 or [::]:25";
        good = false;
    }
    struct listener_config listener = *like;
    listener.at = (struct ip_endpoint){address.literal, address.port};
    if (good && is_listening(settings, &listener.at)) {
        why = "is listened on already";
        good = false;
    }
    if (!good) {
        settings_complain(settings, value->at, "address: '%.*s' %s", SHOWN(value->text), why);
        return;
    }
    if (settings->config.listener_count == LISTENERS_MAX) {
        settings_complain(settings, value->at, "address: '%.*s' is more than %d to listen on",
                          SHOWN(value->text), LISTENERS_MAX);
        return;
    }
    listeners[settings->config.listener_count++] = listener;
}

/* Whose word about their clients is taken. */
static void take_peers(struct settings *settings, const struct entry **entries,
                       struct listener_config *listener)
{
    static const char everybody[] = "lets everybody pass for anybody";
    const struct entry *trusted = settings_entry(entries, BLOCK_LISTEN, "trusted");
    const struct entry *proxies = settings_entry(entries, BLOCK_LISTEN, "proxy-from");
    if (trusted != NULL) {
        listener->trusted.all =
            settings_networks(settings, trusted, everybody, &listener->trusted.count);
    }
    if (proxies != NULL) {
        listener->proxies.all =
            settings_networks(settings, proxies, everybody, &listener->proxies.count);
    }
    if ((trusted != NULL || proxies != NULL) && listener->protocol != LISTENER_SMTP) {
        settings_complain(settings, (trusted != NULL ? trusted : proxies)->at,
                          "%.*s is for protocol = smtp only",
                          SHOWN((trusted != NULL ? trusted : proxies)->key));
    }
}

static void check_listeners(struct settings *settings, const struct entry **entries)
{
    struct listener_config *listeners =
        settings_allocate(settings, LISTENERS_MAX, sizeof(*listeners));
    if (listeners == NULL) {
        return;
    }
    settings->config.listeners = listeners;
    struct names names;
    names_init(&names);
    bool broken = false;
    for (const struct block *block = settings->first_block; block != NULL; block = block->next) {
        if (settings_block_find(block->kind) != BLOCK_LISTEN) {
            continue;
        }
        struct listener_config listener = {0};
        settings->waits = false;
        broken = broken || block->broken;
        settings_fill(settings, BLOCK_LISTEN, block, &listener, entries);
        listener.name = block->title_count > 0 ? block->titles[0].text : SLICE_EMPTY;
        (void)names_once(settings, &names, listener.name, block->at, "listen");
        settings_odmr_listener(settings, block, settings_entry(entries, BLOCK_LISTEN, "users"),
                               &listener);
        settings_listener_tls(settings, block, entries, &listener);
        take_peers(settings, entries, &listener);
        settings_listener_milters(settings, settings_entry(entries, BLOCK_LISTEN, "milters"),
                                  &listener);
        settings_login(settings, block, settings_entry(entries, BLOCK_LISTEN, "auth"), &listener);
        const struct entry *address = settings_entry(entries, BLOCK_LISTEN, "address");
        broken = broken || settings->waits;
        for (uint32_t i = 0; address != NULL && !settings->waits && i < address->count; i++) {
            add_listener(settings, listeners, &listener, &address->values[i]);
        }
    }
    names_done(&names);
    bool smtp = broken;
    for (uint32_t i = 0; i < settings->config.listener_count; i++) {
        smtp = smtp || listeners[i].protocol == LISTENER_SMTP ||
               listeners[i].protocol == LISTENER_SUBMISSION;
    }
    if (!smtp) {
        settings_warn(settings, settings->top.at, "no listen block for smtp: no mail can come in");
    }
}

/* ---- top ---------------------------------------------------------------------------------- */

static void check_hostname(struct settings *settings, const struct entry *const *entries)
{
    struct service_config *config = &settings->config;
    if (settings_entry(entries, BLOCK_TOP, "hostname") == NULL && !settings->top.broken) {
        const char *why;
        if (!value_hostname(settings->machine_name, &why)) {
            settings_complain(settings, settings->top.at, "hostname = NAME is needed");
        } else {
            config->hostname = settings->machine_name;
            settings_warn(settings, settings->top.at, "no hostname given; using '%.*s'",
                          SHOWN(config->hostname));
        }
    }
    config->relay.hostname = config->hostname;
    if (config->authserv_id.length == 0) {
        config->authserv_id = config->hostname;
    }
}

static void make_absolute(struct settings *settings, struct slice *path)
{
    size_t size = settings->directory.length + path->length + 2;
    char *joined = settings_allocate(settings, size, 1);
    if (joined != NULL) {
        int length = snprintf(joined, size, "%.*s/%.*s", SLICE_PRINT(settings->directory),
                              SLICE_PRINT(*path));
        *path = slice_make(joined, (size_t)length);
    }
}

struct slice settings_peek_state(struct settings *settings)
{
    struct slice name = SLICE_LITERAL("state");
    struct slice state = slice_from_text(settings_find(BLOCK_TOP, name)->fallback);
    for (const struct entry *entry = settings->top.first; entry != NULL; entry = entry->next) {
        if (slice_equal(entry->key, name) && entry->count == 1) {
            state = entry->values[0].text;
        }
    }
    if (state.length == 0 || state.data[0] != '/') {
        make_absolute(settings, &state);
    }
    return state;
}

static void check_state(struct settings *settings, const struct entry *entry)
{
    struct slice *state = &settings->config.state;
    if (state->length == 0 || state->data[0] != '/') {
        make_absolute(settings, state);
    }
    if (state->length > STATE_PATH_MAX) {
        settings_complain(settings, entry != NULL ? entry->at : settings->top.at,
                          "state: the path is longer than %d octets", STATE_PATH_MAX);
    }
}

/* The value as a C string; NULL if there is none. */
static const char *account_name(struct settings *settings, const struct entry *entry)
{
    return entry == NULL || entry->count != 1
               ? NULL
               : (const char *)arena_copy(&settings->tree_arena, entry->values[0].text).data;
}

/* Only where the file itself is read: a process in its sandbox has no list of accounts. Who is not
 * root cannot become another user, and need not have one of that name. */
static void check_accounts(struct settings *settings, const struct entry *user_entry,
                           const struct entry *group_entry)
{
    const char *user = account_name(settings, user_entry);
    const char *group = account_name(settings, group_entry);
    if (user != NULL && user[0] != '\0' && geteuid() == 0 && getpwnam(user) == NULL) {
        settings_complain(settings, user_entry->at, "user: there is no user '%s' on this machine",
                          user);
    }
    if (group != NULL && group[0] != '\0' && getgrnam(group) == NULL) {
        settings_complain(settings, group_entry->at,
                          "group: there is no group '%s' on this machine", group);
    }
}

/* "192.0.2.53@5353" is how libunbound writes a resolver with a port. */
static void check_forwarders(struct settings *settings, const struct entry *entry)
{
    if (entry == NULL) {
        return;
    }
    struct slice *forwarders = settings_allocate(settings, entry->count, sizeof(*forwarders));
    uint32_t count = 0;
    for (uint32_t i = 0; forwarders != NULL && i < entry->count; i++) {
        struct server_address address;
        const char *why = "";
        bool good = value_address(entry->values[i].text, 53, &address, &why);
        if (good && !address.is_literal) {
            why = "must be an IP address";
        }
        if (!good || !address.is_literal) {
            settings_complain(settings, entry->values[i].at, "dns-forwarders: '%.*s' %s",
                              SHOWN(entry->values[i].text), why);
            continue;
        }
        char ip[IP_TEXT_SIZE];
        char *text = settings_allocate(settings, IP_TEXT_SIZE + 8, 1);
        if (text != NULL) {
            ip_to_text(&address.literal, ip);
            int length = snprintf(text, IP_TEXT_SIZE + 8, "%s@%u", ip, address.port);
            forwarders[count++] = slice_make(text, (size_t)length);
        }
    }
    settings->config.dns_forwarders = forwarders;
    settings->config.dns_forwarder_count = count;
}

static void check_anchor(struct settings *settings, const struct entry *entry)
{
    if (entry == NULL || entry->count != 1) {
        return;
    }
    struct slice text = entry->values[0].text;
    struct slice prefix = SLICE_LITERAL("file:");
    uint32_t source = 0;
    if (slice_starts_fold(text, prefix)) {
        if (!settings_source(settings, &entry->values[0].at, slice_skip(text, prefix.length),
                             &source)) {
            return;
        }
        text = settings->sources[source].content;
    }
    uint32_t line;
    if (!settings_anchors_are_good(text, &line)) {
        bool in_file = text.data != entry->values[0].text.data;
        settings_complain(
            settings, in_file ? (struct place){source, line > 0 ? line : 1} : entry->at,
            "dns-trust-anchor: no DS or DNSKEY record; write one, or file:PATH with one a line");
        return;
    }
    settings->config.dns_trust_anchor = text;
}

const struct block *settings_only_block(struct settings *settings, enum setting_block kind)
{
    const char *name = settings_blocks[kind].name;
    const struct block *only = NULL;
    for (const struct block *block = settings->first_block; block != NULL; block = block->next) {
        if (settings_block_find(block->kind) != kind) {
            continue;
        }
        if (block->title_count > 0) {
            settings_complain(settings, block->at, "a %s block has no title", name);
        }
        if (only != NULL) {
            settings_complain(settings, block->at, "%s is there twice; first in %s", name,
                              settings_line(settings, block->at, only->at));
            continue;
        }
        only = block;
    }
    return only;
}

static void check_limits(struct settings *settings, const struct entry **entries)
{
    const struct block none = {.at = settings->top.at};
    const struct block *limits = settings_only_block(settings, BLOCK_LIMITS);
    settings_fill(settings, BLOCK_LIMITS, limits != NULL ? limits : &none, &settings->config,
                  entries);
}

static void check_titles(struct settings *settings)
{
    for (const struct block *block = settings->first_block; block != NULL; block = block->next) {
        enum setting_block kind = settings_block_find(block->kind);
        if (settings_blocks[kind].local && settings_is_shared(settings, block->at)) {
            settings_complain(settings, block->at,
                              "%s %s block stands in each node's own file only", article(kind),
                              settings_blocks[kind].name);
        }
        if (settings_blocks[kind].titled && block->title_count == 0 && !block->broken) {
            settings_complain(settings, block->at, "%s %s block needs a title", article(kind),
                              settings_blocks[kind].name);
        } else if (kind != BLOCK_DOMAIN && block->title_count > 1) {
            settings_complain(settings, block->at, "%s %s block has one title, not a list",
                              article(kind), settings_blocks[kind].name);
        }
    }
}

void settings_check_top(struct settings *settings)
{
    const struct entry **top =
        settings_allocate_tree(settings, settings_table_length, sizeof(*top));
    if (top != NULL) {
        settings_fill(settings, BLOCK_TOP, &settings->top, &settings->config, top);
        check_state(settings, settings_entry(top, BLOCK_TOP, "state"));
    }
}

void settings_check_cluster(struct settings *settings)
{
    const struct entry **entries =
        settings_allocate_tree(settings, settings_table_length, sizeof(*entries));
    settings_check_top(settings);
    if (entries != NULL) {
        settings_cluster(settings, entries);
    }
}

void settings_check(struct settings *settings)
{
    size_t places = settings_table_length;
    const struct entry **top = settings_allocate_tree(settings, places, sizeof(*top));
    const struct entry **entries = settings_allocate_tree(settings, places, sizeof(*entries));
    if (top == NULL || entries == NULL) {
        return;
    }
    settings_fill(settings, BLOCK_TOP, &settings->top, &settings->config, top);
    check_hostname(settings, top);
    check_state(settings, settings_entry(top, BLOCK_TOP, "state"));
    if (!settings->sealed) {
        check_accounts(settings, settings_entry(top, BLOCK_TOP, "user"),
                       settings_entry(top, BLOCK_TOP, "group"));
    }
    check_forwarders(settings, settings_entry(top, BLOCK_TOP, "dns-forwarders"));
    check_anchor(settings, settings_entry(top, BLOCK_TOP, "dns-trust-anchor"));
    check_titles(settings);
    check_limits(settings, entries);
    settings_milters(settings, entries);
    settings_ldap(settings, entries);
    settings_cluster(settings, entries);
    settings_standby(settings, entries);
    check_listeners(settings, entries);
    struct names servers;
    settings_servers(settings, &servers);
    settings_routes(settings, &servers, top);
    settings_odmr(settings);
    settings_guards(settings, &servers, entries);
    names_done(&servers);
    settings_users(settings);
    settings_access(settings, entries);
    settings_dnsbl(settings, entries);
    settings_alerts(settings, entries); /* by routes that are there */
}
