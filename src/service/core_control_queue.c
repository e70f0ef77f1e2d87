/* SPDX-License-Identifier: Apache-2.0
 *
 * `queue list`, `queue show`, and the commands that change deliveries. Each change is one input to
 * relay and one batch of the journal, SPOOL_SYNCED; its row is sent when that is durable.
 */
#include "service/core_control.h"

#include "sys/clock.h"

enum control_step queue_list_step(struct control_request *request)
{
    int64_t until = clock_steady_ns() + CONTROL_STEP_NS;
    enum control_step step = STEP_MORE;
    while (step == STEP_MORE && clock_steady_ns() < until &&
           request->rows.length < CONTROL_OUT_HIGH) {
        step = control_next_match(request);
        if (request->has_match) {
            control_row(request, control_message_row(request, &request->match));
        }
    }
    return step;
}

/* ---- show ------------------------------------------------------------------------------------ */

static json_t *deliveries_piece(struct control_request *request)
{
    const struct match *match = &request->match;
    json_t *array = json_array();
    size_t bytes = 0;
    while (bytes < CONTROL_PIECE_BYTES && request->match_at < match->count) {
        control_piece_add(array, &bytes,
                          control_delivery(request, match, match->deliveries[request->match_at++]));
    }
    return array;
}

/* All its deliveries, not only those that matched. */
static bool widen(struct control_request *request)
{
    struct match *match = &request->match;
    uint32_t count = match->message.recipient_count;
    match->deliveries = arena_allocate(&request->arena, count * sizeof(uint32_t));
    match->count = match->deliveries != NULL ? count : 0;
    for (uint32_t i = 0; i < match->count; i++) {
        match->deliveries[i] = i;
    }
    control_read_fates(request, match);
    return match->count > 0;
}

enum control_step queue_show_step(struct control_request *request)
{
    if (request->has_match && request->match_at < request->match.count) {
        json_t *more = json_object();
        control_set(more, "deliveries", deliveries_piece(request));
        control_more(request, more);
        return STEP_MORE;
    }
    enum control_step step = control_next_match(request);
    if (request->has_match && widen(request)) {
        const struct spool_message *message = &request->match.message;
        request->match_at = 0;
        json_t *row = control_message_row(request, &request->match);
        control_set(row, "message_id", control_string_or_null(message->message_id_header));
        bool known = !request->match.unreadable;
        control_set(row, "copy_of", control_copy_of(message));
        control_set(row, "header_bytes",
                    known ? json_integer((json_int_t)message->header_length) : json_null());
        control_set(row, "envelope", known ? control_envelope(request, message) : json_null());
        control_set(row, "origin", known ? control_origin(message) : json_null());
        control_set(row, "deliveries", deliveries_piece(request));
        control_row(request, row);
    }
    return step;
}

/* ---- changes --------------------------------------------------------------------------------- */

typedef enum error change_fn(struct control_request *request, struct spool_handle handle,
                             uint32_t delivery);

static struct slice reason_or(const struct control_request *request, const char *fallback)
{
    struct slice reason = control_argument(request, "reason");
    return reason.length > 0 ? slice_take(reason, 500) : slice_from_text(fallback);
}

static enum error change_retry(struct control_request *request, struct spool_handle handle,
                               uint32_t delivery)
{
    enum error error = relay_retry(request->core->relay, handle, delivery, core_now(request->core));
    if (error == ERROR_NONE) {
        report_operator(request->core, EVENT_RETRIED, request->match.message.id, delivery,
                        SLICE_LITERAL("by the operator"));
    }
    return error;
}

static enum error change_hold(struct control_request *request, struct spool_handle handle,
                              uint32_t delivery)
{
    return relay_hold(request->core->relay, handle, delivery,
                      reason_or(request, "held by the operator"), core_now(request->core));
}

static enum error change_release(struct control_request *request, struct spool_handle handle,
                                 uint32_t delivery)
{
    return relay_release(request->core->relay, handle, delivery, core_now(request->core));
}

static enum error change_redirect(struct control_request *request, struct spool_handle handle,
                                  uint32_t delivery)
{
    return relay_redirect(request->core->relay, handle, delivery, control_argument(request, "to"),
                          core_now(request->core));
}

static enum error change_discard(struct control_request *request, struct spool_handle handle,
                                 uint32_t delivery)
{
    return relay_discard(request->core->relay, handle, delivery,
                         reason_or(request, "discarded by the operator"), core_now(request->core));
}

static enum error change_bounce(struct control_request *request, struct spool_handle handle,
                                uint32_t delivery)
{
    return relay_bounce(request->core->relay, handle, delivery, control_flag(request, "force"),
                        core_now(request->core));
}

