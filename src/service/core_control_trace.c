/* SPDX-License-Identifier: Apache-2.0
 *
 * `trace`: the events of messages out of the event journal. The recipient of a delivery stands only
 * in the event of its acceptance, which comes first; it is remembered from there.
 */
#include "service/core_control.h"

#include <stdlib.h>

struct known_message {
    struct message_id id;
    struct slice sender;
    const struct slice *recipients;
    uint32_t recipient_count;
};

struct control_trace {
    struct arena arena;
    struct known_message *known;
    size_t count, capacity;
    int64_t delivery;  /* asked for with "ID/N", or -1 */
    struct slice name; /* "server history": of the only server or lane asked for; empty: all */
    bool stepping;
    bool end;
    bool cut;
    bool failed; /* memory: some ids were not searched for */
};

void control_trace_free(struct control_trace *trace)
{
    if (trace != NULL) {
        arena_done(&trace->arena);
        free(trace->known);
        free(trace);
    }
}

static void remember(struct control_trace *trace, const struct event *event)
{
    if (trace->count == trace->capacity) {
        size_t capacity = trace->capacity == 0 ? 16 : trace->capacity * 2;
        struct known_message *known = realloc(trace->known, capacity * sizeof(*known));
        if (known == NULL) {
            return;
        }
        trace->known = known;
        trace->capacity = capacity;
    }
    struct slice *recipients =
        arena_allocate(&trace->arena, (event->recipient_count + 1) * sizeof(*recipients));
    for (uint32_t i = 0; recipients != NULL && i < event->recipient_count; i++) {
        recipients[i] = arena_copy(&trace->arena, event->recipients[i]);
    }
    trace->known[trace->count++] = (struct known_message){
        .id = event->id,
        .sender = arena_copy(&trace->arena, event->sender),
        .recipients = recipients,
        .recipient_count = recipients != NULL ? event->recipient_count : 0,
    };
}

static const struct known_message *recall(const struct control_trace *trace, struct message_id id)
{
    for (size_t i = trace->count; i > 0; i--) {
        if (id_equal(trace->known[i - 1].id, id)) {
            return &trace->known[i - 1];
        }
    }
    return NULL;
}

/* "a@example.com, b@example.com" for the message itself. */
static json_t *recipients_text(const struct slice *recipients, uint32_t count, int64_t delivery)
{
    if (delivery >= 0) {
        return delivery < count ? control_string(recipients[delivery]) : json_null();
    }
    struct buffer text;
    buffer_init(&text, 0);
    for (uint32_t i = 0; i < count && i < CONTROL_LIST_MAX; i++) {
        buffer_append_text(&text, i > 0 ? ", " : "");
        buffer_append(&text, recipients[i]);
    }
    json_t *value = control_string_or_null(buffer_slice(&text));
    buffer_done(&text);
    return value;
}

bool control_event_begins(const struct event *event)
{
    return event->kind == EVENT_ACCEPTED || event->kind == EVENT_IMPORTED;
}

static bool is_login(const struct event *event)
{
    return event->kind == EVENT_LOGIN || event->kind == EVENT_DENIED;
}

json_t *control_event_row(const struct event *event, const struct slice *sender,
                          const struct slice *recipients, uint32_t recipient_count)
{
    char client[IP_TEXT_SIZE] = "";
    if (event->has_client) {
        ip_to_text(&event->client, client);
    }
    json_t *row = json_object();
    control_set(row, "time", json_integer(event->time_ms));
    control_set(row, "event", json_string(event_kind_text(event->kind)));
    control_set(row, "id", control_id(event->id, -1));
    control_set(row, "delivery", event->delivery < 0 ? json_null() : json_integer(event->delivery));
    control_set(row, "sender", sender != NULL ? control_string(*sender) : json_null());
    control_set(row, "recipient", recipients_text(recipients, recipient_count, event->delivery));
    control_set(row, "server", control_string_or_null(event->server));
    control_set(row, "reason", control_string_or_null(event->reason));
    control_set(row, "reply", control_string_or_null(event->reply));
    control_set(row, "tls", control_string_or_null(event->tls));
    control_set(row, "client", control_string_or_null(slice_from_text(client)));
    control_set(row, "bytes",
                control_event_begins(event) ? json_integer((json_int_t)event->bytes) : json_null());
    control_set(row, "next", control_time(event->next_ms));
    if (event->kind == EVENT_REFUSED || is_login(event)) {
        control_set(row, "left_out", json_integer((json_int_t)event->left_out));
    }
    if (is_login(event)) {
        control_set(row, "user", control_string_or_null(event->sender));
    }
    if (event->subject.length > 0) {
        control_set(row, "id", json_null());
        control_set(row, "subject", control_string(event->subject));
        control_set(row, "from", control_string_or_null(event->from));
        control_set(row, "to", control_string_or_null(event->to));
        control_set(row, "lasted", json_integer(event->lasted_ms));
    }
    return row;
}

