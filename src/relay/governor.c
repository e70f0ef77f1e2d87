/* SPDX-License-Identifier: Apache-2.0
 *
 * When a server is up (R3, R5).
 *
 *   suspect     after one failure, or at the start: probed at once; nothing new goes there
 *   down        the probe failed too, or a failure while recovering; probed on
 *   recovering  a probe was greeted: one delivery, the canary, goes over that session
 *   up          the canary got its 2xx; or nothing waited and a second probe was good too
 *   disabled    by the operator, until he says otherwise; not probed
 *
 * A server whose client calls us (ODMR) is never probed: it is down until a call, and then up, or
 * recovering if the last call broke, as long as the call lasts (atrn.h).
 *
 *   up --failure--> suspect --probe fails--> down
 *   suspect, down --probe greeted--> recovering --2xx--> up
 *   recovering --failure, or five canaries refused or deferred--> down
 *   suspect --greeted, but it failed within 5 minutes of up--> down, for as long as the interval
 *                      of its probes is then, which goes on doubling: else one that fails every
 *                      other time would change its state as fast as it answers
 *
 * `trouble` says what must be proved: after a failure to connect or greet a good greeting is half
 * of it; after a failure within sessions only a 2xx counts. A session opened before the trouble
 * began proves nothing, neither way: its failures are the same trouble, and a connection that still
 * works does not show that new ones would.
 */
#include <stdio.h>

#include "relay/destination.h"
#include "relay/refusal.h"

enum {
    GREETING_PROBE_MS = 2000, /* R3: connects but gives no good greeting: 2 s doubling to 30 */
    GREETING_PROBE_MAX_MS = 30000,
    CANARY_PROBE_MS = 5000, /* R5: fails within sessions: 5 s doubling to 60 */
    CANARY_PROBE_MAX_MS = 60000,
    RELAPSE_MS = 5 * 60 * 1000, /* R5: a failure so soon after up doubles the next interval */
    DOUBTED_MS = 1000,  /* an up server heard of so lately is not asked for strangers' sake */
    PROBE_GAP_MS = 100, /* contacts and operators cannot make us probe faster */
};

bool server_usable(const struct server *server)
{
    return server->state == SERVER_UP || server->state == SERVER_RECOVERING;
}

bool server_is_choice(const struct relay *relay, const struct server *server, uint32_t *found)
{
    if (server_usable(server)) {
        *found = *found == NO_INDEX || !server->canary_out ? server->index : *found;
        return !server->canary_out;
    }
    /* Just started: the head of the chain first. */
    return *found == NO_INDEX && server->state == SERVER_SUSPECT &&
           relay->now.steady_ms < server->unknown_until_ms;
}

bool governor_is_fresh(const struct server *server, const struct session *session)
{
    return session == NULL || session == server->probe || session->serial > server->trouble_serial;
}

void variety_add(struct variety *variety, uint32_t value)
{
    for (uint32_t i = 0; i < variety->count; i++) {
        if (variety->seen[i] == value) {
            return;
        }
    }
    if (variety->count < VARIETY_ENOUGH) {
        variety->seen[variety->count++] = value;
    }
}

static void forget_run(struct server *server)
{
    server->run = server->run_senders.count = server->run_recipients.count = 0;
}

/* ---- state -------------------------------------------------------------------------------- */

static void set_reason(struct server *server, struct slice reason)
{
    server->reason_length =
        reason.length < sizeof server->reason ? reason.length : sizeof server->reason;
    if (server->reason_length > 0) {
        memcpy(server->reason, reason.data, server->reason_length);
    }
}

static void write_state(struct relay *relay, const struct server *server)
{
    if (server->on_demand) {
        return; /* there are too many, and they come and go */
    }
    bool up = server->state == SERVER_UP;
    struct state_note note = {server->state, server->since_wall_ms,
                              slice_make(server->reason, server->reason_length),
                              up && server->recovered, up ? TROUBLE_NONE : server->trouble};
    buffer_clear(&relay->scratch);
    note_encode_state(&relay->scratch, &note);
    action_server_note(relay, server, GLOBAL_STATE);
}

