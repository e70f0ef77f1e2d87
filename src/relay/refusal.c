/* SPDX-License-Identifier: Apache-2.0
 *
 * Refusals that are not believed (R5): a server that has just come back, or that suddenly refuses
 * everybody, may be half repaired, and what it says of our mail is no final word. Such a refusal is
 * held and tried once more when its reason to be held has gone:
 *
 *   the server is not up (again), or its breaker is open              until both are over
 *   the lane has not drained since the server's last recovery         until it has, and
 *     `hold-5xx-after-recovery` longer
 *   the recipient, refused at RCPT, was accepted there before; or it  for an hour, once
 *     is the sender that is refused, at MAIL, though not by a code
 *     that speaks of him or of the message (R4)
 *
 * While one of the first two lasts a second refusal is held as well: nothing was tried yet that
 * counts. With `hold-5xx = manual` the operator has to let them go.
 *
 * A server never seen before is suspect and then recovering like one that returns, and so it may be
 * the new machine of one that was lost: what it refuses before it is first up is held. But nothing
 * has waited for it, so nothing is held after that.
 *
 * A relay's exchangers under MX routing are always believed (R4: any 5xx to MAIL): they are
 * strangers, no primary of ours, and nothing but mail would ever show that one is up.
 *
 * A server that is down is waited for only while its chain has nobody else: as soon as another of
 * the chain is up or recovering, that one is asked, and its word counts by itself. One that was
 * taken out by hand, or out of the chain, is not waited for at all.
 */
#include "relay/refusal.h"

#include "relay/notes.h"

enum {
    HOUR_MS = 3600 * 1000,
    BREAKER_RUN = 10,
    NEVER_HELD = 0, /* steady ms that have always passed */
};

/* ---- recipients that were accepted --------------------------------------------------------- */

static uint64_t known_key(const struct relay *relay, const struct server *server,
                          const struct delivery *delivery)
{
    return delivery->recipient ^ hash_bytes(relay->key, server->config->name);
}

void recipient_accepted(struct relay *relay, const struct server *server,
                        const struct delivery *delivery)
{
    known_put(&relay->known_good, known_key(relay, server, delivery));
}

bool recipient_is_known_good(const struct relay *relay, const struct server *server,
                             const struct delivery *delivery)
{
    return known_has(&relay->known_good, known_key(relay, server, delivery));
}

/* ---- the breaker --------------------------------------------------------------------------- */

static bool speaks_of_the_server(const struct relay *relay, const struct server *server,
                                 const struct delivery *delivery, const struct relay_reply *reply)
{
    if (reply->stage == RELAY_AT_MAIL) {
        return true;
    }
    uint8_t subject = reply->enhanced[0] == 5 ? reply->enhanced[1] : 0;
    return reply->stage == RELAY_AT_RECIPIENT && (subject == 3 || subject == 4 || subject == 7 ||
                                                  recipient_is_known_good(relay, server, delivery));
}

void breaker_count(struct relay *relay, struct server *server, const struct delivery *delivery,
                   const struct relay_reply *reply)
{
    if (!speaks_of_the_server(relay, server, delivery, reply)) {
        return;
    }
    struct refusal_run *run = &server->refusals;
    run->count++;
    variety_add(&run->senders, message_at(relay, delivery->message)->sender);
    if (server->state == SERVER_UP && run->count >= BREAKER_RUN &&
        run->senders.count >= VARIETY_ENOUGH) {
        server->breaker_open = true;
    }
}

void breaker_reset(struct server *server)
{
    server->breaker_open = false;
    server->refusals = (struct refusal_run){0};
}

/* ---- how long ------------------------------------------------------------------------------ */

/* Steady ms at which a refusal of this server is believed, as far as can be said now; INT64_MAX:
 * that depends on what happens. */
static int64_t believed_at(const struct server *server, const struct lane *lane, uint64_t sequence)
{
    if (server->on_demand) {
        return NEVER_HELD;
    }
    if (server->breaker_open) {
        return INT64_MAX;
    }
    if (server->state != SERVER_UP) {
        return INT64_MAX;
    }
    if (!server->recovered) {
        return NEVER_HELD;
    }
    int64_t after_ms = server->config->hold_5xx_after_recovery_ms;
    const struct recovery *recovery = &lane->recovery;
    if (recovery->server != server->index) { /* its mail had another server to go to */
        return server->recovered_ms + after_ms;
    }
    if (recovery->drains) {
        return sequence <= recovery->mark || after_ms > 0 ? INT64_MAX : NEVER_HELD;
    }
    return recovery->drained_ms + after_ms;
}

static int64_t delivery_believed_at(const struct relay *relay, const struct server *server,
                                    const struct delivery *delivery)
{
    return believed_at(server, lane_of(relay, delivery),
                       message_at(relay, delivery->message)->sequence);
}

