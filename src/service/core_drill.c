/* SPDX-License-Identifier: Apache-2.0
 *
 * Fire drills: the request that begins one, the messages that it sends, the report. Whether it may
 * begin, and when it ends, relay decides (relay/freeze.h); the journal in trouble, which it cannot
 * know of, is told to it here.
 *
 * Where the domain has no drill-recipient the messages are for its postmaster and marked
 * SPOOL_ENVELOPE_ONLY: all is rehearsed but the content, which never leaves.
 *
 * A struct drill lives from the request until the report. After a restart there is none, and the
 * freeze goes on without.
 */
#include "service/core_control.h"

#include "base/date.h"
#include "relay/freeze.h"
#include "service/core_cluster.h"
#include "sys/clock.h"
#include "sys/random.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    MESSAGES_MAX = 10000,
    MESSAGES_A_TICK = 1000,
    MESSAGES_DEFAULT = 20,
    MINUTES_DEFAULT = 5,
};
#define MINUTE_MS 60000.0
#define DOMAIN_PREFIX SLICE_LITERAL("domain:")

struct drill {
    struct link link;                /* core->drills */
    struct control_request *request; /* to which it is told; NULL: nobody waits */
    struct slice domain;             /* the route's name */
    struct slice recipient;          /* empty: none */
    bool envelope_only;              /* to the postmaster */
    struct arena arena;              /* of both */
    uint64_t token;
    int64_t began_ms; /* steady */
    int64_t ms;
    int64_t began_wall_ms;
    uint32_t messages, injected;
    bool drains; /* its time is over */
};

const char *drill_clock(int64_t wall_ms, char text[DRILL_CLOCK_SIZE])
{
    unsigned minute = (unsigned)(wall_ms / 60000 % 1440);
    snprintf(text, DRILL_CLOCK_SIZE, "%02u:%02u UTC", minute / 60 % 24, minute % 60);
    return text;
}

static void drill_free(struct drill *drill)
{
    if (drill->request != NULL) {
        drill->request->drill = NULL;
    }
    list_remove(&drill->link);
    arena_done(&drill->arena);
    free(drill);
}

void drill_forget_request(struct control_request *request)
{
    if (request->drill != NULL) {
        request->drill->request = NULL;
        request->drill = NULL;
    }
}

/* ---- which domain ---------------------------------------------------------------------------- */

static bool is_called(const struct route_config *route, struct slice domain)
{
    for (uint32_t i = 0; i < route->domain_count; i++) {
        if (slice_equal_fold(route->domains[i].name, domain)) {
            return true;
        }
    }
    return slice_equal_fold(route->name, domain);
}

static uint32_t find_route(const struct core *core, struct slice domain)
{
    const struct relay_config *config = &core->config->relay;
    for (uint32_t i = 0; i < config->route_count; i++) {
        if (config->routes[i].kind == ROUTE_DOMAIN && is_called(&config->routes[i], domain)) {
            return i;
        }
    }
    return NO_INDEX;
}

/* Whether a mailbox is in one of the route's domains: else its mail would not be held. */
static bool is_of(const struct route_config *route, struct slice mailbox)
{
    struct slice domain = slice_skip(mailbox, slice_find_last(mailbox, '@') + 1);
    for (uint32_t i = 0; i < route->domain_count; i++) {
        struct slice name = route->domains[i].name;
        bool below = domain.length > name.length &&
                     domain.data[domain.length - name.length - 1] == '.' &&
                     slice_equal_fold(slice_skip(domain, domain.length - name.length), name);
        if (route->domains[i].wild ? below : slice_equal_fold(domain, name)) {
            return true;
        }
    }
    return false;
}

/* The name to which a postmaster is written: that asked for, or else the first one; in one that
 * stands for those below it nobody is known. */
