/* SPDX-License-Identifier: Apache-2.0
 *
 * The page of a hub: what `holdfast status` says, for who looks from a browser. No script, nothing
 * to press; it loads itself anew. All that comes from outside (names, reasons, replies of servers)
 * goes through put_text().
 */
#include "service/web_internal.h"

#include "base/human.h"

enum {
    LANES_SHOWN = 200, /* of a hoster's thousands those that have mail, in the order of status */
    ALERTS_SHOWN = 50,
};

static void put_text(struct buffer *out, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<':
            buffer_append_text(out, "&lt;");
            break;
        case '>':
            buffer_append_text(out, "&gt;");
            break;
        case '&':
            buffer_append_text(out, "&amp;");
            break;
        case '"':
            buffer_append_text(out, "&quot;");
            break;
        default:
            buffer_append(out, slice_make(text, 1));
        }
    }
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static int64_t number_of(const json_t *object, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* ---- cells -----------------------------------------------------------------------------------
 */

static void put_cell(struct buffer *out, const char *text)
{
    buffer_append_text(out, "<td>");
    put_text(out, text);
    buffer_append_text(out, "</td>");
}

static void put_cell_of(struct buffer *out, const json_t *object, const char *key)
{
    put_cell(out, text_of(object, key));
}

/* A number, or what `human` makes of it; nothing where it is null. */
static void put_number(struct buffer *out, const json_t *object, const char *key,
                       const char *(*human)(int64_t number, char buffer[HUMAN_TEXT]))
{
    const json_t *value = json_object_get(object, key);
    char text[HUMAN_TEXT];
    buffer_append_text(out, "<td class=\"n\">");
    if (json_is_integer(value) && human != NULL) {
        buffer_append_text(out, human(json_integer_value(value), text));
    } else if (json_is_integer(value)) {
        buffer_printf(out, "%lld", (long long)json_integer_value(value));
    }
    buffer_append_text(out, "</td>");
}

/* How long `key` (a time) is ago. */
static void put_since(struct buffer *out, const json_t *status, const json_t *object,
                      const char *key)
{
    char text[HUMAN_TEXT];
    bool known = json_is_integer(json_object_get(object, key));
    int64_t age_ms = number_of(status, "now") - number_of(object, key);
    buffer_printf(out, "<td class=\"n\">%s</td>", known ? human_age(age_ms / 1000, text) : "");
}

/* The state is its own class too: what it looks like stands in the style sheet. */
static void put_state(struct buffer *out, const json_t *object)
{
    const char *state = text_of(object, "state");
    buffer_append_text(out, "<td class=\"s ");
    put_text(out, state);
    buffer_append_text(out, "\">");
    put_text(out, state);
    buffer_append_text(out, "</td>");
}

/* Ends at one of NULL. */
static void begin_table(struct buffer *out, const char *title, const char *const *columns)
{
    buffer_printf(out, "<h2>%s</h2>\n<table><thead><tr>", title);
    for (; *columns != NULL; columns++) {
        buffer_printf(out, "<th>%s</th>", *columns);
    }
    buffer_append_text(out, "</tr></thead><tbody>\n");
}

static void end_table(struct buffer *out)
{
    buffer_append_text(out, "</tbody></table>\n");
}

/* ---- parts -----------------------------------------------------------------------------------
 */

static void put_head(struct buffer *out, struct slice hostname, const json_t *status)
{
    char name[256], age[HUMAN_TEXT];
    size_t length = hostname.length < sizeof(name) - 1 ? hostname.length : sizeof(name) - 1;
    memcpy(name, hostname.data, length);
    name[length] = '\0';
    buffer_append_text(out, "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\n"
                            "<meta name=\"viewport\" content=\"width=device-width\">\n"
                            "<meta http-equiv=\"refresh\" content=\"5\">\n"
                            "<link rel=\"stylesheet\" href=\"/style.css\">\n<title>holdfast on ");
    put_text(out, name);
    buffer_append_text(out, "</title></head>\n<body>\n<h1>holdfast on ");
    put_text(out, name);
    buffer_append_text(out, "</h1>\n");
    if (status == NULL) {
        buffer_append_text(out, "<p class=\"bad\">The core process does not answer; it is started "
                                "again when it has died. Mail waits with its senders meanwhile."
                                "</p>\n");
        return;
    }
    int64_t up_s = (number_of(status, "now") - number_of(status, "started")) / 1000;
    const json_t *cluster = json_object_get(status, "cluster");
    buffer_append_text(out, json_is_object(cluster) ? "<p>Member <b>" : "<p>");
    put_text(out, text_of(cluster, "name"));
    buffer_append_text(out, json_is_object(cluster) ? "</b>, version " : "Version ");
    put_text(out, text_of(status, "version"));
    buffer_printf(out, ", up %s.</p>\n", human_age(up_s, age));
    if (json_is_false(json_object_get(status, "accepting"))) {
        buffer_append_text(out, "<p class=\"bad\">No mail is accepted: ");
        put_text(out, text_of(status, "accepting_reason"));
        buffer_append_text(out, "</p>\n");
    }
    if (is_true(status, "loading")) {
        buffer_append_text(out, "<p class=\"warn\">What is queued is still being read; the counts "
                                "are not final.</p>\n");
    }
}

static void put_alerts(struct buffer *out, const json_t *status)
{
    const json_t *alerts = json_object_get(status, "alerts"), *alert;
    size_t index, all = json_array_size(alerts);
    char age[HUMAN_TEXT];
    if (all == 0) {
        return;
    }
    buffer_append_text(out, "<h2>Alerts</h2>\n<ul class=\"alerts\">\n");
    json_array_foreach(alerts, index, alert)
    {
        if (index == ALERTS_SHOWN) {
            buffer_printf(out, "<li>and %zu more</li>\n", all - index);
            break;
        }
        int64_t age_ms = number_of(status, "now") - number_of(alert, "since");
        buffer_append_text(out, "<li>");
        put_text(out, text_of(alert, "text"));
        buffer_printf(out, " <small>for %s</small></li>\n", human_age(age_ms / 1000, age));
    }
    buffer_append_text(out, "</ul>\n");
}

static void put_queue(struct buffer *out, const json_t *queue, int64_t dead, const char *whose)
{
    char bytes[HUMAN_TEXT], age[HUMAN_TEXT];
    int64_t messages = number_of(queue, "messages"), held = number_of(queue, "held");
    buffer_printf(out, "<p>%s ", whose);
    if (messages == 0) {
        buffer_append_text(out, "nothing waits");
    } else {
        buffer_printf(out, "<b>%lld</b> %s, %s, the oldest for %s", (long long)messages,
                      messages == 1 ? "message waits" : "messages wait",
                      human_bytes(number_of(queue, "bytes"), bytes),
                      human_age(number_of(queue, "oldest_seconds"), age));
    }
    if (held > 0) {
        buffer_printf(out, "; %lld held", (long long)held);
    }
    if (dead > 0) {
        buffer_printf(out, "; <span class=\"warn\">%lld dead %s</span>", (long long)dead,
                      dead == 1 ? "letter" : "letters");
    }
    buffer_append_text(out, ".</p>\n");
}

static void put_database(struct buffer *out, const json_t *status, const json_t *cluster)
{
    const json_t *database = json_object_get(cluster, "database");
    int64_t one_copy = number_of(cluster, "one_copy");
    char age[HUMAN_TEXT];
    if (is_true(database, "up")) {
        buffer_printf(out, "<p>The database is up; a commit takes %.1f ms",
                      json_number_value(json_object_get(database, "commit_ms")));
    } else {
        int64_t away_ms = number_of(status, "now") - number_of(database, "since");
        buffer_printf(
            out, "<p class=\"bad\">The database is away for %s: ", human_age(away_ms / 1000, age));
        put_text(out, text_of(database, "reason"));
    }
    if (one_copy > 0) {
        buffer_printf(out, "; %lld %s in this node's journal alone", (long long)one_copy,
                      one_copy == 1 ? "message is" : "messages are");
    }
    buffer_append_text(out, ".</p>\n");
}

static void put_roles(struct buffer *out, const json_t *node)
{
    const json_t *roles = json_object_get(node, "role"), *role;
    size_t index;
    buffer_append_text(out, "<td>");
    json_array_foreach(roles, index, role)
    {
        const char *name = json_string_value(role);
        buffer_append_text(out, index > 0 ? ", " : "");
        put_text(out, name != NULL ? name : "");
    }
    buffer_append_text(out, "</td>");
}

static void put_members(struct buffer *out, const json_t *status)
{
    static const char *const columns[] = {
        "Member",  "State",    "Role",      "Site",      "Version",          "Contact ago", "Lanes",
        "Waiting", "One copy", "Free disk", "Clock, ms", "Database lag, ms", NULL};
    const json_t *node;
    size_t index;
    begin_table(out, "Members", columns);
    json_array_foreach(json_object_get(status, "nodes"), index, node)
    {
        const json_t *queue = json_object_get(node, "queue");
        buffer_append_text(out, "<tr><th>");
        put_text(out, text_of(node, "name"));
        buffer_append_text(out, is_true(node, "leader") ? " <small>leads</small>" : "");
        buffer_append_text(out, is_true(node, "here") ? " <small>this one</small>" : "");
        buffer_append_text(out, "</th>");
        put_state(out, node);
        put_roles(out, node);
        put_cell_of(out, node, "site");
        put_cell_of(out, node, "version");
        put_number(out, node, "last_contact_seconds", human_age);
        put_number(out, node, "lanes", NULL);
        put_number(out, queue, "messages", NULL);
        put_number(out, queue, "one_copy", NULL);
        put_number(out, json_object_get(node, "disk"), "available_bytes", human_bytes);
        put_number(out, node, "clock_offset_ms", NULL);
        put_number(out, node, "database_lag_ms", NULL);
        buffer_append_text(out, "</tr>\n");
    }
    end_table(out);
}

static void put_cluster(struct buffer *out, const json_t *status)
{
    const json_t *cluster = json_object_get(status, "cluster");
    const json_t *missing = json_object_get(cluster, "missing_nodes"), *name;
    size_t index;
    if (!json_is_object(cluster)) {
        return;
    }
    put_queue(out, json_object_get(cluster, "queue"), number_of(cluster, "dead_letters"),
              "In the cluster");
    json_array_foreach(missing, index, name)
    {
        const char *text = json_string_value(name);
        buffer_append_text(out,
                           index == 0 ? "<p class=\"warn\">Not counted, for it is down: " : ", ");
        put_text(out, text != NULL ? text : "");
    }
    buffer_append_text(out, json_array_size(missing) > 0 ? "</p>\n" : "");
    put_database(out, status, cluster);
    put_members(out, status);
}

static void put_servers(struct buffer *out, const json_t *status)
{
    static const char *const columns[] = {"Server",    "State", "For", "Failures",
                                          "Delivered", "Why",   NULL};
    const json_t *servers = json_object_get(status, "servers"), *server;
    size_t index;
    if (json_array_size(servers) == 0) {
        return;
    }
    begin_table(out, "Servers, as this node sees them", columns);
    json_array_foreach(servers, index, server)
    {
        buffer_append_text(out, "<tr><th>");
        put_text(out, text_of(server, "name"));
        buffer_append_text(out, "</th>");
        put_state(out, server);
        put_since(out, status, server, "since");
        put_number(out, server, "failures", NULL);
        put_number(out, server, "used", NULL);
        put_cell_of(out, server, "reason");
        buffer_append_text(out, "</tr>\n");
    }
    end_table(out);
}

static void put_lanes(struct buffer *out, const json_t *status)
{
    static const char *const columns[] = {"Lane",   "State", "Waiting", "Oldest",
                                          "Server", "Why",   NULL};
    const json_t *lanes = json_object_get(status, "lanes"), *lane;
    size_t index, shown = 0, more = 0;
    begin_table(out, "Lanes of this node that hold mail", columns);
    json_array_foreach(lanes, index, lane)
    {
        if (number_of(lane, "deliveries") == 0) {
            continue;
        }
        if (shown == LANES_SHOWN) {
            more++;
            continue;
        }
        shown++;
        buffer_append_text(out, "<tr><th>");
        put_text(out, text_of(lane, "route"));
        const char *redirect = text_of(lane, "redirect_to");
        if (redirect[0] != '\0') {
            buffer_append_text(out, " to ");
            put_text(out, redirect);
        }
        buffer_append_text(out, "</th>");
        put_state(out, lane);
        put_number(out, lane, "deliveries", NULL);
        put_number(out, lane, "oldest_seconds", human_age);
        put_cell_of(out, lane, "server");
        put_cell_of(out, lane, "reason");
        buffer_append_text(out, "</tr>\n");
    }
    end_table(out);
    if (shown == 0) {
        buffer_append_text(out, "<p>None.</p>\n");
    }
    if (more > 0) {
        buffer_printf(out, "<p>And %zu more: holdfast status.</p>\n", more);
    }
}

void web_page(struct buffer *out, struct slice hostname, const json_t *status)
{
    put_head(out, hostname, status);
    if (status != NULL) {
        put_alerts(out, status);
        put_queue(out, json_object_get(status, "queue"), number_of(status, "dead_letters"), "Here");
        put_cluster(out, status);
        put_servers(out, status);
        put_lanes(out, status);
    }
    buffer_append_text(out, "<footer><a href=\"/api/status\">JSON</a> "
                            "<a href=\"/metrics\">metrics</a> <a href=\"/health\">health</a>"
                            "</footer>\n</body></html>\n");
}

const char *web_page_style(void)
{
    return ":root{color-scheme:light dark}\n"
           "body{font:16px/1.4 system-ui,sans-serif;margin:1.5rem auto;max-width:76rem;padding:0 "
           "1rem}\n"
           "h1{font-size:1.4rem}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}\n"
           "table{border-collapse:collapse;width:100%;display:block;overflow-x:auto}\n"
           "th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8884;"
           "vertical-align:top}\n"
           "thead th{font-weight:600;font-size:.85rem;opacity:.75}tbody th{font-weight:600}\n"
           ".n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\n"
           "small{font-weight:400;opacity:.75}\n"
           ".bad,.alerts li,.down,.stopped{color:#c0262d}\n"
           ".warn,.suspect,.recovering,.joining,.draining,.held{color:#96690a}\n"
           ".up{color:#197a3c}\n"
           "@media(prefers-color-scheme:dark){.bad,.alerts li,.down,.stopped{color:#ff7b80}"
           ".warn,.suspect,.recovering,.joining,.draining,.held{color:#e3b341}.up{color:#56d37f}}\n"
           "footer{margin-top:2rem}footer a{margin-right:1rem}\n";
}
