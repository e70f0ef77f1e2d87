/* SPDX-License-Identifier: Apache-2.0
 *
 * relay in a world made from a seed: servers that refuse, hang, defer, cut and forget to answer,
 * restarts that reload a journal (sometimes compacted), dying senders, operators, new
 * configurations, shares that are left to another node and taken back: here all mail of a route is
 * a share. After each action the promises are checked:
 *
 *   - a delivery reaches one fate, and never a second one
 *   - a recipient's mail is in order, except past what was deferred beyond patience, in doubt, held
 *   - a server is used only when no better one of its chain is up or recovering
 *   - of a share that rests, or is another's, nothing is sent, and nothing told but facts
 *   - without the lease nothing is sent
 *   - a server in trouble is probed by one session at a time; none gets more sessions than allowed
 *   - in the end, when all servers are well, all that is left is held or dead
 *
 * Run with a number to repeat one seed, or two for a range.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/etrn.h"
#include "relay/notes.h"
#include "world.h"

enum {
    MESSAGES = 400,
    RECIPIENTS = 12,
    DELIVERIES_MAX = 4,
    SESSIONS = 4096,
    JOBS = 65536,
    EVENTS = 4096,
    RECORDS = 65536,
    STEPS = 6000,
};

struct model_delivery {
    uint32_t recipient;
    bool exists, finished, excused; /* excused: deferred beyond patience once, doubted, touched */
    bool redirected, touched;       /* touched: by the operator */
    int64_t deferred_ms;            /* first deferral, or 0 */
    uint32_t job;                   /* in flight as, + 1 */
    unsigned accepted;              /* times a server took it */
    bool doubted;
};

struct model_message {
    bool added;
    uint64_t sequence;
    uint32_t route;
    uint32_t count;
    bool verified;
    int8_t priority;
    struct model_delivery deliveries[DELIVERIES_MAX];
};

struct model_session {
    uint32_t id, server;
    bool used, open, close_asked, old; /* old: of an earlier life of relay */
    uint32_t jobs;
    bool worked;
    bool answered; /* the last dot, by a reply */
};

struct model_job {
    uint64_t id;
    uint32_t session; /* number */
    uint32_t message, count, deliveries[DELIVERIES_MAX];
    bool live, noted, dotted;
    bool left; /* its message is another's, or has come back without it */
};

enum happening { SESSION_ANSWERS, JOB_READY, JOB_ANSWERS, SESSION_ENDS };
struct pending {
    int64_t at_ms;
    enum happening what;
    uint32_t which;
    uint64_t generation;
    uint32_t session; /* id, of session events: slots are used anew */
};

/* Of the share that a route's mail is. */
enum holding { OURS, RESTING, AWAY };

enum record_kind { RECORD_FATE, RECORD_NOTE };
struct record {
    enum record_kind kind;
    uint32_t message, delivery;
    uint16_t note;
    uint8_t payload[160];
    size_t length;
};

static struct simulation {
    struct world world;
    uint64_t seed, random;
    struct model_message messages[MESSAGES];
    uint32_t message_count;
    struct model_session sessions[SESSIONS];
    uint32_t session_count;
    struct model_job jobs[JOBS];
    uint32_t job_count;
    struct pending pending[EVENTS];
    uint32_t pending_count;
    struct record records[RECORDS];
    uint32_t record_count;
    uint8_t globals[16][3][300];
    size_t global_lengths[16][3];
    char keys[16][SPOOL_KEY_MAX + 1];
    uint32_t key_count;
    enum server_state states[WORLD_SERVERS];
    int mood[WORLD_SERVERS]; /* 0 well, 1 refuses, 2 no greeting, 3 defers, 4 mixed, 5 cuts */
    enum holding shares[WORLD_ROUTES];
    bool unleased;
    bool calm;
    uint64_t life; /* raised by a restart: what was pending is void */
    uint32_t fates, bounces, dead, waits;
} sim;

static uint32_t dice(uint32_t sides)
{
    sim.random ^= sim.random >> 12;
    sim.random ^= sim.random << 25;
    sim.random ^= sim.random >> 27;
    return (uint32_t)((sim.random * 0x2545f4914f6cdd1dULL) >> 33) % sides;
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fail_msg("seed %llu at %lld: %s", (unsigned long long)sim.seed,                        \
                     (long long)sim.world.now.steady_ms, #condition);                              \
        }                                                                                          \
    } while (0)

static void later(enum happening what, uint32_t which, uint32_t ms)
{
    CHECK(sim.pending_count < EVENTS);
    sim.pending[sim.pending_count++] = (struct pending){
        sim.world.now.steady_ms + ms, what, which, sim.life,
        what == SESSION_ANSWERS || what == SESSION_ENDS ? sim.sessions[which].id : 0};
}

/* ---- checks and bookkeeping of actions ---------------------------------------------------------
 */

static bool usable(enum server_state state)
{
    return state == SERVER_UP || state == SERVER_RECOVERING;
}

/* The server recovers, and has the one message that it is tried with. */
static bool canary_is_out(uint32_t server)
{
    for (uint32_t i = 0; i < sim.session_count; i++) {
        const struct model_session *session = &sim.sessions[i];
        if (session->used && session->server == server && session->jobs > 0) {
            return sim.states[server] == SERVER_RECOVERING;
        }
    }
    return false;
}

static void check_head_first(const struct model_message *message, uint32_t which, uint32_t server)
{
    if (message->deliveries[which].redirected || message->deliveries[which].doubted) {
        return;
    }
    const struct route_config *route = &sim.world.config.routes[message->route];
    for (uint32_t i = 0; i < route->chain_length; i++) {
        if (route->chain[i] == server) {
            return;
        }
        CHECK(!usable(sim.states[route->chain[i]]) || canary_is_out(route->chain[i]));
    }
    CHECK(!"a server outside the chain");
}

