/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop's side, and what hears. One thread hears, with a connection that listens; another one
 * exchanges (post_exchange.c). While anything is under way there is an exchange at least each
 * TICK_MS, should nothing be heard.
 */
#include "cluster/post_internal.h"

#include "base/list.h"
#include "sys/clock.h"
#include "sys/random.h"
#include "sys/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TICK_MS = 250,
    HEAR_MS = 1000, /* then it is asked whether something has come */
    AGAIN_MS = 1000,
    GIVE_UP_MS = POST_TAKEN_MS + 1000,
};

struct post_call {
    struct link link;
    struct post *post;
    struct message_id id;
    int node;
    bool privileged;
    struct buffer body; /* until it is sent */
    bool sent;
    int64_t sent_ms; /* steady: it was in the database by then */
    bool taken;
    bool wants;
    bool acknowledges; /* has read something since the other was told last */
    int32_t next;      /* the piece that comes next */
    struct post_answer answer;
};

struct post_served {
    struct link link;
    struct post *post;
    struct message_id id;
    int node;
    void *asked; /* NULL: refused */
    struct buffer bytes;
    int32_t next;
    size_t pending; /* pieces that wait to be read */
};

struct post {
    struct loop *loop;
    struct post_handler handler;
    struct worker *exchanger, *hearer;
    struct database *database, *hearing;
    struct loop_timer *tick, *listen;
    struct loop_later *turn;
    int node;
    struct link calls, serveds;
    struct message_id ended[POST_CALLS_MAX]; /* to be removed */
    size_t ended_count;
    struct post_job job;
    bool busy, again, closing;
    bool notified, deaf; /* of the listening thread's last wait */
    int64_t alive_ms;
};

/* ---- the end of one ------------------------------------------------------------------------- */

static void call_free(struct post_call *call)
{
    list_remove(&call->link);
    buffer_done(&call->body);
    free(call);
}

/* Its rows are to go; else they are cleaned later. */
static void remember_ended(struct post *post, struct message_id id)
{
    if (post->ended_count < POST_CALLS_MAX) {
        post->ended[post->ended_count++] = id;
    }
}

static void call_fail(struct post_call *call, const char *why)
{
    struct post_answer answer = call->answer;
    remember_ended(call->post, call->id);
    call_free(call);
    answer.failed(answer.context, why);
}

static void served_free(struct post_served *served)
{
    struct post *post = served->post;
    void *asked = served->asked;
    list_remove(&served->link);
    buffer_done(&served->bytes);
    free(served);
    if (asked != NULL) {
        post->handler.gone(asked);
    }
}

static void fail_all(struct post *post, const char *why)
{
    LIST_EACH(&post->serveds, at, after)
    {
        served_free(LIST_ENTRY(at, struct post_served, link));
    }
    /* Who is told may ask again: that one is not of these. */
    struct link failing;
    list_init(&failing);
    LIST_EACH(&post->calls, at, after)
    {
        list_remove(at);
        list_append(&failing, at);
    }
    while (!list_is_empty(&failing)) {
        call_fail(LIST_ENTRY(failing.next, struct post_call, link), why);
    }
}

/* ---- before an exchange --------------------------------------------------------------------- */

static void notify(struct post_job *job, int node)
{
    for (size_t i = 0; i < job->notify_count; i++) {
        if (job->notify[i] == node) {
            return;
        }
    }
    if (job->notify_count < POST_NOTIFY_MAX) {
        job->notify[job->notify_count++] = node;
    }
}

static void prepare_calls(struct post *post)
{
    struct post_job *job = &post->job;
    LIST_EACH(&post->calls, at, after)
    {
        struct post_call *call = LIST_ENTRY(at, struct post_call, link);
        if (!call->sent) {
            job->asks[job->ask_count++] =
                (struct post_request){call->id, call->node, call->privileged, call->body};
            buffer_init(&call->body, 0);
            call->sent = true;
            notify(job, call->node);
        } else if (call->acknowledges) {
            notify(job, call->node);
        }
        call->acknowledges = false;
        job->waits[job->wait_count++] = call->id;
        if (call->wants) {
            job->fetches[job->fetch_count++] = call->id;
        }
    }
}