/* It is up: what it did before is forgiven, and believed again by and by. */
static void come_up(struct relay *relay, struct server *server)
{
    server->trouble = TROUBLE_NONE;
    server->failures = 0;
    server->returning = false;
    server->relapsed = false;
    (void)canary_forget(server);
    forget_run(server);
    breaker_reset(server);
    if (server->recovered) {
        server->recovered_ms = relay->now.steady_ms;
        ramp_start(&server->ramp, 1);
        lanes_recover(relay, server, relay->now.wall_ms);
    }
    deferrals_forgive(relay, server);
    refusals_review(relay, server);
}

/* Something has changed for those that go there, or would. */
static void place_lanes(struct relay *relay, const struct server *server)
{
    if (server->exchanger != NULL) {
        exchanger_place_lanes(relay, server);
    } else {
        lanes_place(relay);
    }
}

/* Returns how long it has been in that state. */
static int64_t tell_state(struct relay *relay, const struct server *server,
                          enum server_state before, struct slice reason)
{
    struct relay_action *event = action_event(relay, RELAY_EVENT_SERVER);
    event->server = server->index;
    event->old_state = before;
    event->new_state = server->state;
    event->reason = action_copy(relay, reason);
    event->duration_ms = relay->now.steady_ms - server->since_ms;
    event->count = server->failures;
    return event->duration_ms;
}

static void set_state(struct relay *relay, struct server *server, enum server_state state,
                      struct slice reason)
{
    enum server_state before = server->state;
    bool was_usable = server_usable(server);
    set_reason(server, reason);
    server->state = state;
    server->canary_out = false;
    server->before = before;
    server->before_ms = tell_state(relay, server, before, reason);
    server->changes++;
    server->since_ms = relay->now.steady_ms;
    server->since_wall_ms = relay->now.wall_ms;
    server->unknown_until_ms = 0;
    server->recovered = state == SERVER_UP && server->returning;
    write_state(relay, server);
    if (server_usable(server)) {
        server->away_since_ms = INT64_MAX;
    } else if (was_usable) {
        server->away_since_ms = relay->now.steady_ms;
    }
    if (state == SERVER_UP) {
        come_up(relay, server);
    }
    if (was_usable && !server_usable(server)) {
        server_close_sessions(relay, server);
    }
    server_touch(relay, server);
    place_lanes(relay, server);
    bool away = state == SERVER_DOWN || state == SERVER_DISABLED;
    if (away || (!was_usable && server_usable(server))) {
        refusals_state_changed(relay, server);
    }
}

/* What it has put off or refused can be tried again for its sake, when nothing waits. */
static bool has_spare_canary(const struct server *server)
{
    return server->held_refusals > 0 || (server->epoch_used && !server->defers_none);
}

/* ---- probes ------------------------------------------------------------------------------- */

/* The interval of R3, +-20 %, so that many nodes do not knock in step. */
uint32_t governor_probe_interval(struct relay *relay, const struct server *server)
{
    uint32_t interval = server->config->probe_interval_ms;
    return interval - interval / 5 + (uint32_t)(relay_random(relay) % (interval / 5 * 2 + 1));
}

static uint32_t doubled(uint32_t delay_ms, uint32_t first_ms, uint32_t max_ms)
{
    uint32_t delay = delay_ms == 0 ? first_ms : delay_ms * 2;
    return delay > max_ms ? max_ms : delay;
}

/* R3: the oldest delivery of a destination is its probe. */
static void schedule_demand_probe(struct relay *relay, struct server *server)
{
    if (server->trouble == TROUBLE_NONE) {
        server->next_probe_ms = INT64_MAX;
        return;
    }
    server->probe_delay_ms = doubled(server->probe_delay_ms, DEMAND_PROBE_MS, DEMAND_PROBE_MAX_MS);
    server->next_probe_ms = relay->now.steady_ms + server->probe_delay_ms;
    server_touch(relay, server);
}

