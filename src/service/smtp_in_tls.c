/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS of a session: the handshake, after STARTTLS or before the greeting. While hands are shaken
 * nothing is heard or said, and it must be done in time.
 */
#include "service/smtp_in_internal.h"

#include "sys/clock.h"
#include "sys/log.h"

#include <stdlib.h>

bool listener_take_tls(struct listener *listener, const struct smtp_in_shared *shared,
                       const struct listener_config *from)
{
    char problem[TLS_PROBLEM_SIZE] = "";
    const struct tls_server_settings settings = {
        .certificates = from->certificates,
        .certificate_count = from->certificate_count,
        .tickets = smtp_in_tickets(shared),
        .ask_client = from->client_ca.length > 0,
        .client_authorities = from->client_ca,
    };
    if (from->tls == LISTENER_TLS_NONE) {
        return true;
    }
    listener->is_implicit = from->tls == LISTENER_TLS_IMPLICIT;
    listener->tls = tls_server_new(&settings, problem);
    if (listener->tls == NULL) {
        log_event(LOG_LEVEL_ERROR, "tls", LOG_SLICE("listener", from->name),
                  LOG_TEXT("reason", problem));
    }
    return listener->tls != NULL;
}

static void fail(struct session *session, const char *problem)
{
    const struct smtp_answer answer = {0, NULL, slice_from_text(problem)};
    counter_add(session->in->counters, COUNTER_TLS_FAILURES, 1);
    session_log_refused(session, "tls", SLICE_EMPTY, &answer);
    session_free(session);
}

bool session_tls_begin(struct session *session)
{
    if (session->listener->tls == NULL) {
        fail(session, "the listener has none any more"); /* reloaded behind its 220 */
        return false;
    }
    session->tls = tls_accept(session->listener->tls, session->fd);
    if (session->tls == NULL) {
        fail(session, "out of memory");
        return false;
    }
    session->is_shaking = true;
    session->touched_ms = clock_steady_ms();
    return session_tls_go_on(session);
}

/* What was said in the clear is forgotten. */
static void secured(struct session *session)
{
    session->is_shaking = false;
    counter_add(session->in->counters, COUNTER_TLS_SESSIONS, 1);
    if (smtp_server_wants_handshake(&session->server)) {
        free(session->helo);
        session->helo = NULL;
        session->helo_length = 0;
        session->is_extended = false;
        session->has_told_helo = session->has_told_protocol = false;
        login_forget(session);
        smtp_server_secured(&session->server, clock_steady_ms());
    } else {
        smtp_server_set_secure(&session->server, true);
    }
}

bool session_tls_go_on(struct session *session)
{
    char problem[TLS_PROBLEM_SIZE] = "";
    unsigned wanted;
    enum error error = tls_shake_hands(session->tls, problem);
    switch (error) {
    case ERROR_NONE:
        secured(session);
        return session_go_on(session);
    case ERROR_AGAIN:
        wanted = tls_wants(session->tls);
        if (wanted != session->watched) {
            session->watched = (uint8_t)wanted;
            loop_watch_set(session->watch, wanted);
        }
        return true;
    default:
        fail(session, problem);
        return false;
    }
}

bool session_tls_expire(struct session *session, int64_t now_ms)
{
    uint32_t most_ms = session->in->config->limits.command_timeout_ms;
    most_ms = most_ms == 0 || most_ms > SMTP_IN_HANDSHAKE_MS ? SMTP_IN_HANDSHAKE_MS : most_ms;
    if (!session->is_shaking || now_ms - session->touched_ms < most_ms) {
        return false;
    }
    fail(session, "the handshake has taken too long");
    return true;
}

struct slice session_tls_text(const struct session *session, char room[TLS_TEXT_SIZE])
{
    if (session->tls == NULL || session->is_shaking) {
        return slice_from_text(session->proxied_tls);
    }
    tls_describe(session->tls, room);
    return slice_from_text(room);
}