/* Before the dot; or when it is given to a session, where an earlier one may be under way. */
static void check_order(const struct model_message *message, uint32_t which, uint32_t slot,
                        bool at_dot)
{
    const struct model_delivery *mine = &message->deliveries[which];
    for (uint32_t i = 0; i < sim.message_count; i++) {
        const struct model_message *other = &sim.messages[i];
        for (uint32_t j = 0; j < other->count; j++) {
            const struct model_delivery *theirs = &other->deliveries[j];
            bool same = theirs->recipient == mine->recipient && other->route == message->route;
            if (!same || theirs == mine || theirs->finished || theirs->excused || mine->excused) {
                continue;
            }
            const struct model_job *job = theirs->job == 0 ? NULL : &sim.jobs[theirs->job - 1];
            if (job != NULL && !theirs->redirected && !mine->redirected) {
                CHECK(at_dot ? !job->dotted
                             : job->session == slot || sim.sessions[job->session].close_asked);
            }
            bool earlier = other->sequence < message->sequence || (other == message && j < which);
            bool patience_over =
                theirs->deferred_ms != 0 && sim.world.now.steady_ms - theirs->deferred_ms >= 30000;
            CHECK(!earlier || patience_over || (!at_dot && job != NULL));
        }
    }
}

static uint32_t find_session(uint32_t id)
{
    for (uint32_t i = 0; i < sim.session_count; i++) {
        if (sim.sessions[i].used && sim.sessions[i].id == id) {
            return i;
        }
    }
    return SESSIONS;
}

static void on_connect(const struct relay_action *action)
{
    uint32_t open = 0, closing = 0, probing = 0;
    for (uint32_t i = 0; i < sim.session_count; i++) {
        const struct model_session *session = &sim.sessions[i];
        if (session->used && !session->old && session->server == action->server) {
            open++;
            closing += session->close_asked;
            probing += !session->open && !session->close_asked;
        }
    }
    CHECK(usable(sim.states[action->server]) || probing == 0);
    /* A probe may come on top of sessions that are still on their way out. */
    CHECK(open - closing < sim.world.servers[action->server].connections);
    CHECK(closing > 0 || open < sim.world.servers[action->server].connections);
    CHECK(find_session(action->session) == SESSIONS);
    uint32_t slot = 0;
    while (slot < sim.session_count && sim.sessions[slot].used) {
        slot++;
    }
    CHECK(slot < SESSIONS);
    sim.session_count += slot == sim.session_count;
    sim.sessions[slot] =
        (struct model_session){.id = action->session, .server = action->server, .used = true};
    later(SESSION_ANSWERS, slot, 1 + dice(sim.mood[action->server] == 2 ? 5000 : 20));
}

static void on_deliver(const struct relay_action *action)
{
    uint32_t slot = find_session(action->session);
    CHECK(slot < SESSIONS);
    struct model_session *session = &sim.sessions[slot];
    CHECK(session->open && !session->close_asked && session->server == action->server);
    CHECK(++session->jobs <= 2);
    CHECK(usable(sim.states[action->server]));
    CHECK(sim.job_count < JOBS && action->delivery_count <= DELIVERIES_MAX);
    struct model_message *message = &sim.messages[action->handle.index];
    struct model_job *job = &sim.jobs[sim.job_count];
    CHECK(sim.shares[message->route] == OURS && !sim.unleased);
    *job = (struct model_job){.id = action->job,
                              .session = slot,
                              .message = action->handle.index,
                              .count = action->delivery_count,
                              .live = true};
    for (uint32_t i = 0; i < job->count; i++) {
        uint32_t which = job->deliveries[i] = action->deliveries[i];
        CHECK(which < message->count && !message->deliveries[which].finished &&
              message->deliveries[which].job == 0);
        check_head_first(message, which, action->server);
        check_order(message, which, slot, false);
    }
    for (uint32_t i = 0; i < job->count; i++) {
        message->deliveries[job->deliveries[i]].job = sim.job_count + 1;
    }
    later(JOB_READY, sim.job_count++, 1 + dice(10));
}

static void finish(uint32_t handle, uint32_t which)
{
    struct model_delivery *delivery = &sim.messages[handle].deliveries[which];
    CHECK(delivery->exists && !delivery->finished);
    delivery->finished = true;
    CHECK(sim.record_count < RECORDS);
    sim.records[sim.record_count++] = (struct record){RECORD_FATE, handle, which, 0, {0}, 0};
}

static void record_note(uint32_t handle, uint32_t which, uint16_t kind, struct slice payload)
{
    CHECK(sim.record_count < RECORDS && payload.length <= sizeof sim.records[0].payload);
    struct record *record = &sim.records[sim.record_count++];
    *record = (struct record){RECORD_NOTE, handle, which, kind, {0}, payload.length};
    memcpy(record->payload, payload.data, payload.length);
}

static void record_global(struct slice key, struct slice payload)
{
    uint32_t i = 0;
    while (i < sim.key_count && !slice_equal(slice_from_text(sim.keys[i]), key)) {
        i++;
    }
    CHECK(i < 16 && payload.length <= sizeof sim.globals[0][0]);
    snprintf(sim.keys[i], sizeof sim.keys[i], "%.*s", SLICE_PRINT(key));
    sim.key_count += i == sim.key_count;
    sim.global_lengths[i][0] = payload.length;
    if (payload.length > 0) {
        memcpy(sim.globals[i][0], payload.data, payload.length);
    }
}

static void on_event(const struct relay_action *action)
{
    struct model_delivery *delivery = NULL;
    if (action->handle.index != UINT32_MAX) {
        delivery = &sim.messages[action->handle.index].deliveries[action->delivery];
    }
    switch (action->event) {
    case RELAY_EVENT_SERVER:
        CHECK(action->old_state == sim.states[action->server]);
        sim.states[action->server] = action->new_state;
        break;
    case RELAY_EVENT_DEFERRED:
        if (delivery->deferred_ms == 0) {
            delivery->deferred_ms = sim.world.now.steady_ms;
        }
        break;
    case RELAY_EVENT_IN_DOUBT:
        delivery->doubted = true;
        delivery->excused = true;
        break;
    case RELAY_EVENT_HELD:
    case RELAY_EVENT_DEAD:
    case RELAY_EVENT_RELEASED:
    case RELAY_EVENT_REDIRECTED:
        delivery->excused = true;
        break;
    default:
        break;
    }
}

