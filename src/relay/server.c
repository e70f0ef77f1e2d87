/* SPDX-License-Identifier: Apache-2.0
 *
 * The records of servers, sessions and jobs: made, found, linked, freed. When a server is up is the
 * governor's matter, what goes over a session dispatch's.
 */
#include <assert.h>
#include <stdlib.h>

#include "relay/destination.h"
#include "relay/refusal.h"

/* ---- servers ------------------------------------------------------------------------------ */

void server_init(struct relay *relay, struct server *server, const struct server_config *config,
                 uint32_t index)
{
    *server = (struct server){
        .config = config,
        .index = index,
        .state = SERVER_SUSPECT,
        .trouble = TROUBLE_CONNECT,
        .trouble_serial = relay->session_serial,
        .since_ms = relay->now.steady_ms,
        .since_wall_ms = relay->now.wall_ms,
        .away_since_ms = relay->now.steady_ms,
        .next_probe_ms = INT64_MAX,
        .review_ms = INT64_MAX,
        .last_probe_ms = INT64_MIN / 2,
        .last_contact_ms = relay->now.steady_ms,
        .ceiling = config->connections,
        .timer = SCHEDULE_NOWHERE,
    };
    ramp_start(&server->ramp, UINT32_MAX);
    list_init(&server->sessions);
    list_init(&server->idle);
    list_init(&server->single);
    list_init(&server->turns);
    list_init(&server->touched);
    list_init(&server->guests);
    for (uint32_t i = 0; i < config->address_count; i++) {
        const struct server_address *address = &config->addresses[i];
        if (address->is_literal && server->address_count < ADDRESSES_MAX) {
            server->addresses[server->address_count++] = address->literal;
        }
    }
}

enum error servers_new(struct relay *relay, const struct relay_config *config,
                       struct server **ret_servers)
{
    struct server *servers = calloc(config->server_count + 1, sizeof *servers);
    if (servers == NULL) {
        return ERROR_MEMORY;
    }
    for (uint32_t i = 0; i < config->server_count; i++) {
        server_init(relay, &servers[i], &config->servers[i], i);
    }
    *ret_servers = servers;
    return ERROR_NONE;
}

void hand_remember(struct relay *relay, struct slice name)
{
    if (!intern_has(&relay->hands, name)) {
        (void)intern_take(&relay->hands, name); /* without memory it is forgotten until a restart */
    }
}

bool hand_recall(struct relay *relay, struct slice name)
{
    if (!intern_has(&relay->hands, name)) {
        return false;
    }
    uint32_t number = intern_take(&relay->hands, name);
    intern_drop(&relay->hands, number);
    intern_drop(&relay->hands, number);
    return true;
}

struct server *server_at(const struct relay *relay, uint32_t index)
{
    if (index < relay->server_count) {
        return &relay->servers[index];
    }
    uint32_t place = index - RELAY_EXCHANGERS; /* wraps round below */
    bool there = place < relay->exchanger_room && relay->exchangers[place] != NULL;
    return there ? &relay->exchangers[place]->server : NULL;
}

struct slice server_name(const struct relay *relay, uint32_t index)
{
    return index < RELAY_EXCHANGERS ? relay->config->servers[index].name
                                    : server_at(relay, index)->config->name;
}

void server_touch(struct relay *relay, struct server *server)
{
    if (list_is_empty(&server->touched)) {
        list_append(&relay->touched, &server->touched);
    }
}

void server_close_sessions(struct relay *relay, struct server *server)
{
    LIST_EACH(&server->sessions, at, after)
    {
        struct session *session = LIST_ENTRY(at, struct session, all);
        if (session != server->probe) {
            session_close(relay, session);
            server->left += !session->left;
            server->busy -= !session->left && session->job_count > 0;
            session->left = true;
        }
    }
}

