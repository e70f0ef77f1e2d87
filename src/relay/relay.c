/* SPDX-License-Identifier: Apache-2.0
 *
 * The room's door: life cycle, mail, sessions and results, time, actions. Every input begins with
 * relay_begin(), which forgets the actions that were taken, and ends with relay_settle(), which
 * sends what may go.
 */
#include "relay/relay.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "relay/destination.h"
#include "relay/refusal.h"

/* xorshift64*: jitter and first numbers, nothing secret. */
uint64_t relay_random(struct relay *relay)
{
    relay->random ^= relay->random >> 12;
    relay->random ^= relay->random << 25;
    relay->random ^= relay->random >> 27;
    return relay->random * 0x2545f4914f6cdd1dULL;
}

uint64_t recipient_hash(const struct relay *relay, struct slice address)
{
    return hash_bytes_fold(relay->key, address);
}

struct slice relay_reply_text(const struct relay_reply *reply, char *buffer, size_t size)
{
    static const char *const how[] = {"", "connection lost", "timed out", "", ""};
    struct slice text = slice_take(reply->text, size);
    int length;
    if (reply->how != RELAY_REPLY && text.length == 0) {
        return slice_from_text(reply->how <= RELAY_DECLINED ? how[reply->how] : "");
    }
    if (reply->how != RELAY_REPLY || reply->code == 0) {
        return text;
    }
    if (reply->enhanced[0] != 0) {
        length = snprintf(buffer, size, "%u %u.%u.%u %.*s", reply->code, reply->enhanced[0],
                          reply->enhanced[1], reply->enhanced[2], SLICE_PRINT(text));
    } else {
        length = snprintf(buffer, size, "%u %.*s", reply->code, SLICE_PRINT(text));
    }
    size_t made = length < 0 ? 0 : (size_t)length;
    return slice_trim(slice_make(buffer, made < size ? made : size - 1));
}

/* ---- life cycle --------------------------------------------------------------------------- */

static void timer_moved(void *context, const struct timer *timer, uint32_t place)
{
    struct relay *relay = context;
    switch ((enum timer_kind)timer->kind) {
    case TIMER_DELIVERY:
        delivery_at(relay, timer->index)->next = place;
        break;
    case TIMER_RECIPIENT:
        relay->records[timer->index].timer = place;
        break;
    case TIMER_SERVER:
        server_at(relay, timer->index)->timer = place;
        break;
    case TIMER_DESTINATION:
        relay->lanes.destinations[timer->index]->timer = place;
        break;
    case TIMER_DELIVER_BY:
        deliver_by_timer_moved(relay, timer->index, place);
        break;
    case TIMER_SWEEP:
        relay->sweep = place;
        break;
    }
}

struct relay *relay_new(const struct relay_config *config, uint64_t seed, struct relay_time now)
{
    struct relay *relay = calloc(1, sizeof *relay);
    if (relay == NULL) {
        return NULL;
    }
    relay->config = config;
    relay->now = now;
    relay->random = seed != 0 ? seed : 1;
    relay->leased = true;
    relay->older_due_ms = INT64_MAX;
    relay->key = (struct hash_key){relay_random(relay), relay_random(relay)};
    relay->next_session = (uint32_t)relay_random(relay);
    relay->next_job = relay_random(relay);
    relay->session_serial = 1; /* session_of_job() */
    relay->thaw_due_ms = INT64_MAX;
    relay->first_message = relay->last_message = relay->load_hint = relay->oldest = NOBODY;
    relay->delivery_free = relay->record_free = NOBODY;
    relay->sweep = SCHEDULE_NOWHERE;
    list_init(&relay->touched);
    lanes_init(&relay->lanes);
    list_init(&relay->mx_known);
    list_init(&relay->noted);
    map_init(&relay->exchangers_by_key);
    map_init(&relay->deliver_by);
    map_init(&relay->recipients);
    map_init(&relay->sessions);
    map_init(&relay->jobs_by_id);
    intern_init(&relay->domains, relay->key, UINT32_MAX - 1);
    intern_init(&relay->reasons, relay->key, REASONS_MAX);
    intern_init(&relay->hands, relay->key, HANDS_MAX);
    intern_init(&relay->redirects, relay->key, UINT32_MAX - 1);
    schedule_init(&relay->schedule, timer_moved, relay);
    arena_init(&relay->action_memory);
    foresight_drop(relay);
    buffer_init(&relay->scratch, SPOOL_NOTE_MAX);
    buffer_init(&relay->attempt, NOTE_PAYLOAD_MAX);
    relay->routing = routing_new(config);
    relay->directory = directory_new();
    relay->route_bytes = calloc(config->route_count + 1, sizeof *relay->route_bytes);
    relay->odometers = odometers_new(config->route_count);
    relay->odometers_due_ms = INT64_MAX;
    relay->expiry = (struct expiry){
        .due_ms = INT64_MAX, .next = NOBODY, .trusted_ms = now.wall_ms, .steady_ms = now.steady_ms};
    if (relay->routing == NULL || relay->directory == NULL || relay->route_bytes == NULL ||
        relay->odometers == NULL || servers_new(relay, config, &relay->servers) != ERROR_NONE ||
        schedule_reserve(&relay->schedule, config->server_count + 1) != ERROR_NONE) {
        relay_free(relay);
        return NULL;
    }
    relay->server_count = config->server_count;
    if (!lanes_make(relay)) {
        relay_free(relay);
        return NULL;
    }
    return relay;
}