static struct model_delivery *delivery_of(const struct relay_action *action, uint32_t which)
{
    return &sim.messages[action->handle.index].deliveries[action->deliveries[which]];
}

static void take(void)
{
    struct relay_action action;
    bool made;
    while (relay_next(sim.world.relay, &action)) {
        switch (action.kind) {
        case RELAY_CONNECT:
            on_connect(&action);
            break;
        case RELAY_KNOCK:
            CHECK(find_session(action.session) < SESSIONS);
            CHECK(!sim.sessions[find_session(action.session)].open);
            break;
        case RELAY_CLOSE:
            if (find_session(action.session) < SESSIONS) {
                struct model_session *session = &sim.sessions[find_session(action.session)];
                if (!session->close_asked && session->jobs == 0) {
                    later(SESSION_ENDS, find_session(action.session), 1 + dice(5));
                }
                session->close_asked = true;
            }
            break;
        case RELAY_DELIVER:
            on_deliver(&action);
            break;
        case RELAY_FATE:
            finish(action.handle.index, action.delivery);
            sim.fates++;
            break;
        case RELAY_BOUNCE:
            made = dice(8) != 0;
            for (uint32_t i = 0; i < action.delivery_count; i++) {
                CHECK(sim.messages[action.handle.index].verified);
                if (made) {
                    finish(action.handle.index, action.deliveries[i]);
                    sim.bounces++;
                } else {
                    delivery_of(&action, i)->excused = true; /* answered: it blocks nobody */
                }
            }
            relay_bounced(sim.world.relay, &action, made);
            break;
        case RELAY_RESOLVE:
            CHECK(false); /* no route of this world follows DNS */
            break;
        case RELAY_NOTICE:
        case RELAY_DELAYED:
            CHECK(sim.messages[action.handle.index].verified);
            break;
        case RELAY_NOTE:
            record_note(action.handle.index, action.delivery, action.note, action.payload);
            break;
        case RELAY_GLOBAL:
            record_global(action.key, action.payload);
            break;
        case RELAY_EVENT:
            on_event(&action);
            break;
        }
    }
}

/* ---- the servers
 * --------------------------------------------------------------------------------- */

static struct relay_reply reply_of(enum relay_stage stage, enum relay_how how, uint16_t code)
{
    return (struct relay_reply){
        .stage = stage, .how = how, .code = code, .text = SLICE_LITERAL("so it is")};
}

static void session_over(uint32_t slot, enum relay_stage stage, enum relay_how how, uint16_t code)
{
    struct model_session *session = &sim.sessions[slot];
    struct relay_reply reply = reply_of(stage, how, code);
    uint32_t id = session->id;
    session->used = false;
    relay_session_ended(sim.world.relay, id, &reply, sim.world.now);
    take();
}

static void session_answers(uint32_t slot)
{
    static const struct relay_capabilities capabilities = {.flags = RELAY_CAP_DSN};
    struct model_session *session = &sim.sessions[slot];
    if (!session->used || session->open) {
        return;
    }
    int mood = sim.mood[session->server];
    if (session->close_asked) {
        session_over(slot, RELAY_AT_CONNECT, RELAY_LOCAL, 0);
    } else if (mood == 1) {
        session_over(slot, RELAY_AT_CONNECT, dice(2) == 0 ? RELAY_LOST : RELAY_TIMEOUT, 0);
    } else if (mood == 2) {
        session_over(slot, dice(2) == 0 ? RELAY_AT_GREETING : RELAY_AT_HELLO,
                     dice(2) == 0 ? RELAY_REPLY : RELAY_TIMEOUT, dice(2) == 0 ? 421 : 554);
    } else if (mood == 4 && dice(10) == 0) {
        session_over(slot, RELAY_AT_GREETING, RELAY_REPLY, 421);
    } else {
        session->open = true;
        relay_session_opened(sim.world.relay, session->id, &capabilities, sim.world.now);
        take();
    }
}

static void report(struct model_job *job, const struct relay_delivery_result *results, bool reused,
                   bool breaks)
{
    uint32_t slot = job->session;
    struct model_session *session = &sim.sessions[slot];
    uint32_t id = session->id;
    job->live = false;
    for (uint32_t i = 0; i < job->count && !job->left; i++) {
        sim.messages[job->message].deliveries[job->deliveries[i]].job = 0;
    }
    session->jobs--;
    session->worked = true;
    enum relay_stage stage = results[0].reply.stage;
    relay_result(sim.world.relay, job->id, id, reused, results, job->count, sim.world.now);
    take();
    relay_result_durable(sim.world.relay, job->id, sim.world.now);
    if (!breaks) {
        if (session->close_asked && session->jobs == 0) {
            session_over(slot, RELAY_AT_IDLE, RELAY_LOCAL, 0);
        }
        return;
    }
    for (uint32_t i = 0; i < sim.job_count && session->jobs > 0; i++) {
        struct model_job *other = &sim.jobs[i];
        if (other->live && other->session == slot) {
            struct relay_delivery_result not_tried[DELIVERIES_MAX];
            for (uint32_t j = 0; j < other->count; j++) {
                not_tried[j] = (struct relay_delivery_result){other->deliveries[j], RELAY_NOT_TRIED,
                                                              reply_of(stage, RELAY_LOST, 0)};
                if (!other->left) {
                    sim.messages[other->message].deliveries[other->deliveries[j]].job = 0;
                }
            }
            other->live = false;
            session->jobs--;
            relay_result(sim.world.relay, other->id, id, true, not_tried, other->count,
                         sim.world.now);
            take();
        }
    }
    session_over(slot, stage, RELAY_LOST, 0);
}

static bool first_on_session(const struct model_job *job)
{
    for (const struct model_job *other = sim.jobs; other < job; other++) {
        if (other->live && other->session == job->session) {
            return false;
        }
    }
    return true;
}

