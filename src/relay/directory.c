/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables, and what is answered to an address at RCPT.
 */
#include "relay/directory_internal.h"

#include <stdlib.h>

static void table_free(struct domain_table *table)
{
    mailboxes_free(table->mailboxes);
    free(table);
}

struct directory *directory_new(void)
{
    struct directory *directory = calloc(1, sizeof(*directory));
    if (directory != NULL) {
        map_init(&directory->tables);
        arena_init(&directory->arena);
    }
    return directory;
}

void directory_free(struct directory *directory)
{
    struct domain_table *table;
    if (directory == NULL) {
        return;
    }
    for (size_t cursor = 0; (table = map_next(&directory->tables, &cursor)) != NULL;) {
        table_free(table);
    }
    map_done(&directory->tables);
    known_done(&directory->taught);
    arena_done(&directory->arena);
    free(directory->source);
    free(directory);
}

void relay_set_envelopes(struct relay *relay, const struct relay_envelopes *envelopes)
{
    relay->directory->envelopes = *envelopes;
}

/* ---- names -------------------------------------------------------------------------------- */

const struct route_config *directory_route(const struct relay *relay, struct slice domain,
                                           uint32_t *ret_index)
{
    *ret_index = routing_domain(relay->routing, domain);
    return *ret_index == NO_INDEX ? NULL : &relay->config->routes[*ret_index];
}

static struct slice first_name(const struct route_config *route)
{
    for (uint32_t i = 0; i < route->domain_count; i++) {
        if (!route->domains[i].wild && !route->domains[i].alias) {
            return route->domains[i].name;
        }
    }
    return SLICE_EMPTY;
}

/* The domain whose table it is looked up in. */
struct slice directory_domain(const struct route_config *route, struct slice domain)
{
    for (uint32_t i = 0; i < route->domain_count; i++) {
        const struct domain_pattern *pattern = &route->domains[i];
        if (pattern->alias && !pattern->wild && slice_equal_fold(pattern->name, domain)) {
            struct slice first = first_name(route);
            return first.length > 0 ? first : domain;
        }
    }
    return domain;
}

static uint8_t fold(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte + ('a' - 'A')) : byte;
}

/* 0: it is too long, or empty. */
static size_t plain_local(struct slice local, bool folds, uint8_t buffer[MAILBOX_NAME_MAX])
{
    bool quoted = local.length >= 2 && local.data[0] == '"' && local.data[local.length - 1] == '"';
    struct slice inner = quoted ? slice_make(local.data + 1, local.length - 2) : local;
    size_t length = 0;
    for (size_t i = 0; i < inner.length; i++) {
        if (quoted && inner.data[i] == '\\' && i + 1 < inner.length) {
            i++;
        }
        if (length == MAILBOX_NAME_MAX) {
            return 0;
        }
        buffer[length++] = folds ? fold(inner.data[i]) : inner.data[i];
    }
    return length;
}

static size_t without_extension(const uint8_t *name, size_t length, struct slice separators)
{
    for (size_t i = 1; i < length; i++) {
        if (slice_find(separators, name[i]) < separators.length) {
            return i;
        }
    }
    return length;
}

bool directory_name(const struct route_config *route, struct slice address, bool whole,
                    uint8_t buffer[MAILBOX_NAME_MAX], struct slice *ret_name)
{
    struct slice local = slice_take(address, slice_find_last(address, '@'));
    size_t length = plain_local(local, !route->case_sensitive, buffer);
    if (!whole) {
        length = without_extension(buffer, length, route->separators);
    }
    *ret_name = slice_make(buffer, length);
    return length > 0;
}

bool relay_mailbox_name(const struct relay *relay, struct slice address, bool whole,
                        uint8_t buffer[MAILBOX_NAME_MAX], struct slice *ret_name)
{
    uint32_t index;
    const struct route_config *route = directory_route(relay, domain_of_address(address), &index);
    return route != NULL && directory_name(route, address, whole, buffer, ret_name);
}

