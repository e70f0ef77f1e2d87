/* SPDX-License-Identifier: Apache-2.0
 *
 * MX routing: what DNS has said of a destination, and the chain that follows from it.
 */
#include "relay/destination.h"

enum {
    TROUBLE_WAIT_MS = 5000, /* doubling up to: */
    TROUBLE_WAIT_DOMAIN_MAX_MS = 30000,
    TROUBLE_WAIT_RELAY_MAX_MS = 300000,
};

void destination_place_lanes(struct relay *relay, struct destination *destination)
{
    LIST_EACH(&destination->lanes, at, after)
    {
        lane_place(relay, LIST_ENTRY(at, struct lane, sibling));
    }
}

void destination_arm(struct relay *relay, struct destination *destination)
{
    int64_t due = destination->asked      ? destination->asked_until_ms
                  : destination->answered ? destination->expires_ms
                                          : INT64_MAX;
    if (destination->timer == SCHEDULE_NOWHERE && due != INT64_MAX) {
        schedule_add(&relay->schedule, (struct timer){due, TIMER_DESTINATION, destination->index});
    } else if (due != INT64_MAX) {
        schedule_change(&relay->schedule, destination->timer, due);
    } else if (destination->timer != SCHEDULE_NOWHERE) {
        schedule_remove(&relay->schedule, destination->timer);
    }
}

/* Those whose last server has left the chain begin anew, with its head (R4). */
static void settle_last_servers(struct destination *destination)
{
    LIST_EACH(&destination->lanes, at, after)
    {
        struct lane *lane = LIST_ENTRY(at, struct lane, sibling);
        bool there = false;
        for (uint32_t i = 0; i < destination->chain_length; i++) {
            there |= destination->chain[i] == lane->last_server;
        }
        if (!there) {
            lane->last_server = destination->chain_length > 0 ? destination->chain[0] : NO_INDEX;
        }
    }
}

static uint64_t filter_of(const struct relay *relay, const struct route_config *route)
{
    return route->deliver_only_to_count == 0
               ? 0
               : hash_bytes(relay->key,
                            slice_make(route->deliver_only_to, route->deliver_only_to_count *
                                                                   sizeof *route->deliver_only_to));
}

/* Of one of its exchangers. */
static enum sts_demand demand_of(const struct relay *relay, const struct destination *destination,
                                 struct slice host)
{
    const struct relay_policies *policies = &relay->policies;
    if (policies->demand == NULL || relay->config->exchanger.tls != SERVER_TLS_MTA_STS ||
        destination->tls == SENDER_TLS_WAIVED) {
        return STS_NONE;
    }
    return policies->demand(policies->context, intern_text(&relay->domains, destination->domain),
                            host);
}

void relay_set_policies(struct relay *relay, const struct relay_policies *policies)
{
    relay->policies = *policies;
}

/* False: none of them could be had. */
static bool take_exchangers(struct relay *relay, struct destination *destination,
                            const struct mx_decision *decision)
{
    const struct route_config *route = destination_route(relay, destination);
    uint32_t exchangers[MX_EXCHANGERS_MAX] = {0};
    uint32_t count = 0;
    bool lasting = destination_is_domains(relay, destination);
    struct slice domain = intern_text(&relay->domains, destination->domain);
    bool waived = destination->tls == SENDER_TLS_WAIVED;
    struct slice signed_by =
        decision->secure && domain.length <= MX_HOST_MAX && !waived ? domain : SLICE_EMPTY;
    destination_drop_exchangers(destination);
    for (uint32_t i = 0; i < decision->count; i++) {
        const struct mx_choice *choice = &decision->choices[i];
        const struct exchanger_terms terms = {.filter = filter_of(relay, route),
                                              .waived = waived,
                                              .sts = demand_of(relay, destination, choice->host),
                                              .signed_by = signed_by};
        struct server *server = exchanger_take(relay, choice, &terms, lasting);
        if (server != NULL) {
            list_append(&server->exchanger->uses, &destination->uses[count].link);
            exchangers[count++] = server->index;
        }
    }
    destination_set_chain(relay, destination, exchangers, count);
    if (count > 0 && route->mx_place == route->chain_length) {
        exchanger_is_last(server_at(relay, exchangers[count - 1]));
    }
    settle_last_servers(destination);
    return count > 0;
}