static struct slice name_of(const struct route_config *route, struct slice domain)
{
    struct slice found = SLICE_EMPTY;
    for (uint32_t i = 0; i < route->domain_count; i++) {
        const struct domain_pattern *pattern = &route->domains[i];
        bool asked = slice_equal_fold(pattern->name, domain);
        if (!pattern->wild && (asked || found.length == 0)) {
            found = pattern->name;
        }
        if (asked) {
            break;
        }
    }
    return found;
}

/* ---- its messages ---------------------------------------------------------------------------- */

static void write_content(struct buffer *to, const struct core *core, const struct drill *drill,
                          uint32_t number, uint64_t *ret_header_length)
{
    char date[DATE_TEXT_SIZE];
    struct slice host = core->config->hostname;
    unsigned long long token = drill->token;
    date_to_text(core_wall_ms(core), date);
    buffer_printf(to, "Date: %s\r\nFrom: Fire drill <postmaster@%.*s>\r\nTo: <%.*s>\r\n", date,
                  SLICE_PRINT(host), SLICE_PRINT(drill->recipient));
    buffer_printf(to, "Subject: Fire drill of %.*s, message %u of %u\r\n",
                  SLICE_PRINT(drill->domain), number, drill->messages);
    buffer_printf(to, "Message-ID: <drill.%016llx.%u@%.*s>\r\n", token, number, SLICE_PRINT(host));
    buffer_printf(to, "Auto-Submitted: auto-generated\r\nX-Holdfast-Drill: %016llx %u\r\n\r\n",
                  token, number);
    *ret_header_length = to->length;
    buffer_append_text(to, "This message rehearses an outage. It may be deleted.\r\n");
}

/* NULL: memory. */
static struct notice *make_message(struct core *core, const struct drill *drill, uint32_t number)
{
    struct notice *notice = notice_empty();
    if (notice == NULL) {
        return NULL;
    }
    struct spool_recipient *to = arena_allocate(&notice->arena, sizeof(*to));
    struct slice address = arena_copy(&notice->arena, drill->recipient);
    uint64_t header_length = 0;
    write_content(&notice->content, core, drill, number, &header_length);
    if (to == NULL || address.data == NULL || notice->content.failed) {
        notice_free(notice);
        return NULL;
    }
    *to = (struct spool_recipient){.address = address, .notify = SPOOL_NOTIFY_NEVER};
    notice->message = (struct spool_message){
        .id = core_make_id(core),
        .received_ms = core_wall_ms(core),
        .flags = SPOOL_DRILL | (drill->envelope_only ? SPOOL_ENVELOPE_ONLY : 0),
        .header_length = header_length,
        .body_length = notice->content.length - header_length,
        .origin = {.listener = SLICE_LITERAL("drill"), .helo = core->config->hostname},
        .recipients = to,
        .recipient_count = 1,
    };
    notice->message.odometer_s = relay_odometer(core->relay, &notice->message, core_now(core));
    return notice;
}

/* Those whose time has come: the first at once, the others evenly. */
static void inject(struct core *core, struct drill *drill)
{
    int64_t gone_ms = core_now(core).steady_ms - drill->began_ms;
    for (unsigned i = 0; i < MESSAGES_A_TICK && drill->injected < drill->messages &&
                         (int64_t)drill->injected * drill->ms <= gone_ms * drill->messages;
         i++) {
        struct notice *notice = make_message(core, drill, drill->injected + 1);
        if (notice == NULL) {
            return; /* in a second */
        }
        core_act_store(core, notice);
        drill->injected++;
    }
}

/* ---- while it runs --------------------------------------------------------------------------- */

static void tell(struct drill *drill, uint64_t done, uint64_t all)
{
    struct control_request *request = drill->request;
    if (request == NULL || request->control == NULL || request->rows.length > CONTROL_OUT_HIGH) {
        return;
    }
    if (control_put_progress(&request->rows, done, all) != ERROR_NONE) {
        request->control->broken = true;
    }
    control_ask(request);
}

