/* SPDX-License-Identifier: Apache-2.0
 *
 * The rings to edge-out: frames out, with a backlog in memory while a ring is full; frames in,
 * copied before they are read; attaching and what an edge-out that was attached before leaves
 * behind.
 *
 * When a fresh edge-out takes the place of one that died, its jobs are settled from what we know:
 * without GO no dot was sent (not tried), with it the attempt is in doubt. When core is the fresh
 * one, edge-out names the jobs that it still works on and repeats results (core_out_report.c); both
 * are matched by message id against the loaded spool, hence rings are not read before loading is
 * complete.
 */
#include "service/core_out.h"
#include "service/core_cluster.h"

#include <assert.h>
#include <stdlib.h>

#include "base/crc32c.h"

/* ---- frames to edge-out ---------------------------------------------------------------------- */

struct buffer *core_out_frame(struct core *core, enum channel_frame type, uint32_t session)
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
        /* It has not read for so long that it must be taken for dead. */
        core_edge_is_broken(out->core, CORE_EDGE_OUT,
                            "edge-out does not read its ring and is cut off");
        core_out_attach(out->core, out->index, out->core->out_count, NULL);
    }
}

void core_out_send_plain(struct core *core, struct core_edge_out *out, enum channel_frame type,
                         uint32_t session)
{
    core_out_send(out, core_out_frame(core, type, session));
}

void core_job_say(struct core *core, const struct job *job, enum channel_frame type)
{
    if (type == CHANNEL_GO) {
        core_lease_check(core);
    }
    struct buffer *frame = core_out_frame(core, type, job->session);
    buffer_put_u64(frame, job->id);
    core_out_send(&core->out[job->edge], frame);
}

void core_out_action(struct core *core, const struct relay_action *action)
{
    if (action->kind == RELAY_CONNECT) {
        core_session_connect(core, action);
    } else if (action->kind == RELAY_DELIVER) {
        core_job_deliver(core, action);
    } else {
        struct core_session *session = map_get(&core->sessions, action->session);
        if (session != NULL && !session->foreign) {
            core_session_wait_no_longer(core, session);
            enum channel_frame type = action->kind == RELAY_KNOCK ? CHANNEL_KNOCK : CHANNEL_CLOSE;
            core_out_send_plain(core, &core->out[session->edge], type, session->id);
        }
    }
}

/* Any of them can ask; one domain is always asked by the same, which may know it already. */
void core_out_resolve(struct core *core, struct slice domain)
{
    uint32_t count = core->out_count > 0 ? core->out_count : 1;
    buffer_clear(&core->frame);
    buffer_put_u8(&core->frame, CHANNEL_RESOLVE);
    buffer_put_bytes(&core->frame, domain);
    core_out_send(&core->out[crc32c(0, domain) % count], &core->frame);
}

void core_out_ask_text(struct core *core, struct slice name, struct slice domain)
{
    uint32_t count = core->out_count > 0 ? core->out_count : 1;
    buffer_clear(&core->frame);
    buffer_put_u8(&core->frame, CHANNEL_TEXT);
    buffer_put_bytes(&core->frame, name);
    core_out_send(&core->out[crc32c(0, domain) % count], &core->frame);
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
            core_out_send_plain(core, out, CHANNEL_CLOSE, session->id); /* asked for since */
        }
        core_session_forget_jobs(core, session);
        core_session_free(core, session);
    }
    core_early_forget(core, out->index, 0, true);
    relay_sessions_lost(core->relay, out->index, core->out_count, core_now(core));
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
                core_out_send_plain(core, out, CHANNEL_CLOSE, session->id);
                core_session_end(core, session, &lost);
                found = true;
                break; /* the list may have changed */
            }
        }
    }
}

static void start_if_ready(struct core *core)
{
    bool waits = core->cluster != NULL && !core_cluster_is_loaded(core->cluster);
    if (core->dispatching || !core->loaded || core->out_count == 0 || waits) {
        return;
    }
    for (uint32_t i = 0; i < core->out_count; i++) {
        if (!core->out[i].resumed) {
            return;
        }
    }
    core->dispatching = true;
    relay_start(core->relay, core_now(core));
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
        return core_take_opened(out, &reader);
    case CHANNEL_ENDED:
        return core_take_ended(out, &reader);
    case CHANNEL_READY:
        return core_take_ready(out, &reader);
    case CHANNEL_RESULT:
        return core_take_result(out, &reader);
    case CHANNEL_ADDRESSES:
        return core_take_addresses(out, &reader);
    case CHANNEL_WORKING:
        return core_take_working(out, &reader);
    case CHANNEL_RESUMED:
        return take_resumed(out, &reader);
    case CHANNEL_NAME:
        return core_names_take(out->core, &reader);
    case CHANNEL_RESOLVED:
        return core_take_resolved(out, &reader);
    case CHANNEL_TLS:
        return core_take_tls(out, &reader);
    case CHANNEL_TEXTS:
        return core_take_texts(out, &reader);
    case CHANNEL_LOOKED_UP:
        return core_listing_looked_up(out, &reader);
    case CHANNEL_CALLED:
        return core_recipients_called(out, &reader);
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
            core_edge_is_broken(core, CORE_EDGE_OUT, "edge-out has broken its ring and is cut off");
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
        relay_session_ended(core->relay, id, &local, core_now(core));
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
        core_job_settle_alone(core, job, RELAY_REFUSED, 451, "the stored message cannot be read");
    }
}

void core_out_later(void *context)
{
    struct core *core = context;
    tell_relay_of_failures(core);
    for (uint32_t i = 0; i < core->out_count; i++) {
        drain(&core->out[i]);
    }
    start_if_ready(core);
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
        report_alert_over(core, ALERT_EDGE_OUT);
        out->epoch++;
        ring_set_handler(ring, ring_ready, out);
        ring_ready(out);
    }
}

void core_out_loaded(struct core *core)
{
    loop_later_ask(core->out_later);
}

void core_out_remap(struct core *core, const struct service_config *old)
{
    LIST_EACH(&core->sessions_list, at, after)
    {
        struct core_session *session = LIST_ENTRY(at, struct core_session, link);
        if (session->server < RELAY_EXCHANGERS) {
            session->server =
                relay_config_remap(&core->config->relay, &old->relay, session->server);
        }
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
    list_init(&core->early);
    list_init(&core->unprepared);
    list_init(&core->resolutions);
    for (uint32_t i = 0; i < CORE_EDGES_MAX; i++) {
        core->out[i].core = core;
        core->out[i].index = i;
        buffer_init(&core->out[i].backlog, CORE_BACKLOG_MAX);
    }
}

void core_out_done(struct core *core)
{
    core_early_done(core);
    for (uint32_t i = 0; i < CORE_EDGES_MAX; i++) {
        ring_free(core->out[i].ring);
        core->out[i].ring = NULL;
        buffer_done(&core->out[i].backlog);
    }
    size_t cursor = 0;
    for (struct job *job; (job = map_next(&core->jobs, &cursor)) != NULL;) {
        buffer_done(&job->redirect_to);
        free(job);
    }
    map_done(&core->jobs);
    LIST_EACH(&core->sessions_list, at, after)
    {
        struct core_session *session = LIST_ENTRY(at, struct core_session, link);
        free(session->tls);
        free(session);
    }
    LIST_EACH(&core->refused, refused_at, refused_after)
    {
        free(LIST_ENTRY(refused_at, struct core_session, link));
    }
    map_done(&core->sessions);
}
