/* SPDX-License-Identifier: Apache-2.0
 *
 * Metrics in the Prometheus text format: the shared counters, and gauges out of core's status.
 */
#include "service/web_internal.h"

static void put_head(struct buffer *out, const char *name, const char *help, const char *type)
{
    buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_counters(struct buffer *out, const struct counter_page *page)
{
    for (int i = 0; i < COUNTER_COUNT; i++) {
        const char *name = counter_name((enum counter)i);
        size_t length = strlen(name);
        bool total = length > 6 && strcmp(name + length - 6, "_total") == 0;
        put_head(out, name, counter_help((enum counter)i), total ? "counter" : "gauge");
        buffer_printf(out, "%s %llu\n", name,
                      (unsigned long long)counter_sum(page, (enum counter)i));
    }
}

/* Reads "a.b" out of nested objects. */
static json_t *look_up(json_t *object, const char *outer, const char *inner)
{
    return json_object_get(outer != NULL ? json_object_get(object, outer) : object, inner);
}

static long long number_of(const json_t *value)
{
    return json_is_true(value) ? 1 : (long long)json_integer_value(value);
}

static const struct gauge {
    const char *outer, *inner, *name, *help;
} gauges[] = {
    {NULL, "accepting", "holdfast_accepting", "1 while mail is accepted"},
    {NULL, "loading", "holdfast_loading", "1 while the journal is being loaded"},
    {"queue", "messages", "holdfast_queue_messages", "Messages without an ending fate"},
    {"queue", "deliveries", "holdfast_queue_deliveries", "Deliveries without an ending fate"},
    {"queue", "bytes", "holdfast_queue_bytes", "Content bytes of queued messages"},
    {"queue", "oldest_seconds", "holdfast_queue_oldest_seconds", "Age of the oldest message"},
    {"queue", "held", "holdfast_queue_held", "Deliveries on hold"},
    {"queue", "in_doubt", "holdfast_queue_in_doubt", "Deliveries in doubt"},
    {NULL, "dead_letters", "holdfast_dead_letters", "Deliveries that are dead letters"},
    {"disk", "used_bytes", "holdfast_disk_used_bytes", "Bytes taken by the journal"},
    {"disk", "available_bytes", "holdfast_disk_available_bytes", "Bytes free for it"},
    {"disk", "reserve_bytes", "holdfast_disk_reserve_bytes", "Below this nothing is accepted"},
    {"disk", "segments", "holdfast_disk_segments", "Segments of the journal"},
    {"safety_copies", "bytes", "holdfast_safety_copy_bytes", "Bytes kept of what was handed over"},
    {"safety_copies", "segments", "holdfast_safety_copy_segments",
     "Segments kept of what was handed over"},
};

static void put_gauges(struct buffer *out, json_t *object, const struct gauge *all, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        put_head(out, all[i].name, all[i].help, "gauge");
        buffer_printf(out, "%s %lld\n", all[i].name,
                      number_of(look_up(object, all[i].outer, all[i].inner)));
    }
}

/* A label's value: backslash, quote and line feed are escaped. */
static void put_label(struct buffer *out, const char *name, const json_t *value)
{
    buffer_printf(out, "%s=\"", name);
    const char *text = json_string_value(value);
    for (; text != NULL && *text != 0; text++) {
        if (*text == '\n') {
            buffer_append_text(out, "\\n");
        } else {
            if (*text == '"' || *text == '\\') {
                buffer_append_text(out, "\\");
            }
            buffer_append(out, slice_make(text, 1));
        }
    }
    buffer_append_text(out, "\"");
}

/* A series for each name: of rows that share one (a route's lanes, when mail was redirected or is
 * in doubt; an exchanger named like a server) the first stands for all, with what they hold
 * together. The caller's to free; NULL: memory. */
