/* SPDX-License-Identifier: Apache-2.0
 *
 * Who goes next: for each server that may be used, the lanes whose turn it is there (deficit
 * round-robin by bytes), the sessions that are free, and the jobs that bring both together.
 */
#include "relay/destination.h"

/* How many messages of lanes for which it stands in the warm-up lets go now: evenly spread over the
 * hour, some of them ahead of their time. */
static uint64_t guests_allowed(const struct relay *relay, const struct server *server)
{
    int64_t ahead = relay->now.steady_ms + WARM_UP_AHEAD_MS - server->guest_due_ms;
    if (server->guests_ready == 0 || ahead < 0) {
        return 0;
    }
    uint64_t allowed = (uint64_t)(ahead / server_guest_interval_ms(server)) + 1;
    return allowed < server->guests_ready ? allowed : server->guests_ready;
}

static uint64_t ready_now(const struct relay *relay, const struct server *server)
{
    return server->ready + guests_allowed(relay, server);
}

static void count_guest(const struct relay *relay, struct server *server)
{
    int64_t now = relay->now.steady_ms;
    server->guest_due_ms = (server->guest_due_ms > now ? server->guest_due_ms : now) +
                           server_guest_interval_ms(server);
}

static void turn_over(struct link *turns, struct lane *lane)
{
    list_remove(&lane->turn);
    list_append(turns, &lane->turn);
}

/* The next lane with its next delivery, or NULL. Lanes whose deliveries are all behind their
 * recipients leave the turn list by themselves, since nothing in them is ready. One whose next
 * waits for older mail waits as a whole: the others in it are younger still. */
static struct lane *next_lane_of(struct relay *relay, struct link *turns, uint32_t *budget,
                                 uint32_t *ret_number)
{
    const struct lane *waiting = NULL; /* the first that does */
    bool others = false;               /* have been seen since it was met */
    while (!list_is_empty(turns)) {
        struct lane *lane = LIST_ENTRY(turns->next, struct lane, turn);
        uint32_t number = lane_first(relay, lane, budget);
        if (number == NOBODY) {
            if (*budget == 0) {
                return NULL;
            }
            continue;
        }
        if (delivery_waits_for_older(relay, number)) {
            if (lane == waiting && !others) {
                return NULL;
            }
            others = others && lane != waiting;
            waiting = waiting == NULL ? lane : waiting;
            turn_over(turns, lane);
            continue;
        }
        uint64_t bytes = message_at(relay, delivery_at(relay, number)->message)->bytes;
        uint64_t cost = DRR_COST_BASE + (bytes < DRR_COST_MAX ? bytes : DRR_COST_MAX);
        bool alone = turns->next->next == turns;
        if (lane->deficit < cost && !alone) {
            lane->deficit += DRR_QUANTUM;
            others = true;
            turn_over(turns, lane);
            continue;
        }
        lane->deficit = alone ? 0 : lane->deficit - cost;
        *ret_number = number;
        return lane;
    }
    return NULL;
}

static struct lane *next_lane(struct relay *relay, struct server *server, uint32_t *budget,
                              uint32_t *ret_number)
{
    struct lane *lane = NULL;
    if (server->state == SERVER_RECOVERING && server->returning) {
        lane = canary_choose(relay, server, &server->turns, budget, ret_number);
    }
    if (lane == NULL) {
        lane = next_lane_of(relay, &server->turns, budget, ret_number);
    }
    if (lane == NULL && guests_allowed(relay, server) > 0) {
        lane = next_lane_of(relay, &server->guests, budget, ret_number);
    }
    return lane;
}

bool job_take(struct relay *relay, struct job *job, uint32_t number)
{
    struct delivery *delivery = delivery_at(relay, number);
    if (recipient_allows(relay, number) && !recipient_block(relay, number)) {
        return false;
    }
    delivery_take_out(relay, number);
    delivery_set_state(relay, number, DELIVERY_IN_FLIGHT);
    delivery->place = PLACE_ON_JOB;
    delivery->next = job->number;
    delivery->server = job->server < NO_SERVER ? (uint16_t)job->server : NO_SERVER;
    job->deliveries[job->count++] = number;
    return true;
}

