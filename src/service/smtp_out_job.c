/* SPDX-License-Identifier: Apache-2.0
 *
 * A job: one stored message for some of its recipients. Memory for the longest result is taken when
 * the job arrives, so that what a server has said can always be told.
 */
#include "service/smtp_out_internal.h"

#include "sys/clock.h"

#include <stdlib.h>

/* ---- what core asks ------------------------------------------------------------------------ */

/* Bytes of reply text that each of `count` outcomes may have. */
static size_t text_limit(uint32_t count)
{
    size_t share = RESULT_TEXT_MAX / count;
    return share < REPLY_TEXT_MAX ? share : REPLY_TEXT_MAX;
}

static void destroy(struct out_job *job)
{
    job_origin_forget(job);
    spool_stored_close(job->stored);
    buffer_done(&job->result);
    arena_done(&job->arena);
    free(job);
}

struct out_job *out_job_new(uint32_t count)
{
    struct out_job *job = calloc(1, sizeof(*job) + count * sizeof(job->deliveries[0]));
    if (job == NULL) {
        return NULL;
    }
    list_init(&job->on_session);
    list_init(&job->reporting);
    arena_init(&job->arena);
    buffer_init(&job->result, 0);
    job->count = count;
    /* Each: delivery, verdict, and a reply (stage, how, code, enhanced, text). */
    size_t each = 4 + 1 + (1 + 1 + 2 + 3 + 4) + text_limit(count);
    job->recipients = arena_allocate(&job->arena, count * sizeof(job->recipients[0]));
    if (job->recipients == NULL || buffer_reserve(&job->result, 4 + count * each) != ERROR_NONE) {
        destroy(job);
        return NULL;
    }
    return job;
}

static bool choose_recipients(struct out_job *job, struct slice redirect)
{
    struct slice address = arena_copy(&job->arena, redirect);
    if (address.data == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < job->count; i++) {
        if (job->deliveries[i] >= job->message.recipient_count) {
            return false;
        }
        const struct spool_recipient *recipient = &job->message.recipients[job->deliveries[i]];
        job->recipients[i] = (struct smtp_client_recipient){
            .address = address.length > 0 ? address : recipient->address,
            .orcpt = recipient->orcpt,
            .notify = recipient->notify, /* the same bits on both sides */
        };
    }
    return true;
}

struct slice stored_error_text(enum error error)
{
    return error == ERROR_CORRUPT ? SLICE_LITERAL("the stored message is damaged")
                                  : SLICE_LITERAL("the stored message cannot be read");
}

static void finish_unreadable(struct smtp_out *out, struct out_job *job, enum relay_verdict verdict,
                              struct slice text)
{
    struct relay_reply reply = {.stage = RELAY_AT_CONTENT, .how = RELAY_LOCAL, .text = text};
    job_finish_alike(out, job, verdict, &reply);
}

struct out_job *job_from_frame(struct smtp_out *out, struct out_session *session, uint64_t id,
                               struct reader *reader, bool *ret_malformed)
{
    struct slice ticket = reader_bytes(reader);
    struct slice redirect = reader_bytes(reader);
    uint32_t count = reader_u32(reader);
    *ret_malformed = reader->failed || count == 0 || count > SPOOL_RECIPIENTS_MAX ||
                     reader->rest.length != (size_t)count * 4 || map_get(&out->jobs_by_id, id);
    if (*ret_malformed) {
        return NULL;
    }
    struct out_job *job = out_job_new(count);
    if (job == NULL) {
        return NULL;
    }
    if (map_put(&out->jobs_by_id, id, job) != ERROR_NONE) {
        destroy(job);
        return NULL;
    }
    job->id = id;
    job->session = session;
    job->session_id = session->id;
    job->server = session->server;
    for (uint32_t i = 0; i < count; i++) {
        job->deliveries[i] = reader_u32(reader);
    }
    list_append(&session->jobs, &job->on_session);
    enum error error =
        spool_stored_open(out->reader, ticket, &job->arena, &job->message, &job->stored);
    if (error != ERROR_NONE) {
        finish_unreadable(out, job, error == ERROR_CORRUPT ? RELAY_DAMAGED : RELAY_REFUSED,
                          stored_error_text(error));
    } else if (!choose_recipients(job, redirect)) {
        finish_unreadable(out, job, RELAY_REFUSED,
                          SLICE_LITERAL("the stored message has no such recipient"));
    } else {
        job_origin_begin(job);
    }
    return job;
}

