/* SPDX-License-Identifier: Apache-2.0
 *
 * `status` and the server commands.
 */
#include "service/core_control.h"

#include "sys/clock.h"

#include <stdio.h>

#ifndef HOLDFAST_VERSION
#define HOLDFAST_VERSION "0"
#endif

enum { SERVERS_TOLD = 4 }; /* of a chain, in a lane's reason */

static const char *lane_state(enum lane_state state)
{
    static const char *const texts[] = {"idle", "flowing", "draining", "stopped", "held", "orphan"};
    return texts[state];
}

/* What `status` and `server list` both say. */
static json_t *server_row(const struct core *core, uint32_t index)
{
    static const char *const protocols[] = {
        [SERVER_SMTP] = "smtp", [SERVER_LMTP] = "lmtp", [SERVER_ODMR] = "odmr"};
    struct relay_server_view view;
    relay_server(core->relay, index, &view);
    json_t *row = json_object();
    control_set(row, "name", control_string(core_server_name(core, index)));
    control_set(row, "protocol",
                json_string(protocols[relay_server_config(core->relay, index)->protocol]));
    control_set(row, "state", json_string(server_state_text(view.state)));
    control_set(row, "since", control_time(view.since_wall_ms));
    control_set(row, "changes", json_integer((json_int_t)view.changes));
    control_set(row, "before",
                view.changes == 0 ? json_null() : json_string(server_state_text(view.before)));
    control_set(row, "before_seconds", json_integer(view.before_ms / 1000));
    control_set(row, "failures", json_integer(view.failures));
    control_set(row, "used", json_integer((json_int_t)view.used));
    control_set(row, "sessions", json_integer(view.sessions));
    control_set(row, "reason",
                view.state == SERVER_UP ? json_null() : control_string_or_null(view.reason));
    return row;
}

/* ---- status ---------------------------------------------------------------------------------- */

static int64_t age_of(const struct core *core, int64_t wall_ms)
{
    int64_t age = wall_ms == 0 ? 0 : (core_now(core).wall_ms - wall_ms) / 1000;
    return age > 0 ? age : 0;
}

/* The first server from an index on, the exchangers of MX routing behind the configured ones; or
 * NO_INDEX. */
static uint32_t server_from(const struct core *core, uint32_t index)
{
    return index < core->config->relay.server_count ? index
                                                    : relay_next_exchanger(core->relay, index);
}

static json_t *servers_piece(struct control_request *request)
{
    json_t *servers = json_array();
    size_t bytes = 0;
    for (uint32_t server; bytes < CONTROL_PIECE_BYTES &&
                          (server = server_from(request->core, request->server_at)) != NO_INDEX;
         request->server_at = server + 1) {
        control_piece_add(servers, &bytes, server_row(request->core, server));
    }
    return servers;
}

/* When the last of its servers went. 0: the lane is not stopped. */
static int64_t stopped_since(const struct core *core, const struct relay_lane_view *lane)
{
    int64_t since = 0;
    for (uint32_t i = 0; lane->state == LANE_STOPPED && i < lane->chain_length; i++) {
        struct relay_server_view server;
        relay_server(core->relay, lane->chain[i], &server);
        since = server.since_wall_ms > since ? server.since_wall_ms : since;
    }
    return since;
}

/* It goes, but no faster than its server's warm-up lets it; else null. */
static json_t *warm_up_reason(const struct core *core, const struct relay_lane_view *lane)
{
    char text[128];
    uint32_t most = relay_server_config(core->relay, lane->server)->warm_up;
    if (most == 0 || lane->chain_length < 2 || lane->chain[0] == lane->server) {
        return json_null();
    }
    struct slice name = core_server_name(core, lane->server);
    snprintf(text, sizeof(text), "%.*s stands in, for %u messages an hour", SLICE_PRINT(name),
             most);
    return control_string(slice_from_text(text));
}

/* R2: the server that may have it gets it again, and for a while no other. */
static json_t *doubt_reason(const struct core *core, const struct relay_lane_view *lane)
{
    char clock[DRILL_CLOCK_SIZE];
    struct slice name = core_server_name(core, lane->doubt);
    return lane->doubt_until_wall_ms == 0
               ? json_sprintf("in doubt: goes back to %.*s, which may have it", SLICE_PRINT(name))
               : json_sprintf("in doubt: %.*s may have it; others get it from %s on",
                              SLICE_PRINT(name), drill_clock(lane->doubt_until_wall_ms, clock));
}