int64_t server_guest_interval_ms(const struct server *server)
{
    enum { HOUR_MS = 3600 * 1000 };
    return HOUR_MS / (server->config->warm_up > 0 ? server->config->warm_up : 1);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void server_arm(struct relay *relay, struct server *server)
{
    int64_t due = INT64_MAX;
    int64_t now = relay->now.steady_ms;
    if (relay->started && server->probe == NULL && server->state != SERVER_DISABLED) {
        due = server->next_probe_ms;
    }
    if (!list_is_empty(&server->idle)) {
        due = earlier(due, LIST_ENTRY(server->idle.next, struct session, pool)->idle_ms +
                               SESSION_IDLE_MS);
    }
    if (server->away_since_ms != INT64_MAX && server->away_since_ms + DOUBT_PATIENCE_MS > now) {
        due = earlier(due, server->away_since_ms + DOUBT_PATIENCE_MS);
    }
    due = earlier(due, relay->started ? server->review_ms : INT64_MAX);
    if (server->unknown_until_ms > now) {
        due = earlier(due, server->unknown_until_ms);
    }
    if (server->own_trouble_until_ms > now) {
        due = earlier(due, server->own_trouble_until_ms);
    }
    if (server->guests_ready > 0 && server->guest_due_ms - WARM_UP_AHEAD_MS > now) {
        due = earlier(due, server->guest_due_ms - WARM_UP_AHEAD_MS);
    }
    if (due == INT64_MAX) {
        if (server->timer != SCHEDULE_NOWHERE) {
            schedule_remove(&relay->schedule, server->timer);
        }
    } else if (server->timer == SCHEDULE_NOWHERE) {
        schedule_add(&relay->schedule, (struct timer){due, TIMER_SERVER, server->index});
    } else if (schedule_at(&relay->schedule, server->timer)->due_ms != due) {
        schedule_change(&relay->schedule, server->timer, due);
    }
}

static void close_idle(struct relay *relay, struct server *server)
{
    LIST_EACH(&server->idle, at, after)
    {
        struct session *session = LIST_ENTRY(at, struct session, pool);
        if (session->idle_ms + SESSION_IDLE_MS > relay->now.steady_ms) {
            break; /* oldest first */
        }
        session_close(relay, session);
    }
}

void server_timer(struct relay *relay, struct server *server)
{
    int64_t now = relay->now.steady_ms;
    server_touch(relay, server);
    close_idle(relay, server);
    if (server->unknown_until_ms != 0 && server->unknown_until_ms <= now) {
        server->unknown_until_ms = 0;
        lanes_place(relay);
    }
    if (server->away_since_ms != INT64_MAX && server->away_since_ms + DOUBT_PATIENCE_MS <= now) {
        doubts_unpin(relay, server);
    }
    if (server->review_ms <= now) {
        refusals_review(relay, server);
    }
    if (server->next_probe_ms <= now) {
        governor_probe_due(relay, server);
    }
}

/* ---- sessions ----------------------------------------------------------------------------- */

struct session *session_open(struct relay *relay, struct server *server, bool probe)
{
    struct session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        return NULL;
    }
    do {
        session->id = relay->next_session++;
    } while (session->id == 0 || map_get(&relay->sessions, session->id) != NULL);
    if (map_put(&relay->sessions, session->id, session) != ERROR_NONE) {
        free(session);
        return NULL;
    }
    session->server = server;
    session->serial = ++relay->session_serial;
    session->state = SESSION_CONNECTING;
    session->probe = probe;
    list_init(&session->pool);
    list_append(&server->sessions, &session->all);
    server->open++;
    server->connecting++;
    server_touch(relay, server);
    struct relay_action *action = action_add(relay, RELAY_CONNECT);
    action->session = session->id;
    action->server = server->index;
    action->knock_interval_ms =
        probe && !server->on_demand ? governor_probe_interval(relay, server) : 0;
    return session;
}