static void prepare_served(struct post *post)
{
    struct post_job *job = &post->job;
    size_t count = 0;
    LIST_EACH(&post->serveds, at, after)
    {
        struct post_served *served = LIST_ENTRY(at, struct post_served, link);
        count++;
        job->serves[job->serve_count++] = served->id;
        while (served->bytes.length > 0 && served->pending < POST_AHEAD) {
            struct post_piece *put = &job->puts[job->put_count++];
            struct slice bytes = slice_take(buffer_slice(&served->bytes), POST_PIECE_BYTES);
            *put = (struct post_piece){.id = served->id, .n = served->next++};
            post_job_copy(job, &put->bytes, bytes);
            buffer_consume(&served->bytes, bytes.length);
            served->pending++;
            notify(job, served->node);
        }
    }
    job->takes = POST_SERVED_MAX - count;
}

static void exchange_run(void *context)
{
    struct post *post = context;
    post_job_run(&post->job);
}

static void exchange_done(void *context);

static void go(void *context)
{
    struct post *post = context;
    struct post_job *job = &post->job;
    if (post->busy) {
        post->again = true;
        return;
    }
    if (post->node == 0 || post->closing) {
        return;
    }
    int64_t now_ms = clock_steady_ms();
    memset(job, 0, sizeof(*job));
    job->database = post->database;
    job->node = post->node;
    job->alive = now_ms - post->alive_ms >= POST_ALIVE_MS;
    post->alive_ms = job->alive ? now_ms : post->alive_ms;
    memcpy(job->ended, post->ended, sizeof(job->ended));
    job->ended_count = post->ended_count;
    post->ended_count = 0;
    prepare_calls(post);
    prepare_served(post);
    post->again = false;
    post->busy = worker_submit(post->exchanger, exchange_run, exchange_done, post) == ERROR_NONE;
    if (!post->busy) {
        post_job_free(job);
        fail_all(post, "out of memory");
    }
}

/* ---- after it ------------------------------------------------------------------------------- */

static struct post_call *find_call(const struct post *post, struct message_id id)
{
    LIST_EACH(&post->calls, at, after)
    {
        struct post_call *call = LIST_ENTRY(at, struct post_call, link);
        if (id_equal(call->id, id)) {
            return call;
        }
    }
    return NULL;
}

static const struct post_standing *find_standing(const struct post_standing *standings,
                                                 size_t count, struct message_id id)
{
    for (size_t i = 0; i < count; i++) {
        if (id_equal(standings[i].id, id)) {
            return &standings[i];
        }
    }
    return NULL;
}

static bool was_asked(const struct message_id *ids, size_t count, struct message_id id)
{
    for (size_t i = 0; i < count; i++) {
        if (id_equal(ids[i], id)) {
            return true;
        }
    }
    return false;
}

static void serve(struct post *post, const struct post_request *taken)
{
    struct post_served *served = calloc(1, sizeof(*served));
    if (served == NULL) {
        return;
    }
    *served = (struct post_served){.post = post, .id = taken->id, .node = taken->node};
    buffer_init(&served->bytes, 0);
    list_append(&post->serveds, &served->link);
    served->asked = post->handler.asked(post->handler.context, served, taken->node,
                                        taken->privileged, buffer_slice(&taken->body));
    if (served->asked == NULL) {
        post_leave(served);
    }
}

static int by_number(const void *a, const void *b)
{
    const struct post_piece *left = a, *right = b;
    return left->n < right->n ? -1 : left->n > right->n;
}

static void hand_on(struct post *post, struct post_job *job)
{
    qsort(job->got, job->got_count, sizeof(job->got[0]), by_number);
    for (size_t i = 0; i < job->got_count; i++) {
        struct post_call *call = find_call(post, job->got[i].id);
        if (call != NULL && job->got[i].n != call->next) {
            call_fail(call, "a part of its answer was lost");
        } else if (call != NULL) {
            call->next++;
            call->acknowledges = true;
            call->answer.bytes(call->answer.context, buffer_slice(&job->got[i].bytes));
        }
    }
}

