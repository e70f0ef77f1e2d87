/* SPDX-License-Identifier: Apache-2.0
 *
 * What edge-out reports: sessions opened and ended, jobs that are ready for the dot, results. Each
 * function reads one frame; false: it is malformed. A job of an earlier life of core is adopted:
 * its deliveries that still wait for a fate are in flight again, until its result comes.
 */
#include "service/core_out.h"
#include "service/core_policies.h"
#include "service/core_tls_reports.h"

#include <stdlib.h>

enum {
    ADDRESSES_MAX = 64,
    REPLY_MIN = 1 + 1 + 2 + 3 + 4, /* bytes of an encoded reply at least */
};

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
            result.verdict > RELAY_DAMAGED) {
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

/* The session that a report speaks of, made if it is of an earlier life. */
static struct core_session *foreign_session(struct core_edge_out *out,
                                            const struct core_report *report)
{
    struct core_session *session = map_get(&out->core->sessions, report->session);
    if (session == NULL) {
        session = core_session_new(out->core, report->session, report->server, out->index);
        session->foreign = true;
        core_session_keep(out->core, session);
    }
    return session;
}

/* A job that this life of core has not given: its deliveries that still wait for a fate. NULL:
 * there are none. */
static struct job *adopt(struct core_edge_out *out, const struct core_report *report,
                         const uint32_t *deliveries, uint32_t count)
{
    struct core *core = out->core;
    struct spool_handle handle =
        count > 0 ? spool_find_delivery(core->spool, report->message, deliveries[0])
                  : SPOOL_NO_HANDLE;
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
        job = core_job_new(core, report->job, handle, session, open, open_count);
        job->adopted = true;
        job->state = JOB_GONE; /* for all we know */
        spool_pin(core->spool, handle);
        job->pinned = true;
        relay_resume(core->relay, job->session, job->id, handle, open, open_count, report->server,
                     core_now(core));
        core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    }
    free(open);
    return job;
}

