/* SPDX-License-Identifier: Apache-2.0
 *
 * Alerts: one warning line and one count when a condition begins that an operator should know of,
 * shown by `status` while it lasts, one line when it is over. Some begin and end with events of
 * relay; those without a subject are looked at once a second.
 */
#include "service/core_internal.h"

#include "sys/clock.h"
#include "sys/log.h"

#include <stdio.h>

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

static void begin(struct core *core, enum alert_kind kind, struct slice subject, const char *text)
{
    if (alerts_raise(&core->alerts, kind, subject, text, clock_wall_ms())) {
        counter_add(core->counters, COUNTER_ALERTS, 1);
        tell(LOG_LEVEL_WARNING, "alert", kind, subject, LOG_TEXT("text", text));
    }
}

static void end(struct core *core, enum alert_kind kind, struct slice subject)
{
    int64_t since;
    if (alerts_end(&core->alerts, kind, subject, &since)) {
        tell(LOG_LEVEL_INFO, "alert-over", kind, subject,
             LOG_NUMBER("seconds", (clock_wall_ms() - since) / 1000));
    }
}

void report_alert(struct core *core, enum alert_kind kind, const char *text)
{
    begin(core, kind, SLICE_EMPTY, text);
}

void report_alert_over(struct core *core, enum alert_kind kind)
{
    end(core, kind, SLICE_EMPTY);
}

void report_alert_while(struct core *core, enum alert_kind kind, bool stands, const char *text)
{
    if (stands) {
        report_alert(core, kind, text);
    } else {
        report_alert_over(core, kind);
    }
}

/* ---- what relay tells ------------------------------------------------------------------------ */

/* Whether the server is the first choice of the lane's route. */
static bool is_head(const struct core *core, struct slice lane, uint32_t server)
{
    struct slice name = slice_skip(lane, slice_find(lane, ':') + 1);
    bool domain = slice_starts_fold(lane, SLICE_LITERAL("domain:"));
    for (uint32_t i = 0; i < core->config->relay.route_count; i++) {
        const struct route_config *route = &core->config->relay.routes[i];
        if ((route->kind == ROUTE_DOMAIN) == domain && slice_equal(route->name, name)) {
            return route->chain[0] == server;
        }
    }
    return false;
}

void report_alerts_event(struct core *core, const struct relay_action *action)
{
    struct slice server = core_server_name(core, action->server);
    char text[ALERT_TEXT_SIZE];
    switch (action->event) {
    case RELAY_EVENT_STOPPED:
        snprintf(text, sizeof(text), "all servers of %.*s are down; its mail is kept",
                 SLICE_PRINT(slice_take(action->lane, 96)));
        begin(core, ALERT_STOPPED, action->lane, text);
        break;
    case RELAY_EVENT_DRAINING:
    case RELAY_EVENT_DRAINED:
        end(core, ALERT_STOPPED, action->lane);
        break;
    case RELAY_EVENT_SWITCHED:
        snprintf(text, sizeof(text), "%.*s goes to %.*s", SLICE_PRINT(slice_take(action->lane, 96)),
                 SLICE_PRINT(slice_take(server, 64)));
        /* One alert for each switch, also for that back. */
        end(core, ALERT_SWITCHED, action->lane);
        begin(core, ALERT_SWITCHED, action->lane, text);
        if (is_head(core, action->lane, action->server)) {
            end(core, ALERT_SWITCHED, action->lane); /* all is as it should be */
        }
        break;
    case RELAY_EVENT_CREDENTIALS:
        snprintf(text, sizeof(text), "server %.*s refuses our credentials",
                 SLICE_PRINT(slice_take(server, 64)));
        begin(core, ALERT_CREDENTIALS, server, text);
        break;
    case RELAY_EVENT_SERVER:
        if (action->new_state == SERVER_UP) {
            end(core, ALERT_CREDENTIALS, server);
        }
        break;
    case RELAY_EVENT_ORPHANED:
        report_alert(core, ALERT_ORPHAN, "mail has no route any more and waits in the lane orphan");
        break;
    default:
        break;
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

void report_alerts_tick(struct core *core)
{
    struct relay_totals totals;
    relay_totals(core->relay, &totals);
    report_alert_while(core, ALERT_DEAD_LETTERS, totals.dead_letters > 0,
                       "there are dead letters: holdfast queue list --dead");
    report_alert_while(core, ALERT_IN_DOUBT, totals.in_doubt > 0,
                       "deliveries are in doubt: no reply came to the final dot");
    report_alert_while(core, ALERT_MORE, alerts_full(&core->alerts),
                       "more conditions than can be listed: the log has them all");
    if (alerts_find(&core->alerts, ALERT_ORPHAN, SLICE_EMPTY) != NULL && !has_orphans(core)) {
        report_alert_over(core, ALERT_ORPHAN);
    }
}
