/* SPDX-License-Identifier: Apache-2.0
 *
 * Alerts: one warning line and one count when a condition begins that an operator should know of,
 * shown by `status` while it lasts, one line when it is over. Some begin and end with events of
 * relay; those without a subject are looked at once a second.
 */
#include "service/core_internal.h"

#include "base/utf8.h"
#include "sys/clock.h"
#include "sys/log.h"

#include <stdio.h>

enum { SUBJECT_SIZE = 512 };

static void tell(enum log_level level, const char *event, enum alert_kind kind,
                 struct slice subject, struct log_field last)
{
    struct log_field fields[3] = {LOG_TEXT("kind", alert_kind_text(kind))};
    size_t count = 1;
    if (subject.length > 0) {
        fields[count++] = LOG_SLICE("subject", subject);
    }
    fields[count++] = last;
    log_write(level, event, fields, count);
}

/* For those who tell people. */
static uint64_t spread(struct core *core, enum alert_edge edge, enum alert_kind kind,
                       struct slice subject, const char *text, int64_t since_ms)
{
    const struct alert_news_item item = {.time_wall_ms = core_wall_ms(core),
                                         .since_wall_ms = since_ms,
                                         .kind = kind,
                                         .edge = edge,
                                         .subject = subject,
                                         .text = slice_from_text(text)};
    return alert_news_add(&core->alert_news, &item);
}

static void spread_end(struct core *core, const struct alert *alert, enum alert_ending ending)
{
    char text[ALERT_TEXT_SIZE];
    int64_t now_ms = core_wall_ms(core);
    alert_end_text(alert->kind, alert->subject, ending, now_ms - alert->since_wall_ms, text,
                   sizeof(text));
    const struct alert_news_item item = {.time_wall_ms = now_ms,
                                         .since_wall_ms = alert->since_wall_ms,
                                         .kind = alert->kind,
                                         .edge = ALERT_ENDED,
                                         .ending = ending,
                                         .subject = alert->subject,
                                         .text = slice_from_text(text),
                                         .was = slice_from_text(alert->text)};
    (void)alert_news_add(&core->alert_news, &item);
}

/* True: it begins with this. */
static bool begin_unspread(struct core *core, enum alert_kind kind, struct slice subject,
                           const char *text, int64_t since_ms)
{
    if (!alerts_raise(&core->alerts, kind, subject, text, since_ms)) {
        return false;
    }
    counter_add(core->counters, COUNTER_ALERTS, 1);
    tell(LOG_LEVEL_WARNING, "alert", kind, subject, LOG_TEXT("text", text));
    return true;
}

static void note_number(struct core *core, enum alert_kind kind, struct slice subject,
                        uint64_t number)
{
    struct alert *alert = alerts_find(&core->alerts, kind, subject);
    if (alert != NULL) {
        alert->number = number;
    }
}

/* `since_ms`: its cause may be older than this process; 0: it begins now. */
static void begin_since(struct core *core, enum alert_kind kind, struct slice subject,
                        const char *text, int64_t since_ms)
{
    int64_t now_ms = core_wall_ms(core);
    since_ms = since_ms > 0 && since_ms < now_ms ? since_ms : now_ms;
    if (begin_unspread(core, kind, subject, text, since_ms)) {
        note_number(core, kind, subject, spread(core, ALERT_RAISED, kind, subject, text, since_ms));
    }
}

static void begin(struct core *core, enum alert_kind kind, struct slice subject, const char *text)
{
    begin_since(core, kind, subject, text, 0);
}

static void end_unspread(struct core *core, struct alert *alert)
{
    tell(LOG_LEVEL_INFO, "alert-over", alert->kind, alert->subject,
         LOG_NUMBER("seconds", (core_wall_ms(core) - alert->since_wall_ms) / 1000));
    alerts_end(&core->alerts, alert);
}

static void end_one(struct core *core, struct alert *alert, enum alert_ending ending)
{
    spread_end(core, alert, ending);
    end_unspread(core, alert);
}

