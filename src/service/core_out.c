/* SPDX-License-Identifier: Apache-2.0
 *
 * relay's sessions and jobs as frames to edge-out, and what edge-out reports back.
 *
 *   job:  SENT --READY--> NOTING --note written--> GONE --RESULT--> SETTLING --durable--> (freed)
 *
 * Two orders are kept here (R2). GO is given only after the batch with the attempt note is
 * SPOOL_WRITTEN, and only to the oldest unsettled job of its session, so that a connection's next
 * dot waits until the fate of the previous one is durable. DURABLE is said only after the batch
 * with the result is SPOOL_SYNCED.
 *
 * When a fresh edge-out takes the place of one that died, its jobs are settled from what we know:
 * without GO no dot was sent (not tried), with it the attempt is in doubt. When core is the fresh
 * one, edge-out names the jobs that it still works on and repeats results; both are matched by
 * message id against the loaded spool, hence rings are not read before loading is complete.
 */
#include "service/core_internal.h"

#include <assert.h>
#include <stdlib.h>

enum {
    ADDRESSES_MAX = 64,
    REPLY_MIN = 1 + 1 + 2 + 3 + 4, /* bytes of an encoded reply at least */
};

/* ---- frames to edge-out ---------------------------------------------------------------------- */

static struct buffer *frame_begin(struct core *core, enum channel_frame type, uint32_t session)
{
    buffer_clear(&core->frame);
    buffer_put_u8(&core->frame, (uint8_t)type);
    buffer_put_u32(&core->frame, session);
    return &core->frame;
}

static void backlog_push(struct core_edge_out *out)
{
    struct slice rest = slice_skip(buffer_slice(&out->backlog), out->backlog_sent);
    struct reader reader = reader_make(rest);
    while (reader.rest.length > 0) {
        struct slice frame = reader_bytes(&reader);
        assert(!reader.failed);
        if (ring_send(out->ring, frame) == ERROR_AGAIN) {
            break;
        }
        out->backlog_sent += 4 + frame.length;
    }
    if (out->backlog_sent == out->backlog.length) {
        buffer_clear(&out->backlog);
        out->backlog_sent = 0;
    } else if (out->backlog_sent > out->backlog.length / 2) {
        buffer_consume(&out->backlog, out->backlog_sent);
        out->backlog_sent = 0;
    }
}

void core_out_send(struct core_edge_out *out, struct buffer *frame)
{
    if (frame->failed) {
        core_out_of_memory();
    }
    if (out->ring == NULL) {
        return; /* whoever comes next starts from RESUMED */
    }
    if (out->backlog.length == 0) {
        enum error error = ring_send(out->ring, buffer_slice(frame));
        if (error == ERROR_NONE) {
            return;
        }
        if (error != ERROR_AGAIN) {
            report_problem("frame for edge-out is too large", error);
            return;
        }
    }
    buffer_put_bytes(&out->backlog, buffer_slice(frame));
    if (out->backlog.failed) {
        /* It has not read for so long that it must be taken for dead; the keeper will see. */
        report_alert(out->core, "edge-out", "edge-out does not read its ring and is cut off");
        core_out_attach(out->core, out->index, out->core->out_count, NULL);
    }
}

static void send_plain(struct core *core, struct core_edge_out *out, enum channel_frame type,
                       uint32_t session)
{
    core_out_send(out, frame_begin(core, type, session));
}

static void send_about_job(struct core *core, const struct job *job, enum channel_frame type)
{
    struct buffer *frame = frame_begin(core, type, job->session);
    buffer_put_u64(frame, job->id);
    core_out_send(&core->out[job->edge], frame);
}

/* ---- sessions -------------------------------------------------------------------------------- */

static struct core_session *session_new(struct core *core, uint32_t id, uint32_t server,
                                        uint32_t edge)
{
    struct core_session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        core_out_of_memory();
    }
    list_init(&session->link);
    list_init(&session->jobs);
    session->id = id;
    session->server = server;
    session->edge = edge;
    session->epoch = core->out[edge].epoch;
    return session;
}

static void session_keep(struct core *core, struct core_session *session)
{
    if (map_put(&core->sessions, session->id, session) != ERROR_NONE) {
        core_out_of_memory();
    }
    list_append(&core->sessions_list, &session->link);
}