void relay_free(struct relay *relay)
{
    if (relay == NULL) {
        return;
    }
    deliver_by_done(relay);
    foresight_drop(relay);
    queue_done(relay);
    lanes_done(relay, &relay->lanes);
    size_t cursor = 0;
    for (struct session *session; (session = map_next(&relay->sessions, &cursor)) != NULL;) {
        free(session);
    }
    for (uint32_t i = 0; i < relay->job_used; i++) {
        free(relay->jobs[i]);
    }
    free(relay->jobs);
    free(relay->job_free);
    map_done(&relay->sessions);
    map_done(&relay->jobs_by_id);
    map_done(&relay->recipients);
    waiting_done(&relay->waiting);
    free(relay->records);
    free(relay->servers);
    exchangers_done(relay);
    mx_known_done(relay);
    intern_done(&relay->domains);
    intern_done(&relay->reasons);
    intern_done(&relay->redirects);
    intern_done(&relay->hands);
    schedule_done(&relay->schedule);
    arena_done(&relay->action_memory);
    buffer_done(&relay->scratch);
    buffer_done(&relay->attempt);
    free(relay->attempt_deliveries);
    free(relay->attempts.numbers);
    milestones_done(&relay->milestones);
    free(relay->actions);
    free(relay->route_bytes);
    free(relay->odometers);
    routing_free(relay->routing);
    known_done(&relay->known_good);
    directory_free(relay->directory);
    free(relay);
}

void relay_begin(struct relay *relay, struct relay_time now)
{
    relay->now = now;
    if (relay->action_first == relay->action_count) {
        relay->action_first = relay->action_count = 0;
        arena_reset(&relay->action_memory);
    }
}

bool relay_next(struct relay *relay, struct relay_action *ret_action)
{
    if (relay->action_first == relay->action_count) {
        return false;
    }
    *ret_action = relay->actions[relay->action_first++];
    return true;
}

/* ---- mail --------------------------------------------------------------------------------- */

uint32_t route_of_recipient(const struct relay *relay, const struct spool_message *message,
                            uint32_t which)
{
    struct routing_query query = {
        .sender = message->sender,
        .recipient = message->recipients[which].address,
        .client = &message->origin.client.address,
        .authenticated = message->origin.user.length > 0,
        .own_dsn = (message->flags & SPOOL_OWN_DSN) != 0,
    };
    return routing_find(relay->routing, &query);
}

/* False: memory; nothing is counted yet. */
static bool choose_lanes(struct relay *relay, const struct spool_message *message,
                         const struct message *added)
{
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        uint32_t number = delivery_number(added, i);
        const struct lane *lane = lane_for(relay, route_of_recipient(relay, message, i),
                                           delivery_at(relay, number)->domain, added);
        if (lane == NULL) {
            return false;
        }
        delivery_move(relay, number, lane->index);
    }
    return true;
}