static uint32_t next_wait(const struct relay *relay, struct destination *destination)
{
    uint32_t most = destination_is_domains(relay, destination) ? TROUBLE_WAIT_DOMAIN_MAX_MS
                                                               : TROUBLE_WAIT_RELAY_MAX_MS;
    uint32_t wait = destination->wait_ms * 2;
    wait = wait < TROUBLE_WAIT_MS ? TROUBLE_WAIT_MS : wait;
    destination->wait_ms = wait > most ? most : wait;
    return destination->wait_ms;
}

/* DNS itself rules it out, other than by silence. */
static bool is_word(enum mx_verdict verdict)
{
    return verdict == MX_NULL || verdict == MX_OURSELVES || verdict == MX_REFUSED ||
           verdict == MX_ELSEWHERE;
}

/* What was in doubt at one that was noted, and is an exchanger no longer, may go to others. */
static void let_go_of_expected(struct relay *relay, struct destination *destination)
{
    LIST_EACH(&destination->lanes, at, after)
    {
        const struct lane *lane = LIST_ENTRY(at, struct lane, sibling);
        struct server *server =
            lane->pin == PIN_DOUBT ? server_at(relay, lane->pinned_server) : NULL;
        if (server != NULL && exchanger_is_gone(server)) {
            doubts_unpin(relay, server);
        }
    }
}

/* Once when it begins, changes or ends. */
static void tell_trouble(struct relay *relay, struct destination *destination)
{
    struct slice trouble = destination_trouble(destination);
    if (slice_equal(trouble, destination->told) || list_is_empty(&destination->lanes)) {
        return;
    }
    const struct lane *lane = LIST_ENTRY(destination->lanes.next, struct lane, sibling);
    struct relay_action *event = action_event(relay, RELAY_EVENT_DNS);
    event->lane = action_copy(relay, lane->name);
    event->reason = trouble.length > 0 ? trouble : SLICE_LITERAL("exchangers are known again");
    destination->told = trouble;
}

void destination_conclude(struct relay *relay, struct destination *destination,
                          const struct mx_decision *decision)
{
    bool lasting = destination_is_domains(relay, destination);
    int64_t valid_ms = (int64_t)decision->ttl_s * 1000;
    destination->asked = false;
    destination->answered = true;
    destination->verdict = decision->verdict;
    destination->error = decision->error;
    if (decision->verdict == MX_FOUND) {
        if (!take_exchangers(relay, destination, decision)) {
            destination->verdict = MX_NO_ANSWER; /* there are too many just now */
        }
    } else if (!lasting || is_word(decision->verdict)) {
        destination_drop_exchangers(destination);
        destination_set_chain(relay, destination, NULL, 0);
        settle_last_servers(destination);
    }
    if (destination->verdict == MX_FOUND) {
        destination->wait_ms = 0;
    } else if (lasting || !mx_is_final(destination->verdict)) {
        valid_ms = next_wait(relay, destination);
    }
    destination->expires_ms = relay->now.steady_ms + valid_ms;
    destination_arm(relay, destination);
    destination_touch(relay, destination);
    tell_trouble(relay, destination);
    if (destination->verdict != MX_NO_ANSWER) {
        let_go_of_expected(relay, destination);
    }
    destination_place_lanes(relay, destination);
}