void out_job_free(struct smtp_out *out, struct out_job *job)
{
    if (!job->confirmed) {
        (void)map_remove(&out->jobs_by_id, job->id);
    }
    list_remove(&job->on_session);
    list_remove(&job->reporting);
    destroy(job);
}

void job_confirm(struct smtp_out *out, struct out_job *job)
{
    if (!job->held) {
        out_job_free(out, job);
        return;
    }
    (void)map_remove(&out->jobs_by_id, job->id);
    job->confirmed = true;
}

void job_mail(struct out_job *job, struct smtp_client_mail *ret_mail)
{
    const struct spool_message *message = &job->message;
    *ret_mail = (struct smtp_client_mail){
        .tag = job->id,
        .sender = message->sender,
        .eight_bit = (message->flags & SPOOL_8BIT) != 0,
        .utf8 = (message->flags & SPOOL_SMTPUTF8) != 0,
        .return_content = message->flags & SPOOL_RET_FULL      ? SMTP_CLIENT_RETURN_FULL
                          : message->flags & SPOOL_RET_HEADERS ? SMTP_CLIENT_RETURN_HEADERS
                                                               : SMTP_CLIENT_RETURN_UNSET,
        .envelope_id = message->envelope_id,
        .size = message->header_length + message->body_length,
        .envelope_only = (message->flags & SPOOL_ENVELOPE_ONLY) != 0,
        .requires_tls = (message->flags & SPOOL_REQUIRE_TLS) != 0,
        .priority = message->priority >= -9 && message->priority <= 9 ? message->priority : 0,
        .by_mode = message->deliver_by_ms == 0        ? 0
                   : message->flags & SPOOL_BY_RETURN ? 'R'
                                                      : 'N',
        .by_trace = (message->flags & SPOOL_BY_TRACE) != 0,
        .deliver_by_ms = clock_steady_ms() + (message->deliver_by_ms - clock_wall_ms()),
        .origin = job_origin(job),
        .recipients = job->recipients,
        .recipient_count = job->count,
    };
}

enum error job_read(struct out_job *job, uint64_t offset, void *ret_bytes, size_t size,
                    size_t *ret_length)
{
    uint64_t left = job->message.header_length + job->message.body_length - offset;
    size_t wanted = left < size ? (size_t)left : size;
    size_t length = 0;
    while (length < wanted) {
        size_t more = 0;
        enum error error = spool_stored_read(job->stored, offset + length,
                                             (uint8_t *)ret_bytes + length, wanted - length, &more);
        if (error != ERROR_NONE) {
            return error;
        }
        if (more == 0) {
            return ERROR_CORRUPT; /* shorter than its envelope says */
        }
        length += more;
    }
    *ret_length = length;
    return ERROR_NONE;
}

/* ---- what core hears ----------------------------------------------------------------------- */