static void schedule_probe(struct relay *relay, struct server *server)
{
    int64_t delay = 0;
    if (server->on_demand) {
        schedule_demand_probe(relay, server);
        return;
    }
    switch (server->trouble) {
    case TROUBLE_NONE:
        server->next_probe_ms = server->last_contact_ms + CONTACT_MAX_AGE_MS;
        return;
    case TROUBLE_CONNECT: /* from the last one's begin: a time-out has waited long enough */
        delay =
            server->last_probe_ms + governor_probe_interval(relay, server) - relay->now.steady_ms;
        delay = delay > 0 ? delay : 0;
        break;
    case TROUBLE_GREETING:
        delay = server->probe_delay_ms =
            doubled(server->probe_delay_ms, GREETING_PROBE_MS, GREETING_PROBE_MAX_MS);
        break;
    case TROUBLE_DELIVERY:
        delay = server->canary_delay_ms =
            doubled(server->canary_delay_ms, CANARY_PROBE_MS, CANARY_PROBE_MAX_MS);
        break;
    }
    server->next_probe_ms = relay->now.steady_ms + delay;
    server_touch(relay, server);
}

/* The probe under way may have had no answer for a while: it tries afresh. */
static void knock(struct relay *relay, struct server *server)
{
    if (relay->now.steady_ms - server->last_probe_ms >= PROBE_GAP_MS) {
        server->last_probe_ms = relay->now.steady_ms;
        struct relay_action *action = action_add(relay, RELAY_KNOCK);
        action->session = server->probe->id;
        action->server = server->index;
    }
}

void governor_probe_now(struct relay *relay, struct server *server)
{
    if (server->state == SERVER_DISABLED || server_calls(server)) {
        return;
    }
    if (server->probe != NULL) {
        knock(relay, server);
        return;
    }
    int64_t soonest = server->last_probe_ms + PROBE_GAP_MS;
    int64_t due = soonest > relay->now.steady_ms ? soonest : relay->now.steady_ms;
    if (due < server->next_probe_ms) {
        server->next_probe_ms = due;
    }
    if (due <= relay->now.steady_ms && relay->started) {
        governor_probe_due(relay, server);
    }
    server_touch(relay, server);
}

void governor_probe_due(struct relay *relay, struct server *server)
{
    int64_t now = relay->now.steady_ms;
    if (server->probe != NULL || server->state == SERVER_DISABLED) {
        return;
    }
    if (server_calls(server)) {
        server->next_probe_ms = INT64_MAX;
        return;
    }
    if (server->on_demand && (server_usable(server) || !exchanger_is_wanted(server))) {
        server->next_probe_ms = server_usable(server) ? INT64_MAX : now + DEMAND_PROBE_MS;
        return;
    }
    bool heard = now - server->last_contact_ms < CONTACT_MAX_AGE_MS;
    bool only_by_age = server->state == SERVER_UP ||
                       (server->state == SERVER_RECOVERING && server->trouble == TROUBLE_DELIVERY &&
                        !has_spare_canary(server));
    if (only_by_age && heard && !server->probe_asked) {
        server->next_probe_ms = server->last_contact_ms + CONTACT_MAX_AGE_MS;
        return;
    }
    /* The canary decides, or will when the lease lets it go, or sessions on their way do; and the
     * limit holds for probes too, unless none of those that fill it has said anything for so long
     * that we must know. */
    bool decides = server->jobs > 0 || (!relay->leased && !list_is_empty(&server->idle));
    bool busy = (server->state == SERVER_RECOVERING && decides && !server->probe_asked) ||
                (server->state == SERVER_UP &&
                 (server->connecting > 0 || (heard && governor_room(relay, server) == 0)));
    if (busy) {
        server->next_probe_ms = now + governor_probe_interval(relay, server);
        return;
    }
    server->probe_asked = false;
    server->last_probe_ms = now;
    server->probe = session_open(relay, server, true);
    server->next_probe_ms = server->probe == NULL ? now + OWN_TROUBLE_MS : INT64_MAX;
}

