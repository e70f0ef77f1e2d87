/* SPDX-License-Identifier: Apache-2.0
 *
 * A session: one attempt to reach a server, and what is then said over the connection. How the
 * connection is made is smtp_out_connect.c's matter.
 */
#include "service/smtp_out_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "sys/clock.h"
#include "sys/log.h"
#include "sys/net.h"
#include "sys/random.h"

enum {
    RECEIVE_BYTES = 16 << 10,
    SUDDEN_MS = 900, /* a connection that ends later, ungreeted, has stood for a time */
};

static bool talk(struct out_session *session);

const struct server_config *session_config(const struct out_session *session)
{
    const struct relay_config *relay = &session->out->config->relay;
    if (session->exchanger != NULL) {
        return &session->exchanger->config;
    }
    return session->server < relay->server_count ? &relay->servers[session->server] : NULL;
}

/* What core has said of an exchanger, and for all else what the configuration says of them all. */
static void complete(struct channel_exchanger *exchanger, const struct server_config *usual)
{
    struct server_config said = exchanger->config;
    exchanger->config = *usual;
    server_config_waive(&exchanger->config, said.waived);
    exchanger->config.name = said.name;
    exchanger->config.signed_by = said.signed_by;
    exchanger->config.addresses = exchanger->addresses;
    exchanger->config.address_count = said.address_count;
    exchanger->config.greeting_timeout_ms = said.greeting_timeout_ms;
    exchanger->config.sts = said.sts;
}

void session_follow(struct out_session *session, const struct service_config *config)
{
    if (session->exchanger != NULL) {
        complete(session->exchanger, &config->relay.exchanger);
    }
}

/* NULL: memory. */
static struct channel_exchanger *copy_exchanger(const struct smtp_out *out,
                                                const struct channel_exchanger *said)
{
    struct slice name = said->config.name, signed_by = said->config.signed_by;
    struct channel_exchanger *copy = malloc(sizeof(*copy) + name.length + signed_by.length);
    if (copy != NULL) {
        uint8_t *texts = (uint8_t *)(copy + 1);
        *copy = *said;
        memcpy(texts, name.data, name.length);
        if (signed_by.length > 0) {
            memcpy(texts + name.length, signed_by.data, signed_by.length);
        }
        copy->config.name = slice_make(texts, name.length);
        copy->config.signed_by = slice_make(texts + name.length, signed_by.length);
        complete(copy, &out->config->relay.exchanger);
    }
    return copy;
}

static void log_debug(const struct out_session *session, const char *event, struct slice text)
{
    const struct server_config *server = session_config(session);
    log_event(LOG_LEVEL_DEBUG, event, LOG_NUMBER("session", session->id),
              LOG_SLICE("server", server != NULL ? server->name : SLICE_EMPTY),
              LOG_SLICE("text", text));
}

/* ---- time ---------------------------------------------------------------------------------- */

static int64_t deadline(const struct out_session *session)
{
    int64_t at = session->limit_ms;
    if (session->state == OUT_CONNECTING && session->knock_at_ms < at) {
        at = session->knock_at_ms;
    }
    if (session->client != NULL) {
        int64_t client = smtp_client_deadline(session->client);
        at = client < at ? client : at;
    }
    return session->state == OUT_OVER ? INT64_MAX : at;
}

/* The timer is moved only forward in need: one that comes too early sets itself again. */
void session_set_timer(struct out_session *session)
{
    int64_t at = deadline(session);
    if (at < session->timer_at_ms) {
        int64_t delay = at - clock_steady_ms();
        session->timer_at_ms = at;
        loop_timer_set(session->timer, delay > 0 ? delay : 0);
    }
}

/* ---- the end ------------------------------------------------------------------------------- */

void session_disconnect(struct out_session *session)
{
    connect_drop(session);
    loop_watch_free(session->watch);
    session->watch = NULL;
    session->interest = 0;
    tls_free(session->tls);
    session->tls = NULL;
    session->shaking = false;
    session->proved = false;
    session->tls_counted = session->without_tls; /* of that there is nothing more to say */
    if (session->fd >= 0) {
        net_close(session->fd);
        session->fd = -1;
    }
    smtp_client_free(session->client);
    session->client = NULL;
}

