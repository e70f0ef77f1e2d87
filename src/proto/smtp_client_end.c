/* SPDX-License-Identifier: Apache-2.0
 *
 * Outcomes. What the end of a session means for a transaction depends on one thing only: whether
 * its dot has left whole. Before that the server cannot have taken the message; after that nobody
 * knows, unless a reply says so.
 */
#include "proto/smtp_client_internal.h"

enum { TEXT_BUDGET_BYTES = 256 << 10 }; /* of one transaction's reply texts; beyond: no text */

enum smtp_client_stage stage_now(struct smtp_client *client)
{
    static const enum smtp_client_stage stages[] = {
        [STEP_ORIGIN] = SMTP_CLIENT_AT_MAIL,         [STEP_RESET] = SMTP_CLIENT_AT_MAIL,
        [STEP_FORWARD] = SMTP_CLIENT_AT_MAIL,        [STEP_MAIL] = SMTP_CLIENT_AT_MAIL,
        [STEP_RECIPIENT] = SMTP_CLIENT_AT_RECIPIENT, [STEP_DATA] = SMTP_CLIENT_AT_DATA,
        [STEP_CONTENT] = SMTP_CLIENT_AT_CONTENT,     [STEP_DOT] = SMTP_CLIENT_AT_DOT,
        [STEP_EMPTY_DOT] = SMTP_CLIENT_AT_DATA,      [STEP_TAKE_BACK] = SMTP_CLIENT_AT_RECIPIENT,
    };
    if (client->step == SESSION_GREETING) {
        return SMTP_CLIENT_AT_GREETING;
    }
    if (client->step == SESSION_STARTTLS || client->step == SESSION_TLS) {
        return SMTP_CLIENT_AT_TLS;
    }
    if (client->step == SESSION_AUTH) {
        return SMTP_CLIENT_AT_AUTH;
    }
    if (client->step < SESSION_OPEN && client->origin.step == ORIGIN_SETTLED) {
        return SMTP_CLIENT_AT_HELLO;
    }
    for (uint32_t i = 0; i < client->count; i++) {
        const struct transaction *t = slot_at(client, i);
        if (t->answer == STEP_DONE) {
            continue;
        }
        if (!t->started) {
            return SMTP_CLIENT_AT_IDLE;
        }
        if (t->dot_end > 0) {
            return dot_has_left(client, t) ? SMTP_CLIENT_AT_DOT : SMTP_CLIENT_AT_CONTENT;
        }
        if (t->answer == STEP_CONTENT && t->chunked && t->content_offset == 0) {
            return SMTP_CLIENT_AT_DATA; /* all is accepted, nothing of the content has left */
        }
        return stages[t->answer];
    }
    return SMTP_CLIENT_AT_IDLE;
}

/* Pipelined replies are often the same for many recipients: one copy serves them. */
static struct slice keep_text(struct transaction *t, uint32_t index, struct slice text)
{
    if (index > 0 && slice_equal(t->outcomes[index - 1].cause.text, text)) {
        return t->outcomes[index - 1].cause.text;
    }
    if (t->arena.used > TEXT_BUDGET_BYTES) {
        return SLICE_EMPTY;
    }
    return arena_copy(&t->arena, text);
}

void decide(struct transaction *t, uint32_t index, enum smtp_client_verdict verdict,
            const struct smtp_client_cause *cause)
{
    if (t->states[index] == RECIPIENT_DECIDED || t->states[index] == RECIPIENT_SKIPPED) {
        return;
    }
    t->states[index] = RECIPIENT_DECIDED;
    t->undecided--;
    t->outcomes[index].verdict = verdict;
    t->outcomes[index].cause = *cause;
    t->outcomes[index].cause.text = keep_text(t, index, cause->text);
}

void decide_rest(struct transaction *t, enum smtp_client_verdict verdict,
                 const struct smtp_client_cause *cause)
{
    for (uint32_t i = 0; i < t->mail.recipient_count && t->undecided > 0; i++) {
        decide(t, i, verdict, cause);
    }
}

void transaction_finish(struct transaction *t)
{
    t->send = STEP_DONE;
    t->answer = STEP_DONE;
    t->chunks_unanswered = 0;
    t->asked = false;
}

static enum smtp_client_verdict verdict_at_end(struct smtp_client *client,
                                               const struct transaction *t,
                                               const struct smtp_client_cause *cause)
{
    if (cause->how == SMTP_CLIENT_REPLY) {
        return SMTP_CLIENT_REFUSED;
    }
    return dot_has_left(client, t) ? SMTP_CLIENT_IN_DOUBT : SMTP_CLIENT_CUT;
}

static void end(struct smtp_client *client, const struct smtp_client_cause *cause, bool given_up)
{
    if (client->step == SESSION_CLOSED) {
        return;
    }
    bool turn = true; /* no unfinished transaction before this one */
    for (uint32_t i = 0; i < client->count; i++) {
        struct transaction *t = slot_at(client, i);
        if (t->answer == STEP_DONE) {
            continue;
        }
        enum smtp_client_verdict verdict = SMTP_CLIENT_NOT_TRIED;
        if (turn && t->started) {
            verdict = verdict_at_end(client, t, cause);
        }
        if (given_up && verdict == SMTP_CLIENT_CUT) {
            verdict = SMTP_CLIENT_NOT_TRIED;
        }
        decide_rest(t, verdict, cause);
        transaction_finish(t);
        turn = false;
    }
    size_t length = cause->text.length < sizeof(client->end_text) ? cause->text.length
                                                                  : sizeof(client->end_text);
    if (length > 0) {
        memmove(client->end_text, cause->text.data, length);
    }
    client->end = *cause;
    client->end.text = slice_make(client->end_text, length);
    client->step = SESSION_CLOSED;
    buffer_done(&client->output);
    client->output_offset = 0;
}

void session_end(struct smtp_client *client, const struct smtp_client_cause *cause)
{
    end(client, cause, false);
}

void session_give_up(struct smtp_client *client, const struct smtp_client_cause *cause)
{
    end(client, cause, true);
}

void session_broken(struct smtp_client *client, const char *text)
{
    struct smtp_client_cause cause = cause_of_text(stage_now(client), SMTP_CLIENT_LOST, text);
    session_end(client, &cause);
}

void session_out_of_memory(struct smtp_client *client)
{
    struct smtp_client_cause cause =
        cause_of_text(stage_now(client), SMTP_CLIENT_LOCAL, "out of memory");
    session_give_up(client, &cause);
}
