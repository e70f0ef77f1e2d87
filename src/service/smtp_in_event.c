/* SPDX-License-Identifier: Apache-2.0
 *
 * Events of the protocol core, and what is answered to each.
 */
#include "service/smtp_in_internal.h"

#include "sys/clock.h"
#include "sys/log.h"

#include <stdio.h>
#include <stdlib.h>

static void send_refused(struct smtp_in *in, struct channel_refusal *refusal,
                         const struct smtp_answer *answer)
{
    char text[CHANNEL_REFUSAL_TEXT_MAX];
    int length =
        snprintf(text, sizeof(text), "%s%s%.*s", answer->enhanced != NULL ? answer->enhanced : "",
                 answer->enhanced != NULL ? " " : "", SLICE_PRINT(answer->text));
    refusal->code = answer->code;
    refusal->text = slice_take(slice_make(text, (size_t)length), sizeof(text) - 1);
    core_send_refused(in, refusal);
}

void trace_refused(struct smtp_in *in, const char *stage, const struct ip_address *client,
                   const struct smtp_answer *answer)
{
    struct channel_refusal refusal = {.stage = slice_from_text(stage), .client = *client};
    send_refused(in, &refusal, answer);
}

static void tell_refused(const struct session *session, struct channel_refusal *refusal,
                         const struct smtp_answer *answer)
{
    char client[IP_TEXT_SIZE];
    ip_to_text(&session->client.address, client);
    refusal->client = session->client.address;
    refusal->helo = slice_make(session->helo, session->helo_length);
    log_event(LOG_LEVEL_INFO, "refused", LOG_SLICE("stage", refusal->stage),
              LOG_TEXT("client", client), LOG_SLICE("helo", refusal->helo),
              LOG_SLICE("sender", refusal->sender), LOG_SLICE("recipient", refusal->recipient),
              LOG_NUMBER("code", answer->code), LOG_SLICE("reason", answer->text));
    send_refused(session->in, refusal, answer);
}

void session_log_refused(const struct session *session, const char *stage, struct slice recipient,
                         const struct smtp_answer *answer)
{
    const struct transaction *transaction = session->transaction;
    struct channel_refusal refusal = {.stage = slice_from_text(stage), .recipient = recipient};
    if (transaction != NULL) {
        refusal.id = transaction->id;
        refusal.has_sender = true;
        refusal.sender = transaction->sender;
    }
    tell_refused(session, &refusal, answer);
}

void session_log_refused_sender(const struct session *session, struct slice sender,
                                const struct smtp_answer *answer)
{
    struct channel_refusal refusal = {
        .stage = SLICE_LITERAL("mail"), .has_sender = true, .sender = sender};
    tell_refused(session, &refusal, answer);
}

static struct smtp_answer greet(struct session *session)
{
    if (session->in->ring == NULL) {
        counter_add(session->in->counters, COUNTER_SESSIONS_REFUSED, 1);
        return (struct smtp_answer){421, "4.3.2", SLICE_LITERAL("Service is starting")};
    }
    struct smtp_answer answer = client_admission(session);
    return answer.code != 0 ? answer : guard_connect(session);
}

static struct smtp_answer hello(struct session *session, const struct smtp_server_event *event)
{
    session->is_extended = session->has_told_protocol ? session->is_extended : event->is_extended;
    smtp_server_offer(&session->server, envelope_offers(session));
    if (session->has_told_helo) {
        return SMTP_ACCEPT;
    }
    char *helo = malloc(event->name.length);
    if (helo == NULL) {
        return (struct smtp_answer){421, "4.3.0", SLICE_LITERAL("Out of memory")};
    }
    memcpy(helo, event->name.data, event->name.length);
    free(session->helo);
    session->helo = helo;
    session->helo_length = (uint32_t)event->name.length;
    return SMTP_ACCEPT;
}

static void end_transaction(struct session *session)
{
    milters_message_over(session);
    transaction_free(session->transaction);
    session->transaction = NULL;
}

static void aborted(struct session *session, const char *reason)
{
    struct transaction *transaction = session->transaction;
    if (transaction != NULL && transaction->has_content) {
        struct smtp_answer answer = {0, NULL, slice_from_text(reason)};
        counter_add(session->in->counters, COUNTER_MESSAGES_REFUSED, 1);
        session_log_refused(session, "content", transaction->shown_recipient, &answer);
    }
    end_transaction(session);
}

void session_answer_event(struct session *session, enum smtp_server_event_kind kind,
                          const struct smtp_answer *answer)
{
    bool refused = answer->code >= 300;
    bool ends = kind == SMTP_SERVER_END || (refused && kind == SMTP_SERVER_DATA) ||
                (refused && kind == SMTP_SERVER_MAIL);
    if (refused && (kind == SMTP_SERVER_END || kind == SMTP_SERVER_DATA)) {
        counter_add(session->in->counters, COUNTER_MESSAGES_REFUSED, 1);
        session_log_refused(session, kind == SMTP_SERVER_END ? "end" : "data",
                            session->transaction->shown_recipient, answer);
    }
    smtp_server_answer(&session->server, answer, clock_steady_ms());
    if (ends) {
        end_transaction(session);
    }
}

void session_handle(struct session *session, const struct smtp_server_event *event)
{
    struct smtp_answer answer = SMTP_ACCEPT;
    switch (event->kind) {
    case SMTP_SERVER_NONE:
        return;
    case SMTP_SERVER_CONTENT:
        content_add(session->transaction, session->in, event->bytes);
        return;
    case SMTP_SERVER_ABORT:
        aborted(session, event->reason);
        return;
    case SMTP_SERVER_CLOSE:
        session->is_closing = true;
        return;
    case SMTP_SERVER_GREETING:
        answer = greet(session);
        if (answer.code == 0 && !listing_check(session, &answer)) {
            return;
        }
        break;
    case SMTP_SERVER_HELLO:
        answer = hello(session, event);
        break;
    case SMTP_SERVER_MAIL:
        answer = guard_mail(session, event->mailbox.text);
        answer = answer.code == 0 ? envelope_mail(session, event) : answer;
        break;
    case SMTP_SERVER_RECIPIENT:
        if (!envelope_recipient(session, event, &answer)) {
            return;
        }
        break;
    case SMTP_SERVER_DATA:
        answer = content_begin(session);
        break;
    case SMTP_SERVER_END:
        if (!content_end(session, event->content, &answer)) {
            return;
        }
        break;
    case SMTP_SERVER_XFORWARD:
        answer = client_forward(session, event);
        break;
    case SMTP_SERVER_ETRN:
        if (!etrn_ask(session, event, &answer)) {
            return;
        }
        break;
    case SMTP_SERVER_STARTTLS:
        if (session->listener->tls == NULL) { /* it was there when it was offered */
            answer = (struct smtp_answer){454, "4.7.0", SLICE_LITERAL("TLS is not available now")};
        }
        break;
    case SMTP_SERVER_AUTH:
    case SMTP_SERVER_RESPONSE:
        if (!login_take(session, event, &answer)) {
            return;
        }
        break;
    case SMTP_SERVER_XCLIENT:
        answer = client_present(session, event);
        break;
    case SMTP_SERVER_ATRN:
        if (!odmr_atrn(session, event, &answer)) {
            return;
        }
        break;
    }
    if (!milters_hold(session, event, &answer) && !guard_holds(session, event->kind, &answer)) {
        session_answer_event(session, event->kind, &answer);
    }
}