/* Jobs that have no result yet were never begun. */
void session_over(struct out_session *session, const struct relay_reply *reply)
{
    size_t length = reply->text.length < REPLY_TEXT_MAX ? reply->text.length : REPLY_TEXT_MAX;
    if (length > 0) {
        memmove(session->end_text, reply->text.data, length);
    }
    session->end = *reply;
    session->end.text = slice_make(session->end_text, length);
    session->state = OUT_OVER;
    session->ended_due = true;
    dane_forget(session);
    loop_timer_cancel(session->timer);
    session_disconnect(session);
    LIST_EACH(&session->jobs, at, after)
    {
        struct out_job *job = LIST_ENTRY(at, struct out_job, on_session);
        if (job->state != JOB_OVER) {
            job_finish_alike(session->out, job, RELAY_NOT_TRIED, &session->end);
        }
    }
    if (!session->opened && reply->how != RELAY_LOCAL) {
        counter_add(session->out->counters, COUNTER_SERVER_FAILURES, 1);
    }
    log_debug(session, session->opened ? "disconnected" : "connect-failed", session->end.text);
    report_session(session);
}

/* ---- the dialogue begins -------------------------------------------------------------------- */

static void ready(void *context, unsigned readiness);

static bool has_released(const struct out_session *session)
{
    LIST_EACH(&session->jobs, at, after)
    {
        const struct out_job *job = LIST_ENTRY(at, struct out_job, on_session);
        if (job->released && job->state != JOB_OVER) {
            return true;
        }
    }
    return false;
}

static bool has_dot_out(const struct out_session *session)
{
    LIST_EACH(&session->jobs, at, after)
    {
        const struct out_job *job = LIST_ENTRY(at, struct out_job, on_session);
        if (job->released && job->state != JOB_OVER &&
            smtp_client_dot_sent(session->client, job->id)) {
            return true;
        }
    }
    return false;
}

/* A host that has vanished answers nothing, not even by TCP: that need not take the minutes that a
 * server may take to answer a command. Only the reply to a dot is awaited whatever happens (R2). */
static void expect_life(struct out_session *session)
{
    const struct server_config *server = session_config(session);
    bool patient = session->client != NULL && has_dot_out(session);
    if (session->fd >= 0 && server != NULL && session->patient != patient) {
        session->patient = patient;
        net_give_up_after(session->fd, patient ? 0 : server->connect_timeout_ms);
    }
}

void session_connected(struct out_session *session, int fd)
{
    session->fd = fd;
    session->connected_ms = clock_steady_ms();
    session->patient = true; /* as connections begin */
    expect_life(session);
    session->watch = loop_watch_new(session->out->loop, fd, ready, session);
    if (session->watch == NULL) {
        connect_failed(session, RELAY_AT_CONNECT, ERROR_MEMORY);
        return;
    }
    const struct server_config *server = session_config(session);
    bool is_proxied = session_is_proxied(session);
    const struct xclient *proxied_for = is_proxied ? session_first_origin(session) : NULL;
    if (is_proxied && !session_send_proxy(session, proxied_for)) {
        connect_failed(session, RELAY_AT_CONNECT, ERROR_CLOSED);
        return;
    }
    struct smtp_client_settings settings = {
        .helo = server != NULL && server->helo.length > 0 ? server->helo
                                                          : session->out->config->hostname,
        .lmtp = server != NULL && server->protocol == SERVER_LMTP,
        .tells_origin = session_tells_origin(session),
        .is_proxied = is_proxied,
        .proxied_for = proxied_for,
        .greeting_timeout_ms = server != NULL ? server->greeting_timeout_ms : 0,
        .command_timeout_ms = server != NULL ? server->command_timeout_ms : 0,
        .dot_timeout_ms = server != NULL ? server->dot_timeout_ms : 0,
        .tls = out_tls_policy(session),
        .tls_failed = session->without_tls,
    };
    if (server != NULL && server->auth_user.length > 0) {
        /* The settings allow a login only to this machine, or where TLS is demanded. */
        const struct ip_address *peer = &session->endpoints[session->endpoint].address;
        settings.credentials = (struct smtp_client_credentials){.user = server->auth_user,
                                                                .password = server->auth_password,
                                                                .in_clear = ip_is_loopback(peer)};
        random_bytes(settings.credentials.nonce, sizeof(settings.credentials.nonce));
    }
    session->client = smtp_client_new(&settings, clock_steady_ms());
    if (session->client == NULL) {
        connect_failed(session, RELAY_AT_CONNECT, ERROR_MEMORY);
        return;
    }
    session->state = OUT_TALKING;
    session->limit_ms = INT64_MAX;
    net_ask_for_life(fd, true); /* until it greets: what hangs may be switched off and on again */
    log_debug(session, "connected", SLICE_EMPTY);
    (void)talk(session);
}

