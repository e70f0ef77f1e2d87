/* SPDX-License-Identifier: Apache-2.0 */
#include "app/hooks.h"

#include "app/hook_mail.h"
#include "app/hook_run.h"
#include "service/control_frame.h"
#include "sys/clock.h"
#include "sys/log.h"
#include "sys/random.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    TICK_MS = 1000,
    IDLE_TICKS = 10,    /* between two questions when there is nobody to tell */
    OVERDUE_MS = 15000, /* beyond its timeout: the runner has forgotten it */
    OUTPUT_SHOWN = 300,
};

/* What a block's queue has under way. */
struct under_way {
    uint64_t slot; /* 0: nothing. Its low bits are the queue */
    int64_t deadline_ms;
};

struct hooks {
    struct loop *loop;
    const struct service_config *config;
    struct counters *counters;
    struct loop_timer *timer;
    struct loop_later *next; /* a queue has become free */
    struct hook_desk desk;
    struct hook_core *core;
    struct hook_run *run;
    struct fetcher *fetcher;
    struct hook_mail *mail;
    struct under_way under_way[HOOKS_MAX];
    uint64_t serial;
    json_int_t life; /* of core; 0: not met yet */
    unsigned ticks;
};

static struct hook_time time_now(void)
{
    return (struct hook_time){clock_steady_ms(), clock_wall_ms()};
}

/* ---- the end of one ----------------------------------------------------------------------- */

static bool same_slot(const struct hooks *hooks, uint64_t slot, uint32_t *ret_queue)
{
    *ret_queue = (uint32_t)(slot % HOOKS_MAX);
    return slot != 0 && hooks->under_way[*ret_queue].slot == slot;
}

/* The beginning of what a program has said, without its last line's end. */
static struct slice shown(const char *output)
{
    struct slice text = slice_take(slice_from_text(output), OUTPUT_SHOWN);
    while (text.length > 0 && text.data[text.length - 1] == '\n') {
        text.length--;
    }
    return text;
}

static void log_sent(const struct hook_queue *queue, const struct hook_message *message,
                     const char *output)
{
    log_event(LOG_LEVEL_INFO, "hook", LOG_TEXT("alert", queue->name),
              LOG_TEXT("event", hook_event(message)),
              LOG_TEXT("edge", hook_edge_text(message->edge)),
              LOG_TEXT("subject", message->subject), LOG_SLICE("output", shown(output)));
}

static void log_failed(const char *alert, const char *event, const char *problem,
                       const char *output, bool again)
{
    log_event(LOG_LEVEL_WARNING, "hook-failed", LOG_TEXT("alert", alert), LOG_TEXT("event", event),
              LOG_TEXT("reason", problem), LOG_TEXT("again", again ? "yes" : "no"),
              LOG_SLICE("output", shown(output)));
}

static void ended(struct hooks *hooks, uint32_t number, enum hook_result result,
                  const char *problem, const char *output)
{
    struct hook_queue *queue = &hooks->desk.queues[number];
    const struct hook_message *message =
        LIST_ENTRY(queue->messages.next, struct hook_message, link);
    const char *event = hook_event(message);
    hooks->under_way[number].slot = 0;
    loop_later_ask(hooks->next);
    if (result != HOOK_LATER) {
        snprintf(queue->failing, sizeof(queue->failing), "%s", result == HOOK_SENT ? "" : problem);
    }
    if (result == HOOK_SENT) {
        counter_add(hooks->counters, COUNTER_HOOKS_SENT, 1);
        log_sent(queue, message, output);
        (void)hook_desk_result(&hooks->desk, number, result, time_now());
        return;
    }
    bool again = hook_desk_result(&hooks->desk, number, result, time_now());
    if (result != HOOK_LATER) {
        counter_add(hooks->counters, COUNTER_HOOK_FAILURES, 1);
        log_failed(queue->name, event, problem, output, again);
    }
}

static void ran(void *context, uint64_t slot, const char *problem, const char *output)
{
    struct hooks *hooks = context;
    uint32_t queue;
    if (same_slot(hooks, slot, &queue)) {
        ended(hooks, queue, problem == NULL ? HOOK_SENT : HOOK_FAILED, problem, output);
    }
}

static void posted(void *context, uint64_t slot, const struct fetch_answer *answer)
{
    struct hooks *hooks = context;
    uint32_t queue;
    if (same_slot(hooks, slot, &queue)) {
        ended(hooks, queue, answer->problem == NULL ? HOOK_SENT : HOOK_REFUSED, answer->problem,
              "");
    }
}

static void mailed(void *context, uint32_t queue, const char *problem)
{
    struct hooks *hooks = context;
    if (hooks->under_way[queue].slot != 0) {
        ended(hooks, queue, problem == NULL ? HOOK_SENT : HOOK_REFUSED, problem, "");
    }
}

/* ---- the beginning of one ----------------------------------------------------------------- */