void session_close(struct relay *relay, struct session *session)
{
    if (session->close_asked) {
        return;
    }
    if (session->state == SESSION_CONNECTING && session->server != NULL) {
        session->server->connecting--;
    }
    session->close_asked = true;
    session->state = SESSION_CLOSING;
    list_remove(&session->pool);
    struct relay_action *action = action_add(relay, RELAY_CLOSE);
    action->session = session->id;
    action->server = session->server == NULL ? NO_INDEX : session->server->index;
}

void relay_session_free(struct relay *relay, struct session *session)
{
    struct server *server = session->server;
    list_remove(&session->pool);
    list_remove(&session->all);
    if (server != NULL) {
        server->open--;
        server->left -= session->left;
        server->connecting -= session->state == SESSION_CONNECTING;
        server->probe = server->probe == session ? NULL : server->probe;
        server_touch(relay, server);
    }
    map_remove(&relay->sessions, session->id);
    free(session);
}

void session_add_job(struct session *session, struct job *job)
{
    assert(session->job_count < 2);
    session->server->busy += session->job_count == 0;
    session->jobs[session->job_count++] = job;
    session->mails++;
    session->server->jobs++;
}

void session_remove_job(struct session *session, const struct job *job)
{
    if (session->jobs[0] == job) {
        session->jobs[0] = session->jobs[1];
    }
    session->jobs[1] = NULL;
    session->job_count--;
    if (session->server != NULL) {
        session->server->busy -= session->job_count == 0 && !session->left;
        session->server->jobs--;
    }
}

void session_pool(struct relay *relay, struct session *session)
{
    struct server *server = session->server;
    list_remove(&session->pool);
    if (server == NULL || session->state != SESSION_OPEN) {
        return;
    }
    server_touch(relay, server);
    uint32_t mails_max = server->capabilities_known ? server->capabilities.mails_max : 0;
    if (mails_max > 0 && session->mails >= mails_max) {
        if (session->job_count == 0) {
            session_close(relay, session);
        }
        return;
    }
    if (session->job_count == 0) {
        session->idle_ms = relay->now.steady_ms;
        list_append(&server->idle, &session->pool);
    } else if (session->job_count == 1) {
        list_append(&server->single, &session->pool);
    }
}

/* ---- jobs --------------------------------------------------------------------------------- */

static bool reserve_job(struct relay *relay)
{
    if (relay->job_used < relay->job_room || relay->job_free_count > 0) {
        return true;
    }
    uint32_t room = relay->job_room == 0 ? 64 : relay->job_room * 2;
    struct job **jobs = realloc(relay->jobs, room * sizeof(struct job *));
    if (jobs == NULL) {
        return false;
    }
    relay->jobs = jobs;
    uint32_t *numbers = realloc(relay->job_free, room * sizeof *numbers);
    if (numbers == NULL) {
        return false;
    }
    relay->job_free = numbers;
    relay->job_room = room;
    return true;
}

struct job *job_new(struct relay *relay, uint64_t id, uint32_t count)
{
    if (!reserve_job(relay)) {
        return NULL;
    }
    struct job *job = calloc(1, sizeof *job + count * sizeof job->deliveries[0]);
    if (job == NULL) {
        return NULL;
    }
    job->id = id;
    while (job->id == 0 || (id == 0 && map_get(&relay->jobs_by_id, job->id) != NULL)) {
        job->id = relay->next_job++;
    }
    if (map_put(&relay->jobs_by_id, job->id, job) != ERROR_NONE) {
        free(job);
        return NULL;
    }
    job->number =
        relay->job_free_count > 0 ? relay->job_free[--relay->job_free_count] : relay->job_used++;
    job->server = NO_INDEX;
    relay->jobs[job->number] = job;
    return job;
}

struct job *job_find(const struct relay *relay, uint64_t id)
{
    return map_get(&relay->jobs_by_id, id);
}

void job_free(struct relay *relay, struct job *job)
{
    map_remove(&relay->jobs_by_id, job->id);
    relay->jobs[job->number] = NULL;
    relay->job_free[relay->job_free_count++] = job->number;
    free(job);
}