/* ---- the client core's events -------------------------------------------------------------- */

/* At most three: one settling, two with the client core. */
static struct out_job *job_of(struct out_session *session, uint64_t id)
{
    LIST_EACH(&session->jobs, at, after)
    {
        struct out_job *job = LIST_ENTRY(at, struct out_job, on_session);
        if (job->id == id && job->held) {
            return job;
        }
    }
    assert(!"an event about a job that the client core was not given");
    return NULL;
}

static void give_content(struct out_session *session, const struct smtp_client_event *event)
{
    struct smtp_out *out = session->out;
    size_t length;
    struct out_job *job = job_of(session, event->tag);
    enum error error = job_read(job, event->offset, out->piece, SMTP_CLIENT_PIECE_MAX, &length);
    if (error == ERROR_NONE) {
        smtp_client_content(session->client, slice_make(out->piece, length), clock_steady_ms());
    } else {
        job->read_failed = error != ERROR_CORRUPT;
        smtp_client_content_failed(session->client, stored_error_text(error));
    }
}

/* As many jobs as the client core takes, once greeted: until then there may be another address. */
static void give_jobs(struct out_session *session)
{
    if (!session->opened) {
        return;
    }
    bool blocked = false; /* those behind go on asking whose they are */
    LIST_EACH(&session->jobs, at, after)
    {
        struct out_job *job = LIST_ENTRY(at, struct out_job, on_session);
        if (job->state != JOB_WAITING) {
            continue;
        }
        blocked = !job_origin_ready(job) || blocked;
        if (blocked) {
            continue;
        }
        struct smtp_client_mail mail;
        job_mail(job, &mail);
        enum error error = smtp_client_mail(session->client, &mail, clock_steady_ms());
        if (error == ERROR_MEMORY) { /* there may be no other result, after which to try again */
            session_wind_up(session, "out of memory");
        }
        if (error != ERROR_NONE) {
            return; /* after the next result */
        }
        job->state = JOB_GIVEN;
        job->held = true;
    }
}

/* True: the first job's dot may leave, and could not before. */
static bool release_first(struct out_session *session)
{
    if (session->state != OUT_TALKING || list_is_empty(&session->jobs)) {
        return false;
    }
    struct out_job *job = LIST_ENTRY(session->jobs.next, struct out_job, on_session);
    if (job->state != JOB_GIVEN || !job->go || job->released || session->winding_up) {
        return false;
    }
    job->released = true;
    smtp_client_go(session->client, job->id, clock_steady_ms());
    return true;
}

static void take_result(struct out_session *session, const struct smtp_client_event *event)
{
    struct out_job *job = job_of(session, event->tag);
    job->held = false;
    if (event->elsewhere && job->state != JOB_OVER && !session->closing && !session->winding_up) {
        job->state = JOB_WAITING;
        job->released = false;
    } else if (job->state != JOB_OVER) { /* else it was given up before */
        job->reused = event->reused;
        job_finish(session->out, job, event->outcomes);
    }
}

/* The connection stands for one client (XCLIENT), and what comes is another's: the session goes on
 * over a fresh one, of which core need not know. */
