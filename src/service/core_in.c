/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames of edge-in. Content that does not fit into one frame arrives in pieces and goes to the
 * spool at once; the commit frame brings the envelope and the rest. One commit is one batch,
 * SPOOL_SYNCED; its completion without error is the one reason for CHANNEL_STORED with ERROR_NONE,
 * and that for 250 (R1). Core may die between the two: then the next one is asked
 * (CHANNEL_REPEATED), which finds the message by its id or stores it.
 *
 * The sender of these frames parses what strangers send, so it is not trusted: a frame's envelope
 * is copied before it is read, lengths are checked against what really came, and every table is
 * bounded. The last content goes from the ring straight into the spool, which copies it once.
 *
 * While more content waits for storage than `content-memory` allows, rings are not read: edge-in
 * then stops reading its sockets. Meanwhile the spool is asked to move on what messages under way
 * hold: those who would end them are in a ring that is not read.
 */
#include "service/core_cluster.h"
#include "service/core_internal.h"

#include "relay/notes.h"
#include "sys/clock.h"

#include <assert.h>
#include <stdlib.h>

enum {
    COMMITS_KEPT_MAX = 1024,
    RELIEF_MS = 2,
    AHEAD_TOLD_MS = 10, /* mail that nodes have in their journals is put in order by it */
    QUOTA_CHECK_BYTES = 16 << 20,
    ANSWER_BYTES = 1 + 8 + 1,
    ROUTE_BYTES = 1 + 4 + 4 + 1 + 1 + 4 + 8,
    COMMIT_FRONT = 1 + 8, /* type and token */
};

struct upload {
    struct spool_content *content;
    uint64_t bytes;
    enum error error; /* the first; told at the commit */
};

/* A message from its commit frame until it is answered and known to relay. */
struct commit {
    struct link link;      /* commits_free or in->answers */
    struct link unrelayed; /* core->unrelayed: relay had no memory for it, or for one before it */
    struct core *core;
    struct core_edge_in *in;
    uint32_t epoch;
    uint64_t token;
    enum error error;
    bool answered;
    size_t tail_bytes;
    struct spool_handle handle;
    struct spool_message message;
    bool is_held;      /* a filter wants it so */
    struct slice hold; /* the note that says so of each delivery */
    struct arena arena;
    uint8_t *whole; /* the frame's front where the prefix is too short */
    uint8_t prefix[CORE_PREFIX];
};

/* ---- commits --------------------------------------------------------------------------------- */

static struct commit *commit_new(struct core_edge_in *in, uint64_t token)
{
    struct core *core = in->core;
    struct commit *commit;
    if (list_is_empty(&core->commits_free)) {
        commit = malloc(sizeof(*commit));
        if (commit == NULL) {
            return NULL;
        }
        list_init(&commit->link);
        list_init(&commit->unrelayed);
        arena_init(&commit->arena);
    } else {
        commit = LIST_ENTRY(core->commits_free.next, struct commit, link);
        list_remove(&commit->link);
        core->commits_kept--;
    }
    commit->core = core;
    commit->in = in;
    commit->epoch = in->epoch;
    commit->token = token;
    commit->error = ERROR_NONE;
    commit->answered = false;
    commit->handle = SPOOL_NO_HANDLE;
    commit->is_held = false;
    commit->whole = NULL;
    return commit;
}

static void commit_destroy(struct commit *commit)
{
    arena_done(&commit->arena);
    free(commit->whole);
    free(commit);
}

static void commit_free(struct commit *commit)
{
    struct core *core = commit->core;
    list_remove(&commit->link);
    if (core->commits_kept >= COMMITS_KEPT_MAX) {
        commit_destroy(commit);
        return;
    }
    free(commit->whole);
    commit->whole = NULL;
    arena_reset(&commit->arena);
    list_append(&core->commits_free, &commit->link);
    core->commits_kept++;
}

/* ---- answers --------------------------------------------------------------------------------- */

