/* SPDX-License-Identifier: Apache-2.0
 *
 * Which messages and deliveries a queue command means. Without ids the whole queue is walked in
 * acceptance order, a few milliseconds at a time; what relay knows is asked before the envelope is
 * read from the spool.
 */
#include "service/core_control.h"

#include "service/core_cluster.h"
#include "sys/clock.h"

static bool usage(struct control_request *request, const char *error)
{
    (void)control_fail(request, CONTROL_USAGE, error);
    return false;
}

static bool select_ids(struct control_request *request)
{
    json_t *ids = json_object_get(request->arguments, "ids");
    if (ids == NULL) {
        return true;
    }
    if (!json_is_array(ids) || json_array_size(ids) > CONTROL_IDS_MAX) {
        return usage(request, "\"ids\" must be an array, not too long");
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        if (!json_is_string(json_array_get(ids, i))) {
            return usage(request, "an id must be a string");
        }
    }
    request->selection.ids = json_array_size(ids) > 0 ? ids : NULL;
    return true;
}

bool control_select_envelope(struct control_request *request)
{
    struct selection *selection = &request->selection;
    selection->domain = control_argument(request, "domain");
    selection->has_domain = selection->domain.length > 0;
    selection->sender = control_argument(request, "sender");
    selection->has_sender = selection->sender.length > 0;
    selection->recipient = control_argument(request, "recipient");
    selection->has_recipient = selection->recipient.length > 0;
    selection->dead = control_flag(request, "dead");
    selection->all = control_flag(request, "all");
    const json_t *older = json_object_get(request->arguments, "older");
    if (older != NULL && !json_is_null(older)) {
        if (!json_is_integer(older) || json_integer_value(older) < 0) {
            return usage(request, "\"older\" must be seconds");
        }
        selection->has_older = true;
        selection->older_s = json_integer_value(older);
    }
    return select_ids(request);
}

bool control_select(struct control_request *request)
{
    struct slice server = control_argument(request, "server");
    if (!control_select_envelope(request)) {
        return false;
    }
    if (server.length > 0 && !core_has_server(request->core, server)) {
        (void)control_fail(request, CONTROL_NOTHING_MATCHED, "no such server");
        return false;
    }
    request->selection.server = server;
    return true;
}

bool control_selection_is_empty(const struct selection *selection)
{
    return selection->ids == NULL && !selection->has_domain && !selection->has_sender &&
           !selection->has_recipient && !selection->has_older && !selection->dead &&
           selection->server.length == 0;
}

/* ---- matching -------------------------------------------------------------------------------- */

/* In flight or in doubt there, or one that may go there. */
static bool server_matches(const struct control_request *request,
                           const struct relay_delivery_view *view)
{
    struct slice wanted = request->selection.server;
    bool matches =
        wanted.length == 0 || slice_equal(wanted, core_server_name(request->core, view->server));
    for (uint32_t i = 0; i < view->chain_length && !matches; i++) {
        matches = slice_equal(wanted, core_server_name(request->core, view->chain[i]));
    }
    return matches;
}

static bool dead_matches(const struct selection *selection, bool dead)
{
    return selection->dead ? dead : !dead || selection->ids != NULL || selection->dead_too;
}

/* What relay alone can tell. */
static bool view_matches(const struct control_request *request, uint32_t only,
                         const struct relay_delivery_view *view, bool finished_too)
{
    const struct selection *selection = &request->selection;
    if (only != SPOOL_ALL_DELIVERIES && view->delivery != only) {
        return false;
    }
    if (view->state == DELIVERY_FINISHED) {
        return finished_too;
    }
    return dead_matches(selection, view->state == DELIVERY_DEAD) && server_matches(request, view);
}

bool control_recipient_matches(const struct selection *selection, struct slice address)
{
    if (selection->has_domain) {
        struct slice domain = slice_skip(address, slice_find_last(address, '@') + 1);
        if (!slice_equal_fold(domain, selection->domain)) {
            return false;
        }
    }
    return !selection->has_recipient || slice_matches_fold(address, selection->recipient);
}

bool control_sender_matches(const struct selection *selection, struct slice sender)
{
    if (!selection->has_sender) {
        return true;
    }
    return slice_equal(selection->sender, SLICE_LITERAL("<>"))
               ? sender.length == 0
               : slice_matches_fold(sender, selection->sender);
}

/* What the envelope alone can tell; of one that cannot be read nothing matches. */
static bool message_matches(const struct selection *selection, const struct match *match,
                            int64_t now_ms)
{
    if (match->unreadable) {
        return !selection->has_sender && !selection->has_recipient && !selection->has_domain &&
               !selection->has_older;
    }
    return control_sender_matches(selection, match->message.sender) &&
           (!selection->has_older ||
            (now_ms - match->message.received_ms) / 1000 >= selection->older_s);
}

/* A message whose envelope cannot be read is in the queue all the same: it must be seen there, and
 * can be held, redirected or discarded. False: memory. */