static void post(struct hooks *hooks, const struct hook_config *hook, uint64_t slot,
                 const struct hook_letter *letter)
{
    json_t *object = hook_object(letter);
    char *body = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (body == NULL) {
        const struct fetch_answer nothing = {.problem = "out of memory"};
        posted(hooks, slot, &nothing);
        return;
    }
    const struct hook_post what = {.fn = posted,
                                   .context = hooks,
                                   .slot = slot,
                                   .url = (const char *)hook->url.data,
                                   .secret = hook->secret,
                                   .body = slice_from_text(body),
                                   .timeout_ms = hook->timeout_ms};
    hook_web_post(hooks->fetcher, &what);
    free(body);
}

static void begin(struct hooks *hooks, uint32_t number, const struct hook_message *message)
{
    const struct hook_config *hook = &hooks->config->hooks[number];
    const struct hook_letter letter = {.message = message,
                                       .hostname = hooks->config->hostname,
                                       .alert = hook->name,
                                       .now_ms = clock_wall_ms()};
    uint64_t slot = ++hooks->serial * HOOKS_MAX + number;
    hooks->under_way[number] =
        (struct under_way){slot, clock_steady_ms() + hook->timeout_ms + OVERDUE_MS};
    bool begun = true;
    if (hook->exec.length > 0) {
        begun = hook_run_ask(hooks->run, slot, hook->name, hook_environment(&letter));
    } else if (hook->mail.length > 0) {
        begun = hook_mail_send(hooks->mail, number, hook->mail, &letter);
    } else {
        post(hooks, hook, slot, &letter);
    }
    if (!begun) {
        ended(hooks, number, HOOK_LATER, NULL, "");
    }
}

/* Nobody will say its end any more. */
static void give_up_overdue(struct hooks *hooks)
{
    int64_t now = clock_steady_ms();
    for (uint32_t i = 0; i < hooks->desk.queue_count; i++) {
        if (hooks->under_way[i].slot != 0 && hooks->under_way[i].deadline_ms <= now &&
            hooks->config->hooks[i].exec.length > 0) {
            ended(hooks, i, HOOK_FAILED, "nothing was heard of its end", "");
        }
    }
}

static void begin_all(void *context)
{
    struct hooks *hooks = context;
    for (uint32_t i = 0; i < hooks->desk.queue_count; i++) {
        const struct hook_message *message = hook_desk_next(&hooks->desk, i, time_now());
        if (message != NULL) {
            begin(hooks, i, message);
        }
    }
}

/* ---- news --------------------------------------------------------------------------------- */

static int find_word(const char *word, const char *(*text)(int number), int count)
{
    for (int i = 0; word != NULL && i < count; i++) {
        if (strcmp(word, text(i)) == 0) {
            return i;
        }
    }
    return -1;
}

static const char *kind_text(int kind)
{
    return alert_kind_text((enum alert_kind)kind);
}

static const char *ending_text(int ending)
{
    return alert_ending_text((enum alert_ending)ending);
}

static const char *edge_text(int edge)
{
    return alert_edge_text((enum alert_edge)edge);
}

static struct slice slice_of(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text != NULL ? slice_from_text(text) : SLICE_EMPTY;
}

static void take_head(struct hooks *hooks, const json_t *row)
{
    json_int_t life = json_integer_value(json_object_get(row, "life"));
    if (life != hooks->life) {
        hooks->life = life;
        hook_desk_new_life(&hooks->desk,
                           (uint64_t)json_integer_value(json_object_get(row, "after")), time_now());
    }
}

static void take_row(void *context, const json_t *row)
{
    struct hooks *hooks = context;
    if (json_object_get(row, "life") != NULL) {
        take_head(hooks, row);
        return;
    }
    const char *edge_word = json_string_value(json_object_get(row, "edge"));
    int kind =
        find_word(json_string_value(json_object_get(row, "kind")), kind_text, ALERT_KIND_COUNT);
    int edge = find_word(edge_word, edge_text, ALERT_EDGE_COUNT);
    bool stands = edge_word != NULL && strcmp(edge_word, "stands") == 0;
    if (kind < 0 || (edge < 0 && !stands)) {
        return;
    }
    int ending = find_word(json_string_value(json_object_get(row, "ended")), ending_text,
                           ALERT_ENDING_COUNT);
    const struct hook_news news = {.stands = stands,
                                   .edge = stands ? ALERT_RAISED : (enum alert_edge)edge,
                                   .number =
                                       (uint64_t)json_integer_value(json_object_get(row, "number")),
                                   .kind = (enum alert_kind)kind,
                                   .time_ms = json_integer_value(json_object_get(row, "time")),
                                   .since_ms = json_integer_value(json_object_get(row, "since")),
                                   .subject = slice_of(row, "subject"),
                                   .text = slice_of(row, "text"),
                                   .was = slice_of(row, "was"),
                                   .ending = ending < 0 ? ALERT_OVER : (enum alert_ending)ending,
                                   .from = slice_of(row, "from"),
                                   .to = slice_of(row, "to")};
    hook_desk_take(&hooks->desk, &news, time_now());
}

