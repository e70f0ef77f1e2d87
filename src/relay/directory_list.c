/* SPDX-License-Identifier: Apache-2.0
 *
 * Lists of recipients, as sources name them: into the tables of the domains that they are for.
 */
#include "relay/directory_internal.h"

#include <stdlib.h>

enum { PATTERN_MAX = 2 + 255 };

/* The table of those domains of a pattern that have none of their own: "*.name". */
static struct slice pattern_domain(const struct domain_pattern *pattern,
                                   uint8_t buffer[PATTERN_MAX])
{
    size_t length = pattern->name.length < PATTERN_MAX - 2 ? pattern->name.length : PATTERN_MAX - 2;
    buffer[0] = '*';
    buffer[1] = '.';
    memcpy(buffer + 2, pattern->name.data, length);
    return slice_make(buffer, length + 2);
}

struct domain_table *directory_pattern_table(const struct relay *relay,
                                             const struct route_config *route, struct slice domain)
{
    uint8_t buffer[PATTERN_MAX];
    for (uint32_t i = 0; i < route->domain_count; i++) {
        struct slice name = route->domains[i].name;
        if (route->domains[i].wild && domain.length > name.length + 1 &&
            domain.data[domain.length - name.length - 1] == '.' &&
            slice_equal_fold(slice_skip(domain, domain.length - name.length), name)) {
            return directory_find(relay, pattern_domain(&route->domains[i], buffer));
        }
    }
    return NULL;
}

static bool names_source(const struct relay *relay, const struct route_config *route)
{
    const struct directory *directory = relay->directory;
    return directory_keeps(route) && route->recipients == RECIPIENTS_LIST &&
           directory->source != NULL &&
           slice_equal(route->recipients_list,
                       slice_make(directory->source, directory->source_length));
}

static enum error begin_table(struct relay *relay, struct slice domain,
                              struct domain_table **ret_table)
{
    struct domain_table *table = directory_find(relay, domain);
    table = table != NULL ? table : directory_make(relay, domain);
    *ret_table = table;
    if (table == NULL) {
        return relay->directory->tables.count >= DIRECTORY_DOMAINS_MAX ? ERROR_LIMIT : ERROR_MEMORY;
    }
    if (!mailboxes_list_is_read(table->mailboxes)) {
        mailboxes_list_begin(table->mailboxes);
        table->everybody = false;
    }
    return ERROR_NONE;
}

/* All that a block has by name, also where the list names nobody of it. */
static enum error begin_route(struct relay *relay, const struct route_config *route)
{
    uint8_t buffer[PATTERN_MAX];
    struct domain_table *table;
    enum error error = ERROR_NONE;
    for (uint32_t i = 0; error == ERROR_NONE && i < route->domain_count; i++) {
        const struct domain_pattern *pattern = &route->domains[i];
        if (pattern->wild || !pattern->alias) {
            error = begin_table(
                relay, pattern->wild ? pattern_domain(pattern, buffer) : pattern->name, &table);
        }
    }
    return error;
}

enum error relay_list_begin(struct relay *relay, struct slice source)
{
    struct directory *directory = relay->directory;
    bool named = false;
    relay_list_give_up(relay);
    directory->source = malloc(source.length + 1);
    if (directory->source == NULL) {
        return ERROR_MEMORY;
    }
    memcpy(directory->source, source.data, source.length);
    directory->source_length = source.length;
    enum error error = ERROR_NONE;
    for (uint32_t i = 0; error == ERROR_NONE && i < relay->config->route_count; i++) {
        if (names_source(relay, &relay->config->routes[i])) {
            named = true;
            error = begin_route(relay, &relay->config->routes[i]);
        }
    }
    error = error == ERROR_NONE && !named ? ERROR_MISSING : error;
    if (error != ERROR_NONE) {
        relay_list_give_up(relay);
        return error;
    }
    /* Those of domains under a pattern that had names of their own in the list before. */
    struct domain_table *table;
    for (size_t cursor = 0; (table = map_next(&directory->tables, &cursor)) != NULL;) {
        uint32_t index;
        if (names_source(relay, directory_route(relay, directory_domain_of(table), &index)) &&
            !mailboxes_list_is_read(table->mailboxes)) {
            mailboxes_list_begin(table->mailboxes);
            table->everybody = false;
        }
    }
    return ERROR_NONE;
}

enum error relay_list_add(struct relay *relay, struct slice address)
{
    uint32_t index;
    uint8_t buffer[MAILBOX_NAME_MAX];
    struct slice name, domain = domain_of_address(address);
    const struct route_config *route = directory_route(relay, domain, &index);
    struct domain_table *table;
    if (relay->directory->source == NULL) {
        return ERROR_CLOSED;
    }
    if (!names_source(relay, route)) {
        return ERROR_INVALID;
    }
    enum error error = begin_table(relay, directory_domain(route, domain), &table);
    if (error != ERROR_NONE) {
        return error;
    }
    if (address.length == domain.length + 1) {
        table->everybody = true;
        return ERROR_NONE;
    }
    return directory_name(route, address, true, buffer, &name)
               ? mailboxes_list_add(table->mailboxes, name)
               : ERROR_INVALID;
}

static void settle_lists(struct relay *relay, bool ends, int64_t now_ms)
{
    struct directory *directory = relay->directory;
    struct domain_table *table;
    for (size_t cursor = 0; (table = map_next(&directory->tables, &cursor)) != NULL;) {
        if (!mailboxes_list_is_read(table->mailboxes)) {
            continue;
        }
        if (ends) {
            mailboxes_list_end(table->mailboxes, table->everybody, now_ms);
        } else {
            mailboxes_list_give_up(table->mailboxes);
        }
    }
    free(directory->source);
    directory->source = NULL;
}

enum error relay_list_end(struct relay *relay, struct relay_time now)
{
    if (relay->directory->source == NULL) {
        return ERROR_CLOSED;
    }
    settle_lists(relay, true, now.wall_ms);
    return ERROR_NONE;
}

void relay_list_give_up(struct relay *relay)
{
    if (relay->directory->source != NULL) {
        settle_lists(relay, false, 0);
    }
}