/* Why nothing goes: "m1 down: connection refused; m2 disabled". Null where something does, or
 * nothing waits. */
static json_t *lane_reason(const struct core *core, const struct relay_lane_view *lane)
{
    if (lane->frozen_until_ms != 0) {
        char clock[DRILL_CLOCK_SIZE];
        return json_sprintf("drill until %s", drill_clock(lane->frozen_until_ms, clock));
    }
    if (lane->state == LANE_ORPHAN) {
        return json_string("no route in the configuration");
    }
    if (lane->doubt != NO_INDEX) {
        return doubt_reason(core, lane);
    }
    bool rests = lane->deliveries > 0 && lane->moving == 0;
    if (rests && (lane->state == LANE_HELD || lane->state == LANE_FLOWING)) {
        return json_string(lane->state == LANE_HELD
                               ? "all of it is held; queue list says why"
                               : "all of it is deferred or held; queue list says why");
    }
    if (lane->server != NO_INDEX && lane->state != LANE_IDLE) {
        return warm_up_reason(core, lane);
    }
    bool awaits_call = lane->state == LANE_IDLE && lane->deliveries > 0;
    if (lane->state == LANE_IDLE && !awaits_call) {
        return json_null();
    }
    struct buffer text;
    buffer_init(&text, 0);
    uint32_t told = lane->chain_length < SERVERS_TOLD ? lane->chain_length : SERVERS_TOLD;
    buffer_append(&text, lane->trouble);
    for (uint32_t i = 0; i < told; i++) {
        struct relay_server_view server;
        relay_server(core->relay, lane->chain[i], &server);
        struct slice name = core_server_name(core, lane->chain[i]);
        buffer_printf(&text, "%s%.*s %s", text.length > 0 ? "; " : "", SLICE_PRINT(name),
                      server_state_text(server.state));
        if (server.reason.length > 0 && server.state != SERVER_UP &&
            server.state != SERVER_DISABLED) {
            buffer_printf(&text, ": %.*s", SLICE_PRINT(server.reason));
        }
    }
    if (told < lane->chain_length) {
        buffer_printf(&text, "; and %u more", lane->chain_length - told);
    }
    json_t *reason = text.failed ? NULL : control_string_or_null(buffer_slice(&text));
    buffer_done(&text);
    return reason;
}

/* How far a drain is: deliveries a second since it began, and how long that makes the rest. */
static void set_progress(const struct core *core, json_t *row, const struct relay_lane_view *lane)
{
    int64_t ms = core_now(core).steady_ms - lane->drain_since_ms;
    bool drains = lane->state == LANE_DRAINING;
    bool known = drains && lane->done > 0 && ms > 0;
    double rate = known ? (double)lane->done * 1000 / (double)ms : 0;
    control_set(row, "done", json_integer((json_int_t)lane->done));
    control_set(row, "left", drains ? json_integer((json_int_t)lane->left) : json_null());
    control_set(row, "rate", known ? json_real(rate) : json_null());
    control_set(row, "left_seconds",
                known ? json_integer((json_int_t)((double)lane->left / rate)) : json_null());
}

static json_t *lanes_piece(struct control_request *request)
{
    struct core *core = request->core;
    json_t *lanes = json_array();
    uint32_t count = relay_lane_count(core->relay);
    size_t bytes = 0;
    while (bytes < CONTROL_PIECE_BYTES && request->match_at < count) {
        struct relay_lane_view view;
        relay_lane(core->relay, request->match_at++, &view);
        if (view.deliveries == 0 &&
            (view.state == LANE_ORPHAN || slice_starts_fold(view.route, SLICE_LITERAL("mx:")))) {
            continue;
        }
        json_t *lane = json_object();
        control_set(lane, "route", control_string(view.route));
        control_set(lane, "redirect_to", control_string_or_null(view.redirect));
        control_set(lane, "doubt", control_server_or_null(core, view.doubt));
        control_set(lane, "state", json_string(lane_state(view.state)));
        control_set(lane, "deliveries", json_integer((json_int_t)view.deliveries));
        control_set(lane, "server", control_server_or_null(core, view.server));
        set_progress(core, lane, &view);
        control_set(lane, "switches", json_integer((json_int_t)view.switches));
        control_set(lane, "oldest_seconds",
                    view.oldest_wall_ms != 0 ? json_integer(age_of(core, view.oldest_wall_ms))
                                             : json_null());
        control_set(lane, "since", control_time(stopped_since(core, &view)));
        control_set(lane, "reason", lane_reason(core, &view));
        control_piece_add(lanes, &bytes, lane);
    }
    return lanes;
}

