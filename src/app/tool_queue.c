/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast queue list`, `show`, `watch`, and the commands that change deliveries.
 */
#include "app/tool.h"

#include <stdlib.h>

/* ---- list --------------------------------------------------------------------------------- */

/* R2: who may have it is asked first, and for a while alone. */
static void why_in_doubt(const json_t *row, char *buffer, size_t size)
{
    const char *server = tool_string(row, "server");
    const char *reason = tool_string(row, "reason");
    char only[TOOL_TEXT * 2] = "", time[TOOL_TEXT];
    if (!tool_is_null(row, "doubt_until")) {
        snprintf(only, sizeof(only), ", which alone gets it until %s",
                 tool_time(tool_integer(row, "doubt_until"), time));
    }
    snprintf(buffer, size, "in doubt: %s may have it%s%s%s",
             server[0] != '\0' ? server : "a server", only, reason[0] != '\0' ? ": " : "", reason);
}

const char *tool_why(const json_t *row, char *buffer, size_t size)
{
    const char *state = tool_string(row, "state");
    const char *server = tool_string(row, "server");
    const char *reason = tool_string(row, "reason");
    char next[TOOL_TEXT] = "";
    if (!tool_is_null(row, "next")) {
        tool_age((tool_integer(row, "next") - tool_now_ms()) / 1000, next);
    }
    const char *colon = reason[0] != '\0' ? ": " : "";
    if (strcmp(state, "waiting") == 0) {
        snprintf(buffer, size, server[0] != '\0' ? "waits for %s%s%s" : "waits%.0s%s%s", server,
                 colon, reason);
    } else if (strcmp(state, "in_flight") == 0) {
        snprintf(buffer, size, "going to %s", server);
    } else if (strcmp(state, "deferred") == 0) {
        snprintf(buffer, size, "next try in %s%s%s", next[0] != '\0' ? next : "a moment", colon,
                 reason);
    } else if (strcmp(state, "in_doubt") == 0) {
        why_in_doubt(row, buffer, size);
    } else if (strcmp(state, "finished") == 0) {
        const char *fate = tool_string(row, "fate"); /* not known yet of what was with another */
        snprintf(buffer, size, "%s%s%s", fate[0] != '\0' ? fate : "ended", colon, reason);
    } else if (json_is_true(json_object_get(row, "not_believed"))) {
        snprintf(buffer, size, "held, for this is not believed yet, and tried again %s%s%s%s",
                 next[0] != '\0' ? "in " : "when all is well there", next, colon, reason);
    } else if (strncmp(reason, state, strlen(state)) == 0) {
        snprintf(buffer, size, "%s", reason); /* "held by the operator" */
    } else {
        snprintf(buffer, size, "%s%s%s", state, colon, reason);
    }
    return buffer;
}

struct listing {
    const struct tool *tool;
    struct tool_table *table;
    uint64_t messages;
    int64_t bytes;
};

static const char *sender_of(const json_t *row)
{
    if (json_is_null(json_object_get(row, "sender"))) {
        return "(unreadable)";
    }
    const char *sender = tool_string(row, "sender");
    return sender[0] == '\0' ? "<>" : sender;
}

/* The first recipient and how many more there are. */
static const char *recipients_of(const json_t *row, char *buffer, size_t size)
{
    const char *first = json_string_value(json_array_get(json_object_get(row, "recipients"), 0));
    long long count = (long long)tool_integer(row, "recipient_count");
    if (count > 1) {
        snprintf(buffer, size, "%s +%lld", first == NULL ? "" : first, count - 1);
    } else {
        snprintf(buffer, size, "%s", first == NULL ? "" : first);
    }
    return buffer;
}

static void list_row(void *context, json_t *row)
{
    static const struct tool_column columns[] = {
        {"ID", 26, 0},
        {"AGE", 5, COLUMN_RIGHT},
        {"SIZE", 5, COLUMN_RIGHT},
        {"FROM", 0.2, COLUMN_SHRINKS},
        {"TO", 0.2, COLUMN_SHRINKS},
        {"WHY", 0.3, COLUMN_SHRINKS},
    };
    struct listing *listing = context;
    char age[TOOL_TEXT], size[TOOL_TEXT], to[400], why[600];
    const char *state = tool_string(row, "state");
    listing->messages++;
    listing->bytes += tool_integer(row, "bytes");
    if (listing->table == NULL) {
        listing->table = tool_table_new(listing->tool, columns, 6);
    }
    tool_table_row(
        listing->table,
        (const char *const[]){tool_string(row, "id"), tool_age(tool_integer(row, "age"), age),
                              tool_bytes(tool_integer(row, "bytes"), size), sender_of(row),
                              recipients_of(row, to, sizeof(to)), tool_why(row, why, sizeof(why))},
        (const enum tool_colour[]){COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN,
                                   COLOUR_PLAIN, tool_state_colour(state)});
}

enum control_exit tool_queue_list(struct tool *tool)
{
    bool nothing = false;
    bool of_all = (tool->given & ~OPTIONS_MEMBERS) == 0 && tool->operand_count == 0;
    struct listing listing = {.tool = tool};
    struct tool_answer answer = {.context = &listing,
                                 .row = tool->json ? tool_row_json : list_row,
                                 .ret_nothing = of_all ? &nothing : NULL};
    enum control_exit code = tool_ask_selected(tool, "queue list", NULL, &answer, MERGE_QUEUE);
    if (tool->json) {
        return code;
    }
    if (listing.messages > 0) {
        char bytes[TOOL_TEXT];
        tool_table_end(listing.table);
        printf("%llu %s, %s\n", (unsigned long long)listing.messages,
               listing.messages == 1 ? "message" : "messages", tool_bytes(listing.bytes, bytes));
    } else if (nothing && code <= CONTROL_NOTHING_MATCHED) {
        printf("The queue is empty.\n");
    }
    return code;
}

/* ---- show --------------------------------------------------------------------------------- */

static void show_line(const char *name, const char *text)
{
    char clean[1024];
    printf("  %-12s%s\n", name, tool_clean(text, clean, sizeof(clean)));
}

static void show_origin(const json_t *row)
{
    const json_t *origin = json_object_get(row, "origin");
    if (json_is_null(origin)) {
        return;
    }
    char time[TOOL_TEXT], age[TOOL_TEXT], text[1024];
    snprintf(text, sizeof(text), "%s, %s ago, by %s",
             tool_time(tool_integer(row, "received"), time),
             tool_age(tool_integer(row, "age"), age), tool_string(origin, "listener"));
    show_line("Received", text);
    snprintf(text, sizeof(text), "%s port %lld, %s, as %s", tool_string(origin, "client"),
             (long long)tool_integer(origin, "port"), tool_string(origin, "protocol"),
             tool_string(origin, "helo"));
    show_line("Client", text);
    if (tool_string(origin, "forwarded")[0] != '\0') {
        show_line("Forwarded", tool_string(origin, "forwarded"));
    }
    if (tool_string(origin, "user")[0] != '\0') {
        show_line("User", tool_string(origin, "user"));
    }
    if (tool_string(origin, "tls")[0] != '\0') {
        show_line("TLS", tool_string(origin, "tls"));
    }
}

static void show_deliveries(const struct tool *tool, const json_t *deliveries)
{
    static const struct tool_column columns[] = {
        {"N", 3, COLUMN_RIGHT},
        {"TO", 0.3, COLUMN_SHRINKS},
        {"STATE", 9, 0},
        {"TRIES", 5, COLUMN_RIGHT},
        {"ENDS", 19, 0},
        {"ROUTE", 0.2, COLUMN_SHRINKS},
        {"WHY", 0.4, COLUMN_WRAPS},
    };
    const json_t *delivery;
    size_t index;
    struct tool_table *table = tool_table_new(tool, columns, 7);
    json_array_foreach(deliveries, index, delivery)
    {
        char tries[TOOL_TEXT], ends[TOOL_TEXT], why[600], to[600];
        const char *state = tool_string(delivery, "state");
        int64_t expires = tool_integer(delivery, "expires");
        const char *slash = strchr(tool_string(delivery, "id"), '/');
        const char *redirect = tool_string(delivery, "redirect_to");
        snprintf(tries, sizeof(tries), "%lld", (long long)tool_integer(delivery, "attempts"));
        snprintf(to, sizeof(to), "%s%s%s", tool_string(delivery, "recipient"),
                 redirect[0] != '\0' ? " > " : "", redirect);
        tool_table_row(table,
                       (const char *const[]){slash == NULL ? "" : slash + 1, to, state, tries,
                                             expires == 0 ? "" : tool_time(expires, ends),
                                             tool_string(delivery, "route"),
                                             tool_why(delivery, why, sizeof(why))},
                       (const enum tool_colour[]){COLOUR_PLAIN, COLOUR_PLAIN,
                                                  tool_state_colour(state), COLOUR_PLAIN,
                                                  COLOUR_PLAIN, COLOUR_PLAIN, COLOUR_PLAIN});
    }
    tool_table_end(table);
}

static void show_row(void *context, json_t *row)
{
    struct listing *listing = context;
    char size[TOOL_TEXT];
    printf("%s%s\n", listing->messages++ > 0 ? "\n" : "", tool_string(row, "id"));
    show_line("From", sender_of(row));
    show_origin(row);
    show_line("Size", tool_bytes(tool_integer(row, "bytes"), size));
    if (tool_string(row, "message_id")[0] != '\0') {
        show_line("Message-ID", tool_string(row, "message_id"));
    }
    if (!tool_is_null(row, "copy_of")) {
        show_line("Copy of", tool_string(row, "copy_of"));
    }
    printf("\n");
    show_deliveries(listing->tool, json_object_get(row, "deliveries"));
}

static bool is_selective(const struct tool *tool)
{
    return tool->operand_count > 0 || (tool->given & OPTIONS_SELECT) != 0;
}

enum control_exit tool_queue_show(struct tool *tool)
{
    struct listing listing = {.tool = tool};
    struct tool_answer answer = {.context = &listing, .row = tool->json ? tool_row_json : show_row};
    if (!is_selective(tool)) {
        return tool_usage("show which ones? Give IDs, a selection such as --domain, or --all");
    }
    return tool_ask_selected(tool, "queue show", NULL, &answer, MERGE_QUEUE);
}

/* ---- changes ------------------------------------------------------------------------------ */

struct acting {
    const struct tool *tool;
    uint64_t done, failed;
    struct tool_progress progress;
};

static void act_row(void *context, json_t *row)
{
    struct acting *acting = context;
    bool done = json_is_true(json_object_get(row, "done"));
    acting->done += done;
    acting->failed += !done;
    if (acting->tool->json) {
        tool_print_json(row);
    } else if (!done) {
        char recipient[400], error[400];
        tool_progress_end(&acting->progress);
        tool_error("%s (%s): %s", tool_string(row, "id"),
                   tool_clean(tool_string(row, "recipient"), recipient, sizeof(recipient)),
                   tool_clean(tool_string(row, "error"), error, sizeof(error)));
    }
}

static void act_progress(void *context, uint64_t done, uint64_t all)
{
    struct acting *acting = context;
    tool_progress_step(&acting->progress, done, all);
}

/* "Held 3 deliveries." */
static const char *done_word(const char *command)
{
    static const char *const words[][2] = {
        {"queue retry", "Will try again"}, {"queue hold", "Held"},
        {"queue release", "Released"},     {"queue redirect", "Redirected"},
        {"queue discard", "Discarded"},    {"queue bounce", "Bounced"},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(words[i][0], command) == 0) {
            return words[i][1];
        }
    }
    return "Changed";
}

static json_t *act_arguments(const struct tool *tool)
{
    json_t *arguments = json_object();
    if (tool->to != NULL) {
        json_object_set_new(arguments, "to", control_string(slice_from_text(tool->to)));
    }
    if (tool->reason != NULL) {
        json_object_set_new(arguments, "reason", control_string(slice_from_text(tool->reason)));
    }
    if ((tool->given & OPTION_FORCE) != 0) {
        json_object_set_new(arguments, "force", json_true());
    }
    return arguments;
}

enum control_exit tool_queue_act(struct tool *tool)
{
    const char *command = tool->command->words;
    struct acting acting = {.tool = tool};
    struct tool_answer answer = {.context = &acting, .row = act_row, .progress = act_progress};
    if (!is_selective(tool)) {
        return tool_usage("%s which ones? Give IDs, a selection such as --domain, or --all",
                          strchr(command, ' ') + 1);
    }
    if ((tool->command->options & OPTION_TO) != 0 && tool->to == NULL) {
        return tool_usage("redirect needs --to SERVER or --to ADDRESS");
    }
    tool_progress_begin(&acting.progress, tool, "messages");
    enum control_exit code =
        tool_ask_selected(tool, command, act_arguments(tool), &answer, MERGE_AFTER);
    tool_progress_end(&acting.progress);
    if (!tool->json && acting.done + acting.failed > 0) {
        printf("%s %llu %s", done_word(command), (unsigned long long)acting.done,
               acting.done == 1 ? "delivery" : "deliveries");
        if (acting.failed > 0) {
            printf(", %llu not", (unsigned long long)acting.failed);
        }
        printf(".\n");
    }
    return code;
}
