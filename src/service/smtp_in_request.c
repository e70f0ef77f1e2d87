/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions to core that a session waits for: at most one at a time, and for no longer than
 * patience_ms(), whatever becomes of core. Each has its own kind of answer.
 */
#include "service/smtp_in_internal.h"

enum { PATIENCE_MS = 30000, LISTING_PATIENCE_MS = 5000 };

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

bool request_send(struct session *session, enum request_kind kind, uint64_t token)
{
    struct smtp_in *in = session->in;
    if (in->ring == NULL || in->frame.failed ||
        map_put(&in->requests, token, session) != ERROR_NONE) {
        return false;
    }
    if (ring_send(in->ring, buffer_slice(&in->frame)) != ERROR_NONE) {
        (void)map_remove(&in->requests, token);
        return false;
    }
    session->request = token;
    session->asks = kind;
    return true;
}

bool request_find(const struct smtp_in *in, uint64_t token, enum request_kind kind,
                  struct session **ret_session)
{
    *ret_session = map_get(&in->requests, token);
    return *ret_session == NULL || (*ret_session)->asks == kind;
}

void request_forget(struct session *session)
{
    if (session->request != 0) {
        (void)map_remove(&session->in->requests, session->request);
        session->request = 0;
    }
}

static void give_up(struct session *session)
{
    switch (session->asks) {
    case REQUEST_ETRN:
        etrn_give_up(session);
        break;
    case REQUEST_ATRN:
        odmr_give_up(session);
        break;
    case REQUEST_RECIPIENT:
        envelope_recipient_give_up(session);
        break;
    case REQUEST_LISTING:
        listing_give_up(session);
        break;
    }
}

static int64_t patience_ms(const struct session *session)
{
    return session->asks == REQUEST_LISTING ? LISTING_PATIENCE_MS : PATIENCE_MS;
}

bool request_expire(struct session *session, int64_t now_ms)
{
    if (session->request == 0 || now_ms - session->touched_ms < patience_ms(session)) {
        return false;
    }
    give_up(session);
    return true;
}

void request_core_gone(struct smtp_in *in)
{
    size_t cursor = 0;
    for (struct session *session; (session = map_next(&in->requests, &cursor)) != NULL;) {
        give_up(session);
        cursor = 0; /* the table has changed */
    }
}
