/* SPDX-License-Identifier: Apache-2.0
 *
 * What edge-in has refused, as events for `trace`; event_bound.h says how much of it.
 */
#include "service/core_internal.h"

#include "sys/clock.h"

#include <stdio.h>

static void add(struct core *core, const struct channel_refusal *refused, uint64_t left_out)
{
    char reply[CHANNEL_REFUSAL_TEXT_MAX + 8], reason[CHANNEL_REFUSAL_TEXT_MAX + 64];
    struct event event = {
        .kind = EVENT_REFUSED,
        .time_ms = core_wall_ms(core),
        .id = refused->id,
        .delivery = EVENTS_NO_DELIVERY,
        .has_client = true,
        .client = refused->client,
        .sender = refused->sender,
        .has_sender = refused->has_sender,
        .recipients = &refused->recipient,
        .recipient_count = refused->recipient.length > 0,
        .left_out = left_out,
    };
    if (refused->stage.length > 0) {
        int length = refused->code == 0 ? 0 : snprintf(reply, sizeof(reply), "%u ", refused->code);
        memcpy(reply + length, refused->text.data, refused->text.length);
        event.reply = slice_make(reply, (size_t)length + refused->text.length);
        length = snprintf(reason, sizeof(reason), "stage %.*s%s%.*s", SLICE_PRINT(refused->stage),
                          refused->helo.length > 0 ? ", HELO " : "", SLICE_PRINT(refused->helo));
        event.reason = slice_take(slice_make(reason, (size_t)length), sizeof(reason) - 1);
    }
    events_add(core->events, &event);
}

bool core_refusal_take(struct core_edge_in *in, struct slice frame)
{
    struct core *core = in->core;
    uint8_t copy[CHANNEL_REFUSAL_MAX];
    struct channel_refusal refused;
    uint64_t left_out;
    if (frame.length > sizeof(copy)) {
        return false;
    }
    memcpy(copy, frame.data, frame.length);
    struct reader reader = reader_make(slice_make(copy, frame.length));
    (void)reader_u8(&reader);
    if (!channel_get_refusal(&reader, &refused)) {
        return false;
    }
    if (core->refusals != NULL &&
        event_bound_take(core->refusals, ip_neighbours(&refused.client), &refused.client,
                         core_now(core).steady_ms, &left_out)) {
        add(core, &refused, left_out);
    } else {
        counter_add(core->counters, COUNTER_REFUSALS_LEFT_OUT, 1);
    }
    return true;
}

void core_refusals_tick(struct core *core)
{
    struct channel_refusal rest = {.id = EVENTS_NO_MESSAGE};
    uint64_t left_out;
    while (core->refusals != NULL &&
           event_bound_over(core->refusals, core_now(core).steady_ms, &rest.client, &left_out)) {
        rest.id = core_make_id(core);
        add(core, &rest, left_out);
    }
}