bool refusal_is_believed(const struct relay *relay, const struct server *server,
                         const struct delivery *delivery)
{
    return delivery_believed_at(relay, server, delivery) <= relay->now.steady_ms;
}

bool refusals_are_believed(const struct relay *relay, const struct server *server,
                           const struct lane *lane)
{
    return believed_at(server, lane, UINT64_MAX) <= relay->now.steady_ms;
}

enum hold refusal_hold(const struct relay *relay, const struct server *server,
                       const struct delivery *delivery, const struct relay_reply *reply)
{
    if (!refusal_is_believed(relay, server, delivery)) {
        return HOLD_UNTIL_BELIEVED;
    }
    bool asked_again = (delivery->flags & DELIVERY_REFUSED_ONCE) != 0;
    bool may_err = reply->stage == RELAY_AT_MAIL
                       ? !server->on_demand
                       : reply->stage == RELAY_AT_RECIPIENT &&
                             recipient_is_known_good(relay, server, delivery);
    return may_err && !asked_again ? HOLD_AN_HOUR : HOLD_NOT;
}

/* ---- held, and tried again ----------------------------------------------------------------- */

static void review_by(struct relay *relay, struct server *server, int64_t steady_ms)
{
    if (steady_ms < server->review_ms) {
        server->review_ms = steady_ms;
        server_touch(relay, server);
    }
}

/* Another server may have it now, or its own is out of the question. */
static bool waits_in_vain(const struct relay *relay, const struct server *server,
                          const struct delivery *delivery)
{
    const struct lane *lane = lane_of(relay, delivery);
    return server->state == SERVER_DISABLED || !lane_may_go_to(relay, lane, server->index) ||
           (server->state == SERVER_DOWN && lane_choose(relay, lane) != NO_INDEX);
}

static bool try_elsewhere(struct relay *relay, struct server *server, uint32_t number)
{
    if (waits_in_vain(relay, server, delivery_at(relay, number))) {
        server->held_refusals--;
        refusal_retry(relay, number, false);
    }
    return true;
}

void refusal_held(struct relay *relay, uint32_t number, const struct relay_reply *reply,
                  enum hold hold)
{
    char text[REASON_BYTES_MAX];
    const struct delivery *delivery = delivery_at(relay, number);
    struct server *server = server_at(relay, delivery->server);
    struct slice reason = relay_reply_text(reply, text, sizeof text);
    if (server == NULL || server->config->hold_5xx_manual) {
        fate_held(relay, number, true, reply, reason);
        return;
    }
    bool an_hour = hold == HOLD_AN_HOUR;
    fate_hold(relay, number, DELIVERY_BY_RULE | DELIVERY_REFUSED_ONCE,
              an_hour ? relay->now.steady_ms + HOUR_MS : 0, reply, reason);
    if (!an_hour) {
        server->held_refusals++;
        review_by(relay, server, delivery_believed_at(relay, server, delivery));
        (void)try_elsewhere(relay, server, number); /* it may have gone meanwhile */
    }
}

void refusal_forget(struct relay *relay, uint32_t number)
{
    const struct delivery *delivery = delivery_at(relay, number);
    struct server *server = server_at(relay, delivery->server);
    if (relay->started && is_held_refusal(delivery) && delivery->place == PLACE_NOWHERE &&
        server != NULL && server->held_refusals > 0) {
        server->held_refusals--;
    }
}

bool is_held_refusal(const struct delivery *delivery)
{
    const unsigned both = DELIVERY_BY_RULE | DELIVERY_REFUSED_ONCE;
    return delivery->state == DELIVERY_HELD && (delivery->flags & both) == both;
}

bool refusal_due(const struct relay *relay, const struct delivery *delivery, int64_t *ret_due_ms)
{
    const struct server *server =
        delivery->server == NO_SERVER ? NULL : server_at(relay, delivery->server);
    if (!is_held_refusal(delivery) || server == NULL || server->config->hold_5xx_manual) {
        return false;
    }
    *ret_due_ms = delivery->place == PLACE_TIMED
                      ? schedule_at(&relay->schedule, delivery->next)->due_ms
                      : delivery_believed_at(relay, server, delivery);
    return true;
}