static void hand_back(struct model_job *job, enum relay_verdict verdict)
{
    struct relay_delivery_result results[DELIVERIES_MAX];
    for (uint32_t i = 0; i < job->count; i++) {
        results[i] = (struct relay_delivery_result){
            job->deliveries[i], verdict,
            verdict == RELAY_REFUSED ? reply_of(RELAY_AT_RECIPIENT, RELAY_REPLY, 450)
                                     : reply_of(RELAY_AT_IDLE, RELAY_LOCAL, 0)};
    }
    report(job, results, sim.sessions[job->session].worked, false);
}

/* Its session is being closed; it may have been refused before that was known. */
static void give_back(struct model_job *job)
{
    struct model_session *session = &sim.sessions[job->session];
    bool refused = !sim.calm && session->answered && first_on_session(job) && dice(3) == 0;
    CHECK(session->close_asked);
    session->answered = false;
    hand_back(job, refused ? RELAY_REFUSED : RELAY_NOT_TRIED);
}

static enum error note(struct model_job *job)
{
    uint16_t kind;
    struct slice payload;
    struct spool_handle handle;
    const uint32_t *deliveries;
    uint32_t count;
    enum error error = relay_attempt_note(sim.world.relay, job->id, sim.world.now, &kind, &payload,
                                          &handle, &deliveries, &count);
    if (error != ERROR_NONE) {
        return error;
    }
    CHECK(count == job->count && handle.index == job->message);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(deliveries[i] == job->deliveries[i]);
        record_note(handle.index, deliveries[i], kind, payload);
    }
    job->noted = true;
    return ERROR_NONE;
}

static void job_ready(uint32_t which)
{
    struct model_job *job = &sim.jobs[which];
    if (!job->live) {
        return;
    }
    bool first = first_on_session(job);
    if (job->left) { /* edge-out gives back what has not been let go when its session is closed */
        CHECK(job->noted || note(job) == ERROR_MISSING);
        give_back(job);
        return;
    }
    if (!job->noted) {
        enum error error = note(job);
        CHECK(error != ERROR_AGAIN || !first || sim.unleased);
        CHECK(error != ERROR_NONE || !sim.unleased);
        sim.waits += error == ERROR_AGAIN;
        if (error != ERROR_NONE && error != ERROR_AGAIN) {
            give_back(job);
            return;
        }
    }
    if (!first || sim.unleased) {
        later(JOB_READY, which, sim.unleased ? 100 : 1);
        return;
    }
    for (uint32_t i = 0; i < job->count; i++) {
        check_order(&sim.messages[job->message], job->deliveries[i], job->session, true);
    }
    job->dotted = true;
    later(JOB_ANSWERS, which, 1 + dice(10));
}

static void answer_each(struct model_job *job, struct relay_delivery_result *results, int mood)
{
    static const uint16_t refusals[] = {250, 250, 250, 450, 452, 550, 552, 421, 530, 451};
    for (uint32_t i = 0; i < job->count; i++) {
        uint16_t code = mood == 0 || sim.calm ? 250
                        : mood == 3           ? 451
                        : mood == 4           ? refusals[dice(10)]
                                              : 250;
        enum relay_stage stage = dice(2) == 0 ? RELAY_AT_RECIPIENT : RELAY_AT_DOT;
        if (code == 421 && i > 0) {
            code = 450;
        }
        results[i] = (struct relay_delivery_result){
            job->deliveries[i], code == 250 ? RELAY_ACCEPTED : RELAY_REFUSED,
            reply_of(code == 250 ? RELAY_AT_DOT : stage, RELAY_REPLY, code)};
        sim.messages[job->message].deliveries[job->deliveries[i]].accepted += code == 250;
    }
}

static void job_answers(uint32_t which)
{
    struct model_job *job = &sim.jobs[which];
    if (!job->live) {
        return;
    }
    struct model_session *session = &sim.sessions[job->session];
    struct relay_delivery_result results[DELIVERIES_MAX];
    int mood = sim.calm ? 0 : sim.mood[session->server];
    bool broken =
        mood == 1 || mood == 2 || (mood == 5 && dice(2) == 0) || (mood == 4 && dice(12) == 0);
    if (!broken) {
        answer_each(job, results, mood);
        bool breaks = false;
        for (uint32_t i = 0; i < job->count; i++) {
            breaks |= results[i].reply.code == 421;
        }
        session->answered = true; /* so that what is behind it has been said */
        report(job, results, session->worked, breaks);
        return;
    }
    bool doubt = dice(3) == 0;
    for (uint32_t i = 0; i < job->count; i++) {
        sim.messages[job->message].deliveries[job->deliveries[i]].accepted += doubt && dice(2) == 0;
        results[i] = (struct relay_delivery_result){
            job->deliveries[i], doubt ? RELAY_IN_DOUBT : RELAY_CUT,
            reply_of(doubt ? RELAY_AT_DOT : RELAY_AT_CONTENT, RELAY_LOST, 0)};
    }
    report(job, results, session->worked, true);
}

/* ---- time --------------------------------------------------------------------------------------
 */

static void happen(struct pending pending)
{
    bool of_session = pending.what == SESSION_ANSWERS || pending.what == SESSION_ENDS;
    if (pending.generation != sim.life ||
        (of_session && sim.sessions[pending.which].id != pending.session)) {
        return;
    }
    switch (pending.what) {
    case SESSION_ANSWERS:
        session_answers(pending.which);
        break;
    case JOB_READY:
        job_ready(pending.which);
        break;
    case JOB_ANSWERS:
        job_answers(pending.which);
        break;
    case SESSION_ENDS:
        if (sim.sessions[pending.which].used && sim.sessions[pending.which].jobs == 0) {
            session_over(pending.which, RELAY_AT_IDLE, RELAY_LOCAL, 0);
        }
        break;
    }
}

/* To the next thing that happens, at most `most` ms on. False: nothing will before that. */
static bool step(int64_t most)
{
    int64_t end = sim.world.now.steady_ms + most;
    uint32_t next = EVENTS;
    int64_t at = relay_deadline(sim.world.relay);
    for (uint32_t i = 0; i < sim.pending_count; i++) {
        if (sim.pending[i].at_ms <= at) {
            at = sim.pending[i].at_ms;
            next = i;
        }
    }
    int64_t to = at < end ? at : end;
    if (to > sim.world.now.steady_ms) {
        sim.world.now.wall_ms += to - sim.world.now.steady_ms;
        sim.world.now.steady_ms = to;
    }
    if (at > end) {
        return false;
    }
    if (next < EVENTS) {
        struct pending pending = sim.pending[next];
        sim.pending[next] = sim.pending[--sim.pending_count];
        happen(pending);
    } else {
        relay_tick(sim.world.relay, sim.world.now);
        take();
    }
    return true;
}

