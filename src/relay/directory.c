/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may teach is the head of the chain or an `authoritative` server; that it refuses is believed
 * outside any hold window only (R5), that it takes one only where it has refused an address that
 * cannot exist. A delivery's address is read from the journal only when something is to be learned
 * of it that was not learned within the hour.
 */
#include "relay/directory.h"

#include <stdlib.h>

#include "relay/refusal.h"

enum { TAUGHT_MS = 3600 * 1000 };

struct domain_table {
    struct mailboxes *mailboxes;
    bool everybody; /* by the list that is being taken */
    size_t length;
    uint8_t domain[];
};

struct directory {
    struct map tables;   /* by hash of the domain */
    struct known taught; /* recipients of whom there is nothing new to learn */
    int64_t taught_ms;   /* steady: since then */
    struct relay_envelopes envelopes;
    struct arena arena;
    uint8_t *source; /* of the list that is being taken; NULL: none is */
    size_t source_length;
};

static struct slice domain_of(const struct domain_table *table)
{
    return slice_make(table->domain, table->length);
}

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

static const struct route_config *route_of_domain(const struct relay *relay, struct slice domain,
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
static struct slice table_domain(const struct route_config *route, struct slice domain)
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

static bool make_name(const struct route_config *route, struct slice address, bool whole,
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
    const struct route_config *route = route_of_domain(relay, domain_of_address(address), &index);
    return route != NULL && make_name(route, address, whole, buffer, ret_name);
}

/* ---- tables ------------------------------------------------------------------------------- */

static struct domain_table *find_table(const struct relay *relay, struct slice domain)
{
    struct domain_table *table =
        map_get(&relay->directory->tables, hash_bytes_fold(relay->key, domain));
    return table != NULL && slice_equal_fold(domain_of(table), domain) ? table : NULL;
}

static struct domain_table *make_table(struct relay *relay, struct slice domain)
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

static bool keeps(const struct route_config *route)
{
    return route != NULL && route->kind == ROUTE_DOMAIN && route->recipients != RECIPIENTS_ANY;
}

const struct route_config *relay_domain_block(const struct relay *relay, struct slice domain)
{
    uint32_t index;
    return route_of_domain(relay, domain, &index);
}

struct mailboxes *relay_mailboxes(struct relay *relay, struct slice domain, struct slice *ret_name)
{
    uint32_t index;
    const struct route_config *route = route_of_domain(relay, domain, &index);
    if (!keeps(route)) {
        return NULL;
    }
    struct slice name = table_domain(route, domain);
    struct domain_table *table = find_table(relay, name);
    table = table != NULL ? table : make_table(relay, name);
    if (table == NULL) {
        return NULL;
    }
    *ret_name = domain_of(table);
    return table->mailboxes;
}

struct mailboxes *relay_next_mailboxes(const struct relay *relay, size_t *cursor,
                                       struct slice *ret_domain)
{
    struct domain_table *table = map_next(&relay->directory->tables, cursor);
    if (table == NULL) {
        return NULL;
    }
    *ret_domain = domain_of(table);
    return table->mailboxes;
}

/* ---- lists -------------------------------------------------------------------------------- */

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

static struct domain_table *pattern_table(const struct relay *relay,
                                          const struct route_config *route, struct slice domain)
{
    uint8_t buffer[PATTERN_MAX];
    for (uint32_t i = 0; i < route->domain_count; i++) {
        struct slice name = route->domains[i].name;
        if (route->domains[i].wild && domain.length > name.length + 1 &&
            domain.data[domain.length - name.length - 1] == '.' &&
            slice_equal_fold(slice_skip(domain, domain.length - name.length), name)) {
            return find_table(relay, pattern_domain(&route->domains[i], buffer));
        }
    }
    return NULL;
}

static bool names_source(const struct relay *relay, const struct route_config *route)
{
    const struct directory *directory = relay->directory;
    return keeps(route) && route->recipients == RECIPIENTS_LIST && directory->source != NULL &&
           slice_equal(route->recipients_list,
                       slice_make(directory->source, directory->source_length));
}

static enum error begin_table(struct relay *relay, struct slice domain,
                              struct domain_table **ret_table)
{
    struct domain_table *table = find_table(relay, domain);
    table = table != NULL ? table : make_table(relay, domain);
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
        if (names_source(relay, route_of_domain(relay, domain_of(table), &index)) &&
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
    const struct route_config *route = route_of_domain(relay, domain, &index);
    struct domain_table *table;
    if (relay->directory->source == NULL) {
        return ERROR_CLOSED;
    }
    if (!names_source(relay, route)) {
        return ERROR_INVALID;
    }
    enum error error = begin_table(relay, table_domain(route, domain), &table);
    if (error != ERROR_NONE) {
        return error;
    }
    if (address.length == domain.length + 1) {
        table->everybody = true;
        return ERROR_NONE;
    }
    return make_name(route, address, true, buffer, &name)
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
        struct slice domain = domain_of(table);
        const struct route_config *route = route_of_domain(relay, domain, &index);
        bool stays = keeps(route) && slice_equal_fold(table_domain(route, domain), domain) &&
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

/* An address, and what is known of it. */
struct question {
    const struct route_config *route; /* NULL: nothing is kept of it */
    uint32_t index;
    struct slice domain;
    struct domain_table *table; /* NULL: there is none yet */
    struct slice name;
    uint8_t buffer[MAILBOX_NAME_MAX];
};

static bool question_make(const struct relay *relay, struct slice address,
                          struct question *ret_question)
{
    struct question *question = ret_question;
    struct slice domain = domain_of_address(address);
    question->route = route_of_domain(relay, domain, &question->index);
    if (!keeps(question->route)) {
        question->route = NULL;
        return false;
    }
    question->domain = table_domain(question->route, domain);
    question->table = find_table(relay, question->domain);
    if (question->table == NULL && question->route->recipients == RECIPIENTS_LIST) {
        question->table = pattern_table(relay, question->route, question->domain);
    }
    /* One that no table can have is the empty name: not known, and not in a list. */
    (void)make_name(question->route, address, true, question->buffer, &question->name);
    if (question->table == NULL || !mailboxes_has(question->table->mailboxes, question->name)) {
        question->name.length =
            without_extension(question->buffer, question->name.length, question->route->separators);
    }
    return true;
}

static uint64_t server_hash(const struct relay *relay, const struct server *server)
{
    return hash_bytes_fold(relay->key, server->config->name);
}

/* R8: the head of the chain, or an `authoritative` server. */
static bool may_teach(const struct server *server, const uint32_t *chain, uint32_t length)
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
            may_teach(server, chain, length)) {
            return server;
        }
    }
    return NULL;
}