static void session_free(struct core *core, struct core_session *session)
{
    LIST_EACH(&session->jobs, at, after)
    {
        list_remove(at); /* settling jobs live on without it */
    }
    (void)map_remove(&core->sessions, session->id);
    list_remove(&session->link);
    free(session);
}

static struct core_session *session_on(struct core_edge_out *out, uint32_t id)
{
    struct core_session *session = map_get(&out->core->sessions, id);
    return session != NULL && session->edge == out->index ? session : NULL;
}

static void connect_session(struct core *core, const struct relay_action *action)
{
    uint32_t count = core->out_count > 0 ? core->out_count : 1;
    uint32_t edge = action->session % count;
    struct core_session *session = session_new(core, action->session, action->server, edge);
    if (map_get(&core->sessions, action->session) != NULL) {
        /* A session of an earlier life has the same number: relay picks another. */
        list_append(&core->refused, &session->link);
        loop_later_ask(core->out_later);
        return;
    }
    session_keep(core, session);
    struct buffer *frame = frame_begin(core, CHANNEL_CONNECT, session->id);
    buffer_put_u32(frame, channel_server_key(&core->config->relay, session->server));
    core_out_send(&core->out[edge], frame);
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static struct job *job_new(struct core *core, uint64_t id, struct spool_handle handle,
                           struct core_session *session, const uint32_t *deliveries, uint32_t count)
{
    struct job *job = calloc(1, sizeof(*job) + count * sizeof(job->deliveries[0]));
    if (job == NULL) {
        core_out_of_memory();
    }
    job->id = id;
    job->handle = handle;
    job->message = spool_id(core->spool, handle);
    job->session = session->id;
    job->server = session->server;
    job->edge = session->edge;
    job->epoch = session->epoch;
    job->count = count;
    memcpy(job->deliveries, deliveries, count * sizeof(deliveries[0]));
    list_init(&job->waiting);
    list_init(&job->on_session);
    list_append(&session->jobs, &job->on_session);
    if (map_put(&core->jobs, id, job) != ERROR_NONE) {
        core_out_of_memory();
    }
    return job;
}

static void job_unpin(struct core *core, struct job *job)
{
    if (job->pinned) {
        spool_unpin(core->spool, job->handle);
        job->pinned = false;
    }
}

static void job_free(struct core *core, struct job *job)
{
    (void)map_remove(&core->jobs, job->id);
    list_remove(&job->on_session);
    list_remove(&job->waiting);
    job_unpin(core, job);
    if (job->note_pending) {
        job->over = true;
    } else {
        free(job);
    }
}

static void deliver(struct core *core, const struct relay_action *action)
{
    struct core_session *session = map_get(&core->sessions, action->session);
    assert(session != NULL && !session->foreign); /* relay knows which sessions are open */
    assert(map_get(&core->jobs, action->job) == NULL);
    struct job *job = job_new(core, action->job, action->handle, session, action->deliveries,
                              action->delivery_count);
    uint8_t ticket[SPOOL_TICKET_MAX];
    size_t length;
    spool_pin(core->spool, job->handle);
    job->pinned = true;
    if (spool_ticket(core->spool, job->handle, ticket, &length) != ERROR_NONE) {
        list_append(&core->unsendable, &job->waiting);
        loop_later_ask(core->out_later);
        return;
    }
    struct buffer *frame = frame_begin(core, CHANNEL_DELIVER, session->id);
    buffer_put_u64(frame, job->id);
    buffer_put_bytes(frame, slice_make(ticket, length));
    buffer_put_bytes(frame, action->redirect_to);
    buffer_put_u32(frame, job->count);
    for (uint32_t i = 0; i < job->count; i++) {
        buffer_put_u32(frame, job->deliveries[i]);
    }
    core_out_send(&core->out[session->edge], frame);
}

void core_out_action(struct core *core, const struct relay_action *action)
{
    if (action->kind == RELAY_CONNECT) {
        connect_session(core, action);
    } else if (action->kind == RELAY_DELIVER) {
        deliver(core, action);
    } else {
        struct core_session *session = map_get(&core->sessions, action->session);
        if (session != NULL && !session->foreign) {
            send_plain(core, &core->out[session->edge], CHANNEL_CLOSE, session->id);
        }
    }
}

/* ---- the attempt note and GO ----------------------------------------------------------------- */

static void go_if_first(struct core *core, struct core_session *session)
{
    if (session == NULL || list_is_empty(&session->jobs)) {
        return;
    }
    struct job *job = LIST_ENTRY(session->jobs.next, struct job, on_session);
    if (job->state == JOB_NOTING && job->note_written) {
        job->state = JOB_GONE;
        report_attempt(core, job);
        send_about_job(core, job, CHANNEL_GO);
    }
}

struct noting {
    struct core *core;
    struct job *job;
};

static void attempt_written(void *context, enum error error, const struct spool_handle *handles,
                            size_t count)
{
    (void)handles;
    (void)count;
    struct noting noting = *(struct noting *)context;
    free(context);
    struct core *core = noting.core;
    struct job *job = noting.job;
    core->notes_pending--;
    job->note_pending = false;
    if (job->over) {
        free(job);
    } else if (job->state != JOB_NOTING) {
        /* Settled meanwhile: the session was lost. */
    } else if (error != ERROR_NONE) {
        report_alert(core, "journal", "the journal could not be written; it is tried again");
        list_append(&core->unnoted, &job->waiting);
    } else {
        job->note_written = true;
        go_if_first(core, map_get(&core->sessions, job->session));
    }
    core_check_stopped(core);
}

/* False: relay does not know the job. */
static bool note_attempt(struct core *core, struct job *job)
{
    uint16_t kind;
    struct slice payload;
    struct spool_handle handle;
    const uint32_t *deliveries;
    uint32_t count;
    if (!relay_attempt_note(core->relay, job->id, core_now(), &kind, &payload, &handle, &deliveries,
                            &count)) {
        return false;
    }
    struct noting *noting = malloc(sizeof(*noting));
    if (noting == NULL) {
        core_out_of_memory();
    }
    *noting = (struct noting){core, job};
    spool_batch_begin(core->spool);
    for (uint32_t i = 0; i < count; i++) {
        spool_batch_note(core->spool, handle, deliveries[i], kind, payload);
    }
    job->state = JOB_NOTING;
    job->note_pending = true;
    core->notes_pending++;
    spool_batch_submit(core->spool, SPOOL_WRITTEN, attempt_written, noting);
    return true;
}

/* ---- results --------------------------------------------------------------------------------- */

static void settle(struct core *core, struct job *job, bool reused,
                   const struct relay_delivery_result *results, uint32_t count)
{
    job->state = JOB_SETTLING;
    list_remove(&job->waiting);
    job_unpin(core, job); /* nobody reads by its ticket any more */
    uint64_t id = job->id;
    relay_result(core->relay, id, job->session, reused, results, count, core_now());
    core_act(core, SPOOL_SYNCED, (struct core_after){.job = id, .has_job = true});
}

/* Nobody will report on this job any more: `verdict` unless its dot may have been sent. */
static void settle_alone(struct core *core, struct job *job, enum relay_verdict verdict,
                         uint16_t code, const char *why)
{
    if (job->state == JOB_SETTLING) {
        return;
    }
    struct relay_delivery_result *results = calloc(job->count, sizeof(*results));
    if (results == NULL) {
        core_out_of_memory();
    }
    bool gone = job->state == JOB_GONE;
    for (uint32_t i = 0; i < job->count; i++) {
        results[i].delivery = job->deliveries[i];
        results[i].verdict = gone ? RELAY_IN_DOUBT : verdict;
        results[i].reply.stage = gone ? RELAY_AT_DOT : RELAY_AT_MAIL;
        results[i].reply.how = RELAY_LOCAL;
        results[i].reply.code = code;
        results[i].reply.text = slice_from_text(why);
    }
    settle(core, job, false, results, job->count);
    free(results);
}

void core_out_durable(struct core *core, uint64_t id)
{
    struct job *job = map_get(&core->jobs, id);
    assert(job != NULL && job->state == JOB_SETTLING);
    uint32_t session_id = job->session;
    struct core_session *session = map_get(&core->sessions, session_id);
    send_about_job(core, job, CHANNEL_DURABLE);
    job_free(core, job);
    if (session != NULL && session->foreign && list_is_empty(&session->jobs)) {
        send_plain(core, &core->out[session->edge], CHANNEL_CLOSE, session->id);
        session_free(core, session);
    }
    relay_result_durable(core->relay, id, core_now());
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    go_if_first(core, map_get(&core->sessions, session_id));
}

/* The position of a delivery in the job, looked for from `from` on and around. */
static uint32_t find_delivery(const struct job *job, uint32_t delivery, uint32_t from)
{
    for (uint32_t i = 0; i < job->count; i++) {
        uint32_t at = (from + i) % job->count;
        if (job->deliveries[at] == delivery) {
            return at;
        }
    }
    return NO_INDEX;
}

/* Reads a result frame's list against the job: each delivery of the job gets exactly one result,
 * what is missing counts as never tried, or as in doubt after GO. */
static bool read_results(struct reader *reader, uint32_t count, const struct job *job,
                         struct relay_delivery_result *results)
{
    for (uint32_t i = 0; i < job->count; i++) {
        results[i].delivery = NO_INDEX;
    }
    uint32_t expected = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct relay_delivery_result result = {.delivery = reader_u32(reader),
                                               .verdict = (enum relay_verdict)reader_u8(reader)};
        if (!channel_get_reply(reader, &result.reply) || reader->failed ||
            result.verdict > RELAY_IN_DOUBT) {
            return false;
        }
        uint32_t at = find_delivery(job, result.delivery, expected);
        if (at == NO_INDEX) {
            continue; /* adopted in part: this one has its fate */
        }
        if (results[at].delivery != NO_INDEX) {
            return false;
        }
        results[at] = result;
        expected = at + 1;
    }
    for (uint32_t i = 0; i < job->count; i++) {
        if (results[i].delivery == NO_INDEX) {
            results[i].delivery = job->deliveries[i];
            results[i].verdict = job->state == JOB_GONE ? RELAY_IN_DOUBT : RELAY_NOT_TRIED;
            results[i].reply = (struct relay_reply){.stage = RELAY_AT_DOT, .how = RELAY_LOCAL};
        }
    }
    return !reader->failed;
}

