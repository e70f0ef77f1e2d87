/* SPDX-License-Identifier: Apache-2.0
 *
 * Callouts (R8): a server is asked for an address at RCPT, from the null reverse-path, and the
 * transaction is taken back. They have connections of their own that are kept for a moment: a
 * question behind which a client waits must not wait behind mail, nor mail behind strangers'
 * questions. A connection asks but a few of them: most are for recipients that do not exist, and
 * servers slow down or end a session with many of those (Postfix after 10 and 20).
 */
#include "service/smtp_out_internal.h"

#include "sys/clock.h"

#include <stdlib.h>

enum {
    IDLE_MS = 5000, /* then it is closed */
    CALLOUTS_A_SESSION = 5,
    SESSIONS_MAX = 16, /* to one server at once */
    ADDRESS_BYTES_MAX = 1024,
};

void callout_rest(struct out_session *session)
{
    if (!session->calls_out || session->state != OUT_TALKING) {
        return;
    }
    LIST_EACH(&session->jobs, at, after)
    {
        if (LIST_ENTRY(at, struct out_job, on_session)->state != JOB_OVER) {
            return;
        }
    }
    session->limit_ms = clock_steady_ms() + (session->callouts < CALLOUTS_A_SESSION ? IDLE_MS : 0);
    session_set_timer(session);
}

static bool is_same_peer(const struct out_session *session, const struct session_peer *peer)
{
    const struct channel_exchanger *exchanger = peer->exchanger;
    if (session->server != peer->server || session->sts != peer->sts) {
        return false;
    }
    if (session->exchanger == NULL || exchanger == NULL) {
        return session->exchanger == NULL && exchanger == NULL;
    }
    const struct server_config *ours = &session->exchanger->config;
    return ours->waived == exchanger->config.waived &&
           slice_equal_fold(ours->name, exchanger->config.name) &&
           slice_equal_fold(ours->signed_by, exchanger->config.signed_by);
}

/* NULL: too many are open, or memory. */
static struct out_session *find_session(struct smtp_out *out, const struct session_peer *peer)
{
    uint32_t count = 0;
    LIST_EACH(&out->sessions, at, after)
    {
        struct out_session *session = LIST_ENTRY(at, struct out_session, link);
        if (!session->calls_out || session->state == OUT_OVER || !is_same_peer(session, peer)) {
            continue;
        }
        if (!session->closing && !session->winding_up && session->callouts < CALLOUTS_A_SESSION) {
            return session;
        }
        count++;
    }
    return count < SESSIONS_MAX ? session_start_callouts(out, peer) : NULL;
}

static bool is_ascii(struct slice address)
{
    for (size_t i = 0; i < address.length; i++) {
        if (address.data[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

/* NULL: memory. */
static struct out_job *make_job(struct smtp_out *out, uint64_t token, const struct slice *addresses,
                                uint32_t count)
{
    struct out_job *job = out_job_new(count);
    if (job == NULL) {
        return NULL;
    }
    job->id = token;
    job->is_callout = true;
    job->message.flags = SPOOL_ENVELOPE_ONLY;
    bool good = true;
    for (uint32_t i = 0; i < count; i++) {
        job->deliveries[i] = i;
        job->recipients[i] =
            (struct smtp_client_recipient){.address = arena_copy(&job->arena, addresses[i])};
        good = good && job->recipients[i].address.data != NULL;
        job->message.flags |= is_ascii(addresses[i]) ? 0 : SPOOL_SMTPUTF8;
    }
    if (!good || map_put(&out->jobs_by_id, token, job) != ERROR_NONE) {
        job->confirmed = true; /* it is not in the map */
        out_job_free(out, job);
        return NULL;
    }
    return job;
}

/* Whatever cannot be asked is not answered: core waits no longer than a moment. */
bool callout_take(struct smtp_out *out, struct reader *reader)
{
    struct channel_exchanger exchanger;
    uint64_t token = reader_u64(reader);
    struct session_peer peer = {.server =
                                    channel_server_find(&out->config->relay, reader_u32(reader))};
    struct reader exchanger_reader = reader_make(reader_bytes(reader));
    struct slice addresses[2];
    addresses[0] = reader_bytes(reader);
    addresses[1] = reader_bytes(reader);
    peer.sts = channel_get_sts(reader);
    bool to_exchanger = exchanger_reader.rest.length > 0;
    if (reader->failed || addresses[0].length == 0 || addresses[0].length > ADDRESS_BYTES_MAX ||
        addresses[1].length > ADDRESS_BYTES_MAX || map_get(&out->jobs_by_id, token) != NULL ||
        (to_exchanger && !channel_get_exchanger(&exchanger_reader, &exchanger))) {
        return false;
    }
    if ((peer.server == NO_INDEX && !to_exchanger) || out->stopping) {
        return true;
    }
    if (to_exchanger) {
        peer.exchanger = &exchanger;
        peer.sts = exchanger.config.sts;
    }
    struct out_session *session = find_session(out, &peer);
    if (session == NULL || session->state == OUT_OVER) {
        return true;
    }
    struct out_job *job = make_job(out, token, addresses, addresses[1].length > 0 ? 2 : 1);
    if (job != NULL) {
        session->callouts++;
        job->session = session;
        job->server = peer.server;
        session->limit_ms = session->state == OUT_TALKING ? INT64_MAX : session->limit_ms;
        list_append(&session->jobs, &job->on_session);
        session_take_job(session, job);
    }
    return true;
}
