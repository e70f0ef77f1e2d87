/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection: bytes in, replies out, time.
 *
 * Input is read into the loop's one scratch buffer and used from there; only what cannot be used
 * yet is kept with the session. Interest in reading is given up lazily, when input comes that
 * cannot be used: an ordinary dialogue then needs no system call for it.
 */
#include "service/smtp_in_internal.h"

#include "sys/clock.h"
#include "sys/net.h"

#include <assert.h>
#include <stdlib.h>

enum { READS_PER_TURN = 4 }; /* so that one client that never pauses leaves time for others */

static void touch(struct session *session, int64_t now_ms)
{
    session->touched_ms = now_ms;
    list_remove(&session->link);
    list_append(&session->in->sessions, &session->link);
}

void session_watch(struct session *session, unsigned interest)
{
    unsigned watched =
        session->is_shaking ? tls_wants(session->tls) : tls_interest(session->tls, interest);
    session->interest = (uint8_t)interest;
    if (watched != session->watched) {
        session->watched = (uint8_t)watched;
        loop_watch_set(session->watch, watched);
    }
}

void session_wait(struct session *session)
{
    if (!session->is_waiting) {
        session->is_waiting = true;
        session->is_hurried = false;
        list_remove(&session->waiting);
        list_append(&session->in->waiting, &session->waiting);
        loop_timer_set(session->in->retry, 50);
    }
}

/* ---- the end ----------------------------------------------------------------------------- */

void session_free(struct session *session)
{
    struct smtp_in *in = session->in;
    struct transaction *transaction = session->transaction;
    if (transaction != NULL && transaction->has_content && transaction->state == TRANSACTION_OPEN) {
        struct smtp_answer lost = {0, NULL, SLICE_LITERAL("connection lost")};
        session_log_refused(session, "content", transaction->shown_recipient, &lost);
    }
    if (transaction != NULL && transaction->state == TRANSACTION_SENT) {
        transaction->session = NULL; /* core will answer; nobody waits for it */
    } else {
        transaction_free(transaction);
    }
    milters_free(session);
    request_forget(session);
    guard_forget(session);
    login_forget(session);
    carry_free(session);
    counter_add(in->counters, COUNTER_SMTP_ERRORS, session->server.errors);
    counter_add(in->counters, COUNTER_SESSIONS_OPEN, (uint64_t)-1);
    client_left(session);
    loop_watch_free(session->watch);
    tls_free(session->tls);
    net_close(session->fd);
    smtp_server_done(&session->server);
    list_remove(&session->link);
    list_remove(&session->waiting);
    listener_unref(session->listener);
    smtp_in_content_shrunk(in->shared, session->unread_length);
    free(session->unread);
    free(session->helo);
    free(session->forwarded);
    free(session->told_names);
    free(session);
    in->session_count--;
    smtp_in_ended(in);
}

/* Sends what there is. False: the connection is lost. */
static bool send_output(struct session *session)
{
    for (;;) {
        struct slice output = smtp_server_output(&session->server);
        size_t sent = 0;
        if (output.length == 0) {
            return true;
        }
        enum error error = stream_send(session->tls, session->fd, output, &sent);
        if (error == ERROR_AGAIN) {
            return true;
        }
        if (error != ERROR_NONE) {
            return false;
        }
        smtp_server_sent(&session->server, sent);
    }
}

/* ---- input ------------------------------------------------------------------------------- */

static bool takes_content(const struct session *session)
{
    return session->transaction != NULL && session->transaction->has_content &&
           session->transaction->state == TRANSACTION_OPEN;
}

/* False: it must wait for room. */
static bool take_events(struct session *session)
{
    struct smtp_server_event event;
    for (;;) {
        if (takes_content(session) &&
            !content_has_room(session, smtp_server_unread(&session->server).length)) {
            return false;
        }
        if (!smtp_server_next(&session->server, &event)) {
            return true;
        }
        session_handle(session, &event);
    }
}

/* Keeps the rest of the input, which may lie in session->unread itself. False: memory. */
bool session_keep(struct session *session, struct slice rest)
{
    uint8_t *kept = session->unread;
    size_t before = session->unread_length;
    if (rest.length > 0 && before > 0 && rest.data >= kept && rest.data < kept + before) {
        memmove(kept, rest.data, rest.length);
    } else {
        kept = rest.length > 0 ? malloc(rest.length) : NULL;
        if (rest.length > 0 && kept == NULL) {
            return false;
        }
        if (kept != NULL) {
            memcpy(kept, rest.data, rest.length);
        }
        free(session->unread);
        session->unread = kept;
    }
    session->unread_length = (uint32_t)rest.length;
    smtp_in_content_grown(session->in->shared, rest.length);
    smtp_in_content_shrunk(session->in->shared, before);
    return true;
}

static bool wants_input(const struct session *session)
{
    return smtp_server_wants_input(&session->server) || guard_listens(session);
}

void session_hurry(struct session *session)
{
    if (!session->is_hurried) {
        session->is_hurried = true;
        list_append(&session->in->hurried, &session->waiting);
        loop_later_ask(session->in->hurry);
    }
}

