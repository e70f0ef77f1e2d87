/* SPDX-License-Identifier: Apache-2.0
 *
 * The outgoing door's life, and the frames that core sends it.
 *
 * When a core goes and another comes: a job whose dot has been allowed goes on, on a session that
 * the new core does not know (an orphan), and is named in CHANNEL_WORKING; any other was not tried.
 * Results that nobody has confirmed are said again. Thus a new core knows of each attempt note that
 * it finds in the journal either what came of it, or that it is still under way.
 */
#include "service/smtp_out_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "sys/log.h"

/* ---- frames from core ---------------------------------------------------------------------- */

static bool take_connect(struct smtp_out *out, struct reader *reader)
{
    uint32_t session = reader_u32(reader);
    struct session_peer peer = {.server =
                                    channel_server_find(&out->config->relay, reader_u32(reader))};
    uint32_t knock_interval_ms = reader_u32(reader);
    peer.sts = channel_get_sts(reader);
    struct channel_exchanger exchanger;
    bool to_exchanger = peer.server == NO_INDEX && reader->rest.length > 0;
    if (reader->failed || map_get(&out->sessions_by_id, session) != NULL ||
        (to_exchanger && !channel_get_exchanger(reader, &exchanger))) {
        return false;
    }
    peer.exchanger = to_exchanger ? &exchanger : NULL;
    session_start(out, session, &peer, knock_interval_ms);
    if (out->stopping) {
        session_drop(map_get(&out->sessions_by_id, session), "shutting down");
    }
    return true;
}

static bool take_deliver(struct smtp_out *out, struct reader *reader)
{
    struct out_session *session = map_get(&out->sessions_by_id, reader_u32(reader));
    uint64_t id = reader_u64(reader);
    if (session == NULL || session->state == OUT_OVER) {
        return true; /* has ended meanwhile: core settles the job when it hears of that */
    }
    bool malformed;
    struct out_job *job = job_from_frame(out, session, id, reader, &malformed);
    if (job != NULL) {
        session_take_job(session, job);
    } else if (!malformed) {
        session_wind_up(session, "out of memory");
    }
    return !malformed;
}

static bool take_knock(struct smtp_out *out, struct reader *reader)
{
    struct out_session *session = map_get(&out->sessions_by_id, reader_u32(reader));
    if (session != NULL) {
        connect_knock(session);
    }
    return !reader->failed;
}

static bool take_close(struct smtp_out *out, struct reader *reader)
{
    struct out_session *session = map_get(&out->sessions_by_id, reader_u32(reader));
    if (session != NULL && session->state != OUT_OVER && !session->closing) {
        out_session_close(session);
    }
    return !reader->failed;
}

static struct out_job *take_job(struct smtp_out *out, struct reader *reader)
{
    (void)reader_u32(reader); /* its session: known by the job */
    uint64_t id = reader_u64(reader);
    return reader->failed ? NULL : map_get(&out->jobs_by_id, id);
}

static bool take_go(struct smtp_out *out, struct reader *reader)
{
    struct out_job *job = take_job(out, reader);
    if (job != NULL && job->state != JOB_OVER && job->session != NULL) {
        job->go = true;
        session_release(job->session);
    }
    return !reader->failed;
}

static bool take_durable(struct smtp_out *out, struct reader *reader)
{
    struct out_job *job = take_job(out, reader);
    if (job != NULL && job->state == JOB_OVER) {
        struct out_session *session = job->session;
        job_confirm(out, job);
        if (session != NULL) {
            session_release(session);
        }
        loop_later_ask(out->later);
    }
    return !reader->failed;
}

static bool take_frame(struct smtp_out *out, struct reader *reader)
{
    switch (reader_u8(reader)) {
    case CHANNEL_CONNECT:
        return take_connect(out, reader);
    case CHANNEL_DELIVER:
        return take_deliver(out, reader);
    case CHANNEL_KNOCK:
        return take_knock(out, reader);
    case CHANNEL_CLOSE:
        return take_close(out, reader);
    case CHANNEL_GO:
        return take_go(out, reader);
    case CHANNEL_DURABLE:
        return take_durable(out, reader);
    case CHANNEL_NAME:
        return names_take(out, reader);
    case CHANNEL_RESOLVE:
        return mx_take(out, reader);
    case CHANNEL_TEXT:
        return texts_take(out, reader);
    case CHANNEL_LOOK_UP:
        return lists_take(out, reader);
    case CHANNEL_CALLOUT:
        return callout_take(out, reader);
    default:
        return false;
    }
}