/* ---- reports of edge-out --------------------------------------------------------------------- */

/* What RESULT and WORKING have in common. */
struct report {
    uint32_t session;
    uint32_t server;
    uint64_t job;
    bool reused;
    struct message_id message;
    uint32_t count;
};

/* The session that a report speaks of, made if it is of an earlier life. */
static struct core_session *foreign_session(struct core_edge_out *out, const struct report *report)
{
    struct core_session *session = map_get(&out->core->sessions, report->session);
    if (session == NULL) {
        session = session_new(out->core, report->session, report->server, out->index);
        session->foreign = true;
        session_keep(out->core, session);
    }
    return session;
}

/* A job that this life of core has not given: its deliveries that still wait for a fate. NULL:
 * there are none. */
static struct job *adopt(struct core_edge_out *out, const struct report *report,
                         const uint32_t *deliveries, uint32_t count)
{
    struct core *core = out->core;
    struct spool_handle handle = spool_find(core->spool, report->message);
    if (handle.index == SPOOL_NO_HANDLE.index) {
        return NULL;
    }
    uint32_t *open = calloc(count > 0 ? count : 1, sizeof(*open));
    if (open == NULL) {
        core_out_of_memory();
    }
    uint32_t open_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct relay_delivery_view view;
        if (relay_delivery(core->relay, handle, deliveries[i], &view) &&
            view.state != DELIVERY_FINISHED && view.state != DELIVERY_IN_FLIGHT) {
            open[open_count++] = deliveries[i];
        }
    }
    struct job *job = NULL;
    if (open_count > 0) {
        struct core_session *session = foreign_session(out, report);
        job = job_new(core, report->job, handle, session, open, open_count);
        job->adopted = true;
        job->state = JOB_GONE; /* for all we know */
        spool_pin(core->spool, handle);
        job->pinned = true;
        relay_resume(core->relay, job->session, job->id, handle, open, open_count, report->server,
                     core_now());
        core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    }
    free(open);
    return job;
}

