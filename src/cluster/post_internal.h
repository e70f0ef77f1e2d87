/* SPDX-License-Identifier: Apache-2.0
 *
 * One exchange with the database: what goes out and what came in. post.c fills it in and reads it,
 * on the loop; post_exchange.c carries it out, on a thread that has it meanwhile.
 */
#ifndef HOLDFAST_CLUSTER_POST_INTERNAL_H
#define HOLDFAST_CLUSTER_POST_INTERNAL_H

#include "cluster/post.h"

enum {
    POST_CALL_MS = 3000, /* for the database to answer */
    POST_NOTIFY_MAX = POST_CALLS_MAX + POST_SERVED_MAX,
};

/* Of a row of holdfast.requests, with $1 our number. What is longer nobody of ours has written, and
 * nobody reads. */
#define POST_IS_FOR_US                                                                             \
    "target = $1 AND served IS NULL AND octet_length(body) <= 2097152"                             \
    " AND made > clock_timestamp() - interval '5 s'"
_Static_assert(POST_BODY_MAX == 2097152 && POST_TAKEN_MS == 5000, "as it says");

struct post_request {
    struct message_id id;
    int node;
    bool privileged;
    struct buffer body;
};

struct post_piece {
    struct message_id id;
    int32_t n;
    struct buffer bytes;
};

/* Of a call, or of what is served. */
struct post_standing {
    struct message_id id;
    bool taken;
    int64_t silent_ms; /* the other side */
    int64_t pending;
};

struct post_job {
    struct database *database;
    int node;
    bool alive; /* says so */
    struct post_request asks[POST_CALLS_MAX];
    size_t ask_count;
    struct message_id ended[POST_CALLS_MAX], waits[POST_CALLS_MAX], fetches[POST_CALLS_MAX],
        serves[POST_SERVED_MAX];
    size_t ended_count, wait_count, fetch_count, serve_count;
    struct post_piece puts[POST_SERVED_MAX * POST_AHEAD];
    size_t put_count;
    int notify[POST_NOTIFY_MAX];
    size_t notify_count;
    size_t takes; /* at most so many */
    /* What came of it. */
    bool done, memory;
    char text[DATABASE_ERROR_SIZE];
    struct post_request taken[POST_SERVED_MAX];
    size_t taken_count;
    struct post_piece got[POST_CALLS_MAX * POST_AHEAD];
    size_t got_count;
    struct post_standing waited[POST_CALLS_MAX], served[POST_SERVED_MAX];
    size_t waited_count, served_count;
};

/* On the thread. `done` says whether it came to anything, `text` why not. */
void post_job_run(struct post_job *job);
/* Its bytes. */
void post_job_free(struct post_job *job);
/* Without memory `memory` is set. */
void post_job_copy(struct post_job *job, struct buffer *ret, struct slice bytes);

#endif