static void put_event(struct control_request *request, const struct event *event)
{
    struct control_trace *trace = request->trace;
    if (control_event_begins(event)) {
        remember(trace, event);
    }
    if (trace->name.length > 0 && !slice_equal(event->subject, trace->name) &&
        !slice_equal(event->from, trace->name) && !slice_equal(event->to, trace->name)) {
        return;
    }
    if (trace->delivery >= 0 && event->delivery >= 0 && event->delivery != trace->delivery) {
        return;
    }
    const struct known_message *known = recall(trace, event->id);
    if (event->kind == EVENT_REFUSED) {
        control_row(request, control_event_row(event, event->has_sender ? &event->sender : NULL,
                                               event->recipients, event->recipient_count));
        request->matched++;
        return;
    }
    control_row(request, known == NULL ? control_event_row(event, NULL, NULL, 0)
                                       : control_event_row(event, &known->sender, known->recipients,
                                                           known->recipient_count));
    request->matched++;
}

static void found(void *context, const struct event *events, size_t count, bool end, bool cut)
{
    struct control_request *request = context;
    struct control_trace *trace = request->trace;
    for (size_t i = 0; i < count; i++) {
        put_event(request, &events[i]);
    }
    trace->stepping = false;
    trace->end = end;
    trace->cut = trace->cut || cut;
    control_ask(request);
}

static bool trace_new(struct control_request *request)
{
    request->trace = calloc(1, sizeof(*request->trace));
    if (request->trace != NULL) {
        arena_init(&request->trace->arena);
        request->trace->delivery = -1;
    }
    return request->trace != NULL;
}

enum control_step history_begin(struct control_request *request)
{
    char what[ID_TEXT_LENGTH + 1];
    id_to_text(EVENTS_NO_MESSAGE, what);
    if (trace_new(request)) {
        request->trace->name = control_argument(request, "name");
        request->search =
            events_search_new(request->core->events, slice_from_text(what), found, request);
    }
    return request->search != NULL
               ? STEP_MORE
               : control_fail(request, CONTROL_NOTHING_MATCHED, error_text(ERROR_MEMORY));
}

/* The next of "ids". True: its search begins. */
static bool next_id(struct control_request *request)
{
    const json_t *id = json_array_get(json_object_get(request->arguments, "ids"), request->next_id);
    if (id == NULL) {
        return false;
    }
    events_search_free(request->search);
    request->search = events_search_new(request->core->events,
                                        slice_make(json_string_value(id), json_string_length(id)),
                                        found, request);
    request->next_id++;
    request->trace->end = request->search == NULL;
    request->trace->failed = request->search == NULL;
    return request->search != NULL;
}

static enum control_step trace_ids_begin(struct control_request *request, const json_t *ids)
{
    struct message_id id;
    bool good = json_is_array(ids) && json_array_size(ids) <= EVENTS_IDS_MAX;
    for (size_t i = 0; good && i < json_array_size(ids); i++) {
        const json_t *text = json_array_get(ids, i);
        good = json_is_string(text) &&
               id_from_text(slice_make(json_string_value(text), json_string_length(text)), &id);
    }
    if (!good || json_array_size(ids) == 0) {
        return control_fail(request, CONTROL_USAGE, "\"ids\" must be ids, not too many");
    }
    return trace_new(request) && next_id(request)
               ? STEP_MORE
               : control_fail(request, CONTROL_NOTHING_MATCHED, error_text(ERROR_MEMORY));
}

enum control_step trace_begin(struct control_request *request)
{
    struct slice what = control_argument(request, "what");
    const json_t *ids = json_object_get(request->arguments, "ids");
    if (ids != NULL) {
        return trace_ids_begin(request, ids);
    }
    if (what.length == 0 || what.length > 1000) {
        return control_fail(request, CONTROL_USAGE, "trace needs an id, address or Message-ID");
    }
    if (!trace_new(request)) {
        return control_fail(request, CONTROL_NOTHING_MATCHED, error_text(ERROR_MEMORY));
    }
    struct message_id id;
    size_t slash = slice_find(what, '/');
    uint64_t number;
    if (slash < what.length && id_from_text(slice_take(what, slash), &id)) {
        if (!slice_to_u64(slice_skip(what, slash + 1), &number) || number >= SPOOL_RECIPIENTS_MAX) {
            return control_fail(request, CONTROL_USAGE, "no such delivery number");
        }
        request->trace->delivery = (int64_t)number;
    }
    request->search = events_search_new(request->core->events, what, found, request);
    return request->search != NULL
               ? STEP_MORE
               : control_fail(request, CONTROL_NOTHING_MATCHED, error_text(ERROR_MEMORY));
}

enum control_step trace_step(struct control_request *request)
{
    struct control_trace *trace = request->trace;
    if (trace->stepping) {
        return STEP_WAIT;
    }
    if (!trace->end) {
        trace->stepping = true;
        events_search_step(request->search);
        return STEP_WAIT;
    }
    if (next_id(request)) {
        return STEP_MORE;
    }
    if (trace->failed) {
        return control_fail(request, CONTROL_NOTHING_MATCHED, error_text(ERROR_MEMORY));
    }
    if (request->matched == 0) {
        return control_fail(request, CONTROL_NOTHING_MATCHED, "nothing matched");
    }
    /* The rows stand for themselves; that there was more is said with a good end. */
    request->error = trace->cut ? "only the newest messages are shown" : NULL;
    return STEP_END;
}
