/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast check`: the configuration alone, without the daemon; with a domain, the doctor.
 */
#include "app/settings.h"
#include "app/tool.h"

#include <ctype.h>

/* Where ":LINE: " begins in "FILE:LINE: message"; FILE may have colons of its own. */
static size_t find_line_mark(struct slice text)
{
    for (size_t i = 0; i < text.length; i++) {
        size_t end = i + 1;
        while (text.data[i] == ':' && end < text.length && isdigit(text.data[end])) {
            end++;
        }
        if (end > i + 1 && end + 1 < text.length && text.data[end] == ':' &&
            text.data[end + 1] == ' ') {
            return i;
        }
    }
    return text.length;
}

static void print_as_json(struct slice text)
{
    struct slice warning = SLICE_LITERAL("warning: ");
    size_t mark = find_line_mark(text);
    struct slice rest = slice_skip(text, mark + 1);
    size_t digits = slice_find(rest, ':');
    struct slice message = slice_skip(rest, digits + 2);
    uint64_t line = 0;
    bool known = slice_to_u64(slice_take(rest, digits), &line);
    bool warns = slice_starts_fold(message, warning);
    if (warns) {
        message = slice_skip(message, warning.length);
    }
    json_t *row = json_pack("{so so ss so}", "file", control_string(slice_take(text, mark)), "line",
                            known ? json_integer((json_int_t)line) : json_null(), "level",
                            warns ? "warning" : "error", "message", control_string(message));
    tool_print_json(row);
    json_decref(row);
}

void tool_print_findings(const struct tool *tool, struct slice rest)
{
    while (rest.length > 0) {
        struct slice line = slice_take(rest, slice_find(rest, '\n'));
        if (tool->json) {
            print_as_json(line);
        } else {
            fprintf(stderr, "%.*s\n", SLICE_PRINT(line));
        }
        rest = slice_skip(rest, line.length + 1);
    }
}

static void print_summary(const char *path, const struct service_config *config)
{
    uint32_t domains = 0, relays = 0;
    for (uint32_t i = 0; i < config->relay.route_count; i++) {
        domains += config->relay.routes[i].domain_count;
        relays += config->relay.routes[i].kind == ROUTE_RELAY;
    }
    printf("%s is good: %u listening, %u server%s, %u domain%s, %u relay%s\n", path,
           config->listener_count, config->relay.server_count,
           config->relay.server_count == 1 ? "" : "s", domains, domains == 1 ? "" : "s", relays,
           relays == 1 ? "" : "s");
}

enum control_exit tool_check(struct tool *tool)
{
    if (tool->operand_count > 0) {
        return tool_doctor(tool);
    }
    struct buffer findings;
    buffer_init(&findings, 0);
    struct settings *settings = settings_read(tool->configuration, &findings);
    tool_print_findings(tool, buffer_slice(&findings));
    buffer_done(&findings);
    if (settings == NULL) {
        return CONTROL_NOTHING_MATCHED;
    }
    if (!tool->json) {
        print_summary(tool->configuration, settings_config(settings));
    }
    settings_free(settings);
    return CONTROL_DONE;
}
