/* SPDX-License-Identifier: Apache-2.0
 *
 * The results of a job: what becomes of each delivery (outcome.c, refusal.c, fate.c), and what they
 * say together of the server (governor.c).
 */
#include "relay/relay.h"

#include "relay/destination.h"
#include "relay/refusal.h"

/* What a job's results say about its server, each thing once. */
struct impression {
    bool works;
    enum verdict trouble; /* or SERVER_SAYS_NOTHING */
    bool defers, refuses;
    const struct relay_reply *trouble_reply;
    const struct relay_reply *refuses_reply;
};

static const struct relay_delivery_result no_result = {
    .verdict = RELAY_NOT_TRIED,
    .reply = {.stage = RELAY_AT_IDLE,
              .how = RELAY_LOCAL,
              .text = {(const uint8_t *)"not tried", 9}},
};

static const struct relay_delivery_result *find_result(const struct relay_delivery_result *results,
                                                       uint32_t count, uint32_t hint,
                                                       uint32_t delivery)
{
    if (hint < count && results[hint].delivery == delivery) {
        return &results[hint];
    }
    for (uint32_t i = 0; i < count; i++) {
        if (results[i].delivery == delivery) {
            return &results[i];
        }
    }
    return &no_result;
}

static bool same_reply(const struct relay_reply *a, const struct relay_reply *b)
{
    return a->stage == b->stage && a->how == b->how && a->code == b->code &&
           memcmp(a->enhanced, b->enhanced, sizeof a->enhanced) == 0 &&
           slice_equal(a->text, b->text);
}

static void note_impression(struct impression *impression, enum verdict verdict,
                            const struct relay_reply *reply)
{
    switch (verdict) {
    case SERVER_SAYS_NOTHING:
        break;
    case SERVER_WORKS:
        impression->works = true;
        break;
    case SERVER_DEFERS:
        impression->defers = true;
        break;
    case SERVER_REFUSES:
        impression->refuses = true;
        impression->refuses_reply = reply;
        break;
    default:
        if (impression->trouble != SERVER_CREDENTIALS) {
            impression->trouble = verdict;
            impression->trouble_reply = reply;
        }
    }
}

static void apply(struct relay *relay, struct job *job, uint32_t number, enum outcome outcome,
                  const struct relay_reply *reply)
{
    char text[REASON_BYTES_MAX];
    switch (outcome) {
    case OUTCOME_DELIVERED:
        fate_delivered(relay, number, reply);
        break;
    case OUTCOME_DEFERRED:
        fate_deferred(relay, number, reply, relay_reply_text(reply, text, sizeof text));
        break;
    case OUTCOME_HELD:
        fate_held(relay, number, true, reply, relay_reply_text(reply, text, sizeof text));
        break;
    case OUTCOME_UNTOUCHED:
        fate_again(relay, number, job->noted);
        break;
    case OUTCOME_STRIKE:
        fate_strike(relay, number, reply);
        break;
    case OUTCOME_DOUBT:
        fate_doubt(relay, number, reply);
        break;
    case OUTCOME_REHEARSED:
        fate_rehearsed(relay, number, reply);
        break;
    case OUTCOME_FINAL: /* gathered by the caller */
        fate_final(relay, &number, 1, reply);
        break;
    }
}

/* Deliveries that ended alike with one reply make one notice. */
struct ended_alike {
    void (*end)(struct relay *relay, const uint32_t *numbers, uint32_t count,
                const struct relay_reply *reply);
    uint32_t *numbers;
    uint32_t count;
    const struct relay_reply *reply;
};

/* NOBODY: there are no more. */
static void gather(struct relay *relay, struct ended_alike *alike, uint32_t number,
                   const struct relay_reply *reply)
{
    if (alike->count > 0 && (number == NOBODY || !same_reply(alike->reply, reply))) {
        alike->end(relay, alike->numbers, alike->count, alike->reply);
        alike->count = 0;
    }
    if (number != NOBODY) {
        alike->numbers[alike->count++] = number;
        alike->reply = reply;
    }
}

static void deliver_and_tell(struct relay *relay, const uint32_t *numbers, uint32_t count,
                             const struct relay_reply *reply)
{
    fate_notice(relay, numbers, count, reply);
    for (uint32_t i = 0; i < count; i++) {
        fate_delivered(relay, numbers[i], reply);
    }
}

/* Of a job of an earlier life the session is not known, but as a rule the server. */
static bool is_offered(const struct server *server, uint32_t flag)
{
    return server != NULL && server->capabilities_known && (server->capabilities.flags & flag) != 0;
}

