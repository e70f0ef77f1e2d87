/* SPDX-License-Identifier: Apache-2.0
 *
 * What core is to hear is kept as flags on sessions and jobs until the ring has room, so nothing is
 * ever queued twice or lost for want of memory. Within a session the order is: OPENED, then job by
 * job READY and RESULT, then ENDED.
 */
#include "service/smtp_out_internal.h"

#include "sys/log.h"

void report_session(struct out_session *session)
{
    if (list_is_empty(&session->reporting)) {
        list_append(&session->out->reporting_sessions, &session->reporting);
    }
    loop_later_ask(session->out->later);
}

void report_job(struct smtp_out *out, struct out_job *job)
{
    if (job->session != NULL) {
        report_session(job->session);
        return;
    }
    if (list_is_empty(&job->reporting)) {
        list_append(&out->reporting_jobs, &job->reporting);
    }
    loop_later_ask(out->later);
}

struct buffer *smtp_out_frame(struct smtp_out *out, enum channel_frame type)
{
    buffer_clear(&out->frame);
    buffer_put_u8(&out->frame, (uint8_t)type);
    return &out->frame;
}

bool smtp_out_send(struct smtp_out *out)
{
    if (out->ring == NULL || out->frame.failed) {
        return false;
    }
    enum error error = ring_send(out->ring, buffer_slice(&out->frame));
    if (error == ERROR_LIMIT) {
        log_event(LOG_LEVEL_ERROR, "report-too-long", LOG_NUMBER("bytes", out->frame.length));
        return true; /* core settles the job when the session ends */
    }
    return error == ERROR_NONE;
}

static struct buffer *job_frame(struct smtp_out *out, const struct out_job *job,
                                enum channel_frame type)
{
    struct buffer *frame = smtp_out_frame(out, type);
    buffer_put_u32(frame, job->session_id);
    if (type != CHANNEL_READY) {
        buffer_put_u32(frame, channel_server_key(&out->config->relay, job->server));
    }
    buffer_put_u64(frame, job->id);
    return frame;
}

static bool send_working(struct smtp_out *out, struct out_job *job)
{
    struct buffer *frame = job_frame(out, job, CHANNEL_WORKING);
    channel_put_id(frame, job->message.id);
    buffer_put_u32(frame, job->count);
    for (uint32_t i = 0; i < job->count; i++) {
        buffer_put_u32(frame, job->deliveries[i]);
    }
    return smtp_out_send(out);
}

static bool send_result(struct smtp_out *out, struct out_job *job)
{
    if (job->is_callout) {
        buffer_put_u64(smtp_out_frame(out, CHANNEL_CALLED), job->id);
        buffer_append(&out->frame, buffer_slice(&job->result));
        return smtp_out_send(out);
    }
    struct buffer *frame = job_frame(out, job, CHANNEL_RESULT);
    buffer_put_u8(frame, job->reused);
    channel_put_id(frame, job->message.id);
    buffer_append(frame, buffer_slice(&job->result));
    return smtp_out_send(out);
}

static bool send_ready(struct smtp_out *out, struct out_job *job)
{
    (void)job_frame(out, job, CHANNEL_READY);
    return smtp_out_send(out);
}

/* Said once, or still due. */
static bool say(struct smtp_out *out, struct out_job *job, bool *due,
                bool (*send)(struct smtp_out *out, struct out_job *job))
{
    *due = *due && !send(out, job);
    return !*due;
}

static bool flush_job(struct smtp_out *out, struct out_job *job)
{
    if (!say(out, job, &job->working_due, send_working) ||
        !say(out, job, &job->ready_due, send_ready) ||
        !say(out, job, &job->result_due, send_result)) {
        return false;
    }
    list_remove(&job->reporting);
    if (job->is_callout && job->state == JOB_OVER) {
        job_confirm(out, job);
    }
    return true;
}