enum error relay_add(struct relay *relay, struct spool_handle handle,
                     const struct spool_message *message, struct relay_time now)
{
    relay_begin(relay, now);
    if (relay->started && relay->first_message == NOBODY) {
        expiry_believe_clock(relay, now.wall_ms);
    }
    enum error error = message_insert(relay, handle.index, message);
    if (error != ERROR_NONE) {
        return error;
    }
    const struct message *added = message_at(relay, handle.index);
    if (!choose_lanes(relay, message, added)) {
        message_abandon(relay, handle.index);
        return ERROR_MEMORY;
    }
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        uint32_t number = delivery_number(added, i);
        if (i == 0) {
            span_accepted(relay, message_at(relay, handle.index), message,
                          lane_of(relay, delivery_at(relay, number))->route);
        }
        delivery_set_state(relay, number, DELIVERY_WAITING);
        lane_append(relay, number);
        directory_seed(relay, number, message->recipients[i].address);
        if (relay->started && message->received_ms < now.wall_ms - OLD_MAIL_MS) {
            expiry_soon(relay); /* an import */
        }
        if (delivery_at(relay, number)->lane == relay->lanes.orphan && relay->started) {
            (void)action_delivery_event(relay, RELAY_EVENT_ORPHANED, number);
        }
    }
    relay_settle(relay);
    return ERROR_NONE;
}

void relay_start(struct relay *relay, struct relay_time now)
{
    relay_begin(relay, now);
    relay->started = true;
    refusals_recount(relay);
    if (relay->first_message == NOBODY) {
        expiry_believe_clock(relay, now.wall_ms);
    }
    expiry_start(relay);
    for (uint32_t i = 0; i < relay->server_count; i++) {
        governor_start(relay, &relay->servers[i]);
    }
    noted_start(relay);
    exchangers_start(relay);
    mx_known_prune(relay);
    attempts_doubt_all(relay);
    const struct lane *orphan = relay->lanes.all[relay->lanes.orphan];
    if (orphan->deliveries > 0) {
        struct relay_action *event = action_event(relay, RELAY_EVENT_ORPHANED);
        event->lane = action_copy(relay, orphan->name);
        event->count = orphan->deliveries;
    }
    freezes_start(relay);
    lanes_place(relay);
    relay_settle(relay);
}

/* ---- sessions ----------------------------------------------------------------------------- */

static void write_capabilities(struct relay *relay, struct server *server,
                               const struct relay_capabilities *capabilities)
{
    const struct relay_capabilities *known = &server->capabilities;
    if (server->capabilities_known && known->flags == capabilities->flags &&
        known->size_limit == capabilities->size_limit &&
        known->recipients_max == capabilities->recipients_max &&
        known->mails_max == capabilities->mails_max &&
        known->deliver_by_min_s == capabilities->deliver_by_min_s) {
        return;
    }
    bool is_news = !server->capabilities_known ||
                   ((known->flags ^ capabilities->flags) & RELAY_CAP_REQUIRETLS) != 0;
    server->capabilities = *capabilities;
    server->capabilities_known = true;
    if (is_news) {
        destinations_place_strict(relay, server);
    }
    if (server->exchanger != NULL) {
        return; /* asked anew when it is made anew */
    }
    buffer_clear(&relay->scratch);
    note_encode_capabilities(&relay->scratch, capabilities);
    action_server_note(relay, server, GLOBAL_CAPABILITIES);
}

void relay_session_opened(struct relay *relay, uint32_t id,
                          const struct relay_capabilities *capabilities, struct relay_time now)
{
    relay_begin(relay, now);
    struct session *session = map_get(&relay->sessions, id);
    if (session == NULL || session->server == NULL) { /* of an earlier life or configuration */
        struct relay_action *action = action_add(relay, RELAY_CLOSE);
        action->session = id;
        return;
    }
    if (session->state != SESSION_CONNECTING) {
        return;
    }
    struct server *server = session->server;
    session->state = SESSION_OPEN;
    session->tells_dsn = (capabilities->flags & RELAY_CAP_DSN) != 0;
    session->takes_deliver_by = (capabilities->flags & RELAY_CAP_DELIVERBY) != 0;
    session->deliver_by_min_s = capabilities->deliver_by_min_s;
    server->connecting--;
    write_capabilities(relay, server, capabilities);
    governor_opened(relay, server, session);
    if (server->state == SERVER_DISABLED) {
        session_close(relay, session);
    }
    session_pool(relay, session);
    relay_settle(relay);
}

/* Jobs that the caller has not reported before their session's end. They wait until that has been
 * judged. */
