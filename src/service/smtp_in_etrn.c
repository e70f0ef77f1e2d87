/* SPDX-License-Identifier: Apache-2.0
 *
 * ETRN: core is asked, and its answer put into the words of RFC 1985. A session waits for at most
 * one answer: whatever becomes of core, it hears 458.
 */
#include "service/smtp_in_internal.h"

#include "relay/etrn.h"

#include <stdio.h>

static const struct smtp_answer not_now = {
    458, "4.3.0", SLICE_LITERAL("Unable to queue messages, try again later")};

bool etrn_ask(struct session *session, const struct smtp_server_event *event,
              struct smtp_answer *ret_answer)
{
    uint64_t token;
    struct buffer *frame = request_begin(session, CHANNEL_ETRN, &token);
    *ret_answer = not_now;
    buffer_put_u8(frame, event->with_subdomains);
    buffer_put_bytes(frame, event->name);
    return !request_send(session, REQUEST_ETRN, token);
}

static void answer(struct session *session, const struct smtp_answer *reply)
{
    request_forget(session);
    session_answer(session, SMTP_SERVER_ETRN, reply);
}

static const char *why_not(enum relay_etrn_outcome outcome)
{
    static const char *const texts[RELAY_ETRN_OUTCOMES] = {
        [RELAY_ETRN_HELD] = "held by the operator",
        [RELAY_ETRN_REFUSED] = "were refused before, and are held",
        [RELAY_ETRN_TAKEN_OUT] = "wait for servers that are taken out by hand",
        [RELAY_ETRN_CALLS] = "wait for a server that calls by ATRN",
        [RELAY_ETRN_DRILL] = "held back by a drill",
    };
    return texts[outcome];
}

bool etrn_take(struct smtp_in *in, struct reader *reader)
{
    char text[120];
    uint64_t token = reader_u64(reader);
    uint8_t outcome = reader_u8(reader);
    uint64_t messages = reader_u64(reader);
    struct smtp_answer reply = not_now;
    if (reader->failed || outcome >= RELAY_ETRN_OUTCOMES) {
        return false;
    }
    struct session *session;
    if (!request_find(in, token, REQUEST_ETRN, &session)) {
        return false;
    }
    if (session == NULL) {
        return true;
    }
    switch ((enum relay_etrn_outcome)outcome) {
    case RELAY_ETRN_DENIED:
        reply = (struct smtp_answer){459, "4.7.1", SLICE_LITERAL("Not allowed from your address")};
        break;
    case RELAY_ETRN_NOTHING:
        reply = (struct smtp_answer){251, "2.0.0", SLICE_LITERAL("Ok, no messages waiting")};
        break;
    case RELAY_ETRN_COUNTED:
        snprintf(text, sizeof(text), "Ok, %llu pending messages started",
                 (unsigned long long)messages);
        reply = (struct smtp_answer){253, "2.0.0", slice_from_text(text)};
        break;
    case RELAY_ETRN_UNCOUNTED:
        reply = (struct smtp_answer){252, "2.0.0", SLICE_LITERAL("Ok, pending messages started")};
        break;
    case RELAY_ETRN_STARTED:
        reply = (struct smtp_answer){250, "2.0.0", SLICE_LITERAL("Ok, queuing started")};
        break;
    case RELAY_ETRN_HELD:
    case RELAY_ETRN_REFUSED:
    case RELAY_ETRN_TAKEN_OUT:
    case RELAY_ETRN_CALLS:
    case RELAY_ETRN_DRILL:
        snprintf(text, sizeof(text), "Unable to queue messages: %llu %s",
                 (unsigned long long)messages, why_not((enum relay_etrn_outcome)outcome));
        reply = (struct smtp_answer){458, "4.3.0", slice_from_text(text)};
        break;
    case RELAY_ETRN_LATER:
    case RELAY_ETRN_OUTCOMES:
        break;
    }
    answer(session, &reply);
    return true;
}

void etrn_give_up(struct session *session)
{
    answer(session, &not_now);
}