/* An up server of which nothing is heard may be away for a minute before we ask (R3): too long
 * where others are turned away because it is up. */
void governor_doubted(struct relay *relay, struct server *server)
{
    int64_t now = relay->now.steady_ms;
    if (server->state == SERVER_UP && !server->on_demand && server->probe == NULL &&
        now - server->last_contact_ms >= DOUBTED_MS && now - server->last_probe_ms >= DOUBTED_MS) {
        server->probe_asked = true;
        governor_probe_now(relay, server);
    }
}

/* ---- what was seen ------------------------------------------------------------------------ */

/* No other session will tell more before the next call. */
static void call_failed(struct relay *relay, struct server *server, struct slice reason)
{
    server->trouble = TROUBLE_CONNECT;
    server->trouble_serial = relay->session_serial;
    if (server->state == SERVER_DOWN) {
        set_reason(server, reason);
    } else {
        set_state(relay, server, SERVER_DOWN, reason);
    }
}

static void failed(struct relay *relay, struct server *server, const struct session *session,
                   enum trouble trouble, struct slice reason)
{
    if (server->state == SERVER_DISABLED || !governor_is_fresh(server, session)) {
        return;
    }
    server->failures++;
    server->returning = true;
    if (server_calls(server)) {
        call_failed(relay, server, reason);
        return;
    }
    if (server->state == SERVER_UP) {
        server->trouble = trouble;
        server->trouble_serial = relay->session_serial;
        server->relapsed =
            server->recovered && relay->now.steady_ms - server->recovered_ms < RELAPSE_MS;
        if (!server->relapsed) {
            server->probe_delay_ms = server->canary_delay_ms = 0;
        }
        set_state(relay, server, SERVER_SUSPECT, reason);
        server->next_probe_ms = relay->now.steady_ms;
        return;
    }
    bool another = server->trouble != trouble;
    if (another) {
        server->trouble = trouble;
        server->probe_delay_ms = server->canary_delay_ms = 0;
        server->relapsed = false;
    }
    server->trouble_serial = relay->session_serial;
    if (server->state == SERVER_DOWN) {
        set_reason(server, reason);
        if (another) { /* what keeps it down now is not what brought it down */
            (void)tell_state(relay, server, SERVER_DOWN, reason);
            write_state(relay, server);
        }
    } else {
        set_state(relay, server, SERVER_DOWN, reason);
    }
    schedule_probe(relay, server);
}

static void works(struct relay *relay, struct server *server, const struct session *session)
{
    server->last_contact_ms = relay->now.steady_ms;
    forget_run(server);
    breaker_reset(server);
    if (server->state != SERVER_UP && server->state != SERVER_DISABLED &&
        governor_is_fresh(server, session)) {
        set_state(relay, server, SERVER_UP, SLICE_LITERAL("accepted a message"));
        server->next_probe_ms =
            server_calls(server) ? INT64_MAX : relay->now.steady_ms + CONTACT_MAX_AGE_MS;
    }
    if (server->epoch_used) {
        server->epoch_used = false;
        if (++server->epoch == 0) {
            deferrals_forget(relay, server);
        }
    }
}

/* The canary was refused or deferred for its own sake: another may try, but not for ever. */
static void canary_failed(struct relay *relay, struct server *server, const struct session *session,
                          struct slice reason)
{
    if (server->state == SERVER_RECOVERING && governor_is_fresh(server, session) &&
        ++server->canary_tries >= CANARY_TRIES) {
        failed(relay, server, session, TROUBLE_DELIVERY, reason);
    }
}

