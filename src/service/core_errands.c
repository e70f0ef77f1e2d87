/* SPDX-License-Identifier: Apache-2.0 */
#include "service/core_errands.h"

#include "base/base64.h"
#include "service/core_control.h"

#include <stdlib.h>

enum {
    HELPER_MS = 15000,       /* beyond its time: the helper is gone, or has forgotten it */
    GIVEN_AT_ONCE = 1 << 20, /* bytes of posts in one answer */
};

struct sent {
    struct link link;
    uint64_t number;
    bool is_given; /* to the helper */
    int64_t deadline_ms;
    errand_fn *fn;
    void *context;
    char *url;
    const char *media_type, *post_type; /* constants */
    size_t most_bytes;
    uint32_t timeout_ms;
    struct buffer post;
};

struct errands {
    struct link sent;
    uint32_t count;
    uint64_t last_number;
};

static void sent_free(struct errands *errands, struct sent *sent)
{
    list_remove(&sent->link);
    errands->count--;
    buffer_done(&sent->post);
    free(sent->url);
    free(sent);
}

static void end(struct errands *errands, struct sent *sent, const struct errand_answer *answer)
{
    errand_fn *fn = sent->fn;
    void *context = sent->context;
    sent_free(errands, sent);
    fn(context, answer);
}

bool core_errands_send(struct core *core, const struct errand *what)
{
    struct errands *errands = core->errands;
    struct sent *sent = errands->count < ERRANDS_MAX && strlen(what->url) <= ERRAND_URL_MAX &&
                                what->post.length <= ERRAND_BODY_MAX
                            ? calloc(1, sizeof(*sent))
                            : NULL;
    if (sent == NULL) {
        return false;
    }
    *sent = (struct sent){.number = ++errands->last_number,
                          .deadline_ms = core_now(core).steady_ms + what->timeout_ms + HELPER_MS,
                          .fn = what->fn,
                          .context = what->context,
                          .url = strdup(what->url),
                          .media_type = what->media_type,
                          .post_type = what->post_type,
                          .most_bytes = what->most_bytes,
                          .timeout_ms = what->timeout_ms};
    list_append(&errands->sent, &sent->link);
    errands->count++;
    buffer_init(&sent->post, 0);
    buffer_append(&sent->post, what->post);
    if (sent->url == NULL || sent->post.failed) {
        sent_free(errands, sent);
        return false;
    }
    return true;
}

void core_errands_forget(struct core *core, const void *context)
{
    LIST_EACH(&core->errands->sent, at, after)
    {
        struct sent *sent = LIST_ENTRY(at, struct sent, link);
        if (sent->context == context) {
            sent_free(core->errands, sent);
        }
    }
}

/* One at a time: who is called may send and forget others. */
static struct sent *overdue(struct errands *errands, int64_t now_ms)
{
    LIST_EACH(&errands->sent, at, after)
    {
        struct sent *sent = LIST_ENTRY(at, struct sent, link);
        if (sent->deadline_ms <= now_ms) {
            return sent;
        }
    }
    return NULL;
}

void core_errands_tick(struct core *core)
{
    const struct errand_answer nothing = {.problem = "the helper has not answered"};
    int64_t now_ms = core_now(core).steady_ms;
    for (struct sent *sent; (sent = overdue(core->errands, now_ms)) != NULL;) {
        end(core->errands, sent, &nothing);
    }
}

void core_errands_init(struct core *core)
{
    core->errands = calloc(1, sizeof(*core->errands));
    if (core->errands == NULL) {
        core_out_of_memory();
    }
    list_init(&core->errands->sent);
}

void core_errands_done(struct core *core)
{
    LIST_EACH(&core->errands->sent, at, after)
    {
        sent_free(core->errands, LIST_ENTRY(at, struct sent, link));
    }
    free(core->errands);
}

/* ---- "errands", "errand done" ------------------------------------------------------------------
 */

static json_t *text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

static json_t *row_of(const struct sent *sent)
{
    struct buffer post;
    buffer_init(&post, 0);
    base64_encode(&post, buffer_slice(&sent->post));
    json_t *row = json_object();
    control_set(row, "errand", json_integer((json_int_t)sent->number));
    control_set(row, "url", json_string(sent->url));
    control_set(row, "media_type", text_or_null(sent->media_type));
    control_set(row, "most_bytes", json_integer((json_int_t)sent->most_bytes));
    control_set(row, "timeout_ms", json_integer(sent->timeout_ms));
    control_set(row, "post_type", text_or_null(sent->post_type));
    control_set(row, "post", control_string(buffer_slice(&post)));
    buffer_done(&post);
    return row;
}

/* One that begins knows of none that were given to another before it. */
enum control_step errands_step(struct control_request *request)
{
    bool begins = control_flag(request, "begins");
    size_t bytes = 0;
    LIST_EACH(&request->core->errands->sent, at, after)
    {
        struct sent *sent = LIST_ENTRY(at, struct sent, link);
        if (begins) {
            sent->is_given = false;
        }
        if (!sent->is_given && bytes < GIVEN_AT_ONCE) {
            sent->is_given = true;
            bytes += sent->post.length;
            control_row(request, row_of(sent));
        }
    }
    return STEP_END;
}

enum control_step errand_done_step(struct control_request *request)
{
    struct errands *errands = request->core->errands;
    const json_t *number = json_object_get(request->arguments, "errand");
    const char *problem = json_string_value(json_object_get(request->arguments, "problem"));
    struct slice text = control_argument(request, "body");
    struct buffer body;
    buffer_init(&body, ERRAND_BODY_MAX);
    if (base64_decode(&body, text) != ERROR_NONE) {
        buffer_done(&body);
        return control_fail(request, CONTROL_USAGE, "the body is no base64");
    }
    LIST_EACH(&errands->sent, at, after)
    {
        struct sent *sent = LIST_ENTRY(at, struct sent, link);
        if (sent->is_given && sent->number == (uint64_t)json_integer_value(number)) {
            const struct errand_answer answer = {.problem = problem,
                                                 .untrusted = control_flag(request, "untrusted"),
                                                 .body = buffer_slice(&body)};
            end(errands, sent, &answer);
            break;
        }
    }
    buffer_done(&body);
    return STEP_END;
}