/* The deliveries that a list of results names, without reading the results. */
static struct job *adopt_from_results(struct core_edge_out *out, const struct core_report *report,
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

bool core_report_read(const struct core_edge_out *out, struct reader *reader, bool is_result,
                      struct core_report *ret_report)
{
    ret_report->session = reader_u32(reader);
    ret_report->server = channel_server_find(&out->core->config->relay, reader_u32(reader));
    ret_report->job = reader_u64(reader);
    ret_report->reused = is_result && reader_u8(reader) != 0;
    ret_report->message = channel_get_id(reader);
    ret_report->count = reader_u32(reader);
    struct reader first = *reader;
    ret_report->delivery = reader_u32(&first);
    size_t each = is_result ? 4 + 1 + REPLY_MIN : 4;
    return !reader->failed && ret_report->count <= SPOOL_RECIPIENTS_MAX &&
           ret_report->count <= reader->rest.length / each &&
           ret_report->session % out->core->out_count == out->index;
}

bool core_take_result(struct core_edge_out *out, struct reader *reader)
{
    struct core *core = out->core;
    struct core_report report;
    const struct slice body = reader->rest;
    if (!core_report_read(out, reader, true, &report)) {
        return false;
    }
    struct job *job = map_get(&core->jobs, report.job);
    if (job == NULL && core_early_is(core, &report)) {
        core_early_result(out, &report, body);
        return true;
    }
    if (job == NULL) {
        job = adopt_from_results(out, &report, *reader);
    }
    if (job == NULL) {
        /* All of it has been decided and stored before: it may be forgotten. */
        struct buffer *frame = core_out_frame(core, CHANNEL_DURABLE, report.session);
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
        core_job_settle(core, job, report.reused, results, job->count);
    }
    free(results);
    return good;
}

bool core_take_working(struct core_edge_out *out, struct reader *reader)
{
    struct core *core = out->core;
    struct core_report report;
    const struct slice body = reader->rest;
    if (!core_report_read(out, reader, false, &report)) {
        return false;
    }
    struct job *job = map_get(&core->jobs, report.job);
    if (job != NULL) {
        if (job->edge == out->index) {
            job->epoch = out->epoch;
            struct core_session *session = core_session_on(out, job->session);
            if (session != NULL) {
                session->epoch = out->epoch;
            }
        }
        return job->edge == out->index;
    }
    if (core_early_is(core, &report)) {
        foreign_session(out, &report)->epoch = out->epoch;
        core_early_working(out, &report, body);
        return true;
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

bool core_take_ready(struct core_edge_out *out, struct reader *reader)
{
    struct core *core = out->core;
    uint32_t session = reader_u32(reader);
    struct job *job = map_get(&core->jobs, reader_u64(reader));
    if (reader->failed) {
        return false;
    }
    if (job == NULL || job->edge != out->index || job->session != session) {
        core_out_send_plain(core, out, CHANNEL_CLOSE, session);
        return true;
    }
    bool wanted = job->state == JOB_SENT || (job->adopted && job->state == JOB_GONE);
    if (wanted && !job->note_pending) {
        core_job_ask(core, job);
    } else if (job->state == JOB_GONE && !core_job_may_go(core)) {
        job->asks_go = true;
    } else if (job->state == JOB_GONE) {
        core_job_say(core, job, CHANNEL_GO); /* the first may have gone with a ring */
    }
    return true;
}

bool core_take_opened(struct core_edge_out *out, struct reader *reader)
{
    struct core *core = out->core;
    uint32_t id = reader_u32(reader);
    (void)reader_u32(reader);
    struct relay_capabilities capabilities;
    bool good = channel_get_capabilities(reader, &capabilities);
    struct slice tls = reader_bytes(reader);
    if (!good || reader->failed || tls.length >= CHANNEL_TLS_MAX) {
        return false;
    }
    struct core_session *session = core_session_on(out, id);
    if (session == NULL || session->foreign) {
        core_out_send_plain(core, out, CHANNEL_CLOSE, id);
        return true;
    }
    if (tls.length > 0 && session->tls == NULL) {
        session->tls = calloc(1, tls.length + 1);
        if (session->tls != NULL) { /* else it is not told */
            memcpy(session->tls, tls.data, tls.length);
        }
    }
    relay_session_opened(core->relay, id, &capabilities, core_now(core));
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    return true;
}

bool core_take_ended(struct core_edge_out *out, struct reader *reader)
{
    uint32_t id = reader_u32(reader);
    (void)reader_u32(reader);
    struct relay_reply reply;
    if (!channel_get_reply(reader, &reply) || reader->failed) {
        return false;
    }
    struct core_session *session = core_session_on(out, id);
    if (session != NULL) {
        core_session_end(out->core, session, &reply);
    }
    return true;
}

/* ---- who takes a domain's mail --------------------------------------------------------------- */

/* An answer that waits until what its domain's policy demands is known. */
struct resolution {
    struct link link;
    struct policy_waiter waiter;
    struct core *core;
    struct buffer frame; /* without its type */
};

static void resolution_free(struct resolution *resolution)
{
    list_remove(&resolution->link);
    list_remove(&resolution->waiter.link);
    buffer_done(&resolution->frame);
    free(resolution);
}

void core_resolutions_done(struct core *core)
{
    LIST_EACH(&core->resolutions, at, after)
    {
        resolution_free(LIST_ENTRY(at, struct resolution, link));
    }
}

static void tell_relay(struct core *core, struct slice domain, struct channel_mx *mx)
{
    if (core->config->relay.exchanger.tls == SERVER_TLS_MTA_STS) {
        uint32_t valid_s = core_policy_valid_s(core, domain);
        mx->answer.ttl_s = valid_s < mx->answer.ttl_s ? valid_s : mx->answer.ttl_s;
    }
    relay_resolved(core->relay, domain, &mx->answer, core_now(core));
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
}

static void policy_settled(void *context)
{
    struct resolution *resolution = context;
    struct channel_mx answer;
    struct reader reader = reader_make(buffer_slice(&resolution->frame));
    struct slice domain = reader_bytes(&reader);
    if (!reader.failed && channel_get_mx(&reader, &answer)) {
        tell_relay(resolution->core, domain, &answer);
    }
    resolution_free(resolution);
}

/* True: policy_settled() follows. */
static bool wait_for_policy(struct core *core, struct slice domain, struct slice frame)
{
    struct resolution *resolution = core->config->relay.exchanger.tls == SERVER_TLS_MTA_STS
                                        ? calloc(1, sizeof(*resolution))
                                        : NULL;
    if (resolution == NULL) {
        return false;
    }
    resolution->core = core;
    resolution->waiter.fn = policy_settled;
    resolution->waiter.context = resolution;
    list_init(&resolution->waiter.link);
    list_append(&core->resolutions, &resolution->link);
    buffer_init(&resolution->frame, 0);
    buffer_append(&resolution->frame, frame);
    if (resolution->frame.failed || core_policy_settle(core, domain, &resolution->waiter)) {
        resolution_free(resolution);
        return false;
    }
    return true;
}

bool core_take_tls(struct core_edge_out *out, struct reader *reader)
{
    struct channel_tls tls;
    uint32_t id = reader_u32(reader);
    if (reader->failed || !channel_get_tls(reader, &tls)) {
        return false;
    }
    const struct core_session *session = core_session_on(out, id);
    if (session != NULL && !session->foreign) {
        core_tls_reports_session(out->core, session->server, &tls);
    }
    return true;
}

bool core_take_resolved(struct core_edge_out *out, struct reader *reader)
{
    struct core *core = out->core;
    struct channel_mx answer;
    struct slice frame = reader->rest;
    struct slice domain = reader_bytes(reader);
    if (reader->failed || !channel_get_mx(reader, &answer)) {
        return false;
    }
    if (answer.answer.count == 0 || !wait_for_policy(core, domain, frame)) {
        tell_relay(core, domain, &answer);
    }
    return true;
}

bool core_take_texts(struct core_edge_out *out, struct reader *reader)
{
    const struct slice prefix = SLICE_LITERAL("_mta-sts.");
    const struct slice reports = SLICE_LITERAL("_smtp._tls.");
    struct channel_texts texts;
    struct slice name = reader_bytes(reader);
    if (reader->failed || !channel_get_texts(reader, &texts)) {
        return false;
    }
    if (slice_starts_fold(name, prefix)) {
        core_policies_announced(out->core, slice_skip(name, prefix.length), &texts);
    } else if (slice_starts_fold(name, reports)) {
        core_tls_reports_announced(out->core, slice_skip(name, reports.length), &texts);
    }
    return true;
}

bool core_take_addresses(struct core_edge_out *out, struct reader *reader)
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