static void judge_calls(struct post *post, const struct post_job *job)
{
    int64_t now_ms = clock_steady_ms();
    LIST_EACH(&post->calls, at, after)
    {
        struct post_call *call = LIST_ENTRY(at, struct post_call, link);
        if (!was_asked(job->waits, job->wait_count, call->id)) {
            continue;
        }
        const struct post_standing *standing =
            find_standing(job->waited, job->waited_count, call->id);
        call->sent_ms = call->sent_ms == 0 ? now_ms : call->sent_ms;
        call->taken = call->taken || (standing != NULL && standing->taken);
        if (standing == NULL) {
            call_fail(call, "its answer is gone from the database");
            return; /* others, at the next */
        }
        if ((!call->taken && now_ms - call->sent_ms >= GIVE_UP_MS) ||
            (call->taken && standing->silent_ms >= POST_SILENCE_MS)) {
            call_fail(call, "it does not answer");
            return;
        }
    }
}

static void judge_served(struct post *post, const struct post_job *job)
{
    LIST_EACH(&post->serveds, at, after)
    {
        struct post_served *served = LIST_ENTRY(at, struct post_served, link);
        if (!was_asked(job->serves, job->serve_count, served->id)) {
            continue;
        }
        const struct post_standing *standing =
            find_standing(job->served, job->served_count, served->id);
        if (standing == NULL || standing->silent_ms >= POST_SILENCE_MS) {
            served_free(served);
            continue;
        }
        served->pending = (size_t)standing->pending;
        post->handler.room(served->asked);
    }
}

static bool has_more(const struct post *post)
{
    bool more = post->again || post->ended_count > 0;
    LIST_EACH(&post->calls, at, after)
    {
        const struct post_call *call = LIST_ENTRY(at, struct post_call, link);
        more = more || !call->sent || call->acknowledges;
    }
    LIST_EACH(&post->serveds, at, after)
    {
        const struct post_served *served = LIST_ENTRY(at, struct post_served, link);
        more = more || (served->bytes.length > 0 && served->pending < POST_AHEAD);
    }
    return more;
}

static void exchange_done(void *context)
{
    struct post *post = context;
    struct post_job *job = &post->job;
    post->busy = false;
    if (post->closing) {
        post_job_free(job);
        return;
    }
    if (job->done) {
        hand_on(post, job);
        judge_calls(post, job);
        judge_served(post, job);
        for (size_t i = 0; i < job->taken_count; i++) {
            serve(post, &job->taken[i]);
        }
    } else {
        char why[DATABASE_ERROR_SIZE + 40];
        snprintf(why, sizeof(why), "the database does not carry it%s%s",
                 job->text[0] != '\0' ? ": " : "", job->text);
        fail_all(post, why);
        post->ended_count = 0; /* they are cleaned */
    }
    post_job_free(job);
    job->ask_count = job->put_count = job->taken_count = job->got_count = 0;
    if (has_more(post) && job->done) {
        loop_later_ask(post->turn);
    }
    if (!list_is_empty(&post->calls) || !list_is_empty(&post->serveds)) {
        loop_timer_set(post->tick, TICK_MS);
    }
}

/* ---- hearing -------------------------------------------------------------------------------- */

static const char WAITS_FOR[] = "SELECT 1 FROM holdfast.requests WHERE " POST_IS_FOR_US " LIMIT 1";

static void hear_run(void *context)
{
    struct post *post = context;
    char listen[48];
    snprintf(listen, sizeof(listen), "LISTEN holdfast_post_%d", post->node);
    enum database_outcome outcome = database_ensure(post->hearing, listen, POST_CALL_MS);
    post->notified = false;
    if (outcome == DATABASE_DONE) {
        outcome = database_wait(post->hearing, HEAR_MS, &post->notified);
    }
    if (outcome == DATABASE_DONE && !post->notified) {
        struct database_scalar scalar;
        const struct database_value node = database_int4(&scalar, post->node);
        const struct database_rows *rows;
        outcome = database_query(post->hearing, WAITS_FOR, &node, 1, POST_CALL_MS, &rows);
        post->notified = outcome == DATABASE_DONE && database_count(rows) > 0;
    }
    post->deaf = outcome != DATABASE_DONE;
    if (post->deaf) {
        database_disconnect(post->hearing);
    }
}

static void hear(void *context);

static void hear_done(void *context)
{
    struct post *post = context;
    if (post->closing) {
        return;
    }
    if (post->notified) {
        go(post);
    }
    if (post->deaf) {
        loop_timer_set(post->listen, AGAIN_MS);
    } else {
        hear(post);
    }
}

