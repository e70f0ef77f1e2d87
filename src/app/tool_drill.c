/* SPDX-License-Identifier: Apache-2.0
 *
 * `holdfast drill` and `holdfast drill stop`. The drill is core's: it goes on when the tool is
 * interrupted.
 */
#include "app/tool.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { MINUTES_DEFAULT = 5 };

struct drilling {
    const struct tool *tool;
    struct tool_progress progress;
    int64_t until_ms;
    bool begun, drains;
};

static volatile sig_atomic_t interrupted;
static bool stop;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

/* ---- while it runs ------------------------------------------------------------------------ */

static void say_begun(struct drilling *drilling)
{
    char until[TOOL_TEXT];
    drilling->begun = true;
    if (!drilling->tool->json) {
        printf("Mail for %s is accepted and held back until %s.\n"
               "`holdfast drill stop` ends that earlier.\n",
               drilling->tool->operands[0], tool_time(drilling->until_ms, until));
        fflush(stdout);
    }
}

/* First the seconds of the freeze, then, behind one with nothing in it, deliveries. */
static void drill_progress(void *context, uint64_t done, uint64_t all)
{
    struct drilling *drilling = context;
    if (!drilling->begun) {
        say_begun(drilling);
    }
    if (all == 0 && !drilling->drains) {
        drilling->drains = true;
        tool_progress_end(&drilling->progress);
        tool_progress_begin(&drilling->progress, drilling->tool, "deliveries");
    } else {
        tool_progress_step(&drilling->progress, done, all);
    }
    stop = interrupted != 0;
}

/* ---- the report --------------------------------------------------------------------------- */

static const char *plural(int64_t count, const char *one, const char *more)
{
    return count == 1 ? one : more;
}

static const char *ended_text(const char *ended)
{
    static const char *const texts[][2] = {
        {"time", "by its time"},
        {"stop", "early: it was stopped"},
        {"failure", "early: the domain's first server failed, or was taken out"},
        {"storage", "early: no more mail could be stored"},
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (strcmp(texts[i][0], ended) == 0) {
            return texts[i][1];
        }
    }
    return ended;
}

static void print_messages(const json_t *row)
{
    char recipient[400];
    int64_t injected = tool_integer(row, "injected");
    if (tool_is_null(row, "recipient")) {
        printf("  test mail    none: the domain has no drill-recipient, and no name of its own\n");
        return;
    }
    printf("  test mail    %lld %s for %s%s\n", (long long)injected,
           plural(injected, "message", "messages"),
           tool_clean(tool_string(row, "recipient"), recipient, sizeof(recipient)),
           json_is_true(json_object_get(row, "envelope_only"))
               ? ", taken back at RCPT: there is no drill-recipient"
               : "");
}

/* Of what was held, all that has not come to a good or bad end. */
static long long left_of(const json_t *row)
{
    return tool_integer(row, "held") - tool_integer(row, "delivered") - tool_integer(row, "asked") -
           tool_integer(row, "refused");
}

static const char *verdict_of(const json_t *row)
{
    const char *ended = tool_string(row, "ended");
    bool early = strcmp(ended, "time") != 0 && strcmp(ended, "stop") != 0;
    if (early || tool_integer(row, "refused") > 0 || tool_integer(row, "out_of_order") > 0) {
        return "bad";
    }
    return left_of(row) > 0 || tool_integer(row, "doubled") > 0 ? "warning" : "good";
}

static void print_times(const json_t *row)
{
    printf("  drained      within %.3f s", (double)tool_integer(row, "drained_ms") / 1000);
    if (!tool_is_null(row, "rate")) {
        printf(", %.0f a second", json_number_value(json_object_get(row, "rate")));
    }
    if (!tool_is_null(row, "first_ms")) {
        printf("; the first reply after %.3f s", (double)tool_integer(row, "first_ms") / 1000);
    }
    printf("\n");
}

static void print_drain(const json_t *row)
{
    long long held = tool_integer(row, "held"), delivered = tool_integer(row, "delivered");
    long long asked = tool_integer(row, "asked"), refused = tool_integer(row, "refused");
    long long left = left_of(row);
    bool drained = !tool_is_null(row, "drained_ms");
    if (held == 0) {
        printf("  held         nothing: no mail came\n");
        return;
    }
    printf("  held         %lld %s\n", held, plural(held, "delivery", "deliveries"));
    if (delivered > 0 || asked == 0) {
        printf("  delivered    %lld\n", delivered);
    }
    if (asked > 0) {
        printf("  asked        %lld accepted at RCPT and taken back\n", asked);
    }
    if (refused > 0) {
        printf("  refused      %lld at RCPT, for good or for now: see holdfast trace\n", refused);
    }
    if (left > 0) {
        printf("  left         %lld %s\n", left,
               drained ? "put off, held or dead letters: see holdfast queue list and trace"
                       : "waiting for a server");
    }
    if (drained) {
        print_times(row);
    }
}

