/* SPDX-License-Identifier: Apache-2.0
 *
 * What happened, told to people: one log line, one entry in the event journal, a counter. What they
 * must do something about is an alert beside (core_alert.c).
 */
#include "service/core_internal.h"

#include "relay/freeze.h"
#include "sys/clock.h"
#include "sys/log.h"

#include <stdio.h>

enum { FIELDS_MAX = 12, REPLY_SIZE = 600 };

/* A log line being put together. */
struct line {
    struct log_field fields[FIELDS_MAX];
    size_t count;
    char numbers[FIELDS_MAX][24];
    char id[ID_TEXT_LENGTH + 1];
};

static void add_slice(struct line *line, const char *key, struct slice value)
{
    if (value.length > 0 && line->count < FIELDS_MAX) {
        line->fields[line->count++] = LOG_SLICE(key, value);
    }
}

static void add_number(struct line *line, const char *key, int64_t number)
{
    if (line->count < FIELDS_MAX) {
        struct slice text = log_number(line->numbers[line->count], number);
        line->fields[line->count++] = LOG_SLICE(key, text);
    }
}

static void add_time(struct line *line, const char *key, int64_t unix_ms)
{
    if (line->count < FIELDS_MAX) {
        struct slice text = log_time(line->numbers[line->count], unix_ms);
        line->fields[line->count++] = LOG_SLICE(key, text);
    }
}

static void add_id(struct line *line, struct message_id id)
{
    id_to_text(id, line->id);
    add_slice(line, "id", slice_from_text(line->id));
}

/* ---- problems without a message -------------------------------------------------------------- */

void report_problem(const char *what, enum error error)
{
    log_event(LOG_LEVEL_ERROR, "problem", LOG_TEXT("text", what),
              LOG_TEXT("error", error_text(error)));
}

void report_damage(struct core *core, const char *text)
{
    log_event(LOG_LEVEL_WARNING, "journal", LOG_TEXT("text", text));
    (void)core;
}

void report_loaded(struct core *core)
{
    struct relay_totals totals;
    relay_totals(core->relay, &totals);
    log_event(LOG_LEVEL_INFO, "loaded", LOG_NUMBER("messages", totals.messages),
              LOG_NUMBER("deliveries", totals.deliveries),
              LOG_NUMBER("dead_letters", totals.dead_letters),
              LOG_NUMBER("ms", clock_steady_ms() - core->started_steady_ms));
    report_alerts_loaded(core);
}

static void count_up(struct core *core, enum counter which, uint64_t now, uint64_t before)
{
    if (now > before) {
        counter_add(core->counters, which, now - before);
    }
}

void report_spool(struct core *core)
{
    struct spool_state state;
    spool_status(core->spool, &state);
    count_up(core, COUNTER_JOURNAL_GROUPS, state.groups, core->told_spool.groups);
    count_up(core, COUNTER_JOURNAL_SYNCS, state.syncs, core->told_spool.syncs);
    report_alert_while(core, ALERT_QUARANTINE, state.quarantined > 0,
                       "records of the journal are damaged and were set aside");
    if (core->told_spool.accepting == ERROR_NONE && state.accepting == ERROR_IO) {
        counter_add(core->counters, COUNTER_JOURNAL_ERRORS, 1);
    }
    char text[ALERT_TEXT_SIZE];
    snprintf(text, sizeof(text), "no mail is accepted: %s",
             state.reason[0] != 0 ? state.reason : error_text(state.accepting));
    report_alert_while(core, ALERT_STORAGE, state.accepting != ERROR_NONE, text);
    core->told_spool = state;
}

static void report_trace(struct core *core)
{
    uint64_t dropped = events_dropped(core->events);
    if (dropped > core->told_dropped) {
        log_event(LOG_LEVEL_WARNING, "trace-lost", LOG_NUMBER("count", dropped));
        core->told_dropped = dropped;
    }
    int64_t gone_ms = events_gone_until(core->events);
    if (gone_ms > core->told_gone_ms) {
        log_event(LOG_LEVEL_WARNING, "trace-shortened", LOG_TIME("until", gone_ms),
                  LOG_TEXT("reason", "trace-size is reached"));
        core->told_gone_ms = gone_ms;
    }
    int64_t age_ms = core_wall_ms(core) - gone_ms;
    report_alert_while(core, ALERT_TRACE,
                       gone_ms != 0 && age_ms < (int64_t)core->config->trace_keep_ms,
                       "events went before trace-keep was over: trace-size is reached");
}