static void update_interest(struct session *session)
{
    unsigned interest = session->interest & LOOP_READ;
    if (smtp_server_output(&session->server).length > 0) {
        interest |= LOOP_WRITE;
    }
    if (session->is_waiting || session->is_closing) {
        interest &= ~(unsigned)LOOP_READ;
    } else if (wants_input(session)) {
        interest |= LOOP_READ;
    }
    session_watch(session, interest);
    bool has_more = session->tls != NULL && (interest & LOOP_READ) != 0 && !session->is_shaking &&
                    tls_has_unread(session->tls);
    if (has_more) {
        session_hurry(session);
    }
}

static bool is_idle(const struct session *session)
{
    return smtp_server_is_idle(&session->server) && session->unread_length == 0;
}

/* After anything that may have moved the session on. False: it is gone. */
static bool settle(struct session *session)
{
    if (session->in->is_stopping && is_idle(session)) {
        session_dismiss(session);
        return false;
    }
    bool is_sent = send_output(session);
    bool is_done = session->is_closing && smtp_server_output(&session->server).length == 0;
    if (is_sent && is_done && session->carriage != NULL) {
        return carry_begin(session);
    }
    if (!is_sent || is_done) {
        session_free(session);
        return false;
    }
    if (smtp_server_wants_handshake(&session->server) && session->tls == NULL &&
        smtp_server_output(&session->server).length == 0) {
        return session_tls_begin(session);
    }
    update_interest(session);
    return true;
}

/* Uses `input`, sends what comes of it. False: the session is gone. */
static bool run(struct session *session, struct slice input)
{
    int64_t now_ms = clock_steady_ms();
    touch(session, now_ms);
    if (guard_listens(session) && input.length > 0) {
        guard_talked(session);
    }
    for (;;) {
        smtp_server_input(&session->server, input, now_ms);
        bool has_room = take_events(session);
        struct slice rest = smtp_server_unread(&session->server);
        bool output_full = rest.length > 0 && !smtp_server_wants_input(&session->server);
        if (!has_room) {
            session_wait(session);
        }
        if (!send_output(session)) {
            session_free(session);
            return false;
        }
        if (has_room && output_full && smtp_server_wants_input(&session->server)) {
            input = rest; /* replies had piled up; now they have left */
            continue;
        }
        if (!session_keep(session, rest)) {
            session_free(session);
            return false;
        }
        smtp_server_input(&session->server, SLICE_EMPTY, now_ms);
        break;
    }
    content_relieve(session);
    if (smtp_server_deadline(&session->server) <= now_ms) {
        smtp_server_expire(&session->server);
        (void)take_events(session);
    }
    return settle(session);
}

bool session_go_on(struct session *session)
{
    return run(session, slice_make(session->unread, session->unread_length));
}

void session_resume(struct session *session)
{
    struct transaction *transaction = session->transaction;
    struct smtp_answer answer;
    if (session->is_waiting) {
        session->is_waiting = false;
        list_remove(&session->waiting);
    }
    if (transaction != NULL && transaction->state == TRANSACTION_WAITING) {
        if (content_commit(session->in, transaction, &answer)) {
            session_answer(session, SMTP_SERVER_END, &answer);
        } else if (transaction->state == TRANSACTION_WAITING) {
            session_wait(session);
        }
        return;
    }
    if (transaction != NULL && transaction->is_filtered && !transaction->has_content &&
        transaction->state == TRANSACTION_OPEN && smtp_server_is_asked(&session->server)) {
        if (milters_go_on_sending(session, &answer)) {
            session_answer(session, SMTP_SERVER_END, &answer);
        }
        return;
    }
    (void)session_go_on(session);
}

void session_answer(struct session *session, enum smtp_server_event_kind kind,
                    const struct smtp_answer *answer)
{
    session_answer_event(session, kind, answer);
    (void)session_go_on(session);
}

/* TLS gives a record at a time. What it has read already comes along. */
static enum error receive(struct session *session, uint8_t *room, size_t size, size_t *ret_length)
{
    enum error error = stream_receive(session->tls, session->fd, room, size, ret_length);
    while (error == ERROR_NONE && *ret_length < size && session->tls != NULL &&
           tls_has_unread(session->tls)) {
        size_t length = 0;
        if (tls_receive(session->tls, room + *ret_length, size - *ret_length, &length) !=
            ERROR_NONE) {
            break; /* the next call says so, too */
        }
        *ret_length += length;
    }
    return error;
}

/* One read. False: nothing more for now, or the session is gone. */
static bool read_some(struct session *session)
{
    struct smtp_in *in = session->in;
    size_t kept = session->unread_length, length = 0;
    assert(kept < sizeof(in->scratch));
    enum error error = receive(session, in->scratch + kept, sizeof(in->scratch) - kept, &length);
    if (error == ERROR_AGAIN) {
        return false;
    }
    if (error != ERROR_NONE) {
        session_free(session);
        return false;
    }
    if (kept > 0) {
        memcpy(in->scratch, session->unread, kept);
    }
    bool is_short = length < sizeof(in->scratch) - kept;
    return run(session, slice_make(in->scratch, kept + length)) && !is_short;
}