/* False: the ring is broken, or gone under our hands. */
static bool take_record(struct smtp_out *out, struct ring *ring)
{
    struct slice record;
    enum error error = ring_receive(ring, &record);
    if (error == ERROR_AGAIN) {
        return false;
    }
    if (error != ERROR_NONE) {
        log_event(LOG_LEVEL_ERROR, "core-ring-broken", LOG_TEXT("error", error_text(error)));
        out->ring = NULL;
        if (out->broken != NULL) {
            out->broken(out->broken_context);
        }
        return false;
    }
    buffer_clear(&out->copy);
    buffer_append(&out->copy, record);
    ring_release(ring);
    if (out->copy.failed) {
        log_event(LOG_LEVEL_ERROR, "out-of-memory");
        abort(); /* a frame lost is a session stuck; the keeper starts us anew */
    }
    struct reader reader = reader_make(buffer_slice(&out->copy));
    if (!take_frame(out, &reader)) {
        log_event(LOG_LEVEL_ERROR, "core-frame-malformed", LOG_NUMBER("bytes", out->copy.length));
    }
    return true;
}

static void ring_ready(void *context)
{
    struct smtp_out *out = context;
    struct ring *ring = out->ring;
    while (ring != NULL && out->ring == ring && take_record(out, ring)) {
    }
    loop_later_ask(out->later); /* there may be room for reports */
}

/* ---- life ----------------------------------------------------------------------------------- */

static bool get_memory(struct smtp_out *out)
{
    out->piece = malloc(SMTP_CLIENT_PIECE_MAX);
    out->later = loop_later_new(out->loop, smtp_out_flush, out);
    return out->piece != NULL && out->later != NULL &&
           buffer_reserve(&out->frame, 64 << 10) == ERROR_NONE &&
           buffer_reserve(&out->copy, 64 << 10) == ERROR_NONE;
}

struct smtp_out *smtp_out_new(struct loop *loop, const struct service_config *config,
                              struct spool_reader *reader, struct dns *dns, struct ring *ring,
                              struct counters *counters)
{
    struct smtp_out *out = calloc(1, sizeof(*out));
    if (out == NULL) {
        return NULL;
    }
    out->loop = loop;
    out->config = config;
    out->reader = reader;
    out->dns = dns;
    out->counters = counters;
    map_init(&out->sessions_by_id);
    map_init(&out->jobs_by_id);
    list_init(&out->sessions);
    list_init(&out->unconfirmed);
    list_init(&out->reporting_sessions);
    list_init(&out->reporting_jobs);
    list_init(&out->names);
    list_init(&out->tls_clients);
    list_init(&out->questions);
    list_init(&out->answers);
    list_init(&out->texts);
    list_init(&out->texts_answered);
    list_init(&out->listings);
    list_init(&out->listed);
    list_init(&out->turned);
    buffer_init(&out->frame, 0);
    buffer_init(&out->copy, 0);
    if (!get_memory(out)) {
        smtp_out_free(out);
        return NULL;
    }
    if (ring != NULL) {
        smtp_out_set_ring(out, ring);
    }
    return out;
}

/* The session of an earlier core goes on without a number as long as a dot is under way. */
static void orphan_session(struct out_session *session)
{
    struct smtp_out *out = session->out;
    if (session->orphan) {
        return;
    }
    (void)map_remove(&out->sessions_by_id, session->id);
    session->orphan = true;
    session->opened_due = false;
    session_wind_up(session, "core has restarted");
    if (session->state == OUT_OVER) {
        session->ended_due = false;
    }
}

static void repeat_job(struct smtp_out *out, struct out_job *job)
{
    if (job->is_callout) {
        return;
    }
    job->ready_due = false;
    job->working_due = job->state != JOB_OVER;
    job->result_due = job->state == JOB_OVER && !job->confirmed;
    report_job(out, job);
}

