/* SPDX-License-Identifier: Apache-2.0
 *
 * The cluster block: the database that the cluster shares, and what this member is. It is local:
 * it cannot come from the database itself.
 */
#include "app/settings_internal.h"
#include "cluster/balance.h"
#include "sys/database.h"

#include <stdio.h>

static const char *const role_words = "node|hub|gateway";

static void fill_roles(struct settings *settings, const struct entry *entry,
                       struct cluster_config *cluster)
{
    cluster->roles = entry == NULL ? NODE_ROLE_NODE | NODE_ROLE_HUB | NODE_ROLE_GATEWAY : 0;
    for (uint32_t i = 0; entry != NULL && i < entry->count; i++) {
        const struct value *value = &entry->values[i];
        int role = settings_choice_index(role_words, value->text);
        if (role >= 0) {
            cluster->roles |= 1u << role;
            continue;
        }
        struct slice near = settings_nearest_choice(role_words, value->text);
        settings_complain(settings, value->at,
                          "role: '%.*s' is not one of gateway, node, hub%s%.*s%s",
                          SHOWN(value->text), near.length > 0 ? "; did you mean '" : "",
                          SHOWN(near), near.length > 0 ? "'?" : "");
    }
}

/* It names a place in tables, logs and commands. */
static bool check_name(struct settings *settings, struct place at, const char *key,
                       struct slice name)
{
    if (!node_name_is_good(name)) {
        settings_complain(settings, at,
                          "%s: '%.*s' is not 1 to %d of a-z, 0-9, '-', '.', '_' that begin and end "
                          "with a letter or digit",
                          key, SHOWN(name), NODE_NAME_MAX);
        return false;
    }
    return true;
}

struct slice settings_first_label(struct settings *settings, struct slice hostname)
{
    size_t length = slice_find(hostname, '.');
    char *label = settings_allocate(settings, length + 1, 1);
    for (size_t i = 0; label != NULL && i < length; i++) {
        uint8_t c = hostname.data[i];
        label[i] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    }
    return label != NULL ? slice_make(label, length) : SLICE_EMPTY;
}

static void check_database(struct settings *settings, struct place at, struct slice database)
{
    static const char *const ours[] = {"target_session_attrs", "application_name", "password",
                                       NULL};
    char text[CLUSTER_DATABASE_MAX + 1], problem[DATABASE_ERROR_SIZE];
    unsigned set;
    if (database.length > CLUSTER_DATABASE_MAX || slice_find(database, 0) != database.length) {
        settings_complain(settings, at, "database: is longer than %d, or has a NUL",
                          CLUSTER_DATABASE_MAX);
        return;
    }
    if (settings->sealed) {
        return; /* who reads the files has looked: others have no libpq */
    }
    snprintf(text, sizeof(text), "%.*s", SLICE_PRINT(database));
    if (!database_check_conninfo(text, ours, &set, problem)) {
        settings_complain(settings, at, "database: %s", problem);
    }
    for (size_t i = 0; ours[i] != NULL; i++) {
        if ((set & 1u << i) != 0) {
            settings_complain(settings, at, "database: %s %s", ours[i],
                              i < 2 ? "is set by the program"
                                    : "stands in a file: database-password-file");
        }
    }
}

/* ---- of a domain -------------------------------------------------------------------------- */

static enum error group_of(struct settings *settings, const struct entry *nodes,
                           const struct entry *site, char group[SHARE_GROUP_MAX + 1])
{
    if (nodes == NULL) {
        return share_group_of_site(site->values[0].text, group);
    }
    struct slice *names = settings_allocate_tree(settings, nodes->count, sizeof(*names));
    for (uint32_t i = 0; names != NULL && i < nodes->count; i++) {
        names[i] = nodes->values[i].text;
        if (!check_name(settings, nodes->values[i].at, "nodes", names[i])) {
            return ERROR_NONE;
        }
    }
    return names != NULL ? share_group_of_nodes(names, nodes->count, group) : ERROR_MEMORY;
}

void settings_share(struct settings *settings, const struct entry *const *entries,
                    struct route_config *route)
{
    const struct entry *nodes = settings_entry(entries, BLOCK_DOMAIN, "nodes");
    const struct entry *site = settings_entry(entries, BLOCK_DOMAIN, "site");
    bool has_nodes = nodes != NULL && nodes->count > 0;
    bool has_site = site != NULL && site->count == 1 && !site->list;
    char group[SHARE_GROUP_MAX + 1] = "";
    if (has_nodes && has_site) {
        settings_complain(settings, site->at, "nodes and site: choose one of them");
        return;
    }
    if ((!has_nodes && !has_site) ||
        (has_site && !check_name(settings, site->at, "site", site->values[0].text))) {
        return;
    }
    enum error error = group_of(settings, has_nodes ? nodes : NULL, has_nodes ? NULL : site, group);
    if (error == ERROR_LIMIT) {
        settings_complain(settings, nodes->at, "nodes: more than %d characters in all",
                          SHARE_GROUP_MAX);
    }
    size_t length = strlen(group);
    uint8_t *copy = settings_allocate(settings, length + 1, 1);
    if (copy != NULL) {
        memcpy(copy, group, length);
        route->share_group = slice_make(copy, length);
    }
}

/* ---- the block ---------------------------------------------------------------------------- */

void settings_cluster(struct settings *settings, const struct entry **entries)
{
    const struct block *block = settings_only_block(settings, BLOCK_CLUSTER);
    struct cluster_config *cluster = &settings->config.cluster;
    if (block == NULL) {
        return;
    }
    settings_fill(settings, BLOCK_CLUSTER, block, &settings->config, entries);
    const struct entry *database = settings_entry(entries, BLOCK_CLUSTER, "database");
    if (database != NULL && cluster->database.length > 0) {
        check_database(settings, database->at, cluster->database);
    }
    fill_roles(settings, settings_entry(entries, BLOCK_CLUSTER, "role"), cluster);
    if (cluster->name.length == 0) {
        cluster->name = settings_first_label(settings, settings->config.hostname);
    }
    (void)check_name(settings, block->at, "name", cluster->name);
    if (cluster->site.length > 0) {
        (void)check_name(settings, block->at, "site", cluster->site);
    }
    const struct entry *file = settings_entry(entries, BLOCK_CLUSTER, "database-password-file");
    if (file != NULL && file->count == 1 && !file->list) {
        (void)settings_secret(settings, &file->values[0].at, file->values[0].text,
                              SETTINGS_FOR_CORE | SETTINGS_FOR_HELPER, SETTINGS_SECRET_MAX,
                              &cluster->password);
    }
}