static void refused(struct relay *relay, struct server *server, const struct session *session,
                    const struct relay_reply *reply, struct slice reason)
{
    server->last_contact_ms = relay->now.steady_ms;
    forget_run(server);
    if (server->breaker_open && server->state == SERVER_UP) {
        failed(relay, server, session, TROUBLE_DELIVERY,
               SLICE_LITERAL("refuses one message after the other"));
        return;
    }
    /* One that was never in trouble may well not know a recipient. */
    if (server->returning || reply->stage != RELAY_AT_RECIPIENT) {
        canary_failed(relay, server, session, reason);
    }
}

void governor_loop(struct relay *relay, struct server *server)
{
    struct slice reason = SLICE_LITERAL("sends our mail back to us");
    struct relay_action *event = action_event(relay, RELAY_EVENT_LOOP);
    event->server = server->index;
    event->reason = reason;
    if (server->state != SERVER_DOWN) { /* else it would put off its probe time and again */
        failed(relay, server, NULL, TROUBLE_DELIVERY, reason);
    }
    server_touch(relay, server);
}

static bool is_within_transaction(const struct relay_reply *reply)
{
    return reply->stage >= RELAY_AT_MAIL && reply->stage <= RELAY_AT_DOT;
}

static uint32_t count_others(const struct server *server, const struct session *except)
{
    uint32_t others = 0;
    LIST_EACH(&server->sessions, at, after)
    {
        const struct session *session = LIST_ENTRY(at, struct session, all);
        others += session != except && session->state == SESSION_OPEN;
    }
    return others;
}

void governor_judge(struct relay *relay, struct server *server, const struct session *session,
                    enum verdict verdict, const struct relay_reply *reply)
{
    char text[REASON_BYTES_MAX];
    struct slice reason = relay_reply_text(reply, text, sizeof text);
    uint32_t others;
    struct relay_action *event;
    switch (verdict) {
    case SERVER_SAYS_NOTHING:
    case SERVER_DEFERS: /* governor_deferred() */
        break;
    case SERVER_WORKS:
        works(relay, server, session);
        break;
    case SERVER_REFUSES:
        refused(relay, server, session, reply, reason);
        break;
    case SERVER_UNREACHABLE:
        failed(relay, server, session, TROUBLE_CONNECT, reason);
        break;
    case SERVER_UNGREETED:
        failed(relay, server, session, TROUBLE_GREETING, reason);
        break;
    case SERVER_FAILS:
        failed(relay, server, session, TROUBLE_DELIVERY, reason);
        break;
    case SERVER_FAILS_THIS:
        canary_failed(relay, server, session, reason);
        break;
    case SERVER_AT_LIMIT:
        others = count_others(server, session);
        if (others == 0) {
            failed(relay, server, session,
                   is_within_transaction(reply) ? TROUBLE_DELIVERY : TROUBLE_GREETING, reason);
        } else {
            server->ceiling = others;
            server->ceiling_ms = relay->now.steady_ms;
            ramp_pressed(&server->ramp, server->config->connections, relay->now.steady_ms);
        }
        break;
    case SERVER_CREDENTIALS:
        event = action_event(relay, RELAY_EVENT_CREDENTIALS);
        event->server = server->index;
        event->reason = action_copy(relay, reason);
        action_set_reply(relay, event, reply);
        failed(relay, server, session, TROUBLE_DELIVERY, reason);
        break;
    }
    server_touch(relay, server);
}

void governor_deferred(struct relay *relay, struct server *server, const struct session *session,
                       uint32_t sender, uint64_t recipient)
{
    server->last_contact_ms = relay->now.steady_ms;
    ramp_pressed(&server->ramp, server->config->connections, relay->now.steady_ms);
    server->run++;
    variety_add(&server->run_senders, sender);
    variety_add(&server->run_recipients, (uint32_t)recipient);
    struct slice reason = SLICE_LITERAL("defers one message after the other");
    if (server->state == SERVER_RECOVERING) {
        canary_failed(relay, server, session, reason);
    } else if (server->state == SERVER_UP && server->run >= DEFERRAL_RUN &&
               server->run_senders.count >= VARIETY_ENOUGH &&
               server->run_recipients.count >= VARIETY_ENOUGH) {
        failed(relay, server, session, TROUBLE_DELIVERY, reason);
    }
}

