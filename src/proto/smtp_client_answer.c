/* SPDX-License-Identifier: Apache-2.0
 *
 * The answering cursor: each reply belongs to the oldest command that has none yet. Nothing here
 * waits for all of an envelope's replies to be good: a refused MAIL is followed by the refusals of
 * what was pipelined behind it, and a 354 that came although no recipient was accepted is answered
 * with an empty content (RFC 2920 3.1).
 */
#include "proto/smtp_client_internal.h"

static bool is_good(const struct smtp_reply *reply)
{
    return reply->code / 100 == 2;
}

static bool is_refusal(const struct smtp_reply *reply)
{
    return reply->code >= 400;
}

/* Over without a dot, once no reply is awaited and nothing is left to decide. */
static void settle(struct smtp_client *client, struct transaction *t)
{
    if (t->undecided > 0 || transaction_awaits(t)) {
        return;
    }
    if (t->mail.envelope_only && !t->mail_refused) {
        queue_text(client, "RSET\r\n");
        t->send = STEP_DONE;
        t->answer = STEP_TAKE_BACK;
        return;
    }
    client->needs_reset = client->needs_reset || !t->mail_refused;
    transaction_finish(t);
}

static void answer_reset(struct smtp_client *client, struct transaction *t,
                         const struct smtp_reply *reply)
{
    if (!is_good(reply)) {
        session_broken(client, "RSET refused");
        return;
    }
    t->answer = step_after_reset(t);
}

/* Wrong parameters are this client's; else it is not said again on this connection. */
static void answer_forward(struct smtp_client *client, struct transaction *t,
                           const struct smtp_reply *reply)
{
    if (!is_good(reply) && !is_refusal(reply)) {
        session_broken(client, "unexpected reply to XFORWARD");
        return;
    }
    client->origin.xforward_refused = is_refusal(reply) && reply->code != 501;
    t->answer = STEP_MAIL;
}

static void answer_mail(struct smtp_client *client, struct transaction *t,
                        const struct smtp_reply *reply)
{
    if (!is_good(reply) && !is_refusal(reply)) {
        session_broken(client, "unexpected reply to MAIL");
        return;
    }
    t->answer = STEP_RECIPIENT;
    t->answer_recipient = next_participant(t, 0);
    if (is_refusal(reply)) {
        struct smtp_client_cause cause = cause_of_reply(SMTP_CLIENT_AT_MAIL, reply);
        t->mail_refused = true;
        decide_rest(t, SMTP_CLIENT_REFUSED, &cause);
        settle(client, t);
    }
}

/* "Too many recipients" (RFC 5321 4.5.3.1.10): 452, or 552 from older servers, when others have
 * been accepted before it. Another enhanced code than X.5.3 speaks of storage. */
static bool is_too_many(const struct transaction *t, const struct smtp_reply *reply)
{
    bool unnamed = reply->enhanced[0] == 0;
    bool named = reply->enhanced[1] == 5 && reply->enhanced[2] == 3;
    return (reply->code == 452 || reply->code == 552) && t->accepted > 0 && (unnamed || named);
}

static void answer_recipient(struct smtp_client *client, struct transaction *t,
                             const struct smtp_reply *reply)
{
    uint32_t index = t->answer_recipient;
    if (is_good(reply)) {
        t->accepted++;
        if (t->states[index] == RECIPIENT_OPEN) {
            t->states[index] = RECIPIENT_ACCEPTED;
        }
        if (t->mail.envelope_only) {
            struct smtp_client_cause cause = cause_of_reply(SMTP_CLIENT_AT_RECIPIENT, reply);
            decide(t, index, SMTP_CLIENT_ACCEPTED, &cause);
        }
    } else if (is_refusal(reply)) {
        struct smtp_client_cause cause = cause_of_reply(SMTP_CLIENT_AT_RECIPIENT, reply);
        decide(t, index, is_too_many(t, reply) ? SMTP_CLIENT_NOT_TRIED : SMTP_CLIENT_REFUSED,
               &cause);
    } else {
        session_broken(client, "unexpected reply to RCPT");
        return;
    }
    t->answer_recipient = next_participant(t, index + 1);
    if (t->answer_recipient == t->recipient_limit) {
        t->answer_recipient = 0;
        t->answer = t->chunked ? STEP_CONTENT : STEP_DATA;
    }
    settle(client, t);
}

/* The server waits for content that nobody is to get. */
static void send_nothing(struct smtp_client *client, struct transaction *t)
{
    if (t->accepted > 0 || client->lmtp) {
        /* It has recipients although MAIL was refused, or will not reply to the dot. */
        session_broken(client, "354 without a valid transaction");
        return;
    }
    queue_text(client, ".\r\n");
    t->send = STEP_DONE;
    t->answer = STEP_EMPTY_DOT;
}

