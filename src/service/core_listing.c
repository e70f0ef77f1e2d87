/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the edges: edge-in asks whether DNS lists know a client, edge-out asks DNS. Nothing is
 * kept here: the question carries the way back, and who does not hear of it gives up by itself.
 */
#include "service/core_internal.h"

enum { LISTING_BYTES = 1 + 8 + 16 };

static void answer(struct core_edge_in *in, const struct channel_listing *listing)
{
    struct core *core = in->core;
    buffer_clear(&core->frame);
    buffer_put_u8(&core->frame, CHANNEL_LISTED);
    channel_put_listing(&core->frame, listing);
    core_answer_send(in);
}

bool core_listing_take(struct core_edge_in *in, struct slice frame)
{
    struct core *core = in->core;
    uint8_t copy[LISTING_BYTES];
    struct channel_listing asked = {.edge = (uint8_t)in->index, .epoch = in->epoch};
    struct reader reader;
    if (!core_request_read(frame, copy, sizeof(copy), &reader, &asked.token, &asked.client)) {
        return false;
    }
    struct core_edge_out *out = &core->out[core->out_count > 0 ? asked.token % core->out_count : 0];
    if (out->ring == NULL) {
        answer(in, &asked); /* nobody to ask */
        return true;
    }
    buffer_clear(&core->frame);
    buffer_put_u8(&core->frame, CHANNEL_LOOK_UP);
    channel_put_listing_question(&core->frame, &asked);
    core_out_send(out, &core->frame);
    return true;
}

bool core_listing_looked_up(struct core_edge_out *out, struct reader *reader)
{
    struct core *core = out->core;
    struct channel_listing found;
    if (!channel_get_listing(reader, &found) || found.edge >= CORE_EDGES_MAX) {
        return false;
    }
    struct core_edge_in *in = &core->in[found.edge];
    if (in->ring != NULL && in->epoch == found.epoch) {
        answer(in, &found);
    }
    return true;
}