static enum relay_stage stage_of(enum smtp_client_stage stage)
{
    static const enum relay_stage stages[] = {
        [SMTP_CLIENT_AT_GREETING] = RELAY_AT_GREETING,
        [SMTP_CLIENT_AT_HELLO] = RELAY_AT_HELLO,
        [SMTP_CLIENT_AT_TLS] = RELAY_AT_TLS,
        [SMTP_CLIENT_AT_AUTH] = RELAY_AT_AUTH,
        [SMTP_CLIENT_AT_MAIL] = RELAY_AT_MAIL,
        [SMTP_CLIENT_AT_RECIPIENT] = RELAY_AT_RECIPIENT,
        [SMTP_CLIENT_AT_DATA] = RELAY_AT_DATA,
        [SMTP_CLIENT_AT_CONTENT] = RELAY_AT_CONTENT,
        [SMTP_CLIENT_AT_DOT] = RELAY_AT_DOT,
        [SMTP_CLIENT_AT_IDLE] = RELAY_AT_IDLE,
    };
    return stages[stage];
}

static enum relay_how how_of(enum smtp_client_how how)
{
    static const enum relay_how hows[] = {
        [SMTP_CLIENT_REPLY] = RELAY_REPLY,       [SMTP_CLIENT_LOST] = RELAY_LOST,
        [SMTP_CLIENT_TIMEOUT] = RELAY_TIMEOUT,   [SMTP_CLIENT_LOCAL] = RELAY_LOCAL,
        [SMTP_CLIENT_DECLINED] = RELAY_DECLINED,
    };
    return hows[how];
}

/* The client core refuses by itself, beside what it names a code for, only content that it cannot
 * have or must not send. */
static enum relay_verdict verdict_of(const struct out_job *job,
                                     const struct smtp_client_outcome *outcome)
{
    if (outcome->verdict == SMTP_CLIENT_REFUSED && outcome->cause.how == SMTP_CLIENT_LOCAL &&
        outcome->cause.code == 0 && !job->read_failed) {
        return RELAY_DAMAGED;
    }
    static const enum relay_verdict verdicts[] = {
        [SMTP_CLIENT_ACCEPTED] = RELAY_ACCEPTED,   [SMTP_CLIENT_REFUSED] = RELAY_REFUSED,
        [SMTP_CLIENT_NOT_TRIED] = RELAY_NOT_TRIED, [SMTP_CLIENT_CUT] = RELAY_CUT,
        [SMTP_CLIENT_IN_DOUBT] = RELAY_IN_DOUBT,
    };
    return verdicts[outcome->verdict];
}

struct relay_reply reply_of(const struct smtp_client_cause *cause)
{
    struct relay_reply reply = {.stage = stage_of(cause->stage),
                                .how = how_of(cause->how),
                                .code = cause->code,
                                .text = cause->text};
    memcpy(reply.enhanced, cause->enhanced, sizeof(reply.enhanced));
    return reply;
}

static void put_outcome(struct out_job *job, uint32_t index, enum relay_verdict verdict,
                        struct relay_reply reply)
{
    reply.text = slice_take(reply.text, text_limit(job->count));
    buffer_put_u32(&job->result, job->deliveries[index]);
    buffer_put_u8(&job->result, (uint8_t)verdict);
    channel_put_reply(&job->result, &reply);
}

static void finish(struct smtp_out *out, struct out_job *job)
{
    job->state = JOB_OVER;
    job_origin_forget(job);
    job->ready_due = false;
    job->working_due = false;
    job->result_due = true;
    spool_stored_close(job->stored);
    job->stored = NULL;
    report_job(out, job);
}

void job_finish(struct smtp_out *out, struct out_job *job,
                const struct smtp_client_outcome *outcomes)
{
    buffer_put_u32(&job->result, job->count);
    for (uint32_t i = 0; i < job->count; i++) {
        put_outcome(job, i, verdict_of(job, &outcomes[i]), reply_of(&outcomes[i].cause));
    }
    finish(out, job);
}

void job_finish_alike(struct smtp_out *out, struct out_job *job, enum relay_verdict verdict,
                      const struct relay_reply *reply)
{
    buffer_put_u32(&job->result, job->count);
    for (uint32_t i = 0; i < job->count; i++) {
        put_outcome(job, i, verdict, *reply);
    }
    finish(out, job);
}