/* ---- what is done to it
 * -------------------------------------------------------------------------- */

static void build(uint32_t handle, struct spool_message *message,
                  struct spool_recipient recipients[DELIVERIES_MAX],
                  char addresses[DELIVERIES_MAX][40])
{
    static const char *const domains[] = {"one.example", "two.example", "far.example",
                                          "x.wild.example"};
    const struct model_message *model = &sim.messages[handle];
    for (uint32_t i = 0; i < model->count; i++) {
        snprintf(addresses[i], 40, "r%u@%s", model->deliveries[i].recipient, domains[model->route]);
        recipients[i] = (struct spool_recipient){.address = slice_from_text(addresses[i])};
    }
    *message = (struct spool_message){.sequence = model->sequence,
                                      .received_ms = sim.world.now.wall_ms,
                                      .header_length = 10,
                                      .body_length = 1000,
                                      .flags = model->verified ? SPOOL_SENDER_VERIFIED : 0,
                                      .priority = model->priority,
                                      .sender = SLICE_LITERAL("s@one.example"),
                                      .recipients = recipients,
                                      .recipient_count = model->count};
    bool ours = model->route == 2;
    CHECK(ip_from_text(ours ? SLICE_LITERAL("198.51.100.1") : SLICE_LITERAL("203.0.113.1"),
                       &message->origin.client.address));
}

static void give(uint32_t handle)
{
    struct spool_recipient recipients[DELIVERIES_MAX];
    char addresses[DELIVERIES_MAX][40];
    struct spool_message message;
    build(handle, &message, recipients, addresses);
    CHECK(relay_add(sim.world.relay, (struct spool_handle){handle}, &message, sim.world.now) ==
          ERROR_NONE);
    take();
}

/* At rest before anything can be sent. */
static void give_resting(uint32_t handle)
{
    relay_together_begin(sim.world.relay, sim.world.now);
    give(handle);
    (void)relay_rest(sim.world.relay, (struct spool_handle){handle}, true, sim.world.now);
    relay_together_end(sim.world.relay, sim.world.now);
    take();
}

static void accept_one(void)
{
    if (sim.message_count == MESSAGES) {
        return;
    }
    struct model_message *message = &sim.messages[sim.message_count];
    *message = (struct model_message){.added = true,
                                      .sequence = ++sim.world.sequence,
                                      .route = dice(4),
                                      .count = 1 + (dice(3) == 0 ? dice(DELIVERIES_MAX) : 0)};
    message->verified = message->route == 2;
    static const uint32_t rarely[3] = {2, 60, UINT32_MAX}; /* never, as good as */
    message->priority = dice(rarely[sim.seed / 3 % 3]) == 0 ? (int8_t)((int)dice(19) - 9) : 0;
    for (uint32_t i = 0; i < message->count; i++) {
        message->deliveries[i] = (struct model_delivery){
            .recipient = dice(sim.seed % 3 == 0 ? 2 : RECIPIENTS), .exists = true};
    }
    uint32_t handle = sim.message_count++;
    if (sim.shares[message->route] == OURS) {
        give(handle);
    } else if (sim.shares[message->route] == RESTING) {
        give_resting(handle);
    }
}

static void compact(uint32_t handle)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < sim.record_count; i++) {
        if (sim.records[i].message != handle || sim.records[i].kind == RECORD_FATE) {
            sim.records[kept++] = sim.records[i];
        }
    }
    sim.record_count = kept;
}

static void put_described(void *context, uint32_t delivery, uint16_t kind, struct slice payload)
{
    record_note(*(const uint32_t *)context, delivery, kind, payload);
}

static void load_record(const struct record *record)
{
    struct spool_handle handle = {record->message};
    if (record->kind == RECORD_FATE) {
        relay_load_fate(sim.world.relay, handle, record->delivery, SPOOL_DELIVERED);
    } else {
        relay_load_note(sim.world.relay, handle, record->delivery, record->note,
                        slice_make(record->payload, record->length), sim.world.now);
    }
}

/* ---- shares ------------------------------------------------------------------------------------
 */

static bool is_of(uint32_t handle, uint32_t route)
{
    return sim.messages[handle].route == route;
}

static void rest_share(uint32_t route, bool rests)
{
    relay_together_begin(sim.world.relay, sim.world.now);
    for (uint32_t i = 0; i < sim.message_count; i++) {
        if (is_of(i, route)) {
            bool told = relay_rest(sim.world.relay, (struct spool_handle){i}, rests, sim.world.now);
            CHECK(!told || relay_in_flight(sim.world.relay, (struct spool_handle){i}));
        }
    }
    sim.shares[route] = rests ? RESTING : OURS;
    relay_together_end(sim.world.relay, sim.world.now);
    take();
}

static bool share_in_flight(uint32_t route)
{
    for (uint32_t i = 0; i < sim.message_count; i++) {
        if (is_of(i, route) && relay_in_flight(sim.world.relay, (struct spool_handle){i})) {
            return true;
        }
    }
    return false;
}

/* What is under way is withdrawn: a result that is no fact is lost, and the next owner finds an
 * attempt without one. */
static void leave_share(uint32_t route)
{
    for (uint32_t i = 0; i < sim.job_count; i++) {
        struct model_job *job = &sim.jobs[i];
        if (job->live && is_of(job->message, route)) {
            job->left = true;
            for (uint32_t j = 0; j < job->count; j++) {
                struct model_delivery *delivery =
                    &sim.messages[job->message].deliveries[job->deliveries[j]];
                delivery->job = 0;
                delivery->doubted |= job->noted;
                delivery->excused |= job->noted;
            }
        }
    }
    uint32_t before = sim.record_count;
    for (uint32_t i = 0; i < sim.message_count; i++) {
        if (is_of(i, route)) {
            relay_leave(sim.world.relay, (struct spool_handle){i}, sim.world.now);
            take();
            CHECK(relay_delivery_count(sim.world.relay, (struct spool_handle){i}) == 0);
        }
    }
    CHECK(sim.record_count == before);
    sim.shares[route] = AWAY;
}

