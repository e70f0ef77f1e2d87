/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast node list`, `drain`, `undrain`, `remove`.
 */
#include "app/tool.h"

enum tool_colour tool_node_colour(const char *state)
{
    return strcmp(state, "up") == 0     ? COLOUR_GOOD
           : strcmp(state, "down") == 0 ? COLOUR_BAD
                                        : COLOUR_WARN;
}

static void put_roles(const json_t *row, char *text, size_t size)
{
    const json_t *role;
    size_t index, length = 0;
    text[0] = '\0';
    json_array_foreach(json_object_get(row, "role"), index, role)
    {
        int more = snprintf(text + length, size - length, "%s%s", index > 0 ? ", " : "",
                            json_string_value(role));
        length += more > 0 && (size_t)more < size - length ? (size_t)more : 0;
    }
}

struct tool_table *tool_node_table(const struct tool *tool)
{
    static const struct tool_column columns[] = {
        {"NODE", 0.15, COLUMN_SHRINKS},
        {"ROLE", 0.25, COLUMN_SHRINKS},
        {"STATE", 8, 0},
        {"HEARD", 6, COLUMN_RIGHT},
        {"LANES", 5, COLUMN_RIGHT},
        {"QUEUE", 8, COLUMN_RIGHT},
        {"HERE ONLY", 9, COLUMN_RIGHT},
        {"DISK FREE", 9, COLUMN_RIGHT},
        {"CLOCK", 7, COLUMN_RIGHT},
        {"DATABASE", 8, COLUMN_RIGHT},
        {"VERSION", 0.1, COLUMN_SHRINKS},
    };
    return tool_table_new(tool, columns, 11);
}

static const char *count_text(const json_t *object, const char *key, char text[TOOL_TEXT])
{
    if (tool_is_null(object, key)) {
        return "-";
    }
    snprintf(text, TOOL_TEXT, "%lld", (long long)tool_integer(object, key));
    return text;
}

static const char *offset_text(const json_t *row, char text[TOOL_TEXT])
{
    int64_t ms = tool_integer(row, "clock_offset_ms");
    snprintf(text, TOOL_TEXT, ms > -10000 && ms < 10000 ? "%+lldms" : "%+llds",
             (long long)(ms > -10000 && ms < 10000 ? ms : ms / 1000));
    return text;
}

void tool_node_row(struct tool_table *table, const json_t *row)
{
    char role[64], heard[TOOL_TEXT], lanes[TOOL_TEXT], queue[TOOL_TEXT], here[TOOL_TEXT];
    char disk[TOOL_TEXT], clock[TOOL_TEXT], database[TOOL_TEXT], name[128];
    const json_t *queued = json_object_get(row, "queue"), *room = json_object_get(row, "disk");
    const char *state = tool_string(row, "state");
    /* What it had when it was last heard of belongs to others now. */
    bool is_over = strcmp(state, "down") == 0 && tool_integer(row, "lanes") == 0;
    put_roles(row, role, sizeof(role));
    snprintf(name, sizeof(name), "%s%s", tool_string(row, "name"),
             json_is_true(json_object_get(row, "leader")) ? " *" : "");
    if (tool_is_null(row, "database_lag_ms")) {
        snprintf(database, sizeof(database), "-");
    } else {
        snprintf(database, sizeof(database), "%lldms",
                 (long long)tool_integer(row, "database_lag_ms"));
    }
    tool_table_row(
        table,
        (const char *const[]){name, role, state,
                              tool_is_null(row, "last_contact_seconds")
                                  ? "never"
                                  : tool_age(tool_integer(row, "last_contact_seconds"), heard),
                              count_text(row, "lanes", lanes),
                              is_over ? "-" : count_text(queued, "messages", queue),
                              count_text(queued, "one_copy", here),
                              tool_is_null(room, "available_bytes")
                                  ? "-"
                                  : tool_bytes(tool_integer(room, "available_bytes"), disk),
                              offset_text(row, clock), database, tool_string(row, "version")},
        (const enum tool_colour[]){COLOUR_PLAIN, COLOUR_PLAIN, tool_node_colour(state),
                                   COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN,
                                   COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN});
}

struct listing {
    const struct tool *tool;
    struct tool_table *table;
};

static void list_row(void *context, json_t *row)
{
    struct listing *listing = context;
    if (listing->table == NULL) {
        listing->table = tool_node_table(listing->tool);
    }
    tool_node_row(listing->table, row);
}

enum control_exit tool_node_list(struct tool *tool)
{
    struct listing listing = {.tool = tool};
    struct tool_answer answer = {.context = &listing, .row = tool->json ? tool_row_json : list_row};
    enum control_exit code = tool_ask(tool, tool->command->words, json_object(), &answer);
    if (listing.table != NULL) {
        tool_table_end(listing.table);
    }
    return code;
}

static void changed_row(void *context, json_t *row)
{
    const struct tool *tool = context;
    printf("%s: %s\n", tool_string(row, "name"),
           strcmp(tool->command->words, "node drain") == 0
               ? "what it hands over goes to others; node list shows how far that is"
           : strcmp(tool->command->words, "node undrain") == 0 ? "takes its part again"
                                                               : "removed");
}

enum control_exit tool_node_change(struct tool *tool)
{
    struct tool_answer answer = {.context = tool, .row = tool->json ? tool_row_json : changed_row};
    return tool_ask_names(tool, &answer, MERGE_NOT);
}
