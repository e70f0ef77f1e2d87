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
};

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

/* One sample for each of an array's objects: name{label="..."} number, or with a `state` the
 * number 1 and the state as a second label. */
static void put_each(struct buffer *out, const json_t *array, const char *name, const char *help,
                     const char *label, const char *identity, const char *key, bool is_state)
{
    size_t i;
    const json_t *object;
    put_head(out, name, help, "gauge");
    json_array_foreach(array, i, object)
    {
        buffer_printf(out, "%s{", name);
        put_label(out, label, json_object_get(object, identity));
        if (is_state) {
            buffer_append_text(out, ",");
            put_label(out, "state", json_object_get(object, key));
        }
        buffer_printf(out, "} %lld\n", is_state ? 1 : number_of(json_object_get(object, key)));
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
    for (size_t i = 0; i < sizeof(gauges) / sizeof(gauges[0]); i++) {
        put_head(out, gauges[i].name, gauges[i].help, "gauge");
        buffer_printf(out, "%s %lld\n", gauges[i].name,
                      number_of(look_up(status, gauges[i].outer, gauges[i].inner)));
    }
    put_head(out, "holdfast_alerts", "Alerts that stand now", "gauge");
    buffer_printf(out, "holdfast_alerts %zu\n", json_array_size(json_object_get(status, "alerts")));
    json_t *servers = by_name(json_object_get(status, "servers"), "name");
    put_each(out, servers, "holdfast_server_state", "State of a server", "server", "name", "state",
             true);
    put_each(out, servers, "holdfast_server_transitions", "Changes of state since start", "server",
             "name", "changes", false);
    put_each(out, servers, "holdfast_server_used", "Deliveries handed over since start", "server",
             "name", "used", false);
    put_each(out, servers, "holdfast_server_failures_since_up", "Failures since it was last up",
             "server", "name", "failures", false);
    put_each(out, servers, "holdfast_server_sessions", "Open sessions", "server", "name",
             "sessions", false);
    json_t *lanes = by_name(json_object_get(status, "lanes"), "route");
    put_each(out, lanes, "holdfast_lane_state", "State of a lane", "route", "route", "state", true);
    put_each(out, lanes, "holdfast_lane_deliveries", "Deliveries in a lane", "route", "route",
             "deliveries", false);
    put_each(out, lanes, "holdfast_lane_oldest_seconds", "Age of its oldest delivery", "route",
             "route", "oldest_seconds", false);
    json_decref(servers);
    json_decref(lanes);
}
