/* SPDX-License-Identifier: Apache-2.0
 *
 * `queue watch`: events told as they happen. Who reads too slowly, or asks for more than core can
 * tell beside its work, misses events and is told how many; mail never waits for a reader. While
 * lanes drain, how far they are is told each second.
 */
#include "service/core_control.h"

enum {
    WATCH_IDS_MAX = 100,        /* compared with each event */
    WATCH_ROWS_A_SECOND = 2000, /* an envelope is read for each */
};

enum control_step queue_watch_begin(struct control_request *request)
{
    if (json_array_size(request->selection.ids) > WATCH_IDS_MAX) {
        return control_fail(request, CONTROL_USAGE, "at most 100 ids can be watched");
    }
    request->watching = true;
    return STEP_MORE;
}

enum control_step queue_watch_step(struct control_request *request)
{
    (void)request;
    return STEP_WAIT; /* for core_control_event() */
}

static void put_missed(struct control_request *request, int64_t time_ms)
{
    if (request->missed > 0) {
        json_t *row = json_object();
        control_set(row, "time", json_integer(time_ms));
        control_set(row, "event", json_string("missed"));
        control_set(row, "count", json_integer((json_int_t)request->missed));
        control_row(request, row);
        request->missed = 0;
    }
}

static bool has_room(struct control_request *request)
{
    int64_t now = core_now(request->core).steady_ms;
    if (now - request->window_ms >= 1000) {
        request->window_ms = now;
        request->window_rows = 0;
    }
    return request->window_rows < WATCH_ROWS_A_SECOND &&
           request->rows.length + request->control->out.length < CONTROL_OUT_HIGH;
}

static bool id_matches(const struct control_request *request, const struct event *event)
{
    const json_t *ids = request->selection.ids;
    char text[ID_TEXT_LENGTH + 1];
    id_to_text(event->id, text);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        struct slice id = slice_make(json_string_value(json_array_get(ids, i)),
                                     json_string_length(json_array_get(ids, i)));
        uint64_t delivery;
        if (slice_equal(slice_take(id, ID_TEXT_LENGTH), slice_from_text(text)) &&
            (event->delivery < 0 || id.length <= ID_TEXT_LENGTH + 1 ||
             (slice_to_u64(slice_skip(id, ID_TEXT_LENGTH + 1), &delivery) &&
              delivery == (uint64_t)event->delivery))) {
            return true;
        }
    }
    return ids == NULL;
}

static bool server_matches(const struct control_request *request, const struct event *event)
{
    struct slice server = control_argument(request, "server");
    return server.length == 0 || slice_equal(server, event->server);
}

/* Whose message it is: from the event, else from the spool, where it still lives as a rule. */
struct party {
    bool known;
    struct slice sender;
    const struct slice *recipients;
    uint32_t count;
};

static struct party find_party(struct control_request *request, const struct event *event)
{
    if (control_event_begins(event)) {
        return (struct party){true, event->sender, event->recipients, event->recipient_count};
    }
    struct spool *spool = request->core->spool;
    struct spool_handle handle = spool_find(spool, event->id);
    struct spool_message message;
    arena_reset(&request->arena);
    if (handle.index == SPOOL_NO_HANDLE.index ||
        spool_read_envelope(spool, handle, &request->arena, &message) != ERROR_NONE) {
        return (struct party){.known = false};
    }
    struct slice *recipients =
        arena_allocate(&request->arena, (message.recipient_count + 1) * sizeof(*recipients));
    for (uint32_t i = 0; recipients != NULL && i < message.recipient_count; i++) {
        recipients[i] = message.recipients[i].address;
    }
    return (struct party){recipients != NULL, message.sender, recipients, message.recipient_count};
}

static bool party_matches(const struct selection *selection, const struct party *party,
                          int64_t delivery)
{
    if (!party->known) {
        return !selection->has_sender && !selection->has_recipient && !selection->has_domain;
    }
    if (!control_sender_matches(selection, party->sender)) {
        return false;
    }
    for (uint32_t i = 0; i < party->count; i++) {
        if ((delivery < 0 || delivery == i) &&
            control_recipient_matches(selection, party->recipients[i])) {
            return true;
        }
    }
    return false;
}

static void tell(struct control_request *request, const struct event *event)
{
    if (!id_matches(request, event) || !server_matches(request, event)) {
        return;
    }
    if (!has_room(request)) {
        request->missed++;
        return;
    }
    request->window_rows++;
    struct party party = find_party(request, event);
    if (party_matches(&request->selection, &party, event->delivery)) {
        put_missed(request, event->time_ms);
        control_row(request, control_event_row(event, party.known ? &party.sender : NULL,
                                               party.recipients, party.count));
        control_ask(request);
    }
}

void core_control_event(struct core *core, const struct event *event)
{
    LIST_EACH(&core->controls, at, after)
    {
        struct control *control = LIST_ENTRY(at, struct control, link);
        if (control->request != NULL && control->request->watching) {
            tell(control->request, event);
        }
    }
}

/* ---- drains ------------------------------------------------------------------------------ */

static bool anybody_watches(const struct core *core)
{
    LIST_EACH(&core->controls, at, after)
    {
        const struct control *control = LIST_ENTRY(at, struct control, link);
        if (control->request != NULL && control->request->watching) {
            return true;
        }
    }
    return false;
}

static void tell_progress(struct control_request *request, uint64_t done, uint64_t all)
{
    if (!request->watching || (all == 0 && request->progress_told == 0) || !has_room(request)) {
        return;
    }
    request->progress_told = all;
    if (control_put_progress(&request->rows, done, all) != ERROR_NONE) {
        request->control->broken = true;
    }
    control_ask(request);
}

void control_watch_tick(struct core *core)
{
    uint64_t done = 0, left = 0;
    if (!anybody_watches(core)) {
        return;
    }
    for (uint32_t i = 0; i < relay_lane_count(core->relay); i++) {
        struct relay_lane_view lane;
        relay_lane(core->relay, i, &lane);
        bool drains = lane.state == LANE_DRAINING;
        done += drains ? lane.done : 0;
        left += drains ? lane.left : 0;
    }
    LIST_EACH(&core->controls, at, after)
    {
        struct control *control = LIST_ENTRY(at, struct control, link);
        if (control->request != NULL) {
            tell_progress(control->request, done, left > 0 ? done + left : 0);
        }
    }
}
