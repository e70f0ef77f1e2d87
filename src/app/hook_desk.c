/* SPDX-License-Identifier: Apache-2.0 */
#include "app/hook_desk.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { HOUR_MS = 3600000, STANDING_MAX = ALERTS_MAX + ALERT_KIND_COUNT };

/* An alert that stands. */
struct standing {
    enum alert_kind kind;
    bool confirmed;
    int64_t since_ms;
    int64_t repeat_at_ms[HOOKS_MAX]; /* by queue; 0: never */
    char subject[HOOK_SUBJECT_SIZE];
    char text[ALERT_TEXT_SIZE];
    char from[80], to[80];
};

static void copy_text(char *to, size_t size, struct slice text)
{
    snprintf(to, size, "%.*s", SLICE_PRINT(slice_take(text, size)));
}

/* ---- words ------------------------------------------------------------------------------- */

const char *hook_edge_text(enum hook_edge edge)
{
    static const char *const texts[] = {"raised",   "changed",  "ended",
                                        "happened", "repeated", "summary"};
    return texts[edge];
}

const char *hook_event(const struct hook_message *message)
{
    static const struct {
        enum alert_kind kind;
        const char *begins, *ends[ALERT_ENDING_COUNT]; /* over, disabled, removed */
    } words[] = {
        {ALERT_SWITCHED, "failover-succeeded", {"switched-back", NULL, "route-removed"}},
        {ALERT_STOPPED, "failover-failed", {"resumed", NULL, "route-removed"}},
        {ALERT_SERVER, "server-down", {"server-up", "server-disabled", "server-removed"}},
        {ALERT_GUARD, "standby-started", {"standby-ended", NULL, "guard-removed"}},
    };
    if (message->edge == HOOK_SUMMARY) {
        return "summary";
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (words[i].kind == message->kind) {
            const char *end = words[i].ends[message->ending];
            return message->edge == HOOK_ENDED && end != NULL ? end : words[i].begins;
        }
    }
    return alert_kind_text(message->kind);
}

/* ---- queues ------------------------------------------------------------------------------ */

static struct hook_message *message_new(struct hook_desk *desk, struct hook_time now)
{
    struct hook_message *message = calloc(1, sizeof(*message));
    if (message == NULL) {
        desk->dropped++;
        return NULL;
    }
    list_init(&message->link);
    message->time_ms = now.wall_ms;
    message->since_ms = now.wall_ms;
    message->queued_ms = now.steady_ms;
    message->due_ms = now.steady_ms;
    snprintf(message->id, sizeof(message->id), "%llx-%llx", (unsigned long long)now.wall_ms,
             (unsigned long long)++desk->made);
    return message;
}

static void put_last(struct hook_queue *queue, struct hook_message *message)
{
    list_append(&queue->messages, &message->link);
    queue->count++;
}

static struct hook_message *first_of(const struct hook_queue *queue)
{
    return queue->count > 0 ? LIST_ENTRY(queue->messages.next, struct hook_message, link) : NULL;
}

static void take_out(struct hook_queue *queue, struct hook_message *message)
{
    list_remove(&message->link);
    queue->count--;
}

/* Into the summary, which for one message is that message itself. Takes it over. */
static void gather(struct hook_desk *desk, struct hook_queue *queue, struct hook_message *message,
                   struct hook_time now)
{
    uint32_t stands_for = message->edge == HOOK_SUMMARY ? message->more : 1;
    if (message->number != 0 &&
        (queue->gathered_number == 0 || message->number < queue->gathered_number)) {
        queue->gathered_number = message->number;
    }
    if (queue->gathered == 0) {
        queue->summary = message;
        queue->gathered = stands_for;
        return;
    }
    struct hook_message *summary = queue->summary;
    if (summary->edge != HOOK_SUMMARY) {
        char line[ALERT_TEXT_SIZE * 2];
        snprintf(line, sizeof(line), "%s: %.*s", hook_event(summary), ALERT_TEXT_SIZE,
                 summary->text);
        memcpy(summary->text, line, sizeof(line));
        summary->edge = HOOK_SUMMARY;
        summary->time_ms = now.wall_ms;
        summary->number = 0;
        summary->subject[0] = summary->was[0] = summary->from[0] = summary->to[0] = 0;
    }
    queue->gathered += stands_for;
    size_t length = strlen(summary->text);
    if (queue->gathered <= HOOK_LINES_MAX && message->edge != HOOK_SUMMARY) {
        snprintf(summary->text + length, sizeof(summary->text) - length, "\n%s: %s",
                 hook_event(message), message->text);
    }
    summary->more = queue->gathered;
    free(message);
    (void)desk;
}

