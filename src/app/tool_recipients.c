/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast recipients list`, `import`, `forget`, `verify`.
 */
#include "app/recipient_list.h"
#include "app/tool.h"

#include <errno.h>
#include <stdlib.h>

enum { ADDRESSES_A_REQUEST = 5000, PIECE = 64 << 10 };

struct listing {
    const struct tool *tool;
    struct tool_table *table;
};

static json_t *domain_argument(const struct tool *tool)
{
    json_t *arguments = json_object();
    if (tool->operand_count > 0) {
        json_object_set_new(arguments, "domain",
                            control_string(slice_from_text(tool->operands[0])));
    }
    return arguments;
}

/* ---- list --------------------------------------------------------------------------------- */

static const char *ago(const json_t *row, const char *key, char text[TOOL_TEXT])
{
    return tool_is_null(row, key) ? "-"
                                  : tool_age((tool_now_ms() - tool_integer(row, key)) / 1000, text);
}

static void domain_row(struct listing *listing, const json_t *row)
{
    static const struct tool_column columns[] = {
        {"DOMAIN", 0.4, COLUMN_SHRINKS}, {"GOOD", 8, COLUMN_RIGHT},
        {"BAD", 8, COLUMN_RIGHT},        {"REFUSED", 8, COLUMN_RIGHT},
        {"CHECKED", 8, COLUMN_RIGHT},    {"SOURCE", 0.4, COLUMN_SHRINKS},
    };
    char good[TOOL_TEXT], bad[TOOL_TEXT], refused[TOOL_TEXT], checked[TOOL_TEXT];
    char source[300], problem[300], shown[604];
    if (listing->table == NULL) {
        listing->table = tool_table_new(listing->tool, columns, 6);
    }
    tool_clean(tool_string(row, "source"), source, sizeof(source));
    tool_clean(tool_string(row, "problem"), problem, sizeof(problem));
    snprintf(shown, sizeof(shown), "%s%s%s", source, problem[0] != '\0' ? ": " : "", problem);
    snprintf(good, sizeof(good), "%lld", (long long)tool_integer(row, "good"));
    snprintf(bad, sizeof(bad), "%lld", (long long)tool_integer(row, "bad"));
    snprintf(refused, sizeof(refused), "%lld", (long long)tool_integer(row, "refused"));
    tool_table_row(listing->table,
                   (const char *const[]){tool_string(row, "domain"), good, bad, refused,
                                         ago(row, "checked", checked), shown},
                   NULL);
}

static void address_row(struct listing *listing, const json_t *row)
{
    static const struct tool_column columns[] = {
        {"ADDRESS", 0.5, COLUMN_SHRINKS}, {"STANDING", 8, 0},           {"SOURCE", 8, 0},
        {"SAID", 8, COLUMN_RIGHT},        {"REFUSED", 8, COLUMN_RIGHT},
    };
    char said[TOOL_TEXT], refused[TOOL_TEXT];
    if (listing->table == NULL) {
        listing->table = tool_table_new(listing->tool, columns, 5);
    }
    tool_table_row(listing->table,
                   (const char *const[]){tool_string(row, "address"), tool_string(row, "standing"),
                                         tool_string(row, "source"), ago(row, "said", said),
                                         ago(row, "refused", refused)},
                   NULL);
}

static void list_row(void *context, json_t *row)
{
    struct listing *listing = context;
    if (json_object_get(row, "address") != NULL) {
        address_row(listing, row);
    } else {
        domain_row(listing, row);
    }
}

enum control_exit tool_recipients_list(struct tool *tool)
{
    struct listing listing = {.tool = tool};
    struct tool_answer answer = {.context = &listing, .row = tool->json ? tool_row_json : list_row};
    enum control_exit code = tool_ask(tool, tool->command->words, domain_argument(tool), &answer);
    if (listing.table != NULL) {
        tool_table_end(listing.table);
    } else if (!tool->json && code == CONTROL_DONE) {
        printf("Nothing is known yet.\n");
    }
    return code;
}

/* ---- import and forget -------------------------------------------------------------------- */

struct sum {
    int64_t done, passed_over;
};

static void sum_row(void *context, json_t *row)
{
    struct sum *sum = context;
    sum->done += tool_integer(row, "imported") + tool_integer(row, "forgotten");
    sum->passed_over += tool_integer(row, "passed_over");
}

struct import {
    const struct tool *tool;
    struct tool_client *client;
    const char *path;
    struct recipient_lines lines;
    json_t *addresses;
    struct sum sum;
};

static enum control_exit send_addresses(struct import *import)
{
    struct tool_answer answer = {.context = &import->sum, .row = sum_row};
    json_t *arguments = domain_argument(import->tool);
    json_object_set_new(arguments, "addresses", import->addresses);
    import->addresses = json_array();
    enum control_exit code =
        tool_client_ask(import->client, import->tool->command->words, arguments, &answer);
    return code == CONTROL_NOTHING_MATCHED && import->sum.passed_over > 0 ? CONTROL_DONE : code;
}

static void add_line(struct import *import, const struct recipient_line *line)
{
    struct buffer address;
    buffer_init(&address, 0);
    buffer_append(&address, line->local);
    buffer_put_u8(&address, '@');
    buffer_append(&address, line->domain.length > 0 ? line->domain
                                                    : slice_from_text(import->tool->operands[0]));
    json_array_append_new(import->addresses, control_string(buffer_slice(&address)));
    buffer_done(&address);
}

/* The whole lines that are there. */
static enum control_exit take_lines(struct import *import)
{
    struct recipient_line line;
    const char *why;
    while (recipient_lines_next(&import->lines, &line, &why)) {
        if (line.local.length == 0) {
            why = "names everybody, which cannot be imported";
            break;
        }
        add_line(import, &line);
        if (json_array_size(import->addresses) == ADDRESSES_A_REQUEST) {
            enum control_exit code = send_addresses(import);
            if (code != CONTROL_DONE) {
                return code;
            }
        }
    }
    if (why != NULL) {
        tool_error("%s:%u: %s", import->path, import->lines.line, why);
        return CONTROL_FAILED;
    }
    return CONTROL_DONE;
}

static enum control_exit import_file(struct import *import, FILE *file)
{
    uint8_t *buffer = malloc(PIECE + RECIPIENT_LINE_MAX + 1);
    size_t kept = 0;
    enum control_exit code = buffer == NULL ? CONTROL_FAILED : CONTROL_DONE;
    for (bool end = false; code == CONTROL_DONE && !end;) {
        size_t got = fread(buffer + kept, 1, PIECE, file);
        end = got < PIECE;
        import->lines.rest = slice_make(buffer, kept + got);
        import->lines.is_end = end;
        code = take_lines(import);
        kept = import->lines.rest.length;
        if (kept > 0) {
            memmove(buffer, import->lines.rest.data, kept);
        }
    }
    if (code == CONTROL_DONE && ferror(file)) {
        tool_error("%s: cannot be read", import->path);
        code = CONTROL_FAILED;
    }
    if (code == CONTROL_DONE && json_array_size(import->addresses) > 0) {
        code = send_addresses(import);
    }
    free(buffer);
    return code;
}

static void say_sum(const struct tool *tool, const struct sum *sum, const char *key,
                    const char *word)
{
    if (tool->json) {
        json_t *row = json_pack("{ss sI sI}", "domain", tool->operands[0], key,
                                (json_int_t)sum->done, "passed_over", (json_int_t)sum->passed_over);
        tool_print_json(row);
        json_decref(row);
        return;
    }
    printf("%s %lld", word, (long long)sum->done);
    if (sum->passed_over > 0) {
        printf(", passed over %lld", (long long)sum->passed_over);
    }
    printf(".\n");
}

enum control_exit tool_recipients_import(struct tool *tool)
{
    struct import import = {.tool = tool, .path = tool->operands[1], .addresses = json_array()};
    bool is_input = strcmp(import.path, "-") == 0;
    FILE *file = is_input ? stdin : fopen(import.path, "rb");
    if (file == NULL) {
        tool_error("%s: %s", import.path, strerror(errno));
        json_decref(import.addresses);
        return CONTROL_FAILED;
    }
    enum control_exit code = tool_client_open(tool, &import.client);
    if (code == CONTROL_DONE) {
        code = import_file(&import, file);
        tool_client_close(import.client);
        if (code == CONTROL_DONE) {
            say_sum(tool, &import.sum, "imported", "Imported");
        }
    }
    json_decref(import.addresses);
    if (!is_input) {
        fclose(file);
    }
    return code;
}

enum control_exit tool_recipients_forget(struct tool *tool)
{
    struct sum sum = {0};
    struct tool_answer answer = {.context = &sum, .row = sum_row};
    bool all = (tool->given & OPTION_ALL) != 0;
    if (!all && tool->operand_count == 1) {
        return tool_usage("recipients forget whom? Give addresses, or --all");
    }
    json_t *arguments = domain_argument(tool);
    json_t *addresses = json_array();
    for (unsigned i = 1; i < tool->operand_count; i++) {
        json_array_append_new(addresses, control_string(slice_from_text(tool->operands[i])));
    }
    json_object_set_new(arguments, "addresses", addresses);
    json_object_set_new(arguments, "all", json_boolean(all));
    enum control_exit code = tool_ask(tool, tool->command->words, arguments, &answer);
    if (code != CONTROL_NOT_RUNNING && code != CONTROL_USAGE) {
        say_sum(tool, &sum, "forgotten", "Forgot");
    }
    return code;
}

/* ---- verify ------------------------------------------------------------------------------- */

static void verify_row(void *context, json_t *row)
{
    (void)context;
    char reply[700], random[700];
    const char *address = tool_string(row, "address");
    const json_t *exists = json_object_get(row, "exists");
    const json_t *takes_all = json_object_get(row, "takes_all");
    tool_clean(tool_string(row, "reply"), reply, sizeof(reply));
    tool_clean(tool_string(row, "random_reply"), random, sizeof(random));
    if (address[0] != '\0') {
        printf("%s: %s (%s)\n", address,
               json_is_true(exists)    ? "exists"
               : json_is_false(exists) ? "does not exist"
                                       : "the server does not say",
               reply[0] != '\0' ? reply : "no answer in time");
    }
    printf("An address that cannot exist: %s%s%s\n",
           json_is_true(takes_all)    ? "taken, so the server teaches nothing: "
           : json_is_false(takes_all) ? "refused, as it should be: "
                                      : "the server does not say",
           random[0] != '\0' && !json_is_null(takes_all) ? random : "", "");
}

enum control_exit tool_recipients_verify(struct tool *tool)
{
    struct tool_answer answer = {.row = tool->json ? tool_row_json : verify_row};
    struct tool_client *client;
    enum control_exit worst = tool_client_open(tool, &client);
    if (worst != CONTROL_DONE) {
        return worst;
    }
    for (unsigned i = 1; i < tool->operand_count || i == 1; i++) {
        json_t *arguments = domain_argument(tool);
        if (i < tool->operand_count) {
            json_object_set_new(arguments, "address",
                                control_string(slice_from_text(tool->operands[i])));
        }
        enum control_exit code = tool_client_ask(client, tool->command->words, arguments, &answer);
        worst = code > worst ? code : worst;
    }
    tool_client_close(client);
    return worst;
}