static void move(struct out_session *session)
{
    log_debug(session, "reconnecting", SLICE_EMPTY);
    session_disconnect(session);
    session->opened = false;
    session->state = OUT_RESOLVING;
    session->limit_ms = INT64_MAX;
    session->knock_interval_ms = 0;
    session->first_endpoint = 0;
    session->tried = 0;
    connect_begin(session);
}

/* One that did not greet, or not as it must, is not the end while there are other addresses. */
static void take_closed(struct out_session *session, const struct smtp_client_event *event)
{
    const struct smtp_client_cause *cause = &event->cause;
    bool at_tls = cause->stage == SMTP_CLIENT_AT_TLS;
    if (event->elsewhere && cause->how == SMTP_CLIENT_LOCAL && !session->closing &&
        !session->winding_up) {
        move(session);
        return;
    }
    if (at_tls) {
        tls_result_ended(session, cause->text);
    }
    if (at_tls && out_tls_do_without(session, cause)) {
        return;
    }
    if ((cause->stage == SMTP_CLIENT_AT_GREETING || at_tls) && cause->how != SMTP_CLIENT_LOCAL &&
        connect_has_next(session)) {
        log_debug(session, "greeting-failed", cause->text);
        connect_next(session, ERROR_CLOSED);
        return;
    }
    struct relay_reply reply = reply_of(cause);
    if (!session->opened && cause->how == SMTP_CLIENT_LOST && !at_tls &&
        clock_steady_ms() - session->connected_ms >= SUDDEN_MS) {
        reply.stage = RELAY_AT_CONNECT; /* its host, or its program, has gone while we waited: it
                                           is on its way back, and worth knocking at */
    }
    session_over(session, &reply);
}

static void take_event(struct out_session *session, const struct smtp_client_event *event)
{
    switch (event->kind) {
    case SMTP_CLIENT_HANDSHAKE:
        out_tls_begin(session);
        break;
    case SMTP_CLIENT_OPENED:
        session->opened = true;
        out_tls_opened(session);
        net_ask_for_life(session->fd, false);
        session->capabilities = event->capabilities;
        session->opened_due = !session->told;
        session->told = true;
        report_session(session);
        give_jobs(session);
        break;
    case SMTP_CLIENT_STARTED: {
        struct out_job *job = job_of(session, event->tag);
        bool has_dot = (job->message.flags & SPOOL_ENVELOPE_ONLY) == 0;
        job->ready_due = job->state == JOB_GIVEN && !job->go && has_dot;
        report_job(session->out, job);
        (void)release_first(session); /* allowed before, over an earlier connection */
        break;
    }
    case SMTP_CLIENT_CONTENT:
        give_content(session, event);
        break;
    case SMTP_CLIENT_RESULT:
        take_result(session, event);
        if (session->winding_up) {
            session_wind_up(session, "shutting down");
        } else {
            give_jobs(session);
            callout_rest(session);
        }
        break;
    case SMTP_CLIENT_CLOSED:
        take_closed(session, event);
        break;
    }
}

/* ---- the connection ------------------------------------------------------------------------ */

static void want(struct out_session *session, unsigned interest)
{
    if (session->interest != interest) {
        session->interest = interest;
        loop_watch_set(session->watch, interest);
    }
}

/* True: something has left, so that there may be more to do. */
static bool send_output(struct out_session *session)
{
    struct slice output = smtp_client_output(session->client);
    if (session->shaking) {
        want(session, tls_wants(session->tls));
        return false;
    }
    if (output.length == 0) {
        want(session, tls_interest(session->tls, LOOP_READ));
        return false;
    }
    size_t sent = 0;
    enum error error = stream_send(session->tls, session->fd, output, &sent);
    if (error == ERROR_NONE) {
        smtp_client_sent(session->client, sent, clock_steady_ms());
        return true;
    }
    if (error == ERROR_AGAIN) {
        want(session, tls_interest(session->tls, LOOP_READ | LOOP_WRITE));
        return false;
    }
    /* What the server said before it went comes first: a 421, as a rule. */
    want(session, tls_interest(session->tls, LOOP_READ));
    return false;
}