/* By the replies; where there were none nothing is known. */
static void print_order(const json_t *row)
{
    long long disorder = tool_integer(row, "out_of_order"), doubled = tool_integer(row, "doubled");
    if (tool_is_null(row, "first_ms") && doubled == 0) {
        return;
    }
    if (disorder == 0) {
        printf("  order        kept for every recipient\n");
    } else {
        printf("  order        %lld %s later mail of the same recipient\n", disorder,
               plural(disorder, "delivery came after", "deliveries came after"));
    }
    if (doubled == 0) {
        printf("  duplicates   none possible\n");
    } else {
        printf("  duplicates   %lld %s without a reply and may come twice\n", doubled,
               plural(doubled, "delivery was", "deliveries were"));
    }
}

static void report_row(void *context, json_t *row)
{
    struct drilling *drilling = context;
    char domain[300];
    tool_progress_end(&drilling->progress);
    if (drilling->tool->json) {
        tool_print_json(row);
        return;
    }
    printf("Drill of %s: %s\n", tool_clean(tool_string(row, "domain"), domain, sizeof(domain)),
           verdict_of(row));
    printf("  ended        %s\n", ended_text(tool_string(row, "ended")));
    print_messages(row);
    print_drain(row);
    print_order(row);
}

/* ---- the commands ------------------------------------------------------------------------- */

/* A number, all of the text. */
static bool read_number(const char *text, double *ret_number)
{
    char *end;
    errno = 0;
    *ret_number = strtod(text, &end);
    return end != text && *end == '\0' && errno == 0;
}

static bool read_arguments(const struct tool *tool, json_t *arguments, double *ret_minutes)
{
    double messages;
    *ret_minutes = MINUTES_DEFAULT;
    json_object_set_new(arguments, "domain", control_string(slice_from_text(tool->operands[0])));
    if (tool->minutes != NULL) {
        if (!read_number(tool->minutes, ret_minutes) ||
            !(*ret_minutes > 0 && *ret_minutes <= 1e6)) {
            (void)tool_usage("--minutes: '%s' is no number above 0", tool->minutes);
            return false;
        }
        json_object_set_new(arguments, "minutes", json_real(*ret_minutes));
    }
    if (tool->messages != NULL) {
        if (!read_number(tool->messages, &messages) || !(messages >= 0 && messages <= 1e6) ||
            messages != (double)(int64_t)messages) {
            (void)tool_usage("--messages: '%s' is no number", tool->messages);
            return false;
        }
        json_object_set_new(arguments, "messages", json_integer((json_int_t)messages));
    }
    return true;
}

enum control_exit tool_drill(struct tool *tool)
{
    struct drilling drilling = {.tool = tool};
    struct tool_answer answer = {.context = &drilling,
                                 .row = report_row,
                                 .progress = drill_progress,
                                 .immediate = true,
                                 .stop = &stop,
                                 .about = tool->operands[0]};
    const struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    json_t *arguments = json_object();
    char until[TOOL_TEXT];
    double minutes;
    if (!read_arguments(tool, arguments, &minutes)) {
        json_decref(arguments);
        return CONTROL_USAGE;
    }
    drilling.until_ms = tool_now_ms() + (int64_t)(minutes * 60000);
    sigaction(SIGINT, &action, NULL);
    tool_progress_begin(&drilling.progress, tool, "seconds");
    enum control_exit code = tool_ask(tool, "drill", arguments, &answer);
    tool_progress_end(&drilling.progress);
    bool left = stop || (code == CONTROL_NOT_RUNNING && drilling.begun);
    if (left && !drilling.drains) {
        tool_error(
            "the drill goes on until %s; holdfast drill stop ends it, the log has its report",
            tool_time(drilling.until_ms, until));
    } else if (left) {
        tool_error("the drill is over, its mail drains; the log has its report");
    }
    return code;
}

static void stopped_row(void *context, json_t *row)
{
    char domain[300];
    (void)context;
    printf("The drill of %s has ended.\n",
           tool_clean(tool_string(row, "domain"), domain, sizeof(domain)));
}

enum control_exit tool_drill_stop(struct tool *tool)
{
    struct tool_answer answer = {.row = tool->json ? tool_row_json : stopped_row};
    json_t *arguments = json_object();
    if (tool->operand_count > 0) {
        answer.about = tool->operands[0];
        json_object_set_new(arguments, "domain",
                            control_string(slice_from_text(tool->operands[0])));
    }
    return tool_ask(tool, "drill stop", arguments, &answer);
}
