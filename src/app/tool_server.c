/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast server list`, `probe`, `down`, `up`.
 */
#include "app/tool.h"

enum tool_colour tool_server_colour(const json_t *row)
{
    const char *state = tool_string(row, "state");
    bool waits = strcmp(tool_string(row, "protocol"), "odmr") == 0 && strcmp(state, "down") == 0;
    return waits ? COLOUR_PLAIN : tool_state_colour(state);
}

struct listing {
    const struct tool *tool;
    struct tool_table *table;
};

/* "n1 up, n2 down: connection refused": where members of a cluster do not agree. */
static const char *reason_of(const json_t *row, char *text, size_t size)
{
    const json_t *nodes = json_object_get(row, "nodes");
    const char *name, *reason = tool_string(row, "reason");
    const json_t *state;
    bool differ = false;
    size_t length = 0;
    text[0] = '\0';
    json_object_foreach((json_t *)(uintptr_t)nodes, name, state)
    {
        differ = differ || strcmp(json_string_value(state), tool_string(row, "state")) != 0;
        int more = snprintf(text + length, size - length, "%s%s %s", length > 0 ? ", " : "", name,
                            json_string_value(state));
        length += more > 0 && (size_t)more < size - length ? (size_t)more : 0;
    }
    if (!differ) {
        return reason;
    }
    snprintf(text + length, size - length, "%s%s", reason[0] != '\0' ? "; " : "", reason);
    return text;
}

static void server_row(void *context, json_t *row)
{
    static const struct tool_column columns[] = {
        {"SERVER", 0.2, COLUMN_SHRINKS}, {"STATE", 9, 0},
        {"SINCE", 6, COLUMN_RIGHT},      {"ADDRESS", 0.3, COLUMN_SHRINKS},
        {"NEXT", 0.1, COLUMN_SHRINKS},   {"WAITING", 7, COLUMN_RIGHT},
        {"DELIVERED", 9, COLUMN_RIGHT},  {"WHY", 0.4, COLUMN_WRAPS},
    };
    struct listing *listing = context;
    char why[2000], since[TOOL_TEXT], address[300], waiting[TOOL_TEXT], used[TOOL_TEXT];
    const char *state = tool_string(row, "state");
    const json_t *addresses = json_object_get(row, "addresses");
    const char *first = json_string_value(json_array_get(addresses, 0));
    size_t count = json_array_size(addresses);
    if (listing->table == NULL) {
        listing->table = tool_table_new(listing->tool, columns, 8);
    }
    snprintf(address, sizeof(address), count > 1 ? "%s +%zu" : "%s%.0zu",
             first == NULL ? "(calls)" : first, count > 1 ? count - 1 : 0);
    snprintf(waiting, sizeof(waiting), "%lld", (long long)tool_integer(row, "deliveries"));
    snprintf(used, sizeof(used), "%lld", (long long)tool_integer(row, "used"));
    tool_table_row(listing->table,
                   (const char *const[]){
                       tool_string(row, "name"), state,
                       tool_age((tool_now_ms() - tool_integer(row, "since")) / 1000, since),
                       address, tool_is_null(row, "failover") ? "-" : tool_string(row, "failover"),
                       waiting, used, reason_of(row, why, sizeof(why))},
                   (const enum tool_colour[]){COLOUR_PLAIN, tool_server_colour(row), COLOUR_PLAIN,
                                              COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN,
                                              COLOUR_PLAIN, COLOUR_PLAIN});
}

enum control_exit tool_ask_names(const struct tool *tool, const struct tool_answer *answer,
                                 enum tool_merge merge)
{
    struct tool_members *members;
    enum control_exit worst = tool_members_open(tool, merge, &members);
    if (worst != CONTROL_DONE) {
        return worst;
    }
    for (unsigned i = 0; i < tool->operand_count && worst < CONTROL_USAGE; i++) {
        json_t *arguments =
            json_pack("{so}", "name", control_string(slice_from_text(tool->operands[i])));
        struct tool_answer named = *answer;
        named.about = tool->operands[i];
        enum control_exit code = tool_members_ask(members, tool->command->words, arguments, &named);
        worst = code > worst ? code : worst;
    }
    return tool_members_close(members, worst);
}

enum control_exit tool_server(struct tool *tool)
{
    struct listing listing = {.tool = tool};
    struct tool_answer answer = {.context = &listing,
                                 .row = tool->json ? tool_row_json : server_row};
    bool all = (tool->given & OPTION_ALL) != 0;
    if ((tool->command->options & OPTION_ALL) != 0 && !all && tool->operand_count == 0) {
        return tool_usage("%s which ones? Give names, or --all", tool->command->words);
    }
    enum control_exit code = tool->operand_count > 0
                                 ? tool_ask_names(tool, &answer, MERGE_SERVERS)
                                 : tool_ask_members(tool, tool->command->words,
                                                    tool_selection(tool), &answer, MERGE_SERVERS);
    if (listing.table != NULL) {
        tool_table_end(listing.table);
    } else if (!tool->json && code == CONTROL_DONE) {
        printf("There are no servers.\n");
    }
    return code;
}