static void hear(void *context)
{
    struct post *post = context;
    if (worker_submit(post->hearer, hear_run, hear_done, post) != ERROR_NONE) {
        loop_timer_set(post->listen, AGAIN_MS);
    }
}

/* ---- life cycle ----------------------------------------------------------------------------- */

struct post *post_new(struct loop *loop, const struct database_settings *database,
                      const struct post_handler *handler)
{
    struct post *post = calloc(1, sizeof(*post));
    if (post == NULL) {
        return NULL;
    }
    post->loop = loop;
    post->handler = *handler;
    list_init(&post->calls);
    list_init(&post->serveds);
    post->exchanger = worker_new(loop, "post");
    post->hearer = worker_new(loop, "post-hear");
    post->database = database_new(database);
    post->hearing = database_new(database);
    post->tick = loop_timer_new(loop, go, post);
    post->listen = loop_timer_new(loop, hear, post);
    post->turn = loop_later_new(loop, go, post);
    if (post->exchanger == NULL || post->hearer == NULL || post->database == NULL ||
        post->hearing == NULL || post->tick == NULL || post->listen == NULL || post->turn == NULL) {
        post_free(post);
        return NULL;
    }
    return post;
}

void post_set_node(struct post *post, int node)
{
    bool begins = post->node == 0;
    post->node = node;
    if (begins) {
        hear(post);
    }
}

void post_free(struct post *post)
{
    if (post == NULL) {
        return;
    }
    post->closing = true;
    LIST_EACH(&post->serveds, at, after)
    {
        served_free(LIST_ENTRY(at, struct post_served, link));
    }
    LIST_EACH(&post->calls, at, after)
    {
        call_free(LIST_ENTRY(at, struct post_call, link));
    }
    if (post->database != NULL) {
        database_interrupt(post->database);
    }
    if (post->hearing != NULL) {
        database_interrupt(post->hearing);
    }
    worker_free(post->exchanger);
    worker_free(post->hearer);
    database_free(post->database);
    database_free(post->hearing);
    loop_timer_free(post->tick);
    loop_timer_free(post->listen);
    loop_later_free(post->turn);
    free(post);
}

/* ---- asking and answering ------------------------------------------------------------------- */

struct post_call *post_ask(struct post *post, int node, bool privileged, struct slice body,
                           const struct post_answer *answer)
{
    size_t count = 0;
    LIST_EACH(&post->calls, at, after)
    {
        count++;
    }
    struct post_call *call =
        count < POST_CALLS_MAX && body.length <= POST_BODY_MAX ? calloc(1, sizeof(*call)) : NULL;
    if (call == NULL) {
        return NULL;
    }
    *call = (struct post_call){.post = post,
                               .id = {random_u64(), random_u64()},
                               .node = node,
                               .privileged = privileged,
                               .wants = true,
                               .answer = *answer};
    buffer_init(&call->body, 0);
    buffer_append(&call->body, body);
    list_append(&post->calls, &call->link);
    if (call->body.failed) {
        call_free(call);
        return NULL;
    }
    loop_later_ask(post->turn);
    return call;
}

void post_want(struct post_call *call, bool wants)
{
    if (wants && !call->wants) {
        loop_later_ask(call->post->turn);
    }
    call->wants = wants;
}

void post_end(struct post_call *call)
{
    if (call != NULL) {
        remember_ended(call->post, call->id);
        loop_later_ask(call->post->turn);
        call_free(call);
    }
}

size_t post_room(const struct post_served *served)
{
    size_t room = served->pending < POST_AHEAD
                      ? (POST_AHEAD - served->pending) * (size_t)POST_PIECE_BYTES
                      : 0;
    return room > served->bytes.length ? room - served->bytes.length : 0;
}

void post_put(struct post_served *served, struct slice bytes)
{
    buffer_append(&served->bytes, bytes);
    if (served->bytes.failed) {
        post_leave(served);
        return;
    }
    loop_later_ask(served->post->turn);
}

void post_leave(struct post_served *served)
{
    struct post *post = served->post;
    remember_ended(post, served->id);
    loop_later_ask(post->turn);
    served_free(served);
}