/* R2: what came with an attempt as the last that is known of it is not sent at once. */
static void check_doubts(uint32_t route)
{
    for (uint32_t i = 0; i < sim.message_count; i++) {
        for (uint32_t j = 0; is_of(i, route) && j < sim.messages[i].count; j++) {
            uint16_t last = 0;
            for (uint32_t k = 0; k < sim.record_count; k++) {
                const struct record *record = &sim.records[k];
                bool same =
                    record->message == i && record->kind == RECORD_NOTE && record->delivery == j;
                last = same ? record->note : last;
            }
            enum delivery_state state = world_delivery(&sim.world, i, j);
            CHECK(last != NOTE_ATTEMPT || state == DELIVERY_FINISHED);
        }
    }
}

/* In order, a few messages at a time, with their fates and notes; what is loaded may go at once. */
static void take_share(uint32_t route)
{
    sim.shares[route] = OURS;
    for (uint32_t i = 0; i < sim.message_count;) {
        relay_together_begin(sim.world.relay, sim.world.now);
        uint32_t end = i + 1 + dice(5);
        for (; i < sim.message_count && i < end; i++) {
            bool unfinished = false;
            for (uint32_t j = 0; j < sim.messages[i].count; j++) {
                unfinished |= !sim.messages[i].deliveries[j].finished;
                sim.messages[i].deliveries[j].excused |=
                    sim.messages[i].route == route &&
                    sim.messages[i].deliveries[j].deferred_ms != 0;
            }
            if (!unfinished || !is_of(i, route)) {
                continue;
            }
            give(i);
            for (uint32_t j = 0; j < sim.record_count; j++) {
                if (sim.records[j].message == i) {
                    load_record(&sim.records[j]);
                }
            }
        }
        relay_together_end(sim.world.relay, sim.world.now);
        take();
    }
    check_doubts(route);
}

static void move_share(void)
{
    uint32_t route = dice(WORLD_ROUTES);
    if (sim.shares[route] == AWAY) {
        take_share(route);
    } else if (sim.shares[route] == OURS) {
        rest_share(route, true);
        if (dice(4) == 0) {
            leave_share(route); /* its lease is lost: nothing is waited for */
        }
    } else if (dice(4) == 0) {
        rest_share(route, false);
    } else if (!share_in_flight(route) || dice(4) == 0) {
        leave_share(route);
    }
}

/* What the journal holds becomes a new relay. The sender process has died too, or still works. */
static void restart(bool sender_lives)
{
    relay_free(sim.world.relay);
    sim.world.now.wall_ms += dice(3) == 0 ? 86400000 : 0; /* and somebody set the clock */
    sim.world.relay = relay_new(&sim.world.config, sim.random | 1, sim.world.now);
    for (uint32_t i = 0; i < WORLD_SERVERS; i++) {
        sim.states[i] = SERVER_SUSPECT;
    }
    for (uint32_t i = 0; i < sim.message_count; i++) {
        bool unfinished = false;
        for (uint32_t j = 0; j < sim.messages[i].count; j++) {
            unfinished |= !sim.messages[i].deliveries[j].finished;
        }
        uint32_t route = sim.messages[i].route;
        sim.shares[route] = sim.shares[route] == AWAY ? AWAY : OURS;
        if (unfinished && sim.shares[route] == OURS) {
            give(i);
        }
    }
    for (uint32_t i = 0; i < sim.record_count; i++) {
        load_record(&sim.records[i]);
    }
    for (uint32_t i = 0; i < sim.key_count; i++) {
        relay_load_global(sim.world.relay, slice_from_text(sim.keys[i]),
                          slice_make(sim.globals[i][0], sim.global_lengths[i][0]), sim.world.now);
    }
    for (uint32_t i = 0; i < WORLD_SERVERS; i++) {
        sim.states[i] = world_state(&sim.world, i);
    }
    for (uint32_t i = 0; i < sim.job_count; i++) {
        struct model_job *job = &sim.jobs[i];
        if (!job->live) {
            continue;
        }
        if (sender_lives) {
            relay_resume(sim.world.relay, sim.sessions[job->session].id, job->id,
                         (struct spool_handle){job->message}, job->deliveries, job->count,
                         sim.sessions[job->session].server, sim.world.now);
            take();
            if (!job->dotted) {
                hand_back(job, RELAY_NOT_TRIED); /* only what has been allowed goes on */
            }
        } else {
            job->live = false;
            for (uint32_t j = 0; j < job->count; j++) {
                struct model_delivery *delivery =
                    &sim.messages[job->message].deliveries[job->deliveries[j]];
                delivery->job = 0;
                delivery->excused |= job->noted;
            }
        }
    }
    if (!sender_lives) {
        sim.life++;
        sim.pending_count = 0;
        for (uint32_t i = 0; i < sim.session_count; i++) {
            sim.sessions[i].used = false;
        }
    } else {
        for (uint32_t i = 0; i < sim.session_count; i++) { /* idle ones are closed */
            sim.sessions[i].used &= sim.sessions[i].jobs > 0;
            sim.sessions[i].close_asked = true;
            sim.sessions[i].old = true;
        }
    }
    /* Patience begun in the old life is excused in the check: its remainder depends on the clock.
     */
    for (uint32_t i = 0; i < sim.message_count; i++) {
        for (uint32_t j = 0; j < sim.messages[i].count; j++) {
            struct model_delivery *delivery = &sim.messages[i].deliveries[j];
            delivery->excused |= delivery->deferred_ms != 0;
        }
    }
    sim.unleased = false; /* a new one, at a start */
    relay_start(sim.world.relay, sim.world.now);
    take();
}

