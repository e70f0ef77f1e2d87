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

static void server_row(void *context, json_t *row)
{
    static const struct tool_column columns[] = {
        {"SERVER", 0.2, COLUMN_SHRINKS}, {"STATE", 9, 0},
        {"SINCE", 6, COLUMN_RIGHT},      {"ADDRESS", 0.3, COLUMN_SHRINKS},
        {"NEXT", 0.1, COLUMN_SHRINKS},   {"WAITING", 7, COLUMN_RIGHT},
        {"DELIVERED", 9, COLUMN_RIGHT},  {"WHY", 0.4, COLUMN_WRAPS},
    };
    struct listing *listing = context;
    char since[TOOL_TEXT], address[300], waiting[TOOL_TEXT], used[TOOL_TEXT];
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
                       waiting, used, tool_string(row, "reason")},
                   (const enum tool_colour[]){COLOUR_PLAIN, tool_server_colour(row), COLOUR_PLAIN,
                                              COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN,
                                              COLOUR_PLAIN, COLOUR_PLAIN});
}

enum control_exit tool_ask_names(const struct tool *tool, const struct tool_answer *answer)
{
    struct tool_client *client;
    enum control_exit worst = tool_client_open(tool, &client);
    if (worst != CONTROL_DONE) {
        return worst;
    }
    for (unsigned i = 0; i < tool->operand_count && worst < CONTROL_USAGE; i++) {
        json_t *arguments =
            json_pack("{so}", "name", control_string(slice_from_text(tool->operands[i])));
        struct tool_answer named = *answer;
        named.about = tool->operands[i];
        enum control_exit code = tool_client_ask(client, tool->command->words, arguments, &named);
        worst = code > worst ? code : worst;
    }
    tool_client_close(client);
    return worst;
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
    enum control_exit code = tool->operand_count > 0 ? tool_ask_names(tool, &answer)
                                                     : tool_ask(tool, tool->command->words,
                                                                tool_selection(tool), &answer);
    if (listing.table != NULL) {
        tool_table_end(listing.table);
    } else if (!tool->json && code == CONTROL_DONE) {
        printf("There are no servers.\n");
    }
    return code;
}