static void news_ended(void *context, const char *error)
{
    (void)error; /* core loads its journal, or has gone: it is asked again */
    begin_all(context);
}

static json_t *failing_blocks(const struct hooks *hooks)
{
    json_t *blocks = json_object();
    for (uint32_t i = 0; i < hooks->desk.queue_count; i++) {
        const struct hook_queue *queue = &hooks->desk.queues[i];
        if (queue->failing[0] != '\0') {
            (void)json_object_set_new(blocks, queue->name,
                                      control_string(slice_from_text(queue->failing)));
        }
    }
    return blocks;
}

static void ask_for_news(struct hooks *hooks)
{
    const struct hook_asker asker = {.context = hooks, .row = take_row, .end = news_ended};
    json_t *arguments = json_object();
    if (hooks->life != 0) {
        (void)json_object_set_new(arguments, "life", json_integer(hooks->life));
        (void)json_object_set_new(arguments, "after",
                                  json_integer((json_int_t)hooks->desk.last_number));
        (void)json_object_set_new(arguments, "done",
                                  json_integer((json_int_t)hook_desk_told(&hooks->desk)));
    }
    (void)json_object_set_new(arguments, "failing", failing_blocks(hooks));
    (void)hook_core_ask(hooks->core, "alert news", arguments, &asker);
}

static void tick(void *context)
{
    struct hooks *hooks = context;
    loop_timer_set(hooks->timer, TICK_MS);
    give_up_overdue(hooks);
    hook_desk_tick(&hooks->desk, time_now());
    /* Before the news, or a mail would always find core being asked. */
    begin_all(hooks);
    if (hooks->config->hook_count > 0 || hooks->ticks++ % IDLE_TICKS == 0) {
        ask_for_news(hooks);
    }
}

/* ---- calls -------------------------------------------------------------------------------- */

struct hooks *hooks_new(struct loop *loop, const struct service_config *config,
                        struct fetcher *fetcher, struct counters *counters)
{
    struct hooks *hooks = calloc(1, sizeof(*hooks));
    if (hooks == NULL) {
        return NULL;
    }
    *hooks =
        (struct hooks){.loop = loop, .config = config, .counters = counters, .fetcher = fetcher};
    hook_desk_init(&hooks->desk, (struct hash_key){random_u64(), random_u64()});
    hook_desk_configure(&hooks->desk, config, time_now());
    hooks->timer = loop_timer_new(loop, tick, hooks);
    hooks->next = loop_later_new(loop, begin_all, hooks);
    hooks->core = hook_core_new(loop);
    hooks->run = hook_run_new(loop, ran, hooks);
    if (hooks->core != NULL) {
        hooks->mail = hook_mail_new(hooks->core, config, mailed, hooks);
    }
    if (hooks->timer == NULL || hooks->next == NULL || hooks->run == NULL || hooks->mail == NULL) {
        hooks_free(hooks);
        return NULL;
    }
    loop_timer_set(hooks->timer, 0);
    return hooks;
}

void hooks_free(struct hooks *hooks)
{
    if (hooks != NULL) {
        fetch_cancel(hooks->fetcher, hooks);
        hook_mail_free(hooks->mail);
        hook_core_forget(hooks->core);
        hook_core_free(hooks->core);
        hook_run_free(hooks->run);
        loop_timer_free(hooks->timer);
        loop_later_free(hooks->next);
        hook_desk_done(&hooks->desk);
        free(hooks);
    }
}

void hooks_set_core(struct hooks *hooks, int fd)
{
    hook_core_set(hooks->core, fd);
}

void hooks_set_runner(struct hooks *hooks, int fd)
{
    hook_run_set(hooks->run, fd);
    for (uint32_t i = 0; i < hooks->desk.queue_count; i++) {
        if (hooks->under_way[i].slot != 0 && hooks->config->hooks[i].exec.length > 0) {
            ended(hooks, i, HOOK_LATER, NULL, ""); /* it has died with the runner */
        }
    }
}

/* A program that runs is let run; what else is under way is begun again. */
static void stop_all(struct hooks *hooks)
{
    fetch_cancel(hooks->fetcher, hooks);
    hook_core_forget(hooks->core);
    for (uint32_t i = 0; i < hooks->desk.queue_count; i++) {
        if (hooks->under_way[i].slot != 0) {
            bool runs = hooks->config->hooks[i].exec.length > 0;
            ended(hooks, i, runs ? HOOK_SENT : HOOK_LATER, NULL, "");
        }
    }
}

enum error hooks_reconfigure(struct hooks *hooks, const struct service_config *config)
{
    struct hook_mail *mail = hook_mail_new(hooks->core, config, mailed, hooks);
    if (mail == NULL) {
        return ERROR_MEMORY;
    }
    stop_all(hooks);
    hook_mail_free(hooks->mail);
    hooks->mail = mail;
    hooks->config = config;
    hook_desk_configure(&hooks->desk, config, time_now());
    return ERROR_NONE;
}