static void sender_dies(void)
{
    uint32_t index = dice(2);
    for (uint32_t i = 0; i < sim.job_count; i++) {
        struct model_job *job = &sim.jobs[i];
        if (job->live && sim.sessions[job->session].id % 2 == index) {
            job->live = false;
            for (uint32_t j = 0; j < job->count; j++) {
                sim.messages[job->message].deliveries[job->deliveries[j]].job = 0;
            }
        }
    }
    for (uint32_t i = 0; i < sim.session_count; i++) {
        sim.sessions[i].used &= sim.sessions[i].id % 2 != index;
    }
    /* What was pending of those sessions is void; slots may be used anew. */
    uint32_t kept = 0;
    for (uint32_t i = 0; i < sim.pending_count; i++) {
        struct pending *pending = &sim.pending[i];
        bool of_session = pending->what == SESSION_ANSWERS || pending->what == SESSION_ENDS;
        if (!of_session || sim.sessions[pending->which].used) {
            sim.pending[kept++] = *pending;
        }
    }
    sim.pending_count = kept;
    relay_sessions_lost(sim.world.relay, index, 2, sim.world.now);
    take();
}

static enum error for_model(uint32_t handle, uint32_t command)
{
    struct spool_handle h = {handle};
    struct relay *relay = sim.world.relay;
    struct relay_time now = sim.world.now;
    uint32_t which = dice(2) == 0 ? SPOOL_ALL_DELIVERIES : 0;
    switch (command) {
    case 0:
        return relay_hold(relay, h, which, SLICE_EMPTY, now);
    case 1:
        return relay_release(relay, h, which, now);
    case 2:
        return relay_retry(relay, h, which, now);
    case 3:
        return relay_discard(relay, h, 0, SLICE_EMPTY, now);
    case 4:
        return relay_bounce(relay, h, which, false, now);
    default:
        return relay_redirect(relay, h, which,
                              dice(2) == 0 ? SLICE_LITERAL("m2") : SLICE_LITERAL("z@two.example"),
                              now);
    }
}

static void operate(void)
{
    if (sim.message_count == 0) {
        return;
    }
    uint32_t handle = dice(sim.message_count), command = dice(6);
    struct model_message *message = &sim.messages[handle];
    for (uint32_t i = 0; i < message->count; i++) { /* his word goes above order */
        message->deliveries[i].excused = true;
        message->deliveries[i].touched = true;
        message->deliveries[i].redirected |= command == 5;
        message->deliveries[i].doubted |= command == 5;
    }
    (void)for_model(handle, command);
    take();
    uint32_t server = dice(WORLD_SERVERS);
    if (dice(10) == 0) {
        CHECK(relay_server_disable(sim.world.relay, server, sim.world.now) == ERROR_NONE);
        take();
    } else if (dice(4) == 0) {
        CHECK(relay_server_enable(sim.world.relay, server, sim.world.now) == ERROR_NONE);
        take();
    }
}

/* What ETRN is told, from the outside: messages of the route, and those only held. */
static void count_waiting(uint32_t route, uint64_t *ret_waiting, uint64_t *ret_held)
{
    *ret_waiting = *ret_held = 0;
    for (uint32_t i = 0; i < sim.message_count; i++) {
        bool waits = false, held = false;
        uint32_t count = relay_delivery_count(sim.world.relay, (struct spool_handle){i});
        for (uint32_t j = 0; j < count; j++) {
            struct relay_delivery_view view;
            if (!relay_delivery(sim.world.relay, (struct spool_handle){i}, j, &view) ||
                view.route != route || view.redirect_to.length > 0 ||
                view.state == DELIVERY_FINISHED || view.state == DELIVERY_DEAD) {
                continue;
            }
            held = held || view.state == DELIVERY_HELD;
            waits = waits || view.state != DELIVERY_HELD;
        }
        *ret_waiting += waits;
        *ret_held += held && !waits;
    }
}

static void ask_for_mail(void)
{
    static const char *const domains[] = {"one.example", "two.example", NULL, "x.wild.example"};
    uint64_t waiting, held;
    uint32_t route = dice(WORLD_ROUTES);
    if (domains[route] == NULL) {
        return;
    }
    count_waiting(route, &waiting, &held);
    struct relay_etrn etrn =
        relay_etrn(sim.world.relay, slice_from_text(domains[route]), false,
                   &sim.world.addresses[sim.world.chains[route][0]].literal, sim.world.now);
    take();
    CHECK(etrn.outcome != RELAY_ETRN_DENIED && etrn.outcome != RELAY_ETRN_UNCOUNTED);
    if (etrn.outcome != RELAY_ETRN_STARTED) {
        CHECK(etrn.messages == (waiting > 0 ? waiting : held));
        CHECK((etrn.outcome == RELAY_ETRN_NOTHING) == (waiting + held == 0));
    }
}

static enum error read_envelope(void *context, struct spool_handle handle, struct arena *arena,
                                struct spool_message *ret_message)
{
    (void)context;
    struct spool_recipient *recipients = arena_allocate(arena, DELIVERIES_MAX * sizeof *recipients);
    char(*addresses)[40] = arena_allocate(arena, DELIVERIES_MAX * sizeof *addresses);
    build(handle.index, ret_message, recipients, addresses);
    return ERROR_NONE;
}

static void reconfigure(void)
{
    struct relay_envelopes envelopes = {NULL, read_envelope};
    /* m1 and m2 change places at the head of the first chain. */
    uint32_t head = sim.world.chains[0][0];
    sim.world.chains[0][0] = sim.world.chains[0][1];
    sim.world.chains[0][1] = head;
    sim.world.routes[2].any_user = !sim.world.routes[2].any_user; /* relays are asked anew */
    CHECK(relay_reconfigure(sim.world.relay, &sim.world.config, &envelopes, sim.world.now) ==
          ERROR_NONE);
    take();
}

static void lease(bool is_held)
{
    sim.unleased = !is_held;
    relay_lease(sim.world.relay, is_held, sim.world.now);
    take();
}