static void run(struct core *core, struct drill *drill)
{
    struct relay_lane_view lane = {.frozen_until_ms = 0};
    uint32_t route = find_route(core, drill->domain);
    if (route != NO_INDEX) {
        relay_lane(core->relay, route, &lane);
    }
    if (lane.frozen_until_ms != 0) {
        if (drill->recipient.length > 0 && !core->stopping) {
            inject(core, drill);
        }
        int64_t gone_ms = core_now(core).steady_ms - drill->began_ms;
        tell(drill, (uint64_t)(gone_ms < drill->ms ? gone_ms : drill->ms) / 1000,
             (uint64_t)(drill->ms + 999) / 1000);
        return;
    }
    if (!drill->drains) {
        drill->drains = true;
        tell(drill, 0, 0);
    }
    tell(drill, lane.done, lane.done + lane.left);
}

static bool is_in_trouble(struct core *core)
{
    return core->told_spool.accepting != ERROR_NONE ||
           alerts_find(&core->alerts, ALERT_JOURNAL, SLICE_EMPTY) != NULL;
}

/* What is held must not be what keeps new mail out. */
static void end_in_trouble(struct core *core)
{
    bool all = is_in_trouble(core);
    for (uint32_t i = 0; i < core->config->relay.route_count; i++) {
        if ((all || core->routes[i].quota_reached) &&
            relay_thaw(core->relay, i, RELAY_THAW_STORAGE, core_now(core)) > 0) {
            core_act(core, SPOOL_LAZY, CORE_NOTHING_AFTER);
        }
    }
}

void core_drill_tick(struct core *core)
{
    end_in_trouble(core);
    LIST_EACH(&core->drills, at, after)
    {
        run(core, LIST_ENTRY(at, struct drill, link));
    }
}

/* ---- the report ------------------------------------------------------------------------------ */

static json_t *number_or_null(int64_t number)
{
    return number < 0 ? json_null() : json_integer(number);
}

static json_t *report_row(const struct drill *drill, const struct relay_rehearsal *seen)
{
    json_t *row = json_object();
    uint64_t gone = seen->delivered + seen->asked;
    bool timed = seen->drained_ms > 0 && gone > 0;
    control_set(row, "domain", control_string(drill->domain));
    control_set(row, "started", json_integer(drill->began_wall_ms));
    control_set(row, "minutes", json_real((double)drill->ms / MINUTE_MS));
    control_set(row, "held", json_integer((json_int_t)seen->held));
    control_set(row, "injected", json_integer(drill->injected));
    control_set(row, "recipient", control_string_or_null(drill->recipient));
    control_set(row, "envelope_only", json_boolean(drill->envelope_only));
    control_set(row, "delivered", json_integer((json_int_t)seen->delivered));
    control_set(row, "asked", json_integer((json_int_t)seen->asked));
    control_set(row, "refused", json_integer((json_int_t)seen->refused));
    control_set(row, "drained_ms", number_or_null(seen->drained_ms));
    control_set(row, "first_ms", number_or_null(seen->first_ms));
    control_set(row, "rate",
                timed ? json_real((double)gone * 1000 / (double)seen->drained_ms) : json_null());
    control_set(row, "out_of_order", json_integer((json_int_t)seen->out_of_order));
    control_set(row, "doubled", json_integer((json_int_t)seen->doubled));
    control_set(row, "ended", json_string(relay_thaw_text(seen->ended)));
    return row;
}

void core_drill_over(struct core *core, const struct relay_action *action)
{
    struct relay_rehearsal seen;
    struct slice domain = slice_skip(action->lane, DOMAIN_PREFIX.length);
    memcpy(&seen, action->rehearsal.data, sizeof(seen));
    LIST_EACH(&core->drills, at, after)
    {
        struct drill *drill = LIST_ENTRY(at, struct drill, link);
        if (!slice_equal(drill->domain, domain)) {
            continue;
        }
        struct control_request *request = drill->request;
        if (request != NULL) {
            bool good = seen.ended == RELAY_THAW_TIME || seen.ended == RELAY_THAW_STOP;
            request->code = good ? CONTROL_DONE : CONTROL_FAILED;
            control_row(request, report_row(drill, &seen));
            control_ask(request);
        }
        drill_free(drill);
    }
}