static const struct change {
    const char *name; /* behind "queue " */
    change_fn *fn;
    const char *invalid; /* what ERROR_INVALID means here */
} changes[] = {
    {"retry", change_retry, "not in a state to be tried"},
    {"hold", change_hold, "already held"},
    {"release", change_release, "neither held nor dead"},
    {"redirect", change_redirect, "no such server, and no address"},
    {"discard", change_discard, "not in a state to be discarded"},
    {"bounce", change_bounce, "not in a state to be bounced"},
};

static const struct change *change_of(const struct control_request *request)
{
    const char *name = request->command->name + sizeof("queue ") - 1;
    const struct change *change = changes;
    while (strcmp(change->name, name) != 0) {
        change++;
    }
    return change;
}

/* Why R8 forbids the bounce. */
static const char *bounce_bar(const struct control_request *request, uint32_t delivery)
{
    switch (relay_bounce_bar(request->core->relay, request->match.handle, delivery)) {
    case BOUNCE_BAR_NOBODY:
        return "there is no sender who could be told";
    case BOUNCE_BAR_NO_ROUTE:
        return "no relay carries bounces (bounces = RELAY in the configuration)";
    case BOUNCE_BAR_UNVERIFIED:
        return "the sender is not verified (use --force)";
    case BOUNCE_BAR_UNWANTED:
        return "the sender wants no failure notice (use --force)";
    case BOUNCE_BAR_NONE:
        break;
    }
    return error_text(ERROR_DENIED);
}

static const char *error_for_people(const struct control_request *request,
                                    const struct change *change, uint32_t delivery,
                                    enum error error)
{
    switch (error) {
    case ERROR_AGAIN:
        return "in flight just now";
    case ERROR_INVALID:
        return change->invalid;
    case ERROR_DENIED:
        return bounce_bar(request, delivery);
    case ERROR_MISSING:
        return "gone meanwhile";
    default:
        return error_text(error);
    }
}

static bool is_target(const struct control_request *request, struct slice to)
{
    return slice_find(to, '@') < to.length ||
           relay_config_server(&request->core->config->relay, to) != NO_INDEX;
}

enum control_step queue_change_begin(struct control_request *request)
{
    const struct selection *selection = &request->selection;
    const struct change *change = change_of(request);
    struct slice to = control_argument(request, "to");
    if (!selection->all && control_selection_is_empty(selection)) {
        return control_fail(request, CONTROL_USAGE, "say which messages, or all");
    }
    if (change->fn == change_redirect && to.length == 0) {
        return control_fail(request, CONTROL_USAGE, "redirect needs \"to\"");
    }
    if (change->fn == change_redirect && !is_target(request, to)) {
        return control_fail(request, CONTROL_USAGE, change->invalid);
    }
    if (!request->core->dispatching) {
        return control_not_yet(request);
    }
    return STEP_MORE;
}

static void change_one(struct control_request *request, const struct change *change)
{
    struct match *match = &request->match;
    uint32_t delivery = match->deliveries[request->match_at++];
    enum error error = change->fn(request, match->handle, delivery);
    if (error == ERROR_NONE) {
        request->done++;
        core_act(request->core, SPOOL_SYNCED, control_after(request));
    }
    if (error == ERROR_INVALID && request->selection.ids == NULL) {
        return; /* nobody has named it: what the change is not for is not meant */
    }
    json_t *row = json_object();
    control_set(row, "id", control_id(match->message.id, delivery));
    control_set(row, "recipient", control_recipient(match, delivery));
    control_set(row, "action", json_string(change->name));
    control_set(row, "done", json_boolean(error == ERROR_NONE));
    control_set(row, "error",
                error == ERROR_NONE
                    ? json_null()
                    : json_string(error_for_people(request, change, delivery, error)));
    control_row(request, row);
}

enum control_step queue_change_step(struct control_request *request)
{
    const struct change *change = change_of(request);
    int64_t until = clock_steady_ns() + CONTROL_STEP_NS;
    while (clock_steady_ns() < until && request->rows.length < CONTROL_OUT_HIGH) {
        if (request->has_match && request->match_at < request->match.count) {
            change_one(request, change);
            continue;
        }
        control_progress(request);
        enum control_step step = control_next_match(request);
        request->match_at = 0;
        if (step == STEP_END) {
            if (request->matched > 0 && request->done == 0) {
                return control_fail(request, CONTROL_NOTHING_MATCHED, "nothing could be changed");
            }
            return STEP_END;
        }
    }
    return STEP_MORE;
}