static void give_back_jobs(struct relay *relay, struct session *session, struct relay_time now)
{
    bool gathers = relay->gathers;
    session->state = SESSION_CLOSING;
    session->close_asked = true;
    relay->gathers = true;
    for (uint32_t i = 0; i < relay->job_used && session->job_count > 0; i++) {
        if (relay->jobs[i] != NULL && relay->jobs[i]->session == session) {
            relay_result(relay, relay->jobs[i]->id, session->id, false, NULL, 0, now);
        }
    }
    relay->gathers = gathers;
}

void relay_session_ended(struct relay *relay, uint32_t id, const struct relay_reply *reply,
                         struct relay_time now)
{
    relay_begin(relay, now);
    struct session *session = map_get(&relay->sessions, id);
    if (session == NULL) {
        return;
    }
    bool asked = session->close_asked && !session->broken;
    if (session->job_count > 0) {
        give_back_jobs(relay, session, now);
    }
    struct server *server = session->server;
    if (server == NULL) {
        relay_session_free(relay, session);
        relay_settle(relay);
        return;
    }
    if (session->state == SESSION_CONNECTING) {
        server->connecting--;
    }
    bool was_probe = server->probe == session;
    session->state = SESSION_CLOSING; /* it is no other working session, */
    session->close_asked = true;      /* and needs no closing */
    if (!asked) {
        enum verdict verdict = outcome_of_session(reply, session->worked);
        governor_judge(relay, server, session, verdict, reply);
        if (reply->how == RELAY_LOCAL) {
            server->own_trouble_until_ms = now.steady_ms + OWN_TROUBLE_MS;
        }
    }
    bool was_call = server->call == session;
    relay_session_free(relay, session);
    if (was_call) {
        governor_call_ended(relay, server);
    }
    if (was_probe && server->next_probe_ms == INT64_MAX) { /* no verdict: once more */
        server->next_probe_ms = now.steady_ms + OWN_TROUBLE_MS;
    }
    relay_settle(relay);
}

/* ---- results ------------------------------------------------------------------------------ */

void relay_result_durable(struct relay *relay, uint64_t job, struct relay_time now)
{
    /* The sender process waits for it by itself; order per recipient needs only the reply. */
    (void)job;
    relay_begin(relay, now);
}

void relay_together_begin(struct relay *relay, struct relay_time now)
{
    relay_begin(relay, now);
    assert(!relay->gathers);
    relay->gathers = true;
}

void relay_together_end(struct relay *relay, struct relay_time now)
{
    relay_begin(relay, now);
    relay->gathers = false;
    relay_settle(relay);
}

void relay_sessions_lost(struct relay *relay, uint32_t index, uint32_t count, struct relay_time now)
{
    struct relay_reply reply = {.stage = RELAY_AT_IDLE,
                                .how = RELAY_LOCAL,
                                .text = SLICE_LITERAL("the sender process ended")};
    assert(count > 0);
    relay_begin(relay, now);
    relay->gathers = true;
    for (uint32_t i = 0; i < relay->job_used; i++) {
        struct job *job = relay->jobs[i];
        if (job == NULL || job->session_id % count != index) {
            continue;
        }
        struct relay_delivery_result result = {.reply = reply};
        result.verdict = job->noted ? RELAY_IN_DOUBT : RELAY_NOT_TRIED;
        struct relay_delivery_result *results = calloc(job->count + 1, sizeof *results);
        if (results == NULL) {
            abort(); /* as in action.c: what happened could not be told */
        }
        for (uint32_t j = 0; j < job->count; j++) {
            results[j] = result;
            results[j].delivery = delivery_at(relay, job->deliveries[j])->number;
        }
        relay_result(relay, job->id, job->session_id, false, results, job->count, now);
        free(results);
    }
    size_t cursor = 0;
    for (struct session *session; (session = map_next(&relay->sessions, &cursor)) != NULL;) {
        if (session->id % count == index) {
            relay_session_ended(relay, session->id, &reply, now);
            cursor = 0; /* the table has changed */
        }
    }
    destinations_forget_questions(relay);
    relay->gathers = false;
    relay_settle(relay);
}