static void end_as(struct core *core, enum alert_kind kind, struct slice subject,
                   enum alert_ending ending)
{
    struct alert *alert = alerts_find(&core->alerts, kind, subject);
    if (alert != NULL) {
        end_one(core, alert, ending);
    }
}

static void end(struct core *core, enum alert_kind kind, struct slice subject)
{
    end_as(core, kind, subject, ALERT_OVER);
}

void report_alert(struct core *core, enum alert_kind kind, const char *text)
{
    begin(core, kind, SLICE_EMPTY, text);
}

void report_alert_over(struct core *core, enum alert_kind kind)
{
    end(core, kind, SLICE_EMPTY);
}

void report_alert_of(struct core *core, enum alert_kind kind, struct slice subject,
                     const char *text)
{
    begin(core, kind, subject, text);
}

void report_alert_over_of(struct core *core, enum alert_kind kind, struct slice subject)
{
    end(core, kind, subject);
}

void report_alert_while(struct core *core, enum alert_kind kind, bool stands, const char *text)
{
    if (stands) {
        report_alert(core, kind, text);
    } else {
        report_alert_over(core, kind);
    }
}

void core_set_stale(struct core *core, struct slice why)
{
    char text[ALERT_TEXT_SIZE];
    snprintf(text, sizeof(text), "the last reload was refused: %.*s",
             SLICE_PRINT(slice_take(why, ALERT_TEXT_SIZE)));
    report_alert_while(core, ALERT_RELOAD, why.length > 0, text);
}

void report_hook(struct core *core, struct slice name, const char *reason)
{
    char text[ALERT_TEXT_SIZE];
    if (reason == NULL) {
        end(core, ALERT_HOOK, name);
        return;
    }
    snprintf(text, sizeof(text), "alerts do not reach %.*s: %.100s",
             SLICE_PRINT(slice_take(name, 60)), reason);
    begin(core, ALERT_HOOK, name, text);
}

void report_milter(struct core *core, struct slice name, struct slice why)
{
    char text[ALERT_TEXT_SIZE];
    if (why.length == 0) {
        end(core, ALERT_MILTER, name);
        return;
    }
    snprintf(text, sizeof(text), "filter %.*s is away: %.*s", SLICE_PRINT(slice_take(name, 63)),
             SLICE_PRINT(slice_take(why, 100)));
    begin(core, ALERT_MILTER, name, text);
}

void report_guard(struct core *core, enum alert_kind kind, struct slice server, const char *text,
                  int64_t since_ms)
{
    char cut[ALERT_TEXT_SIZE];
    if (text == NULL) {
        end(core, kind, server);
        return;
    }
    begin_since(core, kind, server, utf8_clean(slice_from_text(text), "", cut, sizeof(cut)),
                since_ms);
}

void report_list(struct core *core, struct slice source, const char *problem)
{
    char text[ALERT_TEXT_SIZE];
    if (problem == NULL) {
        end(core, ALERT_RECIPIENTS, source);
        return;
    }
    snprintf(text, sizeof(text), "the list %.*s cannot be taken: %.90s",
             SLICE_PRINT(slice_take(source, 70)), problem);
    begin(core, ALERT_RECIPIENTS, source, text);
}

/* ---- what relay tells ------------------------------------------------------------------------ */

/* How an alert calls a lane: by its route, and by where its mail was redirected to. */
static struct slice lane_subject(struct slice route, struct slice redirect_to, char *text,
                                 size_t size)
{
    if (redirect_to.length == 0) {
        return route;
    }
    int length = snprintf(text, size, "%.*s redirected to %.*s", SLICE_PRINT(route),
                          SLICE_PRINT(redirect_to));
    return slice_make(text, (size_t)length < size ? (size_t)length : size - 1);
}