static void answer_data(struct smtp_client *client, struct transaction *t,
                        const struct smtp_reply *reply)
{
    if (is_good(reply)) {
        session_broken(client, "unexpected reply to DATA");
        return;
    }
    if (is_refusal(reply)) {
        struct smtp_client_cause cause = cause_of_reply(SMTP_CLIENT_AT_DATA, reply);
        t->answer = STEP_CONTENT;
        decide_rest(t, SMTP_CLIENT_REFUSED, &cause);
        settle(client, t);
    } else if (t->undecided == 0) {
        send_nothing(client, t);
    } else {
        t->answer = STEP_CONTENT;
    }
}

/* LMTP has one reply per accepted recipient (RFC 2033 4.2). */
static uint32_t next_accepted(const struct transaction *t, uint32_t index)
{
    while (index < t->recipient_limit && t->states[index] != RECIPIENT_ACCEPTED) {
        index++;
    }
    return index;
}

static void answer_chunk(struct smtp_client *client, struct transaction *t,
                         const struct smtp_reply *reply)
{
    if (!is_good(reply) && !is_refusal(reply)) {
        session_broken(client, "unexpected reply to BDAT");
        return;
    }
    t->chunks_unanswered--;
    if (is_refusal(reply)) {
        struct smtp_client_cause cause = cause_of_reply(SMTP_CLIENT_AT_CONTENT, reply);
        decide_rest(t, SMTP_CLIENT_REFUSED, &cause);
    }
    if (t->chunks_unanswered == 0 && t->send == STEP_DONE) {
        /* The LAST chunk is under way; its reply decides nothing more after a refusal. */
        t->answer = t->undecided > 0 ? STEP_DOT : STEP_EMPTY_DOT;
    }
    settle(client, t);
}

static void answer_dot(struct smtp_client *client, struct transaction *t,
                       const struct smtp_reply *reply)
{
    if (!is_good(reply) && !is_refusal(reply)) {
        session_broken(client, "unexpected reply to the content");
        return;
    }
    enum smtp_client_verdict verdict = is_good(reply) ? SMTP_CLIENT_ACCEPTED : SMTP_CLIENT_REFUSED;
    struct smtp_client_cause cause = cause_of_reply(SMTP_CLIENT_AT_DOT, reply);
    if (!client->lmtp) {
        decide_rest(t, verdict, &cause);
    } else {
        t->answer_recipient = next_accepted(t, t->answer_recipient);
        decide(t, t->answer_recipient, verdict, &cause);
    }
    if (t->undecided == 0) {
        transaction_finish(t);
    }
}

static void answer_empty_dot(struct smtp_client *client, struct transaction *t,
                             const struct smtp_reply *reply)
{
    (void)client;
    (void)reply;
    transaction_finish(t);
}

static void answer_take_back(struct smtp_client *client, struct transaction *t,
                             const struct smtp_reply *reply)
{
    if (is_good(reply)) {
        transaction_finish(t);
    } else {
        session_broken(client, "RSET refused");
    }
}

typedef void answer_fn(struct smtp_client *client, struct transaction *t,
                       const struct smtp_reply *reply);

static answer_fn *const answer_steps[STEP_DONE] = {
    [STEP_RESET] = answer_reset,
    [STEP_FORWARD] = answer_forward,
    [STEP_MAIL] = answer_mail,
    [STEP_RECIPIENT] = answer_recipient,
    [STEP_DATA] = answer_data,
    [STEP_CONTENT] = answer_chunk,
    [STEP_DOT] = answer_dot,
    [STEP_EMPTY_DOT] = answer_empty_dot,
    [STEP_TAKE_BACK] = answer_take_back,
};

/* A reply that nothing called for. While content is on its way a server may refuse it early; all
 * else is a broken server. The content cannot be ended without its dot, so the session is over. */
static void unasked_reply(struct smtp_client *client, const struct smtp_reply *reply)
{
    enum smtp_client_stage stage = stage_now(client);
    if (is_refusal(reply) && stage == SMTP_CLIENT_AT_CONTENT) {
        struct smtp_client_cause cause = cause_of_reply(stage, reply);
        session_end(client, &cause);
    } else {
        session_broken(client, "reply without a command");
    }
}

void transaction_reply(struct smtp_client *client, const struct smtp_reply *reply)
{
    if (reply->code == 421) {
        struct smtp_client_cause cause = cause_of_reply(stage_now(client), reply);
        session_end(client, &cause);
        return;
    }
    for (uint32_t i = 0; i < client->count; i++) {
        struct transaction *t = slot_at(client, i);
        if (t->answer == STEP_DONE) {
            continue;
        }
        bool early = t->answer == STEP_DOT && !dot_has_left(client, t);
        if (!transaction_awaits(t) || early) {
            break;
        }
        answer_steps[t->answer](client, t, reply);
        return;
    }
    unasked_reply(client, reply);
}