/* Everything that can be done without waiting. True: something has been sent. */
static bool talk(struct out_session *session)
{
    bool sent = false;
    for (bool more = true; more;) {
        struct smtp_client_event event;
        while (session->client != NULL && smtp_client_next(session->client, &event)) {
            take_event(session, &event);
        }
        more = session->client != NULL && session->state == OUT_TALKING && send_output(session);
        sent = sent || more;
    }
    if (session->state != OUT_OVER) {
        expect_life(session);
        session_set_timer(session);
    }
    return sent;
}

static void receive(struct out_session *session)
{
    uint8_t bytes[RECEIVE_BYTES];
    size_t length = 0;
    enum error error = stream_receive(session->tls, session->fd, bytes, sizeof(bytes), &length);
    if (error == ERROR_NONE) {
        smtp_client_input(session->client, slice_make(bytes, length), clock_steady_ms());
    } else if (error != ERROR_AGAIN) {
        const char *text = error == ERROR_CLOSED ? NULL : error_text(error);
        smtp_client_lost(session->client, slice_from_text(text), clock_steady_ms());
    }
}

static void ready(void *context, unsigned readiness)
{
    struct out_session *session = context;
    bool was_shaking = session->shaking;
    if (was_shaking) {
        out_tls_go_on(session);
    }
    if (session->tls != NULL ? !session->shaking : !was_shaking && (readiness & LOOP_READ) != 0) {
        receive(session);
    }
    bool sent = talk(session);
    while (session->tls != NULL && !session->shaking && tls_has_unread(session->tls)) {
        receive(session); /* the descriptor will not tell of it; replies are bounded */
        sent = talk(session) || sent;
    }
    if (!sent && session->client != NULL && smtp_client_deadline(session->client) < INT64_MAX) {
        net_acknowledge(session->fd); /* more replies are due, and nothing goes out to carry it */
    }
}

static void timer_fired(void *context)
{
    struct out_session *session = context;
    int64_t now = clock_steady_ms();
    session->timer_at_ms = INT64_MAX;
    if (session->client != NULL) {
        smtp_client_tick(session->client, now);
        (void)talk(session);
    }
    if (session->state != OUT_OVER && now >= session->limit_ms) {
        session->limit_ms = INT64_MAX;
        if (session->state == OUT_TALKING) { /* for callouts, and idle */
            out_session_close(session);
        } else {
            connect_limit(session);
        }
    }
    if (session->state == OUT_CONNECTING && now >= session->knock_at_ms) {
        connect_knock(session);
    }
    if (session->state != OUT_OVER) {
        session_set_timer(session);
    }
}

/* ---- what core and the door ask ------------------------------------------------------------ */

/* There is no memory to keep the refusal in: it is said now, or the process begins anew. */
static void refuse_session(struct smtp_out *out, uint32_t id, uint32_t server)
{
    struct relay_reply reply = {
        .stage = RELAY_AT_CONNECT, .how = RELAY_LOCAL, .text = SLICE_LITERAL("out of memory")};
    struct buffer *frame = smtp_out_frame(out, CHANNEL_ENDED);
    buffer_put_u32(frame, id);
    buffer_put_u32(frame, channel_server_key(&out->config->relay, server));
    channel_put_reply(frame, &reply);
    if (!smtp_out_send(out)) {
        log_event(LOG_LEVEL_ERROR, "out-of-memory", LOG_NUMBER("session", id));
        abort();
    }
}

/* NULL: memory. */
static struct out_session *session_new(struct smtp_out *out, const struct session_peer *peer)
{
    const struct channel_exchanger *exchanger = peer->exchanger;
    struct out_session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        return NULL;
    }
    session->timer = loop_timer_new(out->loop, timer_fired, session);
    session->exchanger = exchanger == NULL ? NULL : copy_exchanger(out, exchanger);
    if (session->timer == NULL || (exchanger != NULL && session->exchanger == NULL)) {
        loop_timer_free(session->timer);
        free(session->exchanger);
        free(session);
        return NULL;
    }
    session->out = out;
    session->server = peer->server;
    session->sts = exchanger != NULL ? exchanger->config.sts : peer->sts;
    session->fd = -1;
    session->timer_at_ms = INT64_MAX;
    session->limit_ms = INT64_MAX;
    session->knock_at_ms = INT64_MAX;
    list_init(&session->attempts);
    list_init(&session->jobs);
    list_init(&session->reporting);
    list_append(&out->sessions, &session->link);
    return session;
}