/* False: no room in the ring now. */
static bool send_answer(struct core_edge_in *in, uint64_t token, enum error error)
{
    uint8_t *frame = ring_reserve(in->ring, ANSWER_BYTES);
    if (frame == NULL) {
        return false;
    }
    frame[0] = CHANNEL_STORED;
    for (int i = 0; i < 8; i++) {
        frame[1 + i] = (uint8_t)(token >> (8 * i));
    }
    frame[9] = (uint8_t)error;
    ring_publish(in->ring, ANSWER_BYTES);
    return true;
}

static bool try_answer(struct commit *commit)
{
    core_lease_check(commit->core);
    struct core_edge_in *in = commit->in;
    if (in->ring == NULL || in->epoch != commit->epoch) {
        return true; /* who asked has gone */
    }
    return list_is_empty(&in->answers) && send_answer(in, commit->token, commit->error);
}

static void commit_free_if_over(struct commit *commit)
{
    if (commit->answered && list_is_empty(&commit->unrelayed)) {
        commit_free(commit);
    }
}

static void commit_answered(struct commit *commit)
{
    commit->answered = true;
    list_remove(&commit->link);
    commit_free_if_over(commit);
}

static void commit_answer(struct commit *commit)
{
    if (try_answer(commit)) {
        commit_answered(commit);
    } else {
        list_append(&commit->in->answers, &commit->link);
    }
}

static void push_answers(struct core_edge_in *in)
{
    core_lease_check(in->core);
    LIST_EACH(&in->answers, at, after)
    {
        struct commit *commit = LIST_ENTRY(at, struct commit, link);
        if (in->epoch == commit->epoch && in->ring != NULL &&
            !send_answer(in, commit->token, commit->error)) {
            return;
        }
        list_remove(&commit->link);
        commit_answered(commit);
    }
}

/* ---- storing --------------------------------------------------------------------------------- */

bool core_in_relay(struct core *core, struct spool_handle handle, struct spool_message *message)
{
    if (handle.index == SPOOL_NO_HANDLE.index) {
        return true; /* in a cluster its owner hears of it from the spool, be it we ourselves */
    }
    message->sequence = spool_sequence(core->spool, handle);
    enum error error = relay_add(core->relay, handle, message, core_now(core));
    if (error != ERROR_NONE) {
        report_problem("message stored but not scheduled", error);
        return false;
    }
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    return true;
}

/* A message that a filter has quarantined comes with its holds, as one that is imported. */
static bool relay_commit(struct commit *commit)
{
    struct core *core = commit->core;
    if (!commit->is_held || commit->handle.index == SPOOL_NO_HANDLE.index) {
        return core_in_relay(core, commit->handle, &commit->message);
    }
    relay_together_begin(core->relay, core_now(core));
    bool done = core_in_relay(core, commit->handle, &commit->message);
    for (uint32_t i = 0; done && i < commit->message.recipient_count; i++) {
        relay_load_note(core->relay, commit->handle, i, NOTE_HOLD, commit->hold, core_now(core));
    }
    relay_together_end(core->relay, core_now(core));
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    return done;
}

static void report_taken(const struct commit *commit)
{
    report_accepted(commit->core, &commit->message);
    if (commit->is_held) {
        report_operator(commit->core, EVENT_HELD, commit->message.id, SPOOL_ALL_DELIVERIES,
                        commit->message.origin.verdicts);
    }
}

/* The spool has decided: the one place that leads to 250. */
static void commit_done(void *context, enum error error, const struct spool_handle *handles,
                        size_t count)
{
    struct commit *commit = context;
    struct core *core = commit->core;
    assert(error != ERROR_NONE || count == (core->cluster == NULL));
    core->commits_under_way--;
    core->commit_bytes -= commit->tail_bytes;
    commit->error = error;
    bool answered = try_answer(commit);
    if (error == ERROR_NONE) {
        report_taken(commit);
        commit->handle = count > 0 ? handles[0] : SPOOL_NO_HANDLE;
        if (!list_is_empty(&core->unrelayed) || !relay_commit(commit)) {
            list_append(&core->unrelayed, &commit->unrelayed); /* in order, as stored */
        }
        uint64_t bytes = commit->message.header_length + commit->message.body_length;
        core->bytes_since_quota += bytes;
        core->accepted_messages++;
        core->accepted_bytes += bytes;
    }
    if (answered) {
        commit_answered(commit);
    } else {
        list_append(&commit->in->answers, &commit->link);
    }
    if (core->bytes_since_quota >= QUOTA_CHECK_BYTES) {
        core_in_announce(core, false);
    }
    core_check_stopped(core);
}