static bool read_message(struct control_request *request, struct spool_handle handle)
{
    const struct core *core = request->core;
    struct match *match = &request->match;
    enum error error = spool_read_envelope(core->spool, handle, &request->arena, &match->message);
    match->unreadable = error != ERROR_NONE;
    if (!match->unreadable || error == ERROR_MEMORY) {
        return !match->unreadable;
    }
    uint32_t count = relay_delivery_count(core->relay, handle);
    struct spool_recipient *recipients =
        arena_allocate(&request->arena, count * sizeof(*recipients));
    for (uint32_t i = 0; recipients != NULL && i < count; i++) {
        recipients[i] = (struct spool_recipient){.address = SLICE_EMPTY};
    }
    match->message = (struct spool_message){
        .id = spool_id(core->spool, handle), .recipients = recipients, .recipient_count = count};
    return recipients != NULL;
}

static uint32_t count_candidates(const struct control_request *request, struct spool_handle handle,
                                 uint32_t only)
{
    uint32_t count = relay_delivery_count(request->core->relay, handle);
    uint32_t candidates = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct relay_delivery_view view;
        if (relay_delivery(request->core->relay, handle, i, &view) &&
            view_matches(request, only, &view, false)) {
            candidates++;
        }
    }
    return candidates;
}

/* Fills request->match. False: it does not match. */
static bool match_message(struct control_request *request, struct spool_handle handle,
                          uint32_t only)
{
    struct core *core = request->core;
    struct match *match = &request->match;
    arena_reset(&request->arena);
    uint32_t candidates = count_candidates(request, handle, only);
    if (candidates == 0 || !read_message(request, handle) ||
        !message_matches(&request->selection, match, core_wall_ms(request->core))) {
        return false;
    }
    match->handle = handle;
    match->count = 0;
    match->fates = NULL;
    match->deliveries = arena_allocate(&request->arena, candidates * sizeof(uint32_t));
    for (uint32_t i = 0; match->deliveries != NULL && i < match->message.recipient_count; i++) {
        struct relay_delivery_view view;
        if (relay_delivery(core->relay, handle, i, &view) &&
            view_matches(request, only, &view, false) &&
            control_recipient_matches(&request->selection, match->message.recipients[i].address)) {
            match->deliveries[match->count++] = i;
        }
    }
    return match->count > 0;
}

bool control_parse_id(const json_t *text, struct message_id *ret_id, uint32_t *ret_delivery)
{
    struct slice whole = slice_make(json_string_value(text), json_string_length(text));
    size_t slash = slice_find(whole, '/');
    uint64_t number = SPOOL_ALL_DELIVERIES;
    if (slash < whole.length &&
        (!slice_to_u64(slice_skip(whole, slash + 1), &number) || number >= SPOOL_RECIPIENTS_MAX)) {
        return false;
    }
    *ret_delivery = (uint32_t)number;
    return id_from_text(slice_take(whole, slash), ret_id);
}

/* Several parts of a message may be here. */
static struct spool_handle find_part(struct control_request *request, struct message_id id)
{
    const struct core *core = request->core;
    if (core->cluster == NULL) {
        return spool_find(core->spool, id);
    }
    struct spool_handle handle = spool_postgres_next_part(core->spool, id, request->share);
    if (handle.index != SPOOL_NO_HANDLE.index) {
        request->share = spool_postgres_share(core->spool, handle);
    }
    return handle;
}

/* The next candidate. False: there is none. */
static bool next_candidate(struct control_request *request, struct spool_handle *ret_handle,
                           uint32_t *ret_only)
{
    *ret_only = SPOOL_ALL_DELIVERIES;
    *ret_handle = SPOOL_NO_HANDLE;
    json_t *ids = request->selection.ids;
    if (ids == NULL) {
        return relay_next_message(request->core->relay, &request->messages, ret_handle);
    }
    struct message_id id;
    if (request->next_id >= json_array_size(ids)) {
        return false;
    }
    if (control_parse_id(json_array_get(ids, request->next_id), &id, ret_only)) {
        *ret_handle = find_part(request, id);
    }
    if (ret_handle->index == SPOOL_NO_HANDLE.index || request->core->cluster == NULL) {
        request->next_id++; /* no more of it here */
        request->share = -1;
    }
    return true;
}

enum control_step control_next_match(struct control_request *request)
{
    int64_t until = clock_steady_ns() + CONTROL_STEP_NS;
    struct spool_handle handle;
    uint32_t only;
    control_unpin(request);
    request->has_match = false;
    for (unsigned i = 0; next_candidate(request, &handle, &only); i++) {
        request->looked_at++;
        if (handle.index != SPOOL_NO_HANDLE.index && match_message(request, handle, only)) {
            spool_pin(request->core->spool, handle); /* else it may be another's at the next turn */
            request->pinned = request->has_match = true;
            request->matched++;
            return STEP_MORE;
        }
        if (i % 16 == 15 && clock_steady_ns() >= until) {
            return STEP_MORE;
        }
    }
    if (request->matched == 0) {
        return control_fail(request, CONTROL_NOTHING_MATCHED, "nothing matched");
    }
    return STEP_END;
}

void control_progress(struct control_request *request)
{
    if (request->looked_at - request->progress_told < CONTROL_PROGRESS_EVERY) {
        return;
    }
    struct relay_totals totals;
    relay_totals(request->core->relay, &totals);
    uint64_t done = request->looked_at;
    uint64_t all =
        request->selection.ids != NULL ? json_array_size(request->selection.ids) : totals.messages;
    request->progress_told = done;
    if (control_put_progress(&request->rows, done, all > done ? all : done) != ERROR_NONE) {
        request->control->broken = true;
    }
}