/* ---- requests -------------------------------------------------------------------------------- */

static const char *bar_text(enum relay_freeze_bar bar)
{
    switch (bar) {
    case RELAY_FREEZE_STANDS:
        return "another drill runs there";
    case RELAY_FREEZE_STOPPED:
        return "no drill: all servers of the domain are down";
    case RELAY_FREEZE_NO_SERVER:
        return "no drill: the domain's first server is not up";
    case RELAY_FREEZE_DRAINING:
        return "no drill: the domain's mail still drains after an outage";
    case RELAY_FREEZE_OLD_MAIL:
        return "no drill: mail of the domain waits for more than a minute already";
    default:
        return error_text(ERROR_MEMORY);
    }
}

/* False: it is said what is wrong. */
static bool read_arguments(struct control_request *request, double *ret_minutes,
                           json_int_t *ret_messages)
{
    const json_t *minutes = json_object_get(request->arguments, "minutes");
    const json_t *messages = json_object_get(request->arguments, "messages");
    *ret_minutes = minutes != NULL ? json_number_value(minutes) : MINUTES_DEFAULT;
    *ret_messages = messages != NULL ? json_integer_value(messages) : MESSAGES_DEFAULT;
    if (!(*ret_minutes * MINUTE_MS >= 1 && *ret_minutes * MINUTE_MS <= RELAY_FREEZE_MAX_MS)) {
        (void)control_fail(request, CONTROL_USAGE,
                           "a drill takes more than 0 minutes, at most 240");
        return false;
    }
    if ((messages != NULL && !json_is_integer(messages)) || *ret_messages < 0 ||
        *ret_messages > MESSAGES_MAX) {
        (void)control_fail(request, CONTROL_USAGE, "a drill sends at most 10000 messages");
        return false;
    }
    return true;
}

/* False: memory. */
static bool choose_recipient(struct drill *drill, const struct route_config *route,
                             struct slice domain)
{
    struct slice name = name_of(route, domain);
    if (route->drill_recipient.length > 0) {
        drill->recipient = arena_copy(&drill->arena, route->drill_recipient);
        return drill->recipient.data != NULL;
    }
    drill->envelope_only = name.length > 0;
    if (!drill->envelope_only) {
        return true;
    }
    struct buffer address;
    buffer_init(&address, 0);
    buffer_printf(&address, "postmaster@%.*s", SLICE_PRINT(name));
    bool good = !address.failed;
    drill->recipient = arena_copy(&drill->arena, buffer_slice(&address));
    buffer_done(&address);
    return good && drill->recipient.data != NULL;
}

/* NULL: memory. */
static struct drill *drill_new(struct core *core, const struct route_config *route,
                               struct slice domain, int64_t ms, uint32_t messages)
{
    struct drill *drill = calloc(1, sizeof(*drill));
    if (drill == NULL) {
        return NULL;
    }
    list_init(&drill->link);
    arena_init(&drill->arena);
    drill->domain = arena_copy(&drill->arena, route->name);
    drill->token = random_u64();
    drill->began_ms = core_now(core).steady_ms;
    drill->began_wall_ms = core_now(core).wall_ms;
    drill->ms = ms;
    drill->messages = messages;
    if (drill->domain.data == NULL || !choose_recipient(drill, route, domain)) {
        drill_free(drill);
        return NULL;
    }
    list_append(&core->drills, &drill->link);
    return drill;
}

