/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tables of requests and answers could say, to who asks and to who answers: each request
 * is given once and within its bound, each call ends at most once, and nobody is told of what has
 * ended.
 */
#include "cluster/post.h"
#include "sim/sim.h"
#include "tests/fuzz/fake_database.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CALLS = 3, STEPS_MAX = 600 };

struct ask {
    struct post_call *call; /* NULL: it has ended */
    uint8_t rule;
};

struct asked {
    struct post_served *served;
    size_t given;
};

static struct bench {
    struct ask asks[CALLS];
    uint8_t rule;
    size_t served;
} bench;

static void *on_asked(void *context, struct post_served *served, int node, bool privileged,
                      struct slice body)
{
    (void)context;
    (void)node;
    (void)privileged;
    assert(body.length <= 1 << 20);
    if ((bench.rule & 1) != 0) {
        return NULL;
    }
    struct asked *asked = calloc(1, sizeof(*asked));
    assert(asked != NULL);
    asked->served = served;
    bench.served++;
    assert(bench.served <= POST_SERVED_MAX);
    return asked;
}

static void on_room(void *context)
{
    static const uint8_t bytes[1000];
    struct asked *asked = context;
    size_t room = post_room(asked->served);
    assert(room <= (size_t)POST_AHEAD * POST_PIECE_BYTES);
    if (asked->given > 5000 && (bench.rule & 2) != 0) {
        post_leave(asked->served);
    } else if (room >= sizeof(bytes)) {
        asked->given += sizeof(bytes);
        post_put(asked->served, slice_make(bytes, sizeof(bytes)));
    }
}

static void on_gone(void *context)
{
    assert(bench.served > 0);
    bench.served--;
    free(context);
}

static void on_bytes(void *context, struct slice bytes)
{
    struct ask *ask = context;
    assert(ask->call != NULL && bytes.length <= POST_PIECE_BYTES);
    if ((ask->rule & 1) != 0) {
        post_want(ask->call, false);
    } else if ((ask->rule & 2) != 0) {
        post_end(ask->call);
        ask->call = NULL;
    }
}

static void on_failed(void *context, const char *why)
{
    struct ask *ask = context;
    assert(ask->call != NULL && why[0] != '\0');
    ask->call = NULL;
}

static void work(struct loop *loop)
{
    const struct database_settings database = {.conninfo = SLICE_LITERAL("host=a")};
    const struct post_handler handler = {.asked = on_asked, .room = on_room, .gone = on_gone};
    struct post *post = post_new(loop, &database, &handler);
    assert(post != NULL);
    post_set_node(post, 1);
    for (size_t i = 0; i < CALLS; i++) {
        const struct post_answer answer = {&bench.asks[i], on_bytes, on_failed};
        bench.asks[i].call = post_ask(post, (int)i, false, SLICE_LITERAL("request"), &answer);
    }
    for (int i = 0; i < STEPS_MAX && sim_step(); i++) {
    }
    for (size_t i = 0; i < CALLS; i++) {
        post_end(bench.asks[i].call);
        bench.asks[i].call = NULL;
    }
    for (int i = 0; i < STEPS_MAX / 4 && sim_step(); i++) {
    }
    post_free(post);
    assert(bench.served == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bench = (struct bench){0};
    if (size < 1 + CALLS) {
        return 0;
    }
    bench.rule = data[0];
    for (size_t i = 0; i < CALLS; i++) {
        bench.asks[i].rule = data[1 + i];
    }
    fake_database_feed(slice_make(data + 1 + CALLS, size - 1 - CALLS));
    sim_begin(1);
    sim_process_enter(sim_process_new("post"));
    struct loop *loop = loop_new();
    work(loop);
    loop_free(loop);
    while (sim_step()) { /* what was on its way is let go */
    }
    fake_database_feed(SLICE_EMPTY);
    sim_end();
    return 0;
}