void session_start(struct smtp_out *out, uint32_t id, const struct session_peer *peer,
                   uint32_t knock_interval_ms)
{
    struct out_session *session = session_new(out, peer);
    if (session != NULL && map_put(&out->sessions_by_id, id, session) != ERROR_NONE) {
        session->orphan = true;
        out_session_free(session);
        session = NULL;
    }
    if (session == NULL) {
        refuse_session(out, id, peer->server);
        return;
    }
    session->id = id;
    session->knock_interval_ms = knock_interval_ms;
    connect_begin(session);
}

struct out_session *session_start_callouts(struct smtp_out *out, const struct session_peer *peer)
{
    struct out_session *session = session_new(out, peer);
    if (session != NULL) {
        session->orphan = true;
        session->calls_out = true;
        connect_begin(session);
    }
    return session;
}

void session_take_job(struct out_session *session, struct out_job *job)
{
    if (session->state != OUT_TALKING) {
        return; /* it waits, or has been finished with the session's end */
    }
    if (job->state == JOB_WAITING) {
        give_jobs(session);
    }
    (void)talk(session);
}

void session_release(struct out_session *session)
{
    if (release_first(session)) {
        (void)talk(session);
    }
}

void session_drop(struct out_session *session, const char *why)
{
    if (session->state == OUT_OVER) {
        return;
    }
    struct relay_reply reply = {
        .stage = RELAY_AT_IDLE, .how = RELAY_LOCAL, .text = slice_from_text(why)};
    if (session->client == NULL) {
        session_over(session, &reply);
        return;
    }
    session->closing = true;
    smtp_client_abort(session->client, slice_from_text(why));
    (void)talk(session);
}

/* What has not been released was not tried. True: the client core has some of that under way. */
static bool give_back(struct out_session *session, const char *why)
{
    bool under_way = false;
    struct relay_reply reply = {
        .stage = RELAY_AT_IDLE, .how = RELAY_LOCAL, .text = slice_from_text(why)};
    LIST_EACH(&session->jobs, at, after)
    {
        struct out_job *job = LIST_ENTRY(at, struct out_job, on_session);
        if (job->state != JOB_OVER && !job->released) {
            under_way = under_way || job->held;
            job_finish_alike(session->out, job, RELAY_NOT_TRIED, &reply);
        }
    }
    return under_way;
}

void session_wind_up(struct out_session *session, const char *why)
{
    session->winding_up = true;
    if (session->state != OUT_TALKING || !has_released(session)) {
        session_drop(session, why);
        return;
    }
    (void)give_back(session, why);
}

void out_session_close(struct out_session *session)
{
    session->closing = true;
    if (!session->opened || give_back(session, "closed")) {
        session_wind_up(session, "closed");
        return;
    }
    smtp_client_quit(session->client, clock_steady_ms()); /* behind a dot under way */
    (void)talk(session);
}

/* Results that core has not confirmed outlive their session. */
void out_session_free(struct out_session *session)
{
    struct smtp_out *out = session->out;
    session_disconnect(session);
    dane_forget(session);
    free(session->tls_results);
    loop_timer_free(session->timer);
    if (!session->orphan) {
        (void)map_remove(&out->sessions_by_id, session->id);
    }
    LIST_EACH(&session->jobs, at, after)
    {
        struct out_job *job = LIST_ENTRY(at, struct out_job, on_session);
        assert(job->state == JOB_OVER);
        if (job->confirmed) {
            out_job_free(out, job);
            continue;
        }
        job->session = NULL;
        job->held = false;
        list_remove(&job->on_session);
        list_append(&out->unconfirmed, &job->on_session);
    }
    list_remove(&session->reporting);
    list_remove(&session->link);
    free(session->exchanger);
    free(session);
}