static int64_t cost_of(const struct hook_queue *queue)
{
    return HOUR_MS / queue->config->rate;
}

static bool pay(struct hook_queue *queue, struct hook_time now)
{
    int64_t passed = now.steady_ms - queue->credit_at_ms;
    queue->credit_at_ms = now.steady_ms;
    queue->credit_ms += passed > 0 ? passed : 0;
    queue->credit_ms = queue->credit_ms < HOUR_MS ? queue->credit_ms : HOUR_MS;
    if (queue->credit_ms < cost_of(queue)) {
        return false;
    }
    queue->credit_ms -= cost_of(queue);
    return true;
}

/* What is gathered goes first; then it is one more of those. */
static void put(struct hook_desk *desk, struct hook_queue *queue, struct hook_message *message,
                struct hook_time now)
{
    if (queue->gathered == 0 && queue->count < HOOK_QUEUE_MAX && pay(queue, now)) {
        put_last(queue, message);
    } else {
        gather(desk, queue, message, now);
    }
}

static void release_gathered(struct hook_queue *queue, struct hook_time now)
{
    if (queue->gathered == 0 || queue->count >= HOOK_QUEUE_MAX || !pay(queue, now)) {
        return;
    }
    struct hook_message *summary = queue->summary;
    summary->number = queue->gathered_number;
    summary->queued_ms = now.steady_ms;
    summary->due_ms = now.steady_ms;
    summary->attempts = 0;
    put_last(queue, summary);
    queue->summary = NULL;
    queue->gathered = 0;
    queue->gathered_number = 0;
}

/* ---- what stands ------------------------------------------------------------------------- */

static uint64_t key_of(const struct hook_desk *desk, enum alert_kind kind, struct slice subject)
{
    struct hash_key key = {desk->key.k0 + kind, desk->key.k1};
    return hash_bytes(key, subject);
}

static bool tells_of(const struct hook_queue *queue, enum alert_kind kind)
{
    return (queue->config->kinds >> kind & 1) != 0;
}

static void schedule_repeat(const struct hook_desk *desk, struct standing *standing, uint32_t i,
                            struct hook_time now)
{
    uint64_t repeat_ms = desk->queues[i].config->repeat_ms;
    standing->repeat_at_ms[i] = repeat_ms == 0 ? 0 : now.steady_ms + (int64_t)repeat_ms;
}

/* True: it did not stand. */
static bool stand(struct hook_desk *desk, const struct hook_news *news, struct hook_time now)
{
    uint64_t key = key_of(desk, news->kind, news->subject);
    struct standing *standing = map_get(&desk->standing, key);
    bool is_new = standing == NULL;
    if (is_new) {
        standing = desk->standing.count < STANDING_MAX ? calloc(1, sizeof(*standing)) : NULL;
        if (standing == NULL || map_put(&desk->standing, key, standing) != ERROR_NONE) {
            free(standing);
            return true; /* told, but not again */
        }
        standing->kind = news->kind;
        standing->since_ms = news->since_ms;
        copy_text(standing->subject, sizeof(standing->subject), news->subject);
        for (uint32_t i = 0; i < desk->queue_count; i++) {
            schedule_repeat(desk, standing, i, now);
        }
    }
    standing->confirmed = true;
    copy_text(standing->text, sizeof(standing->text), news->text);
    copy_text(standing->from, sizeof(standing->from), news->from);
    copy_text(standing->to, sizeof(standing->to), news->to);
    return is_new;
}