/* The deliveries that a list of results names, without reading the results. */
static struct job *adopt_from_results(struct core_edge_out *out, const struct report *report,
                                      struct reader reader)
{
    uint32_t *deliveries = calloc(report->count > 0 ? report->count : 1, sizeof(*deliveries));
    if (deliveries == NULL) {
        core_out_of_memory();
    }
    for (uint32_t i = 0; i < report->count; i++) {
        struct relay_reply reply;
        deliveries[i] = reader_u32(&reader);
        (void)reader_u8(&reader);
        if (!channel_get_reply(&reader, &reply)) {
            reader.failed = true;
            break;
        }
    }
    struct job *job = reader.failed ? NULL : adopt(out, report, deliveries, report->count);
    free(deliveries);
    return job;
}

static bool read_report(const struct core_edge_out *out, struct reader *reader, bool is_result,
                        struct report *ret_report)
{
    ret_report->session = reader_u32(reader);
    ret_report->server = channel_server_find(&out->core->config->relay, reader_u32(reader));
    ret_report->job = reader_u64(reader);
    ret_report->reused = is_result && reader_u8(reader) != 0;
    ret_report->message = channel_get_id(reader);
    ret_report->count = reader_u32(reader);
    size_t each = is_result ? 4 + 1 + REPLY_MIN : 4;
    return !reader->failed && ret_report->count <= SPOOL_RECIPIENTS_MAX &&
           ret_report->count <= reader->rest.length / each &&
           ret_report->session % out->core->out_count == out->index;
}