void refusal_retry(struct relay *relay, uint32_t number, bool for_good)
{
    struct delivery *delivery = delivery_at(relay, number);
    delivery_take_out(relay, number);
    delivery_set_flags(relay, delivery,
                       DELIVERY_BY_RULE | (for_good ? 0u : (unsigned)DELIVERY_REFUSED_ONCE), 0);
    if (delivery->doubted) {
        (void)doubt_pin(relay, number); /* without memory it goes where it may */
    }
    delivery_set_state(relay, number, DELIVERY_WAITING);
    action_note(relay, number,
                lane_of(relay, delivery)->pin == PIN_DOUBT ? NOTE_DOUBT : NOTE_WAITING,
                delivery_reason(relay, delivery));
    (void)action_delivery_event(relay, RELAY_EVENT_RELEASED, number);
    delivery->server = NO_SERVER;
    lane_return(relay, number);
}

/* Those that wait for their server's sake, not for an hour to pass. */
static bool waits_for(const struct delivery *delivery, const struct server *server)
{
    return is_held_refusal(delivery) && delivery->place == PLACE_NOWHERE &&
           delivery->server == server->index;
}

typedef bool refusal_fn(struct relay *relay, struct server *server, uint32_t number);

/* Looks through all mail, but only while something is held; until `visit` says that it is enough.
 */
static void each_held(struct relay *relay, struct server *server, refusal_fn *visit)
{
    if (server->held_refusals == 0) {
        return;
    }
    for (uint32_t at = relay->first_message; at != NOBODY; at = message_at(relay, at)->next) {
        const struct message *message = message_at(relay, at);
        for (uint32_t i = 0; i < message->recipient_count; i++) {
            uint32_t number = delivery_number(message, i);
            if (number != NOBODY && waits_for(delivery_at(relay, number), server) &&
                !visit(relay, server, number)) {
                return;
            }
        }
    }
}

static bool try_as_canary(struct relay *relay, struct server *server, uint32_t number)
{
    server->held_refusals--;
    refusal_retry(relay, number, false);
    return false;
}

void refusals_state_changed(struct relay *relay, struct server *server)
{
    if (!server_usable(server)) {
        each_held(relay, server, try_elsewhere);
        return;
    }
    for (uint32_t i = 0; i < relay->server_count; i++) {
        if (relay->servers[i].state == SERVER_DOWN) {
            each_held(relay, &relay->servers[i], try_elsewhere);
        }
    }
    for (uint32_t i = relay_next_exchanger(relay, 0); i != NO_INDEX;
         i = relay_next_exchanger(relay, i + 1)) {
        if (server_at(relay, i)->state == SERVER_DOWN) {
            each_held(relay, server_at(relay, i), try_elsewhere);
        }
    }
}

void refusals_canary(struct relay *relay, struct server *server)
{
    each_held(relay, server, try_as_canary);
}

static bool try_if_believed(struct relay *relay, struct server *server, uint32_t number)
{
    int64_t due = delivery_believed_at(relay, server, delivery_at(relay, number));
    if (due <= relay->now.steady_ms) {
        server->held_refusals--;
        refusal_retry(relay, number, true);
    } else if (due < server->review_ms) {
        server->review_ms = due;
    }
    return true;
}

void refusals_review(struct relay *relay, struct server *server)
{
    server->review_ms = INT64_MAX;
    if (server->state == SERVER_UP && !server->breaker_open) {
        each_held(relay, server, try_if_believed);
    }
}

void refusals_look_again(struct relay *relay, uint32_t index)
{
    struct server *server = server_at(relay, index);
    if (server != NULL && server->held_refusals > 0) {
        review_by(relay, server, relay->now.steady_ms);
    }
}

void refusals_lane_drained(struct relay *relay, const struct lane *lane)
{
    struct server *server = server_at(relay, lane->recovery.server);
    if (server != NULL && server->held_refusals > 0) {
        review_by(relay, server, believed_at(server, lane, 0));
        server_arm(relay, server);
    }
}

static void recount(struct relay *relay, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    struct server *server = server_at(relay, delivery->server);
    if (!is_held_refusal(delivery)) {
        return;
    }
    if (server == NULL) { /* another's word counts anew */
        refusal_retry(relay, number, false);
    } else if (delivery->place == PLACE_NOWHERE) {
        server->held_refusals++;
        review_by(relay, server, relay->now.steady_ms);
        (void)try_elsewhere(relay, server, number);
    }
}

void refusals_recount(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->server_count; i++) {
        relay->servers[i].held_refusals = 0;
    }
    for (uint32_t i = relay_next_exchanger(relay, 0); i != NO_INDEX;
         i = relay_next_exchanger(relay, i + 1)) {
        server_at(relay, i)->held_refusals = 0;
    }
    if (relay->totals.held == 0) {
        return;
    }
    for (uint32_t at = relay->first_message; at != NOBODY; at = message_at(relay, at)->next) {
        const struct message *message = message_at(relay, at);
        for (uint32_t i = 0; i < message->recipient_count; i++) {
            if (delivery_number(message, i) != NOBODY) {
                recount(relay, delivery_number(message, i));
            }
        }
    }
}