static void stand_no_more(struct hook_desk *desk, enum alert_kind kind, struct slice subject)
{
    free(map_remove(&desk->standing, key_of(desk, kind, subject)));
}

/* ---- news -------------------------------------------------------------------------------- */

static void tell_all(struct hook_desk *desk, const struct hook_news *news, enum hook_edge edge,
                     struct hook_time now)
{
    for (uint32_t i = 0; i < desk->queue_count; i++) {
        struct hook_queue *queue = &desk->queues[i];
        struct hook_message *message = tells_of(queue, news->kind) ? message_new(desk, now) : NULL;
        if (message == NULL) {
            continue;
        }
        message->number = news->number;
        message->edge = edge;
        message->kind = news->kind;
        message->time_ms = news->time_ms;
        message->since_ms = news->since_ms;
        copy_text(message->subject, sizeof(message->subject), news->subject);
        message->ending = news->ending;
        copy_text(message->text, ALERT_TEXT_SIZE, news->text);
        copy_text(message->was, sizeof(message->was), news->was);
        copy_text(message->from, sizeof(message->from), news->from);
        copy_text(message->to, sizeof(message->to), news->to);
        put(desk, queue, message, now);
    }
}

/* What is over may be what they waited for. */
static void mails_may_go(struct hook_desk *desk, struct hook_time now)
{
    for (uint32_t i = 0; i < desk->queue_count; i++) {
        struct hook_message *message = first_of(&desk->queues[i]);
        if (message != NULL && desk->queues[i].config->mail.length > 0) {
            message->due_ms = now.steady_ms;
        }
    }
}

void hook_desk_take(struct hook_desk *desk, const struct hook_news *news, struct hook_time now)
{
    if (news->stands) {
        bool is_new = stand(desk, news, now);
        /* Instead of its edge, which was not among the latest any more. */
        if (is_new && news->number > desk->first_number) {
            tell_all(desk, news, HOOK_RAISED, now);
        }
        return;
    }
    if (news->number > desk->last_number) {
        desk->last_number = news->number;
    }
    switch (news->edge) {
    case ALERT_RAISED:
        if (stand(desk, news, now)) {
            tell_all(desk, news, HOOK_RAISED, now);
        }
        break;
    case ALERT_CHANGED:
        (void)stand(desk, news, now);
        tell_all(desk, news, HOOK_CHANGED, now);
        break;
    case ALERT_ENDED:
        stand_no_more(desk, news->kind, news->subject);
        tell_all(desk, news, HOOK_ENDED, now);
        mails_may_go(desk, now);
        break;
    default:
        tell_all(desk, news, HOOK_HAPPENED, now);
        break;
    }
}

void hook_desk_new_life(struct hook_desk *desk, uint64_t told, struct hook_time now)
{
    size_t cursor = 0;
    for (struct standing *at; (at = map_next(&desk->standing, &cursor)) != NULL;) {
        at->confirmed = false;
    }
    for (uint32_t i = 0; i < desk->queue_count; i++) {
        LIST_EACH(&desk->queues[i].messages, at, after)
        {
            LIST_ENTRY(at, struct hook_message, link)->number = 0;
        }
        desk->queues[i].gathered_number = 0;
    }
    desk->last_number = told;
    desk->first_number = told;
    desk->confirm_until_ms = now.steady_ms + HOOK_CONFIRM_MS;
}

/* ---- time -------------------------------------------------------------------------------- */