static json_t *queue_object(const struct core *core, const struct relay_totals *totals)
{
    json_t *queue = json_object();
    control_set(queue, "messages", json_integer((json_int_t)totals->messages));
    control_set(queue, "deliveries", json_integer((json_int_t)totals->deliveries));
    control_set(queue, "bytes", json_integer((json_int_t)totals->bytes));
    control_set(queue, "oldest_seconds", json_integer(age_of(core, totals->oldest_wall_ms)));
    control_set(queue, "held", json_integer((json_int_t)totals->held));
    control_set(queue, "in_doubt", json_integer((json_int_t)totals->in_doubt));
    return queue;
}

static json_t *disk_object(const struct spool_state *state)
{
    json_t *disk = json_object();
    control_set(disk, "used_bytes", json_integer((json_int_t)state->disk_bytes));
    control_set(disk, "available_bytes", json_integer((json_int_t)state->available_bytes));
    control_set(disk, "reserve_bytes", json_integer((json_int_t)state->reserve_bytes));
    control_set(disk, "segments", json_integer(state->segments));
    control_set(disk, "quarantined", json_integer((json_int_t)state->quarantined));
    return disk;
}

static json_t *copies_object(const struct core *core, const struct spool_state *state)
{
    json_t *copies = json_object();
    control_set(copies, "keep_seconds",
                json_integer((json_int_t)(core->config->safety_copy_ms / 1000)));
    control_set(copies, "bytes", json_integer((json_int_t)state->copy_bytes));
    control_set(copies, "segments", json_integer(state->copy_segments));
    control_set(copies, "oldest", control_time(state->copies_since_ms));
    control_set(copies, "gone_until", control_time(state->copies_gone_ms));
    return copies;
}

json_t *control_alert(const struct alert *alert)
{
    json_t *row = json_object();
    control_set(row, "kind", json_string(alert_kind_text(alert->kind)));
    control_set(row, "subject", control_string_or_null(alert->subject));
    control_set(row, "since", json_integer(alert->since_wall_ms));
    control_set(row, "text", control_string(slice_from_text(alert->text)));
    return row;
}

/* The next of them, counted from the first that stands now: one may begin or end between two
 * pieces. */
static json_t *alerts_piece(struct control_request *request)
{
    const struct alerts *alerts = &request->core->alerts;
    json_t *array = json_array();
    uint32_t at = 0;
    size_t bytes = 0;
    LIST_EACH(&alerts->standing, link, after)
    {
        if (at++ == request->alert_at && bytes < CONTROL_PIECE_BYTES) {
            request->alert_at++;
            control_piece_add(array, &bytes, control_alert(LIST_ENTRY(link, struct alert, link)));
        }
    }
    return array;
}

/* Of the cluster; null: there is none. */
static json_t *settings_object(const struct service_config *config)
{
    if (config->cluster.database.length == 0) {
        return json_null();
    }
    return json_pack("{sI ss}", "version", (json_int_t)config->settings_version, "state",
                     config->joining ? "joining" : "known");
}

