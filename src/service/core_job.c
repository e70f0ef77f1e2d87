/* SPDX-License-Identifier: Apache-2.0
 *
 * relay's sessions and jobs, from the frame that begins them to the fate that is durable.
 *
 *   job:  SENT --READY--> NOTING --note written--> GONE --RESULT--> SETTLING --durable--> (freed)
 *
 * Two orders are kept here (R2). GO is given only after the batch with the attempt note is
 * SPOOL_WRITTEN, and only to the oldest unsettled job of its session, so that a connection's next
 * dot waits until the fate of the previous one is durable. DURABLE is said only after the batch
 * with the result is SPOOL_SYNCED.
 *
 * In a cluster, when a node dies or loses its lease, at most one delivery of a connection is handed
 * over twice for it. DURABLE is said of a 2xx, too, that the node's journal alone has because the
 * database is away: whoever takes the share then finds the attempt, and that is in doubt. The next
 * dot may have its note in the database already, for envelopes go behind a dot; so GO, on any
 * connection, waits until the database has all such facts (core_cluster_may_send()). Hence of the
 * dots of a connection the database knows what became of all but the last one, which was in flight
 * when it went away. Nobody else waits for that: neither results nor the batches of the spool; and
 * GO itself not longer than it must, for while the database is away the lease ends soon and no dot
 * may go anyway, and facts are among the first that it gets when it is back.
 */
#include "service/core_cluster.h"
#include "service/core_out.h"
#include "service/core_policies.h"
#include "sys/clock.h"

#include <assert.h>
#include <stdlib.h>

enum { MISSING_MS = 15000 }; /* so long a message that is not where it was is waited for */

/* ---- sessions -------------------------------------------------------------------------------- */

