/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast guard list`, `start`, `undo`, `reset`.
 */
#include "app/tool.h"

enum tool_colour tool_guard_colour(const char *state)
{
    static const struct {
        const char *state;
        enum tool_colour colour;
    } colours[] = {
        {"watching", COLOUR_GOOD},   {"resting", COLOUR_PLAIN}, {"start-failed", COLOUR_BAD},
        {"undo-failed", COLOUR_BAD}, {"blocked", COLOUR_BAD},
    };
    for (size_t i = 0; i < sizeof(colours) / sizeof(colours[0]); i++) {
        if (strcmp(state, colours[i].state) == 0) {
            return colours[i].colour;
        }
    }
    return COLOUR_WARN;
}

struct listing {
    const struct tool *tool;
    struct tool_table *table;
};

static void guard_row(void *context, json_t *row)
{
    static const struct tool_column columns[] = {
        {"SERVER", 0.2, COLUMN_SHRINKS}, {"STATE", 12, 0}, {"SINCE", 6, COLUMN_RIGHT},
        {"IN", 6, COLUMN_RIGHT},         {"UNDO", 7, 0},   {"WHY", 0.6, COLUMN_WRAPS},
    };
    struct listing *listing = context;
    const char *state = tool_string(row, "state");
    char since[TOOL_TEXT], left[TOOL_TEXT];
    if (listing->table == NULL) {
        listing->table = tool_table_new(listing->tool, columns, 6);
    }
    tool_table_row(
        listing->table,
        (const char *const[]){tool_string(row, "server"), state,
                              tool_age((tool_now_ms() - tool_integer(row, "since")) / 1000, since),
                              tool_is_null(row, "left_seconds")
                                  ? "-"
                                  : tool_age(tool_integer(row, "left_seconds"), left),
                              tool_string(row, "undo_when"), tool_string(row, "reason")},
        (const enum tool_colour[]){COLOUR_PLAIN, tool_guard_colour(state), COLOUR_PLAIN,
                                   COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN});
}

enum control_exit tool_guard(struct tool *tool)
{
    struct listing listing = {.tool = tool};
    struct tool_answer answer = {.context = &listing,
                                 .row = tool->json ? tool_row_json : guard_row};
    enum control_exit code = tool->operand_count > 0
                                 ? tool_ask_names(tool, &answer, MERGE_NOT)
                                 : tool_ask(tool, tool->command->words, json_object(), &answer);
    if (listing.table != NULL) {
        tool_table_end(listing.table);
    } else if (!tool->json && code == CONTROL_DONE) {
        printf("There are no guards.\n");
    }
    return code;
}