enum error relay_attempt_note(struct relay *relay, uint64_t id, struct relay_time now,
                              uint16_t *ret_kind, struct slice *ret_payload,
                              struct spool_handle *ret_handle, const uint32_t **ret_deliveries,
                              uint32_t *ret_count)
{
    relay->now = now;
    struct job *job = job_find(relay, id);
    if (job == NULL || job->count == 0 || (job->session != NULL && job->session->close_asked)) {
        return ERROR_MISSING;
    }
    for (uint32_t i = 0; i < job->count; i++) {
        if (delivery_is_withdrawn(relay, job->deliveries[i])) {
            return ERROR_MISSING; /* somebody else delivers it, or has */
        }
        if (recipient_follows(relay, job->deliveries[i])) {
            return ERROR_AGAIN; /* R6 */
        }
    }
    if (!relay->leased) {
        return ERROR_AGAIN;
    }
    uint32_t *numbers = realloc(relay->attempt_deliveries, job->count * sizeof *numbers);
    buffer_clear(&relay->attempt);
    note_put_delivery(relay, job->deliveries[0], NOTE_ATTEMPT, SLICE_EMPTY, &relay->attempt);
    if (numbers == NULL || relay->attempt.failed) {
        relay->attempt_deliveries = numbers == NULL ? relay->attempt_deliveries : numbers;
        return ERROR_MEMORY;
    }
    for (uint32_t i = 0; i < job->count; i++) {
        numbers[i] = delivery_at(relay, job->deliveries[i])->number;
    }
    relay->attempt_deliveries = numbers;
    job->noted = true;
    job->dot_ms = now.steady_ms;
    *ret_kind = NOTE_ATTEMPT;
    *ret_payload = buffer_slice(&relay->attempt);
    *ret_handle = (struct spool_handle){job->message};
    *ret_deliveries = numbers;
    *ret_count = job->count;
    return ERROR_NONE;
}

/* ---- time --------------------------------------------------------------------------------- */

/* Looks at all to which something may go. */
static void touch_servers(struct relay *relay)
{
    for (uint32_t i = relay_next_exchanger(relay, 0); i != NO_INDEX;
         i = relay_next_exchanger(relay, i + 1)) {
        server_touch(relay, server_at(relay, i));
    }
    for (uint32_t i = 0; i < relay->server_count; i++) {
        struct server *server = &relay->servers[i];
        if (server->ready + server->guests_ready > 0 || !list_is_empty(&server->single)) {
            server_touch(relay, server);
        }
    }
}

bool relay_lease_is_held(const struct relay *relay)
{
    return relay->leased;
}

void relay_lease(struct relay *relay, bool is_held, struct relay_time now)
{
    relay_begin(relay, now);
    if (is_held && !relay->leased) {
        touch_servers(relay);
        int64_t since_ms = relay->older_due_since_ms;
        int64_t from_ms = since_ms > relay->lapsed_ms ? since_ms : relay->lapsed_ms;
        relay->older_due_since_ms += now.steady_ms - from_ms; /* nobody could bring it */
    } else if (!is_held && relay->leased) {
        relay->lapsed_ms = now.steady_ms;
    }
    relay->leased = is_held;
    relay_settle(relay);
}

void relay_older_due(struct relay *relay, int64_t accepted_ms, struct relay_time now)
{
    relay_begin(relay, now);
    if (relay->older_due_ms != INT64_MAX) {
        touch_servers(relay);
    } else {
        relay->older_due_since_ms = now.steady_ms;
    }
    relay->older_due_ms = accepted_ms;
    relay_settle(relay);
}

bool delivery_waits_for_older(const struct relay *relay, uint32_t number)
{
    return message_at(relay, delivery_at(relay, number)->message)->received_ms >
               relay->older_due_ms &&
           relay->now.steady_ms - relay->older_due_since_ms < order_patience_ms(relay, number);
}

void relay_tick(struct relay *relay, struct relay_time now)
{
    relay_begin(relay, now);
    if (relay->more) {
        touch_servers(relay);
    }
    while (relay->started && relay->schedule.count > 0 &&
           schedule_at(&relay->schedule, 0)->due_ms <= now.steady_ms) {
        struct timer timer = *schedule_at(&relay->schedule, 0);
        switch ((enum timer_kind)timer.kind) {
        case TIMER_DELIVERY:
            delivery_due(relay, timer.index);
            break;
        case TIMER_RECIPIENT:
            recipient_timer(relay, timer.index);
            break;
        case TIMER_SERVER:
            schedule_remove(&relay->schedule, 0);
            server_timer(relay, server_at(relay, timer.index));
            server_arm(relay, server_at(relay, timer.index));
            break;
        case TIMER_DESTINATION:
            destination_timer(relay, relay->lanes.destinations[timer.index]);
            break;
        case TIMER_DELIVER_BY:
            deliver_by_due(relay, timer.index);
            break;
        case TIMER_SWEEP:
            destinations_sweep(relay);
            break;
        }
    }
    if (relay->started && relay->odometers_due_ms <= now.steady_ms) {
        odometers_write_due(relay);
    }
    if (relay->started && expiry_note_due(relay) <= now.steady_ms) {
        expiry_note_clock(relay);
    }
    if (relay->started && relay->expiry.due_ms <= now.steady_ms) {
        expiry_due(relay);
    }
    if (relay->started && relay->thaw_due_ms <= now.steady_ms) {
        freezes_due(relay);
    }
    relay_settle(relay);
}

