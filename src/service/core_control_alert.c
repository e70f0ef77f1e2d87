/* SPDX-License-Identifier: Apache-2.0
 *
 * `alert news`: for the process that tells people of alerts. It asks now and then, so nothing is
 * kept here of who is listening, and mail never waits for him.
 */
#include "service/core_control.h"

enum { ROWS_A_STEP = 100 };

static bool number_of(const struct control_request *request, const char *name, uint64_t *ret_number)
{
    const json_t *value = json_object_get(request->arguments, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *ret_number = (uint64_t)json_integer_value(value);
    return true;
}

static const char *why_failing(const json_t *failing, struct slice name)
{
    const char *key;
    json_t *why;
    json_object_foreach((json_t *)(uintptr_t)failing, key, why)
    {
        if (slice_equal(slice_from_text(key), name) && json_is_string(why)) {
            return json_string_value(why);
        }
    }
    return NULL;
}

/* Blocks that the configuration has no more are well. */
static void take_failing(struct core *core, const json_t *failing)
{
    LIST_EACH(&core->alerts.standing, at, after)
    {
        const struct alert *alert = LIST_ENTRY(at, struct alert, link);
        if (alert->kind == ALERT_HOOK && why_failing(failing, alert->subject) == NULL) {
            report_hook(core, alert->subject, NULL);
        }
    }
    for (uint32_t i = 0; i < core->config->hook_count; i++) {
        struct slice name = core->config->hooks[i].name;
        const char *why = why_failing(failing, name);
        if (why != NULL) {
            report_hook(core, name, why);
        }
    }
}

enum control_step alert_news_begin(struct control_request *request)
{
    struct core *core = request->core;
    struct alert_news *news = &core->alert_news;
    uint64_t life = 0, done;
    if (!core->loaded) {
        return control_not_yet(request); /* what stands is not known yet */
    }
    take_failing(core, json_object_get(request->arguments, "failing"));
    bool same_life = number_of(request, "life", &life) && life == (uint64_t)core->started_wall_ms;
    if (same_life && number_of(request, "done", &done) && done <= news->last) {
        news->done = done;
    }
    if (!same_life || !number_of(request, "after", &request->alert_after)) {
        request->alert_after = news->done;
    }
    request->alert_standing = !same_life || control_flag(request, "standing");
    json_t *row = json_object();
    control_set(row, "life", json_integer(core->started_wall_ms));
    control_set(row, "after", json_integer((json_int_t)request->alert_after));
    control_row(request, row);
    return STEP_MORE;
}

/* The next of those that stand, counted from the first that stands now. */
static void put_standing(struct control_request *request)
{
    uint32_t at = 0, first = request->alert_at;
    LIST_EACH(&request->core->alerts.standing, link, after)
    {
        if (at >= first && at < first + ROWS_A_STEP) {
            const struct alert *alert = LIST_ENTRY(link, struct alert, link);
            json_t *row = control_alert(alert);
            control_set(row, "edge", json_string("stands"));
            control_set(row, "number", json_integer((json_int_t)alert->number));
            control_set(row, "time", json_integer(alert->since_wall_ms));
            control_row(request, row);
            request->alert_at++;
        }
        at++;
    }
    request->alert_standing = request->alert_at == first + ROWS_A_STEP;
}

static json_t *edge_row(const struct alert_news_item *item)
{
    json_t *row = json_object();
    control_set(row, "edge", json_string(alert_edge_text(item->edge)));
    control_set(row, "number", json_integer((json_int_t)item->number));
    control_set(row, "time", json_integer(item->time_wall_ms));
    control_set(row, "kind", json_string(alert_kind_text(item->kind)));
    control_set(row, "subject", control_string_or_null(item->subject));
    control_set(row, "since", json_integer(item->since_wall_ms));
    control_set(row, "text", control_string(item->text));
    control_set(row, "was", control_string_or_null(item->was));
    control_set(row, "ended",
                item->edge == ALERT_ENDED ? json_string(alert_ending_text(item->ending))
                                          : json_null());
    control_set(row, "from", control_string_or_null(item->from));
    control_set(row, "to", control_string_or_null(item->to));
    return row;
}

enum control_step alert_news_step(struct control_request *request)
{
    const struct alert_news *news = &request->core->alert_news;
    for (int i = 0; i < ROWS_A_STEP; i++) {
        const struct alert_news_item *item = alert_news_after(news, request->alert_after);
        if (item == NULL && request->alert_standing) {
            put_standing(request);
            return STEP_MORE;
        }
        if (item == NULL) {
            return STEP_END;
        }
        request->alert_after = item->number;
        control_row(request, edge_row(item));
    }
    return STEP_MORE;
}