static bool take_result(struct core_edge_out *out, struct reader *reader)
{
    struct core *core = out->core;
    struct report report;
    if (!read_report(out, reader, true, &report)) {
        return false;
    }
    struct job *job = map_get(&core->jobs, report.job);
    if (job == NULL) {
        job = adopt_from_results(out, &report, *reader);
    }
    if (job == NULL) {
        /* All of it has been decided and stored before: it may be forgotten. */
        struct buffer *frame = frame_begin(core, CHANNEL_DURABLE, report.session);
        buffer_put_u64(frame, report.job);
        core_out_send(out, frame);
        return true;
    }
    bool nameless = id_is_null(report.message); /* its envelope could not be read */
    if (job->edge != out->index || !(nameless || id_equal(job->message, report.message))) {
        return false;
    }
    if (job->state == JOB_SETTLING) {
        return true; /* said twice; DURABLE will come */
    }
    struct relay_delivery_result *results = calloc(job->count, sizeof(*results));
    if (results == NULL) {
        core_out_of_memory();
    }
    bool good = read_results(reader, report.count, job, results);
    if (good) {
        settle(core, job, report.reused, results, job->count);
    }
    free(results);
    return good;
}

static bool take_working(struct core_edge_out *out, struct reader *reader)
{
    struct core *core = out->core;
    struct report report;
    if (!read_report(out, reader, false, &report)) {
        return false;
    }
    struct job *job = map_get(&core->jobs, report.job);
    if (job != NULL) {
        if (job->edge == out->index) {
            job->epoch = out->epoch;
            struct core_session *session = session_on(out, job->session);
            if (session != NULL) {
                session->epoch = out->epoch;
            }
        }
        return job->edge == out->index;
    }
    uint32_t *deliveries = calloc(report.count > 0 ? report.count : 1, sizeof(*deliveries));
    if (deliveries == NULL) {
        core_out_of_memory();
    }
    for (uint32_t i = 0; i < report.count; i++) {
        deliveries[i] = reader_u32(reader);
    }
    (void)adopt(out, &report, deliveries, report.count);
    free(deliveries);
    return true;
}

static bool take_ready(struct core_edge_out *out, struct reader *reader)
{
    struct core *core = out->core;
    uint32_t session = reader_u32(reader);
    struct job *job = map_get(&core->jobs, reader_u64(reader));
    if (reader->failed) {
        return false;
    }
    if (job == NULL || job->edge != out->index || job->session != session) {
        send_plain(core, out, CHANNEL_CLOSE, session);
        return true;
    }
    bool wanted = job->state == JOB_SENT || (job->adopted && job->state == JOB_GONE);
    if (wanted && !job->note_pending) {
        if (!note_attempt(core, job)) {
            send_plain(core, out, CHANNEL_CLOSE, session);
        }
    } else if (job->state == JOB_GONE) {
        send_about_job(core, job, CHANNEL_GO); /* the first may have gone with a ring */
    }
    return true;
}