/* ---- tables ------------------------------------------------------------------------------- */

struct domain_table *directory_find(const struct relay *relay, struct slice domain)
{
    struct domain_table *table =
        map_get(&relay->directory->tables, hash_bytes_fold(relay->key, domain));
    return table != NULL && slice_equal_fold(directory_domain_of(table), domain) ? table : NULL;
}

struct domain_table *directory_make(struct relay *relay, struct slice domain)
{
    struct directory *directory = relay->directory;
    uint64_t hash = hash_bytes_fold(relay->key, domain);
    if (directory->tables.count >= DIRECTORY_DOMAINS_MAX ||
        map_get(&directory->tables, hash) != NULL) {
        return NULL;
    }
    struct domain_table *table = malloc(sizeof(*table) + domain.length);
    if (table == NULL) {
        return NULL;
    }
    table->mailboxes = mailboxes_new(relay->key);
    table->doubts = 0;
    table->length = domain.length;
    for (size_t i = 0; i < domain.length; i++) {
        table->domain[i] = fold(domain.data[i]);
    }
    if (table->mailboxes == NULL || map_put(&directory->tables, hash, table) != ERROR_NONE) {
        table_free(table);
        return NULL;
    }
    return table;
}

bool directory_keeps(const struct route_config *route)
{
    return route != NULL && route->kind == ROUTE_DOMAIN && route->recipients != RECIPIENTS_ANY;
}

const struct route_config *relay_domain_block(const struct relay *relay, struct slice domain)
{
    uint32_t index;
    return directory_route(relay, domain, &index);
}

struct mailboxes *relay_mailboxes(struct relay *relay, struct slice domain, struct slice *ret_name)
{
    uint32_t index;
    const struct route_config *route = directory_route(relay, domain, &index);
    if (!directory_keeps(route)) {
        return NULL;
    }
    struct slice name = directory_domain(route, domain);
    struct domain_table *table = directory_find(relay, name);
    table = table != NULL ? table : directory_make(relay, name);
    if (table == NULL) {
        return NULL;
    }
    *ret_name = directory_domain_of(table);
    return table->mailboxes;
}

struct mailboxes *relay_next_mailboxes(const struct relay *relay, size_t *cursor,
                                       struct slice *ret_domain)
{
    struct domain_table *table = map_next(&relay->directory->tables, cursor);
    if (table == NULL) {
        return NULL;
    }
    *ret_domain = directory_domain_of(table);
    return table->mailboxes;
}

/* Tables that are kept no more go, and lists where none is configured. */
void directory_reconfigured(struct relay *relay)
{
    struct map *tables = &relay->directory->tables;
    struct map kept;
    struct domain_table *table;
    map_init(&kept);
    relay_list_give_up(relay);
    for (size_t cursor = 0; (table = map_next(tables, &cursor)) != NULL;) {
        uint32_t index;
        struct slice domain = directory_domain_of(table);
        const struct route_config *route = directory_route(relay, domain, &index);
        bool stays = directory_keeps(route) &&
                     slice_equal_fold(directory_domain(route, domain), domain) &&
                     map_put(&kept, hash_bytes_fold(relay->key, domain), table) == ERROR_NONE;
        if (!stays) {
            table_free(table);
        } else if (route->recipients != RECIPIENTS_LIST) {
            mailboxes_list_drop(table->mailboxes);
        }
    }
    map_done(tables);
    *tables = kept;
}

/* ---- looking one up ----------------------------------------------------------------------- */