static void decide(struct relay *relay, const struct destination *destination,
                   const struct mx_answer *answer, struct mx_decision *ret_decision)
{
    const struct route_config *route = destination_route(relay, destination);
    struct mx_policy policy = {.hostname = relay->config->hostname,
                               .own = relay->config->nat_addresses,
                               .own_count = relay->config->nat_address_count,
                               .only = route->deliver_only_to,
                               .only_count = route->deliver_only_to_count};
    mx_decide(answer, &policy, relay_random(relay), ret_decision);
}

static void take_answer(struct relay *relay, struct destination *destination,
                        const struct mx_answer *answer)
{
    struct mx_decision decision;
    struct mx_completed completed;
    if (!destination_is_domains(relay, destination)) {
        decide(relay, destination, answer, &decision);
        destination_conclude(relay, destination, &decision);
        return;
    }
    struct slice domain = intern_text(&relay->domains, destination->domain);
    struct mx_decision known;
    mx_complete(answer, mx_known_read(relay, domain, &known) ? &known : NULL, &completed);
    decide(relay, destination, &completed.answer, &decision);
    destination_conclude(relay, destination, &decision);
    if (decision.verdict == MX_FOUND) {
        mx_known_keep(relay, domain, &decision);
    }
}

void destination_recall(struct relay *relay, struct destination *destination)
{
    struct mx_decision known, decision;
    struct mx_completed completed;
    struct slice domain = intern_text(&relay->domains, destination->domain);
    if (!destination_is_domains(relay, destination) || destination->answered ||
        destination->exchanger_count > 0 || !mx_known_read(relay, domain, &known)) {
        return;
    }
    mx_of_known(&known, &completed);
    decide(relay, destination, &completed.answer, &decision); /* our own names may have changed */
    if (decision.verdict == MX_FOUND) {
        (void)take_exchangers(relay, destination, &decision);
        destination_place_lanes(relay, destination);
    }
}

void destinations_recall(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->lanes.destination_room; i++) {
        if (relay->lanes.destinations[i] != NULL) {
            destination_recall(relay, relay->lanes.destinations[i]);
        }
    }
}

uint32_t destination_server(struct relay *relay, struct destination *destination, struct slice name,
                            bool expect)
{
    uint32_t first = destination_route(relay, destination)->mx_place;
    uint32_t exchangers[MX_EXCHANGERS_MAX] = {0};
    uint32_t count = destination->exchanger_count;
    for (uint32_t i = 0; i < count; i++) {
        exchangers[i] = destination->chain[first + i];
        if (slice_equal(server_name(relay, exchangers[i]), name)) {
            return exchangers[i];
        }
    }
    const struct exchanger_terms terms = {
        .filter = filter_of(relay, destination_route(relay, destination)),
        .waived = destination->tls == SENDER_TLS_WAIVED,
        .sts = demand_of(relay, destination, name)};
    struct server *server = expect && !destination_is_domains(relay, destination) &&
                                    !destination->answered && count < MX_EXCHANGERS_MAX
                                ? exchanger_expect(relay, name, &terms)
                                : NULL;
    if (server == NULL) {
        return NO_INDEX;
    }
    list_append(&server->exchanger->uses, &destination->uses[count].link);
    exchangers[count] = server->index;
    destination_set_chain(relay, destination, exchangers, count + 1);
    return server->index;
}

void relay_resolved(struct relay *relay, struct slice domain, const struct mx_answer *answer,
                    struct relay_time now)
{
    relay_begin(relay, now);
    uint32_t number = domain_take(relay, domain);
    for (uint32_t i = 0; number != INTERN_NONE && i < relay->config->route_count; i++) {
        for (unsigned tls = 0; tls < SENDER_TLS_KINDS; tls++) {
            struct destination *destination =
                map_get(&relay->lanes.destinations_by_key,
                        destination_key(i, number, (enum sender_tls)tls));
            if (destination != NULL && relay->started &&
                (destination->asked || !destination->answered)) {
                take_answer(relay, destination, answer);
            }
        }
    }
    intern_drop(&relay->domains, number);
    relay_settle(relay);
}
