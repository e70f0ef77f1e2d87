/* SPDX-License-Identifier: Apache-2.0
 *
 * One thread hears, with a connection that listens; another one exchanges: what goes out and what
 * comes in is one pipeline, one transaction. While anything is under way there is an exchange at
 * least each TICK_MS, should nothing be heard.
 */
#include "cluster/post.h"

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
    CALL_MS = 3000, /* for the database to answer */
    TRIES = 4,
    GIVE_UP_MS = POST_TAKEN_MS + 1000,
    NOTIFY_MAX = POST_CALLS_MAX + POST_SERVED_MAX,
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

/* ---- a job ---------------------------------------------------------------------------------- */

struct request {
    struct message_id id;
    int node;
    bool privileged;
    struct buffer body;
};

struct piece {
    struct message_id id;
    int32_t n;
    struct buffer bytes;
};

/* Of a call, or of what is served. */
struct standing {
    struct message_id id;
    bool taken;
    int64_t silent_ms; /* the other side */
    int64_t pending;
};

struct job {
    struct database *database;
    int node;
    bool alive; /* says so */
    struct request asks[POST_CALLS_MAX];
    size_t ask_count;
    struct message_id ended[POST_CALLS_MAX], waits[POST_CALLS_MAX], fetches[POST_CALLS_MAX],
        serves[POST_SERVED_MAX];
    size_t ended_count, wait_count, fetch_count, serve_count;
    struct piece puts[POST_SERVED_MAX * POST_AHEAD];
    size_t put_count;
    int notify[NOTIFY_MAX];
    size_t notify_count;
    size_t takes; /* at most so many */
    /* What came of it. */
    bool done, memory;
    char text[DATABASE_ERROR_SIZE];
    struct request taken[POST_SERVED_MAX];
    size_t taken_count;
    struct piece got[POST_CALLS_MAX * POST_AHEAD];
    size_t got_count;
    struct standing waited[POST_CALLS_MAX], served[POST_SERVED_MAX];
    size_t waited_count, served_count;
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
    struct job job;
    bool busy, again, closing;
    bool notified, deaf; /* of the listening thread's last wait */
    int64_t alive_ms;
};

static const char ASK[] =
    "INSERT INTO holdfast.requests (id, asker, target, privileged, body) VALUES ($1, $2, $3, $4, "
    "$5)";
static const char END[] = "WITH gone AS (DELETE FROM holdfast.requests WHERE id = ANY($1))"
                          " DELETE FROM holdfast.answers WHERE request = ANY($1)";
static const char TAKE[] =
    "UPDATE holdfast.requests SET served = clock_timestamp() WHERE served IS NULL AND id IN"
    " (SELECT id FROM holdfast.requests WHERE target = $1 AND served IS NULL"
    "  AND made > clock_timestamp() - interval '5 s' ORDER BY made LIMIT $2)"
    " RETURNING id, asker, privileged, body";
static const char WAITS_FOR[] =
    "SELECT 1 FROM holdfast.requests WHERE target = $1 AND served IS NULL"
    " AND made > clock_timestamp() - interval '5 s' LIMIT 1";
#define SILENT_MS(COLUMN)                                                                          \
    "coalesce((extract(epoch FROM clock_timestamp() - " COLUMN ") * 1000)::bigint, 0)"
#define WAITED "id, served IS NOT NULL, " SILENT_MS("served")
#define SERVED                                                                                     \
    "id, " SILENT_MS("waited") ", (SELECT count(*) FROM holdfast.answers a WHERE a.request = id)"
static const char WAIT[] = "SELECT " WAITED " FROM holdfast.requests WHERE id = ANY($1)";
static const char WAIT_ALIVE[] = "UPDATE holdfast.requests SET waited = clock_timestamp()"
                                 " WHERE id = ANY($1) RETURNING " WAITED;
static const char SERVE[] = "SELECT " SERVED " FROM holdfast.requests WHERE id = ANY($1)";
static const char SERVE_ALIVE[] = "UPDATE holdfast.requests SET served = clock_timestamp()"
                                  " WHERE id = ANY($1) RETURNING " SERVED;