static json_t *status_row(struct control_request *request)
{
    struct core *core = request->core;
    struct spool_state state;
    struct relay_totals totals;
    spool_status(core->spool, &state);
    relay_totals(core->relay, &totals);
    json_t *row = json_object();
    control_set(row, "version", json_string(HOLDFAST_VERSION));
    control_set(row, "hostname", control_string(core->config->hostname));
    control_set(row, "started", json_integer(core->started_wall_ms));
    control_set(row, "accepted",
                json_pack("{sI sI}", "messages", (json_int_t)core->accepted_messages, "bytes",
                          (json_int_t)core->accepted_bytes));
    control_set(row, "now", json_integer(core_now(core).wall_ms));
    control_set(row, "loading", json_boolean(!core->loaded));
    control_set(row, "accepting", json_boolean(state.accepting == ERROR_NONE));
    const char *why = state.reason[0] != 0 ? state.reason : error_text(state.accepting);
    control_set(row, "accepting_reason",
                state.accepting == ERROR_NONE ? json_null() : control_string(slice_from_text(why)));
    control_set(row, "settings", settings_object(core->config));
    control_set(row, "queue", queue_object(core, &totals));
    control_set(row, "dead_letters", json_integer((json_int_t)totals.dead_letters));
    control_set(row, "servers", servers_piece(request));
    control_set(row, "lanes", lanes_piece(request));
    control_set(row, "recipients", control_recipients_summary(core));
    control_set(row, "disk", disk_object(&state));
    control_set(row, "safety_copies", copies_object(core, &state));
    control_set(row, "guards", control_guards(core));
    control_set(row, "standby", core_lease_status(core));
    control_set(row, "cluster", control_cluster(core));
    control_set(row, "nodes", control_nodes(core));
    control_set(row, "alerts", alerts_piece(request));
    return row;
}

static void put_more(struct control_request *request, const char *key, json_t *piece)
{
    json_t *more = json_object();
    control_set(more, key, piece);
    control_more(request, more);
}

enum control_step status_step(struct control_request *request)
{
    const struct core *core = request->core;
    if (request->cursor == 0) {
        request->cursor = 1;
        relay_look_for_oldest(core->relay);
        control_row(request, status_row(request));
    } else if (server_from(core, request->server_at) != NO_INDEX) {
        put_more(request, "servers", servers_piece(request));
    } else if (request->match_at < relay_lane_count(core->relay)) {
        put_more(request, "lanes", lanes_piece(request));
    } else if (request->alert_at < core->alerts.count) {
        put_more(request, "alerts", alerts_piece(request));
    } else {
        return STEP_END;
    }
    return STEP_MORE;
}

/* ---- servers --------------------------------------------------------------------------------- */

json_t *control_server_address(const struct server_address *address)
{
    char text[IP_TEXT_SIZE + 16];
    if (!address->is_literal) {
        return json_sprintf("%.*s:%u", SLICE_PRINT(address->host), address->port);
    }
    char ip[IP_TEXT_SIZE];
    ip_to_text(&address->literal, ip);
    snprintf(text, sizeof(text), ip_is_v4(&address->literal) ? "%s:%u" : "[%s]:%u", ip,
             address->port);
    return json_string(text);
}

static json_t *capabilities(const struct relay_server_view *view)
{
    static const char *const names[] = {"8BITMIME", "SMTPUTF8",  "DSN",         "PIPELINING",
                                        "CHUNKING", "DELIVERBY", "MT-PRIORITY", "REQUIRETLS"};
    if (!view->capabilities_known) {
        return json_null();
    }
    json_t *array = json_array();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (view->capabilities.flags & (1U << i)) {
            json_array_append_new(array, json_string(names[i]));
        }
    }
    return array;
}

/* Exchangers come behind the configured ones. */
static uint32_t waiting_place(const struct control_request *request, uint32_t server)
{
    return server < RELAY_EXCHANGERS
               ? server
               : request->core->config->relay.server_count + (server - RELAY_EXCHANGERS);
}

/* Deliveries waiting in the lanes that each server heads: one look at all lanes for all servers. */
static void count_waiting(struct control_request *request)
{
    struct core *core = request->core;
    uint32_t places = core->config->relay.server_count + RELAY_EXCHANGERS_MAX;
    uint32_t lanes = relay_lane_count(core->relay);
    request->waiting_for = arena_allocate(&request->arena, places * sizeof(uint64_t));
    request->waiting_for_count = request->waiting_for == NULL ? 0 : places;
    for (uint32_t i = 0; request->waiting_for != NULL && i < lanes; i++) {
        struct relay_lane_view lane;
        relay_lane(core->relay, i, &lane);
        bool of_route = i < core->config->relay.route_count;
        if (lane.chain_length > 0 && (of_route || lane.chain[0] >= RELAY_EXCHANGERS)) {
            request->waiting_for[waiting_place(request, lane.chain[0])] += lane.deliveries;
        }
    }
}

static uint64_t deliveries_for(const struct control_request *request, uint32_t server)
{
    uint32_t place = waiting_place(request, server);
    return place < request->waiting_for_count ? request->waiting_for[place] : 0;
}