static void tell_stop(struct core *core, const struct relay_action *action)
{
    char name[SUBJECT_SIZE], text[ALERT_TEXT_SIZE];
    struct slice subject = lane_subject(action->lane, action->redirect_to, name, sizeof(name));
    if (action->event == RELAY_EVENT_STOPPED) {
        snprintf(text, sizeof(text), "all servers of %.*s are down; its mail is kept",
                 SLICE_PRINT(slice_take(subject, 140)));
        begin_since(core, ALERT_STOPPED, subject, text, action->since_wall_ms);
    } else {
        end(core, ALERT_STOPPED, subject);
    }
}

static void switch_text(char text[ALERT_TEXT_SIZE], struct slice lane, struct slice to,
                        bool is_head)
{
    snprintf(text, ALERT_TEXT_SIZE, "%.*s goes to %.*s%s", SLICE_PRINT(slice_take(lane, 96)),
             SLICE_PRINT(slice_take(to, 64)), is_head ? " again, its first server" : "");
}

/* One alert while the lane's mail goes elsewhere than it should; people are told of each switch. */
static void tell_switch(struct core *core, const struct relay_action *action)
{
    char text[ALERT_TEXT_SIZE];
    struct slice lane = action->lane;
    struct slice to = core_server_name(core, action->server);
    struct alert *standing = alerts_find(&core->alerts, ALERT_SWITCHED, lane);
    switch_text(text, lane, to, action->is_head);
    const struct alert_news_item item = {
        .time_wall_ms = core_wall_ms(core),
        .since_wall_ms = standing != NULL ? standing->since_wall_ms : core_wall_ms(core),
        .kind = ALERT_SWITCHED,
        .edge = action->is_head    ? ALERT_ENDED
                : standing != NULL ? ALERT_CHANGED
                                   : ALERT_RAISED,
        .subject = lane,
        .text = slice_from_text(text),
        .was = action->is_head && standing != NULL ? slice_from_text(standing->text) : SLICE_EMPTY,
        .from = core_server_name(core, action->from_server),
        .to = to};
    uint64_t number = alert_news_add(&core->alert_news, &item);
    if (standing != NULL) {
        end_unspread(core, standing);
    }
    if (!action->is_head) {
        (void)begin_unspread(core, ALERT_SWITCHED, lane, text, core_wall_ms(core));
        note_number(core, ALERT_SWITCHED, lane, number);
    }
}

/* A mail about an alert, as the helper puts it into the queue. */
static bool is_about_alert(struct core *core, struct spool_handle handle)
{
    struct arena arena;
    struct spool_message message;
    arena_init(&arena);
    bool is = spool_read_envelope(core->spool, handle, &arena, &message) == ERROR_NONE &&
              (message.flags & SPOOL_OWN_DSN) != 0 && (message.flags & SPOOL_IMPORTED) != 0 &&
              slice_equal(message.origin.listener, SLICE_LITERAL("alert"));
    arena_done(&arena);
    return is;
}

static void tell_dead(struct core *core, const struct relay_action *action)
{
    if (is_about_alert(core, action->handle)) {
        return; /* or who cannot be told would be told of that without end */
    }
    char id[ID_TEXT_LENGTH + 1], name[ID_TEXT_LENGTH + 16], text[ALERT_TEXT_SIZE];
    id_to_text(spool_id(core->spool, action->handle), id);
    if (action->delivery == SPOOL_ALL_DELIVERIES) {
        snprintf(name, sizeof(name), "%s", id);
    } else {
        snprintf(name, sizeof(name), "%s/%u", id, action->delivery);
    }
    struct slice why = action->reason.length > 0 ? action->reason : action->reply.text;
    snprintf(text, sizeof(text), "%s is a dead letter: %.*s", name,
             SLICE_PRINT(slice_take(why, ALERT_TEXT_SIZE)));
    (void)spread(core, ALERT_HAPPENED, ALERT_DEAD_LETTER, slice_from_text(name), text,
                 core_wall_ms(core));
}