static const char FETCH[] =
    "DELETE FROM holdfast.answers WHERE request = ANY($1) RETURNING request, n, bytes";
static const char PUT[] = "INSERT INTO holdfast.answers (request, n, bytes)"
                          " SELECT $1, $2, $3 WHERE EXISTS"
                          " (SELECT 1 FROM holdfast.requests WHERE id = $1)";
static const char NOTIFY[] = "SELECT pg_notify('holdfast_post_' || $1::int, '')";
static const char CLEAN[] =
    "DELETE FROM holdfast.requests WHERE waited < clock_timestamp() - make_interval(secs => $1)";
static const char CLEAN_ANSWERS[] = "DELETE FROM holdfast.answers a WHERE NOT EXISTS"
                                    " (SELECT 1 FROM holdfast.requests r WHERE r.id = a.request)";

/* ---- on the thread -------------------------------------------------------------------------- */

struct line {
    struct job *job;
    enum database_outcome outcome;
    size_t count;
};

/* The index of its answer. */
static size_t queue(struct line *line, const char *sql, const struct database_value *values,
                    int count)
{
    if (line->outcome == DATABASE_DONE) {
        line->outcome = database_queue(line->job->database, sql, values, count);
    }
    return line->count++;
}

static size_t queue_ids(struct line *line, const char *sql, const struct message_id *ids,
                        size_t count)
{
    struct buffer array = {0};
    database_array_begin(&array, DATABASE_UUID, count);
    for (size_t i = 0; i < count; i++) {
        database_put_uuid(&array, ids[i]);
    }
    const struct database_value value = database_array(&array, DATABASE_UUID_ARRAY);
    if (array.failed) {
        line->outcome = DATABASE_MEMORY;
    }
    size_t index = queue(line, sql, &value, 1);
    buffer_done(&array);
    return index;
}

static void copy(struct job *job, struct buffer *ret, struct slice bytes)
{
    buffer_init(ret, 0);
    buffer_append(ret, bytes);
    job->memory = job->memory || ret->failed;
}

static void read_taken(struct job *job, const struct database_rows *rows)
{
    for (size_t i = 0; i < database_count(rows) && job->taken_count < POST_SERVED_MAX; i++) {
        struct request *taken = &job->taken[job->taken_count++];
        taken->id = database_get_uuid(rows, i, 0);
        taken->node = (int)database_get_int(rows, i, 1);
        taken->privileged = database_get_int(rows, i, 2) != 0;
        copy(job, &taken->body, database_get_slice(rows, i, 3));
    }
}

static void read_pieces(struct job *job, const struct database_rows *rows)
{
    for (size_t i = 0; i < database_count(rows); i++) {
        if (job->got_count == sizeof(job->got) / sizeof(job->got[0])) {
            job->memory = true; /* more than anybody of ours puts there */
            return;
        }
        struct piece *piece = &job->got[job->got_count++];
        piece->id = database_get_uuid(rows, i, 0);
        piece->n = (int32_t)database_get_int(rows, i, 1);
        copy(job, &piece->bytes, database_get_slice(rows, i, 2));
    }
}

static void read_standings(struct job *job, const struct database_rows *waited,
                           const struct database_rows *served)
{
    for (size_t i = 0; i < database_count(waited) && i < POST_CALLS_MAX; i++) {
        job->waited[job->waited_count++] =
            (struct standing){.id = database_get_uuid(waited, i, 0),
                              .taken = database_get_int(waited, i, 1) != 0,
                              .silent_ms = database_get_int(waited, i, 2)};
    }
    for (size_t i = 0; i < database_count(served) && i < POST_SERVED_MAX; i++) {
        job->served[job->served_count++] =
            (struct standing){.id = database_get_uuid(served, i, 0),
                              .silent_ms = database_get_int(served, i, 1),
                              .pending = database_get_int(served, i, 2)};
    }
}