static bool send_opened(struct smtp_out *out, const struct out_session *session)
{
    struct relay_capabilities capabilities = {
        .size_limit = session->capabilities.size_limit,
        .recipients_max = session->capabilities.recipients_max,
        .mails_max = session->capabilities.mails_max,
        .deliver_by_min_s = session->capabilities.deliver_by_min_s,
    };
    static const uint32_t flags[][2] = {
        {SMTP_CLIENT_CAP_8BITMIME, RELAY_CAP_8BITMIME},
        {SMTP_CLIENT_CAP_SMTPUTF8, RELAY_CAP_SMTPUTF8},
        {SMTP_CLIENT_CAP_DSN, RELAY_CAP_DSN},
        {SMTP_CLIENT_CAP_PIPELINING, RELAY_CAP_PIPELINING},
        {SMTP_CLIENT_CAP_CHUNKING, RELAY_CAP_CHUNKING},
        {SMTP_CLIENT_CAP_DELIVERBY, RELAY_CAP_DELIVERBY},
        {SMTP_CLIENT_CAP_PRIORITY, RELAY_CAP_PRIORITY},
        {SMTP_CLIENT_CAP_REQUIRETLS, RELAY_CAP_REQUIRETLS},
    };
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (session->capabilities.flags & flags[i][0]) {
            capabilities.flags |= flags[i][1];
        }
    }
    if (!session->proved) {
        capabilities.flags &= ~(uint32_t)RELAY_CAP_REQUIRETLS;
    }
    struct buffer *frame = smtp_out_frame(out, CHANNEL_OPENED);
    buffer_put_u32(frame, session->id);
    buffer_put_u32(frame, channel_server_key(&out->config->relay, session->server));
    channel_put_capabilities(frame, &capabilities);
    buffer_put_bytes(frame, slice_from_text(session->tls_said));
    return smtp_out_send(out);
}

static bool send_ended(struct smtp_out *out, const struct out_session *session)
{
    struct buffer *frame = smtp_out_frame(out, CHANNEL_ENDED);
    buffer_put_u32(frame, session->id);
    buffer_put_u32(frame, channel_server_key(&out->config->relay, session->server));
    channel_put_reply(frame, &session->end);
    return smtp_out_send(out);
}

static bool flush_session(struct smtp_out *out, struct out_session *session)
{
    session->opened_due = session->opened_due && !session->calls_out;
    session->ended_due = session->ended_due && !session->calls_out;
    if (!tls_results_report(session)) {
        return false;
    }
    if (session->opened_due && !send_opened(out, session)) {
        return false;
    }
    session->opened_due = false;
    LIST_EACH(&session->jobs, at, after)
    {
        if (!flush_job(out, LIST_ENTRY(at, struct out_job, on_session))) {
            return false;
        }
    }
    if (session->ended_due && !send_ended(out, session)) {
        return false;
    }
    list_remove(&session->reporting);
    if (session->state == OUT_OVER) {
        out_session_free(session);
    }
    return true;
}

static bool flush_all(struct smtp_out *out)
{
    LIST_EACH(&out->reporting_jobs, at, after)
    {
        if (!flush_job(out, LIST_ENTRY(at, struct out_job, reporting))) {
            return false;
        }
    }
    LIST_EACH(&out->reporting_sessions, next, later)
    {
        if (!flush_session(out, LIST_ENTRY(next, struct out_session, reporting))) {
            return false;
        }
    }
    if (out->resumed_due) {
        buffer_put_u8(smtp_out_frame(out, CHANNEL_RESUMED), !out->attached);
        if (!smtp_out_send(out)) {
            return false;
        }
        out->resumed_due = false;
        out->attached = true;
    }
    return names_report(out) && mx_report(out) && texts_report(out) && lists_report(out);
}

void smtp_out_flush(void *context)
{
    struct smtp_out *out = context;
    (void)flush_all(out); /* the ring's handler comes when there is room */
    smtp_out_check_stopped(out);
}