void report_takeover(struct core *core, struct slice node, const char *text)
{
    counter_add(core->counters, COUNTER_ALERTS, 1);
    tell(LOG_LEVEL_WARNING, "alert", ALERT_TAKEOVER, node, LOG_TEXT("text", text));
    (void)spread(core, ALERT_HAPPENED, ALERT_TAKEOVER, node, text, core_wall_ms(core));
}

/* Told twice, soon and very soon; it is over when its mail is gone. */
static void tell_expiry(struct core *core, const struct relay_action *action)
{
    char text[ALERT_TEXT_SIZE];
    int64_t hours = (action->duration_ms + 3599999) / 3600000;
    snprintf(text, sizeof(text), "mail of %.*s becomes dead letters in %lld %s: its time ends then",
             SLICE_PRINT(slice_take(action->lane, 96)),
             (long long)(hours > 48 ? (hours + 12) / 24 : hours),
             hours > 48   ? "days"
             : hours == 1 ? "hour"
                          : "hours");
    struct alert *standing = alerts_find(&core->alerts, ALERT_EXPIRY, action->lane);
    if (action->count == 0) {
        end(core, ALERT_EXPIRY, action->lane);
        return;
    }
    enum alert_edge edge = standing != NULL ? ALERT_CHANGED : ALERT_RAISED;
    if (standing != NULL) {
        end_unspread(core, standing);
    }
    (void)begin_unspread(core, ALERT_EXPIRY, action->lane, text, core_wall_ms(core));
    note_number(core, ALERT_EXPIRY, action->lane,
                spread(core, edge, ALERT_EXPIRY, action->lane, text, core_wall_ms(core)));
}

static void tell_server(struct core *core, const struct relay_action *action, struct slice server)
{
    char text[ALERT_TEXT_SIZE];
    struct relay_server_view view;
    relay_server(core->relay, action->server, &view);
    if (action->new_state == SERVER_UP) {
        end(core, ALERT_CREDENTIALS, server);
        end(core, ALERT_REFUSES, server);
        end(core, ALERT_LOOP, server);
    } else if (action->new_state == SERVER_SUSPECT && view.breaker_open) {
        snprintf(text, sizeof(text), "server %.*s refuses one message after the other",
                 SLICE_PRINT(slice_take(server, 64)));
        begin(core, ALERT_REFUSES, server, text);
    }
}

/* Who says what: the server refuses a login, or we find no way to log in there. */
static void tell_login(struct core *core, const struct relay_action *action, struct slice server)
{
    char text[ALERT_TEXT_SIZE];
    const struct relay_config *config = &core->config->relay;
    bool has_login = action->server < config->server_count &&
                     config->servers[action->server].auth_user.length > 0;
    snprintf(text, sizeof(text), "server %.*s %s: %.*s", SLICE_PRINT(slice_take(server, 64)),
             action->reply.how != RELAY_REPLY ? "cannot be logged in to"
             : has_login                      ? "refuses our login"
                                              : "asks for a login, and none is set",
             SLICE_PRINT(slice_take(action->reason, ALERT_TEXT_SIZE)));
    begin(core, ALERT_CREDENTIALS, server, text);
}