/* What is frozen is this node's hand-over. */
static bool is_elsewhere(struct control_request *request, struct slice domain)
{
    const struct core *core = request->core;
    struct slice owner =
        core->cluster != NULL ? core_cluster_owner(core->cluster, domain) : SLICE_EMPTY;
    if (owner.length == 0) {
        return false;
    }
    struct buffer text;
    buffer_init(&text, 0);
    buffer_printf(&text, "its mail is handed over by node %.*s: ask that one (--node %.*s)",
                  SLICE_PRINT(owner), SLICE_PRINT(owner));
    buffer_put_u8(&text, 0);
    struct slice kept = arena_copy(&request->arena, buffer_slice(&text));
    buffer_done(&text);
    (void)control_fail(request, CONTROL_NOTHING_MATCHED,
                       kept.data != NULL ? (const char *)kept.data : error_text(ERROR_MEMORY));
    return true;
}

enum control_step drill_begin(struct control_request *request)
{
    struct core *core = request->core;
    double minutes;
    json_int_t messages;
    if (!read_arguments(request, &minutes, &messages)) {
        return STEP_END;
    }
    struct slice domain = control_argument(request, "domain");
    uint32_t route = find_route(core, domain);
    if (route == NO_INDEX) {
        return control_fail(request, CONTROL_NOTHING_MATCHED, "no such domain");
    }
    const struct route_config *config = &core->config->relay.routes[route];
    if (config->drill_recipient.length > 0 && !is_of(config, config->drill_recipient)) {
        return control_fail(request, CONTROL_FAILED,
                            "no drill: drill-recipient is not in that domain");
    }
    if (is_elsewhere(request, domain)) {
        return STEP_END;
    }
    if (is_in_trouble(core) || core->routes[route].quota_reached) {
        return control_fail(request, CONTROL_FAILED, "no drill: no mail can be stored");
    }
    int64_t ms = (int64_t)(minutes * MINUTE_MS);
    struct drill *drill = drill_new(core, config, domain, ms, (uint32_t)messages);
    if (drill == NULL) {
        return control_fail(request, CONTROL_FAILED, error_text(ERROR_MEMORY));
    }
    enum relay_freeze_bar bar = relay_freeze(core->relay, route, ms, core_now(core));
    if (bar != RELAY_FREEZE_DONE) {
        drill_free(drill);
        return bar == RELAY_FREEZE_LOADING ? control_not_yet(request)
                                           : control_fail(request, CONTROL_FAILED, bar_text(bar));
    }
    request->drill = drill;
    drill->request = request;
    core_act(core, SPOOL_SYNCED, control_after(request));
    run(core, drill);
    return STEP_MORE;
}

enum control_step drill_step(struct control_request *request)
{
    return request->drill != NULL ? STEP_WAIT : STEP_END;
}

enum control_step drill_stop_begin(struct control_request *request)
{
    struct core *core = request->core;
    struct slice domain = control_argument(request, "domain");
    uint32_t only = domain.length > 0 ? find_route(core, domain) : NO_INDEX;
    bool any = false;
    if (domain.length > 0 && only == NO_INDEX) {
        return control_fail(request, CONTROL_NOTHING_MATCHED, "no such domain");
    }
    for (uint32_t i = 0; i < core->config->relay.route_count; i++) {
        if ((only == NO_INDEX || only == i) &&
            relay_thaw(core->relay, i, RELAY_THAW_STOP, core_now(core)) > 0) {
            json_t *row = json_object();
            control_set(row, "domain", control_string(core->config->relay.routes[i].name));
            control_row(request, row);
            core_act(core, SPOOL_SYNCED, control_after(request));
            any = true;
        }
    }
    return any ? STEP_MORE : control_fail(request, CONTROL_NOTHING_MATCHED, "no drill runs");
}

enum control_step drill_stop_step(struct control_request *request)
{
    (void)request;
    return STEP_END;
}

/* ---- life cycle ------------------------------------------------------------------------------ */

void core_drill_init(struct core *core)
{
    list_init(&core->drills);
}

void core_drill_done(struct core *core)
{
    LIST_EACH(&core->drills, at, after)
    {
        drill_free(LIST_ENTRY(at, struct drill, link));
    }
}