static enum mailboxes_catch catch_of(const struct relay *relay, const struct domain_table *table,
                                     const struct server *server)
{
    return table == NULL || server == NULL
               ? CATCH_NOT_KNOWN
               : mailboxes_catch(table->mailboxes, server_hash(relay, server), relay->now.wall_ms);
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
    enum mailboxes_catch catches = catch_of(relay, question.table, server);
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
    const struct route_config *route = route_of_domain(relay, domain_of_address(address), &index);
    return mailbox_unanswered(route == NULL || route->unknown == UNKNOWN_ACCEPT);
}

/* ---- what a server says ------------------------------------------------------------------- */

static bool is_accepted(const struct relay_reply *reply)
{
    return reply->how == RELAY_REPLY && reply->stage == RELAY_AT_RECIPIENT &&
           reply->code / 100 == 2;
}

/* R8: which refusals say that there is no such recipient. */
static bool is_no_such(const struct relay_reply *reply)
{
    uint8_t detail = reply->enhanced[2];
    bool plain =
        reply->enhanced[0] == 0 || (reply->enhanced[0] == 5 && reply->enhanced[1] == 1 &&
                                    (detail == 1 || detail == 3 || detail == 6 || detail == 10));
    return reply->how == RELAY_REPLY && reply->stage == RELAY_AT_RECIPIENT && plain &&
           (reply->code == 550 || reply->code == 551 || reply->code == 553);
}

static void learn_random(struct relay *relay, struct domain_table *table,
                         const struct server *server, const struct relay_reply *random)
{
    if (random != NULL && (is_accepted(random) || is_no_such(random))) {
        mailboxes_random(table->mailboxes, server_hash(relay, server), !is_accepted(random),
                         relay->now.wall_ms);
    }
}

static struct domain_table *table_of(struct relay *relay, const struct question *question)
{
    return question->table != NULL ? question->table : make_table(relay, question->domain);
}

enum mailbox_answer relay_recipient_asked(struct relay *relay, const struct relay_callout *callout,
                                          struct relay_time now)
{
    struct question question;
    relay->now = now;
    if (!question_make(relay, callout->address, &question)) {
        return MAILBOX_TAKE;
    }
    enum mailbox_answer unanswered = mailbox_unanswered(question.route->unknown == UNKNOWN_ACCEPT);
    struct server *server = server_at(relay, callout->server);
    struct domain_table *table = table_of(relay, &question);
    const struct lane *lane = relay->lanes.all[question.index];
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, lane, &length);
    if (server == NULL || !may_teach(server, chain, length)) {
        return unanswered;
    }
    bool believed = refusals_are_believed(relay, server, lane);
    enum mailbox_answer answer = is_accepted(callout->reply)              ? MAILBOX_TAKE
                                 : believed && is_no_such(callout->reply) ? MAILBOX_REFUSE
                                                                          : unanswered;
    if (table == NULL) {
        return answer; /* it will be asked for again */
    }
    if (believed || (callout->random != NULL && is_accepted(callout->random))) {
        learn_random(relay, table, server, callout->random);
    }
    enum mailboxes_catch catches = catch_of(relay, table, server);
    if (answer == MAILBOX_REFUSE) {
        (void)!mailboxes_refused(table->mailboxes, question.name, MAILBOX_FROM_CALLOUT,
                                 now.wall_ms);
    } else if (is_accepted(callout->reply)) {
        (void)!mailboxes_accepted(table->mailboxes, question.name, catches == CATCH_NONE,
                                  MAILBOX_FROM_CALLOUT, now.wall_ms);
    }
    return answer;
}