void report_alerts_event(struct core *core, const struct relay_action *action)
{
    struct slice server = core_server_name(core, action->server);
    char text[ALERT_TEXT_SIZE];
    switch (action->event) {
    case RELAY_EVENT_STOPPED:
    case RELAY_EVENT_DRAINING:
    case RELAY_EVENT_DRAINED:
        tell_stop(core, action);
        break;
    case RELAY_EVENT_SWITCHED:
        tell_switch(core, action);
        break;
    case RELAY_EVENT_DEAD:
        tell_dead(core, action);
        break;
    case RELAY_EVENT_FROZEN: {
        char clock[DRILL_CLOCK_SIZE];
        snprintf(text, sizeof(text), "a drill holds the mail of %.*s back until %s",
                 SLICE_PRINT(slice_take(action->lane, 128)),
                 drill_clock(action->next_wall_ms, clock));
        begin(core, ALERT_DRILL, action->lane, text);
        break;
    }
    case RELAY_EVENT_THAWED:
        end(core, ALERT_DRILL, action->lane);
        break;
    case RELAY_EVENT_CREDENTIALS:
        tell_login(core, action, server);
        break;
    case RELAY_EVENT_SERVER:
        tell_server(core, action, server);
        break;
    case RELAY_EVENT_LOOP:
        snprintf(text, sizeof(text), "server %.*s sends mail back to us that we gave to it",
                 SLICE_PRINT(slice_take(server, 64)));
        begin(core, ALERT_LOOP, server, text);
        break;
    case RELAY_EVENT_EXPIRY:
        tell_expiry(core, action);
        break;
    case RELAY_EVENT_ORPHANED:
        report_alert(core, ALERT_ORPHAN, "mail has no route any more and waits in the lane orphan");
        break;
    default:
        break;
    }
}

static bool is_about_server(const struct alert *alert)
{
    return alert->subject.length > 0 &&
           (alert->kind == ALERT_SERVER || alert->kind == ALERT_CREDENTIALS ||
            alert->kind == ALERT_REFUSES || alert->kind == ALERT_LOOP);
}

/* ---- a new life ------------------------------------------------------------------------------ */

void report_alerts_loaded(struct core *core)
{
    uint32_t count = relay_lane_count(core->relay);
    for (uint32_t i = 0; i < count; i++) {
        char text[ALERT_TEXT_SIZE];
        struct relay_lane_view view;
        relay_lane(core->relay, i, &view);
        if (view.switched) {
            switch_text(text, view.route, core_server_name(core, view.last_server), false);
            begin_since(core, ALERT_SWITCHED, view.route, text, view.switched_wall_ms);
        }
    }
}

/* ---- a new configuration --------------------------------------------------------------------- */

static void mark(struct core *core, enum alert_kind kind, struct slice subject)
{
    struct alert *alert = alerts_find(&core->alerts, kind, subject);
    if (alert != NULL) {
        alert->marked = true;
    }
}

static void mark_lanes(struct core *core)
{
    uint32_t count = relay_lane_count(core->relay);
    for (uint32_t i = 0; i < count; i++) {
        char name[SUBJECT_SIZE];
        struct relay_lane_view view;
        relay_lane(core->relay, i, &view);
        if (view.stopped) {
            mark(core, ALERT_STOPPED,
                 lane_subject(view.route, view.redirect_to, name, sizeof(name)));
        }
        if (view.frozen_until_ms != 0 && view.redirect_to.length == 0) {
            mark(core, ALERT_DRILL, view.route);
        }
        if (view.switched) {
            mark(core, ALERT_SWITCHED, view.route);
        }
        if (view.expires_soon) {
            mark(core, ALERT_EXPIRY, view.route);
        }
    }
}

/* What it was about is named no more. Servers' alerts end by a reload only so. */
static bool is_gone(struct core *core, const struct alert *alert)
{
    if (is_about_server(alert)) {
        return true;
    }
    uint32_t count = relay_lane_count(core->relay);
    for (uint32_t i = 0; i < count; i++) {
        struct relay_lane_view view;
        relay_lane(core->relay, i, &view);
        struct slice rest = slice_skip(alert->subject, view.route.length);
        if (slice_equal(slice_take(alert->subject, view.route.length), view.route) &&
            (rest.length == 0 || rest.data[0] == ' ')) { /* " redirected to" */
            return false;
        }
    }
    return true;
}

static bool is_about_login(const struct core *core, const struct alert *alert)
{
    return logins_waits(core, alert->kind, alert->subject);
}

static bool is_about_guard(const struct alert *alert)
{
    return alert->kind == ALERT_GUARD || alert->kind == ALERT_GUARD_FAILED;
}

