/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast queue resend`: mail that was handed over goes again, from its safety copy.
 */
#include "app/settings.h"
#include "app/settings_internal.h"
#include "app/tool.h"

#include <stdlib.h>
#include <time.h>

/* ---- points in time ----------------------------------------------------------------------- */

static bool is_sound(const struct tm *tm)
{
    return tm->tm_mon >= 0 && tm->tm_mon <= 11 && tm->tm_mday >= 1 && tm->tm_mday <= 31 &&
           tm->tm_hour >= 0 && tm->tm_hour <= 23 && tm->tm_min >= 0 && tm->tm_min <= 59 &&
           tm->tm_sec >= 0 && tm->tm_sec <= 60;
}

/* "14:30" or "14:30:15", to its end. */
static bool parse_clock(const char *text, struct tm *tm, const char **ret_rest)
{
    int length = 0;
    if (sscanf(text, "%2d:%2d%n", &tm->tm_hour, &tm->tm_min, &length) != 2 || length < 4) {
        return false;
    }
    text += length;
    if (sscanf(text, ":%2d%n", &tm->tm_sec, &length) == 1) {
        text += length;
    }
    *ret_rest = text;
    return true;
}

static int64_t to_ms(struct tm *tm, bool utc)
{
    tm->tm_isdst = -1;
    time_t time = utc ? timegm(tm) : mktime(tm);
    return (int64_t)time * 1000;
}

/* The last time that the clock showed it. */
static bool parse_today(const char *text, int64_t now_ms, int64_t *ret_ms)
{
    struct tm tm;
    time_t now = (time_t)(now_ms / 1000);
    bool utc = text[0] != '\0' && text[strlen(text) - 1] == 'Z';
    (void)(utc ? gmtime_r(&now, &tm) : localtime_r(&now, &tm));
    tm.tm_sec = 0;
    if (!parse_clock(text, &tm, &text) || strcmp(text, utc ? "Z" : "") != 0 || !is_sound(&tm)) {
        return false;
    }
    struct tm yesterday = tm;
    *ret_ms = to_ms(&tm, utc);
    if (*ret_ms > now_ms) {
        yesterday.tm_mday--;
        *ret_ms = to_ms(&yesterday, utc);
    }
    return true;
}

static bool parse_date(const char *text, int64_t *ret_ms)
{
    struct tm tm = {0};
    int length = 0;
    if (sscanf(text, "%4d-%2d-%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &length) != 3) {
        return false;
    }
    text += length;
    if ((text[0] == ' ' || text[0] == 'T') && !parse_clock(text + 1, &tm, &text)) {
        return false;
    }
    bool utc = strcmp(text, "Z") == 0;
    bool known = tm.tm_year >= 1970 && tm.tm_year <= 9999;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    if ((!utc && text[0] != '\0') || !known || !is_sound(&tm)) {
        return false;
    }
    *ret_ms = to_ms(&tm, utc);
    return true;
}

bool tool_parse_time(const char *text, int64_t now_ms, int64_t *ret_ms)
{
    uint64_t value;
    const char *why;
    struct slice whole = slice_from_text(text);
    if (value_duration(whole, &value, &why)) {
        *ret_ms = value > (uint64_t)now_ms ? 0 : now_ms - (int64_t)value;
        return true;
    }
    if (text[0] == '@') {
        bool good = slice_to_u64(slice_skip(whole, 1), &value) && value < INT64_MAX / 1000;
        *ret_ms = good ? (int64_t)value * 1000 : 0;
        return good;
    }
    return parse_today(text, now_ms, ret_ms) || parse_date(text, ret_ms);
}

/* ---- the command -------------------------------------------------------------------------- */

struct resending {
    const struct tool *tool;
    struct tool_table *table;
    struct tool_progress progress;
    uint64_t messages, deliveries, failed;
    int64_t bytes;
};

static const char *recipients_of(const json_t *row, char *text, size_t size)
{
    int64_t count = tool_integer(row, "recipient_count");
    const json_t *first = json_array_get(json_object_get(row, "recipients"), 0);
    const char *address = json_is_string(first) ? json_string_value(first) : "";
    if (count > 1) {
        snprintf(text, size, "%s and %lld more", address, (long long)count - 1);
    } else {
        snprintf(text, size, "%s", address);
    }
    return text;
}

static void list_row(struct resending *resending, const json_t *row)
{
    static const struct tool_column columns[] = {
        {"ID", 26, 0},
        {"HANDED OVER", 19, 0},
        {"SERVER", 8, 0},
        {"FROM", 0.25, COLUMN_SHRINKS},
        {"TO", 0.25, COLUMN_SHRINKS},
        {"SIZE", 5, COLUMN_RIGHT},
    };
    char time[TOOL_TEXT], size[TOOL_TEXT], to[600];
    const char *sender = tool_string(row, "sender");
    if (resending->table == NULL) {
        resending->table = tool_table_new(resending->tool, columns, 6);
    }
    tool_table_row(resending->table,
                   (const char *const[]){
                       tool_string(row, "id"), tool_time(tool_integer(row, "handed_over"), time),
                       tool_string(row, "server"), sender[0] == '\0' ? "<>" : sender,
                       recipients_of(row, to, sizeof(to)),
                       tool_bytes(tool_integer(row, "bytes"), size)},
                   NULL);
}

static void resend_row(void *context, json_t *row)
{
    struct resending *resending = context;
    const struct tool *tool = resending->tool;
    bool failed = !tool_is_null(row, "error");
    resending->failed += failed;
    if (!failed) {
        resending->messages++;
        resending->deliveries += (uint64_t)tool_integer(row, "recipient_count");
        resending->bytes += tool_integer(row, "bytes");
    }
    if (tool->json) {
        tool_print_json(row);
    } else if (failed) {
        char error[400];
        tool_progress_end(&resending->progress);
        tool_error("%s: %s", tool_string(row, "id"),
                   tool_clean(tool_string(row, "error"), error, sizeof(error)));
    } else if ((tool->given & OPTION_DRY_RUN) != 0) {
        list_row(resending, row);
    }
}

static void resend_progress(void *context, uint64_t done, uint64_t all)
{
    struct resending *resending = context;
    tool_progress_step(&resending->progress, done, all);
}

static json_t *resend_arguments(const struct tool *tool)
{
    json_t *arguments = json_object();
    if ((tool->given & OPTION_SINCE) != 0) {
        json_object_set_new(arguments, "since", json_integer(tool->since_ms));
    }
    if ((tool->given & OPTION_UNTIL) != 0) {
        json_object_set_new(arguments, "until", json_integer(tool->until_ms));
    }
    json_object_set_new(arguments, "dry_run", json_boolean(tool->given & OPTION_DRY_RUN));
    json_object_set_new(arguments, "again", json_boolean(tool->given & OPTION_AGAIN));
    return arguments;
}

enum control_exit tool_queue_resend(struct tool *tool)
{
    struct resending resending = {.tool = tool};
    struct tool_answer answer = {
        .context = &resending, .row = resend_row, .progress = resend_progress};
    bool dry_run = (tool->given & OPTION_DRY_RUN) != 0;
    if (tool->operand_count == 0 && (tool->given & ~(OPTION_DRY_RUN | OPTION_AGAIN)) == 0) {
        return tool_usage("queue resend which ones? Give IDs, a selection such as --domain or "
                          "--since, or --all");
    }
    tool_progress_begin(&resending.progress, tool, "deliveries");
    enum control_exit code =
        tool_ask_selected(tool, "queue resend", resend_arguments(tool), &answer, MERGE_NOT);
    tool_progress_end(&resending.progress);
    if (resending.table != NULL) {
        tool_table_end(resending.table);
    }
    if (!tool->json && resending.messages > 0) {
        char bytes[TOOL_TEXT];
        printf("%s %llu %s for %llu %s, %s.\n", dry_run ? "Would send" : "Sent",
               (unsigned long long)resending.messages,
               resending.messages == 1 ? "message" : "messages",
               (unsigned long long)resending.deliveries,
               resending.deliveries == 1 ? "recipient" : "recipients",
               tool_bytes(resending.bytes, bytes));
    }
    return code;
}