static void on_ready(void *context, unsigned ready)
{
    struct session *session = context;
    if (carry_is_on(session)) {
        (void)carry_go_on(session);
        return;
    }
    if (session->awaits_proxy) {
        client_take_proxy(session);
        return;
    }
    if (session->is_shaking) {
        if (!session_tls_go_on(session) || session->is_shaking) {
            return;
        }
    }
    if (session->tls != NULL) {
        ready = session->interest; /* one may wait for the other */
    }
    if ((ready & LOOP_WRITE) != 0) {
        bool was_full = !smtp_server_wants_input(&session->server);
        if (!settle(session) || session->is_shaking) {
            return;
        }
        if (was_full && smtp_server_wants_input(&session->server) && session->unread_length > 0 &&
            !session->is_waiting && !session_go_on(session)) {
            return;
        }
    }
    if ((ready & LOOP_READ) == 0) {
        return;
    }
    if (session->is_waiting || session->is_closing || !wants_input(session)) {
        session_watch(session, session->interest & ~(unsigned)LOOP_READ);
        return;
    }
    for (int i = 0; i < READS_PER_TURN && read_some(session); i++) {
        if (session->is_waiting || session->is_closing || session->is_shaking ||
            !wants_input(session)) {
            return;
        }
    }
}

void session_ready(struct session *session)
{
    on_ready(session, LOOP_READ);
}

/* ---- begin, time, end -------------------------------------------------------------------- */

void session_accept(struct listener *listener, int fd, const struct ip_endpoint *peer)
{
    struct smtp_in *in = listener->in;
    struct session *session = calloc(1, sizeof(*session));
    struct loop_watch *watch =
        session == NULL ? NULL : loop_watch_new(in->loop, fd, on_ready, session);
    if (watch == NULL) {
        free(session);
        smtp_in_leave(in->shared, listener_counts(listener, &peer->address));
        net_close(fd);
        return;
    }
    session->in = in;
    session->listener = listener;
    session->watch = watch;
    session->fd = fd;
    session->client = *peer;
    listener->references++;
    list_init(&session->waiting);
    list_append(&in->sessions, &session->link);
    smtp_server_init(&session->server, &listener->settings, clock_steady_ms());
    login_let(session);
    counter_add(in->counters, COUNTER_SESSIONS, 1);
    counter_add(in->counters, COUNTER_SESSIONS_OPEN, 1);
    if (in->session_count++ == 0) {
        session_patrol(in);
    }
    if (client_connected(session)) {
        session_begin(session);
    } else {
        session->touched_ms = clock_steady_ms();
        session_watch(session, LOOP_READ);
    }
}

void session_begin(struct session *session)
{
    core_contact(session->in, &session->client.address);
    smtp_server_set_trusted(&session->server, client_is_trusted(session));
    if (session->listener->is_implicit) {
        (void)session_tls_begin(session);
    } else {
        (void)run(session, SLICE_EMPTY);
    }
}

void session_dismiss(struct session *session)
{
    if (session->is_shaking || session->awaits_proxy) {
        session_free(session); /* there is no way to say so */
        return;
    }
    struct smtp_answer answer = {421, "4.3.2", SLICE_LITERAL("Service shutting down")};
    smtp_server_end(&session->server, &answer);
    (void)take_events(session);
    session->is_closing = true;
    if (!send_output(session) || smtp_server_output(&session->server).length == 0) {
        session_free(session);
        return;
    }
    update_interest(session);
}

static void check_time(struct session *session, int64_t now_ms)
{
    if (session_tls_expire(session, now_ms) || carry_expire(session, now_ms)) {
        return;
    }
    if (session->is_closing) {
        if (now_ms - session->touched_ms >= SMTP_IN_LINGER_MS) {
            session_free(session);
        }
        return;
    }
    if (client_expire(session, now_ms) || request_expire(session, now_ms) ||
        login_expire(session, now_ms)) {
        return;
    }
    if (smtp_server_deadline(&session->server) <= now_ms) {
        smtp_server_expire(&session->server);
        (void)take_events(session);
        (void)settle(session);
    }
}

/* Looking at each session once in a while costs less than a timer for each, and a time-out that
 * comes a little late harms nobody. */
static int64_t patrol_interval_ms(const struct smtp_in *in)
{
    uint32_t timeout = in->config->limits.command_timeout_ms;
    uint32_t session = in->config->limits.session_timeout_ms;
    timeout = session != 0 && (timeout == 0 || session < timeout) ? session : timeout;
    int64_t interval = timeout / 8;
    return interval < 50 ? 50 : interval > 5000 ? 5000 : interval;
}

void session_patrol(struct smtp_in *in)
{
    int64_t interval = patrol_interval_ms(in);
    int64_t now_ms = clock_steady_ms();
    /* A closing session keeps its time; others are looked at again an interval later. */
    LIST_EACH(&in->sessions, at, after)
    {
        check_time(LIST_ENTRY(at, struct session, link), now_ms);
    }
    if (!list_is_empty(&in->sessions)) {
        loop_timer_set(in->patrol, interval);
    }
}