/* Whether we have to tell the sender that it has been handed over. */
static bool tells_delivery(const struct relay *relay, uint32_t number, const struct job *job,
                           const struct server *server)
{
    const struct session *session = job->session;
    bool dsn = session != NULL ? session->tells_dsn : is_offered(server, RELAY_CAP_DSN);
    bool by = session != NULL ? session->takes_deliver_by : is_offered(server, RELAY_CAP_DELIVERBY);
    return fate_tells_success(relay, number, dsn) || deliver_by_tells(relay, number, server, by);
}

/* One of an earlier life is older than any here: it proves something only of a server that has had
 * no trouble since. */
static const struct session *session_of_job(const struct job *job)
{
    static const struct session of_an_earlier_life = {.serial = 1};
    return job->session != NULL ? job->session : &of_an_earlier_life;
}

/* By the server; what we cannot say to it is none. */
static bool is_refusal(enum outcome outcome, const struct relay_delivery_result *result)
{
    return result->verdict == RELAY_REFUSED && result->reply.how == RELAY_REPLY &&
           (outcome == OUTCOME_FINAL || outcome == OUTCOME_HELD);
}

/* It speaks of the message or its sender (R4): no matter of belief. */
static bool is_of_the_message(enum outcome outcome, const struct relay_delivery_result *result)
{
    return outcome == OUTCOME_FINAL && result->reply.stage == RELAY_AT_MAIL;
}

/* Whether a refusal is no final word; it may be the one that opens the breaker. */
static enum hold hold_of(struct relay *relay, struct server *server, const struct job *job,
                         const struct delivery *delivery, enum outcome outcome,
                         const struct relay_delivery_result *result)
{
    if (server == NULL || !is_refusal(outcome, result)) {
        return HOLD_NOT;
    }
    if (governor_is_fresh(server, session_of_job(job))) {
        breaker_count(relay, server, delivery, &result->reply);
    }
    return is_of_the_message(outcome, result)
               ? HOLD_NOT
               : refusal_hold(relay, server, delivery, &result->reply);
}

/* Of a server that has gone meanwhile, where it would have been held: another's word counts anew.
 */
static bool is_void(const struct job *job, enum outcome outcome,
                    const struct relay_delivery_result *result)
{
    bool gone = job->server == NO_INDEX;
    return gone && is_refusal(outcome, result) && !is_of_the_message(outcome, result) &&
           (job->unbelieved || outcome == OUTCOME_HELD);
}

/* We could not say it there, for it requires TLS (RFC 8689): whether others may have it. */
static enum elsewhere elsewhere_of(struct relay *relay, struct server *server,
                                   const struct delivery *delivery,
                                   const struct relay_delivery_result *result)
{
    const struct relay_reply *reply = &result->reply;
    const struct lane *lane = lane_of(relay, delivery);
    bool is_for_tls = result->verdict == RELAY_REFUSED && reply->how == RELAY_LOCAL &&
                      reply->stage == RELAY_AT_MAIL && reply->enhanced[1] == 7 &&
                      (reply->enhanced[2] == 10 || reply->enhanced[2] == 30);
    return is_for_tls && server != NULL && lane->destination != NULL && lane->pin == PIN_NONE
               ? destination_elsewhere(relay, lane->destination, server)
               : ELSEWHERE_NOBODY;
}

static void judge_job(struct relay *relay, struct job *job, struct server *server,
                      bool reused_session, const struct relay_delivery_result *results,
                      uint32_t count, struct impression *impression)
{
    struct ended_alike refused = {fate_final, action_numbers(relay, job->count), 0, NULL};
    struct ended_alike told = {deliver_and_tell, action_numbers(relay, job->count), 0, NULL};
    for (uint32_t i = 0; i < job->count; i++) {
        uint32_t number = job->deliveries[i];
        const struct delivery *delivery = delivery_at(relay, number);
        const struct relay_delivery_result *result =
            find_result(results, count, i, delivery->number);
        struct outcome_question question = {
            .verdict = result->verdict,
            .reply = &result->reply,
            .reused_session = reused_session,
            .broke_before = delivery->strikes >= STRIKES_MAX,
            .envelope_only =
                (message_at(relay, delivery->message)->flags & MESSAGE_ENVELOPE_ONLY) != 0,
        };
        struct judgement judgement = outcome_of_delivery(&question);
        note_impression(impression, judgement.verdict, &result->reply);
        if (delivery_is_withdrawn(relay, number)) {
            withdrawn_settle(relay, job, number, judgement.outcome == OUTCOME_DELIVERED,
                             &result->reply);
            continue;
        }
        directory_learn(relay, server, number, result);
        enum hold hold = hold_of(relay, server, job, delivery, judgement.outcome, result);
        enum elsewhere elsewhere = elsewhere_of(relay, server, delivery, result);
        if (is_void(job, judgement.outcome, result) || elsewhere == ELSEWHERE_NOW) {
            fate_again(relay, number, job->noted);
        } else if (elsewhere == ELSEWHERE_LATER) {
            apply(relay, job, number, OUTCOME_DEFERRED, &result->reply);
        } else if (hold != HOLD_NOT) {
            refusal_held(relay, number, &result->reply, hold);
        } else if (judgement.outcome == OUTCOME_FINAL || is_refusal(judgement.outcome, result)) {
            gather(relay, &refused, number, &result->reply);
        } else if (judgement.outcome == OUTCOME_DELIVERED &&
                   tells_delivery(relay, number, job, server)) {
            gather(relay, &told, number, &result->reply);
        } else {
            apply(relay, job, number, judgement.outcome, &result->reply);
        }
    }
    gather(relay, &refused, NOBODY, NULL);
    gather(relay, &told, NOBODY, NULL);
}