/* Copies have made room: what is left does not reach back as far as it should. */
static void report_copies(struct core *core)
{
    const struct spool_state *state = &core->told_spool;
    if (state->copies_given_up > core->told_given_up) {
        uint64_t more = state->copies_given_up - core->told_given_up;
        counter_add(core->counters, COUNTER_COPIES_GIVEN_UP, more);
        log_event(LOG_LEVEL_WARNING, "safety-copies-gone", LOG_NUMBER("files", more),
                  LOG_NUMBER("until", state->copies_gone_ms),
                  LOG_TEXT("reason", "the disk is short of room"));
        core->told_given_up = state->copies_given_up;
    }
    int64_t age_ms = core_wall_ms(core) - state->copies_gone_ms;
    report_alert_while(core, ALERT_SAFETY_COPY,
                       state->copies_gone_ms != 0 && age_ms < (int64_t)core->config->safety_copy_ms,
                       "copies of what was handed over went before safety-copy was over: the disk "
                       "is short of room");
}

void report_tick(struct core *core)
{
    report_spool(core);
    report_copies(core);
    report_alerts_tick(core);
    report_trace(core);
}

/* ---- messages -------------------------------------------------------------------------------- */

static int64_t delivery_number(uint32_t delivery)
{
    return delivery == SPOOL_ALL_DELIVERIES ? (int64_t)EVENTS_NO_DELIVERY : (int64_t)delivery;
}

void report_event(struct core *core, const struct event *event)
{
    events_add(core->events, event);
    core_control_event(core, event);
}

static struct slice tls_demand(const struct spool_message *message)
{
    return (message->flags & SPOOL_REQUIRE_TLS) != 0    ? SLICE_LITERAL("REQUIRETLS")
           : (message->flags & SPOOL_TLS_OPTIONAL) != 0 ? SLICE_LITERAL("TLS-Required: No")
                                                        : SLICE_EMPTY;
}

static void store_accepted(struct core *core, const struct spool_message *message,
                           enum event_kind kind)
{
    struct slice few[8];
    struct slice *recipients = few;
    if (message->recipient_count > sizeof(few) / sizeof(few[0])) {
        arena_reset(&core->arena);
        recipients = arena_allocate(&core->arena, message->recipient_count * sizeof(*recipients));
        if (recipients == NULL) {
            return;
        }
    }
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        recipients[i] = message->recipients[i].address;
    }
    const struct event event = {.kind = kind,
                                .time_ms = core_wall_ms(core),
                                .id = message->id,
                                .delivery = EVENTS_NO_DELIVERY,
                                .bytes = message->header_length + message->body_length,
                                .has_client = (message->flags & (SPOOL_OWN_DSN | SPOOL_DRILL)) == 0,
                                .client = message->origin.client.address,
                                .sender = message->sender,
                                .message_id = message->message_id_header,
                                .recipients = recipients,
                                .recipient_count = message->recipient_count,
                                .tls = tls_demand(message),
                                .reason = message->origin.verdicts};
    report_event(core, &event);
}

static void log_made(const struct spool_message *message, const char *event)
{
    struct line line = {.count = 0};
    add_id(&line, message->id);
    add_slice(&line, "sender", message->sender.length > 0 ? message->sender : SLICE_LITERAL("<>"));
    add_slice(&line, "recipient", message->recipients[0].address);
    add_number(&line, "recipients", message->recipient_count);
    add_number(&line, "size", (int64_t)(message->header_length + message->body_length));
    add_slice(&line, "listener", message->origin.listener);
    log_write(LOG_LEVEL_INFO, event, line.fields, line.count);
}

/* What came by SMTP is logged by the door that said 250, with all that it knows of the client. */
void report_accepted(struct core *core, const struct spool_message *message)
{
    bool imported = (message->flags & SPOOL_IMPORTED) != 0;
    if (imported) {
        log_made(message, "imported");
    } else if ((message->flags & (SPOOL_OWN_DSN | SPOOL_DRILL)) != 0 ||
               !id_is_null(message->copy_of)) {
        log_made(message, "accepted");
    }
    store_accepted(core, message, imported ? EVENT_IMPORTED : EVENT_ACCEPTED);
}