static uint32_t recipients_limit(const struct server *server)
{
    uint32_t limit = RECIPIENTS_PER_JOB;
    if (server->capabilities_known && server->capabilities.recipients_max > 0 &&
        server->capabilities.recipients_max < limit) {
        limit = server->capabilities.recipients_max;
    }
    return limit;
}

/* It has had its strikes: one recipient that the server breaks off at must not keep the message's
 * others from it, so each of them goes alone. */
static bool goes_alone(const struct relay *relay, uint32_t number)
{
    return delivery_at(relay, number)->strikes >= STRIKES_MAX;
}

/* The others of the message that wait in the same lane go along. */
static void take_siblings(struct relay *relay, struct job *job, struct lane *lane,
                          const struct message *message, uint32_t first, uint32_t limit)
{
    for (uint32_t i = delivery_at(relay, first)->number + 1u;
         i < message->recipient_count && job->count < limit; i++) {
        uint32_t number = delivery_number(message, i);
        if (number == NOBODY) {
            continue;
        }
        const struct delivery *delivery = delivery_at(relay, number);
        if (delivery->lane == lane->index && !goes_alone(relay, number) &&
            (delivery->place == PLACE_IN_LANE || delivery->place == PLACE_RETURNED) &&
            recipient_allows(relay, number) &&
            deliver_by_end_ms(relay, number) == deliver_by_end_ms(relay, first) &&
            !job_take(relay, job, number)) {
            break;
        }
    }
}

/* A job of `first` alone, so far. NULL: memory. */
static struct job *job_begin(struct relay *relay, const struct server *server,
                             struct session *session, uint32_t first, uint32_t most)
{
    struct job *job = job_new(relay, 0, most);
    if (job == NULL) {
        return NULL;
    }
    job->session = session;
    job->session_id = session->id;
    job->server = server->index;
    job->message = delivery_at(relay, first)->message;
    if (!job_take(relay, job, first)) {
        job_free(relay, job);
        return NULL;
    }
    return job;
}

static void job_send(struct relay *relay, const struct server *server, const struct lane *lane,
                     struct job *job)
{
    struct session *session = job->session;
    session_add_job(session, job);
    session_pool(relay, session);
    uint32_t *numbers = action_numbers(relay, job->count);
    for (uint32_t i = 0; i < job->count; i++) {
        numbers[i] = delivery_at(relay, job->deliveries[i])->number;
    }
    struct relay_action *action = action_add(relay, RELAY_DELIVER);
    action->session = session->id;
    action->server = server->index;
    action->job = job->id;
    action->handle = (struct spool_handle){job->message};
    action->delivery = numbers[0];
    action->deliveries = numbers;
    action->delivery_count = job->count;
    if (lane->redirect_address) {
        action->redirect_to = action_copy(relay, intern_text(&relay->redirects, lane->redirect));
    }
}

static bool send_job(struct relay *relay, struct server *server, struct session *session,
                     struct lane *lane, uint32_t first)
{
    const char *objection = deliver_by_objection(relay, server, session, first);
    if (objection != NULL) {
        deliver_by_object(relay, first, objection);
        return true; /* another takes its turn */
    }
    struct message *message = message_at(relay, delivery_at(relay, first)->message);
    uint32_t limit = recipients_limit(server);
    uint32_t most = message->unfinished < limit ? message->unfinished : limit;
    /* A canary may go before others' mail. */
    bool with_others = lane_head(relay, lane) == first && !goes_alone(relay, first);
    lane_takes_turn(relay, lane, first);
    struct job *job = job_begin(relay, server, session, first, with_others ? most : 1);
    if (job == NULL) {
        return false;
    }
    if (with_others) {
        take_siblings(relay, job, lane, message, first, most);
    }
    if (lane->guest) {
        count_guest(relay, server);
    }
    if (server->state == SERVER_RECOVERING) {
        canary_try(server, delivery_at(relay, first)->recipient);
    }
    /* A canary alone is no switch back: others may go on to the server that stands in. */
    if (server->state == SERVER_UP || server->trouble != TROUBLE_DELIVERY) {
        lane_tell_switch(relay, lane, server->index);
    }
    job_send(relay, server, lane, job);
    return true;
}