/* Reads the envelope out of a copy of the frame's front; the content's last piece is left where it
 * is, in `ret_tail`. */
static enum error read_envelope(struct commit *commit, struct slice frame, struct slice *ret_tail)
{
    size_t copied = frame.length < CORE_PREFIX ? frame.length : CORE_PREFIX;
    memcpy(commit->prefix, frame.data, copied);
    struct reader reader = reader_make(slice_make(commit->prefix, copied));
    (void)reader_take(&reader, COMMIT_FRONT);
    if (!channel_get_message(&reader, &commit->arena, &commit->message)) {
        if (copied == frame.length) {
            return ERROR_INVALID;
        }
        size_t most = SPOOL_ENVELOPE_MAX + COMMIT_FRONT;
        copied = frame.length < most ? frame.length : most;
        commit->whole = malloc(copied);
        if (commit->whole == NULL) {
            return ERROR_MEMORY;
        }
        memcpy(commit->whole, frame.data, copied);
        arena_reset(&commit->arena);
        reader = reader_make(slice_make(commit->whole, copied));
        (void)reader_take(&reader, COMMIT_FRONT);
        if (!channel_get_message(&reader, &commit->arena, &commit->message)) {
            return ERROR_INVALID;
        }
    }
    *ret_tail = slice_skip(frame, copied - reader.rest.length);
    /* Only we make these. */
    commit->message.flags &=
        ~(uint32_t)(SPOOL_OWN_DSN | SPOOL_IMPORTED | SPOOL_DRILL | SPOOL_ENVELOPE_ONLY);
    commit->message.elapsed_s = 0;
    return ERROR_NONE;
}

static enum error check_lengths(const struct spool_message *message, uint64_t content_length)
{
    return message->header_length <= content_length &&
                   message->body_length == content_length - message->header_length
               ? ERROR_NONE
               : ERROR_INVALID;
}