/* Told of both, so that the trace of either leads to the other. */
void report_resent(struct core *core, const struct spool_message *message,
                   const uint32_t *deliveries, uint32_t all, struct slice server)
{
    char id[ID_TEXT_LENGTH + 1], text[64];
    id_to_text(message->copy_of, id);
    snprintf(text, sizeof(text), "a copy of %s", id);
    struct event event = {.kind = EVENT_RESENT,
                          .time_ms = core_wall_ms(core),
                          .id = message->id,
                          .delivery = EVENTS_NO_DELIVERY,
                          .reason = slice_from_text(text)};
    report_event(core, &event);
    struct line line = {.count = 0};
    add_id(&line, message->id);
    add_slice(&line, "reason", event.reason);
    log_write(LOG_LEVEL_INFO, event_kind_text(EVENT_RESENT), line.fields, line.count);
    id_to_text(message->id, id);
    snprintf(text, sizeof(text), "again as %s", id);
    event.reason = slice_from_text(text);
    event.id = message->copy_of;
    event.server = server;
    bool whole = message->recipient_count == all;
    for (uint32_t i = 0; i < (whole ? 1 : message->recipient_count); i++) {
        event.delivery = whole ? (int64_t)EVENTS_NO_DELIVERY : (int64_t)deliveries[i];
        report_event(core, &event);
    }
}

void report_attempt(struct core *core, const struct job *job)
{
    const struct core_session *session = map_get(&core->sessions, job->session);
    for (uint32_t i = 0; i < job->count; i++) {
        const struct event event = {.kind = EVENT_ATTEMPT,
                                    .time_ms = core_wall_ms(core),
                                    .id = job->message,
                                    .delivery = job->deliveries[i],
                                    .server = core_server_name(core, job->server),
                                    .tls = slice_from_text(session != NULL ? session->tls : NULL)};
        report_event(core, &event);
    }
}

void report_early(struct core *core, struct message_id id, uint32_t delivery, struct slice server)
{
    const struct event event = {.kind = EVENT_DELIVERED,
                                .time_ms = core_wall_ms(core),
                                .id = id,
                                .delivery = delivery,
                                .server = server,
                                .reason = SLICE_LITERAL("reported before its share was here")};
    report_event(core, &event);
    counter_add(core->counters, COUNTER_DELIVERIES, 1);
    struct line line = {.count = 0};
    add_id(&line, id);
    add_number(&line, "delivery", delivery);
    add_slice(&line, "server", server);
    add_slice(&line, "reason", event.reason);
    log_write(LOG_LEVEL_INFO, "delivered", line.fields, line.count);
}

void report_operator(struct core *core, enum event_kind kind, struct message_id id,
                     uint32_t delivery, struct slice reason)
{
    const struct event event = {.kind = kind,
                                .time_ms = core_wall_ms(core),
                                .id = id,
                                .delivery = delivery_number(delivery),
                                .reason = reason};
    report_event(core, &event);
    struct line line = {.count = 0};
    add_id(&line, id);
    if (delivery != SPOOL_ALL_DELIVERIES) {
        add_number(&line, "delivery", delivery);
    }
    add_slice(&line, "reason", reason);
    log_write(LOG_LEVEL_INFO, event_kind_text(kind), line.fields, line.count);
}

/* ---- what relay tells ------------------------------------------------------------------------ */

