/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may teach is the head of the chain or an `authoritative` server; that it refuses is believed
 * outside any hold window only (R5), that it takes one only where it has refused an address that
 * cannot exist. A delivery's address is read from the journal only when something is to be learned
 * of it that was not learned within the hour.
 */
#include "relay/directory_internal.h"

#include "relay/refusal.h"

enum { TAUGHT_MS = 3600 * 1000 };

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
        mailboxes_random(table->mailboxes, directory_server(relay, server), !is_accepted(random),
                         relay->now.wall_ms);
    }
}

static struct domain_table *table_of(struct relay *relay, const struct question *question)
{
    return question->table != NULL ? question->table : directory_make(relay, question->domain);
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
    if (server == NULL || !directory_may_teach(server, chain, length)) {
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
    enum mailboxes_catch catches = directory_catch(relay, table, server);
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

/* Since the hour began there was nothing new to learn of it. When a good one of the table has come
 * to be doubted, by whomever, it may be this one, by another of its addresses. */
static bool was_taught(struct relay *relay, struct domain_table *table, uint64_t recipient)
{
    struct directory *directory = relay->directory;
    uint64_t doubts = mailboxes_doubts(table->mailboxes);
    if (relay->now.steady_ms - directory->taught_ms >= TAUGHT_MS || table->doubts != doubts) {
        known_done(&directory->taught);
        directory->taught_ms = relay->now.steady_ms;
        table->doubts = doubts;
    }
    return known_has(&directory->taught, recipient);
}

static void learn_refusal(struct relay *relay, const struct delivery *delivery)
{
    struct question question;
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
    struct domain_table *table = directory_find(relay, directory_domain(route, domain));
    if (table == NULL) {
        return; /* nothing has shown that it refuses anybody */
    }
    bool teaches = directory_catch(relay, table, server) == CATCH_NONE;
    struct mailboxes_count count = mailboxes_count(table->mailboxes);
    bool was_refused = count.refused > 0 || count.bad > 0; /* it, perhaps */
    mailboxes_accepted_another(table->mailboxes);
    if ((!teaches && !was_refused) || was_taught(relay, table, delivery->recipient)) {
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
    if (!directory_may_teach(server, chain, length)) {
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
        if (server != NULL && directory_may_teach(server, chain, length)) {
            recipient_accepted(relay, server, delivery);
        }
    }
}
