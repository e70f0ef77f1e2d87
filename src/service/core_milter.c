/* SPDX-License-Identifier: Apache-2.0
 *
 * What edge-in's loops say of filters: one that any of them cannot reach is an alert, until all can
 * or it is configured no more.
 */
#include "service/core_internal.h"

enum { MILTER_FRAME_MAX = 1 + 4 + MILTER_NAME_MAX + 1 + 4 + CHANNEL_WHY_MAX };

static const struct milter_config *find_milter(const struct core *core, struct slice name,
                                               uint32_t *ret_index)
{
    for (uint32_t i = 0; i < core->config->milter_count; i++) {
        if (slice_equal(core->config->milters[i].name, name)) {
            *ret_index = i;
            return &core->config->milters[i];
        }
    }
    return NULL;
}

bool core_milter_take(struct core_edge_in *in, struct slice frame)
{
    uint8_t copy[MILTER_FRAME_MAX];
    uint32_t index;
    if (frame.length > sizeof(copy)) {
        return false;
    }
    memcpy(copy, frame.data, frame.length);
    struct reader reader = reader_make(slice_make(copy, frame.length));
    (void)reader_u8(&reader);
    struct slice name = reader_bytes(&reader);
    bool is_away = reader_u8(&reader) != 0;
    struct slice why = reader_bytes(&reader);
    if (reader.failed || reader.rest.length > 0) {
        return false;
    }
    const struct milter_config *milter = find_milter(in->core, name, &index);
    if (milter == NULL) {
        return true; /* of another configuration */
    }
    uint64_t bit = UINT64_C(1) << in->index;
    in->core->milters_away[index] =
        is_away ? in->core->milters_away[index] | bit : in->core->milters_away[index] & ~bit;
    if (is_away || in->core->milters_away[index] == 0) {
        report_milter(in->core, milter->name, is_away ? why : SLICE_EMPTY);
    }
    return true;
}

void core_milter_edge_gone(struct core_edge_in *in)
{
    uint64_t bit = UINT64_C(1) << in->index;
    for (uint32_t i = 0; i < in->core->config->milter_count; i++) {
        if (in->core->milters_away[i] == bit) {
            report_milter(in->core, in->core->config->milters[i].name, SLICE_EMPTY);
        }
        in->core->milters_away[i] &= ~bit;
    }
}

void core_milter_forget(struct core *core, const struct service_config *config)
{
    for (uint32_t i = 0; i < config->milter_count; i++) {
        if (core->milters_away[i] != 0) {
            report_milter(core, config->milters[i].name, SLICE_EMPTY);
        }
        core->milters_away[i] = 0;
    }
}