static void disturb(void)
{
    switch (dice(40)) {
    case 0:
    case 1:
    case 2:
        sim.mood[dice(WORLD_SERVERS)] = (int)dice(6);
        break;
    case 3:
    case 4:
        sim.mood[dice(WORLD_SERVERS)] = 0;
        break;
    case 5:
        operate();
        break;
    case 6:
        restart(dice(2) == 0);
        break;
    case 7:
        sender_dies();
        break;
    case 8:
        reconfigure();
        break;
    case 9:
        if (sim.message_count > 0) {
            uint32_t handle = dice(sim.message_count);
            if (sim.shares[sim.messages[handle].route] != AWAY) {
                compact(handle);
                relay_describe(sim.world.relay, (struct spool_handle){handle}, put_described,
                               &handle);
            }
        }
        break;
    case 10:
        ask_for_mail();
        relay_contact(sim.world.relay, &sim.world.addresses[dice(WORLD_SERVERS)].literal,
                      sim.world.now);
        take();
        break;
    case 11:
    case 12:
        move_share();
        break;
    case 13:
        lease(false);
        break;
    default:
        accept_one();
        break;
    }
}

/* ---- the end
 * ------------------------------------------------------------------------------------- */

/* R5: a refusal is held that no operator has touched; it is tried once more by itself. */
static bool is_held_by_doubt_of_the_server(uint32_t message, uint32_t which)
{
    struct relay_delivery_view view = {0};
    (void)relay_delivery(sim.world.relay, (struct spool_handle){message}, which, &view);
    return world_delivery(&sim.world, message, which) == DELIVERY_HELD && view.reason.length > 0 &&
           view.reason.data[0] == '5' && !sim.messages[message].deliveries[which].touched;
}

static bool all_has_come_to_rest(void)
{
    struct relay_totals totals;
    relay_totals(sim.world.relay, &totals);
    bool rest = totals.deliveries == totals.held;
    for (uint32_t i = 0; rest && i < sim.message_count; i++) {
        for (uint32_t j = 0; j < sim.messages[i].count; j++) {
            rest = rest && !is_held_by_doubt_of_the_server(i, j);
        }
    }
    return rest;
}

static void check_end(void)
{
    struct relay_totals totals, counted = {0};
    relay_totals(sim.world.relay, &totals);
    for (uint32_t i = 0; i < sim.message_count; i++) {
        bool live = false;
        for (uint32_t j = 0; j < sim.messages[i].count; j++) {
            const struct model_delivery *delivery = &sim.messages[i].deliveries[j];
            enum delivery_state state = world_delivery(&sim.world, i, j);
            CHECK(delivery->finished == (state == DELIVERY_FINISHED));
            CHECK(state == DELIVERY_FINISHED || state == DELIVERY_HELD || state == DELIVERY_DEAD);
            CHECK(delivery->accepted <= 1 || delivery->doubted || delivery->excused);
            /* Nothing is left held for a refusal that a server took back by coming up. */
            CHECK(!is_held_by_doubt_of_the_server(i, j));
            counted.held += state == DELIVERY_HELD;
            counted.deliveries += state == DELIVERY_HELD;
            counted.dead_letters += state == DELIVERY_DEAD;
            live |= state == DELIVERY_HELD;
        }
        counted.messages += live;
        counted.bytes += live ? 1010 : 0;
    }
    CHECK(totals.messages == counted.messages && totals.deliveries == counted.deliveries &&
          totals.bytes == counted.bytes && totals.held == counted.held &&
          totals.dead_letters == counted.dead_letters && totals.in_doubt == 0);
    uint32_t listed = 0;
    struct relay_cursor cursor = {0};
    uint64_t sequence = 0;
    struct spool_handle handle;
    while (relay_next_message(sim.world.relay, &cursor, &handle)) {
        CHECK(sim.messages[handle.index].sequence > sequence);
        sequence = sim.messages[handle.index].sequence;
        listed++;
    }
    uint32_t left = 0;
    for (uint32_t i = 0; i < sim.message_count; i++) {
        bool unfinished = false;
        for (uint32_t j = 0; j < sim.messages[i].count; j++) {
            unfinished |= !sim.messages[i].deliveries[j].finished;
        }
        left += unfinished;
    }
    CHECK(listed == left);
}

static void run(uint64_t seed)
{
    memset(&sim, 0, sizeof sim);
    world_configure(&sim.world);
    sim.seed = seed;
    sim.random = seed * 0x9e3779b97f4a7c15ULL | 1;
    sim.world.relay = relay_new(&sim.world.config, seed + 1, sim.world.now);
    for (uint32_t i = 0; i < WORLD_SERVERS; i++) {
        sim.states[i] = SERVER_SUSPECT;
    }
    relay_start(sim.world.relay, sim.world.now);
    take();
    for (uint32_t i = 0; i < STEPS; i++) {
        if (dice(8) == 0) {
            disturb();
        }
        (void)step(dice(20) == 0 && !sim.unleased ? 60000 : 200);
        if (sim.unleased && dice(4) == 0) {
            lease(true); /* else its mail would soon be another's */
        }
    }
    sim.calm = true;
    lease(true);
    for (uint32_t i = 0; i < WORLD_ROUTES; i++) {
        if (sim.shares[i] == AWAY) {
            take_share(i);
        } else if (sim.shares[i] == RESTING) {
            rest_share(i, false);
        }
    }
    for (uint32_t i = 0; i < WORLD_SERVERS; i++) {
        sim.mood[i] = 0;
        CHECK(relay_server_enable(sim.world.relay, i, sim.world.now) == ERROR_NONE);
        take();
    }
    int64_t end = sim.world.now.steady_ms + 48 * 3600000LL;
    while (sim.world.now.steady_ms < end && !all_has_come_to_rest()) {
        (void)step(3600000);
    }
    check_end();
    relay_free(sim.world.relay);
}

static void promises_hold_in_any_world(void **state)
{
    const uint64_t *range = *state;
    for (uint64_t seed = range[0]; seed < range[1]; seed++) {
        run(seed);
    }
}

int main(int count, char **arguments)
{
    uint64_t range[2] = {1, 41};
    if (count > 1) {
        range[0] = strtoull(arguments[1], NULL, 10);
        range[1] = count > 2 ? strtoull(arguments[2], NULL, 10) : range[0] + 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(promises_hold_in_any_world, range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