struct core_session *core_session_new(struct core *core, uint32_t id, uint32_t server,
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

void core_session_keep(struct core *core, struct core_session *session)
{
    if (map_put(&core->sessions, session->id, session) != ERROR_NONE) {
        core_out_of_memory();
    }
    list_append(&core->sessions_list, &session->link);
}

/* ---- those that wait for a policy --------------------------------------------------------------
 */

struct session_wait {
    struct policy_waiter waiter;
    struct core *core;
    struct core_session *session;
    uint32_t knock_interval_ms;
};

static void wait_free(struct core_session *session)
{
    if (session->wait != NULL) {
        list_remove(&session->wait->waiter.link);
        free(session->wait);
        session->wait = NULL;
    }
}

static const struct server_config *config_of(const struct core *core, uint32_t server)
{
    return server < core->config->relay.server_count ? &core->config->relay.servers[server] : NULL;
}

/* Its one address is a name (settings). */
static bool has_policy(const struct server_config *server)
{
    return server != NULL && server->tls == SERVER_TLS_MTA_STS && server->address_count == 1;
}

enum sts_demand core_server_demand(struct core *core, uint32_t server)
{
    const struct server_config *config = relay_server_config(core->relay, server);
    if (config == NULL || server >= RELAY_EXCHANGERS) {
        return config == NULL ? STS_NONE : config->sts;
    }
    return has_policy(config)
               ? core_policy_demand(core, config->addresses[0].host, config->addresses[0].host)
               : STS_NONE;
}

static void tell_edge(struct core *core, const struct core_session *session,
                      uint32_t knock_interval_ms)
{
    struct buffer *frame = core_out_frame(core, CHANNEL_CONNECT, session->id);
    buffer_put_u32(frame, channel_server_key(&core->config->relay, session->server));
    buffer_put_u32(frame, knock_interval_ms);
    channel_put_sts(frame, core_server_demand(core, session->server));
    if (session->server >= RELAY_EXCHANGERS && session->server != NO_INDEX) {
        channel_put_exchanger(frame, relay_server_config(core->relay, session->server));
    }
    core_out_send(&core->out[session->edge], frame);
}

void core_session_wait_no_longer(struct core *core, struct core_session *session)
{
    if (session->wait != NULL) {
        uint32_t knock_interval_ms = session->wait->knock_interval_ms;
        wait_free(session);
        tell_edge(core, session, knock_interval_ms);
    }
}

static void policy_settled(void *context)
{
    const struct session_wait *wait = context;
    core_session_wait_no_longer(wait->core, wait->session);
}

/* True: policy_settled() follows. */
static bool wait_for_policy(struct core *core, struct core_session *session,
                            uint32_t knock_interval_ms)
{
    const struct server_config *server = config_of(core, session->server);
    struct session_wait *wait = has_policy(server) ? calloc(1, sizeof(*wait)) : NULL;
    if (wait == NULL) {
        return false;
    }
    *wait = (struct session_wait){.waiter = {.fn = policy_settled, .context = wait},
                                  .core = core,
                                  .session = session,
                                  .knock_interval_ms = knock_interval_ms};
    list_init(&wait->waiter.link);
    if (core_policy_settle(core, server->addresses[0].host, &wait->waiter)) {
        free(wait);
        return false;
    }
    session->wait = wait;
    return true;
}

/* ---- sessions of edge-out ----------------------------------------------------------------------
 */

void core_session_free(struct core *core, struct core_session *session)
{
    LIST_EACH(&session->jobs, at, after)
    {
        list_remove(at); /* settling jobs live on without it */
    }
    (void)map_remove(&core->sessions, session->id);
    list_remove(&session->link);
    wait_free(session);
    free(session->tls);
    free(session);
}

struct core_session *core_session_on(struct core_edge_out *out, uint32_t id)
{
    struct core_session *session = map_get(&out->core->sessions, id);
    return session != NULL && session->edge == out->index ? session : NULL;
}

void core_session_connect(struct core *core, const struct relay_action *action)
{
    uint32_t count = core->out_count > 0 ? core->out_count : 1;
    uint32_t edge = action->session % count;
    struct core_session *session = core_session_new(core, action->session, action->server, edge);
    if (map_get(&core->sessions, action->session) != NULL) {
        /* A session of an earlier life has the same number: relay picks another. */
        list_append(&core->refused, &session->link);
        loop_later_ask(core->out_later);
        return;
    }
    core_session_keep(core, session);
    if (!wait_for_policy(core, session, action->knock_interval_ms)) {
        tell_edge(core, session, action->knock_interval_ms);
    }
}

/* ---- jobs ------------------------------------------------------------------------------------ */

struct job *core_job_new(struct core *core, uint64_t id, struct spool_handle handle,
                         struct core_session *session, const uint32_t *deliveries, uint32_t count)
{
    struct job *job = calloc(1, sizeof(*job) + count * sizeof(job->deliveries[0]));
    if (job == NULL) {
        core_out_of_memory();
    }
    job->core = core;
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

static void job_let_go(struct job *job)
{
    if (job->over && !job->note_pending && !job->preparing) {
        buffer_done(&job->redirect_to);
        free(job);
    }
}

static void job_free(struct core *core, struct job *job)
{
    (void)map_remove(&core->jobs, job->id);
    list_remove(&job->on_session);
    list_remove(&job->waiting);
    job_unpin(core, job);
    job->over = true;
    job_let_go(job);
}

static void unsendable(struct core *core, struct job *job)
{
    list_append(&core->unsendable, &job->waiting);
    loop_later_ask(core->out_later);
}

static void send(struct core *core, struct job *job, struct slice redirect_to)
{
    uint8_t ticket[SPOOL_TICKET_MAX];
    size_t length;
    if (spool_ticket(core->spool, job->handle, ticket, &length) != ERROR_NONE) {
        unsendable(core, job);
        return;
    }
    struct buffer *frame = core_out_frame(core, CHANNEL_DELIVER, job->session);
    buffer_put_u64(frame, job->id);
    buffer_put_bytes(frame, slice_make(ticket, length));
    buffer_put_bytes(frame, redirect_to);
    buffer_put_u32(frame, job->count);
    for (uint32_t i = 0; i < job->count; i++) {
        buffer_put_u32(frame, job->deliveries[i]);
    }
    core_out_send(&core->out[job->edge], frame);
}

/* edge-out asks for GO in the order that it was given, and GO is given in the session's order: they
 * must be the same, so behind one that is being fetched the others wait. */
static void send_in_order(struct core *core, struct core_session *session)
{
    LIST_EACH(&session->jobs, at, after)
    {
        struct job *job = LIST_ENTRY(at, struct job, on_session);
        if (job->unsent && !job->fetched) {
            return;
        }
        if (job->unsent) {
            job->unsent = false;
            send(core, job, buffer_slice(&job->redirect_to));
        }
    }
}

/* What another server of the database has not, the node that accepted it gives to that soon. */
static bool may_come_back(struct job *job, enum error error)
{
    if (error != ERROR_MISSING) {
        return false;
    }
    int64_t now_ms = clock_steady_ms();
    job->missing_ms = job->missing_ms != 0 ? job->missing_ms : now_ms;
    return now_ms - job->missing_ms < MISSING_MS;
}

/* What is stored elsewhere has come, or cannot now. */
static void prepared(void *context, enum error error)
{
    struct job *job = context;
    struct core *core = job->core;
    struct core_session *session = map_get(&core->sessions, job->session);
    job->preparing = false;
    if (job->over) {
        job_let_go(job);
    } else if (job->state != JOB_SENT) {
        job->unsent = false; /* settled meanwhile: the session was lost */
    } else if (error == ERROR_AGAIN || error == ERROR_SPACE || error == ERROR_MEMORY ||
               may_come_back(job, error)) {
        list_append(&core->unprepared, &job->waiting); /* asked again by the tick */
    } else if (error != ERROR_NONE) {
        job->unsent = false;
        unsendable(core, job);
    } else {
        job->fetched = true;
    }
    if (session != NULL) {
        send_in_order(core, session);
    }
}

static void prepare(struct core *core, struct job *job)
{
    job->fetched = spool_prepare(core->spool, job->handle, prepared, job);
    job->preparing = !job->fetched;
    struct core_session *session = map_get(&core->sessions, job->session);
    if (session != NULL) {
        send_in_order(core, session);
    }
}

void core_job_deliver(struct core *core, const struct relay_action *action)
{
    struct core_session *session = map_get(&core->sessions, action->session);
    assert(session != NULL && !session->foreign); /* relay knows which sessions are open */
    assert(map_get(&core->jobs, action->job) == NULL);
    struct job *job = core_job_new(core, action->job, action->handle, session, action->deliveries,
                                   action->delivery_count);
    spool_pin(core->spool, job->handle);
    job->pinned = true;
    job->unsent = true;
    buffer_append(&job->redirect_to, action->redirect_to);
    if (job->redirect_to.failed) {
        core_out_of_memory();
    }
    prepare(core, job);
}

/* ---- the attempt note and GO ----------------------------------------------------------------- */

/* The lease is asked, not what was last heard of it: the machine may have stood still. */
bool core_job_may_go(const struct core *core)
{
    return relay_lease_is_held(core->relay) &&
           (core->cluster == NULL || core_cluster_may_send(core->cluster));
}

static void go_if_first(struct core *core, struct core_session *session)
{
    if (session == NULL || list_is_empty(&session->jobs)) {
        return;
    }
    struct job *job = LIST_ENTRY(session->jobs.next, struct job, on_session);
    if (job->state == JOB_NOTING && job->note_written && core_job_may_go(core)) {
        job->state = JOB_GONE;
        report_attempt(core, job);
        core_job_say(core, job, CHANNEL_GO);
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
        job_let_go(job);
    } else if (job->state != JOB_NOTING) {
        /* Settled meanwhile: the session was lost. */
    } else if (error == ERROR_DENIED) {
        /* Its share is another node's: relay takes it back as soon as that is known here. */
    } else if (error != ERROR_NONE) {
        report_alert(core, ALERT_JOURNAL, "the journal could not be written; it is tried again");
        list_append(&core->unnoted, &job->waiting);
    } else {
        job->note_written = true;
        go_if_first(core, map_get(&core->sessions, job->session));
    }
    core_check_stopped(core);
}

static enum error note_attempt(struct core *core, struct job *job)
{
    uint16_t kind;
    struct slice payload;
    struct spool_handle handle;
    const uint32_t *deliveries;
    uint32_t count;
    enum error error = relay_attempt_note(core->relay, job->id, core_now(core), &kind, &payload,
                                          &handle, &deliveries, &count);
    if (error != ERROR_NONE) {
        return error;
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
    return ERROR_NONE;
}

void core_job_ask(struct core *core, struct job *job)
{
    enum error error = note_attempt(core, job);
    job->asks_go = error == ERROR_AGAIN;
    if (error != ERROR_NONE && error != ERROR_AGAIN) {
        core_out_send_plain(core, &core->out[job->edge], CHANNEL_CLOSE, job->session);
    }
}

/* Of dots that wait for the lease the next may go. */
static void go_on(struct core *core, struct core_session *session)
{
    LIST_EACH(&session->jobs, at, after)
    {
        struct job *job = LIST_ENTRY(at, struct job, on_session);
        if (job->asks_go && job->state != JOB_SETTLING) {
            core_job_ask(core, job);
        }
    }
    go_if_first(core, session);
}

void core_job_lease(struct core *core, bool is_held)
{
    relay_lease(core->relay, is_held, core_now(core));
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    LIST_EACH(&core->sessions_list, at, after)
    {
        if (is_held) {
            go_on(core, LIST_ENTRY(at, struct core_session, link));
        }
    }
}

/* The jobs that waited for a result of this session may be allowed now. */
static void ask_again(struct core *core, uint32_t session_id)
{
    struct core_session *session = map_get(&core->sessions, session_id);
    if (session == NULL) {
        return;
    }
    LIST_EACH(&session->jobs, at, after)
    {
        struct job *job = LIST_ENTRY(at, struct job, on_session);
        if (job->asks_go && job->state == JOB_SENT) {
            core_job_ask(core, job);
        }
    }
}

/* ---- results --------------------------------------------------------------------------------- */

void core_job_settle(struct core *core, struct job *job, bool reused,
                     const struct relay_delivery_result *results, uint32_t count)
{
    job->state = JOB_SETTLING;
    list_remove(&job->waiting);
    job_unpin(core, job); /* nobody reads by its ticket any more */
    uint64_t id = job->id;
    uint32_t session = job->session;
    relay_result(core->relay, id, session, reused, results, count, core_now(core));
    core_act(core, SPOOL_SYNCED, (struct core_after){.job = id, .has_job = true});
    ask_again(core, session);
}

/* Nobody will report on this job any more: `verdict` unless its dot may have been sent. */
void core_job_settle_alone(struct core *core, struct job *job, enum relay_verdict verdict,
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
    core_job_settle(core, job, false, results, job->count);
    free(results);
}

void core_out_durable(struct core *core, uint64_t id)
{
    struct job *job = map_get(&core->jobs, id);
    assert(job != NULL && job->state == JOB_SETTLING);
    uint32_t session_id = job->session;
    struct core_session *session = map_get(&core->sessions, session_id);
    core_job_say(core, job, CHANNEL_DURABLE);
    job_free(core, job);
    if (session != NULL && session->foreign && list_is_empty(&session->jobs)) {
        core_out_send_plain(core, &core->out[session->edge], CHANNEL_CLOSE, session->id);
        core_session_free(core, session);
    }
    relay_result_durable(core->relay, id, core_now(core));
    core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
    go_if_first(core, map_get(&core->sessions, session_id));
}

/* ---- ends ------------------------------------------------------------------------------------ */

/* Our records of what nobody will report any more, when relay has decided about it by itself. */
void core_session_forget_jobs(struct core *core, struct core_session *session)
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
    core_early_forget(core, session->edge, id, false);
    while (session != NULL && !list_is_empty(&session->jobs)) {
        struct job *job = LIST_ENTRY(session->jobs.next, struct job, on_session);
        list_remove(&job->on_session);
        core_job_settle_alone(core, job, RELAY_NOT_TRIED, 0, "the session ended");
        session = map_get(&core->sessions, id); /* the last one may have closed it */
    }
    if (session != NULL) {
        core_session_free(core, session);
    }
}

void core_session_end(struct core *core, struct core_session *session,
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
            core_job_settle_alone(core, job, RELAY_NOT_TRIED, 0, "the session ended");
        }
    }
    core_session_forget_jobs(core, session);
    core_session_free(core, session);
    relay_session_ended(core->relay, id, reply, core_now(core));
    core_act(core, SPOOL_SYNCED, CORE_NOTHING_AFTER);
}

static void prepare_again(struct core *core)
{
    struct link again;
    list_init(&again);
    LIST_EACH(&core->unprepared, at, after)
    {
        list_remove(at);
        list_append(&again, at);
    }
    while (!list_is_empty(&again)) {
        struct job *job = LIST_ENTRY(again.next, struct job, waiting);
        list_remove(&job->waiting);
        prepare(core, job);
    }
}

void core_out_tick(struct core *core)
{
    prepare_again(core);
    core_early_tick(core);
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
        core_job_ask(core, job);
    }
}