static json_t *long_server_row(const struct control_request *request, uint32_t index)
{
    const struct core *core = request->core;
    const struct server_config *config = relay_server_config(core->relay, index);
    struct relay_server_view view;
    json_t *row = server_row(core, index);
    relay_server(core->relay, index, &view);
    json_t *addresses = json_array();
    for (uint32_t i = 0; i < config->address_count; i++) {
        json_array_append_new(addresses, control_server_address(&config->addresses[i]));
    }
    control_set(row, "addresses", addresses);
    control_set(row, "tls", json_string(server_tls_text(config->tls)));
    control_set(row, "tls_waived", json_boolean(config->waived));
    control_set(row, "signed_by", control_string_or_null(config->signed_by));
    control_set(row, "connections", json_integer(config->connections));
    control_set(row, "failover", control_server_or_null(core, config->failover));
    control_set(row, "capabilities", capabilities(&view));
    control_set(row, "size_limit",
                view.capabilities_known && view.capabilities.size_limit != 0
                    ? json_integer((json_int_t)view.capabilities.size_limit)
                    : json_null());
    control_set(row, "deliveries", json_integer((json_int_t)deliveries_for(request, index)));
    return row;
}

/* A relay's exchangers are nobody's to look after, unless he names one. */
static bool is_for_all(const struct core *core, uint32_t server)
{
    struct relay_server_view view;
    relay_server(core->relay, server, &view);
    return !view.on_demand;
}

static bool is_named(const struct control_request *request, uint32_t server)
{
    struct slice name = control_argument(request, "name");
    return name.length == 0 || slice_equal(name, core_server_name(request->core, server));
}

enum control_step server_begin(struct control_request *request)
{
    struct slice name = control_argument(request, "name");
    return name.length == 0 || core_has_server(request->core, name)
               ? STEP_MORE
               : control_fail(request, CONTROL_NOTHING_MATCHED, "no such server");
}

enum control_step server_list_step(struct control_request *request)
{
    struct core *core = request->core;
    if (request->waiting_for == NULL) {
        count_waiting(request);
    }
    uint32_t server;
    while ((server = server_from(core, request->server_at)) != NO_INDEX &&
           request->rows.length < CONTROL_OUT_HIGH) {
        if (is_named(request, server)) {
            control_row(request, long_server_row(request, server));
        }
        request->server_at = server + 1;
    }
    return server != NO_INDEX ? STEP_MORE : STEP_END;
}

typedef enum error server_fn(struct relay *relay, uint32_t server, struct relay_time now);

static enum control_step each_server(struct control_request *request, server_fn *fn)
{
    struct core *core = request->core;
    if (server_begin(request) == STEP_END) {
        return STEP_END;
    }
    bool named = control_argument(request, "name").length > 0;
    for (uint32_t i = server_from(core, 0); i != NO_INDEX; i = server_from(core, i + 1)) {
        if (is_named(request, i) && (named || is_for_all(core, i))) {
            /* Being in that state already is what was asked for. */
            enum error error = fn(core->relay, i, core_now(core));
            if (error == ERROR_MISSING) {
                return control_fail(request, CONTROL_NOTHING_MATCHED,
                                    "DNS named this server for a relay; it is in no configuration");
            }
            if (error == ERROR_DENIED && named) {
                return control_fail(request, CONTROL_NOTHING_MATCHED,
                                    "its client calls us (odmr): it cannot be probed");
            }
            if (error == ERROR_MEMORY) {
                return control_fail(request, CONTROL_NOTHING_MATCHED, error_text(error));
            }
            core_act(core, SPOOL_SYNCED, control_after(request));
        }
    }
    return STEP_MORE;
}

static enum control_step each_server_named(struct control_request *request, server_fn *fn)
{
    if (control_argument(request, "name").length == 0 && !control_flag(request, "all")) {
        return control_fail(request, CONTROL_USAGE, "say which server, or all");
    }
    /* What hands have said before may still come, and a node learns its cluster's time with it. */
    return request->core->dispatching ? each_server(request, fn) : control_not_yet(request);
}

enum control_step server_down_begin(struct control_request *request)
{
    return each_server_named(request, relay_server_disable);
}

enum control_step server_up_begin(struct control_request *request)
{
    return each_server_named(request, relay_server_enable);
}

enum control_step server_probe_begin(struct control_request *request)
{
    return each_server(request, relay_server_probe);
}