static void judge_server(struct relay *relay, struct server *server, const struct session *session,
                         const struct impression *impression, uint32_t sender_hash,
                         uint64_t recipient, int64_t latency_ms)
{
    static const struct relay_reply good = {.stage = RELAY_AT_DOT, .how = RELAY_REPLY};
    if (impression->works) {
        governor_took(relay, server, session, latency_ms);
        governor_judge(relay, server, session, SERVER_WORKS, &good);
    } else if (impression->refuses) {
        governor_judge(relay, server, session, SERVER_REFUSES, impression->refuses_reply);
    } else if (impression->defers) {
        governor_deferred(relay, server, session, sender_hash, recipient);
    }
    if (impression->trouble != SERVER_SAYS_NOTHING) {
        governor_judge(relay, server, session, impression->trouble, impression->trouble_reply);
    }
}

/* Too many recipients for one transaction (RFC 5321 4.5.3.1.10): the others were taken or refused,
 * these go next, over the same session. */
static bool is_left_over(const struct relay_delivery_result *result, bool others_tried)
{
    return others_tried && result->verdict == RELAY_NOT_TRIED &&
           result->reply.stage == RELAY_AT_RECIPIENT &&
           (result->reply.how == RELAY_REPLY || result->reply.how == RELAY_LOCAL);
}

/* The session is on its way out: nothing more goes there. */
static bool breaks_session(const struct relay_delivery_result *results, uint32_t count)
{
    bool tried = false;
    for (uint32_t i = 0; i < count; i++) {
        tried |= results[i].verdict != RELAY_NOT_TRIED;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (results[i].verdict == RELAY_CUT || results[i].verdict == RELAY_IN_DOUBT ||
            results[i].reply.code == 421 ||
            (results[i].verdict == RELAY_NOT_TRIED && !is_left_over(&results[i], tried))) {
            return true;
        }
    }
    return count == 0;
}

void relay_result(struct relay *relay, uint64_t id, uint32_t session_id, bool reused_session,
                  const struct relay_delivery_result *results, uint32_t count,
                  struct relay_time now)
{
    relay_begin(relay, now);
    struct job *job = job_find(relay, id);
    struct session *session = map_get(&relay->sessions, session_id);
    if (session == NULL) { /* of an earlier life: it has done its last job */
        struct relay_action *close = action_add(relay, RELAY_CLOSE);
        close->session = session_id;
    }
    if (job == NULL) {
        return;
    }
    struct server *server = server_at(relay, job->server);
    if (job->session != NULL) {
        session = job->session;
        session_remove_job(session, job);
        session->worked |= count > 0 && results[0].verdict != RELAY_NOT_TRIED;
        if (!session->close_asked && breaks_session(results, count)) {
            session->broken = true;
            session_close(relay, session);
        }
        session_pool(relay, session);
    }
    struct session *job_session = job->session;
    struct impression impression = {.trouble = SERVER_SAYS_NOTHING};
    uint32_t sender = 0;
    uint64_t recipient = 0;
    if (job->count > 0) {
        sender = message_at(relay, job->message)->sender;
        recipient = delivery_at(relay, job->deliveries[0])->recipient;
    }
    judge_job(relay, job, server, reused_session, results, count, &impression);
    if (server != NULL) {
        judge_server(relay, server, session_of_job(job), &impression, sender, recipient,
                     job->dot_ms > 0 ? now.steady_ms - job->dot_ms : -1);
        governor_look_at_canary(relay, server);
    }
    job_free(relay, job);
    /* What follows in vain would keep its session from everything else. */
    if (job_session != NULL && job_session->job_count > 0 &&
        recipient_follows(relay, job_session->jobs[0]->deliveries[0])) {
        session_close(relay, job_session);
    }
    relay_settle(relay);
}