bool question_make(const struct relay *relay, struct slice address, struct question *ret_question)
{
    struct question *question = ret_question;
    struct slice domain = domain_of_address(address);
    question->route = directory_route(relay, domain, &question->index);
    if (!directory_keeps(question->route)) {
        question->route = NULL;
        return false;
    }
    question->domain = directory_domain(question->route, domain);
    question->table = directory_find(relay, question->domain);
    if (question->table == NULL && question->route->recipients == RECIPIENTS_LIST) {
        question->table = directory_pattern_table(relay, question->route, question->domain);
    }
    /* One that no table can have is the empty name: not known, and not in a list. */
    (void)directory_name(question->route, address, true, question->buffer, &question->name);
    if (question->table == NULL || !mailboxes_has(question->table->mailboxes, question->name)) {
        question->name.length =
            without_extension(question->buffer, question->name.length, question->route->separators);
    }
    return true;
}

uint64_t directory_server(const struct relay *relay, const struct server *server)
{
    return hash_bytes_fold(relay->key, server->config->name);
}

/* R8: the head of the chain, or an `authoritative` server. */
bool directory_may_teach(const struct server *server, const uint32_t *chain, uint32_t length)
{
    return server->config->authoritative || (length > 0 && chain[0] == server->index);
}

static struct server *whom_to_ask(const struct relay *relay, uint32_t route)
{
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, relay->lanes.all[route], &length);
    for (uint32_t i = 0; i < length; i++) {
        struct server *server = server_at(relay, chain[i]);
        if (server != NULL && server->state == SERVER_UP && !server_calls(server) &&
            directory_may_teach(server, chain, length)) {
            return server;
        }
    }
    return NULL;
}

enum mailboxes_catch directory_catch(const struct relay *relay, const struct domain_table *table,
                                     const struct server *server)
{
    return table == NULL || server == NULL
               ? CATCH_NOT_KNOWN
               : mailboxes_catch(table->mailboxes, directory_server(relay, server),
                                 relay->now.wall_ms);
}

void relay_recipient(struct relay *relay, struct slice address, struct relay_time now,
                     struct relay_recipient *ret_recipient)
{
    struct question question;
    struct mailbox found;
    *ret_recipient = (struct relay_recipient){.answer = MAILBOX_TAKE, .server = NO_INDEX};
    relay->now = now;
    if (!question_make(relay, address, &question)) {
        return;
    }
    bool known =
        question.table != NULL && mailboxes_find(question.table->mailboxes, question.name, &found);
    const struct server *server = whom_to_ask(relay, question.index);
    enum mailboxes_catch catches = directory_catch(relay, question.table, server);
    if (question.route->recipients == RECIPIENTS_LIST) {
        server = NULL; /* a list that could not be read yet is no reason to ask */
    }
    ret_recipient->answer = mailbox_decide(&(struct mailbox_question){
        .found = known ? &found : NULL,
        .up = server != NULL,
        .catches_all = catches == CATCH_ALL,
        .accept_unknown = question.route->unknown == UNKNOWN_ACCEPT,
        .now_ms = now.wall_ms,
    });
    if (known) {
        ret_recipient->standing = found.standing;
        ret_recipient->source = found.source;
        ret_recipient->said_ms = found.said_ms;
    }
    if (ret_recipient->answer == MAILBOX_ASK) {
        ret_recipient->server = server->index;
        ret_recipient->asks_random = catches == CATCH_NOT_KNOWN;
    }
}

void relay_recipient_to_ask(struct relay *relay, struct slice address, struct relay_time now,
                            struct relay_recipient *ret_recipient)
{
    struct question question;
    relay->now = now;
    *ret_recipient = (struct relay_recipient){.answer = MAILBOX_TAKE, .server = NO_INDEX};
    const struct server *server =
        question_make(relay, address, &question) ? whom_to_ask(relay, question.index) : NULL;
    if (server != NULL) {
        *ret_recipient = (struct relay_recipient){
            .answer = MAILBOX_ASK, .server = server->index, .asks_random = true};
    }
}

enum mailbox_answer relay_recipient_unanswered(const struct relay *relay, struct slice address)
{
    uint32_t index;
    const struct route_config *route = directory_route(relay, domain_of_address(address), &index);
    return mailbox_unanswered(route == NULL || route->unknown == UNKNOWN_ACCEPT);
}
