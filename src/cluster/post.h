/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests from member to member through the database, and the streams of bytes that answer them
 * (docs/decisions/0050). What they say is not known here.
 *
 * A request is carried out at most once: whoever takes it marks it in the statement that reads it.
 * It is taken within POST_TAKEN_MS or never, for then who asked has been told that nobody answers.
 * An answer is bounded where it is kept: no more than POST_AHEAD pieces wait to be read. Who asks
 * and who answers say each POST_ALIVE_MS that they are there; silence of one ends it for the other.
 * After an error of the database all that is under way ends.
 *
 * The rights of the database are what protects this: who may write the table of requests may do
 * here what whoever may write to the control socket may do.
 */
#ifndef HOLDFAST_CLUSTER_POST_H
#define HOLDFAST_CLUSTER_POST_H

#include "base/buffer.h"
#include "base/id.h"
#include "sys/database.h"
#include "sys/loop.h"

enum {
    POST_CALLS_MAX = 64,          /* of ours under way */
    POST_SERVED_MAX = 32,         /* of others' */
    POST_BODY_MAX = 2 << 20,      /* bytes of a request */
    POST_PIECE_BYTES = 256 << 10, /* of an answer, in one row */
    POST_AHEAD = 4,               /* pieces that wait to be read */
    POST_TAKEN_MS = 5000,
    POST_ALIVE_MS = 2000,
    POST_SILENCE_MS = 10000,
    POST_KEPT_S = 60, /* rows that nobody speaks of are removed after that */
};

struct post;
struct post_call;   /* one that we ask */
struct post_served; /* one that we answer */

struct post_handler {
    void *context;
    /* Another member asks. Its `privileged` is what the asking member says of who asked it. Returns
     * what the other calls get, or NULL: it cannot be answered, as by post_leave(). */
    void *(*asked)(void *context, struct post_served *served, int node, bool privileged,
                   struct slice body);
    /* There is room for more of the answer. */
    void (*room)(void *asked);
    /* Who asked has read enough, or is gone: served is no more. */
    void (*gone)(void *asked);
};

/* Connects when it is first needed, or hears. NULL: memory, or no thread. Copies. */
struct post *post_new(struct loop *loop, const struct database_settings *database,
                      const struct post_handler *handler);
/* Whom requests are for here, once it is known; begins to listen. */
void post_set_node(struct post *post, int node);
/* `gone` is called for all that is served, `ended` for no call: they are freed. NULL is allowed. */
void post_free(struct post *post);

/* ---- asking ---------------------------------------------------------------------------------- */

struct post_answer {
    void *context;
    /* More bytes of the answer. */
    void (*bytes)(void *context, struct slice bytes);
    /* Nothing more comes: why, in words. The call is no more. */
    void (*failed)(void *context, const char *why);
};
/* NULL: memory, or too many. `body` is copied. */
struct post_call *post_ask(struct post *post, int node, bool privileged, struct slice body,
                           const struct post_answer *answer);
/* False: nothing more is to be fetched for now. It begins with true. */
void post_want(struct post_call *call, bool wants);
/* Its end has been read, or nobody wants it any more. NULL is allowed. */
void post_end(struct post_call *call);

/* ---- answering ------------------------------------------------------------------------------- */

/* So many bytes may be given now. */
size_t post_room(const struct post_served *served);
/* No more than that. Copies. Without memory it calls `gone`. */
void post_put(struct post_served *served, struct slice bytes);
/* Nothing more comes, and the end has not been given: who asks hears that it is gone. Calls `gone`.
 */
void post_leave(struct post_served *served);

/* On a worker's thread: removes what nobody speaks of any more. */
enum database_outcome post_clean(struct database *database) MUST_CHECK;

#endif