/* A recovering server was greeted once more, and there is no delivery to try it with: where only a
 * 2xx counts, one that it refused or deferred may be the canary, in turn. */
static void nothing_waits(struct relay *relay, struct server *server)
{
    if (server->trouble != TROUBLE_DELIVERY) {
        set_state(relay, server, SERVER_UP, SLICE_LITERAL("answers, and nothing waits"));
        return;
    }
    if (has_spare_canary(server)) {
        server->canary_delay_ms =
            doubled(server->canary_delay_ms, CANARY_PROBE_MS, CANARY_PROBE_MAX_MS);
    }
    server->spare_turn = !server->spare_turn;
    if (server->spare_turn && deferrals_canary(relay, server)) {
        return;
    }
    uint64_t held = server->held_refusals;
    refusals_canary(relay, server);
    if (server->held_refusals == held && !server->spare_turn) {
        (void)deferrals_canary(relay, server);
    }
}

/* One more for each LIMIT_EASES_MS since it was learned, whether anything went there or not. */
static uint32_t eased_ceiling(const struct relay *relay, struct server *server)
{
    int64_t steps = (relay->now.steady_ms - server->ceiling_ms) / LIMIT_EASES_MS;
    uint32_t most = server->config->connections;
    if (server->ceiling >= most || steps >= most - server->ceiling) {
        return server->ceiling = most;
    }
    server->ceiling += (uint32_t)steps;
    server->ceiling_ms += steps * LIMIT_EASES_MS;
    return server->ceiling;
}

void governor_opened(struct relay *relay, struct server *server, struct session *session)
{
    bool was_probe = session == server->probe;
    bool fresh = governor_is_fresh(server, session);
    server->last_contact_ms = relay->now.steady_ms;
    server_touch(relay, server);
    if (session == server->call) {
        governor_called(relay, server);
        return;
    }
    if (was_probe) {
        server->probe = NULL;
        session->probe = false;
        session->serial = relay->session_serial + 1; /* as new as any: it bears the canary */
        relay->session_serial = session->serial;
    }
    if (server->state == SERVER_DISABLED || server->state == SERVER_UP || !fresh) {
        if (was_probe) {
            schedule_probe(relay, server);
        }
        if (was_probe && server->open - server->left > eased_ceiling(relay, server)) {
            session_close(relay, session); /* it was one more than there may be */
        }
        return;
    }
    if (server->state == SERVER_SUSPECT && server->relapsed) {
        char why[REASON_BYTES_MAX];
        int length = snprintf(why, sizeof why, "failed soon after it came back: %.*s",
                              (int)server->reason_length, server->reason);
        server->relapsed = false;
        set_state(relay, server, SERVER_DOWN,
                  slice_take(slice_make(why, (size_t)length), sizeof why - 1));
        schedule_probe(relay, server);
        session_close(relay, session);
        return;
    }
    if (server->state != SERVER_RECOVERING) {
        server->canary_tries = 0;
        server->defers_none = false;
        set_state(relay, server, SERVER_RECOVERING, SLICE_LITERAL("answers again"));
    } else if (was_probe && server->jobs == 0 && server->ready == 0 && server->guests_ready == 0) {
        nothing_waits(relay, server);
    }
    if (server->state == SERVER_UP) {
        server->next_probe_ms = relay->now.steady_ms + CONTACT_MAX_AGE_MS;
    } else if (server->trouble == TROUBLE_DELIVERY) {
        int64_t next = server->canary_delay_ms > 0 ? server->canary_delay_ms : CANARY_PROBE_MS;
        server->next_probe_ms =
            relay->now.steady_ms + (has_spare_canary(server) ? next : CONTACT_MAX_AGE_MS);
    } else {
        server->next_probe_ms = relay->now.steady_ms + governor_probe_interval(relay, server);
    }
}

#define AWAITS_CALL SLICE_LITERAL("waits for its client to call (ATRN)")

