/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/access.h"

#include "base/network_set.h"
#include "base/pattern_set.h"

#include <stdlib.h>

/* NULL: the rule does not name it. */
struct tables {
    struct network_set *clients;
    struct pattern_set *helos;
    struct pattern_set *senders;
};

struct access {
    const struct access_rule *rules;
    uint32_t count;
    struct tables tables[];
};

static bool tables_make(struct tables *tables, struct hash_key key, const struct access_rule *rule)
{
    if (rule->clients != NULL) {
        tables->clients = network_set_new(rule->clients, rule->client_count);
    }
    if (rule->helos != NULL) {
        tables->helos = pattern_set_new(key, rule->helos, rule->helo_count);
    }
    if (rule->senders != NULL) {
        tables->senders = pattern_set_new(key, rule->senders, rule->sender_count);
    }
    return (rule->clients == NULL) == (tables->clients == NULL) &&
           (rule->helos == NULL) == (tables->helos == NULL) &&
           (rule->senders == NULL) == (tables->senders == NULL);
}

struct access *access_new(struct hash_key key, const struct access_rule *rules, uint32_t count)
{
    struct access *access = calloc(1, sizeof(*access) + count * sizeof(struct tables));
    bool made = access != NULL;
    for (uint32_t i = 0; made && i < count; i++) {
        access->rules = rules;
        access->count = i + 1;
        made = tables_make(&access->tables[i], key, &rules[i]);
    }
    if (!made) {
        access_free(access);
        return NULL;
    }
    return access;
}

void access_free(struct access *access)
{
    for (uint32_t i = 0; access != NULL && i < access->count; i++) {
        network_set_free(access->tables[i].clients);
        pattern_set_free(access->tables[i].helos);
        pattern_set_free(access->tables[i].senders);
    }
    free(access);
}

static bool holds(const struct tables *tables, const struct access_query *query)
{
    struct slice sender = query->sender.length > 0 ? query->sender : SLICE_LITERAL("<>");
    if ((tables->helos != NULL && !query->has_helo) ||
        (tables->senders != NULL && !query->has_sender)) {
        return false;
    }
    return (tables->clients == NULL || network_set_contains(tables->clients, query->client)) &&
           (tables->helos == NULL || pattern_set_matches(tables->helos, query->helo)) &&
           (tables->senders == NULL || pattern_set_matches(tables->senders, sender));
}

const struct access_rule *access_find(const struct access *access, const struct access_query *query)
{
    const struct access_rule *found = NULL;
    for (uint32_t i = 0; i < access->count; i++) {
        const struct access_rule *rule = &access->rules[i];
        if ((found == NULL || rule->allows) && holds(&access->tables[i], query)) {
            if (rule->allows) {
                return rule;
            }
            found = rule;
        }
    }
    return found;
}