/* How each of relay's events is told. */
static const struct telling {
    const char *word;
    enum log_level level;
    enum event_kind kind;   /* 0: not about a message */
    enum counter counter;   /* COUNTER_COUNT: none */
    enum event_kind change; /* of a server or lane; 0: none */
} tellings[] = {
    [RELAY_EVENT_DELIVERED] = {"delivered", LOG_LEVEL_INFO, EVENT_DELIVERED, COUNTER_DELIVERIES},
    [RELAY_EVENT_DEFERRED] = {"deferred", LOG_LEVEL_INFO, EVENT_DEFERRED, COUNTER_DEFERRALS},
    [RELAY_EVENT_IN_DOUBT] = {"in_doubt", LOG_LEVEL_WARNING, EVENT_IN_DOUBT, COUNTER_IN_DOUBT},
    [RELAY_EVENT_HELD] = {"held", LOG_LEVEL_INFO, EVENT_HELD, COUNTER_COUNT},
    [RELAY_EVENT_RELEASED] = {"released", LOG_LEVEL_INFO, EVENT_RELEASED, COUNTER_COUNT},
    [RELAY_EVENT_DEAD] = {"dead", LOG_LEVEL_WARNING, EVENT_DEAD, COUNTER_REFUSALS},
    [RELAY_EVENT_BOUNCED] = {"bounced", LOG_LEVEL_INFO, EVENT_BOUNCED, COUNTER_REFUSALS},
    [RELAY_EVENT_DISCARDED] = {"discarded", LOG_LEVEL_INFO, EVENT_DISCARDED, COUNTER_COUNT},
    [RELAY_EVENT_REDIRECTED] = {"redirected", LOG_LEVEL_INFO, EVENT_REDIRECTED, COUNTER_COUNT},
    [RELAY_EVENT_SERVER] = {"server", LOG_LEVEL_INFO, 0, COUNTER_COUNT, EVENT_SERVER},
    [RELAY_EVENT_SWITCHED] = {"switched", LOG_LEVEL_WARNING, 0, COUNTER_SWITCHES, EVENT_SWITCHED},
    [RELAY_EVENT_STOPPED] = {"stopped", LOG_LEVEL_WARNING, 0, COUNTER_COUNT, EVENT_STOPPED},
    [RELAY_EVENT_DRAINING] = {"draining", LOG_LEVEL_INFO, 0, COUNTER_COUNT, EVENT_DRAINING},
    [RELAY_EVENT_DRAINED] = {"drained", LOG_LEVEL_INFO, 0, COUNTER_COUNT, EVENT_DRAINED},
    [RELAY_EVENT_ORPHANED] = {"orphaned", LOG_LEVEL_WARNING, EVENT_ORPHANED, COUNTER_COUNT},
    [RELAY_EVENT_EXPIRY] = {"expiry", LOG_LEVEL_INFO, 0, COUNTER_COUNT},
    [RELAY_EVENT_DNS] = {"dns", LOG_LEVEL_INFO, 0, COUNTER_COUNT},
    [RELAY_EVENT_CREDENTIALS] = {"credentials", LOG_LEVEL_WARNING, 0, COUNTER_COUNT},
    [RELAY_EVENT_LOOP] = {"loop", LOG_LEVEL_WARNING, 0, COUNTER_COUNT},
    [RELAY_EVENT_FROZEN] = {"drill-begun", LOG_LEVEL_INFO, 0, COUNTER_COUNT},
    [RELAY_EVENT_THAWED] = {"drill-ended", LOG_LEVEL_INFO, 0, COUNTER_COUNT},
    [RELAY_EVENT_REHEARSED] = {"drill-report", LOG_LEVEL_INFO, 0, COUNTER_COUNT},
};

static const struct telling pulled = {"pulled", LOG_LEVEL_INFO, EVENT_PULLED, COUNTER_DELIVERIES};

static const struct telling *telling_of(const struct relay_action *action)
{
    bool is_pulled = action->event == RELAY_EVENT_DELIVERED && action->fate == SPOOL_PULLED;
    return is_pulled ? &pulled : &tellings[action->event];
}

const char *server_state_text(enum server_state state)
{
    static const char *const texts[] = {"up", "suspect", "down", "recovering", "disabled"};
    return texts[state];
}

/* What a server has said, and what we say, each once: a reason that only repeats the reply is none,
 * and what no server said is no reply. */
struct words {
    struct slice reply, reason;
};

static struct words words_of(const struct relay_action *action, bool replied, char *text,
                             size_t size)
{
    struct words words = {.reason = action->reason};
    struct slice all = replied ? relay_reply_text(&action->reply, text, size) : SLICE_EMPTY;
    if (action->reply.how == RELAY_REPLY) {
        words.reply = all;
        if (slice_equal(all, action->reason)) {
            words.reason = SLICE_EMPTY;
        }
    } else if (action->reason.length == 0) {
        words.reason = all;
    }
    return words;
}

static void store_event(struct core *core, const struct relay_action *action,
                        const struct telling *telling, const struct words *words)
{
    const struct event event = {.kind = telling->kind,
                                .time_ms = core_wall_ms(core),
                                .id = spool_id(core->spool, action->handle),
                                .delivery = delivery_number(action->delivery),
                                .next_ms = action->next_wall_ms,
                                .server = core_server_name(core, action->server),
                                .reason = words->reason,
                                .reply = words->reply};
    report_event(core, &event);
}