/* ---- deliveries --------------------------------------------------------------------------- */

/* Valid until the next one. Empty: it cannot be read. */
static struct slice read_address(struct relay *relay, const struct delivery *delivery)
{
    struct directory *directory = relay->directory;
    struct spool_message message;
    arena_reset(&directory->arena);
    enum error error = directory->envelopes.read(directory->envelopes.context,
                                                 (struct spool_handle){delivery->message},
                                                 &directory->arena, &message);
    return error == ERROR_NONE && delivery->number < message.recipient_count
               ? message.recipients[delivery->number].address
               : SLICE_EMPTY;
}

/* Since the hour began there was nothing new to learn of it. */
static bool was_taught(struct relay *relay, uint64_t recipient)
{
    struct directory *directory = relay->directory;
    if (relay->now.steady_ms - directory->taught_ms >= TAUGHT_MS) {
        known_done(&directory->taught);
        directory->taught_ms = relay->now.steady_ms;
    }
    return known_has(&directory->taught, recipient);
}

static void learn_refusal(struct relay *relay, const struct delivery *delivery)
{
    struct question question;
    known_forget(&relay->directory->taught, delivery->recipient);
    struct slice address = read_address(relay, delivery);
    struct domain_table *table;
    if (address.length > 0 && question_make(relay, address, &question) &&
        (table = table_of(relay, &question)) != NULL) {
        (void)!mailboxes_refused(table->mailboxes, question.name, MAILBOX_FROM_DELIVERY,
                                 relay->now.wall_ms);
    }
}

static void learn_acceptance(struct relay *relay, const struct server *server,
                             const struct delivery *delivery)
{
    const struct route_config *route = &relay->config->routes[lane_of(relay, delivery)->route];
    struct slice domain = intern_text(&relay->domains, delivery->domain);
    struct domain_table *table = find_table(relay, table_domain(route, domain));
    if (table == NULL) {
        return; /* nothing has shown that it refuses anybody */
    }
    bool teaches = catch_of(relay, table, server) == CATCH_NONE;
    struct mailboxes_count count = mailboxes_count(table->mailboxes);
    bool was_refused = count.refused > 0 || count.bad > 0; /* it, perhaps */
    mailboxes_accepted_another(table->mailboxes);
    if ((!teaches && !was_refused) || was_taught(relay, delivery->recipient)) {
        return;
    }
    struct question question;
    struct slice address = read_address(relay, delivery);
    if (address.length > 0 && question_make(relay, address, &question) &&
        mailboxes_accepted(table->mailboxes, question.name, teaches, MAILBOX_FROM_DELIVERY,
                           relay->now.wall_ms) == ERROR_NONE &&
        teaches) {
        known_put(&relay->directory->taught, delivery->recipient);
    }
}

void directory_learn(struct relay *relay, const struct server *server, uint32_t number,
                     const struct relay_delivery_result *result)
{
    const struct delivery *delivery = delivery_at(relay, number);
    const struct lane *lane = lane_of(relay, delivery);
    const struct relay_reply *reply = &result->reply;
    if (relay->directory->envelopes.read == NULL || server == NULL || lane->route == NO_INDEX ||
        lane->redirect != INTERN_NONE ||
        relay->config->routes[lane->route].recipients != RECIPIENTS_LEARN) {
        return;
    }
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, lane, &length);
    if (!may_teach(server, chain, length)) {
        return;
    }
    if (is_no_such(reply)) {
        if (refusal_is_believed(relay, server, delivery)) {
            learn_refusal(relay, delivery);
        }
    } else if (result->verdict == RELAY_ACCEPTED || is_accepted(reply) ||
               (result->verdict == RELAY_REFUSED && reply->how == RELAY_REPLY &&
                (reply->stage == RELAY_AT_DATA || reply->stage == RELAY_AT_DOT))) {
        learn_acceptance(relay, server, delivery);
    }
}

void directory_seed(struct relay *relay, uint32_t number, struct slice address)
{
    struct question question;
    struct mailbox found;
    const struct delivery *delivery = delivery_at(relay, number);
    if (relay->directory->tables.count == 0 || !question_make(relay, address, &question) ||
        question.table == NULL || lane_of(relay, delivery)->route != question.index ||
        !mailboxes_find(question.table->mailboxes, question.name, &found) ||
        found.standing != MAILBOX_GOOD) {
        return;
    }
    uint32_t length;
    const uint32_t *chain = lane_chain(relay, relay->lanes.all[question.index], &length);
    for (uint32_t i = 0; i < length; i++) {
        const struct server *server = server_at(relay, chain[i]);
        if (server != NULL && may_teach(server, chain, length)) {
            recipient_accepted(relay, server, delivery);
        }
    }
}