/* The recipient's next message, behind the one that this session has in flight for it. One for
 * several recipients is left: to split it would cost more than a round trip. */
static void send_follower(struct relay *relay, const struct server *server, struct session *session)
{
    const struct job *ahead = session->jobs[0];
    uint32_t number = recipient_next(relay, ahead->deliveries[0]);
    if (number == NOBODY) {
        return;
    }
    const struct delivery *delivery = delivery_at(relay, number);
    const struct lane *lane = lane_of(relay, delivery);
    if (lane->pin != PIN_NONE || lane->guest || lane->ready > 0 ||
        lane != lane_of(relay, delivery_at(relay, ahead->deliveries[0])) ||
        lane_choose(relay, lane) != server->index ||
        message_at(relay, delivery->message)->unfinished > 1 ||
        delivery_waits_for_older(relay, number) ||
        deliver_by_objection(relay, server, session, number) != NULL) {
        return;
    }
    struct job *job = job_begin(relay, server, session, number, 1);
    if (job != NULL) { /* else later, by itself */
        recipient_follow(relay, number);
        job_send(relay, server, lane, job);
    }
}

static void send_followers(struct relay *relay, struct server *server)
{
    LIST_EACH(&server->single, at, after)
    {
        send_follower(relay, server, LIST_ENTRY(at, struct session, pool));
    }
}

/* A free session; else a new one is asked for; else, when there is more work than that will carry,
 * one that has a single job takes a second behind it. NULL: wait. */
static struct session *find_session(struct relay *relay, struct server *server)
{
    bool full = server->busy >= governor_width(server);
    if (!full && !list_is_empty(&server->idle)) { /* the one used last: the others may grow old */
        return LIST_ENTRY(server->idle.previous, struct session, pool);
    }
    uint32_t room = governor_room(relay, server);
    uint64_t ready = ready_now(relay, server);
    while (server->connecting < ready && room-- > 0) {
        if (session_open(relay, server, false) == NULL) {
            server->own_trouble_until_ms = relay->now.steady_ms + OWN_TROUBLE_MS; /* then again */
            break;
        }
    }
    if (server->state == SERVER_UP && ready > server->connecting &&
        !list_is_empty(&server->single)) {
        return LIST_ENTRY(server->single.next, struct session, pool);
    }
    return NULL;
}

void server_fill(struct relay *relay, struct server *server)
{
    uint32_t budget = LOOK_AHEAD;
    if (!relay->leased) {
        return;
    }
    while (ready_now(relay, server) > 0 && governor_may_send(server)) {
        uint32_t number = NOBODY;
        struct session *session = find_session(relay, server);
        struct lane *lane = session == NULL ? NULL : next_lane(relay, server, &budget, &number);
        if (lane == NULL) {
            break;
        }
        if (!send_job(relay, server, session, lane, number)) {
            server->own_trouble_until_ms = relay->now.steady_ms + OWN_TROUBLE_MS;
            break;
        }
    }
    if (server->ready == 0 && server->state == SERVER_UP) { /* all others come first */
        send_followers(relay, server);
    }
    call_close_if_done(relay, server);
}

static void settle_servers(struct relay *relay)
{
    while (!list_is_empty(&relay->touched)) {
        struct server *server = LIST_ENTRY(relay->touched.next, struct server, touched);
        governor_look_at_canary(relay, server);
        server_fill(relay, server);
        governor_look_at_canary(relay, server);
        if (server->next_probe_ms <= relay->now.steady_ms) {
            governor_probe_due(relay, server);
        }
        list_remove(&server->touched); /* it has touched itself, and others perhaps */
        server_arm(relay, server);
    }
}

void relay_settle(struct relay *relay)
{
    if (relay->gathers) {
        return;
    }
    relay->more = false;
    attempts_doubt_loaded(relay);
    while (relay->started &&
           !(list_is_empty(&relay->touched) && list_is_empty(&relay->lanes.touched_destinations))) {
        destinations_settle(relay);
        settle_servers(relay);
        if (relay->more) {
            break;
        }
    }
    if (relay->drained) {
        lanes_drained(relay);
    }
}