static bool take_opened(struct core_edge_out *out, struct reader *reader)
{
    struct core *core = out->core;
    uint32_t id = reader_u32(reader);
    (void)reader_u32(reader);
    struct relay_capabilities capabilities;
    if (!channel_get_capabilities(reader, &capabilities) || reader->failed) {
        return false;
    }
    struct core_session *session = session_on(out, id);
    if (session == NULL || session->foreign) {
        send_plain(core, out, CHANNEL_CLOSE, id);
        return true;
    }
    relay_session_opened(core->relay, id, &capabilities, core_now());
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    return true;
}

/* Our records of what nobody will report any more, when relay has decided about it by itself. */
static void forget_jobs(struct core *core, struct core_session *session)
{
    LIST_EACH(&session->jobs, at, after)
    {
        struct job *job = LIST_ENTRY(at, struct job, on_session);
        if (job->state != JOB_SETTLING) {
            job_free(core, job);
        }
    }
}

static void end_foreign(struct core *core, struct core_session *session)
{
    uint32_t id = session->id;
    while (session != NULL && !list_is_empty(&session->jobs)) {
        struct job *job = LIST_ENTRY(session->jobs.next, struct job, on_session);
        list_remove(&job->on_session);
        settle_alone(core, job, RELAY_NOT_TRIED, 0, "the session ended");
        session = map_get(&core->sessions, id); /* the last one may have closed it */
    }
    if (session != NULL) {
        session_free(core, session);
    }
}

static void end_session(struct core *core, struct core_session *session,
                        const struct relay_reply *reply)
{
    uint32_t id = session->id;
    if (session->foreign) {
        end_foreign(core, session);
        return;
    }
    /* Jobs are reported before; should one be left, its dot may have been sent, or relay takes it
     * back as not tried. */
    LIST_EACH(&session->jobs, at, after)
    {
        struct job *job = LIST_ENTRY(at, struct job, on_session);
        if (job->state == JOB_GONE) {
            list_remove(&job->on_session);
            settle_alone(core, job, RELAY_NOT_TRIED, 0, "the session ended");
        }
    }
    forget_jobs(core, session);
    session_free(core, session);
    relay_session_ended(core->relay, id, reply, core_now());
    core_act(core, SPOOL_SYNCED, CORE_NOTHING_AFTER);
}

static bool take_ended(struct core_edge_out *out, struct reader *reader)
{
    uint32_t id = reader_u32(reader);
    (void)reader_u32(reader);
    struct relay_reply reply;
    if (!channel_get_reply(reader, &reply) || reader->failed) {
        return false;
    }
    struct core_session *session = session_on(out, id);
    if (session != NULL) {
        end_session(out->core, session, &reply);
    }
    return true;
}

static bool take_addresses(struct core_edge_out *out, struct reader *reader)
{
    struct ip_address addresses[ADDRESSES_MAX];
    uint32_t server = channel_server_find(&out->core->config->relay, reader_u32(reader));
    uint32_t count = reader_u32(reader);
    if (reader->failed || count > ADDRESSES_MAX ||
        server >= out->core->config->relay.server_count) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct slice bytes = reader_take(reader, sizeof(addresses[i].bytes));
        if (reader->failed) {
            return false;
        }
        memcpy(addresses[i].bytes, bytes.data, bytes.length);
    }
    relay_server_addresses(out->core->relay, server, addresses, count);
    core_act(out->core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    return true;
}

/* ---- attaching ------------------------------------------------------------------------------- */

/* A fresh process: nothing of the one before is left. */
static void drop_all(struct core_edge_out *out)
{
    struct core *core = out->core;
    LIST_EACH(&core->sessions_list, at, after)
    {
        struct core_session *session = LIST_ENTRY(at, struct core_session, link);
        if (session->edge != out->index) {
            continue;
        }
        if (session->epoch == out->epoch) {
            send_plain(core, out, CHANNEL_CLOSE, session->id); /* asked for since */
        }
        forget_jobs(core, session);
        session_free(core, session);
    }
    relay_sessions_lost(core->relay, out->index, core->out_count, core_now());
    core_act(core, SPOOL_SYNCED, CORE_NOTHING_AFTER);
}

