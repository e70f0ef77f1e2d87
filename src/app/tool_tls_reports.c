/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast tls-reports list`, `send`.
 */
#include "app/tool.h"

struct listing {
    const struct tool *tool;
    struct tool_table *table;
};

static void report_row(void *context, json_t *row)
{
    static const struct tool_column columns[] = {
        {"DOMAIN", 0.5, COLUMN_SHRINKS},
        {"SINCE", 6, COLUMN_RIGHT},
        {"SUCCESSFUL", 10, COLUMN_RIGHT},
        {"FAILED", 7, COLUMN_RIGHT},
        {"SENT", 12, 0},
        {"WHY NOT YET", 0.4, COLUMN_WRAPS},
    };
    struct listing *listing = context;
    char since[TOOL_TEXT], next[TOOL_TEXT], when[2 * TOOL_TEXT], good[TOOL_TEXT], bad[TOOL_TEXT];
    if (listing->table == NULL) {
        listing->table = tool_table_new(listing->tool, columns, 6);
    }
    bool waits = json_is_true(json_object_get(row, "waits"));
    int64_t left_s = (tool_integer(row, "next") - tool_now_ms()) / 1000;
    snprintf(when, sizeof(when),
             waits && left_s > 0 ? "in %s"
             : waits             ? "now"
                                 : "after the day",
             waits ? tool_age(left_s > 0 ? left_s : 0, next) : "");
    snprintf(good, sizeof(good), "%lld", (long long)tool_integer(row, "successful"));
    snprintf(bad, sizeof(bad), "%lld", (long long)tool_integer(row, "failed"));
    tool_table_row(listing->table,
                   (const char *const[]){
                       tool_string(row, "domain"),
                       tool_age((tool_now_ms() - tool_integer(row, "begins")) / 1000, since), good,
                       bad, when, tool_is_null(row, "reason") ? "" : tool_string(row, "reason")},
                   (const enum tool_colour[]){COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN,
                                              COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN});
}

enum control_exit tool_tls_reports(struct tool *tool)
{
    struct listing listing = {.tool = tool};
    const struct tool_answer answer = {.context = &listing,
                                       .row = tool->json ? tool_row_json : report_row};
    enum control_exit code = tool_ask(tool, tool->command->words, json_object(), &answer);
    if (listing.table != NULL) {
        tool_table_end(listing.table);
    } else if (!tool->json && code == CONTROL_DONE) {
        printf("There is nothing to report.\n");
    }
    return code;
}
