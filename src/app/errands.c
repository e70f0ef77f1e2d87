/* SPDX-License-Identifier: Apache-2.0 */
#include "app/errands.h"

#include "app/hook_core.h"
#include "base/base64.h"
#include "base/list.h"

#include <stdlib.h>

enum {
    TICK_MS = 500,
    ERRANDS_AT_ONCE = 64,
    POST_BYTES_MAX = 1 << 20,
};

/* What came of one, until core knows. */
struct result {
    struct link link;
    json_t *arguments;
};

struct errands {
    struct fetcher *fetcher;
    struct hook_core *core;
    struct loop_timer *timer;
    bool wanted; /* something of the configuration has errands */
    bool begins; /* this core has not been asked before */
    uint32_t under_way;
    struct link results;
};

static void speak(struct errands *errands);

/* ---- the end of one ------------------------------------------------------------------------- */

static void fetched(void *context, uint64_t slot, const struct fetch_answer *answer)
{
    struct errands *errands = context;
    struct buffer body;
    buffer_init(&body, 0);
    base64_encode(&body, answer->body);
    struct result *result = calloc(1, sizeof(*result));
    json_t *arguments = json_pack("{sI sb ss? ss%}", "errand", (json_int_t)slot, "untrusted",
                                  (int)answer->untrusted, "problem",
                                  body.failed ? "out of memory" : answer->problem, "body",
                                  body.length > 0 ? (const char *)body.data : "", body.length);
    buffer_done(&body);
    errands->under_way--;
    if (result == NULL || arguments == NULL) {
        free(result); /* core gives up by itself */
        json_decref(arguments);
        return;
    }
    result->arguments = arguments;
    list_append(&errands->results, &result->link);
    speak(errands);
}

/* ---- the beginning of one ------------------------------------------------------------------- */

static void take_row(void *context, const json_t *row)
{
    struct errands *errands = context;
    const char *url = json_string_value(json_object_get(row, "url"));
    const char *post_type = json_string_value(json_object_get(row, "post_type"));
    const json_t *text = json_object_get(row, "post");
    json_int_t most = json_integer_value(json_object_get(row, "most_bytes"));
    struct buffer post;
    buffer_init(&post, POST_BYTES_MAX);
    if (url != NULL && json_is_string(text) &&
        base64_decode(&post, slice_make(json_string_value(text), json_string_length(text))) ==
            ERROR_NONE) {
        const struct fetch what = {
            .fn = fetched,
            .context = errands,
            .slot = (uint64_t)json_integer_value(json_object_get(row, "errand")),
            .url = url,
            .media_type = json_string_value(json_object_get(row, "media_type")),
            .post = buffer_slice(&post),
            .post_type = post_type,
            .most_bytes = most > 0 ? (size_t)most : 1,
            .timeout_ms = (uint32_t)json_integer_value(json_object_get(row, "timeout_ms"))};
        errands->under_way++;
        fetch_begin(errands->fetcher, &what);
    }
    buffer_done(&post);
}

/* ---- the stream to core --------------------------------------------------------------------- */

static void said(void *context, const char *error)
{
    (void)error; /* lost with this core, which has asked for it */
    speak(context);
}

static void asked(void *context, const char *error)
{
    struct errands *errands = context;
    errands->begins &= error != NULL;
    speak(errands);
}

/* The next result, if core is not just being asked. */
static void speak(struct errands *errands)
{
    if (list_is_empty(&errands->results)) {
        return;
    }
    struct result *result = LIST_ENTRY(errands->results.next, struct result, link);
    const struct hook_asker asker = {.context = errands, .end = said};
    json_incref(result->arguments);
    if (hook_core_ask(errands->core, "errand done", result->arguments, &asker)) {
        list_remove(&result->link);
        json_decref(result->arguments);
        free(result);
    }
}

static void tick(void *context)
{
    struct errands *errands = context;
    loop_timer_set(errands->timer, TICK_MS);
    speak(errands);
    if (errands->wanted && errands->under_way < ERRANDS_AT_ONCE) {
        const struct hook_asker asker = {.context = errands, .row = take_row, .end = asked};
        (void)hook_core_ask(errands->core, "errands",
                            json_pack("{sb}", "begins", (int)errands->begins), &asker);
    }
}

/* ---- calls ---------------------------------------------------------------------------------- */

void errands_configure(struct errands *errands, const struct service_config *config)
{
    bool wanted =
        config->relay.exchanger.tls == SERVER_TLS_MTA_STS || config->tls_reports.length > 0;
    for (uint32_t i = 0; i < config->relay.server_count; i++) {
        wanted |= config->relay.servers[i].tls == SERVER_TLS_MTA_STS;
    }
    errands->wanted = wanted;
    if (wanted) {
        loop_timer_set(errands->timer, 0);
    } else {
        loop_timer_cancel(errands->timer);
    }
}

/* Numbers are of the core that gave them: another begins to count anew. */
static void drop_all(struct errands *errands)
{
    fetch_cancel(errands->fetcher, errands);
    errands->under_way = 0;
    LIST_EACH(&errands->results, at, after)
    {
        struct result *result = LIST_ENTRY(at, struct result, link);
        list_remove(&result->link);
        json_decref(result->arguments);
        free(result);
    }
}

void errands_set_core(struct errands *errands, int fd)
{
    drop_all(errands);
    errands->begins = true;
    hook_core_set(errands->core, fd);
}

struct errands *errands_new(struct loop *loop, struct fetcher *fetcher)
{
    struct errands *errands = calloc(1, sizeof(*errands));
    if (errands == NULL) {
        return NULL;
    }
    errands->fetcher = fetcher;
    errands->begins = true;
    list_init(&errands->results);
    errands->core = hook_core_new(loop);
    errands->timer = loop_timer_new(loop, tick, errands);
    if (errands->core == NULL || errands->timer == NULL) {
        errands_free(errands);
        return NULL;
    }
    return errands;
}

void errands_free(struct errands *errands)
{
    if (errands == NULL) {
        return;
    }
    drop_all(errands);
    hook_core_forget(errands->core);
    hook_core_free(errands->core);
    loop_timer_free(errands->timer);
    free(errands);
}