static void tell_standing(struct hook_desk *desk, struct hook_queue *queue,
                          const struct standing *standing, enum hook_edge edge,
                          struct hook_time now)
{
    struct hook_message *message = tells_of(queue, standing->kind) ? message_new(desk, now) : NULL;
    if (message != NULL) {
        message->edge = edge;
        message->kind = standing->kind;
        message->since_ms = standing->since_ms;
        memcpy(message->subject, standing->subject, sizeof(message->subject));
        if (edge == HOOK_ENDED) { /* how and when, nobody knows any more */
            memcpy(message->was, standing->text, sizeof(message->was));
            snprintf(message->text, ALERT_TEXT_SIZE, "not seen again since a restart: %.150s",
                     standing->text);
        } else {
            memcpy(message->text, standing->text, sizeof(standing->text));
        }
        memcpy(message->from, standing->from, sizeof(message->from));
        memcpy(message->to, standing->to, sizeof(message->to));
        put(desk, queue, message, now);
    }
}

static void repeat(struct hook_desk *desk, struct hook_time now)
{
    size_t cursor = 0;
    for (struct standing *at; (at = map_next(&desk->standing, &cursor)) != NULL;) {
        for (uint32_t i = 0; i < desk->queue_count; i++) {
            if (at->repeat_at_ms[i] != 0 && at->repeat_at_ms[i] <= now.steady_ms) {
                schedule_repeat(desk, at, i, now);
                tell_standing(desk, &desk->queues[i], at, HOOK_REPEATED, now);
            }
        }
    }
}

static struct standing *find_unconfirmed(const struct hook_desk *desk)
{
    size_t cursor = 0;
    for (struct standing *at; (at = map_next(&desk->standing, &cursor)) != NULL;) {
        if (!at->confirmed) {
            return at;
        }
    }
    return NULL;
}

static void end_unconfirmed(struct hook_desk *desk, struct hook_time now)
{
    if (desk->confirm_until_ms == 0 || now.steady_ms < desk->confirm_until_ms) {
        return;
    }
    desk->confirm_until_ms = 0;
    for (struct standing *at; (at = find_unconfirmed(desk)) != NULL;) {
        for (uint32_t i = 0; i < desk->queue_count; i++) {
            tell_standing(desk, &desk->queues[i], at, HOOK_ENDED, now);
        }
        stand_no_more(desk, at->kind, slice_from_text(at->subject));
    }
}

void hook_desk_tick(struct hook_desk *desk, struct hook_time now)
{
    end_unconfirmed(desk, now);
    repeat(desk, now);
    for (uint32_t i = 0; i < desk->queue_count; i++) {
        release_gathered(&desk->queues[i], now);
    }
}

/* ---- sending ----------------------------------------------------------------------------- */

const struct hook_message *hook_desk_next(struct hook_desk *desk, uint32_t number,
                                          struct hook_time now)
{
    struct hook_queue *queue = &desk->queues[number];
    struct hook_message *message = first_of(queue);
    if (message == NULL || queue->under_way || message->due_ms > now.steady_ms) {
        return NULL;
    }
    queue->under_way = true;
    return message;
}

/* A mail waits for a server as long as mail does; a program is run once. */
static int64_t patience_ms(const struct hook_config *config)
{
    return config->url.length > 0 ? HOUR_MS : 24 * (int64_t)HOUR_MS;
}

bool hook_desk_result(struct hook_desk *desk, uint32_t number, enum hook_result result,
                      struct hook_time now)
{
    struct hook_queue *queue = &desk->queues[number];
    struct hook_message *message = first_of(queue);
    assert(queue->under_way && message != NULL);
    queue->under_way = false;
    if (result == HOOK_SENT || result == HOOK_FAILED) {
        take_out(queue, message);
        free(message);
        return false;
    }
    int64_t pause_ms = HOOK_RETRY_LEAST_MS;
    if (result == HOOK_REFUSED) {
        for (uint32_t i = 0; i < message->attempts && pause_ms < HOOK_RETRY_MOST_MS; i++) {
            pause_ms *= 2;
        }
        message->attempts++;
    }
    pause_ms = pause_ms < HOOK_RETRY_MOST_MS ? pause_ms : HOOK_RETRY_MOST_MS;
    if (now.steady_ms + pause_ms - message->queued_ms <= patience_ms(queue->config)) {
        message->due_ms = now.steady_ms + pause_ms;
        return true;
    }
    take_out(queue, message);
    gather(desk, queue, message, now);
    return false;
}

