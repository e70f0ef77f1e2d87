/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast status`: what an operator must see first. What is wrong stands at the top, then what
 * waits and since when, then which server it waits for and why.
 */
#include "app/tool.h"

enum { LANES_SHOWN = 30 };

struct status {
    const struct tool *tool;
    json_t *row;
};

static void keep_row(void *context, json_t *row)
{
    struct status *status = context;
    if (status->row == NULL) {
        status->row = json_incref(row);
    }
}

static const char *plural(int64_t count, const char *one, const char *many)
{
    return count == 1 ? one : many;
}

static void print_head(const struct status *status)
{
    const json_t *row = status->row;
    char age[TOOL_TEXT], host[256], reason[512];
    int64_t up = (tool_integer(row, "now") - tool_integer(row, "started")) / 1000;
    printf("holdfast %s on %s, up %s\n", tool_string(row, "version"),
           tool_clean(tool_string(row, "hostname"), host, sizeof(host)), tool_age(up, age));
    if (json_is_false(json_object_get(row, "accepting"))) {
        printf("%sNo mail is accepted: %s%s\n", tool_colour_text(status->tool, COLOUR_BAD),
               tool_clean(tool_string(row, "accepting_reason"), reason, sizeof(reason)),
               tool_colour_text(status->tool, COLOUR_PLAIN));
    }
    const json_t *settings = json_object_get(row, "settings");
    if (strcmp(tool_string(settings, "state"), "joining") == 0) {
        const json_t *database =
            json_object_get(json_object_get(status->row, "cluster"), "database");
        printf("%sJoining: %s; mail that they may know is put off.%s\n",
               tool_colour_text(status->tool, COLOUR_WARN),
               json_is_true(json_object_get(database, "up"))
                   ? "the cluster has no settings yet (holdfast settings set makes them), or they "
                     "are not here yet"
                   : "the cluster's settings are not here yet",
               tool_colour_text(status->tool, COLOUR_PLAIN));
    } else if (tool_integer(settings, "version") > 0) {
        printf("Settings of the cluster: version %lld\n",
               (long long)tool_integer(settings, "version"));
    }
    if (json_is_true(json_object_get(row, "loading"))) {
        printf("%sThe journal is still being read; the counts are not final.%s\n",
               tool_colour_text(status->tool, COLOUR_WARN),
               tool_colour_text(status->tool, COLOUR_PLAIN));
    }
}

static void print_alerts(const struct status *status)
{
    const json_t *alert;
    size_t index;
    int64_t now = tool_integer(status->row, "now");
    json_array_foreach(json_object_get(status->row, "alerts"), index, alert)
    {
        char age[TOOL_TEXT], text[512];
        printf("%sAlert%s, since %s: %s\n", tool_colour_text(status->tool, COLOUR_BAD),
               tool_colour_text(status->tool, COLOUR_PLAIN),
               tool_age((now - tool_integer(alert, "since")) / 1000, age),
               tool_clean(tool_string(alert, "text"), text, sizeof(text)));
    }
}

static void print_queue(const struct status *status)
{
    const json_t *queue = json_object_get(status->row, "queue");
    int64_t messages = tool_integer(queue, "messages");
    int64_t deliveries = tool_integer(queue, "deliveries");
    int64_t held = tool_integer(queue, "held");
    int64_t doubt = tool_integer(queue, "in_doubt");
    int64_t dead = tool_integer(status->row, "dead_letters");
    char bytes[TOOL_TEXT], age[TOOL_TEXT];
    if (messages == 0) {
        printf("\nQueue     empty");
    } else {
        printf("\nQueue     %lld %s, %lld %s, %s; the oldest has waited %s", (long long)messages,
               plural(messages, "message", "messages"), (long long)deliveries,
               plural(deliveries, "delivery", "deliveries"),
               tool_bytes(tool_integer(queue, "bytes"), bytes),
               tool_age(tool_integer(queue, "oldest_seconds"), age));
    }
    if (held > 0) {
        printf("; %lld held", (long long)held);
    }
    if (doubt > 0) {
        printf("; %lld in doubt", (long long)doubt);
    }
    printf("\n");
    if (dead > 0) {
        printf("%sDead      %lld %s; see holdfast queue list --dead%s\n",
               tool_colour_text(status->tool, COLOUR_WARN), (long long)dead,
               plural(dead, "dead letter", "dead letters"),
               tool_colour_text(status->tool, COLOUR_PLAIN));
    }
}

static void print_disk(const struct status *status)
{
    const json_t *disk = json_object_get(status->row, "disk");
    char used[TOOL_TEXT], available[TOOL_TEXT], reserve[TOOL_TEXT];
    if (!json_is_object(disk)) {
        return;
    }
    printf("Disk      %s used, %s free; mail is refused below %s\n",
           tool_bytes(tool_integer(disk, "used_bytes"), used),
           tool_bytes(tool_integer(disk, "available_bytes"), available),
           tool_bytes(tool_integer(disk, "reserve_bytes"), reserve));
    int64_t quarantined = tool_integer(disk, "quarantined");
    if (quarantined > 0) {
        printf("%sDamage    %lld %s of the journal set aside; see holdfast spool verify%s\n",
               tool_colour_text(status->tool, COLOUR_BAD), (long long)quarantined,
               plural(quarantined, "record", "records"),
               tool_colour_text(status->tool, COLOUR_PLAIN));
    }
}

/* What is kept of mail that was handed over, if anything is. */
static void print_copies(const struct status *status)
{
    const json_t *copies = json_object_get(status->row, "safety_copies");
    char bytes[TOOL_TEXT], keep[TOOL_TEXT], oldest[TOOL_TEXT], gone[TOOL_TEXT];
    int64_t keep_s = tool_integer(copies, "keep_seconds");
    if (keep_s == 0 && tool_integer(copies, "bytes") == 0) {
        return;
    }
    printf("Copies    %s of what was handed over, kept for %s",
           tool_bytes(tool_integer(copies, "bytes"), bytes), tool_age(keep_s, keep));
    if (!tool_is_null(copies, "oldest")) {
        printf("; the oldest of %s", tool_time(tool_integer(copies, "oldest"), oldest));
    }
    int64_t gone_until = tool_integer(copies, "gone_until");
    if (gone_until > tool_integer(status->row, "now") - keep_s * 1000) {
        printf("; %sthose before %s have made room%s", tool_colour_text(status->tool, COLOUR_WARN),
               tool_time(gone_until, gone), tool_colour_text(status->tool, COLOUR_PLAIN));
    }
    printf("\n");
}

/* Where two machines share the state directory. */
static void print_standby(const struct status *status)
{
    const json_t *standby = json_object_get(status->row, "standby");
    char since[TOOL_TEXT], seen[TOOL_TEXT];
    if (!json_is_object(standby)) {
        return;
    }
    printf("Standby   %s works since %s; %s ", tool_string(standby, "name"),
           tool_time(tool_integer(standby, "since"), since), tool_string(standby, "of"));
    if (tool_is_null(standby, "standby_seen_seconds")) {
        printf("has not been seen");
    } else {
        printf("was seen to stand by %s ago",
               tool_age(tool_integer(standby, "standby_seen_seconds"), seen));
    }
    bool unfenced = json_is_true(json_object_get(standby, "unfenced"));
    printf("%s%s%s\n", tool_colour_text(status->tool, COLOUR_WARN), unfenced ? "; unfenced" : "",
           tool_colour_text(status->tool, COLOUR_PLAIN));
}

static void print_servers(const struct status *status)
{
    static const struct tool_column columns[] = {
        {"SERVER", 0.2, COLUMN_SHRINKS}, {"STATE", 9, 0},
        {"SINCE", 6, COLUMN_RIGHT},      {"FAILURES", 8, COLUMN_RIGHT},
        {"DELIVERED", 9, COLUMN_RIGHT},  {"WHY", 0.5, COLUMN_WRAPS},
    };
    const json_t *servers = json_object_get(status->row, "servers"), *server;
    size_t index;
    if (json_array_size(servers) == 0) {
        return;
    }
    printf("\n");
    struct tool_table *table = tool_table_new(status->tool, columns, 6);
    json_array_foreach(servers, index, server)
    {
        char since[TOOL_TEXT], failures[TOOL_TEXT], used[TOOL_TEXT];
        const char *state = tool_string(server, "state");
        int64_t now = tool_integer(status->row, "now");
        snprintf(failures, sizeof(failures), "%lld", (long long)tool_integer(server, "failures"));
        snprintf(used, sizeof(used), "%lld", (long long)tool_integer(server, "used"));
        tool_table_row(
            table,
            (const char *const[]){tool_string(server, "name"), state,
                                  tool_age((now - tool_integer(server, "since")) / 1000, since),
                                  failures, used, tool_string(server, "reason")},
            (const enum tool_colour[]){COLOUR_PLAIN, tool_server_colour(server), COLOUR_PLAIN,
                                       COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN});
    }
    tool_table_end(table);
}

/* The members of the cluster, if there is one, and what stands here alone. */
static void print_cluster(const struct status *status)
{
    const json_t *cluster = json_object_get(status->row, "cluster"), *node;
    const json_t *database = json_object_get(cluster, "database");
    char age[TOOL_TEXT], reason[512];
    size_t index;
    if (!json_is_object(cluster)) {
        return;
    }
    int64_t one_copy = tool_integer(cluster, "one_copy");
    if (json_is_true(json_object_get(database, "up"))) {
        printf("Database  up, a commit takes %.1f ms",
               json_number_value(json_object_get(database, "commit_ms")));
    } else {
        int64_t away_ms = tool_integer(status->row, "now") - tool_integer(database, "since");
        printf("Database  %saway for %s%s: %s", tool_colour_text(status->tool, COLOUR_BAD),
               tool_age(away_ms / 1000, age), tool_colour_text(status->tool, COLOUR_PLAIN),
               tool_clean(tool_string(database, "reason"), reason, sizeof(reason)));
    }
    if (one_copy > 0) {
        printf("; %lld %s here alone", (long long)one_copy,
               plural(one_copy, "message is", "messages are"));
    }
    printf("\n");
    const json_t *queue = json_object_get(cluster, "queue");
    const json_t *missing = json_object_get(cluster, "missing_nodes");
    char bytes[TOOL_TEXT];
    int64_t messages = tool_integer(queue, "messages");
    printf("Cluster   %lld %s, %s", (long long)messages,
           plural(messages, "message waits", "messages wait"),
           tool_bytes(tool_integer(queue, "bytes"), bytes));
    if (messages > 0) {
        printf(", the oldest for %s", tool_age(tool_integer(queue, "oldest_seconds"), age));
    }
    json_array_foreach(missing, index, node)
    {
        printf("%s%s", index == 0 ? "; not counted, for they are down: " : ", ",
               tool_clean(json_string_value(node), reason, sizeof(reason)));
    }
    printf("\n\n");
    struct tool_table *table = tool_node_table(status->tool);
    json_array_foreach(json_object_get(status->row, "nodes"), index, node)
    {
        tool_node_row(table, node);
    }
    tool_table_end(table);
}

/* Those with something to say. */
static void print_guards(const struct status *status)
{
    const json_t *guard;
    size_t index;
    json_array_foreach(json_object_get(status->row, "guards"), index, guard)
    {
        const char *state = tool_string(guard, "state");
        char since[TOOL_TEXT], left[TOOL_TEXT], reason[1024];
        int64_t now = tool_integer(status->row, "now");
        if (strcmp(state, "watching") == 0) {
            continue;
        }
        printf("Guard     %s%s: %s%s for %s",
               tool_colour_text(status->tool, tool_guard_colour(state)),
               tool_string(guard, "server"), state, tool_colour_text(status->tool, COLOUR_PLAIN),
               tool_age((now - tool_integer(guard, "since")) / 1000, since));
        if (!tool_is_null(guard, "left_seconds")) {
            printf("; its script runs in %s", tool_age(tool_integer(guard, "left_seconds"), left));
        }
        if (!tool_is_null(guard, "reason")) {
            printf("; %s", tool_clean(tool_string(guard, "reason"), reason, sizeof(reason)));
        }
        printf("\n");
    }
}

/* Few lanes are all shown; of many only those with something to say. */
static bool is_shown(const json_t *lane, size_t all)
{
    return all <= LANES_SHOWN || strcmp(tool_string(lane, "state"), "idle") != 0 ||
           tool_integer(lane, "deliveries") > 0;
}

/* "3h12m: m1 down: connection refused". */
static const char *lane_why(const struct status *status, const json_t *lane, char *text,
                            size_t size)
{
    char age[TOOL_TEXT] = "";
    if (!tool_is_null(lane, "since")) {
        tool_age((tool_integer(status->row, "now") - tool_integer(lane, "since")) / 1000, age);
    }
    const char *reason = tool_string(lane, "reason");
    if (!tool_is_null(lane, "rate")) {
        int64_t done = tool_integer(lane, "done");
        snprintf(text, size, "%lld of %lld, %.0f/s, %s left%s%s", (long long)done,
                 (long long)(done + tool_integer(lane, "left")),
                 json_number_value(json_object_get(lane, "rate")),
                 tool_age(tool_integer(lane, "left_seconds"), age), reason[0] != '\0' ? "; " : "",
                 reason);
        return text;
    }
    snprintf(text, size, "%s%s%s", age, age[0] != '\0' ? ": " : "", reason);
    return text;
}

/* A route has more lanes than one when mail was redirected, or is in doubt. */
static const char *lane_name(const json_t *lane, char *text, size_t size)
{
    const char *redirect = tool_string(lane, "redirect_to");
    snprintf(text, size, "%s%s%s%s", tool_string(lane, "route"), redirect[0] != '\0' ? " to " : "",
             redirect, tool_is_null(lane, "doubt") ? "" : " in doubt");
    return text;
}

static void print_lanes(const struct status *status)
{
    static const struct tool_column columns[] = {
        {"ROUTE", 0.3, COLUMN_SHRINKS},  {"STATE", 9, 0},
        {"WAITING", 7, COLUMN_RIGHT},    {"OLDEST", 6, COLUMN_RIGHT},
        {"SERVER", 0.2, COLUMN_SHRINKS}, {"WHY", 0.4, COLUMN_WRAPS},
    };
    const json_t *lanes = json_object_get(status->row, "lanes"), *lane;
    size_t index, all = json_array_size(lanes), shown = 0, hidden = 0;
    if (all == 0) {
        return;
    }
    printf("\n");
    struct tool_table *table = tool_table_new(status->tool, columns, 6);
    json_array_foreach(lanes, index, lane)
    {
        char waiting[TOOL_TEXT], oldest[TOOL_TEXT], why[1024], name[700];
        const char *state = tool_string(lane, "state");
        int64_t deliveries = tool_integer(lane, "deliveries");
        if (!is_shown(lane, all) || shown == LANES_SHOWN) {
            hidden++;
            continue;
        }
        shown++;
        snprintf(waiting, sizeof(waiting), "%lld", (long long)deliveries);
        tool_age(tool_integer(lane, "oldest_seconds"), oldest);
        tool_table_row(
            table,
            (const char *const[]){lane_name(lane, name, sizeof(name)), state, waiting,
                                  deliveries > 0 && !tool_is_null(lane, "oldest_seconds") ? oldest
                                                                                          : "-",
                                  tool_is_null(lane, "server") ? "-" : tool_string(lane, "server"),
                                  lane_why(status, lane, why, sizeof(why))},
            (const enum tool_colour[]){COLOUR_PLAIN, tool_state_colour(state), COLOUR_PLAIN,
                                       COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN});
    }
    tool_table_end(table);
    if (hidden > 0) {
        printf("and %zu more\n", hidden);
    }
}

enum control_exit tool_status(struct tool *tool)
{
    struct status status = {.tool = tool};
    struct tool_answer answer = {.context = &status, .row = keep_row};
    enum control_exit code = tool_ask(tool, "status", json_object(), &answer);
    if (status.row != NULL && tool->json) {
        tool_print_json(status.row);
    } else if (status.row != NULL) {
        print_head(&status);
        print_alerts(&status);
        print_queue(&status);
        print_disk(&status);
        print_copies(&status);
        print_cluster(&status);
        print_guards(&status);
        print_standby(&status);
        print_servers(&status);
        print_lanes(&status);
    }
    json_decref(status.row);
    return code;
}