static enum database_outcome exchange(struct job *job)
{
    struct line line = {job, DATABASE_DONE, 0};
    struct database_scalar scalars[4];
    for (size_t i = 0; i < job->ask_count; i++) {
        const struct request *ask = &job->asks[i];
        const struct database_value values[] = {
            database_uuid(&scalars[0], ask->id), database_int4(&scalars[1], job->node),
            database_int4(&scalars[2], ask->node), database_bool(&scalars[3], ask->privileged),
            database_bytea(buffer_slice(&ask->body))};
        queue(&line, ASK, values, 5);
    }
    if (job->ended_count > 0) {
        queue_ids(&line, END, job->ended, job->ended_count);
    }
    for (size_t i = 0; i < job->put_count; i++) {
        const struct piece *put = &job->puts[i];
        const struct database_value values[] = {database_uuid(&scalars[0], put->id),
                                                database_int4(&scalars[1], put->n),
                                                database_bytea(buffer_slice(&put->bytes))};
        queue(&line, PUT, values, 3);
    }
    const struct database_value take[] = {database_int4(&scalars[0], job->node),
                                          database_int8(&scalars[1], (int64_t)job->takes)};
    size_t taken = queue(&line, TAKE, take, 2);
    size_t got = queue_ids(&line, FETCH, job->fetches, job->fetch_count);
    size_t waited = queue_ids(&line, job->alive ? WAIT_ALIVE : WAIT, job->waits, job->wait_count);
    size_t served =
        queue_ids(&line, job->alive ? SERVE_ALIVE : SERVE, job->serves, job->serve_count);
    for (size_t i = 0; i < job->notify_count; i++) {
        const struct database_value node = database_int4(&scalars[0], job->notify[i]);
        queue(&line, NOTIFY, &node, 1);
    }
    enum database_outcome outcome = database_flush(job->database, CALL_MS, NULL);
    outcome = line.outcome != DATABASE_DONE ? line.outcome : outcome;
    if (outcome != DATABASE_DONE) {
        return outcome;
    }
    read_taken(job, database_result(job->database, taken));
    read_pieces(job, database_result(job->database, got));
    read_standings(job, database_result(job->database, waited),
                   database_result(job->database, served));
    return job->memory ? DATABASE_MEMORY : DATABASE_DONE;
}

static void exchange_run(void *context)
{
    struct post *post = context;
    struct job *job = &post->job;
    enum database_outcome outcome = DATABASE_DONE;
    if (!database_is_connected(job->database)) {
        outcome = database_connect(job->database);
        if (outcome == DATABASE_DONE) { /* what stands here need not outlive the database */
            outcome = database_run(job->database, "SET synchronous_commit = off", CALL_MS);
        }
    }
    /* Two who remove and touch the same rows in another order. */
    for (unsigned tries = 0; tries < TRIES && outcome == DATABASE_DONE; tries++) {
        outcome = exchange(job);
        job->done = outcome == DATABASE_DONE;
        if (job->done) {
            return;
        }
        outcome = outcome == DATABASE_AGAIN && tries + 1 < TRIES ? DATABASE_DONE : outcome;
    }
    snprintf(job->text, sizeof(job->text), "%s", database_error(job->database));
    database_disconnect(job->database);
}

enum database_outcome post_clean(struct database *database)
{
    struct database_scalar scalar;
    const struct database_value kept = database_int4(&scalar, POST_KEPT_S);
    enum database_outcome outcome = database_query(database, CLEAN, &kept, 1, CALL_MS, NULL);
    return outcome != DATABASE_DONE
               ? outcome
               : database_query(database, CLEAN_ANSWERS, NULL, 0, CALL_MS, NULL);
}

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

static void notify(struct job *job, int node)
{
    for (size_t i = 0; i < job->notify_count; i++) {
        if (job->notify[i] == node) {
            return;
        }
    }
    if (job->notify_count < NOTIFY_MAX) {
        job->notify[job->notify_count++] = node;
    }
}