uint64_t hook_desk_told(const struct hook_desk *desk)
{
    uint64_t told = desk->last_number;
    for (uint32_t i = 0; i < desk->queue_count; i++) {
        const struct hook_queue *queue = &desk->queues[i];
        uint64_t waiting = queue->gathered_number;
        LIST_EACH(&queue->messages, at, after)
        {
            uint64_t number = LIST_ENTRY(at, struct hook_message, link)->number;
            waiting = waiting == 0 || (number != 0 && number < waiting) ? number : waiting;
        }
        if (waiting != 0 && waiting <= told) {
            told = waiting - 1;
        }
    }
    return told;
}

/* ---- configuration ------------------------------------------------------------------------ */

static void queue_clear(struct hook_queue *queue)
{
    LIST_EACH(&queue->messages, at, after)
    {
        free(LIST_ENTRY(at, struct hook_message, link));
    }
    free(queue->summary);
    free(queue->name);
}

static void queue_move(struct hook_queue *to, struct hook_queue *from)
{
    *to = *from;
    list_init(&to->messages);
    LIST_EACH(&from->messages, at, after)
    {
        list_remove(at);
        list_append(&to->messages, at);
    }
    *from = (struct hook_queue){0};
    list_init(&from->messages);
}

static void queue_init(struct hook_queue *queue, const struct hook_config *config,
                       struct hook_time now)
{
    *queue =
        (struct hook_queue){.name = strndup((const char *)config->name.data, config->name.length),
                            .credit_ms = HOUR_MS,
                            .credit_at_ms = now.steady_ms};
    list_init(&queue->messages);
}

/* To a block that is new. */
static void tell_what_stands(struct hook_desk *desk, uint32_t queue, struct hook_time now)
{
    size_t cursor = 0;
    for (struct standing *at; (at = map_next(&desk->standing, &cursor)) != NULL;) {
        tell_standing(desk, &desk->queues[queue], at, HOOK_REPEATED, now);
    }
}

void hook_desk_configure(struct hook_desk *desk, const struct service_config *config,
                         struct hook_time now)
{
    struct hook_queue old[HOOKS_MAX];
    uint32_t old_count = desk->queue_count;
    for (uint32_t i = 0; i < old_count; i++) {
        assert(!desk->queues[i].under_way);
        queue_move(&old[i], &desk->queues[i]);
    }
    desk->queue_count = config->hook_count;
    for (uint32_t i = 0; i < desk->queue_count; i++) {
        const struct hook_config *hook = &config->hooks[i];
        uint32_t j = 0;
        while (j < old_count &&
               (old[j].name == NULL || !slice_equal(slice_from_text(old[j].name), hook->name))) {
            j++;
        }
        if (j < old_count) {
            queue_move(&desk->queues[i], &old[j]);
        } else {
            queue_init(&desk->queues[i], hook, now);
        }
        desk->queues[i].config = hook;
        if (j == old_count) {
            tell_what_stands(desk, i, now);
        }
    }
    for (uint32_t i = 0; i < old_count; i++) {
        queue_clear(&old[i]);
    }
    size_t cursor = 0;
    for (struct standing *at; (at = map_next(&desk->standing, &cursor)) != NULL;) {
        for (uint32_t i = 0; i < desk->queue_count; i++) {
            schedule_repeat(desk, at, i, now);
        }
    }
}

void hook_desk_init(struct hook_desk *desk, struct hash_key key)
{
    *desk = (struct hook_desk){.key = key};
    map_init(&desk->standing);
}

void hook_desk_done(struct hook_desk *desk)
{
    for (uint32_t i = 0; i < desk->queue_count; i++) {
        queue_clear(&desk->queues[i]);
    }
    size_t cursor = 0;
    for (struct standing *at; (at = map_next(&desk->standing, &cursor)) != NULL;) {
        free(at);
    }
    map_done(&desk->standing);
}