void governor_called(struct relay *relay, struct server *server)
{
    if (server->state == SERVER_DOWN) {
        server->canary_tries = 0;
        set_state(relay, server, server->returning ? SERVER_RECOVERING : SERVER_UP,
                  SLICE_LITERAL("its client has called"));
        lanes_called(relay, server);
    }
}

void governor_call_ended(struct relay *relay, struct server *server)
{
    if (server_usable(server)) {
        set_state(relay, server, SERVER_DOWN, AWAITS_CALL);
    }
    lanes_call_ended(relay, server);
    call_forget(server);
}

/* ---- what may be sent --------------------------------------------------------------------- */

static uint32_t count_going_on(const struct server *server)
{
    uint32_t count = 0;
    LIST_EACH(&server->sessions, at, after)
    {
        count += LIST_ENTRY(at, struct session, all)->state != SESSION_CLOSING;
    }
    return count;
}

uint32_t governor_width(const struct server *server)
{
    return server->state == SERVER_UP ? server->ramp.width : UINT32_MAX;
}

void governor_took(struct relay *relay, struct server *server, const struct session *session,
                   int64_t latency_ms)
{
    if (server->state == SERVER_UP && governor_is_fresh(server, session)) {
        ramp_taken(&server->ramp, server->config->connections, latency_ms, relay->now.steady_ms);
    }
}

uint32_t governor_room(struct relay *relay, struct server *server)
{
    if (relay->now.steady_ms < server->own_trouble_until_ms || !server_usable(server) ||
        server_calls(server)) {
        return 0;
    }
    if (server->state == SERVER_RECOVERING) {
        LIST_EACH(&server->sessions, at, after)
        {
            const struct session *session = LIST_ENTRY(at, struct session, all);
            if (session->state != SESSION_CLOSING && governor_is_fresh(server, session)) {
                return 0;
            }
        }
        return 1;
    }
    uint32_t most = eased_ceiling(relay, server);
    /* Those left behind may hang on a dot for minutes (R2): dead, as a rule, if it was away. */
    uint32_t open = server->open - server->left;
    uint32_t room = open < most ? most - open : 0;
    uint32_t width = governor_width(server);
    uint32_t used = width < most ? count_going_on(server) : 0;
    uint32_t narrow = used < width ? width - used : 0;
    return room < narrow ? room : narrow;
}

bool governor_may_send(const struct server *server)
{
    if (server->state != SERVER_RECOVERING) {
        return server->state == SERVER_UP;
    }
    LIST_EACH(&server->sessions, at, after)
    {
        const struct session *session = LIST_ENTRY(at, struct session, all);
        if (session->job_count > 0 && governor_is_fresh(server, session)) {
            return false; /* the canary is out */
        }
    }
    return true;
}

/* After trouble within sessions a hang may take minutes to be one: it costs the canary, but whoever
 * has a server that is up to go to goes there meanwhile. */
void governor_look_at_canary(struct relay *relay, struct server *server)
{
    bool out = server->state == SERVER_RECOVERING && server->trouble == TROUBLE_DELIVERY &&
               !governor_may_send(server);
    if (out != server->canary_out) {
        server->canary_out = out;
        place_lanes(relay, server);
    }
}

/* ---- operator and start ------------------------------------------------------------------- */

void governor_start(struct relay *relay, struct server *server)
{
    server->last_contact_ms = relay->now.steady_ms;
    if (server_calls(server)) {
        server->trouble = TROUBLE_CONNECT;
        if (server->state != SERVER_DOWN && server->state != SERVER_DISABLED) {
            set_state(relay, server, SERVER_DOWN, AWAITS_CALL);
        }
    } else if (server->state == SERVER_UP) {
        server->next_probe_ms = relay->now.steady_ms + CONTACT_MAX_AGE_MS;
        if (server->recovered) {
            lanes_recover(relay, server, server->since_wall_ms);
        }
        refusals_review(relay, server);
    } else if (server->state != SERVER_DISABLED) {
        server->next_probe_ms = relay->now.steady_ms;
        server->unknown_until_ms =
            server->state == SERVER_SUSPECT ? relay->now.steady_ms + UNKNOWN_PATIENCE_MS : 0;
        governor_probe_due(relay, server);
    }
    server_touch(relay, server);
}