static void prepare_calls(struct post *post)
{
    struct job *job = &post->job;
    LIST_EACH(&post->calls, at, after)
    {
        struct post_call *call = LIST_ENTRY(at, struct post_call, link);
        if (!call->sent) {
            job->asks[job->ask_count++] =
                (struct request){call->id, call->node, call->privileged, call->body};
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
    struct job *job = &post->job;
    size_t count = 0;
    LIST_EACH(&post->serveds, at, after)
    {
        struct post_served *served = LIST_ENTRY(at, struct post_served, link);
        count++;
        job->serves[job->serve_count++] = served->id;
        while (served->bytes.length > 0 && served->pending < POST_AHEAD) {
            struct piece *put = &job->puts[job->put_count++];
            struct slice bytes = slice_take(buffer_slice(&served->bytes), POST_PIECE_BYTES);
            *put = (struct piece){.id = served->id, .n = served->next++};
            copy(job, &put->bytes, bytes);
            buffer_consume(&served->bytes, bytes.length);
            served->pending++;
            notify(job, served->node);
        }
    }
    job->takes = POST_SERVED_MAX - count;
}

static void job_free(struct job *job)
{
    for (size_t i = 0; i < job->ask_count; i++) {
        buffer_done(&job->asks[i].body);
    }
    for (size_t i = 0; i < job->put_count; i++) {
        buffer_done(&job->puts[i].bytes);
    }
    for (size_t i = 0; i < job->taken_count; i++) {
        buffer_done(&job->taken[i].body);
    }
    for (size_t i = 0; i < job->got_count; i++) {
        buffer_done(&job->got[i].bytes);
    }
}

static void exchange_done(void *context);

static void go(void *context)
{
    struct post *post = context;
    struct job *job = &post->job;
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
        job_free(job);
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

static const struct standing *find_standing(const struct standing *standings, size_t count,
                                            struct message_id id)
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

static void serve(struct post *post, const struct request *taken)
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
    const struct piece *left = a, *right = b;
    return left->n < right->n ? -1 : left->n > right->n;
}

static void hand_on(struct post *post, struct job *job)
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

static void judge_calls(struct post *post, const struct job *job)
{
    int64_t now_ms = clock_steady_ms();
    LIST_EACH(&post->calls, at, after)
    {
        struct post_call *call = LIST_ENTRY(at, struct post_call, link);
        if (!was_asked(job->waits, job->wait_count, call->id)) {
            continue;
        }
        const struct standing *standing = find_standing(job->waited, job->waited_count, call->id);
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

static void judge_served(struct post *post, const struct job *job)
{
    LIST_EACH(&post->serveds, at, after)
    {
        struct post_served *served = LIST_ENTRY(at, struct post_served, link);
        if (!was_asked(job->serves, job->serve_count, served->id)) {
            continue;
        }
        const struct standing *standing = find_standing(job->served, job->served_count, served->id);
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
    struct job *job = &post->job;
    post->busy = false;
    if (post->closing) {
        job_free(job);
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
        snprintf(why, sizeof(why), "the database does not answer%s%s",
                 job->text[0] != '\0' ? ": " : "", job->text);
        fail_all(post, why);
        post->ended_count = 0; /* they are cleaned */
    }
    job_free(job);
    job->ask_count = job->put_count = job->taken_count = job->got_count = 0;
    if (has_more(post) && job->done) {
        loop_later_ask(post->turn);
    }
    if (!list_is_empty(&post->calls) || !list_is_empty(&post->serveds)) {
        loop_timer_set(post->tick, TICK_MS);
    }
}

/* ---- hearing -------------------------------------------------------------------------------- */

static void hear_run(void *context)
{
    struct post *post = context;
    enum database_outcome outcome = DATABASE_DONE;
    post->notified = false;
    if (!database_is_connected(post->hearing)) {
        char sql[48];
        snprintf(sql, sizeof(sql), "LISTEN holdfast_post_%d", post->node);
        outcome = database_connect(post->hearing);
        if (outcome == DATABASE_DONE) {
            outcome = database_run(post->hearing, sql, CALL_MS);
        }
    }
    if (outcome == DATABASE_DONE) {
        outcome = database_wait(post->hearing, HEAR_MS, &post->notified);
    }
    if (outcome == DATABASE_DONE && !post->notified) {
        struct database_scalar scalar;
        const struct database_value node = database_int4(&scalar, post->node);
        const struct database_rows *rows;
        outcome = database_query(post->hearing, WAITS_FOR, &node, 1, CALL_MS, &rows);
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