void report_alerts_reconfigured(struct core *core)
{
    mark_lanes(core);
    LIST_EACH(&core->alerts.standing, at, after)
    {
        struct alert *alert = LIST_ENTRY(at, struct alert, link);
        bool stands = is_about_server(alert)  ? core_has_server(core, alert->subject)
                      : is_about_guard(alert) ? core_guard_is_there(core, alert->subject)
                                              : alert->marked || is_about_login(core, alert);
        if (alert->subject.length > 0 && !stands) {
            end_one(core, alert, is_gone(core, alert) ? ALERT_REMOVED : ALERT_OVER);
        } else {
            alert->marked = false;
        }
    }
}

/* ---- what is looked at ----------------------------------------------------------------------- */

static bool has_orphans(const struct core *core)
{
    uint32_t count = relay_lane_count(core->relay);
    for (uint32_t i = 0; i < count; i++) {
        struct relay_lane_view view;
        relay_lane(core->relay, i, &view);
        if (view.state == LANE_ORPHAN && view.deliveries > 0) {
            return true;
        }
    }
    return false;
}

static void look_at_server(struct core *core, uint32_t server)
{
    const struct server_config *config = relay_server_config(core->relay, server);
    struct relay_server_view view;
    struct slice name = core_server_name(core, server);
    relay_server(core->relay, server, &view);
    if (view.on_demand || config->protocol == SERVER_ODMR) {
        return; /* R7: of many destinations some are always away; and some sites have not called */
    }
    if (view.state == SERVER_DOWN) {
        char text[ALERT_TEXT_SIZE];
        snprintf(text, sizeof(text), "server %.*s is down%s%.*s", SLICE_PRINT(slice_take(name, 64)),
                 view.reason.length > 0 ? ": " : "", SLICE_PRINT(slice_take(view.reason, 100)));
        begin_since(core, ALERT_SERVER, name, text, view.since_wall_ms);
        return;
    }
    /* Recovering it answers, but a canary may still put it down. Without a session there is none.
     */
    bool answers = view.state == SERVER_RECOVERING && view.sessions == 0;
    if (view.state == SERVER_UP || view.state == SERVER_DISABLED || answers) {
        end_as(core, ALERT_SERVER, name,
               view.state == SERVER_DISABLED ? ALERT_DISABLED : ALERT_OVER);
    }
}

/* A standby that is down is missed only when it is needed; an exchanger that DNS does not name any
 * more is missed by nobody. */
static void look_at_servers(struct core *core)
{
    for (uint32_t i = 0; i < core->config->relay.server_count; i++) {
        look_at_server(core, i);
    }
    for (uint32_t i = relay_next_exchanger(core->relay, 0); i != NO_INDEX;
         i = relay_next_exchanger(core->relay, i + 1)) {
        look_at_server(core, i);
    }
    LIST_EACH(&core->alerts.standing, at, after)
    {
        struct alert *alert = LIST_ENTRY(at, struct alert, link);
        if (is_about_server(alert) && !core_has_server(core, alert->subject)) {
            end_one(core, alert, ALERT_REMOVED);
        }
    }
}

void report_alerts_tick(struct core *core)
{
    look_at_servers(core);
    struct relay_totals totals;
    relay_totals(core->relay, &totals);
    report_alert_while(core, ALERT_DEAD_LETTERS, totals.dead_letters > 0,
                       "there are dead letters: holdfast queue list --dead");
    report_alert_while(core, ALERT_IN_DOUBT, totals.in_doubt > 0,
                       "deliveries are in doubt: no reply came to the final dot");
    report_alert_while(core, ALERT_HELD, totals.held_by_rule > 0,
                       "deliveries are held until they are released or discarded by hand: "
                       "holdfast queue list");
    report_alert_while(core, ALERT_MORE, alerts_full(&core->alerts),
                       "more conditions than can be listed: the log has them all");
    if (alerts_find(&core->alerts, ALERT_ORPHAN, SLICE_EMPTY) != NULL && !has_orphans(core)) {
        report_alert_over(core, ALERT_ORPHAN);
    }
}
