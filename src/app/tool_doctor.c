/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast check DOMAIN`: what the doctor finds, as it is found.
 */
#include "app/doctor.h"
#include "app/name_servers.h"
#include "app/settings.h"
#include "app/tool.h"

#include <stdlib.h>
#include <strings.h>

enum { STEP_TIMEOUT_MS = 15000, SMTP_PORT = 25 };

struct consultation {
    const struct tool *tool;
    json_t *status;
    json_t *recipients; /* of the domain; NULL: nothing is kept */
};

/* ---- findings ----------------------------------------------------------------------------- */

static const char *level_word(enum doctor_level level)
{
    static const char *const words[] = {"good", "warning", "bad"};
    return words[level];
}

static void print_as_json(const struct doctor_finding *finding)
{
    json_t *advice = finding->advice != NULL ? json_string(finding->advice) : json_null();
    json_t *row = json_pack("{ss so ss so so}", "check", finding->check, "subject",
                            control_string(slice_from_text(finding->subject)), "level",
                            level_word(finding->level), "text",
                            control_string(slice_from_text(finding->text)), "advice", advice);
    tool_print_json(row);
    json_decref(row);
}

static void print_as_text(const struct consultation *consultation,
                          const struct doctor_finding *finding)
{
    static const enum tool_colour colours[] = {COLOUR_GOOD, COLOUR_WARN, COLOUR_BAD};
    char subject[256], text[600];
    printf("%s%-8s%s %-10s %s: %s\n", tool_colour_text(consultation->tool, colours[finding->level]),
           level_word(finding->level), tool_colour_text(consultation->tool, COLOUR_PLAIN),
           finding->check, tool_clean(finding->subject, subject, sizeof(subject)),
           tool_clean(finding->text, text, sizeof(text)));
    if (finding->advice != NULL) {
        printf("%20s-> %s\n", "", finding->advice);
    }
    fflush(stdout);
}

static void take_finding(void *context, const struct doctor_finding *finding)
{
    const struct consultation *consultation = context;
    if (consultation->tool->json) {
        print_as_json(finding);
    } else {
        print_as_text(consultation, finding);
    }
}

/* ---- the daemon --------------------------------------------------------------------------- */

static void keep_status(void *context, json_t *row)
{
    struct consultation *consultation = context;
    if (consultation->status == NULL) {
        consultation->status = json_incref(row);
    }
}

static void keep_recipients(void *context, json_t *row)
{
    struct consultation *consultation = context;
    if (consultation->recipients == NULL &&
        strcasecmp(tool_string(row, "domain"), consultation->tool->operands[0]) == 0) {
        consultation->recipients = json_incref(row);
    }
}

static int64_t age_s(const json_t *row, const char *key)
{
    return tool_is_null(row, key) ? -1 : (tool_now_ms() - tool_integer(row, key)) / 1000;
}

static struct doctor_recipients ask_recipients(struct consultation *consultation)
{
    struct tool_answer answer = {.context = consultation, .row = keep_recipients, .quiet = true};
    const json_t *row;
    if (tool_ask(consultation->tool, "recipients list", json_object(), &answer) != CONTROL_DONE ||
        (row = consultation->recipients) == NULL) {
        return (struct doctor_recipients){.list_age_s = -1, .checked_age_s = -1};
    }
    return (struct doctor_recipients){
        .known = true,
        .good = tool_integer(row, "good"),
        .bad = tool_integer(row, "bad"),
        .list_age_s = age_s(row, "list"),
        .checked_age_s = age_s(row, "checked"),
        .problem = tool_is_null(row, "problem") ? NULL : tool_string(row, "problem")};
}

static struct doctor_daemon ask_daemon(struct consultation *consultation)
{
    enum { HOUR_MS = 3600 * 1000, DAY_MS = 24 * HOUR_MS };
    struct tool_answer answer = {.context = consultation, .row = keep_status, .quiet = true};
    if (tool_ask(consultation->tool, "status", json_object(), &answer) != CONTROL_DONE ||
        consultation->status == NULL) {
        return (struct doctor_daemon){.known = false};
    }
    const json_t *status = consultation->status;
    const json_t *disk = json_object_get(status, "disk");
    int64_t up_ms = tool_integer(status, "now") - tool_integer(status, "started");
    int64_t taken = tool_integer(json_object_get(status, "accepted"), "bytes");
    return (struct doctor_daemon){
        .known = true,
        .recipients = ask_recipients(consultation),
        .accepting = json_is_true(json_object_get(status, "accepting")),
        .available_bytes = tool_integer(disk, "available_bytes"),
        .reserve_bytes = tool_integer(disk, "reserve_bytes"),
        .copy_bytes = tool_integer(json_object_get(status, "safety_copies"), "bytes"),
        .bytes_a_day = up_ms >= HOUR_MS ? (int64_t)((double)taken * DAY_MS / (double)up_ms) : 0};
}

/* ---- the command -------------------------------------------------------------------------- */

static struct slice lower_case(const char *text, char buffer[256])
{
    size_t length = 0;
    for (; text[length] != '\0' && length < 255; length++) {
        char c = text[length];
        buffer[length] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    length -= length > 0 && buffer[length - 1] == '.';
    return slice_make(buffer, length);
}

static bool take_port(const struct tool *tool, uint16_t *ret_port)
{
    uint64_t port;
    *ret_port = SMTP_PORT;
    if (tool->port == NULL) {
        return true;
    }
    if (!slice_to_u64(slice_from_text(tool->port), &port) || port == 0 || port > UINT16_MAX) {
        return false;
    }
    *ret_port = (uint16_t)port;
    return true;
}

enum control_exit tool_doctor(struct tool *tool)
{
    char domain[256];
    uint16_t port;
    if (!take_port(tool, &port)) {
        return tool_usage("--port: '%s' is no port", tool->port);
    }
    struct buffer problems;
    buffer_init(&problems, 0);
    struct settings *settings = settings_read(tool->configuration, &problems);
    struct name_servers *names =
        settings != NULL ? name_servers_read(settings_config(settings)) : NULL;
    if (names == NULL) {
        tool_print_findings(tool, buffer_slice(&problems));
        tool_error(settings == NULL ? "the configuration is wrong: nothing was looked at"
                                    : "out of memory");
        buffer_done(&problems);
        settings_free(settings);
        return CONTROL_NOTHING_MATCHED;
    }
    struct consultation consultation = {.tool = tool};
    const struct doctor_settings doctor = {
        .config = settings_config(settings),
        .dns = name_servers_settings(names),
        .daemon = ask_daemon(&consultation),
        .domain = lower_case(tool->operands[0], domain),
        .port = port,
        .timeout_ms = STEP_TIMEOUT_MS,
        .tell = take_finding,
        .context = &consultation,
    };
    unsigned bad = doctor_run(&doctor);
    json_decref(consultation.status);
    json_decref(consultation.recipients);
    name_servers_free(names);
    buffer_done(&problems);
    settings_free(settings);
    return bad > 0 ? CONTROL_NOTHING_MATCHED : CONTROL_DONE;
}