int64_t relay_deadline(const struct relay *relay)
{
    if (!relay->started) {
        return INT64_MAX;
    }
    int64_t due = relay->more ? relay->now.steady_ms : schedule_next(&relay->schedule);
    due = relay->expiry.due_ms < due ? relay->expiry.due_ms : due;
    due = relay->thaw_due_ms < due ? relay->thaw_due_ms : due;
    due = expiry_note_due(relay) < due ? expiry_note_due(relay) : due;
    return relay->odometers_due_ms < due ? relay->odometers_due_ms : due;
}

/* ---- the server itself speaks -------------------------------------------------------------- */

static bool has_address(const struct server *server, const struct ip_address *address)
{
    for (size_t i = 0; i < server->address_count; i++) {
        if (ip_equal(&server->addresses[i], address)) {
            return true;
        }
    }
    return false;
}

static void contact(struct relay *relay, struct server *server, const struct ip_address *from)
{
    bool away = server->state == SERVER_SUSPECT || server->state == SERVER_DOWN;
    if (away && !server->on_demand && has_address(server, from)) {
        governor_probe_now(relay, server);
    }
}

void relay_contact(struct relay *relay, const struct ip_address *from, struct relay_time now)
{
    relay_begin(relay, now);
    for (uint32_t i = 0; relay->started && i < relay->server_count; i++) {
        contact(relay, &relay->servers[i], from);
    }
    for (uint32_t i = relay_next_exchanger(relay, 0); relay->started && i != NO_INDEX;
         i = relay_next_exchanger(relay, i + 1)) {
        contact(relay, server_at(relay, i), from);
    }
    relay_settle(relay);
}

void relay_server_doubted(struct relay *relay, uint32_t index, struct relay_time now)
{
    relay_begin(relay, now);
    struct server *server = server_at(relay, index);
    if (relay->started && server != NULL) {
        governor_doubted(relay, server);
        relay_settle(relay);
    }
}

/* A server of the chain that mail to this recipient takes, with this address; or NULL. */
static struct server *server_on_way(struct relay *relay, const struct spool_message *message,
                                    uint32_t which)
{
    uint32_t route = route_of_recipient(relay, message, which);
    if (route == NO_INDEX) {
        return NULL;
    }
    uint32_t length = relay->config->routes[route].chain_length;
    const uint32_t *chain = relay->config->routes[route].chain;
    const struct destination *destination =
        destination_find(relay, route, domain_of_address(message->recipients[which].address));
    if (destination != NULL) {
        chain = destination->chain;
        length = destination->chain_length;
    }
    for (uint32_t i = 0; i < length; i++) {
        struct server *server = server_at(relay, chain[i]);
        if (has_address(server, &message->origin.client.address)) {
            return server;
        }
    }
    return NULL;
}

bool relay_loop(struct relay *relay, const struct spool_message *message, struct relay_time now)
{
    relay_begin(relay, now);
    struct server *found = NULL;
    for (uint32_t i = 0; found == NULL && i < message->recipient_count; i++) {
        found = server_on_way(relay, message, i);
    }
    if (found != NULL) {
        governor_loop(relay, found);
        relay_settle(relay);
    }
    return found != NULL;
}

void relay_server_addresses(struct relay *relay, uint32_t index, const struct ip_address *addresses,
                            size_t count)
{
    if (index >= relay->server_count) {
        return;
    }
    struct server *server = &relay->servers[index];
    server->address_count = count < ADDRESSES_MAX ? count : ADDRESSES_MAX;
    for (size_t i = 0; i < server->address_count; i++) {
        server->addresses[i] = addresses[i];
    }
}