/* R5: a half-repaired server that sends back what it had from us makes no second message. */
static bool loops(struct commit *commit)
{
    bool is_back = (commit->message.flags & CHANNEL_OWN_TRACE) != 0;
    commit->message.flags &= ~CHANNEL_OWN_TRACE;
    if (!is_back || !relay_loop(commit->core->relay, &commit->message, core_now(commit->core))) {
        return false;
    }
    core_act(commit->core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    return true;
}

static enum error note_hold(struct commit *commit)
{
    const struct spool_message *message = &commit->message;
    const struct delivery_note note = {.when_ms = message->received_ms,
                                       .odometer_s = message->odometer_s,
                                       .text = message->origin.verdicts};
    struct buffer payload;
    buffer_init(&payload, NOTE_PAYLOAD_MAX);
    note_encode(&payload, &note);
    commit->hold =
        payload.failed ? SLICE_EMPTY : arena_copy(&commit->arena, buffer_slice(&payload));
    buffer_done(&payload);
    for (uint32_t i = 0; commit->hold.data != NULL && i < message->recipient_count; i++) {
        spool_batch_new_note(commit->core->spool, i, NOTE_HOLD, commit->hold);
    }
    return commit->hold.data != NULL ? ERROR_NONE : ERROR_MEMORY;
}

/* Nothing is stored: a filter has thrown it away, or core before us, which died before it could say
 * so, has stored it. */
static void settle(struct commit *commit, struct upload upload, bool is_discarded)
{
    spool_content_abort(upload.content);
    commit->message.flags &= ~CHANNEL_OWN_TRACE;
    report_taken(commit);
    if (is_discarded) {
        report_operator(commit->core, EVENT_DISCARDED, commit->message.id, SPOOL_ALL_DELIVERIES,
                        commit->message.origin.verdicts);
    }
    commit_answer(commit);
}

static void store(struct commit *commit, struct upload upload, struct slice frame)
{
    struct core *core = commit->core;
    struct slice tail;
    enum error error = read_envelope(commit, frame, &tail);
    uint32_t flags = commit->message.flags;
    commit->message.flags &= ~(CHANNEL_DISCARDED | CHANNEL_QUARANTINED | CHANNEL_REPEATED);
    commit->is_held = (flags & CHANNEL_QUARANTINED) != 0 && (flags & CHANNEL_DISCARDED) == 0;
    if (error == ERROR_NONE && (flags & CHANNEL_REPEATED) != 0) {
        error = core->loaded ? ERROR_NONE : ERROR_CLOSED; /* it was told to wait */
        if (core->loaded && spool_was_stored(core->spool, commit->message.id)) {
            settle(commit, upload, false);
            return;
        }
    }
    if (error == ERROR_NONE) {
        error = check_lengths(&commit->message, upload.bytes + tail.length);
    }
    if (error == ERROR_NONE) {
        error = core->stopping ? ERROR_CLOSED : upload.error;
    }
    if (error == ERROR_NONE && (flags & CHANNEL_DISCARDED) != 0) {
        settle(commit, upload, true);
        return;
    }
    if (error == ERROR_NONE && loops(commit)) {
        error = ERROR_LOOP;
    }
    if (error == ERROR_NONE) {
        commit->message.odometer_s = relay_odometer(core->relay, &commit->message, core_now(core));
        spool_batch_begin(core->spool);
        error = spool_batch_message(core->spool, &commit->message, upload.content, tail);
        if (error == ERROR_NONE && commit->is_held) {
            error = note_hold(commit);
        }
        if (error == ERROR_NONE) {
            core->commits_under_way++;
            commit->tail_bytes = tail.length;
            core->commit_bytes += tail.length;
            spool_batch_submit(core->spool, SPOOL_SYNCED, commit_done, commit);
            return;
        }
        spool_batch_cancel(core->spool);
    } else {
        spool_content_abort(upload.content);
    }
    commit->error = error;
    commit_answer(commit);
}

/* ---- frames ---------------------------------------------------------------------------------- */

static void malformed(struct core_edge_in *in, const char *what)
{
    if (in->malformed++ % 1000 == 0) {
        report_problem(what, ERROR_INVALID);
    }
}

static void take_append(struct core_edge_in *in, uint64_t token, struct slice bytes)
{
    struct upload *upload = map_get(&in->uploads, token);
    if (upload == NULL) {
        upload = in->uploads.count < CORE_UPLOADS_MAX ? calloc(1, sizeof(*upload)) : NULL;
        if (upload == NULL || map_put(&in->uploads, token, upload) != ERROR_NONE) {
            /* Its commit will not find the content, so lengths differ, so it is refused. */
            free(upload);
            malformed(in, "edge-in has too many messages under way");
            return;
        }
        upload->content = spool_content_new(in->core->spool, 0);
        upload->error = upload->content == NULL ? ERROR_MEMORY : ERROR_NONE;
    }
    upload->bytes += bytes.length;
    if (upload->bytes > in->core->config->limits.message_bytes + CHANNEL_CHUNK) {
        upload->error = ERROR_LIMIT;
    }
    if (upload->error == ERROR_NONE) {
        upload->error = spool_content_append(upload->content, bytes);
    }
    if (upload->error != ERROR_NONE) {
        spool_content_abort(upload->content);
        upload->content = NULL;
    }
}

static void take_commit(struct core_edge_in *in, uint64_t token, struct slice frame)
{
    struct upload *found = map_remove(&in->uploads, token);
    struct upload upload = found != NULL ? *found : (struct upload){0};
    free(found);
    struct commit *commit = commit_new(in, token);
    if (commit == NULL) {
        spool_content_abort(upload.content);
        if (!send_answer(in, token, ERROR_MEMORY)) {
            report_problem("edge-in not answered", ERROR_MEMORY);
        }
        return;
    }
    store(commit, upload, frame);
}

static void take_abort(struct core_edge_in *in, uint64_t token)
{
    struct upload *upload = map_remove(&in->uploads, token);
    if (upload != NULL) {
        spool_content_abort(upload->content);
        free(upload);
    }
}

static void take_sent_on(struct core *core, struct reader *reader)
{
    struct relay_lane_view lane;
    uint32_t generation = reader_u32(reader), route = reader_u32(reader);
    if (reader->failed || generation != core->generation ||
        route >= core->config->relay.route_count) {
        return; /* it has another configuration than we, and will ask again */
    }
    relay_lane(core->relay, route, &lane);
    if (lane.chain_length > 0) {
        relay_server_doubted(core->relay, lane.chain[0], core_now(core));
        core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    }
}

static void take_frame(struct core_edge_in *in, struct slice frame)
{
    uint8_t front[1 + 16];
    size_t length = frame.length < sizeof(front) ? frame.length : sizeof(front);
    memcpy(front, frame.data, length);
    struct reader reader = reader_make(slice_make(front, length));
    uint8_t type = reader_u8(&reader);
    if (type == CHANNEL_CONTACT && length == sizeof(front)) {
        struct ip_address from;
        memcpy(from.bytes, front + 1, sizeof(from.bytes));
        relay_contact(in->core->relay, &from, core_now(in->core));
        core_act(in->core, SPOOL_LAZY, CORE_NOTHING_AFTER);
        return;
    }
    if (type == CHANNEL_REFUSED) {
        if (!core_refusal_take(in, frame)) {
            malformed(in, "edge-in sent a broken word about a refusal");
        }
        return;
    }
    if (type == CHANNEL_SENT_ON) {
        take_sent_on(in->core, &reader);
        return;
    }
    if (type == CHANNEL_ETRN || type == CHANNEL_ATRN || type == CHANNEL_RECIPIENT ||
        type == CHANNEL_LISTING) {
        if (!(type == CHANNEL_ETRN      ? core_etrn_take(in, frame)
              : type == CHANNEL_ATRN    ? core_atrn_take(in, frame)
              : type == CHANNEL_LISTING ? core_listing_take(in, frame)
                                        : core_recipient_take(in, frame))) {
            malformed(in, "edge-in sent a broken request");
        }
        return;
    }
    if (type == CHANNEL_MILTER) {
        if (!core_milter_take(in, frame)) {
            malformed(in, "edge-in sent a broken word about a filter");
        }
        return;
    }
    uint64_t token = reader_u64(&reader);
    if (reader.failed) {
        malformed(in, "edge-in sent a frame that is too short");
    } else if (type == CHANNEL_COMMIT) {
        take_commit(in, token, frame);
    } else if (type == CHANNEL_APPEND) {
        take_append(in, token, slice_skip(frame, COMMIT_FRONT));
    } else if (type == CHANNEL_ABORT) {
        take_abort(in, token);
    } else {
        malformed(in, "edge-in sent an unknown frame");
    }
}

static void drop_uploads(struct core_edge_in *in)
{
    size_t cursor = 0;
    for (struct upload *upload; (upload = map_next(&in->uploads, &cursor)) != NULL;) {
        spool_content_abort(upload->content);
        free(upload);
    }
    map_done(&in->uploads);
}

static void detach(struct core_edge_in *in)
{
    drop_uploads(in);
    ring_free(in->ring);
    in->ring = NULL;
    in->epoch++;
    core_milter_edge_gone(in);
    push_answers(in); /* to nobody */
}

static void drain(struct core_edge_in *in)
{
    struct core *core = in->core;
    for (int i = 0; i < CORE_FRAMES_A_TURN; i++) {
        if (spool_content_pending(core->spool) + core->commit_bytes >
            core->config->content_memory_bytes) {
            spool_content_relieve(core->spool);
            loop_timer_set(core->in_relief, RELIEF_MS);
            return;
        }
        struct slice frame;
        enum error error = ring_receive(in->ring, &frame);
        if (error == ERROR_AGAIN) {
            return;
        }
        if (error != ERROR_NONE) {
            core_edge_is_broken(core, CORE_EDGE_IN, "edge-in has broken its ring and is cut off");
            detach(in);
            return;
        }
        take_frame(in, frame);
        ring_release(in->ring);
    }
    loop_later_ask(core->in_later);
}

/* ---- what edge-in must know ------------------------------------------------------------------ */

static bool send_route(struct core_edge_in *in, uint32_t index)
{
    struct core *core = in->core;
    const struct route_state *route = &core->routes[index];
    struct buffer *frame = &core->frame;
    buffer_clear(frame);
    buffer_put_u8(frame, CHANNEL_ROUTE);
    buffer_put_u32(frame, core->generation);
    buffer_put_u32(frame, index);
    buffer_put_u8(frame, route->quota_reached ? ERROR_SPACE : ERROR_NONE);
    buffer_put_u8(frame, (uint8_t)(route->head_known | route->head_up << 1));
    buffer_put_u32(frame, route->head_flags);
    buffer_put_u64(frame, route->head_size_limit);
    return !frame->failed && ring_send(in->ring, buffer_slice(frame)) == ERROR_NONE;
}

static bool send_accepting(struct core_edge_in *in)
{
    struct core *core = in->core;
    struct buffer *frame = &core->frame;
    buffer_clear(frame);
    buffer_put_u8(frame, CHANNEL_ACCEPTING);
    buffer_put_u8(frame, (uint8_t)core->accepting);
    buffer_put_u64(frame, (uint64_t)core->time_ahead_ms);
    buffer_put_u8(frame, core->told_loaded);
    return !frame->failed && ring_send(in->ring, buffer_slice(frame)) == ERROR_NONE;
}

/* announce_at: 0 is CHANNEL_ACCEPTING, 1 + i is route i. */
static void push_announcements(struct core_edge_in *in)
{
    struct core *core = in->core;
    while (in->announce_at <= core->config->relay.route_count) {
        bool sent = in->announce_at == 0 ? send_accepting(in) : send_route(in, in->announce_at - 1);
        if (!sent) {
            return; /* goes on when there is room */
        }
        in->announce_at++;
    }
    in->announce_at = NO_INDEX;
}

static uint64_t quota_of(struct core *core, const struct route_config *route)
{
    if (route->quota_bytes != QUOTA_DEFAULT) {
        return route->quota_bytes;
    }
    struct disk_space space;
    if (core->events_disk->ops->space(core->events_disk, &space) != ERROR_NONE) {
        return 0;
    }
    return space.total_bytes / 2;
}

static bool look_at_route(struct core *core, uint32_t index)
{
    const struct route_config *route = &core->config->relay.routes[index];
    struct route_state now = {0};
    if (route->quota_bytes != 0) {
        uint64_t quota = quota_of(core, route);
        now.quota_reached = quota != 0 && relay_route_bytes(core->relay, index) >= quota;
    }
    struct relay_lane_view lane;
    struct relay_server_view head = {.capabilities_known = false};
    relay_lane(core->relay, index, &lane);
    if (lane.chain_length > 0) {
        relay_server(core->relay, lane.chain[0], &head);
    }
    now.head_up = lane.chain_length > 0 && head.state == SERVER_UP;
    if (head.capabilities_known) {
        now.head_known = true;
        now.head_flags = head.capabilities.flags;
        now.head_size_limit = head.capabilities.size_limit;
    }
    struct route_state *told = &core->routes[index];
    bool same = told->quota_reached == now.quota_reached && told->head_known == now.head_known &&
                told->head_up == now.head_up && told->head_flags == now.head_flags &&
                told->head_size_limit == now.head_size_limit;
    *told = now;
    return !same;
}

void core_in_announce(struct core *core, bool repeat)
{
    struct spool_state state;
    spool_status(core->spool, &state);
    int64_t ahead_ms = core->cluster != NULL ? core_wall_ms(core) - clock_steady_ms() : 0;
    bool changed = repeat || core->accepting != state.accepting ||
                   core->told_loaded != core->loaded ||
                   llabs(ahead_ms - core->time_ahead_ms) >= AHEAD_TOLD_MS;
    core->time_ahead_ms = changed ? ahead_ms : core->time_ahead_ms;
    core->accepting = state.accepting;
    core->told_loaded = core->loaded;
    core->bytes_since_quota = 0;
    for (uint32_t i = 0; i < core->config->relay.route_count; i++) {
        changed = look_at_route(core, i) || changed;
    }
    for (uint32_t i = 0; i < CORE_EDGES_MAX; i++) {
        struct core_edge_in *in = &core->in[i];
        if (in->ring != NULL && (changed || in->announce > 0)) {
            in->announce_at = 0;
            push_announcements(in);
        }
    }
}

void core_in_tick(struct core *core)
{
    core_in_announce(core, false);
    for (uint32_t i = 0; i < CORE_EDGES_MAX; i++) {
        struct core_edge_in *in = &core->in[i];
        in->announce -= in->announce > 0;
    }
    LIST_EACH(&core->unrelayed, at, after)
    {
        struct commit *commit = LIST_ENTRY(at, struct commit, unrelayed);
        if (!relay_commit(commit)) {
            break;
        }
        list_remove(&commit->unrelayed);
        commit_free_if_over(commit);
    }
}

enum error core_in_reconfigure(struct core *core)
{
    uint32_t count = core->config->relay.route_count;
    struct route_state *routes = calloc(count > 0 ? count : 1, sizeof(*routes));
    if (routes == NULL) {
        return ERROR_MEMORY;
    }
    free(core->routes);
    core->routes = routes;
    /* Both sides take a new configuration when they get it; what is said about a generation that
     * the other has not reached yet is lost, so it is said several times. */
    for (uint32_t i = 0; i < CORE_EDGES_MAX; i++) {
        core->in[i].announce = CORE_ANNOUNCE_TICKS;
        core->in[i].announce_at = NO_INDEX;
    }
    return ERROR_NONE;
}

/* ---- life cycle ------------------------------------------------------------------------------ */

static void ring_ready(void *context)
{
    struct core_edge_in *in = context;
    if (in->ring == NULL) {
        return;
    }
    push_answers(in);
    push_announcements(in);
    drain(in);
}

void core_in_read_on(void *context)
{
    struct core *core = context;
    for (uint32_t i = 0; i < CORE_EDGES_MAX; i++) {
        if (core->in[i].ring != NULL) {
            drain(&core->in[i]);
        }
    }
}

void core_in_attach(struct core *core, uint32_t index, struct ring *ring)
{
    assert(index < CORE_EDGES_MAX);
    struct core_edge_in *in = &core->in[index];
    detach(in);
    in->ring = ring;
    if (ring == NULL) {
        return;
    }
    report_alert_over(core, ALERT_EDGE_IN);
    core_in_announce(core, false); /* the cluster's time may be known by now */
    in->announce = CORE_ANNOUNCE_TICKS;
    in->announce_at = 0;
    ring_set_handler(ring, ring_ready, in);
    ring_ready(in);
}

void core_in_init(struct core *core)
{
    list_init(&core->commits_free);
    list_init(&core->unrelayed);
    for (uint32_t i = 0; i < CORE_EDGES_MAX; i++) {
        struct core_edge_in *in = &core->in[i];
        in->core = core;
        in->index = i;
        in->announce_at = NO_INDEX;
        map_init(&in->uploads);
        list_init(&in->answers);
    }
}

void core_in_done(struct core *core)
{
    for (uint32_t i = 0; i < CORE_EDGES_MAX; i++) {
        LIST_EACH(&core->in[i].answers, at, after)
        {
            commit_answered(LIST_ENTRY(at, struct commit, link));
        }
    }
    LIST_EACH(&core->unrelayed, at, after)
    {
        list_remove(at);
        commit_free_if_over(LIST_ENTRY(at, struct commit, unrelayed));
    }
    LIST_EACH(&core->commits_free, at, after)
    {
        list_remove(at);
        commit_destroy(LIST_ENTRY(at, struct commit, link));
    }
    core->commits_kept = 0;
    free(core->routes);
    core->routes = NULL;
}
