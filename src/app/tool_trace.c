/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast trace` and `holdfast queue watch`: events, one line each.
 */
#include "app/tool.h"

struct tracing {
    const struct tool *tool;
    struct tool_table *table;
    struct tool_progress progress; /* of drains that are watched */
};

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* "up -> down after 3m: connection refused" */
static const char *change_detail(const json_t *row, char *buffer, size_t size)
{
    const char *from = tool_string(row, "from"), *to = tool_string(row, "to");
    const char *reason = tool_string(row, "reason");
    char age[TOOL_TEXT] = "";
    int64_t lasted = tool_integer(row, "lasted");
    if (lasted > 0) {
        tool_age(lasted / 1000, age);
    }
    snprintf(buffer, size, "%s%s%s%s%s%s%s", from, from[0] != '\0' ? " -> " : "", to,
             lasted > 0 ? " after " : "", age, reason[0] != '\0' ? ": " : "", reason);
    return buffer;
}

/* What the event is about, beside time, message and recipient. */
static const char *event_detail(const json_t *row, char *buffer, size_t size)
{
    const char *event = tool_string(row, "event");
    const char *reply = tool_string(row, "reply");
    const char *reason = tool_string(row, "reason");
    char bytes[TOOL_TEXT], next[TOOL_TEXT];
    if (is(event, "accepted") || is(event, "imported")) {
        const char *sender = tool_string(row, "sender");
        snprintf(buffer, size, "from %s%s%s, %s", sender[0] == '\0' ? "<>" : sender,
                 tool_is_null(row, "client") ? "" : " by ", tool_string(row, "client"),
                 tool_bytes(tool_integer(row, "bytes"), bytes));
    } else if (!tool_is_null(row, "subject")) {
        change_detail(row, buffer, size);
    } else if (is(event, "missed")) {
        snprintf(buffer, size, "%lld events were too fast", (long long)tool_integer(row, "count"));
    } else {
        const char *tls = tool_string(row, "tls");
        int length = snprintf(buffer, size, "%s%s%s%s%s", reply,
                              reply[0] != '\0' && reason[0] != '\0' ? "; " : "", reason,
                              tls[0] != '\0' ? "TLS " : "", tls);
        if (!tool_is_null(row, "next") && length >= 0 && (size_t)length < size) {
            snprintf(buffer + length, size - (size_t)length, "%snext try %s",
                     length > 0 ? "; " : "", tool_time(tool_integer(row, "next"), next));
        }
    }
    return buffer;
}

static bool is_handed_over(const char *event)
{
    return is(event, "delivered") || is(event, "pulled");
}

static void trace_row(void *context, json_t *row)
{
    static const struct tool_column columns[] = {
        {"TIME", 19, 0},  {"ID", 26, 0},
        {"EVENT", 9, 0},  {"TO", 0.2, COLUMN_SHRINKS},
        {"SERVER", 6, 0}, {"WHAT", 0.4, COLUMN_SHRINKS},
    };
    struct tracing *tracing = context;
    char time[TOOL_TEXT], detail[800];
    const char *event = tool_string(row, "event");
    if (tracing->table == NULL) {
        tracing->table = tool_table_new(tracing->tool, columns, 6);
    }
    tool_table_row(
        tracing->table,
        (const char *const[]){tool_time(tool_integer(row, "time"), time), tool_string(row, "id"),
                              event, tool_string(row, "recipient"), tool_string(row, "server"),
                              event_detail(row, detail, sizeof(detail))},
        (const enum tool_colour[]){COLOUR_PLAIN, COLOUR_PLAIN,
                                   is_handed_over(event) ? COLOUR_GOOD : tool_state_colour(event),
                                   COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN});
}

enum control_exit tool_trace(struct tool *tool)
{
    struct tracing tracing = {.tool = tool};
    struct tool_answer answer = {.context = &tracing,
                                 .row = tool->json ? tool_row_json : trace_row};
    json_t *arguments =
        json_pack("{so}", "what", control_string(slice_from_text(tool->operands[0])));
    enum control_exit code = tool_ask(tool, "trace", arguments, &answer);
    if (tracing.table != NULL) {
        tool_table_end(tracing.table);
    }
    return code;
}

static void history_row(void *context, json_t *row)
{
    static const struct tool_column columns[] = {{"TIME", 19, 0},
                                                 {"OF", 0.2, COLUMN_SHRINKS},
                                                 {"EVENT", 8, 0},
                                                 {"WHAT", 0.5, COLUMN_SHRINKS}};
    struct tracing *tracing = context;
    char time[TOOL_TEXT], detail[800];
    const char *event = tool_string(row, "event");
    if (tracing->table == NULL) {
        tracing->table = tool_table_new(tracing->tool, columns, 4);
    }
    tool_table_row(tracing->table,
                   (const char *const[]){tool_time(tool_integer(row, "time"), time),
                                         tool_string(row, "subject"), event,
                                         change_detail(row, detail, sizeof(detail))},
                   (const enum tool_colour[]){COLOUR_PLAIN, COLOUR_PLAIN, tool_state_colour(event),
                                              COLOUR_PLAIN});
}

enum control_exit tool_server_history(struct tool *tool)
{
    struct tracing tracing = {.tool = tool};
    struct tool_answer answer = {.context = &tracing,
                                 .row = tool->json ? tool_row_json : history_row};
    json_t *arguments = json_object();
    if (tool->operand_count > 0) {
        (void)json_object_set_new(arguments, "name",
                                  control_string(slice_from_text(tool->operands[0])));
    }
    enum control_exit code = tool_ask(tool, "server history", arguments, &answer);
    if (tracing.table != NULL) {
        tool_table_end(tracing.table);
    }
    return code;
}

/* A line at once: somebody is looking. */
static void watch_row(void *context, json_t *row)
{
    struct tracing *tracing = context;
    tool_progress_hide(&tracing->progress);
    if (tracing->tool->json) {
        tool_print_json(row);
    } else {
        char time[TOOL_TEXT], recipient[400], server[128], detail[800], clean[800];
        const char *event = tool_string(row, "event");
        enum tool_colour colour = is_handed_over(event) ? COLOUR_GOOD : tool_state_colour(event);
        printf("%s %s %s%-10s%s %s %s %s\n", tool_time(tool_integer(row, "time"), time),
               tool_string(row, "id"), tool_colour_text(tracing->tool, colour), event,
               tool_colour_text(tracing->tool, COLOUR_PLAIN),
               tool_clean(tool_string(row, tool_is_null(row, "subject") ? "recipient" : "subject"),
                          recipient, sizeof(recipient)),
               tool_clean(tool_string(row, "server"), server, sizeof(server)),
               tool_clean(event_detail(row, detail, sizeof(detail)), clean, sizeof(clean)));
    }
    fflush(stdout);
}

static void watch_progress(void *context, uint64_t done, uint64_t all)
{
    struct tracing *tracing = context;
    tool_progress_step(&tracing->progress, done, all);
}

enum control_exit tool_queue_watch(struct tool *tool)
{
    struct tracing tracing = {.tool = tool};
    struct tool_answer answer = {
        .context = &tracing, .row = watch_row, .progress = watch_progress, .immediate = true};
    tool_progress_begin(&tracing.progress, tool, "deliveries");
    enum control_exit code = tool_ask_selected(tool, "queue watch", NULL, &answer);
    tool_progress_end(&tracing.progress);
    return code;
}
