/* SPDX-License-Identifier: Apache-2.0
 *
 * Lists of recipients, as the helper reads them from files and asks for them (app/list_desk.h):
 * `recipients load` takes one in pieces, a few thousand addresses a request, and with its end it is
 * in force. What came of each source is kept for whoever asks how fresh its recipients are.
 */
#include "service/core_control.h"

#include "service/control.h"
#include "sys/log.h"

#include <stdio.h>
#include <stdlib.h>

enum { SOURCES_MAX = 1024, PROBLEM_SIZE = 160 };

struct list_source {
    struct link link;              /* core->list_sources */
    int64_t loaded_ms, checked_ms; /* Unix time; 0: never in this life */
    uint64_t names;
    char problem[PROBLEM_SIZE]; /* of the last try; empty: none */
    size_t length;
    uint8_t name[];
};

static struct slice name_of(const struct list_source *source)
{
    return slice_make(source->name, source->length);
}

static struct list_source *find_source(const struct core *core, struct slice name)
{
    for (struct link *at = core->list_sources.next; at != &core->list_sources; at = at->next) {
        struct list_source *source = LIST_ENTRY(at, struct list_source, link);
        if (slice_equal(name_of(source), name)) {
            return source;
        }
    }
    return NULL;
}

static bool is_configured(const struct core *core, struct slice name)
{
    const struct relay_config *config = &core->config->relay;
    for (uint32_t i = 0; i < config->route_count; i++) {
        if (config->routes[i].recipients == RECIPIENTS_LIST &&
            slice_equal(config->routes[i].recipients_list, name)) {
            return true;
        }
    }
    return false;
}

static void source_free(struct list_source *source)
{
    list_remove(&source->link);
    free(source);
}

/* NULL: memory, or it is not configured. */
static struct list_source *take_source(struct core *core, struct slice name)
{
    struct list_source *source = find_source(core, name);
    if (source != NULL || !is_configured(core, name)) {
        return source;
    }
    source = calloc(1, sizeof(*source) + name.length);
    if (source != NULL) {
        source->length = name.length;
        memcpy(source->name, name.data, name.length);
        list_append(&core->list_sources, &source->link);
    }
    return source;
}

void core_lists_reconfigure(struct core *core)
{
    LIST_EACH(&core->list_sources, at, after)
    {
        struct list_source *source = LIST_ENTRY(at, struct list_source, link);
        if (!is_configured(core, name_of(source))) {
            report_list(core, name_of(source), NULL);
            source_free(source);
        }
    }
}

void core_lists_done(struct core *core)
{
    LIST_EACH(&core->list_sources, at, after)
    {
        source_free(LIST_ENTRY(at, struct list_source, link));
    }
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static enum control_step failed(struct control_request *request, enum error error)
{
    relay_list_give_up(request->core->relay);
    return control_fail(request, CONTROL_FAILED,
                        error == ERROR_MISSING   ? CONTROL_LIST_UNKNOWN
                        : error == ERROR_CLOSED  ? CONTROL_LIST_ENDED
                        : error == ERROR_INVALID ? "an address is of no domain of the blocks"
                        : error == ERROR_LIMIT   ? "too many names or domains"
                                                 : error_text(error));
}

static enum error add_all(struct control_request *request)
{
    const json_t *addresses = json_object_get(request->arguments, "addresses");
    enum error error = ERROR_NONE;
    for (size_t i = 0; error == ERROR_NONE && i < json_array_size(addresses); i++) {
        const json_t *address = json_array_get(addresses, i);
        error = relay_list_add(request->core->relay,
                               slice_make(json_string_value(address), json_string_length(address)));
    }
    return error;
}

static void loaded(struct control_request *request, struct list_source *source)
{
    const json_t *names = json_object_get(request->arguments, "names");
    source->names = (uint64_t)json_integer_value(names);
    source->loaded_ms = core_now(request->core).wall_ms;
    log_event(LOG_LEVEL_INFO, "recipients-list", LOG_SLICE("source", name_of(source)),
              LOG_NUMBER("names", (int64_t)source->names));
}

/* All is well with it at this moment. */
static void checked(struct core *core, struct list_source *source)
{
    source->checked_ms = core_now(core).wall_ms;
    source->problem[0] = '\0';
    report_list(core, name_of(source), NULL);
}

static void has_problem(struct control_request *request, struct list_source *source)
{
    struct slice problem = control_argument(request, "problem");
    snprintf(source->problem, sizeof(source->problem), "%.*s",
             SLICE_PRINT(slice_take(problem, PROBLEM_SIZE)));
    /* So that its domains have tables, and what is wrong is seen with them. */
    (void)!relay_list_begin(request->core->relay, name_of(source));
    relay_list_give_up(request->core->relay);
    report_list(request->core, name_of(source), source->problem);
}

enum control_step recipients_load_step(struct control_request *request)
{
    struct core *core = request->core;
    struct slice step = control_argument(request, "step");
    struct slice name = control_argument(request, "source");
    struct list_source *source = take_source(core, name);
    enum error error = ERROR_NONE;
    if (source == NULL) {
        return failed(request, is_configured(core, name) ? ERROR_MEMORY : ERROR_MISSING);
    }
    if (slice_equal(step, SLICE_LITERAL("begin"))) {
        error = relay_list_begin(core->relay, name);
    } else if (slice_equal(step, SLICE_LITERAL("add"))) {
        error = add_all(request);
    } else if (slice_equal(step, SLICE_LITERAL("end"))) {
        error = relay_list_end(core->relay, core_now(core));
        if (error == ERROR_NONE) {
            loaded(request, source);
            checked(core, source);
        }
    } else if (slice_equal(step, SLICE_LITERAL("same"))) {
        checked(core, source);
    } else if (slice_equal(step, SLICE_LITERAL("failed"))) {
        has_problem(request, source);
    } else {
        return control_fail(request, CONTROL_USAGE, "no such step");
    }
    return error == ERROR_NONE ? STEP_END : failed(request, error);
}

/* ---- how fresh ------------------------------------------------------------------------------- */

void control_put_list(const struct core *core, const struct route_config *route, json_t *row)
{
    bool listed = route != NULL && route->recipients == RECIPIENTS_LIST;
    const struct list_source *source = listed ? find_source(core, route->recipients_list) : NULL;
    control_set(row, "source",
                listed ? control_string(route->recipients_list) : json_string("learn"));
    control_set(row, "checked", control_time(source != NULL ? source->checked_ms : 0));
    control_set(row, "problem",
                source != NULL && source->problem[0] != '\0'
                    ? control_string(slice_from_text(source->problem))
                    : json_null());
}
