/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast trace` and `holdfast queue watch`: events, one line each.
 */
#include "app/tool.h"
#include "base/id.h"

#include <stdlib.h>

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

/* "554 5.7.1 No; stage mail, HELO mail.example; by 192.0.2.7; 12 more were left out" */
static const char *refusal_detail(const json_t *row, char *buffer, size_t size)
{
    const char *reply = tool_string(row, "reply"), *reason = tool_string(row, "reason");
    int64_t left_out = tool_integer(row, "left_out");
    int length =
        snprintf(buffer, size, "%s%s%s%s%s%sby %s", reply, reply[0] != '\0' ? "; " : "", reason,
                 reason[0] != '\0' ? "; " : "", tool_string(row, "sender"),
                 tool_string(row, "sender")[0] != '\0' ? " " : "", tool_string(row, "client"));
    if (left_out > 0 && length >= 0 && (size_t)length < size) {
        snprintf(buffer + length, size - (size_t)length, "; %lld more of its network were left out",
                 (long long)left_out);
    }
    return buffer;
}

/* "ann@example.org by 192.0.2.7: wrong; by scram, listener submission; next try ..." */
static const char *login_detail(const json_t *row, char *buffer, size_t size)
{
    const char *reason = tool_string(row, "reason"), *user = tool_string(row, "user");
    int64_t left_out = tool_integer(row, "left_out");
    char next[TOOL_TEXT];
    int length = snprintf(buffer, size, "%s%sby %s%s%s", user, user[0] != '\0' ? " " : "",
                          tool_string(row, "client"), reason[0] != '\0' ? ": " : "", reason);
    if (!tool_is_null(row, "next") && length >= 0 && (size_t)length < size) {
        length += snprintf(buffer + length, size - (size_t)length, "; must wait until %s",
                           tool_time(tool_integer(row, "next"), next));
    }
    if (left_out > 0 && length >= 0 && (size_t)length < size) {
        snprintf(buffer + length, size - (size_t)length, "; %lld more were left out",
                 (long long)left_out);
    }
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
    } else if (is(event, "refused")) {
        refusal_detail(row, buffer, size);
    } else if (is(event, "login") || is(event, "denied")) {
        login_detail(row, buffer, size);
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

enum {
    TABLE_LEAST = 120, /* columns of a terminal for a table of events */
    LINE_ID = 26,
    LINE_EVENT = 10,
    LINE_SERVER = 8,
    LINE_WHO_LEAST = 8,
    LINE_WHO = 28,
    LINE_WHAT = 24, /* with less left, what has happened goes into a line of its own */
};

/* Columns that stand below each other, within the terminal's width. */
static void event_line(const struct tracing *tracing, const json_t *row, const char *time)
{
    char recipient[400], detail[800], what[800], cell[4][256], cut[800];
    const char *event = tool_string(row, "event");
    const char *who = tool_string(row, tool_is_null(row, "subject") ? "recipient" : "subject");
    enum tool_colour colour = is_handed_over(event) ? COLOUR_GOOD : tool_state_colour(event);
    size_t width = tool_terminal_width(), indent = strlen(time) + 1;
    size_t used = indent + LINE_ID + 1 + LINE_EVENT + 1 + LINE_SERVER + 1;
    bool own_line = width < used + LINE_WHO + 1 + LINE_WHAT;
    size_t room = width > used + LINE_WHO_LEAST ? width - used : LINE_WHO_LEAST;
    size_t who_width = room < LINE_WHO ? room : LINE_WHO;
    tool_clean(who, recipient, sizeof(recipient));
    tool_clean(event_detail(row, detail, sizeof(detail)), what, sizeof(what));
    printf("%s %s %s%s%s %s %s", time,
           tool_cell(tool_string(row, "id"), LINE_ID, cell[0], sizeof(cell[0])),
           tool_colour_text(tracing->tool, colour),
           tool_cell(event, LINE_EVENT, cell[1], sizeof(cell[1])),
           tool_colour_text(tracing->tool, COLOUR_PLAIN),
           tool_cell(tool_string(row, "server"), LINE_SERVER, cell[2], sizeof(cell[2])),
           tool_cell(recipient, who_width, cell[3], sizeof(cell[3])));
    if (!own_line) {
        printf(" %s", tool_cut(what, width - used - LINE_WHO - 1, cut, sizeof(cut)));
    } else if (what[0] != '\0') {
        printf("\n%*s%s", (int)indent, "", tool_cut(what, width - indent, cut, sizeof(cut)));
    }
    printf("\n");
}

static void trace_row(void *context, json_t *row)
{
    static const struct tool_column columns[] = {
        {"TIME", 19, 0},
        {"ID", 26, 0},
        {"EVENT", 9, 0},
        {"TO", 0.2, COLUMN_SHRINKS},
        {"SERVER", 0.2, COLUMN_SHRINKS},
        {"WHAT", 0.4, COLUMN_WRAPS},
    };
    struct tracing *tracing = context;
    char time[TOOL_TEXT], detail[800];
    const char *event = tool_string(row, "event");
    if (tracing->tool->terminal && tool_terminal_width() < TABLE_LEAST) {
        event_line(tracing, row, tool_time(tool_integer(row, "time"), time));
        return;
    }
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

/* ---- of a whole cluster ------------------------------------------------------------------- */

/* Who accepted a message knows its addresses; who handed it over only its id. So the first question
 * is which messages are meant, the second what became of them. */
struct story {
    json_t *rows;  /* an array */
    json_t *known; /* id to the row of its acceptance */
    json_t *ids;   /* as keys: to be asked for */
};

/* Refusals and logins have an id of zeros, changes of servers none. */
static bool is_message(const json_t *row)
{
    const char *id = tool_string(row, "id");
    return id[strspn(id, "0")] != '\0';
}

static void keep_row(void *context, json_t *row)
{
    struct story *story = context;
    const char *id = tool_string(row, "id"), *event = tool_string(row, "event");
    json_array_append(story->rows, row);
    if (is(event, "accepted") || is(event, "imported")) {
        json_object_set(story->known, id, row);
    }
    if (is_message(row)) {
        json_object_set_new(story->ids, id, json_true());
    }
}

/* Address number n of "a@x, b@y"; NULL: it is not there. */
static json_t *address_at(const char *text, int64_t n)
{
    while (n-- > 0 && text != NULL) {
        text = strstr(text, ", ");
        text = text == NULL ? NULL : text + 2;
    }
    return text == NULL ? NULL : json_stringn(text, strcspn(text, ","));
}

static void fill_in(const struct story *story, json_t *row)
{
    const json_t *known = json_object_get(story->known, tool_string(row, "id"));
    if (known == NULL || tool_is_null(row, "delivery") || !tool_is_null(row, "recipient")) {
        return;
    }
    json_t *address = address_at(tool_string(known, "recipient"), tool_integer(row, "delivery"));
    if (address != NULL) {
        json_object_set_new(row, "recipient", address);
    }
    if (tool_is_null(row, "sender")) {
        json_object_set(row, "sender", json_object_get(known, "sender"));
    }
}

struct told {
    json_t *row;
    size_t place; /* among those of one moment */
};

static int by_time(const void *a, const void *b)
{
    const struct told *left = a, *right = b;
    int64_t apart = tool_integer(left->row, "time") - tool_integer(right->row, "time");
    return apart != 0 ? (apart < 0 ? -1 : 1) : (left->place < right->place ? -1 : 1);
}

static void tell_story(const struct story *story, const struct tool_answer *answer)
{
    size_t count = json_array_size(story->rows);
    struct told *told = calloc(count + 1, sizeof(*told));
    for (size_t i = 0; told != NULL && i < count; i++) {
        told[i] = (struct told){json_array_get(story->rows, i), i};
        fill_in(story, told[i].row);
    }
    if (told != NULL) {
        qsort(told, count, sizeof(*told), by_time);
    }
    for (size_t i = 0; told != NULL && i < count; i++) {
        answer->row(answer->context, told[i].row);
    }
    free(told);
}

/* Leaves what is about no message, and makes the arguments of the second question. */
static json_t *second_question(struct story *story)
{
    json_t *ids = json_array();
    const char *id;
    json_t *value;
    json_object_foreach(story->ids, id, value)
    {
        if (json_array_size(ids) < 1000) {
            json_array_append_new(ids, json_string(id));
        }
    }
    for (size_t i = json_array_size(story->rows); i > 0; i--) {
        if (is_message(json_array_get(story->rows, i - 1))) {
            json_array_remove(story->rows, i - 1);
        }
    }
    return json_pack("{so}", "ids", ids);
}

static enum control_exit trace_cluster(struct tool_members *members, json_t *arguments,
                                       const struct tool_answer *answer)
{
    struct story story = {json_array(), json_object(), json_object()};
    const struct tool_answer keeping = {.context = &story, .row = keep_row};
    struct message_id id;
    struct slice what = slice_from_text(json_string_value(json_object_get(arguments, "what")));
    bool is_id = id_from_text(slice_take(what, slice_find(what, '/')), &id);
    enum control_exit code = tool_members_ask(members, "trace", arguments, &keeping);
    if (!is_id && json_object_size(story.ids) > 0) {
        struct tool_answer quiet = keeping;
        quiet.quiet = true;
        (void)tool_members_ask(members, "trace", second_question(&story), &quiet);
    }
    tell_story(&story, answer);
    json_decref(story.rows);
    json_decref(story.known);
    json_decref(story.ids);
    return code;
}

enum control_exit tool_trace(struct tool *tool)
{
    struct tracing tracing = {.tool = tool};
    struct tool_answer answer = {.context = &tracing,
                                 .row = tool->json ? tool_row_json : trace_row};
    struct tool_members *members;
    enum control_exit code = tool_members_open(tool, MERGE_TIME, &members);
    if (code != CONTROL_DONE) {
        return code;
    }
    json_t *arguments =
        json_pack("{so}", "what", control_string(slice_from_text(tool->operands[0])));
    code = tool_members_are_several(members)
               ? trace_cluster(members, arguments, &answer)
               : tool_members_ask(members, "trace", arguments, &answer);
    code = tool_members_close(members, code);
    if (tracing.table != NULL) {
        tool_table_end(tracing.table);
    }
    return code;
}

static void history_row(void *context, json_t *row)
{
    static const struct tool_column columns[] = {
        {"TIME", 19, 0}, {"OF", 0.2, COLUMN_SHRINKS}, {"EVENT", 8, 0}, {"WHAT", 0.5, COLUMN_WRAPS}};
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

/* A line at once: somebody is looking, and knows the day. */
static void watch_row(void *context, json_t *row)
{
    struct tracing *tracing = context;
    char time[TOOL_TEXT];
    tool_progress_hide(&tracing->progress);
    if (tracing->tool->json) {
        tool_print_json(row);
    } else if (tracing->tool->terminal) {
        event_line(tracing, row, tool_time(tool_integer(row, "time"), time) + sizeof("2026-11-22"));
    } else {
        char who[400], server[128], detail[800], what[800];
        const char *about = tool_is_null(row, "subject") ? "recipient" : "subject";
        printf("%s %s %-10s %s %s %s\n", tool_time(tool_integer(row, "time"), time),
               tool_string(row, "id"), tool_string(row, "event"),
               tool_clean(tool_string(row, about), who, sizeof(who)),
               tool_clean(tool_string(row, "server"), server, sizeof(server)),
               tool_clean(event_detail(row, detail, sizeof(detail)), what, sizeof(what)));
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
    enum control_exit code = tool_ask_selected(tool, "queue watch", NULL, &answer, MERGE_NOT);
    tool_progress_end(&tracing.progress);
    return code;
}
