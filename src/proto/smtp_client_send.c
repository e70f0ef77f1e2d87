/* SPDX-License-Identifier: Apache-2.0
 *
 * The sending cursor. With PIPELINING (RFC 2920) a whole envelope leaves at once, and that of the
 * next transaction behind the final dot of the one before; without it each command waits for the
 * reply to the last.
 *
 *   ORIGIN     -> RESET           when the connection stands for whose mail it is, or for us
 *   RESET      -> FORWARD         at once when there is nothing to undo
 *   FORWARD    -> MAIL            at once when XFORWARD is not to be said
 *   MAIL       -> RECIPIENT
 *   RECIPIENT  -> DATA            behind the last one; CONTENT with CHUNKING
 *                                 (envelope_only ends here, by its replies: smtp_client_answer.c)
 *   DATA       -> CONTENT
 *   CONTENT    -> DOT             when all of it is queued (smtp_client_content)
 *   DOT        -> DONE            when smtp_client_go() has been said
 */
#include "proto/smtp_client_internal.h"

enum { OUTPUT_MAX_BYTES = SMTP_CLIENT_PIECE_MAX }; /* commands queue up to this much */

/* Decides what takes part in it. */
static void begin(struct smtp_client *client, struct transaction *t)
{
    const struct smtp_client_capabilities *capabilities = &client->capabilities;
    if (capabilities->mails_max > 0 && client->mails >= capabilities->mails_max) {
        struct smtp_client_cause cause =
            cause_of_text(SMTP_CLIENT_AT_IDLE, SMTP_CLIENT_LOCAL,
                          "server takes no more transactions on this connection");
        decide_rest(t, SMTP_CLIENT_NOT_TRIED, &cause);
        client->quit_asked = true;
    }
    if (capabilities->recipients_max > 0 &&
        t->mail.recipient_count > capabilities->recipients_max) {
        struct smtp_client_cause cause =
            cause_of_text(SMTP_CLIENT_AT_RECIPIENT, SMTP_CLIENT_LOCAL,
                          "server takes no more recipients in one transaction");
        t->recipient_limit = capabilities->recipients_max;
        for (uint32_t i = t->recipient_limit; i < t->mail.recipient_count; i++) {
            decide(t, i, SMTP_CLIENT_NOT_TRIED, &cause);
        }
    }
    check_envelope(client, t);
    t->chunked = offers(client, SMTP_CLIENT_CAP_CHUNKING) &&
                 offers(client, SMTP_CLIENT_CAP_PIPELINING) &&
                 t->mail.size > SMTP_CLIENT_PIECE_MAX && !t->mail.envelope_only;
    if (t->undecided == 0) {
        transaction_finish(t);
    }
}

static bool send_origin(struct smtp_client *client, struct transaction *t)
{
    if (!origin_begin(client, t)) {
        return false;
    }
    if (t->send == STEP_RESET) {
        begin(client, t);
    }
    return true;
}

static bool send_reset(struct smtp_client *client, struct transaction *t)
{
    t->forwards = origin_forwards(client);
    t->send = step_after_reset(t);
    if (client->needs_reset) {
        queue_text(client, "RSET\r\n");
        client->needs_reset = false;
    } else {
        t->answer = t->send;
    }
    return true;
}

static bool send_forward(struct smtp_client *client, struct transaction *t)
{
    origin_queue_forward(client, t);
    t->started = true;
    t->reused = client->mails > 0;
    t->send = STEP_MAIL;
    return true;
}

static bool send_mail(struct smtp_client *client, struct transaction *t)
{
    queue_mail(client, t);
    t->started = true;
    t->reused = client->mails > 0;
    client->mails++;
    t->send = STEP_RECIPIENT;
    t->send_recipient = next_participant(t, 0);
    return true;
}

static bool send_recipient(struct smtp_client *client, struct transaction *t)
{
    queue_recipient(client, t, t->send_recipient);
    t->send_recipient = next_participant(t, t->send_recipient + 1);
    if (t->send_recipient == t->recipient_limit) {
        t->send_recipient = 0;
        t->send = t->chunked ? STEP_CONTENT : STEP_DATA;
    }
    return true;
}

static bool send_data(struct smtp_client *client, struct transaction *t)
{
    if (t->mail.envelope_only) {
        return false;
    }
    queue_text(client, "DATA\r\n");
    t->send = STEP_CONTENT;
    return true;
}

static bool send_content(struct smtp_client *client, struct transaction *t)
{
    (void)client;
    if (t->answer < STEP_CONTENT || t->content_offset < t->mail.size) {
        return false;
    }
    t->send = STEP_DOT;
    return true;
}

static bool send_dot(struct smtp_client *client, struct transaction *t)
{
    if (!t->go) {
        return false;
    }
    queue_dot(client, t);
    t->send = STEP_DONE;
    if (t->chunks_unanswered == 0) {
        t->answer = STEP_DOT;
    }
    return true;
}

typedef bool send_fn(struct smtp_client *client, struct transaction *t);

static send_fn *const send_steps[STEP_DONE] = {
    [STEP_ORIGIN] = send_origin,       [STEP_RESET] = send_reset,
    [STEP_FORWARD] = send_forward,     [STEP_MAIL] = send_mail,
    [STEP_RECIPIENT] = send_recipient, [STEP_DATA] = send_data,
    [STEP_CONTENT] = send_content,     [STEP_DOT] = send_dot,
};

static bool may_send(struct smtp_client *client, const struct transaction *t)
{
    if (t->send == STEP_DONE || t->undecided == 0 || client->output.failed) {
        return false;
    }
    if (t->send < STEP_CONTENT && output_backlog(client) >= OUTPUT_MAX_BYTES) {
        return false;
    }
    if (offers(client, SMTP_CLIENT_CAP_PIPELINING)) {
        return true;
    }
    for (uint32_t i = 0; i < client->count; i++) {
        if (transaction_awaits(slot_at(client, i))) {
            return false;
        }
    }
    return true;
}

void advance(struct smtp_client *client)
{
    if (client->step != SESSION_OPEN) {
        return;
    }
    bool all_over = true;
    bool turn = true; /* everything before has left whole */
    for (uint32_t i = 0; i < client->count; i++) {
        struct transaction *t = slot_at(client, i);
        while (turn && may_send(client, t) && send_steps[t->send](client, t)) {
        }
        turn = turn && t->send == STEP_DONE;
        all_over = all_over && t->answer == STEP_DONE;
    }
    if (client->quit_asked && all_over) {
        queue_text(client, "QUIT\r\n");
        client->step = SESSION_QUIT;
    }
}