void smtp_out_set_ring(struct smtp_out *out, struct ring *ring)
{
    out->ring = ring;
    out->resumed_due = true;
    turned_drop_all(out); /* their sessions were the old core's */
    names_repeat(out);
    LIST_EACH(&out->sessions, at, after)
    {
        struct out_session *session = LIST_ENTRY(at, struct out_session, link);
        orphan_session(session);
        if (session->calls_out) {
            session_drop(session, "core has restarted"); /* nobody waits for what is asked */
        }
        LIST_EACH(&session->jobs, job_at, job_after)
        {
            repeat_job(out, LIST_ENTRY(job_at, struct out_job, on_session));
        }
    }
    LIST_EACH(&out->unconfirmed, next, later)
    {
        repeat_job(out, LIST_ENTRY(next, struct out_job, on_session));
    }
    if (ring != NULL) {
        ring_set_handler(ring, ring_ready, out);
        ring_ready(out);
    }
}

void smtp_out_set_broken_handler(struct smtp_out *out, void (*broken)(void *context), void *context)
{
    out->broken = broken;
    out->broken_context = context;
}

enum error smtp_out_reconfigure(struct smtp_out *out, const struct service_config *config)
{
    const struct relay_config *old = &out->config->relay;
    LIST_EACH(&out->sessions, at, after)
    {
        struct out_session *session = LIST_ENTRY(at, struct out_session, link);
        session->server = relay_config_remap(&config->relay, old, session->server);
        session_follow(session, config);
    }
    size_t cursor = 0;
    for (struct out_job *job; (job = map_next(&out->jobs_by_id, &cursor)) != NULL;) {
        job->server = relay_config_remap(&config->relay, old, job->server);
    }
    lists_finish_all(out);
    out->config = config;
    out_tls_drop_clients(out);
    names_prune(out);
    return ERROR_NONE;
}

void smtp_out_check_stopped(struct smtp_out *out)
{
    if (out->stopped != NULL && list_is_empty(&out->sessions) && list_is_empty(&out->unconfirmed)) {
        void (*stopped)(void *context) = out->stopped;
        out->stopped = NULL;
        loop_timer_cancel(out->stop_timer);
        stopped(out->stopped_context);
    }
}

/* Patience is over: what has no reply is in doubt; what is not confirmed, core will find so. */
static void stop_now(void *context)
{
    struct smtp_out *out = context;
    LIST_EACH(&out->sessions, at, after)
    {
        session_drop(LIST_ENTRY(at, struct out_session, link), "shutting down");
    }
    smtp_out_flush(out);
    if (out->stopped != NULL) {
        void (*stopped)(void *context) = out->stopped;
        out->stopped = NULL;
        stopped(out->stopped_context);
    }
}

void smtp_out_stop(struct smtp_out *out, int64_t grace_ms, void (*done)(void *context),
                   void *context)
{
    assert(!out->stopping);
    out->stopping = true;
    out->stopped = done;
    out->stopped_context = context;
    out->stop_timer = loop_timer_new(out->loop, stop_now, out);
    LIST_EACH(&out->sessions, at, after)
    {
        session_wind_up(LIST_ENTRY(at, struct out_session, link), "shutting down");
    }
    if (out->stop_timer == NULL) {
        stop_now(out);
        return;
    }
    loop_timer_set(out->stop_timer, grace_ms);
    loop_later_ask(out->later);
}

/* The ring outlives us, being the caller's. */
static void nobody(void *context)
{
    (void)context;
}

void smtp_out_free(struct smtp_out *out)
{
    if (out == NULL) {
        return;
    }
    LIST_EACH(&out->sessions, at, after)
    {
        struct out_session *session = LIST_ENTRY(at, struct out_session, link);
        session_drop(session, "freed");
        out_session_free(session);
    }
    LIST_EACH(&out->unconfirmed, next, later)
    {
        out_job_free(out, LIST_ENTRY(next, struct out_job, on_session));
    }
    if (out->ring != NULL) {
        ring_set_handler(out->ring, nobody, NULL);
    }
    names_free(out);
    mx_free(out);
    texts_free_all(out);
    lists_free_all(out);
    turned_drop_all(out);
    out_tls_drop_clients(out);
    loop_timer_free(out->stop_timer);
    loop_later_free(out->later);
    map_done(&out->sessions_by_id);
    map_done(&out->jobs_by_id);
    buffer_done(&out->frame);
    buffer_done(&out->copy);
    free(out->piece);
    free(out);
}