static void add_drill(struct line *line, const struct relay_action *action)
{
    struct relay_rehearsal seen;
    if (action->event == RELAY_EVENT_THAWED) {
        add_number(line, "held", (int64_t)action->count);
    } else if (action->event == RELAY_EVENT_REHEARSED) {
        memcpy(&seen, action->rehearsal.data, sizeof(seen));
        add_slice(line, "ended", slice_from_text(relay_thaw_text(seen.ended)));
        add_number(line, "held", (int64_t)seen.held);
        add_number(line, "delivered", (int64_t)seen.delivered);
        add_number(line, "asked", (int64_t)seen.asked);
        add_number(line, "refused", (int64_t)seen.refused);
        add_number(line, "first_ms", seen.first_ms);
        add_number(line, "drained_ms", seen.drained_ms);
        add_number(line, "out_of_order", (int64_t)seen.out_of_order);
        add_number(line, "doubled", (int64_t)seen.doubled);
    }
}

/* What a server or lane has come to, for who asks later what was switched, and when. */
static void store_change(struct core *core, const struct relay_action *action, enum event_kind kind)
{
    bool of_server = kind == EVENT_SERVER, switched = kind == EVENT_SWITCHED;
    struct slice server = core_server_name(core, action->server);
    struct event event = {.kind = kind,
                          .time_ms = core_wall_ms(core),
                          .id = EVENTS_NO_MESSAGE,
                          .delivery = EVENTS_NO_DELIVERY,
                          .reason = action->reason,
                          .subject = of_server ? server : action->lane,
                          .to = switched ? server : SLICE_EMPTY,
                          .from =
                              switched ? core_server_name(core, action->from_server) : SLICE_EMPTY,
                          .lasted_ms = action->duration_ms};
    if (of_server) {
        event.from = slice_from_text(server_state_text(action->old_state));
        event.to = slice_from_text(server_state_text(action->new_state));
    }
    report_event(core, &event);
}

void report_relay_event(struct core *core, const struct relay_action *action)
{
    const struct telling *telling = telling_of(action);
    char text[REPLY_SIZE];
    bool about_message = telling->kind != 0 && action->handle.index != SPOOL_NO_HANDLE.index;
    bool replied = about_message || action->event == RELAY_EVENT_CREDENTIALS;
    const struct words words = words_of(action, replied, text, sizeof(text));
    struct line line = {.count = 0};
    if (about_message) {
        add_id(&line, spool_id(core->spool, action->handle));
        if (action->delivery != SPOOL_ALL_DELIVERIES) {
            add_number(&line, "delivery", action->delivery);
        }
    }
    add_slice(&line, "lane", action->lane);
    if (action->event == RELAY_EVENT_SWITCHED) {
        add_slice(&line, "from_server", core_server_name(core, action->from_server));
    }
    add_slice(&line, "server", core_server_name(core, action->server));
    if (action->event == RELAY_EVENT_SERVER) {
        add_slice(&line, "was", slice_from_text(server_state_text(action->old_state)));
        add_slice(&line, "state", slice_from_text(server_state_text(action->new_state)));
        add_number(&line, "ms", action->duration_ms);
    } else if (action->event == RELAY_EVENT_EXPIRY) {
        add_number(&line, "level", (int64_t)action->count);
        add_number(&line, "ms", action->duration_ms);
    } else if (action->event == RELAY_EVENT_DRAINED || action->event == RELAY_EVENT_DRAINING) {
        add_number(&line, "deliveries", (int64_t)action->count);
        add_number(&line, "ms", action->duration_ms);
    }
    add_drill(&line, action);
    add_slice(&line, "reply", words.reply);
    add_slice(&line, "reason", words.reason);
    if (action->next_wall_ms != 0) {
        add_time(&line, "next", action->next_wall_ms);
    }
    log_write(telling->level, telling->word, line.fields, line.count);
    enum counter counter = action->expired ? COUNTER_EXPIRIES : telling->counter;
    if (counter != COUNTER_COUNT) {
        counter_add(core->counters, counter, 1);
    }
    if (about_message) {
        store_event(core, action, telling, &words);
    } else if (telling->change != 0) {
        store_change(core, action, telling->change);
    }
    report_alerts_event(core, action);
    if (action->event == RELAY_EVENT_REHEARSED) {
        core_drill_over(core, action);
    }
}