/* The same process on a new ring: what it did not claim has been lost on the way. */
static void drop_unclaimed(struct core_edge_out *out)
{
    struct core *core = out->core;
    const struct relay_reply lost = {.stage = RELAY_AT_IDLE,
                                     .how = RELAY_LOCAL,
                                     .text = SLICE_LITERAL("the ring was made anew")};
    for (bool found = true; found;) {
        found = false;
        LIST_EACH(&core->sessions_list, at, after)
        {
            struct core_session *session = LIST_ENTRY(at, struct core_session, link);
            if (session->edge == out->index && session->epoch != out->epoch) {
                send_plain(core, out, CHANNEL_CLOSE, session->id);
                end_session(core, session, &lost);
                found = true;
                break; /* the list may have changed */
            }
        }
    }
}

static void start_if_ready(struct core *core)
{
    if (core->dispatching || !core->loaded || core->out_count == 0) {
        return;
    }
    for (uint32_t i = 0; i < core->out_count; i++) {
        if (!core->out[i].resumed) {
            return;
        }
    }
    core->dispatching = true;
    relay_start(core->relay, core_now());
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
}

static bool take_resumed(struct core_edge_out *out, struct reader *reader)
{
    bool fresh = reader_u8(reader) != 0;
    if (reader->failed) {
        return false;
    }
    if (fresh) {
        drop_all(out);
    } else {
        drop_unclaimed(out);
    }
    core_names_tell(out);
    out->resumed = true;
    start_if_ready(out->core);
    return true;
}

static bool take_frame(struct core_edge_out *out, struct slice frame)
{
    struct reader reader = reader_make(frame);
    switch (reader_u8(&reader)) {
    case CHANNEL_OPENED:
        return take_opened(out, &reader);
    case CHANNEL_ENDED:
        return take_ended(out, &reader);
    case CHANNEL_READY:
        return take_ready(out, &reader);
    case CHANNEL_RESULT:
        return take_result(out, &reader);
    case CHANNEL_ADDRESSES:
        return take_addresses(out, &reader);
    case CHANNEL_WORKING:
        return take_working(out, &reader);
    case CHANNEL_RESUMED:
        return take_resumed(out, &reader);
    case CHANNEL_NAME:
        return core_names_take(out->core, &reader);
    default:
        return false;
    }
}

/* Copies the frame, then reads the copy: the sender can still change the ring's memory. */
static void take_copy(struct core_edge_out *out, struct slice frame)
{
    struct buffer *copy = &out->core->copy;
    buffer_clear(copy);
    buffer_append(copy, frame);
    if (copy->failed) {
        core_out_of_memory();
    }
    if (!take_frame(out, buffer_slice(copy)) && out->malformed++ % 1000 == 0) {
        report_problem("edge-out sent a malformed frame", ERROR_INVALID);
    }
}

static void drain(struct core_edge_out *out)
{
    struct core *core = out->core;
    for (int i = 0; core->loaded && out->ring != NULL; i++) {
        if (i == CORE_FRAMES_A_TURN) {
            loop_later_ask(core->out_later);
            return;
        }
        struct slice frame;
        enum error error = ring_receive(out->ring, &frame);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            report_alert(core, "edge-out", "edge-out has broken its ring and is cut off");
            core_out_attach(core, out->index, core->out_count, NULL);
            return;
        }
        take_copy(out, frame);
        if (out->ring != NULL) {
            ring_release(out->ring);
        }
    }
}

static void ring_ready(void *context)
{
    struct core_edge_out *out = context;
    if (out->ring != NULL) {
        backlog_push(out);
        drain(out);
    }
}

