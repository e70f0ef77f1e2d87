/* SPDX-License-Identifier: Apache-2.0
 *
 * ETRN: core is asked, and its answer put into the words of RFC 1985. A session waits for at most
 * one answer, and for no longer than ETRN_PATIENCE_MS: whatever becomes of core, it hears 458.
 */
#include "service/smtp_in_internal.h"

#include "relay/etrn.h"
#include "sys/clock.h"

#include <stdio.h>

enum { ETRN_PATIENCE_MS = 30000 };

static const struct smtp_answer not_now = {
    458, "4.3.0", SLICE_LITERAL("Unable to queue messages, try again later")};

struct buffer *request_begin(struct session *session, enum channel_frame type, uint64_t *ret_token)
{
    struct buffer *frame = &session->in->frame;
    const struct ip_address *client = &session->client.address;
    *ret_token = session->in->next_token++;
    buffer_clear(frame);
    buffer_put_u8(frame, (uint8_t)type);
    buffer_put_u64(frame, *ret_token);
    buffer_append(frame, slice_make(client->bytes, sizeof(client->bytes)));
    return frame;
}

bool request_send(struct session *session, uint64_t token)
{
    struct smtp_in *in = session->in;
    if (in->ring == NULL || in->frame.failed || map_put(&in->etrns, token, session) != ERROR_NONE) {
        return false;
    }
    if (ring_send(in->ring, buffer_slice(&in->frame)) != ERROR_NONE) {
        (void)map_remove(&in->etrns, token);
        return false;
    }
    session->etrn = token;
    return true;
}

bool etrn_ask(struct session *session, const struct smtp_server_event *event,
              struct smtp_answer *ret_answer)
{
    uint64_t token;
    struct buffer *frame = request_begin(session, CHANNEL_ETRN, &token);
    *ret_answer = not_now;
    buffer_put_u8(frame, event->with_subdomains);
    buffer_put_bytes(frame, event->name);
    return !request_send(session, token);
}

void etrn_forget(struct session *session)
{
    if (session->etrn != 0) {
        (void)map_remove(&session->in->etrns, session->etrn);
        session->etrn = 0;
        session->is_atrn = false;
    }
}

static void answer(struct session *session, const struct smtp_answer *reply)
{
    etrn_forget(session);
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
    struct session *session = map_get(&in->etrns, token);
    if (session == NULL) {
        return true; /* the client has gone */
    }
    if (session->is_atrn) {
        return false;
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
    case RELAY_ETRN_OUTCOMES:
        break;
    }
    answer(session, &reply);
    return true;
}

static void give_up(struct session *session)
{
    if (session->is_atrn) {
        odmr_give_up(session);
    } else {
        answer(session, &not_now);
    }
}

bool etrn_expire(struct session *session, int64_t now_ms)
{
    if (session->etrn == 0 || now_ms - session->touched_ms < ETRN_PATIENCE_MS) {
        return false;
    }
    give_up(session);
    return true;
}

void etrn_core_gone(struct smtp_in *in)
{
    size_t cursor = 0;
    for (struct session *session; (session = map_next(&in->etrns, &cursor)) != NULL;) {
        give_up(session);
        cursor = 0; /* the table has changed */
    }
}