static json_t *by_name(const json_t *rows, const char *identity)
{
    json_t *found = json_object(), *merged = json_array();
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *name = json_string_value(json_object_get(row, identity));
        json_t *first = name != NULL ? json_object_get(found, name) : NULL;
        if (first == NULL) {
            json_t *copy = json_copy(row);
            (void)json_array_append(merged, copy);
            (void)json_object_set_new(found, name != NULL ? name : "", copy);
            continue;
        }
        json_int_t more = json_integer_value(json_object_get(row, "deliveries"));
        json_int_t age = json_integer_value(json_object_get(row, "oldest_seconds"));
        json_t *deliveries = json_object_get(first, "deliveries");
        (void)json_object_set_new(first, "deliveries",
                                  json_integer(json_integer_value(deliveries) + more));
        if (age > json_integer_value(json_object_get(first, "oldest_seconds"))) {
            (void)json_object_set_new(first, "oldest_seconds", json_integer(age));
        }
    }
    json_decref(found);
    return merged;
}

static void put_sample(struct buffer *out, const char *name, const char *label, const json_t *value,
                       long long number)
{
    buffer_printf(out, "%s{", name);
    put_label(out, label, value);
    buffer_printf(out, "} %lld\n", number);
}

static const struct series {
    const char *key, *name, *help, *type;
    long long unit; /* of a sample, in those of the status */
} of_servers[] =
    {
        {"since", "holdfast_server_state_since_seconds", "Unix time of its last change of state",
         "gauge", 1000},
        {"changes", "holdfast_server_transitions_total", "Changes of state since start", "counter",
         1},
        {"used", "holdfast_server_used_total", "Deliveries handed over since start", "counter", 1},
        {"failures", "holdfast_server_failures_since_up", "Failures since it was last up", "gauge",
         1},
        {"sessions", "holdfast_server_sessions", "Open sessions", "gauge", 1},
},
  of_lanes[] = {
      {"deliveries", "holdfast_lane_deliveries", "Deliveries in a lane", "gauge", 1},
      {"oldest_seconds", "holdfast_lane_oldest_seconds", "Age of its oldest delivery", "gauge", 1},
      {"done", "holdfast_lane_drain_done", "Handed over in the drain under way", "gauge", 1},
      {"left", "holdfast_lane_drain_left", "To be handed over by the drain under way", "gauge", 1},
      {"switches", "holdfast_lane_switches_total", "Changes of server since start, there and back",
       "counter", 1},
      {"since", "holdfast_lane_stopped_since_seconds",
       "Unix time since when none of its servers works", "gauge", 1000},
};

static const struct series of_recipients[] = {
    {"good", "holdfast_recipients_good", "Recipients of a domain that are known to exist", "gauge",
     1},
    {"bad", "holdfast_recipients_bad", "Recipients of a domain that are known not to exist",
     "gauge", 1},
    {"refused", "holdfast_recipients_unsure", "Recipients of a domain that were refused of late",
     "gauge", 1},
    {"list", "holdfast_recipients_list_since_seconds",
     "Unix time when a domain's list of recipients was taken", "gauge", 1000},
};

static const struct series of_guards = {"since", "holdfast_guard_state_since_seconds",
                                        "Unix time of its last change", "gauge", 1000};

/* A sample for each of an array's objects that has the key: name{label="..."} number. */
static void put_each(struct buffer *out, const json_t *array, const struct series *series,
                     const char *label, const char *identity)
{
    size_t i;
    const json_t *object;
    put_head(out, series->name, series->help, series->type);
    json_array_foreach(array, i, object)
    {
        const json_t *value = json_object_get(object, series->key);
        if (value != NULL && !json_is_null(value)) {
            put_sample(out, series->name, label, json_object_get(object, identity),
                       number_of(value) / series->unit);
        }
    }
}

/* The number 1, and the state as a second label. */
static void put_states(struct buffer *out, const json_t *array, const char *name, const char *help,
                       const char *label, const char *identity)
{
    size_t i;
    const json_t *object;
    put_head(out, name, help, "gauge");
    json_array_foreach(array, i, object)
    {
        buffer_printf(out, "%s{", name);
        put_label(out, label, json_object_get(object, identity));
        buffer_append_text(out, ",");
        put_label(out, "state", json_object_get(object, "state"));
        buffer_append_text(out, "} 1\n");
    }
}