static void tell_relay_of_failures(struct core *core)
{
    const struct relay_reply local = {
        .stage = RELAY_AT_IDLE, .how = RELAY_LOCAL, .text = SLICE_LITERAL("session number in use")};
    while (!list_is_empty(&core->refused)) {
        struct core_session *session = LIST_ENTRY(core->refused.next, struct core_session, link);
        uint32_t id = session->id;
        list_remove(&session->link);
        free(session);
        relay_session_ended(core->relay, id, &local, core_now());
        core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    }
    struct link unsendable;
    list_init(&unsendable);
    LIST_EACH(&core->unsendable, at, after)
    {
        list_remove(at);
        list_append(&unsendable, at);
    }
    while (!list_is_empty(&unsendable)) {
        struct job *job = LIST_ENTRY(unsendable.next, struct job, waiting);
        settle_alone(core, job, RELAY_REFUSED, 451, "the stored message cannot be read");
    }
}

void core_out_later(void *context)
{
    struct core *core = context;
    tell_relay_of_failures(core);
    for (uint32_t i = 0; i < core->out_count; i++) {
        drain(&core->out[i]);
    }
}

void core_out_attach(struct core *core, uint32_t index, uint32_t count, struct ring *ring)
{
    assert(index < CORE_EDGES_MAX && count <= CORE_EDGES_MAX && index < count);
    struct core_edge_out *out = &core->out[index];
    assert(core->out_count == 0 || core->out_count == count);
    core->out_count = count;
    ring_free(out->ring);
    out->ring = ring;
    out->backlog_sent = 0;
    buffer_clear(&out->backlog);
    out->resumed = out->resumed && core->dispatching;
    if (ring != NULL) {
        out->epoch++;
        ring_set_handler(ring, ring_ready, out);
        ring_ready(out);
    }
}

void core_out_loaded(struct core *core)
{
    loop_later_ask(core->out_later);
}

void core_out_tick(struct core *core)
{
    struct link again;
    list_init(&again);
    LIST_EACH(&core->unnoted, at, after)
    {
        list_remove(at);
        list_append(&again, at);
    }
    LIST_EACH(&again, next, later)
    {
        struct job *job = LIST_ENTRY(next, struct job, waiting);
        list_remove(&job->waiting);
        if (!note_attempt(core, job)) {
            send_plain(core, &core->out[job->edge], CHANNEL_CLOSE, job->session);
        }
    }
}

static uint32_t remap(const struct service_config *old, const struct service_config *config,
                      uint32_t server)
{
    for (uint32_t i = 0; server < old->relay.server_count && i < config->relay.server_count; i++) {
        if (slice_equal(old->relay.servers[server].name, config->relay.servers[i].name)) {
            return i;
        }
    }
    return NO_INDEX;
}

void core_out_remap(struct core *core, const struct service_config *old)
{
    LIST_EACH(&core->sessions_list, at, after)
    {
        struct core_session *session = LIST_ENTRY(at, struct core_session, link);
        session->server = remap(old, core->config, session->server);
        LIST_EACH(&session->jobs, job_at, job_after)
        {
            LIST_ENTRY(job_at, struct job, on_session)->server = session->server;
        }
    }
}

void core_out_init(struct core *core)
{
    map_init(&core->sessions);
    map_init(&core->jobs);
    list_init(&core->sessions_list);
    list_init(&core->refused);
    list_init(&core->unsendable);
    list_init(&core->unnoted);
    for (uint32_t i = 0; i < CORE_EDGES_MAX; i++) {
        core->out[i].core = core;
        core->out[i].index = i;
        buffer_init(&core->out[i].backlog, CORE_BACKLOG_MAX);
    }
}

void core_out_done(struct core *core)
{
    for (uint32_t i = 0; i < CORE_EDGES_MAX; i++) {
        ring_free(core->out[i].ring);
        core->out[i].ring = NULL;
        buffer_done(&core->out[i].backlog);
    }
    size_t cursor = 0;
    for (struct job *job; (job = map_next(&core->jobs, &cursor)) != NULL;) {
        free(job);
    }
    map_done(&core->jobs);
    LIST_EACH(&core->sessions_list, at, after)
    {
        free(LIST_ENTRY(at, struct core_session, link));
    }
    LIST_EACH(&core->refused, refused_at, refused_after)
    {
        free(LIST_ENTRY(refused_at, struct core_session, link));
    }
    map_done(&core->sessions);
}
