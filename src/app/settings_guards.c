/* SPDX-License-Identifier: Apache-2.0
 *
 * The guard blocks: servers that have a cold standby, and the programs that start and end it.
 */
#include "app/settings_internal.h"

/* Names are not taken: one would lead to the standby as soon as DNS does. */
static uint32_t take_places(struct settings *settings, const struct entry *entry,
                            struct ip_endpoint places[GUARD_PLACES_MAX])
{
    uint32_t count = 0;
    for (uint32_t i = 0; entry != NULL && i < entry->count; i++) {
        struct server_address address;
        struct slice text = entry->values[i].text;
        const char *why = "";
        bool good = value_address(text, 0, &address, &why);
        if (good && !address.is_literal) {
            good = false;
            why = "must be an IP address";
        } else if (good && count == GUARD_PLACES_MAX) {
            good = false;
            why = "is one too many";
        }
        if (good) {
            places[count++] = (struct ip_endpoint){address.literal, address.port};
        } else {
            settings_complain(settings, entry->values[i].at, "%.*s: '%.*s' %s", SHOWN(entry->key),
                              SHOWN(text), why);
        }
    }
    return count;
}

/* Who has the server's address is the server, or its standby: nobody can tell. */
static void check_watch(struct settings *settings, const struct entry *entry,
                        const struct guard_config *guard)
{
    const struct server_config *server = &settings->config.relay.servers[guard->server];
    for (uint32_t i = 0; i < guard->watch_count; i++) {
        for (uint32_t j = 0; j < server->address_count; j++) {
            if (server->addresses[j].is_literal &&
                server->addresses[j].port == guard->watch[i].port &&
                ip_equal(&server->addresses[j].literal, &guard->watch[i].address)) {
                settings_complain(settings, entry->at,
                                  "watch: that is where mail goes, be it to a standby; name "
                                  "another port or address of the machine, or use "
                                  "undo-when = server");
                return;
            }
        }
    }
}

static void check_undo(struct settings *settings, const struct block *block,
                       const struct guard_config *guard)
{
    if (guard->undo_when != GUARD_UNDO_MANUAL && guard->undo.length == 0) {
        settings_complain(settings, block->at, "guard '%.*s': undo-when needs undo",
                          SHOWN(guard->name));
    }
    if (guard->undo_when == GUARD_UNDO_WATCH && guard->watch_count == 0) {
        settings_complain(settings, block->at, "guard '%.*s': undo-when = watch needs watch",
                          SHOWN(guard->name));
    }
}

static bool take_server(struct settings *settings, const struct names *servers,
                        const struct block *block, struct guard_config *guard)
{
    guard->name = block->title_count > 0 ? block->titles[0].text : SLICE_EMPTY;
    uint32_t number = block->title_count > 0
                          ? settings_server_index(settings, servers, &block->titles[0])
                          : NO_INDEX; /* which has been said */
    if (number == NO_INDEX) {
        return false;
    }
    guard->server = number;
    if (settings->config.relay.servers[number].protocol == SERVER_ODMR) {
        settings_complain(settings, block->at,
                          "guard '%.*s': whether a server is there that calls us is not known",
                          SHOWN(guard->name));
    }
    if (guard->name.length > GUARD_NAME_MAX) {
        settings_complain(settings, block->at, "guard '%.*s': the name is longer than %d",
                          SHOWN(guard->name), GUARD_NAME_MAX);
    }
    return true;
}

static void take_block(struct settings *settings, const struct names *servers,
                       const struct block *block, const struct entry **entries,
                       struct guard_config *guard)
{
    settings_fill(settings, BLOCK_GUARD, block, guard, entries);
    const struct entry *watch = settings_entry(entries, BLOCK_GUARD, "watch");
    guard->start = settings_program(settings, settings_entry(entries, BLOCK_GUARD, "start"));
    guard->undo = settings_program(settings, settings_entry(entries, BLOCK_GUARD, "undo"));
    guard->watch_count = take_places(settings, watch, guard->watch);
    guard->witness_count =
        take_places(settings, settings_entry(entries, BLOCK_GUARD, "witness"), guard->witness);
    if (take_server(settings, servers, block, guard)) {
        check_watch(settings, watch, guard);
    }
    check_undo(settings, block, guard);
}

void settings_guards(struct settings *settings, const struct names *servers,
                     const struct entry **entries)
{
    struct guard_config *guards = settings_allocate(settings, GUARDS_MAX, sizeof(*guards));
    struct names names;
    names_init(&names);
    for (const struct block *block = settings->first_block; block != NULL && guards != NULL;
         block = block->next) {
        if (settings_block_find(block->kind) != BLOCK_GUARD || settings->config.joining) {
            continue; /* whoever joins a cluster does not know its servers yet */
        }
        if (settings->config.guard_count == GUARDS_MAX) {
            settings_complain(settings, block->at, "more than %d guard blocks", GUARDS_MAX);
            break;
        }
        struct guard_config *guard = &guards[settings->config.guard_count++];
        take_block(settings, servers, block, entries, guard);
        (void)names_once(settings, &names, guard->name, block->at, "guard");
    }
    names_done(&names);
    settings->config.guards = guards;
}