static void put_alerts(struct buffer *out, const json_t *alerts)
{
    json_t *kinds = json_object();
    size_t i;
    const json_t *alert;
    json_t *count;
    const char *kind;
    put_head(out, "holdfast_alerts", "Alerts that stand now", "gauge");
    buffer_printf(out, "holdfast_alerts %zu\n", json_array_size(alerts));
    json_array_foreach(alerts, i, alert)
    {
        kind = json_string_value(json_object_get(alert, "kind"));
        json_int_t before = kind != NULL ? json_integer_value(json_object_get(kinds, kind)) : 0;
        (void)json_object_set_new(kinds, kind != NULL ? kind : "", json_integer(before + 1));
    }
    put_head(out, "holdfast_alerts_by_kind", "Alerts of a kind that stand now", "gauge");
    json_object_foreach(kinds, kind, count)
    {
        json_t *value = json_string(kind);
        put_sample(out, "holdfast_alerts_by_kind", "kind", value, json_integer_value(count));
        json_decref(value);
    }
    json_decref(kinds);
}

static const struct gauge of_cluster[] = {
    {"database", "up", "holdfast_database_up", "1 while the cluster's database answers"},
    {"database", "lag_ms", "holdfast_database_lag_milliseconds", "How late it answers"},
    {NULL, "one_copy", "holdfast_one_copy_messages", "Messages in this node's journal alone"},
    {NULL, "waiting_writes", "holdfast_waiting_writes", "Writes that the database has not done"},
    {NULL, "leader", "holdfast_leader", "1 at the member that leads"},
    {NULL, "lease_ms", "holdfast_lease_milliseconds", "What is left of this node's lease"},
};

static const struct series of_nodes[] = {
    {"lanes", "holdfast_node_lanes", "Shares of the lanes that a member owns", "gauge", 1},
    {"last_contact", "holdfast_node_last_contact_seconds", "Unix time of its last heartbeat",
     "gauge", 1000},
};

/* One with a cluster alone. Of each member what this one knows of it; the rest is in its own. */
static void put_cluster(struct buffer *out, json_t *status)
{
    json_t *cluster = json_object_get(status, "cluster"), *nodes = json_object_get(status, "nodes");
    if (!json_is_object(cluster)) {
        return;
    }
    put_gauges(out, cluster, of_cluster, sizeof(of_cluster) / sizeof(of_cluster[0]));
    put_states(out, nodes, "holdfast_node_state", "State of a member", "node", "name");
    for (size_t i = 0; i < sizeof(of_nodes) / sizeof(of_nodes[0]); i++) {
        put_each(out, nodes, &of_nodes[i], "node", "name");
    }
}

void web_metrics(struct buffer *out, const struct counter_page *page, json_t *status)
{
    put_counters(out, page);
    put_head(out, "holdfast_up", "1 if the core process answers", "gauge");
    buffer_printf(out, "holdfast_up %d\n", status != NULL);
    if (status == NULL) {
        return;
    }
    put_gauges(out, status, gauges, sizeof(gauges) / sizeof(gauges[0]));
    put_cluster(out, status);
    put_alerts(out, json_object_get(status, "alerts"));
    json_t *servers = by_name(json_object_get(status, "servers"), "name");
    put_states(out, servers, "holdfast_server_state", "State of a server", "server", "name");
    for (size_t i = 0; i < sizeof(of_servers) / sizeof(of_servers[0]); i++) {
        put_each(out, servers, &of_servers[i], "server", "name");
    }
    json_t *lanes = by_name(json_object_get(status, "lanes"), "route");
    put_states(out, lanes, "holdfast_lane_state", "State of a lane", "route", "route");
    for (size_t i = 0; i < sizeof(of_lanes) / sizeof(of_lanes[0]); i++) {
        put_each(out, lanes, &of_lanes[i], "route", "route");
    }
    json_t *recipients = by_name(json_object_get(status, "recipients"), "domain");
    for (size_t i = 0; i < sizeof(of_recipients) / sizeof(of_recipients[0]); i++) {
        put_each(out, recipients, &of_recipients[i], "domain", "domain");
    }
    json_t *guards = json_object_get(status, "guards");
    put_states(out, guards, "holdfast_guard_state", "State of a server's guard", "server",
               "server");
    put_each(out, guards, &of_guards, "server", "server");
    json_decref(recipients);
    json_decref(servers);
    json_decref(lanes);
}