/* Later than any that is known of, whatever this clock says. */
void governor_write_hand(struct relay *relay, struct server *server, bool disabled)
{
    int64_t now_ms = relay->now.wall_ms;
    server->hand_ms = now_ms > server->hand_ms ? now_ms : server->hand_ms + 1;
    buffer_clear(&relay->scratch);
    note_encode_hand(&relay->scratch, &(struct hand_note){server->hand_ms, disabled});
    action_server_note(relay, server, GLOBAL_HAND);
}

static void disable(struct relay *relay, struct server *server)
{
    if (server->state == SERVER_DISABLED) {
        return;
    }
    server->trouble = TROUBLE_CONNECT;
    server->trouble_serial = relay->session_serial;
    set_state(relay, server, SERVER_DISABLED, SLICE_LITERAL("by hand"));
    if (server->probe != NULL) {
        struct session *probe = server->probe;
        server->probe = NULL;
        session_close(relay, probe);
    }
}

static void enable(struct relay *relay, struct server *server)
{
    if (server->state != SERVER_DISABLED) {
        return;
    }
    server->trouble = TROUBLE_CONNECT;
    if (server_calls(server)) {
        set_state(relay, server, SERVER_DOWN, AWAITS_CALL);
        return;
    }
    server->returning = true;
    set_state(relay, server, SERVER_SUSPECT, SLICE_LITERAL("brought back by hand"));
    server->next_probe_ms = INT64_MAX;
    governor_probe_now(relay, server);
}

void governor_hand(struct relay *relay, struct server *server, bool disabled)
{
    if (disabled) {
        disable(relay, server);
    } else {
        enable(relay, server);
    }
}

void governor_hear_hand(struct relay *relay, struct server *server, const struct hand_note *note)
{
    if (note->when_ms >= server->hand_ms) {
        server->hand_ms = note->when_ms;
        governor_hand(relay, server, note->disabled);
    }
}

void governor_moved(struct relay *relay, struct server *to, const struct server *from)
{
    to->state = from->state == SERVER_DISABLED ? SERVER_DISABLED : to->state;
    to->hand_ms = from->hand_ms;
    to->trouble = from->trouble != TROUBLE_NONE ? from->trouble : to->trouble;
    to->failures = from->failures;
    to->returning = true;
    if (from->away_since_ms != INT64_MAX) {
        to->away_since_ms = from->away_since_ms;
    }
    write_state(relay, to); /* a restart must not take the old one's word for it */
}

void governor_loaded(struct relay *relay, struct server *server, const struct state_note *note)
{
    enum server_state state = note->state;
    if (server->state == SERVER_DISABLED) {
        return; /* the note by hand has spoken */
    }
    bool lasting = state == SERVER_UP || state == SERVER_DOWN; /* the others begin anew */
    server->state = lasting ? state : SERVER_SUSPECT;
    server->since_wall_ms = note->since_ms;
    set_reason(server, note->reason);
    if (server_calls(server)) {
        return; /* down as a rule, and believed for all that */
    }
    server->failures = state == SERVER_DOWN;
    server->returning = state != SERVER_UP; /* its first refusals are not believed */
    server->recovered = note->recovered;
    int64_t ago_ms = relay->now.wall_ms - note->since_ms;
    server->recovered_ms = relay->now.steady_ms - (ago_ms > 0 ? ago_ms : 0);
    if (state == SERVER_UP) {
        server->trouble = TROUBLE_NONE;
        server->trouble_serial = 0;
        server->away_since_ms = INT64_MAX;
    } else if (note->trouble > TROUBLE_NONE && note->trouble <= TROUBLE_DELIVERY) {
        server->trouble = (enum trouble)note->trouble;
    }
}
